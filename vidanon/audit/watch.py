"""What the audit takes from the pictures themselves while both files are decoded."""

from __future__ import annotations

from collections import defaultdict

import numpy as np

from vidanon.audit.stability import flicker
from vidanon.tally import FacePair
from vidanon.types import Float, Frame, UInt8

THUMBNAIL_PX = 96


class Watcher:
    """Looks at the pictures while both files are decoded: flicker, and thumbnails of the output."""

    def __init__(self) -> None:
        self.flicker: dict[int, list[tuple[float, float]]] = defaultdict(list)
        self.thumbnails: dict[int, bytes] = {}
        self._largest: dict[int, float] = {}
        self._before: tuple[int, UInt8, UInt8] | None = None

    def __call__(self, source: Frame, output: Frame, pairs: list[FacePair]) -> None:
        """Take the next judged frame; see :data:`vidanon.compare.Observer`."""
        if self._before is not None and self._before[0] == source.index - 1:
            for pair in pairs:
                levels = (
                    flicker(self._before[1], source.image, pair.box),
                    flicker(self._before[2], output.image, pair.box),
                )
                self.flicker[pair.face].append(levels)
        self._before = (source.index, source.image, output.image)
        for pair in pairs:
            size = float(np.prod(pair.box[2:] - pair.box[:2]))
            if size > 1.2 * self._largest.get(pair.face, 0.0):
                self._largest[pair.face] = size
                self.thumbnails[pair.face] = thumbnail(output.image, pair.box)


def thumbnail(image: UInt8, box: Float) -> bytes:
    """Return a small square JPEG around a face."""
    import cv2

    half = float((box[2:] - box[:2]).max()) * 0.7
    corner = (box[:2] + box[2:]) / 2 - half
    scale = THUMBNAIL_PX / (2 * half)
    matrix = np.array([[scale, 0, -scale * corner[0]], [0, scale, -scale * corner[1]]])
    small = cv2.warpAffine(image, matrix, (THUMBNAIL_PX, THUMBNAIL_PX), flags=cv2.INTER_AREA)
    _, data = cv2.imencode(".jpg", cv2.cvtColor(small, cv2.COLOR_RGB2BGR), [cv2.IMWRITE_JPEG_QUALITY, 80])
    return data.tobytes()
