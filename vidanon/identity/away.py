"""Lead a new face away from the face it replaces, and from what all new faces have in common.

What the attribute encoder sees of the source, and the hair, outline and light that stay, bring a result
nearer to the source than two people are. So the mapper is asked for the fictional person less a part of what
is the source's own: of their embedding without what all faces share and without the directions in which
apparent sex, age, ancestry, beard and glasses lie, since a new face is to keep these. On 96 generated pairs a
part of .5 took SFace from .23 to .10 (unrelated faces .23) and dlib, which takes no part, from a distance of
.74 to .79 (unrelated .75), for .1 degree of head pose.

The mapper also draws people more alike than they are, since it finds part of what all faces share in every
embedding. So a part of that, too, is taken off, again without the directions of looks.
"""

from __future__ import annotations

import numpy as np

from vidanon.identity.bank import Bank, load_bank
from vidanon.types import Float, IdentityCode

AWAY = 0.5
"""The part of the source's own that is taken off. On drawn frames of three clips .5 of it did as much for
both recognisers as .3 of the whole embedding, with which a bearded man lost his beard. Faces of one person
under two keys, led away from the same source, become more alike: of 120 photographs (whole heads, one false
match in 1,000) 9 % were linked without leading away, 17 % with .25 and 30 % with .5."""
APART = 0.7
"""The part of what all faces share that is taken off. Whole heads of 50 people of LFW under three keys,
without and with it: taken for one person under two keys by SFace .91 and .74, EdgeFace .85 and .70, dlib .61
and .44, two strangers' new faces by SFace .10 and .04, for .3 degrees of head pose; with 1.0 of it .69, .65
and .35 for .4 degrees."""
AWAY_REFUSED = (AWAY, 1.0, 1.6)
"""The part by what was refused: what leads away more is better than the mask. Of eight faces in place
of a bearded man in profile, 12 % hid him in 32 frames with .5, and 38 % with 1.2."""

MOST_REFUSED = len(AWAY_REFUSED) - 1
"""More refusals change nothing."""


def led_away(code: IdentityCode, source: Float | None) -> Float:
    """Return what the mapper is asked for.

    Args:
        code: the fictional person.
        source: float32 (128,), unit length, the person who is replaced; None where unknown.

    Returns:
        float32 (128,), unit length.
    """
    bank = load_bank()
    away = code.vector - np.float32(APART) * _without_looks(bank, bank.mean_embedding)
    if source is not None:
        part = code.by_refusals(AWAY_REFUSED)
        away = away - np.float32(part) * _without_looks(bank, source - bank.mean_embedding)
    return np.asarray(away / np.linalg.norm(away), np.float32)


def _without_looks(bank: Bank, embedding: Float) -> Float:
    """Return what of an embedding (128,) does not tell sex, age, ancestry, beard or glasses."""
    return embedding - bank.look_directions.T @ (bank.look_directions @ embedding)
