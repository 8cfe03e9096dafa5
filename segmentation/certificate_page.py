"""A recording's certificate as one HTML page."""

from __future__ import annotations

import math
from collections.abc import Sequence
from html import escape

from gaze_capture.calibration import DRIFT_DEG
from gaze_capture.certificate import Certificate
from gaze_capture.quality import DATA_LOSS, MAX_ERROR_DEG, MEAN_ERROR_DEG, RMS_S2S_DEG
from segmentation.report_parts import graded, row, table, whole_page

MISSING_SHARE = (0.001, 0.01)
"""Share of expected samples that may be missing: unnoticed by any fixation, and still without harm to most."""
LATENCY_MS = (100, 250)
"""What a crash may cost: what the writer promises, and what the project allows."""


def certificate_html(certificate: Certificate, changed: Sequence[str] = ()) -> str:
    """Return a self-contained page; `changed` names the files that are no longer what was certified."""
    one = certificate
    badges = (
        f'<span class="badge warning">Gaze simulated from {escape(one.simulated_from)}</span>'
        if one.simulated_from
        else ""
    )
    badges += "".join(
        f'<span class="badge warning">{escape(name)} is not what was certified</span>' for name in changed
    )
    if one.recovered is not None:
        badges += '<span class="badge warning">Recovered after it was cut off</span>'
    facts = (one.annotator, one.tracker, one.started_utc, f"{one.duration_s / 60:.1f} min")
    subtitle = escape(", ".join(facts))
    sections = [
        _tiles(one),
        _samples(one),
        _clocks(one),
        _accuracy(one),
        _files(one, changed),
    ]
    return whole_page(one.recording, subtitle, badges, sections, "recording certificate")


def _tiles(one: Certificate) -> str:
    errors = [found.mean_error_deg for found in one.validations if found.mean_error_deg is not None]
    if not errors and one.validated_before is not None:
        errors = [one.validated_before["mean_error_deg"]]
    tiles = (
        (str(one.samples["stored"]), "samples stored"),
        ("–" if one.effective_hz is None else f"{one.effective_hz:.1f} Hz", "effective rate"),
        (str(one.gaps.count), "gaps"),
        (f"{max(errors):.2f}°" if errors else "–", "largest validated mean error"),
    )
    cells = "".join(
        f'<div class="tile{" main" if not number else ""}"><b>{value}</b><span>{label}</span></div>'
        for number, (value, label) in enumerate(tiles)
    )
    return f'<div class="tiles">{cells}</div>'


def _facts(rows: Sequence[tuple[str, str]]) -> str:
    return table(("", ""), [row(name, value, text=(0,)) for name, value in rows], text=(0,))


def _samples(one: Certificate) -> str:
    expected, stored = one.samples["expected"], one.samples["stored"] or 0
    lacking = "–"
    if expected:
        share = max(0.0, 1 - stored / expected)
        lacking = graded(share, *MISSING_SHARE, f"{max(0, expected - stored)} ({share:.2%})")
    latency = one.writer_latency_ms
    rows = (
        ("Expected from the tracker", "unknown: the recording was cut off" if expected is None else str(expected)),
        ("Received", str(one.samples["received"])),
        ("Stored", str(stored)),
        ("Missing", lacking),
        ("Nominal rate", _value(one.nominal_hz, "{:.4g} Hz")),
        ("Samples a second", _value(one.stored_hz, "{:.2f} Hz")),
        ("Valid samples a second", _value(one.effective_hz, "{:.2f} Hz")),
        ("Gaps", str(one.gaps.count)),
        ("Longest gap", f"{one.gaps.longest_ms:.1f} ms"),
        ("All gaps", f"{one.gaps.total_ms:.1f} ms, {one.gaps.missing_samples} samples"),
        ("Data loss, left eye", _graded(one.data_loss.left, DATA_LOSS, "{:.1%}")),
        ("Data loss, right eye", _graded(one.data_loss.right, DATA_LOSS, "{:.1%}")),
        ("Data loss of gaze", _graded(one.data_loss.gaze, DATA_LOSS, "{:.1%}")),
        ("Connection lost", f"{one.connection.losses} times, {one.connection.lost_s:.1f} s"),
        (
            "Writer latency, median / 99 % / longest",
            "–"
            if latency is None
            else f"{latency['p50']} / {latency['p99']} / "
            + graded(latency["max"], *LATENCY_MS, f"{latency['max']} ms"),
        ),
    )  # fmt: skip
    return (
        '<h2>Samples</h2><p class="note">A gap lies between two samples more than 1.5 nominal intervals apart. Data '
        "loss: share of samples in which the eye was not seen; of gaze, neither eye that counts; good up to 10 %, fair "
        "up to 20 %. Missing: good up to 0.1 %, fair up to 1 %.</p>" + _facts(rows)
    )


