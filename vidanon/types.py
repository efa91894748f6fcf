"""The records that travel between the stages.

Convention: pixel coordinates are (x, y) in display orientation with (0, 0) at the *centre* of the top
left pixel; boxes are (x0, y0, x1, y1); images outside networks are uint8 RGB, shape (height, width, 3).
A transform ``a_from_b`` is a 2x3 affine matrix that maps points of ``b`` to points of ``a``.
Time is an integer pts in units of a rational time base.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from enum import IntEnum
from fractions import Fraction
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

Float = npt.NDArray[np.float32]
UInt8 = npt.NDArray[np.uint8]
UInt16 = npt.NDArray[np.uint16]
Bool = npt.NDArray[np.bool_]

LANDMARK_COUNT = 478
BLENDSHAPE_COUNT = 52
EMBEDDING_SIZE = 128
NUDGE_COUNTS = 0.5
"""So much of a refusal a nudge counts: led all that way, driver_video3 lost its brows and beard."""


@dataclass(frozen=True, slots=True)
class VideoInfo:
    """What is known of a video before it is decoded.

    Attributes:
        path: the source.
        width, height: display orientation (after rotation), pixels.
        time_base: seconds per pts unit of the video stream.
        average_rate: frames per second, as the container states it.
        frame_count: as the container states it; 0 where it does not.
        rotation_deg: display rotation stored in the container (0, 90, 180, 270; counter-clockwise).
        codec: name of the source's video codec.
        bit_depth: bits per component.
        audio_streams: number of audio streams.
        fingerprint: tells this file from others (see :func:`vidanon.stages.fingerprint.fingerprint`).
    """

    path: Path
    width: int
    height: int
    time_base: Fraction
    average_rate: Fraction
    frame_count: int
    rotation_deg: int
    codec: str
    bit_depth: int
    audio_streams: int
    fingerprint: str = ""


@dataclass(frozen=True, slots=True)
class Frame:
    """One decoded picture.

    Attributes:
        index: position in decode order after reordering, from 0.
        pts: presentation time stamp in ``VideoInfo.time_base`` units.
        image: uint8 RGB (height, width, 3), display orientation.
        deep: the source's picture with more than 8 bits, uint16 RGB over the full range 0..65535, or None.
            Pixels that ``image`` leaves as they were are written from it.
    """

    index: int
    pts: int
    image: UInt8
    deep: UInt16 | None = None


def eight_bit(deep: UInt16) -> UInt8:
    """Round 0..65535 to 0..255; the inverse of multiplying by 257."""
    return ((deep.astype(np.uint32) + 128) // 257).astype(np.uint8)


@dataclass(frozen=True, slots=True)
class Face:
    """One face seen in one frame.

    Attributes:
        box: float32 (4,), (x0, y0, x1, y1) pixels, tight around the face (brow to chin).
        score: best detector score, 0..1.
        landmarks: float32 (478, 2) pixels, or None where the landmarker found nothing.
        blendshapes: float32 (52,), 0..1, MediaPipe's order; None exactly where landmarks is None.
        embedding: float32 (128,) unit length, or None where it was not computed. Never leaves memory.
        tilt: how far the face is turned in the picture, radians, clockwise, as the detector sees it.
    """

    box: Float
    score: float
    landmarks: Float | None = None
    blendshapes: Float | None = None
    embedding: Float | None = None
    tilt: float = 0.0


class Origin(IntEnum):
    """Where a track's box in a frame comes from."""

    DETECTED = 0
    BRIDGED = 1
    EXTENDED = 2
    FORCED = 3  # the user wants this place obscured


@dataclass(frozen=True, slots=True)
class Track:
    """One face through consecutive frames, dense over its span (n frames from ``start``).

    Attributes:
        id: unique in the video, from 0.
        person: tracks with the same number show the same person and get the same new face.
        start: index of the first frame.
        boxes: float32 (n, 4).
        scores: float32 (n,), detector score, 0 where not detected.
        origin: uint8 (n,), values of :class:`Origin`.
        landmarks: float32 (n, 478, 2), smoothed, NaN where none were found.
        blendshapes: float32 (n, 52), NaN where none were found.
        crop_from_frame: float32 (n, 2, 3): frame pixels to the FFHQ-aligned unit crop ([0, 1] x [0, 1]),
            smoothed; NaN where there are no landmarks.
        covered: bool (n,), whether the new face is drawn bare, over hands and other things in front as well
            and without wrinkles of the source's; None: nowhere.
    """

    id: int
    person: int
    start: int
    boxes: Float
    scores: Float
    origin: UInt8
    landmarks: Float
    blendshapes: Float
    crop_from_frame: Float
    covered: Bool | None = None

    def __len__(self) -> int:
        return len(self.boxes)

    @property
    def end(self) -> int:
        """Index one past the last frame."""
        return self.start + len(self.boxes)


