"""COCO files: outlines and run lengths as masks; nonsense is told in a sentence before a decoder sees it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from pycocotools import mask as coco_mask

from gaze_capture.errors import UserError
from segmentation.readers.coco import read_coco

SQUARE = [2.0, 3.0, 8.0, 3.0, 8.0, 9.0, 2.0, 9.0]


def content(*segmentations: Any, category: int = 4) -> dict[str, Any]:
    return {
        "images": [{"id": 7, "file_name": "train\\case 1.tar.jpg", "height": 20, "width": 30}],
        "categories": [{"id": category, "name": "polyp"}, {"id": category + 1, "name": "tool"}],
        "annotations": [
            {"id": number, "image_id": 7, "category_id": category, "iscrowd": 0, "segmentation": shape}
            for number, shape in enumerate(segmentations)
        ],
    }


def written(path: Path, value: Any) -> Path:
    path.write_text(value if isinstance(value, str) else json.dumps(value))
    return path


def test_polygons_are_drawn_and_united(tmp_path: Path) -> None:
    other = [20.0, 10.0, 25.0, 10.0, 25.0, 15.0, 20.0, 15.0]
    (labels,) = read_coco(written(tmp_path / "a.json", content([SQUARE, other], [SQUARE])))
    assert (labels.name, labels.labels, labels.shape, labels.count) == (
        "case 1.tar",
        {4: "polyp"},
        (20, 30),
        1,
    )
    mask = labels.read(0, 4)
    expected = np.zeros((20, 30), bool)
    expected[3:9, 2:8] = expected[10:15, 20:25] = True
    np.testing.assert_array_equal(mask, expected)


@pytest.mark.parametrize("density", [0.02, 0.5, 0.99])
@pytest.mark.parametrize("compressed", [True, False])
def test_run_lengths_are_exact(tmp_path: Path, density: float, compressed: bool) -> None:
    mask = np.random.default_rng(0).random((20, 30)) < density
    runs = coco_mask.encode(np.asfortranarray(mask.astype(np.uint8)))
    if compressed:
        shape = {"size": [20, 30], "counts": runs["counts"].decode()}
    else:
        column_wise = mask.T.ravel()
        edges = np.flatnonzero(np.diff(np.concatenate([[False], column_wise])))
        counts = np.diff(np.concatenate([[0], edges, [column_wise.size]]))
        shape = {"size": [20, 30], "counts": counts.tolist()}
    (labels,) = read_coco(written(tmp_path / "a.json", content(shape)))
    np.testing.assert_array_equal(labels.read(0, 4), mask)


def test_category_0_is_no_background(tmp_path: Path) -> None:
    (labels,) = read_coco(written(tmp_path / "a.json", content([SQUARE], category=0)))
    assert labels.labels == {1: "polyp"}
    assert labels.read(0, 1).sum() == 36


def test_a_polygon_over_the_border_is_cut_there(tmp_path: Path) -> None:
    (labels,) = read_coco(written(tmp_path / "a.json", content([[-3, -3, 5, -3, 5, 5, -3, 5]])))
    assert labels.read(0, 4).sum() == 25


def missing(key: str) -> dict[str, Any]:
    value = content([SQUARE])
    del value[key]
    return value


def resized(height: Any, width: Any) -> dict[str, Any]:
    value = content([SQUARE])
    value["images"][0].update(height=height, width=width)
    return value


def changed(**fields: Any) -> dict[str, Any]:
    value = content([SQUARE])
    value["annotations"][0].update(fields)
    return value


@pytest.mark.parametrize(
    ("value", "message"),
    [
        ("", "empty"),
        ("{", "not valid JSON"),
        ("[" * 100_000, "not valid JSON"),
        ("[]", "no COCO file"),
        (missing("images"), "the list images is missing"),
        (missing("categories"), "the list categories is missing"),
        (missing("annotations"), "the list annotations is missing"),
        (resized(10**9, 10**9), "1000000000 x 1000000000 pixels"),
        (resized(-1, 5), "pixels"),
        (resized("x", 5), "entry 1 of images"),
        (changed(image_id=8), "refers to image 8"),
        (changed(category_id=9), "refers to category 9"),
        (changed(segmentation=None), "neither polygons nor run lengths"),
        (content([[1, 2, 3, 4]]), "three or more points"),
        (content([[1, 2, 3, 4, 5, "x"]]), "three or more points"),
        (content([[1, 2, 3, 4, 5, float("nan")]]), "no numbers"),
        (content([[1, 2, 3, 4, 5, 10**400]]), "no numbers"),
        (content([[100, 2, 110, 4, 105, 8]]), "outside its image"),
        (content([[1e9, 2, 3, 4, 5, 6]]), "outside its image"),
        (content({"size": [20, 31], "counts": [620]}), "another size"),
        (content({"size": [20, 30], "counts": [600, 10]}), "do not fill"),
        (content({"size": [20, 30], "counts": [-10, 610]}), "damaged run lengths"),
        (content({"size": [20, 30], "counts": "oooooooooooooooooo"}), "damaged run lengths"),
        (content({"size": [20, 30], "counts": "\u20ac"}), "damaged run lengths"),
        (content({"size": [20, 30]}), "damaged run lengths"),
    ],
)
def test_nonsense_is_told(tmp_path: Path, value: Any, message: str) -> None:
    with pytest.raises(UserError, match=message):
        read_coco(written(tmp_path / "a.json", value))
