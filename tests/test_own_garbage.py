"""Widgets that only cycles hold on to are destroyed in the window's thread, whoever allocates."""

from __future__ import annotations

import gc
import threading

from PySide6.QtWidgets import QWidget
from pytestqt.qtbot import QtBot

from app.own_garbage import OwnGarbage


class Dialog(QWidget):
    def __init__(self, ended: list[int]) -> None:
        super().__init__()
        self.itself = self
        self.ended = ended

    def __del__(self) -> None:
        self.ended.append(threading.get_ident())


def litter() -> None:
    for _ in range(20_000):
        itself: list[object] = []
        itself.append(itself)


def test_other_threads_destroy_no_widget(qtbot: QtBot) -> None:
    ended: list[int] = []
    was_on = gc.isenabled()
    garbage = OwnGarbage()
    try:
        Dialog(ended)
        busy = threading.Thread(target=litter)
        busy.start()
        busy.join()
        assert not ended
        qtbot.waitUntil(lambda: len(ended) == 1)
        assert ended == [threading.get_ident()]
    finally:
        garbage.stop()
    assert gc.isenabled() == was_on
