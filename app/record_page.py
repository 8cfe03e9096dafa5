"""Record: the operator's view of a sitting. Gaze is drawn live, and stored with where each image lay on the screen."""

from __future__ import annotations

import contextlib
import time
from collections import deque
from dataclasses import replace

import numpy as np
from PySide6.QtCore import QEvent, QObject, QRunnable, Qt, QThreadPool, QTimer, Signal
from PySide6.QtGui import QKeyEvent, QMouseEvent
from PySide6.QtWidgets import (
    QHBoxLayout,
    QStackedWidget,
)

from app.canvas_frame import CanvasFrame
from app.facts import NOTHING_KNOWN, Facts, gather
from app.image_list import ImageList, Row
from app.jobs import StepProgress, Task
from app.latest import NO_FLICKER_MS, Latest
from app.live import LiveFixations, OneEuro, binocular
from app.page import Page
from app.record_panel import RecordPanel
from app.scene import Scene, SceneCache
from app.session import Session
from app.sitting import Sitting, image_xy, placement_at, simulated_look
from app.texts import short_name
from app.widgets import EmptyState, box
from gaze_capture.errors import UserError
from gaze_capture.recording import Placement, Presence, Recording, Samples, ScreenGeometry
from gaze_capture.recording_codec import read_recording
from gaze_capture.trackers import MouseTracker, ReplayTracker, SimulatedTracker
from segmentation.gaze_index import look_quality
from segmentation.study import Study

TICK_MS = 16
TOO_BRIEF_MS = 1500.0
RADIUS_DEG = 1.0
"""Live fixations hold the samples this near to their mean."""
USUAL_MM_PER_PX = 0.2767
"""Of a 24-inch monitor, where the screen does not say its size."""
VIEWING_DISTANCE_MM = 650.0


class _Look(QRunnable):
    """Draws the synthetic clinician's look at an image off the window's thread, and has the tracker follow it."""

    def __init__(
        self, page: RecordPage, study: Study, tracker: SimulatedTracker, placement: Placement, seed: int
    ) -> None:
        super().__init__()
        self._page, self._study, self._tracker = page, study, tracker
        self._placement, self._seed = placement, seed

    def run(self) -> None:
        """Compute and follow."""
        placement = self._placement
        assert placement.target_id is not None
        try:
            script, presence = simulated_look(
                self._study,
                placement.image_id,
                placement.target_id,
                placement.image_from_screen,
                self._tracker.geometry,
                self._seed,
            )
        except UserError as error:
            self._page.look_failed.emit(str(error))
            return
        self._tracker.follow(script)
        self._page.look_drawn.emit(placement.image_id, script.end_ms, presence)


