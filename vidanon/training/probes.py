"""Linear probes on features."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from vidanon.types import Float


def ridge(x: Float, y: Float, strength: float, weights: Float | None = None) -> Float:
    """Fit x (n, d) -> y (n, k): float32 (d + 1, k), the last row for a constant 1."""
    counts = np.ones(len(x)) if weights is None else weights / weights.mean()
    mean_x, mean_y = np.average(x, 0, counts), np.average(y, 0, counts)
    left = (x - mean_x) * np.sqrt(counts)[:, None]
    right = (y - mean_y) * np.sqrt(counts)[:, None]
    gram = left.T @ left + strength * np.eye(x.shape[1])
    slope = np.linalg.solve(gram, left.T @ right)
    return np.concatenate([slope, (mean_y - mean_x @ slope)[None]]).astype(np.float32)


def predict(x: Float, fitted: Float) -> Float:
    """Apply what :func:`ridge` returned to x (n, d)."""
    return np.asarray(x @ fitted[:-1] + fitted[-1], np.float32)


def balanced(classes: npt.NDArray[Any]) -> Float:
    """Return weights (n,) that make all classes count the same."""
    _, which, counts = np.unique(classes, return_inverse=True, return_counts=True)
    return np.asarray(1 / counts[which], np.float32)
