"""What each method learns from, and where its gradients go."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from gaze_capture.errors import UserError
from gaze_capture.storage import read_json
from segmentation.checkpoints import latest_checkpoint, load_state, load_weights
from segmentation.dataset import TRACKS, Batch, Batches, TrainingSet, load_training_set
from segmentation.device import use_threads
from segmentation.gaze_tracks import NEAREST, track_maps
from segmentation.job import RunSpec
from segmentation.losses import IGNORE
from segmentation.methods import make_method, reads_text
from segmentation.methods.base import Method
from segmentation.methods.gaze_multilevel import GazeMultilevel, disagreement, propagated
from segmentation.methods.gaze_to_insight import GazeToInsight
from segmentation.methods.gaze_track import track_loss
from segmentation.predictor import Predictor
from segmentation.presets import METHODS, PUBLIC_CODE, preset
from segmentation.pseudomask import PseudoMaskSettings
from segmentation.records import utc_now
from segmentation.runs import RunFolder, create_run
from segmentation.study import Review, Study
from segmentation.text.encoder import PhraseCache
from segmentation.training import train
from tests.training_helpers import Events, HashEncoder, fixations_of, make_study, tiny


@pytest.fixture
def filled(tmp_path: Path, image_folder: Path) -> Study:
    return make_study(tmp_path / "filled", image_folder)


def prepared(study: Study, spec: RunSpec) -> tuple[Method, TrainingSet, Batches]:
    data = load_training_set(
        study, spec, PhraseCache(study.folder, HashEncoder()) if reads_text(spec) else None
    )
    method = make_method(spec, data.phrases.width)
    return method, data, Batches(data, spec, method.labels)


def run_of(study: Study, spec: RunSpec, *, stop_at: int | None = None) -> RunFolder:
    run = create_run(study, spec)
    go_on(study, run, stop_at=stop_at)
    return run


def go_on(study: Study, run: RunFolder, *, stop_at: int | None = None) -> Events:
    events = Events()

    def emit(kind: Any, step: int, total: int, **values: object) -> None:
        events(kind, step, total, **values)
        if kind == "sample" and step == stop_at:
            run.request_stop()

    train(study, run, emit, threads=1, encoder=HashEncoder())
    return events


def weights_of(run: RunFolder, name: str) -> dict[str, torch.Tensor]:
    folder = latest_checkpoint(run)
    assert folder is not None
    return load_weights(folder, name)


def review(image_id: str, verdict: Any, presence: Any = None) -> Review:
    return Review(image_id, "target", "B", "pseudomask", verdict, presence, 3.0, utc_now())


@pytest.mark.parametrize("method", METHODS)
def test_the_loss_of_every_method_falls(filled: Study, method: str) -> None:
    use_threads(1)
    learner, _, batches = prepared(filled, tiny(method, batch_size=6, cutmix_share=0.0, darm_share=0.0))
    optimiser = torch.optim.AdamW(learner.networks.parameters(), lr=1e-2)
    totals = []
    for step in range(25):
        # Always at the same place of the ramp: another weight would change the sum by itself.
        loss = learner.losses(batches[step], 1.0)["total"]
        totals.append(float(loss.detach()))
        loss.backward()  # type: ignore[no-untyped-call]
        optimiser.step()
        optimiser.zero_grad()
    assert np.mean(totals[-5:]) < 0.9 * np.mean(totals[:3])


@pytest.mark.parametrize("method", ["gaze-multilevel", "gaze-track"])
@pytest.mark.parametrize("views", ["one", "two"])
def test_a_stopped_and_resumed_run_equals_an_unbroken_one(filled: Study, method: str, views: str) -> None:
    spec = tiny(method, views=views, cutmix_share=0.5)
    whole, broken = run_of(filled, spec), run_of(filled, spec, stop_at=3)
    assert load_state(latest_checkpoint(broken) or Path())["step"] == 3
    broken.stop_path().unlink()
    go_on(filled, broken)
    for name in ("student", "student_ema", "optimiser"):
        first, second = weights_of(whole, name), weights_of(broken, name)
        assert first.keys() == second.keys()
        assert all(torch.equal(first[key], second[key]) for key in first), name


# gaze-multilevel


def test_each_levels_network_learns_its_own_of_the_nested_levels(filled: Study) -> None:
    method, _, batches = prepared(filled, tiny("gaze-multilevel"))
    labels = batches[0].labels
    high, broad = labels["level 1"] == 1, labels["level 2"] == 1
    assert (high <= broad).all() and 0 < high.sum() < broad.sum()
    assert not any((labels[name] == IGNORE).any() for name in ("level 1", "level 2"))
    assert set(method.losses(batches[0], 0.5)) == {"total", "level 1", "level 2", "consistency"}
    alone, _, batches = prepared(filled, tiny("gaze-multilevel", level_networks=(-1,)))
    assert set(alone.losses(batches[0], 0.5)) == {"total", "level 1"}
    with pytest.raises(UserError, match="have only 2"):
        prepared(filled, tiny("gaze-multilevel", level_networks=(0, 1, 2)))


def test_strong_labels_are_every_levels(filled: Study) -> None:
    drawn, absent, *_ = filled.images
    mask = np.zeros((48, 64), bool)
    mask[:24] = True
    filled.add_review(review(drawn, "edited"), mask)
    filled.add_review(review(absent, "edited", "absent"))
    for method in METHODS:
        _, data, batches = prepared(filled, tiny(method))
        assert data.strong == (0 if method == "supervised" else 2)
        for name, table in batches.tables.items():
            by_id = {image_id: table[data.levels[place, 0]] for place, image_id in enumerate(data.ids)}
            if method != "supervised":
                assert (by_id[drawn][:16] == 1).all() and (by_id[drawn][16:] == 0).all(), (method, name)
                assert (by_id[absent] == 0).all(), (method, name)


def test_supervised_takes_strong_labels_where_there_is_no_true_mask_but_no_pseudo_mask(filled: Study) -> None:
    drawn, absent, unknown, *_ = filled.images
    for image_id in (drawn, absent, unknown):
        filled.mask_path(image_id, "target").unlink()
    mask = np.zeros((48, 64), bool)
    mask[:24] = True
    filled.add_review(review(drawn, "edited"), mask)
    filled.add_review(review(absent, "edited", "absent"))
    data = load_training_set(filled, tiny("supervised"), None)
    assert unknown not in data.ids and len(data) == 5 and data.strong == 2
    assert (data.levels[data.ids.index(absent)] == 0).all()
    assert (data.levels[data.ids.index(drawn), 0, :16] == data.depth).all()


@pytest.mark.parametrize("consistency", ["prop", "pure"])
def test_a_levels_network_is_drawn_to_the_others_which_stand_still(filled: Study, consistency: Any) -> None:
    spec = tiny("gaze-multilevel", level_consistency=consistency)
    method, _, batches = prepared(filled, spec)
    assert isinstance(method, GazeMultilevel)
    first, second = method.together.members()
    images = batches[0].images
    lasts = [network.stages(network.encode(images))[-1] for network in (first, second)]
    logits = [network.read(last) for network, last in zip((first, second), lasts, strict=True)]
    # Only the first is judged: what moves is the first alone.
    judged = first.read(propagated(lasts[0])) if consistency == "prop" else logits[0]
    disagreement([judged, logits[1].detach()], logits).backward()  # type: ignore[no-untyped-call]
    assert all(one.grad is not None and one.grad.isfinite().all() for one in first.parameters())
    assert all(one.grad is None for one in second.parameters())


def test_disagreement_is_how_probably_two_verdicts_differ() -> None:
    sure, against, torn = (
        torch.full((1, 1, 2, 2), 30.0),
        torch.full((1, 1, 2, 2), -30.0),
        torch.zeros(1, 1, 2, 2),
    )
    assert float(disagreement([sure, sure], [sure, sure])) == pytest.approx(0, abs=1e-6)
    assert float(disagreement([sure, against], [sure, against])) == pytest.approx(2)
    assert float(disagreement([torn, torn], [torn, torn])) == pytest.approx(1)
    # Each of three against the mean of the two others: 0.5, 0.5 and 1.
    assert float(disagreement([sure, sure, against], [sure, sure, against])) == pytest.approx(2)


def test_propagation_weighs_the_dilated_neighbourhood_by_likeness() -> None:
    torch.manual_seed(0)
    features = torch.randn(2, 3, 9, 7)
    found = propagated(features)
    padded = torch.nn.functional.pad(features, (4, 4, 4, 4))
    for row, column in ((0, 0), (4, 3), (8, 6)):
        around = padded[:, :, row : row + 9 : 2, column : column + 9 : 2].flatten(2)
        weights = torch.einsum("bc,bcn->bn", features[:, :, row, column], around).clamp(min=0).softmax(1)
        expected = torch.einsum("bcn,bn->bc", around, weights)
        assert torch.allclose(found[:, :, row, column], expected, atol=1e-5)
    # The way back is written by hand.
    exact = torch.randn(2, 3, 6, 5, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(propagated, (exact,))


def test_the_levels_networks_begin_alike_and_predict_by_their_mean(filled: Study) -> None:
    method = make_method(tiny("gaze-multilevel"), 1)
    assert isinstance(method, GazeMultilevel)
    first, second = method.together.members()
    assert all(torch.equal(*pair) for pair in zip(first.parameters(), second.parameters(), strict=True))
    run = run_of(filled, tiny("gaze-multilevel", iterations=3))
    predictor = Predictor(run, flip_average=False)
    together = predictor.networks["student"]
    images = torch.randn(2, 3, 32, 32)
    with torch.no_grad():
        own = [network(images).logits for network in together.members()]  # type: ignore[operator]
        assert not torch.allclose(own[0], own[1], atol=1e-4)
        assert torch.allclose(together(images).logits, torch.stack(own).mean(0))
    [probability] = predictor.predict([np.zeros((48, 64, 3), np.uint8)])
    assert probability.shape == (1, 48, 64)


# gaze-track


def test_a_track_is_cut_off_from_its_beginning() -> None:
    look = fixations_of("i")
    maps = track_maps([look], (48, 64), 32, (1.0, 0.5), PseudoMaskSettings())
    assert maps is not None
    whole, end = maps
    # Resized to 32 x 32, the fixations lie at (2, 2), (10, 9) and (16, 16).
    for column, row in ((2, 2), (10, 9), (16, 16)):
        assert whole[row, column] == NEAREST
    # The last fixation alone is half of all dwell.
    assert end[16, 16] == NEAREST and end[2, 2] < 60 and (end <= whole).all()
    assert whole[6, 6] > 200, "the line between fixations belongs to the track"
    # Order is that of time, not of rows.
    turned = ("start_ms", "duration_ms", "xy_px", "dispersion_deg")
    backwards = fixations_of("i", **{name: getattr(look, name)[::-1] for name in turned})
    again = track_maps([backwards], (48, 64), 32, (1.0, 0.5), PseudoMaskSettings())
    assert again is not None and np.array_equal(again, maps)


@pytest.mark.parametrize(
    "changes",
    [{"start_ms": np.array([-9.0, -5.0, -1.0])}, {"duration_ms": np.full(3, 40.0)}, {"annotator": "B"}],
)
def test_fixations_that_do_not_count_leave_no_track(changes: dict[str, Any]) -> None:
    settings = PseudoMaskSettings(annotators=("A",))
    assert track_maps([fixations_of("i", **changes)], (48, 64), 32, (1.0,), settings) is None
    assert track_maps([fixations_of("i")], (48, 64), 32, (1.0,), settings) is not None


def test_tracks_follow_their_images_and_other_methods_keep_none(filled: Study) -> None:
    absent, silent, *_ = filled.images
    filled.add_review(review(absent, "edited", "absent"))
    looked = []
    for image_id in filled.images:
        mask = filled.true_mask(image_id, "target")
        assert mask is not None
        # The last fixation lies in the middle of the disc.
        middle = np.argwhere(mask).mean(0)[::-1]
        if image_id != silent:
            looked.append(fixations_of(image_id, xy_px=np.array([[4.0, 4.0], [20.0, 14.0], middle])))
    filled.save_fixations("look", looked, imported=True)
    spec = tiny("gaze-track", batch_size=6, augmentation="flips")
    _, data, batches = prepared(filled, spec)
    assert data.tracks.shape == (6, 4, 32, 32)
    assert (data.tracks[data.ids.index(absent)] == 0).all()
    assert (data.tracks[data.ids.index(silent)] == IGNORE).all()
    batch = batches[0]
    assert batch.labels[TRACKS].shape == (6, 4, 32, 32)
    for index, tracks, label in zip(batch.index, batch.labels[TRACKS], batch.labels["student"], strict=True):
        kept = data.tracks[index]
        assert sorted(tracks.flatten().tolist()) == sorted(kept.flatten().tolist())
        if kept[0].max() == NEAREST:
            end = tracks[3] == NEAREST
            assert end.any() and (label[0][end] == 1).all(), (
                "the disc was flipped to elsewhere than its track"
            )
    _, data, batches = prepared(filled, tiny("partial"))
    assert data.tracks.shape[1] == 0 and TRACKS not in batches[0].labels


def test_gaze_track_without_a_track_is_refused(filled: Study) -> None:
    filled.save_fixations("look", [], imported=True)
    with pytest.raises(UserError, match="has a gaze track"):
        prepared(filled, tiny("gaze-track"))
    with pytest.raises(UserError, match="needs track_shares"):
        tiny("gaze-track", track_shares=())


def test_each_stage_of_the_decoder_learns_a_track_but_none_that_is_unknown(filled: Study) -> None:
    method, _, batches = prepared(filled, tiny("gaze-track"))
    batch = batches[0]

    heads = method.networks["track"]
    assert isinstance(heads, torch.nn.ModuleList)

    def gradients(batch: Batch) -> list[float]:
        heads.zero_grad()
        method.losses(batch, 0.5)["track"].backward()  # type: ignore[no-untyped-call]
        weights = [part.weight for part in heads if isinstance(part, torch.nn.Conv2d)]
        return [0.0 if one.grad is None else float(one.grad.abs().sum()) for one in weights]

    assert len(gradients(batch)) == 4 and min(gradients(batch)) > 0
    unknown = dict(batch.labels, **{TRACKS: torch.full_like(batch.labels[TRACKS], IGNORE)})
    assert max(gradients(Batch(0, batch.index, batch.images, unknown, batch.text))) == 0


def test_track_loss_is_least_at_the_map_itself() -> None:
    torch.manual_seed(0)
    maps = torch.randint(0, NEAREST + 1, (2, 1, 1, 8, 8), dtype=torch.uint8)
    maps[0, :, :, :2] = IGNORE
    values = torch.nn.functional.avg_pool2d((maps[:, :, 0].float() / NEAREST), 2)
    logits = values.clamp(0.01, 0.99).logit()
    own = track_loss([logits], maps)
    logits[0, :, 0] += 5.0
    assert torch.equal(track_loss([logits], maps), own), "unknown places say nothing"
    logits[1] += 0.5
    assert track_loss([logits], maps) > own


# gaze-to-insight: the public code and the ablations


def test_the_public_codes_preset_differs_from_the_reference_in_what_it_names() -> None:
    paper, code = (preset("gaze-to-insight", name).to_json() for name in ("reference", "fgi-public-code"))
    apart = {name for name in paper if paper[name] != code[name]}
    assert apart == {"preset", *PUBLIC_CODE} - {"student_levels"}


def test_the_public_code_labels_every_pixel_and_hides_where_labels_differ(
    filled: Study, monkeypatch: pytest.MonkeyPatch
) -> None:
    spec = tiny(**PUBLIC_CODE, darm_every=1, cutmix_share=0.0)
    method, _, batches = prepared(filled, spec)
    assert isinstance(method, GazeToInsight)
    batch = batches[0]
    assert not any((label == IGNORE).any() for label in batch.labels.values())
    ring = (batch.labels["student"] != batch.labels["teacher"]).any(1, keepdim=True)
    shown: dict[str, torch.Tensor] = {}
    method.student.register_forward_pre_hook(lambda _, inputs: shown.update(images=inputs[0]))
    told: list[torch.Tensor] = []
    supervised = method.supervised_loss

    def spy(logits: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        told.append(labels)
        return supervised(logits, labels)

    monkeypatch.setattr(method, "supervised_loss", spy)
    # From the first step on, with no look of the networks.
    method.losses(batch, 0.0)
    hidden = (shown["images"] == 0).all(1, keepdim=True) & ~(batch.images == 0).all(1, keepdim=True)
    assert hidden.any() and (hidden & ring).sum() > 0.3 * hidden.sum()
    assert (told[0][hidden] == 0).all() and (told[0] != IGNORE).all()


def test_a_fixed_lambda_stays_and_a_free_one_moves(filled: Study) -> None:
    for fixed in (True, False):
        run = run_of(filled, tiny(text_strength=1.0, text_strength_fixed=fixed, iterations=3))
        found = [
            float(value) for name, value in weights_of(run, "teacher").items() if name.endswith("strength")
        ]
        assert len(found) == 4 and all((value == 1.0) is fixed for value in found)


def test_the_softmax_of_two_channels_is_sure_of_more(filled: Study) -> None:
    found = {}
    for scale in (1.0, 2.0):
        method, _, batches = prepared(filled, tiny(cwc_logit_scale=scale, cutmix_share=0.0, darm_share=0.0))
        assert isinstance(method, GazeToInsight)
        for network in (method.student, method.teacher):
            torch.nn.init.zeros_(network.head.weight)
            torch.nn.init.ones_(network.head.bias)  # type: ignore[arg-type]
        found[scale] = float(method.losses(batches[0], 1.0)["cwc"].detach())
    # Logits of 1 are .73 by the sigmoid, .88 by the softmax; what is sure begins at .8.
    assert found[1.0] == 0 and found[2.0] > 0


def test_only_the_chosen_scales_read_the_text(filled: Study) -> None:
    spec = tiny(fusion_scales=(3, 4))
    assert reads_text(spec) and not reads_text(tiny(fusion_scales=()))
    method, _, batches = prepared(filled, spec)
    assert isinstance(method, GazeToInsight)
    names = {name.split(".")[1] for name in method.teacher.state_dict() if name.startswith("fusions.")}
    assert names == {"2", "3"} and len(method.teacher.strengths()) == 2
    batch = batches[0]
    assert len(method.teacher.attention(batch.images, batch.text)) == 2
    method.losses(batch, 0.5)["total"].backward()  # type: ignore[no-untyped-call]
    deaf, _, batches = prepared(filled, tiny(fusion_scales=()))
    assert torch.isfinite(deaf.losses(batches[0], 0.5)["total"])
    with pytest.raises(UserError, match="fusion_scales"):
        tiny(fusion_scales=(0, 1))


# Specs and warm starts


def test_an_unknown_method_and_earlier_specs() -> None:
    with pytest.raises(
        UserError, match="no method 'gaze-magic'; choose one of gaze-to-insight, gaze-multilevel"
    ):
        make_method(RunSpec(method="gaze-magic", targets=("target",)), 1)
    late = {"fusion_scales", "warm_start", "darm_from", "darm_label", "cwc_logit_scale", "afc_rectified"}
    late |= {"text_strength_fixed", "track_shares", "track_weight"}
    late |= {"level_networks", "level_consistency", "level_consistency_weight"}
    spec = preset()
    earlier = {name: value for name, value in spec.to_json().items() if name not in late}
    assert RunSpec.from_json(earlier) == spec


@pytest.mark.parametrize("method", ["gaze-to-insight", "gaze-multilevel"])
def test_a_warm_start_begins_with_what_predicts_and_says_so(filled: Study, method: str) -> None:
    earlier = run_of(filled, tiny(method))
    run = create_run(filled, tiny(method, warm_start=earlier.id, iterations=1, learning_rate=1e-12))
    events = go_on(filled, run)
    assert events.of("started")[0]["warm_start"] == earlier.id
    goal, found = weights_of(earlier, "student_ema"), weights_of(run, "student")
    moving = ("running_mean", "running_var", "num_batches_tracked")
    learned = [key for key in goal if not key.endswith(moving)]
    assert all(torch.allclose(goal[key], found[key], atol=1e-6) for key in learned)
    assert read_json(run.path / "spec.json")["warm_start"] == earlier.id


def test_a_warm_start_from_what_does_not_fit_is_refused(filled: Study) -> None:
    earlier = run_of(filled, tiny("partial", iterations=1))
    for changes, sentence in (
        ({"method": "gaze-to-insight"}, "its student network has another architecture"),
        ({"method": "partial", "student_widths": (4, 8, 8, 8, 16)}, "another architecture"),
        ({"method": "gaze-multilevel"}, "another architecture"),
        ({"method": "partial", "warm_start": "run-0"}, "no run 'run-0'"),
        ({"method": "partial", "warm_start": "../partial"}, "no run"),
    ):
        with pytest.raises(UserError, match=sentence):
            run_of(filled, tiny(**{"warm_start": earlier.id, **changes}))  # type: ignore[arg-type]
    fresh = create_run(filled, tiny("partial"))
    with pytest.raises(UserError, match="no checkpoint"):
        run_of(filled, tiny("partial", warm_start=fresh.id))
