"""What is told of a model that leaves a study: what it learned from, how, how well it does, and what it is not."""

from __future__ import annotations

import math
from collections import Counter
from typing import Any

import numpy as np

from gaze_capture.archive import program
from gaze_capture.errors import UserError
from gaze_capture.storage import read_json
from segmentation.bootstrap import clustered_interval
from segmentation.intensity import RULES, rules_for
from segmentation.label_gaze import gaze_words, simulated_behind
from segmentation.learned_reviews import learned_by, mark_of
from segmentation.records import group_of, utc_now
from segmentation.runs import RunFolder
from segmentation.study import TEST_SPLIT, Study

METHODS = {
    "gaze-to-insight": "From Gaze to Insight (Chen et al., IEEE TMI 2025): a teacher that sees the image and reads its "
    "explanation, and a student that sees the image alone, learn from nested pseudo-masks of gaze",
    "gaze-multilevel": "GazeMedSeg (Zhong et al., MICCAI 2024): a network for each level of gaze, each consistent "
    "with the others",
    "supervised": "one network learns from true masks and, where there is none, from reviewed ones",
}
LIMITS = (
    "Research use only. Not a medical device: nothing that it computes may guide the care of a patient.",
    "It knows images like those it learned from; other devices, protocols, diseases and people were not tried unless "
    "a metric below says so.",
    "It always answers. An image without the target, or of another kind, may get a mask all the same.",
    "A probability is what the network says, not how often it is right; it was not calibrated.",
)


def model_card(study: Study, run: RunFolder, facts: dict[str, Any]) -> dict[str, Any]:
    """Return the card as JSON.

    Parameters
    ----------
    facts : as `segmentation.model_export.export_weights` returns them
    """
    spec, events = run.spec, run.events()
    started = next((event.values for event in events if event.kind == "started"), {})
    done = next((event for event in reversed(events) if event.kind == "done"), None)
    simulated = simulated_behind(study, run.id)
    learned = [image for image in study.images.values() if image.split == spec.split]
    ids = {image.id for image in learned}
    noted = learned_by(run)
    reviews = (
        [one for key, one in study.reviewed().items() if key[0] in ids]
        if noted is None
        else [
            one
            for given in study.all_reviews().values()
            for one in given
            if mark_of(study, one) in noted.marks
        ]
    )
    began = ("images_learned", "strong_labels", "explained", *(() if noted is None else ("reviews",)))
    modalities = sorted({image.modality for image in study.images.values()})
    return {
        "format": "gaze-insight-model",
        "schema": 1,
        "program": program(),
        "exported": utc_now(),
        "study": {"name": study.name, "uid": study.uid},
        "run": run.id,
        "research_use_only": True,
        "targets": [
            {"id": one.id, "name": one.name, "kind": one.kind, "inside": one.inside, "code": one.code or None}
            for one in study.targets
            if one.id in spec.targets
        ],
        "data": {
            "images": len(study.images),
            "splits": dict(Counter(image.split for image in study.images.values())),
            "modalities": dict(Counter(image.modality for image in study.images.values())),
            "learned_from": {
                "split": spec.split,
                "images_of_split": len(learned),
                "images_learned": started.get("images"),
                "groups": len({group_of(image) for image in learned}),
                "pseudo_masks": sum(key[0] in ids for key in study.pseudomask_keys()),
                "annotators": len(
                    {look.annotator for look in study.fixations.each_look() if look.image_id in ids}
                ),
                "reviews": dict(Counter(one.verdict for one in reviews)),
                "strong_labels": started.get("strong_labels"),
                "explained": started.get("explained"),
            },
            "gaze": gaze_words(spec.method, simulated),
            "simulated_from": simulated,
            "counted": f"as the study is at export; {', '.join(began[:-1])} and {began[-1]} as training began",
        },
        "method": {
            "name": spec.method,
            "is": METHODS.get(spec.method, spec.method),
            "preset": spec.preset,
            "seed": spec.seed,
            "iterations": facts["iterations"],
            "seconds": done.values.get("seconds") if done is not None else None,
            "device": started.get("device"),
            "finished": done is not None,
            "spec": spec.to_json(),
        },
        "network": {
            "input_px": spec.image_size_px,
            "parameters": facts["parameters"],
            "encoder": spec.encoder or "own",
            "weights": facts["weights_are"],
            "weights_sha256": facts["weights_sha256"],
            "onnx_sha256": facts["onnx_sha256"],
            "onnx_largest_difference": facts["onnx_difference"],
            "normalisation": rules_for(spec.normalisation, modalities) if modalities else dict(RULES),
        },
        "metrics": _metrics(study, run),
        "limits": [
            *(
                [
                    f"The gaze it learned from was simulated from {simulated}; results with real gaze may differ."
                ]
                if simulated
                else []
            ),
            *LIMITS,
        ],
    }


