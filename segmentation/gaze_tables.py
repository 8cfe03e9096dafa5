"""Gaze as plain tables, CSV or Parquet, with a dictionary of every column."""

from __future__ import annotations

import contextlib
import csv
import io
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, BinaryIO, Literal

import numpy as np
import numpy.typing as npt

from gaze_capture.archive import program
from gaze_capture.columns import SAMPLE_COLUMNS, Column, parquet_fields, pyarrow
from gaze_capture.fixations import Fixations
from gaze_capture.recording import Recording
from gaze_capture.storage import explained_os_errors, write_bytes_atomic, write_json_atomic
from segmentation.export_selection import Selection, Tally, public_source, simulated_words
from segmentation.progress import Progress

Kind = Literal["csv", "parquet"]

ROWS_AT_A_TIME = 50_000


_SIMULATED = Column(
    "simulated_from",
    "text",
    "",
    '"masks" or "saliency" where no person looked: every result of it is "simulated from masks" (or saliency); '
    "empty where a person did",
)
_RECORDING = Column("recording_id", "text", "", "the sitting")
_SOURCE = Column("source_id", "text", "", "the recording it was detected in, or the import it came with")
_ANNOTATOR = Column("annotator", "text", "", "pseudonym of who looked")
_IMAGE = Column("image_id", "text", "", "the image; see images")
_TARGET = Column("target_id", "text", "", "the target looked for; empty while viewing freely")
_PRESENCE = Column(
    "presence",
    "text",
    "",
    "the annotator's word on the target: present, absent, unsure, ungradable, or empty",
)

RECORDINGS = (
    _RECORDING,
    _ANNOTATOR,
    Column("tracker", "text", "", "source of the samples"),
    Column("started_utc", "text", "ISO 8601", "when the sitting began"),
    Column("rate_hz", "float", "Hz", "the tracker's nominal sampling rate, empty where unknown"),
    Column("samples", "integer", "", "number of samples in its file"),
    Column("screen_width_px", "integer", "px", "the screen's width"),
    Column("screen_height_px", "integer", "px", "the screen's height"),
    Column("screen_width_mm", "float", "mm", "the screen's width"),
    Column("screen_height_mm", "float", "mm", "the screen's height"),
    Column("viewing_distance_mm", "float", "mm", "from the eyes to the screen"),
    Column(
        "validation_mean_error_deg", "float", "deg", "mean error on fresh targets; empty where not validated"
    ),
    Column("validation_max_error_deg", "float", "deg", "largest error on fresh targets"),
    Column(
        "validation_rms_s2s_deg", "float", "deg", "precision: root mean square of sample-to-sample distances"
    ),
    Column("validation_data_loss", "float", "0..1", "share of invalid samples while validating"),
    _SIMULATED,
)
PLACEMENTS = (
    _RECORDING,
    Column("number", "integer", "", "from 0, in the order of their starts"),
    _IMAGE,
    _TARGET,
    Column("start_ns", "integer", "ns", "shown from, on the clock of time_ns"),
    Column("end_ns", "integer", "ns", "shown until"),
    *(
        Column(f"image_from_screen_{row}{column}", "float", "",
               "entry of the 3x3 matrix, row then column, that takes (x, y, 1) in screen pixels to image pixels, "
               "pixel centres at whole numbers")
        for row in range(3)
        for column in range(3)
    ),
    Column("viewport_x_px", "integer", "px", "left edge of the canvas on the screen"),
    Column("viewport_y_px", "integer", "px", "top edge of the canvas on the screen"),
    Column("viewport_width_px", "integer", "px", "width of the canvas"),
    Column("viewport_height_px", "integer", "px", "height of the canvas"),
    Column("window_centre", "float", "the image's own", "grey value in the middle of the display window, if any"),
    Column("window_width", "float", "the image's own", "width of the display window, if any"),
    _PRESENCE,
    Column("instance", "integer", "", "number of the lesion looked at, where several are told apart"),
    _SIMULATED,
)  # fmt: skip
LOOKS = (
    _SOURCE,
    Column("look", "integer", "", "number of the look, from 0; fixations refer to it"),
    _ANNOTATOR,
    _IMAGE,
    _TARGET,
    Column("fixations", "integer", "", "their number"),
    Column(
        "viewing_ms", "float", "ms", "how long the image was shown; of imports, until the last fixation's end"
    ),
    Column("detector", "text", "", 'how the fixations were detected; "imported" where another program did'),
    Column("degrees_per_px", "float", "deg/px", "degrees that one image pixel covered; empty where unknown"),
    Column("accuracy_deg", "float", "deg", "validated mean error of the sitting; empty where unknown"),
    _PRESENCE,
    _SIMULATED,
)
FIXATIONS = (
    Column("look", "integer", "", "the look it belongs to; see looks"),
    _SOURCE,
    _ANNOTATOR,
    _IMAGE,
    _TARGET,
    Column("start_ms", "float", "ms", "since the image's onset; negative where it began before"),
    Column("duration_ms", "float", "ms", "of the part during which the image was shown"),
    Column("x_px", "float", "px", "position in image pixels, pixel centres at whole numbers, from the left"),
    Column("y_px", "float", "px", "position in image pixels, pixel centres at whole numbers, from the top"),
    Column("dispersion_deg", "float", "deg", "root mean square distance of the samples from their mean"),
    Column("instance", "integer", "", "number of the lesion looked at, where several are told apart"),
    _SIMULATED,
)
IMAGES = (
    _IMAGE,
    Column("name", "text", "", "the image file's own name, or its pseudonym where it was de-identified"),
    Column("width_px", "integer", "px", "number of columns"),
    Column("height_px", "integer", "px", "number of rows"),
    Column("split", "text", "", "part of the study; test is never trained on"),
    Column("modality", "text", "", "photo, ct, mr, us, xr, nm or grey"),
    Column("slice_index", "integer", "", "place in the volume, from 0; empty for an image on its own"),
)

