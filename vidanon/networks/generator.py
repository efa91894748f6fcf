"""The face generator, MobileStyleGAN (Belousov 2021), as a torch module fast enough to train through.

The weights come from the OpenVINO graph ``generator-synthesis``, where demodulation is already folded in. A
block is: modulation -> inverse Haar wavelet 2x up -> twice [modulation, depthwise 3x3, pointwise, constant
noise, bias, leaky ReLU]. A last modulated 1x1 convolution and one more Haar step give RGB.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, cast

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from vidanon.networks.runtime import Network, OpenVinoNetwork

if TYPE_CHECKING:
    from vidanon.models.registry import ModelStore

W_SIZE = 512
FULL_PX = 1024
WIDTHS = {4: 512, 8: 512, 16: 512, 32: 512, 64: 512, 128: 256, 256: 128, 512: 64}
"""Channels of the features by their side length in pixels."""


def inverse_haar(x: Tensor) -> Tensor:
    """Turn wavelet coefficients (n, 4c, h, w) into (n, c, 2h, 2w).

    The first c channels are the averages; the others hold three details per channel: of rows, of columns,
    of both. Sums and ``pixel_shuffle``: a grouped transposed convolution is several times slower on CPU.
    """
    n, channels, height, width = x.shape
    c = channels // 4
    average = x[:, :c]
    rows, columns, both = x[:, c:].reshape(n, c, 3, height, width).unbind(2)
    plus, minus = average + rows, average - rows
    plus_detail, minus_detail = columns + both, columns - both
    corners = (plus + plus_detail, plus - plus_detail, minus + minus_detail, minus - minus_detail)
    return functional.pixel_shuffle(torch.stack(corners, 2).flatten(1, 2) * 0.5, 2)


def inverse_haar_in_blocks(x: Tensor) -> Tensor:
    """As :func:`inverse_haar`, for input in :func:`block_order`.

    Whole blocks of channels are split and joined, which OpenVINO does several times faster.
    """
    n, channels, height, width = x.shape
    average, rows, columns, both = x.chunk(4, 1)
    plus, minus = average + rows, average - rows
    plus_detail, minus_detail = columns + both, columns - both
    corners = (plus + plus_detail, plus - plus_detail, minus + minus_detail, minus - minus_detail)
    joined = torch.cat(corners, 1) * 0.5
    spread = joined.reshape(n, 2, 2, channels // 4, height, width).permute(0, 3, 4, 1, 5, 2)
    return spread.reshape(n, channels // 4, 2 * height, 2 * width)


def block_order(channels: int) -> Tensor:
    """Return the order of wavelet channels, int64 (channels,), that puts each kind into one block."""
    c = channels // 4
    details = c + torch.arange(3 * c).reshape(c, 3)
    return torch.cat([torch.arange(c), details.T.flatten()])


class Modulation(nn.Module):
    """Scale every channel by an affine function of w."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.affine = nn.Linear(W_SIZE, channels)

    def forward(self, x: Tensor, w: Tensor) -> Tensor:
        """Scale (n, c, h, w) by one factor per row and channel, from w (n, 512)."""
        return x * cast(Tensor, self.affine(w))[:, :, None, None]


class StyledConv(nn.Module):
    """Modulation, convolution (depthwise separable but for the first), noise, leaky ReLU."""

    def __init__(self, channels_in: int, channels_out: int, size: int, separable: bool = True) -> None:
        super().__init__()
        self.modulation = Modulation(channels_in)
        self.depthwise = (
            nn.Conv2d(channels_in, channels_in, 3, padding=1, groups=channels_in, bias=False)
            if separable
            else nn.Identity()
        )
        self.conv = (
            nn.Conv2d(channels_in, channels_out, 1)
            if separable
            else nn.Conv2d(channels_in, channels_out, 3, padding=1)
        )
        self.noise = nn.Parameter(torch.zeros(1, 1, size, size))

    def forward(self, x: Tensor, w: Tensor) -> Tensor:
        """Map (n, channels_in, size, size) to (n, channels_out, size, size)."""
        x = self.conv(self.depthwise(self.modulation(x, w)))
        return functional.leaky_relu(x + self.noise, 0.2)


