"""One self-contained HTML file that says what a study holds, how good its gaze is and what a run learned from it."""

from __future__ import annotations

import json
import math
from html import escape
from pathlib import Path
from typing import Any

import numpy as np

from gaze_capture.errors import UserError
from gaze_capture.quality import DATA_LOSS, MEAN_ERROR_DEG
from gaze_capture.storage import read_json, write_bytes_atomic
from segmentation.evaluation import DISTANCES, Spread, evaluate
from segmentation.explanation import load_explanation
from segmentation.gaze_quality import gaze_quality
from segmentation.intensity import rules_for
from segmentation.job import RunSpec
from segmentation.leaving import outside
from segmentation.metrics import dice
from segmentation.progress import Progress, no_progress
from segmentation.records import StudyImage, Target
from segmentation.report_explanations import agreement_section, described
from segmentation.report_figures import Overlay, curve, histogram, legend, overlay_figure
from segmentation.report_parts import graded, row, table, whole_page
from segmentation.report_reviews import review_section
from segmentation.report_rounds import rounds_section
from segmentation.runs import RunFolder, latest_run
from segmentation.study import Study

CARDS_PER_ROW = 3
"""How many of the best, of the median and of the worst images are shown."""


def write_report(
    study: Study,
    file: Path,
    run_id: str | None = None,
    split: str | None = None,
    progress: Progress = no_progress,
) -> None:
    """Write the report of a study, and of one of its runs where there is one.

    Parameters
    ----------
    file
        The HTML file; replaced if it exists.
    run_id
        Default: the latest finished run. A study without any still gets a report of its gaze.
    split
        Whose images are shown in the gallery; default: the evaluated split ``test``, else all images.

    Raises
    ------
    UserError
        If the run is unknown, the split empty, or the file cannot be written or would lie among the study's own.
    """
    outside(study, file)
    run = _run(study, run_id)
    metrics = _stored_metrics(study, run) if run else {}
    if run and not metrics and (measured := _measure(study, run.id, split)):
        metrics = measured
    chosen = _for_gallery(metrics, split)
    sections = [_tiles(study, chosen), _gaze_section(study, progress), _pseudomask_section(study)]
    sections.append(agreement_section(study, progress))
    sections += [review_section(study, progress), rounds_section(study, progress)]
    if run:
        sections += [_metrics_section(metrics), _targets_section(study, metrics), _run_section(study, run)]
    sections.append(_gallery_section(study, run, chosen, split, progress))
    page = whole_page(study.name, _subtitle(study, run), _badges(study), sections)
    write_bytes_atomic(file, page.encode())


def _run(study: Study, run_id: str | None) -> RunFolder | None:
    if run_id is None:
        try:
            run_id = latest_run(study)
        except UserError:
            return None
    return RunFolder(study.runs_folder / latest_run(study, run_id))


def _stored_metrics(study: Study, run: RunFolder) -> dict[str, dict[str, Any]]:
    """Everything ``evaluate`` stored with a run, by file name; UserError where one is damaged."""
    found: dict[str, dict[str, Any]] = {}
    for path in sorted((run.path / "metrics").glob("*.json")):
        values = read_json(path)
        try:
            # Whatever is told of a measurement, tried with this one alone, so that the file can be named.
            alone = {path.stem: values}
            _metrics_section(alone)
            _targets_section(study, alone)
            json.dumps(values, allow_nan=False)
        except (KeyError, TypeError, ValueError, AttributeError, IndexError) as error:
            raise UserError(
                f"{path} is damaged ({error}); measure again: gaze-insight evaluate STUDY --run {run.id}"
            ) from None
        found[path.stem] = values
    return found


def _measure(study: Study, run_id: str, split: str | None) -> dict[str, dict[str, Any]]:
    try:
        evaluate(study, run_id, split=split)
    except UserError:
        return {}
    return _stored_metrics(study, RunFolder(study.runs_folder / run_id))


def _for_gallery(metrics: dict[str, dict[str, Any]], split: str | None) -> dict[str, Any] | None:
    """Choose the measurement whose images are shown: against true masks, of the split asked for or else `test`."""
    wanted = [f"{split}-masks"] if split else ["test-masks", "all-masks", *sorted(metrics)]
    return next((metrics[name] for name in wanted if name in metrics), None)


