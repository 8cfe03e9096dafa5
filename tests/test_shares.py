"""What several processes share, each part by itself and without starting any: rows, draws, norms, memory."""

import argparse
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from app.cli import run_command
from gaze_capture.errors import UserError
from segmentation.backbones import Pretrained
from segmentation.cluster import free, shard
from segmentation.dataset import Batches, load_training_set
from segmentation.device import Precision
from segmentation.device_batches import make_batches
from segmentation.job import JobEvent, RunSpec
from segmentation.learning import Learner
from segmentation.losses import Rows, cutmix, darm_blocks
from segmentation.methods import make_method
from segmentation.methods.base import noisy
from segmentation.methods.gaze_to_insight import without_some_text
from segmentation.norms import grouped, synchronised
from segmentation.presets import preset
from segmentation.processes import Processes, launched, per_process, share_out
from segmentation.runs import RunFolder, create_run
from segmentation.study import Study
from segmentation.text.encoder import PhraseCache
from segmentation.workers import worker_command
from tests.training_helpers import HashEncoder, make_study, save_image_encoder, tiny

CPU = torch.device("cpu")


@pytest.fixture
def filled(tmp_path: Path, image_folder: Path) -> Study:
    return make_study(tmp_path / "filled", image_folder)


@pytest.mark.parametrize("changes", [{"augmentation": "strong"}, {"data_on_device": "on"}])
def test_processes_make_the_parts_of_one_batch(filled: Study, changes: dict[str, Any]) -> None:
    spec = tiny(batch_size=8, **{"augmentation": "flips", **changes})
    data = load_training_set(filled, spec, PhraseCache(filled.folder, HashEncoder()))
    labels = make_method(spec, HashEncoder.width).labels
    whole = make_batches(data, spec, labels, CPU)[5]
    parts = [make_batches(data, spec, labels, CPU, Processes(rank, 2))[5] for rank in range(2)]
    assert [part.rows for part in parts] == [Rows(0, 8), Rows(4, 8)]
    assert np.array_equal(np.concatenate([part.index for part in parts]), whole.index)
    assert torch.equal(torch.cat([part.images for part in parts]), whole.images)
    assert torch.equal(torch.cat([part.text.tokens for part in parts]), whole.text.tokens)
    for name in labels:
        assert torch.equal(torch.cat([part.labels[name] for part in parts]), whole.labels[name])
    # Micro-batches of a share know their place in the step, too.
    assert [part.rows for part in parts[1].parts(2)] == [Rows(4, 8), Rows(6, 8)]
    kept = [without_some_text(part, 0.5, 3).text.valid for part in parts]
    assert torch.equal(torch.cat(kept), without_some_text(whole, 0.5, 3).text.valid)


def test_draws_are_those_of_the_whole_step() -> None:
    images, apart = torch.zeros(6, 3, 32, 32), torch.ones(6, 32, 32, dtype=torch.bool)
    pasted, blocks = (
        cutmix(images, np.random.default_rng(4)),
        darm_blocks(apart, 0.3, np.random.default_rng(4)),
    )
    noise = noisy(images, 1, 2)
    assert len({one.numpy().tobytes() for one in noise}) == 6
    for first, count in ((0, 2), (2, 4)):
        own, rows = slice(first, first + count), Rows(first, 6)
        part = cutmix(images[own], np.random.default_rng(4), rows)
        assert torch.equal(part.region, pasted.region[own])
        assert torch.equal(part.source + first, pasted.source[own])
        assert part.source.min() >= 0 and part.source.max() < count
        found = darm_blocks(apart[own], 0.3, np.random.default_rng(4), rows=rows)
        assert torch.equal(found, blocks[own])
        assert torch.equal(noisy(images[own], 1, 2, rows), noise[own])


def test_an_odd_batch_is_pasted_within_itself() -> None:
    for count in (1, 2, 3, 7):
        source = cutmix(torch.zeros(count, 3, 16, 16), np.random.default_rng(0)).source.numpy()
        assert source.min() >= 0 and source.max() < count
        assert count == 1 or (source != np.arange(count)).all()


