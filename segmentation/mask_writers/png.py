"""Masks as PNG: 0 and 255, named like the images, one folder a target."""

from __future__ import annotations

from gaze_capture.storage import write_bytes_atomic
from segmentation.images import encode_gray16, encode_mask
from segmentation.mask_choice import image_names
from segmentation.mask_writers.book import MaskBook

PROBABILITY = "-probability"
"""What the folder of a target's probabilities adds to the target's id."""


def write_png(book: MaskBook) -> None:
    """Write ``<target>/<image>.png``; probabilities, where asked for, as 16-bit PNG beside them."""
    selection = book.selection
    names = image_names(list(selection.study.images.values()))
    for (image_id, target_id), chosen in selection.masks.items():
        mask = book.read(chosen)
        file = f"{target_id}/{names[image_id]}.png"
        write_bytes_atomic(book.folder / file, encode_mask(mask))
        book.note(chosen, mask, file)
        if book.with_probability and (probability := selection.probability(chosen)) is not None:
            other = book.folder / f"{target_id}{PROBABILITY}" / f"{names[image_id]}.png"
            write_bytes_atomic(other, encode_gray16(probability))
    book.about.append("<target>/<image>.png: 0 is background, 255 the target; named like the image.")
    if book.with_probability:
        book.about.append(
            f"<target>{PROBABILITY}/<image>.png: the student's probability, 16 bits, 65535 stands for 1."
        )
