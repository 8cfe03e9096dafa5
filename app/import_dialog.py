"""Before images are imported: what was found, where it goes, how it is read. Two clicks for a folder of pictures."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from PySide6.QtCore import QTimer, Signal
from PySide6.QtGui import QDragEnterEvent, QDropEvent
from PySide6.QtWidgets import (
    QButtonGroup,
    QCheckBox,
    QComboBox,
    QFileDialog,
    QHBoxLayout,
    QLineEdit,
    QRadioButton,
    QSpinBox,
    QVBoxLayout,
    QWidget,
)

from app import theme
from app.dialogs import Dialog, Row
from app.import_choice import PER_FOLDER, ImportChoice, all_files, grouped, propose_masks
from app.masks_part import MasksPart
from app.study_cards import DropZone
from app.widgets import Button, ElidedLabel, Fold, Pill, box, clear, label, line
from gaze_capture.errors import UserError
from segmentation.import_options import Deidentify, ImportOptions
from segmentation.records import safe_name
from segmentation.sources import Found, find_files
from segmentation.stacks import Modality
from segmentation.study import TEST_SPLIT, Study

MOST_PATHS = 3
PREVIEWED = 4
PREVIEW_AFTER_MS = 200


class ImportDialog(Dialog):
    """Asks what to import and how; `chosen` tells when it is decided."""

    chosen = Signal(object)
    """An ImportChoice."""

    def __init__(self, parent: QWidget | None, study: Study, paths: Sequence[Path] = ()) -> None:
        super().__init__(parent, self.tr("Import images"))
        self.setAcceptDrops(True)
        self._study = study
        self.paths: list[Path] = []
        self.found: Found | None = None
        self._counting = 0
        self._counted_beside: Path | None = None
        self._masks_touched = False
        self._make_source()
        self.body.addWidget(line())
        self._rows = QVBoxLayout()
        box(self._rows, spacing=theme.WIDE)
        self.body.addLayout(self._rows)
        self._make_rows()
        self.body.addStretch(1)
        self.cancel_button = self.add_button(self.tr("Cancel"), self.reject)
        self.import_button = self.add_button(self.tr("Import"), self._accept, "primary")
        self._preview_timer = QTimer(self, singleShot=True, interval=PREVIEW_AFTER_MS)
        self._preview_timer.timeout.connect(self._preview)
        self.fit(720)
        if paths:
            self.add_paths(paths)
        else:
            self._show_paths()
            self._check()
            self.folder_button.setFocus()

    # What is imported

    def _make_source(self) -> None:
        self.drop_zone = DropZone(self.tr("Drop images or folders here"))
        self.drop_zone.dropped.connect(self.add_paths)
        self._paths_box = QVBoxLayout()
        box(self._paths_box, spacing=2)
        self._found_box = QHBoxLayout()
        box(self._found_box, spacing=theme.NORMAL)
        self.folder_button = Button(self.tr("Choose a folder…"), "folder", "", self._ask_folder)
        self.files_button = Button(self.tr("Choose files…"), "file", "", self._ask_files)
        self.clear_button = Button(self.tr("Clear"), "", "plain", self._clear)
        buttons = QHBoxLayout()
        box(buttons, spacing=theme.NORMAL)
        for button in (self.folder_button, self.files_button, self.clear_button):
            button.setAutoDefault(False)
            buttons.addWidget(button)
        buttons.addStretch(1)
        buttons.addLayout(self._found_box)
        self.body.addWidget(self.drop_zone)
        self.body.addLayout(self._paths_box)
        self.body.addLayout(buttons)

    def _ask_folder(self) -> None:
        folder = QFileDialog.getExistingDirectory(self, self.tr("Choose a folder of images"))
        if folder:
            self.add_paths([Path(folder)])

    def _ask_files(self) -> None:
        names, _ = QFileDialog.getOpenFileNames(self, self.tr("Choose images, volumes or videos"))
        if names:
            self.add_paths([Path(name) for name in names])

    def _clear(self) -> None:
        self.paths = []
        self._masks_touched = False
        self.masks.choose(None)
        self._count()

    def add_paths(self, paths: Sequence[Path]) -> None:
        """Add files and folders, and count what is among them."""
        self.paths += [path for path in paths if path not in self.paths]
        proposed = propose_masks(self.paths)
        if not self._masks_touched and proposed != self.masks.path:
            self._counted_beside = proposed
            self.masks.choose(proposed, self.tr("Found beside the images.") if proposed else "")
        self._count()

    def _show_paths(self) -> None:
        clear(self._paths_box)
        for path in self.paths[:MOST_PATHS]:
            self._paths_box.addWidget(ElidedLabel(str(path)))
        if len(self.paths) > MOST_PATHS:
            more = label(self.tr("and {n} more").format(n=f"{len(self.paths) - MOST_PATHS:,}"), "muted")
            more.setToolTip("\n".join(str(path) for path in self.paths[MOST_PATHS : MOST_PATHS + 30]))
            self._paths_box.addWidget(more)
        self.drop_zone.setVisible(not self.paths)
        self.clear_button.setVisible(bool(self.paths))
        texts = (
            (self.tr("Add a folder…"), self.tr("Add files…"))
            if self.paths
            else (self.tr("Choose a folder…"), self.tr("Choose files…"))
        )
        for button, text in zip((self.folder_button, self.files_button), texts, strict=True):
            button.setText(text)

    def _count(self) -> None:
        self._show_paths()
        self.found = None
        self._counting += 1
        if not self.paths:
            self._show_found()
            return
        number, paths, masks = self._counting, list(self.paths), self.masks.path
        self._counted_beside = masks
        clear(self._found_box)
        self._found_box.addWidget(label(self.tr("Counting…"), "muted"))
        self.import_button.setEnabled(False)
        beside = [masks] if masks is not None else []
        self.work(
            lambda _: (number, find_files(paths, beside=beside)),
            self.tr("Counting"),
            self._counted,
            failed=self._not_counted,
        )

    def _counted(self, result: tuple[int, Found]) -> None:
        number, found = result
        if number == self._counting:
            self.found = found
            self._show_found()

    def _not_counted(self, sentence: str, _details: str) -> None:
        clear(self._found_box)
        self.show_problem(sentence)

    def _show_found(self) -> None:
        clear(self._found_box)
        for text in self.counts():
            pill = Pill(text, "accent")
            pill.setAccessibleName(text)
            self._found_box.addWidget(pill)
        self._place_rows()
        self._preview()
        self._check()
        if self.import_button.isEnabled():
            self.import_button.setFocus()

    def counts(self) -> list[str]:
        """Return how much of each format there is, in words."""
        if self.found is None:
            return []
        f = self.found
        kinds = (
            (len(f.plain), self.tr("1 picture"), self.tr("{n} pictures")),
            (len(f.dicom), self.tr("1 DICOM file"), self.tr("{n} DICOM files")),
            (len(f.nifti) + len(f.nrrd), self.tr("1 volume"), self.tr("{n} volumes")),
            (len(f.video), self.tr("1 video"), self.tr("{n} videos")),
        )
        return [one if n == 1 else many.format(n=f"{n:,}") for n, one, many in kinds if n]

    # How it is imported

    def _make_rows(self) -> None:
        self.split = QComboBox()
        self.split.addItem(self.tr("Training"), "train")
        self.split.addItem(self.tr("Testing: never trained on"), TEST_SPLIT)
        self.split.addItem(self.tr("Another split…"), None)
        self.split_name = QLineEdit()
        self.split_name.setPlaceholderText(self.tr("Name of the split, e.g. val"))
        self.split_name.setAccessibleName(self.tr("Name of the split"))
        self.split_name.hide()
        self.split.currentIndexChanged.connect(lambda _: self._split_chosen())
        self.split_name.textChanged.connect(lambda _: self._check())
        self.split_row = Row(self.tr("Used for"), _beside(self.split, self.split_name))
        self.per_folder = QCheckBox(self.tr("One patient per folder"))
        self.per_folder.toggled.connect(lambda _: self._preview())
        self.group_row = Row(self.tr("Patients"), self.per_folder)
        self.masks = MasksPart(self, self._study)
        self.masks.changed.connect(self._masks_changed)
        self.masks_row = Row(self.tr("True masks"), self.masks)
        self.modality = QComboBox()
        modalities: tuple[tuple[str, Modality | None], ...] = (
            (self.tr("As the files say"), None),
            (self.tr("CT"), "ct"),
            (self.tr("MR"), "mr"),
            (self.tr("Ultrasound"), "us"),
            (self.tr("X-ray"), "xr"),
            (self.tr("Nuclear medicine"), "nm"),
            (self.tr("Photo or screen"), "photo"),
            (self.tr("Other, grey"), "grey"),
        )
        for text, value in modalities:
            self.modality.addItem(text, value)
        self.modality_row = Row(
            self.tr("Modality"), self.modality, self.tr("NIfTI and NRRD do not say what they are.")
        )
        self.axis = QComboBox()
        for number, text in enumerate(
            (self.tr("Automatic"), self.tr("Sagittal"), self.tr("Coronal"), self.tr("Axial"))
        ):
            self.axis.addItem(text, number - 1 if number else None)
        self.axis_row = Row(
            self.tr("Slices"), self.axis, self.tr("Automatic: along the axis with the thickest slices.")
        )
        self.every = QSpinBox()
        self.every.setRange(1, 10_000)
        self.every.setValue(25)
        self.every.setPrefix(self.tr("1 in "))
        self.every_row = Row(self.tr("Frames of a video"), self.every)
        self.deidentify_row = self._make_deidentify()
        self.pattern = QLineEdit()
        self.pattern.setPlaceholderText(self.tr("e.g. patient_(\\d+)"))
        self.pattern.textChanged.connect(lambda _: self._preview_timer.start())
        self.pattern_row = Row(
            self.tr("Patient by pattern"),
            self.pattern,
            self.tr("A regular expression on the file's path; what stands in brackets names the patient."),
        )
        self.fold = Fold(self.tr("More options"))
        self._folded = QVBoxLayout(self.fold.body)
        box(self._folded, margins=(0, theme.NORMAL, 0, 0), spacing=theme.WIDE)
        for row in (self.split_row, self.group_row, self.masks_row):
            self._rows.addWidget(row)
        self._rows.addWidget(self.fold)
        self._place_rows()

    def _split_chosen(self) -> None:
        self.split_name.setVisible(self.split.currentData() is None)
        self._check()

    def _make_deidentify(self) -> Row:
        ways: tuple[tuple[Deidentify, str, str], ...] = (
            (
                "auto",
                self.tr("Medical headers (recommended)"),
                self.tr("Names and numbers of patients become pseudonyms; dates are shifted."),
            ),
            (
                "names",
                self.tr("File names, too"),
                self.tr("For files that are called like the patient: images get new names."),
            ),
            ("off", self.tr("Off"), self.tr("Patients keep the ids that their files have.")),
        )
        field = QWidget()
        layout = QVBoxLayout(field)
        box(layout, margins=(0, 4, 0, 0), spacing=2)
        self.deidentify = QButtonGroup(field)
        self.deidentify_buttons: dict[Deidentify, QRadioButton] = {}
        for value, text, meaning in ways:
            button = QRadioButton(text)
            button.setAccessibleDescription(meaning)
            button.setToolTip(meaning)
            self.deidentify.addButton(button)
            self.deidentify_buttons[value] = button
            layout.addWidget(button)
            explained = label(meaning, "muted", wrap=True)
            explained.setContentsMargins(24, 0, 0, 4)
            layout.addWidget(explained)
        self.deidentify_buttons["auto"].setChecked(True)
        return Row(self.tr("De-identify"), field)

    def _place_rows(self) -> None:
        """Show rows that matter for what was found, and fold the others away."""
        f = self.found or Found()
        volumes = bool(f.nifti or f.nrrd)
        main = [self.split_row, self.group_row, self.masks_row]
        folded: list[Row] = []
        (main if volumes else folded).append(self.modality_row)
        self.modality_row.set_hint(self.tr("NIfTI and NRRD do not say what they are.") if volumes else "")
        if volumes:
            main.append(self.axis_row)
        if f.video:
            main.append(self.every_row)
        (main if f.dicom else folded).append(self.deidentify_row)
        folded.insert(0, self.pattern_row)
        for number, row in enumerate(main):
            self._rows.insertWidget(number, row)
        for number, row in enumerate(folded):
            self._folded.insertWidget(number, row)
        self._rows.addWidget(self.fold)
        for row in (self.axis_row, self.every_row):
            # One that has no place yet must not become a window of its own.
            row.setVisible(row in main)

    def _masks_changed(self) -> None:
        if self.masks.path != propose_masks(self.paths):
            self._masks_touched = True
        if self.paths and self.masks.path != self._counted_beside:
            # Masks that lie among the images are not counted as images.
            self._count()
        self._check()

    def _preview(self) -> None:
        """Show which patients the first files would belong to."""
        self._show_groups()
        self._check()

    def _show_groups(self) -> None:
        self.per_folder.setEnabled(not self.pattern.text())
        pattern = self.group_by()
        files = (
            all_files(self.found)[:: max(1, len(all_files(self.found)) // PREVIEWED)] if self.found else []
        )
        row, other = (
            (self.pattern_row, self.group_row) if self.pattern.text() else (self.group_row, self.pattern_row)
        )
        other.set_hint(
            ""
            if other is self.group_row
            else self.tr(
                "A regular expression on the file's path; what stands in brackets names the patient."
            )
        )
        if pattern is None:
            row.set_hint(
                self.tr("DICOM files say which patient they are of.")
                if self.found is not None and self.found.dicom
                else ""
            )
            return
        try:
            rows = grouped(pattern, files[:PREVIEWED])
        except UserError as error:
            row.set_hint(str(error), "danger")
        else:
            none = self.tr("no match")
            row.set_hint("\n".join(f"{name}  →  {group or none}" for name, group in rows))

    # Deciding

    def group_by(self) -> str | None:
        """Return the pattern that names groups, or None."""
        return self.pattern.text() or (PER_FOLDER if self.per_folder.isChecked() else None)

    def _problem(self) -> str:
        if self.paths and self.found is not None and not len(self.found):
            return self.tr("There are no images here: PNG, JPEG, TIFF, BMP, DICOM, NIfTI, NRRD, video.")
        if self.split.currentData() is None and self.split_name.text() != safe_name(self.split_name.text()):
            return self.tr("Name the split with letters, digits, - and _.")
        pattern = self.group_by()
        if pattern is not None:
            try:
                grouped(pattern, [])
            except UserError:
                return self.tr("The pattern for patients has a mistake.")
        return self.masks.problem()

    def _check(self) -> None:
        problem = self._problem()
        self.show_problem(problem)
        count = len(self.found) if self.found is not None else 0
        self.import_button.setEnabled(bool(count) and not problem and not self.masks.reading)
        self.import_button.setText(
            self.tr("Import {n} files").format(n=f"{count:,}")
            if count > 1
            else self.tr("Import 1 file")
            if count
            else self.tr("Import")
        )

    def choice(self) -> ImportChoice:
        """Return what was decided so far."""
        split = self.split.currentData() or self.split_name.text()
        return ImportChoice(
            paths=tuple(self.paths),
            masks=self.masks.path,
            labels=self.masks.labels(),
            target=self.masks.target_id(),
            options=ImportOptions(
                split=split,
                group_by=self.group_by(),
                modality=self.modality.currentData(),
                axis=self.axis.currentData()
                if self.found and (self.found.nifti or self.found.nrrd)
                else None,
                every=self.every.value() if self.found and self.found.video else 1,
                deidentify=next(
                    value for value, button in self.deidentify_buttons.items() if button.isChecked()
                ),
            ),
        )

    def _accept(self) -> None:
        choice = self.choice()
        self.accept()
        self.chosen.emit(choice)

    # Dropping

    def dragEnterEvent(self, event: QDragEnterEvent) -> None:
        """Take files anywhere on the dialog."""
        if event.mimeData().hasUrls():
            event.acceptProposedAction()

    def dropEvent(self, event: QDropEvent) -> None:
        """Add what was dropped."""
        paths = [Path(url.toLocalFile()) for url in event.mimeData().urls() if url.isLocalFile()]
        if paths:
            event.acceptProposedAction()
            self.add_paths(paths)


def _beside(*widgets: QWidget) -> QWidget:
    field = QWidget()
    layout = QHBoxLayout(field)
    box(layout, spacing=theme.NORMAL)
    for widget in widgets:
        layout.addWidget(widget, 1)
    field.setFocusProxy(widgets[0])
    return field


class MasksDialog(Dialog):
    """Brings masks to images that the study has already, as true ones or as reviews of an annotator."""

    chosen = Signal(object)
    """An ImportChoice without paths."""

    def __init__(self, parent: QWidget | None, study: Study, reviewer: str = "") -> None:
        super().__init__(
            parent,
            self.tr("Import masks as reviews") if reviewer else self.tr("Import true masks"),
            self.tr(
                "Masks that were corrected in another program, such as an export of this study, become reviews of "
                "{annotator}. They have to lie on the image's own grid; what did not change is passed over."
            ).format(annotator=reviewer)
            if reviewer
            else self.tr("For images that are in the study already. Masks find their image by its name."),
        )
        self.masks = MasksPart(self, study)
        self.masks.changed.connect(self._check)
        self.body.addWidget(Row(self.tr("Masks") if reviewer else self.tr("True masks"), self.masks))
        self.body.addStretch(1)
        self.add_button(self.tr("Cancel"), self.reject)
        self.import_button = self.add_button(self.tr("Import masks"), self._accept, "primary")
        self.import_button.setEnabled(False)
        self.fit(640)
        self.masks.folder_button.setFocus()

    def _check(self) -> None:
        self.show_problem(self.masks.problem())
        self.import_button.setEnabled(
            self.masks.path is not None and not self.masks.reading and not self.masks.problem()
        )

    def _accept(self) -> None:
        choice = ImportChoice((), self.masks.path, self.masks.labels(), self.masks.target_id())
        self.accept()
        self.chosen.emit(choice)
