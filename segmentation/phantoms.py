"""Procedural images with a known mask, so that the whole day can be tried without anyone's data.

Three kinds: a polyp-like dome in an endoscopic view, a pigmented lesion on skin, a gland in an MRI slice. They
are plausible, not anatomical: enough structure that a colour threshold fails and that a network has to look at
form. About one image in seven shows everything but the target, unless asked otherwise.

For a volume in slices see :mod:`segmentation.prostate`.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import cv2
import numpy as np
import numpy.typing as npt

from gaze_capture.storage import write_bytes_atomic
from segmentation.images import encode_mask
from segmentation.procedural import Field, Grid, Picture, blend, colour, lines, ramp
from segmentation.progress import Progress, no_progress

Kind = Literal["polyp", "lesion", "gland"]
KINDS: tuple[Kind, ...] = ("polyp", "lesion", "gland")

ABSENT_SHARE = 0.15
"""Share of phantoms that show no target."""

_Drawn = tuple[Picture, npt.NDArray[np.bool_]]


@dataclass(frozen=True)
class Phantom:
    """A made-up image and what is to be found in it."""

    image: npt.NDArray[np.uint8]
    """(S, S, 3) RGB, or (S, S, 1) for the MRI-like kind."""
    mask: npt.NDArray[np.bool_]
    """(S, S), empty where the target is absent."""
    kind: Kind
    seed: int


def make_phantom(
    seed: int, kind: Kind | None = None, size_px: int = 192, absent_share: float = ABSENT_SHARE
) -> Phantom:
    """Draw one phantom; the same arguments give the same pixels.

    Parameters
    ----------
    seed
        Chooses everything: kind (unless given), presence, place, size, contrast and disturbances.
    kind
        What is drawn; None lets the seed choose.
    size_px
        Side of the square image, at least 32.
    absent_share
        How probable it is that the target is absent, 0..1.

    Raises
    ------
    ValueError
        If the size is below 32 pixels, the kind is unknown or the share is none.
    """
    if not 0 <= absent_share <= 1:
        raise ValueError(f"a share lies between 0 and 1, not at {absent_share}")
    if size_px < 32:
        raise ValueError(f"a phantom of {size_px} pixels has no room for a target; use at least 32")
    rng = np.random.default_rng([seed, 20250415])
    chosen = KINDS[int(rng.integers(len(KINDS)))]
    kind = kind or chosen
    present = bool(rng.random() >= absent_share)
    try:
        draw = _DRAW[kind]
    except KeyError:
        raise ValueError(f"unknown kind {kind!r}; known: {', '.join(KINDS)}") from None
    values, mask = draw(rng, Grid(size_px), present)
    image = np.rint(np.clip(values, 0, 1) * 255).astype(np.uint8)
    return Phantom(image if image.ndim == 3 else image[:, :, np.newaxis], mask, kind, seed)


def write_phantoms(
    folder: Path,
    count: int,
    seed: int = 0,
    size_px: int = 192,
    kinds: Sequence[Kind] = KINDS,
    prefix: str = "phantom",
    absent_share: float = ABSENT_SHARE,
    progress: Progress = no_progress,
) -> tuple[Path, Path]:
    """Write phantoms as ``folder/images/*.png`` and ``folder/masks/*.png`` of the same names.

    Kinds take turns. Images of one call and seed never depend on `count`.

    Returns
    -------
    The folder of images and the folder of masks.
    """
    for index in range(count):
        progress(index, count, prefix)
        kind = kinds[index % len(kinds)]
        # Ten million apart: sets drawn from neighbouring seeds share no image.
        phantom = make_phantom(seed * 10_000_000 + index, kind, size_px, absent_share)
        name = f"{prefix}-{kind}-{index:04d}.png"
        write_bytes_atomic(folder / "images" / name, _encode_png(phantom.image))
        write_bytes_atomic(folder / "masks" / name, encode_mask(phantom.mask))
    return folder / "images", folder / "masks"


def _encode_png(image: npt.NDArray[np.uint8]) -> bytes:
    pixels = image[:, :, ::-1] if image.shape[2] == 3 else image
    return bytes(cv2.imencode(".png", pixels)[1])


def _place(
    rng: np.random.Generator, taken: Sequence[tuple[float, float, float]], radius: float, reach: float
) -> tuple[float, float] | None:
    """Find a centre within `reach` of the middle that keeps clear of (x, y, radius) places, or None."""
    for _ in range(12):
        x, y = rng.uniform(-reach, reach, 2)
        if all(math.hypot(x - tx, y - ty) > radius + tr + 0.04 for tx, ty, tr in taken):
            return float(x), float(y)
    return None


def _count_of_targets(rng: np.random.Generator) -> int:
    return int(rng.choice(3, p=(0.5, 0.3, 0.2))) + 1


def _draw_polyp(rng: np.random.Generator, grid: Grid, present: bool) -> _Drawn:
    """Mucosa with folds round a dark lumen, lit from the camera; the target is a dome on it."""
    lumen_x, lumen_y = rng.uniform(-0.7, 0.7), rng.uniform(-0.7, 0.7)
    open_lumen = rng.random() < 0.65
    dx, dy = (grid.x - lumen_x) * rng.uniform(0.8, 1.2), grid.y - lumen_y
    depth = np.sqrt(dx * dx + dy * dy) * (1 + 0.1 * grid.noise(rng, 3)) + 0.04 * grid.noise(rng, 6)
    turn = np.arctan2(dy, dx)
    folds = np.zeros_like(depth)
    position = rng.uniform(0.3, 0.5)
    for _ in range(int(rng.integers(2, 5))):
        extent = ramp(np.cos(turn - rng.uniform(0, 2 * math.pi)), rng.uniform(-1.2, 0.2), 0.7)
        width = rng.uniform(0.07, 0.15)
        # A fold rises slowly towards the camera and falls off steeply towards the lumen.
        side = depth - position
        side *= np.where(side < 0, np.float32(1 / (0.4 * width)), np.float32(1 / (1.6 * width)))
        folds += rng.uniform(0.05, 0.11) * np.exp(-side * side) * extent
        position += rng.uniform(0.28, 0.5)
    height = 0.035 * grid.fractal(rng, 3, 4, 0.45) + folds

    hue = rng.uniform(0, 1)
    mucosa = (1 - hue) * colour(0.80, 0.45, 0.38) + hue * colour(0.86, 0.60, 0.42)
    mucosa = mucosa * np.float32(rng.uniform(0.85, 1.05))
    albedo = np.empty((grid.size, grid.size, 3), np.float32)
    albedo[:] = mucosa
    mottle = grid.fractal(rng, 4, 4, 0.6)
    albedo *= 1 + mottle[:, :, np.newaxis] * colour(0.02, 0.07, 0.06)
    vessels = grid.blur(lines(rng, grid, int(rng.integers(3, 14)), 1.1, 0.3, 0.0, (0.004, 0.016)), 0.008)
    blend(albedo, mucosa * colour(0.82, 0.5, 0.5), vessels * np.float32(rng.uniform(0.25, 0.6)))

    # The target's colour may be redder, paler or hardly different; flat patches wear the same colour.
    shift = colour(
        *rng.choice(np.array([[0.98, 0.66, 0.7], [1.1, 1.28, 1.34], [0.9, 0.74, 0.78], [1.0, 0.9, 0.9]]))
    )
    taken: list[tuple[float, float, float]] = []
    mask = np.zeros((grid.size, grid.size), bool)
    dome_gloss = np.zeros((grid.size, grid.size), np.float32)
    for number in range(_count_of_targets(rng) if present else 0):
        spread = (0.17, 0.29, 0.55) if number == 0 else (0.13, 0.18, 0.27)
        radius = float(np.clip(rng.lognormal(math.log(spread[1]), 0.3), spread[0], spread[2]))
        centre = _place(rng, taken, radius, 0.55 if number == 0 else 0.7)
        if centre is None:
            continue
        taken.append((*centre, radius))
        f = grid.bulge(rng, centre, radius, rng.uniform(1.0, 1.6), rng.uniform(0, math.pi), 0.12, 0.02)
        mask |= f < 1
        inside = ramp(f, 1.06, 0.9)
        lobes = 1 + rng.uniform(0.03, 0.12) * grid.fractal(rng, 1.6 / radius, 3)
        # Steep at the foot, flat on top, and it hides the folds behind it.
        dome = (1 - np.clip(f, 0, 1) ** rng.uniform(2.0, 3.0)) * lobes
        height = height * (1 - 0.9 * inside) + rng.uniform(0.4, 0.65) * radius * dome
        pits = grid.noise(rng, min(60, 7 / radius))
        blend(albedo, albedo * shift * (1 + 0.05 * pits[:, :, np.newaxis]), inside)
        # Contact shadow: the mucosa close around a dome gets less light.
        albedo *= 1 - np.float32(0.28) * (ramp(f, 1.35, 1.0) * (1 - inside))[:, :, np.newaxis]
        dome_gloss += 0.6 * inside
    domes = tuple(taken)
    for _ in range(int(rng.integers(0, 3))):
        radius = rng.uniform(0.06, 0.16)
        spot = _place(rng, taken, radius, 0.8)
        if spot:
            taken.append((*spot, radius))
            f = grid.bulge(rng, spot, radius, rng.uniform(1, 1.8), rng.uniform(0, math.pi), 0.2, 0.1)
            blend(albedo, albedo * shift, ramp(f, 1.2, 0.7))
    if rng.random() < 0.3:
        residue = ramp(grid.fractal(rng, 3, 4), 1.3, 1.9)
        blend(albedo, colour(0.62, 0.52, 0.2), 0.7 * residue * (1 - mask))

    step = np.float32(grid.size / 2)
    height = grid.blur(height, 0.008)
    slope_x = cv2.Sobel(height, cv2.CV_32F, 1, 0, scale=1 / 8) * step
    slope_y = cv2.Sobel(height, cv2.CV_32F, 0, 1, scale=1 / 8) * step
    light = colour(rng.uniform(-0.35, 0.35), rng.uniform(-0.35, 0.35), rng.uniform(0.9, 1.3))
    to_x, to_y, to_z = light[0] - grid.x, light[1] - grid.y, light[2] - height
    reach = np.sqrt(to_x * to_x + to_y * to_y + to_z * to_z)
    facing = (to_z - slope_x * to_x - slope_y * to_y) / (
        reach * np.sqrt(1 + slope_x * slope_x + slope_y * slope_y)
    )
    # Light scattered by the tissue and the opposite wall reaches what the lamp does not.
    lit = np.clip(0.3 + 0.7 * facing, 0.14, 1)
    near = np.clip(light[2] / reach, 0, 1)
    brightness = 1.1 * lit * near * np.sqrt(near)
    if open_lumen:
        brightness *= 1 - 0.9 * ramp(depth, rng.uniform(0.3, 0.5), 0.06) * (1 - mask)
    image = albedo * np.float32(rng.uniform(0.95, 1.2)) * brightness[:, :, np.newaxis]

    # Wet surfaces glint where they face lamp and camera; small bumps break the glint into specks.
    bumps_x, bumps_y = 0.22 * grid.noise(rng, 28), 0.22 * grid.noise(rng, 28)
    tilt_x = slope_x + bumps_x + to_x / (1.4 * reach)
    tilt_y = slope_y + bumps_y + to_y / (1.4 * reach)
    wet = ramp(grid.noise(rng, 5), 0.2, 1.2) + dome_gloss
    glint = (
        ramp(tilt_x * tilt_x + tilt_y * tilt_y, 0.036, 0.004)
        * np.clip(wet, 0, 1)
        * np.clip(3 * brightness, 0, 1)
    )
    blend(image, colour(1.0, 0.97, 0.94), grid.blur(glint, 0.006))

    if rng.random() < 0.35:
        _add_bubbles(rng, grid, image, int(rng.integers(4, 16)), domes)
    rim = np.sqrt(grid.x * grid.x + grid.y * grid.y) * rng.uniform(0.78, 0.98)
    image *= (1 - 0.35 * ramp(rim, 0.4, 1.0))[:, :, np.newaxis]
    if rng.random() < 0.5:
        frame = np.maximum(np.maximum(abs(grid.x), abs(grid.y)), (abs(grid.x) + abs(grid.y)) / 1.6)
        image *= ramp(frame, 0.985, 0.955)[:, :, np.newaxis]
        mask = mask & (frame < 0.97)
    return _finish(rng, grid, image, 0.012, rng.uniform(0.002, 0.009)), mask


def _add_bubbles(
    rng: np.random.Generator,
    grid: Grid,
    image: Picture,
    count: int,
    keep_clear: Sequence[tuple[float, float, float]],
) -> None:
    """Draw clusters of small clear bubbles: a bright ring and a speck of light."""
    middle_x, middle_y = rng.uniform(-0.8, 0.8), rng.uniform(-0.8, 0.8)
    for _ in range(count):
        x, y = middle_x + rng.normal(0, 0.2), middle_y + rng.normal(0, 0.2)
        radius = float(np.clip(rng.lognormal(math.log(0.035), 0.4), 0.02, 0.1))
        if any(math.hypot(x - cx, y - cy) < 0.7 * size for cx, cy, size in keep_clear):
            continue
        rows, columns = grid.span(y, 1.2 * radius), grid.span(x, 1.2 * radius)
        patch = image[rows, columns]
        if not patch.size:
            continue
        dx, dy = grid.x[rows, columns] - x, grid.y[rows, columns] - y
        r = np.hypot(dx, dy) / np.float32(radius)
        ring = np.exp(-(((r - 0.85) / 0.16) ** 2)) * (0.5 - 0.35 * dy / radius)
        speck = np.exp(-((np.hypot(dx + 0.35 * radius, dy + 0.4 * radius) / (0.25 * radius)) ** 2))
        blend(
            patch,
            colour(1, 0.98, 0.93),
            np.clip(0.55 * ring + 0.9 * speck, 0, 1).astype(np.float32) * (r < 1.1),
        )


_HAIRS = ((0, 0), (2, 7), (10, 25))
"""Bare, some and hairy skin: fewest and most hairs."""


def _draw_lesion(rng: np.random.Generator, grid: Grid, present: bool) -> _Drawn:
    """Skin under a dermatoscope with hairs, freckles, bubbles; the target is the pigmented lesion."""
    tone = rng.uniform(0, 1)
    skin = (1 - tone) * colour(0.90, 0.74, 0.67) + tone * colour(0.74, 0.52, 0.40)
    skin = skin * np.float32(rng.uniform(0.88, 1.06)) + rng.normal(0, 0.015, 3).astype(np.float32)
    image = np.empty((grid.size, grid.size, 3), np.float32)
    image[:] = skin
    flush = grid.fractal(rng, 2.2, 3)
    image *= 1 + flush[:, :, np.newaxis] * colour(0.02, 0.05, 0.05)
    # Skin lines: two crossing families of fine furrows.
    furrows = grid.noise(rng, 16, 2.6) * 0.5 + grid.noise(rng, 42, 0.4) * 0.5
    image *= 1 - 0.02 * np.clip(furrows, -1.5, 2)[:, :, np.newaxis]
    pigment_hue = rng.uniform(0, 1)
    pigment = (1 - pigment_hue) * colour(0.42, 0.24, 0.16) + pigment_hue * colour(0.50, 0.30, 0.27)
    strength = float(np.clip(rng.beta(2.4, 1.4), 0.28, 0.95))
    mask = np.zeros((grid.size, grid.size), bool)
    taken: list[tuple[float, float, float]] = []
    for number in range(_count_of_targets(rng) if present else 0):
        spread = (0.18, 0.32, 0.65) if number == 0 else (0.14, 0.19, 0.3)
        radius = float(np.clip(rng.lognormal(math.log(spread[1]), 0.33), spread[0], spread[2]))
        centre = _place(rng, taken, radius, 0.4 if number == 0 else 0.75)
        if centre is None:
            continue
        taken.append((*centre, radius))
        aspect, angle, roughness = rng.uniform(1.0, 1.5), rng.uniform(0, math.pi), rng.uniform(0.03, 0.12)
        f = grid.bulge(rng, centre, radius, aspect, angle, 0.2, roughness)
        mask |= f < 1
        _pigment(rng, grid, image, f, radius, pigment, strength)
    # Freckles and small moles of the same pigment.
    for _ in range(int(rng.integers(2, 9))):
        radius = rng.uniform(0.02, 0.075)
        spot = _place(rng, taken, radius, 0.92)
        if spot:
            f = grid.bulge(rng, spot, radius, rng.uniform(1, 1.3), rng.uniform(0, math.pi), 0.08)
            blend(image, pigment, ramp(f, 1.3, 0.6) * np.float32(strength * rng.uniform(0.5, 1.2)).clip(0, 1))
    if rng.random() < 0.2:
        # Broad tan of the skin itself: dark, but without an outline.
        blend(image, pigment, 0.35 * ramp(grid.noise(rng, 1.6), 0.2, 2.2))
    fewest, most = _HAIRS[int(rng.choice(len(_HAIRS), p=(0.35, 0.4, 0.25)))]
    hairs = int(rng.integers(fewest, most + 1))
    if hairs:
        strands = grid.blur(lines(rng, grid, hairs, rng.uniform(0.9, 1.8), 0.02, 0.8, (0.004, 0.013)), 0.004)
        blend(image, colour(0.16, 0.11, 0.09) * np.float32(rng.uniform(0.7, 1.8)), 0.85 * strands)
    lamp = 1 + grid.slope(rng, 0.14)
    vignette = 1 - rng.uniform(0.15, 0.5) * ramp(np.sqrt(grid.x * grid.x + grid.y * grid.y), 0.55, 1.45)
    image *= (lamp * vignette)[:, :, np.newaxis]
    if rng.random() < 0.3:
        _add_bubbles(rng, grid, image, int(rng.integers(3, 9)), [])
    if rng.random() < 0.3:
        dx, dy = grid.x - rng.uniform(-0.05, 0.05), grid.y - rng.uniform(-0.05, 0.05)
        round_edge = np.sqrt(dx * dx + dy * dy)
        image *= (0.06 + 0.94 * ramp(round_edge, 1.16, 1.06))[:, :, np.newaxis]
        mask = mask & (round_edge < 1.1)
    return _finish(rng, grid, image, 0.01, rng.uniform(0.002, 0.008)), mask


def _pigment(
    rng: np.random.Generator,
    grid: Grid,
    image: Picture,
    f: Field,
    radius: float,
    pigment: Picture,
    strength: float,
) -> None:
    """Colour a lesion: darker and lighter regions, a net of lines, dots, a bluish veil, pale regression."""
    softness = rng.uniform(0.03, 0.14)
    cover = ramp(f, 1 + softness, 1 - softness)
    patches = 0.75 + 0.25 * np.tanh(grid.fractal(rng, 1.6 / radius, 3))
    net = np.abs(grid.noise(rng, min(70, 11 / radius)))
    patches = patches * (1 - 0.22 * rng.random() * ramp(net, 0.1, 0.7))
    if rng.random() < 0.35:
        patches = patches * (1 - 0.7 * ramp(grid.noise(rng, 1.5 / radius), 0.7, 1.5))
    blend(image, pigment, cover * np.clip(patches * strength, 0, 1))
    if rng.random() < 0.5:
        dots = ramp(grid.noise(rng, min(60, 9 / radius)), 1.9, 2.5) * cover
        blend(image, pigment * 0.45, 0.6 * strength * dots)
    if rng.random() < 0.25:
        veil = cover * ramp(grid.noise(rng, 1.3 / radius), 0.3, 1.3)
        blend(image, colour(0.42, 0.42, 0.52), 0.45 * strength * veil)


def _draw_gland(rng: np.random.Generator, grid: Grid, present: bool) -> _Drawn:
    """Slice a pelvis-like body; the target is the mottled gland between its neighbours."""
    shift_x, shift_y = rng.normal(0, 0.05), rng.normal(0, 0.05)
    zoom = rng.uniform(0.92, 1.12)
    texture = grid.fractal(rng, 7, 4, 0.65)
    image = np.zeros((grid.size, grid.size), np.float32)
    muscle, fat, organ = rng.uniform(0.2, 0.27), rng.uniform(0.6, 0.76), rng.uniform(0.4, 0.52)

    def outline(x: float, y: float, radius: float, aspect: float, angle: float, wobble: float) -> Field:
        centre = (x * zoom + shift_x, y * zoom + shift_y)
        return grid.bulge(rng, centre, radius * zoom, aspect, angle, wobble)

    def paint(
        place: tuple[float, float],
        radius: float,
        level: float,
        aspect: float = 1.0,
        angle: float = 0.0,
        wobble: float = 0.07,
        grain: float = 0.05,
    ) -> Field:
        f = outline(*place, radius, aspect, angle, wobble)
        image[:] += ramp(f, 1.05, 0.95) * (level * (1 + grain * texture) - image)
        return f

    def mirrored(x: float, y: float, spread: float) -> tuple[tuple[int, float, float], ...]:
        """Both sides of the body, never quite alike."""
        return tuple((side, side * x + rng.normal(0, spread), y + rng.normal(0, spread)) for side in (-1, 1))

    body = paint((0, 0), 1.02, fat, rng.uniform(1.1, 1.3), 0, 0.03, 0.08)
    paint((0, 0), 0.86, rng.uniform(0.32, 0.44), rng.uniform(1.15, 1.3), 0, 0.05, 0.16)
    bone = fat * rng.uniform(0.75, 0.95)
    for _, x, y in mirrored(0.61, -0.1, 0.04):
        head = paint((x, y), rng.uniform(0.18, 0.22), bone, 1.1)
        image *= 1 - 0.4 * np.exp(-((20 * (head - 1.02)) ** 2))
    for side, x, y in mirrored(0.45, 0.1, 0.03):
        paint((x, y), rng.uniform(0.2, 0.27), muscle, rng.uniform(2.0, 2.8), side * rng.uniform(0.9, 1.3))
    for side, x, y in mirrored(0.36, 0.55, 0.04):
        paint((x, y), rng.uniform(0.2, 0.28), muscle * 1.1, rng.uniform(1.2, 1.8), side * -0.6, grain=0.14)
    if rng.random() < 0.75:
        level = rng.uniform(0.75, 0.9) if rng.random() < 0.5 else organ
        paint(
            (rng.normal(0, 0.06), rng.uniform(-0.52, -0.42)), rng.uniform(0.17, 0.26), level, 1.4, grain=0.02
        )
    rectum = rng.normal(0, 0.05), rng.uniform(0.42, 0.52)
    paint(rectum, rng.uniform(0.14, 0.2), organ * rng.uniform(0.85, 1.1), 1.1, grain=0.03)
    paint(rectum, rng.uniform(0.05, 0.1), (0.06, 0.3, 0.7)[int(rng.integers(3))], wobble=0.2)
    # Loops of bowel and nodes of the gland's own grey, some with a wall of their own.
    for _ in range(int(rng.integers(3, 7))):
        angle, radius = rng.uniform(0, 2 * math.pi), rng.uniform(0.06, 0.15)
        place = 0.66 * math.cos(angle), 0.56 * math.sin(angle)
        loop = paint(place, radius, organ * rng.uniform(0.8, 1.25), rng.uniform(1, 1.7), angle, 0.14, 0.02)
        if rng.random() < 0.4:
            image *= 1 - rng.uniform(0.2, 0.5) * np.exp(-((14 * (loop - 1.03)) ** 2))

    mask = np.zeros((grid.size, grid.size), bool)
    if present:
        radius = float(np.clip(rng.lognormal(math.log(0.25), 0.25), 0.16, 0.4))
        y = rng.normal(-0.02, 0.08)
        f = outline(rng.normal(0, 0.1), y, radius, rng.uniform(1.0, 1.6), rng.normal(0, 0.3), 0.1)
        mask = f < 1
        nodules = np.tanh(1.3 * grid.noise(rng, 1.8 / radius)) + 0.5 * grid.noise(rng, min(60, 5 / radius))
        # A brighter zone behind, a mottled one in front, a thin dark capsule between gland and fat.
        front = ramp(f + 1.1 * (y * zoom + shift_y - grid.y) / radius, 0.0, 0.9)
        level = organ * rng.uniform(1.05, 1.25) * (1.2 - 0.25 * front) * (1 + (0.09 + 0.15 * front) * nodules)
        image += ramp(f, 1.05, 0.95) * (level - image)
        image *= 1 - rng.uniform(0.4, 0.7) * np.exp(-((14 * (f - 1.05)) ** 2))
    image *= ramp(body, 1.02, 1.0)
    coil = grid.slope(rng, rng.uniform(0.1, 0.45)) + 0.1 * grid.noise(rng, 2)
    centre_gain = 1 + 0.25 * np.exp(-2 * ((grid.y - 0.1) ** 2 + grid.x * grid.x))
    image = grid.blur(image * np.exp(coil) * centre_gain, rng.uniform(0.005, 0.011)) * rng.uniform(0.75, 1.05)
    # Magnitude images carry Rician noise: the length of a noisy complex number.
    sigma = rng.uniform(0.012, 0.035)
    image = np.hypot(image + sigma * grid.white(rng), sigma * grid.white(rng))
    return np.asarray(image, np.float32), mask


def _finish(rng: np.random.Generator, grid: Grid, image: Picture, grain: float, softness: float) -> Picture:
    """Add the camera: optics' blur, a little unsharp masking, noise that is stronger in the dark."""
    soft: Picture = np.asarray(cv2.GaussianBlur(image, (0, 0), max(grid.px(softness), 0.35)), np.float32)
    soft += 0.35 * (soft - cv2.GaussianBlur(soft, (0, 0), max(grid.px(0.012), 0.6)))
    noise = rng.standard_normal(image.shape, dtype=np.float32)
    return soft + grain * noise * (1.2 - np.clip(soft, 0, 1))


_DRAW: dict[Kind, Callable[[np.random.Generator, Grid, bool], _Drawn]] = {
    "polyp": _draw_polyp,
    "lesion": _draw_lesion,
    "gland": _draw_gland,
}
