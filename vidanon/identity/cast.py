"""The cast: which fictional person plays whom, so that all recordings of one participant show one new face.

A face chosen for one recording alone is seldom chosen for the next: the person looks a little different
there, and other faces pass the preview. So the choice is written down, under a name that the user gives, in a
file that the user asks for. It holds names and numbers of fictional people; nothing in it was measured on
anybody.
"""

from __future__ import annotations

import fcntl
import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from vidanon.errors import OutputError, SettingsError, UnsafeError
from vidanon.identity.bank import load_bank
from vidanon.private import write_private
from vidanon.types import IdentityCode, Plan

if TYPE_CHECKING:
    from vidanon.settings import IdentitySettings

FORMAT = "vidanon-cast"
VERSION = 1


@dataclass(frozen=True, slots=True)
class Cast:
    """A cast file as it was read.

    Attributes:
        path: of the file; it need not exist yet.
        participant: the name, in this recording, of the person who is seen most.
        faces: fictional person by name.
    """

    path: Path
    participant: str
    faces: dict[str, str] = field(default_factory=dict)

    def codes(self) -> list[IdentityCode]:
        """Return the fictional people of the cast: nobody else may get a face like theirs."""
        return [_code(face) for face in self.faces.values()]

    def apply(self, plan: Plan) -> Plan:
        """Give the participant, who is the person seen most, the face that the cast says.

        It has no spares: where it does not hide the participant, the mask does.
        """
        main, face = main_person(plan), self.faces.get(self.participant)
        if main is None or face is None:
            return plan
        identities = plan.identities | {main: _code(face)}
        return replace(plan, identities=identities, spares=plan.spares | {main: ()})

    def check(self, plan: Plan) -> None:
        """Make sure, before it is drawn, that a plan gives the participant the face that the cast says.

        Raises:
            SettingsError: it gives another.
        """
        main, wanted = main_person(plan), self.faces.get(self.participant)
        if main is not None and wanted is not None and plan.identities[main].name != wanted:
            raise SettingsError(
                f"the plan gives {self.participant} another face than {self.path}; plan again with --cast"
            )

    def record(self, plan: Plan) -> str:
        """Write down which face the participant has got, before it is published; return a note.

        Raises:
            OutputError: the file cannot be written.
            UnsafeError: another run has given the participant another face in the meantime.
        """
        main = main_person(plan)
        if main is None:
            return f"cast: nobody is seen, so {self.participant} has got no face here"
        face = plan.identities[main].name
        with _locked(self.path):
            faces = _read(self.path)
            if self.participant not in faces:
                _write(self.path, faces | {self.participant: face})
            elif faces[self.participant] != face:
                raise UnsafeError(
                    f"{self.path}: another run has given {self.participant} another face meanwhile; run again"
                )
        return f"cast: {self.participant}, the person seen most, has the face {face} of {self.path}"


def open_cast(settings: IdentitySettings) -> Cast | None:
    """Read the cast that the settings name; None where they name none.

    Raises:
        SettingsError: only one of cast and participant is given, or the file is no cast.
    """
    if not settings.cast and not settings.participant:
        return None
    if not settings.cast or not settings.participant:
        raise SettingsError(
            "--cast and --participant belong together: a file, and who is seen most in the video"
        )
    path = Path(settings.cast)
    return Cast(path, settings.participant, _read(path))


def main_person(plan: Plan) -> int | None:
    """Return the person with a face who covers most of the video, None where there is nobody."""
    seen: dict[int, float] = {}
    for track in plan.tracks:
        if track.person in plan.identities:
            area = float(np.prod(track.boxes[:, 2:] - track.boxes[:, :2], axis=1).sum())
            seen[track.person] = seen.get(track.person, 0.0) + area
    return max(sorted(seen), key=seen.__getitem__) if seen else None


def _code(face: str) -> IdentityCode:
    bank = load_bank()
    return bank.code(bank.index(face))


def _read(path: Path) -> dict[str, str]:
    if not path.exists():
        return {}
    try:
        record = json.loads(path.read_text(encoding="utf-8"))
        if (record["format"], record["version"]) != (FORMAT, VERSION):
            raise ValueError("another format or version")
        faces = {str(name): str(face) for name, face in record["faces"].items()}
        bank = load_bank()
        if not all(0 <= bank.index(face) < len(bank) for face in faces.values()):
            raise ValueError("a face that this version does not know")
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        reason = " ".join(str(error).split())[:200]
        raise SettingsError(f"cast {path} cannot be used ({reason}); mend it, or begin a new file") from error
    return faces


def _write(path: Path, faces: dict[str, str]) -> None:
    record = {"format": FORMAT, "version": VERSION, "faces": dict(sorted(faces.items()))}
    try:
        # Whoever knows who is who in published results should be few.
        write_private(path, json.dumps(record, indent=1).encode())
    except OSError as error:
        raise OutputError(
            f"cast {path} cannot be written ({error.strerror}); free space, or move it"
        ) from error


@contextmanager
def _locked(path: Path) -> Iterator[None]:
    """Hold other runs back that share the cast; its folder is what is locked, so that nothing is left."""
    try:
        descriptor = os.open(path.absolute().parent, os.O_RDONLY)
    except OSError as error:
        raise OutputError(f"cast {path} cannot be written ({error.strerror}); move it") from error
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)
