r"""Add to a bank how dark the brows of its people are, read in their portraits.

    python -m vidanon.training.brows --bank vidanon/models/weights/bank.npz

Five minutes on two cores.
"""

from __future__ import annotations

import argparse
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np

from vidanon.identity.shade import brow_depths
from vidanon.models.registry import ModelStore
from vidanon.training.data import FaceReader
from vidanon.types import Float

WORKERS = 2


def depths_of(latents: Float) -> Float:
    """Return :func:`vidanon.identity.shade.brow_depths` of the portraits of w (n, 512), float32 (n, 2).

    0 where a portrait shows no face.
    """
    reader = FaceReader(ModelStore(), WORKERS)

    def depths(w: Float) -> Float:
        picture = reader.picture(w)
        mesh = reader.mesh(picture)
        return np.zeros(2, np.float32) if mesh is None else brow_depths(picture, mesh[0])

    with ThreadPoolExecutor(WORKERS) as pool:
        return np.stack(list(pool.map(depths, latents)))


def main() -> None:
    """Read the portraits and write the bank anew."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--bank", type=Path, required=True, help="made by vidanon.training.bank")
    path = parser.parse_args().bank
    with np.load(path, allow_pickle=False) as bank:
        columns: dict[str, Any] = dict(bank)
    columns["brows"] = depths_of(columns["w"].astype(np.float32)).astype(np.float16)
    np.savez_compressed(path, **columns)


if __name__ == "__main__":
    main()
