"""The images of a study as its manifests list them. A manifest is never rewritten, so each is read once."""

from __future__ import annotations

import datetime
import secrets
from collections.abc import Iterable
from pathlib import Path

from gaze_capture.errors import UserError
from gaze_capture.storage import write_json_atomic
from segmentation.records import SCHEMA, StudyImage, image_record, read_manifest
from segmentation.study_file import check_there
from segmentation.study_folder import names_in


class ImageRecords:
    """Knows the images of the study in a folder, and the volumes they are slices of."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._images: dict[str, StudyImage] | None = None
        self._read: dict[str, list[StudyImage]] = {}
        """What each manifest lists, by its file's name."""
        self._volumes: dict[str, tuple[str, ...]] | None = None

    @property
    def images(self) -> dict[str, StudyImage]:
        """All images by id, in the order they came in; another dictionary once others came in."""
        images = self._images
        if images is None:
            read = {path.name: self._read.get(path.name) or read_manifest(path) for path in self.manifests()}
            images = {image.id: image for manifest in read.values() for image in manifest}
            self._read, self._images = read, images
        return images

    @property
    def volumes(self) -> dict[str, tuple[str, ...]]:
        """The image ids of each volume's slices, in order, by the volume's id."""
        volumes = self._volumes
        if volumes is None:
            slices: dict[str, list[StudyImage]] = {}
            for image in self.images.values():
                if image.volume:
                    slices.setdefault(image.volume, []).append(image)
            self._volumes = volumes = {
                name: tuple(image.id for image in sorted(found, key=lambda one: one.slice_index or 0))
                for name, found in slices.items()
            }
        return volumes

    def manifests(self) -> list[Path]:
        """Return the files that list images, oldest first; a later record of an image replaces an earlier one.

        Raises
        ------
        UserError
            If the study cannot be reached: it must not look like one without images.
        """
        folder = self._folder / "images"
        names = [name for name in names_in(folder) if name.startswith("manifest-") and name.endswith(".json")]
        if not names:
            check_there(self._folder)
        return [folder / name for name in sorted(names)]

    def add(self, images: Iterable[StudyImage]) -> None:
        """Add records, or replace those with the same id, as one new manifest."""
        records = [image_record(image) for image in images]
        if not records:
            return
        stamp = datetime.datetime.now(datetime.timezone.utc).strftime("%Y%m%dT%H%M%S%f")
        name = f"manifest-{stamp}-{secrets.token_hex(3)}.json"
        manifest = {"schema": SCHEMA, "images": records}
        write_json_atomic(self._folder / "images" / name, manifest, within=self._folder)
        self._images = self._volumes = None

    def refresh(self) -> None:
        """Look for other manifests, and read those.

        Raises
        ------
        UserError
            If one cannot be read; what was known stays.
        """
        before, self._images = self._images, None
        if before is not None:
            try:
                _ = self.images
            except UserError:
                self._images = before
                raise
        self._volumes = None

    def changed(self) -> bool:
        """Whether there are manifests that were not read, of images that were asked for; lists names only."""
        return self._images is not None and {path.name for path in self.manifests()} != set(self._read)
