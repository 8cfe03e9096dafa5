from __future__ import annotations

import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import cv2
import numpy as np
import pytest
from PySide6.QtCore import QEvent, QPoint, QPointF, QSize, Qt
from PySide6.QtGui import QColor, QGuiApplication, QImage, QKeyEvent, QPainter, QWheelEvent
from PySide6.QtTest import QTest
from PySide6.QtWidgets import QApplication
from pytestqt.qtbot import QtBot

from app.canvas import HOLD_SECONDS, Canvas
from app.canvas_frame import CanvasFrame
from app.layer_drawing import HIDDEN_AT_FIRST, REGIONS
from app.layer_keys import key_text, layer_of
from app.layer_panel import LayerPanel
from app.overlay import Overlay, Surface
from app.probe import Probe, probe
from app.scene import (
    LAYERS,
    Marks,
    Outline,
    Scene,
    SceneCache,
    build_scene,
    doubt_index,
    heatmap_index,
    outline,
    reviewed_by,
    word_weights,
    words_index,
)
from app.view_geometry import View
from gaze_capture.errors import UserError
from segmentation.intensity import PRESETS, Intensity
from segmentation.records import utc_now
from segmentation.study import Review, Study
from segmentation.text.attention import AttentionMaps
from tests.window_support import fill

# The offscreen platform says so of every dialog.
pytestmark = pytest.mark.qt_log_ignore("propagateSizeHints", extend=True)

RNG = np.random.default_rng(0)


def scene(width: int = 60, height: int = 40, **layers: object) -> Scene:
    image = np.full((height, width, 3), 90, dtype=np.uint8)
    return Scene("one", "target", image, **layers)  # type: ignore[arg-type]


def square_outline() -> Outline:
    mask = np.zeros((40, 60), dtype=bool)
    mask[10:30, 20:40] = True
    return outline(mask)


@pytest.fixture
def canvas(qtbot: QtBot) -> Canvas:
    made = Canvas()
    qtbot.addWidget(made)
    made.resize(640, 480)
    with qtbot.waitExposed(made):
        made.show()
    return made


def colour_at(canvas: Canvas, x: float, y: float) -> QColor:
    point = canvas.widget_from_image(x, y).toPoint()
    return canvas.grab().toImage().pixelColor(point)


def test_mapping_is_its_own_inverse_for_any_view_and_agrees_with_the_placement(canvas: Canvas) -> None:
    corner = canvas.mapToGlobal(QPoint(0, 0)) - canvas.screen().geometry().topLeft()
    for _ in range(200):
        width, height = RNG.integers(5, 3000, 2)
        canvas.set_scene(None)
        canvas.set_scene(scene(int(width), int(height)))
        for _ in range(int(RNG.integers(0, 5))):
            around = QPointF(*RNG.uniform(0, 480, 2))
            under = canvas.image_from_widget(around)
            before = canvas.zoom
            canvas.zoom_by(float(RNG.uniform(0.5, 2)), around)
            if canvas.zoom != before and canvas.widget_from_image(*under) != around:
                # Kept in view: the image may have been pulled back, but never torn.
                assert np.isfinite(canvas.image_from_widget(around)).all()
        x, y = RNG.uniform(-100, 3000, 2)
        point = canvas.widget_from_image(x, y)
        assert canvas.image_from_widget(point) == pytest.approx((x, y), abs=1e-6)
        ratio = canvas.devicePixelRatioF()
        screen = np.array([(point.x() + corner.x()) * ratio, (point.y() + corner.y()) * ratio, 1.0])
        assert (canvas.image_from_screen() @ screen)[:2] == pytest.approx((x, y), abs=1e-6)


def test_zooming_keeps_the_point_under_the_pointer(canvas: Canvas) -> None:
    canvas.set_scene(scene(600, 400))
    pointer = QPointF(350, 220)
    under = canvas.image_from_widget(pointer)
    wheel = QWheelEvent(
        pointer,
        canvas.mapToGlobal(pointer),
        QPoint(),
        QPoint(0, 240),
        Qt.MouseButton.NoButton,
        Qt.KeyboardModifier.NoModifier,
        Qt.ScrollPhase.NoScrollPhase,
        False,
    )
    zoom = canvas.zoom
    QApplication.sendEvent(canvas, wheel)
    assert canvas.zoom == pytest.approx(zoom * 1.44)
    assert canvas.image_from_widget(pointer) == pytest.approx(under)


