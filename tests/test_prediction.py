from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import torch

from gaze_capture.errors import UserError
from segmentation.images import resize
from segmentation.prediction import Predictor, predict
from segmentation.runs import RunFolder, create_run
from segmentation.study import Study
from segmentation.training import train
from tests.pictures import read_display
from tests.training_helpers import Events, HashEncoder, make_study, tiny


@pytest.fixture
def trained(tmp_path: Path, image_folder: Path) -> tuple[Study, RunFolder]:
    study = make_study(tmp_path / "study", image_folder)
    run = create_run(study, tiny(iterations=2))
    assert train(study, run, Events(), threads=1, encoder=HashEncoder())
    return study, run


def predicted(study: Study, run: RunFolder, **options: Any) -> Events:
    events = Events()
    assert predict(study, run, events, threads=1, encoder=HashEncoder(), **options)
    return events


def test_probabilities_lie_on_each_image_s_own_grid(trained: tuple[Study, RunFolder], tmp_path: Path) -> None:
    study, run = trained
    image = next(iter(study.images.values()))
    large = resize(read_display(study.image_path(image)), 101, 67)
    study.image_path(image).write_bytes(cv2.imencode(".png", large)[1].tobytes())
    events = predicted(study, run)
    assert events.of("done")[0] == {"predicted": 6, "skipped": 0, "failed": []}
    for image_id in study.images:
        probability = study.prediction(run.id, image_id, "target")
        assert probability is not None
        assert probability.shape == ((101, 67) if image_id == image.id else (48, 64))
        assert 0 <= probability.min() <= probability.max() <= 1


def test_what_is_predicted_is_kept_until_asked_otherwise(trained: tuple[Study, RunFolder]) -> None:
    study, run = trained
    some = list(study.images)[:2]
    assert predicted(study, run, image_ids=some).of("done")[0]["predicted"] == 2
    assert predicted(study, run).of("done")[0] == {"predicted": 4, "skipped": 2, "failed": []}
    assert predicted(study, run, overwrite=True).of("done")[0] == {"predicted": 6, "skipped": 0, "failed": []}
    assert [values["name"] for values in predicted(study, run).of("progress")] == []


def test_a_later_checkpoint_replaces_what_an_earlier_one_predicted(trained: tuple[Study, RunFolder]) -> None:
    study, run = trained
    predicted(study, run)
    folder = next((run.path / "checkpoints").iterdir())
    state = (folder / "state.json").read_text()
    (folder / "state.json").write_text(state.replace('"step": 2', '"step": 3'))
    assert predicted(study, run).of("done")[0] == {"predicted": 6, "skipped": 0, "failed": []}


def test_the_teacher_predicts_where_an_explanation_is(trained: tuple[Study, RunFolder]) -> None:
    study, run = trained
    silent, *rest = study.images
    study.explanation_path(silent, "target").unlink()
    done = predicted(study, run, networks=("student", "teacher")).of("done")[0]
    assert done["predicted"] == 11
    assert study.prediction_keys(run.id, "teacher") == {(image_id, "target") for image_id in rest}
    student, teacher = (study.prediction(run.id, rest[0], "target", name) for name in ("student", "teacher"))
    assert student is not None and teacher is not None and not np.array_equal(student, teacher)


def test_stopping_keeps_what_is_done(
    trained: tuple[Study, RunFolder], monkeypatch: pytest.MonkeyPatch
) -> None:
    study, run = trained
    monkeypatch.setattr("segmentation.predicting.BATCH", 2)
    # A request left over from an earlier job stops nothing.
    run.request_stop("predict")

    def emit(kind: Any, step: int, total: int, **values: object) -> None:
        if kind == "progress":
            run.request_stop("predict")

    assert not predict(study, run, emit, threads=1)
    assert len(study.prediction_keys(run.id)) == 2
    assert predicted(study, run).of("done")[0] == {"predicted": 4, "skipped": 2, "failed": []}


def test_mirrored_images_get_mirrored_masks_when_flips_are_averaged(trained: tuple[Study, RunFolder]) -> None:
    study, run = trained
    pixels = read_display(study.image_path(next(iter(study.images.values()))))
    mirrored = np.ascontiguousarray(pixels[::-1, ::-1])
    averaging, plain = Predictor(run), Predictor(run, flip_average=False)
    first, second = averaging.predict([pixels, mirrored])
    assert np.allclose(first, second[:, ::-1, ::-1], atol=1e-3)
    first, second = plain.predict([pixels, mirrored])
    assert not np.allclose(first, second[:, ::-1, ::-1], atol=1e-3)


def test_the_averaged_weights_predict(trained: tuple[Study, RunFolder]) -> None:
    _, run = trained
    from segmentation.checkpoints import latest_checkpoint, load_weights

    folder = latest_checkpoint(run)
    assert folder is not None
    used = Predictor(run).network("student").state_dict()
    averaged, last = load_weights(folder, "student_ema"), load_weights(folder, "student")
    assert torch.equal(used["head.weight"], averaged["head.weight"])
    assert not torch.equal(used["head.weight"], last["head.weight"])


def test_clear_refusals(trained: tuple[Study, RunFolder]) -> None:
    study, run = trained
    with pytest.raises(UserError, match="has no checkpoint"):
        predict(study, create_run(study, tiny()), Events())
    with pytest.raises(UserError, match="no network 'oracle'"):
        predict(study, run, Events(), networks=("oracle",))
    with pytest.raises(UserError, match="no image 'x'"):
        predict(study, run, Events(), image_ids=["x"])
    path = next((run.path / "checkpoints").glob("*/student_ema.safetensors"))
    path.write_bytes(path.read_bytes()[:100])
    with pytest.raises(UserError, match=r"student_ema\.safetensors is missing or damaged"):
        predict(study, run, Events())


def test_one_bad_file_costs_no_other_image(trained: tuple[Study, RunFolder]) -> None:
    study, run = trained
    bad, *good = study.images.values()
    kept = study.image_path(bad).read_bytes()
    study.image_path(bad).write_bytes(kept[:60])
    done = predicted(study, run, networks=("student", "teacher")).of("done")[0]
    assert done["predicted"] == 10
    failed: Any = done["failed"]
    assert [one["image"] for one in failed] == [bad.id]
    assert study.image_path(bad).name in failed[0]["reason"]
    assert study.prediction_keys(run.id) == {(image.id, "target") for image in good}
    # Only what is missing is tried again, and nothing but bad files is a failure.
    with pytest.raises(UserError, match=study.image_path(bad).name):
        predict(study, run, Events(), threads=1)
    study.image_path(bad).write_bytes(kept)
    assert predicted(study, run).of("done")[0] == {"predicted": 1, "skipped": 5, "failed": []}
