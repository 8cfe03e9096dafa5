"""What a computer has for training, and why a card is not used: told by a stand-in for nvidia-smi."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from gaze_capture.errors import UserError
from segmentation import machine
from segmentation.machine import (
    GIB,
    Gpu,
    Graphics,
    TorchBuild,
    installed_torch,
    look_at_graphics,
    peak_memory_bytes,
    total_memory_bytes,
    why_no_gpu,
)
from tests.machine_support import FAILED, MISMATCH, ON_LINUX, FakeSmi, smi

__all__ = ["smi"]

CUDA_12 = TorchBuild("2.9.0+cu128", "12.8")
CUDA_13 = TorchBuild("2.11.0", "13.0")
CPU = TorchBuild("2.9.0+cpu")
CARD = Gpu("NVIDIA GeForce RTX 4090", 24 * GIB, 20 * GIB)


@ON_LINUX
def test_cards_driver_and_cuda_are_read_from_the_driver(smi: FakeSmi) -> None:
    smi.lists("NVIDIA GeForce RTX 4090, 24564, 23028", "NVIDIA T400, 2048, [N/A]")
    found = look_at_graphics()
    assert [gpu.name for gpu in found.gpus] == ["NVIDIA GeForce RTX 4090", "NVIDIA T400"]
    assert found.gpus[0].memory_bytes == 24564 * 2**20 and found.gpus[0].free_bytes == 23028 * 2**20
    assert found.gpus[1].free_bytes == 0
    assert (found.driver, found.cuda, found.problem) == ("550.54.15", "12.4", "")
    assert why_no_gpu(found, CUDA_12) == ""


@ON_LINUX
@pytest.mark.parametrize(
    ("csv", "status", "expected"),
    [
        (FAILED, 9, "does not answer (nvidia-smi says: NVIDIA-SMI has failed"),
        (MISMATCH, 18, "restart the computer"),
        ("No devices were found\n", 6, "finds no graphics card"),
        ("", 3, "exit status 3"),
        ("", 0, "no card was listed"),
    ],
)
def test_a_driver_that_does_not_answer(smi: FakeSmi, csv: str, status: int, expected: str) -> None:
    smi.says(csv, status=status)
    found = look_at_graphics()
    assert found.gpus == () and expected in why_no_gpu(found, CUDA_12)


@ON_LINUX
def test_a_tool_that_cannot_be_run(smi: FakeSmi) -> None:
    smi.says("")
    (smi.folder / "nvidia-smi").write_bytes(b"\x7fELF nonsense")
    assert "does not answer" in why_no_gpu(look_at_graphics(), CUDA_12)


def test_a_driver_too_old_is_told_with_both_versions_and_what_to_do() -> None:
    sentence = why_no_gpu(Graphics((CARD,), "470.82.01", "11.4"), CUDA_12)
    assert "driver 470.82.01 is too old" in sentence and "CUDA 11.4 at most" in sentence
    assert "needs CUDA 12.8" in sentence and "driver to version 525 or newer" in sentence
    # A driver that does not say which CUDA it can run is judged by its own version.
    assert "CUDA 12 at most" in why_no_gpu(Graphics((CARD,), "535.104"), CUDA_13)
    assert why_no_gpu(Graphics((CARD,), "580.65.06"), CUDA_13) == ""
    # Within a major version of CUDA an older driver will do.
    assert why_no_gpu(Graphics((CARD,), "525.60.13", "12.0"), CUDA_12) == ""


def test_each_reason_is_a_sentence_of_its_own() -> None:
    with_card = Graphics((CARD,), "550.54.15", "12.4")
    assert "made for the processor alone" in why_no_gpu(with_card, CPU)
    assert "CUDA 12.4 or older" in why_no_gpu(with_card, CPU)
    assert "PyTorch is not installed" in why_no_gpu(with_card, TorchBuild())
    # A bundle without sources does not say what it was built with; the worker will.
    assert why_no_gpu(with_card, TorchBuild("unknown")) == ""
    assert "no NVIDIA graphics card" in why_no_gpu(Graphics(), CPU)
    assert "not its driver" in why_no_gpu(Graphics(others=("NVIDIA",)), CPU)
    assert "Mac" in why_no_gpu(Graphics(others=("Apple",)), CPU)
    assert "ROCm" in why_no_gpu(Graphics(others=("AMD",)), CPU)
    rocm = TorchBuild("2.9.0+rocm6.4", "", "6.4")
    assert why_no_gpu(Graphics(others=("AMD",)), rocm) == ""
    assert "built for AMD cards" in why_no_gpu(Graphics(), rocm)


def test_the_installed_torch_is_read_without_importing_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    package = tmp_path / "torch"
    package.mkdir()
    (package / "__init__.py").write_text("raise SystemExit('imported')\n")
    (package / "version.py").write_text(
        "from typing import Optional\n\n"
        "__all__ = ['__version__', 'debug', 'cuda', 'git_version', 'hip', 'xpu']\n"
        "__version__ = '2.9.0+cu126'\ndebug = False\ncuda: Optional[str] = '12.6'\n"
        "git_version = '0fabc3ba44823f257e70ce397d989c8de5e362c1'\nhip: Optional[str] = None\n"
    )
    command = [
        sys.executable,
        "-c",
        "import sys; sys.path.insert(0, sys.argv[1]); sys.path.append(sys.argv[2])\n"
        "from segmentation.machine import installed_torch; print(installed_torch())",
        str(tmp_path),
        str(Path(machine.__file__).parents[1]),
    ]
    told = subprocess.run(command, capture_output=True, text=True, check=True, cwd=tmp_path).stdout
    assert told.strip() == "TorchBuild(version='2.9.0+cu126', cuda='12.6', rocm='')"
    torch = pytest.importorskip("torch")
    monkeypatch.delitem(sys.modules, "torch")
    read = installed_torch()
    assert read == TorchBuild(torch.__version__, torch.version.cuda or "", torch.version.hip or "")


def test_memory_of_this_process_and_computer() -> None:
    before = peak_memory_bytes()
    assert 2**20 < before < total_memory_bytes()
    filled = bytearray(b"x") * (200 * 2**20)
    assert peak_memory_bytes() > 150 * 2**20
    del filled


@ON_LINUX
def test_the_worker_says_why_it_uses_the_processor(smi: FakeSmi, monkeypatch: pytest.MonkeyPatch) -> None:
    torch = pytest.importorskip("torch")
    if torch.cuda.is_available():
        pytest.skip("there is a card")
    from segmentation.device import choose_device, why_no_cuda

    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    smi.lists("NVIDIA GeForce RTX 4090, 24564, 23028", driver="470.82.01", cuda="11.4")
    monkeypatch.setattr(torch.version, "cuda", "12.8")
    assert "driver 470.82.01 is too old" in why_no_cuda()
    with pytest.raises(UserError, match=r"choose auto or cpu\. The NVIDIA GeForce RTX 4090 is not used"):
        choose_device("cuda")
    assert choose_device("auto").type == "cpu"
    smi.lists("NVIDIA GeForce RTX 4090, 24564, 23028")
    assert why_no_cuda().startswith("A graphics card is there, but PyTorch finds none")
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "-1")
    assert "CUDA_VISIBLE_DEVICES is set to '-1'" in why_no_cuda()
