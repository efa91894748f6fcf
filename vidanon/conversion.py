"""Convert the networks once, in a process of its own, before the first run needs them.

Tracing takes torch and up to 3 GB, which would stay with the run that happens to be first.
"""

from __future__ import annotations

import importlib.util
import logging
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from vidanon.errors import DeviceError
from vidanon.networks.converted import Recipe, converted_network, is_converted
from vidanon.networks.runtime import resolve_device
from vidanon.progress import Meter

if TYPE_CHECKING:
    from vidanon.models.registry import ModelStore

_log = logging.getLogger(__name__)


def recipes(models: ModelStore) -> list[Recipe]:
    """Return all networks that are converted; dlib's only where it can be used.

    Raises:
        ModelsError: a model is missing.
    """
    from vidanon import recognisers
    from vidanon.identity import look
    from vidanon.stages import segment, synthesize

    sizes = (*synthesize.EXIT_REACH_PX, 1024)
    exits = [
        synthesize.exit_recipe(models, size, cutout)
        for size in sizes
        for cutout in synthesize.cutouts_of(size)
    ]
    found = [synthesize.mapper_recipe(), *exits, segment.recipe(), look.recipe()]
    if importlib.util.find_spec("dlib") is not None and not models.problem("dlib-resnet"):
        found.append(recognisers.recipe(models))
    return found


def convert(models: ModelStore) -> Iterator[str]:
    """Convert here and now what is not, and yield the name of each network when it is there.

    Raises:
        ModelsError: a model is missing.
    """
    for recipe in recipes(models):
        converted_network(recipe, models.converted, workers=1)
        yield recipe.name


def convert_ahead(models: ModelStore, device: str = "auto", progress: Meter | None = None) -> None:
    """Have another process convert all networks if any is not; where it cannot, the run itself will.

    Args:
        models: complete.
        device: as in the settings; a GPU runs the modules themselves.
        progress: called with (networks done, networks in all).
    """
    try:
        if resolve_device(device) != "cpu":
            return
    except DeviceError:
        return  # the run will say so
    wanted = recipes(models)
    if all(is_converted(recipe, models.converted) for recipe in wanted) or not _can_keep(models.converted):
        return
    command = [sys.executable, "-m", "vidanon", "models", "convert"]
    environment = os.environ | {"VIDANON_MODELS": str(models.root)}
    with subprocess.Popen(  # noqa: S603 - our own interpreter and module
        command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL
    ) as child:
        assert child.stdout is not None
        try:
            for done, _ in enumerate(child.stdout, start=1):
                if progress is not None:
                    progress(min(done, len(wanted)), len(wanted))
        except BaseException:
            child.kill()
            raise
    if child.returncode:
        _log.info("networks could not be converted ahead (exit code %d)", child.returncode)


def _can_keep(folder: Path) -> bool:
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError:
        return False
    return os.access(folder, os.W_OK)
