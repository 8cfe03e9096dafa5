"""Checkpoints as the public code of From Gaze to Insight writes them: names, shapes and arithmetic as published.

The networks below are built here under the published names (MONAI is not installed), with random weights.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from app.cli import run_command
from gaze_capture.errors import UserError
from gaze_capture.storage import sha256_of
from segmentation import checkpoint_import as importing
from segmentation import public_network
from segmentation.augmentation import standardised
from segmentation.checkpoint_import import _read, import_checkpoint
from segmentation.images import resize
from segmentation.networks import Text
from segmentation.predictor import Predictor
from segmentation.presets import preset
from segmentation.public_network import PublicStudent, PublicTeacher
from segmentation.runs import RunFolder
from segmentation.study import Study
from segmentation.targets import add_target
from tests.training_helpers import make_study

SMALL_STUDENT, SMALL_TEACHER = (4, 8, 16, 32, 64), (8, 16, 32, 64, 128)
SMALL_LAST = {SMALL_STUDENT: 4, SMALL_TEACHER: 8}
SIDE, TEXT_WIDTH = 32, 12


class Adn(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        self.N = nn.GroupNorm(4, width)


class Convolution(nn.Module):
    def __init__(self, before: int, after: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(before, after, 3, padding=1)
        self.adn = Adn(after)

    def forward(self, x: Tensor) -> Tensor:
        return functional.leaky_relu(self.adn.N(self.conv(x)), 0.1)


def named(**parts: nn.Module) -> nn.Module:
    module = nn.Module()
    for name, part in parts.items():
        module.add_module(name, part)
    return module


def two(before: int, after: int) -> nn.Sequential:
    convolutions = nn.Sequential()
    convolutions.add_module("conv_0", Convolution(before, after))
    convolutions.add_module("conv_1", Convolution(after, after))
    return convolutions


class Published(nn.Module):
    """Either network; the teacher has text."""

    def __init__(
        self, widths: tuple[int, ...], last: int, channels: int, *, head: int = 16, teacher: bool
    ) -> None:
        super().__init__()
        self.teacher = teacher
        unet: dict[str, nn.Module] = {"conv_0": two(channels, widths[0])}
        for scale in range(1, 5):
            unet[f"down_{scale}"] = named(convs=two(widths[scale - 1], widths[scale]))
        for scale in range(1, 5):
            wide, narrow = widths[scale], widths[scale - 1]
            up, out = (wide, last) if scale == 1 else (wide // 2, narrow)
            unet[f"upcat_{scale}"] = named(
                upsample=named(deconv=nn.ConvTranspose2d(wide, up, 2, 2)), convs=two(narrow + up, out)
            )
        unet["final_conv"] = nn.Conv2d(last, head, 1)
        self.encoder = named(**unet)
        self.head = nn.Sequential(nn.Conv2d(head, head, 1), nn.LeakyReLU(0.1), nn.Conv2d(head, head, 1))
        self.classifier = nn.Conv2d(head, 2, 1)
        for scale, width in enumerate(widths[1:], 1):
            projection = nn.Sequential(
                nn.Conv2d(width, width, 1), nn.BatchNorm2d(width), nn.ReLU(),
                nn.Conv2d(width, width, 1), nn.BatchNorm2d(width),
            )  # fmt: skip
            self.add_module(f"distill_proj_x{scale}", named(proj=projection))
            if teacher:
                fusion = named(
                    attn=nn.MultiheadAttention(width, 8),
                    text_proj=nn.Linear(TEXT_WIDTH, width),
                    norm=nn.LayerNorm(width),
                )
                side = SIDE // 2**scale
                fusion.pos_embedding = nn.Parameter(torch.randn(side * side, width) * 0.02)
                self.add_module(f"fusion_x{scale}", fusion)
            else:
                theirs = SMALL_TEACHER[scale] if widths == SMALL_STUDENT else 2 * width
                self.add_module(
                    f"student_adapter_x{scale}",
                    nn.Sequential(nn.Conv2d(width, theirs, 1), nn.BatchNorm2d(theirs), nn.ReLU()),
                )

    def forward(self, x: Tensor, text: Tensor | None = None) -> tuple[Tensor, list[Tensor]]:
        part = dict(self.named_modules())
        features = [part["encoder.conv_0"](x)]
        for scale in range(1, 5):
            features.append(part[f"encoder.down_{scale}.convs"](functional.max_pool2d(features[-1], 2)))
        told = []
        for scale in range(1, 5):
            feature = features[scale]
            if text is not None:
                fusion = part[f"fusion_x{scale}"]
                rows = feature.flatten(2).permute(2, 0, 1) + fusion.pos_embedding[:, None]
                words = fusion.text_proj(text).permute(1, 0, 2)
                rows = fusion.norm(rows + fusion.attn(rows, words, words)[0])
                fused = feature + rows.permute(1, 2, 0).reshape(feature.shape)
                told.append(part[f"distill_proj_x{scale}"].proj(fused))
                features[scale] = feature + told[-1]
            else:
                told.append(part[f"student_adapter_x{scale}"](part[f"distill_proj_x{scale}"].proj(feature)))
        result = features[4]
        for scale in range(4, 0, -1):
            up = part[f"encoder.upcat_{scale}"]
            result = up.convs(torch.cat([features[scale - 1], up.upsample.deconv(result)], 1))
        return self.classifier(self.head(part["encoder.final_conv"](result))), told


def shaken(network: nn.Module, seed: int) -> nn.Module:
    """Give norms, too, weights and statistics of their own."""
    generator = torch.Generator().manual_seed(seed)
    for one in network.state_dict().values():
        if one.is_floating_point():
            one += 0.1 * torch.rand(one.shape, generator=generator)
    return network.eval()


@pytest.fixture
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    """Make the published networks narrow."""
    values = {
        "STUDENT_WIDTHS": SMALL_STUDENT,
        "TEACHER_WIDTHS": SMALL_TEACHER,
        "LAST": SMALL_LAST,
        "HEAD_WIDTH": 16,
    }
    for name, value in values.items():
        monkeypatch.setattr(public_network, name, value)
    for module in (public_network, importing):
        monkeypatch.setattr(module, "SIDE", SIDE)


@pytest.fixture
def filled(tmp_path: Path, image_folder: Path) -> Study:
    return make_study(tmp_path / "filled", image_folder)


def pair(channels: int = 3) -> tuple[Published, Published]:
    torch.manual_seed(0)
    teacher = Published(SMALL_TEACHER, 8, channels, teacher=True)
    student = Published(SMALL_STUDENT, 4, channels, teacher=False)
    shaken(teacher, 1)
    shaken(student, 2)
    return teacher, student


def saved(path: Path, *networks: nn.Module, **more: Any) -> Path:
    values = {
        "model_state_dicts": [one.state_dict() for one in networks],
        "opt_state_dicts": [torch.optim.SGD(one.parameters(), 0.1, 0.9).state_dict() for one in networks],
        "epoch": 3,
        "iteration": 120,
        # The mean of NumPy numbers, as their validation gives it.
        "best_performance": np.mean(np.array([0.5, 0.7], np.float32)),
        "best_iteration": 100,
        **more,
    }
    torch.save(values, path)
    return path


def normalised(pixels: Any, channels: int) -> Tensor:
    """Return what the public code shows its networks."""
    values = torch.from_numpy(pixels.transpose(2, 0, 1)[None]).double()
    if channels == 1:
        grey = values.mean(1, keepdim=True)
        return ((grey - grey.mean()) / grey.std(correction=0)).float()
    mean, std = (torch.tensor(one).view(1, 3, 1, 1) for one in ([0.485, 0.456, 0.406], [0.229, 0.224, 0.225]))
    return ((values / 255 - mean) / std).float()


@pytest.mark.usefixtures("small")
@pytest.mark.parametrize("channels", [3, 1])
def test_both_networks_say_what_the_public_code_says(filled: Study, tmp_path: Path, channels: int) -> None:
    teacher, student = pair(channels)
    path = saved(tmp_path / "model_best.pth", teacher, student)
    made = import_checkpoint(filled, path, run_id="theirs")
    assert made == {
        "run": "theirs",
        "networks": ["student", "teacher"],
        "channels": channels,
        "iteration": 120,
        "target": "target",
    }
    run = RunFolder(filled.runs_folder / "theirs")
    assert run.state() == "done" and run.spec.notes["sha256"] == sha256_of(path)
    predictor = Predictor(run, flip_average=False)
    pixels = np.random.default_rng(0).integers(0, 256, (SIDE, SIDE, 3), np.uint8)
    text = torch.randn(1, 3, TEXT_WIDTH)
    shown = normalised(pixels, channels)
    with torch.inference_mode():
        expected, told = student(shown)
        their_student, their_teacher = predictor.network("student"), predictor.network("teacher")
        assert isinstance(their_student, PublicStudent) and isinstance(their_teacher, PublicTeacher)
        found = their_student(standardised(pixels[None]))
        assert expected.std() > 1e-2
        assert torch.allclose(found.logits, expected[:, 1:], atol=1e-4)
        adapted = their_student.adapt(found.features)
        assert all(
            torch.allclose(one, other, rtol=1e-3, atol=1e-3) for one, other in zip(adapted, told, strict=True)
        )
        # A padded token changes nothing.
        padded = Text(
            torch.cat([text, torch.ones(1, 1, TEXT_WIDTH)], 1), torch.tensor([[True] * 3 + [False]])
        )
        expected, told = teacher(shown, text)
        found = their_teacher(standardised(pixels[None]), padded)
        assert torch.allclose(found.logits, expected[:, 1:], atol=1e-4)
        assert all(
            torch.allclose(one, other, rtol=1e-3, atol=1e-3)
            for one, other in zip(found.features, told, strict=True)
        )
        silent = Text(padded.tokens, torch.zeros_like(padded.valid))
        assert torch.isfinite(their_teacher(standardised(pixels[None]), silent).logits).all()
        for weights in their_teacher.attention(standardised(pixels[None]), padded):
            assert torch.allclose(weights.sum(1), torch.ones(()), atol=1e-5) and not weights[:, -1].any()
    [probability] = predictor.predict([resize(pixels, 50, 40)])
    assert probability.shape == (1, 50, 40)
    with pytest.raises(UserError, match="reads 12 numbers a token"):
        their_teacher(standardised(pixels[None]), Text(torch.zeros(1, 2, 5), padded.valid[:, :2]))


@pytest.mark.usefixtures("small")
def test_a_students_weights_alone_are_enough(filled: Study, tmp_path: Path) -> None:
    _, student = pair()
    parallel = {f"module.{name}": one for name, one in student.state_dict().items()}
    for number, values in enumerate((student.state_dict(), {"state_dict": parallel})):
        torch.save(values, tmp_path / "student.pth")
        made = import_checkpoint(filled, tmp_path / "student.pth", run_id=f"s{number}")
        assert made["networks"] == ["student"] and made["iteration"] == 0
        assert Predictor(RunFolder(filled.runs_folder / f"s{number}")).spec.method == "partial"


def test_the_command_makes_a_run_that_predicts(
    filled: Study, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    torch.manual_seed(0)
    student = Published((32, 64, 128, 256, 512), 32, 1, head=128, teacher=False)
    torch.save(student.state_dict(), tmp_path / "student.pth")
    command = ["import-checkpoint", str(filled.folder), str(tmp_path / "student.pth"), "--as", "published"]
    assert run_command([*command, "--json"]) == 0
    made = json.loads(capsys.readouterr().out)
    assert (made["run"], made["channels"]) == ("published", 1)
    assert run_command(command) == 1
    assert "has a run 'published' already" in capsys.readouterr().err
    assert run_command(["predict", str(filled.folder), "--run", "published", "--json"]) == 0
    assert len(filled.prediction_keys("published")) == len(filled.images)


def _truncated(path: Path) -> None:
    data = path.read_bytes()
    path.write_bytes(data[: len(data) // 2])


def _of(change: Callable[[dict[str, Any]], Any]) -> Callable[[Path], None]:
    def harm(path: Path) -> None:
        values = _read(path)
        change(values["model_state_dicts"][1])
        torch.save(values, path)

    return harm


class Evil:
    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> Any:
        return open, (str(self.path), "w")


@pytest.mark.usefixtures("small")
@pytest.mark.parametrize(
    ("harm", "sentence"),
    [
        (lambda path: path.unlink(), "There is no file"),
        (lambda path: path.write_bytes(b""), "is empty"),
        (_truncated, "damaged or cut short"),
        (lambda path: path.write_bytes(b"no checkpoint at all"), "damaged or cut short"),
        (lambda path: torch.save({"x": Evil(path.with_name("ran"))}, path), "asks for more than weights"),
        (
            lambda path: torch.save(
                {"x": Evil(path.with_name("ran"))}, path, _use_new_zipfile_serialization=False
            ),
            "asks for more than weights",
        ),
        (lambda path: torch.save(nn.Linear(2, 2), path), "asks for more than weights"),
        (lambda path: torch.save([torch.ones(2)], path), "it is no checkpoint of the public code"),
        (
            lambda path: torch.save(nn.Linear(2, 2).state_dict(), path),
            "it is no checkpoint of the public code",
        ),
        (lambda path: torch.save({"model_state_dicts": [{}]}, path), "student is missing"),
        (_of(lambda state: state.pop("classifier.weight")), "no weights classifier.weight"),
        (_of(lambda state: state.pop("encoder.conv_0.conv_0.conv.weight")), "first layers are missing"),
        (_of(lambda state: state.pop("encoder.down_3.convs.conv_1.conv.bias")), "1 weights are missing"),
        (
            _of(
                lambda state: state.update(
                    {"encoder.down_1.convs.conv_0.conv.weight": torch.ones(8, 9, 3, 3)}
                )
            ),
            "shape",
        ),
        (_of(lambda state: state.update(extra=torch.ones(1))), "weights named extra"),
        (_of(lambda state: state.update(extra="text")), "it is no checkpoint of the public code"),
        (
            _of(
                lambda state: state.update(
                    {n: state[n][:1] for n in ("classifier.weight", "classifier.bias")}
                )
            ),
            "has 1 classes",
        ),
        (
            _of(lambda state: state["encoder.conv_0.conv_0.conv.bias"].fill_(float("nan"))),
            "not finite numbers",
        ),
    ],
)
def test_what_is_no_such_checkpoint_is_refused_and_nothing_is_made(
    filled: Study, tmp_path: Path, harm: Callable[[Path], Any], sentence: str
) -> None:
    path = saved(tmp_path / "model.pth", *pair())
    harm(path)
    with pytest.raises(UserError, match=sentence) as refusal:
        import_checkpoint(filled, path)
    told = str(refusal.value)
    assert str(path) in told and "\n" not in told
    assert not (tmp_path / "ran").exists() and not filled.run_ids()


@pytest.mark.usefixtures("small")
def test_names_and_targets_are_checked(filled: Study, tmp_path: Path) -> None:
    path = saved(tmp_path / "model.pth", *pair())
    with pytest.raises(UserError, match="A run's name has letters"):
        import_checkpoint(filled, path, run_id="../out")
    add_target(filled, "second")
    with pytest.raises(UserError, match="--target ID"):
        import_checkpoint(filled, path)
    made = import_checkpoint(filled, path, target="second")
    assert RunFolder(filled.runs_folder / made["run"]).spec.targets == ("second",)


def test_the_published_networks_have_the_published_sizes() -> None:
    from segmentation.methods import make_method
    from segmentation.networks import count_parameters

    spec = preset("gaze-to-insight", "reference", targets=("target",), architecture="fgi-public")
    networks = make_method(spec, 768).networks
    theirs = Published((32, 64, 128, 256, 512), 32, 3, head=128, teacher=False)
    # Folding takes two 1x1 convolutions, and the background's logit, off the head.
    folded = sum(
        one.numel()
        for name, one in theirs.named_parameters()
        if name.startswith(("head", "classifier", "encoder.final"))
    )
    assert count_parameters(networks["student"]) == count_parameters(theirs) - folded + (33 * 128) + 129
    for changes in ({"targets": ("a", "b")}, {"architecture": "theirs"}):
        with pytest.raises(UserError, match="architecture"):
            preset("partial", "reference", **{"architecture": "fgi-public", **changes})
