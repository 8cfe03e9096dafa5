"""True masks from files of every format: found by name or reference, their labels sorted to targets."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import numpy.typing as npt

from gaze_capture.errors import UserError
from segmentation.images import decode_mask, read_stored
from segmentation.import_options import ImportOptions
from segmentation.mask_sinks import MaskSink, TrueMasks
from segmentation.progress import Progress, no_progress
from segmentation.records import StudyImage, Target
from segmentation.sources import find_files
from segmentation.stacks import LabelMap, Plane, Refused, Stack
from segmentation.study import Study

Labels = Mapping[str, Sequence[str]]
"""Target id -> labels (numbers or names) that belong to it."""
Mask = npt.NDArray[np.bool_]

_SUFFIXES = ("", "_mask", "_segmentation", "-mask", "-segmentation", "_seg", "_gt", "_label", "_truth")
"""What mask files add to the name of their image, as published data sets do."""
_MOST_LABELS = 64
"""A picture of more different grey values than this is no label map."""


_COCO_TWICE = ("annotations.json", "annotations_polygons.json")
"""An export of this program holds the same masks as run lengths and as polygons."""
_NOT_MASKS = "manifest.json"
_PROBABILITY = "-probability"
"""What an export of this program adds to a target's id for the folder of its probabilities."""


