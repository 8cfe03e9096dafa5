"""What the study page is made of: cards with counts, the next step, and a place to drop files."""

from __future__ import annotations

from pathlib import Path

from PySide6.QtCore import Signal
from PySide6.QtGui import QDragEnterEvent, QDragLeaveEvent, QDropEvent
from PySide6.QtWidgets import QFrame, QHBoxLayout, QProgressBar, QVBoxLayout, QWidget

from app import theme
from app.overview import Overview, Step
from app.widgets import Button, Card, ElidedLabel, IconButton, IconLabel, box, heading, label
from segmentation.study import TEST_SPLIT


class CountCard(Card):
    """An icon, a count, how much of the whole that is, and what is missing."""

    def __init__(self, icon: str, title: str, action: IconButton | None = None) -> None:
        super().__init__(clickable=True)
        layout = QVBoxLayout(self)
        box(layout, margins=(theme.LARGE, theme.WIDE, theme.LARGE, theme.WIDE), spacing=theme.SMALL)
        head = QHBoxLayout()
        box(head, spacing=theme.NORMAL)
        self.icon = IconLabel(icon)
        head.addWidget(self.icon)
        head.addWidget(label(title, "muted"), 1)
        if action is not None:
            # No higher than the line it is in.
            action.setFixedHeight(20)
            head.addWidget(action)
        self.number = label("–")
        self.number.setFont(theme.heading_font(20))
        self.bar = QProgressBar()
        self.bar.setProperty("role", "thin")
        self.bar.setTextVisible(False)
        self.bar.setRange(0, 1000)
        self.missing = ElidedLabel(" ", "muted")
        font = self.missing.font()
        font.setPixelSize(12)
        self.missing.setFont(font)
        layout.addLayout(head)
        layout.addWidget(self.number)
        layout.addWidget(self.bar)
        layout.addWidget(self.missing)
        self.setAccessibleName(title)

    def show_count(self, count: int, whole: int | None, missing: str) -> None:
        """Show a count out of a whole (None where there is no such thing)."""
        self.number.setText(f"{count:,}")
        policy = self.bar.sizePolicy()
        policy.setRetainSizeWhenHidden(True)
        self.bar.setSizePolicy(policy)
        self.bar.setVisible(bool(whole))
        self.bar.setValue(round(1000 * min(1.0, count / whole)) if whole else 0)
        self.missing.setText(missing or " ")
        self.icon.set_icon(self.icon._icon, "accent" if count else "muted")


def images_words(widget: QWidget, o: Overview) -> str:
    """Return the images card's lower line: volumes and patients where there are any, and the splits."""
    parts = []
    if o.volumes:
        parts.append(
            widget.tr("1 volume") if o.volumes == 1 else widget.tr("{n} volumes").format(n=f"{o.volumes:,}")
        )
    if o.patients is not None:
        parts.append(
            widget.tr("1 patient")
            if o.patients == 1
            else widget.tr("{n} patients").format(n=f"{o.patients:,}")
        )
    others = [(name, count) for name, count in o.splits if name != "train"]
    if others:
        parts += [
            widget.tr("{n} for testing").format(n=f"{count:,}") if name == TEST_SPLIT else f"{count:,} {name}"
            for name, count in others
        ]
    elif not parts and o.images:
        parts.append(widget.tr("all for training"))
    return " · ".join(parts)


def text_warning(widget: QWidget, count: int) -> str:
    """Return the warning about text in the pixels of so many images; nothing for none."""
    if not count:
        return ""
    if count == 1:
        return widget.tr("Text is likely in the pixels of 1 image; it may name the patient.")
    return widget.tr("Text is likely in the pixels of {n} images; it may name patients.").format(
        n=f"{count:,}"
    )


