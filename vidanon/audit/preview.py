"""Choose among the new faces by what the audit will measure: a few frames drawn with each of them.

The similarity of two portraits says little about the composite, in which hair line, jaw and skin around the
new face are the source's. dlib is left out on purpose: it must not take part in what it judges later.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Container, Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from vidanon.audit.studio import Shown, Studio
from vidanon.identity.away import MOST_REFUSED
from vidanon.identity.embed import SFACE_SAME_PERSON
from vidanon.identity.estrange import LIMITS
from vidanon.identity.sources import with_sources
from vidanon.identity.views import aligned, evenly, most_different, places_of
from vidanon.types import IdentityCode, Plan, Track

if TYPE_CHECKING:
    from vidanon.models.registry import ModelStore
    from vidanon.settings import Settings

FRAMES = (3, 8)
"""So many frames are drawn for a person: the first number, and one more per SPACING_FRAMES of the track."""
SPACING_FRAMES = 60
RESERVE = 4
"""So many more are read, for those in which something is before the face."""
SAFE_MARGINS = (0.16, 0.10)
"""A face is taken at once when it stays this far below the threshold in every frame drawn: where the least
and where the most frames are drawn, since of eight of the most different views hardly one is worse. With
.05, SFace found 2.4 of 100 pictures of 150 people of LFW again at one false match in 1,000, with .13 .9."""
MAX_DRAWN = 12
"""So many faces of a person are drawn at most before the first render: what SFace sees in the best of them is
led away, which takes as long as to draw some."""
TOGETHER = 2
"""So many are drawn at a time; of the first two it is seen how well the first hides who is behind both."""
PATIENCE = 4
"""No further faces are drawn where so many were no better than one before which need not be led away."""
MAX_DRAWN_AGAIN = 2
"""So many after a refusal, the refused face among them, each led away, until one is safe."""
FAILED_FRAMES = 3
"""Of those that failed, so many are added after each refusal to the frames in which it is led away."""
EXPRESSION_COST, EXPRESSION_FREE = 12.0, 0.03
"""What it counts how far blendshapes are off on average, beyond what is free. Of 12 faces of asl_please they
were off by .035 to .056, and once they were settled by .019 to .036, in nearly the same order; in larger
pictures hardly any is off by what is free. With 8 beyond .02, safe faces were not taken at once in those
either, which took a third more of time for the same faces."""
MAX_PERSONS = 6
"""The persons with most to show are previewed; for the others the first face stands."""
MAX_COMPARED = 256
"""Moments of a person among which the most different ones are looked for."""
NEVER_SHOWN = 2.0
"""Worse than any similarity: a face that the gate never lets through would leave the person obscured."""
HIDDEN_BELOW = SFACE_SAME_PERSON - 0.02
"""A face that is more similar than this in a frame has to be led away."""
REVEALS_COST = 0.3
"""What that counts, as it changes expression and look. If it counted more than all else, lp_d14 would get a
face that hides her as it is, but has a fringe, no brows and another expression."""
SAFE_BELOW = SFACE_SAME_PERSON - SAFE_MARGINS[1]
"""A face led away after a refusal that stays below this in every frame drawn is taken at once."""


def prefer_strangers(
    source: Path, plan: Plan, settings: Settings, models: ModelStore
) -> tuple[Plan, dict[int, float]]:
    """Put every person's new faces into the order in which they should be tried.

    They are drawn in the key's order, two at a time, until one is clearly a stranger on all frames drawn, or
    several were no better than one that need not be led away. Then the one comes first that suits best; that
    a face does not hide the person counts much.

    Args:
        source: the video.
        plan: with spare faces.
        settings: as for rendering.
        models: where the networks are.

    Returns:
        The plan, and per person the highest SFace similarity between frames drawn with the first two faces:
        what links outputs that were made with different keys.
    """
    places = _previewed(plan)
    if not places:
        return plan, {}
    read = {p: _most_different(mine, _frame_count(mine) + RESERVE) for p, mine in places.items()}
    studio = Studio(source, plan, read, settings, models)
    wanted = {p: sorted(studio.freely_seen(p, read[p])[: _frame_count(mine)]) for p, mine in places.items()}
    drawn = _drawn_in_turn(studio, wanted, plan.spares)
    links = {p: link for p in wanted if (link := _link(drawn[p])) is not None}
    return _ordered(plan, drawn), links


def _drawn_in_turn(
    studio: Studio, wanted: dict[int, list[int]], spares: Mapping[int, tuple[IdentityCode, ...]]
) -> dict[int, list[Shown]]:
    """Draw everyone's faces, some at a time, until no more are needed; return them by person."""
    limits = {person: _safe_below(len(frames)) for person, frames in wanted.items()}
    drawn: dict[int, list[Shown]] = {person: [] for person in wanted}
    for first in range(0, MAX_DRAWN, TOGETHER):
        waiting = [p for p in wanted if first < TOGETHER or _goes_on(drawn[p], limits[p])]
        telling: dict[int, dict[int, list[int]]] = defaultdict(dict)
        for turn in range(first, first + TOGETHER):
            for person in waiting:
                if turn <= len(spares[person]):
                    telling[turn][person] = _telling(wanted[person], drawn[person])
        if not telling:
            break
        results = studio.draw(telling)
        rest = {
            turn: {
                p: [frame for frame in wanted[p] if frame not in telling[turn][p]]
                for p, shown in found.items()
                if _against(shown) < limits[p]
            }
            for turn, found in results.items()
        }
        further = studio.draw(rest)
        for turn, found in results.items():
            for person, shown in found.items():
                drawn[person].append(shown | further[turn].get(person, {}))
    return drawn


