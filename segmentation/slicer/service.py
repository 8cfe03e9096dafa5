"""What 3D Slicer is told of a study and its student, and what becomes of what it sends; HTTP is elsewhere."""

from __future__ import annotations

import hashlib
import itertools
import secrets
import shutil
import tempfile
import threading
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from gaze_capture.errors import UserError
from segmentation import steps
from segmentation.doubt import DoubtIndex
from segmentation.images import read_stored
from segmentation.import_options import ImportOptions
from segmentation.job import JobEvent
from segmentation.mask_choice import Unit, unit_names, unit_of
from segmentation.mask_writers.nifti import volume_bytes
from segmentation.records import StudyImage, Target, new_id, safe_name
from segmentation.review_queue import QueueItem, review_queue, reviewed_run
from segmentation.runs import RunFolder, latest_run
from segmentation.slicer.submission import (
    Shown,
    Submission,
    disentangled,
    ending_of,
    inside,
    read_drawn,
    standing_mask,
)
from segmentation.study import Study

STRATEGY = "doubt"
MOST_HANDED_OUT = 8
_OWN_SEGMENTS = ("background", "foreground_scribbles", "background_scribbles")
"""Segments that the extension makes, and leaves out, itself."""
_LUMA = np.array([0.299, 0.587, 0.114], np.float32)


class NotFound(UserError):
    """Something that a client asked for by name and that is not there."""


class _Closing(Exception):
    """Ends a prediction."""


@dataclass(frozen=True)
class ServedFile:
    """A file that a client is given."""

    name: str
    data: bytes
    params: dict[str, Any] = field(default_factory=dict)


@dataclass
class _HandedOut:
    """What a client has of a picture or volume."""

    of: tuple[Path, str]
    """The study's folder, and the unit's id."""
    since: float = field(default_factory=time.monotonic)
    """When it was first given a mask, or last sent its own."""
    masks: dict[str, Sequence[Shown]] = field(default_factory=dict)
    """By target, slice by slice."""


