"""Small gaze files in the true layouts of the programs that write them, of an eye that looks at known places.

Layouts: Tobii Pro Lab and Studio: the column lists of their user manuals ("Data export"), of which these are a part in
the order of real exports. EyeLink: the ASC chapter of the EyeLink 1000 user manual, the message protocol of the Data
Viewer user manual. Gazepoint: the header of an ``_all_gaze.csv`` of Gazepoint Analysis, fields of its Open Gaze API.
Pupil: the Surface Tracker's export in the documentation of Pupil Core. XDF: the specification of XDF 1.0 and the XDF
wiki's Gaze Meta-Data.
"""

from __future__ import annotations

import struct
from collections.abc import Sequence
from pathlib import Path
from typing import Any
from xml.sax.saxutils import escape

import numpy as np
import numpy.typing as npt

from gaze_capture.formats.gaze_file import Known

Floats = npt.NDArray[np.float64]

SCREEN_PX = (1920, 1080)
SCREEN_MM = (530.0, 300.0)
DISTANCE_MM = 640.0
KNOWN = Known(SCREEN_PX, SCREEN_MM, DISTANCE_MM)
LOOKS = ((0.30, 0.40), (0.55, 0.45), (0.40, 0.70), (0.62, 0.30))
"""Where on the screen the eye rests, one after the other, as shares."""
LOOK_S = 0.4


def gaze(rate_hz: float = 120.0, seed: int = 0) -> tuple[Floats, Floats]:
    """Return times (N,) in s and positions (N, 2) as shares of the screen, with little noise and no losses."""
    time = np.arange(round(LOOK_S * len(LOOKS) * rate_hz)) / rate_hz
    places = np.array(LOOKS)[np.minimum((time / LOOK_S).astype(int), len(LOOKS) - 1)]
    return time, places + np.random.default_rng(seed).normal(0, 0.0004, (len(time), 2))


def _joined(rows: Sequence[Sequence[object]], delimiter: str) -> str:
    return "".join(delimiter.join(map(str, row)) + "\r\n" for row in rows)


