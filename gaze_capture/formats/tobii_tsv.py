"""Tobii's tables of samples: exports of Pro Lab and of its forerunner Studio, and the dump of an SDK script.

Column names as in Tobii's "Pro Lab User Manual" (Data export) and "Studio User Manual" (Data export): one name without
the spaces and the unit is one column, whichever program and version wrote it: ``Gaze point left X``,
``Gaze point left X [DACS px]``, ``GazePointLeftX (ADCSpx)``. A picture's position is that of its left and top edge on
the screen, its size the one shown. The dump is the one that the I2MC toolbox came with.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Hashable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
import numpy.typing as npt

from gaze_capture.errors import MissingFact, UserError
from gaze_capture.formats.gaze_file import (
    NS_PER,
    Eye,
    GazeFile,
    Known,
    Message,
    OwnFixations,
    Shown,
    assembled,
    geometry_of,
    missing,
    no_samples,
)
from gaze_capture.formats.sample_clock import in_order, likely_unit
from gaze_capture.formats.sample_table import (
    SampleTable,
    cells_of,
    delimiter_of,
    first_lines,
    lines_of,
    read_samples,
    rows_of_one_recording,
    runs_of,
    taken,
)
from gaze_capture.formats.screen_plane import fitted_screen, screen_size_mm
from gaze_capture.recording import Floats

FORMAT = "tobii-tsv"

_SCREEN_PX = ("dacspx", "adcspx", "rcspx", "px", "")
"""Units of pixels on the screen; Pro Lab's early exports name none."""
_SCREEN_MM = ("dacsmm", "adcsmm", "rcsmm")
_TEXTS = {
    "media": ("presentedmedianame", "medianame", "presentedstimulusname"),
    "kind": ("eyemovementtype", "gazeeventtype"),
    "event": ("event", "studioevent"),
    "value": ("eventvalue", "studioeventdata"),
    "recording": ("recordingname",),
    "participant": ("participantname",),
    "sensor": ("sensor",),
    "resolution": ("recordingresolution",),
    "left_valid": ("validityleft",),
    "right_valid": ("validityright",),
}
_NUMBERS = {
    "tracker_time": (("eyetrackertimestamp",), ()),
    "width_px": (("recordingresolutionwidth",), ()),
    "height_px": (("recordingresolutionheight",), ()),
    "media_x": (("presentedmediapositionx", "mediaposx"), _SCREEN_PX),
    "media_y": (("presentedmediapositiony", "mediaposy"), _SCREEN_PX),
    "media_width": (("presentedmediawidth", "mediawidth"), ()),
    "media_height": (("presentedmediaheight", "mediaheight"), ()),
    "pupil_left": (("pupildiameterleft", "pupilleft"), ()),
    "pupil_right": (("pupildiameterright", "pupilright"), ()),
    "event_number": (("eyemovementtypeindex", "fixationindex"), ()),
    "event_ms": (("gazeeventduration",), ()),
    "fixation_x": (("fixationpointx",), _SCREEN_PX),
    "fixation_y": (("fixationpointy",), _SCREEN_PX),
    **{
        f"{eye}_{axis}": ((f"gazepoint{eye}{axis}",), _SCREEN_PX)
        for eye in ("left", "right")
        for axis in "xy"
    },
    "both_x": (("gazepointx",), _SCREEN_PX),
    "both_y": (("gazepointy",), _SCREEN_PX),
    "both_x_share": (("gazepointx",), ("mcsnorm",)),
    "both_y_share": (("gazepointy",), ("mcsnorm",)),
    **{
        f"{eye}_{axis}_mm": ((f"gazepoint{eye}{axis}",), _SCREEN_MM)
        for eye in ("left", "right")
        for axis in "xy"
    },
    **{f"{eye}_away_mm": ((f"eyeposition{eye}z", f"eyepos{eye}z"), _SCREEN_MM) for eye in ("left", "right")},
}
_EYES: tuple[Eye, ...] = ("left", "right")
_SDK_COLUMNS = ("RelTimestamp", "LGazePos2dx", "LGazePos2dy", "RGazePos2dx", "RGazePos2dy")


@dataclass(frozen=True)
class _Column:
    place: int
    key: str
    unit: str


