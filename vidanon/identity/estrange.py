"""Lead a new face further away from the source by what a recogniser sees of it in the source's place.

Hair, outline and light stay the source's, so that some people are recognised with any fictional face that
fits. How SFace's verdict on a composite changes with w is known, though: the generator, where its picture
comes to lie, how much of its contrast the colour match leaves, and SFace itself can all be differentiated.
So w is shifted, for the whole video by the same amount, until a few frames are safe, in the directions in
which w changes with the identity while the attributes stay. What is drawn is looked at anew every few steps,
so that nothing rests on the approximation. EdgeFace and dlib take no part.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import repeat
from typing import TYPE_CHECKING, NamedTuple

import cv2
import numpy as np

from vidanon.geometry import apply, compose, fit_similarity, invert, picture_from_unit
from vidanon.identity.bank import load_bank
from vidanon.identity.embed import CROP_PX, TEMPLATE, SFace, aligned_crop, five_points
from vidanon.identity.keep import BEARD, Latent
from vidanon.identity.searcher import Searcher, Task
from vidanon.identity.turn import turn_slopes
from vidanon.identity.views import evenly
from vidanon.stages.colour import LIGHT_SIGMA
from vidanon.stages.mesh import CONTROL, EYES, INNER_LIPS
from vidanon.stages.outline import face_width, filled_hull, grown, outline
from vidanon.stages.synthesize import as_input
from vidanon.stages.workers import worker_pool
from vidanon.types import Float, Scene, UInt8, View

if TYPE_CHECKING:
    from vidanon.models.registry import ModelStore

LIMITS = (0.28, 0.20, 0.12)
"""What SFace may see of the source in the frames looked at, by what was refused, and nudged since."""
AIMED_BELOW = 0.13
"""Frames are led so far below the limit if they can be: others are worse than those that are looked at."""
ROUNDS = 12
"""So often the result is looked at, at most."""
PROGRESS = 0.95
"""What two rounds have to bring the excess over the limit down to: sometimes nothing helps."""
DIRECTIONS, PEOPLE = 64, 192
"""So many directions are told from w of so many people."""
EXPRESSIONS, RAISED, TURNED_DEG = 16, 0.3, 5.0
"""So many directions are left out in which w changes most with expression and pose, as told by blendshapes
raised by so much and a head turned by so many degrees."""
BLUR, BLUR_PX = 0.5, (0.4, 3.0)
"""A pixel of the frame blurs by so much of its size in the crop, and that by no less and no more."""
SEAM_PX = 2.0
FEATURES_PX = 3.0
"""So far around eyes and teeth, in SFace's crop, nothing counts as skin."""

Scenes = Sequence[Scene]
"""Frames with the source, each with the track of this frame alone."""


class Placed(NamedTuple):
    """A new face in the source's place.

    Attributes:
        w: float32 (512,), what it was generated from.
        image: uint8 RGB (h, w, 3), a frame with the new face.
        generated: float32 (478, 2), its landmarks in its own picture, shares of the picture's side.
        target: float32 (478, 2), where they lie in the image, pixels.
    """

    w: Float
    image: UInt8
    generated: Float
    target: Float


Place = Callable[[int, Float], Placed | None]
"""Draws the new face, with w shifted by float32 (512,), on the scene of that number; None where it cannot."""


class Sight(NamedTuple):
    """A composite as SFace sees it.

    Attributes:
        source: float32 (128,), unit length, who is replaced.
        result: float32 (128,), unit length, the composite.
        w: float32 (512,), of the new face.
        crop: uint8 RGB (112, 112, 3), what SFace sees.
        alpha: float32 (112, 112), share of the new face in it, 0..1.
        skin: float32 (112, 112), where that is neither teeth nor eyes, 0..1.
        picture_from_crop: float32 (2, 3), from unit square to unit square.
        blur_px: standard deviation of what the frame's resolution leaves, in the crop.
        light_px: light coarser than this is the source's own.
    """

    source: Float
    result: Float
    w: Float
    crop: UInt8
    alpha: Float
    skin: Float
    picture_from_crop: Float
    blur_px: float
    light_px: float

    @property
    def likeness(self) -> float:
        """SFace similarity of source and composite."""
        return float(self.source @ self.result)


