"""What one comparison of a result with its source found, and the figures that follow from it.

Numbers only; no picture, landmark or embedding leaves memory.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np

from vidanon.behind import judged_apart
from vidanon.identity.bank import load_bank
from vidanon.measures import MASK_DETAIL, SIGNAL_NAMES, expression_signals
from vidanon.recognisers import RECOGNISERS, SFACE, recognised_by, scores_of
from vidanon.types import Float

_MIN_SIGNAL_STD = 0.05
_MIN_FURROW_STD = 0.004
_MIN_LOOKS = 8


@dataclass(frozen=True, slots=True)
class FaceReading:
    """What is compared of a face in one frame.

    Attributes:
        box: float32 (4,).
        landmarks: float32 (478, 2), frame pixels.
        blendshapes: float32 (52,).
        frame_from_unit: float32 (2, 3), the crop in which it was seen, see :mod:`vidanon.stages.landmark`.
        embeddings: float32 (n,), by name of the recogniser; SFace is always among them.
        tilt: how far the face is turned in the picture, radians, clockwise.
        look: float32 (256,), see :mod:`vidanon.identity.look`; None where looks were not asked for.
    """

    box: Float
    landmarks: Float
    blendshapes: Float
    frame_from_unit: Float
    embeddings: Mapping[str, Float]
    tilt: float
    look: Float | None = None

    @property
    def embedding(self) -> Float:
        """SFace's, float32 (128,)."""
        return self.embeddings[SFACE.name]

    def scores(self, other: FaceReading) -> dict[str, float]:
        """Compare with another face; by name of the recogniser."""
        return scores_of(self.embeddings, other.embeddings)


@dataclass(frozen=True, slots=True)
class FacePair:
    """One source face and what the output shows in its place, in one frame.

    Attributes:
        frame: index.
        face: number of the face, the same while it is followed from frame to frame.
        scores: of source and output, by name of the recogniser.
        nme: mean distance of the 478 landmarks over the inter-ocular distance of the source.
        pose_error_deg: angle between the head rotations; NaN beyond 45 degrees from frontal.
        source, output: what was compared.
        detail: see :func:`vidanon.measures.detail_left`.
        behind: how much of eyes, nose and mouth something in front hides of both, 0..1; of the output 0 where
            that is little of the source.
        apart: whether the scores are those of :mod:`vidanon.behind`.
        mouth: shades of both mouths, see :func:`vidanon.identity.teeth.mouth_shades`.
        eyes: shades of the eyes of both, see :func:`vidanon.identity.shade.eye_shade`.
        fine: how much finest detail both show, see :func:`vidanon.measures.fine_detail`.
        furrows: how deep they are in both, see :func:`vidanon.measures.furrow_depth`.
        glare: of both, see :func:`vidanon.identity.shade.glare`.
    """

    frame: int
    face: int
    scores: Mapping[str, float]
    nme: float
    pose_error_deg: float
    source: FaceReading
    output: FaceReading
    detail: float
    behind: tuple[float, float] = (0.0, 0.0)
    apart: bool = False
    mouth: tuple[float, float] = (float("nan"), float("nan"))
    eyes: tuple[float, float] = (float("nan"), float("nan"))
    fine: tuple[float, float] = (float("nan"), float("nan"))
    furrows: tuple[float, float] = (float("nan"), float("nan"))
    glare: tuple[float, float] = (float("nan"), float("nan"))

    @property
    def box(self) -> Float:
        """Of the source face, float32 (4,)."""
        return self.source.box

    @property
    def similarity(self) -> float:
        """SFace's cosine of source and output."""
        return self.scores[SFACE.name]


@dataclass(frozen=True, slots=True)
class HiddenFace:
    """One source face where the output shows none.

    Attributes:
        frame: index.
        face: number of the face, as in :class:`FacePair`.
        box: float32 (4,), the source face.
        similarity: SFace cosine of source and output, both cut at the source's landmarks.
    """

    frame: int
    face: int
    box: Float
    similarity: float


@dataclass(slots=True)
class Tally:
    """Counts of one comparison, and the faces behind the means.

    Attributes:
        source_frames, output_frames: decoded pictures.
        pts_errors: frames whose time moved by more than 2 ms.
        times_s: of the source's frames, from the first one, seconds.
        damaged: whether parts of the source could not be read.
        boxes: of the source's faces of at least 20 px, float32 (4,) each, by frame.
        unchanged: boxes of source faces whose pixels are still there, by frame.
        faces_judged: source faces that were looked for in the output.
        pairs: those that were found.
        hidden: those that were not.
    """

    source_frames: int = 0
    output_frames: int = 0
    pts_errors: int = 0
    times_s: list[float] = field(default_factory=list)
    damaged: bool = False
    boxes: dict[int, list[Float]] = field(default_factory=dict)
    unchanged: dict[int, list[Float]] = field(default_factory=dict)
    faces_judged: int = 0
    pairs: list[FacePair] = field(default_factory=list)
    hidden: list[HiddenFace] = field(default_factory=list)


