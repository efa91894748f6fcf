"""Anonymize a folder of clips and measure the results, beside the time that a plain blur takes."""

from __future__ import annotations

import json
import time
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from vidanon.compare import evaluate_pair
from vidanon.errors import InputError, JobsError, ModelsError, UnsafeError
from vidanon.measures import SIGNAL_NAMES

if TYPE_CHECKING:
    from vidanon.models.registry import ModelStore
    from vidanon.settings import Settings

__all__ = ["evaluate_clips", "evaluate_pair"]

_VIDEO_SUFFIXES = (".mp4", ".mkv", ".mov", ".avi", ".webm", ".m4v", ".gif")


def evaluate_clips(
    folder: Path,
    clips: Sequence[str] | None = None,
    models: ModelStore | None = None,
    settings: Settings | None = None,
    max_frames: int | None = None,
    compare_deface: bool = False,
    stride: int = 1,
    results_file: Path | None = None,
) -> list[dict[str, Any]]:
    """Anonymize clips, measure each result, print a table and write the numbers as JSON.

    Args:
        folder: where the clips are.
        clips: beginnings of file names to take; None or empty: all videos in the folder.
        models: where the models are; default store.
        settings: what to anonymize with; default :class:`Settings`.
        max_frames: take only so many frames from the start of each clip.
        compare_deface: also time ``deface`` (its default blur) on the same frames, right after.
        stride: see :func:`evaluate_pair`.
        results_file: where the JSON goes; None: ``evaluation.json`` in the working folder.

    Returns:
        The numbers of :func:`evaluate_pair` per clip, with ``clip``, ``seconds`` (wall time and busy time per
        stage), ``fps`` and, when asked for, ``deface_fps`` and ``speed_ratio``.

    Raises:
        InputError: no clip matches.
        JobsError: some clips could not be used or anonymized; the others were measured and reported.
        ModelsError: a model, dlib or deface is missing.
    """
    import tempfile

    from tqdm import tqdm

    from vidanon.models.registry import ModelStore
    from vidanon.settings import Settings

    settings = settings or Settings()
    models = models or ModelStore(offline=settings.runtime.offline)
    results = []
    sources = find_clips(folder, clips)
    with tempfile.TemporaryDirectory(prefix="vidanon-") as scratch:
        for source in tqdm(sources, desc="evaluate", unit="clip", disable=None):
            try:
                result = _evaluate_clip(
                    source, Path(scratch), models, settings, max_frames, compare_deface, stride
                )
            except (InputError, UnsafeError) as error:
                # The other clips are still worth measuring; the failure is reported at the end.
                result = {"clip": source.name, "error": str(error)}
            results.append(result)
    print(format_table(results))
    target = results_file or Path("evaluation.json")
    target.write_text(json.dumps(results, indent=1) + "\n", "utf-8")
    print(f"all numbers: {target}")
    failed = [f"{result['clip']} ({result['error']})" for result in results if "error" in result]
    if failed:
        raise JobsError(f"{len(failed)} of {len(results)} clips could not be evaluated: {'; '.join(failed)}")
    return results


def find_clips(folder: Path, clips: Sequence[str] | None) -> list[Path]:
    """Return the videos of a folder whose names begin with one of ``clips`` (None or empty: all), sorted.

    Raises:
        InputError: the folder is missing, or a name matches nothing.
    """
    if not folder.is_dir():
        raise InputError(f"{folder}: no such folder; give the folder that holds the clips")
    videos = sorted(path for path in folder.iterdir() if path.suffix.lower() in _VIDEO_SUFFIXES)
    for name in clips or [""]:
        if not any(path.name.startswith(name) for path in videos):
            raise InputError(f"{folder}: no video begins with '{name}'; check the name")
    return [path for path in videos if path.name.startswith(tuple(clips or [""]))]


def _evaluate_clip(
    source: Path,
    scratch: Path,
    models: ModelStore,
    settings: Settings,
    max_frames: int | None,
    compare_deface: bool,
    stride: int,
) -> dict[str, Any]:
    from vidanon.api import anonymize, default_output

    name = source.name
    if max_frames is not None:
        source = shorten(source, scratch / f"{source.stem}-short.mkv", max_frames)
    output = scratch / default_output(source).name
    begin = time.perf_counter()
    summary = anonymize(source, output, settings, models)
    wall = time.perf_counter() - begin
    result = {"clip": name} | evaluate_pair(source, output, models, stride, settings.runtime.workers)
    result["seconds"] = {"wall": wall} | summary.seconds
    result["fps"] = result["source_frames"] / wall
    if compare_deface:
        result["deface_fps"] = result["source_frames"] / deface_seconds(source, scratch / "blurred.mp4")
        result["speed_ratio"] = result["fps"] / result["deface_fps"]
    return result


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
    ("dlib", "dlib_mean"),
    ("worst", "dlib_worst"),
    ("adjacent", "adjacent_sface"),
    ("NME", "nme"),
    ("pose", "pose_error_deg"),
    ("MAE", "blendshape_mae"),
    ("fps", "fps"),
    ("ratio", "speed_ratio"),
)


def format_table(results: Sequence[dict[str, Any]]) -> str:
    """Return results as an aligned text table, one row per clip; '-' where nothing was measured."""
    rows = [[title for title, _ in _COLUMNS] + list(SIGNAL_NAMES)]
    for result in results:
        values = [result.get(key) for _, key in _COLUMNS]
        values += [result.get("correlation", {}).get(signal) for signal in SIGNAL_NAMES]
        rows.append([_cell(value) for value in values])
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