class SlicerService:
    """A study, a run's student, and the annotator in whose name labels come in; one call at a time.

    Parameters
    ----------
    run_id : by default the newest that has predicted, else the latest that finished
    split : where volumes go that are sent
    device : what predicts what has no prediction yet
    empty : whether an empty slice says that the target is not there, also where nobody had marked anything

    Raises
    ------
    UserError
        If there is no such run, or none of its targets is in the study any more.
    """

    def __init__(
        self,
        study: Study,
        annotator: str,
        *,
        run_id: str | None = None,
        split: str = "train",
        device: str | None = None,
        empty: bool = False,
    ) -> None:
        self.study, self.annotator = study, annotator
        self.split, self.device, self.empty = split, device, empty
        self.run = latest_run(study, run_id or reviewed_run(study))
        learned = RunFolder(study.runs_folder / self.run).spec.targets
        known = {target.id: target for target in study.targets}
        # What lies in another comes after it: of segments that overlap, Slicer keeps the last where it has to choose.
        ordered = sorted(known.values(), key=lambda target: len(inside(known, target.id)))
        self.targets = {target.id: target for target in ordered if target.id in learned}
        if not self.targets:
            raise UserError(
                f"The run {self.run} segments none of the study's targets; name another with --run."
            )
        self.reviews = self.sent = 0
        self.closing = threading.Event()
        """Once set, a prediction at work ends after the images it is at."""
        self._lock = threading.Lock()
        self._doubt = DoubtIndex(study)
        self._temporary = tempfile.TemporaryDirectory(prefix="gaze-insight-slicer-")
        self._folder = Path(self._temporary.name)
        self._scratch: Study | None = None
        self._sessions: dict[str, tuple[Study, str]] = {}
        self._sent: dict[str, str] = {}
        """Unit of the study by the name that a client gave to what it sent."""
        self._handed_out: dict[str, _HandedOut] = {}
        """What clients have, by their names of it; the latest few."""
        self._latest: tuple[tuple[str, ...], ServedFile] | None = None

    def close(self) -> None:
        """Wait for the call at work, if any, and remove temporary files."""
        self.closing.set()
        with self._lock:
            self._temporary.cleanup()

    def label_of(self, target: Target) -> str:
        """Return what a target's segment is called: its name, or its id where names cannot be told apart."""
        names = [one.name.casefold() for one in self.study.targets]
        plain = names.count(target.name.casefold()) == 1 and target.name.casefold() not in _OWN_SEGMENTS
        return target.name if plain else target.id

    def info(self) -> dict[str, Any]:
        """Return what the extension builds its window of."""
        with self._lock:
            self.study.refresh()
            simulated = self.study.simulated_from()
            told = f" Gaze of this study was simulated from {simulated}." if simulated else ""
            return {
                "name": "Gaze Insight",
                "description": f"The student of {self.run} in the study {self.study.name}.{told} Research use only.",
                "version": "1",
                "labels": [self.label_of(target) for target in self.targets.values()],
                # One network gives all of them; by name, since targets may lie inside each other.
                "models": {
                    target.id: {
                        "type": "segmentation",
                        "labels": [self.label_of(target)],
                        "dimension": 2,
                        "description": f"{target.name}: the mask that stands, else the student's of {self.run}",
                        "config": {},
                    }
                    for target in self.targets.values()
                },
                "trainers": {},
                "strategies": {STRATEGY: {"description": "the most doubtful mask first", "config": {}}},
                "scoring": {},
                "train_stats": {},
                "datastore": self._counts(),
            }

    def datastore(self, output: str = "") -> dict[str, Any]:
        """Return how many images and volumes there are, or (``all``) which, and whether they were reviewed."""
        with self._lock:
            self.study.refresh()
            if output != "all":
                return self._counts()
            reviewed = self._reviewed_units()
            return {
                "name": self.study.name,
                "objects": {
                    unit_id: {
                        "image": {"ext": ".nii.gz", "info": {"name": f"{name}.nii.gz"}},
                        "labels": {"final": {"ext": ".nii.gz", "info": {}}} if unit_id in reviewed else {},
                    }
                    for unit_id, name in unit_names(self.study).items()
                },
            }

    def _counts(self) -> dict[str, Any]:
        units = unit_names(self.study)
        return {"total": len(units), "completed": len(self._reviewed_units() & units.keys())}

    def _reviewed_units(self) -> set[str]:
        found = (self.study.images.get(image_id) for image_id, _ in self.study.reviewed())
        return {image.volume or image.id for image in found if image is not None}

    def image(self, name: str) -> ServedFile:
        """Return a picture, in grey, or a volume, in real values, as NIfTI."""
        with self._lock:
            self.study.refresh()
            # Anew, with no mask yet.
            self._handed_out.pop(name, None)
            return self._file_of(self._unit(name))

    def next_sample(self, strategy: str) -> dict[str, Any]:
        """Return what holds the most doubtful mask that waits, else what has none yet; nothing where all is judged.

        A volume does not come again for a target of which the annotator has judged a slice.
        """
        if strategy != STRATEGY:
            raise NotFound(f"There is no strategy {strategy!r}; the study's own is {STRATEGY}.")
        with self._lock:
            self.study.refresh()
            images = self.study.images
            judged = {
                (images[image_id].volume, target_id)
                for (image_id, target_id), review in self.study.reviewed().items()
                if review.annotator == self.annotator and image_id in images and images[image_id].volume
            }
            waiting = review_queue(self.study, run_id=self.run, index=self._doubt)
            for item in itertools.chain(waiting, self._without_mask()):
                if (images[item.image_id].volume, item.target_id) in judged:
                    continue
                if item.target_id in self.targets:
                    unit = self._unit(item.image_id)
                    given = self._file_of(unit)
                    self._handed_out.pop(unit.id, None)
                    return {
                        "id": unit.id,
                        "name": given.name,
                        # Slicer keeps what it loaded, and would show an old file of the same name without it.
                        "checksum": f"SHA256:{hashlib.sha256(given.data).hexdigest()}",
                        "image": item.image_id,
                        "target": item.target_id,
                        "doubt": round(item.doubt.score, 4),
                        "reasons": list(item.doubt.reasons),
                    }
            return {}

    def _file_of(self, unit: Unit) -> ServedFile:
        """Return a unit as NIfTI; the latest is kept, since it is fetched right after its sum was told."""
        key = (unit.id, *(image.sha256 for image in unit.images))
        if self._latest is None or self._latest[0] != key:
            self._latest = key, _as_nifti(self.study, unit)
        return self._latest[1]

    def _without_mask(self) -> Iterator[QueueItem]:
        yield from review_queue(self.study, run_id=self.run, state="empty", index=self._doubt)

    def infer(self, model: str, name: str, session_id: str = "") -> ServedFile:
        """Return a target's mask of a picture or volume: a reviewer's where there is one, else the student's.

        What the student has not seen yet it predicts; of a session nothing stays in the study.
        """
        target = self.targets.get(model)
        if target is None:
            raise NotFound(f"There is no model {model!r}; the run {self.run} has: {', '.join(self.targets)}.")
        with self._lock:
            self.study.refresh()
            if session_id:
                study, unit = self._session(session_id)
            else:
                study, unit = self.study, self._unit(name)
            self._predict(study, unit, target)
            reviewed = study.reviewed()
            height, width = unit.shape
            voxels = np.zeros((width, height, len(unit.images)), np.uint8)
            given = []
            for number, image in enumerate(unit.images):
                judged = (image.id, target.id) in reviewed
                mask, began = standing_mask(study, self.run, image.id, target.id, reviewed=judged)
                if mask is not None:
                    voxels[:, :, number] = mask.T
                given.append(Shown.of(voxels[:, :, number].T > 0, began))
            self._handed_out_of(name, study, unit).masks[target.id] = given
            params = {"label_names": {self.label_of(target): 1}, "run": self.run, "target": target.id}
            return ServedFile(f"label-{secrets.token_hex(4)}.nii.gz", volume_bytes(voxels, unit), params)

    def _predict(self, study: Study, unit: Unit, target: Target) -> None:
        known = study.prediction_keys(self.run)
        waiting = [image.id for image in unit.images if (image.id, target.id) not in known]
        if not waiting:
            return

        def heed(event: JobEvent) -> None:
            if self.closing.is_set():
                raise _Closing

        try:
            result = steps.predict(study, self.run, images=waiting, device=self.device, on_event=heed)
        except _Closing:
            raise UserError("The server is closing; what was submitted is stored.") from None
        if result.failed:
            raise UserError(result.failed[0]["reason"])

    def send(self, name: str, filename: str, data: bytes) -> dict[str, Any]:
        """Take a volume into the study, under the client's name, unless it has it already."""
        with self._lock:
            self.study.refresh()
            image, new = self._import(self.study, name, filename, data)
            self._sent[name] = unit_id = image.volume or image.id
            self.sent += new
            return {"image": unit_id, "new": new}

    def _import(self, study: Study, name: str, filename: str, data: bytes) -> tuple[StudyImage, bool]:
        """Return the first slice of what came in, and whether the study had it not."""
        path = self._received(f"{safe_name(name)}{ending_of(filename)}", data)
        try:
            report = steps.import_images(study, [path], options=ImportOptions(split=self.split))
        except UserError as error:
            raise UserError(_without(path, str(error))) from None
        finally:
            path.unlink()
        return study.image((*report.imported, *report.held)[0]), bool(report.imported)

    def open_session(self, filename: str, data: bytes) -> dict[str, Any]:
        """Take a volume to be segmented that does not become part of the study."""
        with self._lock:
            if self._scratch is None:
                self._scratch = self._new_scratch()
            session_id = new_id("session-")
            image, _ = self._import(self._scratch, session_id, filename, data)
            # What the study has already is shown as it stands there.
            same = [
                one for one in self.study.images.values() if one.came_from_sha256 == image.came_from_sha256
            ]
            self._sessions[session_id] = (self.study, same[0].id) if same else (self._scratch, image.id)
            return {"session_id": session_id, "session_info": {"name": session_id}}

    def _new_scratch(self) -> Study:
        """Make a study for sessions, with what the run needs to predict."""
        run = RunFolder(self.study.runs_folder / self.run)
        whole = sorted(path.parent for path in (run.path / "checkpoints").glob("[0-9]*/state.json"))
        if not whole:
            raise UserError(f"The run {self.run} has no checkpoint to predict with; name another with --run.")
        scratch = Study.create(self._folder / "sessions", targets=self.study.targets)
        copy = scratch.runs_folder / self.run
        shutil.copytree(whole[-1], copy / "checkpoints" / whole[-1].name)
        shutil.copy(run.path / "spec.json", copy)
        return scratch

    def session(self, session_id: str, *, close: bool = False) -> dict[str, Any]:
        """Return what is known of a session, and forget it where it is closed."""
        with self._lock:
            self._session(session_id)
            if close:
                del self._sessions[session_id]
            return {"name": session_id}

    def _session(self, session_id: str) -> tuple[Study, Unit]:
        if session_id not in self._sessions:
            raise NotFound(f"There is no session {session_id!r} any more; send the volume again.")
        study, image_id = self._sessions[session_id]
        return study, _unit(study, image_id)

    def submit(self, name: str, filename: str, data: bytes, params: dict[str, Any]) -> dict[str, Any]:
        """Take a label map as the annotator's reviews, and return what it came to."""
        segments = params.get("label_info")
        named = (
            [str(one.get("name")) for one in segments if isinstance(one, dict)]
            if isinstance(segments, list)
            else []
        )
        called = {target.id.casefold(): target.id for target in self.targets.values()}
        called |= {self.label_of(target).casefold(): target.id for target in self.targets.values()}
        with self._lock:
            self.study.refresh()
            unit = self._unit(name)
            path = self._received(f"label{ending_of(filename)}", data)
            handed = self._handed_out.get(name) or self._handed_out_of(name, self.study, unit)
            submission = Submission(self.study, self.run, self.annotator, self.empty)
            has: dict[str, Sequence[Shown]] = {}
            try:
                drawn = disentangled(read_drawn(path, unit, called, named), self.targets, handed.masks)
                for target_id, numbers in drawn.labels.items():
                    now = submission.judge(unit, self.targets[target_id], drawn, handed.masks.get(target_id))
                    if numbers or target_id in handed.masks:
                        has[target_id] = now
            except UserError as error:
                raise UserError(_without(path, str(error))) from None
            finally:
                path.unlink()
            moment = time.monotonic()
            submission.store(moment - handed.since)
            # The client still has them, and may change them and send them again.
            handed.masks.update(has)
            handed.since = moment
            counts = submission.counts
            self.reviews += counts["accepted"] + counts["edited"]
            self.study.audit("slicer-label", annotator=self.annotator, image=unit.id, run=self.run, **counts)
            return {"image": unit.id, "label": unit.id, **counts, "left_out": list(drawn.left_out)}

    # What clients call things

    def _unit(self, name: str) -> Unit:
        """Return the picture or volume that a client means: by its id, by what it sent, or by its name."""
        return _unit(self.study, self._sent.get(name, name))

    def _handed_out_of(self, name: str, study: Study, unit: Unit) -> _HandedOut:
        """Return what a client has by this name, anew where that was something else."""
        handed = self._handed_out.pop(name, None)
        if handed is None or handed.of != (study.folder, unit.id):
            handed = _HandedOut((study.folder, unit.id))
        self._handed_out[name] = handed
        if len(self._handed_out) > MOST_HANDED_OUT:
            del self._handed_out[next(iter(self._handed_out))]
        return handed

    def _received(self, name: str, data: bytes) -> Path:
        path = self._folder / name
        path.write_bytes(data)
        return path


