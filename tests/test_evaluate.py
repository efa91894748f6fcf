"""What a leak, a stranger, a lost frame and a turned head look like in the numbers."""

import json
import shutil
from pathlib import Path

import ffmpeg
import imageio_ffmpeg
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.spatial.transform import Rotation

from vidanon.audit.judge import audit
from vidanon.bars import CLIP_BARS, Bar, format_verdicts, judge, mean_of
from vidanon.compare import evaluate_pair, judge_again
from vidanon.errors import InputError, JobsError, ModelsError, UnsafeError
from vidanon.evaluate import (
    ClipOptions,
    evaluate_clips,
    find_clips,
    format_clip_bars,
    format_table,
    shorten,
)
from vidanon.geometry import invert, picture_from_unit
from vidanon.identity.bank import load_bank
from vidanon.measures import expression_signals, is_unchanged
from vidanon.models.registry import ModelStore
from vidanon.plan import analyse
from vidanon.settings import load_settings
from vidanon.stages.fingerprint import audio_hashes
from vidanon.stages.head_pose import HeadPose, angle_deg, canonical_face
from vidanon.stages.landmark import box_iou
from vidanon.stages.target import rejected_path
from vidanon.tally import FacePair, FaceReading, Memory, glasses_steady
from vidanon.types import EMBEDDING_SIZE

FRAMES = 12
FFMPEG = imageio_ffmpeg.get_ffmpeg_exe()


def model(name: str) -> Path:
    try:
        return ModelStore().path(name)
    except ModelsError as error:
        pytest.skip(f"needs model '{name}': {error}")


@pytest.fixture(scope="module")
def clip(tmp_path_factory: pytest.TempPathFactory) -> Path:
    target = tmp_path_factory.mktemp("clip") / "source.mp4"
    return shorten(model("sample-clip"), target, FRAMES)


@pytest.fixture(scope="module")
def store() -> ModelStore:
    for name in ("dlib-resnet", "edgeface", "sface", "face-landmarker", "centerface", "yunet"):
        model(name)
    pytest.importorskip("dlib", reason="dlib is optional")
    return ModelStore()


def reencode(source: Path, target: Path, *filters: tuple[str, dict[str, object]]) -> Path:
    stream = ffmpeg.input(str(source)).video
    for name, options in filters:
        stream = stream.filter(name, **options)
    stream.output(str(target), vcodec="libx264", crf=18, pix_fmt="yuv420p").run(cmd=FFMPEG, quiet=True)
    return target


def tone(target: Path, frequency_hz: int) -> Path:
    picture = ffmpeg.input("testsrc=s=64x48:d=1:r=10", f="lavfi")
    sound = ffmpeg.input(f"sine=frequency={frequency_hz}:duration=1", f="lavfi")
    ffmpeg.output(picture, sound, str(target), pix_fmt="yuv420p").run(cmd=FFMPEG, quiet=True)
    return target


def test_reencoded_source_is_a_leak_in_every_frame_with_a_face(
    clip: Path, store: ModelStore, tmp_path: Path
) -> None:
    same = reencode(clip, tmp_path / "same.mp4")
    result = evaluate_pair(clip, same, store, stride=4, workers=1, copy=same)

    assert result["source_frames"] == result["output_frames"] == FRAMES
    assert result["pts_errors"] == 0
    assert result["face_frames"] == FRAMES
    assert result["unchanged_frames"] == result["leak_frames"] == FRAMES
    assert result["stranger_share"] == 0
    assert result["sface_mean"] > 0.9 and result["edgeface_mean"] > 0.9 and result["dlib_mean"] < 0.2
    assert result["adjacent_sface"] > 0.9 and result["adjacent_sface_source"] > 0.9
    assert result["faces_lost"] == 0
    assert result["nme"] < 0.02 and result["pose_error_deg"] < 1.5
    assert result["copy"] and all(result[name] == value for name, value in result["copy"].items())
    json.dumps(result)


def test_a_face_that_is_seen_twice_in_one_place_is_judged_once(
    clip: Path, store: ModelStore, tmp_path: Path
) -> None:
    """In beard and neck a second mesh was read; where nothing is replaced, it is the source's own."""
    same = reencode(clip, tmp_path / "same.mp4")
    face = np.float32([326, 48, 540, 356])
    lower = face + 0.35 * (face[3] - face[1]) * np.float32([0, 1, 0, 1])
    for boxes in ([face, lower], [face, lower, face]):
        pairs, hidden = judge_again(clip, same, store, {0: boxes}, 1)
        assert [tuple(pair.box) for pair in pairs] == [tuple(face)] and not hidden
    assert judge_again(clip, same, store, {0: [lower]}, 1)[0], "which by itself is one"