def _metrics(study: Study, run: RunFolder) -> list[dict[str, Any]]:
    """Return each stored measurement with the 95 % interval of its mean Dice under resampling of groups."""
    found = []
    for path in sorted((run.path / "metrics").glob("*.json")):
        values = read_json(path)
        try:
            scores: list[float] = []
            groups: list[str] = []
            for label, one in values.get("per_image", {}).items():
                image = study.images.get(label) or study.images.get(label.partition(".")[0])
                if one.get("dice") is not None and image is not None:
                    scores.append(float(one["dice"]))
                    groups.append(group_of(image))
            interval = clustered_interval(np.array(scores, dtype=np.float64), groups)
            bounds = [interval.low, interval.high]
            found.append(
                {
                    "split": values["split"],
                    "against": values["against"],
                    "gaze": values["gaze"],
                    "images": values["images"],
                    "groups": len(set(groups)),
                    "dice": values["dice"],
                    "dice_interval_95": None if any(map(math.isnan, bounds)) else bounds,
                    "iou": values["iou"],
                    "hd95_px": values["hd95"],
                    "threshold": values.get("threshold", 0.5),
                    "evaluated": values.get("evaluated"),
                    "images_without_target": values.get("images_without_target", 0),
                    "honest_split": values["split"] == TEST_SPLIT,
                }
            )
        except (KeyError, TypeError, AttributeError) as error:
            raise UserError(f"{path} is damaged ({error}); evaluate the run again.") from None
    return found


def card_text(card: dict[str, Any]) -> str:
    """Return the card as Markdown."""
    data, method, network = card["data"], card["method"], card["network"]
    learned = data["learned_from"]
    targets = ", ".join(
        f"{one['name']} ({one['kind']}{', ' + one['code'] if one['code'] else ''})" for one in card["targets"]
    )
    lines = [
        f"# {card['study']['name']}: {targets}",
        "",
        "**Research use only. Not a medical device.**",
        "",
        f"A student network that segments {targets} in an image, run `{card['run']}`, exported by {card['program']} on "
        f"{card['exported'][:10]}.",
        "",
        "## Data",
        "",
        f"- {data['images']} images ({_counts(data['modalities'])}); splits: {_counts(data['splits'])}.",
        f"- Learned from the split `{learned['split']}`: {learned['images_of_split']} images of {learned['groups']} "
        f"groups (patients, sequences), {learned['pseudo_masks']} pseudo-masks; reviews: "
        f"{_counts(learned['reviews']) or 'none'}.",
        f"- Gaze: **{data['gaze']}**; annotators: {learned['annotators']}.",
        f"- Counted {data['counted']}.",
        "",
        "## Method",
        "",
        f"- {method['is']}.",
        f"- Method `{method['name']}`, preset `{method['preset']}`, seed {method['seed']}, {method['iterations']} "
        "iterations" + ("." if method["finished"] else "; training was not finished."),
        f"- {network['parameters']:,} parameters, images of {network['input_px']} x {network['input_px']} px, encoder: "
        f"{network['encoder']}.",
        "- `spec.json` holds every setting; `model_card.json` all of this for programs.",
        "",
        "## Metrics",
        "",
        *_metric_lines(card["metrics"]),
        "",
        "## Limits",
        "",
        *(f"- {limit}" for limit in card["limits"]),
        "",
        "## Use",
        "",
        "`use_model.py IMAGE OUT` writes a mask for each target. `preprocessing.json` says what it does to an image, "
        "for programs of your own.",
    ]
    if network["onnx_sha256"]:
        difference = network["onnx_largest_difference"]
        checked = f"; probabilities differ from PyTorch's by {difference:.1e} at most" if difference else ""
        lines.append(
            f"`student.onnx`: `images` float32 (B, 3, S, S) to `logits` float32 (B, T, S, S){checked}."
        )
    lines.append("`student.safetensors`: the weights, for `segmentation.exported_model`.")
    return "\n".join(lines) + "\n"


def _counts(counts: dict[str, int]) -> str:
    return ", ".join(f"{count} {name}" for name, count in counts.items())


def _metric_lines(metrics: list[dict[str, Any]]) -> list[str]:
    if not metrics:
        return ["Not measured: `gaze-insight evaluate STUDY --run RUN` was not called before the export."]
    lines = [
        "| split | against | gaze | images (groups) | Dice, mean ± SD | 95 % interval | IoU | HD95 px |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for one in metrics:
        bounds = one["dice_interval_95"]
        lines.append(
            f"| {one['split'] or 'all'} | {one['against']} | {one['gaze']} | {one['images']} ({one['groups']}) | "
            f"{_spread(one['dice'], 3)} | {f'{bounds[0]:.3f} to {bounds[1]:.3f}' if bounds else '–'} | "
            f"{_spread(one['iou'], 3)} | {_spread(one['hd95_px'], 1)} |"
        )
    lines += ["", "Intervals resample groups. Training never reads the split `test`, and only that."]
    if any(one["against"] == "reviews" for one in metrics):
        lines.append(
            "Measured against reviews, masks that were accepted as shown count as right: that is circular."
        )
    return lines


def _spread(spread: dict[str, float | None], digits: int) -> str:
    mean, sd = spread["mean"], spread["sd"]
    if mean is None:
        return "–"
    return f"{mean:.{digits}f}" + (f" ± {sd:.{digits}f}" if sd is not None else "")
