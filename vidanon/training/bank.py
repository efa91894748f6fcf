"""Make the bank of fictional people that ships with the package (``vidanon/models/weights/bank.npz``).

    python -m vidanon.training.bank --portraits portraits.npz --labelled-faces utkface --target bank.npz

Portraits are drawn from the frozen generator alone. Photographs (UTKFace, age and sex in the file name)
serve only to fit the probe that reads apparent age and sex off the portraits; neither they nor the probe
ship.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import cv2
import numpy as np

from vidanon.errors import InputError
from vidanon.networks.runtime import network_from_file
from vidanon.types import Float, UInt8

TRUNCATION = 0.7
MEAN_DRAWS = 4000
PICTURE_PX = 256
KEPT_PX = 128
SFACE_PX = 112
SAVE_EVERY = 50

# Regions of a portrait (x0, y0, x1, y1 of the unit crop): skin that hair and beard leave free, and not.
LEFT_CHEEK = (0.36, 0.58, 0.43, 0.65)
RIGHT_CHEEK = (0.57, 0.58, 0.64, 0.65)
FOREHEAD = (0.38, 0.22, 0.62, 0.33)
CHIN = (0.44, 0.79, 0.56, 0.85)

# The probe: embedding and texture side by side, ridge; best of a small grid by cross-validation.
TEXTURE_WEIGHT = 2.0
PROBE_RIDGE = 1.0
MIN_SEX_AGE = 10

# Where eyes, nose tip and mouth corners lie in a portrait of the generator (unit crop, measured over draws).
PORTRAIT_POINTS = np.array(
    [[0.378, 0.475], [0.620, 0.475], [0.499, 0.637], [0.386, 0.727], [0.613, 0.727]], np.float32
)
# The five points SFace is trained on, in its 112 px picture (InsightFace's ArcFace template).
SFACE_POINTS = np.array(
    [[38.2946, 51.6963], [73.5318, 51.5014], [56.0252, 71.7366], [41.5493, 92.3655], [70.7299, 92.2041]],
    np.float32,
)


class Models(Protocol):
    """Where model files are found by name (:class:`vidanon.models.registry.ModelStore`)."""

    def path(self, name: str) -> Path:
        """Return the file of the model ``name``."""
        ...


@dataclass(frozen=True, slots=True)
class Portraits:
    """Generated people.

    Attributes:
        w: float32 (n, 512), generator latents.
        embeddings: float32 (n, 128), unit length, SFace.
        pictures: uint8 RGB (n, 128, 128, 3), FFHQ alignment.
    """

    w: Float
    embeddings: Float
    pictures: UInt8


def similarity_fit(source: Float, target: Float) -> Float:
    """Return the least-squares similarity (2, 3) that maps points ``source`` (n, 2) to ``target`` (n, 2)."""
    x, y = source.T
    one, zero = np.ones_like(x), np.zeros_like(x)
    rows = np.concatenate([np.stack([x, -y, one, zero], 1), np.stack([y, x, zero, one], 1)])
    a, b, dx, dy = np.linalg.lstsq(rows, target.T.ravel(), rcond=None)[0]
    return np.array([[a, -b, dx], [b, a, dy]], np.float32)


def sface_crop(picture: UInt8, points: Float) -> Float:
    """Cut SFace's input, float32 (1, 3, 112, 112), RGB 0..255; ``points`` (5, 2) are picture pixels."""
    crop = cv2.warpAffine(
        picture, similarity_fit(points, SFACE_POINTS), (SFACE_PX, SFACE_PX), flags=cv2.INTER_LINEAR
    )
    return np.ascontiguousarray(crop.astype(np.float32).transpose(2, 0, 1)[None])


def draw_portraits(models: Models, count: int, seed: int, kept: Path) -> Portraits:
    """Draw ``count`` people; what ``kept`` holds already is taken from there, what is new is added to it."""
    mapping = network_from_file(models.path("generator-mapping"), workers=1)
    synthesis = network_from_file(models.path("generator-synthesis"), workers=1)
    sface = network_from_file(models.path("sface"), workers=1)
    random = np.random.default_rng(seed)
    mean = np.mean([mapping(z[None])[0][0] for z in _normal(random, MEAN_DRAWS)], axis=0)
    ws: list[Float] = []
    embeddings: list[Float] = []
    pictures: list[UInt8] = []
    if kept.is_file():
        with np.load(kept) as data:
            ws, embeddings, pictures = (list(data[name]) for name in ("w", "embeddings", "pictures"))
    points = PORTRAIT_POINTS * PICTURE_PX - 0.5
    for index, z in enumerate(_normal(random, count)):
        if index < len(ws):
            continue
        w = (mean + TRUNCATION * (mapping(z[None])[0] - mean)).astype(np.float32)
        picture = _picture(synthesis(w)[0][0])
        embedding = sface(sface_crop(picture, points))[0][0]
        ws.append(w[0])
        embeddings.append(embedding / np.linalg.norm(embedding))
        pictures.append(cv2.resize(picture, (KEPT_PX, KEPT_PX), interpolation=cv2.INTER_AREA))
        if len(ws) % SAVE_EVERY == 0 or len(ws) == count:
            np.savez(kept, w=np.stack(ws), embeddings=np.stack(embeddings), pictures=np.stack(pictures))
    return Portraits(np.stack(ws[:count]), np.stack(embeddings[:count]), np.stack(pictures[:count]))


def _normal(random: np.random.Generator, count: int) -> Iterator[Float]:
    for _ in range(count):
        yield random.standard_normal(512, dtype=np.float32)


