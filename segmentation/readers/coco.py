"""Masks in COCO's JSON: polygons, run lengths and crowds, by the names of their categories."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from pathlib import Path, PureWindowsPath
from typing import Any, TypeVar

import numpy as np
import numpy.typing as npt
from pycocotools import mask as coco_mask

from gaze_capture.errors import UserError
from segmentation.images import MAX_PIXELS
from segmentation.readers.shared import explained
from segmentation.stacks import LabelMap

MAX_FILE_BYTES = 1 << 28
"""A larger file is refused before it is parsed: 256 MiB, several GB as objects."""
_MAX_SIDE = 1 << 16
_MAX_POINTS = 1 << 20
# Annotators drag outlines over the border; further out, they belong to another image.
_BEYOND = 0.5

_Item = TypeVar("_Item")


def read_coco(path: Path) -> list[LabelMap]:
    """Read a COCO file: a label map for every image that has annotations, named by the image's file name.

    Labels are the ids of the categories, all raised alike where one is below 1. A crowd is a mask like others;
    annotations of one category are united.

    Raises
    ------
    UserError
        If the file is no JSON, lacks a key, or holds sizes, outlines or references that cannot be.
    """
    path = Path(path)
    content = _parsed(path)
    categories = _by_id(path, content, "categories", lambda item: str(item["name"]))
    images = _by_id(path, content, "images", lambda item: _image(path, item))
    raised = max(0, 1 - min(categories, default=1))
    found: dict[int, dict[int, list[Any]]] = {}
    for number, annotation in enumerate(_list(path, content, "annotations")):
        try:
            image, category = int(annotation["image_id"]), int(annotation["category_id"])
            shape = annotation["segmentation"]
        except (KeyError, TypeError, ValueError, OverflowError):
            raise UserError(
                f"{path}: annotation {number + 1} lacks image_id, category_id or segmentation; export it again."
            ) from None
        if image not in images or category not in categories:
            missing = f"image {image}" if image not in images else f"category {category}"
            raise UserError(f"{path}: annotation {number + 1} refers to {missing}, which is not listed.")
        _, height, width = images[image]
        where = f"{path}: annotation {number + 1}"
        found.setdefault(image, {}).setdefault(category + raised, []).extend(
            _shapes(where, shape, height, width)
        )
    names = {number + raised: name for number, name in categories.items()}
    return [_label_map(path, images[image], shapes, names) for image, shapes in found.items()]


def _label_map(
    path: Path, image: tuple[str, int, int], shapes: dict[int, list[Any]], names: dict[int, str]
) -> LabelMap:
    name, height, width = image

    def read(plane: int, label: int) -> npt.NDArray[np.bool_]:
        if plane != 0:
            raise IndexError(plane)
        mask = np.zeros((height, width), np.bool_)
        for shape in shapes[label]:
            mask |= _drawn(path, shape, height, width)
        return mask

    return LabelMap(
        name=name,
        files=(path,),
        labels={label: names[label] for label in sorted(shapes)},
        shape=(height, width),
        count=1,
        read=read,
    )


def _parsed(path: Path) -> dict[str, Any]:
    with explained(path):
        size = path.stat().st_size
        if size > MAX_FILE_BYTES:
            raise UserError(f"{path} is too large ({size >> 20} MiB); split it into files below 256 MiB.")
        data = path.read_bytes()
    if not data:
        raise UserError(f"{path} is empty (0 bytes).")
    try:
        content = json.loads(data)
    except (ValueError, RecursionError) as error:
        raise UserError(f"{path} is not valid JSON ({str(error)[:120]}); export it again.") from None
    if not isinstance(content, dict):
        raise UserError(f"{path} is no COCO file: it is a list of results or another kind of JSON.")
    return content


def _list(path: Path, content: dict[str, Any], key: str) -> list[Any]:
    value = content.get(key)
    if not isinstance(value, list):
        raise UserError(f"{path} is no COCO file: the list {key} is missing.")
    return value


def _by_id(
    path: Path, content: dict[str, Any], key: str, make: Callable[[dict[str, Any]], _Item]
) -> dict[int, _Item]:
    items = {}
    for number, item in enumerate(_list(path, content, key)):
        try:
            identity = int(item["id"])
            if not -(2**31) <= identity < 2**31 - 1:
                raise ValueError
            items[identity] = make(item)
        except (KeyError, TypeError, ValueError, OverflowError):
            raise UserError(
                f"{path}: entry {number + 1} of {key} lacks a field or holds a wrong one."
            ) from None
    return items


def _image(path: Path, item: dict[str, Any]) -> tuple[str, int, int]:
    # Exports made on Windows separate folders their way.
    name = PureWindowsPath(str(item["file_name"])).stem
    height, width = int(item["height"]), int(item["width"])
    if not (0 < height <= _MAX_SIDE and 0 < width <= _MAX_SIDE and height * width <= MAX_PIXELS):
        raise UserError(
            f"{path}: the image {name} is said to have {width} x {height} pixels; correct its size."
        )
    return name, height, width


def _shapes(where: str, shape: Any, height: int, width: int) -> list[Any]:
    """Check the outlines of one annotation before a decoder written in C sees them."""
    if isinstance(shape, dict):
        size, counts = shape.get("size"), shape.get("counts")
        if size != [height, width]:
            raise UserError(f"{where} has run lengths for another size than its image's {height} x {width}.")
        if isinstance(counts, str):
            counts = _runs(where, counts)
        if not isinstance(counts, list) or not all(type(run) is int and run >= 0 for run in counts):
            raise UserError(f"{where} has damaged run lengths; export it again.")
        if sum(counts) != height * width:
            raise UserError(f"{where} has run lengths that do not fill its image; export it again.")
        return [np.array(counts, dtype=np.int64)]
    if not isinstance(shape, list):
        raise UserError(f"{where} has a segmentation that is neither polygons nor run lengths.")
    return [_polygon(where, outline, height, width) for outline in shape]


def _polygon(where: str, outline: Any, height: int, width: int) -> list[float]:
    numbers = isinstance(outline, list) and all(type(value) in (int, float) for value in outline)
    if not numbers or len(outline) < 6 or len(outline) % 2 or len(outline) > _MAX_POINTS:
        raise UserError(f"{where} has a polygon that is no list of three or more points x, y.")
    try:
        points = [float(value) for value in outline]
    except OverflowError:
        points = [math.inf]
    if not all(map(math.isfinite, points)):
        raise UserError(f"{where} has a polygon with points that are no numbers.")
    for values, side in ((points[::2], width), (points[1::2], height)):
        low, high = min(values), max(values)
        far = low < -_BEYOND * side or high > (1 + _BEYOND) * side
        if far or high < 0 or low > side:
            raise UserError(f"{where} has a polygon outside its image of {width} x {height} pixels.")
    return points


def _runs(where: str, text: str) -> list[int]:
    """Decode COCO's compressed run lengths: 5 bits a character, later runs as differences."""
    counts: list[int] = []
    at = 0
    while at < len(text):
        value = shift = 0
        while True:
            code = ord(text[at]) - 48 if at < len(text) else -1
            if not 0 <= code < 64 or shift > 35:
                raise UserError(f"{where} has damaged run lengths; export it again.")
            at += 1
            value |= (code & 31) << shift
            shift += 5
            if not code & 32:
                break
        if code & 16:
            value -= 1 << shift
        counts.append(value + counts[-2] if len(counts) > 2 else value)
    return counts


def _drawn(path: Path, shape: Any, height: int, width: int) -> npt.NDArray[np.bool_]:
    if isinstance(shape, list):
        (runs,) = coco_mask.frPyObjects([shape], height, width)
        # The library's own decoder warns with NumPy 2, and its runs are no different.
        shape = np.array(_runs(str(path), runs["counts"].decode("ascii")), dtype=np.int64)
    values = np.arange(len(shape)) % 2 == 1
    # Runs go down the columns.
    return np.repeat(values, shape).reshape(width, height).T
