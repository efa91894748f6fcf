"""The face recognisers that judge a result, with their thresholds.

SFace takes part in choosing the new faces and in training; EdgeFace and dlib's take part in nothing.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from vidanon.errors import ModelsError
from vidanon.identity.embed import CropEmbedder, SFace
from vidanon.models.thresholds import same_person
from vidanon.networks.converted import Recipe, shared_network
from vidanon.networks.runtime import let_go
from vidanon.types import Float, UInt8

if TYPE_CHECKING:
    from torch import nn

    from vidanon.models.registry import ModelStore

Embed = Callable[[UInt8, Float], Float]
"""From a picture, uint8 RGB (h, w, 3), and a face mesh (478, 2) in its pixels to an embedding (n,)."""


@dataclass(frozen=True, slots=True)
class Recogniser:
    """How a recogniser's embeddings are compared.

    Attributes:
        name: in reports.
        key: in ``thresholds.json`` and in front of the names of figures.
        by_distance: scores are Euclidean distances rather than cosine similarities.
    """

    name: str
    key: str
    by_distance: bool = False

    @property
    def same_person(self) -> float:
        """Score beyond which two faces count as one person (FAR 1e-3 on pairs of LFW)."""
        return same_person(self.key)

    @property
    def measure(self) -> str:
        """What the score is."""
        return "distance" if self.by_distance else "similarity"

    @property
    def strangers(self) -> str:
        """On which side of the line the scores of two people lie."""
        return "above" if self.by_distance else "below"

    def score(self, a: Float, b: Float) -> float:
        """Compare two embeddings."""
        return float(np.linalg.norm(a - b)) if self.by_distance else float(a @ b)

    def margin(self, score: float) -> float:
        """Return how far a score lies on the strangers' side of the line; negative beyond it."""
        return score - self.same_person if self.by_distance else self.same_person - score

    def is_same(self, score: float) -> bool:
        """Say whether two faces with this score count as one person; never with NaN."""
        return self.margin(score) < 0


SFACE, EDGEFACE, DLIB = (
    Recogniser("SFace", "sface"),
    Recogniser("EdgeFace", "edgeface"),
    Recogniser("dlib", "dlib", by_distance=True),
)
RECOGNISERS = (SFACE, EDGEFACE, DLIB)


def scores_of(one: Mapping[str, Float], other: Mapping[str, Float]) -> dict[str, float]:
    """Compare the embeddings of two faces, both by name of the recogniser, as is the result."""
    return {r.name: r.score(one[r.name], other[r.name]) for r in RECOGNISERS if r.name in one}


def score_matrix(
    recogniser: Recogniser, first: Sequence[Mapping[str, Float]], second: Sequence[Mapping[str, Float]]
) -> npt.NDArray[np.float64]:
    """Compare all of some faces' embeddings, by name, with all of others', (len(first), len(second))."""
    from scipy.spatial.distance import cdist

    a, b = (
        np.stack([face[recogniser.name] for face in faces]).astype(np.float64) for faces in (first, second)
    )
    return np.asarray(cdist(a, b) if recogniser.by_distance else a @ b.T, np.float64)


def margins_of(scores: Mapping[str, float]) -> dict[Recogniser, float]:
    """Return how far on the strangers' side two faces are, for those who judged; see `Recogniser.margin`."""
    return {r: r.margin(scores[r.name]) for r in RECOGNISERS if r.name in scores}


def recognised_by(scores: Mapping[str, float]) -> tuple[str, ...]:
    """Name the recognisers that take two faces for one person."""
    return tuple(r.name for r in RECOGNISERS if r.name in scores and r.is_same(scores[r.name]))


def fetch_recognisers(models: ModelStore) -> tuple[Recogniser, ...]:
    """Make the recognisers ready; return those that can judge: dlib's needs the optional package dlib-bin.

    Raises:
        ModelsError: a model cannot be fetched.
    """
    used = RECOGNISERS if _has_dlib(models) else (SFACE, EDGEFACE)
    for recogniser in used:
        models.fetch(EMBEDDERS[recogniser].MODEL)
    return used


def _has_dlib(models: ModelStore) -> bool:
    installed = importlib.util.find_spec("dlib") is not None
    return installed and not (models.offline and models.problem(DlibResNet.MODEL))


