"""Masks as a BIDS derivative: NIfTI masks with sidecars, one subject a group of images (a patient)."""

from __future__ import annotations

from collections import Counter

from gaze_capture.archive import program
from gaze_capture.formats.bids_writer import BIDS_VERSION, label_of, tsv
from gaze_capture.storage import write_bytes_atomic, write_json_atomic
from segmentation.export_selection import simulated_words
from segmentation.mask_choice import ChosenMask, Unit
from segmentation.mask_writers.book import MaskBook
from segmentation.mask_writers.nifti import planes_of, stacked, write_volume
from segmentation.records import Target

_TYPES = {"lesion": "Lesion", "organ": "ROI", "zone": "ROI"}
"""BIDS's words for what a mask shows."""


def write_bids_masks(book: MaskBook) -> None:
    """Write ``sub-<group>/anat/sub-<group>_run-<n>_label-<target>_mask.nii.gz`` and its sidecar."""
    selection = book.selection
    subjects: dict[str, str] = {}
    labels: dict[str, str] = {}
    runs: Counter[str] = Counter()
    for target in selection.targets:
        labels[target.id] = _free(target.id, set(labels.values()), "target")
    for unit in selection.units:
        group = unit.images[0].group or unit.id
        if group not in subjects:
            subjects[group] = _free(group, set(subjects.values()), "image")
        subject = subjects[group]
        runs[subject] += 1
        for target in selection.targets_of(unit):
            stem = f"sub-{subject}/anat/sub-{subject}_run-{runs[subject]:02d}_label-{labels[target.id]}_mask"
            file = f"{stem}.nii.gz"
            write_volume(book.folder / file, stacked(book, unit, target.id, file), unit)
            found = [chosen for chosen in selection.of(unit, target) if chosen is not None]
            write_json_atomic(book.folder / f"{stem}.json", _sidecar(unit, target, found))
    _write_top(book, subjects)


def _free(text: str, taken: set[str], otherwise: str) -> str:
    """Return letters and digits that no other has, in whatever case."""
    wanted = label_of(text) or otherwise
    label, number = wanted, 1
    while label.casefold() in {other.casefold() for other in taken}:
        number += 1
        label = f"{wanted}x{number}"
    return label


def _sidecar(unit: Unit, target: Target, found: list[ChosenMask]) -> dict[str, object]:
    origins = [chosen.origin for chosen in found]
    kinds = sorted({origin.kind for origin in origins})
    simulated = {origin.simulated_from for origin in origins} - {None}
    return {
        "Description": f"{target.name}: {', '.join(kinds)} masks",
        "Type": _TYPES[target.kind],
        "Sources": [],
        "Image": unit.name,
        "TargetCode": target.code or None,
        "Annotators": sorted({origin.annotator for origin in origins if origin.annotator}),
        "Verdicts": sorted({origin.verdict for origin in origins if origin.verdict}),
        "Runs": sorted({origin.run for origin in origins if origin.run}),
        "Thresholds": sorted({origin.threshold for origin in origins if origin.threshold is not None}),
        "SimulatedFrom": sorted(word for word in simulated if word) or None,
        "SlicesWithMask": sorted(planes_of(unit)[chosen.image.id] for chosen in found),
    }


def _write_top(book: MaskBook, subjects: dict[str, str]) -> None:
    study = book.selection.study
    words = simulated_words(book.selection.simulated_from)
    note = f" ({words})" if words else ""
    name, version = program().rsplit(" ", 1)
    write_json_atomic(
        book.folder / "dataset_description.json",
        {
            "Name": f"{study.name}: masks{note}",
            "BIDSVersion": BIDS_VERSION,
            "DatasetType": "derivative",
            "GeneratedBy": [
                {"Name": name, "Version": version, "Description": f"Masks of a study of gaze{note}"}
            ],
        },
    )
    rows = [(f"sub-{label}", group) for group, label in sorted(subjects.items(), key=lambda item: item[1])]
    write_bytes_atomic(book.folder / "participants.tsv", tsv(("participant_id", "group"), rows))
    write_json_atomic(
        book.folder / "participants.json",
        {
            "participant_id": {
                "Description": "A patient or sequence; an image on its own where groups are unknown"
            },
            "group": {"Description": "What it is called in the study"},
        },
    )
    write_bytes_atomic(book.folder / ".bidsignore", b"manifest.json\n")
    lines = [
        f"# {study.name}: masks{note}",
        "",
        f"Masks of medical images, exported by {program()} as a BIDS {BIDS_VERSION} derivative. The images themselves "
        "are not part of it.",
        *(["", f"**Gaze behind masks of this data set is {words}.**"] if words else []),
        "",
        "- 1 is the target, 0 is not. Axes are columns, rows, slices; the affine is that of the images.",
        "- `SlicesWithMask` of a sidecar says which slices were judged; others are 0, too.",
        "- Pictures that are no scans lie in `anat`, too: BIDS has no other place for a mask of theirs.",
        "- `manifest.json` has every mask with annotator, verdict, run, threshold and hash.",
        "",
    ]
    write_bytes_atomic(book.folder / "README.md", "\n".join(lines).encode())
