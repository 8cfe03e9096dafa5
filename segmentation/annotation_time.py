"""What annotating took: the time of sittings, stored beside their fixations, and its mean for an image."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, dataclass, fields
from typing import Any

from gaze_capture.errors import UserError
from gaze_capture.recording import Recording
from gaze_capture.recording_codec import read_recording
from gaze_capture.session_times import LookTime, SessionTimes, times_of
from gaze_capture.storage import read_json, write_json_atomic
from segmentation.gaze_gates import unit_in
from segmentation.progress import Progress, no_progress
from segmentation.records import SCHEMA
from segmentation.study import Study

TIMES_NAME = "times.json"

_PARTS = tuple(field.name for field in fields(SessionTimes) if field.name.endswith("_s"))


@dataclass(frozen=True)
class AnnotationTime:
    """Mean seconds an image; `looking_s`, `relooks_s` and `setup_s` make up `seconds_per_image`."""

    images: int
    looking_s: float
    """First looks, pauses taken off."""
    relooks_s: float
    """Further looks at the same image and target in one sitting, or when the sitting was told so."""
    setup_s: float
    """Each image's share of its sittings' calibrations, validations and drift checks."""
    pauses_s: float
    """Taken off the looks; not counted."""

    @property
    def seconds_per_image(self) -> float:
        """What annotating an image took."""
        return self.looking_s + self.relooks_s + self.setup_s

    def to_json(self) -> dict[str, float | int]:
        """Return the parts."""
        return {name: round(value, 4) for name, value in asdict(self).items()}


def store_times(study: Study, recording: Recording) -> SessionTimes:
    """Split a recording's time into parts and keep them beside its fixations.

    Raises
    ------
    UserError
        If the study cannot be written.
    """
    times = times_of(recording, unit_in(study))
    path = study.recordings_folder / recording.id / TIMES_NAME
    write_json_atomic(path, {"schema": SCHEMA, **asdict(times)}, within=study.folder)
    return times


def stored_times(study: Study, recording_id: str) -> SessionTimes | None:
    """Return the stored parts of a recording's time; None where there are none yet.

    Raises
    ------
    UserError
        If the file is damaged.
    """
    path = study.recordings_folder / recording_id / TIMES_NAME
    if not path.exists():
        return None
    values = read_json(path)
    try:
        looks = tuple(LookTime(**look) for look in values["looks"])
        return SessionTimes(
            recording=values["recording"],
            annotator=values["annotator"],
            looks=looks,
            **{name: float(values.get(name, 0.0)) for name in _PARTS},
        )
    except (KeyError, TypeError, ValueError) as error:
        raise UserError(f"{path} is damaged ({error}). Delete it; it is made again when needed.") from None


def study_times(study: Study, progress: Progress = no_progress) -> list[SessionTimes]:
    """Return the times of every recording of a study, oldest first; read from the recordings where not stored.

    Raises
    ------
    UserError
        If there is no recording, or one is damaged.
    """
    ids = study.recording_ids()
    if not ids:
        raise UserError("The study has no recordings yet; record or simulate gaze first.")
    found = []
    for number, name in enumerate(ids):
        progress(number, len(ids), name)
        times = stored_times(study, name)
        if times is None:
            times = times_of(read_recording(study.recordings_folder / name), unit_in(study))
        found.append(times)
    progress(len(ids), len(ids), "")
    return found


def annotation_time(
    study: Study,
    image_ids: Iterable[str],
    target_ids: Sequence[str],
    *,
    counts: Callable[[str], bool] = lambda source: True,
) -> AnnotationTime | None:
    """Return the mean over images with gaze of what annotating them for some targets took; None without any gaze.

    All looks at an image add up; free viewing serves several targets but takes its time once. Gaze without stored
    times (imports) counts as long as it was shown. `counts` says whether gaze from a source (a recording's id) does.
    """
    known: dict[str, SessionTimes | None] = {}
    recordings = set(study.recording_ids())
    looking: list[float] = []
    relooks = setup = pauses = 0.0
    for image_id in image_ids:
        found = {
            id(look): look
            for name in target_ids
            for look in study.looks.get((image_id, name), ())
            if counts(look.source)
        }
        if not found:
            continue
        plain = 0.0
        sources: dict[str, set[str | None]] = {}
        for look in found.values():
            if look.source not in known:
                known[look.source] = stored_times(study, look.source) if look.source in recordings else None
            if known[look.source] is None:
                plain += look.viewing_ms / 1000
            else:
                sources.setdefault(look.source, set()).add(look.target_id)
        for source, looked_for in sources.items():
            times = known[source]
            assert times is not None
            setup += times.setup_s / max(times.images, 1)
            for one in times.looks:
                if one.image_id == image_id and one.target_id in looked_for and not one.practice:
                    pauses += one.pause_s
                    if one.again:
                        relooks += one.viewing_s
                    else:
                        plain += one.viewing_s
        looking.append(plain)
    count = len(looking)
    if not count:
        return None
    return AnnotationTime(count, sum(looking) / count, relooks / count, setup / count, pauses / count)


def times_json(times: SessionTimes) -> dict[str, Any]:
    """Return one recording's row of ``times --json``."""
    return {
        "recording": times.recording,
        "annotator": times.annotator,
        "images": times.images,
        "total_s": round(times.total_s, 3),
        **{f"{name}_s": round(value, 3) for name, value in times.parts().items()},
        "looks": [
            {
                name: round(value, 3) if isinstance(value, float) else value
                for name, value in asdict(look).items()
            }
            for look in times.looks
        ],
    }
