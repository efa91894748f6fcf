"""Analysis: who is where in a video, and which new face each person gets. Also the plan's file format."""

from __future__ import annotations

import base64
import binascii
import json
import zlib
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, replace
from fractions import Fraction
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from vidanon.errors import InputError, OutputError, SettingsError
from vidanon.identity.bank import look
from vidanon.identity.choose import Profile, choose, load_key, spares
from vidanon.identity.embed import SFace, aligned_crop
from vidanon.stages.decode import Decoder
from vidanon.stages.detect import FaceDetector
from vidanon.stages.encode import discard, publish, temporary_path
from vidanon.stages.landmark import Landmarker, box_iou
from vidanon.stages.smooth import fill_short, smooth_boxes, smooth_landmarks
from vidanon.stages.track import (
    CutFinder,
    Sighting,
    Tracker,
    Tracklet,
    densify,
    drop_duplicates,
    link,
    thumbnail,
)
from vidanon.stages.workers import ordered_map
from vidanon.types import (
    EMBEDDING_SIZE,
    Face,
    Float,
    Frame,
    IdentityCode,
    Origin,
    Plan,
    Track,
    UInt8,
    VideoInfo,
)

if TYPE_CHECKING:
    from vidanon.models.registry import ModelStore
    from vidanon.settings import Settings

FORMAT = "vidanon-plan"
VERSION = 1
SAMPLE_EVERY = 5  # frames between two embeddings of a face
# Patches of bare skin on the mesh: both cheeks and the middle of the forehead.
SKIN_POLYGONS = ((50, 101, 36, 205, 187), (280, 330, 266, 425, 411), (109, 10, 338, 337, 9, 108))
UNKNOWN_SKIN_LAB = (65.0, 12.0, 16.0)  # a medium tone, for a person whose skin was never seen


def analyse(
    source: Path,
    settings: Settings,
    models: ModelStore,
    progress: Callable[[int, int], None] | None = None,
    choose_faces: Callable[[dict[int, Profile]], dict[int, IdentityCode]] | None = None,
) -> Plan:
    """Find, track and link all faces of a video and choose the new ones.

    Args:
        source: the video.
        settings: all settings; they are recorded in the plan.
        models: where the models lie.
        progress: called as ``progress(frames_done, frames_stated)`` after every frame.
        choose_faces: gives every person a new face; default :func:`vidanon.identity.choose.choose`.

    Returns:
        The plan. Source embeddings are forgotten.

    Raises:
        InputError: the source cannot be read or holds no frame.
        ModelsError: a model is missing.
        SettingsError: the key file cannot be used.
    """
    key = load_key(settings.identity.key_file)
    workers = settings.runtime.workers
    with Decoder(source) as video, ThreadPoolExecutor(workers) as pool:
        watcher = _Watcher(settings, models, video.info)
        for frame, faces, small in ordered_map(pool, watcher.look, video, workers + 1):
            watcher.add(frame, faces, small)
            if progress is not None:
                progress(watcher.frames, video.info.frame_count)
        info, notes = video.info, video.notes
    if not watcher.frames:
        raise InputError(f"{source}: no frame could be decoded; check the file with ffprobe")
    tracklets = watcher.tracker.finish()
    tracks, profiles = _finish(tracklets, watcher, settings)
    identities = choose_faces(profiles) if choose_faces else choose(profiles, key)
    return Plan(
        info=info,
        frames=watcher.frames,
        cuts=tuple(watcher.cuts),
        tracks=tuple(tracks),
        identities=identities,
        settings=asdict(settings),
        notes=notes,
        spares=spares(profiles, key, identities),
    )


Seen = tuple[Frame, list[Face], UInt8]


