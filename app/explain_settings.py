"""How the images of a study are explained: preset, what is drawn, what is said; each change shows in the preview."""

from __future__ import annotations

import dataclasses
from pathlib import Path

from PySide6.QtCore import Signal
from PySide6.QtWidgets import QCheckBox, QComboBox, QFileDialog, QHBoxLayout, QSpinBox, QVBoxLayout, QWidget

from app import theme
from app.description_rows import breakable
from app.dialogs import Row, in_background, narrow
from app.widgets import Button, ElidedLabel, box, label
from gaze_capture.errors import UserError
from segmentation.explanation_presets import load_preset, preset_ids
from segmentation.explanation_settings import (
    DRAWN,
    MINILM,
    ExplanationSettings,
    ViewSettings,
    load_settings,
    save_settings,
)
from segmentation.study import Study


class SettingsForm(QWidget):
    """The study's explanation settings; `problem` says why they cannot be used as they are."""

    changed = Signal()

    def __init__(self, study: Study) -> None:
        super().__init__()
        self._study = study
        self.problem = ""
        self._filling = False
        self.stored = ExplanationSettings()
        layout = QVBoxLayout(self)
        box(layout, spacing=theme.NORMAL)
        self.preset = narrow(QComboBox())
        self._preset_row = Row(self.tr("Preset"), self.preset)
        self._stated_box = QHBoxLayout()
        box(self._stated_box, spacing=theme.WIDE)
        stated = QWidget()
        stated.setLayout(self._stated_box)
        self.stated_row = Row(self.tr("Technique"), stated)
        self.stated: dict[str, QCheckBox] = {}
        self.drawn = QComboBox()
        words = (self.tr("Contour"), self.tr("Heatmap"), self.tr("Heatmap and contour"), self.tr("Nothing"))
        for word, value in zip(words, ("contour", "heatmap", "both", "nothing"), strict=True):
            assert value in DRAWN
            self.drawn.addItem(word, value)
        self.side = QSpinBox()
        self.side.setRange(64, 4096)
        self.side.setSingleStep(64)
        self.side.setSuffix(self.tr(" px"))
        self.side.setKeyboardTracking(False)
        self.crop = QCheckBox(self.tr("Cropped, with a margin of"))
        self.margin = QSpinBox()
        self.margin.setRange(0, 1000)
        self.margin.setSingleStep(10)
        self.margin.setSuffix(self.tr(" %"))
        self.margin.setAccessibleName(self.tr("Margin around the region"))
        self.fixations = QCheckBox(self.tr("Tell the longest fixations in words"))
        self.mask_text = QCheckBox(self.tr("Blank what looks like text in the pixels"))
        crop = self._beside(self.crop, self.margin)
        layout.addWidget(self._preset_row)
        layout.addWidget(self.stated_row)
        self.view_part = QWidget()
        view = QVBoxLayout(self.view_part)
        box(view, spacing=theme.NORMAL)
        drawn = self._beside(self.drawn, label(self.tr("at most"), "muted"), self.side, stretch=0)
        view.addWidget(Row(self.tr("Gaze drawn as"), drawn))
        ticks = QWidget()
        column = QVBoxLayout(ticks)
        box(column, spacing=0)
        for widget in (crop, self.fixations, self.mask_text):
            column.addWidget(widget)
        view.addWidget(Row(self.tr("Picture, words"), ticks))
        layout.addWidget(self.view_part)
        self.encoder = EncoderRow(study)
        layout.addWidget(self.encoder)
        self.save_button = Button(self.tr("Save for this study"), on_click=self._save)
        self.undo_button = Button(self.tr("Undo"), role="plain", on_click=self.load)
        for button in (self.save_button, self.undo_button):
            button.setAutoDefault(False)
        self.unsaved = label(self.tr("Not saved yet; describing saves it."), "muted")
        self.save_row = self._beside(self.unsaved, self.undo_button, self.save_button, stretch=0)
        layout.addWidget(self.save_row)
        self.preset.currentIndexChanged.connect(lambda _: self._choose_preset())
        self.drawn.currentIndexChanged.connect(lambda _: self._change())
        self.side.valueChanged.connect(lambda _: self._change())
        self.margin.valueChanged.connect(lambda _: self._change())
        for tick in (self.crop, self.fixations, self.mask_text):
            tick.toggled.connect(lambda _: self._change())
        self.load()

    @staticmethod
    def _beside(*widgets: QWidget, stretch: int = -1) -> QWidget:
        whole = QWidget()
        row = QHBoxLayout(whole)
        box(row, spacing=theme.NORMAL)
        for place, widget in enumerate(widgets):
            row.addWidget(widget, 1 if place == stretch else 0)
        if stretch < 0:
            row.addStretch(1)
        return whole

    def load(self) -> None:
        """Show what the study has stored."""
        self._filling = True
        damaged = ""
        try:
            self.stored = load_settings(self._study)
        except UserError as error:
            damaged, self.stored = str(error), ExplanationSettings()
        self.preset.clear()
        for name in preset_ids(self._study.folder):
            try:
                title = load_preset(name, self._study.folder).title
            except UserError:
                title = self.tr("{name} (damaged)").format(name=name)
            self.preset.addItem(title, name)
        if self.preset.findData(self.stored.preset) < 0:
            self.preset.addItem(
                self.tr("{name} (missing)").format(name=self.stored.preset), self.stored.preset
            )
        self.preset.setCurrentIndex(self.preset.findData(self.stored.preset))
        view = self.stored.view
        self.drawn.setCurrentIndex(self.drawn.findData(view.drawn))
        self.side.setValue(view.side_px)
        self.crop.setChecked(view.crop_margin is not None)
        self.margin.setValue(round(100 * (0.2 if view.crop_margin is None else view.crop_margin)))
        self.fixations.setChecked(view.fixations_in_words)
        self.mask_text.setChecked(view.mask_text)
        self._list_stated(self.stored.stated)
        self._filling = False
        self._change()
        if damaged:
            self.problem = damaged
            self._preset_row.set_hint(breakable(damaged), "danger")

    def _list_stated(self, chosen: tuple[str, ...]) -> None:
        while self._stated_box.count():
            item = self._stated_box.takeAt(0)
            if item is not None and (widget := item.widget()) is not None:
                widget.hide()
                widget.deleteLater()
        self.stated = {}
        try:
            techniques = load_preset(str(self.preset.currentData()), self._study.folder).techniques
        except UserError:
            techniques = ()
        for technique in techniques:
            tick = QCheckBox(technique)
            tick.setChecked(technique in chosen)
            tick.toggled.connect(lambda _: self._change())
            self._stated_box.addWidget(tick)
            self.stated[technique] = tick
        self._stated_box.addStretch(1)
        self.stated_row.setVisible(bool(techniques))

    def _choose_preset(self) -> None:
        if not self._filling:
            self._list_stated(())
            self._change()

    def settings(self) -> ExplanationSettings:
        """Return what is chosen; a margin that only rounds differently is the stored one."""
        margin: float | None = None
        if self.crop.isChecked():
            margin = self.margin.value() / 100
            kept = self.stored.view.crop_margin
            if kept is not None and round(100 * kept) == self.margin.value():
                margin = kept
        view = ViewSettings(
            self.drawn.currentData(),
            margin,
            self.fixations.isChecked(),
            self.side.value(),
            self.mask_text.isChecked(),
        )
        stated = tuple(name for name, tick in self.stated.items() if tick.isChecked())
        return dataclasses.replace(
            self.stored, preset=str(self.preset.currentData()), stated=stated, view=view
        )

    def show_for(self, kind: str) -> None:
        """Show what matters to a backend."""
        self.view_part.setVisible(kind in ("openai", "transformers"))

    def _change(self) -> None:
        if self._filling:
            return
        self.margin.setEnabled(self.crop.isChecked())
        try:
            load_preset(str(self.preset.currentData()), self._study.folder)
        except UserError as error:
            self.problem = str(error)
        else:
            self.problem = ""
        self._preset_row.set_hint(breakable(self.problem), "danger")
        self.save_row.setVisible(self.settings() != self.stored)
        self.save_button.setEnabled(not self.problem)
        self.changed.emit()

    def save(self) -> None:
        """Make what is chosen the study's settings.

        Raises
        ------
        UserError
            If it cannot be used or written.
        """
        if self.problem:
            raise UserError(self.problem)
        wanted = self.settings()
        if wanted == self.stored:
            return
        # The encoder may have been chosen meanwhile, here or on another computer.
        wanted = dataclasses.replace(wanted, encoder=load_settings(self._study).encoder)
        save_settings(self._study, wanted)
        self.stored = wanted
        self.save_row.hide()

    def _save(self) -> None:
        try:
            self.save()
        except UserError as error:
            self._preset_row.set_hint(breakable(str(error)), "danger")


