"""A study of the first schema, as the version before wrote it, opens with everything in it."""

from __future__ import annotations

import io
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from gaze_capture.errors import UserError
from gaze_capture.storage import read_json, sha256_of
from segmentation.images import encode_gray16, encode_mask
from segmentation.records import SCHEMA
from segmentation.study import Study
from segmentation.verification import verify

STUDY_JSON: dict[str, Any] = {
    "schema": 1,
    "name": "Colon",
    "created": "2026-10-02T08:15:00.123+00:00",
    "targets": [
        {"id": "polyp", "name": "Polyp", "colour": "#56B4E9", "kind": "lesion"},
        {"id": "fold", "name": "Fold", "colour": "#E69F00", "kind": "zone"},
    ],
    "pseudomask": {
        "sigma": "degrees", "sigma_deg": 0.8, "thresholds": [0.6, 0.3], "refine": "none",
    },
}  # fmt: skip

FIXATIONS_CSV = """image_id,target_id,start_ms,duration_ms,x_px,y_px,dispersion_deg,instance
case_0,polyp,0.000,210.000,12.000,9.000,0.2100,
case_0,polyp,250.000,330.000,14.500,10.250,,
case_1,,10.000,400.000,5.000,6.000,0.1000,
"""
FIXATIONS_JSON: dict[str, Any] = {
    "schema": 1,
    "shared": {
        "annotator": "anna", "source": "gaze-1", "detector": "adaptive I-VT", "parameters": {"minimum_ms": 60.0},
        "degrees_per_px": 0.03, "accuracy_deg": None, "simulated_from": None,
    },
    "images": [
        {"image_id": "case_0", "target_id": "polyp", "fixations": 2, "presence": "present", "viewing_ms": 2400.0},
        {"image_id": "case_1", "target_id": None, "fixations": 1, "presence": "absent", "viewing_ms": 900.0},
    ],
}  # fmt: skip


def write(path: Path, content: object) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    if isinstance(content, bytes):
        path.write_bytes(content)
    else:
        path.write_text(content if isinstance(content, str) else json.dumps(content, indent=2) + "\n")


def pseudomask_bytes() -> bytes:
    header = {
        "image_id": "case_0", "target_id": "polyp", "annotators": ["anna"], "sources": ["gaze-1"],
        "degrees_per_px": 0.03, "thresholds": [0.6, 0.3], "refiner": "none", "simulated_from": None, "notes": {},
    }  # fmt: skip
    level_map = np.zeros((20, 30), np.uint8)
    level_map[5:12, 8:20] = 1
    level_map[7:10, 11:16] = 2
    stream = io.BytesIO()
    np.savez_compressed(
        stream,
        header=np.frombuffer(json.dumps(header).encode(), np.uint8),
        level_map=level_map,
        heatmap=(level_map.astype(np.uint16) * 30000),
        fixations=np.array([[12.0, 9.0, 210.0, 3.0, 3.0]]),
    )
    return stream.getvalue()


@pytest.fixture
def old(tmp_path: Path) -> Path:
    """Return a folder as the version before left it."""
    import cv2

    folder = tmp_path / "colon"
    write(folder / "study.json", STUDY_JSON)
    records = []
    for number in range(2):
        path = folder / "images" / f"case_{number}.png"
        pixels = np.random.default_rng(number).integers(0, 255, (20, 30, 3), np.uint8)
        write(path, cv2.imencode(".png", pixels)[1].tobytes())
        records.append(
            {
                "id": f"case_{number}", "path": f"images/case_{number}.png", "source_name": f"case_{number}.png",
                "sha256": sha256_of(path), "shape": [20, 30, 3], "modality": "photo",
                "spacing_mm": [0.5, 0.6] if number else None, "slice_index": None,
                "split": "test" if number else "train", "group": f"patient-{number}",
            }
        )  # fmt: skip
    write(folder / "images" / "manifest-20261002T081600000001-a1b2c3.json", {"schema": 1, "images": records})
    mask = np.zeros((20, 30), bool)
    mask[5:12, 8:20] = True
    write(folder / "masks" / "case_0.polyp.png", encode_mask(mask))
    write(folder / "fixations" / "gaze-1" / "fixations.json", FIXATIONS_JSON)
    write(folder / "fixations" / "gaze-1" / "fixations.csv", FIXATIONS_CSV)
    write(folder / "pseudomasks" / "case_0.polyp.npz", pseudomask_bytes())
    review = {
        "schema": 1, "image_id": "case_0", "target_id": "polyp", "annotator": "anna", "subject": "pseudomask",
        "verdict": "edited", "presence": "present", "seconds_spent": 3.5,
        "reviewed_at": "2026-10-03T09:00:00.000+00:00", "threshold": 0.5,
    }  # fmt: skip
    name = "20261003-090000000000-d4e5f6-anna"
    write(folder / "reviews" / "case_0.polyp" / f"{name}.json", review)
    write(folder / "reviews" / "case_0.polyp" / f"{name}.png", encode_mask(~mask))
    write(folder / "runs" / "run-1" / "spec.json", {})
    write(
        folder / "runs" / "run-1" / "predictions" / "student" / "case_0.polyp.png",
        encode_gray16(mask.astype(np.float32)),
    )
    return folder


