"""Images that show one scene: found by what they show, made one group, and kept on one side of a split."""

from __future__ import annotations

import dataclasses
import importlib
from collections.abc import Sequence
from typing import Any, Protocol

from PySide6.QtCore import QRectF, QSize, Qt, Signal
from PySide6.QtGui import QColor, QPainter, QPainterPath, QPaintEvent
from PySide6.QtWidgets import QCheckBox, QHBoxLayout, QProgressBar, QSizePolicy, QVBoxLayout, QWidget

from app import theme
from app.dialogs import Dialog, WarningRow
from app.image_list import Thumbnails
from app.jobs import StepProgress
from app.widgets import Button, EmptyState, box, clear, label
from segmentation.study import TEST_SPLIT, Study

MOST_ROWS = 100
THUMB_PX, GAP_PX = 72, 6


class Suggestion(Protocol):
    """What the comparison found."""

    @property
    def groups(self) -> tuple[tuple[str, ...], ...]:
        """Image ids that belong together."""


class Leak(Protocol):
    """A group that lies in several splits."""

    @property
    def images(self) -> tuple[str, ...]:
        """Its images' ids."""

    @property
    def splits(self) -> tuple[str, ...]:
        """The splits it lies in."""


class Grouping(Protocol):
    """What finds and stores groups: the module `segmentation.grouping`."""

    def suggest_groups(self, study: Study, progress: StepProgress) -> Suggestion:
        """Compare all images."""

    def apply_groups(self, study: Study, suggestion: Any) -> int:
        """Store groups; return how many images changed."""

    def leaks(self, study: Study) -> Sequence[Leak]:
        """Return the groups that lie in several splits."""

    def mend_splits(self, study: Study) -> int:
        """Bring such groups into one split; return how many images moved."""


def grouping() -> Grouping:
    """Return what finds groups; imported when it is first asked for, as it is slow to import."""
    module: Any = importlib.import_module("segmentation.grouping")
    return module  # type: ignore[no-any-return]


