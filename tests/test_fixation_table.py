import dataclasses
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from gaze_capture.errors import UserError
from gaze_capture.fixation_table import read_fixation_table, write_fixation_table
from gaze_capture.fixations import Fixations


def made(count: int, seed: int = 0, **changes: Any) -> Fixations:
    rng = np.random.default_rng(seed)
    values: dict[str, Any] = {
        "image_id": f"image-{seed}",
        "target_id": "polyp",
        "annotator": "anna",
        "source": "20260101-abc",
        "start_ms": np.cumsum(rng.uniform(100, 300, count)) - 200,
        "duration_ms": rng.uniform(60, 900, count),
        "xy_px": rng.uniform(-20, 700, (count, 2)),
        "dispersion_deg": rng.uniform(0.01, 0.5, count),
        "detector": "adaptive I-VT",
        "parameters": {"minimum_ms": 60.0},
        "degrees_per_px": 0.03,
        "accuracy_deg": 0.41,
        "simulated_from": "masks",
        "viewing_ms": 9000.0,
    }
    return Fixations(**(values | changes))


def assert_same(left: Fixations, right: Fixations) -> None:
    for field in dataclasses.fields(Fixations):
        a, b = getattr(left, field.name), getattr(right, field.name)
        if isinstance(a, np.ndarray):
            np.testing.assert_allclose(a, b, atol=6e-4, err_msg=field.name)
        else:
            assert a == b, field.name


def test_round_trip_keeps_everything_and_the_order(tmp_path: Path) -> None:
    path = tmp_path / "new folder" / "fixations.csv"
    written = [
        made(5, 1),
        made(0, 2, presence="absent"),
        made(3, 3, target_id=None, simulated_from=None, accuracy_deg=None, degrees_per_px=None),
        made(2, 1, annotator="bo", image_id='odd, "name"\nwith a line'),
        made(4, 4, instance=np.array([0, 1, 1, 0]), dispersion_deg=np.full(4, np.nan)),
        made(5, 1),
    ]
    write_fixation_table(path, written)
    found = read_fixation_table(path)
    assert len(found) == len(written)
    for left, right in zip(written, found, strict=True):
        assert_same(left, right)
        assert right.xy_px.shape == (len(right.start_ms), 2)
    assert path.read_text().splitlines()[0] == (
        "image_id,target_id,start_ms,duration_ms,x_px,y_px,dispersion_deg,instance"
    )


def test_an_empty_table_is_a_table(tmp_path: Path) -> None:
    write_fixation_table(tmp_path / "fixations.csv", [])
    assert read_fixation_table(tmp_path / "fixations.csv") == []


def test_what_all_images_share_is_written_once(tmp_path: Path) -> None:
    write_fixation_table(tmp_path / "fixations.csv", [made(1, seed) for seed in range(50)])
    text = (tmp_path / "fixations.json").read_text()
    assert text.count("adaptive I-VT") == 1
    assert len(json.loads(text)["images"]) == 50


@pytest.mark.parametrize(
    ("column", "cell", "told"),
    [(3, "abc", "line 3, column duration_ms: 'abc'"), (4, "", "line 3, column x_px: ''")],
)
def test_a_cell_that_is_no_number_is_named(tmp_path: Path, column: int, cell: str, told: str) -> None:
    path = tmp_path / "fixations.csv"
    write_fixation_table(path, [made(4)])
    lines = path.read_text().splitlines()
    cells = lines[2].split(",")
    cells[column] = cell
    lines[2] = ",".join(cells)
    path.write_text("\n".join(lines) + "\n")
    with pytest.raises(UserError, match=told):
        read_fixation_table(path)


def test_files_that_do_not_belong_together_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "fixations.csv"
    write_fixation_table(path, [made(4), made(2, 1)])
    whole = path.read_text().splitlines(keepends=True)
    for kept in (whole[:-1], [*whole, whole[-1]], [whole[0], *reversed(whole[1:])]):
        path.write_text("".join(kept))
        with pytest.raises(UserError, match="do not belong together"):
            read_fixation_table(path)
    path.write_text("".join(whole) + "one,cell\n")
    with pytest.raises(UserError, match="line 8: 2 cells instead of 8"):
        read_fixation_table(path)
    path.write_text("IMAGE,X\n")
    with pytest.raises(UserError, match="not a fixation table"):
        read_fixation_table(path)


def test_missing_damaged_and_newer_headers_are_named(tmp_path: Path) -> None:
    path = tmp_path / "fixations.csv"
    write_fixation_table(path, [made(1)])
    header = path.with_suffix(".json")
    values = json.loads(header.read_text())
    header.write_text(json.dumps(values | {"schema": 99}))
    with pytest.raises(UserError, match="newer Gaze Insight"):
        read_fixation_table(path)
    header.write_text(json.dumps({"schema": 1, "shared": {}, "images": [{}]}))
    with pytest.raises(UserError, match="damaged"):
        read_fixation_table(path)
    header.unlink()
    with pytest.raises(UserError, match=r"fixations\.json is missing"):
        read_fixation_table(path)
    write_fixation_table(path, [made(1)])
    path.unlink()
    with pytest.raises(UserError, match=r"fixations\.csv"):
        read_fixation_table(path)


def test_reading_thirty_thousand_rows(benchmark: object, tmp_path: Path) -> None:
    path = tmp_path / "fixations.csv"
    write_fixation_table(path, [made(37, seed) for seed in range(811)])
    benchmark(read_fixation_table, path)  # type: ignore[operator]
