"""Two copies of one study brought together: both orders give the same, twice is once, and nothing is half."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import os
import random
import shutil
import subprocess
import sys
from pathlib import Path

import nibabel
import numpy as np
import pytest

from gaze_capture.errors import UserError
from gaze_capture.recording import Placement, ScreenGeometry
from gaze_capture.recording_codec import RecordingHeader, RecordingWriter
from gaze_capture.storage import write_json_atomic
from segmentation.blind_reading import draw_audit
from segmentation.importing import import_images
from segmentation.look_again import ask_again, asked_again, take_back
from segmentation.merging import merge
from segmentation.own_words_store import keep_words, load_words
from segmentation.records import Target
from segmentation.study import Study
from segmentation.verification import verify
from tests.reader_support import command, command_json, disc, gaze_of, image_files, make, review

RECORDS = (
    "images", "volumes", "masks", "recordings", "fixations", "audits", "reviews", "explanations", "look_again",
)  # fmt: skip


def files(folder: Path) -> dict[str, str]:
    """Every record of a study by its name, with a hash of what is in it."""
    return {
        path.relative_to(folder).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest()
        for kind in RECORDS
        for path in (folder / kind).rglob("*")
        if path.is_file()
    }


def copy_of(study: Study, folder: Path) -> Study:
    shutil.copytree(study.folder, folder)
    return Study.open(folder)


def record(study: Study, name: str, image_ids: list[str], annotator: str) -> None:
    """Store a finished recording as its files lie in a study."""
    geometry = ScreenGeometry(1920, 1080, 520.0, 290.0, 650.0)
    writer = RecordingWriter(
        study.recordings_folder / name, RecordingHeader(name, annotator, "mouse", geometry, "2026")
    )
    for number, image_id in enumerate(image_ids):
        placement = Placement(
            image_id, "target", number * 10**9, number * 10**9, np.eye(3), (0, 0, 1920, 1080)
        )
        handle = writer.start_placement(placement)
        writer.end_placement(handle, (number + 1) * 10**9)
    writer.close()
    study.save_fixations(name, [gaze_of(one, annotator, name) for one in image_ids], imported=False)


@pytest.fixture
def base(tmp_path: Path) -> Study:
    study = make(tmp_path / "base", 4)
    first, second, *_ = study.images
    study.save_true_mask(first, "target", disc(20))
    review(study, first, "A", disc(20))
    study.save_fixations("import-base", [gaze_of(second, "A", "import-base")], imported=True)
    return study


def work(study: Study, annotator: str, seed: int) -> None:
    """Do a random lot of what an annotator does to a study."""
    drawn = random.Random(seed)
    ids = list(study.images)
    for step in range(drawn.randrange(1, 9)):
        image_id = drawn.choice(ids)
        match drawn.randrange(9):
            case 0:
                review(study, image_id, annotator, disc(drawn.randrange(10, 50)), "second-read")
            case 1:
                review(study, image_id, annotator, None)
            case 2:
                name = review(study, image_id, annotator, disc(30))
                study.withdraw_review(image_id, "target", name)
            case 3:
                source = f"import-{annotator}-{seed}-{step}"
                study.save_fixations(source, [gaze_of(image_id, annotator, source, seed)], imported=True)
            case 4:
                folder = study.folder.parent / f"{study.folder.name}-{seed}-{step}"
                import_images(study, [image_files(folder, 2, 1000 * (ord(annotator) + 1) + 10 * seed + step)])
                ids = list(study.images)
            case 5:
                draw_audit(study, 2, step, annotator=annotator)
            case 6:
                for name in list(study.named_reviews(image_id, "target"))[:1]:
                    study.withdraw_review(image_id, "target", name)
            case 7:
                keep_words(study, image_id, "target", annotator, f"Round, says {annotator}.")
            case 8:
                asked = ask_again(study, image_id, "target", annotator)
                if drawn.random() < 0.5:
                    take_back(study, asked)


@pytest.mark.parametrize("seed", range(12))
def test_either_order_gives_the_same_files(base: Study, tmp_path: Path, seed: int) -> None:
    one, other = copy_of(base, tmp_path / "one"), copy_of(base, tmp_path / "other")
    work(one, "A", seed)
    work(other, "B", seed)
    before = files(one.folder), files(other.folder)
    left, right = copy_of(one, tmp_path / "left"), copy_of(other, tmp_path / "right")
    report = merge(left, other)
    assert not report.conflicts and not report.left_out
    assert not merge(right, one).conflicts
    assert files(left.folder) == files(right.folder) == before[0] | before[1]
    assert (files(one.folder), files(other.folder)) == before, "what is merged from stays as it is"
    assert verify(left).sound
    assert set(left.images) == set(one.images) | set(other.images)
    again = merge(left, other)
    assert again.copied == {} and files(left.folder) == files(right.folder)
    assert left.reviewed() == right.reviewed()


def test_recordings_come_whole(base: Study, tmp_path: Path) -> None:
    other = copy_of(base, tmp_path / "other")
    record(other, "rec-1", list(other.images)[:2], "B")
    report = merge(base, other)
    assert report.copied == {"recordings": 1}
    assert files(base.folder) == files(other.folder)
    assert base.recording_ids() == ["rec-1"]
    assert {look.annotator for look in base.looks[next(iter(base.images)), "target"]} == {"B"}
    assert not list(base.folder.glob(".merge-*"))
    other.save_fixations("rec-1", [gaze_of(next(iter(other.images)), "B", "rec-1", 9)], imported=False)
    report = merge(base, other)
    assert report.copied == {} and not report.conflicts
    assert any("fixations.csv" in note and "keeps its own" in note for note in report.notes)
    folders = [study.recordings_folder / "rec-1" / "overruled" for study in (base, other)]
    for folder, annotator in zip(folders, "AB", strict=True):
        write_json_atomic(folder / f"image.target.{annotator}.json", {"annotator": annotator})
    assert merge(base, other).copied == {"overrules": 1}
    assert sorted(path.name for path in folders[0].iterdir()) == [
        "image.target.A.json",
        "image.target.B.json",
    ]
    with open(other.recordings_folder / "rec-1" / "gaze.frames", "ab") as stream:
        stream.write(b"more")
    ((name, reason),) = merge(base, other).conflicts
    assert name == "recordings/rec-1" and "gaze.frames" in reason
    (other.recordings_folder / "rec-1" / "recording.json").unlink()
    assert "was not ended" in dict(merge(base, other).left_out)["recordings/rec-1"]


def test_same_name_other_contents_is_refused_by_name(base: Study, tmp_path: Path) -> None:
    first, second, *_ = base.images
    name = review(base, second, "A", disc(20))
    other = copy_of(base, tmp_path / "other")
    other.save_true_mask(first, "target", disc(40))
    (path,) = (other.folder / "reviews" / f"{second}.target").glob(f"{name}.json")
    path.write_text(json.dumps({**json.loads(path.read_text()), "verdict": "rejected"}))
    review(other, first, "B", disc(25))
    before = files(base.folder)
    report = merge(base, other)
    assert dict(report.conflicts) == {
        f"masks/{first}.target.png": "is another mask here",
        f"reviews/{second}.target/{name}.json": "is another review here",
    }
    assert report.copied == {"reviews": 1}
    after = files(base.folder)
    assert before.items() <= after.items(), "nothing that was here changed"
    status, out, _ = command("merge", base.folder, other.folder)
    assert status == 0 and "Refused, as the same name holds something else here (2):" in out
    assert f"masks/{first}.target.png is another mask here" in out


def test_another_image_of_the_same_id_takes_its_records_along(tmp_path: Path) -> None:
    one, other = Study.create(tmp_path / "one"), Study.create(tmp_path / "other")
    for study, seed in ((one, 1), (other, 2)):
        folder = image_files(tmp_path / f"raw-{seed}", 2, seed)
        for path in folder.iterdir():
            path.rename(path.with_name(f"scan{path.name[-5:]}"))
        import_images(study, [folder])
    assert set(one.images) == set(other.images)
    scan = next(iter(one.images))
    review(other, scan, "B", disc(20))
    report = merge(one, other)
    assert {name for name, _ in report.conflicts} == {f"images/{name}" for name in one.images}
    assert [name for name, _ in report.left_out] == [f"reviews/{scan}.target"]
    assert not one.reviewed() and any("studies of their own" in note for note in report.notes)


def test_studies_made_apart_from_the_same_images_meet_by_content(tmp_path: Path) -> None:
    raw = image_files(tmp_path / "raw", 3)
    one, other = Study.create(tmp_path / "one"), Study.create(tmp_path / "other")
    import_images(one, [raw])
    import_images(other, [raw])
    other.add_images([dataclasses.replace(next(iter(other.images.values())), split="val", group="p1")])
    review(other, next(iter(other.images)), "B", disc(20))
    before = dict(one.images)
    report = merge(one, other)
    assert report.copied == {"reviews": 1} and not report.conflicts
    assert dict(one.images) == before, "splits and groups that are here stay"
    assert any("split 'train' here, 'val' there" in note for note in report.notes)
    # The same picture by another name is not taken twice: it could fall on both sides of a split.
    third = Study.create(tmp_path / "third")
    renamed = tmp_path / "renamed"
    shutil.copytree(raw, renamed)
    for path in renamed.iterdir():
        path.rename(path.with_name(f"other-{path.name}"))
    import_images(third, [renamed])
    report = merge(one, third)
    assert report.copied == {} and len(report.left_out) == 3 and "is here as" in report.left_out[0][1]


def test_records_without_a_place_are_left_out_by_name(base: Study, tmp_path: Path) -> None:
    other = copy_of(base, tmp_path / "other")
    first, second, third, last = other.images
    other.set_targets([*other.targets, Target("liver", "Liver", "#E69F00")])
    other.add_review(dataclasses.replace(other.reviews(first, "target")[0], target_id="liver"), disc(20))
    review(other, second, "B", disc(5, 5, 3, (10, 12)))
    name = review(other, third, "B", disc(20))
    (other.folder / "reviews" / f"{third}.target" / f"{name}.json").write_text("{}")
    review(other, last, "B", disc(20))
    for path in other.manifests():
        values = json.loads(path.read_text())
        values["images"] = [one for one in values["images"] if one["id"] != last]
        path.write_text(json.dumps(values))
    report = merge(base, Study.open(other.folder))
    reasons = {name.split("/")[1]: reason for name, reason in report.left_out}
    assert reasons[f"{first}.liver"] == "speaks of the target liver, which this study does not have"
    assert "mask of 12 x 10 pixels, its image has 64 x 48" in reasons[f"{second}.target"]
    assert "is damaged" in reasons[f"{third}.target"]
    assert reasons[f"{last}.target"] == f"speaks of the image {last} that the other study does not have"
    assert "reviews" not in report.copied and verify(base).sound
    assert any("gaze-insight targets" in note for note in report.notes)


def test_a_damaged_picture_does_not_come(base: Study, tmp_path: Path) -> None:
    other = copy_of(base, tmp_path / "other")
    import_images(other, [image_files(tmp_path / "more", 2, 5)])
    damaged, whole = list(other.images.values())[-2:]
    (other.folder / damaged.path).write_bytes(b"cut")
    report = merge(base, other)
    assert report.copied == {"images": 1} and damaged.path in dict(report.left_out)
    assert whole.id in base.images and damaged.id not in base.images and verify(base).sound


class Stopped(Exception):
    """The power went."""


def test_a_merge_cut_off_anywhere_leaves_nothing_half(
    base: Study, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    other = copy_of(base, tmp_path / "other")
    import_images(other, [image_files(tmp_path / "more", 1, 5)])
    first, *_, last = other.images
    record(other, "rec-1", [first], "B")
    withdrawn = review(other, first, "B", disc(20))
    other.withdraw_review(first, "target", withdrawn)
    review(other, last, "B", disc(22))
    draw_audit(other, 1, 1)
    whole = copy_of(base, tmp_path / "whole")
    merge(whole, other)
    steps = 0
    real = {"replace": os.replace, "rename": os.rename}
    while True:
        target = copy_of(base, tmp_path / f"try-{steps}")
        left = steps

        def failing(name: str, *paths: Path) -> None:
            nonlocal left
            left -= 1
            if left < 0:
                raise Stopped
            real[name](*paths)

        with monkeypatch.context() as patched:
            patched.setattr(os, "replace", lambda *paths: failing("replace", *paths))
            patched.setattr(os, "rename", lambda *paths: failing("rename", *paths))
            try:
                merge(target, other)
                cut = False
            except Stopped:
                cut = True
        reopened = Study.open(target.folder)
        assert not reopened.reviews(first, "target")[1:], "a review taken back never stands in between"
        for name in reopened.recording_ids():
            assert files(target.folder / "recordings" / name) == files(other.folder / "recordings" / name)
        assert [one for one in verify(reopened).problems if "belongs to no image" not in one.problem] == []
        if not cut:
            break
        merge(reopened, other)
        assert files(target.folder) == files(whole.folder), f"cut off after {steps} writes"
        steps += 1
    assert steps > 12


def test_a_killed_merge_is_finished_by_the_next(base: Study, tmp_path: Path) -> None:
    other = copy_of(base, tmp_path / "other")
    for number in range(12):
        record(other, f"rec-{number:02}", list(other.images)[:2], "B")
    script = (
        "import sys, os, gaze_capture.storage as s\n"
        "from pathlib import Path\n"
        "import segmentation.merging as m\n"
        "from segmentation.study import Study\n"
        "count = 0\n"
        "rename = os.rename\n"
        "def die(*paths):\n"
        "    global count\n"
        "    count += 1\n"
        "    if count == 5:\n"
        "        os.kill(os.getpid(), 9)\n"
        "    rename(*paths)\n"
        "os.rename = die\n"
        "m.merge(Study.open(sys.argv[1]), Study.open(sys.argv[2]))\n"
    )
    died = subprocess.run([sys.executable, "-c", script, str(base.folder), str(other.folder)], check=False)
    assert died.returncode == -9
    assert len(base.recording_ids()) == 4 and list(base.folder.glob(".merge-*"))
    assert [one for one in verify(base).problems if ".merge-" not in one.file] == []
    merge(base, other)
    assert files(base.folder) == files(other.folder) and not list(base.folder.glob(".merge-*"))


def test_what_cannot_be_merged(base: Study, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="the very study"):
        merge(base, Study.open(base.folder))
    status, _, error = command("merge", base.folder, tmp_path / "nowhere")
    assert status == 1 and "is not a study" in error and error.count("\n") == 1
    other = copy_of(base, tmp_path / "other")
    (other.folder / "training_set.json").write_text("{}")
    with pytest.raises(UserError, match="packed training set"):
        merge(base, Study.open(other.folder))


def test_a_full_disk_is_told_and_the_rest_is_whole(
    base: Study, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    other = copy_of(base, tmp_path / "other")
    for image_id in other.images:
        review(other, image_id, "B", disc(22))

    def full(descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patched:
        patched.setattr(os, "fsync", full)
        with pytest.raises(UserError, match="The disk is full"):
            merge(base, other)
    assert verify(base).sound
    values = command_json("merge", base.folder, other.folder)
    assert values["copied"] == {"reviews": 4} and values["conflicts"] == []
    assert files(base.folder) == files(other.folder)


def test_black_slices_of_two_volumes_are_not_one_image(tmp_path: Path) -> None:
    """Volumes are padded with slices of nothing, whose files are alike to the byte."""
    studies = []
    for name in ("one", "other"):
        study = Study.create(tmp_path / name)
        values = np.zeros((12, 10, 4), np.float32)
        values[:, :, 1:3] = np.random.default_rng(len(name)).uniform(1, 900, (12, 10, 2))
        raw = tmp_path / f"raw-{name}"
        raw.mkdir()
        nibabel.save(nibabel.Nifti1Image(values, np.diag([1.0, 1.0, 3.0, 1.0])), raw / f"{name}.nii.gz")
        import_images(study, [raw])
        studies.append(study)
    one, other = studies
    assert {image.sha256 for image in one.images.values()} & {image.sha256 for image in other.images.values()}
    report = merge(one, other)
    assert not report.left_out and report.copied["images"] == 4 and report.copied["volumes"] == 1
    assert set(one.volumes) == {"one", "other"} and verify(one).sound
    # The same volume under another name still comes but once.
    again = Study.create(tmp_path / "again")
    (tmp_path / "raw-one" / "one.nii.gz").rename(tmp_path / "raw-one" / "renamed.nii.gz")
    import_images(again, [tmp_path / "raw-one"])
    again.add_images([dataclasses.replace(image, source_sha256="") for image in again.images.values()])
    report = merge(one, Study.open(again.folder))
    assert report.copied == {} and [reason for _, reason in report.left_out[:4]] == [
        f"is here as one-{number:04d}; its records are left out, too" for number in range(1, 5)
    ]


def test_what_people_said_comes_over(base: Study, tmp_path: Path) -> None:
    other = copy_of(base, tmp_path / "other")
    first, second, *_ = other.images
    keep_words(other, first, "target", "B", "Round and red.")
    asked = ask_again(other, second, "target", "B")
    report = merge(base, other)
    assert report.copied == {"own words": 1, "wishes for another look": 1}
    assert [own.words for own in load_words(base, first, "target")] == ["Round and red."]
    assert list(asked_again(base)) == [(second, "target")]
    take_back(other, asked)
    assert merge(base, other).copied == {"withdrawals": 1} and not asked_again(base)
    (path,) = (other.folder / "explanations" / "words" / f"{first}.target").iterdir()
    path.write_text("{}")
    assert [name for name, _ in merge(base, other).conflicts] == [path.relative_to(other.folder).as_posix()]
    path.rename(path.with_name("another.json"))
    assert (
        "is damaged"
        in dict(merge(base, other).left_out)["explanations/words/" + f"{first}.target/another.json"]
    )
