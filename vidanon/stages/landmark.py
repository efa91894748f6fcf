"""Face mesh and expression of a face whose box is known: MediaPipe's landmark networks, stateless.

The networks of ``face-landmarker.task`` run under OpenVINO, one call per face, so the same picture always
gives the same answer and any number of threads may call (MediaPipe's own graph keeps state and locks).
"""

from __future__ import annotations

import tempfile
import zipfile
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from vidanon.errors import ModelsError
from vidanon.geometry import apply, compose, invert, picture_from_unit
from vidanon.networks.runtime import Network, network_from_file, shared, state_of_file
from vidanon.types import LANDMARK_COUNT, Float, UInt8

if TYPE_CHECKING:
    from vidanon.models.registry import ModelStore

CROP_PX = 256
CROP_SCALE = 1.5  # side of the crop / long side of the face's box, as MediaPipe crops
TIGHT_SCALE = 1.25  # of a second crop: profiles, faces at the edge and dark ones are often found there
MAX_TILT_DEG = 10.0  # beyond this a mesh counts only if it is found again in a crop turned upright
FIRM_TILT_DEG = 30.0  # beyond this the detector's tilt is worth starting from; below, it only wavers
LOOKS = 3
"""Each look of these but the first is around the mesh that the one before saw. It leaves .4 of what a box
elsewhere makes different: blendshapes differ by .018 after one look, .007 after two, .003 after three."""
MIN_PRESENCE = 0.5
MIN_BOX_IOU = 0.25  # a mesh that covers less of the detection sits on something else
OUTER_EYE_CORNERS = (33, 263)
# The landmarks that the blendshape network takes (MediaPipe, face_blendshapes_graph.cc).
# fmt: off
BLENDSHAPE_IDS = (
    0, 1, 4, 5, 6, 7, 8, 10, 13, 14, 17, 21, 33, 37, 39, 40, 46, 52, 53, 54, 55, 58, 61, 63, 65, 66, 67, 70,
    78, 80, 81, 82, 84, 87, 88, 91, 93, 95, 103, 105, 107, 109, 127, 132, 133, 136, 144, 145, 146, 148, 149,
    150, 152, 153, 154, 155, 157, 158, 159, 160, 161, 162, 163, 168, 172, 173, 176, 178, 181, 185, 191, 195,
    197, 234, 246, 249, 251, 263, 267, 269, 270, 276, 282, 283, 284, 285, 288, 291, 293, 295, 296, 297, 300,
    308, 310, 311, 312, 314, 317, 318, 321, 323, 324, 332, 334, 336, 338, 356, 361, 362, 365, 373, 374, 375,
    377, 378, 379, 380, 381, 382, 384, 385, 386, 387, 388, 389, 390, 397, 398, 400, 402, 405, 409, 415, 454,
    466, 468, 469, 470, 471, 472, 473, 474, 475, 476, 477,
)
# fmt: on


def box_iou(a: Float, b: Float) -> float:
    """Return intersection over union of two boxes (x0, y0, x1, y1)."""
    width, height = np.minimum(a[2:], b[2:]) - np.maximum(a[:2], b[:2])
    inter = max(float(width), 0.0) * max(float(height), 0.0)
    union = float(np.prod(a[2:] - a[:2])) + float(np.prod(b[2:] - b[:2])) - inter
    return inter / union if union > 0 else 0.0


def mesh_box(landmarks: Float) -> Float:
    """Return the box (4,) around landmarks (478, 2)."""
    return np.concatenate([landmarks.min(axis=0), landmarks.max(axis=0)]).astype(np.float32)


def tilt_of_mesh(landmarks: Float) -> float:
    """Return how far a face is turned in the picture, radians, clockwise."""
    left, right = landmarks[list(OUTER_EYE_CORNERS)]
    return float(np.arctan2(right[1] - left[1], right[0] - left[0]))


