from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from app.cli import run_command
from gaze_capture.errors import UserError
from gaze_capture.fixations import Fixations
from segmentation.blind_reading import audit_draws, draw_audit
from segmentation.consensus import make_consensus
from segmentation.consent import (
    consent_of,
    consent_text,
    erase_annotator,
    give_consent,
    has_consented,
    suggested_id,
    withdraw_consent,
)
from segmentation.editing.drafts import drafts_left, open_draft
from segmentation.explainers.opening import BackendOptions
from segmentation.explaining import explain_in_own_words, explain_study
from segmentation.explanation import load_history
from segmentation.gaze_gates import overrule
from segmentation.own_words_store import load_words
from segmentation.records import utc_now
from segmentation.steps import make_pseudomasks
from segmentation.study import Review, Study
from segmentation.verification import verify
from tests.gaze_support import add_images, record_in


def test_consent_is_given_withdrawn_and_asked_for_again_when_the_text_changes(study: Study) -> None:
    assert not has_consented(study, "annotator-7F3K")
    give_consent(study, "annotator-7F3K")
    stored = json.loads((study.folder / "consents" / "annotator-7F3K.json").read_text())["consents"]
    assert len(stored) == 1 and stored[0]["version"] == "1" and stored[0]["given_at"].endswith("+00:00")
    assert has_consented(Study.open(study.folder), "annotator-7F3K")
    assert not has_consented(study, "annotator-7f3k")
    withdraw_consent(study, "annotator-7F3K")
    assert not has_consented(study, "annotator-7F3K")
    with pytest.raises(UserError, match="no consent"):
        withdraw_consent(study, "annotator-7F3K")
    give_consent(study, "annotator-7F3K")
    assert has_consented(study, "annotator-7F3K")
    (study.folder / "consent.md").write_text("# Ours\n\nVersion: 2 of May\n\nAll of it.\n")
    assert consent_text(study).version == "2 of May"
    assert not has_consented(study, "annotator-7F3K"), "another text was not agreed to"
    give_consent(study, "annotator-7F3K")
    entries = json.loads((study.folder / "consents" / "annotator-7F3K.json").read_text())["consents"]
    assert [(entry["version"], bool(entry["withdrawn_at"])) for entry in entries] == [
        ("1", True),
        ("1", False),
        ("2 of May", False),
    ]
    assert verify(study).sound


def test_line_ends_make_no_other_text(study: Study) -> None:
    path = study.folder / "consent.md"
    path.write_bytes(b"# Ours\n\nAll of it.\n")
    give_consent(study, "ann")
    path.write_bytes(b"\xef\xbb\xbf# Ours\r\n\r\nAll of it.\r\n")
    assert has_consented(study, "ann")


def test_what_cannot_be_agreed_to_is_said(study: Study) -> None:
    with pytest.raises(UserError, match="needs an annotator's id"):
        give_consent(study, "  ")
    give_consent(study, "a b")
    with pytest.raises(UserError, match="too much like 'a b'"):
        give_consent(study, "a/b")
    assert consent_of(study, "a/b") is None
    (study.folder / "consent.md").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(UserError, match=r"consent\.md is not a text"):
        consent_text(study)
    (study.folder / "consent.md").write_text(" \n")
    with pytest.raises(UserError, match="is empty"):
        consent_text(study)


def test_suggested_ids_are_pseudonyms() -> None:
    found = {suggested_id() for _ in range(50)}
    assert len(found) > 45 and all(re.fullmatch(r"annotator-[2-9A-HJKMNP-Y]{4}", name) for name in found)


@pytest.fixture
def two(study: Study) -> Study:
    """Return a study in which ann and ben have recorded, imported, reviewed and agreed."""
    add_images(study, ["a", "b", "c"])
    for name in ("ann", "ben"):
        give_consent(study, name)
        record_in(study, f"rec-{name}", [("a" if name == "ann" else "b", 1, 6), ("c", 7, 8)], annotator=name)
        study.add_review(
            Review("a", "target", name, "pseudomask", "accepted", "present", 1.0, utc_now()),
            np.ones((480, 640), bool),
        )
    alike: dict[str, Any] = {
        "start_ms": np.zeros(1),
        "duration_ms": np.full(1, 300.0),
        "xy_px": np.full((1, 2), 50.0),
        "dispersion_deg": np.zeros(1),
    }
    both = [
        Fixations("b", "target", name, "import-1", detector="imported", **alike) for name in ("ann", "ben")
    ]
    study.save_fixations("import-1", both, imported=True)
    overrule(study, ["c"], "ann")
    make_pseudomasks(study)
    return study


