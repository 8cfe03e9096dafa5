"""Finding the trackers that can be reached from here, and making the one that is wanted."""

from __future__ import annotations

import importlib
import queue
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

from gaze_capture.errors import UserError
from gaze_capture.recording import ScreenGeometry
from gaze_capture.simulate import DESK_SCREEN
from gaze_capture.trackers.gazepoint import DEFAULT_ADDRESS, GazepointTracker, find_gazepoint
from gaze_capture.trackers.lsl import LslTracker, find_lsl
from gaze_capture.trackers.mouse import MouseTracker
from gaze_capture.trackers.screen import KnownScreen
from gaze_capture.trackers.simulated import SimulatedTracker
from gaze_capture.trackers.tracker import Found, Tracker

LATE_S = 10.0
"""A kind that does not answer is given up so long after the others' time."""


def _tobii_module() -> Any:
    # Late, and not known to the importer: its driver is for some systems only.
    try:
        return importlib.import_module("gaze_capture.trackers.tobii")
    except ImportError as error:
        raise UserError(f"Tobii trackers cannot be used here: {error}.") from None


def _find_tobii(seconds: float) -> list[Found]:
    found: list[Found] = _tobii_module().find_tobii()
    return found


FINDERS: dict[str, Callable[[float], list[Found]]] = {
    "tobii": _find_tobii,
    "lsl": find_lsl,
    "gazepoint": lambda seconds: find_gazepoint(),
}
"""Kinds that can be searched for; each takes about so many seconds and may raise UserError."""


def discover(
    seconds: float = 2.0,
    stop: threading.Event | None = None,
    *,
    note: Callable[[str], None] = lambda text: None,
    kinds: tuple[str, ...] = tuple(FINDERS),
) -> Iterator[Found]:
    """Search for all kinds of trackers at once and yield each as soon as it is found.

    Parameters
    ----------
    stop
        Ends the search early once it is set.
    note
        Is told why a kind could not be searched for: a sentence; called on the iterating thread.
    """
    told: queue.SimpleQueue[tuple[str, list[Found] | str]] = queue.SimpleQueue()

    def search(kind: str) -> None:
        try:
            told.put((kind, FINDERS[kind](seconds)))
        except UserError as error:
            told.put((kind, str(error)))
        # A driver may fail in any way; the others are found all the same.
        except Exception as error:
            told.put((kind, f"{kind} trackers could not be searched for: {error}"))

    for kind in kinds:
        threading.Thread(target=search, args=(kind,), name=f"search {kind}", daemon=True).start()
    waiting = set(kinds)
    deadline = time.monotonic() + seconds + LATE_S
    while waiting and not (stop is not None and stop.is_set()):
        try:
            kind, answer = told.get(timeout=0.05)
        except queue.Empty:
            if time.monotonic() > deadline:
                note(f"The search for {', '.join(sorted(waiting))} trackers does not come to an end.")
                return
            continue
        waiting.discard(kind)
        if isinstance(answer, str):
            note(answer)
        else:
            yield from answer


def open_tracker(
    found: Found | str,
    address: str | None = None,
    screen: ScreenGeometry | KnownScreen | None = None,
    rate_hz: float | None = None,
) -> Tracker:
    """Make a tracker, ready for :meth:`~gaze_capture.trackers.tracker.Tracker.open`; may take seconds.

    Parameters
    ----------
    found
        What a search found, or a kind: ``tobii``, ``lsl``, ``gazepoint``, ``simulated`` or ``mouse``.
    address
        Of a kind of which there may be several; the only one there is, if not given.
    screen
        What is known of the screen, for what the tracker does not tell.

    Raises
    ------
    UserError
        If there is none, or several and no address; or it cannot be used; or the screen is not known.
    """
    kind, address = (found.kind, found.address) if isinstance(found, Found) else (found, address)
    known = KnownScreen.of(screen)
    if kind == "simulated":
        geometry = known.filled(KnownScreen.of(DESK_SCREEN)).geometry("The simulated tracker")
        return SimulatedTracker(rate_hz or 120.0, geometry)
    if kind == "mouse":
        return MouseTracker(known.geometry("The mouse"), rate_hz or 60.0)
    if kind == "lsl":
        return LslTracker(address or _only("lsl").address, known, rate_hz)
    if kind == "gazepoint":
        return GazepointTracker(known, address or DEFAULT_ADDRESS, rate_hz)
    if kind != "tobii":
        raise UserError(
            f"There is no tracker {kind!r} here; choose out of {', '.join(FINDERS)}, simulated, mouse."
        )
    return _tobii(address, known, rate_hz)


def _tobii(address: str | None, known: KnownScreen, rate_hz: float | None) -> Tracker:
    module = _tobii_module()
    if known.px is None:
        raise UserError("A Tobii tracker does not tell the screen's size in pixels (--screen-px): give it.")
    address = address or _only("tobii").address
    tracker: Tracker = module.TobiiTracker(geometry_px=known.px, address=address, rate_hz=rate_hz)
    return tracker


def _only(kind: str) -> Found:
    """Return the one tracker of a kind."""
    found = FINDERS[kind](2.0)
    if not found:
        raise UserError(f"No {kind} tracker is found: check its cable and power, then try again.")
    if len(found) > 1:
        listed = "; ".join(f"{item.address} ({item.label})" for item in found)
        raise UserError(f"There are several {kind} trackers: choose one by its address out of {listed}.")
    return found[0]
