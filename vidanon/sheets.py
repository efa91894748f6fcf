"""Pictures side by side in one file, to be looked at. A sheet with source frames shows real people."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import cv2
import numpy as np

from vidanon.errors import OutputError
from vidanon.types import UInt8

SHEET_FRAMES = 8
_COLUMN_PX = 320
_GAP_PX = 4


def grid(rows: Sequence[Sequence[UInt8]]) -> UInt8:
    """Put pictures of one shape, uint8 RGB (h, w, 3), into rows with a white gap between them."""
    height, width = rows[0][0].shape[:2]
    columns = max(len(row) for row in rows)
    step_y, step_x = height + _GAP_PX, width + _GAP_PX
    sheet = np.full((len(rows) * step_y - _GAP_PX, columns * step_x - _GAP_PX, 3), 255, np.uint8)
    for y, row in enumerate(rows):
        for x, picture in enumerate(row):
            sheet[y * step_y : y * step_y + height, x * step_x : x * step_x + width] = picture
    return sheet


def resized(picture: UInt8, size: int) -> UInt8:
    """Scale a square picture, uint8 RGB, to ``size`` pixels."""
    return np.asarray(cv2.resize(picture, (size, size), interpolation=cv2.INTER_CUBIC), np.uint8)


def write_picture(path: Path, picture: UInt8) -> None:
    """Write a picture, uint8 RGB, in the format that the suffix names.

    Raises:
        OutputError: the file cannot be written.
    """
    try:
        done = cv2.imwrite(str(path), cv2.cvtColor(picture, cv2.COLOR_RGB2BGR))
    except cv2.error as error:
        raise OutputError(f"{path}: cannot be written; give a name that ends in .png or .jpg") from error
    if not done:
        raise OutputError(f"{path}: cannot be written; check that the folder exists and has space")


def contact_sheet(source: Path, output: Path, count: int = SHEET_FRAMES) -> UInt8:
    """Return frames of a video (upper row) and what became of them (lower row), evenly taken.

    Raises:
        InputError: a video cannot be read.
    """
    from vidanon.stages.decode import Decoder

    with Decoder(source) as video:
        frames = sum(1 for _ in video)
    wanted = set(np.linspace(0, frames - 1, min(count, frames)).astype(int).tolist())
    rows: list[list[UInt8]] = []
    for path in (source, output):
        with Decoder(path) as video:
            size = (_COLUMN_PX, round(_COLUMN_PX * video.info.height / video.info.width))
            rows.append(
                [
                    np.asarray(cv2.resize(frame.image, size, interpolation=cv2.INTER_AREA), np.uint8)
                    for frame in video
                    if frame.index in wanted
                ]
            )
    return grid(rows)
