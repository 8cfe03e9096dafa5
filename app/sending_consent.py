"""Consent to send a study's images to another machine, in front of the exact pixels and words that would leave."""

from __future__ import annotations

from dataclasses import dataclass

from PySide6.QtCore import Signal
from PySide6.QtWidgets import QCheckBox, QGridLayout, QHBoxLayout, QPlainTextEdit, QVBoxLayout, QWidget

from app import theme
from app.description_rows import breakable
from app.dialogs import Dialog
from app.explain_preview import Seen
from app.picture_view import PictureView
from app.widgets import Button, IconLabel, box, heading, label
from gaze_capture.errors import UserError
from segmentation.sending import Permission, give_permission, host_of, withdraw_permission
from segmentation.study import Study


@dataclass(frozen=True)
class Sending:
    """What would be sent, and where."""

    base_url: str
    model: str
    """Empty where the server offers one only."""
    images: int
    has_key: bool


class SendingConsent(Dialog):
    """Shows what would leave and asks for it, or shows since when it may, and withdraws. No is the default."""

    given = Signal(object)
    """The Permission, stored."""
    withdrawn = Signal()

    def __init__(
        self,
        parent: QWidget | None,
        study: Study,
        annotator: str,
        sending: Sending,
        seen: Seen,
        standing: Permission | None = None,
    ) -> None:
        super().__init__(parent, self.tr("Send images to another computer?"), scrolls=False)
        self._study, self._annotator, self._sending, self._seen = study, annotator, sending, seen
        self.body.setSpacing(theme.NORMAL)
        host = host_of(sending.base_url)
        head = QHBoxLayout()
        box(head, spacing=theme.NORMAL)
        head.addWidget(IconLabel("globe" if standing is None else "lock-open", "warning", 24))
        title = (
            self.tr("Images of this study would leave this computer")
            if standing is None
            else self.tr("Images of this study may leave this computer")
        )
        head.addWidget(heading(title, 16), 1)
        self.body.addLayout(head)
        self.body.addWidget(self._facts(host, standing))
        halves = QHBoxLayout()
        box(halves, spacing=theme.WIDE)
        self.picture = PictureView(fitted=False)
        self.picture.show_picture(seen.shown.picture_png)
        self.picture.full_size()
        self.words = QPlainTextEdit(seen.shown.prompt)
        self.words.setReadOnly(True)
        self.words.setAccessibleName(self.tr("The words that leave"))
        self.zoom_label = label("100 %", "muted")
        self.picture.zoomed.connect(lambda zoom: self.zoom_label.setText(f"{zoom:.0%}"))
        self.fit_button = Button(self.tr("Fit"), role="plain", on_click=self.picture.fit)
        self.full_button = Button(self.tr("Full size"), role="plain", on_click=self.picture.full_size)
        for button in (self.fit_button, self.full_button):
            button.setAutoDefault(False)
        above = QHBoxLayout()
        box(above, spacing=theme.SMALL)
        size = self.tr("The very picture, {width} × {height} px").format(
            width=seen.shown.width, height=seen.shown.height
        )
        above.addWidget(label(size, "muted"), 1)
        above.addWidget(self.zoom_label)
        above.addWidget(self.fit_button)
        above.addWidget(self.full_button)
        left, right = QVBoxLayout(), QVBoxLayout()
        for column in (left, right):
            box(column, spacing=theme.SMALL)
        left.addLayout(above)
        left.addWidget(self.picture, 1)
        words = label(
            self.tr("The very words, {count:,} characters").format(count=len(seen.shown.prompt)), "muted"
        )
        words.setMinimumHeight(theme.CONTROL_HEIGHT)
        right.addWidget(words)
        right.addWidget(self.words, 1)
        halves.addLayout(left, 3)
        halves.addLayout(right, 2)
        self.body.addLayout(halves, 1)
        notes = label("\n".join(seen.shown.notes), "warning", wrap=True)
        notes.setVisible(bool(seen.shown.notes))
        self.body.addWidget(notes)
        self.looked = QCheckBox(self.tr("I have looked at the picture: it shows no name or date"))
        self.looked.setVisible(standing is None)
        self.body.addWidget(self.looked)
        if standing is None:
            self.no_button = self.add_button(self.tr("Do not send"), self.reject)
            self.allow_button = self.add_button(self.tr("Allow"), self._allow)
            self.allow_button.setEnabled(False)
            self.looked.toggled.connect(self.allow_button.setEnabled)
        else:
            self.withdraw_button = Button(self.tr("Withdraw permission"), on_click=self._withdraw)
            self.withdraw_button.setAutoDefault(False)
            self.foot_left.addWidget(self.withdraw_button)
            self.no_button = self.add_button(self.tr("Close"), self.reject)
        self.no_button.setAutoDefault(True)
        self.no_button.setDefault(True)
        room = parent.window().size() if parent is not None else None
        self.resize(1120 if room is None else min(1120, room.width() - 40), 720)
        self.no_button.setFocus()

    def _facts(self, host: str, standing: Permission | None) -> QWidget:
        sending = self._sending
        encrypted = host.startswith("https:")
        rows = [
            (
                self.tr("To"),
                breakable(host)
                + " · "
                + (
                    self.tr("encrypted")
                    if encrypted
                    else self.tr("NOT encrypted: others on the way can read it")
                ),
                "" if encrypted else "danger",
            ),
            (self.tr("Model"), breakable(sending.model) or self.tr("the one the server offers"), ""),
            (
                self.tr("What leaves"),
                self.tr(
                    "A picture and words like these, of {count:,} images, without metadata. This one is {image}."
                ).format(count=sending.images, image=breakable(self._seen.question.image.id)),
                "",
            ),
            (
                self.tr("What never leaves"),
                self.tr(
                    "File names, image ids, DICOM tags, the annotator, masks, recordings, images not chosen. "
                    "Whether the server keeps what it gets is up to who runs it."
                ),
                "",
            ),
            (
                self.tr("Key"),
                self.tr("The one stored for this address is sent along.")
                if sending.has_key
                else self.tr("None is sent."),
                "",
            ),
        ]
        if standing is not None:
            since = self.tr("{name}, since {when}. It holds for this address and this way of showing images.")
            rows.append(
                (
                    self.tr("Allowed by"),
                    since.format(
                        name=breakable(standing.given_by), when=standing.given_at[:16].replace("T", " ")
                    ),
                    "",
                )
            )
        whole = QWidget()
        grid = QGridLayout(whole)
        box(grid, spacing=theme.SMALL)
        grid.setHorizontalSpacing(theme.WIDE)
        grid.setColumnStretch(1, 1)
        for row, (name, text, role) in enumerate(rows):
            grid.addWidget(label(name, "muted"), row, 0)
            grid.addWidget(label(text, role, wrap=True), row, 1)
        return whole

    def _allow(self) -> None:
        try:
            permission = give_permission(
                self._study, self._sending.base_url, self._annotator, self._seen.shown, self._seen.question
            )
        except UserError as error:
            self.show_problem(str(error))
            return
        self.accept()
        self.given.emit(permission)

    def _withdraw(self) -> None:
        try:
            withdraw_permission(self._study, self._sending.base_url, self._annotator)
        except UserError as error:
            self.show_problem(str(error))
            return
        self.accept()
        self.withdrawn.emit()
