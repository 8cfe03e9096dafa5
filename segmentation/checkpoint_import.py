"""Checkpoints of the public code of From Gaze to Insight (a ``.pth`` of jingkunchen/FGI) become runs that can predict.

Names and shapes are those of its models/unet.py and trainers/base.py as published: ``model_state_dicts`` holds the
weights of the teacher and the student. Only tensors and plain values are read; a pickle that asks for anything else is
refused before it is followed.
"""

from __future__ import annotations

import pickle
import re
import shutil
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from gaze_capture.errors import UserError
from gaze_capture.storage import explained_os_errors, sha256_of, write_bytes_atomic
from segmentation.checkpoints import save_checkpoint
from segmentation.job import JobEvent
from segmentation.presets import preset
from segmentation.public_network import SIDE, PublicStudent, PublicTeacher
from segmentation.runs import create_run
from segmentation.study import Study

NOT_IT = "it is no checkpoint of the public code of From Gaze to Insight"


def import_checkpoint(
    study: Study, path: Path, *, run_id: str | None = None, target: str | None = None
) -> dict[str, Any]:
    """Make a run from a checkpoint of the public code; its student, and its teacher where there is one, can predict.

    Parameters
    ----------
    run_id : what the run is called; by default it is drawn as for any other
    target : which target it segments; may be left out in a study of one

    Returns
    -------
    dict
        run, networks, channels, iteration and target.

    Raises
    ------
    UserError
        If the file is damaged, cut short, of another architecture, or asks for code to be run; nothing is made then.
    """
    target = _target(study, target)
    values = _read(Path(path))
    student, teacher = _networks(values, Path(path))
    with torch.random.fork_rng(devices=[]):
        networks: dict[str, nn.Module] = {}
        weights = _converted(student, STUDENT_NAMES, path)
        channels = _inputs(weights, "encoder.0.0.weight", path)
        if channels not in (1, 3):
            raise UserError(
                f"{path}: the student reads images of {channels} channels; only 1 and 3 are known."
            )
        networks["student"] = _filled(PublicStudent(channels), weights, path)
        text_width = 0
        if teacher is not None:
            weights = _converted(teacher, TEACHER_NAMES, path)
            text_width = _inputs(weights, "fusions.0.text.weight", path)
            networks["teacher"] = _filled(PublicTeacher(channels, text_width), weights, path)
    iteration = values.get("iteration")
    step = iteration if isinstance(iteration, int) and iteration > 0 else 0
    spec = preset(
        "gaze-to-insight" if teacher is not None else "partial",
        "reference",
        targets=(target,),
        architecture="fgi-public" if channels == 3 else "fgi-public-grey",
        image_size_px=SIDE,
        notes={"imported from": Path(path).name, "sha256": sha256_of(Path(path))},
    )
    run = create_run(study, spec, run_id)
    try:
        state = {"device": "cpu", "precision": "fp32", "text_width": text_width, "predicts": "student"}
        save_checkpoint(run, step, networks, None, state)
        done = JobEvent(run.id, "done", step, step, time.time(), {"iterations": step, "imported": True})
        write_bytes_atomic(run.events_path, (done.to_line() + "\n").encode())
    except BaseException:
        shutil.rmtree(run.path, ignore_errors=True)
        raise
    return {
        "run": run.id,
        "networks": list(networks),
        "channels": channels,
        "iteration": step,
        "target": target,
    }


def _target(study: Study, target: str | None) -> str:
    if target is not None:
        return study.target(target).id
    if len(study.targets) > 1:
        names = ", ".join(one.id for one in study.targets)
        raise UserError(f"Say which target the checkpoint segments: --target ID, one of {names}.")
    return study.targets[0].id


def _read(path: Path) -> dict[str, Any]:
    """Return what a file holds, reading tensors and plain values alone."""
    if not path.is_file():
        raise UserError(
            f"There is no file {path}; give a checkpoint of the public code, such as model_best.pth."
        )
    with explained_os_errors(path), open(path, "rb") as stream:
        if not stream.read(1):
            raise UserError(f"{path} is empty (0 bytes); copy it again.")
    try:
        # The best score is a NumPy number in files as the public code writes them.
        number = np.float64(0)
        needed: list[Any] = [number.__reduce__()[0], np.dtype, type(number.dtype), type(np.float32(0).dtype)]
        with torch.serialization.safe_globals(needed):
            values = torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        if re.search(r"GLOBAL|[Gg]lobal|class|instruction", str(error).partition("\n")[2] or str(error)):
            raise UserError(
                f"{path} is refused: it is a pickle that asks for more than weights, and reading that could run any "
                "program; save its state_dict alone and import that."
            ) from None
        raise UserError(f"{path} is damaged or cut short, or {NOT_IT}; copy it again.") from None
    except MemoryError:
        raise UserError(f"Memory does not suffice to read {path}.") from None
    except Exception:
        raise UserError(f"{path} is damaged or cut short, or {NOT_IT}; copy it again.") from None
    if not isinstance(values, dict):
        raise UserError(f"{path} cannot be imported: {NOT_IT}.")
    return values


