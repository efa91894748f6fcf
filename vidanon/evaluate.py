"""Anonymize a folder of clips, measure the results and hold them against the project's bars."""

from __future__ import annotations

import json
import logging
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path
from typing import TYPE_CHECKING, Any

from vidanon.bars import (
    CLIP_BARS,
    COPY,
    COPY_NAME,
    LARGE_PIXELS,
    MEAN_BARS,
    SPEED_BAR_640,
    SPEED_BAR_1080,
    format_verdicts,
    judge,
    look_up,
    mean_of,
)
from vidanon.compare import evaluate_pair
from vidanon.errors import InputError, JobsError, ModelsError, UnsafeError, VidanonError
from vidanon.measures import SIGNAL_NAMES
from vidanon.sheets import contact_sheet, write_picture

if TYPE_CHECKING:
    from vidanon.models.registry import ModelStore
    from vidanon.settings import EncodeSettings, Settings

__all__ = ["ClipOptions", "evaluate_clips", "evaluate_pair"]

log = logging.getLogger("vidanon")

VIDEO_SUFFIXES = (".mp4", ".mkv", ".mov", ".avi", ".webm", ".m4v", ".gif")


@dataclass(frozen=True, slots=True)
class ClipOptions:
    """How clips are measured.

    Attributes:
        max_frames: take only so many frames from the start of each clip; None: all.
        stride: see :func:`evaluate_pair`.
        deface: also time ``deface`` (its default blur) on the same frames, right after.
        sheets: folder for a contact sheet per clip, source above output; None: no sheet. Sheets show people.
    """

    max_frames: int | None = None
    stride: int = 1
    deface: bool = False
    sheets: Path | None = None


def evaluate_clips(
    folder: Path,
    clips: Sequence[str] | None = None,
    models: ModelStore | None = None,
    settings: Settings | None = None,
    options: ClipOptions | None = None,
    results_file: Path | None = None,
) -> dict[str, Any]:
    """Anonymize clips, measure each result, print tables and write the numbers as JSON after every clip.

    Args:
        folder: where the clips are.
        clips: patterns of file names to take (``asl_*``), or their beginnings; None or empty: all videos.
        models: where the models are; default store.
        settings: what to anonymize with; default :class:`Settings`.
        options: how to measure.
        results_file: where the JSON goes; None: ``evaluation.json`` in the working folder.

    Returns:
        ``clips``: the numbers of :func:`evaluate_pair` per clip, with ``clip``, ``refused`` (why the result
        was not published, or None), ``seconds`` (wall time and busy time per stage), ``fps``, ``bars``
        (verdicts), ``copy`` (of the source, only encoded anew) and, when asked for, ``deface_fps`` and
        ``speed_ratio``; a clip that failed has ``clip`` and ``error``.
        ``bars``: verdicts on the mean over the clips.

    Raises:
        InputError: no clip matches.
        JobsError: some clips failed; the others were measured and reported.
        ModelsError: a model, dlib or deface is missing.
    """
    from tqdm import tqdm

    from vidanon.models.registry import ModelStore
    from vidanon.settings import Settings

    settings = settings or Settings()
    models = models or ModelStore(offline=settings.runtime.offline)
    target = results_file or Path("evaluation.json")
    results: list[dict[str, Any]] = []
    found: dict[str, Any] = {}
    for source in tqdm(find_clips(folder, clips), desc="evaluate", unit="clip", disable=None):
        results.append(_surviving(source, models, settings, options or ClipOptions()))
        found = {"clips": results, "bars": mean_of(results, MEAN_BARS)}
        target.write_text(json.dumps(found, indent=1) + "\n", "utf-8")
    print(format_table(results))
    print(f"\n{format_clip_bars(results)}\n\nmean over the clips\n{format_verdicts(found['bars'])}")
    print(f"all numbers: {target}")
    failed = [f"{result['clip']} ({result['error']})" for result in results if "error" in result]
    if failed:
        raise JobsError(f"{len(failed)} of {len(results)} clips could not be evaluated: {'; '.join(failed)}")
    return found


def find_clips(folder: Path, clips: Sequence[str] | None) -> list[Path]:
    """Return the videos of a folder whose names match a pattern or begin so (None or empty: all), sorted.

    Raises:
        InputError: the folder is missing, or a pattern matches nothing.
    """
    if not folder.is_dir():
        raise InputError(f"{folder}: no such folder; give the folder that holds the clips")
    videos = sorted(path for path in folder.iterdir() if path.suffix.lower() in VIDEO_SUFFIXES)
    found = {name: [path for path in videos if fnmatchcase(path.name, f"{name}*")] for name in clips or [""]}
    for name, paths in found.items():
        if not paths:
            raise InputError(f"{folder}: no video matches '{name}'; check the name")
    return sorted({path for paths in found.values() for path in paths})


