"""The far edge of a head that is turned aside.

Where the new profile ends before the source's, the background goes on, and where the source's nose reaches
past the oval of the face, that is covered as well.
"""

from __future__ import annotations

import cv2
import numpy as np

from vidanon.stages import segment
from vidanon.stages.mesh import BROWS, MIDLINE, NOSE_TIP, SIDES
from vidanon.stages.outline import face_width, filled_hull, grown, half_widths, height_above, unit
from vidanon.stages.segment import ramp
from vidanon.types import Float

STANDS_OUT = (0.02, 0.08)
"""So far past the far side, face widths, the tip of the nose begins to be in profile, and is."""
SOFT = (-0.06, -0.02)
"""So far past the middle of the face, face widths, a pixel begins to count, and counts in full."""
BROW_EDGE = (-0.12, -0.04)
"""Likewise below the top of the brows: on the forehead it is hair that ends the new face, and skin takes its
place."""
PROTRUDES, EDGE = 0.1, 0.06
"""So far past its landmarks a profile may reach, and so much around it is covered, face widths."""
AWAY_FROM_SKIN = 0.02
"""Border of the background, face widths, from which no colour is taken."""
SIGMA = 0.05
"""Finest blur of the background that goes on, face widths."""
REACH, ENOUGH = 0.15, (0.005, 0.025)
"""How far it is looked for, face widths, and of which share of it on something is used, and all of it."""
BEHIND = [segment.BACKGROUND, segment.OCCLUDER]
"""What is no head and no clothes: a strip of wall between a nose and the frame is often taken for a hand."""


def stands_out(landmarks: Float) -> float:
    """Say how surely the nose (478, 2) stands out past the far side of the face, 0..1: it is in profile."""
    far, aside = _aside(landmarks)
    past = float((landmarks[NOSE_TIP] - far) @ aside) / face_width(landmarks)
    return float(np.interp(past, STANDS_OUT, (0.0, 1.0)))


def _aside(landmarks: Float) -> tuple[Float, Float]:
    """Return the far side of a turned face, (2,), and the direction from the near side to it, unit length."""
    far = int(half_widths(landmarks).argmin())
    far_side, near_side = landmarks[SIDES[far]], landmarks[SIDES[1 - far]]
    return far_side, unit(far_side - near_side)


def past_middle(landmarks: Float, shape: tuple[int, ...]) -> Float:
    """Find what of a turned head lies past the middle of the face, on the side that is hidden.

    Args:
        landmarks: float32 (478, 2), pixels.
        shape: of the picture.

    Returns:
        float32 (h, w), 0..1; 0 where the nose is not in profile.
    """
    profile = stands_out(landmarks)
    if not profile:
        return np.zeros(shape[:2], np.float32)
    up = unit(landmarks[MIDLINE[0]] - landmarks[MIDLINE[-1]])
    aside = np.array([-up[1], up[0]], np.float32)
    aside *= np.float32(np.copysign(1, aside @ _aside(landmarks)[1]))
    line = landmarks[list(MIDLINE)]
    order = np.argsort(line @ up)
    rows, columns = np.mgrid[0 : shape[0], 0 : shape[1]].astype(np.float32)
    middle = np.interp(columns * up[0] + rows * up[1], (line @ up)[order], (line @ aside)[order])
    past = (columns * aside[0] + rows * aside[1] - middle) / face_width(landmarks)
    below = ramp(-height_above(landmarks, shape, BROWS), *BROW_EDGE)
    return np.asarray(profile * ramp(past.astype(np.float32), *SOFT) * below, np.float32)


def grown_profile(landmarks: Float, grow: float) -> Float:
    """Return the middle of the face shifted to the far side by a share of the face width, (n, 2), pixels."""
    shift = grow * face_width(landmarks) * _aside(landmarks)[1]
    return np.asarray(landmarks[list(MIDLINE)] + shift, np.float32)


def protruding(past: Float, parts: Float, landmarks: Float) -> Float:
    """Find what of the source's profile reaches past the oval of the face; float32 (h, w), 0..1.

    Args:
        past: see :func:`past_middle`.
        parts: float32 (h, w, 8), part chances of the source; brows and lashes in profile may look like hair.
        landmarks: float32 (478, 2), pixels of these.
    """
    width = face_width(landmarks)
    reach = filled_hull(np.concatenate([landmarks, grown_profile(landmarks, PROTRUDES)]), past.shape)
    head = 1 - ramp(parts[..., BEHIND].sum(2), 0.5, 0.8)
    return grown(past * head * reach, EDGE * width)


def background(source: Float, parts: Float, past: Float, width_px: float) -> tuple[Float, Float]:
    """Go on with what lies behind the head.

    Args:
        source: float32 RGB (h, w, 3), 0..255, the picture.
        parts: float32 (h, w, 8), its part chances.
        past: see :func:`past_middle`; from where the colours come.
        width_px: of the face.

    Returns:
        float32 (h, w, 3), smooth, and float32 (h, w), 0..1, how far there is such a background in reach:
        where a face touches the border of the frame there may be none.
    """
    wall = ramp(parts[..., BEHIND].sum(2), 0.5, 0.8)
    wall = past * (1 - grown(1 - wall, AWAY_FROM_SKIN * width_px))
    near = np.asarray(cv2.GaussianBlur(wall, (0, 0), REACH * width_px), np.float32)
    return segment.fill_face(source, wall, SIGMA * width_px), ramp(near, *ENOUGH)
