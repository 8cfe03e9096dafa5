"""The command line: every step of the day without a window."""

from __future__ import annotations

import argparse
import contextlib
import importlib.metadata
import io
import json
import os
import re
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from app import commands, gaze_commands, network_commands, session_commands
from app.argument_types import annotator, count, pair, positive, rate, rectangle, seed
from app.commands import Command, Outcome
from app.compare_commands import add_compare_commands
from app.explanation_parser import add_explanation_commands
from app.export_commands import add_export_commands, add_review_import
from app.provenance_command import add_provenance_command
from app.reader_commands import add_reader_commands
from app.review_commands import add_review_commands
from app.run_commands import add_run_commands
from app.shared_options import add_run_option, add_split_option
from app.slicer_command import add_slicer_command
from app.suggest_commands import add_suggest_command
from app.train_commands import add_train_commands
from gaze_capture.detectors import PRESETS
from gaze_capture.errors import UserError
from gaze_capture.formats.reading import FORMATS
from gaze_capture.storage import explained
from segmentation.progress import Progress, no_progress
from segmentation.refine import REFINERS
from segmentation.stacks import MODALITIES


def version() -> str:
    """Return the program's version."""
    return importlib.metadata.version("gaze-insight")


def run_command(arguments: Sequence[str]) -> int:
    """Run one command; return 0 on success, 1 when nothing could be done, 2 on wrong usage.

    Where there is nothing to measure, to bring together or to write, nothing could be done. A list of what there is
    (runs, what waits for review) may well be empty.
    """
    parser = _parser()
    if isinstance(sys.stdout, io.TextIOWrapper):
        # A file's name may hold bytes that are no text; what is told of it should not fail for that.
        sys.stdout.reconfigure(errors="backslashreplace")
    try:
        args = parser.parse_args(arguments)
    except SystemExit as error:
        return int(error.code or 0)
    try:
        with _progress_bar(args.json, in_lines=args.in_lines) as progress:
            outcome: Outcome = args.run(args, progress)
        text = json.dumps(outcome.values, ensure_ascii=False) if args.json else outcome.text
        sys.stdout.write(_shown(text) + "\n")
        sys.stdout.flush()
        return outcome.status
    except UserError as error:
        sys.stderr.write(f"{_shown(str(error))}\n")
        return 1
    except SystemExit as error:
        # Wrong usage that shows only when arguments are seen together.
        return int(error.code or 0)
    except KeyboardInterrupt as stopped:
        sys.stderr.write(f"{str(stopped) or 'Stopped. Everything finished so far is kept.'}\n")
        return 130
    except BrokenPipeError:
        # The reader (head, less) has gone; Python would complain once more when it flushes at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    except OSError as error:
        if not error.filename:
            raise
        sys.stderr.write(f"{_shown(explained(error, Path(error.filename)))}\n")
        return 1
    return 0


_COMMANDS_TERMINALS = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u2028\u2029\u202a-\u202e\u2066-\u2069]")
"""Control characters but tab and newline, and those that end lines or turn the reading direction around."""


def _shown(text: str) -> str:
    """Return text in which characters that command a terminal are spelled out, as JSON spells them.

    Files, their names and a model's answers may hold any; shown as they are they could hide or forge what is told.
    """
    return _COMMANDS_TERMINALS.sub(lambda found: f"\\u{ord(found[0]):04x}", text)


