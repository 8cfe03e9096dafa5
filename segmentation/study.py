"""The study folder: plain files that hold everything about one project of annotation.

Records that several workstations may add at once (images, reviews, recordings) are new files, never edits
of an old one, so that two windows on one network folder cannot overwrite each other.
"""

from __future__ import annotations

import dataclasses
import datetime
import getpass
import json
import os
import re
import secrets
import socket
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from gaze_capture.errors import UserError
from gaze_capture.fixation_table import read_fixation_table, write_fixation_table
from gaze_capture.fixations import Fixations, simulated_source
from gaze_capture.recording import Presence
from gaze_capture.storage import explained_os_errors, read_json, write_bytes_atomic, write_json_atomic
from segmentation.images import decode_gray16, decode_mask, encode_gray16, encode_mask
from segmentation.pseudomask import PseudoMask, PseudoMaskSettings

SCHEMA = 1
TEST_SPLIT = "test"
"""A split of this name is never read by training."""

Verdict = Literal["accepted", "edited", "rejected"]
Mask = npt.NDArray[np.bool_]


@dataclass(frozen=True)
class Target:
    """One thing to segment."""

    id: str = "target"
    name: str = "Target"
    colour: str = "#56B4E9"
    kind: Literal["lesion", "organ", "zone"] = "lesion"


@dataclass(frozen=True)
class StudyImage:
    """One image of a study; `path` is relative to the study folder, with forward slashes."""

    id: str
    path: str
    source_name: str
    """The file's own name, by which gaze and masks of other programs refer to it."""
    sha256: str
    shape: tuple[int, int, int]
    """Height, width, channels."""
    modality: str = "photo"
    spacing_mm: tuple[float, float] | None = None
    slice_index: int | None = None
    split: str = "train"
    group: str = ""
    """Patient, sequence or near-duplicate cluster; images of one group never fall on both sides of a split."""


@dataclass(frozen=True)
class Review:
    """An annotator's verdict on a prediction or a pseudo-mask; an edited mask lies beside it."""

    image_id: str
    target_id: str
    annotator: str
    subject: str
    """The run whose prediction was judged, or ``"pseudomask"``."""
    verdict: Verdict
    presence: Presence | None
    seconds_spent: float
    reviewed_at: str
    """ISO 8601, UTC."""
    threshold: float = 0.5
    """The probability at which the prediction was shown."""


def utc_now() -> str:
    """Return the time as ISO 8601 in UTC, to the millisecond."""
    return datetime.datetime.now(datetime.timezone.utc).isoformat(timespec="milliseconds")


def new_id(prefix: str = "") -> str:
    """Return an id that sorts by time and that two workstations never both draw."""
    stamp = datetime.datetime.now(datetime.timezone.utc).strftime("%Y%m%d-%H%M%S")
    return f"{prefix}{stamp}-{secrets.token_hex(3)}"


def safe_name(text: str) -> str:
    """Make a file-name part of any text: letters and digits of every script, `-` and `_`; at most 80 long."""
    name = re.sub(r"[^\w-]+", "_", text, flags=re.UNICODE).strip("_")
    return name[:80] or "unnamed"


