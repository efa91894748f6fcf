"""Make the bank of fictional people that ships with the package (``vidanon/models/weights/bank.npz``).

    python -m vidanon.training.bank --portraits portraits.npz --labelled-faces utkface --target bank.npz

Portraits are drawn from the frozen generator alone. Apparent sex and childhood spread from portraits read by
eye; photographs (UTKFace, age in the file name) serve only to fit the probe that reads apparent age off the
portraits. Neither they nor the probe ship.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import cv2
import numpy as np

from vidanon.errors import InputError
from vidanon.geometry import fit_similarity
from vidanon.identity.bank import look
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
LOOK_RIDGE = 3.0

# The first portraits of SEED, read by eye: m, f = man, woman; b, g, c = boy, girl, child; ? = cannot tell.
SEED = 20240607
READ_BY_EYE = (
    "fmfmmfffmmff?ff?m?ffffmf?fb?mmffmfmmfmfff??gmffff?ffmfmfffbfg?mffmfmffmf??mfmmmfmmgffffmfmff?mcf"
    "?fgcfgfmfmfff?mfbbfffgffgfmfmfffmfmgmmbmffmffbmfmfm?mmmfmfmm?fbmfgf?fbmf?mf?mfffgf?fmfmffffmfgfm"
    "mfmfmmgfmmffmmm?mmfmfmmmfcfgmffffmmfm??mfmffffmfmfmmmffm?gfbmcmffmm?mffmffmmbmmf?mmmmgmfmfffffff"
    "mmff?mfgfffccmmfffmfmmf?fmmffmmfffmfm??mbfffmm?fffffbmcmffmmmmfg?ffgfm?mf?mgfffffffgmfmfffgm?mgf"
)
CHILD_SCORE = 0.35
MAX_CHILD_YEARS = 12.0
MIN_ADULT_YEARS = 16.0

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


def sface_crop(picture: UInt8, points: Float) -> Float:
    """Cut SFace's input, float32 (1, 3, 112, 112), RGB 0..255; ``points`` (5, 2) are picture pixels."""
    crop = cv2.warpAffine(
        picture, fit_similarity(points, SFACE_POINTS), (SFACE_PX, SFACE_PX), flags=cv2.INTER_LINEAR
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
        pictures.append(_resized(picture, KEPT_PX))
        if len(ws) % SAVE_EVERY == 0 or len(ws) == count:
            np.savez(kept, w=np.stack(ws), embeddings=np.stack(embeddings), pictures=np.stack(pictures))
    return Portraits(np.stack(ws[:count]), np.stack(embeddings[:count]), np.stack(pictures[:count]))


def _normal(random: np.random.Generator, count: int) -> Iterator[Float]:
    for _ in range(count):
        yield random.standard_normal(512, dtype=np.float32)


def _picture(output: Float) -> UInt8:
    image = np.clip(output.transpose(1, 2, 0) * 127.5 + 127.5, 0, 255).astype(np.uint8)
    return _resized(image, PICTURE_PX)


def _resized(image: UInt8, size: int) -> UInt8:
    return np.asarray(cv2.resize(image, (size, size), interpolation=cv2.INTER_AREA), np.uint8)


def labelled_features(models: Models, folder: Path) -> tuple[Float, Float]:
    """Return probe features (n, d) and age in years (n,) of pictures named ``age_*.jpg``.

    Raises:
        InputError: no picture with a face was found, or a file is no picture.
    """
    sface = network_from_file(models.path("sface"), workers=1)
    detector = cv2.FaceDetectorYN.create(str(models.path("yunet")), "", (0, 0), 0.5)
    features, ages = [], []
    for path in sorted(folder.glob("*_*.jpg")):
        # A margin, because the detector misses faces that fill the picture.
        picture = cv2.imread(str(path))
        if picture is None:
            raise InputError(f"{path} is not a picture; remove it")
        bgr = cv2.copyMakeBorder(picture, 60, 60, 60, 60, cv2.BORDER_CONSTANT)
        detector.setInputSize((bgr.shape[1], bgr.shape[0]))
        faces = detector.detect(bgr)[1]
        if faces is None:
            continue
        points = max(faces, key=lambda face: face[-1])[4:14].reshape(5, 2)
        crop = sface_crop(np.asarray(cv2.cvtColor(bgr, cv2.COLOR_BGR2RGB), np.uint8), points)
        features.append(probe_features(crop, sface(crop)[0][0]))
        ages.append(float(path.name.split("_")[0]))
    if not features:
        raise InputError(f"{folder} holds no picture named age_*.jpg with a face; check the folder")
    return np.stack(features), np.array(ages, np.float32)


def probe_features(crop: Float, embedding: Float) -> Float:
    """Return what the label probe looks at: the unit embedding and the texture (HOG) of SFace's crop."""
    descriptor = cv2.HOGDescriptor((SFACE_PX, SFACE_PX), (28, 28), (14, 14), (14, 14), 8)
    grey = cv2.cvtColor(crop[0].transpose(1, 2, 0).astype(np.uint8), cv2.COLOR_RGB2GRAY)
    texture = np.asarray(descriptor.compute(grey)).ravel()
    texture *= TEXTURE_WEIGHT / np.linalg.norm(texture)
    return np.concatenate([embedding / np.linalg.norm(embedding), texture]).astype(np.float32)


def ridge_predict(known: Float, labels: Float, asked: Float) -> Float:
    """Fit kernel ridge regression to ``known`` (n, d) -> ``labels`` (n,) and predict for ``asked`` (m, d)."""
    mean = known.mean(axis=0)
    kernel = (known - mean) @ (known - mean).T + PROBE_RIDGE * np.eye(len(known))
    weights = (known - mean).T @ np.linalg.solve(kernel, labels - labels.mean())
    return np.asarray((asked - mean) @ weights + labels.mean(), np.float32)


def region_lab(pictures: UInt8, region: tuple[float, float, float, float]) -> Float:
    """Return the median CIE L*a*b* (n, 3; L* 0..100) of a region of the unit crop."""
    x0, y0, x1, y1 = (round(edge * pictures.shape[1]) for edge in region)
    cut = np.ascontiguousarray(pictures[:, y0:y1, x0:x1]).astype(np.float32) / 255
    labs = [np.median(cv2.cvtColor(patch, cv2.COLOR_RGB2LAB).reshape(-1, 3), axis=0) for patch in cut]
    return np.array(labs, np.float32)


def spread(embeddings: Float, yes: str, no: str) -> Float:
    """Return 0..1 (n,): portraits read by eye as one of ``yes`` are 1, of ``no`` 0, the others predicted."""
    marks = np.array(list(READ_BY_EYE))[: len(embeddings)]
    rows = np.flatnonzero(np.isin(marks, list(yes + no)))
    truth = np.isin(marks[rows], list(yes)).astype(np.float32)
    scores = np.clip(ridge_predict(embeddings[rows], truth, embeddings), 0, 1)
    scores[rows] = truth
    return scores


def fit_look_reader(looks: Float, labels: Float) -> Float:
    """Return ridge weights (1569,), the last for a constant 1: looks (n, 1568) to labels (n,)."""
    mean = looks.mean(axis=0)
    kernel = (looks - mean) @ (looks - mean).T + LOOK_RIDGE * np.eye(len(looks))
    weights = (looks - mean).T @ np.linalg.solve(kernel, labels - labels.mean())
    return np.append(weights, labels.mean() - mean @ weights).astype(np.float32)


def label(portraits: Portraits, known: Float, age: Float) -> dict[str, Float]:
    """Return the columns of the bank (see :class:`vidanon.identity.bank.Bank`)."""
    points = PORTRAIT_POINTS * KEPT_PX - 0.5
    crops = [sface_crop(picture, points) for picture in portraits.pictures]
    asked = np.stack([probe_features(*pair) for pair in zip(crops, portraits.embeddings, strict=True)])
    looks = np.stack([look(crop[0].transpose(1, 2, 0).astype(np.uint8)) for crop in crops])
    child = spread(portraits.embeddings, yes="bgc", no="mf") > CHILD_SCORE
    years = np.clip(ridge_predict(known, age, asked), 0, 100)
    years = np.where(child, np.minimum(years, MAX_CHILD_YEARS), np.maximum(years, MIN_ADULT_YEARS))
    female = spread(portraits.embeddings, yes="fg", no="mb")
    left, right = (region_lab(portraits.pictures, region) for region in (LEFT_CHEEK, RIGHT_CHEEK))
    cheeks = (left + right) / 2
    return {
        "w": portraits.w,
        "embeddings": portraits.embeddings,
        "female": female,
        "age": years,
        "skin_lab": cheeks,
        "fringe": np.linalg.norm(region_lab(portraits.pictures, FOREHEAD) - cheeks, axis=1),
        "beard": cheeks[:, 0] - region_lab(portraits.pictures, CHIN)[:, 0],
        "look_reader": fit_look_reader(looks, female),
    }


def main() -> None:
    """Draw, label and write the bank."""
    from vidanon.models.registry import ModelStore

    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--portraits", type=Path, required=True, help="kept drawings; a stopped run goes on")
    parser.add_argument("--labelled-faces", type=Path, required=True, help="folder of age_*.jpg")
    parser.add_argument("--target", type=Path, required=True, help="the bank, .npz")
    parser.add_argument("--people", type=int, default=1000)
    parser.add_argument("--seed", type=int, default=SEED)
    options = parser.parse_args()
    models = ModelStore()
    portraits = draw_portraits(models, options.people, options.seed, options.portraits)
    columns = label(portraits, *labelled_features(models, options.labelled_faces))
    halves: dict[str, Any] = {name: x.astype(np.float16) for name, x in columns.items()}
    np.savez_compressed(options.target, **halves)


if __name__ == "__main__":
    main()
