"""What is measured on one face: unchanged pixels, expression, likeness. No networks."""

from __future__ import annotations

import numpy as np

from vidanon.geometry import nose_to_corner, pixels_around
from vidanon.types import Float, UInt8

SIGNAL_NAMES = ("blink", "jawOpen", "mouthSmile", "browInnerUp", "gaze_x", "gaze_y")
UNCHANGED_LEVELS = 8.0
"""Mean absolute difference (0..255) inside a face below which it may be as it was; encoding at crf 18 costs 1
to 2 levels, at crf 28 up to 8. The mask changes a face in the dark by less."""
UNCHANGED_LIKENESS, UNCHANGED_DETAIL = (0.6, 0.8, 0.87), 0.45
"""Correlation of detail of two pictures, of little, much and very much of it, and the share of it that the
second holds, from which a face is as it was. Of detail of 8 levels and more encoding leaves .89 of the first
up to crf 34 (.95 at crf 28), of 1 level, in the dark, .66; the mask mostly leaves .2 and 0 (.6 and .4 at
most), and another face in the same light up to .75 where it is soft and .84 on a webcam (asl_eat)."""
DETAIL_LEVELS = (3.0, 6.0, 9.0)
"""Standard deviation of what is little, much and very much detail, grey levels."""
DETAIL_SIGMA = 0.08
SAME_LEVELS, SAME_CELL_LEVELS, SAME_SHARE = 4.0, 8, 0.2
"""Two encodings of one picture, at crf 18 and 20, differ by less than this on average (0..255) and in the
mean of any cell of a face, the latter also as a share of what its cells span. The mask and
another face differ by thrice as much."""
SEEN_AROUND = 0.4
"""Recognisers look so far beyond a face's box, in widths of it."""
SEEN_CELLS = 16
_MS_SSIM_WEIGHTS = (0.0448, 0.2856, 0.3001, 0.2363, 0.1333)


def is_unchanged(source: UInt8, output: UInt8, box: Float) -> bool:
    """Say whether the inner part of a face box shows the same face in both, but for coding noise.

    What little a mask changes in the dark is more than coding does to the face's detail, so that decides.
    """
    import cv2

    x0, y0, x1, y1 = box
    inset_x, inset_y = (x1 - x0) * 0.15, (y1 - y0) * 0.15
    height, width = source.shape[:2]
    columns = slice(max(int(x0 + inset_x), 0), min(int(x1 - inset_x) + 1, width))
    rows = slice(max(int(y0 + inset_y), 0), min(int(y1 - inset_y) + 1, height))
    before, after = source[rows, columns], output[rows, columns]
    if before.size == 0 or float(cv2.norm(before, after, cv2.NORM_L1)) / before.size >= UNCHANGED_LEVELS:
        return False
    one, other = (_detail(picture, DETAIL_SIGMA * (x1 - x0)) for picture in (before, after))
    power_a, power_b, both = (float((a * b).sum()) for a, b in ((one, one), (other, other), (one, other)))
    alike = float(np.interp(np.sqrt(power_a / one.size), DETAIL_LEVELS, UNCHANGED_LIKENESS))
    return both > UNCHANGED_DETAIL * power_a and both > alike * np.sqrt(power_a * power_b)


def _detail(picture: UInt8, sigma_px: float) -> Float:
    """Return what a blur takes away of a picture, float32 (h, w), grey levels."""
    import cv2

    grey = cv2.cvtColor(picture, cv2.COLOR_RGB2GRAY).astype(np.float32)
    return np.asarray(grey - cv2.GaussianBlur(grey, (0, 0), max(float(sigma_px), 0.5)), np.float32)


def is_same_picture(first: UInt8, second: UInt8, box: Float) -> bool:
    """Say whether a face and what surrounds it look the same in two encodings, but for coding noise.

    Args:
        first: uint8 RGB (h, w, 3).
        second: the same.
        box: float32 (4,), the face, pixels.
    """
    import cv2

    margin = SEEN_AROUND * (box[2:] - box[:2])
    corners = np.stack([box[:2] - margin, box[2:] + margin])
    (x0, y0), (x1, y1) = pixels_around(corners, first.shape, beyond=0)
    one, other = first[y0:y1, x0:x1], second[y0:y1, x0:x1]
    if float(cv2.norm(one, other, cv2.NORM_L1)) / one.size >= SAME_LEVELS:
        return False
    shape = (SEEN_CELLS, SEEN_CELLS)
    cells, others = (cv2.resize(x, shape, interpolation=cv2.INTER_AREA) for x in (one, other))
    return int(cv2.absdiff(cells, others).max()) <= min(SAME_CELL_LEVELS, SAME_SHARE * int(np.ptp(cells)))


