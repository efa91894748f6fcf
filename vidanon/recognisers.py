"""Face recognisers that judge the result and take no part in making it, with their thresholds."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from vidanon.errors import ModelsError
from vidanon.models.thresholds import same_person
from vidanon.networks.converted import Recipe, shared_network
from vidanon.types import Float, UInt8

if TYPE_CHECKING:
    from torch import nn

    from vidanon.models.registry import ModelStore

DLIB_SAME_PERSON = same_person("dlib")
"""Euclidean distance below which two faces count as one person (FAR 1e-3 on pairs of LFW)."""

# dlib's five points: outer and inner corner of the eye on the right of the picture, the same on the left,
# then the base of the nose. Mesh indices first, dlib's mean face (unit square without padding) second.
_CHIP_POINT_IDS = (263, 362, 33, 133, 2)
_CHIP_POINTS = np.array(
    [
        [0.8595674595992, 0.2134981538014],
        [0.6460604764104, 0.2289674387677],
        [0.1205750620789, 0.2137274526848],
        [0.3340850613712, 0.2290642403242],
        [0.4901123135679, 0.6277975316475],
    ]
)
_CHIP_PADDING = 0.25
_CHIP_PX = 150


def recipe(models: ModelStore) -> Recipe:
    """Return how dlib's network is made.

    Raises:
        ModelsError: the model file is missing.
    """
    weights = models.path("dlib-resnet")

    def build() -> nn.Module:
        from vidanon.networks.dlib_resnet import load_dlib_net

        return load_dlib_net(weights)

    example = (np.zeros((1, 3, _CHIP_PX, _CHIP_PX), np.float32),)
    return Recipe("dlib-resnet", build, example, (weights,))


class DlibResNet:
    """dlib's ResNet v1 face recogniser (King 2017), for the audit only; safe to call from several threads.

    dlib cuts the aligned picture; its network runs as the others do, which gives the same descriptors.

    Args:
        models: where ``dlib-resnet`` lies.
        workers: number of threads that will call.

    Raises:
        ModelsError: dlib is not installed, or the model file is missing.
    """

    def __init__(self, models: ModelStore, workers: int = 2) -> None:
        try:
            import dlib
        except ImportError as error:
            raise ModelsError("dlib is missing; install it with 'pip install dlib-bin'") from error
        self._dlib: Any = dlib
        self._network = shared_network(recipe(models), models.converted, workers=workers)

    def __call__(self, image: UInt8, landmarks: Float) -> Float:
        """Return the descriptor of one face.

        Args:
            image: uint8 RGB (height, width, 3).
            landmarks: float32 (478, 2), face mesh, pixels.

        Returns:
            float32 (128,), compared by Euclidean distance.
        """
        chip = self.chip(image, landmarks).transpose(2, 0, 1)[None]
        return np.asarray(self._network(chip.astype(np.float32))[0][0], np.float32)

    def chip(self, image: UInt8, landmarks: Float) -> UInt8:
        """Return the aligned picture that the recogniser sees, uint8 RGB (150, 150, 3)."""
        dlib = self._dlib
        targets = (_CHIP_POINTS + _CHIP_PADDING) / (1 + 2 * _CHIP_PADDING) * _CHIP_PX
        chip_points, image_points = dlib.dpoints(), dlib.dpoints()
        for target, point in zip(targets, landmarks[list(_CHIP_POINT_IDS)], strict=True):
            chip_points.append(dlib.dpoint(*map(float, target)))
            image_points.append(dlib.dpoint(*map(float, point)))
        details = dlib.chip_details(chip_points, image_points, dlib.chip_dims(_CHIP_PX, _CHIP_PX))
        chip: UInt8 = dlib.extract_image_chip(np.ascontiguousarray(image), details)
        return chip
