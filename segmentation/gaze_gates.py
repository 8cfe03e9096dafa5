"""Whether an image's gaze is good enough to learn from, judged look by look when fixations are detected.

The result, ``ok`` or ``look again`` with its reasons, lies beside the recording's fixations as ``gates.json``. Gaze of
which nothing is known (imports, sittings that the command ``simulate`` drew) is not judged and passes. What an
annotator *said* of an image stands whatever their gaze is worth: it needs no tracker. A look that failed makes no
pseudo-mask unless an annotator overrules the gate, which is an act on record.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal, Protocol, TypeVar

import numpy as np
import numpy.typing as npt

from gaze_capture.errors import UserError
from gaze_capture.fixations import Fixations
from gaze_capture.quality import DATA_LOSS, MAX_ERROR_DEG, MEAN_ERROR_DEG
from gaze_capture.recording import Calibration, Placement, Recording, RecordingEvent, eye_positions
from gaze_capture.session_times import RecordedLook, Span, looks_of, overlap_ns, pauses_of, practice_of
from gaze_capture.storage import explained_os_errors, read_json, write_json_atomic
from segmentation.gaze_index import BRIEF_MS, FEW_INSIDE, FEW_SHARE
from segmentation.look_again import Asked, asked_again
from segmentation.records import SCHEMA, Key, safe_name, utc_now
from segmentation.study import Study

GATES_NAME = "gates.json"
DRIFT_DEG = 1.0
"""A drift check that finds more spoils the looks before it, back to the last check that found less."""
LARGEST_LOSS = DATA_LOSS[1]
LONGEST_GAP_S = 0.5
"""No sample at all for longer: the connection faltered. A blink gives invalid samples, not none."""
EDGE_GAP_S = 1.0
"""The same at a look's start and end, where a tracker may start late."""

Result = Literal["ok", "look again"]


class _Sourced(Protocol):
    @property
    def source(self) -> str: ...

    @property
    def target_id(self) -> str | None: ...


_Gaze = TypeVar("_Gaze", bound=_Sourced)


@dataclass(frozen=True)
class LookGate:
    """What one look at one image is worth."""

    image_id: str
    target_id: str | None
    result: Result
    reasons: tuple[str, ...]
    """In words; none where the gaze is good enough."""
    parts: tuple[int, ...]
    """Which of the recording's fixations of this image and target are of this look, counted from 0."""


def judge(
    recording: Recording,
    fixations: Sequence[Fixations],
    shape_of: Callable[[str], tuple[int, ...] | None],
    unit_of: Callable[[str], str] = lambda image_id: image_id,
) -> list[LookGate]:
    """Judge every look of a recording; nothing where the gaze was drawn by the command ``simulate``.

    Parameters
    ----------
    fixations : one a placement, in the placements' order
    shape_of : (H, W, ...) of an image, None where unknown
    unit_of : names the volume of a slice: its slices are judged together
    """
    if recording.simulated_from is not None and "sitting" in recording.notes:
        return []
    pauses, practice = pauses_of(recording), practice_of(recording)
    positions = eye_positions(recording.samples, recording.eyes)
    seen = np.isfinite(positions[:, 0]) & np.isfinite(positions[:, 1])
    numbers: dict[tuple[str, str | None], int] = {}
    parts = []
    for placement in recording.placements:
        key = (placement.image_id, placement.target_id)
        parts.append(numbers.get(key, 0))
        numbers[key] = parts[-1] + 1
    gates = []
    for look in looks_of(recording.placements, unit_of):
        placements = [recording.placements[number] for number in look.placements]
        own = [fixations[number] for number in look.placements]
        reasons = (
            *_validation(recording, look),
            *_drift(recording, look),
            *_samples(recording, seen, placements, pauses),
            *_connection(recording, look),
            *_amount(placements, own, pauses, shape_of),
            *(["it was for practice"] if any(a <= look.start_ns < b for a, b in practice) else []),
        )
        for image_id in dict.fromkeys(placement.image_id for placement in placements):
            gates.append(
                LookGate(
                    image_id,
                    look.target_id,
                    "look again" if reasons else "ok",
                    reasons,
                    tuple(
                        parts[number]
                        for number in look.placements
                        if recording.placements[number].image_id == image_id
                    ),
                )
            )
    return gates


