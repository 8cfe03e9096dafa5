"""A run as one file: written, read back, and everything that must not come in."""

from __future__ import annotations

import hashlib
import json
import pickle
import shutil
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from gaze_capture.errors import UserError
from segmentation.archives import MANIFEST
from segmentation.predictor import Predictor
from segmentation.run_archive import read_run_archive, write_run_archive
from segmentation.run_care import rename_run
from segmentation.run_list import read_name
from segmentation.runs import RunFolder, create_run
from segmentation.study import Study
from segmentation.training import train
from tests.training_helpers import Events, make_study, tiny


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Study:
    """A study with a run that was stopped after its first step, and one that is done."""
    import cv2

    from segmentation.images import encode_mask

    folder = tmp_path_factory.mktemp("trained")
    rng = np.random.default_rng(0)
    rows, columns = np.mgrid[0:48, 0:64]
    for number in range(4):
        mask = (rows - 24) ** 2 + (columns - 20 - 8 * number) ** 2 < 100
        pixels = np.clip(rng.normal(90, 12, (48, 64, 3)) + 60 * mask[:, :, None], 0, 255).astype(np.uint8)
        for name, data in (
            ("images", cv2.imencode(".png", pixels)[1].tobytes()),
            ("masks", encode_mask(mask)),
        ):
            (folder / "raw" / name).mkdir(parents=True, exist_ok=True)
            (folder / "raw" / name / f"case_{number}.png").write_bytes(data)
    study = make_study(folder / "study", folder / "raw", explained=False)
    run = create_run(study, tiny("partial", iterations=2), "done")
    assert train(study, run, events_of(run), threads=1)
    stopped = create_run(study, tiny("partial", iterations=4), "stopped")
    stopped.request_stop()
    assert not train(study, stopped, events_of(stopped), threads=1)
    with open(stopped.events_path, "a") as stream:
        stream.write(
            '{"run_id": "stopped", "kind": "stopped", "step": 0, "total": 0, "time": 2.0, "values": {}}\n'
        )
    return study


def events_of(run: RunFolder) -> Any:
    from segmentation.worker import Reporter

    return Reporter(run.id, run.events_path, None)


@pytest.fixture
def home(tmp_path: Path) -> Study:
    return Study.create(tmp_path / "home")


@pytest.fixture
def archive(trained: Study, tmp_path: Path) -> Path:
    path = tmp_path / "run.zip"
    write_run_archive(RunFolder(trained.runs_folder / "done"), path)
    return path


def nothing_came(study: Study) -> bool:
    return study.run_ids() == [] and (not study.runs_folder.exists() or not any(study.runs_folder.iterdir()))


def rewritten(
    path: Path, change: Callable[[dict[str, bytes]], object], *, listed: bool = True, top: str = "done"
) -> Path:
    """Return an archive with its files changed, its manifest made to fit them unless `listed` is False."""
    with zipfile.ZipFile(path) as archive:
        files = {f"{top}/{name.partition('/')[2]}": archive.read(name) for name in archive.namelist()}
    change(files)
    if listed:
        name = f"{top}/{MANIFEST}"
        manifest = json.loads(files[name])
        manifest["files"] = {
            one.partition("/")[2]: {"size": len(data), "sha256": hashlib.sha256(data).hexdigest()}
            for one, data in files.items()
            if one != name
        }
        files[name] = json.dumps(manifest).encode()
    other = path.with_name("changed.zip")
    with zipfile.ZipFile(other, "w") as archive:
        for one, data in files.items():
            archive.writestr(one, data)
    return other


def test_a_run_comes_back_as_it_was(trained: Study, archive: Path, home: Study) -> None:
    there = RunFolder(trained.runs_folder / "done")
    run = read_run_archive(archive, home)
    assert run.path == home.runs_folder / "done" and home.run_ids() == ["done"]
    assert run.spec == there.spec and run.state() == "done"
    assert run.events_path.read_bytes() == there.events_path.read_bytes()
    samples = [event.values["path"] for event in run.events() if event.kind == "sample"]
    assert samples and all((run.path / str(path)).is_file() for path in samples)
    pixels = [np.full((48, 64, 3), 90, np.uint8)]
    [here], [before] = (
        Predictor(run, device="cpu").predict(pixels),
        Predictor(there, device="cpu").predict(pixels),
    )
    assert np.array_equal(here, before)
    # Who worked on it, and the optimiser of what is finished, stay where they are.
    assert not (run.path / "worker.json").exists()
    assert not list(run.path.rglob("optimiser.safetensors"))


