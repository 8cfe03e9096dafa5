"""The recording on disk: an append-only file of checked frames that a crash can shorten but not spoil.

``gaze.frames`` is the truth (see :mod:`gaze_capture.frames`). The first frame is the header; samples travel as rows
of :data:`~gaze_capture.recording.SAMPLE`, everything else as JSON. ``recording.json`` beside it is written when the
recording ends and sums it up, with the file's SHA-256.
"""

from __future__ import annotations

import contextlib
import json
import os
import queue
import threading
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np

from gaze_capture.errors import UserError
from gaze_capture.frames import (
    DAMAGED,
    LONGEST_PAYLOAD,
    READ_WRITE,
    append,
    frame,
    frames,
    lock,
    sync,
    sync_folder,
)
from gaze_capture.recording import (
    SAMPLE,
    Calibration,
    EventKind,
    Float32s,
    Placement,
    Presence,
    Recording,
    RecordingEvent,
    Samples,
    ScreenGeometry,
)
from gaze_capture.spans import advancing
from gaze_capture.storage import explained_os_errors, sha256_of, write_bytes_atomic, write_json_atomic

FRAMES_NAME = "gaze.frames"
SUMMARY_NAME = "recording.json"
MAGIC = b"GAZEFRM1"
SCHEMA = 1

# Readers pass over kinds they do not know: a kind may be added without a new schema.
_HEADER, _SAMPLES, _PLACEMENT_START, _PLACEMENT_END, _END, _EVENT = range(6)

_WRITE_EVERY_S = 0.05
_SYNC_EVERY_S = 1.0


@dataclass(frozen=True)
class RecordingHeader:
    """What is known before the first sample; the fields are those of :class:`Recording`."""

    id: str
    annotator: str
    tracker: str
    geometry: ScreenGeometry
    started_utc: str
    calibration: Calibration | None = None
    simulated_from: str | None = None
    notes: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class RecordingCounts:
    """Samples the tracker should have delivered, those it did, and those on disk."""

    expected: int
    received: int
    stored: int


@dataclass(frozen=True)
class Recovered:
    """What :func:`recover` saved of a recording that a crash cut off."""

    recording: str
    stored: int
    """Samples on disk."""
    last_time_ns: int | None
    """Host time of the last of them; None if there are none."""
    lost_bytes: int
    """Bytes of the torn tail, which are kept aside in gaze.tail."""


@dataclass(frozen=True)
class WriterLatency:
    """How long blocks of samples waited for the operating system, in whole ms."""

    p50: int
    p99: int
    max: int


class _Latencies:
    """Counts latencies by the millisecond, in constant memory."""

    _LONGEST_MS = 10_000

    def __init__(self) -> None:
        self._counts = np.zeros(self._LONGEST_MS + 1, dtype=np.int64)

    def add(self, since_ns: Sequence[int], now_ns: int) -> None:
        ms = (now_ns - np.array(since_ns, dtype=np.int64)) // 1_000_000
        np.add.at(self._counts, np.clip(ms, 0, self._LONGEST_MS), 1)

    def found(self) -> WriterLatency | None:
        below = np.cumsum(self._counts)
        if not below[-1]:
            return None
        p50, p99, longest = (int(np.searchsorted(below, share * below[-1])) for share in (0.5, 0.99, 1.0))
        return WriterLatency(p50, p99, longest)


