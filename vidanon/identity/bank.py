"""The bank of fictional people that new faces are chosen from.

Made from the generator alone by ``vidanon.training.bank``; the labels describe how a generated portrait
looks and say nothing about a real person.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property, lru_cache
from pathlib import Path
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from vidanon.errors import ModelsError
from vidanon.types import EMBEDDING_SIZE, Float, IdentityCode

BANK_FILE = Path(__file__).parent.parent / "models" / "weights" / "bank.npz"
W_SIZE = 512
LOOK_WEIGHT = 2.0
"""Length of the look beside the embedding of length 1, as the readers take them."""
READER_RIDGE = 3.0
W_RIDGE = 1000.0
"""Of the reader of glasses in w, on components of variance 1; held out, it ranks 97 of 100 pairs right."""
BEARD_STRETCH, BEARD_OFFSET = 1.5, -0.12
"""Beards are read too near to the mean: full ones, .8 and more by their labels, as .66."""
BARE_EYES, SURE_GLASSES = 0.4, 0.6
"""Readings up to which nobody wears glasses and from which everybody does: of portraits without, 97 % read
less than the first; of those with, 76 % more than the second."""
ADULT_YEARS = 14.0
CHILD_SCORE = 0.7
"""From here on a child: on photographs 9 of 10 children score more, and 1 of 100 women of 18 to 39 years."""
ANCESTRIES = ("european", "african", "east asian", "other")
"""Apparent ancestry; "other" is South Asian, Middle Eastern or Latin American."""


class Reading(NamedTuple):
    """How a face looks; scores are 0..1.

    Attributes:
        female: apparent sex, 0 male .. 1 female.
        age: apparent age in years.
        child: whether it is a child's face.
        ancestry: float32 (4,), shares of :data:`ANCESTRIES`, together 1 (all 0 where nothing speaks).
        beard: beard or moustache.
        glasses: glasses.
    """

    female: float
    age: float
    child: bool
    ancestry: Float
    beard: float
    glasses: float

    @property
    def labels(self) -> Float:
        """What the bank's labels say of people who are read like this, float32 (9,), see `Bank.labels`."""
        beard = np.clip(BEARD_STRETCH * self.beard + BEARD_OFFSET, 0, 1)
        glasses = np.clip((self.glasses - BARE_EYES) / (SURE_GLASSES - BARE_EYES), 0, 1)
        labels = [self.female, self.age / 100, self.child, *self.ancestry, beard, glasses]
        return np.array(labels, np.float32)


