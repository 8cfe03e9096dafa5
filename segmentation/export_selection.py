"""What of a study's gaze is exported, and what is counted while that is done."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from functools import cached_property

import numpy as np
import numpy.typing as npt

from gaze_capture.errors import UserError
from gaze_capture.fixations import Fixations
from gaze_capture.recording import Placement, Recording
from gaze_capture.recording_codec import read_recording
from segmentation.progress import Progress, no_progress
from segmentation.records import StudyImage
from segmentation.study import Study


@dataclass(frozen=True)
class Selection:
    """What of a study an export takes."""

    study: Study
    annotators: tuple[str, ...] | None = None
    """Pseudonyms; None takes all."""
    split: str | None = None
    """Only what was seen of this split's images, samples included; None takes everything."""
    recordings: tuple[str, ...] | None = None
    """Ids of recordings; None takes all recordings and all imported gaze."""
    with_images: bool = False
    """Whether the images' files go along, where a format holds them."""

    @cached_property
    def images(self) -> dict[str, StudyImage]:
        """The images chosen, by id, in the study's order."""
        return {image.id: image for image in self.study.images_of(self.split)}

    @cached_property
    def looks(self) -> list[Fixations]:
        """The fixations of every look chosen, once each, imported ones included, in the order of the tables."""
        return [item for item in self.study.fixations.each() if self._takes(item)]

    def _takes(self, item: Fixations) -> bool:
        return (
            (self.annotators is None or item.annotator in self.annotators)
            and (self.recordings is None or item.source in self.recordings)
            and (self.split is None or item.image_id in self.images)
        )

    @cached_property
    def recording_ids(self) -> list[str]:
        """Ids of the study's recordings that may be chosen: the annotator and images are known once one is read."""
        return [
            name for name in self.study.recording_ids() if self.recordings is None or name in self.recordings
        ]

    def each_recording(self, tally: Tally, progress: Progress = no_progress) -> Iterator[Recording]:
        """Read and yield the recordings chosen, oldest first, with the placements and samples that are.

        A damaged one is passed over with a note, unless it was asked for by its id.
        """
        for number, name in enumerate(self.recording_ids):
            progress(number, len(self.recording_ids), name)
            try:
                recording = read_recording(self.study.recordings_folder / name)
            except UserError as error:
                self.study.check_there()
                if self.recordings is not None:
                    raise
                tally.notes.append(f"Left out: {error}")
                continue
            if self.annotators is not None and recording.annotator not in self.annotators:
                continue
            if self.split is not None:
                kept = tuple(place for place in recording.placements if place.image_id in self.images)
                if not kept:
                    continue
                recording = _only(recording, kept)
            yield recording

    def fixations_of(self, recording: Recording) -> list[tuple[Placement, Fixations | None]]:
        """Return each placement of a recording with the fixations stored for it, None where there are none."""
        waiting: dict[tuple[str, str | None], list[Fixations]] = {}
        for item in self._by_source.get(recording.id, ()):
            waiting.setdefault((item.image_id, item.target_id), []).append(item)
        # A table holds one entry a placement, in their order.
        found = []
        for placement in recording.placements:
            queue = waiting.get((placement.image_id, placement.target_id))
            found.append((placement, queue.pop(0) if queue else None))
        return found

    @cached_property
    def _by_source(self) -> dict[str, list[Fixations]]:
        found: dict[str, list[Fixations]] = {}
        for item in self.looks:
            found.setdefault(item.source, []).append(item)
        return found

    @cached_property
    def imported(self) -> list[Fixations]:
        """The looks chosen that were imported without samples."""
        known = set(self.study.recording_ids())
        return [item for item in self.looks if item.source not in known]

    def check(self) -> None:
        """Raise UserError where the study has no such annotator, split or recording, or nothing is chosen."""
        self.study.check_annotators(self.annotators or ())
        ids = self.study.recording_ids()
        for name in self.recordings or ():
            if name not in ids:
                raise UserError(
                    f"The study has no recording {name!r}; it has {len(ids)}"
                    + (f", the latest is {ids[-1]!r}." if ids else ".")
                )
        _ = self.images
        if not self.looks and not self.recording_ids:
            raise UserError(
                "Nothing was chosen to export: the study has no gaze of these annotators on these images."
                if ids or self.study.looks
                else "The study has no gaze yet; record, simulate or import some first."
            )


def _only(recording: Recording, placements: tuple[Placement, ...]) -> Recording:
    """Return a recording with some of its placements, and the samples taken while these were shown."""
    inside: npt.NDArray[np.bool_] = np.zeros(len(recording.time_ns), dtype=np.bool_)
    for placement in placements:
        low, high = np.searchsorted(recording.time_ns, [placement.start_ns, placement.end_ns])
        inside[low:high] = True
    return Recording(
        **{
            **vars(recording),
            "placements": placements,
            **{
                name: getattr(recording, name)[inside]
                for name in ("time_ns", "device_time_ns", "left_xy", "right_xy", "pupil_mm")
            },
        }
    )


def public_source(source: str, recording_ids: Sequence[str]) -> str:
    """Return the id under which a look's source leaves the study: of imports, the file's name does not."""
    if source in recording_ids:
        return source
    return f"import-{hashlib.sha256(source.encode()).hexdigest()[:10]}"


def simulated_words(simulated_from: str | None) -> str:
    """Return how results of such gaze are called; empty where people looked."""
    return f"simulated from {simulated_from}" if simulated_from else ""


@dataclass
class Tally:
    """What an exporter counts while it writes."""

    recordings: set[str] = field(default_factory=set)
    images: set[str] = field(default_factory=set)
    fixations: int = 0
    notes: list[str] = field(default_factory=list)
    simulated_from: str | None = None

    def take(self, recording: Recording) -> None:
        """Count a recording whose samples are exported."""
        self.recordings.add(recording.id)
        self.images.update(placement.image_id for placement in recording.placements)
        self._label(recording.simulated_from)

    def add(self, look: Fixations) -> None:
        """Count a look whose fixations are exported."""
        self.images.add(look.image_id)
        self.fixations += len(look.duration_ms)
        self._label(look.simulated_from)

    def _label(self, simulated_from: str | None) -> None:
        if self.simulated_from != "masks":
            self.simulated_from = simulated_from or self.simulated_from
