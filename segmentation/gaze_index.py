"""The gaze of a study, known from the headers of its tables; rows are read when an image's fixations are asked for."""

from __future__ import annotations

import contextlib
import os
import threading
from collections import OrderedDict
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Literal

from gaze_capture.fixation_table import Look, read_fixation_table, read_looks
from gaze_capture.fixations import Fixations
from segmentation.records import Key

Stamp = tuple[int, int, int]
Table = dict[Key, list[Fixations]]

LookQuality = Literal["ok", "brief", "few"]
"""What an image's gaze is worth: `brief` where it was looked at too shortly, `few` where few fixations lie in it."""

BRIEF_MS = 1500.0
FEW_INSIDE = 3
FEW_SHARE = 0.5

READERS = 8
ROWS_KEPT = 300_000
"""Fixations held in memory, some 30 MB; the table used last is always held."""


def stamps_of(paths: Sequence[Path]) -> dict[Path, Stamp]:
    """Return what tells a file from a later one of the same name; a file that has gone meanwhile is left out."""
    found = {}
    for path in paths:
        with contextlib.suppress(FileNotFoundError):
            status = os.stat(path)
            found[path] = (status.st_mtime_ns, status.st_size, status.st_ino)
    return found


class GazeIndex(Mapping[Key, list[Fixations]]):
    """All fixations by (image id, target id); free viewing counts for every target. Safe to read in threads.

    Parameters
    ----------
    stamps : the tables, in order, as they are now
    every_target : ids that free viewing counts for
    earlier : an index of the same study whose tables need not be read again where they are the same

    Raises
    ------
    UserError
        If a table's header is missing, damaged or of a newer version.
    """

    def __init__(
        self, stamps: Mapping[Path, Stamp], every_target: Sequence[str], earlier: GazeIndex | None = None
    ) -> None:
        self.stamps = dict(stamps)
        self.looks: dict[Key, list[Look]] = {}
        """What the headers say, in the order of the tables."""
        self._every_target = tuple(every_target)
        self._headers: dict[Path, list[Look]] = {}
        self._paths: dict[Key, list[Path]] = {}
        self._lock = threading.Lock()
        self._tables: OrderedDict[Path, tuple[Table, int]] = OrderedDict()
        if earlier is not None:
            same = [path for path, stamp in self.stamps.items() if earlier.stamps.get(path) == stamp]
            self._headers.update((path, earlier._headers[path]) for path in same)
        due = [path for path in self.stamps if path not in self._headers]
        with ThreadPoolExecutor(max_workers=READERS if len(due) > READERS else 1) as pool:
            # A share answers several questions in the time of one.
            self._headers.update(zip(due, pool.map(read_looks, due), strict=True))
        for path in self.stamps:
            for look in self._headers[path]:
                for key in self._keys(look):
                    self.looks.setdefault(key, []).append(look)
                    paths = self._paths.setdefault(key, [])
                    if not paths or paths[-1] is not path:
                        paths.append(path)

    def _keys(self, item: Look | Fixations) -> list[Key]:
        return [
            (item.image_id, name) for name in ([item.target_id] if item.target_id else self._every_target)
        ]

    def each_look(self) -> Iterator[Look]:
        """Yield every look once, also where it counts for several targets."""
        for looks in self._headers.values():
            yield from looks

    def each(self) -> Iterator[Fixations]:
        """Yield the fixations of every look once, also where they count for several targets."""
        for path in self.stamps:
            seen: set[int] = set()
            for group in self._table(path).values():
                for item in group:
                    if id(item) not in seen:
                        seen.add(id(item))
                        yield item

    def __getitem__(self, key: Key) -> list[Fixations]:
        return [item for path in self._paths[key] for item in self._table(path).get(key, ())]

    def __contains__(self, key: object) -> bool:
        return key in self._paths

    def __iter__(self) -> Iterator[Key]:
        return iter(self._paths)

    def __len__(self) -> int:
        return len(self._paths)

    def _table(self, path: Path) -> Table:
        with self._lock:
            if path in self._tables:
                self._tables.move_to_end(path)
                return self._tables[path][0]
            table: Table = {}
            rows = 0
            for item in read_fixation_table(path):
                for key in self._keys(item):
                    table.setdefault(key, []).append(item)
                rows += len(item.duration_ms)
            self._tables[path] = (table, rows)
            while len(self._tables) > 1 and sum(count for _, count in self._tables.values()) > ROWS_KEPT:
                self._tables.popitem(last=False)
            return table


def look_quality(looks: Sequence[Look]) -> LookQuality | None:
    """Judge an image's gaze by the headers alone, all looks together; None where there is none."""
    if not looks:
        return None
    if sum(look.viewing_ms for look in looks) < BRIEF_MS:
        return "brief"
    inside, count = sum(look.inside for look in looks), sum(look.fixations for look in looks)
    return "few" if inside < FEW_INSIDE or inside < FEW_SHARE * count else "ok"
