"""Settings: defaults, presets, assignments, bounds."""

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vidanon.errors import SettingsError
from vidanon.settings import Settings, apply_assignments, load_settings, preset_names


def test_defaults_are_those_of_the_balanced_preset() -> None:
    assert load_settings("balanced") == Settings()


@pytest.mark.parametrize("name", ["balanced", "fast", "strict"])
def test_shipped_presets_load(name: str) -> None:
    assert name in preset_names()
    assert isinstance(load_settings(name), Settings)


def test_assignment_wins_over_preset(tmp_path: Path) -> None:
    preset = tmp_path / "mine.toml"
    preset.write_text('[encode]\ncrf = 30\npreset = "fast"\n[render]\nfeather = 0\n')
    settings = load_settings(str(preset), ["encode.crf=20", "detect.second_look=false"])
    assert (settings.encode.crf, settings.encode.preset) == (20, "fast")
    assert settings.render.feather == 0.0
    assert settings.detect.second_look is False


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("encode.cfr=20", "did you mean 'crf'"),
        ("encoder.crf=20", "did you mean 'encode'"),
        ("encode.crf=99", "0 .. 51"),
        ("encode.crf=high", "expected a int"),
        ("encode.preset=warp", "veryfast"),
        ("render.feather=nan", "must lie in"),
        ("render.exit_px=100", "128"),
        ("detect.second_look=perhaps", "true or false"),
        ("encode.crf", "section.option=value"),
        ("crf=20", "section.option=value"),
    ],
)
def test_wrong_assignment_names_the_remedy(text: str, says: str) -> None:
    with pytest.raises(SettingsError, match=says):
        apply_assignments(Settings(), [text])


@pytest.mark.parametrize(
    ("content", "says"),
    [
        ("[encode]\ncfr = 20", "did you mean 'crf'"),
        ("encode = 3", "is a section"),
        ("[encode]\ncrf = 20.5", "expected a int"),
        ("[track]\nlink = 1", "expected a bool"),
        ("[encode\n", "cannot be read"),
    ],
)
def test_wrong_preset_is_refused(tmp_path: Path, content: str, says: str) -> None:
    preset = tmp_path / "bad.toml"
    preset.write_text(content)
    with pytest.raises(SettingsError, match=says):
        load_settings(str(preset))


def test_missing_preset_names_the_nearest() -> None:
    with pytest.raises(SettingsError, match="did you mean 'strict'"):
        load_settings("strickt")


@given(st.text(max_size=30))
def test_any_text_is_settings_or_a_settings_error(text: str) -> None:
    try:
        result = apply_assignments(Settings(), [text])
    except SettingsError:
        return
    assert isinstance(result, Settings)


@given(st.integers(0, 51), st.floats(0.0, 0.3))
def test_values_within_bounds_arrive(crf: int, feather: float) -> None:
    settings = apply_assignments(Settings(), [f"encode.crf={crf}", f"render.feather={feather!r}"])
    assert (settings.encode.crf, settings.render.feather) == (crf, feather)