def _picture(output: Float) -> UInt8:
    image = np.clip(output.transpose(1, 2, 0) * 127.5 + 127.5, 0, 255).astype(np.uint8)
    return cv2.resize(image, (PICTURE_PX, PICTURE_PX), interpolation=cv2.INTER_AREA)


def labelled_features(models: Models, folder: Path) -> tuple[Float, Float, Float]:
    """Return probe features (n, d), age in years (n,) and female 0/1 (n,) of ``age_sex_*.jpg`` pictures.

    Raises:
        InputError: no picture with a face was found.
    """
    sface = network_from_file(models.path("sface"), workers=1)
    detector = cv2.FaceDetectorYN.create(str(models.path("yunet")), "", (0, 0), 0.5)
    features, labels = [], []
    for path in sorted(folder.glob("*_*_*.jpg")):
        # A margin, because the detector misses faces that fill the picture.
        bgr = cv2.copyMakeBorder(cv2.imread(str(path)), 60, 60, 60, 60, cv2.BORDER_CONSTANT)
        detector.setInputSize((bgr.shape[1], bgr.shape[0]))
        faces = detector.detect(bgr)[1]
        if faces is None:
            continue
        points = max(faces, key=lambda face: face[-1])[4:14].reshape(5, 2)
        crop = sface_crop(cv2.cvtColor(bgr, cv2.COLOR_BGR2RGB), points)
        features.append(probe_features(crop, sface(crop)[0][0]))
        labels.append([float(part) for part in path.name.split("_")[:2]])
    if not features:
        raise InputError(f"{folder} holds no picture named age_sex_*.jpg with a face; check the folder")
    age, female = np.array(labels, np.float32).T
    return np.stack(features), age, female


def probe_features(crop: Float, embedding: Float) -> Float:
    """Return what the label probe looks at: the unit embedding and the texture (HOG) of SFace's crop."""
    descriptor = cv2.HOGDescriptor((SFACE_PX, SFACE_PX), (28, 28), (14, 14), (14, 14), 8)
    grey = cv2.cvtColor(crop[0].transpose(1, 2, 0).astype(np.uint8), cv2.COLOR_RGB2GRAY)
    texture = descriptor.compute(grey).ravel()
    texture *= TEXTURE_WEIGHT / np.linalg.norm(texture)
    return np.concatenate([embedding / np.linalg.norm(embedding), texture]).astype(np.float32)


def ridge_predict(known: Float, labels: Float, asked: Float) -> Float:
    """Fit kernel ridge regression to ``known`` (n, d) -> ``labels`` (n,) and predict for ``asked`` (m, d)."""
    mean = known.mean(axis=0)
    kernel = (known - mean) @ (known - mean).T + PROBE_RIDGE * np.eye(len(known))
    weights = (known - mean).T @ np.linalg.solve(kernel, labels - labels.mean())
    return ((asked - mean) @ weights + labels.mean()).astype(np.float32)


def region_lab(pictures: UInt8, region: tuple[float, float, float, float]) -> Float:
    """Return the median CIE L*a*b* (n, 3; L* 0..100) of a region of the unit crop."""
    x0, y0, x1, y1 = (round(edge * pictures.shape[1]) for edge in region)
    cut = np.ascontiguousarray(pictures[:, y0:y1, x0:x1]).astype(np.float32) / 255
    labs = [np.median(cv2.cvtColor(patch, cv2.COLOR_RGB2LAB).reshape(-1, 3), axis=0) for patch in cut]
    return np.array(labs, np.float32)


def label(portraits: Portraits, known: Float, age: Float, female: Float) -> dict[str, Float]:
    """Return the columns of the bank (see :class:`vidanon.identity.bank.Bank`)."""
    points = PORTRAIT_POINTS * KEPT_PX - 0.5
    asked = np.stack(
        [
            probe_features(sface_crop(picture, points), embedding)
            for picture, embedding in zip(portraits.pictures, portraits.embeddings, strict=True)
        ]
    )
    # Small children carry too few signs of their sex to teach the probe.
    grown = age >= MIN_SEX_AGE
    left, right = (region_lab(portraits.pictures, region) for region in (LEFT_CHEEK, RIGHT_CHEEK))
    cheeks = (left + right) / 2
    return {
        "w": portraits.w,
        "embeddings": portraits.embeddings,
        "female": np.clip(ridge_predict(known[grown], female[grown], asked), 0, 1),
        "age": np.clip(ridge_predict(known, age, asked), 0, 100),
        "skin_lab": cheeks,
        "fringe": np.linalg.norm(region_lab(portraits.pictures, FOREHEAD) - cheeks, axis=1),
        "beard": cheeks[:, 0] - region_lab(portraits.pictures, CHIN)[:, 0],
    }


def main() -> None:
    """Draw, label and write the bank."""
    from vidanon.models.registry import ModelStore

    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--portraits", type=Path, required=True, help="kept drawings; a stopped run goes on")
    parser.add_argument("--labelled-faces", type=Path, required=True, help="folder of age_sex_*.jpg")
    parser.add_argument("--target", type=Path, required=True, help="the bank, .npz")
    parser.add_argument("--people", type=int, default=1000)
    parser.add_argument("--seed", type=int, default=20240607)
    options = parser.parse_args()
    models = ModelStore()
    portraits = draw_portraits(models, options.people, options.seed, options.portraits)
    columns = label(portraits, *labelled_features(models, options.labelled_faces))
    np.savez_compressed(options.target, **{name: x.astype(np.float16) for name, x in columns.items()})


if __name__ == "__main__":
    main()
