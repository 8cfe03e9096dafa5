"""What a person decides before images are imported, and what can be found out beforehand. Nothing of Qt."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from gaze_capture.errors import UserError
from segmentation.import_options import ImportOptions
from segmentation.importing import ImportReport
from segmentation.masks import Labels
from segmentation.progress import Progress, no_progress
from segmentation.records import Target, safe_name
from segmentation.sources import Found, find_files
from segmentation.stacks import LabelMap
from segmentation.study import Study

PER_FOLDER = r"([^/]+)/[^/]+$"
"""Groups by the name of the folder that a file lies in."""
MOST_OPENED = 20
"""So many mask files are opened to learn which labels there are."""
_MOST_GREY_LABELS = 64
_MASK_FOLDERS = ("masks", "mask", "labels", "labelstr", "segmentations", "ground_truth", "groundtruth", "gt")
_IMAGE_FOLDERS = ("images", "image", "imagestr", "imgs", "img")


@dataclass(frozen=True)
class ImportChoice:
    """An import, decided."""

    paths: tuple[Path, ...]
    masks: Path | None = None
    labels: Labels | None = None
    target: str | None = None
    options: ImportOptions = field(default_factory=ImportOptions)


@dataclass(frozen=True)
class FoundLabel:
    """A label that occurs in mask files."""

    word: str
    """By which the import knows it: its number, or its name where files disagree about the number."""
    name: str
    """As the files call it; empty where they do not say."""


def propose_masks(paths: Sequence[Path]) -> Path | None:
    """Return the folder of masks that lies beside or in a folder of images, if there is one."""
    if len(paths) != 1 or not paths[0].is_dir():
        return None
    folder = paths[0]
    if folder.name.casefold() in _IMAGE_FOLDERS:
        return _mask_folder(folder.parent)
    names = {one.name.casefold() for one in _folders(folder)}
    return _mask_folder(folder) if names & set(_IMAGE_FOLDERS) else None


def _folders(parent: Path) -> list[Path]:
    try:
        return sorted(one for one in parent.iterdir() if one.is_dir())
    except OSError:
        return []


def _mask_folder(parent: Path) -> Path | None:
    found = {one.name.casefold(): one for one in _folders(parent)}
    return next((found[name] for name in _MASK_FOLDERS if name in found), None)


def all_files(found: Found) -> list[Path]:
    """Return the files of all formats."""
    return [*found.plain, *found.dicom, *found.nifti, *found.nrrd, *found.video]


def grouped(pattern: str, files: Iterable[Path]) -> list[tuple[str, str]]:
    """Return (end of a file's path, its group; empty where the pattern finds none).

    Raises
    ------
    UserError
        If the pattern is no regular expression.
    """
    try:
        compiled = re.compile(pattern)
    except re.error as error:
        raise UserError(f"This is not a regular expression: {error}.") from None
    rows = []
    for file in files:
        match = compiled.search(file.as_posix())
        text = "" if match is None else match.group(1) if match.groups() else match.group(0)
        rows.append((f"{file.parent.name}/{file.name}", safe_name(text) if text else ""))
    return rows


def labels_in(
    study: Study, path: Path, options: ImportOptions | None = None, progress: Progress = no_progress
) -> list[FoundLabel]:
    """Open mask files, of many the first, and return their labels where there are several.

    Raises
    ------
    UserError
        If the path holds no masks.
    """
    found = find_files([path])
    jsons = [path] if path.is_file() else sorted(path.rglob("*.json"))
    jsons = [one for one in jsons if one.suffix.lower() == ".json"]
    if not len(found) and not jsons:
        raise UserError(f"{path} holds no images that could be masks.")
    sample = Found(
        dicom=found.dicom[:MOST_OPENED], nifti=found.nifti[:MOST_OPENED], nrrd=found.nrrd[:MOST_OPENED]
    )
    pictures = found.plain[:: max(1, len(found.plain) // MOST_OPENED)][:MOST_OPENED]
    total = len(sample) + len(jsons) + len(pictures)
    maps: list[LabelMap] = []
    if len(sample) or jsons:
        from segmentation.readers.opening import open_label_maps

        for item in open_label_maps(study, sample, jsons, options or ImportOptions()):
            progress(min(len(maps), total), total, path.name)
            if isinstance(item, LabelMap):
                maps.append(item)
    if pictures:
        from segmentation.readers.label_images import read_label_png

        for number, picture in enumerate(pictures):
            progress(number, total, picture.name)
            try:
                labelled = read_label_png(picture)
            except UserError:
                # Named by the import itself, with its reason.
                continue
            if labelled.labels and max(labelled.labels) <= _MOST_GREY_LABELS:
                maps.append(labelled)
    return _told_apart(maps)


def _told_apart(maps: Sequence[LabelMap]) -> list[FoundLabel]:
    names: dict[int, list[str]] = {}
    for one in maps:
        for number, text in one.labels.items():
            known = names.setdefault(number, [])
            text = "" if text == f"label {number}" else text
            if text not in known:
                known.append(text)
    if all(len(texts) == 1 for texts in names.values()):
        labels = [FoundLabel(str(number), texts[0]) for number, texts in sorted(names.items())]
    else:
        words = sorted({text for texts in names.values() for text in texts if text})
        labels = [FoundLabel(word, word) for word in words]
    return labels if len(labels) > 1 else []


def guessed_target(found: FoundLabel, targets: Sequence[Target]) -> str | None:
    """Return the id of the target that a label is called like, or None."""
    words = {found.word.casefold(), found.name.casefold()} - {""}
    for target in targets:
        if words & {target.id.casefold(), target.name.casefold()}:
            return target.id
    return None


def merged(reports: Iterable[ImportReport]) -> ImportReport:
    """Return several reports as one."""
    reports = list(reports)
    return ImportReport(
        imported=tuple(one for report in reports for one in report.imported),
        volumes=sum(report.volumes for report in reports),
        masks=sum(report.masks for report in reports),
        duplicates=tuple(one for report in reports for one in report.duplicates),
        skipped=tuple(one for report in reports for one in report.skipped),
        notes=tuple(one for report in reports for one in report.notes),
        burned_in=tuple(one for report in reports for one in report.burned_in),
    )


def by_reason(items: Sequence[tuple[str, str]]) -> list[tuple[str, list[str]]]:
    """Return (reason, files) with equal reasons put together, the commonest first.

    Reasons name the file, as a rule; such a name is taken out where the reason is shared.
    """
    groups: dict[str, list[tuple[str, str]]] = {}
    for file, reason in items:
        bare = reason.replace(file, "…").replace(Path(file).name, "…")
        if stem := Path(file).stem:
            bare = re.sub(rf"(?<!\w){re.escape(stem)}(?!\w)", "…", bare)
        groups.setdefault(bare, []).append((file, reason))
    rows = []
    for bare, members in groups.items():
        text = members[0][1] if len(members) == 1 else bare
        rows.append((text, [file for file, _ in members]))
    return sorted(rows, key=lambda row: -len(row[1]))
