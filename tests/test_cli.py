"""The command line as a user meets it: help, wrong input, exit codes, nothing left behind."""

import re
import resource
import subprocess
import sys
from pathlib import Path

import click
import imageio_ffmpeg
import numpy as np
import pytest
from click.testing import CliRunner, Result

import vidanon
import vidanon.errors
import vidanon.renderer
from vidanon import api
from vidanon.cli import main
from vidanon.errors import ExitCode
from vidanon.stages.decode import Decoder

ROOT = Path(__file__).parents[1]


def run(*arguments: object) -> Result:
    return CliRunner().invoke(main, [str(a) for a in arguments])


def make_video(path: Path, *options: str) -> Path:
    command = [imageio_ffmpeg.get_ffmpeg_exe(), "-v", "error", "-f", "lavfi", "-i"]
    subprocess.run([*command, *options, str(path)], check=True)
    return path


@pytest.fixture
def clip(tmp_path: Path) -> Path:
    """Six frames of colour bars: a video that shows nobody."""
    return make_video(
        tmp_path / "bars.mp4", "smptebars=size=160x120:rate=6:duration=1", "-pix_fmt", "yuv420p"
    )


def check_refused(result: Result, code: ExitCode, *words: str) -> None:
    """One line on stderr that holds the words, and the documented exit code."""
    assert result.exit_code == code, result.output
    assert len(result.stderr.strip().splitlines()) == 1
    for word in words:
        assert word in result.stderr


def _children_s() -> float:
    """Processor time of finished child processes: on a busy machine the wall time says nothing."""
    usage = resource.getrusage(resource.RUSAGE_CHILDREN)
    return usage.ru_utime + usage.ru_stime


def test_help_is_instant_and_documents_exit_codes() -> None:
    seconds = []
    for _ in range(3):
        started = _children_s()
        result = subprocess.run(
            [sys.executable, "-m", "vidanon", "--help"], capture_output=True, text=True, check=True
        )
        seconds.append(_children_s() - started)
    for code in ExitCode:
        assert re.search(rf"^\s+{code.value}\s", result.stdout, re.MULTILINE)
    assert min(seconds) < 0.3


def test_readme_names_only_commands_that_exist() -> None:
    text = (ROOT / "README.md").read_text("utf-8")
    commands = re.findall(r"^    vidanon ([a-z]+)(?: ([a-z]+))?(?= |$)", text, re.MULTILINE)
    assert {"anonymize", "plan", "render", "models", "presets", "doctor", "evaluate"} <= {
        c for c, _ in commands
    }
    for name, sub in commands:
        command = main.commands[name]
        if isinstance(command, click.Group):
            assert sub in command.commands
    for target in re.findall(r"^    make ([a-z]+)", text, re.MULTILINE):
        assert re.search(rf"^{target}:", (ROOT / "Makefile").read_text("utf-8"), re.MULTILINE)
    for code in ExitCode:
        assert f"| {code.value} |" in text


@pytest.mark.parametrize("path", sorted(main.commands))
def test_every_command_has_help(path: str) -> None:
    result = run(path, "--help")
    assert result.exit_code == 0
    assert main.commands[path].help in " ".join(result.output.split()) or result.output.startswith("Usage")


@pytest.mark.parametrize(
    ("name", "content", "says"),
    [
        ("missing.mp4", None, "no such file"),
        ("empty.mp4", b"", "empty"),
        ("notes.mp4", b"these are notes, not pictures\n" * 50, "not a video"),
    ],
)
def test_unusable_input(tmp_path: Path, name: str, content: bytes | None, says: str) -> None:
    source = tmp_path / name
    if content is not None:
        source.write_bytes(content)
    before = sorted(tmp_path.iterdir())
    check_refused(run("anonymize", source), ExitCode.INPUT, name, says)
    check_refused(run("plan", source), ExitCode.INPUT, name, says)
    assert sorted(tmp_path.iterdir()) == before


def test_sound_without_pictures(tmp_path: Path) -> None:
    source = make_video(tmp_path / "tone.mp4", "sine=duration=1", "-c:a", "aac")
    check_refused(run("anonymize", source), ExitCode.INPUT, "no video stream")
    assert list(tmp_path.iterdir()) == [source]


def test_output_is_input(clip: Path) -> None:
    before = clip.read_bytes()
    check_refused(run("anonymize", clip, "-o", clip), ExitCode.OUTPUT, "input itself")
    link = clip.with_name("link.mp4")
    link.hardlink_to(clip)
    check_refused(run("anonymize", clip, "-o", link), ExitCode.OUTPUT, "input itself")
    assert clip.read_bytes() == before


