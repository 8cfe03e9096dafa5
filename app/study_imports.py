"""What the study page can bring in and change: each its dialog, then a task, then what came of it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from PySide6.QtCore import QObject
from PySide6.QtWidgets import QFileDialog, QMenu

from app.dialogs import in_background
from app.jobs import Cancelled, StepProgress, Task
from app.page import Page
from segmentation.records import Target
from segmentation.study import Study

if TYPE_CHECKING:
    # Each dialog is imported when it is first opened: the window should be there at once.
    from app.gaze_choice import GazeChoice, GazeOutcome, Sorted
    from app.import_choice import ImportChoice
    from segmentation.importing import ImportReport

MOST_STRANGERS = 2
"""Of files that are not gaze so many are explained at once; the details have the others."""


class StudyImports(QObject):
    """Opens the dialogs of a page and starts what they decide."""

    def __init__(self, page: Page) -> None:
        super().__init__(page)
        self._page = page
        self.last: ImportReport | None = None
        """Of this session's latest import."""
        self._gaze_waiting: tuple[Path, ...] = ()
        """Files that were dropped together with the images that they are about."""

    @property
    def _study(self) -> Study | None:
        return self._page.session.study

    def menu(self) -> QMenu:
        """Return the further ways to import; what cannot be done now is greyed when it opens."""
        menu = QMenu(self._page)
        entries = (
            (self.tr("Import masks…"), self.choose_masks, self._has_images),
            (self.tr("Import masks as reviews…"), self.choose_reviews, self._has_images),
            (self.tr("Published data set…"), self.choose_published, lambda: self._study is not None),
            (self.tr("Similar images…"), self.find_similar, self._has_images),
            (self.tr("Text in the pixels…"), self.look_at_text, self._has_marked),
            (self.tr("What the last import left out…"), self.show_last, lambda: self.last is not None),
        )
        actions = []
        for number, (text, act, possible) in enumerate(entries):
            if number == 3:
                menu.addSeparator()
            action = menu.addAction(text)
            action.triggered.connect(lambda _=False, act=act: act())
            actions.append((action, possible))

        def update() -> None:
            for action, possible in actions:
                action.setEnabled(possible())

        menu.aboutToShow.connect(update)
        return menu

    def _has_images(self) -> bool:
        return self._study is not None and bool(self._study.images)

    def _has_marked(self) -> bool:
        return self._study is not None and any(image.burned_in for image in self._study.images.values())

    # Images

    def choose_images(self, paths: Sequence[Path] = (), gaze: Sequence[Path] = ()) -> None:
        """Ask what to import and how, beginning with files or folders that were dropped; then take gaze files."""
        if self._study is None:
            return
        from app.import_dialog import ImportDialog

        self._gaze_waiting = tuple(gaze)
        dialog = ImportDialog(self._page, self._study, paths)
        dialog.chosen.connect(self.import_images)
        dialog.rejected.connect(self._take_waiting_gaze)
        dialog.open()

    def _take_waiting_gaze(self) -> None:
        gaze, self._gaze_waiting = self._gaze_waiting, ()
        self.take_gaze(gaze)

    def import_images(self, choice: ImportChoice) -> None:
        """Import images in a thread."""
        study = self._study
        assert study is not None

        def work(progress: StepProgress) -> ImportReport:
            from segmentation.importing import import_images

            return import_images(
                study,
                choice.paths,
                masks=choice.masks,
                labels=choice.labels,
                target=choice.target,
                split=choice.options.split,
                group_by=choice.options.group_by,
                options=choice.options,
                progress=progress,
            )

        self._do(work, self.tr("Importing images"), self._show_report, self._take_waiting_gaze)

    def _show_report(self, report: ImportReport) -> None:
        from app.import_result import worth_showing

        self.last = report
        if worth_showing(report):
            self.show_last()
            return
        text = self.tr("{n} images came in.").format(n=f"{len(report.imported):,}")
        if report.masks:
            text += " " + self.tr("{n} true masks came with them.").format(n=f"{report.masks:,}")
        if report.duplicates:
            text += " " + self.tr("{n} were in the study already.").format(n=f"{len(report.duplicates):,}")
        self._page.notice.emit(text)

    def show_last(self) -> None:
        """Show what the latest import brought and what it left out."""
        if self.last is None:
            return
        from app.import_result import ImportResult

        dialog = ImportResult(self._page, self.last)
        dialog.look_wanted.connect(self.look_at_text)
        dialog.open()

    def look_at_text(self) -> None:
        """Show the images in which text is likely, one after the other."""
        if self._study is None:
            return
        from app.burned_in_dialog import BurnedInDialog

        dialog = BurnedInDialog(self._page, self._study)
        dialog.finished.connect(self._refresh)
        dialog.open()

    # Masks, data sets, gaze

    def choose_masks(self) -> None:
        """Ask for masks of images that are there already."""
        if self._study is None:
            return
        from app.import_dialog import MasksDialog

        dialog = MasksDialog(self._page, self._study)
        dialog.chosen.connect(self.import_masks)
        dialog.open()

    def import_masks(self, choice: ImportChoice) -> None:
        """Import masks in a thread."""
        study, masks = self._study, choice.masks
        assert study is not None and masks is not None

        def work(progress: StepProgress) -> object:
            from segmentation.masks import import_masks

            return import_masks(study, masks, labels=choice.labels, target=choice.target, progress=progress)

        def report(result: Any) -> None:
            from segmentation.importing import ImportReport

            taken = ImportReport(masks=result.masks, skipped=result.skipped)
            if result.skipped:
                self.last = taken
                self.show_last()
            else:
                self._page.notice.emit(
                    self.tr("{n} true masks came in, for {images} images.").format(
                        n=f"{result.masks:,}", images=f"{result.images:,}"
                    )
                )

        self._do(work, self.tr("Importing masks"), report)

    def choose_reviews(self) -> None:
        """Ask for masks that were corrected elsewhere."""
        if self._study is None:
            return
        from app.import_dialog import MasksDialog

        dialog = MasksDialog(self._page, self._study, self._page.session.annotator)
        dialog.chosen.connect(self.import_reviews)
        dialog.open()

    def import_reviews(self, choice: ImportChoice) -> None:
        """Import masks as the annotator's reviews in a thread."""
        study, masks, annotator = self._study, choice.masks, self._page.session.annotator
        assert study is not None and masks is not None

        def work(progress: StepProgress) -> object:
            from segmentation.review_import import import_reviews

            return import_reviews(
                study, masks, annotator, labels=choice.labels, target=choice.target, progress=progress
            )

        def report(result: Any) -> None:
            from segmentation.importing import ImportReport

            words = self.tr("Reviews that came in: {n}; masks that had not changed: {same}.").format(
                n=f"{result.reviews:,}", same=f"{result.unchanged:,}"
            )
            if result.left_empty:
                words += " " + self.tr("Empty masks of what had none before were passed over: {n}.").format(
                    n=f"{result.left_empty:,}"
                )
            self._page.notice.emit(words)
            if result.skipped:
                self.last = ImportReport(skipped=result.skipped)
                self.show_last()

        self._do(work, self.tr("Importing reviews"), report)

    def choose_published(self) -> None:
        """Ask for a published data set."""
        if self._study is None:
            return
        from app.new_study_dialog import PublishedDialog

        dialog = PublishedDialog(self._page)
        dialog.chosen.connect(self.import_published)
        dialog.open()

    def import_published(self, name: str, folder: Path, tests: Path | None) -> None:
        """Import a published data set in a thread."""
        study = self._study
        assert study is not None

        def work(progress: StepProgress) -> ImportReport:
            from app.import_choice import merged
            from segmentation.published import import_dataset

            names = (
                tests.read_text(encoding="utf-8", errors="replace").split("\n") if tests is not None else []
            )
            reports = import_dataset(
                study,
                name,
                folder,
                test_names=[one.strip() for one in names if one.strip()],
                progress=progress,
            )
            return merged(report for _, report in reports)

        self._do(work, self.tr("Importing the data set"), self._show_report)

    def choose_gaze(self) -> None:
        """Ask for gaze files of whichever program."""
        if self._study is None:
            return
        from app.gaze_import_dialog import file_filter

        names, _ = QFileDialog.getOpenFileNames(
            self._page, self.tr("Choose gaze files"), "", file_filter(self._page)
        )
        if names:
            self.take_gaze([Path(name) for name in names])

    def take_gaze(self, paths: Sequence[Path]) -> None:
        """Import gaze files: at once where nothing has to be asked, else by a dialog."""
        study = self._study
        if study is None or not paths:
            return
        if not study.images:
            self._page.error.emit(
                self.tr("The study has no images yet; import the images before their gaze."), ""
            )
            return

        def work(_: StepProgress) -> Sorted:
            from app.gaze_choice import sorted_out

            return sorted_out(study, paths)

        in_background(work, self.tr("Looking into the files"), self._gaze_sorted, self._page.error.emit)

    def _gaze_sorted(self, found: Sorted) -> None:
        if found.strangers:
            sentences = [sentence for _, sentence in found.strangers]
            self._page.error.emit(
                "\n".join(sentences[:MOST_STRANGERS]), "\n".join(sentences[MOST_STRANGERS:])
            )
        session = self._page.session
        if not found.files or session.study is not found.study:
            return
        if found.plain:
            from app.gaze_choice import GazeChoice

            self.import_gaze([GazeChoice(file, session.annotator) for file in found.files])
            return
        from app.gaze_import_dialog import GazeImportDialog

        dialog = GazeImportDialog(self._page, session, found.files)
        dialog.chosen.connect(self.import_gaze)
        dialog.open()

    def import_gaze(self, choices: Sequence[GazeChoice], left_out: Sequence[GazeOutcome] = ()) -> None:
        """Import gaze files in a thread; the summary tells of those left out, too."""
        study = self._study
        assert study is not None
        stopped = self.tr("The import was stopped before it came in.")

        def work(progress: StepProgress) -> list[GazeOutcome]:
            from app.gaze_choice import GazeOutcome, import_each

            done: list[GazeOutcome] = []
            try:
                done.extend(import_each(study, choices, progress))
            except Cancelled:
                if not done:
                    raise
                # What came in before stays, and is told.
                done += [GazeOutcome(choice.file, problem=stopped) for choice in choices[len(done) :]]
            return [*done, *left_out]

        self._do(work, self.tr("Importing gaze"), self._show_gaze)

    def _show_gaze(self, outcomes: Sequence[GazeOutcome]) -> None:
        from app.gaze_import_result import GazeImportResult, report_words

        if len(outcomes) == 1 and not outcomes[0].worth_showing:
            [outcome] = outcomes
            assert outcome.report is not None
            self._page.notice.emit(
                self.tr("The gaze came in: {words}").format(words=report_words(self._page, outcome.report))
            )
        elif len(outcomes) == 1 and outcomes[0].report is None:
            self._page.error.emit(outcomes[0].problem, "")
        else:
            GazeImportResult(self._page, outcomes).open()

    # Targets and groups

    def edit_targets(self) -> None:
        """Change what is segmented."""
        if self._study is None:
            return
        from app.targets_dialog import TargetsDialog

        dialog = TargetsDialog(self._page, self._study.targets, self._study)
        dialog.stored.connect(self._targets_stored)
        dialog.open()

    def _targets_stored(self, targets: tuple[Target, ...]) -> None:
        session = self._page.session
        if session.target_id not in {target.id for target in targets}:
            session.target_id = targets[0].id
        self._refresh()

    def find_similar(self) -> None:
        """Look for images of one scene."""
        if self._study is None:
            return
        from app.similar_dialog import SimilarDialog

        dialog = SimilarDialog(self._page, self._study)
        dialog.stored.connect(self._page.notice)
        dialog.finished.connect(self._refresh)
        dialog.open()

    def _refresh(self) -> None:
        self._page.session.refresh("data")

    def _do(self, work: Any, title: str, report: Any, after: Callable[[], object] | None = None) -> None:
        task = Task(work, title, self._page)
        task.succeeded.connect(report)
        task.ended.connect(self._refresh)
        if after is not None:
            task.ended.connect(after)
        self._page.start_task(task)
