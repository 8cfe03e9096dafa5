"""What is known of an image: its description, and where everything about it came from."""

from __future__ import annotations

from collections.abc import Sequence

from PySide6.QtCore import Qt
from PySide6.QtWidgets import QFormLayout, QHBoxLayout, QVBoxLayout, QWidget

from app import theme
from app.scene import Scene
from app.widgets import Pill, box, clear, heading, label
from segmentation.explanation import Explanation
from segmentation.study import Review, Study


class Description(QWidget):
    """The explanation's attributes and the provenance, as text."""

    def __init__(self) -> None:
        super().__init__()
        self.origin = Pill()
        self.attributes = QFormLayout()
        self.provenance = label("", "muted", wrap=True)
        column = QVBoxLayout(self)
        box(column, spacing=theme.NORMAL)
        described = QHBoxLayout()
        described.addWidget(heading(self.tr("Description")), 1)
        described.addWidget(self.origin)
        box(self.attributes, spacing=theme.SMALL)
        self.attributes.setHorizontalSpacing(theme.WIDE)
        self.attributes.setLabelAlignment(Qt.AlignmentFlag.AlignLeft)
        self.attributes.setFieldGrowthPolicy(QFormLayout.FieldGrowthPolicy.ExpandingFieldsGrow)
        column.addLayout(described)
        column.addLayout(self.attributes)
        column.addSpacing(theme.NORMAL)
        column.addWidget(heading(self.tr("Provenance")))
        column.addWidget(self.provenance)

    def empty(self) -> None:
        """Show nothing."""
        clear(self.attributes)
        self.origin.hide()
        self.provenance.setText("")

    def describe(self, explanation: Explanation | None) -> None:
        """Show an explanation, or that there is none."""
        clear(self.attributes)
        self.origin.setVisible(explanation is not None)
        if explanation is None:
            self.attributes.addRow(label(self.tr("None yet."), "muted"))
            return
        measured = explanation.backend == "measured"
        self.origin.set(
            self.tr("Measured") if measured else self.tr("VLM"), "muted" if measured else "warning"
        )
        self.origin.setToolTip(
            self.tr("Computed from the pixels of the gazed region; nobody wrote it")
            if measured
            else self.tr("Written by {model}; check it").format(
                model=explanation.model or explanation.backend
            )
        )
        for name, value in explanation.attributes.items():
            if value in (None, "", []):
                continue
            words = (
                ", ".join(map(str, value))
                if isinstance(value, list)
                else f"{value:g}"
                if isinstance(value, float)
                else str(value)
            )
            self.attributes.addRow(
                label(name.replace("_", " ").capitalize(), "muted"), label(words, wrap=len(words) > 26)
            )

    def tell_origins(self, study: Study, scene: Scene, review: Review | None) -> None:
        """Say where gaze, masks and the verdict came from."""
        self.provenance.setText("\n".join(self._origins(study, scene, review)))

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
