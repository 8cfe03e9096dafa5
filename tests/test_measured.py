from __future__ import annotations

import json
import math
import time
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt
import pytest

from segmentation.explanation_presets import CANNOT_ASSESS, load_preset
from segmentation.images import decode_mask, read_image
from segmentation.measured import Numbers, describe, grid_word, measure_region, measured_text
from segmentation.reply import check_attributes

Mask = npt.NDArray[np.bool_]
Image = npt.NDArray[np.float32]


def ellipse(
    shape: tuple[int, int], centre: tuple[float, float], axes: tuple[float, float], degrees: float = 0
) -> Mask:
    """Make a filled ellipse; centre and axes are x, y in pixels."""
    rows, columns = np.mgrid[: shape[0], : shape[1]]
    angle = math.radians(degrees)
    x, y = columns - centre[0], rows - centre[1]
    along, across = x * math.cos(angle) + y * math.sin(angle), y * math.cos(angle) - x * math.sin(angle)
    inside: Mask = (along / axes[0]) ** 2 + (across / axes[1]) ** 2 <= 1
    return inside


def painted(
    region: Mask, inside: tuple[float, ...], outside: tuple[float, ...], noise: float = 0.01
) -> Image:
    """Paint a region and its surroundings in two colours, with a little noise."""
    values = np.where(region[:, :, np.newaxis], inside, outside)
    noisy = values + np.random.default_rng(0).normal(0, noise, values.shape)
    return np.clip(noisy, 0, 1).astype(np.float32)


def measured(
    region: Mask, inside: tuple[float, ...] = (0.6,), outside: tuple[float, ...] = (0.4,)
) -> dict[str, Any]:
    return measure_region(painted(region, inside, outside), region)


def words(
    region: Mask, inside: tuple[float, ...] = (0.6,), outside: tuple[float, ...] = (0.4,)
) -> dict[str, Any]:
    return describe(measured(region, inside, outside))


@pytest.mark.parametrize("axes", [(50, 50), (80, 40), (60, 45), (90, 18), (12, 6)])
@pytest.mark.parametrize("degrees", [0, 30, 90])
def test_form_of_ellipses_is_that_of_the_formulas(axes: tuple[int, int], degrees: int) -> None:
    wide, narrow = axes
    numbers = measured(ellipse((300, 400), (210.0, 140.0), axes, degrees))
    assert numbers["area_percent"] == pytest.approx(100 * math.pi * wide * narrow / 120000, rel=0.03)
    assert numbers["centre_x"] * 400 - 0.5 == pytest.approx(210, abs=0.3)
    assert numbers["centre_y"] * 300 - 0.5 == pytest.approx(140, abs=0.3)
    assert numbers["eccentricity"] == pytest.approx(math.sqrt(1 - (narrow / wide) ** 2), abs=0.03)
    assert numbers["solidity"] == pytest.approx(1, abs=0.05)
    h = ((wide - narrow) / (wide + narrow)) ** 2
    perimeter = math.pi * (wide + narrow) * (1 + 3 * h / (10 + math.sqrt(4 - 3 * h)))
    assert numbers["circularity"] == pytest.approx(
        4 * math.pi * math.pi * wide * narrow / perimeter**2, abs=0.06
    )
    assert numbers["components"] == 1


@pytest.mark.parametrize(
    ("axes", "word"), [((60, 60), "round"), ((60, 40), "oval"), ((80, 30), "elongated")]
)  # fmt: skip
def test_shapes_have_words(axes: tuple[int, int], word: str) -> None:
    assert words(ellipse((300, 400), (200, 150), axes, 20))["shape"] == word


def test_dents_make_a_shape_lobulated_and_arms_make_it_irregular() -> None:
    two = ellipse((300, 400), (155, 150), (50, 50)) | ellipse((300, 400), (245, 150), (50, 50))
    assert words(two)["shape"] == "lobulated"
    cross = ellipse((300, 400), (200, 150), (100, 14)) | ellipse((300, 400), (200, 150), (14, 100))
    assert words(cross)["shape"] == "irregular"


