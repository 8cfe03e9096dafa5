"""Where everything about an image came from."""

from __future__ import annotations

from collections.abc import Sequence

from PySide6.QtWidgets import QVBoxLayout, QWidget

from app import theme
from app.scene import Scene
from app.widgets import box, heading, label
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

    def empty(self) -> None:
        """Show nothing."""
        self.text.setText("")

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
