"""Put the warped face into the frame: mask, colour and light, feathered seam.

All work happens on a region of interest around the face. Mask, statistics and light are smooth, so they
are computed on a small copy of the region; only the last two steps touch every pixel.
"""

from __future__ import annotations

from dataclasses import dataclass, fields, replace

import cv2
import numpy as np

from vidanon.geometry import apply, compose
from vidanon.stages import segment, sharpness
from vidanon.stages.beard import beard_shares, with_hairs
from vidanon.stages.colour import contrast_between, match_colour
from vidanon.stages.grain import add_grain
from vidanon.stages.mesh import BROWS, FACE_OVAL
from vidanon.stages.outline import (
    GROW,
    brow_mask,
    face_width,
    filled,
    grown,
    grown_outline,
    height_above,
    outline,
)
from vidanon.stages.profile import PROTRUDES, background, grown_profile, past_middle, protruding, stands_out
from vidanon.stages.segment import ramp
from vidanon.types import Float, UInt8

REGION_MARGIN = 0.08
"""What the region of interest shows around the mask, face widths: what comes in from outside."""
SEAM_REACH = 0.3
"""So far past the mask its seam reaches, as a share of the feather."""
BEARD_REACH = 0.16
"""How far below the oval a beard is followed, in face widths."""
HAIR_EDGE, HAIR_EDGE_ABOVE = 0.04, 0.10
"""Border of generated hair that is left out with it, in face widths; strands reach far down the forehead."""
FEATURE_EDGE = 0.03
"""Border of brows, eyes and lips, face widths: what is taken from the skin is not taken from there."""
FILL_SIGMA = 0.06
"""Blur of the skin that takes the place of generated hair, in face widths."""
LIGHT_KEEP = 0.8
"""Share of the light that is carried over from the source."""
HAIR_SHADE = 0.05
"""So far from the source's hair its light is not looked at, face widths."""
RIM = 0.12
"""Width of the rim of the oval, face widths, where the source stays if neither picture shows face, or if it
surely shows none."""
TEMPLE = 0.5
"""So far below the brows, face widths, trust in hair on the rim ends; hair is kept where it is above .6."""
SMALL_PX = 140
"""Longer side of the small copy, about: the region is reduced by a whole number."""
STRAND_CONTRAST = (10.0, 24.0)
"""From how much darker or lighter than the skin around it a generated forehead is taken for hair, 0..255."""
ISLAND = 0.08
"""Largest patch between strands, apart from the face, that is left out too, squared face widths."""
STRAND_REACH = 0.03
"""How far beside such a place the forehead is left out too, face widths: fine strands hardly stand out."""


def region_of_interest(
    landmarks: Float, shape: tuple[int, ...], forehead: float = 0.5, feather: float = 0.3
) -> tuple[int, int, int, int] | None:
    """Return (x0, y0, x1, y1) around all that :func:`blend` may change; None outside the frame.

    Args:
        landmarks: float32 (478, 2), frame pixels.
        shape: of the frame.
        forehead: see :func:`blend`.
        feather: see :func:`blend`.
    """
    reach = GROW + REGION_MARGIN + SEAM_REACH * feather
    border = grown_outline(landmarks, reach, up=forehead, down=BEARD_REACH)
    if stands_out(landmarks):
        border = np.concatenate([border, grown_profile(landmarks, PROTRUDES + 2 * REGION_MARGIN)])
    x0, y0 = np.maximum(np.floor(border.min(0)).astype(int), 0)
    x1, y1 = np.minimum(np.ceil(border.max(0)).astype(int), (shape[1], shape[0]))
    if x1 - x0 < 4 or y1 - y0 < 4:
        return None
    return int(x0), int(y0), int(x1), int(y1)


@dataclass(frozen=True, slots=True)
class Mask:
    """Where the new face goes, float32 (h, w), 0..1.

    Attributes:
        skin: the source shows face or beard.
        sure: both pictures show face here: what colours are compared on.
        lit: both show skin once generated hair is filled in: where light is compared.
        cover: where the new face goes unless something is kept, before the seam is softened.
        keep: where something of the source stays in front.
        core: eyes, nose and mouth; always covered but for what is kept.
        far: what lies past the middle of a head that is turned aside.
        behind: what the new face leaves of the background there.
    """

    skin: Float
    sure: Float
    lit: Float
    cover: Float
    keep: Float
    core: Float
    far: Float
    behind: Float


