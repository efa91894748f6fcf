"""What a run that was killed has left beside its result, and what the next one does with it."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from vidanon.api import anonymize
from vidanon.settings import AuditSettings, Settings

UNAUDITED = Settings(audit=AuditSettings(enabled=False))


@pytest.fixture
def living() -> Iterator[int]:
    with subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE) as process:
        yield process.pid


@pytest.fixture(scope="module")
def gone() -> int:
    with subprocess.Popen([sys.executable, "-c", ""]) as process:
        return process.pid


@pytest.mark.usefixtures("nobody")
def test_only_what_nobody_writes_any_more_is_removed(
    plain_clip: Path, tmp_path: Path, gone: int, living: int
) -> None:
    target = tmp_path / "out [1].mp4"
    old, kept = [tmp_path / f".out [1].{gone}.partial.mp4", tmp_path / f".out [1].mp4.{gone}.parts"], []
    kept += [tmp_path / f".out [1].{living}.partial.mp4", tmp_path / f".out [1].mp4.{living}.parts"]
    kept += [tmp_path / f".other.{gone}.partial.mp4", tmp_path / f".out 1.{gone}.partial.mp4"]
    kept += [tmp_path / f"out [1].{gone}.partial.mp4", tmp_path / f".out [1].{gone}.partial.mkv"]
    for path in (*old, *kept):
        path.mkdir() if path.suffix == ".parts" else path.write_bytes(b"a face")
    (old[1] / "a part.mp4").write_bytes(b"a face")
    anonymize(plain_clip, target, UNAUDITED)
    assert set(tmp_path.iterdir()) == {target, *kept}


@pytest.mark.usefixtures("nobody")
def test_a_process_number_that_was_given_again_does_not_protect_a_file(
    plain_clip: Path, tmp_path: Path, living: int
) -> None:
    left = tmp_path / f".out.{living}.partial.mp4"
    left.write_bytes(b"a face")
    os.utime(left, (time.time() - 3600,) * 2)  # written to long before that process began
    anonymize(plain_clip, tmp_path / "out.mp4", UNAUDITED)
    assert [path.name for path in tmp_path.iterdir()] == ["out.mp4"]


@pytest.mark.parametrize("jobs", ["1", "2"])
def test_a_run_after_a_kill_leaves_nothing_hidden(plain_clip: Path, tmp_path: Path, jobs: str) -> None:
    source = tmp_path / "clip.mp4"
    shutil.copy(plain_clip, source)

    def start(seconds_per_frame: float) -> subprocess.Popen[bytes]:
        command = [sys.executable, str(Path(__file__).with_name("nobody.py")), str(seconds_per_frame)]
        command += ["anonymize", str(source), "--no-audit", "--quiet", "--jobs", jobs]
        return subprocess.Popen(command)

    process = start(1.0)
    for _ in range(2):  # the first file may be the one that tries whether the folder can be written to
        while not list(tmp_path.glob(".*")):
            assert process.poll() is None
            time.sleep(0.05)
        time.sleep(0.3)
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert list(tmp_path.glob(".*"))
    assert start(0.0).wait() == 0
    assert sorted(path.name for path in tmp_path.iterdir()) == ["clip.anon.mp4", "clip.mp4"]
