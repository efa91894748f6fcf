"""Bend a new face so that the head it is put on is seen to be turned as it was.

In its own picture the new face is turned as the source is (:mod:`vidanon.identity.keep`). Between the hair,
ears and neck of the source the same face is seen to be turned by 1 or 2 degrees more, always to the same
side. That is seen in a few frames of the source, and the landmarks of the new face are moved for the whole
video as if the head were turned back by as much.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor

import numpy as np

from vidanon.geometry import apply
from vidanon.identity.turn import moved_back, turned_too_far
from vidanon.stages.head_pose import HeadPose
from vidanon.stages.landmark import Landmarker, mesh_box, tilt_of_mesh
from vidanon.types import LANDMARK_COUNT, Float, Frame, Track, UInt8

LOOKS, GAIN = 2, 1.5
"""So often the result is looked at, and so much of what is seen to be turned too far is taken back each time,
of which a third to all works. Heads in eight clips were off by 2.46 degrees on average without a bend, 1.80
with two looks and a gain of 1, 1.70 with 1.5, and 1.71 with three looks."""

Draw = Callable[[int, Float], UInt8 | None]
"""Draws the new face, bent, on the scene of that number; None where that scene gets none."""


def find_bend(
    draw: Draw,
    scenes: Sequence[tuple[Frame, Track]],
    landmarker: Landmarker,
    head_pose: HeadPose,
    workers: int,
) -> Float:
    """Look at a new face in the source's place.

    Args:
        draw: makes pictures of the size of the scenes' own; safe to call from several threads.
        scenes: frames with the source, each with the track of this frame alone.
        landmarker: finds the faces in them.
        head_pose: reads rotations.
        workers: threads.

    Returns:
        float32 (478, 2), what has to be added to its landmarks in unit crops.
    """

    def read(picture: UInt8, track: Track) -> Float | None:
        """Return the face's landmarks (478, 2), pixels."""
        landmarks = track.landmarks[0].astype(np.float32)
        (mesh,) = landmarker(picture, [mesh_box(landmarks)], [tilt_of_mesh(landmarks)])
        return None if mesh is None else mesh[0]

    def turned(number: int, source: Float) -> Float | None:
        frame, track = scenes[number]
        picture = draw(number, bend)
        result = None if picture is None else read(picture, track)
        if result is None:
            return None
        height, width = frame.image.shape[:2]
        return turned_too_far(result, source, (width, height), head_pose)

    bend = np.zeros((LANDMARK_COUNT, 2), np.float32)
    with ThreadPoolExecutor(workers) as pool:
        found = pool.map(lambda scene: read(scene[0].image, scene[1]), scenes)
        sources = {number: landmarks for number, landmarks in enumerate(found) if landmarks is not None}
        crops = [apply(scenes[n][1].crop_from_frame[0], source) for n, source in sources.items()]
        for _ in range(LOOKS):
            seen = pool.map(turned, sources.keys(), sources.values())
            known = [x for x in seen if x is not None]
            if not known:
                break
            mean = np.asarray(GAIN * np.mean(known, axis=0), np.float32)
            bend = bend + np.mean([moved_back(crop, mean, head_pose) for crop in crops], axis=0)
    return bend
