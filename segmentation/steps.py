"""Every step of the day as a plain function, for the command line, the window and Python alike.

Each takes an open :class:`~segmentation.study.Study`, raises :class:`~gaze_capture.errors.UserError` with a sentence
for the person at the keyboard, and reports through an optional ``progress(done, total, label)``.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Literal

import numpy as np

from gaze_capture.archive import ARCHIVE_NAME, needs_archive, write_archive
from gaze_capture.certificate import CERTIFICATE_NAME, write_certificate
from gaze_capture.detectors import DEFAULT, Parameters
from gaze_capture.drift_correction import read_correction
from gaze_capture.errors import UserError
from gaze_capture.fixations import fixations_of
from gaze_capture.headless import RecordingResult, record_headless
from gaze_capture.recording import ScreenGeometry
from gaze_capture.recording_codec import Recovered, needs_recovery, read_recording, recover
from gaze_capture.simulate import ImageToLookAt, SyntheticClinician, saliency, simulate_sitting
from gaze_capture.trackers.discovery import open_tracker
from gaze_capture.trackers.replay import ReplayTracker
from gaze_capture.trackers.screen import KnownScreen
from gaze_capture.trackers.tracker import Tracker
from segmentation.annotation_time import store_times
from segmentation.evaluation import Evaluation, evaluate
from segmentation.explaining import ExplainResult, explain_in_own_words
from segmentation.explaining import explain_study as explain
from segmentation.gaze_gates import judge_in_study
from segmentation.gaze_import import GazeReport, import_gaze
from segmentation.importing import ImportReport, import_images
from segmentation.intensity import rules_for
from segmentation.job import JobEvent, RunSpec
from segmentation.known_folders import folders_job, remember_folder, segmenter_folder
from segmentation.presets import preset
from segmentation.progress import Progress, no_progress
from segmentation.pseudomask import PseudoMaskSettings
from segmentation.pseudomask_making import PseudoMaskReport
from segmentation.pseudomask_making import make_pseudomasks as make_here
from segmentation.records import StudyImage, Target, new_id
from segmentation.runs import RunFolder, create_run, latest_run
from segmentation.study import Study
from segmentation.targets import add_target, remove_target, rename_target
from segmentation.vlm_folder import check_model_folder, model_name
from segmentation.workers import await_worker, train_to_end

__all__ = [
    "DetectReport",
    "Evaluation",
    "ExplainResult",
    "GazeReport",
    "ImportReport",
    "PredictResult",
    "PseudoMaskReport",
    "RecoverReport",
    "SimulateReport",
    "TrainResult",
    "add_target",
    "detect_again",
    "detect_fixations",
    "evaluate",
    "explain",
    "explain_in_own_words",
    "import_gaze",
    "import_images",
    "latest_run",
    "make_pseudomasks",
    "predict",
    "preset",
    "record",
    "recover_recordings",
    "remove_target",
    "rename_target",
    "simulate",
    "train",
]

OnEvent = Callable[[JobEvent], None]


# Gaze


@dataclass(frozen=True)
class SimulateReport:
    """What the synthetic clinician looked at."""

    recordings: tuple[str, ...]
    images: int
    """Looks: each image counts once for every target that was looked for in it."""
    from_masks: int
    """Looks whose gaze was drawn from the true mask; the rest from saliency alone."""
    without_mask: int = 0
    """Looks left out because the target has no true mask in the image."""


def simulate(
    study: Study,
    *,
    seed: int = 0,
    split: str | None = None,
    source: Literal["auto", "masks", "saliency"] = "auto",
    targets: Sequence[str] | None = None,
    gives_presence: bool = True,
    annotator: str = "simulated",
    images_per_sitting: int = 50,
    progress: Progress = no_progress,
) -> SimulateReport:
    """Let a synthetic clinician look for each target in every image without gaze for it, one recording a sitting.

    Gaze is drawn from the true mask where there is one (``auto``), and every result made of it is *simulated from
    masks*; ``saliency`` never looks at a mask.

    Parameters
    ----------
    targets
        Ids of what is looked for, one after the other; default: all targets of the study.
    gives_presence
        Whether the clinician says after each image if the target is there.

    Raises
    ------
    UserError
        If there are no images, all have gaze already, or ``masks`` is asked for where an image has none. With several
        targets, an image is passed over for those whose true mask it lacks.
    """
    images = study.images_of(split)
    if not images:
        raise UserError("The study has no images yet; import some first.")
    chosen = (
        list(study.targets) if targets is None else [study.target(name) for name in dict.fromkeys(targets)]
    )
    waiting = {
        target: [image for image in images if (image.id, target.id) not in study.fixations]
        for target in chosen
    }
    if not any(waiting.values()):
        raise UserError("Every image has gaze already; nothing was simulated.")
    without_mask = 0
    if source == "masks":
        seen = {
            target: [image for image in found if study.mask_path(image.id, target.id).exists()]
            for target, found in waiting.items()
        }
        without = [image.id for target in chosen for image in waiting[target] if image not in seen[target]]
        without_mask = len(without)
        if without and (len(chosen) == 1 or not any(seen.values())):
            raise UserError(
                f"{without_mask} images have no true mask to simulate gaze from (the first is {without[0]}); "
                "import masks or simulate from saliency."
            )
        waiting = seen
    clinician = SyntheticClinician(seed=seed, annotator=annotator, gives_presence=gives_presence)
    total = sum(map(len, waiting.values()))
    recordings: list[str] = []
    done = from_masks = 0
    for target, found in waiting.items():
        # Chosen by the seed alone, so that a sitting's bias does not follow the order of file names.
        order = np.random.default_rng(seed).permutation(len(found))
        # A sitting's number chooses its samples: no two targets share one, in whatever order they are looked for.
        first = _SITTINGS_A_TARGET * study.targets.index(target)
        for sitting, start in enumerate(range(0, len(order), images_per_sitting), first):
            progress(done, total, f"sitting {len(recordings) + 1}")
            looked_at = [
                _to_look_at(study, found[index], target, source)
                for index in order[start : start + images_per_sitting]
            ]
            from_masks += sum(item.mask is not None for item in looked_at)
            recording_id = new_id("rec-")
            simulate_sitting(
                study.new_recording_folder(recording_id),
                looked_at,
                clinician,
                sitting=sitting,
                recording_id=recording_id,
            )
            recordings.append(recording_id)
            detect_fixations(study, recording_id)
            done += len(looked_at)
    progress(total, total, "")
    study.audit(
        "simulate",
        seed=seed,
        images=total,
        from_masks=from_masks,
        targets=[target.id for target in chosen],
        gives_presence=gives_presence,
    )
    return SimulateReport(tuple(recordings), total, from_masks, without_mask)


_SITTINGS_A_TARGET = 10_000


def _to_look_at(study: Study, image: StudyImage, target: Target, source: str) -> ImageToLookAt:
    mask = study.true_mask(image.id, target.id) if source != "saliency" else None
    # An empty mask leaves the eye to what is salient; so does having none.
    needs_saliency = mask is None or not mask.any()
    return ImageToLookAt(
        image_id=image.id,
        shape=image.shape[:2],
        mask=mask,
        saliency=saliency(study.guide(image)) if needs_saliency else None,
        target_id=target.id,
    )


def detect_fixations(
    study: Study,
    recording_id: str | None = None,
    *,
    parameters: Parameters = DEFAULT,
    progress: Progress = no_progress,
) -> int:
    """Detect and store the fixations of one recording, or of all; return how many there are.

    A drift correction that was asked for is applied to a copy; gates and times are stored beside the fixations.

    Raises
    ------
    UserError
        If there is no recording or one is damaged.
    """
    ids = [recording_id] if recording_id is not None else study.recording_ids()
    if not ids:
        raise UserError("The study has no recordings yet; record or simulate gaze first.")
    count = 0
    for number, name in enumerate(ids):
        progress(number, len(ids), name)
        folder = study.recordings_folder / name
        recording = read_recording(folder)
        correction = read_correction(folder)
        corrected = recording if correction is None else correction.applied_to(recording)
        found = fixations_of(corrected, parameters)
        if correction is not None:
            x, y = correction.mean_deg(recording)
            applied = {"drift_correction_x_deg": round(x, 4), "drift_correction_y_deg": round(y, 4)}
            found = [replace(item, parameters={**item.parameters, **applied}) for item in found]
        # First, so that whoever finds the fixations finds what they are worth.
        judge_in_study(study, recording, found)
        store_times(study, recording)
        study.save_fixations(name, found, imported=False)
        count += sum(len(item.duration_ms) for item in found)
    progress(len(ids), len(ids), "")
    return count


@dataclass(frozen=True)
class DetectReport:
    """Recordings whose fixations were detected again."""

    recordings: tuple[str, ...]
    fixations: int
    failed: tuple[tuple[str, str], ...]
    """(recording id, reason): damaged; their fixations are as they were."""


def detect_again(
    study: Study,
    recording_id: str | None = None,
    *,
    parameters: Parameters = DEFAULT,
    progress: Progress = no_progress,
) -> DetectReport:
    """Detect the fixations of one stored recording, or of all, in place of those found before.

    Imported fixations have no samples and stay as they are; so do pseudo-masks, until they are made again.

    Raises
    ------
    UserError
        If there is no such recording, or none at all, or the one asked for is damaged.
    """
    ids = study.recording_ids()
    if not ids:
        raise UserError("The study has no recordings yet; record or simulate gaze first.")
    if recording_id is not None:
        if recording_id not in ids:
            raise UserError(f"{study.folder} has no recording {recording_id!r}; it has {', '.join(ids)}.")
        ids = [recording_id]
    done, failed, count = [], [], 0
    for number, name in enumerate(ids):
        progress(number, len(ids), name)
        try:
            count += detect_fixations(study, name, parameters=parameters)
        except UserError as error:
            if recording_id is not None:
                raise
            # A recording that cannot be read is passed over; a study that is gone ends the work.
            study.check_there()
            failed.append((name, str(error)))
        else:
            done.append(name)
    progress(len(ids), len(ids), "")
    study.audit(
        "detect",
        recordings=done,
        detector=parameters.detector,
        parameters=asdict(parameters),
        fixations=count,
    )
    return DetectReport(tuple(done), count, tuple(failed))


def record(
    study: Study,
    tracker: str,
    *,
    address: str | None = None,
    screen: ScreenGeometry | KnownScreen | None = None,
    rate_hz: float | None = None,
    seconds: float | None = None,
    annotator: str = "headless",
    progress: Progress = no_progress,
) -> RecordingResult:
    """Record a tracker's gaze without a window or images.

    Ends after some seconds; by default a replay at its end, anything else after ten.

    Parameters
    ----------
    tracker
        ``replay`` of the latest recording, or a kind that
        :func:`~gaze_capture.trackers.discovery.open_tracker` knows; so are `address`, `screen` and `rate_hz`.

    Raises
    ------
    UserError
        If there is no such tracker, nothing to replay, or the disk refuses.
    """
    source: Tracker
    if tracker == "replay":
        source = _latest_replay(study)
    else:
        source = open_tracker(tracker, address, screen, rate_hz)
        seconds = 10.0 if seconds is None else seconds
    recording_id = new_id("rec-")
    folder = study.new_recording_folder(recording_id)
    result = record_headless(folder, source, annotator, seconds, progress=progress)
    study.audit("record", recording=recording_id, tracker=tracker, seconds=seconds)
    return result


def _latest_replay(study: Study) -> ReplayTracker:
    """Return a replay of the latest recording that can be read: one that a crash cut off may hold no sample."""
    ids = study.recording_ids()
    if not ids:
        raise UserError("The study has no recording to replay yet; record or simulate gaze first.")
    for name in reversed(ids[1:]):
        with contextlib.suppress(UserError):
            return ReplayTracker(read_recording(study.recordings_folder / name))
    return ReplayTracker(read_recording(study.recordings_folder / ids[0]))


@dataclass(frozen=True)
class RecoverReport:
    """Recordings that a crash had cut off, and those whose archive or certificate was missing."""

    recovered: tuple[Recovered, ...]
    failed: tuple[tuple[str, str], ...]
    """(recording id, reason): damaged beyond its header, still being written, or without room for an archive."""
    archived: tuple[str, ...] = ()
    """Recordings whose archive and certificate were made, those recovered among them."""


def recover_recordings(study: Study) -> RecoverReport:
    """Finish every recording that a crash cut off, detect its fixations, and make missing archives and certificates."""
    recovered, failed, archived = [], [], []
    for name in study.recording_ids():
        folder = study.recordings_folder / name
        try:
            if needs_recovery(folder):
                recovered.append(recover(folder))
                detect_fixations(study, name)
        except UserError as error:
            failed.append((name, str(error)))
            continue
        try:
            if _archived_now(folder):
                archived.append(name)
        except UserError as error:
            failed.append((name, str(error)))
    return RecoverReport(tuple(recovered), tuple(failed), tuple(archived))


def _archived_now(folder: Path) -> bool:
    """Make a recording's archive and certificate where they are missing; return whether they were."""
    if needs_archive(folder):
        try:
            write_archive(folder)
        finally:
            # It tells of the failure, too.
            write_certificate(folder)
        return True
    if (folder / ARCHIVE_NAME).exists() and not (folder / CERTIFICATE_NAME).exists():
        write_certificate(folder)
        return True
    return False


