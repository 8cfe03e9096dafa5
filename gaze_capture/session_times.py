"""Where the time of a sitting went: looking, pausing, calibrating, reading instructions, resting.

The events that tell the parts apart, as whoever records should store them (values are optional unless said):

- ``pause`` and ``resume``: nobody looks between the two; within a placement the time is taken off the look, between
  placements it is rest.
- ``found``: the annotator has found the target in the image shown; before it they searched, after it they examined.
- ``look_again``: the next or current placement shows an image whose earlier look was not good enough.
- ``practice`` with ``on`` (true or false; true where missing): looks that begin in between are for practice only, and
  so is the time on practice images, which are none of the study and have no placements.
- ``calibration``, ``validation``, ``drift``, ``instruction``: stored when it *ends*. What passed since the last
  placement, or the event before, was spent on it; ``seconds`` says how long it took where that is not so, as for a
  calibration before the recording began.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from gaze_capture.recording import Placement, Recording, RecordingEvent

Span = tuple[int, int]
"""Start and end, ns."""

_ENDING_KINDS = ("calibration", "validation", "drift", "instruction")


@dataclass(frozen=True)
class RecordedLook:
    """Placements in a row that show one image, or one volume, for one target: zoomed, panned, scrolled or not."""

    unit: str
    """The image, or the volume it is a slice of."""
    target_id: str | None
    placements: tuple[int, ...]
    """Their places in the recording."""
    start_ns: int
    end_ns: int


@dataclass(frozen=True)
class LookTime:
    """The time of one look at one image, in seconds."""

    image_id: str
    target_id: str | None
    viewing_s: float
    """While it was shown, less pauses."""
    pause_s: float
    search_s: float | None
    """Of `viewing_s`, until the target was found; None where nobody said so."""
    sweep_s: float | None
    """Of `viewing_s`, after that."""
    again: bool
    """Whether this annotator had looked at it before in this sitting."""
    practice: bool


@dataclass(frozen=True)
class SessionTimes:
    """The parts of a sitting in seconds; all of them together are `total_s`."""

    recording: str
    annotator: str
    total_s: float
    looks: tuple[LookTime, ...]
    calibration_s: float
    validation_s: float
    drift_s: float
    instructions_s: float
    rest_s: float
    """Pauses while no image was shown."""
    practice_images_s: float
    """On practice images, which are none of the study."""
    between_s: float
    """Neither an image nor anything else known was shown."""

    @property
    def looking_s(self) -> float:
        """First looks, without pauses and practice."""
        return sum(look.viewing_s for look in self.looks if not (look.again or look.practice))

    @property
    def relooks_s(self) -> float:
        """Further looks at images seen before."""
        return sum(look.viewing_s for look in self.looks if look.again and not look.practice)

    @property
    def practice_s(self) -> float:
        """On practice images, and looks that only practised."""
        return self.practice_images_s + sum(look.viewing_s for look in self.looks if look.practice)

    @property
    def pauses_s(self) -> float:
        """Pauses while an image was shown."""
        return sum(look.pause_s for look in self.looks)

    @property
    def setup_s(self) -> float:
        """Calibrating, validating, and checking the drift."""
        return self.calibration_s + self.validation_s + self.drift_s

    @property
    def images(self) -> int:
        """Images looked at, practice left out."""
        return len({look.image_id for look in self.looks if not look.practice})

    def parts(self) -> dict[str, float]:
        """Return the parts by name, in seconds, whose sum is `total_s`."""
        return {
            "looking": self.looking_s,
            "relooks": self.relooks_s,
            "practice": self.practice_s,
            "pauses": self.pauses_s,
            "calibration": self.calibration_s,
            "validation": self.validation_s,
            "drift": self.drift_s,
            "instructions": self.instructions_s,
            "rest": self.rest_s,
            "between": self.between_s,
        }


def looks_of(
    placements: Sequence[Placement], unit_of: Callable[[str], str] = lambda image_id: image_id
) -> list[RecordedLook]:
    """Group placements into looks, in order of time; `unit_of` names the volume of a slice.

    Placements of no duration carry a word and no look: they are passed over.
    """
    looks: list[RecordedLook] = []
    order = sorted(range(len(placements)), key=lambda number: placements[number].start_ns)
    for number in order:
        placement = placements[number]
        if placement.end_ns <= placement.start_ns:
            continue
        key = (unit_of(placement.image_id), placement.target_id)
        last = looks[-1] if looks else None
        if last is not None and (last.unit, last.target_id) == key:
            end_ns = max(last.end_ns, placement.end_ns)
            looks[-1] = RecordedLook(*key, (*last.placements, number), last.start_ns, end_ns)
        else:
            looks.append(RecordedLook(*key, (number,), placement.start_ns, placement.end_ns))
    return looks


def pauses_of(recording: Recording) -> list[Span]:
    """Return when nobody looked: from each ``pause`` to its ``resume``, or to the end."""
    return _switched(recording, "pause", "resume")


def practice_of(recording: Recording) -> list[Span]:
    """Return when the annotator only practised."""
    return _switched(recording, "practice", "practice")


def _switched(recording: Recording, on: str, off: str) -> list[Span]:
    spans: list[Span] = []
    since: int | None = None
    for event in sorted(recording.events, key=lambda event: event.time_ns):
        begins = event.kind == on and event.values.get("on", True)
        ends = event.kind == off and (off != on or not event.values.get("on", True))
        if begins and since is None:
            since = event.time_ns
        elif ends and since is not None:
            spans.append((since, event.time_ns))
            since = None
    if since is not None:
        spans.append((since, _span_of(recording)[1]))
    return spans


def overlap_ns(span: Span, others: Sequence[Span]) -> int:
    """Return how much of a span others cover, which do not overlap each other."""
    return sum(max(0, min(span[1], end) - max(span[0], start)) for start, end in others)


def _span_of(recording: Recording) -> Span:
    moments = [event.time_ns for event in recording.events]
    moments += [moment for one in recording.placements for moment in (one.start_ns, one.end_ns)]
    if len(recording.time_ns):
        moments += [int(recording.time_ns[0]), int(recording.time_ns[-1])]
    return (min(moments), max(moments)) if moments else (0, 0)


def times_of(recording: Recording, unit_of: Callable[[str], str] = lambda image_id: image_id) -> SessionTimes:
    """Split a recording's time into parts.

    Where placements overlap in time, several images on one screen, the time counts for the one shown first.

    Parameters
    ----------
    unit_of : names the volume of a slice, so that scrolling back to it is not a look of its own
    """
    start, end = _span_of(recording)
    pauses, practice = pauses_of(recording), practice_of(recording)
    shown: list[Span] = []
    looks: list[LookTime] = []
    seen: set[tuple[str, str | None]] = set()
    again_ns = [event.time_ns for event in recording.events if event.kind == "look_again"]
    previous_end = start
    for look in looks_of(recording.placements, unit_of):
        key = (look.unit, look.target_id)
        told = any(previous_end <= moment <= look.end_ns for moment in again_ns)
        again = key in seen or told
        practising = any(begun <= look.start_ns < ended for begun, ended in practice)
        if not practising:
            seen.add(key)
        spans: dict[str, list[Span]] = {}
        for number in look.placements:
            placement = recording.placements[number]
            begun = max(placement.start_ns, shown[-1][1] if shown else start)
            if placement.end_ns > begun:
                shown.append((begun, placement.end_ns))
                spans.setdefault(placement.image_id, []).append(shown[-1])
        found = [
            event.time_ns
            for event in recording.events
            if event.kind == "found" and look.start_ns <= event.time_ns <= look.end_ns
        ]
        looks += [
            _look_time(image_id, look.target_id, own, pauses, found[0] if found else None, again, practising)
            for image_id, own in spans.items()
        ]
        previous_end = look.end_ns
    gaps = _gaps(start, end, shown)
    on_practice_images = [span for span in practice if not overlap_ns(span, shown)]
    parts, before_ns = _without_images(recording.events, gaps, pauses, on_practice_images, start)
    return SessionTimes(
        recording=recording.id,
        annotator=recording.annotator,
        total_s=(end - start + before_ns) / 1e9,
        looks=tuple(looks),
        calibration_s=parts["calibration"] / 1e9,
        validation_s=parts["validation"] / 1e9,
        drift_s=parts["drift"] / 1e9,
        instructions_s=parts["instruction"] / 1e9,
        rest_s=parts["rest"] / 1e9,
        practice_images_s=parts["practice"] / 1e9,
        between_s=parts["between"] / 1e9,
    )


def _look_time(
    image_id: str,
    target_id: str | None,
    spans: Sequence[Span],
    pauses: Sequence[Span],
    found_ns: int | None,
    again: bool,
    practice: bool,
) -> LookTime:
    pause_ns = sum(overlap_ns(span, pauses) for span in spans)
    viewing_ns = sum(end - start for start, end in spans) - pause_ns
    search_ns = None
    if found_ns is not None:
        before = [(start, min(end, found_ns)) for start, end in spans if start < found_ns]
        search_ns = sum(end - start - overlap_ns((start, end), pauses) for start, end in before)
    return LookTime(
        image_id,
        target_id,
        viewing_ns / 1e9,
        pause_ns / 1e9,
        None if search_ns is None else search_ns / 1e9,
        None if search_ns is None else (viewing_ns - search_ns) / 1e9,
        again,
        practice,
    )


def _gaps(start: int, end: int, shown: Sequence[Span]) -> Iterator[Span]:
    cursor = start
    for begun, ended in shown:
        if begun > cursor:
            yield cursor, begun
        cursor = max(cursor, ended)
    if end > cursor:
        yield cursor, end


def _without_images(
    events: Sequence[RecordingEvent],
    gaps: Iterator[Span],
    pauses: Sequence[Span],
    practice: Sequence[Span],
    start: int,
) -> tuple[dict[str, int], int]:
    """Share the time without an image out among what happened in it; return ns by part, and ns before the start."""
    parts = dict.fromkeys((*_ENDING_KINDS, "rest", "practice", "between"), 0)
    before_ns = 0
    ordered = sorted((event for event in events if event.kind in _ENDING_KINDS), key=lambda one: one.time_ns)

    def spend(part: str, span: Span) -> None:
        resting, practising = overlap_ns(span, pauses), overlap_ns(span, practice)
        parts["rest"] += resting
        parts["practice"] += practising
        parts[part] += span[1] - span[0] - resting - practising

    for event in ordered:
        # What ended as the recording began, a calibration first of all, took its time before.
        earlier = start - (event.time_ns - _seconds_ns(event.values))
        if earlier > 0:
            parts[event.kind] += earlier
            before_ns += earlier
    for begun, ended in gaps:
        cursor = begun
        for event in ordered:
            if not begun <= event.time_ns <= ended:
                continue
            took = _seconds_ns(event.values)
            since = max(cursor, event.time_ns - took) if took else cursor
            spend("between", (cursor, since))
            spend(event.kind, (since, event.time_ns))
            cursor = event.time_ns
        spend("between", (cursor, ended))
    return parts, before_ns


def _seconds_ns(values: dict[str, Any]) -> int:
    return round(float(values.get("seconds") or 0.0) * 1e9)
