"""One sitting of recording: tracker, writer and placements together. Nothing of Qt."""

from __future__ import annotations

import contextlib
import queue
import time
from collections.abc import Sequence
from typing import Any

import numpy as np

from app.publishing import Published
from gaze_capture.certificate import conclude
from gaze_capture.errors import UserError
from gaze_capture.headless import Rates, header_of, store_clock, store_event
from gaze_capture.recording import EventKind, Floats, Placement, Presence, Recording, Samples, ScreenGeometry
from gaze_capture.recording_codec import RecordingCounts, RecordingWriter
from gaze_capture.simulate import ImageToLookAt, SyntheticClinician, look_at, saliency
from gaze_capture.synthetic_eye import Script
from gaze_capture.trackers.tracker import ClockOffset, Tracker, TrackerEvent
from segmentation.records import new_id
from segmentation.study import Study

LATE_S = 0.5
"""Trackers may deliver this late."""


class Sitting:
    """Records an open tracker while images are shown; the tracker's threads only enqueue.

    Whatever happens beside samples and placements is stored as events: the connection, the clocks, the distance of
    the eyes, calibration, pauses.

    Raises
    ------
    UserError
        If the study cannot be written; the tracker is closed then.
    """

    def __init__(
        self,
        study: Study,
        tracker: Tracker,
        annotator: str,
        target_id: str | None,
        *,
        publish: bool = False,
    ) -> None:
        self.tracker = tracker
        self.recording_id = new_id("rec-")
        self.target_id = target_id
        """The target looked for; None while viewing freely. Counts from the next placement on, as does `instance`."""
        self.instance: int | None = None
        """Number of the lesion looked at, from 1, where several of one target are told apart."""
        self.said: dict[tuple[str, str], Presence] = {}
        """The words of this sitting, by image and target."""
        self.paused = False
        self._queue: queue.SimpleQueue[Samples] = queue.SimpleQueue()
        self._placement: Placement | None = None
        self._number = -1
        self._started_s = self._arrival_s = time.monotonic()
        self._first_ns: int | None = None
        self._last_ns = 0
        self._rates = Rates(tracker)
        self._clock: ClockOffset | None = None
        self._distance_mm = 0.0
        header = header_of(tracker, self.recording_id, annotator)
        self._published: Published | None = None
        try:
            self._published = Published(tracker, self.recording_id) if publish else None
            self._writer = RecordingWriter(study.new_recording_folder(self.recording_id), header)
        except UserError:
            if self._published is not None:
                self._published.close()
            tracker.close()
            raise
        self._unwatch = tracker.watch(self._on_event)
        self._unsubscribe = tracker.subscribe(self._receive)

    def _receive(self, block: Samples) -> None:
        # The writer keeps its failure and tells it when asked; the tracker's thread must not raise.
        with contextlib.suppress(UserError):
            self._writer.add_samples(block)
        self._arrival_s = time.monotonic()
        if self._first_ns is None:
            self._first_ns = int(block["time_ns"][0])
        self._last_ns = int(block["time_ns"][-1])
        self._queue.put(block)

    def _on_event(self, event: TrackerEvent) -> None:
        if event.kind == "rate":
            self._rates.changed(event)
        with contextlib.suppress(UserError, RuntimeError):
            store_event(self._writer, event)

    @property
    def failure(self) -> UserError | None:
        """Why nothing is stored any more, or None."""
        return self._writer.failure

    @property
    def silent_s(self) -> float:
        """For how long no sample has come."""
        return time.monotonic() - self._arrival_s

    @property
    def placement(self) -> Placement | None:
        """What is shown, and where."""
        return self._placement

    @property
    def seconds(self) -> float:
        """How long the sitting has lasted."""
        return time.monotonic() - self._started_s

    def note(self, kind: EventKind, values: dict[str, Any], time_ns: int | None = None) -> None:
        """Store an event, now or at a host time."""
        self._publish(kind)
        self._writer.add_event(kind, time.monotonic_ns() if time_ns is None else time_ns, values)

    def _publish(self, *words: str | None) -> None:
        if self._published is not None:
            self._published.tell(" ".join(word for word in words if word))

    def found(self) -> None:
        """Note that the annotator has found the target: what follows is the sweep over it."""
        if self._placement is not None:
            placement = self._placement
            self.note("found", {"image_id": placement.image_id, "target_id": placement.target_id})

    def pause(self) -> None:
        """End the placement; until `resume`, gaze falls on nothing."""
        if not self.paused:
            self.leave(None)
            self.paused = True
            self.note("pause", {})

    def resume(self) -> None:
        """Go on after a pause; a placement must be shown anew."""
        if self.paused:
            self.paused = False
            self.note("resume", {})

    def look_around(self) -> None:
        """Note what the tracker tells of its clock and of the eyes' distance, where it has changed."""
        self._clock = store_clock(self._writer, self.tracker, self._clock)
        eyes = self.tracker.eyes
        distance_mm = eyes.distance_mm if eyes is not None else None
        if eyes is not None and distance_mm is not None and abs(distance_mm - self._distance_mm) > 10:
            self._distance_mm = distance_mm
            self.note("distance", {"mm": round(distance_mm, 1)}, eyes.time_ns)

    def drain(self) -> Samples | None:
        """Return the samples that came since the last call, or None."""
        blocks = []
        with contextlib.suppress(queue.Empty):
            while True:
                blocks.append(self._queue.get_nowait())
        return np.concatenate(blocks) if blocks else None

    def show(
        self,
        image_id: str,
        image_from_screen: Floats,
        viewport_px: tuple[int, int, int, int],
        window_level: tuple[float, float] | None = None,
    ) -> None:
        """Begin a placement now: an image is shown, lies elsewhere or looks otherwise than before."""
        self.leave(None)
        self._placement = self._placement_now(
            image_id, self.target_id, image_from_screen, viewport_px, window_level
        )
        self._number = self._writer.start_placement(self._placement)
        self._publish("image", image_id, self.target_id)

    def _placement_now(
        self,
        image_id: str,
        target_id: str | None,
        image_from_screen: Floats,
        viewport_px: tuple[int, int, int, int],
        window_level: tuple[float, float] | None,
    ) -> Placement:
        now = time.monotonic_ns()
        # The one place where `self.instance` becomes part of a placement.
        return Placement(
            image_id,
            target_id,
            now,
            now,
            image_from_screen,
            viewport_px,
            window_level,
            instance=self.instance,
        )

    def leave(self, presence: Presence | None, targets: Sequence[str] = ()) -> None:
        """End the placement now, with the annotator's word on the target; while viewing freely, on all `targets`."""
        placement = self._placement
        if placement is None:
            return
        # Cleared first: a writer that fails here must not be asked again.
        self._placement = None
        self._writer.end_placement(self._number, time.monotonic_ns(), presence)
        if presence is None:
            return
        self._publish("word", presence, placement.image_id, placement.target_id)
        free = placement.target_id is None
        for target_id in targets if free else (placement.target_id or "",):
            self.said[placement.image_id, target_id] = presence
        # Gaze without a target counts for the first one, and so does its word; the others get it beside it.
        for target_id in targets[1:] if free else ():
            beside = self._placement_now(
                placement.image_id,
                target_id,
                placement.image_from_screen,
                placement.viewport_px,
                placement.window_level,
            )
            self._writer.end_placement(self._writer.start_placement(beside), beside.end_ns, presence)

    def finish(self) -> RecordingCounts:
        """End the recording; waits for the disk.

        Raises
        ------
        UserError
            If writing failed; what was stored before is intact.
        """
        self._unsubscribe()
        self._unwatch()
        if self._published is not None:
            self._published.close()
        expected = self._expected()
        self.tracker.close()
        with contextlib.suppress(UserError):
            self.leave(None)
        return self._writer.close(expected)

    def _expected(self) -> int:
        """Return how many samples should have come by now, as the tracker's own times and rates tell."""
        if self._first_ns is None:
            return self.tracker.expected(self.seconds)
        # What is on its way is not lost; a tracker that has been silent for longer has lost what it did not send.
        silent_s = self.silent_s if self.silent_s > LATE_S else 0.0
        lasted_s = (self._last_ns - self._first_ns) / 1e9 + silent_s
        return self._rates.expected(self._first_ns, lasted_s + 0.5 / self.tracker.rate_hz)


