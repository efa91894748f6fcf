"""See how the foreheads of those who are replaced are shaded at rest, track by track.

In another shot the light is another, so each track is looked at by itself: in frames that are looked at
anyway where these are enough, else in others.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence

import numpy as np

from vidanon.identity.views import evenly
from vidanon.stages import wrinkles
from vidanon.types import AtRest, Float, Scene, Track

LOOKS = 10
"""So often a track is looked at."""

Places = Sequence[tuple[Track, int]]
"""Tracks of a person, and rows of these."""


class Resting:
    """Collects looks at tracks until it is known how a forehead is at rest.

    Attributes:
        wanted: tracks to be looked at, by frame.
        found: how their foreheads are at rest, by number of the track.
    """

    def __init__(self, places: Mapping[int, Places], taken: Mapping[int, Sequence[Track]]) -> None:
        """Choose the frames.

        Args:
            places: by person.
            taken: tracks that are looked at anyway, by frame.
        """
        self.wanted: dict[int, list[Track]] = defaultdict(list)
        self.found: dict[int, AtRest] = {}
        self._left: dict[int, int] = {}
        self._looks: dict[int, list[wrinkles.Look]] = defaultdict(list)
        known: dict[int, list[int]] = defaultdict(list)
        for frame in sorted(taken):
            for track in taken[frame]:
                known[track.id].append(frame)
        for mine in places.values():
            for number, rows in _by_track(mine).items():
                track, middle = rows[0][0], rows[len(rows) // 2][1]
                if len(rows) < wrinkles.LEAST or not wrinkles.visible(_landmarks(track, middle)):
                    continue
                other = [track.start + row for _, row in rows]
                frames = evenly(known[number] if len(known[number]) >= LOOKS else other, LOOKS)
                self._left[number] = len(frames)
                for frame in frames:
                    self.wanted[frame].append(track)

    def see(self, scene: Scene, parts: Float) -> None:
        """Look at a track in one of its wanted frames.

        Args:
            scene: the frame with it.
            parts: float32 (8, 64, 64), part chances of its crop.
        """
        frame, track = scene
        number, landmarks = track.id, _landmarks(track, 0)
        if wrinkles.visible(landmarks) > 0:
            look = wrinkles.Look(frame.image, landmarks, track.crop_from_frame[0], parts)
            self._looks[number].append(look)
        self._left[number] -= 1
        if not self._left[number]:  # pictures are kept no longer than they are needed
            rest = wrinkles.at_rest(self._looks.pop(number, []))
            if rest is not None:
                self.found[number] = rest


def _by_track(places: Places) -> dict[int, list[tuple[Track, int]]]:
    rows: dict[int, list[tuple[Track, int]]] = defaultdict(list)
    for track, row in places:
        rows[track.id].append((track, row))
    return rows


def _landmarks(track: Track, row: int) -> Float:
    return np.asarray(track.landmarks[row], np.float32)
