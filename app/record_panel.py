"""The record page's right panel: which tracker, how well it sees the eyes, and the sitting's buttons."""

from __future__ import annotations

from PySide6.QtCore import Qt, Signal
from PySide6.QtWidgets import (
    QCheckBox,
    QComboBox,
    QFrame,
    QGridLayout,
    QHBoxLayout,
    QProgressBar,
    QSpinBox,
    QVBoxLayout,
    QWidget,
)

from app import theme
from app.eye_box import GAUGE_MM, GOOD_MM
from app.keymap import Action, Keymap, shown
from app.targets_bar import LookFor
from app.widgets import Button, IconButton, NameField, box, heading, label, line, scrolled, set_role
from gaze_capture.recording import Presence
from segmentation.enough_gaze import GazeAmount

EXPECTED_GAZE_MS = 9000.0
"""An image gets about 9 s of gaze in the published sets."""


class RecordPanel(QFrame):
    """Widgets alone; the page decides what they mean."""

    annotator_named = Signal(str)
    tracker_chosen = Signal()
    start_wanted = Signal()
    end_wanted = Signal()
    left = Signal(object)
    """A Presence was said, or None: go on, with none in particular."""
    lesion_wanted = Signal()
    found_wanted = Signal()
    pause_wanted = Signal()
    drift_wanted = Signal()
    options_wanted = Signal()
    voice_wanted = Signal()
    keys_wanted = Signal()
    consent_wanted = Signal()
    search_wanted = Signal()

    def __init__(self) -> None:
        super().__init__()
        self.setObjectName("panelRight")
        self.setFixedWidth(324)
        self._keymap: Keymap | None = None
        self._flow = (False, False)
        self._phase = "images"
        outer = QVBoxLayout(self)
        box(outer, spacing=0)
        body = QWidget()
        column = QVBoxLayout(body)
        box(column, margins=(theme.LARGE, theme.WIDE, theme.LARGE, theme.LARGE), spacing=theme.NORMAL)
        self.tracker = QComboBox()
        self.tracker.addItem(self.tr("Simulated clinician"), "simulated")
        self.tracker.addItem(self.tr("Mouse pointer"), "mouse")
        self.tracker.addItem(self.tr("Replay of a recording"), "replay")
        self.tracker.currentIndexChanged.connect(lambda _: self.tracker_chosen.emit())
        self.recordings = QComboBox()
        self.recordings.setSizeAdjustPolicy(QComboBox.SizeAdjustPolicy.AdjustToMinimumContentsLengthWithIcon)
        self.rate = QSpinBox()
        self.rate.setRange(30, 1200)
        self.rate.setValue(120)
        self.rate.setSuffix(" Hz")
        self.rate.lineEdit().setTextMargins(8, 0, 0, 0)
        self.annotator = NameField()
        self.annotator.editingFinished.connect(lambda: self.annotator_named.emit(self.annotator.text()))
        self.about = label("", "muted", wrap=True)
        self.show_gaze = QCheckBox(self.tr("Show gaze while recording"))
        self.show_gaze.setChecked(True)
        self.by_itself = QCheckBox(self.tr("Next image by itself"))
        self.setup = QWidget()
        grid = QGridLayout(self.setup)
        box(grid, spacing=theme.NORMAL)
        grid.setColumnStretch(1, 1)
        self.recording_label, self.rate_label = (
            label(self.tr("Recording"), "muted"),
            label(self.tr("Rate"), "muted"),
        )
        self.search_button = IconButton(
            "magnifying-glass",
            self.tr("Search for eye trackers on this computer and its network"),
            on_click=self.search_wanted.emit,
        )
        rows = (
            (label(self.tr("Tracker"), "muted"), self.tracker),
            (self.recording_label, self.recordings),
            (self.rate_label, self.rate),
            (label(self.tr("Annotator"), "muted"), self.annotator),
        )
        for row, (name, widget) in enumerate(rows):
            grid.addWidget(name, row, 0)
            grid.addWidget(widget, row, 1, 1, 1 if row == 0 else 2)
        grid.addWidget(self.search_button, 0, 2)
        self.look_for = LookFor()
        column.addWidget(self.look_for)
        self._setup_title = heading(self.tr("Setup"))
        column.addWidget(self._setup_title)
        column.addWidget(self.setup)
        column.addWidget(self.about)
        column.addWidget(self.show_gaze)
        column.addWidget(self.by_itself)
        self.calibrate = QCheckBox(self.tr("Calibrate and validate first"))
        column.addWidget(self.calibrate)
        self.options_button = Button(
            self.tr("Session options…"), "sliders-horizontal", "", self.options_wanted.emit
        )
        self.options_button.setToolTip(self.tr("Order, time limits, breaks, drift checks, display, sound"))
        column.addWidget(self.options_button)
        self.keys_button = Button(self.tr("Keys…"), "keyboard", "", self.keys_wanted.emit)
        self.keys_button.setToolTip(self.tr("Choose other keys, such as those of a foot pedal"))
        self.consent_button = Button(self.tr("Consent…"), "handshake", "", self.consent_wanted.emit)
        self.consent_button.setToolTip(self.tr("Read, give or withdraw the annotator's consent"))
        self.beside_options = QWidget()
        pair = QHBoxLayout(self.beside_options)
        box(pair, spacing=theme.NORMAL)
        pair.addWidget(self.keys_button)
        pair.addWidget(self.consent_button)
        column.addWidget(self.beside_options)
        column.addSpacing(theme.WIDE)
        column.addWidget(heading(self.tr("Now")))
        meters = QGridLayout()
        box(meters, spacing=theme.NORMAL)
        meters.setColumnStretch(1, 1)
        self.left_eye, self.right_eye, self.distance, self.enough = (self._meter() for _ in range(4))
        self.left_text, self.right_text, self.distance_text, self.enough_text = (
            label("–", "muted") for _ in range(4)
        )
        for row, (title, bar, text) in enumerate(
            (
                (self.tr("Left eye"), self.left_eye, self.left_text),
                (self.tr("Right eye"), self.right_eye, self.right_text),
                (self.tr("Distance"), self.distance, self.distance_text),
                (self.tr("Gaze"), self.enough, self.enough_text),
            )
        ):
            text.setFont(theme.number_font(12))
            text.setFixedWidth(72)
            text.setAlignment(Qt.AlignmentFlag.AlignRight | Qt.AlignmentFlag.AlignVCenter)
            meters.addWidget(label(title, "muted"), row, 0)
            meters.addWidget(bar, row, 1)
            meters.addWidget(text, row, 2)
        column.addLayout(meters)
        self.numbers = label("", "muted", wrap=True)
        self.numbers.setFont(theme.number_font(12))
        column.addWidget(self.numbers)
        self.hint = label("", "muted", wrap=True)
        column.addWidget(self.hint)
        column.addStretch(1)
        outer.addWidget(scrolled(body), 1)
        outer.addWidget(line())
        outer.addWidget(self._make_controls())

    def _meter(self) -> QProgressBar:
        bar = QProgressBar()
        bar.setProperty("role", "thin")
        bar.setTextVisible(False)
        bar.setRange(0, 100)
        return bar

    def _make_controls(self) -> QWidget:
        controls = QWidget()
        grid = QGridLayout(controls)
        box(grid, margins=(theme.LARGE, theme.WIDE, theme.LARGE, theme.LARGE), spacing=theme.NORMAL)
        self.start_button = Button(self.tr("Start"), "record", "primary", self.start_wanted.emit)
        self.end_button = Button(self.tr("End"), "stop", "", self.end_wanted.emit)
        self.next_button = Button("", "arrow-right", "primary", lambda: self.left.emit(None))
        self.nothing_button = self._word(self.tr("Nothing here"), "absent")
        self.unsure_button = self._word(self.tr("Unsure"), "unsure")
        self.ungradable_button = self._word(self.tr("Ungradable"), "ungradable")
        self.lesion_button = Button(self.tr("Next lesion"), "plus", "", self.lesion_wanted.emit)
        self.found_button = Button(self.tr("Found"), "crosshair", "", self.found_wanted.emit)
        self.pause_button = Button(self.tr("Pause"), "pause", "", self.pause_wanted.emit)
        self.drift_button = Button(self.tr("Drift"), "target", "", self.drift_wanted.emit)
        self.voice_button = Button(self.tr("Voice note"), "microphone", "", self.voice_wanted.emit)
        self.voice_button.setFocusPolicy(Qt.FocusPolicy.TabFocus)
        self.voice_button.hide()
        grid.addWidget(self.start_button, 0, 0, 1, 6)
        grid.addWidget(self.next_button, 1, 0, 1, 6)
        grid.addWidget(self.nothing_button, 2, 0, 1, 2)
        grid.addWidget(self.unsure_button, 2, 2, 1, 2)
        grid.addWidget(self.ungradable_button, 2, 4, 1, 2)
        grid.addWidget(self.found_button, 3, 0, 1, 3)
        grid.addWidget(self.lesion_button, 3, 3, 1, 3)
        grid.addWidget(self.pause_button, 4, 0, 1, 2)
        grid.addWidget(self.drift_button, 4, 2, 1, 2)
        grid.addWidget(self.end_button, 4, 4, 1, 2)
        grid.addWidget(self.voice_button, 5, 0, 1, 6)
        self._while_recording = (
            self.next_button,
            self.nothing_button,
            self.unsure_button,
            self.ungradable_button,
            self.lesion_button,
            self.found_button,
            self.pause_button,
            self.drift_button,
        )
        for column in range(6):
            grid.setColumnStretch(column, 1)
        for button in (self.end_button, *self._while_recording):
            button.setFocusPolicy(Qt.FocusPolicy.TabFocus)
            button.hide()
        self.show_flow(False, False)
        self.show_phase("images")
        return controls

    def _word(self, text: str, presence: Presence) -> Button:
        return Button(text, role="word", on_click=lambda: self.left.emit(presence))

    def show_phase(self, phase: str) -> None:
        """Say on the button whether it pauses or goes on, and leave only what counts now."""
        self._phase = phase
        paused = phase == "paused"
        self.pause_button.setText(self.tr("Go on") if paused else self.tr("Pause"))
        self.pause_button.set_icon("play" if paused else "pause")
        tip = (
            self.tr("Show the image again ({key})")
            if paused
            else self.tr("Hide the image for a while ({key})")
        )
        self.pause_button.setToolTip(tip.format(key=self._key("pause")))
        for button in self._while_recording:
            button.setEnabled(
                phase == "images" or (paused and button in (self.pause_button, self.drift_button))
            )
        if phase == "practice":
            self.next_button.setEnabled(True)
            self.next_button.setText(self.tr("Go on"))

    def show_flow(self, several: bool, volume: bool) -> None:
        """Say on the buttons where they lead: to the next target, slice, image or volume."""
        self._flow = (several, volume)
        if several:
            self.next_button.setText(self.tr("Next target"))
        else:
            self.next_button.setText(self.tr("Next volume") if volume else self.tr("Next image"))
        if volume:
            place, onward = self.tr("in this slice"), self.tr("go on to the next slice")
            tip = self.tr("Leave the volume, or go to its next target ({key})")
        else:
            place, onward = self.tr("in this image"), self.tr("go on")
            tip = self.tr("The target is in this image; go on ({key})")
        tips: tuple[tuple[Button, str, Action], ...] = (
            (self.next_button, tip, "next"),
            (self.nothing_button, self.tr("The target is not {place}; {onward} ({key})"), "nothing"),
            (
                self.unsure_button,
                self.tr("Whether the target is {place} cannot be said; {onward} ({key})"),
                "unsure",
            ),
            (
                self.ungradable_button,
                self.tr("What is {place} cannot be judged; {onward} ({key})"),
                "ungradable",
            ),
            (
                self.lesion_button,
                self.tr(
                    "Another lesion of the same target is looked at from now on; stay on the image ({key})"
                ),
                "next_lesion",
            ),
            (
                self.found_button,
                self.tr("The search is over; what follows is looking all over it ({key})"),
                "found",
            ),
            (
                self.voice_button,
                self.tr("Say something about this image; it is kept beside the recording ({key})"),
                "voice_note",
            ),
            (self.drift_button, self.tr("See how far the gaze has drifted ({key})"), "drift_check"),
            (self.end_button, self.tr("End the sitting ({key})"), "end"),
        )
        for button, text, action in tips:
            button.setToolTip(text.format(place=place, onward=onward, key=self._key(action)))

    def show_choice(self, *, ready: bool) -> None:
        """Show what belongs to the chosen tracker; `ready`: whether anything can be recorded or shown."""
        data = self.tracker.currentData()
        kind = data if isinstance(data, str) else "device"
        self.recordings.setVisible(kind == "replay")
        self.recording_label.setVisible(kind == "replay")
        self.rate.setVisible(kind in ("simulated", "mouse"))
        self.rate_label.setVisible(kind in ("simulated", "mouse"))
        self.by_itself.setVisible(kind == "simulated")
        for widget in (self.calibrate, self.options_button, self.beside_options):
            widget.setVisible(kind != "replay")
        texts = {
            "simulated": self.tr(
                "A synthetic clinician looks at the images: at their true masks where there are any, else at what "
                "stands out. Everything made of it is marked as simulated."
            ),
            "mouse": self.tr("The pointer stands in for the eyes: rest it where you look."),
            "device": self.tr(
                "Gaze is measured by this tracker. Before the first image it is calibrated and validated."
            ),
            "replay": self.tr(
                "Shows a recording of this study again, as it was made. Nothing new is stored."
            ),
        }
        self.about.setText(texts[kind])
        self.start_button.setEnabled(ready and (kind != "replay" or self.recordings.count() > 0))
        self.start_button.setText(self.tr("Start replay") if kind == "replay" else self.tr("Start recording"))

    def show_running(self, on: bool, *, replay: bool = False) -> None:
        """Show the buttons of a sitting, or of before and after one."""
        for widget in (self._setup_title, self.setup, self.about):
            widget.setVisible(not on)
        self.start_button.setVisible(not on)
        self.end_button.setVisible(on)
        for button in self._while_recording:
            button.setVisible(on and not replay)
        for widget in (self.calibrate, self.options_button, self.beside_options):
            widget.setVisible(not on and self.tracker.currentData() != "replay")
        if not on:
            self.show_phase("images")

    def show_eyes(self, left_percent: float, right_percent: float) -> None:
        """Show how often each eye was seen of late."""
        eyes = (
            (self.left_eye, self.left_text, left_percent),
            (self.right_eye, self.right_text, right_percent),
        )
        for bar, text, percent in eyes:
            bar.setValue(round(percent))
            text.setText(f"{percent:.0f} %")

    def show_voice(self, *, wanted: bool, seconds: float | None = None) -> None:
        """Show the button of voice notes where they are wanted, and how long the one that is spoken is."""
        self.voice_button.setVisible(wanted)
        on = seconds is not None
        self.voice_button.set_icon("stop" if on else "microphone")
        told = self.tr("End the note, {s:.0f} s") if on else self.tr("Voice note")
        self.voice_button.setText(told.format(s=seconds or 0.0))

    def show_distance(self, distance_mm: float | None, expected_mm: float) -> None:
        """Show how far the eyes are; the bar is half full where they should be."""
        if distance_mm is None:
            self.distance.setValue(0)
            self.distance_text.setText("–")
            return
        off_mm = distance_mm - expected_mm
        self.distance.setValue(round(min(max(50 + 50 * off_mm / GAUGE_MM, 2), 100)))
        self.distance_text.setText(self.tr("{cm:.0f} cm").format(cm=distance_mm / 10))
        set_role(self.distance_text, "muted" if abs(off_mm) <= GOOD_MM else "warning")

    def show_amount(self, gaze_ms: float, fixations: int, seconds: float, amount: GazeAmount | None) -> None:
        """Show how much gaze the image has had, whether it is enough, and how long the sitting has lasted."""
        share = amount.progress if amount is not None else gaze_ms / EXPECTED_GAZE_MS
        self.enough.setValue(min(100, round(100 * share)))
        # Grey until it is enough.
        set_role(self.enough, "filling" if amount is not None and not amount.enough else "thin")
        self.enough_text.setText(self.tr("{s:.1f} s").format(s=gaze_ms / 1000))
        minutes, rest = divmod(int(seconds), 60)
        enough = (
            self.tr("enough gaze") if amount is not None and amount.enough else self.tr("more gaze helps")
        )
        self.numbers.setText(
            self.tr("{n} fixations on this image, {enough}\nsitting {minutes}:{seconds:02d}").format(
                n=fixations, enough=enough, minutes=minutes, seconds=rest
            )
        )

    def show_searching(self, on: bool) -> None:
        """Show that trackers are being searched for."""
        self.search_button.setEnabled(not on)
        self.show_hint(self.tr("Searching for eye trackers…") if on else "")

    def show_hint(self, text: str, role: str = "muted") -> None:
        """Show a line below the meters."""
        self.hint.setText(text)
        set_role(self.hint, role)

    def show_keys(self) -> None:
        """Say which keys will count, or why there is nothing to start."""
        if self.tracker.currentData() == "replay" and self.recordings.count() == 0:
            self.show_hint(self.tr("The study has no recording yet."), "warning")
        elif self._keymap is not None:
            key = {action: shown(self._keymap.key(action)) for action in _TOLD}
            text = self.tr(
                "{next} next · {back} back · {nothing} nothing here · {unsure} unsure · {ungradable} ungradable · "
                "{pause} pause · {end} end"
            )
            self.show_hint(text.format(**key))

    def set_keymap(self, keymap: Keymap) -> None:
        """Name these keys from now on, as they are and will be."""
        self._keymap = keymap
        keymap.changed.connect(self._name_keys)
        self._name_keys()

    def _name_keys(self) -> None:
        self.show_flow(*self._flow)
        self.show_phase(self._phase)
        self.show_keys()

    def _key(self, action: Action) -> str:
        return shown(self._keymap.key(action)) if self._keymap is not None else ""


_TOLD: tuple[Action, ...] = ("next", "back", "nothing", "unsure", "ungradable", "pause", "end")
