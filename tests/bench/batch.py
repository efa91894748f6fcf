"""What a batch costs beside its videos. ``python tests/bench/batch.py throughput|finished|memory``.

``throughput``: one worker against two, in alternation, on eight short clips. Each worker has one thread, so
that the ratio is that of the workers. Other load on the machine spoils it: the share of the cores that the
runs really got is printed beside it. As root, put the bench into a session that goes before all others:
``setsid -w sh -c 'echo -20 > /proc/self/autogroup; exec python tests/bench/batch.py throughput'``.
``finished``: the command on a folder in which everything is done.
``memory``: peak of the parent alone against the number of jobs, with work that only copies.
"""

import argparse
import json
import os
import resource
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import imageio_ffmpeg

from vidanon.api import Summary
from vidanon.jobs.batch import Batch, BatchOptions
from vidanon.jobs.manifest import DONE, NAME, settings_digest
from vidanon.models.registry import ModelStore


def cut(clip: Path, folder: Path, count: int, seconds: float) -> None:
    """Write ``count`` short clips from different places of one."""
    for number in range(count):
        times = ["-ss", str(number * seconds), "-t", str(seconds), "-i", str(clip)]
        codecs = ["-c:v", "libx264", "-crf", "18", str(folder / f"{number}.mp4")]
        subprocess.run([imageio_ffmpeg.get_ffmpeg_exe(), "-v", "error", *times, *codecs], check=True)


def run(source: Path, target: Path, *options: str) -> tuple[float, float]:
    """Return wall and processor seconds of one batch."""
    command = [sys.executable, "-m", "vidanon", "batch", str(source), str(target), "--quiet", *options]
    before, begin = resource.getrusage(resource.RUSAGE_CHILDREN), time.monotonic()
    done = subprocess.run(command, check=False)
    if done.returncode not in (0, 8):  # a refused result has cost as much as a good one
        sys.exit(done.returncode)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    spent = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return time.monotonic() - begin, spent


def throughput(folder: Path, options: argparse.Namespace) -> None:
    """Print each run and the ratio of the medians."""
    source = folder / "in"
    source.mkdir()
    cut(options.clip or ModelStore().path("sample-clip"), source, options.clips, options.seconds)
    walls: dict[int, list[float]] = {1: [], 2: []}
    for number in range(options.rounds):
        for jobs in (1, 2):
            settings = ["--jobs", str(jobs), "--workers", "1", "--set", "audit.rounds=0"]
            wall, spent = run(source, folder / f"out{number}{jobs}", *settings)
            walls[jobs].append(wall)
            print(
                f"{jobs} workers: {wall:.1f} s wall, {spent:.1f} s processor "
                f"({spent / wall:.2f} cores of {os.cpu_count()}, load {os.getloadavg()[0]:.1f})",
                flush=True,
            )
    medians = {jobs: sorted(times)[len(times) // 2] for jobs, times in walls.items()}
    print(f"two workers have {medians[1] / medians[2]:.2f} times the throughput of one")


def fill(folder: Path, count: int) -> list[Path]:
    """Write small files, a hundred to a folder."""
    paths = [folder / str(number // 100) / f"{number}.mp4" for number in range(count)]
    for path in paths:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"x")
    return paths


def finished(folder: Path, options: argparse.Namespace) -> None:
    """Print what it costs to find out that all is done."""
    source, target = folder / "in", folder / "out"
    paths = fill(source, options.files)
    shutil.copytree(source, target)
    digest, lines = settings_digest(Batch(source, target).settings), []
    for path in paths:
        name, state = path.relative_to(source).as_posix(), path.stat()
        line = {"source": name, "size": 1, "mtime_ns": state.st_mtime_ns, "sha256": "", "settings": digest}
        lines.append(json.dumps(line | {"status": DONE, "output": name}))
    (target / NAME).write_text("\n".join(lines) + "\n")
    wall, spent = run(source, target)
    assert len((target / NAME).read_text().splitlines()) == options.files, "nothing was done again"
    print(f"{options.files} finished files: {wall:.2f} s wall, {spent:.2f} s processor")


def copy(source: Path, output: Path, *_: object) -> Summary:
    """Take the place of the pipeline."""
    shutil.copy(source, output)
    return Summary(source, output, people=0, frames=1, replaced=0, obscured=0)


def memory(folder: Path, options: argparse.Namespace) -> None:
    """Print the parent's peak after a tenth of the jobs and after all of them."""
    fill(folder / "in", options.files)
    batch = Batch(folder / "in", folder / "out", None, BatchOptions(jobs=2), copy)
    for number, _ in enumerate(batch.run(), 1):
        if number in (options.files // 10, options.files):
            peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
            print(f"{number} jobs: peak of the parent {peak / 1024:.1f} MiB", flush=True)


def main() -> None:
    """Measure one thing."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("what", choices=["throughput", "finished", "memory"])
    parser.add_argument("--clip", type=Path)
    parser.add_argument("--clips", type=int, default=8)
    parser.add_argument("--seconds", type=float, default=2.0)
    parser.add_argument("--rounds", type=int, default=1)
    parser.add_argument("--files", type=int, default=1000)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        {"throughput": throughput, "finished": finished, "memory": memory}[options.what](
            Path(folder), options
        )


if __name__ == "__main__":
    main()
