"""Write what the audit found: one HTML file that needs nothing else, and the same as JSON.

The JSON's fields are described in ``report.schema.json``. Neither file holds a picture of the source, a
landmark or an embedding; small pictures of new faces appear only when every check passed.
"""

from __future__ import annotations

import base64
import json
from collections.abc import Mapping
from dataclasses import asdict
from html import escape
from pathlib import Path
from string import Template
from typing import Any

from vidanon.audit.plots import STATES, Curve, curve_svg, timeline_svg
from vidanon.audit.record import UNCOVERED, Audit, TrackAudit, clock
from vidanon.errors import OutputError
from vidanon.identity.embed import SFACE_SAME_PERSON
from vidanon.models.thresholds import calibration
from vidanon.recognisers import RECOGNISERS, SFACE, Recogniser
from vidanon.settings import Settings

FORMAT = "vidanon-report"
VERSION = 2
DRAWN_TRACKS = 40
"""Plots of further tracks are left out; the JSON holds their numbers."""
LIMITS = (
    "These are measurements, not a promise of anonymity. At the thresholds used, a recogniser takes one in "
    "1,000 pairs of different people for one person. Better recognisers exist, and people who know someone.",
    "Voice, gait, build, clothes, tattoos, the place, other people and what is said are as they were.",
    "A face that no detector finds in the source is not looked for in the output: watch the result.",
    "Faces narrower than 20 pixels are not judged. The recognisers saw the frames marked in the plots only.",
    "SFace took part in choosing and learning the new faces, so it is the weaker witness; EdgeFace and dlib "
    "took part in nothing.",
)
PRIVATE_SETTINGS = (
    ("identity", "key_file"),
    ("identity", "cast"),
    ("identity", "participant"),
    ("select", "keep_person"),
    ("select", "only_person"),
)
NAMES = {
    "pose_error_deg": "head pose error, degrees (up to 45 degrees from frontal)",
    "landmark_nme": "landmark error, inter-ocular distances",
    "landmark_trajectory": "landmark paths, correlation with the source",
    "blendshape_mae": "expression error (52 blendshapes, 0 to 1)",
    "mouth_opening": "mouth opening, correlation",
    "blink": "blinking, correlation",
    "smile": "smiling, correlation",
    "gaze_x": "gaze sideways, correlation",
    "gaze_y": "gaze up and down, correlation",
    "adjacent_similarity": "identity from frame to frame (SFace)",
    "adjacent_spread": "its spread",
    "flicker": "flicker, grey levels after motion",
    "source_flicker": "flicker of the source",
}


def write_report(
    path: Path,
    audit: Audit,
    settings: Settings | None = None,
    run: Mapping[str, Any] | None = None,
    links: Mapping[int, float] | None = None,
) -> Path:
    """Write ``path`` (.html) and the JSON beside it.

    Args:
        path: the HTML file.
        audit: what was found.
        settings: what the output was made with, where that is known.
        run: counts and times of the run that made it, where that is known.
        links: per person, similarity of two different new faces on the same frame.

    Returns:
        The JSON file.

    Raises:
        OutputError: a file cannot be written.
    """
    record = report_record(audit, settings, run or {}, links or {})
    beside = path.with_suffix(".json")
    try:
        path.write_text(report_html(audit, record), "utf-8")
        beside.write_text(json.dumps(record, indent=1, allow_nan=False) + "\n", "utf-8")
    except OSError as error:
        raise OutputError(f"report {path} cannot be written ({error.strerror}); choose another") from error
    return beside


def report_record(
    audit: Audit, settings: Settings | None, run: Mapping[str, Any], links: Mapping[int, float]
) -> dict[str, Any]:
    """Return the report as plain values; see ``report.schema.json``."""
    from vidanon import __version__

    return {
        "format": FORMAT,
        "version": VERSION,
        "tool": f"vidanon {__version__}",
        "passed": audit.passed,
        "source": audit.source.name,
        "output": audit.output.name,
        "checks": [asdict(check) for check in audit.checks],
        "recognisers": list(audit.recognisers),
        "calibration": calibration(),
        "tracks": [_track_record(track) for track in audit.tracks],
        "leaks": [
            {"frame": frame, "time_s": round(audit.times_s[frame], 3), "faces": len(boxes)}
            for frame, boxes in audit.leaks.items()
        ],
        "timeline": [asdict(span) for span in audit.spans],
        "linkability": [{"person": p, "similarity": round(s, 4)} for p, s in sorted(links.items())],
        "totals": audit.totals,
        "container": {name: {"source": a, "output": b} for name, (a, b) in audit.container.items()},
        "run": dict(run),
        "settings": {} if settings is None else _settings_record(settings),
        "models": _models_record(),
        "notes": list(audit.notes),
        "limits": list(LIMITS),
    }


