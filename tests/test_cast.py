"""One participant keeps one new face over several videos, by name, and nothing measured is written down."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
from click.testing import CliRunner
from sample_cut import cut_sample
from test_plan import a_plan

from vidanon import api
from vidanon.cli import main
from vidanon.errors import OutputError, SettingsError, UnsafeError
from vidanon.identity.bank import load_bank
from vidanon.identity.cast import Cast, main_person, open_cast
from vidanon.identity.choose import OTHERS_LIMIT
from vidanon.jobs.batch import Batch
from vidanon.models.registry import ModelStore
from vidanon.settings import IdentitySettings, Settings, load_settings
from vidanon.types import Plan

QUICK = ("render.exit_px=128", "audit.samples=3")


@pytest.fixture(scope="module")
def sessions(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """Two recordings of one person."""
    folder = tmp_path_factory.mktemp("cast")
    return [cut_sample(folder / f"session-{n}.mp4", start_s, 8) for n, start_s in enumerate((2, 14))]


def cast_settings(path: Path, name: str) -> Settings:
    return load_settings(None, [*QUICK, f"identity.cast={path}", f"identity.participant={name}"])


def test_a_participant_has_the_same_face_in_every_recording(sessions: list[Path], tmp_path: Path) -> None:
    path = tmp_path / "study.json"
    first = api.anonymize(sessions[0], tmp_path / "1.mp4", cast_settings(path, "P07"))
    record = json.loads(path.read_text())
    assert list(record) == ["format", "version", "faces"] and list(record["faces"]) == ["P07"]
    assert path.stat().st_mode & 0o077 == 0
    face = record["faces"]["P07"]
    assert any(face in note for note in first.notes)
    # Keys are random here: without the cast, other faces would be drawn.
    for clip in sessions:
        plan = api.analyse(clip, cast_settings(path, "P07"))
        assert plan.identities[0].name == face
        assert plan.spares[0] == ()
    second = api.anonymize(sessions[1], tmp_path / "2.mp4", cast_settings(path, "P07"))
    assert any(face in note for note in second.notes)
    assert json.loads(path.read_text()) == record


def test_nobody_else_gets_a_face_like_one_of_the_cast(sessions: list[Path], tmp_path: Path) -> None:
    path, key = tmp_path / "study.json", tmp_path / "key"
    key.write_bytes(b"k" * 32)
    settings = cast_settings(path, "P08")
    settings = replace(settings, identity=replace(settings.identity, key_file=str(key)))
    alone = api.analyse(sessions[0], settings)
    Cast(path, "P07", {}).record(alone)
    beside = api.analyse(sessions[0], settings)
    face = alone.identities[0]
    for code in (beside.identities[0], *beside.spares[0]):
        assert float(code.vector @ face.vector) < OTHERS_LIMIT


def in_plan(row: int) -> Plan:
    return replace(a_plan(), identities={3: load_bank().code(row)})


def test_the_participant_is_who_is_seen_most() -> None:
    plan = in_plan(5)
    (track,) = plan.tracks
    small = replace(track, id=1, person=4, boxes=track.boxes * 0.5)
    hidden = replace(track, id=2, person=-1, boxes=track.boxes * 2)
    crowd = replace(
        plan, tracks=(small, track, hidden), identities={**plan.identities, 4: plan.identities[3]}
    )
    assert main_person(crowd) == 3
    assert main_person(replace(plan, tracks=(), identities={})) is None


def test_two_runs_at_once_do_not_give_two_faces(tmp_path: Path) -> None:
    path = tmp_path / "study.json"
    both = open_cast(IdentitySettings(cast=str(path), participant="P07"))
    assert both is not None
    both.record(in_plan(5))
    with pytest.raises(UnsafeError, match="run again"):
        both.record(in_plan(6))
    assert json.loads(path.read_text())["faces"] == {"P07": "bank-00005"}
    assert list(tmp_path.iterdir()) == [path]


def test_a_plan_with_another_face_is_not_drawn(sessions: list[Path], tmp_path: Path) -> None:
    path = tmp_path / "study.json"
    Cast(path, "P07", {}).record(in_plan(5))
    plan = api.analyse(sessions[0], load_settings(None, QUICK))
    plan = replace(plan, identities={0: load_bank().code(6)})
    with pytest.raises(SettingsError, match="another face"):
        api.render_plan(sessions[0], plan, tmp_path / "o.mp4", cast_settings(path, "P07"), ModelStore())
    assert not (tmp_path / "o.mp4").exists()


@pytest.mark.parametrize(
    "text",
    ["", "{}", "[]", '{"format": "vidanon-cast", "version": 1, "faces": {"P07": "bank-99999"}}', "\x00"],
)
def test_a_file_that_is_no_cast_is_named_and_left_alone(text: str, tmp_path: Path, plain_clip: Path) -> None:
    path = tmp_path / "study.json"
    path.write_text(text)
    call = ["anonymize", str(plain_clip), "-o", str(tmp_path / "o.mp4"), "--cast", str(path)]
    result = CliRunner().invoke(main, [*call, "--participant", "P07"])
    assert result.exit_code == 2
    assert str(path) in result.output and "Traceback" not in result.output
    assert path.read_text() == text


def test_cast_and_participant_belong_together(tmp_path: Path, plain_clip: Path) -> None:
    for option in (["--cast", str(tmp_path / "c.json")], ["--participant", "P07"]):
        result = CliRunner().invoke(main, ["anonymize", str(plain_clip), *option])
        assert result.exit_code == 2
        assert "belong together" in result.output


def test_a_cast_that_cannot_be_written_is_refused_before_any_work(tmp_path: Path, plain_clip: Path) -> None:
    with pytest.raises(OutputError, match="cannot write"):
        api.anonymize(plain_clip, tmp_path / "o.mp4", cast_settings(tmp_path / "missing" / "c.json", "P07"))


def test_folders_have_a_way_of_their_own(tmp_path: Path) -> None:
    source = tmp_path / "in"
    source.mkdir()
    with pytest.raises(SettingsError, match="--link batch"):
        Batch(source, tmp_path / "out", cast_settings(tmp_path / "c.json", "P07"))
