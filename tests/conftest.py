"""What all tests share: no display, no hub, settings of their own, and the shared data where it is at hand.

Imports nothing that gaze_capture does not need: its tests run without the rest.
"""

from __future__ import annotations

import gc
import os
import threading
from collections.abc import Iterator
from pathlib import Path

os.environ.setdefault("QT_QPA_PLATFORM", "offscreen")
os.environ.setdefault("HF_HUB_OFFLINE", "1")
# The keyring of whoever runs the tests is left alone.
os.environ["PYTHON_KEYRING_BACKEND"] = "keyring.backends.null.Keyring"
os.environ["LSLAPICFG"] = str(Path(__file__).with_name("lsl_api.cfg"))

from typing import TYPE_CHECKING

import numpy as np
import pytest

if TYPE_CHECKING:
    from segmentation.study import Study
    from tests.chat_server import FakeServer


TESTS_BETWEEN_FULL_COLLECTIONS = 100
_ended = 0


def pytest_sessionstart() -> None:
    """Collect garbage between tests alone: in a test's own threads it would destroy widgets of those before."""
    gc.disable()


def pytest_runtest_logfinish() -> None:
    """Collect what a test left."""
    global _ended
    _ended += 1
    gc.collect(1 if _ended % TESTS_BETWEEN_FULL_COLLECTIONS else 2)


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """Return the folder of real data, which is never part of the project."""
    folder = Path(__file__).resolve().parents[2] / "shared" / "data"
    if not folder.is_dir():
        pytest.skip("the shared data is not at hand")
    return folder


@pytest.fixture(scope="session")
def tiny_vlm(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the folder of a small vision-language model, trained when the first test asks for it."""
    from tests.tiny_vlm import train_tiny_vlm

    return train_tiny_vlm(tmp_path_factory.mktemp("models") / "tiny-vlm")


@pytest.fixture
def study(tmp_path: Path) -> Study:
    """Return a new, empty study."""
    from segmentation.study import Study

    return Study.create(tmp_path / "study")


@pytest.fixture
def image_folder(tmp_path: Path) -> Path:
    """Return a folder of six small images with a bright disc each, and `masks/` beside `images/`."""
    import cv2

    from segmentation.images import encode_mask

    rng = np.random.default_rng(0)
    folder = tmp_path / "raw"
    for name in ("images", "masks"):
        (folder / name).mkdir(parents=True)
    rows, columns = np.mgrid[0:48, 0:64]
    for number in range(6):
        centre = rng.uniform([16, 16], [32, 48])
        mask = (rows - centre[0]) ** 2 + (columns - centre[1]) ** 2 < rng.uniform(7, 11) ** 2
        pixels = rng.normal(90, 12, (48, 64, 3)) + mask[:, :, None] * [60, 30, 20]
        data = cv2.imencode(".png", np.clip(pixels, 0, 255).astype(np.uint8))[1]
        (folder / "images" / f"case_{number}.png").write_bytes(data.tobytes())
        (folder / "masks" / f"case_{number}.png").write_bytes(encode_mask(mask))
    return folder


@pytest.fixture
def chat_server() -> Iterator[FakeServer]:
    """Run a chat-completions server on loopback that answers well until it is told otherwise."""
    from tests.chat_server import FakeServer

    fake = FakeServer()
    thread = threading.Thread(target=fake.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    yield fake
    fake.released.set()
    fake.shutdown()
    thread.join()
    fake.server_close()


@pytest.fixture
def no_key(monkeypatch: pytest.MonkeyPatch) -> None:
    """Take the key for servers out of the environment."""
    monkeypatch.delenv("GAZE_INSIGHT_API_KEY", raising=False)
