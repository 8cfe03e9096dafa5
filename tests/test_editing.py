"""The editing of masks: each tool against pixel-by-pixel loops, the history against a list of whole masks."""

from __future__ import annotations

import itertools
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from segmentation.editing import history, operations, regions
from segmentation.editing.drafts import Draft, open_draft
from segmentation.editing.history import EditableMask
from segmentation.study import Study
from tests import plain_masks as plain
from tests.drafts_support import one_image

Mask = npt.NDArray[np.bool_]
SHAPE = (13, 18)

masks = st.integers(0, 2**32 - 1).map(
    lambda seed: np.random.default_rng(seed).random(SHAPE) < np.random.default_rng(seed + 1).random()
)
whole = st.integers(-6, 24).map(float)
somewhere = st.one_of(whole, st.floats(-6, 24, allow_nan=False, width=32))
paths = st.lists(st.tuples(somewhere, somewhere), min_size=1, max_size=5)
radii = st.one_of(st.integers(1, 9).map(float), st.floats(0.3, 12, allow_nan=False))
few = settings(max_examples=60, deadline=None)
seeds = st.tuples(st.integers(0, SHAPE[1] - 1), st.integers(0, SHAPE[0] - 1))


def painted(found: list[regions.Region]) -> Mask:
    mask = np.zeros(SHAPE, dtype=bool)
    for region in found:
        mask[region.box.slices] |= region.inside
    return mask


@few
@given(paths, radii)
def test_a_stroke_is_all_pixels_within_its_radius_of_the_path(path: plain.Path, radius: float) -> None:
    assert (painted(regions.stroke(np.array(path), radius, SHAPE)) == plain.stroke(SHAPE, path, radius)).all()


@few
@given(st.lists(st.tuples(whole, whole), min_size=3, max_size=8))
def test_an_outline_holds_the_pixels_it_goes_around(path: plain.Path) -> None:
    found = regions.enclosed(np.array(path), SHAPE)
    assert (painted([found] if found else []) == plain.polygon(SHAPE, path)).all()


@few
@given(st.integers(0, 99), seeds, st.integers(0, 120), st.sampled_from([1, 3]))
def test_a_flood_reaches_what_is_like_its_seed(
    number: int, seed: tuple[int, int], tolerance: int, channels: int
) -> None:
    values = np.random.default_rng(number).integers(0, 255, (*SHAPE, channels)).astype(np.uint8)
    found = regions.similar(values, seed, tolerance)
    assert found is not None and (painted([found]) == plain.flood(values, seed, tolerance)).all()
    as_floats = regions.similar(values.astype(np.float64), seed, tolerance)
    assert as_floats is not None and (painted([as_floats]) == painted([found])).all()


@few
@given(masks, seeds)
def test_a_part_or_a_hole_is_what_hangs_together(mask: Mask, seed: tuple[int, int]) -> None:
    found = regions.part_at(mask, seed)
    assert found is not None and (painted([found]) == plain.part(mask, seed)).all()


@few
@given(
    masks,
    st.sampled_from([1.0, 1.5, 2.0, 3.0, 5.0]),
    st.sampled_from([None, (0.5, 0.5), (1.0, 0.4), (0.7, 1.3)]),
)
def test_operations_do_what_their_names_say(
    mask: Mask, radius: float, spacing: tuple[float, float] | None
) -> None:
    row, column = spacing or (1.0, 1.0)
    before = mask.copy()
    assert (operations.grow(mask, radius, spacing) == plain.grow(mask, radius, row, column)).all()
    assert (operations.shrink(mask, radius, spacing) == plain.shrink(mask, radius, row, column)).all()
    assert (operations.smooth(mask, radius) == plain.smooth(mask, radius)).all()
    assert (operations.fill_holes(mask) == plain.fill_holes(mask)).all()
    assert (operations.keep_largest(mask) == plain.keep_largest(mask)).all()
    assert (mask == before).all(), "what is worked on stays as it was"


@pytest.mark.parametrize("fill", [False, True])
def test_operations_on_masks_of_nothing_and_of_everything(fill: bool) -> None:
    mask = np.full(SHAPE, fill)
    for operation in (
        lambda m: operations.grow(m, 3.0),
        lambda m: operations.shrink(m, 3.0),
        operations.smooth,
        operations.fill_holes,
        operations.keep_largest,
    ):
        assert (operation(mask) == mask).all()


