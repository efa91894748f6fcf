"""Whom the user wants treated: regions of the picture, and persons by a reference picture.

Everybody is treated unless the user says otherwise. In doubt a face is treated: a track counts as inside a
region when it touches it once, and a person counts as the one to be kept only when the recogniser is sure.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from vidanon.errors import InputError, SettingsError
from vidanon.types import BLENDSHAPE_COUNT, LANDMARK_COUNT, Float, Origin, Track, UInt8

if TYPE_CHECKING:
    from vidanon.settings import SelectSettings

SURELY_COSINE = 0.5  # SFace; from here two pictures show one person
PERHAPS_COSINE = 0.25  # below, two pictures do not show one person
FORM = "write it as X0,Y0,X1,Y1 in pixels, or X0,Y0,X1,Y1@T0-T1 with seconds"


@dataclass(frozen=True, slots=True)
class Region:
    """A rectangle of the picture for a while.

    Attributes:
        box: float32 (4,), pixels in display orientation.
        first_s, last_s: seconds; the whole video by default.
    """

    box: Float
    first_s: float = 0.0
    last_s: float = math.inf

    def touches(self, boxes: Float, times_s: Float) -> bool:
        """Say whether any of the boxes (n, 4) at ``times_s`` (n,) overlaps the region."""
        sides = np.minimum(boxes[:, 2:], self.box[2:]) - np.maximum(boxes[:, :2], self.box[:2])
        when = (times_s >= self.first_s) & (times_s <= self.last_s)
        return bool(((sides > 0).all(axis=1) & when).any())


def parse_regions(text: str, option: str) -> tuple[Region, ...]:
    """Read regions separated by spaces.

    Args:
        text: ``x0,y0,x1,y1[@t0-t1] ...``.
        option: name of the option, for the message.

    Raises:
        SettingsError: the text does not say a rectangle with an area and a time that goes forward.
    """
    regions = []
    for part in text.split():
        place, at, time = part.partition("@")
        try:
            box = [float(value) for value in place.split(",")]
            span = [float(value) for value in time.split("-")] if at else [0.0, math.inf]
            x0, y0, x1, y1 = box
            first, last = span
        except ValueError:
            raise SettingsError(f"{option} {part}: {FORM}") from None
        if not (x0 < x1 and y0 < y1 and 0 <= first <= last and all(map(math.isfinite, box))):
            raise SettingsError(f"{option} {part}: {FORM}; the second corner and time come after the first")
        regions.append(Region(np.array(box, np.float32), first, last))
    return tuple(regions)


@dataclass(frozen=True, slots=True)
class Selection:
    """What the user asked for.

    Attributes:
        regions: faces that never touch one of these stay as they are; empty: all are treated.
        obscured: rectangles that are obscured, whatever they show.
        keep: embedding (128,) of a person who stays as they are, or None.
        only: embedding of the only person who is treated, or None.
    """

    regions: tuple[Region, ...] = ()
    obscured: tuple[Region, ...] = ()
    keep: Float | None = None
    only: Float | None = None

    def treats(self, tracks: list[tuple[Float, Float]], embedding: Float | None) -> bool:
        """Say whether a person is treated.

        Args:
            tracks: boxes (n, 4) and times in seconds (n,) of each appearance.
            embedding: mean embedding of the person, or None where the face was never seen well.
        """
        if self.regions and not any(region.touches(*track) for region in self.regions for track in tracks):
            return False
        if embedding is None:
            return True
        if self.keep is not None and float(embedding @ self.keep) >= SURELY_COSINE:
            return False
        return self.only is None or float(embedding @ self.only) >= PERHAPS_COSINE

    def notes(self, left: int) -> tuple[str, ...]:
        """Return what a reader of the result must know; ``left`` persons were left as they are."""
        if self.regions or self.keep is not None or self.only is not None:
            return (
                f"{left} people were left recognisable on purpose (--region, --keep-person, --only-person)",
            )
        return ()


def parse_selection(settings: SelectSettings) -> Selection:
    """Read the regions; the embeddings of the pictures come from :func:`person_in`.

    Raises:
        SettingsError: a region cannot be read, or two options contradict each other.
    """
    if settings.keep_person and settings.only_person:
        raise SettingsError("--keep-person and --only-person exclude each other; leave one out")
    return Selection(parse_regions(settings.region, "--region"), parse_regions(settings.obscure, "--obscure"))


def read_person(path: Path) -> UInt8:
    """Read a reference picture as uint8 RGB.

    Raises:
        InputError: it cannot be read.
    """
    import cv2

    image = cv2.imread(str(path), cv2.IMREAD_COLOR)
    if image is None:
        raise InputError(f"{path}: cannot be read as a picture; give one that shows the person's face")
    return np.asarray(cv2.cvtColor(image, cv2.COLOR_BGR2RGB), np.uint8)


def forced_track(number: int, region: Region, times_s: Float, size: tuple[int, int]) -> Track | None:
    """Return a track without a face that covers a region, so that it is obscured; None if it never shows.

    Args:
        number: id and person of the track.
        region: what to cover.
        times_s: float (n,), time of every frame.
        size: width and height of the picture.
    """
    (frames,) = np.nonzero((times_s >= region.first_s) & (times_s <= region.last_s))
    box = np.clip(region.box, 0, np.array([*size, *size], np.float32) - 1)
    if not len(frames) or (box[2:] - box[:2]).min() <= 0:
        return None
    n = int(frames[-1]) - int(frames[0]) + 1
    return Track(
        id=number,
        person=number,
        start=int(frames[0]),
        boxes=np.tile(box, (n, 1)),
        scores=np.zeros(n, np.float32),
        origin=np.full(n, Origin.FORCED, np.uint8),
        landmarks=np.full((n, LANDMARK_COUNT, 2), np.nan, np.float32),
        blendshapes=np.full((n, BLENDSHAPE_COUNT), np.nan, np.float32),
        crop_from_frame=np.full((n, 2, 3), np.nan, np.float32),
    )
