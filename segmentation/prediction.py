"""Trained networks at work: an image of any size -> probability on its own grid."""

from __future__ import annotations

import functools
import shutil
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from gaze_capture.errors import UserError
from gaze_capture.storage import locked, make_folder, read_json, write_json_atomic
from segmentation.augmentation import standardised
from segmentation.checkpoints import latest_checkpoint, load_state, load_weights
from segmentation.device import Precision, choose_device, choose_precision, use_threads
from segmentation.engines import Engine, TorchEngine, choose_engine, make_engine
from segmentation.images import resize
from segmentation.methods import make_method, reads_text
from segmentation.networks import Teacher, Text
from segmentation.records import StudyImage
from segmentation.runs import RunFolder
from segmentation.study import Study
from segmentation.text.embedding import text_of
from segmentation.text.encoder import Encoder
from segmentation.text.imported import ImportedEmbeddings
from segmentation.text.phrases import phrase_table
from segmentation.training import Emit

BATCH = 8

Probability = npt.NDArray[np.float32]
Item = tuple[str, StudyImage]
"""A network's name and an image that it shall segment."""


class Predictor:
    """A run's networks, ready to segment uint8 images (H, W, 3) of any size.

    Parameters
    ----------
    engine
        What computes the networks that see the image alone: see `use_engine`.

    Raises
    ------
    UserError
        If the run has no checkpoint yet, or it is damaged, or the engine is not installed.
    """

    def __init__(
        self,
        run: RunFolder,
        *,
        device: str | None = None,
        flip_average: bool = True,
        engine: str = "torch",
    ) -> None:
        self.run, self.spec = run, run.spec
        self.flip_average = flip_average
        folder = latest_checkpoint(run)
        if folder is None:
            raise UserError(
                f"The run {run.id} has nothing to predict with yet: it has no checkpoint. Train it first."
            )
        state = load_state(folder)
        self.step = int(state["step"])
        method = make_method(self.spec, int(state["text_width"]))
        for name, network in method.networks.items():
            network.load_state_dict(load_weights(folder, state["predicts"] if name == "student" else name))
        wish = device or self.spec.device
        # A run that was trained elsewhere on a GPU predicts here on what there is.
        self.device = choose_device("auto" if device is None and not torch.cuda.is_available() else wish)
        self.networks = method.networks.eval()
        self.networks.to(device=self.device, memory_format=torch.channels_last)  # type: ignore[call-overload]
        self.use_engine(engine)

    def use_engine(self, wish: str, images: int = 0) -> None:
        """Choose what computes the networks that see the image alone.

        Parameters
        ----------
        wish
            ``torch``, ``openvino``, ``onnx``, or ``auto``, which looks at how many images there are.

        Raises
        ------
        UserError
            If it is not installed, or cannot work on the device.
        """
        self._engine_name = choose_engine(wish, self.device, images)
        self._engines: dict[str, Engine] = {}

    def engine(self, name: str) -> Engine:
        """Return the engine that computes a network that sees the image alone; the first call builds it.

        Raises
        ------
        UserError
            If the run has no such network, or it cannot be converted for the engine.
        """
        if name not in self._engines:
            self._engines[name] = make_engine(
                self._engine_name,
                self.network(name),
                self.spec.image_size_px,
                cache=self.run.path / "engines" / f"{name}.onnx",
                wish=self.spec.precision,
                precision=lambda: self.precision,
            )
        return self._engines[name]

    @functools.cached_property
    def precision(self) -> Precision:
        """The device and number format that PyTorch computes in here."""
        size = self.spec.image_size_px
        tried: dict[str, TorchEngine] = {}

        def try_out(trial: Precision) -> None:
            if trial.name not in tried:
                tried[trial.name] = TorchEngine(self.networks["student"], trial)
            tried[trial.name](torch.zeros(1, 3, size, size))

        return choose_precision(self.spec.precision, self.device, try_out)

    def network(self, name: str) -> nn.Module:
        """Return a network by name.

        Raises
        ------
        UserError
            If the run's method has no such network.
        """
        if name not in self.networks:
            raise UserError(f"The run has no network {name!r}; it has: {', '.join(self.networks)}.")
        return self.networks[name]

    @torch.inference_mode()
    def predict(
        self, images: Sequence[npt.NDArray[np.uint8]], network: str = "student", text: Text | None = None
    ) -> list[Probability]:
        """Return the foreground probability (T, H, W) of each image, on its own grid.

        `text` is what the teacher reads; it is not mirrored, so that flips are averaged for the student alone.
        """
        size = self.spec.image_size_px
        pixels = standardised(np.stack([resize(image, size, size) for image in images]))
        ask = self._asking_teacher(text) if text is not None else self.engine(network)
        probability = ask(pixels)
        if self.flip_average and text is None:
            # The networks learned from flipped images, too: four views of one image err less than one.
            for axes in ([2], [3], [2, 3]):
                probability = probability + ask(pixels.flip(axes)).flip(axes)
            probability = probability / 4
        stacks = probability.numpy()
        return [
            np.stack([resize(view, *image.shape[:2]) for view in stack])
            for stack, image in zip(stacks, images, strict=True)
        ]

    def _asking_teacher(self, text: Text) -> Callable[[Tensor], Tensor]:
        teacher = self.network("teacher")
        on_device = Text(*(part.to(self.device) for part in text))

        def ask(pixels: Tensor) -> Tensor:
            with self.precision.autocast():
                logits = teacher(pixels.to(self.device, memory_format=torch.channels_last), on_device).logits
            probability: Tensor = logits.float().sigmoid().cpu()
            return probability

        return ask


