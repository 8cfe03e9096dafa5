"""What torchrun starts on servers and clusters, where there is no window: train or predict a run of a study.

::

    torchrun --nproc-per-node gpu -m segmentation.cluster train STUDY RUN
    torchrun --nproc-per-node gpu -m segmentation.cluster predict STUDY RUN --split test
    python -m segmentation.cluster predict STUDY RUN --shard 2/4

A run is made beforehand: ``gaze-insight train STUDY --prepare``. Started again, both go on where they were. Only the
worker's packages are needed: numpy, scipy, cv2, torch, transformers, safetensors. See docs/cluster.md.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from gaze_capture.errors import UserError
from segmentation import worker
from segmentation.runs import FAR_STALE_SECONDS, RunFolder


def main(arguments: list[str] | None = None) -> int:
    """Do what the command line says and return its exit status: 0 done or stopped, 1 failed, 2 a usage error."""
    args = _parser().parse_args(arguments)
    run = RunFolder(args.study.absolute() / "runs" / args.run)
    job: dict[str, Any] = {
        "task": args.task,
        "study": str(run.study_folder),
        "run": run.id,
        "threads": args.threads,
        "text_encoder_folder": args.text_encoder and str(args.text_encoder.absolute()),
        # The scheduler decides who comes first on its machines, and stdin may be closed.
        "nice": 0,
        "detached": True,
    }
    try:
        if args.task == "train":
            job["image_encoder_folder"] = args.encoder and str(args.encoder.absolute())
            if run.path.exists() and run.state() == "done":
                sys.stderr.write(f"The run {run.id} is done already.\n")
                return 0
            if os.environ.get("RANK", "0") == "0":
                free(run)
        else:
            names = ("split", "device", "engine", "networks", "overwrite", "shard")
            job |= {name: getattr(args, name) for name in names}
            # Nobody else is told: a training's events are in its folder, a prediction's are not.
            job["tell"] = True
    except UserError as error:
        sys.stderr.write(f"{error}\n")
        return 1
    return worker.main([json.dumps(job)])


def free(run: RunFolder, *, wait: Callable[[float], object] = time.sleep) -> None:
    """Make an interrupted or stopped run ready to go on; one that was killed a moment ago may still look alive.

    Raises
    ------
    UserError
        If there is no such run, or a worker is at work on it.
    """
    waited = 0.0
    while run.state() == "running" and waited <= FAR_STALE_SECONDS:
        wait(1.0)
        waited += 1.0
    run.prepare_resume()


def shard(text: str) -> tuple[int, int]:
    """Read ``2/4``, the second of four shares, as (1, 4)."""
    number, slash, count = text.partition("/")
    if not slash or not (number.isdecimal() and count.isdecimal()) or not 1 <= int(number) <= int(count):
        raise argparse.ArgumentTypeError(f"{text} should look like 2/4, the second of four shares")
    return int(number) - 1, int(count)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m segmentation.cluster", description=__doc__.split("\n")[0]
    )
    tasks = parser.add_subparsers(dest="task", required=True)
    train = tasks.add_parser("train", help="train a run, or go on with it")
    predict = tasks.add_parser("predict", help="predict what a run has not predicted yet")
    for command in (train, predict):
        command.add_argument("study", type=Path, metavar="STUDY")
        command.add_argument("run", metavar="RUN")
        command.add_argument("--threads", type=int, metavar="N", help="of each process; default: its share")
        command.add_argument(
            "--text-encoder", type=Path, metavar="DIR", help="where phrases have no vectors in the study yet"
        )
    train.add_argument("--encoder", type=Path, metavar="DIR", help="the pretrained encoder it begins with")
    predict.add_argument("--split", metavar="NAME", help="default: all images")
    predict.add_argument("--networks", nargs="+", default=["student"], metavar="NAME")
    predict.add_argument("--device", metavar="D", help="auto, cpu or cuda; default: the run's")
    predict.add_argument("--engine", choices=("auto", "torch", "openvino", "onnx"), default="auto")
    predict.add_argument("--overwrite", action="store_true")
    predict.add_argument(
        "--shard",
        type=shard,
        metavar="K/N",
        help="one share of the images, for jobs that know nothing of each other",
    )
    return parser


if __name__ == "__main__":
    sys.exit(main())
