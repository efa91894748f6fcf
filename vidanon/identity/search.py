"""Where w goes so that SFace sees less of the source in a composite; see :mod:`vidanon.identity.estrange`."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from vidanon.networks.likeness import Likeness, contrast
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
            slopes = list(pool.map(lambda sight: self._slope(sight, aim), sights))
            # In the order of the composites, since sums depend on it.
            self._went.grad = torch.stack(slopes).mean(0) + 2 * STAY * self._went.detach()
            self._adam.step()
        shift: Float = (self._directions @ self._went.detach()).cpu().numpy()
        return shift

    def _slope(self, sight: Sight, aim: float) -> Tensor:
        """Return how what speaks against a composite changes with how far w goes, (n,)."""
        crop = self._tensor(sight.crop).permute(2, 0, 1)[None]
        alpha = self._tensor(sight.alpha)[None, None]
        further = torch.zeros_like(self._went, requires_grad=True)
        w = self._tensor(sight.w)[None] + self._directions @ further
        placed = self._tensor(sight.picture_from_crop)
        drawn = self._likeness.drawn(w, placed, alpha, sight.blur_px, sight.light_px)
        base = drawn.detach()
        changed = contrast(crop, base, alpha, sight.light_px) * alpha * (drawn - base)
        embedding = self._likeness.embedding(crop + changed)
        beyond = torch.relu(embedding @ self._tensor(sight.source) - aim)
        cost = beyond**2 / (2 * TOO_LIKE) - TOWARDS * embedding @ self._wanted
        (slope,) = torch.autograd.grad(cost, further)
        return slope

    def _tensor(self, values: Float | UInt8) -> Tensor:
        return torch.from_numpy(np.array(values, np.float32)).to(self._device)


@contextlib.contextmanager
def _one_thread_each() -> Iterator[None]:
    """Keep torch from starting threads: several call it, and sums depend on how many share them."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)
