"""Where w goes so that SFace sees less of the source in a composite; see :mod:`vidanon.identity.estrange`."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from vidanon.networks.likeness import Likeness, contrast, without_light
from vidanon.types import Float, UInt8

if TYPE_CHECKING:
    from vidanon.identity.estrange import Sight

RATE = 0.35
"""So far a step goes along every direction; after each the result is drawn anew."""
TOO_LIKE = 0.06
"""What is beyond the aim counts by its square, as the worst frame decides; so far beyond, it pulls by 1."""
TOWARDS = 0.5
"""By so much the fictional person pulls: two keys are to lead two ways."""
STAY = 0.005
"""What a change by a standard deviation costs."""
GLARE, GLARE_LEVELS, BRIGHT = 2.0, 20.0, 0.9
"""Hard light deceives SFace, and makes skin look like metal. By what pixels of the skin are brighter than
what surrounds them costs by its square, in so many levels, beyond what this share of them stayed below at
first. Where teeth and eyes counted as well, a mouth lost its teeth, and something white grew on the chin."""


class Search:
    """The shift that was found so far: Adam (Kingma and Ba 2015) along directions of w.

    Args:
        likeness: on any device.
        directions: float32 (512, n), each as long as one standard deviation.
        wanted: float32 (128,), unit length, the fictional person.
    """

    def __init__(self, likeness: Likeness, directions: Float, wanted: Float) -> None:
        self._likeness = likeness
        self._device = next(likeness.buffers()).device
        self._directions, self._wanted = self._tensor(directions), self._tensor(wanted)
        self._went = torch.zeros(directions.shape[1], device=self._device, requires_grad=True)
        self._adam = torch.optim.Adam([self._went], lr=RATE)
        self._bright: float | None = None

    def go_on(self, sights: list[Sight], aim: float, pool: ThreadPoolExecutor) -> Float:
        """Take a step from where the composites were drawn.

        Args:
            sights: of the composites, drawn with the last shift.
            aim: SFace similarity to the source that each is to come down to.
            pool: works on them.

        Returns:
            float32 (512,), the new shift.
        """
        with _one_thread_each():
            if self._bright is None:
                self._bright = max(map(self._brightness, sights))
            bright = self._bright
            slopes = list(pool.map(lambda sight: self._slope(sight, aim, bright), sights))
            # In the order of the composites, since sums depend on it.
            self._went.grad = torch.stack(slopes).mean(0) + 2 * STAY * self._went.detach()
            self._adam.step()
        shift: Float = (self._directions @ self._went.detach()).cpu().numpy()
        return shift

    def _brightness(self, sight: Sight) -> float:
        """Return what most pixels of the skin do not exceed their surroundings by, levels."""
        crop = self._tensor(sight.crop).permute(2, 0, 1)[None]
        alpha = self._tensor(sight.alpha)[None, None]
        skin = self._tensor(sight.skin)[None, None]
        return float(_relief(crop, alpha, sight.light_px)[skin > 0.5].quantile(BRIGHT))

    def _slope(self, sight: Sight, aim: float, bright: float) -> Tensor:
        """Return how what speaks against a composite changes with how far w goes, (n,)."""
        crop = self._tensor(sight.crop).permute(2, 0, 1)[None]
        alpha = self._tensor(sight.alpha)[None, None]
        further = torch.zeros_like(self._went, requires_grad=True)
        w = self._tensor(sight.w)[None] + self._directions @ further
        placed = self._tensor(sight.picture_from_crop)
        drawn = self._likeness.drawn(w, placed, alpha, sight.blur_px, sight.light_px)
        base = drawn.detach()
        changed = contrast(crop, base, alpha, sight.light_px) * alpha * (drawn - base)
        composite = crop + changed
        embedding = self._likeness.embedding(composite)
        beyond = torch.relu(embedding @ self._tensor(sight.source) - aim)
        cost = beyond**2 / (2 * TOO_LIKE) - TOWARDS * embedding @ self._wanted
        glare = torch.relu(_relief(composite, alpha, sight.light_px) - bright) / GLARE_LEVELS
        skin = self._tensor(sight.skin)[None, None]
        cost = cost + GLARE * (glare**2 * skin).sum() / skin.sum().clamp_min(1)
        (slope,) = torch.autograd.grad(cost, further)
        return slope

    def _tensor(self, values: Float | UInt8) -> Tensor:
        return torch.from_numpy(np.array(values, np.float32)).to(self._device)


def _relief(crop: Tensor, alpha: Tensor, light_px: float) -> Tensor:
    """Return how much brighter pixels of a crop (1, 3, h, w) are than what surrounds them, (1, 1, h, w)."""
    return without_light(crop, alpha, light_px).mean(1, keepdim=True)


@contextlib.contextmanager
def _one_thread_each() -> Iterator[None]:
    """Keep torch from starting threads: several call it, and sums depend on how many share them."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)