# Pseudo-masks


def make_pseudomasks(
    study: Study,
    *,
    settings: PseudoMaskSettings | None = None,
    segmenter: Path | None = None,
    split: str | None = None,
    progress: Progress = no_progress,
) -> PseudoMaskReport:
    """Make the pseudo-masks of all images with gaze; new settings become the study's own.

    Looks that a gate held back do not count, unless overruled; an image without any other waits to be looked at again.

    Parameters
    ----------
    segmenter
        Folder of a promptable segmenter, which then refines (``refine="sam"``) in a worker; this computer remembers it.

    Raises
    ------
    UserError
        If no image has gaze, or none of the annotators that the settings name, or the segmenter cannot be used.
    """
    wanted = settings or study.pseudomask_settings
    if segmenter is not None:
        segmenter = Path(segmenter).absolute()
        check_model_folder(segmenter)
        wanted = replace(wanted, refine="sam", segmenter=model_name(segmenter))
        remember_folder(wanted.segmenter, segmenter, "segmenter")
    if wanted.refine != "sam":
        return make_here(study, settings=wanted, split=split, progress=progress)
    job = {
        "task": "pseudomask",
        "settings": wanted.to_json(),
        "split": split,
        "segmenter_folder": str(segmenter_folder(wanted)),
    }

    def tell(event: JobEvent) -> None:
        if event.kind == "progress":
            progress(event.step, event.total, str(event.values.get("name", "")))

    report = PseudoMaskReport.from_json(await_worker(study.folder, job, tell))
    study.pseudomask_settings = wanted
    return report