def _columns(header: list[str]) -> list[_Column]:
    """Take the names of a header apart: without spaces and in small letters, the unit in brackets apart."""
    found = []
    for place, name in enumerate(header):
        name, unit = name.strip().lstrip("\ufeff"), ""
        if match := re.fullmatch(r"(.*?)\s*[\[(]([^\[\]()]*)[\])]", name):
            name, unit = match[1], match[2]
        squeezed = (re.sub(r"\s+", "", part).casefold() for part in (name, unit))
        found.append(_Column(place, *squeezed))
    return found


def _place(columns: list[_Column], keys: tuple[str, ...], units: tuple[str, ...]) -> int | None:
    """Return the column of the first key that is there, in the unit named first; any unit where none is named."""
    for key in keys:
        candidates = [column for column in columns if column.key == key]
        if not units and candidates:
            return candidates[0].place
        for unit in units:
            for column in candidates:
                if column.unit == unit:
                    return column.place
    return None


def _header(path: Path) -> tuple[list[str], str] | None:
    """Return the names of the first line and what separates them; None where it is no header of Tobii's."""
    line = next(iter(first_lines(path, 1)), "")
    delimiter = delimiter_of(line)
    names = [name.strip() for name in cells_of(line, delimiter)]
    keys = {column.key for column in _columns(names)}
    ours = "recordingtimestamp" in keys or set(_SDK_COLUMNS) <= set(names)
    return (names, delimiter) if ours else None


def sniff(path: Path) -> bool:
    """Return whether the first line names Tobii's columns."""
    return _header(path) is not None


def read(path: Path, known: Known) -> GazeFile:
    """Read an export; see :func:`gaze_capture.formats.reading.read_gaze_file`."""
    found = _header(path)
    if found is None:
        raise UserError(
            f"{path} is no table of Tobii's: its first line has no column 'Recording timestamp'. Export it again with "
            "that column, or name another --format."
        )
    names, delimiter = found
    lines = lines_of(path)
    next(lines)
    if set(_SDK_COLUMNS) <= set(names):
        return _read_sdk(path, known, names, lines, delimiter)
    return _read_export(path, known, _columns(names), lines, delimiter)


def _read_export(
    path: Path, known: Known, columns: list[_Column], lines: Iterator[str], delimiter: str
) -> GazeFile:
    numbers = {
        name: place
        for name, (keys, units) in _NUMBERS.items()
        if (place := _place(columns, keys, units)) is not None
    }
    texts = {name: place for name, keys in _TEXTS.items() if (place := _place(columns, keys, ())) is not None}
    clock = next(column for column in columns if column.key == "recordingtimestamp")
    eyes = _eyes(numbers)
    if eyes is None:
        if any(column.key.startswith(("gazepoint", "fixationpoint")) for column in columns):
            raise UserError(
                f"{path} gives gaze in a picture's or a camera's coordinates only; export 'Gaze point left/right X/Y' "
                "in pixels of the screen (DACS)."
            )
        raise UserError(
            f"{path} has no gaze samples: the columns 'Gaze point left/right X/Y' are missing; add them to the export."
        )
    table = read_samples(lines, delimiter, {"time": clock.place, **numbers}, texts)
    notes = list(table.notes)
    names = [
        " / ".join(part for part in pair if part)
        for pair in zip(table.text("participant"), table.text("recording"), strict=True)
    ]
    table = taken(table, rows_of_one_recording(path, known.stream, names))

    px = _resolution(table)
    time_ns = table.number("time") * _ns_per(path, known, clock.unit, table.number("time"), notes)
    samples = _are_samples(table)
    time_ns = _finer(table, time_ns, samples, clock.unit, notes)
    rows, words, _ = in_order(time_ns[samples])
    notes += words
    # From here on only what was kept: of a clock that was started anew, the parts share their times.
    samples[np.delete(np.flatnonzero(samples), rows)] = False
    eyes_px = [_eye_px(table, name) for name in ("left", "right")]
    if eyes == "combined":
        eyes_px = [table.pair("both_x", "both_y")] * 2
    _check_pixels(path, known, eyes_px)
    mm = distance = None
    if known.screen_mm is None and px:
        mm = screen_size_mm(
            [(table.pair(f"{eye}_x", f"{eye}_y") / px, table.pair(f"{eye}_x_mm", f"{eye}_y_mm"))
             for eye in ("left", "right")]
        )  # fmt: skip
        if mm:
            notes.append(
                f"The screen is {mm[0]:.0f} x {mm[1]:.0f} mm, by gaze given both in mm and in pixels."
            )
    away = np.concatenate([table.number("left_away_mm"), table.number("right_away_mm")])
    away = away[np.isfinite(away) & (away > 0)]
    if known.distance_mm is None and len(away):
        distance = float(np.median(away))
        notes.append(f"The eyes were {distance:.0f} mm from the screen, by the median of their positions.")
    geometry = geometry_of(path, known, px=px, mm=mm, distance_mm=distance)
    size = np.array([geometry.width_px, geometry.height_px])
    scale = size if known.coordinates == "normalised" else np.ones(2)
    return assembled(
        path,
        format=FORMAT,
        tracker="Tobii Studio file" if {"medianame", "gazeeventtype", "studioversionrec"} & {c.key for c in columns}
        else "Tobii Pro Lab file",
        time_ns=time_ns[samples],
        left=(eyes_px[0] * scale / size)[samples],
        right=(eyes_px[1] * scale / size)[samples],
        pupil_mm=table.pair("pupil_left", "pupil_right")[samples],
        geometry=geometry,
        known=known,
        eyes=eyes,
        shown=_shown(table, time_ns, samples, size, notes),
        own_fixations=_own_fixations(table, time_ns, eyes_px, samples),
        messages=_messages(table, time_ns),
        notes=notes,
    )  # fmt: skip


