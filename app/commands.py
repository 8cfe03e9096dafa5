"""What each command does: words of the command line in, values and sentences out. Nothing here has logic of its own."""

from __future__ import annotations

import argparse
import dataclasses
import shlex
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from gaze_capture.errors import UserError
from segmentation.progress import Progress
from segmentation.study import Study

if TYPE_CHECKING:
    from gaze_capture.detectors import Parameters
    from gaze_capture.trackers.screen import KnownScreen


@dataclass(frozen=True)
class Outcome:
    """What a command found: values for ``--json`` and sentences for people."""

    values: dict[str, Any]
    text: str
    status: int = 0
    """The exit status."""


Command = Callable[[argparse.Namespace, Progress], Outcome]


class AddCommand(Protocol):
    """Makes the parser of one command."""

    def __call__(self, name: str, run: Command, help: str, *, study: bool = True) -> argparse.ArgumentParser:
        """Return the parser of a command; ``study``: whether its first argument is a study's folder."""


def counted(count: int, one: str, many: str | None = None) -> str:
    """Return a number with its noun."""
    return f"{count} {one if count == 1 else many or one + 's'}"


def named(label: str, items: Sequence[str], most: int = 10) -> list[str]:
    """Return lines that name skipped items, the first ones in full and the rest as a count."""
    if not items:
        return []
    rest = [f"  ... and {len(items) - most} more"] if len(items) > most else []
    # A file name may hold a line break; a line of the answer may not.
    return [f"{label} ({len(items)}):", *(f"  {' '.join(item.splitlines())}" for item in items[:most]), *rest]


def new(args: argparse.Namespace, progress: Progress) -> Outcome:
    """``gaze-insight new``."""
    study = Study.create(args.study)
    return Outcome(
        {"study": str(study.folder)},
        f"Made the study {study.folder}. Next: gaze-insight import-images {args.study} FOLDER",
    )


def import_images(args: argparse.Namespace, progress: Progress) -> Outcome:
    """``gaze-insight import-images``."""
    from segmentation.import_options import ImportOptions
    from segmentation.steps import import_images

    study = Study.open(args.study)
    options = ImportOptions(
        split=args.split,
        group_by=args.group_by,
        modality=args.modality,
        axis=args.axis,
        every=args.every,
        deidentify=args.deidentify,
        key=args.key,
        blank=tuple(args.blank or ()),
    )
    report = import_images(
        study,
        args.paths,
        masks=args.masks,
        labels=labels(args.labels),
        target=args.target,
        options=options,
        progress=progress,
    )
    volumes = f" ({counted(report.volumes, 'volume')})" if report.volumes else ""
    masks = f", {counted(report.masks, 'true mask')}" if args.masks else ""
    lines = [
        f"Imported {counted(len(report.imported), 'image')}{volumes}{masks} into the split {args.split!r}.",
        *named("Already in the study, by content", report.duplicates),
        *named("Left out", _sentences(report.skipped)),
        *named("Please note", _sentences(report.notes)),
    ]
    if report.burned_in:
        lines += named("Text is likely in the pixels, and may name a patient", report.burned_in)
        lines.append(f"Look at them, then: gaze-insight blank {args.study} --rect X,Y,WIDTH,HEIGHT IMAGE...")
    values = {
        "imported": len(report.imported),
        "volumes": report.volumes,
        "masks": report.masks,
        "duplicates": list(report.duplicates),
        "skipped": [{"file": file, "reason": reason} for file, reason in report.skipped],
        "notes": [{"file": file, "note": note} for file, note in report.notes],
        "burned_in": list(report.burned_in),
    }
    return Outcome(values, "\n".join(lines))


