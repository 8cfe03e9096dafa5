import json
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from app.cli import run_command
from gaze_capture.errors import UserError
from segmentation.bootstrap import clustered_interval
from segmentation.explanation import Explanation, phrase_of, save_explanation
from segmentation.explanation_presets import OPEN_WORDS, load_preset, preset_ids
from segmentation.importing import import_images
from segmentation.runs import RunFolder, create_run
from segmentation.study import Study
from segmentation.text.attention import (
    AttentionMaps,
    attention_path,
    load_attention,
    save_attention,
    share_inside,
)
from segmentation.text.measuring import cell_centre, measure, moved_towards, readings_of, swapped_value
from segmentation.text.use import ANOTHER, NOTHING, TextUse
from segmentation.training import train
from tests.training_helpers import Events, HashEncoder, make_study, pseudomask_of, tiny


@pytest.fixture
def filled(tmp_path: Path, image_folder: Path) -> Study:
    return make_study(tmp_path / "study", image_folder)


@pytest.fixture(scope="module")
def grey(tmp_path_factory: pytest.TempPathFactory) -> tuple[Study, RunFolder]:
    """Images without anything in them: only the words tell the teacher in which corner the target is."""
    folder = tmp_path_factory.mktemp("grey")
    (folder / "images").mkdir()
    places = {"upper left": (8, 8), "upper right": (24, 8), "lower left": (8, 24), "lower right": (24, 24)}
    masks = {}
    for number in range(8):
        word = list(places)[number % 4]
        cv2.imwrite(str(folder / "images" / f"g{number}.png"), np.full((32, 32, 3), 120 + number, np.uint8))
        masks[f"g{number}"] = (word, cv2.circle(np.zeros((32, 32), np.uint8), places[word], 6, 1, -1) > 0)
    study = Study.create(folder / "study")
    import_images(study, [folder / "images"])
    for image_id, (word, mask) in masks.items():
        study.save_pseudomask(pseudomask_of(image_id, mask, mask))
        study.save_true_mask(image_id, "target", mask)
        said = {"location": word, "area_percent": 11.0, "shape": "round", "colour": "grey"}
        save_explanation(study, Explanation(image_id, "target", "measured", "1", "", said, "", ""))
    spec = tiny(
        iterations=150,
        batch_size=8,
        afc_weight=0.0,
        cwc_weight=0.0,
        darm_share=0.0,
        text_strength=1.0,
        seed=1,
    )
    run = create_run(study, spec)
    train(study, run, Events(), threads=1, encoder=HashEncoder())
    return study, run


def found_in(study: Study, run: RunFolder, **options: object) -> TextUse:
    events = Events()
    assert measure(study, run, events, encoder=HashEncoder(), **options)  # type: ignore[arg-type]
    [done] = events.of("done")
    return TextUse.from_json(json.loads(json.dumps(done["found"])))


def test_a_teacher_that_knows_places_from_words_alone_follows_them(grey: tuple[Study, RunFolder]) -> None:
    study, run = grey
    found = found_in(study, run)
    swaps = {swap.attribute: swap for swap in found.swaps}
    assert set(swaps) >= {"location", "area_percent", "shape", "colour", NOTHING, ANOTHER}
    location = swaps["location"]
    assert location.images == 8 and location.changed == 1 and location.dice.mean < 0.3
    assert location.towards is not None and location.towards.low > 30
    assert location.gain is not None and location.gain.high < -0.3
    assert swaps[ANOTHER].dice.mean < 0.5
    assert swaps["area_percent"].towards is None
    said = found.to_text()
    assert "The teacher's mask changes a lot when location is swapped; it moves" in said
    assert "worse by" in said
    assert json.loads((run.path / "text_use.json").read_text()) == found.to_json()