class _Watcher:
    """Looks at frames on worker threads and collects what was seen in order."""

    def __init__(self, settings: Settings, models: ModelStore, info: VideoInfo) -> None:
        threads = settings.runtime.workers + 1  # the workers and the collecting thread
        self._detect = FaceDetector(models, settings.detect, threads)
        self._landmark = Landmarker(models, threads)
        self._embed = SFace(models, threads)
        self.rate = float(info.average_rate) or 25.0
        self.tracker = Tracker(round(settings.track.max_gap_s * self.rate))
        self.frames = 0
        self.cuts: list[int] = []
        self._cut_finder = CutFinder()
        self._before: list[Face] = []

    def look(self, frame: Frame) -> Seen:
        """Detect and landmark one frame; stateless."""
        faces = self._detect(frame.image)
        meshes = self._landmark(frame.image, [face.box for face in faces])
        found = [
            replace(face, landmarks=mesh[0], blendshapes=mesh[1]) if mesh else face
            for face, mesh in zip(faces, meshes, strict=True)
        ]
        return frame, drop_duplicates(found), thumbnail(frame.image)

    def add(self, frame: Frame, faces: list[Face], small: UInt8) -> None:
        """Take the next frame."""
        cut = self._cut_finder.add(small)
        if cut:
            self.cuts.append(frame.index)
            self._before = []
        sightings = [self._sample(frame, face) for face in faces]
        for track in self.tracker.add(frame.index, sightings, cut):
            face = self._recover(frame, track, faces)
            if face is not None:
                faces.append(face)
                track.add(frame.index, self._sample(frame, face))
        self._before = faces
        self.frames += 1

    def _sample(self, frame: Frame, face: Face) -> Sighting:
        """Embed a face every few frames and whenever its mesh was not known just before."""
        if face.landmarks is None:
            return Sighting(face)
        known = any(f.landmarks is not None and box_iou(f.box, face.box) > 0.3 for f in self._before)
        if known and frame.index % SAMPLE_EVERY:
            return Sighting(face)
        embedding = self._embed(frame.image, face.landmarks)
        return Sighting(
            replace(face, embedding=embedding),
            skin_tone(frame.image, face.landmarks),
            look(aligned_crop(frame.image, face.landmarks)),
        )

    def _recover(self, frame: Frame, track: Tracklet, faces: list[Face]) -> Face | None:
        """Look for the mesh where a face that no detector sees should be."""
        height, width = frame.image.shape[:2]
        box = np.clip(track.expected(frame.index), 0, np.array([width - 1, height - 1] * 2, np.float32))
        if (box[2:] - box[:2]).min() < 4 or any(box_iou(box, face.box) > 0.3 for face in faces):
            return None
        (mesh,) = self._landmark(frame.image, [box])
        return Face(box, 0.0, *mesh) if mesh else None


def skin_tone(image: UInt8, landmarks: Float) -> Float:
    """Return the median CIE Lab colour (float32 (3,), L 0..100) of the cheeks and the forehead.

    Args:
        image: uint8 RGB (h, w, 3).
        landmarks: float32 (478, 2), pixels.
    """
    import cv2

    height, width = image.shape[:2]
    x0, y0 = np.clip(np.floor(landmarks.min(axis=0)).astype(int), 0, [width - 1, height - 1])
    x1, y1 = np.clip(np.ceil(landmarks.max(axis=0)).astype(int) + 1, [x0 + 1, y0 + 1], [width, height])
    region = image[y0:y1, x0:x1]
    mask = np.zeros(region.shape[:2], np.uint8)
    corner = np.array([x0, y0], np.float32)
    for polygon in SKIN_POLYGONS:
        cv2.fillPoly(mask, [np.round(landmarks[list(polygon)] - corner).astype(np.int32)], 1)
    pixels = region[mask > 0]
    if not len(pixels):
        return np.array(UNKNOWN_SKIN_LAB, np.float32)
    lab = cv2.cvtColor(pixels[None].astype(np.float32) / 255, cv2.COLOR_RGB2LAB)[0]
    return np.asarray(np.median(lab, axis=0), np.float32)


def _finish(
    tracklets: list[Tracklet], watcher: _Watcher, settings: Settings
) -> tuple[list[Track], dict[int, Profile]]:
    """Densify, smooth and link tracks, and describe the persons."""
    rate, track_settings = watcher.rate, settings.track
    shots = [0, *watcher.cuts, watcher.frames]
    embeddings = [_mean_embedding([track]) for track in tracklets]
    persons = list(range(len(tracklets)))
    if track_settings.link:
        persons = link(embeddings, [(track.start, track.last) for track in tracklets])
    profiles = {
        person: _profile([t for t, p in zip(tracklets, persons, strict=True) if p == person])
        for person in sorted(set(persons))
    }
    tracks = []
    for number, person in enumerate(persons):
        tracklet = tracklets[number]
        shot = int(np.searchsorted(shots, tracklet.start, side="right")) - 1
        extend = round(track_settings.extend_s * rate)
        dense = densify(tracklet, extend, shots[shot], shots[shot + 1])
        detected = dense.origin == Origin.DETECTED
        fill_short(dense.landmarks, detected)
        fill_short(dense.blendshapes, detected)
        sigma = track_settings.smooth_s * rate
        landmarks, crops = smooth_landmarks(dense.landmarks, sigma)
        tracks.append(
            Track(
                id=number,
                person=person,
                start=dense.start,
                boxes=smooth_boxes(dense.boxes, sigma),
                scores=dense.scores,
                origin=dense.origin,
                landmarks=landmarks,
                blendshapes=dense.blendshapes,
                crop_from_frame=crops,
            )
        )
        tracklet.sightings.clear()  # a long video holds every mesh once, not twice
    return tracks, profiles


