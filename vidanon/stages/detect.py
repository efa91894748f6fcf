"""Find every face in a picture. Recall decides: a false alarm costs little, a missed face costs a person.

Two detector families look: CenterFace (Xu et al. 2019) at ``long_side_px``, larger for large frames; YuNet
(Wu et al. 2023) at the same size, at half of it for faces that fill the frame, and at twice that for small
faces in large frames. A box that either is sure of is a face, and so is one that both half believe in:
their mistakes differ. On hand-checked crowds this found more faces with fewer false alarms than lower
thresholds for each. Asked to, YuNet also looks at the picture on its sides and upside down: faces of people
who lie, and videos that were filmed the wrong way round.
"""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from vidanon.errors import ModelsError
from vidanon.networks.runtime import OpenVinoNetwork, shared, state_of_file
from vidanon.stages.landmark import cut_square, square_around
from vidanon.types import Face, Float, UInt8

if TYPE_CHECKING:
    from vidanon.models.registry import ModelStore
    from vidanon.settings import DetectSettings

GRID_PX = 32  # both networks take sides that are multiples of this
CENTERFACE_STRIDE_PX = 4
YUNET_STRIDES_PX = (8, 16, 32)
SAME_FACE_IOU = 0.35

MAX_ENLARGEMENT = 2.0
HALF_SURE = 0.5  # share of the threshold from which a box counts where the other detector sees one too
TURNED_SCORE = 0.8  # YuNet's, in turned pictures, where three looks make three times as many mistakes
LARGE_FRAME = 1.25  # times ``long_side_px``: above, small faces need looks at larger sizes
SURE_OF_TILT = 0.5  # CenterFace's score from which its tilt counts; YuNet takes heads upside down for upright
SURE_SIDE = 0.9  # YuNet's score of one of four sides from which that side counts without CenterFace
UPRIGHT_TILT = NEAR_TILT = np.radians(60.0)
TILT_PX, TILT_SCALE = 160, 1.6  # side of the crop in which a face is looked at alone, in px and box sides
COMPILED_SIZES = 8  # per network; a folder of pictures may hold hundreds of sizes


@dataclass(frozen=True, slots=True)
class Candidates:
    """What one look reported: boxes (n, 4) in pixels, scores (n,), tilts (n,) in radians, clockwise."""

    boxes: Float
    scores: Float
    tilts: Float

    def pick(self, which: npt.NDArray[Any]) -> Candidates:
        """Return some of the candidates, by index or mask."""
        return Candidates(self.boxes[which], self.scores[which], self.tilts[which])


def join(looks: list[Candidates]) -> Candidates:
    """Put the candidates of several looks together."""
    names = ("boxes", "scores", "tilts")
    return Candidates(*(np.concatenate([getattr(look, name) for look in looks]) for name in names))


def agree(one: Candidates, other: Candidates, sure: tuple[float, float]) -> Candidates:
    """Keep what either family is sure of, and what both half believe in.

    Args:
        one: what the first family reported.
        other: what the second reported.
        sure: score from which a box of the first, of the second, counts alone.
    """
    belief = [one.scores / sure[0], other.scores / sure[1]]
    same = overlaps_of(one.boxes, other.boxes) > SAME_FACE_IOU
    total = np.where(same, belief[0][:, None] + belief[1][None], 0)
    kept = [
        np.maximum(own, total.max(axis=axis, initial=0)) >= 1
        for own, axis in zip(belief, (1, 0), strict=True)
    ]
    return join([one.pick(kept[0]), other.pick(kept[1])])


def tilted_like(found: Candidates, other: Candidates) -> Candidates:
    """Give candidates the tilt of what another family is sure to see in the same place."""
    tilts = found.tilts.copy()
    other = other.pick(other.scores >= SURE_OF_TILT)
    for row, overlaps in enumerate(overlaps_of(found.boxes, other.boxes)):
        if overlaps.max(initial=0.0) > SAME_FACE_IOU:
            tilts[row] = other.tilts[overlaps.argmax()]
    return Candidates(found.boxes, found.scores, tilts)


def overlaps_of(one: Float, other: Float) -> Float:
    """Return the intersections over union, (n, m), of boxes (n, 4) and (m, 4)."""
    low = np.maximum(one[:, None, :2], other[None, :, :2])
    high = np.minimum(one[:, None, 2:], other[None, :, 2:])
    inter = np.prod(np.maximum(high - low, 0), axis=2)
    areas = [np.prod(boxes[:, 2:] - boxes[:, :2], axis=1) for boxes in (one, other)]
    return np.asarray(inter / np.maximum(areas[0][:, None] + areas[1][None] - inter, 1e-6), np.float32)