def predict(
    study: Study,
    run: RunFolder,
    emit: Emit,
    *,
    split: str | None = None,
    image_ids: Sequence[str] | None = None,
    shard: tuple[int, int] = (0, 1),
    networks: Sequence[str] = ("student",),
    overwrite: bool = False,
    flip_average: bool = True,
    device: str | None = None,
    engine: str = "auto",
    threads: int | None = None,
    encoder: Encoder | None = None,
    encoder_folder: Path | None = None,
) -> bool:
    """Predict the images of a split, given images, or all; False if it was stopped before its end.

    What this very checkpoint has predicted already is skipped; an image that cannot be read is left out and named in
    `done`. The teacher predicts only images that have an
    explanation, or imported embeddings where it learned from those. A `shard` (k, n) is every n-th of the images from
    number k on, counted from 0: processes that take one each can work side by side, and be started again.

    Raises
    ------
    UserError
        If the run has no checkpoint, no image can be read, or the disk is full; what was predicted stays.
    """
    use_threads(threads)
    run.stop_path("predict").unlink(missing_ok=True)
    images = (
        [study.image(image_id) for image_id in image_ids] if image_ids is not None else study.images_of(split)
    )
    images = images[shard[0] :: shard[1]]
    predictor = Predictor(run, device=device, flip_average=flip_average, engine=engine)
    work = [
        (name, image)
        for name in networks
        for image in _waiting(study, run, predictor, name, images, overwrite)
    ]
    skipped = len(networks) * len(images) - len(work)
    begin = _prepare(predictor, engine, [name for name, _ in work], emit)
    emit("started", 0, len(work), device=str(predictor.device), **begin)
    reading = "teacher" in networks and reads_text(run.spec)
    said = text_of(study, run.spec, encoder, encoder_folder) if reading else None

    failed: dict[str, str] = {}

    def read(batch: list[Item]) -> list[tuple[Item, npt.NDArray[np.uint8]]]:
        found = []
        for item in batch:
            image = item[1]
            try:
                found.append((item, study.network_input(image, run.spec.normalisation)))
            except UserError as error:
                # One bad file must not cost the nine hundred after it.
                failed[image.id] = str(error)
        return found

    parts = [part for name in networks for part in _parts([item for item in work if item[0] == name], BATCH)]
    done, stopped = 0, False
    with ThreadPoolExecutor(max_workers=2) as pool:
        saving: list[Callable[[], object]] = []
        ahead = pool.submit(read, parts[0]) if parts else None
        for number, part in enumerate(parts):
            assert ahead is not None
            readable = ahead.result()
            if number + 1 < len(parts):
                ahead = pool.submit(read, parts[number + 1])
            name, images = part[0][0], [image for (_, image), _ in readable]
            text = None
            if name == "teacher" and images:
                table = phrase_table(study, [image.id for image in images], run.spec, said)
                text = table.text(np.arange(len(images)))
            pixels = [shown for _, shown in readable]
            views = predictor.predict(pixels, name, text) if pixels else []
            for wait in saving:
                wait()
            saving = [
                pool.submit(_save, study, run, name, image, probability).result
                for image, probability in zip(images, views, strict=True)
            ]
            done += len(part)
            emit("progress", done, len(work), name="predicting")
            stopped = run.stop_path("predict").exists()
            if stopped:
                break
        for wait in saving:
            wait()
    if stopped:
        return False
    if shard[1] == 1 and failed and len(failed) == len({image.id for _, image in work}):
        raise UserError(next(iter(failed.values())))
    emit(
        "done",
        done,
        done,
        predicted=sum(image.id not in failed for _, image in work),
        skipped=skipped,
        failed=[{"image": image_id, "reason": reason} for image_id, reason in failed.items()],
    )
    return True