@dataclass
class MaskFiles:
    """The masks among some files, ready to be asked for image by image."""

    study: Study
    folder: Path
    targets: tuple[Target, ...]
    labels: Labels | None
    sink: MaskSink
    pictures: dict[str, list[Path]] = field(default_factory=dict)
    maps: list[LabelMap] = field(default_factory=list)
    taken: dict[Path, str] = field(default_factory=dict)
    """Pictures that were taken as a mask, and of which image."""
    known: frozenset[str] = frozenset()
    """Names of the study's images and volumes, in lower case, where all are known: a mask called like one is its."""
    refused: list[Refused] = field(default_factory=list)
    """Files that are no masks, and why; told with the first image that has no mask."""

    @classmethod
    def find(
        cls,
        study: Study,
        path: Path,
        labels: Labels | None,
        target: str | None,
        options: ImportOptions,
        sink: MaskSink | None = None,
    ) -> MaskFiles:
        """Look through a folder of masks, or one file.

        A folder that is called like a target's id holds masks of that target, unless labels or a target are given.

        Parameters
        ----------
        sink : where masks go; by default they become true masks

        Raises
        ------
        UserError
            If there is no mask at all, or labels are given for targets the study does not have.
        """
        if not path.exists():
            raise UserError(f"The folder of masks {path} does not exist; check the spelling.")
        for name in labels or ():
            study.target(name)
        targets = (study.target(target),) if target is not None else study.targets
        files = cls(study, path, targets, labels, sink or TrueMasks(study))
        found = find_files([path])
        for kind in (found.plain, found.nifti):
            kind[:] = [file for file in kind if not file.parent.name.endswith(_PROBABILITY)]
        for picture in found.plain:
            files.pictures.setdefault(picture.stem.casefold(), []).append(picture)
        from segmentation.readers.opening import open_label_maps

        jsons = [path] if path.is_file() else sorted(path.rglob("*.json"))
        coco = [
            one
            for one in jsons
            if one.suffix.lower() == ".json"
            and one.name != _NOT_MASKS
            and not (one.name == _COCO_TWICE[1] and one.with_name(_COCO_TWICE[0]) in jsons)
        ]
        for item in open_label_maps(study, found, coco, options):
            if isinstance(item, Refused):
                files.refused.append(item)
            else:
                files.maps.append(item)
        if not files.pictures and not files.maps:
            why = f" ({files.refused[0].reason})" if files.refused else ""
            raise UserError(f"{path} holds no images that could be masks{why}.")
        return files

    def _target_of(self, file: Path) -> str | None:
        """Return the target that a file's folder is named after, the nearest one first."""
        if self.labels is not None or len(self.targets) < 2:
            return None
        ids = {target.id.casefold(): target.id for target in self.targets}
        top = self.folder if self.folder.is_dir() else self.folder.parent
        for parent in file.parents:
            if parent.name.casefold() in ids:
                return ids[parent.name.casefold()]
            if parent == top:
                break
        return None

    # A picture's mask

    def take_for_picture(self, image: StudyImage, path: Path) -> tuple[int, list[str]]:
        """Store the masks of a picture; return how many, and what was left out."""
        maps = self._maps_for((path.stem,), ())
        if maps:
            return self._take_maps([image], None, maps, path.stem)
        stem = path.stem.casefold()
        candidates = next(
            (self.pictures[stem + end] for end in _SUFFIXES if stem + end in self.pictures),
            self.pictures.get(image.id.casefold(), list[Path]()),
        )
        by_target: dict[str | None, list[Path]] = {}
        for file in candidates:
            by_target.setdefault(self._target_of(file), []).append(file)
        if set(by_target) <= {None} and self._has_all([image]):
            return 0, []
        if not candidates:
            return 0, [f"there is no mask named {path.stem}; the image was imported without."]
        count, reasons = 0, list[str]()
        for target_id, files in by_target.items():
            if target_id is not None and self.sink.has(image.id, target_id):
                continue
            # Folders mirrored as images/a/1.png and masks/a/1.png: the parent's name tells two equal names apart.
            beside = (
                [mask for mask in files if mask.parent.name == path.parent.name] if len(files) > 1 else files
            )
            if len(beside) != 1:
                reasons.append(f"{len(files)} masks are named {path.stem}; the image was imported without.")
                continue
            try:
                stored, notes = self._take_picture_mask(image, beside[0], target_id)
            except UserError as error:
                reasons.append(f"its mask was left out: {error}")
            else:
                count += stored
                reasons += notes
        return count, reasons

    def _take_picture_mask(
        self, image: StudyImage, file: Path, target_id: str | None = None
    ) -> tuple[int, list[str]]:
        from segmentation.readers.label_images import read_label_png

        owner = self.taken.setdefault(file, image.id)
        if owner != image.id:
            raise UserError(
                f"{file} is the mask of {owner} already, which has the same name; put masks into folders that are "
                "named like the images' own."
            )
        labelled = read_label_png(file)
        if len(labelled.labels) <= 1:
            # Otherwise they are indices into a palette, or grey values, and told apart by these.
            _refuse_colours(file)
        if self.labels or (
            target_id is None
            and len(labelled.labels) > 1
            and len(labelled.labels) <= _MOST_LABELS
            and _are_labels(labelled)
        ):
            return self._take_maps([image], None, [labelled], image.id)
        drawn = decode_mask(file)
        if labelled.labels and not drawn.any():
            raise UserError(
                f"{file} is darker than half of its range everywhere, so that none of its values counts as foreground; "
                f"save it in black and white, or name them: --labels {self.targets[0].id}={max(labelled.labels)}"
            )
        mask, note = self._fitted(drawn, image.shape[:2])
        if mask is None:
            return 0, [f"its mask {file.name} was left out: {note}"]
        stored = self.sink.save(image, target_id or self.targets[0].id, mask)
        return int(stored), [f"its mask {file.name} {note}"] if note else []

    def _fitted(self, mask: Mask, shape: tuple[int, int]) -> tuple[Mask | None, str]:
        found, note = fitted(mask, shape)
        if found is not None and note and self.sink.exact:
            return None, note.rpartition(": ")[2]
        return found, note

    def _has_all(self, images: Sequence[StudyImage]) -> bool:
        wanted = [target.id for target in self.targets if self.labels is None or target.id in self.labels]
        if self.labels is None:
            wanted = wanted[:1]
        return all(self.sink.has(image.id, name) for image in images for name in wanted)

    def has_any_for(self, name: str, stack: Stack | None) -> bool:
        """Whether there is a mask that is named like an image or volume, or refers to it."""
        stem = name.casefold()
        return any(stem + end in self.pictures for end in _SUFFIXES) or bool(
            self._maps_for((name,), stack.source_ids if stack is not None else ())
        )

    # A stack's masks

    def take_for_stack(self, images: Sequence[StudyImage], stack: Stack) -> tuple[int, list[str]]:
        """Store the masks of a stack's slices; return how many, and what was left out."""
        maps = self._maps_for(_names_of(stack), stack.source_ids)
        if not maps and len(images) == 1:
            return self.take_for_picture(images[0], stack.files[0])
        if not maps and self.has_any_of(images):
            return self._slice_masks(images)
        if not maps:
            pages = self._page_masks(images, stack)
            return (
                pages
                if pages is not None
                else (
                    0,
                    [f"there is no mask for {stack.name}; it was imported without."],
                )
            )
        return self._take_maps(images, stack, maps, stack.name)

    def has_any_of(self, images: Sequence[StudyImage]) -> bool:
        """Whether there is a mask that is named like one of the slices themselves."""
        named = {one.name.casefold() for one in self.maps if one.count == 1 and not one.source_ids}
        return any(name in self.pictures or name in named for image in images for name in _own_names(image))

    def _slice_masks(self, images: Sequence[StudyImage]) -> tuple[int, list[str]]:
        """Take masks that come as a file, or an entry of COCO, for each slice."""
        count, reasons = 0, list[str]()
        for image in images:
            if not self.has_any_of([image]):
                continue
            names = _own_names(image)
            maps = [one for one in self.maps if one.count == 1 and one.name.casefold() in names]
            taken, notes = (
                self._take_maps([image], None, maps, image.source_name)
                if maps
                # The ending is one that a path takes off again.
                else self.take_for_picture(image, Path(f"{image.source_name}.png"))
            )
            count += taken
            reasons += notes
        return count, reasons

    def _page_masks(self, images: Sequence[StudyImage], stack: Stack) -> tuple[int, list[str]] | None:
        """Take masks that come as a file of as many pages; None where there is no such file."""
        from segmentation.readers.plain import read_plain

        stems = dict.fromkeys(name.casefold() for name in (stack.files[0].stem, stack.name))
        found = next(
            (self.pictures[stem + end] for stem in stems for end in _SUFFIXES if stem + end in self.pictures),
            list[Path](),
        )
        if len(found) != 1:
            return None
        try:
            pages = read_plain(found[0])
        except UserError as error:
            return 0, [f"its mask was left out: {error}"]
        if pages.count != stack.count or pages.shape[:2] != stack.shape[:2]:
            return 0, [
                f"its mask {found[0].name} was left out: it has {pages.count} pages, the images {stack.count}."
            ]
        target_id = self._target_of(found[0]) or self.targets[0].id
        count = 0
        for number, image in enumerate(images):
            if self.sink.has(image.id, target_id):
                continue
            mask: Mask = np.logical_or.reduce(pages.read(_plane(image, number)).values > 0, axis=2)
            count += self.sink.save(image, target_id, mask)
        return count, []

    def _maps_for(self, names: Sequence[str], source_ids: Sequence[str]) -> list[LabelMap]:
        ids = set(source_ids) - {""}
        by_id = [one for one in self.maps if ids and ids & set(one.source_ids)]
        if by_id:
            return by_id
        wanted = {name.casefold() for name in names}
        named = [one for one in self.maps if not one.source_ids and one.name.casefold() in wanted]
        if named:
            return named
        # One volume and one file of masks need no common name.
        alone = self.folder.is_file() and len(self.maps) == 1 and not self.maps[0].source_ids
        return self.maps if alone and self.maps[0].name.casefold() not in self.known else []

    def _take_maps(
        self, images: Sequence[StudyImage], stack: Stack | None, maps: Sequence[LabelMap], name: str
    ) -> tuple[int, list[str]]:
        count, reasons = 0, list[str]()
        for labels in maps:
            try:
                stored, notes = self._take_map(images, stack, labels)
            except UserError as error:
                reasons.append(f"its mask was left out: {error}")
            else:
                count += stored
                reasons += notes
        return count, reasons

    def _take_map(
        self, images: Sequence[StudyImage], stack: Stack | None, labels: LabelMap
    ) -> tuple[int, list[str]]:
        file = labels.files[0]
        chosen, left_out = self._sorted(labels)
        notes = [f"of {file.name} these labels were left out: {', '.join(left_out)}."] if left_out else []
        read = self._reader(images, stack, labels, notes)
        count = 0
        for number, image in enumerate(images):
            # A mask of a slice alone has one plane, wherever the slice lies.
            plane = _plane(image, number) if stack is not None else number
            for target_id, numbers in chosen.items():
                if self.sink.has(image.id, target_id):
                    continue
                mask = np.zeros(image.shape[:2], dtype=np.bool_)
                if numbers:
                    mask = np.logical_or.reduce([read(plane, label) for label in numbers])
                fitting, note = self._fitted(mask, image.shape[:2])
                if fitting is None:
                    raise UserError(f"{file.name}: {note}")
                if note:
                    notes.append(f"its mask {file.name} {note}")
                count += self.sink.save(image, target_id, fitting)
        return count, list(dict.fromkeys(notes))

    def _reader(
        self, images: Sequence[StudyImage], stack: Stack | None, labels: LabelMap, notes: list[str]
    ) -> Callable[[int, int], Mask]:
        if stack is not None:
            from segmentation.readers.grids import planes_on

            placed = planes_on(stack, labels)
            if self.sink.exact and not placed.exact:
                raise UserError(
                    f"{labels.files[0]} was drawn on another grid than {stack.name}; save it on the image's own (in 3D "
                    "Slicer, with the image as reference volume)."
                )
            notes += [placed.note] if placed.note else []
            return placed
        if labels.count != len(images):
            raise UserError(f"{labels.files[0]} has {labels.count} slices, the image {len(images)}.")
        return labels.read

    def _sorted(self, labels: LabelMap) -> tuple[dict[str, list[int]], list[str]]:
        """Return target id -> label numbers, and the names of labels that belong to none.

        Raises
        ------
        UserError
            If it is not clear which label is of which target.
        """
        file, names = labels.files[0], labels.labels
        if (target_id := self._target_of(file)) is not None:
            return {target_id: list(names)}, []
        listed = ", ".join(
            f"{n} ({text})" if text and text != f"label {n}" else str(n) for n, text in names.items()
        )
        chosen: dict[str, list[int]] = {}
        if self.labels is not None:
            by_word = {str(number): number for number in names} | {
                text.casefold(): number for number, text in names.items()
            }
            if list(names) == [255]:
                # The white of a picture with one structure is what others call 1.
                by_word["1"] = 255
            for target_id, words in self.labels.items():
                numbers = [by_word[word.casefold()] for word in words if word.casefold() in by_word]
                # A label that this file does not hold is a structure that this image does not show.
                if numbers or any(word.isdigit() for word in words):
                    chosen[target_id] = numbers
                else:
                    raise UserError(f"{file} has no label {', '.join(words)}; its labels are: {listed}.")
        else:
            for target in self.targets:
                known = {target.id.casefold(), target.name.casefold()}
                numbers = [number for number, text in names.items() if text.casefold() in known]
                if numbers:
                    chosen[target.id] = numbers
            if not chosen and len(names) <= 1:
                chosen[self.targets[0].id] = list(names)
        if not chosen:
            raise UserError(
                f"{file} holds the labels {listed}; say which belong to which target: "
                f"--labels {self.targets[0].id}={next(iter(names), 1)}"
            )
        used = {number for numbers in chosen.values() for number in numbers}
        return chosen, [text or str(number) for number, text in names.items() if number not in used]


