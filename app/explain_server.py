"""The part of the explain dialog about a server: address, model, key, and whether it answers."""

from __future__ import annotations

import functools
import os
from collections.abc import Callable

from PySide6.QtCore import QSettings, QTimer, Signal
from PySide6.QtGui import QShowEvent
from PySide6.QtWidgets import (
    QComboBox,
    QDoubleSpinBox,
    QHBoxLayout,
    QLineEdit,
    QSpinBox,
    QVBoxLayout,
    QWidget,
)

from app import theme
from app.description_rows import breakable, plain_tip
from app.dialogs import Row, in_background, narrow
from app.jobs import StepProgress, Task
from app.latest import Latest
from app.widgets import Button, IconLabel, box, label, set_role
from gaze_capture.errors import UserError
from segmentation.connection_check import ConnectionReport, check_connection
from segmentation.explainers.opening import BackendOptions
from segmentation.sending import host_of, needs_permission
from segmentation.server_connection import ServerLimits
from segmentation.server_keys import KEY_VARIABLE, forget_key, key_for, store_key
from segmentation.server_presets import SERVER_PRESETS

TYPING_MS = 300


class ServerForm(QWidget):
    """A server's address and how it is asked; what is entered is remembered here, the key in the keyring."""

    changed = Signal()
    permission_wanted = Signal()
    """The person wants to see, or to withdraw, the permission to send to this address."""

    def __init__(self, settings: QSettings) -> None:
        super().__init__()
        self._settings = settings
        self.limits = ServerLimits()
        self._task: Task | None = None
        self._key_known = False
        self._keys = Latest(self)
        self._keys.answered.connect(self._show_key)
        self._keys.failed.connect(lambda sentence, _: self._show_key(sentence))
        layout = QVBoxLayout(self)
        box(layout, spacing=theme.NORMAL)
        self.preset = narrow(QComboBox())
        for one in SERVER_PRESETS:
            self.preset.addItem(one.name, one.id)
        self.preset.addItem(self.tr("Another address"), "")
        self._preset_row = Row(self.tr("Server"), self.preset, " ")
        self.address = QLineEdit()
        self.address.setPlaceholderText("http://127.0.0.1:11434/v1")
        self.place_icon = IconLabel("desktop")
        self.place = label("", "muted", wrap=True)
        self.permission_button = Button(
            self.tr("Permission…"), role="plain", on_click=self.permission_wanted.emit
        )
        place = QHBoxLayout()
        box(place, spacing=theme.NORMAL)
        place.addWidget(self.place_icon)
        place.addWidget(self.place, 1)
        place.addWidget(self.permission_button)
        self.model = narrow(QComboBox())
        self.model.setEditable(True)
        self.model.setInsertPolicy(QComboBox.InsertPolicy.NoInsert)
        edit = self.model.lineEdit()
        assert edit is not None
        edit.setPlaceholderText(self.tr("the only one the server offers"))
        self.key = QLineEdit()
        self.key.setEchoMode(QLineEdit.EchoMode.Password)
        self.key_button = Button(self.tr("Store"), on_click=lambda: self.settle_key(lambda: None))
        self.forget_button = Button(self.tr("Forget"), role="plain", on_click=self._forget_key)
        key = QWidget()
        row = QHBoxLayout(key)
        box(row, spacing=theme.NORMAL)
        row.addWidget(self.key, 1)
        row.addWidget(self.key_button)
        row.addWidget(self.forget_button)
        self._key_row = Row(self.tr("Key"), key)
        self.at_once = QSpinBox()
        self.at_once.setRange(1, 16)
        self.price_in, self.price_out = (self._price() for _ in range(2))
        self.price_in.setAccessibleName(self.tr("Price of a million tokens sent"))
        self.price_out.setAccessibleName(self.tr("Price of a million tokens received"))
        numbers = QWidget()
        row = QHBoxLayout(numbers)
        box(row, spacing=theme.NORMAL)
        row.addWidget(self.at_once)
        row.addSpacing(theme.NORMAL)
        price = label(self.tr("price in / out"), "muted")
        price.setToolTip(self.tr("Of a million tokens sent, and of a million received"))
        row.addWidget(price)
        row.addWidget(self.price_in)
        row.addWidget(self.price_out)
        row.addStretch(1)
        self.test_button = Button(self.tr("Test connection"), "arrow-clockwise", on_click=self.test)
        self.cancel_button = Button(self.tr("Cancel"), role="plain", on_click=self.cancel_test)
        self.cancel_button.hide()
        self.report_icon = IconLabel("check-circle", "accent")
        self.report_icon.hide()
        self.report = label("", "", wrap=True)
        test = QHBoxLayout()
        box(test, spacing=theme.NORMAL)
        test.addWidget(self.test_button)
        test.addWidget(self.cancel_button)
        test.addStretch(1)
        told = QHBoxLayout()
        box(told, spacing=theme.NORMAL)
        told.addWidget(self.report_icon)
        told.addWidget(self.report, 1)
        for button in (self.permission_button, self.key_button, self.forget_button, self.test_button,
                       self.cancel_button):  # fmt: skip
            button.setAutoDefault(False)
        layout.addWidget(self._preset_row)
        layout.addWidget(Row(self.tr("Address"), self.address))
        layout.addLayout(place)
        layout.addWidget(Row(self.tr("Model"), self.model))
        layout.addWidget(self._key_row)
        layout.addWidget(Row(self.tr("At once"), numbers))
        layout.addLayout(test)
        layout.addLayout(told)
        self._typing = QTimer(self, singleShot=True, interval=TYPING_MS)
        self._typing.timeout.connect(self._look_for_key)
        self._load()
        self.preset.activated.connect(lambda _: self._choose_preset())
        self.address.textChanged.connect(lambda _: self._follow_address())
        self.model.editTextChanged.connect(self._follow_model)
        edit.editingFinished.connect(lambda: edit.setCursorPosition(0))
        self.key.textChanged.connect(lambda _: self._follow_key())
        self._follow_address()

    def showEvent(self, event: QShowEvent) -> None:
        """Look for the key only where a server is to be asked: keyrings are other programs."""
        super().showEvent(event)
        self._typing.start()

    def _price(self) -> QDoubleSpinBox:
        made = QDoubleSpinBox()
        made.setRange(0, 10000)
        made.setDecimals(2)
        made.setSpecialValueText("–")
        made.setFixedWidth(76)
        return made

    # What was entered before

    def _load(self) -> None:
        get = self._settings.value
        self.address.setText(str(get("explain/address", "") or SERVER_PRESETS[0].base_url))
        self.model.setEditText(str(get("explain/model", "") or ""))
        self.at_once.setValue(_number(get("explain/at_once"), 2))
        self.price_in.setValue(_number(get("explain/price_in"), 0))
        self.price_out.setValue(_number(get("explain/price_out"), 0))

    def remember(self) -> None:
        """Keep what is entered for this user, the key excepted."""
        put = self._settings.setValue
        put("explain/address", self.base_url)
        put("explain/model", self.model.currentText().strip())
        put("explain/at_once", self.at_once.value())
        put("explain/price_in", self.price_in.value())
        put("explain/price_out", self.price_out.value())

    @property
    def base_url(self) -> str:
        """The address."""
        return self.address.text().strip()

    def options(self) -> BackendOptions:
        """Return how the server is asked."""
        price = self.price_in.value(), self.price_out.value()
        return BackendOptions(
            "openai",
            self.base_url,
            self.model.currentText().strip() or None,
            limits=self.limits,
            concurrency=self.at_once.value(),
            price_per_million=price if any(price) else None,
        )

    @property
    def problem(self) -> str:
        """Why the server cannot be asked; empty where it can."""
        try:
            host_of(self.base_url)
        except UserError as error:
            return str(error)
        return ""

    @property
    def is_elsewhere(self) -> bool:
        """Whether the address is another machine's."""
        return not self.problem and needs_permission(self.base_url)

    # Following what is typed

    def _choose_preset(self) -> None:
        chosen = next((one for one in SERVER_PRESETS if one.id == self.preset.currentData()), None)
        if chosen is None:
            self.address.setFocus()
            self.address.selectAll()
            return
        self.model.clear()
        self.model.setEditText("")
        self.address.setText(chosen.base_url)

    def _follow_address(self) -> None:
        known = next((one for one in SERVER_PRESETS if one.base_url == self.base_url), None)
        self.preset.setCurrentIndex(self.preset.findData(known.id if known is not None else ""))
        self._preset_row.set_hint(known.hint if known is not None else "")
        self._tell("", "")
        self.say_permission("")
        self._key_known = False
        self._follow_key()
        if self.isVisible():
            self._typing.start()
        self.changed.emit()

    def _follow_model(self, name: str) -> None:
        self.model.setToolTip(plain_tip(name))
        edit = self.model.lineEdit()
        if edit is not None and not edit.hasFocus():
            # A long name is told by its beginning.
            edit.setCursorPosition(0)
        self.changed.emit()

    def say_permission(self, since: str) -> None:
        """Say where images go, and since when they may (empty: they may not)."""
        problem = self.problem
        elsewhere = self.is_elsewhere
        self.permission_button.setVisible(elsewhere)
        if problem:
            self._place("warning-circle", "danger", breakable(problem))
        elif not elsewhere:
            self._place("desktop", "muted", self.tr("Stays on this computer."))
        elif since:
            self._place("lock-open", "accent", since)
        else:
            plain = "" if self.base_url.lower().startswith("https:") else self.tr(" It is not encrypted.")
            self._place("globe", "warning", self.tr("Leaves this computer: needs permission.") + plain)

    def _place(self, icon: str, token: str, text: str) -> None:
        self.place_icon.set_icon(icon, token)
        set_role(self.place, token if token in ("danger", "warning") else "muted")
        self.place.setText(text)

    # The key

    def _look_for_key(self) -> None:
        if self.problem:
            return
        # A keyring may ask its user to unlock it.
        self._keys.ask(functools.partial(_where_is_key, host_of(self.base_url)))

    def _show_key(self, found: object) -> None:
        self._key_known = found == "keyring"
        words = {
            "": self.tr("None is stored; most servers on one's own computer need none."),
            "keyring": self.tr("A key is stored in this computer's keyring."),
            "environment": self.tr("The key in {name} is used.").format(name=KEY_VARIABLE),
        }
        known = str(found) in words
        self._key_row.set_hint(words.get(str(found), breakable(str(found))), "muted" if known else "danger")
        self._follow_key()

    def _follow_key(self) -> None:
        self.key.setPlaceholderText("••••••••" if self._key_known else "")
        self.key_button.setEnabled(bool(self.key.text().strip()))
        self.forget_button.setVisible(self._key_known)

    def settle_key(self, then: Callable[[], object]) -> None:
        """Put a key that was typed into the keyring, then go on."""
        typed = self.key.text().strip()
        if not typed:
            then()
            return
        try:
            host = host_of(self.base_url)
        except UserError:
            return
        self._then = then
        in_background(
            lambda _: store_key(host, typed), self.tr("Storing the key"), self._key_stored, self._key_refused
        )

    def _key_stored(self, _: object) -> None:
        self.key.clear()
        self._show_key("keyring")
        self._then()

    def _key_refused(self, sentence: str, _details: str) -> None:
        self._key_row.set_hint(breakable(sentence), "danger")

    def _forget_key(self) -> None:
        host = host_of(self.base_url)
        in_background(
            lambda _: forget_key(host), self.tr("Forgetting the key"), self._key_forgotten, self._key_refused
        )

    def _key_forgotten(self, _: object) -> None:
        self._show_key("")

    # Testing

    def test(self) -> None:
        """Ask the server what it offers and show the model a made-up picture; nothing of the study is sent."""
        if self._task is not None or self.problem:
            return
        url, model = self.base_url, self.model.currentText().strip() or None
        key = self.key.text().strip() or None

        def work(progress: StepProgress) -> ConnectionReport:
            return check_connection(url, model, key=key, waiting=lambda: progress(0, 0, ""))

        self._tell("", self.tr("Asking the server; no image of the study is sent…"))
        self.test_button.setEnabled(False)
        self.cancel_button.show()
        self._task = in_background(work, self.tr("Testing the connection"), self._reported, self._failed)
        self._task.ended.connect(self._tested)

    def cancel_test(self) -> None:
        """Abandon the test at once."""
        if self._task is not None:
            self._task.cancel()
            self._tell("", self.tr("Cancelled."))

    def _tested(self) -> None:
        self._task = None
        self.test_button.setEnabled(True)
        self.cancel_button.hide()

    def _reported(self, report: object) -> None:
        assert isinstance(report, ConnectionReport)
        if report.models:
            chosen = self.model.currentText().strip() or report.model
            self.model.clear()
            self.model.addItems(report.models)
            self.model.setEditText(chosen)
        self._tell("check-circle" if report.ok else "warning-circle", breakable(report.sentence), report.ok)

    def _failed(self, sentence: str, _details: str) -> None:
        self._tell("warning-circle", breakable(sentence), False)

    def _tell(self, icon: str, sentence: str, good: bool = True) -> None:
        self.report_icon.setVisible(bool(icon))
        if icon:
            self.report_icon.set_icon(icon, "accent" if good else "danger")
        set_role(self.report, "" if good else "danger")
        self.report.setText(sentence)
        self.report.setVisible(bool(sentence))

    def stop(self) -> None:
        """End what is being asked."""
        self.cancel_test()
        self._typing.stop()
        self._keys.stop()


def _where_is_key(host: str) -> str:
    if os.environ.get(KEY_VARIABLE, "").strip():
        return "environment"
    return "keyring" if key_for(host) else ""


def _number(value: object, usual: int) -> int:
    try:
        return int(float(str(value)))
    except ValueError:
        return usual
