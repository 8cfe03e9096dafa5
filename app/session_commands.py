"""What the commands about recording sessions do: their time, their gates, their drift, and erasing an annotator."""

from __future__ import annotations

import argparse

from app.commands import Outcome, counted, named
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


def erase_annotator(args: argparse.Namespace, progress: Progress) -> Outcome:
    """``gaze-insight erase-annotator``."""
    from segmentation.consent import erase_annotator

    found = erase_annotator(Study.open(args.study), args.annotator, really=args.yes)
    what = ", ".join(
        (
            counted(len(found.recordings), "recording"),
            counted(len(found.imports), "import") + " of gaze",
            counted(found.pseudomasks, "pseudo-mask"),
            counted(found.explanations, "explanation"),
            counted(found.reviews, "file") + " of reviews",
            counted(found.overrules, "overruled gate"),
        )
    )
    lines = [
        f"Erased what was stored of {found.annotator}: {what}."
        if args.yes
        else f"This would erase of {found.annotator}: {what}. Nothing was erased; add --yes to do so."
    ]
    if found.runs:
        lines.append(
            f"{counted(len(found.runs), 'run')} may have learned from it and stay; delete runs/ for that."
        )
    lines += named("Recordings that cannot be read stay, whosever they are", found.unreadable)
    lines.append("Exports, backups and lines of audit.jsonl are not touched.")
    return Outcome({"erased": args.yes, **found.to_json()}, "\n".join(lines))
