"""What goes wrong around the pictures, and what real files hold beside them, as a user meets it."""

from __future__ import annotations

import hashlib
import os
import re
import resource
import signal
import subprocess
import sys
import time
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest
from click.testing import CliRunner, Result
from conftest import make_clip, picture
from nobody import Nobody
from PIL import Image

from vidanon.cli import main
from vidanon.cli.progress import ProgressPrinter
from vidanon.errors import ExitCode
from vidanon.stages.decode import Decoder, probe

NO_AUDIT = ("--set", "audit.enabled=false")
NOBODY = Path(__file__).with_name("nobody.py")


def run(*arguments: object) -> Result:
    return CliRunner().invoke(main, [str(a) for a in arguments])


def anonymize(source: Path, *options: object) -> Result:
    return run("anonymize", source, *NO_AUDIT, *options)


def state(folder: Path) -> dict[str, str]:
    """Hashes of all files under a folder, hidden ones too."""
    return {
        str(p.relative_to(folder)): hashlib.sha256(p.read_bytes()).hexdigest()
        for p in folder.rglob("*")
        if p.is_file()
    }


def check_refused(result: Result, code: ExitCode, *words: str) -> None:
    assert result.exit_code == code, result.output
    assert len(result.stderr.strip().splitlines()) == 1, result.stderr
    for word in words:
        assert word in result.stderr


def frames(path: Path) -> list[np.ndarray]:
    with Decoder(path) as decoder:
        return [frame.image for frame in decoder]


# --- sources that cannot be used -------------------------------------------------------------------


def test_mp4_without_index(tmp_path: Path) -> None:
    whole = make_clip(tmp_path / "whole.mp4", audio_codecs=())
    source = tmp_path / "cut.mp4"
    source.write_bytes(whole.read_bytes()[:3000])
    before = state(tmp_path)
    for command in ("anonymize", "plan"):
        check_refused(run(command, source), ExitCode.INPUT, "cut.mp4", "damaged")
    assert state(tmp_path) == before