def test_image_fits_and_F_fits_again_after_dragging(canvas: Canvas) -> None:
    canvas.set_scene(scene())
    fitted = canvas.image_from_screen()
    left_top, right_bottom = canvas.widget_from_image(-0.5, -0.5), canvas.widget_from_image(59.5, 39.5)
    assert left_top.x() == pytest.approx(12) and right_bottom.x() == pytest.approx(628)
    QTest.mousePress(canvas, Qt.MouseButton.LeftButton, pos=QPoint(300, 200))
    QTest.mouseMove(canvas, QPoint(340, 260))
    QTest.mouseRelease(canvas, Qt.MouseButton.LeftButton, pos=QPoint(340, 260))
    moved = canvas.image_from_screen()
    assert (moved - fitted)[:2, 2] == pytest.approx([-40 * fitted[0, 0], -60 * fitted[1, 1]])
    QTest.keyClick(canvas, Qt.Key.Key_F)
    assert canvas.image_from_screen() == pytest.approx(fitted)


def test_outline_runs_along_the_edge_of_the_mask() -> None:
    [contour] = square_outline().contours
    # The edge between pixels 19 and 20 lies at 19.5; the enlargement finds it within half a fine pixel.
    assert contour.min(axis=0) == pytest.approx([19.5, 9.5], abs=0.3)
    assert contour.max(axis=0) == pytest.approx([39.5, 29.5], abs=0.3)
    assert outline(np.zeros((4, 4), dtype=bool)).empty


def test_layers_are_drawn_where_they_belong_and_keys_toggle_them(canvas: Canvas, qtbot: QtBot) -> None:
    canvas.set_scene(scene(student=square_outline()))
    plain = colour_at(canvas, 5, 5)
    assert plain == QColor(90, 90, 90)
    tinted = colour_at(canvas, 30, 20)
    assert tinted.blue() > tinted.red() + 10, "the student's tint is blue"
    edge = [colour_at(canvas, x, 20).blue() for x in np.arange(19.2, 20.0, 0.1)]
    assert max(edge) > 200, "its line is bright blue"
    QTest.keyClick(canvas, Qt.Key.Key_5)
    assert not canvas.layer_visible("student")
    assert colour_at(canvas, 30, 20) == plain
    QTest.keyClick(canvas, Qt.Key.Key_5)
    assert colour_at(canvas, 30, 20) == tinted
    QTest.keyPress(canvas, Qt.Key.Key_5)
    qtbot.wait(int(HOLD_SECONDS * 1000) + 60)
    assert not canvas.layer_visible("student")
    QTest.keyRelease(canvas, Qt.Key.Key_5)
    assert canvas.layer_visible("student"), "a key that was held only peeks"
    QTest.keyPress(canvas, Qt.Key.Key_C)
    assert colour_at(canvas, 30, 20) == plain
    QTest.keyRelease(canvas, Qt.Key.Key_C)
    canvas.set_layer_opacity("student", 0.0)
    assert colour_at(canvas, 30, 20) == plain


def test_every_layer_leaves_a_trace_and_none_leaves_another(canvas: Canvas) -> None:
    marks = Marks(np.array([[10.0, 10.0], [50.0, 30.0]]), np.array([250.0, 500.0]))
    heatmap = np.zeros((40, 60), dtype=np.float32)
    heatmap[15:25, 25:35] = 1
    effect = np.zeros((4, 6), dtype=np.float32)
    effect[:2] = -0.6
    square = square_outline()
    full = scene(
        heatmap=heatmap_index(heatmap),
        gaze=(marks,),
        levels=(square,),
        student=square,
        teacher=square,
        disagreement=square,
        reviewed=square,
        truth=square,
        words=AttentionMaps(("location",), ("here",), np.ones((1, 4, 6), np.float32), effect, 1),
        doubt=heatmap_index(heatmap),
        annotators=square,
    )
    assert full.available == set(LAYERS)
    canvas.set_scene(full)
    for name in LAYERS:
        canvas.set_layer_visible(name, False)
    bare = canvas.grab().toImage()
    seen = []
    for name in LAYERS:
        canvas.set_layer_visible(name, True)
        seen.append(canvas.grab().toImage())
        canvas.set_layer_visible(name, False)
    assert all(image != bare for image in seen)
    assert all(first != second for i, first in enumerate(seen) for second in seen[:i])


