"""The report's drawings, as inline SVG: overlays on images, a histogram, a curve."""

from __future__ import annotations

import base64
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import cv2
import numpy as np
import numpy.typing as npt

from gaze_capture.errors import UserError
from gaze_capture.fixations import Fixations
from segmentation.images import resize

Mask = npt.NDArray[np.bool_]

LONGEST_SIDE_PX = 420
"""Images are embedded at most this large; outlines keep the resolution of the mask."""
JPEG_QUALITY = 86


@dataclass(frozen=True)
class Overlay:
    """What is drawn on one image; masks are (H, W) on its own grid."""

    read: Callable[[], npt.NDArray[np.uint8]]
    """Reads the image (H, W, 3); UserError where it cannot."""
    fixations: tuple[Fixations, ...] = ()
    levels: tuple[Mask, ...] = ()
    """Highest threshold first."""
    student: Mask | None = None
    truth: Mask | None = None
    reviewed: Mask | None = None


def overlay_figure(overlay: Overlay) -> str:
    """Draw gaze and pseudo-mask on the left, the student's and the true outline on the right.

    An image that cannot be read any more leaves a sentence in its place.
    """
    try:
        pixels = overlay.read()
    except UserError as error:
        return f'<p class="explained">{_text(str(error))}</p>'
    height, width = pixels.shape[:2]
    gap = round(width * 0.02)
    picture = (
        f'<image href="{_data_url(pixels)}" width="{width}" height="{height}" preserveAspectRatio="none"/>'
    )
    left = picture
    for number, mask in enumerate(overlay.levels):
        left += _outline(mask, "level" if number == 0 else "level lower")
    for fixations in overlay.fixations:
        left += _scanpath(fixations, (height, width))
    right = picture
    if overlay.truth is not None:
        right += _outline(overlay.truth, "truth")
    if overlay.student is not None:
        right += _outline(overlay.student, "student")
    if overlay.reviewed is not None:
        right += _outline(overlay.reviewed, "reviewed")
    if overlay.truth is None and overlay.student is None and overlay.reviewed is None:
        return f'<svg viewBox="0 0 {width} {height}" role="img">{left}</svg>'
    return (
        f'<svg viewBox="0 0 {2 * width + gap} {height}" role="img">'
        f'<svg width="{width}" height="{height}">{left}</svg>'
        f'<svg x="{width + gap}" width="{width}" height="{height}">{right}</svg></svg>'
    )


_MASKS = (
    ("level", "highest level"),
    ("level lower", "lower levels"),
    ("student", "student"),
    ("truth", "true mask"),
)


def legend(*masks: tuple[str, str]) -> str:
    """Return the key to the overlays' lines; of masks those given as (style, name), by default of the gallery."""

    def line(style: str) -> str:
        path = '<path class="overlay {}" d="M3 6H27"/>'
        return f'<svg viewBox="0 0 30 12">{path.format("halo")}{path.format(style)}</svg>'

    dot = '<svg viewBox="0 0 30 12"><circle class="fixation" cx="15" cy="6" r="4.5"/></svg>'
    entries = [(dot, "fixation, area by duration"), *((line(style), name) for style, name in masks or _MASKS)]
    return f'<p class="legend">{"".join(f"<span>{mark}{name}</span>" for mark, name in entries)}</p>'


def histogram(scores: Sequence[float], bins: int = 20) -> str:
    """Draw how many images reached which score (0..1), with a mark at the mean."""
    counts, _ = np.histogram(scores, bins=bins, range=(0, 1))
    width, height, base = 1000, 150, 126
    step = width / bins
    bars = "".join(
        f'<rect class="bar" x="{i * step + 2:.1f}" y="{base - (tall := 104 * count / counts.max()):.1f}" '
        f'width="{step - 4:.1f}" height="{tall:.1f}" rx="2"><title>{count} images</title></rect>'
        for i, count in enumerate(counts)
        if count
    )
    mean = float(np.mean(scores))
    anchor = "end" if mean > 0.5 else "start"
    offset = -6 if mean > 0.5 else 6
    mark = (
        f'<path class="mark" d="M{mean * width:.1f} 6V{base}"/>'
        f'<text x="{mean * width + offset:.1f}" y="14" text-anchor="{anchor}">mean {mean:.3f}</text>'
    )
    return (
        f'<svg viewBox="0 0 {width} {height}" role="img">{bars}<path class="axis" d="M0 {base}H{width}"/>{mark}'
        + _ticks([(value * width, f"{value:g}") for value in (0, 0.25, 0.5, 0.75, 1)], width, height)
        + "</svg>"
    )


