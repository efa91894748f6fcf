"""Keep our own torch modules as converted OpenVINO graphs.

Tracing a generator exit takes seconds and importing torch two more; a graph on disk takes neither. A graph is
used again only while the weights, the code of the networks, OpenVINO, torch and the input sizes are those it
was made with.
"""

from __future__ import annotations

import hashlib
import logging
import mmap
import shutil
import tempfile
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Any

from vidanon.models.registry import sha256_of
from vidanon.networks.runtime import (
    Array,
    Network,
    OpenVinoNetwork,
    TorchNetwork,
    graph_from_module,
    shared,
    state_of_file,
)

if TYPE_CHECKING:
    from torch import nn

_GRAPH, _SUM = "graph.xml", "crc32"
_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Recipe:
    """How a network is made from torch.

    Attributes:
        name: of the network, part of a folder's name.
        build: makes the module; it should import torch only when it is called.
        example: inputs with a batch of one; the graph is made for exactly these shapes.
        weights: the files that the module is built from.
        options: numbers that it is built with besides.
    """

    name: str
    build: Callable[[], nn.Module]
    example: tuple[Array, ...]
    weights: tuple[Path, ...]
    options: tuple[float, ...] = ()

    def digest(self) -> str:
        """Return the hexadecimal digest of all that decides what the graph computes."""
        code = sorted(Path(__file__).parent.glob("*.py"))
        versions = [metadata.version(package) for package in ("openvino", "torch")]
        made_with = str((versions, [(x.shape, x.dtype.str) for x in self.example], self.options)).encode()
        files = (bytes.fromhex(sha256_of(path)) for path in (*self.weights, *code))
        return hashlib.sha256(b"".join([hashlib.sha256(made_with).digest(), *files])).hexdigest()


def shared_network(
    recipe: Recipe, folder: Path, device: str = "cpu", workers: int = 2, bfloat16: bool = False
) -> Network:
    """Return :func:`converted_network`, loaded once per process; a recipe's name stands for its code."""
    shapes = tuple((x.shape, x.dtype.str) for x in recipe.example)
    files = map(state_of_file, recipe.weights)
    key = (recipe.name, shapes, recipe.options, *files, device, workers, bfloat16)
    return shared(key, lambda: converted_network(recipe, folder, device, workers, bfloat16))


def converted_network(
    recipe: Recipe, folder: Path, device: str = "cpu", workers: int = 2, bfloat16: bool = False
) -> Network:
    """Load the converted graph of a module from ``folder``, or convert the module and keep the graph there.

    A folder that cannot be written to only costs the time of converting again.

    Args:
        recipe: the module.
        folder: where converted graphs are kept; made if need be.
        device: ``cpu``, or ``cuda``, where the module itself runs.
        workers: number of threads that will call.
        bfloat16: see :class:`~vidanon.networks.runtime.OpenVinoNetwork`.
    """
    if device != "cpu":
        return TorchNetwork(recipe.build(), device)
    home = _home(recipe, folder)
    graph = _read(home)
    if graph is None:
        graph = graph_from_module(recipe.build(), recipe.example, any_batch=False)
        try:
            _keep(graph, home, recipe.name)
            # The same graph read back is optimised in another way: without this, the run that converts would
            # differ from all later ones in the last bits, and so in the bytes of its result.
            graph = _read(home) or graph
        except OSError as error:
            _log.info("the converted graph of %s cannot be kept in %s: %s", recipe.name, folder, error)
    return OpenVinoNetwork(graph, workers, bfloat16)


def is_converted(recipe: Recipe, folder: Path) -> bool:
    """Say whether a graph for the module is kept in ``folder``; whether it is sound shows when it is read."""
    return (_home(recipe, folder) / _SUM).is_file()


def _home(recipe: Recipe, folder: Path) -> Path:
    return folder / f"{recipe.name}-{recipe.digest()[:16]}"


def _sum(home: Path) -> str:
    """Return what tells a damaged graph; sha256 of all that a run loads would take 1.4 s of its time."""
    total = 0
    for path in (home / _GRAPH, (home / _GRAPH).with_suffix(".bin")):
        with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
            total = zlib.crc32(data, total)
    return f"{total:08x}"


def _read(home: Path) -> Any | None:
    """Return the graph kept in a folder, or None where there is none or its checksum does not fit."""
    import openvino as ov

    try:
        if (home / _SUM).read_text("ascii") != _sum(home):
            _log.info("the converted graph in %s is damaged; converting again", home)
            return None
    except (OSError, ValueError):  # missing, no text, or empty
        return None
    return ov.Core().read_model(home / _GRAPH)


def _keep(graph: Any, home: Path, name: str) -> None:
    """Write a graph in one step and remove older ones of the same name."""
    import openvino as ov

    home.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=f".{name}-", dir=home.parent, ignore_cleanup_errors=True) as part:
        fresh = Path(part) / "fresh"
        fresh.mkdir()
        ov.save_model(graph, fresh / _GRAPH, compress_to_fp16=False)
        (fresh / _SUM).write_text(_sum(fresh), "ascii")
        for old in home.parent.glob(f"{name}-*"):
            shutil.rmtree(old, ignore_errors=True)
        try:
            fresh.rename(home)
        except OSError:
            if not home.is_dir():  # else another run was faster
                raise
