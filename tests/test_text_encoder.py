import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from gaze_capture.errors import UserError
from segmentation.explanation import all_phrases
from segmentation.explanation_presets import load_preset
from segmentation.text.embedding import embed_study
from segmentation.text.encoder import FLIP_STATES, MiniLM, PhraseCache, phrase_when_flipped
from tests.training_helpers import HashEncoder, make_study


def test_minilm_is_quiet_offline_and_tells_phrases_apart(tmp_path: Path) -> None:
    # In a process of its own, where every attempt to open a socket ends it and everything printed is seen.
    script = f"""
import sys
def refuse(event, arguments):
    if event in ("socket.connect", "socket.getaddrinfo"):
        raise SystemExit(f"opened a socket: {{arguments}}")
sys.addaudithook(refuse)
import numpy as np, torch
from pathlib import Path
from segmentation.text.encoder import MiniLM, PhraseCache
torch.set_num_threads(2)
phrases = ["in the upper left of the image", "in the lower right of the image", "round shape"]
found = PhraseCache(Path({str(tmp_path)!r}), MiniLM()).encode(phrases)
assert torch.get_num_threads() == 2
assert "sentence_transformers" not in sys.modules
first, second, third = found.values()
assert first.shape == (384,) and first.dtype == np.float32
assert abs(np.linalg.norm(first) - 1) < 1e-5
assert first @ second > first @ third and first @ second < 0.98
"""
    result = subprocess.run(
        [sys.executable, "-W", "error::ResourceWarning", "-c", script], capture_output=True, text=True
    )
    assert result.returncode == 0, result.stderr
    assert result.stdout == "" and result.stderr == ""
    stored = json.loads(next(tmp_path.glob("embeddings/*/phrases.json")).read_text())
    assert (
        stored["encoder"] == "all-MiniLM-L6-v2"
        and stored["sha256"] == MiniLM.sha256
        and stored["width"] == "384"
    )
    assert next(tmp_path.glob("embeddings/*")).name == "all-MiniLM-L6-v2-53aa5117"


def test_known_phrases_are_not_encoded_again(tmp_path: Path) -> None:
    encoder = HashEncoder()
    first = PhraseCache(tmp_path, encoder).encode(["a", "b", "a"])
    assert encoder.asked == ["a", "b"]
    second = PhraseCache(tmp_path, encoder).encode(["b", "c"])
    assert encoder.asked == ["a", "b", "c"]
    assert np.array_equal(first["b"], second["b"])
    assert set(PhraseCache(tmp_path, encoder).encode(["a", "b", "c"])) == {"a", "b", "c"}
    assert len(encoder.asked) == 3


@pytest.mark.parametrize(
    ("attribute", "value"), [("name", "other"), ("sha256", "0" * 8 + "1" * 56), ("width", 8)]
)
def test_vectors_of_another_encoder_are_refused(tmp_path: Path, attribute: str, value: object) -> None:
    PhraseCache(tmp_path, HashEncoder()).encode(["a"])
    other = HashEncoder()
    setattr(other, attribute, value)
    cache_folder = next((tmp_path / "embeddings").iterdir())
    if attribute == "name":
        cache_folder = cache_folder.rename(cache_folder.with_name("other-00000000"))
    with pytest.raises(UserError, match="another text encoder") as refusal:
        PhraseCache(tmp_path, other)
    assert str(cache_folder) in str(refusal.value)


def test_a_damaged_cache_says_what_to_delete(tmp_path: Path) -> None:
    PhraseCache(tmp_path, HashEncoder()).encode(["a"])
    path = next(tmp_path.glob("embeddings/*/vectors.safetensors"))
    path.write_bytes(path.read_bytes()[:-3])
    with pytest.raises(UserError, match="Delete the folder"):
        PhraseCache(tmp_path, HashEncoder())


def test_location_words_follow_every_flip() -> None:
    told = [phrase_when_flipped("in the upper left of the image", state) for state in range(FLIP_STATES)]
    corners = ["upper left", "upper right", "lower left", "lower right"] * 2
    assert told == [f"in the {corner} of the image" for corner in corners]
    edges = [phrase_when_flipped("in the upper centre of the image", state) for state in (0, 2, 4, 5)]
    words = ["upper centre", "lower centre", "centre left", "centre right"]
    assert edges == [f"in the {word} of the image" for word in words]
    for phrase in ("in the centre of the image", "round shape", "two separate regions"):
        assert {phrase_when_flipped(phrase, state) for state in range(FLIP_STATES)} == {phrase}


def test_flipping_leads_to_no_new_phrase() -> None:
    known = set(all_phrases(load_preset()))
    assert {phrase_when_flipped(phrase, state) for phrase in known for state in range(FLIP_STATES)} == known


def test_embedding_a_study_encodes_all_that_training_will_ask_for(tmp_path: Path, image_folder: Path) -> None:
    study = make_study(tmp_path / "s", image_folder)
    encoder = HashEncoder()
    assert embed_study(study, encoder) == len(encoder.asked) > 5
    assert embed_study(study, encoder) == len(encoder.asked)
