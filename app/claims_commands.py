"""What the commands about claims do: descriptions in own words, and what is said against what is measured."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from typing import TYPE_CHECKING

from app.commands import Outcome, counted, named
from gaze_capture.errors import UserError
from segmentation.progress import Progress
from segmentation.study import Study

if TYPE_CHECKING:
    from segmentation.agreement import AgreementRow, Share
    from segmentation.claims import Check


def explanations(args: argparse.Namespace, progress: Progress) -> Outcome:
    """``gaze-insight explanations``."""
    from segmentation.agreement import agreement_table

    study = Study.open(args.study)
    for image_id in args.image or ():
        study.image(image_id)
    rows = agreement_table(
        study, split=args.split, image_ids=args.image, against=args.against, progress=progress
    )
    told, claims = _claims_of(study, args.image, args.against) if args.image else ([], [])
    if not (rows or told):
        raise UserError(
            "Nothing that could be checked was said of any image yet; make explanations with: gaze-insight explain"
        )
    lines = [*told, *(_table(rows, args.against) if rows else ())]
    if args.contradictions:
        for row in rows:
            found = [f"{image}: {check.sentence}" for image, _, check in row.contradictions]
            lines += named(f"{_who(row)}: contradicted or not asked for", found, most=len(found))
    values = {"against": args.against, "models": [row.to_json() for row in rows], "images": claims}
    return Outcome(values, "\n".join(lines))


def _who(row: AgreementRow) -> str:
    return f"{row.backend} {row.model} ({row.preset})"


def _table(rows: Sequence[AgreementRow], against: str) -> list[str]:
    outline = "the true masks" if against == "masks" else "the gazed regions"
    lines = [f"Claims that agree with what is measured of {outline}:"]
    for row in rows:
        total = row.total
        simulated = f", gaze simulated from {' and '.join(row.simulated_from)}" if row.simulated_from else ""
        lines.append(
            f"{_who(row)}: {total.agreeing} of {total.checked} claims in {counted(row.images, 'image')}{simulated}"
        )
        if row.by_construction:
            lines.append("  These are the measurements themselves: that they agree is no evidence.")
            continue
        if row.without_numbers:
            lines.append(
                f"  Nothing was measured of {row.without_numbers}; explain them again to check them."
            )
        lines += [f"  {name.replace('_', ' '):<16}{_share(share)}" for name, share in row.attributes.items()]
    lines.append(
        "In brackets the 95 % interval, then what agrees when descriptions are dealt to other images. "
        "Agreement means that no measurement speaks against a claim, not that it is right."
    )
    return lines


def _share(share: Share) -> str:
    if share.share is None or share.interval is None:
        return "nothing to check"
    low, high = share.interval
    chance = "" if share.by_chance is None else f", by chance {share.by_chance:.0%}"
    return f"{share.agreeing}/{share.checked} {share.share:.0%} ({low:.0%} to {high:.0%}){chance}"


def _claims_of(
    study: Study, image_ids: Sequence[str], against: str
) -> tuple[list[str], list[dict[str, object]]]:
    """Tell every claim of images, of the explanation that counts."""
    from segmentation.agreement import measure_numbers
    from segmentation.claims import checks_of, numbers_of
    from segmentation.explanation import load_explanation

    lines: list[str] = []
    values: list[dict[str, object]] = []
    for image, target in study.iterate_keys():
        if image.id not in image_ids:
            continue
        explanation = load_explanation(study, image.id, target.id)
        if explanation is None:
            lines.append(f"{image.id}, {target.name}: not explained yet.")
            continue
        masks = against == "masks"
        # Of an explanation without numbers, the region as it is now is the best there is.
        anew = masks or (not numbers_of(explanation) and explanation.region_sha256 is not None)
        numbers = measure_numbers(study, explanation, "masks" if masks else "gaze") if anew else None
        checks: list[Check] = checks_of(explanation, numbers)
        lines.append(f"{image.id}, {target.name}: {explanation.text}")
        lines += [f"  {check.verdict:<15}{check.sentence}" for check in checks]
        values.append(
            {
                "image": image.id,
                "target": target.id,
                "text": explanation.text,
                "checks": [vars(check) for check in checks],
            }
        )
    return lines, values


def describe(args: argparse.Namespace, progress: Progress) -> Outcome:
    """``gaze-insight describe``."""
    from segmentation.explaining import explain_in_own_words
    from segmentation.own_words_store import read_notes

    study = Study.open(args.study)
    target = study.target(args.target)
    refused: list[tuple[str, str]] = []
    if args.file is not None:
        if args.image or args.note:
            raise UserError("A file of notes names its own images; leave out the image and --note.")
        notes = read_notes(study, args.file)
        said, refused = notes.said, list(notes.refused)
    elif args.image:
        said = [(args.image, args.words)]
    else:
        raise UserError("Name the image that is described, or give many in a CSV file with --file.")
    described, waiting, texts = [], [], []
    for number, (image_id, words) in enumerate(said):
        progress(number, len(said), image_id)
        try:
            made = explain_in_own_words(study, image_id, target.id, args.annotator, words, args.note or "")
        except UserError as error:
            study.check_there()
            refused.append((image_id, str(error)))
            continue
        described.append(image_id)
        if made is None:
            waiting.append(image_id)
        else:
            texts.append(f"{image_id}: {made.text}")
    if refused and not described:
        raise UserError(f"Nothing was kept: {refused[0][0]}: {refused[0][1]}")
    lines = [f"Kept the words on {counted(len(described), 'image')}.", *texts[:3]]
    if waiting:
        lines.append(
            f"{counted(len(waiting), 'image')} without a pseudo-mask: make it, then read the words with: "
            f"gaze-insight explain {args.study} --backend annotator"
        )
    lines += named("Refused", [f"{what}: {why}" for what, why in refused])
    values = {
        "described": described,
        "waiting": waiting,
        "refused": [{"where": what, "reason": why} for what, why in refused],
    }
    return Outcome(values, "\n".join(lines))
