"""Keep how somebody looks and holds the head: what the mapper loses of sex, age, beard and pose.

The nearest fictional person is often years younger or of another ancestry, and the mapper, which is asked
for an embedding that hardly shows a beard, gives bearded men stubble. So w is shifted, for the whole video by
the same amount, in the directions in which the latents of the bank change with their labels, by what is
missing in pictures of the new face. Fair brows, which do not go with dark hair that stays, are drawn darker:
a shift of w takes other things of the source along. And each new face nods and turns a little less or more
than the source, always by about the same angle, so that is seen and taken off in the same way. So is what the
mapper loses of the fictional person, see :mod:`vidanon.identity.reach`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from functools import partial
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from vidanon.geometry import apply, picture_from_unit
from vidanon.identity.away import led_away
from vidanon.identity.bank import load_bank
from vidanon.identity.embed import SFace
from vidanon.identity.look import LookEncoder
from vidanon.identity.mien import Mien
from vidanon.identity.reach import STEPS, reach_directions, responses, step, usual_shift
from vidanon.identity.shade import brow_depths, chin_shade
from vidanon.identity.turn import turn_slopes, turned_too_far
from vidanon.identity.within import FACE, FRAME, too_far
from vidanon.networks.runtime import resolve_device
from vidanon.stages.head_pose import HeadPose
from vidanon.stages.synthesize import W_SIZE, as_input
from vidanon.stages.workers import worker_pool
from vidanon.types import Float, IdentityCode, Source, UInt8, View

if TYPE_CHECKING:
    from vidanon.models.registry import ModelStore
    from vidanon.settings import RuntimeSettings
    from vidanon.stages.landmark import Landmarker

FREE = np.array([0.2, 0.1, 1.0, 0.3, 0.3, 0.3, 0.3, 0.1, 0.2], np.float32)
"""So far the labels may be off, in the order of `Bank.labels`; ancestry by this share of all.

