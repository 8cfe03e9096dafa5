"""What the record page shows of the study: the session's image, on the stage, with its slices and what comes next."""

from __future__ import annotations

from PySide6.QtCore import QObject, Signal

from app.canvas_frame import NO_MARKS, CanvasFrame
from app.prefetch import Prefetcher
from app.record_list import RecordList
from app.scene import SceneCache, bare, with_changes
from app.session import Session
from app.stage import Stage
from gaze_capture.errors import UserError
from segmentation.study import Study

PREFETCHED = 4


class RecordScenes(QObject):
    """Shows one image at a time; those after it in the list, or in the volume, are read ahead."""

    failed = Signal(str, str)
    """A sentence, and details."""

    def __init__(
        self, session: Session, stage: Stage, frame: CanvasFrame, images: RecordList, parent: QObject
    ) -> None:
        super().__init__(parent)
        self._session, self._stage, self._frame, self._images = session, stage, frame, images
        self._study: Study | None = None
        self._cache: SceneCache | None = None
        self._ahead = Prefetcher(self)

    def follow(self, study: Study, *, anew: bool) -> None:
        """Show images of a study from now on; `anew`: what was read of it before is not to be trusted."""
        if study is not self._study or self._cache is None:
            self._study, self._cache = study, SceneCache(study)
        elif anew:
            self._cache.forget()

    def show(self, *, alone: bool) -> None:
        """Show the session's image.

        Parameters
        ----------
        alone
            Whether nothing but the image may be seen: whoever is recorded must not know where they, or others, looked
            before.
        """
        study, cache, session = self._study, self._cache, self._session
        image_id, target_id = session.image_id, session.target_id
        if study is None or cache is None or image_id is None or study is not session.study:
            return
        slices = study.slices_beside(image_id)
        self._frame.show_slices(slices, image_id, NO_MARKS if alone else self._images.marks(study, slices))
        self._images.panel.select(image_id)
        try:
            scene = cache.get(image_id, target_id)
        except UserError as error:
            self._stage.set_scene(None)
            self.failed.emit(str(error), "")
            return
        self._stage.set_scene(bare(scene) if alone else with_changes(scene, heatmap=None))
        following = self._frame.slices.ahead(PREFETCHED) if len(slices) > 1 else []
        names = [*following, self._images.panel.neighbour(image_id, 1)]
        self._ahead.request(cache, [(name, target_id, None, False) for name in names if name])

    def stop(self) -> None:
        """End the thread."""
        self._ahead.stop()
