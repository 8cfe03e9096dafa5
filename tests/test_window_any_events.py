"""Whatever is pressed, in whatever order: blind readers see nothing they must not, edits are of what is shown."""

from __future__ import annotations

import random
from pathlib import Path

import pytest
from PySide6.QtCore import QPoint, Qt
from PySide6.QtTest import QTest
from PySide6.QtWidgets import QApplication
from pytestqt.qtbot import QtBot

from app.main_window import MainWindow
from app.scene import LAYERS
from segmentation.blind_reading import draw_audit
from segmentation.study import Study
from tests.reader_support import review
from tests.test_window_edit import page_of, predict
from tests.window_support import make_volume_study, open_window

pytestmark = pytest.mark.qt_log_ignore("This plugin does not support", extend=True)
EVENTS = 160
ALLOWED = {
    "review": set(LAYERS),
    "second-read": set(LAYERS) - {"reviewed", "truth", "annotators"},
    "audit": set(),
}
KEYS = [
    getattr(Qt.Key, f"Key_{name}")
    for name in (
        "A E R 0 Q U Z N D H B X L P K T C M W F O I G 1 4 5 6 7 Space Backspace Return Escape Tab Up Down PageUp Home "
        "BracketLeft BracketRight Plus Minus"
    ).split()
]
MODIFIERS = [
    *(Qt.KeyboardModifier.NoModifier for _ in range(6)),
    Qt.KeyboardModifier.ShiftModifier,
    Qt.KeyboardModifier.AltModifier,
]
BUTTONS = [
    *(Qt.MouseButton.LeftButton for _ in range(4)),
    Qt.MouseButton.RightButton,
    Qt.MouseButton.MiddleButton,
]


def keys(window: MainWindow, rng: random.Random) -> None:
    """Click a key, or press or release it alone."""
    act = rng.choice([QTest.keyClick, QTest.keyClick, QTest.keyClick, QTest.keyPress, QTest.keyRelease])
    act(page_of(window).canvas, rng.choice(KEYS), rng.choice(MODIFIERS))


def mouse(window: MainWindow, rng: random.Random) -> None:
    """Drag, a key pressed in the middle of it now and then."""
    canvas, handle = page_of(window).canvas, window.windowHandle()

    def place() -> QPoint:
        # Above the bar, whose menus would wait for an answer.
        return canvas.mapTo(
            window, QPoint(rng.randrange(canvas.width()), rng.randrange(canvas.height() * 4 // 5))
        )

    button, modifier = rng.choice(BUTTONS), rng.choice(MODIFIERS)
    QTest.mousePress(handle, button, modifier, place())
    for _ in range(rng.randrange(3)):
        QTest.mouseMove(handle, place())
    if rng.random() < 0.2:
        keys(window, rng)
    QTest.mouseRelease(handle, button, modifier, place())


def others(window: MainWindow, rng: random.Random) -> None:
    """Read for another purpose, of another run, as another annotator; compare; come back from another page."""
    page, session = page_of(window), window.session
    act = rng.randrange(6)
    if act == 0:
        page.reading.choice.setCurrentIndex(rng.randrange(page.reading.choice.count()))
    elif act == 1:
        page.runs.setCurrentIndex(rng.randrange(page.runs.count()))
    elif act == 2:
        session.set_annotator(rng.choice(["Dr. Test", "Dr. Other", "Dr. Third"]))
    elif act == 3:
        session.refresh(rng.choice(["data", "reviews", "runs", "descriptions"]))
    elif act == 4 and page.comparing.sides:
        page.comparing.compare_with(rng.choice([None, *page.comparing.sides]))
        page.comparing.set_manner(rng.choice(["held", "beside", "blinking"]))
    elif act == 5:
        window.show_page("study")
    window.show_page("review")


def check(window: MainWindow, study: Study) -> None:
    """Look at what must hold at any time."""
    page, session = page_of(window), window.session
    allowed, shown = ALLOWED[page.reading.purpose], page.canvas.scene
    if shown is None:
        assert page.reading.nothing_left() and not page.editing.active
    else:
        assert (shown.image_id, shown.target_id) == (session.image_id, session.target_id)
    for scene in (shown, page.comparing.canvas.scene):
        assert scene is None or scene.available <= allowed
    assert page.editing.active == page.editing.column.isVisible() == page.editing.layer.isVisible()
    if page.editing.active:
        header = page.editing.draft.header
        edited = (header.image_id, header.target_id, header.annotator, header.purpose)
        assert edited == (session.image_id, session.target_id, session.annotator, page.reading.purpose)
    for reviews in study.all_reviews().values():
        for one in reviews:
            assert one.purpose != "audit" or (one.subject, one.started_from or "empty") == ("image", "empty")


@pytest.mark.parametrize("seed", range(3))
def test_blind_readers_stay_blind_and_edits_are_of_what_is_shown(
    qtbot: QtBot, tmp_path: Path, seed: int
) -> None:
    rng = random.Random(seed)
    study = make_volume_study(tmp_path / "study", slices=5)
    predict(study)
    for image_id in list(study.images)[1:4]:
        for target in study.targets:
            mask = study.true_mask(image_id, target.id)
            review(study, image_id, "Dr. Other", mask, target_id=target.id)
    draw_audit(study, 4, seed)
    window = open_window(qtbot, tmp_path, study, order="")
    window.show_page("review")
    for _ in range(EVENTS):
        rng.choices([keys, mouse, others], weights=[6, 2, 2])[0](window, rng)
        if rng.random() < 0.3:
            QApplication.processEvents()
        # A letter may have led to another page.
        window.show_page("review")
        check(window, study)
