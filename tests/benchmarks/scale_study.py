"""A study of ten thousand images for the benchmark of scale, written without a sync a file."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Sequence
from pathlib import Path

import cv2
import numpy as np

from gaze_capture.fixations import Fixations
from segmentation.images import encode_gray16, encode_mask
from segmentation.pseudomask import PseudoMask
from segmentation.records import SCHEMA, safe_name
from segmentation.study import Review, Study

SIDE_PX = 256


def write_pictures(folder: Path, numbers: Sequence[int], ending: str = ".png") -> None:
    """Write pictures of 256 x 256 pixels, no two alike."""
    folder.mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng(0)
    texture = cv2.GaussianBlur(rng.normal(110, 60, (512, 512, 3)), (0, 0), 3).clip(0, 255).astype(np.uint8)
    for number in numbers:
        top, left = (number * 7) % 256, (number * 13) % 256
        pixels = texture[top : top + SIDE_PX, left : left + SIDE_PX].copy()
        cv2.circle(pixels, (60 + number % 130, 60 + number // 130 % 130), 30, (200, 160, 150), -1)
        cv2.putText(pixels, str(number), (10, 240), cv2.FONT_HERSHEY_SIMPLEX, 1.0, (255, 255, 255))
        options = (cv2.IMWRITE_PNG_COMPRESSION, 1) if ending == ".png" else ()
        (folder / f"p{number // 20:04}_{number:05}{ending}").write_bytes(
            cv2.imencode(ending, pixels, options)[1].tobytes()
        )


def fill(study: Study, *, recordings: int, looks: int, reviews: int, predictions: int) -> None:
    """Give a study gaze (50 images a sitting), pseudo-masks of all images, predictions and reviews."""
    ids = list(study.images)
    rng = np.random.default_rng(1)
    for number in range(recordings):
        found = []
        for image_id in [ids[(number * looks + step) % len(ids)] for step in range(looks)]:
            duration = rng.uniform(120, 400, 30)
            found.append(
                Fixations(
                    image_id,
                    "target",
                    f"reader-{number % 4}",
                    f"import-{number:03}",
                    np.cumsum(duration) - duration,
                    duration,
                    rng.uniform(0, SIDE_PX - 1, (30, 2)),
                    np.full(30, 0.2),
                    "imported",
                    presence=("present", "absent", "unsure", "ungradable")[int(rng.integers(4))],
                    viewing_ms=float(duration.sum()),
                )
            )
        study.save_fixations(f"import-{number:03}", found, imported=True)
    folder = study.folder / "pseudomasks"
    folder.mkdir(exist_ok=True)
    empty = np.zeros((SIDE_PX, SIDE_PX), np.uint8)
    for image_id in ids:
        pseudomask = PseudoMask(
            image_id, "target", ("reader-0",), ("import-000",), np.zeros((1, 2)), np.ones(1), np.ones((1, 2)),
            None, empty.astype(np.float32), (0.5, 0.3), empty, "none",
        )  # fmt: skip
        (folder / f"{image_id}.target.npz").write_bytes(pseudomask.to_bytes())
    run = study.runs_folder / "run-20261101-090000-aaaaaa"
    (run / "predictions" / "student").mkdir(parents=True)
    (run / "spec.json").write_text("{}")
    picture = encode_gray16(empty.astype(np.float32))
    for image_id in ids[:predictions]:
        (run / "predictions" / "student" / f"{image_id}.target.png").write_bytes(picture)
    mask = encode_mask(empty > 0)
    for number, image_id in enumerate(ids[:reviews]):
        review = Review(
            image_id,
            "target",
            "Dr. Bench",
            run.name,
            "accepted",
            "present",
            3.0,
            "2026-11-20T10:00:00.000+00:00",
        )
        place = study.folder / "reviews" / f"{image_id}.target"
        place.mkdir(parents=True)
        name = f"20261120-100000{number:06}-abcdef-{safe_name('Dr. Bench')}"
        (place / f"{name}.png").write_bytes(mask)
        (place / f"{name}.json").write_text(
            json.dumps({"schema": SCHEMA, **dataclasses.asdict(review)}, indent=2)
        )