@contextlib.contextmanager
def _progress_bar(quiet: bool, *, in_lines: bool) -> Iterator[Progress]:
    """Show a bar on stderr while work goes on; none for ``--json`` scripts or where stderr is no terminal.

    There, `in_lines` tells what is begun, a line each.
    """
    if quiet or not sys.stderr.isatty():
        yield _tell_in_lines() if in_lines and not quiet else no_progress
        return
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeRemainingColumn
    from rich.progress import Progress as Bar

    columns = (
        TextColumn("{task.description:<28.28}", markup=False),
        BarColumn(),
        MofNCompleteColumn(),
        TimeRemainingColumn(),
    )
    with Bar(*columns, console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task("", total=None)
        yield lambda done, total, label: bar.update(
            task, completed=done, total=total, description=_shown(label)
        )


def _tell_in_lines() -> Progress:
    told = [""]

    def tell(done: int, total: int, label: str) -> None:
        if label != told[-1]:
            told.append(label)
            sys.stderr.write(f"{_shown(label)} ...\n")
            sys.stderr.flush()

    return tell


DETECTOR_OPTIONS = {
    "minimum_ms": "shorter fixations are dropped",
    "bridge_ms": "gaps up to this long are interpolated",
    "merge_deg": "fixations nearer than this are one (not idt)",
    "window_ms": "speed is measured over this long (adaptive, tobii-ivt)",
    "threshold_deg_s": "what is faster is a saccade (tobii-ivt)",
    "sigmas": "the threshold, in deviations of velocity (engbert-kliegl)",
    "dispersion_deg": "the most that a fixation scatters (adaptive, idt)",
}
"""What the main parameters of detectors mean; each has an option of its name."""


class _Parameter(argparse.Action):
    """Collects (parameter, value) pairs of several options."""

    def __call__(
        self,
        parser: argparse.ArgumentParser,
        namespace: argparse.Namespace,
        values: Any,
        option_string: str | None = None,
    ) -> None:
        pairs = [*(getattr(namespace, self.dest) or ()), (self.const, values)]
        setattr(namespace, self.dest, pairs)


def _gaze_file_options(command: argparse.ArgumentParser, formats: Sequence[str]) -> None:
    """Add the file, and what may have to be said of it."""
    command.add_argument("file", type=Path, metavar="FILE")
    command.add_argument("--format", default="auto", choices=formats, help="default: auto, by its content")
    command.add_argument("--screen-px", type=pair(int), metavar="WxH")
    command.add_argument("--screen-mm", type=pair(float), metavar="WxH")
    command.add_argument("--distance-mm", type=positive, metavar="D", help="from the eyes to the screen")
    command.add_argument("--eye", choices=("left", "right", "both"), help="whose positions are used")
    command.add_argument("--time-unit", choices=("s", "ms", "us", "ns"), help="of a file that does not say")
    command.add_argument(
        "--coordinates", choices=("px", "normalised"), help="what positions are, of a file that does not say"
    )
    command.add_argument("--stream", metavar="NAME", help="which of several recordings or streams")


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="gaze-insight",
        description="Turn a clinician's gaze into a segmentation model. Without a command it opens the window. "
        "Research use only, not a medical device.",
    )
    parser.add_argument("--version", action="version", version=f"gaze-insight {version()}")
    subparsers = parser.add_subparsers(title="commands", metavar="COMMAND", required=True)

    def add(name: str, run: Command, help: str, *, study: bool = True) -> argparse.ArgumentParser:
        command = subparsers.add_parser(name, help=help, description=help[0].upper() + help[1:] + ".")
        if study:
            command.add_argument("study", type=Path, metavar="STUDY", help="the study's folder")
        command.add_argument("--json", action="store_true", help="print one JSON object")
        command.set_defaults(run=run, in_lines=False)
        return command

    demo = add("demo", commands.demo, "run the whole day on an embedded phantom study", study=False)
    demo.set_defaults(in_lines=True)
    demo.add_argument(
        "--headless", action="store_true", help="print where things are instead of opening the window"
    )
    demo.add_argument("--out", type=Path, default=Path("gaze-insight-demo"), metavar="DIR")

    add("new", commands.new, "make a study")

    targets = add("targets", commands.targets, "list the targets of a study; add, rename or take away one")
    targets.add_argument("--add", metavar="ID", help="letters, digits, - and _")
    targets.add_argument("--name", metavar="N")
    targets.add_argument("--kind", choices=("lesion", "organ", "zone"))
    targets.add_argument("--inside", metavar="ID", help="the target it is a part of")
    targets.add_argument("--code", metavar="C", help="scheme first, like SCT:41216001")
    targets.add_argument("--colour", metavar="#RRGGBB", help="default: one that no other target has")
    targets.add_argument("--remove", metavar="ID", help="one that has no masks, gaze or reviews yet")
    targets.add_argument("--rename", nargs=2, metavar=("ID", "NAME"))

    images = add("import-images", commands.import_images, "copy images into a study")
    images.add_argument("paths", type=Path, nargs="+", metavar="PATH", help="files and folders")
    images.add_argument(
        "--masks", type=Path, metavar="DIR", help="true masks, named like the images, or one file of masks"
    )
    images.add_argument(
        "--split", default="train", metavar="NAME", help="default: train; test is never trained on"
    )
    images.add_argument("--group-by", metavar="REGEX", help="names the group (patient) in a file's path")
    images.add_argument("--modality", choices=MODALITIES, help="what the files do not say, e.g. ct for NIfTI")
    images.add_argument("--every", type=count, default=1, metavar="N", help="of a video, every n-th frame")
    images.add_argument(
        "--blank",
        type=rectangle,
        action="append",
        metavar="X,Y,W,H",
        help="paint over text in all these images",
    )

    masks = add("import-masks", commands.import_masks, "bring true masks to images that the study has")
    masks.add_argument(
        "path", type=Path, metavar="PATH", help="a folder, or a NIfTI, NRRD, DICOM-SEG, COCO file"
    )
    reviews = add_review_import(add)
    for command in (images, masks, reviews):
        command.add_argument(
            "--target", metavar="ID", help="the target of masks without labels; default: the first"
        )
        command.add_argument(
            "--labels",
            nargs="+",
            metavar="TARGET=L[,L]",
            help="labels, by number or name, that belong to a target",
        )
        command.add_argument("--axis", type=int, choices=(0, 1, 2), help="along which volumes are sliced")
        command.add_argument(
            "--deidentify",
            choices=("auto", "names", "off"),
            default="auto",
            help="auto: medical headers; names: file names, too; off: patients keep their ids",
        )
        command.add_argument(
            "--key", type=Path, metavar="FILE", help="the secret key of the study's pseudonyms"
        )

    published = add(
        "import-dataset", commands.import_dataset, "import a data set in the folders it is published in"
    )
    published.add_argument("name", choices=("kvasir-seg", "isic", "nci-isbi-2013"))
    published.add_argument("folder", type=Path, metavar="FOLDER")
    published.add_argument(
        "--test", type=Path, metavar="FILE", help="names of the test images, where the set has no split"
    )
    published.add_argument("--deidentify", choices=("auto", "names", "off"), default="auto")
    published.add_argument(
        "--key", type=Path, metavar="FILE", help="the secret key of the study's pseudonyms"
    )

    blanking = add("blank", commands.blank, "paint over text in images, or say that there is none")
    blanking.add_argument("images", nargs="*", metavar="IMAGE", help="default: all in which text is likely")
    blanking.add_argument(
        "--rect", type=rectangle, action="append", metavar="X,Y,W,H", help="without: they were looked at"
    )
    blanking.add_argument("--find", action="store_true", help="look for text in all images, and mark them")

    grouping = add("suggest-groups", commands.suggest_groups, "find images that show one scene")
    grouping.add_argument("--apply", action="store_true", help="make them groups of the study")
    grouping.add_argument("--sheet", type=Path, metavar="FILE.png", help="draw the groups")
    grouping.add_argument(
        "--mend-splits", action="store_true", help="bring each group of the study into one split"
    )

    split = add("split", commands.split, "move whole groups from train into another split")
    split.add_argument("--name", required=True, metavar="NAME", help="such as val")
    split.add_argument("--share", type=float, required=True, metavar="S", help="of the images, such as 0.1")
    split.add_argument("--seed", type=seed, default=0, metavar="N")

    gaze = add("import-gaze", gaze_commands.import_gaze, "import another program's gaze")
    _gaze_file_options(gaze, ("auto", "gazemedseg", *FORMATS))
    gaze.add_argument(
        "--image", metavar="NAME", help="the one image shown, of a file that does not say which"
    )
    where = gaze.add_mutually_exclusive_group()
    where.add_argument(
        "--image-rect",
        type=rectangle,
        metavar="X,Y,W,H",
        help="where on the screen the images were, of a file that does not say, in pixels",
    )
    where.add_argument(
        "--fit", action="store_true", help="they were in the screen's middle, as large as they fit"
    )
    gaze.add_argument(
        "--fixations",
        choices=("detect", "own"),
        default="detect",
        help="own: the file's own fixations instead of samples; default: detect",
    )
    gaze.add_argument("--split", metavar="NAME", help="only images of this split")
    gaze.add_argument("--target", metavar="ID", help="what was looked for; default: the first target")
    gaze.add_argument("--annotator", default="imported", metavar="A", help="a pseudonym, not a name")
    gaze.add_argument(
        "--image-width-deg", type=positive, metavar="D", help="how wide the images were on the screen"
    )
    gaze.add_argument(
        "--simulated-from", choices=("masks", "saliency"), help="no person looked: label the results so"
    )

    inspect = add(
        "inspect-gaze",
        gaze_commands.inspect_gaze,
        "say what is in another program's gaze file",
        study=False,
    )
    _gaze_file_options(inspect, ("auto", *FORMATS))

    record = add("record", commands.record, "record gaze without a window")
    record.add_argument(
        "--tracker", required=True, choices=("simulated", "replay", "tobii", "lsl", "gazepoint")
    )
    record.add_argument("--seconds", type=positive, metavar="S", help="default: 10, or the whole replay")
    record.add_argument("--annotator", type=annotator, default="headless", metavar="A")

    add("trackers", commands.trackers, "list the eye trackers that can be reached from here", study=False)

    bridge = add("bridge", commands.bridge, "publish a tracker's gaze as an LSL stream", study=False)
    bridge.add_argument("kind", choices=("tobii", "gazepoint", "lsl", "simulated"), metavar="KIND")
    bridge.add_argument("--name", metavar="N", help="of the stream; default: the tracker's")
    bridge.add_argument("--seconds", type=positive, metavar="S", help="default: until Ctrl-C")
    for command in (record, bridge):
        command.add_argument("--rate", type=rate, metavar="HZ", help="where the tracker offers several")
        command.add_argument("--address", metavar="A", help="as 'trackers' lists it; default: the only one")
        command.add_argument(
            "--screen-px", type=pair(int), metavar="WxH", help="what the tracker does not tell of its screen"
        )
        command.add_argument("--screen-mm", type=pair(float), metavar="WxH")
        command.add_argument("--distance-mm", type=positive, metavar="D", help="the eyes' from the screen")

    add("recover", commands.recover, "finish recordings that a crash cut off")

    add("times", session_commands.times, "say where the time of each recording went")

    gates = add("gates", session_commands.gates, "list the images whose gaze is not good enough, and why")
    gates.add_argument(
        "--overrule", nargs="+", metavar="IMAGE", help="let the gaze of these images count all the same"
    )
    gates.add_argument("--annotator", metavar="A", help="who overrules; default: the user's name")

    drift = add(
        "correct-drift",
        session_commands.correct_drift,
        "take the drift that drift checks found off the fixations",
    )
    drift.add_argument("recording", metavar="RECORDING")
    drift.add_argument("--method", choices=("linear", "constant"), default="linear")
    drift.add_argument("--remove", action="store_true", help="take the correction away again")

    certificate = add(
        "certificate",
        session_commands.certificate,
        "say what a recording is worth: samples lost, clocks, accuracy, hashes; exits with 1 if its files changed",
    )
    certificate.add_argument("recording", metavar="RECORDING")
    certificate.add_argument("--to", type=Path, metavar="FILE.html", help="write it as a page")

    erase = add(
        "erase-annotator", session_commands.erase_annotator, "erase all that is stored of an annotator"
    )
    erase.add_argument("annotator", metavar="ID")
    erase.add_argument("--yes", action="store_true", help="erase; without it, only say what would be")

    fixations = add("fixations", commands.fixations, "detect fixations in a CSV of samples", study=False)
    fixations.add_argument(
        "file", type=Path, metavar="FILE", help="CSV with time_ms,x_px,y_px; empty means invalid"
    )
    fixations.add_argument("--out", type=Path, required=True, metavar="CSV")
    fixations.add_argument("--screen-px", type=pair(int), required=True, metavar="WxH")
    fixations.add_argument("--screen-mm", type=pair(float), required=True, metavar="WxH")
    fixations.add_argument("--distance-mm", type=positive, required=True, metavar="D")
    detect = add("detect", commands.detect, "detect the fixations of stored recordings again")
    detect.add_argument("--recording", metavar="ID", help="default: every recording of the study")
    for command in (fixations, detect):
        command.add_argument(
            "--detector",
            choices=tuple(PRESETS),
            default="adaptive",
            help="default: adaptive, a velocity threshold that follows noise and rate",
        )
        for name, text in DETECTOR_OPTIONS.items():
            option = "--" + name.replace("_", "-")
            command.add_argument(
                option, dest="parameters", action=_Parameter, const=name, type=float, metavar="X", help=text
            )

    simulate = add("simulate", commands.simulate, "let a synthetic clinician look at images without gaze")
    simulate.add_argument("--seed", type=seed, default=0, metavar="N")
    simulate.add_argument("--split", metavar="NAME")
    simulate.add_argument("--source", choices=("auto", "masks", "saliency"), default="auto")
    simulate.add_argument("--target", dest="targets", nargs="+", metavar="ID", help="default: every target")
    simulate.add_argument(
        "--without-presence", action="store_true", help="never say whether the target is there"
    )

    pseudomask = add("pseudomask", commands.pseudomask, "turn fixations into nested pseudo-masks")
    pseudomask.add_argument(
        "--levels", type=float, nargs="+", metavar="L", help="descending, between 0 and 1"
    )
    pseudomask.add_argument(
        "--refine",
        choices=REFINERS,
        help="what draws the heatmap to the image's edges; pydensecrf needs the extra crf, sam a --segmenter",
    )
    pseudomask.add_argument(
        "--segmenter",
        type=Path,
        metavar="FOLDER",
        help="a model of the Segment Anything family, asked with the fixations as points (--refine sam)",
    )
    pseudomask.add_argument(
        "--sigma", metavar="DEG|PRESET", help="degrees, or fraction, gazemedseg-70, gazemedseg-50"
    )
    pseudomask.add_argument(
        "--lesions",
        choices=("annotated", "clusters", "together"),
        help="what has a peak of its own: lesions told apart, regions looked at, or all gaze as one",
    )
    pseudomask.add_argument(
        "--annotators",
        nargs="*",
        metavar="A",
        help="only their gaze counts, from now on; none: everybody's again",
    )
    pseudomask.add_argument(
        "--pool",
        choices=("sum", "mean"),
        help="of several annotators: sum, who looks longer counts more; mean, each counts the same",
    )
    pseudomask.add_argument("--split", metavar="NAME")
    add_suggest_command(add)

    add_explanation_commands(add)

    add_train_commands(add)

    checkpoint = add(
        "import-checkpoint",
        network_commands.import_checkpoint,
        "make a run of a checkpoint of From Gaze to Insight's public code",
    )
    checkpoint.add_argument("file", type=Path, metavar="FILE.pth")
    checkpoint.add_argument("--as", dest="run_id", metavar="RUN", help="what the run is called")
    checkpoint.add_argument("--target", metavar="ID", help="what it segments, in a study of several targets")

    quality = add("quality", commands.quality, "measure how good the gaze of a study is")
    quality.add_argument("--to", type=Path, metavar="FILE", help="write a report: .html or .json")

    predict = add("predict", commands.predict, "let the student segment images")
    evaluate = add("evaluate", commands.evaluate, "measure predictions")
    report = add("report", commands.report, "write an HTML report")
    add_run_option(predict, evaluate, report)
    add_split_option(predict)
    predict.add_argument("--device", default="auto", metavar="D")
    predict.add_argument(
        "--engine",
        choices=("auto", "torch", "openvino", "onnx"),
        default="auto",
        help="what computes it: auto is OpenVINO where it is installed and there is much to do, else torch",
    )
    predict.add_argument(
        "--teacher",
        action="store_true",
        help="the teacher predicts, too, where images are explained: review then shows where the two disagree",
    )
    predict.add_argument(
        "--again",
        action="store_true",
        help="also what this checkpoint has predicted before, which is kept else",
    )
    evaluate.add_argument("--split", metavar="NAME", help="default: all images")
    evaluate.add_argument(
        "--against",
        choices=("masks", "pseudomasks", "reviews", "audit"),
        default="masks",
        help="audit: outlines drawn blind to every mask",
    )
    report.add_argument("--to", type=Path, required=True, metavar="FILE.html")

    add_compare_commands(add)
    add_reader_commands(add)
    add_provenance_command(add)
    add_run_commands(add)
    add_review_commands(add)
    add_slicer_command(add)

    add_export_commands(add)

    pictures = add("pictures", commands.pictures, "draw gaze on the images, into a new folder")
    pictures.add_argument("--to", type=Path, required=True, metavar="DIR", help="missing or empty")
    pictures.add_argument("--kind", choices=("scanpath", "heatmap", "both"), default="scanpath")
    pictures.add_argument("--as", dest="as_type", choices=("png", "svg"), default="png")
    pictures.add_argument("--annotator", nargs="+", metavar="A", help="default: each one")
    pictures.add_argument("--split", metavar="NAME", help="only images of this split")
    pictures.add_argument("--image", nargs="+", metavar="ID", help="default: all with gaze")

    add(
        "verify",
        commands.verify,
        "check hashes and everything that must hold in a study; exits with 0 when it is sound, 1 with the findings",
    )

    add("doctor", commands.doctor, "say what is installed, found and missing", study=False)
    return parser
