"""Roles that see nobody and draw nothing: for tests of what surrounds the pictures, without any network."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from typing import Any


class Nobody:
    """Stands for a detector, a landmarker, an embedder and a synthesizer that are never needed."""

    def __init__(self, *_: object, **__: object) -> None:
        pass

    def __call__(self, *_: object, **__: object) -> list[Any]:
        return []

    def around(self, *_: object) -> None:
        return None


def substitute(replace: Callable[[str, object], None], seconds_per_frame: float = 0.0) -> None:
    """Put the roles in place; ``replace(path, role)`` sets one attribute.

    Args:
        replace: for example ``monkeypatch.setattr``.
        seconds_per_frame: how long drawing a frame takes.
    """
    import vidanon.renderer

    for role in ("FaceDetector", "Landmarker", "SFace"):
        replace(f"vidanon.plan.{role}", Nobody)
    replace("vidanon.stages.landmark.Landmarker", Nobody)
    replace("vidanon.stages.segment.HandFinder", Nobody)
    replace("vidanon.stages.synthesize.Synthesizer", Nobody)
    replace("vidanon.api.ensure_models", lambda *_: None)
    composite = vidanon.renderer.Renderer.composite

    def slow(*arguments: Any) -> Any:
        time.sleep(seconds_per_frame)
        return composite(*arguments)

    replace("vidanon.renderer.Renderer.composite", slow)


def main() -> None:
    """Run the command line with these roles: ``python nobody.py SECONDS_PER_FRAME ARGUMENTS``."""
    from vidanon import cli

    substitute(_set, float(sys.argv.pop(1)))
    cli.main()


def _set(path: str, role: object) -> None:
    from importlib import import_module

    owner_path, _, name = path.rpartition(".")
    try:
        owner = import_module(owner_path)
    except ModuleNotFoundError:
        module, _, member = owner_path.rpartition(".")
        owner = getattr(import_module(module), member)
    setattr(owner, name, role)


if __name__ == "__main__":
    main()
