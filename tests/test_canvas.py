from __future__ import annotations

import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from PySide6.QtCore import QPoint, QPointF, Qt
from PySide6.QtGui import QColor, QWheelEvent
from PySide6.QtTest import QTest
from PySide6.QtWidgets import QApplication
from pytestqt.qtbot import QtBot

from app.canvas import HOLD_SECONDS, Canvas
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
    word_weights,
    words_index,
)
from gaze_capture.errors import UserError
from segmentation.study import Study
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