def _clocks(one: Certificate) -> str:
    clocks = one.clocks
    rows = [
        ("Host ahead of device", _value(clocks.offset_ns, "{:d} ns")),
        ("Uncertainty of that", _value(clocks.uncertainty_ns, "± {:d} ns")),
        ("Times measured", str(clocks.measurements)),
        ("Drift of the device's clock", _value(clocks.drift_ppm, "{:+.2f} ppm")),
        ("Scatter about the drift", _value(clocks.scatter_ms, "{:.3f} ms")),
        ("Samples not later than the one before", str(clocks.not_ascending)),
        ("Jumps", str(len(clocks.jumps))),
        *(
            (f"Jump of the {escape(jump.clock)}'s clock at {jump.at_s:.3f} s", f"{jump.by_ms:+.1f} ms")
            for jump in clocks.jumps
        ),
    ]
    return (
        '<h2>Clocks</h2><p class="note">Drift: by the median of slopes between stretches of time, jumps left out; '
        "positive where the device's clock runs faster than the host's.</p>" + _facts(rows)
    )


def _accuracy(one: Certificate) -> str:
    calibrations = [
        row(
            f"{found.at_s:.1f} s",
            escape(found.eyes),
            str(found.points),
            escape(found.saved_utc or "made then"),
            text=(1, 3),
        )
        for found in one.calibrations
    ]
    validations = [
        row(
            f"{found.at_s:.1f} s",
            _graded(found.mean_error_deg, MEAN_ERROR_DEG, "{:.2f}°"),
            _graded(found.max_error_deg, MAX_ERROR_DEG, "{:.2f}°"),
            _graded(found.rms_s2s_deg, RMS_S2S_DEG, "{:.3f}°"),
            _value(found.std_deg, "{:.3f}°"),
            _graded(found.data_loss, DATA_LOSS, "{:.1%}"),
            escape(found.verdict),
            text=(6,),
        )
        for found in one.validations
    ]
    before = one.validated_before
    if before is not None:
        validations.insert(
            0,
            row(
                "before",
                _graded(before["mean_error_deg"], MEAN_ERROR_DEG, "{:.2f}°"),
                _graded(before["max_error_deg"], MAX_ERROR_DEG, "{:.2f}°"),
                _graded(before["rms_s2s_deg"], RMS_S2S_DEG, "{:.3f}°"),
                "–",
                _graded(before["data_loss"], DATA_LOSS, "{:.1%}"),
                "",
                text=(6,),
            ),
        )
    checks = [
        row(
            f"{found.at_s:.1f} s",
            _graded(found.distance_deg, DRIFT_DEG, "{:.2f}°"),
            escape(found.verdict),
            text=(2,),
        )
        for found in one.drift_checks
    ]
    none = '<p class="note">None.</p>'
    return (
        "<h2>Calibrations</h2>"
        + (table(("At", "Eyes", "Points", "Saved"), calibrations, text=(1, 3)) if calibrations else none)
        + "<h2>Validations</h2>"
        + (
            table(
                ("At", "Mean error", "Max error", "RMS-S2S", "STD", "Data loss", "Verdict"), validations, (6,)
            )
            if validations
            else none
        )
        + "<h2>Drift checks</h2>"
        + (table(("At", "Distance", "Verdict"), checks, text=(2,)) if checks else none)
    )


def _files(one: Certificate, changed: Sequence[str]) -> str:
    rows = [
        row(
            escape(name),
            f'<span class="mono">{escape(digest)}</span>',
            f'<span class="state {"poor" if name in changed else "good"}">'
            f"{'changed' if name in changed else 'unchanged'}</span>",
            text=(0, 1, 2),
        )
        for name, digest in one.sha256.items()
    ]
    notes = ""
    if one.archive_failed is not None:
        notes += f'<p class="note">There is no gaze.parquet: {escape(one.archive_failed)}</p>'
    if one.recovered is not None:
        notes += (
            f'<p class="note">Recovered: {int(one.recovered["lost_bytes"])} torn bytes set aside, '
            f"{int(one.recovered['damaged_frames'])} damaged frames left out.</p>"
        )
    return (
        "<h2>Files</h2>" + table(("File", "SHA-256", "Now"), rows, text=(0, 1, 2)) + notes
        + f'<p class="note">Certified by {escape(one.program)} at {escape(one.written_utc)}.</p>'
    )  # fmt: skip


def _value(value: float | None, form: str) -> str:
    return "–" if value is None else form.format(value)


def _graded(value: float | None, limits: tuple[float, float], form: str) -> str:
    return graded(math.nan if value is None else value, *limits, _value(value, form))
