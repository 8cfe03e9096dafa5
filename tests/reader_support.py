"""Several annotators of one small study: discs that they outline, each in a way of their own."""

from __future__ import annotations

import contextlib
import io
import json
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt

from app.cli import run_command
from gaze_capture.fixations import Fixations
from segmentation.blind_reading import BlindPurpose, done_by, work_for
from segmentation.importing import import_images
from segmentation.records import Key
from segmentation.review_index import BARE_IMAGE, Purpose
from segmentation.study import Mask, Review, Study

SHAPE = (48, 64)


def image_files(folder: Path, count: int = 4, seed: int = 0) -> Path:
    """Write small images of noise, no two alike."""
    folder.mkdir(parents=True)
    rng = np.random.default_rng(seed)
    for number in range(count):
        pixels = rng.integers(0, 255, (*SHAPE, 3), dtype=np.uint8)
        (folder / f"s{seed}_{number}.png").write_bytes(cv2.imencode(".png", pixels)[1].tobytes())
    return folder


def make(folder: Path, count: int = 4) -> Study:
    """Make a study with images."""
    study = Study.create(folder)
    import_images(study, [image_files(folder.parent / f"{folder.name}-raw", count)])
    return study


def disc(x: float, y: float = 24, radius: float = 9, shape: tuple[int, int] = SHAPE) -> Mask:
    rows, columns = np.mgrid[: shape[0], : shape[1]]
    mask: Mask = (rows - y) ** 2 + (columns - x) ** 2 < radius**2
    return mask


def review(
    study: Study,
    image_id: str,
    annotator: str,
    mask: npt.NDArray[np.bool_] | None,
    purpose: Purpose = "review",
    **changes: Any,
) -> str:
    """Store a review as a window does; without a mask it is a rejection."""
    values: dict[str, Any] = {
        "image_id": image_id,
        "target_id": "target",
        "annotator": annotator,
        "subject": BARE_IMAGE if purpose == "audit" else "pseudomask",
        "verdict": "rejected" if mask is None else "edited",
        "presence": None if mask is None else "present" if mask.any() else "absent",
        "seconds_spent": 3.0,
        "reviewed_at": "2026-01-01T00:00:00.000+00:00",
        "purpose": purpose,
        "started_from": "empty" if purpose == "audit" else "",
    }
    return study.add_review(Review(**{**values, **changes}), mask)


def left_for(study: Study, annotator: str, purpose: BlindPurpose) -> list[Key]:
    """Return what an annotator is asked to read blind and has not read, in order."""
    done = done_by(study, annotator, purpose)
    return [key for key in work_for(study, annotator, purpose) if key not in done]


def gaze_of(image_id: str, annotator: str, source: str, seed: int = 0) -> Fixations:
    rng = np.random.default_rng(seed)
    duration = rng.uniform(150, 500, 8)
    return Fixations(
        image_id=image_id,
        target_id="target",
        annotator=annotator,
        source=source,
        start_ms=np.cumsum(duration) - duration,
        duration_ms=duration,
        xy_px=rng.normal([32, 24], 4, (8, 2)),
        dispersion_deg=np.full(8, np.nan),
        detector="imported",
    )


def command(*words: str | Path) -> tuple[int, str, str]:
    """Run a command; return its status and what it said on stdout and stderr."""
    out, error = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(error):
        status = run_command([str(word) for word in words])
    return status, out.getvalue(), error.getvalue()


def command_json(*words: str | Path) -> dict[str, Any]:
    """Run a command that should work, and return what it printed."""
    status, out, error = command(*words, "--json")
    assert status == 0, error
    values: dict[str, Any] = json.loads(out)
    return values