def _unit(study: Study, name: str) -> Unit:
    names = unit_names(study)
    image = study.images.get(name)
    if image is None:
        called = name.casefold().removesuffix(".nii.gz")
        unit_id = (
            name if name in names else next((one for one in names if names[one].casefold() == called), None)
        )
        if unit_id is None:
            raise NotFound(f"The study has no image {name!r}; send it first, or take the next sample.")
        image = study.images[study.volumes[unit_id][0]] if unit_id in study.volumes else study.images[unit_id]
    return unit_of(study, image, names[image.volume or image.id], study.volume_ids())


def _as_nifti(study: Study, unit: Unit) -> ServedFile:
    height, width = unit.shape
    values: npt.NDArray[Any] = np.empty((width, height, len(unit.images)), np.float32)
    for number, image in enumerate(unit.images):
        real = image.intensity.real(read_stored(study.image_path(image)))
        # Slicer's segment editor draws on volumes of one value a voxel alone.
        values[:, :, number] = (real[:, :, 0] if real.shape[2] == 1 else np.rint(real @ _LUMA)).T
    if np.abs(values).max() < 1 << 15 and np.array_equal(np.rint(values), values):
        values = values.astype(np.int16)
    return ServedFile(f"{unit.name}.nii.gz", volume_bytes(values, unit, effort=1))


def _without(path: Path, sentence: str) -> str:
    """Return a sentence that names a temporary file by its name alone."""
    return sentence.replace(str(path), path.name).replace(str(path.parent), "what was sent")
