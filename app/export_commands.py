"""``export``: gaze or masks for other programs, into a new folder."""

from __future__ import annotations

import argparse
import dataclasses
from pathlib import Path

from app.argument_types import annotator, positive
from app.commands import AddCommand, Outcome, counted, labels, named
from app.shared_options import add_annotators_option, add_run_option, add_split_option, add_target_option
from gaze_capture.errors import UserError
from segmentation.export import EXPORTERS
from segmentation.mask_choice import WHICH
from segmentation.mask_export import MASK_WRITERS, MASKS_ALONE
from segmentation.progress import Progress
from segmentation.records import MASK_THRESHOLD
from segmentation.study import Study

FORMATS = tuple(dict.fromkeys((*MASK_WRITERS, *EXPORTERS)))


def add_export_commands(add: AddCommand) -> None:
    """Add the commands that bring a study's gaze and masks out."""
    command = add(
        "export",
        export,
        "write masks (png, nifti, dicom-seg, coco, and bids or gazemedseg with --masks) or gaze for other programs",
    )
    command.add_argument("--to", type=Path, required=True, metavar="DIR", help="missing or empty")
    command.add_argument("--format", required=True, choices=FORMATS)
    add_split_option(command, help="only its images, or what was seen of them")
    add_annotators_option(command, help="whose gaze, reviewed masks or audits; default: all")
    masks = command.add_argument_group("masks")
    masks.add_argument(
        "--masks",
        choices=WHICH,
        help="default for png, nifti, dicom-seg and coco: reviewed, those accepted or edited; audit: the outlines of "
        "blind audits alone",
    )
    add_run_option(
        masks,
        help="student: whose, default the latest finished; reviewed: its masks stand in where nobody has judged",
    )
    masks.add_argument(
        "--threshold",
        type=float,
        metavar="P",
        help=f"on the student's probability; default: {MASK_THRESHOLD:g}",
    )
    masks.add_argument("--level", type=float, metavar="L", help="pseudomask: default the widest")
    add_target_option(masks, several=True)
    masks.add_argument(
        "--probability", action="store_true", help="png, nifti: the student's probabilities go along"
    )
    masks.add_argument(
        "--source",
        type=Path,
        nargs="+",
        metavar="DIR",
        help="dicom-seg: the DICOM files that the images came from, which it refers to",
    )
    masks.add_argument("--key", type=Path, metavar="FILE", help="the secret key of the study's pseudonyms")
    gaze = command.add_argument_group("gaze")
    gaze.add_argument("--recording", nargs="+", metavar="ID", help="default: all, and imported gaze")
    gaze.add_argument(
        "--with-images",
        action="store_true",
        help="bids: the images go along as stimuli; they are not by default",
    )

    model = add(
        "export-model",
        export_model,
        "write a run's student for other programs: safetensors, ONNX, a model card and a script that uses it",
    )
    model.add_argument("--to", type=Path, required=True, metavar="DIR", help="missing or empty")
    add_run_option(model)
    model.add_argument(
        "--without-onnx", action="store_true", help="the script then needs this program to be installed"
    )


def add_review_import(add: AddCommand) -> argparse.ArgumentParser:
    """Add ``import-reviews`` and return its parser; what all imports of masks share is added by the caller."""
    reviews = add(
        "import-reviews", import_reviews, "bring masks that were corrected in another program back as reviews"
    )
    reviews.add_argument(
        "path", type=Path, metavar="PATH", help="a folder of masks, or a NIfTI, NRRD, DICOM-SEG, COCO file"
    )
    reviews.add_argument("--annotator", type=annotator, required=True, metavar="A", help="a pseudonym")
    reviews.add_argument("--verdict", choices=("edited", "accepted"), default="edited")
    add_run_option(reviews, help="whose prediction the masks began as")
    reviews.add_argument(
        "--empty",
        action="store_true",
        help="empty masks say that the target is not there; otherwise only where there was a mask before",
    )
    reviews.add_argument("--seconds", type=positive, default=0.0, metavar="S", help="spent on each review")
    return reviews


