"""The command line: every step of the day without a window."""

from __future__ import annotations

import argparse
import contextlib
import dataclasses
import importlib.metadata
import json
import os
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from gaze_capture.errors import UserError
from segmentation.importing import Progress
from segmentation.study import Study


@dataclass(frozen=True)
class Outcome:
    """What a command found: values for ``--json`` and sentences for people."""

    values: dict[str, Any]
    text: str


Command = Callable[[argparse.Namespace, Progress], Outcome]


def version() -> str:
    """Return the program's version."""
    return importlib.metadata.version("gaze-insight")


def run_command(arguments: Sequence[str]) -> int:
    """Run one command; return 0 on success, 1 when nothing could be done, 2 on wrong usage."""
    parser = _parser()
    try:
        args = parser.parse_args(arguments)
    except SystemExit as error:
        return int(error.code or 0)
    try:
        with _progress_bar(args.json) as progress:
            outcome: Outcome = args.run(args, progress)
        text = json.dumps(outcome.values, ensure_ascii=False) if args.json else outcome.text
        sys.stdout.write(text + "\n")
        sys.stdout.flush()
    except UserError as error:
        sys.stderr.write(f"{error}\n")
        return 1
    except KeyboardInterrupt:
        sys.stderr.write("Stopped. Everything finished so far is kept.\n")
        return 130
    except BrokenPipeError:
        # The reader (head, less) has gone; Python would complain once more when it flushes at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    return 0


