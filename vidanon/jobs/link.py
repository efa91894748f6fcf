"""One new face per person over a whole folder.

All files are analysed first and the people in them compared by identity embedding. The embeddings live in
the memory of this run only and are forgotten before the first file is made. The price in privacy: whoever
sees several results can tell that they show the same person, and links what is said and done in them.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from vidanon.identity.choose import Profile, choose, mean_vector
from vidanon.jobs.executors import Executor, Report
from vidanon.jobs.job import Faces
from vidanon.jobs.scan import Found
from vidanon.progress import meter
from vidanon.settings import Settings
from vidanon.stages.track import link

if TYPE_CHECKING:
    from vidanon.types import Float

People = dict[int, Profile]


@dataclass(frozen=True, slots=True)
class Survey:
    """Finds the people of one file; work for an executor."""

    settings: Settings

    def __call__(self, found: Found, report: Report) -> People:
        """Return what is known of each person."""
        from vidanon.models.registry import ModelStore
        from vidanon.plan import look_at

        models = ModelStore(offline=self.settings.runtime.offline)
        seen = look_at(found.path, self.settings, models, meter(report, "link"))
        return seen.profiles


def set_digest(files: Sequence[Found]) -> str:
    """Return a digest of the files: another file may change who is linked with whom."""
    state = [(found.relative, found.size, found.mtime_ns) for found in files]
    return hashlib.sha256(json.dumps(state).encode()).hexdigest()[:32]


def survey(
    files: Sequence[Found], executor: Executor, settings: Settings
) -> tuple[dict[str, People], dict[str, str]]:
    """Analyse all files.

    Returns:
        The people of each file, and why others could not be analysed: without that, nobody knows whose new
        face the people in them must have.
    """
    people: dict[str, People] = {}
    problems: dict[str, str] = {}
    for outcome in executor.imap(Survey(settings), files):
        if outcome.failure is not None:
            problems[outcome.item.relative] = outcome.failure.message.removeprefix(f"{outcome.item.path}: ")
        elif outcome.value is not None:
            people[outcome.item.relative] = outcome.value
    return people, problems


def link_people(files: dict[str, People], key: bytes) -> dict[str, Faces]:
    """Choose one new face for each person of all files.

    Args:
        files: the people of each file, in any order.
        key: secret; the same key and files give the same faces.

    Returns:
        The new faces by file and person.

    Raises:
        UnsafeError: there are more people than different faces.
    """
    members = [(name, person) for name in sorted(files) for person in sorted(files[name])]
    profiles = [files[name][person] for name, person in members]
    number = {name: index for index, name in enumerate(sorted(files))}
    # Two people of one file are two people: in terms of tracks, they are seen at the same time.
    spans = [(number[name], number[name]) for name, _ in members]
    groups = link([_known(profile) for profile in profiles], spans)
    together: dict[int, list[Profile]] = {}
    for group, profile in zip(groups, profiles, strict=True):
        together.setdefault(group, []).append(profile)
    codes = choose({group: _mean(found) for group, found in together.items()}, key)
    faces: dict[str, Faces] = {name: {} for name in files}
    for group, (name, person) in zip(groups, members, strict=True):
        faces[name][person] = codes[group]
    return faces


def _known(profile: Profile) -> Float | None:
    return profile.embedding if profile.embedding.any() else None


def _mean(profiles: list[Profile]) -> Profile:
    if len(profiles) == 1:
        return profiles[0]
    total = np.sum([profile.embedding for profile in profiles], axis=0)
    return Profile(
        embedding=np.asarray(total / max(float(np.linalg.norm(total)), 1e-9), np.float32),
        skin_lab=np.asarray(np.nanmedian([profile.skin_lab for profile in profiles], axis=0), np.float32),
        look=mean_vector([profile.look for profile in profiles]),
        brows=mean_vector([profile.brows for profile in profiles]),
    )
