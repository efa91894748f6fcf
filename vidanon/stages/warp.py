"""Bend the generated face onto the geometry of the head it is put on.

Convention: ``picture`` is the generated square picture, pixel centres; ``frame`` is the video frame. The
warp is computed backwards (frame to picture), as :func:`cv2.remap` samples.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

import cv2
import numpy as np
from scipy.interpolate import RBFInterpolator

from vidanon.geometry import apply, fit_similarity
from vidanon.stages.mesh import (
    BELOW_BROWS,
    BROWS,
    CONTROL,
    EYE_CORNERS,
    FACE_OVAL,
    IRIS_RINGS,
    IRISES,
    LEFT_HALF,
    RIGHT_HALF,
    RIGID,
)
from vidanon.stages.outline import half_widths
from vidanon.types import Float, UInt8

Box = tuple[int, int, int, int]
"""(x0, y0, x1, y1) in frame pixels, x1 and y1 exclusive."""

FOLLOW_POSE = 0.75
"""How far inner points follow the source's landmarks; the rest keeps the new person's own shape."""
FOLLOW_BROWS, MOST_BROWS = 1.0, 0.08
"""What is added of what brows lack of the source's movement, and how much at most, of the eyes' distance."""
FOLLOW_OUTLINE = 0.95
"""The outline must meet the real head, or the seam shows."""
SMOOTHING = 1e-4
SMOOTHING_IRIS = 1e-6
"""A pixel of the iris is much of a gaze, so irises must come to lie where they should."""
SMOOTHING_FAR = 1e-2
"""The far side of a turned head lies partly behind nose and lips, in the picture otherwise than in the frame:
met exactly, its points fold what is in front of them."""
TURNED = (0.6, 0.3)
"""Ratio of the far half of a face to the near one where that begins and where it is complete."""
GRID_MIN_PX = 8
"""Least spacing at which the thin-plate spline is evaluated before it is interpolated to every pixel."""
EYE_GRID_MIN_PX = 2
"""The same around the eyes, which are not much larger than the coarse spacing."""
EYE_MARGIN = 0.4  # of the eye's width
IRIS_POINTS = [*IRISES, *IRIS_RINGS[0], *IRIS_RINGS[1]]


def lacking(generated: Float, source: Float) -> Float:
    """Return how far from the source's landmarks those of a generated picture lie once it is placed.

    Args:
        generated: float32 (478, 2), picture pixels.
        source: float32 (478, 2), frame pixels.

    Returns:
        float32 (478, 2), frame pixels.
    """
    anchors = [*RIGID, *FACE_OVAL[::3]]
    return source - apply(fit_similarity(generated[anchors], source[anchors]), generated)


def target_landmarks(
    generated: Float, source: Float, bend: Float | None = None, shape: Float | None = None
) -> Float:
    """Place the new person's landmarks in the frame: own shape, source's pose and expression.

    Args:
        generated: float32 (478, 2), landmarks of the generated picture, picture pixels.
        source: float32 (478, 2), landmarks of the real face, frame pixels.
        bend: float32 (478, 2), what is added, frame pixels; see :mod:`vidanon.identity.settle`.
        shape: float32 (478, 2), what is :func:`lacking` on average and so is the new person's own, frame
            pixels.

    Returns:
        float32 (478, 2), frame pixels.
    """
    missing = lacking(generated, source)
    placed = source - missing
    follow = np.full((len(placed), 1), FOLLOW_POSE, np.float32)
    follow[list(FACE_OVAL)] = FOLLOW_OUTLINE
    target = (placed + follow * missing).astype(np.float32)
    if bend is not None:
        target += bend
    if shape is not None:
        _raise_brows(target, missing - shape, source)
    _look_the_same_way(target, placed, source)
    return target


def _raise_brows(target: Float, missing: Float, source: Float) -> None:
    """Raise or lower the brows (in place) by what is lacking of their movement beside the new person's shape.

    That they are placed where they should be does not make them be seen there. What is lacking below the
    brows as well is no movement of theirs.
    """
    across = source[263] - source[33]
    eyes_px = max(float(np.hypot(*across)), 1e-6)
    down = np.array([-across[1], across[0]], np.float32) / eyes_px
    brows = list(BROWS)
    moved = FOLLOW_BROWS * ((missing[brows] - missing[list(BELOW_BROWS)].mean(axis=0)) @ down)
    target[brows] += np.clip(moved, -MOST_BROWS * eyes_px, MOST_BROWS * eyes_px)[:, None] * down


def _look_the_same_way(target: Float, placed: Float, source: Float) -> None:
    """Put the irises (in place) where they are in the source's eyes; they keep their own size and shape.

    Generated faces look at the camera more than they should: of the sample clip's horizontal gaze the
    mapper passes on less than half.
    """
    for iris, ring, corners in zip(IRISES, IRIS_RINGS, EYE_CORNERS, strict=True):
        eye = fit_similarity(source[list(corners)], target[list(corners)])
        target[iris] = apply(eye, source[iris])
        target[list(ring)] = target[iris] + placed[list(ring)] - placed[iris]


def landmark_error(generated: Float, source: Float) -> float:
    """Mean landmark distance after the best similarity, in units of the source's inter-ocular distance."""
    points = list(CONTROL)
    placed = apply(fit_similarity(generated[points], source[points]), generated[points])
    eye_px = float(np.hypot(*(source[263] - source[33])))
    return float(np.hypot(*(placed - source[points]).T).mean() / max(eye_px, 1e-6))


