"""What SFace sees of a new face in the source's place, as a function of w that can be differentiated."""

from __future__ import annotations

from typing import TYPE_CHECKING, cast

import torch
from torch import Tensor, nn
from torch.nn import functional

from vidanon.networks.exit_heads import load_exit_generator
from vidanon.networks.torch_graph import load_graph

if TYPE_CHECKING:
    from vidanon.models.registry import ModelStore

EXIT_PX = 128
CONTRAST = (0.2, 1.3)
"""Between these lies what the colour match can make of a picture's contrast."""
LEAST_WEIGHT = 0.05


class Likeness(nn.Module):
    """Generator and SFace, frozen; what lies between them is taken to be linear around one composite.

    Args:
        models: where both are.

    Raises:
        ModelsError: one is missing.
    """

    def __init__(self, models: ModelStore) -> None:
        super().__init__()
        self.generator = load_exit_generator(models, EXIT_PX)
        self.sface = load_graph(models, "sface")
        self.requires_grad_(False)

    def drawn(
        self, w: Tensor, picture_from_crop: Tensor, alpha: Tensor, blur_px: float, light_px: float
    ) -> Tensor:
        """Draw what of the picture of w shows in SFace's crop, without its contrast.

        Args:
            w: float32 (1, 512).
            picture_from_crop: float32 (2, 3), from unit square to unit square.
            alpha: float32 (1, 1, 112, 112), share of the new face.
            blur_px: what the frame's resolution leaves, standard deviation in the crop.
            light_px: the light coarser than this is the source's own.

        Returns:
            float32 (1, 3, 112, 112), the levels of the picture less those of its coarse light.
        """
        picture = cast(Tensor, self.generator(w))
        crop = warp((picture + 1) * 127.5, picture_from_crop[None], alpha.shape[-1])
        return without_light(_blurred(crop, blur_px), alpha, light_px)

    def embedding(self, crop: Tensor) -> Tensor:
        """Map a crop (1, 3, 112, 112), 0..255, to SFace's embedding (128,), of unit length."""
        vector = self.sface(crop.clamp(0, 255))[0].reshape(-1)
        return functional.normalize(vector, dim=0)


def warp(pictures: Tensor, unit_from_crop: Tensor, size: int) -> Tensor:
    """Cut crops out of pictures.

    Args:
        pictures: (n, 3, h, h), a unit square each.
        unit_from_crop: (n, 2, 3), from the crop's unit square to the picture's.
        size: side of the crops, pixels.

    Returns:
        (n, 3, size, size); outside of a picture its border goes on.
    """
    # From [-1, 1] of the crop to [-1, 1] of the picture.
    linear = unit_from_crop[:, :, :2]
    offset = 2 * unit_from_crop[:, :, 2] + linear.sum(2) - 1
    grid = functional.affine_grid(
        torch.cat([linear, offset[..., None]], 2), [len(pictures), 3, size, size], align_corners=False
    )
    return functional.grid_sample(pictures, grid, "bilinear", "border", align_corners=False)


def without_light(crop: Tensor, alpha: Tensor, light_px: float) -> Tensor:
    """Take off what is coarse, as the composite takes the source's light instead; (1, 3, h, w)."""
    coarse = _blurred(crop * alpha, light_px) / _blurred(alpha, light_px).clamp_min(LEAST_WEIGHT)
    return crop - coarse


def contrast(crop: Tensor, drawn: Tensor, alpha: Tensor, light_px: float) -> float:
    """Return by how much the contrast of a composite's crop differs from that of the picture drawn in it."""
    ratio = _deviation(without_light(crop, alpha, light_px), alpha) / _deviation(drawn, alpha)
    return float(ratio.clamp(*CONTRAST))


def _deviation(crop: Tensor, alpha: Tensor) -> Tensor:
    """Return the standard deviation of the levels, where alpha is, mean over the channels."""
    weight = alpha.sum()
    mean = (crop * alpha).sum((2, 3), keepdim=True) / weight
    return (((crop - mean) ** 2 * alpha).sum((2, 3)) / weight).sqrt().mean().clamp_min(1e-3)


def _blurred(x: Tensor, sigma_px: float) -> Tensor:
    """Blur (1, c, h, w) with a Gaussian; outside is 0."""
    reach, channels = max(1, round(3 * sigma_px)), x.shape[1]
    kernel = torch.exp(-((torch.arange(-reach, reach + 1, device=x.device) / sigma_px) ** 2) / 2)
    kernel = (kernel / kernel.sum()).expand(channels, 1, 1, -1)
    x = functional.conv2d(x, kernel, padding=(0, reach), groups=channels)
    return functional.conv2d(x, kernel.mT, padding=(reach, 0), groups=channels)
