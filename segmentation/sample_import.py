"""Other programs' gaze samples as a recording of the study, or their own fixations as imported ones."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from gaze_capture.certificate import conclude
from gaze_capture.errors import MissingFact, UserError
from gaze_capture.fixations import Fixations, fixations_of
from gaze_capture.formats.gaze_file import GazeFile, Known, OwnFixations, Shown
from gaze_capture.formats.reading import read_gaze_file
from gaze_capture.recording import Placement
from gaze_capture.recording_codec import SUMMARY_NAME, RecordingHeader, RecordingWriter, read_recording
from gaze_capture.storage import read_json, sha256_of, write_bytes_atomic
from segmentation.gaze_matching import GazeReport, ImageNames, none_of_them
from segmentation.progress import Progress
from segmentation.records import StudyImage, new_id, safe_name, utc_now
from segmentation.study import Study


@dataclass(frozen=True)
class ShownAt:
    """What was shown and where, of a file that does not tell."""

    image: str | None = None
    """The one image, by its id or its file's name."""
    rect_px: tuple[float, float, float, float] | None = None
    """x, y, width and height of the images on the screen, in pixels."""
    fit: bool = False
    """Each image was in the screen's middle, as large as it fits."""


@dataclass(frozen=True)
class _Found:
    """A file, and where on which of the study's images its gaze fell."""

    gaze: GazeFile
    placements: list[Placement]
    unknown: tuple[str, ...]
    notes: tuple[str, ...]


def import_samples(
    study: Study,
    file: Path,
    *,
    format: str,
    known: Known,
    shown_at: ShownAt,
    own_fixations: bool,
    split: str | None,
    annotator: str,
    target_id: str,
    simulated_from: str | None,
    progress: Progress,
) -> GazeReport:
    """Make a file of samples a recording and detect its fixations, or take the fixations that are in it.

    A file that is in the study already, of this annotator, target and part of it, is left as it is.

    Raises
    ------
    UserError
        If the file is not understood, or does not tell what was shown or where and `known` and `shown_at` do not
        either.
    """
    progress(0, 3, file.name)
    gaze = read_gaze_file(file, format, known)
    simulated_from = simulated_from or gaze.simulated_from
    digest = sha256_of(file)
    part = {
        "sha256": digest,
        "annotator": annotator,
        "target": target_id,
        "image": shown_at.image,
        "stream": known.stream,
        "split": split,
    }
    source = "-".join(
        safe_name(word)
        for word in (file.stem, digest[:8], annotator, target_id, shown_at.image, known.stream, split)
        if word
    )
    recording = _imported_before(study, part)
    fixations_there = (study.folder / "fixations" / source).exists()
    if recording is not None and own_fixations:
        raise UserError(
            f"{file} is in the study already, as the recording {recording}; its own fixations would count its gaze "
            "twice. Remove that recording's folder first."
        )
    if fixations_there and not own_fixations:
        raise UserError(
            f"{file} is in the study already with its own fixations ({source}); a recording would count its gaze "
            "twice. Remove that folder from fixations/ first."
        )
    found = _placed(study, file, gaze, shown_at, split, target_id)
    progress(1, 3, file.name)
    if own_fixations:
        return _import_own(study, file, found, source, annotator, known, simulated_from, fixations_there)
    already_there = recording is not None
    if recording is None:
        recording = _write_recording(study, file, found, part, annotator, simulated_from)
    folder = study.recordings_folder / recording
    progress(2, 3, file.name)
    # An import that was cut short left a recording without them.
    if not (folder / "fixations.csv").exists():
        study.save_fixations(recording, fixations_of(read_recording(folder)), imported=False)
    report = _report(study, found, recording, already_there)
    if already_there:
        return report
    study.audit("import-gaze", source=recording, images=report.images, unknown=len(found.unknown))
    progress(3, 3, file.name)
    return report


