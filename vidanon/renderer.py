"""The second pass: draw the plan.

    decode -> w per face -> smooth w -> new face and verdict -> hysteresis -> composite or obscure -> encode

Three maps over the same worker threads, each with a look-ahead of a few frames: memory does not grow with
the length of the video. Frames leave in the order in which they came. Where w moves slowly and evenly, only
the face of every second or fourth frame is generated, and those half way between are means.
"""

from __future__ import annotations

import copy
from collections.abc import Container, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from vidanon.errors import SettingsError
from vidanon.facework import Face, Work, half_way, outcome
from vidanon.geometry import apply, apply_each, compose, invert, picture_from_unit
from vidanon.identity.estrange import Placed, Scenes
from vidanon.identity.keep import Aim
from vidanon.identity.leads import Known, Leads
from vidanon.identity.settle import Drawn
from vidanon.identity.sources import with_sources
from vidanon.identity.teeth import teeth_of, with_teeth
from vidanon.models.registry import ModelStore
from vidanon.planfile import require_source
from vidanon.progress import Meter
from vidanon.rendersummary import RenderSummary
from vidanon.settings import Settings
from vidanon.stages import blend, brows, gate, obscure, segment, synthesize, warp, wrinkles
from vidanon.stages.outline import outline
from vidanon.stages.workers import one_thread_each, ordered_map, windowed, worker_pool
from vidanon.types import Float, Frame, IdentityCode, Plan, Track, UInt8

if TYPE_CHECKING:
    from vidanon.stages.encode import Encoder
    from vidanon.stages.stills import StillsEncoder


STEPS_FRAMES = (2, 1)
"""Half way between two frames that are so far away, a face may be their mean; in the second step also of one
that is a mean itself. Their index alone decides which these are, as parts of a video are drawn again."""
CONTEXT_FRAMES = synthesize.SMOOTH_REACH_FRAMES + sum(STEPS_FRAMES) + gate.HOLD_FRAMES
"""How a frame is drawn depends on so many frames before and after it."""


