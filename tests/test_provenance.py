"""Where a pixel comes from: what is told is what made it, and the command and the window say the same."""

from __future__ import annotations

import dataclasses
import json
import zlib
from pathlib import Path

import cv2
import numpy as np
import pytest

from gaze_capture.errors import UserError
from gaze_capture.fixations import Fixations
from segmentation.dwell import heat_at, lesion_heatmap
from segmentation.provenance import Line, Story, latest_prediction, provenance
from segmentation.pseudomask import PseudoMaskSettings, gathered, make_pseudomask
from segmentation.study import Study
from tests.reader_support import SHAPE, command, command_json, disc, make, review


def gaze(
    image_id: str, source: str, annotator: str, centre: tuple[float, float], **changes: object
) -> Fixations:
    rng = np.random.default_rng(zlib.crc32(f"{source} {centre}".encode()))
    duration = rng.uniform(150, 500, 6)
    values: dict[str, object] = {
        "image_id": image_id,
        "target_id": "target",
        "annotator": annotator,
        "source": source,
        "start_ms": np.cumsum(duration) - duration,
        "duration_ms": duration,
        "xy_px": rng.normal(centre, 2, (6, 2)),
        "dispersion_deg": np.full(6, np.nan),
        "detector": "imported",
        "degrees_per_px": 0.2,
    }
    return Fixations(**{**values, **changes})  # type: ignore[arg-type]


@pytest.fixture
def study(tmp_path: Path) -> Study:
    """Two annotators looked at one place each; a run predicted; one reviewed, one read blind."""
    study = make(tmp_path / "study", 2)
    first = next(iter(study.images))
    study.add_images([dataclasses.replace(study.images[first], spacing_mm=(0.5, 0.25))])
    study.set_pseudomask_settings(PseudoMaskSettings(refine="none"))
    study.save_fixations("look-a", [gaze(first, "look-a", "A", (20, 24))], imported=True)
    study.save_fixations("look-b", [gaze(first, "look-b", "B", (48, 24))], imported=True)
    make_masks(study)
    for network, value in (("student", 0.8), ("teacher", 0.3)):
        study.save_prediction("run-x", first, "target", network, (disc(20) * value).astype(np.float32))
    run = study.runs_folder / "run-x"
    (run / "spec.json").write_text('{"seed": 5}')
    (run / "name.json").write_text('{"name": "second try"}')
    (run / "predictions" / "student" / "made_by.json").write_text('{"step": 1200, "weights": "abcd"}')
    review(
        study, first, "A", disc(20), subject="run-x", started_from="student", edits=("brush", "brush", "smooth"),
        gaze_on_mask_ms=640.0,
    )  # fmt: skip
    review(study, first, "B", disc(48), "second-read")
    study.save_true_mask(first, "target", disc(22))
    return study


def make_masks(study: Study) -> None:
    for image in study.images.values():
        made = make_pseudomask(
            study.guide(image),
            study.fixations.get((image.id, "target"), []),
            study.pseudomask_settings,
            "target",
        )
        if made is not None:
            study.save_pseudomask(made)


def of(story: Story, kind: str) -> list[Line]:
    return [line for line in story.lines if line.kind == kind]


def test_a_fixations_heat_is_the_heatmaps_own() -> None:
    looks = [gaze("i", "a", "A", (20, 24)), gaze("i", "b", "B", (40, 30))]
    found = gathered(looks, PseudoMaskSettings(refine="none"), SHAPE)
    assert found is not None
    rng = np.random.default_rng(0)
    heatmap = lesion_heatmap(
        found.xy_px, found.counted, found.sigma_px, SHAPE, np.zeros(len(found.xy_px), np.int64)
    )
    pixels = [(int(x), int(y)) for x, y in rng.integers([0, 0], [SHAPE[1], SHAPE[0]], (40, 2))]
    sums = np.array(
        [heat_at(found.xy_px, found.counted, found.sigma_px, SHAPE, pixel).sum() for pixel in pixels]
    )
    heats = np.array([heatmap[y, x] for x, y in pixels])
    assert np.polyfit(sums, heats, 1, full=True)[1][0] < 1e-9, "the heatmap is their sum, stretched"


