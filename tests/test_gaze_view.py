from __future__ import annotations

import base64
import dataclasses
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt
import pytest

from gaze_capture.errors import UserError
from segmentation.burned_in_text import text_boxes
from segmentation.explainers.opening import BackendOptions
from segmentation.explaining import explain_study, question_about
from segmentation.explanation import load_explanation
from segmentation.explanation_settings import ExplanationSettings, ViewSettings, save_settings
from segmentation.gaze_view import BLANK_RGB, CONTOUR_RGB, encode_picture, shown
from segmentation.images import encode_display
from segmentation.questions import Question, blanked_share
from segmentation.records import StudyImage
from segmentation.study import Study
from segmentation.view_geometry import LEAST_PX, box_shown
from tests.chat_server import LIMITS, FakeServer
from tests.test_explanation import add_gazed_images, save_pseudomask


def decoded(data: bytes) -> npt.NDArray[np.uint8]:
    picture = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_UNCHANGED)
    assert picture is not None and picture.dtype == np.uint8
    return np.ascontiguousarray(picture[:, :, ::-1]).astype(np.uint8)


def is_colour(picture: npt.NDArray[np.uint8], colour: tuple[int, int, int]) -> npt.NDArray[np.bool_]:
    found: npt.NDArray[np.bool_] = (picture == colour).all(axis=2)
    return found


def chunks_of(data: bytes) -> set[bytes]:
    kinds, position = set(), 8
    while position < len(data):
        kinds.add(data[position + 4 : position + 8])
        position += 12 + int.from_bytes(data[position : position + 4], "big")
    return kinds


def mucosa(height: int = 400, width: int = 400, seed: int = 0) -> npt.NDArray[np.uint8]:
    noise = np.random.default_rng(seed).normal(0, 6, (height, width, 3))
    smooth = cv2.GaussianBlur(noise.astype(np.float32), (0, 0), 3) * 4
    return np.clip(np.add(smooth, [180, 105, 95]), 0, 255).astype(np.uint8)


def written(pixels: npt.NDArray[np.uint8], text: str, x: int, y: int, scale: float = 0.45) -> Any:
    """Burn text into pixels; return the mask of its strokes."""
    layer = np.zeros(pixels.shape[:2], np.uint8)
    cv2.putText(layer, text, (x, y), cv2.FONT_HERSHEY_SIMPLEX, scale, 255, 1, cv2.LINE_AA)
    alpha = layer[:, :, None] / 255
    pixels[:] = np.rint(pixels * (1 - alpha) + 240 * alpha).astype(np.uint8)
    return layer > 100


def asked(study: Study, pixels: npt.NDArray[np.uint8], region: Any, **view: Any) -> Question:
    """Bring an image into a study and ask about it."""
    (study.folder / "images").mkdir(exist_ok=True)
    (study.folder / "images" / "secret-name.png").write_bytes(encode_display(pixels))
    image = StudyImage("secret-name", "images/secret-name.png", "secret-name.png", "", pixels.shape)
    study.add_images([image])
    save_pseudomask(study, image.id, region)
    save_settings(study, ExplanationSettings(view=ViewSettings(**view)))
    return question_about(study, image, study.target())


def square(height: int = 400, width: int = 400, at: tuple[int, int, int, int] = (200, 150, 80, 60)) -> Any:
    region = np.zeros((height, width), bool)
    x, y, across, down = at
    region[y : y + down, x : x + across] = True
    return region


