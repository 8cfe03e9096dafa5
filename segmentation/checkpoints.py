"""Weights and training state on disk: safetensors and JSON, a folder that appears whole or not at all."""

from __future__ import annotations

import os
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import safetensors.torch
import torch
from torch import Tensor, nn

from gaze_capture.errors import UserError
from gaze_capture.storage import explained_os_errors, read_json, write_bytes_atomic, write_json_atomic
from segmentation.runs import RunFolder


def save_checkpoint(
    run: RunFolder,
    step: int,
    weights: Mapping[str, nn.Module | Mapping[str, Tensor]],
    optimiser: torch.optim.Optimizer | None,
    state: dict[str, Any],
) -> Path:
    """Store everything a run needs to go on, and remove its earlier checkpoint; without an optimiser, to predict.

    Raises
    ------
    UserError
        If it cannot be written; the earlier checkpoint stays.
    """
    folder = run.path / "checkpoints" / f"{step:07d}"
    part = folder.with_name(f".{folder.name}.part")
    with explained_os_errors(folder):
        shutil.rmtree(part, ignore_errors=True)
        for name, tensors in weights.items():
            _write(
                part / f"{name}.safetensors",
                tensors.state_dict() if isinstance(tensors, nn.Module) else tensors,
            )
        moments, numbers = _flattened(optimiser.state_dict()["state"] if optimiser else {})
        _write(part / "optimiser.safetensors", moments)
        write_json_atomic(part / "state.json", {**state, "step": step, "optimiser": numbers})
        shutil.rmtree(folder, ignore_errors=True)
        os.replace(part, folder)
    for old in _folders(run):
        if old != folder:
            shutil.rmtree(old, ignore_errors=True)
    return folder


def latest_checkpoint(run: RunFolder) -> Path | None:
    """Return the folder of the run's latest whole checkpoint, or None."""
    folders = _folders(run)
    return folders[-1] if folders else None


def _folders(run: RunFolder) -> list[Path]:
    return sorted(path.parent for path in (run.path / "checkpoints").glob("[0-9]*/state.json"))


def load_state(folder: Path) -> dict[str, Any]:
    """Return the JSON part of a checkpoint.

    Raises
    ------
    UserError
        If it is missing or damaged.
    """
    path = folder / "state.json"
    state = read_json(path)
    if not isinstance(state, dict) or not _STATE <= state.keys():
        raise UserError(f"{path} is damaged: it does not say what the checkpoint holds; train again.")
    return state


_STATE = {"step", "text_width", "predicts"}
"""What no checkpoint can be used without."""


def load_weights(folder: Path, name: str) -> dict[str, Tensor]:
    """Return the tensors of one file of a checkpoint.

    Raises
    ------
    UserError
        If the file is missing or damaged, or is no safetensors file.
    """
    path = folder / f"{name}.safetensors"
    try:
        # Through bytes: an open memory map would hold the file against removal on Windows.
        data = path.read_bytes()
    except OSError as error:
        raise UserError(f"{path} is missing or damaged ({error}); train again.") from None
    try:
        return safetensors.torch.load(data)
    except safetensors.SafetensorError as error:
        if data.startswith(_PICKLES):
            raise UserError(
                f"{path} is a pickle, not a safetensors file, and was not opened: a pickle can run any program. Put "
                "the run's own file back, or train again."
            ) from None
        raise UserError(f"{path} is missing or damaged ({error}); train again.") from None


_PICKLES = (b"PK\x03\x04", b"\x80\x02", b"\x80\x03", b"\x80\x04", b"\x80\x05")
"""How a file begins that torch.save or pickle wrote."""


def load_into(network: nn.Module, folder: Path, name: str) -> None:
    """Give a network the weights of one file of a checkpoint.

    Raises
    ------
    UserError
        If the file is missing or damaged, or its weights are of another architecture.
    """
    weights = load_weights(folder, name)
    if shapes(weights) != shapes(network.state_dict()):
        raise UserError(
            f"{folder / name}.safetensors holds a network of another architecture than the run's spec.json asks for; "
            "put the run's own file back, or train again."
        )
    network.load_state_dict(weights)


def shapes(weights: Mapping[str, Tensor]) -> dict[str, tuple[int, ...]]:
    """Return the shape of each tensor: what tells one architecture from another."""
    return {name: tuple(tensor.shape) for name, tensor in weights.items()}


def load_optimiser(folder: Path, optimiser: torch.optim.Optimizer) -> None:
    """Restore an optimiser's state, its parameters being in the same order."""
    parameters = [parameter for group in optimiser.param_groups for parameter in group["params"]]
    state: dict[int, dict[str, Any]] = {}
    for key, tensor in load_weights(folder, "optimiser").items():
        index, _, name = key.partition(".")
        parameter = parameters[int(index)]
        if tensor.shape == parameter.shape:
            # Files keep no memory order, and fused optimisers pair numbers by where they lie.
            tensor = torch.empty_like(parameter, dtype=tensor.dtype).copy_(tensor)
        state.setdefault(int(index), {})[name] = tensor
    for key, number in load_state(folder)["optimiser"].items():
        index, _, name = key.partition(".")
        state.setdefault(int(index), {})[name] = number
    optimiser.load_state_dict({**optimiser.state_dict(), "state": state})


def _flattened(state: Mapping[int, Mapping[str, Any]]) -> tuple[dict[str, Tensor], dict[str, float | None]]:
    tensors: dict[str, Tensor] = {}
    numbers: dict[str, float | None] = {}
    for index, values in state.items():
        for name, value in values.items():
            if isinstance(value, Tensor):
                tensors[f"{index}.{name}"] = value
            else:
                numbers[f"{index}.{name}"] = value
    return tensors, numbers


def _write(path: Path, tensors: Mapping[str, Tensor]) -> None:
    whole = {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}
    write_bytes_atomic(path, safetensors.torch.save(whole))