def files_that_name(study: Study, annotator: str) -> set[str]:
    return {
        path.relative_to(study.folder).as_posix()
        for path in study.folder.rglob("*")
        if path.is_file() and path.name != "audit.jsonl" and annotator.encode() in path.read_bytes()
    }


def test_erasing_leaves_nothing_of_one_annotator_and_all_of_the_other(two: Study) -> None:
    told = erase_annotator(two, "ann", really=False)
    assert (told.recordings, told.imports) == (("rec-ann",), ("import-1",))
    assert (told.pseudomasks, told.reviews, told.overrules) == (3, 2, 1)
    assert "recordings/rec-ann/gaze.frames" in files_that_name(two, "ann"), "it was only told"
    erase_annotator(two, "ann", really=True)
    assert files_that_name(two, '"ann"') == set()
    assert not list(two.folder.rglob("*-ann*")) and not list(two.folder.rglob("ann.*"))
    again = Study.open(two.folder)
    assert again.recording_ids() == ["rec-ben"]
    assert [item.annotator for item in again.fixations["b", "target"]] == ["ben", "ben"]
    assert [review.annotator for review in again.reviews("a", "target")] == ["ben"]
    assert has_consented(again, "ben") and not has_consented(again, "ann")
    made = make_pseudomasks(again)
    assert made.made == 1 and [image for image, _ in made.look_again] == ["c"], "ann's overrule is gone"
    assert verify(again).sound
    assert (
        json.loads((two.folder / "audit.jsonl").read_text().splitlines()[-2])["action"] == "erase annotator"
    )
    with pytest.raises(UserError, match="Nothing is stored"):
        erase_annotator(again, "ann", really=True)


def test_unfinished_edits_and_consensuses_are_erased_too(two: Study) -> None:
    drafts = [open_draft(two, "a", "target", name, None) for name in ("ann", "ben")]
    for draft in drafts:
        draft.apply("brush", np.eye(480, 640, dtype=bool))
        draft.close()
    assert make_consensus(two, "majority").written == {("a", "target"): "present"}
    two.add_review(
        Review("b", "target", "ben", "pseudomask", "accepted", "present", 1.0, utc_now()), np.ones((480, 640), bool)
    )  # fmt: skip
    draw_audit(two, 1, 0, annotator="ann")
    draw_audit(two, 1, 0, annotator="ben")
    told = erase_annotator(two, "ann", really=False)
    assert (told.drafts, told.draws, told.reviews) == (1, 1, 4), (
        "two files each of a review and of the consensus"
    )
    erase_annotator(two, "ann", really=True)
    assert files_that_name(two, '"ann"') == set() and files_that_name(two, "-ann") == set()
    assert not list(two.folder.rglob("*-ann*"))
    again = Study.open(two.folder)
    assert set(drafts_left(again, "ben")) == {("a", "target")} and not drafts_left(again, "ann")
    assert [review.annotator for review in again.reviews("a", "target")] == ["ben"]
    assert [draw.annotator for draw in audit_draws(again)] == ["ben"]
    assert verify(again).sound


def test_own_words_are_erased_with_what_was_made_of_them(study: Study) -> None:
    add_images(study, ["b"])
    record_in(study, "rec-ben", [("b", 1, 6)], annotator="ben")
    make_pseudomasks(study)
    for name in ("ben", "ann"):
        assert explain_in_own_words(study, "b", "target", name, f"Round, says {name}.")
    told = erase_annotator(study, "ann", really=False)
    assert told.words == 3, "the words, the explanation that counts, and its place in the history"
    erase_annotator(study, "ann", really=True)
    assert files_that_name(study, '"ann"') == set()
    assert [own.annotator for own in load_words(study, "b", "target")] == ["ben"]
    assert [one.model for one in load_history(study, "b", "target")] == ["ben"]
    assert explain_study(study, BackendOptions("annotator")).reused == 1
    assert verify(study).sound


def test_erasing_on_the_command_line_asks_for_yes(two: Study, capsys: pytest.CaptureFixture[str]) -> None:
    assert run_command(["erase-annotator", str(two.folder), "ben"]) == 0
    assert "Nothing was erased; add --yes" in capsys.readouterr().out
    assert two.recording_ids() == ["rec-ann", "rec-ben"]
    assert run_command(["erase-annotator", str(two.folder), "ben", "--yes", "--json"]) == 0
    values = json.loads(capsys.readouterr().out)
    assert values["erased"] is True and values["recordings"] == ["rec-ben"] and values["consent"] is True
    assert two.recording_ids() == ["rec-ann"]


def test_recordings_that_cannot_be_read_are_named(two: Study, tmp_path: Path) -> None:
    (two.recordings_folder / "rec-ben" / "recording.json").write_text("{")
    told = erase_annotator(two, "ann", really=False)
    assert told.unreadable == ("rec-ben/gaze.frames",)
