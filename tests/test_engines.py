import importlib.util
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from gaze_capture.errors import UserError
from segmentation.device import Precision
from segmentation.engines import (
    PROBABILITY_TOLERANCE,
    WORTH_CONVERTING,
    Engine,
    TorchEngine,
    choose_engine,
    installed,
    make_engine,
)
from segmentation.metrics import dice
from segmentation.networks import Student
from segmentation.prediction import predict
from segmentation.predictor import Predictor
from segmentation.runs import RunFolder, create_run
from segmentation.study import Study
from segmentation.training import train
from tests.test_lean import lived_in
from tests.training_helpers import Events, HashEncoder, make_study, tiny

CPU = torch.device("cpu")
FP32 = Precision(CPU, "fp32")


def needing(engine: str, *more: str) -> Any:
    return pytest.param(
        engine,
        *more,
        marks=pytest.mark.skipif(
            not installed(engine), reason=f"the packages of gaze-insight[{engine}] are missing"
        ),
    )


OTHERS = pytest.mark.parametrize("name", [needing("openvino"), needing("onnx")])


def made(name: str, student: Student, size: int, folder: Path, wish: str = "fp32") -> Engine:
    return make_engine(
        name, student, size, cache=folder / "student.onnx", wish=wish, precision=lambda: Precision(CPU, wish)
    )


@OTHERS
@pytest.mark.parametrize(("widths", "size"), [((4, 8, 8, 12, 16), 48), ((0, 8, 8, 12, 16, 20), 96)])
def test_engines_compute_the_same_function(
    name: str, widths: tuple[int, ...], size: int, tmp_path: Path
) -> None:
    student = lived_in(widths)
    engine = made(name, student, size, tmp_path)
    assert engine.name == name and engine.precision == "fp32"
    # Batches of any length, and sides in memory in any order.
    for batch in (1, 3, 8):
        images = torch.randn(batch, 3, size, size).to(memory_format=torch.channels_last)
        with torch.inference_mode():
            expected = student(images).logits.sigmoid()
        for pixels in (images, images.flip([2, 3]).flip([2, 3])):
            found = engine(pixels)
            assert found.shape == expected.shape and found.dtype == torch.float32
            assert (found - expected).abs().max() < 1e-4


@pytest.mark.parametrize(
    ("name", "wish"), [("torch", "bf16"), needing("openvino", "auto"), needing("openvino", "bf16")]
)
def test_half_precision_stays_within_the_documented_tolerance(name: str, wish: str, tmp_path: Path) -> None:
    student = Student(1, (4, 8, 8, 12, 16)).eval()
    images = torch.randn(4, 3, 64, 64)
    with torch.inference_mode():
        expected = student(images).logits.sigmoid()
    found = made(name, student, 64, tmp_path, wish)(images)
    assert (found - expected).abs().max() < PROBABILITY_TOLERANCE


@OTHERS
def test_the_converted_network_is_kept_until_the_weights_change(name: str, tmp_path: Path) -> None:
    student = lived_in((4, 8, 8, 12, 16))
    images = torch.randn(1, 3, 32, 32)
    first = made(name, student, 32, tmp_path)(images)
    (kept,) = tmp_path.iterdir()
    written = kept.stat().st_mtime_ns
    assert torch.equal(made(name, student, 32, tmp_path)(images), first)
    assert kept.stat().st_mtime_ns == written
    # Half a file is made again.
    kept.write_bytes(kept.read_bytes()[:500])
    assert torch.equal(made(name, student, 32, tmp_path)(images), first)
    assert kept.stat().st_size > 500
    with torch.no_grad():
        torch.nn.init.constant_(student.head.bias, 1.0)  # type: ignore[arg-type]
    assert not torch.equal(made(name, student, 32, tmp_path)(images), first)
    (only,) = tmp_path.iterdir()
    assert only != kept


@OTHERS
def test_a_folder_that_cannot_be_written_costs_no_result(name: str, tmp_path: Path) -> None:
    (tmp_path / "taken").write_bytes(b"a file where a folder should be")
    student = lived_in((4, 8, 8, 12, 16))
    images = torch.randn(1, 3, 32, 32)
    found = made(name, student, 32, tmp_path / "taken")(images)
    assert (found - TorchEngine(student, FP32)(images)).abs().max() < 1e-4