def face_mask(parts: Float, generated_face: Float, landmarks: Float, forehead: float) -> Mask:
    """Find where the new face goes: up to the real hair line, down to the end of a beard.

    Args:
        parts: float32 (h, w, 8), part chances of the source.
        generated_face: float32 (h, w), chance that the new picture shows face, 0..1.
        landmarks: float32 (478, 2), pixels of these maps.
        forehead: how far the mask reaches above the face oval, in face widths.
    """
    shape = parts.shape
    oval = filled(outline(landmarks), shape)
    core = segment.core_mask(landmarks, shape)
    rim = 1 - filled(grown_outline(landmarks, -RIM), shape)
    height = height_above(landmarks, shape, BROWS)
    upper = np.maximum(height > 0, rim * np.clip(1 + height / TEMPLE, 0, 1))
    keep = segment.in_front(parts, oval > 0.5, core, upper) * ~segment.never_in_front(parts, landmarks)
    skin = ramp(parts[..., list(segment.FACE)].sum(2), 0.35, 0.65)
    beard = ramp(parts[..., segment.BEARD], 0.2, 0.5)
    above = filled(grown_outline(landmarks, GROW, up=forehead), shape) * skin
    below = filled(grown_outline(landmarks, GROW, down=BEARD_REACH), shape) * beard
    neither = rim * (1 - skin) * (1 - ramp(generated_face, 0.35, 0.65))
    # A new face that is wider than the head would end ragged, in what lies behind it in its own picture.
    outside = parts[..., list(segment.AROUND)].sum(2)
    past = 1 - filled(landmarks[list(FACE_OVAL)], shape)
    beyond = np.maximum(rim * ramp(outside, 0.6, 0.9), past * ramp(outside, 0.3, 0.6))
    cover = np.maximum(oval * (1 - np.maximum(neither, beyond)), np.maximum(above, below))
    far = past_middle(landmarks, shape)
    if far.any():
        cover = np.maximum(cover, protruding(far, parts, landmarks))
    behind = far * (1 - ramp(generated_face, 0.35, 0.65))
    lit = cover * skin * (1 - keep) * (1 - beard)  # a dark beard is neither dark skin nor shade
    sure = oval * lit * generated_face
    # Nor is the darkness of the hair line.
    lit *= 1 - grown(ramp(parts[..., segment.HAIR], 0.2, 0.5), HAIR_SHADE * face_width(landmarks))
    return Mask(skin, sure, lit, cover, keep, core.astype(np.float32), far, behind)


def _below_brows(landmarks: Float, shape: tuple[int, ...]) -> Float:
    """Return what lies below the brows, (h, w), 0..1: sharpened, strands on the forehead would stand out."""
    return 1 - ramp(height_above(landmarks, shape, BROWS), -0.1, 0.0)


def _own_face(generated: Float, face: Float, landmarks: Float, core: Float) -> Float:
    """Find what of the new picture can be used: its face without hair that falls on it; (h, w), 0..1.

    Args:
        generated: float32 RGB (h, w, 3), 0..255.
        face: float32 (h, w), chance that it shows face.
        landmarks: float32 (478, 2), pixels.
        core: float32 (h, w), eyes, nose and mouth, which are always used, but not what surely is hair beside
            the eyes.
    """
    width = face_width(landmarks)
    height = height_above(landmarks, face.shape, BROWS)
    above_brows = ramp(height, 0.0, 0.08)
    likely = ramp(face, 0.4, 0.7)
    close, wide = (_inside(likely, edge * width) for edge in (HAIR_EDGE, HAIR_EDGE_ABOVE))
    core = core * np.maximum(segment.features(landmarks, face.shape), likely)
    own = np.maximum(close + above_brows * (wide - close), core)
    # Single strands are finer than the chances of parts, but they stand out from the skin around them.
    grey = np.asarray(cv2.cvtColor(generated, cv2.COLOR_RGB2GRAY), np.float32)
    skin = segment.fill_face(grey[..., None], own, FILL_SIGMA * width)[..., 0]
    strands = ramp(np.abs(skin - grey), *STRAND_CONTRAST)
    strands = grown(strands, STRAND_REACH * width) * ramp(height, 0.0, 0.03)
    strands *= 1 - brow_mask(landmarks, face.shape)
    own *= 1 - strands
    count, numbers = cv2.connectedComponents((own > 0.05).astype(np.uint8), connectivity=4)
    island = np.bincount(numbers.ravel(), minlength=count) < ISLAND * width**2
    island[np.unique(numbers[core > 0.5])] = False
    return np.asarray(own * ~island[numbers], np.float32)


def _inside(chance: Float, edge_px: float) -> Float:
    """Take a border off a mask, softly."""
    reach = max(1, round(edge_px))
    inner = cv2.erode(chance, np.ones((2 * reach + 1,) * 2, np.uint8))
    return np.asarray(cv2.GaussianBlur(inner, (0, 0), max(reach / 2, 0.5)), np.float32)