def _badges(study: Study) -> str:
    badges = ['<span class="badge">Research use only</span>']
    if source := study.simulated_from():
        badges.insert(0, f'<span class="badge warning">Gaze simulated from {escape(source)}</span>')
    return "".join(badges)


def _subtitle(study: Study, run: RunFolder | None) -> str:
    targets = ", ".join(escape(target.name) for target in study.targets)
    return f"Looking for: {targets}" + (f" · run {escape(run.id)}" if run else " · no finished run yet")


def _tile(value: str, label: str, main: bool = False) -> str:
    return f'<div class="tile{" main" if main else ""}"><b>{value}</b><span>{escape(label)}</span></div>'


def _tiles(study: Study, chosen: dict[str, Any] | None) -> str:
    splits: dict[str, int] = {}
    for image in study.images.values():
        splits[image.split] = splits.get(image.split, 0) + 1
    looks = list(study.fixations.each_look())
    tiles = []
    if chosen:
        where = f"split {chosen['split']}" if chosen["split"] else "all splits"
        tiles.append(
            _tile(_spread(chosen["dice"]), f"student Dice, mean ± SD, {where}, {chosen['gaze']} gaze", True)
        )
    tiles.append(
        _tile(str(len(study.images)), "images: " + ", ".join(f"{n} {name}" for name, n in splits.items()))
    )
    tiles.append(_tile(str(len(looks)), f"looks, {sum(look.fixations for look in looks)} fixations"))
    if looks:
        seconds = float(np.mean([item.viewing_ms for item in looks])) / 1000
        tiles.append(_tile(f"{seconds:.1f} s", "gaze an image"))
    tiles.append(
        _tile(str(len(study.pseudomask_keys())), f"pseudo-masks, {len(study.explanation_keys())} explained")
    )
    return f'<div class="tiles">{"".join(tiles)}</div>'


# Gaze


def _gaze_section(study: Study, progress: Progress) -> str:
    rows = gaze_quality(study, progress)
    if not rows:
        return "<h2>Gaze</h2><p>No image has been looked at yet.</p>"
    body = []
    for found in rows:
        images = max(found.images, 1)
        body.append(
            row(
                f'<span class="mono">{escape(found.source)}</span>',
                escape(found.annotator),
                f'<span class="fair">simulated from {escape(found.simulated_from)}</span>'
                if found.simulated_from
                else escape(found.tracker),
                str(found.images),
                "–" if found.samples is None else f"{found.samples:,}",
                f"{found.rate_hz:.0f} Hz" if math.isfinite(found.rate_hz) else "–",
                graded(found.data_loss, *DATA_LOSS, f"{found.data_loss:.1%}"),
                graded(found.accuracy_deg, *MEAN_ERROR_DEG, f"{found.accuracy_deg:.2f}°"),
                f"{found.fixations / images:.1f}",
                f"{found.viewing_seconds / images:.1f} s",
                text=(1, 2),
            )
        )
    head = (
        "Recording",
        "Annotator",
        "Tracker",
        "Images",
        "Samples",
        "Rate",
        "Data loss",
        "Accuracy",
        "Fixations",
        "Time",
    )
    return (
        "<h2>Gaze quality</h2>"
        '<p class="note">Data loss is the share of samples in which neither eye was found: good up to 10 %, fair up '
        "to 20 %. Accuracy is the validated mean error: good up to 0.5°, fair up to 1.0°; beyond, recalibrate. "
        "Fixations and time are means an image.</p>" + table(head, body, text=(1, 2))
    )


