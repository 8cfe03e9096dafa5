"""A run's model leaves the study: weights, card, preprocessing and a script that uses it, in a folder of its own."""

from __future__ import annotations

import contextlib
import importlib.util
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from gaze_capture.errors import UserError
from gaze_capture.storage import folder_in_place, write_bytes_atomic, write_json_atomic
from segmentation.intensity import rules_for
from segmentation.job import JobEvent
from segmentation.leaving import outside
from segmentation.model_card import card_text, model_card
from segmentation.runs import RunFolder, latest_run
from segmentation.study import Study
from segmentation.workers import await_worker

THRESHOLD = 0.5

_HEAD = """# python use_model.py IMAGE OUT -> OUT.<target>.png; needs {needs}.
# Research use only; not a medical device.
import json, sys, cv2, numpy as np
from pathlib import Path
"""

_TAIL = """
if __name__ == "__main__":
    for target, probability in segment(sys.argv[1]).items():
        cv2.imwrite(f"{sys.argv[2]}.{target}.png", 255 * np.uint8(probability >= how["threshold"]))
"""

SCRIPT = (
    _HEAD.format(needs="onnxruntime, numpy, opencv-python")
    + """import onnxruntime

how = json.loads(Path(__file__).with_name("preprocessing.json").read_text(encoding="utf-8"))
model = onnxruntime.InferenceSession(Path(__file__).with_name("student.onnx").read_bytes())

def resized(pixels, width, height):
    shrinks = width * height < pixels.shape[0] * pixels.shape[1]
    return cv2.resize(pixels, (width, height), interpolation=cv2.INTER_AREA if shrinks else cv2.INTER_LINEAR)

def segment(path):  # an image of 8 bits -> the probability (H, W) of each target
    image = cv2.cvtColor(cv2.imread(str(path), cv2.IMREAD_COLOR | cv2.IMREAD_IGNORE_ORIENTATION), cv2.COLOR_BGR2RGB)
    small = resized(image, how["size_px"], how["size_px"]).astype(np.float32).transpose(2, 0, 1)
    looks = np.stack([((small / 255 - how["mean"]) / how["spread"])[:, ::v, ::h] for v in (1, -1) for h in (1, -1)])
    odds = 1 / (1 + np.exp(-model.run(None, {"images": looks})[0]))
    mean = (odds[0] + odds[1, :, :, ::-1] + odds[2, :, ::-1] + odds[3, :, ::-1, ::-1]) / 4
    return {name: resized(one, image.shape[1], image.shape[0]) for name, one in zip(how["targets"], mean)}
"""
    + _TAIL
)
"""Uses ``student.onnx`` without this program."""

TORCH_SCRIPT = (
    _HEAD.format(needs="gaze-insight")
    + """from segmentation.exported_model import ExportedModel

how = json.loads(Path(__file__).with_name("preprocessing.json").read_text(encoding="utf-8"))
model = ExportedModel(Path(__file__).parent)

def segment(path):  # an image of 8 bits -> the probability (H, W) of each target
    image = cv2.cvtColor(cv2.imread(str(path), cv2.IMREAD_COLOR | cv2.IMREAD_IGNORE_ORIENTATION), cv2.COLOR_BGR2RGB)
    return dict(zip(how["targets"], model.segment(image)))
"""
    + _TAIL
)
"""Uses ``student.safetensors`` with this program, where ONNX is not wanted."""


@dataclass(frozen=True)
class ModelReport:
    """What an export of a model wrote."""

    run: str
    folder: str
    files: tuple[str, ...]
    onnx: bool
    onnx_difference: float | None
    """Largest difference between the probabilities of the ONNX file and PyTorch; None where nothing could run it."""
    simulated_from: str | None


def _ignore(event: JobEvent) -> None:
    pass


def export_model(
    study: Study,
    to: Path | str,
    run_id: str | None = None,
    *,
    onnx: bool = True,
    on_event: Callable[[JobEvent], object] = _ignore,
) -> ModelReport:
    """Write a run's student into a new folder; it appears there when it is complete, or not at all.

    The folder holds ``student.safetensors``, ``student.onnx``, ``spec.json``, ``preprocessing.json``,
    ``model_card.md`` and ``.json``, and ``use_model.py``, which segments an image file.

    Parameters
    ----------
    to : a folder that is missing or empty
    run_id : default: the latest finished run
    onnx : without it, the script needs this program

    Raises
    ------
    UserError
        If there is no such run, it is being worked on or has learned nothing yet, the packages for ONNX are missing,
        the folder holds anything, or the disk refuses.
    """
    run = RunFolder(study.runs_folder / latest_run(study, run_id))
    if run.state() == "running":
        raise UserError(f"The run {run.id} is being worked on; stop it first, or wait for its end.")
    if onnx and importlib.util.find_spec("onnxscript") is None:
        raise UserError(
            "ONNX files are written by packages that are not installed: pip install 'gaze-insight[onnx]', or export "
            "the model without: --without-onnx"
        )
    spec = run.spec
    with folder_in_place(outside(study, to)) as folder:
        job: dict[str, Any] = {"task": "export-model", "folder": str(folder), "onnx": onnx}
        facts = await_worker(run, job, on_event)
        card = model_card(study, run, facts)
        write_json_atomic(folder / "spec.json", spec.to_json())
        write_json_atomic(folder / "preprocessing.json", _preprocessing(study, run, facts["text_width"]))
        write_json_atomic(folder / "model_card.json", card)
        write_bytes_atomic(folder / "model_card.md", card_text(card).encode())
        write_bytes_atomic(folder / "use_model.py", (SCRIPT if onnx else TORCH_SCRIPT).encode())
        files = tuple(sorted(path.name for path in folder.iterdir()))
    with contextlib.suppress(UserError):
        study.audit("export model", run=run.id, onnx=onnx)
    return ModelReport(run.id, str(to), files, onnx, facts["onnx_difference"], card["data"]["simulated_from"])


def _preprocessing(study: Study, run: RunFolder, text_width: int) -> dict[str, Any]:
    """Return what becomes of an image before and after the network; the script reads it."""
    spec = run.spec
    modalities = sorted({image.modality for image in study.images.values()})
    return {
        "targets": list(spec.targets),
        "size_px": spec.image_size_px,
        "channels": "RGB, grey repeated three times; values 0..255",
        "normalisation": rules_for(spec.normalisation, modalities),
        "normalisation_is": "how each modality's values become 0..255: 'as is' for 8-bit images; 'range' maps the 0.1 "
        "and 99.9 percentile of the volume; 'window C W' a window of that centre and width; 'z-score' maps mean -3 to "
        "+3 standard deviations of what is brighter than the volume's mean. The script takes images of 8 bits: others "
        "are to be mapped first.",
        "resize": "to size_px x size_px; area-averaged when shrinking (OpenCV's INTER_AREA), else linear",
        # segmentation.augmentation's, which torch is imported with.
        "mean": 0.5,
        "spread": 0.25,
        "standardise": "(value / 255 - mean) / spread",
        "input": {"name": "images", "type": "float32", "layout": "B, 3, size_px, size_px"},
        "output": {"name": "logits", "type": "float32", "layout": "B, targets, size_px, size_px"},
        "probability": "sigmoid of the logits, the mean over four looks: as it is, mirrored, upside down, both; "
        "then resized to the image as above",
        "threshold": THRESHOLD,
        "text_width": text_width,
    }
