"""Lead a new face away from the face it replaces.

What the attribute encoder sees of the source, and the hair, outline and light that stay, bring a result
nearer to the source than two people are. So the mapper is asked for the fictional person less a part of what
is the source's own: of their embedding without what all faces share and without the directions in which
apparent sex, age, ancestry, beard and glasses lie, since a new face is to keep these. On 96 generated pairs a
part of .5 took SFace from .23 to .10 (unrelated faces .23) and dlib, which takes no part, from a distance of
.74 to .79 (unrelated .75), for .1 degree of head pose.

Source embeddings live in memory only: a plan that was read from a file has none. They are taken anew then,
from the same frames as before, so that the result is the same byte for byte.
"""

from __future__ import annotations

from collections import defaultdict
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from vidanon.identity.bank import load_bank
from vidanon.identity.views import evenly, places_of
from vidanon.types import EMBEDDING_SIZE, Float, Plan, Track

if TYPE_CHECKING:
    from vidanon.models.registry import ModelStore

AWAY = 0.5
"""The part of the source's own that is taken off. On drawn frames of three clips .5 of it did as much for
both recognisers as .3 of the whole embedding, with which a bearded man lost his beard."""
SAMPLES = 12
"""Frames, evenly taken, in which a person is looked at."""


def led_away(code: Float, source: Float | None) -> Float:
    """Return what the mapper is asked for.

    Args:
        code: float32 (128,), unit length, the fictional person.
        source: float32 (128,), unit length, the person who is replaced; None where unknown.

    Returns:
        float32 (128,), unit length.
    """
    if source is None:
        return code
    bank = load_bank()
    own = source - bank.mean_embedding
    own -= bank.look_directions.T @ (bank.look_directions @ own)
    away = code - np.float32(AWAY) * own
    return np.asarray(away / np.linalg.norm(away), np.float32)


def with_sources(source: Path, plan: Plan, models: ModelStore, workers: int) -> Plan:
    """Return the plan with the embeddings of the people it replaces, if it has none.

    Args:
        source: the video that the plan was made from.
        plan: perhaps read from a file.
        models: where the networks are.
        workers: threads that may call them.
    """
    from vidanon.identity.embed import SFace
    from vidanon.stages.decode import Decoder

    if plan.sources:
        return plan
    wanted: dict[int, list[Track]] = defaultdict(list)
    for places in places_of(plan).values():
        for track, row in evenly(places, SAMPLES):
            wanted[track.start + row].append(track)
    if not wanted:
        return plan
    embed = SFace(models, workers)
    totals: dict[int, Float] = defaultdict(lambda: np.zeros(EMBEDDING_SIZE, np.float32))
    with Decoder(source) as video:
        for frame in video.part(wanted.keys()):
            for track in wanted[frame.index]:
                landmarks = track.landmarks[frame.index - track.start].astype(np.float32)
                totals[track.person] += embed(frame.image, landmarks)
    return replace(plan, sources={person: total / np.linalg.norm(total) for person, total in totals.items()})
