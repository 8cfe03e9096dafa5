"""A run's networks at work: an image of any size -> probability on its own grid."""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from gaze_capture.errors import UserError
from gaze_capture.storage import sha256_of
from segmentation.augmentation import standardised
from segmentation.checkpoints import latest_checkpoint, load_into, load_state
from segmentation.device import Precision, choose_device, choose_precision
from segmentation.engines import Engine, TorchEngine, choose_engine, make_engine
from segmentation.images import resize
from segmentation.methods import make_method
from segmentation.networks import Text
from segmentation.runs import RunFolder

Probability = npt.NDArray[np.float32]
MIRRORED = ([2], [3], [2, 3])
"""Axes of (B, C, H, W) that are turned around for the views beside the image as it is."""


@dataclass(frozen=True)
class Views:
    """What a network makes of B images for T targets, on its own grid of S x S."""

    probability: npt.NDArray[np.float32]
    """(B, T, S, S), the mean over the mirrored views."""
    deviation: npt.NDArray[np.float32] | None = None
    """(B, T, S, S) standard deviation over the mirrored views, 0..0.5; None where an image is looked at once."""
    flips_dice: npt.NDArray[np.float32] | None = None
    """(B, T), see `segmentation.uncertainty.Certainty`; None as above."""


def on_grid(stack: npt.NDArray[np.float32], height: int, width: int) -> Probability:
    """Return maps (T, S, S) on an image's own grid (T, H, W)."""
    return np.stack([resize(view, height, width) for view in stack])


