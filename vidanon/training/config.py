"""What a training run does, as read from ``pipelines/training/*.toml``."""

from __future__ import annotations

import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, field, fields, is_dataclass
from pathlib import Path
from typing import Any, TypeVar

from vidanon.errors import SettingsError
from vidanon.settings import preset_folder


@dataclass(frozen=True, slots=True)
class DataConfig:
    """The samples.

    Attributes:
        drawn: random faces.
        made: faces led towards rare expressions and poses (needs surrogates).
        held_out: random faces that only measuring sees.
        shard: samples per file.
        truncation: lowest and highest truncation towards the mean of w.
    """

    drawn: int = 20480
    made: int = 6144
    held_out: int = 512
    shard: int = 256
    truncation: tuple[float, float] = (0.5, 1.0)


@dataclass(frozen=True, slots=True)
class SurrogateConfig:
    """The networks that tell from w alone what the frozen networks would read in its picture.

    Attributes:
        members: networks that learn the same samples, each from its own beginning.
        width, depth: of each.
        steps, batch, rate: of the training of each.
    """

    members: int = 3
    width: int = 1024
    depth: int = 4
    steps: int = 600
    batch: int = 256
    rate: float = 1e-3


@dataclass(frozen=True, slots=True)
class Losses:
    """Weights of the losses; 0 switches one off.

    Attributes:
        identity: 1 - cosine to the embedding of the identity source.
        identity_l1: mean absolute difference of the embeddings (the paper's form).
        stranger: cosine to the attribute source, as far as it exceeds what the two sources share.
        pose: head rotation.
        gaze: offsets of the irises within the eyes.
        expression: blendshapes, weighted towards eyelids, jaw, gaze, smile and brows.
        landmarks, landmarks_cross: all landmarks (principal directions), same and cross identity.
        landmarks_jawless: landmarks without the jaw, squared pixels of a 256 px picture (the paper's form).
        thumbnail, thumbnail_cross: a 16 x 16 picture (principal directions).
        picture: 0.84 (1 - MS-SSIM) + 0.16 L1 on the picture, same identity; needs the generator.
        latent: whitened w, same identity.
        adversarial: non-saturating, against the discriminator of w.
        prior: mean square of the whitened w as far as it exceeds 1.
    """

    identity: float = 0.0
    identity_l1: float = 0.0
    stranger: float = 0.0
    pose: float = 0.0
    gaze: float = 0.0
    expression: float = 0.0
    landmarks: float = 0.0
    landmarks_cross: float = 0.0
    landmarks_jawless: float = 0.0
    thumbnail: float = 0.0
    thumbnail_cross: float = 0.0
    picture: float = 0.0
    latent: float = 0.0
    adversarial: float = 0.0
    prior: float = 0.0


@dataclass(frozen=True, slots=True)
class Stage:
    """One stretch of training.

    Attributes:
        reader: ``surrogate`` (fast) or ``generator`` (the real networks in the loop).
        steps: optimiser steps.
        batch: samples per step.
        rate: highest learning rate, of a warm-up and a cosine.
        discriminator_rate: learning rate of the discriminator of w.
        r1: weight of its gradient penalty.
        cross: share of cross-identity steps (in thirds: 0, 1/3, 2/3, 1).
        fresh: before the stage, this many faces that the mapper itself makes are read by the real networks,
            join the samples, and teach the surrogate where it is now asked.
        losses: their weights.
    """

    reader: str = "surrogate"
    steps: int = 6000
    batch: int = 48
    rate: float = 1e-3
    discriminator_rate: float = 4e-4
    r1: float = 10.0
    cross: float = 0.667
    fresh: int = 0
    losses: Losses = field(default_factory=Losses)

    def __post_init__(self) -> None:
        if self.reader not in ("surrogate", "generator"):
            raise SettingsError(f"stage.reader = '{self.reader}': choose surrogate or generator")
        if self.losses.picture and self.reader != "generator":
            raise SettingsError("stage.losses.picture needs reader = 'generator'")


@dataclass(frozen=True, slots=True)
class TrainConfig:
    """A whole run.

    Attributes:
        seed: of data, weights and order.
        augment: degrade the pictures that the attribute encoder sees.
        rare: share of attribute sources that are drawn in favour of rare expressions.
        swap: share of cross-identity samples that take the expression of a third face.
        save_every_s: seconds between checkpoints.
        sheet_every: steps between sheets of pictures.
        stages: in order.
    """

    seed: int = 1
    augment: bool = True
    rare: float = 0.5
    swap: float = 0.25
    save_every_s: float = 120.0
    sheet_every: int = 1000
    data: DataConfig = field(default_factory=DataConfig)
    surrogate: SurrogateConfig = field(default_factory=SurrogateConfig)
    stages: tuple[Stage, ...] = (Stage(),)


Section = TypeVar("Section")


def _build(kind: type[Section], values: Mapping[str, Any], where: str) -> Section:
    """Make a dataclass of a TOML table; unknown names and wrong types are errors."""
    assert is_dataclass(kind)
    known = {f.name: f for f in fields(kind)}
    arguments: dict[str, Any] = {}
    for name, value in values.items():
        if name not in known:
            raise SettingsError(f"{where}: unknown option '{name}'; known: {', '.join(known)}")
        arguments[name] = _value(name, value, kind, where)
    return kind(**arguments)


def _value(name: str, value: Any, kind: type[Any], where: str) -> Any:
    sections = {"data": DataConfig, "surrogate": SurrogateConfig, "losses": Losses}
    if name in sections:
        return _build(sections[name], value, f"{where}: {name}")
    if name == "stages":
        return tuple(_build(Stage, stage, f"{where}: stages[{i}]") for i, stage in enumerate(value))
    default = getattr(kind(), name)
    if isinstance(default, tuple):
        return tuple(float(x) for x in value)
    if type(default) is float and type(value) is int:
        return float(value)
    if type(value) is not type(default):
        raise SettingsError(f"{where}: {name} = {value!r}: expected a {type(default).__name__}")
    return value


def training_folder() -> Path:
    """Return where the training configurations are that ship with the package."""
    return preset_folder() / "training"


def load_config(path: Path) -> TrainConfig:
    """Read a training configuration.

    Raises:
        SettingsError: the file is missing or no TOML, or an option is unknown or of the wrong type.
    """
    try:
        values = tomllib.loads(path.read_text("utf-8"))
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise SettingsError(f"training configuration {path} cannot be read: {error}") from error
    return _build(TrainConfig, values, str(path))
