"""Editing in the window, by real mouse and key events: each tool, the history, drafts, storing."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
from PySide6.QtCore import QEvent, QPoint, QPointF, Qt
from PySide6.QtGui import QFocusEvent, QImage, QWheelEvent
from PySide6.QtTest import QTest
from PySide6.QtWidgets import QApplication
from pytestqt.qtbot import QtBot

from app import left_edits
from app.edit_layer import EditLayer
from app.edit_rendering import overlay
from app.main_window import MainWindow
from app.review_page import ReviewPage
from segmentation.blind_reading import draw_audit
from segmentation.editing.drafts import drafts_left, open_draft
from segmentation.records import Key
from segmentation.review_index import Purpose
from segmentation.study import Study
from tests import plain_masks as plain
from tests.window_support import fill, make_volume_study, open_window

pytestmark = pytest.mark.qt_log_ignore("propagateSizeHints", extend=True)

Mask = npt.NDArray[np.bool_]
NONE, SHIFT, CTRL = (
    Qt.KeyboardModifier.NoModifier,
    Qt.KeyboardModifier.ShiftModifier,
    Qt.KeyboardModifier.ControlModifier,
)
RUN = "run-x"


def predict(study: Study) -> None:
    """Store predictions that fall off around the true masks, as a run would."""
    for image_id in study.images:
        for target in study.targets:
            mask = study.true_mask(image_id, target.id)
            if mask is not None and mask.any():
                for network, least in (("student", 0.0), ("teacher", 0.2)):
                    far = np.hypot(*(np.indices(mask.shape) - np.argwhere(mask).mean(axis=0)[:, None, None]))
                    probability = np.clip(1 - far / 24, least, 1).astype(np.float32)
                    study.save_prediction(RUN, image_id, target.id, network, probability)
    (study.runs_folder / RUN / "spec.json").write_text("{}")


@pytest.fixture
def window(qtbot: QtBot, tmp_path: Path, study: Study, image_folder: Path) -> MainWindow:
    fill(study, image_folder)
    predict(study)
    return reviewing(qtbot, tmp_path, study)


def reviewing(qtbot: QtBot, tmp_path: Path, study: Study) -> MainWindow:
    made = open_window(qtbot, tmp_path, study)
    made.show_page("review")
    return made


def page_of(window: MainWindow) -> ReviewPage:
    page = window.page("review")
    assert isinstance(page, ReviewPage)
    return page


def layer_of(window: MainWindow) -> EditLayer:
    return page_of(window).editing.layer


def press(window: MainWindow, *keys: Qt.Key, shift: bool = False) -> None:
    for key in keys:
        QTest.keyClick(page_of(window).canvas, key, SHIFT if shift else NONE)


def spot(window: MainWindow, x: float, y: float) -> QPoint:
    """Return where an image position lies in the window."""
    canvas = page_of(window).canvas
    return canvas.mapTo(window, canvas.widget_from_image(x, y).toPoint())


def at(window: MainWindow, x: float, y: float) -> tuple[float, float]:
    """Return the image position of the pixel of the screen that a position comes to."""
    canvas = page_of(window).canvas
    return canvas.image_from_widget(QPointF(canvas.widget_from_image(x, y).toPoint()))


def drag(window: MainWindow, path: plain.Path, modifier: Qt.KeyboardModifier = NONE) -> plain.Path:
    """Drag the mouse along image positions, through the window itself; return where it was."""
    handle = window.windowHandle()
    QTest.mousePress(handle, Qt.MouseButton.LeftButton, modifier, spot(window, *path[0]))
    for point in path[1:]:
        QTest.mouseMove(handle, spot(window, *point))
    QTest.mouseRelease(handle, Qt.MouseButton.LeftButton, modifier, spot(window, *path[-1]))
    return [at(window, *point) for point in path]


def click(window: MainWindow, x: float, y: float, modifier: Qt.KeyboardModifier = NONE) -> None:
    QTest.mouseClick(window.windowHandle(), Qt.MouseButton.LeftButton, modifier, spot(window, x, y))


def wheel(window: MainWindow, notches: int, modifier: Qt.KeyboardModifier = NONE) -> None:
    layer = layer_of(window)
    middle = QPointF(layer.rect().center())
    event = QWheelEvent(
        middle, layer.mapToGlobal(middle), QPoint(), QPoint(0, 120 * notches), Qt.MouseButton.NoButton, modifier,
        Qt.ScrollPhase.NoScrollPhase, False,
    )  # fmt: skip
    QApplication.sendEvent(layer, event)


def mask_of(window: MainWindow) -> Mask:
    draft = layer_of(window).draft
    assert draft is not None
    return draft.edit.mask.copy()


def words(window: MainWindow) -> list[str]:
    draft = layer_of(window).draft
    assert draft is not None
    return [step.word for step in draft.edit.steps]


def student(study: Study, image_id: str) -> Mask:
    probability = study.prediction(RUN, image_id, "target")
    assert probability is not None
    return probability >= 0.5


def drafts(study: Study) -> list[Path]:
    return sorted((study.folder / "drafts").rglob("*.edits"))


def said(window: MainWindow) -> str:
    return window.banner.text.text() if window.banner.isVisible() else ""


def test_brush_and_eraser_draw_what_the_pointer_went_over(window: MainWindow, study: Study) -> None:
    page, layer, image_id = page_of(window), layer_of(window), next(iter(study.images))
    shape = study.images[image_id].shape[:2]
    press(window, Qt.Key.Key_E)
    assert page.editing.active and layer.isVisible() and page.editing.row.isVisible()
    expected = student(study, image_id)
    assert (mask_of(window) == expected).all()
    layer.options.radius_px = 3.0
    path = drag(window, [(5.0, 6.0), (20.0, 9.0), (22.0, 30.0)])
    expected |= plain.stroke(shape, path, 3.0)
    assert (mask_of(window) == expected).all()
    press(window, Qt.Key.Key_X)
    path = drag(window, [(18.0, 4.0), (21.0, 40.0)])
    expected &= ~plain.stroke(shape, path, 3.0)
    assert (mask_of(window) == expected).all()
    # Shift does the other.
    path = drag(window, [(50.0, 40.0)], SHIFT)
    expected |= plain.stroke(shape, path, 3.0)
    assert (mask_of(window) == expected).all() and words(window) == ["brush", "eraser", "brush"]
    # On the screen: a tint where the mask is, and none where it is not.
    picture = page.canvas.grab().toImage()
    inside = picture.pixelColor(page.canvas.widget_from_image(50, 40).toPoint())
    page.canvas.set_bare(True)
    bare = page.canvas.grab().toImage().pixelColor(page.canvas.widget_from_image(50, 40).toPoint())
    page.canvas.set_bare(False)
    assert inside.green() - inside.red() > bare.green() - bare.red() + 15


@pytest.mark.parametrize("scale", [0.13, 0.5, 0.9, 1.0, 2.7, 11.0])
@pytest.mark.parametrize("ratio", [1.0, 2.0])
def test_a_part_of_the_screen_looks_as_it_does_in_the_whole(scale: float, ratio: float) -> None:
    rng = np.random.default_rng(3)
    mask = np.zeros((400, 500), dtype=bool)
    for _ in range(12):
        mask ^= np.hypot(*(np.indices(mask.shape) - rng.uniform(0, 500, 2)[:, None, None])) < rng.uniform(
            20, 120
        )
    origin, size = (-37.4 * scale, 12.3), (240, 180)
    whole = overlay(mask, scale, origin, (0, 0, *size), ratio)
    left, top, width, height = 70, 40, 90, 77
    part = overlay(mask, scale, origin, (left, top, width, height), ratio)
    differs = part != whole[top : top + height, left : left + width]
    # Sampling rounds to a 32nd of a pixel: an edge may move by that.
    assert differs.mean() < 0.02
    # Inside there is the tint, outside nothing; where one pixel of the screen is one of the mask, exactly there.
    if scale == 1.0:
        alpha = overlay(mask, 1.0, (0.0, 0.0), (0, 0, 500, 400), ratio) >> 24
        deep = plain_erosion(mask, 6)
        assert (alpha[deep] == alpha[deep][0]).all() and 60 < alpha[deep][0] < 90
        assert not alpha[plain_erosion(~mask, 8)].any()


def plain_erosion(mask: Mask, by: int) -> Mask:
    """Return what is further than `by` rows and columns from everything that is not in a mask."""
    padded = np.pad(mask, by)
    shifts = [(i, j) for i in range(2 * by + 1) for j in range(2 * by + 1)]
    kept: Mask = np.logical_and.reduce(
        [padded[i : i + mask.shape[0], j : j + mask.shape[1]] for i, j in shifts]
    )
    return kept


def test_what_strokes_left_on_the_screen_is_what_the_whole_mask_looks_like(
    window: MainWindow, qtbot: QtBot
) -> None:
    layer = layer_of(window)
    press(window, Qt.Key.Key_E)
    for key in (Qt.Key.Key_B, Qt.Key.Key_X):
        press(window, key)
        drag(window, [(4.0, 4.0), (30.0, 18.0), (12.0, 40.0), (60.0, 44.0)])
    press(window, Qt.Key.Key_Z)
    layer.repaint()
    drawn = layer._pixels.copy()
    layer.refresh()
    layer.repaint()
    assert (drawn != layer._pixels).mean() < 0.001 and (drawn != 0).mean() > 0.1


def test_the_brush_has_its_size_by_wheel_and_keys_and_ctrl_zooms(window: MainWindow) -> None:
    layer, canvas = layer_of(window), page_of(window).canvas
    press(window, Qt.Key.Key_E)
    before, zoom = layer.options.radius_px, canvas.zoom
    wheel(window, 2)
    larger = layer.options.radius_px
    assert larger > before and canvas.zoom == zoom
    press(window, Qt.Key.Key_BracketLeft)
    assert layer.options.radius_px < larger
    press(window, Qt.Key.Key_BracketRight)
    assert layer.options.radius_px == pytest.approx(larger)
    wheel(window, 1, CTRL)
    assert canvas.zoom > zoom and layer.options.radius_px == pytest.approx(larger)
    page_of(window).editing.row.radius.slider.setValue(0)
    assert layer.options.radius_px == pytest.approx(0.5)
    for _ in range(60):
        wheel(window, 1)
    assert layer.options.radius_px == 32, "half of the longer side"
    assert page_of(window).editing.row.radius.value.text() == "Ø 64 px"


def test_lasso_and_polygon_add_and_take_away(window: MainWindow, study: Study) -> None:
    image_id = next(iter(study.images))
    shape = study.images[image_id].shape[:2]
    press(window, Qt.Key.Key_E, Qt.Key.Key_L)
    expected = student(study, image_id)
    path = drag(window, [(4.0, 4.0), (30.0, 6.0), (28.0, 20.0), (6.0, 22.0)])
    expected |= plain.polygon(shape, path)
    assert (mask_of(window) == expected).all()
    path = drag(window, [(10.0, 2.0), (24.0, 2.0), (24.0, 30.0), (10.0, 30.0)], SHIFT)
    expected &= ~plain.polygon(shape, path)
    assert (mask_of(window) == expected).all() and words(window) == ["lasso", "lasso-erase"]
    corners = [(40.0, 5.0), (60.0, 8.0), (55.0, 30.0), (50.0, 44.0)]
    press(window, Qt.Key.Key_P)
    for corner in corners:
        click(window, *corner)
    press(window, Qt.Key.Key_Backspace, Qt.Key.Key_Return)
    expected |= plain.polygon(shape, [at(window, *corner) for corner in corners[:3]])
    assert (mask_of(window) == expected).all(), "Backspace took the last corner back, Enter closed it"
    assert page_of(window).editing.column.undo_button.toolTip() == "Undo polygon (Z)"
    # Closed by a click on the first corner, and one that takes away.
    page_of(window).editing.row.take.click()
    corners = [(42.0, 6.0), (58.0, 9.0), (54.0, 20.0)]
    for corner in [*corners, corners[0]]:
        click(window, *corner)
    expected &= ~plain.polygon(shape, [at(window, *corner) for corner in corners])
    assert (mask_of(window) == expected).all() and words(window)[2:] == ["polygon", "polygon-erase"]
    # Esc gives one up that is not closed, and leaves only then.
    click(window, 5, 5)
    press(window, Qt.Key.Key_Escape)
    assert page_of(window).editing.active and (mask_of(window) == expected).all()
    # A double click closes as well.
    page_of(window).editing.row.add.click()
    for corner in ((2.0, 40.0), (12.0, 40.0)):
        click(window, *corner)
    handle, last = window.windowHandle(), spot(window, 12.0, 46.0)
    QTest.mouseClick(handle, Qt.MouseButton.LeftButton, NONE, last)
    QTest.mouseDClick(handle, Qt.MouseButton.LeftButton, NONE, last)
    assert words(window)[4:] == ["polygon"]


@pytest.mark.parametrize("way_on", [Qt.Key.Key_A, Qt.Key.Key_N, Qt.Key.Key_B])
def test_a_polygon_left_open_is_closed_as_a_step(window: MainWindow, study: Study, way_on: Qt.Key) -> None:
    image_id = next(iter(study.images))
    press(window, Qt.Key.Key_E, Qt.Key.Key_P)
    corners = [(40.0, 5.0), (60.0, 8.0), (55.0, 30.0)]
    for corner in corners:
        click(window, *corner)
    seen = [at(window, *corner) for corner in corners]
    expected = student(study, image_id) | plain.polygon(study.images[image_id].shape[:2], seen)
    press(window, way_on)
    if way_on == Qt.Key.Key_A:
        (stored,) = study.reviews(image_id, "target")
        assert stored.verdict == "edited"
        reviewed = study.reviewed_mask(image_id, "target")
        assert reviewed is not None and (reviewed == expected).all()
        return
    if way_on == Qt.Key.Key_N:
        press(window, Qt.Key.Key_Backspace, Qt.Key.Key_E)
    assert words(window) == ["polygon"] and (mask_of(window) == expected).all()
    press(window, Qt.Key.Key_Z)
    assert (mask_of(window) == student(study, image_id)).all(), "it is undone like any step"


def test_two_corners_left_open_are_no_step(window: MainWindow, study: Study) -> None:
    press(window, Qt.Key.Key_E, Qt.Key.Key_P)
    for corner in ((40.0, 5.0), (60.0, 8.0)):
        click(window, *corner)
    press(window, Qt.Key.Key_B)
    assert words(window) == [] and (mask_of(window) == student(study, next(iter(study.images)))).all()


def test_flood_takes_similar_shades_and_turns_parts(window: MainWindow, study: Study) -> None:
    page, layer = page_of(window), layer_of(window)
    press(window, Qt.Key.Key_E)
    page.editing.begin_anew("empty")
    press(window, Qt.Key.Key_K)
    layer.options.tolerance = 40
    click(window, 2, 2)
    assert layer.tool is not None and page.canvas.scene is not None
    shades = page.canvas.scene.image.astype(np.uint8)
    expected = plain.flood(shades, (2, 2), 40)
    assert (mask_of(window) == expected).all() and 50 < expected.sum() < expected.size
    wheel(window, 1)
    assert layer.options.tolerance == 42
    # Taken again: parts of the mask turn.
    press(window, Qt.Key.Key_K)
    assert layer.options.parts and page.editing.row.parts.isChecked()
    hole = next((int(x), int(y)) for y, x in np.argwhere(~expected))
    click(window, *hole)
    filled = expected | plain.part(expected, hole)
    assert (mask_of(window) == filled).all()
    click(window, 2, 2)
    assert not mask_of(window)[2, 2] and words(window) == ["start", "flood", "flood", "flood-erase"]


def test_the_students_probability_is_thresholded_anew_live(
    window: MainWindow, study: Study, qtbot: QtBot
) -> None:
    page, image_id = page_of(window), next(iter(study.images))
    probability = study.prediction(RUN, image_id, "target")
    assert probability is not None
    press(window, Qt.Key.Key_E, Qt.Key.Key_T)
    slider = page.editing.row.threshold.slider
    for value in (80, 60, 30):
        slider.setValue(value)
        assert (mask_of(window) == (probability >= np.float32(value / 100))).all(), "seen at once"
    assert words(window) == []
    qtbot.waitUntil(lambda: words(window) == ["threshold"], timeout=5000)
    # Esc has the mask as it was before what is tried out.
    slider.setValue(10)
    press(window, Qt.Key.Key_Escape)
    assert (mask_of(window) == (probability >= np.float32(0.3))).all() and page.editing.active
    # Drawn around: it counts in there only; with Shift, everywhere else.
    slider.setValue(70)
    press(window, Qt.Key.Key_Return)
    base = mask_of(window)
    path = drag(window, [(2.0, 2.0), (60.0, 2.0), (60.0, 24.0), (2.0, 24.0)])
    slider.setValue(20)
    within = plain.polygon(base.shape, path)
    assert (mask_of(window) == np.where(within, probability >= np.float32(0.2), base)).all()
    assert page.editing.row.everywhere.isVisible()
    press(window, Qt.Key.Key_B)
    assert words(window) == ["threshold", "threshold", "threshold"], "another tool keeps what was tried out"


def test_operations_of_the_column(window: MainWindow, study: Study) -> None:
    page, image_id = page_of(window), next(iter(study.images))
    press(window, Qt.Key.Key_E)
    column, before = page.editing.column, mask_of(window)

    def pick(button: object, text: str) -> None:
        menu = button.menu()  # type: ignore[attr-defined]
        next(action for action in menu.actions() if action.text() == text).trigger()

    pick(column.grow, "3 px")
    assert (mask_of(window) == plain.grow(before, 3)).all()
    pick(column.shrink, "2 px")
    assert (mask_of(window) == plain.shrink(plain.grow(before, 3), 2)).all()
    layer_of(window).options.radius_px = 2.0
    drag(window, [(3.0, 3.0)])
    pick(column.smooth, "Lightly")
    column.largest.click()
    assert not mask_of(window)[:6, :6].any()
    press(window, Qt.Key.Key_X)
    y, x = np.argwhere(before).mean(axis=0)
    drag(window, [(float(x), float(y))])
    column.holes.click()
    assert mask_of(window)[round(y), round(x)]
    pseudomask = study.pseudomask(image_id, "target")
    assert pseudomask is not None
    wanted = mask_of(window) | pseudomask.masks[-1]
    pick(column.add, f"Level {pseudomask.thresholds[-1]:g}")
    assert (mask_of(window) == wanted).all()
    assert words(window)[:3] == ["grow", "shrink", "brush"] and words(window)[-2:] == ["fill-holes", "add"]
    assert not column.copy.isVisible(), "there is no next slice"


def test_undo_and_redo_name_the_step_across_tools(window: MainWindow, study: Study) -> None:
    page = page_of(window)
    press(window, Qt.Key.Key_E)
    states = [mask_of(window)]
    drag(window, [(5.0, 5.0), (9.0, 9.0)])
    states.append(mask_of(window))
    press(window, Qt.Key.Key_L)
    drag(window, [(30.0, 3.0), (60.0, 3.0), (60.0, 12.0)])
    states.append(mask_of(window))
    page.editing.column.largest.click()
    states.append(mask_of(window))
    column, told = page.editing.column, []
    for state in states[-2::-1]:
        told.append(column.undo_button.toolTip())
        press(window, Qt.Key.Key_Z)
        assert (mask_of(window) == state).all()
    assert told == ["Undo keeping the largest part (Z)", "Undo lasso (Z)", "Undo brush (Z)"]
    assert page.editing.layer.hint.text() == "Undone: brush"
    assert not column.undo_button.isEnabled() and column.redo_button.toolTip() == "Redo brush (Shift+Z)"
    press(window, Qt.Key.Key_Z)
    for state in states[1:]:
        press(window, Qt.Key.Key_Z, shift=True)
        assert (mask_of(window) == state).all()
    assert not column.redo_button.isEnabled() and study.reviewed() == {}


@pytest.mark.parametrize("key", [Qt.Key.Key_Return, Qt.Key.Key_A])
def test_storing_makes_a_review_and_goes_on(window: MainWindow, study: Study, key: Qt.Key) -> None:
    page, ids = page_of(window), list(study.images)
    prediction = study.prediction_path(RUN, ids[0], "target").read_bytes()
    page.canvas.set_layer_visible("scanpath", True)
    press(window, Qt.Key.Key_E)
    assert not page.canvas.layer_visible("student"), "nothing lies over the tissue while it is drawn on"
    drag(window, [(5.0, 5.0), (20.0, 9.0)])
    press(window, Qt.Key.Key_X)
    drag(window, [(12.0, 4.0), (12.0, 12.0)])
    drawn = mask_of(window)
    assert len(drafts(study)) == 1
    press(window, key)
    assert not page.editing.active and window.session.image_id == ids[1]
    (review,) = study.reviews(ids[0], "target")
    assert (review.verdict, review.purpose, review.subject) == ("edited", "review", RUN)
    assert (review.started_from, review.edits) == ("student", ("brush", "eraser"))
    assert review.presence == "present" and review.annotator == "Dr. Test" and review.seconds_spent > 0
    stored = study.reviewed_mask(ids[0], "target")
    assert stored is not None and (stored == drawn).all()
    assert drafts(study) == [] and not list((study.folder / "drafts").iterdir()), "the draft went away"
    assert study.prediction_path(RUN, ids[0], "target").read_bytes() == prediction
    assert page.canvas.layer_visible("student") and page.canvas.layer_visible("scanpath")
    # Withdrawn, it is a draft again, its history with it.
    press(window, Qt.Key.Key_Z)
    assert study.reviews(ids[0], "target") == [] and window.session.image_id == ids[0]
    press(window, Qt.Key.Key_E)
    assert (mask_of(window) == drawn).all() and words(window) == ["brush", "eraser"]


def test_nothing_changed_is_accepted_and_an_empty_mask_says_absent(window: MainWindow, study: Study) -> None:
    page, ids = page_of(window), list(study.images)
    press(window, Qt.Key.Key_E, Qt.Key.Key_Return)
    assert study.reviews(ids[0], "target")[-1].verdict == "accepted"
    press(window, Qt.Key.Key_E)
    menu = page.editing.row.menu
    assert [action.text() for action in menu.actions()][:2] == ["Student", "Teacher"]
    next(action for action in menu.actions() if action.text() == "Empty mask").trigger()
    assert page.editing.row.started.text().startswith("From: Empty mask")
    page.editing.row.store_button.click()
    review = study.reviews(ids[1], "target")[-1]
    assert (review.verdict, review.presence, review.started_from, review.edits) == (
        "edited",
        "absent",
        "empty",
        (),
    )


def test_without_a_prediction_it_begins_with_the_broad_level_and_without_that_empty(
    qtbot: QtBot, tmp_path: Path, study: Study, image_folder: Path
) -> None:
    fill(study, image_folder)
    ids = list(study.images)
    study.remove_pseudomask(ids[1], "target")
    window = reviewing(qtbot, tmp_path, study)
    press(window, Qt.Key.Key_E)
    pseudomask = study.pseudomask(ids[0], "target")
    assert pseudomask is not None and (mask_of(window) == pseudomask.masks[-1]).all()
    press(window, Qt.Key.Key_T)
    assert "no prediction of the student" in said(window)
    assert window.banner._fading.isActive(), "it goes by itself, and frees the bar below the image"
    layer = layer_of(window)
    assert layer.tool is not None and layer.tool.name == "brush", "the tool in hand stays"
    press(window, Qt.Key.Key_Escape, Qt.Key.Key_N, Qt.Key.Key_E)
    assert not mask_of(window).any()
    drag(window, [(20.0, 20.0), (30.0, 22.0)])
    press(window, Qt.Key.Key_Return)
    review = study.reviews(ids[1], "target")[-1]
    assert (review.subject, review.started_from, review.edits) == ("pseudomask", "empty", ("brush",))


@pytest.mark.qt_log_ignore("This plugin does not support", extend=True)
def test_what_is_left_unfinished_is_marked_in_the_list(
    window: MainWindow, study: Study, qtbot: QtBot, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    page, (first, *_), mine = page_of(window), list(study.images), window.session.annotator
    images = page.list

    def marked() -> list[str]:
        return [row.image_id for row in images.model.rows if row.unfinished]

    def drawn() -> QImage:
        index = images.model.index(images.model.row_of(first))
        area = images.view.visualRect(images.view.model().index(index.row(), 0))
        return images.view.viewport().grab(area.adjusted(area.width() - 30, 10, 0, -30)).toImage()

    def tooltip() -> str:
        return str(
            images.model.data(images.model.index(images.model.row_of(first)), Qt.ItemDataRole.ToolTipRole)
        )

    bare = drawn()
    press(window, Qt.Key.Key_E)
    drag(window, [(5.0, 5.0), (9.0, 9.0)])
    assert marked() == []
    press(window, Qt.Key.Key_Escape)
    qtbot.waitUntil(lambda: marked() == [first])
    assert "left unfinished; E goes on with it" in tooltip()
    qtbot.waitUntil(lambda: drawn() != bare)
    looked: list[str] = []

    def counted(study: Study, annotator: str) -> dict[Key, frozenset[Purpose]]:
        looked.append(annotator)
        return drafts_left(study, annotator)

    monkeypatch.setattr(left_edits, "drafts_left", counted)
    for _ in range(3):
        images.view.viewport().repaint()
    assert looked == [], "nothing is read to draw the list"
    images.filter.open()
    box = images.filter.popup.boxes["edit", "unfinished"]
    assert box.text() == "Unfinished  1"
    box.click()
    assert images.visible_ids() == [first]
    images.filter.popup.close()
    # Another annotator's, and one for another purpose, are none of this list.
    window.session.set_annotator("Somebody else")
    qtbot.waitUntil(lambda: marked() == [] and looked == ["Somebody else"])
    audit = open_draft(study, first, "target", "Somebody else", None, purpose="audit")
    audit.apply("brush", np.ones(audit.edit.shape, bool))
    audit.close()
    window.session.refresh("reviews")
    qtbot.waitUntil(lambda: page.left.found == {(first, "target"): {"audit"}})
    assert marked() == []
    window.session.set_annotator(mine)
    qtbot.waitUntil(lambda: marked() == [first])


def test_a_stored_edit_is_marked_no_more(window: MainWindow, study: Study, qtbot: QtBot) -> None:
    page, (first, *_) = page_of(window), list(study.images)

    def marked() -> list[str]:
        return [row.image_id for row in page.list.model.rows if row.unfinished]

    press(window, Qt.Key.Key_E)
    drag(window, [(5.0, 5.0), (9.0, 9.0)])
    press(window, Qt.Key.Key_Escape)
    qtbot.waitUntil(lambda: marked() == [first])
    press(window, Qt.Key.Key_E, Qt.Key.Key_Return)
    qtbot.waitUntil(lambda: marked() == [])
    assert first in {image_id for image_id, _ in study.reviewed()}
    # Taken back, it is unfinished again.
    press(window, Qt.Key.Key_Z)
    qtbot.waitUntil(lambda: marked() == [first])


def test_leaving_keeps_a_draft_that_another_window_goes_on_with(
    window: MainWindow, study: Study, qtbot: QtBot, tmp_path: Path
) -> None:
    page, ids = page_of(window), list(study.images)
    press(window, Qt.Key.Key_E)
    drag(window, [(5.0, 5.0), (9.0, 9.0)])
    drag(window, [(30.0, 5.0), (39.0, 9.0)])
    press(window, Qt.Key.Key_Z)
    drawn = mask_of(window)
    press(window, Qt.Key.Key_Escape)
    assert not page.editing.active and not page.editing.row.isVisible()
    assert said(window) == "The edit is kept as a draft; E goes on with it." and study.reviewed() == {}
    press(window, Qt.Key.Key_E)
    assert (mask_of(window) == drawn).all() and words(window) == ["brush"]
    # Going to another image leaves, too.
    press(window, Qt.Key.Key_N)
    assert window.session.image_id == ids[1] and not page.editing.active
    window.close()
    again = reviewing(qtbot, tmp_path, Study.open(study.folder))
    qtbot.waitUntil(lambda: said(again) == "An edit of case_0.png was left; E goes on with it there.")
    press(again, Qt.Key.Key_E)
    assert (mask_of(again) == drawn).all()
    press(again, Qt.Key.Key_Z, shift=True)
    assert words(again) == ["brush", "brush"], "what was taken back can be done again"
    press(again, Qt.Key.Key_Z, Qt.Key.Key_Z)
    assert (mask_of(again) == student(study, ids[0])).all()
    press(again, Qt.Key.Key_Z, shift=True)
    press(again, Qt.Key.Key_Return)
    assert study.reviews(ids[0], "target")[-1].edits == ("brush",) and drafts(study) == []


def test_an_edits_time_counts_once_and_none_of_the_time_away(window: MainWindow, study: Study) -> None:
    page, first = page_of(window), next(iter(study.images))
    now = [page.clock._now_s()]
    page.clock._now_s = lambda: now[0]
    page.clock.restart()
    # Whether the window is in front is a matter of luck without a display.
    page.clock.run(True)

    def after(seconds: float) -> None:
        now[0] += seconds

    after(10)
    press(window, Qt.Key.Key_E)
    after(20)
    drag(window, [(5.0, 5.0), (9.0, 9.0)])
    after(5)
    press(window, Qt.Key.Key_Escape)
    after(2)
    press(window, Qt.Key.Key_E)
    after(3)
    window.show_page("study")
    after(1000)
    window.show_page("review")
    assert page.editing.active
    after(4)
    drag(window, [(15.0, 5.0), (19.0, 9.0)])
    assert page.editing.draft.seconds == pytest.approx(44)
    press(window, Qt.Key.Key_Return)
    assert study.reviews(first, "target")[-1].seconds_spent == pytest.approx(44)


def test_opening_and_leaving_without_a_stroke_leaves_nothing(window: MainWindow, study: Study) -> None:
    press(window, Qt.Key.Key_E, Qt.Key.Key_Escape)
    assert drafts(study) == [] and said(window) == ""


def test_keys_of_verdicts_do_nothing_while_editing(window: MainWindow, study: Study) -> None:
    page, first = page_of(window), window.session.image_id
    press(window, Qt.Key.Key_E)
    drag(window, [(5.0, 5.0), (9.0, 9.0)])
    press(window, Qt.Key.Key_R, Qt.Key.Key_0, Qt.Key.Key_Q, Qt.Key.Key_U, Qt.Key.Key_S, Qt.Key.Key_E)
    assert page.editing.active and study.reviewed() == {} and window.current_page() == "review"
    assert not page.verdict_bar.reject_button.isEnabled() and not page.verdict_bar.edit_button.isEnabled()
    assert page.verdict_bar.accept_button.isEnabled() and window.session.image_id == first


def test_space_held_moves_the_image_and_the_middle_button_does(window: MainWindow) -> None:
    canvas, layer = page_of(window).canvas, layer_of(window)
    press(window, Qt.Key.Key_E)
    before, mask = canvas.widget_from_image(0, 0), mask_of(window)
    QTest.keyPress(canvas, Qt.Key.Key_Space)
    drag(window, [(20.0, 20.0), (25.0, 22.0)])
    QTest.keyRelease(canvas, Qt.Key.Key_Space)
    assert canvas.widget_from_image(0, 0) != before and (mask_of(window) == mask).all()
    assert not layer.panning and window.session.image_id is not None
    before, handle = canvas.widget_from_image(0, 0), window.windowHandle()
    QTest.mousePress(handle, Qt.MouseButton.MiddleButton, NONE, spot(window, 20, 20))
    QTest.mouseMove(handle, spot(window, 26, 24))
    QTest.mouseRelease(handle, Qt.MouseButton.MiddleButton, NONE, spot(window, 26, 24))
    assert canvas.widget_from_image(0, 0) != before and (mask_of(window) == mask).all()


def test_what_was_begun_on_the_canvas_ends_there(window: MainWindow) -> None:
    canvas, handle = page_of(window).canvas, window.windowHandle()
    press(window, Qt.Key.Key_E)
    before = mask_of(window)

    def move_while(begin: Callable[[], object], end: Callable[[], object]) -> None:
        """Let go of the key before the button."""
        begin()
        QTest.mousePress(handle, Qt.MouseButton.LeftButton, NONE, spot(window, 5, 5))
        QTest.mouseMove(handle, spot(window, 9, 9))
        end()
        QTest.mouseRelease(handle, Qt.MouseButton.LeftButton, NONE, spot(window, 9, 9))

    move_while(
        lambda: QTest.keyPress(canvas, Qt.Key.Key_Space), lambda: QTest.keyRelease(canvas, Qt.Key.Key_Space)
    )
    view = canvas.view
    QTest.mouseMove(handle, spot(window, 30, 30))
    assert canvas.view == view, "the image stays where it was let go of"
    move_while(lambda: press(window, Qt.Key.Key_W), lambda: press(window, Qt.Key.Key_W))
    assert not canvas.changing_window and (mask_of(window) == before).all()


def test_a_stroke_ends_when_the_button_is_let_go_of_whatever_else_is_held(
    window: MainWindow, study: Study
) -> None:
    canvas, handle = page_of(window).canvas, window.windowHandle()
    press(window, Qt.Key.Key_E)
    view = canvas.view
    QTest.mousePress(handle, Qt.MouseButton.LeftButton, NONE, spot(window, 5, 5))
    QTest.keyPress(canvas, Qt.Key.Key_Space)
    QTest.mouseMove(handle, spot(window, 9, 9))
    QTest.mouseRelease(handle, Qt.MouseButton.LeftButton, NONE, spot(window, 9, 9))
    assert words(window) == ["brush"] and len(drafts(study)) == 1 and canvas.view == view
    assert layer_of(window).panning
    # What has the focus now is told of the key's release, the canvas is not.
    QApplication.sendEvent(canvas, QFocusEvent(QEvent.Type.FocusOut))
    assert not layer_of(window).panning


def test_distances_are_measured_and_pixels_asked_about_while_editing(window: MainWindow) -> None:
    page, canvas = page_of(window), page_of(window).canvas
    press(window, Qt.Key.Key_E)
    before = mask_of(window)
    asked: list[object] = []
    canvas.asked.connect(asked.append)
    press(window, Qt.Key.Key_M)
    drag(window, [(5.0, 5.0), (25.0, 9.0)])
    assert len(canvas.measures.measures) == 1 and (mask_of(window) == before).all()
    press(window, Qt.Key.Key_Escape)
    assert not canvas.measures.measures and page.editing.active, "Esc clears what was measured first"
    press(window, Qt.Key.Key_Escape)
    click(window, 5, 5, Qt.KeyboardModifier.AltModifier)
    assert len(asked) == 1 and (mask_of(window) == before).all()
    drag(window, [(5.0, 5.0), (9.0, 9.0)])
    assert words(window) == ["brush"]


def test_keys_of_a_text_field_do_nothing_to_the_mask(window: MainWindow, study: Study) -> None:
    page = page_of(window)
    press(window, Qt.Key.Key_E)
    drag(window, [(5.0, 5.0), (9.0, 9.0)])
    page.list.search.setFocus()
    QTest.keyClicks(page.list.search, "case")
    for key in (Qt.Key.Key_Return, Qt.Key.Key_Escape):
        QTest.keyClick(page.list.search, key)
        assert page.editing.active and study.reviewed() == {}


def test_backspace_takes_corners_back_and_never_leaves_a_polygon(window: MainWindow) -> None:
    page = page_of(window)
    page.go(1)
    press(window, Qt.Key.Key_E, Qt.Key.Key_P)
    click(window, 5, 5)
    press(window, Qt.Key.Key_Backspace, Qt.Key.Key_Backspace)
    tool = layer_of(window).tool
    assert page.editing.active and tool is not None and not tool.busy


def test_slices_are_not_copied_by_who_reads_blind(qtbot: QtBot, tmp_path: Path) -> None:
    study = make_volume_study(tmp_path / "study")
    predict(study)
    draw_audit(study, len(study.images), 1, target_id="gland")
    window = reviewing(qtbot, tmp_path, study)
    page = page_of(window)
    page.reading.choice.setCurrentIndex(page.reading.choice.findData("audit"))
    window.session.set_image("ct_002")
    press(window, Qt.Key.Key_E)
    drag(window, [(10.0, 10.0), (20.0, 14.0)])
    assert not page.editing.column.copy.isVisible()
    page.editing.copy_on()
    assert window.session.image_id == "ct_002" and study.reviews("ct_002", "gland") == []
    assert page.editing.draft.header.purpose == "audit"


def test_an_empty_study_ends_editing(window: MainWindow, tmp_path: Path) -> None:
    page = page_of(window)
    press(window, Qt.Key.Key_E)
    window.session.set_study(Study.create(tmp_path / "empty"))
    assert not page.editing.active and not page.editing.column.isVisible()


def test_a_second_window_is_told_and_neither_loses_anything(
    window: MainWindow, study: Study, qtbot: QtBot, tmp_path: Path
) -> None:
    first = next(iter(study.images))
    press(window, Qt.Key.Key_E)
    drag(window, [(5.0, 5.0), (9.0, 9.0)])
    mine = mask_of(window)
    other = reviewing(qtbot, tmp_path, Study.open(study.folder))
    press(other, Qt.Key.Key_E)
    assert said(other).startswith(f"Dr. Test is editing {first} in another window, too:")
    assert (mask_of(other) == student(study, first)).all()
    drag(other, [(40.0, 30.0), (50.0, 40.0)])
    theirs = mask_of(other)
    assert len(drafts(study)) == 2
    press(other, Qt.Key.Key_Return)
    assert len(drafts(study)) == 1
    drag(window, [(5.0, 30.0), (9.0, 40.0)])
    mine |= mask_of(window)
    press(window, Qt.Key.Key_Return)
    assert drafts(study) == [] and len(study.reviews(first, "target")) == 2
    latest = study.reviewed_mask(first, "target")
    names = sorted(path.stem for path in (study.folder / "reviews" / f"{first}.target").glob("*.json"))
    study.withdraw_review(first, "target", names[-1])
    before = study.reviewed_mask(first, "target")
    assert latest is not None and (latest == mine).all()
    assert before is not None and (before == theirs).all()


def test_slices_are_edited_on_and_copied(qtbot: QtBot, tmp_path: Path) -> None:
    study = make_volume_study(tmp_path / "study")
    predict(study)
    window = reviewing(qtbot, tmp_path, study)
    page = page_of(window)
    window.session.set_image("ct_002")
    press(window, Qt.Key.Key_E)
    layer_of(window).options.radius_px = 6.0
    drag(window, [(10.0, 10.0), (20.0, 14.0)])
    drawn = mask_of(window)
    grown = [action.text() for action in page.editing.column.grow.menu().actions()]
    assert grown[0] == "1 mm", "half a millimetre is less than a pixel"
    told = page.editing.row.radius.value
    assert told.text().endswith(" mm") and told.width() >= told.sizeHint().width(), (
        "the size is told in mm, whole"
    )
    page.editing.column.copy.click()
    assert window.session.image_id == "ct_003" and page.editing.active
    assert study.reviews("ct_002", "gland")[-1].edits == ("brush",)
    assert (mask_of(window) == drawn).all()
    drag(window, [(70.0, 70.0), (74.0, 72.0)])
    # Scrolling goes on editing the slice that comes into view; this one stays a draft.
    press(window, Qt.Key.Key_Down)
    assert window.session.image_id == "ct_004" and page.editing.active
    press(window, Qt.Key.Key_Up)
    assert words(window) == ["brush"]
    press(window, Qt.Key.Key_Return)
    review = study.reviews("ct_003", "gland")[-1]
    assert (review.started_from, review.edits) == ("slice ct_002", ("brush",))
    # Another target is another edit.
    window.session.set_image("ct_005")
    press(window, Qt.Key.Key_E)
    QTest.keyClick(page.canvas, Qt.Key.Key_Tab)
    assert window.session.target_id == "nodule" and not page.editing.active


def test_an_image_that_vanished_is_told_and_the_edit_is_kept(window: MainWindow, study: Study) -> None:
    page, image_id = page_of(window), next(iter(study.images))
    press(window, Qt.Key.Key_E)
    drag(window, [(5.0, 5.0), (9.0, 9.0)])
    drawn = mask_of(window)
    path = study.image_path(study.image(image_id))
    aside = path.with_suffix(".aside")
    path.rename(aside)
    press(window, Qt.Key.Key_Return)
    assert path.name in said(window) and "kept as a draft" in said(window)
    assert page.editing.active and study.reviewed() == {} and len(drafts(study)) == 1
    aside.rename(path)
    press(window, Qt.Key.Key_Return)
    stored = study.reviewed_mask(image_id, "target")
    assert stored is not None and (stored == drawn).all()


def test_a_prediction_of_another_size_is_refused_in_a_sentence(window: MainWindow, study: Study) -> None:
    page, image_id = page_of(window), next(iter(study.images))
    study.save_prediction(RUN, image_id, "target", "student", np.zeros((10, 12), np.float32))
    press(window, Qt.Key.Key_E)
    assert not page.editing.active
    assert f"The student's prediction for the image {image_id} is 12 x 10 pixels, the image 64 x 48" in said(
        window
    )


def test_an_edit_that_cannot_be_written_waits_until_it_can(
    window: MainWindow, study: Study, qtbot: QtBot, tmp_path: Path
) -> None:
    first, second, *_ = study.images
    (study.folder / "drafts").write_text("a file where the folder of drafts should be")
    for image_id, by_key in ((first, True), (second, False)):
        window.session.set_image(image_id)
        press(window, Qt.Key.Key_E)
        drag(window, [(5.0, 5.0), (9.0, 9.0)])
        assert "drafts" in said(window)
        drawn = mask_of(window)
        if by_key:
            press(window, Qt.Key.Key_Escape)
        window.session.set_image(first)
        assert not page_of(window).editing.active
        assert "not on the disk; E goes on with it" in said(window) and "drafts" in said(window)
        QTest.keyClick(page_of(window).canvas, Qt.Key.Key_S)
        assert window.current_page() == "study" and "not on the disk" in said(window), "it must not be missed"
        QTest.keyClick(window, Qt.Key.Key_V)
        window.session.set_image(image_id)
        press(window, Qt.Key.Key_E)
        assert (mask_of(window) == drawn).all() and words(window) == ["brush"]
        press(window, Qt.Key.Key_Escape)
    (study.folder / "drafts").unlink()
    window.close()
    assert len(drafts(study)) == 2
    again = reviewing(qtbot, tmp_path, study)
    press(again, Qt.Key.Key_E)
    assert words(again) == ["brush"]
