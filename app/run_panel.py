"""All runs of the study at the page's side: what each is and reached, and what can be done with those chosen."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path

from PySide6.QtCore import QPoint, Qt, Signal
from PySide6.QtGui import QKeySequence
from PySide6.QtWidgets import QFileDialog, QFrame, QHBoxLayout, QMenu, QVBoxLayout

from app import theme
from app.dialogs import Dialog, WarningRow
from app.jobs import StepProgress, Task
from app.run_table import RunModel, RunRow, RunTable
from app.texts import duration_text, when_text
from app.widgets import IconButton, box, heading, label
from gaze_capture.errors import UserError
from segmentation.run_care import Deletion, delete_runs, export_run, plan_deletion, rename_run, size_text
from segmentation.run_comparison import MOST_RUNS
from segmentation.run_list import Measured, RunList, RunSummary, shown_measurement
from segmentation.study import Study

DASH = "–"


class RunPanel(QFrame):
    """The list of runs with its small bar of buttons."""

    followed = Signal(str)
    """Id of the run a person wants to look at."""
    changed = Signal()
    """Runs were named or deleted: the list is to be read again."""
    task_wanted = Signal(object)
    error = Signal(str, str)
    notice = Signal(str)

    def __init__(self, words: Mapping[str, str]) -> None:
        super().__init__()
        self.setObjectName("panelRight")
        self._words = words
        self._list: RunList | None = None
        self.summaries: dict[str, RunSummary] = {}
        self.model = RunModel(self)
        self.model.renamed.connect(self._rename_to)
        self.table = RunTable(self.model)
        self.table.picked.connect(self.followed)
        self.table.choice_changed.connect(self._show_what_can_be_done)
        self.table.key_pressed.connect(self.do)
        self.table.customContextMenuRequested.connect(self._show_menu)
        layout = QVBoxLayout(self)
        box(layout, spacing=0)
        head = QHBoxLayout()
        box(head, margins=(theme.LARGE, theme.WIDE, theme.NORMAL, theme.NORMAL), spacing=2)
        head.addWidget(heading(self.tr("Runs")), 1)
        self.buttons: dict[str, IconButton] = {}
        for name, icon in (
            ("compare", "git-diff"),
            ("rename", "pencil-simple"),
            ("export", "export"),
            ("delete", "trash"),
        ):
            button = IconButton(icon, "", on_click=partial(self.do, name))
            self.buttons[name] = button
            head.addWidget(button)
        layout.addLayout(head)
        self.empty = label(
            self.tr("Each training is listed here, to be compared, named and exported."), "muted", wrap=True
        )
        self.empty.setContentsMargins(theme.LARGE, theme.SMALL, theme.LARGE, 0)
        self.empty.setAlignment(Qt.AlignmentFlag.AlignTop)
        layout.addWidget(self.empty, 1)
        layout.addWidget(self.table, 1)
        self.footnote = label("", "muted", wrap=True)
        self.footnote.setContentsMargins(theme.LARGE, theme.NORMAL, theme.LARGE, theme.WIDE)
        layout.addWidget(self.footnote)
        self._show(())

    # What is listed

    def list_runs(self, study: Study | None) -> None:
        """Read the study's runs and show them; UserError where it cannot be reached."""
        if study is None:
            self._list = None
            self._show(())
            return
        if self._list is None or self._list.study is not study:
            self._list = RunList(study)
        self._show(self._list.summaries())

    def _show(self, runs: Sequence[RunSummary]) -> None:
        self.summaries = {run.id: run for run in runs}
        key = shown_measurement(runs)
        starred = key is not None and any(
            one is not None and one.simulated for one in (run.measurement(*key) for run in runs)
        )
        if key is None:
            tip = self.tr("No run was measured yet: gaze-insight evaluate STUDY")
            self.model.set_dice_title(self.tr("Dice"), tip)
        else:
            tip = self.tr("Mean Dice on {split}, against {truth}").format(
                split=self._split_words(key[0]), truth=self._truth_words(key[1])
            )
            self.model.set_dice_title(self.tr("Dice, {split}").format(split=key[0] or self.tr("all")), tip)
        self.model.set_rows([self._row(run, key) for run in runs])
        self.footnote.setText(self.tr("* The gaze it learned from was simulated.") if starred else "")
        self.footnote.setVisible(starred)
        self.empty.setVisible(not runs)
        self.table.setVisible(bool(runs))
        self._show_what_can_be_done()

    def full_title(self, run_id: str, method: str) -> str:
        """Return all that tells a run: its name where it has one, its method, its id."""
        run = self.summaries.get(run_id)
        return " · ".join(filter(None, (run.name if run is not None else "", method, run_id)))

    def _split_words(self, split: str | None) -> str:
        return self.tr("all images") if split is None else self.tr("the split {split}").format(split=split)

    def _truth_words(self, against: str) -> str:
        words = {
            "masks": self.tr("true masks"),
            "pseudomasks": self.tr("pseudo-masks"),
            "reviews": self.tr("reviewed masks"),
            "audit": self.tr("a blind audit"),
        }
        return words.get(against, against)

    def _row(self, run: RunSummary, key: tuple[str | None, str] | None) -> RunRow:
        one = run.measurement(*key) if key is not None else None
        known = one is not None and math.isfinite(one.dice)
        dice = f"{one.dice:.3f}{'*' if one.simulated else ''}" if one is not None and known else DASH
        detail = [when_text(run.begun)]
        if run.host:
            detail.append(run.host)
        if run.title != run.method and run.spec is not None:
            detail.insert(0, run.method)
        if run.problem:
            detail = [self.tr("cannot be read"), when_text(run.begun)]
        return RunRow(
            id=run.id,
            method=run.method,
            state=run.state,
            word=self._words[run.state],
            title=run.title,
            name=run.name,
            detail=" · ".join(detail),
            dice=dice,
            dice_tip="\n".join(map(self._measured_words, run.measured))
            or self.tr("Not measured yet: gaze-insight evaluate STUDY --run {run}").format(run=run.id),
            tip=self._tip(run),
        )

    def _measured_words(self, one: Measured) -> str:
        spread = f" ± {one.sd:.3f}" if math.isfinite(one.sd) else ""
        text = self.tr("{dice} on {split}, {n} images, against {truth}").format(
            dice=f"{one.dice:.3f}{spread}",
            split=self._split_words(one.split),
            n=one.images,
            truth=self._truth_words(one.against),
        )
        return f"{text}; {one.gaze}" if one.simulated else text

    def _tip(self, run: RunSummary) -> str:
        lines = [run.name, run.id] if run.name else [run.id]
        if run.spec is not None:
            lines.append(
                self.tr("{method}, preset {preset}, seed {seed}").format(
                    method=run.method, preset=run.spec.preset, seed=run.spec.seed
                )
            )
        if run.problem:
            lines.append(run.problem)
        if run.host:
            lines.append(self.tr("At work on {host}").format(host=run.host))
        steps = self.tr("{n:,} of {total:,} steps").format(n=run.step, total=run.total)
        time = (
            "" if math.isnan(run.seconds) else self.tr(" in {time}").format(time=duration_text(run.seconds))
        )
        lines.append(f"{steps}{time}, {run.device}" if run.device else f"{steps}{time}")
        return "\n".join(lines)

    # What can be done

    def _why_not(self, act: str) -> str:
        """Return why something cannot be done with the runs chosen; nothing where it can."""
        chosen = self.table.chosen()
        busy = any(self.summaries[run_id].state == "running" for run_id in chosen if run_id in self.summaries)
        if act == "compare":
            if not 2 <= len(chosen) <= MOST_RUNS:
                return self.tr("choose two to {n} runs, with Ctrl or Shift held").format(n=MOST_RUNS)
        elif not chosen:
            return self.tr("choose a run first")
        elif act in ("rename", "export") and len(chosen) > 1:
            return self.tr("choose one run")
        elif act in ("delete", "export") and busy:
            return self.tr("it is being worked on")
        return ""

    def _show_what_can_be_done(self) -> None:
        for act, button in self.buttons.items():
            why = self._why_not(act)
            words, key = self._act_words(act)
            tip = f"{words} ({key})"
            button.setEnabled(not why)
            button.setToolTip(f"{tip}: {why}" if why else tip)
            button.setAccessibleName(words)

    def _act_words(self, act: str) -> tuple[str, str]:
        return {
            "compare": (self.tr("Compare the runs chosen"), "C"),
            "rename": (self.tr("Rename"), "F2"),
            "export": (self.tr("Export as one archive"), self._native("Ctrl+E")),
            "delete": (self.tr("Delete"), self.tr("Del")),
        }[act]

    @staticmethod
    def _native(key: str) -> str:
        return QKeySequence(key).toString(QKeySequence.SequenceFormat.NativeText)

    def do(self, act: str) -> None:
        """Do something with the runs chosen, or say why that cannot be."""
        why = self._why_not(act)
        if why:
            self.error.emit(f"{self._act_words(act)[0]}: {why}.", "")
            return
        chosen = self.table.chosen()
        acts: dict[str, Callable[[], None]] = {
            "compare": lambda: self.compare(chosen),
            "rename": lambda: self.table.rename(chosen[0]),
            "export": lambda: self.export(chosen[0]),
            "delete": lambda: self.ask_to_delete(chosen),
        }
        acts[act]()

    def _show_menu(self, place: QPoint) -> None:
        if not self.table.chosen():
            return
        menu = self.make_menu()
        menu.popup(self.table.viewport().mapToGlobal(place))

    def make_menu(self) -> QMenu:
        """Return the menu of the runs chosen, which deletes itself."""
        menu = QMenu(self)
        menu.setAttribute(Qt.WidgetAttribute.WA_DeleteOnClose)
        for act in ("compare", "rename", "export", "delete"):
            words, key = self._act_words(act)
            if act == "export":
                words += "…"
            if act == "delete":
                menu.addSeparator()
            action = menu.addAction(f"{words}\t{key}")
            action.setEnabled(not self._why_not(act))
            action.triggered.connect(lambda _=False, act=act: self.do(act))
        return menu

    def _study(self) -> Study:
        assert self._list is not None
        return self._list.study

    def _rename_to(self, run_id: str, name: str) -> None:
        try:
            rename_run(self._study(), run_id, name)
        except UserError as error:
            self.error.emit(str(error), "")
        self.changed.emit()

    def export(self, run_id: str) -> None:
        """Ask for a file and write the run into it."""
        title = self.summaries[run_id].title
        proposed = run_id if title == self.summaries[run_id].method else title
        safe = "".join(one if one.isalnum() or one in "-_. " else "-" for one in proposed).strip(". ")
        chosen, _ = QFileDialog.getSaveFileName(
            self,
            self.tr("Export the run"),
            str(Path.home() / f"{safe or run_id}.zip"),
            self.tr("Archive of a run (*.zip)"),
        )
        if chosen:
            self.export_to(run_id, Path(chosen))

    def export_to(self, run_id: str, file: Path) -> None:
        """Write a run into a file; one of that very name is replaced, as the person was asked."""
        study, whole = self._study(), file.suffix.lower() == ".zip"
        file = file if whole else file.with_name(f"{file.name}.zip")

        def work(_: StepProgress) -> int:
            return export_run(study, run_id, file, replace=whole)

        task = Task(work, self.tr("Exporting the run"), self)
        task.succeeded.connect(
            lambda size: self.notice.emit(
                self.tr("Saved as {file}, {size}.").format(file=file, size=size_text(size))
            )
        )
        self.task_wanted.emit(task)

    def ask_to_delete(self, run_ids: Sequence[str]) -> None:
        """Say what would go, and delete when told to."""
        titles = [self.summaries[run_id].title for run_id in run_ids]
        dialog = DeleteDialog(self, self._study(), run_ids, titles)
        dialog.confirmed.connect(lambda: self._delete(run_ids))
        dialog.open()

    def _delete(self, run_ids: Sequence[str]) -> None:
        study = self._study()
        task = Task(lambda _: delete_runs(study, run_ids, reviewed_too=True), self.tr("Deleting runs"), self)
        task.succeeded.connect(self._tell_of_deletion)
        task.ended.connect(self.changed)
        self.task_wanted.emit(task)

    def _tell_of_deletion(self, gone: list[Deletion]) -> None:
        size = size_text(sum(one.size_bytes for one in gone))
        self.notice.emit(
            self.tr("The run is deleted; {size} are free again.").format(size=size)
            if len(gone) == 1
            else self.tr("{n} runs are deleted; {size} are free again.").format(n=len(gone), size=size)
        )

    def compare(self, run_ids: Sequence[str]) -> None:
        """Show runs side by side, in a window beside this one; the oldest is what the others are held against."""
        from app.run_compare import CompareDialog

        runs = [self.summaries[run_id] for run_id in reversed(run_ids)]
        dialog = CompareDialog(self.window(), self._study(), runs)
        dialog.show()


