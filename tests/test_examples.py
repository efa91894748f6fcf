"""The example scripts run as they are written."""

import runpy
from collections.abc import Callable
from pathlib import Path

import pytest

from vidanon.errors import ModelsError
from vidanon.mixing import read_picture
from vidanon.models.registry import ModelStore
from vidanon.sheets import write_picture
from vidanon.stages.decode import Decoder, probe

EXAMPLES = Path(__file__).parents[1] / "examples"


@pytest.fixture(scope="module")
def faces(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with two pictures of the sample clip."""
    try:
        for name in ("sface", "face-landmarker", "generator-synthesis", "centerface", "yunet"):
            ModelStore().path(name)
        clip = ModelStore().path("sample-clip")
    except ModelsError as error:
        pytest.skip(f"needs models: {error}")
    folder = tmp_path_factory.mktemp("faces")
    with Decoder(clip) as video:
        for frame in video:
            if frame.index in (0, 20):
                write_picture(folder / f"{frame.index}.png", frame.image)
            if frame.index == 20:
                break
    return folder


@pytest.fixture
def example() -> Callable[[str], Callable[..., object]]:
    return lambda name: runpy.run_path(str(EXAMPLES / name))["main"]


def test_table_of_identities_and_attributes(
    faces: Path, tmp_path: Path, example: Callable[[str], Callable[..., object]]
) -> None:
    example("table.py")(faces, faces, tmp_path / "table.png")
    assert read_picture(tmp_path / "table.png").shape == (3 * 256 + 8, 3 * 256 + 8, 3)


def test_interpolation_as_a_video(
    faces: Path,
    tmp_path: Path,
    example: Callable[[str], Callable[..., object]],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    script = example("interpolate.py")
    monkeypatch.setitem(script.__globals__, "VIDEO_STEPS", 4)
    first, last = faces / "0.png", faces / "20.png"
    script("identity", first, last, first, tmp_path / "strip.mp4")
    assert probe(tmp_path / "strip.mp4").frame_count == 4
