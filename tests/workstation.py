"""A second workstation, as a process: adds to a study what its arguments say. Run by test_two_workstations."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np

from gaze_capture.fixations import Fixations
from segmentation.pseudomask import PseudoMaskSettings
from segmentation.records import StudyImage, utc_now
from segmentation.study import Review, Study


def gaze(image_id: str, annotator: str, source: str) -> Fixations:
    """Return two fixations on an image."""
    return Fixations(
        image_id, "target", annotator, source, np.array([0.0, 300.0]), np.array([250.0, 400.0]),
        np.array([[1.0, 2.0], [3.0, 2.0]]), np.full(2, np.nan), "imported", presence="present", viewing_ms=2000.0,
    )  # fmt: skip


def main(folder: Path, who: str, rounds: int) -> None:
    """Add images, gaze, reviews of common images and settings, as fast as it goes."""
    study = Study.open(folder)
    for number in range(rounds):
        image_id = f"{who}-{number}"
        study.add_images(
            [StudyImage(image_id, f"images/{image_id}.png", f"{image_id}.png", "0" * 64, (4, 5, 3))]
        )
        study.save_fixations(f"{who}-{number}", [gaze(image_id, who, f"{who}-{number}")], imported=True)
        study.add_review(
            Review(f"common-{number}", "target", who, "pseudomask", "accepted", "present", 1.0, utc_now()),
            np.ones((4, 5), bool),
        )
        # Each has a field of its own of the one file that both change.
        if who == "a":
            study.set_pseudomask_settings(PseudoMaskSettings(sigma_deg=1 + number / 100))
        else:
            study.set_key_fingerprint(f"key-{number}")
        study.audit("round", who=who, number=number)


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2], int(sys.argv[3]))
