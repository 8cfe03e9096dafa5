"""The part of the explain dialog about a model from a folder of this computer."""

from __future__ import annotations

import functools
from pathlib import Path

from PySide6.QtCore import QSettings, QTimer, Signal
from PySide6.QtWidgets import QComboBox, QFileDialog, QHBoxLayout, QVBoxLayout, QWidget

from app import theme
from app.description_rows import breakable
from app.dialogs import Row, narrow
from app.latest import Latest
from app.widgets import Button, IconLabel, box, label, set_role
from segmentation.explainers.opening import BackendOptions
from segmentation.vlm_folder import check_model_folder, is_hub_id, model_name

TYPING_MS = 300
REMEMBERED = 6


class LocalForm(QWidget):
    """Folder, device and precision; the folder is looked at as soon as it is named."""

    changed = Signal()

    def __init__(self, settings: QSettings) -> None:
        super().__init__()
        self._settings = settings
        self.problem = self.tr("Choose a model's folder.")
        self._looks = Latest(self)
        self._looks.answered.connect(self._good)
        self._looks.failed.connect(self._bad)
        layout = QVBoxLayout(self)
        box(layout, spacing=theme.NORMAL)
        self.folder = narrow(QComboBox())
        self.folder.setEditable(True)
        self.folder.setInsertPolicy(QComboBox.InsertPolicy.NoInsert)
        self.folder.addItems(self._recent())
        self.choose_button = Button(self.tr("Choose…"), "folder-open", on_click=self._choose)
        self.choose_button.setAutoDefault(False)
        field = QWidget()
        row = QHBoxLayout(field)
        box(row, spacing=theme.NORMAL)
        row.addWidget(self.folder, 1)
        row.addWidget(self.choose_button)
        self.device = QComboBox()
        self.device.setEditable(True)
        self.device.addItems(["auto", "cpu", "cuda", "mps"])
        self.dtype = QComboBox()
        self.dtype.addItems(["auto", "fp32", "bf16", "fp16"])
        device, dtype = (
            str(settings.value("explain/device", "auto")),
            str(settings.value("explain/dtype", "auto")),
        )
        self.device.setEditText(device)
        self.dtype.setCurrentText(dtype)
        self.dtype.setAccessibleName(self.tr("Precision"))
        runs = QWidget()
        row = QHBoxLayout(runs)
        box(row, spacing=theme.NORMAL)
        row.addWidget(self.device)
        row.addWidget(label(self.tr("precision"), "muted"))
        row.addWidget(self.dtype)
        row.addStretch(1)
        self.icon = IconLabel("folder-open")
        self.state = label("", "muted", wrap=True)
        told = QHBoxLayout()
        box(told, spacing=theme.NORMAL)
        told.addWidget(self.icon)
        told.addWidget(self.state, 1)
        layout.addWidget(
            Row(
                self.tr("Folder"), field,
                self.tr("With config.json, *.safetensors and the processor's files. Its own code is never run."),
            )
        )  # fmt: skip
        layout.addLayout(told)
        layout.addWidget(Row(self.tr("Device"), runs))
        self._typing = QTimer(self, singleShot=True, interval=TYPING_MS)
        self._typing.timeout.connect(self._look)
        self.folder.editTextChanged.connect(lambda _: self._follow())
        self._follow()

    def _recent(self) -> list[str]:
        stored = self._settings.value("explain/model_folders", [])
        paths = [stored] if isinstance(stored, str) else list(stored or [])  # type: ignore[call-overload]
        return [path for path in paths if Path(path).is_dir()]

    def remember(self) -> None:
        """Keep the folder and how it is run for this user."""
        folder = self.folder.currentText().strip()
        recent = [folder, *(path for path in self._recent() if path != folder)]
        self._settings.setValue("explain/model_folders", recent[:REMEMBERED])
        self._settings.setValue("explain/device", self.device.currentText().strip() or "auto")
        self._settings.setValue("explain/dtype", self.dtype.currentText())

    def options(self) -> BackendOptions:
        """Return how the model is asked."""
        return BackendOptions(
            "transformers",
            model=self.folder.currentText().strip() or None,
            device=self.device.currentText().strip() or "auto",
            dtype=self.dtype.currentText(),
        )

    def _choose(self) -> None:
        folder = QFileDialog.getExistingDirectory(self, self.tr("Choose a vision-language model's folder"))
        if folder:
            self.folder.setEditText(folder)

    def _follow(self) -> None:
        name = self.folder.currentText().strip()
        if not name:
            self._tell("folder-open", "muted", self.tr("Choose a model's folder."), usable=False)
        elif is_hub_id(name):
            sentence = self.tr(
                "Looks like a name in the Hugging Face hub: it is downloaded only where that was allowed with "
                "gaze-insight allow-sending --download."
            )
            self._tell("warning", "warning", sentence, usable=True)
        else:
            self._tell("folder-open", "muted", self.tr("Looking at it…"), usable=False)
            self._typing.start()
        self.changed.emit()

    def _look(self) -> None:
        name = self.folder.currentText().strip()
        if name and not is_hub_id(name):
            self._looks.ask(functools.partial(_look_at, Path(name).expanduser()))

    def _good(self, name: object) -> None:
        self._tell(
            "check-circle", "accent", self.tr("Whole: {name}").format(name=breakable(str(name))), usable=True
        )
        self.changed.emit()

    def _bad(self, sentence: str, _details: str) -> None:
        self._tell("warning-circle", "danger", breakable(sentence), usable=False)
        self.changed.emit()

    def _tell(self, icon: str, token: str, sentence: str, *, usable: bool) -> None:
        self.problem = "" if usable else sentence
        self.icon.set_icon(icon, token)
        set_role(self.state, token if token in ("danger", "warning") else "muted")
        self.state.setText(sentence)

    def stop(self) -> None:
        """End the thread."""
        self._typing.stop()
        self._looks.stop()


def _look_at(folder: Path) -> str:
    check_model_folder(folder)
    return model_name(folder)
