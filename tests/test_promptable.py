"""A promptable segmenter: a real Segment Anything model, small enough to be made here, asked through the program."""

from __future__ import annotations

import json
from pathlib import Path

import cv2
import numpy as np
import numpy.typing as npt
import pytest
import torch
import transformers

from app.cli import run_command
from gaze_capture.errors import UserError
from gaze_capture.fixations import Fixations
from segmentation import steps
from segmentation.promptable import PromptableSegmenter
from segmentation.prompts import prompts_of
from segmentation.pseudomask import PseudoMaskSettings
from segmentation.study import Study

SIDE = 64


def tiny_config() -> transformers.SamConfig:
    vision = {
        "hidden_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2, "image_size": SIDE, "patch_size": 8,
        "output_channels": 32, "mlp_dim": 64, "window_size": 4, "global_attn_indexes": [0], "num_pos_feats": 16,
    }  # fmt: skip
    prompt = {"hidden_size": 32, "image_size": SIDE, "patch_size": 8, "mask_input_channels": 4}
    decoder = {
        "hidden_size": 32, "mlp_dim": 64, "num_hidden_layers": 2, "num_attention_heads": 2,
        "iou_head_hidden_dim": 16, "attention_downsample_rate": 1,
    }  # fmt: skip
    return transformers.SamConfig(
        vision_config=vision, prompt_encoder_config=prompt, mask_decoder_config=decoder
    )


def disc(
    rng: np.random.Generator, shape: tuple[int, int] = (SIDE, SIDE), discs: int = 2
) -> tuple[npt.NDArray[np.uint8], npt.NDArray[np.bool_]]:
    """Draw bright discs on a dark ground: the picture (H, W, 3), and the mask (discs, H, W) of each."""
    height, width = shape
    rows, columns = np.mgrid[0:height, 0:width]
    pixels = np.full((height, width), 60.0)
    masks = []
    for number in range(discs):
        # Each in its own part of the picture, so that no two touch.
        x = (number + rng.uniform(0.42, 0.58)) * width / discs
        y = rng.uniform(0.35, 0.65) * height
        radius = rng.uniform(0.16, 0.2) * min(height, width * 2 / discs)
        masks.append((rows - y) ** 2 + (columns - x) ** 2 < radius**2)
        pixels[masks[-1]] = 200
    noisy = np.clip(pixels + rng.normal(0, 6, pixels.shape), 0, 255).astype(np.uint8)
    return np.repeat(noisy[..., None], 3, axis=2), np.stack(masks)


