"""Gaze quality: which looks must be repeated and which sittings need a new calibration."""

from __future__ import annotations

import math
from pathlib import Path

from PySide6.QtCore import Qt
from PySide6.QtWidgets import (
    QButtonGroup,
    QFileDialog,
    QFrame,
    QHBoxLayout,
    QLabel,
    QPushButton,
    QStackedWidget,
    QVBoxLayout,
    QWidget,
)

from app import theme
from app.jobs import StepProgress, Task
from app.latest import NO_FLICKER_MS, Latest
from app.page import Page
from app.quality_words import degrees_text, gate_sign, verdict_sign
from app.screen_plan import ScreenPlan, validated_points
from app.session import Session
from app.tables import Cell, Row, RowsTable
from app.texts import short_name
from app.widgets import Button, EmptyState, box, clear, heading, label, scrolled
from gaze_capture.quality import DATA_LOSS, MEAN_ERROR_DEG, RMS_S2S_DEG
from gaze_capture.recording_codec import read_recording
from gaze_capture.storage import write_json_atomic
from segmentation.gaze_quality import AnnotatorQuality, GazeQuality, LookQuality, StudyQuality, study_quality
from segmentation.quality_report import write_quality_report
from segmentation.study import Study

DASH = "–"


class QualityPage(Page):
    """Looks, recordings and annotators of the open study; what is chosen is explained on the right."""

    def __init__(self, session: Session) -> None:
        super().__init__(session)
        self._quality: StudyQuality | None = None
        self._latest = Latest(self)
        self._latest.answered.connect(self._show)
        self._latest.failed.connect(self.error)
        titles = (self.tr("Looks"), self.tr("Recordings"), self.tr("Annotators"))
        self.looks = RowsTable(
            (
                self.tr("Image"), self.tr("Target"), self.tr("Annotator"), self.tr("State"), self.tr("Time"),
                self.tr("Fixations"), self.tr("Loss"),
            ),
            numbers=(4, 5, 6),
            pills=(3,),
        )  # fmt: skip
        self.recordings = RowsTable(
            (
                self.tr("Recording"), self.tr("Annotator"), self.tr("Tracker"), self.tr("Images"),
                self.tr("To repeat"), self.tr("Loss"), self.tr("Accuracy"), self.tr("RMS-S2S"),
            ),
            numbers=(3, 4, 5, 6, 7),
            stretched=2,
        )  # fmt: skip
        # By name, always: a list that can be sorted by quality is a ranking.
        self.annotators = RowsTable(
            (
                self.tr("Annotator"), self.tr("Recordings"), self.tr("Images"), self.tr("Time"),
                self.tr("Loss"), self.tr("Accuracy"), self.tr("To repeat"),
            ),
            numbers=(1, 2, 3, 4, 5, 6),
            sortable=False,
        )  # fmt: skip
        self._tables = QStackedWidget()
        self._choice = QButtonGroup(self)
        segments = QHBoxLayout()
        box(segments, spacing=0)
        for number, (title, table) in enumerate(
            zip(titles, (self.looks, self.recordings, self.annotators), strict=True)
        ):
            button = QPushButton(title)
            button.setProperty("role", "segment")
            button.setProperty("side", ("left", "middle", "right")[number])
            button.setCheckable(True)
            button.setChecked(number == 0)
            button.setCursor(Qt.CursorShape.PointingHandCursor)
            self._choice.addButton(button, number)
            segments.addWidget(button)
            self._tables.addWidget(table)
            table.chosen.connect(lambda _=None: self._explain())
        self._choice.idClicked.connect(self._show_table)
        self.html_button = Button(self.tr("Save as HTML…"), "file-text", "", lambda: self._save("html"))
        self.json_button = Button(self.tr("Save as JSON…"), "brackets-curly", "", lambda: self._save("json"))
        head = QHBoxLayout()
        box(head, spacing=theme.NORMAL)
        head.addLayout(segments)
        head.addStretch(1)
        head.addWidget(self.html_button)
        head.addWidget(self.json_button)
        self.summary = label("", "muted", wrap=True)
        left = QVBoxLayout()
        box(left, margins=(theme.HUGE, theme.LARGE, theme.LARGE, theme.LARGE), spacing=theme.WIDE)
        left.addWidget(heading(self.tr("Gaze quality"), 20))
        left.addWidget(self.summary)
        left.addLayout(head)
        left.addWidget(self._tables, 1)
        body = QWidget()
        self._detail = QVBoxLayout(body)
        box(self._detail, margins=(theme.LARGE, theme.WIDE, theme.LARGE, theme.LARGE), spacing=theme.NORMAL)
        self.panel = QFrame()
        self.panel.setObjectName("panelRight")
        self.panel.setFixedWidth(300)
        panel = QVBoxLayout(self.panel)
        box(panel, spacing=0)
        panel.addWidget(scrolled(body))
        self._full = QWidget()
        whole = QHBoxLayout(self._full)
        box(whole, spacing=0)
        whole.addLayout(left, 1)
        whole.addWidget(self.panel)
        self._empty = EmptyState("eye", "", self.tr("Record gaze"))
        self._empty.acted.connect(lambda: self.page_wanted.emit("record"))
        self._stack = QStackedWidget()
        self._stack.addWidget(self._full)
        self._stack.addWidget(self._empty)
        outer = QHBoxLayout(self)
        box(outer, spacing=0)
        outer.addWidget(self._stack)

    def refresh(self, what: str) -> None:
        """Measure the study's gaze again, off the window's thread."""
        study = self.session.study
        if study is None:
            self._show_empty(self.tr("Open a study to see how good its gaze is."))
            return
        if what in ("study", "data"):
            self.summary.setText(self.tr("Measuring all recordings…"))
            self._latest.ask(lambda: study_quality(study), NO_FLICKER_MS)

    def stop(self) -> None:
        """End the thread."""
        self._latest.stop()

    # What is shown

    def _show_empty(self, sentence: str) -> None:
        self._empty.set("eye", sentence, self.tr("Record gaze"))
        self._stack.setCurrentWidget(self._empty)

    def _show(self, quality: StudyQuality) -> None:
        self._quality = quality
        if not quality.sources:
            self._show_empty(self.tr("No image has been looked at yet. Record gaze, or import it."))
            return
        self._stack.setCurrentWidget(self._full)
        self.looks.set_rows([self._look_row(number, look) for number, look in enumerate(quality.looks)])
        self.recordings.set_rows([self._recording_row(source) for source in quality.sources])
        self.annotators.set_rows([self._annotator_row(one) for one in quality.annotators])
        held = sum(source.held_back for source in quality.sources)
        simulated = sorted({source.simulated_from for source in quality.sources if source.simulated_from})
        told = [
            self.tr("Looks: {looks:,}; recordings and imports: {sources}.").format(
                looks=len(quality.looks), sources=len(quality.sources)
            ),
            self.tr("To be looked at again: {n}.").format(n=held)
            if held
            else self.tr("None has to be repeated."),
            *(self.tr("Simulated from {source}.").format(source=name) for name in simulated),
            self.tr("For the study's sake: not to compare people."),
        ]
        if quality.unreadable:
            left_out = self.tr("Left out, as they cannot be read: {n}.")
            told.insert(1, left_out.format(n=len(quality.unreadable)))
        self.summary.setText(" ".join(told))
        self._explain()

    def _show_table(self, number: int) -> None:
        self._tables.setCurrentIndex(number)
        self._explain()

    def _look_row(self, number: int, look: LookQuality) -> Row:
        again = bool(look.held_back) and look.overruled_by is None
        kept = bool(look.held_back) and not again
        state = self.tr("look again") if again else self.tr("kept") if kept else self.tr("fine")
        token = "danger" if again else "warning" if kept else "accent"
        return Row(
            number,
            (
                Cell(look.image_id, tip=look.image_id),
                Cell(look.target_id or self.tr("free viewing")),
                Cell(look.annotator),
                Cell(state, "0" if again else "1" if kept else "2", token, "; ".join(look.held_back)),
                Cell(f"{look.seconds:.1f} s", look.seconds),
                Cell(str(look.fixations), float(look.fixations)),
                _share(look.data_loss),
            ),
        )

    def _recording_row(self, source: GazeQuality) -> Row:
        tracker = source.tracker
        if source.simulated_from:
            tracker = self.tr("{tracker}, from {source}").format(
                tracker=tracker, source=source.simulated_from
            )
        return Row(
            source.source,
            (
                Cell(short_name(source.source), tip=source.source),
                Cell(source.annotator),
                Cell(tracker),
                Cell(str(source.images), float(source.images)),
                Cell(str(source.held_back), float(source.held_back), "danger" if source.held_back else ""),
                _share(source.data_loss),
                _gated(source.accuracy_deg, MEAN_ERROR_DEG, f"{source.accuracy_deg:.2f}°"),
                _gated(source.rms_s2s_deg, RMS_S2S_DEG, f"{source.rms_s2s_deg:.2f}°"),
            ),
        )

    def _annotator_row(self, one: AnnotatorQuality) -> Row:
        return Row(
            one.annotator,
            (
                Cell(one.annotator),
                Cell(str(one.sources)),
                Cell(str(one.images)),
                Cell(self.tr("{m:.1f} min").format(m=one.viewing_seconds / 60)),
                _share(one.data_loss),
                _gated(one.accuracy_deg, MEAN_ERROR_DEG, f"{one.accuracy_deg:.2f}°"),
                Cell(self.tr("{n} of {all}").format(n=one.held_back, all=one.looks)),
            ),
        )

    # The panel

    def _explain(self) -> None:
        clear(self._detail)
        quality = self._quality
        table = self._tables.currentWidget()
        key = table.current_key() if isinstance(table, RowsTable) else None
        if quality is None or key is None:
            self._line(self.tr("Choose a line to see what it is made of."), "muted")
        elif table is self.looks and isinstance(key, int):
            self._explain_look(quality.looks[key])
        elif table is self.recordings:
            self._explain_recording(next(one for one in quality.sources if one.source == key))
        else:
            self._line(
                self.tr(
                    "All recordings of one annotator together. Glasses, light and the chair make most of the "
                    "difference between people; what can be mended is told with the recordings."
                ),
                "muted",
            )
        self._detail.addStretch(1)

    def _line(self, text: str, role: str = "") -> QLabel:
        made = label(text, role, wrap=True)
        self._detail.addWidget(made)
        return made

    def _facts(self, rows: list[tuple[str, str]]) -> None:
        for name, value in rows:
            line = QHBoxLayout()
            box(line, spacing=theme.NORMAL)
            line.addWidget(label(name, "muted"), 1)
            line.addWidget(label(value))
            self._detail.addLayout(line)

    def _gap_text(self, gap_ms: float) -> str:
        if not math.isfinite(gap_ms):
            return DASH
        return self.tr("{ms:.0f} ms").format(ms=gap_ms)

    def _explain_look(self, look: LookQuality) -> None:
        self._detail.addWidget(heading(look.image_id))
        self._line(
            self.tr("{annotator}, {seconds:.1f} s, {n} fixations").format(
                annotator=look.annotator, seconds=look.seconds, n=look.fixations
            ),
            "muted",
        )
        self._facts(
            [
                (self.tr("Eyes not seen"), _percent(look.data_loss)),
                (self.tr("Longest gap"), self._gap_text(look.longest_gap_ms)),
                (self.tr("Noise (RMS-S2S)"), degrees_text(look.rms_s2s_deg)),
            ]
        )
        for reason in look.held_back:
            self._line(f"· {reason[0].upper()}{reason[1:]}.", "" if look.overruled_by else "danger")
        if not look.held_back:
            self._line(self.tr("Nothing speaks against learning from this look."))
        elif look.overruled_by is not None:
            self._line(self.tr("{name} decided to keep it.").format(name=look.overruled_by), "warning")
        study = self.session.study
        if study is not None and look.image_id in study.images:
            again = Button(self.tr("Look again"), "eye", "", lambda: self._look_again(look))
            self._detail.addWidget(again)

    def _look_again(self, look: LookQuality) -> None:
        self.session.set_image(look.image_id)
        if look.target_id is not None:
            self.session.set_target(look.target_id)
        self.page_wanted.emit("record")

    def _explain_recording(self, source: GazeQuality) -> None:
        self._detail.addWidget(heading(short_name(source.source)))
        rows = [
            (self.tr("Annotator"), source.annotator),
            (self.tr("Tracker"), source.tracker),
            (self.tr("Started"), source.started_utc[:16].replace("T", " ")),
            (self.tr("Samples"), DASH if source.samples is None else f"{source.samples:,}"),
            (self.tr("Rate"), f"{source.rate_hz:.0f} Hz" if math.isfinite(source.rate_hz) else DASH),
            (self.tr("Left eye lost"), _percent(source.loss_left)),
            (self.tr("Right eye lost"), _percent(source.loss_right)),
            (self.tr("Drift checks"), ", ".join(f"{one:.1f}°" for one in source.drift_deg) or DASH),
            (self.tr("Connection lost"), str(source.interruptions)),
        ]
        self._facts(rows)
        validation, study = source.validation, self.session.study
        if validation is None or study is None:
            self._line(
                self.tr("This sitting was not validated: how exact its gaze is, nobody knows."), "warning"
            )
            return
        sign = verdict_sign(validation.verdict)
        self._line(
            self.tr("Validation: {word}, {mean} on average, {worst} at worst.").format(
                word=sign.title.lower(),
                mean=degrees_text(validation.mean_error_deg),
                worst=degrees_text(validation.max_error_deg),
            ),
            sign.token if sign.token != "accent" else "",
        )
        geometry = read_recording(study.recordings_folder / source.source).geometry
        plan = ScreenPlan(geometry)
        plan.setMinimumHeight(220)
        plan.show_points(validated_points(validation, None, geometry))
        self._detail.addWidget(plan)

    # Saving

    def _save(self, kind: str) -> None:
        study, quality = self.session.study, self._quality
        if study is None or quality is None:
            return
        name = f"{study.name} gaze quality.{kind}"
        filters = {"html": self.tr("Web page (*.html)"), "json": self.tr("JSON (*.json)")}
        chosen, _ = QFileDialog.getSaveFileName(
            self, self.tr("Save the quality report"), str(Path.home() / name), filters[kind]
        )
        if chosen:
            self.save_to(study, quality, Path(chosen))

    def save_to(self, study: Study, quality: StudyQuality, file: Path) -> None:
        """Write the report to a file; its ending says how."""

        def work(_: StepProgress) -> Path:
            if file.suffix == ".json":
                write_json_atomic(file, quality.to_json())
            else:
                write_quality_report(study, quality, file)
            return file

        task = Task(work, self.tr("Saving the quality report"), self)
        task.succeeded.connect(lambda path: self.notice.emit(self.tr("Saved as {file}.").format(file=path)))
        self.start_task(task)


def _percent(value: float) -> str:
    return f"{value:.1%}" if math.isfinite(value) else DASH


def _share(value: float) -> Cell:
    return _gated(value, DATA_LOSS, _percent(value))


def _gated(value: float, gate: tuple[float, float], text: str) -> Cell:
    """Return a number in the colour of what its gate says; unknown ones sort last."""
    if not math.isfinite(value):
        return Cell(DASH, math.inf)
    token = gate_sign(value, gate).token
    return Cell(text, value, "" if token == "accent" else token)
