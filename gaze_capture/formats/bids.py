"""Reading eye tracking of BIDS 1.11 (BEP020): the eyes' samples, fixations, and what was shown.

A recording is asked for by one of its ``_physio.tsv.gz`` files, or by the data set's folder where it holds only one.
Metadata are inherited as BIDS says: from every JSON file above whose name says nothing else.
"""

from __future__ import annotations

import gzip
import io
import json
import math
import zlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, TypeGuard

import numpy as np

from gaze_capture.errors import UserError
from gaze_capture.recording import Floats, Samples, ScreenGeometry, pack_samples
from gaze_capture.storage import explained_os_errors

ENDING = "_physio.tsv.gz"
REQUIRED = ("timestamp", "x_coordinate", "y_coordinate")

_SECONDS = {
    "s": 1.0, "sec": 1.0, "second": 1.0, "seconds": 1.0,
    "ms": 1e-3, "millisecond": 1e-3, "milliseconds": 1e-3,
    "us": 1e-6, "µs": 1e-6, "μs": 1e-6, "microsecond": 1e-6, "microseconds": 1e-6,
    "ns": 1e-9, "nanosecond": 1e-9, "nanoseconds": 1e-9,
}  # fmt: skip
_PIXELS = ("pixel", "pixels", "px")
_DEGREES = ("degree", "degrees", "deg", "°")
_MILLIMETRES = {"mm": 1.0, "cm": 10.0, "m": 1000.0}
_FARTHEST_M = 10.0
"""A screen farther away than this, or larger, was told in centimetres against the standard."""
_FARTHEST_SCREENS = 100.0
_LARGEST = 1e21
"""Larger numbers are none that a tracker writes: nanoseconds since 1970 reach it in 30,000 years."""
_LONGEST_S = 1e9
_CLOCK_TOLERANCE = 3.0
"""Samples may come this much slower or faster than the sampling frequency says."""


Eye = Literal["left", "right", "both"]


@dataclass(frozen=True)
class BidsScreen:
    """What is known of the screen; None where it is not."""

    size_px: tuple[int, int] | None = None
    size_mm: tuple[float, float] | None = None
    distance_mm: float | None = None

    def geometry(self) -> ScreenGeometry | None:
        """Return the whole geometry, or None where a part is unknown."""
        if self.size_px is None or self.size_mm is None or self.distance_mm is None:
            return None
        return ScreenGeometry(*self.size_px, *self.size_mm, self.distance_mm)


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
    return path.name.endswith(ENDING) and path.is_file() and _is_eyetrack(path)


def recordings(folder: Path) -> list[Path]:
    """Return one physio file for each recording of eye tracking in a data set's folder, in order of their names."""
    found: dict[tuple[Path, frozenset[tuple[str, str]]], Path] = {}
    for path in sorted(folder.glob(f"sub-*/**/*{ENDING}")):
        if _is_eyetrack(path):
            found.setdefault((path.parent, _without_recording(_entities(path))), path)
    return list(found.values())


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
    path = _one_recording(path, recording)
    notes: list[str] = []
    files = _eye_files(path)
    if eye in ("left", "right"):
        one = [file for file in files if _inherited(file).get("RecordedEye") == eye]
        if not one:
            raise UserError(f"{path} belongs to a recording without the {eye} eye; leave --eye away.")
        files = one
    eyes = [_read_eye(file, time_unit, coordinates) for file in files]
    events_path, events_meta = _events_of(path)
    screen = _screen(path, events_meta, known or BidsScreen())
    geometry = screen.geometry()
    if geometry is None:
        missing = [
            word
            for word, value in (
                ("resolution", screen.size_px), ("size", screen.size_mm), ("distance", screen.distance_mm)
            )
            if value is None
        ]  # fmt: skip
        raise UserError(
            f"{path}: the screen's {' and '.join(missing)} are not in StimulusPresentation of its events.json; say "
            "them with --screen-px WxH --screen-mm WxH --distance-mm D."
        )
    origin = _origin(path, events_meta)
    rates = {eye.rate_hz for eye in eyes}
    if len(rates) > 1:
        raise UserError(f"{path}: its eyes were sampled at different rates; choose one with --eye.")
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


# Files, names and inherited metadata


def _entities(path: Path) -> frozenset[tuple[str, str]]:
    parts = path.name.split(".")[0].split("_")[:-1]
    return frozenset((name, value) for name, _, value in (part.partition("-") for part in parts))


def _suffix(path: Path) -> str:
    return path.name.split(".")[0].rpartition("_")[2]


def _without_recording(entities: frozenset[tuple[str, str]]) -> frozenset[tuple[str, str]]:
    return frozenset(item for item in entities if item[0] != "recording")


