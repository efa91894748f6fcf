"""How a head is turned, read off its landmarks."""

from __future__ import annotations

import zipfile
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from vidanon.errors import ModelsError
from vidanon.types import Float

if TYPE_CHECKING:
    from vidanon.models.registry import ModelStore


class HeadPose:
    """Head rotation from face landmarks by MediaPipe's canonical face and a pinhole camera.

    Attributes:
        points: float32 (468, 3), of the canonical face, see :func:`canonical_face`.
    """

    def __init__(self, models: ModelStore) -> None:
        self.points = canonical_face(models.path("face-landmarker"))
        # The points that hardly move with expression: brow ridge, eye corners, nose bridge and base, temples.
        self._ids = [6, 168, 197, 195, 5, 4, 2, 98, 327, 33, 133, 263, 362, 127, 356, 234, 454, 10, 67, 297]

    def __call__(self, landmarks: Float, width: int, height: int) -> Float:
        """Return the rotation (3, 3), camera axes (x right, y down, z away) from canonical face axes."""
        import cv2

        # MediaPipe's own camera: 63 degrees vertical field of view.
        focal = height / (2 * np.tan(np.radians(63 / 2)))
        camera = np.array([[focal, 0, width / 2], [0, focal, height / 2], [0, 0, 1]])
        model, seen = self.points[self._ids].astype(np.float64), landmarks[self._ids].astype(np.float64)
        found, turn, shift = cv2.solvePnP(model, seen, camera, None, flags=cv2.SOLVEPNP_SQPNP)
        if not found:  # landmarks as no face has them: start as from the front
            away = focal * np.ptp(model[:, 1]) / max(np.ptp(seen[:, 1]), 1.0)
            turn, shift = np.zeros(3), np.array([0, 0, away])
        _, turn, _ = cv2.solvePnP(model, seen, camera, None, turn, shift, True, cv2.SOLVEPNP_ITERATIVE)
        return np.asarray(cv2.Rodrigues(turn)[0], np.float32)


def canonical_face(bundle: Path) -> Float:
    """Read the canonical face mesh from a MediaPipe face landmarker bundle.

    Returns:
        float32 (468, 3), centimetres, x right, y down, z away from the camera (a frontal face is identity).

    Raises:
        ModelsError: the bundle holds no face geometry.
    """
    with zipfile.ZipFile(bundle) as archive:
        blob = archive.read("geometry_pipeline_metadata_landmarks.binarypb")
    # Mesh3d.vertex_buffer: 468 x (x, y, z, u, v), each a protobuf tag byte (field 3, 32 bit) and a float.
    entry = np.dtype([("tag", "u1"), ("value", "<f4")])
    start = blob.find(b"\x1d")
    values = np.frombuffer(blob, entry, 468 * 5, max(start, 0))
    if start < 0 or (values["tag"] != 0x1D).any():
        raise ModelsError(f"{bundle}: no face geometry inside; run 'vidanon models fetch face-landmarker'")
    points: Float = values["value"].reshape(468, 5)[:, :3] * np.array([1, -1, -1], np.float32)
    return points


def angle_deg(first: Float, second: Float) -> float:
    """Return the angle between two rotations (3, 3), degrees."""
    cosine = (float(np.trace(first.T @ second)) - 1) / 2
    return float(np.degrees(np.arccos(np.clip(cosine, -1, 1))))
