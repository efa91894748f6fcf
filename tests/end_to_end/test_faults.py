"""Parts of the pipeline that fail on purpose: whatever they let through, the gate or the audit catches.

A generator that returns noise is in ``tests/test_renderer.py``.
"""

from __future__ import annotations

import threading
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest
from click.testing import CliRunner
from sample_cut import cut_sample

import vidanon.plan
from vidanon import api
from vidanon.audit import rehearsal
from vidanon.audit.judge import audit
from vidanon.cli import main
from vidanon.errors import ExitCode
from vidanon.identity.keep import Aim
from vidanon.models.registry import ModelStore
from vidanon.renderer import render
from vidanon.settings import load_settings
from vidanon.stages import synthesize
from vidanon.stages.decode import Decoder
from vidanon.stages.detect import FaceDetector
from vidanon.stages.landmark import Landmarker
from vidanon.tally import Memory
from vidanon.types import Float, Plan, UInt8

FRAMES = 12
QUICK = ("render.exit_px=128", "audit.samples=3", "track.extend_s=0", "track.max_gap_s=0")


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return cut_sample(tmp_path_factory.mktemp("faults") / "source.mp4", 12, FRAMES)


@pytest.fixture(scope="module")
def plan(source: Path) -> Plan:
    return vidanon.plan.analyse(source, load_settings(None, QUICK), ModelStore())


def blind(kind: type, source: Path, frames: range) -> type:
    """Return a kind of detector or landmarker that sees nothing in some frames (told apart by pixels)."""
    with Decoder(source, exact=False) as video:  # as the analysis reads it
        dark = {frame.image.tobytes() for frame in video if frame.index in frames}

    class Blind(kind):  # type: ignore[misc]
        def __call__(self, image: UInt8, *boxes: list[Float], **how: bool) -> list[object]:
            if image.tobytes() in dark:
                return [None for _ in boxes[0]] if boxes else []
            return list(super().__call__(image, *boxes, **how))

        def around(self, image: UInt8, landmarks: Float) -> object:
            return None if image.tobytes() in dark else super().around(image, landmarks)

    return Blind


