"""Before an export: what goes out, in which format, from which run, where to."""

from __future__ import annotations

import importlib.util
from pathlib import Path

from PySide6.QtCore import Qt, Signal
from PySide6.QtWidgets import QCheckBox, QComboBox, QFileDialog, QHBoxLayout, QLineEdit, QWidget

from app import theme
from app.dialogs import Dialog, Row, narrow
from app.export_choice import (
    GAZE_FORMATS,
    MASK_FORMATS,
    WHAT,
    WITH_PROBABILITY,
    ExportChoice,
    What,
    finished_runs,
    problem_with,
    proposed,
)
from app.texts import short_name
from app.widgets import Button, ElidedLabel, box
from segmentation.mask_choice import WHICH, Which
from segmentation.run_list import read_name
from segmentation.runs import RunFolder
from segmentation.study import Study

FILL = "reviewed+student"
"""Among the choices of masks: the student's stand in where nobody has judged."""


class ExportDialog(Dialog):
    """Asks what to export and where to; `chosen` tells when it is decided."""

    chosen = Signal(object)
    """An ExportChoice."""

    def __init__(self, parent: QWidget | None, study: Study, what: What = "masks") -> None:
        super().__init__(parent, self.tr("Export"))
        self._study = study
        self._place_touched = False
        self.source: Path | None = None
        self.what = self._picker({name: self._what_words(name) for name in WHAT})
        self.format = narrow(QComboBox())
        self.which = self._picker(
            {
                "reviewed": self.tr("Reviewed: accepted and edited masks"),
                FILL: self.tr("Reviewed, and the student's where nobody has judged"),
                "student": self.tr("The student's"),
                "pseudomask": self.tr("Pseudo-masks, the widest level"),
                "truth": self.tr("True masks"),
                "audit": self.tr("Blind audits alone: outlined with no mask in view"),
            }
        )
        self.run = narrow(QComboBox())
        self.probability = QCheckBox(self.tr("The student's probabilities, too"))
        self.onnx = QCheckBox(self.tr("ONNX, for programs without PyTorch"))
        self.rows = {
            "what": Row(self.tr("What"), self.what),
            "format": Row(self.tr("Format"), self.format),
            "which": Row(self.tr("Masks"), self.which),
            "run": Row(self.tr("Run"), self.run),
            "probability": Row("", self.probability),
            "onnx": Row("", self.onnx),
            "source": Row(
                self.tr("Source"),
                self._make_source(),
                self.tr(
                    "A DICOM segmentation refers to the files that were imported and, like them, names the "
                    "patient; the study keeps neither."
                ),
            ),
            "place": Row(self.tr("Into"), self._make_place()),
        }
        for row in self.rows.values():
            self.body.addWidget(row)
        self.body.addStretch(1)
        self.add_button(self.tr("Cancel"), self.reject)
        self.export_button = self.add_button(self.tr("Export"), self._accept, "primary", "export")
        has_onnx = importlib.util.find_spec("onnxscript") is not None
        self.onnx.setChecked(has_onnx)
        self.onnx.setEnabled(has_onnx)
        if not has_onnx:
            self.rows["onnx"].set_hint(self.tr("Needs: pip install 'gaze-insight[onnx]'"))
        self.what.currentIndexChanged.connect(self._show_formats)
        self.format.currentIndexChanged.connect(self._show)
        self.which.currentIndexChanged.connect(self._show)
        self.run.currentIndexChanged.connect(self._show)
        self.place.textEdited.connect(self._place_edited)
        self.what.setCurrentIndex(self.what.findData(what))
        self._show_formats()
        self.work(lambda _: finished_runs(study), self.tr("Looking for runs"), self._take_runs)
        self.fit(640)
        self.format.setFocus()

    def _picker(self, words: dict[str, str]) -> QComboBox:
        picker = narrow(QComboBox())
        for name, text in words.items():
            picker.addItem(text, name)
        return picker

    def _what_words(self, what: What) -> str:
        return {
            "masks": self.tr("Masks"),
            "gaze": self.tr("Gaze"),
            "model": self.tr("The model of a run"),
            "report": self.tr("A report as one HTML file"),
        }[what]

    def _format_words(self, name: str) -> tuple[str, str]:
        """Return what a format is called, and what it is good for."""
        masks = self.what.currentData() == "masks"
        return {
            "png": ("PNG", self.tr("One picture an image, named like it; a folder for each target.")),
            "nifti": (
                "NIfTI",
                self.tr("For 3D Slicer, ITK-SNAP and nnU-Net: volumes keep their place in the patient."),
            ),
            "dicom-seg": (
                "DICOM-SEG",
                self.tr("For an archive or viewer: a segment for each target, with its code."),
            ),
            "coco": ("COCO", self.tr("Run lengths and polygons, in two JSON files.")),
            "bids": (
                "BIDS",
                self.tr("A derivative: NIfTI masks with sidecars.")
                if masks
                else self.tr("A data set of eye tracking: one run a recording."),
            ),
            "gazemedseg": (
                "GazeMedSeg",
                self.tr("masks/ and a list of names for each split, as its code reads them.")
                if masks
                else self.tr("Tables of fixations, one for each split."),
            ),
            "parquet": ("Parquet", self.tr("Tables with units, for pandas and R.")),
            "csv": ("CSV", self.tr("Tables of samples, looks and fixations.")),
        }[name]

    def _make_source(self) -> QWidget:
        holder = QWidget()
        row = QHBoxLayout(holder)
        box(row, spacing=theme.NORMAL)
        self.source_shown = ElidedLabel(self.tr("None"), "muted")
        self.source_button = Button(self.tr("Folder…"), on_click=self._ask_source)
        self.source_button.setToolTip(self.tr("The folder of DICOM files that was imported"))
        self.source_button.setAutoDefault(False)
        row.addWidget(self.source_shown, 1)
        row.addWidget(self.source_button)
        return holder

    def _make_place(self) -> QWidget:
        holder = QWidget()
        row = QHBoxLayout(holder)
        box(row, spacing=theme.NORMAL)
        self.place = QLineEdit()
        self.place.setAccessibleName(self.tr("Where to"))
        self.place_button = Button(self.tr("Choose…"), on_click=self._ask_place)
        self.place_button.setAutoDefault(False)
        row.addWidget(self.place, 1)
        row.addWidget(self.place_button)
        return holder

    # What is asked

    def _show_formats(self) -> None:
        what: What = self.what.currentData()
        formats = {"masks": MASK_FORMATS, "gaze": GAZE_FORMATS}.get(what, ())
        self.format.blockSignals(True)
        self.format.clear()
        for name in formats:
            self.format.addItem(self._format_words(name)[0], name)
        self.format.blockSignals(False)
        self._show()

    def _take_runs(self, runs: list[str]) -> None:
        self.run.blockSignals(True)
        for run in runs:
            self.run.addItem(read_name(RunFolder(self._study.runs_folder / run)) or short_name(run), run)
            self.run.setItemData(self.run.count() - 1, run, Qt.ItemDataRole.ToolTipRole)
        self.run.blockSignals(False)
        self._show()

    def _needs_run(self) -> bool:
        what, which = self.what.currentData(), self.which.currentData()
        return what in ("model", "report") or (what == "masks" and which in (FILL, "student"))

    def _show(self) -> None:
        what: What = self.what.currentData()
        format = self.format.currentData()
        masks = what == "masks"
        visible = {
            "format": what in ("masks", "gaze"),
            "which": masks,
            "run": self._needs_run() and (what != "report" or self.run.count() > 0),
            "probability": masks and format in WITH_PROBABILITY and self._needs_run(),
            "onnx": what == "model",
            "source": masks and format == "dicom-seg",
        }
        for name, shown in visible.items():
            self.rows[name].setVisible(shown)
        if format is not None:
            self.rows["format"].set_hint(self._format_words(format)[1])
        if not self._place_touched:
            self.place.setText(str(proposed(self._study, self._choice(Path()))))
        self._check()

    def _choice(self, to: Path) -> ExportChoice:
        what: What = self.what.currentData()
        which = self.which.currentData()
        kind: Which = which if which in WHICH else "reviewed"
        return ExportChoice(
            what,
            to,
            format=self.format.currentData() or "",
            which=kind,
            run=self.run.currentData() if self._needs_run() else None,
            probability=self.probability.isVisibleTo(self) and self.probability.isChecked(),
            source=self.source if self.rows["source"].isVisibleTo(self) else None,
            onnx=self.onnx.isChecked(),
        )

    def _problem(self) -> str:
        choice = self._choice(Path(self.place.text()))
        if self._needs_run() and choice.run is None and choice.what != "report":
            return self.tr("The study has no finished run yet.")
        if choice.format == "dicom-seg" and choice.what == "masks" and choice.source is None:
            return self.tr("Choose the folder of the DICOM files that were imported.")
        sentences = {
            "nowhere": self.tr("Choose where to."),
            "no html": self.tr("A report's name ends with .html."),
            "a file": self.tr("That is a file; choose a new or empty folder."),
            "not empty": self.tr("That folder is not empty; choose a new or empty one."),
            "unreadable": self.tr("That folder cannot be read; choose another."),
        }
        return sentences.get(problem_with(choice, self.place.text()), "")

    def _check(self) -> None:
        problem = self._problem()
        self.show_problem(problem)
        self.export_button.setEnabled(not problem)

    # Choosing places

    def _place_edited(self) -> None:
        self._place_touched = True
        self._check()

    def take_source(self, folder: Path) -> None:
        """Take the folder of the source DICOM files."""
        self.source = folder
        self.source_shown.setText(str(folder))
        self._check()

    def _ask_source(self) -> None:
        folder = QFileDialog.getExistingDirectory(self, self.tr("Choose the folder of the DICOM files"))
        if folder:
            self.take_source(Path(folder))

    def _ask_place(self) -> None:
        now = Path(self.place.text())
        if self.what.currentData() == "report":
            name, _ = QFileDialog.getSaveFileName(
                self, self.tr("Export the report"), str(now), self.tr("Report (*.html)")
            )
            chosen = name and (name if name.lower().endswith((".html", ".htm")) else f"{name}.html")
        else:
            folder = QFileDialog.getExistingDirectory(self, self.tr("Choose where the new folder goes"))
            chosen = folder and str(Path(folder) / now.name)
        if chosen:
            self.place.setText(chosen)
            self._place_edited()

    def _accept(self) -> None:
        choice = self._choice(Path(self.place.text()))
        self.accept()
        self.chosen.emit(choice)
