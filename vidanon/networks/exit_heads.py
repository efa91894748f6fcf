"""Early exits of the generator: smaller pictures at a fraction of the cost.

A face of 120 px on screen gains nothing from 1024 px. A small trained head turns the features after the 64,
128 or 256 px block into a picture of twice that size.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, cast

import torch
from torch import Tensor, nn
from torch.nn import functional

from vidanon.models.registry import weights_path
from vidanon.networks.generator import (
    FULL_PX,
    WIDTHS,
    Block,
    Generator,
    Modulation,
    block_order,
    blocks_up_to,
    inverse_haar,
    inverse_haar_in_blocks,
    load_generator,
)
from vidanon.networks.weights import load_weights

if TYPE_CHECKING:
    from vidanon.models.registry import ModelStore

EXITS_PX = (128, 256, 512)
"""Side lengths of the pictures that a trained head makes."""

HIDDEN = 64
"""Channels of the hidden layers of a head."""
COEFFICIENTS = 12
"""Wavelet coefficients of RGB."""
WINDOW_FROM_PX = 32
"""Side of the features from which a window is cut; what comes before costs little."""
Window = tuple[float, float, float, float]
"""x0, y0, x1, y1 in shares of the picture's side; whole features of `WINDOW_FROM_PX`."""


class ExitHead(nn.Module):
    """Features of one block to wavelet coefficients of a picture of twice their size."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.modulation1 = Modulation(channels)
        self.conv1 = nn.Conv2d(channels, HIDDEN + COEFFICIENTS, 1)
        self.modulation2 = Modulation(HIDDEN)
        self.depthwise = nn.Conv2d(HIDDEN, HIDDEN, 3, padding=1, groups=HIDDEN, bias=False)
        self.conv2 = nn.Conv2d(HIDDEN, HIDDEN, 1)
        self.modulation3 = Modulation(HIDDEN)
        self.conv3 = nn.Conv2d(HIDDEN, COEFFICIENTS, 3, padding=1)
        self.inverse_haar = inverse_haar

    def hidden(self, x: Tensor, w: Tensor) -> Tensor:
        """Map the first hidden layer, before its activation, to what the last convolution takes."""
        x = self.modulation2(functional.leaky_relu(x, 0.2), w)
        x = x + functional.leaky_relu(self.conv2(self.depthwise(x)), 0.2)
        return cast(Tensor, self.modulation3(x, w))

    def finish(self, x: Tensor, w: Tensor) -> Tensor:
        """Map what the first convolution gives to RGB."""
        hidden, skipped = x[:, :HIDDEN], x[:, HIDDEN:]
        return self.inverse_haar(self.conv3(self.hidden(hidden, w)) + skipped)

    def forward(self, x: Tensor, w: Tensor) -> Tensor:
        """Map features (n, channels, h, h) and w (n, 512) to RGB (n, 3, 2h, 2h), about [-1, 1]."""
        return self.finish(self.conv1(self.modulation1(x, w)), w)


def new_heads() -> nn.ModuleDict:
    """Build untrained heads, by the side length of their picture as a string."""
    return nn.ModuleDict({str(px): ExitHead(WIDTHS[px // 2]) for px in EXITS_PX})


class ExitGenerator(nn.Module):
    """The generator up to one exit."""

    def __init__(
        self, generator: Generator, exit_px: int, head: ExitHead | None = None, window: Window | None = None
    ) -> None:
        """Cut the generator.

        Args:
            generator: the full generator; with a window its constant noise is cut in place.
            exit_px: side length of the picture: 128, 256, 512, or 1024 for the full generator.
            head: trained head of this exit; None only for 1024.
            window: the part of the picture that is made, None for all of it.

        Raises:
            ValueError: there is no such exit, the head is missing or one too many, or the window cuts through
                features.
        """
        super().__init__()
        if exit_px not in (*EXITS_PX, FULL_PX) or (head is None) != (exit_px == FULL_PX):
            raise ValueError(f"no exit at {exit_px} px with {'no' if head is None else 'a'} head")
        self.exit_px = exit_px
        self.generator = generator
        self.head = head
        self.window = window
        if window is not None and any(edge * WINDOW_FROM_PX % 1 for edge in window):
            raise ValueError(f"the window {window} cuts through features of {WINDOW_FROM_PX} px")
        coarse, count = (blocks_up_to(size) for size in (WINDOW_FROM_PX, exit_px // 2))
        self.fine = cast("list[Block]", list(generator.blocks[coarse:count]))
        for block in self.fine if window is not None else ():
            for conv in (block.conv1, block.conv2):
                conv.noise = nn.Parameter(_cut(conv.noise.data, window))

    def forward(self, w: Tensor) -> Tensor:
        """Map float32 w (n, 512) to RGB (n, 3, exit_px, exit_px) or its window, about [-1, 1]."""
        x = _cut(self.generator.features(w, WINDOW_FROM_PX), self.window)
        for block in self.fine:
            x = block(x, w)
        return self.generator.picture(x, w) if self.head is None else self.head(x, w)


def _cut(x: Tensor, window: Window | None) -> Tensor:
    """Cut the window from square features (n, c, h, h)."""
    if window is None:
        return x
    # Integers throughout: when the module is traced, the shape is a tensor.
    x0, y0, x1, y1 = (int(edge * WINDOW_FROM_PX) * x.shape[-1] // WINDOW_FROM_PX for edge in window)
    return x[..., y0:y1, x0:x1]


def arrange_for_inference(module: ExitGenerator) -> ExitGenerator:
    """Reorder channels, in place, so that the Haar steps work on whole blocks; the pictures stay the same.

    The features between the blocks come out in another order, so this is for finished pictures only.
    """
    generator = module.generator
    before = generator.first
    for block in cast("list[Block]", generator.blocks[: blocks_up_to(module.exit_px // 2)]):
        _reorder(before.conv, block.up.affine)
        block.inverse_haar = inverse_haar_in_blocks
        before = block.conv2
    if module.head is None:
        generator.inverse_haar = inverse_haar_in_blocks
        _reorder(generator.rgb)
    else:
        module.head.inverse_haar = inverse_haar_in_blocks
        _reorder(module.head.conv3)
        _reorder(module.head.conv1, last=COEFFICIENTS)
    return module


def _reorder(*layers: nn.Conv2d | nn.Linear, last: int = 0) -> None:
    """Put the outputs of layers (they must have a bias), or the last ones, into :func:`block_order`."""
    for layer in layers:
        assert layer.bias is not None
        before = len(layer.bias) - last if last else 0
        order = torch.cat([torch.arange(before), before + block_order(len(layer.bias) - before)])
        layer.weight.data, layer.bias.data = layer.weight.data[order], layer.bias.data[order]


def load_exit_generator(models: ModelStore, exit_px: int, window: Window | None = None) -> ExitGenerator:
    """Build one exit (or a window of it) with the weights of the package, frozen, in evaluation mode.

    Raises:
        ModelsError: the generator's file or the package's weights are missing.
        ValueError: there is no such exit.
    """
    generator = load_generator(models)
    head = None
    if exit_px in EXITS_PX:
        prefix = f"{exit_px}."
        weights = load_weights(weights_path("exits.safetensors"))
        head = ExitHead(WIDTHS[exit_px // 2])
        head.load_state_dict({k.removeprefix(prefix): x for k, x in weights.items() if k.startswith(prefix)})
    return ExitGenerator(generator, exit_px, head, window).eval().requires_grad_(False)
