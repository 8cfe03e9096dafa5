"""Which mask a verdict is on, where that may not be what the page's choice of a run suggests."""

from __future__ import annotations

from app.scene import Scene
from app.widgets import label, set_role
from segmentation.review_index import Purpose


class JudgedNote:
    """One sentence below the choice of masks; hidden where the mask judged is the one chosen."""

    def __init__(self) -> None:
        self.label = label("", wrap=True)
        self.label.hide()

    def show_scene(self, scene: Scene | None, purpose: Purpose) -> None:
        """Tell what is judged of a scene."""
        shown = scene is not None and scene.student is None and bool(scene.levels) and purpose != "audit"
        self.label.setVisible(shown)
        if not shown or scene is None:
            return
        several = len(scene.levels) > 1
        if scene.run_id is None:
            text = self.label.tr("Judged is the widest level.") if several else ""
            set_role(self.label, "muted")
        else:
            text = (
                self.label.tr(
                    "This run has no mask here: judged is the widest level of the gaze's pseudo-mask."
                )
                if several
                else self.label.tr("This run has no mask here: judged is the gaze's pseudo-mask.")
            )
            set_role(self.label, "warning")
        self.label.setText(text)
        self.label.setVisible(bool(text))
