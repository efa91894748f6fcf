r"""Make the bank of fictional people that ships with the package (``vidanon/models/weights/bank.npz``).

    python -m vidanon.training.bank --samples runs/train/data/drawn --faceres models/faceres.json \
        --labelled-faces utkface --target bank.npz

Portraits are the drawn samples of ``vidanon train``. Their labels are read by FaceRes, by probes fitted on
every second photograph of UTKFace (``age_sex_ancestry_*.jpg``; the others are left for measuring) and by eye.
Neither photographs nor FaceRes nor the probes ship: labels of generated portraits do, and readers of looks
fitted on the portraits alone.
"""

from __future__ import annotations

import argparse
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt

from vidanon.errors import InputError
from vidanon.geometry import compose, picture_from_unit, unit_crop_from_frame
from vidanon.identity.bank import ADULT_YEARS, ANCESTRIES, LOOK_WEIGHT, look
from vidanon.identity.embed import SFace, aligned_crop
from vidanon.models.registry import ModelStore
from vidanon.plan import skin_tone
from vidanon.stages.landmark import Landmarker
from vidanon.training.data import CROP_PX, Samples, load_samples
from vidanon.training.faceres import FaceRes
from vidanon.training.read_by_eye import BEARDED, PORTRAITS, WITH_GLASSES
from vidanon.types import Float, UInt8

Rows = npt.NDArray[np.intp]
BATCH = 16

# Patches of the mesh: cheeks, forehead, and the skin around the eyes (dark under sunglasses).
CHEEKS = (50, 280, 205, 425)
FOREHEAD = (67, 297, 10, 109, 338)
AROUND_EYES = (230, 450, 223, 443)
SIDES, NOSE = (234, 454), 1

MIN_FRONTAL = 0.55
MAX_UNUSUAL = 0.97
"""Share of the samples that is kept, by distance from the mean of whitened w: the rest tends to artefacts."""
SUNGLASSES_LAB = 28.0
MAX_FRINGE_LAB = 22.0
MAX_ALIKE = 0.6
MAX_ALIKE_RARE = 0.7
"""SFace similarity of two people of the bank; thin groups may come closer to fill up."""
OLD_YEARS = 55.0
DOUBTFUL_SEX = 0.2
"""Adults whose sex score lies this near to one half are left out: of the others, 99 % are read as by eye."""
SKIN_DARK_L = 48.0

PROBE_RIDGE = 3.0
FEATURE_LENGTH = 3.0
TRAIT_RIDGE = 3.0
LOOK_PROBE_RIDGE = 1.0
READER_RIDGE = 1.0
AGE_STRETCH = 1.5
AGE_MIDDLE = 0.25
AGE, TRAITS = 1, 7
"""Columns of the labels: age, and the first that is no matter of sex, age or ancestry."""
# UTKFace's classes (White, Black, Asian, Indian, other) in terms of ANCESTRIES.
UTK_ANCESTRY = (0, 1, 2, 3, 3)
EYE_ANCESTRY = "wbeo"


@dataclass(frozen=True, slots=True)
class Looks:
    """What the portraits look like, one row each.

    Attributes:
        readable: float32 (n, 1696), embedding and look as the readers take them.
        skin_lab: float32 (n, 3), as the pipeline measures it on a source.
        fringe: float32 (n,), Lab distance between forehead and cheeks.
        usable: (n,), frontal, no sunglasses, not far out in W.
    """

    readable: Float
    skin_lab: Float
    fringe: Float
    usable: npt.NDArray[np.bool_]


def describe(samples: Samples) -> Looks:
    """Measure all portraits."""
    points = [face * CROP_PX - np.float32(0.5) for face in samples.landmarks.astype(np.float32)]
    pairs = list(zip(samples.pictures, points, strict=True))
    looks = np.stack([look(aligned_crop(*pair)) for pair in pairs])
    cheeks, forehead, eyes = (
        np.stack([_patch_lab(*pair, ids) for pair in pairs]) for ids in (CHEEKS, FOREHEAD, AROUND_EYES)
    )
    across = np.linalg.norm(samples.landmarks[:, [NOSE]] - samples.landmarks[:, SIDES], axis=2)
    frontal = across.min(axis=1) / across.max(axis=1)
    unusual = _distance(samples.w)
    return Looks(
        readable=np.concatenate([samples.embeddings, LOOK_WEIGHT * looks], axis=1),
        skin_lab=np.stack([skin_tone(*pair) for pair in pairs]),
        fringe=np.linalg.norm(forehead - cheeks, axis=1),
        usable=(frontal > MIN_FRONTAL)
        & (unusual < np.quantile(unusual, MAX_UNUSUAL))
        & (cheeks[:, 0] - eyes[:, 0] < SUNGLASSES_LAB),
    )


