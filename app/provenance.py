"""Where everything about an image came from."""

from __future__ import annotations

from collections.abc import Sequence

from PySide6.QtCore import QPoint, Qt, QTimer
from PySide6.QtWidgets import QScrollArea, QVBoxLayout, QWidget

from app import theme
from app.scene import Scene
from app.widgets import box, clear, heading, label
from segmentation.provenance import Story
from segmentation.study import Review, Study


class Provenance(QWidget):
    """Gaze, masks and the verdict, a line each."""

    def __init__(self) -> None:
        super().__init__()
        self.text = label("", "muted", wrap=True)
        column = QVBoxLayout(self)
        box(column, spacing=theme.NORMAL)
        column.addWidget(heading(self.tr("Provenance")))
        column.addWidget(self.text)
        self.story: Story | None = None
        """What is told of one pixel."""
        self._pixel = QWidget()
        self._lines = QVBoxLayout(self._pixel)
        box(self._lines, spacing=theme.SMALL)
        self._pixel.hide()
        column.addWidget(self._pixel)
        self._hint = label(self.tr("Alt+click a pixel, or H over it: what made it"), "muted", wrap=True)
        column.addWidget(self._hint)

    def empty(self) -> None:
        """Show nothing."""
        self.text.setText("")

    def tell_pixel(self, story: Story | None) -> None:
        """Say what made one pixel what it is, or with None of no pixel any more."""
        self.story = story
        clear(self._lines)
        self._pixel.setVisible(story is not None)
        if story is None:
            return
        for number, one in enumerate(story.lines):
            said = label(one.text, "" if number == 0 else "muted", wrap=True)
            said.setTextFormat(Qt.TextFormat.PlainText)
            said.setTextInteractionFlags(Qt.TextInteractionFlag.TextSelectableByMouse)
            self._lines.addWidget(said)
            # Shown at once, or the layout would not know of it when the panel scrolls to it.
            said.show()
        area = self._scroll_area()
        if area is not None:
            # Once the new lines have their place.
            QTimer.singleShot(0, self._pixel, lambda: self._scroll_to_pixel(area))

    def _scroll_to_pixel(self, area: QScrollArea) -> None:
        inside = area.widget()
        assert inside is not None
        top = self._pixel.mapTo(inside, QPoint(0, 0)).y()
        area.verticalScrollBar().setValue(top - theme.WIDE)

    def _scroll_area(self) -> QScrollArea | None:
        parent = self.parentWidget()
        while parent is not None and not isinstance(parent, QScrollArea):
            parent = parent.parentWidget()
        return parent

    def tell_origins(self, study: Study, scene: Scene, review: Review | None) -> None:
        """Say where gaze, masks and the verdict came from."""
        self.text.setText("\n".join(self._origins(study, scene, review)))

    def _origins(self, study: Study, scene: Scene, review: Review | None) -> Sequence[str]:
        lines = []
        for item in study.fixations.get((scene.image_id, scene.target_id), []):
            simulated = (
                self.tr(", simulated from {what}").format(what=item.simulated_from)
                if item.simulated_from
                else ""
            )
            lines.append(
                self.tr("Gaze: {annotator}, {count} fixations, {seconds:.1f} s{simulated}").format(
                    annotator=item.annotator,
                    count=len(item.duration_ms),
                    seconds=float(item.duration_ms.sum()) / 1000,
                    simulated=simulated,
                )
            )
        if scene.thresholds:
            levels = " / ".join(f"{value:g}" for value in scene.thresholds)
            lines.append(self.tr("Pseudo-mask: levels {levels}").format(levels=levels))
        if scene.student is not None:
            lines.append(self.tr("Prediction: {run}").format(run=scene.run_id))
        if review is not None:
            lines.append(
                self.tr("Review: {annotator}, {when}").format(
                    annotator=review.annotator, when=review.reviewed_at[:16].replace("T", " ")
                )
            )
        return lines or [self.tr("Nothing recorded yet.")]
