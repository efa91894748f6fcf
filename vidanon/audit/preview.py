"""Choose among the new faces by what the audit will measure: a few frames drawn with each of them.

The similarity of two portraits says little about the composite, in which hair line, jaw and skin around the
new face are the source's. dlib is left out on purpose: it must not take part in what it judges later.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Container, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from vidanon.identity.away import MOST_REFUSED
from vidanon.identity.bank import Reading, load_bank
from vidanon.identity.embed import SFACE_SAME_PERSON, SFace
from vidanon.identity.look import LookEncoder
from vidanon.identity.shade import chin_shade
from vidanon.identity.sources import with_sources
from vidanon.identity.views import aligned, evenly, most_different, places_of
from vidanon.networks.runtime import resolve_device
from vidanon.stages.reduced import reduced
from vidanon.types import Float, Frame, IdentityCode, Plan, Track, UInt8

if TYPE_CHECKING:
    from vidanon.models.registry import ModelStore
    from vidanon.renderer import Renderer
    from vidanon.settings import Settings

FRAMES = (3, 8)
"""So many frames are drawn for a person: the first number, and one more per SPACING_FRAMES of the track."""
SPACING_FRAMES = 60
SAFE_MARGINS = (0.16, 0.10)
"""A face is taken at once when it stays this far below the threshold in every frame drawn: where the least
and where the most frames are drawn, since of eight of the most different views hardly one is worse. With
.05, SFace found 2.4 of 100 pictures of 150 people of LFW again at one false match in 1,000, with .13 .9."""
EXIT_PX = 256
"""SFace looks at 112 px, so nothing larger need be drawn."""
MAX_DRAWN = 12
"""So many faces of a person are drawn at most before the first render: what SFace sees in the best of them is
led away, which takes as long as to draw some."""
MAX_DRAWN_AGAIN = 2
"""So many after a refusal, the refused face among them, each led away, until one is safe."""
FAILED_FRAMES = 3
"""Of those that failed, so many are added after each refusal to the frames in which it is led away."""
HAIR_COST = 0.25
"""What a forehead full of new hair, which has to be cleared away, counts in units of similarity."""
BEARD_COST = 0.3
"""What a chin as dark as a beard counts where the source's is bare, or the other way round."""
AGE_COST, SEX_COST, GLASSES_COST, SHAVED_COST = 0.012, 0.5, 0.3, 0.3
"""What a year of age, a change of apparent sex, glasses and a beard count, beyond what is free."""
EXPRESSION_COST, EXPRESSION_FREE, UNREADABLE = 12.0, 0.03, 0.1
"""What it counts how far blendshapes are off on average, beyond what is free; how far where none are read.
Of 12 faces of asl_please they were off by .035 to .056, and once they were settled by .019 to .036, in nearly
the same order; in larger pictures hardly any is off by what is free. With 8 beyond .02, safe faces were
not taken at once in those either, which took a third more of time for the same faces."""
AGE_FREE_YEARS, LOOK_FREE, BEARD_FREE = 8.0, 0.4, 0.3
"""So far apart two readings of one face often are: of age, of sex and glasses, and of a beard (0..1)."""
MAX_PERSONS = 6
"""The persons with most to show are previewed; for the others the first face stands."""
MAX_COMPARED = 256
"""Moments of a person among which the most different ones are looked for."""
NEVER_SHOWN = 2.0
"""Worse than any similarity: a face that the gate never lets through would leave the person obscured."""
HIDDEN_BELOW = SFACE_SAME_PERSON - 0.02
"""A face that is more similar than this in a frame comes into question only where all are."""
SAFE_BELOW = SFACE_SAME_PERSON - SAFE_MARGINS[1]
"""A face led away after a refusal that stays below this in every frame drawn is taken at once."""


class Draft(NamedTuple):
    """A new face drawn on one frame.

    Attributes:
        likeness: SFace similarity to the source.
        cost: what speaks against it: the likeness, and how far the look has changed.
        off: how far blendshapes are off on average; None where the source's cannot be read.
        embedding: float32 (128,), of the result.
    """

    likeness: float
    cost: float
    off: float | None
    embedding: Float


