"""Encoders of timm: its own test models with random weights, saved here as the hub has them; training; bad folders."""

from __future__ import annotations

import json
import pickle
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from gaze_capture.errors import UserError
from gaze_capture.storage import sha256_of
from segmentation import backbones
from segmentation.backbones import Pretrained, load_pretrained
from segmentation.checkpoints import latest_checkpoint, load_weights
from segmentation.job import RunSpec
from segmentation.methods import make_method
from segmentation.networks import Text
from segmentation.predictor import Predictor
from segmentation.runs import RunFolder, create_run
from segmentation.study import Study
from segmentation.training import train
from tests.training_helpers import Events, HashEncoder, make_study, tiny

timm = pytest.importorskip("timm", reason="timm is not installed")

COMPACT = {"student_widths": (0, 4, 6, 8, 10, 12), "teacher_widths": (0, 4, 4, 8, 8, 16), "text_heads": 2}


@pytest.fixture
def filled(tmp_path: Path, image_folder: Path) -> Study:
    return make_study(tmp_path / "filled", image_folder)


def save(folder: Path, name: str = "test_efficientnet", *, seed: int = 0, **arguments: Any) -> Path:
    """Store a timm classifier with random weights as the library itself does for the hub."""
    torch.manual_seed(seed)
    timm.models.save_for_hf(timm.create_model(name, **arguments), folder, safe_serialization=True)
    return folder


def spec_with(folder: Path, method: str = "partial", **changes: Any) -> RunSpec:
    return tiny(method, **{**COMPACT, **backbones.examine(folder), **changes})


def go(study: Study, spec: RunSpec, folder: Path | None) -> tuple[RunFolder, Events]:
    run, events = create_run(study, spec), Events()
    train(study, run, events, threads=1, encoder=HashEncoder(), image_encoder_folder=folder)
    return run, events


def encoder_of(spec: RunSpec) -> Pretrained:
    [part] = [
        one for one in make_method(spec, 16).networks["student"].modules() if isinstance(one, Pretrained)
    ]
    return part


@pytest.mark.parametrize("name", ["test_efficientnet", "test_resnet", "test_convnext", "test_byobnet"])
def test_every_family_gives_four_scales_logits_and_gradients(tmp_path: Path, name: str) -> None:
    folder = save(tmp_path / name, name)
    spec = spec_with(folder, "gaze-to-insight")
    assert spec.encoder_config["config"] == {"architecture": name}
    method = make_method(spec, 16)
    load_pretrained(method.networks, spec, folder)
    text = Text(torch.randn(2, 3, 16), torch.ones(2, 3, dtype=torch.bool))
    for side in (64, 45):
        images = torch.randn(2, 3, side, side)
        student, teacher = method.student(images), method.networks["teacher"](images, text)
        assert student.logits.shape == teacher.logits.shape == (2, 1, side, side)
        assert [part.shape[1:] for part in student.features] == [
            (width, 64 // scale, 64 // scale)
            for width, scale in zip((6, 8, 10, 12), (4, 8, 16, 32), strict=True)
        ]
    (student.logits.sum() + teacher.logits.sum()).backward()
    unmoved = [
        name
        for name, one in method.networks.named_parameters()
        if one.requires_grad and one.grad is None and "adapters" not in name
    ]
    assert unmoved == []


def test_maps_are_those_of_the_library_for_images_normalised_as_the_folder_says(tmp_path: Path) -> None:
    folder = save(tmp_path / "tiny")
    values = json.loads((folder / "config.json").read_text())
    values["pretrained_cfg"] |= {"mean": [0.4, 0.5, 0.6], "std": [0.2, 0.3, 0.25]}
    (folder / "config.json").write_text(json.dumps(values))
    spec = spec_with(folder)
    part = encoder_of(spec).eval()
    load_pretrained(part, spec, folder)
    torch.manual_seed(0)
    model = timm.create_model("test_efficientnet").eval()
    images = torch.rand(1, 3, 64, 96)
    mean, std = (torch.tensor(values["pretrained_cfg"][name]).view(1, 3, 1, 1) for name in ("mean", "std"))
    with torch.inference_mode():
        expected = model.forward_intermediates((images - mean) / std, intermediates_only=True)[-4:]
        found = part(images)
    for one, other in zip(found, expected, strict=True):
        assert torch.allclose(one, other, atol=1e-5)


def test_it_trains_predicts_and_resumes_without_the_folder(filled: Study, tmp_path: Path) -> None:
    folder = save(tmp_path / "tiny")
    spec = spec_with(folder, "gaze-to-insight", ema_decay=0.9, encoder_frozen_stages=1)
    assert (spec.encoder, spec.encoder_sha256) == ("tiny", sha256_of(folder / "model.safetensors"))
    run, events = create_run(filled, spec), Events()

    def emit(kind: Any, step: int, total: int, **values: object) -> None:
        events(kind, step, total, **values)
        if kind == "sample" and step == 3:
            run.request_stop()

    assert not train(filled, run, emit, threads=1, encoder=HashEncoder(), image_encoder_folder=folder)
    shutil.rmtree(folder)
    run.prepare_resume()
    assert train(filled, run, events, threads=1, encoder=HashEncoder())
    [image] = filled.images_of("train")[:1]
    pixels = filled.network_input(image, spec.normalisation)
    [probability] = Predictor(run).predict([pixels])
    assert probability.shape == (1, *pixels.shape[:2]) and np.isfinite(probability).all()

    unbroken, _ = go(filled, spec, save(tmp_path / "tiny"))
    first, second = (load_weights(latest_checkpoint(one) or Path(), "student") for one in (run, unbroken))
    assert all(torch.equal(first[name], second[name]) for name in first)


def test_frozen_stages_stay_as_they_came_and_the_others_learn(filled: Study, tmp_path: Path) -> None:
    folder = save(tmp_path / "tiny")
    begun = backbones._weights(folder, {"architecture": "test_efficientnet"})

    def moved(**changes: Any) -> set[str]:
        run, _ = go(filled, spec_with(folder, **changes), folder)
        weights = load_weights(latest_checkpoint(run) or Path(), "student")
        prefix = "encoder.pretrained.backbone."
        return {
            name for name in begun if not torch.equal(weights[prefix + name].to(begun[name]), begun[name])
        }

    everything, later = moved(), moved(encoder_frozen_stages=2)
    assert "conv_stem.weight" in everything and "bn1.running_mean" in everything
    # Maps at 1/4 and 1/8 are those of the first three groups of blocks.
    assert {name.split(".")[1] for name in later} == {"3", "4"}
    assert later == {name for name in everything if name.startswith(("blocks.3", "blocks.4"))}
    assert moved(encoder_frozen_stages=4) == moved(encoder_learning_rate=0.0) == set()


def _config(**changes: Any) -> Callable[[Path], object]:
    def change(folder: Path) -> None:
        path = folder / "config.json"
        path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))

    return change


