"""Give a new face the wrinkles that an expression makes: furrows between the brows, lines on the forehead.

Generated faces hardly frown, and the network that tells the mapper of an expression does not see a furrow at
all: who grieved with closed eyes became somebody who smiles in their sleep. So the shading of the source's
forehead goes over to the new face, beyond what it is at rest (expression ratio images: Liu, Shan and Zhang,
SIGGRAPH 2001). What is always there, as moles and lines of age are, is there at rest too, and stays behind.

All is done on a *patch*: upper face and forehead, aligned by landmarks.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import cv2
import numpy as np
import numpy.typing as npt

from vidanon.geometry import (
    apply,
    compose,
    fit_affine,
    invert,
    nose_to_corner,
    picture_from_unit,
    pixels_around,
)
from vidanon.stages.mesh import BELOW_BROWS, FOREHEAD
from vidanon.stages.outline import brow_mask, filled_hull, grown
from vidanon.stages.segment import FACE, OCCLUDER, ramp
from vidanon.types import AtRest, Float, UInt8

EYES_PX = 80
"""Between the outer corners of the eyes, in the patch."""
WIDE, ABOVE, BELOW = 1.5, 1.0, 0.2
"""How large the patch is, and how far it reaches above and below the eyes, in their distance."""
SEEN_PX = (36.0, 52.0)
"""Between the outer corners of the eyes, on screen: where wrinkles begin to be seen, and where they fully
are."""
LEAST = 5
"""Of fewer scenes it could not be told how a face is at rest."""
REST = 0.65
"""At rest skin is as bright as in this quantile of the scenes: wrinkles are dark."""
BROAD, FINE = 0.11, 0.008
"""What is broader or finer is no wrinkle, in the eyes' distance: light, or noise."""
NOISE, GAIN, DARK, BRIGHT = 0.02, 1.1, 0.35, 0.12
"""Differences of log brightness of which less is noise, what more is multiplied by, since some of it is lost
to the broader and finer, and the most that is given in either direction. With a gain of 1.7 furrows of the
sample clip got 1.4 times as deep as they are."""
LINES = 0.6
"""What lines on the forehead count beside furrows between the brows."""
BROW_EDGE, HAIR_EDGE = 0.025, 0.06
"""So far from brows and hair nothing is given: they move."""
ABOVE_BROWS, FURROWED = 0.25, 0.1
"""Nor is it so far from brows but between them, and so far up from there: of the .045 by which frowns of the
sample clip came nearer to the source as SFace sees it, .02 came from right above the brows."""
SHOWS = 0.016
"""Root mean square, over what counts, from which on wrinkles are taken over: relaxed foreheads of four clips
came to .001 to .016, frowns of the sample clip to .02 to .06."""
GLABELLA = (9, 8)
PERHAPS, FURROW = 0.3, 0.45
"""A deep furrow looks like a finger to the segmenter: what may be in front is taken for skin between the
brows, unless it is larger than a square of this side, in the eyes' distance: fingers hang on a hand."""
INNER_BROWS = (107, 55, 336, 285)
HAIR_LINE = FOREHEAD[:9]
RAISED = 0.25
"""So far the forehead reaches beyond the landmarks at most, in the eyes' distance."""
TURNED = (0.28, 0.38)
"""How far the root of the nose lies from the nearer corner of an eye, in their distance, where wrinkles begin
to go over (a head turned by 43 degrees) and where they fully do (29): in profile brows and nose lie where the
forehead is taken to be."""
ALIGNED = (*FOREHEAD, *BELOW_BROWS, *GLABELLA)


class Look(NamedTuple):
    """One frame with a face.

    Attributes:
        image: uint8 RGB (h, w, 3).
        landmarks: float32 (478, 2), pixels.
        crop_from_frame: float32 (2, 3), pixels to the unit crop.
        parts: float32 (8, 64, 64), part chances of the crop.
    """

    image: UInt8
    landmarks: Float
    crop_from_frame: Float
    parts: Float


def visible(landmarks: Float) -> float:
    """Return how far wrinkles are seen and can be placed, 0..1.

    Args:
        landmarks: float32 (478, 2), of a face, pixels.
    """
    front = np.interp(nose_to_corner(landmarks), TURNED, (0, 1))
    return float(np.interp(_eyes_px(landmarks), SEEN_PX, (0, 1)) * front)


