"""The right panel of a calibration: which step it is, what came of it, and what can be done."""

from __future__ import annotations

import datetime
import math
from collections.abc import Sequence
from typing import Literal

from PySide6.QtCore import Qt, Signal
from PySide6.QtWidgets import QButtonGroup, QFrame, QGridLayout, QHBoxLayout, QVBoxLayout, QWidget

from app import theme
from app.quality_words import (
    Sign,
    degrees_text,
    eyes_words,
    gate_sign,
    percent_text,
    side_words,
    verdict_reasons,
    verdict_sign,
)
from app.widgets import Button, IconLabel, box, heading, label, line, scrolled, set_role
from gaze_capture.calibration import of_eye
from gaze_capture.quality import DATA_LOSS, MAX_ERROR_DEG, MEAN_ERROR_DEG, RMS_S2S_DEG, Validation
from gaze_capture.recording import Eyes
from gaze_capture.saved_calibration import SavedCalibration
from gaze_capture.trackers.tracker import CalibrationOutcome

PANEL_WIDTH = 348
EYES: tuple[Eyes, ...] = ("both", "left", "right")

Action = Literal[
    "start", "restore", "stop", "again", "continue", "redo_marked", "redo_all", "validate", "recalibrate",
    "accept", "leave",
]  # fmt: skip


Offer = tuple[Action, str, str]
"""What can be done, in a word, with an icon."""


class Choice(QWidget):
    """Some words in a row, of which one holds."""

    chosen = Signal(int)

    def __init__(self, words: tuple[str, ...]) -> None:
        super().__init__()
        row = QHBoxLayout(self)
        box(row, spacing=0)
        self._group = QButtonGroup(self)
        for number, word in enumerate(words):
            button = Button(word, role="segment")
            button.setCheckable(True)
            button.setChecked(number == 0)
            button.setFocusPolicy(Qt.FocusPolicy.TabFocus)
            if number in (0, len(words) - 1):
                button.setProperty("side", "left" if number == 0 else "right")
            self._group.addButton(button, number)
            row.addWidget(button, 1)
        self._group.idClicked.connect(self.chosen)

    def button(self, number: int) -> Button:
        """Return a word's button."""
        found = self._group.button(number)
        assert isinstance(found, Button)
        return found

    def choose(self, number: int) -> None:
        """Show which one holds."""
        self.button(number).setChecked(True)


