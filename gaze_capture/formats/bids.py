"""Reading eye tracking of BIDS 1.11 (BEP020): the eyes' samples, fixations, and what was shown.

A recording is asked for by one of its ``_physio.tsv.gz`` files, or by the data set's folder where it holds only one.
Metadata are inherited as BIDS says: from every JSON file above whose name says nothing else.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import numpy as np

from gaze_capture.errors import MissingFact, UserError
from gaze_capture.formats.bids_files import (
    ENDING,
    are_names,
    column_unit,
    events_of,
    eye_files,
    inherited,
    is_eyetrack,
    lines_of,
    one_recording,
    recordings,
    rows_of,
    value_of,
)
from gaze_capture.formats.bids_screen import (
    DEGREES,
    MILLIMETRES,
    PIXELS,
    BidsScreen,
    normalised,
    origin_of,
    screen_of,
)
from gaze_capture.formats.gaze_file import GazeFile, Known, Message, OwnFixations, Shown
from gaze_capture.recording import Floats, Samples, ScreenGeometry, pack_samples

__all__ = ["BidsFixations", "BidsGaze", "BidsScreen", "BidsShown", "read", "read_bids", "recordings", "sniff"]

REQUIRED = ("timestamp", "x_coordinate", "y_coordinate")

_SECONDS = {
    "s": 1.0, "sec": 1.0, "second": 1.0, "seconds": 1.0,
    "ms": 1e-3, "millisecond": 1e-3, "milliseconds": 1e-3,
    "us": 1e-6, "µs": 1e-6, "μs": 1e-6, "microsecond": 1e-6, "microseconds": 1e-6,
    "ns": 1e-9, "nanosecond": 1e-9, "nanoseconds": 1e-9,
}  # fmt: skip
_FARTHEST_SCREENS = 100.0
_LONGEST_S = 1e9
_CLOCK_TOLERANCE = 3.0
"""Samples may come this much slower or faster than the sampling frequency says."""


Eye = Literal["left", "right", "both"]


@dataclass(frozen=True)
class BidsShown:
    """An image that was shown; times on the clock of the samples' ``time_ns``."""

    name: str
    start_ns: int
    end_ns: int
    rect_px: tuple[float, float, float, float] | None
    """Left, top, width and height of the image on the screen, in pixels; None where the file does not tell."""


@dataclass(frozen=True)
class BidsFixations:
    """The fixations (F) that the files themselves hold."""

    start_ms: Floats
    """(F,) since the first sample."""
    duration_ms: Floats
    xy_px: Floats
    """(F, 2) on the screen; of those without a position, the mean of the samples; NaN where there are none."""
    eye: tuple[Eye, ...]
    """(F,) which the fixation was found in."""


@dataclass(frozen=True)
class BidsGaze:
    """One recording."""

    tracker: str
    samples: Samples
    screen: BidsScreen
    geometry: ScreenGeometry
    rate_hz: float
    shown: tuple[BidsShown, ...]
    fixations: BidsFixations | None
    messages: tuple[tuple[int, str], ...]
    """Time in ns, as of the samples, and words of the tracker."""
    simulated_from: str | None
    notes: tuple[str, ...]


def sniff(path: Path) -> bool:
    """Return whether a path looks like eye tracking of BIDS: a physio file of its name, or a data set's folder."""
    if path.is_dir():
        return (path / "dataset_description.json").is_file() and bool(recordings(path))
    return path.name.endswith(ENDING) and path.is_file() and is_eyetrack(path)


