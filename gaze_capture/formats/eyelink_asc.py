"""EyeLink recordings as text: what SR Research's edf2asc makes of an EDF file.

Lines as in the "EyeLink 1000 User Manual" (chapter on the ASC file format); messages about pictures as in the
"EyeLink Data Viewer User Manual" (Protocol for EyeLink Data to Viewer Integration). All times are milliseconds.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

import numpy as np

from gaze_capture.errors import UserError
from gaze_capture.formats.gaze_file import (
    Eye,
    GazeFile,
    Known,
    Message,
    OwnFixations,
    Shown,
    assembled,
    geometry_of,
    missing,
    one_recording,
)
from gaze_capture.formats.sample_table import LARGEST, first_lines, lines_of
from gaze_capture.recording import Floats

FORMAT = "eyelink-asc"

_EYES: dict[str, Eye] = {"L": "left", "R": "right"}
_LAST_MS = 9e12
"""Later times do not fit into nanoseconds of 64 bits."""
_MOST_COLUMNS = 7
_ROWS_AT_ONCE = 50_000
_SAMPLE = re.compile(r"\d+(\.\d+)?[ \t]")
_MESSAGE = re.compile(r"MSG\s+(\d+(?:\.\d+)?)\s+(?:(-?\d+(?:\.\d+)?)\s+(?=\D))?(.*)")
_COORDS = re.compile(
    r"(?:DISPLAY_COORDS|GAZE_COORDS)\s*=?\s*(-?[\d.]+)[\s,]+(-?[\d.]+)[\s,]+([\d.]+)[\s,]+([\d.]+)"
)
_PHYSICAL = re.compile(
    r".*screen_phys_coords\s*=?\s*(-?[\d.]+)[\s,]+(-?[\d.]+)[\s,]+(-?[\d.]+)[\s,]+(-?[\d.]+)"
)
_DISTANCE = re.compile(r".*screen_distance\s*=?\s*([\d.]+)(?:[\s,]+([\d.]+))?")
_PICTURE = re.compile(
    r"!V IMGLOAD (FILL|TOP_LEFT|CENTER)\s+(.+?)((?:\s+-?\d+(?:\.\d+)?){4}|(?:\s+-?\d+(?:\.\d+)?){2})?\s*"
)
_VALIDATION = re.compile(r"!CAL VALIDATION .*?(LEFT|RIGHT)\s+\w+\s+ERROR\s+([\d.]+)\s+avg\.\s+([\d.]+)\s+max")
_ENDS = re.compile(r"!V CLEAR\b|TRIAL_RESULT\b|TRIAL OK\b|TRIALID\b")


@dataclass
class _Picture:
    name: str
    time_ms: float
    rect_px: tuple[float, float, float, float] | None
    fills: bool
    end_ms: float | None = None


@dataclass
class _Content:
    """What the lines said so far."""

    rows: list[list[str]] = field(default_factory=list)
    """Samples not yet in `tables`."""
    tables: list[Floats] = field(default_factory=list)
    """(N, 8): how many columns a sample has, and the first seven of them: time, x, y, pupil of one eye or of two."""
    eyes: Literal["left", "right", "both"] | None = None
    coordinates: str = ""
    """GAZE, HREF or PUPIL."""
    pupil: str = ""
    screen: tuple[float, float, float, float] | None = None
    size_mm: tuple[float, float] | None = None
    distance_mm: float | None = None
    messages: list[Message] = field(default_factory=list)
    pictures: list[_Picture] = field(default_factory=list)
    blocks: list[list[float]] = field(default_factory=list)
    """Start and end in ms of the parts that were recorded."""
    trials: list[list[float]] = field(default_factory=list)
    """Start and end in ms of the trials, within which their blocks lie."""
    fixations: list[tuple[float, float, float, float, Eye]] = field(default_factory=list)
    validations: dict[str, tuple[str, str]] = field(default_factory=dict)
    changed_eyes: bool = False
    rate_hz: float | None = None
    cut_off: bool = False

    def pack(self) -> None:
        """Turn the samples read so far into numbers."""
        missing = [""] * _MOST_COLUMNS
        cells = [[float(len(row)), *map(_number, (row + missing)[:_MOST_COLUMNS])] for row in self.rows]
        if cells:
            self.tables.append(np.array(cells))
        self.rows = []


def sniff(path: Path) -> bool:
    """Return whether the file begins as edf2asc writes it, or has its blocks further on."""
    head = first_lines(path, 2000)
    if any(line.startswith("** CONVERTED FROM") for line in head[:5]):
        return True
    starts = [line for line in head if re.match(r"START\s+\d+", line)]
    return bool(starts) and any(_SAMPLE.match(line) or line.startswith("MSG") for line in head)


def read(path: Path, known: Known) -> GazeFile:
    """Read an ASC file; see :func:`gaze_capture.formats.reading.read_gaze_file`."""
    one_recording(path, known)
    content = _Content()
    for line in lines_of(path):
        if not line.endswith("\n"):
            content.cut_off = True
        elif _SAMPLE.match(line):
            # A sample's last columns (velocity, resolution, input) depend on how it was converted; the first do not.
            content.rows.append(line.split(maxsplit=_MOST_COLUMNS)[:_MOST_COLUMNS])
            if len(content.rows) == _ROWS_AT_ONCE:
                content.pack()
        elif line.startswith("MSG"):
            _message(content, line)
        elif line[:1].isalpha():
            _event(content, line.split())
    if content.coordinates not in ("", "GAZE"):
        raise UserError(
            f"{path} holds {content.coordinates} coordinates, which are not of the screen; convert the EDF again with "
            "edf2asc's gaze coordinates (-sg)."
        )
    content.pack()
    samples = np.concatenate(content.tables) if content.tables else np.empty((0, _MOST_COLUMNS + 1))
    if not len(samples):
        raise UserError(
            f"{path} holds no gaze samples, only events or nothing; convert the EDF again with samples (edf2asc "
            "without -e)."
        )
    eyes = content.eyes
    # Converted with one of two eyes, a file still says that both were recorded.
    whole = int((samples[:, 0] >= _width("both")).sum())
    if eyes is None or (eyes == "both" and whole < len(samples) / 2):
        eyes = known.eye
    if eyes is None:
        raise missing(path, "which eye its samples are of", "--eye left|right|both", ["eye"])
    return _gaze_file(path, known, content, samples, eyes)


def _gaze_file(path: Path, known: Known, content: _Content, samples: Floats, eyes: Eye) -> GazeFile:
    notes: list[str] = []
    width = _width(eyes)
    whole = samples[:, 0] >= width
    if not whole.all():
        notes.append(f"Samples that end early, which were dropped: {int((~whole).sum())}.")
    table = samples[whole, 1 : width + 1]
    px = None
    if content.screen is not None:
        left, top, right, bottom = content.screen
        px = (round(right - left) + 1, round(bottom - top) + 1)
    geometry = geometry_of(path, known, px=px, mm=content.size_mm, distance_mm=content.distance_mm)
    origin = np.array(content.screen[:2] if content.screen else (0.0, 0.0))
    size = np.array([geometry.width_px, geometry.height_px])

    def normalised(column: int) -> Floats:
        # EyeLink counts pixels by their centres.
        share: Floats = (table[:, column : column + 2] - origin + 0.5) / size
        return share

    nothing = np.full((len(table), 2), np.nan)
    first = normalised(1)
    by_eye = {
        "left": (first, nothing),
        "right": (nothing, first),
        "both": (first, normalised(4) if eyes == "both" else nothing),
    }[eyes]
    if content.cut_off:
        notes.append("The last line has no end and was left out: the file was cut off.")
    if content.changed_eyes:
        notes.append("The eye that was recorded changes within the file; only what fits the first was kept.")
    if content.pupil:
        notes.append(
            f"Pupil sizes are in the tracker's own units ({content.pupil.lower()}) and were left out."
        )
    for eye, (mean, largest) in content.validations.items():
        notes.append(
            f"The tracker's last validation of the {eye} eye: {mean} degrees off on average, {largest} at most."
        )
    shown = _shown(content, geometry.width_px, geometry.height_px, notes)
    fixations = sorted(content.fixations)
    numbers = np.array([row[:4] for row in fixations]).reshape(-1, 4)
    return assembled(
        path,
        format=FORMAT,
        tracker="EyeLink file",
        time_ns=table[:, 0] * 1e6,
        left=by_eye[0],
        right=by_eye[1],
        pupil_mm=nothing,
        geometry=geometry,
        known=known,
        eyes=eyes,
        shown=shown,
        own_fixations=OwnFixations(
            numbers[:, 0], numbers[:, 1], numbers[:, 2:] - origin + 0.5, tuple(row[4] for row in fixations)
        ),
        messages=content.messages,
        notes=notes,
        nominal_hz=content.rate_hz,
    )


def _width(eyes: Eye) -> int:
    """Return a sample's least columns: its time, and of each eye x, y and pupil."""
    return 7 if eyes == "both" else 4


