"""A frame with its faces, or a part with one of them, made smaller for what looks at a few hundred pixels."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import cv2
import numpy as np

from vidanon.geometry import apply, compose, invert, pixels_around
from vidanon.types import Float, Frame, Scene, Track

SIDE_PX = 320
"""The crop of the smallest face keeps so many pixels; recognisers look at 112 to 150 of a face's own. With
290, so that new faces are drawn with the exit of 256 px there, they settle worse than they are shown (lp_s18:
blendshapes off by .009 in place of .007, neighbouring frames .993 in place of .997)."""
MARGIN = 0.25
"""So much of a crop's side is left around it where a face is cut out; landmarks are read in half of that."""


def reduced(frame: Frame, tracks: Sequence[Track]) -> tuple[Frame, list[Track]]:
    """Return a smaller copy of a frame, and its tracks as they are in this frame alone.

    Args:
        frame: of the video.
        tracks: that are in it.

    Returns:
        The frame, as it was where a face is small, and tracks of one frame in its pixels.
    """
    alone = [_in_frame(track, frame.index) for track in tracks]
    scales = np.array([np.hypot(*track.crop_from_frame[0, :, 0]) for track in alone])
    largest = float(np.max(scales[np.isfinite(scales)], initial=0.0))
    factor = SIDE_PX * largest
    if not 0 < factor < 1:
        return frame, alone
    height, width = (max(2, round(side * factor)) for side in frame.image.shape[:2])
    image = cv2.resize(frame.image, (width, height), interpolation=cv2.INTER_AREA)
    ratio = np.array([width / frame.image.shape[1], height / frame.image.shape[0]], np.float32)
    small_from_frame = np.column_stack([np.diag(ratio), (ratio - 1) / 2]).astype(np.float32)
    small = Frame(frame.index, frame.pts, np.asarray(image, np.uint8))
    return small, [_moved(track, small_from_frame) for track in alone]


def cut_out(frame: Frame, track: Track) -> Scene:
    """Return one face of a frame with what surrounds it, as :func:`reduced` returns frames.

    Args:
        frame: of the video.
        track: with landmarks in it.
    """
    small, (alone,) = reduced(frame, [track])
    unit = np.array([[0, 0], [1, 0], [0, 1], [1, 1]], np.float32)
    around = np.float32(0.5) + (1 + 2 * MARGIN) * (unit - np.float32(0.5))
    corners = apply(invert(alone.crop_from_frame[0]), around)
    (x0, y0), (x1, y1) = pixels_around(corners, small.image.shape, beyond=0)
    cut_from_small = np.array([[1, 0, -x0], [0, 1, -y0]], np.float32)
    return replace(small, image=small.image[y0:y1, x0:x1].copy()), _moved(alone, cut_from_small)


def _in_frame(track: Track, index: int) -> Track:
    row = slice(index - track.start, index - track.start + 1)
    return replace(
        track,
        start=index,
        boxes=track.boxes[row],
        scores=track.scores[row],
        origin=track.origin[row],
        landmarks=track.landmarks[row],
        blendshapes=track.blendshapes[row],
        crop_from_frame=track.crop_from_frame[row],
        covered=None if track.covered is None else track.covered[row],
    )


def _moved(track: Track, small_from_frame: Float) -> Track:
    landmarks = apply(small_from_frame, track.landmarks.astype(np.float32))
    corners = apply(small_from_frame, track.boxes.reshape(-1, 2, 2))
    crop = compose(track.crop_from_frame[0], invert(small_from_frame))
    return replace(
        track,
        landmarks=landmarks.astype(track.landmarks.dtype),
        boxes=corners.reshape(-1, 4).astype(np.float32),
        crop_from_frame=crop[None].astype(np.float32),
    )