def _patch_lab(picture: UInt8, landmarks: Float, ids: tuple[int, ...], radius: int = 3) -> Float:
    """Return the median CIE Lab colour (3,) around some landmarks."""
    centres = np.clip(landmarks[list(ids)].astype(int), radius, len(picture) - 1 - radius)
    patches = [picture[y - radius : y + radius + 1, x - radius : x + radius + 1] for x, y in centres]
    pixels = np.concatenate([patch.reshape(1, -1, 3) for patch in patches], axis=1)
    lab = cv2.cvtColor(pixels.astype(np.float32) / 255, cv2.COLOR_RGB2LAB)
    return np.asarray(np.median(lab[0], axis=0), np.float32)


def _distance(w: Float) -> Float:
    """Return the mean square of whitened w (n,)."""
    centred = w - w.mean(axis=0)
    values, vectors = np.linalg.eigh(np.cov(centred.T))
    return np.asarray(((centred @ vectors) ** 2 / np.maximum(values, values[-1] * 1e-4)).mean(axis=1))


@dataclass(frozen=True, slots=True)
class Photographs:
    """Labelled photographs.

    Attributes:
        features: float32 (n, 1024), of FaceRes.
        readable: float32 (n, 1696), embedding and look as the readers take them.
        female: float32 (n,), 0 or 1.
        age: float32 (n,), years.
        ancestry: float32 (n, 4), one-hot.
    """

    features: Float
    readable: Float
    female: Float
    age: Float
    ancestry: Float


