"""Labelled photographs: what the readers of looks are measured on, and a few probes fitted on."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from vidanon.errors import InputError
from vidanon.geometry import compose, picture_from_unit, unit_crop_from_frame
from vidanon.identity.bank import ANCESTRIES
from vidanon.identity.embed import SFace
from vidanon.models.registry import ModelStore
from vidanon.stages.landmark import Landmarker
from vidanon.training.data import CROP_PX
from vidanon.training.faceres import FaceRes, read_all
from vidanon.types import Float, UInt8

# UTKFace's classes (White, Black, Asian, Indian, other) in terms of ANCESTRIES.
UTK_ANCESTRY = (0, 1, 2, 3, 3)
MARGIN_PX = 60
"""Added around a photograph: the detector misses faces that fill the picture."""


@dataclass(frozen=True, slots=True)
class Photographs:
    """Photographs of UTKFace, one row each.

    Attributes:
        pictures: uint8 RGB (n, 128, 128, 3), FFHQ alignment.
        features: float32 (n, 1024), of FaceRes.
        embeddings: float32 (n, 128), unit length, SFace.
        female: float32 (n,), 0 or 1.
        age: float32 (n,), years.
        ancestry: float32 (n, 4), one-hot.
    """

    pictures: UInt8
    features: Float
    embeddings: Float
    female: Float
    age: Float
    ancestry: Float


def read_photographs(models: ModelStore, faceres: FaceRes, folder: Path, half: int) -> Photographs:
    """Read every second of the pictures named ``age_sex_ancestry_*.jpg``.

    Args:
        models: where the networks are.
        faceres: reads their features.
        folder: of the pictures.
        half: 0 (what probes are fitted on) or 1 (what is measured on).

    Raises:
        InputError: a file is no picture, or no face was found at all.
    """
    detector = cv2.FaceDetectorYN.create(str(models.path("yunet")), "", (0, 0), 0.5)
    landmark, sface = Landmarker(models, workers=1), SFace(models, workers=1)
    pictures, embeddings, labels = [], [], []
    for path in sorted(folder.glob("*_*_*_*.jpg"))[half::2]:
        picture = cv2.imread(str(path))
        if picture is None:
            raise InputError(f"{path} is not a picture; remove it")
        wide = cv2.copyMakeBorder(picture, MARGIN_PX, MARGIN_PX, MARGIN_PX, MARGIN_PX, cv2.BORDER_REPLICATE)
        rgb = np.asarray(wide[..., ::-1], np.uint8, order="C")
        landmarks = _landmarks(rgb, detector, landmark)
        if landmarks is not None:
            pictures.append(aligned_portrait(rgb, landmarks))
            embeddings.append(sface(rgb, landmarks))
            labels.append([int(part) for part in path.name.split("_")[:3]])
    if not pictures:
        raise InputError(f"{folder} holds no picture named age_sex_ancestry_*.jpg with a face")
    age, female, classes = np.array(labels).T
    return Photographs(
        pictures=np.stack(pictures),
        features=read_all(faceres, np.stack(pictures))[0],
        embeddings=np.stack(embeddings),
        female=female.astype(np.float32),
        age=age.astype(np.float32),
        ancestry=np.eye(len(ANCESTRIES), dtype=np.float32)[np.array(UTK_ANCESTRY)[classes]],
    )


def _landmarks(rgb: UInt8, detector: Any, landmark: Landmarker) -> Float | None:
    """Return the mesh (478, 2) of the surest face, or None."""
    detector.setInputSize((rgb.shape[1], rgb.shape[0]))
    faces = detector.detect(np.ascontiguousarray(rgb[..., ::-1]))[1]
    if faces is None:
        return None
    x, y, width, height = max(faces, key=lambda face: face[-1])[:4]
    (mesh,) = landmark(rgb, [np.array([x, y, x + width, y + height], np.float32)])
    return None if mesh is None else mesh[0]


def aligned_portrait(rgb: UInt8, landmarks: Float) -> UInt8:
    """Cut a face out as portraits lie, uint8 RGB (128, 128, 3)."""
    picture_from_frame = compose(picture_from_unit(CROP_PX), unit_crop_from_frame(landmarks))
    return np.asarray(cv2.warpAffine(rgb, picture_from_frame, (CROP_PX, CROP_PX), flags=cv2.INTER_AREA))