@dataclass(slots=True)
class Memory:
    """What was found on an earlier result of the same source, so that the next costs only what changed.

    Attributes:
        output: the earlier result; None: nothing is known.
        boxes: of the source's faces, by frame, as in :class:`Tally`.
        unchanged: frames in which one showed its original pixels.
        faces: what was judged, by frame.
        suspects: by track of the plan in which somebody was recognised in any earlier result, the frames in
            which that may happen again; None: in any.
    """

    output: Path | None = None
    boxes: dict[int, list[Float]] = field(default_factory=dict)
    unchanged: set[int] = field(default_factory=set)
    faces: dict[int, list[FacePair | HiddenFace]] = field(default_factory=dict)
    suspects: dict[int, frozenset[int] | None] = field(default_factory=dict)

    def learn(self, tally: Tally, pairs: Sequence[FacePair], hidden: Sequence[HiddenFace]) -> None:
        """Take over a comparison, and what was judged after it; forget what was known."""
        self.boxes, self.unchanged, self.faces = tally.boxes, set(tally.unchanged), defaultdict(list)
        judged: list[FacePair | HiddenFace] = [*tally.pairs, *tally.hidden, *pairs, *hidden]
        for face in judged:
            self.faces[face.frame].append(face)

    def of(self, frame: int, box: Float) -> FacePair | HiddenFace | None:
        """Return what was found of a source face, if it was judged."""
        return next((face for face in self.faces.get(frame, ()) if np.array_equal(face.box, box)), None)


def mean_of(values: Sequence[float]) -> float | None:
    """Return the mean of what is finite, or None where nothing is."""
    kept = [value for value in values if np.isfinite(value)]
    return round(float(np.mean(kept)), 4) if kept else None


def adjacent_similarities(pairs: Sequence[FacePair], of: str = "output") -> list[float]:
    """Return the SFace cosine of a face with itself one frame later, wherever both were judged.

    Args:
        pairs: of one face, in order.
        of: which side; ``source`` shows how far the recogniser itself is steady on this face.
    """
    both = [(getattr(a, of), getattr(b, of)) for a, b in pairwise(pairs) if b.frame == a.frame + 1]
    return [float(a.embedding @ b.embedding) for a, b in both]


def glasses_steady(pairs: Sequence[FacePair]) -> float | None:
    """Return the share of frames in which a new face wears glasses or not as in most; None of few frames.

    Recognisers look past glasses, so to them a face is steady whose glasses come and go.
    """
    seen = [(pair.output.embedding, pair.output.look) for pair in pairs if pair.output.look is not None]
    if len(seen) < _MIN_LOOKS:
        return None
    share = float(np.mean([load_bank().read(*face).glasses > 0.5 for face in seen]))
    return round(max(share, 1 - share), 4)


def expression_correlations(tracks: dict[int, list[FacePair]]) -> dict[str, float | None]:
    """Correlate expression over time, track by track, where the source moves at all; weight by length."""
    weighted: dict[str, list[tuple[float, int]]] = defaultdict(list)
    for pairs in tracks.values():
        source = expression_signals(np.stack([pair.source.blendshapes for pair in pairs]))
        output = expression_signals(np.stack([pair.output.blendshapes for pair in pairs]))
        for name, curve in source.items():
            if curve.std() <= _MIN_SIGNAL_STD:
                continue
            weighted[name].append((_follows(curve, output[name]), len(pairs)))
    return {name: _by_length(weighted[name]) for name in SIGNAL_NAMES}


def _follows(source: Float, output: Float) -> float:
    """Return the correlation of two curves; a face that does not move at all follows nothing: 0."""
    return 0.0 if output.std() < 1e-6 else float(np.corrcoef(source, output)[0, 1])


def _by_length(found: Sequence[tuple[float, int]]) -> float | None:
    """Average a figure over tracks by their numbers of frames; None without any."""
    return round(sum(value * n for value, n in found) / sum(n for _, n in found), 3) if found else None


def furrow_figures(tracks: dict[int, list[FacePair]]) -> dict[str, float | None]:
    """Say how furrows between the brows follow, track by track, where the source's come and go.

    Returns:
        ``furrow``, the correlation over time, and ``furrow_depth``, how far those of the output change for
        each change of the source's: 1 where they get as deep.
    """
    follows: list[tuple[float, int]] = []
    depth: list[tuple[float, int]] = []
    for pairs in tracks.values():
        depths = np.array([pair.furrows for pair in pairs])
        source, output = depths[np.isfinite(depths).all(axis=1)].T
        if len(source) >= _MIN_LOOKS and source.std() > _MIN_FURROW_STD:
            follows.append((_follows(source, output), len(source)))
            depth.append((follows[-1][0] * float(output.std() / source.std()), len(source)))
    return {"furrow": _by_length(follows), "furrow_depth": _by_length(depth)}


