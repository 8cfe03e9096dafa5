"""The synthetic clinician: sittings of gaze drawn from masks or from saliency, recorded like a person's.

Whatever is made of it is "simulated from masks" (or "from saliency"); the recording says so.
"""

from __future__ import annotations

import datetime
import math
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from gaze_capture.quality import validation_of
from gaze_capture.recording import (
    Calibration,
    Float32s,
    Floats,
    Placement,
    Presence,
    Recording,
    ScreenGeometry,
)
from gaze_capture.recording_codec import RecordingHeader, RecordingWriter, read_recording
from gaze_capture.synthetic_eye import Script, TrackerQuality, measure

Bools = npt.NDArray[np.bool_]

DESK_SCREEN = ScreenGeometry(1920, 1080, 527.0, 296.0, 650.0)
"""A 24-inch monitor at 65 cm."""

IMAGES_PER_SITTING = 50

_CELL_DEG = 0.2
_FIRST_NS = 1_000_000_000_000


@dataclass(frozen=True)
class ImageToLookAt:
    """An image for the synthetic clinician, with what draws the gaze: a mask, saliency, or both."""

    image_id: str
    shape: tuple[int, int]
    """Height, width."""
    mask: Bools | None = None
    """(H, W) the target; all False where there is none to find; None where unknown."""
    saliency: Float32s | None = None
    """(H, W) 0..1, of :func:`saliency`; without it the search knows only the image's middle."""
    target_id: str | None = None


@dataclass(frozen=True)
class SyntheticClinician:
    """How the synthetic clinician looks, sits and is measured.

    The defaults come close to what is published for real gaze of GazeMedSeg on Kvasir-SEG.
    """

    seed: int = 0
    annotator: str = "synthetic clinician"
    geometry: ScreenGeometry = DESK_SCREEN
    rate_hz: float = 120.0
    quality: TrackerQuality = field(default_factory=TrackerQuality)
    image_deg: float = 25.0
    """The longer side of every image on the screen, if the screen is large enough."""
    bias_deg: float = 0.25
    """Standard deviation, per axis, of the calibration's bias; one draw a sitting."""
    bias_drift_deg: float = 0.015
    """Standard deviation, per axis, of the bias's step from image to image."""
    missed_second: float = 0.15
    """Probability of overlooking a lesion that is not the image's largest."""
    missed_target: float = 0.0
    """Probability of overlooking the target altogether, and saying that it is absent."""
    false_attractors: float = 0.0
    """Probability that something salient beside the target is examined, too."""
    gives_presence: bool = True
    """Whether the clinician says after each image if the target is there."""


def saliency(image: npt.NDArray[np.floating[Any]]) -> Float32s:
    """Return how much each pixel (H, W) of an image (H, W, C) stands out, 0..1.

    Centre-surround differences of intensity and, for three channels, of red-green and blue-yellow opponency at
    four scales (in the spirit of Itti, Koch and Niebur, 1998); maps with few peaks weigh more.
    """
    from scipy import ndimage

    height, width = image.shape[:2]
    rows, columns = _fitting_grid(height, width, 128)
    small = np.stack([_pooled(image[:, :, c], rows, columns) for c in range(image.shape[2])], axis=-1)
    channels = [small.mean(axis=-1)]
    if small.shape[2] >= 3:
        red, green, blue = small[..., 0], small[..., 1], small[..., 2]
        channels += [red - green, blue - (red + green) / 2]
    total = np.zeros((rows, columns))
    for channel in channels:
        levels = [
            ndimage.gaussian_filter(channel, sigma, mode="nearest")
            for sigma in (1.0, 2.0, 4.0, 8.0, 16.0, 32.0)
        ]
        for centre, surround in ((0, 3), (1, 4), (2, 4), (2, 5)):
            contrast = np.abs(levels[centre] - levels[surround])
            highest = contrast.max()
            if highest > 1e-6:
                contrast /= highest
                total += contrast * (1 - contrast.mean()) ** 2
    total = ndimage.gaussian_filter(total, 2.0, mode="nearest")
    highest = total.max()
    if highest > 0:
        total /= highest
    y = np.clip((np.arange(height) + 0.5) * rows / height - 0.5, 0, rows - 1)
    x = np.clip((np.arange(width) + 0.5) * columns / width - 0.5, 0, columns - 1)
    # Separable linear interpolation: rows first, then columns.
    low, part = np.floor(y).astype(int), (y % 1)[:, np.newaxis]
    tall = total[low] * (1 - part) + total[np.minimum(low + 1, rows - 1)] * part
    low, part = np.floor(x).astype(int), x % 1
    full: Float32s = (tall[:, low] * (1 - part) + tall[:, np.minimum(low + 1, columns - 1)] * part).astype(
        np.float32
    )
    return full


