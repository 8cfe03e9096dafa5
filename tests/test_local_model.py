"""The local path for real: a small model is trained, saved, loaded from its folder by a worker, and asked."""

from __future__ import annotations

import json
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from gaze_capture.errors import UserError
from segmentation.explainers import by_local_model
from segmentation.explainers.opening import BackendOptions, open_backend
from segmentation.explaining import GIVE_UP_AFTER, ExplainResult, explain_study
from segmentation.explanation import load_explanation
from segmentation.sending import give_download_permission
from segmentation.study import Study
from segmentation.vlm_folder import check_model_folder, model_name
from segmentation.workers import start_worker
from tests.tiny_vlm import BLUNT_PROMPT, CHANCE, PRESET, PROMPT, Ellipse, make_ellipse_study

Workers = list[subprocess.Popen[bytes]]


@pytest.fixture
def workers(monkeypatch: pytest.MonkeyPatch) -> Workers:
    """Return the worker processes that are started, as they are."""
    started: Workers = []

    def start(*args: Any, **kwargs: Any) -> subprocess.Popen[bytes]:
        started.append(start_worker(*args, **kwargs))
        return started[-1]

    monkeypatch.setattr(by_local_model, "start_worker", start)
    return started


def ask(study: Study, model: Path, progress: Callable[[int, int, str], None] | None = None) -> ExplainResult:
    options = BackendOptions("transformers", model=str(model))
    return explain_study(study, options, progress=progress or (lambda done, total, label: None))


def shares_right(study: Study, truth: dict[str, Ellipse]) -> dict[str, float]:
    right = dict.fromkeys(CHANCE, 0)
    for image_id, ellipse in truth.items():
        explanation = load_explanation(study, image_id, "target")
        assert explanation is not None
        for name in right:
            right[name] += explanation.attributes[name] == getattr(ellipse, name)
    return {name: count / len(truth) for name, count in right.items()}


def test_unseen_images_are_described_right(tiny_vlm: Path, tmp_path: Path, workers: Workers) -> None:
    study, truth = make_ellipse_study(tmp_path / "study", 30)
    labels: list[str] = []
    result = ask(study, tiny_vlm, lambda done, total, label: labels.append(label))
    assert (result.done, result.failed, result.requests) == (30, [], 30)
    right = shares_right(study, truth)
    # By guessing 0.11 and 0.25; one wrong place is an ellipse at the border of two.
    assert right["location"] >= 0.7 and right["colour"] >= 0.8, right

    assert labels[0] == "starting the model's process" and any(
        "loading the model" in label for label in labels
    )
    assert len(workers) == 1 and workers[0].poll() is not None
    for image_id in truth:
        explanation = load_explanation(study, image_id, "target")
        assert explanation is not None
        assert (explanation.backend, explanation.prompt) == ("transformers", PROMPT)
        assert explanation.model == model_name(tiny_vlm) and explanation.model.startswith("tiny-vlm-")
        assert json.loads(explanation.raw_reply) == explanation.attributes
        assert explanation.cost.seconds > 0 and explanation.cost.requests == 1
        assert explanation.cost.prompt_tokens > 16 and explanation.cost.completion_tokens > 3
        assert len(explanation.picture_sha256) == 64 and explanation.simulated_from == "masks"

    # What was asked is not asked again, and no process is started to find that out.
    again = ask(study, tiny_vlm)
    assert (again.done, again.skipped, len(workers)) == (0, 30, 1)


class _CancelledError(Exception):
    pass


def test_cancelled_in_mid_batch_and_resumed(tiny_vlm: Path, tmp_path: Path, workers: Workers) -> None:
    study, truth = make_ellipse_study(tmp_path / "study", 12)

    def cancel(done: int, total: int, label: str) -> None:
        if done >= 4:
            raise _CancelledError

    with pytest.raises(_CancelledError):
        ask(study, tiny_vlm, cancel)
    assert workers[0].poll() is not None
    kept = study.explanation_keys()
    assert 4 <= len(kept) < 12
    result = ask(study, tiny_vlm)
    assert (result.skipped, result.done, result.requests) == (len(kept), 12 - len(kept), 12 - len(kept))
    assert set(study.explanation_keys()) == {(image_id, "target") for image_id in truth}
    assert all(worker.poll() is not None for worker in workers)


