"""The bank of fictional people that new faces are chosen from.

Made from the generator alone by ``vidanon.training.bank``; the labels describe how a generated portrait
looks and say nothing about a real person.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property, lru_cache
from pathlib import Path

import numpy as np

from vidanon.errors import ModelsError
from vidanon.types import EMBEDDING_SIZE, Float

BANK_FILE = Path(__file__).parent.parent / "models" / "weights" / "bank.npz"
W_SIZE = 512
READER_RIDGE = 3.0


@dataclass(frozen=True)
class Bank:
    """Fictional people, one row each.

    Attributes:
        w: float32 (n, 512), generator latent of the portrait.
        embeddings: float32 (n, 128), unit length, SFace.
        female: float32 (n,), apparent sex, 0 male .. 1 female.
        age: float32 (n,), apparent age in years.
        skin_lab: float32 (n, 3), CIE L*a*b* of the cheeks (L* 0..100, D65).
        fringe: float32 (n,), Lab distance between forehead and cheeks; large where hair hangs over the brow.
        beard: float32 (n,), how much darker than the cheeks the chin is, in units of L*.
    """

    w: Float
    embeddings: Float
    female: Float
    age: Float
    skin_lab: Float
    fringe: Float
    beard: Float

    def __len__(self) -> int:
        return len(self.embeddings)

    def name(self, index: int) -> str:
        """Return the stable label of a person."""
        return f"bank-{index:05d}"

    def read(self, embedding: Float) -> tuple[float, float]:
        """Estimate (female 0..1, age in years) of a face from its SFace embedding (128,)."""
        weights, offset = self._reader
        female, age = embedding @ weights + offset
        return float(np.clip(female, 0, 1)), float(np.clip(age, 0, 100))

    @cached_property
    def _reader(self) -> tuple[Float, Float]:
        """Ridge regression from the bank's own embeddings to its labels: weights (128, 2), offset (2,)."""
        labels = np.stack([self.female, self.age], axis=1).astype(np.float64)
        mean_x, mean_y = self.embeddings.mean(axis=0), labels.mean(axis=0)
        x = (self.embeddings - mean_x).astype(np.float64)
        weights = np.linalg.solve(x.T @ x + READER_RIDGE * np.eye(EMBEDDING_SIZE), x.T @ (labels - mean_y))
        return weights.astype(np.float32), (mean_y - mean_x @ weights).astype(np.float32)


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
    count = len(columns["w"])
    if columns["w"].shape != (count, W_SIZE) or columns["embeddings"].shape != (count, EMBEDDING_SIZE):
        raise ModelsError(f"identity bank {path} has the wrong shape; reinstall vidanon")
    columns["embeddings"] /= np.linalg.norm(columns["embeddings"], axis=1, keepdims=True)
    return Bank(**columns)
