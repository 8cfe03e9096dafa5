"""The commands about other programs' gaze files."""

from __future__ import annotations

import argparse
import dataclasses

from app.commands import Outcome, counted, named
from gaze_capture.formats.gaze_file import Known
from segmentation.progress import Progress
from segmentation.study import Study


def _known(args: argparse.Namespace) -> Known:
    return Known(
        screen_px=args.screen_px,
        screen_mm=args.screen_mm,
        distance_mm=args.distance_mm,
        eye=args.eye,
        time_unit=args.time_unit,
        coordinates=args.coordinates,
        stream=args.stream,
    )


def import_gaze(args: argparse.Namespace, progress: Progress) -> Outcome:
    """``gaze-insight import-gaze``."""
    from segmentation.gaze_import import ShownAt, import_gaze

    study = Study.open(args.study)
    report = import_gaze(
        study,
        args.file,
        format=args.format,
        split=args.split,
        annotator=args.annotator,
        image_width_deg=args.image_width_deg,
        simulated_from=args.simulated_from,
        target=args.target,
        known=_known(args),
        shown_at=ShownAt(args.image, args.image_rect, args.fit),
        fixations=args.fixations,
        progress=progress,
    )
    fixations = f"{counted(report.fixations, 'fixation')} on {counted(report.images, 'image')}"
    if report.recording is not None and report.already_there:
        lines = [
            f"{args.file} is in the study already, as {report.recording} with {fixations}; nothing was changed."
        ]
    elif report.recording is not None:
        lines = [
            f"Imported {counted(report.samples, 'sample')} as {report.recording} and found {fixations} in them."
        ]
    else:
        again = " It was imported before and has been replaced." if report.already_there else ""
        lines = [f"Imported {fixations}.{again}"]
    if report.outside_image:
        lines.append(f"{report.outside_image} lie outside their image and will not count in heatmaps.")
    if report.dropped:
        lines.append(f"{report.dropped} without a duration or a position were dropped.")
    lines += report.notes
    lines += named("Images named in the file but not in the study", report.unknown_images)
    return Outcome(dataclasses.asdict(report), "\n".join(lines))


def inspect_gaze(args: argparse.Namespace, progress: Progress) -> Outcome:
    """``gaze-insight inspect-gaze``."""
    from gaze_capture.formats.inspection import inspect
    from gaze_capture.formats.reading import read_gaze_file

    gaze = read_gaze_file(args.file, args.format, _known(args))
    found = inspect(gaze)
    geometry, own = gaze.geometry, found.own
    pauses = (
        "" if found.recorded_s > 0.999 * found.duration_s else f", {found.recorded_s:.2f} s without pauses"
    )
    lines = [
        f"{args.file}: {gaze.format}, {gaze.tracker}",
        f"{counted(found.samples, 'sample')} at {gaze.rate_hz:.2f} Hz in {found.duration_s:.2f} s{pauses}",
        f"without a position: left {_share(found.loss['left'])}, right {_share(found.loss['right'])}, both at once "
        f"{_share(found.loss['neither'])}; missing in the file: {found.absent:.1%}",
        f"screen: {geometry.width_px} x {geometry.height_px} px, {geometry.width_mm:.0f} x "
        f"{geometry.height_mm:.0f} mm, {geometry.viewing_distance_mm:.0f} mm away",
        f"fixations detected here: {_summary(found.detected.count, found.detected.median_ms)}",
    ]
    if own is not None:
        lines.append(
            f"fixations of the file's own: {_summary(own.count, own.median_ms)}; agreement (F1 at half overlap) "
            f"{found.f1:.3f}"
        )
    lines += gaze.notes
    lines += named("Images shown", list(dict.fromkeys(item.name for item in gaze.shown)))
    values = {
        "file": str(args.file),
        "format": gaze.format,
        "tracker": gaze.tracker,
        "rate_hz": gaze.rate_hz,
        **dataclasses.asdict(found),
        "geometry": dataclasses.asdict(geometry),
        "shown": [dataclasses.asdict(item) for item in gaze.shown],
        "messages": len(gaze.messages),
        "notes": list(gaze.notes),
    }
    return Outcome(values, "\n".join(lines))


def _summary(count: int, median_ms: float | None) -> str:
    return f"{count}" if median_ms is None else f"{count}, {median_ms:.0f} ms in the median"


def _share(loss: float | None) -> str:
    return "-" if loss is None else f"{loss:.1%}"
