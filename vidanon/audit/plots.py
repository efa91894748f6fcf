"""Small plots as inline SVG: no script, no network, readable in light and dark."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from html import escape

from vidanon.audit.record import UNCOVERED, Span, clock

WIDTH, HEIGHT = 640, 200
LEFT, RIGHT, TOP, BOTTOM = 64, 12, 12, 34
ROW_PX = 26
STATES = ("replaced", "obscured", "leak")


@dataclass(frozen=True, slots=True)
class Curve:
    """One quantity over time.

    Attributes:
        title: what it is.
        points: (seconds, value, whether the value is on the wrong side).
        threshold: the line between one person and two.
        low, high: range of the axis.
        safe_side: words for where a stranger lies ("below", "above").
    """

    title: str
    points: Sequence[tuple[float, float, bool]]
    threshold: float
    low: float
    high: float
    safe_side: str


def curve_svg(curve: Curve, start_s: float, end_s: float) -> str:
    """Draw a curve with its threshold; values outside the range are drawn at its edge."""
    span = max(end_s - start_s, 1e-3)

    def x(seconds: float) -> float:
        return LEFT + (seconds - start_s) / span * (WIDTH - LEFT - RIGHT)

    def y(value: float) -> float:
        share = (min(max(value, curve.low), curve.high) - curve.low) / (curve.high - curve.low)
        return TOP + (1 - share) * (HEIGHT - TOP - BOTTOM)

    line = " ".join(f"{x(t):.1f},{y(v):.1f}" for t, v, _ in curve.points)
    dots = "".join(
        f'<circle class="{"bad" if bad else "dot"}" cx="{x(t):.1f}" cy="{y(v):.1f}" r="{4 if bad else 2}"/>'
        for t, v, bad in curve.points
    )
    ticks = "".join(
        f'<text class="axis" x="{LEFT - 6}" y="{y(v) + 4:.1f}" text-anchor="end">{v:g}</text>'
        for v in (curve.low, curve.high)
    )
    level = y(curve.threshold)
    mark = f"{curve.threshold:.2f}"
    label = f"{escape(curve.title)}; a stranger is {curve.safe_side} {curve.threshold:.3f}"
    return (
        f"<figure><figcaption>{label}</figcaption>"
        f'<svg viewBox="0 0 {WIDTH} {HEIGHT}" role="img" aria-label="{label}">'
        f'<rect class="frame" x="{LEFT}" y="{TOP}" width="{WIDTH - LEFT - RIGHT}"'
        f' height="{HEIGHT - TOP - BOTTOM}"/>'
        f'<line class="threshold" x1="{LEFT}" x2="{WIDTH - RIGHT}" y1="{level:.1f}" y2="{level:.1f}"/>'
        f'<text class="axis" x="{LEFT - 6}" y="{level + 4:.1f}" text-anchor="end">{mark}</text>'
        f'{ticks}<polyline class="line" points="{line}"/>{dots}'
        f"{_time_axis(start_s, end_s, HEIGHT)}</svg></figure>"
    )


def _time_axis(start_s: float, end_s: float, height: int) -> str:
    return (
        f'<text class="axis" x="{LEFT}" y="{height - 8}">{clock(start_s)}</text>'
        f'<text class="axis" x="{WIDTH - RIGHT}" y="{height - 8}" text-anchor="end">{clock(end_s)}</text>'
    )


def timeline_svg(spans: Sequence[Span], end_s: float) -> str:
    """Draw one row per track: where its face was replaced, obscured, or left."""
    rows = sorted({span.track for span in spans})
    height = TOP + ROW_PX * len(rows) + BOTTOM
    span_s = max(end_s, 1e-3)
    parts = []
    for span in spans:
        top = TOP + ROW_PX * rows.index(span.track)
        left = LEFT + span.start_s / span_s * (WIDTH - LEFT - RIGHT)
        # A single frame must be seen in a long video as well.
        width = max((span.end_s - span.start_s) / span_s * (WIDTH - LEFT - RIGHT), 2.0)
        parts.append(
            f'<rect class="{span.state}" x="{left:.1f}" y="{top}" width="{width:.1f}" height="{ROW_PX - 5}">'
            f"<title>{span.state} {clock(span.start_s)} to {clock(span.end_s)}</title></rect>"
        )
    labels = "".join(
        f'<text class="axis" x="{LEFT - 6}" y="{TOP + ROW_PX * row + 16}" text-anchor="end">'
        f"{'none' if track == UNCOVERED else track}</text>"
        for row, track in enumerate(rows)
    )
    return (
        f'<svg viewBox="0 0 {WIDTH} {height}" role="img" aria-label="what happened to each face over time">'
        f"{''.join(parts)}{labels}{_time_axis(0.0, end_s, height)}</svg>"
    )
