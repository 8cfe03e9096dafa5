"""Images, masks and gaze from outside: taken whole, or named with a reason."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt
import pytest

from gaze_capture.errors import UserError
from segmentation.gaze_import import import_gaze
from segmentation.images import read_image
from segmentation.importing import import_images
from segmentation.records import Target
from segmentation.study import Study
from tests.pictures import read_display


def write_image(path: Path, pixels: npt.NDArray[Any]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    ok, data = cv2.imencode(path.suffix, pixels)
    assert ok
    path.write_bytes(data.tobytes())


def noise(seed: int, *shape: int, dtype: str = "uint8") -> npt.NDArray[Any]:
    rng = np.random.default_rng(seed)
    return rng.integers(0, np.iinfo(dtype).max, shape or (20, 30, 3), dtype=dtype)


def gaze_csv(path: Path, names: list[str], header: str | None = None) -> Path:
    header = (
        header or "IMAGE,CURRENT_FIX_INDEX,CURRENT_FIX_X,CURRENT_FIX_Y,CURRENT_FIX_DURATION,CURRENT_FIX_START"
    )
    rows = [
        f"{name},{index},{0.3 + index / 10},{0.5},{200 + index},{index * 250}"
        for name in names
        for index in (1, 2, 3)
    ]
    path.write_text("\n".join([header, *rows]) + "\n")
    return path


def test_every_format_and_depth(study: Study, tmp_path: Path) -> None:
    raw = tmp_path / "raw"
    write_image(raw / "a.png", noise(1))
    write_image(raw / "deep" / "b.jpg", noise(2))
    write_image(raw / "deep" / "er" / "c.tif", noise(3, 20, 30, dtype="uint16"))
    write_image(raw / "d.bmp", noise(4))
    write_image(raw / "e.tiff", noise(5))
    report = import_images(study, [raw])
    assert len(report.imported) == 5
    assert not report.skipped
    shapes = {image.id: image.shape for image in study.images.values()}
    assert shapes == {
        "a": (20, 30, 3),
        "b": (20, 30, 3),
        "c": (20, 30, 1),
        "d": (20, 30, 3),
        "e": (20, 30, 3),
    }
    deep = read_image(study.image_path(study.image("c")))
    np.testing.assert_allclose(deep[:, :, 0] * 65535, noise(3, 20, 30, dtype="uint16"), atol=0.01)
    assert read_display(study.image_path(study.image("c"))).shape == (20, 30, 3)


def test_colour_order_is_rgb(tmp_path: Path) -> None:
    red_in_bgr = np.zeros((4, 4, 3), dtype=np.uint8)
    red_in_bgr[..., 2] = 255
    write_image(tmp_path / "red.png", red_in_bgr)
    np.testing.assert_array_equal(read_image(tmp_path / "red.png")[0, 0], [1, 0, 0])


def test_masks_find_their_images(study: Study, image_folder: Path) -> None:
    report = import_images(study, [image_folder / "images"], masks=image_folder / "masks", split="train")
    assert (len(report.imported), report.masks, report.skipped) == (6, 6, ())
    mask = study.true_mask("case_0", "target")
    assert mask is not None
    assert mask.shape == study.image("case_0").shape[:2]
    assert 0.03 < mask.mean() < 0.2


def test_equal_names_get_ids_of_their_own(study: Study, tmp_path: Path) -> None:
    write_image(tmp_path / "raw" / "p1" / "image.png", noise(1))
    write_image(tmp_path / "raw" / "p2" / "IMAGE.png", noise(2))
    for patient in ("p1", "p2"):
        mask = np.zeros((20, 30), dtype=np.uint8)
        mask[: 5 if patient == "p1" else 10] = 255
        write_image(tmp_path / "masks" / patient / "image.png", mask)
    report = import_images(study, [tmp_path / "raw"], masks=tmp_path / "masks", group_by=r"/(p\d)/")
    first, second = (study.image(image_id) for image_id in report.imported)
    assert first.id.casefold() != second.id.casefold()
    assert (first.group, second.group) == ("p1", "p2")
    masks = [study.true_mask(image.id, "target") for image in (first, second)]
    assert [mask.sum() for mask in masks if mask is not None] == [150, 300]
    with pytest.raises(UserError, match="fits several images"):
        import_gaze(study, gaze_csv(tmp_path / "gaze.csv", ["image"]))


def test_duplicates_are_found_by_content(study: Study, image_folder: Path) -> None:
    import_images(study, [image_folder / "images"])
    shutil.copy(image_folder / "images" / "case_0.png", image_folder / "images" / "again.png")
    report = import_images(study, [image_folder / "images"], masks=image_folder / "masks")
    assert not report.imported
    assert len(report.duplicates) == 7
    assert report.masks == 6
    assert len(study.images) == 6


def test_unreadable_files_are_named_and_the_rest_goes_on(study: Study, image_folder: Path) -> None:
    folder = image_folder / "images"
    (folder / "empty.png").write_bytes(b"")
    (folder / "text.png").write_text("not an image")
    (folder / "cut.png").write_bytes((folder / "case_0.png").read_bytes()[:100])
    report = import_images(study, [folder])
    assert len(report.imported) == 6
    reasons = {Path(file).name: reason for file, reason in report.skipped}
    assert set(reasons) == {"empty.png", "text.png", "cut.png"}
    assert "0 bytes" in reasons["empty.png"]
    assert all(name in reason for name, reason in reasons.items())


def test_nothing_to_import(study: Study, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    with pytest.raises(UserError, match="holds no images"):
        import_images(study, [tmp_path / "empty"])
    (tmp_path / "empty" / "a.png").write_text("x")
    with pytest.raises(UserError, match="None of 1 files could be read"):
        import_images(study, [tmp_path / "empty"])
    with pytest.raises(UserError, match="does not exist"):
        import_images(study, [tmp_path / "nowhere"])
    assert not study.images


def test_a_mask_of_another_size_is_left_out(study: Study, image_folder: Path) -> None:
    write_image(image_folder / "masks" / "case_1.png", np.full((10, 10), 255, dtype=np.uint8))
    report = import_images(study, [image_folder / "images"], masks=image_folder / "masks")
    assert len(report.imported) == 6
    assert report.masks == 5
    assert "10 x 10" in report.skipped[0][1]
    assert study.true_mask("case_1", "target") is None


def test_a_read_only_study_is_left_as_it_was(
    study: Study, image_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import errno
    import os

    def refuse(*_: object, **__: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device", str(study.folder / "images"))

    import_images(study, [image_folder / "images" / "case_0.png"])
    monkeypatch.setattr(os, "replace", refuse)
    with pytest.raises(UserError, match="disk is full"):
        import_images(study, [image_folder / "images"])
    monkeypatch.undo()
    again = Study.open(study.folder)
    assert list(again.images) == ["case_0"]
    assert not [path for path in study.folder.rglob("*.part")]


def test_gaze_lands_on_its_image(study: Study, image_folder: Path, tmp_path: Path) -> None:
    import_images(study, [image_folder / "images"])
    report = import_gaze(
        study, gaze_csv(tmp_path / "g.csv", ["case_0", "case_3.png", "stranger"]), annotator="ann"
    )
    assert (report.images, report.fixations, report.unknown_images) == (2, 6, ("stranger",))
    (fixations,) = study.fixations["case_0", "target"]
    # 0.4 of 64 columns; pixel centres lie at whole numbers.
    np.testing.assert_allclose(fixations.xy_px[0], [0.4 * 64 - 0.5, 0.5 * 48 - 0.5])
    assert fixations.annotator == "ann"
    assert fixations.degrees_per_px is None
    assert ("case_1", "target") not in study.fixations


def test_gaze_imported_twice_is_there_once(study: Study, image_folder: Path, tmp_path: Path) -> None:
    import_images(study, [image_folder / "images"])
    file = gaze_csv(tmp_path / "g.csv", ["case_0"])
    assert not import_gaze(study, file).already_there
    assert import_gaze(study, file, image_width_deg=20).already_there
    (fixations,) = study.fixations["case_0", "target"]
    assert fixations.degrees_per_px == pytest.approx(20 / 64)


def test_gaze_is_of_a_target(image_folder: Path, tmp_path: Path) -> None:
    study = Study.create(tmp_path / "two", targets=[Target("gland", "Gland"), Target("zone", "Zone")])
    import_images(study, [image_folder / "images"])
    file = gaze_csv(tmp_path / "g.csv", ["case_0"])
    import_gaze(study, file)
    import_gaze(study, file, target="zone")
    assert set(study.fixations) == {("case_0", "gland"), ("case_0", "zone")}
    with pytest.raises(UserError, match="no target 'liver'"):
        import_gaze(study, file, target="liver")


def test_gaze_that_cannot_be_placed(study: Study, image_folder: Path, tmp_path: Path) -> None:
    file = gaze_csv(tmp_path / "g.csv", ["stranger"])
    with pytest.raises(UserError, match="no images yet"):
        import_gaze(study, file)
    import_images(study, [image_folder / "images"])
    with pytest.raises(UserError, match="'stranger', which is not in the study"):
        import_gaze(study, file)
    with pytest.raises(UserError, match=r"2 images, none of them in the study \(the first is 'stranger'\)"):
        import_gaze(study, gaze_csv(tmp_path / "two.csv", ["stranger", "other"]))
    bad = gaze_csv(
        tmp_path / "b.csv", ["case_0"], header="IMAGE,CURRENT_FIX_INDEX,CURRENT_FIX_X,CURRENT_FIX_Y,DUR,START"
    )
    with pytest.raises(UserError, match="CURRENT_FIX_DURATION"):
        import_gaze(study, bad)
    assert not study.fixations