def import_reviews(args: argparse.Namespace, progress: Progress) -> Outcome:
    """``gaze-insight import-reviews``."""
    from segmentation.import_options import ImportOptions
    from segmentation.review_import import import_reviews

    result = import_reviews(
        Study.open(args.study),
        args.path,
        args.annotator,
        verdict=args.verdict,
        run=args.run_id,
        empty=args.empty,
        seconds=args.seconds,
        labels=labels(args.labels),
        target=args.target,
        options=ImportOptions(axis=args.axis, deidentify=args.deidentify, key=args.key),
        progress=progress,
    )
    lines = [
        f"{counted(result.reviews, 'mask')} of {counted(result.images, 'image')} came in as reviews of "
        f"{args.annotator}, {args.verdict}.",
    ]
    if result.unchanged:
        lines.append(f"{counted(result.unchanged, 'mask')} had not changed.")
    if result.left_empty:
        lines.append(
            f"{counted(result.left_empty, 'empty mask')} of images without a mask before were passed over; with "
            "--empty they say that nothing is there."
        )
    lines += named("Left out", [f"{file}: {reason}" for file, reason in result.skipped])
    values = dataclasses.asdict(result) | {
        "skipped": [{"file": file, "reason": reason} for file, reason in result.skipped]
    }
    return Outcome(values, "\n".join(lines))


def export(args: argparse.Namespace, progress: Progress) -> Outcome:
    """``gaze-insight export``."""
    if args.masks is not None or args.format in MASKS_ALONE:
        return _masks(args, progress)
    for_masks = {
        "--run": args.run_id,
        "--threshold": args.threshold,
        "--level": args.level,
        "--target": args.target,
        "--probability": args.probability,
        "--source": args.source,
    }
    given = [name for name, value in for_masks.items() if value]
    if given:
        raise UserError(
            f"{args.format} holds gaze unless masks are asked for, and {given[0]} is about masks; add --masks."
        )
    return _gaze(args, progress)


def _masks(args: argparse.Namespace, progress: Progress) -> Outcome:
    from segmentation.export_selection import simulated_words
    from segmentation.mask_choice import MaskChoice
    from segmentation.mask_export import export_masks

    if args.format not in MASK_WRITERS:
        raise UserError(f"{args.format} holds gaze alone; masks go out as {', '.join(MASK_WRITERS)}.")
    if args.recording or args.with_images:
        raise UserError("--recording and --with-images are about gaze; leave them away to export masks.")
    result = export_masks(
        Study.open(args.study),
        args.to,
        args.format,
        MaskChoice(
            which=args.masks or "reviewed",
            run=args.run_id,
            threshold=MASK_THRESHOLD if args.threshold is None else args.threshold,
            level=args.level,
            split=args.split,
            targets=tuple(args.target) if args.target else None,
            annotators=tuple(args.annotator) if args.annotator else None,
        ),
        probability=args.probability,
        source=args.source or (),
        key=args.key,
        progress=progress,
    )
    empty = f", {result.empty} of them empty" if result.empty else ""
    lines = [
        f"Exported {counted(result.masks, 'mask')} of {counted(result.images, 'image')}{empty} as {result.format} to "
        f"{result.folder} ({counted(result.files, 'file')}).",
        *named("Please note", result.notes),
    ]
    if result.simulated_from:
        words = simulated_words(result.simulated_from)
        lines.append(f"Gaze behind these masks is {words}, and the manifest says so.")
    return Outcome(dataclasses.asdict(result), "\n".join(lines))


def _gaze(args: argparse.Namespace, progress: Progress) -> Outcome:
    from segmentation.export import export_study
    from segmentation.export_selection import simulated_words

    result = export_study(
        Study.open(args.study),
        args.to,
        args.format,
        annotators=args.annotator,
        split=args.split,
        recordings=args.recording,
        with_images=args.with_images,
        progress=progress,
    )
    lines = [
        f"Exported {counted(result.fixations, 'fixation')} on {counted(result.images, 'image')} and "
        f"{counted(result.recordings, 'recording')} as {result.format} to {result.folder} "
        f"({counted(result.files, 'file')}).",
        *result.notes,
    ]
    if result.simulated_from:
        lines.append(f"This gaze is {simulated_words(result.simulated_from)}, and the export says so.")
    return Outcome(dataclasses.asdict(result), "\n".join(lines))


def export_model(args: argparse.Namespace, progress: Progress) -> Outcome:
    """``gaze-insight export-model``."""
    from segmentation.model_steps import export_model

    result = export_model(Study.open(args.study), args.to, args.run_id, onnx=not args.without_onnx)
    lines = [
        f"Exported the student of {result.run} to {result.folder}: {', '.join(result.files)}.",
        f"Try it: python {Path(result.folder) / 'use_model.py'} IMAGE OUT",
    ]
    if result.onnx_difference is not None:
        lines.append(
            f"ONNX Runtime's probabilities differ from PyTorch's by {result.onnx_difference:.1e} at most."
        )
    if result.simulated_from:
        lines.append(f"It learned from gaze simulated from {result.simulated_from}, and the card says so.")
    return Outcome(dataclasses.asdict(result), "\n".join(lines))
