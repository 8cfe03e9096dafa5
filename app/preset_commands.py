"""What the commands about explanations' presets and settings do."""

from __future__ import annotations

import argparse
import dataclasses
import json
from pathlib import Path
from typing import Any

from app.commands import Outcome, counted
from gaze_capture.errors import UserError
from segmentation.explanation_presets import (
    SCALE,
    Attribute,
    Preset,
    copy_preset,
    load_preset,
    own_folder,
    preset_ids,
    preset_path,
    programs_folder,
    read_preset,
)
from segmentation.progress import Progress
from segmentation.study import Study


def explanation_presets(args: argparse.Namespace, progress: Progress) -> Outcome:
    """``gaze-insight explanation-presets``."""
    folder = Study.open(args.study).folder if args.study else None
    if args.new_id and not args.copy:
        raise UserError("--as names a copy: say which preset with --copy ID.")
    if args.check:
        return _checked(args.check)
    if args.copy:
        return _copied(args.copy, folder, args.new_id)
    if args.schema:
        schema = load_preset(args.schema, folder).schema()
        return Outcome(schema, json.dumps(schema, ensure_ascii=False, indent=2))
    if args.show:
        return _shown(args.show, folder)
    return _listed(folder)


def _checked(path: Path) -> Outcome:
    if path.suffix != ".json":
        raise UserError(f"{path} is no preset's .json file; give that, its prompt is found beside it.")
    preset = read_preset(path)
    values = {"file": str(path), "ok": True, **_summary(preset)}
    return Outcome(
        values, f"{path} and {path.with_suffix('.md').name} are a good preset: {_in_short(preset)}."
    )


def _copied(preset_id: str, folder: Path | None, new_id: str | None) -> Outcome:
    if folder is None:
        raise UserError("Say which study the copy is for: gaze-insight explanation-presets STUDY --copy ID.")
    path = copy_preset(preset_id, folder, new_id)
    lines = [f"Copied {preset_id} to {path} and {path.with_suffix('.md').name}; change them as you like."]
    if note := _in_place_of(path.stem, folder):
        lines.append(f"It {note}.")
    lines += [
        f"Check: gaze-insight explanation-presets --check {path}",
        f"Next: gaze-insight explanation-settings {folder} --preset {path.stem}",
    ]
    return Outcome(
        {"preset": path.stem, "file": str(path), "prompt": str(path.with_suffix(".md"))}, "\n".join(lines)
    )


def _in_place_of(preset_id: str, folder: Path | None) -> str:
    """Say of a study's own preset that it hides the program's of the same id; empty where it does not."""
    if folder is None or preset_path(preset_id, folder).parent != own_folder(folder):
        return ""
    hidden = preset_id in preset_ids()
    return f"is this study's own and counts in place of the program's {preset_id}" if hidden else ""


def _shown(preset_id: str, folder: Path | None) -> Outcome:
    path = preset_path(preset_id, folder)
    preset = load_preset(preset_id, folder)
    own = path.parent != programs_folder()
    whose = _in_place_of(preset_id, folder) or ("is this study's own" if own else "is the program's")
    lines = [
        f"{preset.id}: {preset.title}",
        f"  file    {path}, which {whose}",
        f"  prompt  {path.with_suffix('.md')}",
        f"  hash    {preset.sha256}",
        f"  states  {', '.join(preset.techniques) or 'no technique'}",
        "",
    ]
    for one in preset.attributes:
        lines += [f"{one.name}{_condition(one)}: {one.description}", f"    {_sayable(one)}"]
    values = {
        **_summary(preset),
        "file": str(path),
        "prompt_file": str(path.with_suffix(".md")),
        "own": own,
        "in_place_of_programs": bool(_in_place_of(preset_id, folder)),
        "prompt": preset.prompt,
        "attributes": [dataclasses.asdict(one) for one in preset.attributes],
    }
    return Outcome(values, "\n".join([*lines, "", preset.prompt.rstrip()]))


def _condition(one: Attribute) -> str:
    if one.when is None:
        return ""
    return " (where the image has a scale)" if one.when == SCALE else f" (where {one.when} is stated)"


def _sayable(one: Attribute) -> str:
    number = {"percent": ["0 to 100"], "millimetres": ["millimetres"], "text": ["free text"]}.get(
        one.kind, []
    )
    return " | ".join([*number, *one.words])


