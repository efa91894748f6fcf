"""Measure what a video costs, for simulate.py: ``python measure.py clip.mp4 costs.json``.

Counts processor time, which other programs on the machine do not change much. Use a clip that is typical of
yours in size and number of faces; a few seconds are enough.
"""

import json
import os
import sys
import tempfile
from pathlib import Path

import vidanon
from vidanon.errors import UnsafeError
from vidanon.stages.decode import probe


def cpu_s() -> float:
    """Return the processor seconds of this process so far."""
    times = os.times()
    return times.user + times.system


def measure(clip: Path) -> dict[str, object]:
    """Return processor seconds per frame and pass, and the fixed cost of a file."""
    passes: dict[str, list[tuple[float, int]]] = {}

    def progress(name: str, done: int, total: int) -> None:
        passes.setdefault(name.split()[0], []).append((cpu_s(), done))

    settings = vidanon.load_settings(None, ["audit.rounds=0"])
    begin = cpu_s()
    with tempfile.TemporaryDirectory() as folder:
        try:
            summary = vidanon.anonymize(clip, Path(folder) / "out.mp4", settings, progress=progress)
            faces = (summary.replaced + summary.obscured) / summary.frames
        except UnsafeError as error:  # the cost is the same
            print(error, file=sys.stderr)
            faces = None
    total = cpu_s() - begin
    # The first frame of a pass waits for the networks; it counts as loading.
    per_frame = {
        name: (seen[-1][0] - seen[0][0]) / max(1, seen[-1][1] - seen[0][1]) for name, seen in passes.items()
    }
    info = probe(clip)
    frames = max(seen[-1][1] for seen in passes.values())
    loading = total - sum(per_frame[name] * seen[-1][1] for name, seen in passes.items())
    return {
        "clip": clip.name,
        "size": [info.width, info.height],
        "frames": frames,
        "faces_per_frame": faces,
        "cpu_s_per_frame": {name: round(seconds, 5) for name, seconds in per_frame.items()},
        "cpu_s_per_file": round(loading, 2),
        "bytes_per_s_in": round(clip.stat().st_size / frames * float(info.average_rate)),
    }


if __name__ == "__main__":
    result = measure(Path(sys.argv[1]))
    text = json.dumps(result, indent=1)
    Path(sys.argv[2]).write_text(text + "\n")
    print(text)