def processor() -> transformers.SamProcessor:
    return transformers.SamProcessor(
        transformers.SamImageProcessor(
            size={"longest_edge": SIDE},
            pad_size={"height": SIDE, "width": SIDE},
            mask_size={"longest_edge": SIDE // 2},
            mask_pad_size={"height": SIDE // 2, "width": SIDE // 2},
        )
    )


@pytest.fixture(scope="module")
def tiny_sam(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Train for some seconds: points on a disc mean the bright discs. Which of them is too much to learn here."""
    torch.manual_seed(0)
    torch.set_num_threads(1)
    rng = np.random.default_rng(0)
    model = transformers.SamModel(tiny_config())
    prepare = processor()
    optimiser = torch.optim.AdamW(model.parameters(), lr=3e-3)
    model.train()
    for step in range(160):
        pixels, points, targets = [], [], []
        for _ in range(8):
            image, masks = disc(rng)
            own = masks[rng.integers(len(masks))]
            places = rng.permutation(np.argwhere(own))[:4, ::-1]
            pixels.append(image)
            points.append([places.astype(float).tolist()])
            bright: npt.NDArray[np.float32] = np.asarray(masks.any(axis=0), dtype=np.float32)
            targets.append(cv2.resize(bright, (32, 32), interpolation=cv2.INTER_AREA))
        ready = prepare(images=pixels, input_points=points, return_tensors="pt")
        answer = model(
            pixel_values=ready["pixel_values"],
            input_points=ready["input_points"].float(),
            multimask_output=True,
        )
        target = torch.tensor(np.stack(targets))[:, None, None].expand_as(answer.pred_masks)
        loss = torch.nn.functional.binary_cross_entropy_with_logits(answer.pred_masks, target)
        optimiser.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        optimiser.step()
        if step == 110:
            optimiser.param_groups[0]["lr"] = 1e-3
    folder = tmp_path_factory.mktemp("models") / "tiny-sam"
    model.eval().save_pretrained(folder)
    prepare.save_pretrained(folder)
    return folder


def dice(a: npt.NDArray[np.bool_], b: npt.NDArray[np.bool_]) -> float:
    return float(2 * (a & b).sum() / (a.sum() + b.sum()))


@pytest.mark.parametrize("shape", [(64, 64), (90, 130), (300, 200)])
def test_equals_transformers_and_knows_the_image_grid(tiny_sam: Path, shape: tuple[int, int]) -> None:
    rng = np.random.default_rng(3)
    image, masks = disc(rng, shape)
    points = [np.argwhere(own)[[5, -5]][:, ::-1].astype(float) for own in masks]
    segmenter = PromptableSegmenter(tiny_sam)
    found = segmenter.masks((image / 255).astype(np.float32), points)

    model = transformers.SamModel.from_pretrained(tiny_sam).eval()
    prepare = transformers.SamProcessor.from_pretrained(tiny_sam)
    for one, prompt in zip(found, points, strict=True):
        ready = prepare(images=image, input_points=[[prompt.tolist()]], return_tensors="pt")
        with torch.no_grad():
            answer = model(
                pixel_values=ready["pixel_values"], input_points=ready["input_points"].float(), multimask_output=True
            )  # fmt: skip
        [logits] = prepare.post_process_masks(
            answer.pred_masks, ready["original_sizes"], ready["reshaped_input_sizes"], binarize=False
        )
        assert one.shape == (3, *shape)
        np.testing.assert_allclose(one, torch.sigmoid(logits[0]).numpy(), atol=1e-6)
    # The points matter, if little.
    assert np.abs(found[0] - found[1]).max() > 1e-5


def test_each_region_has_a_prompt_and_points_are_the_longest_fixations() -> None:
    heatmap = np.zeros((40, 60), dtype=np.float32)
    heatmap[10:20, 10:20] = 1
    heatmap[30:35, 40:50] = 0.6
    xy = np.array([[12.0, 12], [15, 15], [18, 18], [45, 32], [2, 2]])
    durations = np.array([100.0, 800, 100, 300, 5000])
    both = prompts_of(xy, durations, heatmap, np.array([0, 0, 0, 1, -1]))
    assert [prompt.tolist() for prompt in both] == [[[15, 15]], [[45, 32]]]
    # Where no region is told apart, all fixations are one prompt, but those that were away.
    [together] = prompts_of(xy, durations, heatmap, np.full(5, -1))
    assert together.tolist() == [[15, 15], [45, 32]]


def make_study(folder: Path, *, grey: bool = False) -> tuple[Study, dict[str, npt.NDArray[np.bool_]]]:
    """Make a study of six pictures of two discs, both looked at and a little around."""
    rng = np.random.default_rng(9)
    study = Study.create(folder / "study")
    pictures, looks = folder / "pictures", []
    truth: dict[str, npt.NDArray[np.bool_]] = {}
    pictures.mkdir()
    for number in range(6):
        image, masks = disc(rng, (96, 120))
        name = f"image-{number}"
        cv2.imwrite(str(pictures / f"{name}.png"), image[..., 0] if grey else image)
        truth[name] = np.asarray(masks.any(axis=0))
        xy = np.concatenate([rng.permutation(np.argwhere(own))[:6, ::-1] for own in masks]).astype(float)
        looks.append(
            Fixations(name, "target", "ann", "import-1", np.linspace(0, 3300, 12), rng.uniform(150, 400, 12), xy,
                      np.full(12, np.nan), "imported")
        )  # fmt: skip
    steps.import_images(study, [pictures])
    study.save_fixations("import-1", looks, imported=True)
    return study, truth


@pytest.mark.parametrize("grey", [False, True])
def test_fixations_prompt_it_through_the_worker(tiny_sam: Path, tmp_path: Path, grey: bool) -> None:
    study, truth = make_study(tmp_path, grey=grey)
    seen = []
    report = steps.make_pseudomasks(
        study, segmenter=tiny_sam, progress=lambda done, total, label: seen.append((done, total))
    )
    assert (report.made, report.failed, report.waiting) == (6, (), 0)
    assert seen[-1] == (6, 6)
    settings = Study.open(study.folder).pseudomask_settings
    assert settings == study.pseudomask_settings
    assert settings.refine == "sam" and settings.segmenter.startswith("tiny-sam-")
    scores: dict[str, list[float]] = {"sam": [], "none": []}
    for name, mask in truth.items():
        made = study.pseudomask(name, "target")
        assert made is not None and made.refiner == "sam" and len(made.notes["prompts"]) >= 2
        assert made.thresholds == (0.6, 0.4)
        assert (made.masks[0] <= made.masks[1]).all()
        scores["sam"].append(dice(made.masks[1], mask))
    # The folder is remembered: the next time, the settings alone do.
    study.remove_pseudomask("image-0", "target")
    assert steps.make_pseudomasks(study).made == 6
    steps.make_pseudomasks(study, settings=PseudoMaskSettings(refine="none"))
    for name, mask in truth.items():
        made = study.pseudomask(name, "target")
        assert made is not None
        scores["none"].append(dice(made.masks[1], mask))
    assert np.mean(scores["sam"]) > 0.8, scores
    assert np.mean(scores["sam"]) > np.mean(scores["none"]) + 0.1, scores


def test_what_cannot_be_used_is_refused_and_settings_stay(tiny_sam: Path, tmp_path: Path) -> None:
    study, _ = make_study(tmp_path)
    before = study.pseudomask_settings

    def refused(folder: Path | None, settings: PseudoMaskSettings | None = None) -> str:
        with pytest.raises(UserError) as error:
            steps.make_pseudomasks(study, segmenter=folder, settings=settings)
        assert Study.open(study.folder).pseudomask_settings == study.pseudomask_settings == before
        return str(error.value)

    assert "--segmenter" in refused(None, PseudoMaskSettings(refine="sam"))
    unknown = PseudoMaskSettings(refine="sam", segmenter="other-12345678")
    assert "other-12345678" in refused(None, unknown)
    assert "no model folder" in refused(tmp_path / "nowhere")

    pickled = tmp_path / "pickled"
    pickled.mkdir()
    for path in tiny_sam.iterdir():
        if path.suffix == ".json":
            (pickled / path.name).write_bytes(path.read_bytes())
    (pickled / "pytorch_model.bin").write_bytes(b"\x80\x04.")
    assert "pickle" in refused(pickled)

    other = tmp_path / "other"
    other.mkdir()
    for path in tiny_sam.iterdir():
        (other / path.name).write_bytes(path.read_bytes())
    config = json.loads((other / "config.json").read_text())
    (other / "config.json").write_text(json.dumps({**config, "model_type": "bert"}))
    assert "cannot be asked with points" in refused(other)


def test_a_segmenter_goes_with_its_own_refiner_alone(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    study, _ = make_study(tmp_path)
    line = ["pseudomask", str(study.folder), "--refine", "none", "--segmenter", str(tmp_path)]
    assert run_command(line) == 1
    assert "leave one of them out" in capsys.readouterr().err
