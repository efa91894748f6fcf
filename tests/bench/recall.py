"""Detection recall of vidanon and of deface 1.5.0 on pictures and frames whose faces are known.

    python tests/bench/recall.py PHOTOS CLIPS [--set detect.min_score=0.2]

PHOTOS holds ``groups_dlib`` (boxes in XML) and ``groups_compreface`` (noses in ``annotations.py``); they are
also shown turned, shrunk until the middle face is 16 px wide, and cut through the middle of each face.
CLIPS holds the clips whose hand-checked frames are in ``crowds.json`` beside this script.
For these clips a row "plan" shows what is covered in the end, when faces have been followed through the clip.
A face counts as found if a box overlaps it with an IoU of .4, or if each centre lies in the other box (for a
nose: the nose inside). Boxes on no known and no doubtful face are counted as false alarms.
"""

from __future__ import annotations

import argparse
import ast
import json
import sys
import time
import xml.etree.ElementTree as ET
from collections.abc import Callable, Iterator
from pathlib import Path

import cv2
import numpy as np

from vidanon import analyse
from vidanon.models.registry import ModelStore
from vidanon.settings import load_settings
from vidanon.stages.decode import Decoder
from vidanon.stages.detect import FaceDetector
from vidanon.stages.landmark import box_iou

Detector = Callable[[np.ndarray], np.ndarray]
Faces = list[list[float]]  # boxes (x0, y0, x1, y1) or noses (x, y)
Case = tuple[str, str, np.ndarray, Faces, Faces]  # group, name, picture, faces, doubtful faces
Result = tuple[Case, np.ndarray, float]  # what was looked at, boxes found, seconds
DEFACE_THRESHOLD = 0.2  # its default
LARGE_PX = 20
SMALL_PX = 16


def photos(folder: Path) -> Iterator[Case]:
    """Yield the group photos."""
    dlib, compreface = folder / "groups_dlib", folder / "groups_compreface"
    for name in ("testing.xml", "training.xml"):
        for image in ET.parse(dlib / name).iter("image"):
            boxes = [[float(b.get(k)) for k in ("left", "top", "width", "height")] for b in image.iter("box")]
            faces = [[x, y, x + w, y + h] for x, y, w, h in boxes]
            yield "photos", image.get("file"), read(dlib / image.get("file")), faces, []
    for call in ast.walk(ast.parse((compreface / "annotations.py").read_text())):
        if isinstance(call, ast.Call) and getattr(call.func, "id", "") == "Row":
            file = compreface / ast.literal_eval(call.args[0])
            if file.is_file():
                yield "photos", file.name, read(file), [list(n) for n in ast.literal_eval(call.args[1])], []


def turned(case: Case) -> Iterator[Case]:
    """Yield a photo on its side and upside down."""
    _, name, image, faces, _ = case
    for degrees in (90, 180):
        faces = [quarter_turn(face, image.shape[1]) for face in faces]
        image = np.rot90(image).copy()
        yield f"photos, turned {degrees}", name, image, faces, []


def quarter_turn(face: list[float], width: float) -> list[float]:
    """Turn a box or a nose with its picture, counter-clockwise."""
    points = [[y, width - x] for x, y in zip(face[::2], face[1::2], strict=True)]
    low, high = np.min(points, axis=0).tolist(), np.max(points, axis=0).tolist()
    return low + high if len(face) == 4 else low


def harder(case: Case) -> Iterator[Case]:
    """Yield a photo with known boxes shrunk, and cut through each face."""
    _, name, image, faces, _ = case
    if not faces or len(faces[0]) != 4:
        return
    scale = SMALL_PX / float(np.median([face[2] - face[0] for face in faces]))
    small = cv2.resize(image, None, fx=scale, fy=scale, interpolation=cv2.INTER_AREA)
    yield "photos, 16 px", name, small, [[v * scale for v in face] for face in faces], []
    for x0, y0, x1, y1 in faces:
        middle = round((x0 + x1) / 2)
        others = [face for face in faces if face[2] > middle and face[0] != x0]
        cut = [[max(v - o, 0) for v, o in zip(f, [middle, 0] * 2, strict=True)] for f in others]
        yield "photos, half a face", name, image[:, middle:].copy(), [[0, y0, x1 - middle, y1]], cut


def frames(truth: Path, clips: Path) -> Iterator[Case]:
    """Yield the hand-checked frames of clips."""
    for clip, known in json.loads(truth.read_text()).items():
        with Decoder(clips / clip) as video:
            for frame in video:
                if item := known.get(str(frame.index)):
                    yield clip, f"frame {frame.index}", frame.image, item["faces"], item["unsure"]


