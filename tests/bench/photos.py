"""The literature's protocol on still pictures, and linkability, beside blur and pixelation (deface 1.5.0).

    python tests/bench/photos.py PHOTOS WORK [--people 500] [--linked 100] [--skip-deface] [--json FILE]

PHOTOS holds one folder per person with at least two pictures (LFW). WORK keeps what was made, so that a run
that was stopped goes on; it holds copies of the photographs, so delete it afterwards.

1. Every second picture of each person is treated. How often does a recogniser match it with that person's
   other, untouched pictures? And, where whoever looks has the same tool, with those treated in the same way?
2. The first people's pictures are all treated, under two keys: one person under one key must stay one person
   (the new face is stable), under two keys nobody may be found again.

TPR at FAR 1e-3: the threshold is set on the pairs of two people of that very comparison. Treated pictures are
aligned by the landmarks of the source picture, so a face on which detectors fail counts as well; one that
vidanon refused to publish is left out, and counted.
"""

from __future__ import annotations

import argparse
import json
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import numpy.typing as npt

import vidanon
from vidanon.calibrate import Embeddings, PictureReader, operating_points, read_picture
from vidanon.errors import UnsafeError
from vidanon.models.registry import ModelStore
from vidanon.recognisers import RECOGNISERS, score_matrix
from vidanon.stages.stills import pictures_of

FAR = "far_1e-3"
DEFACE = {"blur (deface)": "blur", "pixelation (deface)": "mosaic"}
Faces = dict[tuple[str, str], Embeddings]
"""Person and picture to the embeddings."""


def copied(pictures: list[Path], folder: Path) -> Path:
    """Copy pictures into a folder of their own; return it."""
    folder.mkdir(parents=True, exist_ok=True)
    for picture in pictures:
        shutil.copyfile(picture, folder / picture.name)
    return folder


def by_vidanon(people: list[Path], every: int, work: Path, key: str) -> Path:
    """Treat the pictures of every person as one folder; return where they lie."""
    done = work / f"vidanon-{key}-{every}"
    key_file = work / f"{key}.key"
    key_file.write_text(f"{key} of the photo benchmark, long enough to be a key")
    settings = vidanon.load_settings(None, [f"identity.key_file={key_file}"])
    for number, person in enumerate(people, 1):
        source, target = work / f"source-{every}" / person.name, done / person.name
        if target.exists() or target.with_suffix(".refused").exists():
            continue
        done.mkdir(exist_ok=True)
        copied(pictures_of(person)[::every], source)
        try:
            vidanon.anonymize(source, target, settings)
        except UnsafeError:
            target.with_suffix(".refused").touch()
        if number % 20 == 0:
            print(f"{done.name}: {number}/{len(people)}", file=sys.stderr, flush=True)
    return done


def by_deface(people: list[Path], work: Path, name: str) -> Path:
    """Treat every second picture; return where they lie."""
    done = work / f"deface-{DEFACE[name]}"
    program = Path(sys.executable).parent / "deface"
    for person in people:
        if (done / person.name).exists():
            continue
        source = copied(pictures_of(person)[::2], work / f"source-{DEFACE[name]}" / person.name)
        files = [str(path) for path in pictures_of(source)]
        subprocess.run(
            [str(program), "--replacewith", DEFACE[name], *files],
            check=True,
            capture_output=True,
            timeout=600,
        )
        made = sorted(source.glob("*_anonymized*"))
        (done / person.name).mkdir(parents=True)
        for path in made:
            path.rename(done / person.name / path.name.replace("_anonymized", ""))
    return done