class SimilarDialog(Dialog):
    """Compare, look at the groups found, apply those that are right; mend splits that a group lies across."""

    stored = Signal(str)
    """What was done, in a sentence: groups or splits of the study changed."""

    def __init__(self, parent: QWidget | None, study: Study, source: Grouping | None = None) -> None:
        super().__init__(
            parent,
            self.tr("Similar images"),
            self.tr(
                "Images of one scene, such as frames of one video, should share a group: "
                "a group is never split between training and testing."
            ),
            scrolls=False,
        )
        self._study, self._source = study, source
        self.suggestion: Suggestion | None = None
        self.checks: list[QCheckBox] = []
        self.rest: QCheckBox | None = None
        self._groups: list[tuple[str, ...]] = []
        self._thumbnails = Thumbnails(self)
        self._thumbnails.set_study(study)
        self.finished.connect(lambda _: self._thumbnails.stop())
        self.leak = WarningRow(self.tr("Mend"), self.mend)
        self.leak.button.setToolTip(
            self.tr("Bring each such group into one split: testing where any of it is there")
        )
        self.body.addWidget(self.leak)
        self.state = EmptyState(
            "copy", self.tr("All images are compared with each other; nothing is changed yet.")
        )
        self.bar = QProgressBar()
        self.bar.setTextVisible(False)
        self.bar.hide()
        self.what = label("", "muted")
        self.what.hide()
        self.body.addWidget(self.bar)
        self.body.addWidget(self.what)
        self.body.addWidget(self.state, 1)
        self._make_results()
        self.close_button = self.add_button(self.tr("Close"), self.accept)
        self.look_button = self.add_button(self.tr("Look for similar images"), self.look, "primary")
        self.apply_button = self.add_button(self.tr("Apply"), self.apply, "primary")
        self.apply_button.hide()
        self.resize(860, 640)
        self.look_button.setFocus()
        self._find_leaks()

    def _make_results(self) -> None:
        from app.widgets import scrolled

        self.results = QWidget()
        column = QVBoxLayout(self.results)
        box(column, spacing=theme.NORMAL)
        head = QHBoxLayout()
        box(head, spacing=theme.NORMAL)
        self.count = label("")
        self.all_button = Button(self.tr("All"), "", "plain", lambda: self._check_all(True))
        self.none_button = Button(self.tr("None"), "", "plain", lambda: self._check_all(False))
        head.addWidget(self.count, 1)
        for button in (self.all_button, self.none_button):
            button.setAutoDefault(False)
            head.addWidget(button)
        column.addLayout(head)
        inside = QWidget()
        self._rows = QVBoxLayout(inside)
        box(self._rows, margins=(0, 0, theme.NORMAL, 0), spacing=theme.NORMAL)
        self.scroll_area = scrolled(inside)
        column.addWidget(self.scroll_area, 1)
        self.results.hide()
        self.body.addWidget(self.results, 1)

    def _module(self) -> Grouping:
        return self._source if self._source is not None else grouping()

    # Comparing

    def look(self) -> None:
        """Compare all images."""
        study = self._study
        self.look_button.setEnabled(False)
        self.show_problem("")
        self.state.set("copy", self.tr("Comparing {n} images…").format(n=f"{len(study.images):,}"))
        self.bar.setRange(0, 0)
        self.bar.show()
        self.work(
            lambda progress: self._module().suggest_groups(study, progress),
            self.tr("Comparing images"),
            self._show_suggestion,
            self._show_progress,
            self._failed,
        )

    def _show_progress(self, done: int, total: int, what: str) -> None:
        self.bar.setRange(0, total)
        self.bar.setValue(done)
        self.what.setText(f"{done:,} / {total:,}" if total else what)
        self.what.show()

    def _failed(self, sentence: str, _details: str) -> None:
        self._end_work()
        self.state.set("copy", self.tr("All images are compared with each other; nothing is changed yet."))
        self.show_problem(sentence)

    def _end_work(self) -> None:
        self.bar.hide()
        self.what.hide()
        self.look_button.setEnabled(True)
        self.apply_button.setEnabled(True)

    def _show_suggestion(self, suggestion: Suggestion) -> None:
        self._end_work()
        self.suggestion = suggestion
        self._groups = sorted(suggestion.groups, key=lambda ids: -len(ids))
        self._list_groups()

    def _list_groups(self) -> None:
        clear(self._rows)
        self.checks, self.rest = [], None
        found = bool(self._groups)
        self.results.setVisible(found)
        self.state.setVisible(not found)
        self.apply_button.setVisible(found)
        self.look_button.setVisible(not found)
        if not found:
            self.state.set("check-circle", self.tr("No two groups of the study look alike."))
            return
        for number, ids in enumerate(self._groups[:MOST_ROWS], start=1):
            row = GroupRow(self._study, self._thumbnails, number, ids)
            row.check.toggled.connect(lambda _: self._count_checked())
            self.checks.append(row.check)
            self._rows.addWidget(row)
        left = len(self._groups) - MOST_ROWS
        if left > 0:
            self.rest = QCheckBox(self.tr("and {n} smaller groups").format(n=f"{left:,}"))
            self.rest.setChecked(True)
            self.rest.toggled.connect(lambda _: self._count_checked())
            self._rows.addWidget(self.rest)
        self._rows.addStretch(1)
        self._count_checked()
        self.apply_button.setFocus()

    def _check_all(self, checked: bool) -> None:
        for check in (*self.checks, *([self.rest] if self.rest is not None else [])):
            check.setChecked(checked)

    def checked(self) -> tuple[tuple[str, ...], ...]:
        """Return the groups that are to be applied."""
        chosen = [ids for ids, check in zip(self._groups, self.checks, strict=False) if check.isChecked()]
        if self.rest is not None and self.rest.isChecked():
            chosen += self._groups[MOST_ROWS:]
        return tuple(chosen)

    def _count_checked(self) -> None:
        chosen = self.checked()
        images = sum(map(len, chosen))
        self.count.setText(
            self.tr("{n} of {all} groups chosen, {images} images").format(
                n=f"{len(chosen):,}", all=f"{len(self._groups):,}", images=f"{images:,}"
            )
        )
        self.apply_button.setEnabled(bool(chosen))
        self.apply_button.setText(
            self.tr("Make 1 group")
            if len(chosen) == 1
            else self.tr("Make {n} groups").format(n=f"{len(chosen):,}")
        )

    # Storing

    def apply(self) -> None:
        """Make each checked row one group."""
        if self.suggestion is None:
            return
        study, suggestion = self._study, self.suggestion
        # The checked ones of what was found; everything else about it stays.
        chosen = dataclasses.replace(suggestion, groups=self.checked())  # type: ignore[type-var]
        self.apply_button.setEnabled(False)
        self.work(
            lambda _: self._module().apply_groups(study, chosen),
            self.tr("Storing groups"),
            self._applied,
            None,
            self._failed,
        )

    def _applied(self, changed: int) -> None:
        self._end_work()
        self.stored.emit(self.tr("{n} images joined a group.").format(n=f"{changed:,}"))
        left = set(self._groups) - set(self.checked())
        self._groups = [ids for ids in self._groups if ids in left]
        self._list_groups()
        if not self._groups:
            self.state.set("check-circle", self.tr("The groups are stored."))
            self.look_button.hide()
            self.close_button.setFocus()
        self._find_leaks()

    def _find_leaks(self) -> None:
        study = self._study
        self.work(
            lambda _: len(self._module().leaks(study)),
            self.tr("Looking at splits"),
            self._show_leaks,
            None,
            # Without it nothing is found either; that is said when the person asks for it.
            self._no_leaks,
        )

    def _no_leaks(self, _sentence: str, _details: str) -> None:
        self._show_leaks(0)

    def _show_leaks(self, count: int) -> None:
        self.leak.button.setEnabled(True)
        self.leak.warn(
            ""
            if not count
            else self.tr(
                "1 group lies in several splits: the model would be tested on what it was trained on."
            )
            if count == 1
            else self.tr(
                "{n} groups lie in several splits: the model would be tested on what it was trained on."
            ).format(n=f"{count:,}")
        )

    def mend(self) -> None:
        """Bring each group into one split."""
        study = self._study
        self.leak.button.setEnabled(False)
        self.work(
            lambda _: self._module().mend_splits(study),
            self.tr("Mending splits"),
            self._mended,
            None,
            self._failed,
        )

    def _mended(self, moved: int) -> None:
        self._end_work()
        self.stored.emit(self.tr("{n} images moved to the split of their group.").format(n=f"{moved:,}"))
        self._find_leaks()
        for row in self.results.findChildren(GroupRow):
            row.update_splits()


