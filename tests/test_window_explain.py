"""Describing regions through the window, by mouse and keys: measured, own words, a server, a model from a folder."""

from __future__ import annotations

import base64
import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from PySide6.QtCore import QPoint, Qt
from PySide6.QtTest import QTest
from PySide6.QtWidgets import QAbstractButton, QApplication, QWidget
from pytestqt.qtbot import QtBot

from app.explain_dialog import ExplainDialog
from app.explain_run import ExplainRun
from app.main_window import MainWindow
from app.review_page import ReviewPage
from app.study_page import StudyPage
from segmentation.explanation import load_explanation
from segmentation.explanation_settings import load_settings
from segmentation.own_words_store import load_words
from segmentation.sending import permissions, withdraw_permission
from segmentation.study import Study
from tests.chat_server import LIMITS, FakeServer, hang, say
from tests.test_explanation import GOOD
from tests.tiny_vlm import CHANCE, make_ellipse_study
from tests.window_support import fill, open_window

pytestmark = [
    pytest.mark.qt_log_ignore("propagateSizeHints", r"does not support raise\(\)", extend=True),
    pytest.mark.usefixtures("no_key"),
]
LEFT = Qt.MouseButton.LeftButton


@pytest.fixture
def gazed(study: Study, image_folder: Path) -> Study:
    return fill(study, image_folder)


@pytest.fixture
def window(qtbot: QtBot, tmp_path: Path, gazed: Study) -> MainWindow:
    return open_window(qtbot, tmp_path, gazed)