@pytest.mark.parametrize("target", ["nowhere/out.mp4", "bars.mp4/out.mp4", "out.txt", "folder.mp4"])
def test_unwritable_output(clip: Path, target: str) -> None:
    (clip.parent / "folder.mp4").mkdir()
    before = sorted(clip.parent.rglob("*"))
    check_refused(run("anonymize", clip, "-o", clip.parent / target), ExitCode.OUTPUT, "-o")
    assert sorted(clip.parent.rglob("*")) == before


def test_missing_model_offline(clip: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("VIDANON_MODELS", str(tmp_path / "no-models"))
    before = sorted(tmp_path.iterdir())
    check_refused(run("anonymize", clip, "--offline"), ExitCode.MODELS, "missing", "vidanon models fetch")
    check_refused(run("models", "fetch", "yunet", "--offline"), ExitCode.MODELS, "yunet", "without --offline")
    assert run("models", "verify", "yunet").exit_code == ExitCode.MODELS
    assert sorted(tmp_path.iterdir()) == before


@pytest.mark.parametrize(
    "options",
    [
        ("--set", "encode.cfr=20"),
        ("--preset", "strickt"),
        ("--device", "abacus"),
        ("--workers", "0"),
    ],
)
def test_wrong_setting(clip: Path, options: tuple[str, str]) -> None:
    result = run("anonymize", clip, *options)
    assert result.exit_code == ExitCode.SETTINGS
    assert list(clip.parent.iterdir()) == [clip]


def test_plan_that_is_no_plan(clip: Path, tmp_path: Path) -> None:
    plan = tmp_path / "bad.plan.json"
    plan.write_text("{}")
    check_refused(run("render", clip, plan), ExitCode.SETTINGS, "bad.plan.json")
    assert sorted(tmp_path.iterdir()) == [plan, clip]


def test_nobody_in_the_video(clip: Path) -> None:
    before = clip.read_bytes()
    result = run("anonymize", clip)
    assert result.exit_code == 0, result.output
    assert "nobody was found" in result.stdout
    assert re.search(r"frames +6\b", result.stdout)
    with Decoder(clip) as old, Decoder(clip.with_name("bars.anon.mp4")) as new:
        for left, right in zip(old, new, strict=True):
            assert np.abs(left.image.astype(int) - right.image).mean() < 3
    assert clip.read_bytes() == before
    assert sorted(p.name for p in clip.parent.iterdir()) == ["bars.anon.mp4", "bars.mp4"]


@pytest.mark.usefixtures("nobody")
def test_plan_then_render(clip: Path) -> None:
    plan, out = clip.with_name("p.json"), clip.with_name("out.mkv")
    assert run("plan", clip, "-o", plan).exit_code == 0
    result = run("render", clip, plan, "-o", out, "--quiet", "--set", "audit.enabled=false")
    assert (result.exit_code, result.stdout) == (0, "")
    assert out.stat().st_size > 0


@pytest.mark.usefixtures("nobody")
@pytest.mark.parametrize(
    ("error", "code"),
    [(KeyboardInterrupt(), ExitCode.INTERRUPTED), (OSError(28, "No space left on device"), ExitCode.OUTPUT)],
)
def test_a_run_that_ends_early_leaves_nothing(
    clip: Path, monkeypatch: pytest.MonkeyPatch, error: BaseException, code: ExitCode
) -> None:
    def fail(source: Path, plan: object, target: Path, *_: object) -> None:
        target.write_bytes(b"half a video")
        raise error

    monkeypatch.setattr(sys.modules["vidanon.renderer"], "render", fail)
    check_refused(run("anonymize", clip, "--quiet"), code)
    assert list(clip.parent.iterdir()) == [clip]


def test_debug_shows_the_traceback(tmp_path: Path) -> None:
    result = run("--debug", "anonymize", tmp_path / "missing.mp4")
    assert isinstance(result.exception, vidanon.errors.InputError)


def test_lists() -> None:
    assert {"balanced", "fast", "strict"} <= set(run("presets", "list").output.split())
    assert "min_score = 0.2 " in run("presets", "show", "strict").output
    listed = run("models", "list").output
    assert "non-commercial" in listed and "sface" in listed


def test_doctor_knows_models_and_device() -> None:
    result = run("doctor")
    assert result.exit_code == 0, result.output
    assert re.search(r"sface +ok", result.output)
    assert "device: " in result.output


@pytest.mark.parametrize(
    ("name", "expected"),
    [("a.mp4", "a.anon.mp4"), ("a.b.MKV", "a.b.anon.mkv"), ("a.mov", "a.anon.mov"), ("a.gif", "a.anon.mp4")],
)
def test_default_output_name(name: str, expected: str) -> None:
    assert api.default_output(Path("x") / name) == Path("x") / expected


def test_public_names_are_there() -> None:
    for name in vidanon.__all__:
        assert callable(getattr(vidanon, name)), name
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        vidanon.nothing  # noqa: B018
