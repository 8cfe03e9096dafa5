import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from gaze_capture.errors import UserError
from segmentation.checkpoints import latest_checkpoint, load_state, load_weights
from segmentation.dataset import Batches, load_training_set
from segmentation.explanation import Explanation, save_explanation
from segmentation.images import decode_gray16
from segmentation.job import RunSpec
from segmentation.losses import IGNORE
from segmentation.methods import METHODS as CLASSES
from segmentation.methods import make_method
from segmentation.methods.gaze_to_insight import GazeToInsight, without_some_text
from segmentation.metrics import dice
from segmentation.optimising import Clock, learning_rate
from segmentation.predictor import Predictor
from segmentation.presets import METHODS, preset, preset_names
from segmentation.records import utc_now
from segmentation.runs import RunFolder, create_run
from segmentation.study import Review, Study
from segmentation.text.encoder import PhraseCache
from segmentation.training import train
from tests.pictures import read_display
from tests.training_helpers import Events, HashEncoder, make_study, tiny


@pytest.fixture
def filled(tmp_path: Path, image_folder: Path) -> Study:
    return make_study(tmp_path / "filled", image_folder)


def run_of(study: Study, spec: RunSpec, *, stop_at: int | None = None) -> tuple[RunFolder, Events]:
    run, events = create_run(study, spec), Events()
    go_on(study, run, events, stop_at=stop_at)
    return run, events


def go_on(study: Study, run: RunFolder, events: Events, *, stop_at: int | None = None) -> bool:
    def emit(kind: Any, step: int, total: int, **values: object) -> None:
        events(kind, step, total, **values)
        # Samples are written at every step of so short a run.
        if kind == "sample" and step == stop_at:
            run.request_stop()

    return train(study, run, emit, threads=1, encoder=HashEncoder())


def weights_of(run: RunFolder, name: str) -> dict[str, torch.Tensor]:
    folder = latest_checkpoint(run)
    assert folder is not None
    return load_weights(folder, name)


def test_every_method_has_presets_and_a_class() -> None:
    assert set(METHODS) == set(CLASSES)
    for method in METHODS:
        for name in preset_names():
            spec = preset(method, name, seed=3)
            assert (spec.method, spec.preset, spec.seed) == (method, name, 3)
            assert RunSpec.from_json(spec.to_json()) == spec
    assert preset("gaze-to-insight", "reference").iterations == 15000
    for wrong in ({"method": "none"}, {"name": "none"}, {"colour": 1}):
        with pytest.raises(UserError):
            preset(**wrong)


@pytest.mark.parametrize(
    "changes",
    [
        {"image_size_px": 100},
        {"batch_size": 1},
        {"student_widths": (8, 8)},
        {"student_widths": (8, 8, 8, 8, 8), "teacher_widths": (0, 8, 8, 8, 8)},
        {"augmentation": "none"},
        {"text": "silent"},
        {"max_minutes": 0.0},
        {"cwc_confidence": 1.0},
        {"targets": ("target", "target")},
    ],
)
def test_what_cannot_be_trained_is_refused_by_name(changes: dict[str, Any]) -> None:
    with pytest.raises(UserError, match=next(iter(changes))):
        preset(**changes)


@pytest.mark.parametrize("changes", [{}, {"views": "two", "optimiser": "sgd", "ema_decay": 0.0}])
def test_a_stopped_and_resumed_run_equals_an_unbroken_one(filled: Study, changes: dict[str, Any]) -> None:
    spec = tiny(consistency_ramp=0.2, darm_every=2, **changes)
    whole, _ = run_of(filled, spec)
    broken, events = run_of(filled, spec, stop_at=3)
    assert load_state(latest_checkpoint(broken) or Path())["step"] == 3
    broken.stop_path().unlink()
    assert go_on(filled, broken, events)
    assert events.of("started")[-1]["resumed"] is True
    for name in ("student", "teacher", "optimiser", *(["student_ema"] if spec.ema_decay else [])):
        first, second = weights_of(whole, name), weights_of(broken, name)
        assert first.keys() == second.keys()
        assert all(torch.equal(first[key], second[key]) for key in first), name


def test_seeds_differ_and_repeat(filled: Study) -> None:
    first, again, other = (run_of(filled, tiny("partial", seed=seed, iterations=2))[0] for seed in (1, 1, 2))
    key = "head.weight"
    assert torch.equal(weights_of(first, "student")[key], weights_of(again, "student")[key])
    assert not torch.equal(weights_of(first, "student")[key], weights_of(other, "student")[key])


