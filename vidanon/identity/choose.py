"""Choose a fictional person for everyone in a video.

The new face must be a stranger to the person it replaces and to everyone else in the video (hard limits on
SFace similarity), of the same apparent sex and age group (hard), and should ask for little change of age,
skin tone, ancestry, beard, glasses and hairline (a cost). Among the best a secret key decides, so the choice
cannot be repeated without the key and repeats exactly with it.
"""

from __future__ import annotations

import hashlib
import secrets
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from vidanon.errors import SettingsError, UnsafeError
from vidanon.identity.bank import Bank, load_bank
from vidanon.types import EMBEDDING_SIZE, Float, IdentityCode

KEY_BYTES = 32
MIN_KEY_BYTES = 16

# SFace cosine similarity; two pictures count as one person from .37 on (FAR 1e-3 on LFW).
# Hair, beard and outline stay the source's and bring the composite nearer to it than the new face itself is.
SOURCE_LIMITS = (0.0, 0.06, 0.12, 0.20, 0.28)
OTHERS_LIMIT = 0.35

DRAW_FROM = (24, 200)
"""So many faces are in the draw at least and at most: of few, two keys would often give the same one, or have
some among the first that are drawn in common, of which the one that hides the person best is taken."""
AMONG_LIMIT = 0.45
"""No two faces in the draw are more alike: else one key's face would lead to another key's."""
COST_SLACK = 4.0
"""Beyond the least number, only faces are drawn that cost no more than this above the last of them."""
SPARES = 15
"""Other faces that a person may get when the first is refused."""
STRANGER_SPARES = 7
"""So many of them, the last, are of another apparent ancestry: recognisers tell people of some ancestries
apart badly, and all faces that fit may be refused."""
ENOUGH = 200
"""A source limit that leaves fewer gives way to the next. Faces from both sides of the first limits hide a
person equally well when they are drawn (54 and 56 % of 730 did safely), and of more, more fit."""
WIDE_LIMIT = 0.20
FIT_SLACK = 1.0
"""So does one under which the faces that fit best cost so much more, each, than under WIDE_LIMIT: strangers
by SFace are often of another ancestry, and what is drawn is looked at before it is used."""

NEAR_AGE_YEARS = 8.0
"""Ages are read about so wrongly: who looks like a child may get the face of an adult no older than this
beyond. Who looks like an adult never gets a child's."""

# Differences that cost as much as one another.
AGE_UNIT_YEARS = 9.0
SKIN_UNIT_LAB = np.array([12.0, 7.0, 7.0], np.float32)
SEX_UNIT = 0.5
ANCESTRY_UNIT = 0.3
BEARD_UNIT = 0.25
GLASSES_UNIT = 0.25
BROWS_FREE, BROWS_UNIT = 1.4, 1.0
"""So many times darker brows can be drawn without looking painted; beyond that, each such share costs one."""
LEAST_BROWS = 0.05
FRINGE_FREE_LAB = 12.0
FRINGE_UNIT_LAB = 10.0


@dataclass(frozen=True, slots=True)
class Profile:
    """What is known of a person in the video; held in memory only.

    Attributes:
        embedding: float32 (128,), unit length, SFace, averaged over the person's track.
        skin_lab: float32 (3,), CIE L*a*b* of the cheeks (L* 0..100, D65); NaN where unknown.
        look: float32 (256,), mean of :class:`vidanon.identity.look.LookEncoder` over the track. Without it
            all is read off the embedding, which is much less reliable.
        brows: float32 (2,), mean of :func:`vidanon.identity.shade.brow_depths` over the track, if known.
    """

    embedding: Float
    skin_lab: Float
    look: Float | None = None
    brows: Float | None = None


def mean_vector(found: Iterable[Float | None], mean: Callable[..., Float] = np.mean) -> Float | None:
    """Return the mean of what was found of a person here and there, float32 (n,); None where nothing was."""
    known = [vector for vector in found if vector is not None]
    return np.asarray(mean(known, axis=0), np.float32) if known else None


