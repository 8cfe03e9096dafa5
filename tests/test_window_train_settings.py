"""The train page's advice and settings, by mouse and keyboard: what is chosen, why, and what cannot go together."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import pytest
from PySide6.QtCore import QPoint, Qt
from PySide6.QtTest import QTest
from PySide6.QtWidgets import QApplication, QCheckBox, QComboBox, QFileDialog, QLabel, QSpinBox, QWidget
from pytestqt.qtbot import QtBot

from app.main_window import MainWindow
from app.samples import SampleStrip
from app.train_settings import TrainSettings
from gaze_capture.storage import write_bytes_atomic
from segmentation.images import encode_gray16
from segmentation.known_folders import remember_folder
from segmentation.machine import TorchBuild
from segmentation.presets import preset
from segmentation.runs import create_run
from segmentation.study import Study
from tests.machine_support import ON_LINUX, FakeSmi, smi
from tests.test_window_train import page_of, write
from tests.window_support import fill, make_volume_study, open_window

__all__ = ["smi"]

pytestmark = pytest.mark.qt_log_ignore("propagateSizeHints", extend=True)
SOON = 30_000


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Give this user's own list of encoders a place of its own."""
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "home"))


def opened(qtbot: QtBot, tmp_path: Path, study: Study) -> tuple[MainWindow, TrainSettings]:
    """Return a window on the train page, its settings unfolded by a click once it knows what to advise."""
    window = open_window(qtbot, tmp_path, study)
    window.show_page("train")
    settings = page_of(window).settings
    qtbot.waitUntil(lambda: settings.train_button.isEnabled(), timeout=SOON)
    QTest.mouseClick(settings._advanced.toggle, Qt.MouseButton.LeftButton)
    assert settings.fields.isVisible()
    return window, settings


def choose(combo: QComboBox, text: str) -> None:
    """Choose an entry as a person does: focus, then typing its name."""
    combo.setFocus()
    # What is typed sooner goes on with the word before.
    QTest.qWait(QApplication.keyboardInputInterval() + 20)
    QTest.keyClicks(combo, text)
    assert combo.currentText() == text


def fill_in(spin: QSpinBox, number: int) -> None:
    spin.setFocus()
    spin.selectAll()
    QTest.keyClicks(spin, str(number))
    QTest.keyClick(spin, Qt.Key.Key_Return)
    assert spin.value() == number


def untick(check: QCheckBox) -> None:
    check.setFocus()
    QTest.keyClick(check, Qt.Key.Key_Space)
    assert not check.isChecked()


