"""Files of samples become recordings of a study, with fixations where the eye rested on the images."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from app.cli import run_command
from gaze_capture.errors import UserError
from gaze_capture.formats.gaze_file import Known
from gaze_capture.recording_codec import read_recording
from segmentation.gaze_import import ShownAt, import_gaze
from segmentation.importing import import_images
from segmentation.study import Study
from segmentation.verification import verify
from tests.gaze_files import (
    KNOWN,
    LOOK_S,
    LOOKS,
    SCREEN_PX,
    eyelink,
    gazepoint,
    pro_lab,
    pupil_surface,
    written,
    xdf,
)

RECT = (480, 180, 960, 720)
"""Where the export's pictures were; the study's images have 64 x 48 pixels, so 15 screen pixels are one of theirs."""


@pytest.fixture
def with_images(study: Study, image_folder: Path) -> Study:
    import_images(study, [image_folder / "images"])
    return study


def expected(look: int) -> np.ndarray[tuple[int, ...], np.dtype[np.float64]]:
    """Return where on its image the eye rested."""
    screen = np.array(LOOKS[look]) * SCREEN_PX
    place: np.ndarray[tuple[int, ...], np.dtype[np.float64]] = (screen - RECT[:2]) / 15 - 0.5
    return place


def test_a_pro_lab_export_becomes_a_recording(with_images: Study, tmp_path: Path) -> None:
    file = written(tmp_path / "export.tsv", pro_lab(names=("case_0.png", "stranger.png", "case_1.png")))
    report = import_gaze(with_images, file, annotator="ann")
    assert (report.images, report.unknown_images, report.format) == (2, ("stranger.png",), "tobii-tsv")
    assert (report.samples, report.already_there) == (192, False)
    assert report.recording is not None
    folder = with_images.recordings_folder / report.recording
    assert (folder / "original.tsv").read_bytes() == file.read_bytes()
    recording = read_recording(folder)
    assert (recording.annotator, recording.tracker) == ("ann", "Tobii Pro Lab file")
    assert recording.geometry.width_mm == pytest.approx(530, abs=0.1)
    assert recording.simulated_from is None
    assert [place.image_id for place in recording.placements] == ["case_0", "case_1"]
    assert recording.placements[0].viewport_px == RECT
    assert recording.notes["format"] == "tobii-tsv" and recording.notes["remarks"]
    (first,) = with_images.fixations["case_0", "target"]
    assert first.detector == "adaptive I-VT"
    np.testing.assert_allclose(first.xy_px[0], expected(0), atol=0.2)
    assert first.degrees_per_px == pytest.approx(15 * recording.geometry.degrees_per_screen_px)
    (second,) = with_images.fixations["case_1", "target"]
    np.testing.assert_allclose(second.xy_px[-1], expected(3), atol=0.2)
    assert not verify(with_images).problems


def test_the_same_file_comes_in_once(with_images: Study, tmp_path: Path) -> None:
    file = written(tmp_path / "export.tsv", pro_lab())
    report = import_gaze(with_images, file)
    again = import_gaze(with_images, file)
    assert again.already_there and again.recording == report.recording
    assert (again.images, again.fixations) == (report.images, report.fixations)
    assert len(with_images.recording_ids()) == 1
    with pytest.raises(UserError, match="count its gaze twice"):
        import_gaze(with_images, file, fixations="own")
    # Another person's look at it is another matter.
    assert not import_gaze(with_images, file, annotator="other").already_there
    assert len(with_images.recording_ids()) == 2


def test_an_import_that_was_cut_short_is_finished(with_images: Study, tmp_path: Path) -> None:
    file = written(tmp_path / "export.tsv", pro_lab())
    report = import_gaze(with_images, file)
    for name in ("fixations.csv", "fixations.json"):
        (with_images.recordings_folder / str(report.recording) / name).unlink()
    with_images.refresh()
    assert not with_images.fixations
    assert import_gaze(with_images, file).fixations == report.fixations
    assert len(with_images.recording_ids()) == 1


@pytest.mark.parametrize("name", ["eyelink", "pro lab", "gazepoint"])
def test_own_fixations_instead_of_detected_ones(with_images: Study, tmp_path: Path, name: str) -> None:
    known, shown_at = None, None
    if name == "eyelink":
        file = written(tmp_path / "e.asc", eyelink())
    elif name == "pro lab":
        file = written(tmp_path / "p.tsv", pro_lab())
    else:
        file = written(tmp_path / "g.csv", gazepoint())
        known, shown_at = KNOWN, ShownAt(rect_px=RECT)
    report = import_gaze(with_images, file, known=known, shown_at=shown_at, fixations="own")
    assert (report.recording, report.images, report.fixations, report.dropped) == (None, 2, 4, 0)
    assert not with_images.recording_ids()
    (first,) = with_images.fixations["case_0", "target"]
    assert (first.detector, first.source) == ("imported", report.source)
    np.testing.assert_allclose(first.xy_px[1], expected(1), atol=0.1)
    # EyeLink's picture came 20 ms after the eye had come to rest.
    onset = -20 if name == "eyelink" else 0
    np.testing.assert_allclose(first.start_ms, [onset, 1e3 * LOOK_S + onset], atol=1)
    lasted = {"eyelink": (360, 380), "pro lab": (400, 400), "gazepoint": (383, 383)}[name]
    np.testing.assert_allclose(first.duration_ms, lasted, atol=1)
    assert first.degrees_per_px is not None
    assert any("each eye" in note for note in report.notes) == (name == "eyelink")
    assert import_gaze(with_images, file, known=known, shown_at=shown_at, fixations="own").already_there
    assert len(with_images.fixations["case_0", "target"]) == 1
    with pytest.raises(UserError, match="count its gaze twice"):
        import_gaze(with_images, file, known=known, shown_at=shown_at)
    assert not verify(with_images).problems


def test_where_and_which_image_is_asked_for(with_images: Study, tmp_path: Path) -> None:
    without_rect = written(tmp_path / "g.csv", gazepoint())
    with pytest.raises(UserError, match=r"--image-rect X,Y,W,H, or with --fit"):
        import_gaze(with_images, without_rect, known=KNOWN)
    without_image = written(tmp_path / "gaze_positions_on_surface_S.csv", pupil_surface())
    with pytest.raises(UserError, match="--image NAME"):
        import_gaze(with_images, without_image, known=KNOWN, shown_at=ShownAt(fit=True))
    with pytest.raises(UserError, match="leave --image away"):
        import_gaze(with_images, without_rect, known=KNOWN, shown_at=ShownAt("case_0", fit=True))
    with pytest.raises(UserError, match="'case_9', which is not in the study"):
        import_gaze(with_images, without_image, known=KNOWN, shown_at=ShownAt("case_9", fit=True))
    with pytest.raises(UserError, match="leave --image-width-deg away"):
        import_gaze(with_images, without_image, known=KNOWN, image_width_deg=20)
    with pytest.raises(UserError, match="no fixations of its own"):
        import_gaze(
            with_images, without_image, known=KNOWN, shown_at=ShownAt("case_0", fit=True), fixations="own"
        )
    assert not with_images.recording_ids() and not (with_images.folder / "fixations").exists()


def test_a_fitted_image_fills_the_screen_from_its_middle(with_images: Study, tmp_path: Path) -> None:
    file = written(tmp_path / "gaze_positions_on_surface_S.csv", pupil_surface())
    report = import_gaze(with_images, file, known=KNOWN, shown_at=ShownAt("case_2.png", fit=True))
    assert report.images == 1
    (found,) = with_images.fixations["case_2", "target"]
    # 64 x 48 on 1920 x 1080: 22.5 screen pixels are one of the image's, 240 are left on each side.
    screen = np.array(LOOKS[0]) * SCREEN_PX
    np.testing.assert_allclose(found.xy_px[0], (screen - [240, 0]) / 22.5 - 0.5, atol=0.1)
    assert len(found.duration_ms) == len(LOOKS)


def test_streams_and_targets(with_images: Study, tmp_path: Path) -> None:
    from tests.gaze_files import BINOCULAR

    file = written(tmp_path / "x.xdf", xdf(streams=(("A", BINOCULAR), ("B", BINOCULAR))))
    for stream in ("A", "B"):
        known = Known(KNOWN.screen_px, KNOWN.screen_mm, KNOWN.distance_mm, stream=stream)
        report = import_gaze(
            with_images, file, known=known, shown_at=ShownAt(rect_px=RECT), simulated_from="masks"
        )
        assert not report.already_there
    assert len(with_images.recording_ids()) == 2
    assert with_images.simulated_from() == "masks"


def test_gaze_beside_the_image_is_counted(with_images: Study, tmp_path: Path) -> None:
    file = written(tmp_path / "g.csv", gazepoint())
    report = import_gaze(with_images, file, known=KNOWN, shown_at=ShownAt(rect_px=(0, 0, 640, 480)))
    assert report.outside_image > 0


def test_a_table_of_fixations_takes_no_screen(with_images: Study, tmp_path: Path) -> None:
    header = "IMAGE,CURRENT_FIX_INDEX,CURRENT_FIX_X,CURRENT_FIX_Y,CURRENT_FIX_DURATION"
    file = written(tmp_path / "t.csv", f"{header}\ncase_0,1,0.5,0.5,200\n")
    with pytest.raises(UserError, match="leave those options away"):
        import_gaze(with_images, file, known=KNOWN)
    assert import_gaze(with_images, file).format == "gazemedseg"


# The command line


def test_import_and_inspect_by_command(
    with_images: Study, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    def run(*words: object) -> tuple[int, str, str]:
        status = run_command([str(word) for word in words])
        out, err = capsys.readouterr()
        return status, out, err

    file = written(tmp_path / "g.csv", gazepoint(eyes=True))
    screen = ("--screen-px", "1920x1080", "--screen-mm", "530x300", "--distance-mm", "640")
    status, _, err = run("import-gaze", with_images.folder, file)
    assert status == 1 and "--screen-px WxH" in err
    status, _, err = run("import-gaze", with_images.folder, file, *screen)
    assert status == 1 and "--image-rect" in err
    words = (
        "import-gaze",
        with_images.folder,
        file,
        *screen,
        "--image-rect",
        "480,180,960,720",
        "--eye",
        "left",
    )
    status, out, _ = run(*words, "--json")
    values = json.loads(out)
    assert status == 0
    assert (values["format"], values["samples"], values["images"]) == ("gazepoint-csv", 96, 2)
    assert values["recording"] == values["source"] == with_images.recording_ids()[0]
    status, out, _ = run(*words)
    assert status == 0 and "in the study already" in out and len(with_images.recording_ids()) == 1

    status, out, _ = run("inspect-gaze", file, *screen, "--json")
    values = json.loads(out)
    assert status == 0
    assert values["samples"] == 96 and values["rate_hz"] == pytest.approx(60, rel=0.001)
    assert values["own"] == {"count": 4, "median_ms": pytest.approx(383, abs=1)}
    assert values["f1"] == 1
    assert values["loss"]["left"] == pytest.approx(1 / 96)
    assert [item["name"] for item in values["shown"]] == ["case_0.png", "case_1.png"]
    status, out, _ = run("inspect-gaze", file, *screen)
    assert status == 0 and "96 samples at 60.00 Hz" in out and "F1 at half overlap) 1.000" in out
    status, _, err = run("inspect-gaze", tmp_path / "none.csv")
    assert status == 1 and "none.csv" in err
    assert run("inspect-gaze", file, "--format", "nonsense")[0] == 2
    assert run(*words, "--fit")[0] == 2
