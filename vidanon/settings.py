"""Bounded settings: dataclass default < preset TOML < ``--set section.option=value`` < flag.

Each option is declared once, here; its ``metadata`` carries the help text and the bounds that feed the
check of presets, of ``--set`` and of the command line.
"""

from __future__ import annotations

import difflib
import tomllib
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field, fields, replace
from pathlib import Path
from typing import Any

from vidanon.errors import SettingsError

X264_PRESETS = (
    "ultrafast",
    "superfast",
    "veryfast",
    "faster",
    "fast",
    "medium",
    "slow",
    "slower",
    "veryslow",
)


def _option(
    default: Any,
    help: str,
    low: float | None = None,
    high: float | None = None,
    choices: tuple[Any, ...] | None = None,
) -> Any:
    return field(default=default, metadata={"help": help, "low": low, "high": high, "choices": choices})


class _Section:
    """Checks every option of a section when it is made."""

    def __post_init__(self) -> None:
        for option in fields(self):  # type: ignore[arg-type]
            _check(f"{_section_name(self)}.{option.name}", getattr(self, option.name), option)


@dataclass(frozen=True, slots=True)
class DetectSettings(_Section):
    """Where faces are looked for."""

    min_score: float = _option(0.30, "score from which CenterFace alone makes a face", 0.05, 0.95)
    min_yunet_score: float = _option(0.70, "score from which YuNet alone makes a face", 0.05, 0.95)
    min_face_px: int = _option(12, "smallest face, pixels of box width", 4, 256)
    long_side_px: int = _option(640, "longer side of the detector's input, pixels", 160, 3840)
    every: int = _option(
        3, "look with every means at each n-th frame; known faces are followed in between", 1, 10
    )
    second_look: bool = _option(True, "look again at higher resolution in large frames")


@dataclass(frozen=True, slots=True)
class TrackSettings(_Section):
    """How faces become tracks and tracks become persons."""

    max_gap_s: float = _option(0.5, "longest gap that a track bridges, seconds", 0.0, 5.0)
    extend_s: float = _option(0.2, "how far a track is extended at both ends, seconds", 0.0, 2.0)
    smooth_s: float = _option(0.08, "width of the zero-phase smoothing, seconds", 0.0, 1.0)
    link: bool = _option(True, "give all appearances of one person in a video the same face")


@dataclass(frozen=True, slots=True)
class SelectSettings(_Section):
    """Who is treated; everybody unless something is given here."""

    region: str = _option(
        "", "treat only faces that touch X0,Y0,X1,Y1[@T0-T1] (pixels, seconds); space: more"
    )
    obscure: str = _option("", "obscure X0,Y0,X1,Y1[@T0-T1], whatever it shows; space: more")
    keep_person: str = _option("", "leave the person of this picture RECOGNISABLE; make sure they agreed")
    only_person: str = _option("", "treat only the person of this picture; ALL OTHERS STAY RECOGNISABLE")


@dataclass(frozen=True, slots=True)
class IdentitySettings(_Section):
    """Which new faces are given."""

    key_file: str = _option("", "file with a secret key; the same key gives the same faces (empty: random)")
    cast: str = _option(
        "", "file that keeps who has which new face, over several videos; needs a participant"
    )
    participant: str = _option("", "name, in the cast, of the person who is seen most")


@dataclass(frozen=True, slots=True)
class RenderSettings(_Section):
    """How the new face is put into the frame."""

    mask_forehead: float = _option(0.30, "how far the mask reaches up the forehead, face widths", 0.0, 0.5)
    feather: float = _option(0.06, "softness of the mask's edge, face widths", 0.0, 0.3)
    gate_nme: float = _option(
        0.12, "landmark error above which a face is obscured, inter-ocular distances", 0.0, 1.0
    )
    exit_px: int = _option(
        0, "size of the generated face, pixels (0: by size on screen)", choices=(0, 128, 256, 512, 1024)
    )
    wrinkles: bool = _option(True, "give new faces the furrows and lines that the source's expressions make")


@dataclass(frozen=True, slots=True)
class EncodeSettings(_Section):
    """How the result is encoded."""

    crf: int = _option(18, "x264 constant rate factor, lower is better", 0, 51)
    preset: str = _option("veryfast", "x264 speed preset", choices=X264_PRESETS)
    small_faces: float = _option(
        0.2,
        "how much better small faces are encoded, shares of the quantiser's range (0: no better)",
        0.0,
        0.5,
    )
    keep_metadata: bool = _option(False, "keep metadata such as place, device and dates")


@dataclass(frozen=True, slots=True)
class AuditSettings(_Section):
    """How the encoded result is checked before it is published."""

    enabled: bool = _option(True, "check the encoded result; without it nobody vouches for the file")
    rounds: int = _option(6, "how often a result that is not safe is made again", 0, 10)
    samples: int = _option(
        32,
        "frames that recognisers look at of a track, or of 480 frames of a long one; thrice in doubt",
        2,
        1000,
    )


@dataclass(frozen=True, slots=True)
class RuntimeSettings(_Section):
    """Where and how the work runs."""

    device: str = _option("auto", "compute device", choices=("auto", "cpu", "cuda"))
    workers: int = _option(2, "worker threads", 1, 64)
    offline: bool = _option(False, "never fetch a model")


