r"""Find the directions of w in which new faces are led nearer to who was asked for.

    python -m vidanon.training.reach --target vidanon/models/weights/reach.safetensors

Different people with the same attributes show in which directions the mapper tells people apart. In faces
that are changed along these, the networks read how much the embedding changes and how much the expression.
The directions that ship change the first most for what they change the second; those that tell looks or turn
the head are left out, see :mod:`vidanon.identity.keep`. How readings change along them differs from face to
face, but what they have in common tells a first step without drawing anything. 26 minutes on two cores beside
other work.
"""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import numpy as np

from vidanon.identity.away import led_away
from vidanon.identity.bank import load_bank
from vidanon.identity.reach import DAMPING
from vidanon.networks.mapper import AttributeMapper
from vidanon.training.data import FaceReader, Samples, join
from vidanon.training.directions import parse_task, widest
from vidanon.training.turn import mapped
from vidanon.types import Float

DRAWN, SEED = 1000, 502
PEOPLE = 6
"""So many people are given the attributes of each face."""
CANDIDATES, DIRECTIONS = 128, 64
WATCHED = 80
"""Faces that are changed along each candidate."""
NUDGE = 0.5
"""By so many standard deviations."""
STILL = 100.0
"""What the squared change of all blendshapes counts beside a squared length in standard deviations."""
USUAL_GAIN = 2.0
"""What the usual step is multiplied by, see :func:`usual_step`."""


def candidates(latents: Float) -> Float:
    """Return in which directions w of different people differs, each as long as one standard deviation.

    Args:
        latents: float32 (faces, people, 512), of different people with the attributes of each face.

    Returns:
        float32 (512, ``CANDIDATES``), the widest first, without what tells looks or turns the head.
    """
    apart = (latents - latents.mean(axis=1, keepdims=True)).reshape(-1, latents.shape[-1])
    return widest(apart, CANDIDATES)


def changes(reader: FaceReader, w: Float, directions: Float) -> tuple[Float, Float] | None:
    """Return how embedding (128, n) and blendshapes (52, n) change along directions (512, n).

    None where no face is found in some picture.
    """
    faces = [reader.read(x) for x in (w, *(w + np.float32(NUDGE) * directions.T))]
    found = [face for face in faces if face is not None]
    if len(found) < len(faces):
        return None
    seen = join(found)
    embedding, expression = ((x[1:] - x[:1]).T / NUDGE for x in (seen.embeddings, seen.blendshapes))
    return embedding, expression


def most_telling(embedding: Float, expression: Float) -> Float:
    """Return what tells people apart for the least change of expression, most first.

    Args:
        embedding: float32 (faces, 128, n), how embeddings change along n directions.
        expression: float32 (faces, 52, n), how blendshapes do.

    Returns:
        float32 (n, ``DIRECTIONS``), combinations of the directions; a step of length 1 along any, and any
        mix of them of that length, costs the same by length and change of expression.
    """
    gain, cost = (np.einsum("fek,fel->kl", x, x).astype(np.float64) / len(x) for x in (embedding, expression))
    cost = np.eye(len(cost)) + STILL * cost
    # eigenvectors of gain relative to cost, by way of cost = root @ root.T
    root = np.linalg.cholesky(cost)
    halved = np.linalg.solve(root, gain)
    _, vectors = np.linalg.eigh(np.linalg.solve(root, halved.T))
    return np.asarray(np.linalg.solve(root.T, vectors[:, : -1 - DIRECTIONS : -1]), np.float32)


def usual_step(responses: Float) -> Float:
    """Return how far to go along each direction for what is lacking, as is best on average.

    Args:
        responses: float32 (faces, 128, n), how embeddings change along n directions.

    Returns:
        float32 (n, 128), to be multiplied with what is lacking of an embedding.
    """
    mean = responses.mean(axis=0)
    curve = np.einsum("fek,fel->kl", responses, responses) / len(responses)
    step = np.linalg.solve(curve + DAMPING * np.eye(len(curve), dtype=curve.dtype), mean.T)
    return np.asarray(USUAL_GAIN * step, np.float32)


def find(mapper: AttributeMapper, reader: FaceReader, drawn: Samples, workers: int) -> dict[str, Float]:
    """Return what ships: ``directions``, float32 (512, ``DIRECTIONS``), and ``usual``, float32 (512, 128).

    Args:
        mapper: in evaluation mode.
        reader: makes and reads pictures; safe to call from ``workers`` threads.
        drawn: random faces, whose attributes are used.
        workers: threads.
    """
    bank, random = load_bank(), np.random.default_rng(SEED)
    latents = []
    for rows in random.integers(0, len(bank), (PEOPLE, len(drawn))):
        asked = [led_away(bank.code(int(row)), own) for row, own in zip(rows, drawn.embeddings, strict=True)]
        latents.append(mapped(mapper, drawn, np.stack(asked))[1])
    tried = candidates(np.stack(latents, axis=1))
    with ThreadPoolExecutor(workers) as pool:
        read = pool.map(lambda w: changes(reader, w, tried), latents[0][:WATCHED])
        found = [change for change in read if change is not None]
    embedding, expression = (np.stack(part) for part in zip(*found, strict=True))
    telling = most_telling(embedding, expression)
    directions = tried @ telling
    return {"directions": directions, "usual": directions @ usual_step(embedding @ telling)}


def main() -> None:
    """Draw faces, find the directions, and write them."""
    from safetensors.numpy import save_file

    task = parse_task(__doc__, DRAWN, SEED)
    found = find(task.mapper, task.reader, task.drawn, task.workers)
    save_file({name: part.astype(np.float16) for name, part in found.items()}, task.target)


if __name__ == "__main__":
    main()
