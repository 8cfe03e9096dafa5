"""The training loop. What is learned from a batch is the method's affair (`segmentation.methods`)."""

from __future__ import annotations

import contextlib
import itertools
import math
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Protocol

import numpy as np
import torch
from torch import Tensor, nn

from gaze_capture.errors import UserError
from gaze_capture.storage import write_bytes_atomic
from segmentation.architectures import make_student
from segmentation.augmentation import standardised
from segmentation.backbones import load_pretrained
from segmentation.checkpoints import (
    latest_checkpoint,
    load_into,
    load_optimiser,
    load_state,
    load_weights,
    save_checkpoint,
)
from segmentation.compiling import compile_networks
from segmentation.dataset import Batch, Batches, TrainingSet, load_training_set
from segmentation.device import (
    Precision,
    choose_device,
    choose_precision,
    describe,
    memory_used,
    use_threads,
    why_no_cuda,
)
from segmentation.device_batches import DeviceBatches, make_batches
from segmentation.images import encode_gray16
from segmentation.intensity import rules_for
from segmentation.job import Kind, RunSpec
from segmentation.learned_reviews import learned_by, learned_now, note
from segmentation.learning import Learner
from segmentation.losses import IGNORE, hard_dice
from segmentation.methods import make_method, reads_text
from segmentation.methods.base import Method
from segmentation.networks import count_parameters
from segmentation.norms import synchronised
from segmentation.optimising import Average, Clock, LossSums, Pace, learning_rate, make_optimiser
from segmentation.packed import packed_encoder, packed_run
from segmentation.packing import load_packed
from segmentation.presets import checked
from segmentation.processes import ALONE, Processes
from segmentation.runs import RunFolder
from segmentation.study import Study
from segmentation.text.embedding import text_of
from segmentation.text.encoder import Encoder
from segmentation.warm_start import begin_with

REPORT_SECONDS = 1.0
CHECKPOINT_SECONDS = 60.0
SAMPLE_IMAGES = 4
AGREEMENT_IMAGES = 16
"""Training images by which the curve of agreement goes; it chooses nothing."""
SAMPLE_ROUNDS = 40
SELECTION_ROUNDS = 20
BATCHES_AHEAD = 4
WORKERS_AHEAD = 2
"""Threads that ready batches for a GPU."""


class Emit(Protocol):
    """Reports an event of a job."""

    def __call__(self, kind: Kind, step: int, total: int, **values: object) -> None:
        """Report one event with its values."""


