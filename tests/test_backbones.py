"""Pretrained encoders: small ones with random weights, made here; training, checkpoints, and bad folders."""

from __future__ import annotations

import copy
import dataclasses
import json
import pickle
import shutil
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import transformers

from app.cli import run_command
from gaze_capture.errors import UserError
from gaze_capture.storage import sha256_of
from segmentation import backbones, steps
from segmentation.backbones import KINDS, Pretrained, load_pretrained
from segmentation.checkpoints import latest_checkpoint, load_weights
from segmentation.comparing import cells_of
from segmentation.comparison_plan import make_plan
from segmentation.job import RunSpec
from segmentation.known_folders import folders_job, remembered_folder
from segmentation.methods import make_method
from segmentation.network_steps import with_encoder
from segmentation.networks import Text
from segmentation.optimising import make_optimiser
from segmentation.predictor import Predictor
from segmentation.presets import preset
from segmentation.runs import RunFolder, create_run
from segmentation.study import Study
from segmentation.training import train
from tests.training_helpers import TINY, Events, HashEncoder, make_study, save_image_encoder, tiny

COMPACT = {"student_widths": (0, 4, 6, 8, 10, 12), "teacher_widths": (0, 4, 4, 8, 8, 16), "text_heads": 2}


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Give this user's own list a place of its own."""
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "home"))
    return tmp_path / "home"


@pytest.fixture
def filled(tmp_path: Path, image_folder: Path) -> Study:
    return make_study(tmp_path / "filled", image_folder)


def spec_with(folder: Path, method: str = "gaze-to-insight", **changes: Any) -> RunSpec:
    return tiny(method, **{**COMPACT, **backbones.examine(folder), **changes})


def go(study: Study, spec: RunSpec, folder: Path | None) -> tuple[RunFolder, Events]:
    run, events = create_run(study, spec), Events()
    train(study, run, events, threads=1, encoder=HashEncoder(), image_encoder_folder=folder)
    return run, events


