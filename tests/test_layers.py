"""Which module may import which."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parents[1] / "vidanon"
GROUND = ("types", "errors", "settings", "geometry", "private", "progress")
RANKS = {name: 0 for name in GROUND} | {"models": 1, "networks": 1, "stages": 1, "identity": 1, "training": 3}
RANKS |= {
    "plan": 2,
    "planfile": 2,
    "facework": 2,
    "renderer": 2,
    "redraw": 2,
    "rendersummary": 0,
    "api": 4,
    "recognisers": 3,
    "conversion": 3,
    "measures": 0,
    "behind": 3,
    "tally": 3,
    "compare": 3,
    "side_by_side": 3,
    "audit": 3,
    "bars": 3,
    "sheets": 3,
    "mixing": 3,
    "figures": 4,
    "coherence": 4,
    "evaluate": 4,
    "evaluate_mapper": 4,
    "mapper_tables": 4,
    "calibrate": 4,
    "leftovers": 3,
    "jobs": 5,
    "cli": 6,
}


def imports_of(path: Path) -> set[str]:
    """Names right under ``vidanon`` that a file imports, wherever in the file."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text("utf-8"))):
        if isinstance(node, ast.ImportFrom) and node.module and node.module.startswith("vidanon."):
            found.add(node.module.split(".")[1])
        elif isinstance(node, ast.Import):
            found |= {a.name.split(".")[1] for a in node.names if a.name.startswith("vidanon.")}
    return found


def files_of(part: str) -> list[Path]:
    folder = PACKAGE / part
    return sorted(folder.rglob("*.py")) if folder.is_dir() else [folder.with_suffix(".py")]


@pytest.mark.parametrize("part", sorted(RANKS))
def test_imports_point_downwards(part: str) -> None:
    files = files_of(part)
    assert files
    for path in files:
        upward = {name for name in imports_of(path) if RANKS.get(name, 0) > RANKS[part]}
        assert not upward, f"{path.relative_to(PACKAGE)} imports {upward}"


def test_every_part_has_a_rank() -> None:
    parts = {path.stem for path in PACKAGE.iterdir() if path.suffix == ".py" or any(path.rglob("*.py"))}
    assert parts - {"__init__", "__main__", "report"} <= set(RANKS)


@pytest.mark.parametrize("part", GROUND)
def test_ground_stands_on_ground(part: str) -> None:
    assert imports_of(PACKAGE / f"{part}.py") <= set(GROUND)


def test_command_line_imports_nothing_heavy() -> None:
    code = (
        "import sys, vidanon.cli\n"
        "print([m for m in ('torch', 'openvino', 'mediapipe', 'av', 'cv2', 'scipy') if m in sys.modules])"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert result.stdout.strip() == "[]"


def test_video_library_is_used_where_videos_are_read_and_written() -> None:
    users = set()
    for path in PACKAGE.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text("utf-8"))):
            names = [a.name for a in node.names] if isinstance(node, ast.Import) else []
            names += [node.module or ""] if isinstance(node, ast.ImportFrom) else []
            if any(name.split(".")[0] == "av" for name in names):
                users.add(path.relative_to(PACKAGE).as_posix())
    assert users <= {f"stages/{name}.py" for name in ("decode", "emphasis", "encode", "join")}
