"""What every writer of masks keeps: which mask went into which file, and what was left out."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from segmentation.mask_choice import ChosenMask, MaskSelection, pixels_sha256
from segmentation.progress import Progress
from segmentation.study import Mask


@dataclass
class MaskBook:
    """The masks that were written, for the manifest."""

    selection: MaskSelection
    folder: Path
    progress: Progress
    with_probability: bool = False
    source: tuple[Path, ...] = ()
    """Where the DICOM files lie that the images came from."""
    key: Path | None = None
    """File of the study's secret key, where it is not in its usual place."""
    entries: list[dict[str, Any]] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    about: list[str] = field(default_factory=list)
    """Sentences on the format, for who opens the folder."""
    _read: int = 0

    def read(self, chosen: ChosenMask) -> Mask:
        """Return a mask, and tell how far the export is; raises UserError as `ChosenMask.read` does."""
        self.progress(self._read, len(self.selection.masks), chosen.image.id)
        self._read += 1
        return chosen.read()

    def note(self, chosen: ChosenMask, mask: Mask, file: str, **place: Any) -> None:
        """Remember that a mask went into a file (relative to the folder), and where in it."""
        image = chosen.image
        self.entries.append(
            {
                "image": image.id,
                "source_name": image.source_name,
                "target": chosen.target.id,
                "volume": image.volume or None,
                "slice": image.slice_index,
                "file": file,
                **place,
                **chosen.origin.to_json(),
                "width": mask.shape[1],
                "height": mask.shape[0],
                "pixels": int(mask.sum()),
                "sha256": pixels_sha256(mask),
            }
        )
