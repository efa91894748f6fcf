"""Speed of vidanon beside deface 1.5.0 (its default blur), and memory against the length of the clip.

    python tests/bench/speed.py CLIP [CLIP ...] [--rounds 2] [--repeat 1] [--set audit.enabled=false]
    python tests/bench/speed.py CLIP --memory 10

Both tools run in turn as whole processes (start-up included) on the same clip, so that other load meets both.
``--repeat N`` plays the clip N times in a row, as models load and faces are chosen once for any length.
The ratio of CPU seconds stands beside that of wall time: it hardly moves when the machine is busy.
``--memory N`` runs vidanon once on the clip and once on the clip N times in a row, and compares peak memory.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

MAX_GROWTH = 1.10
MAX_PEAK_MB = 2500

VIDANON = """
import json, sys, vidanon
settings = vidanon.load_settings(None, sys.argv[3:])
summary = vidanon.anonymize(sys.argv[1], sys.argv[2], settings)
print(json.dumps({"frames": summary.frames, "seconds": summary.seconds}))
"""


@dataclass(frozen=True)
class Run:
    """One process: wall and CPU seconds, peak resident memory, and what it printed."""

    wall_s: float
    cpu_s: float
    peak_mb: float
    printed: str


def measure(command: list[str]) -> Run:
    """Run a command to its end."""
    with tempfile.TemporaryFile("w+") as out, tempfile.TemporaryFile("w+") as errors:
        begin = time.perf_counter()
        process = subprocess.Popen(command, stdout=out, stderr=errors)
        _, status, usage = os.wait4(process.pid, 0)
        wall_s = time.perf_counter() - begin
        out.seek(0)
        errors.seek(0)
        if os.waitstatus_to_exitcode(status):
            sys.exit(f"{' '.join(command[:3])} failed:\n{errors.read()[-2000:]}")
        return Run(wall_s, usage.ru_utime + usage.ru_stime, usage.ru_maxrss / 1024, out.read())


def vidanon(clip: Path, folder: Path, options: list[str]) -> Run:
    """Run vidanon; it prints frames and seconds per stage."""
    return measure([sys.executable, "-c", VIDANON, str(clip), str(folder / "vidanon.mp4"), *options])


def deface(clip: Path, folder: Path) -> Run:
    """Run deface with its defaults."""
    program = Path(sys.executable).parent / "deface"
    return measure([str(program), str(clip), "--output", str(folder / "deface.mp4")])


def speed(clip: Path, folder: Path, rounds: int, options: list[str]) -> None:
    """Print the table of one clip."""
    mine, theirs = [], []
    for _ in range(rounds):
        mine.append(vidanon(clip, folder, options))
        theirs.append(deface(clip, folder))
    best_mine, best_theirs = (min(runs, key=lambda run: run.wall_s) for runs in (mine, theirs))
    record = json.loads(best_mine.printed)
    frames = record["frames"]
    print(f"\n{clip.name}, {frames} frames, best of {rounds} rounds\n")
    print("| tool | frames/s | wall, s | CPU, s | CPU, ms a frame | peak, MB |")
    print("|---|---|---|---|---|---|")
    for name, run in (("vidanon", best_mine), ("deface", best_theirs)):
        print(
            f"| {name} | {frames / run.wall_s:.1f} | {run.wall_s:.1f} | {run.cpu_s:.1f} "
            f"| {run.cpu_s / frames * 1e3:.0f} | {run.peak_mb:.0f} |"
        )
    cpu_mine, cpu_theirs = (min(run.cpu_s for run in runs) for runs in (mine, theirs))
    print(f"\nratio to deface: {best_theirs.wall_s / best_mine.wall_s:.2f} by wall time, ", end="")
    print(f"{cpu_theirs / cpu_mine:.2f} by CPU time\n")
    print("| stage | s, summed over threads | ms a frame |\n|---|---|---|")
    for stage, seconds in record["seconds"].items():
        print(f"| {stage} | {seconds:.1f} | {seconds / frames * 1e3:.0f} |")


def repeated(clip: Path, folder: Path, times: int) -> Path:
    """Return a file that plays a clip several times in a row, without sound."""
    import imageio_ffmpeg

    long_clip = folder / f"{clip.stem} x{times}{clip.suffix}"
    loop = ["-v", "error", "-stream_loop", str(times - 1), "-i", str(clip), "-map", "0:v:0", "-c", "copy"]
    subprocess.run([imageio_ffmpeg.get_ffmpeg_exe(), *loop, str(long_clip)], check=True)
    return long_clip


def memory(clip: Path, folder: Path, times: int, options: list[str]) -> bool:
    """Compare peak memory on the clip once and several times in a row; return whether it is bounded."""
    short = vidanon(clip, folder, options)
    long = vidanon(repeated(clip, folder, times), folder, options)
    growth = long.peak_mb / short.peak_mb
    bounded = growth <= MAX_GROWTH and long.peak_mb <= MAX_PEAK_MB
    print(
        f"\n{clip.name}: peak {short.peak_mb:.0f} MB at {json.loads(short.printed)['frames']} frames, "
        f"{long.peak_mb:.0f} MB at {json.loads(long.printed)['frames']}, x{growth:.2f} "
        f"(at most x{MAX_GROWTH:.2f} and {MAX_PEAK_MB} MB): {'passed' if bounded else 'MISSED'}"
    )
    return bounded


def main() -> None:
    """Read the arguments and run."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("clips", nargs="+", type=Path, metavar="CLIP")
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--repeat", type=int, default=1, metavar="N", help="play each clip N times in a row")
    parser.add_argument("--memory", type=int, default=0, metavar="N", help="compare with N times the length")
    parser.add_argument("--set", action="append", default=[], dest="options", metavar="SECTION.OPTION=VALUE")
    arguments = parser.parse_args()
    passed = True
    with tempfile.TemporaryDirectory() as folder:
        for clip in arguments.clips:
            if arguments.memory:
                passed &= memory(clip, Path(folder), arguments.memory, arguments.options)
            else:
                clip = repeated(clip, Path(folder), arguments.repeat) if arguments.repeat > 1 else clip
                speed(clip, Path(folder), arguments.rounds, arguments.options)
    sys.exit(0 if passed else 1)


if __name__ == "__main__":
    main()