def _plane(image: StudyImage, number: int) -> int:
    """Return an image's place in its volume, some of whose slices the study may not have; else its number."""
    return number if image.slice_index is None else image.slice_index


def _names_of(stack: Stack) -> list[str]:
    """Return the names under which masks of a stack may go: its own, its file's, and its folders'.

    A DICOM series has no name but its folder's; published sets name the masks after the patient's folder.
    """
    first = stack.files[0]
    return [stack.name, first.stem, *(parent.name for parent in first.parents if parent.name)]


def _own_names(image: StudyImage) -> set[str]:
    """Return the names, in lower case, under which a mask of a slice alone may go."""
    return {image.source_name.casefold(), image.id.casefold()}


def _refuse_colours(file: Path) -> None:
    """Refuse a mask whose structures differ by colour: read as black and white, they would become one."""
    pixels = read_stored(file)
    if file.suffix.lower() in (".jpg", ".jpeg") or pixels.shape[2] < 3:
        return
    coloured = pixels[(pixels.max(axis=2) - pixels.min(axis=2)) > 64]
    count = len(np.unique(coloured.reshape(-1, 3) // 32, axis=0)) if coloured.size else 0
    if count > 1:
        raise UserError(
            f"{file} shows structures in {count} colours, which cannot be told apart here; save it with a grey "
            "value or an index for each structure and use --labels."
        )


def _are_labels(labelled: LabelMap) -> bool:
    """Whether a picture's grey values count structures (1, 2, 3 ...), rather than blur the edge of one."""
    return max(labelled.labels) <= _MOST_LABELS


def fitted(mask: Mask, shape: tuple[int, int]) -> tuple[Mask | None, str]:
    """Return a mask on the image's grid: one that is a single row or column off is cut or filled up, and says so.

    Returns
    -------
    The mask, or None where it is of another size, and a note.
    """
    if mask.shape == shape:
        return mask, ""
    (height, width), (rows, columns) = shape, mask.shape
    told = f"{columns} x {rows} pixels, the image {width} x {height}."
    if abs(rows - height) > 1 or abs(columns - width) > 1:
        return None, f"it is {told}"
    padded = np.pad(mask, ((0, max(height - rows, 0)), (0, max(width - columns, 0))), mode="edge")
    return padded[:height, :width], f"was one row or column off and was fitted: it is {told}"


@dataclass(frozen=True)
class MaskReport:
    """What an import of masks took, and what it did not."""

    masks: int
    images: int
    """Images that now have a mask and had none."""
    skipped: tuple[tuple[str, str], ...]
    """(file or image, reason)"""


def import_masks(
    study: Study,
    path: Path | str,
    *,
    labels: Labels | None = None,
    target: str | None = None,
    options: ImportOptions | None = None,
    progress: Progress = no_progress,
) -> MaskReport:
    """Bring true masks to images and volumes that the study has already; masks that are there stay.

    Raises
    ------
    UserError
        If nothing fits any image, or labels cannot be told apart; the first reason is named.
    """
    files = MaskFiles.find(study, Path(path), labels, target, options or ImportOptions())
    before = {p.name for p in (study.folder / "masks").glob("*.png")}
    count, skipped = take_all(files, progress)
    study.audit("import-masks", masks=count, skipped=len(skipped))
    after = {p.name for p in (study.folder / "masks").glob("*.png")} - before
    return MaskReport(count, len({name.partition(".")[0] for name in after}), tuple(skipped))


def take_all(files: MaskFiles, progress: Progress = no_progress) -> tuple[int, list[tuple[str, str]]]:
    """Bring masks to the images and volumes that a study has; return how many were stored, and what was left out.

    Raises
    ------
    UserError
        If nothing fits any image, or nothing was stored and something left out; the first reason is named.
    """
    count, skipped = 0, [(str(item.file), item.reason) for item in files.refused]
    units = list(_units(files.study))
    files.known = frozenset(
        name.casefold()
        for images, stack in units
        for name in ([stack.name] if stack is not None else [Path(images[0].source_name).stem])
    )
    fitting = 0
    for number, (images, stack) in enumerate(units):
        name = stack.name if stack is not None else Path(images[0].source_name).stem
        progress(number, len(units), name)
        if not files.has_any_for(name, stack) and not files.has_any_of(images):
            continue
        fitting += 1
        taken, reasons = (
            files.take_for_stack(images, stack)
            if stack is not None
            else files.take_for_picture(images[0], Path(images[0].source_name))
        )
        count += taken
        skipped += [(name, reason) for reason in reasons]
    progress(len(units), len(units), "")
    if not count and not fitting:
        raise UserError(
            f"None of the masks in {files.folder} is named like, or refers to, an image of the study."
        )
    if not count and skipped:
        raise UserError(f"No mask of {files.folder} was taken; the first reason: {skipped[0][1]}")
    return count, skipped


def _units(study: Study) -> Iterator[tuple[list[StudyImage], Stack | None]]:
    """Yield volumes with what masks need to know of them, and pictures on their own."""
    with_header = set(study.volume_ids())
    told: set[str] = set()
    for image in study.images.values():
        name = image.volume or image.id
        if name in told:
            continue
        told.add(name)
        if name not in with_header:
            yield [image], None
            continue
        volume = study.volume(name)
        images = [study.image(one) for one in volume.image_ids if one in study.images]
        yield (
            images,
            Stack(
                name=image.source_stem,
                files=(study.image_path(image),),
                shape=image.shape,
                count=len(volume.image_ids),
                read=_not_read,
                spacing_mm=image.spacing_mm,
                slice_spacing_mm=volume.slice_spacing_mm,
                affine=volume.affine,
                series=volume.series,
                source_ids=volume.source_ids,
            ),
        )


def _not_read(number: int) -> Plane:
    raise AssertionError("masks are placed by geometry alone")
