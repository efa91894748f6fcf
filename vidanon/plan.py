"""Analysis: who is where in a video, and which new face each person gets."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from vidanon.errors import InputError
from vidanon.geometry import pixels_around
from vidanon.identity.cast import open_cast
from vidanon.identity.choose import Profile, choose, load_key, mean_vector, spares
from vidanon.identity.embed import SFace
from vidanon.identity.look import LookEncoder
from vidanon.identity.shade import brow_depths
from vidanon.identity.sources import with_sources
from vidanon.identity.views import frontality
from vidanon.networks.runtime import resolve_device
from vidanon.progress import Meter
from vidanon.stages.decode import Decoder
from vidanon.stages.detect import FaceDetector
from vidanon.stages.follow import Looker, in_groups, with_next
from vidanon.stages.landmark import Landmarker, box_iou, mesh_box
from vidanon.stages.mesh import SKIN_PATCHES
from vidanon.stages.select import Selection, forced_track, parse_selection, read_person
from vidanon.stages.smooth import fill, fill_meshes, short_gaps, smooth_boxes, smooth_landmarks
from vidanon.stages.stills import is_stills
from vidanon.stages.track import (
    CutFinder,
    Sighting,
    Tracker,
    Tracklet,
    densify,
    link,
    shot_of,
    waits_at_border,
)
from vidanon.stages.workers import ordered_map, worker_pool
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

SAMPLE_EVERY = 5  # frames between two embeddings of a face
BORDER_WAIT_S = 1.0  # so long somebody at the border of the frame is covered until found there again
UNKNOWN_SKIN_LAB = (65.0, 12.0, 16.0)  # a medium tone, for a person whose skin was never seen


@dataclass(frozen=True, slots=True)
class Seen:
    """What a video shows, before anybody gets a new face; held in memory only.

    Attributes:
        info: of the video.
        frames: decoded.
        cuts: first frames of all shots but the first.
        tracks: of everyone who gets a new face or is obscured.
        left: tracks of those who are left as they are.
        profiles: of everyone in ``tracks``.
        notes: what a reader should know.
    """

    info: VideoInfo
    frames: int
    cuts: tuple[int, ...]
    tracks: tuple[Track, ...]
    left: tuple[Track, ...]
    profiles: dict[int, Profile]
    notes: tuple[str, ...]


def analyse(
    source: Path,
    settings: Settings,
    models: ModelStore,
    progress: Meter | None = None,
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
        The plan, with those whom it replaces, who are kept in memory only.

    Raises:
        InputError: the source cannot be read or holds no frame, or a reference picture shows no face.
        ModelsError: a model is missing.
        SettingsError: the key file, the cast or a region cannot be used.
    """
    key, cast = load_key(settings.identity.key_file), open_cast(settings.identity)
    barred = [] if cast is None else cast.codes()
    seen = look_at(source, settings, models, progress)
    identities = choose_faces(seen.profiles) if choose_faces else choose(seen.profiles, key, barred)
    plan = Plan(
        info=seen.info,
        frames=seen.frames,
        cuts=seen.cuts,
        tracks=seen.tracks,
        identities=identities,
        settings=asdict(settings),
        notes=seen.notes,
        spares=spares(seen.profiles, key, identities, barred),
        left=seen.left,
    )
    plan = with_sources(source, plan, models, settings.runtime)
    return plan if cast is None else cast.apply(plan)


def look_at(
    source: Path,
    settings: Settings,
    models: ModelStore,
    progress: Meter | None = None,
) -> Seen:
    """Find, track, link and describe everyone in a video; arguments and errors as of :func:`analyse`."""
    selection = parse_selection(settings.select)
    workers = settings.runtime.workers
    with Decoder(source, exact=False) as video, worker_pool(workers) as pool:
        watcher = _Watcher(settings, models, video.info)
        selection = watcher.with_persons(selection)
        groups = in_groups(video, settings.detect.every)
        begun = ordered_map(pool, watcher.looker.begin, groups, workers)
        for seen in ordered_map(pool, watcher.looker.complete, with_next(begun), workers):
            for frame, faces, small in seen:
                watcher.add(frame, faces, small)
                if progress is not None:
                    progress(watcher.frames, video.info.frame_count)
        info, notes = video.info, video.notes
    if not watcher.frames:
        raise InputError(f"{source}: no frame could be decoded; check the file with ffprobe")
    tracks, left, profiles = _finish(watcher.tracker.finish(), watcher, settings, selection)
    notes += selection.notes(len({track.person for track in left}))
    cuts = tuple(watcher.cuts)
    return Seen(info, watcher.frames, cuts, tuple(tracks), tuple(left), profiles, notes)


