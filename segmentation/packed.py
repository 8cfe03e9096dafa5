"""A packed training set, as a GPU server has it: its study folder, whose images are ready for the networks.

``gaze-insight pack`` writes a zip that unpacks to a minimal study: ``study.json``, ``training_set.json`` and
``training_set.safetensors`` (what `segmentation.dataset.load_training_set` makes of the whole study),
``runs/<id>/spec.json`` with ``reviews.json`` (`segmentation.learned_reviews`), and where the run begins with them
``image_encoder/`` and the run of its warm start. Training reads these alone, so that it needs nothing of what read
images, gaze and explanations. See docs/adr/0018.

Never imports torch.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from gaze_capture.errors import UserError
from gaze_capture.storage import folder_in_place, read_json
from segmentation.archives import Kind, check_space, opened
from segmentation.job import RunSpec
from segmentation.learned_reviews import LEARNED_NAME
from segmentation.runs import RUN_ID, RunFolder
from segmentation.study import PACKED, Study

ABOUT = PACKED
ARRAYS = "training_set.safetensors"
ENCODER = "image_encoder"

_RUN = f"runs/{RUN_ID}"
PACK = Kind(
    "gaze-insight-training-set",
    1,
    "a packed training set",
    "Pack the study again",
    {
        r"study\.json": 1 << 20,
        r"training_set\.json": 1 << 28,
        r"training_set\.safetensors": 1 << 40,
        rf"{ENCODER}/[A-Za-z0-9][\w.-]*\.safetensors": 1 << 36,
        rf"{ENCODER}/[A-Za-z0-9][\w.-]*\.json": 1 << 26,
        rf"{_RUN}/spec\.json": 1 << 20,
        rf"{_RUN}/{re.escape(LEARNED_NAME)}": 1 << 26,
        rf"{_RUN}/checkpoints/\d{{1,12}}/state\.json": 1 << 26,
        rf"{_RUN}/checkpoints/\d{{1,12}}/\w+\.safetensors": 1 << 36,
    },
)

MAY_DIFFER = frozenset(
    {
        "preset", "device", "batch_size", "accumulate", "iterations", "max_minutes", "student_widths",
        "teacher_widths", "text_heads", "fusion_scales", "optimiser", "learning_rate", "final_learning_rate",
        "weight_decay", "warmup", "ema_decay", "precision", "augmentation", "data_on_device", "compile",
        "dice_weight", "views", "cutmix_share", "afc_weight", "cwc_weight", "cwc_confidence", "consistency_ramp",
        "darm_share", "darm_every", "darm_from", "darm_label", "cwc_logit_scale", "afc_rectified", "text_strength",
        "text_strength_fixed", "text_dropout", "text_learning_rate", "teacher_levels", "student_levels",
        "level_networks", "level_consistency", "level_consistency_weight", "track_weight", "notes", "norm",
        "checkpoint_steps",
    }
)  # fmt: skip
"""What another run on the same pack may choose for itself; all else may have decided what was packed."""


def about_pack(study: Study) -> dict[str, Any]:
    """Return what a packed training set says of itself.

    Raises
    ------
    UserError
        If its file is missing or damaged.
    """
    path = study.folder / ABOUT
    values = read_json(path)
    if not isinstance(values, dict) or not isinstance(values.get("spec"), dict):
        raise UserError(f"{path} is damaged; unpack the training set again.")
    return values


def check_spec(study: Study, spec: RunSpec) -> None:
    """Raise UserError where a run wants to learn from something else than what was packed."""
    path = study.folder / ABOUT
    packed = RunSpec.from_json(about_pack(study)["spec"], str(path)).to_json()
    free = set(MAY_DIFFER)
    if not spec.holdout and spec.text != "shuffled":
        free.add("seed")
    wanted = spec.to_json()
    other = [name for name in wanted if name not in free and wanted[name] != packed[name]]
    if other:
        name = other[0]
        raise UserError(
            f"The training set in {study.folder} was packed for {name} = {packed[name]!r}, and a run with "
            f"{wanted[name]!r} would read something else of the study; pack it again for that: gaze-insight pack."
        )


def packed_encoder(study: Study) -> Path | None:
    """Return the folder of the pretrained encoder that a packed run begins with, if it does."""
    folder = study.folder / ENCODER
    return folder if study.is_packed() and folder.is_dir() else None


def packed_run(study: Study) -> RunFolder:
    """Return the run that a training set was packed for.

    Raises
    ------
    UserError
        If the study is none, or is damaged.
    """
    name = about_pack(study).get("run")
    run = RunFolder(study.runs_folder / str(name))
    if not isinstance(name, str) or name not in study.run_ids():
        raise UserError(f"{study.folder} is damaged: the run it was packed for is missing; unpack it again.")
    return run


def unpack(path: Path, folder: Path) -> Study:
    """Unpack a training set into a new or empty folder; one that holds this very training set is taken as it is.

    Raises
    ------
    UserError
        If it is none or damaged, the folder holds anything else, or the disk is full; nothing is left behind then.
    """
    path, folder = Path(path), Path(folder).absolute()
    with opened(PACK, path) as archive:
        if (folder / ABOUT).exists():
            study = Study.open(folder)
            if about_pack(study).get("id") != archive.about.get("id"):
                raise UserError(f"{folder} holds another training set than {path}; choose another folder.")
            return study
        missing = {"study.json", ABOUT, ARRAYS} - archive.sizes.keys()
        if missing:
            raise UserError(f"{path} is not whole: it lacks {min(missing)}. Pack the study again.")
        parent = next(one for one in folder.parents if one.exists())
        check_space(path, archive.sizes, parent)
        with folder_in_place(folder) as made:
            archive.copy(made)
            try:
                packed_run(Study.open(made))
            except UserError as error:
                raise UserError(str(error).replace(str(made), str(path))) from None
    return Study.open(folder)
