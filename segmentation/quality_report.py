"""The quality of a study's gaze as one HTML page."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from html import escape
from pathlib import Path

from gaze_capture.quality import DATA_LOSS, MAX_ERROR_DEG, MEAN_ERROR_DEG, RMS_S2S_DEG, Validation
from gaze_capture.storage import write_bytes_atomic
from segmentation.gaze_quality import GazeQuality, LookQuality, StudyQuality
from segmentation.report_parts import graded, row, table, whole_page
from segmentation.study import Study

LONGEST_GAP_MS = (300.0, 1000.0)
"""A blink lasts up to 300 ms; a second without eyes is a look away."""


def write_quality_report(study: Study, quality: StudyQuality, file: Path) -> None:
    """Write the quality of all gaze as one self-contained HTML file.

    Raises
    ------
    UserError
        If the file cannot be written.
    """
    simulated = {source.simulated_from for source in quality.sources if source.simulated_from}
    badges = "".join(
        f'<span class="badge warning">Gaze simulated from {escape(name)}</span>' for name in sorted(simulated)
    )
    looks = len(quality.looks)
    subtitle = f"{len(quality.sources)} recordings and imports, {looks} looks at images"
    sections = [
        _tiles(quality),
        _annotators(quality),
        _recordings(quality.sources),
        *(_validation(source) for source in quality.sources if source.validation is not None),
        _looks(quality.looks),
    ]
    page = whole_page(study.name, escape(subtitle), badges, sections, "gaze quality")
    write_bytes_atomic(file, page.encode())


def _tiles(quality: StudyQuality) -> str:
    held = sum(source.held_back for source in quality.sources)
    seconds = sum(source.viewing_seconds for source in quality.sources)
    errors = [source.accuracy_deg for source in quality.sources if math.isfinite(source.accuracy_deg)]
    tiles = (
        (str(held), "looks to repeat"),
        (str(len(quality.looks)), "looks"),
        (f"{seconds / 60:.0f} min", "of looking"),
        (f"{max(errors):.2f}°" if errors else "–", "largest validated error"),
    )
    cells = "".join(
        f'<div class="tile{" main" if not number else ""}"><b>{value}</b><span>{label}</span></div>'
        for number, (value, label) in enumerate(tiles)
    )
    return f'<div class="tiles">{cells}</div>'


def _annotators(quality: StudyQuality) -> str:
    rows = [
        row(
            escape(one.annotator),
            str(one.sources),
            str(one.images),
            f"{one.viewing_seconds / 60:.1f} min",
            _share(one.data_loss, DATA_LOSS),
            _degrees(one.accuracy_deg, MEAN_ERROR_DEG),
            f"{one.held_back} of {one.looks}",
        )
        for one in quality.annotators
    ]
    head = ("Annotator", "Recordings", "Images", "Time", "Data loss", "Accuracy", "To repeat")
    return (
        '<h2>Annotators</h2><p class="note">In the order of their names. The numbers find sittings that need another '
        "calibration, another chair or other light; they say nothing about a person's skill and must not be used to "
        "compare people.</p>" + table(head, rows)
    )


def _recordings(sources: Iterable[GazeQuality]) -> str:
    rows = [
        row(
            f'<span class="mono">{escape(one.source)}</span>',
            escape(one.annotator),
            f'<span class="fair">simulated from {escape(one.simulated_from)}</span>'
            if one.simulated_from
            else escape(one.tracker),
            str(one.images),
            f"{one.rate_hz:.0f} Hz" if math.isfinite(one.rate_hz) else "–",
            _share(one.data_loss, DATA_LOSS),
            _share(one.loss_left, DATA_LOSS),
            _share(one.loss_right, DATA_LOSS),
            _degrees(one.accuracy_deg, MEAN_ERROR_DEG),
            _degrees(one.rms_s2s_deg, RMS_S2S_DEG),
            ", ".join(f"{drift:.1f}°" for drift in one.drift_deg) or "–",
            str(one.interruptions),
            str(one.held_back),
            text=(1, 2),
        )
        for one in sources
    ]
    head = ("Recording", "Annotator", "Tracker", "Images", "Rate", "Data loss", "Left", "Right", "Accuracy",
            "RMS-S2S", "Drift", "Lost", "To repeat")  # fmt: skip
    return (
        '<h2>Recordings</h2><p class="note">Data loss: share of samples without either eye, or without the one named; '
        "good up to 10 %, fair up to 20 %. Accuracy: validated mean error; good up to 0.5°, fair up to 1.0°. RMS-S2S: "
        "precision while the eyes rest; good up to 0.3°, fair up to 0.5°. Drift: what each check found. Lost: how "
        "often the tracker's connection broke.</p>" + table(head, rows, text=(1, 2))
    )


def _validation(source: GazeQuality) -> str:
    validation = source.validation
    assert validation is not None
    rows = [
        row(
            f"{target.x:.2f}, {target.y:.2f}",
            _degrees(target.both.error_deg, MAX_ERROR_DEG),
            _plain(target.left.error_deg),
            _plain(target.right.error_deg),
            _degrees(target.both.rms_s2s_deg, RMS_S2S_DEG),
            _plain(target.both.std_deg),
            f"{target.both.bcea_deg2:.3f} deg²" if math.isfinite(target.both.bcea_deg2) else "–",
            _share(target.left.data_loss, DATA_LOSS),
            _share(target.right.data_loss, DATA_LOSS),
        )
        for target in validation.targets
    ]
    head = ("Target x, y", "Error", "Left", "Right", "RMS-S2S", "STD", "BCEA", "Loss left", "Loss right")
    return (
        f'<h3>Validation of <span class="mono">{escape(source.source)}</span>: '
        f"mean {validation.mean_error_deg:.2f}°, largest {validation.max_error_deg:.2f}°, {validation.verdict}</h3>"
        + _figure(validation)
        + table(head, rows)
    )


def _figure(validation: Validation, width: int = 480, height: int = 270) -> str:
    """Draw where the gaze lay around each target; errors are drawn ten times as large as they are."""
    marks = []
    for target in validation.targets:
        x, y = target.x * width, target.y * height
        marks.append(f'<circle cx="{x:.1f}" cy="{y:.1f}" r="5" class="axis" fill="none"/>')
        for eye, colour in ((target.left, "#56B4E9"), (target.right, "#E69F00")):
            if math.isfinite(eye.error_deg):
                # 480 px stand for a screen some 45 degrees wide.
                dx, dy = (10 * width / 45 * part for part in eye.offset_deg)
                marks.append(
                    f'<line x1="{x:.1f}" y1="{y:.1f}" x2="{x + dx:.1f}" y2="{y + dy:.1f}" stroke="{colour}" '
                    f'stroke-width="2"/><circle cx="{x + dx:.1f}" cy="{y + dy:.1f}" r="3" fill="{colour}"/>'
                )
    return (
        f'<div class="panel chart"><svg viewBox="0 0 {width} {height}" style="max-width:{width}px" role="img" '
        f'aria-label="Offsets of left and right eye at each target">'
        f'<rect x="0.5" y="0.5" width="{width - 1}" height="{height - 1}" fill="none" class="axis"/>'
        f'{"".join(marks)}<text x="8" y="{height - 8}">blue left eye, orange right eye, offsets × 10</text></svg></div>'
    )


def _looks(looks: Sequence[LookQuality]) -> str:
    # What has to be repeated comes first; the rest in the order in which it was looked at.
    ordered = sorted(looks, key=lambda look: not (look.held_back and look.overruled_by is None))
    rows = [
        row(
            f'<span class="mono">{escape(look.image_id)}</span>',
            escape(look.target_id or "free viewing"),
            escape(look.annotator),
            _state(look),
            f"{look.seconds:.1f} s",
            str(look.fixations),
            _share(look.data_loss, DATA_LOSS),
            graded(look.longest_gap_ms, *LONGEST_GAP_MS, f"{look.longest_gap_ms:.0f} ms"),
            _degrees(look.rms_s2s_deg, RMS_S2S_DEG),
            text=(1, 2, 3),
        )
        for look in ordered
    ]
    head = (
        "Image",
        "Target",
        "Annotator",
        "State",
        "Time",
        "Fixations",
        "Data loss",
        "Longest gap",
        "RMS-S2S",
    )
    return "<h2>Looks</h2>" + table(head, rows, text=(1, 2, 3))


def _state(look: LookQuality) -> str:
    if not look.held_back:
        return '<span class="state good">fine</span>'
    reasons = escape("; ".join(look.held_back))
    if look.overruled_by is not None:
        return f'<span class="state fair">kept by {escape(look.overruled_by)}</span> ({reasons})'
    return f'<span class="state poor">look again</span>: {reasons}'


def _share(value: float, limits: tuple[float, float]) -> str:
    return graded(value, *limits, f"{value:.1%}")


def _degrees(value: float, limits: tuple[float, float]) -> str:
    return graded(value, *limits, f"{value:.2f}°")


def _plain(value: float) -> str:
    return f"{value:.2f}°" if math.isfinite(value) else "–"
