"""Where the line between "one person" and "two people" lies for each recogniser, from labelled pictures.

Every pair of pictures is used: those of one person tell how often the recogniser says so (TPR), those of
different people where the threshold must be so that it says so wrongly in one of 1,000 or 10,000 (FAR).
"""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from vidanon.errors import InputError
from vidanon.models.thresholds import FALSE_ACCEPT_RATES, FORMAT, VERSION
from vidanon.progress import Meter
from vidanon.recognisers import RECOGNISERS, load_recognisers, score_matrix
from vidanon.types import Bool, Float, UInt8

if TYPE_CHECKING:
    from vidanon.models.registry import ModelStore

PICTURE_SUFFIXES = (".jpg", ".jpeg", ".png", ".bmp", ".webp")
MIN_DIFFERENT_PAIRS = 1000
"""Below, FAR 1e-3 is not even one pair."""

Embeddings = dict[str, Float]
"""Of one face, float32 (n,), by name of the recogniser."""


def calibrate(
    folder: Path, models: ModelStore, workers: int = 2, progress: Meter | None = None
) -> dict[str, Any]:
    """Find the thresholds of all recognisers.

    Args:
        folder: one folder per person, with at least one picture each; the face nearest to the centre counts.
        models: where the models are.
        workers: threads.
        progress: called with (pictures done, pictures in all).

    Returns:
        What ``thresholds.json`` holds: numbers of people, pictures and pairs; per recogniser and rate the
        threshold and the TPR there. A rate that the number of pairs cannot show is left out.

    Raises:
        InputError: no such folder, no picture that can be read, or too few pairs.
        ModelsError: a model, or dlib, is missing.
    """
    from vidanon.stages.workers import ordered_map

    if not folder.is_dir():
        raise InputError(f"{folder}: no such folder; give one with a folder of pictures per person")
    pictures = [path for path in sorted(folder.glob("*/*")) if path.suffix.lower() in PICTURE_SUFFIXES]
    reader = PictureReader(models, workers)
    found: list[Embeddings] = []
    people: list[str] = []
    with ThreadPoolExecutor(workers) as pool:
        results = ordered_map(pool, reader, pictures, workers + 1)
        for done, (path, pair) in enumerate(zip(pictures, results, strict=True), start=1):
            if pair is not None:
                found.append(pair)
                people.append(path.parent.name)
            if progress is not None:
                progress(done, len(pictures))
    _, numbers = np.unique(people, return_inverse=True)
    same = _pairs(numbers[:, None] == numbers[None])
    different = int((~same).sum())
    if not same.any() or different < MIN_DIFFERENT_PAIRS:
        raise InputError(
            f"{folder}: {int(same.sum())} pairs of one person and {different} of two people are too few; "
            f"give several pictures each of more people (at least {MIN_DIFFERENT_PAIRS} pairs of two)"
        )
    points = {}
    for recogniser in RECOGNISERS:
        scores = _pairs(score_matrix(recogniser, found, found))
        measure = "Euclidean distance" if recogniser.by_distance else "cosine similarity"
        points[recogniser.key] = {
            "measure": measure,
            **operating_points(scores, same, nearer_is_same=recogniser.by_distance),
        }
    return {
        "format": FORMAT,
        "version": VERSION,
        "data": folder.name,
        "people": len(set(people)),
        "pictures": len(pictures),
        "without_face": len(pictures) - len(found),
        "same_pairs": int(same.sum()),
        "different_pairs": different,
        "recognisers": points,
    }


def operating_points(
    scores: npt.NDArray[np.float64], same: Bool, nearer_is_same: bool = False
) -> dict[str, dict[str, float]]:
    """Find threshold and TPR at each false accept rate that the pairs can show.

    Args:
        scores: (pairs,), one comparison each.
        same: bool (pairs,), whether the pair shows one person.
        nearer_is_same: scores are distances rather than similarities.

    Returns:
        By name of the rate: ``threshold`` and ``tpr``, the share of pairs of one person beyond it. At most
        the stated share of pairs of two people lies beyond it too.
    """
    signed = -scores if nearer_is_same else scores
    strangers = np.sort(signed[~same])[::-1]
    points = {}
    for name, rate in FALSE_ACCEPT_RATES.items():
        accepted = int(rate * len(strangers))
        if accepted < 1:
            continue
        threshold = round(float(strangers[accepted]), 4)
        tpr = round(float((signed[same] > threshold).mean()), 4)
        points[name] = {"threshold": -threshold if nearer_is_same else threshold, "tpr": tpr}
    return points


def _pairs(matrix: npt.NDArray[Any]) -> npt.NDArray[Any]:
    """Return what stands above the diagonal: every pair once."""
    return np.asarray(matrix[np.triu_indices(len(matrix), k=1)])


class PictureReader:
    """From a picture to the embeddings of the face nearest to its centre."""

    def __init__(self, models: ModelStore, workers: int) -> None:
        from vidanon.settings import DetectSettings
        from vidanon.stages.detect import FaceDetector
        from vidanon.stages.landmark import Landmarker

        self._detect = FaceDetector(models, DetectSettings(), workers)
        self._landmark = Landmarker(models, workers)
        self._embed = load_recognisers(models, workers)

    def __call__(self, path: Path) -> Embeddings | None:
        """Return the embeddings, or None where no face is found."""
        image = read_picture(path)
        landmarks = self.find(image)
        return None if landmarks is None else self.embed(image, landmarks)

    def find(self, image: UInt8) -> Float | None:
        """Return the landmarks (478, 2) of the face nearest to the centre, pixels, or None without one."""
        centre = np.array(image.shape[1::-1], np.float32) / 2
        boxes = [face.box for face in self._detect(image)]
        meshes = [mesh for mesh in self._landmark(image, boxes) if mesh is not None]
        return min(
            (mesh[0] for mesh in meshes), key=lambda m: float(np.hypot(*(m.mean(0) - centre))), default=None
        )

    def embed(self, image: UInt8, landmarks: Float) -> Embeddings:
        """Return the embeddings of the face with these landmarks."""
        return {name: embed(image, landmarks) for name, embed in self._embed.items()}


def read_picture(path: Path) -> UInt8:
    """Read a picture as uint8 RGB (height, width, 3).

    Raises:
        InputError: not a picture.
    """
    import cv2

    image = cv2.imread(str(path), cv2.IMREAD_COLOR)
    if image is None:
        raise InputError(f"{path}: cannot be read as a picture; remove it")
    return np.asarray(cv2.cvtColor(image, cv2.COLOR_BGR2RGB), np.uint8)
