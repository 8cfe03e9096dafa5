"""Bringing images of every format into a study, with their true masks.

What comes in is copied: pictures without their metadata, everything else as plain planes of numbers, so that what
works with a study later needs no reader of medical formats, and finds no patient's name.
"""

from __future__ import annotations

import contextlib
import dataclasses
import hashlib
import os
import re
import secrets
import shutil
from collections import deque
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from gaze_capture.errors import UserError
from gaze_capture.storage import explained_os_errors
from segmentation.images import encode_plane
from segmentation.import_options import ImportOptions
from segmentation.intensity import Intensity, Statistics, shown
from segmentation.masks import Labels, MaskFiles
from segmentation.progress import Progress, no_progress
from segmentation.records import StudyImage, Volume, readable, safe_name
from segmentation.sources import LARGEST_PLAIN_BYTES, Found, find_files
from segmentation.stacks import Modality, Plane, Refused, Stack, Values
from segmentation.study import Study

FLUSH_EVERY = 500
"""So many images become part of the study at a time: what a crash loses is at most these."""


@dataclass(frozen=True)
class ImportReport:
    """What an import took, and by name what it did not."""

    imported: tuple[str, ...] = ()
    """Ids of the new images, every slice of a volume counted."""
    volumes: int = 0
    masks: int = 0
    """True masks stored, one a target and image."""
    duplicates: tuple[str, ...] = ()
    """Files whose content the study holds already."""
    held: tuple[str, ...] = ()
    """Ids of the images that these are; of a volume, its first slice."""
    skipped: tuple[tuple[str, str], ...] = ()
    """(file, reason)"""
    notes: tuple[tuple[str, str], ...] = ()
    """(file, what a person should know of it though it was taken)"""
    burned_in: tuple[str, ...] = ()
    """Ids of images in whose pixels text is likely."""


@dataclass
class _Tally:
    """An :class:`ImportReport` in the making."""

    imported: list[str] = field(default_factory=list)
    volumes: int = 0
    masks: int = 0
    duplicates: list[str] = field(default_factory=list)
    held: list[str] = field(default_factory=list)
    skipped: list[tuple[str, str]] = field(default_factory=list)
    notes: list[tuple[str, str]] = field(default_factory=list)
    burned_in: list[str] = field(default_factory=list)

    def report(self) -> ImportReport:
        return ImportReport(
            imported=tuple(self.imported),
            volumes=self.volumes,
            masks=self.masks,
            duplicates=tuple(self.duplicates),
            held=tuple(self.held),
            skipped=tuple(self.skipped),
            notes=tuple(self.notes),
            burned_in=tuple(self.burned_in),
        )


def import_images(
    study: Study,
    paths: Sequence[Path | str],
    *,
    masks: Path | str | None = None,
    labels: Labels | None = None,
    target: str | None = None,
    split: str = "train",
    group_by: str | None = None,
    options: ImportOptions | None = None,
    progress: Progress = no_progress,
) -> ImportReport:
    """Copy images, series, volumes and videos into the study, with true masks where `masks` has them.

    An unreadable file is named with its reason and the rest goes on. What the study already holds, by content, is
    counted as duplicate; a mask given for it is still taken where the study has none. Whatever was finished before a
    crash, a full disk or Ctrl+C stays; the same import started again goes on where it was.

    Parameters
    ----------
    paths : files and folders (searched recursively)
    masks : folder of masks named like the images, or one file of masks (NIfTI, NRRD, DICOM-SEG, COCO)
    labels : target id -> labels (numbers or names) of the mask files that belong to it
    target : the target that masks without labels are of; the study's first when None
    split, group_by : of the options, where no others are given

    Raises
    ------
    UserError
        If nothing readable was found, a folder vanished on the way, or the disk refuses.
    """
    options = options or ImportOptions(split=split, group_by=group_by)
    pattern = _compile(options.group_by)
    found = find_files(paths, beside=[Path(masks)] if masks is not None else [])
    if not len(found):
        listed = ", ".join(map(str, paths))
        raise UserError(
            f"{listed} holds no images; PNG, JPEG, TIFF, BMP, DICOM, NIfTI, NRRD and video files are read."
        )
    mask_files = MaskFiles.find(study, Path(masks), labels, target, options) if masks is not None else None
    return _Import(study, found, mask_files, options, pattern, [Path(path) for path in paths], progress).run()


