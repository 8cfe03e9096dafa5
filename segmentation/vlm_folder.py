"""A vision-language model in a local folder, looked at without loading it: whether it is whole, and which it is."""

from __future__ import annotations

import hashlib
import re
from pathlib import Path

from gaze_capture.errors import UserError
from gaze_capture.storage import explained_os_errors, read_json
from segmentation.safetensors_files import read_header

_WEIGHTS = "model.safetensors"
_INDEX = "model.safetensors.index.json"
_PICKLES = ("*.bin", "*.pt", "*.pth", "*.ckpt", "*.pkl")
_READ_WHOLE = 1 << 20
"""Smaller files enter a model's hash as they are."""
_SAMPLES = 256
_SAMPLE_BYTES = 4096
_HUB_ID = re.compile(r"[\w][\w.-]*/[\w][\w.-]*")


def is_hub_id(name: str) -> bool:
    """Whether a name is ``owner/model`` and no folder of that name exists."""
    return _HUB_ID.fullmatch(name) is not None and not Path(name).exists()


def check_model_folder(folder: Path, *, processor: bool = True) -> None:
    """Refuse a folder that cannot hold a usable model, with the reason.

    Weights are taken as safetensors alone: reading a pickle would run whatever code it holds.

    Parameters
    ----------
    processor : whether it must say in a file of its own how pictures are made ready

    Raises
    ------
    UserError
        If the folder, its configuration or its weights are missing, cut short or pickled.
    """
    if not folder.is_dir():
        raise UserError(
            f"There is no model folder {folder}; give the folder that a model was downloaded or saved into."
        )
    config = folder / "config.json"
    if not config.exists():
        raise UserError(
            f"{folder} has no config.json, so it is no model folder; give the folder that holds it and the weights."
        )
    if not isinstance(read_json(config), dict):
        raise UserError(f"{config} is damaged; copy or download the model again.")
    for path in _weights(folder):
        _check_safetensors(path)
    if processor and not any(
        (folder / name).exists() for name in ("processor_config.json", "preprocessor_config.json")
    ):
        raise UserError(
            f"{folder} has no preprocessor_config.json, without which pictures cannot be made ready for the model; "
            "copy or download the whole model."
        )


def model_name(folder: Path) -> str:
    """Return the folder's name with a short hash of what is in it, so that another model is never taken for this one.

    Small files are hashed whole; of weights their size, their head and 256 pieces spread over the file, since reading
    many gigabytes would take longer than many an answer.

    Raises
    ------
    UserError
        If the folder cannot be read.
    """
    digest = hashlib.sha256()
    with explained_os_errors(folder):
        files = [
            path for path in folder.iterdir() if path.suffix in (".json", ".safetensors", ".jinja", ".model")
        ]
        for path in sorted(files, key=lambda path: path.name):
            size = path.stat().st_size
            digest.update(f"\0{path.name}\0{size}\0".encode())
            with open(path, "rb") as stream:
                digest.update(stream.read(_READ_WHOLE))
                if size > _READ_WHOLE:
                    for number in range(_SAMPLES):
                        stream.seek((size - _SAMPLE_BYTES) * number // (_SAMPLES - 1))
                        digest.update(stream.read(_SAMPLE_BYTES))
    return f"{folder.resolve().name}-{digest.hexdigest()[:8]}"


def _weights(folder: Path) -> list[Path]:
    """Return the files that hold the weights."""
    if (folder / _WEIGHTS).exists():
        return [folder / _WEIGHTS]
    index = folder / _INDEX
    if index.exists():
        values = read_json(index)
        shards = values.get("weight_map") if isinstance(values, dict) else None
        if not isinstance(shards, dict) or not all(isinstance(name, str) for name in shards.values()):
            raise UserError(f"{index} is damaged; copy or download the model again.")
        paths = [folder / Path(name).name for name in sorted(set(shards.values()))]
        missing = [path.name for path in paths if not path.exists()]
        if missing:
            more = f" and {len(missing) - 1} more" if len(missing) > 1 else ""
            raise UserError(
                f"{folder} is incomplete: {missing[0]}{more} is missing, which {_INDEX} names; "
                "copy or download the model again."
            )
        return paths
    pickles = sorted(path.name for pattern in _PICKLES for path in folder.glob(pattern))
    if pickles:
        raise UserError(
            f"{folder} has its weights in {pickles[0]}, a pickle, which can run any program when it is read and is "
            "refused; take the model's safetensors files, or on a machine that may run it load it with transformers "
            "and call save_pretrained, which writes them."
        )
    raise UserError(f"{folder} holds no weights ({_WEIGHTS} or {_INDEX}); copy or download the whole model.")


def _check_safetensors(path: Path) -> None:
    """Refuse a file that is no safetensors or was cut short, by its header alone."""
    with explained_os_errors(path), open(path, "rb") as stream:
        start = stream.read(8)
    if start.startswith(b"version "):
        raise UserError(
            f"{path} is a placeholder of Git LFS, not the weights; run git lfs pull in its folder."
        )
    try:
        read_header(path)
    except UserError as error:
        raise UserError(f"{str(error).rstrip('.')}; copy or download the model again.") from None