class CalibratePanel(QFrame):
    """Widgets alone; the view decides what they mean."""

    acted = Signal(str)
    """An Action."""
    eyes_chosen = Signal(str)
    points_chosen = Signal(int)

    def __init__(self, *, calibrates: bool) -> None:
        super().__init__()
        self._calibrates = calibrates
        steps = [self.tr("Position"), self.tr("Calibration"), self.tr("Validation")]
        if not calibrates:
            steps.pop(1)
        self.setObjectName("panelRight")
        self.setFixedWidth(PANEL_WIDTH)
        outer = QVBoxLayout(self)
        box(outer, spacing=0)
        body = QWidget()
        column = QVBoxLayout(body)
        box(column, margins=(theme.LARGE, theme.LARGE, theme.LARGE, theme.LARGE), spacing=theme.WIDE)
        self._steps = _Steps(tuple(steps))
        column.addWidget(self._steps)
        column.addWidget(line())
        head = QHBoxLayout()
        box(head, spacing=theme.NORMAL)
        self._sign = IconLabel("eye", "muted", 22)
        self.title = heading("", 16)
        self.title.setWordWrap(True)
        head.addWidget(self._sign)
        head.addWidget(self.title, 1)
        column.addLayout(head)
        self.sentence = label("", wrap=True)
        column.addWidget(self.sentence)
        self.table = QualityTable()
        column.addWidget(self.table)
        self.lesions = label("", wrap=True)
        column.addWidget(self.lesions)
        self.choices = QWidget()
        self._make_choices(QGridLayout(self.choices))
        column.addWidget(self.choices)
        self.problem = label("", "danger", wrap=True)
        column.addWidget(self.problem)
        self.confirm = _Confirm(
            self.tr("Gaze this far off marks the wrong places; masks made of it are not to be trusted."),
            Button(self.tr("Accept all the same"), on_click=lambda: self.acted.emit("accept")),
        )
        column.addWidget(self.confirm)
        column.addStretch(1)
        outer.addWidget(scrolled(body), 1)
        outer.addWidget(line())
        foot = QWidget()
        self._foot = QVBoxLayout(foot)
        box(self._foot, margins=(theme.LARGE, theme.WIDE, theme.LARGE, theme.WIDE), spacing=theme.NORMAL)
        self.buttons: dict[Action, Button] = {}
        self.default: Action | None = None
        """What Space and Enter do."""
        self.keys = label("", "muted", wrap=True)
        self._foot.addWidget(self.keys)
        outer.addWidget(foot)

    def _make_choices(self, grid: QGridLayout) -> None:
        box(grid, spacing=theme.NORMAL)
        grid.setColumnStretch(1, 1)
        self.eyes = Choice(tuple(eyes_words(eyes) for eyes in EYES))
        self.eyes.chosen.connect(lambda number: self.eyes_chosen.emit(EYES[number]))
        self.points = Choice(("5", "9"))
        self.points.chosen.connect(lambda number: self.points_chosen.emit((5, 9)[number]))
        self._eyes_name, self._points_name = label("", "muted"), label(self.tr("Targets"), "muted")
        rows = ((self._eyes_name, self.eyes), (self._points_name, self.points))
        for row, (name, widget) in enumerate(rows):
            grid.addWidget(name, row, 0)
            grid.addWidget(widget, row, 1)

    # Steps

    def show_position(self, saved: SavedCalibration | None) -> None:
        """Ask for a good position; offer a calibration that was kept."""
        sentence = self.tr(
            "Sit as you will sit while looking at the images. Then follow each target with your eyes and rest them on "
            "its middle; keep your head still."
        )
        start = self.tr("Calibrate") if self._calibrates else self.tr("Validate")
        actions: list[Offer] = [("start", start, "crosshair")]
        if saved is not None:
            when = datetime.datetime.fromisoformat(saved.saved_utc).astimezone()
            sentence += "\n\n" + self.tr(
                "A calibration of {when} is at hand ({error}). Used again, it is validated first."
            ).format(
                when=when.strftime("%Y-%m-%d %H:%M"), error=degrees_text(saved.validation.mean_error_deg)
            )
            actions.append(("restore", self.tr("Use the saved calibration"), "clock-counter-clockwise"))
        self._show(
            0,
            Sign(self.tr("Find a good position"), "eye", "accent"),
            sentence,
            [*actions, self._cancel()],
            self.tr("Space starts · Esc cancels"),
        )
        self._show_choices(eyes=self._calibrates, points=self._calibrates)

    def show_under_way(self, targets: int, *, validation: bool) -> None:
        """Say what the person is doing now."""
        told = self.tr("{n} targets come one by one, each when the eyes have rested on the one before.")
        self._show(
            self._validation_step if validation else 1,
            Sign(self.tr("Validation") if validation else self.tr("Calibration"), "crosshair", "accent"),
            told.format(n=targets) if targets > 1 else self.tr("One target is collected again."),
            [
                ("stop", self.tr("Stop"), "stop"),
                ("again", self.tr("Start over"), "arrow-counter-clockwise"),
            ],
            self.tr("Esc stops · R starts over"),
            primary=False,
        )
        self._show_choices()

    def show_leaving(self) -> None:
        """Say that the device still needs a moment."""
        self.show_problem(self.tr("One moment…"), "muted")
        for button in self.buttons.values():
            button.setEnabled(False)

    def show_calibrated(self, outcome: CalibrationOutcome, *, can_redo: bool) -> None:
        """Show what the device says of its calibration."""
        worked = outcome.eyes is not None
        again: Offer = ("redo_all", self.tr("Redo all"), "arrow-counter-clockwise")
        marked: list[Offer] = [("redo_marked", "", "target")] if can_redo else []
        onward: Offer = ("continue", self.tr("Continue to validation"), "arrow-right")
        sentence = outcome.text
        if can_redo:
            sentence += " " + self.tr("Click a target, or press its number, to mark it for another try.")
        if worked:
            sign = Sign(self.tr("Calibrated"), "check-circle", "accent")
            keys = self.tr("Space goes on · R redoes · Esc cancels")
        else:
            sign = Sign(self.tr("The calibration failed"), "x-circle", "danger")
            keys = self.tr("Space redoes all · R redoes · Esc cancels")
        offers = [onward, *marked, again] if worked else [again, *marked]
        self._show(1, sign, sentence, [*offers, self._cancel()], keys)
        self._show_choices(eyes=True)

    def show_marked(self, count: int) -> None:
        """Say how many targets are marked to be done again."""
        if (button := self.buttons.get("redo_marked")) is not None:
            button.setEnabled(count > 0)
            button.setText(self.tr("Redo {n} marked").format(n=count) if count else self.tr("Redo marked"))

    def show_result(self, validation: Validation, lesions: str) -> None:
        """Show the numbers, what they mean, and what can be done about them."""
        bad = validation.verdict == "recalibrate"
        recalibrate: list[Offer] = []
        if self._calibrates:
            recalibrate = [("recalibrate", self.tr("Recalibrate"), "arrow-counter-clockwise")]
        validate: Offer = ("validate", self.tr("Validate again"), "crosshair")
        accept: Offer = ("accept", self.tr("Accept"), "check")
        offers = [*recalibrate, validate, accept] if bad else [accept, validate, *recalibrate]
        if not bad:
            keys = self.tr("Space accepts · V validates again · R recalibrates · Esc cancels")
        else:
            keys = self.tr("Space or R recalibrates · V validates again · Esc cancels")
        if not self._calibrates:
            keys = (
                self.tr("Space or V validates again · Esc cancels")
                if bad
                else self.tr("Space accepts · V validates again · Esc cancels")
            )
        self._show(
            self._validation_step,
            verdict_sign(validation.verdict),
            verdict_reasons(validation),
            [*offers, self._cancel()],
            keys,
        )
        self.table.show_validation(validation)
        self.table.show()
        self.lesions.setText(lesions)
        self.lesions.setVisible(bool(lesions))
        self._show_choices(eyes=self._calibrates)

    @property
    def _validation_step(self) -> int:
        return 2 if self._calibrates else 1

    def _cancel(self) -> Offer:
        return ("leave", self.tr("Cancel"), "x")

    def _show(
        self,
        step: int,
        sign: Sign,
        sentence: str,
        offers: Sequence[Offer],
        keys: str,
        *,
        primary: bool = True,
    ) -> None:
        """Show a step (from 0), what to know of it, and what can be done; Space does the first where `primary`."""
        self._steps.show_step(step)
        self._sign.set_icon(sign.icon, sign.token)
        self.title.setText(sign.title)
        self.sentence.setText(sentence)
        self.sentence.setVisible(bool(sentence))
        self.show_problem("")
        self.confirm.hide()
        self.table.hide()
        self.lesions.hide()
        for button in self.buttons.values():
            button.hide()
            self._foot.removeWidget(button)
            button.deleteLater()
        self.buttons.clear()
        for number, (action, text, icon) in enumerate(offers):
            button = Button(text, icon, "primary" if primary and number == 0 else "")
            button.clicked.connect(lambda _checked=False, action=action: self.acted.emit(action))
            button.setFocusPolicy(Qt.FocusPolicy.TabFocus)
            self._foot.insertWidget(number, button)
            self.buttons[action] = button
        self.default = offers[0][0] if primary else None
        self.keys.setText(keys)

    def _show_choices(self, *, eyes: bool = False, points: bool = False) -> None:
        for widget in (self._eyes_name, self.eyes):
            widget.setVisible(eyes)
        for widget in (self._points_name, self.points):
            widget.setVisible(points)
        self._eyes_name.setText(self.tr("Eyes") if points else self.tr("Next time"))
        self.choices.setVisible(eyes or points)

    def show_problem(self, sentence: str, role: str = "danger") -> None:
        """Say what went wrong; an empty sentence takes it back."""
        set_role(self.problem, role)
        self.problem.setText(sentence)
        self.problem.setVisible(bool(sentence))


