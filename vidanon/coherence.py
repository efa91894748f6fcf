"""One identity held over a video or an image sequence: the paper's temporal application.

The identity is given once, the attributes come from every frame; the result is the video of the aligned,
fully generated head, not put back into the frame. How constant the identity is gets measured before and
after: *local* is the mean similarity of adjacent frames, *global* that of all pairs of frames; TL-ID and
TG-ID are what the result reaches relative to the source (Tzaban et al. 2022, "Stitch it in Time", section 4).
"""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from vidanon.api import check_target, ensure_models
from vidanon.errors import InputError
from vidanon.geometry import apply
from vidanon.mixing import Head, Mixer, read_picture
from vidanon.stages.decode import Decoder
from vidanon.stages.encode import open_encoder
from vidanon.stages.landmark import box_iou
from vidanon.stages.smooth import smooth_landmarks
from vidanon.stages.synthesize import crop_face, smooth_latents
from vidanon.stages.target import discard, publish, temporary_path
from vidanon.stages.workers import ordered_map
from vidanon.types import BLENDSHAPE_COUNT, EMBEDDING_SIZE, LANDMARK_COUNT, Face, Float, Frame, UInt8

if TYPE_CHECKING:
    from vidanon.models.registry import ModelStore
    from vidanon.progress import Progress
    from vidanon.settings import Settings

NO_FACE_LEVEL = 128
"""Grey of the picture that stands for a frame without a face."""
_SAME_FACE_IOU = 0.2


@dataclass(frozen=True, slots=True)
class Person:
    """One person through all frames; rows are NaN where no face was found. Memory only.

    Attributes:
        landmarks: float32 (n, 478, 2), pixels.
        blendshapes: float32 (n, 52), 0..1.
        embeddings: float32 (n, 128), unit length.
    """

    landmarks: Float
    blendshapes: Float
    embeddings: Float

    @property
    def mean_identity(self) -> Float:
        """Mean embedding over the frames that show the face, unit length, float32 (128,)."""
        mean = np.nanmean(self.embeddings, axis=0)
        return np.asarray(mean / np.linalg.norm(mean), np.float32)


def coherence_figures(embeddings: Float) -> dict[str, float | None]:
    """Return how constant an identity is.

    Args:
        embeddings: float32 (n, 128), unit length, in the order of the frames; NaN rows without a face.

    Returns:
        ``local`` and ``global``: mean cosine similarity of adjacent frames and of all pairs; ``lowest``: of
        adjacent frames. None where there are fewer than two faces.
    """
    seen = np.isfinite(embeddings[:, 0])
    adjacent = (embeddings[1:] * embeddings[:-1]).sum(axis=1)[seen[1:] & seen[:-1]]
    count = int(seen.sum())
    total = float((embeddings[seen].astype(np.float64).sum(axis=0) ** 2).sum())
    return {
        "local": round(float(adjacent.mean()), 4) if len(adjacent) else None,
        "lowest": round(float(adjacent.min()), 4) if len(adjacent) else None,
        "global": round((total - count) / (count * (count - 1)), 4) if count > 1 else None,
    }


def hold_identity(
    source: Path,
    target: Path,
    identity: Path | None,
    settings: Settings,
    models: ModelStore,
    size: int = 512,
    progress: Progress | None = None,
) -> dict[str, Any]:
    """Write the video of a generated head with one fixed identity.

    Args:
        source: a video, or a folder of pictures in the order of their names; its largest face is followed.
        target: a video where the source is one, else a folder.
        identity: a picture of the person to show; None: the person's own identity, made constant. The result
            then shows a real person.
        settings: sections ``track`` (smoothing), ``encode`` and ``runtime`` are used.
        models: where the models are.
        size: side of the pictures, pixels: 128, 256, 512 or 1024.
        progress: called with (pass, frames done, frames in all).

    Returns:
        ``frames``, ``without_face``, ``before`` and ``after`` (:func:`coherence_figures`), ``tl_id`` and
        ``tg_id``: local and global figure after over before; ``to_identity``: mean similarity to the
        identity.

    Raises:
        InputError: a file cannot be read, or no face is found in it.
        OutputError, ModelsError, DeviceError: nothing was left at ``target``.
    """
    from vidanon.networks.runtime import resolve_device

    check_target(source, target)
    ensure_models(models, settings.runtime.device, progress)
    device, workers = resolve_device(settings.runtime.device), settings.runtime.workers
    mixer = Mixer(models, size, device, workers=workers)
    code = None if identity is None else mixer.head(read_picture(identity), str(identity)).identity
    job = _Job(source, mixer, settings, progress)
    person = job.watch()
    if not np.isfinite(person.embeddings).any():
        raise InputError(f"{source}: no face found in it; give a video that shows one clearly")
    code = person.mean_identity if code is None else code
    latents = job.latents(person, code)
    temporary = temporary_path(target)
    try:
        after = job.draw(latents, temporary, size)
        publish(temporary, target)
    finally:
        discard(temporary)
    figures = [coherence_figures(person.embeddings), coherence_figures(after)]
    return {
        "frames": len(latents),
        "without_face": sum(w is None for w in latents),
        "before": figures[0],
        "after": figures[1],
        "tl_id": _ratio(figures[1]["local"], figures[0]["local"]),
        "tg_id": _ratio(figures[1]["global"], figures[0]["global"]),
        "to_identity": round(float(np.nanmean(after @ code)), 4) if np.isfinite(after).any() else None,
    }


