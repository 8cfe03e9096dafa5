"""A study's recordings as a BIDS data set of eye tracking."""

from __future__ import annotations

import importlib.metadata
import shutil
from pathlib import Path

from gaze_capture.errors import UserError
from gaze_capture.formats.bids_writer import (
    BIDS_VERSION,
    ShownImage,
    Task,
    label_of,
    tsv,
    write_bids_recording,
)
from gaze_capture.recording import Recording
from gaze_capture.storage import explained_os_errors, write_bytes_atomic, write_json_atomic
from segmentation.export_selection import Selection, Tally, simulated_words
from segmentation.progress import Progress
from segmentation.records import StudyImage

TASK = "view"
IMAGES_FOLDER = "images"
"""Below ``stimuli/``."""


def write_dataset(selection: Selection, folder: Path, tally: Tally, progress: Progress) -> None:
    """Write recordings, one run each, under the annotator as participant; imported gaze has no samples and stays.

    Raises
    ------
    UserError
        If no recording is chosen, an image to go along may show text that names a patient, or the disk refuses.
    """
    study = selection.study
    if selection.with_images:
        _check_text(list(selection.images.values()))
    task = Task(
        TASK,
        "An annotator looks at medical images, one after the other, for as long as they need.",
        "Look for the target in the image, as in clinical work; then say whether it is present.",
        {target.id: target.name for target in study.targets},
        "Gaze Insight",
        importlib.metadata.version("gaze-insight"),
    )
    labels: dict[str, str] = {}
    runs: dict[str, int] = {}
    simulated: dict[str, set[str]] = {}
    empty = 0
    for recording in selection.each_recording(tally, progress):
        if not len(recording.time_ns):
            empty += 1
            continue
        label = labels.setdefault(recording.annotator, _free_label(recording.annotator, set(labels.values())))
        runs[label] = runs.get(label, 0) + 1
        if recording.simulated_from:
            simulated.setdefault(recording.annotator, set()).add(recording.simulated_from)
        shown = _shown(selection, recording)
        stem = f"sub-{label}_task-{TASK}_run-{runs[label]:02d}"
        write_bids_recording(folder / f"sub-{label}" / "beh", stem, recording, shown, task)
        tally.take(recording)
        for item in shown:
            if item.fixations is not None:
                tally.add(item.fixations)
    if not tally.recordings:
        raise UserError(
            "BIDS holds samples, and none of the gaze chosen has any (imported fixations have not); export it as "
            "gazemedseg or csv."
        )
    if empty:
        tally.notes.append(f"{empty} recordings without a sample were left out.")
    if selection.imported:
        tally.notes.append(
            f"{len(selection.imported)} looks of imported gaze have no samples and were left out."
        )
    if selection.with_images:
        _copy_images(selection, folder, tally)
    _write_top(selection, folder, labels, simulated, simulated_words(tally.simulated_from), task)


def _check_text(images: list[StudyImage]) -> None:
    marked = [image.id for image in images if image.burned_in]
    if marked:
        raise UserError(
            f"Text is likely in the pixels of {len(marked)} images (the first is {marked[0]}) and may name a patient; "
            "look at them and use gaze-insight blank, or export without the images."
        )


def _free_label(annotator: str, taken: set[str]) -> str:
    """Return letters and digits for an annotator that no other has."""
    label = wanted = label_of(annotator) or "annotator"
    number = 1
    # Some file systems do not tell capitals apart.
    while label.casefold() in {other.casefold() for other in taken}:
        number += 1
        label = f"{wanted}x{number}"
    return label


def _shown(selection: Selection, recording: Recording) -> list[ShownImage]:
    found = []
    for placement, fixations in selection.fixations_of(recording):
        image = selection.study.images.get(placement.image_id)
        found.append(
            ShownImage(
                placement,
                image.source_name if image else None,
                (image.shape[1], image.shape[0]) if image else None,
                _stim_file(image) if image and selection.with_images else None,
                fixations,
            )
        )
    return found


def _stim_file(image: StudyImage) -> str:
    return f"{IMAGES_FOLDER}/{image.id}{Path(image.path).suffix}"


def _copy_images(selection: Selection, folder: Path, tally: Tally) -> None:
    for image_id in sorted(tally.images):
        image = selection.study.images.get(image_id)
        if image is None:
            continue
        source = selection.study.image_path(image)
        target = folder / "stimuli" / _stim_file(image)
        with explained_os_errors(source):
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(source, target)


def _write_top(
    selection: Selection,
    folder: Path,
    labels: dict[str, str],
    simulated: dict[str, set[str]],
    words: str,
    task: Task,
) -> None:
    study = selection.study
    note = f" (gaze {words})" if words else ""
    write_json_atomic(
        folder / "dataset_description.json",
        {
            "Name": f"{study.name}{note}",
            "BIDSVersion": BIDS_VERSION,
            "DatasetType": "raw",
            "GeneratedBy": [
                {
                    "Name": task.program,
                    "Version": task.version,
                    "Description": f"Exported from a study of gaze on medical images{note}",
                }
            ],
        },
    )
    rows = [
        (f"sub-{label}", annotator, " ".join(sorted(simulated.get(annotator, ()))))
        for annotator, label in sorted(labels.items(), key=lambda item: item[1])
    ]
    write_bytes_atomic(
        folder / "participants.tsv", tsv(("participant_id", "annotator", "simulated_from"), rows)
    )
    write_json_atomic(
        folder / "participants.json",
        {
            "participant_id": {"Description": "Who looked"},
            "annotator": {"Description": "The pseudonym in the study"},
            "simulated_from": {
                "Description": "What the gaze was simulated from where no person looked: results are simulated from "
                "masks, or from saliency",
                "Levels": {"masks": "Simulated from masks", "saliency": "Simulated from saliency"},
            },
        },
    )
    images = (
        "The images are in stimuli/images."
        if selection.with_images
        else "The images themselves are not part of it."
    )
    lines = [
        f"# {study.name}{note}",
        "",
        "Eye tracking of annotators who looked at medical images, exported by "
        f"{task.program} {task.version} as BIDS {BIDS_VERSION}.",
        *(
            ["", f"**Gaze in this data set is {words}; no person looked where `SimulatedFrom` says so.**"]
            if words
            else []
        ),
        "",
        "- Each participant is an annotator, under a pseudonym; each run is one sitting.",
        "- All times are seconds since the run's first sample, in all files of the run.",
        "- Samples are screen pixels from the top left corner, one file an eye.",
        "- `_physioevents` holds the fixations; they were detected in the mean of both eyes and stand beside the "
        "first eye.",
        "- `_events` says which image was shown when and where, what was looked for, and what the annotator said. "
        f"{images}",
        "",
    ]
    write_bytes_atomic(folder / "README.md", "\n".join(lines).encode())