def _frontal(landmarks: Float) -> float:
    """Return 1 for a face seen from the front, towards 0 for a profile."""
    left, nose, right = landmarks[[234, 1, 454]]
    near, far = sorted((float(np.hypot(*(nose - left))), float(np.hypot(*(nose - right)))))
    return near / max(far, 1e-6)


def _mean_embedding(tracks: list[Tracklet]) -> Float | None:
    """Return the mean embedding of some tracks, frontal views counting most, or None without any."""
    total = np.zeros(EMBEDDING_SIZE, np.float32)
    for track in tracks:
        for sighting in track.sightings.values():
            face = sighting.face
            if face.embedding is not None and face.landmarks is not None:
                total += face.embedding * _frontal(face.landmarks) ** 2
    norm = float(np.linalg.norm(total))
    return total / np.float32(norm) if norm > 0 else None


def _profile(tracks: list[Tracklet]) -> Profile:
    """Describe a person; one whose mesh was never found gets a neutral profile (and is only obscured)."""
    skins = [s.skin_lab for track in tracks for s in track.sightings.values() if s.skin_lab is not None]
    skin = np.median(skins, axis=0) if skins else np.array(UNKNOWN_SKIN_LAB)
    embedding = _mean_embedding(tracks)
    if embedding is None:
        embedding = np.zeros(EMBEDDING_SIZE, np.float32)
    looks = [s.look for track in tracks for s in track.sightings.values() if s.look is not None]
    mean_look = np.asarray(np.mean(looks, axis=0), np.float32) if looks else None
    return Profile(embedding, skin.astype(np.float32), mean_look)


def save_plan(plan: Plan, path: Path) -> None:
    """Write a plan as JSON; arrays are base64 of zlib of little-endian values.

    Raises:
        OutputError: the file cannot be written.
    """
    info = asdict(plan.info) | {
        "path": str(plan.info.path),
        "time_base": str(plan.info.time_base),
        "average_rate": str(plan.info.average_rate),
    }
    record = {
        "format": FORMAT,
        "version": VERSION,
        "info": info,
        "frames": plan.frames,
        "cuts": list(plan.cuts),
        "tracks": [_track_record(track) for track in plan.tracks],
        "identities": {str(person): _identity_record(code) for person, code in plan.identities.items()},
        "spares": {str(person): list(map(_identity_record, codes)) for person, codes in plan.spares.items()},
        "settings": plan.settings,
        "notes": list(plan.notes),
    }
    temporary = temporary_path(path)
    try:
        temporary.write_text(json.dumps(record, indent=1), encoding="utf-8")
        publish(temporary, path)
    except OSError as error:
        if isinstance(error, OutputError):
            raise
        raise OutputError(
            f"plan {path} cannot be written ({error.strerror}); free space or choose another with -o"
        ) from error
    finally:
        discard(temporary)


def load_plan(path: Path) -> Plan:
    """Read a plan.

    Raises:
        SettingsError: the file is missing, is no plan, or does not fit together.
    """
    try:
        record = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise SettingsError(
            f"plan {path} cannot be read as JSON; make it again with 'vidanon plan'"
        ) from error
    try:
        return _plan_from(record)
    except (
        KeyError,
        TypeError,
        ValueError,
        ArithmeticError,
        AttributeError,
        binascii.Error,
        zlib.error,
    ) as error:
        reason = " ".join(f"{type(error).__name__}: {error}".split())[:200]
        raise SettingsError(
            f"plan {path} is not valid ({reason}); make it again with 'vidanon plan'"
        ) from error


