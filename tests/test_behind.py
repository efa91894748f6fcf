"""Faces behind a hand are judged by what the person looks like without one, where that can tell anything."""

from pathlib import Path

import numpy as np
import pytest
from test_hands import BARE_S, face_at

from vidanon.behind import LEAST_SHARE, LEAST_VIEWS, judged_apart, share_behind
from vidanon.geometry import apply, invert
from vidanon.models.registry import ModelStore
from vidanon.recognisers import recognised_by
from vidanon.stages.segment import PartReader
from vidanon.tally import FacePair, FaceReading
from vidanon.types import Float

PERSON, STRANGER, HAND = np.eye(3, 8, dtype=np.float32)
SPREAD_S = 4.0
"""A hand with its fingers apart is before the face of the sample clip."""


def mixed(*parts: tuple[float, Float]) -> Float:
    total = np.sum([share * part for share, part in parts], axis=0)
    return np.asarray(total / np.linalg.norm(total), np.float32)


def reading(embedding: Float) -> FaceReading:
    nothing = np.zeros(4, np.float32)
    embeddings = {"SFace": embedding, "EdgeFace": embedding, "dlib": 0.6 * embedding}
    return FaceReading(nothing, np.zeros((478, 2), np.float32), nothing, nothing, embeddings, 0.0)


def pair(frame: int, source: Float, output: Float, behind: float = 0.0) -> FacePair:
    one, other = reading(source), reading(output)
    return FacePair(frame, 0, one.scores(other), 0.0, 0.0, one, other, 1.0, (behind, behind))


def views(count: int = 8) -> list[FacePair]:
    """Return the person, a little different in each frame, and the new face."""
    turned = np.eye(8, dtype=np.float32)[3:]
    return [
        pair(frame, mixed((1, PERSON), (0.3, turned[frame % len(turned)])), STRANGER)
        for frame in range(count)
    ]


def known(pairs: list[FacePair], frame: int = 90) -> tuple[str, ...]:
    (found,) = (pair for pair in judged_apart(pairs) if pair.frame == frame)
    return recognised_by(found.scores)


def test_two_people_behind_one_hand_are_two_people() -> None:
    behind = pair(90, mixed((1, PERSON), (1, HAND)), mixed((1, STRANGER), (1, HAND)), 0.5)
    assert recognised_by(behind.scores), "for the hand"
    found = judged_apart([*views(), behind])
    assert [pair.apart for pair in found] == [*8 * (False,), True]
    assert recognised_by(found[-1].scores) == ()
    assert [pair.frame for pair in found] == [*range(8), 90]


def test_who_is_replaced_is_known_behind_a_hand() -> None:
    source = mixed((1, PERSON), (1, HAND))
    assert len(known([*views(), pair(90, source, source, 0.5)])) == 3
    half = mixed((1, PERSON), (0.8, STRANGER), (1, HAND))
    assert known([*views(), pair(90, source, half, 0.5)]), "a part of the face is left"


@pytest.mark.parametrize(
    ("source", "count", "behind"),
    [
        (mixed((0.3, PERSON), (1, HAND)), 8, 0.5),
        (PERSON, 8, 0.5),
        (mixed((1, PERSON), (1, HAND)), LEAST_VIEWS - 1, 0.5),
        (mixed((1, PERSON), (1, HAND)), 8, 0.9 * LEAST_SHARE),
    ],
    ids=["hardly seen", "nothing hides anything", "seldom seen without", "too little is hidden"],
)
def test_where_other_frames_tell_nothing_the_frame_itself_counts(
    source: Float, count: int, behind: float
) -> None:
    like = mixed((0.8, source), (0.6, STRANGER))
    pairs = [*views(count), pair(90, source, like, behind)]
    assert not judged_apart(pairs)[-1].apart
    assert known(pairs) == recognised_by(pairs[-1].scores) != ()


def test_a_hand_that_the_new_face_covers_is_no_excuse() -> None:
    source = mixed((1, PERSON), (1, HAND))
    one, other = reading(source), reading(mixed((0.8, source), (0.6, STRANGER)))
    covered = FacePair(90, 0, one.scores(other), 0.0, 0.0, one, other, 1.0, (0.5, 0.0))
    assert known([*views(), covered]) != ()


def test_frames_with_a_hand_are_no_views_even_where_the_new_face_covers_it() -> None:
    hand = mixed((0.2, PERSON), (1, HAND))
    one, other = reading(hand), reading(STRANGER)
    covered = [
        FacePair(n, 0, one.scores(other), 0.0, 0.0, one, other, 1.0, (0.5, 0.0)) for n in range(20, 60)
    ]
    behind = pair(90, mixed((1, PERSON), (1, HAND)), mixed((1, STRANGER), (1, HAND)), 0.5)
    assert known([*views(), *covered, behind]) == ()


def test_a_hand_before_the_face_is_seen_and_a_bare_face_has_none(tmp_path: Path) -> None:
    shares = []
    for start_s in (SPREAD_S, BARE_S):
        image, crop_from_frame, landmarks = face_at(tmp_path, start_s)
        reader = PartReader(ModelStore(), "cpu", 1)
        shares.append(share_behind(reader, image, apply(invert(crop_from_frame), landmarks)))
    assert shares[0] > 0.3
    assert shares[1] < LEAST_SHARE
