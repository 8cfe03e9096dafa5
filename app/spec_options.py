"""What a run can be told on the command line, and the spec that follows from it."""

from __future__ import annotations

import argparse
import dataclasses
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from app.argument_types import count, not_negative, positive, rule, seed
from segmentation.job import RunSpec
from segmentation.presets import METHODS, preset_names
from segmentation.study import Study


def add_spec_options(command: argparse.ArgumentParser) -> None:
    """Add what a run can be told."""
    command.add_argument(
        "--method",
        choices=METHODS,
        help="gaze-track is an approximation of GradTrack (default: gaze-to-insight)",
    )
    how = command.add_mutually_exclusive_group()
    how.add_argument("--preset", choices=preset_names())
    how.add_argument("--config", type=Path, metavar="RUNSPEC.json")
    command.add_argument("--split", metavar="NAME")
    command.add_argument("--device", metavar="D", help="auto, cpu, cuda or cuda:N")
    command.add_argument("--iterations", type=count, metavar="N")
    command.add_argument("--max-minutes", type=positive, metavar="T")
    command.add_argument("--seed", type=seed, metavar="N")
    command.add_argument(
        "--warm-start", metavar="RUN", help="begin with the networks of an earlier run of the same method"
    )
    command.add_argument(
        "--embeddings", metavar="NAME", help="read imported embeddings in place of explanations"
    )
    command.add_argument(
        "--encoder",
        metavar="DIR",
        help="begin with a pretrained ResNet, ConvNeXt, Swin or DINOv2, or with a model of timm: its folder, or "
        "owner/name in the Hugging Face hub where downloading is allowed",
    )
    command.add_argument(
        "--encoder-rate",
        type=not_negative,
        metavar="X",
        help="its learning rate as a multiple of all others' (default 0.1); 0 leaves it as it came",
    )
    command.add_argument(
        "--encoder-frozen",
        type=int,
        choices=range(5),
        help="how many of its four stages, the finest first, stay as they came (default 0); 2 saves a third of a "
        "step's time",
    )
    command.add_argument("--targets", nargs="+", metavar="ID", help="default: every target of the study")
    command.add_argument(
        "--normalise",
        type=rule,
        nargs="+",
        metavar="MODALITY=RULE",
        help='as is, range, z-score or a window: ct="window -600 1500"',
    )


def spec_of(study: Study, args: argparse.Namespace, advised: Mapping[str, Any] | None = None) -> RunSpec:
    """Return the spec that the options of ``train`` and ``pack`` describe; `advised`: preset and device not named."""
    from gaze_capture.storage import read_json
    from segmentation.advice import DEFAULT_METHOD
    from segmentation.presets import preset

    advised = advised or {}
    if args.config is not None:
        spec = RunSpec.from_json(read_json(args.config), str(args.config))
    else:
        spec = preset(args.method or DEFAULT_METHOD, args.preset or advised.get("preset", "cpu"))
    chosen = {
        "method": args.method,
        "split": args.split,
        "device": args.device or advised.get("device"),
        "iterations": args.iterations,
        "max_minutes": args.max_minutes,
        "seed": args.seed,
        "warm_start": args.warm_start,
        "text_embeddings": args.embeddings,
        "encoder_learning_rate": args.encoder_rate,
        "encoder_frozen_stages": args.encoder_frozen,
        "targets": tuple(args.targets) if args.targets else None,
        "normalisation": {**spec.normalisation, **dict(args.normalise)} if args.normalise else None,
    }
    spec = dataclasses.replace(spec, **{name: value for name, value in chosen.items() if value is not None})
    if args.encoder is not None:
        from segmentation.network_steps import with_encoder

        spec = with_encoder(study, spec, args.encoder)
    return spec