def test_a_name_that_somebody_gave_it_travels(trained: Study, home: Study, tmp_path: Path) -> None:
    rename_run(trained, "done", "Best of May")
    try:
        write_run_archive(RunFolder(trained.runs_folder / "done"), tmp_path / "named.zip")
    finally:
        rename_run(trained, "done", "")
    assert read_name(read_run_archive(tmp_path / "named.zip", home)) == "Best of May"


def test_the_manifest_names_every_file_with_its_hash(archive: Path) -> None:
    with zipfile.ZipFile(archive) as stream:
        names = set(stream.namelist())
        manifest = json.loads(stream.read(f"done/{MANIFEST}"))
        assert names == {f"done/{MANIFEST}", *(f"done/{name}" for name in manifest["files"])}
        for name, one in manifest["files"].items():
            data = stream.read(f"done/{name}")
            assert (len(data), hashlib.sha256(data).hexdigest()) == (one["size"], one["sha256"])
    assert (manifest["format"], manifest["run"], manifest["state"]) == ("gaze-insight-run", "done", "done")


def test_a_stopped_run_goes_on_elsewhere_as_it_would_have_here(
    trained: Study, tmp_path: Path, image_folder: Path
) -> None:
    path = tmp_path / "stopped.zip"
    write_run_archive(RunFolder(trained.runs_folder / "stopped"), path)
    copy = Study.open(shutil.copytree(trained.folder, tmp_path / "copy"))
    shutil.rmtree(copy.runs_folder)
    weights = []
    for study in (copy, trained):
        run = read_run_archive(path, study, "again")
        assert run.state() == "stopped"
        run.prepare_resume()
        assert train(study, run, Events(), threads=1)
        weights.append((run.path / "checkpoints" / "0000004" / "student.safetensors").read_bytes())
        shutil.rmtree(run.path)
    assert weights[0] == weights[1]


def test_a_folder_that_was_copied_comes_in(trained: Study, home: Study, tmp_path: Path) -> None:
    folder = shutil.copytree(trained.runs_folder / "done", tmp_path / "brought")
    (folder / "worker.json").write_text('{"pid": 1, "host": "elsewhere", "started": 1, "heartbeat": 1}')
    (folder / "stop").touch()
    (folder / "predictions").mkdir()
    run = read_run_archive(folder, home, "mine")
    assert run.id == "mine" and run.state() == "done"
    assert {one.name for one in run.path.iterdir()} == {
        "spec.json", "reviews.json", "events.jsonl", "checkpoints", "samples",
    }  # fmt: skip


def test_a_run_that_is_there_is_never_replaced(archive: Path, home: Study) -> None:
    read_run_archive(archive, home)
    before = (home.runs_folder / "done" / "spec.json").read_bytes()
    with pytest.raises(UserError, match="a run 'done' already"):
        read_run_archive(archive, home)
    assert (home.runs_folder / "done" / "spec.json").read_bytes() == before
    assert read_run_archive(archive, home, "other").id == "other"


def pickled(files: dict[str, bytes]) -> None:
    [name] = [one for one in files if one.endswith("student.safetensors")]
    files[name] = pickle.dumps({"weight": 1})


def saved_by_torch(files: dict[str, bytes]) -> None:
    import io

    [name] = [one for one in files if one.endswith("student.safetensors")]
    stream = io.BytesIO()
    torch.save({"weight": torch.zeros(2)}, stream)
    files[name] = stream.getvalue()


def cut(files: dict[str, bytes]) -> None:
    [name] = [one for one in files if one.endswith("student.safetensors")]
    files[name] = files[name][:-8]


def without(ending: str) -> Callable[[dict[str, bytes]], None]:
    def change(files: dict[str, bytes]) -> None:
        for name in [one for one in files if one.endswith(ending)]:
            del files[name]

    return change


def put(name: str, data: bytes) -> Callable[[dict[str, bytes]], None]:
    return lambda files: files.update({name: data})


LISTS_NONE = b'{"read_at": "2026-11-26T20:00:00Z", "reviews": "ab", "seconds": 1, "spent_s": 1}'
UNTIMED = b'{"read_at": "yesterday", "reviews": [], "seconds": 1, "spent_s": 1}'