def train(
    study: Study,
    run: RunFolder,
    emit: Emit,
    *,
    threads: int | None = None,
    encoder: Encoder | None = None,
    encoder_folder: Path | None = None,
    image_encoder_folder: Path | None = None,
    processes: Processes = ALONE,
) -> bool:
    """Train a run to its end, going on from its checkpoint where it has one; False if it was stopped before.

    Each of several `processes` calls this, learns from its rows of the same batches, and holds the same weights; the
    leader alone tells events and writes into the run's folder.

    The run's text encoder is needed for phrases alone that the study has no vectors of; `encoder_folder` is where this
    computer has it, if it has. `image_encoder_folder` is where the pretrained encoder lies that a new run begins with.

    Raises
    ------
    UserError
        If nothing can be learned from the study, the loss is not finite any more, or the disk is full. The last
        checkpoint stays good.
    """
    spec = checked(run.spec)
    processes.rows(spec.batch_size)
    device = choose_device(processes.device(spec.device))
    threads = use_threads(threads, processes.local_count)
    data = _training_set(study, run, spec, emit, processes, encoder, encoder_folder)
    text_width = data.phrases.width

    emit("phase", 0, spec.iterations, name="preparing")
    resumed = processes.told(latest_checkpoint(run))
    state = load_state(resumed) if resumed else {}
    wish = state["precision"] if state.get("device") == device.type else spec.precision
    chosen = choose_precision(wish, device, lambda trial: try_out(spec, trial))
    precision = Precision(device, processes.told(chosen.name))
    method = make_method(spec, text_width)

    def warn(step: int, message: str) -> None:
        emit("warning", step, spec.iterations, message=message)

    if not resumed:
        if spec.warm_start:
            # An earlier run knows more than the encoder it once began with, which need not be on this computer.
            begin_with(method, study, spec)
        else:
            load_pretrained(method.networks, spec, packed_encoder(study) or image_encoder_folder)
    method.networks.to(device=device, memory_format=torch.channels_last)  # type: ignore[call-overload]
    student = method.student
    averaged = Average(student, spec.ema_decay) if spec.ema_decay else None
    shown = averaged.network if averaged else student
    optimiser = make_optimiser(spec, method.networks)
    scaler = torch.amp.GradScaler(device.type, enabled=precision.name == "fp16")
    learner = Learner(
        method,
        precision,
        scaler,
        math.ceil(state.get("accumulate", spec.accumulate) / processes.count),
        warn,
        processes,
    )
    best, best_weights = -1.0, None
    if resumed:
        for name, network in method.networks.items():
            load_into(network, resumed, name)
        load_optimiser(resumed, optimiser)
        scaler.load_state_dict(state["scaler"])
        if averaged:
            averaged.load(load_weights(resumed, "student_ema"))
        if (best := state["best"]) >= 0:
            best_weights = load_weights(resumed, "student_best")

    step = int(state.get("step", 0))
    batches = make_batches(data, spec, method.labels, device, processes)
    if processes.count > 1:
        learn_together(method, learner, batches[step].to(device), processes, warn)
    clock = Clock(spec, step, float(state.get("seconds", 0.0)))
    report, checkpoint = Pace(REPORT_SECONDS), Pace(CHECKPOINT_SECONDS)
    sums, means = LossSums(), {"total": float("nan")}
    sampled = -1

    def save() -> None:
        extra = {"student_ema": averaged.network.state_dict()} if averaged else {}
        if best_weights is not None:
            extra["student_best"] = best_weights
        values = {
            "device": device.type,
            "precision": precision.name,
            "seconds": clock.seconds,
            "accumulate": learner.parts_of_step,
            "text_width": text_width,
            "scaler": scaler.state_dict(),
            "best": best,
            # Without true masks nothing may choose a checkpoint: the end of the schedule, averaged, it is.
            "predicts": "student_best"
            if best_weights is not None
            else "student_ema"
            if averaged
            else "student",
        }
        if processes.leads:
            save_checkpoint(run, step, {**method.networks, **extra}, optimiser, values)

    on_device = isinstance(batches, DeviceBatches)
    compiled = (
        spec.compile == "auto"
        and device.type == "cuda"
        and processes.count == 1
        and compile_networks(
            method,
            batches[step].to(device).parts(learner.parts)[0],
            precision,
            lambda message: warn(step, message),
        )
    )
    emit(
        "started",
        step,
        spec.iterations,
        device=describe(device),
        device_reason=why_no_cuda() if spec.device == "auto" and device.type == "cpu" else "",
        threads=threads,
        processes=processes.count,
        precision=precision.name,
        parameters={name: count_parameters(network) for name, network in method.networks.items()},
        accumulate=learner.parts_of_step,
        data_on_device=on_device,
        compiled=compiled,
        images=len(data),
        targets=spec.targets,
        normalisation=rules_for(spec.normalisation, data.modalities),
        strong_labels=data.strong,
        explained=data.phrases.explained,
        held_out=len(data.held_images),
        resumed=bool(resumed),
        warm_start=spec.warm_start,
    )
    method.networks.train()
    with upcoming(batches, step, ahead=device.type == "cuda" and not on_device) as next_batch:
        while True:
            progress = clock.progress(step)
            if processes.leads and progress < 1 and int(progress * SAMPLE_ROUNDS) > sampled:
                sampled = int(progress * SAMPLE_ROUNDS)
                write_samples(run, spec, batches, shown, step, precision, emit)
            progress, stopping = processes.agreed(progress, processes.leads and run.stop_path().exists())
            if progress >= 1:
                break
            if stopping:
                if not math.isfinite(sums.take().get("total", 0.0)):
                    raise UserError(_not_finite(run, step))
                save()
                return False

            rate = learning_rate(spec, progress)
            for group in optimiser.param_groups:
                # Checkpoints from before the text had a pace of its own name none.
                group["lr"] = rate * group.get("pace", 1.0)
            losses = learner.gradients(next_batch().to(device), progress)
            scaler.step(optimiser)
            scaler.update()
            optimiser.zero_grad()
            if not processes.leads:
                step += 1
                continue
            if averaged:
                averaged.update(step)
            sums.add(losses)
            step += 1

            after = clock.progress(step)
            ended = after >= 1
            # By steps, and not with the reports, which go by the clock: the same run chooses the same weights again.
            if len(data.held_images) and int(after * SELECTION_ROUNDS) > int(progress * SELECTION_ROUNDS):
                dice = held_dice(data, shown, precision)
                if dice > best:
                    best = dice
                    best_weights = {key: part.clone() for key, part in shown.state_dict().items()}
                emit("selection", step, clock.total(step), dice=dice, best=best)
            saving = not ended and spec.checkpoint_steps > 0 and step % spec.checkpoint_steps == 0
            if report.due() or ended or saving:
                means = sums.take()
                if not math.isfinite(means["total"]):
                    raise UserError(_not_finite(run, step))
                speed, left = clock.images_per_second(step), clock.seconds_left(step)
                told = {"images_per_s": speed, "eta_s": left, **memory_used(device)}
                emit("step", step, clock.total(step), losses=means, lr=rate, **told)
                clock.mark(step)
                if saving or (not spec.checkpoint_steps and not ended and checkpoint.due()):
                    save()
    if not processes.leads:
        return True
    save()
    write_samples(run, spec, batches, shown, step, precision, emit)
    emit("done", step, step, seconds=clock.seconds, iterations=step, losses=means)
    return True


