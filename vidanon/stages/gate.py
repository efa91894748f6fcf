"""Decide, face by face, whether the new face is shown or obscured, and whether a hand before it stays."""

from __future__ import annotations

from collections.abc import Sequence

HOLD_FRAMES = 4
"""A face is shown only if every frame this near passes: no flicker between face and mask.
Likewise, something in front stays there only if it may in all of these."""
MOST_IN_FRONT = 0.85
"""So much of eyes, nose and mouth may lie behind a hand that stays before a new face: what hides all of a
face is no hand."""
ANYTHING_IN_FRONT = 0.02
"""Smaller shares are errors of the segmenter."""


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


def anything_stays(in_front: float | None, is_bare: bool) -> bool:
    """Say whether something stays before the new face.

    Args:
        in_front: share of eyes, nose and mouth behind something, 0..1; None where that is not known.
        is_bare: the new face is drawn over it.
    """
    return not is_bare and in_front is not None and in_front > ANYTHING_IN_FRONT


def bare(in_front: Sequence[float | None], center: int) -> bool:
    """Say whether the new face is drawn over what is in front of it.

    Args:
        in_front: shares of eyes, nose and mouth behind something in consecutive frames of a track, 0..1;
            None where it has no face.
        center: index of the frame that is decided.
    """
    near = in_front[max(0, center - HOLD_FRAMES) : center + HOLD_FRAMES + 1]
    return any(share is not None and share > MOST_IN_FRONT for share in near)