def spec(**changes: Any) -> Callable[[dict[str, bytes]], None]:
    def change(files: dict[str, bytes]) -> None:
        files["done/spec.json"] = json.dumps({**json.loads(files["done/spec.json"]), **changes}).encode()

    return change


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        (pickled, "is a pickle under another name"),
        (saved_by_torch, "is a pickle under another name"),
        (cut, r"student\.safetensors is damaged"),
        (put("done/checkpoints/0000002/student.pth", b"x"), "may be a pickle"),
        (put("done/../../evil.json", b"{}"), "is no part of a run"),
        (put("done//etc/passwd", b"x"), "is no part of a run"),
        (put("done/metrics/..\\evil.json", b"{}"), "is no part of a run"),
        (put("done/checkpoints/0000002/../../../../evil.safetensors", b"x"), "is no part of a run"),
        (put("done/run.py", b"x"), "is no part of a run"),
        (put("other/spec.json", b"{}"), "must hold one folder"),
        (put("done/checkpoints/0000009/state.json", b"{}"), "several checkpoints"),
        (put("done/metrics/test-masks.json", b"{"), "not valid JSON"),
        (put("done/events.jsonl", b"nonsense\n"), "holds no events"),
        (put("done/reviews.json", b"{}"), r"reviews\.json is damaged"),
        (put("done/reviews.json", LISTS_NONE), r"reviews\.json is damaged"),
        (put("done/reviews.json", UNTIMED), r"reviews\.json is damaged"),
        (without("student.safetensors"), r"lacks student\.safetensors"),
        (without("state.json"), r"lacks state\.json"),
        (without("student_ema.safetensors"), r"lacks student_ema\.safetensors"),
        (
            lambda files: [files.pop(one) for one in list(files) if "checkpoints" in one],
            "no whole checkpoint",
        ),
        (without("spec.json"), r"spec\.json is missing"),
        (put("done/spec.json", b"[1]"), "holds no run spec"),
        (spec(batch_size="eight"), "batch_size should look like"),
        (spec(unheard_of=1), "fields this version does not know"),
        (spec(targets=["liver"]), "segments liver"),
    ],
)
def test_what_is_no_run_stays_outside(
    archive: Path, home: Study, change: Callable[[dict[str, bytes]], object], sentence: str
) -> None:
    path = rewritten(archive, change)
    with pytest.raises(UserError, match=sentence) as refused:
        read_run_archive(path, home)
    assert nothing_came(home)
    assert str(path) in str(refused.value) and ".part" not in str(refused.value)
    assert not (home.folder.parent / "evil.json").exists()


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        (put("done/spec.json", b"{}"), r"spec\.json is not as long as it lists"),
        (put("done/metrics/more.json", b"{}"), "beside what it lists"),
        (without("state.json"), "lacks 'checkpoints"),
        (without(MANIFEST), r"has no manifest\.json"),
        (put(f"done/{MANIFEST}", b"{"), "manifest.json is another"),
        (put(f"done/{MANIFEST}", b'{"format": "other", "files": {}}'), "manifest.json is another"),
        (put(f"done/{MANIFEST}", b'{"format": "gaze-insight-run", "version": 2, "files": {}}'), "newer"),
        (
            lambda files: files.update({"done/events.jsonl": files["done/events.jsonl"].replace(b"1", b"2")}),
            r"events\.jsonl is not what it lists",
        ),
    ],
)
def test_an_archive_that_is_not_what_it_lists_is_refused(
    archive: Path, home: Study, change: Callable[[dict[str, bytes]], object], sentence: str
) -> None:
    with pytest.raises(UserError, match=sentence):
        read_run_archive(rewritten(archive, change, listed=False), home)
    assert nothing_came(home)


