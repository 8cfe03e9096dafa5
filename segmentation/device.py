"""Which processor a network runs on, with how many threads, and in which precision."""

from __future__ import annotations

import ctypes
import math
import os
import sys
import time
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass

import torch

from gaze_capture.errors import UserError
from segmentation.machine import (
    TorchBuild,
    look_at_graphics,
    peak_memory_bytes,
    processors,
    total_memory_bytes,
    why_no_gpu,
)

# Of glibc's malloc.h.
M_TRIM_THRESHOLD = -1
M_MMAP_MAX = -4


@dataclass(frozen=True)
class Precision:
    """A device with the number format of its convolutions."""

    device: torch.device
    name: str
    """``fp32``, ``bf16`` or ``fp16``"""

    def autocast(self) -> AbstractContextManager[None]:
        """Return the context in which networks and losses are computed."""
        if self.name == "fp32":
            return nullcontext()
        dtype = torch.bfloat16 if self.name == "bf16" else torch.float16
        return torch.autocast(self.device.type, dtype)


def choose_device(wish: str) -> torch.device:
    """Return the device a spec asks for; ``auto`` is the first GPU, or else the CPU.

    Raises
    ------
    UserError
        If this machine or this torch has no such device.
    """
    if wish == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(wish)
    except RuntimeError:
        raise UserError(f"There is no device {wish!r}; choose auto, cpu, cuda or cuda:1.") from None
    if device.type == "cuda" and (
        not torch.cuda.is_available() or (device.index or 0) >= max(torch.cuda.device_count(), 1)
    ):
        why = f" {why_no_cuda()}" if not torch.cuda.is_available() else ""
        raise UserError(
            f"The device {wish!r} was asked for, but this computer's PyTorch sees "
            f"{torch.cuda.device_count()} GPUs; choose auto or cpu.{why}"
        )
    if device.type not in ("cpu", "cuda"):
        raise UserError(f"The device {wish!r} is not supported; choose auto, cpu, cuda or cuda:1.")
    return device


def why_no_cuda() -> str:
    """Say in a sentence why this process can use no graphics card."""
    build = TorchBuild(torch.__version__, torch.version.cuda or "", torch.version.hip or "")
    if why := why_no_gpu(look_at_graphics(), build):
        return why
    hidden = os.environ.get("CUDA_VISIBLE_DEVICES")
    if hidden is not None:
        return f"CUDA_VISIBLE_DEVICES is set to {hidden!r}, which leaves PyTorch no graphics card it can use."
    return "A graphics card is there, but PyTorch finds none it can use; update the NVIDIA driver."


def memory_used(device: torch.device) -> dict[str, int]:
    """Return the most memory the networks' work has taken, and how much there is, in bytes; waits for no GPU."""
    if device.type == "cuda":
        total = torch.cuda.get_device_properties(device).total_memory
        return {"memory_bytes": torch.cuda.max_memory_allocated(device), "memory_total_bytes": total}
    return {"memory_bytes": peak_memory_bytes(), "memory_total_bytes": total_memory_bytes()}


def describe(device: torch.device) -> str:
    """Name a device for people: ``cpu``, or ``cuda`` with the GPU's own name."""
    return f"{device} ({torch.cuda.get_device_name(device)})" if device.type == "cuda" else "cpu"


def use_threads(threads: int | None, sharers: int = 1) -> int:
    """Set how many processor threads networks use, None for all cores, and return it.

    So many `sharers`, processes of this machine that work together, take their share of the cores.
    """
    count = max(1, min(threads or processors() // sharers, processors()))
    torch.set_num_threads(count)
    return count


def keep_freed_memory() -> None:
    """Have this process keep memory that was freed, where its C library can (glibc), for the rest of its life.

    By itself it gives large tensors back at once, and each new one then costs a page fault every 4 KiB: a tenth of a
    training step on the CPU. For a process of its own that does nothing but train.
    """
    library = ctypes.CDLL(None) if sys.platform == "linux" else None
    # musl has no such function.
    if library and hasattr(library, "mallopt"):
        library.mallopt(M_MMAP_MAX, 0)
        library.mallopt(M_TRIM_THRESHOLD, 2**31 - 1)


def choose_precision(wish: str, device: torch.device, trial: Callable[[Precision], object]) -> Precision:
    """Return the precision a spec asks for; ``auto`` measures on the CPU whether bf16 pays.

    Parameters
    ----------
    trial
        Does the work once in a precision, for the measurement.
    """
    if wish == "auto":
        if device.type == "cuda":
            wish = "bf16" if torch.cuda.is_bf16_supported(including_emulation=False) else "fp16"
        else:
            wish = "bf16" if _bf16_pays(device, trial) else "fp32"
    return Precision(device, wish)


def is_out_of_memory(error: RuntimeError) -> bool:
    """Whether an error of torch says that memory ran out, a GPU's or the computer's."""
    return isinstance(error, torch.OutOfMemoryError) or "can't allocate memory" in str(error)


def _bf16_pays(device: torch.device, trial: Callable[[Precision], object]) -> bool:
    # Without hardware for it oneDNN converts back and forth: never worth a trial.
    flags = torch.cpu.get_capabilities() if hasattr(torch.cpu, "get_capabilities") else {}
    if not any(flags.get(name) for name in ("avx512_bf16", "amx_bf16", "arm_bf16", "bf16")):
        return False
    fastest = {"bf16": math.inf, "fp32": math.inf}
    # In turns, and the best of each: another program's burst must not decide.
    for _ in range(4):
        for name, seconds in fastest.items():
            start = time.perf_counter()
            trial(Precision(device, name))
            fastest[name] = min(seconds, time.perf_counter() - start)
    return fastest["bf16"] < fastest["fp32"]