class EncoderRow(Row):
    """What turns the descriptions into numbers for the teacher: MiniLM, or an encoder from a folder."""

    def __init__(self, study: Study) -> None:
        self.name_label = ElidedLabel("")
        self.choose_button = Button("…")
        self.default_button = Button("…")
        field = QWidget()
        row = QHBoxLayout(field)
        box(row, spacing=theme.NORMAL)
        row.addWidget(self.name_label, 1)
        row.addWidget(self.choose_button)
        row.addWidget(self.default_button)
        super().__init__("", field)
        self.name.setText(self.tr("Text encoder"))
        self.choose_button.setText(self.tr("Choose folder…"))
        self.default_button.setText(self.tr("Default"))
        self._study = study
        for button in (self.choose_button, self.default_button):
            button.setAutoDefault(False)
        self.choose_button.clicked.connect(lambda _=False: self._choose())
        self.default_button.clicked.connect(lambda _=False: self._use(None))
        self.show_choice()

    def show_choice(self) -> None:
        """Name the study's encoder."""
        try:
            choice = load_settings(self._study).encoder
        except UserError:
            choice = None
        self.name_label.setText(choice.name if choice is not None else MINILM)
        self.default_button.setVisible(choice is not None)

    def _choose(self) -> None:
        folder = QFileDialog.getExistingDirectory(self, self.tr("Choose a text encoder's folder"))
        if folder:
            self._use(Path(folder))

    def _use(self, folder: Path | None) -> None:
        study = self._study

        def work(progress: object) -> object:
            from segmentation.text.steps import choose_encoder

            return choose_encoder(study, folder, progress)  # type: ignore[arg-type]

        for button in (self.choose_button, self.default_button):
            button.setEnabled(False)
        self.set_hint(self.tr("The descriptions are read by it…"))
        in_background(work, self.tr("Choosing the text encoder"), self._chosen, self._failed)

    def _chosen(self, _: object) -> None:
        self._again("")

    def _failed(self, sentence: str, _details: str) -> None:
        self._again(sentence)

    def _again(self, problem: str) -> None:
        for button in (self.choose_button, self.default_button):
            button.setEnabled(True)
        self.set_hint(breakable(problem), "danger")
        self.show_choice()