def _networks(
    values: Mapping[str, Any], path: Path
) -> tuple[Mapping[str, Tensor], Mapping[str, Tensor] | None]:
    """Return the weights of the student and, where it is there, of the teacher."""
    found = values.get("model_state_dicts", values.get("state_dict", values))
    states = [
        {str(name).removeprefix("module."): one for name, one in state.items()}
        for state in (found if isinstance(found, list) else [found])
        if isinstance(state, dict)
    ]
    students = [state for state in states if any(name.startswith("student_adapter_") for name in state)]
    teachers = [state for state in states if any(name.startswith("fusion_") for name in state)]
    if len(students) != 1 or len(teachers) > 1:
        raise UserError(f"{path} cannot be imported: {NOT_IT}, or its student is missing.")
    return students[0], teachers[0] if teachers else None


def _unet_names() -> Iterator[tuple[str, str]]:
    """Yield a beginning of their names and ours, of what both networks have."""
    blocks = [("encoder.conv_0", "encoder.0")]
    blocks += [(f"encoder.down_{scale}.convs", f"encoder.{scale}") for scale in range(1, 5)]
    for scale in range(4):
        yield f"encoder.upcat_{scale + 1}.upsample.deconv.", f"rise.{scale}."
        blocks.append((f"encoder.upcat_{scale + 1}.convs", f"decoder.{scale}"))
    for theirs, ours in blocks:
        for number in (0, 1):
            yield f"{theirs}.conv_{number}.conv.", f"{ours}.{3 * number}."
            yield f"{theirs}.conv_{number}.adn.N.", f"{ours}.{3 * number + 1}."


def _teacher_names() -> Iterator[tuple[str, str]]:
    for scale in range(4):
        for theirs, ours in {"text_proj": "text", "attn": "attend", "norm": "norm"}.items():
            yield f"fusion_x{scale + 1}.{theirs}.", f"fusions.{scale}.{ours}."
        yield f"distill_proj_x{scale + 1}.proj.", f"projections.{scale}."


def _student_names() -> Iterator[tuple[str, str]]:
    for scale in range(4):
        yield f"distill_proj_x{scale + 1}.proj.", f"adapters.{scale}.0."
        for number in (0, 1):
            yield f"student_adapter_x{scale + 1}.{number}.", f"adapters.{scale}.{number + 1}."


STUDENT_NAMES = dict([*_unet_names(), *_student_names()])
TEACHER_NAMES = dict([*_unet_names(), *_teacher_names()])


def _converted(theirs: Mapping[str, Any], names: Mapping[str, str], path: Path) -> dict[str, Tensor]:
    """Return a network's weights under our names, with the head's adjacent 1x1 convolutions folded."""
    ours: dict[str, Tensor] = {}
    left = dict(theirs)
    if not all(isinstance(one, Tensor) for one in left.values()):
        raise UserError(f"{path} cannot be imported: {NOT_IT}.")
    for name in list(left):
        for beginning, own in names.items():
            if name.startswith(beginning):
                ours[own + name.removeprefix(beginning)] = left.pop(name)
                break
    try:
        for scale in range(4):
            key = f"fusion_x{scale + 1}.pos_embedding"
            if key in left:
                side = SIDE // 2 ** (scale + 1)
                grid = left.pop(key).reshape(side, side, -1)
                ours[f"fusions.{scale}.positions"] = grid.permute(2, 0, 1)[None]
        last, first, second, classes = (
            (left.pop(f"{name}.weight").double().flatten(1), left.pop(f"{name}.bias").double())
            for name in ("encoder.final_conv", "head.0", "head.2", "classifier")
        )
        for place, (inner, outer) in {"head.0": (last, first), "head.2": (second, classes)}.items():
            weight, bias = outer[0] @ inner[0], outer[0] @ inner[1] + outer[1]
            if place == "head.2":
                if len(weight) != 2:
                    raise UserError(f"{path} cannot be imported: it has {len(weight)} classes, not two.")
                # Of background and foreground only the second was trained on labels, and is measured.
                weight, bias = weight[1:], bias[1:]
            ours[f"{place}.weight"] = weight[:, :, None, None].float()
            ours[f"{place}.bias"] = bias.float()
    except (KeyError, RuntimeError, IndexError) as error:
        raise UserError(
            f"{path} holds another architecture than the public code's: {_said(error)}; it cannot be imported."
        ) from None
    if left:
        raise UserError(
            f"{path} holds another architecture than the public code's: it has weights named {next(iter(left))}; "
            "it cannot be imported."
        )
    return {name: one.float() if one.is_floating_point() else one for name, one in ours.items()}


def _inputs(weights: Mapping[str, Tensor], name: str, path: Path) -> int:
    """Return how many numbers a layer reads at each place."""
    if name not in weights or weights[name].ndim < 2:
        raise UserError(
            f"{path} holds another architecture than the public code's: its first layers are missing; it cannot be "
            "imported."
        )
    return int(weights[name].shape[1])


def _filled(network: nn.Module, weights: Mapping[str, Tensor], path: Path) -> nn.Module:
    expected = network.state_dict()
    wrong = sorted(
        name
        for name in expected.keys() | weights.keys()
        if name not in expected or name not in weights or expected[name].shape != weights[name].shape
    )
    if wrong:
        raise UserError(
            f"{path} holds another architecture than the public code's: {len(wrong)} weights are missing or of another "
            f"shape, first {wrong[0]}; it cannot be imported."
        )
    if not all(torch.isfinite(one).all() for one in weights.values() if one.is_floating_point()):
        raise UserError(f"{path} holds weights that are not finite numbers; it cannot be imported.")
    network.load_state_dict(dict(weights))
    return network


def _said(error: Exception) -> str:
    if isinstance(error, KeyError):
        return f"it has no weights {error.args[0]}"
    return str(error).splitlines()[0].rstrip(".")[:160]
