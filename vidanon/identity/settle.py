"""Settle a new face in its place, so that head and expression are seen to be those of the source.

In its own picture the new face is turned as the source is (:mod:`vidanon.identity.keep`). Between the hair,
ears and neck of the source the same face is seen to be turned by 1 or 2 degrees more, always to the same
side; and it rests otherwise (:mod:`vidanon.identity.mien`). Both are seen in a few frames of the source. Then
the landmarks of the new face are moved for the whole video as if the head were turned back by as much, and
the mapper is told of another expression. How much more contrast the source has is taken from these frames
too: in every frame anew, it would jump where a hand comes near the face. And so is by how much its shape is
another, so that in each frame it can be told what the new face lacks of movement.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np

from vidanon.geometry import apply
from vidanon.identity.keep import Aim
from vidanon.identity.turn import moved_back, turned_too_far
from vidanon.stages.head_pose import HeadPose
from vidanon.stages.landmark import Landmarker
from vidanon.stages.workers import worker_pool
from vidanon.types import LANDMARK_COUNT, Float, Scene, Track, UInt8

LOOKS, GAIN = 3, 1.5
"""So often the result is looked at, and so much of what is seen to be too much is taken back each time, of
which a third to all works. Heads in eight clips were off by 2.46 degrees on average without a bend, 1.80 with
two looks and a gain of 1, 1.70 with 1.5, and 1.71 with three looks. Blendshapes in seven clips were off by
.036 without, .030 with two looks and .028 with three (.029 with a gain of 1)."""
WORTH = 0.9
"""Another mien is taken where what is amiss comes to less than this share, since it may lead nearer to the
source."""


class Drawn(NamedTuple):
    """A new face on a scene.

    Attributes:
        picture: uint8 RGB (h, w, 3), the scene with it.
        landmarks: float32 (478, 2), where its landmarks came to lie, pixels.
        contrast: float32 (3,), how much more contrast the source is taken to have there.
        lacking: float32 (478, 2), how far its landmarks lay from the source's, in unit crops.
    """

    picture: UInt8
    landmarks: Float
    contrast: Float
    lacking: Float


Draw = Callable[[int], Drawn | None]
"""Draws a new face on the scene of that number; None where that scene gets none."""


def settle(
    aim: Aim,
    build: Callable[[Aim], Draw],
    scenes: Sequence[Scene],
    landmarker: Landmarker,
    head_pose: HeadPose,
    workers: int,
) -> Aim:
    """Look at a new face in the source's place.

    Args:
        aim: what leads to the face.
        build: returns what draws a face, safe to call from several threads; pictures are as large as the
            scenes' own.
        scenes: frames with the source, each with the track of this frame alone.
        landmarker: finds the faces in them.
        head_pose: reads rotations.
        workers: threads.

    Returns:
        What leads to the face with the last bend, contrast and shape, and of the miens that were drawn the
        one with which least is amiss.
    """

    def read(picture: UInt8, track: Track) -> tuple[Float, Float] | None:
        """Return the face's landmarks (478, 2), pixels, and blendshapes (52,)."""
        return landmarker.around(picture, track.landmarks[0].astype(np.float32))

    def compared(number: int, source: tuple[Float, Float]) -> tuple[Float, ...] | None:
        """Return how far the head is turned too far, and what lacks of expression, contrast and shape."""
        frame, track = scenes[number]
        drawn = draw(number)
        result = None if drawn is None else read(drawn.picture, track)
        if drawn is None or result is None:
            return None
        size = frame.image.shape[1], frame.image.shape[0]
        turned = turned_too_far(result[0], source[0], size, head_pose)
        return turned, source[1] - result[1], drawn.contrast, drawn.lacking

    bend, mien = np.zeros((LANDMARK_COUNT, 2), np.float32), aim.mien
    best, least, contrast, shape = mien, np.inf, None, None
    with worker_pool(workers) as pool:
        found = pool.map(lambda scene: read(scene[0].image, scene[1]), scenes)
        sources = {number: mesh for number, mesh in enumerate(found) if mesh is not None}
        crops = [apply(scenes[n][1].crop_from_frame[0], landmarks) for n, (landmarks, _) in sources.items()]
        for _ in range(LOOKS):
            draw = build(aim._replace(mien=mien, bend=bend, shape=shape))
            seen = pool.map(compared, sources.keys(), sources.values())
            known = [x for x in seen if x is not None]
            if not known:
                break
            turned, lacking, contrasts, shapes = (np.stack(part) for part in zip(*known, strict=True))
            contrast = np.asarray(np.median(contrasts, axis=0), np.float32)
            shape = np.asarray(shapes.mean(axis=0), np.float32)
            amiss = float(np.abs(lacking).mean()) * len(sources) / len(known)
            if amiss < WORTH * least:
                best, least = mien, amiss
            back = np.float32(GAIN) * turned.mean(axis=0)
            bend = bend + np.mean([moved_back(crop, back, head_pose) for crop in crops], axis=0)
            mien = mien.mended(np.float32(GAIN) * lacking.mean(axis=0))
    return aim._replace(mien=best, bend=bend, contrast=contrast, shape=shape)
