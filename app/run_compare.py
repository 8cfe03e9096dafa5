"""Runs side by side: their curves in one plot, their measures, and the settings in which they differ."""

from __future__ import annotations

import math
from collections.abc import Sequence

from PySide6.QtCore import Qt
from PySide6.QtWidgets import (
    QButtonGroup,
    QComboBox,
    QGridLayout,
    QHBoxLayout,
    QHeaderView,
    QProgressBar,
    QPushButton,
    QSizePolicy,
    QStackedWidget,
    QWidget,
)

from app import theme
from app.dialogs import Dialog, narrow
from app.jobs import StepProgress
from app.run_plot import RUN_STYLES, LineMark, RunPlot
from app.tables import Cell, Row, RowsTable
from app.widgets import ElidedLabel, box, label
from segmentation.run_comparison import (
    MEASURES,
    Curve,
    RunComparison,
    SideBySide,
    compare_runs,
    curves_of,
    interval_text,
)
from segmentation.run_list import RunSummary
from segmentation.runs import RunFolder
from segmentation.study import Study

DASH = "–"
LONGEST_HEAD, LONGEST_HEAD_OF_MANY, LONGEST_VALUE = 26, 15, 60
LEGEND_COLUMNS = 4

Answer = tuple[RunComparison, list[dict[str, Curve]]]