@dataclass(frozen=True)
class Bank:
    """Fictional people, one row each, and the readers of looks learned from the first m of them.

    Attributes:
        w: float32 (m, 512), generator latents of their portraits; of the others it is not kept.
        embeddings: float32 (n, 128), unit length, SFace.
        female: float32 (n,), apparent sex, 0 male .. 1 female.
        age: float32 (n,), apparent age in years.
        skin_lab: float32 (n, 3), CIE L*a*b* of the cheeks (L* 0..100, D65).
        fringe: float32 (n,), Lab distance between forehead and cheeks; large where hair hangs over the brow.
        ancestry: float32 (n, 4), scores of :data:`ANCESTRIES`, 0..1.
        beard: float32 (n,), score of beard or moustache, 0..1.
        glasses: float32 (n,), score of glasses, 0..1.
        brows: float32 (n, 2), :func:`vidanon.identity.shade.brow_depths` of the portrait.
        reader: float32 (385, 9), linear: embedding (128,), look of length 2 (256,) and 1 to female, age in
            centuries, child, the four ancestries, beard and glasses.
    """

    w: Float
    embeddings: Float
    female: Float
    age: Float
    skin_lab: Float
    fringe: Float
    ancestry: Float
    beard: Float
    glasses: Float
    brows: Float
    reader: Float

    def __len__(self) -> int:
        return len(self.embeddings)

    def name(self, index: int) -> str:
        """Return the stable label of a person."""
        return f"bank-{index:05d}"

    def index(self, name: str) -> int:
        """Return the row that :meth:`name` gave this label."""
        return int(name.removeprefix("bank-"))

    def code(self, index: int) -> IdentityCode:
        """Return a person as the mapper takes it."""
        w = self.w[index].copy() if index < len(self.w) else None
        return IdentityCode(self.name(index), self.embeddings[index].copy(), w)

    @property
    def child(self) -> npt.NDArray[np.bool_]:
        """Who looks like a child (n,)."""
        return self.age < ADULT_YEARS

    def read(self, embedding: Float, look: Float | None = None) -> Reading:
        """Estimate how a face looks from its SFace embedding (128,) and its look (256,).

        Both may be means over a track. Without a look the embedding has to tell everything, and on real
        faces it tells sex badly.
        """
        if look is None:
            weights, offset = self._embedding_reader
            scores = embedding @ weights + offset
        else:
            length = max(float(np.linalg.norm(look)), 1e-6)
            scores = np.concatenate([embedding, look * (LOOK_WEIGHT / length)]) @ self.reader[:-1]
            scores = scores + self.reader[-1]
        female, age, child, *rest = (float(score) for score in scores)
        # Readers shrink what they cannot tell towards the middle; the square brings the leading one out.
        shares = np.clip(rest[:4], 0, 1) ** 2
        return Reading(
            female=float(np.clip(female, 0, 1)),
            age=float(np.clip(age * 100, 0, 100)),
            child=child > CHILD_SCORE,
            ancestry=(shares / max(float(shares.sum()), 1e-6)).astype(np.float32),
            beard=float(np.clip(rest[4], 0, 1)),
            glasses=float(np.clip(rest[5], 0, 1)),
        )

    @cached_property
    def labels(self) -> Float:
        """What the readers are to say of every row, float32 (n, 9)."""
        columns = [self.female, self.age / 100, self.child, *self.ancestry.T, self.beard, self.glasses]
        return np.stack(columns, axis=1).astype(np.float32)

    @cached_property
    def _learned(self) -> tuple[Float, Float]:
        """Embeddings (m, 128) and labels (m, 9) of those from whom everything is learned."""
        return self.embeddings[: len(self.w)], self.labels[: len(self.w)]

    @cached_property
    def mean_embedding(self) -> Float:
        """What all faces share, float32 (128,)."""
        return np.asarray(self._learned[0].mean(axis=0))

    @cached_property
    def look_directions(self) -> Float:
        """The directions in which embeddings change with the labels: float32 (9, 128), orthonormal."""
        return np.asarray(np.linalg.qr(_slopes(*self._learned).T)[0].T, np.float32)

    @cached_property
    def w_slopes(self) -> Float:
        """How much w changes with each label while the others stay, float32 (9, 512)."""
        return np.asarray(_slopes(self.w, self._learned[1]), np.float32)

    def with_glasses(self, w: Float, least: float, most: float) -> Float:
        """Return w with as much of glasses as asked for, and all else as it is.

        Args:
            w: float32 (512,).
            least: 0 as people without show them on average, 1 as wearers do; -inf: any.
            most: likewise; inf: any.
        """
        weights, offset = self._w_glasses
        shown, slope = float(w @ weights) + offset, self.w_slopes[-1]
        change = float(np.clip(shown, least, most)) - shown
        return np.asarray(w + np.float32(change / float(slope @ weights)) * slope, np.float32)

    @cached_property
    def _w_glasses(self) -> tuple[Float, float]:
        """Linear reader of glasses in w: weights (512,) and offset."""
        wears = self.glasses[: len(self.w)] > 0.5
        deviation = self.w.std(axis=0)
        x = (self.w - self.w.mean(axis=0)).astype(np.float64) / deviation
        weights = (
            np.linalg.solve(x.T @ x + W_RIDGE * np.eye(W_SIZE), x.T @ (wears - wears.mean())) / deviation
        )
        bare, worn = (float((self.w[rows] @ weights).mean()) for rows in (~wears, wears))
        return (weights / (worn - bare)).astype(np.float32), -bare / (worn - bare)

    @cached_property
    def _embedding_reader(self) -> tuple[Float, Float]:
        """Ridge regression from the bank's own embeddings to its labels: weights (128, 9), offset (9,)."""
        embeddings, labels = self._learned
        mean_x, mean_y = self.mean_embedding, labels.mean(axis=0, dtype=np.float64)
        x = (embeddings - mean_x).astype(np.float64)
        weights = np.linalg.solve(x.T @ x + READER_RIDGE * np.eye(EMBEDDING_SIZE), x.T @ (labels - mean_y))
        return weights.astype(np.float32), (mean_y - mean_x @ weights).astype(np.float32)


def _slopes(values: Float, labels: Float) -> npt.NDArray[np.float64]:
    """Return how much values (n, k) change with each label (n, m) while the others stay, (m, k)."""
    x, y = (z.astype(np.float64) - z.mean(axis=0) for z in (values, labels))
    return np.asarray(np.linalg.lstsq(y, x, rcond=None)[0])


@lru_cache(maxsize=2)
def load_bank(path: Path = BANK_FILE) -> Bank:
    """Read the bank.

    Raises:
        ModelsError: the file is missing or is not a bank.
    """
    if not path.is_file():
        raise ModelsError(f"identity bank {path} is missing; reinstall vidanon")
    try:
        with np.load(path, allow_pickle=False) as data:
            columns = {name: data[name].astype(np.float32) for name in Bank.__dataclass_fields__}
    except (KeyError, ValueError, OSError) as error:
        raise ModelsError(f"identity bank {path} cannot be read; reinstall vidanon") from error
    people, learned = len(columns["embeddings"]), len(columns["w"])
    shapes = columns["embeddings"].shape, columns["w"].shape
    if shapes != ((people, EMBEDDING_SIZE), (learned, W_SIZE)) or learned > people:
        raise ModelsError(f"identity bank {path} has the wrong shape; reinstall vidanon")
    columns["embeddings"] /= np.linalg.norm(columns["embeddings"], axis=1, keepdims=True)
    return Bank(**columns)