class _SizedNetwork:
    """A convolutional ONNX network, compiled for the last few input sizes that were asked for.

    In bfloat16, where the processor has it: of 402 faces of photographs and clips one was lost, one found.
    """

    def __init__(self, path: Path, workers: int) -> None:
        self._path, self._workers = path, workers
        self._lock = threading.Lock()
        self._networks: OrderedDict[tuple[int, int], OpenVinoNetwork] = OrderedDict()

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
                self._networks[height, width] = OpenVinoNetwork(model, self._workers, bfloat16=True)
            self._networks.move_to_end((height, width))
            if len(self._networks) > COMPILED_SIZES:
                self._networks.popitem(last=False)
            return self._networks[height, width], self._names


def _sized_network(path: Path, workers: int) -> _SizedNetwork:
    key = (*state_of_file(path), workers)
    return shared(key, lambda: _SizedNetwork(path, workers))


def decode_centerface(outputs: list[Float], min_score: float) -> Candidates:
    """Read CenterFace's maps: heat, log size (h, w), offset (y, x) and five points (y, x) in boxes."""
    heat, size, offset, points = (output[0] for output in outputs)
    rows, columns = np.nonzero(heat[0] >= min_score)
    height, width = np.exp(size[:, rows, columns]) * CENTERFACE_STRIDE_PX
    y = (rows + offset[0, rows, columns] + 0.5) * CENTERFACE_STRIDE_PX
    x = (columns + offset[1, rows, columns] + 0.5) * CENTERFACE_STRIDE_PX
    boxes = np.stack([x - width / 2, y - height / 2, x + width / 2, y + height / 2], axis=1)
    five = points[:, rows, columns].T.reshape(-1, 5, 2)[..., ::-1] * np.stack([width, height], 1)[:, None]
    return Candidates(boxes.astype(np.float32), heat[0, rows, columns], tilt_of(five))


def decode_yunet(outputs: dict[str, Float], columns: int, min_score: float) -> Candidates:
    """Read YuNet's anchor-free outputs; ``columns`` is the input's width in pixels."""
    boxes, scores, tilts = [], [], []
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
        tilts.append(tilt_of(outputs[f"kps_{stride}"][0, keep].reshape(-1, 5, 2)))
    return Candidates(np.concatenate(boxes).astype(np.float32), np.concatenate(scores), np.concatenate(tilts))


def tilt_of(points: Float) -> Float:
    """Return how far faces are turned in the picture: (n,) radians, clockwise, 0 upright.

    Args:
        points: (n, 5, 2) both eyes, nose, both mouth corners; any unit. From the eyes to the mouth, which
            is reliable in profiles as well.
    """
    down = points[:, 3:].mean(axis=1) - points[:, :2].mean(axis=1)
    tilts: Float = np.arctan2(-down[:, 0], down[:, 1]).astype(np.float32)
    return tilts


def turn_back(found: Candidates, quarters: int, width: int, height: int) -> Candidates:
    """Express what was found in a picture turned counter-clockwise by ``quarters`` in the picture itself.

    Args:
        found: what was found.
        quarters: quarter turns, as :func:`numpy.rot90` takes them.
        width: of the picture before it was turned, pixels.
        height: likewise.
    """
    boxes = found.boxes
    for done in range(quarters, 0, -1):
        before = width if done % 2 else height  # of the picture that the last turn was applied to
        x0, y0, x1, y1 = boxes.T
        boxes = np.stack([before - 1 - y1, x0, before - 1 - y0, x1], axis=1)
    return Candidates(boxes, found.scores, _wrapped(found.tilts + np.float32(quarters * np.pi / 2)))


def _wrapped(angle: Any) -> Any:
    """Bring angles, radians, to -pi .. pi."""
    return (angle + np.pi) % (2 * np.pi) - np.pi


def keep_best(boxes: Float, scores: Float, iou: float = SAME_FACE_IOU) -> npt.NDArray[np.intp]:
    """Return the indices that greedy non-maximum suppression keeps, best first."""
    order = np.argsort(-scores, kind="stable")
    kept: list[int] = []
    while len(order):
        best, order = order[0], order[1:]
        kept.append(int(best))
        order = order[overlaps_of(boxes[best : best + 1], boxes[order])[0] <= iou]
    return np.array(kept, np.intp)


def fit(image: UInt8, long_side_px: int) -> tuple[UInt8, float]:
    """Bring a picture to a size (at most twice its own) and pad it at right and bottom to the grid.

    Returns:
        The picture (h, w, 3), h and w multiples of ``GRID_PX``, and its scale in network px per frame px.
    """
    import cv2

    height, width = image.shape[:2]
    scale = min(MAX_ENLARGEMENT, long_side_px / max(height, width))
    if scale != 1:
        size = (max(1, round(width * scale)), max(1, round(height * scale)))
        way = cv2.INTER_AREA if scale < 1 else cv2.INTER_LINEAR
        image = np.asarray(cv2.resize(image, size, interpolation=way), np.uint8)
    down, right = (-side % GRID_PX for side in image.shape[:2])
    return np.pad(image, ((0, down), (0, right), (0, 0))), scale


