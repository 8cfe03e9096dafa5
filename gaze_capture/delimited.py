"""Tables of text that other programs wrote: comma, semicolon or tab, any line ending, with or without a BOM."""

from __future__ import annotations

import csv
import io
import math
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

from gaze_capture.errors import UserError
from gaze_capture.storage import explained_os_errors


class Cell(NamedTuple):
    """One cell of a table, which can say where it stands."""

    path: Path
    line: int
    column: str
    text: str

    def number(self) -> float:
        """Return the cell's value; NaN where it is empty or says so.

        Raises
        ------
        UserError
            If it is neither empty nor a finite number; names the file, line and column.
        """
        if not self.text:
            return math.nan
        try:
            value = float(self.text)
        except ValueError:
            value = math.inf
        if math.isinf(value):
            raise self.wrong(f"{self.text!r} is not a number")
        return value

    def wrong(self, what: str) -> UserError:
        """Return an error that names the file, line and column."""
        return UserError(f"{self.path}, line {self.line}, column {self.column}: {what}.")


def read_delimited(
    path: Path, required: Sequence[str], optional: Sequence[str] = ()
) -> Iterator[list[Cell | None]]:
    """Yield the cells of every row that is not blank, in the order asked for; None for an absent optional column.

    Raises
    ------
    UserError
        If the file is unreadable, a required column is missing, or a row is too short; names the line.
    """
    with explained_os_errors(path):
        data = path.read_bytes()
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise UserError(f"{path} is not a table in UTF-8 ({error.reason} at byte {error.start}).") from None
    first_line = text[: text.find("\n")] if "\n" in text else text
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=max(",;\t", key=first_line.count))
    header = [name.strip() for name in next(reader, [])]
    for name in required:
        if name not in header:
            found = ", ".join(name for name in header if name) or "nothing"
            raise UserError(f"{path}, line 1: the column {name} is missing (found: {found}).")
    names = [*required, *optional]
    places = [header.index(name) if name in header else None for name in names]
    longest = max(place for place in places if place is not None)
    try:
        for row in reader:
            if not any(map(str.strip, row)):
                continue
            line = reader.line_num
            if longest >= len(row):
                raise UserError(f"{path}, line {line}: {len(row)} cells instead of {len(header)}.")
            yield [
                None if place is None else Cell(path, line, name, row[place].strip())
                for name, place in zip(names, places, strict=True)
            ]
    except csv.Error as error:
        raise UserError(f"{path}, line {reader.line_num}: {error}.") from None
