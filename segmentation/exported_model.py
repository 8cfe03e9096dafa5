"""A model that left a study, used without it: the folder that ``export-model`` wrote, computed by PyTorch."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch

from gaze_capture.errors import UserError
from gaze_capture.storage import read_json
from segmentation.augmentation import standardised
from segmentation.checkpoints import load_into
from segmentation.images import resize
from segmentation.job import RunSpec
from segmentation.lean import Lean
from segmentation.methods import make_method
from segmentation.predictor import MIRRORED, Probability, on_grid

WEIGHTS, SPEC, HOW = "student", "spec.json", "preprocessing.json"
"""Files of the folder; the weights' with ``.safetensors`` added."""


class ExportedModel:
    """The student of an exported model, on the processor, in fp32.

    Parameters
    ----------
    folder : what ``export-model`` wrote

    Raises
    ------
    UserError
        If a file is missing or damaged.
    """

    def __init__(self, folder: Path | str) -> None:
        folder = Path(folder)
        spec = RunSpec.from_json(read_json(folder / SPEC), str(folder / SPEC))
        how = read_json(folder / HOW)
        try:
            text_width = int(how["text_width"])
        except (KeyError, TypeError, ValueError):
            raise UserError(f"{folder / HOW} is damaged; export the model again.") from None
        network = make_method(spec, text_width).networks["student"]
        load_into(network, folder, WEIGHTS)
        self.targets = spec.targets
        self._size = spec.image_size_px
        self._network = Lean(network)

    @torch.inference_mode()
    def segment(self, image: npt.NDArray[np.uint8]) -> Probability:
        """Return the probability (T, H, W) of each target in an RGB image (H, W, 3)."""
        shown: npt.NDArray[np.uint8] = resize(image, self._size, self._size)
        pixels = standardised(shown[np.newaxis])
        looks = [self._network(pixels)]
        looks += [self._network(pixels.flip(axes)).flip(axes) for axes in MIRRORED]
        mean = torch.stack(looks).sigmoid().mean(0)[0].numpy()
        return on_grid(mean, image.shape[0], image.shape[1])