def _track_record(track: TrackAudit) -> dict[str, Any]:
    return {
        "track": track.track,
        "person": track.person,
        "start_s": round(track.start_s, 3),
        "end_s": round(track.end_s, 3),
        "frames": track.frames,
        "obscured": track.obscured,
        "judged": len(track.samples),
        "recognised": len(track.failing),
        "worst": {r.name: round(worst, 4) for r in RECOGNISERS if (worst := track.worst(r)) is not None},
        "figures": track.figures,
        "samples": [
            {
                "frame": sample.frame,
                "time_s": round(sample.time_s, 3),
                "scores": {name: round(score, 4) for name, score in sample.scores.items()},
                "shown": sample.shown,
                "recognised_by": list(sample.recognised_by),
            }
            for sample in track.samples
        ],
    }


def _settings_record(settings: Settings) -> dict[str, dict[str, Any]]:
    """Return the settings; of files that point at a secret or a person only whether they were given."""
    record = settings.as_dict()
    for section, name in PRIVATE_SETTINGS:
        record[section][name] = "given" if record[section][name] else ""
    return record


def _models_record() -> list[dict[str, str]]:
    from vidanon.models.registry import load_registry

    return [
        {"name": entry.name, "role": entry.role, "licence": entry.licence, "sha256": entry.files[0].sha256}
        for entry in load_registry().values()
        if entry.group != "demo"
    ]


def report_html(audit: Audit, record: Mapping[str, Any]) -> str:
    """Return the page."""
    template = Template(Path(__file__).with_name("report.html").read_text("utf-8"))
    parts = (_head(audit, record), _coverage(audit), _tracks(audit), _figures(audit, record), _tables(record))
    return template.substitute(title=escape(audit.output.name), body="\n".join(parts))


def _head(audit: Audit, record: Mapping[str, Any]) -> str:
    verdict = (
        "Every check passed." if audit.passed else "NOT SAFE: at least one check failed. Do not pass it on."
    )
    checks = [
        (check.name, _mark(check.passed), escape(check.detail)) for check in sorted(audit.checks, key=_order)
    ]
    points = record["calibration"]["recognisers"]
    lines = "; ".join(
        f"{r.name} {r.same_person:.3f} (finds {points[r.key]['far_1e-3']['tpr']:.1%} of pairs of one person)"
        for r in RECOGNISERS
        if r.name in audit.recognisers
    )
    pairs = record["calibration"]
    notes = "".join(f"<li>{escape(note)}</li>" for note in audit.notes)
    return (
        f"<h1>{escape(audit.output.name)}</h1>"
        f'<p class="verdict{"" if audit.passed else " failed"}"><strong>{verdict}</strong><br>'
        f"Made from {escape(audit.source.name)}. {escape(audit.summary())}.</p>"
        + _table(("check", "", "what was seen"), checks, raw=True)
        + f'<p class="soft">Re-identification at one false match in 1,000: {lines}. Calibrated on '
        f"{pairs['same_pairs']:,} pairs of one person and {pairs['different_pairs']:,} of two "
        f"({escape(pairs['data'])}).</p>" + (f"<ul>{notes}</ul>" if notes else "")
    )


def _order(check: Any) -> bool:
    return bool(check.passed)


def _mark(passed: bool) -> str:
    return f'<span class="{"pass" if passed else "fail"}">{"passed" if passed else "FAILED"}</span>'


def _coverage(audit: Audit) -> str:
    if not audit.spans:
        return ""
    colours = {"replaced": "good", "obscured": "warn", "leak": "bad"}
    key = "".join(
        f'<span class="key" style="color:var(--{colours[state]})"></span>{state}' for state in STATES
    )
    svg = timeline_svg(audit.spans, audit.times_s[-1] if audit.times_s else 0.0)
    return f'<h2>Coverage over time</h2><p class="soft">One row per track.{key}</p>{svg}'


def _tracks(audit: Audit) -> str:
    judged = [track for track in audit.tracks if track.samples]
    worst = sorted(judged, key=lambda track: (not track.failing, -(track.worst(SFACE) or -1)))
    parts = ["<h2>How alike source and output are</h2>"]
    if not judged:
        parts.append("<p>No face was large enough to be judged.</p>")
    parts += [_track(audit, track) for track in worst[:DRAWN_TRACKS]]
    if len(worst) > DRAWN_TRACKS:
        parts.append(f"<p>{len(worst) - DRAWN_TRACKS} further tracks are in the JSON file.</p>")
    return "".join(parts)