def simulate_sitting(
    folder: Path,
    images: Iterable[ImageToLookAt],
    clinician: SyntheticClinician = SyntheticClinician(),
    *,
    sitting: int = 0,
    recording_id: str | None = None,
) -> Recording:
    """Let the synthetic clinician look at images one after the other, and record it into a folder.

    Parameters
    ----------
    folder
        The recording's own folder; its name is the recording's id unless one is given.
    images
        Looked at in this order and held one at a time; about :data:`IMAGES_PER_SITTING` share a calibration.
    sitting
        Number of the sitting; together with the clinician's seed it fixes every sample.

    Raises
    ------
    UserError
        If the folder holds a recording already or cannot be written.
    """
    rng = np.random.default_rng([clinician.seed, sitting])
    bias = rng.normal(0, clinician.bias_deg, 2)
    calibration = _validate(bias, clinician, rng)

    looks, sources = [], set()
    for image in images:
        view = _View.of(image, clinician)
        looks.append((view, _look(view, clinician, rng), rng.uniform(50, 150)))
        sources.add("saliency" if image.mask is None else "masks")

    # The eye rests on the first place shortly before the image appears there.
    script = Script(
        np.concatenate([np.zeros((1, 2)), *(look.xy_deg for _, look, _ in looks)]),
        np.concatenate([[200.0], *(look.duration_ms + _first(lead, look) for _, look, lead in looks)]),
    )
    starts = script.start_ms
    first = 1 + np.cumsum([0] + [len(look.xy_deg) for _, look, _ in looks])
    onset_ms = [starts[index] + lead for index, (_, _, lead) in zip(first, looks, strict=False)]
    end_ms = [starts[index - 1] + script.duration_ms[index - 1] for index in first[1:]]

    time_ms = np.arange(0, script.end_ms + 100, 1000 / clinician.rate_hz)
    time_ns = _FIRST_NS + np.round(time_ms * 1e6).astype(np.int64)
    # A quartz of its own: 20 ppm fast, and started at another time.
    device_time_ns = np.round((time_ns - _FIRST_NS) * 1.00002).astype(np.int64) + 77_000_000_000
    steps = rng.normal(0, clinician.bias_drift_deg, (len(looks) + 1, 2))
    drifting_bias = bias + np.cumsum(steps, axis=0)[np.searchsorted(onset_ms, time_ms)]
    samples = measure(
        script.track(time_ms) + drifting_bias,
        time_ns,
        device_time_ns,
        clinician.geometry,
        clinician.quality,
        rng,
    )

    header = RecordingHeader(
        id=recording_id or folder.name,
        annotator=clinician.annotator,
        tracker="simulated",
        geometry=clinician.geometry,
        started_utc=datetime.datetime.now(datetime.timezone.utc).isoformat(timespec="seconds"),
        calibration=calibration,
        simulated_from="masks" if "masks" in sources else "saliency",
        notes={"rate_hz": clinician.rate_hz, "seed": clinician.seed, "sitting": sitting},
    )
    with RecordingWriter(folder, header) as writer:
        written = 0
        for (view, look, _), onset, end in zip(looks, onset_ms, end_ms, strict=True):
            placement = view.placement(_FIRST_NS + round(onset * 1e6))
            number = writer.start_placement(placement)
            until = int(np.searchsorted(time_ms, end))
            writer.add_samples(samples[written:until])
            written = until
            writer.end_placement(number, _FIRST_NS + round(end * 1e6), look.presence)
        writer.add_samples(samples[written:])
    return read_recording(folder)


