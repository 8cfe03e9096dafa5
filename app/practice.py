"""Practice before the first image: made-up pictures, each with a word on how it went."""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np
import numpy.typing as npt

from app.scene import Marks, Scene, outline
from gaze_capture.recording import Floats, Presence, ScreenGeometry
from gaze_capture.simulate import ImageToLookAt, SyntheticClinician, look_at
from gaze_capture.synthetic_eye import Script
from segmentation.phantoms import Phantom, make_phantom

SIZE_PX = 512
FIRST_SEED = 11

ENOUGH_MS = 3000.0
INSIDE_SHARE = 0.6
TOLERANCE_SHARE = 0.02
"""Gaze this near to the target, as a share of the image, counts as on it: trackers are not exact."""


@dataclass(frozen=True)
class PracticeLook:
    """How a look at a practice image went."""

    seconds: float
    """Time of all fixations."""
    fixations: int
    inside: float
    """Share of that time on the target, 0..1."""

    @property
    def long_enough(self) -> bool:
        """Whether as much gaze on every image would do."""
        return self.seconds * 1000 >= ENOUGH_MS

    @property
    def on_target(self) -> bool:
        """Whether most of it was on the target."""
        return self.inside >= INSIDE_SHARE


class PracticeImage:
    """A made-up picture; each number is the same one for everyone."""

    def __init__(self, number: int) -> None:
        self._phantom: Phantom = make_phantom(FIRST_SEED + number, "polyp", SIZE_PX, absent_share=0.0)
        self.scene = Scene(f"practice-{number + 1}", "practice", self._phantom.image)

    def judge(self, marks: Marks) -> PracticeLook:
        """Say how a look went, from its fixations in image pixels."""
        total_ms = float(marks.duration_ms.sum())
        reach = round(TOLERANCE_SHARE * SIZE_PX)
        size = (2 * reach + 1, 2 * reach + 1)
        disc = cv2.getStructuringElement(cv2.MORPH_ELLIPSE, size)
        near = cv2.dilate(self._phantom.mask.astype(np.uint8), disc).astype(np.uint8, copy=False)
        inside_ms = float(marks.duration_ms[_values_at(near, marks.xy_px) > 0].sum())
        return PracticeLook(
            total_ms / 1000, len(marks.duration_ms), inside_ms / total_ms if total_ms else 0.0
        )

    def answer(self, marks: Marks) -> Scene:
        """Return the picture with the target's outline and the fixations on it."""
        return Scene(
            self.scene.image_id,
            self.scene.target_id,
            self.scene.image,
            gaze=(marks,),
            truth=outline(self._phantom.mask),
        )

    def simulated_look(
        self, image_from_screen: Floats, geometry: ScreenGeometry, seed: int
    ) -> tuple[Script, Presence | None]:
        """Return how the synthetic clinician looks at it."""
        shown = ImageToLookAt(
            image_id=self.scene.image_id,
            shape=(SIZE_PX, SIZE_PX),
            mask=self._phantom.mask,
            saliency=None,
            target_id=self.scene.target_id,
        )
        rng = np.random.default_rng([seed, FIRST_SEED])
        return look_at(shown, image_from_screen, SyntheticClinician(geometry=geometry), rng)


def _values_at(grid: npt.NDArray[np.uint8], xy_px: Floats) -> npt.NDArray[np.uint8]:
    """Return the grid's values at positions (F, 2); 0 outside."""
    columns, rows = np.rint(xy_px).astype(np.int64).reshape(-1, 2).T
    height, width = grid.shape
    within = (columns >= 0) & (columns < width) & (rows >= 0) & (rows < height)
    found = np.zeros(len(columns), np.uint8)
    found[within] = grid[rows[within], columns[within]]
    return found
