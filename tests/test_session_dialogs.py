"""Consent, keys and session options in their dialogs, by mouse and keys."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from PySide6.QtCore import QSettings, Qt
from PySide6.QtGui import QGuiApplication, QKeyEvent, QKeySequence
from PySide6.QtTest import QTest
from PySide6.QtWidgets import QApplication, QLabel, QWidget
from pytestqt.qtbot import QtBot

from app.consent_dialog import ConsentDialog
from app.keymap import ACTIONS, DEFAULTS, Action, Keymap, key_of
from app.keymap_dialog import KeymapDialog
from app.known_screens import known_geometry, name_of, store_geometry
from app.screen_trackers import geometry_of
from app.session_options_dialog import SessionOptionsDialog
from app.shortcuts import AIR, ShortcutsDialog
from gaze_capture.errors import UserError
from segmentation.consent import consent_of, has_consented
from segmentation.session_options import SessionOptions, load_options, save_options
from segmentation.study import Study
from tests.window_support import open_window

pytestmark = pytest.mark.qt_log_ignore("propagateSizeHints", extend=True)

LEFT, NONE = Qt.MouseButton.LeftButton, Qt.KeyboardModifier.NoModifier
Key = Qt.Key


@pytest.fixture
def settings(tmp_path: Path) -> QSettings:
    return QSettings(str(tmp_path / "settings.ini"), QSettings.Format.IniFormat)


@pytest.fixture
def parent(qtbot: QtBot) -> QWidget:
    made = QWidget()
    qtbot.addWidget(made)
    made.resize(1280, 800)
    made.show()
    return made


def opened(qtbot: QtBot, dialog: QWidget) -> None:
    dialog.show()
    dialog.activateWindow()
    qtbot.waitUntil(lambda: QApplication.activeWindow() is dialog)


class Listener(QWidget):
    """Asks a keymap what each key does."""

    def __init__(self, keymap: Keymap) -> None:
        super().__init__()
        self.keymap = keymap
        self.heard: list[str | None] = []

    def event(self, event: object) -> bool:
        if isinstance(event, QKeyEvent) and event.type() == QKeyEvent.Type.KeyPress:
            if event.key() not in (Key.Key_Shift, Key.Key_Control):
                self.heard.append(self.keymap.action_of(event))
            return True
        return super().event(event)  # type: ignore[arg-type]


# Keys


def test_first_keys_do_what_they_say(qtbot: QtBot, settings: QSettings) -> None:
    listener = Listener(Keymap(settings))
    qtbot.addWidget(listener)
    shift, keypad = Qt.KeyboardModifier.ShiftModifier, Qt.KeyboardModifier.KeypadModifier
    strokes = [
        (Key.Key_Space, NONE), (Key.Key_Backspace, NONE), (Key.Key_0, NONE), (Key.Key_Q, NONE), (Key.Key_U, NONE),
        (Key.Key_F, NONE), (Key.Key_L, NONE), (Key.Key_Tab, NONE), (Key.Key_Backtab, shift), (Key.Key_P, NONE),
        (Key.Key_D, NONE), (Key.Key_V, NONE), (Key.Key_Escape, NONE),
    ]  # fmt: skip
    for key, modifiers in strokes:
        QTest.keyClick(listener, key, modifiers)
    assert listener.heard == list(ACTIONS)
    listener.heard.clear()
    QTest.keyClick(listener, Key.Key_0, keypad)
    QTest.keyClick(listener, Key.Key_Q, Qt.KeyboardModifier.ControlModifier)
    QTest.keyClick(listener, Key.Key_X)
    assert listener.heard == ["nothing", None, None]


def test_pedals_and_combinations_are_bound_by_pressing_them(
    qtbot: QtBot, settings: QSettings, parent: QWidget
) -> None:
    keymap = Keymap(settings)
    dialog = KeymapDialog(parent, keymap)
    opened(qtbot, dialog)
    strokes: tuple[tuple[Action, Qt.Key, Qt.KeyboardModifier, str], ...] = (
        ("next", Key.Key_F13, NONE, "F13"),
        ("back", Key.Key_PageDown, NONE, "PgDown"),
        ("pause", Key.Key_Space, NONE, "Space"),
        ("found", Key.Key_Tab, Qt.KeyboardModifier.AltModifier, "Alt+Tab"),
        ("drift_check", Key.Key_Return, NONE, "Return"),
        ("next_lesion", Key.Key_F24, Qt.KeyboardModifier.ControlModifier, "Ctrl+F24"),
    )
    for action, key, modifiers, portable in strokes:
        button = dialog.buttons_of[action]
        QTest.mouseClick(button, LEFT)
        assert button.waiting and "Press a key" in button.text()
        QTest.keyClick(button, Key.Key_Shift, Qt.KeyboardModifier.ShiftModifier)
        assert button.waiting, "a modifier alone is no key yet"
        QTest.keyClick(button, key, modifiers)
        assert not button.waiting and dialog.isVisible()
        assert keymap.key(action) == portable
    again = Keymap(settings)
    assert [again.key(action) for action in ("next", "back", "pause", "end")] == [
        "F13",
        "PgDown",
        "Space",
        "Esc",
    ]
    listener = Listener(again)
    qtbot.addWidget(listener)
    QTest.keyClick(listener, Key.Key_F13)
    QTest.keyClick(listener, Key.Key_Space)
    assert listener.heard == ["next", "pause"]


def test_a_key_that_is_taken_is_refused_by_a_sentence(
    qtbot: QtBot, settings: QSettings, parent: QWidget
) -> None:
    keymap = Keymap(settings)
    dialog = KeymapDialog(parent, keymap)
    opened(qtbot, dialog)
    pause = dialog.buttons_of["pause"]
    QTest.mouseClick(pause, LEFT)
    QTest.keyClick(pause, Key.Key_Escape)
    assert dialog.isVisible(), "Esc is a key like any other while one is waited for"
    assert "“End the recording” already" in dialog.problem.text()
    assert keymap.key("pause") == "P" and pause.text() == "P"
    QTest.mouseClick(pause, LEFT)
    QTest.keyClick(pause, Key.Key_1, Qt.KeyboardModifier.ControlModifier)
    assert "belongs to the window itself" in dialog.problem.text()
    QTest.mouseClick(pause, LEFT)
    QTest.keyClick(pause, Key.Key_X)
    assert not dialog.problem.text() and keymap.key("pause") == "X"
    assert dialog.reset_button.isEnabled()
    QTest.mouseClick(dialog.reset_button, LEFT)
    assert keymap.key("pause") == "P" and pause.text() == "P" and not dialog.reset_button.isEnabled()
    assert Keymap(settings).is_default and not settings.contains("keys/pause")
    QTest.mouseClick(pause, LEFT)
    QTest.mouseClick(dialog.buttons_of["next"], LEFT)
    assert not pause.waiting and dialog.buttons_of["next"].waiting
    QTest.mouseClick(dialog.buttons_of["next"], LEFT)
    assert not dialog.buttons_of["next"].waiting, "pressed again, it waits no longer"
    QTest.keyClick(dialog.buttons_of["next"], Key.Key_Escape)
    assert not dialog.isVisible()


def test_settings_that_make_no_sense_give_the_defaults(settings: QSettings) -> None:
    settings.setValue("keys/next", "Backspace")
    assert Keymap(settings).is_default, "one key may not do two things"
    settings.setValue("keys/next", "Ctrl+X, Ctrl+Y")
    assert Keymap(settings).key("next") == "Space"
    with pytest.raises(UserError, match="no key that can be used"):
        Keymap(settings).bind("next", "Ctrl+X, Ctrl+Y")
    assert all(QKeySequence(key).count() == 1 for key in DEFAULTS.values())


def test_the_sheet_of_keys_shows_those_that_were_chosen(qtbot: QtBot, tmp_path: Path, study: Study) -> None:
    window = open_window(qtbot, tmp_path, study)
    Keymap(window.session.settings).bind("next", "F13")
    window.show_shortcuts()
    [sheet] = [widget for widget in QApplication.topLevelWidgets() if widget.windowTitle() == "Shortcuts"]
    keys = [found.text() for found in sheet.findChildren(QLabel) if found.property("role") == "key"]
    assert "F13" in keys and keys.count("Space") == 1, "the other is Review's own"
    assert isinstance(sheet, ShortcutsDialog)
    assert sheet.width() <= 1280 - AIR and sheet.height() <= 800 - AIR, "there is air around it"
    assert not sheet.area.horizontalScrollBar().maximum(), "nothing is cut at its side"
    bar = sheet.area.verticalScrollBar()
    QTest.keyClick(sheet.focusWidget(), Qt.Key.Key_PageDown)
    assert bar.value() == bar.maximum() > 0, "what lies below comes by the keys"
    QTest.keyClick(sheet.focusWidget(), Qt.Key.Key_Escape)
    assert not sheet.isVisible()
    window.resize(1920, 1080)
    window.show_shortcuts()
    [wide] = [
        one for one in QApplication.topLevelWidgets() if isinstance(one, ShortcutsDialog) and one.isVisible()
    ]
    assert not wide.area.verticalScrollBar().maximum(), "where there is room all of it is seen"
    wide.close()


def test_a_key_is_known_by_what_qt_calls_it() -> None:
    event = QKeyEvent(QKeyEvent.Type.KeyPress, 0, NONE)
    assert key_of(event) == ""


# Consent


def test_consent_is_read_given_and_withdrawn(qtbot: QtBot, study: Study, parent: QWidget) -> None:
    dialog = ConsentDialog(parent, study, "Jane Doe")
    opened(qtbot, dialog)
    assert "personal data" in dialog.text.toPlainText() and not dialog.agree_button.isEnabled()
    QTest.mouseClick(dialog.suggest_button, LEFT)
    name = dialog.annotator.text()
    assert name.startswith("annotator-")
    dialog.agree_tick.setFocus()
    QTest.keyClick(dialog.agree_tick, Key.Key_Space)
    assert dialog.agree_button.isEnabled()
    dialog.annotator.selectAll()
    QTest.keyClick(dialog.annotator, Key.Key_Delete)
    assert not dialog.agree_button.isEnabled(), "nobody agrees without an id"
    QTest.keyClicks(dialog.annotator, name)
    with qtbot.waitSignal(dialog.given) as given:
        QTest.mouseClick(dialog.agree_button, LEFT)
    assert given.args == [name] and has_consented(study, name)
    stored = consent_of(study, name)
    assert stored is not None and stored.version == "1"

    again = ConsentDialog(parent, study, name)
    opened(qtbot, again)
    assert "agreed to version 1" in again.sentence.text() and not again.agree_tick.isVisible()
    QTest.mouseClick(again.withdraw_button, LEFT)
    assert not has_consented(study, name) and "withdrew your consent" in again.sentence.text()
    assert again.agree_tick.isVisible() and not again.agree_button.isEnabled()
    QTest.keyClick(again, Key.Key_Escape)
    assert not again.isVisible() and not has_consented(study, name)


def test_declining_stores_nothing_and_a_changed_text_is_shown_again(
    qtbot: QtBot, study: Study, parent: QWidget
) -> None:
    dialog = ConsentDialog(parent, study, "ann")
    opened(qtbot, dialog)
    dialog.agree_tick.setChecked(True)
    QTest.mouseClick(dialog.decline_button, LEFT)
    assert not (study.folder / "consents").exists()
    dialog = ConsentDialog(parent, study, "ann")
    opened(qtbot, dialog)
    dialog.agree_tick.setChecked(True)
    QTest.mouseClick(dialog.agree_button, LEFT)
    (study.folder / "consent.md").write_text("# Ours\n\nEverything is different now.\n")
    later = ConsentDialog(parent, study, "ann")
    opened(qtbot, later)
    assert "has changed since you agreed" in later.sentence.text()
    assert "Everything is different now" in later.text.toPlainText()
    (study.folder / "consents" / "ann.json").write_text("{")
    broken = ConsentDialog(parent, study, "ann")
    assert "is damaged" in broken.problem.text()
    broken.close()
    later.close()


# Options


def test_options_are_chosen_and_stored(
    qtbot: QtBot, study: Study, settings: QSettings, parent: QWidget
) -> None:
    dialog = SessionOptionsDialog(parent, study, settings)
    opened(qtbot, dialog)
    assert not dialog.seed_row.isVisible()
    QTest.keyClick(dialog.order, Key.Key_Down)
    QTest.keyClick(dialog.order, Key.Key_Down)
    assert dialog.order.currentData() == "counterbalanced" and dialog.seed_row.isVisible()
    assert "reverse" in dialog.order_row.hint.text()

    def tick(widget: QWidget) -> None:
        widget.setFocus()
        QTest.keyClick(widget, Key.Key_Space)

    def enter(field: QWidget, text: str) -> None:
        field.setFocus()
        field.selectAll()  # type: ignore[attr-defined]
        QTest.keyClicks(field, text)
        QTest.keyClick(field, Key.Key_Tab)

    assert not dialog.maximum.field.isEnabled()
    tick(dialog.maximum.tick)
    enter(dialog.maximum.field, "20")
    tick(dialog.break_n.tick)
    tick(dialog.practice.tick)
    enter(dialog.practice.field, "1")
    assert dialog.practice.field.text() == "1 image"
    tick(dialog.sound)
    enter(dialog.width_mm, "600")
    enter(dialog.height_mm, "340")
    enter(dialog.distance_mm, "700")
    with qtbot.waitSignal(dialog.stored) as stored:
        QTest.mouseClick(dialog.save_button, LEFT)
    chosen = SessionOptions(
        order="counterbalanced",
        maximum_image_s=20.0,
        break_every_n=None,
        practice=True,
        practice_n=1,
        sound=True,
    )
    assert stored.args == [chosen] and load_options(Study.open(study.folder)) == chosen
    assert isinstance(json.loads((study.folder / "session.json").read_text())["anchor_every_n"], int)
    geometry = known_geometry(settings, parent.screen())
    assert (geometry.width_mm, geometry.height_mm, geometry.viewing_distance_mm) == (600, 340, 700)

    again = SessionOptionsDialog(parent, study, settings)
    opened(qtbot, again)
    assert again.maximum.value() == 20 and again.break_n.value() is None and again.sound.isChecked()
    assert again.width_mm.value() == 600 and "as measured here" in again.size_row.hint.text()
    tick(again.dwell.tick)
    enter(again.dwell.field, "5")
    enter(again.maximum.field, "4")
    QTest.mouseClick(again.save_button, LEFT)
    assert again.isVisible() and "not possible when an image is shown for 4 s" in again.problem.text()
    again.close()
    assert load_options(study) == chosen


def test_a_card_held_to_the_screen_measures_it(
    qtbot: QtBot, study: Study, settings: QSettings, parent: QWidget
) -> None:
    dialog = SessionOptionsDialog(parent, study, settings)
    opened(qtbot, dialog)
    QTest.mouseClick(dialog.card.toggle, LEFT)
    assert dialog.card_outline.isVisible()
    dialog.card_slider.setFocus()
    before = dialog.card_slider.value()
    for _ in range(10):
        QTest.keyClick(dialog.card_slider, Key.Key_Right)
    assert dialog.card_slider.value() == before + 10
    size = parent.screen().geometry().size()
    assert dialog.width_mm.value() == pytest.approx(size.width() * 85.6 / (before + 10), abs=0.6)
    assert dialog.height_mm.value() == pytest.approx(size.height() * 85.6 / (before + 10), abs=0.6)
    dialog.close()


def test_screens_to_choose_from_and_one_that_is_gone(
    qtbot: QtBot, study: Study, settings: QSettings, parent: QWidget
) -> None:
    save_options(study, SessionOptions(participant_screen="HDMI-9"))
    dialog = SessionOptionsDialog(parent, study, settings)
    opened(qtbot, dialog)
    assert dialog.screen_choice.currentText() == "HDMI-9, not connected"
    assert "Connect it" in dialog.screen_row.hint.text() and not dialog.width_mm.isEnabled()
    names = [dialog.screen_choice.itemData(row) for row in range(dialog.screen_choice.count())]
    assert names == ["", *map(name_of, QGuiApplication.screens()), "HDMI-9"]
    dialog.screen_choice.setCurrentIndex(1)
    assert dialog.width_mm.isEnabled()
    dialog.close()


def test_a_damaged_file_of_options_is_told_and_replaced_by_saving(
    qtbot: QtBot, study: Study, settings: QSettings, parent: QWidget
) -> None:
    (study.folder / "session.json").write_text('{"order": "sideways"}')
    dialog = SessionOptionsDialog(parent, study, settings)
    opened(qtbot, dialog)
    assert "no order 'sideways'" in dialog.problem.text()
    QTest.mouseClick(dialog.save_button, LEFT)
    assert load_options(study) == SessionOptions()


def test_a_screen_has_measures_that_a_screen_can_have(settings: QSettings, parent: QWidget) -> None:
    screen = parent.screen()
    assert known_geometry(settings, screen) == geometry_of(screen)
    with pytest.raises(UserError, match="viewing distance should be between 200 and 2000 mm, not 50"):
        store_geometry(settings, screen, 500, 300, 50)
    assert known_geometry(settings, screen) == geometry_of(screen), "nothing of it was kept"
