"""Which frames of a track the recognisers look at.

Likeness changes over tenths of a second, so evenly spaced frames tell where it comes near the line between
two people and one; the frames around these are then looked at as well.
"""

from __future__ import annotations

import math
from itertools import pairwise

import numpy as np

from vidanon.identity.embed import SFACE_SAME_PERSON
from vidanon.recognisers import DLIB_SAME_PERSON
from vidanon.tally import FacePair
from vidanon.types import Track

SPACING_FRAMES = 3
"""Nearer samples see the same face again."""
NEIGHBOUR_EVERY = 3
"""Every so many samples, the next frame is judged too: stability and flicker need two in a row."""
NEAR_SFACE, NEAR_DLIB = 0.08, 0.08
"""A face that comes so near the threshold may cross it a few frames away."""


def sampled_frames(track: Track, samples: int) -> set[int]:
    """Return evenly spaced frames, both ends among them, some with their neighbour.

    Args:
        track: the track.
        samples: at most so many, not counting neighbours.
    """
    count = min(samples, max(2, math.ceil((track.end - track.start) / SPACING_FRAMES)))
    starts = np.unique(np.linspace(track.start, track.end - 1, count).round().astype(int)).tolist()
    followed = {min(start + 1, track.end - 1) for start in starts[::NEIGHBOUR_EVERY]}
    return {*starts, *followed}


def nearness_of(pair: FacePair) -> float:
    """Return how near a face comes to the line: 1 on it, 0 at the distance from which nobody looks closer."""
    sface = 1 - (SFACE_SAME_PERSON - pair.similarity) / NEAR_SFACE
    dlib = 1 - (pair.distance - DLIB_SAME_PERSON) / NEAR_DLIB
    return max(sface, dlib) if np.isfinite(dlib) else sface


def closer_frames(nearness: dict[int, float], budget: int) -> list[int]:
    """Return the frames to look at in addition: those between a near one and its neighbours.

    Args:
        nearness: of the frames that were judged, see :func:`nearness_of`.
        budget: return at most so many, those beside the nearest first.
    """
    judged = sorted(nearness)
    gaps = [(max(nearness[a], nearness[b]), range(a + 1, b)) for a, b in pairwise(judged) if b - a > 1]
    gaps.sort(key=lambda gap: -gap[0])
    wanted = [frame for near, gap in gaps if near > 0 for frame in gap]
    return sorted(wanted[:budget])
