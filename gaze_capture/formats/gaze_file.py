"""What a file of gaze samples holds, whichever program wrote it, and what only its user can say of it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np

from gaze_capture.errors import MissingFact, UserError
from gaze_capture.formats.sample_clock import TimeUnit, in_order, rate_changes, rate_of
from gaze_capture.recording import Floats, Samples, ScreenGeometry, pack_samples

Eye = Literal["both", "left", "right"]
Coordinates = Literal["px", "normalised"]

NS_PER: dict[TimeUnit, float] = {"s": 1e9, "ms": 1e6, "us": 1e3, "ns": 1.0}

_SLOWEST_HZ = 15.0
"""No tracker is slower; rows that come less often are fixations, or their times are in another unit."""
_FURTHEST_SCREENS = 10.0
"""Positions further away, in screens, are some program's word for a missing one."""


@dataclass(frozen=True)
class Shown:
    """An image on the screen, by the name the file gives it."""

    name: str
    start_ns: int
    """On the clock of the samples."""
    end_ns: int
    rect_px: tuple[float, float, float, float] | None
    """x, y, width and height on the screen in pixels; None where the file does not tell."""


@dataclass(frozen=True)
class Message:
    """What another program had written into the gaze file."""

    time_ns: int
    text: str


@dataclass(frozen=True)
class OwnFixations:
    """The fixations (F) that the file's own program found, in order of time."""

    start_ms: Floats
    """(F,) on the clock of the samples."""
    duration_ms: Floats
    """(F,)"""
    xy_px: Floats
    """(F, 2) on the screen, in pixels from its top left corner; NaN where the file gives no position."""
    eye: tuple[Eye, ...]
    """(F,)"""


@dataclass(frozen=True)
class Known:
    """What the user says of a file that does not say it itself; None where nothing was said."""

    screen_px: tuple[int, int] | None = None
    screen_mm: tuple[float, float] | None = None
    distance_mm: float | None = None
    eye: Eye | None = None
    """The eye that the file's positions are of; or the one to keep of two."""
    time_unit: TimeUnit | None = None
    coordinates: Coordinates | None = None
    """Whether positions are pixels or shares of the screen."""
    stream: str | None = None
    """Which of several recordings or streams in the file."""


@dataclass(frozen=True)
class GazeFile:
    """What a file holds; times are those of its own clock."""

    format: str
    tracker: str
    """What recorded it, as far as the file tells."""
    samples: Samples
    """(N,) ascending in time."""
    geometry: ScreenGeometry
    rate_hz: float
    shown: tuple[Shown, ...] = ()
    own_fixations: OwnFixations | None = None
    messages: tuple[Message, ...] = ()
    notes: tuple[str, ...] = ()
    """Sentences: what was left out, taken for granted or worked out."""
    simulated_from: str | None = None
    """``"masks"`` or ``"saliency"`` where the file says that no person looked."""


def missing(path: Path, what: str, option: str, facts: Sequence[str]) -> MissingFact:
    """Return the error for facts that a file does not tell, by their names in :class:`Known`."""
    return MissingFact(f"{path} does not tell {what}; say it with {option}.", facts)


def one_recording(path: Path, known: Known) -> None:
    """Refuse to choose among the recordings of a file that holds one."""
    if known.stream is not None:
        raise UserError(f"{path} holds one recording, not several to choose from; leave --stream away.")


def no_samples(path: Path) -> UserError:
    """Return the error for a file in which too little is left to be gaze."""
    return UserError(f"{path} holds no gaze samples: fewer than two of its rows have a time.")