def load_key(key_file: str) -> bytes:
    """Return the secret that decides the choice: the content of ``key_file``, or random bytes when "".

    Raises:
        SettingsError: the file cannot be read or holds fewer than 16 bytes.
    """
    if not key_file:
        return secrets.token_bytes(KEY_BYTES)
    try:
        key = Path(key_file).read_bytes()
    except OSError as error:
        reason = error.strerror or "unreadable"
        raise SettingsError(f"key file {key_file} cannot be read ({reason}); check the path") from error
    if len(key) < MIN_KEY_BYTES:
        raise SettingsError(f"key file {key_file} holds {len(key)} bytes; give it {MIN_KEY_BYTES} or more")
    return key


def choose(
    profiles: dict[int, Profile], key: bytes, barred: Sequence[IdentityCode] = ()
) -> dict[int, IdentityCode]:
    """Choose a new face for every person of one video, each a different one.

    Args:
        profiles: by person number; who has a lower number chooses first.
        key: secret; the same key and profiles give the same choice byte for byte.
        barred: fictional people whom nobody may resemble.

    Raises:
        UnsafeError: no one in the bank is permitted for a person.
    """
    bank = load_bank()
    codes: dict[int, IdentityCode] = {}
    chosen: list[int] = []
    for person in sorted(profiles):
        others = [profiles[other].embedding for other in sorted(profiles) if other != person]
        others += [code.vector for code in barred]
        permitted = _permitted(bank, profiles[person], [*others, *bank.embeddings[chosen]], chosen)
        if len(permitted) == 0:
            raise UnsafeError(
                f"person {person}: no fictional face is different enough from everyone in the video; "
                "cut the video into parts with fewer people"
            )
        index = int(_drawn(key, bank, profiles[person], _fitting(bank, profiles[person], permitted))[0])
        chosen.append(index)
        codes[person] = bank.code(index)
    return codes


def spares(
    profiles: dict[int, Profile],
    key: bytes,
    codes: dict[int, IdentityCode],
    barred: Sequence[IdentityCode] = (),
) -> dict[int, tuple[IdentityCode, ...]]:
    """Choose up to ``SPARES`` further faces per person that keep the same limits; no two people share one.

    Args:
        profiles: as given to :func:`choose`.
        key: the same secret.
        codes: what :func:`choose` returned.
        barred: as given to :func:`choose`.

    Returns:
        By person, in the order in which they should be tried; fewer, or none, where the bank runs out.
    """
    bank = load_bank()
    taken = [bank.index(code.name) for code in codes.values()]
    result = {}
    for person in sorted(profiles):
        others = [profiles[other].embedding for other in profiles if other != person]
        others += [code.vector for other, code in codes.items() if other != person]
        others += [code.vector for code in barred]
        rows: list[int] = []
        for count, foreign in ((SPARES - STRANGER_SPARES, False), (SPARES, True)):
            permitted = _permitted(bank, profiles[person], others, [*taken, *rows], foreign)
            fitting = _fitting(bank, profiles[person], permitted, foreign)
            rows += [int(row) for row in _drawn(key, bank, profiles[person], fitting)[: count - len(rows)]]
        taken += rows
        result[person] = tuple(bank.code(row) for row in rows)
    return result


