"""One identity held over a clip or a folder, and what is measured of it; identity and attributes mixed."""

import json
from pathlib import Path

import ffmpeg
import imageio_ffmpeg
import numpy as np
import pytest
from click.testing import CliRunner
from hypothesis import given
from hypothesis import strategies as st

from vidanon.cli import main
from vidanon.coherence import coherence_figures
from vidanon.errors import InputError, ModelsError
from vidanon.evaluate import shorten
from vidanon.mixing import Mixer, read_picture
from vidanon.models.registry import ModelStore
from vidanon.sheets import grid, write_picture
from vidanon.stages.decode import Decoder, probe

FRAMES = 3


@pytest.fixture(scope="module")
def clip(tmp_path_factory: pytest.TempPathFactory) -> Path:
    try:
        for name in ("sface", "face-landmarker", "generator-synthesis", "centerface", "yunet"):
            ModelStore().path(name)
        source = ModelStore().path("sample-clip")
    except ModelsError as error:
        pytest.skip(f"needs models: {error}")
    return shorten(source, tmp_path_factory.mktemp("clip") / "source.mp4", FRAMES)


@pytest.fixture(scope="module")
def mixer(clip: Path) -> Mixer:
    return Mixer(ModelStore(), 128)


def test_self_keeps_the_person_and_every_frame(clip: Path, tmp_path: Path) -> None:
    output, numbers = tmp_path / "head.mp4", tmp_path / "numbers.json"
    arguments = ["coherence", str(clip), "-o", str(output), "--size", "128", "--json", str(numbers)]
    result = CliRunner().invoke(main, [*arguments, "--workers", "1", "--offline"])

    assert result.exit_code == 0, result.output
    found = json.loads(numbers.read_text())
    assert found["frames"] == FRAMES and found["without_face"] == 0
    assert found["after"]["local"] > 0.9 and found["after"]["global"] > 0.9
    assert found["tl_id"] == pytest.approx(found["after"]["local"] / found["before"]["local"], abs=1e-3)
    assert "TL-ID" in result.output
    with Decoder(output) as video:
        assert [frame.image.shape for frame in video] == [(128, 128, 3)] * FRAMES
    assert sorted(path.name for path in tmp_path.iterdir()) == ["head.mp4", "numbers.json"]


def test_a_folder_takes_the_identity_of_a_picture(clip: Path, mixer: Mixer, tmp_path: Path) -> None:
    frames, heads, picture = tmp_path / "frames", tmp_path / "heads", tmp_path / "ann.png"
    frames.mkdir()
    ffmpeg.input(str(clip)).output(str(frames / "%d.png")).run(
        cmd=imageio_ffmpeg.get_ffmpeg_exe(), quiet=True
    )
    (frames / "2.png").write_bytes(_blank(probe(clip).width, probe(clip).height, tmp_path))
    source = mixer.head(read_picture(frames / "1.png"))
    stranger = mixer.latent(np.random.default_rng(1).standard_normal(128), mixer.attributes(source))
    write_picture(picture, mixer.picture(stranger))

    arguments = ["coherence", str(frames), "-o", str(heads), "--identity", str(picture), "--size", "128"]
    result = CliRunner().invoke(main, [*arguments, "--workers", "1", "--offline"])
    assert result.exit_code == 0, result.output
    assert sorted(path.name for path in heads.iterdir()) == ["1.png", "2.png", "3.png"]
    assert "(1 without a face)" in result.output
    assert (read_picture(heads / "2.png") == 128).all()
    made = mixer.head(read_picture(heads / "1.png")).identity
    assert made @ mixer.head(read_picture(picture)).identity > made @ source.identity


def _blank(width: int, height: int, folder: Path) -> bytes:
    write_picture(folder / "blank.png", np.full((height, width, 3), 90, np.uint8))
    return (folder / "blank.png").read_bytes()


def test_interpolation_begins_and_ends_at_its_ends(clip: Path, mixer: Mixer) -> None:
    with Decoder(clip) as video:
        first, *_, last = [mixer.head(frame.image) for frame in video]
    for what in ("identity", "attributes"):
        strip = mixer.interpolation(first, last, first, what, 2)
        ends = (
            mixer.table([first], [first, last])
            if what == "attributes"
            else mixer.table([first, last], [first])
        )
        expected = ends[0] if what == "attributes" else [row[0] for row in ends]
        for picture, end in zip(strip, expected, strict=True):
            assert np.abs(picture.astype(int) - end).max() <= 1
    with pytest.raises(ValueError, match="choose identity or attributes"):
        mixer.interpolation(first, last, first, "pose", 2)
    with pytest.raises(InputError, match=r"wall\.png: no face"):
        mixer.head(np.full((90, 120, 3), 90, np.uint8), "wall.png")


def test_a_source_without_a_face_is_refused_and_leaves_nothing(plain_clip: Path, tmp_path: Path) -> None:
    result = CliRunner().invoke(main, ["coherence", str(plain_clip), "-o", str(tmp_path / "head.mp4")])
    assert result.exit_code == 3 and "no face found" in result.output
    assert not list(tmp_path.iterdir())


@given(st.integers(2, 12), st.integers(0, 2**31))
def test_figures_agree_with_the_definition(count: int, seed: int) -> None:
    vectors = np.random.default_rng(seed).standard_normal((count, 128)).astype(np.float32)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    gram = vectors @ vectors.T
    figures = coherence_figures(np.insert(vectors, 1, np.nan, axis=0))

    assert figures["global"] == pytest.approx(gram[np.triu_indices(count, 1)].mean(), abs=2e-4)
    adjacent = [gram[i, i + 1] for i in range(1, count - 1)]
    assert figures["local"] == (pytest.approx(np.mean(adjacent), abs=2e-4) if adjacent else None)


def test_grid_keeps_rows_and_columns() -> None:
    cell = np.zeros((4, 6, 3), np.uint8)
    sheet = grid([[cell, cell + 50], [cell + 100]])
    assert sheet.shape == (12, 16, 3)
    assert sheet[0, 10, 0] == 50 and sheet[8, 0, 0] == 100 and sheet[8, 10, 0] == 255
