"""The error tree and the exit codes of the command line.

    VidanonError
    ├── SettingsError   (ValueError)         exit 2   a setting or flag is wrong
    ├── InputError      (ValueError)         exit 3   the source cannot be used
    ├── ModelsError     (FileNotFoundError)  exit 4   a model is missing or altered
    ├── DeviceError     (RuntimeError)       exit 5   the requested device cannot be used
    ├── OutputError     (OSError)            exit 6   the result cannot be written
    ├── UnsafeError     (RuntimeError)       exit 7   coverage or audit not passed; nothing was published
    └── JobsError       (RuntimeError)       exit 8   some jobs of a batch failed

Ctrl-C ends with 130, SIGTERM and SIGHUP with 143; both clean up first.

Every message is one line, names the file (and frame or track where that helps) and says what to do.
Code inside the package raises; only ``vidanon.cli`` turns an error into an exit code.
"""

from __future__ import annotations

from enum import IntEnum


class ExitCode(IntEnum):
    """Exit codes of the ``vidanon`` command."""

    OK = 0
    BUG = 1
    SETTINGS = 2
    INPUT = 3
    MODELS = 4
    DEVICE = 5
    OUTPUT = 6
    UNSAFE = 7
    JOBS = 8
    INTERRUPTED = 130
    TERMINATED = 143


class VidanonError(Exception):
    """Base of all errors that a user can act on; ``exit_code`` says how the command ends."""

    exit_code: ExitCode = ExitCode.BUG


class SettingsError(VidanonError, ValueError):
    """A setting, preset, flag or plan does not fit."""

    exit_code = ExitCode.SETTINGS


class InputError(VidanonError, ValueError):
    """The source is missing, unreadable, not a video, or damaged beyond use."""

    exit_code = ExitCode.INPUT


class ModelsError(VidanonError, FileNotFoundError):
    """A model file is missing, altered, or cannot be fetched."""

    exit_code = ExitCode.MODELS


class DeviceError(VidanonError, RuntimeError):
    """The requested compute device is not there."""

    exit_code = ExitCode.DEVICE


class OutputError(VidanonError, OSError):
    """The result cannot be written: permission, space, or a refused target."""

    exit_code = ExitCode.OUTPUT


class UnsafeError(VidanonError, RuntimeError):
    """The run cannot vouch for its output, so nothing was published under the final name."""

    exit_code = ExitCode.UNSAFE


class JobsError(VidanonError, RuntimeError):
    """Some jobs of a batch failed."""

    exit_code = ExitCode.JOBS