class Estranger:
    """Finds how w has to be shifted; safe to call from several threads.

    Args:
        models: where generator and SFace are.
        device: ``cpu`` or ``cuda``.
        workers: threads.

    Raises:
        ModelsError: a model is missing.
    """

    def __init__(self, models: ModelStore, device: str, workers: int) -> None:
        self._models, self._device, self._workers = models, device, workers
        self._embed = SFace(models, workers)

    def shift(
        self, place: Place, scenes: Scenes, wanted: Float, directions: Callable[[], Float], limit: float
    ) -> Float:
        """Find what has to be added to w so that SFace takes the new face for a stranger.

        Args:
            place: draws it; safe to call from several threads.
            scenes: where to look.
            wanted: float32 (128,), unit length, the fictional person.
            directions: returns those in which w may go, see :func:`identity_directions`; called where needed.
            limit: what SFace may see of the source in a scene.

        Returns:
            float32 (512,), the best that was drawn; 0 where the new face is a stranger as it is.
        """
        shift = best = np.zeros(load_bank().w.shape[1], np.float32)
        states: list[tuple[int, float]] = []

        def task() -> Task:
            return Task(self._models.root, self._device, self._workers, directions(), wanted)

        with worker_pool(self._workers) as pool, Searcher(task) as searcher:
            sources = list(pool.map(self._source, scenes))
            for number in range(1, ROUNDS + 1):
                looks = pool.map(
                    self._sight, range(len(scenes)), scenes, sources, repeat(place), repeat(shift)
                )
                sights = [sight for sight in looks if sight is not None]
                excess = sum(max(sight.likeness - limit, 0.0) for sight in sights)
                states.append((-len(sights), excess))
                if states[-1] <= min(states):
                    best = shift
                if excess == 0 or number == ROUNDS or not _gets_better(states):
                    break
                found = searcher.go_on(sights, limit - AIMED_BELOW)
                if found is None or not np.isfinite(found).all():  # or w was none that the generator knows
                    break
                shift = found
        return best

    def _source(self, scene: Scene) -> Float:
        frame, track = scene
        return self._embed(frame.image, track.landmarks[0].astype(np.float32))

    def _sight(self, number: int, scene: Scene, source: Float, place: Place, shift: Float) -> Sight | None:
        placed = place(number, shift)
        if placed is None:
            return None
        landmarks = scene[1].landmarks[0].astype(np.float32)
        crop_from_frame = fit_similarity(five_points(landmarks), TEMPLATE)
        points = list(CONTROL)
        unit_from_crop = invert(picture_from_unit(CROP_PX))
        target = apply(compose(unit_from_crop, crop_from_frame), placed.target)
        border = np.round(apply(crop_from_frame, outline(landmarks))).astype(np.int32)
        crop = aligned_crop(placed.image, landmarks)
        inside = cv2.fillPoly(np.zeros((CROP_PX, CROP_PX), np.float32), [border], 1.0)
        alpha = np.asarray(cv2.GaussianBlur(inside, (0, 0), SEAM_PX), np.float32)
        seen = apply(crop_from_frame, placed.target)
        half = len(EYES) // 2
        features = [
            filled_hull(seen[list(ids)], alpha.shape) for ids in (EYES[:half], EYES[half:], INNER_LIPS)
        ]
        return Sight(
            source=source,
            result=self._embed.of_crop(crop),
            w=placed.w,
            crop=crop,
            alpha=alpha,
            skin=alpha * (1 - grown(np.maximum.reduce(features), FEATURES_PX)),
            picture_from_crop=fit_similarity(target[points], placed.generated[points]),
            blur_px=float(np.clip(BLUR * np.hypot(*crop_from_frame[:, 0]), *BLUR_PX)),
            light_px=LIGHT_SIGMA * face_width(apply(crop_from_frame, landmarks)),
        )


def _gets_better(states: list[tuple[int, float]]) -> bool:
    """Say whether to go on: each state is the negative number of scenes drawn, and what exceeds the limit.

    A face that the gate no longer lets through in some scene has gone too far.
    """
    if states[-1][0] > states[0][0]:
        return False
    before, lately = states[:-2], states[-2:]
    least = min((excess for _, excess in before), default=np.inf)
    return min(excess for _, excess in lately) <= PROGRESS * least


def identity_directions(latent: Latent, view: View, asked: Float, kept: bool) -> Float:
    """Find the directions in which w tells people apart whose attributes are the same.

    What tells beard and glasses is always left out: where the hair of a chin fades, the shadow of the
    source's beard stays. A quarter of the spread lies in the 16 directions in which the mapper moves w most
    for another expression or pose.

    Args:
        latent: maps crop, identity, blendshapes and landmarks to w.
        view: whose attributes.
        asked: float32 (128,), unit length, the fictional person as the mapper is asked for it.
        kept: leave out what tells sex, age and ancestry too, and those of expression and pose.

    Returns:
        float32 (512, ``DIRECTIONS``), each as long as one standard deviation.
    """
    bank = load_bank()
    rows = evenly(range(len(bank.w)), PEOPLE)
    crop = as_input(view.crop)
    w = np.stack([latent(crop, bank.embeddings[row], view.blendshapes, view.landmarks) for row in rows])
    w -= w.mean(axis=0)
    labels = bank.labels[rows, 0 if kept else BEARD :]
    labels = labels - labels.mean(axis=0)
    w -= labels @ np.linalg.lstsq(labels, w, rcond=None)[0]
    fixed = bank.w_slopes[BEARD:].T
    if kept:
        fixed = np.hstack([fixed, expression_directions(latent, view, asked)])
    fixed, _ = np.linalg.qr(fixed)
    w -= w @ fixed @ fixed.T
    _, lengths, directions = np.linalg.svd(w, full_matrices=False)
    deviations = lengths[:DIRECTIONS] / np.sqrt(len(rows))
    return np.asarray(directions[:DIRECTIONS].T * deviations, np.float32)


def expression_directions(latent: Latent, view: View, asked: Float) -> Float:
    """Return those in which w of a person changes most with expression and pose, (512, n), orthonormal.

    Args:
        latent: maps crop, identity, blendshapes and landmarks to w.
        view: around whose attributes.
        asked: float32 (128,), unit length, the person: others move half in other directions.
    """
    crop = as_input(view.crop)
    at_rest = latent(crop, asked, view.blendshapes, view.landmarks)
    raised = view.blendshapes + RAISED * np.eye(len(view.blendshapes), dtype=np.float32)
    changes = [latent(crop, asked, blendshapes, view.landmarks) - at_rest for blendshapes in raised]
    _, _, directions = np.linalg.svd(np.stack([*changes, *turn_slopes() * TURNED_DEG]), full_matrices=False)
    return np.asarray(directions[:EXPRESSIONS].T, np.float32)
