"""Two copies of one study, worked on apart, brought together: what the other has and this one lacks is copied.

Nothing that is here is ever changed. Every record is a file or folder with a name of its own, so that copies that were
merged in either order hold the same ones; what has the same name and other contents is refused by name. What is
derived or travels by itself stays out: pseudo-masks and explanations are made again, runs travel as archives.
"""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import hashlib
import json
import os
import shutil
import socket
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from gaze_capture.errors import UserError
from gaze_capture.fixation_table import read_looks
from gaze_capture.recording_codec import needs_recovery, read_recording
from gaze_capture.storage import (
    explained_os_errors,
    make_folder,
    read_json,
    sha256_of,
    write_bytes_atomic,
)
from segmentation.blind_reading import read_draw
from segmentation.grouping import leaks
from segmentation.images import decode_mask
from segmentation.look_again import FOLDER as ASKED_FOLDER
from segmentation.look_again import read_asked
from segmentation.own_words_store import WORDS_FOLDER, read_own_words_file
from segmentation.progress import Progress, no_progress
from segmentation.records import SCHEMA, StudyImage, image_record, read_manifest, safe_name
from segmentation.review_index import read_review
from segmentation.runs import process_exists
from segmentation.study import Study

_OVERRULED = "overruled/"


@dataclass(frozen=True)
class MergeReport:
    """What came over and what did not; names are relative to the study's folder."""

    copied: dict[str, int]
    """How many of each kind."""
    present: int
    """Records that were here already, the same."""
    conflicts: tuple[tuple[str, str], ...]
    """Name and reason of what is here by the same name with other contents; both studies keep their own."""
    left_out: tuple[tuple[str, str], ...]
    """Name and reason of what this study has no place for."""
    notes: tuple[str, ...]
    """Sentences on what differs otherwise."""

    def to_json(self) -> dict[str, Any]:
        """Return what ``merge --json`` prints."""
        return {
            "copied": self.copied,
            "present": self.present,
            "conflicts": [{"name": name, "reason": reason} for name, reason in self.conflicts],
            "left_out": [{"name": name, "reason": reason} for name, reason in self.left_out],
            "notes": list(self.notes),
        }


def merge(study: Study, other: Study, progress: Progress = no_progress) -> MergeReport:
    """Copy images, true masks, gaze, and what people reviewed, drew and said that a study lacks from another copy.

    An image is the same where its id and its file's SHA-256 are; one that is here under another id stays out. Each
    record is written whole or not at all, so that a merge that was cut off is finished by the next one; done twice, it
    changes nothing.

    Raises
    ------
    UserError
        If both are the same folder, one is a packed training set, a study cannot be read, or this one not written.
    """
    if study.folder.resolve() == other.folder.resolve():
        raise UserError(f"{other.folder} is the very study it would be merged into; name another copy of it.")
    for one in (study, other):
        if one.is_packed():
            raise UserError(f"{one.folder} is a packed training set, which has no records to merge.")
        one.check_there()
    return _Merger(study, other).run(progress)


