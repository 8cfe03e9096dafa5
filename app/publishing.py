"""What a sitting tells other programs while it is on, where that is wanted. Nothing of Qt."""

from __future__ import annotations

from gaze_capture.trackers.lsl_outlet import GazeOutlet, MarkerOutlet
from gaze_capture.trackers.tracker import Tracker


class Published:
    """Two streams of the Lab Streaming Layer: the tracker's gaze, and a marker for each thing that happens.

    Markers are ``image ID TARGET``, ``word PRESENCE ID TARGET`` and the kinds of events, such as ``pause``.

    Raises
    ------
    UserError
        If pylsl is missing.
    """

    def __init__(self, tracker: Tracker, recording_id: str) -> None:
        self._markers = MarkerOutlet(f"Gaze Insight events {recording_id}")
        self._gaze = GazeOutlet(tracker)

    def tell(self, marker: str) -> None:
        """Send a marker of something that happens now."""
        self._markers.push(marker)

    def close(self) -> None:
        """End both streams."""
        self._gaze.close()
        self._markers.close()
