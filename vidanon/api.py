"""The whole job behind one call: analyse, render to a temporary file, audit it, publish."""

from __future__ import annotations

import time
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING

from vidanon.errors import InputError, OutputError, SettingsError, UnsafeError
from vidanon.progress import Progress, meter
from vidanon.settings import Settings

if TYPE_CHECKING:
    from vidanon.audit.loop import Draw, Rendered
    from vidanon.audit.record import Audit
    from vidanon.models.registry import ModelStore
    from vidanon.types import Plan

NOT_AUDITED = "NOT AUDITED: nobody checked that no face is left and no one is recognisable"

KEPT_SUFFIXES = (".mp4", ".mkv", ".mov", ".webm")


@dataclass(frozen=True, slots=True)
class Summary:
    """What a run did.

    Attributes:
        source, output: the two files.
        people: number of persons found; 0 where nobody was found.
        frames: frames written.
        replaced, obscured: faces (one per person and frame) that got a new face, or were obscured.
        seconds: wall time per pass and stage.
        total_s: wall time of the run, seconds.
        notes: anything a reader should know (corrupt packets skipped, ...).
        audit: what was measured on the output; None where the audit was off.
    """

    source: Path
    output: Path
    people: int
    frames: int
    replaced: int
    obscured: int
    seconds: dict[str, float] = field(default_factory=dict)
    total_s: float = 0.0
    notes: tuple[str, ...] = ()
    audit: Audit | None = None


def default_output(source: Path) -> Path:
    """Return ``INPUT.anon.mp4`` beside the source; other kinds that can be written stay what they are."""
    from vidanon.stages.stills import is_stills

    stills, suffix = is_stills(source), source.suffix.lower()
    if stills and source.is_dir():
        return source.with_name(f"{source.resolve().name}.anon")
    return source.with_suffix(f".anon{suffix if suffix in KEPT_SUFFIXES or stills else '.mp4'}")


def ensure_models(models: ModelStore, device: str = "auto", progress: Progress | None = None) -> None:
    """Fetch what the pipeline needs and the store lacks, and have it converted.

    Args:
        models: the store.
        device: of the settings.
        progress: called while networks are converted, once on a machine.

    Raises:
        ModelsError: a model is missing and the store is offline, or it cannot be fetched.
    """
    from vidanon.conversion import convert_ahead
    from vidanon.models.registry import names_in

    for name in names_in("pipeline"):
        models.fetch(name)
    convert_ahead(models, device, meter(progress, "convert"))


def check_target(source: Path, target: Path) -> None:
    """Make sure, before any work is done, that ``target`` can hold the result and be written.

    Raises:
        OutputError: of another kind than the source, the source itself, or a place that cannot be written to.
    """
    from vidanon.stages.target import require_kind

    require_writable(source, target)
    require_kind(source, target)


def require_writable(source: Path, target: Path) -> None:
    """Make sure that ``target`` is not the source and its folder can be written to.

    What a run that was killed has left of the same target is deleted.

    Raises:
        OutputError: it is, or it cannot.
    """
    from vidanon.leftovers import remove_leftovers
    from vidanon.stages.target import temporary_path

    probe_file = temporary_path(target)
    try:
        if target.exists() and target.samefile(source):
            raise OutputError(f"output {target} is the input itself; choose another name with -o")
        probe_file.touch()
        probe_file.unlink()
        remove_leftovers(target)
    except OutputError:
        raise
    except OSError as error:
        reason = error.strerror or str(error)
        raise OutputError(
            f"cannot write to folder {target.parent} ({reason}); choose another with -o"
        ) from error


def analyse(
    source: Path | str,
    settings: Settings | None = None,
    models: ModelStore | None = None,
    progress: Progress | None = None,
) -> Plan:
    """Find out who is where in ``source``, and choose a new face for everyone by drawing some frames.

    Args:
        source: the video.
        settings: default :class:`Settings`; recorded in the plan.
        models: where the networks are; default store.
        progress: called as the frames are read.

    Raises:
        InputError, ModelsError, DeviceError, SettingsError: see :mod:`vidanon.errors`.
    """
    settings = settings or Settings()
    models = models or _store(settings)
    ensure_models(models, settings.runtime.device, progress)
    return _planned(Path(source), settings, models, progress)[0]