def test_a_pixels_fixations_are_told_down_to_the_recording(study: Study) -> None:
    first = next(iter(study.images))
    story = provenance(study, first, run_id="run-x", pixel=(20, 24))
    told = of(story, "fixation")
    look = study.fixations[first, "target"][0]
    assert {line.values["recording"] for line in told} == {"look-a"}, "the other looked too far away"
    shares = [line.values["share"] for line in told]
    assert shares == sorted(shares, reverse=True) and sum(shares) == pytest.approx(1, abs=0.03)
    for line in told:
        row = line.values["fixation"] - 1
        x, y = look.xy_px[row]
        assert line.values["annotator"] == "A"
        assert line.values["duration_ms"] == pytest.approx(look.duration_ms[row], abs=0.06)
        assert line.values["start_ms"] == pytest.approx(look.start_ms[row], abs=0.06)
        assert line.values["distance_px"] == pytest.approx(np.hypot(x - 20, y - 24), abs=0.01)
        assert line.values["distance_deg"] == pytest.approx(0.2 * np.hypot(x - 20, y - 24), abs=0.001)
        # Spacing is from row to row, then from column to column.
        assert line.values["distance_mm"] == pytest.approx(
            np.hypot(0.25 * (x - 20), 0.5 * (y - 24)), abs=0.001
        )
        assert f"Fixation {row + 1} of A in look-a: {look.duration_ms[row]:.0f} ms" in line.text
    assert len(story.fixations_xy) == len(told) == len(story.shares)


def test_level_and_kernel_are_those_of_the_pseudo_mask(study: Study) -> None:
    first = next(iter(study.images))
    made = study.pseudomask(first, "target")
    assert made is not None
    for x, y in ((20, 24), (28, 24), (32, 24), (5, 5)):
        story = provenance(study, first, pixel=(x, y))
        (level,) = of(story, "level")
        assert level.values["heat"] == pytest.approx(made.heatmap[y, x], abs=1e-4)
        assert level.values["levels_reached"] == made.level_map[y, x]
        for number, threshold in enumerate(made.thresholds):
            assert story.inside[f"level {threshold:g}"] == bool(made.masks[number, y, x])
    (kernel,) = of(story, "kernel")
    assert kernel.values["sigma_px"] == pytest.approx([made.sigma_px.min(), made.sigma_px.max()], abs=1e-3)
    assert "No fixation's heat reaches this pixel" in story.to_text()
    assert of(story, "refiner")[0].text.startswith("No refiner")


