"""A gaze file in words: what it is, what it would bring, what it does not tell."""

from __future__ import annotations

from collections.abc import Sequence

from PySide6.QtCore import QCoreApplication

from gaze_capture.formats.inspection import FixationSummary
from segmentation.gaze_preview import GazePreview

LONGEST_NAME = 48
MOST_NAMES = 3


def _tr(text: str) -> str:
    return QCoreApplication.translate("GazeImportDialog", text)


def format_words(format: str) -> str:
    """Return what a format is called."""
    return {
        "gazemedseg": _tr("GazeMedSeg table"),
        "tobii-tsv": _tr("Tobii export"),
        "eyelink-asc": _tr("EyeLink ASC"),
        "gazepoint-csv": _tr("Gazepoint export"),
        "pupil-csv": _tr("Pupil Labs, gaze on a surface"),
        "xdf": _tr("XDF recording"),
        "bids": _tr("BIDS eye tracking"),
    }.get(format, _tr("Unknown"))


def fact_words(fact: str) -> str:
    """Return what a missing fact is called in a sentence."""
    return {
        "screen_px": _tr("the screen's pixels"),
        "screen_mm": _tr("the screen's size"),
        "distance_mm": _tr("the eyes' distance"),
        "eye": _tr("the eye"),
        "time_unit": _tr("the unit of its times"),
        "coordinates": _tr("the unit of its positions"),
        "stream": _tr("which recording"),
        "image": _tr("the image"),
        "rect_px": _tr("where the image was"),
        "split": _tr("which images"),
    }[fact]


def missing_words(facts: Sequence[str]) -> str:
    """Return what is missing in one phrase."""
    words = [fact_words(fact) for fact in facts]
    return (
        _tr("{most} and {last}").format(most=", ".join(words[:-1]), last=words[-1]) if words[1:] else words[0]
    )


def short(name: str) -> str:
    """Return a name that is not longer than a line, cut in its middle."""
    half = (LONGEST_NAME - 1) // 2
    return name if len(name) <= LONGEST_NAME else f"{name[:half]}…{name[-half:]}"


def listed(names: Sequence[str], most: int = MOST_NAMES) -> str:
    """Return the first of some names, and how many more there are."""
    text = ", ".join(short(name) for name in names[:most])
    if len(names) > most:
        text = _tr("{names} and {n} more").format(names=text, n=f"{len(names) - most:,}")
    return text


def facts_of(preview: GazePreview) -> list[tuple[str, str]]:
    """Return what a file holds as (name, words)."""
    rows: list[tuple[str, str]] = []
    if preview.tracker:
        rows.append((_tr("Recorded by"), short(preview.tracker)))
    if preview.is_table:
        rows.append((_tr("Fixations"), f"{preview.fixations:,}"))
        if preview.dropped:
            rows.append((_tr("Left out"), _tr("{n} without a duration").format(n=f"{preview.dropped:,}")))
    rows += _measured(preview)
    rows += _images(preview)
    if preview.notes:
        rows.append((_tr("To know"), "\n".join(preview.notes)))
    return rows


def _measured(preview: GazePreview) -> list[tuple[str, str]]:
    found = preview.inspection
    if found is None:
        return []
    parts = [_tr("{n} samples").format(n=f"{found.samples:,}")]
    if preview.rate_hz is not None:
        parts.append(_tr("{hz} Hz").format(hz=f"{preview.rate_hz:.4g}"))
        parts.append(_tr("{seconds} s").format(seconds=f"{found.duration_s:,.1f}"))
        if found.recorded_s < 0.99 * found.duration_s:
            parts.append(_tr("{seconds} s without pauses").format(seconds=f"{found.recorded_s:,.1f}"))
    rows = [(_tr("Samples"), " · ".join(parts))]
    lost = [
        _tr("left eye {share}").format(share=_share(found.loss["left"])),
        _tr("right eye {share}").format(share=_share(found.loss["right"])),
        _tr("both at once {share}").format(share=_share(found.loss["neither"])),
    ]
    rows.append((_tr("Lost"), " · ".join(lost)))
    screen = preview.geometry
    if screen is not None:
        rows.append(
            (
                _tr("Screen"),
                _tr("{w} × {h} px · {wmm} × {hmm} mm · {far} mm away").format(
                    w=screen.width_px,
                    h=screen.height_px,
                    wmm=f"{screen.width_mm:.0f}",
                    hmm=f"{screen.height_mm:.0f}",
                    far=f"{screen.viewing_distance_mm:.0f}",
                ),
            )
        )
    # In degrees and seconds they can be found only where both are known.
    fixations = []
    if screen is not None and preview.rate_hz is not None:
        fixations.append(_summary(_tr("{n} detected here"), found.detected))
    if found.own is not None and preview.rate_hz is not None:
        fixations.append(_summary(_tr("{n} of the file's own"), found.own))
        if screen is not None and found.f1 is not None:
            fixations.append(_tr("agreement of the two (F1): {f1}").format(f1=f"{found.f1:.2f}"))
    if fixations:
        rows.append((_tr("Fixations"), "\n".join(fixations)))
    return rows


def _share(loss: float | None) -> str:
    return _tr("not in the file") if loss is None else f"{100 * loss:.1f} %"


def _summary(words: str, found: FixationSummary) -> str:
    text = words.format(n=f"{found.count:,}")
    if found.median_ms is None:
        return text
    return _tr("{text}, {ms} ms in the median").format(text=text, ms=f"{found.median_ms:.0f}")


def _images(preview: GazePreview) -> list[tuple[str, str]]:
    named = len(preview.found) + len(preview.unknown)
    if "image" in preview.missing or not named:
        return []
    if not preview.unknown:
        text = listed(preview.found) if named <= MOST_NAMES else _tr("{n}, all of them in the study")
        return [(_tr("Images"), text.format(n=f"{named:,}"))]
    text = _tr("{found} of {n} are in the study; not in it: {names}")
    names = listed(preview.unknown)
    return [(_tr("Images"), text.format(found=f"{len(preview.found):,}", n=f"{named:,}", names=names))]


def state_words(preview: GazePreview | None, unsaid: Sequence[str] = ()) -> str:
    """Return a file's state for a list; `unsaid` is what has to be said of it still."""
    if preview is not None and preview.problem:
        return _tr("cannot come in")
    if unsaid:
        return _tr("1 thing to say") if len(unsaid) == 1 else _tr("{n} things to say").format(n=len(unsaid))
    return _tr("ready") if preview is not None and preview.is_ready else _tr("reading…")
