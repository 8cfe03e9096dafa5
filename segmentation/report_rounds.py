"""What the report says of rounds: how good the student became, and how many minutes of annotation that took."""

from __future__ import annotations

from dataclasses import astuple
from html import escape

from gaze_capture.errors import UserError
from segmentation.progress import Progress, no_progress
from segmentation.report_parts import row, table
from segmentation.rounds import Rounds, choose_reference, rounds
from segmentation.rounds_plot import rounds_figure
from segmentation.runs import latest_run
from segmentation.study import Study

_HEAD = ("", "Run", "Gaze", "Minutes", "Looking", "Again", "Calibrating", "Reviewing", "Reviews", "Dice", "")
_TEXT = (1, 2, 10)


def rounds_section(study: Study, progress: Progress = no_progress) -> str:
    """Return the section on rounds; nothing where no run can be measured on images that tell the truth.

    Raises
    ------
    UserError
        If a file of the study is damaged.
    """
    try:
        latest_run(study)
        choose_reference(study)
    except UserError:
        # No finished run, or neither a true mask that nothing was learned from nor an audit: no fault of the study.
        return ""
    found = rounds(study, progress=progress)
    if not found.rounds:
        return ""
    charted = [one for one in found.rounds if one.spent is not None]
    html = "<h2>Dice against minutes of annotation</h2>"
    if charted:
        html += f'<div class="panel figure">{rounds_figure(found)}</div>'
    return html + f'<p class="note">{_words(found)}</p>' + _table(found)


def _words(found: Rounds) -> str:
    charted = [one for one in found.rounds if one.spent is not None]
    each = "Each point is a run: the" if charted else "For each run the"
    told = [
        f"{each} Dice of its student on {found.reference.words}, and the minutes that annotators had spent when it "
        "read its labels, with 95 % intervals over groups (patients)."
    ]
    minutes = [one.spent.minutes for one in charted if one.spent is not None]
    if charted:
        first, last = charted[0], charted[-1]
        reached = f"{first.name or first.run} reached {first.dice.mean:.3f} after {minutes[0]:.1f} minutes"
        if last is not first:
            reached += (
                f", the latest, {last.name or last.run}, {last.dice.mean:.3f} after {minutes[-1]:.1f} minutes"
            )
        told.append(f"{reached} (gaze: {found.gaze}).")
    told.append(_REFERENCES[found.reference.kind])
    told += found.remarks()
    if found.left_out:
        told.append(
            f"Runs left out, as they have not ended or not predicted these images: {len(found.left_out)}."
        )
    words = escape(" ".join(told))
    if found.simulated_from:
        source = escape(found.simulated_from)
        words = (
            f'<span class="fair">Simulated from {source}</span>: no person looked, so neither the Dice of what was '
            f"learned from this gaze nor the minutes of looking are those of people. {words}"
        )
    return words


_REFERENCES: dict[str, str] = {
    "masks": "The reference: true masks, which came with the images.",
    "audit": "The reference: a blind audit, images drawn at random and outlined without a prediction in view.",
}


def _table(found: Rounds) -> str:
    body, number = [], 0
    for one in found.rounds:
        if one.spent is not None:
            number += 1
            gaze = escape(found.gaze)
            if found.simulated_from:
                gaze = f'<span class="fair">{gaze}</span>'
            minutes = [f"{one.spent.minutes:.1f}", *(f"{value / 60:.1f}" for value in astuple(one.spent))]
            place = str(number)
        else:
            place, gaze, minutes = "", "none: true masks", ["–"] * 5
        body.append(
            row(
                place,
                escape(one.name or one.run),
                gaze,
                *minutes,
                str(one.reviews),
                one.dice_text(),
                escape("; ".join(found.notes(one))),
                text=_TEXT,
            )
        )
    return table(_HEAD, body, text=_TEXT)
