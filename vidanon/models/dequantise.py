"""Turn the block-quantised ONNX files (int8 weights behind ``DequantizeLinear``) into plain float32.

OpenVINO does not read ONNX block quantisation (opset 21). The result is the same bytes on every run, so
that its checksum can be kept in the registry.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt


def _spread(values: npt.NDArray[Any], shape: tuple[int, ...], axis: int, block: int) -> npt.NDArray[Any]:
    """Bring a scale or zero point to a shape that broadcasts with weights of ``shape``."""
    if block:
        return np.repeat(values, block, axis=axis).take(range(shape[axis]), axis=axis)
    if values.size > 1:
        return values.reshape([-1 if i == axis else 1 for i in range(len(shape))])
    return values


def _float_weights(node: Any, stored: dict[str, npt.NDArray[Any]]) -> npt.NDArray[np.float32]:
    """Compute ``(x - zero point) * scale`` of one DequantizeLinear node, float32."""
    from onnx import helper

    attributes = {a.name: helper.get_attribute_value(a) for a in node.attribute}
    axis, block = attributes.get("axis", 1), attributes.get("block_size", 0)
    weights = stored[node.input[0]].astype(np.float32)
    scale = _spread(stored[node.input[1]], weights.shape, axis, block)
    if len(node.input) > 2:
        weights = weights - _spread(stored[node.input[2]], weights.shape, axis, block).astype(np.float32)
    result: npt.NDArray[np.float32] = (weights * scale).astype(np.float32)
    return result


def dequantise(source: Path, target: Path) -> None:
    """Write ``source`` to ``target`` with every quantised constant replaced by its float32 value."""
    import onnx
    from onnx import numpy_helper

    model = onnx.load(source)
    graph = model.graph
    stored = {item.name: numpy_helper.to_array(item) for item in graph.initializer}
    kept = []
    for node in graph.node:
        if node.op_type == "DequantizeLinear" and node.input[0] in stored:
            graph.initializer.append(numpy_helper.from_array(_float_weights(node, stored), node.output[0]))
        else:
            kept.append(node)
    used = {name for node in kept for name in node.input}
    constants = [item for item in graph.initializer if item.name in used]
    names = {item.name for item in constants}
    # Old exporters list the constants among the inputs too; only true inputs may stay.
    inputs = [item for item in graph.input if item.name in used - names]
    for old, new in ((graph.node, kept), (graph.initializer, constants), (graph.input, inputs)):
        del old[:]
        old.extend(new)
    target.write_bytes(model.SerializeToString(deterministic=True))
