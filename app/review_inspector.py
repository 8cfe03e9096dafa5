"""The right side of the review page: what is known of the image shown, and what can be said of it."""

from __future__ import annotations

from collections.abc import Sequence

from PySide6.QtWidgets import QFrame, QHBoxLayout, QVBoxLayout, QWidget

from app import theme
from app.again_button import AgainButton
from app.canvas import Canvas
from app.description_panel import DescriptionPanel
from app.judged import JudgedNote
from app.layer_panel import LayerPanel
from app.looked_at import LookedAt
from app.provenance import Provenance
from app.run_choice import RunChoice
from app.scene import Scene, word_weights
from app.session import Session
from app.targets_bar import TargetsBar
from app.verdict_bar import VerdictBar
from app.volumes import entry_of
from app.widgets import ElidedLabel, Pill, box, heading, label, line, scrolled
from segmentation.doubt import Doubt
from segmentation.review_index import Purpose, Review
from segmentation.study import Study

WIDTH = 324


class ReviewInspector(QFrame):
    """Shows one image and target; what its parts ask for is told by them."""

    def __init__(self, session: Session, canvas: Canvas) -> None:
        super().__init__()
        self.setObjectName("panelRight")
        self.setFixedWidth(WIDTH)
        self._purpose: Purpose = "review"
        self.title = ElidedLabel()
        self.title.setFont(theme.heading_font(16))
        self.pill = Pill()
        self.facts = label("", "muted", wrap=True)
        self.why = label("", wrap=True)
        self.runs = RunChoice()
        self._run_row = QWidget()
        self.judged = JudgedNote()
        self.training = AgainButton()
        self.targets = TargetsBar()
        self._layers_title = heading(self.tr("Layers"))
        self.layers = LayerPanel(canvas)
        self.description = DescriptionPanel(session, canvas)
        self.description.left.connect(canvas.setFocus)
        self.provenance = Provenance()
        self.looked = LookedAt(canvas, self)
        self.verdict_bar = VerdictBar()
        self._arrange()

    def _arrange(self) -> None:
        title = QHBoxLayout()
        title.addWidget(self.title, 1)
        title.addWidget(self.pill)
        run_row = QHBoxLayout(self._run_row)
        box(run_row)
        run_row.addWidget(label(self.tr("Masks of"), "muted"))
        run_row.addWidget(self.runs, 1)
        body = QWidget()
        column = QVBoxLayout(body)
        box(column, margins=(theme.LARGE, theme.WIDE, theme.LARGE, theme.LARGE), spacing=theme.NORMAL)
        column.addLayout(title)
        for part in (self.facts, self.why, self._run_row, self.judged.label, self.training, self.targets):
            column.addWidget(part)
        column.addSpacing(theme.NORMAL)
        column.addWidget(self._layers_title)
        column.addWidget(self.layers)
        for part in (self.description, self.provenance, self.looked):
            column.addSpacing(theme.NORMAL)
            column.addWidget(part)
        column.addStretch(1)
        outer = QVBoxLayout(self)
        box(outer, spacing=0)
        outer.addWidget(scrolled(body), 1)
        outer.addWidget(line())
        outer.addWidget(self.verdict_bar)

    def set_purpose(self, purpose: Purpose) -> None:
        """Show what tells what others said, or found, only where that may be known."""
        self._purpose = purpose
        self.description.setVisible(purpose == "review")
        self.training.withhold(purpose != "review")
        for part in (self.provenance, self._run_row, self.layers, self._layers_title):
            part.setVisible(purpose != "audit")

    def show_nothing(self, study: Study | None) -> None:
        """Show that there is no image, or none that can be read."""
        self._show_scene(study, None)
        self.pill.hide()
        self.title.setText("")
        self.facts.setText("")
        self.why.hide()
        self.provenance.empty()

    def show_image(
        self,
        study: Study,
        scene: Scene,
        state: tuple[str, str],
        review: Review | None,
        place: str = "",
        remarks: Sequence[str] = (),
    ) -> None:
        """Show what is known of an image.

        Parameters
        ----------
        state
            How it stands for the target: a word, and the token of its colour.
        review
            The one that counts.
        place
            Which slice it is of how many; empty for an image on its own.
        remarks
            Sentences that the reader should know.
        """
        self._show_scene(study, scene)
        if scene.words is not None:
            self.description.show_weights(word_weights(scene.words, scene.image.shape[:2]))
        blind = self._purpose != "review"
        self.pill.set(*state)
        self.pill.setVisible(not blind)
        image = study.image(scene.image_id)
        height, width, _ = image.shape
        facts = [self.tr("{width} × {height} px").format(width=width, height=height)]
        if image.spacing_mm is not None:
            facts.append(self.tr("{spacing:.3g} mm a pixel").format(spacing=image.spacing_mm[1]))
        if place:
            facts.append(self.tr("slice {place}").format(place=place))
        facts.append(self.tr("split {split}").format(split=image.split))
        self.title.setText(entry_of(study, image.id).name)
        self.facts.setText("\n".join([" · ".join(facts), *remarks]))
        self.provenance.tell_origins(study, scene, None if blind else review)

    def _show_scene(self, study: Study | None, scene: Scene | None) -> None:
        self.layers.show_scene(scene)
        self.description.show_scene(study, scene)

    def show_doubt(self, doubt: Doubt | None) -> None:
        """Say how far the mask shown is to be doubted, and why; None: that is being worked out."""
        if doubt is None:
            self.why.setText(self.tr("How far masks are to be doubted is being worked out…"))
        else:
            reasons = "; ".join(doubt.reasons) or self.tr("nothing speaks against this mask")
            self.why.setText(self.tr("Doubt {doubt:.2f}: {why}.").format(doubt=doubt.score, why=reasons))
        self.why.show()
