"""What the first portraits of the training samples look like, read by eye off contact sheets.

They are rows 0 to 479 of ``data/drawn`` of ``vidanon train`` with its default seed, truncation and shards.
Apparent sex: m, f = man, woman; b, g, c = boy, girl, child; ? = cannot tell. Then the decade of the apparent
age, then apparent ancestry: w = European, b = African, e = East Asian, o = other.
"""

_MARKS = (
    "b0e m5w f2o g0e f3w c0e f5o f2w m1w f2w f2w f2o m3w f7w f2w m5w f2e f3w f3w m4w f2e f4w f2w g1w "
    "f5w g1w m2w f2w m4o b0e f3w f3w m2w m3w f2w f3w f2o f2w f3w c0e f3w f2w f2o m5w m3w f2w f1w f2w "
    "f4w f2w f2w ?2o m2o m2w f4w f3w g0o ?5w m3o g0w ?2e m3o m3w f2e c0e f2o m2w f2o g1o f3w m2w f2w "
    "?4w g0e m5w g0o g1w ?2w m3b c0w m2w m4w f2o m2w f2w f4w ?3o f2w f2e f2w m2w m3w m5w ?3w m4w f2o "
    "f3w f4w b0e b0o m3o f4w m3w f2w m3w f4w m4w m3o m4w f2w f2w m6w f3b m2w m2o f3w f2e m6w f2o m2w "
    "m2o f2w f2w f2w f3o f2w f2o f4w m3o f3w g0w ?2w m2w f5w f2o m3e f4w f6w m3w f3b f3o f4w f2o f2o "
    "m4w f2w m2w m2w f3w f2w f3w m4w b0b m2w ?3w m4o f2w f4w f2w m4w f2e m4w f2o f2w m2w m2w f2w f2w "
    "f2e f2w m2w c0w f2e f4w m3w f2w f2w f4o m3o ?4w f2w f2o f2w f2w m6w f6w m4w ?4w m5w f3w g0e f3w "
    "m6w ?2w m3o f3b m3w f2w f2w m4w m3b f3w f2e f2w f2o f3e f3o ?2w f2w f4o f4w g0w f5w f4w m2o ?3o "
    "m4w m4w m3w m4w f2w f2o f4w f4w m4w f4w f2w g1w m3w m4w ?2w f3o c0w f2o m4w f3w m2w m3w f4w m3e "
    "g0w f3w m2w f2w ?2w m4w f2e f2e m3w f3w m2o f3w f3w ?4w f4w f2o f2w m4w f2o f4w g0w f2w m4w f2o "
    "c0w f2w f2w c0w f2w f3o f2o g0w m4b f3w b0o f2w m2o m4o m2o f2w m4w f2w f2o f2o m5w f2e f2e m3w "
    "f2w f2w f2o m6w f3w f2e m2w m4w m3w f2w f3w b0o m2e m3w ?4w m2o f2e f2o m6w f4o m2w f4w m3w m4w "
    "m3o g0w f2o f2w f2e m4w m5w c0w f3w ?6w f1w f2e f5w f2w f3w b0e g1w b1o m2e g0o c0e m5o f2w m4w "
    "f3w f2o f2w g1w m6w f2w f2o m3w f3w m1w m4w f2w f4w m3w f2w c0w f4w f3w f2w m2o m5b f2w m3e f1w "
    "f2w f2w ?1e ?2w f2w m2w m2o g1e m3o f3w m5w f2w m4o f2o m3e f2o f2w g0w m4w c0w ?1w f2e f3o m4w "
    "f6w ?1e f2o m3w g0w c0w b1o f1w m2w m6w b0b f3w m3w f3w f2w g1w f3w m4w m2e m2w f3w m5w b0w ?4w "
    "m4w f6w c0w f4w f4o m3w f2w m2w f3o m3w f2o g1w f1w m2w m6w m4w m4w f3w f2w f2w f4w f3w m4w m2b "
    "m3w f4w f2w m4w f3e f5w f3w m4w m2b m3o m5o m2w g0w m4w ?1e m2w f3w f3b g0e b1o m2w m4w f2e m2e "
    "f5w f2w ?1w m2w f2o m6w m4o m4e m2o f3w f3w f4w m4w g0w f2o g0e f3o f2w m3w f3w m1e m3w f2w b0w"
)
PORTRAITS = tuple(_MARKS.split())

BEARDED = (
    *(28, 58, 74, 78, 91, 107, 111, 155, 178, 218, 272, 278, 312, 318, 333, 335, 340, 346, 366, 368),
    *(413, 424, 435, 440, 442, 445, 462, 468),
)
WITH_GLASSES = (
    *(13, 21, 28, 36, 38, 66, 91, 92, 101, 111, 117, 127, 128, 129, 136, 137, 144, 169, 173, 174, 184, 205),
    *(207, 212, 216, 223, 234, 239, 262, 266, 269, 272, 277, 280, 291, 296, 311, 318, 333, 340, 346, 348),
    *(349, 383, 409, 424, 425, 426, 429, 437, 456, 461, 463, 465, 473, 474),
)


def sex_of(mark: str, read: float) -> float:
    """Return the sex of a mark, 0 male .. 1 female, or ``read`` where the eye could not tell."""
    return {"m": 0.0, "b": 0.0, "f": 1.0, "g": 1.0}.get(mark[0], read)


def ancestry_of(mark: str) -> int:
    """Return which of the bank's ancestries a mark names."""
    return "wbeo".index(mark[2])
