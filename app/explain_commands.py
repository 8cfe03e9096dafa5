"""What ``gaze-insight explain`` does: words of the command line in, values and sentences out."""

from __future__ import annotations

import argparse
import dataclasses

from app.commands import Outcome, counted, named
from gaze_capture.errors import UserError
from segmentation.progress import Progress
from segmentation.study import Study


def explain(args: argparse.Namespace, progress: Progress) -> Outcome:
    """``gaze-insight explain``."""
    from segmentation.explainers.opening import BackendOptions
    from segmentation.explaining import explain_study
    from segmentation.server_connection import ServerLimits
    from segmentation.server_presets import server_preset

    base_url = server_preset(args.server).base_url if args.server else args.base_url
    if args.test_connection:
        return _test_connection(args, base_url, progress)
    if args.study is None:
        args.usage_error("the following arguments are required: STUDY")
    backend = args.backend or ("openai" if base_url else "measured")
    if base_url and backend != "openai":
        raise UserError(f"The backend {backend} asks no server; leave out --server and --base-url.")
    limits = ServerLimits() if args.timeout is None else ServerLimits(timeout_s=args.timeout)
    price = None if args.price is None else (args.price[0], args.price[1])
    options = BackendOptions(
        backend, base_url, args.model, limits, args.concurrency, price, args.device, args.dtype
    )
    study = Study.open(args.study)
    settled = (0, 0)

    def follow(done: int, total: int, label: str) -> None:
        nonlocal settled
        settled = done, total
        progress(done, total, label)

    try:
        result = explain_study(
            study,
            options,
            split=args.split,
            image_ids=args.images,
            overwrite=args.overwrite,
            progress=follow,
        )
    except KeyboardInterrupt:
        again = "the same command without --overwrite" if args.overwrite else "the same command"
        raise KeyboardInterrupt(
            f"Stopped with {settled[0]} of {settled[1]} settled. Every answer that came is kept; {again} goes on "
            "from there and asks nothing twice."
        ) from None
    values = {
        "done": result.done,
        "failed": [{"image": image, "reason": reason} for image, reason in result.failed],
        "requests": result.requests,
        "skipped": result.skipped,
        "reused": result.reused,
        "kept": result.kept,
        "waiting": result.waiting,
        "seconds": round(result.seconds, 3),
        "tokens": {"prompt": result.prompt_tokens, "completion": result.completion_tokens},
        **({} if result.money is None else {"money": round(result.money, 6)}),
    }
    lines = [f"Explained {counted(result.done, 'image')}."]
    if known := result.skipped + result.reused:
        lines.append(f"{counted(known, 'image')} had been asked about in the same way before.")
    if result.kept:
        lines.append(
            f"{counted(result.kept, 'image')} in somebody's own words, edited or approved stay as they are."
        )
    if backend == "measured" and (unmeasured := _unmeasured(study)):
        lines.append(
            f"{counted(unmeasured, 'attribute')} of the study's preset cannot be measured; ask a model, or describe "
            "the images in your own words."
        )
    if result.waiting:
        lines.append(f"{counted(result.waiting, 'image')} without a pseudo-mask wait for gaze.")
    if spent := result.spent_in_words():
        lines.append(f"It took {spent}.")
    lines += named("Failed", [f"{image}: {reason}" for image, reason in result.failed])
    nothing = result.failed and not (result.done or known or result.kept)
    return Outcome(values, "\n".join(lines), 1 if nothing else 0)


def _unmeasured(study: Study) -> int:
    """Count the attributes that the study's preset adds to those that are measured."""
    from segmentation.explanation_presets import load_preset, published_attributes
    from segmentation.explanation_settings import load_settings

    settings = load_settings(study)
    asked = load_preset(settings.preset, study.folder).under(settings.stated)
    return len(set(asked.names) - {one.name for one in published_attributes()})


def _test_connection(args: argparse.Namespace, base_url: str | None, progress: Progress) -> Outcome:
    from segmentation.connection_check import CHECK_LIMITS, check_connection
    from segmentation.server_presets import server_preset

    limits = CHECK_LIMITS
    if args.timeout is not None:
        limits = dataclasses.replace(limits, timeout_s=args.timeout)
    report = check_connection(
        base_url, args.model, limits=limits, waiting=lambda: progress(0, 1, "Asking the server")
    )
    lines = [report.sentence]
    if args.server and not report.ok:
        lines.append(f"{server_preset(args.server).name}: {server_preset(args.server).hint}")
    return Outcome(dataclasses.asdict(report), "\n".join(lines), 0 if report.ok else 1)
