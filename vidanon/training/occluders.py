"""Things in front of a face: hands, microphones, cups, cards, cloth, drawn onto generated pictures.

Real video has them and generated pictures do not. Hands take the skin colour of a generated person, so
that the colour alone does not give them away.
"""

from __future__ import annotations

from collections.abc import Callable

import cv2
import numpy as np

from vidanon.networks.segmenter import Part
from vidanon.types import Float, UInt8

_CENTER_SPREAD_PX = 26.0
_CANVAS_PX, _PALM_PX = 160, 40.0
_PALM_AT = np.array([80.0, 90.0])
"""Where an upright hand is drawn, its palm's width and the middle of its palm."""
_OWN_HAND = 0.7
"""So many hands are the person's own."""
_PALM = (0.14, 0.42)
"""Width of a palm, as a share of the picture: a hand is about as long as a face."""
_FINGERS = (0.9, 1.0, 0.95, 0.75)
_PHALANGES = (0.46, 0.3, 0.24)
_FULL_CURL = np.array([1.2, 1.6, 1.0])
"""How far the joints of a finger bend in a fist, radians."""


def add_occluder(
    picture: UInt8, labels: UInt8, other: UInt8, other_labels: UInt8, random: np.random.Generator
) -> tuple[UInt8, UInt8]:
    """Put one thing in front of a head.

    Args:
        picture: uint8 RGB (128, 128, 3).
        labels: uint8 (128, 128), values of :class:`Part`.
        other: another picture, which lends its colours and textures.
        other_labels: the labels of the other picture.
        random: decides what, where and how.

    Returns:
        New picture and new labels.
    """
    size = len(picture)
    draw = _KINDS[int(random.choice(len(_KINDS), p=_SHARES))]
    shape, shade = draw(size, random)
    if draw is _hand:
        lender = (picture, labels) if random.random() < _OWN_HAND else (other, other_labels)
        surface = _skin(*lender, random)
    else:
        surface = _texture(other, random)
    surface = np.clip(surface * shade[..., None], 0, 255)
    alpha = cv2.GaussianBlur(shape, (0, 0), random.uniform(0.4, 1.2))
    shadow = cv2.GaussianBlur(shape, (0, 0), random.uniform(2, 6)) * random.uniform(0, 0.45)
    under = picture * (1 - shadow)[..., None]
    result = under + alpha[..., None] * (surface - under)
    covered = np.where(alpha > 0.5, np.uint8(Part.OCCLUDER), labels)
    return np.asarray(result.round(), np.uint8), np.asarray(covered, np.uint8)


def _place(size: int, random: np.random.Generator) -> Float:
    """Return a point near the face, more often in its lower half, pixels."""
    center = random.normal((0.5 * size, 0.62 * size), _CENTER_SPREAD_PX)
    return np.asarray(np.clip(center, 0.05 * size, 0.98 * size), np.float32)


def _capsule(shape: Float, shade: Float, start: Float, end: Float, width: float) -> None:
    """Draw a round-ended stick that is darker towards its sides, over what is there."""
    layer = np.zeros(shape.shape, np.uint8)
    a, b = (tuple(np.round(p * 16).astype(int).tolist()) for p in (start, end))
    cv2.line(layer, a, b, 255, max(1, round(width)), cv2.LINE_AA, 4)
    depth = cv2.distanceTransform((layer > 127).astype(np.uint8), cv2.DIST_L2, 3)
    profile = 0.62 + 0.4 * np.clip(depth / max(0.35 * width, 1), 0, 1)
    own = layer > 127
    shade[own] = profile[own]
    np.maximum(shape, layer / np.float32(255), out=shape)


def _hand(size: int, random: np.random.Generator) -> tuple[Float, Float]:
    """A hand from outside the picture, open, bent or a fist, from either side, seen at a slant or not."""
    shape, shade = _upright_hand(random)
    angle = random.uniform(-np.pi, np.pi) if random.random() < 0.3 else random.normal(0, 0.8)
    scale = random.uniform(*_PALM) * size / _PALM_PX
    slant = np.diag([scale * random.uniform(0.6, 1.0), scale])
    turn = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]]) @ slant
    matrix = np.column_stack([turn, _place(size, random) - turn @ _PALM_AT])
    # The forearm leaves the drawing at its lower edge, and goes on from there.
    placed = (
        cv2.warpAffine(x, matrix, (size, size), borderMode=cv2.BORDER_REPLICATE) for x in (shape, shade)
    )
    shape, shade = (np.asarray(x, np.float32) for x in placed)
    return shape, shade


