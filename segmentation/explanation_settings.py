"""How a study's images are explained: by which preset, and what a model is shown."""

from __future__ import annotations

import dataclasses
import re
from dataclasses import dataclass, field
from typing import Any, Literal, get_args

from gaze_capture.errors import UserError
from gaze_capture.storage import read_json, write_json_atomic
from segmentation.explanation_presets import GENERIC, SCALE, Preset, load_preset
from segmentation.records import SCHEMA, StudyImage, refuse_newer
from segmentation.study import Study

SETTINGS_NAME = "explanations.json"

MINILM = "all-MiniLM-L6-v2"
"""The text encoder of studies that have chosen none."""

Drawn = Literal["contour", "heatmap", "both", "nothing"]
DRAWN: tuple[Drawn, ...] = get_args(Drawn)


@dataclass(frozen=True)
class ViewSettings:
    """What a vision-language model is shown of an image and its gaze.

    Raises
    ------
    UserError
        If a value makes no sense; the sentence names it.
    """

    drawn: Drawn = "contour"
    """How the gaze is drawn into the picture: the broad level's contour, a blend of the heatmap, both, or nothing."""
    crop_margin: float | None = None
    """Show only the box around the broad level, widened on each side by this share of its size; None: all."""
    fixations_in_words: bool = True
    """Whether the prompt lists the longest fixations."""
    side_px: int = 1024
    """Pictures are sent at most this large."""
    mask_text: bool = False
    """Blank what looks like text in the pixels before the picture is made."""

    def __post_init__(self) -> None:
        if self.drawn not in DRAWN:
            raise UserError(f"Gaze can be drawn as {', '.join(DRAWN)}, not {self.drawn!r}.")
        if self.crop_margin is not None and not 0 <= self.crop_margin <= 10:
            raise UserError(f"The margin of the crop should be between 0 and 10, not {self.crop_margin}.")
        if type(self.side_px) is not int or not 64 <= self.side_px <= 4096:
            raise UserError(f"Pictures should be sent at 64 to 4096 px, not {self.side_px}.")
        for name in ("fixations_in_words", "mask_text"):
            if type(getattr(self, name)) is not bool:
                raise UserError(f"{name} is true or false, not {getattr(self, name)!r}.")


@dataclass(frozen=True)
class EncoderChoice:
    """A text encoder from a folder, as a study knows it; where the folder lies is each computer's own affair.

    Raises
    ------
    UserError
        If these are not a name, a hash and a width.
    """

    name: str
    sha256: str
    """Hash of its weights."""
    width: int
    """Numbers in a vector."""

    def __post_init__(self) -> None:
        # All three become part of file names and shapes.
        if not (isinstance(self.name, str) and self.name and isinstance(self.sha256, str)):
            raise UserError("a text encoder needs a name and a hash")
        if not re.fullmatch("[0-9a-f]{64}", self.sha256) or type(self.width) is not int or self.width < 1:
            raise UserError(f"the hash or the width of the text encoder {self.name} is none")


@dataclass(frozen=True)
class ExplanationSettings:
    """How the images of a study are explained."""

    preset: str = GENERIC
    stated: tuple[str, ...] = ()
    """Techniques that the study states, such as ``NBI``: they open attributes that make no sense without."""
    view: ViewSettings = field(default_factory=ViewSettings)
    encoder: EncoderChoice | None = None
    """What turns phrases into vectors; None stands for MiniLM."""


def load_settings(study: Study) -> ExplanationSettings:
    """Return a study's settings, or the usual ones where it has none.

    Raises
    ------
    UserError
        If the file is damaged or a newer version wrote it.
    """
    path = study.folder / SETTINGS_NAME
    if not path.exists():
        return ExplanationSettings()
    values = read_json(path)
    refuse_newer(path, values)
    try:
        if not isinstance(values["stated"], list):
            raise TypeError("stated is no list")
        encoder = values.get("encoder")
        return ExplanationSettings(
            str(values["preset"]),
            tuple(map(str, values["stated"])),
            ViewSettings(**values["view"]),
            EncoderChoice(**encoder) if encoder is not None else None,
        )
    except (KeyError, TypeError, UserError) as error:
        raise UserError(f"{path} is damaged ({error}). Delete it to start from the usual settings.") from None


def save_settings(study: Study, settings: ExplanationSettings) -> None:
    """Store a study's settings.

    Raises
    ------
    UserError
        If there is no such preset, it is none, a technique is not the preset's, or the study cannot be written.
    """
    preset = load_preset(settings.preset, study.folder)
    for technique in settings.stated:
        if technique not in preset.techniques:
            known = ", ".join(preset.techniques) or "none"
            raise UserError(f"The preset {preset.id} knows no technique {technique!r}; it knows: {known}.")
    values: dict[str, Any] = {"schema": SCHEMA, **dataclasses.asdict(settings)}
    write_json_atomic(study.folder / SETTINGS_NAME, values, within=study.folder)


def conditions_of(image: StudyImage, settings: ExplanationSettings) -> tuple[str, ...]:
    """Return the conditions of attributes that an image meets: what the study states, and having a scale."""
    return (*settings.stated, *([SCALE] if image.spacing_mm is not None else []))


def preset_for(study: Study, image: StudyImage, settings: ExplanationSettings) -> Preset:
    """Return the study's preset with the attributes that can be asked of an image."""
    return load_preset(settings.preset, study.folder).under(conditions_of(image, settings))