def learn_together(
    method: Method,
    learner: Learner,
    batch: Batch,
    processes: Processes,
    warn: Callable[[int, str], object],
) -> None:
    """Give this process the leader's weights, see what fits the memory of each, and join their batch norms."""
    processes.align(method.networks)
    learner.fit(batch)
    own = [part for part in method.networks.modules() if isinstance(part, nn.BatchNorm2d) and part.training]
    if batch.images.device.type == "cuda":
        synchronised(method.networks)
    elif own:
        warn(
            batch.step,
            "Without GPUs each process normalises its own images alone, which is not quite what one process learns; "
            "norm: group in the run's spec makes them equal.",
        )
    if method.spec.compile == "auto":
        warn(batch.step, "torch.compile is left out where several processes learn together.")


def _training_set(
    study: Study,
    run: RunFolder,
    spec: RunSpec,
    emit: Emit,
    processes: Processes,
    encoder: Encoder | None,
    encoder_folder: Path | None,
) -> TrainingSet:
    """Read what is learned from: of a packed training set as it is, of a study with its text made into vectors."""
    if study.is_packed():
        # Another run on it learns from what it was packed for.
        learned = learned_by(packed_run(study))
        if processes.leads and learned is not None:
            note(run, learned)
        return load_packed(study, spec)
    if processes.leads:
        # Before anything is read: what is said meanwhile may not be learned from, and counts as new.
        note(run, learned_now(study, spec))
    if reads_text(spec) and not processes.leads:
        # The leader stores the vectors of phrases that have none yet.
        processes.gathered("read")
    text = text_of(study, spec, encoder, encoder_folder) if reads_text(spec) else None
    data = load_training_set(
        study, spec, text, lambda done, all_: emit("progress", done, all_, name="reading images")
    )
    if reads_text(spec) and processes.leads:
        processes.gathered("read")
    return data


