"""Train: one button, then progress, curves, sample masks, and all runs of the study."""

from __future__ import annotations

import os
import threading

from PySide6.QtCore import (
    QTimer,
)
from PySide6.QtWidgets import (
    QFrame,
    QHBoxLayout,
    QProgressBar,
    QStackedWidget,
    QVBoxLayout,
    QWidget,
)

from app import theme
from app.jobs import RunWatcher, StepProgress, Task
from app.overview import Overview
from app.page import Page
from app.plots import Plot
from app.run_table import STATE_TOKENS, RunModel, RunTable
from app.samples import SampleStrip
from app.session import Session
from app.surveyor import Surveyor
from app.texts import duration_text
from app.train_settings import TrainSettings
from app.widgets import Button, ElidedLabel, EmptyState, Pill, box, heading, label, set_role
from gaze_capture.errors import UserError
from segmentation.job import JobEvent, RunSpec
from segmentation.known_folders import folders_job
from segmentation.runs import RunFolder, create_run, start_worker
from segmentation.study import Study

SUPERVISED_TERMS = ("total", "student", "teacher")
"""Losses of the first plot; the others say how well the networks agree and go to the second."""


class TrainPage(Page):
    """Follows one run of the study at a time: the one at work, or the one chosen in the table."""

    def __init__(self, session: Session) -> None:
        super().__init__(session)
        self.watcher: RunWatcher | None = None
        self._overview = Overview()
        self._surveyor = Surveyor(self)
        self._surveyor.counted.connect(self._counted)
        self._surveyor.failed.connect(self.error)
        self._states_of: Study | None = None
        self._scored = False
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
        self._redraw = QTimer(self, singleShot=True, interval=60)
        self._redraw.timeout.connect(self._redraw_plots)
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
        layout.addWidget(left, 1)
        layout.addWidget(self._make_runs())

    # Parts

    def _make_run_view(self) -> QWidget:
        view = QWidget()
        column = QVBoxLayout(view)
        box(column, spacing=theme.WIDE)
        progress = QFrame()
        progress.setObjectName("card")
        inner = QVBoxLayout(progress)
        box(inner, margins=(theme.LARGE, theme.WIDE, theme.LARGE, theme.WIDE), spacing=theme.NORMAL)
        head = QHBoxLayout()
        box(head, spacing=theme.NORMAL)
        self.run_name = ElidedLabel()
        self.run_name.setFont(theme.heading_font(13))
        self.pill = Pill()
        self.stop_button = Button(self.tr("Stop"), "stop", "", self.stop_run)
        self.stop_button.setToolTip(self.tr("Stop at the next step; what was learned is kept"))
        self.resume_button = Button(self.tr("Resume"), "play", "", self.resume_run)
        self.resume_button.setToolTip(self.tr("Go on from the last checkpoint"))
        self.predict_button = Button(self.tr("Predict masks"), "selection-all", "", self.predict)
        head.addWidget(self.pill)
        head.addWidget(self.run_name, 1)
        for button in (self.predict_button, self.resume_button, self.stop_button):
            head.addWidget(button)
        self.bar = QProgressBar()
        self.bar.setTextVisible(False)
        self.facts = label("", "muted", wrap=True)
        self.facts.setFont(theme.number_font(12))
        inner.addLayout(head)
        inner.addWidget(self.bar)
        inner.addWidget(self.facts)
        plots = QHBoxLayout()
        box(plots, spacing=theme.WIDE)
        self.losses = Plot(self.tr("Losses"), self.tr("Waiting for the first steps…"))
        self.scores = Plot(self.tr("Agreement with the labels"), self.tr("Waiting for the first steps…"))
        plots.addWidget(self.losses, 1)
        plots.addWidget(self.scores, 1)
        self.samples = SampleStrip()
        column.addWidget(progress)
        column.addLayout(plots, 3)
        column.addWidget(self.samples, 2)
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
            self._unfollow()
        sentence = self.tr("No run yet. Curves and sample masks will appear here.")
        self.empty.set("chart-line-up", sentence, self.tr("Go to the study") if study is None else "")
        if study is None:
            self.runs.set_rows([])
            self._overview = Overview()
            self._show_sentence()
            return
        self._list_runs(study)
        if self.watcher is None and self.runs.rows:
            running = next((row[0] for row in self.runs.rows if row[2] == "running"), self.runs.rows[0][0])
            self.follow(running)
        self._show_sentence()
        self._surveyor.request(study)

    def _counted(self, overview: Overview) -> None:
        self._overview = overview
        self._show_sentence()

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
        self.settings.show_plan(self.session.study, self._overview, busy=busy)

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
        self._scored = False
        self.losses.clear()
        self.scores.clear()
        self.scores.title.setText(self.tr("Agreement with the labels"))
        self.samples.clear()
        self.bar.setRange(0, 1)
        self.bar.setValue(0)
        self.facts.setText("")
        self._centre.setCurrentIndex(0)

    def _on_event(self, event: JobEvent) -> None:
        if event.kind == "phase":
            self.facts.setText(str(event.values.get("name", "")).capitalize() + "…")
            self.bar.setRange(0, 0)
        elif event.kind == "progress":
            self.bar.setRange(0, event.total)
            self.bar.setValue(event.step)
        elif event.kind == "step":
            self._on_step(event)
        elif event.kind == "agreement":
            self._on_agreement(event)
        elif event.kind == "selection":
            self._on_selection(event)
        elif event.kind == "sample" and self.watcher is not None and self.session.study is not None:
            values = event.values
            path = self.watcher.run.path / str(values.get("path", ""))
            if str(values.get("image_id")) in self.session.study.images:
                self.samples.show_sample(self.session.study, str(values["image_id"]), path, event.step)
        elif event.kind in ("warning", "failed") and event.values.get("message"):
            self.facts.setText(str(event.values["message"]))
            set_role(self.facts, "danger" if event.kind == "failed" else "warning")
        elif event.kind == "done":
            self.bar.setRange(0, max(event.total, 1))
            self.bar.setValue(event.total)
            seconds = event.values.get("seconds")
            if isinstance(seconds, (int, float)):
                text = self.tr("{n:,} steps in {time}").format(n=event.step, time=duration_text(seconds))
                self.facts.setText(text)
        elif event.kind == "started":
            set_role(self.facts, "muted")

    def _on_step(self, event: JobEvent) -> None:
        values = event.values
        losses = values.get("losses")
        for name, value in (losses if isinstance(losses, dict) else {}).items():
            if value is None:
                continue
            if name in SUPERVISED_TERMS:
                self.losses.add(name, self._curve_title(name), event.step, value)
        self.bar.setRange(0, max(event.total, 1))
        self.bar.setValue(event.step)
        parts = [self.tr("step {step:,} of {total:,}").format(step=event.step, total=event.total)]
        if values.get("images_per_s"):
            parts.append(self.tr("{n:.0f} images/s").format(n=values["images_per_s"]))
        if values.get("eta_s"):
            parts.append(self.tr("{time} left").format(time=duration_text(values["eta_s"])))
        self.facts.setText("   ·   ".join(parts))
        set_role(self.facts, "muted")
        self._redraw.start()

    def _on_agreement(self, event: JobEvent) -> None:
        value = event.values.get("dice")
        if not self._scored and isinstance(value, (int, float)):
            self.scores.add("agreement", self.tr("Dice"), event.step, float(value))
            self._redraw.start()

    def _on_selection(self, event: JobEvent) -> None:
        if not self._scored:
            # A score on images set apart says more than agreement with the labels: it takes the plot.
            self._scored = True
            self.scores.clear()
            self.scores.title.setText(self.tr("Dice on images set apart"))
        for name, value in event.values.items():
            if isinstance(value, (int, float)):
                self.scores.add(name, self._curve_title(name), event.step, float(value))
        self._redraw.start()

    def _redraw_plots(self) -> None:
        self.losses.redraw()
        self.scores.redraw()

    def _curve_title(self, name: str) -> str:
        titles = {
            "total": self.tr("total"),
            "student": self.tr("student"),
            "teacher": self.tr("teacher"),
            "dice": self.tr("Dice"),
            "best": self.tr("best"),
        }
        return titles.get(name, name.replace("_", " "))

    def _on_state(self, state: str) -> None:
        self.pill.set(self._state_words[state], STATE_TOKENS[state])
        active = state in ("running", "waiting")
        self.stop_button.setVisible(state == "running")
        self.stop_button.setEnabled(True)
        self.resume_button.setVisible(state in ("stopped", "interrupted", "failed"))
        self.predict_button.setVisible(state in ("done", "stopped"))
        if not active and self.bar.maximum() == 0:
            self.bar.setRange(0, 1)
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

        pace = self.tr("{n:.3g} images/s, {time} left")

        def work(progress: StepProgress) -> object:
            from segmentation import steps

            def show(event: JobEvent) -> None:
                speed, left = event.values.get("images_per_s"), event.values.get("eta_s")
                what = ""
                if isinstance(speed, (int, float)) and isinstance(left, (int, float)) and left > 0:
                    what = pace.format(n=speed, time=duration_text(left))
                progress(event.step, event.total, what)

            return steps.predict(study, run_id, networks=networks, on_event=show)

        task = Task(work, self.tr("Predicting masks"), self)
        task.succeeded.connect(lambda _: self.notice.emit(self.tr("The masks are ready to be reviewed.")))
        task.ended.connect(lambda: self.session.refresh("runs"))
        self.start_task(task)

    def stop(self) -> None:
        """Look no further; the run goes on."""
        if self.watcher is not None:
            self.watcher.stop()