def test_doubt_is_where_the_student_is_undecided_or_the_teacher_says_otherwise() -> None:
    student = heatmap_index(np.array([[0.0, 0.5, 1.0, 1.0]], np.float32))
    assert doubt_index(student, None).tolist() == [[0, 255, 0, 0]]
    teacher = heatmap_index(np.array([[0.0, 0.5, 1.0, 0.2]], np.float32))
    assert doubt_index(student, teacher).tolist() == [[0, 255, 0, 204]]
    assert doubt_index(student, teacher.T).tolist() == [[0, 255, 0, 0]], "of another grid, from before"


def test_words_show_where_they_change_the_answer_and_where_each_is_read() -> None:
    effect = np.array([[-0.5, 0.0], [0.25, 1.0]], np.float32)
    attention = np.array([[[0.1, 0.1], [0.1, 0.3]], [[0.9, 0.9], [0.9, 0.7]]], np.float32)
    words = AttentionMaps(("location", "shape"), ("here", "round shape"), attention, effect, 1)
    assert words_index(words).tolist() == [[255, 0], [128, 255]]
    weights = word_weights(words, (40, 60))
    assert {name: one.shape for name, one in weights.items()} == {"location": (40, 60), "shape": (40, 60)}
    assert weights["location"][-1, -1] == 255 and weights["location"][0, 0] == 0
    assert weights["shape"][-1, -1] == 0 and weights["shape"][0, 0] == 255


def test_live_gaze_repaints_only_its_surroundings(canvas: Canvas, qtbot: QtBot) -> None:
    canvas.set_scene(scene())
    qtbot.wait(30)
    painted = []
    original = canvas.paintEvent

    def spy(event):  # type: ignore[no-untyped-def]
        painted.append(event.rect())
        original(event)

    canvas.paintEvent = spy  # type: ignore[method-assign]
    canvas.set_live((30.0, 20.0), Marks(np.array([[30.0, 20.0]]), np.array([300.0])))
    qtbot.waitUntil(lambda: bool(painted))
    assert painted[0].width() < 60
    assert painted[0].contains(canvas.widget_from_image(30, 20).toPoint())


def test_scene_shows_what_the_study_holds(study: Study, image_folder: Path) -> None:
    fill(study, image_folder)
    image_id = next(iter(study.images))
    built = build_scene(study, image_id, "target")
    assert built.available == {"heatmap", "fixations", "scanpath", "levels", "truth"}
    assert built.simulated_from == "masks"
    mask = study.true_mask(image_id, "target")
    assert mask is not None
    probability = mask.astype(np.float32)
    study.save_prediction("run-x", image_id, "target", "student", probability)
    study.save_prediction("run-x", image_id, "target", "teacher", 1 - probability)
    both = build_scene(study, image_id, "target", "run-x")
    assert {"student", "teacher", "disagreement"} <= both.available
    assert both.student is not None and both.truth is not None
    for one, other in zip(both.student.contours, both.truth.contours, strict=True):
        assert one == pytest.approx(other)


def test_scene_cache_forgets_what_changed(study: Study, image_folder: Path) -> None:
    fill(study, image_folder, gaze=False)
    cache = SceneCache(study, size=2)
    first, second, third = list(study.images)[:3]
    kept = cache.get(first, "target")
    assert cache.get(first, "target") is kept
    cache.get(second, "target")
    cache.get(third, "target")
    assert cache.get(first, "target") is not kept, "only the last two are kept"
    again = cache.get(first, "target")
    cache.forget(first)
    assert cache.get(first, "target") is not again


