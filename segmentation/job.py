"""What a run is asked to do, what it tells while it works, and the lines both travel in."""

from __future__ import annotations

import dataclasses
import json
import math
from dataclasses import dataclass, field
from typing import Any, Literal

from gaze_capture.errors import UserError
from segmentation.intensity import RULES, check_rules

Kind = Literal[
    "started",
    "phase",
    "progress",
    "step",
    "sample",
    "agreement",
    "selection",
    "answer",
    "warning",
    "done",
    "stopped",
    "failed",
]
"""What a JobEvent tells: `phase` names the stage of work, `step` carries losses, speed and memory, `sample` the path of
a fresh sample mask, `agreement` the student's overlap with its own labels, `selection` a score on images set apart,
`answer` what a vision-language model said; `done`, `stopped` and `failed` end a job."""


class ProcessGone(UserError):
    """One of several processes that work together has ended in the midst of it."""

    def __init__(self) -> None:
        super().__init__(
            "Another process of the run is gone: it was killed, ran out of memory, or its machine was switched off. "
            "Everything up to the last checkpoint is safe; start the run again to go on."
        )


ENDINGS: frozenset[str] = frozenset({"done", "stopped", "failed"})


@dataclass(frozen=True)
class JobEvent:
    """One line of a worker's report."""

    run_id: str
    kind: Kind
    step: int
    total: int
    time: float
    """Seconds since the epoch."""
    values: dict[str, Any] = field(default_factory=dict)

    def to_line(self) -> str:
        """Encode as one line of JSON without its newline; numbers that are not finite become null."""
        return json.dumps(_finite(dataclasses.asdict(self)), ensure_ascii=False, allow_nan=False)

    @classmethod
    def from_line(cls, line: str) -> JobEvent:
        """Decode a line.

        Raises
        ------
        ValueError
            If the line is no event, e.g. the torn last line of a file being written.
        """
        fields = json.loads(line)
        if not isinstance(fields, dict):
            raise ValueError("not an event")
        try:
            return cls(**fields)
        except TypeError as error:
            raise ValueError(f"not an event: {error}") from None


