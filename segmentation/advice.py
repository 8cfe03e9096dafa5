"""Which method, preset and device suit a study on a computer, and why: the one-click training. Never imports torch."""

from __future__ import annotations

import statistics
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from gaze_capture.recording import UNDECIDED
from segmentation.job import RunSpec
from segmentation.machine import GIB, Gpu, Machine
from segmentation.presets import preset
from segmentation.records import group_of
from segmentation.study import Study

DEFAULT_METHOD = "gaze-to-insight"
LARGE_PRESET, SMALL_PRESET = "reference", "cpu"

REFERENCE_GPU_BYTES = int(7.5 * GIB)
"""A card sold as 8 GB tells of a little less."""
REFERENCE_FREE_BYTES = 6 * GIB
SMALL_GPU_BYTES = 2 * GIB
LITTLE_MEMORY_BYTES = 4 * GIB

FEW_IMAGES = 20
NEARLY_ALL = 0.9
LOST_DETAIL_PX = 8
"""Where images are reduced by more than this, structures that a person sees are gone."""


@dataclass(frozen=True)
class StudyFacts:
    """What a split of a study has to learn from, counted in images."""

    images: int = 0
    gazed: int = 0
    """Images that somebody looked at."""
    pseudomasks: int = 0
    absent: int = 0
    """Images without a pseudo-mask in which somebody said that a target is absent."""
    reviewed: int = 0
    """Images with an accepted or edited mask."""
    true_masks: int = 0
    true_mask_groups: int = 0
    """Groups (patients) of images with true masks of every target."""
    explained: int = 0
    """Explained images among those that can be learned from."""
    groups: int = 0
    from_gaze: int = 0
    """Images that a method of the gaze can learn from: a pseudo-mask, a reviewed mask, or an absent target."""
    from_masks: int = 0
    """Images that the method `supervised` can learn from."""
    side_px: int = 0
    """Median of the images' longer sides."""
    simulated_from: str = ""
    """``masks`` or ``saliency`` where some gaze was simulated."""

    def to_learn_from(self, method: str) -> int:
        """Return the number of images that a method can learn from."""
        return self.from_masks if method == "supervised" else self.from_gaze


@dataclass(frozen=True)
class Advice:
    """What to train with, and the reasons, each a sentence."""

    method: str
    preset: str
    device: str
    reasons: tuple[str, ...]
    warnings: tuple[str, ...] = ()
    """What the person should know before they start."""


def study_facts(study: Study, split: str = "train") -> StudyFacts:
    """Count what a split of a study has; names of files alone are read."""
    images = {image.id: image for image in study.images.values() if image.split == split}
    targets = {target.id for target in study.targets}

    def of(keys: Iterable[tuple[str, str]]) -> set[str]:
        return {image for image, target in keys if image in images and target in targets}

    reviews, words = study.reviewed(), study.presences()
    masked = {
        key
        for key, one in reviews.items()
        if one.verdict != "rejected" and one.presence not in ("absent", *UNDECIDED)
    }
    absent = {key for key, word in words.items() if word == "absent"} - masked
    # What `segmentation.dataset` leaves out: doubts, and pseudo-masks that a reviewer rejected.
    left_out = {key for key, word in words.items() if word in UNDECIDED} | {
        key for key, one in reviews.items() if one.verdict == "rejected" and one.subject == "pseudomask"
    }
    strong, with_gaze = masked | absent, study.pseudomask_keys()
    pseudomasks, from_gaze = of(with_gaze), of((with_gaze - left_out) | strong)
    true_keys = study.mask_keys()
    true_masks = of(true_keys)
    wholly = [name for name in true_masks if all((name, target) in true_keys for target in targets)]
    return StudyFacts(
        images=len(images),
        gazed=len(of(study.looks)),
        pseudomasks=len(pseudomasks),
        absent=len(of(absent) - pseudomasks),
        reviewed=len(of(masked)),
        true_masks=len(true_masks),
        true_mask_groups=len({group_of(images[name]) for name in wholly}),
        explained=len(from_gaze & of(study.explanation_keys())),
        groups=len({group_of(image) for image in images.values()}),
        from_gaze=len(from_gaze),
        from_masks=len(true_masks | of(strong)),
        side_px=round(statistics.median(max(image.shape[:2]) for image in images.values())) if images else 0,
        simulated_from=study.simulated_from() or "",
    )


