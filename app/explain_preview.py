"""What a model would be shown of the current image, made off the window's thread: the exact picture and words."""

from __future__ import annotations

from dataclasses import dataclass

from PySide6.QtCore import Qt, Signal
from PySide6.QtWidgets import QHBoxLayout, QPlainTextEdit, QStackedWidget, QVBoxLayout, QWidget

from app import theme
from app.description_rows import breakable, value_in_words
from app.latest import Latest
from app.picture_view import PictureView
from app.widgets import Button, box, heading, label
from gaze_capture.errors import UserError
from segmentation.explainers.backend import Answer, Answered
from segmentation.explainers.by_measuring import MeasuredBackend
from segmentation.explaining import question_about
from segmentation.explanation_presets import ABSENT, CANNOT_ASSESS
from segmentation.explanation_settings import ExplanationSettings
from segmentation.gaze_view import Shown, shown
from segmentation.questions import Question
from segmentation.study import Study


@dataclass(frozen=True)
class Seen:
    """What was made for the preview."""

    question: Question
    shown: Shown
    measured: tuple[tuple[str, str], ...] = ()
    """What is measured: attribute and value in words."""


def look(study: Study, image_id: str, target_id: str, settings: ExplanationSettings, measure: bool) -> Seen:
    """Make the picture and the words of one image as they would be sent.

    Raises
    ------
    UserError
        If there is nothing to show, with the reason.
    """
    image, target = study.image(image_id), study.target(target_id)
    if study.presence(image_id, target_id) == ABSENT:
        raise UserError(f"Of {image_id} it was said that the target is absent; no model is asked about it.")
    if study.pseudomask(image_id, target_id) is None:
        raise UserError(f"{image_id} has no pseudo-mask yet: there is no region to describe.")
    question = question_about(study, image, target, settings)
    rows: tuple[tuple[str, str], ...] = ()
    if measure:
        with MeasuredBackend() as backend:
            answered = next(iter(backend.answers(iter([question]))))
        if isinstance(answered, Answered) and isinstance(answered.result, UserError):
            raise answered.result
        assert isinstance(answered, Answered) and isinstance(answered.result, Answer)
        said = answered.result.attributes
        rows = tuple(
            (one.name.replace("_", " "), value_in_words(said[one.name], one.kind))
            for one in question.preset.attributes
            if said.get(one.name) not in (None, "", [], CANNOT_ASSESS)
        )
    return Seen(question, shown(question), rows)


