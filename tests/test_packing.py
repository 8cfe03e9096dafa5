"""A packed training set: the very same training, nothing of a person in it, and a server that has six packages."""

from __future__ import annotations

import dataclasses
import importlib.metadata
import json
import re
import shutil
import subprocess
import venv
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from app.cli import run_command
from gaze_capture.errors import UserError
from segmentation import pack_steps
from segmentation.archives import MANIFEST
from segmentation.dataset import TrainingSet, load_training_set
from segmentation.job import JobEvent, RunSpec
from segmentation.learned_reviews import LEARNED_NAME, learned_by
from segmentation.pack_steps import train_packed
from segmentation.packed import ARRAYS, packed_run, unpack
from segmentation.packing import HOLDS, load_packed, pack
from segmentation.records import utc_now
from segmentation.retraining import News, new_reviews
from segmentation.run_archive import read_run_archive, write_run_archive
from segmentation.runs import RunFolder, completed, create_run
from segmentation.study import PACKED, Review, Study
from segmentation.text.embedding import embed_study, text_of
from segmentation.training import train
from segmentation.worker import Reporter
from tests.several_support import MiniLMWithoutWeights
from tests.training_helpers import Events, HashEncoder, make_study, save_image_encoder, tiny

SIX = ("torch", "numpy", "scipy", "opencv-python-headless", "transformers", "safetensors")
ROOT = Path(__file__).parents[1]


@pytest.fixture
def filled(tmp_path: Path, image_folder: Path) -> Study:
    """A study with gaze, explanations, a reviewed mask, an absent target, and patients."""
    study = make_study(tmp_path / "filled", image_folder)
    study.add_images(
        [
            dataclasses.replace(
                one, group=f"patient Miller {number // 2}", source_name=f"MILLER_{number}.png"
            )
            for number, one in enumerate(study.images.values())
        ]
    )
    first, second, *_ = study.images
    review = Review(first, "target", "Dr Jones", "pseudomask", "edited", None, 3.0, utc_now())
    study.add_review(review, study.true_mask(first, "target"))
    study.add_review(Review(second, "target", "Dr Jones", "pseudomask", "rejected", "absent", 1.0, utc_now()))
    return study


def packed(study: Study, spec: RunSpec, folder: Path, **options: Any) -> Study:
    """Pack a study and unpack it again, as if on another computer."""
    path = folder / "pack.zip"
    pack(study, spec, path, encoder=HashEncoder(), **options)
    there = unpack(path, folder / "there")
    path.unlink()
    return there


def same(one: object, other: object) -> bool:
    if isinstance(one, np.ndarray):
        return isinstance(other, np.ndarray) and one.dtype == other.dtype and np.array_equal(one, other)
    if dataclasses.is_dataclass(one):
        return all(
            same(getattr(one, field.name), getattr(other, field.name)) for field in dataclasses.fields(one)
        )
    return type(one) is type(other) and one == other


@pytest.mark.parametrize(
    "spec",
    [
        tiny(),
        tiny("gaze-track", track_shares=(1.0, 0.5)),
        tiny("supervised", holdout=0.5),
        tiny(text="shuffled", image_size_px=48, seed=3),
    ],
    ids=["explained", "tracks", "held out", "shuffled"],
)
def test_what_is_unpacked_is_what_the_study_gave(filled: Study, tmp_path: Path, spec: RunSpec) -> None:
    encoder = HashEncoder()
    said = (
        text_of(filled, completed(filled, spec), encoder, None) if spec.method == "gaze-to-insight" else None
    )
    before = load_training_set(filled, spec, said)
    there = packed(filled, spec, tmp_path)
    after = load_packed(there, packed_run(there).spec)
    assert before.strong or spec.method == "supervised"
    for field in dataclasses.fields(TrainingSet):
        assert same(getattr(before, field.name), getattr(after, field.name)), field.name