def read_bids(
    path: Path,
    known: BidsScreen | None = None,
    *,
    time_unit: str | None = None,
    coordinates: Literal["px", "normalised"] | None = None,
    eye: Eye | None = None,
    recording: str | None = None,
) -> BidsGaze:
    """Read one recording: all its eyes, its fixations, and what was shown.

    Parameters
    ----------
    path : a ``_physio.tsv.gz`` file, or a folder with one recording
    known : of the screen; goes before what the files say
    time_unit : s, ms, us or ns, where the files do not give the unit of ``timestamp``
    coordinates : what positions are, where the files do not give their unit
    eye : the one eye to read of two
    recording : which of several in a folder, like ``sub-01_task-view_run-01``

    Raises
    ------
    UserError
        If something is missing without which positions or times would be a guess, or a file is damaged.
    """
    path = one_recording(path, recording)
    notes: list[str] = []
    files = eye_files(path)
    if eye in ("left", "right"):
        one = [file for file in files if inherited(file).get("RecordedEye") == eye]
        if not one:
            raise UserError(f"{path} belongs to a recording without the {eye} eye; leave --eye away.")
        files = one
    eyes = [_read_eye(file, time_unit, coordinates) for file in files]
    events_path, events_meta = events_of(path)
    screen = screen_of(path, events_meta, known or BidsScreen())
    geometry = screen.geometry()
    if geometry is None:
        absent = [
            (word, fact)
            for word, fact, value in (
                ("resolution", "screen_px", screen.size_px),
                ("size", "screen_mm", screen.size_mm),
                ("distance", "distance_mm", screen.distance_mm),
            )
            if value is None
        ]
        raise MissingFact(
            f"{path}: the screen's {' and '.join(word for word, _ in absent)} are not in StimulusPresentation of its "
            "events.json; say them with --screen-px WxH --screen-mm WxH --distance-mm D.",
            [fact for _, fact in absent],
        )
    origin = origin_of(path, events_meta)
    if origin[0] == "center":
        notes.append(
            "Positions begin in the screen's centre; y was taken to grow downwards, as BIDS does not say."
        )
    rates = {eye.rate_hz for eye in eyes}
    if len(rates) > 1:
        raise MissingFact(
            f"{path}: its eyes were sampled at different rates; choose one with --eye.",
            ["eye"],
            ["left", "right"],
        )
    samples = _joined(path, eyes, geometry, origin, notes)
    first_s = float(eyes[0].time_s[0]) if len(eyes[0].time_s) else 0.0
    clock = _Clock(first_s, eyes[0].start_s)
    shown = _shown(events_path, events_meta, clock, samples, notes) if events_path else ()
    fixations, messages = _physioevents(files, eyes, clock, samples, geometry, origin, notes)
    return BidsGaze(
        tracker=str(
            eyes[0].meta.get("ManufacturersModelName") or eyes[0].meta.get("Manufacturer") or "unknown"
        ),
        samples=samples,
        screen=screen,
        geometry=geometry,
        rate_hz=eyes[0].rate_hz,
        shown=shown,
        fixations=fixations,
        messages=messages,
        simulated_from=_simulated(eyes[0].meta),
        notes=tuple(notes),
    )


def _simulated(meta: Mapping[str, Any]) -> str | None:
    value = meta.get("SimulatedFrom")
    return value if value in ("masks", "saliency") else None


# Samples


@dataclass(frozen=True)
class _Eye:
    path: Path
    meta: dict[str, Any]
    which: str
    rate_hz: float
    start_s: float
    time_s: Floats
    """(N,) as in the file, in seconds."""
    seconds: float
    """One unit of the file's time stamps."""
    xy: Floats
    """(N, 2) as in the file."""
    unit: str
    device_s: Floats | None
    """(N,) the tracker's own clock, in a column beside."""
    pupil_mm: Floats
    pupil_unit: str | None
    """What the file gives the pupil in where that is no length."""