def _on_palm(across: float, down: float) -> Float:
    """Return a point of an upright hand, given in widths of its palm."""
    return np.asarray(_PALM_AT + np.array([across, down]) * _PALM_PX, np.float32)


def _beyond(point: Float, angle: float, length_px: float) -> Float:
    """Return what lies so far from a point in a direction; 0 is up, pi / 2 is right."""
    direction = np.array([np.sin(angle), -np.cos(angle)], np.float32)
    return np.asarray(point + direction * np.float32(length_px), np.float32)


def _upright_hand(random: np.random.Generator) -> tuple[Float, Float]:
    """Draw a hand that points up; fingers that bend far hide behind it, or lie on the palm, as seen."""
    shape = np.zeros((_CANVAS_PX, _CANVAS_PX), np.float32)
    shade = np.ones_like(shape)
    wrist = _on_palm(random.normal(0, 0.08), 0.6)
    elbow = _beyond(wrist, np.pi + random.normal(0, 0.15), _CANVAS_PX)
    _capsule(shape, shade, elbow, wrist, random.uniform(0.6, 0.8) * _PALM_PX)
    _capsule(shape, shade, _on_palm(0, 0.3), _on_palm(0, -0.15), 0.95 * _PALM_PX)
    curl, spread, lean = random.uniform(0, 1), random.uniform(0, 0.25), random.normal(0, 0.2)
    bend, from_palm = random.normal(0, 0.15), random.random() < 0.5
    for finger in range(4)[:: int(random.choice((-1, 1)))]:
        across = finger - 1.5
        root = _on_palm(0.25 * across, 0.05 * abs(across) - 0.45)
        bent = np.cumsum(_FULL_CURL * np.clip(curl + random.normal(0, 0.1), 0, 1))
        angle = across * spread + lean + random.normal(0, 0.05)
        for share, out_of_plane in zip(_PHALANGES, bent, strict=True):
            length = share * _FINGERS[finger] * _PALM_PX * np.cos(out_of_plane)
            end = _beyond(root, angle, length)
            if length > 0 or from_palm:
                _capsule(shape, shade, root, end, random.uniform(0.22, 0.26) * _PALM_PX)
            root, angle = end, angle + bend + random.normal(0, 0.06)
    if random.random() < 0.75:
        side = int(random.choice((-1, 1)))
        root = _on_palm(0.38 * side, 0.25)
        angle = side * random.uniform(-0.5, 1.4)
        for length in (0.5, 0.38):
            end = _beyond(root, angle, length * _PALM_PX)
            _capsule(shape, shade, root, end, 0.28 * _PALM_PX)
            root, angle = end, angle - side * random.uniform(0, 0.5)
    if random.random() < 0.25:  # the hollow of a loose fist
        hollow = np.ones_like(shade)
        middle = tuple(np.round(_on_palm(*random.normal(0, 0.2, 2))).astype(int).tolist())
        axes = tuple(np.round(random.uniform(0.08, 0.25, 2) * _PALM_PX).astype(int).tolist())
        cv2.ellipse(hollow, middle, axes, random.uniform(0, 180), 0, 360, random.uniform(0, 0.5), -1)
        shade *= cv2.GaussianBlur(hollow, (0, 0), random.uniform(1, 3))
    # Skin is shaded less than a stick, and softly.
    shade = 1 - random.uniform(0.3, 0.9) * (1 - cv2.GaussianBlur(shade, (0, 0), random.uniform(0.7, 2)))
    return shape, np.asarray(shade, np.float32)


