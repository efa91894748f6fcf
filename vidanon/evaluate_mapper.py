"""Measure the learned map: the paper's figures on generated faces that training never saw, and on real ones.

Every output is a generated picture of one identity with the attributes of another picture. SFace took part
in training, EdgeFace and dlib did not; all say how far identity and attributes were told apart.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from tqdm import tqdm

from vidanon.bars import MAPPER_BARS, judge
from vidanon.errors import InputError, UnsafeError
from vidanon.evaluate import VIDEO_SUFFIXES
from vidanon.figures import (
    Seen,
    cross_figures,
    group_means,
    groups_of,
    likeness_figures,
    same_figures,
    w_figures,
)
from vidanon.geometry import apply, unit_crop_from_frame
from vidanon.identity.away import led_away
from vidanon.identity.bank import Bank, load_bank
from vidanon.identity.choose import Profile, choose
from vidanon.identity.keep import Aim, Keeper
from vidanon.identity.look import LookEncoder
from vidanon.identity.shade import brow_depths
from vidanon.mixing import HeadFinder
from vidanon.models.registry import sha256_of
from vidanon.networks.mapper import load_attribute_mapper
from vidanon.networks.runtime import network_from_module
from vidanon.plan import skin_tone
from vidanon.recognisers import load_recognisers
from vidanon.settings import RuntimeSettings
from vidanon.stages.decode import Decoder
from vidanon.stages.head_pose import HeadPose, angle_deg
from vidanon.stages.landmark import Landmarker
from vidanon.stages.stills import STILL_SUFFIXES
from vidanon.stages.synthesize import as_input, cut_face
from vidanon.stages.workers import one_thread_each, ordered_map
from vidanon.training.ceiling import MIN_SAMPLES, descend
from vidanon.training.data import (
    CROP_PX,
    FACE_BOX,
    PICTURE_PX,
    FaceReader,
    LatentSource,
    Samples,
    join,
    sample_of,
)
from vidanon.types import BLENDSHAPE_COUNT, EMBEDDING_SIZE, LANDMARK_COUNT, Float, Source, UInt8, View

if TYPE_CHECKING:
    from vidanon.models.registry import ModelStore

HELD_OUT_SEED = 90001
"""Training draws with small seeds; this one is for measuring only."""
TRUNCATION = (0.5, 1.0)
REFERENCE_DRAWS = 8192
PEOPLE = 50
ATTRIBUTE_SOURCES = 2
TIMED_CALLS = 60
CEILING_FACES = 12
CEILING_STOPS = (0, 10, 30, 80)
# Which strangers are chosen must not change from run to run, or the figures could not be compared.
_KEY = b"figures by apparent group"


@dataclass(frozen=True, slots=True)
class Subject:
    """A face that identity or attributes are taken from.

    Attributes:
        name: of the file; empty for generated faces.
        seen: what is read in its aligned picture.
        view: what the mapper takes of it.
        w: float32 (512,) of a generated face, or None.
    """

    name: str
    seen: Seen
    view: View
    w: Float | None = None


class Job(NamedTuple):
    """An output to make: what leads to the identity, and whose attributes."""

    aim: Aim
    attributes: Subject


class Bench:
    """The networks, and outputs made with them."""

    def __init__(self, models: ModelStore, weights: Path | None, workers: int) -> None:
        example = (
            np.zeros((1, 3, CROP_PX, CROP_PX), np.float32),
            np.zeros((1, EMBEDDING_SIZE), np.float32),
            np.zeros((1, BLENDSHAPE_COUNT), np.float32),
            np.zeros((1, LANDMARK_COUNT, 2), np.float32),
        )
        module = load_attribute_mapper(weights)
        self._mapper = network_from_module(module, example, workers=workers + 1)
        self._reader = FaceReader(models, workers)
        self._landmark = Landmarker(models, workers)
        self._embed = load_recognisers(models, workers)
        self.look = LookEncoder(models, "cpu", workers)
        self._pose = HeadPose(models)
        self._workers = workers
        runtime = RuntimeSettings(device="cpu", workers=workers)
        self.keeper = Keeper(self._map, self._reader.picture, self._landmark, models, runtime)

    def see(self, picture: UInt8) -> Seen | None:
        """Read an aligned picture, uint8 RGB (256, 256, 3); None where no face is found."""
        (mesh,) = self._landmark(picture, [FACE_BOX])
        if mesh is None:
            return None
        landmarks, blendshapes = mesh
        return Seen(
            picture,
            landmarks,
            blendshapes,
            {name: embed(picture, landmarks) for name, embed in self._embed.items()},
            self._pose(landmarks, PICTURE_PX, PICTURE_PX),
        )

    def picture(self, w: Float) -> UInt8:
        """Generate w (512,): uint8 RGB (256, 256, 3)."""
        return self._reader.picture(w)

    def subject(self, w: Float) -> Subject | None:
        """Make the subject of a latent (512,)."""
        picture = self._reader.picture(w)
        seen = self.see(picture)
        if seen is None:
            return None
        return Subject("", seen, _view(picture, unit_crop_from_frame(seen.landmarks), seen), w)

    def _map(self, crop: Float, identity: Float, blendshapes: Float, landmarks: Float) -> Float:
        inputs = (crop, identity, blendshapes, landmarks)
        return np.asarray(self._mapper(*(x[None] for x in inputs))[0][0], np.float32)

    def latent(self, identity: Float, attributes: Subject) -> Float:
        """Map an identity (128,) and the attributes of a subject to w (512,)."""
        view = attributes.view
        return self._map(as_input(view.crop), identity, view.blendshapes, view.landmarks)

    def source(self, subject: Subject) -> Source:
        """Return a subject as somebody who is replaced."""
        seen = subject.seen
        return Source(seen.sface, self.look(seen.picture, seen.landmarks), (subject.view,))

    def job(self, asked: Float, attributes: Subject, nearer: bool = False) -> Job:
        """Return the output to make of an identity (128,); ``nearer``: led nearer as a face that is taken."""
        aim = Aim(asked)
        return Job(self.keeper.nearer(aim, [attributes.view], begin=True) if nearer else aim, attributes)

    def outputs(self, jobs: Sequence[Job], title: str) -> Iterator[tuple[Float, Seen | None]]:
        """Make and read the output of every job, in order: w and what is seen."""

        def make(job: Job) -> tuple[Float, Seen | None]:
            w = job.aim.lead(self.latent(job.aim.asked, job.attributes))
            return w, self.see(self._reader.picture(w))

        with ThreadPoolExecutor(self._workers) as pool:
            made = ordered_map(pool, make, jobs, 2 * self._workers)
            yield from tqdm(made, desc=title, total=len(jobs), unit="face", disable=None)

    def ms_per_face(self, subject: Subject) -> float:
        """Return the median time of attribute encoder and mapper for one face, milliseconds."""
        spent = []
        for _ in range(TIMED_CALLS):
            begin = time.perf_counter()
            self.latent(subject.seen.sface, subject)
            spent.append(time.perf_counter() - begin)
        return round(1000 * float(np.median(spent)), 2)


def _view(image: UInt8, crop_from_image: Float, seen: Seen) -> View:
    """Cut what the mapper takes of a face from an image of any size; ``seen`` is of its aligned picture."""
    aligned = apply(unit_crop_from_frame(seen.landmarks), seen.landmarks)
    return View(cut_face(image, crop_from_image), seen.blendshapes, aligned)


def images_in(folder: Path, most: int) -> Iterator[tuple[str, UInt8]]:
    """Yield name and image of pictures, and of frames of videos, in a folder: evenly, ``most`` or fewer.

    Raises:
        InputError: the folder is missing, holds neither, or a file cannot be read.
    """
    if not folder.is_dir():
        raise InputError(f"{folder}: no such folder; give a folder with pictures of faces, or clips")
    known = (*STILL_SUFFIXES, *VIDEO_SUFFIXES)
    files = sorted(path for path in folder.iterdir() if path.suffix.lower() in known)
    if not files:
        raise InputError(f"{folder}: neither pictures nor videos in it; give a folder with faces")
    for index in np.linspace(0, len(files) - 1, min(most, len(files))).astype(int):
        path = files[index]
        with Decoder(path) as frames:
            count = frames.info.frame_count
            wanted = np.linspace(0, max(count - 1, 0), max(most // len(files), 1)).astype(int)
            yield from ((path.name, frame.image) for frame in frames if frame.index in wanted)


def real_subjects(images: Iterable[tuple[str, UInt8]], bench: Bench, models: ModelStore) -> Iterator[Subject]:
    """Yield the largest face of every image, where there is one."""
    finder = HeadFinder(models)
    for name, image in images:
        faces = finder.faces(image)
        if not faces or faces[0].landmarks is None:
            continue
        crop_from_picture = unit_crop_from_frame(faces[0].landmarks)
        seen = bench.see(cut_face(image, crop_from_picture, PICTURE_PX))
        if seen is not None:
            yield Subject(name, seen, _view(image, crop_from_picture, seen))


def ceiling(
    subjects: list[Subject], made: Float, latents: LatentSource, bench: Bench, models: ModelStore
) -> list[dict[str, Any]]:
    """Return the ``cross`` figures of a few pairs after a descent on w from what the mapper made of them.

    Args:
        subjects: as given to :func:`both_figures` with a shift of 1.
        made: the latents that it returned.
        latents: gives the spread of w.
        bench: reads the results.
        models: where the networks are.
    """
    few = min(CEILING_FACES, len(subjects) - 1)
    sources, others = subjects[:few], subjects[1 : few + 1]
    bar = tqdm(total=CEILING_STOPS[-1], desc="descent on w", unit="step", disable=None)
    found = descend(
        made[:few],
        _samples(subjects),
        np.stack([subject.seen.sface for subject in others]),
        (latents.mean, latents.std),
        models,
        CEILING_STOPS,
        progress=lambda done: bar.update(done - bar.n),
    )
    rows = []
    for steps, w in zip(CEILING_STOPS, found, strict=True):
        seen = [bench.see(bench.picture(x)) for x in w]
        kept = [(a.seen, b.seen, o) for a, b, o in zip(sources, others, seen, strict=True) if o is not None]
        figures = cross_figures(*(list(column) for column in zip(*kept, strict=True)))
        rows.append({"steps": steps, "faces": len(kept)} | figures)
    return rows


def _samples(subjects: list[Subject]) -> Samples:
    """Put generated subjects together as training keeps them."""
    return join(
        [
            sample_of(s.w, s.seen.picture, s.seen.sface, s.seen.landmarks, s.seen.blendshapes)
            for s in subjects
            if s.w is not None
        ]
    )


def both_figures(
    subjects: list[Subject], bench: Bench, shift: int, title: str, nearer: bool = False
) -> tuple[dict[str, Any], Float]:
    """Return ``cross`` and ``same`` figures of subjects, and the latents of the cross outputs.

    Args:
        subjects: each gives attributes once and identity once.
        bench: makes the outputs.
        shift: the identity of subject ``i`` goes with the attributes of subject ``i - shift``.
        title: of the progress bars.
        nearer: lead every output nearer to its identity, see :meth:`vidanon.identity.keep.Keeper.nearer`.
    """

    def job(person: Subject, attributes: Subject) -> Job:
        return bench.job(person.seen.sface, attributes, nearer)

    others = subjects[shift:] + subjects[:shift]
    crossing = [job(b, a) for a, b in zip(subjects, others, strict=True)]
    crossed = list(bench.outputs(crossing, f"{title}, cross"))
    found = [
        (a.seen, b.seen, o) for a, b, (_, o) in zip(subjects, others, crossed, strict=True) if o is not None
    ]
    if not found:
        raise InputError(f"{title}: no output shows a face; the weights do not fit")
    cross = cross_figures(*(list(column) for column in zip(*found, strict=True)))
    remade = bench.outputs([job(a, a) for a in subjects], f"{title}, same")
    kept = [(a.seen, o) for a, (_, o) in zip(subjects, remade, strict=True) if o is not None]
    same = same_figures([a for a, _ in kept], [o for _, o in kept])
    lost = 2 * len(subjects) - len(found) - len(kept)
    return {"cross": cross, "same": same, "lost": lost}, np.stack([w for w, _ in crossed])


def diversity(subjects: Sequence[Subject], bench: Bench, seed: int) -> dict[str, Any]:
    """Return how alike people of the bank are when rendered with the same attributes.

    The same led nearer to them is ``nearer``, and what the mapper is asked for ``codes``.
    """
    bank = load_bank()
    people = np.random.default_rng(seed).choice(len(bank), PEOPLE, replace=False)
    asked = np.stack([led_away(bank.code(int(person)), None) for person in people])

    def likeness(title: str, nearer: bool = False) -> dict[str, Any]:
        rounds = []
        for subject in subjects[:ATTRIBUTE_SOURCES]:
            jobs = [bench.job(code, subject, nearer) for code in asked]
            rounds.append(np.stack([o.sface for _, o in bench.outputs(jobs, title) if o is not None]))
        return likeness_figures(rounds)

    nearer = likeness("diversity, led nearer", nearer=True)
    return likeness("diversity") | {"nearer": nearer, "people": PEOPLE, "codes": likeness_figures([asked])}


def by_group(subjects: Sequence[Subject], bench: Bench) -> dict[str, dict[str, Any]]:
    """Replace every labelled face as the product would, and return the figures per apparent group."""
    bank = load_bank()
    labelled = [subject for subject in subjects if groups_of(subject.name)]
    jobs, kept = [], []
    for subject in labelled:
        try:
            code = choose({0: _profile(subject.seen, bench)}, _KEY)[0]
        except UnsafeError:
            # Nobody in the bank is permitted: the product would obscure this face.
            continue
        aim = bench.keeper.aim(code, bench.source(subject))
        jobs.append(Job(aim, subject))
        kept.append(subject)
    rows = [
        _group_row(subject, output, bank, bench)
        for subject, (_, output) in zip(kept, bench.outputs(jobs, "by group"), strict=True)
        if output is not None
    ]
    return group_means(rows)


def _profile(seen: Seen, bench: Bench) -> Profile:
    face = seen.picture, seen.landmarks
    return Profile(seen.sface, skin_tone(*face), bench.look(*face), brow_depths(*face))


def _group_row(subject: Subject, output: Seen, bank: Bank, bench: Bench) -> dict[str, Any]:
    """Compare a labelled face with its replacement: likeness (wanted low) and what should stay."""
    seen = subject.seen
    before, after = (_profile(x, bench) for x in (seen, output))
    read_before, read_after = (bank.read(p.embedding, p.look) for p in (before, after))
    female = "female" in groups_of(subject.name)
    eyes = max(float(np.hypot(*(seen.landmarks[263] - seen.landmarks[33]))), 1.0)
    return {
        "groups": groups_of(subject.name),
        **seen.scores(output),
        "nme": float(np.linalg.norm(seen.landmarks - output.landmarks, axis=1).mean()) / eyes,
        "pose_error_deg": angle_deg(seen.turn, output.turn),
        "blendshape_mae": float(np.abs(seen.blendshapes - output.blendshapes).mean()),
        "sex_read_on_source": float((read_before.female > 0.5) == female),
        "sex_kept": float((read_after.female > 0.5) == female),
        "age_change_years": abs(read_after.age - read_before.age),
        "skin_change_lab": float(np.linalg.norm(before.skin_lab - after.skin_lab)),
    }


@one_thread_each()
def evaluate_mapper(
    models: ModelStore,
    weights: Path | None = None,
    faces: Path | None = None,
    samples: int = 256,
    seed: int = HELD_OUT_SEED,
    workers: int = 2,
    with_ceiling: bool = False,
) -> dict[str, Any]:
    """Measure an attribute mapper.

    Args:
        models: where the models are.
        weights: safetensors file; None: the weights of the package.
        faces: a folder with pictures or clips of real people; names of pictures as in UTKFace
            (``age_sex_race_...``) give figures by apparent group.
        samples: number of generated faces, and at most so many real ones, evenly taken.
        seed: of the generated faces; not one that training used.
        workers: threads.
        with_ceiling: show what a descent on w reaches on the same faces (minutes; at least 128 samples).

    Returns:
        ``generated``, ``nearer`` (the same, led nearer to the identity as the product does) and (with
        ``faces``) ``real``: ``cross`` and ``same`` figures, see :mod:`vidanon.figures`; ``w``: distance to
        the generator's latents; ``diversity``; ``speed``;
        ``groups``; ``ceiling``; ``bars``: the verdicts. Numbers only.

    Raises:
        InputError: fewer than two faces were found.
        ModelsError: a model, dlib or the weights are missing or unfit.
    """
    from mediapipe.tasks.python.vision.face_landmarker import Blendshapes

    bench = Bench(models, weights, workers)
    latents = LatentSource(models, TRUNCATION, seed)
    drawn = tqdm(latents.draw(0, samples), desc="draw", unit="face", disable=None)
    subjects = [subject for w in drawn if (subject := bench.subject(w)) is not None]
    if len(subjects) < 2:
        raise InputError(
            f"only {len(subjects)} of {samples} generated faces were found; ask for more samples"
        )
    if with_ceiling and len(subjects) < MIN_SAMPLES:
        raise InputError(f"{len(subjects)} faces do not show a ceiling; ask for --samples {2 * MIN_SAMPLES}")
    generated, made = both_figures(subjects, bench, 1, "generated")
    held_out = np.stack([subject.w for subject in subjects if subject.w is not None])
    results: dict[str, Any] = {
        "weights": "package" if weights is None else weights.name,
        "weights_sha256": None if weights is None else sha256_of(weights),
        "samples": samples,
        "seed": seed,
        "blendshape_names": [shape.name.lower() for shape in Blendshapes],
        "generated": generated,
        "nearer": both_figures(subjects, bench, 1, "led nearer", nearer=True)[0],
        "w": w_figures(made, held_out, latents.draw(1, REFERENCE_DRAWS)),
        "diversity": diversity(subjects, bench, seed),
        "speed": {"ms_per_face": bench.ms_per_face(subjects[0]), "calls": TIMED_CALLS},
    }
    if with_ceiling:
        results["ceiling"] = ceiling(subjects, made, latents, bench, models)
    if faces is not None:
        results |= _real_figures(faces, bench, models, samples)
    return results | {"bars": judge(results, MAPPER_BARS)}


def _real_figures(faces: Path, bench: Bench, models: ModelStore, most: int) -> dict[str, Any]:
    images = tqdm(images_in(faces, most), desc="faces", unit="picture", disable=None)
    subjects = list(real_subjects(images, bench, models))
    if len(subjects) < 2:
        raise InputError(f"{faces}: {len(subjects)} faces found in it; two or more are needed")
    # Half the folder apart, so that neighbours in name (one person, one video) are not paired.
    real, _ = both_figures(subjects, bench, len(subjects) // 2, "real")
    groups = by_group(subjects, bench)
    return {"real": real | {"faces": len(subjects)}} | ({"groups": groups} if groups else {})