def test_glasses_that_come_and_go_are_noticed() -> None:
    weights = load_bank().reader[EMBEDDING_SIZE:-1, -1]

    def face(frame: int, worn: bool) -> FacePair:
        landmarks, nobody = np.zeros((478, 2), np.float32), np.zeros(EMBEDDING_SIZE, np.float32)
        shapes, box = np.zeros(52, np.float32), np.zeros(4, np.float32)
        embeddings = {"SFace": nobody}
        seen = FaceReading(
            box,
            landmarks,
            shapes,
            invert(picture_from_unit(256)),
            embeddings,
            0.0,
            weights if worn else -weights,
        )
        return FacePair(frame, 0, {"SFace": 0.0}, 0.0, 0.0, seen, seen, 1.0)

    assert glasses_steady([face(i, False) for i in range(12)]) == 1
    assert glasses_steady([face(i, i < 3) for i in range(12)]) == 0.75
    assert glasses_steady([face(0, True)]) is None


def test_blacked_out_video_with_a_missing_frame_has_no_leak_but_is_incomplete(
    clip: Path, store: ModelStore, tmp_path: Path
) -> None:
    black = reencode(
        clip,
        tmp_path / "black.mp4",
        ("trim", {"end_frame": FRAMES - 1}),
        ("drawbox", {"color": "black", "t": "fill"}),
    )
    result = evaluate_pair(clip, black, store, stride=6, workers=1, copy=clip)

    assert (result["source_frames"], result["output_frames"]) == (FRAMES, FRAMES - 1)
    assert result["leak_frames"] == 0
    assert result["faces_lost"] == result["faces_judged"] > 0
    assert result["sface_mean"] is None and result["correlation"]["blink"] is None
    assert result["copy"]["nme"] is None  # only of faces that the result shows


def hidden_but_for(clip: Path, target: Path, shown: int) -> Path:
    """Write a result that shows a face in one frame only."""
    return reencode(
        clip,
        target,
        ("eq", {"brightness": 0.15, "contrast": 1.2}),  # else it would be found unchanged
        ("drawbox", {"color": "gray", "t": "fill", "enable": f"not(eq(n,{shown}))"}),
    )


@pytest.mark.parametrize(
    ("suspect", "found"),
    [({}, False), ({0: None}, True), ({0: frozenset(range(3))}, True), ({0: frozenset({40})}, False)],
    ids=["nobody", "everywhere", "beside it", "elsewhere"],
)
def test_who_was_recognised_once_is_looked_for_between_frames_that_show_no_face(
    clip: Path,
    store: ModelStore,
    tmp_path: Path,
    suspect: dict[int, frozenset[int] | None],
    found: bool,
) -> None:
    """The face shows in one frame, which is none of those that are always judged."""
    shown = 6
    hidden = hidden_but_for(clip, tmp_path / "hidden.mp4", shown)
    plan = analyse(clip, load_settings(None, []), store)
    assert plan.tracks[0].id == 0
    memory = Memory(suspects=suspect)
    result = audit(clip, hidden, store, plan=plan, samples=2, memory=memory)
    (track,) = result.tracks
    assert not result.leaks
    assert [sample.frame for sample in track.samples if sample.recognised_by] == [shown] * found


def test_what_failed_in_an_earlier_result_is_looked_at_again(
    clip: Path, store: ModelStore, tmp_path: Path
) -> None:
    shown = 6
    hidden = hidden_but_for(clip, tmp_path / "hidden.mp4", shown)
    plan, memory = analyse(clip, load_settings(None, []), store), Memory(suspects={0: None})
    for _ in range(2):
        (track,) = audit(clip, hidden, store, plan=plan, samples=2, memory=memory).tracks
        assert [sample.frame for sample in track.samples if sample.recognised_by] == [shown]
        memory.suspects.clear()  # nothing else may lead there


def test_videos_of_different_size_are_refused(clip: Path, store: ModelStore, tmp_path: Path) -> None:
    small = reencode(clip, tmp_path / "small.mp4", ("scale", {"w": 320, "h": 180}))
    with pytest.raises(InputError, match="of the size of"):
        evaluate_pair(clip, small, store)


