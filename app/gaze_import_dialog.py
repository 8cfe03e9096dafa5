"""Before gaze of other programs is imported: what the files are, and questions about what they do not tell."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from PySide6.QtCore import QSize, Qt, QTimer, Signal
from PySide6.QtGui import QDragEnterEvent, QDropEvent
from PySide6.QtWidgets import (
    QBoxLayout,
    QFileDialog,
    QHeaderView,
    QTreeWidget,
    QTreeWidgetItem,
    QVBoxLayout,
    QWidget,
)

from app import theme
from app.dialogs import Dialog
from app.gaze_choice import GazeChoice, GazeOutcome, once_each
from app.gaze_endings import ENDINGS
from app.gaze_file_view import GazeFileView
from app.gaze_how import GazeHow
from app.gaze_questions import OF_ONE_FILE, Questions
from app.gaze_words import missing_words, short, state_words
from app.jobs import StepProgress
from app.session import Session
from app.widgets import Button, box, heading, line, set_role
from gaze_capture.formats.gaze_file import Known
from segmentation.gaze_import import ShownAt
from segmentation.gaze_preview import GazePreview, preview_gaze
from segmentation.study import Study

ASK_AFTER_MS = 300
MOST_ROWS = 6
WIDTH, WIDE = 800, 1120
"""Of the dialog for one file, and for several."""
ROW_HEIGHT = 30

Asked = tuple[Known, ShownAt, str | None]


def file_filter(dialog: QWidget) -> str:
    """Return the filters of a file dialog: all gaze files, then those of each program."""
    together = " ".join(f"*{ending}" for ending in ENDINGS)
    return ";;".join(
        (
            dialog.tr("Gaze files ({endings})").format(endings=together),
            dialog.tr("Tobii Pro Lab or Studio (*.tsv *.txt *.csv)"),
            dialog.tr("EyeLink (*.asc)"),
            dialog.tr("Gazepoint, Pupil Labs, GazeMedSeg (*.csv)"),
            dialog.tr("XDF (*.xdf)"),
            dialog.tr("BIDS eye tracking (*_physio.tsv.gz)"),
            dialog.tr("All files (*)"),
        )
    )


@dataclass
class _Entry:
    """A file of the list."""

    file: Path
    item: QTreeWidgetItem
    preview: GazePreview | None = None
    asked: Asked | None = None
    """What was known when `preview` was made."""
    facts: tuple[str, ...] = ()
    """What the file does not tell itself, in the order in which it turned up."""
    choices: dict[str, tuple[str, ...]] = field(default_factory=dict)
    stream: str | None = None
    image: str | None = None
    image_touched: bool = False


class GazeImportDialog(Dialog):
    """Reads the files in a thread, asks for what they do not tell; `chosen` tells when it is decided."""

    chosen = Signal(list, list)
    """GazeChoice of each file that can come in; GazeOutcome of each that cannot."""

    def __init__(self, parent: QWidget | None, session: Session, paths: Sequence[Path]) -> None:
        super().__init__(parent, self.tr("Import gaze"))
        assert session.study is not None
        self.setAcceptDrops(True)
        self._session = session
        self._study: Study = session.study
        self._entries: list[_Entry] = []
        self._reading: _Entry | None = None
        self._touched = False
        left, right = QWidget(), QWidget()
        self._left, self._right = QVBoxLayout(left), QVBoxLayout(right)
        for column in (self._left, self._right):
            box(column, spacing=theme.WIDE)
        self._columns = QBoxLayout(QBoxLayout.Direction.TopToBottom)
        box(self._columns, spacing=theme.WIDE)
        self._between = line()
        for widget in (left, self._between, right):
            self._columns.addWidget(widget, 0 if widget is self._between else 1)
        self.body.addLayout(self._columns)
        self._make_files()
        self.view = GazeFileView()
        self._left.addWidget(self.view)
        self._left.addStretch(1)
        self.questions_title = heading(self.tr("What the file does not tell"), 14)
        self._right.addWidget(self.questions_title)
        self.questions = Questions(_image_names(self._study))
        self.questions.recall(session.settings)
        self.questions.changed.connect(self._said)
        self.questions.own_changed.connect(self._said_of_one)
        self._right.addWidget(self.questions)
        self.questions_line = line()
        self._right.addWidget(self.questions_line)
        self.how = GazeHow(session, self._study)
        self.how.changed.connect(self._show_state)
        self.how.split_changed.connect(self._said)
        self._right.addWidget(self.how)
        self._right.addStretch(1)
        self.body.addStretch(1)
        self.add_files_button = Button(self.tr("Add files…"), "plus", "", self._ask_files)
        self.add_files_button.setAutoDefault(False)
        self.foot_left.addWidget(self.add_files_button)
        self.cancel_button = self.add_button(self.tr("Cancel"), self.reject)
        self.import_button = self.add_button(self.tr("Import"), self._accept, "primary")
        self._asking = QTimer(self, singleShot=True, interval=ASK_AFTER_MS)
        self._asking.timeout.connect(self._read_next)
        self.fit(WIDTH if len(paths) < 2 else WIDE)
        self.add_paths(paths)

    # The files

    def _make_files(self) -> None:
        self.list = QTreeWidget()
        self.list.setColumnCount(2)
        self.list.setHeaderLabels([self.tr("File"), self.tr("State")])
        self.list.setRootIsDecorated(False)
        self.list.setUniformRowHeights(True)
        self.list.setTextElideMode(Qt.TextElideMode.ElideMiddle)
        self.list.setAccessibleName(self.tr("Files"))
        header = self.list.header()
        header.setSectionResizeMode(0, QHeaderView.ResizeMode.Interactive)
        header.setStretchLastSection(True)
        self.list.setColumnWidth(0, 250)
        self.list.currentItemChanged.connect(lambda *_: self._show_current())
        self.remove_button = Button(self.tr("Leave this file out"), "minus", "plain", self._remove)
        self.remove_button.setAutoDefault(False)
        self._many = QWidget()
        column = QVBoxLayout(self._many)
        box(column, spacing=theme.SMALL)
        column.addWidget(self.list)
        column.addWidget(self.remove_button, 0, Qt.AlignmentFlag.AlignLeft)
        self._left.addWidget(self._many)

    def _ask_files(self) -> None:
        names, _ = QFileDialog.getOpenFileNames(self, self.tr("Choose gaze files"), "", file_filter(self))
        if names:
            self.add_paths([Path(name) for name in names])

    def add_paths(self, paths: Sequence[Path]) -> None:
        """Add files and read them, one after the other."""
        there = [entry.file for entry in self._entries]
        for path in once_each([*there, *paths])[len(there) :]:
            item = QTreeWidgetItem([path.name, state_words(None)])
            item.setToolTip(0, str(path))
            item.setSizeHint(0, QSize(0, ROW_HEIGHT))
            self._entries.append(_Entry(path, item))
            self.list.addTopLevelItem(item)
        if self.list.currentItem() is None and self._entries:
            self.list.setCurrentItem(self._entries[0].item)
        self._arrange()
        self._read_next()

    def _remove(self) -> None:
        entry = self._current
        if entry is None or len(self._entries) < 2:
            return
        self._entries.remove(entry)
        self.list.takeTopLevelItem(self.list.indexOfTopLevelItem(entry.item))
        self._arrange()
        self._show_current()
        self._read_next()

    def _arrange(self) -> None:
        count = len(self._entries)
        self._many.setVisible(count > 1)
        self._between.setVisible(count < 2)
        self._columns.setDirection(
            QBoxLayout.Direction.TopToBottom if count < 2 else QBoxLayout.Direction.LeftToRight
        )
        self._columns.setSpacing(theme.WIDE if count < 2 else 32)
        self.view.set_narrow(count > 1)
        parent = self.parentWidget()
        most = parent.window().width() - 40 if parent is not None else WIDE
        if count > 1 and self.width() < min(WIDE, most):
            self.resize(min(WIDE, most), self.height())
        header = self.list.header().sizeHint().height()
        self.list.setFixedHeight(min(count, MOST_ROWS) * ROW_HEIGHT + header + 4)
        self.questions_title.setText(
            self.tr("What the file does not tell") if count < 2 else self.tr("What the files do not tell")
        )

    def dragEnterEvent(self, event: QDragEnterEvent) -> None:
        """Take files."""
        if event.mimeData().hasUrls():
            event.acceptProposedAction()

    def dropEvent(self, event: QDropEvent) -> None:
        """Add what was dropped."""
        paths = [Path(url.toLocalFile()) for url in event.mimeData().urls() if url.isLocalFile()]
        if paths:
            event.acceptProposedAction()
            self.add_paths(paths)

    @property
    def _current(self) -> _Entry | None:
        item = self.list.currentItem()
        return next((entry for entry in self._entries if entry.item is item), None)

    # Reading

    def _wanted(self, entry: _Entry) -> Asked:
        """Return what is said of a file now: only what it does not tell itself."""
        answers = self.questions.answers()
        told = {fact: answers[fact] for fact in entry.facts if fact in answers and fact != "rect_px"}
        place = answers.get("rect_px") if "rect_px" in entry.facts else None
        known = Known(**told, stream=entry.stream)
        shown_at = ShownAt(
            image=entry.image if "image" in entry.facts else None,
            rect_px=place if isinstance(place, tuple) and len(place) == 4 else None,
            fit=place == "fit",
        )
        return known, shown_at, self.how.split.currentData()

    def _is_stale(self, entry: _Entry) -> bool:
        """Whether a file is to be read again; not for a part of the answers, as long files take their time."""
        if entry.preview is None or entry.asked is None:
            return True
        wanted = self._wanted(entry)
        if entry.asked == wanted:
            return False
        is_other = (entry.asked[0].stream, entry.asked[2]) != (wanted[0].stream, wanted[2])
        return is_other or not self._unsaid(entry, self.questions.answers())

    def _read_next(self) -> None:
        """Read the next file of which something else is known than when it was read, the one in view first."""
        if self._reading is None:
            current = self._current
            ordered = [*([current] if current is not None else []), *self._entries]
            entry = next((one for one in ordered if self._is_stale(one)), None)
            if entry is not None:
                self._read(entry)
        self._show_current()

    def _read(self, entry: _Entry) -> None:
        study, file, asked = self._study, entry.file, self._wanted(entry)
        known, shown_at, split = asked

        def work(_: StepProgress) -> tuple[Asked, GazePreview]:
            return asked, preview_gaze(study, file, known=known, shown_at=shown_at, split=split)

        self._reading = entry
        self.view.set_busy(True)
        self.work(work, self.tr("Reading"), self._was_read, failed=self._was_not_read)

    def _was_read(self, result: tuple[Asked, GazePreview]) -> None:
        asked, preview = result
        entry, self._reading = self._reading, None
        self.view.set_busy(False)
        if entry is None:
            return
        entry.asked, entry.preview = asked, preview
        entry.facts = tuple(dict.fromkeys((*entry.facts, *preview.missing)))
        entry.choices |= preview.choices
        if entry.image is None and preview.guessed_image is not None and not entry.image_touched:
            entry.image = preview.guessed_image
        self._read_next()
        if not self._touched:
            # Once: what is asked first turns up with the first file.
            self._touched = True
            if not self.questions.focus_first(self._unsaid(entry, self.questions.answers())):
                self.import_button.setFocus()

    def _was_not_read(self, sentence: str, _details: str) -> None:
        if self._reading is not None:
            self._was_read((self._wanted(self._reading), GazePreview(self._reading.file, problem=sentence)))

    # The questions

    def _said(self) -> None:
        self._asking.start()
        self._show_state()

    def _said_of_one(self, fact: str) -> None:
        entry = self._current
        if entry is None:
            return
        if fact == "stream":
            # Another recording of the file may tell what this one does not.
            entry.stream, entry.facts = self.questions.stream.currentData(), ("stream",)
        else:
            entry.image, entry.image_touched = self.questions.image.currentData(), True
        self._said()

    # What is shown

    def _show_current(self) -> None:
        entry = self._current
        if entry is None:
            return
        self.view.show_file(entry.file, entry.preview)
        self.questions.show_file(entry.choices.get("stream", ()), entry.stream, entry.image)
        self._show_state()

    def _show_state(self) -> None:
        """Show which questions are open, and whether the files can come in."""
        previews = [entry.preview for entry in self._entries]
        known = [preview for preview in previews if preview is not None]
        answered = self.questions.answers()
        for entry in self._entries:
            self._show_in_list(entry, self._unsaid(entry, answered))
        current = self._current
        coming = [entry for entry in self._entries if entry.preview is None or not entry.preview.problem]
        # A file that cannot come in all the same has no questions, except those whose answer may be the trouble.
        asking = [
            entry
            for entry in self._entries
            if entry in coming or any(fact in answered or fact in OF_ONE_FILE for fact in entry.facts)
        ]
        asked = {fact for entry in asking for fact in entry.facts if fact not in OF_ONE_FILE}
        if current is not None and current in asking:
            asked |= set(current.facts) & set(OF_ONE_FILE)
        open_facts = {
            fact
            for entry in coming
            for fact in entry.facts
            if fact in self._unsaid(entry, answered) and (fact not in OF_ONE_FILE or entry is current)
        }
        self.questions.ask(asked)
        self.questions.mark(open_facts)
        is_asking = bool(asked - {"split"})
        self.questions_title.setVisible(is_asking)
        self.questions_line.setVisible(is_asking)
        self.how.show_for(known, split_asked="split" in asked, split_open="split" in open_facts)
        self._show_verdict(coming, answered)

    def _show_in_list(self, entry: _Entry, unsaid: Sequence[str]) -> None:
        preview, item = entry.preview, entry.item
        item.setText(1, state_words(None if self._is_stale(entry) else preview, unsaid))
        if preview is None:
            return
        item.setToolTip(1, preview.problem or (missing_words(unsaid) if unsaid else ""))
        name, token = ("question", "warning") if unsaid else ("check-circle", "accent")
        if preview.problem:
            name, token = "x-circle", "danger"
        item.setIcon(1, theme.icon(name, getattr(theme.current(), token)))

    def _unsaid(self, entry: _Entry, answers: dict[str, Any]) -> list[str]:
        """Return which facts about a file are open still."""
        said = {*answers, *(("split",) if self.how.split.currentData() is not None else ())}
        said |= {fact for fact in OF_ONE_FILE if getattr(entry, fact) is not None}
        return [fact for fact in entry.facts if fact not in said]

    def _show_verdict(self, coming: list[_Entry], answers: dict[str, Any]) -> None:
        count, all_files = len(coming), len(self._entries)
        if all_files < 2:
            self.import_button.setText(self.tr("Import"))
        elif count == all_files:
            self.import_button.setText(self.tr("Import {n} files").format(n=count))
        else:
            self.import_button.setText(self.tr("Import {n} of {all} files").format(n=count, all=all_files))
        stale = any(self._is_stale(entry) for entry in self._entries)
        waiting = [(entry, facts) for entry in coming if (facts := self._unsaid(entry, answers))]
        wrong = self.questions.wrong_words() or self.how.width_deg.wrong_words()
        set_role(self.problem, "danger" if wrong else "muted")
        if wrong:
            self.show_problem(wrong)
        elif not self.how.annotator_name():
            self.show_problem(self.tr("Say whose gaze it is."))
        elif waiting:
            entry, facts = next(((e, f) for e, f in waiting if e is self._current), waiting[0])
            words = missing_words(facts)
            text = (
                self.tr("Not said yet: {what}.")
                if all_files < 2
                else self.tr("{file}, not said yet: {what}.")
            )
            self.show_problem(text.format(file=short(entry.file.name), what=words))
        elif stale or self._reading is not None:
            self.show_problem(self.tr("Reading…"))
        elif unclear := [one for one in coming if one.preview is not None and one.preview.missing]:
            preview = unclear[0].preview
            assert preview is not None
            self.show_problem(
                self.tr("{file}: another answer is needed for {what}.").format(
                    file=short(preview.file.name), what=missing_words(preview.missing)
                )
            )
        else:
            self.show_problem("")
        self.import_button.setEnabled(
            count > 0
            and not stale
            and not waiting
            and not wrong
            and bool(self.how.annotator_name())
            and all(entry.preview is not None and entry.preview.is_ready for entry in coming)
        )

    # Deciding

    def choices(self) -> list[GazeChoice]:
        """Return what is decided for each file that can come in."""
        chosen = []
        first = self._study.targets[0].id
        target: str = self.how.target.currentData()
        for entry in self._entries:
            preview = entry.preview
            if preview is None or not preview.is_ready:
                continue
            known, shown_at, split = self._wanted(entry)
            own = preview.inspection is not None and preview.inspection.own is not None
            width = self.how.width_deg.values()
            chosen.append(
                GazeChoice(
                    file=entry.file,
                    annotator=self.how.annotator_name(),
                    # A table of the first target is the same import whether that is named or not.
                    target=None if preview.is_table and target == first else target,
                    split=split,
                    known=known,
                    shown_at=shown_at,
                    fixations="own" if own and self.how.fixations.currentData() == "own" else "detect",
                    image_width_deg=width[0] if width and preview.is_table else None,
                    simulated_from=self.how.simulated.currentData(),
                )
            )
        return chosen

    def _accept(self) -> None:
        choices = self.choices()
        if not choices:
            return
        asked = {fact for entry in self._entries for fact in entry.facts}
        answers = self.questions.answers()
        self.questions.remember(
            self._session.settings, {fact: answers[fact] for fact in asked if fact in answers}
        )
        self.accept()
        left_out = [
            GazeOutcome(entry.file, problem=entry.preview.problem)
            for entry in self._entries
            if entry.preview is not None and entry.preview.problem
        ]
        self.chosen.emit(choices, left_out)


def _image_names(study: Study) -> list[tuple[str, str]]:
    """Return every image as (its file's name, or its id where several are called so, its id)."""
    counts: dict[str, int] = {}
    for image in study.images.values():
        counts[image.source_name] = counts.get(image.source_name, 0) + 1
    return [
        (image.source_name if counts[image.source_name] == 1 else image.id, image.id)
        for image in study.images.values()
    ]