def test_cancelled_while_the_model_loads(tiny_vlm: Path, tmp_path: Path, workers: Workers) -> None:
    study, _ = make_ellipse_study(tmp_path / "study", 2)

    def cancel(done: int, total: int, label: str) -> None:
        raise _CancelledError

    with pytest.raises(_CancelledError):
        ask(study, tiny_vlm, cancel)
    assert len(workers) == 1 and workers[0].poll() is not None and not study.explanation_keys()


def test_a_killed_worker_costs_one_image(tiny_vlm: Path, tmp_path: Path, workers: Workers) -> None:
    study, truth = make_ellipse_study(tmp_path / "study", 8)

    def kill(done: int, total: int, label: str) -> None:
        if done == 3 and len(workers) == 1:
            workers[0].kill()

    result = ask(study, tiny_vlm, kill)
    assert len(workers) == 2 and result.done + len(result.failed) == 8 and len(result.failed) <= 1
    assert all(reason == by_local_model.GONE for _, reason in result.failed)
    result = ask(study, tiny_vlm)
    assert not result.failed and len(study.explanation_keys()) == len(truth)


def test_workers_that_die_again_and_again_end_the_work(
    tiny_vlm: Path, tmp_path: Path, workers: Workers
) -> None:
    study, _ = make_ellipse_study(tmp_path / "study", 12)

    def kill(done: int, total: int, label: str) -> None:
        if done >= 1:
            workers[-1].kill()

    result = ask(study, tiny_vlm, kill)
    reasons = [reason for _, reason in result.failed]
    assert result.done + len(reasons) == 12 and result.done >= 1
    # Those that were begun after the one before had failed count; behind each but the last one was waiting already.
    most = GIVE_UP_AFTER + (GIVE_UP_AFTER - 1) * (by_local_model.AHEAD - 1)
    assert GIVE_UP_AFTER <= reasons.count(by_local_model.GONE) <= most
    assert set(reasons) == {by_local_model.GONE, f"Not asked: {by_local_model.GONE}"}


def test_a_worker_killed_while_loading_is_told_at_once(
    tiny_vlm: Path, tmp_path: Path, workers: Workers
) -> None:
    study, _ = make_ellipse_study(tmp_path / "study", 3)
    with pytest.raises(UserError, match="want of memory"):
        ask(study, tiny_vlm, lambda done, total, label: workers[-1].kill() if workers else None)
    assert len(workers) == 1


def test_prose_is_sent_back_to_be_repaired(tiny_vlm: Path, tmp_path: Path) -> None:
    study, truth = make_ellipse_study(tmp_path / "study", 12, prompt=BLUNT_PROMPT)
    result = ask(study, tiny_vlm)
    assert (result.done, result.failed, result.requests) == (12, [], 24)
    right = shares_right(study, truth)
    assert right["location"] >= 0.6 and right["colour"] >= 0.7, right
    explanation = load_explanation(study, next(iter(truth)), "target")
    assert explanation is not None and explanation.cost.requests == 2


def test_an_answer_that_stays_wrong_fails_its_image_alone(tiny_vlm: Path, tmp_path: Path) -> None:
    study, _ = make_ellipse_study(tmp_path / "study", 4)
    path = study.folder / "presets" / f"{PRESET}.json"
    values = json.loads(path.read_text())
    values["attributes"] = {"rim": {"description": "How the rim looks.", "words": ["thin", "thick"]}}
    path.write_text(json.dumps(values))
    result = ask(study, tiny_vlm)
    assert (result.done, len(result.failed), result.requests) == (0, 4, 8)
    for _, reason in result.failed:
        assert "gave no valid answer, also when asked to repair it" in reason and "rim" in reason


def test_another_model_of_the_same_name_is_another_model(tiny_vlm: Path, tmp_path: Path) -> None:
    import safetensors.torch

    copy = shutil.copytree(tiny_vlm, tmp_path / tiny_vlm.name)
    assert model_name(copy) == model_name(tiny_vlm)
    weights = safetensors.torch.load_file(copy / "model.safetensors")
    name = next(name for name in weights if name.endswith("norm.weight"))
    weights[name] = weights[name] * 1.01
    safetensors.torch.save_file(weights, copy / "model.safetensors", {"format": "pt"})
    assert model_name(copy) != model_name(tiny_vlm)