class _Merger:
    def __init__(self, study: Study, other: Study) -> None:
        self.study, self.other = study, other
        self.to, self.source = study.folder, other.folder
        self.targets = {target.id for target in study.targets}
        self.new: dict[str, StudyImage] = {}
        """The other's images that come over."""
        self.usable: set[str] = set()
        """Ids of images that are, or will be, the same in both."""
        self.copied: Counter[str] = Counter()
        self.present = 0
        self.conflicts: list[tuple[str, str]] = []
        self.left_out: list[tuple[str, str]] = []
        self.notes: list[str] = []
        self.runs_missing: Counter[str] = Counter()
        self.staging = self.to / f".merge-{safe_name(socket.gethostname())}-{os.getpid()}.part"

    def run(self, progress: Progress) -> MergeReport:
        self._clear_staging()
        self._compare_studies()
        self._match_images()
        parts: tuple[tuple[str, Callable[[], None]], ...] = (
            ("images", self._images),
            ("volumes", self._volumes),
            ("true masks", self._masks),
            ("recordings", functools.partial(self._sources, "recordings")),
            ("fixations", functools.partial(self._sources, "fixations")),
            ("audit draws", self._draws),
            ("reviews", self._reviews),
            ("own words", functools.partial(self._said, WORDS_FOLDER, "own words", read_own_words_file)),
            ("wishes", functools.partial(self._said, ASKED_FOLDER, "wishes for another look", read_asked)),
        )
        try:
            for number, (name, part) in enumerate(parts):
                progress(number, len(parts), name)
                part()
        finally:
            shutil.rmtree(self.staging, ignore_errors=True)
        progress(len(parts), len(parts), "")
        self.study.refresh()
        for run_id, count in sorted(self.runs_missing.items()):
            self.notes.append(
                f"{count} reviews judge predictions of the run {run_id}, which this study does not have; it travels "
                "as an archive: gaze-insight export-run."
            )
        for leak in leaks(self.study):
            self.notes.append(
                f"The group {leak.group} now lies in several splits ({', '.join(leak.splits)}); mend that with: "
                f"gaze-insight suggest-groups {self.to} --mend-splits"
            )
        if self.copied:
            self.study.audit("merge", other=str(self.source), copied=dict(self.copied))
        return MergeReport(
            dict(self.copied),
            self.present,
            tuple(self.conflicts),
            tuple(self.left_out),
            tuple(self.notes),
        )

    def _clear_staging(self) -> None:
        """Remove what an earlier merge of this computer left that was cut off."""
        prefix = f".merge-{safe_name(socket.gethostname())}-"
        for path in self.to.glob(f"{prefix}*.part"):
            number = path.name.removeprefix(prefix).removesuffix(".part")
            if number.isdigit() and (int(number) == os.getpid() or not process_exists(int(number))):
                shutil.rmtree(path, ignore_errors=True)

    def _compare_studies(self) -> None:
        if self.study.uid != self.other.uid:
            self.notes.append(
                "The two were made as studies of their own, not copied from one; images count as the same where id and "
                "content are."
            )
        if self.study.key_fingerprint != self.other.key_fingerprint:
            self.notes.append(
                "Their pseudonyms were made with different keys: one patient may go by two names."
            )
        mine = {target.id: target for target in self.study.targets}
        for target in self.other.targets:
            if target.id not in mine:
                self.notes.append(
                    f"This study has no target {target.id!r}, so that its records are left out; to take them, add it "
                    f"and merge again: gaze-insight targets {self.to} --add {target.id}"
                )
            elif mine[target.id] != target:
                self.notes.append(f"The target {target.id!r} is described in another way in the other study.")

    # Images

    def _match_images(self) -> None:
        mine, theirs = self.study.images, self.other.images
        by_content = {one: image_id for image_id, told in _contents(mine).items() for one in told}
        contents = _contents(theirs)
        for image in theirs.values():
            own = mine.get(image.id)
            if own is not None:
                if own.sha256 != image.sha256:
                    self._conflict(
                        f"images/{image.id}", "is another image here; its records are left out, too"
                    )
                    continue
                self._say_differences(own, image)
                self.present += 1
            elif known := next((by_content[one] for one in contents[image.id] if one in by_content), None):
                self._leave(f"images/{image.id}", f"is here as {known}; its records are left out, too")
                continue
            elif self._image_fits(image):
                self.new[image.id] = image
            else:
                continue
            self.usable.add(image.id)

    def _image_fits(self, image: StudyImage) -> bool:
        """Whether an image's file is whole there, and nothing else is here in its place."""
        path = self.source / image.path
        if not path.is_file():
            self._leave(image.path, "is missing in the other study")
        elif sha256_of(path) != image.sha256:
            self._leave(image.path, "is damaged in the other study: its content has another hash")
        elif (self.to / image.path).exists() and sha256_of(self.to / image.path) != image.sha256:
            self._conflict(image.path, "is another file here")
        else:
            return True
        return False

    def _say_differences(self, own: StudyImage, image: StudyImage) -> None:
        if own == image:
            return
        fields = [
            f"{name} {mine!r} here, {theirs!r} there"
            for name, mine in dataclasses.asdict(own).items()
            if mine != (theirs := dataclasses.asdict(image)[name])
        ]
        self.notes.append(f"The image {own.id} differs and stays as it is here: {'; '.join(fields)}.")

    def _images(self) -> None:
        for image in self.new.values():
            if not (self.to / image.path).exists():
                self._copy(image.path)
            self.copied["images"] += 1
        mine = {path.name: read_manifest(path) for path in self.study.manifests()}
        before = _effective(mine)
        candidates: dict[str, list[StudyImage]] = {}
        for path in self.other.manifests():
            if path.name not in mine:
                candidates[path.name] = read_manifest(path)
            elif path.read_bytes() != (self.to / "images" / path.name).read_bytes():
                self._conflict(f"images/{path.name}", "lists other images here")
        whole = {
            name: images
            for name, images in candidates.items()
            if all(image.id in self.usable for image in images)
        }
        if not before.items() <= _effective({**mine, **whole}).items():
            # Together they would change what is known here of an image; what each one alone does not change comes.
            kept: dict[str, list[StudyImage]] = {}
            for name, images in whole.items():
                if before.items() <= _effective({**mine, **kept, name: images}).items():
                    kept[name] = images
            whole = kept
        for name in whole:
            self._copy(f"images/{name}")
        listed = _effective({**mine, **whole})
        if rest := [image for image in self.new.values() if image.id not in listed]:
            self._write_manifest(rest)

    def _write_manifest(self, images: list[StudyImage]) -> None:
        values = {"schema": SCHEMA, "images": [image_record(image) for image in images]}
        data = (json.dumps(values, indent=2, ensure_ascii=False) + "\n").encode()
        stamp = self.other.manifests()[-1].name.removeprefix("manifest-").partition("-")[0]
        # Its name follows from what is in it: merged twice, it is one.
        name = f"manifest-{stamp}-{hashlib.sha256(data).hexdigest()[:6]}.json"
        write_bytes_atomic(self.to / "images" / name, data, within=self.to)

    def _volumes(self) -> None:
        for path in _listed(self.source / "volumes", ".json"):
            name = f"volumes/{path.name}"
            if self._is_here(name, "describes another volume here", read_json):
                continue
            try:
                volume = self.other.volume(path.stem)
            except UserError as error:
                self._leave(name, str(error))
                continue
            if self._belongs(name, volume.image_ids):
                self._copy(name, "volumes")

    def _masks(self) -> None:
        for path in _listed(self.source / "masks", ".png"):
            name = f"masks/{path.name}"
            image_id, _, target_id = path.stem.partition(".")
            if self._belongs(name, [image_id], [target_id]) and not self._is_here(
                name, "is another mask here", _pixels
            ):
                if (reason := self._misfit(path, image_id)) is None:
                    self._copy(name, "true masks")
                else:
                    self._leave(name, reason)

    def _misfit(self, path: Path, image_id: str) -> str | None:
        """Say why a file is no mask of an image; None where it is one."""
        try:
            shape = decode_mask(path).shape
        except UserError:
            return "is damaged: it cannot be read as a mask"
        height, width, _ = self.other.image(image_id).shape
        if shape != (height, width):
            return f"is a mask of {shape[1]} x {shape[0]} pixels, its image has {width} x {height}"
        return None

    # Gaze

    def _sources(self, kind: str) -> None:
        parent = self.source / kind
        for folder in _folders(parent):
            name = f"{kind}/{folder.name}"
            try:
                if kind == "recordings" and needs_recovery(folder):
                    self._leave(name, "was not ended; finish it there first: gaze-insight recover")
                    continue
                image_ids, target_ids = _speaks_of(folder)
            except UserError as error:
                self._leave(name, str(error))
                continue
            if not self._belongs(name, image_ids, target_ids):
                continue
            if (self.to / name).exists():
                self._compare_folders(name)
            else:
                self._copy_folder(name)
                self.copied[kind] += 1

    def _compare_folders(self, name: str) -> None:
        mine, theirs = _hashes(self.to / name), _hashes(self.source / name)
        # Who lets held back gaze count says so in a file of its own.
        said = {
            file
            for file in {*mine, *theirs}
            if file.startswith(_OVERRULED) and (file in mine) != (file in theirs)
        }
        for file in sorted(said - mine.keys()):
            self._copy(f"{name}/{file}", "overrules")
        differing = sorted(file for file in {*mine, *theirs} - said if mine.get(file) != theirs.get(file))
        if not differing:
            self.present += 1
        elif mine.get("gaze.frames") == theirs.get("gaze.frames") and "gaze.frames" in mine:
            self.notes.append(
                f"{name} is the same recording, but {', '.join(differing)} differ (gaze detected or corrected anew in "
                "one of the two); this study keeps its own."
            )
            self.present += 1
        else:
            self._conflict(name, f"holds other contents here: {', '.join(differing)}")

    # Audits and reviews

    def _draws(self) -> None:
        for path in _listed(self.source / "audits", ".json"):
            name = f"audits/{path.name}"
            if self._is_here(name, "is another draw here", read_json):
                continue
            try:
                draw = read_draw(path)
            except UserError as error:
                self._leave(name, str(error))
                continue
            if self._belongs(name, draw.image_ids, draw.target_ids):
                self._copy(name, "audit draws")

    def _reviews(self) -> None:
        runs = set(self.other.run_ids()) - set(self.study.run_ids())
        for folder in _folders(self.source / "reviews"):
            image_id, _, target_id = folder.name.partition(".")
            if not self._belongs(f"reviews/{folder.name}", [image_id], [target_id]):
                continue
            for path in _listed(folder, ".json"):
                self._review(path, image_id, target_id, runs)

    def _review(self, path: Path, image_id: str, target_id: str, missing_runs: set[str]) -> None:
        name = path.relative_to(self.source).as_posix()
        mask, withdrawn = (f"{name[:-5]}{ending}" for ending in (".png", ".withdrawn"))
        try:
            review = read_review(path)
        except UserError as error:
            self._leave(name, str(error))
            return
        if (review.image_id, review.target_id) != (image_id, target_id):
            self._leave(name, f"is a review of {review.image_id}.{review.target_id} in the folder of another")
            return
        has_mask = (self.source / mask).exists()
        if has_mask and (reason := self._misfit(self.source / mask, image_id)) is not None:
            self._leave(mask, reason)
        elif not (self.to / name).exists():
            # The record comes last: a review is there when all of it is.
            if has_mask:
                self._copy(mask)
            if (self.source / withdrawn).exists():
                self._copy(withdrawn)
            self._copy(name, "reviews")
            if review.subject in missing_runs:
                self.runs_missing[review.subject] += 1
        elif self._same(name, read_json) and self._same(mask, _pixels):
            self.present += 1
            if (self.source / withdrawn).exists() and not (self.to / withdrawn).exists():
                self._copy(withdrawn, "withdrawals")
        else:
            self._conflict(name, "is another review here")

    # What else people said

    def _said(self, parent: str, kind: str, read: Callable[[Path], object]) -> None:
        for folder in _folders(self.source / parent):
            image_id, _, target_id = folder.name.partition(".")
            if not self._belongs(f"{parent}/{folder.name}", [image_id], [target_id]):
                continue
            for path in _listed(folder, ".json"):
                name = path.relative_to(self.source).as_posix()
                withdrawn = f"{name[:-5]}.withdrawn"
                taken_back = (self.source / withdrawn).exists() and not (self.to / withdrawn).exists()
                if self._is_here(name, "says something else here", read_json):
                    if taken_back and self._same(name, read_json):
                        self._copy(withdrawn, "withdrawals")
                    continue
                try:
                    read(path)
                except UserError as error:
                    self._leave(name, str(error))
                    continue
                # The record comes last, as a review's does.
                if taken_back:
                    self._copy(withdrawn)
                self._copy(name, kind)

    # What all of them need

    def _conflict(self, name: str, reason: str) -> None:
        self.conflicts.append((name, reason))

    def _leave(self, name: str, reason: str) -> None:
        self.left_out.append((name, reason))

    def _belongs(self, name: str, image_ids: Iterable[str], target_ids: Iterable[str] = ()) -> bool:
        """Whether all images and targets that a record speaks of are usable; else it is left out by name."""
        for image_id in image_ids:
            if image_id not in self.usable:
                known = image_id in self.other.images
                where = "that does not come over" if known else "that neither study has; it was deleted there"
                if not known and image_id in self.study.images:
                    where = "that the other study does not have"
                self._leave(name, f"speaks of the image {image_id} {where}")
                return False
        for target_id in target_ids:
            if target_id not in self.targets:
                self._leave(name, f"speaks of the target {target_id}, which this study does not have")
                return False
        return True

    def _is_here(self, name: str, conflict: str, read: Callable[[Path], Any]) -> bool:
        """Whether a file is here already; where it says something else, that is a conflict."""
        if not (self.to / name).exists():
            return False
        if self._same(name, read):
            self.present += 1
        else:
            self._conflict(name, conflict)
        return True

    def _same(self, name: str, read: Callable[[Path], Any]) -> bool:
        """Whether a file says the same in both studies, or is in neither."""
        mine, theirs = self.to / name, self.source / name
        if not mine.exists() or not theirs.exists():
            return mine.exists() == theirs.exists()
        try:
            return bool(mine.read_bytes() == theirs.read_bytes() or read(mine) == read(theirs))
        except UserError:
            return False

    def _copy(self, name: str, kind: str = "") -> None:
        with explained_os_errors(self.source / name):
            data = (self.source / name).read_bytes()
        write_bytes_atomic(self.to / name, data, within=self.to)
        if kind:
            self.copied[kind] += 1

    def _copy_folder(self, name: str) -> None:
        """Copy a folder aside, then give it its name at once: nobody ever sees a part of it."""
        target = self.to / name
        with explained_os_errors(target):
            make_folder(target.parent, self.to)
            self.staging.mkdir(exist_ok=True)
            aside = self.staging / target.name
            shutil.rmtree(aside, ignore_errors=True)
            for file in _files(self.source / name):
                copy = aside / file.relative_to(self.source / name)
                write_bytes_atomic(copy, file.read_bytes())
            aside.mkdir(exist_ok=True)
            os.rename(aside, target)