class _Import:
    """One import at work."""

    def __init__(
        self,
        study: Study,
        found: Found,
        masks: MaskFiles | None,
        options: ImportOptions,
        pattern: re.Pattern[str] | None,
        roots: list[Path],
        progress: Progress,
    ) -> None:
        self.study, self.found, self.masks, self.options = study, found, masks, options
        self._pattern, self._roots, self._progress = pattern, roots, progress
        self._by_source = {image.came_from_sha256: image for image in study.images.values()}
        # Compared without case: two such ids would be one file on Windows and macOS.
        self._taken = {name.casefold() for name in (*study.images, *study.volumes)}
        self._waiting: list[StudyImage] = []
        self._done, self._total = 0, len(found)
        self.tally = _Tally()

    def run(self) -> ImportReport:
        try:
            self._take_pictures()
            self._take_stacks()
        finally:
            # What was copied before a full disk or Ctrl+C stays imported.
            self._flush()
        self._progress(self._total, self._total, "")
        tally = self.tally
        if not tally.imported and not tally.duplicates:
            reason = tally.skipped[0][1] if tally.skipped else "it holds no image."
            raise UserError(f"None of {len(self.found)} files could be read as an image; the first: {reason}")
        self.study.audit(
            "import-images",
            imported=len(tally.imported),
            masks=tally.masks,
            duplicates=len(tally.duplicates),
            skipped=len(tally.skipped),
        )
        return tally.report()

    def _flush(self) -> None:
        records, self._waiting = self._waiting, []
        self.study.add_images(records)

    def _step(self, label: str, amount: int = 1) -> None:
        self._progress(min(self._done, self._total), self._total, label)
        self._done += amount

    def _check_roots(self, error: str) -> None:
        """Stop when what was to be imported is no longer there: every further file would only fail the same way."""
        for root in self._roots:
            if not root.exists():
                raise UserError(
                    f"{root} is no longer there after {len(self.tally.imported)} images ({error}); these are kept. "
                    "Connect it again and start the same import once more: it goes on where it was."
                )

    # Pictures: many, small, prepared on all cores

    def _take_pictures(self) -> None:
        files = self.found.plain
        with ThreadPoolExecutor(max_workers=os.cpu_count() or 1) as pool:
            ahead: deque[tuple[Path, Future[_Picture | Stack]]] = deque()
            coming = iter(files)

            def more() -> None:
                for path in coming:
                    ahead.append((path, pool.submit(_prepared, path, self.options)))
                    return

            for _ in range(4 * (os.cpu_count() or 1)):
                more()
            try:
                while ahead:
                    path, future = ahead.popleft()
                    self._step(path.name)
                    try:
                        taken = future.result()
                        if isinstance(taken, Stack):
                            self._take_stack(taken)
                        else:
                            self._take_picture(path, taken)
                    except _Unreadable as error:
                        self._check_roots(str(error))
                        self.tally.skipped.append((str(path), str(error)))
                    more()
            finally:
                for _, future in ahead:
                    future.cancel()

    def _take_picture(self, path: Path, picture: _Picture) -> None:
        image = self._by_source.get(picture.source_sha256)
        if image is not None:
            self.tally.duplicates.append(str(path))
            self.tally.held.append(image.id)
        else:
            image = self._store_picture(path, picture)
        if self.masks is not None:
            self._count_masks(path, self.masks.take_for_picture(image, path))

    def _store_picture(self, path: Path, picture: _Picture) -> StudyImage:
        hidden = self.options.deidentify == "names"
        stem = f"image-{picture.source_sha256[:12]}" if hidden else path.stem
        stored_sha256 = hashlib.sha256(picture.data).hexdigest()
        for image_id in _ids(stem, picture.source_sha256, self._taken):
            image = StudyImage(
                id=image_id,
                path=f"images/{image_id}{picture.ending}",
                source_name=f"{image_id}{picture.ending}" if hidden else readable(path.name),
                sha256=stored_sha256,
                shape=picture.shape,
                modality=picture.modality,
                split=self.options.split,
                group=self._group(path) or image_id,
                intensity=picture.intensity,
                source_sha256="" if stored_sha256 == picture.source_sha256 else picture.source_sha256,
                captured=picture.captured,
                burned_in=picture.burned_in,
            )
            if _write_new(self.study.image_path(image), picture.data):
                break
        self._add(image)
        if picture.note:
            self.tally.notes.append((str(path), picture.note))
        return image

    def _add(self, image: StudyImage) -> None:
        self._taken.add(image.id.casefold())
        self._by_source[image.came_from_sha256] = image
        self._waiting.append(image)
        self.tally.imported.append(image.id)
        if image.burned_in:
            self.tally.burned_in.append(image.id)
        if len(self._waiting) >= FLUSH_EVERY:
            self._flush()

    def _group(self, path: Path) -> str | None:
        match = self._pattern.search(path.as_posix()) if self._pattern else None
        return safe_name(match.group(1) if match.groups() else match.group(0)) if match else None

    def _count_masks(self, path: Path, taken: tuple[int, list[str]]) -> None:
        count, reasons = taken
        self.tally.masks += count
        for reason in reasons:
            self.tally.skipped.append((str(path), reason))

    # Series, volumes, files of pages

    def _take_stacks(self) -> None:
        from segmentation.readers.opening import open_stacks

        for stack in open_stacks(self.study, self.found, self.options, self._step):
            if isinstance(stack, Refused):
                self._check_roots(stack.reason)
                self.tally.skipped.append((str(stack.file), stack.reason))
                continue
            try:
                self._take_stack(stack)
            except _Unreadable as error:
                self._check_roots(str(error))
                self.tally.skipped.append((str(stack.files[0]), str(error)))

    def _take_stack(self, stack: Stack) -> None:
        first = stack.files[0]
        try:
            digest = _digest(stack)
        except OSError as error:
            raise _Unreadable(f"{first} cannot be read: {error.strerror or error}.") from error
        known = self._by_source.get(_plane_digest(digest, 0))
        if known is not None:
            self.tally.duplicates.append(str(first))
            self.tally.held.append(known.id)
            self._flush()
            images = [self.study.image(name) for name in self.study.slices_beside(known.id)]
        else:
            images = self._store_stack(stack, digest)
        for note in stack.notes if known is None else ():
            self.tally.notes.append((str(first), note))
        if self.masks is not None:
            self._count_masks(first, self.masks.take_for_stack(images, stack))

    def _store_stack(self, stack: Stack, digest: str) -> list[StudyImage]:
        """Write a stack's planes into a folder that gets its name, and the study its images, when all are there."""
        hidden = self.options.deidentify == "names"
        told = readable(stack.name)
        stem = f"volume-{digest[:12]}" if hidden else told
        images = self.study.folder / "images"
        staging = images / f".{secrets.token_hex(6)}.part"
        with explained_os_errors(staging):
            images.mkdir(exist_ok=True)
            staging.mkdir()
        try:
            planes, statistics, notes, burned_in = self._write_planes(stack, staging)
            for name in _ids(stem, digest, self._taken):
                final = images / name
                with explained_os_errors(final):
                    try:
                        # Another workstation's volume of this name has something in it: rename refuses then.
                        if not final.exists():
                            os.rename(staging, final)
                            break
                    except FileExistsError:
                        continue
                    except OSError:
                        if not final.exists():
                            raise
        except BaseException:
            shutil.rmtree(staging, ignore_errors=True)
            raise
        modality = self.options.modality or stack.modality
        measured = modality not in _BRIGHTNESS_ONLY or stack.window is not None
        single = len(planes) == 1
        records = []
        for number, (file, sha256, plane) in enumerate(planes):
            image_id = name if single else f"{name}-{number + 1:04d}"
            meaning = Intensity(plane.slope, plane.intercept, unit=stack.unit, window=stack.window)
            records.append(
                StudyImage(
                    id=image_id,
                    path=f"images/{name}/{file}",
                    source_name=image_id if hidden else told if single else f"{told} {number + 1}",
                    sha256=sha256,
                    shape=stack.shape,
                    modality=modality,
                    spacing_mm=stack.spacing_mm,
                    slice_index=None if single else number,
                    split=self.options.split,
                    group=self._group(stack.files[0])
                    or (safe_name(stack.patient) if stack.patient else name),
                    volume="" if single else name,
                    intensity=statistics.on(meaning) if measured else meaning,
                    source_sha256=_plane_digest(digest, number),
                    captured=stack.captured,
                    burned_in=burned_in,
                )
            )
        self.study.save_volume(
            Volume(
                id=name,
                image_ids=tuple(record.id for record in records),
                slice_spacing_mm=stack.slice_spacing_mm,
                affine=stack.affine,
                series=stack.series,
                source_ids=stack.source_ids,
                header=stack.header,
                notes=(*stack.notes, *notes),
            )
        )
        self.tally.volumes += not single
        self.tally.notes += [(str(stack.files[0]), note) for note in notes]
        # All slices of a volume at once: half a volume is none.
        for record in records:
            self._taken.add(record.id.casefold())
            self._by_source[record.came_from_sha256] = record
        self._waiting += records
        self.tally.imported += [record.id for record in records]
        self.tally.burned_in += [record.id for record in records if record.burned_in]
        self._taken.add(name.casefold())
        if len(self._waiting) >= FLUSH_EVERY:
            self._flush()
        return records

    def _write_planes(
        self, stack: Stack, folder: Path
    ) -> tuple[list[tuple[str, str, Plane]], Statistics, list[str], str]:
        """Write all planes.

        Returns
        -------
        File name, hash and plane without its pixels of each; statistics; notes; why text is likely, or ``""``.
        """
        from segmentation.readers.burned_in import likely_text

        burned_in = stack.burned_in
        written: list[tuple[str, str, Plane]] = []
        statistics = Statistics()
        notes: dict[str, int] = {}
        for number in range(stack.count):
            try:
                plane = stack.read(number)
            except (UserError, OSError) as error:
                raise _Unreadable(str(error)) from error
            values = _blanked(plane.values, self.options.blank)
            if values.shape != stack.shape:
                raise _Unreadable(
                    f"{stack.files[0]}: slice {number + 1} is {values.shape[1]} x {values.shape[0]} pixels, "
                    f"the others {stack.shape[1]} x {stack.shape[0]}."
                )
            data, ending = encode_plane(values)
            file = f"{number + 1:04d}{ending}"
            with explained_os_errors(folder / file):
                (folder / file).write_bytes(data)
            meaning = Intensity(plane.slope, plane.intercept)
            statistics.add(meaning.real(values))
            if number == stack.count // 2 and not burned_in and not self.options.blank:
                # Text of a series stands on each of its slices.
                if likely_text(shown(values, dataclasses.replace(meaning, window=stack.window))):
                    burned_in = "a row of what looks like letters"
            if plane.note:
                notes[plane.note] = notes.get(plane.note, 0) + 1
            bare = dataclasses.replace(plane, values=values[:0])
            written.append((file, hashlib.sha256(data).hexdigest(), bare))
            if stack.count > 20 and number % 10 == 0:
                # Asked between slices, too, so that Cancel need not wait for a long volume's end.
                self._progress(
                    min(self._done, self._total), self._total, f"{stack.name} {number}/{stack.count}"
                )
        texts = [
            note if count == 1 else f"{note} (and {count - 1} more slices)" for note, count in notes.items()
        ]
        # What a reader told of the whole stack is not told again of each slice.
        told = " ".join(stack.notes)
        texts = [text for text in texts if text.rstrip(".") not in told]
        return written, statistics, texts, "" if self.options.blank else burned_in


