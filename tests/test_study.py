"""The study folder: what is written can be read, by others too, and nothing is damaged by refusing."""

from __future__ import annotations

import datetime
import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from gaze_capture.errors import UserError
from gaze_capture.storage import read_json, write_json_atomic
from segmentation.pseudomask import PseudoMaskSettings
from segmentation.records import StudyImage, Target, safe_name, utc_now
from segmentation.study import Review, Study


def record(image_id: str = "a", **changes: object) -> StudyImage:
    image = StudyImage(image_id, f"images/{image_id}.png", f"{image_id}.png", "0" * 64, (4, 5, 3))
    return replace(image, **changes)  # type: ignore[arg-type]


def review(verdict: str, annotator: str = "ann") -> Review:
    return Review("a", "target", annotator, "run-1", verdict, "present", 2.0, utc_now())  # type: ignore[arg-type]


def test_a_new_study_opens_again(tmp_path: Path) -> None:
    targets = (Target("polyp", "Polyp"), Target("fold", "Fold", kind="zone"))
    Study.create(tmp_path / "s", "Colon", targets)
    again = Study.open(tmp_path / "s")
    assert again.name == "Colon"
    assert again.targets == targets
    assert again.target("fold").kind == "zone"
    with pytest.raises(UserError, match="no target 'x'"):
        again.target("x")


