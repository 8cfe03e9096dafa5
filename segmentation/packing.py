"""Packing a training set for a GPU server, and reading it there (`segmentation.packed` says what it is)."""

from __future__ import annotations

import dataclasses
import hashlib
import re
import secrets
import shutil
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import safetensors
import safetensors.numpy

from gaze_capture.errors import UserError
from gaze_capture.storage import explained_os_errors, write_json_atomic
from segmentation.archives import write_archive
from segmentation.dataset import TrainingSet, load_training_set
from segmentation.job import RunSpec
from segmentation.learned_reviews import learned_now, note
from segmentation.methods import reads_text
from segmentation.packed import ABOUT, ARRAYS, ENCODER, PACK, about_pack, check_spec
from segmentation.presets import checked
from segmentation.records import group_of, new_id
from segmentation.run_archive import files_of_run
from segmentation.runs import RunFolder, completed
from segmentation.study import Study
from segmentation.study_folder import exists
from segmentation.text.embedding import text_of
from segmentation.text.encoder import Encoder
from segmentation.text.folder_encoder import weights_hash
from segmentation.text.phrases import PhraseTable
from segmentation.vlm_folder import check_model_folder

HOLDS = (
    "the images that the run learns from, resized and normalised as the networks read them",
    "their labels: level masks, reviewed masks, the word that a target is absent",
    "where the run asks for them, gaze tracks as maps, and true masks of images set apart",
    "the vectors of what is said of each image, with the names of target and attribute",
    "each image's id, shape, modality and a hash of its group",
    "the run's spec, and the networks or the pretrained encoder that it begins with",
    "which reviews the labels are of, as hashes that the study alone can tell, and what giving them took",
)
HOLDS_NOT = (
    "names of files, patients, annotators and machines",
    "recordings, fixations and other raw gaze",
    "the words of explanations",
    "images of other splits, and images without a label",
)


@dataclass(frozen=True)
class PackReport:
    """What was packed."""

    file: str
    run: str
    images: int
    held_out: int
    strong_labels: int
    explained: int
    size_px: int
    bytes: int


