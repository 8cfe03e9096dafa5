"""Where a description and its words come from, in words for people."""

from __future__ import annotations

from PySide6.QtCore import QCoreApplication

from app.description_rows import State, value_in_words
from gaze_capture.errors import UserError
from segmentation import claims
from segmentation.explanation import Explanation, preset_of
from segmentation.explanation_presets import Attribute
from segmentation.revising import is_approved
from segmentation.study import Study


def contradicted(explanation: Explanation) -> dict[str, str]:
    """Return by attribute what a reader has to be told: what measuring contradicts, and what nobody asked for."""
    return {
        # The row says already what it is about.
        one.attribute: one.sentence.partition(": ")[2] or one.sentence
        for one in claims.contradictions(claims.checks_of(explanation))
    }


def _tr(text: str) -> str:
    return QCoreApplication.translate("Origin", text)


def source_of(explanation: Explanation) -> State:
    """Return who said it first."""
    known: dict[str, State] = {"measured": "measured", "annotator": "annotator"}
    return known.get(explanation.backend, "vlm")


def source_word(state: State) -> str:
    """Return a state in a word."""
    return {
        "measured": _tr("Measured"),
        "vlm": _tr("VLM"),
        "annotator": _tr("Annotator"),
        "edited": _tr("Edited"),
        "approved": _tr("Approved"),
    }[state]


def origin_of(explanation: Explanation) -> tuple[str, str]:
    """Return the pill's word and the token of its colour."""
    if is_approved(explanation):
        return source_word("approved"), "accent"
    if explanation.edited:
        return source_word("edited"), "accent"
    source = source_of(explanation)
    return source_word(source), "warning" if source == "vlm" else "muted"


def moment(iso: str) -> str:
    """Return a moment to the minute, UTC."""
    return iso[:16].replace("T", " ")


def cost_in_words(explanation: Explanation) -> str:
    """Say what it took; empty where that is not known."""
    cost, parts = explanation.cost, []
    if cost.seconds:
        parts.append(_tr("{seconds:.1f} s").format(seconds=cost.seconds))
    if cost.requests > 1:
        parts.append(_tr("{count} requests").format(count=cost.requests))
    if tokens := cost.prompt_tokens + cost.completion_tokens:
        parts.append(_tr("{count:,} tokens").format(count=tokens))
    return ", ".join(parts)


def origin_tip(explanation: Explanation) -> str:
    """Say in lines who made it, when, and at what cost; plain text."""
    source = source_of(explanation)
    lines = {
        "measured": [_tr("Computed from the pixels of the gazed region; nobody wrote it.")],
        "annotator": [_tr("In the words of {name}.").format(name=explanation.model)],
    }.get(
        source,
        [_tr("Written by {model}; check it.").format(model=explanation.model or explanation.backend)],
    )
    if explanation.created:
        lines.append(_tr("Made {when} UTC").format(when=moment(explanation.created)))
    if cost := cost_in_words(explanation):
        lines.append(_tr("It took {cost}").format(cost=cost))
    if explanation.touched and explanation.revised_by:
        lines.append(
            _tr("Last changed by {name}, {when} UTC").format(
                name=explanation.revised_by, when=moment(explanation.revised_at)
            )
        )
    return "\n".join(lines)


def state_of(explanation: Explanation, attribute: Attribute) -> tuple[State, str]:
    """Return the state of one attribute, and where it comes from in a sentence; plain text."""
    name, source = attribute.name, source_of(explanation)
    said = {
        "measured": _tr("Measured"),
        "annotator": _tr("Said by {name}").format(name=explanation.model),
    }.get(source, _tr("Said by {name}").format(name=explanation.model or explanation.backend))
    if name in explanation.edited and explanation.original is not None:
        was = value_in_words(explanation.original.get(name), attribute.kind) or _tr("nothing")
        return "edited", _tr("Edited by {who}; was: {was} ({source})").format(
            who=explanation.revised_by, was=was, source=source_word(source)
        )
    if name in explanation.approved:
        return "approved", _tr("{said}; approved by {who}").format(said=said, who=explanation.revised_by)
    return source, said


def attributes_of(study: Study, explanation: Explanation) -> list[tuple[Attribute, bool]]:
    """Return what there is a row for, in the preset's order, and whether it can be edited.

    What the preset does not know any more comes last, and can only be read.
    """
    try:
        preset = preset_of(explanation, study.folder)
    except UserError:  # A damaged preset of the study must not hide what was said.
        known: list[Attribute] = []
    else:
        known = list(preset.attributes)
    names = {one.name for one in known}
    others = [Attribute(name, "") for name in explanation.attributes if name not in names]
    return [(one, True) for one in known] + [(one, False) for one in others]
