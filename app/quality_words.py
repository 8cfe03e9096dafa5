"""How well gaze was measured, in words; the numbers and their gates are gaze_capture's."""

from __future__ import annotations

import math
from typing import Literal, NamedTuple

from PySide6.QtCore import QCoreApplication

from gaze_capture.calibration import DriftCheck, DriftVerdict, smallest_lesion, unseen_eyes
from gaze_capture.quality import (
    DATA_LOSS,
    MAX_ERROR_DEG,
    MEAN_ERROR_DEG,
    RMS_S2S_DEG,
    Validation,
    Verdict,
)
from gaze_capture.recording import Eyes, ScreenGeometry

translate = QCoreApplication.translate


class Sign(NamedTuple):
    """A state that is told by word, icon and colour together."""

    title: str
    icon: str
    token: str


def verdict_sign(verdict: Verdict) -> Sign:
    """Return how a validation's verdict is shown."""
    return {
        "pass": Sign(translate("QualityWords", "Good"), "check-circle", "accent"),
        "warn": Sign(translate("QualityWords", "Usable, with care"), "warning", "warning"),
        "recalibrate": Sign(translate("QualityWords", "Calibrate again"), "x-circle", "danger"),
    }[verdict]


def gate_sign(value: float, gate: tuple[float, float], *, must_hold: bool = True) -> Sign:
    """Return how one number is shown beside its gate: what passes, and what is still accepted."""
    good, fair = gate
    if value <= good:
        return verdict_sign("pass")
    return verdict_sign("warn" if value <= fair or not must_hold else "recalibrate")


def verdict_reasons(validation: Validation) -> str:
    """Return what keeps a validation from passing, in a sentence or two; what a good one allows if nothing does."""
    eyes = unseen_eyes(validation)
    if len(eyes) == 2 or (validation.eyes != "both" and eyes):
        return translate(
            "QualityWords", "The eyes were hardly seen: look for hair, glare or a frame before them."
        )
    told = []
    if not math.isfinite(validation.mean_error_deg):
        told.append(translate("QualityWords", "A target was never seen being looked at."))
    else:
        told += [
            text.format(value=degrees_text(value), limit=degrees_text(gate[0]))
            for value, gate, text in (
                (
                    validation.mean_error_deg,
                    MEAN_ERROR_DEG,
                    translate("QualityWords", "The mean error is {value}; good is up to {limit}."),
                ),
                (
                    validation.max_error_deg,
                    MAX_ERROR_DEG,
                    translate("QualityWords", "The worst target is off by {value}; good is up to {limit}."),
                ),
                (
                    validation.rms_s2s_deg,
                    RMS_S2S_DEG,
                    translate("QualityWords", "The noise is {value}; good is up to {limit}."),
                ),
            )
            if not value <= gate[0]
        ]
    if not validation.data_loss <= DATA_LOSS[0]:
        told.append(
            translate("QualityWords", "{value} of the gaze was lost; good is up to {limit}.").format(
                value=percent_text(validation.data_loss), limit=percent_text(DATA_LOSS[0])
            )
        )
    if len(eyes) == 1:
        side = translate("QualityWords", "left") if eyes[0] == "left" else translate("QualityWords", "right")
        told.append(
            translate(
                "QualityWords", "The {side} eye was hardly seen: better calibrate the other one alone."
            ).format(side=side)
        )
    return " ".join(told) or translate(
        "QualityWords", "Accuracy, noise and loss are all within what good masks need."
    )


def lesion_words(
    validation: Validation,
    geometry: ScreenGeometry,
    degrees_per_image_px: float | None = None,
    spacing_mm: float | None = None,
) -> str:
    """Return what size of lesion the accuracy supports; empty where a target was never seen."""
    size = smallest_lesion(validation, geometry, degrees_per_image_px, spacing_mm)
    if size is None:
        return ""
    degrees, mm = f"{size.degrees:.1f}°", f"{size.screen_mm:.0f}"
    if size.image_px is None:
        words = translate(
            "QualityWords", "Accurate enough for lesions from {degrees} across ({mm} mm on the screen)."
        )
        return words.format(degrees=degrees, mm=mm)
    px = f"{size.image_px:.0f}"
    if size.image_mm is None:
        words = translate(
            "QualityWords",
            "Accurate enough for lesions from {degrees} across ({mm} mm on the screen, {px} pixels of the image).",
        )
        return words.format(degrees=degrees, mm=mm, px=px)
    words = translate(
        "QualityWords",
        "Accurate enough for lesions from {degrees} across ({mm} mm on the screen, {px} pixels or {body_mm} mm in "
        "the image).",
    )
    return words.format(degrees=degrees, mm=mm, px=px, body_mm=f"{size.image_mm:.1f}")


def drift_sign(verdict: DriftVerdict) -> Sign:
    """Return how a drift check's verdict is shown."""
    return {
        "ok": Sign(translate("QualityWords", "No drift to speak of"), "check-circle", "accent"),
        "revalidate": Sign(translate("QualityWords", "Validate again"), "warning", "warning"),
        "recalibrate": Sign(translate("QualityWords", "Calibrate again"), "x-circle", "danger"),
    }[verdict]


def drift_words(check: DriftCheck) -> str:
    """Return how far gaze drifted, and where to."""
    x, y = check.offset_deg
    across = translate("QualityWords", "right") if x > 0 else translate("QualityWords", "left")
    along = translate("QualityWords", "down") if y > 0 else translate("QualityWords", "up")
    return translate(
        "QualityWords", "Gaze lies {distance} from the anchor ({x} {across}, {y} {along})."
    ).format(
        distance=degrees_text(check.distance_deg),
        x=degrees_text(abs(x)),
        across=across,
        y=degrees_text(abs(y)),
        along=along,
    )


def eyes_words(eyes: Eyes) -> str:
    """Return which eyes count."""
    return {
        "both": translate("QualityWords", "Both eyes"),
        "left": translate("QualityWords", "Left eye"),
        "right": translate("QualityWords", "Right eye"),
    }[eyes]


def side_words(side: Literal["left", "right"]) -> str:
    """Return an eye's name in a table."""
    return translate("QualityWords", "Left") if side == "left" else translate("QualityWords", "Right")


def degrees_text(value: float) -> str:
    """Return an angle for people, a dash where there is none."""
    return f"{value:.2f}°" if math.isfinite(value) else "–"


def percent_text(share: float) -> str:
    """Return a share for people."""
    return f"{100 * share:.0f} %" if math.isfinite(share) else "–"


def error_token(error_deg: float) -> str:
    """Return the colour of one target's error."""
    return gate_sign(error_deg, MAX_ERROR_DEG).token if math.isfinite(error_deg) else "danger"
