"""How the page Review is read: as usual, as a second read, or as an audit; blind, it lists what is left and no more."""

from __future__ import annotations

import secrets
from collections.abc import Iterable

from PySide6.QtCore import Qt, Signal
from PySide6.QtWidgets import QComboBox, QFrame, QHBoxLayout, QInputDialog, QVBoxLayout, QWidget

from app import theme
from app.blinding import blinded
from app.image_list import Row
from app.scene import Scene
from app.session import Session
from app.volumes import Entry
from app.widgets import IconButton, box
from gaze_capture.errors import UserError
from segmentation.blind_reading import BlindPurpose, done_by, draw_audit, not_asked_of, work_for
from segmentation.records import Key
from segmentation.review_index import Purpose
from segmentation.study import Study

USUAL_DRAW = 30
"""Images of an audit, where nobody says another number."""


class ReadingMode(QWidget):
    """A choice above the queue; a study opens with the usual review."""

    changed = Signal()
    error = Signal(str, str)

    def __init__(self, session: Session) -> None:
        super().__init__()
        self._session = session
        self._work: dict[Key, None] = {}
        self._done: set[Key] = set()
        self._not_asked = 0
        """Images of an audit that this annotator has reviewed and could not outline blind."""
        self.choice = QComboBox()
        self.choice.addItem(self.tr("Review"), "review")
        self.choice.addItem(self.tr("Second read, blind"), "second-read")
        self.choice.addItem(self.tr("Audit, blind"), "audit")
        self.choice.setToolTip(
            self.tr(
                "Second read: judge what others reviewed without seeing what they said.\n"
                "Audit: outline images drawn at random with nothing but the image in view. Neither is learned from."
            )
        )
        self.choice.setFocusPolicy(Qt.FocusPolicy.TabFocus)
        self.choice.setAccessibleName(self.tr("Purpose of reading"))
        self.draw_button = IconButton(
            "plus", self.tr("Draw images at random for an audit"), on_click=self.draw
        )
        self.draw_button.hide()
        row = QHBoxLayout(self)
        box(row, margins=(theme.WIDE, theme.WIDE, theme.WIDE, 0), spacing=theme.SMALL)
        row.addWidget(self.choice, 1)
        row.addWidget(self.draw_button)
        self.choice.currentIndexChanged.connect(lambda _: self._choose())
        session.changed.connect(self._follow)

    def place_above(self, panel: QFrame) -> None:
        """Take the first place in a panel whose parts lie below each other."""
        layout = panel.layout()
        assert isinstance(layout, QVBoxLayout)
        layout.insertWidget(0, self)

    @property
    def purpose(self) -> Purpose:
        """Why reviews are made now."""
        purpose: Purpose = self.choice.currentData()
        return purpose

    @property
    def blind_purpose(self) -> BlindPurpose | None:
        """The same, or None in the usual review."""
        purpose = self.purpose
        return purpose if purpose == "second-read" or purpose == "audit" else None

    @property
    def blind(self) -> bool:
        """Whether what others said must not be seen."""
        return self.blind_purpose is not None

    def _follow(self, what: str) -> None:
        if what == "study":
            self.choice.setCurrentIndex(0)
        elif what == "annotator" and self.blind:
            self._choose()

    def _choose(self) -> None:
        self.draw_button.setVisible(self.purpose == "audit")
        self.changed.emit()

    def draw(self) -> None:
        """Ask how many images are drawn for an audit, and draw them."""
        study = self._session.study
        if study is None or not study.images:
            return
        most = len(study.images)
        count, agreed = QInputDialog.getInt(
            self,
            self.tr("Audit"),
            self.tr("Images drawn at random from all {n}:").format(n=most),
            min(USUAL_DRAW, most),
            1,
            most,
        )
        if agreed:
            try:
                draw_audit(study, count, secrets.randbelow(2**31))
            except UserError as error:
                self.error.emit(str(error), "")
                return
            self.changed.emit()

    # What is read

    def look(self, study: Study) -> None:
        """Read anew what the annotator is asked to read, and what of it is done; `error` tells what cannot be read."""
        purpose = self.blind_purpose
        if purpose is None:
            self._work, self._done, self._not_asked = {}, set(), 0
            return
        annotator = self._session.annotator
        try:
            self._work = dict.fromkeys(work_for(study, annotator, purpose))
            self._done = done_by(study, annotator, purpose)
            skipped = not_asked_of(study, annotator) if purpose == "audit" else []
            self._not_asked = len({image_id for image_id, _ in skipped})
        except UserError as error:
            # Nothing is asked for then; the page goes on hiding what it must.
            self._work, self._done, self._not_asked = {}, set(), 0
            self.error.emit(str(error), "")

    def refusal(self, image_id: str, target_id: str) -> str:
        """Return why a target in an image is not to be read, in a sentence; empty where it may be."""
        if not self.blind or (image_id, target_id) in self._work:
            return ""
        return self.tr("This is not among what you are asked to read; the list shows what is.")

    def first_left(self) -> Key | None:
        """Return what is to be read first, or None where nothing is left."""
        return next((key for key in self._work if key not in self._done), None)

    def entries(self, study: Study, usual: Iterable[Entry]) -> list[Entry]:
        """Return what is listed: blind, the images left and done in the order to read them, each slice by itself."""
        if not self.blind:
            return list(usual)
        target = self._session.target_id
        images = (study.images[name] for name, of in self._work if of == target)
        return [Entry(image, image.source_name, (image.id,)) for image in images]

    def row(self, entry: Entry, target_id: str) -> Row:
        """Return an image as it is listed blind: nothing but whether this annotator has read it."""
        done = (entry.image.id, target_id) in self._done
        state = (self.tr("Read"), "accent") if done else (self.tr("To read"), "warning")
        return Row(entry.image.id, entry.name, entry.image, *state)

    def nothing_left(self) -> str:
        """Return why nothing is left to be read blind, in a sentence; empty where something is."""
        if not self.blind or self.first_left() is not None:
            return ""
        if self._work:
            return self.tr("Nothing is left to read. What was read can be chosen in the list and read again.")
        if self.purpose == "audit":
            told = self.tr("There is nothing to outline: draw images with + first.")
            return " ".join([told, *self._seen()])
        return self.tr("There is nothing to read: nobody else has reviewed an image yet.")

    def _seen(self) -> list[str]:
        if not self._not_asked:
            return []
        told = self.tr("Images drawn that you have reviewed before and are not asked for: {n:,}.")
        return [told.format(n=self._not_asked)]

    def sentences(self) -> list[str]:
        """Return what a blind reader should know."""
        if self.purpose == "audit":
            return [
                self.tr("Outline what you see, or say that nothing is here. Every mask is hidden."),
                self.tr("What you draw is measured against, and never learned from."),
                *self._seen(),
            ]
        if self.purpose == "second-read":
            return [
                self.tr(
                    "What others said is hidden. Your verdict is compared with theirs; it decides nothing."
                )
            ]
        return []

    def progress(self) -> str:
        """Return how much is done, in words."""
        done = sum(key in self._done for key in self._work)
        return self.tr("{done:,} of {all:,} read").format(done=done, all=len(self._work))

    def nothing_to_judge(self) -> str:
        """Return why an image is neither accepted nor rejected, and what can be said of it."""
        if self.purpose == "audit":
            return self.tr(
                "An audit shows no mask to accept or reject: E outlines, 0 says that nothing is here."
            )
        return self.tr("There is no mask to accept or reject yet: E draws one, 0 says that nothing is here.")

    def last_words(self, rows: Iterable[Row]) -> str:
        """Return what is told where the list ends; `rows` are all, whatever the filter."""
        told = self.tr("That was the last image of the list.")
        if self.blind:
            left, words = len(self._work.keys() - self._done), self.tr("{n:,} are still to be read.")
        else:
            left = sum(row.state_name == "waiting" for row in rows)
            words = self.tr("{n:,} still wait for a verdict.")
        return f"{told} {words.format(n=left)}" if left else told

    def shown(self, scene: Scene) -> Scene:
        """Return what may be seen of a scene."""
        return blinded(scene, self.purpose)