class Renderer:
    """Draws the faces of a plan; one instance per run."""

    def __init__(self, plan: Plan, settings: Settings, models: ModelStore, summary: RenderSummary) -> None:
        from vidanon.networks.runtime import resolve_device
        from vidanon.stages.landmark import Landmarker

        device = resolve_device(settings.runtime.device)
        self._plan, self._settings, self._summary = plan, settings, summary
        self._workers = settings.runtime.workers
        self._synthesizer = synthesize.Synthesizer(models, device, self._workers)
        self.landmarker = Landmarker(models, self._workers)
        self._leads: Leads | Known = Leads(plan.sources, self._synthesizer, self.landmarker, models, settings)
        self._estranges, self._settles = True, True
        self.part_reader = segment.PartReader(models, device, self._workers)
        self._exits = {
            track.id: synthesize.exit_for_face(track.crop_from_frame, settings.render.exit_px)
            for track in plan.tracks
        }
        self._cutouts = {track.id: _cutouts(track) for track in plan.tracks}
        shown = plan.sources.values() if settings.render.wrinkles else ()
        self._rests = {key: rest for source in shown for key, rest in source.rests.items()}
        self._prepare()

    def _prepare(self) -> None:
        """Load what draws the faces."""
        for track in self._plan.tracks:
            drawn = np.isfinite(track.crop_from_frame).all((1, 2))
            for cutout in {self._cutouts[track.id][offset] for offset in np.flatnonzero(drawn)}:
                self._synthesizer.prepare(self._exits[track.id], cutout)

    def previewing(
        self, identities: dict[int, IdentityCode], exit_px: int, estranges: bool = False
    ) -> Renderer:
        """Return a renderer that shares the networks and draws other people, no larger than ``exit_px``.

        It does not settle them: to see how takes as long as to draw some frames, and hides nobody. Nor does
        it, unless asked, lead them away from what is seen of the source: that takes longer.
        """
        twin = copy.copy(self)
        twin._estranges, twin._settles, twin._rests = estranges, False, {}
        twin._plan = replace(self._plan, identities=identities)
        twin._exits = {key: min(size, exit_px) for key, size in self._exits.items()}
        twin._prepare()
        return twin

    def _aim(self, person: int) -> Aim:
        """Return what leads to somebody's new face; found out when it is first asked for."""
        code = self._plan.identities[person]
        if self._settles:
            return self._leads.settled(person, code, self._on_scenes)
        return self._leads.aim(person, code, self._on_scenes if self._estranges else None)

    def _on_scenes(self, person: int, scenes: Scenes, aim: Aim) -> _Stage:
        """Return what draws somebody's new face on frames with who is replaced.

        Nothing of it depends on what of the person's tracks has been obscured since.
        """
        twin = copy.copy(self)
        tracks = [replace(track, id=number, start=number) for number, (_, track) in enumerate(scenes)]
        twin._plan, twin._summary = replace(self._plan, tracks=tuple(tracks)), RenderSummary()
        exit_px = synthesize.exit_for_face(np.concatenate([track.crop_from_frame for track in tracks]))
        twin._exits = {track.id: exit_px for track in tracks}
        twin._cutouts = {track.id: _cutouts(track) for track in tracks}
        twin._leads, twin._settles, twin._rests = Known(aim), False, {}
        twin._prepare()
        return _Stage(twin, [Frame(number, number, frame.image) for number, (frame, _) in enumerate(scenes)])

    def counting_anew(self) -> Renderer:
        """Return a renderer that shares the networks and has a summary of its own."""
        twin = copy.copy(self)
        twin._summary = RenderSummary()
        return twin

    def write(
        self,
        frames: Iterable[Frame],
        encoder: Encoder | StillsEncoder,
        span: range | None = None,
        progress: Meter | None = None,
    ) -> RenderSummary:
        """Draw consecutive frames and write them, or those of them whose index lies in ``span``.

        Args:
            frames: of a span, with ``CONTEXT_FRAMES`` more on either side as far as the video goes.
            encoder: where they go; open.
            span: indices of the frames to write.
            progress: called with (frames done, frames in all) after every frame.

        Returns:
            What was drawn.
        """
        summary, total = self._summary, self._plan.frames if span is None else len(span)
        with worker_pool(self._workers) as pool, one_thread_each():
            for frame, faces in self._drawn(pool, frames, span):
                with summary.timed("encode"):
                    shown = [face for face in faces.values() if face.show]
                    encoder.write(frame, [face.track.boxes[face.offset] for face in shown])
                summary.count(frame.index, *outcome(faces))
                if progress is not None:
                    progress(summary.frames, total)
        return summary

    def _drawn(
        self, pool: ThreadPoolExecutor, frames: Iterable[Frame], span: range | None
    ) -> Iterator[tuple[Frame, dict[int, Face]]]:
        """Yield each frame (of the span) with what was drawn in it, by track."""
        ahead = self._workers + sum(STEPS_FRAMES) + 1  # most of the frames in between take no time
        encoded = ordered_map(pool, self.encode_attributes, frames, ahead)
        smoothed = windowed(encoded, synthesize.SMOOTH_REACH_FRAMES, self.smooth)
        for step in STEPS_FRAMES:
            smoothed = windowed(smoothed, step, partial(self.mark, step))
        generated = ordered_map(pool, self.generate, smoothed, ahead)
        for step in STEPS_FRAMES:
            generated = windowed(generated, step, partial(self.fill_in, step))
        decided = windowed(generated, gate.HOLD_FRAMES, self.decide)

        def finish(work: Work) -> tuple[Frame, dict[int, Face]]:
            return self.composite(work), work.faces

        wanted = (work for work in decided if span is None or work.frame.index in span)
        yield from ordered_map(pool, finish, wanted, ahead)

    def still(self, frame: Frame, tracks: Container[int]) -> tuple[UInt8, dict[int, float]]:
        """Draw some tracks in one frame by itself, without regard to its neighbours.

        Returns:
            The picture, and for the tracks in it whose new face passed the gate how much of forehead
            or brows had to be cleared of new hair, 0..1; the others are obscured.
        """
        image, faces = self.alone(frame, tracks)
        hair = {}
        for key, face in faces.items():
            if face.show and face.picture is not None and face.landmarks is not None:
                assert face.parts is not None  # as for every face that is shown
                hair[key] = segment.fallen_hair(face.picture, face.landmarks, face.parts)
        return image, hair

    def alone(self, frame: Frame, tracks: Container[int]) -> tuple[UInt8, dict[int, Face]]:
        """Draw some tracks in one frame as :meth:`still` does; return the picture and what was drawn."""
        work = self.generate(self.encode_attributes(frame, tracks))
        for face in work.faces.values():
            face.show, face.bare = face.passes, face.is_bare([face.in_front], 0)
        return self.composite(work).image, work.faces

    def encode_attributes(self, frame: Frame, tracks: Container[int] | None = None) -> Work:
        """Find w for every face of a frame (or those of some tracks only) that has landmarks."""
        faces: dict[int, Face] = {}
        for track in self._plan.tracks:
            if not track.start <= frame.index < track.end or (tracks is not None and track.id not in tracks):
                continue
            offset = frame.index - track.start
            face = faces[track.id] = Face(track, offset)
            transform = track.crop_from_frame[offset]
            if np.isfinite(transform).all() and np.isfinite(track.blendshapes[offset]).all():
                with self._summary.timed("attributes"):
                    crop = synthesize.crop_face(frame.image, transform)
                    aim = self._aim(track.person)
                    landmarks = apply(transform, track.landmarks[offset].astype(np.float32))
                    blendshapes = track.blendshapes[offset].astype(np.float32)
                    told = aim.mien.told(blendshapes, landmarks)
                    face.w = aim.lead(self._synthesizer.latent(crop, aim.asked, *told))
                with self._summary.timed("segment"):
                    face.parts = self.part_reader.source(frame.image, crop, transform, landmarks)
                    face.in_front = segment.share_in_front(face.parts, landmarks)
        return Work(frame, faces)

    def smooth(self, window: list[Work], center: int) -> Work:
        """Replace w and parts of the centre frame by zero-phase means; the window itself stays as it is."""
        work = window[center]
        faces = {}
        for key, face in work.faces.items():
            series = [other.faces.get(key) for other in window]
            w, parts = (
                synthesize.smooth_latents([None if x is None else getattr(x, name) for x in series], center)
                for name in ("w", "parts")
            )
            faces[key] = replace(face, w=w, parts=parts)
        return Work(work.frame, faces)

    def mark(self, step: int, window: list[Work], center: int) -> Work:
        """Mark the faces that are, to the eye, the means of those ``step`` frames before and after."""
        for key, face, before, after in half_way(window, center, step):
            mean = synthesize.even_mean(before.w, face.w, after.w, self._exits[key])
            if mean is not None:
                face.between, face.w = True, mean
        return window[center]

    def generate(self, work: Work) -> Work:
        """Make the picture of every face that is not marked, and judge it."""
        for key, face in work.faces.items():
            if face.w is None or face.between:
                continue
            track, size = face.track, self._exits[key]
            source = track.landmarks[face.offset].astype(np.float32)
            cutout = self._cutouts[key][face.offset]
            with self._summary.timed("generate"):
                picture = self._synthesizer.picture(face.w, size, cutout)
            with self._summary.timed("landmarks"):
                picture_from_frame = compose(picture_from_unit(size), track.crop_from_frame[face.offset])
                face.landmarks = self.landmarker.mesh_around(picture, apply(picture_from_frame, source))
            with self._summary.timed("segment"):
                parts = self.part_reader.picture(picture)
            if face.landmarks is not None:
                again = partial(self._synthesizer.mouth, exit_px=size, cutout=cutout)
                wanted = teeth_of(work.frame.image, source)
                with self._summary.timed("generate"):
                    picture = with_teeth(picture, face.w, face.landmarks, wanted, again)
                picture = brows.darkened(picture, face.landmarks, self._aim(track.person).brow_gain)
            face.picture = segment.with_face_channel(picture, parts)
            self._judge(face)
        return work

    def fill_in(self, step: int, window: list[Work], center: int) -> Work:
        """Make the pictures of the marked faces from those ``step`` frames away, and judge them."""
        for _, face, before, after in half_way(window, center, step):
            if not face.between or before.picture is None or after.picture is None:
                continue
            with self._summary.timed("generate"):
                face.picture = synthesize.mean_picture(before.picture, after.picture)
            if before.landmarks is not None and after.landmarks is not None:
                face.landmarks = np.float32(0.5) * (before.landmarks + after.landmarks)
            self._judge(face)
        return window[center]

    def _judge(self, face: Face) -> None:
        error = None
        if face.landmarks is not None:
            error = warp.landmark_error(face.landmarks, face.track.landmarks[face.offset])
        face.passes = gate.face_passes(error, self._settings.render.gate_nme)

    def decide(self, window: list[Work], center: int) -> Work:
        """Decide between the new face and the obscuring mask, and what stays in front, with hysteresis."""
        work = window[center]
        for key, face in work.faces.items():
            near = [other.faces.get(key) for other in window]
            face.show = gate.shown([None if x is None else x.passes for x in near], center)
            in_front = [None if x is None else x.in_front for x in near]
            face.bare = face.is_bare(in_front, center)
        return work

    def composite(self, work: Work) -> Frame:
        """Draw the faces, far ones first, on a copy of the frame."""
        image = work.frame.image.copy()
        boxes = {key: face.track.boxes[face.offset] for key, face in work.faces.items()}
        for key in sorted(boxes, key=lambda k: float(boxes[k][3] - boxes[k][1])):
            face = work.faces[key]
            with self._summary.timed("composite"):
                if not face.show or self.draw(image, face) is None:
                    obscure.obscure(image, boxes[key])
                    face.show = False
        return replace(work.frame, image=image)

    def draw(self, image: UInt8, face: Face) -> tuple[Float, Float] | None:
        """Draw the new face into an image, uint8 RGB (h, w, 3).

        Returns:
            float32 (478, 2), where its landmarks came to lie, pixels, and (3,), how much more contrast the
            source is taken to have; None where it could not be drawn.
        """
        source = face.track.landmarks[face.offset].astype(np.float32)
        options = self._settings.render
        region = blend.region_of_interest(source, image.shape, options.mask_forehead, options.feather)
        if region is None or face.picture is None or face.landmarks is None or face.parts is None:
            return None
        crop_from_frame, aim = face.track.crop_from_frame[face.offset], self._aim(face.track.person)
        frame_from_crop = invert(crop_from_frame)[:, :2].T
        bend, shape = (x if x is None else x @ frame_from_crop for x in (aim.bend, aim.shape))
        target = warp.target_landmarks(face.landmarks, source, bend, shape)
        warped = warp.warp_to_frame(face.picture, face.landmarks, target, region)
        rest = self._rests.get(face.track.id)
        if rest is not None:
            look = wrinkles.Look(image, source, crop_from_frame, face.parts)
            share = face.share_of_wrinkles()
            warped, face.wrinkled = wrinkles.wrinkled(warped, region, look, target, rest, share)
        parts = segment.nothing_in_front(face.parts) if face.bare else face.parts
        mask = options.mask_forehead, options.feather
        looks = aim.beard, aim.contrast
        return target, blend.blend(image, warped, source, region, *mask, parts, crop_from_frame, *looks)