def test_rethresholding_inside_a_region_leaves_the_rest() -> None:
    probability = np.linspace(0, 1, SHAPE[0] * SHAPE[1], dtype=np.float32).reshape(SHAPE)
    mask = np.zeros(SHAPE, dtype=bool)
    mask[0, 0] = True
    left = np.zeros(SHAPE, dtype=bool)
    left[:, :10] = True
    assert (operations.rethreshold(mask, probability, 0.7) == (probability >= 0.7)).all()
    found = operations.rethreshold(mask, probability, 0.7, left)
    assert (found[:, :10] == (probability >= 0.7)[:, :10]).all() and not found[:, 10:].any()
    assert operations.rethreshold(mask, probability, 0.7, ~left)[0, 0]


# Sequences

IMAGE = np.random.default_rng(5).integers(0, 255, (*SHAPE, 1)).astype(np.uint8)

actions = st.one_of(
    st.tuples(st.sampled_from(["brush", "eraser"]), paths, radii),
    st.tuples(
        st.sampled_from(["polygon", "polygon-erase"]),
        st.lists(st.tuples(whole, whole), min_size=3, max_size=6),
    ),
    st.tuples(st.just("flood"), seeds, st.integers(0, 90)),
    st.tuples(st.just("part"), seeds),
    st.tuples(st.sampled_from(["grow", "shrink", "smooth"]), st.sampled_from([1.0, 2.0])),
    st.tuples(st.sampled_from(["fill-holes", "keep-largest", "cancel", "undo", "undo", "redo", "reopen"])),
    st.tuples(st.just("threshold"), st.floats(0, 1)),
)


def act(draft: Draft, model: plain.PlainHistory, action: tuple[object, ...]) -> None:
    """Do one thing to the draft, and to the plain model."""
    edit, word = draft.edit, str(action[0])
    if word in ("brush", "eraser"):
        path, radius = action[1], action[2]
        assert isinstance(path, list) and isinstance(radius, float)
        edit.begin(word)
        # As a mouse does: leg by leg.
        for leg in [path[:1], *([one, other] for one, other in itertools.pairwise(path))]:
            edit.brush(np.array(leg), radius, erase=word == "eraser")
        draft.commit()
        drawn = plain.stroke(SHAPE, path, radius)
        model.do(word, model.mask & ~drawn if word == "eraser" else model.mask | drawn)
    elif word.startswith("polygon"):
        corners = action[1]
        assert isinstance(corners, list)
        erase = word.endswith("erase")
        found = regions.enclosed(np.array(corners), SHAPE)
        edit.begin(word)
        edit.mark([found] if found else [], erase=erase)
        draft.commit()
        drawn = plain.polygon(SHAPE, corners)
        model.do(word, model.mask & ~drawn if erase else model.mask | drawn)
    elif word in ("flood", "part"):
        seed = action[1]
        assert isinstance(seed, tuple)
        if word == "flood":
            tolerance = action[2]
            assert isinstance(tolerance, int)
            found, drawn = regions.similar(IMAGE, seed, tolerance), plain.flood(IMAGE, seed, tolerance)
            erase = False
        else:
            found, drawn = regions.part_at(edit.mask, seed), plain.part(model.mask, seed)
            erase = bool(model.mask[seed[1], seed[0]])
        assert found is not None
        edit.begin(word)
        edit.mark([found], erase=erase)
        draft.commit()
        model.do(word, model.mask & ~drawn if erase else model.mask | drawn)
    elif word in ("grow", "shrink", "smooth"):
        by = action[1]
        assert isinstance(by, float)
        draft.apply(word, getattr(operations, word)(edit.mask, by))
        model.do(word, getattr(plain, word)(model.mask, by))
    elif word in ("fill-holes", "keep-largest"):
        name = word.replace("-", "_")
        draft.apply(word, getattr(operations, name)(edit.mask))
        model.do(word, getattr(plain, name)(model.mask))
    elif word == "threshold":
        level = action[1]
        assert isinstance(level, float)
        edit.begin(word)
        # Tried out first, as a slider does.
        for tried in (0.1, level):
            edit.replace(operations.rethreshold(edit.mask, (IMAGE[..., 0] / 255).astype(np.float32), tried))
        draft.commit()
        model.do(word, (IMAGE[..., 0] / 255).astype(np.float32) >= np.float32(level))
    elif word == "cancel":
        edit.begin("brush")
        edit.brush(np.array([[3.0, 3.0], [9.0, 5.0]]), 4)
        edit.cancel()
    elif word == "undo":
        draft.undo()
        model.undo()
    else:
        assert word == "redo"
        draft.redo()
        model.redo()