@pytest.mark.parametrize("kind", KINDS)
def test_every_family_gives_four_scales_logits_and_gradients(tmp_path: Path, kind: str) -> None:
    folder = save_image_encoder(tmp_path / "tiny", kind)
    spec = spec_with(folder)
    method = make_method(spec, 16)
    load_pretrained(method.networks, spec, folder)
    text = Text(torch.randn(2, 3, 16), torch.ones(2, 3, dtype=torch.bool))
    for side in (64, 80, 45):
        images = torch.randn(2, 3, side, side)
        student, teacher = method.student(images), method.networks["teacher"](images, text)
        whole = -(-side // 32) * 32
        assert student.logits.shape == teacher.logits.shape == (2, 1, side, side)
        assert [part.shape[2] for part in student.features] == [
            whole // 4,
            whole // 8,
            whole // 16,
            whole // 32,
        ]
        assert [part.shape[1] for part in student.features] == [6, 8, 10, 12]
        assert [part.shape[1] for part in teacher.features] == [4, 8, 8, 16]
        adapted = method.student.adapt(student.features)  # type: ignore[operator]
        assert [part.shape for part in adapted] == [part.shape for part in teacher.features]
    (student.logits.sum() + teacher.logits.sum() + sum(part.sum() for part in adapted)).backward()
    learning = [one for one in method.networks.named_parameters() if one[1].requires_grad]
    assert [name for name, one in learning if one.grad is None] == []
    assert any(
        ".pretrained." in name and one.grad.abs().sum() > 0 for name, one in learning if one.grad is not None
    )


def test_maps_are_those_of_the_library_for_images_normalised_as_the_processor_does(tmp_path: Path) -> None:
    folder = save_image_encoder(tmp_path / "tiny", "convnext")
    spec = spec_with(folder)
    method = make_method(spec, 16).networks.eval()
    load_pretrained(method, spec, folder)
    pixels = np.random.default_rng(0).integers(0, 256, (64, 64, 3), np.uint8)
    mean, std = np.array([0.485, 0.456, 0.406]), np.array([0.229, 0.224, 0.225])
    ready = torch.from_numpy(((pixels / 255 - mean) / std).transpose(2, 0, 1)[None]).float()
    model = transformers.ConvNextModel.from_pretrained(folder, dtype=torch.float32).eval()
    from segmentation.augmentation import standardised

    [part] = [one for one in method["student"].modules() if isinstance(one, Pretrained)]
    with torch.inference_mode():
        expected = model(ready, output_hidden_states=True).hidden_states[-1]
        # A backbone norms its maps; its norms have learned nothing yet.
        expected = torch.nn.functional.layer_norm(expected.permute(0, 2, 3, 1), (24,), eps=1e-6).permute(
            0, 3, 1, 2
        )
        found = part(standardised(pixels[None]) * 0.25 + 0.5)[-1]
    assert found.shape == expected.shape == (1, 24, 2, 2)
    assert torch.allclose(found, expected, atol=1e-4)


def test_a_dinov2s_single_scale_covers_the_image_at_every_scale(tmp_path: Path) -> None:
    spec = spec_with(save_image_encoder(tmp_path / "tiny", "dinov2"))
    [part] = [
        one for one in make_method(spec, 16).networks["student"].modules() if isinstance(one, Pretrained)
    ]
    maps = part(torch.rand(1, 3, 96, 160))
    # 96 is enlarged to seven patches of 14, 160 to twelve.
    assert [tuple(one.shape) for one in maps] == [(1, 16, 7, 12)] * 4


@pytest.mark.parametrize("kind", ["resnet", "dinov2"])
def test_a_grey_encoder_reads_the_mean_of_the_channels(tmp_path: Path, kind: str) -> None:
    folder = save_image_encoder(tmp_path / "grey", kind, channels=1)
    spec = spec_with(folder)
    assert len(spec.encoder_config["mean"]) == len(spec.encoder_config["std"]) == 1
    [part] = [
        one
        for one in make_method(spec, 16).networks.eval()["student"].modules()
        if isinstance(one, Pretrained)
    ]
    images = torch.rand(1, 3, 64, 64)
    grey = images.mean(1, keepdim=True).expand(-1, 3, -1, -1)
    for one, other in zip(part(images), part(grey), strict=True):
        assert torch.allclose(one, other, atol=1e-5)


@pytest.mark.parametrize(("kind", "method"), [("resnet", "gaze-to-insight"), ("dinov2", "partial")])
def test_it_trains_and_predicts_and_resumes_without_the_folder(
    filled: Study, tmp_path: Path, kind: str, method: str
) -> None:
    folder = save_image_encoder(tmp_path / "tiny", kind)
    spec = spec_with(folder, method, image_size_px=48, ema_decay=0.9)
    run, events = create_run(filled, spec), Events()

    def emit(kind: Any, step: int, total: int, **values: object) -> None:
        events(kind, step, total, **values)
        if kind == "sample" and step == 3:
            run.request_stop()

    assert not train(filled, run, emit, threads=1, encoder=HashEncoder(), image_encoder_folder=folder)
    shutil.rmtree(folder)
    run.prepare_resume()
    assert train(filled, run, events, threads=1, encoder=HashEncoder())
    assert run.spec == spec
    [image] = filled.images_of("train")[:1]
    pixels = filled.network_input(image, spec.normalisation)
    [probability] = Predictor(run).predict([pixels])
    assert probability.shape == (1, *pixels.shape[:2]) and np.isfinite(probability).all()

    # What went on without the folder is what would have been with it.
    again = save_image_encoder(tmp_path / "tiny", kind)
    unbroken, _ = go(filled, spec, again)
    first, second = (load_weights(latest_checkpoint(one) or Path(), "student") for one in (run, unbroken))
    assert all(torch.equal(first[name], second[name]) for name in first)


def test_training_changes_the_encoder_less_and_a_frozen_one_not_at_all(filled: Study, tmp_path: Path) -> None:
    folder = save_image_encoder(tmp_path / "tiny", "resnet")
    begun = backbones._weights(folder, backbones.examine(folder)["encoder_config"]["config"])

    def moved(**changes: Any) -> tuple[float, float]:
        run, _ = go(filled, spec_with(folder, "partial", **changes), folder)
        weights = load_weights(latest_checkpoint(run) or Path(), "student")
        prefix = "encoder.pretrained.backbone."
        after = {name.removeprefix(prefix): one for name, one in weights.items() if name.startswith(prefix)}
        assert after.keys() == begun.keys()

        def furthest(*parts: str) -> float:
            return max(
                float((after[name].float() - begun[name].float()).abs().max())
                for name in begun
                if any(part in name for part in parts)
            )

        return furthest("convolution"), furthest("normalization")

    slow, fast = moved(encoder_learning_rate=0.01), moved(encoder_learning_rate=1.0)
    assert 0 < slow[0] < fast[0] and slow[1] > 0
    assert moved(encoder_learning_rate=0.0) == (0.0, 0.0)
    convolutions, norms = moved(encoder_frozen_norms=True)
    assert convolutions > 0 and norms == 0


def test_the_optimiser_has_every_learning_parameter_once_at_its_pace(tmp_path: Path) -> None:
    spec = spec_with(save_image_encoder(tmp_path / "tiny", "swin"), text_learning_rate=0.5)
    networks = make_method(spec, 16).networks
    optimiser = make_optimiser(spec, networks)
    found = {id(one): group["pace"] for group in optimiser.param_groups for one in group["params"]}
    assert sum(len(group["params"]) for group in optimiser.param_groups) == len(found)
    for name, one in networks.named_parameters():
        pace = 0.1 if ".pretrained." in name else 0.5 if "fusions" in name else 1.0
        assert (found.get(id(one)) == pace) if one.requires_grad else id(one) not in found


def test_a_copy_of_the_network_is_whole(tmp_path: Path) -> None:
    student = make_method(spec_with(save_image_encoder(tmp_path / "tiny", "dinov2")), 16).student.eval()
    images = torch.randn(1, 3, 64, 64)
    assert torch.equal(copy.deepcopy(student)(images).logits, student(images).logits)


def test_a_run_records_which_encoder_and_finds_it_by_its_hash(filled: Study, tmp_path: Path) -> None:
    folder = save_image_encoder(tmp_path / "tiny", "convnext")
    spec = with_encoder(filled, tiny("partial", **COMPACT), folder)
    assert (spec.encoder, spec.encoder_sha256) == ("tiny", sha256_of(folder / "model.safetensors"))
    assert "id2label" not in spec.encoder_config["config"]
    assert RunSpec.from_json(json.loads(json.dumps(spec.to_json()))) == spec
    assert remembered_folder(spec.encoder_sha256, "image") == folder
    assert remembered_folder(spec.encoder_sha256) is None
    assert folders_job(spec) == {"image_encoder_folder": str(folder)}
    result = steps.train(filled, spec)
    assert result.iterations == spec.iterations
    (folder / "model.safetensors").unlink()
    save_image_encoder(folder, "convnext", seed=1)
    with pytest.raises(UserError, match="no longer holds the encoder tiny"):
        steps.train(filled, spec)
    shutil.rmtree(folder)
    with pytest.raises(UserError, match="is not on this computer"):
        steps.train(filled, spec)
    assert steps.predict(filled, result.run).images == len(filled.images)


def test_the_command_line_takes_an_encoder(
    filled: Study, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = save_image_encoder(tmp_path / "tiny", "resnet")
    (tmp_path / "spec.json").write_text(json.dumps(tiny("partial", **COMPACT).to_json()))
    options = [
        "--config",
        str(tmp_path / "spec.json"),
        "--encoder-rate",
        "0",
        "--encoder-frozen",
        "2",
        "--json",
    ]
    assert run_command(["train", str(filled.folder), "--encoder", str(folder), *options]) == 0
    run = RunFolder(filled.runs_folder / json.loads(capsys.readouterr().out)["run"])
    assert (run.spec.encoder, run.spec.encoder_learning_rate, run.spec.encoder_frozen_stages) == (
        "tiny",
        0.0,
        2,
    )
    # A name of the hub is not asked for without permission, and no run is made.
    assert run_command(["train", str(filled.folder), "--encoder", "lab/no-such-encoder", *options]) == 1
    assert "downloading that model is not permitted" in capsys.readouterr().err
    assert filled.run_ids() == [run.id]


def test_a_comparison_takes_encoders(
    filled: Study, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = save_image_encoder(tmp_path / "tiny", "resnet")
    last = list(filled.images.values())[-2:]
    filled.add_images(dataclasses.replace(image, split="test") for image in last)
    (tmp_path / "variants.json").write_text(json.dumps({"pretrained": {"method": "partial"}}))
    values = {**tiny().to_json(), **COMPACT}
    settings = [f"--set={name}={json.dumps(values[name])}" for name in (*TINY, *COMPACT) if name != "targets"]
    command = ["compare", str(filled.folder), "--variants", str(tmp_path / "variants.json"), "--seeds", "0"]
    assert run_command([*command, *settings, "--encoder", str(folder), "--json"]) == 0
    [cell] = json.loads(capsys.readouterr().out)["cells"]
    spec = RunFolder(filled.runs_folder / cell["run"]).spec
    assert spec.encoder_sha256 == sha256_of(folder / "model.safetensors")
    # Another method cannot begin with one, and is told apart by its name.
    assert run_command([*command, "--methods", "gaze-track", "--encoder", str(folder)]) == 1
    assert "Variant 'gaze-track': " in capsys.readouterr().err
    assert len(filled.run_ids()) == 1


def test_cells_differ_by_their_encoders_weights(filled: Study, tmp_path: Path) -> None:
    first, second = (
        save_image_encoder(tmp_path / str(seed) / "tiny", "resnet", seed=seed) for seed in (0, 1)
    )
    variants = {
        "own": {"encoder": ""},
        "pretrained": {},
        "other weights": {"encoder": str(second)},
        "the same": {"encoder": str(first), "method": "partial"},
    }
    plan = make_plan(
        variants=variants,
        changes={**COMPACT, "method": "partial", "split": "train", "encoder": str(first)},
        find_encoder=lambda name: backbones.examine(Path(name)),
        split="unseen",
        seeds=(0,),
    )
    filled.add_images([dataclasses.replace(next(iter(filled.images.values())), split="unseen")])
    own, pretrained, other, same = cells_of(filled, plan)
    assert own.spec.encoder == "" and pretrained.spec.encoder == other.spec.encoder == "tiny"
    assert len({own.key, pretrained.key, other.key}) == 3 and same.key == pretrained.key
    # A stored spec is taken as it is: its folder may be elsewhere by now.
    stored = make_plan(variants={"stored": pretrained.spec.to_json()}, split="unseen", seeds=(0,))
    assert cells_of(filled, stored)[0].key == pretrained.key


def test_where_timm_is_not_installed_the_extra_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "timm", None)
    folder = save_image_encoder(tmp_path / "tiny", "resnet")
    about = {"architecture": "resnet18", "pretrained_cfg": {"mean": [0.5] * 3, "std": [0.5] * 3}}
    (folder / "config.json").write_text(json.dumps(about))
    with pytest.raises(UserError, match=r"an extra: pip install 'gaze-insight\[timm\]'"):
        backbones.examine(folder)


def _config(**changes: Any) -> Callable[[Path], None]:
    def change(folder: Path) -> None:
        path = folder / "config.json"
        path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))

    return change