def test_jags_and_holes_of_a_refiner_are_not_the_shape() -> None:
    disc = ellipse((300, 300), (150, 150), (60, 60))
    rng = np.random.default_rng(1)
    jagged = disc & (rng.random(disc.shape) > 0.15) | (
        ellipse(disc.shape, (150, 150), (62, 62)) & (rng.random(disc.shape) > 0.5)
    )
    jagged[140:150, 140:150] = False
    assert measured(jagged)["circularity"] == pytest.approx(1, abs=0.08)
    assert words(jagged)["shape"] == "round" and words(jagged)["count"] == "one"


def test_parts_are_counted_and_specks_are_not() -> None:
    shape = (200, 300)
    region = ellipse(shape, (60, 60), (30, 30)) | ellipse(shape, (240, 140), (20, 20))
    region[5, 290] = True
    numbers = measured(region)
    assert numbers["components"] == 2
    assert words(region)["count"] == "two"
    assert words(region)["location"] == "upper left", "the place is that of the largest part"
    assert words(region | ellipse(shape, (150, 100), (15, 15)))["count"] == "several"


@pytest.mark.parametrize(("x", "y", "word"), [
    (0.1, 0.1, "upper left"), (0.5, 0.2, "upper centre"), (0.9, 0.3, "upper right"),
    (0.2, 0.5, "centre left"), (0.5, 0.5, "centre"), (0.7, 0.4, "centre right"),
    (0.3, 0.8, "lower left"), (0.4, 0.9, "lower centre"), (0.99, 0.99, "lower right"),
])  # fmt: skip
def test_grid(x: float, y: float, word: str) -> None:
    assert grid_word(x, y) == word and word in load_preset()["location"].words


@pytest.mark.parametrize(
    ("inside", "outside", "intensity"),
    [(0.9, 0.3, "much brighter"), (0.5, 0.5, "similar"), (0.1, 0.6, "much darker")],
)
def test_grey_contrast_has_the_right_sign(inside: float, outside: float, intensity: str) -> None:
    region = ellipse((200, 200), (90, 100), (40, 30))
    image = painted(region, (inside,), (outside,), noise=0.05)
    # A patch of each end of the range, as in any real image: greyscale is read relative to its own range.
    image[:20], image[-20:] = 0.0, 1.0
    numbers = measure_region(image, region)
    attributes = describe(numbers)
    assert attributes["intensity"] == intensity
    assert attributes["colour"] == attributes["colour_contrast"] == "absent"
    assert numbers["red_green"] is None
    assert numbers["lightness_contrast"] == pytest.approx(100 * (inside - outside), abs=3)


def test_sixteen_bit_scans_that_use_little_of_their_range_still_show_contrast() -> None:
    region = ellipse((200, 200), (90, 100), (40, 30))
    image = painted(region, (0.6,), (0.4,), noise=0.05)
    faint = image * np.float32(0.02)
    bright_numbers, faint_numbers = measure_region(image, region), measure_region(faint, region)
    bright = {name: value for name, value in bright_numbers.items() if value is not None}
    assert bright["lightness_contrast"] > 15
    assert {name: faint_numbers[name] for name in bright} == pytest.approx(bright, rel=1e-3, abs=1e-2)