def test_a_folder_with_content_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "thesis.txt").write_text("mine")
    with pytest.raises(UserError, match="not empty"):
        Study.create(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["thesis.txt"]


def test_a_newer_schema_is_refused_and_untouched(study: Study) -> None:
    path = study.folder / "study.json"
    values = read_json(path) | {"schema": 99, "new_field": 1}
    write_json_atomic(path, values)
    before = path.read_bytes()
    with pytest.raises(UserError, match="newer Gaze Insight"):
        Study.open(study.folder)
    assert path.read_bytes() == before


@pytest.mark.parametrize(
    "text", ["", "{", "[]", '{"schema": 1}', '{"schema": 1, "name": "x", "targets": [1]}']
)
def test_a_damaged_study_is_named(study: Study, text: str) -> None:
    (study.folder / "study.json").write_text(text)
    with pytest.raises(UserError, match=r"study\.json is damaged"):
        Study.open(study.folder)


@pytest.mark.parametrize(
    "target", [{"id": "../../x"}, {"id": "a/b"}, {"id": ""}, {"id": "a.b"}, {"id": 5}, {}]
)
def test_targets_that_lead_out_of_the_study_are_named(study: Study, target: dict[str, object]) -> None:
    path = study.folder / "study.json"
    targets = [target] if target else []
    path.write_text(json.dumps({**json.loads(path.read_text()), "targets": targets}))
    with pytest.raises(UserError, match=r"study\.json is damaged"):
        Study.open(study.folder)


@pytest.mark.parametrize(
    "changes",
    [{"name": float("inf")}, {"name": None}, {"uid": 3}, {"targets": [{"id": "a", "name": float("inf")}]}],
)
def test_words_that_are_none_are_damage(study: Study, changes: dict[str, object]) -> None:
    path = study.folder / "study.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))
    with pytest.raises(UserError, match=r"study\.json is damaged"):
        Study.open(study.folder)


@pytest.mark.parametrize("settings", [None, [], "x", 1])
def test_damaged_settings_of_pseudomasks_are_named(study: Study, settings: object) -> None:
    path = study.folder / "study.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "pseudomask": settings}))
    with pytest.raises(UserError, match=r"study\.json is damaged"):
        Study.open(study.folder)


@pytest.mark.parametrize(
    "changes",
    [
        {"path": "../outside.png"}, {"path": "/etc/passwd"}, {"path": "images/../../outside.png"},
        {"path": "study.json"}, {"path": "images"}, {"path": "images/..\\\\x.png"}, {"path": 3},
        {"id": "../../x"}, {"id": "a.b"}, {"id": ""}, {"id": 5}, {"volume": "../v"},
        {"group": ["a"]}, {"split": None}, {"shape": "x"}, {"shape": [4, 5]}, {"shape": [4, 5, "3"]},
    ],
)  # fmt: skip
def test_a_record_that_leads_out_of_the_study_is_damaged(study: Study, changes: dict[str, object]) -> None:
    study.add_images([record("a")])
    (path,) = study.manifests()
    values = json.loads(path.read_text())
    values["images"][0].update(changes)
    path.write_text(json.dumps(values))
    with pytest.raises(UserError, match=rf"{path.name} is damaged"):
        _ = Study.open(study.folder).images


def test_two_windows_add_images_without_losing_any(study: Study) -> None:
    other = Study.open(study.folder)
    study.add_images([record("a")])
    other.add_images([record("b")])
    assert set(Study.open(study.folder).images) == {"a", "b"}


def test_a_later_record_replaces_an_earlier(study: Study) -> None:
    study.add_images([record("a"), record("b")])
    study.add_images([record("a", split="test", spacing_mm=(0.5, 0.6))])
    images = Study.open(study.folder).images
    assert images["a"].split == "test"
    assert images["a"].spacing_mm == (0.5, 0.6)
    assert images["a"].shape == (4, 5, 3)
    assert [image.id for image in study.images_of("train")] == ["b"]
    with pytest.raises(UserError, match="splits are: test, train"):
        study.images_of("validation")


def test_reviews_accumulate_and_the_latest_counts(study: Study) -> None:
    mask = np.zeros((4, 5), dtype=bool)
    mask[1:3, 2:4] = True
    study.add_images([record("a")])
    study.add_review(review("edited"), mask)
    assert study.presence("a", "target") == "present"
    reviewed = study.reviewed_mask("a", "target")
    assert reviewed is not None
    np.testing.assert_array_equal(reviewed, mask)
    # Ids carry the second; the random part must not decide what is latest.
    folder = study.folder / "reviews" / "a.target"
    for path in list(folder.iterdir()):
        path.rename(path.with_name("2000" + path.name))
    study.add_review(review("rejected"))
    assert [item.verdict for item in study.reviews("a", "target")] == ["edited", "rejected"]
    assert study.reviewed()["a", "target"].verdict == "rejected"
    assert study.reviewed_mask("a", "target") is None


def test_a_prediction_keeps_16_bits(study: Study) -> None:
    probability = np.linspace(0, 1, 20, dtype=np.float32).reshape(4, 5)
    study.save_prediction("run-1", "a", "target", "student", probability)
    stored = study.prediction("run-1", "a", "target")
    assert stored is not None
    np.testing.assert_allclose(stored, probability, atol=1 / 65535)
    assert study.prediction_keys("run-1") == {("a", "target")}
    assert study.prediction("run-1", "b", "target") is None


def test_settings_are_stored_and_checked(study: Study) -> None:
    settings = PseudoMaskSettings(sigma="gazemedseg-50", thresholds=(0.6, 0.2), refine="none")
    study.set_pseudomask_settings(settings)
    assert Study.open(study.folder).pseudomask_settings == settings
    with pytest.raises(UserError, match="descend"):
        PseudoMaskSettings(thresholds=(0.3, 0.5))
    with pytest.raises(UserError, match="no refiner 'magic'"):
        PseudoMaskSettings(refine="magic")


def test_the_audit_log_grows_by_lines(study: Study) -> None:
    study.audit("one", images=1)
    study.audit("two")
    lines = [json.loads(line) for line in (study.folder / "audit.jsonl").read_text().splitlines()]
    assert [line["action"] for line in lines] == ["one", "two"]


@pytest.mark.parametrize(
    ("text", "name"),
    [("a b/c.d", "a_b_c_d"), ("Müller-胃", "Müller-胃"), ("..", "unnamed"), ("x" * 300, "x" * 80)],
)
def test_safe_names(text: str, name: str) -> None:
    assert safe_name(text) == name


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"schema": 99}, "written by a newer Gaze Insight"),
        ({"colour": "red"}, r"damaged \(this version knows no 'colour'\)"),
        ({"image_id": ["a"]}, "'image_id' cannot be"),
        ({"annotator": None}, "'annotator' cannot be None"),
        ({"verdict": "fine"}, "'verdict' cannot be 'fine'"),
        ({"presence": 3}, "'presence' cannot be 3"),
        ({"seconds_spent": "abc"}, "'seconds_spent' cannot be 'abc'"),
        ({"seconds_spent": float("nan")}, "'seconds_spent' cannot be nan"),
        ({"seconds_spent": -5.0}, "'seconds_spent' cannot be -5.0"),
        ({"threshold": 7}, "'threshold' cannot be 7"),
        ({"reviewed_at": None}, "'reviewed_at' cannot be None"),
        ({"purpose": "fun"}, "'purpose' cannot be 'fun'"),
        ({"edits": "brush"}, "'edits' is no list"),
        ({"edits": [{}]}, "'edits' cannot be"),
        ({"gaze_on_mask_ms": "x"}, "'gaze_on_mask_ms' cannot be 'x'"),
    ],
)
def test_a_review_changed_by_hand_is_named(study: Study, changes: dict[str, object], said: str) -> None:
    name = study.add_review(review("accepted"))
    path = study.folder / "reviews" / "a.target" / f"{name}.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))
    with pytest.raises(UserError, match=rf"{name}\.json .*{said}"):
        Study.open(study.folder).reviewed()


def test_the_latest_review_counts_when_the_clock_goes_backwards(
    study: Study, monkeypatch: pytest.MonkeyPatch
) -> None:
    study.add_review(review("accepted"))

    class Earlier(datetime.datetime):
        @classmethod
        def now(cls, tz: datetime.tzinfo | None = None) -> Earlier:
            return cls(2001, 1, 1, tzinfo=tz)

    monkeypatch.setattr("segmentation.review_index.datetime.datetime", Earlier)
    for verdict in ("rejected", "edited", "rejected"):
        study.add_review(review(verdict))
        assert study.reviewed()["a", "target"].verdict == verdict
    assert len(study.reviews("a", "target")) == 4
