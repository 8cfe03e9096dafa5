from __future__ import annotations

import json
import re
import time
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from gaze_capture.errors import UserError
from gaze_capture.recording_codec import read_recording
from gaze_capture.storage import write_json_atomic
from segmentation import steps
from segmentation.explanation import Explanation, load_explanation, save_explanation
from segmentation.gaze_quality import gaze_quality
from segmentation.job import JobEvent, RunSpec
from segmentation.phantoms import write_phantoms
from segmentation.reader_agreement import reader_agreement
from segmentation.report import best_median_worst, write_report
from segmentation.report_figures import Overlay, curve, histogram, overlay_figure
from segmentation.runs import create_run
from segmentation.study import Study
from tests.pictures import read_display
from tests.test_evaluation import shifted_zones

HOSTILE = '<script>alert("x")</script>'
VOID = {"meta", "br", "link", "img"}


class _Page(HTMLParser):
    """Collects elements and text, and fails on tags that do not nest."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.tags: list[str] = []
        self.links: list[str] = []
        self.words: list[str] = []
        self.feed(html)
        assert self.open == [], f"never closed: {self.open}"

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.links += [value or "" for name, value in attrs if name in ("src", "href", "xlink:href")]
        assert not any(name.startswith("on") for name, _ in attrs)
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.handle_starttag(tag, attrs)
        if tag not in VOID:
            self.open.pop()

    def handle_endtag(self, tag: str) -> None:
        assert self.open and self.open[-1] == tag, f"</{tag}> closes {self.open[-3:]}"
        self.open.pop()

    def handle_data(self, data: str) -> None:
        if self.open and self.open[-1] != "style":
            self.words.append(data)

    @property
    def text(self) -> str:
        return re.sub(r"\s+", " ", " ".join(self.words))


def _page(study: Study, folder: Path, run_id: str | None = None, split: str | None = None) -> _Page:
    file = folder / "report.html"
    write_report(study, file, run_id, split)
    return _Page(file.read_text(encoding="utf-8"))


@pytest.fixture(scope="module")
def gazed(tmp_path_factory: pytest.TempPathFactory) -> Study:
    """A study of twelve phantoms in two splits with simulated gaze and pseudo-masks."""
    folder = tmp_path_factory.mktemp("gazed")
    study = Study.create(folder / "study", name="Phantoms & friends")
    for split, seed in (("train", 0), ("test", 1)):
        images, masks = write_phantoms(folder / split, 12, seed, 64, prefix=split)
        steps.import_images(study, [images], masks=masks, split=split)
    steps.simulate(study, seed=0)
    steps.make_pseudomasks(study)
    return study


@pytest.fixture(scope="module")
def finished_run(gazed: Study) -> str:
    """A run that has ended, with predictions that are the true masks pushed aside by a few pixels."""
    run = create_run(gazed, RunSpec(notes={"remark": HOSTILE}))
    events = [JobEvent(run.id, "started", 0, 3, time.time(), {"device": "cpu"})]
    events += [
        JobEvent(run.id, "step", step, 3, time.time(), {"losses": {"total": 1.0 / step}})
        for step in (1, 2, 3)
    ]
    events.append(JobEvent(run.id, "done", 3, 3, time.time(), {"seconds": 90.0}))
    run.events_path.write_text("".join(event.to_line() + "\n" for event in events), encoding="utf-8")
    write_json_atomic(run.path / "worker.json", {"pid": 1, "host": "elsewhere", "started": 0, "heartbeat": 0})
    for number, image in enumerate(gazed.images_of("test")):
        truth = gazed.true_mask(image.id, "target")
        assert truth is not None
        moved = np.roll(truth, number, axis=1).astype(np.float32)
        gazed.save_prediction(run.id, image.id, "target", "student", moved)
    return run.id


def test_an_empty_study_still_gets_a_report(study: Study, tmp_path: Path) -> None:
    page = _page(study, tmp_path)
    assert "No image has been looked at yet." in page.text
    assert "Research use only. Not a medical device." in page.text
    assert "no finished run yet" in page.text


def test_it_loads_nothing_from_elsewhere(gazed: Study, finished_run: str, tmp_path: Path) -> None:
    page = _page(gazed, tmp_path, finished_run)
    assert page.links and all(link.startswith("data:image/jpeg;base64,") for link in page.links)
    assert not {"script", "link", "iframe", "object"} & set(page.tags)
    html = (tmp_path / "report.html").read_text(encoding="utf-8")
    assert "url(" not in html and "@import" not in html
    assert "prefers-color-scheme: dark" in html and "@media print" in html


def test_everything_from_the_study_is_escaped(tmp_path: Path) -> None:
    study = Study.create(tmp_path / "study", name=HOSTILE)
    images, masks = write_phantoms(tmp_path / "raw", 2, size_px=64)
    steps.import_images(study, [images], masks=masks)
    steps.simulate(study, annotator=HOSTILE)
    image = study.images_of("train")[0]
    save_explanation(
        study,
        Explanation(image.id, "target", "openai", HOSTILE, HOSTILE, {"location": "centre"}, HOSTILE, HOSTILE),
    )
    page = _page(study, tmp_path)
    assert "script" not in page.tags
    assert page.text.count(HOSTILE) >= 3, "name, annotator and explanation are shown as the text they are"


def test_contradictions_are_marked_and_agreement_is_a_number_for_each_model(tmp_path: Path) -> None:
    study = Study.create(tmp_path / "study")
    images, masks = write_phantoms(tmp_path / "raw", 3, size_px=64)
    steps.import_images(study, [images], masks=masks)
    steps.simulate(study)
    steps.make_pseudomasks(study)
    assert "Claims that agree" not in _page(study, tmp_path).text, "nothing is explained"
    steps.explain(study)
    page = _page(study, tmp_path)
    assert "by construction: they are no evidence" in page.text and "Contradicted" not in page.text
    first, second, _ = study.images_of("train")
    for image, area in ((first, 95.0), (second, None)):
        measured = load_explanation(study, image.id, "target")
        assert measured is not None
        said = {
            **measured.attributes,
            "area_percent": measured.attributes["area_percent"] if area is None else area,
            "remarks": "" if area is None else f"PI-RADS 4 {HOSTILE}",
            HOSTILE: HOSTILE,
        }
        save_explanation(
            study,
            replace(measured, backend="openai", model=HOSTILE, attributes=said, text=HOSTILE, created="2999"),
        )
    page = _page(study, tmp_path)
    assert "script" not in page.tags and page.text.count(HOSTILE) >= 4
    assert "Contradicted area percent: 95; measured: " in page.text
    assert "Not asked for remarks: a score or diagnosis (PI-RADS 4) was not asked for." in page.text
    assert "Contradicted or not asked for: 2" in page.text
    described = page.text.index("Claims that agree")
    assert "simulated from masks" in page.text[described:]
    # One of two areas agrees; dealt to the other image, none of the right one's size need to.
    assert re.search(r"50% \(9% to 91%\)", page.text[described:])
    assert "by chance" in page.text[described:]


def test_gaze_quality_is_that_of_the_samples(gazed: Study) -> None:
    (row,) = gaze_quality(gazed)
    recording = read_recording(gazed.recordings_folder / row.source)
    neither = sum(
        bool(np.isnan(left).any() and np.isnan(right).any())
        for left, right in zip(recording.left_xy, recording.right_xy, strict=True)
    )
    assert row.samples == len(recording.time_ns)
    assert row.data_loss == pytest.approx(neither / len(recording.time_ns))
    assert row.data_loss > 0, "a simulated tracker blinks"
    assert row.images == 24 and row.fixations > 24
    assert row.simulated_from == "masks"
    assert row.rate_hz == pytest.approx(120, rel=0.02)


def test_gaze_and_masks_without_a_run(gazed: Study, tmp_path: Path) -> None:
    other = Study.open(gazed.folder)
    page = _page(other, tmp_path, split="train")
    assert "Phantoms & friends" in page.text
    assert "Gaze simulated from masks" in page.text
    (row,) = gaze_quality(other)
    assert f"{row.data_loss:.1%}" in page.text and f"{row.samples:,}" in page.text


def test_metrics_are_those_of_evaluate(gazed: Study, finished_run: str, tmp_path: Path) -> None:
    measured = steps.evaluate(gazed, finished_run, split="test")
    page = _page(gazed, tmp_path, finished_run)
    mean, sd = measured.measures["dice"].mean, measured.measures["dice"].sd
    assert re.search(rf"{mean:.3f}\s+± {sd:.3f}", page.text)
    assert "simulated from masks" in page.text
    assert "1.5 min" in page.text, "the run's training time"
    assert "1 → 0.333" in page.text, "its first and last loss"
    held = [image.id for image in gazed.images_of("test") if gazed.true_mask(image.id, "target").any()]  # type: ignore[union-attr]
    assert 9 < len(held) < 12, "some of the twelve hold nothing, and those are not worth showing"
    ranked = sorted(held, key=lambda label: (-measured.per_image[label].dice, label))
    shown = re.findall(r"test-\w+-\d+", page.text)
    assert shown[:3] == ranked[:3] and shown[-3:] == ranked[-3:]


def test_a_run_that_was_never_measured_is_measured(gazed: Study, finished_run: str, tmp_path: Path) -> None:
    for path in (gazed.runs_folder / finished_run / "metrics").glob("*"):
        path.unlink()
    page = _page(gazed, tmp_path, finished_run, split="test")
    assert f"{steps.evaluate(gazed, finished_run, split='test').measures['dice'].mean:.3f}" in page.text


def test_targets_volumes_and_normalisation_are_told(tmp_path: Path) -> None:
    study = shifted_zones(tmp_path / "zones")
    run = study.runs_folder / "run-1"
    event = JobEvent("run-1", "done", 3, 3, time.time(), {"seconds": 90.0})
    (run / "events.jsonl").write_text(event.to_line() + "\n", encoding="utf-8")
    write_json_atomic(run / "worker.json", {"pid": 1, "host": "elsewhere", "started": 0, "heartbeat": 0})
    gland = steps.evaluate(study, "run-1", split="test").targets["gland"]
    page = _page(study, tmp_path, "run-1")
    assert "Prostate" in page.text and "Central gland" in page.text
    assert gland.volumes is not None
    for number in (gland.with_target.mean, gland.without_target.mean, gland.volumes.dice.mean):
        assert f"{number:.3f}" in page.text
    assert f"{gland.false_positive_area.mean:.2f}" in page.text
    assert f"{gland.volumes.hd95_mm.mean:.2f}" in page.text
    assert "Whole volumes" in page.text
    assert "mr: z-score" in page.text, "how the run's images were normalised"


def test_an_unknown_run_is_refused(gazed: Study, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no run 'nonsense'"):
        write_report(gazed, tmp_path / "report.html", "nonsense")
    assert not (tmp_path / "report.html").exists()


def test_an_image_that_is_gone_leaves_a_sentence(tmp_path: Path) -> None:
    html = overlay_figure(Overlay(lambda: read_display(tmp_path / "gone & lost.png")))
    assert "cannot be read" in html and "gone &amp; lost.png" in html


def test_best_median_worst() -> None:
    scores = {f"{number:02}": number / 20 for number in range(20)}
    assert best_median_worst(scores) == [
        ("Best", ["19", "18", "17"]),
        ("Median", ["11", "10", "09"]),
        ("Worst", ["02", "01", "00"]),
    ]
    assert best_median_worst({"a": 0.1, "b": 0.9}) == [("All, best first", ["b", "a"])]
    tied = best_median_worst(dict.fromkeys("jihgfedcba", 1.0))
    assert [label for _, labels in tied for label in labels] == list("abcdefhij")


def test_outlines_enclose_the_mask(tmp_path: Path) -> None:
    yy, xx = np.mgrid[:120, :160]
    mask = ((xx - 70) / 40) ** 2 + ((yy - 60) / 30) ** 2 < 1
    mask &= ((xx - 70) / 12) ** 2 + ((yy - 60) / 12) ** 2 > 1
    cv2.imwrite(str(tmp_path / "image.png"), np.full((120, 160, 3), 90, np.uint8))
    html = overlay_figure(Overlay(lambda: read_display(tmp_path / "image.png"), student=mask))
    path = re.search(r'class="overlay student" d="([^"]+)"', html)
    assert path is not None
    drawn = np.zeros((1200, 1600), np.uint8)
    rings = [
        np.array([[float(value) * 10 for value in point.split()] for point in ring.split("L")])
        for ring in path[1].replace("Z", "").split("M")[1:]
    ]
    assert len(rings) == 2, "the hole has an outline of its own"
    cv2.fillPoly(drawn, [np.rint(ring).astype(np.int32) for ring in rings], 1)
    assert drawn.sum() / 100 == pytest.approx(mask.sum(), rel=0.03)


def test_charts_show_their_numbers() -> None:
    bars = histogram([0.1, 0.1, 0.9, 1.0], bins=10)
    assert bars.count("<rect") == 2 and "mean 0.525" in bars
    line = curve([(step, 10.0 / step) for step in range(1, 1001)], most_points=50)
    path = re.search(r'class="line" d="([^"]+)"', line)
    assert path is not None and path[1].count("L") == 49
    heights = [float(point.split()[1]) for point in path[1][1:].split("L")]
    assert heights == sorted(heights), "a falling loss goes down the page"


def test_reviews_are_told_with_time_edits_agreement_and_figures(
    study: Study, image_folder: Path, tmp_path: Path
) -> None:
    from segmentation.importing import import_images
    from tests.mask_export_support import review
    from tests.run_helpers import finished

    import_images(study, [image_folder / "images"])
    run = finished(study, "learned").id
    shown = np.zeros((48, 64), bool)
    shown[10:30, 10:40] = True
    for image_id in study.images:
        study.save_prediction(run, image_id, "target", "student", shown.astype(np.float32))
    smaller = shown.copy()
    smaller[10:20] = False
    review(study, "case_0", "target", shown, verdict="accepted", subject=run, gaze_on_mask_ms=0.0)
    review(study, "case_1", "target", smaller, subject=run, edits=("eraser", "eraser", "smooth"))
    review(
        study,
        "case_1",
        "target",
        shown,
        annotator=HOSTILE,
        purpose="second-read",
        verdict="accepted",
        subject=run,
    )
    review(study, "case_2", "target", np.zeros_like(shown), subject=run, annotator="B", edits=("eraser",))
    # Two empty masks have no Dice: their agreement is one of words.
    review(study, "case_5", "target", np.zeros_like(shown), subject=run)
    review(
        study, "case_5", "target", np.zeros_like(shown), annotator=HOSTILE, purpose="second-read", subject=run
    )
    # By the key of *nothing here*: nobody drew anything.
    review(study, "case_4", "target", np.zeros_like(shown), subject=run, annotator="B")
    review(study, "case_3", "target", None, verdict="rejected", subject=run)
    review(study, "gone", "target", shown)
    write_report(study, tmp_path / "report.html", run)
    html = (tmp_path / "report.html").read_text()
    page = _Page(html)
    text = " ".join(page.words)
    for heading in ("Reviews", "What was changed", "Agreement of annotators", "Masks that were changed most"):
        assert heading in page.words
    assert HOSTILE not in html and not [link for link in page.links if not link.startswith("data:")]
    # A: one accepted (which the eyes were not on), one edited, one rejected, one of nothing.
    cells = re.findall(r"<tr>(.*?)</tr>", html)
    rows = [re.sub(r"<[^>]+>", "|", one).replace("||", "|").strip("|").split("|") for one in cells]
    assert ["A", "review", "4", "1", "1", "1", "1", "2.5 s", "0.2 min", "1"] in rows
    [pair] = reader_agreement(study)
    assert (pair.images, pair.masks) == (2, 1) and pair.dice.mean == pytest.approx(2 / 3)
    agreed = next(one for one in rows if one[-1] == "100% of 2")
    assert agreed[3:7] == ["2", "2", "1", "0.667"]
    assert ["B", "review", "2", "0", "0", "0", "2", "2.5 s", "0.1 min", "–"] in rows
    # Of what was edited: Dice .667 (300 of 600 pixels stay) and 0; 300 and 600 of 3072 pixels changed.
    assert "eraser 2, smooth 1" in text and "14.65%" in text and "19.53%" in text
    assert "0.667" in text
    # In the legend and on one image: the other was emptied.
    assert html.count('class="overlay reviewed"') == 2
    assert text.index("Dice 0.000") < text.index("Dice 0.667")


@pytest.mark.parametrize(
    "damage",
    [
        [], "x", {}, {"dice": None}, {"dice": {"mean": "high", "sd": None}}, {"dice": 0.8}, {"split": 3},
        {"against": []}, {"gaze": None}, {"per_image": [1]}, {"per_image": {"a": 1}},
        {"per_image": {"a": {"dice": "x"}}},
        {"per_image": {"a": {"dice": float("inf")}}}, {"targets": {"target": {}}}, {"targets": 3},
        {"annotation_seconds_per_image": "long"}, {"images": "many", "images_without_target": 1},
    ],
)  # fmt: skip
def test_a_measurement_damaged_by_hand_is_named(
    gazed: Study, finished_run: str, tmp_path: Path, damage: Any
) -> None:
    steps.evaluate(gazed, finished_run, split="test")
    path = gazed.runs_folder / finished_run / "metrics" / "test-masks.json"
    sound = path.read_text()
    changed = {**json.loads(sound), **damage} if isinstance(damage, dict) and damage else damage
    try:
        path.write_text(json.dumps(changed))
        with pytest.raises(
            UserError, match=r"test-masks\.json is damaged .*measure again: gaze-insight evaluate"
        ):
            write_report(gazed, tmp_path / "report.html", finished_run)
    finally:
        path.write_text(sound)
    assert not (tmp_path / "report.html").exists()
    write_report(gazed, tmp_path / "report.html", finished_run)


def test_rounds_are_charted_with_what_they_are_worth(gazed: Study, finished_run: str, tmp_path: Path) -> None:
    from segmentation.rounds import rounds
    from segmentation.run_care import rename_run

    rename_run(gazed, finished_run, HOSTILE)
    try:
        page = _page(gazed, tmp_path, finished_run)
        html = (tmp_path / "report.html").read_text(encoding="utf-8")
        [one] = rounds(gazed).rounds
    finally:
        rename_run(gazed, finished_run, "")
    assert (
        "Dice against minutes of annotation" in page.words and HOSTILE in page.words and HOSTILE not in html
    )
    [chart] = re.findall(r'<div class="panel figure"><svg.*?</svg>', html, re.DOTALL)
    assert chart.count("<circle") == 1 and "Gaze: simulated from masks" in chart
    beneath = page.text[page.text.index("Simulated from masks : no person looked") :]
    assert one.spent is not None and one.spent.minutes > 0
    assert (
        f"reached {one.dice.mean:.3f} after {one.spent.minutes:.1f} minutes (gaze: simulated from masks)"
        in beneath
    )
    assert "12 images of the split 'test', true masks" in beneath and "The reference: true masks" in beneath
    assert "How long outlining by hand takes was not measured" in beneath
    cells = [re.sub(r"<[^>]+>", "|", row) for row in re.findall(r"<tr>.*?</tr>", html)]
    assert any("simulated from masks" in row and one.dice_text() in row for row in cells)


def test_a_report_without_anything_to_measure_on_has_no_rounds(
    study: Study, image_folder: Path, tmp_path: Path
) -> None:
    from segmentation.importing import import_images
    from tests.run_helpers import finished

    import_images(study, [image_folder / "images"])
    finished(study, "learned")
    write_report(study, tmp_path / "report.html")
    assert "minutes of annotation" not in (tmp_path / "report.html").read_text()


def test_a_report_without_reviews_has_no_section_of_them(
    study: Study, image_folder: Path, tmp_path: Path
) -> None:
    from segmentation.importing import import_images

    import_images(study, [image_folder / "images"])
    write_report(study, tmp_path / "report.html")
    assert "<h2>Reviews</h2>" not in (tmp_path / "report.html").read_text()
