"""The steps of training on another computer: pack, train there, bring back. Never imports torch.

What a GPU server does (`train_packed`) imports nothing that reads images, gaze or explanations.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from gaze_capture.errors import UserError
from segmentation.job import JobEvent, RunSpec
from segmentation.leaving import outside
from segmentation.packed import check_spec, packed_run, unpack
from segmentation.presets import checked
from segmentation.run_archive import write_run_archive
from segmentation.runs import RunFolder, completed, create_run
from segmentation.study import Study
from segmentation.workers import await_worker, train_to_end

OnEvent = Callable[[JobEvent], object]


@dataclass(frozen=True)
class PackedResult:
    """A packed run that was trained."""

    run: str
    seconds: float
    iterations: int
    device: str
    targets: tuple[str, ...]
    archive: str
    """The file to bring back: ``gaze-insight import-run STUDY FILE``."""


def pack(
    study: Study, spec: RunSpec, path: Path, *, on_event: OnEvent = lambda event: None
) -> dict[str, Any]:
    """Write what training by a spec reads into one file, in a worker; see `segmentation.packing.pack`.

    Returns
    -------
    dict
        The fields of a `segmentation.packing.PackReport`.

    Raises
    ------
    UserError
        If it cannot be packed; the sentence says why, and nothing is left behind.
    """
    # Where encoders lie on this computer; a server has no such list.
    from segmentation.known_folders import folders_job

    spec = completed(study, spec)
    outside(study, path)
    job = {"task": "pack", "spec": spec.to_json(), "file": str(Path(path).absolute()), **folders_job(spec)}
    return await_worker(study.folder, job, on_event)


def train_packed(
    path: Path,
    folder: Path | None = None,
    *,
    spec: RunSpec | None = None,
    changes: Mapping[str, Any] | None = None,
    resume: str | None = None,
    threads: int | None = None,
    processes: int = 1,
    on_event: OnEvent = lambda event: None,
) -> PackedResult:
    """Train a run of a packed training set to its end, going on where it was stopped, and write its archive.

    Without `spec`, `changes` and `resume` that is the run it was packed for.

    Parameters
    ----------
    path : the file, or the folder into which it was unpacked before
    folder : where the file is unpacked to, and the archive is written
    spec, changes : of a new run; what it reads must be what was packed, which the seed, for one, leaves as it is
    resume : id of another run of the folder, to go on with

    Raises
    ------
    UserError
        If it is no packed training set, the new run would read something else, or the run failed, was stopped or is
        being worked on.
    """
    if path.is_dir():
        study = Study.open(path)
    elif folder is None:
        raise UserError(f"Say where {path} is to be trained: gaze-insight train {path} --to FOLDER")
    else:
        study = unpack(path, folder)
    if resume is not None:
        run = RunFolder(study.runs_folder / resume)
    elif spec is None and not changes:
        run = packed_run(study)
    else:
        spec = checked(
            completed(study, dataclasses.replace(spec or packed_run(study).spec, **(changes or {})))
        )
        check_spec(study, spec)
        run = create_run(study, spec)
    if run.state() == "done":
        last, device = run.events()[-1], _device_of(run)
    else:
        run.prepare_resume()
        last, device = train_to_end(run, threads=threads, processes=processes, on_event=on_event)
    archive = study.folder / f"{run.id}.zip"
    if not archive.exists():
        write_run_archive(run, archive)
    return PackedResult(
        run=run.id,
        seconds=float(last.values["seconds"]),
        iterations=last.step,
        device=device,
        targets=run.spec.targets,
        archive=str(archive),
    )


def _device_of(run: RunFolder) -> str:
    started = [event for event in run.events() if event.kind == "started"]
    return str(started[-1].values.get("device")) if started else "unknown"
