"""Recordings made by hand: a gaze at rest on places of images, with the events of a session."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from gaze_capture.recording import SAMPLE, Calibration, Placement, Presence, Recording, ScreenGeometry
from gaze_capture.recording_codec import RecordingHeader, RecordingWriter, read_recording
from segmentation.study import Study

SCREEN = ScreenGeometry(1920, 1080, 527.0, 296.0, 650.0)
HZ = 120
START_NS = 5_000_000_000
SHAPE = (480, 640)
LEFT, TOP = 640, 300
"""Where on the screen an image lies, pixel for pixel."""

GOOD = Calibration(5, 0.4, 0.8, 0.1, 0.02)
Event = tuple[str, float, dict[str, Any]]
Shown = tuple[str, float, float]
"""Image, and from when to when it is shown, in seconds of the recording."""


def ns(seconds: float) -> int:
    """Return a time of the recording."""
    return START_NS + round(seconds * 1e9)


def record_looks(
    folder: Path,
    shown: Sequence[Shown],
    events: Sequence[Event] = (),
    *,
    annotator: str = "ann",
    target: str | None = "target",
    calibration: Calibration | None = GOOD,
    lost: Sequence[tuple[float, float]] = (),
    silent: Sequence[tuple[float, float]] = (),
    outside: Sequence[tuple[float, float]] = (),
    offset_deg: tuple[float, float] = (0.0, 0.0),
    presence: Presence | None = "present",
    seconds: float | None = None,
    notes: dict[str, Any] | None = None,
) -> Recording:
    """Record gaze that jumps every 0.4 s among four places of each image; with spans lost, silent or off the image."""
    end_s = seconds if seconds is not None else max([end for _, _, end in shown], default=1.0) + 0.2
    times = np.arange(0, end_s, 1 / HZ)
    xy_px = (
        np.array([LEFT, TOP])
        + np.array([[150, 120], [450, 150], [400, 350], [200, 300]])[(times / 0.4).astype(int) % 4]
    )
    for begun, ended in outside:
        xy_px[(times >= begun) & (times < ended)] = [100, 100]
    degrees = SCREEN.degrees_from_normalised(xy_px / [SCREEN.width_px, SCREEN.height_px]) + offset_deg
    xy = SCREEN.normalised_from_degrees(degrees)
    for begun, ended in lost:
        xy[(times >= begun) & (times < ended)] = np.nan
    kept = np.ones(len(times), dtype=bool)
    for begun, ended in silent:
        kept &= ~((times >= begun) & (times < ended))
    samples = np.zeros(int(kept.sum()), dtype=SAMPLE)
    samples["time_ns"] = samples["device_time_ns"] = [ns(moment) for moment in times[kept]]
    for side in ("left", "right"):
        samples[f"{side}_x"], samples[f"{side}_y"] = xy[kept, 0], xy[kept, 1]
    header = RecordingHeader(
        folder.name, annotator, "mouse", SCREEN, "2026-01-01T00:00:00+00:00", calibration, notes=notes or {}
    )
    moved = np.array([[1.0, 0, -LEFT], [0, 1, -TOP], [0, 0, 1]])
    with RecordingWriter(folder, header) as writer:
        writer.add_samples(samples)
        for image, begun, ended in shown:
            view = (LEFT, TOP, SHAPE[1], SHAPE[0])
            number = writer.start_placement(Placement(image, target, ns(begun), ns(begun), moved, view))
            writer.end_placement(number, ns(ended), presence)
        for kind, moment, values in events:
            writer.add_event(kind, ns(moment), values)  # type: ignore[arg-type]
    return read_recording(folder)


def record_in(study: Study, name: str, shown: Sequence[Shown], *args: Any, **kwargs: Any) -> str:
    """Record into a study, detect the fixations, and return the recording's id."""
    from segmentation.steps import detect_fixations

    record_looks(study.new_recording_folder(name), shown, *args, **kwargs)
    detect_fixations(study, name)
    return name


def add_images(study: Study, names: Sequence[str], **known: Any) -> None:
    """Add images of the size of these recordings, each with a file of its own."""
    import cv2

    from segmentation.records import StudyImage

    rng = np.random.default_rng(0)
    images = []
    for name in names:
        data = cv2.imencode(".png", rng.integers(0, 255, (*SHAPE, 3)).astype(np.uint8))[1].tobytes()
        path = study.folder / "images" / f"{name}.png"
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(data)
        digest = hashlib.sha256(data).hexdigest()
        images.append(StudyImage(name, f"images/{name}.png", f"{name}.png", digest, (*SHAPE, 3), **known))
    study.add_images(images)