def test_training_from_the_pack_is_the_same_bit_for_bit(filled: Study, tmp_path: Path) -> None:
    spec = tiny(iterations=3, ema_decay=0.9, augmentation="mild", holdout=0.34)
    here = create_run(filled, spec)
    told = Events()
    assert train(filled, here, told, threads=1, encoder=HashEncoder())
    there = packed(filled, spec, tmp_path)
    # What is not there cannot have been read.
    shutil.rmtree(filled.folder / "images")
    run = packed_run(there)
    told_there = Events()
    assert train(there, run, told_there, threads=1)
    names = {path.name for path in (here.path / "checkpoints" / "0000003").glob("*.safetensors")}
    # Which step was the best depends on when it was looked at, which goes by the clock.
    names.remove("student_best.safetensors")
    assert names == {f"{one}.safetensors" for one in ("teacher", "student", "student_ema", "optimiser")}
    for name in names:
        one, other = ((each.path / "checkpoints" / "0000003" / name).read_bytes() for each in (here, run))
        assert one == other, name
    assert told.of("started") == told_there.of("started")
    assert told.of("selection")[-1]["dice"] == told_there.of("selection")[-1]["dice"]


def test_it_goes_on_from_an_earlier_run_and_from_a_pretrained_encoder(filled: Study, tmp_path: Path) -> None:
    from segmentation.backbones import examine

    earlier = create_run(filled, tiny("partial", iterations=1), "earlier")
    assert train(filled, earlier, Events(), threads=1)
    there = packed(filled, tiny("partial", iterations=1, warm_start="earlier"), tmp_path)
    told = Events()
    assert train(there, packed_run(there), told, threads=1)
    assert told.of("started")[0]["warm_start"] == "earlier"
    assert not list((there.runs_folder / "earlier").rglob("optimiser.safetensors"))

    folder = save_image_encoder(tmp_path / "tiny-resnet", "resnet")
    (folder / "README.md").write_text("not a part of it")
    spec = tiny("partial", iterations=1, **examine(folder))
    with pytest.raises(UserError, match="is not on this computer"):
        pack(filled, spec, tmp_path / "none.zip")
    (tmp_path / "second").mkdir()
    there = packed(filled, spec, tmp_path / "second", image_encoder_folder=folder)
    shutil.rmtree(folder)
    assert not (there.folder / "image_encoder" / "README.md").exists()
    assert train(there, packed_run(there), Events(), threads=1)


def test_nothing_of_a_person_is_packed(filled: Study, tmp_path: Path) -> None:
    path = tmp_path / "pack.zip"
    report = pack(filled, tiny(), path, encoder=HashEncoder())
    with zipfile.ZipFile(path) as archive:
        names = archive.namelist()
        inside = b"\n".join(archive.read(name) for name in names)
        [manifest] = [json.loads(archive.read(name)) for name in names if name.endswith(MANIFEST)]
        [about] = [json.loads(archive.read(name)) for name in names if name.endswith(PACKED)]
    secrets = ["MILLER", "Miller", "Jones", str(filled.folder), filled.name, filled.uid]
    secrets += [one.source_name for one in filled.images.values() if one.source_name != one.id]
    phrases = json.loads(next(filled.folder.glob("embeddings/*/phrases.json")).read_text())["phrases"]
    for secret in [*secrets, *phrases]:
        assert secret.encode() not in inside, secret
    assert {name.partition("/")[2] for name in names} == {
        "study.json", PACKED, ARRAYS, MANIFEST, f"runs/{report.run}/spec.json", f"runs/{report.run}/{LEARNED_NAME}",
    }  # fmt: skip
    assert tuple(about["holds"]) == HOLDS and manifest["run"] == report.run == about["run"]
    groups = [one["group"] for one in about["images"]]
    assert len(set(groups)) == 3 and all(re.fullmatch(r"[0-9a-f]{16}", one) for one in groups)
    assert about["images"][0]["shape"] == [48, 64, 3] and about["images"][0]["modality"] == "photo"
    assert report.bytes == path.stat().st_size and report.images == 6 and report.strong_labels == 2


