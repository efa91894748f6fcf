"""The render pass's own machinery: order, look-ahead, smoothing, choice of exit."""

from __future__ import annotations

import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from vidanon import renderer as render
from vidanon.models.registry import ModelStore
from vidanon.redraw import context
from vidanon.rendersummary import RenderSummary
from vidanon.settings import Settings
from vidanon.stages import gate, synthesize
from vidanon.stages.workers import ordered_map, windowed
from vidanon.types import Float, IdentityCode, Plan, Track, UInt8, VideoInfo


def test_results_come_in_order_and_few_are_in_flight() -> None:
    taken: list[int] = []

    def items():  # type: ignore[no-untyped-def]
        for index in range(40):
            taken.append(index)
            yield index

    def work(index: int) -> int:
        time.sleep(0.002 if index % 3 else 0.006)
        return index

    with ThreadPoolExecutor(2) as pool:
        for done, result in enumerate(ordered_map(pool, work, items(), ahead=3)):
            assert result == done
            assert len(taken) - done <= 5


def test_an_error_in_a_worker_reaches_the_caller() -> None:
    with ThreadPoolExecutor(2) as pool, pytest.raises(ZeroDivisionError):
        list(ordered_map(pool, lambda x: 1 / x, [1, 0, 2], ahead=2))


@given(st.integers(0, 30), st.integers(1, 5))
def test_every_item_is_a_centre_once_with_all_its_neighbours(count: int, reach: int) -> None:
    seen = list(windowed(range(count), reach, lambda w, c: (w[c], list(w))))
    assert [center for center, _ in seen] == list(range(count))
    for center, window in seen:
        wanted = set(range(max(0, center - reach), min(count, center + reach + 1)))
        assert wanted <= set(window)
        assert len(window) <= 2 * reach + 1


def test_smoothing_keeps_a_constant_and_does_not_lag() -> None:
    constant = [np.full(512, 2.0, np.float32)] * 9
    np.testing.assert_allclose(synthesize.smooth_latents(constant, 4), constant[0], rtol=1e-6)
    ramp = [np.full(512, float(i), np.float32) for i in range(9)]
    smoothed = synthesize.smooth_latents(ramp, 4)
    assert smoothed is not None
    assert smoothed[0] == pytest.approx(4.0, abs=1e-5)
    assert synthesize.smooth_latents([*ramp[:4], None, *ramp[5:]], 4) is None


@pytest.mark.parametrize(
    ("side_px", "exit_px"), [(80, 128), (150, 128), (200, 256), (290, 256), (400, 512), (2000, 1024)]
)
def test_the_exit_fits_the_size_on_screen(side_px: float, exit_px: int) -> None:
    transform = np.tile(np.array([[1 / side_px, 0, 0], [0, 1 / side_px, 0]], np.float32), (5, 1, 1))
    transform[2] = np.nan
    assert synthesize.exit_for_face(transform) == exit_px


@pytest.mark.parametrize(("cutout", "size"), [("close-up", 128), ("close-up", 256), ("mouth", 512)])
def test_a_cutout_shows_what_the_whole_picture_shows(cutout: synthesize.Cutout, size: int) -> None:
    synthesizer = synthesize.Synthesizer(ModelStore(), "cpu", 1)
    w = np.random.default_rng(3).standard_normal(512).astype(np.float32) * np.float32(0.05)
    synthesizer.prepare(size)
    synthesizer.prepare(size, cutout)
    whole, alone = synthesizer.picture(w, size), synthesizer.picture(w, size, cutout)
    assert alone.shape == whole.shape
    window = synthesize.CUTOUTS[cutout]
    assert window is not None
    margin = round(0.06 * size)
    x0, y0, x1, y1 = (int(edge * size) for edge in window)
    middle = np.s_[y0 + margin : y1 - margin * (y1 < size), x0 + margin : x1 - margin]
    np.testing.assert_allclose(alone[middle].astype(int), whole[middle].astype(int), atol=8)


