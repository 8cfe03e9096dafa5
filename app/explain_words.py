"""The part of the explain dialog for one's own words: typed, understood as they are typed, kept, and on."""

from __future__ import annotations

from PySide6.QtCore import Qt, Signal
from PySide6.QtGui import QKeyEvent
from PySide6.QtWidgets import QComboBox, QHBoxLayout, QPlainTextEdit, QVBoxLayout, QWidget

from app import theme
from app.description_rows import breakable, value_in_words
from app.dialogs import Row, narrow
from app.widgets import Button, ElidedLabel, box, clear, label, set_role
from gaze_capture.errors import UserError
from segmentation.explaining import explain_in_own_words
from segmentation.explanation_presets import CANNOT_ASSESS, Preset
from segmentation.explanation_settings import ExplanationSettings, preset_for
from segmentation.own_words_reading import read_own_words
from segmentation.own_words_store import latest, load_words, voice_notes
from segmentation.study import Study


class _Text(QPlainTextEdit):
    saved = Signal()

    def keyPressEvent(self, event: QKeyEvent) -> None:
        """Ctrl+Enter saves; Tab leaves the field."""
        control = event.modifiers() & Qt.KeyboardModifier.ControlModifier
        if control and event.key() in (Qt.Key.Key_Return, Qt.Key.Key_Enter):
            self.saved.emit()
        else:
            super().keyPressEvent(event)


class WordsForm(QWidget):
    """What the annotator says of the current image."""

    saved = Signal(str)
    """The image whose words were kept."""
    read_wanted = Signal()
    """All words that are kept are to be read anew."""

    def __init__(self, study: Study, drafts: dict[tuple[str, ...], str]) -> None:
        super().__init__()
        self._study, self._drafts = study, drafts
        self._kept = ""
        self._key: tuple[str, ...] = ()
        self._image_id = ""
        self._target_id = ""
        self._annotator = ""
        self._preset: Preset | None = None
        layout = QVBoxLayout(self)
        box(layout, spacing=theme.NORMAL)
        self.about = ElidedLabel("", "muted")
        self.text = _Text()
        self.text.setPlaceholderText(self.tr("A single oval lesion, centre left, well demarcated, reddish…"))
        self.text.setTabChangesFocus(True)
        self.text.setAccessibleName(self.tr("What you see"))
        self.text.setMinimumHeight(96)
        self.text.saved.connect(self.save)
        self.note = narrow(QComboBox())
        self.note_row = Row(
            self.tr("Voice note"),
            self.note,
            self.tr("Listen to it and type its words: no speech is recognised."),
        )
        self.state = label("", "muted", wrap=True)
        self.save_button = Button(self.tr("Save, and on to the next"), "check", on_click=self.save)
        self.save_button.setToolTip(self.tr("Ctrl+Enter"))
        self.read_button = Button(
            self.tr("Read all words again"), role="plain", on_click=self.read_wanted.emit
        )
        self.read_button.setToolTip(
            self.tr("Make the chosen images' descriptions from the words that are kept")
        )
        for button in (self.save_button, self.read_button):
            button.setAutoDefault(False)
        buttons = QHBoxLayout()
        box(buttons, spacing=theme.NORMAL)
        buttons.addWidget(self.save_button)
        buttons.addWidget(self.read_button)
        buttons.addStretch(1)
        self.understood = QVBoxLayout()
        box(self.understood, spacing=2)
        self.rows: dict[str, str] = {}
        layout.addWidget(self.about)
        layout.addWidget(self.text, 1)
        layout.addWidget(self.note_row)
        layout.addLayout(buttons)
        layout.addWidget(self.state)
        layout.addWidget(label(self.tr("Understood"), "muted"))
        layout.addLayout(self.understood)
        self.text.textChanged.connect(self._read)

    def show_image(
        self, image_id: str | None, target_id: str, annotator: str, settings: ExplanationSettings
    ) -> None:
        """Show what was said of an image, or what was begun to be typed of it."""
        key = (str(self._study.folder), image_id or "", target_id, annotator)
        same, self._key = key == self._key, key
        self._image_id, self._target_id, self._annotator = image_id or "", target_id, annotator
        self.setEnabled(bool(image_id))
        self._preset = None
        problem, words, notes = "", "", []
        if image_id:
            try:
                self._preset = preset_for(self._study, self._study.image(image_id), settings)
                own = latest(load_words(self._study, image_id, target_id), annotator)
                words = own.words if own is not None else ""
                notes = voice_notes(self._study, image_id, target_id)
            except UserError as error:
                problem = str(error)
        target = self._study.target(target_id).name if image_id else ""
        self.about.setText(
            self.tr("{image} · {target}").format(image=image_id, target=target) if image_id else ""
        )
        if not same:
            self._kept, words = words, self._drafts.get(key, words)
            self.text.setPlainText(words)
            self.note.clear()
            self.note.addItem(self.tr("typed, no note"), "")
            for note in notes:
                self.note.addItem(note, note)
            self.note_row.setVisible(bool(notes))
        self._say(problem, "danger")
        self._read()

    def _read(self) -> None:
        clear(self.understood)
        self.rows = {}
        words = self.text.toPlainText()
        if words != self._kept:
            self._drafts[self._key] = words
        else:
            self._drafts.pop(self._key, None)
        self.save_button.setEnabled(bool(words.strip()) and bool(self._image_id))
        if self._preset is None:
            return
        target = self._study.target(self._target_id).name
        said = read_own_words(words, self._preset, target) if words.strip() else {}
        for one in self._preset.attributes:
            value = said.get(one.name)
            if one.name == "remarks" or value in (None, "", CANNOT_ASSESS):
                continue
            self.rows[one.name] = value_in_words(value, one.kind)
            row = QWidget()
            line = QHBoxLayout(row)
            box(line, spacing=theme.NORMAL)
            name = label(one.name.replace("_", " "), "muted")
            name.setFixedWidth(132)
            line.addWidget(name)
            line.addWidget(label(breakable(self.rows[one.name]), wrap=True), 1)
            self.understood.addWidget(row)
        if not self.rows:
            nothing = (
                self.tr("Nothing yet.")
                if not words.strip()
                else self.tr("No attribute; the words are kept as remarks.")
            )
            self.understood.addWidget(label(nothing, "muted", wrap=True))

    def save(self) -> None:
        """Keep the words, let them be the description that counts, and go on."""
        words = self.text.toPlainText().strip()
        if not words or not self._image_id:
            return
        image_id = self._image_id
        try:
            made = explain_in_own_words(
                self._study,
                image_id,
                self._target_id,
                self._annotator,
                words,
                str(self.note.currentData() or ""),
            )
        except UserError as error:
            self._say(str(error), "danger")
            return
        self._kept = self.text.toPlainText()
        self._drafts.pop(self._key, None)
        kept = (
            self.tr("Kept for {image}.")
            if made is not None
            else self.tr("Kept for {image}; read once it has a pseudo-mask.")
        )
        self.saved.emit(image_id)
        self._say(kept.format(image=image_id), "muted")

    def _say(self, sentence: str, role: str) -> None:
        set_role(self.state, role)
        self.state.setText(breakable(sentence))
        self.state.setVisible(bool(sentence))
