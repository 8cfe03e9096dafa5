import dataclasses
import errno
import os
import pickle
import re
import shutil
from pathlib import Path
from typing import Any

import cv2
import nibabel
import numpy as np
import pytest
import safetensors.torch
import torch

from gaze_capture.errors import UserError
from gaze_capture.storage import read_json, write_json_atomic
from segmentation.checkpoints import load_weights
from segmentation.images import read_image, resize
from segmentation.importing import import_images
from segmentation.methods import make_method
from segmentation.metrics import dice
from segmentation.predicting import predict_items
from segmentation.prediction import predict
from segmentation.predictor import Predictor
from segmentation.runs import RunFolder, create_run
from segmentation.study import Study
from segmentation.training import train
from segmentation.uncertainty import certainties, soft_dice, spread_path
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


# How sure it is


def test_spread_and_certainty_are_of_the_four_views(trained: tuple[Study, RunFolder]) -> None:
    study, run = trained
    averaging, plain = Predictor(run), Predictor(run, flip_average=False)
    pixels = np.stack(
        [averaging.shown(read_display(study.image_path(image))) for image in study.images.values()]
    )
    middle = float(torch.logit(torch.from_numpy(Predictor(run).look(pixels).probability)).median())
    for predictor in (averaging, plain):
        # Hardly trained, it says nearly the same everywhere: now it finds something in half of each image.
        head: Any = predictor.network("student").head
        with torch.no_grad():
            head.bias.copy_(300 * (head.bias - middle))
            head.weight.mul_(300)
    views = averaging.look(pixels)
    own = [plain.look(pixels).probability]
    for axes in ((1,), (2,), (1, 2)):
        mirrored = plain.look(np.ascontiguousarray(np.flip(pixels, axes))).probability
        own.append(np.flip(mirrored, tuple(axis + 1 for axis in axes)))
    assert np.allclose(views.probability, np.mean(own, 0), atol=1e-3)
    assert views.deviation is not None and views.flips_dice is not None
    assert np.allclose(views.deviation, np.std(own, 0), atol=1e-3) and views.deviation.max() > 0.05
    mean = np.mean(own, 0)
    expected = [np.mean([dice(one[i, 0] >= 0.5, mean[i, 0] >= 0.5) for one in own]) for i in range(6)]
    assert np.allclose(views.flips_dice[:, 0], expected, atol=0.01) and min(expected) < 0.97
    once = plain.look(pixels)
    assert once.deviation is None and once.flips_dice is None


def test_every_prediction_has_its_certainty(trained: tuple[Study, RunFolder]) -> None:
    study, run = trained
    silent, *rest = study.images
    study.explanation_path(silent, "target").unlink()
    predicted(study, run, networks=("student", "teacher"))
    found = certainties(study, run.id)
    assert set(found) == {(image_id, "target") for image_id in study.images}
    assert all(0 <= (one.dice or -1) <= 1 for one in found.values())
    assert found[silent, "target"].teacher_dice is None
    for image_id in rest:
        assert None not in dataclasses.astuple(found[image_id, "target"])
        spread = read_image(spread_path(study, run.id, image_id, "target"))
        assert spread.shape == (32, 32, 1)
        student, teacher = (study.prediction(run.id, image_id, "target", of) for of in ("student", "teacher"))
        assert student is not None and teacher is not None
        assert found[image_id, "target"].teacher_dice == pytest.approx(soft_dice(student, teacher), abs=1e-3)
    # The other way round the teacher waits for the student.
    predicted(study, run, networks=("teacher",), overwrite=True)
    shutil.rmtree(run.path / "predictions" / "student")
    predicted(study, run)
    assert certainties(study, run.id)[rest[0], "target"].teacher_dice == found[rest[0], "target"].teacher_dice


# What makes it begin anew


