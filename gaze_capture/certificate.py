"""What a recording is worth as a measurement, in numbers: what was lost, how the clocks ran, how gaze was validated.

Written as ``certificate.json`` when a recording ends or is recovered, after its archive, whose hashes it names. All of
it is found from the recording itself: made again, it says the same.
"""

from __future__ import annotations

import contextlib
import datetime
import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from gaze_capture.archive import check_frames, program, write_archive
from gaze_capture.errors import UserError
from gaze_capture.quality import Validation
from gaze_capture.recording import Floats, Int64s, Recording, RecordingEvent, eye_positions
from gaze_capture.recording_codec import read_recording
from gaze_capture.storage import explained_os_errors, read_json, sha256_of, write_json_atomic

CERTIFICATE_NAME = "certificate.json"
CERTIFICATE_SCHEMA = 1

GAP_INTERVALS = 1.5
"""Two samples further apart than so many nominal intervals have a gap between them."""
JUMP_NS = 20_000_000
"""Clocks that part by more from one sample to the next, and stay so, have jumped; jitter is less, or passes."""
JUMP_PPM = 200.0
"""Clocks may part by so much in a pause between samples without a jump."""
SHORTEST_DRIFT_S = 10.0
"""Over less, the jitter of delivery looks like drift."""

_AROUND_JUMP = 10
_BLOCKS = 300


@dataclass(frozen=True)
class Gaps:
    """Samples that never came: host intervals beyond :data:`GAP_INTERVALS` nominal ones, jumps of the clock apart."""

    count: int
    longest_ms: float
    """From the sample before to the sample after; 0 where there is none."""
    total_ms: float
    missing_samples: int
    """How many would have filled them at the nominal rate."""


@dataclass(frozen=True)
class ClockJump:
    """Host and device time parted from one sample to the next."""

    at_s: float
    """Of the sample after it, since the first sample."""
    clock: str
    """``host`` or ``device``: the one whose own interval is further from the nominal one."""
    by_ms: float
    """How much further host time is ahead of device time than before."""


@dataclass(frozen=True)
class Clocks:
    """How the tracker's clock and the host's agreed."""

    offset_ns: int | None
    """Host minus device time as last measured; None where the tracker never measured it."""
    uncertainty_ns: int | None
    """The largest of all measurements."""
    measurements: int
    drift_ppm: float | None
    """How much faster the device's clock runs, by the median of the slopes between jumps; None below 10 s."""
    scatter_ms: float | None
    """Robust standard deviation of host minus device time about that drift."""
    jumps: tuple[ClockJump, ...]
    not_ascending: int
    """Samples that are not later than the one before; always 0 in a sound recording."""


@dataclass(frozen=True)
class DataLoss:
    """Shares of samples, 0..1, that are invalid; None without samples."""

    left: float | None
    right: float | None
    gaze: float | None
    """In which no eye that counts is valid."""


@dataclass(frozen=True)
class Connection:
    """How often the tracker was lost."""

    losses: int
    lost_s: float
    """Until it was restored, or the recording ended."""


@dataclass(frozen=True)
class Validated:
    """What one validation found, in degrees; None where a target was never seen."""

    at_s: float
    mean_error_deg: float | None
    max_error_deg: float | None
    rms_s2s_deg: float | None
    std_deg: float | None
    data_loss: float | None
    verdict: str


@dataclass(frozen=True)
class Calibrated:
    """One calibration."""

    at_s: float
    """Since the first sample; negative before it."""
    eyes: str
    points: int
    saved_utc: str | None
    """When it was saved, where a saved one was used again."""


@dataclass(frozen=True)
class DriftChecked:
    """One drift check."""

    at_s: float
    distance_deg: float
    verdict: str