def advise(
    machine: Machine, facts: StudyFacts, *, method: str | None = None, device: str | None = None
) -> Advice:
    """Choose what to train a study with on a computer; what is given is taken as it is.

    Gaze is what a study of this program is made for: true masks that lie beside it are left for comparison, unless
    there is next to no gaze, or people have reviewed nearly all of the masks.
    """
    reasons, warnings = [], []
    if method is None:
        method, why = _method(facts)
        reasons.append(why)
    preset_name, chosen_device, why = _size(machine, device)
    reasons.append(why)
    count = facts.to_learn_from(method)
    if 0 < count < FEW_IMAGES:
        warnings.append(
            f"{count} {'image is' if count == 1 else 'images are'} few: the model will know little else; "
            f"from {FEW_IMAGES} on it begins to carry over to new ones."
        )
    elif facts.groups == 1 and count:
        warnings.append(
            "All images are of one group (patient): nobody can tell from this study how the model does on another."
        )
    if method == DEFAULT_METHOD and count and not facts.explained:
        reasons.append("No image is explained yet, so the teacher learns without words, from the gaze alone.")
    size = preset(method, preset_name).image_size_px
    if facts.side_px > LOST_DETAIL_PX * size:
        warnings.append(
            f"Images are reduced from {facts.side_px} to {size} pixels a side: what is smaller than about "
            f"{round(facts.side_px / size)} pixels cannot be learned."
        )
    if 0 < machine.memory_bytes < LITTLE_MEMORY_BYTES:
        warnings.append(
            f"This computer has {in_gb(machine.memory_bytes)} of memory, which is little: close other programs."
        )
    return Advice(method, preset_name, chosen_device, tuple(reasons), tuple(warnings))


def _method(facts: StudyFacts) -> tuple[str, str]:
    of_all = f"of {facts.images} images"
    if not facts.gazed and facts.true_masks:
        return "supervised", f"{facts.true_masks} {of_all} have true masks, and nobody has looked at any yet."
    if facts.reviewed >= max(FEW_IMAGES, NEARLY_ALL * facts.from_gaze):
        return "supervised", (
            f"{facts.reviewed} {of_all} have a mask that was reviewed: nearly all, so that there is little left "
            "for the gaze to say."
        )
    if facts.true_masks >= max(FEW_IMAGES, NEARLY_ALL * facts.images) and (
        facts.gazed < 0.5 * facts.true_masks
    ):
        return "supervised", f"{facts.true_masks} {of_all} have true masks, only {facts.gazed} gaze."
    why = f"{facts.pseudomasks} {of_all} have pseudo-masks from gaze"
    if facts.reviewed:
        why += f", {facts.reviewed} a reviewed mask, which counts more"
    if facts.true_masks:
        return DEFAULT_METHOD, f"{why}; the true masks are left out of the learning, for comparison."
    return DEFAULT_METHOD, f"{why}."


def _size(machine: Machine, device: str | None) -> tuple[str, str, str]:
    """Return preset, device and why."""
    gpu = machine.gpu
    if device == "cpu":
        return (
            SMALL_PRESET,
            device,
            "On the processor the networks are small, to be done in a quarter of an hour.",
        )
    if gpu is None:
        rocm = machine.torch.rocm and not machine.why_no_gpu
        why = machine.why_no_gpu or "How much memory the AMD card has is not known."
        small = "The networks are small ones" + (
            "." if rocm else ", which a processor trains in a quarter of an hour."
        )
        return SMALL_PRESET, device or "auto", f"{why} {small}"
    if gpu.memory_bytes >= REFERENCE_GPU_BYTES:
        if gpu.free_bytes >= REFERENCE_FREE_BYTES:
            return (
                LARGE_PRESET,
                device or "cuda",
                f"The {gpu.name} has {in_gb(gpu.memory_bytes)}, enough for networks of the published size.",
            )
        return (
            SMALL_PRESET,
            device or "cuda",
            (
                f"Of the {in_gb(gpu.memory_bytes)} of the {gpu.name} only {in_gb(gpu.free_bytes)} are free, another "
                "program uses it; the networks are small ones."
            ),
        )
    if gpu.memory_bytes >= SMALL_GPU_BYTES:
        return (
            SMALL_PRESET,
            device or "cuda",
            (
                f"The {gpu.name} has {in_gb(gpu.memory_bytes)}, too little for networks of the published size (8 GB); "
                "small ones fit."
            ),
        )
    return SMALL_PRESET, device or "cpu", _too_small(gpu)


