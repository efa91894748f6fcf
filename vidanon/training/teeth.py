r"""Find the direction of w along which the inside of a mouth becomes brighter, as with teeth.

    python -m vidanon.training.teeth --target vidanon/models/weights/teeth.safetensors

In faces with open mouths that are changed along the widest directions of w, the networks read how much the
inside of the mouth changes, and how much embedding, expression and the rest of the picture do. The direction
that ships brightens the mouth for the least change of these. 8 minutes on two cores.
"""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from typing import NamedTuple

import cv2
import numpy as np

from vidanon.identity.away import led_away
from vidanon.identity.bank import load_bank
from vidanon.identity.shade import mouth_opening, mouth_shade
from vidanon.identity.teeth import OPEN
from vidanon.networks.mapper import AttributeMapper
from vidanon.stages import segment
from vidanon.stages.mesh import INNER_LIPS
from vidanon.stages.outline import brow_mask, filled_hull, grown
from vidanon.training.data import PICTURE_PX, FaceReader, Samples
from vidanon.training.directions import parse_task, widest
from vidanon.training.turn import mapped
from vidanon.types import Float

DRAWN, SEED = 400, 503
CANDIDATES = 160
WATCHED = 44
"""Faces with an open mouth that are changed along each candidate."""
NUDGE = 0.6
"""By so many standard deviations."""
COSTS = np.array([1.7, 330.0, 170.0], np.float32)
"""What the squared change of picture, embedding and expression counts beside a squared length."""
SMALL_PX, AROUND_MOUTH = 64, 0.008
"""Size of the picture whose change counts, and what of it around the mouth does not, picture sides."""
BESIDE_FACE, FEATURES = 0.2, 4.0
"""What a pixel beside the face counts, and one of eyes, brows and lips, of one in it: these changed colour
as mouths opened."""


class Change(NamedTuple):
    """How a face changes along n directions.

    Attributes:
        shade: float32 (n,), of the inside of the mouth.
        cost: float32 (n, n), ``COSTS`` of all else, as a quadratic form.
    """

    shade: Float
    cost: Float


def change_along(reader: FaceReader, w: Float, directions: Float) -> Change | None:
    """Return how a face changes along directions (512, n); None where no face or no mouth is seen."""
    at_rest = _look(reader, w)
    if at_rest is None:
        return None
    moved = [_look(reader, x, at_rest.landmarks) for x in w + np.float32(NUDGE) * directions.T]
    found = [look for look in moved if look is not None]
    if len(found) < len(moved):
        return None
    shade, *readings = (
        np.stack([getattr(look, name) - getattr(at_rest, name) for look in found]) / np.float32(NUDGE)
        for name in ("shade", "picture", "embedding", "blendshapes")
    )
    cost = sum(share * change @ change.T for share, change in zip(COSTS, readings, strict=True))
    return Change(np.asarray(shade, np.float32), np.asarray(cost, np.float32))


class _Look(NamedTuple):
    """A picture as it is read: shade of the mouth, the small picture without it, and what networks read."""

    shade: Float
    picture: Float
    embedding: Float
    blendshapes: Float
    landmarks: Float


def _look(reader: FaceReader, w: Float, around: Float | None = None) -> _Look | None:
    """Read the picture of w; what counts of it is where the face of ``around``, or its own, has no mouth."""
    picture = reader.picture(w)
    mesh = reader.mesh(picture, around)
    if mesh is None:
        return None
    landmarks, blendshapes = mesh
    shade = mouth_shade(picture, landmarks)
    if not np.isfinite(shade):
        return None
    outline = landmarks if around is None else around
    mouth = grown(filled_hull(outline[list(INNER_LIPS)], picture.shape), AROUND_MOUTH * PICTURE_PX)
    eyes, lips = segment.eye_mask(outline, picture.shape), segment.lips(outline, picture.shape)
    features = np.maximum.reduce([eyes, lips, brow_mask(outline, picture.shape)])
    face = np.maximum(BESIDE_FACE, filled_hull(outline, picture.shape))
    counts = (1 - mouth) * (face + (FEATURES - 1) * features)
    small = [
        cv2.resize(x.astype(np.float32), (SMALL_PX, SMALL_PX), interpolation=cv2.INTER_AREA)
        for x in (picture, counts)
    ]
    counted = (small[0] / 255 * small[1][..., None]).ravel()
    return _Look(
        np.array(shade, np.float32),
        np.asarray(counted, np.float32),
        reader.embed(picture, landmarks),
        blendshapes,
        landmarks,
    )


def most_telling(changes: list[Change]) -> Float:
    """Return the mix (n,) of directions that brightens mouths by 1 on average for the least cost."""
    gain = np.mean([change.shade for change in changes], axis=0).astype(np.float64)
    cost = np.mean([change.cost for change in changes], axis=0).astype(np.float64)
    mix = np.linalg.solve(np.eye(len(cost)) + cost, gain)
    return np.asarray(mix / (gain @ mix), np.float32)


def find_direction(mapper: AttributeMapper, reader: FaceReader, drawn: Samples, workers: int) -> Float:
    """Return what ships, float32 (512,).

    Args:
        mapper: in evaluation mode.
        reader: makes and reads pictures; safe to call from ``workers`` threads.
        drawn: random faces, whose attributes are used.
        workers: threads.
    """
    bank, random = load_bank(), np.random.default_rng(SEED)
    rows = random.integers(0, len(bank), len(drawn))
    asked = [led_away(bank.code(int(row)), own) for row, own in zip(rows, drawn.embeddings, strict=True)]
    made = mapped(mapper, drawn, np.stack(asked))[1]
    latents = np.concatenate([drawn.w, made])
    directions = widest(latents - latents.mean(axis=0), CANDIDATES)

    def opening(w: Float) -> float:
        mesh = reader.mesh(reader.picture(w))
        return 0.0 if mesh is None else mouth_opening(mesh[0])

    with ThreadPoolExecutor(workers) as pool:
        openings = np.array(list(pool.map(opening, made)))
        wide = np.flatnonzero(openings > OPEN[1])[:WATCHED]
        read = pool.map(lambda w: change_along(reader, w, directions), made[wide])
        changes = [change for change in read if change is not None]
    return directions @ most_telling(changes)


def main() -> None:
    """Draw faces, find the direction, and write it."""
    from safetensors.numpy import save_file

    task = parse_task(__doc__, DRAWN, SEED)
    direction = find_direction(task.mapper, task.reader, task.drawn, task.workers)
    save_file({"direction": direction.astype(np.float16)}, task.target)


if __name__ == "__main__":
    main()
