"""A promptable segmenter from a local folder, at work: points in, masks out. Needs transformers; for workers alone.

Segment Anything (Kirillov et al., ICCV 2023), its HQ form and SAM 2 (Ravi et al., 2024) as transformers has them.
"""

from __future__ import annotations

import threading
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import safetensors
import torch

from gaze_capture.errors import UserError
from gaze_capture.storage import read_json
from segmentation.device import choose_device
from segmentation.prompts import Floats, Heatmap
from segmentation.text.encoder import quiet_transformers
from segmentation.vlm_folder import check_model_folder

KINDS = {
    "sam": ("SamModel", "SamProcessor"),
    "sam_hq": ("SamHQModel", "SamHQProcessor"),
    "sam2": ("Sam2Model", "Sam2Processor"),
    # The published SAM 2 folders hold the model for films; the one for single images is a part of it.
    "sam2_video": ("Sam2Model", "Sam2Processor"),
}
"""What `config.json` calls the families that can be used: their classes in transformers."""


class PromptableSegmenter:
    """A loaded model of KINDS; calling it is a `segmentation.prompts.Segment`.

    Raises
    ------
    UserError
        If the folder is no such model, or it cannot be loaded here; the sentence says why.
    """

    def __init__(self, folder: Path, device: str | None = None) -> None:
        check_model_folder(folder)
        kind = read_json(folder / "config.json").get("model_type")
        if kind not in KINDS:
            raise UserError(
                f"{folder} holds a model of the kind {kind!r}, which cannot be asked with points; "
                f"choose one of the kinds {', '.join(KINDS)}."
            )
        model_name, processor_name = KINDS[kind]
        transformers = quiet_transformers()
        if not hasattr(transformers, model_name):
            raise UserError(
                f"transformers {transformers.__version__} does not know {model_name}; update it to use {folder}."
            )
        options: dict[str, Any] = {"local_files_only": True, "trust_remote_code": False}
        try:
            self._processor = getattr(transformers, processor_name).from_pretrained(folder, **options)
            self._model, told = getattr(transformers, model_name).from_pretrained(
                folder, use_safetensors=True, output_loading_info=True, **options
            )
        except ImportError as error:
            missing_package = "torchvision" if "torchvision" in str(error).lower() else str(error).strip()
            raise UserError(
                f"{folder} holds a {kind} model, which needs a package that is missing ({missing_package}): "
                "install gaze-insight[sam2], or choose a model of the kind sam."
            ) from None
        except safetensors.SafetensorError as error:
            raise UserError(
                f"The weights in {folder} are damaged ({error}); copy or download the model again."
            ) from None
        except (OSError, ValueError, KeyError, TypeError, RuntimeError, AttributeError) as error:
            raise UserError(
                f"{folder} could not be loaded as a promptable segmenter: {str(error).strip().splitlines()[0]}"
            ) from error
        if missing := sorted(told["missing_keys"]):
            raise UserError(
                f"The weights in {folder} are incomplete: {len(missing)} are missing, such as {missing[0]}; "
                "copy or download the model again."
            )
        self._device = choose_device(device or "auto")
        self._model = self._model.eval().to(self._device)
        # Images come from several threads; one at a time keeps memory to that of one.
        self._lock = threading.Lock()

    def __call__(
        self, image: npt.NDArray[np.float32], prompts: Sequence[Floats], heatmap: Heatmap
    ) -> Heatmap:
        """Return the probability (H, W) of belonging to what is under any of the prompts.

        A point may mean a part or the whole, so the model gives several masks for each prompt; the one that fits the
        heatmap best (soft Dice) is taken.
        """
        best = np.zeros(image.shape[:2], dtype=np.float32)
        for candidates in self.masks(image, prompts):
            overlap = 2 * (candidates * heatmap).sum(axis=(1, 2))
            fit = overlap / (candidates.sum(axis=(1, 2)) + heatmap.sum() + 1e-6)
            np.maximum(best, candidates[fit.argmax()], out=best)
        return best

    def masks(
        self, image: npt.NDArray[np.float32], prompts: Sequence[Floats]
    ) -> list[npt.NDArray[np.float32]]:
        """Return the candidates (M, H, W) of each prompt, as probabilities in the image's own grid."""
        pixels = np.rint(np.clip(image, 0, 1) * 255).astype(np.uint8)
        if pixels.shape[2] != 3:
            pixels = np.repeat(pixels[..., :1], 3, axis=2)
        found = []
        with self._lock, torch.inference_mode():
            ready = self._processor(images=pixels, return_tensors="pt").to(self._device)
            # The image is looked at once, however many regions there are.
            embeddings = self._embeddings(ready["pixel_values"])
            for points in prompts:
                asked = self._processor(
                    images=pixels,
                    input_points=[[points.tolist()]],
                    input_labels=[[[1] * len(points)]],
                    return_tensors="pt",
                )
                given = {
                    "input_points": asked["input_points"].float().to(self._device),
                    "input_labels": asked["input_labels"].to(self._device),
                }
                answer = self._model(**embeddings, **given, multimask_output=True)
                found.append(self._own_grid(answer.pred_masks, asked))
        return found

    def _embeddings(self, pixel_values: torch.Tensor) -> dict[str, Any]:
        embedded = self._model.get_image_embeddings(pixel_values)
        if type(self._model).__name__ == "SamHQModel":
            return {"image_embeddings": embedded[0], "intermediate_embeddings": embedded[1]}
        return {"image_embeddings": embedded}

    def _own_grid(self, logits: torch.Tensor, asked: Any) -> npt.NDArray[np.float32]:
        sizes = [asked["original_sizes"]]
        if "reshaped_input_sizes" in asked:
            sizes.append(asked["reshaped_input_sizes"])
        [scaled] = self._processor.post_process_masks(logits.float().cpu(), *sizes, binarize=False)
        probability: npt.NDArray[np.float32] = torch.sigmoid(scaled[0]).numpy()
        return probability