def test_another_run_on_the_pack_may_change_what_is_not_read(filled: Study, tmp_path: Path) -> None:
    spec = tiny("partial", iterations=1)
    there = packed(filled, spec, tmp_path)
    assert load_packed(there, dataclasses.replace(packed_run(there).spec, seed=9, batch_size=1))
    others: list[tuple[str, Any]] = [
        ("image_size_px", 64),
        ("split", "val"),
        ("method", "supervised"),
        ("holdout", 0.5),
        ("normalisation", {"photo": "range"}),
        ("targets", ("other",)),
    ]
    for name, value in others:
        with pytest.raises(UserError, match=f"packed for {name}"):
            load_packed(there, dataclasses.replace(packed_run(there).spec, **{name: value}))
    (tmp_path / "second").mkdir()
    there = packed(filled, tiny(text="shuffled"), tmp_path / "second")
    with pytest.raises(UserError, match="packed for seed = 0"):
        load_packed(there, dataclasses.replace(packed_run(there).spec, seed=1))


def test_other_runs_are_trained_on_the_same_pack(
    filled: Study, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def at_once(run: RunFolder, **_: object) -> tuple[JobEvent, str]:
        tell = Reporter(run.id, run.events_path, None)
        if not train(Study.open(run.study_folder), run, tell, threads=1):
            raise UserError("Stopped as asked")
        return run.events()[-1], "cpu"

    monkeypatch.setattr(pack_steps, "train_to_end", at_once)
    path, place = tmp_path / "pack.zip", tmp_path / "there"
    first = pack(filled, tiny("partial", iterations=1), path).run
    done = train_packed(path, place)
    assert done.run == first and done.archive == str(place / f"{first}.zip")
    second = train_packed(place, changes={"seed": 5})
    assert second.run != first and RunFolder(place / "runs" / second.run).spec.seed == 5
    assert read_run_archive(Path(second.archive), filled).spec.seed == 5
    # One that was stopped goes on by its name; one that reads something else is not even made.
    stopped = create_run(Study.open(place), dataclasses.replace(done_spec(place, first), seed=6))
    stopped.request_stop()
    assert train_packed(place, resume=stopped.id).run == stopped.id
    with pytest.raises(UserError, match="packed for image_size_px"):
        train_packed(place, spec=dataclasses.replace(done_spec(place, first), image_size_px=64))
    assert len(Study.open(place).run_ids()) == 3


def test_a_packed_run_comes_home_knowing_what_was_reviewed_when_it_was_packed(
    filled: Study, tmp_path: Path
) -> None:
    spec = tiny("partial", iterations=1)
    there = packed(filled, spec, tmp_path)
    # After packing, before training: the run cannot know of it.
    third = list(filled.images)[2]
    late = Review(third, "target", "Dr Jones", "pseudomask", "edited", None, 7.0, utc_now())
    filled.add_review(late, filled.true_mask(third, "target"))
    for run in (packed_run(there), create_run(there, dataclasses.replace(spec, seed=5), "second")):
        assert train(there, run, Reporter(run.id, run.events_path, None), threads=1)
        write_run_archive(run, tmp_path / f"{run.id}.zip")
        home = read_run_archive(tmp_path / f"{run.id}.zip", filled)
        learned = learned_by(home)
        assert learned is not None and (learned.count, learned.spent_s) == (2, 4.0)
        assert new_reviews(filled, home.id) == News(home.id, 1, 7.0), (
            "the two others are known by their marks"
        )


def done_spec(place: Path, run_id: str) -> RunSpec:
    return RunFolder(place / "runs" / run_id).spec


def put(name: str, data: bytes) -> Callable[[dict[str, bytes]], object]:
    return lambda files: files.update({name: data})


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        (put("top/../../evil.json", b"{}"), "is no part of a packed"),
        (put("top/image_encoder/../../evil.json", b"{}"), "is no part of a packed"),
        (put("top/image_encoder/model.bin", b"x"), "may be a pickle"),
        (put("top/setup.py", b"x"), "is no part of a packed"),
        (lambda files: files.pop(f"top/{ARRAYS}"), f"it lacks {ARRAYS}"),
        (put(f"top/{PACKED}", b"{}"), "is damaged"),
        (put(f"top/{PACKED}", b'{"spec": {}, "run": "../x"}'), "run it was packed for is missing"),
        (put("top/study.json", b'{"schema": 99}'), "newer Gaze Insight"),
    ],
)
def test_what_is_no_pack_is_not_unpacked(
    filled: Study, tmp_path: Path, change: Callable[[dict[str, bytes]], object], sentence: str
) -> None:
    from tests.test_run_archive import rewritten

    path = tmp_path / "pack.zip"
    pack(filled, tiny("partial"), path)
    with pytest.raises(UserError, match=sentence):
        unpack(rewritten(path, change, top="top"), tmp_path / "out" / "there")
    assert not (tmp_path / "out").exists() or not list((tmp_path / "out").iterdir())
    assert not list(tmp_path.rglob("evil.json"))