def _processor(values: Any) -> Callable[[Path], object]:
    return lambda folder: (folder / "preprocessor_config.json").write_text(json.dumps(values))


def _truncate(folder: Path) -> None:
    path = folder / "model.safetensors"
    path.write_bytes(path.read_bytes()[:-100])


def _pickled(folder: Path) -> None:
    (folder / "model.safetensors").unlink()
    (folder / "pytorch_model.bin").write_bytes(pickle.dumps({"weight": 1}))


def _changed(change: Callable[[str, Any], Any]) -> Callable[[Path], None]:
    def harm(folder: Path) -> None:
        from safetensors.numpy import load_file, save_file

        path = folder / "model.safetensors"
        changed = {name: change(name, one) for name, one in load_file(path).items()}
        save_file({name: one for name, one in changed.items() if one is not None}, path, {"format": "pt"})

    return harm


@pytest.mark.parametrize(
    ("harm", "sentence"),
    [
        (shutil.rmtree, "There is no model folder"),
        (lambda folder: (folder / "config.json").unlink(), "has no config.json"),
        (lambda folder: (folder / "config.json").write_text("{"), "config.json"),
        (lambda folder: (folder / "preprocessor_config.json").unlink(), "has no preprocessor_config.json"),
        (_truncate, "is damaged"),
        (_pickled, "a pickle, which can run any program"),
        (
            _changed(lambda name, one: None if "layers.0" in name else one),
            "lacks weights that its config.json",
        ),
        (_changed(lambda name, one: np.full_like(one, np.nan) if one.ndim else one), "not finite numbers"),
        (_config(hidden_sizes=[8, 12, 16, 32]), "do not fit its config.json"),
        (_config(depths=[1, 1, 1], hidden_sizes=[8, 12, 16]), "has 3 stages"),
        (_config(num_channels=4), "reads images of 4 channels"),
        (_config(model_type="bert"), "holds a model of the kind 'bert'"),
        (_config(model_type="own", auto_map={"AutoBackbone": "code.Model"}), "of the kind 'own'"),
        (_config(depths="many"), "is no encoder that can be used"),
        (_processor({"do_normalize": True}), "does not say by what mean"),
        (_processor({"image_mean": [0.5], "image_std": [0]}), "does not say by what mean"),
        (_processor([1]), "does not say by what mean"),
        (_processor({"image_mean": [0.5, 0.5], "image_std": [1, 1]}), "normalises 2 channels"),
    ],
)
def test_a_folder_that_cannot_be_used_is_refused_in_one_sentence(
    tmp_path: Path, harm: Callable[[Path], Any], sentence: str
) -> None:
    folder = save_image_encoder(tmp_path / "tiny", "resnet")
    (folder / "code.py").write_text(f"open({str(tmp_path / 'ran')!r}, 'w')\n")
    harm(folder)
    with pytest.raises(UserError) as refusal:
        backbones.examine(folder)
    told = str(refusal.value)
    assert sentence in told and str(folder) in told and "\n" not in told
    assert not (tmp_path / "ran").exists()


