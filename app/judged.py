"""Which mask a verdict is on, where it is not that of the run chosen."""

from __future__ import annotations

from app.scene import Scene
from app.widgets import label
from segmentation.review_index import Purpose


class JudgedNote:
    """What stands below the choice of masks; hidden where the mask judged is the one chosen."""

    def __init__(self) -> None:
        self.label = label("", "warning", wrap=True)
        self.label.hide()

    def show_scene(self, scene: Scene | None, purpose: Purpose) -> None:
        """Tell what is judged of a scene in place of its run's mask, and how there will be one."""
        shown = (
            scene is not None
            and scene.run_id is not None
            and scene.student is None
            and bool(scene.levels)
            and purpose != "audit"
        )
        self.label.setVisible(shown)
        if scene is None or not shown:
            return
        told = (
            self.label.tr("This run has no mask here: judged is the gaze's widest level.")
            if len(scene.levels) > 1
            else self.label.tr("This run has no mask here: judged is the gaze's pseudo-mask.")
        )
        # A run that was trained again is not asked about what somebody has reviewed.
        ways = [] if scene.verdict is not None else [self.label.tr("Predict masks, on Train, makes one.")]
        self.label.setText(" ".join([told, *ways]))
