"""Whether a study is whole: hashes against the manifests, files that are missing or belong to nothing, damage.

Nothing is changed. Each finding is one sentence on what is wrong, the file, and what to do.
"""

from __future__ import annotations

import dataclasses
import functools
import os
import re
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from gaze_capture.archive import ARCHIVE_NAME
from gaze_capture.certificate import CERTIFICATE_NAME, read_certificate
from gaze_capture.drift_correction import CORRECTION_NAME, read_correction
from gaze_capture.errors import UserError
from gaze_capture.fixation_table import read_fixation_table
from gaze_capture.recording_codec import FRAMES_NAME, SUMMARY_NAME, needs_recovery, read_recording
from gaze_capture.storage import explained, read_json, sha256_of
from segmentation.blind_reading import read_draw
from segmentation.editing.drafts import DRAFTS
from segmentation.editing.journal import ENDING, read_draft
from segmentation.gaze_gates import GATES_NAME, check_gates
from segmentation.images import decode_mask, image_shape
from segmentation.problem import Problem
from segmentation.progress import Progress, no_progress
from segmentation.pseudomask import PseudoMask
from segmentation.records import SCHEMA, StudyImage, read_manifest
from segmentation.review_index import read_review
from segmentation.study import Study
from segmentation.verifying_text import TextVerifier

IMAGE_NAMES = re.compile(r"(?i)\.(png|jpe?g|tiff?|bmp)$")
RESTORE = "Restore it from a backup."
RUNS_AGAIN = "Delete it and make it again."
ARCHIVED_AGAIN = "Make it again from gaze.frames: gaze-insight recover STUDY"


@dataclass(frozen=True)
class Verification:
    """What was looked at and what was found."""

    checked: dict[str, int]
    """How many of each kind."""
    problems: tuple[Problem, ...]

    @property
    def sound(self) -> bool:
        """Whether nothing is wrong."""
        return not self.problems


_BESIDE: tuple[tuple[str, Callable[[Path], object], str], ...] = (
    (GATES_NAME, check_gates, "Delete it, and detect the fixations again."),
    (CERTIFICATE_NAME, read_certificate, "Delete it, and make it again: gaze-insight recover STUDY"),
    (CORRECTION_NAME, read_correction, "Make it again: gaze-insight correct-drift STUDY RECORDING"),
)
"""What is kept beside a recording and read with it."""

_Check = Callable[[], Iterable[Problem]]


def verify(study: Study, progress: Progress = no_progress) -> Verification:
    """Check everything in a study's folder, files on all cores; what cannot be read is a finding, not an error.

    Raises
    ------
    UserError
        If the study itself cannot be reached.
    """
    study.check_there()
    return _Verifier(study).run(progress)