def test_another_mouth_is_made_alone_where_it_lies_as_usual(monkeypatch: pytest.MonkeyPatch) -> None:
    synthesizer, asked = synthesize.Synthesizer(ModelStore(), "cpu", 1), []
    monkeypatch.setattr(synthesizer, "prepare", lambda *_: None)
    monkeypatch.setattr(synthesizer, "picture", lambda w, size, cutout: asked.append(cutout))
    w, lips = np.zeros(512, np.float32), np.float32([[0.4, 0.7], [0.6, 0.8]])
    synthesizer.mouth(w, 512 * lips, 512, "close-up")
    synthesizer.mouth(w, 512 * (lips - np.float32([0.2, 0])), 512, "close-up")
    synthesizer.mouth(w, 512 * (lips + np.float32([0, 0.1])), 512, "whole")
    synthesizer.mouth(w, 128 * lips, 128, "whole")
    assert asked == ["mouth", "close-up", "whole", "whole"]


def test_a_face_that_leaves_the_close_up_is_told_from_one_that_fits() -> None:
    def oval(center_x: float, half: float) -> np.ndarray:
        angle = np.linspace(0, 2 * np.pi, 36)
        return np.stack([center_x + half * np.cos(angle), 0.6 + 0.38 * np.sin(angle)], 1).astype(np.float32)

    high, unknown = oval(0.5, 0.3) - np.float32([0, 0.15]), np.full((36, 2), np.nan, np.float32)
    faces = np.stack([oval(0.5, 0.3), oval(0.5, 0.4), oval(0.25, 0.2), oval(0.75, 0.2), high, unknown])
    assert synthesize.fit("close-up", faces).tolist() == [True, False, False, False, False, False]


class _Noise:
    """A generator that returns noise: no landmarks are found, so nothing may be shown."""

    def __init__(self, models: object, device: str, workers: int) -> None: ...

    def prepare(self, exit_px: int, cutout: synthesize.Cutout = "whole") -> None: ...

    def latent(self, crop: Float, identity: Float, blendshapes: Float, landmarks: Float) -> Float:
        return np.zeros(512, np.float32)

    def picture(self, w: Float, exit_px: int, cutout: synthesize.Cutout = "whole") -> UInt8:
        return np.random.default_rng(0).integers(0, 255, (exit_px, exit_px, 3), dtype=np.uint8)


def _plan(landmarks: Float) -> Plan:
    """A plan of one face, with these landmarks (n, 478, 2), in a video of 100 x 100 px."""
    count = len(landmarks)
    track = Track(
        id=0,
        person=0,
        start=0,
        boxes=np.tile(np.array([20, 20, 80, 90], np.float32), (count, 1)),
        scores=np.ones(count, np.float32),
        origin=np.zeros(count, np.uint8),
        landmarks=landmarks,
        blendshapes=np.zeros((count, 52), np.float32),
        crop_from_frame=np.tile(np.array([[0.01, 0, 0], [0, 0.01, 0]], np.float32), (count, 1, 1)),
    )
    info = VideoInfo(Path("x.mp4"), 100, 100, Fraction(1, 25), Fraction(25), count, 0, "h264", 8, 0)
    return Plan(info, count, (), (track,), {0: IdentityCode("x", np.zeros(128, np.float32))})


