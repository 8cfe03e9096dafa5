"""A run as one file: everything that was learned and told of it, to be kept, handed on, or brought into a study.

A zip whose single folder is the run's id. It holds ``spec.json``, the name somebody gave it (``name.json``), which
reviews it learned from (``reviews.json``), ``events.jsonl``, ``worker.log``, the latest checkpoint
(``checkpoints/<step>/``: safetensors and ``state.json``), ``metrics/`` (JSON), ``samples/`` (PNG), and
``manifest.json``, which names the size and SHA-256 of every other file. Predictions stay behind: they are made again.

A run that comes in appears in the study whole or not at all; `segmentation.archives` says what is refused. Never
imports torch.
"""

from __future__ import annotations

import contextlib
import re
from collections.abc import Iterator
from pathlib import Path

from gaze_capture.errors import UserError
from gaze_capture.storage import explained_os_errors, folder_in_place, read_json
from segmentation.archives import Kind, check_names, check_space, copy, opened, write_archive
from segmentation.job import JobEvent
from segmentation.learned_reviews import LEARNED_NAME, learned_by
from segmentation.run_list import NAME_FILE
from segmentation.runs import RUN_ID, RunFolder
from segmentation.safetensors_files import read_header
from segmentation.study import Study

_CHECKPOINT = r"checkpoints/\d{1,12}"
RUN_ARCHIVE = Kind(
    "gaze-insight-run",
    1,
    "a run",
    "Export the run again",
    {
        r"spec\.json": 1 << 20,
        re.escape(NAME_FILE): 1 << 16,
        re.escape(LEARNED_NAME): 1 << 26,
        r"events\.jsonl": 1 << 30,
        r"worker\.log": 1 << 28,
        rf"{_CHECKPOINT}/state\.json": 1 << 26,
        rf"{_CHECKPOINT}/\w+\.safetensors": 1 << 36,
        # Named after a split, which people name.
        r'metrics/[^/\\:*?"<>|\x00-\x1f]{1,200}\.json': 1 << 28,
        r"samples/\d{1,12}/[\w.-]+\.png": 1 << 26,
    },
)


def write_run_archive(run: RunFolder, path: Path) -> None:
    """Write a run into one file.

    A finished run goes without its optimiser, which is needed to go on alone.

    Raises
    ------
    UserError
        If there is no such run, it is being worked on, it has no checkpoint yet, the file is there already, or the
        disk is full; nothing is left behind then.
    """
    if not (run.path / "spec.json").exists():
        raise UserError(f"There is no run {run.id} in {run.study_folder}.")
    state = run.state()
    if state == "running":
        raise UserError(f"The run {run.id} is being worked on; stop it first, or wait for its end.")
    files = files_of_run(run.path, optimiser=state != "done")
    _check_run(run.path, files)
    write_archive(RUN_ARCHIVE, path, run.id, run.path, files, {"run": run.id, "state": state})


def read_run_archive(path: Path, study: Study, run_id: str | None = None) -> RunFolder:
    """Bring a run from another computer into a study: an archive of it, or its folder.

    Parameters
    ----------
    run_id : what it is called in this study; by default what it was called

    Raises
    ------
    UserError
        If it is no run, a part of it is missing, damaged, too large or no part of a run, it learned targets that the
        study does not have, it is still being worked on, or the study has a run of this name; the study is as before.
    """
    path = Path(path)
    study.check_there()
    if path.is_dir():
        run = RunFolder(study.runs_folder / (run_id or path.resolve().name))
        sizes = _sizes_in(path)
        with _new_run(run, study, path, sizes) as made:
            for name, size in sizes.items():
                with open(path / name, "rb") as stream:
                    if copy(stream, made / name, size)[0] != size:
                        raise UserError(f"{path / name} is being written; wait until the run has ended.")
    else:
        with opened(RUN_ARCHIVE, path) as archive:
            run = RunFolder(study.runs_folder / (run_id or archive.name))
            with _new_run(run, study, path, archive.sizes) as made:
                archive.copy(made)
    study.audit("import-run", run=run.id, source=path.name)
    return run


def files_of_run(folder: Path, *, optimiser: bool = True) -> list[str]:
    """Return what of a run's folder belongs into an archive; of its checkpoints the latest whole one."""
    told = ("spec.json", NAME_FILE, LEARNED_NAME, "events.jsonl", "worker.log")
    names = [name for name in told if (folder / name).is_file()]
    steps = sorted(
        one.parent
        for one in (folder / "checkpoints").glob("*/state.json")
        if re.fullmatch(r"\d{1,12}", one.parent.name)
    )
    parts = sorted(one for step in steps[-1:] for one in step.iterdir() if not one.name.startswith("."))
    for kind in ("metrics/*.json", "samples/*/*.png"):
        parts += sorted(one for one in folder.glob(kind) if not one.name.startswith("."))
    names += [one.relative_to(folder).as_posix() for one in parts]
    return [name for name in names if optimiser or not name.endswith("/optimiser.safetensors")]


