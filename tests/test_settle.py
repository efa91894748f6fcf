"""A head with a new face is seen to be turned as it was, and to rest as it did."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sample_cut import cut_sample
from test_evaluate import model

from vidanon.audit.studio import Studio, read_frames
from vidanon.geometry import apply, invert, picture_from_unit
from vidanon.identity.keep import Aim
from vidanon.identity.mien import MOST, Mien
from vidanon.identity.settle import Draw, Drawn, settle
from vidanon.identity.turn import MOST_DEG, moved_back, turned_too_far
from vidanon.measures import SMILE
from vidanon.models.registry import ModelStore
from vidanon.plan import analyse
from vidanon.renderer import Renderer
from vidanon.rendersummary import RenderSummary
from vidanon.settings import load_settings
from vidanon.stages.head_pose import HeadPose, angle_deg
from vidanon.stages.landmark import Landmarker, mesh_box
from vidanon.stages.mesh import BROWS, EYE_CORNERS, IRISES
from vidanon.stages.reduced import cut_out
from vidanon.stages.warp import lacking, target_landmarks
from vidanon.types import Float, Frame, Plan, Track, UInt8

FRAMES = 12
BLINKS = [9, 10]
CM_IN_CROP = 24.0
"""What the side of a crop shows of a head."""
TURN = st.floats(-8, 8, width=32)


def turn(*degrees: float) -> Float:
    return np.asarray(cv2.Rodrigues(np.radians(degrees))[0], np.float32)


def aligned(pose: HeadPose, rotation: Float) -> Float:
    """Landmarks (478, 2) of the canonical face, turned, seen from far away, in the unit crop."""
    seen = np.concatenate([pose.points @ rotation.T, np.zeros((10, 3), np.float32)])
    return np.asarray(seen[:, :2] / CM_IN_CROP + 0.5, np.float32)


@given(pitch=TURN, yaw=TURN, roll=TURN, head_yaw=st.floats(-40, 40, width=32))
def test_landmarks_move_as_those_of_a_head_that_turns(
    pitch: float, yaw: float, roll: float, head_yaw: float
) -> None:
    pose = HeadPose(ModelStore())
    before, after = (aligned(pose, x @ turn(0, head_yaw, 0)) for x in (turn(0, 0, 0), turn(pitch, yaw, roll)))
    moved = moved_back(before, -np.array([pitch, yaw, roll], np.float32), pose)
    wanted = (after - before)[:468]
    wanted = wanted - wanted.mean(axis=0)
    largest = float(np.abs(wanted).max())
    assert np.abs(moved[:468] - wanted).max() <= 0.3 * largest + 1e-3, "but for perspective"
    assert not moved[468:].any(), "irises have their place between the corners of the eyes"
    assert np.abs(moved[:468].mean(axis=0)).max() < 1e-6, "the face as a whole stays where it is"


CONTRASTS = np.array([[0.6, 0.7, 0.8], [0.7, 0.8, 0.9], [5.0, 0.8, 0.9]], np.float32)
"""Seen of a new face in three frames."""
LACKING = np.array([0.01, 0.02, 0.06], np.float32)[:, None, None] * np.ones((478, 2), np.float32)
"""How far its landmarks lie from the source's there."""


class _Scripted:
    """A landmarker that sees a new face turned by some degrees more than it is drawn, and blinking."""

    def __init__(self, source: Float, pose: HeadPose, extra: float, effect: float, blink: float = 0) -> None:
        self._source, self._pose, self._extra, self._effect = source, pose, extra, effect
        self._blink = blink

    def around(self, image: UInt8, landmarks: object) -> tuple[Float, Float] | None:
        shown, bent, told = (float(value) for value in image[0, 0])
        blendshapes = np.zeros(52, np.float32)
        if not shown:
            return self._source, blendshapes
        left = self._extra - self._effect * (bent - 128) / 10
        landmarks = apply(picture_from_unit(len(image)), aligned(self._pose, turn(left, 0, 0)))
        blendshapes[BLINKS] = self._blink + self._effect * (told - 128) / 100
        return landmarks, blendshapes


def scene(size: int) -> tuple[Frame, Track]:
    """A black frame with a face seen from the front."""
    source = apply(picture_from_unit(size), aligned(HeadPose(ModelStore()), np.eye(3, dtype=np.float32)))
    track = Track(
        id=0,
        person=0,
        start=0,
        boxes=mesh_box(source)[None],
        scores=np.ones(1, np.float32),
        origin=np.zeros(1, np.uint8),
        landmarks=source[None],
        blendshapes=np.zeros((1, 52), np.float32),
        crop_from_frame=invert(picture_from_unit(size))[None],
    )
    return Frame(0, 0, np.zeros((size, size, 3), np.uint8)), track