def warp_to_frame(picture: UInt8, generated: Float, target: Float, region: Box) -> UInt8:
    """Draw the picture into a region of the frame with a thin-plate warp.

    Args:
        picture: uint8 (s, s, 3).
        generated: float32 (478, 2), picture pixels.
        target: float32 (478, 2), frame pixels, where the points of ``generated`` must come to lie.
        region: (x0, y0, x1, y1) in frame pixels, x1 and y1 exclusive.

    Returns:
        uint8 (y1 - y0, x1 - x0, 3).
    """
    x0, y0, x1, _ = region
    points = list(CONTROL)
    scale = float(np.ptp(target[points], axis=0).max()) or 1.0
    center = target[points].mean(0)
    spline = RBFInterpolator(
        (target[points] - center) / scale,
        generated[points],
        kernel="thin_plate_spline",
        smoothing=_smoothing(target),
    )

    def picture_points(frame_points: Float) -> Float:
        return np.asarray(spline((frame_points - center) / scale), np.float32)

    picture_from_frame = _dense(picture_points, region, max(GRID_MIN_PX, (x1 - x0) // 40))
    for box in _eye_boxes(target, region):
        left, top, right, bottom = box
        fine = _dense(picture_points, box, max(EYE_GRID_MIN_PX, (right - left) // 20))
        picture_from_frame[top - y0 : bottom - y0, left - x0 : right - x0] = fine
    shrink = len(picture) / max(scale * 1.6, 1.0)
    if shrink > 2:
        picture = np.asarray(cv2.GaussianBlur(picture, (0, 0), shrink / 3), np.uint8)
    map_x, map_y = cv2.split(picture_from_frame)
    drawn = cv2.remap(picture, map_x, map_y, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)
    return np.asarray(drawn, np.uint8)


def _smoothing(target: Float) -> Float:
    """Return how loosely each control point is met, (n,)."""
    exact = np.where(np.isin(CONTROL, IRIS_POINTS), SMOOTHING_IRIS, SMOOTHING)
    halves = half_widths(target)
    turned = np.interp(halves.min() / max(halves.max(), 1e-6), TURNED[::-1], (1.0, 0.0))
    far = np.isin(CONTROL, RIGHT_HALF if halves[0] < halves[1] else LEFT_HALF)
    return np.asarray(exact * (SMOOTHING_FAR / exact) ** (turned * far))


def _dense(evaluate: Callable[[Float], Float], box: Box, step: int) -> Float:
    """Evaluate a smooth map on a grid and interpolate it to every pixel of a box: float32 (h, w, 2)."""
    x0, y0, x1, y1 = box
    columns, rows = (x1 - x0) // step + 3, (y1 - y0) // step + 3
    xs = x0 + (np.arange(columns) - 0.5) * step - 0.5
    ys = y0 + (np.arange(rows) - 0.5) * step - 0.5
    grid = np.stack(np.meshgrid(xs, ys), axis=-1).reshape(-1, 2).astype(np.float32)
    coarse = evaluate(grid).reshape(rows, columns, 2)
    dense = cv2.resize(coarse, (columns * step, rows * step), interpolation=cv2.INTER_LINEAR)
    return np.asarray(dense[step : step + y1 - y0, step : step + x1 - x0], np.float32)


def _eye_boxes(target: Float, region: Box) -> Iterator[Box]:
    """Yield the boxes around both eyes as far as they lie in the region."""
    for corners in EYE_CORNERS:
        first, last = target[list(corners)]
        reach = float(np.hypot(*(last - first))) * (0.5 + EYE_MARGIN)
        x, y = (first + last) / 2
        left, right = (int(np.clip(v, region[0], region[2])) for v in (x - reach, x + reach))
        top, bottom = (int(np.clip(v, region[1], region[3])) for v in (y - reach * 0.7, y + reach * 0.7))
        if right > left and bottom > top:
            yield left, top, right, bottom
