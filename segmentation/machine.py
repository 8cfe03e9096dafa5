"""What this computer has for training: processor, memory, graphics card. Never imports torch.

The driver is asked through ``nvidia-smi``, and the installed PyTorch through its ``version.py``: importing torch would
take the window seconds and a gigabyte. The worker, which has torch, asks the same questions when it finds no GPU.
"""

from __future__ import annotations

import contextlib
import csv
import ctypes
import functools
import importlib.util
import os
import platform
import re
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

SMI_SECONDS = 15.0
MIB = 2**20
GIB = 2**30

OLDEST_DRIVERS = {11: "450", 12: "525", 13: "580"}
"""Oldest NVIDIA driver branch by the major version of CUDA that it can run (NVIDIA, CUDA Compatibility): within a major
version any driver of this branch or newer will do."""
_PCI_VENDORS = {"0x10de": "NVIDIA", "0x1002": "AMD"}


def processors() -> int:
    """Return how many processors this process may use."""
    try:
        return len(os.sched_getaffinity(0))
    except AttributeError:
        # Neither Windows nor macOS ties a process to processors.
        return os.cpu_count() or 1


@dataclass(frozen=True)
class Gpu:
    """An NVIDIA graphics card as its driver tells of it."""

    name: str
    memory_bytes: int
    free_bytes: int
    """Not taken by any program now."""


@dataclass(frozen=True)
class Graphics:
    """The graphics cards of this computer."""

    gpus: tuple[Gpu, ...] = ()
    driver: str = ""
    """The NVIDIA driver's version, as in ``550.54.15``; empty where there is none."""
    cuda: str = ""
    """The newest CUDA that the driver can run, as in ``12.4``; empty where it does not say."""
    problem: str = ""
    """What nvidia-smi said in place of an answer."""
    others: tuple[str, ...] = ()
    """Makers of the cards that are seen without a driver's help: ``NVIDIA``, ``AMD``, ``Apple``."""


@dataclass(frozen=True)
class TorchBuild:
    """The PyTorch that is installed."""

    version: str = ""
    """As in ``2.9.0+cpu``; empty where there is none."""
    cuda: str = ""
    """The CUDA it was built for, as in ``12.6``; empty for a build without."""
    rocm: str = ""
    """The same for AMD's ROCm."""


@dataclass(frozen=True)
class Machine:
    """All that decides how much training a computer can do."""

    cores: int
    memory_bytes: int
    """0 where the system does not say."""
    graphics: Graphics
    torch: TorchBuild

    @property
    def why_no_gpu(self) -> str:
        """A sentence on why training will use the processor; empty where a graphics card should work."""
        return why_no_gpu(self.graphics, self.torch)

    @property
    def gpu(self) -> Gpu | None:
        """The card training would use: the first, as PyTorch's ``cuda``."""
        return None if self.why_no_gpu or not self.graphics.gpus else self.graphics.gpus[0]


def this_machine() -> Machine:
    """Look at this computer; asking the driver can take a second."""
    return Machine(processors(), total_memory_bytes(), look_at_graphics(), installed_torch())


# Graphics


def look_at_graphics() -> Graphics:
    """Ask the driver which cards there are."""
    tool = shutil.which("nvidia-smi")
    if tool is None:
        return Graphics(others=_other_makers())
    fields = "--query-gpu=name,memory.total,memory.free,driver_version"
    code, answer = _asked([tool, fields, "--format=csv,noheader,nounits"])
    if code:
        return Graphics(problem=answer or f"exit status {code}", others=_other_makers())
    gpus, driver = [], ""
    for row in csv.reader(answer.splitlines(), skipinitialspace=True):
        if len(row) == 4 and row[3].strip():
            name, total, free, driver = (part.strip() for part in row)
            gpus.append(Gpu(name, _mib(total), _mib(free)))
    if not gpus:
        return Graphics(problem=answer or "no card was listed", others=_other_makers())
    # The table for people alone says which CUDA the driver can run.
    code, table = _asked([tool])
    found = re.search(r"CUDA (?:UMD )?Version\s*:\s*(\d+(?:\.\d+)?)", table) if not code else None
    return Graphics(tuple(gpus), driver, found[1] if found else "")


def _asked(command: list[str]) -> tuple[int, str]:
    """Return a program's exit status and what it said."""
    options: dict[str, Any] = {}
    if sys.platform == "win32":
        options["creationflags"] = subprocess.CREATE_NO_WINDOW
    try:
        done = subprocess.run(
            command,
            capture_output=True,
            text=True,
            errors="replace",
            timeout=SMI_SECONDS,
            stdin=subprocess.DEVNULL,
            check=False,
            **options,
        )
    except subprocess.TimeoutExpired:
        return 1, f"no answer within {SMI_SECONDS:.0f} s"
    except OSError as error:
        return 1, str(error.strerror or error)
    return done.returncode, (done.stdout.strip() or done.stderr.strip())


def _mib(text: str) -> int:
    # Cards that share the computer's memory answer "[N/A]".
    return int(float(text) * MIB) if re.fullmatch(r"\d+(\.\d+)?", text) else 0


def _other_makers() -> tuple[str, ...]:
    if sys.platform == "darwin":
        return ("Apple",) if platform.machine() == "arm64" else ()
    found = set()
    for path in Path("/sys/class/drm").glob("card*/device/vendor"):
        with contextlib.suppress(OSError):
            found.add(_PCI_VENDORS.get(path.read_text().strip(), ""))
    return tuple(sorted(found - {""}))


