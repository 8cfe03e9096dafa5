"""A stand-in for nvidia-smi that answers as the real one does, for tests on computers without a card."""

from __future__ import annotations

import os
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest

TABLE = """\
Thu Nov 26 10:21:07 2026
+-----------------------------------------------------------------------------------------+
| NVIDIA-SMI {driver:<22}Driver Version: {driver:<15} CUDA Version: {cuda:<9}|
|-----------------------------------------+------------------------+----------------------+
| GPU  Name                 Persistence-M | Bus-Id          Disp.A | Volatile Uncorr. ECC |
| Fan  Temp   Perf          Pwr:Usage/Cap |           Memory-Usage | GPU-Util  Compute M. |
|                                         |                        |               MIG M. |
|=========================================+========================+======================|
|   0  NVIDIA GeForce RTX 4090        Off |   00000000:01:00.0  On |                  Off |
|  0%   43C    P8             18W /  450W |    1212MiB /  24564MiB |      1%      Default |
+-----------------------------------------+------------------------+----------------------+
"""
FAILED = (
    "NVIDIA-SMI has failed because it couldn't communicate with the NVIDIA driver. Make sure that the latest NVIDIA "
    "driver is installed and running.\n"
)
MISMATCH = "Failed to initialize NVML: Driver/library version mismatch\nNVML library version: 550.54\n"

ON_LINUX = pytest.mark.skipif(sys.platform == "win32", reason="the stand-in is a shell script")


@dataclass
class FakeSmi:
    """Puts an ``nvidia-smi`` first on PATH."""

    folder: Path

    def lists(self, *rows: str, driver: str = "550.54.15", cuda: str = "12.4") -> None:
        """Answer with cards, each ``name, MiB, free MiB``, as the query for CSV and the table for people."""
        self.says("".join(f"{row}, {driver}\n" for row in rows), TABLE.format(driver=driver, cuda=cuda))

    def says(self, csv: str, table: str = "", status: int = 0) -> None:
        """Answer with these words and this exit status."""
        self.folder.mkdir(exist_ok=True)
        (self.folder / "csv").write_text(csv)
        (self.folder / "table").write_text(table)
        tool = self.folder / "nvidia-smi"
        tool.write_text(
            "#!/bin/sh\n"
            f'case "$1" in --query-gpu=*) cat "{self.folder}/csv";; *) cat "{self.folder}/table";; esac\n'
            f"exit {status}\n"
        )
        tool.chmod(0o755)


@pytest.fixture
def smi(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> FakeSmi:
    """Return a stand-in for nvidia-smi, on PATH once it has been told what to say."""
    folder = tmp_path / "smi"
    monkeypatch.setenv("PATH", f"{folder}{os.pathsep}{os.environ['PATH']}")
    return FakeSmi(folder)