def _listed(folder: Path | None) -> Outcome:
    found: list[dict[str, Any]] = []
    lines = []
    programs = [preset_path(one) for one in preset_ids()]
    own = sorted(own_folder(folder).glob("*.json")) if folder else []
    if folder:
        # A prompt without its preset is half of a copy, and stands in the way of the program's.
        halves = (own_folder(folder) / path.name for path in programs)
        own += [path for path in halves if path not in own and path.with_suffix(".md").exists()]
    taken = {path.stem for path in own}
    # A file whose name is no id would never be found by it; here it is named with the reason.
    paths = [*own, *(path for path in programs if path.stem not in taken)]
    for path in paths:
        whose = "own" if path in own else "program's"
        values: dict[str, Any] = {"id": path.stem, "file": str(path), "own": path in own, "problem": None}
        try:
            preset = read_preset(path)
        except UserError as error:
            found.append({**values, "problem": str(error)})
            lines.append(f"{path.stem:20} {whose:10} cannot be used: {error}")
            continue
        note = " (in place of the program's)" if _in_place_of(path.stem, folder) else ""
        found.append({**values, **_summary(preset)})
        lines.append(f"{path.stem:20} {whose:10} {_in_short(preset)}{note}")
    broken = any(one["problem"] for one in found)
    return Outcome({"presets": found}, "\n".join(lines), 1 if broken else 0)


def _summary(preset: Preset) -> dict[str, Any]:
    return {
        "id": preset.id,
        "title": preset.title,
        "attribute_count": len(preset.attributes),
        "techniques": list(preset.techniques),
        "sha256": preset.sha256,
    }


def _in_short(preset: Preset) -> str:
    techniques = f", more with {' or '.join(preset.techniques)}" if preset.techniques else ""
    return f"{preset.title}; {counted(len(preset.attributes), 'attribute')}{techniques}"


def explanation_settings(args: argparse.Namespace, progress: Progress) -> Outcome:
    """``gaze-insight explanation-settings``."""
    from segmentation.explanation_settings import load_settings, save_settings

    study = Study.open(args.study)
    before = load_settings(study)
    names = ("drawn", "fixations_in_words", "side_px", "mask_text")
    changes = {name: getattr(args, name) for name in names if getattr(args, name) is not None}
    if args.crop is not None:
        changes["crop_margin"] = None if args.crop == "none" else args.crop
    preset_id = args.preset or before.preset
    stated = before.stated if args.stated is None else tuple(dict.fromkeys(args.stated))
    dropped: list[str] = []
    if args.stated is None and args.preset and args.preset != before.preset:
        # What the study's images were taken with holds on, as far as the new preset knows of it.
        known = load_preset(args.preset, study.folder).techniques
        dropped = [one for one in stated if one not in known]
        stated = tuple(one for one in stated if one in known)
    settings = dataclasses.replace(
        before, preset=preset_id, stated=stated, view=dataclasses.replace(before.view, **changes)
    )
    if settings != before:
        save_settings(study, settings)
    view = settings.view
    path, problem = None, ""
    try:
        path = preset_path(settings.preset, study.folder)
        title = load_preset(settings.preset, study.folder).title
    except UserError as error:
        title, problem = "cannot be used", str(error)
    scaled = sum(image.spacing_mm is not None for image in study.images.values())
    lines = [
        f"preset              {settings.preset}: {title}",
        f"  file              {path or 'none'}",
        f"stated              {', '.join(settings.stated) or 'nothing'}",
        f"drawn               {view.drawn}",
        f"crop                {'none' if view.crop_margin is None else f'{view.crop_margin:g}'}",
        f"fixations in words  {'yes' if view.fixations_in_words else 'no'}",
        f"largest side        {view.side_px} px",
        f"mask text           {'yes' if view.mask_text else 'no'}",
        f"millimetres         asked of {scaled} of {counted(len(study.images), 'image')}: those with a scale",
    ]
    if dropped:
        lines.append(f"No longer stated, as the preset knows nothing of it: {', '.join(dropped)}.")
    if problem:
        lines.append(problem)
    values = {
        **dataclasses.asdict(settings),
        "preset_file": None if path is None else str(path),
        "no_longer_stated": dropped,
        "images_with_scale": scaled,
        "problem": problem or None,
    }
    return Outcome(values, "\n".join(lines), 1 if problem else 0)