def test_a_generator_that_returns_noise_is_never_shown(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(synthesize, "Synthesizer", _Noise)
    count = 6
    plan = _plan(np.random.default_rng(1).uniform(20, 80, (count, 478, 2)).astype(np.float32))
    summary = RenderSummary()
    renderer = render.Renderer(plan, Settings(), ModelStore(), summary)
    image = np.random.default_rng(2).integers(0, 255, (100, 100, 3), dtype=np.uint8)
    frames = (render.Frame(index, index, image) for index in range(count))
    smoothed = windowed((renderer.encode_attributes(f) for f in frames), 3, renderer.smooth)
    decided = windowed((renderer.generate(w) for w in smoothed), gate.HOLD_FRAMES, renderer.decide)
    for work in decided:
        out = renderer.composite(work).image
        assert not work.faces[0].show
        assert out[30:80, 30:70].std() < 0.6 * image[30:80, 30:70].std()


class _Ramp:
    """A generator that draws the grey of w, which is the brightness of the source."""

    drawn = 0

    def __init__(self, models: object, device: str, workers: int) -> None: ...

    def prepare(self, exit_px: int, cutout: synthesize.Cutout = "whole") -> None: ...

    def latent(self, crop: Float, identity: Float, blendshapes: Float, landmarks: Float) -> Float:
        return np.full(512, crop.mean(), np.float32)

    def picture(self, w: Float, exit_px: int, cutout: synthesize.Cutout = "whole") -> UInt8:
        _Ramp.drawn += 1
        return np.full((exit_px, exit_px, 3), round(127.5 * (1 + float(w[0]))), np.uint8)

    def mouth(self, w: Float, lips: Float, exit_px: int, cutout: synthesize.Cutout) -> UInt8:
        return self.picture(w, exit_px, cutout)


class _Everywhere:
    """A landmarker that finds the same face in every picture."""

    def __init__(self, models: object, workers: int) -> None: ...

    def mesh_around(self, image: UInt8, landmarks: Float) -> Float | None:
        return _points() * len(image)


def _points() -> Float:
    return np.asarray(np.random.default_rng(1).uniform(0.3, 0.7, (478, 2)), np.float32)


def _drawn(monkeypatch: pytest.MonkeyPatch, levels: list[int], span: range | None = None) -> list[UInt8]:
    """Draw a clip whose grey frames have these levels, or a span of it with as much context as it needs."""
    monkeypatch.setattr(synthesize, "Synthesizer", _Ramp)
    monkeypatch.setattr("vidanon.stages.landmark.Landmarker", _Everywhere)
    _Ramp.drawn, count = 0, len(levels)
    plan = _plan(np.tile(_points() * 100, (count, 1, 1)))
    seen = range(count) if span is None else context(span, count)
    frames = (render.Frame(i, i, np.full((100, 100, 3), levels[i], np.uint8)) for i in seen)
    kept: list[UInt8] = []

    class Keep:
        def write(self, frame: render.Frame, faces: list[Float]) -> None:
            kept.append(frame.image)

    renderer = render.Renderer(plan, Settings(), ModelStore(), RenderSummary())
    summary = renderer.write(frames, Keep(), span)  # type: ignore[arg-type]
    assert summary.replaced == len(kept)
    return kept


def test_slow_changes_need_few_pictures_and_fast_ones_all(monkeypatch: pytest.MonkeyPatch) -> None:
    _drawn(monkeypatch, [100] * 41)
    assert _Ramp.drawn == 11, "every fourth, with both ends"
    slow = [100 + i // 4 for i in range(40)]
    half = _drawn(monkeypatch, slow)
    assert _Ramp.drawn <= 24
    monkeypatch.setattr(synthesize, "EVEN_LIMITS", {128: (-1.0, -1.0)})
    full = _drawn(monkeypatch, slow)
    assert _Ramp.drawn == 40
    for one, other in zip(half, full, strict=True):
        assert np.abs(one.astype(int) - other).max() <= 1
    monkeypatch.undo()
    _drawn(monkeypatch, [60 + 100 * (i // 2 % 2) for i in range(40)])
    assert _Ramp.drawn == 40


@given(st.integers(0, 35), st.integers(1, 12))
@settings(max_examples=12, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_a_span_is_drawn_as_in_the_whole_clip(
    monkeypatch: pytest.MonkeyPatch, start: int, length: int
) -> None:
    levels = [int(100 + 40 * np.sin(i / 3) ** 3) for i in range(44)]
    with monkeypatch.context() as patch:
        whole = _drawn(patch, levels)
        span = range(start, min(start + length, 44))
        for one, other in zip(_drawn(patch, levels, span), whole[span.start : span.stop], strict=True):
            np.testing.assert_array_equal(one, other)


def test_a_single_frame_is_drawn_with_the_tracks_that_are_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(synthesize, "Synthesizer", _Ramp)
    monkeypatch.setattr("vidanon.stages.landmark.Landmarker", _Everywhere)
    plan = _plan(_points()[None] * 100)
    twin = replace(plan.tracks[0], id=1, person=1, boxes=plan.tracks[0].boxes + np.float32(5))
    crowd = replace(
        plan, tracks=(*plan.tracks, twin), identities={0: plan.identities[0], 1: plan.identities[0]}
    )
    renderer = render.Renderer(crowd, Settings(), ModelStore(), RenderSummary())
    frame = render.Frame(0, 0, np.full((100, 100, 3), 90, np.uint8))
    for tracks in ({0}, {1}, {0, 1}, set()):
        _Ramp.drawn = 0
        _, shown = renderer.still(frame, tracks)
        assert set(shown) == tracks and _Ramp.drawn == len(tracks)