@dataclass(frozen=True)
class Certificate:
    """The certificate of one recording."""

    recording: str
    annotator: str
    tracker: str
    started_utc: str
    duration_s: float
    simulated_from: str | None
    """``masks`` or ``saliency`` where no person looked."""
    samples: dict[str, int | None]
    """``expected`` (None where a crash kept it from being told), ``received`` and ``stored``."""
    nominal_hz: float | None
    stored_hz: float | None
    """Samples a second."""
    effective_hz: float | None
    """Valid samples a second."""
    gaps: Gaps
    data_loss: DataLoss
    clocks: Clocks
    connection: Connection
    calibrations: tuple[Calibrated, ...]
    validated_before: dict[str, Any] | None
    """The :class:`~gaze_capture.recording.Calibration` that the recording began with."""
    validations: tuple[Validated, ...]
    drift_checks: tuple[DriftChecked, ...]
    writer_latency_ms: dict[str, int] | None
    """How long blocks of samples waited for the operating system: ``p50``, ``p99``, ``max``; None once recovered."""
    recovered: dict[str, Any] | None
    """``lost_bytes``, ``damaged_frames`` and ``cut_off``, where the recording had to be recovered."""
    archive_failed: str | None
    """Why there is no gaze.parquet."""
    sha256: dict[str, str]
    """Hashes by file name, as recording.json keeps them."""
    program: str
    written_utc: str

    def to_json(self) -> dict[str, Any]:
        """Return it as JSON values."""
        return {"schema": CERTIFICATE_SCHEMA, **asdict(self)}

    @classmethod
    def from_json(cls, values: dict[str, Any]) -> Certificate:
        """Invert :meth:`to_json`; raises ``KeyError`` or ``TypeError`` where it does not fit."""
        values = {name: value for name, value in values.items() if name != "schema"}
        clocks = values["clocks"]
        parts = {
            "gaps": Gaps(**values["gaps"]),
            "data_loss": DataLoss(**values["data_loss"]),
            "clocks": Clocks(**{**clocks, "jumps": tuple(ClockJump(**jump) for jump in clocks["jumps"])}),
            "connection": Connection(**values["connection"]),
            "calibrations": tuple(Calibrated(**one) for one in values["calibrations"]),
            "validations": tuple(Validated(**one) for one in values["validations"]),
            "drift_checks": tuple(DriftChecked(**one) for one in values["drift_checks"]),
        }
        return cls(**{**values, **parts})


def conclude(folder: Path) -> None:
    """Archive and certify a recording that has ended.

    The recording is safe without either: what fails (a full disk, a missing package) is told in recording.json where
    that can be written, and ``gaze-insight recover`` makes it up.
    """
    with contextlib.suppress(UserError):
        write_archive(folder)
    with contextlib.suppress(UserError):
        write_certificate(folder)


def write_certificate(folder: Path) -> Certificate:
    """Certify a finished recording and write certificate.json.

    Raises
    ------
    UserError
        If the recording is damaged, not finished or not what was recorded, or the disk refuses.
    """
    certificate = certify(read_recording(folder), check_frames(folder))
    write_json_atomic(folder / CERTIFICATE_NAME, certificate.to_json(), within=folder)
    return certificate


def read_certificate(folder: Path) -> Certificate | None:
    """Read a recording's certificate; None where there is none.

    Raises
    ------
    UserError
        If it is damaged, or a newer version made it.
    """
    path = folder / CERTIFICATE_NAME
    if not path.exists():
        return None
    values = read_json(path)
    try:
        if values["schema"] > CERTIFICATE_SCHEMA:
            raise UserError(
                f"{path} was made by a newer Gaze Insight (schema {values['schema']}). Update the program."
            )
        return Certificate.from_json(values)
    except (AttributeError, KeyError, TypeError) as error:
        raise UserError(
            f"{path} is damaged ({error}). Delete it, and make it again: gaze-insight recover STUDY"
        ) from None


def certificate_of(folder: Path) -> Certificate:
    """Return a finished recording's certificate: the one written when it ended, or one found now; writes nothing.

    Raises
    ------
    UserError
        If either is damaged, or the recording is not finished or not what was recorded.
    """
    return read_certificate(folder) or certify(read_recording(folder), check_frames(folder))


def changed_files(folder: Path, certificate: Certificate) -> list[str]:
    """Return the names of the files that are missing or no longer have the hash that the certificate gives."""
    with explained_os_errors(folder):
        return [
            name
            for name, digest in certificate.sha256.items()
            if not (folder / name).exists() or sha256_of(folder / name) != digest
        ]