def blend(
    image: UInt8,
    warped: UInt8,
    landmarks: Float,
    region: tuple[int, int, int, int],
    forehead: float,
    feather: float,
    parts: Float,
    crop_from_frame: Float,
    beard: float = 0.0,
    contrast: Float | None = None,
) -> Float:
    """Blend a warped face into the frame, in place.

    Args:
        image: uint8 (height, width, 3), changed in place inside ``region`` only.
        warped: uint8 (h, w, 4), the new face already in the frame's geometry, the size of ``region``; the
            fourth channel says where it shows face (:func:`vidanon.stages.segment.with_face_channel`).
        landmarks: float32 (478, 2), frame pixels, outline of the face to cover.
        region: (x0, y0, x1, y1).
        forehead: how far the mask reaches above the face oval, in face widths.
        feather: softness of the seam, in face widths.
        parts: float32 (8, 64, 64), part chances of the source's crop.
        crop_from_frame: float32 (2, 3), frame pixels to the unit crop.
        beard: how much of what is dark of hair at the source's chin and cheeks is its beard and kept, 0..1.
        contrast: float32 (3,), see :func:`vidanon.stages.colour.contrast_between`; None: as this frame shows.

    Returns:
        The contrast that it was given.
    """
    x0, y0, x1, y1 = region
    patch = image[y0:y1, x0:x1]
    step = max(1, round(max(patch.shape[:2]) / SMALL_PX))
    small_from_frame = np.array([[1, 0, 0.5 - x0], [0, 1, 0.5 - y0]], np.float32) / np.float32(step)
    small_from_frame[:, 2] -= 0.5
    source, new = _reduced(patch, step), _reduced(warped, step)
    size = (source.shape[1], source.shape[0])
    placed = segment.place_parts(parts, crop_from_frame, small_from_frame, size)
    points = apply(small_from_frame, landmarks).astype(np.float32)
    shares, contrast = _shares(source, new, placed, points, forehead, feather, beard, contrast)
    left, top, right, bottom = _box(shares.alpha)
    shares = shares.cut(np.s_[top:bottom, left:right])
    part = np.s_[step * top : step * bottom, step * left : step * right]
    frame_from_part = np.array([[1, 0, x0 + step * left], [0, 1, y0 + step * top]], np.float32)
    _paint(patch[part], warped[part], shares, step, compose(crop_from_frame, frame_from_part))
    return contrast


@dataclass(frozen=True, slots=True)
class _Shares:
    """How a face is painted, found on a small copy: ``alpha * gain * (own * matrix @ new + offset)``.

    Attributes:
        alpha: float32 (h, w), share of the new face, 0..1.
        own: float32 (h, w), share of the new picture itself in it; the rest is skin that was filled in.
        gain: float32 (h, w), 0..1, lower where a beard is drawn darker.
        hairs: float32 (h, w), share of the source's finest detail that is given to it at last, 0..1.
        offset: float32 (h, w, 3), what is added to it.
        matrix: float32 (3, 3), what its colours are multiplied by.
        sure: float32 (h, w), where both pictures show the face.
        low: float32 (h, w), what lies below the brows.
        width: of the face, pixels of these.
    """

    alpha: Float
    own: Float
    gain: Float
    hairs: Float
    offset: Float
    matrix: Float
    sure: Float
    low: Float
    width: float

    def cut(self, part: tuple[slice, slice]) -> _Shares:
        """Return a part of them."""
        maps = {f.name: getattr(self, f.name) for f in fields(self) if f.name not in ("matrix", "width")}
        return replace(self, **{name: share[part] for name, share in maps.items()})


