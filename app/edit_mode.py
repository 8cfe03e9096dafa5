"""Editing on the review page: from key E to a stored mask, or to a draft that is gone on with later."""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from pathlib import Path

from PySide6.QtCore import QEvent, QObject, Qt, QTimer, Signal
from PySide6.QtGui import QKeyEvent
from PySide6.QtWidgets import QLineEdit, QPlainTextEdit, QTextEdit, QVBoxLayout, QWidget

from app.canvas import Canvas
from app.edit_bar import OptionsRow, ToolColumn
from app.edit_layer import EditLayer
from app.edit_tools import ToolName
from app.edit_words import step_title
from app.review_clock import ReviewClock
from app.session import Session
from app.verdicts import Given, give_edited
from app.widgets import box
from gaze_capture.errors import UserError
from segmentation.editing import operations
from segmentation.editing.drafts import Draft, open_draft
from segmentation.editing.history import Step
from segmentation.editing.regions import Mask
from segmentation.editing.starts import start_mask, starts
from segmentation.review_index import Purpose
from segmentation.study import Study

TRIED_OUT_MS = 900
"""A threshold that is tried out becomes a step when it was left alone for so long."""
KEYS: dict[int, ToolName] = {
    Qt.Key.Key_B: "brush",
    Qt.Key.Key_X: "eraser",
    Qt.Key.Key_L: "lasso",
    Qt.Key.Key_P: "polygon",
    Qt.Key.Key_K: "flood",
    Qt.Key.Key_T: "threshold",
}
OF_VERDICTS = frozenset(
    {
        Qt.Key.Key_E,
        Qt.Key.Key_R,
        Qt.Key.Key_0,
        Qt.Key.Key_Q,
        Qt.Key.Key_U,
        Qt.Key.Key_D,
        Qt.Key.Key_G,
        Qt.Key.Key_S,
    }
)
"""What would judge the mask below the one that is edited, or leave the page: of no use meanwhile."""
TEXT_FIELDS = (QLineEdit, QPlainTextEdit, QTextEdit)


