"""vidanon: gives everyone in a video a new, fictional face."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from vidanon.api import Summary, analyse, anonymize, audit_files
    from vidanon.jobs.batch import BatchOptions, BatchOutcome, batch
    from vidanon.planfile import load_plan, save_plan
    from vidanon.renderer import render
    from vidanon.settings import Settings, load_settings
    from vidanon.types import Plan

__version__ = "0.1.0"

__all__ = [
    "BatchOptions",
    "BatchOutcome",
    "Plan",
    "Settings",
    "Summary",
    "analyse",
    "anonymize",
    "audit_files",
    "batch",
    "load_plan",
    "load_settings",
    "render",
    "save_plan",
]

_HOME = {
    "BatchOptions": "vidanon.jobs.batch",
    "BatchOutcome": "vidanon.jobs.batch",
    "Plan": "vidanon.types",
    "Settings": "vidanon.settings",
    "Summary": "vidanon.api",
    "analyse": "vidanon.api",
    "anonymize": "vidanon.api",
    "audit_files": "vidanon.api",
    "batch": "vidanon.jobs.batch",
    "load_plan": "vidanon.planfile",
    "load_settings": "vidanon.settings",
    "render": "vidanon.renderer",
    "save_plan": "vidanon.planfile",
}


def __getattr__(name: str) -> object:
    """Resolve public names when they are first used, so that importing the package is cheap."""
    if name not in _HOME:
        raise AttributeError(f"module 'vidanon' has no attribute '{name}'")
    return getattr(importlib.import_module(_HOME[name]), name)