class _Seen(NamedTuple):
    """What is seen of a face: embedding (128,), shade of the chin, look, and blendshapes (52,)."""

    embedding: Float
    chin: float
    look: Reading
    blendshapes: Float | None


Shown = dict[int, Draft]
"""By frame in which a new face was drawn."""


def prefer_strangers(
    source: Path, plan: Plan, settings: Settings, models: ModelStore
) -> tuple[Plan, dict[int, float]]:
    """Put every person's new faces into the order in which they should be tried.

    They are drawn in the key's order, two at least, until one is clearly a stranger on all frames drawn. Then
    the one comes first that suits best of those that hide the person, or of all if none does.

    Args:
        source: the video.
        plan: with spare faces.
        settings: as for rendering.
        models: where the networks are.

    Returns:
        The plan, and per person the highest SFace similarity between frames drawn with the first two faces:
        what links outputs that were made with different keys.
    """
    wanted = preview_frames(plan)
    if not wanted:
        return plan, {}
    studio = _Studio(source, plan, wanted, settings, models)
    limits = {person: _safe_below(len(frames)) for person, frames in wanted.items()}
    costs: dict[int, list[float]] = defaultdict(list)
    drawn: dict[int, list[Shown]] = defaultdict(list)
    for turn in range(min(MAX_DRAWN, 1 + max(len(plan.spares[person]) for person in wanted))):
        # The second face is always drawn: it shows how well the first hides who is behind both.
        telling = {
            p: _telling(frames, drawn[p])
            for p, frames in wanted.items()
            if turn <= len(plan.spares[p]) and (turn < 2 or min(costs[p]) >= limits[p])
        }
        if not telling:
            break
        results = studio.draw(turn, telling)
        rest = {
            p: [frame for frame in wanted[p] if frame not in telling[p]]
            for p, shown in results.items()
            if _worst(shown) < limits[p]
        }
        further = studio.draw(turn, rest)
        for person, shown in results.items():
            drawn[person].append(shown | further.get(person, {}))
            costs[person].append(_worst(drawn[person][-1]))
    links = {p: link for p in wanted if (link := _link(drawn[p])) is not None}
    revealing = {
        person: [any(draft.likeness > HIDDEN_BELOW for draft in shown.values()) for shown in faces]
        for person, faces in drawn.items()
    }
    return _ordered(plan, costs, revealing), links


def prefer_where_it_failed(
    source: Path,
    plan: Plan,
    frames: dict[int, list[int]],
    settings: Settings,
    models: ModelStore,
    slight: Container[int] = (),
) -> Plan:
    """Put the spare faces into the order in which they hide who was recognised.

    They are drawn where it happened and, since a face that hides there may fail elsewhere, on some frames of
    the first preview too. Those come first that hide the person in most of the frames that failed, and last
    those that do in none. Where none of those drawn does in any, all are dropped: the present face, which
    fits, stays, and the mask does what no face can. The refused face itself, which comes first, and all
    others no longer keep age, sex and ancestry of the source, as what is kept may be what was recognised, and
    lead further away from it, also in some of the frames that failed. Before that, whoever was recognised in
    few frames is tried with the refused face as it was, only led away there too.

    Args:
        source: the video.
        plan: what was refused.
        frames: by person, in which a recogniser took the result for the source.
        settings: as for rendering.
        models: where the networks are.
        slight: who was recognised in few frames, behind a face that may still be led further as it is.
    """
    choosy = [person for person in frames if plan.spares.get(person)]
    most = sorted(choosy, key=lambda person: -len(frames[person]))[:MAX_PERSONS]
    if not most:
        return plan
    places = places_of(plan)
    again = {
        person: _further_away(plan, person, places[person], frames[person], person in slight)
        for person in choosy
    }
    plan = with_sources(source, replace(plan, spares=plan.spares | again), models, settings.runtime)
    before = preview_frames(plan)
    wanted = {
        person: sorted({f for some in (frames, before) for f in evenly(some.get(person, ()), FRAMES[0])})
        for person in sorted(most)
    }
    studio = _Studio(source, plan, wanted, settings, models, estranges=True)
    drawn = _drawn_until_safe(studio, wanted, plan.spares)
    ordered = {
        person: _hiding_first(plan.spares[person], some, frames[person]) for person, some in drawn.items()
    }
    return replace(plan, spares=plan.spares | ordered)


