"""Pseudo-masks of several annotators in a study: whose gaze counts, and how much."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from gaze_capture.errors import UserError
from gaze_capture.fixations import Fixations
from gaze_capture.recording import Presence
from segmentation.pseudomask import PseudoMaskSettings
from segmentation.steps import import_images, make_pseudomasks
from segmentation.study import Study

PLAIN = PseudoMaskSettings("degrees", refine="none")


def looks(
    study: Study,
    annotator: str,
    images: list[str],
    place: tuple[float, float],
    total_ms: float,
    presence: Presence | None = None,
) -> None:
    """Store an annotator's gaze: four fixations at one place of each image."""
    found = [
        Fixations(
            image_id=image, target_id="target", annotator=annotator, source=f"gaze-{annotator}",
            start_ms=np.linspace(0.0, 6000.0, 4), duration_ms=np.full(4, total_ms / 4), xy_px=np.tile(place, (4, 1)),
            dispersion_deg=np.full(4, 0.2), detector="test", degrees_per_px=0.5, presence=presence,
            viewing_ms=9000.0,
        )
        for image in images
    ]  # fmt: skip
    study.save_fixations(f"gaze-{annotator}", found, imported=True)


@pytest.fixture
def pooled(study: Study, image_folder: Path) -> Study:
    """Return a study in which one looked at the left for 1 s, and one at the right for 8 s."""
    import_images(study, [image_folder / "images"])
    images = list(study.images)
    looks(study, "quick", images[:3], (15, 24), 1000)
    looks(study, "slow", images[:2], (48, 24), 8000)
    return study


def heat(study: Study, image: str = "case_0") -> tuple[float, float]:
    """Return the heat where the quick and where the slow one looked."""
    made = study.pseudomask(image, "target")
    assert made is not None
    return float(made.heatmap[24, 15]), float(made.heatmap[24, 48])


def test_by_default_the_one_who_looks_longer_counts_more(pooled: Study) -> None:
    make_pseudomasks(pooled, settings=PLAIN)
    quick, slow = heat(pooled)
    assert quick == pytest.approx(1 / 8, abs=0.01) and slow == pytest.approx(1)


def test_pooled_by_mean_both_count_the_same_and_the_pseudo_mask_says_so(pooled: Study) -> None:
    settings = PseudoMaskSettings("degrees", refine="none", pool="mean")
    make_pseudomasks(pooled, settings=settings)
    assert heat(pooled) == pytest.approx((1, 1), abs=0.01)
    made = pooled.pseudomask("case_0", "target")
    assert made is not None
    assert made.notes["pool"] == "mean"
    assert made.notes["weights"] == {"quick": pytest.approx(4.5), "slow": pytest.approx(0.5625)}
    assert sorted(made.annotators) == ["quick", "slow"]
    assert Study.open(pooled.folder).pseudomask_settings == settings


def test_only_the_annotators_chosen_count(pooled: Study) -> None:
    make_pseudomasks(pooled, settings=PLAIN)
    settings = PseudoMaskSettings("degrees", refine="none", annotators=("slow",))
    report = make_pseudomasks(pooled, settings=settings)
    assert report.made == 2
    # The quick one's third image has gaze of nobody chosen, and a pseudo-mask from before.
    assert report.of_others == 1 and report.waiting == 4
    assert heat(pooled) == pytest.approx((0, 1), abs=0.01)
    made = pooled.pseudomask("case_0", "target")
    assert made is not None
    assert made.annotators == ("slow",) and made.notes["chosen_annotators"] == ["slow"]
    with pytest.raises(UserError, match="no gaze of the annotator 'nobody'; it has gaze of: quick, slow"):
        make_pseudomasks(pooled, settings=PseudoMaskSettings(annotators=("nobody",)))
    assert pooled.pseudomask_settings == settings


def test_the_word_of_those_not_chosen_does_not_count(study: Study, image_folder: Path) -> None:
    import_images(study, [image_folder / "images"])
    looks(study, "a", ["case_0"], (15, 24), 1000, "present")
    looks(study, "b", ["case_0"], (48, 24), 1000, "absent")
    assert make_pseudomasks(study, settings=PLAIN).absent == 1
    report = make_pseudomasks(study, settings=PseudoMaskSettings("degrees", refine="none", annotators=("a",)))
    assert (report.absent, report.made) == (0, 1)


def test_the_command_line_chooses_and_lets_go(pooled: Study) -> None:
    def run(*options: str) -> dict[str, Any]:
        command = [
            sys.executable,
            "-m",
            "app",
            "pseudomask",
            str(pooled.folder),
            "--refine",
            "none",
            "--json",
        ]
        finished = subprocess.run(
            [*command, *options], capture_output=True, text=True, timeout=120, check=True
        )
        values: dict[str, Any] = json.loads(finished.stdout)
        return values

    chosen = run("--annotators", "slow", "--pool", "mean")
    assert (chosen["made"], chosen["settings"]["annotators"]) == (2, ["slow"])
    assert run()["settings"]["annotators"] == ["slow"]
    everybody = run("--annotators")
    assert (everybody["made"], everybody["settings"]["annotators"]) == (3, None)
    assert everybody["settings"]["pool"] == "mean"
    assert heat(pooled) == pytest.approx((1, 1), abs=0.01)
