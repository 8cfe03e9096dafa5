"""What the commands about recording sessions do: their time, gates, drift and certificates, and erasing."""

from __future__ import annotations

import argparse

from app.commands import Outcome, counted, named
from gaze_capture.errors import UserError
from gaze_capture.recording_codec import needs_recovery
from segmentation.progress import Progress
from segmentation.study import Study


def times(args: argparse.Namespace, progress: Progress) -> Outcome:
    """``gaze-insight times``."""
    from segmentation.annotation_time import study_times, times_json

    found = study_times(Study.open(args.study), progress)
    parts = list(found[0].parts())
    rows = [["recording", "annotator", "images", "total", *parts, "s an image"]]
    for one in found:
        each = (one.looking_s + one.relooks_s + one.setup_s) / one.images if one.images else float("nan")
        seconds = [one.total_s, *one.parts().values(), each]
        rows.append([one.recording, one.annotator, str(one.images), *(f"{value:.1f}" for value in seconds)])
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    lines = [
        "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows
    ]
    lines.append(
        "In seconds. An image's are its looks and re-looks, without pauses, and its share of calibrating."
    )
    return Outcome({"recordings": [times_json(one) for one in found]}, "\n".join(lines))


def gates(args: argparse.Namespace, progress: Progress) -> Outcome:
    """``gaze-insight gates``."""
    import getpass

    from segmentation.gaze_gates import Gates, overrule

    study = Study.open(args.study)
    overruled = []
    if args.overrule:
        overruled = overrule(study, args.overrule, args.annotator or getpass.getuser())
    states = Gates(study).states
    failed = [state for state in states if state.gate.result != "ok"]
    lines = [f"{len(states) - len(failed)} of {counted(len(states), 'look')} have good enough gaze."]
    if not states:
        lines = ["No gaze was judged yet: that happens when a recording ends. Imported gaze passes as it is."]
    lines += [
        f"  {state.gate.image_id} ({state.recording}): "
        + (f"overruled by {state.overruled_by}: " if state.overruled_by else "look again: ")
        + "; ".join(state.gate.reasons)
        for state in failed
    ]
    if overruled:
        lines.append(f"Next: gaze-insight pseudomask {args.study}")
    values = {
        "looks": len(states),
        "ok": len(states) - len(failed),
        "look_again": [state.to_json() for state in failed if not state.passes],
        "overruled": [state.to_json() for state in failed if state.passes],
    }
    return Outcome(values, "\n".join(lines))


def correct_drift(args: argparse.Namespace, progress: Progress) -> Outcome:
    """``gaze-insight correct-drift``."""
    from segmentation.drift import correct_drift

    report = correct_drift(Study.open(args.study), args.recording, method=args.method, remove=args.remove)
    x, y = report.mean_offset_deg
    where = (
        f"{abs(x):.2f}° to the {'right' if x >= 0 else 'left'} and {abs(y):.2f}° {'down' if y >= 0 else 'up'}"
    )
    if report.correction is None:
        text = (
            f"Took the correction of {report.recording} away: it had moved gaze that lay {where} on average."
        )
    else:
        text = (
            f"Corrected {report.recording} by {counted(report.correction.checks, 'drift check')}: gaze lay {where} "
            "on average while images were shown. The raw gaze is as it was."
        )
    values = {
        "recording": report.recording,
        "method": None if report.correction is None else report.correction.method,
        "checks": 0 if report.correction is None else report.correction.checks,
        "mean_offset_deg": [round(x, 4), round(y, 4)],
        "fixations": report.fixations,
    }
    return Outcome(values, f"{text}\nNext: gaze-insight pseudomask {args.study}")