def test_another_way_of_predicting_replaces_what_there_is(trained: tuple[Study, RunFolder]) -> None:
    study, run = trained
    note = run.path / "predictions" / "student" / "made_by.json"

    def done(**options: Any) -> tuple[object, object]:
        values = predicted(study, run, **options).of("done")[0]
        return values["predicted"], values["skipped"]

    assert done(networks=("student", "teacher")) == (12, 0)
    assert read_json(note)["engine"] == "torch"
    assert done() == (0, 6)
    assert done(flip_average=False) == (6, 0)
    assert not list(note.parent.glob("spread/*.png"))
    assert done() == (6, 0)
    # Made by another engine: kept, unless one is asked for by name.
    write_json_atomic(note, {**read_json(note), "engine": "openvino"})
    assert done(engine="auto") == (0, 6)
    assert done(engine="torch") == (6, 0)
    assert done(engine="torch") == (0, 6)
    # What an older version noted is taken as it is.
    write_json_atomic(note, {"step": 2})
    assert done() == (0, 6)
    predicted(study, run)
    assert len(study.prediction_keys(run.id, "teacher")) == 6
    # A later checkpoint's student is not to be held against an earlier one's teacher.
    folder = next((run.path / "checkpoints").iterdir())
    state = (folder / "state.json").read_text()
    (folder / "state.json").write_text(state.replace('"step": 2', '"step": 3'))
    assert done() == (6, 0)
    assert not study.prediction_keys(run.id, "teacher")


def test_other_weights_at_the_same_step_are_another_checkpoint(trained: tuple[Study, RunFolder]) -> None:
    study, run = trained
    predicted(study, run)
    folder = next((run.path / "checkpoints").iterdir())
    weights = load_weights(folder, "student_ema")
    weights["head.bias"] = weights["head.bias"] + 1
    (folder / "student_ema.safetensors").write_bytes(safetensors.torch.save(weights))
    assert predicted(study, run).of("done")[0]["predicted"] == 6


def test_a_list_in_parts_gives_what_the_whole_gives(trained: tuple[Study, RunFolder]) -> None:
    study, run = trained
    predicted(study, run)
    whole = {key: study.prediction(run.id, *key) for key in study.prediction_keys(run.id)}
    sure = certainties(study, run.id)
    shutil.rmtree(run.path / "predictions")
    images = list(study.images.values())
    for part in (images[::2], images[1::2]):
        items = [("student", image) for image in part]
        result = predict_items(
            study, Predictor(run), items, lambda ids: pytest.fail(), Events(), lambda: False
        )
        assert not result.stopped and not result.failed
    for key, expected in whole.items():
        found = study.prediction(run.id, *key)
        assert found is not None and expected is not None and np.allclose(found, expected, atol=1e-4)
    again = certainties(study, run.id)
    assert {key: one.dice for key, one in again.items()} == pytest.approx(
        {key: one.dice for key, one in sure.items()}, abs=1e-3
    )


# Images of any kind


def test_any_size_channels_and_depth(trained: tuple[Study, RunFolder], tmp_path: Path) -> None:
    study, run = trained
    rng = np.random.default_rng(0)
    folder = tmp_path / "more"
    folder.mkdir()
    shapes: dict[str, tuple[tuple[int, ...], Any]] = {
        "grey": ((30, 44), np.uint8),
        "alpha": ((31, 45, 4), np.uint8),
        "deep": ((32, 46), np.uint16),
        "deepcolour": ((33, 47, 3), np.uint16),
        "strip": ((40, 3000, 3), np.uint8),
        "tower": ((3000, 40), np.uint8),
        "dot": ((1, 1, 3), np.uint8),
    }
    for name, (shape, kind) in shapes.items():
        pixels = rng.integers(0, np.iinfo(kind).max, shape).astype(kind)
        (folder / f"{name}.png").write_bytes(cv2.imencode(".png", pixels)[1].tobytes())
    nibabel.save(
        nibabel.Nifti1Image(
            rng.integers(-1000, 1000, (20, 24, 3)).astype(np.int16), np.diag([0.5, 0.5, 3, 1])
        ),
        folder / "stack.nii.gz",
    )
    report = import_images(study, [folder])
    assert len(report.imported) == len(shapes) + 3 and not report.skipped
    done = predicted(study, run).of("done")[0]
    assert done == {"predicted": 6 + len(shapes) + 3, "skipped": 0, "failed": []}
    for image in study.images.values():
        probability = study.prediction(run.id, image.id, "target")
        assert probability is not None and probability.shape == image.shape[:2]
    assert set(certainties(study, run.id)) == {(image_id, "target") for image_id in study.images}