def certify(recording: Recording, summary: dict[str, Any]) -> Certificate:
    """Return the certificate of a recording, `summary` being what its recording.json says."""
    times = recording.time_ns
    seconds = float(times[-1] - times[0]) / 1e9 if len(times) > 1 else 0.0
    valid = np.isfinite(eye_positions(recording.samples, recording.eyes)[:, 0])
    nominal_ns = _nominal_intervals(recording)
    jumps = _jumps(recording, nominal_ns)
    recovered = summary.get("recovered")
    counts: dict[str, int | None] = dict(summary["samples"])
    if recovered is not None and recovered.get("cut_off", True):
        counts["expected"] = None
    rate = recording.notes.get("rate_hz")
    # The first sample is not at the end of an interval of its own.
    per_second = (len(times) - 1) / len(times) / seconds if seconds else None
    return Certificate(
        recording=recording.id,
        annotator=recording.annotator,
        tracker=recording.tracker,
        started_utc=recording.started_utc,
        duration_s=round(seconds, 3),
        simulated_from=recording.simulated_from,
        samples=counts,
        nominal_hz=float(rate) if rate else None,
        stored_hz=None if per_second is None else round(len(times) * per_second, 3),
        effective_hz=None if per_second is None else round(int(valid.sum()) * per_second, 3),
        gaps=_gaps(times, nominal_ns, [number for number, jump in jumps if jump.clock == "host"]),
        data_loss=_data_loss(recording, valid),
        clocks=_clocks(recording, jumps),
        connection=_connection(recording),
        calibrations=tuple(
            Calibrated(
                _since_first(recording, event), event.values.get("eyes", "both"),
                event.values.get("points_n", 0), event.values.get("saved_utc"),
            )
            for event in recording.events if event.kind == "calibration"
        ),
        validated_before=summary.get("calibration"),
        validations=tuple(
            _validated(_since_first(recording, event), event)
            for event in recording.events if event.kind == "validation"
        ),
        drift_checks=tuple(
            DriftChecked(
                _since_first(recording, event), round(float(event.values["distance_deg"]), 4),
                event.values.get("verdict", ""),
            )
            for event in recording.events if event.kind == "drift" and "distance_deg" in event.values
        ),
        writer_latency_ms=summary.get("writer_latency_ms"),
        recovered=recovered,
        archive_failed=summary.get("archive_failed"),
        sha256=dict(summary["sha256"]),
        program=program(),
        written_utc=datetime.datetime.now(datetime.timezone.utc).isoformat(timespec="seconds"),
    )  # fmt: skip


def _since_first(recording: Recording, event: RecordingEvent) -> float:
    first_ns = int(recording.time_ns[0]) if len(recording.time_ns) else event.time_ns
    return round((event.time_ns - first_ns) / 1e9, 3)


def _validated(at_s: float, event: RecordingEvent) -> Validated:
    values = event.values
    if "validation" not in values:
        # All that others keep of it.
        summary = values.get("summary") or {}
        names = ("mean_error_deg", "max_error_deg", "rms_s2s_deg")
        mean, largest, precision = (summary.get(name) for name in names)
        return Validated(
            at_s, mean, largest, precision, None, summary.get("data_loss"), values.get("verdict", "")
        )
    found = Validation.from_json(values["validation"])

    def degrees(value: float) -> float | None:
        return round(value, 4) if math.isfinite(value) else None

    return Validated(
        at_s,
        degrees(found.mean_error_deg),
        degrees(found.max_error_deg),
        degrees(found.rms_s2s_deg),
        degrees(found.std_deg),
        round(found.data_loss, 4),
        values.get("verdict", found.verdict),
    )


def _data_loss(recording: Recording, valid: np.ndarray[Any, np.dtype[np.bool_]]) -> DataLoss:
    if not len(valid):
        return DataLoss(None, None, None)
    left, right = (float(np.isnan(eye).any(axis=1).mean()) for eye in (recording.left_xy, recording.right_xy))
    return DataLoss(round(left, 6), round(right, 6), round(1 - float(valid.mean()), 6))


def _connection(recording: Recording) -> Connection:
    losses, lost_ns = 0, 0
    since: int | None = None
    for event in recording.events:
        if event.kind != "connection":
            continue
        if event.values.get("state") == "lost":
            losses += 1
            since = event.time_ns if since is None else since
        elif since is not None:
            lost_ns += event.time_ns - since
            since = None
    if since is not None:
        ends = [event.time_ns for event in recording.events] + recording.time_ns[-1:].tolist()
        lost_ns += max(ends) - since
    return Connection(losses, round(lost_ns / 1e9, 3))


# Intervals and clocks


def _nominal_intervals(recording: Recording) -> Floats:
    """Return the nominal interval in ns (N - 1,) before each sample but the first."""
    intervals = np.diff(recording.time_ns)
    told = recording.notes.get("rate_hz")
    usual = 1e9 / told if told else float(np.median(intervals)) if len(intervals) else 1.0
    nominal = np.full(len(intervals), usual)
    changes = [event for event in recording.events if event.kind == "rate" and event.values.get("rate_hz")]
    before = usual
    for event in sorted(changes, key=lambda event: event.time_ns):
        after = 1e9 / float(event.values["rate_hz"])
        # A tracker that measures its own rate tells of it late: until then, the slower one counts.
        nominal[recording.time_ns[1:] >= event.time_ns - 1_000_000_000] = max(before, after)
        nominal[recording.time_ns[1:] >= event.time_ns] = after
        before = after
    return nominal


