"""Trained networks at work: an image of any size -> probability on its own grid."""

from __future__ import annotations

import functools
import shutil
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from gaze_capture.errors import UserError
from gaze_capture.storage import locked, make_folder, read_json, sha256_of, write_json_atomic
from segmentation.augmentation import standardised
from segmentation.checkpoints import latest_checkpoint, load_into, load_state
from segmentation.device import Precision, choose_device, choose_precision, use_threads
from segmentation.engines import Engine, TorchEngine, choose_engine, installed, make_engine
from segmentation.images import resize
from segmentation.methods import make_method, reads_text
from segmentation.networks import Teacher, Text
from segmentation.predicting import predict_items
from segmentation.records import StudyImage
from segmentation.runs import RunFolder
from segmentation.study import Study
from segmentation.text.embedding import text_of
from segmentation.text.encoder import Encoder
from segmentation.text.imported import ImportedEmbeddings
from segmentation.text.phrases import phrase_table
from segmentation.training import Emit

Probability = npt.NDArray[np.float32]
MIRRORED = ([2], [3], [2, 3])
"""Axes of (B, C, H, W) that are turned around for the views beside the image as it is."""


@dataclass(frozen=True)
class Views:
    """What a network makes of B images for T targets, on its own grid of S x S."""

    probability: npt.NDArray[np.float32]
    """(B, T, S, S), the mean over the mirrored views."""
    deviation: npt.NDArray[np.float32] | None = None
    """(B, T, S, S) standard deviation over the mirrored views, 0..0.5; None where an image is looked at once."""
    flips_dice: npt.NDArray[np.float32] | None = None
    """(B, T), see `segmentation.uncertainty.Certainty`; None as above."""


def on_grid(stack: npt.NDArray[np.float32], height: int, width: int) -> Probability:
    """Return maps (T, S, S) on an image's own grid (T, H, W)."""
    return np.stack([resize(view, height, width) for view in stack])


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
        self._folder, self._predicts = folder, str(state["predicts"])
        method = make_method(self.spec, int(state["text_width"]))
        wish = device or self.spec.device
        # A run that was trained elsewhere on a GPU predicts here on what there is.
        self.device = choose_device("auto" if device is None and not torch.cuda.is_available() else wish)
        self.networks = method.networks.eval()
        self._ready: set[str] = set()
        self.network("student")
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
        """Return a network by name, with what it learned; the first call reads that.

        Raises
        ------
        UserError
            If the run's method has no such network, or its file is missing, damaged, or of another architecture.
        """
        if name not in self.networks:
            raise UserError(f"The run has no network {name!r}; it has: {', '.join(self.networks)}.")
        network = self.networks[name]
        if name not in self._ready:
            load_into(network, self._folder, self.file_of(name))
            network.to(device=self.device, memory_format=torch.channels_last)  # type: ignore[call-overload]
            self._ready.add(name)
        return network

    def file_of(self, name: str) -> str:
        """Return the name, without its ending, of the file in the checkpoint that holds a network's weights."""
        return self._predicts if name == "student" else name

    def made_by(self, name: str) -> dict[str, object]:
        """Return what tells this network's predictions from those of others: step, weights and ways of looking."""
        weights = sha256_of(self._folder / f"{self.file_of(name)}.safetensors")
        return {"step": self.step, "weights": weights[:16], "flip_average": self.flip_average}

    @torch.inference_mode()
    def look(
        self, pixels: npt.NDArray[np.uint8], network: str = "student", text: Text | None = None
    ) -> Views:
        """Return what a network makes of images (B, S, S, 3), which are of the size that it learned from.

        `text` is what the teacher reads; it is not mirrored, so that flips are averaged for the student alone.
        """
        images = standardised(pixels)
        if text is not None:
            return Views(self._asking_teacher(text)(images).numpy())
        ask = self.engine(network)
        if not self.flip_average:
            return Views(ask(images).numpy())
        # The networks learned from flipped images, too: four views of one image err less than one.
        views = torch.stack([ask(images), *(ask(images.flip(axes)).flip(axes) for axes in MIRRORED)])
        mean = views.mean(0)
        masks, mask = views >= 0.5, mean >= 0.5
        common, areas = (masks & mask).sum((-2, -1)), masks.sum((-2, -1)) + mask.sum((-2, -1))
        alike = torch.where(areas > 0, 2 * common / areas.clamp(min=1), 1.0).mean(0)
        return Views(mean.numpy(), (views - mean).square_().mean(0).sqrt_().numpy(), alike.numpy())

    def shown(self, image: npt.NDArray[np.uint8]) -> npt.NDArray[np.uint8]:
        """Return an image (H, W, 3) of any size as large as the networks look at it, (S, S, 3)."""
        size = self.spec.image_size_px
        pixels: npt.NDArray[np.uint8] = resize(image, size, size)
        return pixels

    def predict(
        self, images: Sequence[npt.NDArray[np.uint8]], network: str = "student", text: Text | None = None
    ) -> list[Probability]:
        """Return the foreground probability (T, H, W) of each image, on its own grid; see `look`."""
        views = self.look(np.stack([self.shown(image) for image in images]), network, text)
        return [
            on_grid(stack, image.shape[0], image.shape[1])
            for stack, image in zip(views.probability, images, strict=True)
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
    heeds_earlier_stop: bool = False,
) -> bool:
    """Predict the images of a split, given images, or all; False if it was stopped before its end.

    What this very checkpoint has predicted already is skipped, unless an engine is asked for by name and another one
    made it; an image that cannot be read is left out and named in `done`. The teacher predicts only images that have an
    explanation, or imported embeddings where it learned from those. A request to stop that was there before counts only
    with `heeds_earlier_stop`, for workers, which take a while to start. A `shard` (k, n) is every n-th of the images
    from number k on, counted from 0: processes that take one each can work side by side, and be started again.

    Raises
    ------
    UserError
        If the run has no checkpoint, no image can be read, or the disk is full; what was predicted stays.
    """
    use_threads(threads)
    if not heeds_earlier_stop:
        run.stop_path("predict").unlink(missing_ok=True)
    images = (
        [study.image(image_id) for image_id in image_ids] if image_ids is not None else study.images_of(split)
    )
    images = images[shard[0] :: shard[1]]
    predictor = Predictor(run, device=device, flip_average=flip_average, engine=engine)
    for name in networks:
        predictor.network(name)
    forget_outdated(run, predictor, networks, engine)
    work = [
        (name, image) for name in networks for image in waiting(study, run, name, images, overwrite=overwrite)
    ]
    skipped = len(networks) * len(images) - len(work)
    begin = prepare(predictor, engine, [name for name, _ in work], emit)
    emit("started", 0, len(work), device=str(predictor.device), skipped=skipped, **begin)
    reading = "teacher" in networks and reads_text(run.spec)
    said = text_of(study, run.spec, encoder, encoder_folder) if reading else None

    def told(ids: list[str]) -> Text:
        return phrase_table(study, ids, run.spec, said).text(np.arange(len(ids)))

    result = predict_items(study, predictor, work, told, emit, run.stop_path("predict").exists)
    if result.stopped:
        return False
    failed = result.failed
    if shard[1] == 1 and failed and len(failed) == len({image.id for _, image in work}):
        raise UserError(next(iter(failed.values())))
    emit(
        "done",
        len(work),
        len(work),
        predicted=sum(image.id not in failed for _, image in work),
        skipped=skipped,
        failed=[{"image": image_id, "reason": reason} for image_id, reason in failed.items()],
    )
    return True