class RecordingWriter:
    """Writes one recording; callers only enqueue, a thread of its own owns the disk.

    What was handed over is with the operating system within 100 ms and on the disk within about a second. When
    writing fails (disk full, folder removed), the recording stops: the next call and :meth:`close` raise
    :class:`UserError`, :attr:`failure` tells it without raising, and everything before stays readable.

    Parameters
    ----------
    folder
        The recording's own folder, made if missing; it must not hold a recording yet.
    """

    def __init__(self, folder: Path, header: RecordingHeader) -> None:
        self.folder = folder
        self.header = header
        self._path = folder / FRAMES_NAME
        self._queue: queue.SimpleQueue[tuple[int, bytes] | None] = queue.SimpleQueue()
        self._handed_over_ns: queue.SimpleQueue[int] = queue.SimpleQueue()
        self._latency = _Latencies()
        self._failure: UserError | None = None
        self._counts: RecordingCounts | None = None
        self._received = 0
        self._stored = 0
        self._placements = 0
        self._open: dict[int, int] = {}
        self._first_ns: int | None = None
        self._last_ns: int | None = None
        self._ended = threading.Event()
        with explained_os_errors(folder):
            folder.mkdir(parents=True, exist_ok=True)
            try:
                self._descriptor = os.open(self._path, READ_WRITE | os.O_CREAT | os.O_EXCL, 0o644)
            except FileExistsError:
                raise UserError(f"{folder} holds a recording already, which is never overwritten.") from None
            try:
                lock(self._descriptor)
                self._length = 0
                self._append(MAGIC + frame(_HEADER, _json_bytes({"schema": SCHEMA, **asdict(header)})))
                sync(self._descriptor)
                sync_folder(folder)
            except BaseException:
                os.close(self._descriptor)
                raise
        self._threads = [
            threading.Thread(target=self._write_frames, name="recording writer", daemon=True),
            threading.Thread(target=self._sync_now_and_then, name="recording sync", daemon=True),
        ]
        for thread in self._threads:
            thread.start()

    @property
    def failure(self) -> UserError | None:
        """Why writing stopped, or None."""
        return self._failure

    @property
    def stored(self) -> int:
        """Samples handed to the operating system so far."""
        return self._stored

    @property
    def latency(self) -> WriterLatency | None:
        """How long blocks of samples took from :meth:`add_samples` to the operating system; None before the first."""
        return self._latency.found()

    def add_samples(self, samples: Samples) -> None:
        """Enqueue samples (N,) of dtype :data:`SAMPLE`, later than all before. Never waits for the disk."""
        self._check_open()
        if len(samples) == 0:
            return
        if samples.dtype != SAMPLE:
            raise ValueError(f"samples of dtype {samples.dtype}")
        if self._first_ns is None:
            self._first_ns = int(samples["time_ns"][0])
        self._last_ns = int(samples["time_ns"][-1])
        self._received += len(samples)
        self._handed_over_ns.put(time.monotonic_ns())
        self._queue.put((_SAMPLES, samples.tobytes()))

    def start_placement(self, placement: Placement) -> int:
        """Enqueue the start of a placement (its `end_ns` and `presence` come later); return its number."""
        self._check_open()
        number = self._placements
        self._placements += 1
        self._open[number] = placement.start_ns
        values = {
            "number": number,
            "image_id": placement.image_id,
            "target_id": placement.target_id,
            "start_ns": placement.start_ns,
            "image_from_screen": placement.image_from_screen.tolist(),
            "viewport_px": placement.viewport_px,
            "window_level": placement.window_level,
            "instance": placement.instance,
        }
        self._queue.put((_PLACEMENT_START, _json_bytes(values)))
        return number

    def end_placement(self, number: int, end_ns: int, presence: Presence | None = None) -> None:
        """Enqueue the end of a placement and the annotator's word on its target."""
        self._check_open()
        del self._open[number]
        values = {"number": number, "end_ns": end_ns, "presence": presence}
        self._queue.put((_PLACEMENT_END, _json_bytes(values)))

    def add_event(self, kind: EventKind, time_ns: int, values: dict[str, Any]) -> None:
        """Enqueue an event; `values` must be JSON without NaN."""
        self._check_open()
        self._queue.put((_EVENT, _json_bytes({"time_ns": time_ns, "kind": kind, "values": values})))

    def close(self, expected: int | None = None) -> RecordingCounts:
        """End the recording and write recording.json; calling it again only returns the counts again.

        Parameters
        ----------
        expected
            Samples the tracker should have delivered; as many as were received if not given.

        Raises
        ------
        UserError
            If writing failed; what was stored before is intact.
        """
        if self._counts is not None:
            self._check()
            return self._counts
        expected = self._received if expected is None else expected
        if self._failure is None:
            for number, start_ns in sorted(self._open.items()):
                self.end_placement(number, max(self._last_ns or 0, start_ns))
            counts = RecordingCounts(expected, self._received, self._received)
            self._queue.put((_END, _json_bytes(asdict(counts))))
        self._queue.put(None)
        for thread in self._threads:
            thread.join()
        self._counts = RecordingCounts(expected, self._received, self._stored)
        try:
            with explained_os_errors(self._path):
                self._sync_and_look()
        except UserError as error:
            self._failure = self._failure or error
        finally:
            os.close(self._descriptor)
        self._check()
        _write_summary(
            self.folder,
            self.header,
            self._counts,
            self._first_ns,
            self._last_ns,
            self._placements,
            writer_latency_ms=asdict(self.latency) if self.latency else None,
        )
        return self._counts

    def __enter__(self) -> RecordingWriter:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if error is None:
            self.close()
        else:
            # The first error is the one worth telling.
            with contextlib.suppress(UserError):
                self.close()

    def _check(self) -> None:
        if self._failure is not None:
            raise self._failure

    def _check_open(self) -> None:
        self._check()
        if self._counts is not None:
            raise RuntimeError("the recording has been closed")

    def _append(self, data: bytes) -> None:
        append(self._descriptor, data)
        self._length += len(data)

    def _write_frames(self) -> None:
        """Collect what callers hand over, and write it every 50 ms; neighbouring samples share a frame."""
        try:
            running = True
            while running:
                entries = [self._queue.get()]
                if entries[0] is not None and entries[0][0] == _SAMPLES:
                    time.sleep(_WRITE_EVERY_S)
                with contextlib.suppress(queue.Empty):
                    while True:
                        entries.append(self._queue.get_nowait())
                running = entries[-1] is not None
                data, rows = _frames_of([entry for entry in entries if entry is not None])
                with explained_os_errors(self._path):
                    self._append(data)
                self._stored += rows
                blocks = sum(entry is not None and entry[0] == _SAMPLES for entry in entries)
                self._latency.add([self._handed_over_ns.get() for _ in range(blocks)], time.monotonic_ns())
        except Exception as error:
            told = (
                error
                if isinstance(error, UserError)
                else UserError(f"{self._path} could not be written: {error}.")
            )
            self._failure = self._failure or told
            # Half a frame at the end would be dropped by readers anyway; a full disk lets us shorten.
            with contextlib.suppress(OSError):
                os.ftruncate(self._descriptor, self._length)
        finally:
            self._ended.set()

    def _sync_now_and_then(self) -> None:
        """Push to the disk from a second thread, as a busy disk may make that wait longer than 100 ms."""
        while not self._ended.wait(_SYNC_EVERY_S):
            try:
                with explained_os_errors(self._path):
                    self._sync_and_look()
            except UserError as error:
                self._failure = self._failure or error
                return

    def _sync_and_look(self) -> None:
        sync(self._descriptor)
        # Writing into a removed file succeeds on POSIX; nobody would ever find it.
        if not self._path.exists() or os.fstat(self._descriptor).st_nlink == 0:
            raise UserError(
                f"{self._path} was removed or its drive is gone: the recording stopped. "
                "Bring the folder back or choose another one, then record again."
            )