def save(sitting: Sitting, study: Study) -> int:
    """End a sitting, archive and certify it, detect and store its fixations; return how many there are.

    Raises
    ------
    UserError
        If writing failed; what was stored before is intact.
    """
    sitting.finish()
    conclude(study.recordings_folder / sitting.recording_id)
    from segmentation import steps

    return steps.detect_fixations(study, sitting.recording_id)


def image_xy(
    samples: Samples, binocular_xy: Floats, geometry: ScreenGeometry, placement: Placement
) -> Floats:
    """Map normalised positions (N, 2) to the pixels of the image shown (N, 2)."""
    if len(samples) == 0:
        return np.empty((0, 2))
    return placement.image_px_from_screen_px(geometry.screen_px_from_normalised(binocular_xy))


def placement_at(recording: Recording, time_ns: int) -> Placement | None:
    """Return what was shown at a time of a recording."""
    for placement in reversed(recording.placements):
        if placement.start_ns <= time_ns:
            return placement if time_ns <= placement.end_ns else None
    return None


def simulated_look(
    study: Study,
    image_id: str,
    target_id: str,
    image_from_screen: Floats,
    geometry: ScreenGeometry,
    seed: int,
) -> tuple[Script, Presence | None]:
    """Return how the synthetic clinician looks at an image where it is shown, from its true mask if it has one.

    Raises
    ------
    UserError
        If the image cannot be read.
    """
    image = study.image(image_id)
    mask = study.true_mask(image_id, target_id)
    needs_saliency = mask is None or not mask.any()
    shown = ImageToLookAt(
        image_id=image_id,
        shape=image.shape[:2],
        mask=mask,
        saliency=saliency(study.guide(image)) if needs_saliency else None,
        target_id=target_id,
    )
    clinician = SyntheticClinician(geometry=geometry)
    # Seeded by the image, too: looking at it again in another sitting is another look.
    rng = np.random.default_rng([seed, *image_id.encode()])
    return look_at(shown, image_from_screen, clinician, rng)
