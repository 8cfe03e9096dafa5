"""Several targets in one study: edited, looked for one by one, learned together."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest

from gaze_capture.errors import UserError
from gaze_capture.fixations import Fixations
from gaze_capture.recording_codec import read_recording
from segmentation import steps
from segmentation.images import read_stored
from segmentation.intensity import for_networks
from segmentation.job import RunSpec
from segmentation.prostate import make_prostate
from segmentation.records import Target
from segmentation.runs import RunFolder, create_run
from segmentation.study import Study
from segmentation.targets import COLOURS, add_target, free_colour, remove_target, rename_target
from tests.test_cli import refused, values
from tests.training_helpers import Events, tiny
from tests.volume_helpers import ZONES, add_volume, prostate_study

SHAPE = (8, 64, 64)


def look(image_id: str, target_id: str | None, **changes: object) -> Fixations:
    one: dict[str, object] = {
        "image_id": image_id,
        "target_id": target_id,
        "annotator": "ann",
        "source": "rec-1",
        "start_ms": np.array([0.0, 400]),
        "duration_ms": np.array([300.0, 300]),
        "xy_px": np.array([[30.0, 20.0], [32.0, 22.0]]),
        "dispersion_deg": np.zeros(2),
        "detector": "test",
        "degrees_per_px": 0.1,
        "viewing_ms": 900.0,
    }
    return Fixations(**(one | changes))  # type: ignore[arg-type]


@pytest.fixture
def zones(tmp_path: Path) -> Study:
    return prostate_study(tmp_path / "zones", {"train": [0], "test": [1]}, SHAPE)


# Editing


def test_targets_are_added_with_colours_of_their_own_and_renamed(study: Study) -> None:
    add_target(study, "gland", "Prostate", kind="organ", code="SCT:41216001")
    add_target(study, "central", kind="zone", inside="gland")
    again = Study.open(study.folder)
    assert [target.id for target in again.targets] == ["target", "gland", "central"]
    assert again.target("central") == Target("central", "central", COLOURS[2], "zone", "gland")
    assert len({target.colour for target in again.targets}) == 3
    rename_target(again, "gland", " Gland ")
    assert Study.open(study.folder).target("gland").name == "Gland"
    for id_and_options, sentence in (
        ({"target_id": "gland"}, "already"),
        ({"target_id": "x", "inside": "liver"}, "no target of the study"),
        ({"target_id": "x", "colour": "green"}, "no colour"),
        ({"target_id": "a.b"}, "cannot be a target's id"),
    ):
        with pytest.raises(UserError, match=sentence):
            add_target(study, **id_and_options)  # type: ignore[arg-type]
    for target_id, name, sentence in (("liver", "L", "no target 'liver'"), ("gland", " ", "empty")):
        with pytest.raises(UserError, match=sentence):
            rename_target(study, target_id, name)
    assert len(Study.open(study.folder).targets) == 3


def test_a_target_goes_only_while_nothing_is_held_of_it(study: Study) -> None:
    add_target(study, "gland")
    add_target(study, "zone", inside="gland")
    remove_target(study, "target")
    assert [target.id for target in Study.open(study.folder).targets] == ["gland", "zone"]
    with pytest.raises(UserError, match="no target of the study"):
        remove_target(study, "gland")
    study.save_true_mask("a", "zone", np.ones((4, 4), np.bool_))
    with pytest.raises(UserError, match="cannot be taken away"):
        remove_target(study, "zone")


def test_colours_come_again_only_when_all_are_used() -> None:
    targets: list[Target] = []
    for number in range(len(COLOURS) + 1):
        targets.append(Target(f"t{number}", colour=free_colour(targets)))
    assert [target.colour for target in targets] == [*COLOURS, COLOURS[0]]


def test_the_command_lists_and_edits(tmp_path: Path) -> None:
    folder = tmp_path / "study"
    Study.create(folder)
    added = values(
        "targets", folder, "--add", "zone", "--name", "Zone", "--kind", "zone", "--inside", "target"
    )
    assert [target["id"] for target in added["targets"]] == ["target", "zone"]
    assert added["targets"][1]["inside"] == "target"
    renamed = values("targets", folder, "--rename", "zone", "Peripheral zone")
    assert renamed["targets"][1]["name"] == "Peripheral zone"
    assert values("targets", folder) == renamed
    assert "--add" in refused("targets", folder, "--name", "Nobody")
    assert "already" in refused("targets", folder, "--add", "zone")


# Gaze


def test_free_viewing_counts_for_every_target(study: Study) -> None:
    add_target(study, "second")
    study.save_fixations("rec-1", [look("a", None, presence="absent"), look("b", "second")], imported=True)
    assert set(study.fixations) == {("a", "target"), ("a", "second"), ("b", "second")}
    assert study.presence("a", "target") == study.presence("a", "second") == "absent"
    assert [item.image_id for item in study.fixations.each()] == ["a", "b"], "each look is counted once"
    add_target(study, "third")
    assert ("a", "third") in study.fixations
    # Nothing was said of the third target alone: it may go again; the second has gaze of its own.
    study.set_targets([target for target in study.targets if target.id != "third"])
    with pytest.raises(UserError, match="'second' has masks"):
        study.set_targets([study.target("target")])


def test_every_target_is_looked_for_once(zones: Study) -> None:
    report = steps.simulate(zones, split="train", seed=2)
    assert report.images == report.from_masks == 16, "eight slices, two targets"
    assert set(zones.fixations) == {
        (image.id, target.id) for image in zones.images_of("train") for target in ZONES
    }
    with pytest.raises(UserError, match="gaze already"):
        steps.simulate(zones, split="train")
    first, second = (read_recording(zones.recordings_folder / name) for name in report.recordings)
    assert {placement.target_id for placement in first.placements} == {"gland"}
    assert {placement.target_id for placement in second.placements} == {"central"}
    assert first.calibration != second.calibration, "no two targets share a sitting"


def test_one_target_is_looked_for_as_in_a_study_of_its_own(zones: Study, tmp_path: Path) -> None:
    alone = prostate_study(tmp_path / "alone", {"train": [0]}, SHAPE, targets=ZONES[:1])
    steps.simulate(alone, split="train", seed=5)
    steps.simulate(zones, split="train", seed=5, targets=["gland"])
    assert {target for _, target in zones.fixations} == {"gland"}
    for (image_id, target_id), (found,) in alone.fixations.items():
        (same,) = zones.fixations[image_id, target_id]
        np.testing.assert_array_equal(found.xy_px, same.xy_px)
    # Whether both are asked for at once or one after the other, the eye does the same.
    together = prostate_study(tmp_path / "together", {"train": [0]}, SHAPE)
    steps.simulate(together, seed=5)
    steps.simulate(zones, split="train", seed=5, targets=["central"])
    for key, (found,) in together.fixations.items():
        np.testing.assert_array_equal(found.xy_px, zones.fixations[key][0].xy_px)


def test_images_without_a_mask_are_passed_over_for_that_target(zones: Study) -> None:
    slices = zones.images_of("train")
    for image in slices[:3]:
        zones.mask_path(image.id, "central").unlink()
    with pytest.raises(UserError, match="3 images have no true mask"):
        steps.simulate(zones, split="train", source="masks", targets=["central"])
    report = steps.simulate(zones, split="train", source="masks")
    assert (report.images, report.without_mask) == (13, 3)
    assert (slices[0].id, "central") not in zones.fixations


def test_a_clinician_who_never_says_what_is_there(zones: Study) -> None:
    steps.simulate(zones, split="train", targets=["gland"], gives_presence=False)
    empty = next(image for image in zones.images_of("train") if not zones.true_mask(image.id, "gland").any())  # type: ignore[union-attr]
    assert zones.presence(empty.id, "gland") is None
    report = steps.make_pseudomasks(zones, split="train")
    assert report.absent == 0
    made = zones.pseudomask(empty.id, "gland")
    assert made is not None and made.level_map.any(), "the search becomes a pseudo-mask, for want of a word"


# Learning


def test_a_run_learns_all_targets_unless_told(zones: Study) -> None:
    run = create_run(zones, tiny(targets=()))
    assert run.spec.targets == ("gland", "central")
    assert json.loads((run.path / "spec.json").read_text())["targets"] == ["gland", "central"]
    assert create_run(zones, tiny(targets=("central",))).spec.targets == ("central",)
    # A target that joins later changes nothing about a run that was made before.
    add_target(zones, "lesion")
    assert RunFolder(run.path).spec.targets == ("gland", "central")
    assert RunSpec.from_json({"method": "partial"}).targets == ()


def test_both_zones_from_gaze_to_a_measured_volume(zones: Study) -> None:
    steps.simulate(zones, split="train")
    steps.make_pseudomasks(zones)
    trained = steps.train(zones, tiny("partial", targets=()))
    assert trained.targets == ("gland", "central")
    assert trained.normalisation == {"mr": "z-score"}
    steps.predict(zones, trained.run, split="test")
    measured = steps.evaluate(zones, trained.run, split="test").to_json()
    assert list(measured["targets"]) == ["gland", "central"]
    for one in measured["targets"].values():
        assert one["images"] == 8 and one["volumes"]["count"] == 1
        assert one["volumes"]["hd95_mm"]["mean"] > 0
    assert measured["images"] == 16


def hounsfield_study(folder: Path) -> Study:
    """A CT-like study: stored numbers - 1024 are Hounsfield units."""
    study = Study.create(folder, targets=ZONES)
    for name, split in (("one", "train"), ("two", "test")):
        images = add_volume(study, name, make_prostate(3, SHAPE), split, modality="ct")
        shifted = [
            dataclasses.replace(
                image, intensity=dataclasses.replace(image.intensity, intercept=-1024.0, unit="HU")
            )
            for image in images
        ]
        study.add_images(shifted)
    return study


def test_the_rule_of_a_modality_is_recorded_and_serves_prediction_too(tmp_path: Path) -> None:
    from segmentation.dataset import load_training_set
    from segmentation.prediction import predict
    from segmentation.predictor import Predictor

    study = hounsfield_study(tmp_path / "ct")
    rules = {"ct": "window -600 1500"}
    spec = tiny("supervised", image_size_px=64, normalisation=rules, targets=())
    trained = steps.train(study, spec)
    assert trained.normalisation == rules
    run = RunFolder(study.runs_folder / trained.run)
    assert run.spec.normalisation == rules

    def by_hand(image_id: str) -> npt.NDArray[np.uint8]:
        stored = read_stored(study.image_path(study.image(image_id)))
        grey = np.clip((stored - 1024.0 + 600 + 750) / 1500 * 255, 0, 255).round().astype(np.uint8)
        return np.repeat(grey, 3, axis=2)

    data = load_training_set(study, run.spec, None)
    for image_id, pixels in zip(data.ids, data.images, strict=True):
        np.testing.assert_allclose(pixels.astype(int), by_hand(image_id), atol=1)
    image = study.images_of("test")[0]
    default = for_networks(read_stored(study.image_path(image)), image.intensity, "ct", {"ct": "range"})
    assert np.abs(by_hand(image.id).astype(int) - default).max() > 20, "the rule makes a difference"
    predict(study, run, Events(), split="test")
    (expected,) = Predictor(run).predict([by_hand(image.id)])
    stored = study.prediction(run.id, image.id, "gland")
    assert stored is not None
    np.testing.assert_allclose(stored, expected[0], atol=0.01)


def test_the_command_takes_rules_and_targets(tmp_path: Path) -> None:
    study = hounsfield_study(tmp_path / "ct")
    config = tmp_path / "spec.json"
    config.write_text(json.dumps(tiny("supervised", iterations=2, targets=()).to_json()))
    options = ("--config", config, "--normalise", "ct=window -600 1500", "--targets", "gland")
    trained = values("train", study.folder, *options)
    assert trained["targets"] == ["gland"]
    assert trained["normalisation"] == {"ct": "window -600 1500"}
    spec = RunFolder(study.runs_folder / trained["run"]).spec
    assert spec.normalisation["ct"] == "window -600 1500"
    assert spec.normalisation["mr"] == "z-score", "what was not named stays"
    for wrong in ("ct", "ct=bright", "pet=range", "ct=window 1 -5"):
        assert "--normalise" in refused("train", study.folder, "--normalise", wrong, status=2)
    assert "no target 'liver'" in refused("train", study.folder, "--config", config, "--targets", "liver")
