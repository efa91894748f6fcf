"""Find every face in a picture. Recall decides: a false alarm costs little, a missed face costs a person.

Two detector families look at three sizes, and every box that any of them reports is kept:
CenterFace (Xu et al. 2019) at ``long_side_px``; YuNet (Wu et al. 2023) at twice that for small faces in
large frames; and YuNet at half for faces that fill the frame.
"""

from __future__ import annotations

import threading
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from vidanon.errors import ModelsError
from vidanon.networks.runtime import OpenVinoNetwork
from vidanon.types import Face, Float, UInt8

if TYPE_CHECKING:
    from vidanon.models.registry import ModelStore
    from vidanon.settings import DetectSettings

GRID_PX = 32  # both networks take sides that are multiples of this
CENTERFACE_STRIDE_PX = 4
YUNET_STRIDES_PX = (8, 16, 32)
YUNET_MIN_SCORE = 0.6  # below, YuNet reports texture; CenterFace's scores are lower for the same face
SAME_FACE_IOU = 0.35

Candidates = tuple[Float, Float]  # boxes (n, 4) in network pixels, scores (n,)


class _SizedNetwork:
    """A convolutional ONNX network, compiled once for every input size that is asked for."""

    def __init__(self, path: Path, workers: int) -> None:
        if not path.is_file():
            raise ModelsError(f"model file {path} is missing; run 'vidanon models fetch'")
        self._path, self._workers = path, workers
        self._lock = threading.Lock()
        self._networks: dict[tuple[int, int], OpenVinoNetwork] = {}

    def __call__(self, batch: Float) -> dict[str, Float]:
        """Map one picture (1, 3, h, w) to all outputs by name."""
        network, names = self._sized(batch.shape[2], batch.shape[3])
        return dict(zip(names, network(batch), strict=True))

    def _sized(self, height: int, width: int) -> tuple[OpenVinoNetwork, list[str]]:
        import openvino as ov

        with self._lock:
            if (height, width) not in self._networks:
                try:
                    model = ov.Core().read_model(self._path)
                except RuntimeError as error:
                    raise ModelsError(
                        f"model file {self._path} cannot be read; run 'vidanon models fetch'"
                    ) from error
                model.reshape({model.inputs[0]: ov.PartialShape([1, 3, height, width])})
                self._names = [output.any_name for output in model.outputs]
                self._networks[height, width] = OpenVinoNetwork(model, self._workers)
            return self._networks[height, width], self._names


def decode_centerface(outputs: list[Float], min_score: float) -> Candidates:
    """Turn CenterFace's maps (heat, log size as (h, w), offset as (y, x)) into boxes and scores."""
    heat, size, offset = (output[0] for output in outputs[:3])
    rows, columns = np.nonzero(heat[0] >= min_score)
    height, width = np.exp(size[:, rows, columns]) * CENTERFACE_STRIDE_PX
    y = (rows + offset[0, rows, columns] + 0.5) * CENTERFACE_STRIDE_PX
    x = (columns + offset[1, rows, columns] + 0.5) * CENTERFACE_STRIDE_PX
    boxes = np.stack([x - width / 2, y - height / 2, x + width / 2, y + height / 2], axis=1)
    return boxes.astype(np.float32), heat[0, rows, columns]


