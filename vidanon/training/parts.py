"""Labels for free: which pixel of a generated picture is skin, hair, background, without a label set.

k-means on the generator's own 64 px features separates the parts of a head ("Labels4Free", "Editing in
Style" make the same observation for StyleGAN). A cluster gets its name from where it lies on the 478
landmarks and how far its colour is from that person's skin; colour then settles the pixels at the borders and
the clusters that hold dark things of every kind.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import cv2
import numpy as np
import torch
from scipy.cluster.vq import kmeans2
from torch import Tensor, nn

from vidanon.networks.generator import Generator
from vidanon.networks.segmenter import Part
from vidanon.stages.mesh import BROWS, EYES, FACE_OVAL, LIPS
from vidanon.types import Bool, Float, UInt8

FEATURES_PX = 64
LABELS_PX = 128
CLUSTERS = 22
DIRECTIONS = 40
_KMEANS_PIXELS = 40_000
_CHIN_ID, _TOP_ID, _NOSE_ID = 152, 10, 2
_LAB_WEIGHT = np.array([0.6, 1, 1], np.float32)
_COLOURED = (Part.BACKGROUND, Part.SKIN, Part.HAIR, Part.CLOTHES)
_COLOUR_WEIGHT = 0.35
_BEARD_DARKER = 13.0
"""How much darker than the cheeks, in L of CIE Lab, a pixel of the lower face must be to be beard."""
_BEARD_SHARE = 0.16
"""Share of the chin that must be dark: less is a shadow or a parted mouth."""


class ClusterMap(nn.Module):
    """The generator up to its 64 px features, and the nearest cluster of every pixel."""

    mean: Tensor
    scale: Tensor
    centers: Tensor

    def __init__(self, generator: Generator, mean: Float, scale: Float, centers: Float) -> None:
        """Keep the clusters: mean and scale (c,) of the features, centers (k, c) of the unit features."""
        super().__init__()
        self.generator = generator
        for name, value in {"mean": mean, "scale": scale, "centers": centers}.items():
            self.register_buffer(name, torch.from_numpy(value))
        self.eval().requires_grad_(False)

    def arrays(self) -> dict[str, Float]:
        """Return mean, scale and centers."""
        return {name: getattr(self, name).numpy() for name in ("mean", "scale", "centers")}

    def forward(self, w: Tensor) -> Tensor:
        """Map w (n, 512) to cluster numbers, int32 (n, 64, 64)."""
        mean, scale = self.mean[:, None, None], self.scale[:, None, None]
        x = (self.generator.features(w, FEATURES_PX) - mean) / scale
        x = x / x.norm(dim=1, keepdim=True)
        weight = 2 * self.centers[:, :, None, None]
        score = nn.functional.conv2d(x, weight, -self.centers.square().sum(1))
        return score.argmax(1).int()


def fit_clusters(generator: Generator, latents: Float, seed: int) -> ClusterMap:
    """Cluster the features of some latents, float32 (n, 512); 60 are enough.

    Features are standardised, scaled to unit length and reduced to their 40 principal directions.
    """
    with torch.no_grad():
        maps = [generator.features(torch.from_numpy(w[None]), FEATURES_PX)[0] for w in latents]
    pixels = torch.stack(maps).permute(0, 2, 3, 1).flatten(0, 2).numpy()
    mean, scale = pixels.mean(0), pixels.std(0) + 1e-6
    unit = (pixels - mean) / scale
    unit /= np.linalg.norm(unit, axis=1, keepdims=True)
    directions = np.linalg.eigh(unit.T @ unit)[1][:, : -DIRECTIONS - 1 : -1]
    random = np.random.default_rng(seed)
    reduced = unit[random.choice(len(unit), min(len(unit), _KMEANS_PIXELS), replace=False)] @ directions
    runs = [kmeans2(reduced, CLUSTERS, iter=40, minit="++", rng=random) for _ in range(3)]
    centers = min(runs, key=lambda run: float(((reduced - run[0][run[1]]) ** 2).sum()))[0]
    values = (x.astype(np.float32) for x in (mean, scale, centers @ directions.T))
    return ClusterMap(generator, *values)


@dataclass(frozen=True, slots=True)
class _Head:
    """Regions of one picture that its landmarks give, bool (size, size), and its Lab colours."""

    oval: Bool
    features: Bool
    head: Bool
    skin_distance: Float


def name_clusters(clusters: UInt8, pictures: UInt8, landmarks: Float) -> tuple[Part, ...]:
    """Give every cluster its part.

    Args:
        clusters: (n, 64, 64), cluster numbers.
        pictures: uint8 RGB (n, 128, 128, 3).
        landmarks: float32 (n, 478, 2), unit crop.
    """
    heads = [_read_head(p, points) for p, points in zip(pictures, landmarks, strict=True)]
    oval, features, head = (np.array([getattr(h, x) for h in heads]) for x in ("oval", "features", "head"))
    distance = np.array([h.skin_distance for h in heads])
    rows = np.broadcast_to(np.arange(FEATURES_PX)[:, None] / FEATURES_PX, clusters.shape)
    names = []
    for k in range(CLUSTERS):
        own = clusters == k
        inside, near = oval[own].mean(), head[own].mean()
        if distance[own].mean() < 18.5:
            names.append(Part.FEATURES if features[own].mean() > 0.25 else Part.SKIN)
        elif near > 0.8 or (near > 0.45 and inside > 0.02):
            names.append(Part.HAIR)
        else:
            names.append(Part.CLOTHES if rows[own].mean() > 0.62 else Part.BACKGROUND)
    return tuple(names)


def _read_head(picture: UInt8, landmarks: Float) -> _Head:
    points = landmarks * FEATURES_PX
    outline = points[list(FACE_OVAL)]
    oval = _fill(outline, FEATURES_PX)
    features = _features_mask(points, FEATURES_PX)
    center = outline.mean(0)
    grown = (outline - center) * 1.45 + center + 0.22 * (points[_TOP_ID] - points[_CHIN_ID])
    small = cv2.resize(picture, (FEATURES_PX, FEATURES_PX), interpolation=cv2.INTER_AREA)
    lab = _lab(np.asarray(small, np.uint8))
    skin = np.median(lab[oval & ~features], axis=0)
    distance = np.linalg.norm((lab - skin) * _LAB_WEIGHT, axis=2)
    return _Head(oval, features, _fill(grown, FEATURES_PX), np.asarray(distance, np.float32))


def _features_mask(points: Float, size: int) -> Bool:
    mask = np.zeros((size, size), bool)
    for part in (EYES[:8], EYES[8:], BROWS[:6], BROWS[6:], LIPS[:12]):
        mask |= _fill(_hull(points, part), size)
    return mask


def _hull(points: Float, ids: tuple[int, ...]) -> Float:
    return np.asarray(cv2.convexHull(points[list(ids)].astype(np.float32))[:, 0], np.float32)


def _fill(polygon: Float, size: int) -> Bool:
    mask = np.zeros((size, size), np.uint8)
    cv2.fillPoly(mask, [np.round(polygon * 16 - 8).astype(np.int32)], 1, shift=4)
    return np.asarray(mask > 0)


def _lab(picture: UInt8) -> Float:
    return np.asarray(cv2.cvtColor(picture.astype(np.float32) / 255, cv2.COLOR_RGB2LAB), np.float32)


@lru_cache(maxsize=1)
def _one_hot() -> Float:
    return np.eye(len(Part), dtype=np.float32)


def label_picture(clusters: UInt8, names: tuple[Part, ...], picture: UInt8, landmarks: Float) -> UInt8:
    """Label one generated picture.

    Args:
        clusters: (64, 64), cluster numbers.
        names: part of every cluster.
        picture: uint8 RGB (128, 128, 3).
        landmarks: float32 (478, 2), unit crop.

    Returns:
        uint8 (128, 128), values of :class:`Part`.
    """
    coarse = _one_hot()[np.array(names, np.uint8)[clusters]]
    chance = cv2.resize(coarse, (LABELS_PX, LABELS_PX), interpolation=cv2.INTER_LINEAR)
    lab = _lab(picture)
    points = landmarks * LABELS_PX
    oval = _fill(points[list(FACE_OVAL)], LABELS_PX)
    score = np.log(chance + 0.03)
    for part in _COLOURED:
        score[..., part] -= _COLOUR_WEIGHT * _surprise(lab, chance[..., part] > 0.9)
    score[..., [Part.BEARD, Part.OCCLUDER]] = -np.inf
    score[..., Part.FEATURES] -= _COLOUR_WEIGHT * 2.0
    score[..., Part.FEATURES][~_grow(oval, 3)] = -np.inf
    score[..., [Part.BACKGROUND, Part.CLOTHES]] -= 2.0 * _grow(oval, -4)[..., None]
    score = cv2.GaussianBlur(np.maximum(score, -20), (0, 0), 0.7)
    labels = score.argmax(2).astype(np.uint8)
    labels[_beard(lab, labels, points, oval)] = Part.BEARD
    return np.asarray(labels, np.uint8)


def _surprise(lab: Float, sure: Bool) -> Float:
    """Squared distance of every pixel from the colours of a part, 0..9; 9 where the part is missing."""
    if sure.sum() < 30:
        return np.full(lab.shape[:2], 9, np.float32)
    own = lab[sure]
    spread = np.maximum(own.std(0), (6, 4, 4))
    surprise = (((lab - own.mean(0)) / spread) ** 2).mean(2)
    return np.asarray(np.minimum(surprise, 9), np.float32)


def _grow(mask: Bool, by: int) -> Bool:
    """Dilate a mask by pixels, or erode it where ``by`` is negative."""
    kernel = np.ones((2 * abs(by) + 1,) * 2, np.uint8)
    change = cv2.dilate if by > 0 else cv2.erode
    return np.asarray(change(mask.astype(np.uint8), kernel) > 0)


def _beard(lab: Float, labels: UInt8, points: Float, oval: Bool) -> Bool:
    """Find the dark pixels of the lower face, where there are enough of them on both sides to be a beard.

    Dark is measured against the upper face in the same column of an upright head, so that the side of a face
    that lies in the shade is no beard.
    """
    rows, columns = np.mgrid[0:LABELS_PX, 0:LABELS_PX]
    below = rows > points[_NOSE_ID, 1]
    lips = _grow(_fill(_hull(points, LIPS[:12]), LABELS_PX), 1)
    lower = _grow(oval, 2) & (rows > points[_NOSE_ID, 1] + 0.02 * LABELS_PX) & ~lips
    skin = (oval & ~below & (labels == Part.SKIN)).astype(np.float32)
    light = cv2.blur(np.stack([(skin * lab[..., 0]).sum(0), skin.sum(0)]), (15, 1))
    if not skin.any() or not lower.any():
        return np.zeros_like(oval)
    dark = lab[..., 0] < light[0] / np.maximum(light[1], 1e-3) - _BEARD_DARKER
    dark &= light[1] > 0.5
    own = lower & dark & np.isin(labels, (Part.SKIN, Part.HAIR, Part.FEATURES))
    chin = lower & _grow(oval, -3)
    left = columns < points[_CHIN_ID, 0]
    enough = all((own & chin & side).sum() > _BEARD_SHARE * (chin & side).sum() for side in (left, ~left))
    return own if enough else np.zeros_like(own)
