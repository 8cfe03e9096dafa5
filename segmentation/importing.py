"""Bringing images, true masks and other programs' gaze into a study."""

from __future__ import annotations

import hashlib
import os
import re
import shutil
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from gaze_capture.errors import UserError
from gaze_capture.fixations import Fixations
from gaze_capture.formats.gazemedseg import read_gazemedseg
from gaze_capture.storage import explained_os_errors, sha256_of, write_bytes_atomic
from segmentation.images import ENDINGS, decode_mask, image_shape
from segmentation.study import Study, StudyImage, safe_name

Progress = Callable[[int, int, str], None]
"""Called with (done, total, what is being worked on)."""


def no_progress(done: int, total: int, label: str) -> None:
    """Report to nobody."""


@dataclass(frozen=True)
class ImportReport:
    """What an import took, and by name what it did not."""

    imported: tuple[str, ...] = ()
    """Ids of the new images."""
    masks: int = 0
    duplicates: tuple[str, ...] = ()
    """Files whose content the study holds already."""
    skipped: tuple[tuple[str, str], ...] = ()
    """(file, reason)"""
    notes: tuple[str, ...] = field(default=())


def find_images(paths: Sequence[Path | str]) -> list[Path]:
    """List the image files among files and folders, recursively, in order of name, each once.

    Raises
    ------
    UserError
        If a path does not exist.
    """
    found: dict[Path, None] = {}
    for path in map(Path, paths):
        if not path.exists():
            raise UserError(f"{path} does not exist; check the spelling.")
        if path.is_file():
            found[path] = None
        else:
            found.update(dict.fromkeys(_walk(path)))
    return list(found)


def _walk(folder: Path) -> Iterator[Path]:
    for parent, folders, names in os.walk(folder):
        folders.sort()
        for name in sorted(names):
            if name.lower().endswith(ENDINGS) and not name.startswith("."):
                yield Path(parent) / name


def import_images(
    study: Study,
    paths: Sequence[Path | str],
    *,
    masks: Path | str | None = None,
    split: str = "train",
    group_by: str | None = None,
    progress: Progress = no_progress,
) -> ImportReport:
    """Copy images into the study, with true masks where a file of the same name lies below `masks`.

    An unreadable file is named with its reason and the rest goes on. Files whose content the study already holds
    are counted as duplicates; a mask given for one is still taken where the study has none.

    Parameters
    ----------
    paths : files and folders (searched recursively)
    masks : folder of masks named like the images (any ending); above half of the range is foreground
    split : stored with the new images
    group_by : regular expression on the file's relative path; its first group (or whole match) names the image's
        group, so that one patient never falls on both sides of a split

    Raises
    ------
    UserError
        If nothing readable was found, or the disk refuses.
    """
    pattern = _compile(group_by)
    files = find_images(paths)
    if not files:
        listed = ", ".join(map(str, paths))
        raise UserError(f"{listed} holds no images; files ending in {', '.join(ENDINGS)} are read.")
    mask_files = _masks_by_name(Path(masks)) if masks is not None else {}
    by_hash = {image.sha256: image for image in study.images.values()}
    # Compared without case: two such ids would be one file on Windows and macOS.
    taken = {image_id.casefold() for image_id in study.images}
    target = study.target()
    records: list[StudyImage] = []
    duplicates: list[str] = []
    skipped: list[tuple[str, str]] = []
    mask_count = 0
    try:
        for number, path in enumerate(files):
            progress(number, len(files), path.name)
            try:
                shape = image_shape(path)
                digest = sha256_of(path)
            except (UserError, OSError) as error:
                skipped.append((str(path), str(error)))
                continue
            image = by_hash.get(digest)
            if image is not None:
                duplicates.append(str(path))
            else:
                image_id = _free_id(path.stem, digest, taken)
                image = StudyImage(
                    id=image_id,
                    path=f"images/{image_id}{path.suffix.lower()}",
                    source_name=path.name,
                    sha256=digest,
                    shape=shape,
                    split=split,
                    group=_group(pattern, path) or image_id,
                )
                _copy(path, study.image_path(image))
                taken.add(image_id.casefold())
                by_hash[digest] = image
                records.append(image)
            if mask_files and not study.mask_path(image.id, target.id).exists():
                reason = _take_mask(study, image, mask_files, path)
                if reason is None:
                    mask_count += 1
                else:
                    skipped.append((str(path), reason))
    finally:
        # What was copied before a full disk or Ctrl+C stays imported.
        study.add_images(records)
    progress(len(files), len(files), "")
    if not records and not duplicates:
        reason = skipped[0][1]
        raise UserError(f"None of {len(files)} files could be read as an image; the first: {reason}")
    study.audit("import-images", imported=len(records), duplicates=len(duplicates), skipped=len(skipped))
    return ImportReport(
        imported=tuple(record.id for record in records),
        masks=mask_count,
        duplicates=tuple(duplicates),
        skipped=tuple(skipped),
    )