def test_a_run_says_why_it_uses_the_processor(filled: Study) -> None:
    if torch.cuda.is_available():
        pytest.skip("there is a card")
    _, events = run_of(filled, tiny("partial", device="auto", iterations=1))
    [started] = events.of("started")
    assert started["device"] == "cpu" and str(started["device_reason"]).endswith(".")


@pytest.mark.parametrize("method", METHODS)
def test_every_method_tells_its_story(filled: Study, method: str) -> None:
    run, events = run_of(filled, tiny(method))
    started, done = events.of("started")[0], events.of("done")[0]
    assert started["images"] == 6 and started["device"] == "cpu" and started["precision"] == "fp32"
    assert started["device_reason"] == "", "the processor was asked for by name"
    for step in events.of("step"):
        used, there_is = step["memory_bytes"], step["memory_total_bytes"]
        assert isinstance(used, int) and isinstance(there_is, int) and 2**20 < used < there_is
    parameters = started["parameters"]
    assert isinstance(parameters, dict)
    others = {"gaze-to-insight": {"teacher"}, "gaze-track": {"track"}}
    assert set(parameters) == {"student"} | others.get(method, set())
    assert started["explained"] == (6 if method == "gaze-to-insight" else 0)
    step = events.of("step")[-1]
    losses = step["losses"]
    assert isinstance(losses, dict)
    assert np.isfinite(list(losses.values())).all()
    if method == "gaze-to-insight":
        parts = {"student", "teacher", "afc", "cwc"}
        assert set(losses) == parts | {"total"}
        assert losses["total"] == pytest.approx(sum(losses[name] for name in parts), rel=1e-4)
    assert {"lr", "images_per_s", "eta_s"} <= step.keys() and done["iterations"] == 6
    agreements = events.of("agreement")
    assert len(agreements) > 1
    assert {item["images"] for item in agreements} == {6}
    scores = np.array([item["dice"] for item in agreements], dtype=float)
    assert ((scores >= 0) & (scores <= 1)).all()
    samples = events.of("sample")
    image = decode_gray16(run.path / str(samples[-1]["path"]))
    assert image.shape == (32, 32) and samples[-1]["target_id"] == "target"
    assert len({sample["image_id"] for sample in samples}) == 4
    # Without true masks nothing is chosen: the averaged weights at the end are what predicts.
    assert events.of("selection") == []
    assert load_state(latest_checkpoint(run) or Path())["predicts"] == "student_ema"


def test_it_learns(filled: Study) -> None:
    run, _ = run_of(filled, tiny(iterations=120, augmentation="flips", cutmix_share=0.0))
    predictor = Predictor(run)
    scores = []
    for image in filled.images.values():
        [probability] = predictor.predict([read_display(filled.image_path(image))])
        truth = filled.true_mask(image.id, "target")
        assert truth is not None
        scores.append(dice(probability[0] > 0.5, truth))
    assert np.mean(scores) > 0.8


def test_holdout_chooses_by_true_masks_of_groups_it_never_learns_from(filled: Study) -> None:
    images = [
        dataclasses.replace(image, group=f"g{number % 3}")
        for number, image in enumerate(filled.images.values())
    ]
    filled.add_images(images)
    run, events = run_of(filled, tiny("partial", holdout=0.34))
    assert events.of("started")[0]["held_out"] == 2 and events.of("started")[0]["images"] == 4
    assert events.of("selection")
    assert load_state(latest_checkpoint(run) or Path())["predicts"] == "student_best"
    assert weights_of(run, "student_best").keys() == weights_of(run, "student").keys()


def test_the_test_split_is_refused(filled: Study) -> None:
    filled.add_images([dataclasses.replace(image, split="test") for image in filled.images.values()])
    with pytest.raises(UserError, match="evaluation alone"):
        run_of(filled, tiny(split="test"))
    with pytest.raises(UserError, match="no images in the split 'train'"):
        run_of(filled, tiny())


def test_the_missing_step_is_named(tmp_path: Path, image_folder: Path) -> None:
    from segmentation.importing import import_images

    study = Study.create(tmp_path / "bare")
    with pytest.raises(UserError, match="no images in the split 'train'"):
        run_of(study, tiny())
    import_images(study, [image_folder / "images"])
    with pytest.raises(UserError, match="has gaze yet"):
        run_of(study, tiny())
    with pytest.raises(UserError, match="import masks first"):
        run_of(study, tiny("supervised"))


