"""What is known of the faces of one frame on its way through the maps of the renderer."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from vidanon.stages import gate
from vidanon.types import Float, Frame, Track, UInt8

FADE_FRAMES = 6
"""Wrinkles come back over so many frames after those that are to show none."""


@dataclass(slots=True)
class Face:
    """State of one face on its way through the maps.

    ``w`` None means: nothing to draw, obscure. ``between``: the picture is the mean of two others, w as well.
    ``in_front``: how much of it something hides, 0..1. ``bare``: it is drawn over what is in front of it.
    ``wrinkled``: it shows wrinkles of the source's.
    """

    track: Track
    offset: int
    w: Float | None = None
    parts: Float | None = None
    between: bool = False
    picture: UInt8 | None = None
    landmarks: Float | None = None
    in_front: float | None = None
    passes: bool = False
    show: bool = False
    bare: bool = False
    wrinkled: bool = False

    def is_bare(self, in_front: Sequence[float | None], center: int) -> bool:
        """Say whether it is drawn over what is in front of it: by the plan, or see :func:`gate.bare`."""
        covered = self.track.covered is not None and bool(self.track.covered[self.offset])
        return covered or gate.bare(in_front, center)

    def keeps_anything(self) -> bool:
        """Say whether something of the source's stays: before it, or as wrinkles on it."""
        return self.wrinkled or gate.anything_stays(self.in_front, self.bare)

    def share_of_wrinkles(self) -> float:
        """Return how much of its wrinkles goes over, 0..1: by the plan none in some frames, few beside."""
        if self.track.covered is None:
            return 1.0
        first = max(self.offset - FADE_FRAMES, 0)
        near = first + np.flatnonzero(self.track.covered[first : self.offset + FADE_FRAMES])
        return float(np.abs(near - self.offset).min(initial=FADE_FRAMES)) / FADE_FRAMES


@dataclass(slots=True)
class Work:
    """A frame and its faces, by track."""

    frame: Frame
    faces: dict[int, Face]


def outcome(faces: Mapping[int, Face]) -> tuple[int, list[int], list[int]]:
    """Return how many faces there are, the tracks obscured, and those with something of the source's left."""
    obscured = [key for key, face in faces.items() if not face.show]
    kept = [key for key, face in faces.items() if face.show and face.keeps_anything()]
    return len(faces), obscured, kept


def half_way(window: list[Work], center: int, step: int) -> Iterator[tuple[int, Face, Face, Face]]:
    """Yield the faces of a frame half way between two that have them too: track, face, before, after."""
    is_half_way = window[center].frame.index % (2 * step) == step
    if is_half_way and step <= center < len(window) - step:
        before, after = window[center - step].faces, window[center + step].faces
        for key, face in window[center].faces.items():
            if key in before and key in after:
                yield key, face, before[key], after[key]
