"""Time stamps as files have them: doubled, out of order, jumping, started anew."""

from __future__ import annotations

from typing import Literal, NamedTuple

import numpy as np
import numpy.typing as npt

from gaze_capture.recording import Floats, Int64s

TimeUnit = Literal["s", "ms", "us", "ns"]

_ANEW_NS = 1e9
"""A clock that goes back further than this was started anew, or its stamp is damaged; less is a late sample."""
_LATEST_NS = 9e18
"""Later times do not fit into 64 bits."""
_MOST_JUMPS_TOLD = 3


class Ordered(NamedTuple):
    """The samples to keep of those in a file."""

    rows: Int64s
    """Their indices, strictly ascending in time."""
    notes: list[str]
    """Sentences about the others."""
    restarted: bool
    """Whether a part was left out whose times are also those of the part that was kept."""


def in_order(time_ns: Floats) -> Ordered:
    """Choose the samples to keep.

    Single stamps far off their neighbours are dropped; of a clock that was started anew the longest part is kept;
    samples that are late by less than a second are put in their place; of several at one time the first is kept.
    Pauses stay, and are told.

    Parameters
    ----------
    time_ns
        (N,) in the file's order, NaN where a row has no readable time.
    """
    notes: list[str] = []
    with np.errstate(invalid="ignore"):
        kept = np.flatnonzero(np.abs(time_ns) < _LATEST_NS)
    if len(kept) < len(time_ns):
        notes.append(f"Rows without a readable time, which were dropped: {len(time_ns) - len(kept)}.")
    time = np.rint(time_ns[kept])

    good = ~_spikes(time)
    if not good.all():
        notes.append(
            f"Rows whose time is far off their neighbours', which were dropped: {int((~good).sum())}."
        )
        kept, time = kept[good], time[good]

    restarts = np.flatnonzero(np.diff(time) < -_ANEW_NS) + 1
    if len(restarts):
        borders = np.concatenate([[0], restarts, [len(time)]])
        lengths = np.diff(borders)
        longest = int(np.argmax(lengths))
        part = slice(borders[longest], borders[longest + 1])
        notes.append(
            f"The clock was started anew; the longest of {len(lengths)} parts was kept. Samples of the others, which "
            f"were dropped: {len(time) - int(lengths[longest])}."
        )
        kept, time = kept[part], time[part]

    late = int((np.diff(time) < 0).sum())
    if late:
        notes.append(f"Samples that came late and were put in their place: {late}.")
        order = np.argsort(time, kind="stable")
        kept, time = kept[order], time[order]

    first = np.concatenate([[True], np.diff(time) > 0])[: len(time)]
    if not first.all():
        notes.append(f"Samples at the time of the one before, which were dropped: {int((~first).sum())}.")
        kept, time = kept[first], time[first]
    return Ordered(kept, notes + _pauses(time), len(restarts) > 0)


def continued(time_ns: Floats, anew: npt.NDArray[np.bool_]) -> Floats:
    """Return times (N,) of a clock that starts anew at some rows, each part a second behind the one before.

    Only where time goes back at such a row: a clock that goes on is left as it is.
    """
    shifted = time_ns.copy()
    for row in np.flatnonzero(anew).tolist():
        before = shifted[:row][np.isfinite(shifted[:row])]
        if len(before) and time_ns[row] < before[-1]:
            shifted[row:] = time_ns[row:] + (before[-1] + _ANEW_NS - time_ns[row])
    return shifted


def _spikes(time: Floats) -> npt.NDArray[np.bool_]:
    """Return which stamps lie more than a second off both neighbours, which themselves follow each other."""
    spikes = np.zeros(len(time), dtype=np.bool_)
    if len(time) < 3:
        return spikes
    before, here, after = time[:-2], time[1:-1], time[2:]
    follow = (after >= before) & (after - before < _ANEW_NS)
    off = np.minimum(np.abs(here - before), np.abs(here - after)) > _ANEW_NS
    spikes[1:-1] = follow & off
    # At the ends there is one neighbour: a first or last stamp that the others contradict.
    spikes[0] = time[0] - time[1] > _ANEW_NS and 0 <= time[2] - time[1] < _ANEW_NS
    spikes[-1] = time[-2] - time[-1] > _ANEW_NS and 0 <= time[-2] - time[-3] < _ANEW_NS
    return spikes


def _pauses(time: Floats) -> list[str]:
    """Return a sentence about holes of more than a second."""
    steps = np.diff(time)
    places = np.flatnonzero(steps > _ANEW_NS)
    if len(places) == 0:
        return []
    told = ", ".join(
        f"{steps[at] / 1e9:.1f} s at {(time[at] - time[0]) / 1e9:.1f} s" for at in places[:_MOST_JUMPS_TOLD]
    )
    more = f" and {len(places) - _MOST_JUMPS_TOLD} more" if len(places) > _MOST_JUMPS_TOLD else ""
    return [f"The clock jumps ahead, or the recording paused: {told}{more}."]


def rate_of(time_ns: Int64s) -> float:
    """Return samples a second, pauses and lost samples left out; stamps (N,) ascend strictly, N at least 2.

    The mean of the ordinary steps, as a median of stamps in whole milliseconds would be off by a tenth.
    """
    steps = np.diff(time_ns).astype(np.float64)
    ordinary = steps[steps <= 1.5 * float(np.median(steps))]
    return float(1e9 / ordinary.mean())


def rate_changes(time_ns: Int64s, rate_hz: float) -> list[str]:
    """Return a sentence where some whole second came at a rate a quarter off the recording's."""
    count = round(rate_hz)
    blocks = (len(time_ns) - 1) // count if count else 0
    if blocks < 2:
        return []
    steps = np.diff(time_ns)[: blocks * count].reshape(blocks, count)
    rates = 1e9 / np.median(steps, axis=1)
    odd = np.flatnonzero(np.abs(rates / np.median(rates) - 1) > 0.25)
    if len(odd) == 0:
        return []
    since = (time_ns[int(odd[0]) * count] - time_ns[0]) / 1e9
    return [
        f"The rate changes: {rates.min():.0f} to {rates.max():.0f} Hz in different seconds, first at {since:.1f} s."
    ]


def likely_unit(time: Floats) -> TimeUnit | None:
    """Return the unit of stamps (N,) in which they come at a tracker's rate; None where that cannot be told.

    Trackers work at 20 to 2500 Hz, so no two of s, ms, us and ns fit at once.
    """
    steps = np.diff(time[np.isfinite(time)])
    steps = steps[steps > 0]
    if len(steps) < 2:
        return None
    step = float(np.median(steps))
    units: tuple[tuple[TimeUnit, float], ...] = (("s", 1.0), ("ms", 1e3), ("us", 1e6), ("ns", 1e9))
    for unit, per_second in units:
        if 20 <= per_second / step <= 2500:
            return unit
    return None