MASK_DETAIL = 0.45
"""The mask leaves .05 to .3 of a face's detail, and up to .42 of one 20 px wide and turned away, where its
border counts; a blur of 4 % of the width .6."""
DETAIL_FACE_PX = 128
"""Wider faces are scaled down before their detail is measured; what is lost is finer than 1 % of them."""


def detail_left(source: UInt8, output: UInt8, landmarks: Float) -> float:
    """Return the share of a face's detail that its place holds in the output.

    Detail is what a blur of 8 % of the face's width takes away: of eyes, nose and mouth nearly all, of the
    obscuring mask little.

    Args:
        source: uint8 RGB (h, w, 3).
        output: the same.
        landmarks: float32 (478, 2), of the source's face, pixels.
    """
    import cv2

    low, high = pixels_around(landmarks, source.shape)
    face_px = max(float(np.ptp(landmarks[:, 0])), 0.75 * float(np.ptp(landmarks[:, 1])))
    scale = min(DETAIL_FACE_PX / max(face_px, 1.0), 1.0)
    size = np.maximum(np.round((high - low) * scale).astype(int), 1)
    hull = cv2.convexHull(np.round((landmarks - low) * scale).astype(np.int32))
    inside = cv2.fillConvexPoly(np.zeros(size[::-1], np.uint8), hull, 1) > 0
    if not inside.any():
        return 1.0
    amounts = []
    for image in (source, output):
        face = cv2.resize(image[low[1] : high[1], low[0] : high[0]], size, interpolation=cv2.INTER_AREA)
        detail = _detail(np.asarray(face, np.uint8), DETAIL_SIGMA * face_px * scale)
        amounts.append(float(np.abs(detail)[inside].mean()))
    return amounts[1] / max(amounts[0], 0.5)


FINE_PX, INSIDE = 0.7, 0.06
"""What this blur takes away is a video's finest detail. Faces are looked at so far within, widths."""


def fine_detail(image: UInt8, landmarks: Float) -> float:
    """Return the standard deviation of the finest detail of a face, grey levels; NaN: no face.

    Args:
        image: uint8 RGB (h, w, 3).
        landmarks: float32 (478, 2), pixels.
    """
    import cv2

    low, high = pixels_around(landmarks, image.shape)
    grey = cv2.cvtColor(image[low[1] : high[1], low[0] : high[0]], cv2.COLOR_RGB2GRAY).astype(np.float32)
    hull = cv2.convexHull(np.round(landmarks - low).astype(np.int32))
    inside = cv2.fillConvexPoly(np.zeros(grey.shape, np.uint8), hull, 1)
    margin = max(int(INSIDE * np.ptp(landmarks[:, 0])), 1)
    inside = cv2.erode(inside, np.ones((3, 3), np.uint8), iterations=margin, borderValue=0)
    fine = (grey - cv2.GaussianBlur(grey, (0, 0), FINE_PX))[inside > 0]
    return float(fine.std()) if len(fine) else float("nan")


FURROW_EYES_PX = 40.0
"""In faces whose eyes' outer corners lie nearer together no furrow can be seen."""
FURROW_FRONT = 0.38
"""Nor is it told from the shade of nose and brows where the root of the nose lies nearer to a corner, in the
eyes' distance: in heads turned by more than 29 degrees."""
MOST_FURROWED = 0.06
"""What is deeper is a finger: in the sample clip these come to .065 to .085, frowns to .05."""
_FURROW_PX, _FURROW_SIDE, _FURROW_UP = 48, 0.4, 0.05
"""Side of the patch that is looked at, pixels, its side in the eyes' distance, and how far its middle lies
above that of the root of the nose and the forehead between the brows."""
_FURROW_PART = np.s_[10:40, 12:36]


