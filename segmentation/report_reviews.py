"""What the report says of reviews: verdicts, time, what was changed, how far annotators agree, and pictures of it."""

from __future__ import annotations

import contextlib
import math
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from html import escape

import numpy as np

from gaze_capture.errors import UserError
from segmentation.bootstrap import Interval
from segmentation.evaluation import Spread
from segmentation.metrics import dice
from segmentation.progress import Progress, no_progress
from segmentation.reader_agreement import reader_agreement
from segmentation.records import Key
from segmentation.report_figures import Overlay, legend, overlay_figure
from segmentation.report_parts import row, table
from segmentation.review_index import Review
from segmentation.study import Mask, Study

FIGURES = 6


@dataclass(frozen=True)
class Edit:
    """One edited mask beside what was shown before."""

    review: Review
    before: Mask
    after: Mask

    @property
    def dice(self) -> float:
        """How alike the two are, 0..1."""
        return dice(self.before, self.after)

    @property
    def changed(self) -> float:
        """Share of the image's pixels that were changed, 0..1."""
        return float((self.before ^ self.after).mean())


def review_section(study: Study, progress: Progress = no_progress) -> str:
    """Return the section on reviews; nothing where nothing was reviewed."""
    reviews = {key: found for key, found in study.all_reviews().items() if key[0] in study.images}
    every = [review for found in reviews.values() for review in found]
    if not every:
        return ""
    html = "<h2>Reviews</h2>" + _verdicts(every)
    edits = list(_edits(study, reviews, progress))
    html += _edited(study, edits)
    html += _agreement(study, progress)
    return html + _figures(study, edits)


def _verdicts(reviews: Sequence[Review]) -> str:
    groups: dict[tuple[str, str], list[Review]] = {}
    for review in reviews:
        groups.setdefault((review.annotator, review.purpose), []).append(review)
    body = []
    for (annotator, purpose), found in sorted(groups.items()):
        verdicts = Counter("nothing" if review.presence == "absent" else review.verdict for review in found)
        # What came in from another program has no time.
        seconds = [review.seconds_spent for review in found if review.seconds_spent > 0]
        unseen = sum(review.gaze_on_mask_ms == 0 for review in found if review.verdict == "accepted")
        watched = any(review.gaze_on_mask_ms is not None for review in found)
        body.append(
            row(
                escape(annotator),
                escape(purpose),
                str(len(found)),
                str(verdicts["accepted"]),
                str(verdicts["edited"]),
                str(verdicts["rejected"]),
                str(verdicts["nothing"]),
                f"{np.median(seconds):.1f} s" if seconds else "–",
                f"{sum(seconds) / 60:.1f} min" if seconds else "–",
                str(unseen) if watched else "–",
                text=(1,),
            )
        )
    head = (
        "Annotator", "Purpose", "Reviews", "Accepted", "Edited", "Rejected", "Nothing here", "Median time", "All time",
        "Not looked at",
    )  # fmt: skip
    return (
        '<p class="note">Every verdict that stands counts, earlier ones of the same image included. An audit is an '
        "outline drawn blind to every mask; a second read is blind to what others said. Not looked at: accepted "
        "without the eyes having been on the mask, where a tracker ran. Unsure and ungradable are among those "
        "rejected.</p>" + table(head, body, text=(1,))
    )


def _edits(study: Study, reviews: dict[Key, list[Review]], progress: Progress) -> Iterator[Edit]:
    """Yield what was edited last in each image, with what a run or pseudo-mask had shown."""
    keys = [key for key, found in reviews.items() if any(_is_edit(review) for review in found)]
    for number, key in enumerate(keys):
        progress(number, len(keys), key[0])
        latest = next((one for one in reversed(study.named_reviews(*key).items()) if _is_edit(one[1])), None)
        # A file that is gone or damaged is told by `verify`, and not by the report.
        with contextlib.suppress(UserError):
            if latest is None:
                continue
            name, review = latest
            before, after = _shown_before(study, review), study.review_mask(*key, name)
            if before is not None and after is not None and before.shape == after.shape:
                yield Edit(review, before, after)


def _is_edit(review: Review) -> bool:
    # To say that nothing is there takes one key; nobody drew anything.
    drawn = bool(review.edits) or review.presence != "absent"
    return drawn and review.verdict == "edited" and review.purpose in ("review", "consensus")


def _shown_before(study: Study, review: Review) -> Mask | None:
    key = review.image_id, review.target_id
    if review.subject == "pseudomask":
        pseudomask = study.pseudomask(*key)
        return None if pseudomask is None else pseudomask.masks[-1]
    probability = study.prediction(review.subject, *key)
    return None if probability is None else probability >= review.threshold


