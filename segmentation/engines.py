"""What computes a student's masks: PyTorch, or OpenVINO or ONNX Runtime where they are installed.

All compute the same function of the image. Probabilities agree within PROBABILITY_TOLERANCE (PyTorch with bf16, and
OpenVINO on processors that have bf16, round to eight bits on the way). In fp32 masks differ in a few pixels of their
outline at most: a Dice of .999 or more between them; bf16 was not measured on a trained student.

The two others read the network as an ONNX file, which is made once per checkpoint and network and kept in the run's
folder; any other program that reads ONNX can use it, too: ``images`` float32 (B, 3, S, S), standardised as
`segmentation.augmentation.standardised` does, to ``logits`` float32 (B, T, S, S).
"""

from __future__ import annotations

import contextlib
import hashlib
import importlib
import importlib.util
import io
import logging
import warnings
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from gaze_capture.errors import UserError
from gaze_capture.storage import write_bytes_atomic
from segmentation.device import Precision
from segmentation.lean import Lean

ENGINES = ("auto", "torch", "openvino", "onnx")

PROBABILITY_TOLERANCE = 0.03
"""Largest difference between two engines' probabilities; 1e-4 where both compute in fp32."""

WORTH_CONVERTING = 100
"""``auto`` converts a network, which takes some ten seconds, for this many images or more."""

_PACKAGES = {"openvino": ("openvino", "onnxscript"), "onnx": ("onnxruntime", "onnxscript")}

_CONVERSION = 1
"""To be raised when `to_onnx` gives another file for the same network."""


class Engine(ABC):
    """Computes probabilities (B, T, S, S), float32 on the CPU, of standardised images (B, 3, S, S)."""

    name: str
    precision: str
    """``fp32``, ``bf16`` or ``fp16``"""

    @abstractmethod
    def __call__(self, images: Tensor) -> Tensor:
        """Segment images."""


class TorchEngine(Engine):
    """The lean network in PyTorch, on the CPU or a GPU."""

    name = "torch"

    def __init__(self, network: nn.Module, precision: Precision) -> None:
        self.device, self.precision = precision.device, precision.name
        self.lean = Lean(network, DTYPES[precision.name]).to(precision.device)

    @torch.inference_mode()
    def __call__(self, images: Tensor) -> Tensor:
        """Segment images."""
        pixels = images.to(self.device, memory_format=torch.channels_last)
        return self.lean(pixels).sigmoid().cpu()  # type: ignore[no-any-return]


DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}


class OpenVinoEngine(Engine):
    """OpenVINO on the CPU.

    The file is read by its runtime alone: its Python converter reports each use to its maker's servers.
    """

    name = "openvino"

    def __init__(self, model: bytes, precision: str = "auto", threads: int | None = None) -> None:
        openvino = importlib.import_module("openvino")
        settings: dict[str, Any] = {
            "PERFORMANCE_HINT": "LATENCY",
            "INFERENCE_NUM_THREADS": threads or torch.get_num_threads(),
        }
        if precision in ("fp32", "bf16"):
            settings["INFERENCE_PRECISION_HINT"] = {"fp32": "f32", "bf16": "bf16"}[precision]
        core = openvino.Core()
        self._compiled = core.compile_model(core.read_model(io.BytesIO(model)), "CPU", settings)
        used = self._compiled.get_property("INFERENCE_PRECISION_HINT").to_string()
        self.precision = {"f32": "fp32", "f16": "fp16"}.get(used, used)

    def __call__(self, images: Tensor) -> Tensor:
        """Segment images."""
        (logits,) = self._compiled(images.float().contiguous().numpy()).values()
        return torch.from_numpy(logits).sigmoid()


class OnnxEngine(Engine):
    """ONNX Runtime on the CPU, in fp32."""

    name = "onnx"
    precision = "fp32"

    def __init__(self, model: bytes, threads: int | None = None) -> None:
        onnxruntime = importlib.import_module("onnxruntime")
        # The builds for Windows have it on.
        onnxruntime.disable_telemetry_events()
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = threads or torch.get_num_threads()
        self._session = onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])

    def __call__(self, images: Tensor) -> Tensor:
        """Segment images."""
        (logits,) = self._session.run(None, {"images": images.float().contiguous().numpy()})
        return torch.from_numpy(logits).sigmoid()


