"""What readers of every kind share: explained damage, names, exact packing of values."""

from __future__ import annotations

import contextlib
import gzip
import lzma
import re
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from gaze_capture.errors import UserError
from segmentation.stacks import Values

FLOAT32_MAX = float(np.finfo(np.float32).max)


@contextlib.contextmanager
def explained(path: Path) -> Iterator[None]:
    """Turn what streams raise over damage into a sentence that names the file."""
    try:
        yield
    except EOFError:
        raise UserError(
            f"{path} is cut short: it holds fewer values than its header declares; copy it again."
        ) from None
    except (gzip.BadGzipFile, zlib.error, lzma.LZMAError) as error:
        raise UserError(f"{path} is damaged: it cannot be decompressed ({error}); copy it again.") from None
    except OSError as error:
        raise UserError(f"{path} cannot be read: {error.strerror or error}.") from error


def stem_of(path: Path) -> str:
    """Return a file's name without its ending, also where that has two parts."""
    name = re.sub(r"\.gz$", "", path.name, flags=re.IGNORECASE)
    name = re.sub(r"\.(seg\.nrrd|nii|hdr|img|nrrd|nhdr|png|jpe?g|tiff?|bmp)$", "", name, flags=re.IGNORECASE)
    return name or path.name


def image_name_of(path: Path) -> str:
    """Return the name of the image that a label file is for: its own, less what such files add to it."""
    stem = stem_of(path)
    return re.sub(
        r"(?<=.)[-_. ](truth|seg|segmentation|mask|label|labels|gt)$", "", stem, flags=re.IGNORECASE
    )


@dataclass
class Range:
    """What is known of the values of a file."""

    low: float = np.inf
    high: float = -np.inf
    whole: bool = True
    bad: int = 0

    def take(self, values: npt.NDArray[Any]) -> None:
        """Add values to what is known."""
        if values.dtype.kind != "f":
            self.low = min(self.low, int(values.min()))
            self.high = max(self.high, int(values.max()))
            return
        with np.errstate(invalid="ignore"):
            # Damaged files hold signalling NaNs, which raise where others do not.
            finite = np.abs(values) <= FLOAT32_MAX
        if not finite.all():
            self.bad += int(values.size - np.count_nonzero(finite))
            values = values[finite]
        if values.size:
            self.low = min(self.low, float(values.min()))
            self.high = max(self.high, float(values.max()))
            self.whole = self.whole and bool((np.rint(values) == values).all())


def packed(values: npt.NDArray[Any], known: Range | None = None) -> tuple[Values, float, int]:
    """Bring values of any kind into uint8, uint16 or float32.

    Returns
    -------
    packed values, the offset by which they lie below the given ones, and how many were no (float32) numbers and
    became the lowest that is
    """
    kind, size = values.dtype.kind, values.dtype.itemsize
    if kind == "b":
        return values.astype(np.uint8), 0.0, 0
    if kind == "u" and size <= 2:
        return (values.astype(np.uint8) if size == 1 else values.astype(np.uint16)), 0.0, 0
    if kind == "i" and size == 1:
        return (values.astype(np.int16) + 128).astype(np.uint8), -128.0, 0
    if kind == "i" and size == 2:
        return (values.astype(np.int32) + 32768).astype(np.uint16), -32768.0, 0
    if known is None:
        known = Range()
        known.take(values)
    bad = 0
    low = known.low if np.isfinite(known.low) else 0
    if kind == "f":
        with np.errstate(invalid="ignore"):
            finite = np.abs(values) <= FLOAT32_MAX
        bad = int(values.size - np.count_nonzero(finite))
        if bad:
            values = np.where(finite, values, values.dtype.type(low))
    if known.whole and known.high - low <= 65535 and abs(low) < 2**53:
        return (values - values.dtype.type(low)).astype(np.uint16), float(low), bad
    return values.astype(np.float32), 0.0, bad


def not_numbers(bad: int) -> str:
    """Say how many values were replaced."""
    return f"{bad} values that were no numbers became the lowest value" if bad else ""