def test_the_refiner_tells_what_it_added_and_removed(study: Study) -> None:
    first = next(iter(study.images))
    image = study.images[first]
    # Heat fills what is of one colour and halts at its edge, which cuts through what was looked at.
    pixels = np.full((*SHAPE, 3), 40, np.uint8)
    pixels[12:36, 8:22] = 220
    data = cv2.imencode(".png", pixels)[1].tobytes()
    study.image_path(image).write_bytes(data)
    study.set_pseudomask_settings(PseudoMaskSettings(refine="none", thresholds=(0.5, 0.2)))
    make_masks(study)
    plain = study.pseudomask(first, "target")
    study.set_pseudomask_settings(PseudoMaskSettings(refine="diffusion", thresholds=(0.5, 0.2)))
    make_masks(study)
    made = study.pseudomask(first, "target")
    assert made is not None and plain is not None
    was, holds = plain.level_map > 0, made.level_map > 0
    for name, where in (
        ("added it", holds & ~was), ("removed it", was & ~holds), ("kept it in", was & holds),
        ("kept it out", ~was & ~holds),
    ):  # fmt: skip
        assert where.any(), name
        y, x = (int(axis[len(axis) // 2]) for axis in np.nonzero(where))
        (line,) = of(provenance(study, first, pixel=(x, y)), "refiner")
        assert line.values["did"] == name and line.values["refiner"] == "diffusion"
        assert line.values["heat_before"] == pytest.approx(plain.heatmap[y, x], abs=1e-4)


def test_levels_that_the_study_names_hold_without_a_refiner_too(study: Study) -> None:
    first = next(iter(study.images))
    levels = (0.5, 0.1)
    study.set_pseudomask_settings(PseudoMaskSettings(refine="none", thresholds=levels))
    make_masks(study)
    plain = study.pseudomask(first, "target")
    study.set_pseudomask_settings(PseudoMaskSettings(refine="diffusion", thresholds=levels))
    make_masks(study)
    made = study.pseudomask(first, "target")
    assert made is not None and plain is not None
    # Between the study's lowest level and the preset's.
    y, x = (int(axis[0]) for axis in np.nonzero((plain.heatmap > 0.12) & (plain.heatmap < 0.2)))
    (line,) = of(provenance(study, first, pixel=(x, y)), "refiner")
    assert line.values["level_before"] == 0.1
    assert line.values["did"] == ("kept it in" if made.level_map[y, x] else "removed it")
    study.set_pseudomask_settings(PseudoMaskSettings(refine="diffusion"))
    make_masks(study)
    (line,) = of(provenance(study, first, pixel=(x, y)), "refiner")
    assert line.values["level_before"] == 0.25


def test_run_probability_and_threshold(study: Study) -> None:
    first, second = study.images
    story = provenance(study, first, run_id="run-x", pixel=(20, 24))
    (run,), (student,), (teacher,) = (of(story, kind) for kind in ("run", "student", "teacher"))
    assert (
        run.values["seed"] == 5
        and run.values["name"] == "second try"
        and run.values["learned_from_this_split"]
    )
    assert "second try" in run.text
    assert student.values["probability"] == pytest.approx(0.8, abs=1e-3) and student.values["inside"]
    assert student.values["step"] == 1200 and student.values["threshold"] == 0.5
    assert teacher.values["probability"] == pytest.approx(0.3, abs=1e-3) and not teacher.values["inside"]
    assert story.inside["student"] and not story.inside["teacher"]
    assert latest_prediction(study, first, "target") == "run-x"
    assert latest_prediction(study, second, "target") is None
    assert of(provenance(study, second, run_id="run-x"), "student")[0].text == (
        "The student has not predicted this image"
    )


def test_reviews_say_whose_they_are_and_which_counts(study: Study) -> None:
    first = next(iter(study.images))
    story = provenance(study, first, run_id="run-x", pixel=(20, 24))
    second_read, counting = of(story, "review")
    assert counting.values["counts"] and counting.values["inside"] and story.inside["review"]
    assert counting.values["annotator"] == "A" and counting.values["started_from"] == "student"
    assert "edited by brush, smooth" in counting.text and "eyes on the mask for 640 ms" in counting.text
    assert "this one counts" in counting.text and counting.text.startswith("Review")
    assert not second_read.values["counts"] and second_read.values["inside"] is False
    assert second_read.text.startswith("Second read") and second_read.values["purpose"] == "second-read"
    blind = provenance(study, first, run_id="run-x", pixel=(20, 24), hides=("review", "truth"))
    assert not of(blind, "review") and not of(blind, "truth")
    assert "review" not in blind.inside and "truth" not in blind.inside
    assert "reviewed" not in blind.lines[0].text and "true" not in blind.lines[0].text


def test_simulated_gaze_is_called_so(study: Study) -> None:
    first, second = study.images
    assert not of(provenance(study, first, pixel=(1, 1)), "note")
    study.save_fixations(
        "drawn", [gaze(second, "drawn", "simulated", (20, 24), simulated_from="masks")], imported=True
    )
    make_masks(study)
    assert of(provenance(study, second), "note")[0].values == {"simulated_from": "masks"}


def test_gaze_that_changed_since_is_said_to_have(study: Study) -> None:
    first = next(iter(study.images))
    study.save_fixations("look-c", [gaze(first, "look-c", "C", (20, 24))], imported=True)
    story = provenance(study, first, pixel=(20, 24))
    assert "have changed since this pseudo-mask was made" in of(story, "note")[0].text
    told = of(story, "fixation")
    assert told and all("recording" not in line.values for line in told)
    assert all("Fixation of A, B" in line.text for line in told)


def test_numbers_go_on_where_zooming_split_a_look(study: Study) -> None:
    second = list(study.images)[1]
    parts = [gaze(second, "zoomed", "A", (20, 24)), gaze(second, "zoomed", "A", (21, 24))]
    study.save_fixations("zoomed", parts, imported=True)
    make_masks(study)
    told = of(provenance(study, second, pixel=(20, 24)), "fixation")
    numbers = {line.values["fixation"] for line in told if "fixation" in line.values}
    assert max(numbers) > 6
    for line in told:
        if "fixation" in line.values:
            part, row = divmod(line.values["fixation"] - 1, 6)
            assert line.values["x_px"] == pytest.approx(parts[part].xy_px[row, 0], abs=0.01)


def test_the_command_says_the_same(study: Study) -> None:
    first = next(iter(study.images))
    story = provenance(study, first, run_id="run-x", pixel=(20, 24))
    values = command_json("provenance", study.folder, first, "--at", "20,24")
    assert values == json.loads(json.dumps(story.to_json()))
    status, out, _ = command("provenance", study.folder, first, "--at", "20,24")
    assert status == 0 and out == story.to_text() + "\n"
    status, out, _ = command("provenance", study.folder, first)
    assert status == 0 and "Gaze of A in look-a: 6 fixations" in out and "Pixel" not in out


def test_what_cannot_be_told(study: Study) -> None:
    first, second = study.images
    for words, said in (
        (("gone",), "no image 'gone'"),
        ((first, "--target", "liver"), "no target 'liver'"),
        ((first, "--at", "64,0"), "The pixel 64,0 lies outside"),
        ((first, "--at=-1,0"), "lies outside"),
        ((first, "--run", "run-y"), "no run 'run-y'"),
    ):
        status, out, error = command("provenance", study.folder, *words)
        assert (status, out) == (1, "") and said in error and error.count("\n") == 1
    assert command("provenance", study.folder, first, "--at", "here")[0] == 2
    assert (
        command("provenance", study.folder, second)[1] == "Nothing was recorded or said of this image yet.\n"
    )
    study.save_prediction("run-x", second, "target", "student", np.zeros((5, 6), np.float32))
    with pytest.raises(UserError, match=r"student's prediction of .* is 6 x 5 pixels, its image 64 x 48"):
        provenance(study, second, run_id="run-x", pixel=(1, 1))