What is made good leads nearer to the source. Whether somebody is a child is left to the age."""
ANCESTRY, BEARD, GLASSES = slice(3, 7), 7, 8
BEARDED = 0.4
"""From this label on a chin is taken to be dark of a beard; readers hardly tell stubble from a full one."""
SHADE_OF_BEARD = 1.0
"""A chin is some .5 less bright, beside the cheeks, under a full beard than bare; of twice that, two looks
close three quarters of a gap and do not overshoot."""
BEARD_KEPT = (0.5, 0.25, 0.1)
"""How much of the source's beard is kept, by what was refused, and nudged since. With half of it a beard
looks its own, but EdgeFace comes .12 nearer to the source, dlib .04: kept so after refusals as well, 68 of
driver_video1's 166 faces were masked in place of 22 (a third, no hairs), and 38 of driver_video3's 51 in
place of none."""
MOST_BROWS = 1.6
"""So many times further below the skin brows get at most. In 11 frames of the sample clip, with four faces,
1.4 brought dlib .015 nearer to the source, 2 .027, and some looked painted."""
BROWS_KEPT = (1.0, 0.5, 0.25)
"""So much of that is drawn, by what was refused, and nudged since."""
MOST_BARE, LEAST_WORN = 0.0, 1.3
"""How much of glasses w may show where the source wears none, and has to where it does; on five faces they
began to be seen at .7, but with .35 one man of ten still put some on to blink. Left alone, they came and went
with gaze and smile."""
LOOKS = 2
"""So often the new face is looked at. On 120 photographs of UTKFace the second look took the change of
ancestry from .22 to .19 (.40 without any) and the sex kept from 94 to 96 % (90)."""

Latent = Callable[[Float, Float, Float, Float], Float]
"""Maps crop, identity, blendshapes and landmarks to w, as `Synthesizer.latent` does."""


class Aim(NamedTuple):
    """What leads to a new face.

    Attributes:
        asked: float32 (128,), what the mapper is asked for.
        shift: float32 (512,), what is added to its w.
        mien: what is added to the expression that the mapper is told.
        bend: float32 (478, 2), what is added to its landmarks in unit crops, if anything.
        shape: float32 (478, 2), how far the source's lie from them on average, in unit crops, if known.
        brow_gain: what it is multiplied by how much darker than the skin the brows are, 1 or more.
        glasses: least and most that w may show of glasses, see :meth:`Bank.with_glasses`.
        beard: how much of the source's beard is kept in its place, 0..1.
        contrast: float32 (3,), how much more contrast the source has, see
            :func:`vidanon.stages.colour.contrast_between`; None: as each frame shows.
    """

    asked: Float
    shift: Float | float = 0.0
    mien: Mien = Mien()
    bend: Float | None = None
    shape: Float | None = None
    brow_gain: float = 1.0
    glasses: tuple[float, float] = (-np.inf, np.inf)
    beard: float = 0.0
    contrast: Float | None = None

    def lead(self, w: Float) -> Float:
        """Turn what the mapper makes of ``asked``, float32 (512,), into w of the new face, held within."""
        w = w + self.shift
        return load_bank().with_glasses(w - too_far(w, FRAME), *self.glasses)

    def shifted(self, shift: Float) -> Aim:
        """Return what leads to this face with w shifted by float32 (512,)."""
        return self._replace(shift=self.shift + shift)


class Keeper:
    """Finds out what leads to new faces that look of the same kind as those whom they replace.

    Args:
        latent: makes w.
        picture: makes the picture of w, uint8 RGB (size, size, 3).
        landmarker: finds the faces in pictures.
        models: where the networks are that read them.
        runtime: device and threads.
    """

    def __init__(
        self,
        latent: Latent,
        picture: Callable[[Float], UInt8],
        landmarker: Landmarker,
        models: ModelStore,
        runtime: RuntimeSettings,
    ) -> None:
        self._latent, self._picture, self._landmarker = latent, picture, landmarker
        self._embed = SFace(models, runtime.workers, bfloat16=True)  # it only has to say which way to go
        self._pose = HeadPose(models)
        self._look = LookEncoder(models, resolve_device(runtime.device), runtime.workers)
        self._workers = runtime.workers

    def aim(self, code: IdentityCode, source: Source | None) -> Aim:
        """Return what leads to a fictional person in place of ``source`` (None: unknown, nothing is kept)."""
        if source is None:
            return Aim(led_away(code, None))
        bank = load_bank()
        wanted = bank.read(source.embedding, source.look).labels
        bearded = bool(wanted[BEARD] > BEARDED)
        glasses = (LEAST_WORN, np.inf) if wanted[GLASSES] > 0.5 else (-np.inf, MOST_BARE)
        shade, brows = _means(map(_shades_in, source.views))
        asked, darker = led_away(code, source.embedding), 1.0
        shift = np.zeros(W_SIZE, np.float32)
        with worker_pool(self._workers) as pool:
            latents = list(pool.map(lambda view: self._mapped(view, asked), source.views))
            for look_number in range(LOOKS):
                led = list(map(Aim(asked, shift, glasses=glasses).lead, latents))
                seen = [x for x in pool.map(self._read, led, source.views) if x is not None]
                if not seen:
                    break  # the gate will not let such a face through
                embedding, look, chin, brow, turned = _means(seen)
                found = bank.read(embedding / np.linalg.norm(embedding), look).labels
                lacking = missing(wanted, found)
                if bearded:
                    lacking[BEARD] = max(lacking[BEARD], (chin - shade) / SHADE_OF_BEARD)
                if not code.keeps_looks:
                    lacking[:BEARD] = 0
                slopes = turn_slopes()
                shift = shift + lacking @ bank.w_slopes - turned[: len(slopes)] @ slopes
                if look_number == 0:
                    shift += usual_shift(asked - embedding)
                shift = _held(shift, latents)
                darker = float(np.clip(np.max(brows / np.maximum(brow, 1e-3)), 1, MOST_BROWS))
        gain = 1 + code.by_refusals(BROWS_KEPT, nudges=True) * (darker - 1)
        beard = code.by_refusals(BEARD_KEPT, nudges=True) if bearded else 0.0
        return Aim(asked, shift, brow_gain=gain, glasses=glasses, beard=beard)

    def nearer(self, aim: Aim, views: Sequence[View], begin: bool = False) -> Aim:
        """Return what leads to a face that shows more of who was asked for.

        Args:
            aim: what leads there so far.
            views: of who is replaced.
            begin: take the usual step first; :meth:`aim` has.
        """
        latents = [self._mapped(view, aim.asked) for view in views]
        with worker_pool(self._workers) as pool:
            for number in range(STEPS + begin):
                led = list(map(aim.lead, latents))
                seen = [x for x in pool.map(self._read, led, views) if x is not None]
                if not seen:
                    break  # the gate will not let such a face through
                lacking = aim.asked - np.mean([x[0] for x in seen], axis=0)
                if begin and number == 0:
                    shift = usual_shift(lacking)
                else:
                    response = responses(partial(self._embedding, views[0]), led[0], pool.map)
                    shift = reach_directions() @ step(response, lacking)
                aim = aim._replace(shift=_held(aim.shift + shift, latents))
        return aim

    def _embedding(self, view: View, w: Float) -> Float:
        picture = self._picture(w)
        return self._embed(picture, apply(picture_from_unit(len(picture)), view.landmarks))

    def _mapped(self, view: View, asked: Float) -> Float:
        return self._latent(as_input(view.crop), asked, view.blendshapes, view.landmarks)

    def _read(self, w: Float, view: View) -> tuple[Float, Float, float, Float, Float] | None:
        """Return embedding, look, shade of chin, depths of brows and false turn of what w shows, if any."""
        picture = self._picture(w)
        wanted = apply(picture_from_unit(len(picture)), view.landmarks)
        landmarks = self._landmarker.mesh_around(picture, wanted)
        if landmarks is None:
            return None
        seen = self._embed(picture, landmarks), self._look(picture, landmarks)
        turned = turned_too_far(landmarks, wanted, (len(picture),) * 2, self._pose)
        return *seen, chin_shade(picture, landmarks), brow_depths(picture, landmarks), turned


def missing(wanted: Float, found: Float) -> Float:
    """Return what has to be added to labels so that they are near enough to the wanted ones, float32 (9,).

    Args:
        wanted: float32 (9,), of the source.
        found: float32 (9,), of the new face.
    """
    gap = wanted - found
    over = np.sign(gap) * np.maximum(np.abs(gap) - FREE, 0)
    # The shares of ancestry change together, or the directions would say nothing.
    shares = gap[ANCESTRY] - gap[ANCESTRY].mean()
    far = max(float(np.abs(shares).sum()) / 2, 1e-6)
    over[ANCESTRY] = shares * max(0.0, 1 - float(FREE[ANCESTRY][0]) / far)
    return np.asarray(over, np.float32)


def _held(shift: Float, latents: Sequence[Float]) -> Float:
    """Return the shift with which a face is within, as it is on average in some views."""
    return shift - too_far(np.mean(latents, axis=0) + shift, FACE)


def _means(rows: Iterable[tuple[Float | float, ...]]) -> list[Float]:
    return [np.asarray(np.mean(column, axis=0), np.float32) for column in zip(*rows, strict=True)]


def _shades_in(view: View) -> tuple[float, Float]:
    """Return shade of the chin and depths of the brows."""
    landmarks = view.landmarks * np.float32(len(view.crop))
    return chin_shade(view.crop, landmarks), brow_depths(view.crop, landmarks)
