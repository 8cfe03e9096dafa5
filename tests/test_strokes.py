"""Lines put together of hair lines, and areas of which only a part is drawn."""

from __future__ import annotations

import numpy as np
import pytest
from PySide6.QtCore import QRectF, Qt
from PySide6.QtGui import QColor, QImage, QPainter, QPainterPath
from pytestqt.qtbot import QtBot

from app.strokes import Points, filled_path, polygons_path

AREA = QRectF(120, 80, 60, 40)


def filled(path: QPainterPath) -> QImage:
    image = QImage(int(AREA.width()), int(AREA.height()), QImage.Format.Format_ARGB32)
    image.fill(Qt.GlobalColor.white)
    painter = QPainter(image)
    painter.translate(-AREA.topLeft())
    painter.fillPath(path, QColor("black"))
    painter.end()
    return image


def lines(seed: int) -> list[Points]:
    """Closed lines that wander through the area and all around it."""
    rng = np.random.default_rng(seed)
    centres = np.array([AREA.center().x(), AREA.center().y()])
    return [
        centres + rng.normal(0, rng.uniform(20, 300), (int(rng.integers(3, 60)), 2)) for _ in range(4)
    ] + [centres + np.array([[-400.0, -300.0], [400.0, -300.0], [400.0, 300.0], [-400.0, 300.0]])]


@pytest.mark.parametrize("seed", range(20))
def test_a_part_is_filled_as_it_is_in_the_whole(qtbot: QtBot, seed: int) -> None:
    found = lines(seed)
    assert filled(filled_path(found, AREA)) == filled(polygons_path(found))


def test_what_lies_beyond_a_part_is_left_out() -> None:
    turns = np.linspace(0, 2 * np.pi, 1000, endpoint=False)
    ring = np.stack([np.cos(turns), np.sin(turns)], axis=1) * 500
    path = filled_path([ring + np.array([150.0 - 500, 100.0])], AREA)
    assert 10 < path.elementCount() < 200
