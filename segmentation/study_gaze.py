"""Where the gaze of a study lies: its recordings, its tables of fixations, and the index of those as they are now."""

from __future__ import annotations

import threading
from collections.abc import Mapping, Sequence
from pathlib import Path

from gaze_capture.fixation_table import write_fixation_table
from gaze_capture.fixations import Fixations
from segmentation.gaze_index import GazeIndex, stamps_of
from segmentation.records import StudyImage
from segmentation.study_folder import exists, names_in


class StudyGaze:
    """The folders ``recordings`` and ``fixations`` of a study. Safe to ask in threads."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._imported = folder / "fixations"
        self.recordings = folder / "recordings"
        self._index: GazeIndex | None = None
        self._before: GazeIndex | None = None
        self._lock = threading.Lock()

    def recording_ids(self) -> list[str]:
        """Return the ids of all recordings, oldest first."""
        return sorted(
            name for name in names_in(self.recordings) if exists(self.recordings / name / "gaze.frames")
        )

    def _tables(self) -> list[Path]:
        folders = (self._imported, self.recordings)
        return [folder / name / "fixations.csv" for folder in folders for name in sorted(names_in(folder))]

    def index(self, target_ids: Sequence[str]) -> GazeIndex:
        """Return the index of all tables; free viewing counts for each of the targets."""
        # Two threads that ask at once do not read the headers twice.
        with self._lock:
            index = self._index
            if index is None:
                index = GazeIndex(stamps_of(self._tables()), target_ids, self._before)
                self._index, self._before = index, None
            return index

    def save(
        self,
        source: str,
        fixations: Sequence[Fixations],
        images: Mapping[str, StudyImage],
        *,
        imported: bool,
    ) -> None:
        """Store the fixations detected in a recording, or imported under a name of their own."""
        folder = (self._imported if imported else self.recordings) / source
        inside = [_inside(item, images.get(item.image_id)) for item in fixations]
        write_fixation_table(folder / "fixations.csv", fixations, inside=inside, within=self._folder)
        self.forget()

    def forget(self) -> None:
        """Look for the tables again when the index is asked for; those that are the same are not read again."""
        with self._lock:
            if self._index is not None:
                self._before, self._index = self._index, None

    def changed(self) -> bool:
        """Whether there are other tables than those the index is of; lists names and times only."""
        index = self._index
        return index is not None and stamps_of(self._tables()) != index.stamps


def _inside(fixations: Fixations, image: StudyImage | None) -> int:
    """Count the fixations that lie in their image; all of them where its size is not known."""
    if image is None:
        return len(fixations.duration_ms)
    height, width, _ = image.shape
    xy = fixations.xy_px + 0.5
    return int(((xy >= 0) & (xy < [width, height])).all(axis=1).sum())
