"""Drafts on disk: crashes, torn and damaged files, two windows, full disks, what vanished meanwhile."""

from __future__ import annotations

import errno
import os
import resource
import shutil
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest

from app.verdicts import Judged, Word, give_edited, give_verdict
from gaze_capture.errors import UserError
from segmentation.consent import erase_annotator
from segmentation.editing import operations
from segmentation.editing.drafts import Draft, drafts_left, open_draft, put_back
from segmentation.editing.starts import start_mask, starts
from segmentation.importing import import_images
from segmentation.records import Target
from segmentation.review_index import Purpose
from segmentation.study import Study
from segmentation.verification import verify
from tests.benchmarks.kill_edits import kill_one
from tests.drafts_support import one_image

SHAPE = (48, 64)
Mask = npt.NDArray[np.bool_]


@pytest.fixture
def study(tmp_path: Path) -> Study:
    return one_image(tmp_path, SHAPE)


def opened(study: Study, annotator: str = "ann", purpose: Purpose = "review") -> Draft:
    return open_draft(study, "one", "target", annotator, None, purpose=purpose)


def dab(draft: Draft, x: float, y: float, radius: float = 4.0) -> Mask:
    draft.edit.begin("brush")
    draft.edit.brush(np.array([[x, y]]), radius)
    draft.commit()
    return draft.edit.mask.copy()


def files(study: Study) -> list[Path]:
    return sorted((study.folder / "drafts").rglob("*.edits"))


