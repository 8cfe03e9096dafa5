"""What the tests of training again and of rounds share: runs that really learned, and reviews."""

from __future__ import annotations

import os
import socket
from typing import Any

import numpy as np

from gaze_capture.storage import write_json_atomic
from segmentation.job import JobEvent, RunSpec
from segmentation.prediction import predict
from segmentation.records import utc_now
from segmentation.review_index import BARE_IMAGE
from segmentation.runs import RunFolder, create_run
from segmentation.study import Mask, Review, Study
from segmentation.training import train
from tests.training_helpers import Events


def trained(study: Study, spec: RunSpec, *, images: list[str] | None = None) -> RunFolder:
    """Train in this process and predict, all images by default, leaving what a worker would."""
    run = create_run(study, spec)
    events = Events()
    train(study, run, events, threads=1)
    predict(study, run, Events(), image_ids=list(study.images) if images is None else images, threads=1)
    worker = {"pid": os.getpid(), "host": socket.gethostname(), "started": 0.0, "heartbeat": 0.0}
    write_json_atomic(run.path / "worker.json", worker)
    with open(run.events_path, "w", encoding="utf-8") as stream:
        for number, (kind, step, values) in enumerate(events.all):
            event = JobEvent(run.id, kind, step, spec.iterations, 1.7e9 + number, values)  # type: ignore[arg-type]
            stream.write(event.to_line() + "\n")
    return run


def mask_like(study: Study, image_id: str) -> Mask:
    """Return a mask of an image's size that is no label of it otherwise: its left half."""
    height, width = study.image(image_id).shape[:2]
    mask = np.zeros((height, width), np.bool_)
    mask[:, : width // 2] = True
    return mask


def say(study: Study, image_id: str, *, mask: Mask | None = None, **changes: Any) -> str:
    """Add a review: an edited mask unless told otherwise."""
    values: dict[str, Any] = {
        "image_id": image_id,
        "target_id": "target",
        "annotator": "A",
        "subject": "run-x",
        "verdict": "edited",
        "presence": "present",
        "seconds_spent": 30.0,
        "reviewed_at": utc_now(),
    }
    if changes.get("purpose") == "audit":
        values.update(subject=BARE_IMAGE, started_from="empty")
    values.update(changes)
    kept = mask if mask is not None or values["verdict"] == "rejected" else mask_like(study, image_id)
    return study.add_review(Review(**values), kept)
