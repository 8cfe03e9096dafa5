"""Pictures of gaze: what is drawn lies where the gaze fell, on images of every size, and simulated gaze says so."""

from __future__ import annotations

import json
import subprocess
import sys
import xml.etree.ElementTree as ElementTree
from pathlib import Path

import cv2
import numpy as np
import pytest

from gaze_capture.errors import UserError
from gaze_capture.fixations import Fixations
from segmentation.gaze_pictures import KINDS, LARGEST_PX, SMALLEST_PX, Kind, draw_pictures, picture_of
from segmentation.images import read_stored
from segmentation.picture_drawing import NARROWEST_PX, Pixels, Words, draw_pixels, draw_svg, heat_colours
from segmentation.pseudomask import PseudoMaskSettings
from segmentation.steps import import_images, simulate
from segmentation.study import Study
from tests.test_export import recorded

SVG = "{http://www.w3.org/2000/svg}"
CAPTION = [Words("an image.png", "name"), Words("annotator A"), Words("simulated from masks", "warning")]


def grey(height: int, width: int, value: int = 120) -> Pixels:
    return np.full((height, width, 3), value, dtype=np.uint8)


def gaze(xy: list[list[float]], width: float, duration: float | list[float] = 250.0) -> Fixations:
    count = len(xy)
    return Fixations(
        image_id="a", target_id="target", annotator="A", source="rec-1", start_ms=np.cumsum(np.full(count, 300.0)),
        duration_ms=np.broadcast_to(np.asarray(duration, dtype=float), (count,)),
        xy_px=np.array(xy, dtype=float).reshape(-1, 2), dispersion_deg=np.full(count, 0.2), detector="test",
        degrees_per_px=20 / width, viewing_ms=count * 300.0,
    )  # fmt: skip


def drawn(
    pixels: Pixels, looks: list[Fixations], kind: Kind = "scanpath"
) -> tuple[Pixels, ElementTree.Element]:
    found = picture_of(pixels, looks, kind, PseudoMaskSettings(), CAPTION)
    return draw_pixels(found), ElementTree.fromstring(draw_svg(found).encode())


@pytest.mark.parametrize(
    ("height", "width"),
    [(32, 32), (8, 32), (1, 1), (352, 352), (200, 1600), (1400, 120), (4096, 4096), (3, 3000)],
)
@pytest.mark.parametrize("kind", KINDS)
def test_images_of_every_size_are_drawn(height: int, width: int, kind: Kind) -> None:
    look = gaze([[width / 2, height / 2], [width / 3, height / 4]], width)
    picture, svg = drawn(grey(height, width), [look], kind)
    plan = picture_of(grey(height, width), [look], kind, PseudoMaskSettings(), CAPTION)
    assert SMALLEST_PX <= max(plan.base.shape[:2]) <= LARGEST_PX
    assert picture.shape == (plan.height, plan.width, 3) and plan.width >= NARROWEST_PX
    assert (svg.get("width"), svg.get("height")) == (str(plan.width), str(plan.height))
    assert (picture[: plan.base.shape[0]] != 120).any()


def test_a_circle_lies_around_its_fixation_with_an_area_by_duration() -> None:
    """A fixation in the middle of pixel (10, 20) of 48 x 48 is drawn in the middle of its 20 x 20 square."""
    look = gaze([[10, 20], [40, 20]], 48, [250.0, 1000.0])
    plan = picture_of(grey(48, 48), [look], "scanpath", PseudoMaskSettings(), CAPTION)
    np.testing.assert_allclose(plan.circles[:, :2], [[210, 410], [810, 410]])
    assert plan.circles[1, 2] == pytest.approx(2 * plan.circles[0, 2])
    # The line runs from edge to edge.
    (x0, y0), (x1, y1) = plan.saccades[0].tolist()
    assert (x0, y0, x1, y1) == pytest.approx((210 + plan.circles[0, 2], 410, 810 - plan.circles[1, 2], 410))
    picture = draw_pixels(plan)
    # The ring, and nothing beyond its halo.
    radius = round(float(plan.circles[1, 2]))
    assert picture[410 + radius, 810].min() > 230
    assert (picture[410 + radius + 8, 810] == 120).all()