def certificate(args: argparse.Namespace, progress: Progress) -> Outcome:
    """``gaze-insight certificate``."""
    from gaze_capture.certificate import certificate_of, changed_files
    from gaze_capture.storage import write_bytes_atomic
    from segmentation.certificate_page import certificate_html

    study = Study.open(args.study)
    ids = study.recording_ids()
    if args.recording not in ids:
        known = ", ".join(ids) or "none"
        raise UserError(f"{study.folder} has no recording {args.recording!r}; it has {known}.")
    folder = study.recordings_folder / args.recording
    if needs_recovery(folder):
        raise UserError(
            f"{folder} was cut off before its end. Finish it with: gaze-insight recover {args.study}"
        )
    one = certificate_of(folder)
    changed = changed_files(folder, one)
    if args.to is not None:
        write_bytes_atomic(args.to, certificate_html(one, changed).encode())
    samples, gaps, clocks = one.samples, one.gaps, one.clocks
    expected = "an unknown number" if samples["expected"] is None else samples["expected"]
    lines = [
        f"{one.recording}: {one.tracker}, {one.duration_s:.1f} s"
        + (f", simulated from {one.simulated_from}: no person looked" if one.simulated_from else ""),
        f"  samples     {samples['stored']} stored of {samples['received']} received and {expected} expected",
        f"  rate        {_told(one.effective_hz, '{:.2f} Hz')} valid of {_told(one.nominal_hz, '{:.4g} Hz')} nominal",
        f"  gaps        {gaps.count}, longest {gaps.longest_ms:.1f} ms, {gaps.total_ms:.1f} ms in all",
        f"  data loss   left {_told(one.data_loss.left, '{:.1%}')}, right {_told(one.data_loss.right, '{:.1%}')}, "
        f"gaze {_told(one.data_loss.gaze, '{:.1%}')}",
        f"  clocks      drift {_told(clocks.drift_ppm, '{:+.2f} ppm')}, {counted(len(clocks.jumps), 'jump')}",
        f"  connection  lost {counted(one.connection.losses, 'time')}, {one.connection.lost_s:.1f} s",
        f"  accuracy    {counted(len(one.calibrations), 'calibration')}, "
        f"{counted(len(one.validations), 'validation')}"
        + (f", the last {_told(one.validations[-1].mean_error_deg, '{:.2f}°')}" if one.validations else "")
        + f", {counted(len(one.drift_checks), 'drift check')}",
        *(f"  sha256      {digest} {name}" for name, digest in one.sha256.items()),
    ]
    if one.recovered is not None:
        lines.append(f"  recovered   {one.recovered['lost_bytes']} torn bytes were set aside")
    if one.archive_failed is not None:
        lines.append(f"  no archive  {one.archive_failed}")
    lines += [f"{name} is not what was certified: it has another hash, or is missing." for name in changed]
    if args.to is not None:
        lines.append(f"Wrote {args.to}.")
    return Outcome({**one.to_json(), "changed": changed}, "\n".join(lines), 1 if changed else 0)


def _told(value: float | None, form: str) -> str:
    return "unknown" if value is None else form.format(value)


def erase_annotator(args: argparse.Namespace, progress: Progress) -> Outcome:
    """``gaze-insight erase-annotator``."""
    from app.places import calibrations_folder
    from gaze_capture.saved_calibration import forget_calibrations
    from segmentation.consent import erase_annotator

    found = erase_annotator(Study.open(args.study), args.annotator, really=args.yes)
    forgotten = forget_calibrations(calibrations_folder(), args.annotator) if args.yes else 0
    what = ", ".join(
        (
            counted(len(found.recordings), "recording"),
            counted(len(found.imports), "import") + " of gaze",
            counted(found.pseudomasks, "pseudo-mask"),
            counted(found.explanations, "explanation"),
            counted(found.words, "file") + " of own words",
            counted(found.reviews, "file") + " of reviews",
            counted(found.drafts, "unfinished edit"),
            counted(found.draws, "audit") + " drawn for them",
            counted(found.overrules, "overruled gate"),
        )
    )
    lines = [
        f"Erased what was stored of {found.annotator}: {what}."
        if args.yes
        else f"This would erase of {found.annotator}: {what}. Nothing was erased; add --yes to do so."
    ]
    if forgotten:
        lines.append(f"So were {counted(forgotten, 'calibration')} kept on this computer.")
    if found.runs:
        lines.append(
            f"{counted(len(found.runs), 'run')} may have learned from it and stay; delete runs/ for that."
        )
    lines += named("Recordings that cannot be read stay, whosever they are", found.unreadable)
    lines.append("Exports, backups and lines of audit.jsonl are not touched.")
    return Outcome({"erased": args.yes, "calibrations": forgotten, **found.to_json()}, "\n".join(lines))
