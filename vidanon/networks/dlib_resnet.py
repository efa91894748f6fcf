"""dlib's face recognition network (King 2017), read from dlib's own file.

dlib computes it on one core, with the lock of Python held; under OpenVINO it takes a tenth of the time and
other threads go on. A file is a row of layers from input to output, each with its name and its parameters.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from vidanon.errors import ModelsError
from vidanon.types import Float

DESCRIPTOR_SIZE = 128
_MEAN_RGB = (122.782, 117.001, 104.298)
_BLOCKS = ((32, 3, False), (64, 4, True), (128, 3, True), (256, 3, True), (256, 1, True))
"""Channels and number of the blocks of each level, and whether its first one halves the side length."""
_LAYERS = {b"\x05con_4": 0, b"\x07affine_": 0, b"\x04fc_2": 2}
"""Names of the layers with parameters, and how many integers stand before these."""
_TENSOR_VERSION = 2


class _Scaled(nn.Module):
    """A convolution, then a factor and an offset per channel."""

    def __init__(self, channels_in: int, channels: int, kernel_px: int, stride: int) -> None:
        super().__init__()
        padding = 0 if stride > 1 else kernel_px // 2
        self.conv = nn.Conv2d(channels_in, channels, kernel_px, stride, padding)
        self.scale = nn.Parameter(torch.ones(1, channels, 1, 1))
        self.offset = nn.Parameter(torch.zeros(1, channels, 1, 1))

    def forward(self, x: Tensor) -> Tensor:
        """Map float32 (n, channels_in, h, w) to (n, channels, h / stride, w / stride)."""
        result: Tensor = self.conv(x) * self.scale + self.offset
        return result


class _Block(nn.Module):
    """Two convolutions and a shortcut without weights; what is smaller is padded with zeros."""

    def __init__(self, channels_in: int, channels: int, halves: bool) -> None:
        super().__init__()
        self.first = _Scaled(channels_in, channels, 3, 2 if halves else 1)
        self.second = _Scaled(channels, channels, 3, 1)
        self._halves = halves

    def forward(self, x: Tensor) -> Tensor:
        """Map float32 (n, channels_in, h, w) to (n, channels, h', w')."""
        y = self.second(functional.relu(self.first(x)))
        if self._halves:
            x = functional.avg_pool2d(x, 2)
            x = functional.pad(x, (0, 0, 0, 0, 0, y.shape[1] - x.shape[1]))
            y = functional.pad(y, (0, x.shape[3] - y.shape[3], 0, x.shape[2] - y.shape[2]))
        return functional.relu(x + y)


class DlibNet(nn.Module):
    """dlib's ``anet_type``: a ResNet with 29 convolutions."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = _Scaled(3, 32, 7, 2)
        blocks, channels_in = [], 32
        for channels, count, halves in _BLOCKS:
            for number in range(count):
                blocks.append(_Block(channels_in, channels, halves and number == 0))
                channels_in = channels
        self.blocks = nn.Sequential(*blocks)
        self.out = nn.Linear(channels_in, DESCRIPTOR_SIZE, bias=False)

    def forward(self, chip: Tensor) -> Tensor:
        """Map aligned faces, float32 RGB (n, 3, 150, 150) in 0..255, to descriptors (n, 128)."""
        x = (chip - chip.new_tensor(_MEAN_RGB)[:, None, None]) / 256
        x = functional.max_pool2d(functional.relu(self.stem(x)), 3, 2)
        descriptor: Tensor = self.out(self.blocks(x).mean((2, 3)))
        return descriptor


def load_dlib_net(path: Path) -> DlibNet:
    """Read the network from dlib's file, frozen, in evaluation mode.

    Raises:
        ModelsError: the file holds another network, or none.
    """
    module = DlibNet()
    parameters = _parameters(path.read_bytes())
    try:
        for layer in module.modules():
            if isinstance(layer, _Scaled):
                _set(next(parameters), layer.conv.weight, layer.conv.bias)
                _set(next(parameters), layer.scale, layer.offset)
        # dlib keeps one row per input of a fully connected layer.
        matrix = next(parameters).reshape(module.out.in_features, DESCRIPTOR_SIZE)
        module.out.weight.data = torch.from_numpy(matrix.T.copy())
    except (StopIteration, ValueError, IndexError) as error:
        raise ModelsError(f"model file {path} is not dlib's; run 'vidanon models fetch'") from error
    return module.eval().requires_grad_(False)


def _set(values: Float, *targets: Tensor | None) -> None:
    """Fill tensors one after the other with a row of values, which must be as many."""
    parts = [target for target in targets if target is not None]
    pieces = np.split(values, np.cumsum([part.numel() for part in parts])[:-1])
    for part, piece in zip(parts, pieces, strict=True):
        part.data = torch.from_numpy(piece.reshape(part.shape).copy())


def _parameters(data: bytes) -> Iterator[Float]:
    """Yield the parameters of the layers that have any, float32 (count,), in the order of the file."""
    place = 0
    while True:
        found = [(at, name) for name in _LAYERS if (at := data.find(name, place)) >= 0]
        if not found:
            return
        at, name = min(found)
        place = at + len(name)
        for _ in range(_LAYERS[name]):
            _, place = _integer(data, place)
        version, place = _integer(data, place)
        count = 1
        for _ in range(4):
            size, place = _integer(data, place)
            count *= size
        if version != _TENSOR_VERSION:
            raise ValueError(f"tensors of version {version}")
        yield np.frombuffer(data, "<f4", count, place).astype(np.float32)
        place += 4 * count


def _integer(data: bytes, place: int) -> tuple[int, int]:
    """Read one of dlib's integers: a byte that counts bytes, then these; return it and what follows."""
    size = data[place] & 0x0F
    return int.from_bytes(data[place + 1 : place + 1 + size], "little"), place + 1 + size