# Training and prediction


@dataclass(frozen=True)
class TrainResult:
    """How a training ended."""

    run: str
    seconds: float
    iterations: int
    device: str
    targets: tuple[str, ...]
    normalisation: dict[str, str]
    """How each modality among the images was normalised."""


@dataclass(frozen=True)
class PredictResult:
    """What a run's networks predicted."""

    run: str
    images: int
    """One that two networks predicted counts twice, as below."""
    skipped: int
    """Predicted before from the same checkpoint."""
    seconds: float
    failed: list[dict[str, str]] = field(default_factory=list)
    """``image`` and ``reason`` of those that could not be read."""
    engine: str = ""
    """What computed them, as `predict` names it."""
    images_per_s: float = 0.0
    """Without the time to start and to build the engine."""


def _ignore_event(event: JobEvent) -> None:
    """Report to nobody."""


def train(
    study: Study,
    spec: RunSpec | None = None,
    *,
    resume: str | None = None,
    threads: int | None = None,
    processes: int = 1,
    on_event: OnEvent = _ignore_event,
) -> TrainResult:
    """Train in a worker process and wait for its end; Ctrl+C stops it with a checkpoint.

    A spec that names no target learns all targets of the study. `threads`: of the processor; None for all cores.
    `processes` share the work, each with a GPU of this machine.

    Raises
    ------
    UserError
        If nothing can be learned from the study, or the run failed or was stopped.
    """
    if resume is not None:
        run = RunFolder(study.runs_folder / resume)
        run.prepare_resume()
    else:
        run = create_run(study, spec or preset("gaze-to-insight", "cpu"))
    folders = None if study.is_packed() else folders_job(run.spec)
    last, device = train_to_end(run, folders, threads=threads, processes=processes, on_event=on_event)
    used = run.spec
    return TrainResult(
        run.id,
        float(last.values["seconds"]),
        last.step,
        device,
        used.targets,
        rules_for(used.normalisation, (image.modality for image in study.images.values())),
    )