def _gaps(times: Int64s, nominal_ns: Floats, host_jumps: Sequence[int]) -> Gaps:
    intervals = np.diff(times).astype(np.float64)
    wide = intervals > GAP_INTERVALS * nominal_ns
    wide[list(host_jumps)] = False
    found = intervals[wide]
    return Gaps(
        count=len(found),
        longest_ms=round(float(found.max(initial=0.0)) / 1e6, 3),
        total_ms=round(float(found.sum()) / 1e6, 3),
        missing_samples=int((np.round(found / nominal_ns[wide]) - 1).sum()),
    )


def _ahead_ns(recording: Recording) -> Floats:
    """Return host minus device time (N,) in ns, as an addition to the first one's."""
    ahead = recording.time_ns - recording.device_time_ns
    found: Floats = (ahead - ahead[:1]).astype(np.float64)
    return found


def _jumps(recording: Recording, nominal_ns: Floats) -> list[tuple[int, ClockJump]]:
    """Return the jumps, each with the number of the interval that it lies in."""
    ahead = _ahead_ns(recording)
    host, device = np.diff(recording.time_ns), np.diff(recording.device_time_ns)
    allowed = np.maximum(JUMP_NS, JUMP_PPM / 1e6 * np.abs(host))
    found: list[tuple[int, ClockJump]] = []
    since = 0
    for number in np.flatnonzero(np.abs(np.diff(ahead)) > allowed):
        before = ahead[max(since, number + 1 - _AROUND_JUMP) : number + 1]
        after = ahead[number + 1 : number + 1 + _AROUND_JUMP]
        step = float(np.median(after) - np.median(before))
        # A sample delivered late steps ahead, too, but comes back.
        if abs(step) <= allowed[number]:
            continue
        off = (abs(host[number] - nominal_ns[number]), abs(device[number] - nominal_ns[number]))
        at_s = float(recording.time_ns[number + 1] - recording.time_ns[0]) / 1e9
        clock = "host" if off[0] > off[1] else "device"
        found.append((int(number), ClockJump(round(at_s, 3), clock, round(step / 1e6, 3))))
        since = int(number) + 1
    return found


def _clocks(recording: Recording, jumps: Sequence[tuple[int, ClockJump]]) -> Clocks:
    measured = [
        event.values for event in recording.events if event.kind == "clock" and "offset_ns" in event.values
    ]
    drift = _drift(recording, [number + 1 for number, _ in jumps])
    return Clocks(
        offset_ns=measured[-1]["offset_ns"] if measured else None,
        uncertainty_ns=max(values["uncertainty_ns"] for values in measured) if measured else None,
        measurements=len(measured),
        drift_ppm=None if drift is None else drift[0],
        scatter_ms=None if drift is None else drift[1],
        jumps=tuple(jump for _, jump in jumps),
        not_ascending=int((np.diff(recording.time_ns) <= 0).sum()),
    )


def _drift(recording: Recording, starts: Sequence[int]) -> tuple[float, float] | None:
    """Fit one drift to all stretches between jumps; return it in ppm, and the scatter about it in ms.

    The median of the slopes between medians of blocks (Theil and Sen): a quarter of them may be spoilt.
    """
    times, ahead = recording.time_ns, _ahead_ns(recording)
    stretches = [
        part for part in np.split(np.arange(len(times)), starts)
        if len(part) > 1 and times[part[-1]] - times[part[0]] >= SHORTEST_DRIFT_S * 1e9
    ]  # fmt: skip
    if not stretches:
        return None
    total = sum(map(len, stretches))
    slopes = []
    for part in stretches:
        blocks = np.array_split(part, min(len(part), max(4, _BLOCKS * len(part) // total)))
        at = np.array([float(np.mean(times[block] - times[0])) for block in blocks])
        medians = np.array([float(np.median(ahead[block])) for block in blocks])
        first, second = np.triu_indices(len(blocks), 1)
        apart = at[second] > at[first]
        first, second = first[apart], second[apart]
        slopes.append((medians[second] - medians[first]) / (at[second] - at[first]))
    slope = float(np.median(np.concatenate(slopes)))
    rest = []
    for part in stretches:
        left = ahead[part] - slope * (times[part] - times[0])
        rest.append(np.abs(left - np.median(left)))
    scatter = 1.4826 * float(np.median(np.concatenate(rest)))
    return round(-slope * 1e6, 3), round(scatter / 1e6, 4)