def import_dataset(args: argparse.Namespace, progress: Progress) -> Outcome:
    """``gaze-insight import-dataset``."""
    from segmentation.import_options import ImportOptions
    from segmentation.published import import_dataset

    names = args.test.read_text(encoding="utf-8").split() if args.test else []
    reports = import_dataset(
        Study.open(args.study),
        args.name,
        args.folder,
        test_names=names,
        options=ImportOptions(deidentify=args.deidentify, key=args.key),
        progress=progress,
    )
    lines = []
    for split, report in reports:
        lines.append(
            f"{split}: {counted(len(report.imported), 'image')}, {counted(report.masks, 'true mask')}, "
            f"{len(report.duplicates)} there already."
        )
        lines += named("Left out", _sentences(report.skipped))
    values = {
        split: {
            "imported": len(report.imported),
            "masks": report.masks,
            "duplicates": len(report.duplicates),
            "skipped": [{"file": file, "reason": reason} for file, reason in report.skipped],
        }
        for split, report in reports
    }
    return Outcome(values, "\n".join(lines))


def _sentences(items: Sequence[tuple[str, str]]) -> list[str]:
    return [text if file in text else f"{file}: {text}" for file, text in items]


def labels(words: Sequence[str] | None) -> dict[str, list[str]] | None:
    """Read ``TARGET=1,2`` words; a target may come twice."""
    if words is None:
        return None
    labels: dict[str, list[str]] = {}
    for word in words:
        target, equals, listed = word.partition("=")
        if not equals or not target or not listed:
            raise UserError(f"{word!r} does not say which labels belong to which target; write TARGET=1,2.")
        labels.setdefault(target, []).extend(part.strip() for part in listed.split(",") if part.strip())
    return labels


def import_masks(args: argparse.Namespace, progress: Progress) -> Outcome:
    """``gaze-insight import-masks``."""
    from segmentation.import_options import ImportOptions
    from segmentation.masks import import_masks

    report = import_masks(
        Study.open(args.study),
        args.path,
        labels=labels(args.labels),
        target=args.target,
        options=ImportOptions(axis=args.axis, deidentify=args.deidentify, key=args.key),
        progress=progress,
    )
    lines = [
        f"Stored {counted(report.masks, 'true mask')} for {counted(report.images, 'image')}.",
        *named("Left out", _sentences(report.skipped)),
    ]
    values = {
        "masks": report.masks,
        "images": report.images,
        "skipped": [{"file": file, "reason": reason} for file, reason in report.skipped],
    }
    return Outcome(values, "\n".join(lines))


def blank(args: argparse.Namespace, progress: Progress) -> Outcome:
    """``gaze-insight blank``."""
    from segmentation.blanking import blank, find_text, mark_clean

    study = Study.open(args.study)
    if args.find:
        changed = find_text(study, progress=progress)
        text = "\n".join(
            named("Text is likely in the pixels of", changed) or ["No text was found; that is no proof."]
        )
    elif args.rect:
        changed = blank(study, args.images, args.rect, progress=progress)
        text = f"Blanked {counted(len(changed), 'image')}; the pixels under the rectangles are gone for good."
    else:
        changed = mark_clean(study, args.images)
        text = f"Marked {counted(len(changed), 'image')} as looked at: no text that names a patient."
    return Outcome({"images": changed}, text)


