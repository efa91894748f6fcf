"""What leads to each new face: found out when it is first asked for, and once in a run."""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping
from functools import cached_property
from typing import TYPE_CHECKING, Protocol, TypeVar

import numpy as np

from vidanon.identity.estrange import LIMITS, Estranger, Placed, Scenes, identity_directions
from vidanon.identity.keep import Aim, Keeper
from vidanon.identity.mien import Mien
from vidanon.identity.settle import Draw, Drawn, settle
from vidanon.identity.views import aligned, most_different
from vidanon.networks.runtime import resolve_device
from vidanon.stages.head_pose import HeadPose
from vidanon.stages.landmark import Landmarker
from vidanon.stages.synthesize import Synthesizer
from vidanon.types import Float, IdentityCode, Source

if TYPE_CHECKING:
    from vidanon.models.registry import ModelStore
    from vidanon.settings import Settings

KEEPER_EXIT_PX = 128
"""So large are the faces drawn whose looks are read, on 128 and 112 px; drawn larger, they read the same."""
SETTLE_SCENES = 8
"""In so many scenes, those most from the front, it is seen how a new face has to be settled."""
ESTRANGE_SCENES, WITH_FAILED = 5, 3
"""In so many, the most different ones, what a recogniser sees of the source; fewer where others failed."""
FEW_SCENES_MARGIN = 0.10
"""So much less of it in a single scene, as in still pictures: others of the same person may be nearer. Of 366
pairs of treated and untouched pictures of 100 people of LFW, SFace found 4.4 % at one false match in 100
without, and 2.2 % so, EdgeFace 3.8 and 3.3 %, dlib 1.1 % in both."""


class Stage(Protocol):
    """Draws a new face on scenes; safe to call from several threads."""

    def place(self, number: int) -> Placed | None:
        """Draw it on the scene of that number, and say where; None where it cannot be."""

    def draw(self, number: int) -> Drawn | None:
        """Draw it on the scene of that number; None where it cannot be."""


Build = Callable[[int, Scenes, Aim], Stage]
"""Returns what draws a person's new face on some scenes, led there as is said."""
Found = TypeVar("Found")


class Leads:
    """What leads to the new faces of a plan; safe to call from several threads.

    Args:
        sources: who is replaced, by person.
        synthesizer: makes w and pictures.
        landmarker: finds the faces in them.
        models: where the networks are that read them.
        settings: of the run.
    """

    def __init__(
        self,
        sources: Mapping[int, Source],
        synthesizer: Synthesizer,
        landmarker: Landmarker,
        models: ModelStore,
        settings: Settings,
    ) -> None:
        self._sources, self._synthesizer, self._landmarker = sources, synthesizer, landmarker
        self._models, self._runtime = models, settings.runtime
        self._drawn_with = repr(settings.render)
        self._aiming, self._settling = threading.Lock(), threading.Lock()

    def aim(self, person: int, code: IdentityCode, build: Build | None) -> Aim:
        """Return what leads to a new face that looks of the source's kind and is not taken for the source.

        Args:
            person: who is replaced.
            code: by whom.
            build: draws the face on scenes; None: it may be taken for the source there.
        """
        source = self._sources.get(person)
        with self._aiming:
            if source is None:
                return self._keeper.aim(code, None)
            kept = self._known(source, "kept", code, lambda: self._keeper.aim(code, source))
            if build is None:
                return kept

            def found() -> Aim:
                taken = self._keeper.nearer(kept, source.views)
                return self._estranged(person, code, source, taken, build)

            return self._known(source, "aim", code, found)

    def settled(self, person: int, code: IdentityCode, build: Build) -> Aim:
        """Return what leads to a new face, as :meth:`aim` does, that rests and is held as who it replaces."""
        aim, source = self.aim(person, code, build), self._sources.get(person)
        if source is None or not source.scenes:
            return aim
        aim = aim._replace(mien=Mien(usual=source.usual))
        scenes = source.scenes[:SETTLE_SCENES]

        def drawing(aim: Aim) -> Draw:
            return build(person, scenes, aim).draw

        def found() -> Aim:
            pose = HeadPose(self._models)
            return settle(aim, drawing, scenes, self._landmarker, pose, self._runtime.workers)

        with self._settling:
            return self._known(source, "settled", code, found)

    def _known(self, source: Source, what: str, code: IdentityCode, find: Callable[[], Found]) -> Found:
        """Return what was found of a new face in somebody's place, or find it."""
        key = what, *map(str, code.drawn_as), self._drawn_with
        if key not in source.found:
            source.found[key] = find()
        found: Found = source.found[key]
        return found

    @cached_property
    def _keeper(self) -> Keeper:
        """Made with the first aim, under its lock: where nobody is drawn its networks are not loaded."""
        self._synthesizer.prepare(KEEPER_EXIT_PX, "close-up")
        return Keeper(
            self._synthesizer.latent,
            lambda w: self._synthesizer.picture(w, KEEPER_EXIT_PX, "close-up"),
            self._landmarker,
            self._models,
            self._runtime,
        )

    @cached_property
    def _estranger(self) -> Estranger:
        device = resolve_device(self._runtime.device)
        return Estranger(self._models, device, self._runtime.workers)

    def _estranged(self, person: int, code: IdentityCode, source: Source, aim: Aim, build: Build) -> Aim:
        if not source.scenes:
            return aim
        shapes = np.stack([aligned(track, 0).ravel() for _, track in source.scenes])
        failed = [scene for scene in source.failed if scene[0].index in code.failed_at]
        rows = most_different(shapes, WITH_FAILED if failed else ESTRANGE_SCENES)
        scenes = [source.scenes[row] for row in rows] + failed

        def place(number: int, shift: Float) -> Placed | None:
            return build(person, scenes, aim.shifted(shift)).place(number)

        shift = self._estranger.shift(
            place,
            scenes,
            code.vector,
            lambda: identity_directions(
                self._synthesizer.latent, source.views[0], aim.asked, code.keeps_looks
            ),
            code.by_refusals(LIMITS, nudges=True) - _margin(len(source.scenes)),
        )
        return aim.shifted(shift)


def _margin(scenes: int) -> float:
    """Return how much less a recogniser may see of the source where there are only so many scenes."""
    return FEW_SCENES_MARGIN * max(ESTRANGE_SCENES - scenes, 0) / (ESTRANGE_SCENES - 1)


class Known:
    """The lead of one face that is drawn on scenes."""

    def __init__(self, aim: Aim) -> None:
        self._aim = aim

    def aim(self, person: int, code: IdentityCode, build: Build | None) -> Aim:
        """Return what leads to it."""
        return self._aim

    def settled(self, person: int, code: IdentityCode, build: Build) -> Aim:
        """Return the same: how it is settled is said when it is drawn."""
        return self._aim
