"""From a crop of the real face and a fictional identity to a picture of the new face.

    crop (128 px) + identity code + blendshapes -> attribute encoder and mapper -> w -> generator -> picture

Networks are loaded once per process and are safe to call from several threads.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Literal

import cv2
import numpy as np

from vidanon.geometry import compose, picture_from_unit
from vidanon.models.registry import ModelStore, weights_path
from vidanon.networks.converted import Recipe, shared_network
from vidanon.networks.runtime import Network, let_go
from vidanon.types import BLENDSHAPE_COUNT, EMBEDDING_SIZE, LANDMARK_COUNT, Bool, Float, UInt8

if TYPE_CHECKING:
    from torch import nn

CROP_PX = 128
EXIT_REACH_PX = {128: 160, 256: 300, 512: 820}
"""Longest side of a crop on screen for which an exit is used, pixels; beyond the last, the full 1024 px.

Of the finest detail of the sample clip's face (crop of 408 px) a new one shows .41 with the exit of 256 px,
.69 with 512 and .84 with 1024; of MEAD's (752 px) .75 with 512 and 1.12 with 1024.
"""
W_SIZE = 512
Cutout = Literal["whole", "close-up", "mouth"]
CUTOUTS: dict[Cutout, tuple[float, float, float, float] | None] = {
    "whole": None,
    "close-up": (0.125, 0.09375, 0.875, 1.0),
    "mouth": (0.3125, 0.59375, 0.6875, 0.875),
}
"""Parts of a picture that can be made alone, in shares of its side: x0, y0, x1, y1; 32nds, as the generator
needs. A close-up shows the face; the rest takes a third of the time and is not used unless the head is turned
far. The mouth takes a quarter of a close-up's time."""
_RECIPE_NAMES: dict[Cutout, str] = {"whole": "exit-", "close-up": "close-up-", "mouth": "mouth-"}
MARGIN = 0.03
"""So far inside it an outline has to lie, shares of the picture's side. Nearer to its border the features
lack their surroundings: colours are off by 10 of 255 on average, at the margin by 4, beyond .06 by 0."""
MOUTH_FROM_PX = 512
"""In smaller pictures a mouth alone saves less than it takes to load what makes it."""
SMOOTH_SIGMA_FRAMES = 1.0
SMOOTH_REACH_FRAMES = 3
EVEN_LIMITS = {128: (0.3, 1.5), 256: (0.3, 1.5), 512: (0.25, 1.0), 1024: (0.25, 1.0)}
"""How far, by exit, w may lie from the mean of its neighbours, and these from each other, for the picture to
be the mean of theirs. Inside the face it was never further than 39 dB from the picture of w on five clips,
and at 128 and 256 px nearer than 44 dB in 95 % of the frames. Blinks and fast speech are beyond the limits.
"""


def crop_face(image: UInt8, crop_from_frame: Float, size: int = CROP_PX) -> Float:
    """Cut the FFHQ-aligned crop as the networks take it: float32 (3, size, size), [-1, 1]; see `cut_face`."""
    return as_input(cut_face(image, crop_from_frame, size))


def cut_face(image: UInt8, crop_from_frame: Float, size: int = CROP_PX) -> UInt8:
    """Cut the FFHQ-aligned crop.

    Args:
        image: uint8 RGB (height, width, 3).
        crop_from_frame: float32 (2, 3), frame pixels to the unit crop.
        size: pixels of the crop.

    Returns:
        uint8 RGB (size, size, 3).
    """
    side_px = 1 / max(float(np.hypot(*crop_from_frame[:, 0])), 1e-9)
    fine = size * int(np.clip(np.ceil(side_px / size), 1, 8))
    matrix = compose(picture_from_unit(fine), crop_from_frame)
    crop = cv2.warpAffine(
        image, matrix, (fine, fine), flags=cv2.INTER_LINEAR, borderMode=cv2.BORDER_REFLECT_101
    )
    if fine != size:
        crop = cv2.resize(crop, (size, size), interpolation=cv2.INTER_AREA)
    return np.asarray(crop, np.uint8)


