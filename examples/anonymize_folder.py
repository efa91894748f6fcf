"""Anonymize every video of a folder: ``python anonymize_folder.py recordings/ anonymized/``."""

import sys
from pathlib import Path

import vidanon
from vidanon.errors import VidanonError

SUFFIXES = {".mp4", ".mkv", ".mov", ".webm", ".avi"}


def main(source: Path, target: Path) -> int:
    """Return the number of videos that failed."""
    target.mkdir(parents=True, exist_ok=True)
    failed = 0
    for video in sorted(path for path in source.iterdir() if path.suffix.lower() in SUFFIXES):
        try:
            summary = vidanon.anonymize(video, target / f"{video.stem}.anon.mp4")
        except VidanonError as error:
            failed += 1
            print(f"{video.name}: {error}", file=sys.stderr)
        else:
            print(f"{video.name}: {summary.people} people, {summary.replaced} faces replaced")
    return failed


if __name__ == "__main__":
    sys.exit(1 if main(Path(sys.argv[1]), Path(sys.argv[2])) else 0)