def test_audio_is_compared_by_its_packets(tmp_path: Path) -> None:
    first, other = tone(tmp_path / "a.mp4", 440), tone(tmp_path / "b.mp4", 880)
    copied = tmp_path / "copy.mkv"
    ffmpeg.input(str(first)).output(str(copied), c="copy").run(cmd=FFMPEG, quiet=True)

    assert len(audio_hashes(first)) == 1
    assert audio_hashes(copied) == audio_hashes(first) != audio_hashes(other)


@given(
    yaw=st.floats(-40, 40), pitch=st.floats(-25, 25), roll=st.floats(-30, 30), distance_cm=st.floats(30, 90)
)
def test_head_pose_is_recovered_from_projected_landmarks(
    yaw: float, pitch: float, roll: float, distance_cm: float
) -> None:
    bundle = ModelStore()
    model("face-landmarker")
    width, height = 640, 360
    truth = Rotation.from_euler("yxz", [yaw, pitch, roll], degrees=True).as_matrix().astype(np.float32)
    points = canonical_face(bundle.path("face-landmarker")) @ truth.T + np.array([3, -2, distance_cm])
    focal = height / (2 * np.tan(np.radians(31.5)))
    seen = points[:, :2] / points[:, 2:] * focal + np.array([width / 2, height / 2])
    landmarks = np.concatenate([seen, np.zeros((10, 2))]).astype(np.float32)

    assert angle_deg(HeadPose(bundle)(landmarks, width, height), truth) < 0.2


@given(st.floats(0, 180))
def test_angle_between_rotations(angle: float) -> None:
    turned = Rotation.from_euler("y", angle, degrees=True).as_matrix().astype(np.float32)
    assert angle_deg(np.eye(3, dtype=np.float32), turned) == pytest.approx(angle, abs=0.1)


def test_overlap_of_boxes() -> None:
    box = np.array([0, 0, 10, 10], np.float32)
    assert box_iou(box, box) == pytest.approx(1)
    assert box_iou(box, box + 20) == 0
    assert box_iou(box, np.array([5, 0, 15, 10], np.float32)) == pytest.approx(1 / 3)


def test_only_the_face_box_decides_whether_a_face_is_unchanged() -> None:
    source = np.random.default_rng(0).integers(0, 256, (60, 60, 3)).astype(np.uint8)
    box = np.array([20, 20, 40, 40], np.float32)
    background, face = source.copy(), source.copy()
    background[:15] = 0
    face[20:40, 20:40] //= 2

    assert is_unchanged(source, background, box)
    assert not is_unchanged(source, face, box)


def test_gaze_has_a_direction() -> None:
    shapes = np.zeros((2, 52), np.float32)
    shapes[0, [13, 16]] = 0.8
    shapes[1, [14, 15]] = 0.8
    assert expression_signals(shapes)["gaze_x"] == pytest.approx([0.8, -0.8])


def test_clips_are_found_by_the_beginning_of_their_names(tmp_path: Path) -> None:
    for name in ("asl_b.mkv", "asl_a.mkv", "chaplin.mp4", "notes.md"):
        (tmp_path / name).touch()

    assert [path.name for path in find_clips(tmp_path, None)] == ["asl_a.mkv", "asl_b.mkv", "chaplin.mp4"]
    assert [path.name for path in find_clips(tmp_path, ["asl"])] == ["asl_a.mkv", "asl_b.mkv"]
    assert [path.name for path in find_clips(tmp_path, ["*_b*", "*.mp4"])] == ["asl_b.mkv", "chaplin.mp4"]
    with pytest.raises(InputError, match="hamilton"):
        find_clips(tmp_path, ["asl", "hamilton"])
    with pytest.raises(InputError, match="no such folder"):
        find_clips(tmp_path / "nowhere", None)


def test_a_file_that_is_no_video_is_named(tmp_path: Path) -> None:
    broken = tmp_path / "broken.mp4"
    broken.write_text("not a video")
    with pytest.raises(InputError, match=r"broken\.mp4"):
        shorten(broken, tmp_path / "out.mkv", 3)


def test_table_lines_up_and_marks_what_was_not_measured() -> None:
    row = {"clip": "a.mp4", "source_frames": 12, "audio_identical": False, "nme": 0.01234, "correlation": {}}
    lines = format_table(
        [row, row | {"clip": "a_longer_name.mkv", "correlation": {"blink": 0.5}}]
    ).splitlines()

    assert len({len(line) for line in lines}) == 1
    assert "NO" in lines[1] and "0.012" in lines[1] and " - " in lines[1]
    assert "0.500" in lines[2]