Values = dict[str, Sequence[Any] | npt.NDArray[Any]]


def write_tables(selection: Selection, folder: Path, tally: Tally, progress: Progress, kind: Kind) -> None:
    """Write samples, recordings, placements, looks, fixations and images as tables, and what their columns mean.

    Raises
    ------
    UserError
        If pyarrow is missing for Parquet, or the disk refuses.
    """
    if kind == "parquet":
        pyarrow()
    recordings: list[tuple[Any, ...]] = []
    placements: list[tuple[Any, ...]] = []
    for recording in selection.each_recording(tally, progress):
        tally.take(recording)
        samples = recording.samples
        columns: Values = {column.name: samples[column.name] for column in SAMPLE_COLUMNS}
        facts = {"recording_id": recording.id, "annotator": recording.annotator}
        if recording.simulated_from:
            facts["simulated"] = simulated_words(recording.simulated_from)
        name = f"{recording.id}{'.simulated' if recording.simulated_from else ''}"
        _write(folder / "samples" / name, SAMPLE_COLUMNS, columns, kind, facts)
        recordings.append(_recording_row(recording))
        placements += _placement_rows(recording)
    ids = selection.study.recording_ids()
    looks = [
        (
            public_source(item.source, ids), number, item.annotator, item.image_id, item.target_id,
            len(item.duration_ms), item.viewing_ms, item.detector, item.degrees_per_px, item.accuracy_deg,
            item.presence, item.simulated_from,
        )
        for number, item in enumerate(selection.looks)
    ]  # fmt: skip
    fixations = [
        row for number, item in enumerate(selection.looks) for row in _fixation_rows(number, item, ids)
    ]
    for item in selection.looks:
        tally.add(item)
    images = [
        (
            image.id, image.source_name, image.shape[1], image.shape[0], image.split, image.modality,
            image.slice_index,
        )
        for image in selection.images.values()
        if image.id in tally.images
    ]  # fmt: skip
    tables = {
        "recordings": (RECORDINGS, recordings),
        "placements": (PLACEMENTS, placements),
        "looks": (LOOKS, looks),
        "fixations": (FIXATIONS, fixations),
        "images": (IMAGES, images),
    }
    for name, (layout, rows) in tables.items():
        facts = {"simulated": simulated_words(tally.simulated_from)} if tally.simulated_from else {}
        _write(folder / name, layout, _columns(layout, rows), kind, facts)
    _write_dictionary(selection, folder, tally, kind)


def _recording_row(recording: Recording) -> tuple[Any, ...]:
    geometry, found = recording.geometry, recording.calibration
    validation = (
        (None,) * 4
        if found is None
        else (found.mean_error_deg, found.max_error_deg, found.rms_s2s_deg, found.data_loss)
    )
    return (
        recording.id, recording.annotator, recording.tracker, recording.started_utc,
        recording.notes.get("rate_hz"), len(recording.time_ns), geometry.width_px, geometry.height_px,
        geometry.width_mm, geometry.height_mm, geometry.viewing_distance_mm, *validation,
        recording.simulated_from,
    )  # fmt: skip


def _placement_rows(recording: Recording) -> Iterator[tuple[Any, ...]]:
    for number, place in enumerate(recording.placements):
        yield (
            recording.id, number, place.image_id, place.target_id, place.start_ns, place.end_ns,
            *place.image_from_screen.ravel().tolist(), *place.viewport_px,
            *(place.window_level or (None, None)), place.presence, place.instance, recording.simulated_from,
        )  # fmt: skip


def _fixation_rows(number: int, item: Fixations, ids: Sequence[str]) -> Iterator[tuple[Any, ...]]:
    source = public_source(item.source, ids)
    instances = [None] * len(item.duration_ms) if item.instance is None else item.instance.tolist()
    for start, duration, (x, y), spread, instance in zip(
        item.start_ms.tolist(), item.duration_ms.tolist(), item.xy_px.tolist(), item.dispersion_deg.tolist(),
        instances, strict=True,
    ):  # fmt: skip
        yield (
            number, source, item.annotator, item.image_id, item.target_id, start, duration, x, y,
            None if spread != spread else spread, instance, item.simulated_from,
        )  # fmt: skip