def _number(cell: str) -> float:
    try:
        value = float(cell)
    except ValueError:
        # A single dot is the tracker's word for a missing value.
        return np.nan
    return value if abs(value) < LARGEST else np.nan


def _message(content: _Content, line: str) -> None:
    match = _MESSAGE.fullmatch(line.rstrip())
    if match is None:
        return
    # An offset in front of the text says by how much the message came too late.
    time_ms = float(match[1]) - float(match[2] or 0)
    text = match[3]
    if not abs(time_ms) < _LAST_MS:
        return
    if found := _COORDS.match(text):
        edges = tuple(map(_number, found.groups()))
        if edges[2] > edges[0] and edges[3] > edges[1]:
            content.screen = edges  # type: ignore[assignment]
    elif found := _PHYSICAL.match(text):
        left, top, right, bottom = map(_number, found.groups())
        if abs(right - left) > 0 and abs(bottom - top) > 0:
            content.size_mm = (abs(right - left), abs(bottom - top))
    elif found := _DISTANCE.match(text):
        ends = [_number(one) for one in found.groups() if one]
        content.distance_mm = float(np.mean(ends))
    elif found := _PICTURE.fullmatch(text):
        _picture(content, time_ms, found)
    elif _ENDS.match(text):
        _end_pictures(content, time_ms)
        if text.startswith("TRIAL"):
            _end_last(content.trials, time_ms)
        if text.startswith("TRIALID"):
            content.trials.append([time_ms, np.inf])
    elif found := _VALIDATION.match(text):
        content.validations[found[1].lower()] = (found[2], found[3])
    content.messages.append(Message(int(time_ms * 1e6), text))