def _prepare(predictor: Predictor, wish: str, waiting: Sequence[str], emit: Emit) -> dict[str, str]:
    """Build the engines for the networks that images wait for; return what is told of them."""
    alone = [name for name in waiting if not isinstance(predictor.network(name), Teacher)]
    if not alone:
        return {"engine": "torch", "precision": predictor.precision.name}
    predictor.use_engine(wish, len(alone))
    try:
        engines = [predictor.engine(name) for name in dict.fromkeys(alone)]
    except UserError as error:
        if wish != "auto":
            raise
        emit("warning", 0, len(waiting), message=str(error))
        predictor.use_engine("torch")
        engines = [predictor.engine(name) for name in dict.fromkeys(alone)]
    return {"engine": engines[0].name, "precision": engines[0].precision}


def _parts(items: list[Item], size: int) -> list[list[Item]]:
    return [items[start : start + size] for start in range(0, len(items), size)]


def _waiting(
    study: Study,
    run: RunFolder,
    predictor: Predictor,
    network: str,
    images: Sequence[StudyImage],
    overwrite: bool,
) -> list[StudyImage]:
    """Return the images this checkpoint's network has still to predict."""
    predictor.network(network)
    targets = run.spec.targets
    if network == "teacher":
        spec = run.spec
        explained = (
            ImportedEmbeddings(study, spec.text_embeddings, targets, spec.text_encoder_sha256).keys()
            if spec.text_embeddings
            else study.explanation_keys()
        )
        images = [
            image for image in images if any((image.id, target_id) in explained for target_id in targets)
        ]
    folder = run.path / "predictions" / network
    note = folder / "made_by.json"
    make_folder(folder.parent, within=run.path)
    with locked(folder):
        # Others may be at work on the rest of the images: one of them clears the place for all.
        stale = not note.exists() or read_json(note) != {"step": predictor.step}
        if stale:
            # An earlier checkpoint's view, from before the run was resumed.
            shutil.rmtree(folder, ignore_errors=True)
            write_json_atomic(note, {"step": predictor.step})
    if overwrite and not stale:
        for image in images:
            for target_id in targets:
                study.prediction_path(run.id, image.id, target_id, network).unlink(missing_ok=True)
    done = study.prediction_keys(run.id, network)
    return [image for image in images if any((image.id, target_id) not in done for target_id in targets)]


def _save(study: Study, run: RunFolder, network: str, image: StudyImage, probability: Probability) -> None:
    for target_id, one in zip(run.spec.targets, probability, strict=True):
        study.save_prediction(run.id, image.id, target_id, network, one)