def test_half_a_copy_is_refused_wherever_it_was_cut(archive: Path, home: Study) -> None:
    whole = archive.read_bytes()
    for share in (0.0, 0.1, 0.5, 0.9, 0.999):
        archive.write_bytes(whole[: int(share * len(whole))])
        with pytest.raises(UserError, match=r"no archive of a run, or was cut short"):
            read_run_archive(archive, home)
    for place in range(100, len(whole), len(whole) // 40):
        broken = bytearray(whole)
        broken[place] ^= 0xFF
        archive.write_bytes(broken)
        try:
            read_run_archive(archive, home, f"copy-{place}")
        except UserError:
            continue
        # What no hash covers are times and attributes of the zip alone.
        for name in ("spec.json", "events.jsonl"):
            one = home.runs_folder / f"copy-{place}" / name
            assert one.read_bytes() in zipfile_contents(whole)


def zipfile_contents(data: bytes) -> list[bytes]:
    import io

    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        return [archive.read(name) for name in archive.namelist()]


def test_a_link_in_an_archive_becomes_no_link(archive: Path, home: Study) -> None:
    with zipfile.ZipFile(archive) as source, zipfile.ZipFile(archive.with_name("link.zip"), "w") as changed:
        for info in source.infolist():
            data = source.read(info)
            if info.filename == "done/events.jsonl":
                info.external_attr = 0o120777 << 16
            changed.writestr(info, data)
    run = read_run_archive(archive.with_name("link.zip"), home)
    assert not run.events_path.is_symlink() and run.state() == "done"


def test_more_than_the_disk_holds_is_refused_before_it_is_written(
    archive: Path, home: Study, monkeypatch: pytest.MonkeyPatch
) -> None:
    usage = shutil.disk_usage(home.folder)._replace(free=1000)
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage)
    with pytest.raises(UserError, match="free some space"):
        read_run_archive(archive, home)
    assert nothing_came(home)


def test_names_that_people_gave_travel_and_half_copies_are_no_runs(
    trained: Study, home: Study, tmp_path: Path
) -> None:
    folder = shutil.copytree(trained.runs_folder / "done", home.runs_folder / ".done.0123.part")
    assert home.run_ids() == []
    (folder / "metrics").mkdir()
    (folder / "metrics" / "Küste 2.1-masks.json").write_text('{"dice": 1}')
    run = RunFolder(folder.rename(home.runs_folder / "mine"))
    write_run_archive(run, tmp_path / "run.zip")
    again = read_run_archive(tmp_path / "run.zip", home, "again")
    assert (again.path / "metrics" / "Küste 2.1-masks.json").read_text() == '{"dice": 1}'


def test_what_is_being_worked_on_is_neither_written_nor_read(
    trained: Study, home: Study, tmp_path: Path
) -> None:
    import os
    import socket
    import time

    folder = shutil.copytree(trained.runs_folder / "stopped", tmp_path / "live" / "runs" / "stopped")
    now = time.time()
    values = {"pid": os.getpid(), "host": socket.gethostname(), "started": now + 1, "heartbeat": now}
    (folder / "worker.json").write_text(json.dumps(values))
    with pytest.raises(UserError, match="being worked on"):
        write_run_archive(RunFolder(folder), tmp_path / "out.zip")
    with pytest.raises(UserError, match="being worked on"):
        read_run_archive(folder, home)
    assert nothing_came(home) and not (tmp_path / "out.zip").exists()


def test_no_half_archive_is_left_behind(
    trained: Study, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "out"
    out.mkdir()
    run = create_run(trained, tiny("partial"), "waiting")
    with pytest.raises(UserError, match="no whole checkpoint"):
        write_run_archive(run, out / "run.zip")
    shutil.rmtree(run.path)
    with pytest.raises(UserError, match="There is no run waiting"):
        write_run_archive(run, out / "run.zip")

    def full(*_: object, **__: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(zipfile.ZipFile, "writestr", full)
    with pytest.raises(UserError, match="disk is full"):
        write_run_archive(RunFolder(trained.runs_folder / "done"), out / "run.zip")
    assert list(out.iterdir()) == []
    monkeypatch.undo()
    write_run_archive(RunFolder(trained.runs_folder / "done"), out / "run.zip")
    with pytest.raises(UserError, match="is there already"):
        write_run_archive(RunFolder(trained.runs_folder / "done"), out / "run.zip")


@pytest.mark.parametrize("kind", ["missing", "text", "folder"])
def test_what_is_no_archive_at_all_is_named(home: Study, tmp_path: Path, kind: str) -> None:
    path = tmp_path / "thing"
    if kind == "text":
        path.write_text("hello")
    if kind == "folder":
        path.mkdir()
    with pytest.raises(UserError, match=str(path)):
        read_run_archive(path, home)
    assert nothing_came(home)
