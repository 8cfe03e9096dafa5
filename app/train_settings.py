"""What Train will do and why, in sentences; the settings behind it are folded away."""

from __future__ import annotations

from PySide6.QtCore import Signal
from PySide6.QtWidgets import QFrame, QHBoxLayout, QVBoxLayout

from app import theme
from app.overview import Overview
from app.texts import duration_text
from app.train_fields import TrainFields
from app.widgets import Button, Fold, box, heading, label, set_role
from gaze_capture.errors import UserError
from segmentation.advice import Advice, advise, fitting_runs, what_prevents
from segmentation.intensity import rules_for
from segmentation.job import RunSpec
from segmentation.machine import Machine
from segmentation.presets import preset
from segmentation.study import Study
from segmentation.text.choice import with_text


class TrainSettings(QFrame):
    """The Train button, and beside it what it will do, why so, and what else to know."""

    wanted = Signal()
    """Train was pressed."""
    changed = Signal()

    def __init__(self) -> None:
        super().__init__()
        self.setObjectName("hero")
        self._overview = Overview()
        self._machine: Machine | None = None
        layout = QVBoxLayout(self)
        box(layout, margins=(20, 16, 20, 12), spacing=theme.NORMAL)
        top = QHBoxLayout()
        box(top, spacing=theme.LARGE)
        texts = QVBoxLayout()
        box(texts, spacing=theme.SMALL)
        self.title = heading(self.tr("Train a model"))
        self.sentence = label("", wrap=True)
        self.reasons = label("", "muted", wrap=True)
        self.warnings = label("", "warning", wrap=True)
        for widget in (self.title, self.sentence, self.reasons, self.warnings):
            texts.addWidget(widget)
        self.train_button = Button(self.tr("Train"), "play", "primary", self.wanted.emit)
        side = QVBoxLayout()
        side.addWidget(self.train_button)
        side.addStretch(1)
        top.addLayout(texts, 1)
        top.addLayout(side)
        layout.addLayout(top)
        self.advised = QFrame()
        self.advised.setObjectName("chip")
        chip = QHBoxLayout(self.advised)
        box(chip, margins=(theme.WIDE, theme.SMALL, theme.SMALL, theme.SMALL), spacing=theme.NORMAL)
        self.advice_text = label("", wrap=True)
        self.advice_button = Button(self.tr("Take the advice"), role="plain")
        chip.addWidget(self.advice_text, 1)
        chip.addWidget(self.advice_button)
        self.advised.hide()
        layout.addWidget(self.advised)
        self._advanced = Fold(self.tr("Advanced settings"))
        self.fields = TrainFields()
        self.fields.changed.connect(self.changed)
        self.advice_button.clicked.connect(lambda _: self.fields.let_go())
        inside = QVBoxLayout(self._advanced.body)
        box(inside, spacing=0)
        inside.addWidget(self.fields)
        layout.addWidget(self._advanced)
        self.method, self.preset, self.device = self.fields.method, self.fields.preset, self.fields.device
        self.minutes, self.iterations = self.fields.minutes, self.fields.iterations
        self.seed, self.predict_after = self.fields.seed, self.fields.predict_after

    def spec(self, study: Study) -> RunSpec:
        """Return the spec that Train would start, from the settings as they are.

        Raises
        ------
        UserError
            If they do not go together; the sentence says which.
        """
        targets = tuple(target.id for target in study.targets)
        changes = self.fields.changes(self._overview.facts)
        return preset(self.method.currentText(), self.preset.currentText(), targets=targets, **changes)

    def show_plan(
        self, study: Study | None, overview: Overview, machine: Machine | None = None, *, busy: bool
    ) -> None:
        """Say what Train would do with a study on a computer and why, or why it cannot."""
        self._overview, self._machine = overview, machine
        self.fields.encoder.set_study(study)
        self.reasons.hide()
        self.warnings.hide()
        self.advised.hide()
        free = advise(machine, overview.facts) if machine is not None else None
        if free is not None:
            self.fields.follow(self._given(free))
        missing = self._missing(study)
        if missing is not None or study is None or machine is None or free is None:
            self._say(
                missing or self.tr("Looking at this computer…"), "warning" if missing and study else "muted"
            )
            self.train_button.setEnabled(False)
            return
        self._show_advice(free)
        try:
            spec = with_text(study, self.spec(study))
            fitting = fitting_runs(spec, overview.learned)
            self.fields.offer_runs(fitting, overview.learned)
            problem = self.fields.encoder.problem or what_prevents(spec, overview.facts, machine)
            if spec.warm_start and spec.warm_start not in fitting:
                problem = self.tr(
                    "The run {run} cannot be begun with: method, preset, encoder or text make other networks now than "
                    "it has; choose another run or none."
                ).format(run=spec.warm_start)
        except UserError as error:
            problem = str(error)
        self.train_button.setEnabled(not problem and not busy)
        if problem:
            self._say(problem, "warning")
        elif busy:
            self._say(
                self.tr(
                    "One run is at work. Another can start when it has ended; this window may be closed meanwhile."
                ),
                "muted",
            )
        else:
            self._say(self._plan(study, spec, machine), "")
            self._show_reasons(self._given(free))

    def _say(self, sentence: str, role: str) -> None:
        self.sentence.setText(sentence)
        set_role(self.sentence, role)

    def _given(self, free: Advice) -> Advice:
        """Return the advice under what was chosen by hand."""
        chosen = self.fields.by_hand
        method = self.method.currentText() if "method" in chosen else None
        device = self.device.currentText() if "device" in chosen else None
        if self._machine is None or (method is None and device in (None, "auto")):
            return free
        wish = None if device == "auto" else device
        return advise(self._machine, self._overview.facts, method=method, device=wish)

    def _show_reasons(self, advice: Advice) -> None:
        self.reasons.setText(self.tr("Why: {reasons}").format(reasons=" ".join(advice.reasons)))
        self.reasons.setVisible("preset" not in self.fields.by_hand)
        warnings = [*advice.warnings]
        machine = self._machine
        if self.preset.currentText() != "cpu" and machine is not None:
            if self.device.currentText() == "cpu" or machine.gpu is None:
                warnings.insert(
                    0,
                    self.tr("The preset {preset} takes days on a processor.").format(
                        preset=self.preset.currentText()
                    ),
                )
        self.warnings.setText(" ".join(warnings))
        self.warnings.setVisible(bool(warnings))

    def _show_advice(self, free: Advice) -> None:
        """Say what would be advised where a person chose otherwise, and offer to go back."""
        titles = {"method": self.tr("method"), "preset": self.tr("preset"), "device": self.tr("device")}
        told = [
            f"{title} {getattr(free, name)}"
            for name, title in titles.items()
            if getattr(self.fields, name).currentText() != getattr(free, name)
        ]
        if told:
            why = " ".join(free.reasons[:2])
            text = self.tr("Advised here: {what}. {why}").format(what=", ".join(told), why=why)
            self.advice_text.setText(text)
        self.advised.setVisible(bool(told))

    def _plan(self, study: Study, spec: RunSpec, machine: Machine) -> str:
        if spec.max_minutes:
            length = self.tr("at most {time}").format(time=duration_text(spec.max_minutes * 60))
        else:
            length = self.tr("{n:,} steps").format(n=spec.iterations)
        count = self._overview.facts.to_learn_from(spec.method)
        images = self.tr("1 image") if count == 1 else self.tr("{n:,} images").format(n=count)
        text = self.tr(
            "Learns from {images} with the method {method}, preset {preset}, on {device}; {length}. "
            "Runs in the background, also when the window is closed."
        ).format(
            images=images,
            method=spec.method,
            preset=spec.preset,
            device=self._device_in_words(spec, machine),
            length=length,
        )
        simulated = self._overview.simulated_from
        if simulated and spec.method != "supervised":
            text += self.tr(" Gaze is simulated from {what}.").format(what=simulated)
        return text + self._kinds_in_words(study, spec)

    def _kinds_in_words(self, study: Study, spec: RunSpec) -> str:
        """Say how many targets are learned, and how what is no photograph is normalised."""
        told = ""
        if len(spec.targets) > 1:
            told += self.tr(" {n} targets.").format(n=len(spec.targets))
        rules = rules_for(spec.normalisation, (image.modality for image in study.images.values()))
        others = [f"{modality.upper()} {rule}" for modality, rule in rules.items() if modality != "photo"]
        if others:
            told += self.tr(" Values: {rules}.").format(rules=", ".join(others))
        return told

    def _missing(self, study: Study | None) -> str | None:
        if study is None:
            return self.tr("Open a study first.")
        if not study.images:
            return self.tr("The study has no images yet: import some on the study page.")
        facts = self._overview.facts
        if not self._overview.images:
            return self.tr("Counting what there is to learn from…")
        if not facts.images:
            return self.tr("The study has no images in the split train, which is what is learned from.")
        if facts.to_learn_from(self.method.currentText()):
            return None
        if self.method.currentText() == "supervised":
            return self.tr("The method supervised needs true or reviewed masks; the study has none.")
        return self.tr("There is no pseudo-mask to learn from yet: record gaze, then make pseudo-masks.")

    def _device_in_words(self, spec: RunSpec, machine: Machine) -> str:
        if spec.device != "cpu" and machine.gpu is not None:
            return self.tr("the {name}").format(name=machine.gpu.name)
        # One less than there are: the window stays fluid, and training is hardly slower.
        threads = max(1, machine.cores - 1)
        if threads == 1:
            return self.tr("the processor (1 thread)")
        return self.tr("the processor ({n} threads)").format(n=threads)