def _drawn_until_safe(
    studio: _Studio, wanted: dict[int, list[int]], spares: Mapping[int, tuple[IdentityCode, ...]]
) -> dict[int, list[Shown]]:
    """Draw everyone's spare faces in turn until one is safe; return them by person."""
    drawn: dict[int, list[Shown]] = {person: [] for person in wanted}
    waiting = dict(wanted)
    for turn in range(1, 1 + MAX_DRAWN_AGAIN):
        if not waiting:
            break
        for person, shown in studio.draw(turn, waiting).items():
            drawn[person].append(shown)
            safe = len(shown) == len(wanted[person]) and max(d.likeness for d in shown.values()) < SAFE_BELOW
            if safe or turn == len(spares[person]):
                del waiting[person]
    return drawn


def _hiding_first(
    faces: tuple[IdentityCode, ...], drawn: list[Shown], failed: list[int]
) -> tuple[IdentityCode, ...]:
    """Order faces, of which the first were drawn, by in how many frames that failed they hide somebody."""
    hidden = [_hidden_in(shown, failed) for shown in drawn]
    if not any(hidden):
        return ()
    order = sorted(range(len(drawn)), key=lambda turn: (-hidden[turn], _worst(drawn[turn])))
    helping = [turn for turn in order if hidden[turn]]
    undrawn, useless = range(len(drawn), len(faces)), order[len(helping) :]
    return tuple(faces[turn] for turn in (*helping, *undrawn, *useless))


def _further_away(
    plan: Plan, person: int, places: list[tuple[Track, int]], failed: list[int], slight: bool
) -> tuple[IdentityCode, ...]:
    """Return somebody's present and spare faces as they are drawn after one more refusal."""
    present = plan.identities[person]
    refused = min(present.refused + 1, MOST_REFUSED)
    failing = [(track, row) for track, row in places if track.start + row in failed]
    added = _most_different(failing, FAILED_FRAMES) if failing else ()
    failed_at = tuple(sorted({*present.failed_at, *added}))
    faces = [
        replace(face, refused=refused, nudged=0, failed_at=failed_at)
        for face in (present, *plan.spares[person])
    ]
    if slight:
        faces.insert(0, replace(present, nudged=present.nudged + 1, failed_at=failed_at))
    return tuple(face for face in faces if face.drawn_as != present.drawn_as)


def _hidden_in(shown: Shown, failed: list[int]) -> int:
    """Return in how many of the frames in which somebody was recognised SFace sees a stranger now."""
    return sum(shown[frame].likeness < HIDDEN_BELOW for frame in failed if frame in shown)


class _Studio:
    """Draws some frames of a video with one face after the other."""

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

    def draw(self, turn: int, wanted: dict[int, list[int]]) -> dict[int, Shown]:
        """Draw everyone's face number ``turn`` on some of the frames; return what was found by person."""
        frames = [frame for frame in self._frames if any(frame.index in some for some in wanted.values())]
        painter = self._renderer.previewing(_turn(self._plan, turn), EXIT_PX, self._estranges)
        with ThreadPoolExecutor(self._workers) as pool:
            found = list(pool.map(lambda frame: self._draw(painter, frame, wanted), frames))
        return {
            person: {
                frame.index: seen[person] for frame, seen in zip(frames, found, strict=True) if person in seen
            }
            for person in wanted
        }

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
        cost = HAIR_COST * hair + BEARD_COST * abs(before.chin - after.chin)
        cost += _look_cost(before.look, after.look)
        likeness = float(before.embedding @ after.embedding)
        off = _expression_off(before.blendshapes, after.blendshapes)
        return Draft(likeness, likeness + cost, off, after.embedding)

    def _seen(self, image: UInt8, landmarks: Float) -> _Seen:
        embedding = self._embed(image, landmarks)
        look = load_bank().read(embedding, self._look(image, landmarks))
        mesh = self._renderer.landmarker.around(image, landmarks)
        return _Seen(embedding, chin_shade(image, landmarks), look, None if mesh is None else mesh[1])