def read_photographs(models: ModelStore, faceres: FaceRes, folder: Path) -> Photographs:
    """Read every second of the pictures named ``age_sex_ancestry_*.jpg``.

    Raises:
        InputError: a file is no picture, or no face was found at all.
    """
    detector = cv2.FaceDetectorYN.create(str(models.path("yunet")), "", (0, 0), 0.5)
    landmark, sface = Landmarker(models, workers=1), SFace(models, workers=1)
    portraits, readable, labels = [], [], []
    for path in sorted(folder.glob("*_*_*_*.jpg"))[::2]:
        picture = cv2.imread(str(path))
        if picture is None:
            raise InputError(f"{path} is not a picture; remove it")
        # A margin, because the detector misses faces that fill the picture.
        wide = cv2.copyMakeBorder(picture, 60, 60, 60, 60, cv2.BORDER_REPLICATE)
        rgb = np.asarray(wide[..., ::-1], np.uint8, order="C")
        landmarks = _landmarks(rgb, detector, landmark)
        if landmarks is not None:
            texture = LOOK_WEIGHT * look(aligned_crop(rgb, landmarks))
            portraits.append(_portrait(rgb, landmarks))
            readable.append(np.concatenate([sface(rgb, landmarks), texture]))
            labels.append([int(part) for part in path.name.split("_")[:3]])
    if not portraits:
        raise InputError(f"{folder} holds no picture named age_sex_ancestry_*.jpg with a face")
    age, female, classes = np.array(labels).T
    return Photographs(
        features=read_all(faceres, np.stack(portraits))[0],
        readable=np.stack(readable),
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


def _portrait(rgb: UInt8, landmarks: Float) -> UInt8:
    """Cut a face out as portraits lie, uint8 RGB (128, 128, 3)."""
    picture_from_frame = compose(picture_from_unit(CROP_PX), unit_crop_from_frame(landmarks))
    return np.asarray(cv2.warpAffine(rgb, picture_from_frame, (CROP_PX, CROP_PX), flags=cv2.INTER_AREA))


def read_all(faceres: FaceRes, pictures: UInt8) -> tuple[Float, Float, Float]:
    """Read any number of pictures (see :class:`FaceRes`)."""
    parts = [faceres(pictures[i : i + BATCH]) for i in range(0, len(pictures), BATCH)]
    features, female, age = (np.concatenate(part) for part in zip(*parts, strict=True))
    return features, female, age


def ridge(x: Float, y: Float, strength: float, weights: Float | None = None) -> Float:
    """Fit x (n, d) -> y (n, k): float32 (d + 1, k), the last row for a constant 1."""
    counts = np.ones(len(x)) if weights is None else weights / weights.mean()
    mean_x, mean_y = np.average(x, 0, counts), np.average(y, 0, counts)
    left = (x - mean_x) * np.sqrt(counts)[:, None]
    right = (y - mean_y) * np.sqrt(counts)[:, None]
    gram = left.T @ left + strength * np.eye(x.shape[1])
    slope = np.linalg.solve(gram, left.T @ right)
    return np.concatenate([slope, (mean_y - mean_x @ slope)[None]]).astype(np.float32)


def predict(x: Float, fitted: Float) -> Float:
    """Apply what :func:`ridge` returned to x (n, d)."""
    return np.asarray(x @ fitted[:-1] + fitted[-1], np.float32)


def balanced(classes: npt.NDArray[Any]) -> Float:
    """Return weights (n,) that make all classes count the same."""
    _, which, counts = np.unique(classes, return_inverse=True, return_counts=True)
    return np.asarray(1 / counts[which], np.float32)


def label(looks: Looks, rows: Rows, readings: tuple[Float, Float, Float], photos: Photographs) -> Float:
    """Return labels of some portraits, float32 (len(rows), 9), in the order of ``Bank.labels``.

    Args:
        looks: all portraits.
        rows: which ones; those read by eye come first.
        readings: of FaceRes, features, sex and age of ``rows``.
        photos: what the probes of age and ancestry are fitted on.
    """
    features, female, age = readings
    known, asked = _unit(photos.features), _unit(features)
    probe = ridge(known, photos.ancestry, PROBE_RIDGE, balanced(photos.ancestry.argmax(1)))
    ancestry = predict(asked, probe)
    # FaceRes makes the old too young; the probe, fitted on few, errs the other way.
    probed = predict(asked, ridge(known, photos.age[:, None], PROBE_RIDGE))[:, 0]
    age = np.asarray((age + probed) / 2, np.float32)
    seen = len(PORTRAITS)
    by_eye = np.eye(len(ANCESTRIES))[[EYE_ANCESTRY.index(mark[2]) for mark in PORTRAITS]]
    ancestry[:seen] = (ancestry[:seen] + by_eye) / 2
    female[:seen] = [_sex(mark[0], read) for mark, read in zip(PORTRAITS, female, strict=False)]
    traits = [_trait(looks.readable, which)[rows] for which in (BEARDED, WITH_GLASSES)]
    traits[0] = traits[0] * (female < 0.5) * (age > ADULT_YEARS)
    child = (age < ADULT_YEARS).astype(np.float32)
    columns = [female, np.clip(age, 0, 100) / 100, child, *np.clip(ancestry, 0, 1).T, *traits]
    return np.stack(columns, axis=1).astype(np.float32)


def _unit(features: Float) -> Float:
    lengths = np.linalg.norm(features, axis=1, keepdims=True)
    return np.asarray(features * (FEATURE_LENGTH / lengths), np.float32)


def _sex(mark: str, read: float) -> float:
    """Return what was read by eye, or ``read`` where the eye could not tell."""
    return {"m": 0.0, "b": 0.0, "f": 1.0, "g": 1.0}.get(mark, read)


def _trait(readable: Float, having: tuple[int, ...]) -> Float:
    """Spread a trait read by eye to all portraits: scores (n,), 0..1."""
    marks = np.zeros(len(PORTRAITS), np.float32)
    marks[list(having)] = 1
    fitted = ridge(readable[: len(marks)], marks[:, None], TRAIT_RIDGE, balanced(marks))
    scores = np.clip(predict(readable, fitted)[:, 0], 0, 1)
    scores[: len(marks)] = marks
    return scores


def fit_reader(readable: Float, labels: Float, said: Float) -> Float:
    """Return the readers of looks, float32 (1697, 9), fitted on portraits.

    On real faces, readers of the labels and readers of what :func:`say` says err in different ways; so what
    they are to say is the mean of both.

    Args:
        readable: float32 (n, 1696), see :class:`Looks`.
        labels: float32 (n, 9).
        said: float32 (n, 7), by :func:`say`.
    """
    targets = labels.copy()
    targets[:, :TRAITS] = (targets[:, :TRAITS] + said) / 2
    reader = ridge(readable, targets, READER_RIDGE, _weights(labels))
    # Readers shrink what they cannot tell towards the middle.
    reader[:, AGE] *= AGE_STRETCH
    reader[-1, AGE] -= (AGE_STRETCH - 1) * AGE_MIDDLE
    return reader


def say(readable: Float, labels: Float, photos: Photographs) -> Float:
    """Return what embedding and look tell of sex, age, child and ancestry, float32 (n, 7).

    The probe is fitted on photographs and on the portraits read by eye, which come first.
    """
    child = photos.age < ADULT_YEARS
    known = np.column_stack([photos.female, photos.age / 100, child, photos.ancestry])
    x = np.concatenate([photos.readable, readable[: len(PORTRAITS)]])
    y = np.concatenate([known, labels[: len(PORTRAITS), :TRAITS]])
    return predict(readable, ridge(x, y, LOOK_PROBE_RIDGE, _weights(y)))


def _weights(labels: Float) -> Float:
    """Return weights (n,) that let thin decades and ancestries count more."""
    decade = np.minimum(labels[:, AGE] * 10, 6).astype(int)
    weights = np.sqrt(balanced(decade) * balanced(labels[:, 3:TRAITS].argmax(1)))
    return np.asarray(weights, np.float32)


def pick(embeddings: Float, looks: Looks, labels: Float, rows: Rows, people: int) -> Rows:
    """Return positions within ``rows`` of the people of the bank: thin groups first, no look-alikes."""
    age, ancestry = labels[:, AGE] * 100, labels[:, 3:TRAITS].argmax(1)
    rare = (age > OLD_YEARS) | (age < ADULT_YEARS) | (ancestry == 1) | (ancestry == 2)
    rare |= looks.skin_lab[rows, 0] < SKIN_DARK_L
    fringe = looks.fringe[rows]
    order = np.lexsort([fringe, ~rare])
    plain = (np.abs(labels[:, 0] - 0.5) > DOUBTFUL_SEX) | (age < ADULT_YEARS)
    order = order[(looks.usable[rows] & plain & (rare | (fringe < MAX_FRINGE_LAB)))[order]]
    taken: list[int] = []
    vectors = embeddings[rows]
    for position in order:
        limit = MAX_ALIKE_RARE if rare[position] else MAX_ALIKE
        if len(taken) < people and (vectors[taken] @ vectors[position]).max(initial=-1) < limit:
            taken.append(int(position))
    return np.sort(np.array(taken))


def make_bank(samples: Samples, faceres: FaceRes, photos: Photographs, people: int) -> dict[str, Float]:
    """Return the columns of the bank (see :class:`vidanon.identity.bank.Bank`)."""
    looks = describe(samples)
    usable = np.flatnonzero(looks.usable)
    rows = np.concatenate([np.arange(len(PORTRAITS)), usable[usable >= len(PORTRAITS)]])
    labels = label(looks, rows, read_all(faceres, samples.pictures[rows]), photos)
    said = say(looks.readable[rows], labels, photos)
    reader = fit_reader(looks.readable[rows], labels, said)
    rest = slice(len(PORTRAITS), None)
    labels[rest, 0] = np.clip((labels[rest, 0] + said[rest, 0]) / 2, 0, 1)
    picked = pick(samples.embeddings, looks, labels, rows, people)
    chosen, labels = rows[picked], labels[picked]
    return {
        "w": samples.w[chosen],
        "embeddings": samples.embeddings[chosen],
        "female": labels[:, 0],
        "age": labels[:, AGE] * 100,
        "skin_lab": looks.skin_lab[chosen],
        "fringe": looks.fringe[chosen],
        "ancestry": labels[:, 3:TRAITS],
        "beard": labels[:, 7],
        "glasses": labels[:, 8],
        "reader": reader,
    }


def main() -> None:
    """Label the portraits and write the bank."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--samples", type=Path, required=True, help="data/drawn of a training run")
    parser.add_argument("--faceres", type=Path, required=True, help="faceres.json, faceres.bin beside it")
    parser.add_argument("--labelled-faces", type=Path, required=True, help="folder of UTKFace's pictures")
    parser.add_argument("--target", type=Path, required=True, help="the bank, .npz")
    parser.add_argument("--people", type=int, default=3600, help="at most so many")
    options = parser.parse_args()
    faceres = FaceRes(options.faceres)
    photos = read_photographs(ModelStore(), faceres, options.labelled_faces)
    samples = load_samples(options.samples, len(list(options.samples.glob("shard-*.npz"))))
    columns = make_bank(samples, faceres, photos, options.people)
    halves: dict[str, Any] = {name: x.astype(np.float16) for name, x in columns.items()}
    np.savez_compressed(options.target, **halves)


if __name__ == "__main__":
    main()