class Editing(QObject):
    """Keys: B brush, X eraser, L lasso, P polygon, K flood, T threshold, [ ] size, Z undo, Shift+Z redo.

    Enter or A stores the mask, Esc leaves it as a draft; Space held moves the image. `give` is called to store.
    """

    changed = Signal()
    """It began or ended."""
    error = Signal(str)
    lost = Signal(str)
    """What of an edit is not on the disk."""
    notice = Signal(str)

    def __init__(
        self, session: Session, canvas: Canvas, clock: ReviewClock, give: Callable[[], object]
    ) -> None:
        super().__init__(canvas)
        self._session, self._clock = session, clock
        self.canvas = canvas
        self._give = give
        self.layer = EditLayer(canvas)
        self.column = ToolColumn()
        self.row = OptionsRow(self.layer)
        self.column.hide()
        self.row.hide()
        self._tool: ToolName = "brush"
        self._earlier_s = 0.0
        """Spent on the draft before; the clock has what was spent on the image since it came into view."""
        self._study: Study | None = None
        self._run_id: str | None = None
        self._unkept: dict[tuple[Path, str, str, str, Purpose], Draft] = {}
        """Edits that could not be written when they were left, by study, image, target, annotator and purpose."""
        self._tried = QTimer(self, singleShot=True, interval=TRIED_OUT_MS)
        self._tried.timeout.connect(self.layer.settle)
        self.layer.changed.connect(self._show_state)
        # A tool that cannot be had stops nobody: what is told of it goes by itself.
        self.layer.failed.connect(self.notice)
        self.column.chosen.connect(self.choose)
        self.column.undo.connect(self.undo)
        self.column.redo.connect(self.redo)
        self.column.done.connect(self.operate)
        self.column.added.connect(self.add)
        self.column.copied.connect(self.copy_on)
        self.row.store.connect(lambda: self._give())
        self.row.leave.connect(self.leave)
        self.row.anew.connect(self.begin_anew)
        canvas.installEventFilter(self)

    def around(self, centre: QWidget) -> QWidget:
        """Return the middle of the page, with the row above it."""
        holder = QWidget()
        layout = QVBoxLayout(holder)
        box(layout, spacing=0)
        layout.addWidget(self.row)
        layout.addWidget(centre, 1)
        return holder

    @property
    def active(self) -> bool:
        """Whether a mask is edited."""
        return self.layer.draft is not None

    @property
    def draft(self) -> Draft:
        """What is edited; only while `active`."""
        draft = self.layer.draft
        if draft is None:
            raise RuntimeError("nothing is edited")
        return draft

    # Beginning and ending

    def enter(
        self, run_id: str | None, *, began_as: tuple[str, Mask] | None = None, purpose: Purpose = "review"
    ) -> bool:
        """Edit the current image's mask, or go on with its draft; return whether it could be begun."""
        study, image_id, scene = self._session.study, self._session.image_id, self.canvas.scene
        if self.active or study is None or image_id is None or scene is None or scene.image_id != image_id:
            return self.active
        target, annotator = self._session.target_id, self._session.annotator
        waiting = self._unkept.get((study.folder, image_id, target, annotator, purpose))
        try:
            if waiting is not None and waiting.edit.mask.shape == study.image(image_id).shape[:2]:
                draft = waiting
            else:
                draft = open_draft(
                    study, image_id, target, annotator, run_id, began_as=began_as, purpose=purpose
                )
            found = starts(study, image_id, target, run_id, purpose)
        except UserError as error:
            self.error.emit(str(error))
            return False
        self._unkept = {key: one for key, one in self._unkept.items() if one is not draft}
        if purpose == "audit":
            run_id = None  # Nor may its threshold be tried out.
        self._study, self._run_id = study, run_id
        self._earlier_s = draft.seconds
        self.layer.edit(draft, self._keep, run_id)
        if began_as is not None and draft.recovered:
            # A draft of that slice was left: the copy is a step of it.
            name, mask = began_as
            self._keep(lambda: draft.apply("copy-slice", mask, start=name))
        self.column.show_sizes(scene.spacing_mm)
        self.column.show_masks([one for one in found if one != "empty"])
        self.row.show_starts(found)
        self.column.copy.setVisible(self._next_slice() is not None)
        # Another side that stands beside keeps its layers.
        self.canvas.set_layers_apart(True)
        # A threshold is of one student's probability, and changes the mask as soon as it is touched.
        self.layer.choose("brush" if self._tool == "threshold" else self._tool)
        self.column.show()
        self.row.show()
        self.changed.emit()
        if draft.note:
            self.lost.emit(draft.note)
        elif draft.recovered and began_as is None:
            self.notice.emit(self.tr("This goes on with the edit that was left here."))
        return True

    def leave(self) -> None:
        """Stop editing; the edit is kept as a draft, where anything was done.

        One that cannot be written waits in this window to be gone on with.
        """
        if not self.active:
            return
        self.layer.settle()
        draft = self.draft
        done = bool(draft.edit.steps or draft.edit.undone)
        # What the draft has of this view's time is not counted for the next verdict again.
        self._clock.spend(draft.seconds - self._earlier_s)
        self._end()
        try:
            draft.keep()
        except UserError as error:
            header, draft.recovered = draft.header, True
            key = draft.study.folder, header.image_id, header.target_id, header.annotator, header.purpose
            self._unkept[key] = draft
            told = self.tr(
                "The edit is not on the disk; E goes on with it as long as this window is open. {error}"
            )
            self.lost.emit(told.format(error=error))
            return
        draft.close()
        if done:
            self.notice.emit(self.tr("The edit is kept as a draft; E goes on with it."))

    def _end(self) -> None:
        self._tried.stop()
        self.layer.end()
        self.column.hide()
        self.row.hide()
        self.canvas.set_layers_apart(False)
        self.canvas.setFocus()
        self.changed.emit()

    def store(self, gaze_on_mask_ms: float | None = None) -> Given:
        """Store the mask as a review and stop editing.

        Raises
        ------
        UserError
            If it cannot be stored; the edit goes on.
        """
        self.layer.settle()
        assert self._study is not None
        given = give_edited(self._study, self.draft, self._seconds(), gaze_on_mask_ms)
        self._end()
        return given

    def follow(self) -> None:
        """See whether the image shown is still the one that is edited; the next slice of a volume is edited on."""
        if not self.active:
            return
        header, scene = self.draft.header, self.canvas.scene
        here = (self._session.study, self._session.image_id, self._session.target_id, self._session.annotator)
        if scene is not None and here == (self._study, header.image_id, header.target_id, header.annotator):
            self.layer.refresh()
            return
        study, volume = self._study, ""
        if study is not None and header.image_id in study.images:
            volume = study.images[header.image_id].volume
        beside = scene is not None and here[0] is study and here[2:] == (header.target_id, header.annotator)
        self.leave()
        if beside and scene is not None and scene.volume == volume != "" and header.purpose == "review":
            self.enter(self._run_id)

    def stop(self) -> None:
        """Leave what is edited as a draft: the window closes."""
        left = list(self._unkept.values())
        if self.active:
            self.layer.settle()
            left.append(self.draft)
        for draft in left:
            with contextlib.suppress(UserError):
                draft.keep()
            draft.close()

    # Steps

    def _keep(self, act: Callable[[], object]) -> object:
        """Do what ends a step, and tell where it could not be written; return what it returned."""
        if self.layer.draft is not None:
            self.draft.seconds = self._seconds()
        try:
            return act()
        except UserError as error:
            self.lost.emit(str(error))
            return None

    def _seconds(self) -> float:
        return self._earlier_s + self._clock.seconds

    def _do(self, act: Callable[[], Step | None]) -> None:
        self.layer.settle()
        step = self._keep(act)
        # One that could not be written is in the mask all the same.
        self.layer.refresh(step.box if isinstance(step, Step) else None)
        self._show_state()

    def choose(self, name: str) -> None:
        """Take a tool; the flood, taken again, changes what it floods."""
        tool: ToolName = name  # type: ignore[assignment]
        if tool == "threshold" and self.draft.header.purpose == "audit":
            self.notice.emit(self.tr("An audit shows nothing of the student, its threshold neither."))
            self._show_state()
        elif tool == "flood" and self.layer.tool is not None and self.layer.tool.name == "flood":
            self.row.set_parts(not self.layer.options.parts)
        elif self.layer.choose(tool):
            self._tool = tool

    def undo(self) -> None:
        """Take the last step back, and say which it was."""
        self.layer.settle()
        word = self.draft.edit.undo_word
        if word:
            self._do(self.draft.undo)
            self.layer.say(self.tr("Undone: {step}").format(step=step_title(word)))

    def redo(self) -> None:
        """Do the step taken back last again, and say which it is."""
        self.layer.settle()
        word = self.draft.edit.redo_word
        if word:
            self._do(self.draft.redo)
            self.layer.say(self.tr("Done again: {step}").format(step=step_title(word)))

    def operate(self, word: str, radius: float) -> None:
        """Do something to the whole mask; the radius is in mm where the spacing is known, smoothing's in pixels."""
        scene = self.canvas.scene
        spacing = None if scene is None else scene.spacing_mm
        self.layer.settle()
        mask = self.draft.edit.mask
        acts: dict[str, Callable[[], Mask]] = {
            "grow": lambda: operations.grow(mask, radius, spacing),
            "shrink": lambda: operations.shrink(mask, radius, spacing),
            "smooth": lambda: operations.smooth(mask, radius),
            "fill-holes": lambda: operations.fill_holes(mask),
            "keep-largest": lambda: operations.keep_largest(mask),
        }
        self._do(lambda: self.draft.apply(word, acts[word]()))

    def add(self, start: str) -> None:
        """Add a level's or a network's mask."""
        self._do(lambda: self.draft.apply("add", self.draft.edit.mask | self._mask_of(start)))

    def begin_anew(self, start: str) -> None:
        """Have the mask begin as another one; that is a step, too."""
        self._do(lambda: self.draft.apply("start", self._mask_of(start), start=start))

    def _mask_of(self, start: str) -> Mask:
        header = self.draft.header
        return start_mask(self.draft.study, header.image_id, header.target_id, self._run_id, start)

    # Slices

    def _next_slice(self) -> str | None:
        """Return the slice that a copy may go to; None where reading is blind: that asks for slices one by one."""
        study, header = self._study, self.draft.header
        if study is None or header.purpose != "review":
            return None
        slices = study.slices_beside(header.image_id)
        later = slices[slices.index(header.image_id) + 1 :]
        return later[0] if later else None

    def copy_on(self) -> None:
        """Store this slice's mask, and begin the next slice with a copy of it."""
        following, header, run_id = self._next_slice(), self.draft.header, self._run_id
        if following is None:
            return
        self.layer.settle()
        mask = self.draft.edit.mask.copy()
        self._give()
        if not self.active:
            self._session.set_image(following)
            self.enter(run_id, began_as=(f"slice {header.image_id}", mask))

    # Keys

    def eventFilter(self, watched: QObject, event: QEvent) -> bool:
        """Take the keys of editing before the canvas does, while a mask is edited."""
        if not self.active:
            return False
        if event.type() == QEvent.Type.FocusOut:
            # The key is let go of elsewhere.
            self.layer.set_panning(False)
        if isinstance(event, QKeyEvent):
            if event.type() == QEvent.Type.KeyPress:
                return self.handle_key(event)
            if event.type() == QEvent.Type.KeyRelease and event.key() == Qt.Key.Key_Space:
                if not event.isAutoRepeat():
                    self.layer.set_panning(False)
                return True
        return False

    def handle_key(self, event: QKeyEvent) -> bool:
        """Act on a key while a mask is edited; return whether it was one of editing."""
        if not self.active or isinstance(self.canvas.window().focusWidget(), TEXT_FIELDS):
            # A text field passes on what it has no use for, such as Enter.
            return False
        key, tool = Qt.Key(event.key()), self.layer.tool
        shift = bool(event.modifiers() & Qt.KeyboardModifier.ShiftModifier)
        others = Qt.KeyboardModifier.ControlModifier | Qt.KeyboardModifier.AltModifier
        if event.modifiers() & others or tool is None:
            return False
        if key == Qt.Key.Key_Z:
            (self.redo if shift else self.undo)()
        elif key in KEYS and not shift:
            if not event.isAutoRepeat():
                self.choose(KEYS[key])
        elif key in (Qt.Key.Key_BracketLeft, Qt.Key.Key_BracketRight):
            larger = key == Qt.Key.Key_BracketRight
            if tool.name in ("brush", "eraser"):
                self.layer.resize_brush(1.25 if larger else 0.8)
            else:
                tool.wheel(1 if larger else -1)
        elif key in (Qt.Key.Key_Return, Qt.Key.Key_Enter, Qt.Key.Key_A):
            if not event.isAutoRepeat() and (key == Qt.Key.Key_A or not tool.finish()):
                self._give()
            else:
                self._show_state()
        elif key == Qt.Key.Key_Escape:
            if tool.busy:
                tool.cancel()
            elif not self.canvas.measures.escape():
                self.leave()
        elif key == Qt.Key.Key_Space:
            if not event.isAutoRepeat():
                self.layer.set_panning(True)
        elif key == Qt.Key.Key_Backspace:
            # One too many, after the polygon's last corner, must not lead to another image.
            return tool.back() or tool.name == "polygon"
        else:
            return key in OF_VERDICTS
        event.accept()
        return True

    def _show_state(self) -> None:
        if self.active:
            self.column.show_state(self.layer)
            self.row.show_state()
            tool = self.layer.tool
            if tool is not None and tool.name == "threshold" and self.draft.edit.live:
                self._tried.start()