@pytest.mark.parametrize("effect", [0.4, 0.7, 1.0])
def test_most_of_what_is_seen_is_taken_back_whatever_share_of_it_is_effective(effect: float) -> None:
    pose, size, extra = HeadPose(ModelStore()), 256, 3.0
    unit = aligned(pose, np.eye(3, dtype=np.float32))
    frame, track = scene(size)
    source = track.landmarks[0]

    def nod(bend: Float) -> float:
        """How far a bend turns a head back."""
        shown = apply(picture_from_unit(size), unit + bend)
        return -float(turned_too_far(shown, source, (size, size), pose)[0])

    def drawing(aim: Aim) -> Draw:
        # The picture tells the landmarker how far it was bent.
        bent = 128 if aim.bend is None else np.clip(round(128 + 10 * nod(aim.bend)), 0, 255)
        picture = np.full((size, size, 3), (1, bent, 128), np.uint8)
        return lambda number: Drawn(picture, track.landmarks[0], CONTRASTS[number], LACKING[number])

    landmarker, start = _Scripted(source, pose, extra, effect), Aim(np.ones(128, np.float32), beard=0.5)
    settled = settle(start, drawing, 3 * [(frame, track)], landmarker, pose, 1)  # type: ignore[arg-type]
    assert settled.bend is not None and abs(extra - effect * nod(settled.bend)) < 0.45 * extra
    assert settled.asked is start.asked and settled.beard == start.beard
    assert settled.contrast is not None and settled.shape is not None
    np.testing.assert_allclose(settled.shape, LACKING.mean(axis=0), rtol=1e-5)
    np.testing.assert_allclose(settled.contrast, CONTRASTS[1], err_msg="one odd frame changes nothing")

    unseen = settle(start, lambda _: lambda _: None, [(frame, track)], landmarker, pose, 1)  # type: ignore[arg-type]
    for nothing in (unseen, settle(start, drawing, [], landmarker, pose, 1)):  # type: ignore[arg-type]
        assert nothing.bend is not None and not nothing.bend.any(), "a face that is never shown is not bent"
        assert not nothing.mien.blendshapes.any() and nothing.contrast is None and nothing.shape is None


@pytest.mark.parametrize(("effect", "left"), [(0.5, 0.1), (1.0, 0.1), (-1.0, 0.2), (0.05, 0.2)])
def test_lids_that_always_hang_are_raised_and_nothing_is_told_in_vain(effect: float, left: float) -> None:
    """``left`` is left at most; where telling makes it worse, or hardly better, nothing is told."""
    pose, hang = HeadPose(ModelStore()), 0.2
    frame, track = scene(256)

    def drawing(aim: Aim) -> Draw:
        told = np.clip(round(128 + 100 * float(aim.mien.blendshapes[BLINKS[0]])), 0, 255)
        picture = np.full((256, 256, 3), (1, 128, told), np.uint8)
        return lambda number: Drawn(picture, track.landmarks[0], CONTRASTS[number], LACKING[number])

    landmarker = _Scripted(track.landmarks[0], pose, 0, effect, hang)
    start = Aim(np.ones(128, np.float32))
    mien = settle(start, drawing, [(frame, track)], landmarker, pose, 1).mien  # type: ignore[arg-type]
    told = mien.blendshapes[BLINKS[0]]
    assert abs(hang + effect * told) <= left + 1e-6
    assert (told != 0) == (effect >= 0.5)
    assert not np.delete(mien.blendshapes, BLINKS).any()


@given(
    seed=st.integers(0, 2**32 - 1),
    tilt=st.floats(-3, 3, width=32),
    scale=st.floats(0.125, 8, width=32),
    gaze=st.tuples(st.floats(-1, 1, width=32), st.floats(-1, 1, width=32)),
)
def test_only_irises_are_told_elsewhere_and_as_far_in_every_crop(
    seed: int, tilt: float, scale: float, gaze: tuple[float, float]
) -> None:
    landmarks = np.random.default_rng(seed).random((478, 2)).astype(np.float32)
    lacking = np.zeros(52, np.float32)
    lacking[[13, 16]], lacking[[17, 18]] = gaze[0], gaze[1]
    mien = Mien().mended(lacking)
    assert np.abs(mien.blendshapes).max() <= MOST
    placed = scale * np.array([[np.cos(tilt), -np.sin(tilt)], [np.sin(tilt), np.cos(tilt)]], np.float32)
    _, there = mien.told(lacking, landmarks)
    _, elsewhere = mien.told(lacking, landmarks @ placed.T)
    np.testing.assert_allclose(there @ placed.T, elsewhere, atol=1e-4 * scale)
    assert np.array_equal(there[:468], landmarks[:468])
    across = landmarks[133] - landmarks[33]
    moved = (there - landmarks)[468:473] @ across
    assert (moved * gaze[0] <= 1e-6).all(), "who looks to the left of the picture has irises there"