def _frames_of(entries: list[tuple[int, bytes]]) -> tuple[bytes, int]:
    """Return the frames of queued entries in order, and how many samples they hold."""
    parts: list[bytes] = []
    rows: list[bytes] = []
    count = 0
    for kind, payload in [*entries, (_END, b"")]:
        if kind == _SAMPLES:
            rows.append(payload)
            continue
        if rows:
            joined = b"".join(rows)
            count += len(joined) // SAMPLE.itemsize
            step = LONGEST_PAYLOAD // SAMPLE.itemsize * SAMPLE.itemsize
            parts += [frame(_SAMPLES, joined[start : start + step]) for start in range(0, len(joined), step)]
            rows = []
        if payload:
            parts.append(frame(kind, payload))
    return b"".join(parts), count


def _json_bytes(value: Any) -> bytes:
    return json.dumps(value, ensure_ascii=False, allow_nan=False).encode()


def _write_summary(
    folder: Path,
    header: RecordingHeader,
    counts: RecordingCounts,
    first_ns: int | None,
    last_ns: int | None,
    placements: int,
    **more: Any,
) -> None:
    duration_s = 0.0 if first_ns is None or last_ns is None else (last_ns - first_ns) / 1e9
    values = {
        "schema": SCHEMA,
        **asdict(header),
        "samples": asdict(counts),
        "duration_s": round(duration_s, 6),
        "placements": placements,
        "sha256": {FRAMES_NAME: sha256_of(folder / FRAMES_NAME)},
        **more,
    }
    write_json_atomic(folder / SUMMARY_NAME, values)


