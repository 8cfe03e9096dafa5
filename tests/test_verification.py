"""Verification: a sound study has no findings, and each damage exactly its own."""

from __future__ import annotations

import dataclasses
import json
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import pytest

from gaze_capture.storage import read_json, sha256_of, write_json_atomic
from segmentation import steps
from segmentation.explaining import explain_in_own_words
from segmentation.explanation_presets import copy_preset
from segmentation.explanation_settings import ExplanationSettings, save_settings
from segmentation.images import encode_mask
from segmentation.records import StudyImage, Volume, utc_now
from segmentation.sending import give_download_permission
from segmentation.study import Review, Study
from segmentation.text.imported import import_embeddings
from segmentation.verification import verify
from tests.window_support import fill

RUN = "run-1"


def add_slices(study: Study) -> None:
    images = []
    for index in range(3):
        path = study.folder / "images" / f"vol-{index}.png"
        path.write_bytes(cv2.imencode(".png", np.full((16, 20), 40 * index, np.uint8))[1].tobytes())
        images.append(
            StudyImage(
                f"vol-{index}", f"images/vol-{index}.png", "vol.nii", sha256_of(path), (16, 20, 1),
                slice_index=index, group="patient-7", volume="vol",
            )
        )  # fmt: skip
    study.add_images(images)
    study.save_volume(Volume("vol", tuple(image.id for image in images)))


