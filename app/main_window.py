"""The window: rail, pages, messages, work in hand, status."""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING

from PySide6.QtCore import QByteArray, QEvent, QObject, QSettings, QSize, Qt, QThreadPool, QTimer
from PySide6.QtGui import QAction, QCloseEvent, QKeyEvent, QKeySequence, QResizeEvent, QShortcut
from PySide6.QtWidgets import (
    QApplication,
    QButtonGroup,
    QFrame,
    QHBoxLayout,
    QInputDialog,
    QMainWindow,
    QMenu,
    QPlainTextEdit,
    QProgressBar,
    QStackedWidget,
    QToolButton,
    QVBoxLayout,
    QWidget,
)

from app import theme
from app.jobs import RunWatcher, Task
from app.overview import run_states
from app.own_garbage import OwnGarbage
from app.page import Page
from app.session import Session
from app.study_page import StudyPage
from app.texts import duration_text
from app.watch import StudyWatch
from app.widgets import Banner, Button, ElidedLabel, IconButton, box, label
from gaze_capture.errors import UserError
from segmentation.runs import RunFolder

if TYPE_CHECKING:
    from app.explain_dialog import ExplainDialog
    from app.explain_run import ExplainRun
    from app.eyes_on_mask import ReviewTracker

PAGES = ("study", "record", "train", "review", "quality")
BUSY_AFTER_MS = 150
"""Work shorter than this shows nothing: a flash of a bar tells less than none."""


class RailButton(QToolButton):
    """A page's button: icon, name, and the key in the tooltip."""

    def __init__(self, icon: str, title: str, tip: str) -> None:
        super().__init__()
        self._icon = icon
        self.setText(title)
        self.setToolTip(tip)
        self.setCheckable(True)
        self.setProperty("role", "rail")
        self.setToolButtonStyle(Qt.ToolButtonStyle.ToolButtonTextUnderIcon)
        self.setIconSize(QSize(22, 22))
        self.setFixedHeight(56)
        self.setFocusPolicy(Qt.FocusPolicy.TabFocus)
        self.setCursor(Qt.CursorShape.PointingHandCursor)
        self._paint_icon()

    def _paint_icon(self) -> None:
        tokens = theme.current()
        self.setIcon(theme.icon(self._icon, tokens.muted, active=tokens.accent))

    def changeEvent(self, event: QEvent) -> None:
        """Draw the icon anew in the new palette."""
        if event.type() == QEvent.Type.PaletteChange:
            self._paint_icon()
        super().changeEvent(event)


class TaskStrip(QFrame):
    """What is being worked on, how far it is, and Cancel."""

    def __init__(self) -> None:
        super().__init__()
        self.setObjectName("statusBar")
        self.setFixedHeight(40)
        layout = QHBoxLayout(self)
        box(layout, margins=(theme.LARGE, 0, theme.NORMAL, 0), spacing=theme.WIDE)
        self.title = label("")
        self.detail = ElidedLabel("", "muted")
        self.bar = QProgressBar()
        self.bar.setTextVisible(False)
        self.bar.setFixedWidth(280)
        self.cancel = Button(self.tr("Cancel"), role="plain")
        layout.addWidget(self.title)
        layout.addWidget(self.bar)
        layout.addWidget(self.detail, 1)
        layout.addWidget(self.cancel)
        self.hide()

    def show_progress(self, done: int, total: int, what: str) -> None:
        """Show how far it is; `total` 0 where nobody knows."""
        self.bar.setRange(0, total)
        self.bar.setValue(done)
        self.detail.setText(f"{done:,} / {total:,}   {what}" if total else what)


