r"""Make the bank of fictional people that ships with the package (``vidanon/models/weights/bank.npz``).

    python -m vidanon.training.bank --samples runs/train/data/drawn --faceres models/faceres.json \
        --labelled-faces utkface --target bank.npz

Portraits are the drawn samples of ``vidanon train``, labelled by :func:`vidanon.training.looks.label`.
Neither the photographs nor FaceRes nor the probes ship: labels of generated portraits do, and readers of
looks fitted on the portraits alone.
"""

from __future__ import annotations

import argparse
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt

from vidanon.identity.bank import ADULT_YEARS, LOOK_WEIGHT
from vidanon.identity.look import LookEncoder
from vidanon.models.registry import ModelStore
from vidanon.plan import skin_tone
from vidanon.stages.mesh import SIDES
from vidanon.stages.synthesize import as_input
from vidanon.training.brows import depths_of
from vidanon.training.data import CROP_PX, Samples, load_samples
from vidanon.training.faceres import FaceRes
from vidanon.training.looks import label, rarity, read_samples
from vidanon.training.photographs import Photographs, read_photographs
from vidanon.training.probes import predict, ridge
from vidanon.training.read_by_eye import PORTRAITS
from vidanon.types import Float, UInt8

Rows = npt.NDArray[np.intp]
Bools = npt.NDArray[np.bool_]

# Patches of the mesh: cheeks, forehead, and the skin around the eyes (dark under sunglasses).
CHEEKS = (50, 280, 205, 425)
FOREHEAD = (67, 297, 10, 109, 338)
AROUND_EYES = (230, 450, 223, 443)
NOSE = 1

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
LOOK_PROBE_RIDGE = 1.0
READER_RIDGE = 1.0
AGE_STRETCH = 1.2
AGE_MIDDLE = 0.25
AGE, TRAITS = 1, 7
"""Columns of the labels: age, and the first that is no matter of sex, age or ancestry."""


@dataclass(frozen=True, slots=True)
class Measured:
    """What is measured on the portraits, one row each.

    Attributes:
        skin_lab: float32 (n, 3), as the pipeline measures it on a source.
        fringe: float32 (n,), Lab distance between forehead and cheeks.
        usable: (n,), frontal, no sunglasses.
    """

    skin_lab: Float
    fringe: Float
    usable: Bools


def measure(samples: Samples) -> Measured:
    """Measure all portraits."""
    pairs = list(zip(samples.pictures, _points(samples), strict=True))
    cheeks, forehead, eyes = (
        np.stack([_patch_lab(*pair, ids) for pair in pairs]) for ids in (CHEEKS, FOREHEAD, AROUND_EYES)
    )
    across = np.linalg.norm(samples.landmarks[:, [NOSE]] - samples.landmarks[:, SIDES], axis=2)
    frontal = across.min(axis=1) / across.max(axis=1)
    return Measured(
        skin_lab=np.stack([skin_tone(*pair) for pair in pairs]),
        fringe=np.linalg.norm(forehead - cheeks, axis=1),
        usable=(frontal > MIN_FRONTAL) & (cheeks[:, 0] - eyes[:, 0] < SUNGLASSES_LAB),
    )


def _points(samples: Samples) -> list[Float]:
    """Return the landmarks in pixels of the portraits."""
    return [face * CROP_PX - np.float32(0.5) for face in samples.landmarks.astype(np.float32)]


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


def as_read(encoder: LookEncoder, pictures: UInt8, embeddings: Float) -> Float:
    """Return embedding and look side by side as :meth:`vidanon.identity.bank.Bank.read` takes them, (n, 384).

    Args:
        encoder: of looks.
        pictures: uint8 RGB (n, 128, 128, 3), FFHQ alignment.
        embeddings: float32 (n, 128), unit length, SFace.
    """
    looks = np.stack([encoder.crop(as_input(picture)) for picture in pictures])
    looks *= LOOK_WEIGHT / np.linalg.norm(looks, axis=1, keepdims=True)
    return np.concatenate([embeddings, looks], axis=1)


def fit_reader(readable: Float, labels: Float, said: Float) -> Float:
    """Return the readers of looks, float32 (385, 9), fitted on portraits.

    On real faces, readers of the labels and readers of what :func:`say` says err in different ways; so what
    they are to say is the mean of both.

    Args:
        readable: float32 (n, 384), of :func:`as_read`.
        labels: float32 (n, 9).
        said: float32 (n, 7), by :func:`say`.
    """
    targets = labels.copy()
    targets[:, :TRAITS] = (targets[:, :TRAITS] + said) / 2
    reader = ridge(readable, targets, READER_RIDGE, rarity(labels))
    # Readers shrink what they cannot tell towards the middle.
    reader[:, AGE] *= AGE_STRETCH
    reader[-1, AGE] -= (AGE_STRETCH - 1) * AGE_MIDDLE
    return reader