def test_contour_heatmap_both_and_nothing_are_what_they_say() -> None:
    image = (mucosa() / 255).astype(np.float32)
    region = square()
    heat = cv2.GaussianBlur(region.astype(np.float32), (0, 0), 12)
    heat /= heat.max()
    plain = decoded(encode_picture(image, region, ViewSettings("nothing"), heat))
    assert np.array_equal(plain, np.rint(image * 255))
    contour = decoded(encode_picture(image, region, ViewSettings("contour"), heat))
    rows, columns = np.nonzero(is_colour(contour, CONTOUR_RGB))
    assert (rows.min(), rows.max(), columns.min(), columns.max()) == (150, 209, 200, 279)
    changed = (contour != plain).any(axis=2)
    assert np.array_equal(changed, is_colour(contour, CONTOUR_RGB)), "the rest of the image is as it was"
    blend = decoded(encode_picture(image, region, ViewSettings("heatmap"), heat))
    assert not is_colour(blend, CONTOUR_RGB).any()
    assert np.array_equal(blend[heat < 1e-3], plain[heat < 1e-3]), "no gaze, no veil"
    strength = np.abs(blend.astype(float) - plain).sum(axis=2)
    assert strength[heat > 0.9].mean() > 3 * strength[(heat > 0.1) & (heat < 0.3)].mean() > 0
    both = decoded(encode_picture(image, region, ViewSettings("both"), heat))
    line = is_colour(contour, CONTOUR_RGB)
    assert is_colour(both, CONTOUR_RGB)[line].all() and np.array_equal(both[~line], blend[~line])


@pytest.mark.parametrize(
    ("shape", "at", "margin", "expected"),
    [
        ((400, 400), (200, 150, 80, 60), 0.5, (160, 120, 160, 120)),
        ((400, 400), (0, 0, 100, 100), 0.5, (0, 0, 150, 150)),
        ((400, 400), (380, 390, 20, 10), 0.0, (320, 320, 80, 80)),
        ((2000, 1000), (500, 1000, 1, 1), 1.0, (402, 802, 200, 400)),
        ((30, 1000), (500, 3, 10, 10), 0.2, (405, 0, 200, 30)),
        ((1, 1), (0, 0, 1, 1), 1.0, (0, 0, 1, 1)),
        ((400, 400), (100, 100, 90, 90), 10.0, (0, 0, 400, 400)),
    ],
)
def test_a_crop_has_its_margin_stays_inside_and_keeps_context(
    shape: tuple[int, int], at: tuple[int, int, int, int], margin: float, expected: tuple[int, int, int, int]
) -> None:
    region = square(*shape, at=at)
    x, y, across, down = box_shown(region, ViewSettings(crop_margin=margin))
    assert across == pytest.approx(expected[2], abs=1) and down == pytest.approx(expected[3], abs=1)
    assert x == pytest.approx(expected[0], abs=2) and y == pytest.approx(expected[1], abs=2)
    assert x >= 0 and y >= 0 and x + across <= shape[1] and y + down <= shape[0]
    assert region[y : y + down, x : x + across].sum() == region.sum(), "all of the region is seen"
    assert across >= min(LEAST_PX, shape[1]) and down >= min(LEAST_PX, shape[0])


def test_an_empty_region_shows_the_whole_image_and_says_so(study: Study) -> None:
    question = asked(study, mucosa(), np.zeros((400, 400), bool), crop_margin=0.2)
    seen = shown(question)
    assert (seen.width, seen.height) == (400, 400)
    assert "whole image is shown" in " ".join(seen.notes)
    assert "cyan" not in seen.prompt and "part of the image" not in seen.prompt
    assert not is_colour(decoded(seen.picture_png), CONTOUR_RGB).any()


def test_a_crop_shows_those_very_pixels_and_the_words_say_which(study: Study) -> None:
    pixels = mucosa()
    question = asked(study, pixels, square(), drawn="nothing", crop_margin=0.5)
    seen = shown(question)
    x, y, across, down = question.box
    assert np.array_equal(decoded(seen.picture_png), pixels[y : y + down, x : x + across])
    assert (seen.width, seen.height) == (across, down) == (160, 120)
    assert "spans 40% to 80% of the whole image's width" in seen.prompt
    assert "30% to 60% of its height" in seen.prompt and "covers 12.00% of its area" in seen.prompt
    assert "those of the whole image" in seen.prompt and "fills 6.00% of the image" in seen.prompt
    assert "Nothing is drawn into the picture" in seen.prompt