TRACK_FIELDS: dict[str, tuple[str, tuple[int, ...]]] = {
    "boxes": ("<f4", (4,)),
    "scores": ("<f4", ()),
    "origin": ("<u1", ()),
    "landmarks": ("<f4", (478, 2)),
    "blendshapes": ("<f4", (52,)),
    "crop_from_frame": ("<f4", (2, 3)),
}


def _pack(array: Any, kind: str) -> str:
    return base64.b64encode(zlib.compress(np.ascontiguousarray(array, np.dtype(kind)).tobytes())).decode()


def _unpack(text: str, kind: str, shape: tuple[int, ...]) -> Any:
    size = int(np.prod(shape)) * np.dtype(kind).itemsize
    data = zlib.decompressobj().decompress(base64.b64decode(text, validate=True), size + 1)
    if len(data) != size:
        raise ValueError(f"an array does not have the shape {shape}")
    return np.frombuffer(data, np.dtype(kind)).reshape(shape).astype(np.dtype(kind).newbyteorder("="))


def _track_record(track: Track) -> dict[str, Any]:
    arrays = {name: _pack(getattr(track, name), kind) for name, (kind, _) in TRACK_FIELDS.items()}
    return {"id": track.id, "person": track.person, "start": track.start, "length": len(track), **arrays}


def _identity_record(code: IdentityCode) -> dict[str, Any]:
    w = None if code.w is None else _pack(code.w, "<f4")
    return {"name": code.name, "vector": _pack(code.vector, "<f4"), "w": w}


def _check(condition: bool, message: str) -> None:
    if not condition:
        raise ValueError(message)


def _plan_from(record: dict[str, Any]) -> Plan:
    _check(record["format"] == FORMAT and record["version"] == VERSION, "another format or version")
    frames = int(record["frames"])
    cuts = tuple(int(cut) for cut in record["cuts"])
    _check(frames > 0 and all(0 < cut < frames for cut in cuts), "frames and cuts do not fit")
    _check(list(cuts) == sorted(set(cuts)), "cuts are not in order")
    tracks = tuple(_track_from(item, frames) for item in record["tracks"])
    _check(len({track.id for track in tracks}) == len(tracks), "two tracks have the same id")
    identities = {int(person): _identity_from(item) for person, item in record["identities"].items()}
    for track in tracks:
        _check(track.person in identities, f"track {track.id}: person {track.person} has no identity")
    return Plan(
        info=_info_from(record["info"]),
        frames=frames,
        cuts=cuts,
        tracks=tracks,
        identities=identities,
        settings={str(name): dict(section) for name, section in record["settings"].items()},
        notes=tuple(str(note) for note in record["notes"]),
        spares={
            int(person): tuple(_identity_from(item) for item in items)
            for person, items in record.get("spares", {}).items()
        },
    )


def _info_from(item: dict[str, Any]) -> VideoInfo:
    exact = {"time_base": Fraction(item["time_base"]), "average_rate": Fraction(item["average_rate"])}
    info = VideoInfo(**(item | {"path": Path(item["path"])} | exact))
    _check(
        info.width > 0 and info.height > 0 and info.time_base > 0, "the size or the time base is not positive"
    )
    return info


def _track_from(item: dict[str, Any], frames: int) -> Track:
    number, start, length = int(item["id"]), int(item["start"]), int(item["length"])
    _check(start >= 0 and length > 0 and start + length <= frames, f"track {number} leaves the video")
    arrays = {name: _unpack(item[name], kind, (length, *rest)) for name, (kind, rest) in TRACK_FIELDS.items()}
    _check(bool(np.isfinite(arrays["boxes"]).all()), f"track {number} has a box that is not finite")
    _check(int(arrays["origin"].max()) <= max(Origin), f"track {number} has an unknown origin")
    return Track(id=number, person=int(item["person"]), start=start, **arrays)


def _identity_from(item: dict[str, Any]) -> IdentityCode:
    vector = _unpack(item["vector"], "<f4", (EMBEDDING_SIZE,))
    _check(abs(float(np.linalg.norm(vector)) - 1) < 1e-2, f"identity {item['name']} is not of unit length")
    w = None if item["w"] is None else _unpack(item["w"], "<f4", (512,))
    return IdentityCode(name=str(item["name"]), vector=vector, w=w)
