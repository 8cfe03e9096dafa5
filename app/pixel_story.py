"""Where a pixel comes from, asked with Alt+click or H: told in the inspector, its fixations shown in the image."""

from __future__ import annotations

import math
from collections.abc import Sequence

import cv2
import numpy as np
from PySide6.QtCore import QObject, Signal

from app.canvas import Canvas
from app.highlight import Highlight
from app.latest import NO_FLICKER_MS, Latest
from app.provenance import Provenance
from app.scene import Outline, Scene, outline
from segmentation.provenance import Story, provenance
from segmentation.study import Study

LEAST_RADIUS_SHARE, RADIUS_SHARE = 0.008, 0.03
"""Of the image's longer side: a fixation that gives nothing, and what one that gives all adds to that."""
MARKER_SHARE = 0.012
SMOOTH_SIDE_PX = 1200


class PixelStories(QObject):
    """Asks in a thread; what was asked of another image is forgotten."""

    failed = Signal(str, str)

    def __init__(self, canvas: Canvas, panel: Provenance, parent: QObject) -> None:
        super().__init__(parent)
        self._canvas, self._panel = canvas, panel
        self._pointer: tuple[float, float] | None = None
        self._highlight: Highlight | None = None
        self._wanted: tuple[str, str, tuple[int, int]] | None = None
        """Image, target and pixel that were asked about last."""
        self._latest = Latest(self)
        self._latest.answered.connect(self._tell)
        self._latest.failed.connect(self._fail)
        canvas.cursor_moved.connect(self._point)

    def _point(self, place: tuple[float, float] | None) -> None:
        self._pointer = place

    def ask(
        self, study: Study, pixel: tuple[float, float] | None, run_id: str | None, hides: Sequence[str] = ()
    ) -> None:
        """Ask about a pixel (x, y) of the image shown, or with None about that under the pointer; again ends it.

        A pointer that rests beside the image asks about nothing.
        """
        scene, place = self._canvas.scene, pixel or self._pointer
        if scene is None or place is None:
            return
        x, y = (math.floor(value + 0.5) for value in place)
        height, width = scene.image.shape[:2]
        if not (0 <= x < width and 0 <= y < height):
            # The pointer was on an image before, a larger one.
            return
        image_id, target_id = scene.image_id, scene.target_id
        if self._wanted == (image_id, target_id, (x, y)):
            self.forget()
            return
        self._wanted = (image_id, target_id, (x, y))

        def told() -> tuple[Story, Highlight]:
            story = provenance(study, image_id, target_id, run_id=run_id, pixel=(x, y), hides=hides)
            return story, highlight_of(story, (height, width))

        self._latest.ask(told, NO_FLICKER_MS)

    def follow(self, scene: Scene | None) -> None:
        """Forget the pixel once another image or target is shown."""
        if scene is None or self._wanted is None or (scene.image_id, scene.target_id) != self._wanted[:2]:
            self.forget()

    def forget(self) -> None:
        """Tell of no pixel any more."""
        self._wanted = None
        self._panel.tell_pixel(None)
        if self._highlight is not None:
            self._highlight = None
            self._canvas.set_highlight(None)

    def _fail(self, sentence: str, details: str) -> None:
        # Asked again, it is tried again.
        self._wanted = None
        self.failed.emit(sentence, details)

    def _tell(self, answer: tuple[Story, Highlight]) -> None:
        story, highlight = answer
        if (story.image_id, story.target_id, story.pixel) == self._wanted:
            self._highlight = highlight
            self._panel.tell_pixel(story)
            self._canvas.set_highlight(highlight)

    def stop(self) -> None:
        """End the thread."""
        self._latest.stop()


def highlight_of(story: Story, shape: tuple[int, ...]) -> Highlight:
    """Return the fixations whose heat reaches a pixel, the larger the more each gives, and a frame around the pixel."""
    assert story.pixel is not None
    longest = max(shape[:2])
    # In a small image a disc of its own pixels would look like a star.
    scale = max(1, round(SMOOTH_SIDE_PX / longest))
    discs = np.zeros((shape[0] * scale, shape[1] * scale), np.uint8)
    for (x, y), share in zip(story.fixations_xy.tolist(), story.shares.tolist(), strict=True):
        radius = longest * (LEAST_RADIUS_SHARE + RADIUS_SHARE * math.sqrt(share)) * scale
        centre = (round((x + 0.5) * scale - 0.5), round((y + 0.5) * scale - 0.5))
        cv2.circle(discs, centre, max(1, round(radius)), 1, cv2.FILLED)
    drawn = outline(discs).contours
    reach = max(1.0, MARKER_SHARE * longest)
    x, y = story.pixel
    corners = ((-1, -1), (1, -1), (1, 1), (-1, 1))
    frame = Outline((np.array([(x + reach * right, y + reach * down) for right, down in corners]),))
    return Highlight(Outline(tuple((one + 0.5) / scale - 0.5 for one in drawn)), beside=frame)