def _edit(path: Path, **changes: Any) -> None:
    path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))


def _without_tensors(folder: Path) -> None:
    import safetensors.torch

    weights = safetensors.torch.load_file(folder / "model.safetensors")
    kept = {name: values for name, values in weights.items() if "layers.1" not in name}
    safetensors.torch.save_file(kept, folder / "model.safetensors", {"format": "pt"})


def _sharded(folder: Path) -> None:
    names = ["model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors"]
    (folder / "model.safetensors").rename(folder / names[0])
    index = {"metadata": {}, "weight_map": {"a": names[0], "b": names[1]}}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))


def _pickled(folder: Path) -> None:
    (folder / "model.safetensors").rename(folder / "pytorch_model.bin")


def _cut_short(folder: Path) -> None:
    data = (folder / "model.safetensors").read_bytes()
    (folder / "model.safetensors").write_bytes(data[: len(data) // 2])


def _placeholder(folder: Path) -> None:
    (folder / "model.safetensors").write_text(
        "version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 1\n"
    )


def _processor_of(kind: str, folder: Path) -> None:
    (folder / "processor_config.json").unlink()
    names = {"image_processor_type": "Qwen2VLImageProcessor", "processor_class": "Qwen2_5_VLProcessor"}
    (folder / "preprocessor_config.json").write_text(json.dumps(names))
    (folder / "config.json").write_text(json.dumps({"model_type": kind}))


AT_ONCE: dict[str, tuple[Callable[[Path], object], str]] = {
    "gone": (shutil.rmtree, "There is no model folder"),
    "no config": (lambda folder: (folder / "config.json").unlink(), "no config.json"),
    "config is prose": (lambda folder: (folder / "config.json").write_text("{"), "config.json"),
    "no weights": (lambda folder: (folder / "model.safetensors").unlink(), "holds no weights"),
    "shard missing": (_sharded, "model-00002-of-00002.safetensors is missing"),
    "pickle": (_pickled, "pytorch_model.bin, a pickle, .* save_pretrained"),
    "cut short": (_cut_short, "damaged: its size is not what it says"),
    "no safetensors": (
        lambda folder: (folder / "model.safetensors").write_bytes(b"\0" * 99),
        "no safetensors",
    ),
    "placeholder": (_placeholder, "git lfs pull"),
    "no processor": (lambda folder: (folder / "processor_config.json").unlink(), "preprocessor_config.json"),
}
WHEN_LOADED: dict[str, tuple[Callable[[Path], object], str]] = {
    "unknown kind": (
        lambda folder: _edit(folder / "config.json", model_type="marvel"),
        "kind 'marvel', which transformers [0-9.]+ does not know; update",
    ),
    "own code": (
        lambda folder: _edit(
            folder / "config.json", model_type="marvel", auto_map={"AutoConfig": "marvel.Config"}
        ),
        "never run",
    ),
    "no picture model": (
        lambda folder: (folder / "config.json").write_text(json.dumps({"model_type": "bert"})),
        "bert model, which does not answer questions about pictures",
    ),
    "tensors missing": (_without_tensors, "are missing, such as "),
    "no tokenizer": (lambda folder: (folder / "tokenizer.json").unlink(), "could not be loaded"),
    "needs torchvision": (
        lambda folder: _processor_of("qwen2_5_vl", folder),
        "needs the package torchvision",
    ),
    "sizes differ": (
        lambda folder: _edit(
            folder / "config.json",
            text_config={
                **json.loads((folder / "config.json").read_text())["text_config"],
                "hidden_size": 32,
            },
        ),
        "could not be loaded",
    ),
}


@pytest.mark.parametrize("case", AT_ONCE)
def test_a_bad_folder_is_refused_before_anything_starts(
    case: str, tiny_vlm: Path, tmp_path: Path, study: Study, workers: Workers
) -> None:
    folder = shutil.copytree(tiny_vlm, tmp_path / "model")
    spoil, sentence = AT_ONCE[case]
    spoil(folder)
    with pytest.raises(UserError, match=sentence) as caught:
        open_backend(study, BackendOptions("transformers", model=str(folder)))
    assert "\n" not in str(caught.value) and str(folder) in str(caught.value) and not workers


@pytest.mark.parametrize("case", WHEN_LOADED)
def test_a_bad_model_is_refused_when_it_is_loaded(case: str, tiny_vlm: Path, tmp_path: Path) -> None:
    from segmentation.vlm_local import LocalModel

    if case == "needs torchvision":
        import transformers

        if transformers.utils.is_torchvision_available():
            pytest.skip("torchvision is at hand")
    folder = shutil.copytree(tiny_vlm, tmp_path / "model")
    spoil, sentence = WHEN_LOADED[case]
    spoil(folder)
    check_model_folder(folder)
    with pytest.raises(UserError, match=sentence) as caught:
        LocalModel(folder)
    assert "\n" not in str(caught.value) and str(folder) in str(caught.value)


def test_what_the_worker_cannot_load_ends_the_work_with_its_sentence(
    tiny_vlm: Path, tmp_path: Path, workers: Workers
) -> None:
    study, _ = make_ellipse_study(tmp_path / "study", 3)
    folder = shutil.copytree(tiny_vlm, tmp_path / "model")
    _edit(folder / "config.json", model_type="marvel")
    with pytest.raises(UserError, match="does not know"):
        ask(study, folder)
    assert workers[0].poll() is not None and not study.explanation_keys()


@pytest.mark.parametrize("allowed", [False, True])
def test_a_model_of_the_hub_is_only_fetched_with_permission(
    allowed: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HF_HOME", str(tmp_path / "hub"))
    # Nothing answers there: what is permitted is tried, and told.
    monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:9")
    monkeypatch.setenv("HF_HUB_OFFLINE", "0")
    study, _ = make_ellipse_study(tmp_path / "study", 1)
    if allowed:
        give_download_permission(study, "huggingface.co", "A")
    options = BackendOptions("transformers", model="nobody/nothing")
    with pytest.raises(UserError, match="could not be downloaded" if allowed else "--download --yes"):
        explain_study(study, options)


def test_devices_dtypes_and_memory(tiny_vlm: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import torch

    from segmentation.explanation_settings import ViewSettings
    from segmentation.gaze_view import encode_picture
    from segmentation.vlm_local import TOO_LARGE, LocalModel
    from tests.tiny_vlm import ellipse_picture

    ellipse = ellipse_picture(np.random.default_rng(5))
    pixels = (ellipse.pixels / 255).astype(np.float32)
    picture = encode_picture(pixels, ellipse.mask, ViewSettings())
    model = LocalModel(tiny_vlm, "cpu", "bf16")
    assert (model.device, model.dtype) == ("cpu", "bfloat16")
    assert "location" in json.loads(model.say(picture, [PROMPT]).text)

    def generate(*_: object, **__: object) -> object:
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 9 GiB.")

    monkeypatch.setattr(model._model, "generate", generate)
    with pytest.raises(UserError) as caught:
        model.say(picture, [PROMPT])
    assert str(caught.value) == TOO_LARGE
    with pytest.raises(UserError, match="choose one of: auto, fp32"):
        LocalModel(tiny_vlm, "cpu", "int3")
    with pytest.raises(UserError, match="mps"):
        LocalModel(tiny_vlm, "mps")
    if not torch.cuda.is_available():
        with pytest.raises(UserError, match="sees 0 GPUs; choose auto or cpu"):
            LocalModel(tiny_vlm, "cuda")


def test_a_processor_without_a_chat_template_gets_a_plain_prompt(tiny_vlm: Path, tmp_path: Path) -> None:
    from segmentation.explanation_settings import ViewSettings
    from segmentation.gaze_view import encode_picture
    from segmentation.vlm_local import LocalModel
    from tests.tiny_vlm import ellipse_picture

    folder = shutil.copytree(tiny_vlm, tmp_path / "model")
    (folder / "chat_template.jinja").unlink()
    ellipse = ellipse_picture(np.random.default_rng(5))
    pixels = (ellipse.pixels / 255).astype(np.float32)
    picture = encode_picture(pixels, ellipse.mask, ViewSettings())
    said = LocalModel(folder).say(picture, [PROMPT])
    # The picture's 16 patches are among what was read.
    assert said.prompt_tokens > 16 and said.text
