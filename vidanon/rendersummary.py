"""What a renderer has drawn, frame by frame and in time."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field

BY_TRACK = ("obscured_at", "kept_at")
"""What is noted frame by frame: fields of a summary."""


@dataclass(slots=True)
class RenderSummary:
    """What was drawn.

    Attributes:
        frames: frames written.
        replaced: faces that got a new face, summed over frames.
        obscured: faces that were obscured, summed over frames.
        seconds: busy time per stage, summed over worker threads.
        obscured_at: indices of the frames in which a track was obscured, by track.
        kept_at: likewise, in which a hand or the like stayed before a new face, or wrinkles on it.
        notes: what of the source is not in the result.
    """

    frames: int = 0
    replaced: int = 0
    obscured: int = 0
    seconds: dict[str, float] = field(default_factory=dict)
    obscured_at: dict[int, list[int]] = field(default_factory=dict)
    kept_at: dict[int, list[int]] = field(default_factory=dict)
    notes: tuple[str, ...] = ()
    _lock: threading.Lock = field(default_factory=threading.Lock, repr=False)

    @property
    def frames_by_track(self) -> tuple[dict[int, list[int]], ...]:
        """What was noted frame by frame, in the order of :data:`BY_TRACK`."""
        return tuple(getattr(self, name) for name in BY_TRACK)

    def add(self, part: RenderSummary) -> None:
        """Add what was drawn of further frames; a note that both have stays one."""
        self.frames += part.frames
        self.replaced += part.replaced
        self.obscured += part.obscured
        for stage, spent in part.seconds.items():
            self.seconds[stage] = self.seconds.get(stage, 0.0) + spent
        for mine, further in zip(self.frames_by_track, part.frames_by_track, strict=True):
            for track, frames in further.items():
                mine.setdefault(track, []).extend(frames)
        self.notes = tuple(dict.fromkeys((*self.notes, *part.notes)))

    def count(self, index: int, faces: int, obscured: Sequence[int], kept: Sequence[int]) -> None:
        """Note what was drawn in one frame.

        Args:
            index: of the frame.
            faces: in it.
            obscured: tracks that were.
            kept: tracks with something of the source before the new face or on it.
        """
        self.frames += 1
        self.replaced += faces - len(obscured)
        self.obscured += len(obscured)
        for noted, tracks in zip(self.frames_by_track, (obscured, kept), strict=True):
            for track in tracks:
                noted.setdefault(track, []).append(index)

    @contextmanager
    def timed(self, stage: str) -> Iterator[None]:
        """Add the time of a block to a stage."""
        begin = time.perf_counter()
        try:
            yield
        finally:
            spent = time.perf_counter() - begin
            with self._lock:
                self.seconds[stage] = self.seconds.get(stage, 0.0) + spent
