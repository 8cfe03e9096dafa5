"""After an import of gaze: what each file brought, what to know of it, or why it did not come in."""

from __future__ import annotations

import sys
from collections.abc import Sequence

from PySide6.QtCore import Qt
from PySide6.QtGui import QGuiApplication
from PySide6.QtWidgets import QHBoxLayout, QTreeWidgetItem, QVBoxLayout, QWidget

from app import theme
from app.dialogs import Dialog
from app.gaze_choice import GazeOutcome
from app.gaze_words import listed, short
from app.import_result import ReasonTree
from app.widgets import box, label
from segmentation.gaze_import import GazeReport

MOST_NAMES = 12
"""So many images that the study has not are named; the copied text has all."""


def counted(number: int, one: str, many: str) -> str:
    """Return a number with its noun."""
    return f"{number:,} {one if number == 1 else many}"


def report_words(widget: QWidget, report: GazeReport) -> str:
    """Return what a file brought, in one sentence."""
    fixations = counted(report.fixations, widget.tr("fixation"), widget.tr("fixations"))
    images = counted(report.images, widget.tr("image"), widget.tr("images"))
    if report.recording is None:
        text = widget.tr("{fixations} on {images}.").format(fixations=fixations, images=images)
        return text + (
            " " + widget.tr("It was in the study before and has been replaced.")
            if report.already_there
            else ""
        )
    if report.already_there:
        return widget.tr("In the study already, with {fixations} on {images}; nothing was changed.").format(
            fixations=fixations, images=images
        )
    return widget.tr("{samples}, in them {fixations} on {images}.").format(
        samples=counted(report.samples, widget.tr("sample"), widget.tr("samples")),
        fixations=fixations,
        images=images,
    )


def remarks(widget: QWidget, outcome: GazeOutcome, most: int = MOST_NAMES) -> list[str]:
    """Return what is to be known of a file's import, as sentences; of images not in the study `most` are named."""
    report = outcome.report
    if report is None:
        return [outcome.problem]
    found = []
    if report.unknown_images:
        found.append(widget.tr("Not in the study: {names}").format(names=listed(report.unknown_images, most)))
    if report.outside_image:
        found.append(
            widget.tr("Fixations outside their image, which will not count in heatmaps: {n}").format(
                n=f"{report.outside_image:,}"
            )
        )
    if report.dropped:
        found.append(
            widget.tr("Left out without a duration or a position: {n}").format(n=f"{report.dropped:,}")
        )
    return [*found, *report.notes]


class GazeImportResult(Dialog):
    """Counts, then file by file."""

    def __init__(self, parent: QWidget | None, outcomes: Sequence[GazeOutcome]) -> None:
        super().__init__(parent, "", scrolls=False)
        self.setWindowTitle(self.tr("Gaze imported"))
        self.outcomes = sorted(outcomes, key=lambda outcome: outcome.report is not None)
        counts = QHBoxLayout()
        box(counts, spacing=32)
        for number, word in self.tiles():
            tile = QVBoxLayout()
            box(tile, spacing=0)
            figure = label(f"{number:,}")
            figure.setFont(theme.heading_font(20))
            tile.addWidget(figure)
            tile.addWidget(label(word, "muted"))
            counts.addLayout(tile)
        counts.addStretch(1)
        self.body.addLayout(counts)
        self.tree = ReasonTree()
        self.tree.setHeaderHidden(True)
        self.tree.setWordWrap(True)
        self.tree.setHorizontalScrollBarPolicy(Qt.ScrollBarPolicy.ScrollBarAlwaysOff)
        self.tree.setAccessibleName(self.tr("What each file brought"))
        for outcome in self.outcomes:
            self._add(outcome)
        self.body.addWidget(self.tree, 1)
        self.copy_button = self.add_button(self.tr("Copy all"), self.copy_all, icon="copy")
        self.close_button = self.add_button(self.tr("Close"), self.accept, "primary")
        self.resize(720, 480)
        self.close_button.setFocus()

    def tiles(self) -> list[tuple[int, str]]:
        """Return the counts over all files, with their words."""
        reports = [outcome.report for outcome in self.outcomes if outcome.report is not None]
        samples = sum(report.samples for report in reports if not report.already_there)
        tiles = [
            (len(reports), self.tr("files in the study")),
            (len(self.outcomes) - len(reports), self.tr("left out")),
            (samples, self.tr("new samples")),
            (sum(report.fixations for report in reports), self.tr("fixations")),
        ]
        return [tile for number, tile in enumerate(tiles) if tile[0] or number == 0]

    def _add(self, outcome: GazeOutcome) -> None:
        report = outcome.report
        words = self.tr("Not imported.") if report is None else report_words(self, report)
        top = QTreeWidgetItem(self.tree, [f"{short(outcome.file.name)}:  {words}"])
        top.setToolTip(0, str(outcome.file))
        font = top.font(0)
        font.setBold(True)
        top.setFont(0, font)
        name, token = ("x-circle", "danger") if report is None else ("check-circle", "accent")
        top.setIcon(0, theme.icon(name, getattr(theme.current(), token)))
        self.tree.reasons.append(top)
        for text in remarks(self, outcome):
            item = QTreeWidgetItem(top, [text])
            item.setToolTip(0, text)
            self.tree.reasons.append(item)
        top.setExpanded(outcome.worth_showing or len(self.outcomes) <= 3)

    def text(self) -> str:
        """Return the whole report as text."""
        lines = [f"{number:,} {word}" for number, word in self.tiles()]
        for outcome in self.outcomes:
            words = self.tr("Not imported.") if outcome.report is None else report_words(self, outcome.report)
            lines += ["", f"{outcome.file}: {words}", *remarks(self, outcome, sys.maxsize)]
        return "\n".join(lines)

    def copy_all(self) -> None:
        """Copy the report, and say so."""
        QGuiApplication.clipboard().setText(self.text())
        self.copy_button.setText(self.tr("Copied"))