Scene = tuple[Frame, Track]
"""A frame, or a part of it, with the track of this frame alone."""


@dataclass(frozen=True, slots=True)
class IdentityCode:
    """A fictional person.

    Attributes:
        name: stable label, for example ``bank-01234``.
        vector: float32 (128,) unit length, what the mapper takes as identity.
        w: float32 (512,), the generator latent of the fictional person's own portrait, or None.
        refused: how often the audit refused faces in this person's place that were recognised in many
            frames. From the first time on, apparent age, sex and ancestry of the source are no longer kept,
            as what is kept brings the new face nearer to it (beards and glasses always are), and each leads
            further away.
        nudged: how often this very face was led a little further since, being recognised in few frames.
        failed_at: frames in which somebody was recognised behind them, as far as the way away from the source
            is looked for there too.
    """

    name: str
    vector: Float
    w: Float | None = None
    refused: int = 0
    nudged: int = 0
    failed_at: tuple[int, ...] = ()

    @property
    def drawn_as(self) -> tuple[str, int, int, tuple[int, ...]]:
        """What tells faces apart that are drawn in one person's place."""
        return self.name, self.refused, self.nudged, self.failed_at

    def by_refusals(self, values: Sequence[float], nudges: bool = False) -> float:
        """Return the value for what was refused, of those for 0, 1 and so on; the last for all more.

        With ``nudges``, each of these counts as a part of one more.
        """
        steps = self.refused + (NUDGE_COUNTS * self.nudged if nudges else 0.0)
        return float(np.interp(steps, np.arange(len(values)), values))

    @property
    def keeps_looks(self) -> bool:
        """Whether apparent age, sex and ancestry are kept."""
        return not self.refused


class AtRest(NamedTuple):
    """How somebody's forehead is shaded when it shows no expression, see :mod:`vidanon.stages.wrinkles`.

    Attributes:
        landmarks: float32 (478, 2), of the face on the patch, pixels.
        shade: float32 (h, w), log brightness less that of what surrounds it.
        known: float32 (h, w), 0..1, where that has been seen.
    """

    landmarks: Float
    shade: Float
    known: Float


@dataclass(frozen=True, slots=True)
class View:
    """What the mapper takes of the source in one frame.

    Attributes:
        crop: uint8 RGB (128, 128, 3), FFHQ-aligned.
        blendshapes: float32 (52,), 0..1.
        landmarks: float32 (478, 2), in the unit crop.
    """

    crop: UInt8
    blendshapes: Float
    landmarks: Float


@dataclass(frozen=True, slots=True)
class Source:
    """Who is replaced, as seen in a few frames; held in memory only.

    Attributes:
        embedding: float32 (128,), unit length, mean SFace embedding.
        look: float32 (256,), mean of :class:`vidanon.identity.look.LookEncoder`.
        views: the frames in which the face is seen most from the front.
        scenes: more frames, as far as they show this face, with the track of that frame alone; those seen
            most from the front come first. Where there are enough, nothing is before the face in any.
        failed: the like of frames in which the audit recognised this person.
        usual: float32 (52,), mean blendshapes of these frames.
        rests: how the forehead is shaded at rest, by track.
        found: what was found out of new faces in this person's place, see :mod:`vidanon.identity.leads`;
            choosing, drawing and drawing again ask for the same.
    """

    embedding: Float
    look: Float
    views: tuple[View, ...]
    scenes: tuple[Scene, ...] = ()
    failed: tuple[Scene, ...] = ()
    usual: Float | None = None
    rests: dict[int, AtRest] = field(default_factory=dict, compare=False, repr=False)
    found: dict[tuple[str, ...], Any] = field(default_factory=dict, compare=False, repr=False)


@dataclass(frozen=True, slots=True)
class Plan:
    """Who is where, and which new face each person gets. Holds no pixels.

    Attributes:
        info: the source.
        frames: number of frames that were decoded.
        cuts: indices of the first frame of every shot but the first.
        tracks: all tracks, by id.
        identities: new face per person.
        settings: the settings that analysis ran with, as a plain nested dict.
        notes: anything a reader should know (corrupt packets skipped, ...).
        spares: further new faces per person, to be tried when the audit refuses the first.
        left: tracks of faces that stay as they are because the user wants it.
        sources: who is replaced, by person. In memory only, never written to a file; empty in a plan that
            was read from one.
    """

    info: VideoInfo
    frames: int
    cuts: tuple[int, ...]
    tracks: tuple[Track, ...]
    identities: dict[int, IdentityCode]
    settings: dict[str, dict[str, object]] = field(default_factory=dict)
    notes: tuple[str, ...] = ()
    spares: dict[int, tuple[IdentityCode, ...]] = field(default_factory=dict)
    left: tuple[Track, ...] = ()
    sources: dict[int, Source] = field(default_factory=dict, repr=False)
