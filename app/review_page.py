"""Review: the queue, the image with every layer the study has of it, and the verdict."""

from __future__ import annotations

import functools

from PySide6.QtCore import QEvent, Qt
from PySide6.QtGui import QHideEvent, QKeyEvent, QShowEvent
from PySide6.QtWidgets import QHBoxLayout

from app.another_look import AnotherLook
from app.canvas_frame import CanvasFrame
from app.centre import Centre
from app.comparison import Comparison
from app.describe_again import task_of
from app.description_panel import Revised
from app.edit_mode import Editing
from app.left_edits import LeftEdits
from app.page import Page
from app.pixel_story import PixelStories
from app.prefetch import Prefetcher
from app.review_clock import ReviewClock
from app.review_inspector import ReviewInspector
from app.review_list import ReviewList
from app.scene import Scene, SceneCache
from app.session import Session
from app.targets_bar import beside
from app.verdict_history import VerdictHistory
from app.verdicts import Judged, Word
from app.volumes import SliceMarks, entries, first_image
from app.widgets import box
from gaze_capture.errors import UserError
from segmentation.study import Study

SLICES_PREFETCHED = 4
VERDICTS: dict[int, Word] = {
    Qt.Key.Key_A: "accepted",
    Qt.Key.Key_R: "rejected",
    Qt.Key.Key_0: "nothing",
    Qt.Key.Key_Q: "unsure",
    Qt.Key.Key_U: "ungradable",
}