def assert_everything_is_there(study: Study) -> None:
    assert (study.name, [target.id for target in study.targets]) == ("Colon", ["polyp", "fold"])
    assert study.target("fold").inside is None
    assert study.pseudomask_settings.thresholds == (0.6, 0.3)
    assert list(study.images) == ["case_0", "case_1"]
    second = study.image("case_1")
    assert (second.split, second.group, second.spacing_mm) == ("test", "patient-1", (0.5, 0.6))
    assert (second.volume, second.intensity.slope, second.source_sha256) == ("", 1.0, "")
    assert study.shown(second).shape == (20, 30, 3)
    mask = study.true_mask("case_0", "polyp")
    assert mask is not None and mask.sum() == 84
    [gaze] = study.fixations["case_0", "polyp"]
    assert gaze.xy_px.tolist() == [[12, 9], [14.5, 10.25]]
    assert gaze.presence == "present" and np.isnan(gaze.dispersion_deg[1])
    # Free viewing counts for the first target.
    assert study.presence("case_1", "polyp") == "absent"
    assert study.looks["case_0", "polyp"][0].inside == 2
    pseudomask = study.pseudomask("case_0", "polyp")
    assert pseudomask is not None and pseudomask.masks.sum(axis=(1, 2)).tolist() == [15, 84]
    [review] = study.reviews("case_0", "polyp")
    assert (review.verdict, review.seconds_spent) == ("edited", 3.5)
    reviewed = study.reviewed_mask("case_0", "polyp")
    assert reviewed is not None and reviewed.sum() == 600 - 84
    assert study.prediction_keys("run-1") == {("case_0", "polyp")}


def test_everything_is_still_there(old: Path) -> None:
    before = (old / "study.json").read_bytes()
    files = {
        path: path.read_bytes() for path in old.rglob("*") if path.is_file() and path.name != "study.json"
    }
    study = Study.open(old)
    assert_everything_is_there(study)
    assert read_json(old / "study.json")["schema"] == SCHEMA == 2
    assert (old / "study.schema-1.json").read_bytes() == before
    assert all(path.read_bytes() == content for path, content in files.items())
    assert {path for path in old.rglob("*") if path.is_file()} == {
        *files, old / "study.json", old / "study.schema-1.json",
    }  # fmt: skip
    # Opened again it is the same study, and it is sound.
    assert Study.open(old).uid == study.uid
    assert verify(study).sound, [problem.sentence for problem in verify(study).problems]


def test_what_was_there_and_what_comes_live_together(old: Path) -> None:
    study = Study.open(old)
    study.set_pseudomask_settings(study.pseudomask_settings)
    study.add_images(
        [study.image("case_0").__class__("new", "images/new.png", "new.png", "0" * 64, (4, 5, 3))]
    )
    again = Study.open(old)
    assert set(again.images) == {"case_0", "case_1", "new"}
    assert again.uid == study.uid


def test_two_programs_that_open_it_at_once_agree(old: Path) -> None:
    script = f"""
from segmentation.study import Study
print(Study.open({str(old)!r}).uid)
"""
    both = [
        subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE, text=True) for _ in range(2)
    ]
    assert len({process.communicate(timeout=60)[0] for process in both}) == 1
    assert read_json(old / "study.schema-1.json") == STUDY_JSON
    assert read_json(old / "study.json")["schema"] == SCHEMA


@pytest.mark.skipif(os.name == "nt", reason="folders have no such permission on Windows")
def test_a_read_only_folder_opens_and_stays_as_it_is(old: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before = (old / "study.json").read_bytes()
    old.chmod(0o555)
    try:
        if os.access(old, os.W_OK):
            # The administrator may write anywhere: let the system refuse as it does for everybody else.
            real_open = os.open

            def refuse(path: Any, flags: int, *more: Any, **named: Any) -> int:
                if flags & os.O_CREAT:
                    raise PermissionError(13, "Permission denied", str(path))
                return real_open(path, flags, *more, **named)

            monkeypatch.setattr(os, "open", refuse)
        study = Study.open(old)
        assert_everything_is_there(study)
    finally:
        old.chmod(0o755)
    assert (old / "study.json").read_bytes() == before
    assert not (old / "study.schema-1.json").exists()


def test_a_newer_schema_is_refused_and_untouched(old: Path) -> None:
    path = old / "study.json"
    write(path, STUDY_JSON | {"schema": SCHEMA + 1, "something": "new"})
    before = path.read_bytes()
    with pytest.raises(UserError, match="newer Gaze Insight"):
        Study.open(old)
    assert path.read_bytes() == before
    assert not (old / "study.schema-1.json").exists()