class _Confirm(QWidget):
    """A warning with the button that does it nevertheless."""

    def __init__(self, warning: str, button: Button) -> None:
        super().__init__()
        self.setObjectName("warningRow")
        self.setAttribute(Qt.WidgetAttribute.WA_StyledBackground)
        grid = QGridLayout(self)
        box(grid, margins=(theme.WIDE, theme.WIDE, theme.WIDE, theme.WIDE), spacing=theme.NORMAL)
        grid.setColumnStretch(1, 1)
        grid.addWidget(IconLabel("warning", "warning"), 0, 0, Qt.AlignmentFlag.AlignTop)
        grid.addWidget(label(warning, wrap=True), 0, 1)
        self.button = button
        button.setFocusPolicy(Qt.FocusPolicy.TabFocus)
        grid.addWidget(button, 1, 1)
        self.hide()


class _Steps(QWidget):
    """The steps in a row, numbered: done, current, to come."""

    def __init__(self, names: tuple[str, ...]) -> None:
        super().__init__()
        row = QHBoxLayout(self)
        box(row, spacing=theme.NORMAL)
        self._parts = []
        for name in names:
            icon, text = IconLabel("circle", "muted", 16), label(name, "muted")
            part = QHBoxLayout()
            box(part, spacing=theme.SMALL)
            part.addWidget(icon)
            part.addWidget(text)
            row.addLayout(part)
            self._parts.append((icon, text))
        row.addStretch(1)

    def show_step(self, current: int) -> None:
        for number, (icon, text) in enumerate(self._parts):
            if number < current:
                icon.set_icon("check-circle", "accent")
            elif number == current:
                icon.set_icon("record", "accent")
            else:
                icon.set_icon("circle", "muted")
            set_role(text, "good" if number == current else "muted")


