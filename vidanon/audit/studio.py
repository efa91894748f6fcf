"""Draw some frames of a video with one new face after the other, and compare what is seen with the source.

dlib and EdgeFace are left out on purpose: they must not take part in what they judge later.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from vidanon.identity.bank import Reading, load_bank
from vidanon.identity.embed import SFace
from vidanon.identity.look import LookEncoder
from vidanon.identity.shade import brow_depth, chin_shade
from vidanon.identity.sources import is_free
from vidanon.networks.runtime import resolve_device
from vidanon.stages.reduced import reduced
from vidanon.stages.workers import worker_pool
from vidanon.types import Float, Frame, IdentityCode, Plan, Track, UInt8

if TYPE_CHECKING:
    from vidanon.models.registry import ModelStore
    from vidanon.renderer import Renderer
    from vidanon.settings import Settings

EXIT_PX = 256
"""SFace looks at 112 px, so nothing larger need be drawn."""
HAIR_COST = 0.25
"""What a forehead full of new hair, which has to be cleared away, or half of the brows under such, counts in
units of similarity."""
BEARD_COST = 0.3
"""What a chin as dark as a beard counts where the source's is bare, or the other way round."""
BROWS_COST, BROWS_FREE = 0.15, 0.1
"""What brows count that are fairer than the source's, beyond what is free: under its hair they look wrong,
and they hardly show how they are raised."""
AGE_COST, SEX_COST, GLASSES_COST, SHAVED_COST = 0.012, 0.5, 0.3, 0.3
"""What a year of age, a change of apparent sex, glasses and a beard count, beyond what is free."""
UNREADABLE = 0.1
"""So far blendshapes count as off where none are read."""
LEAST_FREE = 2
"""Of so many frames or more with nothing before a face, others are left out: a hand is like itself."""
AGE_FREE_YEARS, LOOK_FREE, BEARD_FREE = 8.0, 0.4, 0.3
"""So far apart two readings of one face often are: of age, of sex and glasses, and of a beard (0..1)."""


class Draft(NamedTuple):
    """A new face drawn on one frame.

    Attributes:
        likeness: SFace similarity to the source.
        changed: how far the look has changed, in units of similarity.
        off: how far blendshapes are off on average; None where the source's cannot be read.
        embedding: float32 (128,), of the result.
    """

    likeness: float
    changed: float
    off: float | None
    embedding: Float


class _Seen(NamedTuple):
    """What is seen of a face: embedding (128,), shade of chin and brows, look, and blendshapes (52,)."""

    embedding: Float
    chin: float
    brows: float
    look: Reading
    blendshapes: Float | None


Shown = dict[int, Draft]
"""By frame in which a new face was drawn."""


