"""The file format of a plan: JSON, reviewable; arrays are base64 of zlib of little-endian values."""

from __future__ import annotations

import base64
import binascii
import json
import zlib
from dataclasses import asdict
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np

from vidanon.errors import OutputError, SettingsError
from vidanon.stages.target import discard, publish, temporary_path
from vidanon.types import EMBEDDING_SIZE, IdentityCode, Origin, Plan, Track, VideoInfo

FORMAT = "vidanon-plan"
VERSION = 1


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
        "left": [_track_record(track) for track in plan.left],
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
    if track.covered is not None:
        arrays["covered"] = _pack(track.covered, "<u1")
    return {"id": track.id, "person": track.person, "start": track.start, "length": len(track), **arrays}


def _identity_record(code: IdentityCode) -> dict[str, Any]:
    w = None if code.w is None else _pack(code.w, "<f4")
    return {
        "name": code.name,
        "vector": _pack(code.vector, "<f4"),
        "w": w,
        "refused": code.refused,
        "nudged": code.nudged,
        "failed_at": list(code.failed_at),
    }


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
        left=tuple(_track_from(item, frames) for item in record.get("left", [])),
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
    covered = _unpack(item["covered"], "<u1", (length,)).astype(bool) if "covered" in item else None
    return Track(id=number, person=int(item["person"]), start=start, covered=covered, **arrays)


def _identity_from(item: dict[str, Any]) -> IdentityCode:
    vector = _unpack(item["vector"], "<f4", (EMBEDDING_SIZE,))
    _check(abs(float(np.linalg.norm(vector)) - 1) < 1e-2, f"identity {item['name']} is not of unit length")
    w = None if item["w"] is None else _unpack(item["w"], "<f4", (512,))
    refused, nudged = (int(item.get(count, 0)) for count in ("refused", "nudged"))
    for count in (refused, nudged):
        _check(0 <= count < 256, f"identity {item['name']} was refused {count} times")
    failed_at = tuple(int(frame) for frame in item.get("failed_at", ()))
    return IdentityCode(str(item["name"]), vector, w, refused, nudged, failed_at)


def require_source(plan: Plan, info: VideoInfo) -> None:
    """Make sure that a plan was made from this very file.

    Raises:
        SettingsError: it was not.
    """
    if info.fingerprint != plan.info.fingerprint:
        raise SettingsError(f"the plan was not made from {info.path} as it is now; run 'vidanon plan' again")