def _pseudomask_section(study: Study) -> str:
    found: dict[tuple[str, float], list[tuple[float, float | None]]] = {}
    for image_id, target_id in sorted(study.pseudomask_keys()):
        if image_id not in study.images:
            continue
        pseudomask = study.pseudomask(image_id, target_id)
        assert pseudomask is not None
        truth = study.true_mask(image_id, target_id)
        for threshold, mask in zip(pseudomask.thresholds, pseudomask.masks, strict=True):
            agreement = dice(mask, truth) if truth is not None else None
            key = (study.image(image_id).split, threshold)
            found.setdefault(key, []).append((float(mask.mean()), agreement))
    if not found:
        return "<h2>Pseudo-masks</h2><p>None have been made yet.</p>"
    body = []
    for (split, threshold), values in sorted(found.items(), key=lambda item: (item[0][0], -item[0][1])):
        agreements = [agreement for _, agreement in values if agreement is not None]
        body.append(
            row(
                escape(split),
                f"{threshold:g}",
                str(len(values)),
                f"{np.mean([area for area, _ in values]):.1%}",
                _spread(Spread.of(agreements).to_json()) if agreements else "–",
            )
        )
    settings = study.pseudomask_settings
    label = study.simulated_from()
    note = f"Sigma: {escape(settings.sigma)}; refined by: {escape(settings.refine)}."
    if settings.annotators is not None:
        note += f" Made of the gaze of {escape(', '.join(settings.annotators))} alone."
    if settings.pool == "mean":
        note += " Of several annotators, each counts the same."
    if label:
        note += f" The gaze was simulated from {escape(label)}: the agreement is that of simulated gaze."
    head = ("Split", "Level", "Images", "Mean area", "Dice against true masks")
    return f'<h2>Pseudo-masks</h2><p class="note">{note}</p>' + table(head, body)


# The run


def _metrics_section(metrics: dict[str, dict[str, Any]]) -> str:
    if not metrics:
        return "<h2>Metrics</h2><p>The run has not been measured: it has no predictions on images with masks.</p>"
    body = []
    for values in metrics.values():
        cells = [
            escape(values["split"] or "all"),
            _against(values),
            escape(values["gaze"]),
            str(values["images"]),
        ]
        cells += [_spread(values[name], 3) for name in ("dice", "iou", "miou")]
        cells += [_spread(values[name], 1) for name in DISTANCES]
        body.append(row(*cells, text=(1, 2)))
        if values.get("images_without_target"):
            held = values["images"] - values["images_without_target"]
            for label, count, name in (
                ("with the target", held, "dice_with_target"),
                ("without", values["images_without_target"], "dice_without_target"),
            ):
                empty = [""] * 5
                body.append(
                    row(f"&emsp;{label}", "", "", str(count), _spread(values[name], 3), *empty, text=(1, 2))
                )
    head = ("Split", "Against", "Gaze", "Images", "Dice", "IoU", "mIoU", "HD95 px", "ASD px", "ASSD px")
    seconds = next((item["annotation_seconds_per_image"] for item in metrics.values()), None)
    note = (
        "The student's masks at a probability of 0.5, at each image's own resolution; mean ± SD over images."
    )
    if seconds:
        note += f" It learned from {seconds:.1f} s of gaze an image."
    chart = ""
    shown = _for_gallery(metrics, None)
    if shown and len(scores := _scores(shown)) > 4:
        where = f"split {shown['split']}" if shown["split"] else "all splits"
        chart = (
            f"<h3>Dice of each image, {escape(where)}, {escape(shown['gaze'])}</h3>"
            f'<div class="panel chart">{histogram(list(scores.values()))}</div>'
        )
    return f'<h2>Metrics</h2><p class="note">{note}</p>' + table(head, body, text=(1, 2)) + chart


def _targets_section(study: Study, metrics: dict[str, dict[str, Any]]) -> str:
    """Each target on its own: images with and without it, what is drawn where nothing is, whole volumes."""
    names = {target.id: target.name for target in study.targets}
    rows, volume_rows = [], []
    for values in metrics.values():
        where = escape(values["split"] or "all"), _against(values), escape(values["gaze"])
        # Measurements of earlier versions have none of this.
        for target_id, one in values.get("targets", {}).items():
            name = escape(names.get(target_id, target_id))
            area, without = one["false_positive_area_percent"], one["images_without_target"]
            share = area["share_of_images"]
            rows.append(
                row(
                    name,
                    *where,
                    str(one["images"] - without),
                    _spread(one["dice_with_target"]),
                    str(without),
                    _spread(one["dice_without_target"]),
                    _spread(area, 2),
                    "–" if share is None else f"{share:.0%}",
                    text=(0, 2, 3),
                )
            )
            if volumes := one.get("volumes"):
                volume_rows.append(
                    row(
                        name,
                        *where,
                        str(volumes["count"]),
                        _spread(volumes["dice"]),
                        _spread(volumes["hd95_mm"], 2),
                        _spread(volumes["assd_mm"], 2),
                        text=(0, 2, 3),
                    )
                )
    if not rows:
        return ""
    head = ("Target", "Split", "Against", "Gaze")
    html = (
        '<h2>Targets</h2><p class="note">Images with and without the target apart. The false-positive area is '
        "what was drawn, in percent of the image, where the target is not there; beside it the share of these images "
        "in which anything was drawn.</p>"
        + table(
            (*head, "With", "Dice", "Without", "Dice", "False-positive area %", "Any"), rows, text=(0, 2, 3)
        )
    )
    if volume_rows:
        html += (
            '<h3>Whole volumes</h3><p class="note">Over the slices of a volume that have a truth; distances in three '
            "dimensions, where the spacing is known.</p>"
            + table((*head, "Volumes", "Dice 3-D", "HD95 mm", "ASSD mm"), volume_rows, text=(0, 2, 3))
        )
    return html


