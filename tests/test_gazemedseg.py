from pathlib import Path

import numpy as np
import pytest

from gaze_capture.errors import UserError
from gaze_capture.formats.gazemedseg import read_gazemedseg

KVASIR = Path(__file__).parents[2] / "shared/data/kvasir_seg/train/fixations.csv"
HEADER = "IMAGE,CURRENT_FIX_INDEX,CURRENT_FIX_X,CURRENT_FIX_Y,CURRENT_FIX_DURATION"


def written(path: Path, text: str) -> Path:
    path.write_bytes(text.encode())
    return path


def test_fixations_come_back_by_image_in_order(tmp_path: Path) -> None:
    file = written(
        tmp_path / "gaze.csv",
        f"{HEADER},CURRENT_FIX_PUPIL,CURRENT_FIX_START,IMAGE_HEIGHT,IMAGE_WIDTH\n"
        "b.png,2,0.3,0.4,200,3.5,260,480,640\n"
        "a.png,1,0.1,0.2,150,.,5,100,50\n"
        "b.png,1,0.5,0.6,250,,0,480,640\n",
    )
    table = read_gazemedseg(file)
    assert list(table.images) == ["b.png", "a.png"]
    assert (table.fixations, table.dropped, table.outside, table.repeated) == (3, 0, 0, 0)
    b = table.images["b.png"]
    np.testing.assert_array_equal(b.xy, [[0.5, 0.6], [0.3, 0.4]])
    np.testing.assert_array_equal(b.start_ms, [0, 260])
    np.testing.assert_array_equal(b.duration_ms, [250, 200])
    np.testing.assert_array_equal(b.pupil, [np.nan, 3.5])
    assert (b.shape, table.images["a.png"].shape) == ((480, 640), (100, 50))


def test_without_starts_the_durations_are_added_up(tmp_path: Path) -> None:
    file = written(tmp_path / "gaze.csv", f"{HEADER}\na,1,0.1,0.2,150\na,2,0.1,0.2,100\na,3,0.1,0.2,50\n")
    gaze = read_gazemedseg(file).images["a"]
    np.testing.assert_array_equal(gaze.start_ms, [0, 150, 250])
    assert np.isnan(gaze.pupil).all()
    assert gaze.shape is None


@pytest.mark.parametrize("separator", [",", ";", "\t"])
@pytest.mark.parametrize("ending", ["\n", "\r\n"])
@pytest.mark.parametrize("start", ["", "\ufeff"])
def test_other_separators_endings_and_a_bom_are_read(
    tmp_path: Path, separator: str, ending: str, start: str
) -> None:
    rows = [HEADER, "Größe 1.png,1,0.1,0.2,150", "", "Größe 1.png,2,0.3,0.4,100"]
    text = start + ending.join(row.replace(",", separator) for row in rows) + ending
    table = read_gazemedseg(written(tmp_path / "gaze.csv", text))
    np.testing.assert_array_equal(table.images["Größe 1.png"].xy, [[0.1, 0.2], [0.3, 0.4]])


def test_what_is_odd_is_counted(tmp_path: Path) -> None:
    file = written(
        tmp_path / "gaze.csv",
        f"{HEADER}\na,1,0.1,0.2,0\na,2,0.1,0.2,-5\na,3,0.1,0.2,\na,4,1.2,0.2,80\na,4,0.5,0.2,80\na,5,0.5,0.2,90\nb,1,0.1,0.1,0\n",
    )
    table = read_gazemedseg(file)
    assert (table.fixations, table.dropped, table.outside, table.repeated) == (3, 4, 1, 1)
    np.testing.assert_array_equal(table.images["a"].xy[:, 0], [1.2, 0.5, 0.5])
    assert table.images["b"].xy.shape == (0, 2)


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("", "line 1: the column IMAGE is missing"),
        ("IMAGE,CURRENT_FIX_INDEX,CURRENT_FIX_X\na,1,0.5\n", "line 1: the column CURRENT_FIX_Y is missing"),
        (f"{HEADER}\n", "holds no fixations"),
        (
            f"{HEADER}\na,1,0.1,0.2,150\na,2,oops,0.2,150\n",
            "line 3, column CURRENT_FIX_X: 'oops' is not a number",
        ),
        (f"{HEADER}\na,1,0.1,,150\n", "line 2, column CURRENT_FIX_Y: the value is missing"),
        (f"{HEADER}\na,1,0.1,0.2,inf\n", "line 2, column CURRENT_FIX_DURATION: 'inf' is not a number"),
        (f"{HEADER}\n,1,0.1,0.2,150\n", "line 2, column IMAGE: the image's name is empty"),
        (f"{HEADER}\na,1,0.1\n", "line 2: 3 cells instead of 5"),
        (
            f"{HEADER},IMAGE_HEIGHT,IMAGE_WIDTH\na,1,0.1,0.2,150,0,9\n",
            "column IMAGE_HEIGHT: '0' is not a number of",
        ),
        (
            f"{HEADER}\na,1,120,80,150\na,2,0.4,0.2,150\nb,1,300,20,150\n",
            "shares of the image's width and height",
        ),
    ],
)
def test_bad_files_are_told_by_line_and_column(tmp_path: Path, text: str, told: str) -> None:
    file = written(tmp_path / "gaze.csv", text)
    with pytest.raises(UserError, match=told) as caught:
        read_gazemedseg(file)
    assert str(file) in str(caught.value)


@pytest.mark.parametrize("content", [b"\xff\xfeI\x00M\x00", b"\x89PNG\r\n\x1a\n\x00\x00"])
def test_a_file_of_another_kind_is_told(tmp_path: Path, content: bytes) -> None:
    file = tmp_path / "gaze.csv"
    file.write_bytes(content)
    with pytest.raises(UserError, match=r"gaze\.csv"):
        read_gazemedseg(file)
    with pytest.raises(UserError, match=r"absent\.csv"):
        read_gazemedseg(tmp_path / "absent.csv")


@pytest.mark.skipif(not KVASIR.exists(), reason="shared/data/kvasir_seg is not beside this checkout")
def test_a_real_file() -> None:
    table = read_gazemedseg(KVASIR)
    assert len(table.images) == 800
    assert table.fixations == pytest.approx(25982, abs=50)
    assert (table.dropped, table.repeated) == (0, 0)
    assert {gaze.shape for gaze in table.images.values()} == {(352, 352)}
    assert all((np.diff(gaze.start_ms) > 0).all() for gaze in table.images.values())