def _shares(
    source: Float,
    new: Float,
    parts: Float,
    landmarks: Float,
    forehead: float,
    feather: float,
    beard: float,
    contrast: Float | None,
) -> tuple[_Shares, Float]:
    """Find how the face is painted, and the contrast that it is given.

    Args:
        source: float32 RGB (h, w, 3), 0..255.
        new: float32 (h, w, 4), the new face, its fourth channel where it shows face.
        parts: float32 (h, w, 8), part chances of the source.
        landmarks: float32 (478, 2), pixels of these.
        forehead: see :func:`blend`.
        feather: see :func:`blend`.
        beard: see :func:`blend`.
        contrast: see :func:`blend`.
    """
    generated, width = np.ascontiguousarray(new[..., :3]), face_width(landmarks)
    face_chance = new[..., 3] / np.float32(255)
    mask = face_mask(parts, face_chance, landmarks, forehead)
    usable = _own_face(generated, face_chance, landmarks, mask.core)
    # At the border of the source's skin the new picture may show hair, which is no colour for a forehead.
    edge_px = FEATURE_EDGE * width
    sockets = grown(segment.sockets(landmarks, usable.shape), edge_px)
    skin = usable * mask.skin * (mask.cover + 1e-3) * (1 - sockets)
    bare = segment.fill_face(generated, skin, FILL_SIGMA * width)
    own = np.maximum(usable, 1 - mask.skin) * (1 - mask.behind)
    generated += (1 - own)[..., None] * (bare - generated)
    keep = np.float32(LIGHT_KEEP) * own + (1 - own)  # skin that was filled in has no light of its own
    lit = mask.lit * (1 - np.maximum(sockets, grown(segment.lips(landmarks, usable.shape), edge_px)))
    above = ramp(height_above(landmarks, lit.shape, BROWS), 0.0, 0.08)
    keep = np.maximum(keep, above)
    if contrast is None:
        contrast = contrast_between(source, generated, mask.sure, mask.core)
    matrix, offset = match_colour(source, generated, mask.sure, lit, keep, above, width, contrast)
    gain, hairs = np.ones_like(own), np.zeros_like(own)
    if beard:
        drawn = cv2.transform(generated, matrix) + offset
        gain, hairs = beard_shares(source, drawn, parts, landmarks, beard)
    smooth = cv2.transform(bare, matrix)
    light, offset = offset, offset + (1 - own)[..., None] * smooth
    if mask.behind.any():
        wall, found = background(source, parts, mask.far, width)
        share = mask.behind * found
        offset += share[..., None] * (wall - (light + smooth))
        gain = 1 - (1 - gain) * (1 - share)
    soft = cv2.GaussianBlur(mask.cover, (0, 0), max(feather * width / 2, 0.6))
    alpha = np.maximum(ramp(np.asarray(soft, np.float32), 0.3, 0.8), mask.core)
    alpha *= 1 - cv2.GaussianBlur(mask.keep, (0, 0), 0.7)
    low = _below_brows(landmarks, mask.cover.shape)
    return _Shares(alpha, own, gain, alpha * hairs, offset, matrix, mask.sure, low, width), contrast


def _reduced(picture: UInt8, step: int) -> Float:
    """Reduce a picture by a whole number; its last row and column are repeated as far as that needs."""
    height, width = picture.shape[:2]
    rest = -height % step, -width % step
    if any(rest):
        picture = np.asarray(
            cv2.copyMakeBorder(picture, 0, rest[0], 0, rest[1], cv2.BORDER_REPLICATE), np.uint8
        )
    size = (picture.shape[1] // step, picture.shape[0] // step)
    return cv2.resize(picture, size, interpolation=cv2.INTER_AREA).astype(np.float32)


def _box(alpha: Float) -> tuple[int, int, int, int]:
    """Return (x0, y0, x1, y1), exclusive, of what is not 0 and one more pixel around it."""
    left, top, columns, rows = cv2.boundingRect((alpha > 0).astype(np.uint8))
    return max(left - 1, 0), max(top - 1, 0), left + columns + 1, top + rows + 1


def _paint(patch: UInt8, warped: UInt8, shares: _Shares, step: int, crop_from_patch: Float) -> None:
    """Paint the new face, in place, ``step`` times as large as the shares."""
    rows, columns = patch.shape[:2]

    def enlarged(share: Float) -> Float:
        size = (share.shape[1] * step, share.shape[0] * step)
        return np.asarray(
            cv2.resize(share, size, interpolation=cv2.INTER_LINEAR)[:rows, :columns], np.float32
        )

    alpha, own = shares.alpha, shares.own
    bright = alpha * shares.gain
    kept, drawn = (enlarged(np.asarray(cv2.merge([x] * 3), np.float32)) for x in (1 - alpha, bright * own))
    added, sure = enlarged(bright[..., None] * shares.offset), enlarged(shares.sure)
    contrast = float(shares.matrix[0].sum())  # grey stays grey
    warped = sharpness.match_detail(warped, patch, contrast, sure, enlarged(shares.low))
    added = add_grain(added, ((warped, contrast), (patch, 1.0)), sure, alpha * (1 - own), crop_from_patch)
    colours = np.column_stack([shares.matrix, np.zeros(3, np.float32)])
    face = cv2.multiply(cv2.transform(warped.astype(np.float32), colours), drawn, dst=drawn)
    face = cv2.add(face, added, dst=added)
    behind = cv2.multiply(patch, kept, dst=kept, dtype=cv2.CV_32F)
    if shares.hairs.any():
        whole = np.asarray(cv2.add(face, behind, dst=face), np.float32)
        patch[:] = with_hairs(whole, patch, enlarged(shares.hairs), step * shares.width)
    else:
        patch[:] = cv2.add(face, behind, dtype=cv2.CV_8U)