def geometry_of(
    path: Path,
    known: Known,
    *,
    px: tuple[int, int] | None = None,
    mm: tuple[float, float] | None = None,
    distance_mm: float | None = None,
) -> ScreenGeometry:
    """Return the geometry by what the file tells (`px`, `mm`, `distance_mm`) and what the user says.

    The user's millimetres go before the file's, which are often worked out or a default.

    Raises
    ------
    UserError
        If something is missing (a MissingFact), or the user says another number of pixels than the file.
    """
    if px and known.screen_px and px != known.screen_px:
        told, said = ("{} x {}".format(*size) for size in (px, known.screen_px))
        raise UserError(f"{path} tells of a screen of {told} pixels, not {said}; leave --screen-px away.")
    px = px or known.screen_px
    mm = known.screen_mm or mm
    distance_mm = known.distance_mm or distance_mm
    absent = [
        (what, option, fact)
        for value, what, option, fact in (
            (px, "how many pixels the screen had", "--screen-px WxH", "screen_px"),
            (mm, "how large the screen was", "--screen-mm WxH", "screen_mm"),
            (distance_mm, "how far the eyes were from the screen", "--distance-mm D", "distance_mm"),
        )
        if value is None
    ]
    if absent:
        raise missing(
            path,
            " and ".join(what for what, _, _ in absent),
            " ".join(option for _, option, _ in absent),
            [fact for _, _, fact in absent],
        )
    assert px and mm and distance_mm
    sizes = (*px, *mm, distance_mm)
    if not all(0 < size < 1e5 for size in sizes):
        raise UserError(
            f"{path} tells of a screen that cannot be: {px} pixels, {mm} mm, {distance_mm} mm away."
        )
    return ScreenGeometry(px[0], px[1], float(mm[0]), float(mm[1]), float(distance_mm))


def assembled(
    path: Path,
    *,
    format: str,
    tracker: str,
    time_ns: Floats,
    left: Floats,
    right: Floats,
    pupil_mm: Floats,
    geometry: ScreenGeometry,
    known: Known,
    eyes: Eye | Literal["combined"],
    shown: Sequence[Shown] = (),
    own_fixations: OwnFixations | None = None,
    messages: Sequence[Message] = (),
    notes: Sequence[str] = (),
    nominal_hz: float | None = None,
) -> GazeFile:
    """Put a file's columns together: in order of time, with one meaning of missing, and what was dropped in words.

    Parameters
    ----------
    time_ns
        (N,) as in the file: in any order, NaN where unreadable.
    left, right
        (N, 2) normalised screen positions, NaN where missing; the same twice where the file combines the eyes.
    pupil_mm
        (N, 2)
    eyes
        What the file has positions of.
    nominal_hz
        The rate that the file names; measured where it names none.

    What was shown and the own fixations are left out where the clock was started anew; a reader that knows better
    hands over one part.

    Raises
    ------
    UserError
        If no sample or no position is left, the eye asked for is not in the file, or what is left are no samples.
    """
    told = list(notes)
    kept, words, restarted = in_order(time_ns)
    told += words
    if restarted and (shown or own_fixations is not None):
        told.append(
            "What was shown and the file's own fixations cannot be told apart by such a clock: left out."
        )
        shown, own_fixations = (), None
    if len(kept) < 2:
        raise no_samples(path)
    times = np.rint(time_ns[kept]).astype(np.int64)
    pair = [_plausible(xy[kept]) for xy in (left, right)]
    far = sum(int((np.isfinite(xy[kept]).all(axis=1) & np.isnan(kind).all(axis=1)).sum())
              for xy, kind in zip((left, right), pair, strict=True))  # fmt: skip
    if far:
        told.append(f"Positions far outside the screen, which were taken for missing: {far}.")
    pupil = np.where((pupil_mm[kept] > 0) & (pupil_mm[kept] < 100), pupil_mm[kept], np.nan)
    _keep_eye(path, known, eyes, pair, pupil, told)
    if not np.isfinite(pair).any():
        raise UserError(f"{path} holds {len(times)} samples, none of them with a gaze position.")
    rate_hz = rate_of(times)
    if nominal_hz is not None and _SLOWEST_HZ <= nominal_hz < 1e5:
        if not 0.9 < rate_hz / nominal_hz < 1.1:
            told.append(
                f"The file says {nominal_hz:g} Hz, yet its samples come {rate_hz:.0f} times a second."
            )
        rate_hz = nominal_hz
    if rate_hz < _SLOWEST_HZ:
        raise UserError(
            f"{path}: its rows come {rate_hz:.2g} times a second, which are no samples; export samples instead of "
            "fixations, or say the right unit of its times (--time-unit)."
        )
    told += rate_changes(times, rate_hz)
    start, end = int(times[0]), int(times[-1])
    inside = [
        Shown(item.name, max(item.start_ns, start), min(item.end_ns, end), _possible(item.rect_px))
        for item in shown
        if item.start_ns < end and item.end_ns > start and item.end_ns > item.start_ns
    ]
    fixations = _that_lasted(own_fixations, told)
    return GazeFile(
        format=format,
        tracker=tracker,
        samples=pack_samples(times, times, pair[0], pair[1], pupil),
        geometry=geometry,
        rate_hz=rate_hz,
        shown=tuple(sorted(inside, key=lambda item: item.start_ns)),
        own_fixations=fixations,
        messages=tuple(messages),
        # A reader that put its rows in order before has told the same.
        notes=tuple(dict.fromkeys(told)),
    )


