"""What the columns of tables of gaze mean, and how Parquet files tell it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal, NamedTuple

from gaze_capture.errors import UserError


class Column(NamedTuple):
    """One column of a table, as the dictionary tells it."""

    name: str
    type: Literal["text", "integer", "float", "float32"]
    unit: str
    description: str


SAMPLE_COLUMNS = (
    Column("time_ns", "integer", "ns", "host's monotonic clock, as of placements; only differences mean something"),
    Column("device_time_ns", "integer", "ns", "the tracker's own clock"),
    Column("left_x", "float32", "share of the screen's width",
           "left eye's gaze, 0 = left edge, 1 = right edge, may lie outside; empty or NaN = invalid"),
    Column("left_y", "float32", "share of the screen's height",
           "left eye's gaze, 0 = top edge, 1 = bottom edge, may lie outside; empty or NaN = invalid"),
    Column("right_x", "float32", "share of the screen's width", "right eye's gaze, as left_x"),
    Column("right_y", "float32", "share of the screen's height", "right eye's gaze, as left_y"),
    Column("pupil_left", "float32", "mm", "diameter of the left pupil; empty or NaN = invalid"),
    Column("pupil_right", "float32", "mm", "diameter of the right pupil; empty or NaN = invalid"),
)  # fmt: skip
"""Those of :data:`~gaze_capture.recording.SAMPLE`."""


def pyarrow() -> Any:
    """Return the package that reads and writes Parquet, imported only where it is needed.

    Raises
    ------
    UserError
        If it is missing.
    """
    try:
        import pyarrow
        import pyarrow.parquet
    except ImportError:
        raise UserError(
            "Parquet needs the package pyarrow, which is missing here: pip install pyarrow"
        ) from None
    return pyarrow


def parquet_fields(layout: Sequence[Column]) -> list[Any]:
    """Return Arrow's fields of columns, with their unit and description as metadata."""
    arrow = pyarrow()
    types = {
        "text": arrow.string(),
        "integer": arrow.int64(),
        "float": arrow.float64(),
        "float32": arrow.float32(),
    }
    return [
        arrow.field(
            column.name, types[column.type], metadata={"unit": column.unit, "description": column.description}
        )
        for column in layout
    ]
