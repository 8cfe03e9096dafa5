"""What the commands about the teacher's text do: its encoder, embeddings made elsewhere, whether it is used."""

from __future__ import annotations

import argparse

from app.commands import Outcome, counted, named
from segmentation.progress import Progress
from segmentation.study import Study


def text_encoder(args: argparse.Namespace, progress: Progress) -> Outcome:
    """``gaze-insight text-encoder``."""
    from segmentation.explanation_settings import MINILM, load_settings
    from segmentation.known_folders import remembered_folder
    from segmentation.text import steps

    study = Study.open(args.study)
    if args.folder is not None or args.default:
        made = steps.choose_encoder(study, args.folder, progress)
    elif args.embed:
        made = steps.embed(study, progress)
    else:
        choice = load_settings(study).encoder
        if choice is None:
            return Outcome(
                {"name": MINILM, "default": True}, f"The study's text encoder is {MINILM} (default)."
            )
        folder = remembered_folder(choice.sha256)
        there = folder is not None and folder.is_dir()
        values = {
            "name": choice.name,
            "sha256": choice.sha256,
            "width": choice.width,
            "default": False,
            "folder": str(folder) if there else None,
        }
        where = f"in {folder}" if there else "not known on this computer; --folder tells where it lies"
        return Outcome(
            values,
            f"The study's text encoder is {choice.name} ({choice.sha256[:8]}, {choice.width} wide), {where}.",
        )
    return Outcome(
        made,
        f"The study's text encoder is {made['name']} ({made['sha256'][:8]}, {made['width']} wide); "
        f"{counted(made['phrases'], 'phrase')} have their vectors in the study.",
    )


def import_embeddings(args: argparse.Namespace, progress: Progress) -> Outcome:
    """``gaze-insight import-embeddings``."""
    from segmentation.text import steps

    study = Study.open(args.study)
    found = steps.import_embeddings(
        study,
        args.folder,
        progress,
        name=args.name,
        target=args.target,
        split=args.split,
        token_axis=args.token_axis,
        width=args.width,
    )
    fewest, most = found["tokens"]
    tokens = counted(most, "token") if fewest == most else f"{fewest} to {most} tokens"
    done = "were there already" if found["already_there"] else "imported"
    lines = [
        f"Embeddings {found['name']!r} of {counted(found['images'], 'image')} {done}: {tokens} of {found['width']} "
        f"numbers each.",
        *found["notes"],
        *named("No such image in the study", found["unknown"]),
        *named("Refused", [f"{file}: {reason}" for file, reason in found["refused"]]),
    ]
    if found["missing"]:
        lines.append(
            f"Without embeddings: {counted(found['missing'], 'image')}; the teacher reads nothing there."
        )
    lines.append(f"Next: gaze-insight train {args.study} --embeddings {found['name']}")
    return Outcome(found, "\n".join(lines))


def text_use(args: argparse.Namespace, progress: Progress) -> Outcome:
    """``gaze-insight text-use``."""
    from segmentation.text.steps import measure_text_use

    study = Study.open(args.study)
    found = measure_text_use(
        study, args.run_id, split=args.split, images=args.images, device=args.device, progress=progress
    )
    return Outcome(found.to_json(), found.to_text())
