"""The microphone and the loudspeaker, where the package for them is installed."""

from __future__ import annotations

import contextlib
import importlib
import time
from pathlib import Path
from typing import Any

import numpy as np
from PySide6.QtCore import QThreadPool
from PySide6.QtWidgets import QApplication

from gaze_capture.errors import UserError
from gaze_capture.voice import LONGEST_S, RATE_HZ, VoiceNote, VoiceWriter

TONE_S = 0.18
TONE_HZ = (660.0, 990.0)
LEVEL = 10 ** (-24 / 20)
"""Quiet: -24 dB below the loudest."""
OUT_HZ = 44_100


def _sounddevice() -> Any:
    """Return the package, late: it opens PortAudio.

    Raises
    ------
    UserError
        If it, or PortAudio, is missing.
    """
    try:
        return importlib.import_module("sounddevice")
    except ImportError:
        raise UserError(
            "Voice notes need the package sounddevice: pip install 'gaze-insight[audio]', then start again."
        ) from None
    except OSError:
        raise UserError(
            "Voice notes need PortAudio: install libportaudio2 with your package manager, then start again."
        ) from None


def soft_tone() -> None:
    """Play a short quiet tone, or the desktop's beep where there is nothing to play it with; never waits."""
    QThreadPool.globalInstance().start(_play)


def _play() -> None:
    seconds = np.arange(round(TONE_S * OUT_HZ)) / OUT_HZ
    wave = sum(np.sin(2 * np.pi * hertz * seconds) / number for number, hertz in enumerate(TONE_HZ, 1))
    fade = np.sin(np.pi * np.clip(seconds / TONE_S, 0, 1)) ** 2
    # PortAudio has a hundred ways to fail; none is worth more than the tone.
    try:
        _sounddevice().play((LEVEL * fade * wave / 1.5).astype(np.float32), OUT_HZ)
    except Exception:
        QApplication.beep()


class VoiceRecorder:
    """Records notes from the microphone, one at a time."""

    def __init__(self) -> None:
        self._stream: Any = None
        self._writer: VoiceWriter | None = None
        self.level = 0.0
        """Loudness of the last block, 0..1."""

    @property
    def on(self) -> bool:
        """Whether a note is being recorded."""
        return self._writer is not None

    @property
    def seconds(self) -> float | None:
        """How long the note is so far; None while none is recorded."""
        return self._writer.seconds if self._writer is not None else None

    @property
    def trouble(self) -> str:
        """Why the note cannot go on, in a sentence; empty while it can."""
        if self._writer is None:
            return ""
        if self._writer.failure is not None:
            return str(self._writer.failure)
        if not self._stream.active:
            return "The microphone is gone; what was said before is kept."
        return ""

    @property
    def full(self) -> bool:
        """Whether the note is as long as it may be."""
        return self._writer is not None and self._writer.seconds >= LONGEST_S

    def start(self, folder: Path, image_id: str, target_id: str | None) -> None:
        """Begin a note in a recording's folder.

        Raises
        ------
        UserError
            If the package is missing, there is no microphone, or nothing can be written.
        """
        device = _sounddevice()
        writer = VoiceWriter(folder, image_id, target_id, time.monotonic_ns())

        def take(indata: Any, frames: int, at: Any, status: Any) -> None:
            sound = np.asarray(indata, dtype=np.int16)[:, 0]
            self.level = float(np.sqrt(np.mean((sound / 32768.0) ** 2))) if len(sound) else 0.0
            writer.add(sound.copy())

        try:
            stream = device.InputStream(samplerate=RATE_HZ, channels=1, dtype="int16", callback=take)
            stream.start()
        except Exception as error:
            with contextlib.suppress(UserError):
                writer.close()
            raise UserError(
                f"No voice can be recorded ({error}): connect a microphone, and allow this program to use it."
            ) from None
        self._stream, self._writer = stream, writer

    def stop(self) -> VoiceNote | None:
        """End the note; None where nothing was said.

        Raises
        ------
        UserError
            If writing failed; what was said before is kept.
        """
        stream, self._stream = self._stream, None
        writer, self._writer = self._writer, None
        self.level = 0.0
        if stream is not None:
            # A microphone that was unplugged cannot be closed any more.
            with contextlib.suppress(Exception):
                stream.stop()
                stream.close()
        return writer.close() if writer is not None else None