@given(
    seed=st.integers(0, 2**32 - 1),
    smile=st.floats(0, 0.5, width=32),
    glance=st.floats(-0.5, 0.5, width=32),
)
def test_of_smiles_and_glances_aside_more_is_told_and_of_what_is_usual_as_much(
    seed: int, smile: float, glance: float
) -> None:
    rng = np.random.default_rng(seed)
    usual, landmarks = (rng.random(shape).astype(np.float32) / 2 for shape in (52, (478, 2)))
    mien = Mien(usual=usual)
    for told, shown in zip(mien.told(usual, landmarks), (usual, landmarks), strict=True):
        np.testing.assert_allclose(told, shown, atol=1e-6)
    changed = usual.copy()
    changed[list(SMILE)] += smile
    changed[[13, 16]] += glance
    told, moved = mien.told(changed, landmarks)
    shown = changed[list(SMILE)]
    assert (told[list(SMILE)] >= np.minimum(shown + 0.3 * smile, 1) - 1e-6).all()
    assert (told[list(SMILE)] <= np.maximum(shown + smile, 1) + 1e-6).all()
    assert np.array_equal(np.delete(told, SMILE), np.delete(changed, SMILE))
    for iris, (left, right) in zip(IRISES, EYE_CORNERS, strict=True):
        further = (moved - landmarks)[iris] @ (landmarks[right] - landmarks[left])
        assert further * glance <= 1e-6, "who glances to the left of the picture has irises there"
    assert np.array_equal(moved[:468], landmarks[:468])


@pytest.mark.parametrize("seed", [238, 279, 372])
def test_landmarks_that_no_face_has_are_turned_somehow(seed: int) -> None:
    """OpenCV finds no start for these, nor for a mesh met while faces were tried in driver_video1."""
    points = np.random.default_rng(seed).uniform(0, 480, (478, 2)).astype(np.float32)
    rotation = HeadPose(ModelStore())(points, 640, 480)
    np.testing.assert_allclose(rotation @ rotation.T, np.eye(3), atol=1e-4)


def test_a_failed_landmarker_bends_nothing_out_of_shape() -> None:
    pose = HeadPose(ModelStore())
    unit = aligned(pose, np.eye(3, dtype=np.float32))
    turned = turned_too_far(unit[:, ::-1].copy() * 256, unit * 256, (256, 256), pose)
    assert np.abs(turned).max() <= MOST_DEG
    assert np.abs(moved_back(unit, turned, pose)).max() < 0.1


def test_a_bend_moves_landmarks_and_leaves_gaze_alone() -> None:
    pose = HeadPose(ModelStore())
    source = aligned(pose, np.eye(3, dtype=np.float32)) * 200
    source[468:473], source[473:] = source[[33, 133]].mean(axis=0), source[[362, 263]].mean(axis=0)
    bend = moved_back(source / 200, np.array([3, 0, 0], np.float32), pose) * 200
    straight, bent = target_landmarks(source, source), target_landmarks(source, source, bend)
    np.testing.assert_allclose(bent[:468] - straight[:468], bend[:468], atol=1e-3)
    for iris, corners in ((468, (33, 133)), (473, (362, 263))):
        place = [points[iris] - points[list(corners)].mean(axis=0) for points in (straight, bent)]
        np.testing.assert_allclose(place[0], place[1], atol=0.05)


