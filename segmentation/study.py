"""The study folder: plain files that hold everything about one project of annotation.

Records that several workstations may add at once (images, reviews, recordings) are new files, never edits
of an old one, so that two windows on one network folder cannot overwrite each other.
"""

from __future__ import annotations

import contextlib
import dataclasses
import datetime
import getpass
import hashlib
import json
import os
import secrets
import socket
import threading
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from gaze_capture.errors import UserError
from gaze_capture.fixation_table import Look, write_fixation_table
from gaze_capture.fixations import Fixations, simulated_source
from gaze_capture.recording import Presence
from gaze_capture.storage import (
    explained_os_errors,
    locked,
    make_folder,
    read_json,
    write_bytes_atomic,
    write_json_atomic,
)
from segmentation.gaze_index import GazeIndex, stamps_of
from segmentation.images import decode_gray16, decode_mask, encode_gray16, encode_mask, read_stored
from segmentation.intensity import Window, for_networks, guide, shown
from segmentation.pseudomask import PseudoMask, PseudoMaskSettings
from segmentation.records import (
    SCHEMA,
    StudyImage,
    Target,
    Volume,
    check_targets,
    image_record,
    new_id,
    read_manifest,
    safe_name,
    utc_now,
)
from segmentation.review_index import COUNTED, Purpose, Review, ReviewIndex, Verdict

TEST_SPLIT = "test"
"""A split of this name is never read by training."""

PACKED = "training_set.json"
"""What tells a packed training set that was unpacked from other studies (`segmentation.packed`)."""

__all__ = [
    "PACKED",
    "SCHEMA",
    "TEST_SPLIT",
    "Mask",
    "Review",
    "Study",
    "StudyImage",
    "Target",
    "Verdict",
    "Volume",
    "check_targets",
    "migrated",
    "new_id",
    "read_manifest",
    "safe_name",
    "utc_now",
]

Mask = npt.NDArray[np.bool_]