@pytest.mark.usefixtures("nobody")
def test_matroska_cut_in_the_middle_is_used_and_noted(tmp_path: Path) -> None:
    whole = make_clip(tmp_path / "whole.mkv", time_base=Fraction(1, 1000), pts=range(0, 2400, 40))
    source = tmp_path / "cut.mkv"
    source.write_bytes(whole.read_bytes()[: whole.stat().st_size // 2])
    result = anonymize(source)
    assert result.exit_code == 0, result.output
    assert re.search(r"note +the video ends before its stated end by \d\.\d s", result.stdout)
    kept = len(frames(tmp_path / "cut.anon.mkv"))
    assert 10 < kept < 60
    assert re.search(rf"frames +{kept}\b", result.stdout)


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
def test_unreadable_source(tmp_path: Path) -> None:
    source = make_clip(tmp_path / "secret.mp4", audio_codecs=())
    source.chmod(0)
    check_refused(run("anonymize", source), ExitCode.INPUT, "not readable")


def test_names_that_no_file_can_have(tmp_path: Path) -> None:
    loop = tmp_path / "loop.mp4"
    loop.symlink_to(loop)
    for source in (loop, tmp_path / ("long" * 100 + ".mp4"), tmp_path / "loop.mp4" / "x.mp4"):
        check_refused(run("anonymize", source), ExitCode.INPUT, source.name)


@pytest.mark.usefixtures("nobody")
def test_source_that_changes_while_it_is_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source = make_clip(tmp_path / "live.mp4", audio_codecs=())

    def grow(*_: object, **__: object) -> list[object]:
        with source.open("ab") as stream:
            stream.write(b"more")
        return []

    monkeypatch.setattr(Nobody, "__call__", grow)
    check_refused(anonymize(source, "--quiet"), ExitCode.INPUT, "live.mp4", "changed while it was read")
    assert list(tmp_path.iterdir()) == [source]


@pytest.mark.usefixtures("nobody")
def test_plan_of_another_video_of_the_same_size_and_length(tmp_path: Path) -> None:
    first = make_clip(tmp_path / "a.mp4", audio_codecs=())
    other = make_clip(tmp_path / "b.mp4", audio_codecs=("aac",))
    plan = tmp_path / "a.plan.json"
    assert run("plan", first).exit_code == 0
    before = state(tmp_path)
    check_refused(
        run("render", other, plan, *NO_AUDIT), ExitCode.SETTINGS, "was not made from", "'vidanon plan'"
    )
    assert state(tmp_path) == before


# --- targets that cannot be written ----------------------------------------------------------------


@pytest.mark.parametrize("kind", ["symlink_to", "hardlink_to"])
@pytest.mark.parametrize("command", ["anonymize", "plan"])
def test_output_that_is_the_input_under_another_name(tmp_path: Path, kind: str, command: str) -> None:
    source = make_clip(tmp_path / "a.mp4", audio_codecs=())
    link = tmp_path / "b.mp4"
    getattr(link, kind)(source)
    before = state(tmp_path)
    check_refused(run(command, source, "-o", link), ExitCode.OUTPUT, "input itself", "-o")
    assert state(tmp_path) == before


def test_plan_into_a_missing_folder_is_refused_before_any_work(tmp_path: Path) -> None:
    source = make_clip(tmp_path / "a.mp4", audio_codecs=())
    check_refused(run("plan", source, "-o", tmp_path / "none" / "p.json"), ExitCode.OUTPUT, "cannot write")
    assert list(tmp_path.iterdir()) == [source]


def test_unknown_kind_of_target_names_the_known_ones(tmp_path: Path) -> None:
    source = make_clip(tmp_path / "a.mp4", audio_codecs=())
    for name in ("out.avi", "out.gif", "out", "out.jpg"):
        check_refused(run("anonymize", source, "-o", tmp_path / name), ExitCode.OUTPUT, ".mp4, .mov, .mkv")
    assert list(tmp_path.iterdir()) == [source]


@pytest.mark.usefixtures("nobody")
@pytest.mark.parametrize(("command", "limit"), [("anonymize", 2000), ("plan", 100)])
def test_full_disk(tmp_path: Path, command: str, limit: int) -> None:
    """A limit on the size of files stands for the full disk: writing fails in the same way."""
    source = make_clip(tmp_path / "a.mp4", audio_codecs=())
    before = state(tmp_path)
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (limit, hard))
    try:
        result = run(command, source, "--quiet", *NO_AUDIT)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    check_refused(result, ExitCode.OUTPUT, "a.", "free space")
    assert "partial" not in result.stderr
    assert state(tmp_path) == before


def start(seconds_per_frame: float, *arguments: object) -> subprocess.Popen[str]:
    """The command in a process of its own, with roles that see nobody."""
    command = [sys.executable, str(NOBODY), str(seconds_per_frame), *map(str, arguments)]

    def listen() -> None:
        """Shells start what runs in the background with this signal ignored."""
        signal.signal(signal.SIGINT, signal.SIG_DFL)

    return subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, preexec_fn=listen
    )


@pytest.mark.parametrize(
    ("number", "times", "code"),
    [(signal.SIGINT, 2, ExitCode.INTERRUPTED), (signal.SIGTERM, 1, ExitCode.TERMINATED)],
)
def test_a_signal_in_the_middle_of_rendering(
    tmp_path: Path, number: signal.Signals, times: int, code: ExitCode
) -> None:
    source = make_clip(tmp_path / "a.mp4", audio_codecs=())
    before = state(tmp_path)
    with start(0.5, "anonymize", source, "--quiet", *NO_AUDIT) as process:
        until = time.monotonic() + 120
        while not list(tmp_path.glob(".*.partial.mp4")):
            assert process.poll() is None and time.monotonic() < until, process.communicate()
            time.sleep(0.02)
        time.sleep(0.5)
        for _ in range(times):
            process.send_signal(number)
            time.sleep(0.05)
        _, errors = process.communicate(timeout=60)
    assert process.returncode == code, errors
    assert len(errors.strip().splitlines()) == 1
    assert "nothing unfinished was published" in errors
    assert state(tmp_path) == before


# --- unusual but good sources ----------------------------------------------------------------------


@pytest.mark.usefixtures("nobody")
@pytest.mark.parametrize("size", [(1, 1), (3, 5), (641, 359)])
def test_odd_sizes(tmp_path: Path, size: tuple[int, int]) -> None:
    source = make_clip(
        tmp_path / "a.mp4", size=size, pixel_format="yuv444p", pts=(0, 512, 1024), audio_codecs=()
    )
    result = anonymize(source)
    assert result.exit_code == 0, result.output
    info = probe(tmp_path / "a.anon.mp4")
    assert (info.width, info.height) == size
    assert "4:4:4" in result.stdout