def test_words_follow_what_is_drawn(study: Study) -> None:
    said = {}
    for drawn in ("contour", "heatmap", "both", "nothing"):
        said[drawn] = shown(asked(study, mucosa(), square(), drawn=drawn)).prompt
        assert ("cyan contour" in said[drawn]) == (drawn in ("contour", "both"))
        assert ("overlay" in said[drawn]) == (drawn in ("heatmap", "both"))
        assert "part of the image" not in said[drawn]
    assert len(set(said.values())) == 4


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("shape", [(1, 1), (1, 4000), (200, 4096), (3, 3), (4096, 64)])
def test_extreme_sizes_can_be_sent(shape: tuple[int, int], channels: int) -> None:
    image = np.random.default_rng(0).random((*shape, channels), np.float32)
    region = np.zeros(shape, bool)
    region[shape[0] // 2, shape[1] // 2] = True
    for view in (ViewSettings("both", side_px=64), ViewSettings("both", crop_margin=0.1)):
        picture = decoded(encode_picture(image, region, view, region.astype(np.float32), [(0, 0, 1, 1)]))
        assert max(picture.shape[:2]) <= view.side_px and picture.shape[2] == 3
        assert is_colour(picture, CONTOUR_RGB).any(), "one pixel of gaze is still marked, as the words say"


def test_ten_thousand_pixels_are_sent_small() -> None:
    image = np.zeros((10_000, 300, 1), np.float32)
    image[5000:] = 0.01
    region = square(10_000, 300, at=(100, 4000, 100, 2000))
    picture = decoded(encode_picture(image, region, ViewSettings()))
    assert picture.shape == (1024, 31, 3)
    assert picture[10, 2].max() == 0 and picture[-10, 2].min() == 255, "faint greys are stretched"


def test_a_crop_is_as_bright_as_the_image_around_it() -> None:
    image = np.tile(np.linspace(0, 0.02, 400, dtype=np.float32), (400, 1))[:, :, None]
    region = square()
    whole = decoded(encode_picture(image, region, ViewSettings("nothing")))
    crop = decoded(encode_picture(image, region, ViewSettings("nothing", crop_margin=0.5)))
    assert np.array_equal(crop, whole[120:240, 160:320])


def test_only_pixels_leave(study: Study) -> None:
    pixels = mucosa()
    question = asked(study, pixels, square())
    path = study.folder / "images" / "secret-name.png"
    data = path.read_bytes()
    note = b"Patient\0Doe^Jane"
    chunk = len(note).to_bytes(4, "big") + b"tEXt" + note
    import zlib

    path.write_bytes(data[:33] + chunk + zlib.crc32(chunk[4:]).to_bytes(4, "big") + data[33:])
    assert b"tEXt" in path.read_bytes()
    seen = shown(question)
    assert chunks_of(seen.picture_png) == {b"IHDR", b"IDAT", b"IEND"}
    assert b"Doe" not in seen.picture_png and "secret-name" not in seen.prompt and "Doe" not in repr(seen)


def test_text_is_found_with_all_its_strokes_and_nothing_else_is() -> None:
    found, strokes = 0.0, 0
    for seed in range(12):
        pixels = mucosa(seed=seed)
        assert text_boxes(pixels) == ()
        text = written(
            pixels, f"{seed + 10}/07/19{60 + seed}", 40 + 10 * seed, 60 + 20 * seed, 0.4 + 0.02 * seed
        )
        covered = np.zeros(text.shape, bool)
        for x, y, across, down in text_boxes(pixels):
            covered[y : y + down, x : x + across] = True
        found += (covered & text).sum() / text.sum()
        strokes += 1
        assert covered.mean() < 0.05
    assert found / strokes > 0.9


def test_blanked_text_is_gone_from_the_copy_and_stays_in_the_study(study: Study) -> None:
    pixels = mucosa()
    text = written(pixels, "12/07/1961 DOE", 20, 40)
    stored = pixels.copy()
    plain = shown(asked(study, pixels, square(), drawn="nothing"))
    question = asked(study, pixels, square(), drawn="nothing", mask_text=True)
    seen = shown(question)
    assert seen.picture_sha256 != plain.picture_sha256 and "filled with grey" not in plain.prompt
    picture = decoded(seen.picture_png)
    assert is_colour(picture, BLANK_RGB)[text].all()
    assert np.array_equal(study.shown(question.image), stored)
    assert "rectangle" in seen.prompt and "to hide what looks like text" in seen.prompt
    assert "They hide" not in seen.prompt and blanked_share(question) == 0
    assert any("filled with grey" in note for note in seen.notes)


def test_blanking_within_the_gazed_region_is_said(study: Study) -> None:
    pixels = mucosa()
    written(pixels, "12/07/1961 DOE", 205, 190)
    question = asked(study, pixels, square(at=(180, 150, 160, 80)), mask_text=True)
    share = blanked_share(question)
    assert 0.05 < share < 0.9
    assert f"They hide {share:.1%} of the region" in shown(question).prompt


def test_text_is_blanked_also_where_the_picture_is_shrunk_and_cropped(study: Study) -> None:
    pixels = mucosa(1200, 1600)
    text = written(pixels, "12/07/1961", 700, 640, 1.1)
    question = asked(
        study,
        pixels,
        square(1200, 1600, at=(600, 500, 500, 300)),
        mask_text=True,
        crop_margin=0.3,
        side_px=256,
    )
    picture = decoded(shown(question).picture_png)
    x, y, across, down = question.box
    small = cv2.resize(
        text[y : y + down, x : x + across].astype(np.float32),
        picture.shape[1::-1],
        interpolation=cv2.INTER_AREA,
    )
    assert (small > 0).any()
    drawn_over = is_colour(picture, BLANK_RGB) | is_colour(picture, CONTOUR_RGB)
    assert drawn_over[small > 0.02].all(), "not even half a pixel of a letter is left"


def test_text_that_is_marked_but_not_found_keeps_the_image_back(study: Study) -> None:
    question = asked(study, mucosa(), square(), mask_text=True)
    assert "Nothing in it looks like text" in shown(question).notes[0]
    study.add_images([dataclasses.replace(question.image, burned_in="the header says so")])
    again = question_about(study, study.image(question.image.id), study.target())
    with pytest.raises(UserError, match=r"secret-name is marked for text .* gaze-insight blank"):
        shown(again)
    unmasked = dataclasses.replace(again, view=ViewSettings())
    assert "which is not blanked" in shown(unmasked).notes[0]


def test_what_is_previewed_is_what_is_sent_byte_for_byte(
    chat_server: FakeServer, study: Study, image_folder: Path
) -> None:
    ids = add_gazed_images(study, image_folder)
    view = ViewSettings("both", crop_margin=0.25, side_px=128, mask_text=True)
    save_settings(study, ExplanationSettings(view=view))
    previews = {image: shown(question_about(study, study.image(image), study.target())) for image in ids}
    assert explain_study(study, BackendOptions("openai", chat_server.url, "m", LIMITS)).done == 3
    sent = []
    for _, _, body in chat_server.asked:
        words, picture = body["messages"][0]["content"]
        sent.append((words["text"], base64.b64decode(picture["image_url"]["url"].partition(",")[2])))
    assert sorted(sent) == sorted((one.prompt, one.picture_png) for one in previews.values())
    for image, preview in previews.items():
        explanation = load_explanation(study, image, "target")
        assert explanation is not None
        assert (explanation.picture_sha256, explanation.prompt) == (preview.picture_sha256, preview.prompt)


def test_text_in_a_large_image_is_found_where_it_stands() -> None:
    pixels = mucosa(2400, 3200)
    text = written(pixels, "12/07/1961 DOE", 1800, 2000, 1.3)
    covered = np.zeros(text.shape, bool)
    for x, y, across, down in text_boxes(pixels):
        covered[y : y + down, x : x + across] = True
    assert covered[text].mean() > 0.95 and covered.mean() < 0.02
