"""``pack``, ``import-run``, and ``train`` on a packed training set: training on another computer."""

from __future__ import annotations

import argparse
import dataclasses
from pathlib import Path

from app.argument_types import count
from app.commands import AddCommand, Outcome, counted
from app.spec_options import spec_of
from gaze_capture.errors import UserError
from gaze_capture.storage import read_json
from segmentation.job import JobEvent, RunSpec
from segmentation.progress import Progress
from segmentation.study import Study

_OF_THE_PACK = (
    "method", "preset", "split", "warm_start", "embeddings", "encoder", "encoder_rate", "encoder_frozen",
    "targets", "normalise",
)  # fmt: skip
"""Options of ``train`` that say what is packed."""
_OF_A_RUN = ("device", "iterations", "max_minutes", "seed")
"""Those that another run on the same pack may change."""


def add_pack_commands(add: AddCommand) -> argparse.ArgumentParser:
    """Add ``pack`` and ``import-run``; return the parser of ``pack``, which takes the options of a spec, too."""
    packing = add("pack", pack, "write all that a training reads into one file, for a GPU server")
    packing.add_argument(
        "--to", type=Path, required=True, metavar="FILE.zip", help="what is written; must not exist yet"
    )
    packing.add_argument(
        "--size", type=count, metavar="PX", help="side of the images the networks read; default: the preset's"
    )

    bring = add("import-run", import_run, "bring a run that was trained elsewhere into a study")
    bring.add_argument(
        "source", type=Path, metavar="FILE.zip|FOLDER", help="the run's archive, or its folder"
    )
    bring.add_argument("--as", dest="run_id", metavar="RUN", help="what it is called here; default: as there")
    return packing


def pack(args: argparse.Namespace, progress: Progress) -> Outcome:
    """``gaze-insight pack``."""
    from segmentation import pack_steps
    from segmentation.presets import checked

    study = Study.open(args.study)
    spec = spec_of(study, args)
    if args.size is not None:
        spec = checked(dataclasses.replace(spec, image_size_px=args.size))

    def show(event: JobEvent) -> None:
        if event.kind == "progress":
            progress(event.step, event.total, str(event.values.get("name", "")))

    packed = pack_steps.pack(study, spec, args.to, on_event=show)
    what = f"{counted(packed['images'], 'image')} of {packed['size_px']} x {packed['size_px']} pixels"
    return Outcome(
        packed,
        f"Packed {what} into {args.to} ({packed['bytes'] / 2**20:.1f} MiB), without names, gaze or words of "
        f"explanations. On the server: gaze-insight train {args.to.name} --to FOLDER. Back here: gaze-insight "
        f"import-run {args.study} {packed['run']}.zip",
    )


def train_packed(args: argparse.Namespace, progress: Progress) -> Outcome:
    """``gaze-insight train`` on a packed training set."""
    from segmentation import pack_steps

    if args.prepare:
        raise UserError("A packed training set holds a prepared run already; leave --prepare out.")
    fixed = [name for name in _OF_THE_PACK if getattr(args, name) is not None]
    if fixed:
        raise UserError(
            f"A packed training set decides what is learned; say --{fixed[0].replace('_', '-')} when it is packed."
        )
    changes = {name: getattr(args, name) for name in _OF_A_RUN if getattr(args, name) is not None}
    spec = RunSpec.from_json(read_json(args.config), str(args.config)) if args.config is not None else None

    def show(event: JobEvent) -> None:
        if event.kind == "step":
            progress(event.step, event.total, f"training, loss {event.values['losses']['total'] or 0:.3f}")

    done = pack_steps.train_packed(
        args.study,
        args.to,
        spec=spec,
        changes=changes,
        resume=args.resume,
        processes=args.processes,
        on_event=show,
    )
    return Outcome(
        dataclasses.asdict(done),
        f"Trained {done.run}: {done.iterations} iterations in {done.seconds:.0f} s on {done.device}. Bring "
        f"{done.archive} to the study's computer, and there: gaze-insight import-run STUDY {Path(done.archive).name}",
    )


def import_run(args: argparse.Namespace, progress: Progress) -> Outcome:
    """``gaze-insight import-run``."""
    from segmentation.run_archive import read_run_archive

    study = Study.open(args.study)
    run = read_run_archive(args.source, study, args.run_id)
    spec, state = run.spec, run.state()
    if state == "done":
        after = f"Next: gaze-insight predict {study.folder} --run {run.id}"
    else:
        after = f"It has not ended yet; go on: gaze-insight train {study.folder} --resume {run.id}"
    return Outcome(
        {"run": run.id, "method": spec.method, "state": state, "targets": list(spec.targets)},
        f"Imported the run {run.id} ({spec.method}, {state}). {after}",
    )