def prepare(predictor: Predictor, wish: str, waiting: Sequence[str], emit: Emit) -> dict[str, str]:
    """Build the engines for the networks that images wait for, one name an image; return what is told of them.

    Raises
    ------
    UserError
        If an engine that was asked for by name cannot be used.
    """
    alone = [name for name in waiting if not isinstance(predictor.network(name), Teacher)]
    if not alone:
        return {"engine": "torch", "precision": predictor.precision.name}
    names = list(dict.fromkeys(alone))
    used = {note_of(predictor.run, name).get("engine") for name in names} - {None}
    if wish == "auto" and len(used) == 1 and installed(str(*used)) and predictor.device.type == "cpu":
        # What an interrupted prediction began is finished alike.
        predictor.use_engine(str(*used))
    else:
        predictor.use_engine(wish, len(alone))
    try:
        engines = [predictor.engine(name) for name in names]
    except UserError as error:
        if wish != "auto":
            raise
        emit("warning", 0, len(waiting), message=str(error))
        predictor.use_engine("torch")
        engines = [predictor.engine(name) for name in names]
    for name in names:
        note = predictor.run.path / "predictions" / name / NOTE
        write_json_atomic(note, {**read_json(note), "engine": engines[0].name})
    return {"engine": engines[0].name, "precision": engines[0].precision}


NOTE = "made_by.json"
"""Says beside predictions which checkpoint made them, and how."""


def note_of(run: RunFolder, network: str) -> dict[str, object]:
    """Return what made the predictions that a network has; nothing where it has none."""
    note = run.path / "predictions" / network / NOTE
    return dict(read_json(note)) if note.exists() else {}


def forget_outdated(run: RunFolder, predictor: Predictor, networks: Sequence[str], engine: str) -> None:
    """Remove predictions of networks that are not, or not quite, what will predict now.

    An earlier checkpoint's go for all networks: a student must not be compared with a teacher of another step.
    """
    everything = run.path / "predictions"
    make_folder(everything, within=run.path)
    # Others may be at work on the rest of the images: one of them clears the place for all.
    with locked(everything):
        for network in predictor.networks:
            folder = run.path / "predictions" / network
            known = note_of(run, network)
            if network in networks:
                now = predictor.made_by(network)
                if engine != "auto" and not isinstance(predictor.network(network), Teacher):
                    now["engine"] = engine
                # What an older version did not note is not held against it.
                if known.get("step") != predictor.step or any(
                    known.get(name, now[name]) != now[name] for name in now
                ):
                    shutil.rmtree(folder, ignore_errors=True)
                    write_json_atomic(folder / NOTE, now)
            elif known and known.get("step") != predictor.step:
                shutil.rmtree(folder, ignore_errors=True)


def waiting(
    study: Study, run: RunFolder, network: str, images: Sequence[StudyImage], *, overwrite: bool = False
) -> list[StudyImage]:
    """Return the images that a network can predict and has not yet; `overwrite` removes what it has of them."""
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
    if overwrite:
        for image in images:
            for target_id in targets:
                study.prediction_path(run.id, image.id, target_id, network).unlink(missing_ok=True)
    done = study.prediction_keys(run.id, network)
    return [image for image in images if any((image.id, target_id) not in done for target_id in targets)]
