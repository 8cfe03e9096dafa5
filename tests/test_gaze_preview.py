"""What a gaze file would bring and what it does not tell, found out without storing anything."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from app.gaze_choice import GazeChoice, import_each, once_each, sorted_out
from gaze_capture.errors import MissingFact
from gaze_capture.formats.gaze_file import Known
from gaze_capture.formats.reading import read_gaze_file
from segmentation.gaze_import import ShownAt, import_gaze
from segmentation.gaze_preview import preview_gaze
from segmentation.importing import import_images
from segmentation.study import Study
from tests import test_bids
from tests.gaze_files import (
    BINOCULAR,
    KNOWN,
    SCREEN_MM,
    every_format,
    eyelink,
    gazepoint,
    pro_lab,
    pupil_surface,
    studio,
    written,
    xdf,
)
from tests.test_importing import gaze_csv

SCREEN = ("screen_px", "screen_mm", "distance_mm")


@pytest.fixture
def with_images(study: Study, image_folder: Path) -> Study:
    import_images(study, [image_folder / "images"])
    return study


def stored(study: Study) -> list[Path]:
    return sorted(path for path in study.folder.rglob("*") if path.is_file())


@pytest.mark.parametrize(
    ("content", "name", "missing"),
    [
        (pro_lab(), "p.tsv", ()),
        (studio(), "s.tsv", ("screen_mm",)),
        (eyelink(), "e.asc", ()),
        (gazepoint(), "g.csv", (*SCREEN, "rect_px")),
        (pupil_surface(), "gaze_positions_on_surface_S.csv", (*SCREEN, "image", "rect_px")),
        (xdf(), "x.xdf", (*SCREEN, "rect_px")),
        (xdf(streams=(("A", BINOCULAR), ("B", BINOCULAR))), "two.xdf", ("stream", *SCREEN, "rect_px")),
        (
            xdf(streams=(("A", [("gaze_x", "", "", "", ""), ("gaze_y", "", "", "", "")]),)),
            "mono.xdf",
            ("eye", *SCREEN, "coordinates", "rect_px"),
        ),
        (pro_lab(recordings=("One", "Two")), "r.tsv", ("stream",)),
    ],
)
def test_everything_that_a_file_does_not_tell_is_found_at_once(
    with_images: Study, tmp_path: Path, content: str | bytes, name: str, missing: tuple[str, ...]
) -> None:
    before = stored(with_images)
    preview = preview_gaze(with_images, written(tmp_path / name, content))
    assert (preview.missing, preview.problem) == (missing, "")
    assert preview.is_ready == (not missing)
    assert preview.inspection is not None and preview.inspection.samples > 90
    assert (preview.geometry is None) == bool(set(missing) & set(SCREEN))
    assert stored(with_images) == before


def test_the_errors_name_what_is_missing(tmp_path: Path) -> None:
    with pytest.raises(MissingFact, match="--screen-px WxH --screen-mm WxH --distance-mm D") as raised:
        read_gaze_file(written(tmp_path / "g.csv", gazepoint()))
    assert raised.value.facts == SCREEN
    with pytest.raises(MissingFact) as raised:
        read_gaze_file(written(tmp_path / "s.tsv", studio()))
    assert raised.value.facts == ("screen_mm",)
    two = written(tmp_path / "two.xdf", xdf(streams=(("A", BINOCULAR), ("B", BINOCULAR))))
    with pytest.raises(MissingFact) as raised:
        read_gaze_file(two, known=KNOWN)
    assert (raised.value.facts, raised.value.choices) == (("stream",), ("A", "B"))


def test_with_the_answers_a_preview_is_what_the_import_brings(with_images: Study, tmp_path: Path) -> None:
    for name, (file_name, content, known) in every_format().items():
        file = written(tmp_path / file_name, content)
        first = preview_gaze(with_images, file)
        told = {fact: getattr(KNOWN, fact) for fact in first.missing if hasattr(KNOWN, fact)}
        assert Known(**told) == known, name
        shown_at = ShownAt("case_2" if "image" in first.missing else None, fit="rect_px" in first.missing)
        preview = preview_gaze(with_images, file, known=known, shown_at=shown_at)
        assert preview.is_ready, (name, preview)
        report = import_gaze(with_images, file, known=known, shown_at=shown_at)
        assert preview.inspection is not None
        assert (report.images, report.samples) == (len(preview.found), preview.inspection.samples), name
        assert report.notes == preview.notes


def test_a_table_is_told_by_its_images(with_images: Study, tmp_path: Path) -> None:
    table = gaze_csv(tmp_path / "t.csv", ["case_0", "case_1", "stranger"])
    preview = preview_gaze(with_images, table)
    assert preview.is_table and preview.is_ready
    assert (preview.found, preview.unknown) == (("case_0", "case_1"), ("stranger",))
    assert preview.fixations == 9
    nothing = preview_gaze(with_images, gaze_csv(tmp_path / "n.csv", ["stranger"]))
    assert "not in the study" in nothing.problem and not nothing.is_ready


def test_a_name_of_several_images_asks_for_the_split(
    study: Study, image_folder: Path, tmp_path: Path
) -> None:
    import_images(study, [image_folder / "images"])
    other = tmp_path / "other"
    other.mkdir()
    for number in range(2):
        (other / f"case_{number}.png").write_bytes(
            (image_folder / "masks" / f"case_{number}.png").read_bytes()
        )
    import_images(study, [other], split="test")
    for file in (gaze_csv(tmp_path / "t.csv", ["case_0"]), written(tmp_path / "p.tsv", pro_lab())):
        preview = preview_gaze(study, file)
        assert preview.missing == ("split",) and preview.choices == {"split": ("train", "test")}
        assert preview_gaze(study, file, split="test").is_ready
        assert not sorted_out(study, [file]).plain


def test_what_no_answer_can_help_is_a_problem(with_images: Study, tmp_path: Path) -> None:
    world = written(tmp_path / "w.csv", "world_index,gaze_timestamp,norm_pos_x,norm_pos_y\r\n0,1,0.5,0.5\r\n")
    assert "world camera" in preview_gaze(with_images, world).problem
    nothing = preview_gaze(with_images, written(tmp_path / "n.csv", "a,b\n1,2\n"))
    assert (nothing.format, "no gaze file" in nothing.problem) == ("", True)
    assert "--format" not in nothing.problem, "the window has no such option"
    assert str(tmp_path / "gone.tsv") in preview_gaze(with_images, tmp_path / "gone.tsv").problem
    unseen = written(tmp_path / "u.tsv", pro_lab(names=("x.png", "y.png")))
    assert "2 images, none of them in the study" in preview_gaze(with_images, unseen).problem


def test_a_file_called_like_an_image_is_taken_to_be_of_it(with_images: Study, tmp_path: Path) -> None:
    file = written(tmp_path / "case_3.csv", pupil_surface())
    assert preview_gaze(with_images, file).guessed_image == "case_3"
    assert preview_gaze(with_images, written(tmp_path / "other.csv", pupil_surface())).guessed_image is None


def test_a_bids_recording_is_found_by_its_json_and_read_once(with_images: Study, tmp_path: Path) -> None:
    physio = test_bids.written(tmp_path / "bids", test_bids.a_recording())
    other = physio.with_name(physio.name.replace("eye1", "eye2"))
    assert other.exists()
    assert once_each([physio, other]) == [physio]
    preview = preview_gaze(with_images, physio)
    assert preview.format == "bids" and preview.inspection is not None
    assert all(preview.inspection.loss[eye] is not None for eye in ("left", "right"))
    assert sorted_out(with_images, [physio, other]).files == (physio,)
    for sidecar in physio.parent.glob("*_physio.json"):
        values = json.loads(sidecar.read_text())
        for column in ("timestamp", "x_coordinate", "y_coordinate"):
            values[column].pop("Units")
        sidecar.write_text(json.dumps(values))
    assert {"time_unit", "coordinates"} <= set(preview_gaze(with_images, physio).missing)
    test_bids.sidecar(physio).unlink()
    [(stranger, sentence)] = sorted_out(with_images, [physio]).strangers
    assert stranger == physio and "PhysioType" in sentence


def test_one_file_that_fails_holds_no_other_back(with_images: Study, tmp_path: Path) -> None:
    good = GazeChoice(written(tmp_path / "p.tsv", pro_lab()), "ann")
    poor = GazeChoice(written(tmp_path / "s.tsv", studio()), "ann")
    told = GazeChoice(written(tmp_path / "s2.tsv", studio()), "ann", known=Known(screen_mm=SCREEN_MM))
    seen: list[tuple[int, int]] = []
    outcomes = list(
        import_each(with_images, [poor, good, told], lambda done, total, _: seen.append((done, total)))
    )
    assert [outcome.report is None for outcome in outcomes] == [True, False, False]
    assert "how large the screen was" in outcomes[0].problem
    assert seen == sorted(seen) and seen[-1] == (3000, 3000)

    class Stopped(Exception):
        pass

    def stop(done: int, total: int, _: str) -> None:
        if done >= 1000:
            raise Stopped

    again = [GazeChoice(choice.file, "other", known=choice.known) for choice in (good, told)]
    with pytest.raises(Stopped):
        list(import_each(with_images, again, stop))
    assert len(with_images.recording_ids()) == 3, "what came in before the stop stays"