def _compile(group_by: str | None) -> re.Pattern[str] | None:
    if group_by is None:
        return None
    try:
        return re.compile(group_by)
    except re.error as error:
        raise UserError(f"The pattern {group_by!r} is not a regular expression: {error}.") from None


def _group(pattern: re.Pattern[str] | None, path: Path) -> str | None:
    match = pattern.search(path.as_posix()) if pattern else None
    if not match:
        return None
    return safe_name(match.group(1) if match.groups() else match.group(0))


def _free_id(stem: str, digest: str, taken: set[str]) -> str:
    name = safe_name(stem)
    return f"{name}-{digest[:8]}" if name.casefold() in taken else name


def _copy(source: Path, destination: Path) -> None:
    """Copy under a temporary name, so that no half image ever bears the final one."""
    with explained_os_errors(destination):
        # Not with parents: a study that was moved away must not come to life again as an empty folder.
        destination.parent.mkdir(exist_ok=True)
        temporary = destination.with_name(f".{destination.name}.part")
        try:
            shutil.copyfile(source, temporary)
            os.replace(temporary, destination)
        except BaseException:
            temporary.unlink(missing_ok=True)
            raise


def _masks_by_name(folder: Path) -> dict[str, list[Path]]:
    if not folder.is_dir():
        raise UserError(f"The folder of masks {folder} does not exist; check the spelling.")
    by_name: dict[str, list[Path]] = {}
    for path in _walk(folder):
        by_name.setdefault(path.stem.casefold(), []).append(path)
    if not by_name:
        raise UserError(f"The folder of masks {folder} holds no images.")
    return by_name


def _take_mask(study: Study, image: StudyImage, mask_files: dict[str, list[Path]], path: Path) -> str | None:
    """Store the image's mask; return why not, or None."""
    stem = path.stem.casefold()
    candidates = next(
        (mask_files[key] for key in (stem, f"{stem}_mask", f"{stem}_segmentation") if key in mask_files), []
    )
    if not candidates:
        return f"there is no mask named {path.stem}; the image was imported without."
    # Folders mirrored as images/a/1.png and masks/a/1.png: the parent's name tells two equal names apart.
    beside = (
        [mask for mask in candidates if mask.parent.name == path.parent.name]
        if len(candidates) > 1
        else candidates
    )
    if len(beside) != 1:
        return f"{len(candidates)} masks are named {path.stem}; the image was imported without."
    try:
        mask = decode_mask(beside[0])
    except UserError as error:
        return f"its mask was left out: {error}"
    if mask.shape != image.shape[:2]:
        return (
            f"its mask {beside[0].name} was left out: it is {mask.shape[1]} x {mask.shape[0]} pixels, "
            f"the image {image.shape[1]} x {image.shape[0]}."
        )
    study.save_true_mask(image.id, study.target().id, mask)
    return None