def decode_yunet(outputs: dict[str, Float], columns: int, min_score: float) -> Candidates:
    """Turn YuNet's anchor-free outputs into boxes and scores; ``columns`` is the input's width in pixels."""
    boxes, scores = [], []
    for stride in YUNET_STRIDES_PX:
        both = outputs[f"cls_{stride}"][0, :, 0] * outputs[f"obj_{stride}"][0, :, 0]
        score = np.sqrt(np.clip(both, 0, 1))
        (keep,) = np.nonzero(score >= min_score)
        row, column = np.divmod(keep, columns // stride)
        dx, dy, width, height = outputs[f"bbox_{stride}"][0, keep].T
        half = np.exp(np.stack([width, height], axis=1)) / 2
        centre = np.stack([column + dx, row + dy], axis=1)
        boxes.append(np.concatenate([centre - half, centre + half], axis=1) * stride)
        scores.append(score[keep])
    return np.concatenate(boxes).astype(np.float32), np.concatenate(scores)


def keep_best(boxes: Float, scores: Float, iou: float = SAME_FACE_IOU) -> npt.NDArray[np.intp]:
    """Return the indices that greedy non-maximum suppression keeps, best first."""
    order = np.argsort(-scores, kind="stable")
    area = np.prod(np.maximum(boxes[:, 2:] - boxes[:, :2], 0), axis=1)
    kept: list[int] = []
    while len(order):
        best, order = order[0], order[1:]
        kept.append(int(best))
        sides = np.minimum(boxes[best, 2:], boxes[order, 2:]) - np.maximum(boxes[best, :2], boxes[order, :2])
        inter = np.prod(np.maximum(sides, 0), axis=1)
        order = order[inter <= iou * np.maximum(area[best] + area[order] - inter, 1e-6)]
    return np.array(kept, np.intp)


def fit(image: UInt8, long_side_px: int) -> tuple[UInt8, float]:
    """Shrink (never enlarge) a picture and pad it at right and bottom to the grid.

    Returns:
        The picture (h, w, 3), h and w multiples of ``GRID_PX``, and its scale in network px per frame px.
    """
    import cv2

    height, width = image.shape[:2]
    scale = min(1.0, long_side_px / max(height, width))
    if scale < 1:
        size = (max(1, round(width * scale)), max(1, round(height * scale)))
        image = np.asarray(cv2.resize(image, size, interpolation=cv2.INTER_AREA), np.uint8)
    down, right = (-side % GRID_PX for side in image.shape[:2])
    return np.pad(image, ((0, down), (0, right), (0, 0))), scale


def _batch(image: UInt8) -> Float:
    return np.ascontiguousarray(image.transpose(2, 0, 1)[None], np.float32)


class FaceDetector:
    """Boxes and scores of all faces in a picture; stateless, safe to call from several threads.

    Args:
        models: where ``centerface`` and ``yunet`` lie.
        settings: thresholds and sizes.
        workers: number of threads that will call.

    Raises:
        ModelsError: a model is missing or unreadable.
    """

    def __init__(self, models: ModelStore, settings: DetectSettings, workers: int) -> None:
        self._settings = settings
        self._centerface = _SizedNetwork(models.path("centerface"), workers)
        self._yunet = _SizedNetwork(models.path("yunet"), workers)

    def __call__(self, image: UInt8) -> list[Face]:
        """Find faces in a uint8 RGB picture (h, w, 3); best first, boxes clipped to the picture."""
        long_side = self._settings.long_side_px
        looks = [self._look_centerface(image, long_side), self._look_yunet(image, long_side // 2)]
        if self._settings.second_look:
            looks.append(self._look_yunet(image, long_side * 2))
        boxes = np.concatenate([boxes for boxes, _ in looks])
        scores = np.concatenate([scores for _, scores in looks])
        height, width = image.shape[:2]
        boxes = np.clip(boxes, 0, np.array([width - 1, height - 1] * 2, np.float32))
        large = (boxes[:, 2:] - boxes[:, :2]).min(axis=1) >= self._settings.min_face_px
        boxes, scores = boxes[large], scores[large]
        return [Face(boxes[i], float(scores[i])) for i in keep_best(boxes, scores)]

    def _look_centerface(self, image: UInt8, long_side_px: int) -> Candidates:
        picture, scale = fit(image, long_side_px)
        outputs = list(self._centerface(_batch(picture)).values())
        boxes, scores = decode_centerface(outputs, self._settings.min_score)
        return boxes / scale, scores

    def _look_yunet(self, image: UInt8, long_side_px: int) -> Candidates:
        picture, scale = fit(image, long_side_px)
        outputs = self._yunet(_batch(picture[..., ::-1]))  # YuNet was trained on BGR
        floor = max(self._settings.min_score, YUNET_MIN_SCORE)
        boxes, scores = decode_yunet(outputs, picture.shape[1], floor)
        return boxes / scale, scores