def pack(
    study: Study,
    spec: RunSpec,
    path: Path,
    *,
    encoder: Encoder | None = None,
    encoder_folder: Path | None = None,
    image_encoder_folder: Path | None = None,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> PackReport:
    """Write all that training by a spec reads of a study into one file; the study stays as it is.

    The folders are where this computer has the encoders of text and images, as for `segmentation.training.train`.

    Raises
    ------
    UserError
        If nothing can be learned from the study, an encoder or an earlier run that the spec names is missing, the file
        is there already, or the disk is full; nothing is left behind then.
    """
    path = Path(path).absolute()
    if exists(path):
        raise UserError(f"{path} is there already; choose another name.")
    if study.is_packed():
        raise UserError(f"{study.folder} is a packed training set already; copy its file instead.")
    spec = checked(completed(study, spec))
    text = text_of(study, spec, encoder, encoder_folder) if reads_text(spec) else None
    # Before anything is read, as in training.
    learned = learned_now(study, spec)
    data = load_training_set(study, spec, text, progress)
    run_id, salt = new_id("run-"), secrets.token_hex(16)
    with explained_os_errors(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix=f".{path.name}.", suffix=".part", dir=path.parent) as scratch:
            folder = Path(scratch) / "study"
            targets = [study.target(target_id) for target_id in spec.targets]
            Study.create(folder, "Packed training set", targets)
            arrays, values = _parts(data)
            try:
                safetensors.numpy.save_file(arrays, folder / ARRAYS)
            except safetensors.SafetensorError as error:
                raise UserError(
                    f"{path} could not be written ({error}); free some space, or choose another folder."
                ) from None
            about = {
                "id": secrets.token_hex(16),
                "run": run_id,
                "spec": spec.to_json(),
                "set": values,
                "images": _listed(study, spec, data, salt),
                "holds": HOLDS,
                "holds_not": HOLDS_NOT,
            }
            write_json_atomic(folder / ABOUT, about)
            write_json_atomic(folder / "runs" / run_id / "spec.json", spec.to_json())
            note(RunFolder(folder / "runs" / run_id), learned)
            if spec.warm_start:
                _copy_run(study, spec.warm_start, folder)
            if spec.encoder:
                _copy_encoder(spec, image_encoder_folder, folder / ENCODER)
            names = sorted(one.relative_to(folder).as_posix() for one in folder.rglob("*") if one.is_file())
            told = {name: about[name] for name in ("id", "run", "spec", "holds", "holds_not")}
            write_archive(PACK, path, f"pack-{run_id}", folder, names, told)
    return PackReport(
        file=str(path),
        run=run_id,
        images=len(data),
        held_out=len(data.held_images),
        strong_labels=data.strong,
        explained=data.phrases.explained,
        size_px=spec.image_size_px,
        bytes=path.stat().st_size,
    )


def load_packed(study: Study, spec: RunSpec) -> TrainingSet:
    """Return a packed training set, which is what `load_training_set` gave when it was packed.

    Raises
    ------
    UserError
        If it was packed for a spec that reads something else, or is damaged.
    """
    check_spec(study, spec)
    path = study.folder / ARRAYS
    try:
        arrays: dict[str, Any] = safetensors.numpy.load_file(path)
        values = about_pack(study)["set"]
        phrases = PhraseTable(
            arrays.pop("phrases.rows"),
            arrays.pop("phrases.vectors"),
            tuple(tuple((target, name) for target, name in one) for one in values.pop("phrases.names")),
        )
        values = {name: tuple(one) if isinstance(one, list) else one for name, one in values.items()}
        data = TrainingSet(phrases=phrases, **arrays, **values)
        whole = len(data.ids) == len(data.images) == len(data.levels) == len(phrases.rows) == len(data.tracks)
    except (OSError, KeyError, TypeError, ValueError, AttributeError, safetensors.SafetensorError):
        whole = False
    if not whole:
        raise UserError(f"{path} is damaged; unpack the training set again.")
    return data


def _parts(data: TrainingSet) -> tuple[dict[str, Any], dict[str, Any]]:
    """Take a training set apart into its arrays and all else, JSON-ready."""
    fields = {one.name: getattr(data, one.name) for one in dataclasses.fields(data) if one.name != "phrases"}
    fields |= {
        f"phrases.{one.name}": getattr(data.phrases, one.name) for one in dataclasses.fields(data.phrases)
    }
    arrays = {name: np.ascontiguousarray(one) for name, one in fields.items() if isinstance(one, np.ndarray)}
    return arrays, {name: one for name, one in fields.items() if name not in arrays}


def _listed(study: Study, spec: RunSpec, data: TrainingSet, salt: str) -> list[dict[str, Any]]:
    learned = set(data.ids)
    listed = []
    for image in study.images_of(spec.split):
        if image.id in learned:
            # The salt is forgotten: nobody can try names of patients against the hash.
            group = hashlib.sha256(f"{salt} {group_of(image)}".encode()).hexdigest()[:16]
            listed.append({"id": image.id, "shape": image.shape, "modality": image.modality, "group": group})
    return listed


def _copy_run(study: Study, run_id: str, folder: Path) -> None:
    """Bring along what an earlier run learned."""
    if run_id not in study.run_ids():
        raise UserError(f"The study has no run {run_id!r} to begin with; name one of its runs as warm_start.")
    source = RunFolder(study.runs_folder / run_id)
    names = [
        name
        for name in files_of_run(source.path, optimiser=False)
        if name == "spec.json" or name.startswith("checkpoints/")
    ]
    if len(names) < 2:
        raise UserError(
            f"The run {run_id} has learned nothing to begin with yet: it has no checkpoint. Train it first."
        )
    for name in names:
        to = folder / "runs" / run_id / name
        to.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(source.path / name, to)


def _copy_encoder(spec: RunSpec, folder: Path | None, to: Path) -> None:
    """Bring along the pretrained encoder."""
    if folder is None or not folder.is_dir():
        raise UserError(
            f"The encoder {spec.encoder} is not on this computer; say where it lies: gaze-insight pack --encoder DIR"
        )
    check_model_folder(folder)
    if weights_hash(folder) != spec.encoder_sha256:
        raise UserError(f"{folder} does not hold the encoder {spec.encoder} of the spec: its weights differ.")
    to.mkdir()
    for path in sorted(folder.iterdir()):
        if re.fullmatch(r"[A-Za-z0-9][\w.-]*\.(safetensors|json)", path.name):
            shutil.copyfile(path, to / path.name)