class Study:
    """An open study. Reading is lazy; every write is atomic and visible to other windows at once."""

    def __init__(self, folder: Path, values: dict[str, Any]) -> None:
        self.folder = folder
        self.name: str = values["name"]
        self.key_fingerprint: str | None = values.get("key_fingerprint")
        """Which secret key this study's pseudonyms were made with; the key itself is not in the study."""
        self.uid: str = values["uid"]
        self.targets: tuple[Target, ...] = tuple(Target(**target) for target in values["targets"])
        self.pseudomask_settings = PseudoMaskSettings.from_json(values["pseudomask"])
        self._images: dict[str, StudyImage] | None = None
        self._manifests: dict[str, list[StudyImage]] = {}
        self._volumes: dict[str, tuple[str, ...]] | None = None
        self._runs: list[str] | None = None
        self._gaze: GazeIndex | None = None
        self._gaze_lock = threading.Lock()
        self._gaze_before: GazeIndex | None = None
        self._review_index = ReviewIndex(folder / "reviews")

    # The folder itself

    @classmethod
    def create(cls, folder: Path | str, name: str | None = None, targets: Sequence[Target] = ()) -> Study:
        """Make a new study in an empty or missing folder.

        Raises
        ------
        UserError
            If the folder holds anything already or cannot be written.
        """
        folder = Path(folder).absolute()
        if (folder / "study.json").exists():
            raise UserError(f"{folder} is a study already; open it instead of making a new one.")
        with explained_os_errors(folder):
            if folder.exists() and any(folder.iterdir()):
                raise UserError(f"{folder} is not empty; choose a new or empty folder for the study.")
            folder.mkdir(parents=True, exist_ok=True)
        values = {
            "schema": SCHEMA,
            "uid": secrets.token_hex(16),
            "name": name or folder.name,
            "created": utc_now(),
            "targets": [dataclasses.asdict(target) for target in (targets or (Target(),))],
            "pseudomask": PseudoMaskSettings().to_json(),
        }
        write_json_atomic(folder / "study.json", values)
        return cls(folder, values)

    @classmethod
    def open(cls, folder: Path | str) -> Study:
        """Open an existing study.

        Raises
        ------
        UserError
            If there is none, it is damaged, or a newer version of the program made it.
        """
        folder = Path(folder).absolute()
        path = folder / "study.json"
        if not _exists(path):
            raise UserError(
                f"{folder} is not a study: it has no study.json. Make one with: gaze-insight new {folder}"
            )
        values = read_json(path)
        schema = values.get("schema") if isinstance(values, dict) else None
        if not isinstance(schema, int):
            raise UserError(f"{path} is damaged: it names no schema version. Restore it from a backup.")
        if schema > SCHEMA:
            raise UserError(
                f"{folder} was made by a newer Gaze Insight (schema {schema}, this version reads {SCHEMA}). "
                "Update the program; the study was not touched."
            )
        try:
            if schema < SCHEMA:
                values = migrated(path, values)
            study = cls(folder, values)
            # Files are named after them: a stranger's study must not lead out of its folder.
            check_targets(study.targets)
            return study
        except (KeyError, TypeError, AttributeError, UserError) as error:
            raise UserError(f"{path} is damaged ({error}). Restore it from a backup.") from None

    def is_packed(self) -> bool:
        """Whether it is a packed training set, which has nothing but what one training reads."""
        return _exists(self.folder / PACKED)

    def _set(self, **changes: Any) -> None:
        """Change fields of study.json."""
        path = self.folder / "study.json"
        self.check_there()
        # What another window stored meanwhile stays.
        with locked(path):
            write_json_atomic(path, {**read_json(path), **changes}, within=self.folder)

    def check_there(self) -> None:
        """Raise UserError unless the study's folder is where it was when it was opened."""
        path = self.folder / "study.json"
        try:
            os.stat(path)
        except OSError as error:
            reason = f" ({error.strerror})" if error.strerror else ""
            raise UserError(
                f"The study's folder {self.folder} cannot be reached{reason}: it was moved or renamed, you may not "
                "read it any more, or its drive or network share is gone. Bring it back and go on; everything stored "
                "before is intact."
            ) from None

    def new_recording_folder(self, recording_id: str) -> Path:
        """Return where a new recording goes; raises UserError where the study cannot be reached."""
        self.check_there()
        with explained_os_errors(self.recordings_folder):
            make_folder(self.recordings_folder, self.folder)
        return self.recordings_folder / recording_id

    def set_pseudomask_settings(self, settings: PseudoMaskSettings) -> None:
        """Store how pseudo-masks are made in this study."""
        self._set(pseudomask=settings.to_json())
        self.pseudomask_settings = settings

    def set_key_fingerprint(self, fingerprint: str) -> None:
        """Store which secret key makes this study's pseudonyms."""
        self._set(key_fingerprint=fingerprint)
        self.key_fingerprint = fingerprint

    def set_targets(self, targets: Sequence[Target]) -> None:
        """Store the study's targets; what was recorded and drawn for a target stays with its id.

        Raises
        ------
        UserError
            If there is none, an id comes twice or is no file-name part, one is inside of itself or of none that
            exists, or a target is taken away that has gaze, masks or reviews.
        """
        check_targets(targets)
        kept = {target.id for target in targets}
        for gone in [target for target in self.targets if target.id not in kept]:
            if self.holds_anything_of(gone.id):
                raise UserError(
                    f"The target {gone.id!r} has masks, gaze or reviews in this study and cannot be taken away; "
                    "rename it instead."
                )
        self._set(targets=[dataclasses.asdict(target) for target in targets])
        self.targets = tuple(targets)
        # Free viewing counts for the new ones, too.
        self._forget_gaze()

    def holds_anything_of(self, target_id: str) -> bool:
        """Whether the study has a mask, gaze, a pseudo-mask or a review of a target."""
        looked = {key for key, looks in self.looks.items() if any(look.target_id for look in looks)}
        keys = self.mask_keys() | self.pseudomask_keys() | looked
        keys |= _keys_in(self.folder / "reviews", "") | _keys_in(self.folder / "drafts", "")
        return any(key[1] == target_id for key in keys)

    def target(self, target_id: str | None = None) -> Target:
        """Return a target by id, or the first.

        Raises
        ------
        UserError
            If the study has no such target.
        """
        if target_id is None:
            return self.targets[0]
        for target in self.targets:
            if target.id == target_id:
                return target
        known = ", ".join(target.id for target in self.targets)
        raise UserError(f"The study has no target {target_id!r}; it has: {known}.")

    def audit(self, action: str, **values: Any) -> None:
        """Append one line to audit.jsonl: who did what, when, on which machine."""
        line = {"time": utc_now(), "action": action, "user": _user(), "host": socket.gethostname(), **values}
        path = self.folder / "audit.jsonl"
        # A file's name may hold bytes that are no text; spelled out, they are JSON all the same.
        with (
            explained_os_errors(path),
            open(path, "a", encoding="utf-8", errors="backslashreplace") as stream,
        ):
            stream.write(json.dumps(line, ensure_ascii=False) + "\n")

    # Images and true masks

    @property
    def images(self) -> dict[str, StudyImage]:
        """All images by id, in the order they came in."""
        images = self._images
        if images is None:
            read = {
                path.name: self._manifests.get(path.name) or read_manifest(path) for path in self.manifests()
            }
            images = {image.id: image for manifest in read.values() for image in manifest}
            self._manifests, self._images = read, images
        return images

    def manifests(self) -> list[Path]:
        """Return the files that list images, oldest first; a later record of an image replaces an earlier one.

        Raises
        ------
        UserError
            If the study cannot be reached: it must not look like one without images.
        """
        names = [name for name in _names_in(self.folder / "images") if _is_manifest(name)]
        if not names:
            self.check_there()
        return [self.folder / "images" / name for name in sorted(names)]

    def image(self, image_id: str) -> StudyImage:
        """Return an image by id, or raise UserError."""
        try:
            return self.images[image_id]
        except KeyError:
            raise UserError(f"The study has no image {image_id!r}.") from None

    def images_of(self, split: str | None = None) -> list[StudyImage]:
        """Return the images of a split, or all.

        Raises
        ------
        UserError
            If the split is named and empty.
        """
        if split is None:
            return list(self.images.values())
        chosen = [image for image in self.images.values() if image.split == split]
        if not chosen:
            known = ", ".join(sorted({image.split for image in self.images.values()})) or "none yet"
            raise UserError(f"The study has no images in the split {split!r}; its splits are: {known}.")
        return chosen

    def add_images(self, images: Iterable[StudyImage]) -> None:
        """Add records, or replace those with the same id, as one new manifest file."""
        records = [image_record(image) for image in images]
        if not records:
            return
        stamp = datetime.datetime.now(datetime.timezone.utc).strftime("%Y%m%dT%H%M%S%f")
        name = f"manifest-{stamp}-{secrets.token_hex(3)}.json"
        manifest = {"schema": SCHEMA, "images": records}
        write_json_atomic(self.folder / "images" / name, manifest, within=self.folder)
        self._images = self._volumes = None

    def refresh(self) -> None:
        """Look at the folder again, so that other windows' additions are seen; only what is new is read.

        Raises
        ------
        UserError
            If the study cannot be reached; what was known of it stays.
        """
        self.check_there()
        self._review_index.told()
        before, self._images = self._images, None
        if before is not None:
            try:
                _ = self.images
            except UserError:
                self._images = before
                raise
        self._volumes = None
        self._forget_gaze()
        if self._runs is not None:
            self._runs = self._list_runs()

    def changed_elsewhere(self) -> bool:
        """Whether images, gaze, reviews or runs came in, of what this window has read, that it does not know of.

        Lists names and times only.

        Raises
        ------
        UserError
            If the study cannot be reached.
        """
        self.check_there()
        # Always looked at: what readers meet after a refresh would be told a second time otherwise.
        reviews = self._review_index.changed()
        known = set(self._manifests)
        if self._images is not None and {path.name for path in self.manifests()} != known:
            return True
        gaze = self._gaze
        if gaze is not None and stamps_of(self._fixation_tables()) != gaze.stamps:
            return True
        if self._runs is not None and self._list_runs() != self._runs:
            return True
        return reviews

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

    def slices_beside(self, image_id: str) -> tuple[str, ...]:
        """Return all slices of the volume an image lies in, itself included; the image alone where it is in none."""
        volume = self.image(image_id).volume
        return self.volumes[volume] if volume else (image_id,)

    def _volume_path(self, volume_id: str) -> Path:
        return self.folder / "volumes" / f"{volume_id}.json"

    def volume(self, volume_id: str) -> Volume:
        """Return what is known of a volume.

        Raises
        ------
        UserError
            If there is none of this id, or its file is damaged.
        """
        path = self._volume_path(volume_id)
        values = read_json(path)
        try:
            return Volume(
                id=values["id"],
                image_ids=tuple(values["image_ids"]),
                slice_spacing_mm=values["slice_spacing_mm"],
                affine=values["affine"] and tuple(tuple(row) for row in values["affine"]),
                series=values["series"],
                source_ids=tuple(values["source_ids"]),
                header=values["header"],
                notes=tuple(values["notes"]),
            )
        except (KeyError, TypeError) as error:
            raise UserError(f"{path} is damaged ({error}). Restore it from a backup.") from None

    def save_volume(self, volume: Volume) -> None:
        """Store what is known of a volume."""
        values = {"schema": SCHEMA, **dataclasses.asdict(volume)}
        write_json_atomic(self._volume_path(volume.id), values, within=self.folder)

    def volume_ids(self) -> list[str]:
        """Return the ids of all volumes that something is known of, single images with a header included."""
        return sorted(path.stem for path in (self.folder / "volumes").glob("*.json"))

    # Pixels

    def shown(self, image: StudyImage, window: Window | None = None) -> npt.NDArray[np.uint8]:
        """Read an image as the screen shows it (H, W, 3), by a window or as it opens."""
        return shown(read_stored(self.image_path(image)), image.intensity, window)

    def guide(self, image: StudyImage) -> npt.NDArray[np.float32]:
        """Read an image (H, W, C) in 0..1 for what looks at edges and colours."""
        return guide(read_stored(self.image_path(image)), image.intensity)

    def network_input(self, image: StudyImage, rules: Mapping[str, str]) -> npt.NDArray[np.uint8]:
        """Read an image (H, W, 3) normalised by its modality's rule, as the networks are shown it."""
        return for_networks(read_stored(self.image_path(image)), image.intensity, image.modality, rules)

    def image_path(self, image: StudyImage) -> Path:
        """Return where an image's file lies."""
        return self.folder / image.path

    def mask_path(self, image_id: str, target_id: str) -> Path:
        """Return where the true mask of a target lies, or would lie."""
        return self.folder / "masks" / f"{image_id}.{target_id}.png"

    def true_mask(self, image_id: str, target_id: str) -> Mask | None:
        """Return the true mask (H, W), or None where the study has none."""
        return _read_mask(self.mask_path(image_id, target_id))

    def save_true_mask(self, image_id: str, target_id: str, mask: Mask) -> None:
        """Store a true mask (H, W)."""
        write_bytes_atomic(self.mask_path(image_id, target_id), encode_mask(mask), within=self.folder)

    def mask_keys(self) -> set[tuple[str, str]]:
        """Return (image id, target id) of all true masks."""
        return _keys_in(self.folder / "masks", ".png")

    # Gaze

    @property
    def recordings_folder(self) -> Path:
        """The folder that holds one folder a recording."""
        return self.folder / "recordings"

    def recording_ids(self) -> list[str]:
        """Return the ids of all recordings, oldest first."""
        folder = self.recordings_folder
        return sorted(name for name in _names_in(folder) if _exists(folder / name / "gaze.frames"))

    def _fixation_tables(self) -> list[Path]:
        folders = (self.folder / "fixations", self.recordings_folder)
        return [folder / name / "fixations.csv" for folder in folders for name in sorted(_names_in(folder))]

    def save_fixations(self, source: str, fixations: Sequence[Fixations], *, imported: bool) -> None:
        """Store the fixations detected in a recording, or imported under a name of their own."""
        folder = (self.folder / "fixations" if imported else self.recordings_folder) / source
        inside = [self._inside(item) for item in fixations]
        write_fixation_table(folder / "fixations.csv", fixations, inside=inside, within=self.folder)
        self._forget_gaze()

    def _inside(self, fixations: Fixations) -> int:
        image = self.images.get(fixations.image_id)
        if image is None:
            return len(fixations.duration_ms)
        height, width, _ = image.shape
        xy = fixations.xy_px + 0.5
        return int(((xy >= 0) & (xy < [width, height])).all(axis=1).sum())

    def _forget_gaze(self) -> None:
        with self._gaze_lock:
            if self._gaze is not None:
                # Tables that are the same are not read again.
                self._gaze_before, self._gaze = self._gaze, None

    @property
    def fixations(self) -> GazeIndex:
        """All fixations by (image id, target id); those of free viewing, and its word, count for every target.

        A mapping whose keys come from the tables' headers; an image's rows are read when they are asked for.
        """
        # Two threads that ask at once do not read the headers twice.
        with self._gaze_lock:
            gaze = self._gaze
            if gaze is None:
                stamps = stamps_of(self._fixation_tables())
                gaze = GazeIndex(stamps, [target.id for target in self.targets], self._gaze_before)
                self._gaze, self._gaze_before = gaze, None
            return gaze

    @property
    def looks(self) -> Mapping[tuple[str, str], list[Look]]:
        """What is known of each look without reading its fixations, by (image id, target id), oldest first."""
        return self.fixations.looks

    def check_annotators(self, annotators: Sequence[str]) -> None:
        """Raise UserError where the study has no gaze of one of these annotators."""
        known = sorted({look.annotator for look in self.fixations.each_look()})
        for name in annotators:
            if name not in known:
                raise UserError(
                    f"The study has no gaze of the annotator {name!r}; it has gaze of: "
                    f"{', '.join(known) or 'nobody yet'}."
                )

    def presence(self, image_id: str, target_id: str) -> Presence | None:
        """Return the latest word on a target in an image: a review's before a gaze session's."""
        word = _word_of(self.counted_reviews(image_id, target_id))
        return word or _word_of(self.looks.get((image_id, target_id), ()))

    def presences(self, annotators: Sequence[str] | None = None) -> dict[tuple[str, str], Presence]:
        """Return the latest word on every target of every image that one was said of.

        With `annotators`, of what was said while looking theirs alone counts; reviews stand for all.
        """
        said = {}
        for key, looks in self.looks.items():
            own = [look for look in looks if annotators is None or look.annotator in annotators]
            word = _word_of(own)
            if word is not None:
                said[key] = word
        for key, reviews in self._review_index.all().items():
            word = _word_of(_counted(reviews))
            if word is not None:
                said[key] = word
        return said

    def simulated_from(self) -> str | None:
        """Return ``"masks"`` or ``"saliency"`` if any gaze of the study was simulated so, else None."""
        return simulated_source(self.fixations.each_look())

    # Pseudo-masks and explanations

    def _pseudomask_path(self, image_id: str, target_id: str) -> Path:
        return self.folder / "pseudomasks" / f"{image_id}.{target_id}.npz"

    def pseudomask(self, image_id: str, target_id: str) -> PseudoMask | None:
        """Return the pseudo-mask of a target in an image, or None."""
        path = self._pseudomask_path(image_id, target_id)
        if not _exists(path):
            return None
        with explained_os_errors(path):
            data = path.read_bytes()
        return PseudoMask.from_bytes(data, path)

    def save_pseudomask(self, pseudomask: PseudoMask) -> None:
        """Store a pseudo-mask."""
        path = self._pseudomask_path(pseudomask.image_id, pseudomask.target_id)
        write_bytes_atomic(path, pseudomask.to_bytes(), within=self.folder)

    def remove_pseudomask(self, image_id: str, target_id: str) -> None:
        """Take a pseudo-mask away, which can be made again from gaze; nothing happens where there is none."""
        path = self._pseudomask_path(image_id, target_id)
        with explained_os_errors(path):
            path.unlink(missing_ok=True)

    def pseudomask_keys(self) -> set[tuple[str, str]]:
        """Return (image id, target id) of all stored pseudo-masks."""
        return _keys_in(self.folder / "pseudomasks", ".npz")

    def explanation_path(self, image_id: str, target_id: str) -> Path:
        """Return where an explanation lies, or would lie."""
        return self.folder / "explanations" / f"{image_id}.{target_id}.json"

    def explanation_history(self, image_id: str, target_id: str) -> Path:
        """Return the folder of everything that was ever said of a target in an image."""
        return self.folder / "explanations" / "history" / f"{image_id}.{target_id}"

    def explanation_keys(self) -> set[tuple[str, str]]:
        """Return (image id, target id) of all stored explanations."""
        return _keys_in(self.folder / "explanations", ".json")

    # Runs and predictions

    @property
    def runs_folder(self) -> Path:
        """The folder that holds one folder a run."""
        return self.folder / "runs"

    def run_ids(self) -> list[str]:
        """Return the ids of all runs, oldest first."""
        self._runs = self._list_runs()
        return list(self._runs)

    def _list_runs(self) -> list[str]:
        folder = self.runs_folder
        # One that begins with a dot is still being copied.
        names = [name for name in _names_in(folder) if not name.startswith(".")]
        return sorted(name for name in names if _exists(folder / name / "spec.json"))

    def prediction_path(self, run_id: str, image_id: str, target_id: str, network: str = "student") -> Path:
        """Return where a network's probability for an image lies, or would lie."""
        return self.runs_folder / run_id / "predictions" / network / f"{image_id}.{target_id}.png"

    def prediction(
        self, run_id: str, image_id: str, target_id: str, network: str = "student"
    ) -> npt.NDArray[np.float32] | None:
        """Return a network's probability (H, W) in 0..1 on the image's own grid, or None."""
        path = self.prediction_path(run_id, image_id, target_id, network)
        return decode_gray16(path) if _exists(path) else None

    def save_prediction(
        self, run_id: str, image_id: str, target_id: str, network: str, probability: npt.NDArray[np.float32]
    ) -> None:
        """Store a probability (H, W) in 0..1 as a 16-bit PNG."""
        path = self.prediction_path(run_id, image_id, target_id, network)
        write_bytes_atomic(path, encode_gray16(probability), within=self.folder)

    def prediction_keys(self, run_id: str, network: str = "student") -> set[tuple[str, str]]:
        """Return (image id, target id) of a run's stored predictions."""
        return _keys_in(self.runs_folder / run_id / "predictions" / network, ".png")

    # Reviews

    def _reviews_folder(self, image_id: str, target_id: str) -> Path:
        return self.folder / "reviews" / f"{image_id}.{target_id}"

    def reviews(self, image_id: str, target_id: str) -> list[Review]:
        """Return all reviews of a target in an image that stand, whatever their purpose, oldest first."""
        return self._review_index.reviews(f"{image_id}.{target_id}")

    def named_reviews(self, image_id: str, target_id: str) -> dict[str, Review]:
        """Return all reviews of a target in an image that stand, by name, oldest first."""
        return self._review_index.named(f"{image_id}.{target_id}")

    def counted_reviews(self, image_id: str, target_id: str) -> list[Review]:
        """Return the reviews that decide, oldest first: the latest of them is what counts.

        Second reads and audits are evidence and never decide; what a network learns from is asked for here.
        """
        return _counted(self.reviews(image_id, target_id))

    def reviewed(self) -> dict[tuple[str, str], Review]:
        """Return the review that counts of everything that has one, by (image id, target id)."""
        found = {key: _counted(reviews) for key, reviews in self._review_index.all().items()}
        return {key: reviews[-1] for key, reviews in found.items() if reviews}

    def all_reviews(self) -> dict[tuple[str, str], list[Review]]:
        """Return all reviews that stand, whatever their purpose, oldest first, by (image id, target id)."""
        return self._review_index.all()

    def add_review(self, review: Review, mask: Mask | None = None) -> str:
        """Add a review and, for an edited or accepted one, the mask (H, W) it stands for; return its name."""
        folder = self._reviews_folder(review.image_id, review.target_id)
        name = self._review_index.next_name(folder.name, review.annotator)
        if mask is not None:
            write_bytes_atomic(folder / f"{name}.png", encode_mask(mask), within=self.folder)
        values = {"schema": SCHEMA, **dataclasses.asdict(review)}
        try:
            write_json_atomic(folder / f"{name}.json", values, within=self.folder)
        except UserError:
            # A mask without its review would be nobody's.
            with contextlib.suppress(OSError):
                (folder / f"{name}.png").unlink()
            raise
        self._review_index.note_own(folder.name, name)
        return name

    def withdraw_review(self, image_id: str, target_id: str, name: str) -> None:
        """Take a review back; it stays on disk, marked beside it, since reviews are never rewritten."""
        folder = self._reviews_folder(image_id, target_id)
        write_bytes_atomic(folder / f"{name}.withdrawn", b"", within=self.folder)
        self._review_index.note_own(folder.name, name)

    def reviewed_mask(self, image_id: str, target_id: str) -> Mask | None:
        """Return the mask of the review that counts, or None if that one has none."""
        return self._latest_mask(image_id, target_id, COUNTED)

    def audit_mask(self, image_id: str, target_id: str) -> Mask | None:
        """Return the mask of the latest audit, outlined blind to every other, or None without one.

        It is there to measure against; nothing may learn from it.
        """
        return self._latest_mask(image_id, target_id, ("audit",))

    def _latest_mask(self, image_id: str, target_id: str, purposes: Sequence[Purpose]) -> Mask | None:
        named = self.named_reviews(image_id, target_id)
        names = [name for name, review in named.items() if review.purpose in purposes]
        return self.review_mask(image_id, target_id, names[-1]) if names else None

    def review_mask(self, image_id: str, target_id: str, name: str) -> Mask | None:
        """Return the mask (H, W) of one review, or None if it has none.

        Raises
        ------
        UserError
            If the file is no mask, or of another size than the image.
        """
        path = self._reviews_folder(image_id, target_id) / f"{name}.png"
        mask = _read_mask(path)
        image = self.images.get(image_id)
        if mask is not None and image is not None and mask.shape != tuple(image.shape[:2]):
            raise UserError(
                f"{path} is a mask of {mask.shape[1]} x {mask.shape[0]} pixels, but the image {image_id} has "
                f"{image.shape[1]} x {image.shape[0]}; withdraw that review, or restore the file from a backup."
            )
        return mask

    def iterate_keys(self, split: str | None = None) -> Iterator[tuple[StudyImage, Target]]:
        """Yield every image of a split with every target."""
        for image in self.images_of(split):
            for target in self.targets:
                yield image, target


