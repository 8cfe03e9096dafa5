"""What a worker that trains does with memory that it frees."""

import platform
import subprocess
import sys

import pytest

SCRIPT = """
import pathlib, sys, torch
from segmentation.device import keep_freed_memory
if sys.argv[1] == "kept":
    keep_freed_memory()
tensor = torch.ones(2**25)
del tensor
status = pathlib.Path("/proc/self/status").read_text()
high, now = (int(status.split(name)[1].split()[0]) for name in ("VmHWM:", "VmRSS:"))
print((high - now) // 1024)
"""


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="another C library decides for itself")
def test_freed_memory_stays_with_the_process_once_it_is_to_be_kept() -> None:
    def returned(mode: str) -> int:
        command = [sys.executable, "-c", SCRIPT, mode]
        return int(subprocess.run(command, capture_output=True, text=True, check=True).stdout)

    # Of 128 MiB.
    assert returned("given back") > 100 and returned("kept") < 20
