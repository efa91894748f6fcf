"""What the recognisers say of the faces of one track, and the checks that follow."""

from __future__ import annotations

from collections.abc import Container, Sequence

from vidanon.audit.record import UNCOVERED, Check, Sample, TrackAudit, clock
from vidanon.behind import judged_apart
from vidanon.measures import MASK_DETAIL
from vidanon.recognisers import SFACE, Recogniser, recognised_by
from vidanon.tally import FacePair, HiddenFace

Judged = tuple[list[FacePair], list[HiddenFace]]
"""Faces that the output shows, and places where it shows none."""
_LISTED = 4


def is_masked(pair: FacePair, masked: Container[int]) -> bool:
    """Say whether the mask was drawn in the frame, and whether the picture is as void as it leaves a face."""
    return pair.frame in masked and pair.detail < MASK_DETAIL


def recognised_in(pair: FacePair, masked: Container[int]) -> tuple[str, ...]:
    """Name the recognisers that take both for one person.

    Where the mask lies over the face, detectors find one in its blots all the same, and recognisers then
    compare hat and hair around it.
    """
    return () if is_masked(pair, masked) else recognised_by(pair.scores)


def verdicts(
    pairs: Sequence[FacePair],
    hidden: Sequence[HiddenFace],
    times_s: Sequence[float],
    masked: Container[int],
) -> tuple[Sample, ...]:
    """Return what was seen of one track, in the order of frames.

    Args:
        pairs: faces that the output shows; those behind hands are judged as in :mod:`vidanon.behind`.
        hidden: places where it shows none.
        times_s: of all frames.
        masked: frames in which the track was obscured.
    """
    found = [_seen(pair, times_s, masked) for pair in judged_apart(pairs)]
    found += [_unseen(face, times_s, masked) for face in hidden]
    return tuple(sorted(found, key=lambda sample: sample.frame))


def _seen(pair: FacePair, times_s: Sequence[float], masked: Container[int]) -> Sample:
    shown = not is_masked(pair, masked)
    scores = pair.scores if shown else {SFACE.name: pair.similarity}
    return Sample(pair.frame, times_s[pair.frame], scores, shown, recognised_in(pair, masked), pair.apart)


def _unseen(face: HiddenFace, times_s: Sequence[float], masked: Container[int]) -> Sample:
    """A place without a face. Under the mask SFace only compares light and shade: dark is like dark."""
    scores = {SFACE.name: face.similarity}
    known = () if face.frame in masked else recognised_by(scores)
    return Sample(face.frame, times_s[face.frame], scores, False, known)


def identity_checks(results: Sequence[TrackAudit], used: Sequence[Recogniser]) -> list[Check]:
    """One check per recogniser: the worst frame of each track decides."""
    checks = []
    for recogniser in used:
        failed = [_failure(result, recogniser) for result in results]
        failed = [text for text in failed if text]
        judged = sum(len(result.samples) for result in results)
        listed = ", ".join(failed[:_LISTED]) + (", ..." if len(failed) > _LISTED else "")
        detail = f"still recognisable: {listed}" if failed else f"nobody recognised in {judged} faces"
        checks.append(Check(f"identity ({recogniser.name})", not failed, detail))
    return checks


def _failure(result: TrackAudit, recogniser: Recogniser) -> str:
    moments = [sample for sample in result.samples if recogniser.name in sample.recognised_by]
    if not moments:
        return ""
    who = f"track {result.track}" if result.track != UNCOVERED else "a face outside all tracks"
    worst = min((sample.scores[recogniser.name] for sample in moments), key=recogniser.margin)
    side = "below" if recogniser.by_distance else "above"
    value = f"{worst:.2f} {side} {recogniser.same_person:.2f}"
    at = clock(moments[0].time_s)
    span = at if len(moments) == 1 else f"{at} to {clock(moments[-1].time_s)}"
    return f"{who} at {span} ({value})"