def test_a_loss_that_is_no_number_ends_with_the_last_checkpoint_good(
    filled: Study, monkeypatch: pytest.MonkeyPatch
) -> None:
    spec = tiny("partial")
    run, events = run_of(filled, spec, stop_at=2)
    before = weights_of(run, "student")
    run.stop_path().unlink()
    monkeypatch.setattr(
        "segmentation.methods.base.partial_cross_entropy", lambda logits, labels: logits.sum() * float("nan")
    )
    with pytest.raises(UserError, match="no longer a number"):
        go_on(filled, run, events)
    after = weights_of(run, "student")
    assert all(torch.equal(before[key], after[key]) for key in before)
    assert all(part.isfinite().all() for part in after.values())


def labels_of(study: Study, spec: RunSpec) -> dict[str, dict[str, Any]]:
    """Unaugmented labels by image and network."""
    data = load_training_set(study, spec, None)
    batches = Batches(data, spec, make_method(spec, 1).labels)
    return {
        image_id: {name: table[data.levels[index, 0]] for name, table in batches.tables.items()}
        for index, image_id in enumerate(data.ids)
    }


def test_labels_follow_the_levels(filled: Study) -> None:
    labels = next(iter(labels_of(filled, tiny()).values()))
    assert set(np.unique(labels["teacher"])) == {0, 1, IGNORE}
    assert set(np.unique(labels["student"])) == {0, 1}
    # Between the levels: the student's foreground, nobody's word for the teacher.
    assert (labels["student"][labels["teacher"] == IGNORE] == 1).all()
    with pytest.raises(UserError, match="have only 2"):
        labels_of(filled, tiny(teacher_levels=(0, 3)))
    with pytest.raises(UserError, match="must not be broader"):
        labels_of(filled, tiny(teacher_levels=(1, 0)))


def review(image_id: str, verdict: Any, presence: Any = None, subject: str = "pseudomask") -> Review:
    return Review(image_id, "target", "B", subject, verdict, presence, 3.0, utc_now())


def test_reviews_are_strong_labels_and_rejections_teach_nothing(filled: Study) -> None:
    edited, absent, rejected, doubted, *_ = filled.images
    mask = np.zeros((48, 64), bool)
    mask[:24] = True
    filled.add_review(review(edited, "edited"), mask)
    filled.add_review(review(absent, "edited", "absent"))
    filled.add_review(review(rejected, "rejected"))
    # A rejected prediction says nothing against the pseudo-mask.
    filled.add_review(review(doubted, "rejected", subject="run-x"))
    labels = labels_of(filled, tiny())
    assert rejected not in labels and doubted in labels
    for name in ("student", "teacher"):
        assert (labels[edited][name][:16] == 1).all() and (labels[edited][name][16:] == 0).all()
        assert (labels[absent][name] == 0).all()


def test_supervised_alone_reads_true_masks(filled: Study) -> None:
    seen: list[str] = []
    original = Study.true_mask

    def spy(study: Study, image_id: str, target_id: str) -> Any:
        seen.append(image_id)
        return original(study, image_id, target_id)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Study, "true_mask", spy)
        labels_of(filled, tiny())
        labels_of(filled, tiny("partial"))
        assert seen == []
        labels_of(filled, tiny("supervised"))
        assert len(seen) == 6


@pytest.mark.parametrize("augmentation", ["flips", "mild", "strong"])
def test_batches_depend_on_seed_and_step_alone(filled: Study, augmentation: str) -> None:
    spec = tiny(augmentation=augmentation, batch_size=4)
    data = load_training_set(filled, spec, PhraseCache(filled.folder, HashEncoder()))
    first, second = (Batches(data, spec, {"student": (0, -1)}) for _ in range(2))
    late = first[7]
    for step in range(3):
        second[step]
    same = second[7]
    assert torch.equal(late.images, same.images) and torch.equal(late.text.tokens, same.text.tokens)
    assert torch.equal(late.labels["student"], same.labels["student"])
    assert not torch.equal(first[6].images, late.images)
    # Six images in batches of four: three batches show every image exactly twice.
    shown = np.concatenate([first[step].index for step in range(3)])
    assert np.bincount(shown).tolist() == [2] * 6