def _central(look: Candidates) -> tuple[float, float]:
    """Return score and tilt of the best face in the middle of a crop of ``TILT_PX``; (0, 0) without one."""
    middles = (look.boxes[:, :2] + look.boxes[:, 2:]) / 2
    central = (np.abs(middles - TILT_PX / 2) < TILT_PX / 6).all(axis=1)
    if not central.any():
        return 0.0, 0.0
    row = int(np.where(central, look.scores, -1).argmax())
    return float(look.scores[row]), float(look.tilts[row])


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
        self._centerface = _sized_network(models.path("centerface"), workers)
        self._yunet = _sized_network(models.path("yunet"), workers)

    def __call__(self, image: UInt8, turned: bool = False, quick: bool = False) -> list[Face]:
        """Find faces in a uint8 RGB picture (h, w, 3); best first, boxes clipped to the picture.

        Args:
            image: the picture.
            turned: look for faces on their side and upside down as well.
            quick: one look of one detector only, at a seventh of the cost.
        """
        found = self._look_yunet(image, self._settings.long_side_px) if quick else self._all(image, turned)
        height, width = image.shape[:2]
        boxes = np.clip(found.boxes, 0, np.array([width - 1, height - 1] * 2, np.float32))
        large = (boxes[:, 2:] - boxes[:, :2]).min(axis=1) >= self._settings.min_face_px
        if quick:
            large &= found.scores >= self._settings.min_yunet_score
        boxes, found = boxes[large], found.pick(large)
        return [
            Face(boxes[i], float(found.scores[i]), tilt=float(found.tilts[i]))
            for i in keep_best(boxes, found.scores)
        ]

    def tilts(self, image: UInt8, box: Float) -> Iterator[float]:
        """Yield how far a face may be turned, by looks at it alone, likeliest first: two guesses at most.

        Upside down or on its side, a face is often found as if it were upright, and a mesh fitted so is
        nobody's.

        Args:
            image: uint8 RGB (h, w, 3).
            box: float32 (4,), of a face in it.

        Yields:
            Radians, clockwise; 0 upright, or where nothing can be told.
        """
        crop = cut_square(image, square_around(box, 0.0, TILT_SCALE), TILT_PX)
        score, tilt = _central(self._look_centerface(crop, TILT_PX))
        is_sure = score >= SURE_OF_TILT
        is_upright = is_sure and abs(tilt) <= UPRIGHT_TILT
        if is_upright:
            yield tilt
        looks = [_central(self._look_turned(crop, TILT_PX, quarters)) for quarters in range(4)]
        best_score, best = max(looks)
        if not is_sure:
            tilt = best if best_score >= SURE_SIDE else 0.0
        elif not is_upright:
            # On its side, CenterFace is right about the side, and YuNet about the angle.
            near = [look for look in looks[1:] if abs(_wrapped(look[1] - tilt)) <= NEAR_TILT]
            score, finer = max(near, default=(0.0, 0.0))
            tilt = finer if score >= TURNED_SCORE else tilt
        if not is_upright:
            yield tilt
        if best_score >= SURE_SIDE and abs(_wrapped(best - tilt)) > NEAR_TILT:
            yield best

    def _all(self, image: UInt8, turned: bool) -> Candidates:
        height, width = image.shape[:2]
        long_side = self._settings.long_side_px
        large = self._settings.second_look and max(height, width) > LARGE_FRAME * long_side
        sizes = [long_side // 2, long_side, *([2 * long_side] if large else [])]
        yunet = [self._look_yunet(image, size) for size in sizes]
        for quarters in (1, 2, 3) if turned else ():
            found = self._look_turned(image, long_side, quarters)
            yunet.append(found.pick(found.scores >= TURNED_SCORE))
        sure = self._settings.min_score, self._settings.min_yunet_score
        centerface = self._look_centerface(image, long_side * 3 // 2 if large else long_side)
        return agree(centerface, tilted_like(join(yunet), centerface), sure)

    def _look_centerface(self, image: UInt8, long_side_px: int) -> Candidates:
        picture, scale = fit(image, long_side_px)
        outputs = list(self._centerface(_batch(picture)).values())
        found = decode_centerface(outputs, HALF_SURE * self._settings.min_score)
        return Candidates(found.boxes / scale, found.scores, found.tilts)

    def _look_turned(self, image: UInt8, long_side_px: int, quarters: int) -> Candidates:
        """Look with YuNet at a picture that is turned counter-clockwise by quarters."""
        height, width = image.shape[:2]
        found = self._look_yunet(np.rot90(image, quarters), long_side_px)
        return turn_back(found, quarters, width, height)

    def _look_yunet(self, image: UInt8, long_side_px: int) -> Candidates:
        picture, scale = fit(image, long_side_px)
        outputs = self._yunet(_batch(picture[..., ::-1]))  # YuNet was trained on BGR
        found = decode_yunet(outputs, picture.shape[1], HALF_SURE * self._settings.min_yunet_score)
        return Candidates(found.boxes / scale, found.scores, found.tilts)