def square_around(box: Float, angle: float, scale: float = CROP_SCALE) -> Float:
    """Return ``frame_from_unit`` of the square crop around a box, turned by ``angle`` (radians)."""
    centre = (box[:2] + box[2:]) / 2
    side = float((box[2:] - box[:2]).max()) * scale
    x = np.array([np.cos(angle), np.sin(angle)], np.float32) * side
    y = np.array([-x[1], x[0]], np.float32)
    return np.stack([x, y, centre - (x + y) / 2], axis=1).astype(np.float32)


def upright_square_around(landmarks: Float) -> Float:
    """Return ``frame_from_unit`` of the square crop around landmarks (478, 2) in which the eyes are level."""
    turn = tilt_of_mesh(landmarks)
    upright = np.array([[np.cos(turn), np.sin(turn), 0], [-np.sin(turn), np.cos(turn), 0]], np.float32)
    return compose(invert(upright), square_around(mesh_box(apply(upright, landmarks)), 0.0))


def cut_square(image: UInt8, frame_from_unit: Float, size_px: int, ends: bool = False) -> UInt8:
    """Cut a square (see :func:`square_around`), uint8 (size_px, size_px, 3).

    Outside the image its border goes on, or, where it ``ends``, all is black.
    """
    import cv2

    picture_from_frame = compose(picture_from_unit(size_px), invert(frame_from_unit))
    border = cv2.BORDER_CONSTANT if ends else cv2.BORDER_REPLICATE
    crop = cv2.warpAffine(image, picture_from_frame, (size_px, size_px), borderMode=border)
    return np.asarray(crop, np.uint8)


def _load(task: Path, names: tuple[str, ...], workers: int) -> list[Network]:
    """Load TFLite networks out of the zip; OpenVINO reads TFLite from files only."""
    with tempfile.TemporaryDirectory() as folder:
        try:
            with zipfile.ZipFile(task) as archive:
                files = [Path(archive.extract(name, folder)) for name in names]
        except (OSError, KeyError, zipfile.BadZipFile) as error:
            raise ModelsError(f"model file {task} cannot be read; run 'vidanon models fetch'") from error
        return [network_from_file(file, workers=workers) for file in files]


class Sight(NamedTuple):
    """A face as it was seen in one crop.

    Attributes:
        landmarks: float32 (478, 2), pixels.
        blendshapes: float32 (52,), 0..1.
        frame_from_unit: float32 (2, 3), the crop; the same place in another picture is read alike in it.
    """

    landmarks: Float
    blendshapes: Float
    frame_from_unit: Float


