"""The pretrained encoder a run begins with: none, one this user had before, or one from a folder."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from PySide6.QtCore import Qt, Signal
from PySide6.QtWidgets import QComboBox, QFileDialog, QVBoxLayout, QWidget

from app.dialogs import in_background, narrow
from app.jobs import StepProgress
from app.widgets import box, label, set_role
from gaze_capture.errors import UserError
from segmentation.job import RunSpec
from segmentation.known_folders import remembered_folders
from segmentation.network_steps import with_encoder
from segmentation.study import Study

FIELDS = ("encoder", "encoder_sha256", "encoder_config")


class EncoderChoice(QWidget):
    """A list of folders; the one chosen is looked at by a worker, and nothing of it is run."""

    changed = Signal()

    def __init__(self) -> None:
        super().__init__()
        self._study: Study | None = None
        self._chosen = 0
        self._folder: Path | None = None
        self.fields: dict[str, Any] = {}
        """Those of the spec that begins with the encoder; empty without one."""
        self.problem = ""
        """Why the choice cannot be used, or not yet; empty where it can."""
        layout = QVBoxLayout(self)
        box(layout, spacing=2)
        self.list = narrow(QComboBox())
        self.state = label("", "muted", wrap=True)
        self.state.hide()
        layout.addWidget(self.list)
        layout.addWidget(self.state)
        self._fill()
        self.list.activated.connect(self._choose)

    def set_study(self, study: Study | None) -> None:
        """Say whose permissions count; the choice stays."""
        self._study = study
        self.list.setEnabled(study is not None)

    def _fill(self, chosen: Path | None = None) -> None:
        folders = remembered_folders("image")
        if chosen is not None and chosen not in folders:
            folders.append(chosen)
        self.list.clear()
        self.list.addItem(self.tr("none"), None)
        for folder in folders:
            self.list.addItem(folder.name, folder)
            self.list.setItemData(self.list.count() - 1, str(folder), Qt.ItemDataRole.ToolTipRole)
        self.list.addItem(self.tr("Choose a folder…"), "")
        self.list.setCurrentIndex(folders.index(chosen) + 1 if chosen is not None else 0)
        self._chosen = self.list.currentIndex()

    def _choose(self, index: int) -> None:
        folder = self.list.itemData(index)
        if folder == "":
            picked = QFileDialog.getExistingDirectory(
                self, self.tr("Choose the folder of a ResNet, ConvNeXt, Swin or DINOv2")
            )
            if not picked:
                self.list.setCurrentIndex(self._chosen)
                return
            folder = Path(picked)
            self._fill(folder)
        self._chosen = self.list.currentIndex()
        self._look(folder)

    def _look(self, folder: Path | None) -> None:
        self.fields, self.problem, self._folder = {}, "", folder
        study = self._study
        if folder is not None and study is not None:
            self.problem = self.tr("The encoder is being looked at…")

            def look(_progress: StepProgress) -> tuple[Path, RunSpec | str]:
                try:
                    return folder, with_encoder(study, RunSpec(), folder)
                except UserError as error:
                    return folder, str(error)

            in_background(look, self.tr("Looking at the encoder"), self._looked, self._bad)
        self._tell(self.problem, "muted")
        self.changed.emit()

    def _looked(self, found: tuple[Path, RunSpec | str]) -> None:
        folder, answer = found
        if folder != self._folder:
            # Another one was chosen meanwhile.
            return
        if isinstance(answer, str):
            self._bad(answer, "")
            return
        self.fields = {name: getattr(answer, name) for name in FIELDS}
        self.problem = ""
        kind = str(answer.encoder_config["config"].get("model_type", ""))
        self._tell(self.tr("{name}, a {kind}").format(name=answer.encoder, kind=kind), "muted")
        self.changed.emit()

    def _bad(self, sentence: str, _details: str) -> None:
        self.problem = sentence
        self._tell(sentence, "danger")
        self.changed.emit()

    def _tell(self, text: str, role: str) -> None:
        set_role(self.state, role)
        self.state.setText(text)
        self.state.setVisible(bool(text))
