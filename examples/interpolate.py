"""Change identity or attributes step by step while the other stays: a strip of pictures, or a video.

    python interpolate.py identity anna.png ben.png pose.png strip.png
    python interpolate.py attributes left.png right.png anna.png strip.mp4

The first two pictures are the ends; the third gives what stays (Nitzan et al. 2020, figure 6).
"""

import sys
from pathlib import Path

import ffmpeg
import imageio_ffmpeg

from vidanon.mixing import Mixer, read_picture
from vidanon.models.registry import ModelStore
from vidanon.sheets import grid, write_picture

SIZE_PX = 256
STRIP_STEPS = 8
VIDEO_STEPS = 50
RATE = 25


def main(what: str, start: Path, end: Path, fixed: Path, target: Path) -> None:
    """Write the interpolation."""
    mixer = Mixer(ModelStore(), SIZE_PX)
    heads = [mixer.head(read_picture(path), str(path)) for path in (start, end, fixed)]
    video = target.suffix in (".mp4", ".mkv", ".mov")
    pictures = mixer.interpolation(*heads, what, VIDEO_STEPS if video else STRIP_STEPS)
    if not video:
        write_picture(target, grid([pictures]))
        return
    stream = ffmpeg.input("pipe:", f="rawvideo", pix_fmt="rgb24", s=f"{SIZE_PX}x{SIZE_PX}", r=RATE)
    stream = stream.output(str(target), pix_fmt="yuv420p", crf=16)
    frames = b"".join(picture.tobytes() for picture in pictures)
    stream.run(cmd=imageio_ffmpeg.get_ffmpeg_exe(), input=frames, overwrite_output=True, quiet=True)


if __name__ == "__main__":
    main(sys.argv[1], *map(Path, sys.argv[2:6]))