class DeleteDialog(Dialog):
    """What would go with runs, and what would stay."""

    confirmed = Signal()

    def __init__(self, parent: RunPanel, study: Study, run_ids: Sequence[str], titles: Sequence[str]) -> None:
        count = len(run_ids)
        title = self.tr("Delete the run?") if count == 1 else self.tr("Delete {n} runs?").format(n=count)
        super().__init__(parent.window(), title)
        shown = [*titles[:6], *([self.tr("and {n} more").format(n=count - 6)] if count > 6 else [])]
        names = label("\n".join(shown), wrap=True)
        self.body.addWidget(names)
        self.what = label(self.tr("Counting what would go…"), "muted", wrap=True)
        self.body.addWidget(self.what)
        self.reviewed = WarningRow("", self.reject)
        self.reviewed.button.hide()
        self.body.addWidget(self.reviewed)
        self.body.addStretch(1)
        self.cancel_button = self.add_button(self.tr("Cancel"), self.reject)
        self.delete_button = self.add_button(self.tr("Delete"), self._confirm, "danger", "trash")
        self.delete_button.setEnabled(False)
        # There is no way back: Enter does not delete.
        self.cancel_button.setDefault(True)
        self.cancel_button.setFocus()
        self.fit(440)
        self.work(lambda _: plan_deletion(study, run_ids), title, self._tell)

    def _tell(self, planned: list[Deletion]) -> None:
        size = size_text(sum(one.size_bytes for one in planned))
        self.what.setText(
            self.tr("Weights, predictions, curves and measures go for good; {size} become free.").format(
                size=size
            )
        )
        reviews = sum(one.reviews for one in planned)
        if reviews:
            self.reviewed.warn(
                self.tr("1 review judges a prediction that would go. The review and its mask stay.")
                if reviews == 1
                else self.tr(
                    "{n} reviews judge predictions that would go. The reviews and their masks stay."
                ).format(n=f"{reviews:,}")
            )
        self.delete_button.setEnabled(True)

    def _confirm(self) -> None:
        self.accept()
        self.confirmed.emit()
