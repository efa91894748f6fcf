"""Figures of the learned map from what was read in pictures. No networks, no files.

An *output* is a generated picture with the identity of one source and the attributes of another.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from vidanon.measures import expression_signals, ms_ssim, psnr_db
from vidanon.recognisers import RECOGNISERS, SFACE, Recogniser, score_matrix, scores_of
from vidanon.stages.head_pose import angle_deg
from vidanon.stages.mesh import FACE_OVAL
from vidanon.types import LANDMARK_COUNT, Bool, Float, UInt8

Scores = npt.NDArray[np.float64]
FAR = 1e-3
FRONTAL_DEG = 45.0
_EYE_CORNERS = (33, 263)
_INNER = np.setdiff1d(np.arange(LANDMARK_COUNT), FACE_OVAL)
_LABELS = re.compile(r"(\d{1,3})_([01])_([0-4])_")
_SEXES = ("male", "female")
_RACES = ("white", "black", "asian", "indian", "other")
_AGE_BANDS = ((13, "age 0-12"), (26, "age 13-25"), (46, "age 26-45"), (66, "age 46-65"), (200, "age 66+"))


@dataclass(frozen=True, slots=True)
class Seen:
    """What is read in one FFHQ-aligned picture of a face.

    Attributes:
        picture: uint8 RGB (256, 256, 3).
        landmarks: float32 (478, 2), pixels of the picture.
        blendshapes: float32 (52,), 0..1.
        embeddings: float32 (n,), by name of the recogniser.
        turn: float32 (3, 3), head rotation.
    """

    picture: UInt8
    landmarks: Float
    blendshapes: Float
    embeddings: Mapping[str, Float]
    turn: Float

    @property
    def sface(self) -> Float:
        """SFace's embedding, float32 (128,), unit length."""
        return self.embeddings[SFACE.name]

    def scores(self, other: Seen) -> dict[str, float]:
        """Compare with another face; by key of the recogniser."""
        scores = scores_of(self.embeddings, other.embeddings)
        return {r.key: scores[r.name] for r in RECOGNISERS}


def _mean(values: Sequence[float] | Float | Scores | Bool) -> float | None:
    kept = np.asarray(values, np.float64)
    kept = kept[np.isfinite(kept)]
    return round(float(kept.mean()), 4) if len(kept) else None


def _kept(source: Float, output: Float) -> float | None:
    """Return the share of variance over faces that the output keeps, 1 at most; None for a single face."""
    spread = float(((source - source.mean(axis=0)) ** 2).sum())
    return round(1 - float(((output - source) ** 2).sum()) / spread, 4) if spread > 0 else None


def attribute_figures(sources: Sequence[Seen], outputs: Sequence[Seen]) -> dict[str, Any]:
    """Return how well outputs keep landmarks, head pose and expression of their attribute sources.

    ``correlation`` is over faces; ``landmarks_kept`` and ``blendshapes_kept`` are shares of variance.
    """
    a, b = (np.stack([seen.landmarks for seen in group]) for group in (sources, outputs))
    eyes = np.linalg.norm(a[:, _EYE_CORNERS[1]] - a[:, _EYE_CORNERS[0]], axis=1)
    apart = np.linalg.norm(a - b, axis=2) / np.maximum(eyes, 1)[:, None]
    x, y = (np.stack([seen.blendshapes for seen in group]) for group in (sources, outputs))
    front = np.eye(3, dtype=np.float32)
    poses = [
        angle_deg(s.turn, o.turn)
        for s, o in zip(sources, outputs, strict=True)
        if angle_deg(s.turn, front) <= FRONTAL_DEG
    ]
    curves, followed = expression_signals(x), expression_signals(y)
    moves = {name: curve.std() > 1e-6 and followed[name].std() > 1e-6 for name, curve in curves.items()}
    return {
        "nme": _mean(apart.mean(axis=1)),
        "nme_inner": _mean(apart[:, _INNER].mean(axis=1)),
        "landmarks_kept": _kept(a, b),
        "pose_error_deg": _mean(poses),
        "blendshape_mae": _mean(np.abs(x - y).mean(axis=1)),
        "blendshapes_kept": _kept(x, y),
        "blendshape_mae_each": [round(float(value), 4) for value in np.abs(x - y).mean(axis=0)],
        "correlation": {
            name: round(float(np.corrcoef(curve, followed[name])[0, 1]), 3) if moves[name] else None
            for name, curve in curves.items()
        },
    }


def _recogniser_figures(
    recogniser: Recogniser, to_identity: Scores, to_attributes: Scores, unrelated: Scores
) -> dict[str, Any]:
    """Compare outputs with both sources.

    The threshold is where unrelated sources of the same set are taken for one person at FAR 1e-3.
    """
    name, nearer = recogniser.key, -1 if recogniser.by_distance else 1
    threshold = nearer * float(np.quantile(nearer * unrelated, 1 - FAR)) if len(unrelated) else None
    found = {
        f"{name}_identity": _mean(to_identity),
        f"{name}_attributes": _mean(to_attributes),
        f"{name}_gap": _mean(nearer * (to_identity - to_attributes)),
        f"{name}_unrelated": _mean(unrelated),
        f"{name}_threshold": None if threshold is None else round(threshold, 4),
    }
    for key, scores in (("tpr_identity", to_identity), ("tpr_attributes", to_attributes)):
        beyond = None if threshold is None else _mean(nearer * (scores - threshold) > 0)
        found[f"{name}_{key}"] = beyond
    return found


