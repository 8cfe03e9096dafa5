"""What goes on while someone is recorded: placements follow what the participant sees, gaze is drawn as it comes."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Literal

import numpy as np
from PySide6.QtCore import QObject, Qt, Signal

from app.canvas import Canvas
from app.live_gaze import LiveGaze
from app.practice import PracticeImage
from app.scene import Scene
from app.simulated_looks import SimulatedLooks
from app.sitting import Sitting
from gaze_capture.errors import UserError
from gaze_capture.recording import Placement, Presence
from gaze_capture.trackers.simulated import SimulatedTracker
from segmentation.enough_gaze import meter_for
from segmentation.study import Study

LEVEL_AFTER_NS = 200_000_000
SILENT_S = 1.0
"""A tracker that delivers nothing for so long is told of."""
LOST_FOR_GOOD_S = 60.0
"""A sitting whose tracker has delivered nothing for so long is ended."""

New = Literal["look", "image", "view"]
"""What a placement begins: a look at another image or target, another slice within a look, or another view of it."""


class Recorder(QObject):
    """Drives one sitting at a time; the page says what is shown.

    Parameters
    ----------
    live
        Draws the gaze for the operator.
    """

    failed = Signal(str)
    """Nothing can be stored any more; the sitting must be ended."""
    look_over = Signal(object)
    """The synthetic clinician has seen enough, and says a Presence or None."""
    enough = Signal()
    """The image shown has had enough gaze; told once a look."""
    trouble = Signal(str)
    """What is wrong with the tracker, in a sentence; empty once it is well again."""

    def __init__(self, live: LiveGaze, parent: QObject) -> None:
        super().__init__(parent)
        self.live = live
        self.sitting: Sitting | None = None
        self.placement: Placement | None = None
        self._practised: Placement | None = None
        """Where a practice image lies; never stored, as it is no image of the study."""
        self._study: Study | None = None
        self._seen: Canvas | None = None
        self._look_ends: float | None = None
        self._look_presence: Presence | None = None
        self._in_trouble = False
        self._told_enough = False
        self.accuracy_deg: float | None = None
        """As last validated; None where nothing was."""
        self._looks = SimulatedLooks(self)
        self._looks.drawn.connect(self._on_look, Qt.ConnectionType.QueuedConnection)
        self._looks.failed.connect(self.failed, Qt.ConnectionType.QueuedConnection)

    def begin(self, sitting: Sitting, study: Study, seen: Canvas) -> None:
        """Take over a sitting whose participant looks at the canvas `seen`."""
        self.sitting, self._study, self._seen = sitting, study, seen
        self.placement = None
        self._in_trouble = False
        self.live.begin()

    def seen_on(self, canvas: Canvas) -> None:
        """Tell that the participant looks at another canvas from now on."""
        self._seen = canvas

    def release(self) -> Sitting | None:
        """Let go of the sitting and return it; it still has to be saved."""
        sitting, self.sitting = self.sitting, None
        self.placement = self._practised = self._seen = self._study = None
        self._looks.clear()
        return sitting

    def stop(self) -> None:
        """End the threads."""
        self._looks.stop()

    def guarded(self, act: Callable[[], None]) -> None:
        """Do something with the sitting; what fails is told."""
        try:
            act()
        except UserError as error:
            self.failed.emit(str(error))

    # What is shown

    def show(self, new: New) -> None:
        """Begin a placement of what the participant sees now."""
        self._practised = None
        self.guarded(lambda: self._show(new))

    def _show(self, new: New) -> None:
        sitting, seen, before = self.sitting, self._seen, self.placement
        if sitting is None or seen is None or sitting.paused:
            return
        scene = seen.scene
        if scene is None:
            # The image could not be read: gaze falls on nothing until another is shown.
            self.placement = None
            sitting.leave(None)
            return
        sitting.show(scene.image_id, seen.image_from_screen(), seen.viewport_on_screen(), seen.window_level())
        self.placement = placement = sitting.placement
        assert placement is not None
        self.live.place(placement, sitting.tracker.geometry, image=new == "image", look=new == "look")
        if new != "view":
            self._expect(placement, scene)
        moved = before is None or not np.array_equal(before.image_from_screen, placement.image_from_screen)
        if new == "view" and not moved:
            return
        self._look_ends = self._look_presence = None
        if isinstance(sitting.tracker, SimulatedTracker) and self._study is not None:
            self._looks.draw(self._study, sitting.tracker, placement, sum(sitting.recording_id.encode()))

    def _expect(self, placement: Placement, scene: Scene) -> None:
        """Have the gaze on an image judged as its pseudo-mask will be made."""
        sitting, study = self.sitting, self._study
        if sitting is None or study is None:
            return
        height, width = scene.image.shape[:2]
        degrees = placement.degrees_per_image_px(sitting.tracker.geometry)
        self.live.expect(meter_for(study.pseudomask_settings, (height, width), degrees, self.accuracy_deg))
        self._told_enough = False

    def practise(self, image: PracticeImage) -> None:
        """Follow the gaze on a practice image, which the participant sees now, and store no placement of it."""
        sitting, seen = self.sitting, self._seen
        if sitting is None or seen is None:
            return
        now = time.monotonic_ns()
        view = seen.image_from_screen()
        self._practised = Placement(image.scene.image_id, None, now, now, view, seen.viewport_on_screen())
        self.live.place(self._practised, sitting.tracker.geometry, look=True)
        if isinstance(sitting.tracker, SimulatedTracker):
            script, _ = image.simulated_look(
                view, sitting.tracker.geometry, sum(sitting.recording_id.encode())
            )
            sitting.tracker.follow(script)

    def rest(self) -> None:
        """Let gaze on a practice image count no more."""
        self._practised = None

    def leave(self, presence: Presence | None) -> None:
        """End the placement with the annotator's word on the target; UserError if it cannot be stored."""
        self.placement = None
        if self.sitting is not None and self._study is not None:
            self.sitting.leave(presence, [target.id for target in self._study.targets])

    def pause(self) -> None:
        """Let gaze fall on nothing until `resume`."""
        if self.sitting is not None:
            self.placement = None
            self.guarded(self.sitting.pause)

    def resume(self) -> None:
        """Go on; what is shown must be told with `show`."""
        if self.sitting is not None:
            self.guarded(self.sitting.resume)

    def _on_look(self, placement: Placement, end_ms: float, presence: Presence | None) -> None:
        now = self.placement
        if now is not None and (now.image_id, now.target_id) == (placement.image_id, placement.target_id):
            self._look_ends = time.monotonic() + end_ms / 1000
            self._look_presence = presence

    # Gaze

    def tick(self) -> None:
        """Take what the tracker delivered, and paint it; 60 times a second."""
        if self.sitting is not None:
            self.guarded(self._tick)

    def _tick(self) -> None:
        sitting, seen, placement = self.sitting, self._seen, self.placement
        assert sitting is not None
        if sitting.failure is not None:
            raise sitting.failure
        sitting.look_around()
        self._watch(sitting)
        samples = sitting.drain()
        if self._practised is not None and samples is not None:
            self.live.take(samples, samples, sitting.tracker.geometry, self._practised)
            return
        if placement is None or seen is None:
            if samples is not None:
                self.live.count(samples)
            return
        if samples is not None:
            # What was measured before this placement belongs to the one before.
            own = samples[samples["time_ns"] >= placement.start_ns]
            self.live.take(own, samples, sitting.tracker.geometry, placement)
        moved = not np.array_equal(seen.image_from_screen(), placement.image_from_screen)
        relevelled = seen.window_level() != placement.window_level
        # While it is dragged the window changes all the time: as many placements would cut each fixation to pieces.
        settled = not seen.changing_window or time.monotonic_ns() - placement.start_ns > LEVEL_AFTER_NS
        if moved or (relevelled and settled):
            # Zoomed, panned, seen by another window, or the program's window moved: the same image, not as before.
            self._show("view")
        amount = self.live.amount
        if amount is not None and amount.enough and not self._told_enough:
            self._told_enough = True
            self.enough.emit()
        if self._look_ends is not None and time.monotonic() > self._look_ends:
            self._look_ends = None
            self.look_over.emit(self._look_presence)

    def _watch(self, sitting: Sitting) -> None:
        """Tell of a tracker that is lost or silent, and end what has lasted too long."""
        silent = sitting.silent_s
        if silent > LOST_FOR_GOOD_S:
            raise UserError(
                f"The {sitting.tracker.name} tracker has delivered nothing for {LOST_FOR_GOOD_S:.0f} s; the sitting "
                "was ended and saved. Check its cable and power, then start again: it goes on where it stopped."
            )
        wrong = not sitting.tracker.connected or silent > max(SILENT_S, 3 / sitting.tracker.rate_hz)
        if wrong != self._in_trouble:
            self._in_trouble = wrong
            lost = self.tr(
                "The tracker is gone: check its cable and power. Recording goes on when it is back."
            )
            self.trouble.emit(lost if wrong else "")