def _validation(recording: Recording, look: RecordedLook) -> Iterator[str]:
    """Judge the accuracy that was known when the look began, or else the recording's own."""
    earlier = [
        event for event in recording.events if event.kind == "validation" and event.time_ns <= look.start_ns
    ]
    found: Calibration | None
    if earlier:
        values = max(earlier, key=lambda event: event.time_ns).values
        summary = values.get("summary")
        if summary is None:
            yield "in the validation before it the eyes were not seen"
            return
        found = Calibration(**summary)
    else:
        if any(event.kind == "validation" for event in recording.events):
            return
        found = recording.calibration
    if found is None:
        return
    if (
        found.mean_error_deg > MEAN_ERROR_DEG[1]
        or found.max_error_deg > MAX_ERROR_DEG[1]
        or found.data_loss > DATA_LOSS[1]
    ):
        yield (
            f"the validation before it found {found.mean_error_deg:.1f}° on average, {found.max_error_deg:.1f}° at "
            f"worst and {found.data_loss:.0%} loss: too much"
        )


def _drift(recording: Recording, look: RecordedLook) -> Iterator[str]:
    """Judge by the next thing that measured the drift: a check, or a validation that no calibration preceded."""
    later = [event for event in recording.events if event.time_ns >= look.end_ns]
    for event in sorted(later, key=lambda event: event.time_ns):
        if event.kind == "calibration":
            return
        degrees = _degrees_found(event)
        if degrees is None:
            continue
        if degrees > DRIFT_DEG:
            what = "drift check" if event.kind == "drift" else "validation"
            yield f"the {what} after it found gaze {degrees:.1f}° off"
        return


def _degrees_found(event: RecordingEvent) -> float | None:
    if event.kind == "drift":
        distance = event.values.get("distance_deg")
        if distance is None and (offset := event.values.get("offset_deg")) is not None:
            distance = float(np.hypot(*offset))
        return None if distance is None else float(distance)
    if event.kind == "validation" and event.values.get("summary") is not None:
        return float(event.values["summary"]["mean_error_deg"])
    return None


def _samples(
    recording: Recording, seen: npt.NDArray[np.bool_], placements: Sequence[Placement], pauses: Sequence[Span]
) -> Iterator[str]:
    """Judge the samples; `seen` (N,) tells where an eye that counts was seen."""
    counted, valid, longest = 0, 0, 0.0
    for placement in placements:
        low, high = np.searchsorted(recording.time_ns, [placement.start_ns, placement.end_ns])
        times = recording.time_ns[low:high]
        looking = np.ones(len(times), dtype=np.bool_)
        for start, end in pauses:
            looking &= (times < start) | (times > end)
        counted += int(looking.sum())
        valid += int(seen[low:high][looking].sum())
        edges = np.concatenate([[placement.start_ns], times, [placement.end_ns]])
        for number in np.flatnonzero(np.diff(edges) > LONGEST_GAP_S * 1e9).tolist():
            span = (int(edges[number]), int(edges[number + 1]))
            gap_s = (span[1] - span[0] - overlap_ns(span, pauses)) / 1e9
            if gap_s > (EDGE_GAP_S if number in (0, len(edges) - 2) else LONGEST_GAP_S):
                longest = max(longest, gap_s)
    if longest:
        yield f"the tracker sent nothing for {longest:.1f} s of it"
    if counted and (loss := 1 - valid / counted) > LARGEST_LOSS:
        yield f"the eyes were not seen for {loss:.0%} of it"


def _connection(recording: Recording, look: RecordedLook) -> Iterator[str]:
    """Judge by ``connection`` events, whose ``state`` is ``lost`` or ``restored``."""
    lost = any(
        event.kind == "connection"
        and event.values.get("state") == "lost"
        and look.start_ns <= event.time_ns <= look.end_ns
        for event in recording.events
    )
    if lost:
        yield "the tracker's connection was lost"