class Studio:
    """Draws some frames of a video with one face after the other.

    Args:
        source: the video.
        plan: who is where, with spare faces.
        wanted: by person, all frames that may be drawn.
        settings: as for rendering.
        models: where the networks are.
        estranges: lead the faces away from what is seen of the source.
    """

    def __init__(
        self,
        source: Path,
        plan: Plan,
        wanted: dict[int, list[int]],
        settings: Settings,
        models: ModelStore,
        estranges: bool = False,
    ) -> None:
        from vidanon.renderer import Renderer
        from vidanon.rendersummary import RenderSummary

        frames = read_frames(source, {frame for frames in wanted.values() for frame in frames})
        small = [reduced(frame, _tracks_in(plan, frame.index, wanted)) for frame in frames]
        self._frames = [frame for frame, _ in small]
        self._plan = replace(plan, tracks=tuple(track for _, tracks in small for track in tracks))
        self._estranges = estranges
        self._renderer = Renderer(self._plan, settings, models, RenderSummary())
        self._embed = SFace(models, settings.runtime.workers)
        self._look = LookEncoder(models, resolve_device(settings.runtime.device), settings.runtime.workers)
        self._workers = settings.runtime.workers
        self._sources: dict[tuple[int, int], _Seen] = {}

    def freely_seen(self, person: int, frames: list[int]) -> list[int]:
        """Return in which of some frames nothing is before somebody's face; all if hardly in any."""
        free = {
            frame.index
            for frame in self._frames
            for track in _tracks_in(self._plan, frame.index, {person: frames})
            if is_free(frame, track, self._renderer.part_reader)
        }
        return [frame for frame in frames if frame in free] if len(free) >= LEAST_FREE else frames

    def draw(self, wanted: dict[int, dict[int, list[int]]]) -> dict[int, dict[int, Shown]]:
        """Draw new faces on some of the frames.

        Args:
            wanted: by turn (everyone's face of that number) and person, on which frames.

        Returns:
            What was found, by turn and person.
        """
        painters = {
            turn: self._renderer.previewing(_turn(self._plan, turn), EXIT_PX, self._estranges)
            for turn in wanted
        }
        jobs = [
            (turn, frame)
            for turn, mine in wanted.items()
            for frame in self._frames
            if any(frame.index in some for some in mine.values())
        ]
        shown: dict[int, dict[int, Shown]] = {t: {person: {} for person in wanted[t]} for t in wanted}
        with worker_pool(self._workers) as pool:
            found = pool.map(lambda job: self._draw(painters[job[0]], job[1], wanted[job[0]]), jobs)
            for (turn, frame), seen in zip(jobs, found, strict=True):
                for person, draft in seen.items():
                    shown[turn][person][frame.index] = draft
        return shown

    def _draw(self, painter: Renderer, frame: Frame, wanted: dict[int, list[int]]) -> dict[int, Draft]:
        """Draw one frame; return by person what was drawn."""
        tracks = _tracks_in(self._plan, frame.index, wanted)
        if not tracks:
            return {}
        image, shown = painter.still(frame, {track.id for track in tracks})
        return {
            track.person: self._compare(frame, image, track, shown[track.id])
            for track in tracks
            if track.id in shown
        }

    def _compare(self, frame: Frame, image: UInt8, track: Track, hair: float) -> Draft:
        landmarks = track.landmarks[0].astype(np.float32)
        # What the source shows is asked for once, not with every face drawn on it.
        key = frame.index, track.id
        if key not in self._sources:
            self._sources[key] = self._seen(frame.image, landmarks)
        before, after = self._sources[key], self._seen(image, landmarks)
        changed = HAIR_COST * hair + BEARD_COST * abs(before.chin - after.chin)
        changed += BROWS_COST * max(before.brows - after.brows - BROWS_FREE, 0.0)
        changed += _look_cost(before.look, after.look)
        likeness = float(before.embedding @ after.embedding)
        off = _expression_off(before.blendshapes, after.blendshapes)
        return Draft(likeness, changed, off, after.embedding)

    def _seen(self, image: UInt8, landmarks: Float) -> _Seen:
        embedding = self._embed(image, landmarks)
        look = load_bank().read(embedding, self._look(image, landmarks))
        mesh = self._renderer.landmarker.around(image, landmarks)
        shades = chin_shade(image, landmarks), brow_depth(image, landmarks)
        return _Seen(embedding, *shades, look, None if mesh is None else mesh[1])


def _tracks_in(plan: Plan, index: int, wanted: dict[int, list[int]]) -> list[Track]:
    """Return the tracks of a frame whose persons are wanted there and can be given a new face."""
    return [
        track
        for track in plan.tracks
        if track.start <= index < track.end
        and index in wanted.get(track.person, ())
        and np.isfinite(track.crop_from_frame[index - track.start]).all()
    ]


def read_frames(source: Path, indices: set[int]) -> list[Frame]:
    """Return some frames of a video, in order."""
    from vidanon.stages.decode import Decoder

    with Decoder(source) as video:
        return [Frame(frame.index, frame.pts, frame.image) for frame in video.part(indices)]


def _turn(plan: Plan, turn: int) -> dict[int, IdentityCode]:
    """Return everyone's face number ``turn`` (0: the first); who has no more keeps the first."""
    faces = {person: (code, *plan.spares.get(person, ())) for person, code in plan.identities.items()}
    return {person: codes[turn] if turn < len(codes) else codes[0] for person, codes in faces.items()}


def _look_cost(before: Reading, after: Reading) -> float:
    """Return what speaks against a new face that looks of another age or sex, or is bearded or not."""
    years = max(abs(after.age - before.age) - AGE_FREE_YEARS, 0.0)
    sex = max(abs(after.female - before.female) - LOOK_FREE, 0.0)
    glasses = max(abs(after.glasses - before.glasses) - LOOK_FREE, 0.0)
    beard = max(abs(after.beard - before.beard) - BEARD_FREE, 0.0)
    return AGE_COST * years + SEX_COST * sex + GLASSES_COST * glasses + SHAVED_COST * beard


def _expression_off(before: Float | None, after: Float | None) -> float | None:
    """Return how far blendshapes (52,) are off on average; None where it is not known of the source."""
    if before is None:
        return None
    return UNREADABLE if after is None else float(np.abs(after - before).mean())