def suggest_groups(args: argparse.Namespace, progress: Progress) -> Outcome:
    """``gaze-insight suggest-groups``."""
    from gaze_capture.storage import write_bytes_atomic
    from segmentation import grouping
    from segmentation.images import encode_display

    study = Study.open(args.study)
    suggestion = grouping.suggest_groups(study, progress)
    changed = grouping.apply_groups(study, suggestion) if args.apply else 0
    moved = grouping.mend_splits(study) if args.mend_splits else 0
    sheet = args.sheet if suggestion.groups else None
    if sheet is not None:
        write_bytes_atomic(sheet, encode_display(grouping.contact_sheet(study, suggestion.groups)))
    leaks = grouping.leaks(study)
    found = sum(map(len, suggestion.groups))
    lines = [
        f"Compared {counted(suggestion.compared, 'image')}: {found} of them show "
        f"{counted(len(suggestion.groups), 'scene')} more than once.",
        *named("They belong together", [", ".join(group) for group in suggestion.groups], 40),
        *named("Could not be read", [reason for _, reason in suggestion.failed]),
    ]
    if sheet is not None:
        lines.append(f"Wrote {sheet}; look at it before you trust the groups.")
    if args.apply:
        lines.append(f"{counted(changed, 'image')} changed group.")
    elif suggestion.groups:
        lines.append("Nothing was changed; --apply makes them groups of the study.")
    if args.mend_splits:
        lines.append(f"{counted(moved, 'image')} changed split.")
    if leaks:
        lines += named(
            "Groups in more than one split (--mend-splits brings each into one)",
            [f"{leak.group}: {', '.join(leak.splits)}" for leak in leaks],
        )
    values = {
        **dataclasses.asdict(suggestion),
        "changed": changed,
        "moved": moved,
        "leaks": [dataclasses.asdict(leak) for leak in leaks],
        "sheet": str(sheet) if sheet is not None else None,
    }
    return Outcome(values, "\n".join(lines))


def split(args: argparse.Namespace, progress: Progress) -> Outcome:
    """``gaze-insight split``."""
    from segmentation.grouping import split_study

    report = split_study(Study.open(args.study), args.share, args.name, args.seed)
    return Outcome(
        dataclasses.asdict(report),
        f"Moved {counted(report.images, 'image')} in {counted(report.groups, 'group')} from train to "
        f"{report.name} ({report.share:.0%}); {report.left} stay in train.",
    )


def record(args: argparse.Namespace, progress: Progress) -> Outcome:
    """``gaze-insight record``."""
    from segmentation.steps import record

    study = Study.open(args.study)
    result = record(
        study,
        args.tracker,
        address=args.address,
        screen=_screen(args),
        rate_hz=args.rate,
        seconds=args.seconds,
        annotator=args.annotator,
        progress=progress,
    )
    values = {
        "recording": result.recording,
        "expected": result.expected,
        "received": result.received,
        "stored": result.stored,
    }
    return Outcome(
        values,
        f"Recorded {result.recording}: {result.stored} of {result.expected} samples expected are stored.",
    )


def _screen(args: argparse.Namespace) -> KnownScreen:
    from gaze_capture.trackers.screen import KnownScreen

    return KnownScreen(args.screen_px, args.screen_mm, args.distance_mm)


def trackers(args: argparse.Namespace, progress: Progress) -> Outcome:
    """``gaze-insight trackers``."""
    from gaze_capture.trackers.discovery import discover

    notes: list[str] = []
    found = sorted(discover(note=notes.append), key=lambda item: (item.kind, item.label, item.address))
    width = max((len(item.kind) for item in found), default=0)
    lines = [
        *(["No eye tracker is found."] if not found else []),
        *(f"{item.kind:<{width}}  {item.label}  --address {shlex.quote(item.address)}" for item in found),
        *notes,
    ]
    return Outcome(
        {"trackers": [dataclasses.asdict(item) for item in found], "notes": notes}, "\n".join(lines)
    )


def bridge(args: argparse.Namespace, progress: Progress) -> Outcome:
    """``gaze-insight bridge``."""
    from gaze_capture.trackers.bridge import bridge
    from gaze_capture.trackers.discovery import open_tracker

    def say(text: str) -> None:
        sys.stderr.write(text + "\n")
        sys.stderr.flush()

    tracker = open_tracker(args.kind, args.address, _screen(args), args.rate)
    result = bridge(tracker, args.name, args.seconds, say)
    return Outcome(
        dataclasses.asdict(result),
        f"Published {counted(result.sent, 'sample')} in {result.seconds:.1f} s as {result.stream!r}.",
    )