def _permitted(
    bank: Bank, profile: Profile, others: list[Float], taken: list[int], foreign: bool = False
) -> npt.NDArray[np.intp]:
    """Return the rows that keep every hard limit, at the strictest source limit that leaves enough.

    With ``foreign``, only people of another apparent ancestry, whether they fit or not.
    """
    source = bank.read(profile.embedding, profile.look)
    near = np.abs(bank.age - source.age) < NEAR_AGE_YEARS
    of_age = near | bank.child if source.child else ~bank.child
    fits = ((bank.female > 0.5) == (source.female > 0.5)) & of_age
    fits[taken] = False
    if foreign:
        fits &= bank.ancestry.argmax(axis=1) != source.ancestry.argmax()
    for embedding in others:
        fits &= bank.embeddings @ embedding < OTHERS_LIMIT
    to_source, cost = bank.embeddings @ profile.embedding, _cost(bank, profile)
    affordable = _typical(cost[fits & (to_source < WIDE_LIMIT)]) + FIT_SLACK
    rows = np.empty(0, np.intp)
    for limit in SOURCE_LIMITS:
        rows = np.flatnonzero(fits & (to_source < limit))
        fitting = foreign or limit >= WIDE_LIMIT or _typical(cost[rows]) <= affordable
        if len(rows) >= ENOUGH and fitting:
            break
    return rows


def _typical(cost: Float) -> float:
    """Return the mean cost of the faces that fit best; infinite where there is none."""
    best = np.sort(cost)[: 2 * DRAW_FROM[0]]
    return float(best.mean()) if len(best) else np.inf


def _fitting(
    bank: Bank, profile: Profile, permitted: npt.NDArray[np.intp], any_ancestry: bool = False
) -> npt.NDArray[np.intp]:
    """Return the permitted rows that are in the draw."""
    least, most = DRAW_FROM
    cost = _cost(bank, profile, any_ancestry)[permitted]
    vectors = bank.embeddings[permitted]
    kept: list[int] = []
    for row in np.argsort(cost, kind="stable"):
        beyond = len(kept) >= least and cost[row] > cost[kept[least - 1]] + COST_SLACK
        if beyond or len(kept) == most:
            break
        if (vectors[kept] @ vectors[row] < AMONG_LIMIT).all():
            kept.append(int(row))
    return permitted[kept]


def _cost(bank: Bank, profile: Profile, any_ancestry: bool = False) -> Float:
    """Return how much each row would change what should stay (n,); lower is better."""
    source = bank.read(profile.embedding, profile.look)
    beard, glasses = source.labels[-2:]
    ancestry = 0 if any_ancestry else (((bank.ancestry - source.ancestry) / ANCESTRY_UNIT) ** 2).sum(axis=1)
    skin = np.nan_to_num((bank.skin_lab - profile.skin_lab) / SKIN_UNIT_LAB)
    wanted = np.zeros(2, np.float32) if profile.brows is None else profile.brows
    darker = (wanted / np.maximum(bank.brows, LEAST_BROWS)).max(axis=1)
    cost = (
        ((bank.age - source.age) / AGE_UNIT_YEARS) ** 2
        + (skin**2).sum(axis=1)
        + ((bank.female - source.female) / SEX_UNIT) ** 2
        + ancestry
        + ((bank.beard - beard) / BEARD_UNIT) ** 2
        + ((bank.glasses - glasses) / GLASSES_UNIT) ** 2
        + np.maximum(bank.fringe - FRINGE_FREE_LAB, 0) / FRINGE_UNIT_LAB
        + np.maximum(darker - BROWS_FREE, 0) / BROWS_UNIT
    )
    return np.asarray(cost, np.float32)


def _drawn(key: bytes, bank: Bank, profile: Profile, rows: npt.NDArray[np.intp]) -> npt.NDArray[np.intp]:
    """Return the rows in the order that the key gives them for a person.

    The key makes a random bilinear form of source and new face, so that two people who could get the same
    faces get different ones under one key.
    """
    noise = np.frombuffer(hashlib.shake_256(b"new faces" + key).digest(EMBEDDING_SIZE**2), np.int8)
    wanted = noise.reshape(EMBEDDING_SIZE, EMBEDDING_SIZE).astype(np.float64) @ profile.embedding
    faces = bank.embeddings[rows] - bank.mean_embedding
    scores = faces @ wanted / np.linalg.norm(faces, axis=1)
    return rows[np.argsort(-scores, kind="stable")]