def _changed(change: Callable[[str, Any], Any]) -> Callable[[Path], None]:
    def harm(folder: Path) -> None:
        from safetensors.numpy import load_file, save_file

        path = folder / "model.safetensors"
        changed = {name: change(name, one) for name, one in load_file(path).items()}
        save_file({name: one for name, one in changed.items() if one is not None}, path)

    return harm


def _truncate(folder: Path) -> None:
    path = folder / "model.safetensors"
    path.write_bytes(path.read_bytes()[:-100])


def _pickled(folder: Path) -> None:
    (folder / "model.safetensors").unlink()
    (folder / "pytorch_model.bin").write_bytes(pickle.dumps({"weight": 1}))


@pytest.mark.parametrize(
    ("harm", "sentence"),
    [
        (_pickled, "a pickle, which can run any program"),
        (_truncate, "is damaged"),
        (_changed(lambda name, one: None if "blocks.1" in name else one), "do not fit its config.json"),
        (_changed(lambda name, one: np.full_like(one, np.nan) if one.ndim else one), "not finite numbers"),
        (_config(architecture="test_resnet"), "do not fit its config.json"),
        (_config(architecture="no_such_model"), "knows no model 'no_such_model'"),
        (_config(architecture="hf-hub:lab/model"), "knows no model 'hf-hub:lab/model'"),
        (_config(model_args={"in_chans": 1}), "reads images of 1 channels"),
        (_config(model_args={"checkpoint_path": "/x.pth"}), "changes to its network (checkpoint_path)"),
        (_config(model_args=[1]), "config.json"),
        (_config(pretrained_cfg={"std": [1, 1, 1]}), "does not say by what mean"),
        (_config(pretrained_cfg={"mean": [0, 0, 0], "std": [1, 0, 1]}), "does not say by what mean"),
    ],
)
def test_a_folder_that_cannot_be_used_is_refused_in_one_sentence(
    tmp_path: Path, harm: Callable[[Path], Any], sentence: str
) -> None:
    folder = save(tmp_path / "tiny")
    harm(folder)
    with pytest.raises(UserError) as refusal:
        backbones.examine(folder)
    told = str(refusal.value)
    assert sentence in told and str(folder) in told and "\n" not in told


def test_a_transformer_of_timm_has_no_such_maps(tmp_path: Path) -> None:
    folder = save(tmp_path / "vit", "test_vit")
    with pytest.raises(UserError, match=r"changes to its network \(img_size\)"):
        backbones.examine(folder)
    _config(model_args={})(folder)
    with pytest.raises(UserError, match="no map at 1/4 of the image; choose a convolutional network"):
        backbones.examine(folder)