def recover(args: argparse.Namespace, progress: Progress) -> Outcome:
    """``gaze-insight recover``."""
    from segmentation.steps import recover_recordings

    report = recover_recordings(Study.open(args.study))
    values = {
        "recordings": [
            {"recording": item.recording, "stored": item.stored, "last_time_ns": item.last_time_ns}
            for item in report.recovered
        ],
        "archived": list(report.archived),
        "failed": [{"recording": name, "reason": reason} for name, reason in report.failed],
    }
    lines = [
        f"Finished {counted(len(report.recovered), 'recording')} that had been cut off.",
        *(
            f"  {item.recording}: {item.stored} samples kept, {item.lost_bytes} torn bytes set aside"
            for item in report.recovered
        ),
        *(
            [f"Archived {counted(len(report.archived), 'recording')} as gaze.parquet, with a certificate."]
            if report.archived
            else []
        ),
        *named("Left as they are", [reason for _, reason in report.failed]),
    ]
    return Outcome(values, "\n".join(lines))


def _detector(args: argparse.Namespace) -> Parameters:
    """Read the detector and the parameters that were given."""
    from gaze_capture.detectors import preset_with

    return preset_with(args.detector, dict(args.parameters or ()))


def fixations(args: argparse.Namespace, progress: Progress) -> Outcome:
    """``gaze-insight fixations``."""
    from gaze_capture.fixations import fixations_from_csv, write_fixation_csv
    from gaze_capture.recording import ScreenGeometry

    (width_px, height_px), (width_mm, height_mm) = args.screen_px, args.screen_mm
    geometry = ScreenGeometry(width_px, height_px, width_mm, height_mm, args.distance_mm)
    parameters = _detector(args)
    rows = fixations_from_csv(args.file, geometry, parameters)
    write_fixation_csv(args.out, rows)
    values = {
        "fixations": len(rows),
        "out": str(args.out),
        "detector": args.detector,
        "parameters": dataclasses.asdict(parameters),
    }
    return Outcome(values, f"Found {counted(len(rows), 'fixation')}; written to {args.out}.")


def detect(args: argparse.Namespace, progress: Progress) -> Outcome:
    """``gaze-insight detect``."""
    from segmentation.steps import detect_again

    parameters = _detector(args)
    report = detect_again(Study.open(args.study), args.recording, parameters=parameters, progress=progress)
    values = {
        "recordings": list(report.recordings),
        "fixations": report.fixations,
        "failed": [{"recording": name, "reason": reason} for name, reason in report.failed],
        "detector": args.detector,
        "parameters": dataclasses.asdict(parameters),
    }
    lines = [
        f"Found {counted(report.fixations, 'fixation')} in {counted(len(report.recordings), 'recording')} "
        f"by {parameters.detector}. Next: gaze-insight pseudomask {args.study}",
        *named("Left as they are", [reason for _, reason in report.failed]),
    ]
    return Outcome(values, "\n".join(lines), 1 if report.failed and not report.recordings else 0)


def simulate(args: argparse.Namespace, progress: Progress) -> Outcome:
    """``gaze-insight simulate``."""
    from segmentation.steps import simulate

    study = Study.open(args.study)
    report = simulate(
        study,
        seed=args.seed,
        split=args.split,
        source=args.source,
        targets=args.targets,
        gives_presence=not args.without_presence,
        progress=progress,
    )
    text = (
        f"Simulated {counted(report.images, 'look')} at images in {counted(len(report.recordings), 'sitting')}, "
        f"{report.from_masks} of them from their true masks. Results made of it are simulated, not a person's."
    )
    if report.without_mask:
        text += f"\n{counted(report.without_mask, 'look')} left out for want of a true mask."
    return Outcome(dataclasses.asdict(report), text)


