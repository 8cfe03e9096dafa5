"""Named recipes: a method's numbers for the paper's budget, a laptop, the demo."""

from __future__ import annotations

from typing import Any

from gaze_capture.errors import UserError
from segmentation.job import RunSpec

METHODS = ("gaze-to-insight", "gaze-multilevel", "gaze-track", "partial", "supervised")
"""Methods that can be trained (`segmentation.methods`): the paper's, its forerunner GazeMedSeg, an approximation of
GradTrack, and one network alone with the gaze's labels or with true masks."""

ARCHITECTURES = ("own", "fgi-public", "fgi-public-grey")
TEXTS = ("explanation", "none", "shuffled", "area-only", "empty")

PUBLIC_CODE: dict[str, Any] = {
    # Every pixel has a label: the highest level alone is foreground to the teacher.
    "teacher_levels": (0, 0),
    "student_levels": (-1, -1),
    "darm_from": "labels",
    "darm_label": "background",
    "text_strength": 1.0,
    "text_strength_fixed": True,
    "cwc_logit_scale": 2.0,
    "afc_weight": 0.05,
    "afc_rectified": True,
}
"""Where the code published with From Gaze to Insight learns otherwise than the paper says; holds under any budget."""

_REFERENCE: dict[str, Any] = {
    # From Gaze to Insight (IEEE TMI 2025), the published scripts' optimiser; needs a GPU.
    "image_size_px": 224,
    "batch_size": 8,
    "iterations": 15000,
    "student_widths": (32, 64, 128, 256, 512),
    "teacher_widths": (64, 128, 256, 512, 1024),
    "optimiser": "sgd",
    "learning_rate": 1e-2,
    "final_learning_rate": 1e-4,
    "weight_decay": 4e-4,
    "warmup": 0.0,
    "augmentation": "flips",
    "views": "two",
}

_PRESETS: dict[str, dict[str, Any]] = {
    "reference": _REFERENCE,
    "fgi-public-code": {**_REFERENCE, **PUBLIC_CODE},
    # A compact pair for a laptop's processor: fourteen minutes of training, whatever its speed.
    "cpu": {
        "image_size_px": 160,
        "batch_size": 8,
        "iterations": 12000,
        "max_minutes": 14.0,
        "student_widths": (0, 16, 32, 64, 128, 256),
        "teacher_widths": (0, 8, 16, 32, 64, 128),
        "text_heads": 4,
        "ema_decay": 0.99,
        "augmentation": "flips",
        "dice_weight": 0.5,
        "darm_every": 6,
        "views": "one",
        "cutmix_share": 0.2,
    },
    # The demo: phantoms are simple, so that two minutes on two cores are enough.
    "phantom": {
        "image_size_px": 80,
        "batch_size": 8,
        "iterations": 1400,
        "max_minutes": 3.2,
        "student_widths": (0, 24, 48, 96, 128),
        "teacher_widths": (0, 16, 32, 64, 96),
        "text_heads": 4,
        "ema_decay": 0.98,
        "augmentation": "flips",
        "dice_weight": 0.5,
        "darm_every": 4,
        "views": "one",
        "cutmix_share": 0.3,
    },
}


_METHODS_OWN: dict[str, dict[str, Any]] = {
    # Partial cross-entropy: what lies between the levels is ignored.
    "partial": {"student_levels": (0, -1)},
    "gaze-track": {"student_levels": (0, -1), "track_shares": (1.0, 0.75, 0.5, 0.25)},
}

_PLAIN = ("gaze-to-insight", "partial", "supervised")
"""Methods that take a network as it is; the others read it from within."""


def preset_names() -> tuple[str, ...]:
    """Return the names of all presets."""
    return tuple(_PRESETS)


def preset(method: str = "gaze-to-insight", name: str = "cpu", **changes: Any) -> RunSpec:
    """Return the spec of a method under a preset, with fields changed by name.

    Raises
    ------
    UserError
        If there is no such method, preset or field.
    """
    if method not in METHODS:
        raise UserError(f"There is no method {method!r}; choose one of {', '.join(METHODS)}.")
    if name not in _PRESETS:
        raise UserError(f"There is no preset {name!r}; choose one of {', '.join(_PRESETS)}.")
    values = {"method": method, "preset": name, **_PRESETS[name], **_METHODS_OWN.get(method, {}), **changes}
    return checked(RunSpec.from_json(values, "The run's spec"))