class GroupRow(QWidget):
    """A checkbox and the images of one group."""

    def __init__(self, study: Study, thumbnails: Thumbnails, number: int, ids: tuple[str, ...]) -> None:
        super().__init__()
        self._study, self._ids = study, ids
        row = QHBoxLayout(self)
        box(row, spacing=theme.NORMAL)
        self.check = QCheckBox()
        self.check.setChecked(True)
        self.check.setAccessibleName(
            self.tr("Group {number}, {n} images: {names}").format(
                number=number, n=len(ids), names=", ".join(self._names()[:8])
            )
        )
        self.setToolTip("\n".join(self._names()[:20]))
        self._words = label("", "muted")
        self._words.setFixedWidth(96)
        row.addWidget(self.check)
        row.addWidget(self._words)
        row.addWidget(Strip(study, thumbnails, ids), 1)
        self.update_splits()

    def _names(self) -> list[str]:
        return [self._study.image(name).source_name for name in self._ids]

    def update_splits(self) -> None:
        """Say how many images there are, and in which splits they lie where these are several."""
        splits = sorted(
            {self._study.image(name).split for name in self._ids}, key=lambda s: (s == TEST_SPLIT, s)
        )
        text = self.tr("{n} images").format(n=f"{len(self._ids):,}")
        self._words.setText(f"{text}\n{', '.join(splits)}" if len(splits) > 1 else text)


class Strip(QWidget):
    """As many thumbnails in a row as fit, and how many more there are."""

    def __init__(self, study: Study, thumbnails: Thumbnails, ids: tuple[str, ...]) -> None:
        super().__init__()
        self._study, self._thumbnails, self._ids = study, thumbnails, ids
        self.setSizePolicy(QSizePolicy.Policy.Expanding, QSizePolicy.Policy.Fixed)
        self.setFixedHeight(THUMB_PX)
        thumbnails.made.connect(self._made, Qt.ConnectionType.QueuedConnection)

    def _made(self) -> None:
        self.update()

    def sizeHint(self) -> QSize:
        """Ask for a few."""
        return QSize(4 * (THUMB_PX + GAP_PX), THUMB_PX)

    def paintEvent(self, event: QPaintEvent) -> None:
        """Draw them; those out of view are not asked for."""
        painter = QPainter(self)
        painter.setRenderHint(QPainter.RenderHint.Antialiasing)
        painter.setRenderHint(QPainter.RenderHint.SmoothPixmapTransform)
        tokens = theme.current()
        fitting = max(1, (self.width() + GAP_PX) // (THUMB_PX + GAP_PX))
        shown = len(self._ids) if len(self._ids) <= fitting else fitting - 1
        for number, name in enumerate(self._ids[:shown]):
            place = QRectF(number * (THUMB_PX + GAP_PX), 0, THUMB_PX, THUMB_PX)
            shape = QPainterPath()
            shape.addRoundedRect(place, theme.RADIUS, theme.RADIUS)
            painter.fillPath(shape, QColor(tokens.raised))
            pixmap = self._thumbnails.get(self._study.image(name))
            if pixmap is not None:
                painter.setClipPath(shape)
                painter.drawPixmap(place, pixmap, QRectF(pixmap.rect()))
                painter.setClipping(False)
        if shown < len(self._ids):
            painter.setPen(QColor(tokens.muted))
            place = QRectF(shown * (THUMB_PX + GAP_PX), 0, THUMB_PX, THUMB_PX)
            painter.drawText(place, Qt.AlignmentFlag.AlignCenter, f"+{len(self._ids) - shown:,}")
        painter.end()
