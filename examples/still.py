"""De-identify pictures, one or a folder of them: ``python still.py photo.jpg photo.anon.jpg``."""

import sys
from pathlib import Path

import vidanon
from vidanon.errors import VidanonError


def main(source: Path, target: Path) -> int:
    """Return the exit code."""
    try:
        summary = vidanon.anonymize(source, target)
    except VidanonError as error:
        print(f"{source}: {error}", file=sys.stderr)
        return int(error.exit_code)
    print(f"{target}: {summary.replaced} faces replaced, {summary.obscured} obscured")
    return 0


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1]), Path(sys.argv[2])))
