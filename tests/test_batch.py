"""Folders of files: what is found, what is skipped, what survives a kill."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from dataclasses import replace
from itertools import islice
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner
from hypothesis import given
from hypothesis import strategies as st

from vidanon.api import Summary
from vidanon.cli import main
from vidanon.errors import InputError, OutputError, SettingsError, UnsafeError
from vidanon.identity.choose import Profile
from vidanon.jobs import manifest as manifest_module
from vidanon.jobs.batch import Batch, BatchOptions, BatchOutcome, available_cores, threads_per_job
from vidanon.jobs.executors import PAUSE, Report
from vidanon.jobs.index import write_index
from vidanon.jobs.job import Faces, beside
from vidanon.jobs.link import link_people
from vidanon.jobs.manifest import DONE, FAILED, Manifest, Record, settings_digest
from vidanon.jobs.scan import Filter, Watcher, natural_key, scan
from vidanon.settings import AuditSettings, IdentitySettings, RuntimeSettings, Settings

SERIAL = BatchOptions(executor="serial")


def stand_in(
    source: Path, output: Path, page: Path | None, settings: Settings, faces: Faces | None, report: Report
) -> Summary:
    """Take the place of the pipeline: "bad" files fail, "unsafe" ones are refused, "slow" ones take time."""
    text = source.read_bytes()
    if text.startswith(b"bad"):
        raise InputError(f"{source}: not a video; give a video file")
    if text.startswith(b"slow"):
        for done in range(40):
            report("render", done, 40)
            time.sleep(0.01)
    key = Path(settings.identity.key_file).read_bytes()
    result = output if not text.startswith(b"unsafe") else output.with_name(f"result.rejected{output.suffix}")
    result.write_bytes(text + key)
    if page is not None:
        page.write_text("report")
        page.with_suffix(".json").write_text("{}")
    if result != output:
        raise UnsafeError(f"{source}: somebody is recognisable; the refused result is {result}")
    return Summary(source, output, people=1, frames=len(text), replaced=2, obscured=0)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    source = tmp_path / "in"
    for name in ("clip 10.mp4", "clip 9.mp4", "sub/deep/a.avi", "sub/b.mkv"):
        path = source / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(name.encode())
    (source / "notes.txt").write_text("not a video")
    return source


@pytest.fixture
def key_settings(tmp_path: Path) -> Settings:
    (tmp_path / "key").write_bytes(b"sixteen bytes or more")
    return Settings(identity=IdentitySettings(key_file=str(tmp_path / "key")))


def run(
    source: Path, target: Path, settings: Settings | None = None, options: BatchOptions = SERIAL
) -> dict[str, BatchOutcome]:
    outcomes = Batch(source, target, settings, options, stand_in).run()
    return {outcome.record.source: outcome for outcome in outcomes}


def tree(folder: Path) -> dict[str, bytes]:
    files = {p.relative_to(folder).as_posix(): p for p in folder.rglob("*") if p.is_file()}
    return {name: path.read_bytes() for name, path in files.items() if name != "manifest.jsonl"}


def fresh(outcomes: dict[str, BatchOutcome]) -> set[str]:
    return {name for name, outcome in outcomes.items() if outcome.fresh}


# finding files


def test_natural_order_and_what_is_left_out(folder: Path) -> None:
    (folder / ".hidden.mp4").touch()
    (folder / ".git").mkdir()
    (folder / ".git" / "x.mp4").touch()
    ignored: list[str] = []
    names = [found.relative for found in scan(folder, Filter(), ignored.append)]
    assert names == ["clip 9.mp4", "clip 10.mp4", "sub/b.mkv", "sub/deep/a.avi"]
    assert ignored == [".hidden.mp4", "notes.txt"]


@pytest.mark.parametrize(
    ("include", "exclude", "names"),
    [
        (("*.MKV",), (), ["sub/b.mkv"]),
        (("sub/*",), (), ["sub/b.mkv", "sub/deep/a.avi"]),
        ((), ("sub/deep/*", "* 10.*"), ["clip 9.mp4", "sub/b.mkv"]),
        (("*",), ("*.mp4", "*.avi"), ["notes.txt", "sub/b.mkv"]),
    ],
)
def test_globs(folder: Path, include: tuple[str, ...], exclude: tuple[str, ...], names: list[str]) -> None:
    assert [found.relative for found in scan(folder, Filter(include, exclude))] == names


@given(st.lists(st.text(max_size=8), max_size=8))
def test_any_names_can_be_sorted(names: list[str]) -> None:
    assert sorted(sorted(names, key=natural_key), key=natural_key) == sorted(names, key=natural_key)


def test_a_growing_file_is_taken_when_it_has_settled(tmp_path: Path) -> None:
    clock = [0.0]
    watcher = iter(Watcher(tmp_path, Filter(), 10, lambda: clock[0]))
    (tmp_path / "a.mp4").write_bytes(b"1")
    assert next(watcher) is PAUSE
    clock[0] = 9
    assert next(watcher) is PAUSE
    (tmp_path / "a.mp4").write_bytes(b"12")
    clock[0] = 12
    assert next(watcher) is PAUSE
    clock[0] = 22
    found = next(watcher)
    assert found is not PAUSE and found.relative == "a.mp4" and found.size == 2  # type: ignore[union-attr]
    clock[0] = 100
    assert list(islice(watcher, 3)) == [PAUSE] * 3


# the manifest


RECORD = Record("a.mp4", 1, 2, "ab", "digest", DONE)


@given(st.text(), st.text(), st.binary(max_size=40))
def test_a_record_comes_back_whatever_stands_beside_it(
    tmp_path_factory: pytest.TempPathFactory, source: str, error: str, torn: bytes
) -> None:
    path = tmp_path_factory.mktemp("manifest") / "manifest.jsonl"
    record = replace(RECORD, source=source, error=error, notes=("x",))
    with Manifest(path) as manifest:
        manifest.append(RECORD)
    with path.open("ab") as file:
        file.write(torn)
    with Manifest(path) as manifest:
        manifest.append(record)
    with Manifest(path) as manifest:
        assert manifest.get(source) == record


def test_the_last_line_of_a_file_counts(tmp_path: Path) -> None:
    with Manifest(tmp_path / "m") as manifest:
        manifest.append(RECORD)
        manifest.append(replace(RECORD, status=FAILED))
    with Manifest(tmp_path / "m") as manifest:
        assert [record.status for record in manifest] == [FAILED]


def test_the_digest_follows_what_decides_the_result(tmp_path: Path) -> None:
    plain = settings_digest(Settings())
    assert settings_digest(Settings(runtime=RuntimeSettings(workers=7, offline=True))) == plain
    assert settings_digest(Settings(audit=AuditSettings(rounds=1))) != plain
    one, other = tmp_path / "one", tmp_path / "other"
    one.write_bytes(b"k" * 20)
    other.write_bytes(b"k" * 20)
    digests = {settings_digest(Settings(identity=IdentitySettings(key_file=str(f)))) for f in (one, other)}
    assert len(digests) == 1 and plain not in digests


@pytest.mark.parametrize("changed", ["mapper.safetensors", "registry.toml", "thresholds.json", "version"])
def test_a_new_vidanon_or_new_weights_do_everything_again(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, changed: str
) -> None:
    models, target = tmp_path / "models", tmp_path / "out"
    shutil.copytree(manifest_module.MODELS_FOLDER, models)
    monkeypatch.setattr(manifest_module, "MODELS_FOLDER", models)
    run(folder, target)
    assert not fresh(run(folder, target)), "nothing has changed yet"
    if changed == "version":
        monkeypatch.setattr(manifest_module, "__version__", "999")
    else:
        with next(models.rglob(changed)).open("ab") as file:
            file.write(b" ")
    assert len(fresh(run(folder, target))) == 4


# running


def test_the_tree_is_mirrored_and_nothing_else_is_left(folder: Path, tmp_path: Path) -> None:
    before = tree(folder)
    outcomes = run(folder, tmp_path / "out")
    assert all(outcome.record.status == DONE for outcome in outcomes.values())
    results = {"clip 9.mp4", "clip 10.mp4", "sub/b.mkv", "sub/deep/a.avi.mp4"}
    reports = {name + ending for name in results for ending in (".report.html", ".report.json")}
    assert set(tree(tmp_path / "out")) == results | reports
    assert tree(folder) == before
    assert not (tmp_path / "out" / ".vidanon").exists()
    assert outcomes["sub/b.mkv"].record.report == "sub/b.mkv.report.html"


def test_what_is_done_is_not_done_again(folder: Path, tmp_path: Path) -> None:
    target = tmp_path / "out"
    run(folder, target)
    assert fresh(run(folder, target)) == set()
    (folder / "clip 9.mp4").write_bytes(b"another")
    os.utime(folder / "sub/b.mkv")
    (target / "clip 10.mp4").unlink()
    assert fresh(run(folder, target)) == {"clip 9.mp4", "clip 10.mp4"}
    assert fresh(run(folder, target, Settings(audit=AuditSettings(enabled=False)))) == set(
        run(folder, target)
    )
    assert len(fresh(run(folder, target, options=replace(SERIAL, force=True)))) == 4


def test_a_bad_file_fails_alone_and_is_tried_again_only_on_request(folder: Path, tmp_path: Path) -> None:
    target = tmp_path / "out"
    (folder / "clip 9.mp4").write_bytes(b"bad")
    outcomes = run(folder, target)
    record = outcomes["clip 9.mp4"].record
    assert (record.status, record.exit_code) == (FAILED, 3)
    assert "clip 9.mp4: not a video" in record.error
    assert [o.record.status for o in outcomes.values()].count(DONE) == 3
    again = run(folder, target)
    assert fresh(again) == set() and again["clip 9.mp4"].record.status == FAILED
    assert fresh(run(folder, target, options=replace(SERIAL, retry_failed=True))) == {"clip 9.mp4"}


def test_stopping_at_the_first_error(folder: Path, tmp_path: Path) -> None:
    (folder / "clip 9.mp4").write_bytes(b"bad")
    assert list(run(folder, tmp_path / "out", options=replace(SERIAL, stop_on_error=True))) == ["clip 9.mp4"]


def test_a_refused_result_is_kept_under_a_name_that_says_so(folder: Path, tmp_path: Path) -> None:
    (folder / "sub/b.mkv").write_bytes(b"unsafe")
    record = run(folder, tmp_path / "out")["sub/b.mkv"].record
    assert record.exit_code == 7
    assert str(tmp_path / "out/sub/b.rejected.mkv") in record.error
    assert (tmp_path / "out/sub/b.rejected.mkv").exists()
    assert (tmp_path / "out/sub/b.mkv.report.html").exists()
    assert not (tmp_path / "out/sub/b.mkv").exists()
    assert not (tmp_path / "out/.vidanon").exists()


def test_two_sources_never_share_an_output(folder: Path, tmp_path: Path) -> None:
    (folder / "sub/deep/a.avi.mp4").write_bytes(b"the other")
    outcomes = run(folder, tmp_path / "out")
    assert "rename one" in outcomes["sub/deep/a.avi"].record.error
    assert outcomes["sub/deep/a.avi.mp4"].record.status == DONE


def test_each_file_has_its_own_key_and_the_same_one_again(
    folder: Path, tmp_path: Path, key_settings: Settings
) -> None:
    run(folder, tmp_path / "one", key_settings)
    run(folder, tmp_path / "two", key_settings)
    run(folder, tmp_path / "random")
    assert tree(tmp_path / "one") == tree(tmp_path / "two")
    keys = {data[-32:] for name, data in tree(tmp_path / "one").items() if "report" not in name}
    assert len(keys) == 4
    assert tree(tmp_path / "one")["clip 9.mp4"] != tree(tmp_path / "random")["clip 9.mp4"]


def test_output_within_the_input_is_not_taken_for_input(folder: Path) -> None:
    run(folder, folder / "out")
    assert set(run(folder, folder / "out")) == {"clip 9.mp4", "clip 10.mp4", "sub/b.mkv", "sub/deep/a.avi"}


@pytest.mark.parametrize("target", [".", "..", "sub/../"])
def test_output_over_the_input_is_refused(folder: Path, target: str) -> None:
    with pytest.raises(OutputError, match="is or holds the input folder"):
        Batch(folder, folder / target)


def test_wrong_folders_and_options(folder: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no such folder"):
        Batch(tmp_path / "nowhere", tmp_path / "out")
    with pytest.raises(OutputError, match="not a folder"):
        Batch(folder, folder / "notes.txt")
    with pytest.raises(SettingsError, match="serial, processes, ray"):
        BatchOptions(executor="dask")
    with pytest.raises(SettingsError, match="--watch"):
        BatchOptions(link="batch", watch=True)


def test_two_batches_do_not_write_to_one_folder(folder: Path, tmp_path: Path) -> None:
    first = Batch(folder, tmp_path / "out", None, SERIAL, stand_in).run()
    next(first)
    with pytest.raises(OutputError, match="another batch"):
        run(folder, tmp_path / "out")
    assert len(list(first)) == 3


def test_a_source_that_changes_meanwhile_fails(folder: Path, tmp_path: Path) -> None:
    outcomes = Batch(folder, tmp_path / "out", None, SERIAL, _touching).run()
    assert all("changed while it was read" in outcome.record.error for outcome in outcomes)
    assert not tree(tmp_path / "out")


def _touching(source: Path, output: Path, *rest: object) -> Summary:
    source.write_bytes(b"longer than before, by far")
    output.write_bytes(b"x")
    return Summary(source, output, 1, 1, 1, 1)


def test_watching_takes_what_comes(folder: Path, tmp_path: Path) -> None:
    options = replace(SERIAL, watch=True, settle_s=0.2)
    outcomes = Batch(folder, tmp_path / "out", None, options, stand_in).run()
    assert len({next(outcomes).record.source for _ in range(4)}) == 4
    (folder / "late.mp4").write_bytes(b"late")
    assert next(outcomes).record.source == "late.mp4"
    outcomes.close()


def test_cores_are_shared() -> None:
    assert [threads_per_job(jobs, 8) for jobs in (1, 2, 3, 8, 20)] == [8, 4, 2, 1, 1]


def test_the_cores_of_a_cluster_are_not_those_of_this_machine(folder: Path, tmp_path: Path) -> None:
    settings, jobs = Settings(runtime=RuntimeSettings(workers=3)), 4 * available_cores()

    def threads(executor: str) -> int:
        options = BatchOptions(executor=executor, jobs=jobs)
        return Batch(folder, tmp_path / "out", settings, options).settings.runtime.workers

    assert (threads("processes"), threads("ray")) == (1, 3)


# kills


SCRIPT = """
import sys
from pathlib import Path
from test_batch import stand_in
from vidanon.jobs import manifest as manifest_module
from vidanon.jobs.batch import Batch, BatchOptions
from vidanon.settings import IdentitySettings, Settings
if __name__ == "__main__":
    source, target, key, jobs = sys.argv[1:]
    settings = Settings(identity=IdentitySettings(key_file=key))
    options = BatchOptions(executor="processes", jobs=int(jobs))
    for outcome in Batch(Path(source), Path(target), settings, options, stand_in).run():
        print(outcome.record.source, flush=True)