@pytest.fixture
def far_away(chat_server: FakeServer, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """Return the address of a server that counts as another machine, and is the one on loopback."""
    import socket

    real = socket.getaddrinfo

    def resolve(host: Any, *args: Any, **kwargs: Any) -> Any:
        name = host.decode() if isinstance(host, bytes) else host
        return real("127.0.0.1" if name == "gpu.hospital.example" else host, *args, **kwargs)

    monkeypatch.setattr(socket, "getaddrinfo", resolve)
    yield f"http://gpu.hospital.example:{chat_server.server_address[1]}/v1"


def click(button: QAbstractButton) -> None:
    assert button.isVisible() and button.isEnabled(), button.text()
    # A tick takes clicks on its box and its words alone.
    QTest.mouseClick(button, LEFT, pos=QPoint(12, button.height() // 2))


def type_into(field: QWidget, text: str) -> None:
    QTest.mouseClick(field, LEFT)
    QTest.keyClick(field, Qt.Key.Key_A, Qt.KeyboardModifier.ControlModifier)
    QTest.keyClicks(field, text)


def open_dialog(window: MainWindow, qtbot: QtBot, backend: str) -> ExplainDialog:
    """Open the dialog from the study page's card, and choose a backend's card."""
    window.show_page("study")
    page = window.page("study")
    assert isinstance(page, StudyPage)
    click(page.describe_button)
    dialog = window.explain_dialog
    assert dialog is not None
    qtbot.waitUntil(lambda: bool(dialog._due) and dialog.preview.seen is not None, timeout=10000)
    if dialog.cards.value != backend:
        QTest.mouseClick(dialog.cards.cards[backend], LEFT)
    assert dialog.cards.value == backend
    return dialog


def ready(dialog: ExplainDialog) -> Callable[[], bool]:
    return lambda: not dialog._seeing.isActive() and not dialog.preview.pending and not dialog._counts.pending


def to_server(dialog: ExplainDialog, qtbot: QtBot, url: str) -> None:
    dialog.server.limits = LIMITS
    type_into(dialog.server.address, url)
    qtbot.waitUntil(ready(dialog), timeout=10000)


def run_of(window: MainWindow) -> ExplainRun:
    assert window.explain_run is not None
    return window.explain_run


def wait_for_end(window: MainWindow, qtbot: QtBot, timeout: int = 20000) -> ExplainRun:
    qtbot.waitUntil(lambda: window.explain_run is not None and window.explain_run.is_over, timeout=timeout)
    return run_of(window)


def bodies(server: FakeServer) -> list[dict[str, Any]]:
    return [body for _, _, body in server.asked if body]


def sent(body: dict[str, Any]) -> tuple[bytes, str]:
    """Return the picture and the words of a request."""
    content = body["messages"][-1]["content"]
    url = next(part["image_url"]["url"] for part in content if part["type"] == "image_url")
    words = "".join(part["text"] for part in content if part["type"] == "text")
    return base64.b64decode(url.split(",", 1)[1]), words


def test_measured_by_one_click(window: MainWindow, qtbot: QtBot, gazed: Study) -> None:
    page = window.page("study")
    assert isinstance(page, StudyPage)
    qtbot.waitUntil(lambda: page.overview.next_step == "explain", timeout=10000)
    assert page.next.other_button.isVisible()
    click(page.next.next_button)
    qtbot.waitUntil(lambda: len(gazed.explanation_keys()) == 6 and not window.tasks, timeout=20000)
    assert window.explain_dialog is None
    # The dialog's measured backend finds the same six described already.
    dialog = open_dialog(window, qtbot, "measured")
    qtbot.waitUntil(ready(dialog), timeout=10000)
    assert "nothing leaves" in dialog.preview.subtitle.text() and "location" in dialog.preview.facts.text()
    assert not dialog.settings.view_part.isVisible()
    assert dialog.run_button.text() == "Describe 6 images"
    click(dialog.run_button)
    run = wait_for_end(window, qtbot)
    assert (run.result.done, run.result.skipped) == (0, 6) and "6 asked" in dialog.progress.counts.text()


def test_a_server_on_this_computer_is_tested_asked_and_asked_again(
    window: MainWindow, qtbot: QtBot, gazed: Study, chat_server: FakeServer
) -> None:
    chat_server.models = ("tiny-vlm", "other-vlm")
    dialog = open_dialog(window, qtbot, "openai")
    to_server(dialog, qtbot, chat_server.url)
    assert dialog.server.place.text() == "Stays on this computer."
    assert not dialog.server.permission_button.isVisible()
    # Two models are offered: the test says so, and the list is filled to choose from.
    click(dialog.server.test_button)
    qtbot.waitUntil(lambda: "Name the model" in dialog.server.report.text(), timeout=10000)
    qtbot.waitUntil(lambda: dialog.server.test_button.isEnabled())
    assert [dialog.server.model.itemText(n) for n in range(2)] == ["tiny-vlm", "other-vlm"]
    edit = dialog.server.model.lineEdit()
    assert edit is not None
    type_into(edit, "tiny-vlm")
    # A test that hangs is cancelled at once.
    well = chat_server.plays[0]
    chat_server.plays = [hang]
    click(dialog.server.test_button)
    qtbot.waitUntil(lambda: len(bodies(chat_server)) == 1, timeout=10000)
    click(dialog.server.cancel_button)
    qtbot.waitUntil(lambda: dialog.server.test_button.isEnabled(), timeout=2000)
    assert dialog.server.report.text() == "Cancelled."

    chat_server.asked.clear()
    chat_server.plays = [well, well, say("A polyp."), say("A polyp."), well]
    dialog.server.at_once.setValue(1)
    click(dialog.run_button)
    run = wait_for_end(window, qtbot)
    assert run.result.done == 5 and run.failed_ids == ["case_2"], run.result.failed
    view = dialog.progress
    assert view.title.text() == "Done, some failed" and view.failures.toPlainText().startswith("case_2: ")
    assert "tokens" in view.spent.text() and "requests" in view.spent.text()
    assert load_explanation(gazed, "case_2", "target") is None
    click(view.copy_button)
    assert QApplication.clipboard().text() == view.failures.toPlainText()
    chat_server.plays = [well]
    before = len(bodies(chat_server))
    click(view.again_button)
    qtbot.waitUntil(lambda: run_of(window) is not run and run_of(window).is_over, timeout=20000)
    assert run_of(window).result.done == 1 and len(bodies(chat_server)) == before + 1
    told = load_explanation(gazed, "case_2", "target")
    assert told is not None and told.attributes["shape"] == GOOD["shape"] and told.model == "tiny-vlm"
    assert view.title.text() == "Done" and not view.failures.isVisible()


def test_a_run_goes_on_without_its_dialog_and_is_cancelled_at_once(
    window: MainWindow, qtbot: QtBot, gazed: Study, chat_server: FakeServer
) -> None:
    well = chat_server.plays[0]
    chat_server.plays = [well, well, hang]
    dialog = open_dialog(window, qtbot, "openai")
    to_server(dialog, qtbot, chat_server.url)
    window.show_page("review")
    review = window.page("review")
    assert isinstance(review, ReviewPage) and review.description.explanation is None
    dialog.server.at_once.setValue(1)
    dialog.server.limits = type(LIMITS)(timeout_s=60)
    click(dialog.run_button)
    qtbot.waitUntil(lambda: run_of(window).result.done == 2, timeout=20000)
    # What was described shows in Review while the rest is awaited.
    qtbot.waitUntil(lambda: review.description.explanation is not None, timeout=10000)
    assert not run_of(window).is_over
    click(dialog.close_button)
    qtbot.waitUntil(lambda: window.explain_dialog is None, timeout=5000)
    assert window.tasks and window.strip.isVisible() and not run_of(window).is_over
    # The dialog opens again on the run.
    window.show_page("study")
    page = window.page("study")
    assert isinstance(page, StudyPage)
    click(page.describe_button)
    again = window.explain_dialog
    assert again is not None and again.progress.isVisible()
    click(again.progress.cancel_button)
    run = run_of(window)
    qtbot.waitUntil(lambda: run.is_over, timeout=3000)
    assert run.cancelled and not window.tasks and len(gazed.explanation_keys()) == 2
    assert again.progress.title.text().startswith("Cancelled")


def test_nothing_leaves_for_another_computer_before_it_is_allowed(
    window: MainWindow, qtbot: QtBot, gazed: Study, chat_server: FakeServer, far_away: str
) -> None:
    dialog = open_dialog(window, qtbot, "openai")
    to_server(dialog, qtbot, far_away)
    assert "needs permission" in dialog.server.place.text() and "not encrypted" in dialog.server.place.text()
    click(dialog.settings.crop)
    qtbot.waitUntil(ready(dialog), timeout=10000)
    seen = dialog.preview.seen
    assert seen is not None and seen.question.view.crop_margin is not None
    click(dialog.run_button)
    qtbot.waitUntil(lambda: hasattr(dialog, "consent"), timeout=10000)
    consent = dialog.consent
    qtbot.waitUntil(consent.isVisible, timeout=5000)
    assert load_settings(gazed).view == seen.question.view
    assert consent.picture.data == seen.shown.picture_png and consent.words.toPlainText() == seen.shown.prompt
    shown = consent.picture.image()
    assert (shown.width(), shown.height()) == (seen.shown.width, seen.shown.height)
    # No is the default: Enter sends nothing.
    assert consent.no_button.isDefault() and not consent.allow_button.isEnabled()
    QTest.keyClick(consent, Qt.Key.Key_Return)
    qtbot.waitUntil(lambda: not consent.isVisible() if _alive(consent) else True)
    qtbot.wait(100)
    assert chat_server.asked == [] and not window.tasks and permissions(gazed) == []

    del dialog.consent
    click(dialog.run_button)
    qtbot.waitUntil(lambda: hasattr(dialog, "consent") and dialog.consent.isVisible(), timeout=10000)
    consent = dialog.consent
    click(consent.looked)
    assert chat_server.asked == []
    click(consent.allow_button)
    run = wait_for_end(window, qtbot)
    assert run.result.done == 6 and run.result.failed == []
    [given] = permissions(gazed)
    assert given.given_by == "Dr. Test" and given.picture_sha256 == seen.shown.picture_sha256
    assert (seen.shown.picture_png, seen.shown.prompt) in [sent(body) for body in bodies(chat_server)]

    # It stands, until it is withdrawn.
    count = len(chat_server.asked)
    click(dialog.progress.back_button)
    qtbot.waitUntil(ready(dialog), timeout=10000)
    assert "allowed by Dr. Test" in dialog.server.place.text()
    del dialog.consent
    click(dialog.server.permission_button)
    qtbot.waitUntil(lambda: hasattr(dialog, "consent") and dialog.consent.isVisible(), timeout=10000)
    click(dialog.consent.withdraw_button)
    assert permissions(gazed)[0].withdrawn_at is not None
    assert "needs permission" in dialog.server.place.text()
    del dialog.consent
    click(dialog.again)
    click(dialog.run_button)
    qtbot.waitUntil(lambda: hasattr(dialog, "consent") and dialog.consent.isVisible(), timeout=10000)
    assert len(chat_server.asked) == count
    QTest.keyClick(dialog.consent, Qt.Key.Key_Escape)
    qtbot.wait(50)
    assert len(chat_server.asked) == count and not window.tasks


def _alive(widget: QWidget) -> bool:
    import shiboken6

    return bool(shiboken6.isValid(widget))


def test_a_permission_withdrawn_elsewhere_is_asked_for_anew(
    window: MainWindow, qtbot: QtBot, gazed: Study, chat_server: FakeServer, far_away: str
) -> None:
    dialog = open_dialog(window, qtbot, "openai")
    to_server(dialog, qtbot, far_away)
    click(dialog.run_button)
    qtbot.waitUntil(lambda: hasattr(dialog, "consent") and dialog.consent.isVisible(), timeout=10000)
    click(dialog.consent.looked)
    click(dialog.consent.allow_button)
    wait_for_end(window, qtbot)
    withdraw_permission(gazed, far_away, "Dr. Else")
    count = len(chat_server.asked)
    click(dialog.progress.back_button)
    qtbot.waitUntil(ready(dialog), timeout=10000)
    click(dialog.again)
    del dialog.consent
    click(dialog.run_button)
    qtbot.waitUntil(lambda: hasattr(dialog, "consent") and dialog.consent.isVisible(), timeout=10000)
    assert len(chat_server.asked) == count


def test_own_words_are_understood_while_typed_and_kept(
    window: MainWindow, qtbot: QtBot, gazed: Study
) -> None:
    dialog = open_dialog(window, qtbot, "annotator")
    qtbot.waitUntil(ready(dialog), timeout=10000)
    first, second = list(gazed.images)[:2]
    form = dialog.words
    assert window.session.image_id == first and not dialog.run_button.isVisible()
    QTest.mouseClick(form.text.viewport(), LEFT)
    QTest.keyClicks(form.text, "Oval, well demarcated, upper left")
    assert form.rows == {"location": "upper left", "shape": "oval", "boundary": "sharp"}
    QTest.keyClick(form.text, Qt.Key.Key_Return, Qt.KeyboardModifier.ControlModifier)
    told = load_explanation(gazed, first, "target")
    assert told is not None and (told.backend, told.model) == ("annotator", "Dr. Test")
    assert told.attributes["shape"] == "oval"
    assert window.session.image_id == second and form.text.toPlainText() == "" and form.text.hasFocus()
    QTest.keyClicks(form.text, "ro")
    # What was begun is there again, also after the dialog was closed by mistake.
    QTest.keyClick(form.text, Qt.Key.Key_Escape)
    qtbot.waitUntil(lambda: window.explain_dialog is None, timeout=5000)
    dialog = open_dialog(window, qtbot, "annotator")
    form = dialog.words
    qtbot.waitUntil(lambda: form.text.toPlainText() == "ro", timeout=5000)
    QTest.keyClick(form.text, Qt.Key.Key_End, Qt.KeyboardModifier.ControlModifier)
    QTest.keyClicks(form.text, "und")
    QTest.keyClick(form.text, Qt.Key.Key_Enter, Qt.KeyboardModifier.ControlModifier)
    assert [own.words for own in load_words(gazed, second, "target")] == ["round"]
    assert window.session.image_id == list(gazed.images)[2]
    # Back at the first image its words are there again.
    window.session.set_image(first)
    qtbot.waitUntil(lambda: form.text.toPlainText() == "Oval, well demarcated, upper left", timeout=5000)


def test_review_asks_for_its_image_or_for_what_is_listed(
    window: MainWindow, qtbot: QtBot, gazed: Study
) -> None:
    window.show_page("review")
    review = window.page("review")
    assert isinstance(review, ReviewPage)
    click(review.description.with_button)
    dialog = window.explain_dialog
    assert dialog is not None
    qtbot.waitUntil(lambda: dialog._due == ["case_0"], timeout=10000)
    assert dialog.again.isChecked() and dialog.run_button.text() == "Describe 1 image"
    # The window is not blocked: the choice follows its current image.
    window.session.set_image("case_3")
    qtbot.waitUntil(lambda: dialog._due == ["case_3"], timeout=10000)
    qtbot.waitUntil(
        lambda: dialog.preview.seen is not None and dialog.preview.seen.question.image.id == "case_3"
    )
    type_into(review.list.search, "case_4")
    qtbot.waitUntil(lambda: review.list.visible_ids() == ["case_4"], timeout=5000)
    click(review.description.with_button)
    listed = window.explain_dialog
    assert listed is not None and listed is not dialog and window.session.image_id == "case_3"
    qtbot.waitUntil(lambda: listed._due == ["case_4"], timeout=10000)
    qtbot.waitUntil(
        lambda: listed.preview.seen is not None and listed.preview.seen.question.image.id == "case_3"
    )


def test_a_setting_is_previewed_and_undone_or_saved(window: MainWindow, qtbot: QtBot, gazed: Study) -> None:
    dialog = open_dialog(window, qtbot, "openai")
    qtbot.waitUntil(ready(dialog), timeout=10000)
    before = dialog.preview.seen
    assert before is not None and not dialog.settings.save_row.isVisible()
    click(dialog.settings.fixations)
    qtbot.waitUntil(lambda: dialog.preview.seen is not before, timeout=10000)
    seen = dialog.preview.seen
    assert seen is not None and "The gaze rested" in before.shown.prompt
    assert "The gaze rested" not in seen.shown.prompt
    click(dialog.settings.undo_button)
    assert dialog.settings.fixations.isChecked() and not dialog.settings.save_row.isVisible()
    click(dialog.settings.mask_text)
    click(dialog.settings.save_button)
    assert load_settings(gazed).view.mask_text and not dialog.settings.save_row.isVisible()


def test_a_damaged_preset_and_no_pseudomasks_are_said(
    qtbot: QtBot, tmp_path: Path, study: Study, image_folder: Path
) -> None:
    fill(study, image_folder, pseudomasks=False)
    own = study.folder / "presets"
    own.mkdir()
    (own / "generic.json").write_text("{")
    (own / "generic.md").write_text("What?")
    window = open_window(qtbot, tmp_path, study)
    window.describe_with()
    dialog = window.explain_dialog
    assert dialog is not None
    qtbot.waitUntil(ready(dialog), timeout=10000)
    assert "None has a pseudo-mask yet" in dialog._images_row.hint.text()
    assert not dialog.run_button.isEnabled()
    assert "generic.json" in dialog.settings.problem and "(damaged)" in dialog.settings.preset.currentText()


def test_an_absent_target_is_said_and_not_described(window: MainWindow, qtbot: QtBot, gazed: Study) -> None:
    first, second = list(gazed.images)[:2]
    window.show_page("review")
    review = window.page("review")
    assert isinstance(review, ReviewPage) and window.session.image_id == first
    QTest.keyClick(review.canvas, Qt.Key.Key_0)
    QTest.keyClick(review.canvas, Qt.Key.Key_Backspace)
    assert gazed.presence(first, "target") == "absent" and window.session.image_id == first
    window.describe_with([first])
    dialog = window.explain_dialog
    assert dialog is not None
    qtbot.waitUntil(ready(dialog), timeout=10000)
    qtbot.waitUntil(dialog.preview.nothing.isVisible, timeout=10000)
    assert "target is absent" in dialog.preview.nothing.text() and not dialog.preview.picture.isVisible()
    assert "absent" in dialog._images_row.hint.text()
    assert dialog.run_button.text() == "Nothing to describe" and not dialog.run_button.isEnabled()
    # Another image has a region, and all together are described: this one is noted as absent.
    QTest.keyClick(review.canvas, Qt.Key.Key_Space)
    qtbot.waitUntil(dialog.run_button.isEnabled, timeout=10000)
    qtbot.waitUntil(dialog.preview.picture.isVisible, timeout=10000)
    assert window.session.image_id == second and dialog.run_button.text() == "Describe 1 image"
    QTest.keyClick(review.canvas, Qt.Key.Key_Backspace)
    QTest.keyClick(dialog.images, Qt.Key.Key_Home)
    qtbot.waitUntil(lambda: dialog.run_button.text() == "Describe 6 images", timeout=10000)
    qtbot.waitUntil(ready(dialog), timeout=10000)
    qtbot.waitUntil(dialog.preview.picture.isVisible, timeout=10000)
    assert dialog.preview.seen is not None and second in dialog.preview.subtitle.text()


def test_a_key_that_cannot_be_kept_stops_the_run(
    window: MainWindow, qtbot: QtBot, chat_server: FakeServer
) -> None:
    dialog = open_dialog(window, qtbot, "openai")
    to_server(dialog, qtbot, chat_server.url)
    # A key with a letter that no header takes, pasted.
    QApplication.clipboard().setText("sk-ü")
    QTest.mouseClick(dialog.server.key, LEFT)
    QTest.keyClick(dialog.server.key, Qt.Key.Key_V, Qt.KeyboardModifier.ControlModifier)
    click(dialog.run_button)
    qtbot.waitUntil(lambda: "no key has" in dialog.server._key_row.hint.text(), timeout=5000)
    assert not window.tasks and chat_server.asked == []
    assert "sk-" not in json.dumps(
        [str(window.session.settings.value(k)) for k in window.session.settings.allKeys()]
    )


def test_a_model_from_a_folder_describes_unseen_images(qtbot: QtBot, tmp_path: Path, tiny_vlm: Path) -> None:
    study, truth = make_ellipse_study(tmp_path / "ellipses", 16)
    window = open_window(qtbot, tmp_path, study)
    dialog = open_dialog(window, qtbot, "transformers")
    edit = dialog.local.folder.lineEdit()
    assert edit is not None
    type_into(edit, str(tmp_path))
    qtbot.waitUntil(lambda: "no config.json" in dialog.local.problem, timeout=5000)
    assert not dialog.run_button.isEnabled()
    type_into(edit, str(tiny_vlm))
    qtbot.waitUntil(lambda: "Whole: tiny-vlm-" in dialog.local.state.text(), timeout=5000)
    click(dialog.run_button)
    qtbot.waitUntil(lambda: run_of(window).result.done >= 3, timeout=120000)
    click(dialog.progress.cancel_button)
    run = run_of(window)
    qtbot.waitUntil(lambda: run.is_over, timeout=5000)
    kept = len(study.explanation_keys())
    assert run.cancelled and 3 <= kept < 16, kept
    # Asked again, only the rest is.
    click(dialog.progress.back_button)
    qtbot.waitUntil(ready(dialog), timeout=10000)
    click(dialog.run_button)
    qtbot.waitUntil(lambda: run_of(window) is not run and run_of(window).is_over, timeout=120000)
    result = run_of(window).result
    assert (result.skipped, result.done, result.requests) == (kept, 16 - kept, 16 - kept)
    right = {
        name: sum(
            load_explanation(study, image_id, "target").attributes[name] == getattr(ellipse, name)  # type: ignore[union-attr]
            for image_id, ellipse in truth.items()
        )
        / len(truth)
        for name in CHANCE
    }
    assert right["location"] >= 0.65 and right["colour"] >= 0.75, right
    assert window.session.settings.value("explain/model_folders") in ([str(tiny_vlm)], str(tiny_vlm))
