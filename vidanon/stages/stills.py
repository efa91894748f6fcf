"""Single pictures and folders of pictures, read and written as if they were videos of 25 frames a second.

Pillow reads and writes them: it turns pictures as their EXIF data ask for, and writes nothing of EXIF, XMP
or comments unless told to. The colour profile is kept, as without it the colours would change.
"""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import warnings
from collections.abc import Collection, Iterator, Sequence
from fractions import Fraction
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any

import numpy as np
from PIL import Image, ImageOps

from vidanon.errors import InputError, OutputError
from vidanon.types import Float, Frame, UInt8, VideoInfo

if TYPE_CHECKING:
    from vidanon.settings import EncodeSettings

STILL_SUFFIXES = (".jpg", ".jpeg", ".png", ".webp", ".tif", ".tiff", ".bmp")
"""Pictures that can be read and written."""

RATE = Fraction(25)

_SAVE_OPTIONS: dict[str, dict[str, Any]] = {
    "JPEG": {"quality": 95, "subsampling": 0},
    "WEBP": {"quality": 95, "method": 4},
    "TIFF": {"compression": "tiff_deflate"},
}
# Their values do not fit into eight bits, and Pillow would cut them off rather than scale them.
_WIDE_GREY = frozenset({"I", "F", "I;16", "I;16B", "I;16L", "I;16N"})


def is_stills(path: Path) -> bool:
    """Whether a path names a folder of pictures or one picture that does not move."""
    # Unlike Path's methods these say no for a name that no file can have; whoever opens it says why.
    if os.path.isdir(path):  # noqa: PTH112
        return True
    if path.suffix.lower() not in STILL_SUFFIXES or not os.path.isfile(path):  # noqa: PTH113
        return False
    with contextlib.suppress(OSError), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        with Image.open(path) as image:
            return not getattr(image, "is_animated", False)
    return True


def pictures_of(path: Path) -> list[Path]:
    """The pictures of a folder in natural order (2 before 10), or the one picture.

    Raises:
        InputError: the folder holds none or cannot be read.
    """
    if not path.is_dir():
        return [path]
    try:
        inside = sorted(path.iterdir(), key=_natural)
    except OSError as error:
        raise InputError(f"{path}: the folder cannot be read ({error.strerror}); check its rights") from error
    found = [p for p in inside if p.suffix.lower() in STILL_SUFFIXES and not p.name.startswith(".")]
    if not found:
        known = ", ".join(STILL_SUFFIXES)
        raise InputError(f"{path}: no pictures in this folder ({known}); name a video, picture or folder")
    return found


def probe_stills(path: Path, fingerprint: str) -> VideoInfo:
    """Describe the pictures; opens each one, decodes none.

    Raises:
        InputError: one of them is no picture, or they differ in size.
    """
    files = pictures_of(path)
    size: tuple[int, int] | None = None
    codec = ""
    for file in files:
        with _opened(file) as image:
            # Pillow gives the size of a TIFF as it is after turning.
            turned = image.format != "TIFF" and image.getexif().get(0x0112, 1) in {5, 6, 7, 8}
            shown = (image.height, image.width) if turned else (image.width, image.height)
            codec = codec or (image.format or "").lower()
        if size is not None and shown != size:
            raise InputError(
                f"{file}: {shown[0]}x{shown[1]} pixels, but {files[0].name} has {size[0]}x{size[1]}; "
                f"put pictures of one size into a folder"
            )
        size = shown
    assert size is not None, "pictures_of returns at least one"
    return VideoInfo(
        path=path,
        width=size[0],
        height=size[1],
        time_base=1 / RATE,
        average_rate=RATE,
        frame_count=len(files),
        rotation_deg=0,
        codec=codec,
        bit_depth=8,
        audio_streams=0,
        fingerprint=fingerprint,
    )


def read_stills(path: Path, wanted: Collection[int] | None = None) -> Iterator[Frame]:
    """Yield the pictures as frames, upright, without transparency.

    Args:
        path: the folder, or the picture.
        wanted: indices of the pictures to open; None for all.

    Raises:
        InputError: a picture cannot be decoded.
    """
    for index, file in enumerate(pictures_of(path)):
        if wanted is not None and index not in wanted:
            continue
        with _opened(file) as image:
            yield Frame(index=index, pts=index, image=_upright(image, file))


