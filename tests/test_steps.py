"""Steps that wait for a worker."""

from __future__ import annotations

from pathlib import Path

import pytest

from gaze_capture.detectors import IDT
from gaze_capture.errors import UserError
from segmentation import steps
from segmentation.job import RunSpec
from segmentation.runs import create_run
from segmentation.study import Study
from segmentation.workers import follow, start_worker

TINY = RunSpec(
    method="supervised",
    image_size_px=32,
    batch_size=2,
    iterations=4,
    student_widths=(4, 4, 8, 8, 8),
    teacher_widths=(4, 4, 8, 8, 8),
    precision="fp32",
)


def test_a_stopped_run_is_resumed_to_its_end(study: Study, image_folder: Path) -> None:
    steps.import_images(study, [image_folder / "images"], masks=image_folder / "masks")
    run = create_run(study, TINY)
    run.request_stop()
    process = start_worker(run)
    assert [event.kind for event in follow(run, process)][-1] == "stopped"
    process.wait()
    # The events of its first life, "stopped" among them, are told again and must not end the second.
    result = steps.train(study, resume=run.id)
    assert (result.run, result.iterations, result.device) == (run.id, 4, "cpu")
    assert run.state() == "done"
    with pytest.raises(UserError, match="is done"):
        steps.train(study, resume=run.id)


def test_a_run_that_cannot_learn_says_why(study: Study, image_folder: Path) -> None:
    steps.import_images(study, [image_folder / "images"])
    with pytest.raises(UserError, match="a true or reviewed mask"):
        steps.train(study, TINY)


def test_detecting_again_passes_over_what_is_damaged_and_leaves_the_other_tables_alone(
    study: Study, image_folder: Path
) -> None:
    steps.import_images(study, [image_folder / "images"], masks=image_folder / "masks")
    steps.simulate(study, images_per_sitting=2)
    first, second, third = study.recording_ids()
    tables = {
        name: (study.recordings_folder / name / "fixations.csv").read_bytes() for name in (first, third)
    }
    detected = steps.detect_again(study, second, parameters=IDT(dispersion_deg=0.5))
    assert detected.recordings == (second,)
    assert {
        name: (study.recordings_folder / name / "fixations.csv").read_bytes() for name in tables
    } == tables
    sources = {item.source: item.detector for found in study.fixations.values() for item in found}
    assert sources == {first: "adaptive I-VT", second: "I-DT", third: "adaptive I-VT"}

    (study.recordings_folder / first / "gaze.frames").write_bytes(b"nothing")
    report = steps.detect_again(study)
    assert report.recordings == (second, third)
    assert [name for name, _ in report.failed] == [first]
    assert (study.recordings_folder / first / "fixations.csv").read_bytes() == tables[first]
    with pytest.raises(UserError, match=r"gaze\.frames"):
        steps.detect_again(study, first)
