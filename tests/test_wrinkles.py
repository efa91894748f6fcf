"""Wrinkles of an expression go over to the new face; what a face always has stays behind."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest
from test_audit import make_track
from test_evaluate import model
from test_hands import face_at
from test_warp import head

from vidanon.facework import FADE_FRAMES, Face
from vidanon.geometry import apply, fit_affine, invert, unit_crop_from_frame
from vidanon.identity.resting import LOOKS, Resting
from vidanon.measures import furrow_depth
from vidanon.models.registry import ModelStore
from vidanon.renderer import CONTEXT_FRAMES
from vidanon.stages.head_pose import canonical_face
from vidanon.stages.reduced import cut_out
from vidanon.stages.segment import BACKGROUND, HAIR, HAND, OCCLUDER, SKIN, PartReader
from vidanon.stages.synthesize import crop_face
from vidanon.stages.wrinkles import Look, at_rest, visible, wrinkled
from vidanon.types import AtRest, Float, Frame, Track, UInt8

FRAME_PX, REGION = 400, (40, 20, 360, 380)
PARTS_PX = 64
BETWEEN_BROWS, FOREHEAD = (200, 132), (200, 72)
"""Pixels of the frame, of a head that looks into the camera."""


def frontal(yaw_deg: float = 0.0, size_px: int = FRAME_PX) -> Float:
    return head(canonical_face(model("face-landmarker")), yaw_deg, size_px)


def skin(*lines: tuple[tuple[int, int], tuple[int, int]]) -> UInt8:
    """A picture of skin, darker to the right as light from the left makes it, with dark lines."""
    image = np.full((FRAME_PX, FRAME_PX, 3), (190, 150, 130), np.float32)
    image *= np.linspace(1.1, 0.7, FRAME_PX, dtype=np.float32)[None, :, None]
    for start, end in lines:
        cv2.line(image, start, end, (70, 50, 40), 3, cv2.LINE_AA)
    return np.asarray(image, np.uint8)


def bare() -> Float:
    parts = np.zeros((HAND + 1, PARTS_PX, PARTS_PX), np.float32)
    parts[SKIN] = 1
    return parts


def look(image: UInt8, landmarks: Float | None = None, parts: Float | None = None) -> Look:
    landmarks = frontal() if landmarks is None else landmarks
    crop_from_frame = unit_crop_from_frame(landmarks)
    return Look(image, landmarks, crop_from_frame, bare() if parts is None else parts)


def resting(*lines: tuple[tuple[int, int], tuple[int, int]], count: int = 8) -> AtRest:
    rest = at_rest([look(skin(*lines))] * count)
    assert rest is not None
    return rest


def darkened(seen: Look, rest: AtRest, target: Float | None = None, share: float = 1) -> Float:
    """How much darker a plain new face gets, grey levels, by pixels of the frame."""
    x0, y0, x1, y1 = REGION
    new = np.full((y1 - y0, x1 - x0, 4), 150, np.uint8)
    result, _ = wrinkled(new, REGION, seen, seen.landmarks if target is None else target, rest, share)
    assert (new == 150).all(), "the picture that came in stays as it is"
    assert (result[..., 3] == 150).all()
    frame = np.zeros((FRAME_PX, FRAME_PX), np.float32)
    frame[y0:y1, x0:x1] = 150 - result[..., :3].astype(np.float32).mean(axis=2)
    return frame


def around(change: Float, point: tuple[int, int], reach: int = 8) -> Float:
    return change[point[1] - reach : point[1] + reach, point[0] - reach : point[0] + reach]


FURROW = ((196, 120), (196, 142))
LINE = ((170, 72), (230, 72))


def test_a_furrow_and_a_line_on_the_forehead_go_over() -> None:
    change = darkened(look(skin(FURROW, LINE)), resting())
    assert around(change, BETWEEN_BROWS).max() > 15
    assert around(change, FOREHEAD).max() > 15
    assert np.abs(change[160:]).max() == 0, "nothing below the eyes"
    rows, columns = np.nonzero(change > 15)
    assert abs(float(np.median(columns[rows > 115])) - 196) <= 2, "where it is in the source"


def test_what_is_always_there_stays_behind() -> None:
    change = darkened(look(skin(FURROW, LINE)), resting(FURROW, LINE))
    assert np.abs(change).max() <= 2


def test_a_face_that_relaxes_loses_no_more_than_a_little_shade() -> None:
    change = darkened(look(skin()), resting(FURROW))
    assert -20 < change.min() < -5 and change.max() <= 10


def test_light_does_not_go_over() -> None:
    rest, other = resting(), skin()
    for light in (0.5, 1.3):
        lit = np.clip(other * light, 0, 255).astype(np.uint8)
        assert np.abs(darkened(look(lit), rest)).max() <= 2
    across = np.ascontiguousarray(other[:, ::-1])
    assert np.abs(darkened(look(across), rest)).max() <= 4, "from the other side"


def test_nothing_ever_gets_much_darker() -> None:
    image = skin()
    cv2.circle(image, BETWEEN_BROWS, 4, (0, 0, 0), -1)
    assert 0 < darkened(look(image), resting()).max() < 0.35 * 150


@pytest.mark.parametrize("part", [HAIR, BACKGROUND])
def test_hair_is_no_wrinkle(part: int) -> None:
    parts = bare()
    parts[SKIN], parts[part] = 0, 1
    assert np.abs(darkened(look(skin(FURROW, LINE), parts=parts), resting())).max() == 0


def test_between_the_brows_a_shade_is_a_furrow_and_a_finger_is_none() -> None:
    landmarks, rest = frontal(), resting()
    crop_from_frame = unit_crop_from_frame(landmarks)
    (x, y), (_, chin) = (
        apply(crop_from_frame, np.float32(p)) * PARTS_PX for p in (BETWEEN_BROWS, (200, 300))
    )
    columns = slice(int(x) - 2, int(x) + 3)
    for bottom, goes_over in ((y + 3, True), (chin, False)):
        parts = bare()
        rows = slice(int(y) - 3, int(bottom))
        parts[SKIN, rows, columns], parts[OCCLUDER, rows, columns] = 0.1, 0.9
        change = darkened(look(skin(FURROW), landmarks, parts), rest)
        assert (around(change, BETWEEN_BROWS).max() > 15) == goes_over
    parts = bare()
    parts[SKIN], parts[OCCLUDER] = 0.1, 0.9
    assert np.abs(darkened(look(skin(FURROW, LINE), landmarks, parts), rest)).max() == 0


def test_a_share_of_wrinkles_goes_over() -> None:
    seen, rest = look(skin(FURROW)), resting()
    all_of_them = darkened(seen, rest).max()
    assert darkened(seen, rest, share=0.5).max() == pytest.approx(all_of_them / 2, rel=0.2)
    new = np.full((360, 320, 4), 150, np.uint8)
    assert wrinkled(new, REGION, seen, seen.landmarks, rest, share=0)[0] is new
    assert wrinkled(new, REGION, seen, seen.landmarks, rest)[1]
    assert not wrinkled(new, REGION, look(skin()), seen.landmarks, rest)[1]


def test_wrinkles_lie_where_the_new_face_has_its_forehead() -> None:
    seen, rest = look(skin(FURROW)), resting()
    moved = seen.landmarks + np.float32([12, -7])
    before, after = darkened(seen, rest), darkened(seen, rest, moved)
    np.testing.assert_allclose(after[60:150, 112:300], before[67:157, 100:288], atol=2)


@pytest.mark.parametrize("size_px", [70, 80])
def test_small_faces_show_none(size_px: int) -> None:
    small = frontal(size_px=size_px)
    shrunk = np.asarray(cv2.resize(skin(FURROW), (size_px, size_px), interpolation=cv2.INTER_AREA), np.uint8)
    seen = look(shrunk, small)
    assert visible(small) == 0
    new = np.full((50, 50, 4), 150, np.uint8)
    assert wrinkled(new, (0, 0, 50, 50), seen, small, resting()) == (new, False)


def test_profiles_show_none() -> None:
    turned = look(skin(FURROW), frontal(65))
    assert visible(turned.landmarks) == 0
    assert visible(frontal()) == visible(frontal(20)) == 1
    assert np.abs(darkened(turned, resting())).max() == 0


def test_a_face_seen_seldom_is_not_known_at_rest() -> None:
    assert at_rest([]) is None
    assert at_rest([look(skin())] * 4) is None
    covered = bare()
    covered[SKIN], covered[HAIR] = 0, 1
    rest = at_rest([look(skin())] * 4 + [look(skin(), parts=covered)] * 4)
    assert rest is not None and not rest.known.any()
    assert np.abs(darkened(look(skin(FURROW)), rest)).max() == 0


def test_faces_of_any_size_and_place_do_no_harm() -> None:
    rest = resting()
    for scale, offset in ((0.5, 0), (3.0, -100), (1.0, 330), (1.0, -330)):
        landmarks = frontal() * np.float32(scale) + np.float32(offset)
        assert np.isfinite(darkened(look(skin(FURROW), landmarks), rest)).all()


def test_furrows_are_measured_in_any_light_and_size() -> None:
    furrowed = np.asarray(cv2.addWeighted(skin(FURROW), 0.3, skin(), 0.7, 0), np.uint8)
    plain, deep = (furrow_depth(image, frontal()) for image in (skin(), furrowed))
    assert deep > 3 * plain
    assert furrow_depth((furrowed * 0.6).astype(np.uint8), frontal()) == pytest.approx(deep, rel=0.2)
    double = cv2.resize(furrowed, (2 * FRAME_PX,) * 2)
    assert furrow_depth(double, frontal() * 2) == pytest.approx(deep, rel=0.3)
    assert np.isnan(furrow_depth(furrowed, frontal() * np.float32(0.1)))
    assert np.isfinite(furrow_depth(furrowed, frontal() + np.float32(900))), "past the border"
    assert np.isnan(furrow_depth(furrowed, frontal(40))), "the nose has a shade of its own"
    assert np.isfinite(furrow_depth(furrowed, frontal(20)))
    assert np.isnan(furrow_depth(skin(FURROW), frontal())), "a finger"


def test_wrinkles_fade_out_before_frames_that_show_none_by_the_plan() -> None:
    track = make_track(count=40)
    assert {Face(track, offset).share_of_wrinkles() for offset in range(40)} == {1.0}
    bare_rows = np.isin(np.arange(40), range(20, 25))
    shares = [Face(replace(track, covered=bare_rows), offset).share_of_wrinkles() for offset in range(40)]
    assert shares[20:25] == [0.0] * 5
    assert shares[:14] == [1.0] * 14 and shares[31:] == [1.0] * 9
    assert max(abs(np.diff(shares))) < 0.2
    assert FADE_FRAMES <= CONTEXT_FRAMES, "so many frames beside those that a plan changes are drawn anew"


def track_of(number: int, start: int, landmarks: Float, count: int = 40) -> Track:
    track = make_track(number, start=start, count=count)
    crops = np.tile(unit_crop_from_frame(landmarks), (count, 1, 1))
    return replace(track, person=0, landmarks=np.tile(landmarks, (count, 1, 1)), crop_from_frame=crops)


def test_every_track_that_shows_wrinkles_is_looked_at_in_its_own_light() -> None:
    tracks = [track_of(0, 0, frontal()), track_of(1, 40, frontal()), track_of(2, 80, frontal(size_px=60))]
    places = {0: [(track, row) for track in tracks for row in range(len(track))]}
    taken = {frame: [tracks[0]] for frame in range(0, 40, 2)} | {50: [tracks[1]]}
    resting = Resting(places, taken)
    frames = {
        number: {f for f, some in resting.wanted.items() if some[0].id == number} for number in range(3)
    }
    assert frames[0] <= taken.keys(), "what is looked at anyway is enough"
    assert len(frames[0]) == len(frames[1]) == LOOKS and min(frames[1]) == 40 and max(frames[1]) == 79
    assert not frames[2], "too small"
    for number, image in ((0, skin()), (1, skin(FURROW))):
        for frame in sorted(frames[number]):
            assert number not in resting.found
            resting.see(cut_out(Frame(frame, frame, image), tracks[number]), bare())
    assert resting.found.keys() == {0, 1}
    seen = look(skin(FURROW))
    assert darkened(seen, resting.found[0]).max() > 15 > darkened(seen, resting.found[1]).max()


FROWN_S, RELAXED_S = 1.2, (8.0, 10.0, 12.0, 14.0, 16.0)


def test_a_real_frown_goes_over_and_a_relaxed_forehead_does_not(tmp_path: Path) -> None:
    relaxed = [sample(tmp_path, start_s) for start_s in RELAXED_S]
    rest = at_rest(relaxed)
    assert rest is not None
    depths, frown = [], sample(tmp_path, FROWN_S)
    for seen in (frown, sample(tmp_path, 9.0)):
        plain = np.full((*seen.image.shape[:2], 4), 150, np.uint8)
        shown, frowns = wrinkled(plain, (0, 0, *seen.image.shape[1::-1]), seen, seen.landmarks, rest)
        assert frowns == (seen is frown)
        depths.append(furrow_depth(shown[..., :3], seen.landmarks))
        beside = np.ones(shown.shape[:2], bool)
        x0, y0 = np.floor(seen.landmarks[[127, 10, 356]].min(axis=0)).astype(int) - 20
        x1, y1 = np.ceil(seen.landmarks[[127, 168, 356]].max(axis=0)).astype(int)
        beside[max(y0, 0) : y1, max(x0, 0) : x1] = False
        assert (shown[beside] == 150).all()
    assert depths[0] > 0.02 and depths[0] > 4 * depths[1]


def sample(folder: Path, start_s: float) -> Look:
    """Look at a frame of the sample clip; or skip the test."""
    image, crop_from_frame, landmarks = face_at(folder, start_s)
    parts = PartReader(ModelStore(), "cpu", 1).source(
        image, crop_face(image, crop_from_frame), crop_from_frame, landmarks
    )
    return Look(image, apply(invert(crop_from_frame), landmarks), crop_from_frame, parts)


def test_affine_fit_finds_the_transform() -> None:
    random = np.random.default_rng(4)
    wanted = random.normal(0, 2, (2, 3)).astype(np.float32)
    points = random.uniform(-50, 50, (9, 2)).astype(np.float32)
    found = fit_affine(points, points @ wanted[:, :2].T + wanted[:, 2])
    np.testing.assert_allclose(found, wanted, atol=1e-3)