def _imported_before(study: Study, part: dict[str, Any]) -> str | None:
    """Return the recording that the same part of the same file became, or None."""
    for name in study.recording_ids():
        summary = study.recordings_folder / name / SUMMARY_NAME
        if summary.exists() and read_json(summary).get("notes", {}).get("imported") == part:
            return name
    return None


def _placed(
    study: Study, file: Path, gaze: GazeFile, shown_at: ShownAt, split: str | None, target_id: str
) -> _Found:
    """Find the study's images among those shown, and where they were on the screen."""
    shown = gaze.shown
    if shown_at.image is not None:
        if shown:
            raise UserError(
                f"{file} itself names what it shows ({_listed(item.name for item in shown)}); leave --image away."
            )
        time = gaze.samples["time_ns"]
        shown = (Shown(shown_at.image, int(time[0]), int(time[-1]) + round(1e9 / gaze.rate_hz), None),)
    if not shown:
        raise MissingFact(f"{file} does not tell which image was shown; say it with --image NAME.", ["image"])
    names = ImageNames(study.images_of(split))
    placements: list[Placement] = []
    unknown: dict[str, None] = {}
    without: dict[str, None] = {}
    for item in shown:
        image = names.find(file, item.name)
        if image is None:
            unknown[item.name] = None
            continue
        rect = _rect(item, image, gaze, shown_at)
        if rect is None:
            without[item.name] = None
            continue
        placements.append(_placement(item, image, rect, target_id))
    if without:
        raise MissingFact(
            f"{file} does not tell where on the screen {_listed(without)} was shown; say it with --image-rect X,Y,W,H, "
            "or with --fit if it was in the middle and as large as it fits.",
            ["rect_px"],
        )
    if not placements:
        raise none_of_them(file, list(unknown))
    notes = list(gaze.notes)
    if (shown_at.rect_px or shown_at.fit) and all(item.rect_px for item in shown):
        notes.append("The file itself tells where its images were; --image-rect or --fit was not needed.")
    return _Found(gaze, placements, tuple(unknown), tuple(notes))


def _listed(names: Any) -> str:
    different = list(dict.fromkeys(names))
    return ", ".join(different[:3]) + (f" and {len(different) - 3} more" if len(different) > 3 else "")


def _rect(
    item: Shown, image: StudyImage, gaze: GazeFile, shown_at: ShownAt
) -> tuple[float, float, float, float] | None:
    if item.rect_px is not None or not shown_at.fit:
        return item.rect_px or shown_at.rect_px
    height, width = image.shape[:2]
    screen_width, screen_height = gaze.geometry.width_px, gaze.geometry.height_px
    scale = min(screen_width / width, screen_height / height)
    return (
        (screen_width - width * scale) / 2,
        (screen_height - height * scale) / 2,
        width * scale,
        height * scale,
    )


def _placement(
    item: Shown, image: StudyImage, rect: tuple[float, float, float, float], target_id: str
) -> Placement:
    x, y, width, height = rect
    across, down = image.shape[1] / width, image.shape[0] / height
    left, top = round(x), round(y)
    return Placement(
        image_id=image.id,
        target_id=target_id,
        start_ns=item.start_ns,
        end_ns=item.end_ns,
        image_from_screen=np.array([[across, 0, -x * across - 0.5], [0, down, -y * down - 0.5], [0, 0, 1]]),
        viewport_px=(left, top, round(width), round(height)),
    )


def _write_recording(
    study: Study,
    file: Path,
    found: _Found,
    part: dict[str, Any],
    annotator: str,
    simulated_from: str | None,
) -> str:
    recording = new_id("rec-")
    folder = study.new_recording_folder(recording)
    header = RecordingHeader(
        id=recording,
        annotator=annotator,
        tracker=found.gaze.tracker,
        geometry=found.gaze.geometry,
        started_utc=utc_now(),
        simulated_from=simulated_from,
        notes={
            "imported": part,
            "file": file.name,
            "format": found.gaze.format,
            "rate_hz": found.gaze.rate_hz,
            "remarks": list(found.notes),
            "started_utc": "the time of import: when the file was recorded is not known",
        },
    )
    with RecordingWriter(folder, header) as writer:
        writer.add_samples(found.gaze.samples)
        for placement in found.placements:
            writer.end_placement(writer.start_placement(placement), placement.end_ns)
    write_bytes_atomic(folder / f"original{file.suffix}", file.read_bytes(), within=study.folder)
    conclude(folder)
    return recording