def checked(spec: RunSpec) -> RunSpec:
    """Return a spec that can be trained.

    Raises
    ------
    UserError
        If a field has a value that no training could follow; the sentence names it.
    """
    widths = (spec.student_widths, spec.teacher_widths)
    # A pretrained encoder brings images of any size to what it needs.
    coarsest = 1 if spec.encoder else 2 ** max(len(spec.student_widths) - 1, 4)
    rules = {
        f"augmentation should be flips, mild or strong, not {spec.augmentation!r}": spec.augmentation
        in ("flips", "mild", "strong"),
        f"views should be one or two, not {spec.views!r}": spec.views in ("one", "two"),
        f"text should be one of {', '.join(TEXTS)}, not {spec.text!r}": spec.text in TEXTS,
        f"method should be one of {', '.join(METHODS)}, not {spec.method!r}": spec.method in METHODS,
        f"image_size_px should be a multiple of {coarsest}, not {spec.image_size_px}": spec.image_size_px > 0
        and spec.image_size_px % coarsest == 0,
        f"batch_size should be 2 or more, not {spec.batch_size}": spec.batch_size >= 2,
        f"accumulate should be from 1 to half the batch_size, not {spec.accumulate}": spec.accumulate == 1
        or 1 < spec.accumulate <= spec.batch_size // 2,
        f"data_on_device should be auto, on or off, not {spec.data_on_device!r}": spec.data_on_device
        in ("auto", "on", "off"),
        f"compile should be auto or off, not {spec.compile!r}": spec.compile in ("auto", "off"),
        f"norm should be batch or group, not {spec.norm!r}": spec.norm in ("batch", "group"),
        "norm of the published code's architecture is its own; leave it at batch": spec.norm == "batch"
        or spec.architecture == "own",
        f"checkpoint_steps should be 0 or more, not {spec.checkpoint_steps}": spec.checkpoint_steps >= 0,
        f"iterations should be 1 or more, not {spec.iterations}": spec.iterations >= 1,
        f"max_minutes should be above 0, not {spec.max_minutes}": spec.max_minutes is None
        or spec.max_minutes > 0,
        "student_widths and teacher_widths should be five or more numbers, equally many, above 0 after the first": all(
            len(one) == len(spec.student_widths) >= 5 and one[0] >= 0 and min(one[1:]) > 0 for one in widths
        ),
        "the first of student_widths and teacher_widths should both be 0, or neither": all(widths[0][:1])
        == all(widths[1][:1]),
        "targets should name each target once": len(spec.targets) == len(set(spec.targets)),
        f"cwc_confidence should be above 0.5 and below 1, not {spec.cwc_confidence}": 0.5
        < spec.cwc_confidence
        < 1,
        f"ema_decay should be 0 or more and below 1, not {spec.ema_decay}": 0 <= spec.ema_decay < 1,
        f"a pretrained encoder or another architecture goes with {', '.join(_PLAIN)}, not with {spec.method}": (
            not spec.encoder and spec.architecture == "own"
        )
        or spec.method in _PLAIN,
        f"holdout should be 0 or more and below 1, not {spec.holdout}": 0 <= spec.holdout < 1,
        f"text_strength should be 0 or more, not {spec.text_strength}": spec.text_strength >= 0,
        f"text_dropout should be from 0 to 1, not {spec.text_dropout}": 0 <= spec.text_dropout <= 1,
        f"architecture should be one of {', '.join(ARCHITECTURES)}, not {spec.architecture!r}": spec.architecture
        in ARCHITECTURES,
        "architecture of the published code has one target and no pretrained encoder": spec.architecture
        == "own"
        or (len(spec.targets) == 1 and not spec.encoder),
        "encoder_config should hold config, mean and std where there is an encoder": not spec.encoder
        or {"config", "mean", "std"} <= set(spec.encoder_config),
        f"encoder_frozen_stages should be 0 to 4, not {spec.encoder_frozen_stages}": spec.encoder_frozen_stages
        in range(5),
        f"encoder_learning_rate should be 0 or more, not {spec.encoder_learning_rate}": spec.encoder_learning_rate
        >= 0,
        f"text_learning_rate should be above 0, not {spec.text_learning_rate}": spec.text_learning_rate > 0,
        "imported embeddings do not say which token is the area; text area-only needs explanations": not (
            spec.text_embeddings and spec.text == "area-only"
        ),
        f"darm_every should be 1 or more, not {spec.darm_every}": spec.darm_every >= 1,
        f"darm_from should be networks or labels, not {spec.darm_from!r}": spec.darm_from
        in ("networks", "labels"),
        f"darm_label should be ignore or background, not {spec.darm_label!r}": spec.darm_label
        in ("ignore", "background"),
        f"cwc_logit_scale should be above 0, not {spec.cwc_logit_scale}": spec.cwc_logit_scale > 0,
        f"fusion_scales should name scales from 1 to 4, each once, not {list(spec.fusion_scales)}": set(
            spec.fusion_scales
        )
        <= {1, 2, 3, 4}
        and len(set(spec.fusion_scales)) == len(spec.fusion_scales),
        "level_networks should name at least one level, as in (0, -1)": bool(spec.level_networks)
        and all(isinstance(level, int) for level in spec.level_networks),
        f"level_consistency should be prop or pure, not {spec.level_consistency!r}": spec.level_consistency
        in ("prop", "pure"),
        f"track_shares should be above 0 and up to 1, not {list(spec.track_shares)}": all(
            0 < share <= 1 for share in spec.track_shares
        ),
        "the method gaze-track needs track_shares, as in (1.0, 0.75, 0.5, 0.25)": spec.method != "gaze-track"
        or bool(spec.track_shares),
    }
    for sentence, holds in rules.items():
        if not holds:
            raise UserError(f"The run cannot be trained: {sentence}.")
    return spec