@contextlib.contextmanager
def upcoming(batches: Batches, step: int, *, ahead: bool) -> Iterator[Callable[[], Batch]]:
    """Give a function that returns batch after batch; `ahead` readies some for a GPU while one is learned from.

    On the CPU that costs more than it saves: a thread beside those of the convolutions keeps them waiting for each
    other at every layer (142 against 88 ms a step on two cores).
    """
    if not ahead:
        places = itertools.count(step)
        yield lambda: batches[next(places)]
        return
    with ThreadPoolExecutor(max_workers=WORKERS_AHEAD) as pool:

        def submit(place: int) -> Future[Batch]:
            return pool.submit(lambda: batches[place].pinned())

        waiting = deque(submit(place) for place in range(step, step + BATCHES_AHEAD))

        def take() -> Batch:
            nonlocal step
            waiting.append(submit(step + BATCHES_AHEAD))
            step += 1
            return waiting.popleft().result()

        yield take


def try_out(spec: RunSpec, precision: Precision) -> None:
    """Learn from two blank images with a network that is thrown away."""
    student = make_student(spec, taught=False)
    student.to(device=precision.device, memory_format=torch.channels_last)  # type: ignore[call-overload]
    images = torch.zeros(2, 3, spec.image_size_px, spec.image_size_px, device=precision.device)
    with precision.autocast():
        logits = student(images.contiguous(memory_format=torch.channels_last)).logits
    logits.float().mean().backward()


@torch.inference_mode()
def probabilities(student: nn.Module, images: Tensor, precision: Precision) -> Tensor:
    """Return the student's foreground probabilities (B, T, S, S), float32 on the CPU."""
    was_training = student.training
    student.eval()
    with precision.autocast():
        logits = student(images.to(precision.device, memory_format=torch.channels_last)).logits
    student.train(was_training)
    probability: Tensor = logits.float().sigmoid().cpu()
    return probability


def write_samples(
    run: RunFolder,
    spec: RunSpec,
    batches: Batches,
    student: nn.Module,
    step: int,
    precision: Precision,
    emit: Emit,
) -> None:
    """Store the student's view of the same few training images, and tell how far it agrees with some more's labels."""
    data = batches.set
    rng = np.random.default_rng([spec.seed, 6])
    index = rng.choice(len(data), min(AGREEMENT_IMAGES, len(data)), replace=False)
    views = probabilities(student, standardised(data.images[index]), precision).numpy()
    if not np.isfinite(views).all():
        # The next report of the losses will say so, and end the run.
        return
    labels = batches.tables["student"][data.levels[index]]
    known = labels != IGNORE
    dice = hard_dice((views >= 0.5) & known, (labels == 1) & known)
    emit("agreement", step, spec.iterations, dice=float(dice.mean()), images=len(index))
    for image_id, view in zip((data.ids[number] for number in index[:SAMPLE_IMAGES]), views, strict=False):
        for target_id, probability in zip(spec.targets, view, strict=True):
            path = f"samples/{step}/{image_id}.{target_id}.png"
            write_bytes_atomic(run.path / path, encode_gray16(probability))
            emit("sample", step, spec.iterations, image_id=image_id, target_id=target_id, path=path)


def held_dice(data: TrainingSet, student: nn.Module, precision: Precision) -> float:
    """Return the mean Dice on the images set apart, against their true masks at the networks' size."""
    scores = []
    for start in range(0, len(data.held_images), 16):
        part = slice(start, start + 16)
        views = probabilities(student, standardised(data.held_images[part]), precision)
        scores.append(hard_dice(views.numpy() >= 0.5, data.held_masks[part]))
    return float(np.concatenate(scores).mean())


def _not_finite(run: RunFolder, step: int) -> str:
    kept = "The last checkpoint is good" if latest_checkpoint(run) else "Nothing was learned yet"
    return f"The loss was no longer a number near step {step}. {kept}; try a lower learning_rate or precision fp32."