class _Verifier:
    def __init__(self, study: Study) -> None:
        self.study = study
        self.folder = study.folder
        self.targets = {target.id for target in study.targets}
        self.images: dict[str, StudyImage] = {}
        self.checked: Counter[str] = Counter()
        self.problems: list[Problem] = []

    def run(self, progress: Progress) -> Verification:
        self.problems += self._study_file()
        self._read_manifests()
        self.problems += self._groups()
        checks = [
            *self._image_checks(),
            *self._volume_checks(),
            *self._keyed_checks("masks", ".png", self._mask, "true masks"),
            *self._gaze_checks(),
            *self._keyed_checks("pseudomasks", ".npz", self._pseudomask, "pseudo-masks"),
            *TextVerifier(self.study, self._belongs, self.checked).checks(),
            *self._review_checks(),
            *self._draw_checks(),
            *self._draft_checks(),
            *self._prediction_checks(),
        ]
        self.problems += self._leftovers()
        with ThreadPoolExecutor(max_workers=os.cpu_count() or 1) as pool:
            futures = [pool.submit(self._safely, name, check) for name, check in checks]
            try:
                for number, ((name, _), future) in enumerate(zip(checks, futures, strict=True)):
                    progress(number, len(checks), name)
                    self.problems += future.result()
            finally:
                for future in futures:
                    future.cancel()
        progress(len(checks), len(checks), "")
        # What vanished in the middle would look like a hundred missing files.
        self.study.check_there()
        return Verification(dict(self.checked), tuple(self.problems))

    def _name(self, path: Path) -> str:
        return path.relative_to(self.folder).as_posix()

    def _safely(self, name: str, check: _Check) -> list[Problem]:
        try:
            return list(check())
        except OSError as error:
            return [Problem(name, "cannot be read.", explained(error, self.folder / name))]

    # The study and its images

    def _study_file(self) -> Iterator[Problem]:
        self.checked["study"] += 1
        values = read_json(self.folder / "study.json")
        if values.get("schema") != SCHEMA:
            yield Problem(
                "study.json",
                f"is still of schema {values.get('schema')}, this version writes {SCHEMA}.",
                "Open it once where it can be written.",
            )
        for target in self.study.targets:
            if target.inside is not None and target.inside not in self.targets:
                yield Problem(
                    "study.json",
                    f"says that the target {target.id} lies inside {target.inside}, which the study does not have.",
                    "Correct the targets.",
                )

    def _read_manifests(self) -> None:
        seen_in: dict[str, tuple[str, StudyImage]] = {}
        for path in self.study.manifests():
            self.checked["manifests"] += 1
            try:
                images = read_manifest(path)
            except UserError:
                self.problems.append(Problem(self._name(path), "is damaged.", RESTORE))
                continue
            twice = [name for name, count in Counter(image.id for image in images).items() if count > 1]
            for name in twice:
                self.problems.append(
                    Problem(
                        self._name(path),
                        f"lists the image {name} twice.",
                        "Import one of the two under another name.",
                    )
                )
            for image in images:
                earlier = seen_in.get(image.id)
                if earlier is not None and earlier[0] != path.name and _another(earlier[1], image):
                    self.problems.append(
                        Problem(
                            self._name(path),
                            f"gives the id {image.id} to another image than {earlier[0]} does.",
                            "Import one of the two again under another file name.",
                        )
                    )
                seen_in[image.id] = (path.name, image)
                self.images[image.id] = image

    def _groups(self) -> Iterator[Problem]:
        splits: dict[str, set[str]] = {}
        for image in self.images.values():
            if image.group:
                splits.setdefault(image.group, set()).add(image.split)
        for group, names in sorted(splits.items()):
            if len(names) > 1:
                yield Problem(
                    "images",
                    f"hold the group {group} in several splits: {', '.join(sorted(names))}.",
                    "Give all images of a group the same split, or results will be too good.",
                )

    def _image_checks(self) -> Iterator[tuple[str, _Check]]:
        for image in self.images.values():
            self.checked["images"] += 1
            yield image.path, functools.partial(self._image, image)

    def _image(self, image: StudyImage) -> Iterator[Problem]:
        path = self.folder / image.path
        if not path.exists():
            yield Problem(
                image.path,
                f"is missing, the file of the image {image.id}.",
                "Restore it from a backup or import it again.",
            )
            return
        if sha256_of(path) != image.sha256:
            yield Problem(
                image.path,
                f"is not what was imported as {image.id}: its content has another hash.",
                "Restore it from a backup, or import the changed file as a new image.",
            )
        try:
            shape = image_shape(path)
        except UserError:
            yield Problem(image.path, "is damaged: it cannot be read as an image.", RESTORE)
            return
        if shape != tuple(image.shape):
            yield Problem(image.path, f"is {_size(shape)}, its manifest says {_size(image.shape)}.", RESTORE)

    def _leftovers(self) -> Iterator[Problem]:
        listed = {image.path for image in self.images.values()}
        for name in sorted(_files(self.folder / "images")):
            relative = f"images/{name}"
            if IMAGE_NAMES.search(name) and name[0] != "." and relative not in listed:
                yield Problem(
                    relative,
                    "belongs to no image: no manifest lists it.",
                    "Import it, or delete it if nobody needs it.",
                )
        for parent, folders, names in os.walk(self.folder):
            folders.sort()
            for name in sorted(names):
                if name.endswith(".part"):
                    yield Problem(
                        self._name(Path(parent) / name),
                        "was left behind by a program that was cut off in writing.",
                        "Delete it.",
                    )

    # Volumes

    def _volume_checks(self) -> Iterator[tuple[str, _Check]]:
        slices: dict[str, list[StudyImage]] = {}
        for image in self.images.values():
            if image.volume:
                slices.setdefault(image.volume, []).append(image)
        files = {name[:-5] for name in _files(self.folder / "volumes") if name.endswith(".json")}
        for volume_id in sorted(slices.keys() | files):
            self.checked["volumes"] += 1
            found = slices.get(volume_id, [])
            yield f"volumes/{volume_id}.json", functools.partial(self._volume, volume_id, found)

    def _volume(self, volume_id: str, slices: Sequence[StudyImage]) -> Iterator[Problem]:
        name = f"volumes/{volume_id}.json"
        if (self.folder / name).exists():
            try:
                volume = self.study.volume(volume_id)
            except UserError:
                yield Problem(name, "is damaged.", RESTORE)
            else:
                for missing in [one for one in volume.image_ids if one not in self.images]:
                    yield Problem(
                        name,
                        f"speaks of the slice {missing}, which the study does not have.",
                        "Import the volume again.",
                    )
        if len({tuple(image.shape) for image in slices}) > 1:
            sizes = sorted({_size(image.shape) for image in slices})
            yield Problem(
                name, f"describes slices of mixed size: {', '.join(sizes)}.", "Import the volume again."
            )
        places = Counter(image.slice_index for image in slices)
        for place, count in sorted(places.items(), key=lambda item: item[0] or 0):
            if count > 1:
                ids = ", ".join(image.id for image in slices if image.slice_index == place)
                yield Problem(
                    name, f"has the slice {place} {count} times ({ids}).", "Import the volume again."
                )
        known = sorted(place for place in places if place is not None)
        gaps = sorted(set(range(known[0], known[-1] + 1)) - set(known)) if known else []
        if gaps:
            shown = ", ".join(map(str, gaps[:5])) + (" ..." if len(gaps) > 5 else "")
            yield Problem(name, f"lacks the slices {shown}.", "Import the volume again.")

    # What belongs to an image and a target

    def _belongs(self, path: Path, image_id: str, target_id: str | None, what: str) -> Iterator[Problem]:
        if image_id not in self.images:
            yield Problem(
                self._name(path),
                f"is {what} of the image {image_id}, which the study does not have.",
                "Import the image again, or move the file out of the study.",
            )
        elif target_id is not None and target_id not in self.targets:
            yield Problem(
                self._name(path),
                f"is {what} of the target {target_id}, which the study does not have.",
                "Add the target to the study, or move the file out of it.",
            )

    def _keyed_checks(
        self, kind: str, ending: str, check: Callable[[Path, str, str], Iterable[Problem]], counted: str
    ) -> Iterator[tuple[str, _Check]]:
        folder = self.folder / kind
        for name in sorted(_files(folder)):
            if name.endswith(ending) and name[0] != ".":
                self.checked[counted] += 1
                image_id, _, target_id = name.removesuffix(ending).partition(".")
                path = folder / name
                yield f"{kind}/{name}", functools.partial(check, path, image_id, target_id)

    def _fits(self, path: Path, image_id: str, shape: tuple[int, ...], advice: str) -> Iterator[Problem]:
        image = self.images.get(image_id)
        if image is not None and tuple(shape[:2]) != tuple(image.shape[:2]):
            yield Problem(
                self._name(path), f"is {_size(shape)}, its image {image_id} {_size(image.shape[:2])}.", advice
            )

    def _mask(self, path: Path, image_id: str, target_id: str) -> Iterator[Problem]:
        yield from self._belongs(path, image_id, target_id, "the true mask")
        try:
            yield from self._fits(path, image_id, decode_mask(path).shape, "Import the right mask.")
        except UserError:
            yield Problem(self._name(path), "is damaged: it cannot be read as a mask.", RESTORE)

    def _pseudomask(self, path: Path, image_id: str, target_id: str) -> Iterator[Problem]:
        yield from self._belongs(path, image_id, target_id, "the pseudo-mask")
        try:
            made = PseudoMask.from_bytes(path.read_bytes(), path)
        except UserError:
            yield Problem(self._name(path), "is damaged.", RUNS_AGAIN)
            return
        yield from self._fits(path, image_id, made.level_map.shape, RUNS_AGAIN)

    # Gaze

    def _gaze_checks(self) -> Iterator[tuple[str, _Check]]:
        for kind in ("recordings", "fixations"):
            parent = self.folder / kind
            for name in sorted(_folders(parent)):
                folder = parent / name
                if kind == "recordings":
                    self.checked["recordings"] += 1
                    yield f"{kind}/{name}/{FRAMES_NAME}", functools.partial(self._recording, folder)
                if (folder / "fixations.csv").exists() or (folder / "fixations.json").exists():
                    self.checked["fixation tables"] += 1
                    yield (
                        f"{kind}/{name}/fixations.csv",
                        functools.partial(self._fixations, folder / "fixations.csv"),
                    )

    def _recording(self, folder: Path) -> Iterator[Problem]:
        frames = folder / FRAMES_NAME
        if not frames.exists():
            yield Problem(self._name(frames), "is missing: the recording has no samples.", RESTORE)
            return
        if needs_recovery(folder):
            yield Problem(
                self._name(frames),
                "was cut off before its end.",
                "Finish it with: gaze-insight recover STUDY",
            )
            return
        try:
            recording = read_recording(folder)
        except UserError:
            yield Problem(self._name(frames), "is damaged.", RESTORE)
            return
        for name, read, advice in _BESIDE:
            try:
                read(folder)
            except UserError:
                yield Problem(self._name(folder / name), "is damaged.", advice)
        yield from self._hashes(folder)
        for image_id in sorted({place.image_id for place in recording.placements} - self.images.keys()):
            yield from self._belongs(frames, image_id, None, "the recording")

    def _hashes(self, folder: Path) -> Iterator[Problem]:
        """Compare a recording and its archive with what recording.json says of them."""
        summary = folder / SUMMARY_NAME
        try:
            noted = dict(read_json(summary)["sha256"])
            recorded = noted[FRAMES_NAME]
        except (UserError, KeyError, TypeError, ValueError):
            yield Problem(self._name(summary), "is damaged.", RESTORE)
            return
        frames, archive = folder / FRAMES_NAME, folder / ARCHIVE_NAME
        if recorded != sha256_of(frames):
            yield Problem(self._name(frames), "is not what was recorded: it has another hash.", RESTORE)
        archived = noted.get(ARCHIVE_NAME)
        if archived is None:
            # It never was, or that was cut off: the recording is whole.
            return
        if not archive.exists():
            yield Problem(self._name(archive), "is missing, the archive of the recording.", ARCHIVED_AGAIN)
        elif archived != sha256_of(archive):
            yield Problem(
                self._name(archive), "is not what was archived: it has another hash.", ARCHIVED_AGAIN
            )

    def _fixations(self, path: Path) -> Iterator[Problem]:
        try:
            items = read_fixation_table(path)
        except UserError:
            yield Problem(
                self._name(path),
                "is damaged, or does not fit its header.",
                "Detect or import the fixations again.",
            )
            return
        for image_id, target_id in sorted({(item.image_id, item.target_id or "") for item in items}):
            yield from self._belongs(path, image_id, target_id or None, "the gaze")

    # Reviews and predictions

    def _review_checks(self) -> Iterator[tuple[str, _Check]]:
        parent = self.folder / "reviews"
        for name in sorted(_folders(parent)):
            self.checked["reviews"] += sum(file.endswith(".json") for file in _files(parent / name))
            yield f"reviews/{name}", functools.partial(self._reviews, parent / name)

    def _reviews(self, folder: Path) -> Iterator[Problem]:
        image_id, _, target_id = folder.name.partition(".")
        yield from self._belongs(folder, image_id, target_id, "the review")
        names = set(_files(folder))
        for name in sorted(names):
            path = folder / name
            if name[0] == ".":
                continue
            if name.endswith(".json"):
                try:
                    review = read_review(path)
                except UserError:
                    yield Problem(self._name(path), "is damaged.", "Move it out of the study.")
                    continue
                if (review.image_id, review.target_id) != (image_id, target_id):
                    yield Problem(
                        self._name(path),
                        f"is a review of {review.image_id}.{review.target_id} in the folder of another.",
                        "Move it to the folder of its own image.",
                    )
                elif (
                    review.presence == "present"
                    and review.verdict != "rejected"
                    and names.isdisjoint((f"{name[:-5]}.png", f"{name[:-5]}.withdrawn"))
                ):
                    yield Problem(
                        self._name(path.with_suffix(".png")),
                        "is missing, the mask of a review.",
                        "Restore it from a backup, or review the image again.",
                    )
            elif name.endswith(".png"):
                try:
                    yield from self._fits(path, image_id, decode_mask(path).shape, "Review the image again.")
                except UserError:
                    yield Problem(self._name(path), "is damaged: it cannot be read as a mask.", RESTORE)

    def _draw_checks(self) -> Iterator[tuple[str, _Check]]:
        folder = self.folder / "audits"
        for name in sorted(_files(folder)):
            if name.endswith(".json") and name[0] != ".":
                self.checked["audit draws"] += 1
                yield f"audits/{name}", functools.partial(self._draw, folder / name)

    def _draw(self, path: Path) -> Iterator[Problem]:
        try:
            draw = read_draw(path)
        except UserError:
            yield Problem(self._name(path), "is damaged.", RESTORE)
            return
        for image_id in sorted({*draw.image_ids} - self.images.keys()):
            yield from self._belongs(path, image_id, None, "a draw")

    def _draft_checks(self) -> Iterator[tuple[str, _Check]]:
        parent = self.folder / DRAFTS
        for folder in sorted(_folders(parent)):
            for name in sorted(_files(parent / folder)):
                if name.endswith(ENDING) and name[0] != ".":
                    self.checked["drafts"] += 1
                    yield f"{DRAFTS}/{folder}/{name}", functools.partial(self._draft, parent / folder / name)

    def _draft(self, path: Path) -> Iterator[Problem]:
        image_id, _, target_id = path.parent.name.partition(".")
        yield from self._belongs(path, image_id, target_id, "the unfinished edit")
        try:
            read = read_draft(path)
        except UserError:
            yield Problem(self._name(path), "is damaged: the edit in it cannot be read.", RESTORE)
            return
        # A torn last step is what a crash leaves, and is dropped when the edit goes on.
        if read.damaged:
            yield Problem(self._name(path), "is damaged: some steps of the edit are lost.", RESTORE)
        yield from self._fits(path, image_id, read.header.shape, "Edit the image again.")

    def _prediction_checks(self) -> Iterator[tuple[str, _Check]]:
        for run_id in self.study.run_ids():
            self.checked["runs"] += 1
            yield f"runs/{run_id}/spec.json", functools.partial(self._run, run_id)
            for network in sorted(_folders(self.study.runs_folder / run_id / "predictions")):
                kind = f"runs/{run_id}/predictions/{network}"
                yield from self._keyed_checks(kind, ".png", self._prediction, "predictions")
                yield from self._keyed_checks(f"{kind}/spread", ".png", self._spread, "maps of spread")

    def _run(self, run_id: str) -> Iterator[Problem]:
        path = self.study.runs_folder / run_id / "spec.json"
        try:
            read_json(path)
        except UserError:
            yield Problem(self._name(path), "is damaged.", "Move the run out of the study.")

    def _prediction(self, path: Path, image_id: str, target_id: str) -> Iterator[Problem]:
        yield from self._belongs(path, image_id, target_id, "the prediction")
        try:
            shape = image_shape(path)
        except UserError:
            yield Problem(self._name(path), "is damaged.", "Delete it and predict again.")
            return
        yield from self._fits(path, image_id, shape, "Delete it and predict again.")

    def _spread(self, path: Path, image_id: str, target_id: str) -> Iterator[Problem]:
        yield from self._belongs(path, image_id, target_id, "the spread")
        try:
            image_shape(path)
        except UserError:
            yield Problem(self._name(path), "is damaged.", "Delete it and predict again.")


def _another(first: StudyImage, second: StudyImage) -> bool:
    """Whether two records of one id are of different images, not one record that was corrected or blanked."""
    return first.came_from_sha256 != second.came_from_sha256


def _size(shape: Sequence[int]) -> str:
    channels = f" x {shape[2]}" if len(shape) > 2 else ""
    return f"{shape[1]} x {shape[0]}{channels} pixels"


def _files(folder: Path) -> list[str]:
    try:
        with os.scandir(folder) as entries:
            return [entry.name for entry in entries if entry.is_file()]
    except (FileNotFoundError, NotADirectoryError):
        return []


def _folders(folder: Path) -> list[str]:
    try:
        with os.scandir(folder) as entries:
            return [entry.name for entry in entries if entry.is_dir()]
    except (FileNotFoundError, NotADirectoryError):
        return []


def to_json(verification: Verification) -> Mapping[str, object]:
    """Return what was found as JSON: ``{"checked": {...}, "problems": [{"file", "problem", "advice"}]}``."""
    return {
        "checked": verification.checked,
        "problems": [dataclasses.asdict(problem) for problem in verification.problems],
    }
