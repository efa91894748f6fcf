"""The far edge of a head that is turned aside.

Where the new profile ends before the source's, the background goes on, and where the source's nose reaches
past the oval of the face, that is covered as well.
"""

from __future__ import annotations

import numpy as np

from vidanon.stages import segment
from vidanon.stages.mesh import BROWS, MIDLINE, SIDES
from vidanon.stages.outline import face_width, filled_hull, grown, height_above, turned_away
from vidanon.stages.segment import ramp
from vidanon.types import Float

SOFT = (-0.06, -0.02)
"""So far past the middle of the face, face widths, a pixel begins to count, and counts in full."""
BROW_EDGE = (-0.12, -0.04)
"""Likewise below the top of the brows: on the forehead it is hair that ends the new face, and skin takes its
place."""
PROTRUDES, EDGE = 0.06, 0.04
"""So far past its landmarks a profile may reach, and so much around it is covered, face widths."""
AWAY_FROM_SKIN = 0.02
"""Border of the background, face widths, from which no colour is taken."""
SIGMA = 0.05
"""Finest blur of the background that goes on, face widths."""
ELSEWHERE = 1e-3
"""What a pixel counts that lies on the other side; what is no background counts as much less again."""


def past_middle(landmarks: Float, shape: tuple[int, ...]) -> Float:
    """Find what of a turned head lies past the middle of the face, on the side that is hidden.

    Args:
        landmarks: float32 (478, 2), pixels.
        shape: of the picture.

    Returns:
        float32 (h, w), 0..1; 0 where the head is hardly turned.
    """
    turned, far = turned_away(landmarks)
    if not turned:
        return np.zeros(shape[:2], np.float32)
    up = landmarks[MIDLINE[0]] - landmarks[MIDLINE[-1]]
    up = up / max(float(np.linalg.norm(up)), 1e-6)
    aside = np.array([-up[1], up[0]], np.float32)
    if aside @ (landmarks[SIDES[far]] - landmarks[SIDES[1 - far]]) < 0:
        aside = -aside
    line = landmarks[list(MIDLINE)]
    order = np.argsort(line @ up)
    rows, columns = np.mgrid[0 : shape[0], 0 : shape[1]].astype(np.float32)
    middle = np.interp(columns * up[0] + rows * up[1], (line @ up)[order], (line @ aside)[order])
    past = (columns * aside[0] + rows * aside[1] - middle) / face_width(landmarks)
    below = ramp(-height_above(landmarks, shape, BROWS), *BROW_EDGE)
    return np.asarray(turned * ramp(past.astype(np.float32), *SOFT) * below, np.float32)


def grown_profile(landmarks: Float, grow: float) -> Float:
    """Return the middle of the face shifted to the far side by a share of the face width, (n, 2), pixels."""
    _, far = turned_away(landmarks)
    aside = landmarks[SIDES[far]] - landmarks[SIDES[1 - far]]
    aside = aside / max(float(np.linalg.norm(aside)), 1e-6)
    return np.asarray(landmarks[list(MIDLINE)] + grow * face_width(landmarks) * aside, np.float32)


def protruding(past: Float, skin: Float, landmarks: Float) -> Float:
    """Find what of the source's profile reaches past the oval of the face; float32 (h, w), 0..1.

    Args:
        past: see :func:`past_middle`.
        skin: float32 (h, w), where the source shows face.
        landmarks: float32 (478, 2), pixels of these.
    """
    width = face_width(landmarks)
    reach = filled_hull(np.concatenate([landmarks, grown_profile(landmarks, PROTRUDES)]), past.shape)
    return grown(past * skin * reach, EDGE * width)


def background(source: Float, parts: Float, past: Float, width_px: float) -> Float:
    """Go on with what lies behind the head; float32 RGB (h, w, 3), 0..255, smooth.

    Args:
        source: the same, the picture.
        parts: float32 (h, w, 7), its part chances.
        past: see :func:`past_middle`; from where the colours come, unless there is no background.
        width_px: of the face.
    """
    sure = 1 - grown(1 - ramp(parts[..., list(segment.AROUND)].sum(2), 0.5, 0.8), AWAY_FROM_SKIN * width_px)
    weight = sure * (past + np.float32(ELSEWHERE)) + np.float32(ELSEWHERE**2)
    return segment.fill_face(source, weight, SIGMA * width_px)
