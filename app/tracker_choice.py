"""Which tracker is used: the ones that need no device, and those that a search found."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from PySide6.QtCore import QObject, Signal

from app.eyes_on_mask import ReviewTracker
from app.jobs import StepProgress, Task
from app.record_panel import RecordPanel
from app.screen_trackers import tracker_of
from gaze_capture.errors import UserError
from gaze_capture.quality import Validation
from gaze_capture.recording import RecordingEvent, ScreenGeometry
from gaze_capture.trackers.tracker import Found, Tracker
from segmentation.consent import has_consented
from segmentation.study import Study


class TrackerChoice(QObject):
    """Fills the panel's list of trackers; searching may open sockets, so it happens only when asked for."""

    told = Signal(str, str)
    """A sentence, and details."""

    def __init__(self, panel: RecordPanel, parent: QObject) -> None:
        super().__init__(parent)
        self._panel = panel
        self._task: Task | None = None
        panel.search_wanted.connect(self.search)
        panel.tracker_chosen.connect(self._prepare)
        self._picked: object = None
        panel.tracker.activated.connect(lambda _: self.note())

    @property
    def kind(self) -> str:
        """``simulated``, ``mouse`` or ``replay``, or the kind of a device that was found."""
        data = self._panel.tracker.currentData()
        return data.kind if isinstance(data, Found) else str(data)

    @property
    def name(self) -> str:
        """What the chosen one is called, for people."""
        return self._panel.tracker.currentText()

    def note(self) -> None:
        """Take it that a person wants the chosen one: they picked it, or began a sitting with it."""
        self._picked = self._panel.tracker.currentData()

    @property
    def noted(self) -> bool:
        """Whether the chosen one is what a person wanted last."""
        return bool(self._picked == self._panel.tracker.currentData())

    @property
    def records_unasked(self) -> bool:
        """Whether new gaze may be recorded with it at once: a simulated eye that nobody chose must not look."""
        return (self.is_device or self.noted) and self.kind != "replay"

    @property
    def is_device(self) -> bool:
        """Whether a person's eyes are measured."""
        return isinstance(self._panel.tracker.currentData(), Found)

    def _prepare(self) -> None:
        """Calibrate a device first, unless that is unticked: nobody knows how exact it is otherwise."""
        if self.is_device:
            self._panel.calibrate.setChecked(True)

    def search(self) -> None:
        """Look for devices, off the window's thread."""
        if self._task is not None:
            return
        notes: list[str] = []

        def work(_: StepProgress) -> list[Found]:
            from gaze_capture.trackers.discovery import discover

            return list(discover(note=notes.append))

        self._panel.show_searching(True)
        self._task = task = Task(work, self.tr("Searching for trackers"), self)
        task.succeeded.connect(lambda found: self._show(found, notes))
        task.failed.connect(self.told)
        task.ended.connect(self._over)
        task.start()

    def _over(self) -> None:
        self._task = None
        self._panel.show_searching(False)

    def _show(self, found: list[Found], notes: list[str]) -> None:
        box = self._panel.tracker
        for index in reversed(range(box.count())):
            if isinstance(box.itemData(index), Found):
                box.removeItem(index)
        for item in found:
            box.addItem(item.label, item)
        if found:
            box.setCurrentIndex(box.count() - len(found))
        else:
            told = [self.tr("No eye tracker was found: check cables and power, then search again."), *notes]
            self.told.emit(told[0], "\n".join(told[1:]))

    def for_review(
        self,
        study: Study,
        annotator: str,
        target_id: str,
        geometry: ScreenGeometry,
        validated: Sequence[RecordingEvent],
    ) -> ReviewTracker:
        """Return the tracker that follows an annotator's eyes while masks are reviewed.

        Parameters
        ----------
        validated
            What was measured last of the tracker that a person wanted last.

        Raises
        ------
        UserError
            If a replay is chosen, or the annotator has not agreed to be tracked.
        """
        if self.kind == "replay":
            raise UserError("A replay sees no eyes: choose a tracker on the page Record first.")
        if self.is_device and not has_consented(study, annotator):
            raise UserError(
                f"{annotator} has not agreed to eye tracking in this study: give consent on the page Record first."
            )
        known = validated if self.noted else ()
        return ReviewTracker(
            self.name,
            self.maker(study, target_id, geometry),
            needs_calibration=self.is_device,
            validation=Validation.from_json(known[-1].values["validation"]) if known else None,
        )

    def maker(self, study: Study, target_id: str, geometry: ScreenGeometry) -> Callable[[], Tracker]:
        """Return what makes the chosen tracker; for a device it may take seconds and fail."""
        data = self._panel.tracker.currentData()
        if isinstance(data, Found):

            def connect() -> Tracker:
                from gaze_capture.trackers.discovery import open_tracker

                return open_tracker(data, screen=geometry)

            return connect
        kind, rate_hz = str(data), float(self._panel.rate.value())
        return lambda: tracker_of(kind, study, target_id, geometry, rate_hz)