def _tracks_in(plan: Plan, index: int, wanted: dict[int, list[int]]) -> list[Track]:
    """Return the tracks of a frame whose persons are wanted there."""
    return [
        track
        for track in plan.tracks
        if track.start <= index < track.end and index in wanted.get(track.person, ())
    ]


def preview_frames(plan: Plan) -> dict[int, list[int]]:
    """Return the frames to draw for each person: the most different views of all that is seen of them."""
    places = {person: mine for person, mine in places_of(plan).items() if plan.spares.get(person)}
    largest = sorted(places, key=lambda person: -_area_px(places[person]))[:MAX_PERSONS]
    counts = {person: min(FRAMES[0] + len(places[person]) // SPACING_FRAMES, FRAMES[1]) for person in largest}
    return {person: _most_different(places[person], counts[person]) for person in sorted(largest)}


def _area_px(places: list[tuple[Track, int]]) -> float:
    boxes = np.stack([track.boxes[row] for track, row in places])
    return float(np.prod(boxes[:, 2:] - boxes[:, :2], axis=1).sum())


def _most_different(places: list[tuple[Track, int]], count: int) -> list[int]:
    """Return the frames of the places with the median pose and those furthest from all before.

    The next most different view of the head, not the next moment, shows what a new face does not hide.
    """
    compared = evenly(places, MAX_COMPARED)
    shapes = np.stack([aligned(track, row).ravel() for track, row in compared])
    rows = most_different(shapes, count)
    return sorted({compared[row][0].start + compared[row][1] for row in rows})


def read_frames(source: Path, indices: set[int]) -> list[Frame]:
    """Return some frames of a video, in order."""
    from vidanon.stages.decode import Decoder

    with Decoder(source) as video:
        return [Frame(frame.index, frame.pts, frame.image) for frame in video.part(indices)]


def _turn(plan: Plan, turn: int) -> dict[int, IdentityCode]:
    """Return everyone's face number ``turn`` (0: the first); who has no more keeps the first."""
    faces = {person: (code, *plan.spares.get(person, ())) for person, code in plan.identities.items()}
    return {person: codes[turn] if turn < len(codes) else codes[0] for person, codes in faces.items()}


def _telling(frames: list[int], earlier: list[Shown]) -> list[int]:
    """Return the frames to draw first: those that spoke most against earlier faces decide for most others."""
    known = {frame for shown in earlier for frame in shown}
    if len(earlier) < 2 or not known:
        return frames
    against = {f: max(shown[f].cost for shown in earlier if f in shown) for f in known}
    return sorted(sorted(known, key=lambda frame: -against[frame])[: FRAMES[0]])


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


def _worst(shown: Shown) -> float:
    """Return what speaks against a face.

    That is the highest cost, as the worst frame decides in the audit, and how far the expression is off: on
    average, since in one frame it is read badly.
    """
    if not shown:
        return NEVER_SHOWN
    known = [draft.off for draft in shown.values() if draft.off is not None]
    off = max(float(np.mean(known)) - EXPRESSION_FREE, 0.0) if known else 0.0
    return max(draft.cost for draft in shown.values()) + EXPRESSION_COST * off


def _safe_below(frames: int) -> float:
    """Return the cost below which a face that was drawn on so many frames is taken at once."""
    return SFACE_SAME_PERSON - float(np.interp(frames, FRAMES, SAFE_MARGINS))


def _link(drawn: list[Shown]) -> float | None:
    """Return the highest similarity of the first two faces on a frame that was drawn with both."""
    if len(drawn) < 2:
        return None
    both = drawn[0].keys() & drawn[1].keys()
    return max((float(drawn[0][frame].embedding @ drawn[1][frame].embedding) for frame in both), default=None)


def _ordered(plan: Plan, costs: dict[int, list[float]], revealing: dict[int, list[bool]]) -> Plan:
    identities, spares = dict(plan.identities), dict(plan.spares)
    for person, values in costs.items():
        codes = [plan.identities[person], *plan.spares[person]]
        by_cost = sorted(range(len(values)), key=lambda turn: (revealing[person][turn], values[turn]))
        identities[person], *rest = (codes[turn] for turn in (*by_cost, *range(len(values), len(codes))))
        spares[person] = tuple(rest)
    return replace(plan, identities=identities, spares=spares)