class CompareDialog(Dialog):
    """A window of its own beside the study's; the first run that was measured is what the others are held against."""

    def __init__(self, parent: QWidget | None, study: Study, runs: Sequence[RunSummary]) -> None:
        super().__init__(parent, "", scrolls=False)
        self.setWindowTitle(self.tr("Compare {n} runs").format(n=len(runs)))
        self._study, self._runs = study, tuple(runs)
        self.comparison: RunComparison | None = None
        self.body.addLayout(self._make_legend())
        plots = QHBoxLayout()
        box(plots, spacing=theme.WIDE)
        waiting = self.tr("Reading the runs…")
        self.losses = RunPlot(self.tr("Loss"), waiting)
        self.scores = RunPlot(self.tr("Dice while training"), waiting)
        plots.addWidget(self.losses, 1)
        plots.addWidget(self.scores, 1)
        self.body.addLayout(plots, 5)
        self.body.addLayout(self._make_head())
        self.measures, self.nothing = self._make_table(self.tr("Measure")), label(waiting, "muted", wrap=True)
        self.settings = self._make_table(self.tr("Setting"))
        self.nothing.setAlignment(Qt.AlignmentFlag.AlignCenter)
        self._tables = QStackedWidget()
        for table in (self.measures, self.settings, self.nothing):
            self._tables.addWidget(table)
        self._tables.setCurrentWidget(self.nothing)
        self.body.addWidget(self._tables, 6)
        self.notes = label("", "muted", wrap=True)
        self.notes.hide()
        self.body.addWidget(self.notes)
        self.bar = QProgressBar()
        self.bar.setRange(0, 0)
        self.bar.setTextVisible(False)
        self.foot_left.addWidget(self.bar)
        close = self.add_button(self.tr("Close"), self.accept)
        close.setDefault(True)
        room = parent.size() if parent is not None else self.screen().availableSize()
        self.resize(min(1240, room.width() - 80), min(860, room.height() - 60))
        self.work(self._read, self.windowTitle(), self._show_all, failed=self._failed)

    # Parts

    def _make_legend(self) -> QGridLayout:
        grid = QGridLayout()
        box(grid, spacing=theme.SMALL)
        grid.setHorizontalSpacing(theme.LARGE)
        for number, (run, style) in enumerate(zip(self._runs, RUN_STYLES, strict=False)):
            entry = QHBoxLayout()
            box(entry, spacing=theme.NORMAL)
            entry.addWidget(LineMark(style))
            name = ElidedLabel(self._numbered(number))
            name.setSizePolicy(QSizePolicy.Policy.Ignored, QSizePolicy.Policy.Fixed)
            name.setToolTip("\n".join(dict.fromkeys((run.title, run.method, run.id))))
            entry.addWidget(name, 1)
            grid.addLayout(entry, number // LEGEND_COLUMNS, number % LEGEND_COLUMNS)
        for column in range(min(LEGEND_COLUMNS, len(self._runs))):
            grid.setColumnStretch(column, 1)
        return grid

    def _numbered(self, number: int) -> str:
        run = self._runs[number]
        return f"{number + 1} · {run.title}"

    def _make_head(self) -> QHBoxLayout:
        head = QHBoxLayout()
        box(head, spacing=theme.NORMAL)
        segments = QHBoxLayout()
        box(segments, spacing=0)
        self._choice = QButtonGroup(self)
        for number, title in enumerate((self.tr("Measures"), self.tr("Settings that differ"))):
            button = QPushButton(title)
            button.setProperty("role", "segment")
            button.setProperty("side", ("left", "right")[number])
            button.setCheckable(True)
            button.setChecked(number == 0)
            button.setAutoDefault(False)
            button.setCursor(Qt.CursorShape.PointingHandCursor)
            self._choice.addButton(button, number)
            segments.addWidget(button)
        self._choice.idClicked.connect(lambda _: self._choose_table())
        head.addLayout(segments)
        head.addStretch(1)
        self._beside = label(self.tr("Differences to"), "muted")
        self.baseline = narrow(QComboBox())
        self.baseline.setMinimumWidth(280)
        self.baseline.setAccessibleName(self.tr("Differences to"))
        for number, run in enumerate(self._runs):
            self.baseline.addItem(self._numbered(number), run.id)
        self.baseline.currentIndexChanged.connect(lambda _: self._ask_again())
        head.addWidget(self._beside)
        head.addWidget(self.baseline)
        return head

    def _make_table(self, title: str) -> RowsTable:
        many = len(self._runs) > LEGEND_COLUMNS
        longest = LONGEST_HEAD_OF_MANY if many else LONGEST_HEAD
        heads = [_cut(self._numbered(number), longest) for number in range(len(self._runs))]
        table = RowsTable((title, *heads), numbers=(), sortable=False)
        table.verticalHeader().setDefaultSectionSize(30)
        header = table.horizontalHeader()
        header.setSectionResizeMode(0, QHeaderView.ResizeMode.ResizeToContents)
        header.setStretchLastSection(True)
        header.setMinimumSectionSize(96)
        table.setAccessibleName(title)
        return table

    # Reading

    def _read(self, progress: StepProgress) -> Answer:
        comparison = compare_runs(self._study, [run.id for run in self._runs])
        curves = []
        for number, run in enumerate(self._runs):
            progress(number, len(self._runs), run.title)
            curves.append(curves_of(RunFolder(self._study.runs_folder / run.id)))
        return comparison, curves

    def _show_all(self, answer: Answer) -> None:
        self.bar.hide()
        comparison, curves = answer
        names = list(dict.fromkeys(name for one in curves for name in one))
        self.losses.set_curves(
            curves,
            [(name, self._curve_title(name)) for name in names if name.startswith("loss: ")],
            self.tr("None of them has told of a loss yet."),
        )
        scores = [name for name in ("selection", "agreement") if name in names]
        # What all of them have can be compared.
        scores.sort(key=lambda name: -sum(name in one for one in curves))
        self.scores.set_curves(
            curves,
            [(name, self._curve_title(name)) for name in scores],
            self.tr("None of them has told of its Dice yet."),
        )
        self.baseline.blockSignals(True)
        self.baseline.setCurrentIndex(self.baseline.findData(comparison.baseline))
        self.baseline.blockSignals(False)
        self._show(comparison)

    def _curve_title(self, name: str) -> str:
        titles = {
            "loss: total": self.tr("all losses together"),
            "loss: student": self.tr("student's labels"),
            "loss: teacher": self.tr("teacher's labels"),
            "agreement": self.tr("agreement with the labels"),
            "selection": self.tr("on images set apart"),
        }
        return titles.get(name, name.removeprefix("loss: ").replace("_", " "))

    def _ask_again(self) -> None:
        ids, base = [run.id for run in self._runs], self.baseline.currentData()
        self.work(
            lambda _: compare_runs(self._study, ids, base),
            self.windowTitle(),
            self._show,
            failed=self._failed,
        )

    def _failed(self, sentence: str, _details: str) -> None:
        self.bar.hide()
        self.show_problem(sentence)

    # Showing

    def _show(self, comparison: RunComparison) -> None:
        if comparison.baseline != self.baseline.currentData():
            # Another was asked for meanwhile.
            return
        self.comparison = comparison
        rows: list[Row] = []
        for one in comparison.measures:
            rows += self._measure_rows(one)
        self.measures.set_rows(rows)
        self.settings.set_rows(
            [
                Row(
                    one.field,
                    (
                        Cell(one.field.replace("_", " "), tip=one.field),
                        *(Cell(_cut(value, LONGEST_VALUE) or DASH, tip=value) for value in one.values),
                    ),
                )
                for one in comparison.differing
            ]
        )
        self._choose_table()

    def _choose_table(self) -> None:
        comparison = self.comparison
        if comparison is None:
            return
        measures = self._choice.checkedId() == 0
        table = self.measures if measures else self.settings
        self.nothing.setText(
            self.tr("None of them was measured yet: predict, then gaze-insight evaluate STUDY --run RUN")
            if measures
            else self.tr("Their settings are the same.")
        )
        self._tables.setCurrentWidget(table if table.count else self.nothing)
        for widget in (self._beside, self.baseline):
            widget.setVisible(measures and bool(table.count))
        notes = list(comparison.notes)
        if measures and any(any(one.differences) for one in comparison.measures):
            notes.insert(
                0,
                self.tr(
                    "Differences are means over the images both runs were measured on, with 95 % intervals by "
                    "resampling groups; muted where the interval includes 0."
                ),
            )
        self.notes.setText(" ".join(notes))
        self.notes.setVisible(bool(notes))

    def _measure_rows(self, one: SideBySide) -> list[Row]:
        title, digits = MEASURES[one.measure]
        where = self.tr("all images") if one.split is None else one.split
        truth = {
            "masks": self.tr("true masks"),
            "pseudomasks": self.tr("pseudo-masks"),
            "reviews": self.tr("reviewed masks"),
            "audit": self.tr("a blind audit"),
        }[one.against]
        key = (one.split, one.against, one.measure)
        cells = [Cell(self.tr("{measure}, {split}").format(measure=title, split=where), tip=truth)]
        changes = [Cell(self.tr("    difference"), token="muted")]
        for number, spread in enumerate(one.means):
            if spread is None:
                cells.append(Cell(DASH, token="muted", tip=self.tr("Not measured on these images")))
            else:
                sd = f" ± {spread.sd:.{digits}f}" if math.isfinite(spread.sd) else ""
                tip = self.tr("{n} images, against {truth}").format(n=one.images[number], truth=truth)
                cells.append(Cell(f"{spread.mean:.{digits}f}{sd}", tip=tip))
            difference = one.differences[number]
            if difference is None:
                changes.append(Cell("" if spread is None else DASH, token="muted"))
            else:
                tip = self.tr("Over {n} images that both were measured on").format(n=one.pairs[number])
                token = "" if difference.excludes_zero else "muted"
                changes.append(Cell(interval_text(difference, digits), token=token, tip=tip))
        rows = [Row((*key, "mean"), tuple(cells))]
        if any(one.differences):
            rows.append(Row((*key, "difference"), tuple(changes)))
        return rows


def _cut(text: str, most: int) -> str:
    return text if len(text) <= most else text[: most - 1] + "…"
