from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PySide6.QtCore import Qt
from PySide6.QtGui import QColor, QGuiApplication, QImage
from PySide6.QtTest import QTest
from PySide6.QtWidgets import QApplication, QLabel
from pytestqt.qtbot import QtBot

from app.participant_window import ParticipantWindow, ink_on
from app.theme import contrast

pytestmark = pytest.mark.qt_log_ignore("propagateSizeHints", "does not support raise", extend=True)


@pytest.fixture
def window(qtbot: QtBot) -> ParticipantWindow:
    made = ParticipantWindow(QGuiApplication.primaryScreen())
    qtbot.addWidget(made)
    made.present()
    qtbot.waitExposed(made)
    return made


def drawn(image: QImage, background: str) -> np.ndarray[tuple[int, ...], np.dtype[np.bool_]]:
    """Return where an image (H, W) is not the background."""
    grey = image.convertToFormat(QImage.Format.Format_Grayscale8)
    rows = np.frombuffer(grey.constBits(), np.uint8).reshape(grey.height(), grey.bytesPerLine())
    found: np.ndarray[tuple[int, ...], np.dtype[np.bool_]] = (
        np.abs(rows[:, : grey.width()].astype(int) - QColor(background).lightness()) > 20
    )
    return found


def centre_of(window: ParticipantWindow) -> tuple[float, float]:
    """Return where the target's middle is, normalised to the window."""
    where = drawn(window.grab().toImage(), window.background)
    rows, columns = np.nonzero(where)
    y, x = (rows.min() + rows.max() + 1) / 2, (columns.min() + columns.max() + 1) / 2
    return x / where.shape[1], y / where.shape[0]


def test_it_fills_the_screen_and_shows_nothing_but_what_it_is_told(
    window: ParticipantWindow, qtbot: QtBot
) -> None:
    assert window.geometry() == window.screen().geometry()
    assert window.windowFlags() & Qt.WindowType.FramelessWindowHint
    assert window.cursor().shape() == Qt.CursorShape.BlankCursor
    image = window.grab().toImage()
    assert image.pixelColor(0, 0) == QColor("#202020") and not drawn(image, "#202020").any()

    window.show_anchor(0.3, 0.7)
    assert centre_of(window) == pytest.approx((0.3, 0.7), abs=0.001)
    at_rest = int(drawn(window.grab().toImage(), "#202020").sum())
    window.show_target(0.9, 0.1)
    assert centre_of(window) == pytest.approx((0.3, 0.7), abs=0.01), "it sets out from where it was"
    larger = int(drawn(window.grab().toImage(), "#202020").sum())
    assert larger > 3 * at_rest, "and shrinks as it arrives, to draw the eye"
    qtbot.waitUntil(lambda: window._progress == 1.0, timeout=3000)
    assert centre_of(window) == pytest.approx((0.9, 0.1), abs=0.001)
    assert int(drawn(window.grab().toImage(), "#202020").sum()) == pytest.approx(at_rest, rel=0.05)

    window.show_nothing()
    assert not drawn(window.grab().toImage(), "#202020").any()


def test_messages_and_a_hosted_widget_take_turns(window: ParticipantWindow, qtbot: QtBot) -> None:
    keys: list[int] = []
    window.key_pressed.connect(keys.append)
    window.show_message("Look at each image as long as you like. " * 4, (("Space", "go on"),))
    assert window._message.isVisible() and drawn(window.grab().toImage(), "#202020").any()
    QTest.keyClick(window, Qt.Key.Key_Space)
    assert keys == [Qt.Key.Key_Space]

    image = QLabel("image")
    window.host(image)
    assert not window._message.isVisible() and image.size() == window.size()
    window.show_anchor()
    assert not image.isVisible() and centre_of(window) == pytest.approx((0.5, 0.5), abs=0.001)
    window.host(image)
    assert image.isVisible()
    assert window.release() is image and image.parent() is None and not image.isVisible()
    assert window.release() is None
    for background in ("#202020", "#808080", "#F0F0F0"):
        assert contrast(ink_on(background), background) > 4


def test_a_screen_that_is_unplugged_is_told_and_the_primary_one_is_used(
    window: ParticipantWindow, qtbot: QtBot
) -> None:
    application = QApplication.instance()
    assert isinstance(application, QApplication)
    with qtbot.waitSignal(window.display_lost, timeout=1000):
        application.screenRemoved.emit(window.screen())
    assert window.geometry() == QGuiApplication.primaryScreen().geometry()
    window.withdraw()
    assert not window.isVisible()


TWO_SCREENS = """
import json, sys
from PySide6.QtGui import QGuiApplication
from PySide6.QtWidgets import QWidget
from app.main_window import make_application
application = make_application()
from app.participant_window import ParticipantWindow
from app.screen_trackers import geometry_of
from tests.test_participant_window import centre_of, drawn
screens = QGuiApplication.screens()
window = ParticipantWindow(screens[1])
operator = QWidget()
operator.show()
window.present()
window.show_anchor(0.3, 0.7)
application.processEvents()
image = window.grab().toImage()
area = screens[1].geometry()
print(json.dumps({
    "at": [window.x(), window.y()], "screen": [area.x(), area.y()],
    "covers": window.covers(operator), "centre": centre_of(window),
    "image": [image.width(), image.height()],
    "geometry": [geometry_of(screens[1]).width_px, geometry_of(screens[1]).height_px],
}))
"""


@pytest.mark.parametrize("factor", ["1", "1.5"])
def test_on_two_screens_of_any_density_it_is_on_its_own_and_targets_lie_where_gaze_is_measured(
    tmp_path: Path, factor: str
) -> None:
    screen = {"y": 0, "logicalDpi": 96, "logicalBaseDpi": 96, "dpr": 1}
    screens = [
        {**screen, "name": "operator", "x": 0, "width": 1600, "height": 900},
        {**screen, "name": "participant", "x": 1600, "width": 1920, "height": 1080},
    ]
    (tmp_path / "screens.json").write_text(json.dumps({"screens": screens}))
    environment = {
        **os.environ,
        "QT_QPA_PLATFORM": f"offscreen:configfile={tmp_path / 'screens.json'}",
        "QT_SCALE_FACTOR": factor,
    }
    answer = subprocess.run(
        [sys.executable, "-c", TWO_SCREENS],
        capture_output=True,
        text=True,
        env=environment,
        cwd=Path(__file__).parents[1],
        check=False,
    )
    assert answer.returncode == 0, answer.stderr
    told = json.loads(answer.stdout)
    assert told["at"] == told["screen"] and told["screen"][0] > 0 and not told["covers"]
    assert told["image"] == told["geometry"] == pytest.approx([1920, 1080], abs=1)
    # Half a device pixel.
    assert told["centre"] == pytest.approx([0.3, 0.7], abs=0.5 / 1080)
