"""A tracker of this environment as a stream that programs in others can read."""

from __future__ import annotations

import queue
import time
from collections.abc import Callable
from dataclasses import dataclass

from gaze_capture.trackers.lsl_outlet import GazeOutlet
from gaze_capture.trackers.tracker import Tracker


@dataclass(frozen=True)
class Bridged:
    """What was published."""

    stream: str
    source_id: str
    sent: int
    """Samples."""
    seconds: float


def bridge(
    tracker: Tracker,
    name: str | None = None,
    seconds: float | None = None,
    say: Callable[[str], None] = lambda text: None,
) -> Bridged:
    """Publish a tracker's gaze as an LSL stream for some seconds, or until Ctrl-C or the tracker's end.

    Parameters
    ----------
    tracker
        Not yet opened; it is closed in the end.
    name
        The stream's name; made of the tracker's label if not given.
    say
        Is told, in sentences, what is published and what happens to the tracker.

    Raises
    ------
    UserError
        If pylsl is missing or the tracker cannot be used.
    """
    told: queue.SimpleQueue[str] = queue.SimpleQueue()
    unwatch = tracker.watch(lambda event: told.put(event.text))
    try:
        tracker.open()
        outlet = GazeOutlet(tracker, name)
        screen = tracker.geometry
        say(
            f"Publishing {tracker.label} as the LSL stream {outlet.name!r} (id {outlet.source_id}): "
            f"{tracker.rate_hz:g} Hz, gaze and pupils of both eyes, on a screen of {screen.width_px} x "
            f"{screen.height_px} pixels, {screen.width_mm:g} x {screen.height_mm:g} mm. End with Ctrl-C."
        )
        began = time.monotonic()
        try:
            while not tracker.ended and (seconds is None or time.monotonic() - began < seconds):
                time.sleep(0.05)
                while not told.empty():
                    say(told.get_nowait())
        except KeyboardInterrupt:
            pass
        finally:
            outlet.close()
        return Bridged(outlet.name, outlet.source_id, outlet.sent, time.monotonic() - began)
    finally:
        unwatch()
        tracker.close()