def _report(study: Study, found: _Found, recording: str, already_there: bool) -> GazeReport:
    """Sum up what a recording brought, by the headers of its fixations."""
    looks = [look for look in study.fixations.each_look() if look.source == recording]
    return GazeReport(
        source=recording,
        images=len({look.image_id for look in looks}),
        fixations=sum(look.fixations for look in looks),
        unknown_images=found.unknown,
        outside_image=sum(look.fixations - look.inside for look in looks),
        dropped=0,
        already_there=already_there,
        format=found.gaze.format,
        recording=recording,
        samples=len(found.gaze.samples),
        notes=found.notes,
    )


def _import_own(
    study: Study,
    file: Path,
    found: _Found,
    source: str,
    annotator: str,
    known: Known,
    simulated_from: str | None,
    already_there: bool,
) -> GazeReport:
    """Store the file's own fixations on the images they fell on."""
    own = found.gaze.own_fixations
    if own is None:
        raise UserError(
            f"{file} has no fixations of its own; leave --fixations own away to have them detected."
        )
    eye = known.eye if known.eye in own.eye else Counter(own.eye).most_common(1)[0][0]
    of_eye = np.array([one == eye for one in own.eye], dtype=np.bool_)
    notes = list(found.notes)
    if not of_eye.all():
        notes.append(f"The file has fixations of each eye; those of the {eye} eye were taken.")
    placed = np.isfinite(own.xy_px).all(axis=1)
    kept = [
        _fixations_on(placement, own, of_eye & placed, found.gaze, annotator, source, simulated_from)
        for placement in found.placements
    ]
    original = study.folder / "fixations" / source / f"original{file.suffix}"
    write_bytes_atomic(original, file.read_bytes(), within=study.folder)
    study.save_fixations(source, kept, imported=True)
    images = {item.image_id for item in kept}
    study.audit("import-gaze", source=source, images=len(images), unknown=len(found.unknown))
    outside = 0
    for item in kept:
        height, width = study.image(item.image_id).shape[:2]
        xy = item.xy_px + 0.5
        outside += int(((xy < 0) | (xy >= [width, height])).any(axis=1).sum())
    return GazeReport(
        source=source,
        images=len(images),
        fixations=sum(len(item.duration_ms) for item in kept),
        unknown_images=found.unknown,
        outside_image=outside,
        dropped=int((of_eye & ~placed).sum()),
        already_there=already_there,
        format=found.gaze.format,
        notes=tuple(notes),
    )


def _fixations_on(
    placement: Placement,
    own: OwnFixations,
    chosen: np.ndarray[tuple[int, ...], np.dtype[np.bool_]],
    gaze: GazeFile,
    annotator: str,
    source: str,
    simulated_from: str | None,
) -> Fixations:
    """Return the fixations made while an image was shown; of one that goes beyond, the part within."""
    onset_ms, end_ms = placement.start_ns / 1e6, placement.end_ns / 1e6
    stop_ms = own.start_ms + own.duration_ms
    lasted = np.minimum(stop_ms, end_ms) - np.maximum(own.start_ms, onset_ms)
    during = chosen & (lasted > 0)
    return Fixations(
        image_id=placement.image_id,
        target_id=placement.target_id,
        annotator=annotator,
        source=source,
        start_ms=own.start_ms[during] - onset_ms,
        duration_ms=lasted[during],
        xy_px=placement.image_px_from_screen_px(own.xy_px[during]),
        dispersion_deg=np.full(int(during.sum()), np.nan),
        detector="imported",
        degrees_per_px=placement.degrees_per_image_px(gaze.geometry),
        simulated_from=simulated_from,
        viewing_ms=end_ms - onset_ms,
    )