class RecordPage(Page):
    """Keys: Space next, Backspace back, 0 nothing here, U ungradable, Esc end."""

    tracker_status = Signal(str)
    look_drawn = Signal(str, float, object)
    look_failed = Signal(str)

    def __init__(self, session: Session) -> None:
        super().__init__(session)
        self.sitting: Sitting | None = None
        self._replay: tuple[ReplayTracker, Recording, deque[Samples]] | None = None
        self._replayed = 0
        self._cache: SceneCache | None = None
        self._cached_study: Study | None = None
        self._placement: Placement | None = None
        self._live = LiveFixations(20.0)
        self._filter = OneEuro()
        self._px_per_deg = 20.0
        self._shown_at = 0.0
        self._look_ends: float | None = None
        self._look_presence: Presence | None = None
        self._arrivals: deque[tuple[float, int, int, int]] = deque()
        self._saving = False
        self._facts = Latest(self)
        self._facts.answered.connect(self._list_images)
        self._facts.failed.connect(self.error)
        self._pool = QThreadPool(self)
        self._pool.setMaxThreadCount(1)
        self._timer = QTimer(self, interval=TICK_MS, timerType=Qt.TimerType.PreciseTimer)
        self._timer.timeout.connect(self.tick)
        self.look_drawn.connect(self._on_look, Qt.ConnectionType.QueuedConnection)
        self.look_failed.connect(lambda text: self.error.emit(text, ""), Qt.ConnectionType.QueuedConnection)
        self._words = {
            "none": self.tr("No gaze"),
            "gaze": self.tr("Gaze"),
            "absent": self.tr("Nothing here"),
            "ungradable": self.tr("Ungradable"),
        }
        self.panel = RecordPanel()
        self.panel.annotator_named.connect(self.session.set_annotator)
        self.panel.tracker_chosen.connect(self._show_tracker_choice)
        self.panel.start_wanted.connect(self.start)
        self.panel.end_wanted.connect(self.end)
        self.panel.left.connect(lambda presence: self.go(1, presence))
        self.list = ImageList(self.tr("Images"), self._words.values())
        self.frame = CanvasFrame()
        self.canvas = self.frame.canvas
        for name in ("heatmap", "levels", "student", "reviewed"):
            self.canvas.set_layer_visible(name, False)
        self.canvas.installEventFilter(self)
        self.empty = EmptyState("eye", "")
        self.empty.acted.connect(lambda: self.page_wanted.emit("study"))
        self._centre = QStackedWidget()
        self._centre.addWidget(self.frame)
        self._centre.addWidget(self.empty)
        layout = QHBoxLayout(self)
        box(layout, spacing=0)
        layout.addWidget(self.list)
        layout.addWidget(self._centre, 1)
        layout.addWidget(self.panel)
        self.list.chosen.connect(self.session.set_image)
        self.setFocusProxy(self.canvas)
        self._show_tracker_choice()

    # Parts

    # Following the session

    @property
    def busy(self) -> bool:
        """Whether a sitting or a replay is on."""
        return self.sitting is not None or self._replay is not None

    def refresh(self, what: str) -> None:
        """Show the study's images and the current one."""
        self.panel.annotator.setText(self.session.annotator)
        study = self.session.study
        empty = study is None or not study.images
        self.list.setVisible(not empty)
        self.panel.setVisible(not empty)
        if study is None or empty:
            self.list.set_rows([])
            self.canvas.set_scene(None)
            self.empty.set(
                "eye",
                self.tr("Gaze is recorded here. Open a study with images first."),
                self.tr("Go to the study"),
            )
            self._centre.setCurrentWidget(self.empty)
            self.panel.start_button.setEnabled(False)
            return
        self._centre.setCurrentWidget(self.frame)
        if self.busy:
            return
        fresh = study is not self._cached_study
        if fresh:
            self._cache, self._cached_study = SceneCache(study), study
            self.list.thumbnails.set_study(study)
        if what in ("study", "data") and self._cache is not None:
            self._cache.forget()
            self._facts.ask(lambda: gather(study), NO_FLICKER_MS)
            if fresh and self._facts.pending:
                self._list_images(NOTHING_KNOWN)
            self._list_recordings(study)
        if self.session.image_id not in study.images:
            self.session.image_id = next(iter(study.images))
        self._show_image()
        self._show_tracker_choice()
        if what == "study":
            self.canvas.setFocus()

    def _list_images(self, facts: Facts) -> None:
        study, target = self.session.study, self.session.target_id
        if study is None:
            return
        rows = []
        for image in study.images.values():
            key = (image.id, target)
            looks = facts.looks.get(key, ())
            state, token, detail = self._words["none"], "muted", ""
            if looks:
                presence = looks[-1].presence
                state = self._words[presence] if presence in ("absent", "ungradable") else self._words["gaze"]
                token = "accent"
                detail = self.tr("{n} fixations").format(n=sum(look.fixations for look in looks))
            rows.append(
                Row(
                    image.id, image.source_name, image, state, token, detail,
                    presence=facts.said.get(key), quality=look_quality(looks),
                )
            )  # fmt: skip
        self.list.set_rows(rows)

    def _list_recordings(self, study: Study) -> None:
        self.panel.recordings.clear()
        for name in reversed(study.recording_ids()):
            self.panel.recordings.addItem(short_name(name), name)

    def _show_tracker_choice(self) -> None:
        kind = self.panel.tracker.currentData()
        self.panel.show_choice()
        ready = self.session.study is not None and bool(self.session.study.images) and not self._saving
        self.panel.start_button.setEnabled(ready and (kind != "replay" or self.panel.recordings.count() > 0))
        if not self.busy:
            if kind == "replay" and self.panel.recordings.count() == 0:
                self.panel.show_hint(self.tr("The study has no recording yet."), "warning")
            elif not self._saving:
                self.panel.show_hint(
                    self.tr("Space next · Backspace back · 0 nothing here · U ungradable · Esc end")
                )

    def _show_image(self) -> None:
        study, image_id = self.session.study, self.session.image_id
        if study is None or image_id is None or self._cache is None:
            return
        try:
            scene = self._cache.get(image_id, self.session.target_id)
        except UserError as error:
            self.canvas.set_scene(None)
            self.error.emit(str(error), "")
            return
        # Whoever is recorded must not see where they, or others, looked before.
        shown = (
            Scene(scene.image_id, scene.target_id, scene.image) if self.busy else replace(scene, heatmap=None)
        )
        self.canvas.set_scene(shown)
        self.list.select(image_id)

    # A sitting

    def geometry_of_screen(self) -> ScreenGeometry:
        """Return the screen's geometry as far as it tells; a viewing distance of 65 cm is assumed."""
        screen = self.canvas.screen()
        ratio = screen.devicePixelRatio()
        size, millimetres = screen.geometry().size(), screen.physicalSize()
        width, height = round(size.width() * ratio), round(size.height() * ratio)
        known = millimetres.width() > 50 and millimetres.height() > 50
        width_mm = millimetres.width() if known else width * USUAL_MM_PER_PX
        height_mm = millimetres.height() if known else height * USUAL_MM_PER_PX
        return ScreenGeometry(width, height, float(width_mm), float(height_mm), VIEWING_DISTANCE_MM)

    def start(self) -> None:
        """Begin a sitting, or a replay."""
        study = self.session.study
        if study is None or self.busy or not self.panel.start_button.isEnabled():
            return
        kind = self.panel.tracker.currentData()
        try:
            if kind == "replay":
                self._start_replay(study, self.panel.recordings.currentData())
            else:
                self._start_sitting(study, kind)
        except UserError as error:
            self.error.emit(str(error), "")
            return
        self.list.setEnabled(False)
        self.panel.show_running(True, replay=kind == "replay")
        self._arrivals.clear()
        self.panel.show_hint("")
        self._timer.start()
        self.canvas.setFocus()

    def _start_sitting(self, study: Study, kind: str) -> None:
        geometry, rate = self.geometry_of_screen(), float(self.panel.rate.value())
        tracker: SimulatedTracker | MouseTracker
        if kind == "mouse":
            tracker = MouseTracker(geometry, rate)
        else:
            target = self.session.target_id
            masks = any(name == target and image in study.images for image, name in study.mask_keys())
            seed = time.time_ns() % (1 << 31)
            tracker = SimulatedTracker(
                rate, geometry, seed=seed, simulated_from="masks" if masks else "saliency"
            )
        annotator = self.panel.annotator.text().strip() or self.session.annotator
        self.session.set_annotator(annotator)
        self.sitting = Sitting(study, tracker, annotator, self.session.target_id)
        self._show_image()
        self._begin_placement()

    def _begin_placement(self, *, same_image: bool = False) -> None:
        sitting, scene = self.sitting, self.canvas.scene
        if sitting is None or scene is None:
            return
        sitting.show(scene.image_id, self.canvas.image_from_screen(), self.canvas.viewport_on_screen())
        self._placement = sitting.placement
        assert self._placement is not None
        self._px_per_deg = 1 / self._placement.degrees_per_image_px(sitting.tracker.geometry)
        self._filter.reset()
        if not same_image:
            self._live = LiveFixations(RADIUS_DEG * self._px_per_deg)
            self._shown_at = time.monotonic()
        self._look_ends = self._look_presence = None
        if isinstance(sitting.tracker, SimulatedTracker) and self.session.study is not None:
            seed = sum(sitting.recording_id.encode())
            self._pool.start(_Look(self, self.session.study, sitting.tracker, self._placement, seed))

    def _on_look(self, image_id: str, end_ms: float, presence: Presence | None) -> None:
        if self._placement is not None and self._placement.image_id == image_id:
            self._look_ends = time.monotonic() + end_ms / 1000
            self._look_presence = presence

    def _start_replay(self, study: Study, recording_id: str) -> None:
        recording = read_recording(study.recordings_folder / recording_id)
        tracker = ReplayTracker(recording)
        tracker.open()
        waiting: deque[Samples] = deque()
        self._replay, self._replayed, self._placement = (tracker, recording, waiting), 0, None
        tracker.subscribe(waiting.append)

    def tick(self) -> None:
        """Take what the tracker delivered, and paint it; 60 times a second."""
        try:
            if self.sitting is not None:
                self._tick_sitting(self.sitting)
            elif self._replay is not None:
                self._tick_replay(*self._replay)
        except UserError as error:
            self.error.emit(str(error), "")
            self.end()

    def _tick_sitting(self, sitting: Sitting) -> None:
        if sitting.failure is not None:
            raise sitting.failure
        placement = self._placement
        if placement is None:
            return
        samples = sitting.drain()
        if samples is not None:
            # What was measured before this placement belongs to the one before.
            self._draw(
                samples[samples["time_ns"] >= placement.start_ns],
                samples,
                sitting.tracker.geometry,
                placement,
            )
        if not np.array_equal(self.canvas.image_from_screen(), placement.image_from_screen):
            # Zoomed, panned, or the window moved: the same image lies elsewhere from now on.
            self._begin_placement(same_image=True)
        self._show_meters(sitting.tracker.name, sitting.seconds)
        if (
            self.panel.by_itself.isChecked()
            and self._look_ends is not None
            and time.monotonic() > self._look_ends
        ):
            self.go(1, self._look_presence)

    def _tick_replay(self, tracker: ReplayTracker, recording: Recording, waiting: deque[Samples]) -> None:
        while waiting:
            block = waiting.popleft()
            original = recording.time_ns[self._replayed : self._replayed + len(block)]
            self._replayed += len(block)
            placement = placement_at(recording, int(original[-1])) if len(original) else None
            if placement is not self._placement:
                self._placement = placement
                self._filter.reset()
                if placement is not None:
                    self._px_per_deg = 1 / placement.degrees_per_image_px(recording.geometry)
                    if placement.image_id != self.session.image_id or not self._live.total_ms:
                        self._live = LiveFixations(RADIUS_DEG * self._px_per_deg)
                    study = self.session.study
                    if study is not None and placement.image_id in study.images:
                        if placement.image_id != self.session.image_id:
                            self._live = LiveFixations(RADIUS_DEG * self._px_per_deg)
                        self.session.image_id = placement.image_id
                        self._show_image()
            if placement is not None:
                self._draw(block, block, recording.geometry, placement)
        lasted = (
            recording.time_ns[min(self._replayed, len(recording.time_ns)) - 1] - recording.time_ns[0]
        ) / 1e9
        self._show_meters(tracker.name, float(lasted))
        if tracker.ended and not waiting:
            self.end()

    def _draw(
        self, samples: Samples, counted: Samples, geometry: ScreenGeometry, placement: Placement
    ) -> None:
        now = time.monotonic()
        left, right = np.isfinite(counted["left_x"]).sum(), np.isfinite(counted["right_x"]).sum()
        self._arrivals.append((now, len(counted), int(left), int(right)))
        while self._arrivals and now - self._arrivals[0][0] > 2.0:
            self._arrivals.popleft()
        if not len(samples):
            return
        points = image_xy(samples, binocular(samples), geometry, placement)
        dot: tuple[float, float] | None = None
        for stamp, (x, y) in zip(samples["time_ns"].tolist(), points.tolist(), strict=True):
            self._live.add(stamp / 1e6, x, y)
            if np.isfinite(x) and np.isfinite(y):
                # In degrees, so that the filter's constants hold for every image and screen.
                fx, fy = self._filter(stamp / 1e9, x / self._px_per_deg, y / self._px_per_deg)
                dot = (fx * self._px_per_deg, fy * self._px_per_deg)
        if self.panel.show_gaze.isChecked():
            self.canvas.set_live(dot, self._live.marks())

    def _show_meters(self, name: str, seconds: float) -> None:
        if len(self._arrivals) < 2:
            return
        span = max(self._arrivals[-1][0] - self._arrivals[0][0], 1e-3)
        count = sum(item[1] for item in list(self._arrivals)[1:])
        total = max(1, sum(item[1] for item in self._arrivals))
        left, right = (100 * sum(item[eye] for item in self._arrivals) / total for eye in (2, 3))
        self.panel.show_eyes(left, right)
        self.panel.show_amount(self._live.total_ms, len(self._live.marks().xy_px), seconds)
        status = self.tr("tracker: {name} {rate:.0f} Hz, loss {loss:.0f} %")
        self.tracker_status.emit(
            status.format(name=name, rate=count / span, loss=abs(100 - max(left, right)))
        )

    def go(self, step: int, presence: Presence | None = None) -> None:
        """Leave the image with a word on its target (after a look, *present* unless another) and show the next."""
        sitting = self.sitting
        if sitting is None:
            if self._replay is None:
                found = self.list.neighbour(self.session.image_id, step)
                if found is not None:
                    self.session.set_image(found)
            return
        gaze_ms = self._live.total_ms
        if step > 0 and presence is None and gaze_ms > 0:
            presence = "present"
        following = self.list.neighbour(self.session.image_id, step)
        if following is None and step < 0:
            return
        try:
            sitting.leave(presence)
            self._placement = None
            if step > 0 and gaze_ms < TOO_BRIEF_MS:
                self.panel.show_hint(
                    self.tr(
                        "The last image was looked at for {s:.1f} s only: go back with Backspace?"
                    ).format(s=gaze_ms / 1000),
                    "warning",
                )
            else:
                self.panel.show_hint("")
            if following is None:
                self.end()
                return
            # Set directly: the page shows the image itself, with where it lies, before anyone else reacts.
            self.session.image_id = following
            self._show_image()
            self._begin_placement()
        except UserError as error:
            self.error.emit(str(error), "")
            self.end()

    def end(self) -> None:
        """End the sitting or the replay; fixations are detected and stored in a thread."""
        self._timer.stop()
        sitting, study = self.sitting, self.session.study
        self.sitting = None
        if self._replay is not None:
            self._replay[0].close()
            self._replay = None
        self._pool.clear()
        self._placement = None
        self.canvas.set_live(None, None)
        self.list.setEnabled(True)
        self.panel.show_running(False)
        self.tracker_status.emit("")
        if sitting is None or study is None:
            self.refresh("image")
            return
        self._saving = True
        self._show_tracker_choice()
        self.panel.show_hint(self.tr("Saving the recording and detecting fixations…"))

        def work(progress: StepProgress) -> int:
            sitting.finish()
            from segmentation import steps

            return steps.detect_fixations(study, sitting.recording_id)

        task = Task(work, self.tr("Saving the recording"), self)
        task.succeeded.connect(
            lambda count: self.notice.emit(self.tr("Recorded: {n:,} fixations.").format(n=count))
        )
        task.failed.connect(self.error)
        task.ended.connect(self._saved)
        # Not through the window's queue of tasks: a recording is saved whatever else is at work.
        task.start()

    def _saved(self) -> None:
        self._saving = False
        self.session.refresh("data")
        if not self.isVisible():
            self._show_tracker_choice()

    # Events

    def eventFilter(self, watched: QObject, event: QEvent) -> bool:
        """Pass the pointer on where it stands in for the eyes."""
        tracker = self.sitting.tracker if self.sitting is not None else None
        if isinstance(tracker, MouseTracker) and watched is self.canvas:
            if event.type() == QEvent.Type.MouseMove and isinstance(event, QMouseEvent):
                place = event.globalPosition() - self.canvas.screen().geometry().topLeft()
                size = self.canvas.screen().geometry().size()
                tracker.move(place.x() / size.width(), place.y() / size.height())
            elif event.type() == QEvent.Type.Leave:
                tracker.leave()
        return super().eventFilter(watched, event)

    def keyPressEvent(self, event: QKeyEvent) -> None:
        """Move on, or take a word on the image; then the canvas's keys."""
        key = event.key()
        plain = not event.modifiers() & ~Qt.KeyboardModifier.KeypadModifier
        recording = self.sitting is not None
        if plain and key == Qt.Key.Key_Space and not event.isAutoRepeat():
            self.go(1)
        elif plain and key == Qt.Key.Key_Backspace:
            self.go(-1)
        elif plain and key == Qt.Key.Key_0 and recording and not event.isAutoRepeat():
            self.go(1, "absent")
        elif plain and key == Qt.Key.Key_U and recording and not event.isAutoRepeat():
            self.go(1, "ungradable")
        elif key == Qt.Key.Key_Escape and self.busy:
            self.end()
        elif recording and plain and event.text():
            # No letter may leave the page, or toggle a layer, in the middle of a recording.
            event.accept()
        elif not self.canvas.handle_key(event):
            super().keyPressEvent(event)

    def keyReleaseEvent(self, event: QKeyEvent) -> None:
        """Pass on to the canvas."""
        if not self.canvas.handle_release(event):
            super().keyReleaseEvent(event)

    def holds(self) -> str:
        """Keep the operator here while someone is recorded."""
        return self.tr("A recording is on: end it first (Esc).") if self.sitting is not None else ""

    def stop(self) -> None:
        """Finish a sitting before the window closes; end the threads."""
        self._timer.stop()
        self._facts.stop()
        sitting, study = self.sitting, self.session.study
        self.sitting = None
        self._pool.clear()
        self._pool.waitForDone()
        if self._replay is not None:
            self._replay[0].close()
            self._replay = None
        if sitting is not None and study is not None:
            with contextlib.suppress(UserError):
                sitting.finish()
                from segmentation import steps

                steps.detect_fixations(study, sitting.recording_id)
        self.list.thumbnails.stop()