def cross_figures(
    sources: Sequence[Seen], identities: Sequence[Seen], outputs: Sequence[Seen]
) -> dict[str, Any]:
    """Return the figures of outputs that show another identity than their attribute source.

    Args:
        sources: attribute sources, one per output.
        identities: identity sources, one per output.
        outputs: what the mapper and generator made.

    Returns:
        Per recogniser (by key): mean score of both sources, the gap (positive: nearer to the identity), mean
        of unrelated sources, threshold at FAR 1e-3 and the share of outputs beyond it (TPR) for both sources;
        and :func:`attribute_figures`.
    """
    a, i, o = ([seen.embeddings for seen in group] for group in (sources, identities, outputs))
    pairs = np.triu_indices(len(sources), 1)
    figures: dict[str, Any] = {"outputs": len(outputs)}
    for recogniser in RECOGNISERS:
        to_identity, to_attributes = (np.diagonal(score_matrix(recogniser, o, group)) for group in (i, a))
        unrelated = score_matrix(recogniser, a, a)[pairs]
        figures |= _recogniser_figures(recogniser, to_identity, to_attributes, unrelated)
    return figures | attribute_figures(sources, outputs)


def same_figures(sources: Sequence[Seen], outputs: Sequence[Seen]) -> dict[str, Any]:
    """Return the figures of outputs made from identity and attributes of one picture: reconstruction."""
    pairs = list(zip(sources, outputs, strict=True))
    return {
        "outputs": len(outputs),
        "psnr_db": _mean([psnr_db(s.picture, o.picture) for s, o in pairs]),
        "ms_ssim": _mean([ms_ssim(s.picture, o.picture) for s, o in pairs]),
        **{f"{r.key}_identity": _mean([s.scores(o)[r.key] for s, o in pairs]) for r in RECOGNISERS},
    } | attribute_figures(sources, outputs)


def likeness_figures(rounds: Sequence[Float]) -> dict[str, Any]:
    """Return how alike people are: rounds of embeddings (n, 128), compared within a round."""
    scores = [(x @ x.T)[np.triu_indices(len(x), 1)] for x in rounds]
    return {
        "sface_mean": _mean(np.concatenate(scores)),
        "sface_closest": round(float(max(score.max() for score in scores)), 4),
    }


def w_figures(w: Float, drawn: Float, reference: Float) -> dict[str, Any]:
    """Return how far outputs lie from the generator's latents.

    Args:
        w: float32 (n, 512), of the outputs.
        drawn: float32 (m, 512), drawn from the generator and held out.
        reference: float32 (k, 512), drawn as well: mean and covariance come from these.

    Returns:
        Mean squared Mahalanobis distance over 512 dimensions, and the mean square of w with every component
        whitened by itself, for outputs and held-out draws (about 1).
    """
    mean, scale = reference.mean(axis=0), reference.std(axis=0)
    covariance = np.cov(reference.T.astype(np.float64))
    covariance += np.eye(len(covariance)) * 1e-4 * np.trace(covariance) / len(covariance)
    inverse = np.linalg.inv(covariance)

    def mahalanobis(x: Float) -> float:
        off = (x - mean).astype(np.float64)
        return float(np.einsum("ni,ij,nj->n", off, inverse, off).mean() / x.shape[1])

    return {
        "mahalanobis": round(mahalanobis(w), 4),
        "mahalanobis_drawn": round(mahalanobis(drawn), 4),
        "whitened": _mean((((w - mean) / scale) ** 2).mean(axis=1)),
        "whitened_drawn": _mean((((drawn - mean) / scale) ** 2).mean(axis=1)),
    }


def groups_of(name: str) -> list[str]:
    """Return the apparent groups that a UTKFace file name states (``age_sex_race_...``); [] for others."""
    labels = _LABELS.match(name)
    if labels is None:
        return []
    age, sex, race = (int(part) for part in labels.groups())
    band = next(title for limit, title in _AGE_BANDS if age < limit)
    return [band, _SEXES[sex], _RACES[race]]


def group_means(rows: Sequence[dict[str, Any]]) -> dict[str, dict[str, Any]]:
    """Average the numbers of rows by the groups in their ``groups``, and over all rows."""
    members: dict[str, list[dict[str, Any]]] = defaultdict(list)
    for row in rows:
        for group in ["all", *row["groups"]]:
            members[group].append(row)
    names = [name for name in (rows[0] if rows else {}) if name != "groups"]
    order = ["all", *(title for _, title in _AGE_BANDS), *_SEXES, *_RACES]
    return {
        group: {"faces": len(members[group])}
        | {name: _mean([row[name] for row in members[group]]) for name in names}
        for group in order
        if group in members
    }
