"""Decode a source, its result and, if there is one, an earlier result frame by frame."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from itertools import zip_longest
from pathlib import Path
from typing import TYPE_CHECKING

from vidanon.tally import Memory, Tally
from vidanon.types import Frame

if TYPE_CHECKING:
    from vidanon.stages.decode import Decoder

PTS_TOLERANCE_S = 0.002
"""Frames that are shown later or earlier by more count as moved."""
Frames = tuple[Frame, Frame, Frame | None]
"""One frame of the source, of the result, and of an earlier result."""


@contextmanager
def opened(source: Path, output: Path, memory: Memory) -> Iterator[tuple[Decoder, Decoder, Decoder | None]]:
    """Open both videos, and the earlier result if one is remembered.

    Raises:
        InputError: a file is missing or no video.
    """
    from vidanon.stages.decode import Decoder

    paths = (source, output) if memory.output is None else (source, output, memory.output)
    with ExitStack() as stack:
        first, second, *earlier = (stack.enter_context(Decoder(path, exact=False)) for path in paths)
        yield first, second, earlier[0] if earlier else None


def side_by_side(first: Decoder, second: Decoder, earlier: Decoder | None, tally: Tally) -> Iterator[Frames]:
    """Yield frames of equal index; count frames, and those whose time since the first one differs."""
    start_a = start_b = 0.0
    before = iter(earlier or ())
    for a, b in zip_longest(first, second):
        tally.source_frames += a is not None
        tally.output_frames += b is not None
        if a is None or b is None:
            continue
        time_a, time_b = float(a.pts * first.info.time_base), float(b.pts * second.info.time_base)
        if a.index == 0:
            start_a, start_b = time_a, time_b
        tally.times_s.append(time_a - start_a)
        tally.pts_errors += abs((time_a - start_a) - (time_b - start_b)) > PTS_TOLERANCE_S
        yield a, b, next(before, None)