def as_input(picture: UInt8) -> Float:
    """Turn uint8 RGB (h, w, 3) into what the networks take: float32 (3, h, w), [-1, 1]."""
    return picture.astype(np.float32).transpose(2, 0, 1) / np.float32(127.5) - np.float32(1)


def exit_for_face(crop_from_frame: Float, forced_px: int = 0) -> int:
    """Return the smallest generator exit that looks sharp at the size on screen.

    Args:
        crop_from_frame: float32 (n, 2, 3) of one track, NaN rows allowed.
        forced_px: an exit to use regardless; 0 to choose.
    """
    if forced_px:
        return forced_px
    scale = np.hypot(crop_from_frame[:, 0, 0], crop_from_frame[:, 1, 0])
    scale = scale[np.isfinite(scale) & (scale > 0)]
    if not len(scale):
        return min(EXIT_REACH_PX)
    side_px = float(np.percentile(1 / scale, 75))
    return next((size for size, reach_px in EXIT_REACH_PX.items() if side_px <= reach_px), 1024)


def cutouts_of(exit_px: int) -> list[Cutout]:
    """Return what is made of pictures of a size."""
    return [cutout for cutout in CUTOUTS if cutout != "mouth" or exit_px >= MOUTH_FROM_PX]


def fit(cutout: Cutout, outlines: Float) -> Bool:
    """Say which outlines a cutout shows with all that lies within.

    Args:
        cutout: not the whole.
        outlines: float32 (n, points, 2), in unit crops.

    Returns:
        bool (n,), False where anything is NaN.
    """
    window = CUTOUTS[cutout]
    assert window is not None
    x0, y0, x1, y1 = window
    low, high = outlines.min(1) - MARGIN, outlines.max(1) + MARGIN
    # Where cutout and picture end together, as close-ups do below, there is nothing that it lacks.
    bottom = np.inf if y1 == 1 else y1
    return np.asarray((low >= (x0, y0)).all(1) & (high <= (x1, bottom)).all(1))


def smooth_latents(latents: Sequence[Float | None], center: int) -> Float | None:
    """Zero-phase Gaussian mean of w (or of part chances) around one frame of a track.

    Args:
        latents: float32, of one shape, of consecutive frames; None where there is no face.
        center: index of the frame wanted.
    """
    if latents[center] is None:
        return None
    total, weights = np.zeros_like(latents[center]), 0.0
    for index in range(
        max(0, center - SMOOTH_REACH_FRAMES), min(len(latents), center + SMOOTH_REACH_FRAMES + 1)
    ):
        latent = latents[index]
        if latent is not None:
            weight = float(np.exp(-0.5 * ((index - center) / SMOOTH_SIGMA_FRAMES) ** 2))
            total += np.float32(weight) * latent
            weights += weight
    return (total / np.float32(weights)).astype(np.float32)


def even_mean(before: Float | None, w: Float | None, after: Float | None, exit_px: int) -> Float | None:
    """Return the mean of two w, float32 (512,), where the picture of a third is, to the eye, that of theirs.

    Args:
        before: float32 (512,), w of an earlier frame; None where there is none.
        w: of the frame asked about.
        after: of a later frame, as far away.
        exit_px: side of the pictures, pixels.
    """
    if before is None or w is None or after is None:
        return None
    from_mean, apart = EVEN_LIMITS[exit_px]
    mean = np.float32(0.5) * (before + after)
    is_even = np.linalg.norm(w - mean) <= from_mean and np.linalg.norm(after - before) <= apart
    return mean if is_even else None


def mean_picture(one: UInt8, other: UInt8) -> UInt8:
    """Return the mean of two pictures of one shape, uint8."""
    return np.asarray(cv2.addWeighted(one, 0.5, other, 0.5, 0), np.uint8)


