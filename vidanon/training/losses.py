"""The losses, as differences of traits. Paper: Nitzan et al. 2020, section 3.2 and its supplement."""

from __future__ import annotations

import itertools
from dataclasses import dataclass, fields
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from vidanon.stages.mesh import FACE_OVAL
from vidanon.training.config import Losses
from vidanon.training.traits import Traits, TraitSpace
from vidanon.types import BLENDSHAPE_COUNT, LANDMARK_COUNT

EXPRESSION_WEIGHTS = {
    6.0: (9, 10, 25),  # eyelids, jaw
    3.0: (*range(11, 23), 44, 45),  # gaze, squint, wide eyes, smile
    2.0: (1, 2, 3, 4, 5, 32, 38),  # brows, funnel, pucker
}
"""Weight to numbers of blendshapes in MediaPipe's order; all others count once."""


def expression_weights() -> Tensor:
    """Return what each blendshape counts, (52,), with a sum of 1."""
    weights = torch.ones(BLENDSHAPE_COUNT)
    for weight, numbers in EXPRESSION_WEIGHTS.items():
        weights[list(numbers)] = weight
    return weights / weights.sum()


@dataclass(frozen=True, slots=True)
class Batch:
    """What one step compares with; rows belong together.

    Attributes:
        identity: (n, 128), unit length, whom the result should look like.
        source: traits of the attribute source.
        expression, gaze: what the expression should be (that of the source, or of a third face).
        white: (n, 512), whitened w of the source.
        same: whether identity and attributes come from one face.
        swapped: (n,) bool, where the expression is a third face's.
        picture: (n, 3, 128, 128), the source's picture, [-1, 1].
    """

    identity: Tensor
    source: Traits
    expression: Tensor
    gaze: Tensor
    white: Tensor
    same: bool
    swapped: Tensor
    picture: Tensor

    def to(self, device: str) -> Batch:
        """Move everything to a device."""
        values = (getattr(self, f.name) for f in fields(self))
        moved: list[Any] = [x if isinstance(x, bool) else x.to(device) for x in values]
        return Batch(*moved)


class LossTerms(nn.Module):
    """Computes every loss whose weight is not zero."""

    weights: Tensor
    kept: Tensor

    def __init__(self, space: TraitSpace) -> None:
        super().__init__()
        self.register_buffer("weights", expression_weights())
        kept = torch.tensor(sorted(set(range(LANDMARK_COUNT)) - set(FACE_OVAL)))
        self.register_buffer("kept", kept)
        self.space = space

    def forward(
        self, seen: Traits, white: Tensor, batch: Batch, losses: Losses, picture: Tensor | None
    ) -> dict[str, Tensor]:
        """Return the weighted terms by name.

        Args:
            seen: traits of the result.
            white: (n, 512), whitened w of the result.
            batch: what it should be.
            losses: weights.
            picture: (n, 3, 128, 128), the result, where pictures are compared.
        """
        terms = self._identity(seen, batch) | self._attributes(seen, batch)
        terms["prior"] = functional.relu(white.pow(2).mean(1) - 1).mean()
        if batch.same:
            terms["landmarks"] = functional.mse_loss(seen.landmarks, batch.source.landmarks)
            terms["thumbnail"] = functional.mse_loss(seen.thumbnail, batch.source.thumbnail)
            terms["latent"] = functional.mse_loss(white, batch.white)
            if losses.picture and picture is not None:
                terms["picture"] = picture_loss(picture, batch.picture)
        else:
            rigid = (~batch.swapped).float()[:, None]
            terms["landmarks_cross"] = (rigid * (seen.landmarks - batch.source.landmarks)).pow(2).mean()
            terms["thumbnail_cross"] = functional.mse_loss(seen.thumbnail, batch.source.thumbnail)
        return {name: getattr(losses, name) * x for name, x in terms.items() if getattr(losses, name)}

    def _identity(self, seen: Traits, batch: Batch) -> dict[str, Tensor]:
        cosine = (seen.embedding * batch.identity).sum(1)
        terms = {
            "identity": (1 - cosine).mean(),
            "identity_l1": functional.l1_loss(seen.embedding, batch.identity),
        }
        if not batch.same:
            shared = (batch.identity * batch.source.embedding).sum(1)
            terms["stranger"] = functional.relu(
                (seen.embedding * batch.source.embedding).sum(1) - shared
            ).mean()
        return terms

    def _attributes(self, seen: Traits, batch: Batch) -> dict[str, Tensor]:
        expression = (seen.expression - batch.expression).pow(2) @ self.weights
        jawless = self.space.jawless_difference(seen, batch.source, self.kept)
        return {
            "pose": functional.mse_loss(seen.pose, batch.source.pose),
            "gaze": functional.mse_loss(seen.gaze, batch.gaze),
            "expression": expression.mean(),
            "landmarks_jawless": jawless.pow(2).mean(),
        }


def picture_loss(picture: Tensor, target: Tensor) -> Tensor:
    """Return 0.84 (1 - MS-SSIM) + 0.16 L1 (Zhao et al. 2017, as the paper uses it) of [-1, 1] pictures."""
    from kornia.losses import MS_SSIMLoss

    measure = MS_SSIMLoss(alpha=0.84, compensation=1.0).to(picture.device)
    result: Tensor = measure((picture.clamp(-1, 1) + 1) / 2, (target + 1) / 2)
    return result


class Discriminator(nn.Module):
    """Tells whitened w of the mapping network from those of the mapper: 512-256-128-64-1."""

    def __init__(self) -> None:
        super().__init__()
        sizes = (512, 256, 128, 64)
        layers: list[nn.Module] = []
        for before, after in itertools.pairwise(sizes):
            layers += [nn.Linear(before, after), nn.LeakyReLU(0.2)]
        self.layers = nn.Sequential(*layers, nn.Linear(sizes[-1], 1))

    def forward(self, white: Tensor) -> Tensor:
        """Return logits (n, 1), positive for real."""
        out: Tensor = self.layers(white)
        return out


def discriminator_loss(network: Discriminator, real: Tensor, fake: Tensor, r1: float) -> Tensor:
    """Return the non-saturating loss with the R1 penalty (Mescheder et al. 2018)."""
    real = real.detach().requires_grad_(True)
    score = network(real)
    loss = functional.softplus(-score).mean() + functional.softplus(network(fake.detach())).mean()
    (gradient,) = torch.autograd.grad(score.sum(), real, create_graph=True)
    return loss + r1 / 2 * gradient.pow(2).sum(1).mean()