@dataclass(frozen=True)
class GazeReport:
    """What an import of gaze took, and what it did not."""

    source: str
    """Id of the import: a folder in ``fixations/``."""
    images: int
    fixations: int
    unknown_images: tuple[str, ...]
    """Names in the file that the study has no image for."""
    outside_image: int
    """Fixations kept that lie outside their image; they do not enter heatmaps."""
    dropped: int
    """Rows without a duration."""
    already_there: bool = False


def import_gaze(
    study: Study,
    file: Path | str,
    *,
    format: str = "auto",
    split: str | None = None,
    annotator: str = "imported",
    image_width_deg: float | None = None,
    simulated_from: str | None = None,
    progress: Progress = no_progress,
) -> GazeReport:
    """Read another program's fixations into the study.

    Parameters
    ----------
    format : ``auto`` or ``gazemedseg``
    split : only images of this split; all when None
    image_width_deg : how wide the images were on the screen; without it sigma is a fraction of the image
    simulated_from : ``"masks"`` when the file is known to hold no person's gaze

    Raises
    ------
    UserError
        If the file is not understood, no image of the study is in it, or a name fits several images.
    """
    file = Path(file)
    if format not in ("auto", "gazemedseg"):
        raise UserError(f"There is no gaze format {format!r}; this version reads gazemedseg.")
    if image_width_deg is not None and not 0 < image_width_deg < 180:
        raise UserError(
            f"An image cannot be {image_width_deg:g} degrees wide; give a number between 0 and 180."
        )
    if not study.images:
        raise UserError("The study has no images yet; import the images before their gaze.")
    table = read_gazemedseg(file)
    original = file.read_bytes()
    digest = hashlib.sha256(original).hexdigest()
    source = f"{safe_name(file.stem)}-{digest[:8]}-{safe_name(annotator)}"
    if split is not None:
        source += f"-{safe_name(split)}"
    already_there = (study.folder / "fixations" / source).exists()
    images = study.images_of(split)
    by_name: dict[str, list[StudyImage]] = {}
    for image in images:
        for name in {
            image.source_name.casefold(),
            Path(image.source_name).stem.casefold(),
            image.id.casefold(),
        }:
            by_name.setdefault(name, []).append(image)
    found: list[Fixations] = []
    unknown: list[str] = []
    outside = 0
    for number, (name, gaze) in enumerate(table.images.items()):
        progress(number, len(table.images), name)
        matches = by_name.get(name.casefold(), [])
        if not matches:
            unknown.append(name)
            continue
        if len(matches) > 1:
            ids = ", ".join(match.id for match in matches)
            raise UserError(
                f"{file} speaks of {name!r}, which fits several images of the study ({ids}); "
                "narrow it with --split or use their ids in the file."
            )
        image = matches[0]
        height, width = image.shape[:2]
        xy_px = gaze.xy * [width, height] - 0.5
        outside += int(((gaze.xy < 0) | (gaze.xy > 1)).any(axis=1).sum())
        found.append(
            Fixations(
                image_id=image.id,
                target_id=study.target().id,
                annotator=annotator,
                source=source,
                start_ms=gaze.start_ms,
                duration_ms=gaze.duration_ms,
                xy_px=xy_px,
                dispersion_deg=np.full(len(xy_px), np.nan),
                detector="imported",
                degrees_per_px=image_width_deg / width if image_width_deg else None,
                simulated_from=simulated_from,
                viewing_ms=float((gaze.start_ms + gaze.duration_ms).max(initial=0.0)),
            )
        )
    if not found:
        raise UserError(
            f"{file} holds gaze for {len(table.images)} images, none of them in the study (the first is "
            f"{unknown[0]!r}); import the images first, or check their names."
        )
    kept = study.folder / "fixations" / source / f"original{file.suffix}"
    write_bytes_atomic(kept, original, within=study.folder)
    study.save_fixations(source, found, imported=True)
    study.audit("import-gaze", source=source, images=len(found), unknown=len(unknown))
    return GazeReport(
        source=source,
        images=len(found),
        fixations=sum(len(item.duration_ms) for item in found),
        unknown_images=tuple(unknown),
        outside_image=outside,
        dropped=table.dropped,
        already_there=already_there,
    )