def furrow_depth(image: UInt8, landmarks: Float) -> float:
    """Return how deep furrows run up between the brows, standard deviation of log brightness; NaN: not seen.

    Blendshapes hardly tell of them: to the sample clip's brows, drawn together in grief, they give .03 of 1.

    Args:
        image: uint8 RGB (h, w, 3).
        landmarks: float32 (478, 2), pixels.
    """
    import cv2

    across = landmarks[263] - landmarks[33]
    eyes_px = float(np.hypot(*across))
    x = across / max(eyes_px, 1e-6)
    if not (eyes_px >= FURROW_EYES_PX and nose_to_corner(landmarks) >= FURROW_FRONT):
        return float("nan")
    y = np.array([-x[1], x[0]])
    middle = landmarks[[8, 9]].mean(axis=0) - _FURROW_UP * eyes_px * y
    side = _FURROW_SIDE * eyes_px
    image_from_patch = np.column_stack([x * side, y * side, np.zeros(2)]) / _FURROW_PX
    image_from_patch[:, 2] = middle - (x + y) * side / 2
    flags = cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP
    patch = cv2.warpAffine(
        image, image_from_patch, (_FURROW_PX, _FURROW_PX), flags=flags, borderMode=cv2.BORDER_REPLICATE
    )
    grey = np.log(np.maximum(cv2.cvtColor(patch, cv2.COLOR_RGB2GRAY).astype(np.float32), 8))
    lines = cv2.GaussianBlur(grey, (0, 0), 1.2) - cv2.GaussianBlur(grey, (0, 0), 6)
    upright = cv2.GaussianBlur(lines, (0, 0), sigmaX=0.1, sigmaY=5)
    depth = float(upright[_FURROW_PART].std())
    return depth if depth <= MOST_FURROWED else float("nan")


SMILE = (44, 45)
"""Blendshapes of the corners of the mouth."""


def expression_signals(blendshapes: Float) -> dict[str, Float]:
    """Return the expression curves that a viewer notices, from blendshapes (n, 52) in MediaPipe's order."""
    b = blendshapes
    curves = (
        b[:, [9, 10]].mean(axis=1),
        b[:, 25],
        b[:, list(SMILE)].mean(axis=1),
        b[:, 3],
        (b[:, 13] + b[:, 16] - b[:, 14] - b[:, 15]) / 2,
        (b[:, 17] + b[:, 18] - b[:, 11] - b[:, 12]) / 2,
    )
    return dict(zip(SIGNAL_NAMES, curves, strict=True))


def psnr_db(first: UInt8, second: UInt8) -> float:
    """Return the peak signal-to-noise ratio of two pictures of one shape, dB; 100 at most."""
    error = float(np.mean((first.astype(np.float32) - second) ** 2))
    return float(min(10 * np.log10(255**2 / max(error, 1e-9)), 100.0))


def ms_ssim(first: UInt8, second: UInt8) -> float:
    """Return the multi-scale structural similarity (Wang et al. 2003) of two pictures, -1..1.

    Args:
        first: uint8 (h, w, 3), 176 px or more on the shorter side.
        second: of the same shape.

    Raises:
        ValueError: the pictures differ in shape or are too small for five scales.
    """
    if first.shape != second.shape or min(first.shape[:2]) < 11 * 2 ** (len(_MS_SSIM_WEIGHTS) - 1):
        raise ValueError(f"expected two pictures of one shape, 176 px or more: {first.shape}, {second.shape}")
    a, b = first.astype(np.float32), second.astype(np.float32)
    c1, c2 = (0.01 * 255) ** 2, (0.03 * 255) ** 2
    result = 1.0
    for scale, weight in enumerate(_MS_SSIM_WEIGHTS):
        mean_a, mean_b, aa, bb, ab = (_windowed_mean(x) for x in (a, b, a * a, b * b, a * b))
        structure = (2 * (ab - mean_a * mean_b) + c2) / (aa - mean_a**2 + bb - mean_b**2 + c2)
        if scale == len(_MS_SSIM_WEIGHTS) - 1:
            structure = structure * (2 * mean_a * mean_b + c1) / (mean_a**2 + mean_b**2 + c1)
        # A negative mean has no real power; it means no similarity.
        result *= max(float(structure.mean()), 0.0) ** weight
        a, b = (_halved(x) for x in (a, b))
    return result


def _halved(x: Float) -> Float:
    import cv2

    return np.asarray(cv2.resize(x, None, fx=0.5, fy=0.5, interpolation=cv2.INTER_AREA), np.float32)


def _windowed_mean(x: Float) -> Float:
    """Mean under the 11x11 Gaussian window (sigma 1.5) wherever the window lies inside."""
    import cv2

    return np.asarray(cv2.GaussianBlur(x, (11, 11), 1.5)[5:-5, 5:-5], np.float32)