def test_two_threads_that_want_one_scene_build_it_once(
    study: Study, image_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fill(study, image_folder, gaze=False)
    built = []

    def slowly(*arguments: object) -> Scene:
        built.append(arguments)
        time.sleep(0.1)
        return build_scene(*arguments)  # type: ignore[arg-type]

    monkeypatch.setattr("app.scene.build_scene", slowly)
    cache = SceneCache(study)
    image_id = next(iter(study.images))
    with ThreadPoolExecutor(3) as pool:
        scenes = list(pool.map(lambda _: cache.get(image_id, "target"), range(3)))
    assert len(built) == 1 and scenes[0] is scenes[1] is scenes[2]
    with pytest.raises(UserError):
        cache.get("nowhere", "target")
    assert cache.get(image_id, "target") is scenes[0]


def drag(canvas: Canvas, start: tuple[float, float], end: tuple[float, float]) -> None:
    """Drag with the left button from one image position to another."""
    first, last = (canvas.widget_from_image(*one).toPoint() for one in (start, end))
    QTest.mousePress(canvas, Qt.MouseButton.LeftButton, pos=first)
    QTest.mouseMove(canvas, (first + last) / 2)
    QTest.mouseMove(canvas, last)
    QTest.mouseRelease(canvas, Qt.MouseButton.LeftButton, pos=last)


def test_layers_beyond_nine_have_keys_with_shift_that_toggle_and_peek(canvas: Canvas, qtbot: QtBot) -> None:
    canvas.set_scene(scene(doubt=np.full((40, 60), 255, np.uint8)))
    plain = colour_at(canvas, 30, 20)
    assert [key_text(name) for name in LAYERS[8:11]] == ["9", "⇧1", "⇧2"]
    assert LAYERS[10] == "doubt" and not canvas.layer_visible("doubt")
    QTest.keyClick(canvas, Qt.Key.Key_2, Qt.KeyboardModifier.ShiftModifier)
    assert canvas.layer_visible("doubt") and canvas.layer_visible("fixations")
    assert colour_at(canvas, 30, 20) != plain
    QTest.keyPress(canvas, Qt.Key.Key_2, Qt.KeyboardModifier.ShiftModifier)
    qtbot.wait(int(HOLD_SECONDS * 1000) + 60)
    assert not canvas.layer_visible("doubt")
    # Shift is let go first, as hands do.
    QTest.keyRelease(canvas, Qt.Key.Key_2)
    assert canvas.layer_visible("doubt")
    QTest.keyClick(canvas, Qt.Key.Key_9, Qt.KeyboardModifier.ShiftModifier)
    assert [name for name in LAYERS if canvas.layer_visible(name)] == [
        name for name in LAYERS if name not in HIDDEN_AT_FIRST or name == "doubt"
    ]


def test_digits_are_told_by_their_place_on_the_keyboard(monkeypatch: pytest.MonkeyPatch) -> None:
    def pressed(key: Qt.Key, code: int, *, shift: bool = False) -> QKeyEvent:
        modifiers = Qt.KeyboardModifier.ShiftModifier if shift else Qt.KeyboardModifier.NoModifier
        return QKeyEvent(QEvent.Type.KeyPress, key, modifiers, code, 0, 0)

    monkeypatch.setattr(QGuiApplication, "platformName", lambda: "xcb")
    # A German keyboard makes " of Shift and 2, a French one an é of the key alone.
    assert layer_of(pressed(Qt.Key.Key_QuoteDbl, 11, shift=True)) == "doubt"
    assert layer_of(pressed(Qt.Key.Key_Eacute, 11)) == "fixations"
    assert layer_of(pressed(Qt.Key.Key_Q, 24)) is None
    monkeypatch.setattr(QGuiApplication, "platformName", lambda: "windows")
    assert layer_of(pressed(Qt.Key.Key_Exclam, 2, shift=True)) == "words"


def test_regions_are_outlined_filled_or_both(canvas: Canvas) -> None:
    canvas.set_scene(scene(student=square_outline(), reviewed=square_outline()))
    canvas.set_layer_visible("reviewed", False)
    plain = QColor(90, 90, 90)

    def seen() -> tuple[bool, bool]:
        edge = max(colour_at(canvas, x, 20).blue() for x in np.arange(19.2, 20.0, 0.1))
        return edge > 200, colour_at(canvas, 30, 20) != plain

    assert seen() == (True, True), "both at first"
    canvas.set_layer_look("student", "fill")
    assert seen() == (False, True)
    canvas.set_layer_look("student", "contour")
    assert seen() == (True, False)
    # Filled regions differ by more than their colour.
    canvas.set_layer_visible("student", False)
    canvas.set_layer_visible("reviewed", True)
    canvas.set_layer_look("reviewed", "fill")
    inside = {colour_at(canvas, x, 20).name() for x in np.arange(25, 35, 0.1)}
    assert len(inside) > 1, "stripes"
    panel = LayerPanel(canvas)
    QTest.mouseClick(panel.samples["reviewed"], Qt.MouseButton.LeftButton)
    assert canvas.layer_look("reviewed") == "contour"
    QTest.keyClick(panel.samples["reviewed"], Qt.Key.Key_Space)
    assert canvas.layer_look("reviewed") == "both"


def test_moving_draws_only_the_edge_anew_and_it_looks_as_if_all_were(canvas: Canvas) -> None:
    rng = np.random.default_rng(4)
    mask = cv2.GaussianBlur(rng.normal(0, 1, (200, 300)).astype(np.float32), (0, 0), 9) > 0
    marks = Marks(rng.uniform(0, 200, (30, 2)), rng.uniform(100, 500, 30))
    canvas.set_scene(
        scene(
            300, 200, student=outline(mask), teacher=outline(~mask), truth=outline(mask), gaze=(marks,),
            levels=(outline(mask), outline(~mask)), heatmap=heatmap_index(rng.random((200, 300), np.float32)),
        )
    )  # fmt: skip
    for name in LAYERS:
        canvas.set_layer_visible(name, True)
        if name in REGIONS:
            canvas.set_layer_look(name, "both")
    canvas.zoom_by(2.3)
    canvas.grab()
    for end in ((170.0, 120.0), (100.0, 60.0), (160.0, 130.0), (163.0, 90.0)):
        drag(canvas, (150.0, 100.0), end)
        moved = pixels_of(canvas)
        canvas.set_layer_opacity("levels", 0.99)
        canvas.set_layer_opacity("levels", 1.0)
        whole = pixels_of(canvas)
        # Antialiasing rounds a little otherwise where a clip begins.
        differing = np.abs(moved - whole).max(axis=2) > 40
        assert differing.mean() < 0.002


def pixels_of(canvas: Canvas) -> np.ndarray[tuple[int, ...], np.dtype[np.int16]]:
    image = canvas.grab().toImage().convertToFormat(QImage.Format.Format_RGB888)
    rows = np.frombuffer(image.constBits(), np.uint8).reshape(image.height(), image.bytesPerLine())
    pixels = rows[:, : image.width() * 3].reshape(image.height(), image.width(), 3)
    return pixels.astype(np.int16)


def test_zooming_in_a_hurry_stretches_and_resting_makes_sharp(canvas: Canvas, qtbot: QtBot) -> None:
    drawn = []

    def slowly(surface: Surface) -> None:
        drawn.append(surface.view.scale)
        time.sleep(0.01)

    overlay = Overlay(slowly)
    image = QImage(200, 100, QImage.Format.Format_ARGB32_Premultiplied)
    painter = QPainter(image)
    size = QSize(200, 100)
    assert overlay.paint(painter, View(1.0), size, 1.0, hurried=True)
    assert not overlay.paint(painter, View(1.5), size, 1.0, hurried=True), "stretched"
    assert overlay.paint(painter, View(1.5), size, 1.0, hurried=False)
    assert overlay.paint(painter, View(1.5, 3, 0), size, 1.0, hurried=True), "moving is always sharp"
    painter.end()
    assert drawn == [1.0, 1.5, 1.5]
    canvas.set_scene(scene(student=square_outline()))
    canvas.zoom_by(1.7)
    qtbot.wait(150)
    again = pixels_of(canvas)
    canvas.set_layer_visible("student", False)
    canvas.set_layer_visible("student", True)
    assert (again == pixels_of(canvas)).all()


@pytest.mark.parametrize("channels", [1, 3])
def test_a_large_image_zoomed_out_is_the_mean_of_its_pixels(canvas: Canvas, channels: int) -> None:
    image = np.zeros((2000, 3000, channels), np.uint8)
    # Lines of a pixel that nearest neighbours would lose or exaggerate.
    image[::2] = 200
    canvas.set_scene(Scene("one", "target", image))
    assert canvas.zoom < 0.25
    for x, y in ((200, 300), (1500, 1000), (2800, 1900)):
        assert abs(colour_at(canvas, x, y).red() - 100) < 12
    canvas.show_pixels()
    x, y = (round(one) for one in canvas.image_from_widget(QPointF(320, 240)))
    seen = {colour_at(canvas, x, y + step).red() for step in range(4)}
    assert seen == {0, 200}, "pixel for pixel"


def test_shift_F_shows_one_image_pixel_per_pixel_of_the_screen(canvas: Canvas) -> None:
    rng = np.random.default_rng(1)
    image = rng.integers(0, 255, (900, 1200, 3)).astype(np.uint8)
    canvas.set_scene(Scene("one", "target", image))
    QTest.keyClick(canvas, Qt.Key.Key_F, Qt.KeyboardModifier.ShiftModifier)
    assert canvas.zoom * canvas.devicePixelRatioF() == pytest.approx(1)
    x, y = (round(one) for one in canvas.image_from_widget(QPointF(300.5, 200.5)))
    shown = pixels_of(canvas)[200:300, 300:400]
    assert (shown == image[y : y + 100, x : x + 100]).all(), "not one is mixed with its neighbours"


def test_distances_are_measured_by_dragging_in_mm_where_spacing_is_known(canvas: Canvas) -> None:
    canvas.reviewing = True
    # Rows lie twice as far apart as columns.
    canvas.set_scene(scene(spacing_mm=(1.0, 0.5)))
    before = canvas.grab().toImage()
    QTest.keyClick(canvas, Qt.Key.Key_M)
    assert canvas.measures.active
    view = canvas.view
    drag(canvas, (10, 20), (30, 20))
    drag(canvas, (40, 5), (40, 25))
    across, down = canvas.measures.measures
    assert canvas.view == view, "nothing was moved"
    assert across.length_mm((1.0, 0.5)) == pytest.approx(10, abs=0.05)
    assert down.length_mm((1.0, 0.5)) == pytest.approx(20, abs=0.1)
    assert across.length_px() == pytest.approx(20, abs=0.1)
    assert across.text((1.0, 0.5)).endswith("mm") and across.text(None).endswith("px")
    assert canvas.grab().toImage() != before
    drag(canvas, (30, 20), (50, 20))
    assert len(canvas.measures.measures) == 2, "an end was taken hold of"
    assert canvas.measures.measures[0].length_px() == pytest.approx(40, abs=0.2)
    QTest.mouseClick(canvas, Qt.MouseButton.LeftButton, pos=QPoint(100, 300))
    assert len(canvas.measures.measures) == 2, "a click measures nothing"
    QTest.keyClick(canvas, Qt.Key.Key_Escape)
    assert not canvas.measures.measures and canvas.measures.active
    QTest.keyClick(canvas, Qt.Key.Key_Escape)
    assert not canvas.measures.active
    drag(canvas, (10, 20), (30, 20))
    assert canvas.view != view, "dragging moves again"


def test_measures_belong_to_their_image_and_no_key_starts_them_where_gaze_is_recorded(canvas: Canvas) -> None:
    canvas.set_scene(scene())
    QTest.keyClick(canvas, Qt.Key.Key_M)
    QTest.keyClick(canvas, Qt.Key.Key_I)
    assert not canvas.measures.active and not canvas.probing
    canvas.reviewing = True
    QTest.keyClick(canvas, Qt.Key.Key_M)
    drag(canvas, (10, 20), (30, 20))
    canvas.set_scene(scene(student=square_outline()))
    assert len(canvas.measures.measures) == 1, "the same image with other layers"
    QTest.keyClick(canvas, Qt.Key.Key_W)
    assert canvas.window_mode and not canvas.measures.active, "a drag does one thing"
    canvas.set_scene(Scene("other", "target", np.zeros((40, 60, 3), np.uint8)))
    assert not canvas.measures.measures


def test_pixel_is_told_with_value_place_probability_and_levels(qtbot: QtBot) -> None:
    stored = np.zeros((40, 60, 1), np.uint16)
    stored[20, 30] = 1111
    student = np.full((40, 60), 0.25, np.float32)
    student[20, 30] = 0.8
    level_map = np.zeros((40, 60), np.uint8)
    level_map[20, 30], level_map[20, 31] = 2, 1
    shown = Scene(
        "one", "target", stored, Intensity(1.0, -1024.0, "HU"), "ct", (2.0, 0.5),
        student_probability=heatmap_index(student), thresholds=(0.6, 0.3), level_map=level_map,
    )  # fmt: skip
    assert probe(shown, 30.2, 19.8) == Probe(30, 20, (15.25, 41.0), "87 HU", None, (0.6, 0.3), 0.8, None)
    assert probe(shown, 31, 20).levels == (0.3,) and probe(shown, 0, 0).levels == ()
    frame = CanvasFrame(reviewing=True)
    qtbot.addWidget(frame)
    frame.resize(640, 480)
    with qtbot.waitExposed(frame):
        frame.show()
    frame.canvas.set_scene(shown)
    [card] = frame.probes
    QTest.mouseMove(frame.canvas, frame.canvas.widget_from_image(30, 20).toPoint())
    assert not card.isVisible()
    QTest.keyClick(frame.canvas, Qt.Key.Key_I)
    assert card.isVisible()
    for told in ("30, 20", "15.2, 41.0 mm", "87 HU", "Student 0.80", "0.6 / 0.3"):
        assert told in card.text
    assert "Teacher" not in card.text
    QTest.mouseMove(frame.canvas, QPoint(frame.canvas.width() - 20, 60))
    assert card.isHidden() or card.geometry().right() < frame.canvas.width() / 2, "it makes room"
    QTest.keyClick(frame.canvas, Qt.Key.Key_I)
    assert card.isHidden()


def test_shift_W_goes_through_the_windows_of_a_CT_and_back_to_its_own(canvas: Canvas) -> None:
    stored = np.zeros((40, 60, 1), np.uint16)
    canvas.set_scene(Scene("one", "target", stored, Intensity(1.0, -1024.0, "HU", window=(30, 300)), "ct"))
    seen = []
    for _ in range(len(PRESETS["ct"]) + 1):
        QTest.keyClick(canvas, Qt.Key.Key_W, Qt.KeyboardModifier.ShiftModifier)
        seen.append(canvas.shown_window)
    assert seen == [*PRESETS["ct"].values(), (30, 300)]
    assert canvas.as_opened and {"Abdomen", "Lung", "Bone", "Brain", "Soft tissue"} <= PRESETS["ct"].keys()
    canvas.set_scene(scene())
    QTest.keyClick(canvas, Qt.Key.Key_W, Qt.KeyboardModifier.ShiftModifier)
    assert canvas.as_opened, "a photograph has no such windows"


def test_scene_cache_keeps_within_its_memory(study: Study, image_folder: Path) -> None:
    fill(study, image_folder)
    names = list(study.images)
    size = build_scene(study, names[0], "target").nbytes
    assert size >= 48 * 64 * (3 + 1 + 1)
    cache = SceneCache(study, most_bytes=int(size * 2.5))
    for name in names[:4]:
        cache.get(name, "target")
    held = [name for name in names[:4] if cache.has((name, "target", None, False))]
    assert held == names[2:4]
    tiny = SceneCache(study, most_bytes=1)
    assert tiny.get(names[0], "target") is tiny.get(names[0], "target"), "one is always kept"


def test_annotators_who_differ_are_a_layer(study: Study, image_folder: Path) -> None:
    fill(study, image_folder)
    image_id = next(iter(study.images))
    mask = np.zeros((48, 64), bool)
    mask[10:30, 10:30] = True

    def review(annotator: str, drawn: np.ndarray[tuple[int, ...], np.dtype[np.bool_]]) -> None:
        study.add_review(
            Review(image_id, "target", annotator, "pseudomask", "edited", "present", 1.0, utc_now()), drawn
        )

    review("A", mask)
    assert build_scene(study, image_id, "target").annotators is None
    review("B", np.roll(mask, 5, axis=1))
    built = build_scene(study, image_id, "target")
    assert built.annotators is not None and len(built.annotators.contours) == 2
    assert "annotators" in built.available
    one = reviewed_by(study, built, "A").reviewed
    assert one is not None and one.contours[0].min() == pytest.approx(9.5, abs=0.3)
    assert reviewed_by(study, built, "nobody").reviewed is None