def pro_lab(
    *,
    unit: str = "[ms]",
    old: bool = False,
    comma: bool = False,
    geometry: bool = True,
    recordings: Sequence[str] = ("Recording1",),
    names: Sequence[str] = ("case_0.png", "case_1.png"),
) -> str:
    """Return a Pro Lab export: two pictures of 960 x 720 px at (480, 180), with events and own fixations."""

    def name(text: str, bracketed: str) -> str:
        return text if old else f"{text} [{bracketed}]"

    header = [
        f"Recording timestamp {unit}".strip(), "Computer timestamp", "Sensor", "Project name", "Participant name",
        "Recording name", "Recording resolution height", "Recording resolution width", "Eyetracker timestamp", "Event",
        "Event value", name("Gaze point X", "DACS px"), name("Gaze point Y", "DACS px"),
        name("Gaze point left X", "DACS px"), name("Gaze point left Y", "DACS px"),
        name("Gaze point right X", "DACS px"), name("Gaze point right Y", "DACS px"), name("Pupil diameter left", "mm"),
        name("Pupil diameter right", "mm"), "Validity left", "Validity right",
    ]  # fmt: skip
    if geometry:
        mm = "(DACSmm)" if old else "[DACS mm]"
        header += [f"Eye position {eye} {axis} {mm}" for eye in ("left", "right") for axis in "XYZ"]
        header += [f"Gaze point {eye} {axis} {mm}" for eye in ("left", "right") for axis in "XY"]
    px = "(DACSpx)" if old else "[DACS px]"
    norm = "(MCSnorm)" if old else "[MCS norm]"
    header += [
        f"Gaze point X {norm}", f"Gaze point Y {norm}", "Presented Stimulus name", "Presented Media name",
        "Presented Media width", "Presented Media height", f"Presented Media position X {px}",
        f"Presented Media position Y {px}", "Original Media width", "Original Media height", "Eye movement type",
        name("Gaze event duration", "ms"), "Eye movement type index", name("Fixation point X", "DACS px"),
        name("Fixation point Y", "DACS px"),
    ]  # fmt: skip
    factor = {"[ms]": 1e3, "[μs]": 1e6, "": 1e3}[unit]
    time, share = gaze()
    apart = np.array([0.002, 0])
    px_left, px_right = (share + apart) * SCREEN_PX, (share - apart) * SCREEN_PX
    rows: list[list[object]] = []
    for recording in recordings:
        for number, moment in enumerate(time.tolist()):
            look = min(int(moment / LOOK_S), len(LOOKS) - 1)
            valid = number % 40 != 7
            stamp = round(moment * factor)
            start = [stamp, 1000 + stamp, "Eye Tracker", "P", "Anna", recording, 1080, 1920]
            cells: list[object] = [round(5e6 + moment * 1e6), "", ""]
            for xy in (share[number] * SCREEN_PX, px_left[number], px_right[number]):
                cells += [round(value, 1) if valid else "" for value in xy.tolist()]
            cells += [3.25, 3.5] if valid else ["", ""]
            cells += ["Valid" if valid else "Invalid"] * 2
            if geometry:
                for side in (-32.0, 32.0):
                    cells += [265.0 + side, 150.0, DISTANCE_MM] if valid else [""] * 3
                for xy in (px_left[number], px_right[number]):
                    at = xy / SCREEN_PX * SCREEN_MM
                    cells += [round(value, 3) for value in at.tolist()] if valid else ["", ""]
            picture = names[min(number * len(names) // len(time), len(names) - 1)]
            inside = (share[number] * SCREEN_PX - [480, 180]) / [960, 720]
            cells += [round(value, 4) for value in inside.tolist()] if valid else ["", ""]
            cells += [picture.split(".")[0], picture, 960, 720, 480, 180, 640, 480]
            middle = np.array(LOOKS[look]) * SCREEN_PX
            cells += ["Fixation", round(1e3 * LOOK_S), look + 1, *np.rint(middle).astype(int).tolist()]
            rows.append(start + cells)
            if number % 50 == 20:
                blank: list[object] = [""] * (len(header) - 11)
                rows.append([stamp, 1000 + stamp, "Mouse", "P", "Anna", recording, 1080, 1920, "", "MouseEvent",
                             "Down, Left", *blank])  # fmt: skip
    if comma:
        rows = [
            [str(cell).replace(".", ",") if isinstance(cell, float) else cell for cell in row] for row in rows
        ]
    return _joined([header, *rows], "\t")


def studio() -> str:
    """Return a Studio export: milliseconds, a resolution in one cell, validity in numbers, one picture."""
    header = [
        "ExportDate", "StudioVersionRec", "StudioProjectName", "ParticipantName", "RecordingName",
        "RecordingResolution", "FixationFilter", "MediaName", "MediaPosX (ADCSpx)", "MediaPosY (ADCSpx)", "MediaWidth",
        "MediaHeight", "RecordingTimestamp", "StudioEvent", "StudioEventData", "FixationIndex", "SaccadeIndex",
        "GazeEventType", "GazeEventDuration", "FixationPointX (MCSpx)", "FixationPointY (MCSpx)", "GazePointIndex",
        "GazePointLeftX (ADCSpx)", "GazePointLeftY (ADCSpx)", "GazePointRightX (ADCSpx)", "GazePointRightY (ADCSpx)",
        "GazePointX (ADCSpx)", "GazePointY (ADCSpx)", "GazePointX (MCSpx)", "GazePointY (MCSpx)",
        "EyePosLeftZ (ADCSmm)", "EyePosRightZ (ADCSmm)", "PupilLeft", "PupilRight", "ValidityLeft", "ValidityRight",
    ]  # fmt: skip
    time, share = gaze(60.0)
    rows = []
    for number, moment in enumerate(time.tolist()):
        look = min(int(moment / LOOK_S), len(LOOKS) - 1)
        x, y = (share[number] * SCREEN_PX).round(2).tolist()
        code = 4 if number == 5 else 0
        rows.append(
            ["06/10/2013", "3.2.1", "P", "P01", "Rec 01", "1920 x 1080", "I-VT filter", "case_0.png", 0, 0, 1920, 1080,
             round(1e3 * moment), "", "", look + 1, "", "Fixation", round(1e3 * LOOK_S), 1, 2, number + 1, x, y, x, y,
             x, y, x, y, 612.5, 612.5, 3.1, 3.2, code, code]
        )  # fmt: skip
    return _joined([header, *rows], "\t")


def eyelink(*, both: bool = True, load: str = "TOP_LEFT ../images/case_0.png 480 180 960 720") -> str:
    """Return an ASC of 500 Hz: two trials with a picture each, a blink and the parser's own fixations."""
    time, share = gaze(500.0)
    px = share * SCREEN_PX - 0.5
    words = "LEFT\tRIGHT" if both else "RIGHT"
    lines = [
        "** CONVERTED FROM sub1.edf using edfapi 4.2.1 Linux Standalone Sep  1 2020 on Mon Mar 13 10:00:00 2023",
        "** TYPE: EDF_FILE BINARY EVENT SAMPLE TAGGED",
        "** VERSION: EYELINK II 1",
        "**",
        "MSG\t1000 !CMD 1 screen_phys_coords = -265.0 150.0 265.0 -150.0 ",
        "MSG\t1001 !CMD 1 screen_distance = 630 650",
        "MSG\t1002 DISPLAY_COORDS 0 0 1919 1079",
        "MSG\t1010 !CAL VALIDATION HV9 LR RIGHT GOOD ERROR 0.31 avg. 0.72 max  OFFSET 0.10 deg. 3.0,2.0 pix.",
    ]
    half = len(time) // 2
    for trial, (first, stop) in enumerate(((0, half), (half, len(time)))):
        offset = 2000 + 1000 * trial
        begin = offset + round(1e3 * float(time[first]))
        lines += [
            f"MSG\t{begin - 20} TRIALID {trial}",
            f"START\t{begin} \t{words}\tSAMPLES\tEVENTS",
            "PRESCALER\t1",
            "PUPIL\tAREA",
            f"EVENTS\tGAZE\t{words}\tRATE\t 500.00\tTRACKING\tCR\tFILTER\t2",
            f"SAMPLES\tGAZE\t{words}\tRATE\t 500.00\tTRACKING\tCR\tFILTER\t2\tINPUT",
        ]
        for number in range(first, stop):
            stamp = offset + round(1e3 * float(time[number]))
            if number == first + 10:
                picture = load if trial == 0 else load.replace("case_0", "case_1")
                # Sent 6 ms after the picture came.
                lines.append(f"MSG\t{stamp + 6} 6 !V IMGLOAD {picture}")
            x, y = px[number].tolist()
            blink = first + 60 <= number < first + 70
            eye = "   .\t   .\t    0.0" if blink else f"  {x:.1f}\t  {y:.1f}\t  812.0"
            flags = "....." if both else "..."
            lines.append(f"{stamp}\t{eye}\t{eye + chr(9) if both else ''}127.0\t{flags}")
        for look in range(2 * trial, 2 * trial + 2):
            start = offset + round(1e3 * LOOK_S * look)
            x, y = (np.array(LOOKS[look]) * SCREEN_PX - 0.5).tolist()
            for eye in "LR" if both else "R":
                lines.append(f"SFIX {eye}   {start}")
                lines.append(f"EFIX {eye}   {start}\t{start + 379}\t380\t  {x:.1f}\t  {y:.1f}\t    812")
        end = offset + round(1e3 * float(time[stop - 1])) + 2
        lines += [f"END\t{end} \tSAMPLES\tEVENTS\tRES\t  39.80\t  39.10", f"MSG\t{end + 5} TRIAL_RESULT 0"]
    return "\n".join(lines) + "\n"


def gazepoint(*, eyes: bool = False, names: Sequence[str] = ("case_0.png", "case_1.png")) -> str:
    """Return an all-gaze export of 60 Hz."""
    header = [
        "MEDIA_ID", "MEDIA_NAME", "CNT", "TIME(2023/03/09 10:21:10.250)", "TIMETICK(f=10000000)", "FPOGX", "FPOGY",
        "FPOGS", "FPOGD", "FPOGID", "FPOGV", "BPOGX", "BPOGY", "BPOGV", "CX", "CY", "CS", "KB", "KBS", "USER", "LPCX",
        "LPCY", "LPD", "LPS", "LPV", "RPCX", "RPCY", "RPD", "RPS", "RPV", "BKID", "BKDUR", "BKPMIN", "LPMM", "LPMMV",
        "RPMM", "RPMMV", "SACCADE_MAG", "SACCADE_DIR", "VID_FRAME",
    ]  # fmt: skip
    if eyes:
        header[14:14] = ["LPOGX", "LPOGY", "LPOGV", "RPOGX", "RPOGY", "RPOGV"]
    time, share = gaze(60.0)
    rows = []
    for number, moment in enumerate(time.tolist()):
        look = min(int(moment / LOOK_S), len(LOOKS) - 1)
        since = moment - look * LOOK_S
        x, y = share[number].round(5).tolist()
        valid = int(number != 9)
        each = [x - 0.001, y, valid, x + 0.001, y, valid] if eyes else []
        name = names[min(number * len(names) // len(time), len(names) - 1)]
        rows.append(
            [look, name, number, f"{moment:.5f}", round(7e9 + 1e7 * moment), *LOOKS[look], f"{look * LOOK_S:.5f}",
             f"{since:.5f}", look + 1, int(since > 0.05), x, y, valid, *each, 0.5, 0.5, 0, "", 0, "", 0.4, 0.5, 14.2,
             1.0, 1, 0.6, 0.5, 14.5, 1.0, 1, 0, 0.0, 12, 3.3, 1, 3.4, 1, 0.0, 0.0, 0]
        )  # fmt: skip
    return _joined([header, *rows], ",")


def pupil_surface() -> str:
    """Return gaze on a surface, 200 Hz, from its bottom left corner."""
    header = ["world_timestamp", "world_index", "gaze_timestamp", "x_norm", "y_norm", "x_scaled", "y_scaled",
              "on_surf", "confidence"]  # fmt: skip
    time, share = gaze(200.0)
    rows = [
        [f"{5321 + moment:.6f}", int(moment * 30), f"{5321 + moment:.6f}", f"{x:.8f}", f"{1 - y:.8f}", f"{x:.8f}",
         f"{1 - y:.8f}", "True", 0.3 if number == 12 else 0.98]
        for number, (moment, (x, y)) in enumerate(zip(time.tolist(), share.tolist(), strict=True))
    ]  # fmt: skip
    return _joined([header, *rows], ",")


def marker_mapper() -> str:
    """Return the gaze.csv of Pupil Cloud's Marker Mapper, 200 Hz, from the top left corner."""
    header = ["section id", "recording id", "timestamp [ns]", "gaze detected on surface",
              "gaze position on surface x [normalized]", "gaze position on surface y [normalized]", "fixation id",
              "blink id"]  # fmt: skip
    time, share = gaze(200.0)
    rows = [
        [
            "s-1",
            "r-1",
            1_700_000_000_000_000_000 + round(1e9 * moment),
            "True",
            f"{x:.6f}",
            f"{y:.6f}",
            "",
            "",
        ]
        for moment, (x, y) in zip(time.tolist(), share.tolist(), strict=True)
    ]
    return _joined([header, *rows], ",")


Channel = tuple[str, str, str, str, str]
"""Label, eye, type, unit, system."""
BINOCULAR: tuple[Channel, ...] = (
    ("left_x", "left", "ScreenX", "normalized", "image-space"),
    ("left_y", "left", "ScreenY", "normalized", "image-space"),
    ("right_x", "right", "ScreenX", "normalized", "image-space"),
    ("right_y", "right", "ScreenY", "normalized", "image-space"),
    ("left_pupil", "left", "Diameter", "mm", ""),
    ("right_pupil", "right", "Diameter", "mm", ""),
)


def _number(value: int) -> bytes:
    return b"\x01" + bytes([value]) if value < 256 else b"\x04" + struct.pack("<I", value)


def _chunk(tag: int, content: bytes) -> bytes:
    return _number(len(content) + 2) + struct.pack("<H", tag) + content


def _header(stream: int, name: str, type: str, form: str, rate: float, channels: Sequence[Channel]) -> bytes:
    parts = ("label", "eye", "type", "unit", "coordinate_system")
    described = "".join(
        "<channel>"
        + "".join(f"<{p}>{escape(v)}</{p}>" for p, v in zip(parts, channel, strict=True) if v)
        + "</channel>"
        for channel in channels
    )
    xml = (
        f'<?xml version="1.0"?><info><name>{escape(name)}</name><type>{type}</type>'
        f"<channel_count>{len(channels)}</channel_count><nominal_srate>{rate}</nominal_srate>"
        f"<channel_format>{form}</channel_format><source_id>{name}-1</source_id><version>1.1</version>"
        f"<created_at>10.0</created_at><desc><channels>{described}</channels></desc></info>"
    )
    return _chunk(2, struct.pack("<I", stream) + xml.encode())


def xdf(
    *,
    streams: Sequence[tuple[str, Sequence[Channel]]] = (("Tracker", BINOCULAR),),
    scale: tuple[float, float] = (1.0, 1.0),
    markers: Sequence[tuple[float, str]] = ((0.1, "show case_0.png"), (0.8, "case_1.png"), (1.5, "blank")),
) -> bytes:
    """Return an XDF file of gaze streams of 120 Hz and one of markers."""
    out = [b"XDF:", _chunk(1, b'<?xml version="1.0"?><info><version>1.0</version></info>')]
    time, share = gaze()
    for number, (name, channels) in enumerate(streams, 1):
        out.append(_header(number, name, "Gaze", "double64", 120.0, channels))
    out.append(_header(99, "Markers", "Markers", "string", 0, [("marker", "", "", "", "")]))
    for number, (_, channels) in enumerate(streams, 1):
        values: list[Any] = []
        for label, _, kind, _, _ in channels:
            axis = {"ScreenX": 0, "ScreenY": 1}.get(kind) if kind else "xy".index(label[-1])
            values.append(np.full(len(time), 3.4) if axis is None else share[:, axis] * scale[axis])
        table = np.stack(values, axis=1)
        for start in range(0, len(time), 30):
            rows = range(start, min(start + 30, len(time)))
            content = struct.pack("<I", number) + _number(len(rows))
            content += b"".join(
                b"\x08" + struct.pack("<d", 100 + time[row]) + table[row].astype("<f8").tobytes()
                for row in rows
            )
            out.append(_chunk(3, content))
            out.append(_chunk(5, bytes.fromhex("43a546dccbf5410fb30ed5467383cbe4")))
        for moment in (100.0, 101.0):
            out.append(_chunk(4, struct.pack("<Idd", number, moment, 0.0)))
    for moment, text in markers:
        data = text.encode()
        out.append(_chunk(3, struct.pack("<I", 99) + _number(1) + b"\x08" + struct.pack("<d", 100 + moment)
                          + _number(len(data)) + data))  # fmt: skip
    return b"".join(out)


def written(path: Path, content: str | bytes, encoding: str = "utf-8") -> Path:
    """Write a file and return where it is."""
    path.write_bytes(content if isinstance(content, bytes) else content.encode(encoding))
    return path


def every_format() -> dict[str, tuple[str, bytes, Known]]:
    """Return one whole file of each layout: its name, its content, and what has to be said of it."""
    return {
        "Pro Lab": ("pro_lab.tsv", pro_lab().encode(), Known()),
        "Pro Lab, UTF-16": ("pro_lab16.tsv", pro_lab(old=True, comma=True).encode("utf-16"), Known()),
        "Studio": ("studio.tsv", studio().encode("utf-8-sig"), Known(screen_mm=SCREEN_MM)),
        "EyeLink": ("eyelink.asc", eyelink().encode(), Known()),
        "EyeLink, one eye": ("mono.asc", eyelink(both=False).encode(), Known()),
        "Gazepoint": ("User 0_all_gaze.csv", gazepoint(eyes=True).encode(), KNOWN),
        "Pupil surface": ("gaze_positions_on_surface_Screen.csv", pupil_surface().encode(), KNOWN),
        "Marker Mapper": ("gaze.csv", marker_mapper().encode(), KNOWN),
        "XDF": ("recording.xdf", xdf(), KNOWN),
    }