def _too_small(gpu: Gpu) -> str:
    known = f"has {in_gb(gpu.memory_bytes)}" if gpu.memory_bytes else "does not say how much memory it has"
    return f"The {gpu.name} {known}, too little for training; the processor trains small networks."


def in_gb(size: int) -> str:
    """Return a size in bytes for people, in units of 2**30 as drivers and shops count."""
    value = size / GIB
    return f"{value:.1f} GB" if value < 10 else f"{value:.0f} GB"


def what_prevents(spec: RunSpec, facts: StudyFacts, machine: Machine) -> str:
    """Say in a sentence why a run would fail, before it is started; nothing where it should work.

    Parameters
    ----------
    spec
        One that `segmentation.presets.checked` lets pass.
    """
    if spec.device.startswith("cuda") and machine.why_no_gpu:
        return f"The device cuda cannot be used. {machine.why_no_gpu}"
    if spec.precision == "fp16" and (spec.device == "cpu" or (spec.device == "auto" and machine.why_no_gpu)):
        return "The precision fp16 is for graphics cards; choose auto, bf16 or fp32 on the processor."
    if spec.method == DEFAULT_METHOD and spec.text in ("shuffled", "area-only") and not facts.explained:
        return (
            f"The text {spec.text} needs explanations, and no image has one; explain the images first, or choose "
            "the text explanation or none."
        )
    if spec.holdout:
        if not facts.true_mask_groups:
            return "Images can be held out for selection only where they have true masks; the study has none."
        if not round(spec.holdout * facts.true_mask_groups):
            return (
                f"So few images cannot be held out: they go by whole groups, and true masks lie in "
                f"{facts.true_mask_groups}; hold out more, or none."
            )
        if spec.holdout > 0.5:
            return "More than half of the images with true masks would be held out; leave more to learn from."
    if not spec.learn_from_reviews and not facts.pseudomasks and not facts.true_masks and facts.reviewed:
        return (
            "Without the reviews there is nothing to learn from; learn from them, or make pseudo-masks first."
        )
    return ""


def fitting_runs(spec: RunSpec, earlier: Mapping[str, RunSpec]) -> list[str]:
    """Return the ids of earlier runs whose networks have the architecture of a new one's, newest first.

    It can begin with one of them; the worker compares every shape again.

    Parameters
    ----------
    spec
        That of the new run, with its text encoder named (`segmentation.text.choice.with_text`).
    earlier
        The specs of runs that have learned something, by id.
    """
    wanted = _architecture(spec)
    return [run_id for run_id in sorted(earlier, reverse=True) if _architecture(earlier[run_id]) == wanted]


def _architecture(spec: RunSpec) -> tuple[object, ...]:
    """Return what decides the shapes of a run's networks."""
    one_network = spec.method in ("partial", "supervised")
    reads = spec.text != "none" and spec.method == DEFAULT_METHOD
    text = (spec.text_encoder_sha256, spec.text_heads, tuple(sorted(spec.fusion_scales))) if reads else ()
    return (
        "one network" if one_network else spec.method,
        spec.targets,
        spec.architecture,
        spec.student_widths,
        () if one_network else spec.teacher_widths,
        spec.encoder and spec.encoder_sha256,
        text,
        len(spec.level_networks) if spec.method == "gaze-multilevel" else 0,
        len(spec.track_shares) if spec.method == "gaze-track" else 0,
    )