@pytest.mark.parametrize("value", [0, 120, 255])
def test_lines_and_numbers_stand_out_on_dark_and_bright_images(value: int) -> None:
    look = gaze([[10, 20], [40, 20]], 48, [250.0, 1000.0])
    plan = picture_of(grey(48, 48, value), [look], "scanpath", PseudoMaskSettings(), CAPTION)
    image = draw_pixels(plan)[: plan.base.shape[0]].astype(int).max(axis=2)
    middle = round(float(plan.saccades[0][:, 0].mean()))
    across = image[400:421, middle]
    assert across.max() - across.min() > 90
    label = plan.labels[1]
    around = image[round(label.y) - 8 : round(label.y) + 8, round(label.x) - 8 : round(label.x) + 8]
    assert around.max() > 240 and around.min() < 70


def test_numbers_avoid_each_other() -> None:
    rng = np.random.default_rng(3)
    look = gaze(np.clip(rng.normal(176, 60, (40, 2)), 0, 351).tolist(), 352)
    plan = picture_of(grey(352, 352), [look], "scanpath", PseudoMaskSettings(), CAPTION)
    assert [label.text for label in plan.labels] == [str(number) for number in range(1, 41)]
    places = np.array([[label.x, label.y] for label in plan.labels])
    apart = np.abs(places[:, np.newaxis] - places) >= [0.9 * plan.font_px, 0.6 * plan.font_px]
    covered = np.triu(~apart.any(axis=2), 1).sum()
    assert covered <= 2


def test_the_heatmap_is_hottest_where_the_gaze_was_and_clear_where_it_was_not() -> None:
    look = gaze([[80, 100], [80, 100], [82, 99]], 352)
    found = picture_of(grey(352, 352), [look], "heatmap", PseudoMaskSettings(), CAPTION)
    assert found.heat is not None and len(found.circles) == 0
    scale = found.base.shape[1] / 352
    row, column = np.unravel_index(np.argmax(found.heat), found.heat.shape)
    np.testing.assert_allclose([column, row], np.array([80.5, 100]) * scale, atol=2 * scale)
    picture = draw_pixels(found)
    assert (picture[row, column].astype(int) - [252, 255, 164]).max() < 20
    assert (picture[-200, 900] == 120).all()
    assert (
        np.diff(heat_colours(np.linspace(0, 1, 50, dtype=np.float32)[np.newaxis])[0, :, 3].astype(int)) > 0
    ).all()


def test_an_image_without_a_fixation_is_drawn_as_it_is() -> None:
    for kind in KINDS:
        picture, _ = drawn(grey(400, 400), [gaze([], 400)], kind)
        assert (picture[:SMALLEST_PX] == 120).all()


def test_two_looks_are_not_joined_and_gaze_outside_is_hidden() -> None:
    first, second = gaze([[10, 10], [40, 10]], 100), gaze([[10, 90], [-30, 90]], 100)
    plan = picture_of(grey(100, 100), [first, second], "scanpath", PseudoMaskSettings(), CAPTION)
    assert len(plan.saccades) == 2 and len(plan.circles) == 4
    assert [label.text for label in plan.labels] == ["1", "2", "3"]
    assert draw_pixels(plan).shape == (plan.height, plan.width, 3)


def test_the_svg_holds_image_numbers_and_caption() -> None:
    name = Words('a & b <"c">\x07 Größe.png', "name")
    look = gaze([[10, 20], [40, 20]], 48)
    plan = picture_of(grey(48, 48), [look], "scanpath", PseudoMaskSettings(), [name, *CAPTION[1:]])
    svg = ElementTree.fromstring(draw_svg(plan).encode())
    texts = ["".join(text.itertext()) for text in svg.iter(f"{SVG}text")]
    assert texts.count("1") >= 1 and texts.count("2") >= 1
    assert 'a & b <"c">� Größe.png' in texts
    assert any("simulated from masks" in text for text in texts)
    image = next(svg.iter(f"{SVG}image")).get("{http://www.w3.org/1999/xlink}href") or ""
    assert image.startswith("data:image/jpeg;base64,")
    assert len(list(svg.iter(f"{SVG}circle"))) == 4


