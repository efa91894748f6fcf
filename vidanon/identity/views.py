"""At which moments of a video somebody is looked at."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from typing import TypeVar

import numpy as np

from vidanon.geometry import apply
from vidanon.types import Float, Plan, Track

Item = TypeVar("Item")


def places_of(plan: Plan) -> dict[int, list[tuple[Track, int]]]:
    """Return by person all places, track and row of it, where a new face can be drawn; none: no entry."""
    places: dict[int, list[tuple[Track, int]]] = defaultdict(list)
    for track in plan.tracks:
        rows = np.flatnonzero(np.isfinite(track.crop_from_frame).all(axis=(1, 2))).tolist()
        if rows:
            places[track.person] += [(track, row) for row in rows]
    return dict(places)


def frontality(landmarks: Float) -> float:
    """Return 1 for a face (478, 2) seen from the front, towards 0 for a profile."""
    left, nose, right = landmarks[[234, 1, 454]]
    near, far = sorted((float(np.hypot(*(nose - left))), float(np.hypot(*(nose - right)))))
    return near / max(far, 1e-6)


def evenly(items: Sequence[Item], most: int) -> list[Item]:
    """Return at most so many of the items, evenly spread, the first and the last among them."""
    if not items:
        return []
    return [items[i] for i in np.unique(np.linspace(0, len(items) - 1, most).round().astype(int))]


def aligned(track: Track, row: int) -> Float:
    """Return the landmarks in a row of a track, float32 (478, 2), in the unit crop."""
    return apply(track.crop_from_frame[row], track.landmarks[row].astype(np.float32))


def most_different(shapes: Float, count: int) -> list[int]:
    """Return the median one of some shapes, float32 (n, d), and those furthest from all before.

    Args:
        shapes: landmarks in unit crops, flat: the next most different view of a head, not the next moment.
        count: at most so many.
    """
    rows = [int(np.linalg.norm(shapes - np.median(shapes, axis=0), axis=1).argmin())]
    gap = np.full(len(shapes), np.inf)
    while len(rows) < min(count, len(shapes)):
        gap = np.minimum(gap, np.linalg.norm(shapes - shapes[rows[-1]], axis=1))
        rows.append(int(gap.argmax()))
    return rows
