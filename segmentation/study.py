"""The study folder: plain files that hold everything about one project of annotation.

Records that several workstations may add at once (images, reviews, recordings) are new files, never edits
of an old one, so that two windows on one network folder cannot overwrite each other.
"""

from __future__ import annotations

import dataclasses
import getpass
import json
import socket
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from gaze_capture.errors import UserError
from gaze_capture.fixation_table import Look
from gaze_capture.fixations import Fixations, simulated_source
from gaze_capture.recording import Presence
from gaze_capture.storage import explained_os_errors, make_folder, write_bytes_atomic, write_json_atomic
from segmentation.gaze_index import GazeIndex
from segmentation.image_records import ImageRecords
from segmentation.images import decode_gray16, encode_gray16, encode_mask, read_stored
from segmentation.intensity import Window, for_networks, guide, shown
from segmentation.pseudomask import PseudoMask, PseudoMaskSettings
from segmentation.records import (
    SCHEMA,
    StudyImage,
    Target,
    Volume,
    check_targets,
    read_volume,
    run_made_at,
    utc_now,
)
from segmentation.review_index import Review, Verdict
from segmentation.study_file import (
    change_study_file,
    check_there,
    create_study_file,
    damaged,
    read_study_file,
)
from segmentation.study_folder import Mask, exists, keys_in, names_in, read_mask
from segmentation.study_gaze import StudyGaze
from segmentation.study_reviews import StudyReviews, latest_word

TEST_SPLIT = "test"
"""A split of this name is never read by training."""

PACKED = "training_set.json"
"""What tells a packed training set that was unpacked from other studies (`segmentation.packed`)."""

