"""Zero-phase smoothing over a whole track: a still head must not shimmer, a moving one must not lag.

A symmetric Gaussian over past and future gives the calm course; what differs from it comes back in the
measure in which it is larger than the jitter of a landmark (Wiener-like shrinkage). Uniform motion passes
unchanged, since the Gaussian is symmetric; blinks and speech pass since they exceed the jitter.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
from scipy.ndimage import gaussian_filter1d

from vidanon.geometry import invert, unit_crop_from_frame
from vidanon.types import Float

JITTER = 0.006  # of the face's size: what the landmarker wavers by on a still head
BOX_JITTER = 0.03  # of the box's side
CROP_JITTER = 0.01  # of the crop's side
FILL_FRAMES = 3  # landmarks missing for no longer than this are interpolated
LONG_FILL_FRAMES = 8  # nor for longer than this where the face is as it was before
ALIKE = 0.04  # mean distance of two meshes in their boxes, box sides
COLUMNS = 120  # filtered at a time, bounds memory on long tracks


def smooth(values: Float, size: Float, sigma: float, jitter: float) -> Float:
    """Smooth courses over time.

    Args:
        values: float32 (n, ...), finite.
        size: float32 (n,), size of the face in the same unit.
        sigma: width of the Gaussian in frames; 0 returns the input.
        jitter: what counts as jitter, relative to ``size``.

    Returns:
        float32 (n, ...).
    """
    if sigma <= 0 or len(values) < 3:
        return values
    flat = values.reshape(len(values), -1)
    smoothed = np.empty_like(flat)
    threshold = (jitter * size[:, None]) ** 2
    for left in range(0, flat.shape[1], COLUMNS):
        block = flat[:, left : left + COLUMNS]
        calm = gaussian_filter1d(block, sigma, axis=0, mode="nearest")
        rest = block - calm
        power = gaussian_filter1d(rest**2, 1.0, axis=0, mode="nearest")
        smoothed[:, left : left + COLUMNS] = calm + rest * power / (power + threshold)
    return smoothed.reshape(values.shape)


def runs(present: npt.NDArray[np.bool_]) -> list[slice]:
    """Return the maximal runs of True."""
    edges = np.flatnonzero(np.diff(np.concatenate([[False], present, [False]]).astype(np.int8)))
    return [slice(int(a), int(b)) for a, b in edges.reshape(-1, 2)]


def short_gaps(landmarks: Float, boxes: Float, detected: npt.NDArray[np.bool_]) -> list[slice]:
    """Return the gaps between known meshes that may be filled.

    A gap is filled as a whole or not at all, only where a detector followed the face through it, and beyond
    ``FILL_FRAMES`` only where the face comes out of it as it went in.

    Args:
        landmarks: float32 (n, 478, 2), NaN where unknown.
        boxes: float32 (n, 4).
        detected: bool (n,), whether a detector saw the face.
    """
    missing = np.isnan(landmarks[:, 0, 0])
    gaps = []
    for gap in runs(missing):
        length, inner = gap.stop - gap.start, gap.start > 0 and gap.stop < len(landmarks)
        if not inner or length > LONG_FILL_FRAMES or not detected[gap].all():
            continue
        ends = [gap.start - 1, gap.stop]
        before, after = in_boxes(landmarks[ends], boxes[ends])
        if length <= FILL_FRAMES or np.hypot(*(after - before).T).mean() <= ALIKE:
            gaps.append(gap)
    return gaps


def in_boxes(points: Float, boxes: Float) -> Float:
    """Express points (n, k, 2) relative to the centres and sides of boxes (n, 4)."""
    side = (boxes[:, 2:] - boxes[:, :2]).max(axis=1)[:, None, None]
    centre = (boxes[:, None, :2] + boxes[:, None, 2:]) / 2
    relative: Float = ((points - centre) / side).astype(np.float32)
    return relative


def fill(values: Float, gaps: list[slice]) -> None:
    """Interpolate (in place) the rows of gaps between the known rows around them.

    Args:
        values: float32 (n, ...), NaN rows where unknown.
        gaps: see :func:`short_gaps`.
    """
    for gap in gaps:
        share = np.arange(1, gap.stop - gap.start + 1, dtype=np.float32) / (gap.stop - gap.start + 1)
        share = share.reshape(-1, *[1] * (values.ndim - 1))
        values[gap] = values[gap.start - 1] * (1 - share) + values[gap.stop] * share


def fill_meshes(landmarks: Float, boxes: Float, gaps: list[slice]) -> None:
    """Interpolate (in place) meshes in gaps so that they follow the boxes."""
    side = (boxes[:, 2:] - boxes[:, :2]).max(axis=1)[:, None, None]
    centre = (boxes[:, None, :2] + boxes[:, None, 2:]) / 2
    for gap in gaps:
        around = slice(gap.start - 1, gap.stop + 1)
        relative = in_boxes(landmarks[around], boxes[around])
        fill(relative, [slice(1, len(relative) - 1)])
        landmarks[gap] = relative[1:-1] * side[gap] + centre[gap]


def smooth_landmarks(landmarks: Float, sigma: float) -> tuple[Float, Float]:
    """Smooth the meshes of a track and derive the crops.

    Args:
        landmarks: float32 (n, 478, 2), NaN where unknown; every run of known frames is filtered by itself.
        sigma: width of the Gaussian in frames.

    Returns:
        Landmarks float32 (n, 478, 2) and ``crop_from_frame`` float32 (n, 2, 3), NaN where unknown.
    """
    smoothed = np.full_like(landmarks, np.nan)
    crops = np.full((len(landmarks), 2, 3), np.nan, np.float32)
    for run in runs(~np.isnan(landmarks[:, 0, 0])):
        size = np.ptp(landmarks[run], axis=1).max(axis=1)
        smoothed[run] = smooth(landmarks[run], size, sigma, JITTER)
        frame_from_crop = np.stack([invert(unit_crop_from_frame(mesh)) for mesh in smoothed[run]])
        side = np.hypot(frame_from_crop[:, 0, 0], frame_from_crop[:, 1, 0])
        frame_from_crop = smooth(frame_from_crop, side, sigma, CROP_JITTER)
        crops[run] = np.stack([invert(transform) for transform in frame_from_crop])
    return smoothed, crops


def smooth_boxes(boxes: Float, sigma: float) -> Float:
    """Smooth the boxes (n, 4) of a track."""
    return smooth(boxes, (boxes[:, 2:] - boxes[:, :2]).max(axis=1), sigma, BOX_JITTER)