def _picture(content: _Content, time_ms: float, found: re.Match[str]) -> None:
    where, name, numbers = found.groups()
    given = [float(number) for number in (numbers or "").split()]
    rect = None
    if len(given) == 4:
        x, y, width, height = given
        rect = (x - width / 2, y - height / 2, width, height) if where == "CENTER" else (x, y, width, height)
    picture = _Picture(name, time_ms, rect, where == "FILL")
    # A picture goes away under the next one that may cover it; pictures side by side stay.
    for before in content.pictures:
        if before.end_ms is None and _overlap(before, picture):
            before.end_ms = time_ms
    content.pictures.append(picture)


def _end_last(spans: list[list[float]], time_ms: float) -> None:
    """Give the last span an end if it has none yet."""
    if spans and spans[-1][1] == np.inf:
        spans[-1][1] = time_ms


def _overlap(one: _Picture, other: _Picture) -> bool:
    if one.rect_px is None or other.rect_px is None:
        return True
    (x, y, width, height), (u, v, wide, high) = one.rect_px, other.rect_px
    return x < u + wide and u < x + width and y < v + high and v < y + height


def _end_pictures(content: _Content, time_ms: float) -> None:
    for picture in content.pictures:
        if picture.end_ms is None:
            picture.end_ms = time_ms


def _shown(content: _Content, width_px: int, height_px: int, notes: list[str]) -> list[Shown]:
    """Return the pictures, each for as long as it stayed and was recorded."""
    shown = []
    late = 0
    for picture in content.pictures:
        rect = (0.0, 0.0, float(width_px), float(height_px)) if picture.fills else picture.rect_px
        end = picture.end_ms if picture.end_ms is not None else np.inf
        recorded = _within(content.blocks, picture.time_ms, end)
        if recorded is None:
            # Many programs name a trial's picture only when its recording has ended, as Data Viewer does not mind.
            trial = next((trial for trial in content.trials if trial[0] <= picture.time_ms <= trial[1]), None)
            recorded = None if trial is None else _within(content.blocks, trial[0], trial[1])
            late += recorded is not None
        if recorded is not None:
            start, stop = (int(min(time, _LAST_MS) * 1e6) for time in recorded)
            shown.append(Shown(picture.name, start, stop, rect))
    if late:
        notes.append(
            "Pictures that were named after the recording of their trial, which were taken for shown all along: "
            f"{late}."
        )
    return shown


def _within(blocks: list[list[float]], start: float, end: float) -> tuple[float, float] | None:
    """Return the first and the last recorded time of a span, or None where nothing of it was recorded."""
    inside = [(max(begin, start), min(stop, end)) for begin, stop in blocks if begin < end and stop > start]
    return (inside[0][0], inside[-1][1]) if inside else None


def _event(content: _Content, words: list[str]) -> None:
    if not words:
        return
    kind = words[0]
    if kind == "START" and len(words) > 1 and abs(_number(words[1])) < _LAST_MS:
        start = _number(words[1])
        _end_last(content.blocks, start)
        content.blocks.append([start, np.inf])
    if kind in ("START", "SAMPLES"):
        named = {word.lower() for word in words[1:]} & {"left", "right"}
        eyes: Literal["left", "right", "both"] | None = (
            "both"
            if len(named) == 2
            else "left"
            if "left" in named
            else "right"
            if "right" in named
            else None
        )
        if eyes is not None:
            if content.eyes not in (None, eyes):
                content.changed_eyes = True
            content.eyes = content.eyes or eyes
        if kind == "SAMPLES" and len(words) > 1 and words[1] in ("GAZE", "HREF", "PUPIL"):
            content.coordinates = words[1]
        if kind == "SAMPLES" and "RATE" in words[:-1]:
            content.rate_hz = _number(words[words.index("RATE") + 1])
    elif kind == "PUPIL" and len(words) > 1:
        content.pupil = words[1]
    elif kind == "END" and len(words) > 1:
        end = _number(words[1])
        if np.isfinite(end):
            # What is still on the screen when the recording stops is not looked at any more.
            _end_last(content.blocks, end)
            for picture in content.pictures:
                if picture.end_ms is None and picture.time_ms < end:
                    picture.end_ms = end
    elif kind == "EFIX" and len(words) >= 7:
        start, stop, lasted, x, y = map(_number, words[2:7])
        eye = _EYES.get(words[1])
        if (
            eye is not None
            and np.isfinite([start, stop, lasted]).all()
            and 0 < lasted < 1e7
            and start < _LAST_MS
        ):
            content.fixations.append((start, lasted, x, y, eye))