def _read_eye(path: Path, time_unit: str | None, coordinates: str | None) -> _Eye:
    meta = inherited(path)
    columns = meta.get("Columns")
    if not are_names(columns):
        raise UserError(f"{path}: its sidecar names no Columns, and the file has no header; add them.")
    for name in REQUIRED:
        if name not in columns:
            raise UserError(f"{path}: its Columns lack {name!r}, without which its samples mean nothing.")
    rate = meta.get("SamplingFrequency")
    if not isinstance(rate, int | float) or not 0 < rate < 1e5:
        raise UserError(f"{path}: its sidecar gives no SamplingFrequency in Hz; add it.")
    system = meta.get("SampleCoordinateSystem")
    if system != "gaze-on-screen":
        raise UserError(
            f"{path}: its SampleCoordinateSystem is {system!r}; only gaze-on-screen can be put on an image."
        )
    which = meta.get("RecordedEye")
    if which not in ("left", "right", "cyclopean"):
        raise UserError(f"{path}: its RecordedEye is {which!r}, not left, right or cyclopean; correct it.")
    unit = _unit(path, meta, coordinates)
    table = rows_of(path, len(columns))
    seconds = _seconds(path, meta, time_unit)
    time_s = table[:, columns.index("timestamp")] * seconds
    if not np.isfinite(time_s).all() or (np.diff(time_s) < 0).any():
        raise UserError(f"{path}: its timestamps are missing somewhere, or go backwards.")
    if len(time_s) and time_s[-1] - time_s[0] > _LONGEST_S:
        raise UserError(f"{path}: its timestamps span years; the Units of timestamp are wrong.")
    _check_clock(path, time_s, float(rate))
    pupil, pupil_unit = _pupil(meta, table, columns)
    start = meta.get("StartTime", 0.0)
    if not isinstance(start, int | float) or not abs(start) < _LONGEST_S:
        raise UserError(f"{path}: its StartTime is {start!r}, not a number of seconds; correct it.")
    return _Eye(
        path=path,
        meta=meta,
        which=which,
        rate_hz=float(rate),
        start_s=float(start),
        time_s=time_s,
        seconds=seconds,
        xy=table[:, [columns.index("x_coordinate"), columns.index("y_coordinate")]],
        unit=unit,
        device_s=_device_s(meta, table, columns),
        pupil_mm=pupil,
        pupil_unit=pupil_unit,
    )


def _unit(path: Path, meta: Mapping[str, Any], coordinates: str | None) -> str:
    units = {column_unit(meta, name) or meta.get("SampleCoordinateUnits") for name in REQUIRED[1:]}
    unit = units.pop()
    if unit is None and not units and coordinates is not None:
        return coordinates
    if unit is None and not units:
        raise MissingFact(
            f"{path}: its sidecar gives no Units of x_coordinate and y_coordinate; say them with --coordinates "
            "px|normalised.",
            ["coordinates"],
        )
    known = isinstance(unit, str) and unit.lower() in (*PIXELS, *DEGREES, *MILLIMETRES)
    if units or not known:
        raise UserError(
            f"{path}: the Units of x_coordinate and y_coordinate are {unit!r}; only pixel, degree, mm, cm and m are "
            "understood."
        )
    return str(unit).lower()


def _seconds(path: Path, meta: Mapping[str, Any], time_unit: str | None) -> float:
    unit = column_unit(meta, "timestamp") or time_unit
    if unit is None:
        raise MissingFact(
            f"{path}: its sidecar gives no Units for timestamp; say them with --time-unit.", ["time_unit"]
        )
    if unit.lower() not in _SECONDS:
        raise UserError(f"{path}: the Units of timestamp are {unit!r}; only s, ms, us and ns are understood.")
    return _SECONDS[unit.lower()]


def _check_clock(path: Path, time_s: Floats, rate_hz: float) -> None:
    if len(time_s) < 3:
        return
    interval = float(np.median(np.diff(time_s)))
    if not 1 / _CLOCK_TOLERANCE < interval * rate_hz < _CLOCK_TOLERANCE:
        raise UserError(
            f"{path}: its timestamps advance by {interval:.4g} s a sample, but its SamplingFrequency is {rate_hz:g} "
            "Hz; one of the two, or the Units of timestamp, is wrong."
        )


def _pupil(meta: Mapping[str, Any], table: Floats, columns: Sequence[str]) -> tuple[Floats, str | None]:
    nothing = np.full(len(table), np.nan)
    if "pupil_size" not in columns:
        return nothing, None
    unit = column_unit(meta, "pupil_size")
    about = meta.get("pupil_size")
    text = str(about.get("Description", "")).lower() if isinstance(about, dict) else ""
    if unit is None or unit.lower() not in MILLIMETRES or ("area" in text and "diameter" not in text):
        return nothing, unit or "no unit"
    return table[:, columns.index("pupil_size")] * MILLIMETRES[unit.lower()], None


