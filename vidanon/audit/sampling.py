"""Which frames of a track the recognisers look at.

Likeness changes over tenths of a second, so evenly spaced frames tell where it comes near the line between
two people and one; the frames around these are then looked at as well.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping, Sequence
from itertools import pairwise

import numpy as np

from vidanon.recognisers import RECOGNISERS, Recogniser, margins_of
from vidanon.tally import FacePair
from vidanon.types import Track

SPAN_FRAMES = 480
"""A longer track gets proportionally more samples. With 32 of 1,337 frames, 2 moments were missed in which
somebody was recognised."""
SPACING_FRAMES = 3
"""Nearer samples see the same face again."""
NEIGHBOUR_EVERY = 3
"""Every so many samples, the next frame is judged too: stability and flicker need two in a row."""
RUN_SAMPLES = 4
"""Between two masks, a face that shows is looked at so often, where it shows for so long."""
NEAR = 0.12
"""A face that comes so near the threshold may cross it a few frames away: dlib's distance of a small, turned
face moves by .11 from one frame to the next in one case of twenty. With .08 for SFace three frames of a face
of 30 px in poor light were missed."""
JUMPS, LEAST_STEPS = 2.5, 3
"""Where a recogniser's verdict jumps, what is near is so many times what it moves from one frame to the next,
if so many steps are known. SFace gave a dark face of 57 px behind a hand .35, .39, .21 in three frames."""


def sampled_frames(track: Track, samples: int, masked: Collection[int] = ()) -> set[int]:
    """Return evenly spaced frames, both ends among them, some with their neighbour.

    Where the track is obscured in part, every run of frames that show a face has some of them, however short.

    Args:
        track: the track.
        samples: at most so many, not counting neighbours and those of short runs; of a long track, see
            :func:`samples_of`.
        masked: frames in which the track is obscured.
    """
    frames = _evenly(track.start, track.end, samples_of(track, samples))
    for run in _runs(set(range(track.start, track.end)).difference(masked)) if masked else ():
        if len(frames.intersection(run)) < RUN_SAMPLES:
            frames |= _evenly(run.start, run.stop, RUN_SAMPLES)
    return frames


def samples_of(track: Track, samples: int) -> int:
    """Return how many frames of a track are looked at, given those of one of up to ``SPAN_FRAMES``."""
    return math.ceil(samples * max(1.0, len(track) / SPAN_FRAMES))


def _evenly(start: int, end: int, samples: int) -> set[int]:
    count = min(samples, max(2, math.ceil((end - start) / SPACING_FRAMES)))
    starts = np.unique(np.linspace(start, end - 1, count).round().astype(int)).tolist()
    followed = {min(frame + 1, end - 1) for frame in starts[::NEIGHBOUR_EVERY]}
    return {*starts, *followed}


def _runs(frames: set[int]) -> list[range]:
    """Return the runs of consecutive frames."""
    first = [frame for frame in sorted(frames) if frame - 1 not in frames]
    last = [frame for frame in sorted(frames) if frame + 1 not in frames]
    return [range(a, b + 1) for a, b in zip(first, last, strict=True)]


def reach_of(pairs: Sequence[FacePair]) -> dict[Recogniser, float]:
    """Return how near the line a face of a track has to come to be looked at more closely.

    Args:
        pairs: all that were judged of the track, in the order of frames.

    Returns:
        Margins, as in :meth:`vidanon.recognisers.Recogniser.margin`, at least ``NEAR``.
    """
    neighbours = [(a, b) for a, b in pairwise(pairs) if b.frame - a.frame == 1]
    reach = dict.fromkeys(RECOGNISERS, NEAR)
    for recogniser in RECOGNISERS:
        name = recogniser.name
        both = [(a.scores, b.scores) for a, b in neighbours if name in a.scores and name in b.scores]
        steps = [after[name] - before[name] for before, after in both]
        if len(steps) >= LEAST_STEPS:
            reach[recogniser] = max(NEAR, JUMPS * float(np.sqrt(np.mean(np.square(steps)))))
    return reach


def nearness_of(pair: FacePair, reach: Mapping[Recogniser, float]) -> float:
    """Return how near a face comes to the line: 1 on it, 0 at the distance from which nobody looks closer.

    Args:
        pair: what was judged.
        reach: that distance, see :func:`reach_of`.
    """
    return max(1 - margin / reach[who] for who, margin in margins_of(pair.scores).items())


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
