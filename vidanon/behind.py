"""Judge a face behind a hand, or another thing, by what the person looks like without it.

Where the same hand lies before the source's face and the new one, recognisers compare hand with hand: on the
sample clip dlib takes half of these pairs for one person, and none of the new faces for the person of the
source's other frames. So there, and there alone, the new face is compared with those frames, on average,
provided that most recognisers know the source's own face, behind that very hand, by them.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from vidanon.geometry import apply, unit_crop_from_frame
from vidanon.recognisers import RECOGNISERS, Recogniser, score_matrix
from vidanon.stages.segment import PartReader, share_in_front
from vidanon.stages.synthesize import crop_face
from vidanon.types import Float, UInt8

if TYPE_CHECKING:
    from vidanon.tally import FacePair, FaceReading

LEAST_SHARE = 0.1
"""So much of eyes, nose and mouth is hidden in both pictures."""
LEAST_VIEWS = 4
"""So many frames without anything in front have to be known."""
SELDOM = 0.9
"""What is in front makes the source less like itself than it is in this share of those."""


def share_behind(reader: PartReader, image: UInt8, landmarks: Float) -> float:
    """Return the share of eyes, nose and mouth that something in front hides, 0..1.

    Args:
        reader: tells parts apart.
        image: uint8 RGB (h, w, 3).
        landmarks: float32 (478, 2), of the face, pixels.
    """
    crop_from_frame = unit_crop_from_frame(landmarks)
    crop, points = crop_face(image, crop_from_frame), apply(crop_from_frame, landmarks)
    return share_in_front(reader.source(image, crop, crop_from_frame, points), points)


def judged_apart(pairs: Sequence[FacePair]) -> list[FacePair]:
    """Return what was judged of one person, in the same order, with fair scores where something is in front.

    Args:
        pairs: of one person, in any order.
    """
    views = [pair for pair in pairs if pair.behind[0] < LEAST_SHARE]
    behind = [min(pair.behind) >= LEAST_SHARE for pair in pairs]
    if not any(behind) or len(views) < LEAST_VIEWS:
        return list(pairs)
    usual = {r: _usual(views, r) for r in RECOGNISERS if r.name in views[0].scores}
    return [_apart(pair, usual) if hidden else pair for pair, hidden in zip(pairs, behind, strict=True)]


class _Usual(NamedTuple):
    """What a person looks like to a recogniser without anything in front.

    Attributes:
        views: embeddings, by name of the recogniser.
        margin: of most of these from the others, on average, or less; see
            :meth:`vidanon.recognisers.Recogniser.margin`.
    """

    views: list[Mapping[str, Float]]
    margin: float

    def score(self, recogniser: Recogniser, face: FaceReading) -> float:
        """Compare a face with them; the mean is on the scale of the thresholds, which are those of pairs."""
        return float(score_matrix(recogniser, [face.embeddings], self.views).mean())


def _usual(pairs: Sequence[FacePair], recogniser: Recogniser) -> _Usual:
    views = [pair.source.embeddings for pair in pairs]
    scores = score_matrix(recogniser, views, views)
    others = (scores.sum(axis=1) - np.diag(scores)) / (len(views) - 1)
    return _Usual(views, float(np.quantile([recogniser.margin(float(score)) for score in others], SELDOM)))


def _apart(pair: FacePair, usual: Mapping[Recogniser, _Usual]) -> FacePair:
    """Compare the output with what is usual of the source, where that is fair.

    It is where most recognisers know the source itself by that, and most know it less well than they mostly
    do: else nothing is in front.
    """
    margins = {r: r.margin(usual[r].score(r, pair.source)) for r in usual}
    know = sum(margin < 0 for margin in margins.values())
    doubt = sum(margins[r] >= usual[r].margin for r in usual)
    if 2 * min(know, doubt) <= len(usual):
        return pair
    return replace(pair, scores={r.name: usual[r].score(r, pair.output) for r in usual}, apart=True)
