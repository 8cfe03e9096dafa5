"""What Gaze Insight publishes on the lab streaming layer: a tracker's gaze, and markers of what happens."""

from __future__ import annotations

import re
import socket
import time

import numpy as np

from gaze_capture.recording import Samples
from gaze_capture.trackers.lsl import host_ahead_ns, pylsl
from gaze_capture.trackers.lsl_layout import PUBLISHED, STREAM_TYPE, describe
from gaze_capture.trackers.tracker import EyePositions, Tracker


def _id(*words: str) -> str:
    return re.sub(r"[^a-z0-9]+", "-", "-".join(("gaze-insight", *words, socket.gethostname())).lower())


class GazeOutlet:
    """Publishes an open tracker's gaze as a stream of type "Gaze" until it is closed.

    Per eye it sends gaze normalised to the screen, pupil diameter in mm and the eye's position in mm from the
    screen's centre, as float32; NaN where invalid. Time stamps are the samples' host times on LSL's clock.

    Raises
    ------
    UserError
        If pylsl is missing.
    """

    def __init__(self, tracker: Tracker, name: str | None = None) -> None:
        lsl = pylsl()
        self._tracker = tracker
        self._ahead_ns, _ = host_ahead_ns(lsl)
        self.name = name or f"Gaze Insight {tracker.label}"
        # The same tracker on the same machine has the same id again: whoever listens reconnects by itself.
        self.source_id = f"gaze-insight-{tracker.name}-{tracker.label}-{socket.gethostname()}".replace(
            " ", "-"
        )
        info = lsl.StreamInfo(
            self.name, STREAM_TYPE, len(PUBLISHED), tracker.rate_hz, lsl.cf_float32, self.source_id
        )
        describe(info.desc(), tracker.geometry, tracker.label, tracker.simulated_from, tracker.name)
        self._outlet = lsl.StreamOutlet(info)
        self.sent = 0
        self._unsubscribe = tracker.subscribe(self._push)

    def _push(self, block: Samples) -> None:
        values = np.full((len(block), len(PUBLISHED)), np.nan, dtype=np.float32)
        half = len(PUBLISHED) // 2
        for side, eye in enumerate(("left", "right")):
            for place, name in enumerate((f"{eye}_x", f"{eye}_y", f"pupil_{eye}")):
                values[:, side * half + place] = block[name]
            if (position := _position(self._tracker.eyes, eye)) is not None:
                values[:, side * half + 3 : side * half + 6] = position
        self._outlet.push_chunk(values, ((block["time_ns"] - self._ahead_ns) / 1e9).tolist())
        self.sent += len(block)

    def close(self) -> None:
        """End the stream; the tracker stays open."""
        self._unsubscribe()
        self._outlet = None


def _position(eyes: EyePositions | None, eye: str) -> tuple[float, float, float] | None:
    if eyes is None:
        return None
    return eyes.left_mm if eye == "left" else eyes.right_mm


class MarkerOutlet:
    """Publishes events as a stream of type "Markers": one text each, such as an image shown or a key.

    Raises
    ------
    UserError
        If pylsl is missing.
    """

    def __init__(self, name: str) -> None:
        lsl = pylsl()
        self._ahead_ns, _ = host_ahead_ns(lsl)
        info = lsl.StreamInfo(name, "Markers", 1, lsl.IRREGULAR_RATE, lsl.cf_string, _id("markers", name))
        info.desc().append_child("channels").append_child("channel").append_child_value("label", "event")
        self._outlet = lsl.StreamOutlet(info)

    def push(self, text: str, time_ns: int | None = None) -> None:
        """Send an event that happened at a host time (``time.monotonic_ns()``; now if not given)."""
        time_ns = time.monotonic_ns() if time_ns is None else time_ns
        self._outlet.push_sample([text], (time_ns - self._ahead_ns) / 1e9)

    def close(self) -> None:
        """End the stream."""
        self._outlet = None
