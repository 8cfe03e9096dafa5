"""What a backend is asked about one image, and the words a model is asked with."""

from __future__ import annotations

import functools
import hashlib
import json
import string
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from gaze_capture.errors import UserError
from segmentation.explanation_presets import Preset
from segmentation.explanation_settings import ViewSettings
from segmentation.measured import grid_word
from segmentation.pseudomask import PseudoMask
from segmentation.records import StudyImage, Target
from segmentation.reply import plain_text
from segmentation.study import Study


@dataclass(frozen=True)
class Question:
    """One target in one image, with the gaze that asks for it."""

    study: Study = field(repr=False)
    image: StudyImage
    target: Target
    pseudomask: PseudoMask = field(repr=False)
    preset: Preset = field(repr=False)
    """With the attributes that can be asked of this image."""
    view: ViewSettings
    conditions: tuple[str, ...] = ()

    @functools.cached_property
    def region(self) -> npt.NDArray[np.bool_]:
        """(H, W) the broad level."""
        region: npt.NDArray[np.bool_] = self.pseudomask.level_map >= 1
        return region

    @functools.cached_property
    def region_sha256(self) -> str:
        """Hash of the broad level."""
        return region_sha256(self.region)

    @functools.cached_property
    def gaze_sha256(self) -> str:
        """Hash of the gazed region, the heatmap and the fixations."""
        mask = self.pseudomask
        digest = hashlib.sha256(self.region_sha256.encode())
        for values in (mask.heatmap, mask.xy_px, mask.duration_ms):
            digest.update(np.ascontiguousarray(values).tobytes())
        return digest.hexdigest()

    def pixels(self) -> npt.NDArray[np.float32]:
        """Read the image (H, W, C) in 0..1.

        Raises
        ------
        UserError
            If it cannot be read or its size is not the pseudo-mask's.
        """
        pixels = self.study.guide(self.image)
        if pixels.shape[:2] != self.region.shape:
            raise UserError(
                f"{self.study.image_path(self.image)} and its pseudo-mask differ in size; make the pseudo-masks again."
            )
        return pixels

    def asked_sha256(self, backend: str, model: str, prompt: str) -> str:
        """Hash of all that decides the answer: the same question to the same model is not asked twice."""
        parts = [
            backend, model, prompt, self.image.sha256, self.gaze_sha256, self.target.id, repr(self.view),
            json.dumps(self.preset.schema(), sort_keys=True),
        ]  # fmt: skip
        return hashlib.sha256("\0".join(parts).encode()).hexdigest()


def region_sha256(region: npt.NDArray[np.bool_]) -> str:
    """Hash of a region (H, W), by which an explanation knows whether it is of the present one."""
    header = f"{region.shape[0]}x{region.shape[1]}:".encode()
    return hashlib.sha256(header + np.packbits(region).tobytes()).hexdigest()


def build_prompt(question: Question) -> str:
    """Fill the preset's prompt with the target, the gaze in words, what is drawn, and the vocabulary."""
    return string.Template(question.preset.prompt).substitute(
        modality=plain_text(question.image.modality, 60),
        target=plain_text(question.target.name, 60),
        gaze=gaze_in_words(question.pseudomask) if question.view.fixations_in_words else "",
        outline=drawn_in_words(question),
        vocabulary=vocabulary_in_words(question.preset),
    )


def drawn_in_words(question: Question) -> str:
    """Say what is drawn into the picture, and what of the image it shows."""
    if not question.region.any():
        return ""
    return "A cyan contour in the picture encloses where the gaze dwelt."


def vocabulary_in_words(preset: Preset) -> str:
    """List the attributes, what may be said of each, and what it means."""
    lines = []
    for one in preset.attributes:
        words = " | ".join(json.dumps(word) for word in one.words) or "a text"
        number = {"percent": "a number from 0 to 100 | ", "millimetres": "a number | "}.get(one.kind, "")
        lines.append(f'- "{one.name}": {number}{words}. {one.description}')
    return "\n".join(lines)


def gaze_in_words(pseudomask: PseudoMask, longest: int = 5) -> str:
    """Tell how often, how long and where somebody looked; the longest fixations by place, longest first."""
    count = len(pseudomask.duration_ms)
    if not count:
        return "No fixation fell on it."
    height, width = pseudomask.level_map.shape
    order = np.argsort(-pseudomask.duration_ms, kind="stable")[:longest]
    places = []
    for index in order:
        x, y = (pseudomask.xy_px[index] + 0.5) / (width, height)
        place = f"{grid_word(float(x), float(y))} ({x:.0%} from the left, {y:.0%} from the top)"
        places.append(f"{place} for {pseudomask.duration_ms[index] / 1000:.1f} s")
    total_s = float(pseudomask.duration_ms.sum()) / 1000
    times = "once" if count == 1 else f"{count} times"
    return f"The gaze rested {times}, {total_s:.1f} s in all; longest: {'; '.join(places)}."
