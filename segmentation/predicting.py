"""Predicting a list of images: reading, computing and storing at once, with memory that does not grow with the list."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from gaze_capture.errors import UserError
from segmentation.images import resize
from segmentation.networks import Text
from segmentation.predictor import Predictor, Views
from segmentation.records import StudyImage
from segmentation.study import Study
from segmentation.training import Emit
from segmentation.uncertainty import CertaintyLog, expected_dice, save_spread, soft_dice

BATCH = 8
HANDS = 4
"""Threads that read and store: most of their time they wait for the disk."""
STORE_EVERY_SECONDS = 10.0

Item = tuple[str, StudyImage]
"""A network's name and an image that it shall segment."""


@dataclass(frozen=True)
class Predicted:
    """How a list of images fared."""

    stopped: bool
    failed: dict[str, str] = field(default_factory=dict)
    """Why an image could not be read, by its id."""


@dataclass(frozen=True)
class _Read:
    """An image as large as the networks look at it; its own pixels are gone, however many there were."""

    image: StudyImage
    pixels: npt.NDArray[np.uint8]
    height: int
    width: int


def predict_items(
    study: Study,
    predictor: Predictor,
    items: Sequence[Item],
    told: Callable[[list[str]], Text],
    emit: Emit,
    stopped: Callable[[], bool],
) -> Predicted:
    """Predict images and store what is found; the list itself is chosen elsewhere, and may be a part of a longer one.

    Parameters
    ----------
    told
        Returns what the teacher reads of images, by their ids.
    emit
        Told of ``progress``, with ``images_per_s`` and ``eta_s``, after every few images.
    stopped
        Asked between batches whether to stop; what was predicted by then is stored.

    Raises
    ------
    UserError
        If something cannot be stored; what was stored before is whole.
    """
    failed: dict[str, str] = {}
    logs = {
        name: CertaintyLog(study, predictor.run.id, name) for name in dict.fromkeys(name for name, _ in items)
    }

    def read(image: StudyImage) -> _Read | None:
        try:
            pixels = study.network_input(image, predictor.spec.normalisation)
        except UserError as error:
            # One bad file must not cost the nine hundred after it.
            failed[image.id] = str(error)
            return None
        return _Read(image, predictor.shown(pixels), *pixels.shape[:2])

    parts = [
        part for name in logs for part in _parts([image for own, image in items if own == name], name, BATCH)
    ]
    done, ended = 0, False
    begun = stored = time.monotonic()
    with ThreadPoolExecutor(max_workers=HANDS) as pool, _kept(logs.values()):
        saving: list[Future[None]] = []
        ahead: list[Future[_Read | None]] = []

        def fetch(number: int) -> list[Future[_Read | None]]:
            return [pool.submit(read, image) for image in parts[number][1]] if number < len(parts) else []

        ahead = fetch(0)
        for number, (name, images) in enumerate(parts):
            found = [one for one in (future.result() for future in ahead) if one is not None]
            ahead = fetch(number + 1)
            if found:
                text = told([one.image.id for one in found]) if name == "teacher" else None
                views = predictor.look(np.stack([one.pixels for one in found]), name, text)
                _wait(saving)
                saving = [
                    pool.submit(_save, study, predictor, name, one, views, place, logs[name])
                    for place, one in enumerate(found)
                ]
            done += len(images)
            now = time.monotonic()
            speed = done / max(now - begun, 1e-3)
            left = (len(items) - done) / speed
            emit(
                "progress",
                done,
                len(items),
                name="predicting",
                images_per_s=round(speed, 2),
                eta_s=round(left, 1),
            )
            if now - stored > STORE_EVERY_SECONDS:
                stored = now
                for log in logs.values():
                    log.store()
            ended = stopped()
            if ended:
                break
        for future in ahead:
            future.cancel()
        _wait(saving)
    return Predicted(ended, failed)


def _parts(images: list[StudyImage], name: str, size: int) -> list[tuple[str, list[StudyImage]]]:
    return [(name, images[start : start + size]) for start in range(0, len(images), size)]


def _wait(saving: Sequence[Future[None]]) -> None:
    for future in saving:
        future.result()


def _save(
    study: Study, predictor: Predictor, name: str, one: _Read, views: Views, place: int, log: CertaintyLog
) -> None:
    run_id, image_id = predictor.run.id, one.image.id
    for number, target_id in enumerate(predictor.spec.targets):
        probability = views.probability[place, number]
        found: dict[str, float] = {}
        if name == "student":
            found["expected_dice"] = expected_dice(probability)
            if views.deviation is not None and views.flips_dice is not None:
                found["flips_dice"] = float(views.flips_dice[place, number])
                save_spread(study, run_id, image_id, target_id, views.deviation[place, number])
        full = resize(probability, one.height, one.width)
        # Last of the files: an image that has it has all.
        study.save_prediction(run_id, image_id, target_id, name, full)
        other = _OTHER.get(name)
        said = study.prediction(run_id, image_id, target_id, other) if other else None
        if said is not None and said.shape == full.shape:
            found["teacher_dice"] = soft_dice(full, said)
        log.add(image_id, target_id, found)


_OTHER = {"student": "teacher", "teacher": "student"}


@contextlib.contextmanager
def _kept(logs: Iterable[CertaintyLog]) -> Iterator[None]:
    """Store what was noted, however the work ends."""
    try:
        yield
    except BaseException:
        for log in logs:
            # What ended the work is what is to be told.
            with contextlib.suppress(UserError):
                log.store()
        raise
    for log in logs:
        log.store()