class DropZone(QFrame):
    """Takes files and folders dropped on it."""

    dropped = Signal(list)
    """Paths."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.setObjectName("dropZone")
        self.setAcceptDrops(True)
        self.setMinimumHeight(72)
        layout = QHBoxLayout(self)
        layout.addStretch(1)
        layout.addWidget(IconLabel("download-simple"))
        layout.addWidget(label(text, "muted"))
        layout.addStretch(1)

    def heat(self, hot: bool) -> None:
        """Show that files are held over it."""
        self.setProperty("hot", hot)
        self.style().unpolish(self)
        self.style().polish(self)

    def dragEnterEvent(self, event: QDragEnterEvent) -> None:
        """Take files."""
        if event.mimeData().hasUrls():
            event.acceptProposedAction()
            self.heat(True)

    def dragLeaveEvent(self, event: QDragLeaveEvent) -> None:
        """Cool down."""
        self.heat(False)

    def dropEvent(self, event: QDropEvent) -> None:
        """Tell what was dropped."""
        self.heat(False)
        paths = [Path(url.toLocalFile()) for url in event.mimeData().urls() if url.isLocalFile()]
        if paths:
            event.acceptProposedAction()
            self.dropped.emit(paths)


class NextStep(QFrame):
    """The one next step: what it is, why, and its button; further buttons where there are other ways."""

    acted = Signal()
    second_acted = Signal()
    other_acted = Signal()

    def __init__(self) -> None:
        super().__init__()
        self.setObjectName("hero")
        layout = QHBoxLayout(self)
        box(layout, margins=(20, 20, 20, 20), spacing=theme.LARGE)
        self._hero_icon = IconLabel("arrow-right", "accent", 32)
        self._hero_title = heading("", 16)
        self._hero_text = label("", "muted", wrap=True)
        texts = QVBoxLayout()
        box(texts, spacing=theme.SMALL)
        texts.addWidget(self._hero_title)
        texts.addWidget(self._hero_text)
        self.second_button = Button("")
        self.second_button.setStyleSheet("min-height: 38px;")
        self.next_button = Button("", "", "primary")
        layout.addWidget(self._hero_icon)
        layout.addLayout(texts, 1)
        self.other_button = Button(self.tr("Describe with…"), on_click=self.other_acted.emit)
        self.other_button.setStyleSheet("min-height: 38px;")
        layout.addWidget(self.second_button)
        layout.addWidget(self.other_button)
        layout.addWidget(self.next_button)
        self.next_button.clicked.connect(lambda _=False: self.acted.emit())
        self.second_button.clicked.connect(lambda _=False: self.second_acted.emit())

    def show_step(self, o: Overview) -> None:
        """Show the next step of a study."""
        step = o.next_step
        words: dict[Step, tuple[str, str, str, str, str]] = {
            "import": (
                "image",
                self.tr("Bring in the images"),
                self.tr(
                    "Pictures, DICOM, NIfTI, NRRD or video: files or whole folders. They are copied into the study."
                ),
                self.tr("Import images…"),
                "",
            ),
            "gaze": (
                "eye",
                self.tr("Look at the images"),
                self.tr("None has gaze yet. Record it, import it, or simulate it to try things out."),
                self.tr("Record gaze"),
                self.tr("Simulate gaze"),
            ),
            "pseudomasks": (
                "stack",
                self.tr("Turn gaze into pseudo-masks"),
                self.tr("{n} images have gaze and no pseudo-mask yet.").format(
                    n=o.gaze - o.absent - o.pseudomasks
                ),
                self.tr("Make pseudo-masks"),
                "",
            ),
            "explain": (
                "chat-text",
                self.tr("Describe what was looked at"),
                self.tr(
                    "Location, shape, border, colour and texture of each gazed region, measured from the pixels."
                ),
                self.tr("Describe regions"),
                self.tr("Skip to training"),
            ),
            "train": (
                "chart-line-up",
                self.tr("Train a model"),
                self.tr(
                    "{n} images are ready. Training runs in the background; the window may be closed."
                ).format(n=o.trainable),
                self.tr("Go to training"),
                "",
            ),
            "wait": (
                "chart-line-up",
                self.tr("Training is running"),
                self.tr("Curves and sample masks are on the training page."),
                self.tr("Watch"),
                "",
            ),
            "predict": (
                "selection-all",
                self.tr("See what the model learned"),
                self.tr("The latest model is done and has not predicted any mask yet."),
                self.tr("Predict masks"),
                "",
            ),
            "review": (
                "check-square-offset",
                self.tr("Review the masks"),
                self.tr("{done} of {all} images are reviewed. Accept a mask, or reject it.").format(
                    done=o.reviews, all=o.images
                ),
                self.tr("Review"),
                "",
            ),
            "finished": (
                "check-circle",
                self.tr("Everything is reviewed"),
                self.tr("Add images, or train again: accepted masks make the next model better."),
                self.tr("Go to training"),
                "",
            ),
        }
        icon, title, text, button, second = words[step]
        self._hero_icon.set_icon(icon, "accent")
        self._hero_title.setText(title)
        self._hero_text.setText(text)
        self.next_button.setText(button)
        self.second_button.setText(second)
        self.second_button.setVisible(bool(second))
        self.other_button.setVisible(step == "explain")
