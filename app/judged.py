"""Which mask a verdict is on, where it is not that of the run chosen."""

from __future__ import annotations

from app.scene import Scene
from app.widgets import label
from segmentation.review_index import Purpose


class JudgedNote:
    """One sentence below the choice of masks; hidden where the mask judged is the one chosen."""

    def __init__(self) -> None:
        self.label = label("", "warning", wrap=True)
        self.label.hide()

    def show_scene(self, scene: Scene | None, purpose: Purpose) -> None:
        """Tell what is judged of a scene in place of its run's mask."""
        levels = (
            0 if scene is None or scene.run_id is None or scene.student is not None else len(scene.levels)
        )
        if levels:
            self.label.setText(
                self.label.tr(
                    "This run has no mask here: judged is the widest level of the gaze's pseudo-mask."
                )
                if levels > 1
                else self.label.tr("This run has no mask here: judged is the gaze's pseudo-mask.")
            )
        self.label.setVisible(bool(levels) and purpose != "audit")