@contextlib.contextmanager
def _progress_bar(quiet: bool) -> Iterator[Progress]:
    """Show a bar on stderr while work goes on; none for ``--json`` scripts or where stderr is no terminal."""
    if quiet or not sys.stderr.isatty():
        yield lambda done, total, label: None
        return
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeRemainingColumn
    from rich.progress import Progress as Bar

    columns = (
        TextColumn("{task.description:<28.28}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeRemainingColumn(),
    )
    with Bar(*columns, console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task("", total=None)
        yield lambda done, total, label: bar.update(task, completed=done, total=total, description=label)


def _counted(count: int, one: str, many: str | None = None) -> str:
    return f"{count} {one if count == 1 else many or one + 's'}"


def _named(label: str, items: Sequence[str], most: int = 10) -> list[str]:
    """Lines that name skipped items, the first ones in full and the rest as a count."""
    if not items:
        return []
    rest = [f"  ... and {len(items) - most} more"] if len(items) > most else []
    return [f"{label} ({len(items)}):", *(f"  {item}" for item in items[:most]), *rest]


# The commands


def _new(args: argparse.Namespace, progress: Progress) -> Outcome:
    study = Study.create(args.study)
    return Outcome(
        {"study": str(study.folder)},
        f"Made the study {study.folder}. Next: gaze-insight import-images {args.study} FOLDER",
    )


def _import_images(args: argparse.Namespace, progress: Progress) -> Outcome:
    from segmentation.steps import import_images

    study = Study.open(args.study)
    report = import_images(
        study, args.paths, masks=args.masks, split=args.split, group_by=args.group_by, progress=progress
    )
    masks = f", {_counted(report.masks, 'true mask')}" if args.masks else ""
    lines = [
        f"Imported {_counted(len(report.imported), 'image')}{masks} into the split {args.split!r}.",
        *_named("Already in the study, by content", report.duplicates),
        *_named(
            "Left out",
            [f"{reason}" if file in reason else f"{file}: {reason}" for file, reason in report.skipped],
        ),
    ]
    values = {
        "imported": len(report.imported),
        "masks": report.masks,
        "duplicates": list(report.duplicates),
        "skipped": [{"file": file, "reason": reason} for file, reason in report.skipped],
    }
    return Outcome(values, "\n".join(lines))


def _import_gaze(args: argparse.Namespace, progress: Progress) -> Outcome:
    from segmentation.steps import import_gaze

    study = Study.open(args.study)
    report = import_gaze(
        study,
        args.file,
        format=args.format,
        split=args.split,
        annotator=args.annotator,
        image_width_deg=args.image_width_deg,
        simulated_from=args.simulated_from,
        progress=progress,
    )
    again = " It was imported before and has been replaced." if report.already_there else ""
    lines = [
        f"Imported {_counted(report.fixations, 'fixation')} on {_counted(report.images, 'image')}.{again}"
    ]
    if report.outside_image:
        lines.append(f"{report.outside_image} lie outside their image and will not count in heatmaps.")
    if report.dropped:
        lines.append(f"{report.dropped} rows without a duration were dropped.")
    lines += _named("Images named in the file but not in the study", report.unknown_images)
    return Outcome(dataclasses.asdict(report), "\n".join(lines))


def _record(args: argparse.Namespace, progress: Progress) -> Outcome:
    from segmentation.steps import record

    study = Study.open(args.study)
    result = record(
        study,
        args.tracker,
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


def _recover(args: argparse.Namespace, progress: Progress) -> Outcome:
    from segmentation.steps import recover_recordings

    report = recover_recordings(Study.open(args.study))
    values = {
        "recordings": [
            {"recording": item.recording, "stored": item.stored, "last_time_ns": item.last_time_ns}
            for item in report.recovered
        ],
        "failed": [{"recording": name, "reason": reason} for name, reason in report.failed],
    }
    lines = [
        f"Finished {_counted(len(report.recovered), 'recording')} that had been cut off.",
        *(
            f"  {item.recording}: {item.stored} samples kept, {item.lost_bytes} torn bytes set aside"
            for item in report.recovered
        ),
        *_named("Left as they are", [reason for _, reason in report.failed]),
    ]
    return Outcome(values, "\n".join(lines))


def _fixations(args: argparse.Namespace, progress: Progress) -> Outcome:
    from gaze_capture.fixations import fixations_from_csv, write_fixation_csv
    from gaze_capture.recording import ScreenGeometry

    (width_px, height_px), (width_mm, height_mm) = args.screen_px, args.screen_mm
    geometry = ScreenGeometry(width_px, height_px, width_mm, height_mm, args.distance_mm)
    rows = fixations_from_csv(args.file, geometry)
    write_fixation_csv(args.out, rows)
    return Outcome(
        {"fixations": len(rows), "out": str(args.out)},
        f"Found {_counted(len(rows), 'fixation')}; written to {args.out}.",
    )


def _simulate(args: argparse.Namespace, progress: Progress) -> Outcome:
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
        f"Simulated {_counted(report.images, 'look')} at images in {_counted(len(report.recordings), 'sitting')}, "
        f"{report.from_masks} of them from their true masks. Results made of it are simulated, not a person's."
    )
    if report.without_mask:
        text += f"\n{_counted(report.without_mask, 'look')} left out for want of a true mask."
    return Outcome(dataclasses.asdict(report), text)


def _targets(args: argparse.Namespace, progress: Progress) -> Outcome:
    from segmentation.steps import add_target, rename_target

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
    lines = [
        f"{target.id}  {target.name}  {target.kind}  {target.colour}"
        + (f"  inside {target.inside}" if target.inside else "")
        + (f"  {target.code}" if target.code else "")
        for target in study.targets
    ]
    return Outcome({"targets": [dataclasses.asdict(target) for target in study.targets]}, "\n".join(lines))


def _pseudomask(args: argparse.Namespace, progress: Progress) -> Outcome:
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
    settings = dataclasses.replace(study.pseudomask_settings, **changes)
    report = make_pseudomasks(study, settings=settings, split=args.split, progress=progress)
    lines = [
        f"Made {_counted(report.made, 'pseudo-mask')}; {_counted(report.waiting, 'image')} without gaze wait."
    ]
    if report.absent:
        lines.append(f"{_counted(report.absent, 'image')} marked absent need none.")
    if report.undecided:
        lines.append(f"{_counted(report.undecided, 'image')} marked unsure or ungradable teach nothing.")
    lines += _named("Without a fixation that counts", report.empty)
    lines += _named("Left out", [f"{image}: {reason}" for image, reason in report.failed])
    return Outcome({**dataclasses.asdict(report), "settings": settings.to_json()}, "\n".join(lines))


def _explain(args: argparse.Namespace, progress: Progress) -> Outcome:
    from segmentation.steps import explain

    study = Study.open(args.study)
    result = explain(
        study,
        backend=args.backend,
        base_url=args.base_url,
        model=args.model,
        split=args.split,
        progress=progress,
    )
    values = {
        "done": result.done,
        "failed": [{"image": image, "reason": reason} for image, reason in result.failed],
        "requests": result.requests,
        "skipped": result.skipped,
        "waiting": result.waiting,
    }
    failed = [f"{image}: {reason}" for image, reason in result.failed]
    return Outcome(
        values, "\n".join([f"Explained {_counted(result.done, 'image')}.", *_named("Failed", failed)])
    )


def _train(args: argparse.Namespace, progress: Progress) -> Outcome:
    from gaze_capture.storage import read_json
    from segmentation import steps
    from segmentation.job import JobEvent, RunSpec

    study = Study.open(args.study)
    if args.config is not None:
        spec = RunSpec.from_json(read_json(args.config), str(args.config))
    else:
        spec = steps.preset(args.method or "gaze-to-insight", args.preset or "cpu")
    chosen = {
        "method": args.method,
        "split": args.split,
        "device": args.device,
        "iterations": args.iterations,
        "max_minutes": args.max_minutes,
        "seed": args.seed,
        "targets": tuple(args.targets) if args.targets else None,
        "normalisation": {**spec.normalisation, **dict(args.normalise)} if args.normalise else None,
    }
    spec = dataclasses.replace(spec, **{name: value for name, value in chosen.items() if value is not None})

    def show(event: JobEvent) -> None:
        if event.kind == "progress":
            progress(event.step, event.total, str(event.values.get("name", "")))
        elif event.kind == "step":
            progress(event.step, event.total, f"training, loss {event.values['losses']['total'] or 0:.3f}")

    result = steps.train(study, spec, resume=args.resume, on_event=show)
    return Outcome(
        dataclasses.asdict(result),
        f"Trained {result.run}: {result.iterations} iterations in {result.seconds:.0f} s on {result.device}. "
        f"Next: gaze-insight predict {args.study}",
    )


def _predict(args: argparse.Namespace, progress: Progress) -> Outcome:
    from segmentation import steps
    from segmentation.job import JobEvent

    def show(event: JobEvent) -> None:
        if event.kind == "progress":
            progress(event.step, event.total, "predicting")

    result = steps.predict(
        Study.open(args.study), args.run_id, split=args.split, device=args.device, on_event=show
    )
    return Outcome(
        dataclasses.asdict(result),
        f"The student of {result.run} predicted {_counted(result.images, 'image')} in {result.seconds:.1f} s.",
    )


def _evaluate(args: argparse.Namespace, progress: Progress) -> Outcome:
    from segmentation.steps import evaluate

    result = evaluate(
        Study.open(args.study), args.run_id, split=args.split, against=args.against, progress=progress
    )
    return Outcome(result.to_json(), result.to_text())


def _report(args: argparse.Namespace, progress: Progress) -> Outcome:
    from segmentation.report import write_report

    study = Study.open(args.study)
    write_report(study, args.to, run_id=args.run_id)
    return Outcome({"report": str(args.to)}, f"Wrote {args.to}.")


def _demo(args: argparse.Namespace, progress: Progress) -> Outcome:
    from segmentation.demo import run_demo

    result = run_demo(args.out, progress=progress)
    if not args.headless and not args.json:
        sys.stderr.write(result.to_text() + "\n")
        from app.main_window import run_window

        run_window(Path(result.study))
    return Outcome(result.to_json(), result.to_text())


def _doctor(args: argparse.Namespace, progress: Progress) -> Outcome:
    from app.doctor import examine

    findings = examine()
    width = max(len(item.name) for item in findings)
    lines = [f"{'ok ' if item.ok else '!! '} {item.name:<{width}}  {item.text}" for item in findings]
    return Outcome({item.name: {"ok": item.ok, "text": item.text} for item in findings}, "\n".join(lines))


# The words


def _pair(kind: type) -> Callable[[str], tuple[Any, Any]]:
    def parse(text: str) -> tuple[Any, Any]:
        first, cross, second = text.lower().partition("x")
        values = (kind(first), kind(second))
        if not cross or min(values) <= 0:
            raise ValueError(text)
        return values

    parse.__name__ = "WxH"
    return parse


def _rule(text: str) -> tuple[str, str]:
    from segmentation.intensity import check_rules

    modality, equals, rule = text.partition("=")
    if not equals:
        raise argparse.ArgumentTypeError(f'{text} should look like ct="window -600 1500"')
    try:
        check_rules({modality: rule})
    except UserError as error:
        raise argparse.ArgumentTypeError(str(error)) from None
    return modality, rule


def _positive(text: str) -> float:
    value = float(text)
    if not 0 < value < float("inf"):
        raise argparse.ArgumentTypeError(f"{text} should be greater than 0")
    return value


def _count(text: str) -> int:
    value = int(text)
    if value < 1:
        raise argparse.ArgumentTypeError(f"{text} should be at least 1")
    return value


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="gaze-insight",
        description="Turn a clinician's gaze into a segmentation model. Without a command it opens the window. "
        "Research use only, not a medical device.",
    )
    parser.add_argument("--version", action="version", version=f"gaze-insight {version()}")
    commands = parser.add_subparsers(title="commands", metavar="COMMAND", required=True)

    def add(name: str, run: Command, help: str, *, study: bool = True) -> argparse.ArgumentParser:
        command = commands.add_parser(name, help=help, description=help[0].upper() + help[1:] + ".")
        if study:
            command.add_argument("study", type=Path, metavar="STUDY", help="the study's folder")
        command.add_argument("--json", action="store_true", help="print one JSON object")
        command.set_defaults(run=run)
        return command

    demo = add("demo", _demo, "run the whole day on an embedded phantom study", study=False)
    demo.add_argument(
        "--headless", action="store_true", help="print where things are instead of opening the window"
    )
    demo.add_argument("--out", type=Path, default=Path("gaze-insight-demo"), metavar="DIR")

    add("new", _new, "make a study")

    targets = add("targets", _targets, "list the targets of a study, add or rename one")
    targets.add_argument("--add", metavar="ID", help="letters, digits, - and _")
    targets.add_argument("--name", metavar="N")
    targets.add_argument("--kind", choices=("lesion", "organ", "zone"))
    targets.add_argument("--inside", metavar="ID", help="the target it is a part of")
    targets.add_argument("--code", metavar="C", help="scheme first, like SCT:41216001")
    targets.add_argument("--colour", metavar="#RRGGBB", help="default: one that no other target has")
    targets.add_argument("--rename", nargs=2, metavar=("ID", "NAME"))

    images = add("import-images", _import_images, "copy images into a study")
    images.add_argument("paths", type=Path, nargs="+", metavar="PATH", help="files and folders")
    images.add_argument("--masks", type=Path, metavar="DIR", help="true masks, named like the images")
    images.add_argument(
        "--split", default="train", metavar="NAME", help="default: train; test is never trained on"
    )
    images.add_argument("--group-by", metavar="REGEX", help="names the group (patient) in a file's path")

    gaze = add("import-gaze", _import_gaze, "import fixations of another program")
    gaze.add_argument("file", type=Path, metavar="FILE")
    gaze.add_argument("--format", default="auto", choices=("auto", "gazemedseg"))
    gaze.add_argument("--split", metavar="NAME", help="only images of this split")
    gaze.add_argument("--annotator", default="imported", metavar="A", help="a pseudonym, not a name")
    gaze.add_argument(
        "--image-width-deg", type=_positive, metavar="D", help="how wide the images were on the screen"
    )
    gaze.add_argument(
        "--simulated-from", choices=("masks", "saliency"), help="no person looked: label the results so"
    )

    record = add("record", _record, "record gaze without a window")
    record.add_argument("--tracker", required=True, choices=("simulated", "replay"))
    record.add_argument("--rate", type=_positive, default=None, metavar="HZ")
    record.add_argument("--seconds", type=_positive, metavar="S", help="default: 10, or the whole replay")
    record.add_argument("--annotator", default="headless", metavar="A")

    add("recover", _recover, "finish recordings that a crash cut off")

    fixations = add("fixations", _fixations, "detect fixations in a CSV of samples", study=False)
    fixations.add_argument(
        "file", type=Path, metavar="FILE", help="CSV with time_ms,x_px,y_px; empty means invalid"
    )
    fixations.add_argument("--out", type=Path, required=True, metavar="CSV")
    fixations.add_argument("--screen-px", type=_pair(int), required=True, metavar="WxH")
    fixations.add_argument("--screen-mm", type=_pair(float), required=True, metavar="WxH")
    fixations.add_argument("--distance-mm", type=_positive, required=True, metavar="D")

    simulate = add("simulate", _simulate, "let a synthetic clinician look at images without gaze")
    simulate.add_argument("--seed", type=int, default=0, metavar="N")
    simulate.add_argument("--split", metavar="NAME")
    simulate.add_argument("--source", choices=("auto", "masks", "saliency"), default="auto")
    simulate.add_argument("--target", dest="targets", nargs="+", metavar="ID", help="default: every target")
    simulate.add_argument(
        "--without-presence", action="store_true", help="never say whether the target is there"
    )

    pseudomask = add("pseudomask", _pseudomask, "turn fixations into nested pseudo-masks")
    pseudomask.add_argument(
        "--levels", type=float, nargs="+", metavar="L", help="descending, between 0 and 1"
    )
    pseudomask.add_argument("--refine", choices=("none", "crf"))
    pseudomask.add_argument(
        "--sigma", metavar="DEG|PRESET", help="degrees, or fraction, gazemedseg-70, gazemedseg-50"
    )
    pseudomask.add_argument(
        "--lesions",
        choices=("annotated", "clusters", "together"),
        help="what has a peak of its own: lesions told apart, regions looked at, or all gaze as one",
    )
    pseudomask.add_argument("--split", metavar="NAME")

    explain = add("explain", _explain, "say why the fixated region matters")
    explain.add_argument("--backend", choices=("measured", "openai"), default="measured")
    explain.add_argument("--base-url", metavar="URL", help="an OpenAI-compatible server on this machine")
    explain.add_argument("--model", metavar="NAME")
    explain.add_argument("--split", metavar="NAME")

    train = add("train", _train, "train teacher and student")
    train.add_argument("--method", choices=("gaze-to-insight", "partial", "supervised"))
    how = train.add_mutually_exclusive_group()
    how.add_argument("--preset", choices=("cpu", "reference", "phantom"))
    how.add_argument("--config", type=Path, metavar="RUNSPEC.json")
    train.add_argument("--split", metavar="NAME")
    train.add_argument("--device", metavar="D", help="auto, cpu, cuda or cuda:N")
    train.add_argument("--iterations", type=_count, metavar="N")
    train.add_argument("--max-minutes", type=_positive, metavar="T")
    train.add_argument("--resume", metavar="RUN")
    train.add_argument("--seed", type=int, metavar="N")
    train.add_argument("--targets", nargs="+", metavar="ID", help="default: every target of the study")
    train.add_argument(
        "--normalise",
        type=_rule,
        nargs="+",
        metavar="MODALITY=RULE",
        help='as is, range, z-score or a window: ct="window -600 1500"',
    )

    predict = add("predict", _predict, "let the student segment images")
    evaluate = add("evaluate", _evaluate, "measure predictions")
    report = add("report", _report, "write an HTML report")
    for command in (predict, evaluate, report):
        command.add_argument("--run", dest="run_id", metavar="RUN", help="default: the latest finished")
    predict.add_argument("--split", metavar="NAME", help="default: all images")
    predict.add_argument("--device", default="auto", metavar="D")
    evaluate.add_argument("--split", metavar="NAME", help="default: all images")
    evaluate.add_argument("--against", choices=("masks", "pseudomasks", "reviews"), default="masks")
    report.add_argument("--to", type=Path, required=True, metavar="FILE.html")

    add("doctor", _doctor, "say what is installed, found and missing", study=False)
    return parser