# Of a study


@pytest.fixture
def looked_at(study: Study, image_folder: Path) -> Study:
    import_images(study, [image_folder / "images"])
    images = list(study.images)
    recorded(study, "rec-1", "A-1", images[:3])
    recorded(study, "rec-2", "B", images[2:4])
    return Study.open(study.folder)


def test_each_annotator_and_image_gets_a_picture(looked_at: Study, tmp_path: Path) -> None:
    report = draw_pictures(looked_at, tmp_path / "out", kinds=KINDS)
    names = sorted(path.name for path in (tmp_path / "out").iterdir())
    assert report.pictures == len(names) == 10 and report.images == 4 and report.failed == ()
    assert names[:2] == ["case_0.A-1.heatmap.png", "case_0.A-1.scanpath.png"]
    assert {"case_2.A-1.scanpath.png", "case_2.B.scanpath.png"} <= set(names)
    for name in names:
        assert read_stored(tmp_path / "out" / name).shape[1] == SMALLEST_PX


def test_choices_narrow_what_is_drawn(looked_at: Study, tmp_path: Path) -> None:
    draw_pictures(looked_at, tmp_path / "out", annotators=["B"], images=["case_2"], as_type="svg")
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["case_2.B.scanpath.svg"]
    with pytest.raises(UserError, match="no gaze of these annotators on these images"):
        draw_pictures(looked_at, tmp_path / "other", annotators=["B"], images=["case_0"])
    with pytest.raises(UserError, match="no image 'case_77'"):
        draw_pictures(looked_at, tmp_path / "other", images=["case_77"])
    with pytest.raises(UserError, match="no gaze of the annotator 'C'"):
        draw_pictures(looked_at, tmp_path / "other", annotators=["C"])
    with pytest.raises(UserError, match="is not empty"):
        draw_pictures(looked_at, tmp_path / "out")
    assert not (tmp_path / "other").exists()


def test_16_bit_images_are_shown_by_their_window(study: Study, tmp_path: Path) -> None:
    values = (np.linspace(1000, 3000, 64 * 64).reshape(64, 64)).astype(np.uint16)
    cv2.imwrite(str(tmp_path / "deep.png"), values)
    import_images(study, [tmp_path / "deep.png"])
    recorded(study, "rec-1", "A", ["deep"])
    draw_pictures(study, tmp_path / "out")
    picture = read_stored(tmp_path / "out" / "deep.A.scanpath.png")
    assert picture.dtype == np.uint8
    assert picture[4, 4].max() < 10 and picture[SMALLEST_PX - 4, SMALLEST_PX - 4].min() > 245


def test_an_image_that_cannot_be_read_is_named_and_the_rest_is_drawn(
    looked_at: Study, tmp_path: Path
) -> None:
    broken = looked_at.image_path(looked_at.image("case_1"))
    broken.write_bytes(b"nothing")
    report = draw_pictures(looked_at, tmp_path / "out")
    assert [image for image, _ in report.failed] == ["case_1"]
    assert report.images == 3 and len(list((tmp_path / "out").iterdir())) == 4


def test_simulated_gaze_says_so_in_its_picture(study: Study, image_folder: Path, tmp_path: Path) -> None:
    import_images(study, [image_folder / "images" / "case_0.png"], masks=image_folder / "masks")
    simulate(study)
    draw_pictures(study, tmp_path / "out", as_type="svg")
    text = (tmp_path / "out" / "case_0.simulated.scanpath.svg").read_text()
    assert ">simulated from masks</tspan>" in text
    assert ">tracker simulated</tspan>" in text


def test_the_command_line_draws(looked_at: Study, tmp_path: Path) -> None:
    command = [sys.executable, "-m", "app", "pictures", str(looked_at.folder), "--to", str(tmp_path / "out")]
    finished = subprocess.run(
        [*command, "--kind", "both", "--as", "svg", "--annotator", "A-1", "--json"],
        capture_output=True, text=True, timeout=120, check=True,
    )  # fmt: skip
    assert json.loads(finished.stdout)["pictures"] == 6
    again = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
    assert again.returncode == 1 and "is not empty" in again.stderr and "Traceback" not in again.stderr