def _goes_on(drawn: list[Shown], limit: float) -> bool:
    """Say whether to draw more faces of a person.

    None was safe, and the best would have to be led away, which takes longer, or was among the last.
    """
    against = list(map(_against, drawn))
    best = against.index(min(against))
    is_led = any(draft.likeness > LIMITS[0] for draft in drawn[best].values())
    return against[best] >= limit and (is_led or len(against) - 1 - best < PATIENCE)


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
    looks = {
        person: [evenly(frames[person], RESERVE + FRAMES[0]), sorted(before.get(person, ()))]
        for person in sorted(most)
    }
    read = {person: [frame for look in mine for frame in look] for person, mine in looks.items()}
    studio = Studio(source, plan, read, settings, models, estranges=True)
    wanted = {
        person: sorted(
            {frame for look in mine for frame in evenly(studio.freely_seen(person, look), FRAMES[0])}
        )
        for person, mine in looks.items()
    }
    drawn = _drawn_until_safe(studio, wanted, plan.spares)
    ordered = {
        person: _hiding_first(plan.spares[person], some, frames[person]) for person, some in drawn.items()
    }
    return replace(plan, spares=plan.spares | ordered)


def _drawn_until_safe(
    studio: Studio, wanted: dict[int, list[int]], spares: Mapping[int, tuple[IdentityCode, ...]]
) -> dict[int, list[Shown]]:
    """Draw everyone's spare faces in turn until one is safe; return them by person."""
    drawn: dict[int, list[Shown]] = {person: [] for person in wanted}
    waiting = dict(wanted)
    for turn in range(1, 1 + MAX_DRAWN_AGAIN):
        if not waiting:
            break
        for person, shown in studio.draw({turn: waiting})[turn].items():
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
    order = sorted(range(len(drawn)), key=lambda turn: (-hidden[turn], _against(drawn[turn])))
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
    added = _most_different(failing, FAILED_FRAMES) if failing else []
    failed_at = tuple(sorted({*present.failed_at, *added}))
    faces = [
        replace(face, refused=refused, nudged=0, failed_at=failed_at)
        for face in (present, *plan.spares[person])
    ]
    if slight:
        faces.insert(0, replace(present, nudged=present.nudged + 1, failed_at=failed_at))
    different = {face.drawn_as: face for face in faces if face.drawn_as != present.drawn_as}
    return tuple(different.values())