def say(readable: Float, labels: Float, photos: Photographs, known: Float) -> Float:
    """Return what embedding and look tell of sex, age, child and ancestry, float32 (n, 7).

    The probe is fitted on photographs and on the portraits read by eye, which come first.

    Args:
        readable: float32 (n, 384), of :func:`as_read`.
        labels: float32 (n, 9).
        photos: photographs.
        known: float32 (m, 384), of :func:`as_read`, of the photographs.
    """
    child = photos.age < ADULT_YEARS
    told = np.column_stack([photos.female, photos.age / 100, child, photos.ancestry])
    x = np.concatenate([known, readable[: len(PORTRAITS)]])
    y = np.concatenate([told, labels[: len(PORTRAITS), :TRAITS]])
    return predict(readable, ridge(x, y, LOOK_PROBE_RIDGE, rarity(y)))


def pick(embeddings: Float, measured: Measured, looks: Float, people: int) -> Rows:
    """Return the rows of the people of the bank: thin groups first, no look-alikes."""
    rare = _is_rare(looks, measured.skin_lab)
    taken: list[int] = []
    for position in candidates(looks, measured.skin_lab, measured.fringe, measured.usable):
        limit = MAX_ALIKE_RARE if rare[position] else MAX_ALIKE
        if len(taken) < people and (embeddings[taken] @ embeddings[position]).max(initial=-1) < limit:
            taken.append(int(position))
    return np.sort(np.array(taken))


def candidates(looks: Float, skin_lab: Float, fringe: Float, usable: Bools | bool = True) -> Rows:
    """Return the rows of those who may go into the bank, thin groups first, then bare foreheads.

    Args:
        looks: float32 (n, 9), labels.
        skin_lab: float32 (n, 3).
        fringe: float32 (n,).
        usable: (n,), whose portraits are.
    """
    rare = _is_rare(looks, skin_lab)
    order = np.lexsort([fringe, ~rare])
    plain = (np.abs(looks[:, 0] - 0.5) > DOUBTFUL_SEX) | (looks[:, AGE] * 100 < ADULT_YEARS)
    return np.asarray(order[(usable & plain & (rare | (fringe < MAX_FRINGE_LAB)))[order]])


def _is_rare(looks: Float, skin_lab: Float) -> Bools:
    """Say who is of a thin group (n,), given labels (n, 9) and skin tones (n, 3)."""
    age, ancestry = looks[:, AGE] * 100, looks[:, 3:TRAITS].argmax(1)
    rare = (age > OLD_YEARS) | (age < ADULT_YEARS) | (ancestry == 1) | (ancestry == 2)
    return np.asarray(rare | (skin_lab[:, 0] < SKIN_DARK_L))


def make_bank(
    samples: Samples, labels: Float, encoder: LookEncoder, photos: Photographs, people: int
) -> dict[str, Float]:
    """Return the columns of the bank (see :class:`vidanon.identity.bank.Bank`)."""
    readable = as_read(encoder, samples.pictures, samples.embeddings)
    said = say(readable, labels, photos, as_read(encoder, photos.pictures, photos.embeddings))
    reader = fit_reader(readable, labels, said)
    rest = slice(len(PORTRAITS), None)
    looks = labels.copy()
    looks[rest, 0] = np.clip((labels[rest, 0] + said[rest, 0]) / 2, 0, 1)
    measured, unusual = measure(samples), _distance(samples.w)
    measured = replace(measured, usable=measured.usable & (unusual < np.quantile(unusual, MAX_UNUSUAL)))
    chosen = pick(samples.embeddings, measured, looks, people)
    looks = looks[chosen]
    return {
        "w": samples.w[chosen],
        "embeddings": samples.embeddings[chosen],
        "female": looks[:, 0],
        "age": looks[:, AGE] * 100,
        "skin_lab": measured.skin_lab[chosen],
        "fringe": measured.fringe[chosen],
        "ancestry": looks[:, 3:TRAITS],
        "beard": looks[:, 7],
        "glasses": looks[:, 8],
        "brows": depths_of(samples.w[chosen]),
        "reader": reader,
    }


def main() -> None:
    """Describe the portraits and write the bank."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--samples", type=Path, required=True, help="data/drawn of a training run")
    parser.add_argument("--faceres", type=Path, required=True, help="faceres.json, faceres.bin beside it")
    parser.add_argument("--labelled-faces", type=Path, required=True, help="folder of UTKFace's pictures")
    parser.add_argument("--target", type=Path, required=True, help="the bank, .npz")
    parser.add_argument("--people", type=int, default=3600, help="at most so many")
    parser.add_argument("--run", type=Path, default=Path("runs/looks"), help="as given to training.looks")
    options = parser.parse_args()
    models, faceres = ModelStore(), FaceRes(options.faceres)
    photos = read_photographs(models, faceres, options.labelled_faces, 0)
    samples = load_samples(options.samples, len(list(options.samples.glob("shard-*.npz"))))
    labels = label(read_samples(options.samples, options.faceres, options.run), photos)
    columns = make_bank(samples, labels, LookEncoder(models, "cpu", 1), photos, options.people)
    halves: dict[str, Any] = {name: x.astype(np.float16) for name, x in columns.items()}
    np.savez_compressed(options.target, **halves)


if __name__ == "__main__":
    main()