def _eyes(columns: Collection[str]) -> Eye | Literal["combined"] | None:
    """Return what there are positions of; None where there are none on the screen."""
    single: list[Eye] = [eye for eye in _EYES if {f"{eye}_x", f"{eye}_y"} <= set(columns)]
    if {"both_x", "both_y"} <= set(columns) and len(single) < 2:
        return "combined"
    return "both" if len(single) == 2 else single[0] if single else None


def _ns_per(path: Path, known: Known, unit: str, time: Floats, notes: list[str]) -> float:
    """Return nanoseconds a unit of the recording's time stamps."""
    if unit:
        name = {"ms": "ms", "μs": "us", "µs": "us", "us": "us", "s": "s", "ns": "ns"}.get(unit)
        for key, factor in NS_PER.items():
            if key == name:
                return factor
    if known.time_unit:
        return NS_PER[known.time_unit]
    if np.isfinite(time).sum() < 2:
        raise no_samples(path)
    likely = likely_unit(time)
    if likely is None:
        raise missing(path, "the unit of its times", "--time-unit s|ms|us|ns", ["time_unit"])
    notes.append(f"Times are in {likely}: in another unit the samples would come at no tracker's rate.")
    return NS_PER[likely]


def _are_samples(table: SampleTable) -> npt.NDArray[np.bool_]:
    """Return which rows (N,) are gaze samples and not events or other sensors' data."""
    sensors = table.text("sensor")
    if any(word.casefold() == "eye tracker" for word in sensors):
        return np.array([word.casefold() == "eye tracker" for word in sensors], dtype=np.bool_)
    if "left_valid" in table.texts and "right_valid" in table.texts:
        told = zip(table.text("left_valid"), table.text("right_valid"), strict=True)
        return np.array([bool(left or right) for left, right in told], dtype=np.bool_)
    if "tracker_time" in table.numbers:
        return np.isfinite(table.number("tracker_time"))
    # Rows of events repeat the time of a sample; those are sorted out by their time.
    return np.ones(table.rows, dtype=np.bool_)


def _finer(
    table: SampleTable, time_ns: Floats, samples: npt.NDArray[np.bool_], unit: str, notes: list[str]
) -> Floats:
    """Put the eye tracker's microseconds in the place of whole milliseconds, on the recording's clock."""
    whole_ms = np.isfinite(time_ns) & samples
    tracker = table.number("tracker_time") * 1e3
    if not (
        whole_ms.any()
        and unit in ("ms", "")
        and np.isfinite(tracker[samples]).all()
        and (np.mod(time_ns[whole_ms], 1e6) == 0).all()
    ):
        return time_ns
    behind = float(np.median(tracker[whole_ms] - time_ns[whole_ms]))
    shifted = tracker - behind
    # Only where both are one clock: a replaced or damaged column is not.
    if not (np.abs(shifted[whole_ms] - time_ns[whole_ms]) < 50e6).all():
        return time_ns
    notes.append("Times of samples are the eye tracker's own, which are finer than the recording's.")
    return np.where(samples, shifted, time_ns)


