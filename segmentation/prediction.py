"""Predicting the images of a study: which are still to do, and what computes them."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from gaze_capture.errors import UserError
from gaze_capture.storage import locked, make_folder, read_json, write_json_atomic
from segmentation.device import use_threads
from segmentation.engines import installed
from segmentation.methods import reads_text
from segmentation.networks import Teacher, Text
from segmentation.predicting import predict_items
from segmentation.predictor import Predictor
from segmentation.records import StudyImage
from segmentation.runs import RunFolder
from segmentation.study import Study
from segmentation.text.embedding import text_of
from segmentation.text.encoder import Encoder
from segmentation.text.imported import ImportedEmbeddings
from segmentation.text.phrases import phrase_table
from segmentation.training import Emit


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
