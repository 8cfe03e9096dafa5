"""The inspector's description of the gazed region: read, shown in the image, edited and approved."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from PySide6.QtCore import Signal
from PySide6.QtWidgets import QHBoxLayout, QScrollArea, QVBoxLayout, QWidget

from app import theme
from app.canvas import Canvas
from app.compare_descriptions import CompareDialog
from app.description_origin import (
    attributes_of,
    contradicted,
    moment,
    origin_of,
    origin_tip,
    state_of,
)
from app.description_rows import AttributeRow, Said, breakable, plain_tip
from app.highlight import highlight_of
from app.scene import Scene
from app.session import Session
from app.widgets import Button, ElidedLabel, Fold, IconButton, Pill, box, clear, heading, label
from gaze_capture.errors import UserError
from segmentation.explanation import Explanation, load_explanation
from segmentation.questions import region_sha256
from segmentation.revising import (
    ChangedElsewhere,
    approve,
    edit,
    is_approved,
    revert,
    says_something,
    take_back,
)
from segmentation.study import Study


@dataclass(frozen=True)
class Revised:
    """A change that was stored, so that it can be undone."""

    before: Explanation
    after: Explanation


class DescriptionPanel(QWidget):
    """The explanation of the current target in the current image.

    Hovering or focusing a row shows in the canvas what it is about. Everything that came from a model or a person is
    shown as plain text.
    """

    revised = Signal(object)
    """A Revised, whenever something was stored."""
    wanted = Signal(list)
    """Ids of images to be described again."""
    wanted_with = Signal()
    """Who describes them is to be asked."""
    error = Signal(str, str)
    lost = Signal(str)
    """Why a change is not on the disk."""
    notice = Signal(str)
    left = Signal()
    """Escape was pressed in a row: the focus belongs to the canvas again."""

    def __init__(self, session: Session, canvas: Canvas) -> None:
        super().__init__()
        self._session, self._canvas = session, canvas
        self._study: Study | None = None
        self._scene: Scene | None = None
        self.explanation: Explanation | None = None
        self._shown: object = None
        self._weights: Mapping[str, npt.NDArray[np.uint8]] = {}
        self._comparison: CompareDialog | None = None
        self.rows: dict[str, AttributeRow] = {}
        self._unfolded = False
        column = QVBoxLayout(self)
        box(column, spacing=theme.NORMAL)
        column.addWidget(heading(self.tr("Description of the gazed region")))
        made = QHBoxLayout()
        box(made, spacing=theme.NORMAL)
        self.origin = Pill()
        self.model = ElidedLabel("", "muted")
        self.compare_button = IconButton("columns", self.tr("Compare descriptions"), on_click=self.compare)
        made.addWidget(self.origin)
        made.addWidget(self.model, 1)
        # Without a description there is no model's name to keep the buttons at the right.
        made.addStretch(0)
        made.addWidget(self.compare_button)
        self.with_button = IconButton(
            "sliders-horizontal", self.tr("Describe again with…"), on_click=self.wanted_with.emit
        )
        made.addWidget(self.with_button)
        column.addLayout(made)
        self.stale = label(self.tr("Made of an earlier pseudo-mask"), "warning", wrap=True)
        column.addWidget(self.stale)
        self._body = QVBoxLayout()
        box(self._body, spacing=0)
        column.addLayout(self._body)
        self.approve_button = Button(self.tr("Approve description"), "check", on_click=self.approve_all)
        self.approve_button.setToolTip(self.tr("Confirm everything that is said (D)"))
        self.approved_by = label("", "muted", wrap=True)
        column.addWidget(self.approve_button)
        column.addWidget(self.approved_by)
        self.show_scene(None, None)

    # Showing

    def show_scene(self, study: Study | None, scene: Scene | None) -> None:
        """Show the explanation of a scene's target, as it is stored now."""
        found = None
        if study is not None and scene is not None:
            try:
                found = load_explanation(study, scene.image_id, scene.target_id)
            except UserError as error:
                self.error.emit(str(error), "")
        key = None if scene is None else (scene.image_id, scene.target_id)
        same = key is not None and self._scene is not None and study is self._study
        if not same or key != (self._scene.image_id, self._scene.target_id):  # type: ignore[union-attr]
            self._settle()
            self._weights = {}
        self._study, self._scene = study, scene
        self._show(found)

    def show_weights(self, weights: Mapping[str, npt.NDArray[np.uint8]]) -> None:
        """Show where the words of an attribute look, (H, W) 0..255 by its name, while it is pointed at.

        They are of the current image and target, and forgotten with them.
        """
        self._weights = weights
        self._follow()

    def _settle(self) -> None:
        """Store what is being typed, before something else is shown."""
        for row in list(self.rows.values()):
            row.store(keep_focus=False)

    def _show(self, explanation: Explanation | None) -> None:
        scene, region = self._scene, None if self._scene is None else self._scene.region
        stale = (
            explanation is not None
            and explanation.region_sha256 is not None
            and region is not None
            and region_sha256(region) != explanation.region_sha256
        )
        place = None if scene is None else (scene.image_id, scene.target_id, region is not None)
        shown = (self._study, place, explanation, stale)
        self.explanation = explanation
        if shown == self._shown:
            return
        self._shown = shown
        focused = next((name for name, row in self.rows.items() if row.hasFocus()), None)
        self.rows = {}
        clear(self._body)
        self.stale.setVisible(stale)
        told = explanation is not None
        for widget in (self.origin, self.model, self.compare_button, self.approve_button, self.approved_by):
            widget.setVisible(told)
        if explanation is None or self._study is None:
            self._show_nothing(region is not None)
        else:
            self._show_origin(explanation)
            self._show_rows(self._study, explanation)
            for row in self.rows.values():
                # At once: what is shown later by itself has no height yet, and the panel would scroll to its top.
                row.show()
            if focused in self.rows:
                self.rows[focused].setFocus()
        self._follow()
        if self._comparison is not None:
            self._comparison.reload()

    def _show_nothing(self, can_describe: bool) -> None:
        self._body.addWidget(label(self.tr("None yet."), "muted"))
        if can_describe:
            self._body.addSpacing(theme.NORMAL)
            self._body.addWidget(Button(self.tr("Describe"), "chat-text", on_click=self._describe_again))

    def _show_origin(self, explanation: Explanation) -> None:
        self.origin.set(*origin_of(explanation))
        tip = plain_tip(origin_tip(explanation))
        self.origin.setToolTip(tip)
        self.model.setText(explanation.model)
        self.model.setToolTip(tip)
        whole = is_approved(explanation)
        self.approve_button.setVisible(not whole)
        self.approved_by.setVisible(whole)
        self.approved_by.setText(
            self.tr("Approved by {name}, {when}").format(
                name=breakable(explanation.revised_by), when=moment(explanation.revised_at)
            )
        )

    def _show_rows(self, study: Study, explanation: Explanation) -> None:
        against = contradicted(explanation)
        folded: list[AttributeRow] = []
        for attribute, can_edit in attributes_of(study, explanation):
            name = attribute.name
            value = explanation.attributes.get(name)
            state, tip = state_of(explanation, attribute)
            row = AttributeRow(
                Said(
                    attribute, value, state, tip, against.get(name, ""),
                    can_revert=name in explanation.edited,
                    can_approve=name in explanation.attributes and name not in explanation.approved,
                    can_edit=can_edit,
                )
            )  # fmt: skip
            row.pointed.connect(lambda *_: self._follow())
            row.changed.connect(self._edit)
            row.approved.connect(lambda name: self._revise(lambda s, e, who: approve(s, e, who, [name])))
            row.reverted.connect(lambda name: self._revise(lambda s, e, who: revert(s, e, name, who)))
            row.stepped.connect(lambda step, row=row: self._step(row, step))
            row.left.connect(self.left)
            self.rows[name] = row
            if says_something(value) or against.get(name):
                self._body.addWidget(row)
            else:
                folded.append(row)
        if len(folded) == len(self.rows):
            self._body.addWidget(label(breakable(explanation.text), wrap=True))
        if folded:
            fold = Fold(self.tr("{count} absent or not assessed").format(count=len(folded)))
            inside = QVBoxLayout(fold.body)
            box(inside, spacing=0)
            for row in folded:
                inside.addWidget(row)
            fold.toggle.setChecked(self._unfolded)
            fold.toggle.toggled.connect(self._remember_fold)
            self._body.addWidget(fold)

    def _remember_fold(self, opened: bool) -> None:
        self._unfolded = opened

    # What a row is about

    def _follow(self) -> None:
        """Show in the canvas what is pointed at; the pointer goes before the focus."""
        rows = self.rows.values()
        row = next((row for row in rows if row.underMouse() and row.isVisible()), None) or next(
            (row for row in rows if row.hasFocus() or row.editor is not None), None
        )
        scene = self._scene
        if row is None or scene is None:
            self._canvas.set_highlight(None)
            return
        region = scene.region
        if region is None:
            region = np.zeros(scene.image.shape[:2], dtype=bool)
        name = row.said.attribute.name
        self._canvas.set_highlight(highlight_of(name, row.said.value, region, self._weights.get(name)))

    def _step(self, row: AttributeRow, step: int) -> None:
        reachable = [one for one in self.rows.values() if one.isVisible()]
        place = reachable.index(row) + step if row in reachable else 0
        if 0 <= place < len(reachable):
            reachable[place].setFocus()
            if (area := self._scroll_area()) is not None:
                area.ensureWidgetVisible(reachable[place], 0, theme.HUGE)

    def _scroll_area(self) -> QScrollArea | None:
        parent = self.parentWidget()
        while parent is not None and not isinstance(parent, QScrollArea):
            parent = parent.parentWidget()
        return parent

    # Changing

    def _edit(self, name: str, value: Any) -> None:
        self._revise(lambda study, explanation, who: edit(study, explanation, name, value, who))

    def approve_all(self) -> None:
        """Confirm everything that is said."""
        if self.explanation is not None and not is_approved(self.explanation):
            self._revise(lambda study, explanation, who: approve(study, explanation, who))

    def undo(self, study: Study, revised: Revised) -> None:
        """Take a change back; where something else is stored by now, that is told and shown, and nothing changed.

        Raises
        ------
        UserError
            If it cannot be stored.
        """
        try:
            found = take_back(study, revised.after, revised.before, self._session.annotator)
        except ChangedElsewhere as error:
            self._tell(error)
        else:
            self._show_stored(found)

    def _revise(self, act: Callable[[Study, Explanation, str], Explanation]) -> None:
        study, before = self._study, self.explanation
        if study is None or before is None:
            return
        try:
            after = act(study, before, self._session.annotator)
        except UserError as error:
            self._tell(error)
            return
        self._show_stored(after)
        self.revised.emit(Revised(before, after))

    def _tell(self, error: UserError) -> None:
        self.lost.emit(str(error))
        if isinstance(error, ChangedElsewhere):
            self._show_stored(error.stored)

    def _show_stored(self, explanation: Explanation | None) -> None:
        scene = self._scene
        here = scene is not None and (
            explanation is None
            or (explanation.image_id, explanation.target_id) == (scene.image_id, scene.target_id)
        )
        if here:
            self._show(explanation)

    # Comparing

    def compare(self) -> None:
        """Open the answers of all backends side by side."""
        study, explanation = self._study, self.explanation
        if study is None or explanation is None:
            return
        dialog = CompareDialog(
            self.window(), study, explanation.image_id, explanation.target_id, self._session.annotator
        )
        dialog.used.connect(self._follow_choice)
        dialog.wanted.connect(self.wanted)
        dialog.finished.connect(lambda _: setattr(self, "_comparison", None))
        self._comparison = dialog
        dialog.open()

    def _follow_choice(self, before: Explanation, after: Explanation) -> None:
        self._show_stored(after)
        self.revised.emit(Revised(before, after))

    def _describe_again(self) -> None:
        if self._scene is not None:
            self.wanted.emit([self._scene.image_id])
