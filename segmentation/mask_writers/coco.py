"""Masks as COCO: exact run lengths, and polygons along the pixels' edges.

An annotation of a lesion is one connected part of its mask, of an organ or zone the whole mask: objects, none of them a
crowd. A polygon has no holes: what has some is given as run lengths in the file of polygons, too.
"""

from __future__ import annotations

import importlib.metadata
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt

from gaze_capture.storage import write_json_atomic
from segmentation.export_selection import simulated_words
from segmentation.mask_choice import image_names
from segmentation.mask_writers.book import MaskBook
from segmentation.records import StudyImage, Target, utc_now
from segmentation.study import Mask

RUNS, POLYGONS = "annotations.json", "annotations_polygons.json"


def write_coco(book: MaskBook) -> None:
    """Write ``annotations.json`` with run lengths and ``annotations_polygons.json`` with polygons."""
    selection = book.selection
    names = image_names(list(selection.study.images.values()))
    categories = {target.id: number for number, target in enumerate(selection.targets, 1)}
    images: dict[str, dict[str, Any]] = {}
    runs: list[dict[str, Any]] = []
    polygons: list[dict[str, Any]] = []
    for (image_id, target_id), chosen in selection.masks.items():
        mask = book.read(chosen)
        entry = images.setdefault(image_id, _image(len(images) + 1, chosen.image, names[image_id]))
        if not mask.any():
            # As in LVIS: looked for, and known not to be there.
            entry.setdefault("neg_category_ids", []).append(categories[target_id])
        ids = []
        for part in objects(mask, chosen.target):
            common = {
                "id": len(runs) + 1,
                "image_id": entry["id"],
                "category_id": categories[target_id],
                "iscrowd": 0,
                "area": int(part.sum()),
                "bbox": _box(part),
            }
            exact = run_lengths(part)
            runs.append({**common, "segmentation": exact})
            outlines, holes = outlines_of(part)
            polygons.append({**common, "segmentation": exact if holes else outlines})
            ids.append(common["id"])
        book.note(chosen, mask, RUNS, annotations=ids)
    shared = {
        "info": {
            "description": f"{selection.study.name}: {selection.choice.which} masks"
            + (f", {words}" if (words := simulated_words(selection.simulated_from)) else ""),
            "version": importlib.metadata.version("gaze-insight"),
            "date_created": utc_now(),
            "contributor": "Gaze Insight; research use only",
        },
        "licenses": [],
        "images": list(images.values()),
        "categories": [
            {
                "id": categories[target.id],
                "name": target.id,
                "title": target.name,
                "supercategory": target.kind,
            }
            for target in selection.targets
        ],
    }
    write_json_atomic(book.folder / RUNS, {**shared, "annotations": runs})
    write_json_atomic(book.folder / POLYGONS, {**shared, "annotations": polygons})
    book.about += [
        f"{RUNS}: compressed run lengths, exact. {POLYGONS}: the same as polygons along the pixels' edges, which give "
        "the same pixels back; parts with holes are run lengths there, too.",
        "An annotation of a lesion is one connected part; of an organ or zone it is the whole mask. None is a crowd.",
        "An image without annotation of a category that it lists in neg_category_ids was judged to hold none.",
    ]


def _image(number: int, image: StudyImage, name: str) -> dict[str, Any]:
    height, width, _ = image.shape
    ending = Path(image.path).suffix if image.volume else Path(image.source_name).suffix
    ending = ending if 0 < len(ending) <= 5 else Path(image.path).suffix
    return {"id": number, "file_name": f"{name}{ending}", "width": width, "height": height}


def objects(mask: Mask, target: Target) -> Iterator[Mask]:
    """Yield the objects of a mask (H, W): connected parts (corners touch) of a lesion, else all of it as one."""
    if not mask.any():
        return
    if target.kind != "lesion":
        yield mask
        return
    count, labels = cv2.connectedComponents(mask.astype(np.uint8), connectivity=8)
    for number in range(1, count):
        yield labels == number


def _box(mask: Mask) -> list[int]:
    """Return x, y, width and height of what is marked."""
    rows, columns = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
    return [
        int(columns[0]),
        int(rows[0]),
        int(columns[-1] - columns[0] + 1),
        int(rows[-1] - rows[0] + 1),
    ]


def run_lengths(mask: Mask) -> dict[str, Any]:
    """Return a mask as COCO's compressed run lengths, JSON-ready."""
    from pycocotools import mask as coco_mask

    height, width = mask.shape
    flat = mask.ravel(order="F")
    ends = np.concatenate([[0], np.flatnonzero(flat[1:] != flat[:-1]) + 1, [flat.size]])
    counts = np.diff(ends).tolist()
    # Runs begin with background.
    counts = [0, *counts] if flat[0] else counts
    packed = coco_mask.frPyObjects({"size": [height, width], "counts": counts}, height, width)
    return {"size": [height, width], "counts": packed["counts"].decode("ascii")}


def outlines_of(mask: Mask) -> tuple[list[list[int]], bool]:
    """Trace a mask along the edges of its pixels; return polygons x1, y1, x2, y2 ... and whether it has holes.

    Corners are whole numbers, pixel (x, y) reaching from there to (x + 1, y + 1). Pixels that touch at a corner alone
    come as polygons of their own.
    """
    polygons, holes = [], False
    for corners in _loops(mask):
        x, y = corners[:, 0], corners[:, 1]
        area = int((x * np.roll(y, -1) - np.roll(x, -1) * y).sum())
        if area < 0:
            holes = True
        else:
            polygons.append(corners.ravel().tolist())
    return polygons, holes


def _loops(mask: Mask) -> Iterator[npt.NDArray[np.int64]]:
    """Yield closed paths (N, 2) of corners x, y around what is marked, clockwise on the screen, holes the other way."""
    padded = np.pad(mask, 1)
    inside = padded[1:-1, 1:-1]
    # Each side of a pixel that has background beyond, as (start, step): along with the pixel on its right.
    sides: dict[tuple[int, int], list[tuple[int, int]]] = {}
    for beyond, offset, step in (
        (padded[:-2, 1:-1], (0, 0), (1, 0)),
        (padded[1:-1, 2:], (1, 0), (0, 1)),
        (padded[2:, 1:-1], (1, 1), (-1, 0)),
        (padded[1:-1, :-2], (0, 1), (0, -1)),
    ):
        rows, columns = np.nonzero(inside & ~beyond)
        for x, y in zip((columns + offset[0]).tolist(), (rows + offset[1]).tolist(), strict=True):
            sides.setdefault((x, y), []).append(step)
    while sides:
        start = next(iter(sides))
        place, step = start, sides[start][0]
        path = []
        while True:
            ways = sides[place]
            if len(ways) == 1:
                taken = ways.pop()
            else:
                # Where two pixels meet at a corner, turn right: stay with the same pixel.
                right = (-step[1], step[0])
                taken = right if right in ways else ways[0]
                ways.remove(taken)
            if not ways:
                del sides[place]
            if not path or taken != step:
                path.append(place)
            step = taken
            place = place[0] + step[0], place[1] + step[1]
            if place == start:
                break
        yield np.array(path, dtype=np.int64)