def _device_s(meta: Mapping[str, Any], table: Floats, columns: Sequence[str]) -> Floats | None:
    unit = column_unit(meta, "device_timestamp")
    if "device_timestamp" not in columns or unit is None or unit.lower() not in _SECONDS:
        return None
    seconds = table[:, columns.index("device_timestamp")] * _SECONDS[unit.lower()]
    return seconds if (np.abs(seconds) < _LONGEST_S).all() else None


def _joined(
    path: Path, eyes: Sequence[_Eye], geometry: ScreenGeometry, origin: tuple[str, str], notes: list[str]
) -> Samples:
    """Return the samples of all eyes on one clock that begins with 0."""
    chosen: dict[str, _Eye] = {}
    for eye in eyes:
        if eye.which in chosen:
            raise UserError(
                f"{path}: two of its files say that they are of the {eye.which} eye; correct one."
            )
        chosen[eye.which] = eye
    if "cyclopean" in chosen and len(chosen) > 1:
        notes.append("A cyclopean signal stands beside the eyes' own and was left out.")
        del chosen["cyclopean"]
    for eye in chosen.values():
        if eye.pupil_unit is not None:
            notes.append(
                f"Pupil sizes are in {eye.pupil_unit}, which is no diameter in mm, and were left out."
            )
            break
    stamps = np.unique(np.concatenate([eye.time_s for eye in chosen.values()]))
    time_ns = np.rint((stamps - stamps[0]) * 1e9).astype(np.int64) if len(stamps) else np.empty(0, np.int64)
    positions = {side: np.full((len(stamps), 2), np.nan) for side in ("left", "right")}
    pupils = np.full((len(stamps), 2), np.nan)
    device_ns = time_ns.copy()
    for which, eye in chosen.items():
        at = np.searchsorted(stamps, eye.time_s)
        xy = normalised(eye.xy, eye.unit, geometry, origin)
        # Some programs have a number for a missing position; a hundred screens away is none.
        xy = np.where(np.abs(xy) < _FARTHEST_SCREENS, xy, np.nan)
        for number, side in enumerate(("left", "right")):
            if which in (side, "cyclopean"):
                positions[side][at] = xy
                pupils[at, number] = np.where(np.abs(eye.pupil_mm) < 1000, eye.pupil_mm, np.nan)
        if eye.device_s is not None:
            device_ns[at] = np.rint(eye.device_s * 1e9).astype(np.int64)
    return pack_samples(time_ns, device_ns, positions["left"], positions["right"], pupils)


# What was shown


@dataclass(frozen=True)
class _Clock:
    """Brings the files' times to nanoseconds since the first sample."""

    first_s: float
    """The first time stamp."""
    start_s: float
    """When the first sample was taken, in the time of the events."""

    def of_event_ns(self, onset_s: float, on_tracker_clock: bool) -> int:
        return round((onset_s - (self.first_s if on_tracker_clock else self.start_s)) * 1e9)

    def of_stamp_ns(self, stamp_s: float) -> int:
        return round((stamp_s - self.first_s) * 1e9)


_NAME_COLUMNS = ("image_name", "stim_file", "image_id", "stim_id", "stimulus", "image")


