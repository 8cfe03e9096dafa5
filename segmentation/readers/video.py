"""Videos as stacks of frames: AVI and MP4, pictures only."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt

from gaze_capture.errors import UserError
from segmentation.images import MAX_PIXELS
from segmentation.readers.shared import explained
from segmentation.stacks import Plane, Stack

ENDINGS = (".avi", ".mp4", ".m4v", ".mov")
"""File name endings, lower case, that are tried as videos."""
MAX_FRAMES = 2000


def read_video(path: Path, every: int = 1) -> Stack:
    """Read every n-th frame of a video as a stack of RGB planes; sound and metadata are not looked at.

    Raises
    ------
    UserError
        If the file is damaged, of another type, or has too many frames.
    """
    path = Path(path)
    if every < 1:
        raise UserError(f"{path}: every {every}. frame cannot be taken; give 1 or more.")
    with explained(path), open(path, "rb") as file:
        start = file.read(12)
    if not start:
        raise UserError(f"{path} is empty (0 bytes).")
    # Told by its first bytes: the decoder would also follow play lists to other files and addresses.
    if not (start[:4] == b"RIFF" and start[8:12] == b"AVI ") and start[4:8] not in (
        b"ftyp",
        b"moov",
        b"mdat",
    ):
        raise UserError(f"{path} is not an AVI or MP4 video, whatever its name says; convert it.")
    frames = _Frames(path)
    found, shape = 0, None
    try:
        while found <= MAX_FRAMES * every and frames.skip():
            if shape is None:
                shape = frames.current().shape
            found += 1
    finally:
        frames.close()
    if shape is None:
        raise UserError(f"{path} is damaged: not one frame of it can be decoded; copy it again.")
    count = -(-found // every)
    if count > MAX_FRAMES:
        raise UserError(
            f"{path} has more than {MAX_FRAMES * every} frames; up to {MAX_FRAMES} are read, "
            f"so take only every {every * 2}. frame or fewer (every), or cut the video."
        )
    height, width, _ = shape

    def read(number: int) -> Plane:
        if not 0 <= number < count:
            raise IndexError(number)
        values = frames.at(number * every)
        if number == count - 1:
            frames.close()
        if values.shape != shape:
            raise UserError(f"{path} changes its size at frame {number * every + 1}; cut it there.")
        return Plane(values)

    return Stack(
        name=path.stem,
        files=(path,),
        shape=(int(height), int(width), 3),
        count=count,
        read=read,
        modality="photo",
        header={"format": "video", "every": every},
    )


class _Frames:
    """Follows a video; it is opened when first asked and begun anew for an earlier frame."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._video: Any = None
        self._next = 0

    def skip(self) -> bool:
        """Go to the next frame, if there is one."""
        if self._video is None:
            self._open()
        try:
            there = bool(self._video.grab())
        except cv2.error:
            there = False
        self._next += 1
        return there

    def current(self) -> npt.NDArray[np.uint8]:
        """Decode the frame gone to."""
        try:
            ok, pixels = self._video.retrieve()
        except cv2.error:
            ok, pixels = False, None
        if not ok or pixels is None or pixels.ndim != 3 or pixels.dtype != np.uint8 or pixels.shape[2] != 3:
            raise UserError(f"{self._path} is damaged: frame {self._next} cannot be decoded; copy it again.")
        return np.ascontiguousarray(pixels[:, :, ::-1])

    def at(self, number: int) -> npt.NDArray[np.uint8]:
        """Decode a frame by its number."""
        if self._video is not None and number < self._next:
            self.close()
        while self._next <= number:
            if not self.skip():
                self.close()
                raise UserError(
                    f"{self._path} changed or became unreadable while it was read; copy it again."
                )
        return self.current()

    def close(self) -> None:
        """Let go of the file."""
        if self._video is not None:
            self._video.release()
            self._video = None
        self._next = 0

    def _open(self) -> None:
        # The backend is named, so that no name is taken for a numbered sequence of images.
        video = cv2.VideoCapture(str(self._path.absolute()), cv2.CAP_FFMPEG)
        if not video.isOpened():
            raise UserError(
                f"{self._path} cannot be decoded: damaged, or made with an unknown codec; convert it."
            )
        width, height = video.get(cv2.CAP_PROP_FRAME_WIDTH), video.get(cv2.CAP_PROP_FRAME_HEIGHT)
        if width * height > MAX_PIXELS:
            video.release()
            raise UserError(f"{self._path} is too large: frames of {width:.0f} x {height:.0f} pixels.")
        self._video, self._next = video, 0