class Study:
    """An open study. Reading is lazy; every write is atomic and visible to other windows at once."""

    def __init__(self, folder: Path, values: dict[str, Any]) -> None:
        self.folder = folder
        self.name: str = values["name"]
        self.targets: tuple[Target, ...] = tuple(Target(**target) for target in values["targets"])
        self.pseudomask_settings = PseudoMaskSettings.from_json(values["pseudomask"])
        self._images: dict[str, StudyImage] | None = None
        self._fixations: dict[tuple[str, str], list[Fixations]] | None = None

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
        if not path.exists():
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
            return cls(folder, values)
        except (KeyError, TypeError) as error:
            raise UserError(f"{path} is damaged ({error}). Restore it from a backup.") from None

    def set_pseudomask_settings(self, settings: PseudoMaskSettings) -> None:
        """Store how pseudo-masks are made in this study."""
        values = read_json(self.folder / "study.json")
        values["pseudomask"] = settings.to_json()
        write_json_atomic(self.folder / "study.json", values)
        self.pseudomask_settings = settings

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
        with explained_os_errors(path), open(path, "a", encoding="utf-8") as stream:
            stream.write(json.dumps(line, ensure_ascii=False) + "\n")

    # Images and true masks

    @property
    def images(self) -> dict[str, StudyImage]:
        """All images by id, in the order they came in."""
        if self._images is None:
            images: dict[str, StudyImage] = {}
            for path in sorted((self.folder / "images").glob("manifest-*.json")):
                manifest = read_json(path)
                try:
                    for values in manifest["images"]:
                        values["shape"] = tuple(values["shape"])
                        values["spacing_mm"] = values["spacing_mm"] and tuple(values["spacing_mm"])
                        images[values["id"]] = StudyImage(**values)
                except (KeyError, TypeError) as error:
                    raise UserError(f"{path} is damaged ({error}). Restore it from a backup.") from None
            self._images = images
        return self._images

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
        records = [dataclasses.asdict(image) for image in images]
        if not records:
            return
        stamp = datetime.datetime.now(datetime.timezone.utc).strftime("%Y%m%dT%H%M%S%f")
        name = f"manifest-{stamp}-{secrets.token_hex(3)}.json"
        write_json_atomic(self.folder / "images" / name, {"schema": SCHEMA, "images": records})
        self._images = None

    def refresh(self) -> None:
        """Forget what was read, so that other windows' additions are seen."""
        self._images = None
        self._fixations = None

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
        write_bytes_atomic(self.mask_path(image_id, target_id), encode_mask(mask))

    # Gaze

    @property
    def recordings_folder(self) -> Path:
        """The folder that holds one folder a recording."""
        return self.folder / "recordings"

    def recording_ids(self) -> list[str]:
        """Return the ids of all recordings, oldest first."""
        return sorted(
            path.name for path in self.recordings_folder.glob("*") if (path / "gaze.frames").exists()
        )

    def _fixation_tables(self) -> list[Path]:
        return sorted(
            [
                *self.recordings_folder.glob("*/fixations.csv"),
                *(self.folder / "fixations").glob("*/fixations.csv"),
            ]
        )

    def save_fixations(self, source: str, fixations: Sequence[Fixations], *, imported: bool) -> None:
        """Store the fixations detected in a recording, or imported under a name of their own."""
        folder = (self.folder / "fixations" if imported else self.recordings_folder) / source
        write_fixation_table(folder / "fixations.csv", fixations)
        self._fixations = None

    @property
    def fixations(self) -> dict[tuple[str, str], list[Fixations]]:
        """All fixations by (image id, target id); free viewing counts for the first target."""
        if self._fixations is None:
            found: dict[tuple[str, str], list[Fixations]] = {}
            for path in self._fixation_tables():
                for fixations in read_fixation_table(path):
                    key = (fixations.image_id, fixations.target_id or self.targets[0].id)
                    found.setdefault(key, []).append(fixations)
            self._fixations = found
        return self._fixations

    def presence(self, image_id: str, target_id: str) -> Presence | None:
        """Return the latest word on a target in an image: a review's before a gaze session's."""
        for review in reversed(self.reviews(image_id, target_id)):
            if review.presence is not None:
                return review.presence
        for fixations in reversed(self.fixations.get((image_id, target_id), [])):
            if fixations.presence is not None:
                return fixations.presence
        return None

    def simulated_from(self) -> str | None:
        """Return ``"masks"`` or ``"saliency"`` if any gaze of the study was simulated so, else None."""
        return simulated_source(item for group in self.fixations.values() for item in group)

    # Pseudo-masks and explanations

    def _pseudomask_path(self, image_id: str, target_id: str) -> Path:
        return self.folder / "pseudomasks" / f"{image_id}.{target_id}.npz"

    def pseudomask(self, image_id: str, target_id: str) -> PseudoMask | None:
        """Return the pseudo-mask of a target in an image, or None."""
        path = self._pseudomask_path(image_id, target_id)
        return PseudoMask.from_bytes(path.read_bytes(), path) if path.exists() else None

    def save_pseudomask(self, pseudomask: PseudoMask) -> None:
        """Store a pseudo-mask."""
        path = self._pseudomask_path(pseudomask.image_id, pseudomask.target_id)
        write_bytes_atomic(path, pseudomask.to_bytes())

    def pseudomask_keys(self) -> set[tuple[str, str]]:
        """Return (image id, target id) of all stored pseudo-masks."""
        return _keys_in(self.folder / "pseudomasks", ".npz")

    def explanation_path(self, image_id: str, target_id: str) -> Path:
        """Return where an explanation lies, or would lie."""
        return self.folder / "explanations" / f"{image_id}.{target_id}.json"

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
        return sorted(path.parent.name for path in self.runs_folder.glob("*/spec.json"))

    def prediction_path(self, run_id: str, image_id: str, target_id: str, network: str = "student") -> Path:
        """Return where a network's probability for an image lies, or would lie."""
        return self.runs_folder / run_id / "predictions" / network / f"{image_id}.{target_id}.png"

    def prediction(
        self, run_id: str, image_id: str, target_id: str, network: str = "student"
    ) -> npt.NDArray[np.float32] | None:
        """Return a network's probability (H, W) in 0..1 on the image's own grid, or None."""
        path = self.prediction_path(run_id, image_id, target_id, network)
        return decode_gray16(path) if path.exists() else None

    def save_prediction(
        self, run_id: str, image_id: str, target_id: str, network: str, probability: npt.NDArray[np.float32]
    ) -> None:
        """Store a probability (H, W) in 0..1 as a 16-bit PNG."""
        write_bytes_atomic(
            self.prediction_path(run_id, image_id, target_id, network), encode_gray16(probability)
        )

    def prediction_keys(self, run_id: str, network: str = "student") -> set[tuple[str, str]]:
        """Return (image id, target id) of a run's stored predictions."""
        return _keys_in(self.runs_folder / run_id / "predictions" / network, ".png")

    # Reviews

    def _reviews_folder(self, image_id: str, target_id: str) -> Path:
        return self.folder / "reviews" / f"{image_id}.{target_id}"

    def reviews(self, image_id: str, target_id: str) -> list[Review]:
        """Return all reviews of a target in an image that stand, oldest first."""
        return [_review(path) for path in _standing(self._reviews_folder(image_id, target_id))]

    def reviewed(self) -> dict[tuple[str, str], Review]:
        """Return the latest review of everything that was reviewed, by (image id, target id)."""
        latest: dict[tuple[str, str], Review] = {}
        for folder in sorted((self.folder / "reviews").glob("*/")):
            for path in _standing(folder)[-1:]:
                review = _review(path)
                latest[review.image_id, review.target_id] = review
        return latest

    def add_review(self, review: Review, mask: Mask | None = None) -> str:
        """Add a review and, for an edited or accepted one, the mask (H, W) it stands for; return its name."""
        # To the microsecond: verdicts given by key follow each other within one second, and the latest one counts.
        stamp = datetime.datetime.now(datetime.timezone.utc).strftime("%Y%m%d-%H%M%S%f")
        name = f"{stamp}-{secrets.token_hex(3)}-{safe_name(review.annotator)}"
        folder = self._reviews_folder(review.image_id, review.target_id)
        if mask is not None:
            write_bytes_atomic(folder / f"{name}.png", encode_mask(mask))
        write_json_atomic(folder / f"{name}.json", {"schema": SCHEMA, **dataclasses.asdict(review)})
        return name

    def withdraw_review(self, image_id: str, target_id: str, name: str) -> None:
        """Take a review back; it stays on disk, marked beside it, since reviews are never rewritten."""
        write_bytes_atomic(self._reviews_folder(image_id, target_id) / f"{name}.withdrawn", b"")

    def reviewed_mask(self, image_id: str, target_id: str) -> Mask | None:
        """Return the mask of the latest review, or None if that one has none."""
        paths = _standing(self._reviews_folder(image_id, target_id))
        return _read_mask(paths[-1].with_suffix(".png")) if paths else None

    def iterate_keys(self, split: str | None = None) -> Iterator[tuple[StudyImage, Target]]:
        """Yield every image of a split with every target."""
        for image in self.images_of(split):
            for target in self.targets:
                yield image, target


def _standing(folder: Path) -> list[Path]:
    """List a folder's reviews that were not withdrawn, oldest first."""
    return [path for path in sorted(folder.glob("*.json")) if not path.with_suffix(".withdrawn").exists()]


def _review(path: Path) -> Review:
    values = read_json(path)
    try:
        del values["schema"]
        return Review(**values)
    except (KeyError, TypeError) as error:
        raise UserError(f"{path} is damaged ({error}). Move it out of the study.") from None


def _read_mask(path: Path) -> Mask | None:
    return decode_mask(path) if path.exists() else None


def _keys_in(folder: Path, ending: str) -> set[tuple[str, str]]:
    """Split ``<image id>.<target id><ending>`` names; ids themselves hold no dot (see safe_name)."""
    if not folder.is_dir():
        return set()
    with os.scandir(folder) as entries:
        names = [entry.name for entry in entries]
    keys = set()
    for name in names:
        if name.endswith(ending) and not name.startswith("."):
            image_id, _, target_id = name.removesuffix(ending).partition(".")
            keys.add((image_id, target_id))
    return keys


def _user() -> str:
    try:
        return getpass.getuser()
    except (OSError, KeyError):
        return "unknown"
