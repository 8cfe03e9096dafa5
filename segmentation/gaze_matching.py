"""Whose image it is: names in other programs' gaze files, and what an import of gaze came to."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from gaze_capture.errors import MissingFact, UserError
from segmentation.records import StudyImage


@dataclass(frozen=True)
class GazeReport:
    """What an import of gaze took, and what it did not."""

    source: str
    """Id of the import: a folder in ``fixations/``, or in ``recordings/`` where it brought samples."""
    images: int
    fixations: int
    unknown_images: tuple[str, ...]
    """Names in the file that the study has no image for."""
    outside_image: int
    """Fixations kept that lie outside their image; they do not enter heatmaps."""
    dropped: int
    """Rows without a duration, or fixations without a position."""
    already_there: bool = False
    format: str = "gazemedseg"
    recording: str | None = None
    """Id of the recording that samples became; None where only fixations came in."""
    samples: int = 0
    notes: tuple[str, ...] = ()
    """Sentences: what was left out of the file, taken for granted or worked out."""


def none_of_them(file: Path, names: Sequence[str]) -> UserError:
    """Return the error for a file of whose images the study has none."""
    if len(names) == 1:
        return UserError(
            f"{file} is about the image {names[0]!r}, which is not in the study; import it first, or check its name."
        )
    return UserError(
        f"{file} is about {len(names)} images, none of them in the study (the first is {names[0]!r}); import the "
        "images first, or check their names."
    )


class ImageNames:
    """A study's images by every name that another program may give them."""

    def __init__(self, images: Iterable[StudyImage]) -> None:
        self._by_name: dict[str, list[StudyImage]] = {}
        for image in images:
            for name in {
                image.source_name.casefold(),
                Path(image.source_name).stem.casefold(),
                image.id.casefold(),
            }:
                self._by_name.setdefault(name, []).append(image)

    def find(self, file: Path, name: str) -> StudyImage | None:
        """Return the image of a name, which may have folders in front, or None.

        Raises
        ------
        MissingFact
            If the name fits several images.
        """
        matches = self._by_name.get(name.casefold())
        if matches is None:
            last = re.split(r"[\\/]", name.casefold())[-1].strip()
            matches = self._by_name.get(last) or self._by_name.get(Path(last).stem) or []
        if len(matches) > 1:
            ids = ", ".join(match.id for match in matches)
            raise MissingFact(
                f"{file} speaks of {name!r}, which fits several images of the study ({ids}); "
                "narrow it with --split or use their ids in the file.",
                ["split"],
                list(dict.fromkeys(match.split for match in matches)),
            )
        return matches[0] if matches else None