def test_a_text_encoder_or_another_vision_model_is_no_image_encoder(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="of the kind 'vit'"):
        backbones.examine(save_image_encoder(tmp_path / "vit", "vit"))


def test_too_little_memory_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object, **__: object) -> None:
        raise RuntimeError("[enforce fail] can't allocate memory: you tried to")

    folder = save_image_encoder(tmp_path / "tiny", "resnet")
    monkeypatch.setattr(transformers.ResNetBackbone, "from_pretrained", fail)
    with pytest.raises(UserError, match="Memory does not suffice"):
        backbones.examine(folder)


def test_presets_and_specs_with_an_encoder(tmp_path: Path) -> None:
    fields = backbones.examine(save_image_encoder(tmp_path / "tiny", "resnet"))
    # The reference widths end at 1/16: the last is repeated for 1/32.
    student = make_method(preset("partial", "reference", targets=("target",), **fields), 0).student
    assert student(torch.randn(1, 3, 64, 64)).features[-1].shape == (1, 512, 2, 2)
    wrong: tuple[dict[str, Any], ...] = (
        {"encoder_learning_rate": -1.0},
        {"encoder_config": {}},
        {"encoder_frozen_stages": 5},
    )
    for changes in wrong:
        with pytest.raises(UserError, match=next(iter(changes))):
            preset("partial", "cpu", **{**fields, **changes})
    spec = dataclasses.replace(
        preset("partial", "cpu", **fields), encoder_config={"config": {"model_type": "x"}}
    )
    with pytest.raises(UserError, match="run's encoder"):
        make_method(dataclasses.replace(spec, targets=("target",)), 0)