class _Watcher:
    """Holds what looks at frames on worker threads, and collects what was seen in order."""

    def __init__(self, settings: Settings, models: ModelStore, info: VideoInfo) -> None:
        workers = settings.runtime.workers
        self._detect = FaceDetector(models, settings.detect, workers)
        self._landmark = Landmarker(models, workers)
        self.looker = Looker(self._detect, self._landmark)
        self._embed = SFace(models, workers)
        self._look = LookEncoder(models, resolve_device(settings.runtime.device), workers)
        self._settings, self.info = settings, info
        self.times_s: list[float] = []
        self.rate = float(info.average_rate) or 25.0
        self.tracker = Tracker(round(settings.track.max_gap_s * self.rate))
        self.frames = 0
        self.cuts: list[int] = []
        self._cut_finder = CutFinder(photographs=is_stills(info.path))
        self._before: list[Face] = []

    @property
    def size(self) -> tuple[int, int]:
        """Width and height of the frames, pixels."""
        return self.info.width, self.info.height

    def with_persons(self, selection: Selection) -> Selection:
        """Return the selection with the embeddings of the reference pictures, which are never stored.

        Raises:
            InputError: a picture shows no face, or several.
        """
        keep, only = self._settings.select.keep_person, self._settings.select.only_person
        return replace(
            selection,
            keep=self._person_in(Path(keep)) if keep else None,
            only=self._person_in(Path(only)) if only else None,
        )

    def _person_in(self, path: Path) -> Float:
        image = read_person(path)
        boxes = [face.box for face in self._detect(image)]
        meshes = [mesh[0] for mesh in self._landmark(image, boxes) if mesh is not None]
        if len(meshes) != 1:
            raise InputError(
                f"{path}: shows {len(meshes)} faces that can be told apart; give one with one face"
            )
        return self._embed(image, meshes[0])

    def add(self, frame: Frame, faces: list[Face], small: UInt8) -> None:
        """Take the next frame."""
        self.times_s.append(float(frame.pts * self.info.time_base))
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
            self._look(frame.image, face.landmarks),
            brow_depths(frame.image, face.landmarks),
        )

    def _recover(self, frame: Frame, track: Tracklet, faces: list[Face]) -> Face | None:
        """Look for the mesh where a face that no detector sees should be."""
        if not track.may_be_recovered():
            return None
        height, width = frame.image.shape[:2]
        box = np.clip(track.expected(frame.index), 0, np.array([width - 1, height - 1] * 2, np.float32))
        if (box[2:] - box[:2]).min() < 4 or any(box_iou(box, face.box) > 0.3 for face in faces):
            return None
        tilt = track.sightings[track.last].face.tilt
        (mesh,) = self._landmark(frame.image, [box], [tilt])
        return Face(mesh_box(mesh[0]), 0.0, *mesh, tilt=tilt) if mesh else None


def skin_tone(image: UInt8, landmarks: Float) -> Float:
    """Return the median CIE Lab colour (float32 (3,), L 0..100) of the cheeks and the forehead.

    Args:
        image: uint8 RGB (h, w, 3).
        landmarks: float32 (478, 2), pixels.
    """
    import cv2

    (x0, y0), (x1, y1) = pixels_around(landmarks, image.shape)
    region = image[y0:y1, x0:x1]
    mask = np.zeros(region.shape[:2], np.uint8)
    corner = np.array([x0, y0], np.float32)
    for polygon in SKIN_PATCHES:
        cv2.fillPoly(mask, [np.round(landmarks[list(polygon)] - corner).astype(np.int32)], 1)
    pixels = region[mask > 0]
    if not len(pixels):
        return np.array(UNKNOWN_SKIN_LAB, np.float32)
    lab = cv2.cvtColor(pixels[None].astype(np.float32) / 255, cv2.COLOR_RGB2LAB)[0]
    return np.asarray(np.median(lab, axis=0), np.float32)