def _surviving(source: Path, models: ModelStore, settings: Settings, options: ClipOptions) -> dict[str, Any]:
    """Measure one clip; whatever goes wrong with it becomes part of the result, so that the others go on."""
    try:
        with tempfile.TemporaryDirectory(prefix="vidanon-") as scratch:
            return _evaluate_clip(source, Path(scratch), models, settings, options)
    except ModelsError:
        raise
    except Exception as error:
        # An error of ours says what to do; anything else is a bug and needs its traceback.
        log.error("%s could not be evaluated", source, exc_info=not isinstance(error, VidanonError))
        return {"clip": source.name, "error": f"{type(error).__name__}: {error}"}


def _evaluate_clip(
    source: Path, scratch: Path, models: ModelStore, settings: Settings, options: ClipOptions
) -> dict[str, Any]:
    from vidanon.api import anonymize, default_output
    from vidanon.stages.decode import probe
    from vidanon.stages.target import rejected_path

    name = source.name
    if options.max_frames is not None:
        source = shorten(source, scratch / f"{source.stem}-short.mkv", options.max_frames)
    output = scratch / default_output(source).name
    begin = time.perf_counter()
    refused: str | None = None
    stages: dict[str, float] = {}
    try:
        stages = anonymize(source, output, settings, models).seconds
    except UnsafeError as error:
        # What the product keeps back is measured all the same, and marked.
        output, refused = rejected_path(output), str(error)
        if not output.is_file():
            raise
    wall = time.perf_counter() - begin
    result: dict[str, Any] = {"clip": name, "refused": refused}
    copy = encode_anew(source, output.with_stem("copy"), settings.encode)
    result |= evaluate_pair(source, output, models, options.stride, settings.runtime.workers, copy)
    result["seconds"] = {"wall": wall} | stages
    result["fps"] = result["source_frames"] / wall
    if options.deface:
        result["deface_fps"] = result["source_frames"] / deface_seconds(source, scratch / "blurred.mp4")
        result["speed_ratio"] = result["fps"] / result["deface_fps"]
    if options.sheets is not None:
        options.sheets.mkdir(parents=True, exist_ok=True)
        write_picture(options.sheets / f"{name}.png", contact_sheet(source, output))
    info = probe(source)
    large = info.width * info.height >= LARGE_PIXELS
    result |= _extremes(result)
    return result | {"bars": judge(result, [*CLIP_BARS, SPEED_BAR_1080 if large else SPEED_BAR_640])}


def _extremes(result: dict[str, Any]) -> dict[str, Any]:
    """Return what the bars ask for beyond :func:`evaluate_pair`: frames off, and the worst track."""
    tracks = {
        name: [track[name] for track in result["tracks"] if track[name] is not None]
        for name in ("adjacent_sface", "sface_mean", "edgeface_mean", "dlib_mean", "glasses_steady")
    }
    return {
        "frames_off": abs(result["source_frames"] - result["output_frames"]),
        "adjacent_sface_lowest_track": min(tracks["adjacent_sface"], default=None),
        "sface_highest_track": max(tracks["sface_mean"], default=None),
        "edgeface_highest_track": max(tracks["edgeface_mean"], default=None),
        "dlib_lowest_track": min(tracks["dlib_mean"], default=None),
        "glasses_lowest_track": min(tracks["glasses_steady"], default=None),
    }


def shorten(source: Path, target: Path, frames: int) -> Path:
    """Write the first ``frames`` frames of a video, nearly lossless, with the audio that belongs to them.

    Raises:
        InputError: the source cannot be read.
    """
    import ffmpeg
    import imageio_ffmpeg

    options = {"c:v": "libx264", "crf": 8, "preset": "veryfast", "c:a": "copy", "frames:v": frames}
    stream = ffmpeg.input(str(source)).output(str(target), fps_mode="passthrough", shortest=None, **options)
    try:
        stream.run(cmd=imageio_ffmpeg.get_ffmpeg_exe(), overwrite_output=True, capture_stderr=True)
    except ffmpeg.Error as error:
        reason = error.stderr.decode(errors="replace").strip().splitlines()[-1:]
        raise InputError(f"{source}: cannot be cut to {frames} frames: {' '.join(reason)}") from error
    return target