class Predictor:
    """A run's networks, ready to segment uint8 images (H, W, 3) of any size.

    Parameters
    ----------
    engine
        What computes the networks that see the image alone: see `use_engine`.

    Raises
    ------
    UserError
        If the run has no checkpoint yet, or it is damaged, or the engine is not installed.
    """

    def __init__(
        self,
        run: RunFolder,
        *,
        device: str | None = None,
        flip_average: bool = True,
        engine: str = "torch",
    ) -> None:
        self.run, self.spec = run, run.spec
        self.flip_average = flip_average
        folder = latest_checkpoint(run)
        if folder is None:
            raise UserError(
                f"The run {run.id} has nothing to predict with yet: it has no checkpoint. Train it first."
            )
        state = load_state(folder)
        self.step = int(state["step"])
        self._folder, self._predicts = folder, str(state["predicts"])
        method = make_method(self.spec, int(state["text_width"]))
        wish = device or self.spec.device
        # A run that was trained elsewhere on a GPU predicts here on what there is.
        self.device = choose_device("auto" if device is None and not torch.cuda.is_available() else wish)
        self.networks = method.networks.eval()
        self._ready: set[str] = set()
        self.network("student")
        self.use_engine(engine)

    def use_engine(self, wish: str, images: int = 0) -> None:
        """Choose what computes the networks that see the image alone.

        Parameters
        ----------
        wish
            ``torch``, ``openvino``, ``onnx``, or ``auto``, which looks at how many images there are.

        Raises
        ------
        UserError
            If it is not installed, or cannot work on the device.
        """
        self._engine_name = choose_engine(wish, self.device, images)
        self._engines: dict[str, Engine] = {}

    def engine(self, name: str) -> Engine:
        """Return the engine that computes a network that sees the image alone; the first call builds it.

        Raises
        ------
        UserError
            If the run has no such network, or it cannot be converted for the engine.
        """
        if name not in self._engines:
            self._engines[name] = make_engine(
                self._engine_name,
                self.network(name),
                self.spec.image_size_px,
                cache=self.run.path / "engines" / f"{name}.onnx",
                wish=self.spec.precision,
                precision=lambda: self.precision,
            )
        return self._engines[name]

    @functools.cached_property
    def precision(self) -> Precision:
        """The device and number format that PyTorch computes in here."""
        size = self.spec.image_size_px
        tried: dict[str, TorchEngine] = {}

        def try_out(trial: Precision) -> None:
            if trial.name not in tried:
                tried[trial.name] = TorchEngine(self.networks["student"], trial)
            tried[trial.name](torch.zeros(1, 3, size, size))

        return choose_precision(self.spec.precision, self.device, try_out)

    def network(self, name: str) -> nn.Module:
        """Return a network by name, with what it learned; the first call reads that.

        Raises
        ------
        UserError
            If the run's method has no such network, or its file is missing, damaged, or of another architecture.
        """
        if name not in self.networks:
            raise UserError(f"The run has no network {name!r}; it has: {', '.join(self.networks)}.")
        network = self.networks[name]
        if name not in self._ready:
            # Also when first asked for in the midst of predicting: weights made there could never be learned on.
            with torch.inference_mode(False):
                load_into(network, self._folder, self.file_of(name))
                network.to(device=self.device, memory_format=torch.channels_last)  # type: ignore[call-overload]
            self._ready.add(name)
        return network

    def file_of(self, name: str) -> str:
        """Return the name, without its ending, of the file in the checkpoint that holds a network's weights."""
        return self._predicts if name == "student" else name

    def made_by(self, name: str) -> dict[str, object]:
        """Return what tells this network's predictions from those of others: step, weights and ways of looking."""
        weights = sha256_of(self._folder / f"{self.file_of(name)}.safetensors")
        return {"step": self.step, "weights": weights[:16], "flip_average": self.flip_average}

    @torch.inference_mode()
    def look(
        self, pixels: npt.NDArray[np.uint8], network: str = "student", text: Text | None = None
    ) -> Views:
        """Return what a network makes of images (B, S, S, 3), which are of the size that it learned from.

        `text` is what the teacher reads; it is not mirrored, so that flips are averaged for the student alone.
        """
        images = standardised(pixels)
        if text is not None:
            return Views(self._asking_teacher(text)(images).numpy())
        ask = self.engine(network)
        if not self.flip_average:
            return Views(ask(images).numpy())
        # The networks learned from flipped images, too: four views of one image err less than one.
        views = torch.stack([ask(images), *(ask(images.flip(axes)).flip(axes) for axes in MIRRORED)])
        mean = views.mean(0)
        masks, mask = views >= 0.5, mean >= 0.5
        common, areas = (masks & mask).sum((-2, -1)), masks.sum((-2, -1)) + mask.sum((-2, -1))
        alike = torch.where(areas > 0, 2 * common / areas.clamp(min=1), 1.0).mean(0)
        return Views(mean.numpy(), (views - mean).square_().mean(0).sqrt_().numpy(), alike.numpy())

    def shown(self, image: npt.NDArray[np.uint8]) -> npt.NDArray[np.uint8]:
        """Return an image (H, W, 3) of any size as large as the networks look at it, (S, S, 3)."""
        size = self.spec.image_size_px
        pixels: npt.NDArray[np.uint8] = resize(image, size, size)
        return pixels

    def predict(
        self, images: Sequence[npt.NDArray[np.uint8]], network: str = "student", text: Text | None = None
    ) -> list[Probability]:
        """Return the foreground probability (T, H, W) of each image, on its own grid; see `look`."""
        views = self.look(np.stack([self.shown(image) for image in images]), network, text)
        return [
            on_grid(stack, image.shape[0], image.shape[1])
            for stack, image in zip(views.probability, images, strict=True)
        ]

    def _asking_teacher(self, text: Text) -> Callable[[Tensor], Tensor]:
        teacher = self.network("teacher")
        on_device = Text(*(part.to(self.device) for part in text))

        def ask(pixels: Tensor) -> Tensor:
            with self.precision.autocast():
                logits = teacher(pixels.to(self.device, memory_format=torch.channels_last), on_device).logits
            probability: Tensor = logits.float().sigmoid().cpu()
            return probability

        return ask