@contextmanager
def full_disk(most_bytes: int) -> Iterator[None]:
    """Let no file of this process grow beyond so many bytes: the system refuses as a full disk does."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    ignored = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (most_bytes, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
        signal.signal(signal.SIGXFSZ, ignored)


@pytest.mark.parametrize("seed", range(3))
def test_a_kill_in_mid_edit_loses_nothing_that_was_told_as_kept(tmp_path: Path, seed: int) -> None:
    killed = kill_one(tmp_path / "try", seed, 0.1 * seed)
    assert killed.told >= 1 and killed.lost == 0 and killed.undone


def test_a_torn_last_step_is_dropped_at_every_length(study: Study, tmp_path: Path) -> None:
    draft = opened(study)
    masks = [dab(draft, 10 + 9 * number, 20) for number in range(3)]
    draft.close()
    (path,) = files(study)
    whole = path.read_bytes()
    # Where each step ends, found by opening ever shorter files.
    seen = set()
    for size in range(len(whole), len(whole) - 90, -7):
        path.write_bytes(whole[:size])
        draft = opened(study)
        count = len(draft.edit.steps)
        seen.add(count)
        assert (draft.edit.mask == masks[count - 1]).all()
        after = dab(draft, 50, 40)
        draft.close()
        again = opened(study)
        assert (again.edit.mask == after).all() and len(again.edit.steps) == count + 1
        again.close()
    assert {2, 3} <= seen


def test_damage_in_the_middle_is_told_and_the_file_stays(study: Study) -> None:
    draft = opened(study)
    sizes, masks = [], []
    for number in range(3):
        masks.append(dab(draft, 10 + 9 * number, 20))
        assert draft.path is not None
        sizes.append(draft.path.stat().st_size)
    draft.close()
    (path,) = files(study)
    data = bytearray(path.read_bytes())
    data[(sizes[0] + sizes[1]) // 2] ^= 1
    path.write_bytes(data)
    draft = opened(study)
    assert "is damaged" in draft.note and (draft.edit.mask == masks[0]).all()
    dab(draft, 50, 40)
    draft.close()
    assert path.read_bytes() == bytes(data) and len(files(study)) == 2
    problems = [problem for problem in verify(study).problems if "draft" in problem.file]
    assert [problem.file for problem in problems] == [path.relative_to(study.folder).as_posix()]
    path.write_bytes(b"GAZEEDT1 not quite")
    draft = opened(study)
    assert "Move it out of the study" in draft.note and len(draft.edit.steps) == 2
    draft.close()


@pytest.mark.parametrize("goes_on", [True, False])
def test_a_damaged_draft_is_not_gone_on_with_once_its_mask_is_stored(study: Study, goes_on: bool) -> None:
    draft = opened(study)
    ends = []
    for number in range(3):
        dab(draft, 10 + 9 * number, 20)
        assert draft.path is not None
        ends.append(draft.path.stat().st_size)
    draft.close()
    (path,) = files(study)
    data = bytearray(path.read_bytes())
    data[(ends[0] + ends[1]) // 2] ^= 1
    path.write_bytes(data)
    draft = opened(study)
    if goes_on:
        dab(draft, 50, 40)
    mask = draft.edit.mask.copy()
    given = give_edited(study, draft, 2.0)
    assert not drafts_left(study, "ann")
    again = opened(study)
    assert not again.note and again.header.started_from == "reviewed" and (again.edit.mask == mask).all()
    again.close()
    given.withdraw(study)
    assert set(drafts_left(study, "ann")) == {("one", "target")}
    assert (opened(study).edit.mask == mask).all()


def test_a_draft_in_the_folder_of_another_image_is_found_and_not_gone_on_with(
    study: Study, image_folder: Path
) -> None:
    import_images(study, [image_folder / "images"])
    draft = opened(study)
    dab(draft, 10, 10)
    draft.close()
    (path,) = files(study)
    path.parent.rename(path.parent.with_name("case_0.target"))
    draft = open_draft(study, "case_0", "target", draft.header.annotator, None)
    assert not draft.recovered and draft.header.image_id == "case_0"
    draft.close()
    (problem,) = [one for one in verify(study).problems if "draft" in one.file]
    assert "is an edit of one.target in the folder of another" in problem.problem


def test_two_windows_of_one_annotator_keep_a_draft_each(study: Study) -> None:
    first = opened(study)
    dab(first, 10, 10)
    second = opened(Study.open(study.folder))
    assert second.note == (
        "ann is editing one in another window, too: both edits are kept, and the one that is stored last counts."
    )
    assert not second.recovered and not second.edit.mask.any()
    theirs, mine = dab(second, 40, 30), dab(first, 20, 10)
    first.close()
    # Left by the first: the second goes on with its own all the same.
    theirs = dab(second, 50, 30)
    third = opened(study)
    assert third.recovered and (third.edit.mask == mine).all() and "another window" in third.note
    third.close()
    second.close()
    assert len(files(study)) == 2 and (opened(study).edit.mask == theirs).all(), (
        "the newest is gone on with first"
    )


def test_two_annotators_are_told_of_each_other_while_both_edit(study: Study) -> None:
    first = opened(study, "Ann")
    dab(first, 10, 10)
    second = opened(study, "Ben")
    assert second.note.startswith("Ann is editing one") and not second.edit.mask.any()
    dab(second, 40, 30)
    first.close()
    second.close()
    assert opened(study, "Cem").note == "", "what was left is nobody's concern but its annotator's"
    assert drafts_left(study, "Ann") == drafts_left(study, "Ben") == {("one", "target"): {"review"}}
    third = opened(study, "Mary-Ann")
    dab(third, 30, 30)
    third.close()
    assert drafts_left(study, "Cem") == drafts_left(study, "Mary") == {}
    assert drafts_left(study, "Mary-Ann") == {("one", "target"): {"review"}}
    audit = opened(study, "Mary-Ann", purpose="audit")
    dab(audit, 10, 10)
    audit.close()
    assert drafts_left(study, "Mary-Ann") == {("one", "target"): {"review", "audit"}}
    assert audit.path is None and len(files(study)) == 4
    for path in files(study):
        path.write_bytes(b"spoilt")
    assert drafts_left(study, "Mary-Ann") == {}


def test_whoever_writes_to_anothers_file_spoils_nothing(study: Study) -> None:
    """Where a file system knows no locks, two windows may have one file."""
    draft = opened(study)
    dab(draft, 10, 10)
    (path,) = files(study)
    with open(path, "ab") as stream:
        stream.write(b"another window's step")
    mask = dab(draft, 30, 10)
    assert len(files(study)) == 2 and path.read_bytes().endswith(b"another window's step")
    moved = draft.path
    assert moved is not None and moved != path
    moved.rename(moved.with_suffix(".gone"))
    mask = dab(draft, 50, 10)
    draft.close()
    assert (opened(study).edit.mask == mask).all()


def test_an_audit_does_not_go_on_with_a_review(study: Study) -> None:
    draft = opened(study)
    dab(draft, 10, 10)
    draft.close()
    empty = np.zeros(SHAPE, dtype=bool)
    audit = open_draft(study, "one", "target", "ann", None, began_as=("empty", empty), purpose="audit")
    assert not audit.recovered and not audit.edit.mask.any()
    drawn = dab(audit, 40, 20)
    given = give_edited(study, audit, 3.0)
    (review,) = study.reviews("one", "target")
    assert (review.purpose, review.verdict, review.seconds_spent) == ("audit", "edited", 3.0)
    assert (study.folder / "reviews" / "one.target" / f"{given.name}.png").exists() and drawn.any()
    assert len(files(study)) == 1


def test_an_audit_that_did_not_begin_empty_is_not_stored_and_its_draft_stays(study: Study) -> None:
    shown = np.zeros(SHAPE, dtype=bool)
    shown[5:20, 5:20] = True
    audit = open_draft(study, "one", "target", "ann", None, began_as=("student", shown), purpose="audit")
    dab(audit, 40, 20)
    with pytest.raises(UserError, match="began as student"):
        give_edited(study, audit, 3.0)
    assert study.reviews("one", "target") == [] and len(files(study)) == 1
    audit.apply("start", np.zeros(SHAPE, dtype=bool), start="empty")
    dab(audit, 40, 20)
    give_edited(study, audit, 4.0)
    (review,) = study.reviews("one", "target")
    assert (review.purpose, review.started_from, review.edits) == ("audit", "empty", ("brush",))
    audit_mask = study.audit_mask("one", "target")
    assert audit_mask is not None and audit_mask[20, 40] and not audit_mask[6, 6] and files(study) == []


def test_a_full_disk_is_told_and_the_step_is_written_with_the_next_one(study: Study) -> None:
    draft = opened(study)
    dab(draft, 10, 10)
    (path,) = files(study)
    with full_disk(path.stat().st_size + 5), pytest.raises(UserError, match=r"\.edits"):
        dab(draft, 30, 10)
    assert len(draft.edit.steps) == 2 and draft.edit.mask[10, 30]
    mask = dab(draft, 50, 10)
    draft.undo()
    draft.redo()
    draft.close()
    again = opened(study)
    assert (again.edit.mask == mask).all() and len(again.edit.steps) == 3 and len(files(study)) == 1
    again.close()


def test_a_last_step_that_did_not_reach_the_disk_is_written_anew(
    study: Study, monkeypatch: pytest.MonkeyPatch
) -> None:
    draft = opened(study)
    dab(draft, 10, 10)
    (path,) = files(study)

    def fail(descriptor: int) -> None:
        raise OSError(errno.EIO, "Input/output error")

    monkeypatch.setattr("segmentation.editing.journal.sync", fail)
    mask = dab(draft, 30, 10)
    with full_disk(20), pytest.raises(UserError, match=r"\.edits"):
        draft.keep()
    draft.keep()
    assert path not in files(study) and len(files(study)) == 1, (
        "what the disk did not take is not gone on with"
    )
    draft.close()
    again = opened(study)
    assert (again.edit.mask == mask).all() and len(again.edit.steps) == 2
    again.close()


def test_the_first_step_on_a_full_disk_leaves_no_half_file(study: Study) -> None:
    draft = opened(study)
    with full_disk(20), pytest.raises(UserError):
        dab(draft, 10, 10)
    assert files(study) == [] and not list(study.folder.rglob("*.part"))
    mask = dab(draft, 30, 10)
    draft.close()
    assert (opened(study).edit.mask == mask).all()


def test_a_review_that_cannot_be_stored_keeps_the_draft(study: Study) -> None:
    draft = opened(study)
    mask = dab(draft, 10, 10)
    with full_disk(20), pytest.raises(UserError):
        give_edited(study, draft, 1.0)
    assert study.reviews("one", "target") == [] and len(files(study)) == 1
    with full_disk(300), pytest.raises(UserError):
        # There is room for the mask, and none for what it belongs to.
        give_edited(study, draft, 1.0)
    assert list((study.folder / "reviews").rglob("*.*")) == [study.folder / "reviews" / "one.target"]
    give_edited(study, draft, 1.0)
    stored = study.reviewed_mask("one", "target")
    assert stored is not None and (stored == mask).all() and files(study) == []


def test_withdrawing_an_edited_verdict_brings_its_draft_back(study: Study) -> None:
    draft = opened(study)
    dab(draft, 10, 10)
    mask = dab(draft, 30, 10)
    draft.undo()
    draft.seconds = 12.5
    draft.redo()
    given = give_edited(study, draft, 14.0)
    assert given.draft is not None
    put_back(study, given.draft)
    again = opened(study)
    assert again.recovered and (again.edit.mask == mask).all() and again.seconds == 12.5
    assert [step.word for step in again.edit.steps] == ["brush", "brush"]
    again.close()


def test_what_vanished_is_told_in_a_sentence_and_the_edit_stays(study: Study) -> None:
    draft = opened(study)
    mask = dab(draft, 10, 10)
    aside = study.folder.with_name("moved")
    study.folder.rename(aside)
    with pytest.raises(UserError, match="cannot be reached"):
        give_edited(study, draft, 1.0)
    with pytest.raises(UserError):
        dab(draft, 30, 10)
    assert not study.folder.exists(), "a study that was moved does not come to life as an empty folder"
    aside.rename(study.folder)
    mask = dab(draft, 50, 10)
    draft.close()
    assert (opened(study).edit.mask == mask).all()
    for path in (study.folder / "images").glob("manifest-*"):
        path.unlink()
    fresh = Study.open(study.folder)
    with pytest.raises(UserError, match="no image 'one'"):
        opened(fresh)
    with pytest.raises(UserError, match="no image 'one'"):
        give_edited(fresh, draft, 1.0)
    assert any("the study does not have" in problem.problem for problem in verify(fresh).problems)


def test_a_target_with_a_draft_is_not_taken_away(study: Study) -> None:
    study.set_targets([*study.targets, Target("other", "Other")])
    draft = open_draft(study, "one", "other", "ann", None)
    dab(draft, 10, 10)
    draft.close()
    with pytest.raises(UserError, match="other"):
        study.set_targets([study.targets[0]])
    with pytest.raises(UserError, match="no target"):
        open_draft(study, "one", "third", "ann", None)


def test_starts_are_listed_and_read_or_refused(study: Study) -> None:
    run = "run-1"
    probability = np.zeros(SHAPE, np.float32)
    probability[:20] = 0.8
    study.save_prediction(run, "one", "target", "student", probability)
    study.save_prediction(run, "one", "target", "teacher", 1 - probability)
    assert starts(study, "one", "target", run) == ["student", "teacher", "empty"]
    assert starts(study, "one", "target", None) == ["empty"]
    assert (start_mask(study, "one", "target", run, "student") == (probability >= 0.5)).all()
    before = study.prediction_path(run, "one", "target").read_bytes()
    draft = open_draft(study, "one", "target", "ann", run)
    draft.apply("grow", operations.grow(draft.edit.mask, 3.0))
    assert draft.header.subject == run and draft.edit.started_from == "student"
    give_edited(study, draft, 2.0)
    assert study.prediction_path(run, "one", "target").read_bytes() == before
    assert starts(study, "one", "target", run)[0] == "reviewed", "an edit is gone on with"
    study.prediction_path(run, "one", "target", "teacher").unlink()
    for start in ("teacher", "level 0.5"):
        with pytest.raises(UserError):
            start_mask(study, "one", "target", run, start)
    study.save_prediction(run, "one", "target", "student", np.zeros((5, 9), np.float32))
    with pytest.raises(UserError, match="is 9 x 5 pixels, the image 64 x 48"):
        start_mask(study, "one", "target", run, "student")
    with pytest.raises(UserError, match="9 x 5 pixels"):
        open_draft(study, "one", "target", "ann", run, began_as=("empty", np.zeros((5, 9), bool)))


def test_a_draft_of_another_size_is_left_where_it_is(study: Study, tmp_path: Path) -> None:
    (tmp_path / "other").mkdir()
    other = one_image(tmp_path / "other", (20, 30))
    draft = opened(other)
    dab(draft, 10, 10)
    draft.close()
    shutil.copytree(other.folder / "drafts", study.folder / "drafts")
    draft = opened(study)
    assert "30 x 20 pixels, the image is 64 x 48 now" in draft.note and not draft.recovered
    draft.close()
    assert len(files(study)) == 1
    assert any("its image one" in problem.problem for problem in verify(study).problems)


def test_no_thread_or_file_stays_open(study: Study) -> None:
    threads, handles = threading.active_count(), len(os.listdir("/proc/self/fd"))
    for number in range(5):
        draft = opened(study)
        dab(draft, 10 + number, 10)
        draft.close()
    assert threading.active_count() == threads and len(os.listdir("/proc/self/fd")) == handles
    assert verify(study).checked["drafts"] == 1
    assert not [problem for problem in verify(study).problems if "draft" in problem.file]


@pytest.mark.parametrize("word", ["accepted", "rejected", "nothing"])
def test_a_verdict_on_a_study_that_is_gone_is_told(study: Study, tmp_path: Path, word: Word) -> None:
    study.folder.rename(tmp_path / "away")
    with pytest.raises(UserError, match="cannot be reached"):
        give_verdict(study, Judged("one", "target", None, "ann", 1.0), word)
    assert not study.folder.exists()


def test_drafts_go_with_their_annotator_and_no_others(study: Study) -> None:
    for annotator in ("a/b", "a_b", "\N{GRINNING FACE}"):
        draft = opened(study, annotator)
        dab(draft, 10, 10)
        draft.close()
    assert list(drafts_left(study, "a/b")) == list(drafts_left(study, "a_b")) == [("one", "target")]
    assert drafts_left(study, "\N{CAT FACE}") == {}, "its files are named as those of the other face"
    assert erase_annotator(study, "a/b", really=True).drafts == 1
    assert drafts_left(study, "a/b") == {} and len(files(study)) == 2
    assert len(drafts_left(study, "a_b")) == 1
    (path,) = (path for path in files(study) if path.name.endswith("-a_b.edits"))
    path.write_bytes(b"damaged")
    assert erase_annotator(study, "\N{GRINNING FACE}", really=True).drafts == 1 and files(study) == [path]
    assert erase_annotator(study, "a_b", really=True).drafts == 1 and files(study) == [], (
        "its name tells whose it is"
    )