def test_a_batch_must_fall_into_pairs_for_all() -> None:
    assert [Processes(rank, 4).rows(16) for rank in (0, 3)] == [slice(0, 4), slice(12, 16)]
    assert Processes().rows(7) == slice(0, 7)
    for size, count in ((8, 3), (8, 8), (6, 2)):
        with pytest.raises(UserError, match=f"batch_size is {size}.* multiple of {2 * count}"):
            Processes(0, count).rows(size)
    with pytest.raises(UserError, match="start 1 or 2 or 4 processes"):
        Processes(0, 3).rows(8)


def test_one_process_divides_by_its_own_count(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("TORCHELASTIC_RUN_ID", raising=False)
    assert not launched()
    with Processes().sharing():
        assert per_process(torch.tensor(0)).item() == 1 and per_process(torch.tensor(7)).item() == 7


@pytest.mark.parametrize("method", ["gaze-to-insight", "supervised"])
def test_group_norms_take_the_place_of_batch_norms(method: str) -> None:
    spec = tiny(method, norm="group", student_widths=(4, 8, 12, 32, 64), teacher_widths=(4, 8, 12, 32, 64))
    made = make_method(spec, 16).networks
    assert not [part for part in made.modules() if isinstance(part, nn.BatchNorm2d)]
    groups = {part.num_channels: part.num_groups for part in made.modules() if isinstance(part, nn.GroupNorm)}
    assert groups == {4: 1, 8: 2, 12: 3, 32: 8, 64: 8}
    # The weights begin as those of the same networks with batch norms.
    other = make_method(
        tiny(method, student_widths=spec.student_widths, teacher_widths=spec.teacher_widths), 16
    )
    weights = other.networks.state_dict()
    assert all(torch.equal(value, weights[name]) for name, value in made.state_dict().items())


def test_a_pretrained_encoder_keeps_its_norms_and_frozen_ones_are_not_shared(tmp_path: Path) -> None:
    from segmentation.backbones import examine

    fields = examine(save_image_encoder(tmp_path / "encoder", "resnet"))
    spec = tiny("partial", **fields, student_widths=(4, 8, 8, 8, 8, 8), teacher_widths=(4, 8, 8, 8, 8, 8))

    def norms(network: nn.Module, kind: type[nn.Module]) -> tuple[int, int]:
        """How many lie outside and inside the encoder that came with weights."""
        [encoder] = [part for part in network.modules() if isinstance(part, Pretrained)]
        inside = sum(isinstance(part, kind) for part in encoder.modules())
        return sum(isinstance(part, kind) for part in network.modules()) - inside, inside

    before = norms(make_method(spec, 1).student, nn.BatchNorm2d)
    assert min(before) > 0
    network = make_method(spec, 1).student
    grouped(network)
    assert norms(network, nn.BatchNorm2d) == (0, before[1])
    network = make_method(spec, 1).student
    parameters = list(map(id, network.parameters()))
    synchronised(network)
    assert norms(network, nn.BatchNorm2d) == (0, 0) and norms(network, nn.SyncBatchNorm) == before
    assert list(map(id, network.parameters())) == parameters
    frozen = make_method(RunSpec.from_json({**spec.to_json(), "encoder_frozen_norms": True}), 1).student
    synchronised(frozen)
    assert norms(frozen, nn.SyncBatchNorm) == (before[0], 0) and norms(frozen, nn.BatchNorm2d) == (
        0,
        before[1],
    )


def test_what_fits_the_memory_is_found_before_anything_is_learned(
    filled: Study, monkeypatch: pytest.MonkeyPatch
) -> None:
    spec = tiny(batch_size=8, darm_every=3)
    data = load_training_set(filled, spec, PhraseCache(filled.folder, HashEncoder()))
    method = make_method(spec, HashEncoder.width)
    before = {name: value.clone() for name, value in method.networks.state_dict().items()}
    whole, steps = method.losses, list[int]()

    def losses(batch: Any, progress: float) -> Any:
        steps.append(batch.step)
        if len(batch.index) > 4:
            raise torch.OutOfMemoryError("CUDA out of memory.")
        return whole(batch, progress)

    monkeypatch.setattr(method, "losses", losses)
    warnings: list[str] = []
    learner = Learner(
        method,
        Precision(CPU, "fp32"),
        torch.amp.GradScaler("cpu", enabled=False),
        1,
        lambda step, message: warnings.append(message),
    )
    learner.fit(Batches(data, spec, method.labels)[7])
    assert learner.parts == 2 and len(warnings) == 1
    # A step in which DARM looks twice needs the most.
    assert set(steps) == {0}
    assert all(torch.equal(before[name], value) for name, value in method.networks.state_dict().items())
    assert all(parameter.grad is None for parameter in method.networks.parameters())


def test_shares_of_a_job_end_in_one_sentence() -> None:
    told: list[tuple[Any, ...]] = []

    def emit(kind: Any, step: int, total: int, **values: object) -> None:
        told.append((kind, step, values))

    def unreadable(tell: Any) -> bool:
        tell("progress", 1, 1)
        tell("done", 1, 1, predicted=0, skipped=0, failed=[{"image": "a", "reason": "a is damaged"}])
        return True

    with pytest.raises(UserError, match="a is damaged"):
        share_out(Processes(), emit, unreadable)
    assert [kind for kind, _, _ in told] == ["progress"]

    def full(tell: Any) -> bool:
        raise UserError("The disk is full.")

    with pytest.raises(UserError, match="disk is full"):
        share_out(Processes(), emit, full)
    assert not share_out(Processes(), emit, lambda tell: False)


def test_new_fields_of_the_spec_are_checked_and_old_specs_are_read() -> None:
    for changes in ({"norm": "layer"}, {"checkpoint_steps": -1}):
        with pytest.raises(UserError, match=next(iter(changes))):
            preset("partial", **changes)
    with pytest.raises(UserError, match="norm"):
        preset("partial", architecture="fgi-public", norm="group")
    old = preset("partial").to_json()
    del old["norm"], old["checkpoint_steps"]
    assert RunSpec.from_json(old) == preset("partial")


def test_a_run_is_prepared_for_a_cluster(filled: Study, capsys: pytest.CaptureFixture[str]) -> None:
    assert run_command(["train", str(filled.folder), "--method", "partial", "--prepare"]) == 0
    [run_id] = filled.run_ids()
    assert f"-m segmentation.cluster train {filled.folder} {run_id}" in capsys.readouterr().out
    assert RunFolder(filled.runs_folder / run_id).state() == "waiting"


def test_a_run_that_was_killed_a_moment_ago_is_waited_for(filled: Study) -> None:
    import json
    import socket
    import time

    run = create_run(filled, tiny("partial"))
    now = time.time()
    here = {"pid": 1, "host": "elsewhere", "started": now - 100, "heartbeat": now}
    (run.path / "worker.json").write_text(json.dumps(here))
    run.request_stop()
    assert run.state() == "running"
    waits: list[float] = []

    def wait(seconds: float) -> None:
        waits.append(seconds)
        if len(waits) == 3:
            gone = {**here, "host": socket.gethostname(), "pid": 2**30, "heartbeat": now - 60}
            (run.path / "worker.json").write_text(json.dumps(gone))

    free(run, wait=wait)
    assert len(waits) == 3 and not run.stop_path().exists()
    (run.path / "worker.json").write_text(json.dumps({**here, "host": socket.gethostname()}))
    run.events_path.write_text(JobEvent(run.id, "done", 1, 1, time.time()).to_line() + "\n")
    with pytest.raises(UserError, match="is done"):
        free(run, wait=wait)


def test_torchrun_starts_the_very_worker(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    single = worker_command({"task": "train"}, tmp_path)
    several = worker_command({"task": "train"}, tmp_path, processes=3)
    assert several[-len(single) :] == single
    assert several[1:4] == ["-I", "-m", "torch.distributed.run"] and several[5:7] == ["--nproc-per-node", "3"]
    monkeypatch.setattr("sys.frozen", True, raising=False)
    with pytest.raises(UserError, match="bundled"):
        worker_command({"task": "train"}, tmp_path, processes=2)


def test_a_shard_is_counted_from_one() -> None:
    assert shard("2/4") == (1, 4)
    for wrong in ("0/4", "5/4", "2", "a/b", "2/"):
        with pytest.raises(argparse.ArgumentTypeError):
            shard(wrong)