def _amount(
    placements: Sequence[Placement],
    fixations: Sequence[Fixations],
    pauses: Sequence[Span],
    shape_of: Callable[[str], tuple[int, ...] | None],
) -> Iterator[str]:
    spans = [(placement.start_ns, placement.end_ns) for placement in placements]
    seconds = sum(end - start - overlap_ns((start, end), pauses) for start, end in spans) / 1e9
    if seconds * 1000 < BRIEF_MS:
        yield f"it was looked at for {seconds:.1f} s only"
    count = inside = 0
    for item in fixations:
        shape = shape_of(item.image_id)
        count += len(item.duration_ms)
        if shape is None:
            inside += len(item.duration_ms)
        else:
            xy = item.xy_px + 0.5
            inside += int(((xy >= 0) & (xy < [shape[1], shape[0]])).all(axis=1).sum())
    if inside < FEW_INSIDE or inside < FEW_SHARE * count:
        yield f"{inside} of {count} fixations lie in it"


# In a study


def judge_in_study(study: Study, recording: Recording, fixations: Sequence[Fixations]) -> list[LookGate]:
    """Judge the looks of a recording and store the result beside its fixations.

    Raises
    ------
    UserError
        If the study cannot be written.
    """
    images = study.images

    def shape_of(image_id: str) -> tuple[int, ...] | None:
        return images[image_id].shape if image_id in images else None

    gates = judge(recording, fixations, shape_of, unit_in(study))
    path = study.recordings_folder / recording.id / GATES_NAME
    if gates or path.exists():
        values = {
            "schema": SCHEMA,
            "annotator": recording.annotator,
            "looks": [asdict(gate) for gate in gates],
        }
        write_json_atomic(path, values, within=study.folder)
    return gates


def unit_in(study: Study) -> Callable[[str], str]:
    """Return what names the volume of a slice in a study; an image on its own is its own unit."""
    images = study.images
    return lambda image_id: (images[image_id].volume if image_id in images else "") or image_id


@dataclass(frozen=True)
class GateState:
    """One look's gate as it stands in the study."""

    recording: str
    annotator: str
    gate: LookGate
    overruled_by: str | None

    @property
    def passes(self) -> bool:
        """Whether the gaze may be learned from."""
        return self.gate.result == "ok" or self.overruled_by is not None

    def to_json(self) -> dict[str, Any]:
        """Return what ``gates --json`` prints of it."""
        return {
            "recording": self.recording,
            "annotator": self.annotator,
            "image": self.gate.image_id,
            "target": self.gate.target_id,
            "result": self.gate.result,
            "reasons": list(self.gate.reasons),
            "overruled_by": self.overruled_by,
        }


class Gates:
    """All gates of a study as they are on disk now.

    Raises
    ------
    UserError
        If a file of gates, or a reviewer's mark, is damaged.
    """

    def __init__(self, study: Study) -> None:
        self._targets = tuple(target.id for target in study.targets)
        self.asked: Mapping[Key, Asked] = asked_again(study)
        """What reviewers want to be looked at again, whatever its gaze is worth."""
        self.states: list[GateState] = []
        """Oldest recording first, in order of the looks."""
        self._by_key: dict[Key, list[GateState]] = {}
        for recording_id in study.recording_ids():
            folder = study.recordings_folder / recording_id
            overruled = _overrules(folder)
            for annotator, gate in _read_gates(folder / GATES_NAME):
                by = overruled.get((gate.image_id, gate.target_id))
                state = GateState(recording_id, annotator, gate, by)
                self.states.append(state)
                for key in self._keys(gate):
                    self._by_key.setdefault(key, []).append(state)

    def _keys(self, gate: LookGate) -> list[Key]:
        # Free viewing counts for every target.
        return [(gate.image_id, name) for name in ((gate.target_id,) if gate.target_id else self._targets)]

    def usable(self, key: Key, gaze: Sequence[_Gaze]) -> list[_Gaze]:
        """Return those of a key's fixations, or of its looks, as the study gives them, that may be learned from."""
        barred = {
            (state.recording, state.gate.target_id, part)
            for state in self._by_key.get(key, ())
            if not state.passes
            for part in state.gate.parts
        }
        if not barred:
            return list(gaze)
        counts: dict[tuple[str, str | None], int] = {}
        kept = []
        for item in gaze:
            number = counts.get((item.source, item.target_id), 0)
            counts[item.source, item.target_id] = number + 1
            if (item.source, item.target_id, number) not in barred:
                kept.append(item)
        return kept

    def look_again(self, annotator: str | None = None) -> dict[Key, tuple[str, ...]]:
        """Return what is to be looked at again, with the reasons.

        Those are images and targets whose latest look (of an annotator, or of anyone) failed, and those that a reviewer
        asked for, whoever looks.
        """
        found: dict[Key, tuple[str, ...]] = {key: (asked.reason,) for key, asked in self.asked.items()}
        for key, states in self._by_key.items():
            own = [state for state in states if annotator is None or state.annotator == annotator]
            if own and not own[-1].passes:
                found[key] = (*found.get(key, ()), *own[-1].gate.reasons)
        return found

    def looked(self, annotator: str) -> Mapping[Key, bool]:
        """Return whether an annotator's latest judged look passed, by image and target."""
        return {
            key: own[-1].passes
            for key, states in self._by_key.items()
            if (own := [state for state in states if state.annotator == annotator])
        }