def _planned(
    source: Path, settings: Settings, models: ModelStore, progress: Progress | None
) -> tuple[Plan, dict[int, float], dict[str, float]]:
    """Return the plan, what links outputs made with different keys by person, and seconds by stage."""
    from vidanon.audit.preview import prefer_strangers
    from vidanon.plan import analyse

    started = time.monotonic()
    plan = analyse(source, settings, models, meter(progress, "analyse"))
    analysed = time.monotonic()
    plan, links = prefer_strangers(source, plan, settings, models)
    return plan, links, {"analyse": analysed - started, "choose": time.monotonic() - analysed}


def anonymize(
    source: Path | str,
    output: Path | str | None = None,
    settings: Settings | None = None,
    models: ModelStore | None = None,
    progress: Progress | None = None,
    report: Path | str | None = None,
    draw: Draw | None = None,
) -> Summary:
    """Give everyone in ``source`` a new face and write the result to ``output``.

    Args:
        source: the video.
        output: the result; default :func:`default_output`. An existing file is replaced, in the end, at once.
        settings: default :class:`Settings`.
        models: where the networks are; default store.
        progress: called as the passes advance.
        report: an HTML file for what the audit measured; a .json with the same goes beside it.
        draw: makes a file from a plan; default :func:`vidanon.renderer.render`.

    Raises:
        InputError, OutputError, ModelsError, DeviceError, UnsafeError: nothing was left at ``output``.
    """
    from vidanon.stages.decode import probe

    started = time.monotonic()
    source, report = Path(source), None if report is None else Path(report)
    target = default_output(source) if output is None else Path(output)
    settings = settings or Settings()
    models = models or _store(settings)
    probe(source)
    check_target(source, target)
    _check_report(source, target, report, settings)
    _check_cast(source, settings)
    ensure_models(models, settings.runtime.device, progress)
    plan, links, seconds = _planned(source, settings, models, progress)
    return _draw(source, plan, target, settings, models, progress, report, started, seconds, links, draw)


def render_plan(
    source: Path,
    plan: Plan,
    target: Path,
    settings: Settings,
    models: ModelStore,
    progress: Progress | None = None,
    report: Path | None = None,
    draw: Draw | None = None,
) -> Summary:
    """Render ``plan`` to a temporary file beside ``target`` and publish it when it passed the audit.

    Raises:
        SettingsError: the plan was made from another video.
        InputError, OutputError, ModelsError, DeviceError, UnsafeError: nothing was left at ``target``.
    """
    from vidanon.identity.sources import with_sources
    from vidanon.planfile import require_source
    from vidanon.stages.decode import probe

    started = time.monotonic()
    info = probe(source)
    check_target(source, target)
    _check_report(source, target, report, settings)
    _check_cast(source, settings)
    ensure_models(models, settings.runtime.device, progress)
    require_source(plan, info)
    plan = with_sources(source, plan, models, settings.runtime)
    return _draw(source, plan, target, settings, models, progress, report, started, {}, {}, draw)


def _check_report(source: Path, target: Path, report: Path | None, settings: Settings) -> None:
    """Make sure, before any work is done, that the report can be written.

    Raises:
        SettingsError: there is nothing to report without an audit.
        OutputError: a wrong name, one of the other files, or a place that cannot be written to.
    """
    if report is None:
        return
    if not settings.audit.enabled:
        raise SettingsError("a report needs the audit; leave out --report or --no-audit")
    if report.suffix.lower() != ".html" or report.resolve() == target.resolve():
        raise OutputError(f"report {report}: the name must end in .html; a .json is written beside it")
    require_writable(source, report)


def _check_cast(source: Path, settings: Settings) -> None:
    """Make sure, before any work is done, that the cast can be read and written.

    Raises:
        SettingsError, OutputError: it cannot.
    """
    from vidanon.identity.cast import open_cast

    cast = open_cast(settings.identity)
    if cast is not None:
        require_writable(source, cast.path)