class _Stage:
    """One new face on some scenes; a frame's own number is its track's."""

    def __init__(self, renderer: Renderer, frames: list[Frame]) -> None:
        self._renderer, self._frames = renderer, frames
        self._faces: dict[int, Face] = {}

    def _face(self, number: int) -> Face:
        if number not in self._faces:
            work = self._renderer.generate(self._renderer.encode_attributes(self._frames[number]))
            face = self._faces[number] = work.faces[number]
            face.bare = face.is_bare([face.in_front], 0)
        return self._faces[number]

    def draw(self, number: int) -> Drawn | None:
        """Draw it; None where the gate lets nothing through."""
        image, face = self._frames[number].image.copy(), self._face(number)
        seen = self._renderer.draw(image, face) if face.passes else None
        if seen is None or face.landmarks is None:
            return None
        source = face.track.landmarks[face.offset].astype(np.float32)
        lacking = warp.lacking(face.landmarks, source) @ face.track.crop_from_frame[face.offset][:, :2].T
        return Drawn(image, *seen, lacking)

    def place(self, number: int) -> Placed | None:
        """Draw it and say where; None where the gate lets nothing through."""
        drawn, face = self.draw(number), self._face(number)
        if drawn is None or face.w is None or face.picture is None or face.landmarks is None:
            return None
        side = np.float32(len(face.picture))
        return Placed(face.w, drawn.picture, (face.landmarks + np.float32(0.5)) / side, drawn.landmarks)