def _finish(
    tracklets: list[Tracklet], watcher: _Watcher, settings: Settings, selection: Selection
) -> tuple[list[Track], list[Track], dict[int, Profile]]:
    """Densify, smooth and link tracks, describe the persons, and set aside those who are left as they are."""
    track_settings = settings.track
    embeddings = [_mean_embedding([track]) for track in tracklets]
    persons = list(range(len(tracklets)))
    if track_settings.link:
        persons = link(embeddings, [(track.start, track.last) for track in tracklets])
    profiles = {
        person: _profile([t for t, p in zip(tracklets, persons, strict=True) if p == person])
        for person in sorted(set(persons))
    }
    times_s = np.array(watcher.times_s, np.float32)
    waits = waits_at_border(tracklets, round(BORDER_WAIT_S * watcher.rate), watcher.size)
    tracks: dict[int, list[Track]] = {}
    sure = {person for track, person in zip(tracklets, persons, strict=True) if track.is_sure()}
    for number, person in enumerate(persons):
        track = _track(number, person, tracklets[number], watcher, settings, waits[number], person in sure)
        tracks.setdefault(person, []).append(track)
    left = []
    for person, mine in list(tracks.items()):
        seen = profiles[person].embedding if profiles[person].embedding.any() else None
        if not selection.treats([(t.boxes, times_s[t.start : t.end]) for t in mine], seen):
            left += tracks.pop(person)
            del profiles[person]
    treated = sorted((track for mine in tracks.values() for track in mine), key=lambda track: track.id)
    for region in selection.obscured:
        forced = forced_track(len(persons) + len(treated), region, times_s, watcher.size)
        if forced is not None:
            treated.append(forced)
            profiles[forced.person] = _profile([])
    return treated, left, profiles


def _track(
    number: int,
    person: int,
    tracklet: Tracklet,
    watcher: _Watcher,
    settings: Settings,
    wait: int,
    is_sure: bool,
) -> Track:
    """Make the dense, smooth track of a tracklet, and forget the tracklet's sightings.

    Where it is not sure that it shows a person, it has no mesh: it will be obscured, and no face be drawn.
    """
    shot = shot_of(tracklet.start, watcher.cuts, watcher.frames)
    extend = round(settings.track.extend_s * watcher.rate)
    dense = densify(tracklet, extend, shot.start, shot.stop, watcher.size, wait)
    if not is_sure:
        dense.landmarks[:] = dense.blendshapes[:] = np.nan
    detected = dense.origin == Origin.DETECTED
    gaps = short_gaps(dense.landmarks, dense.boxes, detected)
    fill_meshes(dense.landmarks, dense.boxes, gaps)
    fill(dense.blendshapes, gaps)
    sigma = settings.track.smooth_s * watcher.rate
    landmarks, crops = smooth_landmarks(dense.landmarks, sigma)
    tracklet.sightings.clear()  # a long video holds every mesh once, not twice
    return Track(
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


def _mean_embedding(tracks: list[Tracklet]) -> Float | None:
    """Return the mean embedding of some tracks, frontal views counting most, or None without any."""
    total = np.zeros(EMBEDDING_SIZE, np.float32)
    for track in tracks:
        for sighting in track.sightings.values():
            face = sighting.face
            if face.embedding is not None and face.landmarks is not None:
                total += face.embedding * frontality(face.landmarks) ** 2
    norm = float(np.linalg.norm(total))
    return total / np.float32(norm) if norm > 0 else None


def _profile(tracks: list[Tracklet]) -> Profile:
    """Describe a person; one whose mesh was never found gets a neutral profile (and is only obscured)."""
    seen = [sighting for track in tracks for sighting in track.sightings.values()]
    skin = mean_vector([s.skin_lab for s in seen], np.median)
    embedding = _mean_embedding(tracks)
    return Profile(
        embedding=np.zeros(EMBEDDING_SIZE, np.float32) if embedding is None else embedding,
        skin_lab=np.array(UNKNOWN_SKIN_LAB, np.float32) if skin is None else skin,
        look=mean_vector([s.look for s in seen]),
        brows=mean_vector([s.brows for s in seen]),
    )