@given(rise=st.floats(-0.03125, 0.03125, width=32), tilt=st.floats(-3, 3, width=32))
def test_brows_make_up_for_what_they_lack_of_movement_and_keep_their_shape(rise: float, tilt: float) -> None:
    turned = np.array([[np.cos(tilt), np.sin(tilt)], [-np.sin(tilt), np.cos(tilt)]], np.float32)
    rest = aligned(HeadPose(ModelStore()), np.eye(3, dtype=np.float32)) * 200
    generated, brows = rest.copy(), list(BROWS)
    generated[brows, 1] -= 5
    eyes_px = float(np.hypot(*(rest[263] - rest[33])))
    raised = rest.copy()
    raised[brows, 1] -= rise * eyes_px
    shape = lacking(generated, rest @ turned)

    def brows_of(source: Float, shape: Float | None) -> Float:
        return (target_landmarks(generated, source @ turned, shape=shape) @ turned.T)[brows, 1]

    np.testing.assert_allclose(brows_of(rest, shape), brows_of(rest, None), atol=0.01, err_msg="at rest")
    followed = brows_of(raised, shape) - brows_of(rest, shape)
    np.testing.assert_allclose(followed, -1.75 * rise * eyes_px, atol=0.02)
    raised[brows, 1] -= eyes_px  # what is before a face can make it look so
    most = np.abs(brows_of(raised, shape) - brows_of(raised, None)).max()
    assert most <= 0.08 * eyes_px + 0.01


@pytest.fixture(scope="module")
def clip(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A few frames of a real person."""
    return cut_sample(tmp_path_factory.mktemp("bend") / "clip.mp4", 0, FRAMES)


@pytest.fixture(scope="module")
def plan(clip: Path) -> Plan:
    model("face-landmarker")
    key = clip.with_name("key")
    # With every key the faces are others, and some hardly rest otherwise.
    key.write_bytes(bytes(range(1, 33)))
    return analyse(clip, load_settings(None, [f"identity.key_file={key}"]), ModelStore())


def test_heads_of_a_real_video_are_seen_to_be_turned_and_to_rest_as_they_did(clip: Path, plan: Plan) -> None:
    models, settings, track = ModelStore(), load_settings(None, ["render.exit_px=256"]), plan.tracks[0]
    landmarker, pose = Landmarker(models, 2), HeadPose(models)
    frames = read_frames(clip, {1, 4, 7, 10})

    def read(image: UInt8, frame: Frame) -> tuple[Float, Float]:
        near = track.landmarks[frame.index - track.start].astype(np.float32)
        mesh = landmarker.around(image, near)
        assert mesh is not None
        return pose(mesh[0], image.shape[1], image.shape[0]), mesh[1]

    turned, amiss = [], []
    for code in plan.spares[0][:6]:
        drawn = replace(plan, identities={0: code})
        settled = Renderer(drawn, settings, models, RenderSummary())
        unsettled = settled.previewing(drawn.identities, 256)
        for frame in frames:
            images = [renderer.still(frame, {track.id}) for renderer in (unsettled, settled)]
            if all(shown for _, shown in images):
                before, after = read(frame.image, frame), [read(image, frame) for image, _ in images]
                turned.append([angle_deg(before[0], result[0]) for result in after])
                amiss.append([float(np.abs(before[1] - result[1]).mean()) for result in after])
    assert len(turned) > 12
    without, with_bend = np.mean(turned, axis=0)
    assert with_bend < without - 0.1 and with_bend < 1.6
    without, with_mien = np.mean(amiss, axis=0)
    assert with_mien < 0.95 * without


def test_a_second_track_of_somebody_without_landmarks_is_left_alone(clip: Path, plan: Plan) -> None:
    track = plan.tracks[0]
    nowhere = np.full_like(track.crop_from_frame, np.nan)
    twice = replace(plan, tracks=(track, replace(track, id=1, crop_from_frame=nowhere)))
    studio = Studio(clip, twice, {0: [2, 8]}, load_settings(), ModelStore())
    assert studio.freely_seen(0, [2, 8]) == [2, 8]
    drawn = studio.draw({0: {0: [2, 8]}})
    assert sorted(drawn[0][0]) == [2, 8]


def test_what_surrounds_a_face_is_cut_out_with_it(clip: Path, plan: Plan) -> None:
    (frame,), track = read_frames(clip, {5}), plan.tracks[0]
    small, alone = cut_out(frame, track)
    assert small.image.size < frame.image.size and len(alone) == 1 and alone.start == 5
    row, height, width = 5 - track.start, *small.image.shape[:2]
    crops = [
        apply(x.crop_from_frame[n], x.landmarks[n].astype(np.float32)) for x, n in ((track, row), (alone, 0))
    ]
    np.testing.assert_allclose(crops[0], crops[1], atol=0.01)
    inside = alone.landmarks[0].astype(np.float32)
    assert (inside > 0).all() and (inside < [width, height]).all()