def _root_of(path: Path) -> Path:
    for folder in path.parents:
        if (folder / "dataset_description.json").is_file():
            return folder
    return path.parent


def _inherited(path: Path, suffix: str | None = None, without_recording: bool = False) -> dict[str, Any]:
    """Return the metadata of a file, from the top of the data set down to its own sidecar."""
    suffix = suffix or _suffix(path)
    entities = _entities(path)
    if without_recording:
        entities = _without_recording(entities)
    root = _root_of(path)
    folders = [path.parent]
    while folders[-1] not in (root, folders[-1].parent):
        folders.append(folders[-1].parent)
    merged: dict[str, Any] = {}
    for folder in reversed(folders):
        fitting = [
            file
            for file in folder.glob(f"*{suffix}.json")
            if _suffix(file) == suffix and _entities(file) <= entities
        ]
        # What says more of the file goes before what says less.
        for file in sorted(fitting, key=lambda one: len(_entities(one))):
            merged.update(_json(file))
    return merged


def _json(path: Path) -> dict[str, Any]:
    with explained_os_errors(path):
        data = path.read_bytes()
    try:
        values = json.loads(data.decode("utf-8-sig"))
    except ValueError as error:
        raise UserError(f"{path} is damaged: it is not valid JSON ({error}).") from None
    if not isinstance(values, dict):
        raise UserError(f"{path} is damaged: it holds no metadata.")
    return values


def _is_eyetrack(path: Path) -> bool:
    try:
        return _inherited(path).get("PhysioType") == "eyetrack"
    except UserError:
        return False


def _one_recording(path: Path, name: str | None) -> Path:
    if not path.is_dir():
        if not path.name.endswith(ENDING):
            raise UserError(f"{path} is no eye tracking of BIDS: choose a file that ends in {ENDING}.")
        return path
    found = {_name(file): file for file in recordings(path)}
    if not found:
        raise UserError(f'{path} holds no eye tracking: no {ENDING} file has the PhysioType "eyetrack".')
    if name is not None and name not in found:
        raise UserError(f"{path} holds no recording {name!r}; it holds {', '.join(found)}.")
    if name is None and len(found) > 1:
        raise UserError(
            f"{path} holds {len(found)} recordings; choose one with --stream, such as {next(iter(found))}."
        )
    return found[name or next(iter(found))]


def _name(path: Path) -> str:
    """Return a recording's name: its file's, without the eye."""
    parts = path.name.removesuffix(ENDING).split("_")
    return "_".join(part for part in parts if not part.startswith("recording-"))


def _eye_files(path: Path) -> list[Path]:
    """Return the physio files of all eyes of the recording that a file belongs to."""
    wanted = _without_recording(_entities(path))
    beside = [
        file
        for file in sorted(path.parent.glob(f"*{ENDING}"))
        if _without_recording(_entities(file)) == wanted and _is_eyetrack(file)
    ]
    return beside or [path]


def _events_of(path: Path) -> tuple[Path | None, dict[str, Any]]:
    wanted = _without_recording(_entities(path))
    meta = _inherited(path, "events", without_recording=True)
    for file in sorted(path.parent.glob("*_events.tsv")):
        if _entities(file) == wanted:
            return file, meta
    return None, meta


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
    meta = _inherited(path)
    columns = meta.get("Columns")
    if not _are_names(columns):
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
    table = _rows(path, len(columns))
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


def _are_names(columns: Any) -> TypeGuard[list[str]]:
    return isinstance(columns, list) and all(isinstance(name, str) for name in columns)


def _column_unit(meta: Mapping[str, Any], column: str) -> str | None:
    about = meta.get(column)
    unit = about.get("Units") if isinstance(about, dict) else None
    return unit.strip() if isinstance(unit, str) and unit.strip() else None


def _unit(path: Path, meta: Mapping[str, Any], coordinates: str | None) -> str:
    units = {_column_unit(meta, name) or meta.get("SampleCoordinateUnits") for name in REQUIRED[1:]}
    unit = units.pop()
    if unit is None and not units and coordinates is not None:
        return coordinates
    known = isinstance(unit, str) and unit.lower() in (*_PIXELS, *_DEGREES, *_MILLIMETRES)
    if units or not known:
        raise UserError(
            f"{path}: the Units of x_coordinate and y_coordinate are {unit!r}; only pixel, degree, mm, cm and m are "
            "understood."
        )
    return str(unit).lower()