def load_recognisers(
    models: ModelStore, workers: int, used: tuple[Recogniser, ...] = RECOGNISERS
) -> dict[str, Embed]:
    """Return by name what embeds faces; safe to call from several threads.

    Raises:
        ModelsError: a model, or dlib where it is asked for, is missing.
    """
    return {recogniser.name: EMBEDDERS[recogniser](models, workers) for recogniser in used}


def let_judges_go() -> None:
    """Free the memory of the recognisers that only judge, once nobody uses them; they are loaded again."""
    let_go(lambda key: Path(str(key[0])).stem in (EdgeFace.MODEL, DlibResNet.MODEL))


class EdgeFace(CropEmbedder):
    """EdgeFace-S (George et al. 2024), 512 numbers per face; for the audit and measurements only."""

    MODEL = "edgeface"

    def _scaled(self, crops: Float) -> Float:
        return crops / np.float32(127.5) - np.float32(1)


# dlib's five points: outer and inner corner of the eye on the right of the picture, the same on the left,
# then the base of the nose. Mesh indices first, dlib's mean face (unit square without padding) second.
_CHIP_POINT_IDS = (263, 362, 33, 133, 2)
_CHIP_POINTS = np.array(
    [
        [0.8595674595992, 0.2134981538014],
        [0.6460604764104, 0.2289674387677],
        [0.1205750620789, 0.2137274526848],
        [0.3340850613712, 0.2290642403242],
        [0.4901123135679, 0.6277975316475],
    ]
)
_CHIP_PADDING = 0.25
_CHIP_PX = 150


def recipe(models: ModelStore) -> Recipe:
    """Return how dlib's network is made.

    Raises:
        ModelsError: the model file is missing.
    """
    weights = models.path(DlibResNet.MODEL)

    def build() -> nn.Module:
        from vidanon.networks.dlib_resnet import load_dlib_net

        return load_dlib_net(weights)

    example = (np.zeros((1, 3, _CHIP_PX, _CHIP_PX), np.float32),)
    return Recipe(DlibResNet.MODEL, build, example, (weights,))


class DlibResNet:
    """dlib's ResNet v1 face recogniser (King 2017), for the audit only; safe to call from several threads.

    dlib cuts the aligned picture; its network runs as the others do, which gives the same descriptors.

    Args:
        models: where ``dlib-resnet`` lies.
        workers: number of threads that will call.

    Raises:
        ModelsError: dlib is not installed, or the model file is missing.
    """

    MODEL = "dlib-resnet"

    def __init__(self, models: ModelStore, workers: int) -> None:
        try:
            import dlib
        except ImportError as error:
            raise ModelsError("dlib is missing; install it with 'pip install dlib-bin'") from error
        self._dlib: Any = dlib
        self._network = shared_network(recipe(models), models.converted, workers=workers)

    def __call__(self, image: UInt8, landmarks: Float) -> Float:
        """Return the descriptor of one face.

        Args:
            image: uint8 RGB (height, width, 3).
            landmarks: float32 (478, 2), face mesh, pixels.

        Returns:
            float32 (128,), compared by Euclidean distance.
        """
        chip = self.chip(image, landmarks).transpose(2, 0, 1)[None]
        return np.asarray(self._network(chip.astype(np.float32))[0][0], np.float32)

    def chip(self, image: UInt8, landmarks: Float) -> UInt8:
        """Return the aligned picture that the recogniser sees, uint8 RGB (150, 150, 3)."""
        dlib = self._dlib
        targets = (_CHIP_POINTS + _CHIP_PADDING) / (1 + 2 * _CHIP_PADDING) * _CHIP_PX
        chip_points, image_points = dlib.dpoints(), dlib.dpoints()
        for target, point in zip(targets, landmarks[list(_CHIP_POINT_IDS)], strict=True):
            chip_points.append(dlib.dpoint(*map(float, target)))
            image_points.append(dlib.dpoint(*map(float, point)))
        details = dlib.chip_details(chip_points, image_points, dlib.chip_dims(_CHIP_PX, _CHIP_PX))
        chip: UInt8 = dlib.extract_image_chip(np.ascontiguousarray(image), details)
        return chip


EMBEDDERS: dict[Recogniser, type[CropEmbedder] | type[DlibResNet]] = {
    SFACE: SFace,
    EDGEFACE: EdgeFace,
    DLIB: DlibResNet,
}
"""What embeds faces; ``MODEL`` is the name in the registry."""
