"""Pretrained image encoders from a folder: transformers' ResNet, ConvNeXt, Swin and DINOv2, timm's small networks.

A U-Net can have one in place of its own encoder (`segmentation.networks`): its maps go to the scales 1/4, 1/8, 1/16
and 1/32 of the image, and the finer scales come from the image itself. Weights are safetensors alone, nothing of the
folder is run, and nothing is fetched but a named model of the hub where that is permitted. What a run needs to build
the encoder again is in its spec, and its weights are in the run's checkpoints: the folder is read once.
"""

from __future__ import annotations

import contextlib
import math
import os
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import safetensors
import torch
from torch import Tensor, nn
from torch.nn import functional

from gaze_capture.errors import UserError
from gaze_capture.storage import read_json
from segmentation import timm_backbones
from segmentation.augmentation import MEAN, SPREAD
from segmentation.depthwise import quick_depthwise
from segmentation.job import RunSpec
from segmentation.networks import convolutions
from segmentation.text.encoder import quiet_transformers
from segmentation.text.folder_encoder import model_name_of, weights_hash
from segmentation.vlm_folder import check_model_folder, is_hub_id
from segmentation.vlm_local import find_in_hub

KINDS = ("resnet", "convnext", "convnextv2", "swin", "swinv2", "dinov2", "dinov2_with_registers")
"""What `config.json` calls the families that can be used."""

SCALES = (4, 8, 16, 32)
"""The encoder's maps lie at 1/4, 1/8, 1/16 and 1/32 of the image."""
MAPS = len(SCALES)
COARSEST = SCALES[-1]

_NO_PART = ("mask_token", "swin.layernorm", "swinv2.layernorm")
"""Parameters that no map depends on."""
_BEGUN_ANEW = ("hidden_states_norms", *_NO_PART)
"""What a backbone has and a classifier's checkpoint has not: norms of its maps, which begin as no change."""
_NOT_THE_NETWORK = (
    "id2label",
    "label2id",
    "num_labels",
    "architectures",
    "auto_map",
    "_name_or_path",
    "transformers_version",
    "dtype",
    "torch_dtype",
    "stage_names",
    "out_features",
    "out_indices",
)


class Pretrained(nn.Module):
    """The part of an encoder that comes with weights: an image 0..1 in, four maps out, finest first.

    The widths of its maps are in `widths`.

    Parameters
    ----------
    about : a spec's `encoder_config`
    frozen : nothing of it is trained
    frozen_norms : its batch norms are not
    frozen_stages : what this many of its maps, the finest first, come from is not

    Raises
    ------
    UserError
        If this transformers or timm cannot build it, or timm is not installed.
    """

    mean: Tensor
    std: Tensor

    def __init__(
        self,
        about: Mapping[str, Any],
        *,
        frozen: bool = False,
        frozen_norms: bool = False,
        frozen_stages: int = 0,
    ) -> None:
        super().__init__()
        with _explained("The run's encoder"):
            self._build(about["config"])
        self.register_buffer("mean", torch.tensor(about["mean"]).view(1, -1, 1, 1), persistent=False)
        self.register_buffer("std", torch.tensor(about["std"]).view(1, -1, 1, 1), persistent=False)
        self._still: list[nn.Module] = [self.backbone] if frozen else []
        if frozen_stages and not frozen:
            for parameter in self._behind(frozen_stages):
                parameter.requires_grad_(False)
        if not frozen:
            self._still = [
                part
                for part in self.backbone.modules()
                if isinstance(part, nn.BatchNorm2d)
                and (frozen_norms or (part.affine and not part.weight.requires_grad))
            ]
        for part in self._still:
            part.requires_grad_(False)
        for name, parameter in self.backbone.named_parameters():
            if any(one in name for one in _NO_PART):
                parameter.requires_grad_(False)

    def _build(self, config: Mapping[str, Any]) -> None:
        # Windows and strides come to terms with any multiple of 32; patches must fill the image exactly.
        self.patch = 1
        self.backbone: Any
        if timm_backbones.is_timm(config):
            self.backbone = timm_backbones.build(config, SCALES)
            self.widths, self.channels = list(self.backbone.feature_info.channels()), 3
            return
        known = _config(config)
        self.backbone = quiet_transformers().AutoBackbone.from_config(known)
        self.widths, self.channels = list(self.backbone.channels), int(known.num_channels)
        if known.model_type.startswith("dinov2"):
            self.patch = int(known.patch_size)

    @torch.enable_grad()
    def _behind(self, maps: int) -> list[nn.Parameter]:
        """Return the parameters that the first maps come from, whatever the library calls its parts."""
        parameters = list(self.backbone.parameters())
        # Batch norms' statistics stay as they are meanwhile.
        self.backbone.eval()
        blank = torch.zeros(1, self.channels, 2 * COARSEST, 2 * COARSEST)
        found = torch.stack([one.sum() for one in self._maps(blank)[:maps]]).sum()
        gradients = torch.autograd.grad(found, parameters, allow_unused=True)
        self.backbone.train()
        return [one for one, gradient in zip(parameters, gradients, strict=True) if gradient is not None]

    def train(self, mode: bool = True) -> Pretrained:
        """Set the mode; what is frozen stays as it is at prediction."""
        super().train(mode)
        for part in self._still:
            part.eval()
        return self

    def forward(self, images: Tensor) -> list[Tensor]:
        """Return maps of images (B, 3, H, W) 0..1, H and W multiples of 32."""
        if self.channels == 1:
            images = images.mean(1, keepdim=True)
        return self._maps((images - self.mean) / self.std)

    def _maps(self, pixels: Tensor) -> list[Tensor]:
        size = [math.ceil(side / self.patch) * self.patch for side in pixels.shape[2:]]
        with quick_depthwise(pixels.device):
            maps = self.backbone(_resized(pixels, size))
        return list(maps) if isinstance(maps, list) else list(maps.feature_maps)