class Block(nn.Module):
    """Double the side length."""

    def __init__(self, size: int) -> None:
        super().__init__()
        channels_in, channels = WIDTHS[size // 2], WIDTHS[size]
        self.up = Modulation(channels_in)
        self.conv1 = StyledConv(channels_in // 4, channels, size)
        self.conv2 = StyledConv(channels, channels, size)
        self.inverse_haar = inverse_haar

    def forward(self, x: Tensor, w: Tensor) -> Tensor:
        """Map features of half the size to features of this size."""
        x = self.inverse_haar(self.up(x, w))
        return cast(Tensor, self.conv2(self.conv1(x, w), w))


def blocks_up_to(size: int) -> int:
    """Return how many blocks make features of a side length, pixels."""
    return size.bit_length() - 3


class Generator(nn.Module):
    """w to a picture of a person who does not exist."""

    def __init__(self) -> None:
        super().__init__()
        self.constant = nn.Parameter(torch.zeros(1, WIDTHS[4], 4, 4))
        self.first = StyledConv(WIDTHS[4], WIDTHS[4], 4, separable=False)
        self.blocks = nn.ModuleList(Block(size) for size in WIDTHS if size > 4)
        self.rgb_modulation = Modulation(WIDTHS[512])
        self.rgb = nn.Conv2d(WIDTHS[512], 12, 1)
        self.inverse_haar = inverse_haar

    def features(self, w: Tensor, size: int) -> Tensor:
        """Return the features after the block of a side length.

        Args:
            w: float32 (n, 512).
            size: side length, pixels: 4, 8, ... 512.

        Returns:
            float32 (n, WIDTHS[size], size, size).
        """
        x = self.first(self.constant, w)
        for block in self.blocks[: blocks_up_to(size)]:
            x = block(x, w)
        return cast(Tensor, x)

    def extend(self, x: Tensor, w: Tensor) -> Tensor:
        """Carry features (n, c, h, h) of one block through the next block."""
        return cast(Tensor, self.blocks[blocks_up_to(x.shape[-1])](x, w))

    def picture(self, x: Tensor, w: Tensor) -> Tensor:
        """Turn the last features (n, 64, 512, 512) into RGB (n, 3, 1024, 1024), about [-1, 1]."""
        return self.inverse_haar(self.rgb(self.rgb_modulation(x, w)))

    def forward(self, w: Tensor) -> Tensor:
        """Map float32 w (n, 512) to RGB (n, 3, 1024, 1024), about [-1, 1]."""
        return self.picture(self.features(w, 512), w)


def load_generator(models: ModelStore) -> Generator:
    """Build the generator with the weights of ``generator-synthesis``, frozen, in evaluation mode.

    Raises:
        ModelsError: the model file is missing.
    """
    import openvino as ov

    graph = ov.Core().read_model(models.path("generator-synthesis"))
    module = Generator()
    module.load_state_dict(_read_weights(graph))
    return module.eval().requires_grad_(False)


def load_mapping(models: ModelStore, workers: int = 2) -> Network:
    """Load the mapping network: standard normal z, float32 (n, 512), to w, float32 (n, 512).

    Raises:
        ModelsError: the model file is missing.
    """
    import openvino as ov

    graph = ov.Core().read_model(models.path("generator-mapping"))
    graph.reshape([-1, W_SIZE])
    return OpenVinoNetwork(graph, workers)


def _read_weights(graph: Any) -> dict[str, Tensor]:
    """Collect the constants of the synthesis graph under the names of :class:`Generator`."""
    ops = graph.get_ordered_ops()
    named = {op.get_friendly_name(): op for op in ops if op.get_type_name() == "Constant"}
    state = {"constant": _tensor(named["m.input.input"])}
    targets = {"m.conv1.conv": "first.modulation", "m.layers.6.to_img.conv": "rgb_modulation"}
    pointwise = ["first"]
    for i in range(len(WIDTHS) - 1):
        targets[f"m.layers.{i}.up"] = f"blocks.{i}.up"
        for conv in ("conv1", "conv2"):
            pointwise.append(f"blocks.{i}.{conv}")
            targets[f"m.layers.{i}.{conv}.conv"] = f"blocks.{i}.{conv}.modulation"
            kernel = _tensor(named[f"m.layers.{i}.{conv}.conv.weight_dw"])
            state[f"blocks.{i}.{conv}.depthwise.weight"] = kernel.flatten(1, 2)
    for source, target in targets.items():
        weight, bias = (named[f"{source}.modulation.{kind}"] for kind in ("weight", "bias"))
        scale = _modulation_scale(bias)
        state[f"{target}.affine.weight"] = _tensor(weight) * scale
        state[f"{target}.affine.bias"] = _tensor(bias).flatten() * scale
    *convs, rgb = [op for op in ops if op.get_type_name() == "Convolution"]
    for name, conv in zip(pointwise, convs, strict=True):
        noise = _consumer(conv)
        state[f"{name}.conv.weight"] = _constant_input(conv)
        state[f"{name}.noise"] = _constant_input(noise)
        state[f"{name}.conv.bias"] = _constant_input(_consumer(noise)).flatten()
    state["rgb.weight"] = _constant_input(rgb)
    state["rgb.bias"] = _constant_input(_consumer(rgb)).flatten()
    return state


def _modulation_scale(bias: Any) -> float:
    """Find the constant that the graph multiplies a modulation with (1 for the up-sampling ones)."""
    reshape = _consumer(_consumer(bias))
    product = _consumer(reshape)
    sources = [port.get_source_output().get_node() for port in product.inputs()]
    constants = [node for node in sources if node.get_type_name() == "Constant"]
    return float(constants[0].data.item()) if constants else 1.0


def _consumer(node: Any) -> Any:
    """Return the one node that reads the first output of a node."""
    (port,) = node.output(0).get_target_inputs()
    return port.get_node()


def _constant_input(node: Any) -> Tensor:
    """Return the constant among the inputs of a node."""
    sources = (port.get_source_output().get_node() for port in node.inputs())
    (constant,) = (source for source in sources if source.get_type_name() == "Constant")
    return _tensor(constant)


def _tensor(constant: Any) -> Tensor:
    return torch.from_numpy(np.array(constant.data, dtype=np.float32))