def test_smallest_picture_with_the_real_detectors(tmp_path: Path) -> None:
    source = make_clip(tmp_path / "a.mp4", size=(1, 1), pixel_format="yuv444p", pts=(0,), audio_codecs=())
    result = run("plan", source)
    assert result.exit_code == 0, result.output


@pytest.fixture
def rich_clip(tmp_path: Path) -> Path:
    """Chapters, a font, a cover picture, subtitles, two languages, a place and a device."""
    plain = make_clip(
        tmp_path / "plain.mkv",
        time_base=Fraction(1, 1000),
        pts=range(0, 1200, 40),
        audio_codecs=("aac", "libopus"),
    )
    path = tmp_path / "rich.mkv"
    cover = tmp_path / "cover.jpg"
    Image.fromarray(picture(0, 32, 32)).save(cover)
    with av.open(str(plain)) as source, av.open(str(path), "w") as output:
        twins = {s.index: output.add_stream_from_template(s) for s in source.streams}
        twins[1].metadata["language"] = "deu"
        twins[2].metadata.update(language="fra", title="Marie's microphone")
        words = output.add_mux_stream("subrip")
        words.metadata["language"] = "ita"
        output.add_attachment("a.ttf", "font/ttf", b"letters")
        output.add_attachment("cover.jpg", "image/jpeg", cover.read_bytes())
        output.set_chapters(
            [
                {
                    "id": 1,
                    "start": 0,
                    "end": 500,
                    "time_base": Fraction(1, 1000),
                    "metadata": {"title": "One"},
                },
                {"id": 2, "start": 500, "end": 1200, "time_base": Fraction(1, 1000), "metadata": {}},
            ]
        )
        output.metadata.update(location="+48.85+002.35/", make="ACME", title="holiday")
        for packet in source.demux():
            if packet.size:
                packet.stream = twins[packet.stream_index]
                output.mux(packet)
        text = av.Packet(b"Hello")
        text.stream, text.pts, text.dts, text.duration, text.time_base = (
            words,
            100,
            100,
            900,
            Fraction(1, 1000),
        )
        output.mux(text)
    plain.unlink()
    cover.unlink()
    return path


@pytest.mark.usefixtures("nobody")
def test_everything_but_pictures_and_metadata_is_carried_over(rich_clip: Path) -> None:
    result = anonymize(rich_clip)
    assert result.exit_code == 0, result.output
    target = rich_clip.with_name("rich.anon.mkv")
    with av.open(str(target)) as container:
        kinds = [(s.type, s.metadata.get("language")) for s in container.streams]
        assert kinds == [
            ("video", None),
            ("audio", "deu"),
            ("audio", "fra"),
            ("subtitle", "ita"),
            ("attachment", None),
        ]
        assert container.streams.attachments[0].data == b"letters"
        chapters = container.chapters()
        assert [c["metadata"].get("title") for c in chapters] == ["One", None]
        assert [c["start"] * c["time_base"] for c in chapters] == [0, Fraction(1, 2)]
    for secret in (b"48.85", b"ACME", b"holiday", b"Marie", b"JFIF"):
        assert secret not in target.read_bytes()
    assert "left out: 1 cover picture" in result.stdout
    assert re.search(r"metadata removed: .*location, make, title", result.stdout.lower())


@pytest.mark.usefixtures("nobody")
def test_mp4_keeps_chapters_and_says_what_it_cannot_hold(rich_clip: Path) -> None:
    target = rich_clip.with_name("out.mp4")
    result = anonymize(rich_clip, "-o", target)
    assert result.exit_code == 0, result.output
    assert "subtitles left out: .mp4 cannot hold them, .mkv can" in result.stdout
    assert "left out: 1 attachment" in result.stdout
    with av.open(str(target)) as container:
        assert len(container.chapters()) == 2
        assert len(container.streams.audio) == 2


@pytest.mark.usefixtures("nobody")
def test_metadata_is_kept_on_request(rich_clip: Path) -> None:
    result = anonymize(rich_clip, "--keep-metadata", "-o", rich_clip.with_name("out.mkv"))
    assert result.exit_code == 0, result.output
    with av.open(str(rich_clip.with_name("out.mkv"))) as container:
        kept = {name.lower(): value for name, value in container.metadata.items()}
        assert kept["location"] == "+48.85+002.35/"
        assert container.streams[2].metadata["title"] == "Marie's microphone"
    assert "metadata removed" not in result.stdout