def _columns(layout: Sequence[Column], rows: Sequence[tuple[Any, ...]]) -> Values:
    columns = zip(*rows, strict=True) if rows else [()] * len(layout)
    return {column.name: list(values) for column, values in zip(layout, columns, strict=True)}


def _write(stem: Path, layout: Sequence[Column], values: Values, kind: Kind, facts: dict[str, str]) -> None:
    path = stem.with_name(f"{stem.name}.{kind}")
    with explained_os_errors(path):
        path.parent.mkdir(exist_ok=True)
        # Opened here, so that a full disk is told by the system and not by a library.
        with open(path, "wb") as stream:
            if kind == "parquet":
                _write_parquet(stream, layout, values, facts)
            else:
                _write_csv(stream, layout, values)


def _write_csv(stream: BinaryIO, layout: Sequence[Column], values: Values) -> None:
    stream.write((",".join(column.name for column in layout) + "\n").encode())
    columns = [values[column.name] for column in layout]
    if all(isinstance(column, np.ndarray) for column in columns):
        # Nine digits are what a 32-bit float needs to come back as it was.
        cells = ",".join("%d" if column.type == "integer" else "%.9g" for column in layout) + "\n"
        for start in range(0, len(columns[0]), ROWS_AT_A_TIME):
            parts = [np.asarray(column[start : start + ROWS_AT_A_TIME]).tolist() for column in columns]
            text = "".join([cells % row for row in zip(*parts, strict=True)])
            stream.write(text.replace("nan", "").encode())
        return
    text_stream = io.StringIO(newline="")
    csv.writer(text_stream, lineterminator="\n").writerows(zip(*columns, strict=True))
    stream.write(text_stream.getvalue().encode())


def _write_parquet(stream: BinaryIO, layout: Sequence[Column], values: Values, facts: dict[str, str]) -> None:
    arrow = pyarrow()
    fields = parquet_fields(layout)
    # NaN becomes null, as an empty cell is in CSV.
    arrays = [
        arrow.array(
            np.ascontiguousarray(found) if isinstance(found := values[column.name], np.ndarray) else found,
            type=field.type,
            from_pandas=True,
        )
        for column, field in zip(layout, fields, strict=True)
    ]
    table = arrow.Table.from_arrays(arrays, schema=arrow.schema(fields, metadata=facts))
    with contextlib.closing(arrow.PythonFile(stream, mode="w")) as file:
        arrow.parquet.write_table(table, file, compression="zstd")


_TABLES: dict[str, tuple[str, Sequence[Column]]] = {
    "samples/<recording id>": (
        "one file a recording, named .simulated where no person looked; one row a sample, in order of time",
        SAMPLE_COLUMNS,
    ),
    "recordings": ("one row a sitting in front of a tracker", RECORDINGS),
    "placements": ("what was shown from when to when, and where on the screen", PLACEMENTS),
    "looks": ("one row for each time that an annotator looked at an image, imported gaze included", LOOKS),
    "fixations": ("one row a fixation, in order of time within a look", FIXATIONS),
    "images": ("the images that the gaze fell on; their pixels are not part of this export", IMAGES),
}


def _write_dictionary(selection: Selection, folder: Path, tally: Tally, kind: Kind) -> None:
    simulated = simulated_words(tally.simulated_from)
    dictionary = {
        "program": program(),
        "study": selection.study.name,
        "gaze": simulated or "of people",
        "targets": {target.id: target.name for target in selection.study.targets},
        "tables": {
            f"{name}.{kind}": {
                "description": about,
                "columns": {
                    column.name: {
                        "type": column.type, "unit": column.unit, "description": column.description
                    }
                    for column in layout
                },
            }
            for name, (about, layout) in _TABLES.items()
        },
    }  # fmt: skip
    write_json_atomic(folder / "dictionary.json", dictionary)
    lines = [
        f"Gaze of the study {selection.study.name}, exported by {program()}.",
        "",
        *(
            [
                f"Gaze in this export is {simulated}: no person looked where the column simulated_from says so.",
                "Results made of it must say so, too.",
                "",
            ]
            if simulated
            else []
        ),
        "Annotators are pseudonyms. Empty cells (null in Parquet) mean: no value.",
        "Fixations are in pixels of the image; samples are shares of the screen. A placement's matrix takes a",
        "sample to the image: multiply it by the screen's size in pixels, then apply image_from_screen.",
        "",
        *(f"{name}.{kind}: {about}." for name, (about, _) in _TABLES.items()),
        "dictionary.json: every column's type, unit and meaning.",
        "",
    ]
    write_bytes_atomic(folder / "README.txt", "\n".join(lines).encode())
