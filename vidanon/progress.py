"""How work tells how far it is."""

from __future__ import annotations

from collections.abc import Callable

Meter = Callable[[int, int], None]
"""Called with what is done, and what there is in all, or 0 where that is not known: frames mostly."""
Progress = Callable[[str, int, int], None]
"""Called with the name of the pass ("analyse", "rehearse", "render", "audit") and what a meter gets."""


def meter(progress: Progress | None, name: str) -> Meter | None:
    """Return what reports one pass; None where nobody listens."""
    return None if progress is None else lambda done, total: progress(name, done, total)
