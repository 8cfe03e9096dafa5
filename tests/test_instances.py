"""Several lesions of one target: told apart while recording, each with a peak of its own in the heatmap."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import numpy as np
import pytest

from gaze_capture.errors import UserError
from gaze_capture.fixation_table import read_fixation_table, write_fixation_table
from gaze_capture.fixations import Fixations, fixations_of
from gaze_capture.recording import Placement, ScreenGeometry
from gaze_capture.recording_codec import RecordingHeader, RecordingWriter, read_recording
from gaze_capture.synthetic_eye import Script, TrackerQuality, measure
from segmentation.dwell import NO_LESION, clusters_of
from segmentation.pseudomask import (
    Lesions,
    PseudoMask,
    PseudoMaskSettings,
    make_pseudomask,
)
from segmentation.study import Study

GEOMETRY = ScreenGeometry(1000, 1000, 300.0, 300.0, 600.0)
SCREEN = (0, 0, 1000, 1000)
LARGE, SMALL = (30.0, 40.0), (90.0, 80.0)


def record(folder: Path, instances: tuple[int | None, ...]) -> None:
    """Record one place looked at for 600 ms in each placement of one image."""
    quality = TrackerQuality(0, 0.5, 0, 0, 150, 0)
    spots = np.array([[-4.0, 0.0], [4.0, 2.0]])[np.arange(len(instances)) % 2]
    script = Script(spots, np.full(len(instances), 600.0))
    time_ms = np.arange(0, script.end_ms, 4)
    time_ns = np.round(time_ms * 1e6).astype(np.int64)
    samples = measure(script.track(time_ms), time_ns, time_ns, GEOMETRY, quality, np.random.default_rng(0))
    header = RecordingHeader("rec", "ann", "simulated", GEOMETRY, "2026-01-01T00:00:00+00:00")
    starts = np.round(script.start_ms * 1e6).astype(int).tolist()
    with RecordingWriter(folder, header) as writer:
        for start, end, instance in zip(starts, [*starts[1:], int(time_ns[-1])], instances, strict=True):
            number = writer.start_placement(
                Placement("img", "polyp", start, start, np.eye(3), SCREEN, instance=instance)
            )
            writer.add_samples(samples[(time_ns >= start) & (time_ns < end)])
            writer.end_placement(number, end)


def test_a_lesions_number_is_kept_from_the_placement_to_the_table(tmp_path: Path) -> None:
    record(tmp_path / "rec", (0, 3, None))
    recording = read_recording(tmp_path / "rec")
    assert [placement.instance for placement in recording.placements] == [0, 3, None]
    found = fixations_of(recording)
    assert [None if item.instance is None else item.instance.tolist() for item in found] == [[0], [3], None]
    write_fixation_table(tmp_path / "fixations.csv", found)
    again = read_fixation_table(tmp_path / "fixations.csv")
    assert [None if item.instance is None else item.instance.tolist() for item in again] == [[0], [3], None]


def test_recordings_from_before_know_no_lesions(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from gaze_capture import recording_codec

    whole = recording_codec._json_bytes

    def older(value: object) -> bytes:
        if isinstance(value, dict):
            value = {name: item for name, item in value.items() if name != "instance"}
        return whole(value)

    monkeypatch.setattr(recording_codec, "_json_bytes", older)
    record(tmp_path / "rec", (0, 1))
    assert b'"instance"' not in (tmp_path / "rec" / "gaze.frames").read_bytes()
    assert [placement.instance for placement in read_recording(tmp_path / "rec").placements] == [None, None]


# In the heatmap


def looks(*lesions: tuple[tuple[float, float], float, int | None], source: str = "rec") -> list[Fixations]:
    """One Fixations a lesion, as a recording of several placements gives: (place, milliseconds, number)."""
    return [
        Fixations(
            image_id="img",
            target_id="polyp",
            annotator=source,
            source=source,
            start_ms=np.array([100.0, 500.0]),
            duration_ms=np.full(2, duration / 2),
            xy_px=np.array([place, (place[0] + 2, place[1] - 2)]),
            dispersion_deg=np.zeros(2),
            detector="test",
            degrees_per_px=0.2,
            instance=None if number is None else np.full(2, number),
        )
        for place, duration, number in lesions
    ]


def made(fixations: list[Fixations], lesions: Lesions) -> PseudoMask:
    image = np.full((120, 120, 1), 0.5, dtype=np.float32)
    pseudomask = make_pseudomask(
        image, fixations, PseudoMaskSettings("degrees", refine="none", lesions=lesions), "polyp"
    )
    assert pseudomask is not None
    return pseudomask


def level_at(pseudomask: PseudoMask, place: tuple[float, float]) -> int:
    return int(pseudomask.level_map[round(place[1]), round(place[0])])


@pytest.mark.parametrize(
    ("rule", "numbers", "expected"),
    [
        ("annotated", (0, 1), 2),
        ("annotated", (None, None), 0),
        ("clusters", (None, None), 2),
        ("clusters", (0, 1), 2),
        ("together", (0, 1), 0),
    ],
)
def test_a_second_briefly_seen_lesion_does_not_fall_under_the_threshold(
    rule: Lesions, numbers: tuple[int | None, int | None], expected: int
) -> None:
    fixations = looks((LARGE, 4000, numbers[0]), (SMALL, 700, numbers[1]))
    pseudomask = made(fixations, rule)
    assert level_at(pseudomask, LARGE) == 2
    assert level_at(pseudomask, SMALL) == expected
    assert pseudomask.notes["lesions"] == (2 if expected else 1)
    # What was measured stays as it was, whatever is made of it.
    np.testing.assert_array_equal(pseudomask.dwell, made(fixations, "together").dwell)


def test_a_stray_glance_is_no_lesion() -> None:
    pseudomask = made(looks((LARGE, 4000, None), (SMALL, 300, None)), "clusters")
    assert level_at(pseudomask, SMALL) == 0
    assert pseudomask.notes["lesions"] == 1
    np.testing.assert_array_equal(
        pseudomask.heatmap, made(looks((LARGE, 4000, None), (SMALL, 300, None)), "together").heatmap
    )


def test_glances_beside_annotated_lesions_stay_low() -> None:
    stray = (100.0, 20.0)
    pseudomask = made(looks((LARGE, 4000, 0), (SMALL, 700, 1), (stray, 400, None)), "annotated")
    assert [level_at(pseudomask, place) for place in (LARGE, SMALL, stray)] == [2, 2, 0]


def test_numbers_of_one_sitting_mean_nothing_in_another() -> None:
    # Each annotator calls another lesion their first; the second one's look was short.
    fixations = looks((LARGE, 4000, 0), source="a") + looks((SMALL, 500, 0), source="b")
    pseudomask = made(fixations, "annotated")
    assert level_at(pseudomask, LARGE) == level_at(pseudomask, SMALL) == 2
    # Placements of one sitting, zoomed in and out, share their lesion.
    zoomed = made(looks((LARGE, 4000, 0), (SMALL, 500, 0)), "annotated")
    assert level_at(zoomed, SMALL) == 0


def test_one_lesion_looked_at_in_several_places_is_one() -> None:
    rng = np.random.default_rng(0)
    for _ in range(20):
        xy = rng.normal(60, 9, (15, 2))
        labels = clusters_of(xy, np.full(15, 250.0), np.full((15, 2), 8.0), (120, 120))
        assert (labels == NO_LESION).all()
    apart = np.concatenate([rng.normal(25, 3, (10, 2)), rng.normal(95, 3, (6, 2)), [[25.0, 100.0]]])
    labels = clusters_of(apart, np.full(17, 250.0), np.full((17, 2), 8.0), (120, 120))
    assert len(set(labels[:10])) == len(set(labels[10:16])) == 1
    assert labels[0] != labels[10] and NO_LESION not in labels[:16]
    assert labels[16] == NO_LESION, "one of seventeen fixations"


@pytest.mark.parametrize("shape", [(1, 1), (1, 40), (700, 3)])
def test_any_size_is_taken(shape: tuple[int, int]) -> None:
    xy = np.array([[0.0, 0.0], [shape[1] - 1.0, shape[0] - 1.0]])
    assert len(clusters_of(xy, np.full(2, 300.0), np.full((2, 2), 2.0), shape)) == 2


def test_the_setting_is_stored_and_checked(study: Study) -> None:
    settings = PseudoMaskSettings(lesions="clusters")
    study.set_pseudomask_settings(settings)
    assert Study.open(study.folder).pseudomask_settings.lesions == "clusters"
    before = {name: value for name, value in dataclasses.asdict(settings).items() if name != "lesions"}
    assert PseudoMaskSettings.from_json(json.loads(json.dumps(before))).lesions == "annotated"
    with pytest.raises(UserError, match="annotated, clusters, together"):
        PseudoMaskSettings(lesions="apart")  # type: ignore[arg-type]
