"""Describing images in the background: one run at a time, whoever looks at it, and what came of it."""

from __future__ import annotations

import time
from collections.abc import Sequence

from PySide6.QtCore import QObject, Signal
from PySide6.QtGui import QGuiApplication
from PySide6.QtWidgets import QHBoxLayout, QPlainTextEdit, QProgressBar, QVBoxLayout, QWidget

from app import theme
from app.describe_again import describe_again
from app.jobs import StepProgress, Task
from app.session import Session
from app.widgets import Button, ElidedLabel, IconLabel, box, heading, label
from segmentation.explainers.opening import BackendOptions
from segmentation.explaining import ExplainResult, explain_study
from segmentation.study import Study

SHOWN_EVERY_S = 1.0
"""How often the pages look at what was described meanwhile."""


class ExplainRun(QObject):
    """Images being described by one backend; it goes on when the dialog that began it closes."""

    changed = Signal()
    ended = Signal()

    def __init__(
        self,
        session: Session,
        study: Study,
        options: BackendOptions,
        image_ids: Sequence[str],
        *,
        again: bool,
        parent: QObject,
    ) -> None:
        super().__init__(parent)
        self.study, self.options, self.image_ids, self.again = study, options, tuple(image_ids), again
        self.result = ExplainResult()
        """Counted into by the thread."""
        self.done, self.total, self.doing = 0, len(self.image_ids), ""
        self.problem = ""
        self.finished = self.cancelled = self.is_over = False
        self._session = session
        self._shown_at, self._shown = time.monotonic(), 0
        self.begun = time.monotonic()
        self.seconds = 0.0
        self.task = Task(self._work, self.tr("Describing regions"), self)
        self.task.progressed.connect(self._progress)
        self.task.succeeded.connect(self._succeed)
        self.task.failed.connect(self._fail)
        self.task.ended.connect(self._end)

    def _work(self, progress: StepProgress) -> ExplainResult:
        if self.again:
            return describe_again(self.study, self.image_ids, progress, self.options, self.result)
        return explain_study(
            self.study, self.options, image_ids=self.image_ids, progress=progress, result=self.result
        )

    def cancel(self) -> None:
        """Stop at once; what was answered is kept."""
        self.cancelled = True
        self.task.cancel()
        self.changed.emit()

    def _progress(self, done: int, total: int, doing: str) -> None:
        self.done, self.total, self.doing = done, total, doing
        now = time.monotonic()
        if self.result.done > self._shown and now - self._shown_at >= SHOWN_EVERY_S:
            self._shown, self._shown_at = self.result.done, now
            if self._session.study is self.study:
                self._session.refresh("descriptions")
        self.changed.emit()

    def _succeed(self, _: object) -> None:
        self.finished = True

    def _fail(self, sentence: str, _details: str) -> None:
        self.problem = sentence

    def _end(self) -> None:
        self.is_over = True
        # The strip's own Cancel tells only the task.
        self.cancelled = not self.finished and not self.problem
        self.seconds = time.monotonic() - self.begun
        if self._session.study is self.study:
            self._session.refresh("data")
        self.changed.emit()
        self.ended.emit()

    @property
    def failed_ids(self) -> list[str]:
        """The images that came to nothing, each once."""
        return list(dict.fromkeys(image_id for image_id, _ in self.result.failed))