def look_at(
    image: ImageToLookAt,
    image_from_screen: Floats,
    clinician: SyntheticClinician,
    rng: np.random.Generator,
) -> tuple[Script, Presence | None]:
    """Return how the clinician looks at one image wherever it is shown, and their word on its target.

    Parameters
    ----------
    image_from_screen
        3x3 transform from screen pixels of the clinician's geometry to image pixels, as in a placement.
    """
    look = _look(_View.of(image, clinician, image_from_screen), clinician, rng)
    return Script(look.xy_deg, look.duration_ms), look.presence


def _first(lead_ms: float, look: _Look) -> Floats:
    """Return the lead as an addition to the first duration alone."""
    extra = np.zeros(len(look.duration_ms))
    extra[0] = lead_ms
    return extra


def _validate(bias: Floats, clinician: SyntheticClinician, rng: np.random.Generator) -> Calibration | None:
    """Measure the calibration's error as a validation does: four fresh targets for a second each.

    None if the tracker is so poor that a target was never seen.
    """
    samples_per_target = max(2, round(clinician.rate_hz))
    targets = clinician.geometry.degrees_from_normalised(
        np.array([[0.2, 0.2], [0.8, 0.2], [0.2, 0.8], [0.8, 0.8]])
    )
    parts = []
    for target in targets:
        time_ns = np.round(np.arange(samples_per_target) * 1e9 / clinician.rate_hz).astype(np.int64)
        pointing = np.tile(target + bias + rng.normal(0, 0.1, 2), (samples_per_target, 1))
        samples = measure(pointing, time_ns, time_ns, clinician.geometry, clinician.quality, rng)
        x, y = clinician.geometry.normalised_from_degrees(target).tolist()
        parts.append(((x, y), samples))
    return validation_of(parts, clinician.geometry).summary(points=5)


@dataclass(frozen=True)
class _Look:
    """The fixations of one image, and the word on its target."""

    xy_deg: Floats
    duration_ms: Floats
    presence: Presence | None


@dataclass(frozen=True)
class _View:
    """An image on the screen, on a coarse grid (R, C) of about a fifth of a degree."""

    image: ImageToLookAt
    image_from_screen: Floats
    viewport_px: tuple[int, int, int, int]
    x_deg: Floats
    y_deg: Floats
    target: Bools | None
    salience: Floats

    @classmethod
    def of(
        cls, image: ImageToLookAt, clinician: SyntheticClinician, image_from_screen: Floats | None = None
    ) -> _View:
        geometry = clinician.geometry
        height, width = image.shape
        if image_from_screen is None:
            image_from_screen = _fitted(image.shape, geometry, clinician.image_deg)
        corners = (
            np.linalg.inv(image_from_screen) @ np.array([[-0.5, -0.5, 1], [width - 0.5, height - 0.5, 1]]).T
        )
        (left, right), (top, bottom) = (corners[:2] / corners[2]).tolist()
        longest_deg = max(right - left, bottom - top) * geometry.degrees_per_screen_px
        rows, columns = _fitting_grid(height, width, max(8, round(longest_deg / _CELL_DEG)))
        x = (left + (np.arange(columns) + 0.5) * (right - left) / columns) / geometry.width_px
        y = (top + (np.arange(rows) + 0.5) * (bottom - top) / rows) / geometry.height_px
        x_deg = geometry.degrees_from_normalised(np.stack([x, np.full(columns, 0.5)], axis=1))[:, 0]
        y_deg = geometry.degrees_from_normalised(np.stack([np.full(rows, 0.5), y], axis=1))[:, 1]
        salience = (
            np.ones((rows, columns)) if image.saliency is None else _pooled(image.saliency, rows, columns)
        )
        target = None
        if image.mask is not None:
            coverage = _pooled(image.mask, rows, columns)
            # A target smaller than a cell must not vanish.
            target = (
                coverage >= min(0.5, coverage.max())
                if coverage.max() > 0
                else np.zeros((rows, columns), np.bool_)
            )
        viewport = (0, 0, geometry.width_px, geometry.height_px)
        return cls(image, image_from_screen, viewport, x_deg, y_deg, target, salience)

    def placement(self, start_ns: int) -> Placement:
        return Placement(
            self.image.image_id,
            self.image.target_id,
            start_ns,
            start_ns,
            self.image_from_screen,
            self.viewport_px,
        )

    @property
    def cells_deg(self) -> Floats:
        """(R * C, 2) direction of every cell."""
        x, y = np.meshgrid(self.x_deg, self.y_deg)
        return np.stack([x.ravel(), y.ravel()], axis=1)

    @property
    def cell_deg(self) -> Floats:
        """Width and height of a cell."""
        return np.array(
            [np.ptp(self.x_deg) / (len(self.x_deg) - 1), np.ptp(self.y_deg) / (len(self.y_deg) - 1)]
        )


