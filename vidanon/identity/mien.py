"""What a new face always does too much or too little of: lids that hang, a pout, eyes that look aside.

The mapper follows an expression as it changes, but each new face rests otherwise than the one it replaces:
some look tired, or past the camera, through the whole video. By how much is seen in a few frames with the new
face, see :mod:`vidanon.identity.settle`, and the mapper is told of as much less from then on. Of smiles and
glances aside it passes on a part, so it is told of more than there is.
"""

from __future__ import annotations

from typing import NamedTuple, Self

import numpy as np

from vidanon.measures import SMILE, expression_signals
from vidanon.stages.mesh import EYE_CORNERS, IRIS_RINGS, IRISES
from vidanon.types import BLENDSHAPE_COUNT, Float

IRIS_PER_GAZE = np.array([-0.22, -0.10], np.float32)
"""How far irises move to the right and down, in widths of the eye, as blendshapes look left and up by 1."""
MORE_SMILE, MORE_GAZE = 0.5, np.array([0.5, 0.0], np.float32)
"""So much more of a smile, and of gaze across and up, is told than is unusual of the source."""
MOST = 0.3
"""No blendshape is told more or less by more: what the mapper has never seen closed the eyes of one face
whose lids hung."""


class Mien(NamedTuple):
    """What is added to what the mapper is told of an expression, through the whole video.

    Attributes:
        blendshapes: float32 (52,).
        irises: float32 (2,), to the right and down, in widths of the eye.
        usual: float32 (52,), the source's mean blendshapes; None: nothing is told of more than there is.
    """

    blendshapes: Float = np.zeros(BLENDSHAPE_COUNT, np.float32)
    irises: Float = np.zeros(2, np.float32)
    usual: Float | None = None

    def told(self, blendshapes: Float, landmarks: Float) -> tuple[Float, Float]:
        """Return what the mapper is told of blendshapes (52,) and landmarks (478, 2)."""
        shown, irises = blendshapes.copy(), self.irises
        if self.usual is not None:
            more, smile = blendshapes - self.usual, list(SMILE)
            shown[smile] = np.clip(shown[smile] + MORE_SMILE * more[smile], 0, 1)
            irises = irises + IRIS_PER_GAZE * MORE_GAZE * _gaze(more)
        moved = landmarks.copy()
        for iris, ring, (left, right) in zip(IRISES, IRIS_RINGS, EYE_CORNERS, strict=True):
            across = landmarks[right] - landmarks[left]
            down = np.array([-across[1], across[0]], np.float32)
            moved[[iris, *ring]] += irises[0] * across + irises[1] * down
        # Less the more of it is shown: lids that are raised at rest still close.
        return shown + self.blendshapes * (1 - shown), moved

    def mended(self, lacking: Float) -> Self:
        """Return it with what was lacking of blendshapes, float32 (52,), source less new face."""
        added = np.clip(self.blendshapes + lacking, -MOST, MOST).astype(np.float32)
        return self._replace(blendshapes=added, irises=self.irises + IRIS_PER_GAZE * _gaze(lacking))


def _gaze(blendshapes: Float) -> Float:
    """Return how far blendshapes (52,) look left and up, float32 (2,)."""
    signals = expression_signals(blendshapes[None])
    return np.concatenate([signals["gaze_x"], signals["gaze_y"]])
