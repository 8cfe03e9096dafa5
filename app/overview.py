"""What a study has, what it lacks and the one next step: counted here, worded on the page. Nothing of Qt."""

from __future__ import annotations

import contextlib
import os
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from gaze_capture.errors import UserError
from segmentation.advice import StudyFacts, study_facts
from segmentation.job import RunSpec
from segmentation.records import StudyImage
from segmentation.runs import RunFolder
from segmentation.study import TEST_SPLIT, Study

Step = Literal["import", "gaze", "pseudomasks", "explain", "train", "wait", "predict", "review", "finished"]


@dataclass(frozen=True)
class Overview:
    """The counts of a study; gaze to reviews count images of the first target."""

    images: int = 0
    test_images: int = 0
    volumes: int = 0
    patients: int | None = None
    """Groups; None where no file or person has said which images belong together."""
    splits: tuple[tuple[str, int], ...] = ()
    """(name, images), the largest first."""
    burned_in: int = 0
    """Images in which text is likely and that nobody has looked at."""
    masks: int = 0
    gaze: int = 0
    absent: int = 0
    """Images whose annotator said that there is nothing: they need no pseudo-mask."""
    fixations: int = 0
    simulated_from: str | None = None
    pseudomasks: int = 0
    explanations: int = 0
    runs: int = 0
    running: str | None = None
    """The run being worked on."""
    finished_run: str | None = None
    """The latest run that is done."""
    predictions: int = 0
    """Predictions of the student of the latest finished run."""
    reviews: int = 0
    to_review: int = 0
    """Images with a mask, the student's or of gaze, that nobody has reviewed."""
    trainable: int = 0
    """Images outside the test split that have a pseudo-mask or were said to hold nothing."""
    facts: StudyFacts = field(default_factory=StudyFacts)
    """What the split `train` has to learn from."""
    learned: Mapping[str, RunSpec] = field(default_factory=dict)
    """The specs of all runs that have ended with something learned, by id."""

    @property
    def next_step(self) -> Step:
        """Return the one thing to do next."""
        if self.images == 0:
            return "import"
        if self.gaze == 0:
            return "gaze"
        if self.pseudomasks + self.absent < self.gaze:
            return "pseudomasks"
        if self.explanations < self.pseudomasks:
            return "explain"
        if self.running is not None:
            return "wait"
        if self.finished_run is None:
            return "train"
        if self.predictions == 0:
            return "predict"
        return "review" if self.to_review else "finished"


def survey(study: Study) -> Overview:
    """Count what a study holds; a study of 10,000 images takes a quarter of a second, once its gaze is known."""
    target = study.targets[0].id
    images = study.images
    gazed = {image for (image, name) in study.looks if name == target and image in images}
    said = study.presences()
    absent = {image for image in gazed if said.get((image, target)) == "absent"}
    pseudomasks = {image for (image, name) in study.pseudomask_keys() if name == target and image in images}
    explanations = {image for (image, name) in study.explanation_keys() if name == target and image in images}
    running, finished = run_states(study)
    predictions = study.prediction_keys(finished) if finished else set()
    predicted = {image for (image, name) in predictions if name == target}
    reviewed = {image for (image, name) in study.reviewed() if name == target}
    return Overview(
        images=len(images),
        test_images=sum(image.split == TEST_SPLIT for image in images.values()),
        volumes=len(study.volumes),
        patients=patients(images.values()),
        splits=tuple(Counter(image.split for image in images.values()).most_common()),
        burned_in=sum(bool(image.burned_in) for image in images.values()),
        masks=count_files(study.folder / "masks", f".{target}.png"),
        gaze=len(gazed),
        absent=len(absent - pseudomasks),
        fixations=sum(look.fixations for look in study.fixations.each_look()),
        simulated_from=study.simulated_from(),
        pseudomasks=len(pseudomasks),
        explanations=len(explanations),
        runs=len(study.run_ids()),
        running=running,
        finished_run=finished,
        predictions=len(predicted),
        reviews=len(reviewed),
        to_review=len(((pseudomasks | predicted) & images.keys()) - reviewed),
        trainable=sum(images[name].split != TEST_SPLIT for name in pseudomasks | absent),
        facts=study_facts(study),
        learned=learned_runs(study),
    )


def learned_runs(study: Study) -> dict[str, RunSpec]:
    """Return the specs of the runs that ended with something learned, by id; a damaged spec is passed over."""
    found = {}
    for name in study.run_ids():
        run = RunFolder(study.runs_folder / name)
        if run.state() in ("done", "stopped"):
            with contextlib.suppress(UserError):
                found[name] = run.spec
    return found


def patients(images: Iterable[StudyImage]) -> int | None:
    """Count groups; None where every image or volume is only a group of its own."""
    known = False
    groups = set()
    for image in images:
        alone = image.volume or image.id
        groups.add(image.group or alone)
        known = known or image.group not in ("", alone)
    return len(groups) if known else None


def run_states(study: Study) -> tuple[str | None, str | None]:
    """Return the run being worked on and the latest that is done, each None where there is none."""
    running: str | None = None
    for name in reversed(study.run_ids()):
        state = RunFolder(study.runs_folder / name).state()
        if state == "running" and running is None:
            running = name
        if state == "done":
            return running, name
    return running, None


def count_files(folder: Path, ending: str) -> int:
    """Count the files of a folder by the end of their names; 0 where the folder is missing."""
    try:
        with os.scandir(folder) as entries:
            return sum(entry.name.endswith(ending) and not entry.name.startswith(".") for entry in entries)
    except FileNotFoundError:
        return 0