def _eye_px(table: SampleTable, eye: str) -> Floats:
    """Return an eye's positions (N, 2), NaN where the file calls them invalid."""
    xy = table.pair(f"{eye}_x", f"{eye}_y")
    words = table.text(f"{eye}_valid")
    if any(words):
        # Pro Lab says Valid or Invalid; Studio 0 (sure) to 4 (none), of which 0 and 1 are to be used.
        valid = np.array(
            [word.casefold() in ("valid", "0", "1", "0.0", "1.0") for word in words], dtype=np.bool_
        )
        xy = np.where(valid[:, np.newaxis], xy, np.nan)
    return xy


def _check_pixels(path: Path, known: Known, eyes: list[Floats]) -> None:
    everything = np.concatenate(eyes)
    everything = everything[np.isfinite(everything)]
    small = len(everything) > 0 and float(np.percentile(np.abs(everything), 99)) <= 2
    if small and known.coordinates is None:
        raise MissingFact(
            f"{path} gives gaze as pixels, yet all of it lies between -2 and 2; say what it is with "
            "--coordinates px|normalised.",
            ["coordinates"],
        )


def _resolution(table: SampleTable) -> tuple[int, int] | None:
    """Return the screen's pixels as the file tells them."""
    size = table.pair("width_px", "height_px")
    size = size[np.isfinite(size).all(axis=1) & (size > 0).all(axis=1)]
    if len(size):
        width, height = np.median(size, axis=0)
        return int(width), int(height)
    for word in dict.fromkeys(table.text("resolution")):
        if match := re.fullmatch(r"\s*(\d{2,5})\s*[xX×]\s*(\d{2,5})\s*", word):
            return int(match[1]), int(match[2])
    return None


def _shown(
    table: SampleTable, time_ns: Floats, samples: npt.NDArray[np.bool_], size: Floats, notes: list[str]
) -> list[Shown]:
    """Return the runs of samples that name one picture in one place."""
    placed = _pictures_are_where_told(table, size)
    if not placed:
        notes.append(
            "Where the file says its pictures were contradicts its screen or its gaze on them; it was left out."
        )
    names = table.text("media")
    rows = _in_time(time_ns, samples)
    parts = [table.number(f"media_{part}") for part in ("x", "y", "width", "height")]
    rects: list[tuple[float, float, float, float] | None] = [
        (x, y, width, height) if placed and np.isfinite([x, y]).all() and width > 0 and height > 0 else None
        for x, y, width, height in np.stack(parts, axis=1)[rows].tolist()
    ]
    keys: list[Hashable] = [(names[row], rect) for row, rect in zip(rows, rects, strict=True)]
    shown = []
    for start, stop in runs_of(keys):
        name = names[rows[start]]
        if name:
            end = rows[stop] if stop < len(rows) else rows[-1]
            shown.append(Shown(name, int(time_ns[rows[start]]), int(time_ns[end]), rects[start]))
    return shown


def _pictures_are_where_told(table: SampleTable, size: Floats) -> bool:
    """Whether pictures that begin at the place told lie on the screen, and gaze on them where the file says it is."""
    place, extent = table.pair("media_x", "media_y"), table.pair("media_width", "media_height")
    middle = place + extent / 2
    told = np.isfinite(middle).all(axis=1)
    if told.any() and float(((middle[told] < 0) | (middle[told] >= size)).any(axis=1).mean()) > 0.5:
        return False
    gaze = table.pair("both_x", "both_y")
    off = np.abs(place + table.pair("both_x_share", "both_y_share") * extent - gaze)
    off = off[np.isfinite(off).all(axis=1)]
    return len(off) == 0 or bool((np.median(off, axis=0) < 0.02 * size).all())


