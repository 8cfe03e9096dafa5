"""Near-duplicates among phantoms and their altered copies, the groups made of them, and splits that respect groups."""

from __future__ import annotations

import dataclasses
import json
import time
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import numpy.typing as npt
import pytest

from app.cli import run_command
from gaze_capture.errors import UserError
from segmentation.grouping import (
    GroupSuggestion,
    apply_groups,
    contact_sheet,
    leaks,
    mend_splits,
    split_study,
    suggest_groups,
)
from segmentation.images import encode_display
from segmentation.importing import import_images
from segmentation.near_duplicates import Clusters, Evidence, _merged, cluster, fingerprint
from segmentation.phantoms import Kind, make_phantom
from segmentation.records import StudyImage
from segmentation.study import Study
from tests.pictures import read_display

Image = npt.NDArray[np.uint8]
SIDE = 256


def phantom(seed: int, kind: Kind = "polyp", side: int = SIDE) -> Image:
    image = make_phantom(seed, kind, side).image
    return np.repeat(image, 3, axis=2) if image.shape[2] == 1 else image


def framed(image: Image) -> Image:
    """Lay the black octagon, the black corner and the coloured inset of one endoscope over an image."""
    image = image.copy()
    side = len(image)
    cut = side // 4
    for corner in ([[0, 0], [cut, 0], [0, cut]], [[side, 0], [side - cut, 0], [side, cut]]):
        cv2.fillPoly(image, [np.array(corner, np.int32)], (0, 0, 0))
    image[side * 2 // 3 :, : side // 3] = 0
    image[side * 3 // 4 : side * 7 // 8, side // 16 : side // 4] = (20, 160, 130)
    return image


def warped(image: Image, matrix: npt.ArrayLike) -> Image:
    side = len(image)
    done = cv2.warpPerspective(image, np.asarray(matrix, float), (side, side), borderMode=cv2.BORDER_REFLECT)
    return np.asarray(done, np.uint8)


def rotated(image: Image) -> Image:
    middle = (len(image) / 2, len(image) / 2)
    return warped(image, np.vstack([cv2.getRotationMatrix2D(middle, 12, 1.1), [0, 0, 1]]))


def jpeg(image: Image, quality: int) -> Image:
    data = cv2.imencode(".jpg", image, [cv2.IMWRITE_JPEG_QUALITY, quality])[1]
    return np.asarray(cv2.imdecode(data, cv2.IMREAD_COLOR), np.uint8)


def brighter(image: Image) -> Image:
    return np.clip(255 * (image / 255.0) ** 0.7, 0, 255).astype(np.uint8)


ALTERED: dict[str, Callable[[Image], Image]] = {
    "same": np.copy,
    "jpeg": lambda image: jpeg(image, 35),
    "brighter": brighter,
    "smaller": lambda image: np.asarray(cv2.resize(image, (SIDE * 2 // 3,) * 2), np.uint8),
    "cropped": lambda image: image[SIDE // 8 :, : -SIDE // 8],
    "moved": lambda image: warped(image, [[1, 0, 25], [0, 1, -17], [0, 0, 1]]),
    "turned": rotated,
    "seen askance": lambda image: warped(image, [[1, 0.06, -9], [0.03, 0.95, 4], [2e-4, 1e-4, 1]]),
}


@pytest.mark.parametrize("kind", ["polyp", "lesion"])
def test_altered_copies_are_found_and_others_are_not(kind: Kind) -> None:
    original = phantom(3, kind)
    prints = [fingerprint(image) for image in (*(phantom(seed, kind) for seed in range(100, 108)), original)]
    for name, alter in ALTERED.items():
        assert cluster([*prints, fingerprint(alter(original))]).groups == ((8, 9),), name


def test_copies_behind_one_frame_are_found_and_the_frame_itself_is_not() -> None:
    images = [framed(phantom(seed)) for seed in range(26)]
    images += [framed(warped(phantom(7), [[1, 0, 14], [0, 1, 9], [0, 0, 1]])), framed(jpeg(phantom(20), 40))]
    assert cluster([fingerprint(image) for image in images]).groups == ((7, 26), (20, 27))


def test_images_without_structure_are_no_duplicates() -> None:
    flat = [np.full((64, 96, 3), value, np.uint8) for value in (0, 40, 90, 255)]
    assert cluster([fingerprint(image) for image in flat]) == Clusters((), ())
    assert cluster([]) == Clusters((), ())
    same = cluster([fingerprint(flat[1]), fingerprint(flat[1].copy())])
    assert [item.kind for item in same.evidence] == ["same pixels"]


def stamped(seed: int, *lines: str) -> Image:
    """Write lines over clouds that the seed draws."""
    rng = np.random.default_rng(seed)
    clouds = cv2.resize(rng.uniform(60, 160, (9, 9, 3)), (352, 352), interpolation=cv2.INTER_CUBIC)
    image: Image = np.clip(clouds + rng.normal(0, 3, clouds.shape), 0, 255).astype(np.uint8)
    for number, line in enumerate(lines):
        for place, letter in enumerate(line):
            cv2.putText(
                image,
                letter,
                (6 + 7 * place, 100 + 16 * number),
                cv2.FONT_HERSHEY_PLAIN,
                0.6,
                (235, 235, 235),
                1,
                cv2.LINE_AA,
            )
    return image


def test_one_minute_of_one_day_is_one_scene_and_one_day_is_not() -> None:
    rng = np.random.default_rng(0)
    images = []
    for seed in range(40):
        day, month, hour, minute, second, timer = rng.integers([1, 1, 7, 0, 0, 0], [29, 13, 17, 60, 60, 60])
        date, clock = f"{day:02}/{month:02}/2015", f"{hour:02}:{minute:02}:{second:02}"
        images.append(stamped(seed, "Name: Age:", date, clock, f"{timer:02}:{minute:02}:{second:02}"))
    images += [
        stamped(50, "Name: Age:", "30/08/2015", "14:14:47", "41:08:06"),
        stamped(51, "Name: Age:", "30/08/2015", "14:14:51", "41:08:10"),
        stamped(52, "Name: Age:", "30/08/2015", "09:57:20", "23:31:08"),
    ]
    found = cluster([fingerprint(image) for image in images])
    assert found.groups == ((40, 41),)
    assert [item.kind for item in found.evidence] == ["burned-in text"]


def test_time_alone_groups_nothing() -> None:
    prints = [fingerprint(phantom(seed)) for seed in range(6)]
    assert cluster(prints, [10.0, 11.0, 12.0, None, 13.0, 14.0]).groups == ()


def test_images_of_a_known_group_count_as_one() -> None:
    one = phantom(3)
    prints = [fingerprint(image) for image in (one, jpeg(one, 40), phantom(4), jpeg(one, 60))]
    assert cluster(prints, known=["a", "a", "b", "a"]).groups == ()
    assert cluster(prints, known=["a", "a", "b", "c"]).groups == ((0, 1, 3),)


def link(first: int, second: int, score: float = 13) -> Evidence:
    return Evidence(first, second, "local features", score)


def test_chains_of_single_modest_links_end() -> None:
    unit = np.arange(10)
    chain = [link(i, i + 1, 19 - i) for i in range(9)]
    assert max(map(len, _merged(chain, unit).groups)) <= 4
    assert len(_merged([link(i, i + 1, 30) for i in range(9)], unit).groups[0]) == 10
    halves = [link(0, 1, 30), link(1, 2, 30), link(5, 6, 30), link(6, 7, 30)]
    assert len(_merged([*halves, link(2, 5)], unit).groups) == 2
    joined = _merged([*halves, link(2, 5), link(1, 6)], unit)
    assert joined.groups == ((0, 1, 2, 5, 6, 7),)
    assert len(joined.evidence) == 6


# The study


def fill(study: Study, groups: dict[str, list[str]]) -> None:
    """Add records without files: for each group, the splits of its images."""
    study.add_images(
        StudyImage(f"{group}-{number}", "images/one.png", "", "", (8, 8, 3), split=split, group=group)
        for group, splits in groups.items()
        for number, split in enumerate(splits)
    )


def groups_of(study: Study) -> dict[str, str]:
    return {image.id: image.group for image in study.images.values()}


def test_groups_merge_through_the_ones_that_are_there(study: Study) -> None:
    fill(study, {"a": ["train"], "b": ["train"] * 3, "c": ["val"], "d": ["train"]})
    chosen = GroupSuggestion((("a-0", "b-1"), ("c-0", "b-2")), (), 6, ())
    assert apply_groups(study, chosen) == 2
    assert groups_of(study) == {
        "a-0": "b", "b-0": "b", "b-1": "b", "b-2": "b", "c-0": "b", "d-0": "d"
    }  # fmt: skip
    assert apply_groups(study, chosen) == 0
    assert [leak.splits for leak in leaks(study)] == [("train", "val")]
    assert mend_splits(study) == 1
    assert leaks(study) == []
    assert study.image("c-0").split == "train"


def test_images_without_a_group_are_apart_until_merged(study: Study) -> None:
    study.add_images(
        StudyImage(name, "images/one.png", "", "", (8, 8, 3), split=name) for name in ("x", "y", "z")
    )
    assert leaks(study) == []
    assert apply_groups(study, GroupSuggestion((("y", "x"),), (), 3, ())) == 2
    assert groups_of(study) == {"x": "x", "y": "x", "z": ""}


def test_mending_favours_test_and_then_the_majority(study: Study) -> None:
    fill(study, {"a": ["train", "train", "test"], "b": ["val", "train", "val"], "c": ["train", "val"]})
    assert mend_splits(study) == 4
    assert {image.id: image.split for image in study.images.values()} == {
        "a-0": "test", "a-1": "test", "a-2": "test", "b-0": "val", "b-1": "val", "b-2": "val",
        "c-0": "val", "c-1": "val",
    }  # fmt: skip
    assert mend_splits(study) == 0


def test_splitting_moves_whole_groups(study: Study) -> None:
    sizes = np.random.default_rng(1).integers(1, 6, 60)
    fill(study, {f"g{i}": ["train"] * int(n) for i, n in enumerate(sizes)} | {"leak": ["train", "test"]})
    total = int(sizes.sum()) + 1
    report = split_study(study, 0.2, "val", seed=4)
    assert abs(report.images - 0.2 * total) <= 1
    assert report.left == total - report.images == len(study.images_of("train"))
    assert [leak.group for leak in leaks(study)] == ["leak"]
    assert study.image("leak-0").split == "train"


def test_a_split_is_drawn_by_the_seed(tmp_path: Path) -> None:
    moved = []
    for number, seed in enumerate((1, 1, 2)):
        study = Study.create(tmp_path / str(number))
        fill(study, {f"g{i}": ["train"] for i in range(40)})
        split_study(study, 0.25, "val", seed)
        moved.append({image.id for image in study.images_of("val")})
    assert moved[0] == moved[1] != moved[2]


@pytest.mark.parametrize(("share", "name"), [(0, "val"), (1, "val"), (0.5, "train"), (0.5, " ")])
def test_impossible_splits_are_refused(study: Study, share: float, name: str) -> None:
    fill(study, {"a": ["train"], "b": ["train"]})
    with pytest.raises(UserError):
        split_study(study, share, name)


def test_one_group_is_not_torn(study: Study) -> None:
    fill(study, {"a": ["train"] * 5})
    with pytest.raises(UserError, match="No group"):
        split_study(study, 0.5, "val")


@pytest.fixture
def with_duplicates(study: Study, tmp_path: Path) -> Study:
    """Return a study with one scene three times, once in the split test, and four others."""
    for split, images in {
        "train": {"a": phantom(3), "b": rotated(phantom(3)), **{f"p{i}": phantom(i) for i in range(20, 24)}},
        "test": {"c": jpeg(phantom(3), 40)},
    }.items():
        folder = tmp_path / split
        folder.mkdir()
        for name, image in images.items():
            (folder / f"{name}.png").write_bytes(encode_display(image))
        import_images(study, [folder], split=split)
    return study


def test_suggesting_changes_nothing(with_duplicates: Study) -> None:
    before = groups_of(with_duplicates)
    calls: list[int] = []
    found = suggest_groups(with_duplicates, lambda done, total, label: calls.append(done))
    assert found.groups == (("a", "b", "c"),)
    assert {frozenset((item.first, item.second)) for item in found.links} >= {frozenset("ac")}
    assert (found.compared, found.failed) == (7, ())
    assert calls
    assert groups_of(with_duplicates) == before
    sheet = contact_sheet(with_duplicates, found.groups)
    assert sheet.shape[2] == 3 and sheet.std() > 20


def test_an_unreadable_image_is_named_and_the_rest_compared(with_duplicates: Study) -> None:
    with_duplicates.image_path(with_duplicates.image("p20")).write_bytes(b"no image")
    found = suggest_groups(with_duplicates)
    assert [name for name, _ in found.failed] == ["p20"]
    assert found.groups == (("a", "b", "c"),)


def test_patients_with_one_scene_in_common_become_one(with_duplicates: Study) -> None:
    study = with_duplicates
    study.add_images(
        dataclasses.replace(image, group="patient" if image.id in ("a", "b", "p20") else image.id)
        for image in list(study.images.values())
    )
    assert apply_groups(study, suggest_groups(study)) == 1
    assert {name for name, group in groups_of(study).items() if group == "patient"} == {"a", "b", "c", "p20"}


def test_the_commands(with_duplicates: Study, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder, sheet = str(with_duplicates.folder), tmp_path / "sheet.png"
    assert run_command(["suggest-groups", folder, "--sheet", str(sheet)]) == 0
    told = capsys.readouterr().out
    assert "a, b, c" in told and "Nothing was changed" in told
    assert read_display(sheet).shape[0] > 160
    assert run_command(["suggest-groups", folder, "--apply", "--mend-splits", "--json"]) == 0
    values = json.loads(capsys.readouterr().out)
    assert (values["changed"], values["moved"], values["leaks"]) == (2, 2, [])
    assert run_command(["split", folder, "--name", "val", "--share", "0.5", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["images"] == 2
    assert run_command(["split", folder, "--name", "val", "--share", "7"]) == 1
    assert "between 0 and 1" in capsys.readouterr().err


# Real images


def test_the_known_pair_among_real_images(shared_data: Path) -> None:
    folder = shared_data / "kvasir_seg"
    if not folder.is_dir():
        pytest.skip("the colonoscopy images are not at hand")
    begun = time.monotonic()
    files = [folder / f"train/images/tr_{number:03}.jpg" for number in range(380, 440)]
    files.append(folder / "validation/images/va_036.jpg")
    found = cluster([fingerprint(read_display(file)) for file in files])
    groups = [{files[index].stem for index in group} for group in found.groups]
    assert {"tr_406", "va_036"} in groups
    assert len(groups) == 1
    assert time.monotonic() - begun < 60
