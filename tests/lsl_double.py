"""Real LSL outlets that send gaze of known values, described as a sender of gaze should, or should not."""

from __future__ import annotations

import importlib
import itertools
import threading
import time
import uuid
from collections.abc import Sequence
from typing import Any

import numpy as np

Words = Sequence[str]
"""Label, eye, type, unit and coordinate system of a channel."""

BINOCULAR: tuple[Words, ...] = (
    ("left_x", "left", "ScreenX", "normalized", "image-space"),
    ("left_y", "left", "ScreenY", "normalized", "image-space"),
    ("right_x", "right", "ScreenX", "normalized", "image-space"),
    ("right_y", "right", "ScreenY", "normalized", "image-space"),
    ("left_pupil", "left", "Diameter", "mm", ""),
    ("right_pupil", "right", "Diameter", "mm", ""),
)
SCREEN = {
    "width_px": 1920,
    "height_px": 1080,
    "width_mm": 527.0,
    "height_mm": 296.0,
    "viewing_distance_mm": 650.0,
}

_numbers = itertools.count()


class LslSender:
    """Sends numbered samples at a rate until it is closed; `sent` holds what went out, `stamps` when it was due."""

    def __init__(
        self,
        rate_hz: float = 300.0,
        channels: Sequence[Words] = BINOCULAR,
        *,
        nominal_hz: float | None = None,
        screen: dict[str, float] | None = None,
        source_id: str | None = None,
        kind: str = "Gaze",
        running: bool = True,
        format: str = "cf_float32",
        ahead_s: float = 0.0,
    ) -> None:
        self.lsl: Any = importlib.import_module("pylsl")
        self.rate_hz = rate_hz
        self.ahead_s = ahead_s
        self.name = f"test {next(_numbers)}"
        self.source_id = f"test-{uuid.uuid4().hex[:8]}" if source_id is None else source_id
        info = self.lsl.StreamInfo(
            self.name,
            kind,
            len(channels),
            rate_hz if nominal_hz is None else nominal_hz,
            getattr(self.lsl, format),
            self.source_id,
        )
        described = info.desc().append_child("channels")
        for words in channels:
            channel = described.append_child("channel")
            for name, word in zip(("label", "eye", "type", "unit", "coordinate_system"), words, strict=False):
                if word:
                    channel.append_child_value(name, word)
        element = info.desc().append_child("screen")
        for name, value in (SCREEN if screen is None else screen).items():
            element.append_child_value(name, str(value))
        self.info = info
        self.outlet: Any = self.lsl.StreamOutlet(info)
        self.values = np.empty((0, len(channels)), np.float32)
        self.stamps = np.empty(0)
        self._channels = len(channels)
        self._closing = threading.Event()
        self.pausing = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)
        if running:
            self._thread.start()

    def push(self, values: Any, stamps: Sequence[float]) -> None:
        self.outlet.push_chunk(np.asarray(values), list(stamps))

    def _run(self) -> None:
        rng = np.random.default_rng(0)
        begin, done = self.lsl.local_clock(), 0
        blocks: list[np.ndarray[Any, Any]] = []
        stamps: list[np.ndarray[Any, Any]] = []
        while not self._closing.wait(0.002):
            due = int((self.lsl.local_clock() - begin) * self.rate_hz) + 1
            if due > done:
                block = rng.random((due - done, self._channels), dtype=np.float32) + np.float32(0.01)
                times = begin + np.arange(done, due) / self.rate_hz + self.ahead_s
                done = due
                if not self.pausing.is_set():
                    blocks.append(block)
                    stamps.append(times)
                    self.push(block, times.tolist())
        if blocks:
            self.values, self.stamps = np.concatenate(blocks), np.concatenate(stamps)

    def stop(self) -> None:
        """End the stream, as when its program ends."""
        self._closing.set()
        if self._thread.is_alive():
            self._thread.join()
        self.outlet = None

    def __enter__(self) -> LslSender:
        return self

    def __exit__(self, *error: object) -> None:
        self.stop()


def wait_until(condition: Any, seconds: float = 20.0) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.01)