def _edited(study: Study, edits: Sequence[Edit]) -> str:
    if not edits:
        return ""
    body = []
    for target in study.targets:
        own = [edit for edit in edits if edit.review.target_id == target.id]
        if own:
            grown = sum(edit.after.sum() > edit.before.sum() for edit in own)
            tools = Counter(tool for edit in own for tool in dict.fromkeys(edit.review.edits))
            body.append(
                row(
                    escape(target.name),
                    escape(", ".join(f"{name} {count}" for name, count in tools.most_common(5)) or "–"),
                    str(len(own)),
                    _spread([edit.dice for edit in own], 3),
                    f"{np.median([edit.changed for edit in own]):.2%}",
                    f"{max(edit.changed for edit in own):.2%}",
                    f"{grown} / {len(own) - grown}",
                    text=(1,),
                )
            )
    head = (
        "Target",
        "Tools, images",
        "Edited",
        "Dice to what was shown",
        "Changed, median",
        "Most",
        "Larger / not",
    )
    return (
        '<h3>What was changed</h3><p class="note">Edited masks against the mask that was shown. Changed is the share '
        "of the image's pixels that differ.</p>" + table(head, body, text=(1,))
    )


def _agreement(study: Study, progress: Progress) -> str:
    try:
        pairs = reader_agreement(study, progress=progress)
    except UserError as error:
        pairs, told = [], str(error)
    else:
        told = ""
    if not pairs and not told:
        return ""
    html = "<h3>Agreement of annotators</h3>"
    if told:
        return f'{html}<p class="note">It could not be measured: {escape(told)}</p>'
    body = [
        row(
            escape(study.target(one.target).name),
            escape(one.annotators[0]),
            escape(one.annotators[1]),
            str(one.images),
            str(one.blind),
            str(one.masks),
            _interval(one.dice),
            _interval(one.pixel_kappa),
            _interval(one.presence_kappa),
            f"{one.presence_agreed:.0%} of {one.presence_images}" if one.presence_images else "–",
            text=(0, 1, 2),
        )
        for one in pairs
    ]
    head = (
        "Target", "Annotator", "And", "Images", "Blind", "Masks", "Dice", "Kappa of pixels", "Kappa of presence",
        "Same word",
    )  # fmt: skip
    return (
        f'{html}<p class="note">The latest mask of each, as <code>gaze-insight readers</code> tells it. Dice is over '
        "the masks of which at least one is not empty; where both are, the words on presence agree. Blind: read by one "
        "of the two without seeing what the other said. Intervals are 95 %, groups (patients) resampled.</p>"
        + table(head, body, text=(0, 1, 2))
    )


def _interval(interval: Interval) -> str:
    if math.isnan(interval.mean):
        return "–"
    bounds = "" if math.isnan(interval.low) else f" [{interval.low:.3f}, {interval.high:.3f}]"
    return f"{interval.mean:.3f}{bounds}"


def _figures(study: Study, edits: Sequence[Edit]) -> str:
    worst = sorted(edits, key=lambda edit: (edit.dice, edit.review.image_id, edit.review.target_id))[:FIGURES]
    if not worst:
        return ""
    cards = []
    for edit in worst:
        review = edit.review
        image = study.image(review.image_id)
        overlay = Overlay(
            read=lambda image=image: study.shown(image),  # type: ignore[misc]
            fixations=tuple(study.fixations.get((review.image_id, review.target_id), ())),
            student=edit.before,
            reviewed=edit.after,
        )
        several = len(study.targets) > 1
        name = f"{image.id} · {study.target(review.target_id).name}" if several else image.id
        shown = "pseudo-mask" if review.subject == "pseudomask" else review.subject
        cards.append(
            f"<figure>{overlay_figure(overlay)}"
            f'<figcaption><span class="name" title="{escape(name)}">{escape(name)}</span>'
            f"<b>Dice {edit.dice:.3f}</b></figcaption>"
            f'<p class="explained">{escape(review.annotator)}, {review.seconds_spent:.0f} s; shown: {escape(shown)}, '
            f"{edit.changed:.2%} of the pixels changed</p></figure>"
        )
    return (
        '<h3>Masks that were changed most</h3><p class="note">Left: gaze. Right: what was shown and what it became.</p>'
        + legend(("student", "what was shown"), ("reviewed", "reviewed mask"))
        + f'<div class="gallery">{"".join(cards)}</div>'
    )


def _spread(values: Sequence[float], digits: int) -> str:
    spread = Spread.of(list(values)).to_json()
    tail = f' <span class="sd">± {spread["sd"]:.{digits}f}</span>' if spread["sd"] is not None else ""
    return f"{spread['mean']:.{digits}f}{tail}"
