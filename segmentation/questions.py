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
from segmentation.burned_in_text import text_boxes
from segmentation.explanation_presets import Preset
from segmentation.explanation_settings import ViewSettings
from segmentation.measured import grid_word
from segmentation.pseudomask import PseudoMask
from segmentation.records import StudyImage, Target
from segmentation.reply import plain_text
from segmentation.study import Study
from segmentation.view_geometry import Box, box_shown


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

    @functools.cached_property
    def box(self) -> Box:
        """The part of the image that is shown."""
        return box_shown(self.region, self.view)

    @functools.cached_property
    def blanked(self) -> tuple[Box, ...]:
        """Rectangles of the image that are filled in the picture, because they look like text.

        Raises
        ------
        UserError
            If text is to be blanked, the image is marked for it, and none was found: the picture cannot be made as
            the study wants it. Or if the image cannot be read.
        """
        if not self.view.mask_text:
            return ()
        boxes = text_boxes(self.study.shown(self.image))
        if self.image.burned_in and not boxes:
            raise UserError(
                f"{self.image.id} is marked for text in its pixels ({self.image.burned_in}), but none was found to "
                f"blank; look at it and blank it, or say that there is none, with: gaze-insight blank "
                f"{self.study.folder} {self.image.id}"
            )
        return boxes

    @functools.cached_property
    def prompt(self) -> str:
        """The words that a model is asked with."""
        return build_prompt(self)

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
    """Say what is drawn into the picture, which part of the image it is, and what was blanked.

    Location and area are asked of the whole image, also where the picture is a part of it: that is what they are
    checked against and what the other words (fixations, earlier explanations) refer to. The model is told where the
    picture lies in the image, and how to convert.
    """
    said = [_gaze_drawn(question)]
    if question.box != (0, 0, question.region.shape[1], question.region.shape[0]):
        said.append(_crop_in_words(question))
    if question.view.mask_text:
        said.append(blanked_in_words(question))
    return " ".join(filter(None, said))


def _gaze_drawn(question: Question) -> str:
    drawn = question.view.drawn
    if drawn == "nothing":
        return "Nothing is drawn into the picture."
    said = []
    if drawn in ("heatmap", "both") and question.pseudomask.heatmap.max(initial=0) > 0:
        said.append(
            "A translucent overlay shows how long the gaze dwelt where: purple for a short time, green for longer, "
            "yellow for the longest. These colours are not the tissue's."
        )
    if drawn in ("contour", "both") and question.region.any():
        said.append("A cyan contour in the picture encloses where the gaze dwelt.")
    return " ".join(said)


def _crop_in_words(question: Question) -> str:
    x, y, across, down = question.box
    height, width = question.region.shape
    left, top, share_x, share_y = x / width, y / height, across / width, down / height
    return (
        f"The picture is a part of the image: it spans {left:.0%} to {left + share_x:.0%} of the whole image's width, "
        f"from the left, and {top:.0%} to {top + share_y:.0%} of its height, from the top, and so covers "
        f"{share_x * share_y:.2%} of its area. Places and shares of area, above and in your answer, are those of the "
        f"whole image: what fills half of this picture fills {share_x * share_y / 2:.2%} of the image."
    )


def blanked_in_words(question: Question) -> str:
    """Say what was blanked in the picture, and how much of the gazed region that hides; nothing where nothing was."""
    boxes = [box for box in question.blanked if _overlaps(box, question.box)]
    if not boxes:
        return ""
    count = "One rectangle" if len(boxes) == 1 else f"{len(boxes)} rectangles"
    verb = "was" if len(boxes) == 1 else "were"
    said = (
        f"{count} of the picture {verb} filled with grey to hide what looks like text; do not describe them."
    )
    if share := blanked_share(question):
        said += f" They hide {max(share, 0.001):.1%} of the region that was looked at."
    return said


def blanked_share(question: Question) -> float:
    """Return how much of the broad level is blanked, 0..1."""
    covered = np.zeros_like(question.region)
    for x, y, width, height in question.blanked:
        covered[y : y + height, x : x + width] = True
    size = int(question.region.sum())
    return int((covered & question.region).sum()) / size if size else 0.0


def _overlaps(one: Box, other: Box) -> bool:
    return (
        one[0] < other[0] + other[2]
        and other[0] < one[0] + one[2]
        and one[1] < other[1] + other[3]
        and other[1] < one[1] + one[3]
    )


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
