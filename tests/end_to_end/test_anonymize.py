"""The real command with the real models on a real face: sixteen frames of the sample clip."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from sample_cut import cut_sample

from vidanon.audit.judge import audit
from vidanon.compare import evaluate_pair
from vidanon.models.registry import ModelStore
from vidanon.plan import analyse
from vidanon.settings import Settings
from vidanon.stages.decode import Decoder
from vidanon.tally import Memory

FRAMES = 16


def vidanon(*arguments: str | Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "vidanon", *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, timeout=600)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("end_to_end")
    options = ("-t", "0.67", "-c:v", "libx264", "-crf", "14", "-c:a", "copy")
    cut_sample(folder / "source.mp4", 12, FRAMES, options)
    (folder / "key").write_bytes(b"the same key gives the same face")
    return folder


@pytest.fixture(scope="module")
def output(folder: Path) -> Path:
    target = folder / "first.mp4"
    done = vidanon("anonymize", folder / "source.mp4", "-o", target, "--key-file", folder / "key")
    assert done.returncode == 0, done.stderr
    assert "faces replaced" in done.stdout
    return target


def test_who_was_recognised_before_is_looked_at_more_often(folder: Path, output: Path) -> None:
    source, models = folder / "source.mp4", ModelStore()
    plan = analyse(source, Settings(), models)
    counts = [
        len(
            audit(source, output, models, plan=plan, samples=2, memory=Memory(suspects=who)).tracks[0].samples
        )
        for who in ({}, {0: None})
    ]
    assert counts[1] > counts[0]


@pytest.fixture(scope="module")
def figures(folder: Path, output: Path) -> dict[str, Any]:
    return evaluate_pair(folder / "source.mp4", output, ModelStore(), stride=2)


def test_every_frame_is_there_and_the_audio_is_the_same(figures: dict[str, Any]) -> None:
    assert figures["source_frames"] == figures["output_frames"] == FRAMES
    assert figures["pts_errors"] == 0
    assert figures["audio_identical"]


def test_nobody_is_recognised_and_no_original_pixel_is_left(figures: dict[str, Any]) -> None:
    assert figures["leak_frames"] == 0, json.dumps(figures, default=str)
    assert figures["stranger_share"] >= 0.99


def test_pose_and_expression_stay(figures: dict[str, Any]) -> None:
    assert figures["nme"] <= 0.04
    assert figures["pose_error_deg"] <= 2.5


def test_what_surrounds_the_face_stays(folder: Path, output: Path) -> None:
    with Decoder(folder / "source.mp4") as before, Decoder(output) as after:
        for one, other in zip(before, after, strict=True):
            edge = np.abs(one.image[:, :60].astype(int) - other.image[:, :60]).mean()
            assert edge < 3


def test_the_same_key_gives_the_same_bytes_also_in_two_passes(folder: Path, output: Path) -> None:
    source, plan, target = folder / "source.mp4", folder / "plan.json", folder / "second.mp4"
    for command in (
        ["plan", source, "-o", plan, "--key-file", folder / "key", "--quiet"],
        ["render", source, plan, "-o", target, "--quiet"],
    ):
        done = vidanon(*command)
        assert done.returncode == 0, done.stderr
    assert target.read_bytes() == output.read_bytes()


def test_a_gate_that_nothing_passes_obscures_every_face(folder: Path) -> None:
    target = folder / "gated.mp4"
    done = vidanon("anonymize", folder / "source.mp4", "-o", target, "--set", "render.gate_nme=0")
    assert done.returncode == 0, done.stderr
    figures = evaluate_pair(folder / "source.mp4", target, ModelStore(), stride=4)
    assert figures["leak_frames"] == 0


@pytest.mark.parametrize("turn", ["transpose=1", "hflip,vflip"])
def test_a_video_filmed_the_wrong_way_round_gets_new_faces(turn: str, tmp_path: Path) -> None:
    """Read as if they were upright, two heads look alike to recognisers, and all would be obscured."""
    options = ("-vf", turn, "-an", "-crf", "14")
    source = cut_sample(tmp_path / "turned.mp4", 12, FRAMES // 2, options)
    (tmp_path / "key").write_bytes(b"the same key gives the same face")
    target = tmp_path / "new.mp4"
    done = vidanon("anonymize", source, "-o", target, "--key-file", tmp_path / "key")
    assert done.returncode == 0, done.stderr
    replaced = re.search(r"faces replaced +(\d+)", done.stdout)
    assert replaced is not None
    assert int(replaced[1]) >= FRAMES // 2, done.stdout
    figures = evaluate_pair(source, target, ModelStore(), stride=2)
    assert figures["faces_judged"] > 0
    assert figures["recognised_frames"] == figures["faces_lost"] == 0


def test_a_video_without_a_face_comes_out_as_it_went_in(silent_clip: Path, tmp_path: Path) -> None:
    target = tmp_path / "out.mp4"
    done = vidanon("anonymize", silent_clip, "-o", target)
    assert done.returncode == 0, done.stderr
    with Decoder(silent_clip) as before, Decoder(target) as after:
        for one, other in zip(before, after, strict=True):
            assert one.pts == other.pts
            assert np.abs(one.image.astype(int) - other.image).mean() < 3
