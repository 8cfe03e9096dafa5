"""A new study: its folder, its name, its targets; and data sets that come in their published folders."""

from __future__ import annotations

from pathlib import Path

from PySide6.QtCore import Signal
from PySide6.QtWidgets import QComboBox, QFileDialog, QHBoxLayout, QLineEdit, QWidget

from app import theme
from app.dialogs import Dialog, Row, narrow
from app.targets_dialog import TargetsDialog
from app.targets_row import TargetsRow
from app.widgets import Button, box
from gaze_capture.errors import UserError
from segmentation.published import DATA_SETS
from segmentation.records import Target
from segmentation.study import Study


class PathField(QWidget):
    """A path to type or to choose."""

    def __init__(self, title: str, *, file: bool = False) -> None:
        super().__init__()
        self._title, self._file = title, file
        layout = QHBoxLayout(self)
        box(layout, spacing=theme.NORMAL)
        self.text = QLineEdit()
        self.text.setAccessibleName(title)
        self.button = Button(self.tr("Choose…"), on_click=self._ask)
        self.button.setAccessibleName(title)
        self.button.setAutoDefault(False)
        layout.addWidget(self.text, 1)
        layout.addWidget(self.button)
        self.setFocusProxy(self.text)

    def _ask(self) -> None:
        if self._file:
            name, _ = QFileDialog.getOpenFileName(self, self._title)
        else:
            name = QFileDialog.getExistingDirectory(self, self._title)
        if name:
            self.text.setText(name)

    def path(self) -> Path | None:
        """Return the path, or None while there is none."""
        text = self.text.text().strip()
        return Path(text).expanduser() if text else None


class NewStudyDialog(Dialog):
    """Makes a study in an empty folder."""

    made = Signal(object)
    """The Study."""

    def __init__(self, parent: QWidget | None) -> None:
        super().__init__(
            parent,
            self.tr("New study"),
            self.tr("A study is an empty folder at first; images, gaze, masks and models go into it."),
        )
        self.targets: tuple[Target, ...] = (Target(),)
        self.folder = PathField(self.tr("Choose an empty folder for the new study"))
        self.folder.text.setPlaceholderText(self.tr("An empty or new folder"))
        self.folder.text.textChanged.connect(self._folder_changed)
        self.name = QLineEdit()
        self.name.setPlaceholderText(self.tr("As the folder is called"))
        self.targets_row = TargetsRow(named=False)
        self.targets_row.edit_wanted.connect(self._edit_targets)
        self.targets_row.show_targets(self.targets)
        self.targets_row.setMinimumHeight(theme.CONTROL_HEIGHT)
        for row in (
            Row(self.tr("Folder"), self.folder),
            Row(self.tr("Name"), self.name),
            Row(
                self.tr("Targets"),
                self.targets_row,
                self.tr("What is to be segmented; this can be changed later."),
            ),
        ):
            self.body.addWidget(row)
        self.body.addStretch(1)
        self.add_button(self.tr("Cancel"), self.reject)
        self.create_button = self.add_button(self.tr("Make the study"), self._create, "primary")
        self.create_button.setEnabled(False)
        self.fit(640)
        self.folder.button.setFocus()

    def _folder_changed(self) -> None:
        path = self.folder.path()
        self.show_problem("")
        self.name.setPlaceholderText(path.name if path is not None else self.tr("As the folder is called"))
        self.create_button.setEnabled(path is not None)

    def _edit_targets(self) -> None:
        dialog = TargetsDialog(self, self.targets)
        dialog.stored.connect(self._take_targets)
        dialog.open()

    def _take_targets(self, targets: tuple[Target, ...]) -> None:
        self.targets = targets
        self.targets_row.show_targets(targets)

    def _create(self) -> None:
        folder = self.folder.path()
        if folder is None:
            return
        try:
            study = Study.create(folder, self.name.text().strip() or None, self.targets)
        except UserError as error:
            self.show_problem(str(error))
            return
        self.accept()
        self.made.emit(study)


class PublishedDialog(Dialog):
    """Imports a data set from the folders it is published in, with its masks, targets and splits."""

    chosen = Signal(str, object, object)
    """Name of the data set, its folder, and a list of test images (a path or None)."""

    def __init__(self, parent: QWidget | None) -> None:
        super().__init__(
            parent,
            self.tr("Import a published data set"),
            self.tr("Its images, masks, targets and splits come in together, best into a new study."),
        )
        self.data_set = narrow(QComboBox())
        for name, known in DATA_SETS.items():
            self.data_set.addItem(known.title, name)
        self.data_set.currentIndexChanged.connect(lambda _: self._show())
        self.folder = PathField(self.tr("Choose the data set's folder"))
        self.folder.text.textChanged.connect(lambda _: self._show())
        self.tests = PathField(self.tr("Choose a list of test images"), file=True)
        self.tests.text.setPlaceholderText(self.tr("Optional: a text file, one name a line"))
        self.tests.text.textChanged.connect(lambda _: self._show())
        self.folder_row = Row(self.tr("Folder"), self.folder)
        for row in (
            Row(self.tr("Data set"), self.data_set),
            self.folder_row,
            Row(self.tr("Test images"), self.tests),
        ):
            self.body.addWidget(row)
        self.body.addStretch(1)
        self.add_button(self.tr("Cancel"), self.reject)
        self.import_button = self.add_button(self.tr("Import"), self._accept, "primary")
        self.fit(640)
        self._show()
        self.folder.button.setFocus()

    def _show(self) -> None:
        known = DATA_SETS[self.data_set.currentData()]
        self.folder_row.set_hint(self.tr("Holds {folders}.").format(folders=known.expected))
        folder, tests = self.folder.path(), self.tests.path()
        problem = ""
        if folder is not None and not folder.is_dir():
            problem = self.tr("There is no such folder.")
        elif tests is not None and not tests.is_file():
            problem = self.tr("There is no such list of test images.")
        self.show_problem(problem)
        self.import_button.setEnabled(folder is not None and not problem)

    def _accept(self) -> None:
        values = (self.data_set.currentData(), self.folder.path(), self.tests.path())
        self.accept()
        self.chosen.emit(*values)