__all__ = ["PACKED", "TEST_SPLIT", "Mask", "Review", "Study", "Verdict"]


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
        self._image_records = ImageRecords(folder)
        self._gaze = StudyGaze(folder)
        self._reviews = StudyReviews(folder)
        self._runs: list[str] | None = None

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
        return cls(folder, create_study_file(folder, name, targets))

    @classmethod
    def open(cls, folder: Path | str) -> Study:
        """Open an existing study.

        Raises
        ------
        UserError
            If there is none, it is damaged, or a newer version of the program made it.
        """
        folder = Path(folder).absolute()
        values = read_study_file(folder)
        try:
            if not (isinstance(values["name"], str) and isinstance(values["uid"], str)):
                raise TypeError("its name and uid are no text")
            study = cls(folder, values)
            # Files are named after them: a stranger's study must not lead out of its folder.
            check_targets(study.targets)
        except (KeyError, TypeError, AttributeError, UserError) as error:
            raise damaged(folder, error) from None
        return study

    def is_packed(self) -> bool:
        """Whether it is a packed training set, which has nothing but what one training reads."""
        return exists(self.folder / PACKED)

    def check_there(self) -> None:
        """Raise UserError unless the study's folder is where it was when it was opened."""
        check_there(self.folder)

    def new_recording_folder(self, recording_id: str) -> Path:
        """Return where a new recording goes; raises UserError where the study cannot be reached."""
        self.check_there()
        with explained_os_errors(self.recordings_folder):
            make_folder(self.recordings_folder, self.folder)
        return self.recordings_folder / recording_id

    def set_pseudomask_settings(self, settings: PseudoMaskSettings) -> None:
        """Store how pseudo-masks are made in this study."""
        change_study_file(self.folder, pseudomask=settings.to_json())
        self.pseudomask_settings = settings

    def set_key_fingerprint(self, fingerprint: str) -> None:
        """Store which secret key makes this study's pseudonyms."""
        change_study_file(self.folder, key_fingerprint=fingerprint)
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
        change_study_file(self.folder, targets=[dataclasses.asdict(target) for target in targets])
        self.targets = tuple(targets)
        # Free viewing counts for the new ones, too.
        self._gaze.forget()

    def holds_anything_of(self, target_id: str) -> bool:
        """Whether the study has a mask, gaze, a pseudo-mask or a review of a target."""
        looked = {key for key, looks in self.looks.items() if any(look.target_id for look in looks)}
        keys = self.mask_keys() | self.pseudomask_keys() | looked
        keys |= keys_in(self.folder / "reviews", "") | keys_in(self.folder / "drafts", "")
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
        return self._image_records.images

    def manifests(self) -> list[Path]:
        """Return the files that list images, oldest first; a later record of an image replaces an earlier one.

        Raises
        ------
        UserError
            If the study cannot be reached: it must not look like one without images.
        """
        return self._image_records.manifests()

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
        self._image_records.add(images)

    def refresh(self) -> None:
        """Look at the folder again, so that other windows' additions are seen; only what is new is read.

        Raises
        ------
        UserError
            If the study cannot be reached; what was known of it stays.
        """
        self.check_there()
        self._reviews.told()
        self._image_records.refresh()
        self._gaze.forget()
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
        reviews = self._reviews.changed()
        return (
            self._image_records.changed()
            or self._gaze.changed()
            or (self._runs is not None and self._list_runs() != self._runs)
            or reviews
        )

    @property
    def volumes(self) -> dict[str, tuple[str, ...]]:
        """The image ids of each volume's slices, in order, by the volume's id."""
        return self._image_records.volumes

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
        return read_volume(self._volume_path(volume_id))

    def save_volume(self, volume: Volume) -> None:
        """Store what is known of a volume."""
        values = {"schema": SCHEMA, **dataclasses.asdict(volume)}
        write_json_atomic(self._volume_path(volume.id), values, within=self.folder)

    def volume_ids(self) -> list[str]:
        """Return the ids of all volumes that something is known of, single images with a header included."""
        names = (Path(name) for name in names_in(self.folder / "volumes") if not name.startswith("."))
        return sorted(name.stem for name in names if name.suffix == ".json")

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
        return read_mask(self.mask_path(image_id, target_id))

    def save_true_mask(self, image_id: str, target_id: str, mask: Mask) -> None:
        """Store a true mask (H, W)."""
        write_bytes_atomic(self.mask_path(image_id, target_id), encode_mask(mask), within=self.folder)

    def mask_keys(self) -> set[tuple[str, str]]:
        """Return (image id, target id) of all true masks."""
        return keys_in(self.folder / "masks", ".png")

    # Gaze

    @property
    def recordings_folder(self) -> Path:
        """The folder that holds one folder a recording."""
        return self._gaze.recordings

    def recording_ids(self) -> list[str]:
        """Return the ids of all recordings, oldest first."""
        return self._gaze.recording_ids()

    def save_fixations(self, source: str, fixations: Sequence[Fixations], *, imported: bool) -> None:
        """Store the fixations detected in a recording, or imported under a name of their own."""
        self._gaze.save(source, fixations, self.images, imported=imported)

    @property
    def fixations(self) -> GazeIndex:
        """All fixations by (image id, target id); those of free viewing, and its word, count for every target.

        A mapping whose keys come from the tables' headers; an image's rows are read when they are asked for.
        """
        return self._gaze.index([target.id for target in self.targets])

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
        return latest_word(self.counted_reviews(image_id, target_id)) or latest_word(
            self.looks.get((image_id, target_id), ())
        )

    def presences(self, annotators: Sequence[str] | None = None) -> dict[tuple[str, str], Presence]:
        """Return the latest word on every target of every image that one was said of.

        With `annotators`, of what was said while looking theirs alone counts; reviews stand for all.
        """
        said = {}
        for key, looks in self.looks.items():
            word = latest_word([look for look in looks if annotators is None or look.annotator in annotators])
            if word is not None:
                said[key] = word
        return said | self._reviews.words()

    def simulated_from(self) -> str | None:
        """Return ``"masks"`` or ``"saliency"`` if any gaze of the study was simulated so, else None."""
        return simulated_source(self.fixations.each_look())

    # Pseudo-masks and explanations

    def _pseudomask_path(self, image_id: str, target_id: str) -> Path:
        return self.folder / "pseudomasks" / f"{image_id}.{target_id}.npz"

    def pseudomask(self, image_id: str, target_id: str) -> PseudoMask | None:
        """Return the pseudo-mask of a target in an image, or None."""
        path = self._pseudomask_path(image_id, target_id)
        if not exists(path):
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
        return keys_in(self.folder / "pseudomasks", ".npz")

    def explanation_path(self, image_id: str, target_id: str) -> Path:
        """Return where an explanation lies, or would lie."""
        return self.folder / "explanations" / f"{image_id}.{target_id}.json"

    def explanation_history(self, image_id: str, target_id: str) -> Path:
        """Return the folder of everything that was ever said of a target in an image."""
        return self.folder / "explanations" / "history" / f"{image_id}.{target_id}"

    def explanation_keys(self) -> set[tuple[str, str]]:
        """Return (image id, target id) of all stored explanations."""
        return keys_in(self.folder / "explanations", ".json")

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
        names = [name for name in names_in(folder) if not name.startswith(".")]
        found = sorted(name for name in names if exists(folder / name / "spec.json"))
        return sorted(found, key=lambda name: run_made_at(folder / name))

    def prediction_path(self, run_id: str, image_id: str, target_id: str, network: str = "student") -> Path:
        """Return where a network's probability for an image lies, or would lie."""
        return self.runs_folder / run_id / "predictions" / network / f"{image_id}.{target_id}.png"

    def prediction(
        self, run_id: str, image_id: str, target_id: str, network: str = "student"
    ) -> npt.NDArray[np.float32] | None:
        """Return a network's probability (H, W) in 0..1 on the image's own grid, or None."""
        path = self.prediction_path(run_id, image_id, target_id, network)
        return decode_gray16(path) if exists(path) else None

    def save_prediction(
        self, run_id: str, image_id: str, target_id: str, network: str, probability: npt.NDArray[np.float32]
    ) -> None:
        """Store a probability (H, W) in 0..1 as a 16-bit PNG."""
        path = self.prediction_path(run_id, image_id, target_id, network)
        write_bytes_atomic(path, encode_gray16(probability), within=self.folder)

    def prediction_keys(self, run_id: str, network: str = "student") -> set[tuple[str, str]]:
        """Return (image id, target id) of a run's stored predictions."""
        return keys_in(self.runs_folder / run_id / "predictions" / network, ".png")

    # Reviews

    def reviews(self, image_id: str, target_id: str) -> list[Review]:
        """Return all reviews of a target in an image that stand, whatever their purpose, oldest first."""
        return list(self._reviews.named((image_id, target_id)).values())

    def named_reviews(self, image_id: str, target_id: str) -> dict[str, Review]:
        """Return all reviews of a target in an image that stand, by name, oldest first."""
        return self._reviews.named((image_id, target_id))

    def counted_reviews(self, image_id: str, target_id: str) -> list[Review]:
        """Return the reviews that decide, oldest first: the latest of them is what counts.

        Second reads and audits are evidence and never decide; what a network learns from is asked for here.
        """
        return self._reviews.counted((image_id, target_id))

    def reviewed(self) -> dict[tuple[str, str], Review]:
        """Return the review that counts of everything that has one, by (image id, target id)."""
        return self._reviews.latest()

    def all_reviews(self) -> dict[tuple[str, str], list[Review]]:
        """Return all reviews that stand, whatever their purpose, oldest first, by (image id, target id)."""
        return self._reviews.all()

    def add_review(self, review: Review, mask: Mask | None = None) -> str:
        """Add a review and, for an edited or accepted one, the mask (H, W) it stands for; return its name."""
        return self._reviews.add(review, mask)

    def withdraw_review(self, image_id: str, target_id: str, name: str) -> None:
        """Take a review back; it stays on disk, marked beside it, since reviews are never rewritten."""
        self._reviews.withdraw((image_id, target_id), name)

    def reviewed_mask(self, image_id: str, target_id: str) -> Mask | None:
        """Return the mask of the review that counts, or None if that one has none."""
        name = self._reviews.latest_name((image_id, target_id))
        return None if name is None else self.review_mask(image_id, target_id, name)

    def audit_mask(self, image_id: str, target_id: str) -> Mask | None:
        """Return the mask of the latest audit, outlined blind to every other, or None without one.

        It is there to measure against; nothing may learn from it.
        """
        name = self._reviews.latest_name((image_id, target_id), ("audit",))
        return None if name is None else self.review_mask(image_id, target_id, name)

    def review_mask(self, image_id: str, target_id: str, name: str) -> Mask | None:
        """Return the mask (H, W) of one review, or None if it has none.

        Raises
        ------
        UserError
            If the file is no mask, or of another size than the image.
        """
        key = (image_id, target_id)
        mask, image = self._reviews.mask(key, name), self.images.get(image_id)
        if mask is not None and image is not None and mask.shape != tuple(image.shape[:2]):
            raise UserError(
                f"{self._reviews.mask_path(key, name)} is a mask of {mask.shape[1]} x {mask.shape[0]} pixels, but the "
                f"image {image_id} has {image.shape[1]} x {image.shape[0]}; withdraw that review, or restore the file "
                "from a backup."
            )
        return mask

    def iterate_keys(self, split: str | None = None) -> Iterator[tuple[StudyImage, Target]]:
        """Yield every image of a split with every target."""
        for image in self.images_of(split):
            for target in self.targets:
                yield image, target


def _user() -> str:
    try:
        return getpass.getuser()
    except (OSError, KeyError):
        return "unknown"
