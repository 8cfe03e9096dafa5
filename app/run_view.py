"""One run as it stands and as it went: progress, curves, and sample masks at every step."""

from __future__ import annotations

from pathlib import Path

from PySide6.QtCore import QTimer
from PySide6.QtWidgets import QFrame, QHBoxLayout, QProgressBar, QVBoxLayout, QWidget

from app import theme
from app.plots import Plot
from app.samples import SampleStrip
from app.texts import duration_text
from app.widgets import ElidedLabel, Pill, box, label, set_role
from segmentation.advice import in_gb
from segmentation.job import JobEvent, RunSpec
from segmentation.study import Study

CONSISTENCY_TERMS = ("afc", "cwc", "consistency")
"""Losses that say how far the networks are from each other; all others, but the total, are towards labels."""
WARM_UP_SECONDS = 10.0
"""Before that, how fast a run is says little of how fast it will be."""


class Figure(QWidget):
    """A number with what it is below it."""

    def __init__(self, name: str, tip: str) -> None:
        super().__init__()
        self.setToolTip(tip)
        layout = QVBoxLayout(self)
        box(layout, spacing=0)
        self.value = label("–")
        self.value.setFont(theme.number_font(15))
        self.name = label(name, "muted")
        layout.addWidget(self.value)
        layout.addWidget(self.name)

    def text(self) -> str:
        """Return the number as shown."""
        return self.value.text()

    def set(self, text: str) -> None:
        """Show another number."""
        self.value.setText(text or "–")


