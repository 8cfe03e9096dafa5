"""What every dialog is made of: a body, a foot with its buttons, a sentence where something is wrong."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from PySide6.QtCore import QEvent, QObject, QRectF, Qt, QTimer
from PySide6.QtGui import QColor, QIcon, QPainter, QPen, QPixmap
from PySide6.QtWidgets import QComboBox, QDialog, QHBoxLayout, QSizePolicy, QVBoxLayout, QWidget

from app import theme
from app.jobs import StepProgress, Task
from app.widgets import Button, IconLabel, box, label, line, scrolled, set_role

LABEL_WIDTH = 132

FIT_SLACK_PX = 60
"""A dialog does not shrink by less: it would only twitch."""

_at_work: set[Task] = set()
"""Tasks that outlive who asked: a thread must not find its task deleted."""


def in_background(
    function: Callable[[StepProgress], Any],
    title: str,
    done: Callable[[Any], object],
    failed: Callable[[str, str], object],
    progressed: Callable[[int, int, str], object] | None = None,
) -> Task:
    """Run a function in a thread; `done` and `failed`, methods of a widget, are not called once that is gone."""
    task = Task(function, title)
    task.succeeded.connect(done)
    task.failed.connect(failed)
    if progressed is not None:
        task.progressed.connect(progressed)
    _at_work.add(task)
    task.ended.connect(lambda: _at_work.discard(task))
    task.ended.connect(task.deleteLater)
    task.start()
    return task


class Dialog(QDialog):
    """A dialog whose body scrolls when the screen is small; deleted when it closes, its tasks cancelled."""

    def __init__(
        self, parent: QWidget | None, title: str, sentence: str = "", *, scrolls: bool = True
    ) -> None:
        super().__init__(parent)
        self.setAttribute(Qt.WidgetAttribute.WA_DeleteOnClose)
        self.setWindowTitle(title)
        self._tasks: list[Task] = []
        whole = QVBoxLayout(self)
        box(whole, spacing=0)
        inside = QWidget()
        self.body = QVBoxLayout(inside)
        box(self.body, margins=(theme.HUGE, 20, theme.HUGE, 20), spacing=theme.WIDE)
        self.sentence = label(sentence, "muted", wrap=True)
        self.body.addWidget(self.sentence)
        self.sentence.setVisible(bool(sentence))
        whole.addWidget(scrolled(inside) if scrolls else inside, 1)
        whole.addWidget(line())
        foot = QHBoxLayout()
        box(foot, margins=(theme.HUGE, theme.WIDE, theme.HUGE, theme.WIDE), spacing=theme.NORMAL)
        self.problem = label("", "danger", wrap=True)
        self.problem.setSizePolicy(QSizePolicy.Policy.Expanding, QSizePolicy.Policy.Preferred)
        self.foot_left = QHBoxLayout()
        box(self.foot_left, spacing=theme.NORMAL)
        foot.addLayout(self.foot_left)
        foot.addWidget(self.problem, 1)
        self.buttons = foot
        whole.addLayout(foot)
        self.finished.connect(lambda _: self._cancel_tasks())
        self._inside = inside
        self._fitting = QTimer(self, singleShot=True, interval=0)
        self._fitting.timeout.connect(self._fit)

    def fit(self, width: int) -> None:
        """Take a width, and from now on the height that the body asks for, as far as the screen has it."""
        self.resize(width, 200)
        self._inside.installEventFilter(self)
        self._fitting.start()

    def eventFilter(self, watched: QObject, event: QEvent) -> bool:
        """Follow the body when rows come and go."""
        if watched is self._inside and event.type() == QEvent.Type.LayoutRequest:
            self._fitting.start()
        return super().eventFilter(watched, event)

    def _fit(self) -> None:
        layout = self._inside.layout()
        assert layout is not None
        wanted = max(layout.totalHeightForWidth(self.width()), layout.totalMinimumSize().height())
        foot = self.buttons.sizeHint().height() + 1
        parent = self.parentWidget()
        most = max(480, (parent.window().height() if parent is not None else 720) - 80)
        height = min(max(wanted + foot, 200), most)
        if height > self.height() or self.height() - height > FIT_SLACK_PX:
            self.resize(self.width(), height)

    def add_button(self, text: str, on_click: Callable[[], object], role: str = "", icon: str = "") -> Button:
        """Add a button at the foot's right; the one with the role `primary` answers to Enter."""
        button = Button(text, icon, role, on_click)
        if role != "primary":
            button.setStyleSheet("min-height: 38px;")
        button.setAutoDefault(role == "primary")
        button.setDefault(role == "primary")
        self.buttons.addWidget(button)
        return button

    def show_problem(self, sentence: str, _details: str = "") -> None:
        """Say what is wrong; an empty sentence takes it back."""
        self.problem.setText(sentence)
        self.problem.setToolTip(sentence)

    def work(
        self,
        function: Callable[[StepProgress], Any],
        title: str,
        done: Callable[[Any], object],
        progressed: Callable[[int, int, str], object] | None = None,
        failed: Callable[[str, str], object] | None = None,
    ) -> Task:
        """Run a function in a thread that is cancelled when the dialog closes."""
        task = in_background(function, title, done, failed or self.show_problem, progressed)
        self._tasks.append(task)
        task.ended.connect(lambda: self._tasks.remove(task) if task in self._tasks else None)
        return task

    def _cancel_tasks(self) -> None:
        for task in self._tasks:
            task.cancel()
        self._tasks.clear()


