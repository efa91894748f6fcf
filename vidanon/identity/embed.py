"""SFace: what a face recogniser sees. Used to link tracks and to choose faces that differ; memory only."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

import numpy as np

from vidanon.geometry import fit_similarity
from vidanon.models.thresholds import same_person
from vidanon.networks.runtime import network_from_file, shared, state_of_file
from vidanon.types import Float, UInt8

if TYPE_CHECKING:
    from vidanon.models.registry import ModelStore

SFACE_SAME_PERSON = same_person("sface")
"""Cosine similarity above which two faces count as one person (FAR 1e-3 on pairs of LFW)."""
CROP_PX = 112
# The five points of ArcFace (Deng et al. 2019, section 3.1) in a 112 px crop: eyes, nose tip, mouth corners,
# the one at the picture's left first.
TEMPLATE = np.array(
    [[38.2946, 51.6963], [73.5318, 51.5014], [56.0252, 71.7366], [41.5493, 92.3655], [70.7299, 92.2041]],
    np.float32,
)


def five_points(landmarks: Float) -> Float:
    """Return eyes, nose tip and mouth corners, float32 (5, 2), of a face mesh (478, 2)."""
    eyes = landmarks[[33, 362]] / 2 + landmarks[[133, 263]] / 2
    return np.concatenate([eyes, landmarks[[1, 61, 291]]]).astype(np.float32)


def aligned_crop(image: UInt8, landmarks: Float) -> UInt8:
    """Cut the five-point ArcFace crop of a face, uint8 RGB (112, 112, 3).

    Args:
        image: uint8 RGB (h, w, 3).
        landmarks: float32 (478, 2), pixels of ``image``.
    """
    import cv2

    crop_from_frame = fit_similarity(five_points(landmarks), TEMPLATE)
    crop = cv2.warpAffine(image, crop_from_frame, (CROP_PX, CROP_PX), flags=cv2.INTER_LINEAR)
    return np.asarray(crop, np.uint8)


class CropEmbedder:
    """A recogniser that takes the five-point crop; cosine similarity tells people apart.

    Args:
        models: where the model lies.
        workers: number of threads that will call.
        bfloat16: be faster and less exact, see :class:`vidanon.networks.runtime.OpenVinoNetwork`.

    Raises:
        ModelsError: the model is missing or unreadable.
    """

    MODEL: ClassVar[str]
    """Name in the registry."""

    def __init__(self, models: ModelStore, workers: int, bfloat16: bool = False) -> None:
        path = models.path(self.MODEL)
        key = (*state_of_file(path), workers, bfloat16)
        self._network = shared(key, lambda: network_from_file(path, "cpu", workers, bfloat16))

    def __call__(self, image: UInt8, landmarks: Float) -> Float:
        """Embed one face.

        Args:
            image: uint8 RGB (h, w, 3).
            landmarks: float32 (478, 2), pixels of ``image``.

        Returns:
            float32 (n,), unit length.
        """
        return self.of_crop(aligned_crop(image, landmarks))

    def of_crop(self, crop: UInt8) -> Float:
        """Embed what :func:`aligned_crop` cut, as the call does."""
        batch = np.ascontiguousarray(crop.transpose(2, 0, 1)[None], np.float32)
        vector = self._network(self._scaled(batch))[0][0]
        unit: Float = vector / max(float(np.linalg.norm(vector)), 1e-9)
        return unit

    def _scaled(self, crops: Float) -> Float:
        """Bring crops, 0..255, to the range of the network."""
        return crops


class SFace(CropEmbedder):
    """SFace (Zhong et al. 2021), 128 numbers per face."""

    MODEL = "sface"