def test_a_detector_that_is_blind_for_ten_frames_is_noticed(
    source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    gap = range(1, 11)
    monkeypatch.setattr(vidanon.plan, "FaceDetector", blind(FaceDetector, source, gap))
    monkeypatch.setattr(vidanon.plan, "Landmarker", blind(Landmarker, source, gap))
    summary = api.anonymize(source, tmp_path / "out.mp4", load_settings(None, [*QUICK, "audit.rounds=1"]))
    assert summary.audit is not None and summary.audit.passed
    assert summary.obscured >= len(gap)
    assert any("made 2 times" in note for note in summary.notes)


def test_without_landmarks_everyone_is_obscured(
    source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(vidanon.plan, "Landmarker", blind(Landmarker, source, range(FRAMES)))
    summary = api.anonymize(source, tmp_path / "out.mp4", load_settings(None, QUICK))
    assert (summary.replaced, summary.obscured) == (0, FRAMES)
    assert summary.audit is not None and summary.audit.passed


class _Mirror:
    """A mapper that returns the source's own identity: the picture is the crop it was given."""

    def __init__(self, *_: object) -> None:
        self._crops: list[UInt8] = []
        self._lock = threading.Lock()

    def prepare(self, exit_px: int, cutout: synthesize.Cutout = "whole") -> None: ...

    def latent(self, crop: Float, identity: Float, blendshapes: Float, landmarks: Float) -> Float:
        with self._lock:
            self._crops.append(np.asarray((crop.transpose(1, 2, 0) + 1) * 127.5, np.uint8))
            return np.full(512, len(self._crops) - 1, np.float32)

    def picture(self, w: Float, exit_px: int, cutout: synthesize.Cutout = "whole") -> UInt8:
        crop = self._crops[int(np.clip(round(float(w[0])), 0, len(self._crops) - 1))]
        return np.asarray(cv2.resize(crop, (exit_px, exit_px)), np.uint8)

    def mouth(self, w: Float, lips: Float, exit_px: int, cutout: synthesize.Cutout) -> UInt8:
        return self.picture(w, exit_px, cutout)


@pytest.fixture
def mirrored(monkeypatch: pytest.MonkeyPatch) -> None:
    """Have faces drawn by :class:`_Mirror`, whose w are numbers of crops and lead to nothing else."""
    monkeypatch.setattr(synthesize, "Synthesizer", _Mirror)
    monkeypatch.setattr(Aim, "lead", lambda _, w: w)


@pytest.mark.usefixtures("mirrored")
def test_a_mapper_that_returns_the_source_is_obscured_in_the_end(
    source: Path, plan: Plan, tmp_path: Path
) -> None:
    settings = load_settings(None, [*QUICK, "audit.rounds=1"])
    report = tmp_path / "r.html"
    plan = replace(plan, sources={})  # what was found with another mapper goes with it
    summary = api.render_plan(source, plan, tmp_path / "out.mp4", settings, ModelStore(), None, report)
    assert (summary.replaced, summary.obscured) == (0, FRAMES)
    assert summary.audit is not None and summary.audit.passed
    assert report.is_file() and report.with_suffix(".json").is_file()


def rehearsed(source: Path, plan: Plan, monkeypatch: pytest.MonkeyPatch) -> list[tuple[int, bool]]:
    """Return frame and verdict of every sample of a rehearsal in which a third of the frames is drawn."""
    monkeypatch.setattr(rehearsal, "SHORTEST_FRAMES", FRAMES)
    monkeypatch.setattr(rehearsal, "EVERY_FRAMES", 3)
    found = rehearsal.rehearse(source, plan, load_settings(None, QUICK), ModelStore())
    assert found is not None and found.plan.sources
    return [(sample.frame, bool(sample.recognised_by)) for track in found.tracks for sample in track.samples]


def test_a_rehearsal_that_nobody_is_recognised_in_goes_on(
    source: Path, plan: Plan, monkeypatch: pytest.MonkeyPatch
) -> None:
    verdicts = rehearsed(source, plan, monkeypatch)
    assert {0, 4, 7, 11} <= {frame for frame, _ in verdicts} and not any(failed for _, failed in verdicts)


@pytest.mark.usefixtures("mirrored")
def test_a_mapper_that_returns_the_source_fails_in_the_rehearsal(
    source: Path, plan: Plan, monkeypatch: pytest.MonkeyPatch
) -> None:
    verdicts = rehearsed(source, replace(plan, sources={}), monkeypatch)
    assert verdicts == [(0, True), (4, True), (7, True), (11, True)]


@pytest.mark.usefixtures("mirrored")
def test_without_a_further_round_it_is_refused_with_tracks_and_times(
    source: Path, plan: Plan, tmp_path: Path
) -> None:
    plan_file, report = tmp_path / "p.json", tmp_path / "r.html"
    vidanon.save_plan(replace(plan, spares={}), plan_file)
    options = [option for value in (*QUICK, "audit.rounds=0") for option in ("--set", value)]
    arguments = ["render", source, plan_file, "-o", tmp_path / "out.mp4", "--report", report, "--quiet"]
    result = CliRunner().invoke(main, [*map(str, arguments), *options])
    assert result.exit_code == ExitCode.UNSAFE, result.output
    assert "still recognisable: track 0 at 0:00.0" in result.stderr
    assert len(result.stderr.strip().splitlines()) == 1
    names = {path.name for path in tmp_path.iterdir()}
    assert names == {"out.rejected.mp4", "p.json", "r.html", "r.json"}
    assert "<img" not in report.read_text("utf-8"), "a refused result may show the source's face"


def test_the_source_passed_off_as_the_result_is_refused(source: Path, tmp_path: Path) -> None:
    copy = tmp_path / "copy.mp4"
    copy.write_bytes(source.read_bytes())
    result = CliRunner().invoke(main, ["audit", str(source), str(copy), "--quiet"])
    assert result.exit_code == ExitCode.UNSAFE
    assert "an original face is left in 12 frames" in result.stderr
    assert "still recognisable" in result.stderr


def test_unused_options_are_told_apart(source: Path, tmp_path: Path) -> None:
    arguments = ["anonymize", str(source), "--no-audit", "--report", str(tmp_path / "r.html")]
    result = CliRunner().invoke(main, arguments)
    assert result.exit_code == ExitCode.SETTINGS
    assert "nobody will check the result" in result.stderr


def test_a_second_audit_judges_only_what_looks_different(
    source: Path, plan: Plan, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    models, memory = ModelStore(), Memory()
    settings = load_settings(None, [*QUICK, "encode.crf=10"])
    path, other = tmp_path / "out.mp4", tmp_path / "again.mp4"
    drawn = render(source, plan, path, settings, models)
    first = audit(source, path, models, 2, plan, drawn.obscured_at, 3, None, memory)
    memory.output = path
    monkeypatch.setattr("vidanon.compare._CLEAR_OF_LINE", -1.0)  # near the line everything is judged again
    looked: list[object] = []
    real = FaceDetector.__call__
    monkeypatch.setattr(FaceDetector, "__call__", lambda *a, **k: looked.append(a) or real(*a, **k))
    render(source, plan, other, load_settings(None, [*QUICK, "encode.crf=20"]), models)
    second = audit(source, other, models, 2, plan, drawn.obscured_at, 3, None, memory)
    assert not looked, "the same picture in another encoding"
    assert second.tracks[0].samples == first.tracks[0].samples and second.passed == first.passed
    memory.output = other
    third = audit(source, source, models, 2, plan, {}, 3, None, memory)
    assert looked and not third.passed and len(third.leaks) == FRAMES
    assert all(sample.recognised_by for sample in third.tracks[0].samples)
    memory.output = source
    fourth = audit(source, other, models, 2, plan, drawn.obscured_at, 3, None, memory)
    once, again = ({sample.frame for sample in found.tracks[0].samples} for found in (third, fourth))
    assert once <= again, "where they were recognised once, they are looked for again"