@pytest.mark.usefixtures("nobody")
def test_a_camera_of_several_views_and_a_track_of_places(tmp_path: Path) -> None:
    source = tmp_path / "drone.ts"
    with av.open(str(source), "w") as output:
        views = [output.add_stream("libx264", rate=25) for _ in range(2)]
        places = output.add_data_stream("klv")
        for view in views:
            view.width, view.height, view.pix_fmt = 96, 64, "yuv420p"
        for index in range(10):
            for view in views:
                frame = av.VideoFrame.from_ndarray(picture(index, 96, 64), format="rgb24")
                frame = frame.reformat(format="yuv420p")
                frame.pts = index
                output.mux(view.encode(frame))
            packet = av.Packet(b"PLACE 48.85 2.35")
            packet.stream, packet.pts, packet.dts = places, index, index
            packet.time_base = Fraction(1, 25)
            output.mux(packet)
        for view in views:
            output.mux(view.encode(None))
    result = anonymize(source)
    assert result.exit_code == 0, result.output
    assert "left out: 1 further video stream" in result.stdout
    assert "left out: 1 data stream" in result.stdout
    with av.open(str(tmp_path / "drone.anon.mp4")) as container:
        assert [s.type for s in container.streams] == ["video"]
    assert b"PLACE" not in (tmp_path / "drone.anon.mp4").read_bytes()


@pytest.mark.usefixtures("nobody")
def test_hdr10_in_ten_bits(tmp_path: Path) -> None:
    display = "G(13250,34500)B(7500,3000)R(34000,16000)WP(15635,16450)L(10000000,1)"

    source = tmp_path / "hdr.mp4"
    ramp = np.linspace(20000, 45000, 96 * 64).reshape(64, 96).astype(np.uint16)
    with av.open(str(source), "w") as output:
        options = {"crf": "1", "x264-params": f"mastering-display={display}:cll=1000,400"}
        video = output.add_stream("libx264", rate=25, options=options)
        video.width, video.height, video.pix_fmt = 96, 64, "yuv420p10le"
        context = video.codec_context
        context.color_primaries, context.color_trc, context.colorspace, context.color_range = 9, 16, 9, 1
        for index in range(5):
            frame = av.VideoFrame.from_ndarray(np.stack([ramp] * 3, 2), format="rgb48le")
            frame = frame.reformat(format="yuv420p10le", dst_colorspace=9, dst_color_range=1)
            frame.pts = index
            output.mux(video.encode(frame))
        output.mux(video.encode(None))
    result = anonymize(source, "--set", "encode.crf=1")
    assert result.exit_code == 0, result.output
    pictures = []
    for path in (source, tmp_path / "hdr.anon.mp4"):
        with av.open(str(path)) as container:
            first = next(container.decode(video=0))
            assert first.format.name == "yuv420p10le"
            assert (first.color_primaries, first.color_trc, first.colorspace) == (9, 16, 9)
            side = {d.type.name: bytes(d) for d in first.side_data if "SEI" not in d.type.name}
            pictures.append((first.to_ndarray()[:64].astype(int), side))
    (old, old_side), (new, new_side) = pictures
    assert set(new_side) == {"MASTERING_DISPLAY_METADATA", "CONTENT_LIGHT_LEVEL"}
    assert new_side == old_side
    # Through 8 bits the error would be up to 2 levels everywhere and there would be a quarter of the levels.
    assert np.abs(new - old).mean() < 0.8
    assert len(np.unique(new)) > 0.8 * len(np.unique(old))


@pytest.mark.usefixtures("nobody")
def test_interlaced_stays_interlaced(tmp_path: Path) -> None:
    source = tmp_path / "fields.mkv"
    with av.open(str(source), "w") as output:
        video = output.add_stream("libx264", rate=25, options={"x264-params": "bff=1"})
        video.width, video.height, video.pix_fmt = 96, 64, "yuv420p"
        for index in range(4):
            frame = av.VideoFrame.from_ndarray(picture(index, 96, 64), format="rgb24")
            frame = frame.reformat(format="yuv420p")
            frame.pts = index
            output.mux(video.encode(frame))
        output.mux(video.encode(None))
    assert anonymize(source).exit_code == 0
    with av.open(str(tmp_path / "fields.anon.mkv")) as container:
        assert next(container.decode(video=0)).interlaced_frame
        assert container.streams.video[0].codec_context.field_order == 3