def test_attention_is_stored_for_each_image_and_sums_to_one(grey: tuple[Study, RunFolder]) -> None:
    study, run = grey
    found_in(study, run, image_ids=["g0", "g3"])
    stored = load_attention(study, run.id, "g0", "target")
    assert stored is not None
    assert set(stored.names) == {"location", "area_percent", "shape", "colour"}
    assert stored.phrases[stored.names.index("location")] == "in the upper left of the image"
    assert stored.maps.shape == (4, 16, 16) and stored.effect.shape == (16, 16)
    assert np.allclose(stored.maps.sum(0), 1, atol=0.02)
    assert stored.of("texture") is None
    # With its words the teacher sees the target in their corner, without any it does not.
    assert stored.effect[2:6, 2:6].mean() > 0.3 > stored.effect[10:, 10:].mean()


def test_a_teacher_that_never_learned_hardly_minds(filled: Study) -> None:
    run = create_run(filled, tiny(iterations=1, text_strength=0.0))
    train(filled, run, Events(), threads=1, encoder=HashEncoder())
    found = found_in(filled, run, limit=4)
    assert found.images == 4
    assert all(swap.dice.mean > 0.9 for swap in found.swaps)
    assert "hardly changes" in found.to_text()
    # Six images with masks: shares against all three kinds where they are neither empty nor everything.
    assert {share.against for share in found.shares} >= {"pseudomask", "mask"}
    for share in found.shares:
        assert 0 <= share.inside <= 1 and 0 < share.chance < 1
        assert share.difference.mean == pytest.approx(share.inside - share.chance)


@pytest.mark.parametrize("changes", [{"text": "none"}, {"text": "empty"}, {"method": "partial"}])
def test_a_run_without_text_is_not_asked(filled: Study, changes: dict[str, Any]) -> None:
    run = create_run(filled, tiny(**changes, iterations=1))
    with pytest.raises(UserError, match="learned without text"):
        measure(filled, run, Events(), encoder=HashEncoder())


def test_imported_embeddings_have_no_words_to_swap(filled: Study) -> None:
    run = create_run(filled, tiny())
    spec = {**run.spec.to_json(), "text_embeddings": "theirs"}
    (run.path / "spec.json").write_text(json.dumps(spec))
    with pytest.raises(UserError, match="learned from imported embeddings"):
        measure(filled, run, Events(), encoder=HashEncoder())


def test_images_without_explanations_are_named(tmp_path: Path, image_folder: Path) -> None:
    study = make_study(tmp_path / "study", image_folder, explained=False)
    run = create_run(study, tiny())
    with pytest.raises(UserError, match=r"None of the 6 images has an explanation.*gaze-insight explain"):
        measure(study, run, Events(), encoder=HashEncoder())


def test_the_command_prints_plain_words(filled: Study, capsys: pytest.CaptureFixture[str]) -> None:
    run = create_run(filled, tiny(iterations=2))
    train(filled, run, Events(), threads=1)
    assert run_command(["text-use", str(filled.folder), "--run", run.id, "--images", "2", "--json"]) == 0
    values = json.loads(capsys.readouterr().out)
    assert values["run"] == run.id and values["images"] == 2 and values["swaps"]
    assert TextUse.from_json(values).to_json() == values


def test_swaps_say_something_else_for_every_attribute_of_every_preset() -> None:
    rng = np.random.default_rng(0)
    for preset_id in preset_ids():
        preset = load_preset(preset_id)
        for attribute in preset.attributes:
            values: list[str | float] = [word for word in attribute.words if word not in OPEN_WORDS]
            values += [1.0, 40.0] if attribute.kind in ("percent", "millimetres") else []
            for value in values if attribute.phrase is not None else []:
                other = swapped_value(attribute, value, rng)
                if len(values) > 1 or attribute.kind != "words":
                    assert other is not None and other not in OPEN_WORDS
                    assert phrase_of(preset, attribute.name, other) != phrase_of(
                        preset, attribute.name, value
                    )


@pytest.mark.parametrize(
    ("word", "opposite"),
    [("upper left", "lower right"), ("centre right", "centre left"), ("lower centre", "upper centre")],
)
def test_a_place_is_swapped_for_the_opposite_one(word: str, opposite: str) -> None:
    attribute = load_preset()["location"]
    assert swapped_value(attribute, word, np.random.default_rng(0)) == opposite
    for nowhere in ("centre", "whole image"):
        corner = str(swapped_value(attribute, nowhere, np.random.default_rng(0)))
        assert cell_centre(corner) in [(x, y) for x in (1 / 6, 5 / 6) for y in (1 / 6, 5 / 6)]


