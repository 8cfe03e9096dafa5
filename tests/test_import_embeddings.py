"""Embeddings made elsewhere: what is read, what is refused and how, and a teacher that learns from them."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from app.cli import run_command
from gaze_capture.errors import UserError
from segmentation.importing import import_images
from segmentation.prediction import predict
from segmentation.runs import create_run
from segmentation.study import Study
from segmentation.targets import add_target
from segmentation.text.choice import imported_names
from segmentation.text.embedding import text_of
from segmentation.text.encoder import FLIP_STATES
from segmentation.text.imported import ImportedEmbeddings, import_embeddings
from segmentation.text.phrases import phrase_table
from segmentation.training import train
from tests.training_helpers import Events, make_study, tiny

Array = np.ndarray[Any, Any]


@pytest.fixture
def filled(tmp_path: Path, image_folder: Path) -> Study:
    return make_study(tmp_path / "study", image_folder, explained=False)


def embeddings(folder: Path, *, shape: tuple[int, ...] = (3, 8), dtype: Any = np.float32) -> dict[str, Array]:
    """Write one file for each of the six images, as the published code names them."""
    folder.mkdir(exist_ok=True)
    rng = np.random.default_rng(0)
    arrays = {f"case_{number}": rng.normal(size=shape).astype(dtype) for number in range(6)}
    for name, array in arrays.items():
        np.save(folder / f"{name}.npy", array)
    return arrays


def ids_by_stem(study: Study) -> dict[str, str]:
    return {Path(image.source_name).stem: image.id for image in study.images.values()}


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64, ">f4"])
@pytest.mark.parametrize("shape", [(8,), (1, 8), (3, 8), (1, 3, 8)])
def test_published_shapes_and_types_become_tokens(
    filled: Study, tmp_path: Path, shape: tuple[int, ...], dtype: Any
) -> None:
    arrays = embeddings(tmp_path / "npy", shape=shape, dtype=dtype)
    report = import_embeddings(filled, tmp_path / "npy", name="roberta")
    length = 3 if 3 in shape else 1
    assert (report.images, report.width, report.tokens) == (6, 8, (length, length))
    assert (report.unknown, report.refused, report.missing, report.already_there) == ((), (), 0, False)
    assert bool(report.notes) == (length == 1)
    stored = ImportedEmbeddings(filled, "roberta", ["target"], report.sha256)
    assert stored.keys() == {(image_id, "target") for image_id in filled.images} and stored.width == 8
    for stem, image_id in ids_by_stem(filled).items():
        [(target_id, tokens)] = stored.tokens(image_id)
        assert target_id == "target" and tokens.dtype == np.float32
        assert np.array_equal(tokens, arrays[stem].astype(np.float32).reshape(-1, 8))


def test_the_other_axis_can_count_the_tokens(filled: Study, tmp_path: Path) -> None:
    arrays = embeddings(tmp_path / "npy", shape=(8, 3))
    report = import_embeddings(filled, tmp_path / "npy", token_axis=1)
    assert (report.width, report.tokens) == (8, (3, 3))
    stored = ImportedEmbeddings(filled, "text", ["target"])
    stem, image_id = next(iter(ids_by_stem(filled).items()))
    assert np.array_equal(next(stored.tokens(image_id))[1], arrays[stem].T)


class Trap:
    def __reduce__(self) -> tuple[Any, ...]:
        return (exec, ("import pathlib; pathlib.Path('ran').touch()",))


def _saved(array: Any, **options: Any) -> Callable[[Path], None]:
    return lambda path: np.save(path, array, **options)


def _huge(path: Path) -> None:
    with open(path, "wb") as stream:
        header = {"descr": "<f4", "fortran_order": False, "shape": (10**9, 10**6)}
        np.lib.format.write_array_header_1_0(stream, header)


def _truncated(path: Path) -> None:
    np.save(path, np.ones((3, 8), np.float32))
    path.write_bytes(path.read_bytes()[:-5])


def _archive(path: Path) -> None:
    with open(path, "wb") as stream:
        np.savez(stream, tokens=np.ones((3, 8), np.float32))


BAD: list[tuple[Callable[[Path], Any], str]] = [
    (_saved(np.array([Trap()], dtype=object), allow_pickle=True), "pickled Python objects"),
    (_saved(np.full((3, 8), np.nan, np.float32)), "not finite"),
    (_saved(np.full((3, 8), 1e300)), "not finite"),
    (_saved(np.ones((3, 9), np.float32)), "have 9 numbers, not 8"),
    (_saved(np.ones((2, 3, 8), np.float32)), "shape is (2, 3, 8)"),
    (_saved(np.float32(1)), "shape is ()"),
    (_saved(np.ones((0, 8), np.float32)), "damaged|empty"),
    (_saved(np.ones((257, 8), np.float32)), "at most 256 tokens"),
    (_saved(np.ones((3, 8), np.int32)), "int32 values"),
    (_saved(np.ones((3, 8), np.complex64)), "complex64 values"),
    (_huge, "damaged"),
    (_truncated, "damaged"),
    (_archive, "damaged or no .npy"),
    (lambda path: path.write_bytes(b""), "damaged or no .npy"),
    (lambda path: path.write_bytes(b"\x93NUMPY\x01\x00\x10\x00{'descr': exec}   "), "damaged or no .npy"),
    (lambda path: path.write_text("<html>Not found</html>"), "damaged or no .npy"),
]


@pytest.mark.parametrize(("write", "sentence"), BAD)
def test_a_bad_file_is_named_and_the_others_come_in(
    filled: Study,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    write: Callable[[Path], Any],
    sentence: str,
) -> None:
    monkeypatch.chdir(tmp_path)
    embeddings(tmp_path / "npy")
    write(tmp_path / "npy" / "case_2.npy")
    report = import_embeddings(filled, tmp_path / "npy")
    [(file, reason)] = report.refused
    assert file == "case_2.npy" and any(part in reason for part in sentence.split("|")), reason
    assert "\n" not in reason and not (tmp_path / "ran").exists()
    assert report.images == 5 and report.missing == 1
    left = ImportedEmbeddings(filled, "text", ["target"])
    assert list(left.tokens(ids_by_stem(filled)["case_2"])) == []


@pytest.mark.parametrize(("write", "sentence"), BAD)
def test_nothing_is_written_where_no_file_can_be_used(
    filled: Study, tmp_path: Path, write: Callable[[Path], Any], sentence: str
) -> None:
    (tmp_path / "npy").mkdir()
    write(tmp_path / "npy" / "case_2.npy")
    with pytest.raises(UserError, match=r"No file in .* can be used; case_2\.npy: "):
        import_embeddings(filled, tmp_path / "npy", width=8)
    assert not (filled.folder / "embeddings").exists()


def test_names_are_matched_as_gaze_is(filled: Study, tmp_path: Path) -> None:
    embeddings(tmp_path / "npy")
    (tmp_path / "npy" / "case_0.npy").rename(tmp_path / "npy" / "CASE_0.NPY")
    np.save(tmp_path / "npy" / "stranger.npy", np.ones((3, 8)))
    np.save(tmp_path / "npy" / "case_1.png.npy", np.ones((3, 8)))
    report = import_embeddings(filled, tmp_path / "npy")
    assert report.images == 6 and report.unknown == ("stranger.npy",)
    [(file, reason)] = report.refused
    assert file == "case_1.png.npy" and reason == "case_1.npy is about the same image already."


def test_a_name_that_fits_several_images_is_refused(filled: Study, tmp_path: Path) -> None:
    embeddings(tmp_path / "npy")
    other = tmp_path / "again"
    other.mkdir()
    assert cv2.imwrite(str(other / "case_3.png"), np.zeros((48, 64, 3), np.uint8))
    assert len(import_images(filled, [other], split="val").imported) == 1
    [(file, reason)] = import_embeddings(filled, tmp_path / "npy", name="two").refused
    assert file == "case_3.npy" and "fits several images" in reason
    report = import_embeddings(filled, tmp_path / "npy", name="three", split="train")
    assert report.images == 6 and not report.refused


def test_a_folder_without_use_is_refused(filled: Study, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="There is no folder"):
        import_embeddings(filled, tmp_path / "none")
    (tmp_path / "npy").mkdir()
    with pytest.raises(UserError, match=r"holds no \.npy files"):
        import_embeddings(filled, tmp_path / "npy")
    np.save(tmp_path / "npy" / "stranger.npy", np.ones((3, 8)))
    with pytest.raises(UserError, match="named like an image of the study"):
        import_embeddings(filled, tmp_path / "npy")
    with pytest.raises(UserError, match="need a name of letters"):
        import_embeddings(filled, tmp_path / "npy", name="../outside")


def test_a_name_stands_for_one_content(filled: Study, tmp_path: Path) -> None:
    embeddings(tmp_path / "npy")
    first = import_embeddings(filled, tmp_path / "npy")
    again = import_embeddings(filled, tmp_path / "npy")
    assert again.already_there and again.sha256 == first.sha256
    np.save(tmp_path / "npy" / "case_0.npy", np.ones((3, 8)))
    with pytest.raises(UserError, match="other embeddings named 'text'"):
        import_embeddings(filled, tmp_path / "npy")
    assert import_embeddings(filled, tmp_path / "npy", name="new").sha256 != first.sha256
    assert imported_names(filled) == ["new", "text"]


def test_a_damaged_import_says_what_to_do(filled: Study, tmp_path: Path) -> None:
    embeddings(tmp_path / "npy")
    import_embeddings(filled, tmp_path / "npy")
    path = filled.folder / "embeddings" / "imported-text" / "target.safetensors"
    whole = path.read_bytes()
    path.write_bytes(whole[:-3])
    with pytest.raises(UserError, match=r"damaged.*import the embeddings again"):
        ImportedEmbeddings(filled, "text", ["target"])
    path.write_bytes(whole)
    about = path.with_suffix(".json")
    about.write_text(json.dumps({**json.loads(about.read_text()), "sha256": "0" * 64}))
    with pytest.raises(UserError, match="not what it was imported as"):
        ImportedEmbeddings(filled, "text", ["target"])


@pytest.mark.parametrize("text", ["explanation", "shuffled"])
def test_a_teacher_learns_from_imported_embeddings(filled: Study, tmp_path: Path, text: Any) -> None:
    arrays = embeddings(tmp_path / "npy")
    report = import_embeddings(filled, tmp_path / "npy", name="roberta")
    run = create_run(filled, tiny(text=text, text_embeddings="roberta"))
    assert run.spec.text_encoder_sha256 == report.sha256
    source = text_of(filled, run.spec, None, None)
    ids = sorted(filled.images)
    table = phrase_table(filled, ids, run.spec, source)
    assert table.width == 8 and table.explained == 6
    assert table.names == ((("target", "token 1"), ("target", "token 2"), ("target", "token 3")),) * 6
    own = [
        arrays[stem].tobytes()
        for image_id in ids
        for stem, one in ids_by_stem(filled).items()
        if one == image_id
    ]
    for state in range(FLIP_STATES):
        tokens, valid = table.text(np.arange(6), np.full(6, state))
        assert valid.all()
        told = [one.numpy().tobytes() for one in tokens]
        assert sorted(told) == sorted(own) and (told == own) == (text == "explanation")

    events = Events()
    assert train(filled, run, events) and events.of("started")[0]["explained"] == 6
    # The teacher predicts what has embeddings, though nothing has an explanation.
    assert predict(filled, run, events, networks=("teacher",))
    assert len(filled.prediction_keys(run.id, "teacher")) == 6


def test_other_embeddings_of_the_same_name_are_refused(filled: Study, tmp_path: Path) -> None:
    embeddings(tmp_path / "npy")
    import_embeddings(filled, tmp_path / "npy")
    run = create_run(filled, tiny(text_embeddings="text", iterations=2))
    assert train(filled, run, Events())
    for path in (filled.folder / "embeddings" / "imported-text").iterdir():
        path.unlink()
    np.save(tmp_path / "npy" / "case_0.npy", np.ones((3, 8)))
    import_embeddings(filled, tmp_path / "npy")
    with pytest.raises(UserError, match="not those that the run reads"):
        predict(filled, run, Events(), networks=("teacher",))


def test_targets_bring_their_own_tokens(filled: Study, tmp_path: Path) -> None:
    add_target(filled, "rim")
    embeddings(tmp_path / "npy")
    embeddings(tmp_path / "rim", shape=(2, 8))
    embeddings(tmp_path / "wide", shape=(2, 9))
    import_embeddings(filled, tmp_path / "npy", name="a")
    with pytest.raises(UserError, match="no imported embeddings 'a' for the target 'rim'"):
        create_run(filled, tiny(targets=("target", "rim"), text_embeddings="a"))
    import_embeddings(filled, tmp_path / "rim", name="a", target="rim")
    spec = create_run(filled, tiny(targets=("target", "rim"), text_embeddings="a")).spec
    table = phrase_table(filled, sorted(filled.images), spec, text_of(filled, spec, None, None))
    assert [target for target, _ in table.names[0]] == ["target"] * 3 + ["rim"] * 2
    import_embeddings(filled, tmp_path / "npy", name="b")
    import_embeddings(filled, tmp_path / "wide", name="b", target="rim")
    with pytest.raises(UserError, match="different widths"):
        ImportedEmbeddings(filled, "b", ["target", "rim"])


def test_images_without_embeddings_have_no_token(filled: Study, tmp_path: Path) -> None:
    embeddings(tmp_path / "npy")
    (tmp_path / "npy" / "case_4.npy").unlink()
    np.save(tmp_path / "npy" / "case_5.npy", np.ones((5, 8)))
    assert import_embeddings(filled, tmp_path / "npy").tokens == (3, 5)
    source, spec = ImportedEmbeddings(filled, "text", ["target"]), tiny(text_embeddings="text")
    ids = [ids_by_stem(filled)[f"case_{number}"] for number in (3, 4, 5)]
    table = phrase_table(filled, ids, spec, source)
    assert (table.rows[:, 0] >= 0).sum(axis=1).tolist() == [3, 0, 5]
    tokens, valid = table.text(np.arange(3))
    assert valid.sum(dim=1).tolist() == [3, 0, 5] and not tokens[1].any()
    with pytest.raises(UserError, match="None of the 1 images has embeddings"):
        phrase_table(filled, ids[1:2], spec, source)


def test_area_only_cannot_be_had_of_imported_embeddings() -> None:
    with pytest.raises(UserError, match="do not say which token is the area"):
        tiny(text_embeddings="text", text="area-only")


def test_the_command_imports_and_names_what_it_left(
    filled: Study, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    embeddings(tmp_path / "npy", shape=(1, 8))
    np.save(tmp_path / "npy" / "stranger.npy", np.ones((3, 8)))
    (tmp_path / "npy" / "case_5.npy").write_bytes(b"")
    assert (
        run_command(["import-embeddings", str(filled.folder), str(tmp_path / "npy"), "--name", "published"])
        == 0
    )
    told = capsys.readouterr().out
    for part in ("5 images imported: 1 token of 8", "stranger.npy", "case_5.npy: It is damaged", "a single token",
                 "Without embeddings: 1 image", "--embeddings published"):  # fmt: skip
        assert part in told, told
    assert run_command(["import-embeddings", str(filled.folder), str(tmp_path / "none")]) == 1
    assert "There is no folder" in capsys.readouterr().err
