"""What a picture of a face is compared by: the numbers that all losses are made of.

The frozen networks give an embedding, landmarks and blendshapes. Landmarks are compared after FFHQ alignment,
so position, size and tilt of the crop play no part; head rotation is a linear function of them (measured
against a perspective fit over the samples).
"""

from __future__ import annotations

from dataclasses import dataclass, fields

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from vidanon.geometry import apply_each, unit_crop_from_frame
from vidanon.networks.mapper import GAZE_SIZE, POSE_SIZE, Geometry, gaze_offsets
from vidanon.stages.head_pose import HeadPose
from vidanon.training.data import PICTURE_PX, Samples
from vidanon.types import BLENDSHAPE_COUNT, EMBEDDING_SIZE, LANDMARK_COUNT, Float

LANDMARK_DIRECTIONS = 60
THUMBNAIL_PX = 16
THUMBNAIL_DIRECTIONS = 120
MIN_BLENDSHAPE_SCALE = 0.05
"""Smallest unit of a blendshape: those that hardly vary in generated faces would swamp the others."""
RIDGE = 1e-5


@dataclass(frozen=True, slots=True)
class Traits:
    """Faces as numbers, one per row; float32.

    Attributes:
        embedding: (n, 128), unit length.
        pose: (n, 3), rotation vector, standardised.
        gaze: (n, 4), iris offsets in eye widths (x, y of one eye, then of the other), standardised.
        landmarks: (n, 60), principal directions, of mean square 1 in all.
        expression: (n, 52), blendshapes, standardised.
        thumbnail: (n, 120), principal directions, of mean square 1 in all.
    """

    embedding: Tensor
    pose: Tensor
    gaze: Tensor
    landmarks: Tensor
    expression: Tensor
    thumbnail: Tensor

    def __getitem__(self, rows: Tensor) -> Traits:
        return Traits(*(getattr(self, f.name)[rows] for f in fields(self)))

    def to(self, device: str) -> Traits:
        """Move everything to a device."""
        return Traits(*(getattr(self, f.name).to(device) for f in fields(self)))

    def flat(self) -> Tensor:
        """Return everything side by side, (n, TRAITS_SIZE)."""
        return torch.cat([getattr(self, f.name) for f in fields(self)], 1)


SIZES = (EMBEDDING_SIZE, POSE_SIZE, GAZE_SIZE, LANDMARK_DIRECTIONS, BLENDSHAPE_COUNT, THUMBNAIL_DIRECTIONS)
TRAITS_SIZE = sum(SIZES)


def split(flat: Tensor) -> Traits:
    """Undo :meth:`Traits.flat`; the embedding is brought to unit length."""
    embedding, *rest = torch.split(flat, list(SIZES), 1)
    return Traits(functional.normalize(embedding), *rest)


def aligned_landmarks(landmarks: Float) -> Float:
    """Align landmarks (n, 478, 2) of any crop to the unit crop (FFHQ)."""
    return apply_each(np.stack([unit_crop_from_frame(face) for face in landmarks]), landmarks)


def thumbnails(pictures: Tensor) -> Tensor:
    """Average pictures (n, 3, h, h), about [-1, 1], down to (n, 768)."""
    return functional.adaptive_avg_pool2d(pictures.clamp(-1.2, 1.2), THUMBNAIL_PX).flatten(1)


