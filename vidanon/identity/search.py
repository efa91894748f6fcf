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

STEPS, RATE = 2, 0.10
"""So many steps are taken before the result is drawn anew, each so far along every direction."""
TOWARDS = 0.5
"""What it counts to look like the fictional person, beside not to look like the source: two keys are to lead
two ways."""
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
        """Take ``STEPS`` steps from where the composites were drawn.

        Args:
            sights: of the composites, drawn with the last shift.
            aim: SFace similarity to the source that each is to come down to.
            pool: works on them.

        Returns:
            float32 (512,), the new shift.
        """
        with _one_thread_each():
            views = list(pool.map(self._view, sights))
            for _ in range(STEPS):
                slopes = list(pool.map(lambda view: view.slope(self._went.detach(), aim), views))
                # In the order of the composites, since sums depend on it.
                self._went.grad = torch.stack(slopes).mean(0) + 2 * STAY * self._went.detach()
                self._adam.step()
        shift: Float = (self._directions @ self._went.detach()).cpu().numpy()
        return shift

    def _view(self, sight: Sight) -> _View:
        return _View(self._likeness, sight, self._went.detach().clone(), self._directions, self._wanted)

    def _tensor(self, values: Float) -> Tensor:
        return torch.from_numpy(np.array(values, np.float32)).to(self._device)


class _View:
    """One composite and how it changes around the shift with which it was drawn."""

    def __init__(
        self, likeness: Likeness, sight: Sight, start: Tensor, directions: Tensor, wanted: Tensor
    ) -> None:
        def tensor(values: Float | UInt8) -> Tensor:
            return torch.from_numpy(np.array(values, np.float32)).to(start.device)

        self._likeness, self._start, self._directions, self._wanted = likeness, start, directions, wanted
        self._source, self._w = tensor(sight.source), tensor(sight.w)[None]
        self._crop = tensor(sight.crop).permute(2, 0, 1)[None]
        self._alpha, self._light_px, self._blur_px = (
            tensor(sight.alpha)[None, None],
            sight.light_px,
            sight.blur_px,
        )
        self._placed = tensor(sight.picture_from_crop)
        with torch.no_grad():
            self._base = self._drawn(start)
        self._contrast = contrast(self._crop, self._base, self._alpha, self._light_px)

    def _drawn(self, went: Tensor) -> Tensor:
        w = self._w + self._directions @ (went - self._start)
        return self._likeness.drawn(w, self._placed, self._alpha, self._blur_px, self._light_px)

    def slope(self, went: Tensor, aim: float) -> Tensor:
        """Return how what speaks against the composite changes with how far it went, (n,)."""
        went = went.clone().requires_grad_()
        changed = self._contrast * self._alpha * (self._drawn(went) - self._base)
        embedding = self._likeness.embedding(self._crop + changed)
        cost = torch.relu(embedding @ self._source - aim) - TOWARDS * embedding @ self._wanted
        (slope,) = torch.autograd.grad(cost, went)
        return slope


@contextlib.contextmanager
def _one_thread_each() -> Iterator[None]:
    """Keep torch from starting threads: several call it, and sums depend on how many share them."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)