class ReviewPage(Page):
    """Keys: A accept, E edit, R reject, 0 nothing here, Q unsure, U ungradable, G look again, Z undo.

    Space or N is next, Backspace back, D approves the description, H tells where a pixel comes from.
    Tab goes to the next target; in a volume Up and Down scroll, and verdicts count for the slice shown.
    """

    def __init__(self, session: Session) -> None:
        super().__init__(session)
        self._cache: SceneCache | None = None
        self._told: set[str] = set()
        """Masks that could not be read: each is told of once."""
        self._cached_study: Study | None = None
        self.history = VerdictHistory(self._after_verdict)
        self.clock = ReviewClock()
        self.again = AnotherLook(self)
        self.again.notice.connect(self.notice)
        self._untouched = True
        """Whether nobody has gone anywhere in this study yet: the queue may begin where it begins."""
        self._over = False
        """Whether reading blind has come to its end, or just begun: with nothing left no image is shown."""
        self._others_read = False
        self._heading = 1
        """Which way the reader goes through the list: what comes next there is built ahead."""
        self._ahead = Prefetcher(self)
        self.queue = ReviewList(session, self)
        self.queue.failed.connect(self.error)
        self.queue.learned.connect(self._follow_facts)
        self.queue.ordered.connect(self._follow_order)
        self.queue.counted.connect(self._show_progress)
        self.list = self.queue.panel
        self.list.chosen.connect(self._go_to)
        self.reading = self.queue.reading
        self.reading.changed.connect(self._begin_reading)
        self.frame = CanvasFrame(reviewing=True)
        self.canvas = self.frame.canvas
        self.canvas.set_probing(True)
        self.comparing = Comparison(self.frame)
        self.comparing.failed.connect(lambda text: self.error.emit(text, ""))
        self.comparing.told.connect(self.notice)
        self.comparing.scene_wanted.connect(self._show_image)
        self.canvas.tabbed.connect(self.next_target)
        self.canvas.layers_changed.connect(self._follow_others)
        self.frame.slices.chosen.connect(self.session.set_image)
        self.editing = Editing(session, self.canvas, self.clock, lambda: self.give("accepted"))
        self.editing.changed.connect(self._follow_editing)
        self.editing.error.connect(lambda sentence: self.error.emit(sentence, ""))
        self.editing.lost.connect(self.lost)
        self.editing.notice.connect(self.notice)
        self.left = LeftEdits(session, self.list, self.reading, self.editing)
        self.left.error.connect(lambda sentence: self.error.emit(sentence, ""))
        self.left.notice.connect(self.notice)
        self._centre = Centre(
            self.frame,
            "check-square-offset",
            self.tr("Masks are reviewed here. Open a study with images first."),
        )
        self._centre.study_wanted.connect(lambda: self.page_wanted.emit("study"))
        layout = QHBoxLayout(self)
        box(layout, spacing=0)
        layout.addWidget(self.list)
        layout.addWidget(self.editing.column)
        layout.addWidget(self.editing.around(self._centre), 1)
        self.inspector = ReviewInspector(session, self.canvas)
        self.runs = self.inspector.runs
        self.training = self.inspector.training
        self.description = self.inspector.description
        self.looked = self.inspector.looked
        self.verdict_bar = self.inspector.verdict_bar
        self.pixels = PixelStories(self.canvas, self.inspector.provenance, self)
        self._next_run: str | None = None
        self._follow_inspector()
        layout.addWidget(self.inspector)
        session.changed.connect(self._follow_annotator)
        self.list.left.connect(self.canvas.setFocus)
        self.setFocusProxy(self.canvas)

    def _follow_inspector(self) -> None:
        """Do what is asked for at the right side of the page."""
        self.runs.currentIndexChanged.connect(lambda _: self._change_run())
        self.training.failed.connect(self.error)
        self.inspector.targets.chosen.connect(self._choose_target)
        self.description.revised.connect(self._note_revised)
        self.description.wanted.connect(self._describe)
        self.description.wanted_with.connect(self._describe_with)
        self.description.error.connect(self.error)
        self.description.lost.connect(self.lost)
        self.looked.error.connect(self.error)
        self.looked.switch.toggled.connect(lambda _: self._judge_gaze())
        self.pixels.failed.connect(self.error)
        self.canvas.asked.connect(self._tell_pixel)
        bar = self.verdict_bar
        bar.given.connect(self.give)
        bar.edit_wanted.connect(self.edit)
        bar.undo_wanted.connect(self.undo)
        bar.again_wanted.connect(self.look_again)
        bar.move_wanted.connect(self.go)

    # Following the session

    def refresh(self, what: str) -> None:
        """Show the study's queue and the current image."""
        study = self.session.study
        empty = study is None or not study.images
        self.list.setVisible(not empty)
        self.inspector.setVisible(not empty)
        if study is None or empty:
            self.list.set_rows([])
            self._centre.show_empty(study is not None)
            self.comparing.clear()
            self.editing.follow()
            self._show_details(None)
            return
        if what == "descriptions":
            self.queue.described.ask(study)
            self.description.show_scene(study, self.canvas.scene)
            return
        fresh = study is not self._cached_study
        if fresh:
            self._cache = SceneCache(study)
            self._cached_study = study
            self._told.clear()
            self.history.clear()
            self._next_run = None
            self._untouched = self.session.image_id == first_image(study)
        run_id = None
        if what == "image":
            self._over = False
        if what == "image" and self._next_run:
            # Never under the eyes of somebody who judges an image.
            what = "runs"
            run_id, self._next_run = self._next_run, None
        if what in ("study", "data", "runs"):
            assert self._cache is not None
            self._cache.forget()
            self.runs.list_runs(study, run_id)
            self.comparing.offer(study, self.runs.runs)
        if what in ("study", "data", "runs", "reviews"):
            self._ask(study)
        self.session.settle()
        if what in ("study", "data", "runs", "reviews", "target"):
            self.queue.show()
        if fresh:
            self.clock.show(None)
        self._show_image()
        if what == "study":
            self.canvas.setFocus()

    def show_run_next(self, run_id: str) -> None:
        """Show the masks of a run from the next image on."""
        self._next_run = run_id

    def _ask(self, study: Study) -> None:
        self.queue.ask(study, self.runs.run_id)
        self.left.ask(study)
        self.training.ask(study, self.runs.run_id)

    def _change_run(self) -> None:
        if self.session.study is not None:
            self._ask(self.session.study)
        self._show_image()

    def _follow_order(self) -> None:
        """Begin a study that was just opened where its queue begins."""
        first = self.list.neighbour(None, 1)
        if self._untouched and self.list.model.rowCount() and first is not None and self.isVisible():
            self._untouched = False
            self.session.set_image(first)
        self._show_why()

    def _follow_facts(self) -> None:
        if self.canvas.scene is not None:
            # The slice bar's marks are of the facts, too.
            self._show_image()

    def _follow_annotator(self, what: str) -> None:
        if what == "annotator":
            # What one said is not taken back by another, on whatever page the name was changed.
            self.history.clear()
            self._offer_undo()

    def _begin_reading(self) -> None:
        """List what is read for another purpose, and go to the first of it that is left."""
        study = self.session.study
        if study is None:
            return
        self.editing.leave()
        # What was said for one purpose is not taken back while reading for another.
        self.history.clear()
        self.clock.show(None)
        self.comparing.set_blind(self.reading.blind)
        self.queue.order.bar.setVisible(not self.reading.blind)
        self.pixels.forget()
        self.queue.show_all()
        self._over = True
        if not self.isVisible():
            # Shown again, it lists and shows everything anew.
            return
        self.queue.show()
        if (left := self.reading.first_left()) is not None:
            self.session.set_target(left[1])
            self.session.set_image(left[0])
        self._show_image()
        self._centre.take_keys()

    def _show_progress(self) -> None:
        self.verdict_bar.show_progress(*self.queue.progress())
        self._offer_undo()

    def _offer_undo(self) -> None:
        self.verdict_bar.undo_button.setEnabled(not self.history.empty)

    def _show_image(self) -> None:
        study, image_id = self.session.study, self.session.image_id
        if study is None or image_id is None or self._cache is None or study is not self._cached_study:
            return
        run_id, target = self.runs.run_id, self.session.target_id
        slices = study.slices_beside(image_id)
        marks = SliceMarks() if self.reading.blind else self.queue.states.marks(study, slices, target)
        self.frame.show_slices(slices, image_id, marks)
        self.list.select(image_id)
        self._show_targets(study, image_id)
        self._others_read = self.canvas.others_shown and len(study.targets) > 1
        if told := self._nothing_left(image_id):
            self._centre.show_sentence(told)
            self.comparing.clear()
            self.editing.follow()
            self._show_details(None)
            return
        self._centre.show_frame()
        try:
            scene = self.reading.shown(self._cache.get(image_id, target, run_id, self._others_read))
        except UserError as error:
            self.comparing.clear()
            self.editing.follow()
            self._show_details(None)
            self.error.emit(str(error), "")
            return
        self.comparing.show(study, self._cache, scene, self._others_read)
        self.editing.follow()
        self._show_details(scene)
        if scene.unread and scene.unread not in self._told:
            self._told.add(scene.unread)
            told = self.tr("{error} Everything else of the image is shown; a new verdict takes its place.")
            self.error.emit(told.format(error=scene.unread), "")
        # Looking again because another computer added something does not start the time anew.
        self.clock.show(image_id)
        self._judge_gaze()
        ahead = self.frame.slices.ahead(SLICES_PREFETCHED) if len(slices) > 1 else []
        way = self._heading
        names = [*ahead, *(self.list.neighbour(image_id, step) for step in (way, 2 * way, -way))]
        self._ahead.request(
            self._cache,
            self.comparing.ahead([(name, target, run_id, self._others_read) for name in names if name]),
        )

    def _nothing_left(self, image_id: str) -> str:
        """Return what is told in an image's place where nothing is left to be read blind; empty where it is shown."""
        told = self.reading.nothing_left()
        self._over = self._over and bool(told)
        asked_for = not self.reading.refusal(image_id, self.session.target_id)
        return "" if asked_for and not self._over else told

    def _follow_others(self) -> None:
        """Read the other targets' masks once they are to be shown."""
        if self.canvas.others_shown and not self._others_read and self.isVisible():
            self._show_image()

    def _show_targets(self, study: Study, image_id: str) -> None:
        self.canvas.takes_tab = len(study.targets) > 1
        self.inspector.layers.show_targets(study.targets)
        self.inspector.targets.show_targets(study.targets, self.session.target_id)
        keys = {target.id: (image_id, target.id) for target in study.targets}
        known = self.queue.states
        words = {name: known.shown(known.state(key)) for name, key in keys.items()}
        self.inspector.targets.set_states({} if self.reading.blind else words)

    def _choose_target(self, target_id: str) -> None:
        self.session.set_target(target_id)
        self.canvas.setFocus()

    def next_target(self, step: int) -> None:
        """Judge the next (1) or previous (-1) target of the same image; after the last comes the first."""
        if self.session.study is not None:
            self.session.set_target(beside(self.session.study.targets, self.session.target_id, step))

    def _show_details(self, scene: Scene | None) -> None:
        study, inspector, blind = self.session.study, self.inspector, self.reading.blind
        inspector.judged.show_scene(None if self.editing.active else scene, self.reading.purpose)
        self.pixels.follow(scene)
        inspector.set_purpose(self.reading.purpose)
        judged = scene is not None and (scene.student is not None or bool(scene.levels))
        asked = scene is not None and not self.reading.refusal(scene.image_id, scene.target_id)
        self.verdict_bar.allow(image=asked, mask=judged and asked, editing=self.editing.active, blind=blind)
        if scene is None or study is None:
            inspector.show_nothing(study)
            return
        key, known = (scene.image_id, scene.target_id), self.queue.states
        inspector.show_image(
            study,
            scene,
            known.shown(known.state(key, has_mask=judged)),
            known.facts.reviews.get(key),
            place=self.frame.slices.text if self.frame.slices.is_volume else "",
            remarks=self.reading.sentences(),
        )
        self._show_why()

    def _tell_pixel(self, pixel: tuple[float, float] | None) -> None:
        """Tell where a pixel comes from, or with None that under the pointer."""
        if self.session.study is not None and self.reading.purpose != "audit":
            hides = ("review", "truth") if self.reading.blind else ()
            self.pixels.ask(self.session.study, pixel, self.runs.run_id, hides)

    def _show_why(self) -> None:
        """Say how far the mask shown is to be doubted, and why."""
        key = (self.session.image_id or "", self.session.target_id)
        if self.queue.tells_doubt(key):
            self.inspector.show_doubt(self.queue.order.doubt_of(key))
        else:
            self.inspector.why.hide()

    def _judge_gaze(self) -> None:
        """Count anew how long the eyes are on the mask, where another is judged now."""
        study, scene = self.session.study, self.canvas.scene
        if study is not None and scene is not None:
            self.looked.show_scene(study, scene)

    # Acting

    def _go_to(self, image_id: str) -> None:
        self._untouched = False
        self.session.set_image(image_id)
        if self._over:
            # It was the current image all the time.
            self._over = False
            self._show_image()
        self.canvas.setFocus()

    def go(self, step: int) -> None:
        """Go to the next (1) or previous (-1) image of those listed."""
        self._heading = 1 if step > 0 else -1
        self._untouched = False
        found = self.list.neighbour(self.session.image_id, step)
        if found is not None:
            self.session.set_image(found)
        elif step > 0 and self.session.image_id is not None:
            self.notice.emit(self.reading.last_words(self.list.model.rows))

    def give(self, word: Word) -> None:
        """Store a verdict and go on."""
        study, image_id = self.session.study, self.session.image_id
        if study is None or image_id is None or self.canvas.scene is None:
            return
        target = self.session.target_id
        if refusal := self.reading.refusal(image_id, target):
            self.notice.emit(refusal)
            return
        if self.editing.active and word != "accepted":
            return
        self._untouched = False
        judged = Judged(
            image_id,
            target,
            self.runs.run_id,
            self.session.annotator,
            self.clock.seconds,
            self.reading.purpose,
            self.looked.on_mask_ms(),
        )
        # Found before the row changes: a filter on its state would make it vanish with its neighbours.
        following = self.queue.following_slice(study, image_id) or self.list.neighbour(image_id, 1)
        edited = self.editing.active
        try:
            if edited:
                self.history.keep(study, self.editing.store(judged.gaze_on_mask_ms))
            elif not self.history.give(study, judged, word):
                self.notice.emit(self.reading.nothing_to_judge())
                return
        except UserError as error:
            self.lost.emit(str(error))
            return
        flag = "" if edited else self.looked.flag(word, judged.gaze_on_mask_ms)
        if self.reading.nothing_left():
            following, self._over = None, True
        if following is not None:
            self.session.set_image(following)
        else:
            self._show_image()
            flag = f"{flag} {self.reading.last_words(self.list.model.rows)}".lstrip()
        if flag:
            self.notice.emit(flag)

    def look_again(self) -> None:
        """Record new gaze of this image and target, at once or in the next session; then go on."""
        study, image_id = self.session.study, self.session.image_id
        if study is None or image_id is None or self.canvas.scene is None:
            return
        self._untouched = False
        following = self.list.neighbour(image_id, 1)
        try:
            asked = self.again.ask(study, image_id, self.session.target_id, self.session.annotator)
        except UserError as error:
            self.error.emit(str(error), "")
            return
        if asked is not None:
            self.history.add((asked.image_id, asked.target_id), lambda: self.again.take_back(study, asked))
            self._offer_undo()
            if following is not None:
                self.session.set_image(following)

    def edit(self) -> None:
        """Correct the mask by hand."""
        if refusal := self.reading.refusal(self.session.image_id or "", self.session.target_id):
            self.notice.emit(refusal)
            return
        self.editing.enter(self.runs.run_id, purpose=self.reading.purpose)
        self.canvas.setFocus()

    def _follow_editing(self) -> None:
        self.comparing.pause(self.editing.active)
        if self.isVisible():
            self._show_details(self.canvas.scene)

    def undo(self) -> None:
        """Take back the last verdict, wish or change of a description made here, and return to its image."""
        try:
            key = self.history.undo()
        except UserError as error:
            self.error.emit(str(error), "")
            return
        if key is None:
            return
        image_id, target_id = key
        self._over = False
        self._offer_undo()
        self.session.set_target(target_id)
        if self.session.image_id == image_id:
            self._show_image()
        self.session.set_image(image_id)

    def _note_revised(self, revised: Revised) -> None:
        study = self.session.study
        if study is not None:
            self.history.add(
                (revised.before.image_id, revised.before.target_id),
                lambda: self.description.undo(study, revised),
                lambda: self.queue.described.ask(study),
            )
            self._offer_undo()
            self.queue.described.ask(study)

    def _describe(self, image_ids: list[str]) -> None:
        if self.session.study is not None:
            done = functools.partial(self.session.refresh, "data")
            self.start_task(task_of(self.session.study, image_ids, self.tr("Describing"), done))

    def _describe_with(self) -> None:
        """Ask who describes what is listed; with nothing filtered out, the current image."""
        study, listed = self.session.study, self.list.visible_ids()
        if study is not None:
            filtered = len(listed) < len(entries(study))
            self.explain_wanted.emit(listed if filtered else [self.session.image_id])

    def _after_verdict(self, study: Study, image_id: str, target_id: str) -> None:
        assert self._cache is not None
        self._cache.forget(image_id)
        self.clock.show(None)
        self.looked.forget()
        self.queue.note(study, image_id, target_id)
        self.left.ask(study)
        self.training.ask(study, self.runs.run_id)

    def keyPressEvent(self, event: QKeyEvent) -> None:
        """Verdicts and moves, then the canvas's keys."""
        plain = not event.modifiers() & ~Qt.KeyboardModifier.KeypadModifier
        key = event.key()
        if self.editing.handle_key(event):
            return
        if plain and key == Qt.Key.Key_E:
            self.edit()
        elif plain and key in VERDICTS:
            if not event.isAutoRepeat():
                self.give(VERDICTS[key])
        elif plain and key == Qt.Key.Key_Z:
            self.undo()
        elif plain and key == Qt.Key.Key_H:
            self._tell_pixel(None)
        elif plain and key == Qt.Key.Key_G and not self.reading.blind:
            if not event.isAutoRepeat():
                self.look_again()
        elif plain and key == Qt.Key.Key_D and not self.reading.blind:
            self.description.approve_all()
        elif self.frame.slices.handle_key(event):
            event.accept()
        elif plain and key in (Qt.Key.Key_Space, Qt.Key.Key_N, Qt.Key.Key_Right, Qt.Key.Key_Down):
            self.go(1)
        elif plain and key in (Qt.Key.Key_Backspace, Qt.Key.Key_Left, Qt.Key.Key_Up):
            self.go(-1)
        elif not self.canvas.handle_key(event):
            super().keyPressEvent(event)

    def keyReleaseEvent(self, event: QKeyEvent) -> None:
        """Pass on to the canvas."""
        if not self.canvas.handle_release(event):
            super().keyReleaseEvent(event)

    def event(self, event: QEvent) -> bool:
        """Count no time while another window is worked in."""
        if event.type() in (QEvent.Type.WindowActivate, QEvent.Type.WindowDeactivate):
            self.clock.run(self.isVisible() and event.type() == QEvent.Type.WindowActivate)
        return super().event(event)

    def showEvent(self, event: QShowEvent) -> None:
        """Go on counting, and following the eyes."""
        super().showEvent(event)
        self.clock.run(True)
        self.looked.follow(True)

    def hideEvent(self, event: QHideEvent) -> None:
        """Count no time on another page, and let go of the tracker."""
        super().hideEvent(event)
        self.clock.run(False)
        self.looked.follow(False)

    def stop(self) -> None:
        """End the threads."""
        self.looked.close_all()
        self.queue.stop()
        self.editing.stop()
        self.left.stop()
        self.training.stop()
        self.pixels.stop()
        self._ahead.stop()
