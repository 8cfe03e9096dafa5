"""The two practice images in front of the participant: look, press Space, see how it went."""

from __future__ import annotations

import time

from PySide6.QtCore import QObject, Signal

from app.keymap import Keymap, shown
from app.practice import PracticeImage, PracticeLook
from app.recorder import Recorder
from app.stage import Stage


class PracticeRun(QObject):
    """Leads through the practice images; what is looked at there is recorded, but belongs to no image."""

    done = Signal()

    def __init__(self, recorder: Recorder, stage: Stage, keymap: Keymap, parent: QObject) -> None:
        super().__init__(parent)
        self._keymap = keymap
        self._recorder, self._stage = recorder, stage
        self._images, self._number = 0, -1
        self._image: PracticeImage | None = None
        self._judged = False

    def start(self, images: int) -> None:
        """Show the first of so many images."""
        self._images = images
        self._number = -1
        self._note(True)
        self._next()

    def go_on(self) -> None:
        """Judge the look, or, where that was done, go on to the next image."""
        if self._image is None:
            return
        if self._judged:
            self._next()
            return
        self._judged = True
        marks = self._recorder.live.marks
        self._recorder.rest()
        look = self._image.judge(marks)
        self._show(self._image, answered=True)
        self._stage.say(self._words(look))

    def skip(self) -> None:
        """Leave the practice without a word."""
        self._image = None
        self._recorder.rest()

    def _next(self) -> None:
        self._number += 1
        if self._number >= self._images:
            self._end()
            return
        self._judged = False
        self._image = PracticeImage(self._number)
        self._show(self._image, answered=False)
        self._stage.say(
            self.tr(
                "Practice {n} of {all}: find the round bulge and look all over it, then press {key}."
            ).format(n=self._number + 1, all=self._images, key=self._key)
        )
        self._recorder.practise(self._image)

    def _show(self, image: PracticeImage, *, answered: bool) -> None:
        for canvas in {self._stage.operator, self._stage.seen}:
            canvas.set_layer_visible("truth", answered)
            canvas.set_layer_visible("fixations", answered)
            canvas.set_live(None, None)
        self._stage.set_scene(image.answer(self._recorder.live.marks) if answered else image.scene)

    def _words(self, look: PracticeLook) -> str:
        measured = self.tr("{s:.1f} s in {n} fixations, {inside:.0f} % of it on the target.").format(
            s=look.seconds, n=look.fixations, inside=100 * look.inside
        )
        if not look.on_target:
            advice = self.tr("Most of it fell beside the target. If you did look at it, calibrate again.")
        elif not look.long_enough:
            advice = self.tr("Look a little longer: let your eyes wander over all of it, edge included.")
        else:
            advice = self.tr("Just so on every image.")
        onward = self.tr("{key} goes on.").format(key=self._key)
        return f"{measured} {advice} {onward}"

    @property
    def _key(self) -> str:
        return shown(self._keymap.key("next"))

    def _end(self) -> None:
        self._image = None
        self._recorder.rest()
        self._stage.say("")
        self._note(False)
        self.done.emit()

    def _note(self, on: bool) -> None:
        sitting = self._recorder.sitting
        if sitting is not None:
            self._recorder.guarded(lambda: sitting.note("practice", {"on": on}, time.monotonic_ns()))