# What goes wrong


def test_a_full_disk_is_one_sentence_and_nothing_half_written(
    trained: tuple[Study, RunFolder], monkeypatch: pytest.MonkeyPatch
) -> None:
    study, run = trained
    monkeypatch.setattr("segmentation.predicting.BATCH", 2)
    synced, sync = [], os.fsync

    def full(descriptor: int) -> None:
        synced.append(descriptor)
        if len(synced) > 7:
            raise OSError(errno.ENOSPC, "No space left on device")
        sync(descriptor)

    with monkeypatch.context() as patched:
        patched.setattr(os, "fsync", full)
        with pytest.raises(UserError, match=r"The disk is full: .* could not be written\. Free some space"):
            predict(study, run, Events(), threads=1)
    folder = run.path / "predictions" / "student"
    assert not list(folder.rglob("*.part"))
    kept = study.prediction_keys(run.id)
    assert 0 < len(kept) < 6
    for key in kept:
        assert study.prediction(run.id, *key) is not None
    done = predicted(study, run).of("done")[0]
    assert done == {"predicted": 6 - len(kept), "skipped": len(kept), "failed": []}


def test_a_deleted_image_is_named_and_left_out(trained: tuple[Study, RunFolder]) -> None:
    study, run = trained
    gone = next(iter(study.images.values()))
    study.image_path(gone).unlink()
    done = predicted(study, run).of("done")[0]
    assert done["predicted"] == 5
    told: Any = done["failed"]
    [failed] = told
    assert failed["image"] == gone.id and re.search(
        rf"{gone.id}.* cannot be read: No such file", failed["reason"]
    )


def test_checkpoints_that_are_none_are_refused_and_what_was_predicted_stays(
    trained: tuple[Study, RunFolder],
) -> None:
    study, run = trained
    predicted(study, run)
    folder = next((run.path / "checkpoints").iterdir())
    path, state = folder / "student_ema.safetensors", folder / "state.json"
    good, told = path.read_bytes(), state.read_text()

    def refused(sentence: str, **options: Any) -> None:
        with pytest.raises(UserError, match=sentence) as caught:
            predict(study, run, Events(), threads=1, encoder=HashEncoder(), **options)
        assert "\n" not in str(caught.value)
        assert len(study.prediction_keys(run.id)) == 6

    harmless = run.path / "opened"

    class Trap:
        def __reduce__(self) -> Any:
            return Path.touch, (harmless,)

    torch.save({"head.weight": Trap()}, path)
    refused(r"student_ema\.safetensors is a pickle, not a safetensors file, and was not opened")
    path.write_bytes(pickle.dumps(Trap()))
    refused("is a pickle")
    assert not harmless.exists()
    other = make_method(tiny(student_widths=(4, 8, 8, 8, 16)), HashEncoder.width).student
    path.write_bytes(safetensors.torch.save(other.state_dict()))
    refused(r"student_ema\.safetensors holds a network of another architecture than the run's spec\.json")
    path.write_bytes(good[: len(good) // 2])
    refused(r"student_ema\.safetensors is missing or damaged")
    path.unlink()
    refused(r"student_ema\.safetensors is missing or damaged")
    path.write_bytes(good)
    for half, sentence in (
        (told[:40], "is not valid JSON"),
        ('{"step": 2}', "does not say what the checkpoint holds"),
    ):
        state.write_text(half)
        refused(rf"state\.json is damaged: .*{sentence}")
    state.write_text(told)
    (folder / "teacher.safetensors").unlink()
    refused(r"teacher\.safetensors is missing or damaged", networks=("student", "teacher"))
    assert predicted(study, run, overwrite=True).of("done")[0]["predicted"] == 6, (
        "the student needs no teacher"
    )


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
