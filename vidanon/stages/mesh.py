"""Index lists of MediaPipe's face mesh (478 points) that warp, mask and choice use."""

from __future__ import annotations

from itertools import chain

FACE_OVAL = (
    *(10, 338, 297, 332, 284, 251, 389, 356, 454, 323, 361, 288, 397, 365, 379, 378, 400, 377),
    *(152, 148, 176, 149, 150, 136, 172, 58, 132, 93, 234, 127, 162, 21, 54, 103, 67, 109),
)
"""Outline of the face, clockwise in the picture from the top of the forehead."""

EYES = (
    *(33, 160, 159, 158, 133, 153, 145, 144),
    *(263, 387, 386, 385, 362, 380, 374, 373),
)
IRISES = (468, 473)
IRIS_RINGS = ((469, 470, 471, 472), (474, 475, 476, 477))
EYE_CORNERS = ((33, 133), (362, 263))
BROWS = (70, 105, 107, 55, 52, 46, 300, 334, 336, 285, 282, 276)
FOREHEAD = (54, 103, 67, 109, 10, 338, 297, 332, 284, 334, 336, 107, 105)
NOSE = (168, 6, 195, 4, 1, 2, 98, 327, 64, 294)
LIPS = (
    *(61, 91, 84, 17, 314, 321, 291, 270, 267, 0, 37, 40),
    *(78, 88, 87, 14, 317, 318, 308, 310, 312, 13, 82, 80),
)
INNER_LIPS = (78, 191, 80, 81, 82, 13, 312, 311, 310, 415, 308, 324, 318, 402, 317, 14, 87, 178, 88, 95)
"""Around the inside of the mouth."""
LIPS_APART = (13, 14)
"""The middle of the upper and of the lower lip, where they part."""
CHEEKS = (50, 280, 205, 425, 187, 411, 101, 330)
UPPER_CHEEKS = (50, 280, 101, 330)
CHIN = (200, 199, 175, 32, 262, 208, 428)
BELOW_BROWS = (33, 133, 263, 362, 168, 6)
"""Points that move with the skull: eye corners, root of the nose."""
RIGID = (*BELOW_BROWS, 195, 4, 1, 2, 98, 327)
"""Points that move with the skull: eye corners, nose."""

RIGHT_HALF = (
    *FACE_OVAL[19:],
    *EYES[:8],
    *(IRISES[0], *IRIS_RINGS[0]),
    *BROWS[:6],
    *(98, 64),
    *(61, 91, 84, 37, 40, 78, 88, 87, 80, 82),
    *CHEEKS[::2],
)
LEFT_HALF = (
    *FACE_OVAL[1:18],
    *EYES[8:],
    *(IRISES[1], *IRIS_RINGS[1]),
    *BROWS[6:],
    *(327, 294),
    *(291, 321, 314, 267, 270, 308, 318, 317, 310, 312),
    *CHEEKS[1::2],
)
"""Points of the warp on the person's own right and left, without those in the middle."""
SIDES, BRIDGE = (234, 454), 168
"""The widest points of the face, right and left, and the root of the nose between them."""
MIDLINE = (10, 151, 9, 8, 168, 6, 197, 195, 5, 4, 1, 2, 164, 0, 17, 18, 200, 199, 175, 152)
"""The middle of the face, from the top of the forehead down to the chin."""
NOSE_TIP = 1

CONTROL = tuple(dict.fromkeys(chain(FACE_OVAL[::2], EYES, IRISES, *IRIS_RINGS, BROWS, NOSE, LIPS, CHEEKS)))
"""Control points of the thin-plate warp."""
SKIN_PATCHES = ((50, 101, 36, 205, 187), (280, 330, 266, 425, 411), (109, 10, 338, 337, 9, 108))
"""Polygons of bare skin: both cheeks and the middle of the forehead."""
