"""Spot check while rendering: is anyone still recognisable in what was just drawn?

Every few frames of each track the identity encoder compares the composite with the source. It is the
encoder that chose the identities, so it is a tripwire, not a proof; ``vidanon evaluate`` measures with a
recogniser that took no part.
"""

from __future__ import annotations

import threading
from collections import defaultdict

import numpy as np

from vidanon.errors import UnsafeError
from vidanon.identity.embed import SFACE_SAME_PERSON, SFace
from vidanon.models.registry import ModelStore
from vidanon.types import Float, UInt8

EVERY_FRAMES = 10


class SpotCheck:
    """Collects similarities per track; safe to call from several threads."""

    def __init__(self, models: ModelStore, workers: int) -> None:
        self._embed = SFace(models, workers)
        self._lock = threading.Lock()
        self._similarities: dict[int, list[float]] = defaultdict(list)

    def measure(self, track: int, source: UInt8, output: UInt8, landmarks: Float) -> None:
        """Compare one face before and after, both at the source's landmarks (478, 2), frame pixels."""
        similarity = float(self._embed(source, landmarks) @ self._embed(output, landmarks))
        with self._lock:
            self._similarities[track].append(similarity)

    @property
    def means(self) -> dict[int, float]:
        """Mean similarity of source and output per track."""
        return {track: float(np.mean(values)) for track, values in sorted(self._similarities.items())}

    def require_unrecognisable(self) -> None:
        """Refuse the run if a track is still recognisable on average.

        Raises:
            UnsafeError: names the tracks and their similarities.
        """
        failed = {track: mean for track, mean in self.means.items() if mean > SFACE_SAME_PERSON}
        if failed:
            listed = ", ".join(f"track {track} ({mean:.2f})" for track, mean in failed.items())
            raise UnsafeError(
                f"still recognisable: {listed}, similarity above {SFACE_SAME_PERSON}; "
                "run again with another key, or obscure with --set render.gate_nme=0"
            )
