"""One sitting of recording: tracker, writer and placements together. Nothing of Qt."""

from __future__ import annotations

import contextlib
import queue
import time
from collections.abc import Sequence

import numpy as np

from gaze_capture.errors import UserError
from gaze_capture.headless import header_of
from gaze_capture.recording import Floats, Placement, Presence, Recording, Samples, ScreenGeometry
from gaze_capture.recording_codec import RecordingCounts, RecordingWriter
from gaze_capture.simulate import ImageToLookAt, SyntheticClinician, look_at, saliency
from gaze_capture.synthetic_eye import Script
from gaze_capture.trackers.tracker import Tracker
from segmentation.records import new_id
from segmentation.study import Study


class Sitting:
    """Records a tracker while images are shown; the tracker's thread only enqueues.

    Raises
    ------
    UserError
        If the tracker cannot be used or the study cannot be written.
    """

    def __init__(self, study: Study, tracker: Tracker, annotator: str, target_id: str | None) -> None:
        self.tracker = tracker
        self.recording_id = new_id("rec-")
        self.target_id = target_id
        """The target looked for; None while viewing freely. Counts from the next placement on, as does `instance`."""
        self.instance: int | None = None
        """Number of the lesion looked at, from 1, where several of one target are told apart."""
        self.said: dict[tuple[str, str], Presence] = {}
        """The words of this sitting, by image and target."""
        self._queue: queue.SimpleQueue[Samples] = queue.SimpleQueue()
        self._placement: Placement | None = None
        self._number = -1
        self._started_s = time.monotonic()
        tracker.open()
        header = header_of(tracker, self.recording_id, annotator)
        try:
            self._writer = RecordingWriter(study.new_recording_folder(self.recording_id), header)
        except UserError:
            tracker.close()
            raise
        self._unsubscribe = tracker.subscribe(self._receive)

    def _receive(self, block: Samples) -> None:
        # The writer keeps its failure and tells it when asked; the tracker's thread must not raise.
        with contextlib.suppress(UserError):
            self._writer.add_samples(block)
        self._queue.put(block)

    @property
    def failure(self) -> UserError | None:
        """Why nothing is stored any more, or None."""
        return self._writer.failure

    @property
    def placement(self) -> Placement | None:
        """What is shown, and where."""
        return self._placement

    @property
    def seconds(self) -> float:
        """How long the sitting has lasted."""
        return time.monotonic() - self._started_s

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
        seconds = self.seconds
        self.tracker.close()
        with contextlib.suppress(UserError):
            self.leave(None)
        return self._writer.close(self.tracker.expected(seconds))


def save(sitting: Sitting, study: Study) -> int:
    """End a sitting, detect and store its fixations; return how many there are.

    Raises
    ------
    UserError
        If writing failed; what was stored before is intact.
    """
    sitting.finish()
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