@dataclass
class _Content:
    """Everything a file of frames says."""

    header: RecordingHeader
    samples: Samples
    placements: list[Placement]
    events: list[RecordingEvent]
    open_placements: list[dict[str, Any]]
    """The frames that would end the placements that nothing ended."""
    end: dict[str, Any] | None
    whole_bytes: int
    """Length of the file up to the torn tail."""
    lost_bytes: int
    damaged_frames: int
    """Frames in the middle whose checksum was wrong; their content was left out."""


def _read(path: Path) -> _Content:
    with explained_os_errors(path):
        data = path.read_bytes()
    if not data.startswith(MAGIC):
        cut = MAGIC.startswith(data)
        raise UserError(
            f"{path} holds no recording: it was cut off before the first sample; the folder can be removed."
            if cut
            else f"{path} is not a recording of Gaze Insight, or its beginning is damaged. Restore it from a backup."
        )
    rows: list[bytes] = []
    starts: dict[int, dict[str, Any]] = {}
    ends: dict[int, dict[str, Any]] = {}
    events: list[RecordingEvent] = []
    header: RecordingHeader | None = None
    end: dict[str, Any] | None = None
    whole, damaged = len(MAGIC), 0
    try:
        for kind, payload, stop in frames(data, len(MAGIC)):
            whole = stop
            if header is None:
                if kind != _HEADER:
                    break
                header = _header_of(path, json.loads(payload))
            elif kind == _SAMPLES:
                rows.append(payload)
            elif kind in (_PLACEMENT_START, _PLACEMENT_END):
                values = json.loads(payload)
                (starts if kind == _PLACEMENT_START else ends)[values["number"]] = values
            elif kind == _END:
                end = json.loads(payload)
            elif kind == _EVENT:
                values = json.loads(payload)
                events.append(RecordingEvent(values["time_ns"], values["kind"], values["values"]))
            elif kind == DAMAGED:
                damaged += 1
        if header is None:
            raise UserError(f"{path} is damaged: its header cannot be read. Restore it from a backup.")
        samples = np.frombuffer(b"".join(rows), dtype=SAMPLE)
        last_ns = int(samples["time_ns"][-1]) if len(samples) else 0
        still_open = [
            {"number": number, "end_ns": max(last_ns, values["start_ns"]), "presence": None}
            for number, values in sorted(starts.items())
            if number not in ends
        ]
        ends |= {values["number"]: values for values in still_open}
        placements = [_placement_of(values, ends[number]) for number, values in sorted(starts.items())]
    except (KeyError, TypeError, ValueError) as error:
        raise UserError(f"{path} is damaged ({error}). Restore it from a backup.") from None
    return _Content(header, samples, placements, events, still_open, end, whole, len(data) - whole, damaged)


def _header_of(path: Path, values: dict[str, Any]) -> RecordingHeader:
    schema = values.pop("schema")
    if schema > SCHEMA:
        raise UserError(f"{path} was made by a newer Gaze Insight (schema {schema}). Update the program.")
    values["geometry"] = ScreenGeometry(**values["geometry"])
    values["calibration"] = values["calibration"] and Calibration(**values["calibration"])
    return RecordingHeader(**values)


def _placement_of(start: dict[str, Any], end: dict[str, Any]) -> Placement:
    x, y, width, height = start["viewport_px"]
    window_level = start["window_level"]
    return Placement(
        image_id=start["image_id"],
        target_id=start["target_id"],
        start_ns=start["start_ns"],
        end_ns=end["end_ns"],
        image_from_screen=np.array(start["image_from_screen"], dtype=np.float64).reshape(3, 3),
        viewport_px=(x, y, width, height),
        window_level=(window_level[0], window_level[1]) if window_level else None,
        presence=end["presence"],
        # Recordings from before lesions were told apart have none.
        instance=start.get("instance"),
    )


