"""What is known of the pixel under the pointer, and the card that tells it in a corner of the canvas."""

from __future__ import annotations

from dataclasses import dataclass

from PySide6.QtCore import QCoreApplication, QEvent, QObject, QPoint, QRect, Qt
from PySide6.QtWidgets import QFrame, QGridLayout, QLabel

from app import theme, windowing
from app.canvas import Canvas
from app.scene import Index, Scene
from app.widgets import box, label

EDGE = 12
"""From the card to the canvas's edges."""
NEAR = 24
"""The card makes room for a pointer that comes so close."""


@dataclass(frozen=True)
class Probe:
    """One pixel of a scene."""

    column: int
    row: int
    place_mm: tuple[float, float] | None
    """From the image's left and upper edge to the pixel's centre; None where the pixels' size is not known."""
    value: str
    heatmap: float | None
    levels: tuple[float, ...] | None
    """The thresholds of the levels that contain it, highest first; None where there is no pseudo-mask."""
    student: float | None
    teacher: float | None
    """Probabilities."""


def probe(scene: Scene, x: float, y: float) -> Probe:
    """Return what is known at a position in image pixels; beside the image, of the pixel next to it."""
    height, width = scene.image.shape[:2]
    column, row = min(max(round(x), 0), width - 1), min(max(round(y), 0), height - 1)
    spacing = scene.spacing_mm
    levels = None
    if scene.level_map is not None:
        count = int(scene.level_map[row, column])
        levels = scene.thresholds[len(scene.thresholds) - count :]
    return Probe(
        column,
        row,
        None if spacing is None else ((column + 0.5) * spacing[1], (row + 0.5) * spacing[0]),
        windowing.value_text(scene.image, scene.intensity, column, row),
        _share(scene.heatmap, row, column),
        levels,
        _share(scene.student_probability, row, column),
        _share(scene.teacher_probability, row, column),
    )


def _share(index: Index | None, row: int, column: int) -> float | None:
    return None if index is None else float(index[row, column]) / 255


def probe_rows(found: Probe) -> list[tuple[str, str]]:
    """Return what is known, in words: what it is, and how much."""

    def tr(text: str) -> str:
        return QCoreApplication.translate("Probe", text)

    rows = [(tr("Pixel"), f"{found.column}, {found.row}")]
    if found.place_mm is not None:
        rows.append((tr("Place"), f"{found.place_mm[0]:.1f}, {found.place_mm[1]:.1f} mm"))
    rows.append((tr("Value"), found.value))
    shares = ((tr("Heatmap"), found.heatmap), (tr("Student"), found.student), (tr("Teacher"), found.teacher))
    rows += [(name, f"{share:.2f}") for name, share in shares if share is not None]
    if found.levels is not None:
        rows.append((tr("Levels"), " / ".join(f"{one:g}" for one in found.levels) or tr("none")))
    return rows


class ProbeCard(QFrame):
    """Tells of the pixel under the pointer, in the corner where the pointer is not."""

    def __init__(self, canvas: Canvas) -> None:
        super().__init__(canvas)
        self.setObjectName("probe")
        self.setAttribute(Qt.WidgetAttribute.WA_TransparentForMouseEvents)
        self.top = EDGE
        """Where it begins, below what else stands in the corner."""
        self._canvas = canvas
        self._position: tuple[float, float] | None = None
        self.rows: list[tuple[QLabel, QLabel]] = []
        self._grid = QGridLayout(self)
        box(self._grid, margins=(theme.NORMAL, theme.SMALL, theme.NORMAL, theme.SMALL), spacing=0)
        self._grid.setHorizontalSpacing(theme.WIDE)
        self._grid.setColumnStretch(1, 1)
        canvas.cursor_moved.connect(self._point)
        canvas.probing_changed.connect(lambda: self._point(self._position))
        canvas.scene_changed.connect(lambda: self._point(self._position))
        canvas.installEventFilter(self)
        self.hide()

    @property
    def text(self) -> str:
        """All that is told, a line a row."""
        return "\n".join(f"{name.text()} {value.text()}" for name, value in self.rows if not name.isHidden())

    def _point(self, position: tuple[float, float] | None) -> None:
        self._position = position
        scene = self._canvas.scene
        if position is None or scene is None or not self._canvas.probing:
            self.hide()
            return
        self._fill(probe_rows(probe(scene, *position)))
        self._place(self._canvas.widget_from_image(*position).toPoint())
        self.show()
        self.raise_()

    def eventFilter(self, watched: QObject, event: QEvent) -> bool:
        """Stay in the corner of a canvas that gets another size under a resting pointer."""
        if watched is self._canvas and event.type() == QEvent.Type.Resize:
            self._point(self._position)
        return super().eventFilter(watched, event)

    def _fill(self, rows: list[tuple[str, str]]) -> None:
        while len(self.rows) < len(rows):
            name, value = label(), label()
            value.setFont(theme.number_font(12))
            value.setAlignment(Qt.AlignmentFlag.AlignRight)
            self._grid.addWidget(name, len(self.rows), 0)
            self._grid.addWidget(value, len(self.rows), 1)
            self.rows.append((name, value))
        for index, (name, value) in enumerate(self.rows):
            shown = index < len(rows)
            for widget in (name, value):
                widget.setVisible(shown)
            if shown:
                name.setText(rows[index][0])
                value.setText(rows[index][1])

    def _place(self, pointer: QPoint) -> None:
        self._grid.activate()
        size = self.sizeHint()
        # A card that grows and shrinks with its numbers would flicker.
        width = max(size.width(), self.width() if self.isVisible() else 0)
        right = QRect(self._canvas.width() - width - EDGE, self.top, width, size.height())
        near = right.adjusted(-NEAR, -NEAR, NEAR, NEAR).contains(pointer)
        self.setGeometry(right.translated(2 * EDGE + width - self._canvas.width(), 0) if near else right)