def targets(args: argparse.Namespace, progress: Progress) -> Outcome:
    """``gaze-insight targets``."""
    from segmentation.steps import add_target, remove_target, rename_target

    study = Study.open(args.study)
    details = (args.name, args.kind, args.inside, args.code, args.colour)
    if args.add is None and any(value is not None for value in details):
        raise UserError("Name the target that this is about: gaze-insight targets STUDY --add ID ...")
    if args.add is not None:
        add_target(
            study,
            args.add,
            args.name,
            kind=args.kind or "lesion",
            inside=args.inside,
            code=args.code or "",
            colour=args.colour,
        )
    if args.rename is not None:
        rename_target(study, *args.rename)
    if args.remove is not None:
        remove_target(study, args.remove)
    lines = [
        f"{target.id}  {target.name}  {target.kind}  {target.colour}"
        + (f"  inside {target.inside}" if target.inside else "")
        + (f"  {target.code}" if target.code else "")
        for target in study.targets
    ]
    return Outcome({"targets": [dataclasses.asdict(target) for target in study.targets]}, "\n".join(lines))


def pseudomask(args: argparse.Namespace, progress: Progress) -> Outcome:
    """``gaze-insight pseudomask``."""
    from segmentation.steps import make_pseudomasks

    study = Study.open(args.study)
    changes: dict[str, Any] = {}
    if args.sigma is not None:
        try:
            changes.update(sigma="degrees", sigma_deg=float(args.sigma))
        except ValueError:
            changes.update(sigma=args.sigma, sigma_deg=None)
    if args.levels is not None:
        changes["thresholds"] = tuple(args.levels)
    if args.refine is not None:
        changes["refine"] = args.refine
    if args.lesions is not None:
        changes["lesions"] = args.lesions
    if args.annotators is not None:
        changes["annotators"] = tuple(args.annotators) or None
    if args.pool is not None:
        changes["pool"] = args.pool
    if args.segmenter is not None and args.refine not in (None, "sam"):
        raise UserError(f"--segmenter goes with --refine sam, not with {args.refine}; leave one of them out.")
    settings = dataclasses.replace(study.pseudomask_settings, **changes)
    report = make_pseudomasks(
        study, settings=settings, segmenter=args.segmenter, split=args.split, progress=progress
    )
    lines = [
        f"Made {counted(report.made, 'pseudo-mask')}; {counted(report.waiting, 'image')} without gaze wait."
    ]
    if report.absent:
        lines.append(f"{counted(report.absent, 'image')} marked absent need none.")
    if report.undecided:
        lines.append(f"{counted(report.undecided, 'image')} marked unsure or ungradable teach nothing.")
    if report.of_others:
        lines.append(
            f"{counted(report.of_others, 'image')} without gaze of these annotators keep the pseudo-mask they had."
        )
    if report.look_again:
        count = counted(len(report.look_again), "image")
        lines += [
            *named(f"{count} to be looked at again", [f"{image}: {why}" for image, why in report.look_again]),
            f"Their gaze was left out; see: gaze-insight gates {args.study}",
        ]
    lines += named("Without a fixation that counts", report.empty)
    lines += named("Left out", [f"{image}: {reason}" for image, reason in report.failed])
    return Outcome(
        {**dataclasses.asdict(report), "settings": study.pseudomask_settings.to_json()}, "\n".join(lines)
    )


def predict(args: argparse.Namespace, progress: Progress) -> Outcome:
    """``gaze-insight predict``."""
    from segmentation import steps
    from segmentation.job import JobEvent

    def show(event: JobEvent) -> None:
        if event.kind == "progress":
            progress(event.step, event.total, f"predicting, {event.values['images_per_s']:.3g} a second")

    result = steps.predict(
        Study.open(args.study),
        args.run_id,
        split=args.split,
        device=args.device,
        engine=args.engine,
        networks=("student", "teacher") if args.teacher else ("student",),
        overwrite=args.again,
        on_event=show,
    )
    who = "The student and the teacher" if args.teacher else "The student"
    before = (
        f"; {result.skipped} were predicted before (--again predicts them anew)" if result.skipped else ""
    )
    return Outcome(
        dataclasses.asdict(result),
        "\n".join(
            [
                f"{who} of {result.run} predicted {counted(result.images, 'image')} "
                f"in {result.seconds:.1f} s{before}.",
                *named("Left out", [f"{one['image']}: {one['reason']}" for one in result.failed]),
            ]
        ),
    )


