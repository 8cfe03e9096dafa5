"""How a study's recording sessions are held, and the screen that the participant looks at."""

from __future__ import annotations

from typing import Any

from PySide6.QtCore import QCoreApplication, QRectF, QSettings, QSize, Qt, Signal
from PySide6.QtGui import QColor, QGuiApplication, QPainter, QPaintEvent, QPen, QScreen
from PySide6.QtWidgets import (
    QCheckBox,
    QComboBox,
    QDoubleSpinBox,
    QHBoxLayout,
    QSizePolicy,
    QSlider,
    QVBoxLayout,
    QWidget,
)

from app import theme
from app.dialogs import Dialog, Row, narrow
from app.known_screens import CARD_MM, is_measured, known_geometry, name_of, screen_named, store_geometry
from app.widgets import Fold, box, heading, label
from gaze_capture.errors import UserError
from segmentation.session_options import SessionOptions, load_options, save_options
from segmentation.study import Study

CARD_RATIO = 53.98 / 85.6
CARD_PX = (160, 600)


def spin(low: float, high: float, value: float, *, decimals: int = 0, suffix: str = "") -> QDoubleSpinBox:
    """Return a field for a number."""
    field = QDoubleSpinBox()
    field.setRange(low, high)
    field.setDecimals(decimals)
    field.setSuffix(suffix)
    field.setValue(value)
    field.lineEdit().setTextMargins(8, 0, 0, 0)
    return field


def image_spin(high: float, value: float) -> QDoubleSpinBox:
    """Return a field for a number of images."""

    def name(number: float) -> None:
        one = QCoreApplication.translate("SessionOptionsDialog", " image")
        many = QCoreApplication.translate("SessionOptionsDialog", " images")
        field.setSuffix(one if number == 1 else many)

    field = spin(1, high, value)
    field.valueChanged.connect(name)
    name(value)
    return field


class OptionalNumber(QWidget):
    """A rule that may be off: a box to tick, and its number."""

    def __init__(self, text: str, field: QDoubleSpinBox, value: float | None) -> None:
        super().__init__()
        layout = QHBoxLayout(self)
        box(layout, spacing=theme.NORMAL)
        self.tick = QCheckBox(text)
        self.field = field
        field.setAccessibleName(text)
        field.setFixedWidth(104)
        layout.addWidget(self.tick, 1)
        layout.addWidget(field)
        self.tick.toggled.connect(field.setEnabled)
        self.tick.setChecked(value is not None)
        field.setEnabled(value is not None)
        if value is not None:
            field.setValue(value)

    def value(self, kind: type[int] | type[float] = float) -> Any:
        """Return the number, or None while it is off."""
        return kind(self.field.value()) if self.tick.isChecked() else None


class CardOutline(QWidget):
    """A card drawn as wide as asked for, to lay a real one over."""

    def __init__(self) -> None:
        super().__init__()
        self._width = 320
        self.setSizePolicy(QSizePolicy.Policy.Expanding, QSizePolicy.Policy.Fixed)

    def set_card_width(self, pixels: int) -> None:
        """Draw it so wide."""
        self._width = pixels
        self.setFixedHeight(self.sizeHint().height())
        self.update()

    def sizeHint(self) -> QSize:
        """Ask for the card's upper part: its width is what counts."""
        return QSize(self._width + 2, min(round(self._width * CARD_RATIO), 64) + 2)

    def paintEvent(self, event: QPaintEvent) -> None:
        """Draw the card's upper part."""
        tokens = theme.current()
        painter = QPainter(self)
        painter.setRenderHint(QPainter.RenderHint.Antialiasing)
        painter.setPen(QPen(QColor(tokens.accent), 1))
        painter.setBrush(QColor(tokens.raised))
        painter.setClipRect(self.rect())
        painter.drawRoundedRect(QRectF(0.5, 0.5, self._width - 1, self._width * CARD_RATIO), 12, 12)
        painter.setPen(QColor(tokens.muted))
        painter.drawText(
            QRectF(0, 0, self._width, self.height()), Qt.AlignmentFlag.AlignCenter, f"{CARD_MM:g} mm"
        )
        painter.end()