class MainWindow(QMainWindow):
    """One window on one study."""

    def __init__(self, settings: QSettings) -> None:
        super().__init__()
        self.session = Session(settings, self)
        self.tasks: list[Task] = []
        self.explain_run: ExplainRun | None = None
        self.explain_dialog: ExplainDialog | None = None
        self.watcher: RunWatcher | None = None
        self.setWindowTitle(self.tr("Gaze Insight"))
        self.setMinimumSize(1024, 680)
        self.pages: dict[str, Page] = {}
        self._rail_buttons: dict[str, RailButton] = {}
        self.banner = Banner()
        self.banner.details_wanted.connect(self._show_details)
        self.strip = TaskStrip()
        self.stack = QStackedWidget()
        centre = QWidget()
        column = QVBoxLayout()
        box(column, spacing=0)
        column.addWidget(self.stack, 1)
        column.addWidget(self.strip)
        row = QHBoxLayout()
        box(row, spacing=0)
        row.addWidget(self._make_rail())
        row.addLayout(column, 1)
        whole = QVBoxLayout(centre)
        box(whole, spacing=0)
        whole.addLayout(row, 1)
        whole.addWidget(self._make_status())
        self.setCentralWidget(centre)
        self.banner.setParent(centre)
        self.banner.hide()
        for number, name in enumerate(PAGES):
            QShortcut(QKeySequence(f"Ctrl+{number + 1}"), self, lambda name=name: self.go_to(name))
        QShortcut(QKeySequence.StandardKey.Open, self, self._open)
        QShortcut(QKeySequence.StandardKey.New, self, self._new)
        self.session.changed.connect(self._on_change)
        self.session.failed.connect(self.banner.show_error)
        self.study_watch = StudyWatch(self._busy, self)
        self.study_watch.changed.connect(lambda: self.session.refresh("data"))
        self.study_watch.lost.connect(self.banner.show_error)
        self.study_watch.found.connect(self._study_found)
        geometry = settings.value("geometry")
        if not (isinstance(geometry, QByteArray) and self.restoreGeometry(geometry)):
            room = self.screen().availableGeometry().size()
            self.resize(min(1440, room.width()), min(900, room.height()))
        self.show_page("study")

    # Parts

    def _make_rail(self) -> QFrame:
        rail = QFrame()
        rail.setObjectName("rail")
        rail.setFixedWidth(68)
        layout = QVBoxLayout(rail)
        box(layout, margins=(6, theme.NORMAL, 6, theme.NORMAL), spacing=theme.SMALL)
        group = QButtonGroup(self)
        entries = (
            ("study", "squares-four", self.tr("Study"), "S"),
            ("record", "eye", self.tr("Record"), "R"),
            ("train", "chart-line-up", self.tr("Train"), "T"),
            ("review", "check-square-offset", self.tr("Review"), "V"),
            ("quality", "gauge", self.tr("Quality"), ""),
        )
        for number, (name, icon, title, key) in enumerate(entries):
            keys = ", ".join(filter(None, (key, f"Ctrl+{number + 1}")))
            button = RailButton(icon, title, f"{title} ({keys})")
            button.clicked.connect(lambda _=False, name=name: self.go_to(name))
            group.addButton(button)
            layout.addWidget(button)
            self._rail_buttons[name] = button
        layout.addStretch(1)
        self.menu_button = IconButton("dots-three", self.tr("Menu"))
        self.menu_button.setMenu(self._make_menu())
        self.menu_button.setPopupMode(QToolButton.ToolButtonPopupMode.InstantPopup)
        shortcuts = IconButton("question", self.tr("All shortcuts (?)"), on_click=self.show_shortcuts)
        for small in (shortcuts, self.menu_button):
            layout.addWidget(small, 0, Qt.AlignmentFlag.AlignHCenter)
        return rail

    def _make_menu(self) -> QMenu:
        menu = QMenu(self)

        def add(text: str, act: Callable[[], object], shortcut: str = "") -> QAction:
            action = menu.addAction(text)
            action.triggered.connect(lambda _checked=False: act())
            if shortcut:
                # Shown only: the shortcuts themselves belong to the window.
                action.setText(f"{text}\t{shortcut}")
            return action

        add(self.tr("New study…"), self._new, "Ctrl+N")
        add(self.tr("Open a study…"), self._open, "Ctrl+O")
        menu.addSeparator()
        add(self.tr("Describe regions with…"), self.describe_with)
        add(self.tr("Annotator…"), self._ask_annotator)
        self.theme_action = add(self.tr("Light theme"), self.toggle_theme)
        self._name_theme_action()
        add(self.tr("All shortcuts"), self.show_shortcuts, "?")
        menu.addSeparator()
        add(self.tr("Quit"), self.close, "Ctrl+Q")
        QShortcut(QKeySequence("Ctrl+Q"), self, self.close)
        return menu

    def _make_status(self) -> QFrame:
        bar = QFrame()
        bar.setObjectName("statusBar")
        bar.setFixedHeight(28)
        layout = QHBoxLayout(bar)
        box(layout, margins=(theme.LARGE, 0, theme.LARGE, 0), spacing=theme.LARGE)
        self.study_status = ElidedLabel("", "muted")
        self.tracker_status = label("", "muted")
        self.run_status = label("", "muted")
        for text in (self.tracker_status, self.run_status):
            text.setFont(theme.number_font(12))
        font = self.study_status.font()
        font.setPixelSize(12)
        self.study_status.setFont(font)
        layout.addWidget(self.study_status, 1)
        layout.addWidget(self.tracker_status)
        layout.addWidget(self.run_status)
        return bar

    # Pages

    def page(self, name: str) -> Page:
        """Return a page, made when it is first asked for: each costs its imports."""
        if name not in self.pages:
            made = self._make_page(name)
            made.task_wanted.connect(self.start_task)
            made.error.connect(lambda told, details: self.banner.show_error(told, details, made))
            made.lost.connect(self.banner.show_error)
            made.notice.connect(self.banner.show_notice)
            made.hush.connect(self.banner.hide)
            made.page_wanted.connect(self.show_page)
            made.explain_wanted.connect(self.describe_with)
            self.pages[name] = made
            self.stack.addWidget(made)
        return self.pages[name]

    def _make_page(self, name: str) -> Page:
        if name == "study":
            return StudyPage(self.session)
        if name == "record":
            from app.record_page import RecordPage

            page = RecordPage(self.session)
            page.tracker_status.connect(self.tracker_status.setText)
            return page
        if name == "train":
            from app.train_page import TrainPage

            train = TrainPage(self.session)
            train.predicted_again.connect(self._show_new_masks)
            return train
        if name == "quality":
            from app.quality_page import QualityPage

            return QualityPage(self.session)
        from app.review_page import ReviewPage

        review = ReviewPage(self.session)
        review.again.record = self._record_again
        review.looked.tracker = self._review_tracker
        review.training.wanted.connect(self._train_again)
        return review

    # What review asks of the page Record

    def _record_again(self, image_id: str, target_id: str) -> bool:
        """Record new gaze of one image and target, then return to review; False where no tracker was chosen."""
        from app.record_page import RecordPage

        page = self.pages.get("record")
        if not isinstance(page, RecordPage) or not page.tracker_ready:
            return False
        if self.show_page("record"):
            page.again_over.connect(self._review_again, Qt.ConnectionType.SingleShotConnection)
            page.record_again(image_id, target_id)
        return True

    def _review_again(self) -> None:
        self.show_page("review")

    def _review_tracker(self) -> ReviewTracker:
        from app.record_page import RecordPage

        page = self.page("record")
        assert isinstance(page, RecordPage)
        return page.review_tracker()

    def _train_again(self, run_id: str) -> None:
        from app.train_page import TrainPage

        page = self.page("train")
        assert isinstance(page, TrainPage)
        page.train_again(run_id)

    def _show_new_masks(self, run_id: str) -> None:
        from app.review_page import ReviewPage

        page = self.page("review")
        assert isinstance(page, ReviewPage)
        page.show_run_next(run_id)

    def go_to(self, name: str) -> None:
        """Bring a page to the front as somebody asks for it by key or rail: what the one left told is over."""
        current = self.stack.currentWidget()
        if current is not self.pages.get(name) and not (isinstance(current, Page) and current.holds()):
            # Before the change, which may have something to tell itself.
            self.banner.leave(current)
        self.show_page(name)

    def show_page(self, name: str) -> bool:
        """Bring a page to the front, unless the one in front holds on; return whether it came."""
        current = self.stack.currentWidget()
        reason = current.holds() if isinstance(current, Page) and current is not self.pages.get(name) else ""
        if reason:
            self._rail_buttons[self.current_page()].setChecked(True)
            self.banner.show_error(reason)
            return False
        self.stack.setCurrentWidget(self.page(name))
        self._rail_buttons[name].setChecked(True)
        self.page(name).setFocus()
        return True

    def current_page(self) -> str:
        """Return the name of the page in front."""
        return next(name for name, page in self.pages.items() if page is self.stack.currentWidget())

    # Work in hand

    def start_task(self, task: Task) -> None:
        """Run a task in a thread; after a moment the strip shows it."""
        if self.tasks:
            self.banner.show_error(
                self.tr("{title} is still at work; wait for it or cancel it first.").format(
                    title=self.tasks[0].title
                )
            )
            task.ended.emit()
            return
        self.tasks.append(task)
        task.progressed.connect(self.strip.show_progress)
        task.failed.connect(self.banner.show_error)
        task.ended.connect(lambda: self._task_ended(task))
        self.strip.title.setText(task.title)
        self.strip.show_progress(0, 0, "")
        self.strip.cancel.clicked.connect(task.cancel)
        QTimer.singleShot(BUSY_AFTER_MS, self.strip, lambda: self.strip.setVisible(bool(self.tasks)))
        self.banner.hide()
        task.start()

    def _task_ended(self, task: Task) -> None:
        self.tasks.remove(task)
        self.strip.cancel.clicked.disconnect(task.cancel)
        self.strip.hide()
        task.deleteLater()

    def describe_with(self, image_ids: Sequence[str] | None = None) -> None:
        """Ask who describes the gazed regions; the dialog stays beside the window."""
        from app.explain_dialog import ExplainDialog

        if self.session.study is None:
            self.banner.show_error(self.tr("Open a study first."))
            return
        if self.explain_dialog is not None:
            self.explain_dialog.close()
        dialog = ExplainDialog(self, self.session, self._begin_explaining, self.explain_run, image_ids)
        dialog.destroyed.connect(lambda: self._forget_dialog(dialog))
        self.explain_dialog = dialog
        dialog.show()

    def _forget_dialog(self, dialog: ExplainDialog) -> None:
        if self.explain_dialog is dialog:
            self.explain_dialog = None

    def _begin_explaining(self, run: ExplainRun) -> str:
        if self.tasks:
            return self.tr("{title} is still at work; wait for it or cancel it first.").format(
                title=self.tasks[0].title
            )
        self.explain_run = run
        self.start_task(run.task)
        return ""

    # Status

    def _on_change(self, what: str) -> None:
        study = self.session.study
        if study is None:
            return
        if what in ("study", "annotator"):
            self.setWindowTitle(self.tr("{study} – Gaze Insight").format(study=study.name))
            self.study_status.setText(f"{study.name} · {self.session.annotator}")
        if what == "study":
            self.study_watch.watch(study)
        # A cluster's run may have come in with other data.
        if what in ("study", "runs", "data"):
            try:
                self._attach()
            except UserError as error:
                self.banner.show_error(str(error))

    def _busy(self) -> bool:
        """Whether a step, which tells of itself when it ends, or a recording, which nothing may disturb, is on."""
        return bool(self.tasks) or any(page.holds() for page in self.pages.values())

    def _study_found(self) -> None:
        self.banner.show_notice(self.tr("The study's folder is back."))
        self.session.refresh("data")

    def _attach(self) -> None:
        """Watch the run that is being worked on, whoever started it."""
        study = self.session.study
        assert study is not None
        running, _ = run_states(study)
        if self.watcher is not None:
            if running == self.watcher.run.id and self.watcher.run.study_folder == study.folder:
                return
            self.watcher.stop()
            self.watcher.deleteLater()
            self.watcher = None
            self.run_status.setText("")
        if running is not None:
            self.watcher = RunWatcher(RunFolder(study.runs_folder / running), self)
            self.watcher.happened.connect(lambda _: self._show_run())
            self.watcher.state_changed.connect(self._run_state_changed)
            self.watcher.start()

    def _show_run(self) -> None:
        step = self.watcher.last_step if self.watcher is not None else None
        if step is None or not step.total:
            self.run_status.setText(self.tr("Training: getting ready"))
            return
        text = self.tr("Training: {percent} %").format(percent=round(100 * step.step / step.total))
        left = step.values.get("eta_s")
        if left:
            text += ", " + self.tr("{time} left").format(time=duration_text(left))
        self.run_status.setText(text)

    def _run_state_changed(self, state: str) -> None:
        if state in ("running", "waiting"):
            self._show_run()
            return
        words = {
            "done": self.tr("Training done"),
            "stopped": self.tr("Training stopped"),
            "failed": self.tr("Training failed"),
            "interrupted": self.tr("Training was interrupted"),
        }
        self.run_status.setText(words[state])
        # Not from within the watcher's own signal: refreshing replaces it.
        QTimer.singleShot(0, self, lambda: self.session.refresh("runs"))

    # Dialogs and theme

    def _new(self) -> None:
        page = self.page("study")
        if self.show_page("study") and isinstance(page, StudyPage):
            page.new_study()

    def _open(self) -> None:
        page = self.page("study")
        if self.show_page("study") and isinstance(page, StudyPage):
            page.open_study()

    def _ask_annotator(self) -> None:
        name, fine = QInputDialog.getText(
            self,
            self.tr("Annotator"),
            self.tr("Whose gaze and verdicts follow:"),
            text=self.session.annotator,
        )
        if fine:
            self.session.set_annotator(name)

    def show_shortcuts(self) -> None:
        """Show all keys."""
        from app.keymap import Keymap
        from app.shortcuts import ShortcutsDialog

        dialog = ShortcutsDialog(self, Keymap(self.session.settings))
        dialog.setAttribute(Qt.WidgetAttribute.WA_DeleteOnClose)
        dialog.open()

    def _show_details(self, details: str) -> None:
        from PySide6.QtWidgets import QDialog, QDialogButtonBox

        dialog = QDialog(self)
        dialog.setAttribute(Qt.WidgetAttribute.WA_DeleteOnClose)
        dialog.setWindowTitle(self.tr("Details"))
        dialog.resize(720, 400)
        layout = QVBoxLayout(dialog)
        text = QPlainTextEdit(details)
        text.setReadOnly(True)
        buttons = QDialogButtonBox(QDialogButtonBox.StandardButton.Close)
        buttons.rejected.connect(dialog.reject)
        layout.addWidget(text)
        layout.addWidget(buttons)
        dialog.open()

    def toggle_theme(self) -> None:
        """Change between dark and light."""
        mode: theme.Mode = "light" if theme.current().mode == "dark" else "dark"
        self.session.settings.setValue("theme", mode)
        application = QApplication.instance()
        assert isinstance(application, QApplication)
        theme.apply(application, mode)
        self._name_theme_action()

    def _name_theme_action(self) -> None:
        dark = theme.current().mode == "dark"
        self.theme_action.setText(self.tr("Light theme") if dark else self.tr("Dark theme"))

    # Events

    def keyPressEvent(self, event: QKeyEvent) -> None:
        """Go to a page by its letter, where the page in front has no use for the key."""
        letters = {
            Qt.Key.Key_S: "study",
            Qt.Key.Key_R: "record",
            Qt.Key.Key_T: "train",
            Qt.Key.Key_V: "review",
        }
        if event.text() == "?":
            self.show_shortcuts()
        elif event.key() in letters and not event.modifiers():
            self.go_to(letters[Qt.Key(event.key())])
        elif event.key() == Qt.Key.Key_Escape:
            self.banner.hide()
        else:
            super().keyPressEvent(event)

    def closeEvent(self, event: QCloseEvent) -> None:
        """Close without a question: training goes on by itself, and the window finds it when it opens again."""
        self.session.settings.setValue("geometry", self.saveGeometry())
        self.study_watch.stop()
        if self.watcher is not None:
            self.watcher.stop()
        for task in self.tasks:
            task.cancel()
        if self.explain_dialog is not None:
            self.explain_dialog.close()
        for page in self.pages.values():
            page.stop()
        super().closeEvent(event)
        # Out of sight already: what was cancelled may take a moment to notice.
        self.hide()
        QThreadPool.globalInstance().waitForDone(5000)

    def resizeEvent(self, event: QResizeEvent) -> None:
        """Keep the message in its place."""
        super().resizeEvent(event)
        self.banner.place()