def _ratio(after: float | None, before: float | None) -> float | None:
    return None if after is None or not before else round(after / before, 4)


class _Job:
    """The three walks through the frames: watch, encode attributes, draw."""

    def __init__(self, source: Path, mixer: Mixer, settings: Settings, progress: Progress | None) -> None:
        self._source, self._mixer, self._settings, self._progress = source, mixer, settings, progress
        self._workers = settings.runtime.workers
        self._pts: list[int] = []
        self._rate = 25.0

    def watch(self) -> Person:
        """Follow the largest face."""
        rows: list[tuple[Float, Float, Float]] = []
        last: Float | None = None
        with Decoder(self._source) as video, ThreadPoolExecutor(self._workers) as pool:
            self._rate = float(video.info.average_rate) or self._rate
            for frame, faces in ordered_map(pool, self._look, video, self._workers + 1):
                self._pts.append(frame.pts)
                face = _followed(faces, last)
                if face is None or face.landmarks is None or face.blendshapes is None:
                    rows.append(_nothing())
                else:
                    last = face.box
                    head = self._mixer.finder.head(frame.image, face)
                    rows.append((face.landmarks, face.blendshapes, head.identity))
                self._tell("analyse", len(rows), video.info.frame_count)
        return Person(*(np.stack(column) for column in zip(*rows, strict=True)))

    def _look(self, frame: Frame) -> tuple[Frame, list[Face]]:
        return frame, self._mixer.finder.faces(frame.image)

    def latents(self, person: Person, code: Float) -> list[Float | None]:
        """Return w per frame, None where there is no face."""
        landmarks, crops = smooth_landmarks(person.landmarks, self._settings.track.smooth_s * self._rate)

        def encode(frame: Frame) -> Float | None:
            i = frame.index
            if not np.isfinite(crops[i]).all():
                return None
            aligned = apply(crops[i], landmarks[i])
            head = Head(crop_face(frame.image, crops[i]), aligned, person.blendshapes[i], code)
            return self._mixer.latent(code, self._mixer.attributes(head))

        found = []
        with Decoder(self._source) as video, ThreadPoolExecutor(self._workers) as pool:
            for w in ordered_map(pool, encode, video, self._workers + 1):
                found.append(w)
                self._tell("encode", len(found), len(self._pts))
        return found

    def draw(self, latents: list[Float | None], target: Path, size: int) -> Float:
        """Write the pictures of smoothed latents; return their embeddings (n, 128), NaN without a face."""
        embeddings: list[Float] = []
        with Decoder(self._source) as video, ThreadPoolExecutor(self._workers) as pool:
            info = replace(video.info, width=size, height=size, rotation_deg=0, bit_depth=8)
            with open_encoder(self._source, info, target, self._settings.encode) as encoder:
                jobs = (smooth_latents(latents, index) for index in range(len(latents)))
                for picture, embedding in ordered_map(pool, self._generate, jobs, self._workers + 1):
                    index = len(embeddings)
                    if picture is None:
                        picture = np.full((size, size, 3), NO_FACE_LEVEL, np.uint8)
                    encoder.write(Frame(index, self._pts[index], picture))
                    embeddings.append(embedding)
                    self._tell("render", len(embeddings), len(latents))
        return np.stack(embeddings)

    def _generate(self, w: Float | None) -> tuple[UInt8 | None, Float]:
        if w is None:
            return None, _nothing()[2]
        picture = self._mixer.picture(w)
        faces = self._mixer.finder.faces(picture)
        return picture, self._mixer.finder.head(picture, faces[0]).identity if faces else _nothing()[2]

    def _tell(self, name: str, done: int, total: int) -> None:
        if self._progress is not None:
            self._progress(name, done, total)


def _followed(faces: list[Face], last: Float | None) -> Face | None:
    """Return the face that continues ``last``, the largest one at first and after it was lost."""
    if not faces:
        return None
    if last is None:
        return faces[0]
    best = max(faces, key=lambda face: box_iou(face.box, last))
    return best if box_iou(best.box, last) > _SAME_FACE_IOU else faces[0]


def _nothing() -> tuple[Float, Float, Float]:
    shapes = (LANDMARK_COUNT, 2), (BLENDSHAPE_COUNT,), (EMBEDDING_SIZE,)
    mesh, blendshapes, embedding = (np.full(shape, np.nan, np.float32) for shape in shapes)
    return mesh, blendshapes, embedding
