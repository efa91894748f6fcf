"""Two hundred files of every kind in one folder: the good ones are done, the bad ones are named."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner
from conftest import make_clip
from PIL import Image

from vidanon.api import Summary
from vidanon.cli import main
from vidanon.errors import ModelsError
from vidanon.jobs.batch import Batch, BatchOptions
from vidanon.jobs.executors import Report
from vidanon.jobs.job import Faces
from vidanon.jobs.manifest import DONE, Manifest
from vidanon.models.registry import ModelStore
from vidanon.settings import Settings
from vidanon.stages.decode import Decoder, probe

LONG = "ü" * 125 + "l.mp4"  # 255 bytes
TOO_LONG = "ü" * 125 + "l.avi"  # its result would have 259


def copy_if_decodable(
    source: Path, output: Path, page: Path | None, settings: Settings, faces: Faces | None, report: Report
) -> Summary:
    """Take the place of the pipeline: read every picture as it would, then copy the file."""
    info = probe(source)
    with Decoder(source) as video:
        frames = sum(1 for _ in video)
    shutil.copy(info.path, output)
    return Summary(source, output, people=0, frames=frames, replaced=0, obscured=0)


@dataclass
class Folder:
    """What was put into the folder.

    Attributes:
        path: of the folder.
        good: files that must be done, and the names of their results.
        bad: files that must be named, with a part of the reason.
        ignored: number of files that must be left out.
    """

    path: Path
    good: dict[str, str]
    bad: dict[str, str]
    ignored: int


def _names(count: int, pattern: str) -> list[str]:
    return [pattern.format(index) for index in range(count)]


def _good_files(root: Path, clip: bytes, cut_off: bytes) -> dict[str, str]:
    names = _names(40, "take {}.mp4") + _names(10, "a/b/c/{}.MOV") + ["duplicate.mp4", LONG, "other.avi"]
    names += [
        "日本語.mp4",
        "emoji 😀.mkv",
        "quote' \".mp4",
        "-dash.mp4",
        "a;b&c|d.mp4",
        "new\nline.mp4",
        "％.webm",
        os.fsdecode(b"latin \xe9.mp4"),
    ]
    for name in names:
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(clip)
    (root / "cut off.mp4").write_bytes(cut_off)
    (root / "link.mp4").symlink_to(root / "take 0.mp4")
    os.link(root / "take 1.mp4", root / "hard.mp4")
    names += ["cut off.mp4", "link.mp4", "hard.mp4"]
    return {name: f"{name}.mp4" if name.endswith(".avi") else name for name in names}


def _bad_files(root: Path, clip: bytes, sound: bytes) -> dict[str, str]:
    makers: dict[str, tuple[Callable[[Path], object], str]] = {
        "empty {}.mp4": (lambda path: path.touch(), "empty"),
        "text {}.mp4": (lambda path: path.write_text("no video at all\n" * 50), "not a video"),
        "noise {}.mkv": (lambda path: path.write_bytes(np.random.default_rng(1).bytes(4000)), "not a video"),
        "head {}.mp4": (lambda path: path.write_bytes(clip[:200]), "not a video"),
        "sound {}.mp4": (lambda path: path.write_bytes(sound), "no video"),
        "broken link {}.mp4": (lambda path: path.symlink_to(root / "nowhere.mp4"), "No such file"),
    }
    reasons = {}
    for pattern, (make, reason) in makers.items():
        for name in _names(9, pattern):
            make(root / name)
            reasons[name] = reason
    (root / "loop.mp4").symlink_to(root / "loop.mp4")
    (root / "folder link.mp4").symlink_to(root, target_is_directory=True)
    (root / "bad disk.mp4").symlink_to(
        "/proc/self/mem"
    )  # can be opened; reading is an error, for root as well
    os.mkfifo(root / "pipe.mp4")
    (root / TOO_LONG).write_bytes(clip)
    reasons |= {
        "loop.mp4": "Too many levels",
        "folder link.mp4": "link to a folder",
        "bad disk.mp4": "Input/output error",
        "pipe.mp4": "not a file",
        TOO_LONG: "shorten it",
    }
    if os.geteuid() != 0:  # root may read everything
        (root / "locked.mp4").write_bytes(clip)
        (root / "locked.mp4").chmod(0)
        reasons["locked.mp4"] = "Permission denied"
    return reasons


def _other_files(root: Path) -> int:
    for index in range(40):
        Image.fromarray(np.full((8, 8, 3), index, np.uint8)).save(root / f"picture {index}.png")
        (root / f"notes {index}.txt").write_text("text")
    (root / ".hidden.mp4").touch()
    (root / "loop").symlink_to(root, target_is_directory=True)
    return 82


@pytest.fixture
def torture(tmp_path: Path, truncated_clip: Path, audio_file: Path) -> Folder:
    root = tmp_path / "in"
    root.mkdir()
    clip = make_clip(tmp_path / "tiny.mp4", pts=range(0, 5 * 512, 512)).read_bytes()
    good = _good_files(root, clip, truncated_clip.read_bytes())
    return Folder(root, good, _bad_files(root, clip, audio_file.read_bytes()), _other_files(root))


def test_every_good_file_is_done_and_every_bad_one_named(torture: Folder, tmp_path: Path) -> None:
    assert len(torture.good) + len(torture.bad) + torture.ignored >= 200
    before = {path: path.lstat() for path in torture.path.rglob("*")}
    target = torture.path / "out"  # within the input, as users do
    run = Batch(torture.path, target, None, BatchOptions(executor="serial"), copy_if_decodable)
    outcomes = {outcome.record.source: outcome for outcome in run.run()}
    assert {name for name, o in outcomes.items() if o.record.status == DONE} == set(torture.good)
    failed = {name: o.record for name, o in outcomes.items() if o.record.status != DONE}
    assert set(failed) == set(torture.bad)
    for name, reason in torture.bad.items():
        assert reason in failed[name].error and name.split("\n")[0] in failed[name].error, failed[name].error
        assert failed[name].exit_code == 3
        assert not outcomes[name].trace
    assert run.tally.ignored == torture.ignored
    for path, state in before.items():
        if not path.is_dir():
            assert (path.lstat().st_mtime_ns, path.lstat().st_size) == (state.st_mtime_ns, state.st_size)
    results = {path.relative_to(target).as_posix() for path in target.rglob("*") if path.is_file()}
    assert results == {*torture.good.values(), "manifest.jsonl"}
    with Manifest(target / "manifest.jsonl") as manifest:
        assert {record.source for record in manifest} == {*torture.good, *torture.bad}
    again = Batch(torture.path, target, None, BatchOptions(executor="serial"), copy_if_decodable)
    assert not any(outcome.fresh for outcome in again.run())


def test_the_command_on_real_files(tmp_path: Path) -> None:
    try:
        ModelStore().path("sface")
    except ModelsError:
        pytest.skip("the models are not here; run 'vidanon models fetch'")
    source, target = tmp_path / "in", tmp_path / "out"
    (source / "sub").mkdir(parents=True)
    make_clip(source / "good.mp4", pts=range(0, 10 * 512, 512))
    (source / "sub" / LONG).write_bytes((source / "good.mp4").read_bytes())
    (source / "bad.mp4").write_text("not a video")
    command = ["batch", str(source), str(target), "--executor", "serial"]
    result = CliRunner().invoke(main, command)
    assert result.exit_code == 8, result.output
    assert "bad.mp4: " in result.output and "not a video" in result.output
    with Decoder(target / "sub" / LONG) as video:
        assert sum(1 for _ in video) == 10
    page = (target / "index.html").read_text("utf-8")
    assert page.count("<tr class=done>") == 2 and page.count("<tr class=failed>") == 1
    assert (target / "good.mp4.report.html").exists()
    (source / "bad.mp4").unlink()
    result = CliRunner().invoke(main, [*command, "--quiet"])
    assert result.exit_code == 0, result.output