class StillsEncoder:
    """Writes frames as pictures under the names of the source's pictures; a context manager.

    Leaving it by an exception deletes what was written.

    Attributes:
        notes: what of the source's pictures was not carried over.
    """

    def __init__(self, source: Path, info: VideoInfo, target: Path, settings: EncodeSettings) -> None:
        """Remember what to write; nothing is opened yet.

        Args:
            source: a picture or a folder of pictures.
            info: the source's description.
            target: a picture where the source is one, else a folder, which is made.
            settings: ``keep_metadata`` keeps EXIF and comments.
        """
        self.notes: tuple[str, ...] = ()
        self._sources = pictures_of(source)
        self._info, self._target, self._keep = info, target, settings.keep_metadata
        self._to_folder = source.is_dir()
        self._written = 0
        self._lost: dict[str, int] = {}

    def __enter__(self) -> StillsEncoder:
        if self._to_folder:
            with _output_errors(self._target):
                self._target.mkdir()
        return self

    def write(self, frame: Frame, faces: Sequence[Float] = ()) -> None:
        """Write one picture, all of it as well as it can be.

        Raises:
            OutputError: it cannot be written.
        """
        if frame.image.shape != (self._info.height, self._info.width, 3):
            raise ValueError(f"frame {frame.index}: shape {frame.image.shape} does not fit {self._info}")
        source = self._sources[frame.index]
        target = self._target / source.name if self._to_folder else self._target
        form = Image.registered_extensions()[target.suffix.lower()]
        with _opened(source) as image:
            options = _SAVE_OPTIONS.get(form, {}) | self._carried(image)
        with _output_errors(target):
            Image.fromarray(frame.image).save(target, form, **options)
        self._written += 1

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if kind is not None or not self._written:
            if self._to_folder:
                shutil.rmtree(self._target, ignore_errors=True)
            else:
                self._target.unlink(missing_ok=True)
        if kind is None and not self._written:
            raise OutputError(f"{self._target}: not one picture was written; nothing to keep")
        self.notes = tuple(
            what if len(self._sources) == 1 else f"{what} ({count} pictures)"
            for what, count in self._lost.items()
        )

    def _carried(self, image: Image.Image) -> dict[str, Any]:
        """What is written beside the pixels; counts what is not."""
        profile = image.info.get("icc_profile")
        carried: dict[str, Any] = {"icc_profile": profile} if profile and image.mode == "RGB" else {}
        exif = image.getexif()
        exif.pop(0x0112, None)  # the picture is upright now
        if self._keep and exif:
            carried["exif"] = exif.tobytes()
        elif exif or {"xmp", "comment", "photoshop"} & set(image.info):
            self._lose("metadata removed (EXIF, XMP or comments: camera, place, date)")
        if image.has_transparency_data:
            self._lose("transparency removed")
        if any(";16" in str(tile) for tile in getattr(image, "tile", ())):
            self._lose("16 bits per colour became 8")
        return carried

    def _lose(self, what: str) -> None:
        self._lost[what] = self._lost.get(what, 0) + 1


def _natural(path: Path) -> list[tuple[int, str]]:
    """Sort key in which numbers count as numbers."""
    return [(int(part), "") if part.isdecimal() else (0, part) for part in re.split(r"(\d+)", path.name)]


@contextlib.contextmanager
def _opened(file: Path) -> Iterator[Image.Image]:
    """Open a picture; every failure to read it while it is open is an InputError."""
    try:
        if file.stat().st_size == 0:
            raise InputError(f"{file}: the file is empty; get a complete copy")
        # A picture above Pillow's limit for surprises is an error, one above half of it is not.
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", Image.DecompressionBombWarning)
            image = Image.open(file)
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        if isinstance(error, InputError):
            raise
        reason = getattr(error, "strerror", None) or "not a picture, or damaged beyond use"
        raise InputError(f"{file}: {reason}; give a complete picture") from error
    with image:
        yield image


def _upright(image: Image.Image, file: Path) -> UInt8:
    if image.mode in _WIDE_GREY:
        raise InputError(f"{file}: grey with more than 8 bits per pixel; convert it to 8 bits first")
    try:
        return np.asarray(ImageOps.exif_transpose(image).convert("RGB"), dtype=np.uint8)
    except (OSError, SyntaxError, ValueError) as error:
        raise InputError(f"{file}: damaged picture ({error}); get a complete copy") from error


@contextlib.contextmanager
def _output_errors(target: Path) -> Iterator[None]:
    try:
        yield
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or str(error)
        raise OutputError(
            f"{target}: cannot be written ({reason}); check folder, permissions and free space"
        ) from error
