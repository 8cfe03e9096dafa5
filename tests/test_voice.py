"""Voice notes: what was said is kept, whatever happens to the program, the disk or the microphone."""

from __future__ import annotations

import importlib
import inspect
import os
import signal
import subprocess
import sys
import threading
import time
import types
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import scipy.io.wavfile

from app.sound import VoiceRecorder
from gaze_capture.errors import UserError
from gaze_capture.voice import LONGEST_S, RATE_HZ, VoiceWriter, notes_of, read_note


def spoken(seconds: float, seed: int = 0) -> np.ndarray[Any, np.dtype[np.int16]]:
    return np.random.default_rng(seed).integers(-9000, 9000, round(seconds * RATE_HZ)).astype(np.int16)


def test_a_note_comes_back_as_it_was_spoken(tmp_path: Path) -> None:
    writer = VoiceWriter(tmp_path, "a", "polyp", 12)
    sound = spoken(1.3)
    for part in np.array_split(sound, 20):
        writer.add(part)
    note = writer.close()
    assert note is not None and (note.image_id, note.target_id, note.start_ns) == ("a", "polyp", 12)
    assert note.seconds == pytest.approx(1.3)
    assert notes_of(tmp_path) == [note]
    assert (read_note(tmp_path, note) == sound).all()
    second = VoiceWriter(tmp_path, "b", None, 13)
    assert second.close() is None, "nothing was said"
    assert [path.name for path in (tmp_path / "voice").glob("*.wav")] == [note.file]


def test_it_ends_after_two_minutes(tmp_path: Path) -> None:
    writer = VoiceWriter(tmp_path, "a", None, 0)
    for _ in range(13):
        writer.add(spoken(10))
    assert writer.seconds == LONGEST_S
    note = writer.close()
    assert note is not None and len(read_note(tmp_path, note)) == LONGEST_S * RATE_HZ


def test_what_was_said_before_a_crash_can_be_heard(tmp_path: Path) -> None:
    code = (
        "import sys, time, numpy as np\n"
        "from pathlib import Path\n"
        "from gaze_capture.voice import VoiceWriter\n"
        "writer = VoiceWriter(Path(sys.argv[1]), 'a', None, 0)\n"
        "while True:\n"
        "    writer.add(np.ones(800, dtype=np.int16)); print(writer.seconds, flush=True); time.sleep(0.05)\n"
    )
    with subprocess.Popen(
        [sys.executable, "-c", code, str(tmp_path)], stdout=subprocess.PIPE, text=True
    ) as talk:
        assert talk.stdout is not None
        said = 0.0
        while said < 1.0:
            said = float(talk.stdout.readline())
        os.kill(talk.pid, signal.SIGKILL)
    [note] = notes_of(tmp_path)
    assert (note.image_id, note.sha256) == ("a", "")
    assert len(read_note(tmp_path, note)) / RATE_HZ >= said - 0.3
    with pytest.warns(scipy.io.wavfile.WavFileWarning, match="EOF"):
        _, sound = scipy.io.wavfile.read(tmp_path / "voice" / note.file)
    assert len(sound) / RATE_HZ >= said - 0.3, "other programs can hear it, too"
    following = VoiceWriter(tmp_path, "b", None, 1)
    following.add(spoken(0.2))
    assert following.close() is not None and len(notes_of(tmp_path)) == 2


def test_a_full_disk_keeps_what_was_said(tmp_path: Path) -> None:
    code = (
        "import resource, sys, numpy as np\n"
        "from pathlib import Path\n"
        "from gaze_capture.errors import UserError\n"
        "from gaze_capture.voice import VoiceWriter\n"
        "import signal; signal.signal(signal.SIGXFSZ, signal.SIG_IGN)\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (40_000, 40_000))\n"
        "writer = VoiceWriter(Path(sys.argv[1]), 'a', None, 0)\n"
        "for _ in range(100): writer.add(np.ones(800, dtype=np.int16))\n"
        "try: writer.close()\n"
        "except UserError as error: print(error)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, str(tmp_path)], capture_output=True, text=True, check=True
    )
    assert "note-0001.wav" in done.stdout
    [note] = notes_of(tmp_path)
    assert len(read_note(tmp_path, note)) > 15_000


class Microphone:
    """Speaks as sounddevice does: through a callback on a thread of its own, with (frames, channels) of int16."""

    def __init__(self) -> None:
        self.module = types.ModuleType("sounddevice")
        self.module.InputStream = self._stream  # type: ignore[attr-defined]
        self.gone = False

    def _stream(
        self,
        samplerate: float | None = None,
        blocksize: int | None = None,
        device: Any = None,
        channels: int | None = None,
        dtype: Any = None,
        latency: Any = None,
        extra_settings: Any = None,
        callback: Callable[..., None] | None = None,
        finished_callback: Callable[[], None] | None = None,
        clip_off: bool | None = None,
        dither_off: bool | None = None,
        never_drop_input: bool | None = None,
        prime_output_buffers_using_stream_callback: bool | None = None,
    ) -> Stream:
        if self.gone:
            raise RuntimeError("Error querying device -1")
        assert samplerate == RATE_HZ and channels == 1 and dtype == "int16" and callback is not None
        return Stream(callback)


class Stream:
    def __init__(self, callback: Callable[..., None]) -> None:
        self._callback = callback
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._run)
        self.active = True

    def start(self) -> None:
        self._thread.start()

    def _run(self) -> None:
        buffer = np.empty((160, 1), dtype=np.int16)
        while not self._over.wait(0.01):
            buffer[:, 0] = 3000
            self._callback(buffer, 160, None, None)
            # The buffer is the driver's own: what is not copied is lost.
            buffer[:] = 0

    def stop(self) -> None:
        self._over.set()
        self._thread.join()

    def close(self) -> None:
        assert self._over.is_set()


def test_the_double_has_the_real_signature() -> None:
    try:
        real = importlib.import_module("sounddevice")
    except (ImportError, OSError) as error:
        pytest.skip(f"sounddevice cannot be used here: {error}")
    wanted = list(inspect.signature(real.InputStream.__init__).parameters)[1:]
    assert list(inspect.signature(Microphone()._stream).parameters) == wanted


def test_a_microphone_is_recorded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    microphone = Microphone()
    monkeypatch.setitem(sys.modules, "sounddevice", microphone.module)
    recorder = VoiceRecorder()
    recorder.start(tmp_path, "a", "polyp")
    deadline = time.monotonic() + 10
    while (recorder.seconds or 0) < 0.3:
        assert time.monotonic() < deadline
        time.sleep(0.01)
    assert recorder.trouble == ""
    assert recorder.level == pytest.approx(3000 / 32768, rel=0.01)
    recorder._stream.active = False
    assert "gone" in recorder.trouble
    note = recorder.stop()
    assert note is not None and not recorder.on
    assert set(read_note(tmp_path, note).tolist()) == {3000}
    microphone.gone = True
    with pytest.raises(UserError, match="connect a microphone"):
        recorder.start(tmp_path, "a", "polyp")
    assert not recorder.on and len(list((tmp_path / "voice").glob("*.wav"))) == 1


def test_without_the_package_it_says_what_to_install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "sounddevice", None)
    with pytest.raises(UserError, match="pip install"):
        VoiceRecorder().start(tmp_path, "a", None)
    assert not (tmp_path / "voice").exists()
