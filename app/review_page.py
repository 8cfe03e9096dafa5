"""Review: the queue, the image with every layer the study has of it, and the verdict."""

from __future__ import annotations

import functools
from collections import Counter

from PySide6.QtCore import QEvent, Qt
from PySide6.QtGui import QHideEvent, QKeyEvent, QShowEvent
from PySide6.QtWidgets import (
    QComboBox,
    QFrame,
    QGridLayout,
    QHBoxLayout,
    QVBoxLayout,
    QWidget,
)

from app import theme
from app.again_button import AgainButton
from app.another_look import AnotherLook, Wished
from app.canvas_frame import CanvasFrame
from app.centre import Centre
from app.comparison import Comparison
from app.criteria import Criteria
from app.describe_again import task_of
from app.described import DescribedImages
from app.description_panel import DescriptionPanel, Revised
from app.edit_mode import Editing
from app.facts import NOTHING_KNOWN, Facts, gather
from app.image_list import ImageList, Row
from app.latest import NO_FLICKER_MS, Latest
from app.layer_panel import LayerPanel
from app.looked_at import LookedAt
from app.page import Page
from app.pixel_story import PixelStories
from app.prefetch import Prefetcher
from app.provenance import Provenance
from app.reading_mode import ReadingMode
from app.review_clock import ReviewClock, seconds_left
from app.review_order import ReviewOrder
from app.scene import Scene, SceneCache, word_weights
from app.session import Session
from app.targets_bar import TargetsBar, beside
from app.texts import duration_text, short_name
from app.verdicts import Given, Word, give_verdict
from app.volumes import Entry, SliceMarks, common_state, entries, entry_of, first_image, marks_of
from app.widgets import (
    Button,
    ElidedLabel,
    IconButton,
    Pill,
    box,
    heading,
    label,
    line,
    scrolled,
)
from gaze_capture.errors import UserError
from segmentation.gaze_index import look_quality
from segmentation.review_queue import State, predicted_runs, state_of
from segmentation.run_list import read_name
from segmentation.runs import RunFolder
from segmentation.study import Study

SLICES_PREFETCHED = 4