def _read_gates(path: Path) -> Iterator[tuple[str, LookGate]]:
    if not path.exists():
        return
    values = read_json(path)
    try:
        annotator = str(values["annotator"])
        for entry in values["looks"]:
            yield (
                annotator,
                LookGate(
                    entry["image_id"],
                    entry["target_id"],
                    entry["result"],
                    tuple(entry["reasons"]),
                    tuple(map(int, entry["parts"])),
                ),
            )
    except (KeyError, TypeError, ValueError) as error:
        raise UserError(f"{path} is damaged ({error}). Detect the fixations again.") from None


def _overrules(folder: Path) -> dict[tuple[str, str | None], str]:
    found: dict[tuple[str, str | None], str] = {}
    for path in sorted((folder / "overruled").glob("*.json")):
        values = read_json(path)
        try:
            found[values["image_id"], values["target_id"]] = str(values["annotator"])
        except (KeyError, TypeError) as error:
            raise UserError(
                f"{path} is damaged ({error}). Delete it, and overrule the gate again if it should be."
            ) from None
    return found


def check_gates(folder: Path) -> None:
    """Raise UserError unless a recording's gates and overrules, where there are any, can be read."""
    for _ in _read_gates(folder / GATES_NAME):
        pass
    _overrules(folder)


def overrule(study: Study, image_ids: Sequence[str], annotator: str) -> list[GateState]:
    """Let the gaze of images count although a gate failed; on record, by an annotator. Return what was overruled.

    Raises
    ------
    UserError
        If an image is not in the study, or none of its looks was held back.
    """
    states = Gates(study).states
    done: list[GateState] = []
    for image_id in image_ids:
        study.image(image_id)
        failed = [state for state in states if state.gate.image_id == image_id and not state.passes]
        if not failed:
            raise UserError(f"No look at {image_id} is held back by a gate; there is nothing to overrule.")
        done += failed
    for state in done:
        gate = state.gate
        folder = study.recordings_folder / state.recording / "overruled"
        stamp = utc_now().replace(":", "").replace("+0000", "Z")
        name = f"{gate.image_id}.{gate.target_id or ''}.{safe_name(annotator)}.{safe_name(stamp)}.json"
        values = {
            "schema": SCHEMA,
            "image_id": gate.image_id,
            "target_id": gate.target_id,
            "annotator": annotator,
            "overruled_at": utc_now(),
            "reasons": list(gate.reasons),
        }
        with explained_os_errors(folder):
            write_json_atomic(folder / name, values, within=study.folder)
    study.audit(
        "overrule gates",
        annotator=annotator,
        images=list(dict.fromkeys(state.gate.image_id for state in done)),
        recordings=sorted({state.recording for state in done}),
    )
    return done
