"""Train: one button, then progress, curves, sample masks, and all runs of the study."""

from __future__ import annotations

import os
import threading

from PySide6.QtCore import Qt, QTimer, Signal
from PySide6.QtGui import QResizeEvent
from PySide6.QtWidgets import QHBoxLayout, QStackedWidget, QVBoxLayout, QWidget

from app import theme
from app.again_button import AgainButton
from app.dialogs import in_background
from app.jobs import RunWatcher, StepProgress, Task
from app.overview import Overview
from app.page import Page
from app.rounds_card import RoundsCard
from app.run_panel import RunPanel
from app.run_table import STATE_TOKENS
from app.run_view import RunView
from app.session import Session
from app.surveyor import Surveyor
from app.texts import duration_text
from app.train_settings import TrainSettings
from app.widgets import Button, EmptyState, box, scrolled
from gaze_capture.errors import UserError
from segmentation.job import JobEvent, RunSpec
from segmentation.known_folders import folders_job
from segmentation.machine import Machine, this_machine
from segmentation.retraining import is_again, networks_of, spec_again, to_predict
from segmentation.runs import RunFolder, create_run
from segmentation.study import Study
from segmentation.workers import start_worker


class TrainPage(Page):
    """Follows one run of the study at a time: the one at work, or the one chosen in the table."""

    predicted_again = Signal(str)
    """The run that was trained again and has predicted what is to be reviewed."""

    def __init__(self, session: Session) -> None:
        super().__init__(session)
        self.watcher: RunWatcher | None = None
        self._overview = Overview()
        self._surveyor = Surveyor(self)
        self._surveyor.counted.connect(self._counted)
        self._surveyor.failed.connect(self.error)
        self._machine: Machine | None = None
        self._states_of: Study | None = None
        self._spec: RunSpec | None = None
        self._started_here: dict[str, RunWatcher] = {}
        """Until they end, whichever run is followed meanwhile."""
        self._state_words = {
            "waiting": self.tr("Waiting"),
            "running": self.tr("Running"),
            "done": self.tr("Done"),
            "stopped": self.tr("Stopped"),
            "failed": self.tr("Failed"),
            "interrupted": self.tr("Interrupted"),
        }
        layout = QHBoxLayout(self)
        box(layout, spacing=0)
        left = QWidget()
        column = QVBoxLayout(left)
        box(column, margins=(theme.HUGE, 20, theme.HUGE, 20), spacing=theme.WIDE)
        self.settings = TrainSettings()
        self.settings.wanted.connect(self.train)
        self.settings.changed.connect(self._show_sentence)
        column.addWidget(self.settings)
        self._centre = QStackedWidget()
        self.empty = EmptyState(
            "chart-line-up", self.tr("No run yet. Curves and sample masks will appear here.")
        )
        self.empty.acted.connect(lambda: self.page_wanted.emit("study"))
        self._centre.addWidget(self.empty)
        self._centre.addWidget(self._make_run_view())
        column.addWidget(self._centre, 1)
        self.rounds = RoundsCard()
        self.rounds.followed.connect(self.follow)
        column.addWidget(self.rounds)
        # Unfolded settings and a run do not fit a small screen together.
        middle = scrolled(left)
        # The three charts need more than the smallest window has.
        middle.setHorizontalScrollBarPolicy(Qt.ScrollBarPolicy.ScrollBarAsNeeded)
        layout.addWidget(middle, 1)
        layout.addWidget(self._make_runs())

    # Parts

    def _make_run_view(self) -> RunView:
        self.view = view = RunView()
        self.stop_button = Button(self.tr("Stop"), "stop", "", self.stop_run)
        self.stop_button.setToolTip(self.tr("Stop at the next step; what was learned is kept"))
        self.resume_button = Button(self.tr("Resume"), "play", "", self.resume_run)
        self.resume_button.setToolTip(self.tr("Go on from the last checkpoint"))
        self.predict_button = Button(self.tr("Predict masks"), "selection-all", "", self.predict)
        self.again_button = AgainButton()
        self.again_button.wanted.connect(self.train_again)
        self.again_button.failed.connect(self.error)
        for button in (self.again_button, self.predict_button, self.resume_button, self.stop_button):
            view.buttons.addWidget(button)
        self.pill, self.facts, self.samples = view.pill, view.facts, view.samples
        self.losses, self.scores, self.run_name = view.losses, view.scores, view.run_name
        return view

    def _make_runs(self) -> RunPanel:
        self.run_panel = RunPanel(self._state_words)
        self.run_panel.setFixedWidth(352)
        self.runs, self.table = self.run_panel.model, self.run_panel.table
        self.run_panel.followed.connect(self.follow)
        self.run_panel.changed.connect(lambda: self.session.refresh("runs"))
        self.run_panel.task_wanted.connect(self.start_task)
        self.run_panel.error.connect(self.error)
        self.run_panel.notice.connect(self.notice)
        return self.run_panel

    def resizeEvent(self, event: QResizeEvent) -> None:
        """Give the chart of rounds its share."""
        super().resizeEvent(event)
        self.rounds.set_room(event.size().height())

    # Following the session

    def refresh(self, what: str) -> None:
        """Show the study's runs, and what a training would do."""
        if what in ("image", "annotator", "descriptions"):
            return
        study = self.session.study
        if study is not self._states_of:
            self._states_of = study
            self._overview = Overview()
            self.settings.fields.forget()
            self._unfollow()
            self._forget_started(study)
        sentence = self.tr("No run yet. Curves and sample masks will appear here.")
        self.empty.set("chart-line-up", sentence, self.tr("Go to the study") if study is None else "")
        self.rounds.show_study(study)
        self._offer_again()
        if study is None:
            self.run_panel.list_runs(None)
            self._overview = Overview()
            self._show_sentence()
            return
        if what == "study":
            # The driver may take a second to answer; memory that was taken may be free again.
            title = self.tr("Looking at this computer")
            in_background(lambda _: this_machine(), title, self._looked_at, self._not_looked_at)
        known = {row.id for row in self.runs.rows}
        self._list_runs(study)
        if self.watcher is None and self.runs.rows:
            readable = [row for row in self.runs.rows if not self.run_panel.summaries[row.id].problem]
            running = [row for row in readable if row.state == "running"]
            for row in (running or readable)[:1]:
                self.follow(row.id)
        elif self.watcher is not None and self.watcher.state not in ("running", "waiting"):
            # One that another window or a cluster has begun meanwhile.
            begun = [
                row for row in self.runs.rows if row.id not in known and row.state in ("running", "waiting")
            ]
            for row in begun[:1]:
                self.follow(row.id)
        self._show_sentence()
        self._surveyor.request(study)

    def _counted(self, overview: Overview) -> None:
        self._overview = overview
        self._show_sentence()

    def _looked_at(self, machine: Machine) -> None:
        self._machine = machine
        self._show_sentence()

    def _not_looked_at(self, sentence: str, details: str) -> None:
        self.error.emit(sentence, details)

    def _list_runs(self, study: Study) -> None:
        try:
            self.run_panel.list_runs(study)
        except UserError as error:
            self.error.emit(str(error), "")
            return
        for run_id in list(self._started_here):
            if self.runs.row_of(run_id) < 0:
                self._drop_started(run_id)
        if self.watcher is not None:
            if self.runs.row_of(self.watcher.run.id) < 0:
                # It was deleted, here or in another window.
                self._unfollow()
                return
            if self._spec is not None:
                self.run_name.setText(self.run_panel.full_title(self.watcher.run.id, self._spec.method))
            if not self.table.chosen():
                self.table.choose([self.watcher.run.id])

    def _show_sentence(self) -> None:
        busy = any(row[2] == "running" for row in self.runs.rows)
        self.settings.show_plan(self.session.study, self._overview, self._machine, busy=busy)

    # Following a run

    def follow(self, run_id: str) -> None:
        """Show a run from its first event on, and go on with it while it works."""
        study = self.session.study
        if study is None or (self.watcher is not None and self.watcher.run.id == run_id):
            return
        run = RunFolder(study.runs_folder / run_id)
        try:
            spec = run.spec
        except UserError as error:
            self.error.emit(str(error), "")
            return
        self._unfollow()
        self._spec = spec
        self._centre.setCurrentIndex(1)
        self.view.begin(spec)
        self.run_name.setText(self.run_panel.full_title(run_id, spec.method))
        self.watcher = RunWatcher(run, self)
        self.watcher.happened.connect(self._on_event)
        self.watcher.state_changed.connect(self._on_state)
        self._on_state(self.watcher.state)
        self.watcher.start()
        self.runs.set_shown(run_id)
        self.rounds.show_run(run_id)
        if run_id not in self.table.chosen():
            self.table.choose([run_id])

    def _offer_again(self) -> None:
        run = None if self.watcher is None or self.watcher.state == "running" else self.watcher.run
        self.again_button.ask(self.session.study, None if run is None else run.id)

    def _unfollow(self) -> None:
        if self.watcher is not None:
            self.watcher.stop()
            self.watcher.deleteLater()
            self.watcher = None
        self.runs.set_shown("")
        self.view.clear()
        self._centre.setCurrentIndex(0)

    def _on_event(self, event: JobEvent) -> None:
        if self.watcher is not None:
            self.view.show_event(event, self.session.study, self.watcher.run.path)

    def _on_state(self, state: str) -> None:
        self.pill.set(self._state_words[state], STATE_TOKENS[state])
        active = state in ("running", "waiting")
        self.stop_button.setVisible(state == "running")
        self.stop_button.setEnabled(True)
        self.resume_button.setVisible(state in ("stopped", "interrupted", "failed"))
        self.predict_button.setVisible(state in ("done", "stopped"))
        self._offer_again()
        if not active:
            self.view.end()
        study = self.session.study
        if study is not None:
            self._list_runs(study)
        self._show_sentence()
        if state == "running" and self.watcher is not None and self.watcher.run.is_elsewhere():
            # Another machine's run comes to life, for the first time or again: the whole window shall know.
            QTimer.singleShot(0, self, lambda: self.session.refresh("runs"))

    def _await(self, run: RunFolder) -> None:
        """Follow a run that was started here to its end, whichever is shown meanwhile."""
        watcher = RunWatcher(run, self)
        self._started_here[run.id] = watcher
        watcher.state_changed.connect(lambda state: self._on_started(run, state))
        watcher.start()

    def _on_started(self, run: RunFolder, state: str) -> None:
        if state in ("running", "waiting"):
            return
        watcher = self._started_here[run.id]
        if state == "failed":
            last = watcher.last_step
            told = last.values.get("message") if last is not None else None
            self.error.emit(str(told or self.tr("The run failed.")), run.log_tail())
        if state == "interrupted":
            # It may come to life again, on another machine.
            return
        self._drop_started(run.id)
        if state == "done":
            spec = run.spec
            if is_again(spec) or self.settings.predict_after.isChecked():
                self._predict(run, spec)

    def _drop_started(self, run_id: str) -> None:
        watcher = self._started_here.pop(run_id, None)
        if watcher is not None:
            watcher.stop()
            watcher.deleteLater()

    def _forget_started(self, study: Study | None = None) -> None:
        """Await no runs any more but those of a study."""
        for run_id, watcher in list(self._started_here.items()):
            if study is None or watcher.run.study_folder != study.folder:
                self._drop_started(run_id)

    # Acting

    def train(self) -> None:
        """Start a run with the settings as they are."""
        study = self.session.study
        if study is None or not self.settings.train_button.isEnabled():
            return
        try:
            run = create_run(study, self.settings.spec(study))
            self._start(run)
        except UserError as error:
            self.error.emit(str(error), "")

    def train_again(self, run_id: str) -> None:
        """Go on from a run with what was reviewed since, and then predict what nobody has reviewed."""
        study = self.session.study
        if study is None:
            return
        try:
            self._start(create_run(study, spec_again(study, run_id)))
            self.notice.emit(
                self.tr("Training again. The new masks come when it is done; you may go on reviewing.")
            )
        except UserError as error:
            self.error.emit(str(error), "")
            # Wherever it was pressed, the button may be pressed again.
            self.session.refresh("runs")

    def resume_run(self) -> None:
        """Go on with the run that is shown."""
        if self.watcher is None:
            return
        run = self.watcher.run
        try:
            run.prepare_resume()
            self._unfollow()
            self._start(run)
        except UserError as error:
            self.error.emit(str(error), "")

    def _start(self, run: RunFolder) -> None:
        # One thread less than there are: the window stays fluid, and training is hardly slower.
        process = start_worker(run, folders_job(run.spec), threads=max(1, (os.cpu_count() or 2) - 1))
        # Waited for in a thread, so that its end leaves no zombie behind; closing the window does not end it.
        threading.Thread(target=process.wait, name=f"wait-{run.id}", daemon=True).start()
        self._drop_started(run.id)
        self._await(run)
        self.follow(run.id)
        self.session.refresh("runs")

    def stop_run(self) -> None:
        """Ask the run that is shown to stop."""
        if self.watcher is not None:
            try:
                self.watcher.run.request_stop()
            except UserError as error:
                self.error.emit(str(error), "")
                return
            self.stop_button.setEnabled(False)
            self.pill.set(self.tr("Stopping"), "warning")

    def predict(self) -> None:
        """Let the run that is shown segment all images; one that was trained again, those that nobody has reviewed."""
        if self.watcher is not None and self._spec is not None:
            self._predict(self.watcher.run, self._spec)

    def _predict(self, run: RunFolder, spec: RunSpec) -> None:
        study = self.session.study
        if study is None:
            return
        run_id = run.id

        pace = self.tr("{n:.3g} images/s, {time} left")

        def work(progress: StepProgress) -> object:
            from segmentation import steps

            def show(event: JobEvent) -> None:
                speed, left = event.values.get("images_per_s"), event.values.get("eta_s")
                what = ""
                if isinstance(speed, (int, float)) and isinstance(left, (int, float)) and left > 0:
                    what = pace.format(n=speed, time=duration_text(left))
                progress(event.step, event.total, what)

            images = to_predict(study, run) if is_again(spec) else None
            return steps.predict(study, run_id, images=images, networks=networks_of(spec), on_event=show)

        task = Task(work, self.tr("Predicting masks"), self)
        task.succeeded.connect(lambda _: self.notice.emit(self.tr("The masks are ready to be reviewed.")))
        if is_again(spec):
            task.succeeded.connect(lambda _: self.predicted_again.emit(run_id))
        task.ended.connect(lambda: self.session.refresh("runs"))
        self.start_task(task)

    def stop(self) -> None:
        """Look no further; the run goes on."""
        if self.watcher is not None:
            self.watcher.stop()
        self._forget_started()
        self.again_button.stop()
        self.rounds.stop()
