"""How a step is computed: micro-batches, the training set on the device, compiled networks. All of it on the CPU."""

import copy
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from gaze_capture.errors import UserError
from segmentation.checkpoints import latest_checkpoint, load_state, load_weights
from segmentation.compiling import compile_networks
from segmentation.dataset import Batch, Batches, load_training_set
from segmentation.device import Precision
from segmentation.device_batches import DeviceBatches, make_batches
from segmentation.job import RunSpec
from segmentation.learning import Learner
from segmentation.losses import Rows
from segmentation.methods import make_method
from segmentation.methods.base import Method
from segmentation.presets import preset
from segmentation.runs import RunFolder, create_run
from segmentation.study import Study
from segmentation.text.encoder import PhraseCache
from segmentation.training import train
from tests.training_helpers import Events, HashEncoder, make_study, tiny

CPU = torch.device("cpu")


@pytest.fixture
def filled(tmp_path: Path, image_folder: Path) -> Study:
    return make_study(tmp_path / "filled", image_folder)


def method_and_batch(study: Study, spec: RunSpec) -> tuple[Method, Batch]:
    data = load_training_set(study, spec, PhraseCache(study.folder, HashEncoder()))
    method = make_method(spec, HashEncoder.width)
    return method, Batches(data, spec, method.labels)[0]


def learner_of(method: Method, parts: int, warnings: list[str]) -> Learner:
    scaler = torch.amp.GradScaler("cpu", enabled=False)
    return Learner(
        method, Precision(CPU, "fp32"), scaler, parts, lambda step, message: warnings.append(message)
    )


def trained(study: Study, spec: RunSpec) -> tuple[RunFolder, Events]:
    run, events = create_run(study, spec), Events()
    assert train(study, run, events, threads=1, encoder=HashEncoder())
    return run, events


def gradients_of(method: Method) -> dict[str, Tensor]:
    return {
        name: parameter.grad.clone()
        for name, parameter in method.networks.named_parameters()
        if parameter.grad is not None
    }


@pytest.mark.parametrize("parts", [2, 3, 4])
def test_micro_batches_give_the_batchs_gradient(filled: Study, parts: int) -> None:
    spec = tiny("partial", student_levels=(-1, -1), batch_size=8, cutmix_share=1.0, dice_weight=0.5)
    method, batch = method_and_batch(filled, spec)
    method.networks.double()
    batch = Batch(batch.step, batch.index, batch.images.double(), batch.labels, batch.text)
    # With each image normalised by the same statistics nothing else differs.
    method.networks.eval()
    found = []
    for count in (1, parts):
        method.networks.zero_grad()
        losses = learner_of(method, count, []).gradients(batch, 0.5)
        found.append({**gradients_of(method), "total": losses["total"]})
    assert all(torch.allclose(found[0][key], found[1][key], rtol=0, atol=1e-9) for key in found[0])


def test_a_batch_falls_into_parts_that_hold_all_of_it(filled: Study) -> None:
    _, batch = method_and_batch(filled, tiny(batch_size=7))
    parts = batch.parts(3)
    # Pairs, which CutMix pastes between, stay together.
    assert [len(part.index) for part in parts] == [2, 2, 3]
    assert [part.rows for part in parts] == [Rows(0, 7), Rows(2, 7), Rows(4, 7)]
    assert torch.equal(torch.cat([part.images for part in parts]), batch.images)
    assert torch.equal(torch.cat([part.labels["teacher"] for part in parts]), batch.labels["teacher"])
    assert torch.equal(torch.cat([part.text.tokens for part in parts]), batch.text.tokens)
    assert len(batch.parts(20)) == 3


def memory_for(images: int, monkeypatch: pytest.MonkeyPatch, error: Exception) -> None:
    """Let the forward of a method fail for more images than that, after it has begun to add gradients."""
    make = make_method

    def limited(spec: RunSpec, text_width: int) -> Method:
        method = make(spec, text_width)
        whole = method.losses

        def losses(batch: Batch, progress: float) -> dict[str, Tensor]:
            if len(batch.index) > images:
                whole(batch, progress)["total"].backward()  # type: ignore[no-untyped-call]
                raise error
            return whole(batch, progress)

        monkeypatch.setattr(method, "losses", losses)
        return method

    monkeypatch.setattr("segmentation.training.make_method", limited)