class Synthesizer:
    """Attribute encoder, mapper and generator behind two calls."""

    def __init__(self, models: ModelStore, device: str, workers: int) -> None:
        self._models, self._device, self._workers = models, device, workers
        self._mapper = self._network(mapper_recipe(), bfloat16=False)
        self._exits: dict[tuple[int, Cutout], Network] = {}

    def _network(self, recipe: Recipe, bfloat16: bool) -> Network:
        return shared_network(recipe, self._models.converted, self._device, self._workers, bfloat16)

    def prepare(self, exit_px: int, cutout: Cutout = "whole") -> None:
        """Load a generator exit, or a cutout of it; call before threads start."""
        key = exit_px, cutout
        if key not in self._exits:
            self._exits[key] = self._network(exit_recipe(self._models, *key), bfloat16=True)

    def latent(self, crop: Float, identity: Float, blendshapes: Float, landmarks: Float) -> Float:
        """Find the latent of a face.

        Args:
            crop: float32 (3, 128, 128), [-1, 1].
            identity: float32 (128,), of the new person.
            blendshapes: float32 (52,), 0..1.
            landmarks: float32 (478, 2), in the unit crop.

        Returns:
            float32 (512,), w.
        """
        inputs = (crop, identity, blendshapes, landmarks)
        return np.asarray(self._mapper(*(x[None] for x in inputs))[0][0], np.float32)

    def picture(self, w: Float, exit_px: int, cutout: Cutout = "whole") -> UInt8:
        """Generate the face of w, uint8 RGB (exit_px, exit_px, 3); what is outside a cutout mirrors it."""
        out = self._exits[exit_px, cutout](w[None])[0][0]
        drawn = np.clip(out.transpose(1, 2, 0) * 127.5 + 127.5, 0, 255).round().astype(np.uint8)
        window = CUTOUTS[cutout]
        if window is None:
            return np.asarray(drawn, np.uint8)
        x0, y0, x1, y1 = (int(edge * exit_px) for edge in window)
        borders = y0, exit_px - y1, x0, exit_px - x1
        return np.asarray(cv2.copyMakeBorder(drawn, *borders, cv2.BORDER_REFLECT_101), np.uint8)

    def mouth(self, w: Float, lips: Float, exit_px: int, cutout: Cutout) -> UInt8:
        """Generate another mouth for a face; what is around it may be anything.

        Args:
            w: float32 (512,), of the face with that mouth.
            lips: float32 (n, 2), the lips and what is taken around them, pixels of the face's picture.
            exit_px: as of that picture.
            cutout: of which it is.

        Returns:
            uint8 RGB (exit_px, exit_px, 3).
        """
        if "mouth" in cutouts_of(exit_px) and fit("mouth", lips[None] / np.float32(exit_px))[0]:
            cutout = "mouth"
            self.prepare(exit_px, cutout)  # few videos need it
        return self.picture(w, exit_px, cutout)


def let_generator_go() -> None:
    """Free the generator's memory once no :class:`Synthesizer` is left; the next one loads it again."""
    let_go(lambda key: str(key[0]).startswith(tuple(_RECIPE_NAMES.values())))


def mapper_recipe() -> Recipe:
    """Return how attribute encoder and mapper are made, as one network."""

    def build() -> nn.Module:
        from vidanon.networks.mapper import load_attribute_mapper

        return load_attribute_mapper()

    example = (
        np.zeros((1, 3, CROP_PX, CROP_PX), np.float32),
        np.zeros((1, EMBEDDING_SIZE), np.float32),
        np.zeros((1, BLENDSHAPE_COUNT), np.float32),
        np.zeros((1, LANDMARK_COUNT, 2), np.float32),
    )
    return Recipe("mapper", build, example, (weights_path("mapper.safetensors"),))


def exit_recipe(models: ModelStore, exit_px: int, cutout: Cutout = "whole") -> Recipe:
    """Return how a generator exit, or a cutout of it, is made.

    Raises:
        ModelsError: the generator is missing.
    """
    graph = models.path("generator-synthesis")
    window = CUTOUTS[cutout]

    def build() -> nn.Module:
        from vidanon.networks.exit_heads import arrange_for_inference, load_exit_generator

        return arrange_for_inference(load_exit_generator(models, exit_px, window))

    weights = (graph, graph.with_suffix(".bin"), weights_path("exits.safetensors"))
    name = f"{_RECIPE_NAMES[cutout]}{exit_px}"
    return Recipe(name, build, (np.zeros((1, W_SIZE), np.float32),), weights, window or ())
