"""Encoders of the library timm from a folder as the Hugging Face hub has them: config.json and model.safetensors.

timm has what transformers' backbones lack: networks small enough to be trained on a laptop's processor (EfficientNet-
Lite, MobileNet, small ResNets). It is an extra, imported here alone and late. Nothing is fetched, and of the folder's
configuration only the architecture's name, the number of classes and the images' mean and deviation are read.
"""

from __future__ import annotations

import importlib
import logging
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file
from torch import Tensor, nn

from gaze_capture.errors import UserError
from gaze_capture.storage import read_json

_HEAD = ("num_classes", "global_pool", "drop_rate")
"""Arguments of a classifier that its maps do not depend on."""


def is_timm(config: Mapping[str, Any]) -> bool:
    """Whether a folder's config.json, or a spec's, is that of a timm model."""
    return "architecture" in config and "model_type" not in config


def build(config: Mapping[str, Any], scales: Sequence[int]) -> nn.Module:
    """Build an encoder, its weights random yet: images (B, 3, H, W) in, one map for each scale out.

    Parameters
    ----------
    config : what `describe` found
    scales : how many times smaller than the image the maps shall be, such as 4, 8, 16, 32

    Raises
    ------
    UserError
        If timm is not installed, has no such model, or the model has no maps at these scales.
    """
    timm, name = _timm(), str(config["architecture"])
    if not timm.is_model(name):
        raise UserError(f"the installed timm knows no model {name!r}")
    network: nn.Module = _features(name, _indices(name, scales))
    return network


def describe(folder: Path) -> dict[str, Any]:
    """Return what of a folder's configuration is needed to build its encoder again, and `mean` and `std` of its images.

    Raises
    ------
    UserError
        If it is incomplete, or the model was made with arguments that change the network.
    """
    values = read_json(folder / "config.json")
    arguments = values.get("model_args") or {}
    about = values.get("pretrained_cfg", values)
    try:
        strange = sorted(set(arguments) - {"in_chans", *_HEAD})
        channels = int(arguments.get("in_chans", 3))
        mean, std = ([float(one) for one in about[name]] for name in ("mean", "std"))
        if (
            len(mean) != 3
            or len(std) != 3
            or not all(map(math.isfinite, mean))
            or not all(one > 0 for one in std)
        ):
            raise ValueError
    except (AttributeError, KeyError, TypeError, ValueError):
        raise UserError(
            f"{folder / 'config.json'} does not say by what mean and standard deviation images are normalised "
            "(pretrained_cfg: mean, std); copy or download the whole model again."
        ) from None
    if channels != 3:
        raise UserError(
            f"The encoder in {folder} reads images of {channels} channels; choose one for 3 (colour)."
        )
    if strange:
        raise UserError(
            f"The encoder in {folder} was built with changes to its network ({', '.join(strange)[:80]}), which are not "
            "known here; choose one that is built as timm builds it."
        )
    return {"config": {"architecture": str(values["architecture"])[:80]}, "mean": mean, "std": std}


def read_weights(folder: Path, config: Mapping[str, Any], scales: Sequence[int]) -> dict[str, Tensor]:
    """Return the weights of an encoder, under the names they have in what `build` returns.

    Raises
    ------
    UserError
        If timm is not installed or the model cannot be used; whatever timm raises if the weights do not fit.
    """
    timm, name = _timm(), str(config["architecture"])
    if not (folder / "model.safetensors").is_file():
        raise UserError("its weights should be in one file, model.safetensors")
    known = build(config, scales)
    stored = load_file(folder / "model.safetensors")
    classes = read_json(folder / "config.json").get("num_classes", 1000)
    # Where weights go is timm's to know; it reads them from here and asks nobody for others.
    given = {
        "pretrained": True,
        "pretrained_cfg_overlay": {"state_dict": stored, "custom_load": False, "num_classes": classes},
    }
    # The whole classifier first: the features alone would be loaded without a word about missing weights.
    timm.create_model(name, num_classes=classes, **given)
    weights: dict[str, Tensor] = _features(name, _indices(name, scales), **given).state_dict()
    known.load_state_dict(weights)
    _check_maps(known, scales)
    return {key: value.float() if value.is_floating_point() else value for key, value in weights.items()}


def _features(name: str, indices: Sequence[int], **given: Any) -> Any:
    return _timm().create_model(name, features_only=True, out_indices=tuple(indices), **given)


def _indices(name: str, scales: Sequence[int]) -> list[int]:
    """Return which of a model's maps lie at the scales; the last of several."""
    reductions = [
        int(one["reduction"]) for one in _timm().create_model(name, features_only=True).feature_info
    ]
    missing = [scale for scale in scales if scale not in reductions]
    if missing:
        raise UserError(f"it has no map at 1/{missing[0]} of the image; choose a convolutional network")
    last = len(reductions) - 1
    return [last - reductions[::-1].index(scale) for scale in scales]


@torch.inference_mode()
def _check_maps(network: nn.Module, scales: Sequence[int]) -> None:
    """Refuse a network that takes no images of any size, or gives its maps another shape."""
    maps = network.eval()(torch.zeros(1, 3, 64, 96))
    widths = network.feature_info.channels()  # type: ignore[operator, union-attr]
    expected = [(1, width, 64 // scale, 96 // scale) for width, scale in zip(widths, scales, strict=True)]
    if [tuple(one.shape) for one in maps] != expected:
        raise UserError("its maps have another shape than those of a convolutional network; choose one")


def _timm() -> Any:
    try:
        timm = importlib.import_module("timm")
    except ImportError as error:
        if error.name != "timm":
            raise UserError(
                f"timm could not be imported ({error}); install it anew: pip install timm"
            ) from None
        raise UserError(
            "it is a model of timm, which is an extra: pip install 'gaze-insight[timm]'"
        ) from None
    # That a classifier's own layers are left over is no news.
    logging.getLogger("timm").setLevel(logging.ERROR)
    return timm