@settings(max_examples=80, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(masks, st.lists(actions, max_size=14))
def test_any_sequence_gives_the_mask_that_a_list_of_whole_masks_says(
    tmp_path_factory: pytest.TempPathFactory,
    monkeypatch: pytest.MonkeyPatch,
    mask: Mask,
    sequence: list[tuple[object, ...]],
) -> None:
    # Small, so that strokes cross from one to the next.
    monkeypatch.setattr(history, "TILE_PX", 8)
    study = one_image(tmp_path_factory.mktemp("edits"), SHAPE)
    model = plain.PlainHistory(mask)

    def opened() -> Draft:
        return open_draft(study, "one", "target", "ann", None, began_as=("empty", mask))

    draft = opened()
    for action in sequence:
        if action[0] == "reopen":
            draft.close()
            draft = opened()
            if not model.words:
                model = plain.PlainHistory(mask)
        else:
            act(draft, model, action)
        edit = draft.edit
        assert (edit.mask == model.mask).all()
        assert [step.word for step in edit.steps] == model.words[: model.at]
        assert [step.word for step in edit.undone] == model.words[model.at :]
        assert edit.undo_word == (model.words[model.at - 1] if model.at else "")
        assert edit.redo_word == (model.words[model.at] if model.at < len(model.words) else "")
    while draft.undo():
        model.undo()
        assert (draft.edit.mask == model.mask).all()
    assert (draft.edit.mask == mask).all()
    draft.close()


def test_what_a_mask_began_as_and_its_edits_follow_the_steps_that_stand() -> None:
    edit = EditableMask(np.zeros(SHAPE, dtype=bool), "student")
    full, half = np.ones(SHAPE, dtype=bool), np.zeros(SHAPE, dtype=bool)
    half[:5] = True
    edit.apply("brush", full)
    assert (edit.started_from, edit.edits) == ("student", ("brush",))
    edit.apply("start", half, start="teacher")
    edit.apply("smooth", full)
    assert (edit.started_from, edit.edits) == ("teacher", ("smooth",))
    edit.undo()
    edit.undo()
    assert (edit.started_from, edit.edits) == ("student", ("brush",))
    edit.redo()
    # A start that looks the same is a start all the same.
    assert edit.apply("start", half, start="level 0.5") is not None
    assert (edit.started_from, edit.edits) == ("level 0.5", ())
    assert edit.apply("smooth", half) is None and edit.undo_word == "start"


def test_only_one_step_is_made_at_a_time_and_none_is_taken_back_meanwhile() -> None:
    edit = EditableMask(np.zeros(SHAPE, dtype=bool), "empty")
    edit.apply("brush", np.ones(SHAPE, dtype=bool))
    edit.begin("eraser")
    edit.brush(np.array([[4.0, 4.0]]), 3, erase=True)
    assert edit.undo() is None and edit.redo() is None
    with pytest.raises(RuntimeError):
        edit.begin("brush")
    assert edit.commit() is not None and len(edit.steps) == 2
    with pytest.raises(ValueError, match="read-only"):
        edit.mask[0, 0] = True


def test_a_long_history_stays_small(tmp_path: Path) -> None:
    study: Study = one_image(tmp_path, (600, 700))
    draft = open_draft(study, "one", "target", "ann", None)
    rng = np.random.default_rng(0)
    for _ in range(100):
        draft.edit.begin("brush")
        draft.edit.brush(rng.uniform([0, 0], [700, 600], (3, 2)), 12.5)
        draft.commit()
    draft.close()
    assert draft.path is None
    (path,) = (study.folder / "drafts" / "one.target").iterdir()
    assert path.stat().st_size < 100 * 3000