@pytest.mark.usefixtures("nobody")
@pytest.mark.parametrize("suffix", [".mp4", ".mkv"])
def test_edit_list_and_negative_start(tmp_path: Path, suffix: str) -> None:
    """A clip cut without re-encoding: the frames before the cut are in the file but not shown."""
    whole = make_clip(tmp_path / "whole.mp4", audio_codecs=("aac",))
    source = tmp_path / f"cut{suffix}"
    with av.open(str(whole)) as container, av.open(str(source), "w") as output:
        twins = {s.index: output.add_stream_from_template(s) for s in container.streams}
        for packet in container.demux():
            if packet.size:
                packet.stream = twins[packet.stream_index]
                shift = int(Fraction(2, 5) / packet.time_base)
                packet.pts, packet.dts = packet.pts - shift, packet.dts - shift
                output.mux(packet)
    with Decoder(source) as decoder:
        expected = [frame.pts * decoder.info.time_base for frame in decoder]
    assert anonymize(source).exit_code == 0
    with Decoder(source.with_name(f"cut.anon{suffix}")) as decoder:
        assert [frame.pts * decoder.info.time_base for frame in decoder] == expected


@pytest.mark.usefixtures("nobody")
def test_transparency_is_noted(tmp_path: Path) -> None:
    source = tmp_path / "alpha.mov"
    with av.open(str(source), "w") as output:
        video = output.add_stream("png", rate=25)
        video.width, video.height, video.pix_fmt = 32, 32, "rgba"
        pixels = np.dstack([picture(0, 32, 32), np.full((32, 32), 90, np.uint8)])
        output.mux(video.encode(av.VideoFrame.from_ndarray(pixels, format="rgba")))
        output.mux(video.encode(None))
    result = anonymize(source)
    assert result.exit_code == 0, result.output
    assert "transparency removed" in result.stdout


@pytest.mark.usefixtures("nobody")
def test_gif_becomes_mp4(gif_clip: Path, tmp_path: Path) -> None:
    source = tmp_path / "a.gif"
    source.write_bytes(gif_clip.read_bytes())
    assert anonymize(source).exit_code == 0
    with Decoder(tmp_path / "a.anon.mp4") as decoder:
        assert [float(f.pts * decoder.info.time_base) for f in decoder] == [0, 0.1, 0.25, 0.3, 0.7]


# --- pictures and folders of pictures --------------------------------------------------------------


def save_photo(path: Path, index: int = 0, size: tuple[int, int] = (96, 64), turned: bool = False) -> Path:
    exif = Image.Exif()
    exif[0x010F] = "ACME"
    if path.suffix != ".tiff":
        exif[0x8825] = {1: "N", 2: (48.0, 51.0, 0.0)}
    if turned:
        exif[0x0112] = 6
    Image.fromarray(picture(index, *size)).save(path, exif=exif, quality=98)
    return path


@pytest.mark.usefixtures("nobody")
@pytest.mark.parametrize("suffix", [".jpg", ".png", ".webp", ".tiff"])
def test_one_picture(tmp_path: Path, suffix: str) -> None:
    source = save_photo(tmp_path / f"photo{suffix}", turned=True)
    result = anonymize(source)
    assert result.exit_code == 0, result.output
    assert "metadata removed" in result.stdout
    target = tmp_path / f"photo.anon{suffix}"
    with Image.open(target) as image:
        assert image.size == (64, 96)
        assert not image.getexif().get(0x010F) and not image.getexif().get_ifd(0x8825)
        expected = np.rot90(picture(0, 96, 64), -1)
        assert np.abs(np.asarray(image.convert("RGB")).astype(int) - expected).mean() < 3
    assert b"ACME" not in target.read_bytes()


@pytest.mark.usefixtures("nobody")
def test_one_picture_to_another_kind_of_picture(tmp_path: Path) -> None:
    source = save_photo(tmp_path / "photo.jpg")
    assert anonymize(source, "-o", tmp_path / "out.png").exit_code == 0
    with Image.open(tmp_path / "out.png") as image:
        assert image.format == "PNG"
    assert anonymize(source, "--keep-metadata", "-o", tmp_path / "out.jpg").exit_code == 0
    with Image.open(tmp_path / "out.jpg") as image:
        assert image.getexif()[0x010F] == "ACME"
    check_refused(anonymize(source, "-o", tmp_path / "out.mp4"), ExitCode.OUTPUT, ".jpg")
    check_refused(anonymize(source, "-o", tmp_path / "none" / "o.jpg"), ExitCode.OUTPUT, "-o")


