"""What the report says of explanations: what of each is contradicted, and how far each model agrees with numbers."""

from __future__ import annotations

from html import escape

from segmentation.agreement import AgreementRow, Share, agreement_table
from segmentation.claims import CHECKED_ATTRIBUTES, checks_of, contradictions
from segmentation.explanation import Explanation
from segmentation.progress import Progress, no_progress
from segmentation.report_parts import row, table
from segmentation.study import Study

CONTRADICTIONS_LISTED = 20
"""The rest is listed by the command line."""


def described(explanation: Explanation) -> str:
    """Return an explanation and what of it is contradicted; a reply is data and shown as the text it is."""
    html = f'<p class="explained">{escape(explanation.text)}</p>'
    for check in contradictions(checks_of(explanation)):
        word = "Contradicted" if check.verdict == "contradicts" else "Not asked for"
        html += f'<p class="contradicted"><b>{word}</b> {escape(check.sentence)}</p>'
    return html


def agreement_section(study: Study, progress: Progress = no_progress) -> str:
    """Return the table of agreement per model, and the contradictions; nothing where nothing is explained."""
    rows = agreement_table(study, progress=progress)
    if not rows:
        return ""
    names = [name for name in CHECKED_ATTRIBUTES if any(name in one.attributes for one in rows)]
    names += sorted({name for one in rows for name in one.attributes} - set(names))
    head = (
        "Described by",
        "Preset",
        "Gaze",
        "Images",
        "Claims that agree",
        *(_title(name) for name in names),
    )
    html = (
        '<h2>Explanations</h2><p class="note">Claims that agree with what was measured of the gazed region, of those '
        "that could be checked, with the 95 % interval of Wilson; below, what agrees when the same descriptions are "
        "dealt to other images. A claim is contradicted only where it is further from the measurement than a gazed "
        "region usually is from the target: agreement means that no measurement speaks against it, not that it is "
        "right. What a model says of its own confidence is not used.</p>"
        + table(head, (_row(one, names) for one in rows), text=(1, 2))
    )
    if any(one.by_construction for one in rows):
        html += (
            '<p class="note">Measured descriptions are the measurements themselves and agree with them by '
            "construction: they are no evidence and are not counted.</p>"
        )
    found = [(one, *each) for one in rows for each in one.contradictions]
    if found:
        several = len(study.targets) > 1
        body = [
            row(
                escape(f"{image} · {study.target(target).name}" if several else image),
                _who(one),
                "contradicted" if check.verdict == "contradicts" else "not asked for",
                escape(check.sentence),
                text=(1, 2, 3),
            )
            for one, image, target, check in found[:CONTRADICTIONS_LISTED]
        ]
        more = len(found) - len(body)
        rest = (
            f'<p class="note">And {more} more: gaze-insight explanations --contradictions.</p>'
            if more
            else ""
        )
        html += (
            f"<h3>Contradicted or not asked for: {len(found)}</h3>"
            + table(("Image", "Described by", "", "Claim"), body, text=(1, 2, 3))
            + rest
        )
    return html


def _title(name: str) -> str:
    return name.replace("_", " ").capitalize()


def _who(one: AgreementRow) -> str:
    return escape("measured" if one.backend == "measured" else f"{one.backend} {one.model}")


def _row(one: AgreementRow, names: list[str]) -> str:
    simulated = " and ".join(one.simulated_from)
    gaze = f'<span class="fair">simulated from {escape(simulated)}</span>' if simulated else "of people"
    total = one.total
    if one.by_construction:
        cells = ["by construction"] + ["–"] * len(names)
    else:
        unmeasured = f"; {one.without_numbers} not measured" if one.without_numbers else ""
        cells = [f"{total.agreeing} of {total.checked}{unmeasured}"]
        cells += [_share(one.attributes.get(name)) for name in names]
    return row(_who(one), escape(one.preset), gaze, str(one.images), *cells, text=(1, 2))


def _share(share: Share | None) -> str:
    if share is None or share.share is None or share.interval is None:
        return "–"
    low, high = share.interval
    chance = "" if share.by_chance is None else f'<br><span class="sd">by chance {share.by_chance:.0%}</span>'
    return f'{share.share:.0%} <span class="sd">({low:.0%} to {high:.0%})</span>{chance}'