def read_recording(folder: Path, *, raw: bool = False) -> Recording:
    """Read a recording, finished or not.

    Samples whose times do not ascend (repeated, out of order, or of a clock that was set back) stay in the file and are
    left out here, their number told as ``out_of_order``, unless they are asked for as they came (`raw`). What is not
    whole is left out and told in the notes: ``lost_bytes`` of a torn tail, ``damaged_frames`` in the
    middle, ``cut_off`` if the recording never ended, ``open_placements`` that end with the last sample.

    Raises
    ------
    UserError
        If there is no recording, its header is damaged, or a newer version made it.
    """
    content = _read(folder / FRAMES_NAME)
    notes = dict(content.header.notes)
    if content.lost_bytes:
        notes["lost_bytes"] = content.lost_bytes
    if content.damaged_frames:
        notes["damaged_frames"] = content.damaged_frames
    if content.end is None:
        notes["cut_off"] = True
    if content.open_placements:
        notes["open_placements"] = len(content.open_placements)
    samples, header = content.samples, content.header
    if not raw:
        kept = advancing(samples["time_ns"])
        if len(kept) < len(samples):
            notes["out_of_order"] = len(samples) - len(kept)
            samples = samples[kept]
    return Recording(
        id=header.id,
        annotator=header.annotator,
        tracker=header.tracker,
        geometry=header.geometry,
        calibration=header.calibration or _validated(content.events),
        started_utc=header.started_utc,
        time_ns=np.ascontiguousarray(samples["time_ns"]),
        device_time_ns=np.ascontiguousarray(samples["device_time_ns"]),
        left_xy=_pair(samples, "left_x", "left_y"),
        right_xy=_pair(samples, "right_x", "right_y"),
        pupil_mm=_pair(samples, "pupil_left", "pupil_right"),
        placements=tuple(content.placements),
        events=tuple(content.events),
        simulated_from=header.simulated_from,
        notes=notes,
    )


def _validated(events: list[RecordingEvent]) -> Calibration | None:
    """Return what the last validation of a sitting found."""
    found = [event.values["summary"] for event in events if event.kind == "validation"]
    return Calibration(**found[-1]) if found and found[-1] is not None else None


def _pair(samples: Samples, first: str, second: str) -> Float32s:
    return np.stack([samples[first], samples[second]], axis=1)


def needs_recovery(folder: Path) -> bool:
    """Return whether a recording was begun here and never ended; it may also still be running."""
    return (folder / FRAMES_NAME).exists() and not (folder / SUMMARY_NAME).exists()


def recover(folder: Path) -> Recovered:
    """Finish a recording that a crash cut off; one that ended well is left as it is.

    The torn tail moves to ``gaze.tail``, open placements end with the last sample, and recording.json is written.

    Raises
    ------
    UserError
        If another process is still recording here, the header is damaged, or the folder is not writable.
    """
    path = folder / FRAMES_NAME
    with explained_os_errors(path):
        descriptor = os.open(path, READ_WRITE)
        try:
            if not lock(descriptor):
                raise UserError(f"{folder} is being recorded right now; stop that recording first.")
            content = _read(path)
            times = content.samples["time_ns"]
            first_ns, last_ns = (int(times[0]), int(times[-1])) if len(times) else (None, None)
            stored = len(times)
            result = Recovered(content.header.id, stored, last_ns, content.lost_bytes)
            if content.end is not None and content.lost_bytes == 0 and not needs_recovery(folder):
                return result
            if content.lost_bytes:
                tail = path.read_bytes()[content.whole_bytes :]
                write_bytes_atomic(folder / "gaze.tail", tail)
                os.ftruncate(descriptor, content.whole_bytes)
            counts = RecordingCounts(stored, stored, stored)
            ending = [frame(_PLACEMENT_END, _json_bytes(values)) for values in content.open_placements]
            if content.end is None:
                ending.append(frame(_END, _json_bytes({**asdict(counts), "recovered": True})))
            else:
                counts = RecordingCounts(content.end["expected"], content.end["received"], stored)
            os.lseek(descriptor, 0, os.SEEK_END)
            append(descriptor, b"".join(ending))
            sync(descriptor)
        finally:
            os.close(descriptor)
    _write_summary(
        folder,
        content.header,
        counts,
        first_ns,
        last_ns,
        len(content.placements),
        recovered={
            "lost_bytes": content.lost_bytes,
            "damaged_frames": content.damaged_frames,
            # Once for all: how much should have come was to be told at the end.
            "cut_off": content.end is None or content.end.get("recovered", False),
        },
    )
    return result