class BackboneEncoder(nn.Module):
    """Features at all scales of a U-Net: the finest from the image itself, the four others from a backbone.

    Maps that lie at another scale than theirs (a DINOv2's are all at 1/14) are resized to it. Images whose sides are
    no multiples of 32 are enlarged to the next one, so that features always cover the whole image.

    Parameters
    ----------
    widths : as a `UNet` takes them, the last four for the backbone's maps; the first 0 for a compact one
    """

    def __init__(self, widths: Sequence[int], pretrained: Pretrained) -> None:
        super().__init__()
        self.pretrained = pretrained
        self.compact = widths[0] == 0
        own = widths[1:] if self.compact else widths
        fine = own[:-MAPS]
        inputs = 12 if self.compact else 3
        self.fine = nn.ModuleList(
            convolutions(before, after, after)
            for before, after in zip((inputs, *fine[:-1]), fine, strict=True)
        )
        self.lateral = nn.ModuleList(
            nn.Sequential(nn.Conv2d(theirs, width, 1, bias=False), nn.BatchNorm2d(width), nn.ReLU(True))
            for theirs, width in zip(pretrained.widths, own[-MAPS:], strict=True)
        )

    def forward(self, images: Tensor) -> list[Tensor]:
        """Return features at all scales of standardised images (B, 3, H, W), finest first."""
        size = [math.ceil(side / COARSEST) * COARSEST for side in images.shape[2:]]
        images = _resized(images, size)
        features: list[Tensor] = []
        detail = functional.pixel_unshuffle(images, 2) if self.compact else images
        for block in self.fine:
            detail = block(functional.max_pool2d(detail, 2) if features else detail)
            features.append(detail)
        maps = self.pretrained(images * SPREAD + MEAN)
        for scale, (lateral, one) in enumerate(zip(self.lateral, maps, strict=True)):
            features.append(_resized(lateral(one), [side // 2 ** (scale + 2) for side in size]))
        return features


def decoder_widths(widths: Sequence[int]) -> tuple[int, ...]:
    """Return a spec's widths for the scales down to 1/32 that a pretrained encoder has: cut, or the last repeated."""
    own = tuple(widths)
    count = int(math.log2(COARSEST)) + 1
    return (own + own[-1:] * count)[:count]


def make_encoder(spec: RunSpec, widths: Sequence[int]) -> BackboneEncoder | None:
    """Build the encoder a spec names, its weights random yet; None stands for the U-Net's own."""
    if not spec.encoder:
        return None
    frozen = spec.encoder_learning_rate == 0
    pretrained = Pretrained(
        spec.encoder_config,
        frozen=frozen,
        frozen_norms=spec.encoder_frozen_norms,
        frozen_stages=spec.encoder_frozen_stages,
    )
    return BackboneEncoder(widths, pretrained)


def load_pretrained(networks: nn.Module, spec: RunSpec, folder: Path | None) -> None:
    """Give networks that are about to be trained the weights their encoder comes with.

    Raises
    ------
    UserError
        If the folder is not known here, holds other weights than the spec says, or cannot be read.
    """
    parts = [part for part in networks.modules() if isinstance(part, Pretrained)]
    if not parts:
        return
    if folder is None or not folder.is_dir():
        raise UserError(
            f"The encoder {spec.encoder} is not on this computer; start a new run that is told where it lies: "
            "gaze-insight train STUDY --encoder DIR"
        )
    check_model_folder(folder, processor=not timm_backbones.is_timm(spec.encoder_config["config"]))
    if weights_hash(folder) != spec.encoder_sha256:
        raise UserError(
            f"{folder} no longer holds the encoder {spec.encoder} that the run was made with: its weights differ. "
            "Start a new run: gaze-insight train STUDY --encoder DIR"
        )
    weights = _weights(folder, spec.encoder_config["config"])
    for part in parts:
        part.backbone.load_state_dict(weights)


def find(name: str, allow_download: bool) -> tuple[Path, dict[str, Any]]:
    """Return the folder of an encoder given by its folder or its name in the hub, and what `examine` finds there.

    Raises
    ------
    UserError
        As `examine`, or if it is a name of the hub and may not or cannot be downloaded.
    """
    folder = Path(name).absolute()
    if is_hub_id(name):
        os.environ["HF_HUB_OFFLINE"] = "0" if allow_download else "1"
        folder = find_in_hub(name, allow_download)
    return folder, examine(folder)


def examine(folder: Path) -> dict[str, Any]:
    """Look at the encoder in a folder, loading it once; return the fields of a spec that begins with it.

    Raises
    ------
    UserError
        If the folder, its configuration, its weights or its processor's are missing, damaged, pickled, of another
        kind, or of more or fewer channels than 1 or 3; one sentence says which.
    """
    folder = Path(folder).absolute()
    check_model_folder(folder, processor=False)
    values = read_json(folder / "config.json")
    about = timm_backbones.describe(folder) if timm_backbones.is_timm(values) else _describe(folder, values)
    _weights(folder, about["config"])
    return {
        "encoder": model_name_of(folder),
        "encoder_sha256": weights_hash(folder),
        "encoder_config": about,
    }


def _describe(folder: Path, values: Mapping[str, Any]) -> dict[str, Any]:
    """Return a spec's `encoder_config` for a folder of transformers."""
    check_model_folder(folder)
    kind = str(values.get("model_type"))[:60]
    if kind not in KINDS:
        raise UserError(
            f"{folder} holds a model of the kind {kind!r}, which cannot be an encoder here; choose a ResNet, ConvNeXt, "
            "Swin or DINOv2, or a small network of timm."
        )
    config = {name: value for name, value in values.items() if name not in _NOT_THE_NETWORK}
    with _explained(str(folder)):
        channels = int(_config(config).num_channels)
    if channels not in (1, 3):
        raise UserError(
            f"The encoder in {folder} reads images of {channels} channels; choose one for 3 (colour) or 1 (grey)."
        )
    mean, std = _mean_and_std(folder, channels)
    return {"config": config, "mean": mean, "std": std}


def _config(values: Mapping[str, Any]) -> Any:
    transformers = quiet_transformers()
    config = transformers.CONFIG_MAPPING[values["model_type"]].from_dict(dict(values))
    if isinstance(getattr(config, "hidden_sizes", None), tuple):
        # The default of a config.json that does not say; ConvNeXt adds a list to it.
        config.hidden_sizes = list(config.hidden_sizes)
    # The stem's or the patches' own map is the first of the names.
    stages = len(config.stage_names) - 1
    if stages < MAPS:
        raise UserError(f"The encoder has {stages} stages; {MAPS} or more are needed.")
    config.set_output_features_output_indices(
        out_features=None, out_indices=[stages * (number + 1) // MAPS for number in range(MAPS)]
    )
    config.reshape_hidden_states = True
    return config


def _weights(folder: Path, config: Mapping[str, Any]) -> dict[str, Tensor]:
    if timm_backbones.is_timm(config):
        with _explained(str(folder)):
            weights = timm_backbones.read_weights(folder, config, SCALES)
    else:
        weights = _weights_of_transformers(folder, config)
    if not all(torch.isfinite(part).all() for part in weights.values() if part.is_floating_point()):
        raise UserError(f"Weights in {folder} are not finite numbers; copy or download the model again.")
    return weights


def _weights_of_transformers(folder: Path, config: Mapping[str, Any]) -> dict[str, Tensor]:
    with _explained(str(folder)):
        transformers = quiet_transformers()
        known = _config(config)
        family = transformers.models.auto.modeling_auto.MODEL_FOR_BACKBONE_MAPPING[type(known)]
        # AutoBackbone itself would ask the hub whether a folder is a repository there.
        model, found = family.from_pretrained(
            folder,
            config=known,
            local_files_only=True,
            trust_remote_code=False,
            use_safetensors=True,
            output_loading_info=True,
            dtype=torch.float32,
        )
    missing = sorted(name for name in found["missing_keys"] if not any(one in name for one in _BEGUN_ANEW))
    if missing:
        # The library would go on with random numbers in their place.
        raise UserError(
            f"{folder} lacks weights that its config.json asks for ({len(missing)}, first {missing[0]}); copy or "
            "download the whole model again."
        )
    weights: dict[str, Tensor] = model.state_dict()
    return weights


def _mean_and_std(folder: Path, channels: int) -> tuple[list[float], list[float]]:
    """Return what the folder's processor subtracts and divides by, for images 0..1."""
    path = folder / "preprocessor_config.json"
    values = read_json(path) if path.exists() else read_json(folder / "processor_config.json")
    if isinstance(values, dict):
        values = values.get("image_processor", values)
    try:
        if values.get("do_normalize") is False:
            return [0.0] * channels, [1.0] * channels
        mean, std = (
            [float(one) for one in (value if isinstance(value, list) else [value])]
            for value in (values["image_mean"], values["image_std"])
        )
        if len(mean) != len(std) or not all(map(math.isfinite, mean)) or not all(one > 0 for one in std):
            raise ValueError
    except (AttributeError, KeyError, TypeError, ValueError):
        raise UserError(
            f"{path} does not say by what mean and standard deviation images are normalised (image_mean, image_std); "
            "copy or download the whole model again."
        ) from None
    if len(mean) == 1:
        return mean * channels, std * channels
    if channels == 1:
        return [sum(mean) / len(mean)], [sum(std) / len(std)]
    if len(mean) != channels:
        raise UserError(f"{path} normalises {len(mean)} channels, but the encoder reads {channels}.")
    return mean, std


def _resized(images: Tensor, size: Sequence[int]) -> Tensor:
    size = list(size)
    return images if list(images.shape[2:]) == size else functional.interpolate(images, size, mode="bilinear")


@contextlib.contextmanager
def _explained(what: str) -> Iterator[None]:
    """Turn whatever the library raises about an encoder into one sentence."""
    try:
        yield
    except UserError as error:
        raise UserError(f"{what} cannot be used: {error}") from None
    except safetensors.SafetensorError as error:
        raise UserError(f"The weights in {what} are damaged ({error}); copy the model again.") from None
    except Exception as error:
        text = str(error)
        if isinstance(error, MemoryError) or "allocate memory" in text or "not enough memory" in text:
            raise UserError(f"Memory does not suffice for {what}; choose a smaller encoder.") from None
        if any(
            one in text
            for one in ("ignore_mismatched_sizes", "size mismatch", "Missing key", "Unexpected key")
        ):
            raise UserError(
                f"The weights in {what} do not fit its config.json; copy the model again."
            ) from None
        lines = [line.strip() for line in text.splitlines() if line.strip()]
        first = (lines[0].partition(". ")[0] if lines else type(error).__name__).rstrip(".")[:200]
        raise UserError(
            f"{what} is no encoder that can be used ({first}); choose the folder of a ResNet, ConvNeXt, Swin or "
            "DINOv2, or of a small network of timm."
        ) from None
