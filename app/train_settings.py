"""What Train will do, in a sentence, and the settings behind it."""

from __future__ import annotations

import os
import shutil
from typing import Any

from PySide6.QtCore import Signal
from PySide6.QtWidgets import QCheckBox, QComboBox, QFrame, QGridLayout, QHBoxLayout, QSpinBox, QVBoxLayout

from app import theme
from app.overview import Overview
from app.texts import duration_text
from app.widgets import Button, Fold, box, heading, label, set_role
from segmentation.intensity import rules_for
from segmentation.job import RunSpec
from segmentation.presets import METHODS, preset, preset_names
from segmentation.study import Study


class TrainSettings(QFrame):
    """The Train button with its sentence; settings are folded away."""

    wanted = Signal()
    """Train was pressed."""
    changed = Signal()

    def __init__(self) -> None:
        super().__init__()
        self.setObjectName("hero")
        layout = QVBoxLayout(self)
        box(layout, margins=(20, 16, 20, 12), spacing=theme.NORMAL)
        top = QHBoxLayout()
        box(top, spacing=theme.LARGE)
        texts = QVBoxLayout()
        box(texts, spacing=theme.SMALL)
        self.title = heading(self.tr("Train a model"))
        self.sentence = label("", "muted", wrap=True)
        texts.addWidget(self.title)
        texts.addWidget(self.sentence)
        self.train_button = Button(self.tr("Train"), "play", "primary", self.wanted.emit)
        top.addLayout(texts, 1)
        top.addWidget(self.train_button)
        layout.addLayout(top)
        self._advanced = Fold(self.tr("Advanced settings"))
        grid = QGridLayout(self._advanced.body)
        box(grid, margins=(theme.NORMAL, 0, 0, theme.NORMAL), spacing=theme.NORMAL)
        grid.setHorizontalSpacing(theme.LARGE)
        self.method = QComboBox()
        self.method.addItems(METHODS)
        self.preset = QComboBox()
        self.preset.addItems([name for name in preset_names() if name != "phantom"])
        self.preset.setCurrentText("cpu")
        self.device = QComboBox()
        self.device.addItems(["auto", "cpu", "cuda"])
        self.minutes = self._number(0, 100_000, self.tr("as the preset says"))
        self.iterations = self._number(0, 1_000_000, self.tr("as the preset says"))
        self.seed = self._number(0, 1_000_000, "")
        self.predict_after = QCheckBox(self.tr("Predict masks of all images when done"))
        self.predict_after.setChecked(True)
        fields = (
            (self.tr("Method"), self.method),
            (self.tr("Preset"), self.preset),
            (self.tr("Device"), self.device),
            (self.tr("Minutes at most"), self.minutes),
            (self.tr("Iterations"), self.iterations),
            (self.tr("Seed"), self.seed),
        )
        for index, (title, widget) in enumerate(fields):
            row, place = divmod(index, 3)
            grid.addWidget(label(title, "muted"), 2 * row, place)
            grid.addWidget(widget, 2 * row + 1, place)
            grid.setColumnStretch(place, 1)
        grid.addWidget(self.predict_after, 4, 0, 1, 3)
        for combo in (self.method, self.preset, self.device):
            combo.currentIndexChanged.connect(lambda _: self.changed.emit())
        for spin in (self.minutes, self.iterations):
            spin.valueChanged.connect(lambda _: self.changed.emit())
        layout.addWidget(self._advanced)

    def _number(self, low: int, high: int, nothing: str) -> QSpinBox:
        spin = QSpinBox()
        spin.setRange(low, high)
        spin.setGroupSeparatorShown(True)
        spin.lineEdit().setTextMargins(8, 0, 0, 0)
        if nothing:
            spin.setSpecialValueText(nothing)
        return spin

    def spec(self, study: Study) -> RunSpec:
        """Return the spec that Train would start, from the settings as they are."""
        changes: dict[str, Any] = {
            "seed": self.seed.value(),
            "device": self.device.currentText(),
            "targets": tuple(target.id for target in study.targets),
        }
        if self.minutes.value():
            changes["max_minutes"] = float(self.minutes.value())
        if self.iterations.value():
            changes["iterations"] = self.iterations.value()
        return preset(self.method.currentText(), self.preset.currentText(), **changes)

    def show_plan(self, study: Study | None, overview: Overview, *, busy: bool) -> None:
        """Say what Train would do with a study, or why it cannot."""
        missing = self._missing(study, overview)
        self.train_button.setEnabled(missing is None and not busy)
        if missing is not None:
            self.sentence.setText(missing)
            set_role(self.sentence, "warning" if study is not None else "muted")
            return
        set_role(self.sentence, "muted")
        if busy:
            self.sentence.setText(
                self.tr(
                    "One run is at work. Another can start when it has ended; this window may be closed meanwhile."
                )
            )
            return
        assert study is not None
        spec = self.spec(study)
        length = (
            self.tr("at most {time}").format(time=duration_text(spec.max_minutes * 60))
            if spec.max_minutes
            else self.tr("{n:,} steps").format(n=spec.iterations)
        )
        count = overview.masks if spec.method == "supervised" else overview.trainable
        gaze = self.tr(" Gaze is simulated from {what}.").format(what=overview.simulated_from)
        text = self.tr(
            "Learns from {count} images with the method {method}, preset {preset}, on {device}; {length}. "
            "Runs in the background, also when the window is closed."
        ).format(
            count=count,
            method=spec.method,
            preset=spec.preset,
            device=self._device_in_words(spec),
            length=length,
        )
        self.sentence.setText(
            text + self._kinds_in_words(study, spec) + (gaze if overview.simulated_from else "")
        )

    def _kinds_in_words(self, study: Study, spec: RunSpec) -> str:
        """Say how many targets are learned, and how what is no photograph is normalised."""
        told = ""
        if len(spec.targets) > 1:
            told += self.tr(" {n} targets.").format(n=len(spec.targets))
        rules = rules_for(spec.normalisation, (image.modality for image in study.images.values()))
        others = [f"{modality.upper()} {rule}" for modality, rule in rules.items() if modality != "photo"]
        if others:
            told += self.tr(" Values: {rules}.").format(rules=", ".join(others))
        return told

    def _missing(self, study: Study | None, overview: Overview) -> str | None:
        if study is None:
            return self.tr("Open a study first.")
        if not study.images:
            return self.tr("The study has no images yet: import some on the study page.")
        if self.method.currentText() == "supervised":
            return (
                None
                if overview.masks
                else self.tr("The method supervised needs true masks; the study has none.")
            )
        if not overview.trainable:
            return self.tr("There is no pseudo-mask to learn from yet: record gaze, then make pseudo-masks.")
        return None

    def _device_in_words(self, spec: RunSpec) -> str:
        if spec.device == "cuda" or (spec.device == "auto" and shutil.which("nvidia-smi")):
            return self.tr("the graphics card")
        threads = max(1, (os.cpu_count() or 2) - 1)
        if threads == 1:
            return self.tr("the processor (1 thread)")
        return self.tr("the processor ({n} threads)").format(n=threads)