class TraitSpace(nn.Module):
    """Units and directions of the traits, taken from samples; its buffers are saved with a run."""

    landmark_mean: Tensor
    landmark_basis: Tensor
    landmark_scale: Tensor
    expression_mean: Tensor
    expression_scale: Tensor
    thumbnail_mean: Tensor
    thumbnail_basis: Tensor
    thumbnail_scale: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.geometry = Geometry()
        flat = LANDMARK_COUNT * 2
        shapes: dict[str, tuple[int, ...]] = {
            "landmark_mean": (flat,),
            "landmark_basis": (LANDMARK_DIRECTIONS, flat),
            "landmark_scale": (),
            "expression_mean": (BLENDSHAPE_COUNT,),
            "expression_scale": (BLENDSHAPE_COUNT,),
            "thumbnail_mean": (THUMBNAIL_PX**2 * 3,),
            "thumbnail_basis": (THUMBNAIL_DIRECTIONS, THUMBNAIL_PX**2 * 3),
            "thumbnail_scale": (),
        }
        for name, shape in shapes.items():
            self.register_buffer(name, torch.zeros(shape))

    def fit(self, samples: Samples, head_pose: HeadPose) -> None:
        """Take means, units and directions from samples."""
        landmarks = torch.from_numpy(aligned_landmarks(samples.landmarks))
        flat = landmarks.flatten(1)
        self.landmark_mean = flat.mean(0)
        self.landmark_basis = _directions(flat - self.landmark_mean, LANDMARK_DIRECTIONS)
        self.landmark_scale = (flat - self.landmark_mean).pow(2).sum(1).mean().sqrt()
        gaze = gaze_offsets(landmarks)
        self.geometry.gaze_mean, self.geometry.gaze_scale = gaze.mean(0), gaze.std(0)
        blendshapes = torch.from_numpy(samples.blendshapes)
        self.expression_mean = blendshapes.mean(0)
        self.expression_scale = blendshapes.std(0).clamp_min(MIN_BLENDSHAPE_SCALE)
        small = _sample_thumbnails(samples)
        self.thumbnail_mean = small.mean(0)
        self.thumbnail_basis = _directions(small - self.thumbnail_mean, THUMBNAIL_DIRECTIONS)
        self.thumbnail_scale = (small - self.thumbnail_mean).pow(2).sum(1).mean().sqrt()
        self._fit_pose(flat, rotation_vectors(landmarks.numpy(), head_pose))

    def _fit_pose(self, flat: Tensor, turns: Tensor) -> None:
        """Fit standardised rotation vectors by a ridge regression within the principal directions."""
        turns = (turns - turns.mean(0)) / turns.std(0)
        codes = (flat - self.landmark_mean) @ self.landmark_basis.T / self.landmark_scale
        gram = codes.T @ codes / len(codes) + RIDGE * torch.eye(LANDMARK_DIRECTIONS)
        weights = torch.linalg.solve(gram, codes.T @ turns / len(codes))
        self.geometry.pose_map = self.landmark_basis.T @ weights / self.landmark_scale
        self.geometry.pose_bias = -self.landmark_mean @ self.geometry.pose_map

    def traits(self, embedding: Tensor, landmarks: Tensor, blendshapes: Tensor, small: Tensor) -> Traits:
        """Put readings together.

        Args:
            embedding: (n, 128), any length.
            landmarks: (n, 478, 2), aligned to the unit crop.
            blendshapes: (n, 52), 0..1.
            small: (n, 768), thumbnails, [-1, 1].
        """
        codes = (landmarks.flatten(1) - self.landmark_mean) @ self.landmark_basis.T
        return Traits(
            functional.normalize(embedding),
            self.geometry.pose(landmarks),
            self.geometry.gaze(landmarks),
            codes / self.landmark_scale * LANDMARK_DIRECTIONS**0.5,
            (blendshapes - self.expression_mean) / self.expression_scale,
            (small - self.thumbnail_mean)
            @ self.thumbnail_basis.T
            / self.thumbnail_scale
            * THUMBNAIL_DIRECTIONS**0.5,
        )

    def traits_of(self, samples: Samples) -> Traits:
        """Return the traits of samples, as the frozen networks read them."""
        return self.traits(
            torch.from_numpy(samples.embeddings),
            torch.from_numpy(aligned_landmarks(samples.landmarks)),
            torch.from_numpy(samples.blendshapes),
            _sample_thumbnails(samples),
        )

    def jawless_difference(self, first: Traits, second: Traits, kept: Tensor) -> Tensor:
        """Return landmark differences (n, k, 2) of the landmarks ``kept``, pixels of a 256 px picture."""
        codes = (first.landmarks - second.landmarks) / LANDMARK_DIRECTIONS**0.5 * self.landmark_scale
        points = (codes @ self.landmark_basis).reshape(-1, LANDMARK_COUNT, 2)
        pixels: Tensor = points[:, kept] * PICTURE_PX
        return pixels


def rotation_vectors(landmarks: Float, head_pose: HeadPose) -> Tensor:
    """Return rotation vectors (n, 3), radians, of landmarks (n, 478, 2) in the unit crop."""
    import cv2

    turns = [head_pose(face * PICTURE_PX, PICTURE_PX, PICTURE_PX) for face in landmarks]
    return torch.from_numpy(np.stack([cv2.Rodrigues(turn)[0].ravel() for turn in turns]).astype(np.float32))


def _sample_thumbnails(samples: Samples) -> Tensor:
    parts = [
        thumbnails(torch.from_numpy(samples.pictures[i : i + 1024]).permute(0, 3, 1, 2) / 127.5 - 1)
        for i in range(0, len(samples), 1024)
    ]
    return torch.cat(parts)


def _directions(centred: Tensor, count: int) -> Tensor:
    """Return the first principal directions (count, d) of rows (n, d)."""
    covariance = centred.T @ centred / len(centred)
    vectors: Tensor = torch.linalg.eigh(covariance).eigenvectors
    return vectors[:, -count:].flip(1).T.contiguous()