def _fitted(shape: tuple[int, int], geometry: ScreenGeometry, image_deg: float) -> Floats:
    """Return the transform from screen to image of an image in the screen's middle, `image_deg` long."""
    height, width = shape
    side_mm = 2 * geometry.viewing_distance_mm * math.tan(math.radians(image_deg / 2))
    # Screen pixels an image pixel: one number for both axes, as a viewer does it.
    scale = min(
        side_mm / (geometry.width_mm / geometry.width_px) / width,
        side_mm / (geometry.height_mm / geometry.height_px) / height,
        geometry.width_px / width,
        geometry.height_px / height,
    )
    left, top = (geometry.width_px - width * scale) / 2, (geometry.height_px - height * scale) / 2
    return np.array([[1 / scale, 0, -left / scale - 0.5], [0, 1 / scale, -top / scale - 0.5], [0, 0, 1]])


def _fitting_grid(height: int, width: int, longest: int) -> tuple[int, int]:
    """Return rows and columns of about square cells, the longer side `longest` (or all pixels), both at least 2."""
    scale = min(1.0, longest / max(height, width))
    return max(2, round(height * scale)), max(2, round(width * scale))


def _pooled(values: npt.NDArray[Any], rows: int, columns: int) -> Floats:
    """Return means (rows, columns) over blocks of (H, W)."""
    height, width = values.shape
    if height < rows or width < columns:
        values = np.repeat(np.repeat(values, -(-rows // height), axis=0), -(-columns // width), axis=1)
        height, width = values.shape
    y, x = np.arange(rows) * height // rows, np.arange(columns) * width // columns
    sums = np.add.reduceat(np.add.reduceat(values, y, axis=0, dtype=np.float64), x, axis=1)
    area = np.outer(np.diff(y, append=height), np.diff(x, append=width))
    means: Floats = sums / area
    return means


def _look(view: _View, clinician: SyntheticClinician, rng: np.random.Generator) -> _Look:
    """Look at one image: search coarsely, then examine what was found."""
    target = view.target
    presence: Presence | None = None
    if target is None:
        search = 3 + rng.poisson(1.5)
        regions = [_most_salient(view, None)]
    elif not target.any() or rng.random() < clinician.missed_target:
        presence = "absent"
        search = 5 + rng.poisson(3)
        regions = []
    else:
        presence = "present"
        search = 1 + rng.poisson(0.7)
        regions = _lesions(target, clinician, rng)
    if regions and rng.random() < clinician.false_attractors:
        regions.append(_most_salient(view, target))

    gaze = [_search(view, search, rng)]
    durations = [_durations(210, search, rng)]
    cell_area = float(np.prod(view.cell_deg))
    shares = np.exp(rng.normal(0, 0.25, len(regions)))
    for region, share in zip(regions, shares, strict=True):
        area_deg2 = float(region.sum()) * cell_area
        count = float(np.clip(6 + 1.3 * area_deg2 / math.pi, 6, 40))
        if len(regions) > 1:
            count = max(4, count * share)
        gaze.append(_examine(view, region, round(count), gaze[-1][-1], rng))
        durations.append(_durations(260, round(count), rng))
    return _Look(
        np.concatenate(gaze), np.concatenate(durations), presence if clinician.gives_presence else None
    )


def _durations(median_ms: float, count: int, rng: np.random.Generator) -> Floats:
    durations: Floats = np.clip(median_ms * np.exp(rng.normal(0, 0.5, count)), 80, 1500)
    return durations


def _lesions(target: Bools, clinician: SyntheticClinician, rng: np.random.Generator) -> list[Bools]:
    """Return the separate parts (R, C) of a target that are noticed, largest first."""
    from scipy import ndimage

    labels, count = ndimage.label(target, structure=np.ones((3, 3)))
    sizes = np.bincount(labels.ravel(), minlength=count + 1)[1:]
    order = np.argsort(-sizes, kind="stable")
    # Specks of under a tenth of the largest are the outline's, not lesions of their own.
    return [
        labels == index + 1
        for rank, index in enumerate(order)
        if rank == 0 or (sizes[index] >= 0.1 * sizes[order[0]] and rng.random() >= clinician.missed_second)
    ]


def _most_salient(view: _View, except_in: Bools | None) -> Bools:
    """Return the connected region (R, C) of at least half the salience of its most salient cell."""
    from scipy import ndimage

    centre = np.exp(-((view.x_deg[np.newaxis] / 8) ** 2 + (view.y_deg[:, np.newaxis] / 8) ** 2) / 2)
    map_ = ndimage.gaussian_filter(view.salience, 2.0) * centre
    if except_in is not None:
        map_ = np.where(ndimage.binary_dilation(except_in, iterations=5), 0.0, map_)
    peak = np.unravel_index(np.argmax(map_), map_.shape)
    labels, _ = ndimage.label(map_ >= 0.5 * map_[peak])
    region: Bools = labels == labels[peak]
    return region


def _search(view: _View, count: int, rng: np.random.Generator) -> Floats:
    """Return fixations (count, 2) of a coarse search: salience, centre bias, typical amplitudes, no return."""
    cells = view.cells_deg
    half = np.array([np.ptp(view.x_deg), np.ptp(view.y_deg)]) * 0.5
    centre = np.exp(-((cells / (0.45 * half)) ** 2).sum(axis=1) / 2)
    weights = centre * (view.salience.ravel() + 0.02)
    found: list[Floats] = []
    for _ in range(count):
        drawn = weights.copy()
        if found:
            away = np.maximum(np.hypot(*(cells - found[-1]).T), 0.3)
            # The density of gamma(1.45, 3.8 deg), spread over a circle's circumference.
            drawn *= away ** (1.45 - 2) * np.exp(-away / 3.8)
        place = cells[_draw(drawn, rng)]
        weights *= 1 - np.exp(-((cells - place) ** 2).sum(axis=1) / (2 * 2.0**2))
        found.append(place + (rng.random(2) - 0.5) * view.cell_deg)
    return np.array(found)


def _examine(view: _View, region: Bools, count: int, from_deg: Floats, rng: np.random.Generator) -> Floats:
    """Return fixations (count, 2) that examine a region from its middle to its boundary."""
    from scipy import ndimage

    depth = ndimage.distance_transform_edt(np.pad(region, 1))[1:-1, 1:-1]
    cells = view.cells_deg[region.ravel()]
    depths = depth[region] / depth.max()
    fresh = np.zeros((count, len(cells)))
    found = np.empty((count, 2))
    eye = from_deg
    for index, level in enumerate(np.linspace(1.0, 0.12, count)):
        if rng.random() < 0.03:
            aim = np.array([rng.choice(view.x_deg), rng.choice(view.y_deg)])
        else:
            # Exponents are kept together so that no region is ever without a possible cell.
            log_weight = -((depths - level) ** 2) / (2 * 0.1**2)
            recent = fresh[max(0, index - 6) : index].sum(axis=0)
            weights = np.exp(log_weight - log_weight.max()) * np.exp(-3 * recent)
            aim = cells[_draw(weights, rng)] + (rng.random(2) - 0.5) * view.cell_deg
        amplitude = float(np.hypot(*(aim - eye)))
        eye = aim + rng.normal(0, (0.2 + 0.08 * amplitude) / math.sqrt(2), 2)
        found[index] = eye
        fresh[index] = np.exp(-((cells - eye) ** 2).sum(axis=1) / (2 * 0.8**2))
    return found


def _draw(weights: Floats, rng: np.random.Generator) -> int:
    """Draw an index by weight; any if all are zero."""
    total = np.cumsum(weights)
    if not total[-1] > 0:
        return int(rng.integers(len(weights)))
    return min(int(np.searchsorted(total, rng.random() * total[-1], side="right")), len(weights) - 1)