def predict(
    study: Study,
    run_id: str | None = None,
    *,
    split: str | None = None,
    images: Sequence[str] | None = None,
    device: str | None = None,
    engine: str = "auto",
    networks: Sequence[str] = ("student",),
    overwrite: bool = False,
    threads: int | None = None,
    on_event: OnEvent = _ignore_event,
) -> PredictResult:
    """Let a run's networks segment a split, `images` by their ids, or all, and note how sure they are of each.

    What this checkpoint predicted before is kept, unless `overwrite` is asked for or another engine by name. The engine
    is ``torch``, ``openvino``, ``onnx``, or ``auto``: OpenVINO where it is installed and there is enough to do, else
    PyTorch. What `on_event` raises, and Ctrl-C, end the work after the images that are being predicted; the same call
    goes on from there.

    Raises
    ------
    UserError
        If the run has no checkpoint, the split is empty, or the worker failed.
    """
    run = RunFolder(study.runs_folder / latest_run(study, run_id))
    study.images_of(split)
    job = {
        "task": "predict",
        "split": split,
        "images": None if images is None else list(images),
        "networks": list(networks),
        "overwrite": overwrite,
        "device": device,
        "engine": engine,
        "threads": threads,
        **folders_job(run.spec),
    }
    begun = time.monotonic()
    used, speed, done, total = "", 0.0, 0, 0

    def tell(event: JobEvent) -> None:
        nonlocal used, speed, done, total
        if event.kind == "started":
            used, total = str(event.values["engine"]), event.total
        elif event.kind == "progress":
            speed, done = float(str(event.values["images_per_s"])), event.step
        on_event(event)

    try:
        values = await_worker(run, job, tell, stop=lambda: run.request_stop("predict"))
    except KeyboardInterrupt:
        raise KeyboardInterrupt(
            f"Stopped; at least {done} of {total} images are predicted. The same command goes on from there."
        ) from None
    seconds = time.monotonic() - begun
    return PredictResult(
        run.id, int(values["predicted"]), int(values["skipped"]), seconds, list(values["failed"]), used, speed
    )