def _finite(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _finite(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_finite(item) for item in value]
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value


@dataclass(frozen=True)
class RunSpec:
    """Everything a run needs to be repeated; travels as JSON in ``runs/<id>/spec.json``.

    Lengths of ramps are fractions of the run, so that a shorter run is the same recipe.
    """

    method: str = "gaze-to-insight"
    preset: str = "cpu"
    targets: tuple[str, ...] = ()
    """Ids of what is learned; none stands for all targets of the study, which are named when the run is made."""
    split: str = "train"
    seed: int = 0
    device: str = "auto"
    """``auto``, ``cpu``, ``cuda`` or ``cuda:1``."""
    # Size and length
    image_size_px: int = 160
    """Images are resized to a square of this side for the networks; predictions return to their own grid."""
    batch_size: int = 8
    accumulate: int = 1
    """Micro-batches whose gradients make up a step. When memory runs out the trainer doubles it by itself, down to two
    images at a time. The same step in expectation, but each micro-batch is normalised by its own statistics."""
    iterations: int = 4000
    max_minutes: float | None = None
    """When set, the run ends (and its schedule is complete) after this many minutes of training."""
    # Networks
    student_widths: tuple[int, ...] = (16, 32, 64, 128, 256)
    teacher_widths: tuple[int, ...] = (16, 32, 64, 128, 256)
    norm: Literal["batch", "group"] = "batch"
    """How features are normalised: by their batch, or each image's by itself, in groups of channels. A pretrained
    encoder keeps its own norms."""
    text_heads: int = 8
    fusion_scales: tuple[int, ...] = (1, 2, 3, 4)
    """Which of the four coarsest scales of the teacher read the text, 1 the finest; none is an ablation, too."""
    warm_start: str = ""
    """Id of an earlier run of the study whose networks, of the same architecture, this one begins with."""
    architecture: Literal["own", "fgi-public", "fgi-public-grey"] = "own"
    """Whose networks: this program's, or those of the published code (`segmentation.public_network`), which an
    imported checkpoint needs, for images of three channels or one."""
    encoder: str = ""
    """Name of the pretrained encoder that student and teacher begin with (`segmentation.backbones`); empty stands for
    the U-Net's own, which knows nothing yet. The widths are then those of the decoder."""
    encoder_sha256: str = ""
    """Hash of its weights."""
    encoder_config: dict[str, Any] = field(default_factory=dict)
    """All that is needed to build it again without its folder: its ``config``, and ``mean`` and ``std`` of its
    images."""
    encoder_learning_rate: float = 0.1
    """Learning rate of the pretrained encoder, as a multiple of all others'; 0 leaves it as it came."""
    encoder_frozen_norms: bool = False
    """Whether the pretrained encoder's batch norms keep their statistics, scale and shift."""
    encoder_frozen_stages: int = 0
    """How many of the pretrained encoder's four stages, the finest first, stay as they came: what they know of edges
    and textures serves any image, and training them is half of the encoder's work."""
    # Optimiser
    optimiser: Literal["adamw", "sgd"] = "adamw"
    learning_rate: float = 2e-3
    final_learning_rate: float = 2e-5
    weight_decay: float = 1e-2
    warmup: float = 0.02
    """Fraction of the run in which the learning rate rises linearly."""
    checkpoint_steps: int = 0
    """Steps from one checkpoint to the next; 0 stands for one every minute."""
    ema_decay: float = 0.0
    """Exponential moving average of the student's weights used for prediction; 0 turns it off."""
    normalisation: dict[str, str] = field(default_factory=lambda: dict(RULES))
    """How each modality's real values become what the networks read (`segmentation.intensity`)."""
    precision: Literal["auto", "fp32", "bf16", "fp16"] = "auto"
    augmentation: Literal["flips", "mild", "strong"] = "flips"
    """``flips`` mirrors; the others also turn, scale, shift, recolour and blur, `strong` for runs of many epochs."""
    data_on_device: Literal["auto", "on", "off"] = "auto"
    """Whether the training set lies beside the networks, where its batches are made: ``auto`` where that is a GPU with
    room for it. The same batches either way; only for the augmentation ``flips``."""
    compile: Literal["auto", "off"] = "off"
    """``auto``: on CUDA the networks go through torch.compile where it works; the same results, up to rounding."""
    dice_weight: float = 0.0
    """Weight of a soft Dice term beside the cross-entropy on labels."""
    views: Literal["one", "two"] = "two"
    """``two``: labels on plain images, CWC on a second, mixed look at them (the paper). ``one``: all losses on a single
    look, which CutMix and noise touch in `cutmix_share` of the steps; half the work."""
    cutmix_share: float = 0.5
    # The method's weights (METHOD names: AFC feature consistency, CWC confidence-weighted consistency, DARM masking)
    afc_weight: float = 0.1
    cwc_weight: float = 1.0
    cwc_confidence: float = 0.8
    consistency_ramp: float = 4000 / 15000
    """Fraction of the run after which the consistency weight exp(-5 (1 - t)^2) has reached 1."""
    darm_share: float = 0.3
    """Share of the disagreement's AREA that is blanked; 0 turns the masking off."""
    darm_every: int = 1
    """DARM needs an extra look at the disagreement: done on every n-th step."""
    darm_from: Literal["networks", "labels"] = "networks"
    """Whose disagreement DARM hides: the networks' (the paper), or that of the two networks' labels (the public code),
    which needs no extra look and begins at once."""
    darm_label: Literal["ignore", "background"] = "ignore"
    """What the student is told of the hidden places: nothing (the paper), or that they are background (the public
    code)."""
    cwc_logit_scale: float = 1.0
    """Logits are multiplied by this for CWC. The public code learns two channels by sigmoids and compares them by a
    softmax, which sees twice the logit: 2."""
    afc_rectified: bool = False
    """Whether the student's projected features pass a ReLU before AFC, as in the public code; the teacher's features,
    their goal, are signed."""
    text: Literal["explanation", "none", "shuffled", "area-only", "empty"] = "explanation"
    """What the teacher reads: the image's explanation, that of another image, its area alone, nothing (``empty``, the
    same networks, which see the null token in every image), or ``none``, which asks for no text encoder."""
    text_strength: float = 0.1
    """The lambda that training begins with: the weight of what the text says beside what the image shows."""
    text_strength_fixed: bool = False
    """Whether lambda stays where it begins; the public code has none, which is a fixed 1."""
    text_dropout: float = 0.0
    """Share of the images of a step whose text is withheld, so that the teacher learns to do without, too."""
    text_learning_rate: float = 1.0
    """Learning rate of the text's layers, as a multiple of all others'."""
    text_embeddings: str = ""
    """Name of imported embeddings (`segmentation.text.imported`) that the teacher reads in place of phrases."""
    text_encoder: str = ""
    """Name of the encoder that turned phrases into vectors; empty stands for MiniLM. Set when the run is made, from
    what the study has chosen."""
    text_encoder_sha256: str = ""
    """Hash of the encoder's weights, or of the imported embeddings."""
    # Which levels supervise whom: indices into the pseudo-mask's descending thresholds
    teacher_levels: tuple[int, int] = (0, -1)
    """Foreground level and background level of the teacher's partial cross-entropy; between them is ignored."""
    student_levels: tuple[int, int] = (-1, -1)
    """The same for the student; twice the broad level leaves nothing ignored."""
    level_networks: tuple[int, ...] = (0, -1)
    """gaze-multilevel: the level that each of its networks learns from, the highest first."""
    level_consistency: Literal["prop", "pure"] = "prop"
    """gaze-multilevel: whether a network is drawn to the others with its features propagated over their neighbourhood
    (``prop``), or as it is (``pure``)."""
    level_consistency_weight: float = 3.0
    track_shares: tuple[float, ...] = ()
    """gaze-track: for each stage of the decoder, coarsest first, the share of the gaze track, counted back from its
    end, that it learns to find. None: the training set keeps no tracks."""
    track_weight: float = 0.5
    """gaze-track: weight of the tracks' loss beside that of the labels."""
    learn_from_reviews: bool = True
    """Whether reviews teach: their masks as strong labels, their rejections of a pseudo-mask by leaving it out."""
    holdout: float = 0.0
    """Share of the training groups set apart to choose the checkpoint; needs true masks, else the EMA is used."""
    notes: dict[str, Any] = field(default_factory=dict)
    """Provenance: where the preset came from, what true masks were used for, whether gaze was simulated."""

    def to_json(self) -> dict[str, Any]:
        """Return a JSON-ready dictionary."""
        return dataclasses.asdict(self)

    @classmethod
    def from_json(cls, values: dict[str, Any], source: str = "The run's spec") -> RunSpec:
        """Build a spec from JSON, lists becoming tuples.

        Raises
        ------
        UserError
            If a field is unknown or of another type; `source` names the file in the sentence.
        """
        known = {item.name: item for item in dataclasses.fields(cls)}
        unknown = sorted(set(values) - set(known))
        if unknown:
            raise UserError(f"{source} has fields this version does not know: {', '.join(unknown)}.")
        default = cls()
        cleaned: dict[str, Any] = {}
        for name, value in values.items():
            expected = getattr(default, name)
            if isinstance(value, list):
                value = tuple(value)
            if isinstance(expected, bool) or not isinstance(expected, (int, float)):
                ok = expected is None or isinstance(value, type(expected))
            else:
                ok = isinstance(value, (int, float)) and not isinstance(value, bool)
            if not ok:
                raise UserError(f"{source}: {name} should look like {expected!r}, not {value!r}.")
            cleaned[name] = value
        if "normalisation" in cleaned:
            check_rules(cleaned["normalisation"])
        return cls(**cleaned)
