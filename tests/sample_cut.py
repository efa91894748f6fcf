"""A few frames of a real person, for tests that need one."""

from __future__ import annotations

import subprocess
from pathlib import Path

import imageio_ffmpeg
import pytest

from vidanon.errors import ModelsError
from vidanon.models.registry import ModelStore

SILENT = ("-an", "-crf", "14")


def cut_sample(target: Path, start_s: float, frames: int, options: tuple[str, ...] = SILENT) -> Path:
    """Write a part of the sample clip, or skip the test where that is not here.

    Args:
        target: the file to write.
        start_s: where the part begins, seconds.
        frames: its length.
        options: what ffmpeg is to do with it.
    """
    try:
        sample = ModelStore().path("sample-clip")
    except ModelsError:
        pytest.skip("the sample clip is not here; run 'vidanon models fetch'")
    cut = ["-ss", str(start_s), "-i", str(sample), "-frames:v", str(frames), *options, str(target)]
    subprocess.run([imageio_ffmpeg.get_ffmpeg_exe(), "-v", "error", *cut], check=True)
    return target