def curve(points: Sequence[tuple[float, float]], most_points: int = 400) -> str:
    """Draw values (x, y) as one line, thinned by averaging to `most_points`."""
    data = np.asarray(points, dtype=np.float64)
    x_low, x_high = float(data[0, 0]), float(data[-1, 0])
    chunks = np.array_split(data, min(most_points, len(data)))
    data = np.array([chunk.mean(axis=0) for chunk in chunks])
    width, height, base = 1000, 190, 166
    y_low, y_high = float(data[:, 1].min()), float(data[:, 1].max())
    x = (data[:, 0] - x_low) / max(x_high - x_low, 1e-12) * width
    y = base - (data[:, 1] - min(y_low, 0)) / max(y_high - min(y_low, 0), 1e-12) * (base - 12)
    path = "M" + "L".join(f"{a:.1f} {b:.1f}" for a, b in zip(x, y, strict=True))
    labels = [(0.0, f"{x_low:,.0f}"), (float(width), f"{x_high:,.0f}")]
    return (
        f'<svg viewBox="0 0 {width} {height}" role="img"><path class="axis" d="M0 {base}H{width}"/>'
        f'<path class="line" d="{path}"/>'
        f'<text x="{width}" y="12" text-anchor="end">{y_high:.3g} → {float(data[-1, 1]):.3g}</text>'
        + _ticks(labels, width, height)
        + "</svg>"
    )


def _ticks(places: Sequence[tuple[float, str]], width: int, height: int) -> str:
    marks = ""
    for x, text in places:
        anchor = "start" if x <= 0 else "end" if x >= width else "middle"
        marks += f'<text x="{x:.1f}" y="{height - 4}" text-anchor="{anchor}">{text}</text>'
    return marks


def _text(text: str) -> str:
    return text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")


def _data_url(pixels: npt.NDArray[np.uint8]) -> str:
    scale = min(1.0, LONGEST_SIDE_PX / max(pixels.shape[:2]))
    small = resize(pixels, max(1, round(pixels.shape[0] * scale)), max(1, round(pixels.shape[1] * scale)))
    ok, data = cv2.imencode(".jpg", small[:, :, ::-1], [cv2.IMWRITE_JPEG_QUALITY, JPEG_QUALITY])
    if not ok:
        raise ValueError("an image that JPEG cannot hold")
    return "data:image/jpeg;base64," + base64.b64encode(data.tobytes()).decode()


def _outline(mask: Mask, style: str) -> str:
    """Trace a mask's outlines, holes too, along the pixels' outer edge, with a dark halo below the line."""
    height, width = mask.shape
    # Traced at double size, a contour runs half a pixel from the true edge instead of through pixel centres.
    double = np.repeat(np.repeat(mask.astype(np.uint8), 2, axis=0), 2, axis=1)
    contours, _ = cv2.findContours(double, cv2.RETR_CCOMP, cv2.CHAIN_APPROX_NONE)
    parts = []
    tolerance = max(height, width) / 300
    for contour in contours:
        points = cv2.approxPolyDP(contour, 2 * tolerance, True)[:, 0, :] / 2 + 0.25
        if len(points) > 2:
            parts.append("M" + "L".join(f"{x:.4g} {y:.4g}" for x, y in points) + "Z")
    if not parts:
        return ""
    path = "".join(parts)
    return f'<path class="overlay halo" d="{path}"/><path class="overlay {style}" d="{path}"/>'


def _scanpath(fixations: Fixations, shape: tuple[int, int]) -> str:
    height, width = shape
    # Pixel centres are whole numbers in fixations; an SVG's pixel 0 reaches from 0 to 1.
    places = fixations.xy_px + 0.5
    unit = max(height, width) * 0.02
    line = "M" + "L".join(f"{x:.1f} {y:.1f}" for x, y in places) if len(places) > 1 else ""
    dots = "".join(
        f'<circle class="fixation" cx="{x:.1f}" cy="{y:.1f}" r="{unit * math.sqrt(max(duration, 0) / 250):.1f}">'
        f"<title>{duration:.0f} ms</title></circle>"
        for (x, y), duration in zip(places, fixations.duration_ms, strict=True)
    )
    return (f'<path class="overlay scanpath" d="{line}"/>' if line else "") + dots
