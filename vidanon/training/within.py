r"""Find how the generator's own w are spread.

    python -m vidanon.training.within --target vidanon/models/weights/within.safetensors

See :mod:`vidanon.identity.within`. Ten seconds on two cores.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np

from vidanon.identity.within import Drawn
from vidanon.models.registry import ModelStore
from vidanon.training.config import DataConfig
from vidanon.training.data import LatentSource
from vidanon.types import Float

SHARDS, PER_SHARD, SEED = 16, 4096, 503


def spread_of(w: Float) -> Drawn:
    """Return how w, float32 (n, 512), are spread."""
    mean = w.mean(axis=0, dtype=np.float64)
    apart = w - mean
    variances, axes = np.linalg.eigh(apart.T @ apart / len(w))
    found = mean, axes[:, ::-1], np.sqrt(np.maximum(variances[::-1], 0))
    return Drawn(*(np.ascontiguousarray(part, np.float32) for part in found))


def main() -> None:
    """Draw w and write how they are spread."""
    from safetensors.numpy import save_file

    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--target", type=Path, required=True, help="where the result goes")
    target = parser.parse_args().target
    latents = LatentSource(ModelStore(), DataConfig().truncation, SEED)
    w = np.concatenate([latents.draw(shard, PER_SHARD) for shard in range(SHARDS)])
    save_file(spread_of(w)._asdict(), target)


if __name__ == "__main__":
    main()
