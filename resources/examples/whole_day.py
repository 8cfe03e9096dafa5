"""What the scripts of all data sets share: import, gaze, pseudo-masks, descriptions, training, evaluation."""

from __future__ import annotations

import argparse
import dataclasses
import functools
import shlex
import sys
from pathlib import Path

from gaze_capture.errors import UserError
from gaze_capture.storage import read_json
from segmentation import steps
from segmentation.comparing import compare
from segmentation.comparison_plan import make_plan, read_variants
from segmentation.job import RunSpec
from segmentation.network_steps import encoder_fields
from segmentation.published import import_dataset
from segmentation.study import TEST_SPLIT, Study

CONFIGS = Path(__file__).parent.parent / "configs"


def run(name: str, config: str, *, sigma: str, description: str | None) -> int:
    """Take a data set through the whole day; return the exit status."""
    parser = argparse.ArgumentParser(
        description=description, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("raw", type=Path)
    parser.add_argument("study", type=Path)
    parser.add_argument("--gaze", type=Path, help="a GazeMedSeg fixation table of the training images")
    parser.add_argument(
        "--test", type=Path, help="names of the test images, one a line, where the set has no split"
    )
    parser.add_argument("--config", type=Path, default=CONFIGS / config, help="the run's spec")
    parser.add_argument("--iterations", type=int)
    parser.add_argument(
        "--compare",
        type=Path,
        metavar="VARIANTS.json",
        help="instead of one run, such as resources/comparisons/methods.json, with three seeds",
    )
    parser.add_argument("--preset", default="reference", help="of the comparison; default: reference")
    args = parser.parse_args()
    say = sys.stderr.write
    try:
        study = Study.create(args.study)
        names = args.test.read_text(encoding="utf-8").split() if args.test else []
        for split, report in import_dataset(study, name, args.raw, test_names=names):
            say(
                f"{split}: {len(report.imported)} images, {report.masks} masks, {len(report.skipped)} left out\n"
            )
        if args.gaze:
            gaze = steps.import_gaze(study, args.gaze, split="train")
            say(f"gaze: {gaze.fixations} fixations on {gaze.images} images\n")
        else:
            simulated = steps.simulate(study, split="train")
            say(f"gaze: simulated from masks on {simulated.from_masks} of {simulated.images} images\n")
        # As published: other refiners came later.
        settings = dataclasses.replace(study.pseudomask_settings, sigma=sigma, refine="crf")
        say(f"pseudo-masks: {steps.make_pseudomasks(study, settings=settings, split='train').made}\n")
        steps.explain(study, split="train")
        if args.compare:
            _compare(study, args)
            return 0
        spec = RunSpec.from_json(read_json(args.config), str(args.config))
        if args.iterations:
            spec = dataclasses.replace(spec, iterations=args.iterations)
        trained = steps.train(study, spec).run
        split = "test" if any(image.split == "test" for image in study.images.values()) else "train"
        steps.predict(study, trained, split=split)
        sys.stdout.write(steps.evaluate(study, trained, split=split).to_text() + "\n")
    except UserError as error:
        say(f"{error}\n")
        return 1
    return 0


def _compare(study: Study, args: argparse.Namespace) -> None:
    """Train and measure all variants; what is done is kept, so that the command printed first goes on."""
    limits = {"iterations": args.iterations, "max_minutes": None} if args.iterations else {}
    again = [
        "gaze-insight",
        "compare",
        str(args.study),
        "--variants",
        str(args.compare),
        "--preset",
        args.preset,
    ]
    again += ["--iterations", str(args.iterations)] if args.iterations else []
    sys.stderr.write(f"Cut off, it goes on with: {shlex.join(again)}\n")
    plan = make_plan(
        preset_name=args.preset,
        changes=limits,
        variants=read_variants(args.compare),
        split=TEST_SPLIT,
        find_encoder=functools.partial(encoder_fields, study),
    )
    found = compare(study, plan)
    sys.stdout.write(found.table.to_markdown() + f"\n{found.folder}\n")
