"""Weights that vidanon's own training code makes, as files."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from vidanon.errors import ModelsError

if TYPE_CHECKING:
    from torch import Tensor, nn

    from vidanon.networks.mapper import AttributeMapper


def load_weights(path: Path) -> dict[str, Tensor]:
    """Read a safetensors file, all floating point tensors as float32.

    Args:
        path: of the package (:func:`vidanon.models.registry.weights_path`) or of a training run.

    Raises:
        ModelsError: the file is missing or is no safetensors file.
    """
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    try:
        weights: dict[str, Tensor] = load_file(path)
    except (OSError, SafetensorError) as error:
        raise ModelsError(f"{path}: not readable as safetensors; give a file of 'vidanon train'") from error
    return {key: x.float() if x.is_floating_point() else x for key, x in weights.items()}


def take_weights(module: nn.Module, path: Path) -> None:
    """Give a module the weights of a file.

    Raises:
        ModelsError: the file is missing, is no safetensors file, or does not fit the module.
    """
    try:
        module.load_state_dict(load_weights(path))
    except RuntimeError as error:
        raise ModelsError(f"{path}: does not fit this version of vidanon; train it again") from error


def save_weights(module: AttributeMapper, path: Path) -> None:
    """Write attribute encoder and mapper as the package ships them: float16, statistics and units float32."""
    from safetensors.torch import save_file

    exact = ("running_mean", "running_var", "blendshape_", "w_mean", "geometry.", "turn.")
    state: dict[str, Tensor] = {}
    for name, x in module.state_dict().items():
        keep = not x.is_floating_point() or any(mark in name for mark in exact)
        state[name] = x.contiguous().cpu() if keep else x.half().contiguous().cpu()
    part = path.with_suffix(".part")
    save_file(state, part)
    part.replace(path)