def test_images_labels_and_location_words_are_flipped_together(filled: Study) -> None:
    [image_id, *_] = filled.images
    corner = np.zeros((48, 64), np.uint8)
    corner[:12, :16] = 255
    import cv2

    path = filled.image_path(filled.image(image_id))
    path.write_bytes(cv2.imencode(".png", np.repeat(corner[:, :, None], 3, 2))[1].tobytes())
    filled.add_images([dataclasses.replace(filled.image(image_id), split="corner")])
    filled.add_review(review(image_id, "edited"), corner > 0)
    words = Explanation(image_id, "target", "measured", "1", "", {"location": "upper left"}, "", "")
    save_explanation(filled, words)
    spec = tiny(split="corner", augmentation="flips", batch_size=8)
    cache = PhraseCache(filled.folder, HashEncoder())
    data = load_training_set(filled, spec, cache)
    batch = Batches(data, spec, {"student": (-1, -1)})[0]
    seen = set()
    for image, label, token in zip(
        batch.images, batch.labels["student"], batch.text.tokens[:, 0], strict=True
    ):
        assert torch.equal(label[0] == 1, image[0] > 0)
        rows, columns = (label[0] == 1).nonzero().float().mean(0).tolist()
        word = f"{'upper' if rows < 16 else 'lower'} {'left' if columns < 16 else 'right'}"
        phrase = f"in the {word} of the image"
        assert np.array_equal(token.numpy(), cache.encode([phrase])[phrase])
        seen.add(word)
    assert len(seen) > 1


@pytest.mark.parametrize(
    ("text", "explained"), [("explanation", 6), ("none", 0), ("area-only", 6), ("shuffled", 6), ("empty", 0)]
)
def test_ablations_of_text(filled: Study, text: Any, explained: int) -> None:
    spec = tiny(text=text)
    table = load_training_set(
        filled, spec, PhraseCache(filled.folder, HashEncoder()) if text != "none" else None
    ).phrases
    assert table.explained == explained
    tokens = int((table.rows[:, 0] >= 0).sum())
    assert tokens == 6 if text == "area-only" else tokens > 6 if explained else tokens == 0


def test_empty_text_is_the_same_networks_with_the_null_token_alone(filled: Study) -> None:
    cache = PhraseCache(filled.folder, HashEncoder())
    tables = {
        text: load_training_set(filled, tiny(text=text), cache).phrases for text in ("explanation", "empty")
    }
    assert tables["empty"].width == tables["explanation"].width == HashEncoder.width
    shapes = []
    for text, table in tables.items():
        method = make_method(tiny(text=text), table.width)
        shapes.append({name: value.shape for name, value in method.networks.state_dict().items()})
    assert shapes[0] == shapes[1]
    empty = tables["empty"].text(np.arange(6))
    assert not empty.valid.any() and not empty.tokens.any()


@pytest.mark.parametrize("text", ["explanation", "shuffled"])
def test_every_token_is_named_by_its_target_and_attribute(filled: Study, text: Any) -> None:
    cache = PhraseCache(filled.folder, HashEncoder())
    table = load_training_set(filled, tiny(text=text), cache).phrases
    area = load_training_set(filled, tiny(text="area-only"), cache).phrases
    for row, names in enumerate(table.names):
        assert len(names) == (table.rows[row, 0] >= 0).sum() == len(set(names)) > 1
        # The area's token is named so: alone, it is what "area-only" reads.
        place = names.index(("target", "area_percent"))
        token = table.text(np.array([row])).tokens[0, place].numpy()
        assert token.tobytes() in {vector.tobytes() for vector in area.vectors}


def test_withheld_text_leaves_the_null_token(filled: Study) -> None:
    spec = tiny(text_dropout=0.5, batch_size=6)
    data = load_training_set(filled, spec, PhraseCache(filled.folder, HashEncoder()))
    method = make_method(spec, HashEncoder.width)
    batch = Batches(data, spec, method.labels)[0]
    told = without_some_text(batch, 0.5, spec.seed).text.valid
    kept = told.any(dim=1)
    assert 0 < kept.sum() < 6
    assert torch.equal(told[kept], batch.text.valid[kept])
    assert not without_some_text(batch, 1.0, spec.seed).text.valid.any()


def test_the_texts_layers_learn_at_a_pace_of_their_own(filled: Study) -> None:
    rates = {}
    for pace in (1.0, 5.0):
        spec = tiny(text_learning_rate=pace, iterations=2)
        run, _ = run_of(filled, spec)
        rates[pace] = weights_of(run, "teacher")["fusions.0.text.1.weight"]
        before = make_method(spec, HashEncoder.width).networks["teacher"].state_dict()
        rates[pace] = (rates[pace] - before["fusions.0.text.1.weight"]).abs().mean()
    assert rates[5.0] > 3 * rates[1.0]