def encode_anew(source: Path, target: Path, settings: EncodeSettings) -> Path:
    """Write a video as it is, the way results are written."""
    from vidanon.stages.decode import Decoder
    from vidanon.stages.encode import open_encoder

    with Decoder(source) as video, open_encoder(source, video.info, target, settings) as encoder:
        for frame in video:
            encoder.write(frame)
    return target


def deface_seconds(source: Path, target: Path) -> float:
    """Return the wall time, in seconds, that ``deface`` takes to blur a video with its defaults.

    Raises:
        ModelsError: deface is not installed, or it failed.
    """
    import subprocess
    import sys

    program = Path(sys.executable).parent / "deface"
    if not program.is_file():
        raise ModelsError("deface is missing; install it with 'pip install deface onnxruntime'")
    begin = time.perf_counter()
    # The program of our own environment, paths as arguments, no shell.
    done = subprocess.run([program, source, "-o", target], capture_output=True, text=True)  # noqa: S603
    if done.returncode or not target.is_file():
        raise ModelsError(f"deface failed on {source}: {done.stderr.strip().splitlines()[-1:]}")
    return time.perf_counter() - begin


_COLUMNS = (
    ("clip", "clip"),
    ("frames", "source_frames"),
    ("out", "output_frames"),
    ("audio", "audio_identical"),
    ("same px", "unchanged_frames"),
    ("known", "recognised_frames"),
    ("lost", "faces_lost"),
    ("stranger", "stranger_share"),
    ("SFace", "sface_mean"),
    ("worst", "sface_worst"),
    ("EdgeFace", "edgeface_mean"),
    ("worst", "edgeface_worst"),
    ("dlib", "dlib_mean"),
    ("worst", "dlib_worst"),
    ("adjacent", "adjacent_sface"),
    ("source's", "adjacent_sface_source"),
    ("glasses", "glasses_lowest_track"),
    ("NME", "nme"),
    ("pose", "pose_error_deg"),
    ("MAE", "blendshape_mae"),
    ("mouth", "mouth_shade_error"),
    ("eyes", "eye_shade_error"),
    ("detail", "fine_detail"),
    ("glare", "glare"),
    ("furrow", "furrow"),
    ("depth", "furrow_depth"),
    ("fps", "fps"),
    ("ratio", "speed_ratio"),
)


def format_clip_bars(results: Sequence[dict[str, Any]]) -> str:
    """Return the verdicts of every clip, one row per bar and one column per clip; '!' marks a missed bar.

    Below those of what is read off a face stands what is read off the source's own, encoded anew.
    """
    judged = [result for result in results if "bars" in result]
    rows = [["bar", "limit", *(result["clip"][:14] for result in judged)]]
    for bar in (*CLIP_BARS, SPEED_BAR_640, SPEED_BAR_1080):
        row = [bar.name, f"{'>=' if bar.at_least else '<='} {bar.limit:g}"]
        for result in judged:
            verdict = next((v for v in result["bars"] if v["name"] == bar.name), None)
            value = None if verdict is None else verdict["value"]
            missed = verdict is not None and verdict["passed"] is False
            row.append("-" if value is None else f"{value:.3f}{' !' if missed else '  '}")
        rows.append(row)
        copies = [look_up(result, f"{COPY}.{bar.key}") for result in judged]
        if any(copy is not None for copy in copies):
            rows.append([f"  {COPY_NAME}", "", *("-" if c is None else f"{c:.3f}  " for c in copies)])
    return _aligned(rows)


def format_table(results: Sequence[dict[str, Any]]) -> str:
    """Return results as an aligned text table, one row per clip; '-' where nothing was measured."""
    rows = [[title for title, _ in _COLUMNS] + list(SIGNAL_NAMES)]
    for result in results:
        values = [result.get(key) for _, key in _COLUMNS]
        values += [result.get("correlation", {}).get(signal) for signal in SIGNAL_NAMES]
        rows.append([_cell(value) for value in values])
    return _aligned(rows)


def _aligned(rows: Sequence[Sequence[str]]) -> str:
    widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
    return "\n".join(
        "  ".join(
            cell.ljust(w) if i == 0 else cell.rjust(w)
            for i, (cell, w) in enumerate(zip(row, widths, strict=True))
        )
        for row in rows
    )


def _cell(value: Any) -> str:
    if value is None:
        return "-"
    if isinstance(value, bool):
        return "yes" if value else "NO"
    return f"{value:.3f}" if isinstance(value, float) else str(value)