_BRIGHTNESS_ONLY = ("photo", "us")
"""Modalities whose 8-bit values are what the screen is to show."""


class _Unreadable(Exception):
    """A file that is left out; its text says why."""


@dataclass(frozen=True)
class _Picture:
    """A picture as it will be stored."""

    data: bytes
    ending: str
    source_sha256: str
    shape: tuple[int, int, int]
    modality: Modality
    intensity: Intensity
    captured: str
    burned_in: str
    note: str


def _prepared(path: Path, options: ImportOptions) -> _Picture | Stack:
    """Read a picture whole (a cut file is found out) and make what is stored of it; a file of pages is a stack."""
    from segmentation.readers.plain import capture_time, read_plain, stripped

    try:
        size = path.stat().st_size
        if size > LARGEST_PLAIN_BYTES:
            raise _Unreadable(f"{path} is too large for a picture: {size / (1 << 30):.1f} GiB.")
        stack = read_plain(path)
        if stack.count > 1:
            return stack
        plane = stack.read(0)
        data = path.read_bytes()
    except UserError as error:
        raise _Unreadable(str(error)) from error
    except OSError as error:
        raise _Unreadable(f"{path} cannot be read: {error.strerror or error}.") from error
    values = _blanked(plane.values, options.blank)
    modality = options.modality or stack.modality
    source_sha256 = hashlib.sha256(data).hexdigest()
    ending = ".png" if data[:4] == b"\x89PNG" else ".jpg" if data[:3] == b"\xff\xd8\xff" else ""
    captured = capture_time(data)
    as_it_is = ending and not options.blank and (plane.slope, plane.intercept, plane.note) == (1.0, 0.0, "")
    kept = b""
    if as_it_is:
        # A file whose parts cannot all be told apart is stored anew from its pixels.
        with contextlib.suppress(ValueError):
            kept = stripped(data, ending)
    if not kept:
        kept, ending = encode_plane(values)
    intensity = Intensity(plane.slope, plane.intercept)
    if modality not in _BRIGHTNESS_ONLY or values.dtype != np.uint8:
        statistics = Statistics()
        statistics.add(intensity.real(values))
        intensity = statistics.on(intensity)
    height, width, channels = values.shape
    return _Picture(
        data=kept,
        ending=ending,
        source_sha256=source_sha256,
        shape=(height, width, channels),
        modality=modality,
        intensity=intensity,
        captured=captured,
        burned_in="",
        note=plane.note or " ".join(stack.notes),
    )