def migrated(path: Path, values: dict[str, Any]) -> dict[str, Any]:
    """Bring an older study.json up to date, keeping the old one beside it; all other files are read as they are.

    On a read-only folder the study opens all the same, and stays as it is on disk.
    """
    values = {
        **values,
        "schema": SCHEMA,
        # Derived, so that two computers that open the study at once agree.
        "uid": values.get("uid")
        or hashlib.sha256(f"{values['name']} {values['created']}".encode()).hexdigest()[:32],
    }
    with contextlib.suppress(UserError), locked(path):
        stored = read_json(path)
        if stored.get("schema") == SCHEMA:
            # Another window was first, and may have stored something since.
            return dict(stored)
        backup = path.with_name("study.schema-1.json")
        if not backup.exists():
            write_bytes_atomic(backup, path.read_bytes())
        write_json_atomic(path, values)
    return values


class _Word(Protocol):
    @property
    def presence(self) -> Presence | None: ...


def _word_of(items: Sequence[_Word]) -> Presence | None:
    """Return the latest word on presence among looks or reviews, oldest first."""
    return next((item.presence for item in reversed(items) if item.presence is not None), None)


def _counted(reviews: Sequence[Review]) -> list[Review]:
    return [review for review in reviews if review.purpose in COUNTED]


def _is_manifest(name: str) -> bool:
    return name.startswith("manifest-") and name.endswith(".json")


def _exists(path: Path) -> bool:
    """Whether a file is there; UserError where that cannot be found out."""
    try:
        os.stat(path)
        return True
    except (FileNotFoundError, NotADirectoryError):
        return False
    except OSError:
        with explained_os_errors(path):
            raise


def _read_mask(path: Path) -> Mask | None:
    return decode_mask(path) if _exists(path) else None


def _keys_in(folder: Path, ending: str) -> set[tuple[str, str]]:
    """Split ``<image id>.<target id><ending>`` names; ids themselves hold no dot (see safe_name)."""
    keys = set()
    for name in _names_in(folder):
        if name.endswith(ending) and not name.startswith("."):
            image_id, _, target_id = name.removesuffix(ending).partition(".")
            keys.add((image_id, target_id))
    return keys


def _names_in(folder: Path) -> list[str]:
    """List a folder; nothing where there is none."""
    with explained_os_errors(folder):
        try:
            return os.listdir(folder)
        except (FileNotFoundError, NotADirectoryError):
            return []


def _user() -> str:
    try:
        return getpass.getuser()
    except (OSError, KeyError):
        return "unknown"
