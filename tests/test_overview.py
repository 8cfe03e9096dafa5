"""What the study page counts, and what it says is next."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from app.overview import Overview, survey
from gaze_capture.storage import write_json_atomic
from segmentation.importing import import_images
from segmentation.job import JobEvent
from segmentation.records import utc_now
from segmentation.study import Review, Study


def test_what_has_no_mask_does_not_wait_for_a_review(study: Study, image_folder: Path) -> None:
    import_images(study, [image_folder / "images"])
    first, second, *_ = study.images
    run = study.runs_folder / "run-20261101-090000-aaaaaa"
    run.mkdir(parents=True)
    (run / "spec.json").write_text("{}")
    (run / "events.jsonl").write_text(JobEvent(run.name, "done", 1, 1, 0.0).to_line() + "\n")
    write_json_atomic(run / "worker.json", {"pid": 1, "host": "elsewhere", "started": 0, "heartbeat": 0})
    for image_id in (first, second):
        shape = study.images[image_id].shape[:2]
        study.save_prediction(run.name, image_id, "target", "student", np.zeros(shape, np.float32))
    found = survey(Study.open(study.folder))
    assert (found.images, found.predictions, found.to_review) == (len(study.images), 2, 2)
    study.add_review(Review(first, "target", "A", run.name, "rejected", "present", 1.0, utc_now()))
    found = survey(Study.open(study.folder))
    assert (found.reviews, found.to_review) == (1, 1)


def test_after_the_last_mask_nothing_is_next_though_images_without_one_are_left() -> None:
    counts = Overview(images=9, gaze=3, pseudomasks=3, explanations=3, finished_run="run", predictions=3)
    assert Overview(**{**vars(counts), "to_review": 1}).next_step == "review"
    assert Overview(**{**vars(counts), "reviews": 3}).next_step == "finished"