@dataclass(frozen=True, slots=True)
class Settings:
    """All settings, one section per stage."""

    detect: DetectSettings = field(default_factory=DetectSettings)
    track: TrackSettings = field(default_factory=TrackSettings)
    select: SelectSettings = field(default_factory=SelectSettings)
    identity: IdentitySettings = field(default_factory=IdentitySettings)
    render: RenderSettings = field(default_factory=RenderSettings)
    encode: EncodeSettings = field(default_factory=EncodeSettings)
    audit: AuditSettings = field(default_factory=AuditSettings)
    runtime: RuntimeSettings = field(default_factory=RuntimeSettings)

    def as_dict(self) -> dict[str, dict[str, object]]:
        """Return a plain nested dict, as a plan stores it."""
        return asdict(self)


def _section_name(section: object) -> str:
    return type(section).__name__.removesuffix("Settings").lower()


def _check(name: str, value: Any, option: Any) -> None:
    kind = type(option.default)
    if type(value) is not kind:
        raise SettingsError(f"{name} = {value!r}: expected a {kind.__name__}")
    choices, low, high = (option.metadata[key] for key in ("choices", "low", "high"))
    if choices is not None and value not in choices:
        raise SettingsError(f"{name} = {value!r}: choose one of {', '.join(map(str, choices))}")
    # A NaN fails this comparison as well, which is what we want.
    if low is not None and not low <= value <= high:
        raise SettingsError(f"{name} = {value!r}: must lie in {low} .. {high}")


def _nearest(name: str, known: Iterable[str]) -> str:
    close = difflib.get_close_matches(name, list(known), n=1, cutoff=0.4)
    return f"; did you mean '{close[0]}'?" if close else f"; known: {', '.join(known)}"


def _convert(name: str, value: Any, default: Any) -> Any:
    """Turn an int into a float where a float is declared, and ``--set`` text into the declared type."""
    kind = type(default)
    if kind is float and type(value) is int:
        return float(value)
    if not isinstance(value, str) or kind is str:
        return value
    if kind is bool:
        words = {"true": True, "1": True, "yes": True, "false": False, "0": False, "no": False}
        if value.lower() not in words:
            raise SettingsError(f"{name} = {value!r}: expected true or false")
        return words[value.lower()]
    try:
        return kind(value)
    except ValueError:
        raise SettingsError(f"{name} = {value!r}: expected a {kind.__name__}") from None


def override(settings: Settings, values: Mapping[str, Any], where: str = "settings") -> Settings:
    """Return ``settings`` with nested ``values`` (section -> option -> value) on top.

    Raises:
        SettingsError: unknown section or option (the nearest match is named), wrong type, or out of bounds.
    """
    sections = [f.name for f in fields(Settings)]
    changed = {}
    for section, options in values.items():
        if section not in sections:
            raise SettingsError(f"{where}: unknown section '{section}'{_nearest(section, sections)}")
        if not isinstance(options, Mapping):
            raise SettingsError(f"{where}: '{section}' is a section, not an option; write {section}.OPTION")
        current = getattr(settings, section)
        known = {f.name: f.default for f in fields(current)}
        fresh = {}
        for option, value in options.items():
            if option not in known:
                raise SettingsError(f"{where}: unknown option '{section}.{option}'{_nearest(option, known)}")
            fresh[option] = _convert(f"{section}.{option}", value, known[option])
        changed[section] = replace(current, **fresh)
    return replace(settings, **changed)


def apply_assignments(settings: Settings, assignments: Iterable[str]) -> Settings:
    """Apply ``section.option=value`` texts, the form that ``--set`` takes, from left to right."""
    for text in assignments:
        key, equals, value = text.partition("=")
        section, dot, option = key.strip().partition(".")
        if not (equals and dot and option):
            raise SettingsError(f"--set {text}: write it as section.option=value")
        settings = override(settings, {section: {option: value.strip()}}, f"--set {text}")
    return settings


def preset_folder() -> Path:
    """Return where the presets are: in the installed package, or beside it in a checkout."""
    inside = Path(__file__).parent / "pipelines"
    return inside if inside.is_dir() else Path(__file__).parents[1] / "pipelines"


def preset_names() -> list[str]:
    """Return the names of the presets that ship with the package."""
    return sorted(path.stem for path in preset_folder().glob("*.toml"))


def preset_path(name: str) -> Path:
    """Return the file of a preset: a shipped name, or a path that ends in ``.toml``.

    Raises:
        SettingsError: there is no such preset.
    """
    path = Path(name) if name.endswith(".toml") else preset_folder() / f"{name}.toml"
    if not path.is_file():
        raise SettingsError(f"preset '{name}' does not exist{_nearest(name, preset_names())}")
    return path


def load_settings(preset: str | None = None, assignments: Iterable[str] = ()) -> Settings:
    """Return the defaults with a preset and then ``section.option=value`` texts on top.

    Raises:
        SettingsError: the preset is missing or no TOML, or a key or value does not fit.
    """
    settings = Settings()
    if preset is not None:
        path = preset_path(preset)
        try:
            values = tomllib.loads(path.read_text("utf-8"))
        except (tomllib.TOMLDecodeError, UnicodeDecodeError, OSError) as error:
            raise SettingsError(f"preset {path} cannot be read: {error}") from error
        settings = override(settings, values, f"preset {path}")
    return apply_assignments(settings, assignments)
