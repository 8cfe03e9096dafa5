"""Looking at images in whose pixels text is likely, and blanking it for good."""

from __future__ import annotations

from PySide6.QtCore import Qt, Signal
from PySide6.QtGui import QKeySequence, QShortcut
from PySide6.QtWidgets import QCheckBox, QHBoxLayout, QMessageBox, QProgressBar, QWidget

from app import theme
from app.dialogs import Dialog
from app.jobs import StepProgress
from app.rectangle_canvas import RectangleCanvas
from app.widgets import Button, ElidedLabel, EmptyState, IconButton, box, label
from gaze_capture.errors import UserError
from segmentation.blanking import Rectangle
from segmentation.records import StudyImage
from segmentation.study import Study


def marked_images(study: Study) -> list[StudyImage]:
    """Return the images in which text is likely and that nobody has looked at."""
    return [image for image in study.images.values() if image.burned_in]


class BurnedInDialog(Dialog):
    """One marked image after the other: drag over text, blank it; or say that there is none."""

    stored = Signal()
    """Images of the study changed."""

    def __init__(self, parent: QWidget | None, study: Study) -> None:
        super().__init__(
            parent,
            self.tr("Text in the pixels"),
            self.tr("Drag over every name, number and date. What is blanked is gone from the study."),
            scrolls=False,
        )
        self._study = study
        self.images = marked_images(study)
        self.index = 0
        self._drawn: dict[str, list[Rectangle]] = {}
        self._asked_not_again = False
        self._busy = False
        self.setMinimumSize(760, 560)
        self.head = QWidget()
        self._make_head(QHBoxLayout(self.head))
        self.body.addWidget(self.head)
        self.canvas = RectangleCanvas()
        self.canvas.changed.connect(self._rectangles_changed)
        self.body.addWidget(self.canvas, 1)
        self.empty = EmptyState("check-circle", self.tr("No image is left in which text is likely."))
        self.empty.hide()
        self.body.addWidget(self.empty, 1)
        self.tools = QWidget()
        self._make_tools(QHBoxLayout(self.tools))
        self.body.addWidget(self.tools)
        self.bar = QProgressBar()
        self.bar.setTextVisible(False)
        self.bar.hide()
        self.body.addWidget(self.bar)
        self.close_button = self.add_button(self.tr("Close"), self.accept)
        self.none_button = self.add_button(self.tr("No text here"), self.say_none)
        self.none_button.setToolTip(self.tr("Nothing in this image names anyone (N)"))
        self.blank_button = self.add_button(self.tr("Blank for good"), self.blank, "primary")
        self.blank_button.setToolTip(self.tr("Paint over the rectangles, for good (Enter)"))
        for button in (self.close_button, self.none_button, self.blank_button):
            button.setAutoDefault(False)
        self._make_keys()
        self.resize(1000, 740)
        self.canvas.setFocusPolicy(Qt.FocusPolicy.StrongFocus)
        self._show()
        self.canvas.setFocus()

    def _make_head(self, head: QHBoxLayout) -> None:
        box(head, spacing=theme.NORMAL)
        self.previous_button = IconButton(
            "arrow-left", self.tr("Previous image (Left)"), on_click=lambda: self.step(-1)
        )
        self.next_button = IconButton(
            "arrow-right", self.tr("Next image (Right)"), on_click=lambda: self.step(1)
        )
        self.place = label("")
        self.place.setFont(theme.number_font(13))
        self.name = ElidedLabel("")
        self.reason = ElidedLabel("", "muted")
        for widget in (self.previous_button, self.place, self.next_button):
            head.addWidget(widget)
        head.addWidget(self.name, 1)
        head.addWidget(self.reason, 2)

    def _make_tools(self, tools: QHBoxLayout) -> None:
        box(tools, spacing=theme.NORMAL)
        self.undo_button = Button(self.tr("Undo"), "arrow-counter-clockwise", "", self._undo)
        self.undo_button.setToolTip(self.tr("Take the last rectangle away (Ctrl+Z)"))
        self.clear_button = Button(self.tr("Clear"), "", "", self._clear)
        self.clear_button.setToolTip(self.tr("Take all rectangles away (Delete)"))
        self.top_button = Button(self.tr("Top edge"), "", "", lambda: self.canvas.add_band(top=True))
        self.top_button.setToolTip(self.tr("Cover a band at the top; again, and it grows (T)"))
        self.bottom_button = Button(self.tr("Bottom edge"), "", "", lambda: self.canvas.add_band(top=False))
        self.bottom_button.setToolTip(self.tr("Cover a band at the bottom; again, and it grows (B)"))
        for button in (self.undo_button, self.clear_button, self.top_button, self.bottom_button):
            button.setAutoDefault(False)
            tools.addWidget(button)
        tools.addStretch(1)
        self.same_size = QCheckBox("")
        self.same_size.setToolTip(self.tr("Devices write at the same place in all their images"))
        self.same_size.toggled.connect(lambda _: self._rectangles_changed())
        tools.addWidget(self.same_size)

    def _make_keys(self) -> None:
        keys = (
            (Qt.Key.Key_Return, self.blank),
            (Qt.Key.Key_Enter, self.blank),
            (Qt.Key.Key_N, self.say_none),
            (Qt.Key.Key_Left, lambda: self.step(-1)),
            (Qt.Key.Key_Right, lambda: self.step(1)),
            (Qt.Key.Key_Delete, self._clear),
            (Qt.Key.Key_T, lambda: self.canvas.add_band(top=True)),
            (Qt.Key.Key_B, lambda: self.canvas.add_band(top=False)),
        )
        for key, act in keys:
            QShortcut(QKeySequence(key), self, act)
        QShortcut(QKeySequence.StandardKey.Undo, self, self._undo)

    # Showing

    @property
    def image(self) -> StudyImage | None:
        """The image in view."""
        return self.images[self.index] if self.images else None

    def step(self, by: int) -> None:
        """Go to the next or previous image."""
        if self.images and not self._busy:
            self.index = (self.index + by) % len(self.images)
            self._show()

    def alike(self) -> list[StudyImage]:
        """Return the marked images of the size of the one in view, itself first."""
        if self.image is None:
            return []
        shape = self.image.shape[:2]
        return [self.image, *(one for one in self.images if one.shape[:2] == shape and one is not self.image)]

    def _show(self) -> None:
        image = self.image
        for widget in (self.previous_button, self.next_button):
            widget.setEnabled(len(self.images) > 1)
        self.none_button.setEnabled(image is not None)
        if image is None:
            for shown in (
                self.sentence,
                self.head,
                self.canvas,
                self.tools,
                self.none_button,
                self.blank_button,
            ):
                shown.hide()
            self.canvas.set_rectangles([])
            self.empty.show()
            self.close_button.setFocus()
            return
        self.place.setText(
            self.tr("{n} of {all}").format(n=f"{self.index + 1:,}", all=f"{len(self.images):,}")
        )
        self.name.setText(image.source_name)
        self.reason.setText(image.burned_in)
        try:
            self.canvas.show_image(self._study.shown(image))
            self.show_problem("")
        except UserError as error:
            self.canvas.show_image(None)
            self.show_problem(str(error))
        count = len(self.alike())
        self.same_size.setText(self.tr("Same rectangles for all {n} of this size").format(n=f"{count:,}"))
        self.same_size.setVisible(count > 1)
        self.canvas.set_rectangles(self._drawn.get(image.id, []))

    def _rectangles_changed(self) -> None:
        rectangles = self.canvas.rectangles
        if self.image is not None:
            self._drawn[self.image.id] = list(rectangles)
        for button in (self.undo_button, self.clear_button):
            button.setEnabled(bool(rectangles) and not self._busy)
        for button in (self.top_button, self.bottom_button):
            button.setEnabled(self.image is not None and not self._busy)
        self.blank_button.setEnabled(bool(rectangles) and not self._busy)
        count = len(self._to_blank())
        self.blank_button.setText(
            self.tr("Blank {n} images for good").format(n=f"{count:,}")
            if count > 1
            else self.tr("Blank for good")
        )

    def _undo(self) -> None:
        if not self._busy:
            self.canvas.undo()

    def _clear(self) -> None:
        if not self._busy:
            self.canvas.set_rectangles([])

    # Doing

    def _to_blank(self) -> list[StudyImage]:
        if self.image is None:
            return []
        several = self.same_size.isChecked() and not self.same_size.isHidden()
        return self.alike() if several else [self.image]

    def blank(self) -> None:
        """Paint the rectangles over, once the person has confirmed that it is for good."""
        rectangles = list(self.canvas.rectangles)
        images = self._to_blank()
        if not rectangles or self._busy or not images or not self._confirmed(len(rectangles), len(images)):
            return
        ids = [image.id for image in images]
        study = self._study

        def work(progress: StepProgress) -> list[str]:
            from segmentation.blanking import blank

            return blank(study, ids, rectangles, progress=progress)

        self._begin()
        self.work(work, self.tr("Blanking"), self._done, self._show_progress, self._failed)

    def _confirmed(self, rectangles: int, images: int) -> bool:
        if self._asked_not_again:
            return True
        question = QMessageBox(self)
        question.setWindowTitle(self.tr("Blank for good"))
        question.setIcon(QMessageBox.Icon.Warning)
        where = self.tr("1 image") if images == 1 else self.tr("{n} images").format(n=f"{images:,}")
        question.setText(
            self.tr("Paint over {n} places in {where}?").format(n=rectangles, where=where)
            if rectangles > 1
            else self.tr("Paint over 1 place in {where}?").format(where=where)
        )
        question.setInformativeText(
            self.tr("The pixels under them are gone from the study. This cannot be undone.")
        )
        fine = question.addButton(self.tr("Blank for good"), QMessageBox.ButtonRole.AcceptRole)
        question.addButton(self.tr("Cancel"), QMessageBox.ButtonRole.RejectRole)
        question.setDefaultButton(fine)
        again = QCheckBox(self.tr("Do not ask again until this window closes"))
        question.setCheckBox(again)
        question.exec()
        confirmed = question.clickedButton() is fine
        self._asked_not_again = confirmed and again.isChecked()
        question.deleteLater()
        return confirmed

    def say_none(self) -> None:
        """Store that a person saw no text in this image."""
        image = self.image
        if image is None or self._busy:
            return
        study = self._study

        def work(_: StepProgress) -> list[str]:
            from segmentation.blanking import mark_clean

            return mark_clean(study, [image.id])

        self._begin()
        self.work(work, self.tr("Storing"), self._done, None, self._failed)

    def _begin(self) -> None:
        self._busy = True
        # The button that was pressed is about to be disabled; keys must go on working.
        self.canvas.setFocus()
        self.none_button.setEnabled(False)
        self._rectangles_changed()
        self.bar.setRange(0, 0)

    def _show_progress(self, done: int, total: int, _what: str) -> None:
        if total > 1:
            self.bar.show()
            self.bar.setRange(0, total)
            self.bar.setValue(done)

    def _done(self, ids: list[str]) -> None:
        gone = set(ids)
        before = sum(image.id not in gone for image in self.images[: self.index])
        self.images = [image for image in self.images if image.id not in gone]
        self.index = before if before < len(self.images) else 0
        self._end()
        self._show()
        self.stored.emit()

    def _failed(self, sentence: str, _details: str) -> None:
        self._end()
        # What was changed before it failed is changed: look again.
        self.images = marked_images(self._study)
        self.index = min(self.index, max(0, len(self.images) - 1))
        self._show()
        self.show_problem(sentence)
        self.stored.emit()

    def _end(self) -> None:
        self._busy = False
        self.bar.hide()