def _hidden_in(shown: Shown, failed: list[int]) -> int:
    """Return in how many of the frames in which somebody was recognised SFace sees a stranger now."""
    return sum(shown[frame].likeness < HIDDEN_BELOW for frame in failed if frame in shown)


def preview_frames(plan: Plan) -> dict[int, list[int]]:
    """Return the frames to draw for each person: the most different views of all that is seen of them."""
    return {person: _most_different(mine, _frame_count(mine)) for person, mine in _previewed(plan).items()}


def _previewed(plan: Plan) -> dict[int, list[tuple[Track, int]]]:
    """Return the places of those with spare faces who have most to show, by person."""
    places = {person: mine for person, mine in places_of(plan).items() if plan.spares.get(person)}
    largest = sorted(places, key=lambda person: -_area_px(places[person]))[:MAX_PERSONS]
    return {person: places[person] for person in sorted(largest)}


def _frame_count(places: list[tuple[Track, int]]) -> int:
    return min(FRAMES[0] + len(places) // SPACING_FRAMES, FRAMES[1])


def _area_px(places: list[tuple[Track, int]]) -> float:
    boxes = np.stack([track.boxes[row] for track, row in places])
    return float(np.prod(boxes[:, 2:] - boxes[:, :2], axis=1).sum())


def _most_different(places: list[tuple[Track, int]], count: int) -> list[int]:
    """Return the frames of the places with the median pose and those furthest from all before, in this order.

    The next most different view of the head, not the next moment, shows what a new face does not hide.
    """
    compared = evenly(places, MAX_COMPARED)
    shapes = np.stack([aligned(track, row).ravel() for track, row in compared])
    rows = most_different(shapes, count)
    return list(dict.fromkeys(compared[row][0].start + compared[row][1] for row in rows))


def _telling(frames: list[int], earlier: list[Shown]) -> list[int]:
    """Return the frames to draw first: those that spoke most against earlier faces decide for most others."""
    known = {frame for shown in earlier for frame in shown}
    if len(earlier) < 2 or not known:
        return frames
    against = {f: max(shown[f].likeness + shown[f].changed for shown in earlier if f in shown) for f in known}
    return sorted(sorted(known, key=lambda frame: -against[frame])[: FRAMES[0]])


def _against(shown: Shown) -> float:
    """Return what speaks against a face.

    That is the highest likeness, as the worst frame decides in the audit, that it would have to be led away,
    and on average, since in one frame they are read badly, how far the look has changed and the expression is
    off.
    """
    if not shown:
        return NEVER_SHOWN
    drafts = shown.values()
    likeness = max(draft.likeness for draft in drafts)
    reveals = REVEALS_COST if likeness > HIDDEN_BELOW else 0.0
    changed = float(np.mean([draft.changed for draft in drafts]))
    known = [draft.off for draft in drafts if draft.off is not None]
    off = max(float(np.mean(known)) - EXPRESSION_FREE, 0.0) if known else 0.0
    return likeness + reveals + changed + EXPRESSION_COST * off


def _safe_below(frames: int) -> float:
    """Return the cost below which a face that was drawn on so many frames is taken at once."""
    return SFACE_SAME_PERSON - float(np.interp(frames, FRAMES, SAFE_MARGINS))


def _link(drawn: list[Shown]) -> float | None:
    """Return the highest similarity of the first two faces on a frame that was drawn with both."""
    if len(drawn) < 2:
        return None
    both = drawn[0].keys() & drawn[1].keys()
    return max((float(drawn[0][frame].embedding @ drawn[1][frame].embedding) for frame in both), default=None)


def _ordered(plan: Plan, drawn: dict[int, list[Shown]]) -> Plan:
    identities, spares = dict(plan.identities), dict(plan.spares)
    for person, faces in drawn.items():
        codes = [plan.identities[person], *plan.spares[person]]
        best_first = sorted(range(len(faces)), key=lambda turn: _against(faces[turn]))
        identities[person], *rest = (codes[turn] for turn in (*best_first, *range(len(faces), len(codes))))
        spares[person] = tuple(rest)
    return replace(plan, identities=identities, spares=spares)