def _blanked(values: Values, rectangles: Sequence[tuple[int, int, int, int]]) -> Values:
    if not rectangles:
        return values
    painted = values.copy()
    for x, y, width, height in rectangles:
        painted[max(y, 0) : y + height, max(x, 0) : x + width] = values.min()
    return painted


def _digest(stack: Stack) -> str:
    """Return what tells this stack from any other: its files' content, and which of their stacks it is."""
    digest = hashlib.sha256()
    for path in stack.files:
        with open(path, "rb") as stream:
            while block := stream.read(1 << 20):
                digest.update(block)
    digest.update(f"{stack.shape} {stack.count} {stack.series}".encode())
    return digest.hexdigest()


def _plane_digest(digest: str, number: int) -> str:
    return hashlib.sha256(f"{digest} {number}".encode()).hexdigest()


def _compile(group_by: str | None) -> re.Pattern[str] | None:
    if group_by is None:
        return None
    try:
        return re.compile(group_by)
    except re.error as error:
        raise UserError(f"The pattern {group_by!r} is not a regular expression: {error}.") from None


def _ids(stem: str, digest: str, taken: set[str]) -> Iterator[str]:
    """Yield ids for a name: the name itself, then ones that its content makes different, then any that is free."""
    name = safe_name(stem)
    for candidate in (name, f"{name}-{digest[:8]}"):
        if candidate.casefold() not in taken:
            yield candidate
    while True:
        yield f"{name}-{secrets.token_hex(4)}"


def _write_new(path: Path, data: bytes) -> bool:
    """Write a file that is not there yet, all or nothing; False where another one has taken the name meanwhile."""
    with explained_os_errors(path):
        # Not with parents: a study that was moved away must not come to life again as an empty folder.
        path.parent.mkdir(exist_ok=True)
        temporary = path.with_name(f".{secrets.token_hex(6)}.part")
        try:
            temporary.write_bytes(data)
            try:
                # Unlike a rename, a link never takes the place of another workstation's file.
                os.link(temporary, path)
            except FileExistsError:
                # Left by an import that was cut off, or of the same content: taken as it is.
                return path.read_bytes() == data
            except OSError:
                # A file system without links.
                if path.exists():
                    return path.read_bytes() == data
                os.replace(temporary, path)
            return True
        finally:
            with contextlib.suppress(OSError):
                temporary.unlink()