def _track(audit: Audit, track: TrackAudit) -> str:
    name = "Outside all tracks" if track.track == UNCOVERED else f"Track {track.track}"
    hidden = sum(not sample.shown for sample in track.samples)
    jpeg = audit.thumbnails.get(track.track)
    image = ""
    if jpeg is not None:
        data = base64.b64encode(jpeg).decode()
        image = f'<img src="data:image/jpeg;base64,{data}" alt="new face of track {track.track}">'
    text = (
        f"<strong>{name}</strong>, {clock(track.start_s)} to {clock(track.end_s)}: "
        f"{len(track.samples)} frames judged, recognised in {len(track.failing)}; no face seen in {hidden}."
    )
    curves = (_curve(track, recogniser) for recogniser in RECOGNISERS)
    plots = "".join(curve_svg(curve, track.start_s, track.end_s) for curve in curves if curve.points)
    return f'<div class="track">{image}<p>{text}</p></div>{plots}'


def _curve(track: TrackAudit, recogniser: Recogniser) -> Curve:
    name = recogniser.name
    seen = [(s.time_s, s.scores[name], name in s.recognised_by) for s in track.samples if name in s.scores]
    ends = (0.0, 1.2) if recogniser.by_distance else (-0.2, 1.0)
    title = f"{name} {recogniser.measure}"
    return Curve(title, seen, recogniser.same_person, *ends, recogniser.strangers)


def _figures(audit: Audit, record: Mapping[str, Any]) -> str:
    judged = [track for track in audit.tracks if any(v is not None for v in track.figures.values())]
    shown = judged[:DRAWN_TRACKS]
    header = ("figure", "all", *(f"track {track.track}" for track in shown))
    rows = [
        (NAMES[name], _number(total), *(_number(track.figures[name]) for track in shown))
        for name, total in audit.totals.items()
    ]
    text = "<h2>What stays: expression, pose, steadiness</h2>"
    text += _table(header, rows, numbers=True) if rows else "<p>Nothing to measure.</p>"
    if record["linkability"]:
        listed = ", ".join(f"person {x['person']}: {x['similarity']:.2f}" for x in record["linkability"])
        text += (
            '<p class="soft">Linkability: similarity (SFace) of frames drawn with two different new faces, '
            f"as another key would give them; one person from {SFACE_SAME_PERSON:.2f} on: {listed}.</p>"
        )
    return text


def _number(value: float | None) -> str:
    return "–" if value is None else f"{value:.3g}"


def _tables(record: Mapping[str, Any]) -> str:
    container = [(name, both["source"], both["output"]) for name, both in record["container"].items()]
    text = "<h2>The files</h2>" + _table(("", "source", "output"), container)
    if record["run"]:
        rows = [(name, _plain(value)) for name, value in record["run"].items()]
        text += "<h2>The run</h2>" + _table(("", ""), rows)
    if record["settings"]:
        rows = [
            (f"{section}.{name}", _plain(value))
            for section, options in record["settings"].items()
            for name, value in options.items()
        ]
        text += f"<h2>Settings</h2><details><summary>all settings</summary>{_table(('', ''), rows)}</details>"
    models = [(m["name"], m["role"], m["licence"], m["sha256"]) for m in record["models"]]
    text += "<h2>Models</h2><details><summary>models with licences and checksums</summary>"
    text += _table(("model", "role", "licence", "sha256"), models) + "</details>"
    limits = "".join(f"<li>{escape(limit)}</li>" for limit in record["limits"])
    return f"{text}<h2>What this does not say</h2><ul>{limits}</ul>"


def _plain(value: object) -> str:
    if isinstance(value, dict):
        return ", ".join(f"{name} {_plain(item)}" for name, item in value.items())
    return f"{value:.1f}" if isinstance(value, float) and abs(value) >= 10 else str(value)


def _table(header: tuple[str, ...], rows: list[Any], numbers: bool = False, raw: bool = False) -> str:
    """Return a table; ``raw`` cells are HTML already."""
    head = "".join(f"<th>{escape(cell)}</th>" for cell in header) if any(header) else ""
    lines = "".join(
        "<tr>" + "".join(f"<td>{cell if raw else escape(str(cell))}</td>" for cell in row) + "</tr>"
        for row in rows
    )
    kind = ' class="numbers"' if numbers else ""
    head = f"<thead><tr>{head}</tr></thead>" if head else ""
    return f'<div class="scroll"><table{kind}>{head}<tbody>{lines}</tbody></table></div>'