class Row(QWidget):
    """A name at the left, what it names at the right, and a line that explains below."""

    def __init__(self, name: str, field: QWidget, hint: str = "") -> None:
        super().__init__()
        layout = QHBoxLayout(self)
        box(layout, spacing=theme.WIDE)
        self.name = label(name)
        self.name.setFixedWidth(LABEL_WIDTH)
        self.name.setMinimumHeight(theme.CONTROL_HEIGHT)
        self.name.setBuddy(field)
        if not field.accessibleName():
            field.setAccessibleName(name)
        column = QVBoxLayout()
        box(column, spacing=2)
        column.addWidget(field)
        self.hint = label(hint, "muted", wrap=True)
        column.addWidget(self.hint)
        layout.addWidget(self.name, 0, Qt.AlignmentFlag.AlignTop)
        layout.addLayout(column, 1)
        # Once it has a parent: before, it would be shown as a window.
        self.hint.setVisible(bool(hint))

    def set_hint(self, text: str, role: str = "muted") -> None:
        """Explain anew."""
        set_role(self.hint, role)
        self.hint.setText(text)
        self.hint.setVisible(bool(text))


class WarningRow(QWidget):
    """A warning that stands out, with the button that does something about it."""

    def __init__(self, button: str, on_click: Callable[[], object]) -> None:
        super().__init__()
        self.setObjectName("warningRow")
        self.setAttribute(Qt.WidgetAttribute.WA_StyledBackground)
        layout = QHBoxLayout(self)
        box(layout, margins=(theme.WIDE, theme.NORMAL, theme.NORMAL, theme.NORMAL), spacing=theme.WIDE)
        self.text = label("", wrap=True)
        self.button = Button(button, on_click=on_click)
        layout.addWidget(IconLabel("warning", "warning"))
        layout.addWidget(self.text, 1)
        layout.addWidget(self.button)
        self.hide()

    def warn(self, text: str) -> None:
        """Show a warning; an empty one hides the row."""
        self.text.setText(text)
        self.setVisible(bool(text))


def swatch(colour: str, side: int = 16) -> QIcon:
    """Return a square of a colour, the same when its row is selected, with an edge that shows white on white."""
    pixmap = QPixmap(side, side)
    pixmap.fill(Qt.GlobalColor.transparent)
    painter = QPainter(pixmap)
    painter.setRenderHint(QPainter.RenderHint.Antialiasing)
    painter.setPen(QPen(QColor(theme.current().muted), 1))
    painter.setBrush(QColor(colour))
    painter.drawRoundedRect(QRectF(0.5, 0.5, side - 1, side - 1), 3, 3)
    painter.end()
    icon = QIcon(pixmap)
    icon.addPixmap(pixmap, QIcon.Mode.Selected)
    return icon


def narrow(picker: QComboBox) -> QComboBox:
    """Let a list of choices be narrower than its longest one."""
    picker.setSizeAdjustPolicy(QComboBox.SizeAdjustPolicy.AdjustToMinimumContentsLengthWithIcon)
    picker.setMinimumContentsLength(10)
    return picker