class RunView(QWidget):
    """Told of a run's events, old ones first, it shows the run; it knows nothing of where they come from."""

    def __init__(self) -> None:
        super().__init__()
        self._spec = RunSpec()
        self._scored = False
        self._began = 0.0
        """Time of the first step of the present worker."""
        self._redraw = QTimer(self, singleShot=True, interval=60)
        self._redraw.timeout.connect(self._redraw_plots)
        column = QVBoxLayout(self)
        box(column, spacing=theme.WIDE)
        progress = QFrame()
        progress.setObjectName("card")
        inner = QVBoxLayout(progress)
        box(inner, margins=(theme.LARGE, theme.WIDE, theme.LARGE, theme.WIDE), spacing=theme.NORMAL)
        head = QHBoxLayout()
        box(head, spacing=theme.NORMAL)
        self.pill = Pill()
        self.run_name = ElidedLabel()
        self.run_name.setFont(theme.heading_font(13))
        head.addWidget(self.pill)
        head.addWidget(self.run_name, 1)
        self.buttons = QHBoxLayout()
        box(self.buttons, spacing=theme.NORMAL)
        head.addLayout(self.buttons)
        self.bar = QProgressBar()
        self.bar.setTextVisible(False)
        self.bar.setAccessibleName(self.tr("Progress of the run"))
        self.facts = label("", "muted", wrap=True)
        self.facts.setFont(theme.number_font(12))
        self.warning = label("", "warning", wrap=True)
        self.figures = {
            "step": Figure(self.tr("step"), self.tr("Steps done; with a time limit the total is an estimate.")),
            "left": Figure(self.tr("left"), self.tr("Time to the end of the run, at the speed of the last minute.")),
            "speed": Figure(self.tr("images a second"), self.tr("Throughput over the last minute.")),
            "memory": Figure(
                self.tr("memory at most"), self.tr("The most memory this training has taken, and how much there is.")
            ),
            "device": Figure(self.tr("device"), self.tr("What computes, and in which number format.")),
        }  # fmt: skip
        self._row = QWidget()
        row = QHBoxLayout(self._row)
        box(row, spacing=theme.HUGE)
        for figure in self.figures.values():
            row.addWidget(figure)
        row.addStretch(1)
        inner.addLayout(head)
        inner.addWidget(self.bar)
        inner.addWidget(self._row)
        inner.addWidget(self.facts)
        inner.addWidget(self.warning)
        waiting = self.tr("Waiting for the first steps…")
        self.losses = Plot(self.tr("Losses"), waiting, can_log=True)
        self.consistency = Plot(self.tr("Consistency"), waiting, can_log=True)
        self.scores = Plot(self.tr("Agreement with labels"), waiting)
        plots = QHBoxLayout()
        box(plots, spacing=theme.WIDE)
        for plot in (self.losses, self.consistency, self.scores):
            plots.addWidget(plot, 1)
        self.samples = SampleStrip()
        column.addWidget(progress)
        column.addLayout(plots, 3)
        column.addWidget(self.samples, 2)
        self.clear()

    def clear(self) -> None:
        """Forget the run."""
        self._scored = False
        self._began = 0.0
        for plot in (self.losses, self.consistency, self.scores):
            plot.clear()
        self.scores.title.setText(self.tr("Agreement with labels"))
        self.samples.clear()
        self.bar.setRange(0, 1)
        self.bar.setValue(0)
        self._tell("", "muted")
        self._warn("")
        for figure in self.figures.values():
            figure.set("")
        self._row.hide()

    def begin(self, spec: RunSpec) -> None:
        """Show another run, of which nothing is known yet but its spec."""
        self.clear()
        self._spec = spec
        self.consistency.setVisible(spec.method in ("gaze-to-insight", "gaze-multilevel"))

    def end(self) -> None:
        """Show that the run is at work no more."""
        if self.bar.maximum() == 0:
            self.bar.setRange(0, 1)
        self.figures["left"].set("")
        self.figures["left"].hide()

    def show_event(self, event: JobEvent, study: Study | None, folder: Path) -> None:
        """Take up one event of the run that lies in a folder of a study."""
        values = event.values
        if event.kind == "phase":
            self._tell(str(values.get("name", "")).capitalize() + "…", "muted")
            self.bar.setRange(0, 0)
        elif event.kind == "progress":
            self.bar.setRange(0, event.total)
            self.bar.setValue(event.step)
        elif event.kind == "started":
            self._on_started(event)
        elif event.kind == "step":
            self._on_step(event)
        elif event.kind == "agreement":
            self._on_agreement(event)
        elif event.kind == "selection":
            self._on_selection(event)
        elif event.kind == "sample" and study is not None:
            image_id, path = str(values.get("image_id")), folder / str(values.get("path", ""))
            if image_id in study.images:
                self.samples.show_sample(study, image_id, path, event.step, str(values.get("target_id", "")))
        elif event.kind == "warning" and values.get("message"):
            self._warn(str(values["message"]))
        elif event.kind in ("failed", "stopped") and values.get("message"):
            self._tell(str(values["message"]), "danger" if event.kind == "failed" else "muted")
        elif event.kind == "done":
            self._on_done(event)

    def _tell(self, text: str, role: str) -> None:
        set_role(self.facts, role)
        self.facts.setText(text)
        self.facts.setVisible(bool(text))

    def _warn(self, text: str) -> None:
        self.warning.setText(text)
        self.warning.setVisible(bool(text))

    def _on_started(self, event: JobEvent) -> None:
        values = event.values
        self._began = 0.0
        self._row.show()
        device, precision = str(values.get("device", "")), str(values.get("precision", ""))
        # A card's own name says more than cuda.
        name = device.partition("(")[2].rstrip(")") or device
        self.figures["device"].set(" · ".join(part for part in (name, precision) if part))
        told = []
        images, strong, held = (int(values.get(key) or 0) for key in ("images", "strong_labels", "held_out"))
        if images:
            told.append(self.tr("1 image") if images == 1 else self.tr("{n:,} images").format(n=images))
        if strong:
            told.append(self.tr("{n:,} of them with a reviewed mask or an absent target").format(n=strong))
        if held:
            told.append(self.tr("{n:,} held out for selection").format(n=held))
        if values.get("explained") is not None and self._spec.method == "gaze-to-insight":
            told.append(self.tr("{n:,} explained").format(n=values["explained"]))
        sentence = self.tr("Learns from {what}.").format(what=", ".join(told)) if told else ""
        self._tell(f"{sentence} {values.get('device_reason') or ''}".strip(), "muted")
        self._warn("")

    def _on_step(self, event: JobEvent) -> None:
        values = event.values
        losses = values.get("losses")
        for name, value in (losses if isinstance(losses, dict) else {}).items():
            if value is not None:
                plot = self.consistency if name in CONSISTENCY_TERMS else self.losses
                plot.add(name, self._curve_title(name), event.step, value)
        self.bar.setRange(0, max(event.total, 1))
        self.bar.setValue(event.step)
        self._row.show()
        self._began = self._began or event.time
        estimated = self._spec.max_minutes is not None and event.total < self._spec.iterations
        form = self.tr("{step:,} of about {total:,}") if estimated else self.tr("{step:,} of {total:,}")
        self.figures["step"].set(form.format(step=event.step, total=event.total))
        self.figures["left"].set(self._left(event))
        self.figures["left"].show()
        speed = values.get("images_per_s")
        self.figures["speed"].set(
            f"{speed:.0f}" if speed and speed >= 9.95 else f"{speed:.1f}" if speed else ""
        )
        used, total = values.get("memory_bytes"), values.get("memory_total_bytes")
        if used:
            of = (
                self.tr("{used} of {total}").format(used=in_gb(used), total=in_gb(total))
                if total
                else in_gb(used)
            )
            self.figures["memory"].set(of)
        self._redraw.start()

    def _left(self, event: JobEvent) -> str:
        """Return the time to the end; at the beginning, only what is certain."""
        left = event.values.get("eta_s")
        if left is None:
            return ""
        if event.time - self._began < WARM_UP_SECONDS and event.step < event.total:
            limit = self._spec.max_minutes
            if limit is None:
                return self.tr("measuring…")
            return self.tr("at most {time}").format(time=duration_text(60 * limit))
        return duration_text(left)

    def _on_agreement(self, event: JobEvent) -> None:
        value = event.values.get("dice")
        if not self._scored and isinstance(value, (int, float)):
            self.scores.add("agreement", self.tr("Dice"), event.step, float(value))
            self._redraw.start()

    def _on_selection(self, event: JobEvent) -> None:
        if not self._scored:
            # A score on images set apart says more than agreement with the labels: it takes the plot.
            self._scored = True
            self.scores.clear()
            self.scores.title.setText(self.tr("Dice on images set apart"))
        for name, value in event.values.items():
            if isinstance(value, (int, float)):
                self.scores.add(name, self._curve_title(name), event.step, float(value))
        self._redraw.start()

    def _on_done(self, event: JobEvent) -> None:
        self.bar.setRange(0, max(event.total, 1))
        self.bar.setValue(event.total)
        self.figures["step"].set(f"{event.step:,}")
        seconds = event.values.get("seconds")
        if isinstance(seconds, (int, float)):
            text = self.tr("{n:,} steps in {time}").format(n=event.step, time=duration_text(seconds))
            self._tell(text, "muted")

    def _redraw_plots(self) -> None:
        for plot in (self.losses, self.consistency, self.scores):
            plot.redraw()

    def _curve_title(self, name: str) -> str:
        titles = {
            "total": self.tr("total"),
            "student": self.tr("student"),
            "teacher": self.tr("teacher"),
            "afc": "AFC",
            "cwc": "CWC",
            "consistency": self.tr("between levels"),
            "track": self.tr("gaze track"),
            "dice": self.tr("Dice"),
            "best": self.tr("best"),
        }
        return titles.get(name, name.replace("_", " "))