def _shown(
    path: Path, meta: Mapping[str, Any], clock: _Clock, samples: Samples, notes: list[str]
) -> tuple[BidsShown, ...]:
    lines = lines_of(path)
    header = next(lines, [])
    names = [name for name in _NAME_COLUMNS if name in header]
    if not names or "onset" not in header or "duration" not in header:
        notes.append(f"{path.name} names no images (no column {' or '.join(_NAME_COLUMNS)}).")
        return ()
    on_tracker_clock = meta.get("OnsetSource") == "timestamp"
    rectangle = ("shown_x", "shown_y", "shown_width", "shown_height")
    found = []
    for number, cells in enumerate(lines, start=2):
        if len(cells) != len(header):
            raise UserError(f"{path}, line {number}: {len(cells)} cells instead of {len(header)}.")
        row = dict(zip(header, cells, strict=True))
        name = next((row[name] for name in names if row[name] not in ("n/a", "")), None)
        onset, duration = (value_of(path, number, row[column]) for column in ("onset", "duration"))
        if name is None or math.isnan(onset) or math.isnan(duration):
            continue
        if max(abs(onset), abs(duration)) > _LONGEST_S:
            raise UserError(
                f"{path}, line {number}: it says that an image was shown for years, or years away."
            )
        start_ns = clock.of_event_ns(onset, on_tracker_clock)
        places = [value_of(path, number, row[column]) for column in rectangle if column in row]
        rect = (places[0], places[1], places[2], places[3]) if len(places) == 4 else None
        if rect is not None and math.isnan(sum(rect)):
            rect = None
        found.append(BidsShown(name, start_ns, start_ns + round(duration * 1e9), rect))
    last_ns = int(samples["time_ns"][-1]) if len(samples) else 0
    if found and not any(item.start_ns <= last_ns and item.end_ns >= 0 for item in found):
        notes.append(
            f"{path.name} and the samples do not meet in time, so what was shown is unknown: StartTime or the onsets "
            "are on another clock."
        )
        return ()
    return tuple(found)


# What the tracker itself found


@dataclass
class _Found:
    start_ms: list[float] = field(default_factory=list)
    duration_ms: list[float] = field(default_factory=list)
    xy: list[tuple[float, float]] = field(default_factory=list)


def _physioevents(
    files: Sequence[Path],
    eyes: Sequence[_Eye],
    clock: _Clock,
    samples: Samples,
    geometry: ScreenGeometry,
    origin: tuple[str, str],
    notes: list[str],
) -> tuple[BidsFixations | None, tuple[tuple[int, str], ...]]:
    fixations: list[BidsFixations] = []
    messages: list[tuple[int, str]] = []
    for file, eye in zip(files, eyes, strict=True):
        path = file.with_name(file.name.replace(ENDING, "_physioevents.tsv.gz"))
        if not path.is_file():
            continue
        meta = inherited(path)
        columns = meta.get("Columns")
        if not are_names(columns) or "onset" not in columns:
            raise UserError(f"{path}: its sidecar names no Columns with an onset; add them.")
        source = meta.get("OnsetSource", meta.get("ForeignIndexColumn"))
        if source != "timestamp":
            notes.append(f"The events of {path.name} are not on the clock of the samples and were left out.")
            continue
        found = _Found()
        rows = []
        for number, cells in enumerate(lines_of(path), start=1):
            if len(cells) != len(columns):
                raise UserError(f"{path}, line {number}: {len(cells)} cells instead of {len(columns)}.")
            rows.append((number, dict(zip(columns, cells, strict=True))))
        lasted = [
            value_of(path, number, row["duration"])
            for number, row in rows
            if row.get("trial_type") == "fixation" and "duration" in row
        ]
        seconds = _duration_unit(meta, lasted, eye.seconds)
        if seconds is None:
            notes.append(f"The durations in {path.name} have no unit, and its fixations were left out.")
        for number, row in rows:
            stamp_s = value_of(path, number, row["onset"]) * eye.seconds
            if math.isnan(stamp_s) or abs(stamp_s - clock.first_s) > _LONGEST_S:
                continue
            words = row.get("message", "n/a").strip().strip('"')
            if words not in ("n/a", ""):
                messages.append((clock.of_stamp_ns(stamp_s), words))
            if row.get("trial_type") != "fixation" or seconds is None or "duration" not in row:
                continue
            duration_s = value_of(path, number, row["duration"]) * seconds
            if math.isnan(duration_s):
                continue
            found.start_ms.append((stamp_s - clock.first_s) * 1000)
            found.duration_ms.append(duration_s * 1000)
            place = [
                value_of(path, number, row[name]) if name in row else math.nan
                for name in ("x_coordinate", "y_coordinate")
            ]
            found.xy.append((place[0], place[1]))
        if found.start_ms:
            fixations.append(_fixations_of(found, meta, eye, samples, geometry, origin))
    return _in_order(fixations), tuple(sorted(messages))