def _track_results(tracks: dict[int, list[FacePair]]) -> list[dict[str, Any]]:
    results = []
    for number, pairs in tracks.items():
        adjacent = adjacent_similarities(pairs)
        results.append(
            {
                "face": number,
                "frames": len(pairs),
                **{f"{key}_mean": mean_of(scores) for key, scores in _scores_by_key(pairs).items()},
                "adjacent_sface": mean_of(adjacent),
                "adjacent_sface_source": mean_of(adjacent_similarities(pairs, "source")),
                "adjacent_pairs": len(adjacent),
                "glasses_steady": glasses_steady(pairs),
            }
        )
    return results


def _scores_by_key(pairs: Sequence[FacePair]) -> dict[str, list[float]]:
    return {r.key: [pair.scores[r.name] for pair in pairs if r.name in pair.scores] for r in RECOGNISERS}


def _similarity_figures(pairs: Sequence[FacePair]) -> dict[str, float | None]:
    """Return the mean and the worst score of each recogniser."""
    figures: dict[str, float | None] = {}
    for recogniser, scores in zip(RECOGNISERS, _scores_by_key(pairs).values(), strict=True):
        worst = min(scores, key=recogniser.margin, default=None)
        figures[f"{recogniser.key}_mean"] = mean_of(scores)
        figures[f"{recogniser.key}_worst"] = None if worst is None else round(worst, 4)
    return figures


def _by_pairs(tracks: list[dict[str, Any]], name: str) -> float | None:
    """Average a figure over tracks by their numbers of adjacent frames."""
    found = [(track[name], track["adjacent_pairs"]) for track in tracks if track["adjacent_pairs"]]
    total = sum(count for _, count in found)
    return round(sum(value * count for value, count in found) / total, 4) if total else None


def shown_pairs(tally: Tally) -> list[FacePair]:
    """Return the judged faces that the output shows.

    Detectors find faces in the blots of a mask, and recognisers then compare hat and hair around it.
    """
    return [pair for pair in tally.pairs if pair.detail >= MASK_DETAIL]


def results_of(tally: Tally) -> dict[str, Any]:
    """Return what ``evaluate_pair`` reports of one comparison, by name."""
    tracks = {number: judged_apart(pairs) for number, pairs in _by_face(shown_pairs(tally)).items()}
    pairs = [pair for track in tracks.values() for pair in track]
    by_track = _track_results(tracks)
    known = [bool(recognised_by(pair.scores)) for pair in pairs]
    known_frames = {pair.frame for pair, same in zip(pairs, known, strict=True) if same}
    return {
        "source_frames": tally.source_frames,
        "output_frames": tally.output_frames,
        "pts_errors": tally.pts_errors,
        "face_frames": len(tally.boxes),
        "unchanged_frames": len(tally.unchanged),
        "recognised_frames": len(known_frames),
        "leak_frames": len(tally.unchanged.keys() | known_frames),
        "faces_behind": sum(pair.apart for pair in pairs),
        "faces_judged": tally.faces_judged,
        "faces_lost": len(tally.hidden) + len(tally.pairs) - len(pairs),
        "stranger_share": mean_of([float(not same) for same in known]),
        **_similarity_figures(pairs),
        "adjacent_sface": _by_pairs(by_track, "adjacent_sface"),
        "adjacent_sface_source": _by_pairs(by_track, "adjacent_sface_source"),
        **fidelity_of(pairs),
        "tracks": by_track,
    }


def fidelity_of(pairs: Sequence[FacePair]) -> dict[str, Any]:
    """Return how well shape, pose and expression agree, by name; None where nothing could be measured."""
    expression = [np.abs(pair.source.blendshapes - pair.output.blendshapes).mean() for pair in pairs]
    tracks = _by_face(pairs)
    return {
        "nme": mean_of([pair.nme for pair in pairs]),
        "nme_frontal": mean_of([pair.nme for pair in pairs if np.isfinite(pair.pose_error_deg)]),
        "pose_error_deg": mean_of([pair.pose_error_deg for pair in pairs]),
        "blendshape_mae": mean_of([float(value) for value in expression]),
        "mouth_shade_error": mean_of([abs(pair.mouth[0] - pair.mouth[1]) for pair in pairs]),
        "eye_shade_error": mean_of([abs(pair.eyes[0] - pair.eyes[1]) for pair in pairs]),
        "fine_detail": mean_of([pair.fine[1] / max(pair.fine[0], 1e-3) for pair in pairs]),
        "glare": mean_of([pair.glare[1] - pair.glare[0] for pair in pairs]),
        **furrow_figures(tracks),
        "correlation": expression_correlations(tracks),
    }


def _by_face(pairs: Sequence[FacePair]) -> dict[int, list[FacePair]]:
    """Sort pairs by the number of the followed face."""
    tracks: dict[int, list[FacePair]] = defaultdict(list)
    for pair in pairs:
        tracks[pair.face].append(pair)
    return tracks