def test_one_attribute_is_swapped_at_a_time(filled: Study) -> None:
    spec = tiny()
    for reading in readings_of(filled, filled.images_of(None), spec):
        own = list(reading.said.values())
        assert reading.swaps
        for swap in reading.swaps:
            changed = [
                key for key, one, other in zip(reading.said, own, swap.phrases, strict=True) if one != other
            ]
            assert changed == [swap.key]


def test_movement_is_measured_along_the_way_to_the_place() -> None:
    mask = np.zeros((40, 80), bool)
    mask[0:10, 0:10] = True
    right = np.roll(mask, 40, axis=1)
    assert moved_towards(mask, right, (45 / 80, 5 / 40)) == pytest.approx(50)
    assert moved_towards(right, mask, (1, 5 / 40)) == pytest.approx(-50)
    assert moved_towards(mask, np.roll(mask, 10, axis=0), (45 / 80, 5 / 40)) == pytest.approx(0, abs=1e-9)
    assert np.isnan(moved_towards(mask, np.zeros_like(mask), (1, 1)))


def test_share_inside_is_the_masks_share_where_attention_is_even() -> None:
    mask = np.zeros((64, 64), bool)
    mask[:16, :32] = True
    maps = np.stack([np.full((16, 16), 0.2), np.pad(np.ones((4, 8)), ((0, 12), (0, 8)))]).astype(np.float32)
    inside, chance = share_inside(maps, mask)
    assert chance == pytest.approx(0.125)
    assert inside == pytest.approx([0.125, 1.0])


def test_stored_attention_that_is_damaged_is_named(filled: Study) -> None:
    rng = np.random.default_rng(0)
    maps = rng.uniform(0, 0.4, (2, 5, 6)).astype(np.float32)
    effect = rng.uniform(-1, 1, (5, 6)).astype(np.float32)
    found = AttentionMaps(("location", "shape"), ("in the äther", "round shape"), maps, effect, 7)
    save_attention(filled, "run-x", "i", "target", found)
    stored = load_attention(filled, "run-x", "i", "target")
    assert stored is not None and (stored.names, stored.phrases, stored.step) == (
        found.names,
        found.phrases,
        7,
    )
    assert np.abs(stored.maps - maps).max() <= maps.max() / 509
    assert np.abs(stored.effect - effect).max() <= 1 / 253
    assert load_attention(filled, "run-x", "j", "target") is None
    path = attention_path(filled, "run-x", "i", "target")
    data = path.read_bytes()
    for damaged in (data[: len(data) // 2], b"", b"nonsense"):
        path.write_bytes(damaged)
        with pytest.raises(UserError, match=r"i\.target\.npz is damaged"):
            load_attention(filled, "run-x", "i", "target")


def test_intervals_treat_a_group_as_one() -> None:
    rng = np.random.default_rng(0)
    one_each = rng.normal(1, 1, 40)
    groups = [str(number) for number in range(40)]
    plain = clustered_interval(one_each, groups)
    # The same values five times over in the same groups are no more evidence.
    again = clustered_interval(np.repeat(one_each, 5), [group for group in groups for _ in range(5)])
    assert again == pytest.approx(plain, abs=0.02)
    expected = 1.96 * one_each.std() / np.sqrt(40)
    assert plain.high - plain.mean == pytest.approx(expected, rel=0.15)
    assert plain.excludes_zero and not clustered_interval(one_each - one_each.mean(), groups).excludes_zero
    alone = clustered_interval(one_each, ["a"] * 40)
    assert alone.mean == plain.mean and np.isnan(alone.low)
    # Seeds that disagree widen the interval.
    seeds = clustered_interval(np.stack([one_each + 1, one_each - 1]), groups)
    assert seeds.high - seeds.low > plain.high - plain.low
