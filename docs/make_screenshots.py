"""Draw the window's pages on a study, without a display, as the pictures of README and the manual.

``python docs/make_screenshots.py STUDY OUT [--mode dark] [--size 1280x800] [--image ID]``
"""

from __future__ import annotations

import argparse
import os
import tempfile
from pathlib import Path

os.environ.setdefault("QT_QPA_PLATFORM", "offscreen")

from PySide6.QtCore import QEventLoop, QSettings, QTimer

from app import theme
from app.main_window import PAGES, MainWindow, make_application
from app.record_page import RecordPage

SETTLE_MS = 1500
RECORDED_MS = 6000


def main() -> None:
    """Draw every page once."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("study", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("--mode", choices=("dark", "light"), default="dark")
    parser.add_argument("--size", default="1280x800")
    parser.add_argument("--image", help="the image shown on the pages with a canvas")
    parser.add_argument("--annotator", default="reader-1")
    parser.add_argument(
        "--record", action="store_true", help="record on the first page with a canvas: changes the study"
    )
    arguments = parser.parse_args()
    width, height = map(int, arguments.size.split("x"))
    arguments.out.mkdir(parents=True, exist_ok=True)
    application = make_application()
    theme.apply(application, arguments.mode)
    with tempfile.TemporaryDirectory() as temporary:
        settings = QSettings(str(Path(temporary) / "settings.ini"), QSettings.Format.IniFormat)
        settings.setValue("annotator", arguments.annotator)
        window = MainWindow(settings)
        window.resize(width, height)
        window.session.open(arguments.study)
        if arguments.image:
            window.session.set_image(arguments.image)
        window.show()
        for name in PAGES:
            window.show_page(name)
            page = window.page(name)
            _wait(SETTLE_MS)
            if isinstance(page, RecordPage) and arguments.record:
                page.start()
                _wait(RECORDED_MS)
            window.grab().save(str(arguments.out / f"{name}-{arguments.mode}.png"))
            if isinstance(page, RecordPage) and page.busy:
                page.end()
                _wait(SETTLE_MS)
        window.close()


def _wait(milliseconds: int) -> None:
    loop = QEventLoop()
    QTimer.singleShot(milliseconds, loop.quit)
    loop.exec()


if __name__ == "__main__":
    main()