class SessionOptionsDialog(Dialog):
    """The options are the study's; the screen's size is this computer's."""

    stored = Signal(object)
    """The SessionOptions, stored."""

    def __init__(self, parent: QWidget | None, study: Study, settings: QSettings) -> None:
        super().__init__(
            parent,
            self.tr("Recording sessions"),
            self.tr(
                "Holds for every session of this study; only the screen's size belongs to this computer."
            ),
        )
        self._study, self._settings = study, settings
        self.problem_at_start = ""
        try:
            options = load_options(study)
        except UserError as error:
            options, self.problem_at_start = SessionOptions(), str(error)
        self._options = options
        columns = QHBoxLayout()
        box(columns, spacing=40)
        for parts in (
            (self._make_images(options), self._make_breaks(options)),
            (self._make_participant(options),),
        ):
            column = QVBoxLayout()
            box(column, spacing=theme.HUGE)
            for part in parts:
                column.addLayout(part)
            column.addStretch(1)
            columns.addLayout(column, 1)
        self.body.addLayout(columns)
        self.body.addStretch(1)
        self.add_button(self.tr("Cancel"), self.reject)
        self.save_button = self.add_button(self.tr("Save"), self._save, "primary")
        self._show_order()
        self._show_screen()
        self.show_problem(self.problem_at_start)
        self.fit(960)
        self.order.setFocus()

    def _make_images(self, options: SessionOptions) -> QVBoxLayout:
        self.order = narrow(QComboBox())
        for text, value in (
            (self.tr("As they came in"), "as-is"),
            (self.tr("Random"), "random"),
            (self.tr("Counterbalanced"), "counterbalanced"),
            (self.tr("Most doubtful first"), "by-doubt"),
        ):
            self.order.addItem(text, value)
        self.order.setCurrentIndex(self.order.findData(options.order))
        self.order.currentIndexChanged.connect(lambda _: self._show_order())
        self.order_row = Row(self.tr("Order"), self.order, " ")
        self.seed = spin(0, 2**31 - 1, options.seed)
        self.seed_row = Row(self.tr("Seed"), self.seed)
        self.skip_seen = self._tick(self.tr("Leave out what the annotator has looked at"), options.skip_seen)
        self.practice = OptionalNumber(
            self.tr("Begin with practice images"), image_spin(50, options.practice_n), None
        )
        self.practice.field.setValue(options.practice_n)
        self.practice.tick.setChecked(options.practice)
        self.maximum = OptionalNumber(
            self.tr("Longest time for an image"),
            spin(1, 600, 30, suffix=self.tr(" s")),
            options.maximum_image_s,
        )
        self.dwell = OptionalNumber(
            self.tr("Go on by resting gaze on a mark"),
            spin(0.3, 5, 1.0, decimals=1, suffix=self.tr(" s")),
            options.dwell_to_advance_s,
        )
        return self._part(
            self.tr("Images"),
            (self.order_row, self.seed_row, self.skip_seen, self.practice, self.maximum, self.dwell),
        )

    def _make_breaks(self, options: SessionOptions) -> QVBoxLayout:
        self.break_n = OptionalNumber(
            self.tr("Offer a break after"),
            image_spin(10_000, 50),
            options.break_every_n,
        )
        self.break_min = OptionalNumber(
            self.tr("Or after"),
            spin(1, 240, 20, suffix=self.tr(" min")),
            options.break_every_min,
        )
        self.anchor = OptionalNumber(
            self.tr("Check the drift on an anchor every"),
            image_spin(1000, 1),
            options.anchor_every_n,
        )
        return self._part(self.tr("Breaks and checks"), (self.break_n, self.break_min, self.anchor))

    def _make_participant(self, options: SessionOptions) -> QVBoxLayout:
        self.screen_choice = narrow(QComboBox())
        self.screen_choice.addItem(self.tr("In the program's window"), "")
        for screen in QGuiApplication.screens():
            size, name = screen.geometry().size() * screen.devicePixelRatio(), name_of(screen)
            text = self.tr("All of {name}, {w} × {h}")
            self.screen_choice.addItem(text.format(name=name, w=size.width(), h=size.height()), name)
        if options.participant_screen and screen_named(options.participant_screen) is None:
            text = self.tr("{name}, not connected").format(name=options.participant_screen)
            self.screen_choice.addItem(text, options.participant_screen)
        self.screen_choice.setCurrentIndex(self.screen_choice.findData(options.participant_screen))
        self.screen_choice.currentIndexChanged.connect(lambda _: self._show_screen())
        self.screen_row = Row(self.tr("Screen"), self.screen_choice, " ")
        self.width_mm = spin(100, 3000, 500, suffix=" mm")
        self.height_mm = spin(100, 3000, 300, suffix=" mm")
        self.width_mm.setAccessibleName(self.tr("Width of the screen"))
        self.height_mm.setAccessibleName(self.tr("Height of the screen"))
        sides = QWidget()
        layout = QHBoxLayout(sides)
        box(layout, spacing=theme.NORMAL)
        layout.addWidget(self.width_mm, 1)
        layout.addWidget(label("×"))
        layout.addWidget(self.height_mm, 1)
        sides.setFocusProxy(self.width_mm)
        self.size_row = Row(self.tr("Size"), sides, " ")
        self.distance_mm = spin(200, 2000, 650, suffix=" mm")
        distance_row = Row(
            self.tr("Viewing distance"), self.distance_mm, self.tr("From the eyes to the screen.")
        )
        self.show_gaze = self._tick(self.tr("Show the participant where gaze falls"), options.show_gaze)
        self.show_gaze.setToolTip(self.tr("It drags the eye along: for demonstrations only"))
        self.sound = self._tick(self.tr("Soft tones"), options.sound)
        self.sound.setToolTip(self.tr("When the image changes, and when there is enough gaze"))
        self.voice = self._tick(self.tr("Voice notes"), options.voice_notes)
        self.voice.setToolTip(self.tr("A voice can be recognised: say so in the consent"))
        self.publish = self._tick(self.tr("Publish as LSL streams"), options.publish)
        self.publish.setToolTip(
            self.tr("Gaze and events, for other programs: everyone on this network can read them meanwhile")
        )
        return self._part(
            self.tr("Participant"),
            (
                self.screen_row, self.size_row, self._make_card(), distance_row,
                self.show_gaze, self.sound, self.voice, self.publish,
            ),
        )  # fmt: skip

    def _make_card(self) -> QWidget:
        self.card = Fold(self.tr("Measure with a bank card"))
        column = QVBoxLayout(self.card.body)
        box(column, spacing=theme.NORMAL)
        self.card_hint = label(
            self.tr("With this dialog on that screen: hold a card against it, and drag until it is as wide."),
            "muted",
            wrap=True,
        )
        self.card_slider = QSlider(Qt.Orientation.Horizontal)
        self.card_slider.setRange(*CARD_PX)
        self.card_slider.setAccessibleName(self.tr("Width of the card on the screen"))
        self.card_outline = CardOutline()
        self.card_slider.valueChanged.connect(self._card_dragged)
        for widget in (self.card_hint, self.card_outline, self.card_slider):
            column.addWidget(widget)
        return self.card

    def _tick(self, text: str, on: bool) -> QCheckBox:
        tick = QCheckBox(text)
        tick.setChecked(on)
        return tick

    def _part(self, title: str, rows: tuple[QWidget, ...]) -> QVBoxLayout:
        part = QVBoxLayout()
        box(part, spacing=theme.NORMAL)
        part.addWidget(heading(title))
        for row in rows:
            part.addWidget(row)
        return part

    # What follows from a choice

    def _show_order(self) -> None:
        order = self.order.currentData()
        self.seed_row.setVisible(order in ("random", "counterbalanced"))
        hints = {
            "as-is": self.tr("In the order of the list, the same for everyone."),
            "random": self.tr("Another order for each annotator; the same one when a session is resumed."),
            "counterbalanced": self.tr(
                "Annotators in pairs get an order and its reverse, so that effects of place cancel."
            ),
            "by-doubt": self.tr(
                "No gaze yet, to be looked at again, rejected, little gaze, unsure: in this order."
            ),
        }
        self.order_row.set_hint(hints[order])

    def chosen_screen(self) -> QScreen | None:
        """Return the participant's screen, or None where it is not connected."""
        name = self.screen_choice.currentData()
        return screen_named(name) if name else self.screen()

    def _show_screen(self) -> None:
        screen = self.chosen_screen()
        for widget in (self.width_mm, self.height_mm, self.distance_mm, self.card.toggle):
            widget.setEnabled(screen is not None)
        if screen is None:
            self.screen_row.set_hint(self.tr("Connect it before a session, or choose another."), "warning")
            return
        alone = self.tr("The images are shown there, without anything beside them.")
        inside = self.tr("The images are shown beside the operator's controls.")
        self.screen_row.set_hint(alone if self.screen_choice.currentData() else inside)
        geometry = known_geometry(self._settings, screen)
        self.width_mm.setValue(geometry.width_mm)
        self.height_mm.setValue(geometry.height_mm)
        self.distance_mm.setValue(geometry.viewing_distance_mm)
        if is_measured(self._settings, screen):
            self.size_row.set_hint(self.tr("Of the picture, without the frame; as measured here."))
        else:
            self.size_row.set_hint(
                self.tr("As the screen itself says, which is often wrong: measure it."), "warning"
            )
        self.card_slider.blockSignals(True)
        self.card_slider.setValue(round(CARD_MM * screen.geometry().width() / geometry.width_mm))
        self.card_slider.blockSignals(False)
        self.card_outline.set_card_width(self.card_slider.value())

    def _card_dragged(self, pixels: int) -> None:
        self.card_outline.set_card_width(pixels)
        screen = self.chosen_screen()
        if screen is not None:
            size = screen.geometry().size()
            mm_per_px = CARD_MM / pixels
            self.width_mm.setValue(size.width() * mm_per_px)
            self.height_mm.setValue(size.height() * mm_per_px)

    # Storing

    def _save(self) -> None:
        try:
            options = SessionOptions(
                order=self.order.currentData(),
                seed=int(self.seed.value()),
                maximum_image_s=self.maximum.value(),
                break_every_n=self.break_n.value(int),
                break_every_min=self.break_min.value(),
                dwell_to_advance_s=self.dwell.value(),
                anchor_every_n=self.anchor.value(int),
                practice=self.practice.tick.isChecked(),
                practice_n=int(self.practice.field.value()),
                voice_notes=self.voice.isChecked(),
                publish=self.publish.isChecked(),
                sound=self.sound.isChecked(),
                participant_screen=self.screen_choice.currentData(),
                show_gaze=self.show_gaze.isChecked(),
                skip_seen=self.skip_seen.isChecked(),
            )
            screen = self.chosen_screen()
            if screen is not None:
                store_geometry(
                    self._settings,
                    screen,
                    self.width_mm.value(),
                    self.height_mm.value(),
                    self.distance_mm.value(),
                )
            save_options(self._study, options)
        except UserError as error:
            self.show_problem(str(error))
            return
        self.accept()
        self.stored.emit(options)