def test_a_place_that_holds_something_else_is_left_alone(filled: Study, tmp_path: Path) -> None:
    path, place = tmp_path / "pack.zip", tmp_path / "place"
    pack(filled, tiny("partial"), path)
    place.mkdir()
    (place / "thesis.txt").write_text("mine")
    with pytest.raises(UserError, match="not empty"):
        unpack(path, place)
    assert [one.name for one in place.iterdir()] == ["thesis.txt"]
    there = unpack(path, tmp_path / "there")
    (packed_run(there).path / "events.jsonl").write_text("")
    # The same pack again: what was trained meanwhile stays.
    assert (packed_run(unpack(path, there.folder)).path / "events.jsonl").exists()
    pack(filled, tiny("partial"), tmp_path / "other.zip")
    with pytest.raises(UserError, match="another training set"):
        unpack(tmp_path / "other.zip", there.folder)
    with pytest.raises(UserError, match="is there already"):
        pack(filled, tiny("partial"), path)
    with pytest.raises(UserError, match="packed training set already"):
        pack(there, tiny("partial"), tmp_path / "again.zip")
    for letters in (250, 300):
        with pytest.raises(UserError, match="name that is too long"):
            pack(filled, tiny("partial"), tmp_path / ("a" * letters))
    # A study that has nothing to learn from leaves nothing behind.
    before = sorted(one.name for one in tmp_path.iterdir())
    with pytest.raises(UserError, match="has no images in the split 'none'"):
        pack(filled, tiny("partial", split="none"), tmp_path / "empty.zip")
    assert sorted(one.name for one in tmp_path.iterdir()) == before
    with open(there.folder / ARRAYS, "r+b") as stream:
        stream.truncate(200)
    with pytest.raises(UserError, match="is damaged; unpack"):
        load_packed(there, packed_run(there).spec)


FORBID = """
import sys


class _Forbid:
    names = frozenset({names})

    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in self.names:
            raise ModuleNotFoundError(f"{{name}} is not installed on this server", name=name)

sys.meta_path.insert(0, _Forbid())
"""


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the Python of an environment where nothing of this program's dependencies but six can be imported."""
    requirements = importlib.metadata.requires("gaze-insight") or []
    needed = [one for one in requirements if "extra ==" not in one]
    others = {re.split(r"[^\w-]", one)[0].lower() for one in needed} - set(SIX)
    modules = {
        module
        for module, packages in importlib.metadata.packages_distributions().items()
        if {re.sub(r"[-_.]+", "-", one).lower() for one in packages} & others
    }
    modules |= {"PySide6", "shiboken6"}
    assert {"pydicom", "nibabel", "httpx", "jsonschema", "platformdirs", "rich", "nrrd"} <= modules
    folder = tmp_path_factory.mktemp("server") / "venv"
    venv.create(folder, with_pip=False, symlinks=True)
    [packages] = folder.glob("lib/python*/site-packages")
    shared = Path(np.__file__).parents[1]
    (packages / "all.pth").write_text(f"{ROOT}\n{shared}\n")
    # site imports this even where the environment is ignored, as workers ignore it.
    (packages / "sitecustomize.py").write_text(FORBID.format(names=sorted(modules)))
    return folder / "bin" / "python"