def _stick(size: int, random: np.random.Generator) -> tuple[Float, Float]:
    """A microphone, a pen, a spoon: a stick from outside the picture with a head."""
    shape, shade = np.zeros((size, size), np.float32), np.ones((size, size), np.float32)
    head = _place(size, random)
    angle = random.uniform(0.1, np.pi - 0.1)
    away = np.array([np.cos(angle), np.sin(angle)], np.float32)
    width = random.uniform(0.02, 0.11) * size
    _capsule(shape, shade, head + away * size * 1.5, head, width)
    ball = width * random.uniform(1, 2.4)
    _capsule(shape, shade, head, head + away * random.uniform(0, 0.8) * ball, ball)
    return shape, shade


def _solid(size: int, random: np.random.Generator) -> tuple[Float, Float]:
    """A cup, a phone, a mask, a sheet: a polygon or an ellipse, lit from one side."""
    layer = np.zeros((size, size), np.uint8)
    center, extent = _place(size, random), random.uniform(0.1, 0.4, 2) * size
    if random.random() < 0.5:
        corners = np.sort(random.uniform(0, 2 * np.pi, random.integers(3, 8)))
        points = center + np.stack([np.cos(corners), np.sin(corners)], 1) * extent
        cv2.fillPoly(layer, [np.round(points).astype(np.int32)], 255, cv2.LINE_AA)
    else:
        box = (center.tolist(), (extent * 1.3).tolist(), float(random.uniform(0, 180)))
        if random.random() < 0.5:
            cv2.ellipse(layer, box, 255, -1, cv2.LINE_AA)
        else:
            cv2.fillPoly(layer, [np.round(cv2.boxPoints(box)).astype(np.int32)], 255, cv2.LINE_AA)
    shade = _smooth_noise(size, random, 0.25)
    return np.asarray(layer / 255, np.float32), shade


def _smooth_noise(size: int, random: np.random.Generator, spread: float) -> Float:
    coarse = random.normal(1, spread, (3, 3)).astype(np.float32)
    return np.asarray(cv2.resize(coarse, (size, size), interpolation=cv2.INTER_CUBIC), np.float32)


def _skin(picture: UInt8, labels: UInt8, random: np.random.Generator) -> Float:
    """A surface with the colours of a person's skin, float32 (size, size, 3)."""
    size = len(picture)
    own = picture[labels == Part.SKIN]
    if len(own) < 50:
        return _texture(picture, random)
    lit = np.percentile(own, random.uniform(35, 80), axis=0)
    tint = random.normal(1, 0.03, 3) * random.uniform(0.8, 1.25)
    grain = cv2.GaussianBlur(random.normal(0, 1, (size, size)).astype(np.float32), (0, 0), 1.5) * 8
    surface = lit * tint * _smooth_noise(size, random, 0.12)[..., None] + grain[..., None]
    return np.asarray(surface, np.float32)


def _texture(other: UInt8, random: np.random.Generator) -> Float:
    """A plain colour, noise, stripes, or a patch of another picture, float32 (size, size, 3)."""
    size = len(other)
    kind = random.random()
    if kind < 0.35:
        edge = int(random.integers(16, size))
        y, x = random.integers(0, size - edge + 1, 2)
        patch = other[y : y + edge, x : x + edge]
        return np.asarray(cv2.resize(patch, (size, size), interpolation=cv2.INTER_LINEAR), np.float32)
    colour = random.uniform(0, 255, 3) if random.random() < 0.6 else np.full(3, random.uniform(0, 255))
    surface = np.full((size, size, 3), colour, np.float32)
    if kind < 0.55:
        rows, columns = np.mgrid[0:size, 0:size]
        wave = np.sin((rows * random.normal() + columns * random.normal()) * random.uniform(0.1, 1.5))
        surface += wave[..., None] * random.normal(0, 40, 3)
    elif kind < 0.75:
        cells = int(random.integers(2, 24))
        coarse = random.normal(0, 35, (cells, cells, 3)).astype(np.float32)
        surface += cv2.resize(coarse, (size, size), interpolation=cv2.INTER_LINEAR)
    return np.asarray(surface * _smooth_noise(size, random, 0.15)[..., None], np.float32)


_KINDS: tuple[Callable[[int, np.random.Generator], tuple[Float, Float]], ...] = (_hand, _stick, _solid)
_SHARES = (0.55, 0.2, 0.25)