class _UnforeseenErrors(QObject):
    """Brings exceptions that nobody caught into the banner instead of the terminal."""

    def __init__(self, window: MainWindow) -> None:
        super().__init__(window)
        self._window = window

    def hook(self, kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
        """Show the error; as `sys.excepthook`."""
        import traceback

        if isinstance(error, KeyboardInterrupt):
            QApplication.quit()
            return
        if isinstance(error, UserError):
            self._window.banner.show_error(str(error))
            return
        details = "".join(traceback.format_exception(kind, error, trace))
        self._window.banner.show_error(self.tr("Something went wrong: {error}").format(error=error), details)


def make_application() -> QApplication:
    """Return the application, made and themed if there is none yet."""
    existing = QApplication.instance()
    application = existing if isinstance(existing, QApplication) else QApplication(sys.argv[:1])
    application.setApplicationName("Gaze Insight")
    application.setOrganizationName("Gaze Insight")
    application.setDesktopFileName("gaze-insight")
    return application


def run_window(study_folder: Path | None) -> int:
    """Open the window, on a study if one is given, and return the exit status when it is closed."""
    application = make_application()
    settings = QSettings()
    stored = settings.value("theme")
    theme.apply(application, stored if stored in ("dark", "light") else theme.mode_of_system())
    application.setWindowIcon(theme.icon("eye", theme.current().accent))
    window = MainWindow(settings)
    sys.excepthook = _UnforeseenErrors(window).hook
    if study_folder is not None:
        try:
            window.session.open(study_folder)
        except UserError as error:
            window.banner.show_error(str(error))
    window.show()
    garbage = OwnGarbage()
    try:
        return application.exec()
    finally:
        garbage.stop()