def installed_torch() -> TorchBuild:
    """Read which PyTorch is installed, without importing it."""
    if "torch" in sys.modules:
        version = sys.modules["torch"].version
        return TorchBuild(version.__version__, version.cuda or "", version.hip or "")
    spec = importlib.util.find_spec("torch")
    for folder in (spec.submodule_search_locations or []) if spec else []:
        with contextlib.suppress(OSError):
            text = (Path(folder) / "version.py").read_text(encoding="utf-8")
            return TorchBuild(*(_assigned(text, name) for name in ("__version__", "cuda", "hip")))
    # A bundle may keep no sources: what it was built with only the worker can tell.
    return TorchBuild("unknown") if spec else TorchBuild()


def _assigned(text: str, name: str) -> str:
    found = re.search(rf"^{name}\s*(?::[^=\n]*)?=\s*['\"]([^'\"\n]+)['\"]", text, re.MULTILINE)
    return found[1] if found else ""


def why_no_gpu(graphics: Graphics, torch: TorchBuild) -> str:
    """Say in a sentence why PyTorch will not use a graphics card here, and what to do; nothing where it should.

    Parameters
    ----------
    graphics, torch
        As `look_at_graphics` and `installed_torch` find them.
    """
    if not torch.version:
        return "PyTorch is not installed, and nothing can be trained without it: pip install torch."
    if torch.rocm:
        return "" if "AMD" in graphics.others else "This PyTorch is built for AMD cards, and there is none."
    if not graphics.gpus:
        return _no_card(graphics)
    name = graphics.gpus[0].name
    if torch.version != "unknown" and not torch.cuda:
        goes = f"CUDA {graphics.cuda} or older" if graphics.cuda else "CUDA"
        return (
            f"The {name} is not used: the PyTorch installed here ({torch.version}) is made for the processor alone; "
            f"install its build for {goes}, as pytorch.org/get-started says."
        )
    wanted, able = _major(torch.cuda), _able(graphics)
    if wanted and able and able < wanted:
        newest = f"CUDA {graphics.cuda}" if graphics.cuda else f"CUDA {able}"
        branch = OLDEST_DRIVERS.get(wanted)
        update = f"version {branch} or newer" if branch else f"one for CUDA {wanted}"
        return (
            f"The {name} is not used: its driver {graphics.driver} is too old, it can run {newest} at most, and the "
            f"PyTorch installed here ({torch.version}) needs CUDA {torch.cuda}; update the NVIDIA driver to {update}, "
            f"or install a PyTorch build for CUDA {able}."
        )
    return ""


def _no_card(graphics: Graphics) -> str:
    if graphics.problem:
        said = graphics.problem.splitlines()[0].rstrip(". ")
        if "No devices were found" in graphics.problem:
            return (
                "The NVIDIA driver is installed, but it finds no graphics card; training uses the processor."
            )
        if "version mismatch" in graphics.problem:
            return (
                "The NVIDIA driver was updated while it was at work: restart the computer. Until then training uses "
                "the processor."
            )
        return (
            f"The NVIDIA driver does not answer (nvidia-smi says: {said}); reinstall it, or training uses the "
            "processor."
        )
    if "NVIDIA" in graphics.others:
        return "There is an NVIDIA card, but not its driver (nvidia-smi is missing); install it to train on the card."
    if "Apple" in graphics.others:
        return "Training uses the processor: the graphics of a Mac are not used, only NVIDIA cards are."
    if "AMD" in graphics.others:
        return (
            "Training uses the processor: the AMD card would need PyTorch's build for ROCm, and only NVIDIA cards "
            "were tried."
        )
    return "There is no NVIDIA graphics card, or its driver is not installed; training uses the processor."


def _able(graphics: Graphics) -> int:
    """Return the newest major version of CUDA that the driver can run; 0 where unknown."""
    if graphics.cuda:
        return _major(graphics.cuda)
    branch = _major(graphics.driver)
    return max((cuda for cuda, oldest in OLDEST_DRIVERS.items() if branch >= int(oldest)), default=0)


def _major(version: str) -> int:
    found = re.match(r"\d+", version)
    return int(found[0]) if found else 0


# Memory


@functools.cache
def total_memory_bytes() -> int:
    """Return the computer's memory, or 0 where the system does not say."""
    if sys.platform == "win32":
        status = (ctypes.c_uint64 * 8)()
        # MEMORYSTATUSEX begins with its own length and the load, 32 bits each, then the total.
        ctypes.cast(status, ctypes.POINTER(ctypes.c_uint32))[0] = ctypes.sizeof(status)
        return int(status[1]) if ctypes.windll.kernel32.GlobalMemoryStatusEx(ctypes.byref(status)) else 0
    with contextlib.suppress(OSError, ValueError):
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    return 0


def peak_memory_bytes() -> int:
    """Return the most memory this process has had in use, or 0 where the system does not say."""
    if sys.platform == "win32":
        counters = (ctypes.c_size_t * 10)()
        ctypes.cast(counters, ctypes.POINTER(ctypes.c_uint32))[0] = ctypes.sizeof(counters)
        kernel = ctypes.windll.kernel32
        kernel.GetCurrentProcess.restype = ctypes.c_void_p
        process = ctypes.c_void_p(kernel.GetCurrentProcess())
        # PROCESS_MEMORY_COUNTERS: length and page faults, 32 bits each, then the peak of the working set.
        asked = kernel.K32GetProcessMemoryInfo(process, ctypes.byref(counters), ctypes.sizeof(counters))
        return int(counters[1]) if asked else 0
    with contextlib.suppress(OSError):
        # Not getrusage: its peak is inherited from the process that started this one.
        status = Path("/proc/self/status").read_text()
        if found := re.search(r"^VmHWM:\s+(\d+) kB", status, re.MULTILINE):
            return int(found[1]) * 1024
    import resource

    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024
