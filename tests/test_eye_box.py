from __future__ import annotations

import pytest
from pytestqt.qtbot import QtBot

from app.eye_box import EyeBox
from gaze_capture.trackers.tracker import EyePositions, Millimetres


def at(x: float, z: float) -> tuple[Millimetres, Millimetres]:
    return (x - 32, 10.0, z), (x + 32, 10.0, z)


@pytest.mark.parametrize(
    ("left", "right", "seen", "advice", "in_place"),
    [
        (*at(0, 660), (1.0, 0.9), "The position is good: 66 cm.", True),
        (*at(0, 760), (1.0, 0.9), "Come 11 cm closer.", False),
        (*at(0, 500), (1.0, 0.9), "Move 15 cm back.", False),
        (*at(120, 650), (1.0, 0.9), "Move 12 cm to the left.", False),
        (*at(-95, 650), (1.0, 0.9), "Move 10 cm to the right.", False),
        # One eye alone is no reason to move: it is 32 mm beside the middle of the head.
        (at(70, 650)[0], None, (1.0, 0.0), "The right eye is hardly seen", True),
        (None, at(-70, 650)[1], (0.1, 1.0), "The left eye is hardly seen", True),
        (None, None, (0.0, 0.0), "No eye is seen", False),
    ],
)
def test_the_advice_says_what_to_change(
    qtbot: QtBot,
    left: Millimetres | None,
    right: Millimetres | None,
    seen: tuple[float, float],
    advice: str,
    in_place: bool,
) -> None:
    box = EyeBox(650.0)
    qtbot.addWidget(box)
    box.resize(640, 480)
    box.show_eyes(EyePositions(0, left, right), *seen)
    assert box.advice.startswith(advice) and box.in_place == in_place
    assert box.accessibleDescription() == box.advice
    assert not box.grab().isNull()


def test_a_tracker_that_does_not_tell_where_eyes_are_is_judged_by_what_it_sees(qtbot: QtBot) -> None:
    box = EyeBox(650.0)
    qtbot.addWidget(box)
    box.show_eyes(None, 0.9, 0.95)
    assert box.in_place and "does not tell" in box.advice
    box.show_eyes(None, 0.2, 0.95)
    assert "left eye" in box.advice
    # Once it has told, not telling means that the eyes are lost.
    box.show_eyes(EyePositions(0, *at(0, 650)), 1.0, 1.0)
    box.show_eyes(None, 1.0, 1.0)
    assert not box.in_place
