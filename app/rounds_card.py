"""The chart of rounds: each run's Dice against the minutes of annotation that had been spent when it began."""

from __future__ import annotations

import math

import numpy as np
import pyqtgraph as pg
from PySide6.QtCore import QEvent, QObject, QPointF, Qt, Signal
from PySide6.QtGui import QColor, QKeyEvent, QPen
from PySide6.QtWidgets import QComboBox, QFrame, QHBoxLayout, QVBoxLayout

from app import theme
from app.dialogs import narrow
from app.latest import Latest
from app.plots import SIDES, STYLES, bare_view
from app.texts import short_name
from app.widgets import box, heading, label
from segmentation.rounds import Against, Known, Round, Rounds, rounds
from segmentation.rounds_plot import links
from segmentation.study import Study

HAND = STYLES["teacher"]
"""Nothing of the teacher's stands in this chart."""
NEAR_PX = 14.0
"""How far from a point a click still means it."""
HEIGHT_PX, HIGHEST_PX = 220, 480
SHARE = 0.28
"""Of the page's height, between these."""


class RoundsCard(QFrame):
    """Left and Right go from round to round, Enter or a click on a point follows its run."""

    followed = Signal(str)
    """The run that somebody wants to look at."""

    def __init__(self) -> None:
        super().__init__()
        self.setObjectName("card")
        self._study: Study | None = None
        self._known: Known = {}
        self._found: Rounds | None = None
        self._charted: list[Round] = []
        self._shown = ""
        self._items: list[pg.GraphicsObject] = []
        self._latest = Latest(self)
        self._latest.answered.connect(self._learn)
        self._latest.failed.connect(lambda sentence, _: self._say(sentence))
        layout = QVBoxLayout(self)
        box(layout, margins=(theme.LARGE, theme.WIDE, theme.WIDE, theme.NORMAL), spacing=theme.SMALL)
        head = QHBoxLayout()
        box(head, spacing=theme.NORMAL)
        title = self.tr("Dice against minutes of annotation")
        head.addWidget(heading(title), 1)
        self.against = narrow(QComboBox())
        self.against.setAccessibleName(self.tr("Measured against"))
        self.against.setToolTip(
            self.tr(
                "Automatic: the true masks of images kept from training, those for testing last; else the blind "
                "audit"
            )
        )
        for name, text in (
            ("auto", self.tr("automatic")),
            ("masks", self.tr("true masks")),
            ("audit", self.tr("the blind audit")),
        ):
            self.against.addItem(text, name)
        self.against.currentIndexChanged.connect(lambda _: self._ask())
        head.addWidget(label(self.tr("Against"), "muted"))
        head.addWidget(self.against)
        layout.addLayout(head)
        self.caption = label("", "muted", wrap=True)
        layout.addWidget(self.caption)
        self.view = bare_view(title, right=20, left_axis=44)
        self.view.setFixedHeight(HEIGHT_PX)
        self.view.setFocusPolicy(Qt.FocusPolicy.StrongFocus)
        self.view.getPlotItem().setLabel(
            "bottom", self.tr("minutes: looking, looking again, calibrating, reviewing")
        )
        self.view.scene().sigMouseClicked.connect(self._click)
        self.view.installEventFilter(self)
        layout.addWidget(self.view)
        self.details = label("", wrap=True)
        self.details.setFont(theme.number_font(12))
        layout.addWidget(self.details)
        self.notes = label("", "muted", wrap=True)
        layout.addWidget(self.notes)
        self.hide()

    def set_room(self, height: int) -> None:
        """Have the chart grow with a page of a height."""
        self.view.setFixedHeight(min(max(round(height * SHARE), HEIGHT_PX), HIGHEST_PX))

    # What is charted

    def show_study(self, study: Study | None) -> None:
        """Measure a study's rounds, in a thread; a study without runs shows nothing."""
        if study is not self._study:
            self._study, self._known, self._found = study, {}, None
            self.hide()
        self._ask()

    def _ask(self) -> None:
        study = self._study
        if study is None:
            return
        against: Against = self.against.currentData()
        known = self._known

        def measure() -> Rounds | None:
            return rounds(study, against=against, known=known) if study.run_ids() else None

        self._latest.ask(measure)

    def show_run(self, run_id: str) -> None:
        """Mark the round of a run and tell of it."""
        self._shown = run_id
        self._draw()

    def charted(self) -> list[Round]:
        """Return the rounds that are drawn, oldest first."""
        return list(self._charted)

    def _learn(self, found: Rounds | None) -> None:
        self._found = found
        self._charted = [one for one in found.rounds if one.spent is not None] if found is not None else []
        if found is None:
            self.hide()
            return
        self.setVisible(True)
        self.view.setVisible(bool(self._charted))
        self.caption.setText(
            self.tr("Of the student, on {what}. Gaze {gaze}.").format(
                what=found.reference.words, gaze=found.gaze
            )
        )
        self.notes.setText(" ".join(self._notes(found)))
        self._draw()

    def _say(self, sentence: str) -> None:
        """Tell why there is nothing to chart."""
        self._found, self._charted = None, []
        self.setVisible(True)
        self.view.hide()
        self.caption.setText(sentence)
        self.details.setText("")
        self.notes.setText("")

    def _notes(self, found: Rounds) -> list[str]:
        notes = []
        if found.reference.spends_test:
            notes.append(
                self.tr(
                    "Whoever stops by these images has no test any more: keep true masks in a split of their own, or "
                    "draw an audit."
                )
            )
        manual = found.manual
        if manual is not None:
            notes.append(
                self.tr(
                    "Dashed: outlining by hand, {seconds:.0f} s a mask as {audits} took, {minutes:.0f} min for "
                    "the {masks} masks whose gaze was learned from."
                ).format(
                    seconds=manual.seconds_each,
                    audits=self.tr("1 audit")
                    if manual.outlines == 1
                    else self.tr("{n} audits").format(n=manual.outlines),
                    minutes=manual.minutes,
                    masks=manual.masks,
                )
            )
        else:
            notes.append(self.tr("How long outlining by hand takes was not measured; an audit would tell."))
        unknown = len(found.rounds) - len(self._charted)
        if unknown:
            notes.append(
                self.tr(
                    "Rounds not drawn, as they learned from true masks whose minutes nobody measured: {n}."
                ).format(n=unknown)
            )
        if found.left_out:
            told = self.tr("Rounds not measured, as they are unfinished or have not predicted: {n}.")
            notes.append(told.format(n=len(found.left_out)))
        if found.orphans:
            notes.append(
                self.tr("Reviews of images the study no longer has, whose time counts: {n}.").format(
                    n=found.orphans
                )
            )
        return notes

    def _draw(self) -> None:
        for item in self._items:
            self.view.removeItem(item)
        self._items.clear()
        tokens = theme.current()
        self.view.setBackground(QColor(tokens.surface))
        plot = self.view.getPlotItem()
        for side in SIDES:
            axis = plot.getAxis(side)
            axis.setPen(QPen(QColor(tokens.border), 1))
            axis.setTextPen(QColor(tokens.muted))
            axis.setTickFont(theme.number_font(11))
        plot.showGrid(x=False, y=True, alpha=0.12)
        chosen = self._chosen()
        self.details.setText(self._words(chosen) if chosen is not None else "")
        if self._found is None or not self._charted:
            return
        pen = STYLES["dice"].pen()
        x, y = (np.array(values) for values in zip(*map(self._place, self._charted), strict=True))
        for earlier, later in links(self._found.rounds):
            (x0, y0), (x1, y1) = self._place(earlier), self._place(later)
            self._add(pg.PlotDataItem([x0, x1], [y0, y1], pen=pen, antialias=True))
        bars = [[one.dice.mean - one.dice.low, one.dice.high - one.dice.mean] for one in self._charted]
        below, above = np.nan_to_num(np.array(bars).T)
        self._add(pg.ErrorBarItem(x=x, y=y, bottom=below, top=above, beam=0, pen=pen))
        sizes = [14 if one is chosen else 9 for one in self._charted]
        fill = [QColor(tokens.text) if one is chosen else pen.color() for one in self._charted]
        self._add(pg.ScatterPlotItem(x=x, y=y, size=sizes, pen=pen, brush=fill))
        right = float(x.max())
        if self._found.manual is not None:
            minutes = self._found.manual.minutes
            self._add(pg.InfiniteLine(minutes, angle=90, pen=HAND.pen()))
            right = max(right, minutes)
        low, high = float((y - below).min()), float((y + above).max())
        margin = max(0.02, 0.15 * (high - low))
        plot.setXRange(0, max(right, 1.0) * 1.05, padding=0)
        plot.setYRange(max(0.0, low - margin), min(1.0, high + margin), padding=0)

    def _add(self, item: pg.GraphicsObject) -> None:
        self.view.addItem(item)
        self._items.append(item)

    @staticmethod
    def _place(one: Round) -> tuple[float, float]:
        assert one.spent is not None
        return one.spent.minutes, one.dice.mean

    def _chosen(self) -> Round | None:
        return next((one for one in self._charted if one.run == self._shown), None)

    def _words(self, one: Round) -> str:
        assert one.spent is not None and self._found is not None
        spent = one.spent
        interval = f" [{one.dice.low:.3f}, {one.dice.high:.3f}]" if math.isfinite(one.dice.low) else ""
        told = self.tr(
            "Round {number}, {name}: {dice:.3f}{interval} after {all:.1f} min: looking {looking:.1f}, again "
            "{again:.1f}, calibrating {setup:.1f}, reviewing {reviewing:.1f}; learned from {reviews}."
        ).format(
            number=self._charted.index(one) + 1,
            name=one.name or short_name(one.run),
            dice=one.dice.mean,
            interval=interval,
            all=spent.minutes,
            looking=spent.looking_s / 60,
            again=spent.relooks_s / 60,
            setup=spent.setup_s / 60,
            reviewing=spent.reviewing_s / 60,
            reviews=self.tr("1 review") if one.reviews == 1 else self.tr("{n} reviews").format(n=one.reviews),
        )
        if one.measured < len(self._found.reference.keys):
            told += " " + self.tr("Measured on {n} of {all} masks.").format(
                n=one.measured, all=len(self._found.reference.keys)
            )
        if one.reviewed:
            told += " " + self.tr("{n} of them it had learned from in review.").format(n=one.reviewed)
        elif one.seen:
            told += " " + self.tr("{n} of them it had learned from by gaze.").format(n=one.seen)
        return told

    # Acting

    def _click(self, event: object) -> None:
        place: QPointF = event.scenePos()  # type: ignore[attr-defined]
        found = [(self._distance(one, place), one) for one in self._charted]
        near = [pair for pair in found if pair[0] <= NEAR_PX]
        if near:
            self._follow(min(near, key=lambda pair: pair[0])[1])
        # Last: whoever follows a run may take the focus to its row.
        self.view.setFocus()

    def _distance(self, one: Round, place: QPointF) -> float:
        at = self.view.getPlotItem().vb.mapViewToScene(QPointF(*self._place(one)))
        return math.hypot(at.x() - place.x(), at.y() - place.y())

    def _follow(self, one: Round) -> None:
        self.show_run(one.run)
        self.followed.emit(one.run)

    def eventFilter(self, watched: QObject, event: QEvent) -> bool:
        """Take the chart's keys."""
        if watched is self.view and event.type() == QEvent.Type.KeyPress and isinstance(event, QKeyEvent):
            return self._handle_key(event)
        return super().eventFilter(watched, event)

    def _handle_key(self, event: QKeyEvent) -> bool:
        chosen, key = self._chosen(), event.key()
        if not self._charted or event.modifiers() & ~Qt.KeyboardModifier.KeypadModifier:
            return False
        if key in (Qt.Key.Key_Left, Qt.Key.Key_Right):
            step = 1 if key == Qt.Key.Key_Right else -1
            place = self._charted.index(chosen) + step if chosen is not None else 0
            self.show_run(self._charted[max(0, min(place, len(self._charted) - 1))].run)
            return True
        if key in (Qt.Key.Key_Return, Qt.Key.Key_Enter) and chosen is not None:
            self._follow(chosen)
            return True
        return False

    def changeEvent(self, event: QEvent) -> None:
        """Take on the new palette."""
        if event.type() == QEvent.Type.PaletteChange and hasattr(self, "notes"):
            self._draw()
        super().changeEvent(event)

    def stop(self) -> None:
        """End the thread."""
        self._latest.stop()