def read(path: Path) -> np.ndarray:
    """Read a picture as RGB."""
    return cv2.cvtColor(cv2.imread(str(path)), cv2.COLOR_BGR2RGB)


def hits(box: np.ndarray, face: list[float]) -> bool:
    """Tell whether a detection is on a face."""
    if len(face) == 2:
        return bool((box[:2] <= face).all() and (box[2:] >= face).all())
    known = np.array(face, np.float32)
    centre, own = (known[:2] + known[2:]) / 2, (box[:2] + box[2:]) / 2
    inside = (box[:2] <= centre).all() and (box[2:] >= centre).all()
    return box_iou(box, known) >= 0.4 or bool(
        inside and (known[:2] <= own).all() and (known[2:] >= own).all()
    )


def detectors(assignments: list[str]) -> dict[str, Detector]:
    """Return both detectors."""
    from deface.centerface import CenterFace

    ours = FaceDetector(ModelStore(offline=True), load_settings(None, assignments).detect, workers=1)
    theirs = CenterFace()
    return {
        "vidanon": lambda image: np.array([f.box for f in ours(image, True)], np.float32).reshape(-1, 4),
        "deface": lambda image: theirs(image, threshold=DEFACE_THRESHOLD)[0][:, :4],
    }


def planned(cases: list[Case], clip: Path, assignments: list[str]) -> list[Result]:
    """Return the boxes that the plan of a clip covers in the frames of ``cases``."""
    begin = time.perf_counter()
    plan = analyse(clip, load_settings(None, assignments))
    seconds = (time.perf_counter() - begin) / plan.frames
    boxes: dict[str, list[np.ndarray]] = {}
    for track in plan.tracks:
        for offset, box in enumerate(track.boxes):
            boxes.setdefault(f"frame {track.start + offset}", []).append(box)
    return [(case, np.reshape(boxes.get(case[1], []), (-1, 4)), seconds) for case in cases]


def main() -> None:
    """Print recall and false alarms."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("photos", type=Path)
    parser.add_argument("clips", type=Path)
    parser.add_argument("--set", action="append", default=[], dest="assignments")
    parser.add_argument("--skip-deface", action="store_true")
    parser.add_argument("--only", default="", help="only sets whose names begin so")
    options = parser.parse_args()
    plain = list(photos(options.photos))
    cases = plain + [case for photo in plain for case in (*turned(photo), *harder(photo))]
    cases += frames(Path(__file__).with_name("crowds.json"), options.clips)
    both = detectors(options.assignments)
    cases = [case for case in cases if case[0].startswith(options.only)]
    titles = ("faces", "found", "< 20 px", "found", "false/frame", "ms")
    print(f"{'set':28}{'detector':9}" + "".join(f"{title:>12}" for title in titles))
    for group in dict.fromkeys(case[0] for case in cases):
        shown = [case for case in cases if case[0] == group]
        for detector, detect in both.items():
            if detector != "deface" or not options.skip_deface:
                measure(detector, [(case, *timed(detect, case[2])) for case in shown])
        if (options.clips / group).is_file():
            measure("plan", planned(shown, options.clips / group, options.assignments))


def timed(detect: Detector, image: np.ndarray) -> tuple[np.ndarray, float]:
    """Return the boxes on a picture, and the seconds that took."""
    begin = time.perf_counter()
    return detect(image), time.perf_counter() - begin


def measure(detector: str, results: list[Result]) -> None:
    """Print one row about boxes and the seconds they took, picture by picture."""
    count, found, false = [0, 0], [0, 0], 0
    for (_, name, _, faces, unsure), boxes, _ in results:
        for face in faces:
            small = len(face) == 4 and min(face[2] - face[0], face[3] - face[1]) < LARGE_PX
            count[small] += 1
            found[small] += (hit := any(hits(box, face) for box in boxes))
            if not hit:
                print(f"  {detector} misses {np.round(face)} in {name}", file=sys.stderr)
        false += sum(not any(hits(box, face) for face in faces + unsure) for box in boxes)
    ms = 1000 * float(np.mean([spent for _, _, spent in results]))
    rates = f"{false / len(results):12.2f}{ms:12.0f}"
    print(
        f"{results[0][0][0][:27]:28}{detector:9}{count[0]:12}{found[0]:12}{count[1]:12}{found[1]:12}{rates}"
    )


if __name__ == "__main__":
    main()