@pytest.mark.usefixtures("nobody")
def test_folder_of_pictures(tmp_path: Path) -> None:
    source = tmp_path / "frames"
    source.mkdir()
    for index in (1, 2, 10):
        save_photo(source / f"{index}.jpg", index)
    (source / "notes.txt").write_text("mine")
    before = state(source)
    result = anonymize(source)
    assert result.exit_code == 0, result.output
    assert "(3 pictures)" in result.stdout
    assert state(source) == before
    target = tmp_path / "frames.anon"
    assert sorted(p.name for p in target.iterdir()) == ["1.jpg", "10.jpg", "2.jpg"]
    for old, new in zip(frames(source), frames(target), strict=True):
        assert np.abs(old.astype(int) - new).mean() < 2
    check_refused(anonymize(source), ExitCode.OUTPUT, "something in it")
    assert anonymize(source, "-o", tmp_path / "film.mp4").exit_code == 0
    assert len(frames(tmp_path / "film.mp4")) == 3
    check_refused(anonymize(source, "-o", source / "out"), ExitCode.OUTPUT, "within the input")
    assert state(source) == before
    assert not [p for p in tmp_path.rglob(".*")]


def test_folders_that_cannot_be_used(tmp_path: Path) -> None:
    source = tmp_path / "frames"
    source.mkdir()
    check_refused(run("anonymize", source), ExitCode.INPUT, "no pictures")
    save_photo(source / "1.jpg")
    save_photo(source / "2.jpg", size=(64, 64))
    check_refused(run("anonymize", source), ExitCode.INPUT, "2.jpg", "64x64", "one size")
    (source / "2.jpg").write_bytes(b"no picture")
    check_refused(run("anonymize", source), ExitCode.INPUT, "2.jpg", "damaged")


@pytest.mark.usefixtures("nobody")
def test_damaged_picture_in_a_folder_leaves_nothing(tmp_path: Path) -> None:
    source = tmp_path / "frames"
    source.mkdir()
    save_photo(source / "1.png")
    whole = save_photo(source / "2.png").read_bytes()
    (source / "2.png").write_bytes(whole[: len(whole) // 2])
    check_refused(anonymize(source, "--quiet"), ExitCode.INPUT, "2.png", "damaged")
    assert sorted(tmp_path.iterdir()) == [source]


# --- what is said on the way -----------------------------------------------------------------------


def test_progress_off_the_terminal(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    now = [1000.0]
    monkeypatch.setattr(time, "monotonic", lambda: now[0])
    with ProgressPrinter(quiet=False) as progress:
        now[0] += 7.0
        for done in range(1, 301):
            progress("analyse", done, 300)
            now[0] += 1.0
        for done in range(1, 4):
            progress("render", done, 0)
            now[0] += 6.0
    lines = capsys.readouterr().err.splitlines()
    assert lines[0] == "analyse: 11/300 frames, about 289 s left"
    assert len(lines) < 16
    assert "analyse: 300 frames in 306 s" in lines
    assert lines[-2:] == ["render: 3/? frames", "render: 3 frames in 13 s"]


def test_progress_of_a_pass_that_fails_does_not_say_that_it_is_through(
    capsys: pytest.CaptureFixture[str],
) -> None:
    with pytest.raises(KeyError), ProgressPrinter(quiet=False) as progress:
        progress("analyse", 1, 300)
        raise KeyError
    assert capsys.readouterr().err == ""


@pytest.mark.usefixtures("nobody")
def test_verbose_and_quiet(tmp_path: Path) -> None:
    source = make_clip(tmp_path / "a.mp4", audio_codecs=())
    loud = anonymize(source, "-v", "--set", "encode.crf=30")
    assert loud.exit_code == 0
    for words in ("encode.crf = 30", "reading ", "h264, 96x64, 8 bit, 25.000 fps", "libx264"):
        assert words in loud.stderr
    assert "vidanon: " not in anonymize(source).stderr
    silent = anonymize(source, "--quiet")
    assert (silent.exit_code, silent.output) == (0, "")
    assert anonymize(source, "--quiet", "-v").exit_code == ExitCode.SETTINGS


def test_doctor_tells_what_is_missing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("VIDANON_MODELS", str(tmp_path))
    result = run("doctor")
    assert result.exit_code == ExitCode.MODELS
    assert "vidanon models fetch" in result.stderr
    assert re.search(r"dlib-resnet .*missing \(optional\)", result.stdout)
    monkeypatch.setattr("importlib.metadata.requires", lambda _: ["av>=16", "no-such-package>=1"])
    result = run("doctor")
    assert result.exit_code == ExitCode.DEVICE
    assert re.search(r"no-such-package +missing", result.stdout)
