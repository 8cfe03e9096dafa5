"""Masks in the folders that GazeMedSeg's public code reads: ``masks/`` and a list of names for each split."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import cv2
import numpy as np

from gaze_capture.storage import write_bytes_atomic
from segmentation.images import encode_mask
from segmentation.mask_choice import ChosenMask, image_names
from segmentation.mask_writers.book import MaskBook
from segmentation.records import safe_name
from segmentation.study import Mask


def write_gazemedseg_masks(book: MaskBook) -> None:
    """Write ``masks/<image>.png`` (``.jpg`` where the image is one) and ``<split>.txt``.

    Several targets have a folder each.
    Its readers take the ending of the image's own data set: Kvasir-SEG's masks are JPEG, NCI-ISBI's PNG.
    """
    selection = book.selection
    names = image_names(list(selection.study.images.values()))
    used = [target for target in selection.targets if any(key[1] == target.id for key in selection.masks)]
    for target in used:
        root = f"{target.id}/" if len(used) > 1 else ""
        lists: dict[str, list[str]] = {}
        for chosen in _of(book, target.id):
            mask = book.read(chosen)
            name = names[chosen.image.id]
            data, ending = _encoded(mask, chosen.image.source_name)
            file = f"{root}masks/{name}{ending}"
            write_bytes_atomic(book.folder / file, data)
            lists.setdefault(safe_name(chosen.image.split), []).append(name)
            book.note(chosen, mask, file)
        for split, listed in lists.items():
            text = "".join(f"{name}\n" for name in listed)
            write_bytes_atomic(book.folder / f"{root}{split}.txt", text.encode())
            spaced = sum(" " in name for name in listed)
            if spaced:
                book.notes.append(
                    f"{spaced} names in {root}{split}.txt hold a space, at which GazeMedSeg's reader would cut them."
                )
    book.about += [
        "masks/<image>: white is the target. <split>.txt lists the images without their ending.",
        "Put the images into a folder images/ beside masks/.",
    ]


def _of(book: MaskBook, target_id: str) -> Iterator[ChosenMask]:
    return (chosen for key, chosen in book.selection.masks.items() if key[1] == target_id)


def _encoded(mask: Mask, source_name: str) -> tuple[bytes, str]:
    if Path(source_name).suffix.lower() in (".jpg", ".jpeg"):
        ok, data = cv2.imencode(".jpg", mask.astype(np.uint8) * 255, [cv2.IMWRITE_JPEG_QUALITY, 100])
        again = cv2.imdecode(data, cv2.IMREAD_GRAYSCALE) if ok else None
        # At full quality a mask that is cut at half comes back as it was.
        if again is not None and np.array_equal(again > 127, mask):
            return data.tobytes(), ".jpg"
    return encode_mask(mask), ".png"
