"""How a face looks, as numbers that the readers of the bank take (:meth:`Bank.read`). Memory only."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from vidanon.geometry import unit_crop_from_frame
from vidanon.models.registry import ModelStore, weights_path
from vidanon.networks.converted import Recipe, shared_network
from vidanon.stages.synthesize import CROP_PX, crop_face
from vidanon.types import Float, UInt8

if TYPE_CHECKING:
    from torch import nn


def recipe() -> Recipe:
    """Return how the network is made."""

    def build() -> nn.Module:
        from vidanon.networks.look_reader import load_look_net

        return load_look_net()

    example = (np.zeros((1, 3, CROP_PX, CROP_PX), np.float32),)
    return Recipe("looks", build, example, (weights_path("looks.safetensors"),))


class LookEncoder:
    """Describes looks; safe to call from several threads.

    Args:
        models: where converted networks are kept.
        device: ``cpu`` or ``cuda``.
        workers: number of threads that will call.
    """

    def __init__(self, models: ModelStore, device: str, workers: int) -> None:
        self._network = shared_network(recipe(), models.converted, device, workers)

    def __call__(self, image: UInt8, landmarks: Float) -> Float:
        """Return the features of a face, float32 (256,); means over frames can be read as well.

        Args:
            image: uint8 RGB (h, w, 3).
            landmarks: float32 (478, 2), pixels of ``image``.
        """
        return self.crop(crop_face(image, unit_crop_from_frame(landmarks)))

    def crop(self, crop: Float) -> Float:
        """Return the features of a crop, float32 (3, 128, 128) in [-1, 1], FFHQ alignment."""
        return np.asarray(self._network(crop[None])[0][0], np.float32)