@pytest.mark.parametrize(
    ("inside", "outside", "colour", "contrast"),
    [
        ((0.8, 0.2, 0.15), (0.75, 0.55, 0.5), "red", "redder"),
        ((0.95, 0.75, 0.75), (0.8, 0.3, 0.25), "pink", "paler"),
        ((0.8, 0.75, 0.2), (0.6, 0.55, 0.5), "yellow", "yellower"),
        ((0.2, 0.3, 0.8), (0.5, 0.5, 0.5), "blue", "bluer"),
        ((0.2, 0.6, 0.25), (0.5, 0.5, 0.5), "green", "greener"),
        ((0.42, 0.28, 0.12), (0.8, 0.6, 0.5), "brown", "yellower"),
        ((0.12, 0.1, 0.1), (0.8, 0.5, 0.4), "black", "paler"),
        ((0.97, 0.97, 0.97), (0.8, 0.5, 0.4), "white", "paler"),
        ((0.7, 0.4, 0.3), (0.7, 0.4, 0.3), "red", "similar"),
    ],
)
def test_colours_have_words(
    inside: tuple[float, ...], outside: tuple[float, ...], colour: str, contrast: str
) -> None:
    attributes = words(ellipse((200, 200), (90, 100), (40, 30)), inside, outside)
    assert (attributes["colour"], attributes["colour_contrast"]) == (colour, contrast)


def test_an_endoscopes_black_frame_is_no_surroundings() -> None:
    region = ellipse((200, 200), (60, 100), (30, 30))
    image = painted(region, (0.6, 0.3, 0.25), (0.6, 0.3, 0.25))
    image[:, :32] = 0.0
    assert describe(measure_region(image, region))["intensity"] == "similar"


def test_a_sharp_edge_is_told_from_a_blurred_and_from_none() -> None:
    region = ellipse((256, 256), (120, 130), (50, 40))
    # Structure everywhere, so that an edge is measured against something.
    rng = np.random.default_rng(0)
    background = cv2.GaussianBlur(rng.normal(0, 1, region.shape).astype(np.float32), (0, 0), 3) * 0.4
    ratios = []
    for sigma, height in ((1.0, 0.35), (12.0, 0.35), (1.0, 0.0)):
        soft = cv2.GaussianBlur(region.astype(np.float32), (0, 0), sigma)
        image = (0.3 + height * soft + background)[:, :, np.newaxis].astype(np.float32)
        numbers = measure_region(image, region)
        ratios.append(numbers["boundary_ratio"] or 0.0)
    assert ratios[0] > 8 and 2.5 < ratios[1] < 4
    assert ratios[2] < 2.5, "no edge: the strongest of what is anywhere"


def test_an_edge_is_found_beside_the_outline_of_the_gaze() -> None:
    target = ellipse((256, 256), (120, 130), (50, 40))
    rng = np.random.default_rng(0)
    background = cv2.GaussianBlur(rng.normal(0, 1, target.shape).astype(np.float32), (0, 0), 3) * 0.4
    soft = cv2.GaussianBlur(target.astype(np.float32), (0, 0), 1.0)
    image = (0.3 + 0.35 * soft + background)[:, :, np.newaxis].astype(np.float32)
    own, wider, far = (
        measure_region(image, ellipse((256, 256), (120, 130), (50 + more, 40 + more)))["boundary_ratio"]
        or 0.0
        for more in (0, 8, 24)
    )
    assert wider > 0.9 * own and far < 0.5 * own


def test_texture_words_follow_the_size_of_the_pattern() -> None:
    region = ellipse((256, 256), (128, 128), (70, 70))
    rng = np.random.default_rng(0)
    noise = rng.normal(0, 1, region.shape).astype(np.float32)
    coarse = cv2.GaussianBlur(noise, (0, 0), 3)
    ramp = np.linspace(-1, 1, 256, dtype=np.float32)[np.newaxis] * np.ones((256, 1), np.float32)
    found = []
    for pattern in (noise * 0.002, noise * 0.05, coarse / coarse.std() * 0.08, ramp * 0.6):
        image = (0.5 + pattern)[:, :, np.newaxis].repeat(3, axis=2) * np.array([1.0, 0.8, 0.7])
        found.append(describe(measure_region(np.clip(image, 0, 1).astype(np.float32), region))["texture"])
    assert found == ["smooth", "fine", "coarse", "uneven"]