def _against(metrics: dict[str, Any]) -> str:
    names = {"masks": "true masks", "pseudomasks": "pseudo-masks", "audit": "masks of a blind audit"}
    return escape(names.get(metrics["against"], metrics["against"]))


def _holds_nothing(study: Study, image: StudyImage, target: Target) -> bool:
    truth = study.true_mask(image.id, target.id)
    return truth is not None and not truth.any()


def _scores(metrics: dict[str, Any]) -> dict[str, float]:
    """Dice by label, of the images where it is defined."""
    return {
        label: float(values["dice"])
        for label, values in metrics.get("per_image", {}).items()
        if values.get("dice") is not None
    }


def _run_section(study: Study, run: RunFolder) -> str:
    spec, events = run.spec, run.events()
    end = next((event for event in reversed(events) if event.kind == "done"), None)
    started = next((event for event in events if event.kind == "started"), None)
    facts: dict[str, Any] = {"Run": run.id, "Method": spec.method, "Preset": spec.preset}
    if end:
        facts["Iterations"] = f"{end.step:,}"
        if (seconds := end.values.get("seconds")) is not None:
            facts["Training time"] = f"{float(seconds) / 60:.1f} min"
    if started and started.values.get("device"):
        facts["Device"] = started.values["device"]
    default = RunSpec()
    modalities = (image.modality for image in study.images.values())
    shown = {
        "Learned from split": spec.split,
        "Targets": ", ".join(spec.targets) or "all",
        "Normalisation": "; ".join(
            f"{modality}: {rule}" for modality, rule in rules_for(spec.normalisation, modalities).items()
        ),
        "Seed": spec.seed,
        "Image side": f"{spec.image_size_px} px",
        "Batch": spec.batch_size,
        "Student widths": "-".join(map(str, spec.student_widths)),
        "Teacher widths": "-".join(map(str, spec.teacher_widths)),
        "Encoder": f"{spec.encoder} ({spec.encoder_sha256[:8]})" if spec.encoder else "own",
        "Text": spec.text,
        "Optimiser": f"{spec.optimiser}, {spec.learning_rate:g} → {spec.final_learning_rate:g}",
        "EMA": f"{spec.ema_decay:g}" if spec.ema_decay else "off",
        "AFC / CWC weight": f"{spec.afc_weight:g} / {spec.cwc_weight:g}",
        "DARM share": f"{spec.darm_share:.0%}",
        "Augmentation": spec.augmentation,
        "Set apart to choose": f"{spec.holdout:.0%}"
        if spec.holdout != default.holdout
        else "nothing, fixed schedule",
    }
    facts |= shown | {f"Note: {name}": value for name, value in spec.notes.items()}
    items = "".join(
        f"<div><dt>{escape(str(k))}</dt><dd>{escape(str(v))}</dd></div>" for k, v in facts.items()
    )
    html = f'<h2>Run settings</h2><div class="panel"><dl>{items}</dl></div>'
    totals = (
        (event.step, (event.values.get("losses") or {}).get("total"))
        for event in events
        if event.kind == "step"
    )
    # A loss that was not finite travels as null.
    losses = [(step, float(total)) for step, total in totals if isinstance(total, (int, float))]
    if len(losses) > 2:
        html += f'<h3>Training loss over iterations</h3><div class="panel chart">{curve(losses)}</div>'
    return html