def test_shuffling_gives_the_same_explanations_to_other_images(filled: Study) -> None:
    cache = PhraseCache(filled.folder, HashEncoder())
    own, other = (
        load_training_set(filled, tiny(text=text), cache).phrases for text in ("explanation", "shuffled")
    )

    def said(table: Any) -> list[bytes]:
        return [table.text(np.array([row])).tokens.numpy().tobytes() for row in range(6)]

    assert said(own) != said(other) and sorted(said(own)) == sorted(said(other))


def test_darm_hides_from_the_student_alone(filled: Study, monkeypatch: pytest.MonkeyPatch) -> None:
    spec = tiny(darm_share=0.3, consistency_ramp=0.1, cutmix_share=0.0)
    data = load_training_set(filled, spec, PhraseCache(filled.folder, HashEncoder()))
    method = make_method(spec, HashEncoder.width)
    assert isinstance(method, GazeToInsight)
    hidden = torch.zeros(2, 1, 32, 32, dtype=torch.bool)
    hidden[:, :, 8:16, 8:16] = True
    monkeypatch.setattr(method, "hidden_from_student", lambda *_: hidden)
    shown: dict[str, torch.Tensor] = {}
    for name, network in method.networks.items():
        network.register_forward_pre_hook(lambda _, inputs, name=name: shown.update({name: inputs[0]}))
    batch = Batches(data, spec, method.labels)[0]
    method.losses(batch, 0.5)
    assert (shown["student"][:, :, 8:16, 8:16] == 0).all()
    assert torch.equal(shown["teacher"], batch.images)
    method.losses(batch, 0.0)
    assert torch.equal(shown["student"], batch.images)


def test_learning_rate_rises_then_falls() -> None:
    spec = RunSpec(learning_rate=1.0, final_learning_rate=0.1, warmup=0.1)
    assert learning_rate(spec, 0.05) == pytest.approx(0.5)
    assert learning_rate(spec, 0.1) == pytest.approx(1.0)
    assert learning_rate(spec, 0.55) == pytest.approx(0.55)
    assert learning_rate(spec, 1.0) == pytest.approx(0.1)


def test_the_clock_takes_steps_or_minutes_whichever_is_further(monkeypatch: pytest.MonkeyPatch) -> None:
    now = [100.0]
    monkeypatch.setattr("time.monotonic", lambda: now[0])
    clock = Clock(RunSpec(iterations=100, max_minutes=1.0, batch_size=4), 10, 20.0)
    now[0] += 10
    assert clock.seconds == 30 and clock.progress(20) == 0.5 and clock.progress(80) == 0.8
    assert clock.total(20) == 50 and clock.images_per_second(20) == 4.0 and clock.seconds_left(20) == 30
    # Of late it is twice as fast: the beginning is forgotten.
    clock.mark(20)
    now[0] += 5
    assert clock.images_per_second(30) == 8.0 and clock.seconds_left(30) == 25 and clock.total(30) == 80
    now[0] += 100
    assert clock.progress(20) == 1.0 and clock.seconds_left(31) == 0 and clock.total(31) == 31


def test_several_targets_learn_side_by_side(tmp_path: Path, image_folder: Path) -> None:
    from segmentation.importing import import_images
    from segmentation.records import Target

    study = Study.create(tmp_path / "two", targets=[Target("gland", "Gland"), Target("zone", "Zone")])
    import_images(study, [image_folder / "images"])
    for number, image_id in enumerate(study.images):
        mask = np.zeros((48, 64), bool)
        mask[10:30, 10:30] = True
        # The last image knows only the first target: the other's channel learns nothing from it.
        study.add_review(dataclasses.replace(review(image_id, "edited"), target_id="gland"), mask)
        if number < 5:
            study.add_review(dataclasses.replace(review(image_id, "edited"), target_id="zone"), mask[::-1])
    spec = tiny("partial", targets=("gland", "zone"), iterations=2)
    data = load_training_set(study, spec, None)
    assert (data.levels[-1, 1] == IGNORE).all() and (data.levels[:5] != IGNORE).all()
    run, events = run_of(study, spec)
    assert {sample["target_id"] for sample in events.of("sample")} == {"gland", "zone"}
    assert weights_of(run, "student")["head.weight"].shape[0] == 2