class RunView(QWidget):
    """How far a run is, and its summary."""

    again_wanted = Signal(list)
    """Ids of the images that failed."""
    back_wanted = Signal()

    def __init__(self) -> None:
        super().__init__()
        self.run: ExplainRun | None = None
        self._listed = 0
        layout = QVBoxLayout(self)
        box(layout, spacing=theme.WIDE)
        head = QHBoxLayout()
        box(head, spacing=theme.NORMAL)
        self.icon = IconLabel("chat-text", "accent", 24)
        self.title = heading("", 20)
        head.addWidget(self.icon)
        head.addWidget(self.title, 1)
        self.bar = QProgressBar()
        self.bar.setTextVisible(False)
        self.doing = ElidedLabel("", "muted")
        self.counts = label("", "", wrap=True)
        self.counts.setFont(theme.number_font(13))
        self.spent = label("", "muted", wrap=True)
        self.problem = label("", "danger", wrap=True)
        self.failures_title = label("", "danger")
        self.failures = QPlainTextEdit()
        self.failures.setReadOnly(True)
        self.failures.setLineWrapMode(QPlainTextEdit.LineWrapMode.WidgetWidth)
        self.failures.setAccessibleName(self.tr("Images that failed, with the reason"))
        self.cancel_button = Button(self.tr("Cancel"), "x", on_click=self._cancel)
        self.again_button = Button(self.tr("Ask the failed again"), "arrow-clockwise", on_click=self._again)
        self.copy_button = Button(self.tr("Copy the list"), "copy", on_click=self._copy)
        self.back_button = Button(self.tr("Describe others…"), "arrow-left", on_click=self.back_wanted.emit)
        buttons = QHBoxLayout()
        box(buttons, spacing=theme.NORMAL)
        for button in (self.back_button, self.cancel_button, self.again_button, self.copy_button):
            button.setAutoDefault(False)
            buttons.addWidget(button)
        buttons.addStretch(1)
        layout.addLayout(head)
        layout.addWidget(self.bar)
        layout.addWidget(self.doing)
        layout.addWidget(self.counts)
        layout.addWidget(self.spent)
        layout.addWidget(self.problem)
        layout.addWidget(self.failures_title)
        layout.addWidget(self.failures, 1)
        layout.addLayout(buttons)
        self._filler = QWidget()
        layout.addWidget(self._filler, 1)

    def follow(self, run: ExplainRun) -> None:
        """Show a run from now on."""
        if self.run is not None:
            self.run.changed.disconnect(self._show)
        self.run, self._listed = run, 0
        self.failures.clear()
        run.changed.connect(self._show)
        self._show()

    def _show(self) -> None:
        run = self.run
        if run is None:
            return
        result = run.result
        over = run.is_over
        failed = list(result.failed)
        self.bar.setRange(0, max(1, run.total))
        self.bar.setValue(run.done)
        self.bar.setVisible(not over)
        self.doing.setVisible(not over)
        self.doing.setText(
            self.tr("{done:,} of {total:,}   {doing}").format(done=run.done, total=run.total, doing=run.doing)
        )
        counts = [
            self.tr("{n:,} described").format(n=result.done),
            self.tr("{n:,} failed").format(n=len(failed)),
        ]
        known = result.skipped + result.reused
        if known:
            counts.append(self.tr("{n:,} asked in the same way before").format(n=known))
        if result.kept:
            counts.append(self.tr("{n:,} edited or approved, left alone").format(n=result.kept))
        self.counts.setText(" · ".join(counts))
        spent = []
        if result.requests:
            spent.append(self.tr("{n:,} requests").format(n=result.requests))
        if result.prompt_tokens or result.completion_tokens:
            spent.append(
                self.tr("{sent:,} + {got:,} tokens").format(
                    sent=result.prompt_tokens, got=result.completion_tokens
                )
            )
        if result.money is not None:
            spent.append(self.tr("about {money:.2f} by the price given").format(money=result.money))
        if over:
            spent.append(self.tr("{seconds:.0f} s").format(seconds=run.seconds))
        self.spent.setText(" · ".join(spent))
        self.spent.setVisible(bool(spent))
        self.problem.setText(run.problem)
        self.problem.setVisible(bool(run.problem))
        self._list_failures(run, failed)
        for widget in (self.failures, self.failures_title):
            widget.setVisible(bool(failed))
        self._filler.setVisible(not failed)
        self.failures_title.setText(self.tr("{n:,} failed:").format(n=len(failed)))
        self.cancel_button.setVisible(not over)
        self.cancel_button.setEnabled(not run.cancelled)
        self.again_button.setVisible(over and bool(failed))
        self.copy_button.setVisible(over and bool(failed))
        self.back_button.setVisible(over)
        if not over:
            title = self.tr("Describing…") if not run.cancelled else self.tr("Being cancelled…")
            icon, token = "chat-text", "accent"
        elif run.problem:
            title, icon, token = self.tr("It could not be done"), "warning-circle", "danger"
        elif run.cancelled:
            title, icon, token = self.tr("Cancelled; what was answered is kept"), "warning-circle", "warning"
        elif failed:
            title, icon, token = self.tr("Done, some failed"), "warning-circle", "warning"
        else:
            title, icon, token = self.tr("Done"), "check-circle", "accent"
        self.title.setText(title)
        self.icon.set_icon(icon, token)

    def _list_failures(self, run: ExplainRun, failed: list[tuple[str, str]]) -> None:
        """Add what came; only at the end they stand in the study's order, so that a reader keeps their place."""
        lines = [f"{image_id}: {reason}" for image_id, reason in failed]
        if run.is_over or len(lines) < self._listed:
            self.failures.setPlainText("\n".join(lines))
        elif len(lines) > self._listed:
            self.failures.appendPlainText("\n".join(lines[self._listed :]))
        self._listed = len(lines)

    def _cancel(self) -> None:
        if self.run is not None:
            self.run.cancel()

    def _again(self) -> None:
        if self.run is not None:
            self.again_wanted.emit(self.run.failed_ids)

    def _copy(self) -> None:
        QGuiApplication.clipboard().setText(self.failures.toPlainText())