def _seconds(path: Path, meta: Mapping[str, Any], time_unit: str | None) -> float:
    unit = _column_unit(meta, "timestamp") or time_unit
    if unit is None:
        raise UserError(f"{path}: its sidecar gives no Units for timestamp; say them with --time-unit.")
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
    unit = _column_unit(meta, "pupil_size")
    about = meta.get("pupil_size")
    text = str(about.get("Description", "")).lower() if isinstance(about, dict) else ""
    if unit is None or unit.lower() not in _MILLIMETRES or ("area" in text and "diameter" not in text):
        return nothing, unit or "no unit"
    return table[:, columns.index("pupil_size")] * _MILLIMETRES[unit.lower()], None


def _device_s(meta: Mapping[str, Any], table: Floats, columns: Sequence[str]) -> Floats | None:
    unit = _column_unit(meta, "device_timestamp")
    if "device_timestamp" not in columns or unit is None or unit.lower() not in _SECONDS:
        return None
    seconds = table[:, columns.index("device_timestamp")] * _SECONDS[unit.lower()]
    return seconds if (np.abs(seconds) < _LONGEST_S).all() else None


def _text(path: Path) -> str:
    with explained_os_errors(path):
        data = path.read_bytes()
    try:
        return gzip.decompress(data).decode("utf-8-sig") if path.suffix == ".gz" else data.decode("utf-8-sig")
    except (OSError, EOFError, zlib.error, UnicodeDecodeError) as error:
        raise UserError(f"{path} is damaged ({error}).") from None


def _lines(path: Path) -> Iterator[list[str]]:
    for line in _text(path).splitlines():
        if line:
            yield line.split("\t")


def _rows(path: Path, width: int) -> Floats:
    """Return a table without header as numbers (N, C); n/a becomes NaN."""
    text = _text(path).replace("n/a", "nan")
    if not text.strip():
        return np.empty((0, width))
    try:
        table: Floats = np.loadtxt(io.StringIO(text), delimiter="\t", comments=None, ndmin=2)
        if table.shape[1] == width and not (np.abs(table) > _LARGEST).any():
            return table
    except ValueError:
        # Read once more, line by line: empty cells are no error, and what is one should be named.
        pass
    rows: list[list[float]] = []
    for number, cells in enumerate(_lines(path), start=1):
        if len(cells) != width:
            raise UserError(
                f"{path}, line {number}: {len(cells)} cells instead of the {width} that Columns names."
            )
        rows.append([_value(path, number, cell) for cell in cells])
    return np.array(rows, dtype=np.float64).reshape(-1, width)


def _value(path: Path, line: int, cell: str) -> float:
    text = cell.strip()
    if text in ("n/a", "", "."):
        return math.nan
    try:
        value = float(text)
    except ValueError:
        value = math.inf
    if abs(value) > _LARGEST:
        raise UserError(f"{path}, line {line}: {cell!r} is neither a number nor n/a.")
    return value


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
        xy = _normalised(eye.xy, eye.unit, geometry, origin)
        # Some programs have a number for a missing position; a hundred screens away is none.
        xy = np.where(np.abs(xy) < _FARTHEST_SCREENS, xy, np.nan)
        for number, side in enumerate(("left", "right")):
            if which in (side, "cyclopean"):
                positions[side][at] = xy
                pupils[at, number] = np.where(np.abs(eye.pupil_mm) < 1000, eye.pupil_mm, np.nan)
        if eye.device_s is not None:
            device_ns[at] = np.rint(eye.device_s * 1e9).astype(np.int64)
    return pack_samples(time_ns, device_ns, positions["left"], positions["right"], pupils)


def _normalised(xy: Floats, unit: str, geometry: ScreenGeometry, origin: tuple[str, str]) -> Floats:
    """Return positions (N, 2) as shares of the screen from its top left corner."""
    if unit in _DEGREES:
        # Degrees are measured from the middle, whatever the origin of pixels is.
        return geometry.normalised_from_degrees(xy * [1, 1 if origin[0] == "top" else -1])
    if unit == "normalised":
        shares = xy
    elif unit in _PIXELS:
        shares = xy / [geometry.width_px, geometry.height_px]
    else:
        shares = xy * _MILLIMETRES[unit] / [geometry.width_mm, geometry.height_mm]
    vertical, horizontal = origin
    if vertical == "bottom":
        shares = np.column_stack([shares[:, 0], 1 - shares[:, 1]])
    shift = [0.5 if horizontal == "center" else 0.0, 0.5 if vertical == "center" else 0.0]
    moved: Floats = shares + shift
    return moved


# The screen and what was shown on it


