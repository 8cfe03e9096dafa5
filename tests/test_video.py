"""Videos: frames in order, every n-th of them, and nothing but videos."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest

from gaze_capture.errors import UserError
from segmentation.readers import video
from segmentation.readers.video import read_video


def written(path: Path, frames: int = 7, codec: str = "MJPG") -> Path:
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter.fourcc(*codec), 25, (64, 48))
    assert writer.isOpened()
    for number in range(frames):
        writer.write(np.full((48, 64, 3), (0, 0, 30 * number), np.uint8))
    writer.release()
    return path


@pytest.mark.parametrize(("ending", "codec"), [(".avi", "MJPG"), (".mp4", "mp4v")])
@pytest.mark.parametrize("every", [1, 3])
def test_every_nth_frame_is_a_plane(tmp_path: Path, ending: str, codec: str, every: int) -> None:
    stack = read_video(written(tmp_path / f"scöpe{ending}", 7, codec), every)
    assert (stack.name, stack.shape, stack.modality) == ("scöpe", (48, 64, 3), "photo")
    assert stack.count == (7 if every == 1 else 3)
    reds = [float(stack.read(number).values[..., 0].mean()) for number in range(stack.count)]
    np.testing.assert_allclose(reds, np.arange(0, 7, every) * 30.0, atol=6)
    assert stack.read(1).values[..., 0].mean() == pytest.approx(30 * every, abs=6)
    assert stack.read(0).values.max() <= 12


def test_too_many_frames_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(video, "MAX_FRAMES", 3)
    path = written(tmp_path / "a.avi")
    with pytest.raises(UserError, match=r"more than 3 frames.*\(every\)"):
        read_video(path)
    assert read_video(path, 3).count == 3
    with pytest.raises(UserError, match="give 1 or more"):
        read_video(path, 0)


def test_what_is_no_video_is_not_given_to_the_decoder(tmp_path: Path) -> None:
    path = tmp_path / "a.avi"
    for data in (
        b"#EXTM3U\n#EXTINF:1,\nhttp://localhost/a.ts\n",
        b"ffconcat version 1.0\nfile /etc/passwd\n",
    ):
        path.write_bytes(data)
        with pytest.raises(UserError, match="not an AVI or MP4"):
            read_video(path)
    path.write_bytes(b"")
    with pytest.raises(UserError, match="empty"):
        read_video(path)
    with pytest.raises(UserError, match="No such file"):
        read_video(tmp_path / "b.avi")


def test_a_cut_video_gives_its_whole_frames_or_is_refused(tmp_path: Path) -> None:
    data = written(tmp_path / "a.avi").read_bytes()
    path = tmp_path / "b.avi"
    path.write_bytes(data[:300])
    with pytest.raises(UserError, match=r"b\.avi"):
        read_video(path)
    path.write_bytes(data[: (data.index(b"movi") + len(data)) // 2])
    stack = read_video(path)
    assert 1 <= stack.count < 7
    assert all(stack.read(number).values.shape == (48, 64, 3) for number in range(stack.count))