"""


def start(folder: Path, target: Path, jobs: int = 2) -> subprocess.Popen[str]:
    script = folder.parent / "script.py"
    script.write_text(SCRIPT)
    command = [sys.executable, str(script), str(folder), str(target), str(folder.parent / "key"), str(jobs)]
    environment = os.environ | {"PYTHONPATH": str(Path(__file__).parent)}
    return subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, text=True)


def test_a_killed_run_goes_on_to_the_same_bytes(folder: Path, tmp_path: Path, key_settings: Settings) -> None:
    for index in range(4):
        (folder / f"slow {index}.mp4").write_bytes(b"slow" * (index + 1))
    run(folder, tmp_path / "undisturbed", key_settings)
    target = tmp_path / "out"
    for kills in range(2):
        process = start(folder, target)
        assert process.stdout is not None
        for _ in range(1 + kills):
            process.stdout.readline()
        process.send_signal(signal.SIGKILL)
        process.wait()
        process.stdout.close()
        finished = {name for name in tree(target) if not name.startswith(".vidanon")}
        assert all(tree(target)[n] == tree(tmp_path / "undisturbed")[n] for n in finished)
    with (target / "manifest.jsonl").open("ab") as file:
        file.write(b'{"source": "torn')
    outcomes = run(folder, target, key_settings)
    assert len(outcomes) == 8 and len(fresh(outcomes)) < 8
    assert tree(target) == tree(tmp_path / "undisturbed")


# many files


def test_a_finished_batch_of_a_thousand_takes_no_time(tmp_path: Path) -> None:
    source, target = tmp_path / "in", tmp_path / "out"
    source.mkdir()
    target.mkdir()
    digest = settings_digest(Batch(source, target, None, SERIAL).settings)
    lines = []
    for index in range(1000):
        path = source / f"{index}.mp4"
        path.write_bytes(b"x")
        shutil.copy(path, target / path.name)
        state = path.stat()
        line = {"source": path.name, "size": 1, "mtime_ns": state.st_mtime_ns, "sha256": "", "status": DONE}
        lines.append(json.dumps(line | {"settings": digest, "output": path.name}))
    (target / "manifest.jsonl").write_text("\n".join(lines) + "\n")
    begin = time.process_time()
    outcomes = run(source, target, options=BatchOptions(executor="processes"))
    write_index(target / "index.html", (outcome.record for outcome in outcomes.values()))
    assert time.process_time() - begin < 2
    assert len(outcomes) == 1000 and not fresh(outcomes)


def test_names_are_shortened_where_they_must_be() -> None:
    assert beside("clip.mp4", ".report.html") == "clip.mp4.report.html"
    long = beside("ü" * 125 + ".mp4", ".report.html")
    assert len(os.fsencode(long)) <= 255 and long.endswith(".report.html")
    assert long != beside("ü" * 124 + "x.mp4", ".report.html")


# one face per person in all files


def test_one_person_has_one_face_in_all_files() -> None:
    generator = np.random.default_rng(3)

    def profile(base: np.ndarray, noise: float) -> Profile:
        vector = base + noise * generator.normal(size=128) / np.sqrt(128)
        return Profile(
            (vector / np.linalg.norm(vector)).astype(np.float32), np.array([60, 12, 16], np.float32)
        )

    anna, bert = (generator.normal(size=128) / np.sqrt(128) for _ in range(2))
    files = {
        "one.mp4": {0: profile(anna, 0.3), 1: profile(bert, 0.3)},
        "two.mp4": {0: profile(bert, 0.3)},
        "three.mp4": {0: profile(anna, 0.0), 1: profile(anna, 0.1)},
    }
    faces = link_people(files, b"a secret key of some length")
    names = {(name, person): code.name for name, codes in faces.items() for person, code in codes.items()}
    assert names["one.mp4", 1] == names["two.mp4", 0] != names["one.mp4", 0]
    assert names["one.mp4", 0] in {names["three.mp4", 0], names["three.mp4", 1]}
    assert names["three.mp4", 0] != names["three.mp4", 1], "two people of one file are two people"
    assert link_people(dict(reversed(files.items())), b"a secret key of some length").keys() == files.keys()


# the command


def test_dry_run_writes_nothing(folder: Path, tmp_path: Path, plain_clip: Path) -> None:
    shutil.copy(plain_clip, folder / "clip 9.mp4")
    result = CliRunner().invoke(main, ["batch", str(folder), str(tmp_path / "out"), "--dry-run"])
    assert result.exit_code == 0, result.output
    assert "1 new, 3 unusable; 1 other files are left out" in result.output
    assert "about 30 frames" in result.output
    assert not (tmp_path / "out").exists()


def test_an_index_escapes_what_it_shows(tmp_path: Path) -> None:
    bad = replace(RECORD, source="<b>&\udcff.mp4", output="a b/<c>#.mp4", error="it's <broken>")
    write_index(tmp_path / "index.html", [bad])
    page = (tmp_path / "index.html").read_text("utf-8")
    assert "&lt;b&gt;&amp;?.mp4" in page and 'href="a%20b/%3Cc%3E%23.mp4"' in page
    assert "<broken>" not in page
