"""The samples that training learns from: pictures of the generator and what the frozen networks read in them.

No photograph is used. Samples lie in shards of one folder; a shard is written whole or not at all, and what
it holds depends on the seed and its number alone, so a stopped run goes on where it was.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from vidanon.identity.embed import SFace
from vidanon.models.registry import ModelStore
from vidanon.networks.exit_heads import load_exit_generator
from vidanon.networks.generator import load_mapping
from vidanon.networks.runtime import OpenVinoNetwork, graph_from_module
from vidanon.stages.landmark import Landmarker, square_around
from vidanon.stages.workers import ordered_map
from vidanon.types import Float, UInt8

PICTURE_PX = 256
"""What the frozen networks look at."""
CROP_PX = 128
"""What the attribute encoder looks at."""
FACE_BOX = np.array([0.23, 0.28, 0.77, 0.88], np.float32) * PICTURE_PX
"""Where the face lies in a generated picture (FFHQ alignment)."""
FACE_CROP = square_around(FACE_BOX, 0.0)
"""The crop in which all of them are read, as by the surrogates that have a gradient."""
MEAN_DRAWS = 4096


@dataclass(frozen=True, slots=True)
class Samples:
    """Generated faces, one per row.

    Attributes:
        w: float32 (n, 512), latents of the generator.
        pictures: uint8 RGB (n, 128, 128, 3), FFHQ alignment.
        embeddings: float32 (n, 128), unit length, SFace.
        landmarks: float32 (n, 478, 2), unit crop.
        blendshapes: float32 (n, 52), 0..1.
    """

    w: Float
    pictures: UInt8
    embeddings: Float
    landmarks: Float
    blendshapes: Float

    def __len__(self) -> int:
        return len(self.w)

    def take(self, rows: slice) -> Samples:
        """Return some of the rows."""
        return Samples(*(getattr(self, f.name)[rows] for f in fields(self)))


class FaceReader:
    """Makes a picture of w and reads it with the frozen networks."""

    def __init__(self, models: ModelStore, workers: int) -> None:
        example = (np.zeros((1, 512), np.float32),)
        generator = load_exit_generator(models, PICTURE_PX)
        self._generator = OpenVinoNetwork(graph_from_module(generator, example), workers, bfloat16=True)
        self._landmark = Landmarker(models, workers)
        self._sface = SFace(models, workers)

    def picture(self, w: Float) -> UInt8:
        """Generate w (512,): uint8 RGB (256, 256, 3)."""
        out = self._generator(w[None])[0][0].transpose(1, 2, 0)
        return np.asarray(np.clip(out * 127.5 + 127.5, 0, 255).round(), np.uint8)

    def read(self, w: Float) -> Samples | None:
        """Return the one sample of w (512,), or None where no face is found in its picture."""
        picture = self.picture(w)
        mesh = self.mesh(picture)
        if mesh is None:
            return None
        return sample_of(w, picture, self.embed(picture, mesh[0]), *mesh)

    def mesh(self, picture: UInt8, near: Float | None = None) -> tuple[Float, Float] | None:
        """Return landmarks (478, 2), pixels, and blendshapes (52,) of a picture, if it shows a face.

        Args:
            picture: uint8 RGB (256, 256, 3).
            near: float32 (478, 2), about where they lie; unknown where not given.
        """
        if near is not None:
            return self._landmark.around(picture, near)
        return self._landmark.read(picture, FACE_CROP, FACE_BOX)

    def embed(self, picture: UInt8, landmarks: Float) -> Float:
        """Return what SFace reads in a picture, float32 (128,), unit length."""
        return self._sface(picture, landmarks)


def sample_of(w: Float, picture: UInt8, embedding: Float, landmarks: Float, blendshapes: Float) -> Samples:
    """Put one sample together.

    Args:
        w: float32 (512,).
        picture: uint8 RGB (256, 256, 3).
        embedding: float32 (128,), unit length.
        landmarks: float32 (478, 2), pixels of the picture.
        blendshapes: float32 (52,), 0..1.
    """
    small = np.asarray(cv2.resize(picture, (CROP_PX, CROP_PX), interpolation=cv2.INTER_AREA), np.uint8)
    unit = (landmarks + np.float32(0.5)) / np.float32(PICTURE_PX)
    return Samples(w[None], small[None], embedding[None], unit[None], blendshapes[None])


class LatentSource:
    """Draws w: the mapping network, pulled towards the mean of w by a random truncation."""

    def __init__(self, models: ModelStore, truncation: tuple[float, float], seed: int) -> None:
        self._mapping = load_mapping(models, workers=1)
        self._truncation = truncation
        self._seed = seed
        draws = np.random.default_rng(0).standard_normal((MEAN_DRAWS, 512)).astype(np.float32)
        w = self._mapping(draws)[0]
        self.mean: Float = w.mean(0)
        self.std: Float = w.std(0)

    def draw(self, shard: int, count: int) -> Float:
        """Return the w of one shard, float32 (count, 512); the same for the same seed and shard."""
        random = np.random.default_rng([self._seed, shard])
        z = random.standard_normal((count, 512)).astype(np.float32)
        truncation = random.uniform(*self._truncation, (count, 1)).astype(np.float32)
        return np.asarray(self.mean + truncation * (self._mapping(z)[0] - self.mean), np.float32)


def shard_path(folder: Path, shard: int) -> Path:
    """Return the file of a shard."""
    return folder / f"shard-{shard:05d}.npz"


def missing_shards(folder: Path, shards: int) -> list[int]:
    """Return the numbers of the first ``shards`` shards that still have to be made."""
    return [shard for shard in range(shards) if not shard_path(folder, shard).is_file()]


def make_shards(
    folder: Path,
    shards: Iterable[int],
    latents: Callable[[int], Float],
    reader: FaceReader,
    workers: int,
) -> Iterator[int]:
    """Make shards, a few w at a time in threads; yield the number of every finished one.

    Args:
        folder: where they go.
        shards: which ones.
        latents: number of a shard to its w, float32 (n, 512).
        reader: built for at least ``workers`` threads.
        workers: threads.
    """
    folder.mkdir(parents=True, exist_ok=True)
    for shard in shards:
        samples = read_all(reader, latents(shard), workers)
        write_shard(shard_path(folder, shard), {f.name: getattr(samples, f.name) for f in fields(samples)})
        yield shard


def read_all(reader: FaceReader, latents: Float, workers: int) -> Samples:
    """Read every w (n, 512), a few at a time in threads; return those in whose pictures a face is found."""
    with ThreadPoolExecutor(workers) as pool:
        found = ordered_map(pool, reader.read, list(latents), ahead=2 * workers)
        return join([sample for sample in found if sample is not None])


def join(parts: list[Samples]) -> Samples:
    """Put samples one after another."""
    return Samples(*(np.concatenate([getattr(part, f.name) for part in parts]) for f in fields(Samples)))


def write_shard(path: Path, columns: Mapping[str, Any]) -> None:
    """Write arrays as a shard, whole or not at all."""
    part = path.with_name(f".{path.stem}.{os.getpid()}.npz")
    np.savez(part, **columns)
    part.replace(path)


def load_samples(folder: Path, shards: int) -> Samples:
    """Read the first shards of a folder."""
    parts = []
    for shard in range(shards):
        with np.load(shard_path(folder, shard)) as data:
            parts.append(Samples(*(data[f.name] for f in fields(Samples))))
    return join(parts)
