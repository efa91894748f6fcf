"""Throughput of a batch: one worker against two, in alternation. ``python tests/bench/batch.py``.

Each worker has one thread, so that the ratio is that of the workers. Other load on the machine spoils it:
the share of the cores that the runs really got is printed beside it.
"""

import argparse
import os
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import imageio_ffmpeg


def cut(clip: Path, folder: Path, count: int, seconds: float) -> None:
    """Write ``count`` short clips from different places of one."""
    for number in range(count):
        times = ["-ss", str(number * seconds), "-t", str(seconds), "-i", str(clip)]
        codecs = ["-c:v", "libx264", "-crf", "18", str(folder / f"{number}.mp4")]
        subprocess.run([imageio_ffmpeg.get_ffmpeg_exe(), "-v", "error", *times, *codecs], check=True)


def run(source: Path, target: Path, jobs: int) -> tuple[float, float]:
    """Return wall and processor seconds of one batch."""
    command = [sys.executable, "-m", "vidanon", "batch", str(source), str(target)]
    command += ["--jobs", str(jobs), "--workers", "1", "--quiet", "--set", "audit.rounds=0"]
    before, begin = resource.getrusage(resource.RUSAGE_CHILDREN), time.monotonic()
    done = subprocess.run(command, check=False)
    if done.returncode not in (0, 8):  # a refused result has cost as much as a good one
        sys.exit(done.returncode)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    spent = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return time.monotonic() - begin, spent


def main() -> None:
    """Print each run and the ratio of the medians."""
    from vidanon.models.registry import ModelStore

    parser = argparse.ArgumentParser()
    parser.add_argument("--clip", type=Path)
    parser.add_argument("--clips", type=int, default=8)
    parser.add_argument("--seconds", type=float, default=2.0)
    parser.add_argument("--rounds", type=int, default=1)
    options = parser.parse_args()
    walls: dict[int, list[float]] = {1: [], 2: []}
    with tempfile.TemporaryDirectory() as folder:
        source = Path(folder) / "in"
        source.mkdir()
        cut(options.clip or ModelStore().path("sample-clip"), source, options.clips, options.seconds)
        for number in range(options.rounds):
            for jobs in (1, 2):
                wall, spent = run(source, Path(folder) / f"out{number}{jobs}", jobs)
                walls[jobs].append(wall)
                load = os.getloadavg()[0]
                print(
                    f"{jobs} workers: {wall:.1f} s wall, {spent:.1f} s processor "
                    f"({spent / wall:.2f} cores of {os.cpu_count()}, load {load:.1f})",
                    flush=True,
                )
    medians = {jobs: sorted(times)[len(times) // 2] for jobs, times in walls.items()}
    print(f"two workers have {medians[1] / medians[2]:.2f} times the throughput of one")


if __name__ == "__main__":
    main()
