"""Lead a new face away from the face it replaces.

What the attribute encoder sees of the source, and the hair, outline and light that stay, bring a result
nearer to the source than two people are. So the mapper is asked for the fictional person less a part of what
is the source's own: of their embedding without what all faces share and without the directions in which
apparent sex, age, ancestry, beard and glasses lie, since a new face is to keep these. On 96 generated pairs a
part of .5 took SFace from .23 to .10 (unrelated faces .23) and dlib, which takes no part, from a distance of
.74 to .79 (unrelated .75), for .1 degree of head pose.
"""

from __future__ import annotations

import numpy as np

from vidanon.identity.bank import load_bank
from vidanon.types import Float, IdentityCode

AWAY = 0.5
"""The part of the source's own that is taken off. On drawn frames of three clips .5 of it did as much for
both recognisers as .3 of the whole embedding, with which a bearded man lost his beard. Faces of one person
under two keys, led away from the same source, become more alike: of 120 photographs (whole heads, one false
match in 1,000) 9 % were linked without leading away, 17 % with .25 and 30 % with .5."""
AWAY_REFUSED = (AWAY, 1.0, 1.6)
"""The part by the number of refusals: what leads away more is better than the mask. Of eight faces in place
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
    if source is None:
        return code.vector
    bank = load_bank()
    own = source - bank.mean_embedding
    own -= bank.look_directions.T @ (bank.look_directions @ own)
    away = code.vector - np.float32(AWAY_REFUSED[min(code.refused, MOST_REFUSED)]) * own
    return np.asarray(away / np.linalg.norm(away), np.float32)
