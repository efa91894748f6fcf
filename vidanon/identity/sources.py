"""Look at those who are replaced, for what keeps a new face apart from them and like them in looks.

What is found lives in memory only: a plan that was read from a file has none of it. It is taken anew then,
from the same frames as before, so that the result is the same byte for byte.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from vidanon.geometry import apply
from vidanon.identity.embed import SFace
from vidanon.identity.look import LookEncoder
from vidanon.identity.resting import Resting
from vidanon.identity.views import aligned, evenly, frontality, places_of
from vidanon.networks.runtime import resolve_device
from vidanon.stages.decode import Decoder
from vidanon.stages.gate import anything_stays
from vidanon.stages.reduced import cut_out
from vidanon.stages.segment import PartReader, share_in_front
from vidanon.stages.synthesize import crop_face, cut_face
from vidanon.types import Float, Frame, Plan, Scene, Source, Track, View

if TYPE_CHECKING:
    from vidanon.models.registry import ModelStore
    from vidanon.settings import RuntimeSettings

SAMPLES = 12
"""Frames, evenly taken, in which a person is looked at."""
TAKEN = 2 * SAMPLES
"""They are taken of so many, those with nothing before the face: recognisers compare hand with hand."""
LEAST_FREE = 5
"""Of fewer it could not be told how a face is to be led; then all count."""
VIEWS = 3
"""So many of them, those most from the front, tell how a new face looks: readers know frontal faces best."""


Wanted = Mapping[int, Sequence[Track]]
"""Tracks by frame."""


class _Sample(NamedTuple):
    frontality: float
    embedding: Float
    look: Float
    view: View
    scene: Scene


def with_sources(source: Path, plan: Plan, models: ModelStore, runtime: RuntimeSettings) -> Plan:
    """Return the plan with those whom it replaces, as far as it has none.

    Args:
        source: the video that the plan was made from.
        plan: perhaps read from a file.
        models: where the networks are.
        runtime: device and threads.
    """
    if plan.sources:
        return _with_failed(source, plan, models, runtime)
    places = places_of(plan)
    taken: dict[int, list[Track]] = defaultdict(list)
    for mine in places.values():
        for track, row in evenly(mine, TAKEN):
            taken[track.start + row].append(track)
    if not taken:
        return plan
    embed = SFace(models, runtime.workers)
    look = LookEncoder(models, resolve_device(runtime.device), runtime.workers)
    reader, resting = _part_reader(models, runtime), Resting(places, taken)
    seen: dict[int, list[Scene]] = defaultdict(list)
    free: dict[int, list[Scene]] = defaultdict(list)
    for frame, track in _decoded(source, _merged(taken, resting.wanted)):
        scene, parts = cut_out(frame, track), _parts_of(frame, track, reader)
        if _has(taken, frame.index, track):
            seen[track.person].append(scene)
            if _is_free(frame, track, parts):
                free[track.person].append(scene)
        if _has(resting.wanted, frame.index, track):
            resting.see(scene, parts)
    sources = {}
    for person, scenes in seen.items():
        some = free[person] if len(free[person]) >= LEAST_FREE else scenes
        found = _source([_sample(scene, embed, look) for scene in evenly(some, SAMPLES)])
        numbers = {track.id for track, _ in places[person]} & resting.found.keys()
        sources[person] = replace(found, rests={number: resting.found[number] for number in numbers})
    return _with_failed(source, replace(plan, sources=sources), models, runtime)


def _merged(one: Wanted, other: Wanted) -> dict[int, list[Track]]:
    """Return the tracks of both by frame, each once."""
    return {
        frame: list({track.id: track for track in (*one.get(frame, ()), *other.get(frame, ()))}.values())
        for frame in one.keys() | other.keys()
    }


def _has(wanted: Wanted, frame: int, track: Track) -> bool:
    return any(other.id == track.id for other in wanted.get(frame, ()))


def _part_reader(models: ModelStore, runtime: RuntimeSettings) -> PartReader:
    return PartReader(models, resolve_device(runtime.device), runtime.workers)


def is_free(frame: Frame, track: Track, reader: PartReader) -> bool:
    """Say whether nothing is before a face, or what is will be drawn over."""
    return _is_covered(frame, track) or _is_free(frame, track, _parts_of(frame, track, reader))


def _parts_of(frame: Frame, track: Track, reader: PartReader) -> Float:
    """Return the part chances of a track's crop, float32 (8, 64, 64)."""
    row = frame.index - track.start
    crop_from_frame = track.crop_from_frame[row]
    crop = crop_face(frame.image, crop_from_frame)
    return reader.source(frame.image, crop, crop_from_frame, aligned(track, row))


def _is_covered(frame: Frame, track: Track) -> bool:
    return track.covered is not None and bool(track.covered[frame.index - track.start])


def _is_free(frame: Frame, track: Track, parts: Float) -> bool:
    share = share_in_front(parts, aligned(track, frame.index - track.start))
    return not anything_stays(share, is_bare=_is_covered(frame, track))


def _with_failed(source: Path, plan: Plan, models: ModelStore, runtime: RuntimeSettings) -> Plan:
    """Add the scenes in which somebody was recognised behind nothing, as far as they are not there."""
    wanted: dict[int, list[Track]] = defaultdict(list)
    for person, places in places_of(plan).items():
        if person not in plan.sources:
            continue
        codes = plan.identities[person], *plan.spares.get(person, ())
        known = {frame.index for frame, _ in plan.sources[person].failed}
        missing = {index for code in codes for index in code.failed_at} - known
        for track, row in places:
            if track.start + row in missing:
                wanted[track.start + row].append(track)
    if not wanted:
        return plan
    reader = _part_reader(models, runtime)
    sources = dict(plan.sources)
    for frame, track in _decoded(source, wanted):
        before = sources[track.person]
        if is_free(frame, track, reader):
            sources[track.person] = replace(before, failed=(*before.failed, cut_out(frame, track)))
    return replace(plan, sources=sources)


def _decoded(source: Path, wanted: Wanted) -> Iterator[tuple[Frame, Track]]:
    """Yield each wanted frame of a video with each of its tracks."""
    with Decoder(source) as video:
        for frame in video.part(wanted.keys()):
            for track in wanted[frame.index]:
                yield frame, track


def _sample(scene: Scene, embed: SFace, look: LookEncoder) -> _Sample:
    image, track = scene[0].image, scene[1]
    landmarks, crop_from_image = track.landmarks[0].astype(np.float32), track.crop_from_frame[0]
    view = View(
        crop=cut_face(image, crop_from_image),
        blendshapes=np.nan_to_num(track.blendshapes[0].astype(np.float32)),
        landmarks=apply(crop_from_image, landmarks),
    )
    return _Sample(frontality(landmarks), embed(image, landmarks), look(image, landmarks), view, scene)


def _source(samples: list[_Sample]) -> Source:
    total = np.sum([sample.embedding for sample in samples], axis=0)
    samples = sorted(samples, key=lambda sample: -sample.frontality)
    front = samples[:VIEWS]
    return Source(
        embedding=np.asarray(total / np.linalg.norm(total), np.float32),
        look=np.asarray(np.mean([sample.look for sample in front], axis=0), np.float32),
        views=tuple(sample.view for sample in front),
        scenes=tuple(sample.scene for sample in samples),
        usual=np.asarray(np.mean([sample.view.blendshapes for sample in samples], axis=0), np.float32),
    )