class Preview(QWidget):
    """The current image as a model is shown it, or what is measured of it."""

    made = Signal(object)
    """A Seen, or None where there is nothing to show."""

    def __init__(self) -> None:
        super().__init__()
        self.seen: Seen | None = None
        self._latest = Latest(self)
        self._latest.answered.connect(self._show)
        self._latest.failed.connect(self._fail)
        self._kind, self._measure = "measured", True
        self._wanted = False
        layout = QVBoxLayout(self)
        box(layout, spacing=theme.NORMAL)
        self.title = heading("", 16)
        self.subtitle = label("", "muted", wrap=True)
        self.picture = PictureView()
        self.state = label("", "muted", wrap=True)
        self.words = QPlainTextEdit()
        self.words.setReadOnly(True)
        self.words.setAccessibleName(self.tr("The words that are sent"))
        self.facts = label("", "muted", wrap=True)
        self.notes = label("", "warning", wrap=True)
        self.picture_button = self._tab(self.tr("Picture"), "left", 0)
        self.words_button = self._tab(self.tr("Words"), "", 1)
        tabs = QHBoxLayout()
        box(tabs, spacing=0)
        tabs.addWidget(self.title, 1)
        tabs.addWidget(self.picture_button)
        tabs.addWidget(self.words_button)
        self._stack = QStackedWidget()
        self._stack.addWidget(self.picture)
        self._stack.addWidget(self.words)
        self.nothing = label("", "muted", wrap=True)
        self.nothing.setAlignment(Qt.AlignmentFlag.AlignCenter)
        self._stack.addWidget(self.nothing)
        self._page = 0
        layout.addLayout(tabs)
        layout.addWidget(self.subtitle)
        layout.addWidget(self._stack, 1)
        layout.addWidget(self.state)
        layout.addWidget(self.facts)
        layout.addWidget(self.notes)
        self._turn(0)

    def _tab(self, text: str, side: str, page: int) -> Button:
        button = Button(text, role="segment", on_click=lambda: self._turn(page))
        button.setProperty("side", side)
        button.setCheckable(True)
        button.setAutoDefault(False)
        return button

    def _turn(self, page: int) -> None:
        self._page = page
        self._stack.setCurrentIndex(page if self.seen is not None else self._stack.indexOf(self.nothing))
        self.picture_button.setChecked(page == 0)
        self.words_button.setChecked(page == 1)

    def name(self, kind: str) -> None:
        """Say what a backend's preview is."""
        sends = kind in ("openai", "transformers")
        self._measure = kind == "measured"
        self._kind = kind
        self.title.setText(
            self.tr("What the model is shown")
            if sends
            else self.tr("What is measured")
            if self._measure
            else self.tr("The region that was looked at")
        )
        for button in (self.picture_button, self.words_button):
            button.setVisible(kind != "annotator")
        self.words_button.setText(self.tr("Words") if sends else self.tr("Attributes"))
        if kind == "annotator":
            self._turn(0)

    def ask(
        self, study: Study, image_id: str, target_id: str, settings: ExplanationSettings, kind: str
    ) -> None:
        """Make the preview for an image and a backend; an earlier one still being made is dropped."""
        self.name(kind)
        sends, measure = kind in ("openai", "transformers"), self._measure
        self.subtitle.setText(
            breakable(image_id)
            if sends
            else self.tr("{image}. No model is asked, and nothing leaves this computer.").format(
                image=breakable(image_id)
            )
        )
        self._wanted = True
        self._say(self.tr("Being made…"))
        self._latest.ask(lambda: look(study, image_id, target_id, settings, measure))

    def _say(self, sentence: str) -> None:
        self.state.setText(sentence)
        self.state.setVisible(bool(sentence))

    def show_nothing(self, sentence: str) -> None:
        """Say why there is no preview."""
        self._wanted = False
        self.seen = None
        self.picture.show_picture(b"")
        self.words.setPlainText("")
        self.facts.hide()
        self.notes.hide()
        self.nothing.setText(sentence)
        self._turn(self._page)
        self._say("")
        self.made.emit(None)

    def _show(self, seen: object) -> None:
        assert isinstance(seen, Seen)
        if not self._wanted:
            return
        self.seen = seen
        self._turn(self._page)
        self.picture.show_picture(seen.shown.picture_png)
        lines = [f"{name}: {value}" for name, value in seen.measured]
        self.words.setPlainText("\n".join(lines) if self._measure else seen.shown.prompt)
        self._say("")
        size = self.tr("{width} × {height} px, {kb:,.0f} KB, {words:,} characters of words").format(
            width=seen.shown.width,
            height=seen.shown.height,
            kb=max(1, len(seen.shown.picture_png) / 1024),
            words=len(seen.shown.prompt),
        )
        measured = " · ".join(f"{name}: {value}" for name, value in seen.measured)
        self.facts.setText({"measured": measured, "annotator": ""}.get(self._kind, size))
        self.facts.setVisible(bool(self.facts.text()))
        self.notes.setText("\n".join(seen.shown.notes))
        sends = self._kind in ("openai", "transformers")
        self.notes.setVisible(sends and bool(seen.shown.notes))
        self.made.emit(seen)

    def _fail(self, sentence: str, _details: str) -> None:
        self.show_nothing(breakable(sentence))

    @property
    def pending(self) -> bool:
        """Whether something is being made."""
        return self._latest.pending

    def stop(self) -> None:
        """End the thread."""
        self._latest.stop()
