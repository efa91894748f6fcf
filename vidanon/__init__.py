"""vidanon: gives everyone in a video a new, fictional face."""

from __future__ import annotations

import importlib
import sys
from types import ModuleType
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from vidanon.api import Summary, anonymize
    from vidanon.plan import analyse, load_plan, save_plan
    from vidanon.render import render
    from vidanon.settings import Settings, load_settings
    from vidanon.types import Plan

__version__ = "0.1.0"

__all__ = [
    "Plan",
    "Settings",
    "Summary",
    "analyse",
    "anonymize",
    "load_plan",
    "load_settings",
    "render",
    "save_plan",
]

_HOME = {
    "Plan": "vidanon.types",
    "Settings": "vidanon.settings",
    "Summary": "vidanon.api",
    "analyse": "vidanon.plan",
    "anonymize": "vidanon.api",
    "load_plan": "vidanon.plan",
    "load_settings": "vidanon.settings",
    "render": "vidanon.render",
    "save_plan": "vidanon.plan",
}


class _Package(ModuleType):
    """The package itself: resolves public names when they are first used, so that its import is cheap."""

    def __getattr__(self, name: str) -> object:
        if name not in _HOME:
            raise AttributeError(f"module 'vidanon' has no attribute '{name}'")
        return getattr(importlib.import_module(_HOME[name]), name)

    @property
    def render(self) -> object:
        """The function; without this the submodule of the same name would take its place once imported."""
        return getattr(importlib.import_module("vidanon.render"), "render")  # noqa: B009

    @render.setter
    def render(self, submodule: object) -> None:
        """Ignore the import system's binding of the submodule; ``sys.modules`` still holds it."""


sys.modules[__name__].__class__ = _Package