def at_rest(looks: Sequence[Look]) -> AtRest | None:
    """Find how a forehead is shaded at rest; None where it is seen too seldom.

    Args:
        looks: at one person in one light, with wrinkles :func:`visible`.
    """
    if len(looks) < LEAST:
        return None
    unit = np.mean([apply(look.crop_from_frame, look.landmarks) for look in looks], axis=0)
    middle = unit[[33, 263]].mean(axis=0)
    corner = np.array([WIDE / 2, ABOVE], np.float32)
    landmarks = np.asarray(EYES_PX * ((unit - middle) / _eyes_px(unit) + corner), np.float32)
    seen = [_shading(look, landmarks) for look in looks]
    shades = np.stack([np.where(bare > 0.5, shade, np.nan) for shade, bare, _ in seen])
    often = np.isfinite(shades).sum(axis=0) >= LEAST
    shade = np.zeros(often.shape, np.float32)
    shade[often] = np.nanquantile(shades[:, often], REST, axis=0)
    return AtRest(landmarks, shade, often.astype(np.float32))


def wrinkled(
    warped: UInt8,
    region: tuple[int, int, int, int],
    look: Look,
    target: Float,
    rest: AtRest,
    share: float = 1,
) -> tuple[UInt8, bool]:
    """Give a new face the wrinkles that the source's face has in this frame and not at rest.

    Args:
        warped: uint8 (h, w, 4), the new face in the frame's geometry, the size of ``region``.
        region: (x0, y0, x1, y1), frame pixels.
        look: at the source.
        target: float32 (478, 2), landmarks of the new face, frame pixels.
        rest: the source at rest.
        share: so much of them, 0..1.

    Returns:
        uint8 (h, w, 4), ``warped`` itself where no wrinkles are seen, and whether there are any to speak of.
    """
    share *= visible(look.landmarks)
    if share == 0:
        return warped, False
    shade, bare, brows = _shading(look, rest.landmarks)
    beyond = shade - rest.shade
    beyond = np.sign(beyond) * np.maximum(np.abs(beyond) - np.float32(NOISE), 0)
    counts = bare * rest.known * _counts(rest.landmarks, brows)
    weight = np.minimum(counts, cv2.GaussianBlur(counts, (0, 0), BROW_EDGE * EYES_PX))
    change = np.asarray(share * weight * np.clip(GAIN * beyond, -DARK, BRIGHT), np.float32)
    frame_from_patch = fit_affine(rest.landmarks[list(ALIGNED)], target[list(ALIGNED)])
    region_from_patch = frame_from_patch - np.array([[0, 0, region[0]], [0, 0, region[1]]], np.float32)
    (x0, y0), (x1, y1) = _box(region_from_patch, change.shape, warped.shape)
    box_from_patch = region_from_patch - np.array([[0, 0, x0], [0, 0, y0]], np.float32)
    placed = cv2.warpAffine(change, box_from_patch, (int(x1 - x0), int(y1 - y0)))
    result = warped.copy()
    shown = warped[y0:y1, x0:x1, :3] * np.exp(placed)[..., None]
    result[y0:y1, x0:x1, :3] = np.round(np.clip(shown, 0, 255)).astype(np.uint8)
    return result, bool((change**2).sum() > SHOWS**2 * max(float(weight.sum()), 1.0))


def _counts(landmarks: Float, brows: Float) -> Float:
    """Return what places on the patch count, float32 (h, w), 0..1.

    Args:
        landmarks: float32 (478, 2), on the patch.
        brows: float32 (h, w), where they lie.
    """
    raised = landmarks[list(HAIR_LINE)] - np.array([0, RAISED * EYES_PX], np.float32)
    forehead = filled_hull(np.concatenate([landmarks[[*FOREHEAD, *GLABELLA]], raised]), brows.shape)
    above = landmarks[list(INNER_BROWS)] - np.array([0, FURROWED * EYES_PX], np.float32)
    between = filled_hull(np.concatenate([landmarks[[*INNER_BROWS, *GLABELLA]], above]), brows.shape)
    lines = np.float32(LINES) * forehead * (1 - grown(brows, ABOVE_BROWS * EYES_PX))
    return np.asarray(np.maximum(between, lines), np.float32)


def _eyes_px(landmarks: Float) -> float:
    """Return the distance of the outer corners of the eyes."""
    return max(float(np.hypot(*(landmarks[263] - landmarks[33]))), 1e-6)