class Reader:
    """Reads faces where the untouched picture shows them."""

    def __init__(self, models: ModelStore) -> None:
        self._reader = PictureReader(models, 2)
        self._landmarks: dict[Path, npt.NDArray[np.float32] | None] = {}

    def __call__(self, untouched: list[Path], treated: Path | None = None) -> Faces:
        """Return the faces of some people, as they are or as they lie in ``treated``."""
        found: Faces = {}
        for path in (picture for person in untouched for picture in pictures_of(person)):
            shown = path if treated is None else treated / path.parent.name / path.name
            if not shown.is_file():
                continue
            if path not in self._landmarks:
                self._landmarks[path] = self._reader.find(read_picture(path))
            landmarks = self._landmarks[path]
            if landmarks is not None:
                found[path.parent.name, path.name] = self._reader.embed(read_picture(shown), landmarks)
        return found


def rates(first: Faces, second: Faces) -> dict[str, float]:
    """Return TPR at FAR 1e-3 of each recogniser over all pairs that are not the same picture."""
    same = np.array([[a == b for b, _ in second] for a, _ in first])
    other = np.array([[a != b for b in second] for a in first])
    result = {"pairs": int((same & other).sum())}
    for recogniser in RECOGNISERS:
        scores = score_matrix(recogniser, list(first.values()), list(second.values()))
        points = operating_points(scores[other], same[other], nearer_is_same=recogniser.by_distance)
        shipped = [recogniser.is_same(score) for score in scores[same & other]]
        key = recogniser.key
        result |= {key: points[FAR]["tpr"], f"{key}_shipped": round(float(np.mean(shipped)), 4)}
    return result


def protocol(people: list[Path], work: Path, reader: Reader, deface: bool) -> dict[str, dict[str, float]]:
    """Compare every second picture, treated, with the untouched ones, and with others treated alike."""
    untouched = reader(people)
    table = {"untouched": rates(untouched, untouched)}
    made = {"vidanon": by_vidanon(people, 2, work, "first")}
    if deface:
        made |= {name: by_deface(people, work, name) for name in DEFACE}
    for name, folder in made.items():
        treated = reader(people, folder)
        table[name] = rates(treated, untouched) | {"pictures": len(treated)}
        table[f"{name}, both treated"] = rates(treated, treated)
    refused = len(list(made["vidanon"].glob("*.refused")))
    table["vidanon"]["people refused"] = refused
    return table


def linkability(people: list[Path], work: Path, reader: Reader) -> dict[str, dict[str, float]]:
    """Treat all pictures under two keys, and look for the same person under one and under both."""
    one, two = (reader(people, by_vidanon(people, 1, work, key)) for key in ("first", "second"))
    return {"one key": rates(one, one), "two keys": rates(one, two)}


def main() -> None:
    """Read the arguments, run, print the tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("photos", type=Path)
    parser.add_argument("work", type=Path)
    parser.add_argument("--people", type=int, default=500)
    parser.add_argument("--linked", type=int, default=100)
    parser.add_argument("--skip-deface", action="store_true")
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    everybody = [p for p in sorted(arguments.photos.iterdir()) if p.is_dir() and len(pictures_of(p)) > 1]
    arguments.work.mkdir(parents=True, exist_ok=True)
    reader = Reader(ModelStore())
    record: dict[str, dict[str, float]] = {}
    if arguments.people:
        record |= protocol(everybody[: arguments.people], arguments.work, reader, not arguments.skip_deface)
    if arguments.linked:
        record |= linkability(everybody[: arguments.linked], arguments.work, reader)
    print("TPR at FAR 1e-3 (in brackets: beyond the thresholds that ship)\n")
    print(f"| pictures | pairs | {' | '.join(r.name for r in RECOGNISERS)} |\n|---|---|---|---|---|")
    for name, row in record.items():
        cells = [f"{row[r.key]:.4f} ({row[r.key + '_shipped']:.4f})" for r in RECOGNISERS]
        print(f"| {name} | {row['pairs']} | {' | '.join(cells)} |")
    print(f"\npeople whose pictures vidanon refused: {record.get('vidanon', {}).get('people refused', 0)}")
    if arguments.json:
        arguments.json.write_text(json.dumps(record, indent=1))


if __name__ == "__main__":
    main()
