"""Train: one button, then progress, curves, sample masks, and all runs of the study."""

from __future__ import annotations

import os
import threading

from PySide6.QtWidgets import QFrame, QHBoxLayout, QStackedWidget, QVBoxLayout, QWidget

from app import theme
from app.dialogs import in_background
from app.jobs import RunWatcher, StepProgress, Task
from app.overview import Overview
from app.page import Page
from app.run_table import STATE_TOKENS, RunModel, RunTable
from app.run_view import RunView
from app.session import Session
from app.surveyor import Surveyor
from app.train_settings import TrainSettings
from app.widgets import Button, EmptyState, box, heading, scrolled
from gaze_capture.errors import UserError
from segmentation.job import JobEvent, RunSpec
from segmentation.known_folders import folders_job
from segmentation.machine import Machine, this_machine
from segmentation.runs import RunFolder, create_run, start_worker
from segmentation.study import Study


class TrainPage(Page):
    """Follows one run of the study at a time: the one at work, or the one chosen in the table."""

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
        self._started_here: set[str] = set()
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
        # Unfolded settings and a run do not fit a small screen together.
        layout.addWidget(scrolled(left), 1)
        layout.addWidget(self._make_runs())

    # Parts

    def _make_run_view(self) -> RunView:
        self.view = view = RunView()
        self.stop_button = Button(self.tr("Stop"), "stop", "", self.stop_run)
        self.stop_button.setToolTip(self.tr("Stop at the next step; what was learned is kept"))
        self.resume_button = Button(self.tr("Resume"), "play", "", self.resume_run)
        self.resume_button.setToolTip(self.tr("Go on from the last checkpoint"))
        self.predict_button = Button(self.tr("Predict masks"), "selection-all", "", self.predict)
        for button in (self.predict_button, self.resume_button, self.stop_button):
            view.buttons.addWidget(button)
        self.pill, self.facts, self.samples = view.pill, view.facts, view.samples
        self.losses, self.scores, self.run_name = view.losses, view.scores, view.run_name
        return view

    def _make_runs(self) -> QFrame:
        panel = QFrame()
        panel.setObjectName("panelRight")
        panel.setFixedWidth(352)
        layout = QVBoxLayout(panel)
        box(layout, spacing=theme.NORMAL)
        title = heading(self.tr("Runs"))
        title.setContentsMargins(theme.LARGE, theme.WIDE, 0, 0)
        self.runs = RunModel(self)
        self.table = RunTable(self.runs)
        self.table.clicked.connect(lambda index: self.follow(self.runs.rows[index.row()][0]))
        layout.addWidget(title)
        layout.addWidget(self.table, 1)
        return panel

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
        sentence = self.tr("No run yet. Curves and sample masks will appear here.")
        self.empty.set("chart-line-up", sentence, self.tr("Go to the study") if study is None else "")
        if study is None:
            self.runs.set_rows([])
            self._overview = Overview()
            self._show_sentence()
            return
        if what == "study":
            # The driver may take a second to answer; memory that was taken may be free again.
            title = self.tr("Looking at this computer")
            in_background(lambda _: this_machine(), title, self._looked_at, self._not_looked_at)
        self._list_runs(study)
        if self.watcher is None and self.runs.rows:
            running = next((row[0] for row in self.runs.rows if row[2] == "running"), self.runs.rows[0][0])
            self.follow(running)
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
        rows: list[tuple[str, str, str, str]] = []
        for run_id in reversed(study.run_ids()):
            run = RunFolder(study.runs_folder / run_id)
            try:
                method = run.spec.method
            except UserError:
                method = "?"
            state = run.state()
            rows.append((run_id, method, state, self._state_words[state]))
        self.runs.set_rows(rows)
        if self.watcher is not None:
            self._select(self.watcher.run.id)

    def _select(self, run_id: str) -> None:
        for number, row in enumerate(self.runs.rows):
            if row[0] == run_id:
                self.table.selectRow(number)

    def _show_sentence(self) -> None:
        busy = any(row[2] == "running" for row in self.runs.rows)
        self.settings.show_plan(self.session.study, self._overview, self._machine, busy=busy)

    # Following a run

    def follow(self, run_id: str) -> None:
        """Show a run from its first event on, and go on with it while it works."""
        study = self.session.study
        if study is None or (self.watcher is not None and self.watcher.run.id == run_id):
            return
        self._unfollow()
        run = RunFolder(study.runs_folder / run_id)
        try:
            self._spec = run.spec
        except UserError as error:
            self.error.emit(str(error), "")
            return
        self._centre.setCurrentIndex(1)
        self.view.begin(self._spec)
        self.run_name.setText(f"{self._spec.method} · {run_id}")
        self.watcher = RunWatcher(run, self)
        self.watcher.happened.connect(self._on_event)
        self.watcher.state_changed.connect(self._on_state)
        self._on_state(self.watcher.state)
        self.watcher.start()
        self._select(run_id)

    def _unfollow(self) -> None:
        if self.watcher is not None:
            self.watcher.stop()
            self.watcher.deleteLater()
            self.watcher = None
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
        if not active:
            self.view.end()
        study = self.session.study
        if study is not None:
            self._list_runs(study)
        self._show_sentence()
        if state == "failed" and self.watcher is not None and self.watcher.run.id in self._started_here:
            details = self.watcher.run.log_tail()
            self.error.emit(self.facts.text() or self.tr("The run failed."), details)
        if state == "done" and self.watcher is not None and self.watcher.run.id in self._started_here:
            self._started_here.discard(self.watcher.run.id)
            if self.settings.predict_after.isChecked():
                self.predict()

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
        self._started_here.add(run.id)
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
        """Let the run that is shown segment all images."""
        study = self.session.study
        if study is None or self.watcher is None:
            return
        run_id = self.watcher.run.id
        two = self._spec is not None and self._spec.method not in ("partial", "supervised")
        networks = ("student", "teacher") if two else ("student",)

        def work(progress: StepProgress) -> object:
            from segmentation import steps

            def show(event: JobEvent) -> None:
                progress(event.step, event.total, "")

            return steps.predict(study, run_id, networks=networks, on_event=show)

        task = Task(work, self.tr("Predicting masks"), self)
        task.succeeded.connect(lambda _: self.notice.emit(self.tr("The masks are ready to be reviewed.")))
        task.ended.connect(lambda: self.session.refresh("runs"))
        self.start_task(task)

    def stop(self) -> None:
        """Look no further; the run goes on."""
        if self.watcher is not None:
            self.watcher.stop()