def _in_time(time_ns: Floats, samples: npt.NDArray[np.bool_]) -> list[int]:
    """Return the rows of samples in order of time."""
    rows = np.flatnonzero(samples)
    order: list[int] = rows[np.argsort(time_ns[rows], kind="stable")].tolist()
    return order


def _own_fixations(
    table: SampleTable, time_ns: Floats, eyes_px: list[Floats], samples: npt.NDArray[np.bool_]
) -> OwnFixations | None:
    """Return the runs of samples that the file calls one fixation, each as one."""
    rows = np.array(_in_time(time_ns, samples), dtype=np.int64)
    kinds = table.text("kind")
    numbers = np.nan_to_num(table.number("event_number"), nan=-1.0).tolist()
    lasted = table.number("event_ms")
    points = table.pair("fixation_x", "fixation_y")
    everything = np.stack(eyes_px)
    keys: list[Hashable] = [(kinds[row].casefold(), numbers[row]) for row in rows]
    found: list[tuple[float, float, float, float]] = []
    for start, stop in runs_of(keys):
        own = rows[start:stop]
        if kinds[own[0]].casefold() != "fixation":
            continue
        begin = float(time_ns[own[0]])
        end = float(time_ns[rows[min(stop, len(rows) - 1)]])
        told = lasted[own][lasted[own] > 0]
        place = points[own][np.isfinite(points[own]).all(axis=1)]
        if len(place) == 0:
            place = everything[:, own].reshape(-1, 2)
            place = place[np.isfinite(place).all(axis=1)]
        x, y = place.mean(axis=0).tolist() if len(place) else (np.nan, np.nan)
        found.append((begin / 1e6, float(told[0]) if len(told) else (end - begin) / 1e6, x, y))
    values = np.array(found).reshape(-1, 4)
    both: Eye = "both"
    return OwnFixations(values[:, 0], values[:, 1], values[:, 2:], (both,) * len(found))


def _messages(table: SampleTable, time_ns: Floats) -> list[Message]:
    pairs = zip(table.text("event"), table.text("value"), time_ns.tolist(), strict=True)
    return [
        Message(int(time), " ".join(part for part in (event, value) if part))
        for event, value, time in pairs
        if event and abs(time) < 9e18
    ]


def _read_sdk(path: Path, known: Known, names: list[str], lines: Iterator[str], delimiter: str) -> GazeFile:
    """Read the dump: normalised positions, times in ms since the start, all points also in mm before the tracker."""
    wanted = ["RelTimestamp", "LPupilDm", "RPupilDm", "LValidity", "RValidity"]
    wanted += [
        f"{eye}{kind}{axis}"
        for eye in "LR"
        for kind, axes in (("GazePos2d", "xy"), ("GazePos3d", "xyz"), ("EyePos3d", "xyz"))
        for axis in axes
    ]
    table = read_samples(lines, delimiter, {name: names.index(name) for name in wanted if name in names}, {})
    notes = list(table.notes)
    time = table.number("RelTimestamp")
    factor = _ns_per(path, known, "", time, notes)
    positions, fits = [], []
    for eye in "LR":
        xy = table.pair(f"{eye}GazePos2dx", f"{eye}GazePos2dy")
        if f"{eye}Validity" in table.numbers:
            with np.errstate(invalid="ignore"):
                xy = np.where((table.number(f"{eye}Validity") < 2)[:, np.newaxis], xy, np.nan)
        positions.append(xy)
        gaze, origin = (
            np.stack([table.number(f"{eye}{kind}{axis}") for axis in "xyz"], axis=1)
            for kind in ("GazePos3d", "EyePos3d")
        )
        fits.append((xy, gaze, origin))
    plane = fitted_screen(fits)
    if plane is not None:
        width, height, distance = plane
        notes.append(
            f"The screen is {width:.0f} x {height:.0f} mm and {distance:.0f} mm from the eyes, by gaze given both in "
            "mm and as a share of the screen."
        )
    return assembled(
        path,
        format=FORMAT,
        tracker="Tobii SDK file",
        time_ns=time * factor,
        left=positions[0],
        right=positions[1],
        pupil_mm=table.pair("LPupilDm", "RPupilDm"),
        geometry=geometry_of(path, known, mm=plane and plane[:2], distance_mm=plane and plane[2]),
        known=known,
        eyes="both",
        notes=notes,
    )
