"""What computes when a model is exported, in the worker: weights as safetensors and ONNX, held against each other."""

from __future__ import annotations

import importlib
import importlib.util
from pathlib import Path
from typing import Any

import torch

from gaze_capture.errors import UserError
from gaze_capture.storage import explained_os_errors, sha256_of, write_bytes_atomic
from segmentation.checkpoints import latest_checkpoint, load_state
from segmentation.engines import OnnxEngine, to_onnx
from segmentation.exported_model import WEIGHTS
from segmentation.lean import Lean
from segmentation.predictor import Predictor
from segmentation.runs import RunFolder

ONNX = "student.onnx"
LARGEST_DIFFERENCE = 1e-3
"""Between the probabilities of PyTorch and of ONNX Runtime; what differs more is not given out."""


def export_weights(run: RunFolder, folder: Path, *, onnx: bool = True) -> dict[str, Any]:
    """Write ``student.safetensors`` and, if asked for, ``student.onnx`` into a folder; return facts for the card.

    Raises
    ------
    UserError
        If the run has no checkpoint, the network cannot be converted, or the file computes something else.
    """
    predictor = Predictor(run, device="cpu")
    network = predictor.network("student")
    checkpoint = latest_checkpoint(run)
    assert checkpoint is not None
    source = checkpoint / f"{predictor.file_of('student')}.safetensors"
    with explained_os_errors(source):
        data = source.read_bytes()
    weights = folder / f"{WEIGHTS}.safetensors"
    write_bytes_atomic(weights, data)
    facts: dict[str, Any] = {
        "iterations": predictor.step,
        "weights_sha256": sha256_of(weights),
        "weights_are": predictor.file_of("student"),
        "parameters": sum(tensor.numel() for tensor in network.parameters()),
        "text_width": int(load_state(checkpoint)["text_width"]),
        "onnx_sha256": None,
        "onnx_difference": None,
    }
    if not onnx:
        return facts
    size = predictor.spec.image_size_px
    try:
        model = to_onnx(network, size)
    except Exception as error:
        first = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise UserError(
            f"The network cannot be converted to ONNX ({first}); export it without: --without-onnx"
        ) from error
    write_bytes_atomic(folder / ONNX, model)
    facts["onnx_sha256"] = sha256_of(folder / ONNX)
    if importlib.util.find_spec("onnxruntime") is not None:
        images = torch.randn(2, 3, size, size, generator=torch.Generator().manual_seed(0))
        with torch.inference_mode():
            expected = Lean(network)(images).sigmoid()
        difference = float((OnnxEngine(model)(images) - expected).abs().max())
        if not difference <= LARGEST_DIFFERENCE:
            raise UserError(
                f"The ONNX file gives other probabilities than the network (by {difference:.2g}); export the model "
                "without: --without-onnx"
            )
        facts["onnx_difference"] = difference
    return facts
