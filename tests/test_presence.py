"""The four words on a target: what each becomes as a label."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import pytest

from gaze_capture.errors import UserError
from gaze_capture.fixations import Fixations
from gaze_capture.recording import Presence
from segmentation import steps
from segmentation.dataset import load_training_set
from segmentation.losses import IGNORE
from segmentation.records import Target, utc_now
from segmentation.study import Review, Study
from tests.training_helpers import make_study, pseudomask_of, tiny

WORDS: tuple[Presence, ...] = ("present", "absent", "unsure", "ungradable")


def gaze(image_id: str, presence: Presence | None, target_id: str = "target") -> Fixations:
    return Fixations(
        image_id, target_id, "ann", "rec", np.array([50.0]), np.array([400.0]), np.array([[30.0, 20.0]]), np.zeros(1),
        "test", degrees_per_px=0.3, presence=presence,
    )  # fmt: skip


def review(image_id: str, presence: Presence | None) -> Review:
    return Review(image_id, "target", "ann", "run-1", "edited", presence, 1.0, utc_now())


@pytest.fixture
def worded(tmp_path: Path, image_folder: Path) -> Study:
    """Six images with pseudo-masks; the first four carry one word each, the other two none."""
    study = make_study(tmp_path / "study", image_folder, explained=False)
    ids = list(study.images)
    study.save_fixations(
        "rec", [gaze(name, word) for name, word in zip(ids, [*WORDS, None, None], strict=True)], imported=True
    )
    return study


def test_only_decided_words_are_labels(worded: Study) -> None:
    data = load_training_set(worded, tiny("partial"), None)
    ids = list(worded.images)
    assert data.ids == (ids[0], ids[1], ids[4], ids[5]), "unsure and ungradable are left out"
    levels = dict(zip(data.ids, data.levels[:, 0], strict=True))
    assert set(np.unique(levels[ids[0]])) == {0, 1, 2}
    assert (levels[ids[1]] == 0).all(), "absent is background everywhere, though a pseudo-mask lies there"
    assert data.strong == 1


def test_only_images_with_something_to_find_get_pseudomasks(worded: Study) -> None:
    for path in (worded.folder / "pseudomasks").iterdir():
        path.unlink()
    report = steps.make_pseudomasks(worded)
    assert (report.made, report.absent, report.undecided) == (3, 1, 2)
    ids = list(worded.images)
    assert {key[0] for key in worded.pseudomask_keys()} == {ids[0], ids[4], ids[5]}


def test_doubt_about_one_target_leaves_the_other(tmp_path: Path, image_folder: Path) -> None:
    study = make_study(tmp_path / "study", image_folder, explained=False)
    study.set_targets([*study.targets, Target("zone", "Zone")])
    first = next(iter(study.images))
    study.save_fixations("rec", [gaze(first, "unsure"), gaze(first, "absent", "zone")], imported=True)
    data = load_training_set(study, tiny("partial", targets=("target", "zone")), None)
    levels = data.levels[data.ids.index(first)]
    assert (levels[0] == IGNORE).all() and (levels[1] == 0).all()


def test_a_drawn_mask_outweighs_an_earlier_doubt_but_not_its_own(worded: Study) -> None:
    ids = list(worded.images)
    mask = np.zeros((48, 64), np.bool_)
    mask[10:30, 10:30] = True
    worded.add_review(review(ids[2], None), mask)
    worded.add_review(review(ids[4], "unsure"), mask)
    data = load_training_set(worded, tiny("partial"), None)
    assert ids[2] in data.ids and data.strong == 2
    assert ids[4] not in data.ids


def test_nothing_but_doubt_says_so(worded: Study) -> None:
    worded.save_fixations("rec", [gaze(name, "unsure") for name in worded.images], imported=True)
    with pytest.raises(UserError, match="unsure or ungradable"):
        load_training_set(worded, tiny("partial"), None)


def test_pseudomask_helper_is_what_the_words_are_held_against(worded: Study) -> None:
    # The helper's pseudo-mask of an image called absent is not empty: the word, not the mask, makes it background.
    mask = np.ones((48, 64), np.bool_)
    image_id = list(worded.images)[1]
    worded.save_pseudomask(dataclasses.replace(pseudomask_of(image_id, mask, mask)))
    data = load_training_set(worded, tiny("partial"), None)
    assert (data.levels[data.ids.index(image_id)] == 0).all()
