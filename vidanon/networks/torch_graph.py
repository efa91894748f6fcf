"""Any frozen network of the pipeline as a differentiable torch module.

OpenVINO reads the file (IR, ONNX, TFLite); its operations are then carried out one by one in torch, for
CUDA and for losses that need gradients. Operations follow OpenVINO's operation set specification.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from vidanon.errors import ModelsError

if TYPE_CHECKING:
    from vidanon.models.registry import ModelStore

Attributes = dict[str, Any]
Value = Any
"""A tensor, or a list of ints for an integer constant."""
Operation = Callable[..., Any]


def _pad(x: Tensor, begin: list[int], end: list[int], value: float = 0.0) -> Tensor:
    """Pad the last ``len(begin)`` axes."""
    if not any(begin) and not any(end):
        return x
    pairs = [amount for pair in zip(reversed(begin), reversed(end), strict=True) for amount in pair]
    return functional.pad(x, pairs, value=value)


def _convolution(at: Attributes, x: Tensor, weight: Tensor) -> Tensor:
    x = _pad(x, at["pads_begin"], at["pads_end"])
    return functional.conv2d(x, weight, None, at["strides"], 0, at["dilations"])


def _group_convolution(at: Attributes, x: Tensor, weight: Tensor) -> Tensor:
    x = _pad(x, at["pads_begin"], at["pads_end"])
    kernel = weight.flatten(0, 1)
    return functional.conv2d(x, kernel, None, at["strides"], 0, at["dilations"], len(weight))


def _transposed(at: Attributes, x: Tensor, weight: Tensor, groups: int) -> Tensor:
    if at["pads_begin"] != at["pads_end"]:
        raise ModelsError(f"transposed convolution with uneven padding {at} has no torch counterpart")
    return functional.conv_transpose2d(
        x, weight, None, at["strides"], at["pads_begin"], at["output_padding"], groups, at["dilations"]
    )


def _prelu(_: Attributes, x: Tensor, slope: Tensor) -> Tensor:
    """A one-dimensional slope belongs to axis 1; any other shape broadcasts as in numpy."""
    if slope.dim() == 1:
        return functional.prelu(x, slope)
    return torch.where(x >= 0, x, x * slope)


def _matmul(at: Attributes, a: Tensor, b: Tensor) -> Tensor:
    a = a.mT if at["transpose_a"] else a
    return a @ (b.mT if at["transpose_b"] else b)


def _reshape(at: Attributes, x: Tensor, shape: list[int]) -> Tensor:
    """Reshape; a leading 1 stands for the batch, since the networks were traced with one picture."""
    sizes = [x.shape[i] if n == 0 and at["special_zero"] else n for i, n in enumerate(shape)]
    if sizes[:1] == [1] and x.shape[:1] == (at["batch"],):
        sizes[0] = at["batch"]
    return x.reshape(sizes)


def _max_pool(at: Attributes, x: Tensor) -> Tensor:
    x = _pad(x, at["pads_begin"], at["pads_end"], -torch.inf)
    return functional.max_pool2d(
        x, at["kernel"], at["strides"], 0, at["dilations"], at["rounding_type"] == "ceil"
    )


def _concat(at: Attributes, *xs: Tensor) -> Tensor:
    """Join; what was computed from constants alone is repeated for every row of the batch."""
    if at["axis"] != 0:
        xs = tuple(x.expand(at["batch"], *x.shape[1:]) if len(x) == 1 else x for x in xs)
    return torch.cat(xs, at["axis"])


def _interpolate(at: Attributes, x: Tensor, *_: Value) -> Tensor:
    if (at["mode"], at["coordinate_transformation_mode"], at["nearest_mode"]) != (
        "nearest",
        "asymmetric",
        "floor",
    ):
        raise ModelsError(f"interpolation {at} has no torch counterpart")
    return functional.interpolate(x, size=at["output_shape"][2:], mode="nearest")


def _strided_slice(at: Attributes, x: Tensor, begin: list[int], end: list[int], stride: list[int]) -> Tensor:
    """Slice; a 1 in a mask means that the bound is not used (OpenVINO's in-memory convention)."""
    if any(at["new_axis_mask"]) or any(at["ellipsis_mask"]):
        raise ModelsError(f"slice {at} has no torch counterpart")
    index: list[slice | int] = []
    for axis, step in enumerate(stride):
        if at["shrink_axis_mask"][axis]:
            index.append(begin[axis])
            continue
        first = None if at["begin_mask"][axis] else begin[axis]
        index.append(slice(first, None if at["end_mask"][axis] else end[axis], step))
    return x[tuple(index)]


_OPERATIONS: dict[str, Operation] = {
    "Add": lambda at, a, b: a + b,
    "Subtract": lambda at, a, b: a - b,
    "Multiply": lambda at, a, b: a * b,
    "Divide": lambda at, a, b: a / b,
    "Power": lambda at, a, b: a**b,
    "SquaredDifference": lambda at, a, b: (a - b) ** 2,
    "Relu": lambda at, x: functional.relu(x),
    "Sigmoid": lambda at, x: torch.sigmoid(x),
    "PRelu": _prelu,
    "Convert": lambda at, x: x.float(),
    "MatMul": _matmul,
    "Convolution": _convolution,
    "GroupConvolution": _group_convolution,
    "ConvolutionBackpropData": lambda at, x, weight: _transposed(at, x, weight, 1),
    "GroupConvolutionBackpropData": lambda at, x, weight: _transposed(
        at, x, weight.flatten(0, 1), len(weight)
    ),
    "MaxPool": _max_pool,
    "ReduceMean": lambda at, x, axes: x.mean(axes, at["keep_dims"]),
    "ReduceSum": lambda at, x, axes: x.sum(axes, at["keep_dims"]),
    "Reshape": _reshape,
    "Transpose": lambda at, x, order: x.permute(order),
    "Concat": _concat,
    "VariadicSplit": lambda at, x, axis, sizes: x.split(sizes, axis[0]),
    "Pad": lambda at, x, begin, end, value: _pad(x, begin, end, float(value)),
    "Interpolate": _interpolate,
    "StridedSlice": _strided_slice,
}


class TorchGraph(nn.Module):
    """An OpenVINO model, operation by operation."""

    def __init__(self, model: Any) -> None:
        """Translate a model, which is left as it is.

        Args:
            model: ``openvino.Model`` whose spatial sizes are fixed; a batch of 1 may be any batch later.

        Raises:
            ModelsError: the model uses an operation that is not known here.
        """
        super().__init__()
        from openvino._offline_transformations import apply_moc_transformations

        model = model.clone()
        apply_moc_transformations(model, cf=True)
        self._inputs = [port.get_node().get_friendly_name() for port in model.inputs]
        self._integers: dict[str, list[int]] = {}
        self._constants: dict[str, str] = {}
        # What is computed from constants alone has no batch, even where its size equals that of the batch.
        self._batched: set[str] = set()
        self._steps: list[tuple[Operation, Attributes, list[tuple[str, int]], str]] = []
        for node in model.get_ordered_ops():
            self._add(node)
        self._outputs = [_source(result.input(0)) for result in model.get_results()]

    def _add(self, node: Any) -> None:
        kind, name = node.get_type_name(), node.get_friendly_name()
        if kind == "Parameter":
            self._batched.add(name)
        if kind in ("Parameter", "Result"):
            return
        if kind == "Constant":
            self._add_constant(name, np.array(node.data))
            return
        if kind not in _OPERATIONS:
            raise ModelsError(
                f"operation {kind} ({name}) is not known to the torch runtime; use --device cpu"
            )
        attributes = dict(node.get_attributes())
        shape = node.get_output_partial_shape(0)
        if kind == "Interpolate":
            attributes["output_shape"] = list(shape.to_shape())
        sources = [_source(p) for p in node.inputs()]
        if any(source in self._batched for source, _ in sources):
            self._batched.add(name)
        self._steps.append((_OPERATIONS[kind], attributes, sources, name))

    def _add_constant(self, name: str, data: Any) -> None:
        if np.issubdtype(data.dtype, np.floating):
            buffer = f"constant_{len(self._constants)}"
            self.register_buffer(buffer, torch.from_numpy(data.astype(np.float32)))
            self._constants[name] = buffer
        else:
            self._integers[name] = [int(x) for x in data.reshape(-1)]

    def forward(self, *inputs: Tensor) -> tuple[Tensor, ...]:
        """Map float32 inputs (batch first) to all outputs, in the order of the graph."""
        values: dict[tuple[str, int], Value] = {(n, 0): x for n, x in zip(self._inputs, inputs, strict=True)}
        values |= {(name, 0): value for name, value in self._integers.items()}
        values |= {(name, 0): getattr(self, buffer) for name, buffer in self._constants.items()}
        for operation, attributes, sources, name in self._steps:
            batch = len(inputs[0]) if name in self._batched else 1
            result = operation(attributes | {"batch": batch}, *(values[source] for source in sources))
            parts = result if isinstance(result, tuple) else (result,)
            values |= {(name, port): part for port, part in enumerate(parts)}
        return tuple(values[source] for source in self._outputs)


def load_graph(models: ModelStore, name: str, member: str = "") -> TorchGraph:
    """Load a frozen network as a differentiable module; ``member`` of a bundle, or empty."""
    import tempfile
    import zipfile

    import openvino as ov

    if not member:
        return TorchGraph(ov.Core().read_model(models.path(name)))
    with tempfile.TemporaryDirectory() as folder, zipfile.ZipFile(models.path(name)) as bundle:
        return TorchGraph(ov.Core().read_model(Path(bundle.extract(member, folder))))


def _source(port: Any) -> tuple[str, int]:
    """Return name and output number of what feeds an input."""
    output = port.get_source_output()
    return output.get_node().get_friendly_name(), output.get_index()
