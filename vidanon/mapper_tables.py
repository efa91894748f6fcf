"""The figures of the learned map as text tables."""

from __future__ import annotations

from typing import Any

from vidanon.bars import format_verdicts, look_up
from vidanon.recognisers import RECOGNISERS

WIDTH = 44
_OF_EACH = (
    ("{name} {measure} to identity source", "cross.{key}_identity"),
    ("{name} {measure} to attribute source", "cross.{key}_attributes"),
    ("{name} {measure} of unrelated faces", "cross.{key}_unrelated"),
    ("{name} TPR at FAR 1e-3, identity", "cross.{key}_tpr_identity"),
    ("{name} TPR at FAR 1e-3, attributes", "cross.{key}_tpr_attributes"),
    ("same identity: {name} {measure}", "same.{key}_identity"),
)
_ROWS = (
    *(
        tuple(text.format(name=r.name, key=r.key, measure=r.measure) for text in row)
        for r in RECOGNISERS
        for row in _OF_EACH
    ),
    ("landmark NME", "cross.nme"),
    ("landmarks kept (share of variance)", "cross.landmarks_kept"),
    ("head pose, degrees", "cross.pose_error_deg"),
    ("blendshape MAE", "cross.blendshape_mae"),
    ("blendshapes kept (share of variance)", "cross.blendshapes_kept"),
    ("eyeBlink, correlation over faces", "cross.correlation.blink"),
    ("jawOpen", "cross.correlation.jawOpen"),
    ("mouthSmile", "cross.correlation.mouthSmile"),
    ("browInnerUp", "cross.correlation.browInnerUp"),
    ("gaze, horizontal", "cross.correlation.gaze_x"),
    ("gaze, vertical", "cross.correlation.gaze_y"),
    ("same identity: PSNR, dB", "same.psnr_db"),
    ("same identity: MS-SSIM", "same.ms_ssim"),
)


def format_results(results: dict[str, Any]) -> str:
    """Return the figures of :func:`vidanon.evaluate_mapper.evaluate_mapper` as text tables, the bars last."""
    sets = [name for name in ("generated", "nearer", "real") if name in results]
    lines = [f"{'':<{WIDTH}}" + "".join(f"{name:>11}" for name in sets)]
    for title, key in _ROWS:
        values = [look_up(results[name], key) for name in sets]
        lines.append(f"{title:<{WIDTH}}" + "".join(f"{'-' if v is None else f'{v:.3f}':>11}" for v in values))
    for title, key in (
        ("w: squared Mahalanobis over 512", "w.mahalanobis"),
        ("   of held-out draws", "w.mahalanobis_drawn"),
        ("50 identities, mean SFace", "diversity.sface_mean"),
        ("50 identities, closest pair", "diversity.sface_closest"),
        ("50 identities led nearer, mean SFace", "diversity.nearer.sface_mean"),
        ("50 identities led nearer, closest pair", "diversity.nearer.sface_closest"),
        ("encoder and mapper, ms per face", "speed.ms_per_face"),
    ):
        lines.append(f"{title:<{WIDTH}}{look_up(results, key):>11.3f}")
    if "ceiling" in results:
        lines += ["", _ceiling_table(results["ceiling"])]
    if "groups" in results:
        lines += ["", _group_table(results["groups"])]
    return "\n".join([*lines, "", format_verdicts(results["bars"])])


def _ceiling_table(rows: list[dict[str, Any]]) -> str:
    identity = [f"{recogniser.key}_identity" for recogniser in RECOGNISERS]
    names = (*identity, "sface_attributes", "pose_error_deg", "blendshape_mae")
    lines = [f"{'steps on w':<15}" + "".join(f"{name:>18}" for name in names)]
    lines += [f"{row['steps']:<15}" + "".join(f"{row[name]:>18.3f}" for name in names) for row in rows]
    return "\n".join(lines)


def _group_table(groups: dict[str, dict[str, Any]]) -> str:
    names = list(next(iter(groups.values())))
    lines = [f"{'apparent group':<15}" + "".join(f"{name:>{max(len(name), 6) + 2}}" for name in names)]
    for group, row in groups.items():
        cells = (
            f"{row[n]:>{max(len(n), 6) + 2}}" if n == "faces" else f"{row[n]:>{max(len(n), 6) + 2}.3f}"
            for n in names
        )
        lines.append(f"{group:<15}" + "".join(cells))
    return "\n".join(lines)
