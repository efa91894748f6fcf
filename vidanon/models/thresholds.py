"""When two faces count as one person: the figures of ``thresholds.json``, made by ``vidanon calibrate``."""

from __future__ import annotations

import functools
import json
from pathlib import Path
from typing import Any

FORMAT = "vidanon-thresholds"
VERSION = 1
THRESHOLDS_FILE = Path(__file__).with_name("thresholds.json")
FALSE_ACCEPT_RATES = {"far_1e-3": 1e-3, "far_1e-4": 1e-4}
"""Name in the file and share of pairs of different people that count as one person."""


@functools.cache
def calibration() -> dict[str, Any]:
    """Return the calibration that ships with the package: pair counts, thresholds and hit rates."""
    record: dict[str, Any] = json.loads(THRESHOLDS_FILE.read_text("utf-8"))
    return record


def same_person(recogniser: str, rate: str = "far_1e-3") -> float:
    """Return the score at which ``sface``, ``edgeface`` or ``dlib`` takes two faces for one person."""
    return float(calibration()["recognisers"][recogniser][rate]["threshold"])