@pytest.mark.parametrize(
    "error",
    [
        torch.OutOfMemoryError("CUDA out of memory."),
        RuntimeError("DefaultCPUAllocator: can't allocate memory"),
    ],
)
def test_when_memory_runs_out_the_run_goes_on_in_smaller_parts_and_says_so(
    filled: Study, monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    asked, _ = trained(filled, tiny(batch_size=8, accumulate=4, iterations=3))
    memory_for(2, monkeypatch, error)
    run, events = trained(filled, tiny(batch_size=8, iterations=3))
    warnings = [str(values["message"]) for values in events.of("warning")]
    assert len(warnings) == 2 and "in 2 parts" in warnings[0] and "in 4 parts" in warnings[1]
    assert events.of("started")[0]["accumulate"] == 1
    folder, other = latest_checkpoint(run), latest_checkpoint(asked)
    assert folder and other and load_state(folder)["accumulate"] == 4
    # What failed has left no gradient behind: the weights are those of a run that had four parts from the start.
    own, expected = load_weights(folder, "student"), load_weights(other, "student")
    names = [name for name in own if name.endswith(("weight", "bias"))]
    assert names and all(torch.equal(own[name], expected[name]) for name in names)


def test_memory_for_not_even_two_images_ends_the_run(filled: Study, monkeypatch: pytest.MonkeyPatch) -> None:
    memory_for(1, monkeypatch, torch.OutOfMemoryError("CUDA out of memory."))
    with pytest.raises(torch.OutOfMemoryError):
        trained(filled, tiny(batch_size=8, iterations=2))


@pytest.mark.parametrize(
    "changes",
    [{"accumulate": 0}, {"accumulate": 2}, {"data_on_device": "gpu"}, {"compile": "always"}],
)
def test_what_no_step_could_do_is_refused_by_name(changes: dict[str, Any]) -> None:
    with pytest.raises(UserError, match=next(iter(changes))):
        preset("partial", batch_size=2, **changes)


def test_batches_made_on_the_device_are_those_of_the_cpu_bit_for_bit(filled: Study) -> None:
    spec = tiny(batch_size=4, augmentation="flips", data_on_device="on")
    data = load_training_set(filled, spec, PhraseCache(filled.folder, HashEncoder()))
    labels = make_method(spec, HashEncoder.width).labels
    plain = Batches(data, spec, labels)
    beside = make_batches(data, spec, labels, CPU)
    assert isinstance(beside, DeviceBatches)
    seen = set()
    for step in range(8):
        expected, found = plain[step].to(CPU), beside[step].to(CPU)
        assert np.array_equal(expected.index, found.index) and expected.step == found.step
        assert torch.equal(expected.images, found.images)
        assert found.images.is_contiguous(memory_format=torch.channels_last)
        for name in labels:
            assert torch.equal(expected.labels[name], found.labels[name])
            assert found.labels[name].dtype == torch.uint8
        assert torch.equal(expected.text.tokens, found.text.tokens)
        assert torch.equal(expected.text.valid, found.text.valid)
        seen |= set(plain.draw(step)[1].tolist())
    assert seen == {0, 1, 2, 3}


def test_the_training_set_stays_off_the_device_where_it_must(filled: Study) -> None:
    for changes in ({"data_on_device": "auto"}, {"data_on_device": "off"}, {"augmentation": "mild"}):
        spec = tiny(**{"data_on_device": "on", **changes})
        data = load_training_set(filled, spec, None)
        labels = make_method(spec, 1).labels
        assert type(make_batches(data, spec, labels, CPU)) is Batches


def test_a_run_with_its_data_on_the_device_learns_the_same(filled: Study) -> None:
    weights = []
    for wish in ("off", "on"):
        run, events = trained(filled, tiny(data_on_device=wish, iterations=3, augmentation="flips"))
        assert events.of("started")[0]["data_on_device"] is (wish == "on")
        folder = latest_checkpoint(run)
        assert folder
        weights.append(load_weights(folder, "student"))
    assert all(torch.equal(weights[0][name], weights[1][name]) for name in weights[0])


def test_compiled_networks_compute_the_same_and_keep_their_names(filled: Study) -> None:
    method, batch = method_and_batch(filled, tiny(batch_size=4))
    plain, warnings = copy.deepcopy(method), list[str]()
    before = {name: value.clone() for name, value in method.networks.state_dict().items()}
    assert compile_networks(method, batch, Precision(CPU, "fp32"), warnings.append, backend="eager")
    assert warnings == []
    after = method.networks.state_dict()
    # The trial has touched a copy alone.
    assert before.keys() == after.keys() and all(torch.equal(before[name], after[name]) for name in before)
    first, second = (one.losses(batch, 0.5)["total"] for one in (plain, method))
    assert torch.allclose(first, second, rtol=1e-6)


def test_where_compiling_fails_the_networks_stay_as_they_were(filled: Study) -> None:
    def broken(*_: object) -> None:
        raise OSError("no compiler here")

    method, batch = method_and_batch(filled, tiny(batch_size=4))
    expected = copy.deepcopy(method).losses(batch, 0.5)["total"]
    warnings: list[str] = []
    assert not compile_networks(method, batch, Precision(CPU, "fp32"), warnings.append, backend=broken)
    [warning] = warnings
    assert "torch.compile does not work here" in warning and "no compiler here" in warning
    assert torch.equal(method.losses(batch, 0.5)["total"], expected)


def test_nothing_is_compiled_on_the_cpu(filled: Study) -> None:
    _, events = trained(filled, tiny(compile="auto", iterations=2))
    assert events.of("started")[0]["compiled"] is False and events.of("warning") == []