@OTHERS
def test_nothing_is_sent_anywhere(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """OpenVINO's converter would report its use; its runtime, which is all that is used, does not."""
    import socket

    def refuse(*_: object, **__: object) -> None:
        raise AssertionError("a socket was opened")

    monkeypatch.setattr(socket.socket, "connect", refuse)
    if importlib.util.find_spec("openvino_telemetry"):
        monkeypatch.setattr("openvino_telemetry.Telemetry.init", refuse)
    made(name, lived_in((4, 8, 8, 12, 16)), 32, tmp_path)(torch.randn(1, 3, 32, 32))


@OTHERS
def test_a_network_that_cannot_be_converted_is_said(name: str, tmp_path: Path) -> None:
    class Choosy(torch.nn.Module):
        def forward(self, images: torch.Tensor) -> torch.Tensor:
            raise RuntimeError("no such operator\nand much more")

    with pytest.raises(UserError, match=f"cannot be used with the engine {name} .*--engine torch") as caught:
        make_engine(name, Choosy(), 32, cache=tmp_path / "x.onnx", wish="fp32", precision=lambda: FP32)
    assert "\n" not in str(caught.value)


def test_auto_is_openvino_where_it_pays(monkeypatch: pytest.MonkeyPatch) -> None:
    many, cuda = WORTH_CONVERTING, torch.device("cuda")
    for here in (True, False):
        monkeypatch.setattr("segmentation.engines.installed", lambda _, here=here: here)
        assert choose_engine("auto", CPU, many) == ("openvino" if here else "torch")
        assert choose_engine("auto", CPU, many - 1) == "torch"
        assert choose_engine("auto", cuda, many) == "torch"


def test_what_is_missing_or_impossible_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(UserError, match="no engine 'tensorrt'; choose one of auto, torch, openvino, onnx"):
        choose_engine("tensorrt", CPU, 1)
    monkeypatch.setattr("segmentation.engines.installed", lambda name: True)
    with pytest.raises(UserError, match="engine openvino works on the CPU alone"):
        choose_engine("openvino", torch.device("cuda"), 1)
    monkeypatch.setattr("segmentation.engines.installed", lambda name: False)
    for name in ("openvino", "onnx"):
        with pytest.raises(UserError, match=rf"not installed: pip install 'gaze-insight\[{name}\]'"):
            choose_engine(name, CPU, 1)


@pytest.fixture
def trained(tmp_path: Path, image_folder: Path) -> tuple[Study, RunFolder]:
    study = make_study(tmp_path / "study", image_folder)
    run = create_run(study, tiny(iterations=30, learning_rate=1e-2))
    assert train(study, run, Events(), threads=1, encoder=HashEncoder())
    return study, run


@OTHERS
def test_a_run_predicts_the_same_masks(name: str, trained: tuple[Study, RunFolder]) -> None:
    study, run = trained
    masks = {}
    for engine in ("torch", name):
        events = Events()
        assert predict(study, run, events, engine=engine, overwrite=True, threads=1)
        assert events.of("started")[0]["engine"] == engine
        masks[engine] = [study.prediction(run.id, image_id, "target") for image_id in study.images]
    for one, other in zip(masks["torch"], masks[name], strict=True):
        assert one is not None and other is not None
        assert np.abs(one - other).max() < 1e-4
        assert (one >= 0.5).any()
        assert dice(one >= 0.5, other >= 0.5) >= 0.999
    assert [path.suffix for path in (run.path / "engines").iterdir()] == [".onnx"]


@OTHERS
def test_the_teacher_is_torch_s_whatever_the_engine(name: str, trained: tuple[Study, RunFolder]) -> None:
    study, run = trained
    events = Events()
    networks = ("student", "teacher")
    assert predict(study, run, events, engine=name, networks=networks, threads=1, encoder=HashEncoder())
    assert events.of("done")[0]["predicted"] == 12
    assert len(list((run.path / "engines").iterdir())) == 1


def test_auto_goes_back_to_torch_and_says_why(
    trained: tuple[Study, RunFolder], monkeypatch: pytest.MonkeyPatch
) -> None:
    study, run = trained
    monkeypatch.setattr("segmentation.engines.installed", lambda name: True)
    monkeypatch.setattr("segmentation.engines.WORTH_CONVERTING", 1)

    def fail(*_: object) -> bytes:
        raise RuntimeError("no such operator")

    monkeypatch.setattr("segmentation.engines.to_onnx", fail)
    events = Events()
    assert predict(study, run, events, threads=1)
    assert "no such operator" in str(events.of("warning")[0]["message"])
    assert events.of("started")[0]["engine"] == "torch"
    with pytest.raises(UserError, match="no such operator"):
        predict(study, run, Events(), engine="openvino", overwrite=True)
    assert Predictor(run).engine("student").name == "torch"