def _sizes_in(folder: Path) -> dict[str, int]:
    """Return the size of each file of a run's folder that was copied from another computer."""
    if not (folder / "spec.json").is_file():
        raise UserError(
            f"{folder} is no run: it has no spec.json. Give the folder runs/<id> of a study, or an archive of a run."
        )
    if RunFolder(folder).state() == "running":
        raise UserError(f"{folder} is being worked on; stop the run first, or wait for its end.")
    with explained_os_errors(folder):
        sizes = {name: (folder / name).stat().st_size for name in files_of_run(folder)}
    check_names(RUN_ARCHIVE, folder, sizes)
    return sizes


@contextlib.contextmanager
def _new_run(run: RunFolder, study: Study, source: Path, sizes: dict[str, int]) -> Iterator[Path]:
    """Yield the folder that becomes the run, once what was written there is found to be a run of the study."""
    if not re.fullmatch(RUN_ID, run.id, re.ASCII):
        raise UserError(
            f"{run.id[:80]!r} cannot be a run's name: letters, digits, - and _ (at most 64). Give it another: --as NAME"
        )
    if run.path.exists():
        raise UserError(
            f"The study has a run {run.id!r} already, which stays as it is; bring this one in under another name: "
            "--as NAME"
        )
    check_space(source, sizes, study.folder)
    with folder_in_place(run.path) as made:
        yield made
        try:
            _check_run(made, list(sizes))
            _check_fits(made, study)
        except UserError as error:
            # The sentence speaks of the run that was given, not of the copy that is being made.
            raise UserError(str(error).replace(str(made), str(source))) from None


def _check_run(folder: Path, files: list[str]) -> None:
    """Raise UserError unless the files of a folder are those of a run that has learned something."""
    _ = RunFolder(folder).spec
    learned_by(RunFolder(folder))
    steps = {name.split("/")[1] for name in files if name.startswith("checkpoints/")}
    if len(steps) != 1:
        found = "several checkpoints" if steps else "no whole checkpoint"
        raise UserError(
            f"{folder} cannot be used: it has {found}. Train it first, or copy all of the run's folder again."
        )
    inside = folder / "checkpoints" / steps.pop()
    there = {name.rpartition("/")[2] for name in files if name.startswith("checkpoints/")}
    state = read_json(inside / "state.json") if "state.json" in there else None
    predicts = state.get("predicts") if isinstance(state, dict) else None
    for name in ("state.json", "student.safetensors", f"{predicts or 'student'}.safetensors"):
        if name not in there:
            raise UserError(
                f"{folder} is not whole: its checkpoint lacks {name}. Copy all of the run's folder again."
            )
    for name in sorted(there):
        if name.endswith(".safetensors"):
            _check_weights(inside / name)
    if "events.jsonl" in files:
        _check_events(folder / "events.jsonl")
    for name in files:
        if name.startswith("metrics/"):
            read_json(folder / name)


def _check_weights(path: Path) -> None:
    try:
        read_header(path)
    except UserError:
        with explained_os_errors(path), open(path, "rb") as stream:
            begin = stream.read(2)
        # What torch.save writes is a zip, and older files of its are a bare pickle.
        if begin == b"PK" or (begin[:1] == b"\x80" and begin[1:] in (b"\x02", b"\x03", b"\x04", b"\x05")):
            raise UserError(
                f"{path} is refused: it is a pickle under another name, which could run any program; weights of a run "
                "are safetensors."
            ) from None
        raise


def _check_events(path: Path) -> None:
    """Raise UserError where a file holds no events; a line that a crash tore is none and may be there."""
    with explained_os_errors(path), open(path, "rb") as stream:
        for line in stream:
            with contextlib.suppress(ValueError, RecursionError):
                JobEvent.from_line(line.decode("utf-8", errors="replace"))
                return
    if path.stat().st_size:
        raise UserError(f"{path} is damaged: it holds no events. Copy the run again.")


def _check_fits(folder: Path, study: Study) -> None:
    known = [target.id for target in study.targets]
    strange = [target_id for target_id in RunFolder(folder).spec.targets if target_id not in known]
    if strange:
        raise UserError(
            f"{folder} segments {', '.join(strange)}, but the study's targets are {', '.join(known)}; add the target "
            "first: gaze-insight targets STUDY --add ID"
        )