def test_a_clip_that_fails_is_reported_and_the_command_fails(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "broken.mp4").write_text("not a video")
    numbers = tmp_path / "numbers.json"

    with pytest.raises(JobsError, match=r"1 of 1 clips.*broken\.mp4"):
        evaluate_clips(tmp_path, options=ClipOptions(max_frames=3), results_file=numbers)
    assert "broken.mp4" in capsys.readouterr().out
    assert json.loads(numbers.read_text())["clips"][0]["clip"] == "broken.mp4"


def test_a_bug_on_one_clip_does_not_end_the_others(
    tmp_path: Path, plain_clip: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object) -> None:
        raise ZeroDivisionError("boom")

    for name in ("a.mp4", "b.mp4"):
        shutil.copy(plain_clip, tmp_path / name)
    monkeypatch.setattr("vidanon.api.anonymize", fail)

    with pytest.raises(JobsError, match=r"2 of 2 clips.*a\.mp4 \(ZeroDivisionError: boom\)"):
        evaluate_clips(tmp_path, results_file=tmp_path / "numbers.json")
    assert len(json.loads((tmp_path / "numbers.json").read_text())["clips"]) == 2


def test_a_refused_result_is_measured_and_marked(
    tmp_path: Path, plain_clip: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(source: Path, output: Path, *_: object) -> None:
        shutil.copy(source, rejected_path(output))
        raise UnsafeError("still recognisable")

    shutil.copy(plain_clip, tmp_path / "a.mp4")
    monkeypatch.setattr("vidanon.api.anonymize", refuse)
    for name in ("dlib-resnet", "edgeface", "sface", "face-landmarker", "centerface", "yunet"):
        model(name)
    pytest.importorskip("dlib", reason="dlib is optional")
    sheets = tmp_path / "sheets"
    found = evaluate_clips(
        tmp_path, ["a*"], options=ClipOptions(sheets=sheets), results_file=tmp_path / "numbers.json"
    )

    (result,) = found["clips"]
    assert result["refused"] == "still recognisable" and result["source_frames"] == 30
    assert {bar["name"]: bar["passed"] for bar in result["bars"]}["frames missing or too many"] is True
    assert result["copy"]["nme"] is None  # the clip shows nobody
    assert (sheets / "a.mp4.png").is_file()


@pytest.mark.parametrize(("value", "passed"), [(0.95, True), (0.9, True), (0.89, False), (None, None)])
def test_a_bar_is_passed_missed_or_not_measured(value: float | None, passed: bool | None) -> None:
    bar = Bar("eyeBlink follows", "correlation.blink", 0.9, at_least=True)
    (verdict,) = judge({"correlation": {"blink": value}}, [bar])
    assert verdict["passed"] is passed
    assert {True: "pass", False: "FAIL", None: "-"}[passed] in format_verdicts([verdict])


def test_bars_of_the_mean_pass_over_clips_that_did_not_measure_them() -> None:
    bar = Bar("MAE", "blendshape_mae", 0.03, at_least=False)
    (verdict,) = mean_of(
        [{"blendshape_mae": 0.02}, {"blendshape_mae": None}, {"blendshape_mae": 0.03}], [bar]
    )
    assert verdict["value"] == pytest.approx(0.025) and verdict["clips"] == 2 and verdict["passed"]
    assert verdict["copy"] is None and "encoded anew" not in format_verdicts([verdict])


def test_what_a_copy_of_the_source_reaches_stands_beside_the_verdict() -> None:
    bar = Bar("pose", "pose_error_deg", 2.0, at_least=False)
    results = [
        {"clip": "a.mp4", "pose_error_deg": 2.5, "copy": {"pose_error_deg": 1.5}},
        {"clip": "b.mp4", "pose_error_deg": None, "copy": {"pose_error_deg": 9.0}},
    ]
    (verdict,) = mean_of(results, [bar])
    assert verdict["copy"] == 1.5
    assert "source encoded anew: 1.500" in format_verdicts([verdict])
    table = format_clip_bars([result | {"bars": judge(result, CLIP_BARS)} for result in results])
    lines = iter(table.splitlines())
    pose = next(line for line in lines if "pose" in line)
    copy = next(lines)
    assert "2.500 !" in pose and "1.500" in copy and "9.000" in copy