def _shading(look: Look, landmarks: Float) -> tuple[Float, Float, Float]:
    """Look at the patch.

    Args:
        look: at a face.
        landmarks: float32 (478, 2), where its landmarks lie on the patch.

    Returns:
        float32 (h, w) each: log brightness less that of what surrounds it, how far it is bare skin, 0..1, and
        where brows lie, 0..1.
    """
    size = round(WIDE * EYES_PX), round((ABOVE + BELOW) * EYES_PX)
    patch_from_frame = fit_affine(look.landmarks[list(ALIGNED)], landmarks[list(ALIGNED)])
    patch_from_parts = compose(
        patch_from_frame, compose(invert(look.crop_from_frame), invert(picture_from_unit(len(look.parts[0]))))
    )
    face, furrow = (
        np.asarray(cv2.warpAffine(chance, patch_from_parts, size), np.float32)
        for chance in (look.parts[list(FACE)].sum(axis=0), _furrow_like(look))
    )
    shape, places = size[::-1], apply(patch_from_frame, look.landmarks)
    between = grown(filled_hull(landmarks[[*INNER_BROWS, *GLABELLA]], shape), 2 * HAIR_EDGE * EYES_PX)
    face = face + between * furrow
    skin = 1 - grown(1 - ramp(face, 0.6, 0.9), HAIR_EDGE * EYES_PX)
    brows = np.maximum(brow_mask(places, shape), brow_mask(landmarks, shape))
    bare = skin * (1 - grown(brows, BROW_EDGE * EYES_PX))
    grey = np.asarray(_grey(look.image, patch_from_frame, size), np.float32)
    brightness = np.log(np.maximum(cv2.GaussianBlur(grey, (0, 0), max(FINE * EYES_PX, 0.5)), 8))
    around, weight = (cv2.GaussianBlur(x, (0, 0), BROAD * EYES_PX) for x in (bare * brightness, bare))
    shade = brightness - around / np.maximum(weight, 1e-3)
    return np.asarray(shade, np.float32), np.asarray(bare, np.float32), brows


def _furrow_like(look: Look) -> Float:
    """Return the chance that something is in front where nothing large is, float32 (64, 64)."""
    before = look.parts[OCCLUDER]
    eyes = _eyes_px(apply(look.crop_from_frame, look.landmarks)) * len(before)
    numbers, areas = cv2.connectedComponentsWithStats((before > PERHAPS).astype(np.uint8), connectivity=8)[
        1:3
    ]
    large = areas[:, cv2.CC_STAT_AREA] >= (FURROW * eyes) ** 2
    large[0] = False
    hands = grown(large[numbers].astype(np.float32), HAIR_EDGE * eyes)
    return np.asarray(before * (1 - hands), np.float32)


def _grey(image: UInt8, patch_from_frame: Float, size: tuple[int, int]) -> UInt8:
    """Cut the patch out of an image, in grey, made smaller first where the face is large."""
    low, high = _box(invert(patch_from_frame), size[::-1], image.shape)
    part = image[low[1] : high[1], low[0] : high[0]]
    step = max(1.0, 1 / max(float(np.hypot(*patch_from_frame[:, 0])), 1e-6))
    smaller = max(1, round(part.shape[1] / step)), max(1, round(part.shape[0] / step))
    small = cv2.resize(cv2.cvtColor(part, cv2.COLOR_RGB2GRAY), smaller, interpolation=cv2.INTER_AREA)
    scale = np.array(smaller, np.float32) / np.array(part.shape[1::-1], np.float32)
    small_from_frame = np.column_stack([np.diag(scale), (0.5 - low) * scale - 0.5]).astype(np.float32)
    patch = cv2.warpAffine(
        small, compose(patch_from_frame, invert(small_from_frame)), size, borderMode=cv2.BORDER_REPLICATE
    )
    return np.asarray(patch, np.uint8)


def _box(picture_from_patch: Float, patch: tuple[int, ...], picture: tuple[int, ...]) -> npt.NDArray[np.intp]:
    """Return where a patch lies in a picture: upper left and lower right corner, (2, 2), never empty.

    Args:
        picture_from_patch: float32 (2, 3).
        patch: its shape.
        picture: of what it lies in.
    """
    height, width = patch[:2]
    ends = np.array([[0, 0], [width, 0], [0, height], [width, height]], np.float32)
    return np.stack(pixels_around(apply(picture_from_patch, ends), picture))
