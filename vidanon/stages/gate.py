"""Decide, face by face, whether the new face is good enough to be shown; if not, it is obscured."""

from __future__ import annotations

from collections.abc import Sequence

HOLD_FRAMES = 4
"""A face is shown only if every frame this near passes: no flicker between face and mask."""


def face_passes(error: float | None, limit: float) -> bool:
    """Judge one generated face.

    Args:
        error: :func:`vidanon.stages.warp.landmark_error`; None where either face has no landmarks.
        limit: the largest error that still looks right, in inter-ocular distances.
    """
    return error is not None and error <= limit


def shown(passes: Sequence[bool | None], center: int) -> bool:
    """Apply hysteresis over the neighbouring frames of a track.

    Args:
        passes: verdicts of consecutive frames, None where the track has no face in that frame.
        center: index of the frame that is decided.
    """
    near = passes[max(0, center - HOLD_FRAMES) : center + HOLD_FRAMES + 1]
    return passes[center] is True and all(verdict is not False for verdict in near)