def _in_order(parts: Sequence[BidsFixations]) -> BidsFixations | None:
    """Join the fixations of both eyes' files in order of time."""
    if not parts:
        return None
    start = np.concatenate([part.start_ms for part in parts])
    order = np.argsort(start, kind="stable")
    eyes = [eye for part in parts for eye in part.eye]
    return BidsFixations(
        start[order],
        np.concatenate([part.duration_ms for part in parts])[order],
        np.concatenate([part.xy_px for part in parts])[order],
        tuple(eyes[index] for index in order.tolist()),
    )


def _duration_unit(meta: Mapping[str, Any], durations: Sequence[float], stamp_s: float) -> float | None:
    """Return how many seconds one unit of the durations is, or None where that would be a guess."""
    unit = column_unit(meta, "duration")
    if unit is not None:
        return _SECONDS.get(unit.lower())
    if not durations:
        return 1.0
    # The standard says seconds, converters write the time stamps' unit: only one of them makes fixations.
    typical = float(np.nanmedian(durations))
    fitting = {scale for scale in (1.0, stamp_s) if 0.02 <= typical * scale <= 5.0}
    return fitting.pop() if len(fitting) == 1 else None


def _fixations_of(
    found: _Found,
    meta: Mapping[str, Any],
    eye: _Eye,
    samples: Samples,
    geometry: ScreenGeometry,
    origin: tuple[str, str],
) -> BidsFixations:
    start = np.array(found.start_ms)
    duration = np.array(found.duration_ms)
    xy = np.array(found.xy).reshape(-1, 2)
    unit = column_unit(meta, "x_coordinate")
    unit = unit.lower() if unit and unit.lower() in (*PIXELS, *DEGREES, *MILLIMETRES) else eye.unit
    xy_px = geometry.screen_px_from_normalised(normalised(xy, unit, geometry, origin))
    side = "left" if eye.which == "cyclopean" else eye.which
    track = geometry.screen_px_from_normalised(np.column_stack([samples[f"{side}_x"], samples[f"{side}_y"]]))
    # Whole nanoseconds, or a fixation would begin a sample late for the last digit of a sum.
    spans_ns = np.rint(np.column_stack([start, start + duration]) * 1e6)
    for index in np.flatnonzero(np.isnan(xy_px).any(axis=1)).tolist():
        low, high = np.searchsorted(samples["time_ns"], spans_ns[index])
        inside = track[low:high]
        inside = inside[np.isfinite(inside).all(axis=1)]
        if len(inside):
            xy_px[index] = inside.mean(axis=0)
    both = eye.which == "cyclopean" or "mean of the valid eyes" in str(meta.get("Description", ""))
    which: Eye = "both" if both else "left" if eye.which == "left" else "right"
    return BidsFixations(start, duration, xy_px, (which,) * len(start))


def read(path: Path, known: Known) -> GazeFile:
    """Read one recording as :func:`gaze_capture.formats.reading.read_gaze_file` hands it on."""
    found = read_bids(
        path,
        BidsScreen(known.screen_px, known.screen_mm, known.distance_mm),
        time_unit=known.time_unit,
        coordinates=known.coordinates,
        eye=known.eye,
        recording=known.stream,
    )
    own = found.fixations
    first_ms = float(found.samples["time_ns"][0]) / 1e6 if len(found.samples) else 0.0
    return GazeFile(
        format="bids",
        tracker=found.tracker,
        samples=found.samples,
        geometry=found.geometry,
        rate_hz=found.rate_hz,
        shown=tuple(Shown(item.name, item.start_ns, item.end_ns, item.rect_px) for item in found.shown),
        own_fixations=None
        if own is None
        else OwnFixations(own.start_ms + first_ms, own.duration_ms, own.xy_px, own.eye),
        messages=tuple(Message(time_ns, text) for time_ns, text in found.messages),
        notes=found.notes,
        simulated_from=found.simulated_from,
    )