class ReviewPage(Page):
    """Keys: A accept, E edit, R reject, 0 nothing here, Q unsure, U ungradable, G look again, Z undo.

    Space or N is next, Backspace back, D approves the description, H tells where a pixel comes from.
    Tab goes to the next target; in a volume Up and Down scroll, and verdicts count for the slice shown.
    """

    def __init__(self, session: Session) -> None:
        super().__init__(session)
        self._cache: SceneCache | None = None
        self._cached_study: Study | None = None
        self._known = NOTHING_KNOWN
        self._facts = Latest(self)
        self._facts.answered.connect(self._learn)
        self._facts.failed.connect(self.error)
        self.described = DescribedImages(self)
        self.described.changed.connect(self._follow_described)
        self._given: list[Given | Revised | Wished] = []
        self.clock = ReviewClock()
        self.again = AnotherLook(self)
        self.again.notice.connect(self.notice)
        self._untouched = True
        """Whether nobody has gone anywhere in this study yet: the queue may begin where it begins."""
        self._others_read = False
        self._heading = 1
        """Which way the reader goes through the list: what comes next there is built ahead."""
        self._ahead = Prefetcher(self)
        self._words: dict[State, str] = {
            "waiting": self.tr("To review"),
            "empty": self.tr("No mask yet"),
            "accepted": self.tr("Accepted"),
            "edited": self.tr("Edited"),
            "rejected": self.tr("Rejected"),
            "nothing": self.tr("Nothing here"),
            "unsure": self.tr("Unsure"),
            "ungradable": self.tr("Ungradable"),
        }
        self.list = ImageList(self.tr("Queue"), self._words.values())
        self.list.search.setToolTip(
            self.tr(
                "Words of name, id, group, split or description; or a field, like split:test or group:patient-7; "
                "doubt>0.5, state:waiting or reason:outside; "
                "of descriptions boundary:blurred, area>20, by:measured, has:contradiction, edited, approved"
            )
        )
        self.order = ReviewOrder(
            session.settings, self.list, {str(name): word for name, word in self._words.items()}, self
        )
        self.order.changed.connect(self._follow_order)
        self.order.failed.connect(self.error)
        self.reading = ReadingMode(session)
        self.reading.place_above(self.list)
        self.reading.changed.connect(self._begin_reading)
        self.reading.error.connect(self.error)
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
        self.editing.notice.connect(self.notice)
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
        self._inspector = self._make_inspector()
        self.pixels = PixelStories(self.canvas, self.provenance, self)
        self.pixels.failed.connect(self.error)
        self.canvas.asked.connect(self._tell_pixel)
        layout.addWidget(self._inspector)
        self.list.chosen.connect(self._go_to)
        self.list.chosen.connect(lambda _: self.canvas.setFocus())
        self.setFocusProxy(self.canvas)

    def _make_inspector(self) -> QFrame:
        inspector = QFrame()
        inspector.setObjectName("panelRight")
        inspector.setFixedWidth(324)
        outer = QVBoxLayout(inspector)
        box(outer, spacing=0)
        body = QWidget()
        column = QVBoxLayout(body)
        box(column, margins=(theme.LARGE, theme.WIDE, theme.LARGE, theme.LARGE), spacing=theme.NORMAL)
        title = QHBoxLayout()
        self.title = ElidedLabel()
        self.title.setFont(theme.heading_font(16))
        self.pill = Pill()
        title.addWidget(self.title, 1)
        title.addWidget(self.pill)
        self.facts = label("", "muted", wrap=True)
        self.why = label("", wrap=True)
        self.looked = LookedAt(self.canvas, self)
        self.looked.error.connect(self.error)
        self.looked.switch.toggled.connect(lambda _: self._judge_gaze())
        self.runs = QComboBox()
        self.runs.setSizeAdjustPolicy(QComboBox.SizeAdjustPolicy.AdjustToMinimumContentsLengthWithIcon)
        self.runs.setMinimumContentsLength(12)
        self.runs.setFocusPolicy(Qt.FocusPolicy.TabFocus)
        self.runs.setToolTip(self.tr("Whose masks are shown and judged"))
        self.runs.currentIndexChanged.connect(lambda _: self._change_run())
        self.runs.currentIndexChanged.connect(lambda _: self._offer_again())
        self._run_row = QWidget()
        run_row = QHBoxLayout(self._run_row)
        box(run_row)
        run_row.addWidget(label(self.tr("Masks of"), "muted"))
        run_row.addWidget(self.runs, 1)
        self.training = AgainButton()
        self.training.failed.connect(self.error)
        self._next_run: str | None = None
        self.layers = LayerPanel(self.canvas)
        self.targets = TargetsBar()
        self.targets.chosen.connect(self._choose_target)
        self.description = DescriptionPanel(self.session, self.canvas)
        self.description.revised.connect(self._note_revised)
        self.description.wanted.connect(self._describe)
        self.description.wanted_with.connect(self._describe_with)
        self.description.error.connect(self.error)
        self.description.left.connect(self.canvas.setFocus)
        self.provenance = Provenance()
        column.addLayout(title)
        column.addWidget(self.facts)
        column.addWidget(self.why)
        column.addWidget(self._run_row)
        column.addWidget(self.training)
        column.addWidget(self.targets)
        column.addSpacing(theme.NORMAL)
        self._layers_title = heading(self.tr("Layers"))
        column.addWidget(self._layers_title)
        column.addWidget(self.layers)
        column.addSpacing(theme.NORMAL)
        column.addWidget(self.description)
        column.addSpacing(theme.NORMAL)
        column.addWidget(self.provenance)
        column.addSpacing(theme.NORMAL)
        column.addWidget(self.looked)
        column.addStretch(1)
        outer.addWidget(scrolled(body), 1)
        outer.addWidget(line())
        outer.addWidget(self._make_verdict())
        return inspector

    def _make_verdict(self) -> QWidget:
        verdict = QWidget()
        grid = QGridLayout(verdict)
        box(grid, margins=(theme.LARGE, theme.WIDE, theme.LARGE, theme.LARGE), spacing=theme.NORMAL)

        def button(text: str, icon: str, tip: str, word: Word, role: str = "verdict") -> Button:
            made = Button(text, icon, role, on_click=lambda: self.give(word))
            made.setToolTip(tip)
            made.setFocusPolicy(Qt.FocusPolicy.TabFocus)
            return made

        self.accept_button = button(
            self.tr("Accept"), "check", self.tr("Accept this mask (A)"), "accepted", "primary"
        )
        self.edit_button = Button(self.tr("Edit"), "pencil-simple", "verdict", on_click=self.edit)
        self.edit_button.setToolTip(self.tr("Correct this mask by hand (E)"))
        self.edit_button.setFocusPolicy(Qt.FocusPolicy.TabFocus)
        self.reject_button = button(self.tr("Reject"), "x", self.tr("Reject this mask (R)"), "rejected")
        self.nothing_button = button(
            self.tr("Nothing here"), "", self.tr("The target is not in this image (0)"), "nothing", "word"
        )
        self.unsure_button = button(
            self.tr("Unsure"), "", self.tr("Whether the target is here cannot be said (Q)"), "unsure", "word"
        )
        self.ungradable_button = button(
            self.tr("Ungradable"), "", self.tr("The image cannot be judged (U)"), "ungradable", "word"
        )
        self.again_button = IconButton(
            "eye",
            self.tr("Look again: record new gaze, now or in the next session (G)"),
            on_click=self.look_again,
        )
        for column in range(6):
            grid.setColumnStretch(column, 1)
        grid.addWidget(self.accept_button, 0, 0, 1, 2)
        grid.addWidget(self.edit_button, 0, 2, 1, 2)
        grid.addWidget(self.reject_button, 0, 4, 1, 2)
        grid.addWidget(self.nothing_button, 1, 0, 1, 2)
        grid.addWidget(self.unsure_button, 1, 2, 1, 2)
        grid.addWidget(self.ungradable_button, 1, 4, 1, 2)
        moves = QHBoxLayout()
        box(moves, spacing=theme.SMALL)
        self.undo_button = IconButton(
            "arrow-u-up-left",
            self.tr("Undo the last verdict or change of a description (Z)"),
            text=self.tr("Undo"),
            on_click=self.undo,
        )
        self._progress, self._left = label("", "muted"), label("", "muted")
        for text in (self._progress, self._left):
            text.setFont(theme.number_font(12))
            text.setAlignment(Qt.AlignmentFlag.AlignCenter)
        progress = QVBoxLayout()
        box(progress, spacing=0)
        progress.addWidget(self._progress)
        progress.addWidget(self._left)
        back = IconButton("arrow-left", self.tr("Previous image (Backspace)"), on_click=lambda: self.go(-1))
        forth = IconButton("arrow-right", self.tr("Next image (Space or N)"), on_click=lambda: self.go(1))
        moves.addWidget(self.undo_button)
        moves.addWidget(self.again_button)
        moves.addLayout(progress, 1)
        moves.addWidget(back)
        moves.addWidget(forth)
        grid.addLayout(moves, 2, 0, 1, 6)
        return verdict

    # Following the session

    def refresh(self, what: str) -> None:
        """Show the study's queue and the current image."""
        study = self.session.study
        empty = study is None or not study.images
        self.list.setVisible(not empty)
        self._inspector.setVisible(not empty)
        if study is None or empty:
            self.list.set_rows([])
            self._centre.show_empty()
            self.comparing.clear()
            self.editing.follow()
            self._show_details(None)
            return
        self._centre.show_frame()
        if what == "descriptions":
            self.described.ask(study)
            self.description.show_scene(study, self.canvas.scene)
            return
        fresh = study is not self._cached_study
        if fresh:
            self._cache = SceneCache(study)
            self._cached_study = study
            self.list.thumbnails.set_study(study)
            self._given.clear()
            self._next_run = None
            self._untouched = self.session.image_id == first_image(study)
        if what == "image" and self._next_run:
            # Never under the eyes of somebody who judges an image.
            what = "runs"
            self._list_runs(study, self._next_run)
            self._next_run = None
        if what in ("study", "data", "runs"):
            assert self._cache is not None
            self._cache.forget()
            self._list_runs(study)
        if what in ("study", "data", "runs", "reviews"):
            self._ask(study)
            if fresh and self._facts.pending:
                self._known = NOTHING_KNOWN
        self.session.settle()
        if what in ("study", "data", "runs", "reviews", "target"):
            self._list_images(study)
        if fresh:
            self.clock.show(None)
        self._show_image()
        if what == "study":
            self.canvas.setFocus()
            self.editing.tell_left()

    def _offer_again(self) -> None:
        self.training.ask(self.session.study, self.runs.currentData())

    def show_run_next(self, run_id: str) -> None:
        """Show the masks of a run from the next image on."""
        self._next_run = run_id

    def _list_runs(self, study: Study, run_id: str | None = None) -> None:
        chosen = run_id or self.runs.currentData()
        self.runs.blockSignals(True)
        self.runs.clear()
        for run_id in predicted_runs(study):
            name = read_name(RunFolder(study.runs_folder / run_id)) or short_name(run_id)
            self.runs.addItem(self.tr("Student, run {run}").format(run=name), run_id)
        self.runs.addItem(self.tr("Gaze alone (pseudo-masks)"), None)
        self.runs.setCurrentIndex(max(0, self.runs.findData(chosen) if chosen else 0))
        self.runs.blockSignals(False)
        named = ((self.runs.itemData(at), self.runs.itemText(at)) for at in range(self.runs.count()))
        self.comparing.offer(study, [(run_id, name) for run_id, name in named if run_id])

    def _ask(self, study: Study) -> None:
        run_id = self.runs.currentData()
        self._facts.ask(lambda: gather(study, run_id), NO_FLICKER_MS)
        self.described.ask(study)
        self.order.ask(study, run_id)
        self._offer_again()

    def _change_run(self) -> None:
        if self.session.study is not None:
            self._ask(self.session.study)
        self._show_image()

    def _follow_order(self) -> None:
        """List in the order there is now; a study that was just opened is begun where it begins."""
        study = self.session.study
        if study is None or study is not self._cached_study:
            return
        self._list_images(study)
        first = self.list.neighbour(None, 1)
        if self._untouched and self.list.model.rowCount() and first is not None and self.isVisible():
            self._untouched = False
            self.session.set_image(first)
        self._show_why()

    def _learn(self, facts: Facts) -> None:
        self._known = facts
        if self.session.study is not None:
            self._list_images(self.session.study)
            if self.canvas.scene is not None:
                # The slice bar's marks are of the facts, too.
                self._show_image()

    def _follow_described(self) -> None:
        if self.session.study is not None:
            self._list_images(self.session.study)

    def _list_images(self, study: Study) -> None:
        self.reading.look(study)
        listed = self.order.arranged(entries(study), self.session.target_id, self._state_name)
        self.list.set_rows([self._row(entry) for entry in self.reading.entries(study, listed)])
        self._count(study)

    def _begin_reading(self) -> None:
        """List what is read for another purpose, and go to the first of it that is left."""
        study = self.session.study
        if study is None:
            return
        self.editing.leave()
        # What was said for one purpose is not taken back while reading for another.
        self._given.clear()
        self.clock.show(None)
        self.comparing.set_blind(self.reading.blind)
        self.order.bar.setVisible(not self.reading.blind)
        self.pixels.forget()
        self.list.narrow_to(Criteria())
        if not self.isVisible():
            # Shown again, it lists and shows everything anew.
            return
        self._list_images(study)
        if (left := self.reading.first_left()) is not None:
            self.session.set_target(left[1])
            self.session.set_image(left[0])
        self._show_image()
        self.canvas.setFocus()

    def _row(self, entry: Entry) -> Row:
        if self.reading.blind:
            return self.reading.row(entry, self.session.target_id)
        target, image = self.session.target_id, entry.image
        key = (image.id, target)
        names = [self._state_name((name, target)) for name in entry.slices]
        states = [self._state(name) for name in names]
        doubt = self.order.worst(entry, target, lambda key: self._state_name(key) == "waiting")
        score, reasons, why = (
            (doubt.score, doubt.reasons, doubt.why) if doubt else (None, (), frozenset[str]())
        )
        said = (self.described.of(name, target) for name in entry.slices)
        described = tuple(one for one in said if one is not None)
        if not entry.is_volume:
            detail = "" if image.split == "train" else image.split
            return Row(
                image.id, entry.name, image, *states[0], detail,
                presence=self._known.said.get(key), quality=look_quality(self._known.looks.get(key, ())),
                described=described, state_name=names[0], doubt=score, reasons=reasons, why=why,
            )  # fmt: skip
        # What is left to do stands for the volume; after that, what was said most.
        waiting, empty = self._words["waiting"], self._words["empty"]
        given = [word for word, _ in states if word not in (waiting, empty)]
        usual = [word for word, _ in Counter(given).most_common(1)]
        state, number = common_state((word for word, _ in states), [waiting, *usual, empty])
        number = len(given) if given and state != waiting else number
        count = "" if state == empty else f"{number}/{len(states)}"
        return Row(
            image.id, entry.name, image, state, dict(states)[state], slices=entry.slices, count=count,
            described=described, state_name=names[[word for word, _ in states].index(state)],
            doubt=score, reasons=reasons, why=why,
        )  # fmt: skip

    def _state_name(self, key: tuple[str, str], has_mask: bool | None = None) -> State:
        masked = key in self._known.masked if has_mask is None else has_mask
        return state_of(self._known.reviews.get(key), has_mask=masked)

    def _state(self, name: State) -> tuple[str, str]:
        """Return a state's word and the token of its colour."""
        tokens = {"waiting": "warning", "rejected": "danger", "accepted": "accent", "edited": "accent"}
        return self._words[name], "accent" if name == "nothing" else tokens.get(name, "muted")

    def _count(self, study: Study) -> None:
        target = self.session.target_id
        done = sum(name in study.images for name, of in self._known.reviews if of == target)
        told = self.tr("{done} of {all} reviewed")
        told = told.format(done=done, all=len(study.images))
        self._progress.setText(self.reading.progress() if self.reading.blind else told)
        waiting = sum(
            name in study.images and self._state_name((name, of)) == "waiting"
            for name, of in self._known.masked
            if of == target
        )
        left = seconds_left(self._known.reviews.values(), self.session.annotator, waiting)
        self._left.setVisible(left is not None and waiting > 0 and not self.reading.blind)
        if left is not None:
            self._left.setText(self.tr("about {time} left").format(time=duration_text(max(left, 1))))
        self.undo_button.setEnabled(bool(self._given))

    def _show_image(self) -> None:
        study, image_id = self.session.study, self.session.image_id
        if study is None or image_id is None or self._cache is None or study is not self._cached_study:
            return
        run_id, target = self.runs.currentData(), self.session.target_id
        slices = study.slices_beside(image_id)
        marks = marks_of(
            slices, target, study.fixations.keys(), self._known.masked, self._known.reviews.keys()
        )
        marks = SliceMarks() if self.reading.blind else marks
        self.frame.show_slices(slices, image_id, marks)
        self.list.select(image_id)
        self._show_targets(study, image_id)
        self._others_read = self.canvas.others_shown and len(study.targets) > 1
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

    def _follow_others(self) -> None:
        """Read the other targets' masks once they are to be shown."""
        if self.canvas.others_shown and not self._others_read and self.isVisible():
            self._show_image()

    def _show_targets(self, study: Study, image_id: str) -> None:
        self.canvas.takes_tab = len(study.targets) > 1
        self.layers.show_targets(study.targets)
        self.targets.show_targets(study.targets, self.session.target_id)
        keys = {target.id: (image_id, target.id) for target in study.targets}
        states = {name: self._state(self._state_name(key)) for name, key in keys.items()}
        self.targets.set_states({} if self.reading.blind else states)

    def _choose_target(self, target_id: str) -> None:
        self.session.set_target(target_id)
        self.canvas.setFocus()

    def next_target(self, step: int) -> None:
        """Judge the next (1) or previous (-1) target of the same image; after the last comes the first."""
        if self.session.study is not None:
            self.session.set_target(beside(self.session.study.targets, self.session.target_id, step))

    def _show_details(self, scene: Scene | None) -> None:
        self.layers.show_scene(scene)
        self.pixels.follow(scene)
        self._hide_from_blind()
        study = self.session.study
        judged = scene is not None and (scene.student is not None or bool(scene.levels))
        editing = self.editing.active
        self.accept_button.setEnabled(judged or editing)
        self.reject_button.setEnabled(judged and not editing)
        words = (self.nothing_button, self.unsure_button, self.ungradable_button)
        for button in (self.edit_button, *words):
            button.setEnabled(scene is not None and not editing)
        self.again_button.setEnabled(scene is not None and not editing and not self.reading.blind)
        self.description.show_scene(study, scene)
        if scene is not None and scene.words is not None:
            self.description.show_weights(word_weights(scene.words, scene.image.shape[:2]))
        self.pill.setVisible(scene is not None)
        if scene is None or study is None:
            self.title.setText("")
            self.facts.setText("")
            self.why.hide()
            self.provenance.empty()
            return
        image = study.image(scene.image_id)
        height, width, _ = image.shape
        facts = [self.tr("{width} × {height} px").format(width=width, height=height)]
        if image.spacing_mm is not None:
            facts.append(self.tr("{spacing:.3g} mm a pixel").format(spacing=image.spacing_mm[1]))
        if self.frame.slices.is_volume:
            facts.append(self.tr("slice {place}").format(place=self.frame.slices.text))
        facts.append(self.tr("split {split}").format(split=image.split))
        self.title.setText(entry_of(study, image.id).name)
        self.facts.setText("\n".join([" · ".join(facts), *self.reading.sentences()]))
        self.pill.set(*self._state(self._state_name((scene.image_id, scene.target_id), judged)))
        self.pill.setVisible(not self.reading.blind)
        self._show_why()
        review = self._known.reviews.get((scene.image_id, scene.target_id))
        self.provenance.tell_origins(study, scene, None if self.reading.blind else review)

    def _hide_from_blind(self) -> None:
        """Show the parts of the inspector that tell what others said, or found, only where that may be known."""
        self.description.setVisible(not self.reading.blind)
        for part in (self.provenance, self._run_row, self.layers, self._layers_title):
            part.setVisible(self.reading.purpose != "audit")

    def _tell_pixel(self, pixel: tuple[float, float] | None) -> None:
        """Tell where a pixel comes from, or with None that under the pointer."""
        if self.session.study is not None and self.reading.purpose != "audit":
            hides = ("review", "truth") if self.reading.blind else ()
            self.pixels.ask(self.session.study, pixel, self.runs.currentData(), hides)

    def _show_why(self) -> None:
        """Say how far the mask shown is to be doubted, and why."""
        key = (self.session.image_id or "", self.session.target_id)
        doubt = self.order.doubt_of(key)
        waits = self._state_name(key) == "waiting"
        self.why.setVisible(waits and not self.reading.blind and (doubt is not None or self.order.pending))
        if doubt is None:
            self.why.setText(self.tr("How far masks are to be doubted is being worked out…"))
        else:
            reasons = "; ".join(doubt.reasons) or self.tr("nothing speaks against this mask")
            self.why.setText(self.tr("Doubt {doubt:.2f}: {why}.").format(doubt=doubt.score, why=reasons))

    def _judge_gaze(self) -> None:
        """Count anew how long the eyes are on the mask, where another is judged now."""
        study, scene = self.session.study, self.canvas.scene
        if study is not None and scene is not None:
            self.looked.show_scene(study, scene)

    # Acting

    def _go_to(self, image_id: str) -> None:
        self._untouched = False
        self.session.set_image(image_id)

    def go(self, step: int) -> None:
        """Go to the next (1) or previous (-1) image of those listed."""
        self._heading = 1 if step > 0 else -1
        self._untouched = False
        found = self.list.neighbour(self.session.image_id, step)
        if found is not None:
            self.session.set_image(found)

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
        looked_ms, purpose, edited = self.looked.on_mask_ms(), self.reading.purpose, self.editing.active
        try:
            given = (
                self.editing.store(looked_ms)
                if edited
                else give_verdict(
                    study,
                    image_id,
                    target,
                    self.runs.currentData(),
                    self.session.annotator,
                    word,
                    self.clock.seconds,
                    purpose,
                    looked_ms,
                )
            )
        except UserError as error:
            self.error.emit(str(error), "")
            return
        if given is None:
            return
        self._given.append(given)
        # Found before the row changes: a filter on its state would make it vanish with its neighbours.
        following = self._next_slice(study, image_id) or self.list.neighbour(image_id, 1)
        self._after_verdict(study, image_id)
        flag = "" if edited else self.looked.flag(word, looked_ms)
        if following is not None:
            self.session.set_image(following)
        else:
            self._show_image()
            flag = f"{flag} {self.tr('That was the last image of the list.')}".lstrip()
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
            wished = self.again.ask(study, image_id, self.session.target_id, self.session.annotator)
        except UserError as error:
            self.error.emit(str(error), "")
            return
        if wished is not None:
            self._given.append(wished)
            self.undo_button.setEnabled(True)
            if following is not None:
                self.session.set_image(following)

    def edit(self) -> None:
        """Correct the mask by hand."""
        if refusal := self.reading.refusal(self.session.image_id or "", self.session.target_id):
            self.notice.emit(refusal)
            return
        self.editing.enter(self.runs.currentData(), purpose=self.reading.purpose)
        self.canvas.setFocus()

    def _follow_editing(self) -> None:
        self.comparing.pause(self.editing.active)
        if self.isVisible():
            self._show_details(self.canvas.scene)

    def _next_slice(self, study: Study, image_id: str) -> str | None:
        """Return the next slice of the same volume that waits for a verdict."""
        if self.reading.blind:
            return None
        slices, target = study.slices_beside(image_id), self.session.target_id
        later = [(name, target) for name in slices[slices.index(image_id) + 1 :]]
        waiting = (key[0] for key in later if key in self._known.masked and key not in self._known.reviews)
        return next(waiting, None)

    def undo(self) -> None:
        """Take back the last verdict, or change of a description, made here, and return to its image."""
        study = self.session.study
        if study is None or not self._given:
            return
        given = self._given[-1]
        if isinstance(given, Revised):
            self._undo_revised(given)
            return
        if isinstance(given, Wished):
            self._undo_wished(study, given)
            return
        try:
            given.withdraw(study)
        except UserError as error:
            self.error.emit(str(error), "")
            return
        self._given.pop()
        self.session.set_target(given.target_id)
        self._after_verdict(study, given.image_id)
        if self.session.image_id == given.image_id:
            self._show_image()
        self.session.set_image(given.image_id)

    def _undo_wished(self, study: Study, wished: Wished) -> None:
        try:
            self.again.take_back(study, wished)
        except UserError as error:
            self.error.emit(str(error), "")
            return
        self._given.pop()
        self.undo_button.setEnabled(bool(self._given))
        self.session.set_target(wished.target_id)
        self.session.set_image(wished.image_id)

    def _note_revised(self, revised: Revised) -> None:
        self._given.append(revised)
        self.undo_button.setEnabled(True)
        if self.session.study is not None:
            self.described.ask(self.session.study)

    def _undo_revised(self, revised: Revised) -> None:
        if self.description.undo(revised):
            self._given.pop()
            self.undo_button.setEnabled(bool(self._given))
            if self.session.study is not None:
                self.described.ask(self.session.study)
            self.session.set_target(revised.before.target_id)
            self.session.set_image(revised.before.image_id)

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

    def _after_verdict(self, study: Study, image_id: str) -> None:
        assert self._cache is not None
        self._cache.forget(image_id)
        target = self.session.target_id
        self.clock.show(None)
        self.looked.forget()
        standing = study.counted_reviews(image_id, target)
        self._known.reviews.pop((image_id, target), None)
        self._known.said.pop((image_id, target), None)
        if standing:
            self._known.reviews[image_id, target] = standing[-1]
        presence = study.presence(image_id, target)
        if presence is not None:
            self._known.said[image_id, target] = presence
        if self.reading.blind:
            self._list_images(study)
        else:
            self.list.model.set_row(self._row(entry_of(study, image_id)))
            self._count(study)
        self._offer_again()
        if self._facts.pending:
            # What is being read may not know of this verdict.
            self._ask(study)

    def keyPressEvent(self, event: QKeyEvent) -> None:
        """Verdicts and moves, then the canvas's keys."""
        words: dict[int, Word] = {
            Qt.Key.Key_A: "accepted",
            Qt.Key.Key_R: "rejected",
            Qt.Key.Key_0: "nothing",
            Qt.Key.Key_Q: "unsure",
            Qt.Key.Key_U: "ungradable",
        }
        plain = not event.modifiers() & ~Qt.KeyboardModifier.KeypadModifier
        key = event.key()
        if self.editing.handle_key(event):
            return
        if plain and key == Qt.Key.Key_E:
            self.edit()
        elif plain and key in words:
            if not event.isAutoRepeat():
                self.give(words[key])
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
        self.order.stop()
        self.editing.stop()
        self._facts.stop()
        self.training.stop()
        self.described.stop()
        self.pixels.stop()
        self.list.thumbnails.stop()
        self._ahead.stop()
