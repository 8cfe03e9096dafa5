"""``compare`` and ``reproduce``: methods held against each other, and a run against itself."""

from __future__ import annotations

import argparse
import functools
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from app.argument_types import count, seed
from app.commands import AddCommand, Outcome, counted, named
from gaze_capture.errors import UserError
from segmentation.comparison_plan import ABLATIONS
from segmentation.presets import preset_names
from segmentation.progress import Progress
from segmentation.study import Study


def names(text: str) -> list[str]:
    """Read ``A,B,...``."""
    found = [name.strip() for name in text.split(",") if name.strip()]
    if not found:
        raise argparse.ArgumentTypeError("name at least one")
    return found


def seeds(text: str) -> list[int]:
    """Read ``0,1,2``."""
    try:
        return [seed(part) for part in names(text)]
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text} should be whole numbers such as 0,1,2") from None


def setting(text: str) -> tuple[str, Any]:
    """Read ``name=value``; a value that is JSON is read as such, any other is a word."""
    name, equals, value = text.partition("=")
    if not equals or not name:
        raise argparse.ArgumentTypeError(f"{text} should look like batch_size=16")
    try:
        return name, json.loads(value)
    except ValueError:
        return name, value


def add_compare_commands(add: AddCommand) -> None:
    """Add ``compare`` and ``reproduce``."""
    command = add(
        "compare", compare, "train methods with several seeds, measure them on one split, and write a table"
    )
    command.add_argument("--methods", type=names, default=[], metavar="A,B,...")
    command.add_argument("--seeds", type=seeds, default=[0, 1, 2], metavar="N,N,...", help="default: 0,1,2")
    command.add_argument("--preset", choices=preset_names(), default="cpu", help="default: cpu")
    command.add_argument(
        "--set",
        type=setting,
        action="append",
        default=[],
        dest="settings",
        metavar="NAME=VALUE",
        help="a field of every run's spec",
    )
    command.add_argument(
        "--iterations", type=count, metavar="N", help="of each training, whatever time they take"
    )
    command.add_argument(
        "--variants", type=Path, metavar="FILE.json", help='{"name": {"method": ..., "text": "empty", ...}}'
    )
    command.add_argument(
        "--encoder",
        metavar="DIR",
        help='every training begins with this pretrained encoder, as with train; a variant can name its own, or ""',
    )
    command.add_argument(
        "--ablate", nargs="+", choices=tuple(ABLATIONS), default=[], help="take parts of gaze-to-insight away"
    )
    command.add_argument("--split", default="test", metavar="NAME", help="what is measured; default: test")
    command.add_argument("--baseline", metavar="NAME", help="held against; default: the first variant")
    command.add_argument("--name", default="", metavar="NAME", help="of the folder in STUDY/comparisons")
    command.add_argument("--to", type=Path, metavar="DIR", help="write the tables here instead")
    command.add_argument(
        "--jobs", type=count, default=1, metavar="N", help="trainings at once, which share the processor"
    )

    again = add(
        "reproduce", reproduce, "train a run's spec again and say how close weights and measures come"
    )
    again.add_argument("run_id", metavar="RUN")


def compare(args: argparse.Namespace, progress: Progress) -> Outcome:
    """``gaze-insight compare``."""
    from segmentation.comparing import compare
    from segmentation.comparison_plan import make_plan, read_variants
    from segmentation.network_steps import encoder_fields

    study = Study.open(args.study)
    changes = dict(args.settings)
    if args.iterations:
        changes |= {"iterations": args.iterations, "max_minutes": None}
    if args.encoder:
        changes["encoder"] = args.encoder
    plan = make_plan(
        args.methods,
        seeds=args.seeds,
        preset_name=args.preset,
        changes=changes,
        variants=read_variants(args.variants) if args.variants else None,
        ablate=args.ablate,
        split=args.split,
        baseline=args.baseline,
        name=args.name,
        # Looked at once, however many variants begin with it.
        find_encoder=functools.cache(functools.partial(encoder_fields, study)),
    )
    found = compare(study, plan, folder=args.to, jobs=args.jobs, progress=progress)
    values = {
        "folder": str(found.folder),
        "trained": found.trained,
        "failed": [{"cell": cell, "reason": reason} for cell, reason in found.failed],
        **found.table.to_json(),
    }
    if not found.table.rows:
        raise UserError("\n".join(["No cell could be done.", *_sentences(found.failed)]))
    lines = [
        found.table.to_markdown(),
        f"{counted(found.trained, 'cell')} of {len(found.table.cells)} trained now, the others were kept. "
        f"Tables, plot and specs: {found.folder}",
        *named("Failed; compare again to retry", _sentences(found.failed)),
    ]
    return Outcome(values, "\n".join(lines), 1 if found.failed else 0)


def _sentences(failed: Sequence[tuple[str, str]]) -> list[str]:
    return [f"{cell}: {reason}" for cell, reason in failed]


def reproduce(args: argparse.Namespace, progress: Progress) -> Outcome:
    """``gaze-insight reproduce``."""
    from segmentation.job import JobEvent
    from segmentation.reproducing import reproduce

    def show(event: JobEvent) -> None:
        if event.kind == "step":
            progress(event.step, event.total, "training again")

    found = reproduce(Study.open(args.study), args.run_id, on_event=show)
    return Outcome(found.to_json(), found.to_text())