def _contents(images: Mapping[str, StudyImage]) -> dict[str, tuple[str, str]]:
    """Return what tells each image under whatever id: the hash of its source, and of its own content.

    A slice's own content is that of its whole volume: black slices of two volumes are alike to the byte.
    """
    volumes: dict[str, list[str]] = {}
    for image in images.values():
        if image.volume:
            volumes.setdefault(image.volume, []).append(f"{image.slice_index} {image.sha256}")
    whole = {
        name: hashlib.sha256("\n".join(sorted(slices)).encode()).hexdigest()
        for name, slices in volumes.items()
    }
    return {
        image.id: (
            image.came_from_sha256,
            f"{whole[image.volume]} {image.slice_index}" if image.volume else image.sha256,
        )
        for image in images.values()
    }


def _effective(manifests: dict[str, list[StudyImage]]) -> dict[str, StudyImage]:
    """Return what lists of images come to: a later one replaces what an earlier one says."""
    return {image.id: image for name in sorted(manifests) for image in manifests[name]}


def _pixels(path: Path) -> tuple[tuple[int, ...], bytes]:
    mask = decode_mask(path)
    return mask.shape, mask.tobytes()


def _speaks_of(folder: Path) -> tuple[list[str], list[str]]:
    """Return the ids of all images and targets that a recording or imported gaze is about."""
    table = folder / "fixations.csv"
    found: list[Any]
    if table.with_suffix(".json").exists():
        found = list(read_looks(table))
    else:
        found = list(read_recording(folder).placements)
    images = dict.fromkeys(one.image_id for one in found)
    return list(images), list(dict.fromkeys(one.target_id for one in found if one.target_id is not None))


def _files(folder: Path) -> Iterator[Path]:
    for path in sorted(folder.rglob("*")):
        if path.is_file() and path.name[0] != ".":
            yield path


def _hashes(folder: Path) -> dict[str, str]:
    return {path.relative_to(folder).as_posix(): sha256_of(path) for path in _files(folder)}


def _listed(folder: Path, ending: str) -> list[Path]:
    with explained_os_errors(folder), contextlib.suppress(FileNotFoundError):
        return sorted(path for path in folder.iterdir() if path.suffix == ending and path.name[0] != ".")
    return []


def _folders(folder: Path) -> list[Path]:
    with explained_os_errors(folder), contextlib.suppress(FileNotFoundError):
        return sorted(path for path in folder.iterdir() if path.is_dir() and path.name[0] != ".")
    return []