def evaluate(args: argparse.Namespace, progress: Progress) -> Outcome:
    """``gaze-insight evaluate``."""
    from segmentation.steps import evaluate

    result = evaluate(
        Study.open(args.study), args.run_id, split=args.split, against=args.against, progress=progress
    )
    return Outcome(result.to_json(), result.to_text())


def report(args: argparse.Namespace, progress: Progress) -> Outcome:
    """``gaze-insight report``."""
    from segmentation.report import write_report

    study = Study.open(args.study)
    write_report(study, args.to, run_id=args.run_id)
    return Outcome({"report": str(args.to)}, f"Wrote {args.to}.")


def quality(args: argparse.Namespace, progress: Progress) -> Outcome:
    """``gaze-insight quality``."""
    from gaze_capture.storage import write_json_atomic
    from segmentation.gaze_quality import study_quality
    from segmentation.quality_report import write_quality_report

    study = Study.open(args.study)
    found = study_quality(study, progress)
    if not (found.sources or found.unreadable):
        raise UserError("No image has been looked at yet; record, simulate or import gaze first.")
    values = found.to_json()
    if args.to is not None:
        if args.to.suffix.lower() == ".json":
            write_json_atomic(args.to, values)
        else:
            write_quality_report(study, found, args.to)
        values["report"] = str(args.to)
    return Outcome(values, found.to_text() + (f"\nWrote {args.to}." if args.to is not None else ""))


def pictures(args: argparse.Namespace, progress: Progress) -> Outcome:
    """``gaze-insight pictures``."""
    from segmentation.gaze_pictures import KINDS, draw_pictures

    result = draw_pictures(
        Study.open(args.study),
        args.to,
        kinds=KINDS if args.kind == "both" else (args.kind,),
        as_type=args.as_type,
        annotators=args.annotator,
        split=args.split,
        images=args.image,
        progress=progress,
    )
    failed = [f"{image}: {reason}" for image, reason in result.failed]
    lines = [
        f"Drew {counted(result.pictures, 'picture')} of {counted(result.images, 'image')} into {result.folder}.",
        *named("Left out", failed),
    ]
    return Outcome(dataclasses.asdict(result), "\n".join(lines))


def demo(args: argparse.Namespace, progress: Progress) -> Outcome:
    """``gaze-insight demo``."""
    from segmentation.demo import run_demo

    result = run_demo(args.out, progress=progress)
    if not args.headless and not args.json:
        sys.stderr.write(result.to_text() + "\n")
        from app.main_window import run_window

        run_window(Path(result.study))
    return Outcome(result.to_json(), result.to_text())


def verify(args: argparse.Namespace, progress: Progress) -> Outcome:
    """``gaze-insight verify``."""
    from segmentation.verification import to_json, verify

    found = verify(Study.open(args.study), progress)
    counts = ", ".join(f"{count:,} {what}" for what, count in found.checked.items() if what != "study")
    count = len(found.problems)
    lines = [
        f"Checked {counts or 'an empty study'}.",
        *(["Everything is sound."] if found.sound else [f"Found {counted(count, 'problem')}:"]),
        *(f"  {problem.sentence}" for problem in found.problems),
    ]
    return Outcome(dict(to_json(found)), "\n".join(lines), 0 if found.sound else 1)


def doctor(args: argparse.Namespace, progress: Progress) -> Outcome:
    """``gaze-insight doctor``."""
    from app.doctor import examine

    findings = examine()
    width = max(len(item.name) for item in findings)
    lines = [f"{'ok ' if item.ok else '!! '} {item.name:<{width}}  {item.text}" for item in findings]
    return Outcome({item.name: {"ok": item.ok, "text": item.text} for item in findings}, "\n".join(lines))