@ON_LINUX
def test_a_card_is_advised_and_a_choice_by_hand_can_be_taken_back(
    qtbot: QtBot,
    tmp_path: Path,
    study: Study,
    image_folder: Path,
    smi: FakeSmi,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    smi.lists("NVIDIA GeForce RTX 4090, 24564, 23028")
    monkeypatch.setattr("segmentation.machine.installed_torch", lambda: TorchBuild("2.9.0+cu126", "12.6"))
    fill(study, image_folder)
    _, settings = opened(qtbot, tmp_path, study)
    spec = settings.spec(study)
    assert (spec.method, spec.preset, spec.device) == ("gaze-to-insight", "reference", "cuda")
    assert "on the NVIDIA GeForce RTX 4090; 15,000 steps" in settings.sentence.text()
    assert "has 24 GB, enough for networks of the published size" in settings.reasons.text()
    assert "6 images are few" in settings.warnings.text()
    assert settings.advised.isHidden()
    choose(settings.device, "cpu")
    # What was not chosen goes along: nobody wants the large networks on a processor.
    assert settings.preset.currentText() == "cpu" and settings.advised.isVisible()
    assert "Advised here: preset reference, device cuda." in settings.advice_text.text()
    choose(settings.preset, "reference")
    assert "takes days on a processor" in settings.warnings.text()
    assert "Advised here: device cuda." in settings.advice_text.text()
    QTest.mouseClick(settings.advice_button, Qt.MouseButton.LeftButton)
    assert (settings.preset.currentText(), settings.device.currentText()) == ("reference", "cuda")
    assert settings.advised.isHidden() and settings.train_button.isEnabled()
    choose(settings.method, "partial")
    assert "Advised here: method gaze-to-insight." in settings.advice_text.text()
    assert settings.spec(study).preset == "reference"


@ON_LINUX
def test_a_driver_too_old_is_told_before_the_run(
    qtbot: QtBot,
    tmp_path: Path,
    study: Study,
    image_folder: Path,
    smi: FakeSmi,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    smi.lists("NVIDIA GeForce RTX 4090, 24564, 23028", driver="470.82.01", cuda="11.4")
    monkeypatch.setattr("segmentation.machine.installed_torch", lambda: TorchBuild("2.9.0+cu126", "12.6"))
    fill(study, image_folder)
    _, settings = opened(qtbot, tmp_path, study)
    assert settings.spec(study).preset == "cpu" and "driver 470.82.01 is too old" in settings.reasons.text()
    choose(settings.device, "cuda")
    assert not settings.train_button.isEnabled()
    assert settings.sentence.text().startswith("The device cuda cannot be used. The NVIDIA GeForce RTX 4090")
    assert "needs CUDA 12.6; update the NVIDIA driver to version 525 or newer" in settings.sentence.text()
    QTest.mouseClick(settings.advice_button, Qt.MouseButton.LeftButton)
    assert settings.train_button.isEnabled() and settings.device.currentText() == "auto"


def test_settings_reach_the_spec_and_each_is_explained(
    qtbot: QtBot, tmp_path: Path, study: Study, image_folder: Path
) -> None:
    fill(study, image_folder)
    _, settings = opened(qtbot, tmp_path, study)
    fields = settings.fields
    plain = settings.spec(study)
    assert plain == preset(targets=("target",))
    QTest.mouseClick(fields.ablations.toggle, Qt.MouseButton.LeftButton)
    fill_in(fields.minutes, 7)
    fill_in(fields.iterations, 300)
    fill_in(fields.seed, 5)
    fill_in(fields.held_out, 2)
    choose(fields.precision, "fp32")
    choose(fields.text, "none")
    for check in (fields.reviews, fields.darm, fields.afc, fields.cwc):
        untick(check)
    spec = settings.spec(study)
    assert (spec.max_minutes, spec.iterations, spec.seed, spec.precision) == (7.0, 300, 5, "fp32")
    assert (spec.text, spec.learn_from_reviews) == ("none", False) and spec.holdout == pytest.approx(2 / 6)
    assert spec.darm_share == spec.afc_weight == spec.cwc_weight == 0
    assert settings.train_button.isEnabled()
    # Of a method that has no such parts, none is taken off.
    choose(settings.method, "partial")
    assert not fields.darm.isEnabled() and not fields.text.isEnabled()
    assert settings.spec(study).afc_weight == plain.afc_weight and settings.spec(study).text == "explanation"
    widgets: list[QWidget] = [
        *fields.findChildren(QComboBox), *fields.findChildren(QSpinBox), *fields.findChildren(QCheckBox),
    ]  # fmt: skip
    assert len(widgets) >= 15
    for widget in widgets:
        tip = widget.toolTip() or (widget.parentWidget() or widget).toolTip()
        assert tip.endswith(".") and tip.count(". ") == 0, tip
        assert widget.accessibleName() or isinstance(widget, QCheckBox)


def test_what_cannot_go_together_is_said_in_words(
    qtbot: QtBot, tmp_path: Path, study: Study, image_folder: Path
) -> None:
    fill(study, image_folder)
    _, settings = opened(qtbot, tmp_path, study)
    fields = settings.fields
    told = settings.sentence.text

    def refused(words: str) -> bool:
        return words in told() and not settings.train_button.isEnabled()

    choose(fields.precision, "fp16")
    assert refused("fp16 is for graphics cards")
    choose(fields.precision, "auto")
    fill_in(fields.held_out, 5)
    assert refused("More than half")
    fill_in(fields.held_out, 0)
    QTest.mouseClick(fields.ablations.toggle, Qt.MouseButton.LeftButton)
    choose(fields.text, "shuffled")
    assert refused("needs explanations")
    choose(fields.text, "explanation")
    assert settings.train_button.isEnabled() and "Learns from 6 images" in told()


def test_a_run_begins_with_an_earlier_one_of_the_same_networks(
    qtbot: QtBot, tmp_path: Path, study: Study, image_folder: Path
) -> None:
    fill(study, image_folder)
    spec = preset(targets=("target",))
    fitting, other = create_run(study, spec), create_run(study, dataclasses.replace(spec, text="none"))
    for run in (fitting, other):
        write(run, ("done", 100, {"seconds": 1.0}))
    window, settings = opened(qtbot, tmp_path, study)
    combo = settings.fields.warm_start
    assert [combo.itemData(index) for index in range(combo.count())] == [None, fitting.id]
    combo.setFocus()
    QTest.keyClick(combo, Qt.Key.Key_Down)
    assert settings.spec(study).warm_start == fitting.id and settings.train_button.isEnabled()
    choose(settings.preset, "reference")
    assert "cannot be begun with" in settings.sentence.text() and not settings.train_button.isEnabled()
    QTest.keyClick(combo, Qt.Key.Key_Up)
    assert settings.train_button.isEnabled() and settings.spec(study).warm_start == ""
    # Another study begins anew.
    other_study = Study.create(tmp_path / "other")
    fill(other_study, image_folder)
    window.session.set_study(other_study)
    qtbot.waitUntil(settings.train_button.isEnabled, timeout=SOON)
    assert settings.spec(other_study) == spec and settings.advised.isHidden()


def test_an_encoder_is_looked_at_before_it_is_taken(
    qtbot: QtBot, tmp_path: Path, study: Study, image_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("transformers")
    from tests.training_helpers import save_image_encoder

    good = save_image_encoder(tmp_path / "tiny-resnet", "resnet")
    remember_folder("0" * 64, tmp_path / "gone", "image")
    bad = tmp_path / "empty"
    bad.mkdir()
    fill(study, image_folder)
    _, settings = opened(qtbot, tmp_path, study)
    encoder = settings.fields.encoder
    # A folder that is no longer there is not offered.
    assert [encoder.list.itemText(index) for index in range(encoder.list.count())] == [
        "none",
        "Choose a folder…",
    ]
    chosen = [str(bad), "", str(good)]
    monkeypatch.setattr(QFileDialog, "getExistingDirectory", lambda *_: chosen.pop(0))

    def pick() -> None:
        encoder.list.setFocus()
        QTest.keyClick(encoder.list, Qt.Key.Key_End)
        # The list of a closed box tells of a choice by key at once.
        assert not settings.train_button.isEnabled() or not chosen

    pick()
    assert "being looked at" in settings.sentence.text()
    qtbot.waitUntil(lambda: "config.json" in settings.sentence.text(), timeout=500_000)
    assert encoder.state.property("role") == "danger" and not settings.train_button.isEnabled()
    pick()
    assert encoder.list.currentText() == "empty", "a dialog that was closed changes nothing"
    pick()
    qtbot.waitUntil(settings.train_button.isEnabled, timeout=500_000)
    assert encoder.state.text() == "tiny-resnet, a resnet"
    spec = settings.spec(study)
    assert spec.encoder == "tiny-resnet" and spec.encoder_config["config"]["model_type"] == "resnet"
    choose(settings.method, "gaze-track")
    assert "a pretrained encoder" in settings.sentence.text() and not settings.train_button.isEnabled()
    QTest.keyClick(encoder.list, Qt.Key.Key_Home)
    assert settings.train_button.isEnabled() and settings.spec(study).encoder == ""


def test_the_same_images_at_earlier_steps(
    qtbot: QtBot, tmp_path: Path, study: Study, image_folder: Path
) -> None:
    fill(study, image_folder)
    run = create_run(study, preset())
    window = open_window(qtbot, tmp_path, study)
    window.show_page("train")
    page = page_of(window)
    strip = page.samples
    ids = list(study.images)[:4]

    def sample(step: int, image_id: str) -> tuple[str, int, dict[str, object]]:
        path = f"samples/{step}/{image_id}.target.png"
        columns = np.tile(np.arange(32) < step, (32, 1)).astype(np.float32)
        write_bytes_atomic(run.path / path, encode_gray16(columns))
        return "sample", step, {"image_id": image_id, "target_id": "target", "path": path}

    write(run, *(sample(step, image_id) for step in (4, 12, 24) for image_id in ids))
    window.session.refresh("runs")
    qtbot.waitUntil(lambda: strip.shown == dict.fromkeys(ids, 24), timeout=SOON)
    assert strip.moment.text() == "step 24 · newest"
    newest = strip.grab().toImage()
    strip.slider.setFocus()
    QTest.keyClick(strip.slider, Qt.Key.Key_Left)
    assert strip.step == 12 and set(strip.shown.values()) == {12} and strip.moment.text() == "step 12"
    assert strip.grab().toImage() != newest
    # Who looks back is left there when the next masks come.
    write(run, *(sample(30, image_id) for image_id in ids))
    qtbot.waitUntil(lambda: strip.slider.maximum() == 3, timeout=SOON)
    assert strip.step == 12
    QTest.keyClick(strip.slider, Qt.Key.Key_End)
    assert strip.step == 30
    # Who stands at the end goes along.
    write(run, *(sample(31, image_id) for image_id in ids[:1]))
    qtbot.waitUntil(lambda: strip.step == 31, timeout=SOON)
    assert strip.shown == {ids[0]: 31, ids[1]: 30, ids[2]: 30, ids[3]: 30}
    seen: list[int] = []
    strip.slider.valueChanged.connect(seen.append)
    QTest.mouseClick(strip.play, Qt.MouseButton.LeftButton)
    qtbot.waitUntil(lambda: seen == [0, 1, 2, 3, 4], timeout=SOON)
    # A file that has gone leaves the others.
    (run.path / "samples" / "12" / f"{ids[2]}.target.png").unlink()
    page._unfollow()
    page.follow(run.id)
    strip.slider.setValue(1)
    assert set(strip.shown) == set(ids) - {ids[2]}


def test_each_target_has_its_outline_in_its_colour(qtbot: QtBot, tmp_path: Path) -> None:
    study = make_volume_study(tmp_path / "volumes", slices=2)
    run = create_run(study, preset())
    image_id = "ct_000"
    for target_id, width in (("gland", 20), ("nodule", 8)):
        view = np.tile(np.arange(32) < width, (32, 1)).astype(np.float32)
        write_bytes_atomic(run.path / "samples" / "5" / f"{image_id}.{target_id}.png", encode_gray16(view))
    strip = SampleStrip()
    qtbot.addWidget(strip)
    for target_id in ("gland", "nodule"):
        path = run.path / "samples" / "5" / f"{image_id}.{target_id}.png"
        strip.show_sample(study, image_id, path, 5, target_id)
    [tile] = strip.tiles().values()
    assert [mask.style.colour for mask in tile.masks] == [target.colour for target in study.targets]
    strip.resize(700, 200)
    assert not strip.grab().isNull()


def test_figures_are_honest_and_plots_can_be_logarithmic(
    qtbot: QtBot, tmp_path: Path, study: Study, image_folder: Path
) -> None:
    fill(study, image_folder)
    run = create_run(study, preset(max_minutes=14.0, iterations=12000))
    started = {
        "device": "cuda:0 (NVIDIA L4)",
        "precision": "bf16",
        "images": 6,
        "held_out": 1,
        "explained": 0,
    }
    losses = {"total": 0.5, "student": 0.2, "teacher": 0.25, "afc": 0.0, "cwc": 0.05}
    step = {
        "losses": losses,
        "images_per_s": 52.4,
        "memory_bytes": 3 * 2**30,
        "memory_total_bytes": 22 * 2**30,
    }
    write(run, ("started", 0, started), ("step", 40, {**step, "eta_s": 300.0}))
    window = open_window(qtbot, tmp_path, study)
    window.show_page("train")
    page = page_of(window)
    figures = {name: figure.text for name, figure in page.view.figures.items()}
    qtbot.waitUntil(lambda: figures["speed"]() == "52", timeout=SOON)
    assert figures["device"]() == "NVIDIA L4 · bf16" and figures["memory"]() == "3.0 GB of 22 GB"
    assert figures["left"]() == "at most 14 min" and figures["step"]() == "40 of about 100"
    assert "6 images, 1 held out for selection, 0 explained" in page.facts.text()
    event = run.events()[-1]
    later = dataclasses.replace(event, step=80, time=event.time + 60, values={**step, "eta_s": 300.0})
    page.view.show_event(later, study, run.path)
    assert figures["left"]() == "5 min"
    plot = page.view.consistency
    qtbot.waitUntil(lambda: plot.log.isVisible() and plot.points("cwc") == 2, timeout=SOON)
    page.view.losses.log.setFocus()
    QTest.keyClick(plot.log, Qt.Key.Key_Space)
    # What is 0 has no place on a logarithmic axis, and does not take the others with it.
    x, y = plot._curves["cwc"].item.getData()
    assert len(x) == 2 and y[0] == pytest.approx(-1.301, abs=0.001)
    [values] = [values for _, values in plot.view.getPlotItem().getAxis("left").tickValues(-2.0, 0.0, 100)]
    labels = plot.view.getPlotItem().getAxis("left").tickStrings(values, 1.0, 1.0)
    assert labels == ["0.01", "0.02", "0.05", "0.1", "0.2", "0.5", "1"]
    write(run, ("warning", 80, {"message": "Memory ran short: two halves make a step."}))
    qtbot.waitUntil(page.view.warning.isVisible, timeout=SOON)
    # The next report does not wipe it away.
    write(run, ("step", 90, {**step, "eta_s": 200.0}), ("failed", 95, {"message": "The disk is full."}))
    qtbot.waitUntil(lambda: page.facts.text() == "The disk is full.", timeout=SOON)
    assert "Memory ran short" in page.view.warning.text()
    qtbot.waitUntil(page.view.figures["left"].isHidden, timeout=SOON)


def test_nothing_is_cut_off_on_a_small_screen(
    qtbot: QtBot, tmp_path: Path, study: Study, image_folder: Path
) -> None:
    fill(study, image_folder)
    window, settings = opened(qtbot, tmp_path, study)
    QTest.mouseClick(settings.fields.ablations.toggle, Qt.MouseButton.LeftButton)
    QApplication.processEvents()
    for widget in (*settings.findChildren(QComboBox), *settings.findChildren(QCheckBox)):
        right = widget.mapTo(settings, QPoint(widget.width(), 0)).x()
        assert right <= settings.width() and widget.width() >= widget.minimumSizeHint().width()
    for text in settings.findChildren(QLabel):
        if text.isVisible() and not text.wordWrap():
            assert text.width() >= text.sizeHint().width() - 1, text.text()
    assert (
        settings.mapTo(window, QPoint(settings.width(), 0)).x()
        <= page_of(window).table.mapTo(window, QPoint(0, 0)).x()
    )
