"""Settings of pseudo-masks chosen from true masks: never from test images, and what is promised is what comes."""

from __future__ import annotations

import json
from pathlib import Path

import cv2
import numpy as np
import numpy.typing as npt
import pytest

from app.cli import run_command
from gaze_capture.errors import UserError
from gaze_capture.fixations import Fixations
from segmentation import steps
from segmentation.metrics import dice
from segmentation.pseudomask import PseudoMaskSettings
from segmentation.study import Study
from segmentation.suggesting import _held_out, suggest


def make_study(
    folder: Path,
    count: int,
    *,
    radius: float = 0.14,
    seed: int = 4,
    split: str = "train",
    group_by: str | None = None,
) -> Study:
    """Make a study of grey discs of one size on a ground of another grey, looked at all over and a little around."""
    rng = np.random.default_rng(seed)
    study = Study.create(folder / "study")
    images, masks, looks = folder / "images", folder / "masks", []
    images.mkdir()
    masks.mkdir()
    side = 120
    rows, columns = np.mgrid[0:side, 0:side]
    for number in range(count):
        y, x = rng.uniform(0.35, 0.65, 2) * side
        inside = (rows - y) ** 2 + (columns - x) ** 2 < (radius * side) ** 2
        pixels = np.clip(np.where(inside, 150, 90) + rng.normal(0, 5, inside.shape), 0, 255).astype(np.uint8)
        name = f"p{number // 2:02d}_{number:02d}"
        cv2.imwrite(str(images / f"{name}.png"), pixels)
        cv2.imwrite(str(masks / f"{name}.png"), (inside * 255).astype(np.uint8))
        angle, reach = rng.uniform(0, 2 * np.pi, 25), radius * side * np.sqrt(rng.uniform(0, 1.1, 25))
        xy = np.stack([x + reach * np.cos(angle), y + reach * np.sin(angle)], axis=1)
        looks.append(
            Fixations(name, "target", "ann", "import-1", np.linspace(0, 7200, 25), rng.lognormal(5.5, 0.4, 25), xy,
                      np.full(25, np.nan), "imported", degrees_per_px=25 / side, simulated_from="masks")
        )  # fmt: skip
    steps.import_images(study, [images], masks=masks, split=split, group_by=group_by)
    study.save_fixations("import-1", looks, imported=True)
    return study


def best_dice(study: Study) -> float:
    """Return the mean Dice of the level that is nearest the true masks."""
    scores = []
    for image in study.images_of(None):
        made = study.pseudomask(image.id, "target")
        truth = study.true_mask(image.id, "target")
        assert made is not None and truth is not None
        scores.append([dice(level, truth) for level in made.masks])
    return float(np.mean(scores, axis=0).max())


def test_what_is_suggested_is_better_and_as_good_as_promised(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    study = make_study(tmp_path, 16)
    steps.make_pseudomasks(study, settings=PseudoMaskSettings(sigma="gazemedseg-70", refine="none"))
    before = best_dice(study)

    assert run_command(["suggest", str(study.folder), "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert told["images"] == 16 and told["simulated_from"] == "masks" and not told["applied"]
    assert Study.open(study.folder).pseudomask_settings.sigma == "gazemedseg-70"
    assert told["today_dice"] == pytest.approx(before, abs=0.03)
    best = told["tried"][0]
    assert all(one["dice"] <= best["dice"] for one in told["tried"])
    assert (best["refine"], best["level"]) == (told["settings"]["refine"], told["settings"]["thresholds"][-1])

    assert run_command(["suggest", str(study.folder), "--apply"]) == 0
    text = capsys.readouterr().out
    assert "simulated from masks" in text and "gaze-insight pseudomask" in text
    study = Study.open(study.folder)
    assert study.pseudomask_settings == PseudoMaskSettings.from_json(told["settings"])
    # The masks that were there stay until they are made again.
    assert best_dice(study) == before
    steps.make_pseudomasks(study)
    assert best_dice(study) == pytest.approx(told["expected_dice"]["mean"], abs=0.03)
    assert best_dice(study) > before + 0.02


def test_the_test_split_is_never_looked_at(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    study = make_study(tmp_path, 12)
    asked = []
    known = Study.true_mask

    def watched(self: Study, image_id: str, target_id: str) -> npt.NDArray[np.bool_] | None:
        asked.append(image_id)
        return known(self, image_id, target_id)

    monkeypatch.setattr(Study, "true_mask", watched)
    more = tmp_path / "more"
    more.mkdir()
    test = make_study(more, 12, seed=5, split="test")
    for path in (more / "images").iterdir():
        path.rename(path.with_name(f"unseen-{path.name}"))
    for path in (more / "masks").iterdir():
        path.rename(path.with_name(f"unseen-{path.name}"))
    steps.import_images(study, [more / "images"], masks=more / "masks", split="test")
    assert len(study.images_of("test")) == 12
    found = suggest(study)
    assert found.images == 12 and asked and not any(name.startswith("unseen") for name in asked)
    with pytest.raises(UserError, match="never chosen"):
        suggest(test, split="test")


def test_too_little_is_refused(tmp_path: Path) -> None:
    (tmp_path / "few").mkdir()
    with pytest.raises(UserError, match=r"Only 9 images .* at least 10"):
        suggest(make_study(tmp_path / "few", 9))
    (tmp_path / "one").mkdir()
    with pytest.raises(UserError, match="one group"):
        suggest(make_study(tmp_path / "one", 11, group_by="images/(p)"))


class _CancelledError(Exception):
    pass


def test_cancelled_nothing_is_stored(tmp_path: Path) -> None:
    study = make_study(tmp_path, 12)

    def cancel(done: int, total: int, label: str) -> None:
        if done >= 2:
            raise _CancelledError

    with pytest.raises(_CancelledError):
        suggest(study, progress=cancel)
    assert Study.open(study.folder).pseudomask_settings == PseudoMaskSettings()


def test_what_is_expected_is_measured_on_other_groups() -> None:
    """Noise has nothing to be chosen by: the best of 500 looks good, and honestly measured is no better than chance."""
    rng = np.random.default_rng(0)
    dice_of = rng.uniform(0, 1, (20, 50, 10))
    # Two images of one group are the same image: seen on one side, they would give the choice away.
    pairs = np.repeat(dice_of, 2, axis=0)
    held = _held_out(pairs, [f"g{number // 2}" for number in range(40)])
    assert pairs.mean(axis=0).max() > 0.65
    assert 0.35 < held.mean() < 0.62
