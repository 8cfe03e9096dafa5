"""Data sets in the folders they are published in: one call imports images, masks, targets and splits."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from gaze_capture.errors import UserError
from segmentation.import_options import ImportOptions
from segmentation.importing import ImportReport, import_images
from segmentation.masks import Labels
from segmentation.progress import Progress, no_progress
from segmentation.records import Target
from segmentation.sources import find_files
from segmentation.study import TEST_SPLIT, Study


@dataclass(frozen=True)
class Part:
    """What belongs to one split of a published data set."""

    split: str
    images: tuple[Path, ...]
    masks: Path


@dataclass(frozen=True)
class DataSet:
    """How a published data set lies on disk."""

    name: str
    title: str
    targets: tuple[Target, ...]
    parts: Callable[[Path], list[Part]]
    """Finds the parts below a folder; empty where it is not this data set."""
    expected: str
    """The folders it should have, in words, for the sentence of who has other ones."""
    labels: Labels | None = None


def _kvasir_parts(folder: Path) -> list[Part]:
    root = next((one for one in (folder, folder / "Kvasir-SEG") if (one / "images").is_dir()), None)
    if root is None or not (root / "masks").is_dir():
        return []
    return [Part("train", (root / "images",), root / "masks")]


_ISIC_FOLDERS = {
    "train": (
        "isic-2017_training_data",
        "isic2018_task1-2_training_input",
        "isbi2016_isic_part1_training_data",
    ),
    "val": ("isic-2017_validation_data", "isic2018_task1-2_validation_input"),
    TEST_SPLIT: ("isic-2017_test_v2_data", "isic2018_task1-2_test_input", "isbi2016_isic_part1_test_data"),
}
_ISIC_YEAR = re.compile(r"20(16|17|18)")


def _isic_parts(folder: Path) -> list[Part]:
    """One year's folders; the masks' folders differ from the images' in their last words alone."""
    parts = []
    folders = [one for one in sorted(folder.iterdir()) if one.is_dir()]
    for split, names in _ISIC_FOLDERS.items():
        for images in folders:
            if images.name.lower() not in names:
                continue
            word = {"train": "training", "val": "validation", TEST_SPLIT: "test"}[split]
            year = _ISIC_YEAR.search(images.name)
            truths = [
                one
                for one in folders
                if "groundtruth" in one.name.lower()
                and word in one.name.lower()
                and "part2" not in one.name.lower()
                and "task2" not in one.name.lower()
                and year is not None
                and year.group() in one.name
            ]
            if len(truths) == 1:
                pictures = [
                    one for one in find_files([images]).plain if "superpixels" not in one.stem.lower()
                ]
                parts.append(Part(split, tuple(pictures), truths[0]))
    return parts


def _nci_isbi_parts(folder: Path) -> list[Part]:
    """Label files lie in Training, Leaderboard and Test; a case's DICOM folder bears the label file's name."""
    series = {one.name.casefold(): one for one in sorted(folder.rglob("*")) if one.is_dir()}
    parts = []
    for split, words in (("train", ("training",)), ("val", ("leaderboard",)), (TEST_SPLIT, ("test",))):
        for truths in sorted(folder.rglob("*")):
            if not truths.is_dir() or not truths.name.lower().startswith(words):
                continue
            names = [re.sub(r"(?i)_truth$", "", one.stem) for one in sorted(truths.glob("*.nrrd"))]
            cases = [series[name.casefold()] for name in names if name.casefold() in series]
            if cases:
                parts.append(Part(split, tuple(cases), truths))
    return parts


DATA_SETS: dict[str, DataSet] = {
    one.name: one
    for one in (
        DataSet(
            "kvasir-seg",
            "Kvasir-SEG (Jha et al., MMM 2020)",
            (Target("polyp", "Polyp"),),
            _kvasir_parts,
            "images and masks",
        ),
        DataSet(
            "isic",
            "ISIC lesion segmentation, 2016, 2017 or 2018 task 1",
            (Target("lesion", "Skin lesion"),),
            _isic_parts,
            "the unpacked folders of one year under their own names, like ISIC2018_Task1-2_Training_Input and "
            "ISIC2018_Task1_Training_GroundTruth",
        ),
        DataSet(
            "nci-isbi-2013",
            "NCI-ISBI 2013 prostate structures (Prostate-3T and PROSTATE-DIAGNOSIS)",
            (
                Target("gland", "Prostate", colour="#56B4E9", kind="organ", code="SCT:41216001"),
                Target(
                    "pz",
                    "Peripheral zone",
                    colour="#E69F00",
                    kind="zone",
                    inside="gland",
                    code="SCT:279706003",
                ),
                Target("cg", "Central gland", colour="#CC79A7", kind="zone", inside="gland"),
            ),
            _nci_isbi_parts,
            "the DICOM folders of the cases and the .nrrd files in Training, Leaderboard and Test",
            labels={"gland": ("1", "2"), "pz": ("1",), "cg": ("2",)},
        ),
    )
}


def import_dataset(
    study: Study,
    name: str,
    folder: Path | str,
    *,
    test_names: Iterable[str] = (),
    options: ImportOptions | None = None,
    progress: Progress = no_progress,
) -> list[tuple[str, ImportReport]]:
    """Import a published data set, its targets replacing those of a study that is still empty.

    Parameters
    ----------
    test_names : file names (with or without ending) that go to the split ``test`` where the set has no split of its own

    Returns
    -------
    (split, report) of each part.

    Raises
    ------
    UserError
        If the folder is not the data set's, or the study has other targets and images already.
    """
    folder = Path(folder)
    if name not in DATA_SETS:
        raise UserError(f"There is no data set {name!r} here; choose one of {', '.join(DATA_SETS)}.")
    known = DATA_SETS[name]
    if not folder.is_dir():
        raise UserError(f"{folder} does not exist; check the spelling.")
    parts = known.parts(folder)
    if not parts:
        raise UserError(f"{folder} does not look like {known.title}: it should hold {known.expected}.")
    if {target.id for target in known.targets} - {target.id for target in study.targets}:
        if study.images:
            raise UserError(
                f"The study has images and other targets already; import {known.title} into a new study."
            )
        study.set_targets(known.targets)
    reports = []
    for part in _with_test(parts, test_names):
        own = replace(options or ImportOptions(), split=part.split)
        reports.append(
            (
                part.split,
                import_images(
                    study,
                    list(part.images),
                    masks=part.masks,
                    labels=known.labels,
                    target=None if known.labels else known.targets[0].id,
                    options=own,
                    progress=progress,
                ),
            )
        )
    return reports


def _with_test(parts: Sequence[Part], test_names: Iterable[str]) -> list[Part]:
    """Move the named files of the only part into the split ``test``."""
    names = {name.casefold() for name in test_names}
    if not names:
        return list(parts)
    if len(parts) > 1:
        raise UserError("This data set has a split of its own; a list of test images is not needed.")
    [part] = parts
    files = find_files(list(part.images)).plain
    test = [file for file in files if file.name.casefold() in names or file.stem.casefold() in names]
    if not test:
        raise UserError("None of the names in the list of test images is in the data set.")
    left = [file for file in files if file not in set(test)]
    return [Part(part.split, tuple(left), part.masks), Part(TEST_SPLIT, tuple(test), part.masks)]