class QualityTable(QWidget):
    """A validation's numbers: what counts, and each eye alone; a gate's sign beside those that have one."""

    def __init__(self) -> None:
        super().__init__()
        grid = QGridLayout(self)
        box(grid, spacing=6)
        grid.setColumnStretch(1, 1)
        names = (
            self.tr("Mean error"),
            self.tr("Worst target"),
            self.tr("Noise (RMS-S2S)"),
            self.tr("Spread (STD)"),
            self.tr("Area (BCEA 68 %)"),
            self.tr("Loss"),
            self.tr("Effective rate"),
        )
        for column, name in enumerate((self.tr("Used"), side_words("left"), side_words("right")), 2):
            title = label(name, "muted")
            title.setAlignment(Qt.AlignmentFlag.AlignRight)
            grid.addWidget(title, 0, column)
        self._rows = []
        for row, name in enumerate(names, 1):
            icon = IconLabel("check-circle", "muted", 16)
            values = [label("–", role) for role in ("", "muted", "muted")]
            grid.addWidget(icon, row, 0)
            grid.addWidget(label(name, "muted"), row, 1)
            for column, value in enumerate(values, 2):
                value.setFont(theme.number_font(13 if column == 2 else 12))
                value.setAlignment(Qt.AlignmentFlag.AlignRight | Qt.AlignmentFlag.AlignVCenter)
                value.setMinimumWidth(48)
                grid.addWidget(value, row, column)
            self._rows.append((icon, values))

    def show_validation(self, validation: Validation) -> None:
        """Show other numbers."""
        columns = (validation, of_eye(validation, "left"), of_eye(validation, "right"))
        signs = (
            gate_sign(validation.mean_error_deg, MEAN_ERROR_DEG),
            gate_sign(validation.max_error_deg, MAX_ERROR_DEG),
            gate_sign(validation.rms_s2s_deg, RMS_S2S_DEG, must_hold=False),
            None,
            None,
            gate_sign(validation.data_loss, DATA_LOSS),
            None,
        )
        for row, (sign, (icon, values)) in enumerate(zip(signs, self._rows, strict=True)):
            icon.setVisible(sign is not None)
            if sign is not None:
                icon.set_icon(sign.icon, sign.token)
                icon.setToolTip(sign.title)
            for column, value in zip(columns, values, strict=True):
                value.setText(self._words(row, column))

    def _words(self, row: int, one: Validation) -> str:
        if row == 4:
            return f"{one.bcea_deg2:.2f} °²" if math.isfinite(one.bcea_deg2) else "–"
        if row == 6:
            return f"{one.effective_hz:.0f} Hz" if math.isfinite(one.effective_hz) else ""
        if row == 5:
            return percent_text(one.data_loss)
        return degrees_text((one.mean_error_deg, one.max_error_deg, one.rms_s2s_deg, one.std_deg)[row])