def _screen(path: Path, events_meta: Mapping[str, Any], known: BidsScreen) -> BidsScreen:
    about = events_meta.get("StimulusPresentation")
    about = about if isinstance(about, dict) else {}
    resolution = _pair(about.get("ScreenResolution"))
    size = _pair(about.get("ScreenSize"))
    distance = about.get("ScreenDistance")
    if isinstance(distance, list) and len(distance) == 3:
        distance = distance[2]
    distance = float(distance) if isinstance(distance, int | float) else None
    for name, value, given in (
        ("ScreenDistance", distance, known.distance_mm),
        ("ScreenSize", max(size) if size else None, known.size_mm),
    ):
        if given is None and value is not None and not 0 < value < _FARTHEST_M:
            raise UserError(
                f"{path}: {name} in its events.json is {value:g}, which cannot be metres, as BIDS wants it; correct "
                "it, or give the screen's size and distance."
            )
    return BidsScreen(
        known.size_px or (resolution and (round(resolution[0]), round(resolution[1]))),
        known.size_mm or (size and (size[0] * 1000, size[1] * 1000)),
        known.distance_mm or (None if distance is None else distance * 1000),
    )


def _pair(value: Any) -> tuple[float, float] | None:
    if (
        isinstance(value, list)
        and len(value) == 2
        and all(isinstance(n, int | float) and n > 0 for n in value)
    ):
        return float(value[0]), float(value[1])
    return None


def _origin(path: Path, events_meta: Mapping[str, Any]) -> tuple[str, str]:
    """Return where the screen's coordinates begin: vertically and horizontally."""
    about = events_meta.get("StimulusPresentation")
    words = about.get("ScreenOrigin", ["top", "left"]) if isinstance(about, dict) else ["top", "left"]
    listed = [str(word).lower() for word in words] if isinstance(words, list) else []
    if listed == ["center", "center"]:
        return "center", "center"
    vertical = [word for word in listed if word in ("top", "bottom")]
    if len(listed) != 2 or len(vertical) != 1 or "left" not in listed:
        raise UserError(
            f"{path}: the ScreenOrigin {words!r} is not understood; it should be top left or center."
        )
    return vertical[0], "left"


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
    lines = _lines(path)
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
        onset, duration = (_value(path, number, row[column]) for column in ("onset", "duration"))
        if name is None or math.isnan(onset) or math.isnan(duration):
            continue
        if max(abs(onset), abs(duration)) > _LONGEST_S:
            raise UserError(
                f"{path}, line {number}: it says that an image was shown for years, or years away."
            )
        start_ns = clock.of_event_ns(onset, on_tracker_clock)
        places = [_value(path, number, row[column]) for column in rectangle if column in row]
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
        meta = _inherited(path)
        columns = meta.get("Columns")
        if not _are_names(columns) or "onset" not in columns:
            raise UserError(f"{path}: its sidecar names no Columns with an onset; add them.")
        source = meta.get("OnsetSource", meta.get("ForeignIndexColumn"))
        if source != "timestamp":
            notes.append(f"The events of {path.name} are not on the clock of the samples and were left out.")
            continue
        found = _Found()
        rows = []
        for number, cells in enumerate(_lines(path), start=1):
            if len(cells) != len(columns):
                raise UserError(f"{path}, line {number}: {len(cells)} cells instead of {len(columns)}.")
            rows.append((number, dict(zip(columns, cells, strict=True))))
        lasted = [
            _value(path, number, row["duration"])
            for number, row in rows
            if row.get("trial_type") == "fixation" and "duration" in row
        ]
        seconds = _duration_unit(meta, lasted, eye.seconds)
        if seconds is None:
            notes.append(f"The durations in {path.name} have no unit, and its fixations were left out.")
        for number, row in rows:
            stamp_s = _value(path, number, row["onset"]) * eye.seconds
            if math.isnan(stamp_s) or abs(stamp_s - clock.first_s) > _LONGEST_S:
                continue
            words = row.get("message", "n/a").strip().strip('"')
            if words not in ("n/a", ""):
                messages.append((clock.of_stamp_ns(stamp_s), words))
            if row.get("trial_type") != "fixation" or seconds is None or "duration" not in row:
                continue
            duration_s = _value(path, number, row["duration"]) * seconds
            if math.isnan(duration_s):
                continue
            found.start_ms.append((stamp_s - clock.first_s) * 1000)
            found.duration_ms.append(duration_s * 1000)
            place = [
                _value(path, number, row[name]) if name in row else math.nan
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
    unit = _column_unit(meta, "duration")
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
    unit = _column_unit(meta, "x_coordinate")
    unit = unit.lower() if unit and unit.lower() in (*_PIXELS, *_DEGREES, *_MILLIMETRES) else eye.unit
    xy_px = geometry.screen_px_from_normalised(_normalised(xy, unit, geometry, origin))
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