def _draw(
    source: Path,
    plan: Plan,
    target: Path,
    settings: Settings,
    models: ModelStore,
    progress: Progress | None,
    report: Path | None,
    started: float,
    seconds: dict[str, float],
    links: dict[int, float],
    draw: Draw | None = None,
) -> Summary:
    """Render, audit, publish and sum up; source, target and models were checked."""
    from vidanon.audit.loop import render_until_safe
    from vidanon.identity.cast import open_cast
    from vidanon.stages.target import discard, publish, rejected_path, temporary_path

    cast = open_cast(settings.identity)
    if cast is not None:
        cast.check(plan)
    temporary = temporary_path(target)
    try:
        result = render_until_safe(source, plan, temporary, settings, models, progress, draw)
        safe = result.audit is None or result.audit.passed
        notes = _notes(result)
        if cast is not None and safe:
            notes += (cast.record(result.plan),)
        final = target if safe else rejected_path(target)
        publish(temporary, final)
    except OutputError as error:
        # The user knows nothing of the temporary name.
        raise OutputError(str(error).replace(str(temporary), str(target))) from error
    except OSError as error:
        if isinstance(error, (InputError, FileNotFoundError)):
            raise
        raise OutputError(
            f"cannot write {target} ({error.strerror or error}); free space or use -o"
        ) from error
    finally:
        discard(temporary)
    found = None if result.audit is None else replace(result.audit, output=final)
    summary = Summary(
        source=source,
        output=final,
        people=len({track.person for track in plan.tracks}),
        frames=result.summary.frames,
        replaced=result.summary.replaced,
        obscured=result.summary.obscured,
        seconds={
            stage: seconds.get(stage, 0.0) + result.seconds.get(stage, 0.0)
            for stage in seconds | result.seconds
        },
        total_s=time.monotonic() - started,
        notes=notes,
        audit=found,
    )
    if found is not None and report is not None:
        from vidanon.audit.report import write_report

        write_report(report, found, settings, _run_record(summary, result.rounds), links)
    if found is not None and not found.passed:
        raise UnsafeError(f"{source}: {found.failures()}; the refused result is {final}")
    return summary


def _run_record(summary: Summary, rounds: int) -> dict[str, object]:
    return {
        "people": summary.people,
        "frames": summary.frames,
        "faces replaced": summary.replaced,
        "faces obscured": summary.obscured,
        "rounds": rounds,
        "seconds": {stage: round(spent, 2) for stage, spent in summary.seconds.items()},
        "seconds in total": round(summary.total_s, 2),
    }


def audit_files(
    source: Path | str,
    output: Path | str,
    report: Path | str | None = None,
    workers: int = 2,
    models: ModelStore | None = None,
    progress: Progress | None = None,
) -> Audit:
    """Measure what is left of the people of ``source`` in ``output``, whoever made it.

    Args:
        source: the original.
        output: what became of it.
        report: an HTML file for the findings; a .json with the same goes beside it.
        workers: threads.
        models: where the networks are; default store.
        progress: called as the frames are compared.

    Returns:
        What was found; ``passed`` is the verdict.

    Raises:
        InputError, OutputError, ModelsError: see :mod:`vidanon.errors`.
    """
    from vidanon.audit.judge import audit
    from vidanon.stages.decode import probe

    source, output = Path(source), Path(output)
    models = models or _store(Settings())
    for path in (source, output):
        probe(path)
    if report is not None:
        report = Path(report)
        _check_report(source, output, report, Settings())
    for name in ("centerface", "yunet", "face-landmarker"):
        models.fetch(name)
    found = audit(source, output, models, workers, progress=meter(progress, "audit"))
    if report is not None:
        from vidanon.audit.report import write_report

        write_report(report, found)
    return found


def _notes(result: Rendered) -> tuple[str, ...]:
    notes = (*result.plan.notes, *result.summary.notes)
    if result.audit is None:
        return (*notes, NOT_AUDITED)
    notes += tuple(note for note in result.audit.notes if note not in notes)
    if result.rounds > 1:
        notes += (f"made {result.rounds} times until the audit had nothing more to change",)
    return notes


def _store(settings: Settings) -> ModelStore:
    from vidanon.models.registry import ModelStore

    return ModelStore(offline=settings.runtime.offline)