class Landmarker:
    """MediaPipe's face landmark and blendshape networks.

    Args:
        models: where ``face-landmarker`` lies.
        workers: number of threads that will call.

    Raises:
        ModelsError: the model is missing or unreadable.
    """

    def __init__(self, models: ModelStore, workers: int) -> None:
        names = ("face_landmarks_detector.tflite", "face_blendshapes.tflite")
        task = models.path("face-landmarker")
        key = (*state_of_file(task), workers)
        self._mesh, self._blendshapes = shared(key, lambda: _load(task, names, workers))

    def __call__(
        self, image: UInt8, boxes: list[Float], tilts: list[float] | None = None
    ) -> list[tuple[Float, Float] | None]:
        """Find mesh and expression in every box, as a detector gives it.

        Args:
            image: uint8 RGB (h, w, 3).
            boxes: float32 (4,) each, pixels.
            tilts: how far each face is turned in the picture, radians, clockwise; default upright.

        Returns:
            Per box ``(landmarks, blendshapes)``, float32 (478, 2) pixels and float32 (52,) in 0..1, or None
            where no face was found or the mesh sits elsewhere than the box.
        """
        tilts = [0.0] * len(boxes) if tilts is None else tilts
        found = (self.find(image, box, tilt) for box, tilt in zip(boxes, tilts, strict=True))
        return [None if sight is None else (sight.landmarks, sight.blendshapes) for sight in found]

    def find(self, image: UInt8, box: Float, tilt: float) -> Sight | None:
        """Look in a box, then around what was found there: so it matters little where the box lies.

        Detectors waver, and what one look reads with them: the blendshapes of a video and of its copy,
        encoded anew, differed by .016, and gaze followed at .69 (MEAD); read in one crop, by .002 and at .99.

        Args:
            image: uint8 RGB (h, w, 3).
            box: float32 (4,), pixels.
            tilt: how far the face is turned in the picture, radians, clockwise.
        """
        start = tilt if abs(np.degrees(tilt)) > FIRM_TILT_DEG else 0.0
        for scale in (CROP_SCALE, TIGHT_SCALE):
            crop = square_around(box, start, scale)
            landmarks, presence = self._look(image, crop)
            if box_iou(mesh_box(landmarks), box) < MIN_BOX_IOU:
                continue
            seen = self._closer(image, landmarks, box)
            if seen is not None:
                return seen
            off = abs(np.degrees(tilt_of_mesh(landmarks) - start))
            if presence >= MIN_PRESENCE and min(off, 360 - off) <= MAX_TILT_DEG:
                return Sight(*self._with_expression(landmarks), crop)
        return None

    def _closer(self, image: UInt8, landmarks: Float, box: Float) -> Sight | None:
        """Return what is seen around a first mesh, each time around what was seen before; None: no face."""
        crop = None
        for _ in range(LOOKS - 1):
            closer = upright_square_around(landmarks)
            mesh = self._mesh_in(image, closer, box)
            if mesh is None:
                break
            landmarks, crop = mesh, closer
        return None if crop is None else Sight(*self._with_expression(landmarks), crop)

    def around(self, image: UInt8, landmarks: Float) -> tuple[Float, Float] | None:
        """Find mesh and expression where a face is expected, with one look; returns as much as for one box.

        Args:
            image: uint8 RGB (h, w, 3).
            landmarks: float32 (478, 2), pixels: of this face nearby in time, or of another in its place.
        """
        return self.read(image, upright_square_around(landmarks), mesh_box(landmarks))

    def mesh_around(self, image: UInt8, landmarks: Float) -> Float | None:
        """Find a mesh, float32 (478, 2), as :meth:`around` does, without the expression."""
        return self._mesh_in(image, upright_square_around(landmarks), mesh_box(landmarks))

    def read(self, image: UInt8, frame_from_unit: Float, box: Float) -> tuple[Float, Float] | None:
        """Find mesh and expression in a crop; returns as much as for one box.

        Args:
            image: uint8 RGB (h, w, 3).
            frame_from_unit: float32 (2, 3), the square crop to look at, see :func:`upright_square_around`.
            box: float32 (4,), where the face must be, pixels.
        """
        landmarks = self._mesh_in(image, frame_from_unit, box)
        return None if landmarks is None else self._with_expression(landmarks)

    def _mesh_in(self, image: UInt8, frame_from_unit: Float, box: Float) -> Float | None:
        """Find a mesh, float32 (478, 2), in a crop; None where it shows no face, or one elsewhere."""
        landmarks, presence = self._look(image, frame_from_unit)
        found = presence >= MIN_PRESENCE and box_iou(mesh_box(landmarks), box) >= MIN_BOX_IOU
        return landmarks if found else None

    def _with_expression(self, landmarks: Float) -> tuple[Float, Float]:
        # The network wants pixel corners, not centres; it normalises position and size itself.
        (blendshapes,) = self._blendshapes(landmarks[None, list(BLENDSHAPE_IDS)] + np.float32(0.5))
        return landmarks, np.clip(blendshapes, 0, 1)

    def _look(self, image: UInt8, frame_from_unit: Float) -> tuple[Float, float]:
        """Return landmarks (478, 2) in frame pixels and the presence score (0..1) seen in one crop."""
        crop = cut_square(image, frame_from_unit, CROP_PX)
        points, presence, _ = self._mesh(crop[None].astype(np.float32) / 255)
        unit = (points.reshape(LANDMARK_COUNT, 3)[:, :2] / CROP_PX).astype(np.float32)
        return apply(frame_from_unit, unit), float(1 / (1 + np.exp(-presence.item())))
