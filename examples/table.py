"""Identity x attributes table: ``python table.py identities/ attributes/ table.png``.

Every row keeps one identity, every column the pose, expression, light and hair of one picture (Nitzan et al.
2020, figure 1). The first row and column show the pictures as they are: ask the people in them first.
"""

import sys
from pathlib import Path

import numpy as np

from vidanon.mixing import Head, Mixer, read_picture
from vidanon.models.registry import ModelStore
from vidanon.sheets import grid, resized, write_picture
from vidanon.stages.stills import pictures_of
from vidanon.types import UInt8

SIZE_PX = 256


def shown(head: Head) -> UInt8:
    """Return the aligned crop of a head at the size of the table's cells."""
    crop = np.clip((head.crop.transpose(1, 2, 0) + 1) * 127.5, 0, 255).astype(np.uint8)
    return resized(crop, SIZE_PX)


def main(identities: Path, attributes: Path, target: Path) -> None:
    """Write the table."""
    mixer = Mixer(ModelStore(), SIZE_PX)
    rows, columns = (
        [mixer.head(read_picture(path), str(path)) for path in pictures_of(folder)]
        for folder in (identities, attributes)
    )
    table = mixer.table(rows, columns)
    corner = np.full((SIZE_PX, SIZE_PX, 3), 255, np.uint8)
    cells = [[shown(head), *pictures] for head, pictures in zip(rows, table, strict=True)]
    write_picture(target, grid([[corner, *map(shown, columns)], *cells]))


if __name__ == "__main__":
    main(*map(Path, sys.argv[1:4]))