# The gallery


def _gallery_section(
    study: Study,
    run: RunFolder | None,
    metrics: dict[str, Any] | None,
    split: str | None,
    progress: Progress,
) -> str:
    rows: list[tuple[str, list[tuple[str, str | None]]]]
    scores = _scores(metrics) if metrics else {}
    single = len(study.targets) == 1
    keys = {
        (image.id if single else f"{image.id}.{target.id}"): (image, target)
        for image, target in study.iterate_keys()
    }
    scores = {
        label: score
        for label, score in scores.items()
        # A rightly empty mask is a perfect score with nothing to see.
        if label in keys and not (score == 1.0 and _holds_nothing(study, *keys[label]))
    }
    if scores and metrics:
        rows = [
            (name, [(label, f"Dice {scores[label]:.3f}") for label in labels])
            for name, labels in best_median_worst(scores)
        ]
        against, gaze = _against(metrics), escape(metrics["gaze"])
        note = (
            f"Chosen by the student's Dice against {against} (gaze: {gaze}), images rightly left empty aside."
        )
    else:
        seen = [
            label
            for label, (image, target) in keys.items()
            if (split is None or image.split == split) and (image.id, target.id) in study.fixations
        ]
        picked = (
            [seen[index] for index in np.linspace(0, len(seen) - 1, 3 * CARDS_PER_ROW).astype(int)]
            if seen
            else []
        )
        rows = [("", [(label, None) for label in dict.fromkeys(picked)])]
        note = "Spread evenly over the images that have been looked at."
    if not any(labels for _, labels in rows):
        return ""
    html = [
        f'<h2>Images</h2><p class="note">{note} Left: fixations and pseudo-mask levels. Right: masks.</p>',
        legend(),
    ]
    count, done = sum(len(labels) for _, labels in rows), 0
    for name, labels in rows:
        html.append(f"<h3>{escape(name)}</h3>" if name else "")
        cards = []
        for label, score in labels:
            image, target = keys[label]
            progress(done, count, image.id)
            cards.append(_card(study, run, image, target, score))
            done += 1
        html.append(f'<div class="gallery">{"".join(cards)}</div>')
    progress(count, count, "")
    return "\n".join(html)


def best_median_worst(scores: dict[str, float]) -> list[tuple[str, list[str]]]:
    """Pick labels from both ends and from around the middle of a ranking; none twice.

    Ties fall in the order of the labels, so that a report can be written again and be the same.
    """
    ranked = sorted(scores, key=lambda label: (-scores[label], label))
    if len(ranked) <= 3 * CARDS_PER_ROW:
        return [("All, best first", ranked)]
    middle = (len(ranked) - CARDS_PER_ROW) // 2
    return [
        ("Best", ranked[:CARDS_PER_ROW]),
        ("Median", ranked[middle : middle + CARDS_PER_ROW]),
        ("Worst", ranked[-CARDS_PER_ROW:]),
    ]


def _card(study: Study, run: RunFolder | None, image: StudyImage, target: Target, score: str | None) -> str:
    pseudomask = study.pseudomask(image.id, target.id)
    probability = study.prediction(run.id, image.id, target.id) if run else None
    overlay = Overlay(
        read=lambda: study.shown(image),
        fixations=tuple(study.fixations.get((image.id, target.id), ())),
        levels=tuple(pseudomask.masks) if pseudomask is not None else (),
        student=probability >= 0.5 if probability is not None else None,
        truth=study.true_mask(image.id, target.id),
    )
    name = image.id if len(study.targets) == 1 else f"{image.id} · {target.name}"
    explanation = load_explanation(study, image.id, target.id)
    text = described(explanation) if explanation else ""
    return (
        f"<figure>{overlay_figure(overlay)}"
        f'<figcaption><span class="name" title="{escape(name)}">{escape(name)}</span>'
        f"<b>{escape(score or '')}</b></figcaption>{text}</figure>"
    )


# Tables


def _spread(spread: dict[str, float | None], digits: int = 3) -> str:
    mean, sd = spread["mean"], spread["sd"]
    if mean is None:
        return "–"
    tail = f' <span class="sd">± {sd:.{digits}f}</span>' if sd is not None else ""
    return f"{mean:.{digits}f}{tail}"
