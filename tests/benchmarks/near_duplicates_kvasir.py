"""Near-duplicates among the 900 colonoscopy images of Kvasir-SEG, which lie beside the checkout, never in it.

    python -m tests.benchmarks.near_duplicates_kvasir SHEET.png [COPIES]

Prints a table and draws the groups, so that a person can judge every one. With COPIES, that many altered copies of each
image are compared as well: how the time grows, and how many copies are found.
"""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import cv2
import numpy as np
import numpy.typing as npt

from segmentation.images import encode_display
from segmentation.near_duplicates import Clusters, Fingerprint, cluster, fingerprint
from tests.pictures import read_display

FOLDER = Path(__file__).resolve().parents[3] / "shared/data/kvasir_seg"
KNOWN = ("tr_406", "va_036")
SIDE_PX = 150

Image = npt.NDArray[np.uint8]


def main(arguments: Sequence[str]) -> None:
    """Print the table and write the sheet."""
    files = [*sorted(FOLDER.glob("train/images/*.jpg")), *sorted(FOLDER.glob("validation/images/*.jpg"))]
    if not files:
        raise SystemExit(f"{FOLDER} is not there: nothing was measured.")
    names = [file.stem for file in files]
    begun = time.monotonic()
    prints = _prints([(file, None) for file in files])
    read_s = time.monotonic() - begun
    begun = time.monotonic()
    found = cluster(prints)
    cluster_s = time.monotonic() - begun
    crossing = [group for group in found.groups if len({names[index][:2] for index in group}) > 1]
    known = {names.index(name) for name in KNOWN}
    rows = {
        "images": len(files),
        "groups": len(found.groups),
        "images in groups": sum(map(len, found.groups)),
        "largest group": max(map(len, found.groups), default=0),
        "groups in train and validation": len(crossing),
        "known pair found": any(known <= set(group) for group in found.groups),
        "reading and describing": f"{read_s:.1f} s",
        "comparing": f"{cluster_s:.1f} s",
    }
    for kind in dict.fromkeys(item.kind for item in found.evidence):
        rows[f"links by {kind}"] = sum(item.kind == kind for item in found.evidence)
    _print(rows)
    if arguments:
        Path(arguments[0]).write_bytes(encode_display(_sheet(files, found)))
    if len(arguments) > 1:
        _with_copies(files, prints, int(arguments[1]))


def _with_copies(files: Sequence[Path], prints: Sequence[Fingerprint], copies: int) -> None:
    begun = time.monotonic()
    more = _prints([(file, number) for number in range(copies) for file in files])
    read_s = time.monotonic() - begun
    begun = time.monotonic()
    found = cluster([*prints, *more])
    cluster_s = time.monotonic() - begun
    group = {index: number for number, members in enumerate(found.groups) for index in members}
    count = len(files)
    recalled = sum(
        group.get(index, -1) == group.get(index % count, -2) for index in range(count, count * (copies + 1))
    )
    _print(
        {
            "images with copies": count * (copies + 1),
            "copies found": f"{recalled} of {count * copies}",
            "groups with copies": len(found.groups),
            "largest group with copies": max(map(len, found.groups)),
            "describing copies": f"{read_s:.1f} s",
            "comparing with copies": f"{cluster_s:.1f} s",
        }
    )


def _print(rows: dict[str, object]) -> None:
    sys.stdout.writelines(f"{name:<32}{value}\n" for name, value in rows.items())
    sys.stdout.flush()


def _prints(items: Sequence[tuple[Path, int | None]]) -> list[Fingerprint]:
    def describe(item: tuple[Path, int | None]) -> Fingerprint:
        file, number = item
        pixels = read_display(file)
        return fingerprint(pixels if number is None else _altered(pixels, file.stem, number))

    with ThreadPoolExecutor(max_workers=os.cpu_count() or 1) as pool:
        return list(pool.map(describe, items))


def _altered(pixels: Image, name: str, number: int) -> Image:
    """Turn, move, scale, crop, brighten and re-encode an image, all at once."""
    rng = np.random.default_rng([*name.encode(), number])
    height, width = pixels.shape[:2]
    matrix = cv2.getRotationMatrix2D(
        (width / 2, height / 2), float(rng.uniform(-10, 10)), float(rng.uniform(0.85, 1.2))
    )
    matrix = matrix + np.column_stack([np.zeros((2, 2)), rng.uniform(-30, 30, 2)])
    moved = cv2.warpAffine(pixels, matrix, (width, height), borderMode=cv2.BORDER_CONSTANT)
    cut = int(rng.integers(0, width // 8))
    lit = 255 * (moved[cut:, cut:] / 255.0) ** rng.uniform(0.75, 1.3)
    data = cv2.imencode(".jpg", lit.astype(np.uint8), [cv2.IMWRITE_JPEG_QUALITY, int(rng.integers(40, 90))])[
        1
    ]
    return np.asarray(cv2.imdecode(data, cv2.IMREAD_COLOR), np.uint8)


def _sheet(files: Sequence[Path], found: Clusters) -> Image:
    """Draw the groups in three columns, with the evidence above each."""
    cells = []
    for group in found.groups:
        shown = [cv2.resize(read_display(files[index]), (SIDE_PX, SIDE_PX)) for index in group[:3]]
        shown += [np.zeros_like(shown[0])] * (3 - len(shown))
        cell = cv2.copyMakeBorder(np.hstack(shown), 32, 4, 4, 4, cv2.BORDER_CONSTANT)
        links = [f"{item.kind} {item.score:.3g}" for item in found.evidence if item.first in group]
        for line, text in enumerate((" ".join(files[index].stem for index in group), ", ".join(links[:3]))):
            cv2.putText(
                cell, text, (4, 12 + 14 * line), cv2.FONT_HERSHEY_SIMPLEX, 0.4, (255, 255, 0), 1, cv2.LINE_AA
            )
        cells.append(cell)
    while len(cells) % 3:
        cells.append(np.zeros_like(cells[0]))
    return np.asarray(np.vstack([np.hstack(cells[i : i + 3]) for i in range(0, len(cells), 3)]), np.uint8)


if __name__ == "__main__":
    main(sys.argv[1:])
