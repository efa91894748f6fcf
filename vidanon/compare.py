"""Measure a result against its source: leaks, recognisers, stability, expression, pose, container.

Nothing here trusts what the pipeline says of itself: both videos are decoded anew, faces are looked for
in both, and what is compared is what the files show. Every sixth frame of the source gets every means. Where
two such looks show the same faces, these are followed in between, and one quick look finds who shows only
there; where anything differs, further looks half way tell where, down to every frame.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import chain, repeat
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from vidanon.behind import LEAST_SHARE, share_behind
from vidanon.errors import InputError
from vidanon.identity.shade import eye_shade, glare
from vidanon.identity.teeth import mouth_shades
from vidanon.measures import detail_left, fine_detail, furrow_depth, is_same_picture, is_unchanged
from vidanon.progress import Meter
from vidanon.recognisers import RECOGNISERS, SFACE, Recogniser, load_recognisers, margins_of
from vidanon.side_by_side import Frames, opened, side_by_side
from vidanon.stages.fingerprint import audio_hashes
from vidanon.stages.follow import Scanner, in_groups, with_next
from vidanon.stages.head_pose import HeadPose, angle_deg
from vidanon.stages.landmark import FIRM_TILT_DEG, Sight, box_iou, mesh_box
from vidanon.stages.segment import PartReader
from vidanon.stages.track import on_part_of_turned
from vidanon.stages.workers import ordered_map, worker_pool
from vidanon.tally import (
    FacePair,
    FaceReading,
    HiddenFace,
    Memory,
    Tally,
    fidelity_of,
    results_of,
    shown_pairs,
)
from vidanon.types import Float, Frame, UInt8

if TYPE_CHECKING:
    from vidanon.models.registry import ModelStore

MIN_FACE_PX = 20
"""Faces narrower than this are not judged: no recogniser or landmarker reads them."""
FRONTAL_DEG = 45.0
_LOOK_EVERY_FRAMES = 6
_LOOKS_AHEAD = 2 * _LOOK_EVERY_FRAMES  # to judge a face takes as long as to find those of many frames
_FIRST_GROUP_FRAMES = 2  # so that the thorough looks fall on other frames than the default analysis's
_MATCH_IOU = 0.3
_SAME_PLACE_IOU = 0.4
"""Of meshes. A neck under a beard was read with .49 to .52 (driver_video2); of two people who overlap so, one
hides the other."""
_LINK_FRAMES = 15
_EYE_CORNER_IDS = (33, 263)
NO_GLARE = (float("nan"), float("nan"))
"""Not read for verdicts: a large face takes 70 ms."""
_CLEAR_OF_LINE = 0.03
"""Coding noise moves similarities and distances by less."""


@dataclass(frozen=True, slots=True)
class _Look:
    """What was seen in one frame of both videos, and these where any are paired; no numbers are given yet."""

    index: int
    frames: tuple[Frame, Frame] | None
    boxes: list[Float]
    unchanged: list[Float]
    pairs: list[FacePair]
    hidden: list[HiddenFace]


Judged = Callable[[int, Float], bool]
"""Whether the recognisers look at a source face: index of the frame, box (4,)."""
Observer = Callable[[Frame, Frame, list[FacePair]], None]
"""Called in order with source, output and face pairs of the frames that have any."""


class _Comparison:
    """Walks through both videos once, side by side."""

    def __init__(
        self,
        models: ModelStore,
        judged: Judged,
        workers: int,
        recognisers: tuple[Recogniser, ...],
        observe: Observer | None,
        memory: Memory,
        looks: bool = False,
        glares: bool = False,
    ) -> None:
        from vidanon.identity.look import LookEncoder
        from vidanon.settings import DetectSettings
        from vidanon.stages.detect import FaceDetector
        from vidanon.stages.landmark import Landmarker

        self._detect = FaceDetector(models, DetectSettings(), workers)
        self.scanner: Scanner[Frames] = Scanner(
            self._detect, lambda frames: frames[0].image, self._needs_close_look
        )
        self._landmark = Landmarker(models, workers)
        self._models, self._workers = models, workers
        self._embed = load_recognisers(models, workers, recognisers)
        self._look = LookEncoder(models, "cpu", workers) if looks else None
        self._glares = looks or glares
        self._pose = HeadPose(models)
        self._judged, self._observe, self._memory = judged, observe, memory
        self._last_seen: dict[int, tuple[int, Float]] = {}
        self.tally = Tally()

    def _needs_close_look(self, frames: Frames, boxes: list[Float]) -> bool:
        """Say whether followed boxes will not do, as a face seems to be left as it was."""
        source, output, _ = frames
        return any(is_unchanged(source.image, output.image, box) for box in boxes)

    def recall(self, frames: Frames) -> tuple[Frames, list[Float]]:
        """Return frames with the faces that were found in the source before: it is still the same."""
        index, boxes = frames[0].index, self._memory.boxes.get(frames[0].index, [])
        if index not in self._memory.unchanged and self._needs_close_look(frames, boxes):
            boxes = [face.box for face in self._detect(frames[0].image)]
        return frames, boxes

    def look(self, seen: tuple[Frames, list[Float]]) -> _Look:
        """Compare one frame of each, where the source shows faces; stateless, for worker threads."""
        (source, output, before), found = seen
        boxes = [box for box in found if box[2] - box[0] >= MIN_FACE_PX]
        unchanged = [box for box in boxes if is_unchanged(source.image, output.image, box)]
        pairs: list[FacePair] = []
        hidden: list[HiddenFace] = []
        judged = [box for box in boxes if self._judged(source.index, box)]
        if judged:
            pairs, hidden = self.judge((source, output, before), judged)
        return _Look(source.index, (source, output) if pairs else None, boxes, unchanged, pairs, hidden)

    def add(self, look: _Look) -> None:
        """Take the next frame, in order."""
        tally, index = self.tally, look.index
        if look.boxes:
            tally.boxes[index] = look.boxes
        if look.unchanged:
            tally.unchanged[index] = look.unchanged
        numbers = {tuple(box): self._follow(index, box) for box in look.boxes}
        pairs = [replace(pair, face=numbers[tuple(pair.box)]) for pair in look.pairs]
        tally.faces_judged += len(pairs) + len(look.hidden)
        tally.pairs += pairs
        tally.hidden += [replace(face, face=numbers[tuple(face.box)]) for face in look.hidden]
        if self._observe is not None and look.frames is not None:
            self._observe(*look.frames, pairs)

    def judge(self, frames: Frames, boxes: list[Float]) -> tuple[list[FacePair], list[HiddenFace]]:
        """Compare some faces of a source frame with what the output shows there; numbers are not given.

        Of two meshes in one place the first stands: detectors name the surest face first.
        """
        source, output, before = frames
        pairs: list[FacePair] = []
        hidden: list[HiddenFace] = []
        left: list[FaceReading] = []
        read: list[FaceReading] = []
        for box in boxes:
            known = None if before is None else self._memory.of(source.index, box)
            if before is None or known is None or not self._stands(known, before.image, output.image):
                face = known.source if isinstance(known, FacePair) else self._read_source(source.image, box)
                if face is not None and not any(_seen_before(face, other) for other in read):
                    left.append(face)
                    read.append(face)
            elif isinstance(known, FacePair):
                pairs.append(known)
                read.append(known.source)
            else:
                hidden.append(known)
        left = [face for face in left if not any(_is_part_of(face, other) for other in read)]
        more = self._judge(source, output, left) if left else ([], [])
        return pairs + more[0], hidden + more[1]

    def _stands(self, known: FacePair | HiddenFace, before: UInt8, output: UInt8) -> bool:
        """Say whether an earlier finding holds: the picture is the same, the verdict clear of noise."""
        scores = known.scores if isinstance(known, FacePair) else {SFACE.name: known.similarity}
        if min(margins_of(scores).values()) < _CLEAR_OF_LINE:
            return False
        return is_same_picture(before, output, known.box)

    def _read_source(self, image: UInt8, box: Float) -> FaceReading | None:
        guesses = (self._find(image, box, tilt) for tilt in self._detect.tilts(image, box))
        return next((face for face in guesses if face is not None), None)

    def _find(self, image: UInt8, box: Float, tilt: float) -> FaceReading | None:
        """Read what is compared off a face; None where it has no landmarks."""
        seen = self._landmark.find(image, box, tilt)
        return None if seen is None else self._reading(image, box, seen, tilt)

    def _reading(self, image: UInt8, box: Float, seen: Sight, tilt: float) -> FaceReading:
        look = None if self._look is None else self._look(image, seen.landmarks)
        embeddings = {name: embed(image, seen.landmarks) for name, embed in self._embed.items()}
        return FaceReading(box, *seen, embeddings, tilt, look)

    def _judge(
        self, source: Frame, output: Frame, found: list[FaceReading]
    ) -> tuple[list[FacePair], list[HiddenFace]]:
        boxes = [face.box for face in found]
        seen = self._near(output.image, boxes, quick=True)
        if not all(any(box_iou(box, other) >= _MATCH_IOU for other in seen) for box in boxes):
            seen = self._near(output.image, boxes, quick=False)  # before a face counts as gone
        # Upright looks often miss new faces that lie on their side or upside down.
        seen += [face.box for face in found if abs(np.degrees(face.tilt)) > FIRM_TILT_DEG]
        pairs, hidden = [], []
        for face in found:
            shown = self._in_place_of(face, output.image, seen)
            if shown is None:
                after = self._embed[SFACE.name](output.image, face.landmarks)
                hidden.append(HiddenFace(source.index, -1, face.box, float(face.embedding @ after)))
            else:
                pairs.append(self._pair(source, output.image, face, shown))
        return pairs, hidden

    def _in_place_of(self, face: FaceReading, image: UInt8, seen: list[Float]) -> FaceReading | None:
        """Read what the output shows in a source face's place, in the same crop wherever that shows a mesh.

        Args:
            face: of the source.
            image: of the output.
            seen: boxes (4,) of the faces that detectors see in it.
        """
        near = sorted(
            (box for box in seen if box_iou(face.box, box) >= _MATCH_IOU),
            key=lambda box: -box_iou(face.box, box),
        )
        if near:
            crop = face.frame_from_unit
            mesh = self._landmark.read(image, crop, face.box)
            if mesh is not None:
                return self._reading(image, near[0], Sight(*mesh, crop), face.tilt)
        found = (self._find(image, box, face.tilt) for box in near)
        return next((reading for reading in found if reading is not None), None)

    def _near(self, image: UInt8, boxes: list[Float], quick: bool) -> list[Float]:
        """Find the faces of the output that touch some boxes."""
        found = self._detect(image, quick=quick)
        return [face.box for face in found if any(box_iou(face.box, other) > 0 for other in boxes)]

    def _pair(self, source: Frame, output: UInt8, face: FaceReading, shown: FaceReading) -> FacePair:
        a, b = face.landmarks, shown.landmarks
        turn_a, turn_b = (self._pose(points, output.shape[1], output.shape[0]) for points in (a, b))
        frontal = angle_deg(turn_a, np.eye(3, dtype=np.float32)) <= FRONTAL_DEG
        eyes = a[list(_EYE_CORNER_IDS)]
        return FacePair(
            frame=source.index,
            face=-1,
            scores=face.scores(shown),
            nme=float(np.linalg.norm(a - b, axis=1).mean() / max(np.linalg.norm(eyes[1] - eyes[0]), 1.0)),
            pose_error_deg=angle_deg(turn_a, turn_b) if frontal else float("nan"),
            source=face,
            output=shown,
            detail=detail_left(source.image, output, a),
            behind=self._behind((source.image, a), (output, b)),
            mouth=mouth_shades(source.image, output, a, b),
            eyes=(eye_shade(source.image, a), eye_shade(output, b)),
            fine=(fine_detail(source.image, a), fine_detail(output, b)),
            glare=(glare(source.image, a), glare(output, b)) if self._glares else NO_GLARE,
            furrows=(furrow_depth(source.image, a), furrow_depth(output, b)),
        )

    def _behind(self, first: tuple[UInt8, Float], second: tuple[UInt8, Float]) -> tuple[float, float]:
        """Return how much of both faces, images with landmarks, something in front hides."""
        share = share_behind(self._parts, *first)
        return share, share_behind(self._parts, *second) if share >= LEAST_SHARE else 0.0

    @cached_property
    def _parts(self) -> PartReader:
        return PartReader(self._models, "cpu", self._workers)

    def _follow(self, frame: int, box: Float) -> int:
        near = {
            number: box_iou(box, last)
            for number, (index, last) in self._last_seen.items()
            if index < frame <= index + _LINK_FRAMES
        }
        number = max(near, key=lambda key: near[key], default=-1)
        if number < 0 or near[number] < _MATCH_IOU:
            number = len(self._last_seen)
        self._last_seen[number] = (frame, box)
        return number


def _seen_before(face: FaceReading, surer: FaceReading) -> bool:
    """Say whether a face was seen in another a second time: in beard and neck, where nothing is replaced."""
    return box_iou(mesh_box(face.landmarks), mesh_box(surer.landmarks)) > _SAME_PLACE_IOU


def _is_part_of(face: FaceReading, other: FaceReading) -> bool:
    """Say whether a face is a second one that was seen in another; recognisers would compare nonsense."""
    larger = np.prod(other.box[2:] - other.box[:2]) > np.prod(face.box[2:] - face.box[:2])
    return bool(larger) and on_part_of_turned(face.box, other.box, other.tilt)


def evaluate_pair(
    source: Path,
    output: Path,
    models: ModelStore,
    stride: int = 1,
    workers: int = 2,
    copy: Path | None = None,
) -> dict[str, Any]:
    """Measure an anonymized video against its source.

    Args:
        source: the original.
        output: what became of it.
        models: where the models are.
        stride: recognisers look at two neighbouring frames out of every ``stride`` (1: at all); frames, times
            and unchanged faces are always checked on all.
        workers: threads of the networks.
        copy: the source, only encoded anew. What is read in it of the faces that the output shows goes under
            ``copy``: no result can be expected to follow its source more closely.

    Returns:
        Numbers by name. ``unchanged_frames``: a face of at least 20 px shows its original pixels.
        ``recognised_frames``: a recogniser takes source and output for one person. ``leak_frames``: either.
        ``adjacent_sface``: of the output with itself one frame later; ``..._source``: likewise of the source.
        ``glasses_steady`` (by track): share of frames that agree with most on whether glasses are worn.
        ``mouth_shade_error``: how much brighter or darker wide open mouths are inside, shares of the cheeks.
        ``eye_shade_error``: how much brighter or darker the darkest of the eyes is, likewise.
        ``fine_detail``: how much of the source's finest detail the faces show.
        ``glare``: how much more the brightest skin stands out than the source's, see
        :func:`vidanon.identity.shade.glare`.
        ``furrow``, ``furrow_depth``: how furrows between the brows follow, see
        :func:`vidanon.tally.furrow_figures`.
        ``faces_lost``: judged faces whose place shows none, or no detail. All that follows leaves these out.
        ``stranger_share``: share of judged faces that all recognisers call a stranger. Means are None where
        nothing could be measured.

    Raises:
        InputError: a file is missing or no video, or the pictures differ in size.
        ModelsError: a model, or dlib, is missing.
    """
    # Two neighbours out of every stride, so that adjacent frames can be compared.
    tally = compare_videos(
        source, output, models, lambda index, _: index % max(stride, 1) < 2, workers, looks=True
    )
    results = results_of(tally)
    results["audio_identical"] = audio_hashes(source) == audio_hashes(output)
    if copy is not None:
        results["copy"] = fidelity_of(_same_faces(source, copy, models, shown_pairs(tally), workers))
    return results


def _same_faces(
    source: Path, copy: Path, models: ModelStore, faces: list[FacePair], workers: int
) -> list[FacePair]:
    """Compare some faces of the source with what a copy of it shows."""
    if not faces:
        return []
    wanted: dict[int, list[Float]] = defaultdict(list)
    for face in faces:
        wanted[face.frame].append(face.box)
    numbers = {(face.frame, tuple(face.box)): face.face for face in faces}
    pairs, _ = judge_again(source, copy, models, wanted, workers, (SFACE,), glares=True)
    return [replace(pair, face=numbers[pair.frame, tuple(pair.box)]) for pair in pairs]


def compare_videos(
    source: Path,
    output: Path,
    models: ModelStore,
    judged: Judged,
    workers: int = 2,
    recognisers: tuple[Recogniser, ...] = RECOGNISERS,
    observe: Observer | None = None,
    progress: Meter | None = None,
    memory: Memory | None = None,
    looks: bool = False,
) -> Tally:
    """Decode both videos side by side; find the faces of every frame and compare those of some frames.

    Args:
        source: the original.
        output: what became of it.
        models: where the models are.
        judged: which faces the recognisers look at.
        workers: threads.
        recognisers: those that judge, SFace among them.
        observe: called for every frame with a judged face that the output shows.
        progress: called with (frames done, frames stated).
        memory: of a comparison of the same source with an earlier result. The source's faces are taken from
            there, and so are findings where both results show the same picture.
        looks: read how the faces look as well, and how the skin shines.

    Raises:
        InputError: a file is missing or no video, or the pictures differ in size.
        ModelsError: a model, or dlib where asked for, is missing.
    """
    memory = memory or Memory()
    with opened(source, output, memory) as (first, second, earlier), worker_pool(workers) as pool:
        if (first.info.width, first.info.height) != (second.info.width, second.info.height):
            raise InputError(
                f"{output}: its pictures are not of the size of {source}; compare matching files"
            )
        comparison = _Comparison(models, judged, workers, recognisers, observe, memory, looks)
        tally = comparison.tally
        frames = side_by_side(first, second, earlier, tally)
        if earlier is None:
            groups = in_groups(frames, _LOOK_EVERY_FRAMES, _FIRST_GROUP_FRAMES)
            begun = ordered_map(pool, comparison.scanner.begin, groups, 1)
            found = ordered_map(pool, comparison.scanner.complete, with_next(begun), 1)
            scanned: Iterator[tuple[Frames, list[Float]]] = chain.from_iterable(found)
        else:
            scanned = ordered_map(pool, comparison.recall, frames, 1)
        compared = ordered_map(pool, comparison.look, scanned, _LOOKS_AHEAD, lambda one: one.frames is None)
        for done, look in enumerate(compared, start=1):
            comparison.add(look)
            if progress is not None:
                progress(done, first.info.frame_count)
        tally.damaged = first.corrupt_packets > 0 or first.ended_early
    return tally


def judge_again(
    source: Path,
    output: Path,
    models: ModelStore,
    wanted: Mapping[int, list[Float]],
    workers: int = 2,
    recognisers: tuple[Recogniser, ...] = RECOGNISERS,
    memory: Memory | None = None,
    glares: bool = False,
) -> tuple[list[FacePair], list[HiddenFace]]:
    """Compare further faces of two videos that were compared before.

    Args:
        source: the original.
        output: what became of it.
        models: where the models are.
        wanted: boxes (4,) of the source's faces, by frame.
        workers: threads.
        recognisers: those that judge, SFace among them.
        memory: as in :func:`compare_videos`.
        glares: read how the skin shines.

    Raises:
        InputError: a file is missing or no video.
        ModelsError: a model, or dlib where asked for, is missing.
    """
    memory = memory or Memory()
    with opened(source, output, memory) as videos:
        source_frames, output_frames = (video.part(wanted) for video in videos[:2])
        earlier = repeat(None) if videos[2] is None else videos[2].part(wanted)
        asked = zip(source_frames, output_frames, earlier, strict=False)
        return judge_frames(asked, models, wanted, workers, recognisers, memory, glares)


def judge_frames(
    asked: Iterable[Frames],
    models: ModelStore,
    wanted: Mapping[int, list[Float]],
    workers: int = 2,
    recognisers: tuple[Recogniser, ...] = RECOGNISERS,
    memory: Memory | None = None,
    glares: bool = False,
) -> tuple[list[FacePair], list[HiddenFace]]:
    """Compare some faces of frames of the source with what was made of them.

    Args:
        asked: the frames, those of an earlier result where it is remembered.
        models: where the models are.
        wanted: boxes (4,) of the source's faces, by frame.
        workers: threads.
        recognisers: those that judge, SFace among them.
        memory: as in :func:`compare_videos`.
        glares: read how the skin shines.

    Raises:
        ModelsError: a model, or dlib where asked for, is missing.
    """
    comparison = _Comparison(
        models, lambda _, __: True, workers, recognisers, None, memory or Memory(), glares=glares
    )
    pairs: list[FacePair] = []
    hidden: list[HiddenFace] = []
    with worker_pool(workers) as pool:
        looks = ordered_map(
            pool, lambda some: comparison.judge(some, wanted[some[0].index]), asked, workers + 1
        )
        for seen, unseen in looks:
            pairs += seen
            hidden += unseen
    return pairs, hidden