@pytest.fixture(scope="module")
def template(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a sound study with something of everything."""
    folder = tmp_path_factory.mktemp("verification")
    raw = folder / "raw"
    rows, columns = np.mgrid[0:48, 0:64]
    for name in ("images", "masks"):
        (raw / name).mkdir(parents=True)
    for number in range(3):
        mask = (rows - 24) ** 2 + (columns - 24 - 5 * number) ** 2 < 90
        pixels = np.random.default_rng(number).normal(90, 12, (48, 64, 3)) + mask[:, :, None] * 60
        data = cv2.imencode(".png", pixels.clip(0, 255).astype(np.uint8))[1].tobytes()
        (raw / "images" / f"case_{number}.png").write_bytes(data)
        (raw / "masks" / f"case_{number}.png").write_bytes(encode_mask(mask))
    study = fill(Study.create(folder / "study"), raw)
    steps.explain(study)
    explain_in_own_words(study, "case_0", "target", "ann", "a round red polyp")
    copy_preset("polyp", study.folder)
    save_settings(study, ExplanationSettings("polyp"))
    give_download_permission(study, "huggingface.co", "ann")
    np.save(raw / "case_0.npy", np.ones((2, 4), np.float32))
    import_embeddings(study, raw)
    steps.record(study, "simulated", seconds=0.2)
    add_slices(study)
    study.runs_folder.joinpath(RUN).mkdir(parents=True)
    write_json_atomic(study.runs_folder / RUN / "spec.json", {})
    study.save_prediction(RUN, "case_0", "target", "student", np.zeros((48, 64), np.float32))
    review = Review("case_0", "target", "ann", RUN, "edited", "present", 2.0, utc_now())
    study.add_review(review, np.ones((48, 64), bool))
    return study.folder


@pytest.fixture
def whole(template: Path, tmp_path: Path) -> Study:
    return Study.open(shutil.copytree(template, tmp_path / "study"))


def rewrite(study: Study, change: Callable[[dict[str, object]], object], number: int = 0) -> None:
    path = study.manifests()[number]
    values = read_json(path)
    change(values)
    write_json_atomic(path, values)


def again(study: Study, image_id: str, **changes: object) -> None:
    study.add_images([dataclasses.replace(study.image(image_id), **changes)])  # type: ignore[arg-type]


def same_id_elsewhere(study: Study) -> None:
    data = (study.folder / "images" / "case_1.png").read_bytes()
    (study.folder / "images" / "case_0.png").write_bytes(data)
    again(study, "case_0", sha256=study.image("case_1").sha256)


def cut(path: Path, keep: int = 60) -> None:
    path.write_bytes(path.read_bytes()[:keep])


def recording(study: Study) -> Path:
    return study.recordings_folder / study.recording_ids()[0]


def archived(study: Study) -> Path:
    return next(study.recordings_folder.glob("*/gaze.parquet")).parent


def flip(path: Path) -> None:
    """Change one byte in the middle of what was recorded."""
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)


def flip_last(path: Path) -> None:
    """Change the last byte: of a safetensors file, of its numbers."""
    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    path.write_bytes(data)


def changed(path: Path, **values: object) -> None:
    write_json_atomic(path, {**read_json(path), **values})


def vectors(study: Study) -> Path:
    folder = study.folder / "embeddings" / "any-encoder"
    folder.mkdir(parents=True)
    return folder / "vectors.safetensors"


def resized(path: Path) -> None:
    path.write_bytes(encode_mask(np.ones((10, 10), bool)))


DAMAGES: dict[str, tuple[Callable[[Study], object], str, str]] = {
    "image changed": (
        lambda s: (s.folder / "images/case_0.png").write_bytes((s.folder / "images/case_1.png").read_bytes()),
        "images/case_0.png", "another hash",
    ),
    "image missing": (
        lambda s: (s.folder / "images/case_0.png").unlink(), "images/case_0.png", "is missing",
    ),
    "image orphaned": (
        lambda s: shutil.copy(s.folder / "images/case_0.png", s.folder / "images/stray.png"),
        "images/stray.png", "no manifest lists it",
    ),
    "write cut off": (
        lambda s: (s.folder / "masks/.abc.part").write_bytes(b"x"), "masks/.abc.part", "cut off in writing",
    ),
    "shape": (lambda s: again(s, "case_0", shape=(48, 64, 1)), "images/case_0.png", "manifest says 64 x 48 x 1"),
    "mask size": (
        lambda s: resized(s.folder / "masks/case_1.target.png"), "masks/case_1.target.png", "is 10 x 10 pixels",
    ),
    "mask damaged": (
        lambda s: cut(s.folder / "masks/case_1.target.png", 20), "masks/case_1.target.png", "damaged",
    ),
    "mask of no target": (
        lambda s: s.save_true_mask("case_0", "ghost", np.ones((48, 64), bool)),
        "masks/case_0.ghost.png", "the true mask of the target ghost",
    ),
    "mask of no image": (
        lambda s: s.save_true_mask("gone", "target", np.ones((48, 64), bool)),
        "masks/gone.target.png", "the true mask of the image gone",
    ),
    "gaze of no image": (
        lambda s: s.save_fixations(
            "stray",
            [dataclasses.replace(s.fixations["case_0", "target"][0], image_id="gone", source="stray")],
            imported=True,
        ),
        "fixations/stray/fixations.csv", "the gaze of the image gone",
    ),
    "gaze damaged": (
        lambda s: cut(s.folder / "fixations/import-test/fixations.csv", 300),
        "fixations/import-test/fixations.csv", "damaged",
    ),
    "gaze without header": (
        lambda s: (s.folder / "fixations/import-test/fixations.json").unlink(),
        "fixations/import-test/fixations.csv", "does not fit its header",
    ),
    "pseudo-mask damaged": (
        lambda s: cut(s.folder / "pseudomasks/case_1.target.npz"), "pseudomasks/case_1.target.npz", "damaged",
    ),
    "pseudo-mask of no image": (
        lambda s: shutil.copy(
            s.folder / "pseudomasks/case_1.target.npz", s.folder / "pseudomasks/gone.target.npz"
        ),
        "pseudomasks/gone.target.npz", "the pseudo-mask of the image gone",
    ),
    "explanation damaged": (
        lambda s: cut(s.folder / "explanations/case_1.target.json"), "explanations/case_1.target.json", "damaged",
    ),
    "explanation of nonsense": (
        lambda s: changed(s.folder / "explanations/case_1.target.json", attributes={"shape": ["round"]}),
        "explanations/case_1.target.json", "damaged",
    ),
    "explanation of another image": (
        lambda s: changed(s.folder / "explanations/case_1.target.json", image_id="case_2"),
        "explanations/case_1.target.json", "about case_2.target",
    ),
    "explanation by a preset that has gone": (
        lambda s: changed(s.folder / "explanations/case_1.target.json", preset="mine"),
        "explanations/case_1.target.json", "a preset that is not there",
    ),
    "earlier explanation damaged": (
        lambda s: cut(next((s.folder / "explanations/history/case_1.target").glob("*.json"))),
        "explanations/history/case_1.target/", "damaged",
    ),
    "earlier explanation of no image": (
        lambda s: shutil.move(
            s.folder / "explanations/history/case_1.target", s.folder / "explanations/history/gone.target"
        ),
        "explanations/history/gone.target/", "an earlier explanation of the image gone",
    ),
    "own words damaged": (
        lambda s: cut(next((s.folder / "explanations/words/case_0.target").glob("*.json"))),
        "explanations/words/case_0.target/", "damaged",
    ),
    "own words of another image": (
        lambda s: shutil.move(
            s.folder / "explanations/words/case_0.target", s.folder / "explanations/words/case_1.target"
        ),
        "explanations/words/case_1.target/", "about case_0.target",
    ),
    "preset damaged": (lambda s: cut(s.folder / "presets/polyp.json"), "presets/polyp.json", "line"),
    "prompt without a preset": (
        lambda s: shutil.copy(s.folder / "presets/polyp.md", s.folder / "presets/other.md"),
        "presets/other.json", "is missing",
    ),
    "explanation settings damaged": (
        lambda s: (s.folder / "explanations.json").write_text("[" * 100_000), "explanations.json", "damaged",
    ),
    "explanation settings without a preset": (
        lambda s: changed(s.folder / "explanations.json", preset="gone"), "explanations.json", "not there",
    ),
    "permission damaged": (
        lambda s: cut(next((s.folder / "permissions").glob("*.json"))), "permissions/", "nothing is sent",
    ),
    "embeddings damaged": (
        lambda s: flip_last(s.folder / "embeddings/imported-text/target.safetensors"),
        "embeddings/imported-text/target.safetensors", "not what was imported",
    ),
    "vectors damaged": (
        lambda s: vectors(s).write_bytes(b"x"), "embeddings/any-encoder/vectors.safetensors", "damaged",
    ),
    "explanation of no target": (
        lambda s: shutil.copy(
            s.folder / "explanations/case_1.target.json", s.folder / "explanations/case_1.ghost.json"
        ),
        "explanations/case_1.ghost.json", "the explanation of the target ghost",
    ),
    "review damaged": (
        lambda s: cut(next((s.folder / "reviews/case_0.target").glob("*.json"))), "reviews/case_0.target/", "damaged",
    ),
    "review mask missing": (
        lambda s: next((s.folder / "reviews/case_0.target").glob("*.png")).unlink(),
        "reviews/case_0.target/", "is missing, the mask of a review",
    ),
    "review mask size": (
        lambda s: resized(next((s.folder / "reviews/case_0.target").glob("*.png"))),
        "reviews/case_0.target/", "is 10 x 10 pixels",
    ),
    "review of no image": (
        lambda s: s.add_review(Review("gone", "target", "ann", RUN, "rejected", None, 1.0, utc_now())),
        "reviews/gone.target", "the review of the image gone",
    ),
    "prediction of no image": (
        lambda s: s.save_prediction(RUN, "gone", "target", "student", np.zeros((4, 4), np.float32)),
        f"runs/{RUN}/predictions/student/gone.target.png", "the prediction of the image gone",
    ),
    "prediction damaged": (
        lambda s: cut(s.prediction_path(RUN, "case_0", "target"), 20),
        f"runs/{RUN}/predictions/student/case_0.target.png", "damaged",
    ),
    "run damaged": (
        lambda s: (s.runs_folder / RUN / "spec.json").write_text("{"), f"runs/{RUN}/spec.json", "damaged",
    ),
    "slice not listed": (
        lambda s: s.save_volume(Volume("vol", ("vol-0", "vol-1", "vol-2", "vol-3"))),
        "volumes/vol.json", "the slice vol-3",
    ),
    "slice missing": (lambda s: again(s, "vol-1", volume=""), "volumes/vol.json", "lacks the slices 1"),
    "slice twice": (
        lambda s: again(s, "vol-0", slice_index=1), "volumes/vol.json", "has the slice 1 2 times (vol-0, vol-1)",
    ),
    "slices of mixed size": (
        lambda s: again(s, "case_0", volume="vol", slice_index=3),
        "volumes/vol.json", "mixed size: 20 x 16 x 1 pixels, 64 x 48 x 3 pixels",
    ),
    "volume damaged": (lambda s: cut(s.folder / "volumes/vol.json"), "volumes/vol.json", "is damaged"),
    "group over splits": (
        lambda s: again(s, "vol-1", split="test"), "images", "group patient-7 in several splits: test, train",
    ),
    "id twice in a manifest": (
        lambda s: rewrite(s, lambda v: v["images"].append(v["images"][0])),  # type: ignore[attr-defined, index]
        "images/manifest-", "lists the image case_0 twice",
    ),
    "id of another image": (same_id_elsewhere, "images/manifest-", "gives the id case_0 to another image"),
    "recording cut off": (
        lambda s: (recording(s) / "recording.json").unlink(), "recordings/", "was cut off before its end",
    ),
    "recording damaged": (
        lambda s: (recording(s) / "gaze.frames").write_bytes(b"GAZEFRM1" + bytes(90)), "recordings/", "",
    ),
    "summary damaged": (lambda s: (recording(s) / "recording.json").write_text("{"), "recordings/", "is damaged"),
    "archive changed": (
        lambda s: (archived(s) / "gaze.parquet").write_bytes(b"PAR1"), "recordings/", "not what was archived",
    ),
    "archive missing": (
        lambda s: (archived(s) / "gaze.parquet").unlink(), "recordings/", "is missing, the archive",
    ),
    "archived recording changed": (lambda s: flip(archived(s) / "gaze.frames"), "recordings/", "another hash"),
    "certificate damaged": (
        lambda s: (archived(s) / "certificate.json").write_text("{}"), "recordings/", "is damaged",
    ),
    "schema": (
        lambda s: write_json_atomic(s.folder / "study.json", read_json(s.folder / "study.json") | {"schema": 1}),
        "study.json", "still of schema 1",
    ),
}  # fmt: skip


def test_a_sound_study_has_no_findings(whole: Study) -> None:
    seen: list[tuple[int, int]] = []
    found = verify(whole, lambda done, total, _: seen.append((done, total)))
    assert found.sound, [problem.sentence for problem in found.problems]
    assert found.checked == {
        "study": 1, "manifests": 2, "images": 6, "volumes": 1, "true masks": 3, "recordings": 1,
        "fixation tables": 1, "pseudo-masks": 3, "explanations": 3, "reviews": 1,
        "earlier explanations": 4, "own words": 1, "presets": 1, "permissions": 1, "text embeddings": 1,
        "runs": 1, "predictions": 1,
    }  # fmt: skip
    assert seen[-1][0] == seen[-1][1] > 10


@pytest.mark.parametrize("name", DAMAGES)
def test_each_damage_is_found_and_nothing_else(whole: Study, name: str) -> None:
    damage, file, words = DAMAGES[name]
    damage(whole)
    whole.refresh()
    problems = verify(whole).problems
    told = [problem.sentence for problem in problems]
    assert len(problems) == 1, told
    assert problems[0].file.startswith(file) and words in problems[0].problem, told
    assert problems[0].advice.endswith((".", "STUDY"))


def test_a_record_that_was_corrected_is_no_finding(whole: Study) -> None:
    image = whole.image("case_0")
    pixels = np.zeros((48, 64, 3), np.uint8)
    whole.image_path(image).write_bytes(cv2.imencode(".png", pixels)[1].tobytes())
    again(
        whole, "case_0", source_sha256=image.sha256, sha256=sha256_of(whole.image_path(image)), burned_in=""
    )
    found = verify(whole)
    assert found.sound, [problem.sentence for problem in found.problems]


def test_a_damaged_manifest_is_one_finding_among_those_of_its_images(whole: Study) -> None:
    cut(whole.manifests()[0])
    problems = verify(whole).problems
    assert problems[0].file.startswith("images/manifest-") and "is damaged" in problems[0].problem


def test_the_command_says_so_with_its_status(whole: Study) -> None:
    def run(*more: str) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-m", "app", "verify", str(whole.folder), *more]
        return subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)

    sound = run()
    assert sound.returncode == 0 and "Everything is sound." in sound.stdout
    (whole.folder / "images" / "case_2.png").unlink()
    broken = run("--json")
    assert broken.returncode == 1 and broken.stderr == ""
    values = json.loads(broken.stdout)
    assert values["checked"]["images"] == 6
    assert [set(problem) for problem in values["problems"]] == [{"file", "problem", "advice"}]
    assert "images/case_2.png: is missing" in run().stdout