def _cutouts(track: Track) -> list[synthesize.Cutout]:
    """Return, by offset, which cutout of the new face's picture is enough."""
    fits = synthesize.fit("close-up", apply_each(track.crop_from_frame, outline(track.landmarks)))
    return ["close-up" if fit else "whole" for fit in fits]


def render(
    source: Path,
    plan: Plan,
    target: Path,
    settings: Settings,
    models: ModelStore,
    progress: Meter | None = None,
) -> RenderSummary:
    """Write the video with new faces to ``target``.

    Args:
        source: the video the plan was made from.
        plan: who is where, and which new face each person gets.
        target: the file to write; the caller audits it and publishes it under its final name.
        settings: sections ``render``, ``encode`` and ``runtime`` are used.
        models: where the networks are.
        progress: called with (frames done, frames in all) after every frame.

    Raises:
        SettingsError: the plan does not fit the source.
        InputError, ModelsError, DeviceError, OutputError: see :mod:`vidanon.errors`.
    """
    from vidanon.stages.decode import Decoder
    from vidanon.stages.encode import open_encoder

    with Decoder(source) as decoder:
        require_source(plan, decoder.info)
        plan = with_sources(source, plan, models, settings.runtime)
        renderer = Renderer(plan, settings, models, RenderSummary())
        with open_encoder(source, decoder.info, target, settings.encode) as encoder:
            summary = renderer.write(decoder, encoder, progress=progress)
    summary.notes = tuple(encoder.notes)
    if summary.frames != plan.frames:
        raise SettingsError(
            f"{source} has {summary.frames} frames but the plan has {plan.frames}; make a new plan"
        )
    return summary