def one_pixel(shape: tuple[int, int]) -> Mask:
    region = np.zeros(shape, dtype=bool)
    region[shape[0] // 2, shape[1] // 2] = True
    return region


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("shape", [(1, 1), (2, 3), (1, 40), (7, 5), (64, 48), (700, 900)])
@pytest.mark.parametrize("kind", ["empty", "pixel", "whole", "noise", "half"])
@pytest.mark.parametrize("flat", [False, True])
def test_nothing_breaks_it(channels: int, shape: tuple[int, int], kind: str, flat: bool) -> None:
    rng = np.random.default_rng(0)
    region = {
        "empty": np.zeros(shape, dtype=bool),
        "pixel": one_pixel(shape),
        "whole": np.ones(shape, dtype=bool),
        "noise": rng.random(shape) > 0.5,
        "half": np.arange(shape[1])[np.newaxis].repeat(shape[0], axis=0) < shape[1] / 2,
    }[kind]
    image = (
        np.zeros((*shape, channels), np.float32)
        if flat
        else rng.random((*shape, channels)).astype(np.float32)
    )
    numbers = measure_region(image, region)
    json.dumps(numbers, allow_nan=False)
    attributes = describe(numbers)
    assert check_attributes(attributes, load_preset()) == []
    if kind == "empty":
        assert attributes["location"] == CANNOT_ASSESS
    if kind == "whole":
        assert attributes["location"] == "whole image" and attributes["intensity"] == CANNOT_ASSESS
        assert attributes["area_percent"] == 100


def test_a_view_of_a_stack_is_as_good_as_an_array() -> None:
    region = ellipse((60, 80), (30, 20), (15, 10))
    image = painted(region, (0.6, 0.3, 0.2), (0.3, 0.3, 0.3))
    flipped: Numbers = measure_region(image[::-1, ::-1], region[::-1, ::-1])
    plain = measure_region(image, region)
    assert flipped["area_percent"] == plain["area_percent"]
    assert flipped["lightness_contrast"] == pytest.approx(plain["lightness_contrast"], abs=0.5)


def test_sizes_that_differ_are_refused() -> None:
    with pytest.raises(ValueError, match="region of"):
        measure_region(np.zeros((4, 5, 3), np.float32), np.zeros((5, 4), dtype=bool))


def test_text_says_that_it_is_measured() -> None:
    text = measured_text(
        words(ellipse((200, 200), (30, 30), (20, 20)), (0.8, 0.2, 0.2), (0.5, 0.5, 0.5)), load_preset()
    )
    assert text.startswith(
        "Measured from the gazed region: in the upper left of the image, a single region, 3.1"
    )


def test_fast_enough_to_follow_the_gaze() -> None:
    region = ellipse((352, 352), (150, 170), (80, 60))
    image = painted(region, (0.7, 0.3, 0.2), (0.6, 0.4, 0.3))
    measure_region(image, region)
    times = []
    for _ in range(15):
        begin = time.perf_counter()
        describe(measure_region(image, region))
        times.append(time.perf_counter() - begin)
    # 900 images in well under a minute; about 10 ms on one core, with room for a busy machine.
    assert sorted(times)[3] < 0.04


def test_plausible_on_real_images(shared_data: Path) -> None:
    folder = shared_data / "kvasir_seg" / "train"
    paths = sorted((folder / "images").iterdir())[:25]
    assert paths
    differences = []
    for path in paths:
        mask = decode_mask(next((folder / "masks").glob(f"{path.stem}.*")))
        numbers = measure_region(read_image(path), mask)
        attributes = describe(numbers)
        assert check_attributes(attributes, load_preset()) == []
        assert attributes["area_percent"] == pytest.approx(100 * mask.mean(), abs=0.051)
        differences.append(numbers["boundary_ratio"] or 0.0)
        assert attributes["colour"] in ("red", "pink", "orange", "brown", "yellow", "white")
    # True contours lie on edges.
    assert np.median(differences) > 3