def test_a_server_with_six_packages_trains_and_its_run_comes_home(
    filled: Study, tmp_path: Path, server: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    refused = subprocess.run([server, "-I", "-c", "import pydicom"], capture_output=True, text=True)
    assert "pydicom is not installed on this server" in refused.stderr
    config = tmp_path / "spec.json"
    config.write_text(json.dumps(tiny(iterations=2).to_json()))
    embed_study(filled, MiniLMWithoutWeights())
    path = tmp_path / "pack.zip"
    words = ["pack", str(filled.folder), "--to", str(path), "--config", str(config), "--size", "48", "--json"]
    assert run_command(words) == 0
    report = json.loads(capsys.readouterr().out)
    assert report["images"] == 6 and report["size_px"] == 48

    def on_server(*words: str) -> dict[str, Any]:
        command = [str(server), "-I", "-m", "app", "train", *words, "--json"]
        done = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path)
        assert done.returncode == 0, done.stderr
        values: dict[str, Any] = json.loads(done.stdout)
        return values

    there = tmp_path / "job"
    result = on_server(str(path), "--to", str(there))
    assert (result["run"], result["iterations"]) == (report["run"], 2)
    # Again: it is done, and says the same.
    assert on_server(str(path), "--to", str(there)) == result

    assert run_command(["import-run", str(filled.folder), result["archive"], "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert told == {"run": report["run"], "method": "gaze-to-insight", "state": "done", "targets": ["target"]}
    assert run_command(["import-run", str(filled.folder), result["archive"]]) == 1
    assert "already" in capsys.readouterr().err
    assert (
        run_command(["import-run", str(filled.folder), str(there / "runs" / report["run"]), "--as", "second"])
        == 0
    )
    assert filled.run_ids() == sorted([report["run"], "second"])
    run = RunFolder(filled.runs_folder / report["run"])
    assert run.spec.image_size_px == 48 and [one.kind for one in run.events()][-1] == "done"


def test_wrong_usage_is_one_sentence(
    filled: Study, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "pack.zip"
    pack(filled, tiny("partial"), path)
    for words, sentence in [
        (["train", str(path)], "--to FOLDER"),
        (["train", str(path), "--to", str(tmp_path / "x"), "--method", "partial"], "say --method when"),
        (["train", str(filled.folder), "--to", str(tmp_path / "x")], "is a study"),
        (["train", str(ROOT / "pyproject.toml"), "--to", str(tmp_path / "x")], "no archive of a packed"),
        (["import-run", str(filled.folder), str(path)], "not a run"),
        (["import-run", str(filled.folder), str(filled.folder)], "has no spec"),
    ]:
        assert run_command(words) == 1
        told = capsys.readouterr().err.strip()
        assert sentence in told and "\n" not in told
    assert not (tmp_path / "x").exists()


def test_a_pack_is_not_taken_for_a_run(filled: Study, tmp_path: Path) -> None:
    run = create_run(filled, tiny("partial", iterations=1))
    assert train(filled, run, Events(), threads=1)
    write_run_archive(run, tmp_path / "run.zip")
    with pytest.raises(UserError, match="not a packed training set"):
        unpack(tmp_path / "run.zip", tmp_path / "there")
    with pytest.raises(UserError, match="already"):
        read_run_archive(tmp_path / "run.zip", filled)
