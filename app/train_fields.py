"""The settings of a training that are folded away, for whoever wants other than what is advised."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from PySide6.QtCore import Qt, Signal
from PySide6.QtWidgets import QCheckBox, QComboBox, QGridLayout, QSpinBox, QVBoxLayout, QWidget

from app import theme
from app.dialogs import narrow
from app.encoder_choice import EncoderChoice
from app.texts import short_name
from app.widgets import Fold, box, label
from segmentation.advice import DEFAULT_METHOD, Advice, StudyFacts
from segmentation.job import RunSpec
from segmentation.presets import METHODS, TEXTS, preset_names

COLUMNS = 3


class TrainFields(QWidget):
    """What is not chosen by hand follows the advice."""

    changed = Signal()

    def __init__(self) -> None:
        super().__init__()
        self.by_hand: set[str] = set()
        """Which of method, preset and device a person chose against or without the advice."""
        self._following = False
        layout = QVBoxLayout(self)
        box(layout, margins=(theme.NORMAL, 0, 0, theme.NORMAL), spacing=theme.WIDE)
        self.method = self._choice(METHODS)
        self.preset = self._choice([name for name in preset_names() if name != "phantom"])
        self.preset.setCurrentText("cpu")
        self.device = self._choice(("auto", "cpu", "cuda"))
        self.minutes = self._number(100_000, self.tr("as the preset says"))
        self.iterations = self._number(1_000_000, self.tr("as the preset says"))
        self.seed = self._number(1_000_000, "")
        self.precision = self._choice(("auto", "fp32", "bf16", "fp16"))
        self.held_out = self._number(100_000, self.tr("none"))
        self.warm_start = self._choice((self.tr("new networks"),))
        self.encoder = EncoderChoice()
        self.encoder.changed.connect(self._tell)
        rows = (
            (self.tr("Method"), self.method,
             self.tr("How teacher and student learn from the gaze, or one network alone.")),
            (self.tr("Preset"), self.preset,
             self.tr("The size of the networks and images, and how long they are trained.")),
            (self.tr("Device"), self.device,
             self.tr("auto is the first graphics card that PyTorch can use, or else the processor.")),
            (self.tr("Minutes at most"), self.minutes,
             self.tr("The run ends after this time of training, with its schedule complete.")),
            (self.tr("Iterations"), self.iterations,
             self.tr("The number of steps, each of one batch of images.")),
            (self.tr("Seed"), self.seed,
             self.tr("The same seed and number of iterations on the same processor give the same model.")),
            (self.tr("Precision"), self.precision,
             self.tr("The number format of the networks: auto takes the fastest that is safe on the device.")),
            (self.tr("Images held out for selection"), self.held_out,
             self.tr("So many images with true masks, in whole groups, choose the best step and teach nothing.")),
            (self.tr("Begin with"), self.warm_start,
             self.tr("The networks begin with what an earlier run of the same architecture has learned.")),
        )  # fmt: skip
        grid = self._grid(layout)
        for index, row in enumerate(rows):
            self._place(grid, index, *row)
        tip = self.tr(
            "Student and teacher begin with a network that has seen many images: ResNet, ConvNeXt, Swin or DINOv2."
        )
        self._place(grid, len(rows), self.tr("Pretrained encoder"), self.encoder, tip, span=2)
        self.reviews = self._check(
            self.tr("Learn from the reviews"),
            self.tr(
                "Accepted and edited masks count as strong labels, and rejected pseudo-masks are left out."
            ),
        )
        self.predict_after = QCheckBox(self.tr("Predict masks of all images when done"))
        self.predict_after.setChecked(True)
        self.predict_after.setToolTip(self.tr("The finished student segments every image, ready for review."))
        checks = self._grid(layout)
        checks.addWidget(self.reviews, 0, 0)
        checks.addWidget(self.predict_after, 0, 1, 1, 2)
        self.ablations = Fold(self.tr("Parts of the method, for ablations"))
        layout.addWidget(self.ablations)
        inside = QVBoxLayout(self.ablations.body)
        box(inside, margins=(theme.NORMAL, 0, 0, 0), spacing=theme.NORMAL)
        self.text = self._choice(TEXTS)
        self.darm = self._check(
            self.tr("DARM masking"),
            self.tr("Hides from the student part of where it and the teacher disagree."),
        )
        self.afc = self._check(
            self.tr("AFC, features alike"),
            self.tr("Draws the student's features towards those of the teacher."),
        )
        self.cwc = self._check(
            self.tr("CWC, masks alike"),
            self.tr("Lets student and teacher learn from each other where one is sure."),
        )
        grid = self._grid(inside)
        told = self.tr(
            "What the teacher reads: the image's explanation, another's, its area, nothing, or no text."
        )
        self._place(grid, 0, self.tr("Text"), self.text, told)
        checks = self._grid(inside)
        for column, check in enumerate((self.darm, self.afc, self.cwc)):
            checks.addWidget(check, 0, column)
        for name in ("method", "preset", "device"):
            combo: QComboBox = getattr(self, name)
            combo.currentIndexChanged.connect(lambda _, name=name: self._chosen(name))
        for combo in (self.precision, self.warm_start, self.text):
            combo.currentIndexChanged.connect(lambda _: self._tell())
        for spin in (self.minutes, self.iterations, self.seed, self.held_out):
            spin.valueChanged.connect(lambda _: self._tell())
        for check in (self.reviews, self.darm, self.afc, self.cwc):
            check.toggled.connect(lambda _: self._tell())

    # Making

    def _grid(self, layout: QVBoxLayout) -> QGridLayout:
        grid = QGridLayout()
        box(grid, spacing=theme.SMALL)
        grid.setHorizontalSpacing(theme.LARGE)
        for column in range(COLUMNS):
            grid.setColumnStretch(column, 1)
        layout.addLayout(grid)
        return grid

    def _place(
        self, grid: QGridLayout, index: int, title: str, field: QWidget, tip: str, *, span: int = 1
    ) -> None:
        row, column = divmod(index, COLUMNS)
        name = label(title, "muted")
        if row:
            name.setContentsMargins(0, theme.NORMAL, 0, 0)
        target = field.list if isinstance(field, EncoderChoice) else field
        name.setBuddy(target)
        target.setAccessibleName(title)
        name.setToolTip(tip)
        field.setToolTip(tip)
        grid.addWidget(name, 2 * row, column, 1, span)
        grid.addWidget(field, 2 * row + 1, column, 1, span)

    def _choice(self, items: tuple[str, ...] | list[str]) -> QComboBox:
        combo = narrow(QComboBox())
        combo.addItems(items)
        return combo

    def _number(self, high: int, nothing: str) -> QSpinBox:
        spin = QSpinBox()
        spin.setRange(0, high)
        spin.setGroupSeparatorShown(True)
        spin.lineEdit().setTextMargins(8, 0, 0, 0)
        if nothing:
            spin.setSpecialValueText(nothing)
        return spin

    def _check(self, title: str, tip: str) -> QCheckBox:
        check = QCheckBox(title)
        check.setChecked(True)
        check.setToolTip(tip)
        return check

    # Following the advice

    def _chosen(self, name: str) -> None:
        if not self._following:
            self.by_hand.add(name)
        self._tell()

    def _tell(self) -> None:
        if not self._following:
            self.changed.emit()

    def follow(self, advice: Advice) -> None:
        """Take the advice wherever nothing was chosen by hand."""
        self._following = True
        for name in ("method", "preset", "device"):
            if name not in self.by_hand:
                getattr(self, name).setCurrentText(getattr(advice, name))
        self._following = False
        whole = self.method.currentText() == DEFAULT_METHOD
        for widget in (self.text, self.darm, self.afc, self.cwc):
            widget.setEnabled(whole)

    def let_go(self) -> None:
        """Forget what was chosen by hand, so that the next advice is taken."""
        self.by_hand.clear()
        self.changed.emit()

    def forget(self) -> None:
        """Forget what was chosen for another study."""
        self.by_hand.clear()
        self.warm_start.setCurrentIndex(0)

    def offer_runs(self, runs: list[str], learned: Mapping[str, RunSpec]) -> None:
        """List the runs to begin with; one that was chosen stays listed, though it may no longer fit."""
        chosen = self.warm_start.currentData() or ""
        listed = [*runs, *([chosen] if chosen and chosen not in runs else [])]
        if [self.warm_start.itemData(index) for index in range(1, self.warm_start.count())] == listed:
            return
        self._following = True
        while self.warm_start.count() > 1:
            self.warm_start.removeItem(1)
        for run_id in listed:
            method = learned[run_id].method if run_id in learned else "?"
            self.warm_start.addItem(f"{short_name(run_id)} · {method}", run_id)
            self.warm_start.setItemData(self.warm_start.count() - 1, run_id, Qt.ItemDataRole.ToolTipRole)
        self.warm_start.setCurrentIndex(max(self.warm_start.findData(chosen), 0) if chosen else 0)
        self._following = False

    # Reading

    def changes(self, facts: StudyFacts) -> dict[str, Any]:
        """Return the fields of a spec that differ from the preset's."""
        changes: dict[str, Any] = {
            "seed": self.seed.value(),
            "device": self.device.currentText(),
            "precision": self.precision.currentText(),
            "warm_start": self.warm_start.currentData() or "",
            "learn_from_reviews": self.reviews.isChecked(),
            **self.encoder.fields,
        }
        if self.minutes.value():
            changes["max_minutes"] = float(self.minutes.value())
        if self.iterations.value():
            changes["iterations"] = self.iterations.value()
        if self.held_out.value():
            changes["holdout"] = min(self.held_out.value() / max(facts.true_masks, 1), 0.99)
        if self.method.currentText() == DEFAULT_METHOD:
            changes["text"] = self.text.currentText()
            off = {"darm_share": self.darm, "afc_weight": self.afc, "cwc_weight": self.cwc}
            changes |= {name: 0.0 for name, check in off.items() if not check.isChecked()}
        return changes
