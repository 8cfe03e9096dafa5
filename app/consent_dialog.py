"""Consent to being recorded: read before an annotator's first recording in a study, and withdrawn here, too."""

from __future__ import annotations

from PySide6.QtCore import Signal
from PySide6.QtGui import QTextCursor, QTextDocument
from PySide6.QtWidgets import QCheckBox, QHBoxLayout, QLineEdit, QTextBrowser, QWidget

from app import theme
from app.dialogs import Dialog, Row
from app.widgets import Button, box
from gaze_capture.errors import UserError
from segmentation.consent import (
    consent_of,
    consent_text,
    give_consent,
    has_consented,
    suggested_id,
    withdraw_consent,
)
from segmentation.study import Study


def space_out(document: QTextDocument) -> None:
    """Set a document's paragraphs apart: Qt sets those of Markdown close together."""
    cursor = QTextCursor(document)
    block = document.begin()
    while block.isValid():
        cursor.setPosition(block.position())
        spaced = block.blockFormat()
        spaced.setBottomMargin(theme.NORMAL)
        cursor.setBlockFormat(spaced)
        block = block.next()


class ConsentDialog(Dialog):
    """Asks for consent, or shows the one that was given. Show it where ``has_consented(study, annotator)`` is false.

    Raises
    ------
    UserError
        If the study's own text, or a stored consent, cannot be read.
    """

    given = Signal(str)
    """The annotator who agreed, under the id they chose; stored."""
    withdrawn = Signal(str)

    def __init__(self, parent: QWidget | None, study: Study, annotator: str) -> None:
        super().__init__(parent, self.tr("Consent"), " ", scrolls=False)
        self._study = study
        self._text = consent_text(study)
        self.text = QTextBrowser()
        self.text.setOpenLinks(False)
        self.text.setAccessibleName(self.tr("Consent"))
        self.text.document().setDocumentMargin(theme.LARGE)
        self.text.setMarkdown(self._text.markdown)
        space_out(self.text.document())
        self.annotator = QLineEdit(annotator)
        self.suggest_button = Button(self.tr("Suggest one"), on_click=self._suggest)
        self.suggest_button.setAutoDefault(False)
        self.suggest_button.setToolTip(self.tr("An id that tells nobody who you are"))
        named = QWidget()
        row = QHBoxLayout(named)
        box(row, spacing=theme.NORMAL)
        row.addWidget(self.annotator, 1)
        row.addWidget(self.suggest_button)
        named.setFocusProxy(self.annotator)
        self.agree_tick = QCheckBox(self.tr("I have read this, and agree to being recorded under this id"))
        self.body.addWidget(self.text, 1)
        self.body.addWidget(Row(self.tr("Annotator's id"), named, self.tr("A pseudonym, not your name.")))
        self.body.addWidget(self.agree_tick)
        self.withdraw_button = Button(self.tr("Withdraw consent"), on_click=self._withdraw)
        self.withdraw_button.setAutoDefault(False)
        self.foot_left.addWidget(self.withdraw_button)
        self.decline_button = self.add_button(self.tr("Decline"), self.reject)
        self.agree_button = self.add_button(self.tr("Agree"), self._agree, "primary")
        self.annotator.textChanged.connect(lambda _: self._show())
        self.agree_tick.toggled.connect(lambda _: self._show())
        self.resize(720, 640)
        self._show()
        self.text.setFocus()

    def _show(self) -> None:
        annotator = self.annotator.text().strip()
        self.show_problem("")
        try:
            consent, agreed = consent_of(self._study, annotator), has_consented(self._study, annotator)
        except UserError as error:
            consent, agreed = None, False
            self.show_problem(str(error))
        if consent is None:
            sentence = self.tr("Where you look is recorded only if you agree.")
        elif consent.withdrawn_at is not None:
            sentence = self.tr(
                "You withdrew your consent on {date}. Nothing is recorded unless you agree again."
            )
            sentence = sentence.format(date=consent.withdrawn_at[:10])
        elif not agreed:
            sentence = self.tr("The text has changed since you agreed on {date}: please read it again.")
            sentence = sentence.format(date=consent.given_at[:10])
        else:
            sentence = self.tr("{name} agreed to version {version} on {date}.").format(
                name=annotator, version=consent.version, date=consent.given_at[:10]
            )
        self.sentence.setText(sentence)
        self.agree_tick.setVisible(not agreed)
        self.withdraw_button.setVisible(agreed)
        self.agree_button.setText(self.tr("Go on") if agreed else self.tr("Agree"))
        self.decline_button.setText(self.tr("Close") if agreed else self.tr("Decline"))
        self.agree_button.setEnabled(bool(annotator) and (agreed or self.agree_tick.isChecked()))

    def _suggest(self) -> None:
        self.annotator.setText(suggested_id())

    def _agree(self) -> None:
        annotator = self.annotator.text().strip()
        try:
            if not has_consented(self._study, annotator):
                give_consent(self._study, annotator, self._text)
        except UserError as error:
            self.show_problem(str(error))
            return
        self.accept()
        self.given.emit(annotator)

    def _withdraw(self) -> None:
        annotator = self.annotator.text().strip()
        try:
            withdraw_consent(self._study, annotator)
        except UserError as error:
            self.show_problem(str(error))
            return
        self.agree_tick.setChecked(False)
        self._show()
        self.withdrawn.emit(annotator)