def installed(engine: str) -> bool:
    """Whether the packages of an engine are here."""
    return all(importlib.util.find_spec(name) is not None for name in _PACKAGES.get(engine, ()))


def choose_engine(wish: str, device: torch.device, images: int) -> str:
    """Return the engine asked for; ``auto`` is OpenVINO on a CPU, where it is installed and the work is worth it.

    Raises
    ------
    UserError
        If there is no such engine, it is not installed, or it cannot work on the device.
    """
    if wish not in ENGINES:
        raise UserError(f"There is no engine {wish!r}; choose one of {', '.join(ENGINES)}.")
    if wish == "auto":
        worth = device.type == "cpu" and images >= WORTH_CONVERTING
        return "openvino" if worth and installed("openvino") else "torch"
    if not installed(wish):
        raise UserError(
            f"The engine {wish} is not installed: pip install 'gaze-insight[{wish}]', or predict with --engine torch."
        )
    if wish != "torch" and device.type != "cpu":
        raise UserError(f"The engine {wish} works on the CPU alone; add --device cpu, or use --engine torch.")
    return wish


def make_engine(
    name: str,
    network: nn.Module,
    image_size_px: int,
    *,
    cache: Path,
    wish: str,
    precision: Callable[[], Precision],
) -> Engine:
    """Build an engine around a trained network that sees the image alone.

    Parameters
    ----------
    name
        As `choose_engine` returns it.
    image_size_px
        The side of the images that it will be given.
    cache
        The file that keeps the converted network, such as ``engines/student.onnx``; a key of weights and versions is
        added to its name.
    wish
        The spec's precision, ``auto`` or one by name; ONNX Runtime computes in fp32 whatever it is.
    precision
        Returns what PyTorch shall use; asked for PyTorch alone, because choosing one takes time.

    Raises
    ------
    UserError
        If the network cannot be converted.
    """
    if name == "torch":
        return TorchEngine(network, precision())

    def build(model: bytes) -> Engine:
        return OpenVinoEngine(model, wish) if name == "openvino" else OnnxEngine(model)

    path = cache.with_name(f"{cache.stem}-{key_of(network, image_size_px)}.onnx")
    if path.exists():
        # A file that bit rot or another program spoiled is made again.
        with contextlib.suppress(Exception):
            return build(path.read_bytes())
    try:
        model = to_onnx(network, image_size_px)
        engine = build(model)
    except Exception as error:
        first = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise UserError(
            f"The network cannot be used with the engine {name} ({first}); predict with --engine torch."
        ) from error
    # A folder that is full or read-only costs the next prediction a few seconds, not this one its result.
    with contextlib.suppress(UserError):
        write_bytes_atomic(path, model)
        for old in path.parent.glob(f"{cache.stem}-*.onnx"):
            if old != path:
                with contextlib.suppress(OSError):
                    old.unlink()
    return engine


def key_of(network: nn.Module, image_size_px: int) -> str:
    """Return what names a conversion: 16 hexadecimal digits of weights, size and versions."""
    digest = hashlib.sha256(f"{_CONVERSION} {torch.__version__} {image_size_px} {network}".encode())
    for name, tensor in sorted(network.state_dict().items()):
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode())
        digest.update(tensor.detach().cpu().numpy().tobytes())
    return digest.hexdigest()[:16]


def to_onnx(network: nn.Module, image_size_px: int) -> bytes:
    """Return a trained network that sees the image alone as an ONNX file, for batches of any length."""
    lean = Lean(network).cpu().to(memory_format=torch.contiguous_format)  # type: ignore[call-overload]
    example = torch.zeros(2, 3, image_size_px, image_size_px)
    batch = torch.export.Dim("batch", min=1, max=4096)
    with _quiet():
        program = torch.onnx.export(
            lean,
            (example,),
            input_names=["images"],
            output_names=["logits"],
            dynamic_shapes=({0: batch},),
            dynamo=True,
            verbose=False,
        )
    assert program is not None
    model: bytes = program.model_proto.SerializeToString()
    return model


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Keep the exporter's talk about its own parts from the log."""
    logger = logging.getLogger("torch.onnx")
    before = logger.level
    logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logger.setLevel(before)