def _that_lasted(own: OwnFixations | None, notes: list[str]) -> OwnFixations | None:
    """Return the fixations that have a start and a duration, in order of time; None where there are none."""
    if own is None:
        return None
    with np.errstate(invalid="ignore"):
        good = np.flatnonzero(np.isfinite(own.start_ms) & (own.duration_ms > 0) & (own.duration_ms < 1e9))
    if len(good) < len(own.start_ms):
        lost = len(own.start_ms) - len(good)
        notes.append(f"Fixations of the file's own without a duration, which were dropped: {lost}.")
    if len(good) == 0:
        return None
    order = good[np.argsort(own.start_ms[good], kind="stable")]
    return OwnFixations(
        own.start_ms[order],
        own.duration_ms[order],
        own.xy_px[order],
        tuple(own.eye[place] for place in order),
    )


def _possible(
    rect_px: tuple[float, float, float, float] | None,
) -> tuple[float, float, float, float] | None:
    """Return a rectangle, or None where it is none that a screen could show."""
    if rect_px is None or not np.isfinite(rect_px).all() or np.abs(rect_px).max() > 1e5:
        return None
    return rect_px if min(rect_px[2:]) >= 1 else None


def _plausible(xy: Floats) -> Floats:
    """Return positions (N, 2), NaN in both axes where one is missing or far outside the screen."""
    with np.errstate(invalid="ignore"):
        near = np.abs(xy - 0.5) < _FURTHEST_SCREENS
    good = np.flatnonzero(near.all(axis=1))
    plausible = np.full_like(xy, np.nan)
    plausible[good] = xy[good]
    return plausible


def _keep_eye(
    path: Path,
    known: Known,
    eyes: Eye | Literal["combined"],
    pair: list[Floats],
    pupil: Floats,
    notes: list[str],
) -> None:
    """Blank what is not of the eye asked for, in place."""
    if eyes == "combined":
        if known.eye in ("left", "right"):
            raise UserError(
                f"{path} holds one gaze position for both eyes, not those of the {known.eye} eye; leave --eye away."
            )
        notes.append("Its positions are of both eyes combined; each stands for the left and the right eye.")
        return
    if eyes != "both" and known.eye not in (None, eyes):
        raise UserError(f"{path} holds the {eyes} eye only; leave --eye away.")
    wanted = known.eye if known.eye in ("left", "right") else eyes
    for number, name in enumerate(("left", "right")):
        if wanted not in ("both", name):
            if np.isfinite(pair[number]).any():
                notes.append(f"The {name} eye was left out, as asked.")
            pair[number] = np.full_like(pair[number], np.nan)
            pupil[:, number] = np.nan
        elif not np.isfinite(pair[number]).any():
            notes.append(f"The {name} eye was never seen.")
