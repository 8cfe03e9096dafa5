"""What a run reads of a study, as a hash: results that are kept stand for exactly this content. Never imports torch."""

from __future__ import annotations

import dataclasses
import functools
import hashlib
import json
from pathlib import Path
from typing import Any

from gaze_capture.storage import explained_os_errors
from segmentation.explanation import attribute_phrases, load_explanation, preset_of
from segmentation.job import RunSpec
from segmentation.label_gaze import simulated_ahead
from segmentation.learned_reviews import mark_of, teaching
from segmentation.records import StudyImage, group_of, image_record
from segmentation.study import Study


class StudyContent:
    """A study as it is when this is made; each part is read once, when it is asked for."""

    def __init__(self, study: Study) -> None:
        self._study = study
        self._images = functools.lru_cache(maxsize=None)(self._images_of)
        self._masks = functools.lru_cache(maxsize=None)(self._masks_of)
        self._labels = functools.lru_cache(maxsize=None)(self._labels_of)
        self._texts = functools.lru_cache(maxsize=None)(self._texts_of)

    def digest(self, spec: RunSpec, split: str) -> str:
        """Return the hash of all that training by a spec and measuring a split against true masks read.

        Images with their groups and normalisation; labels (pseudo-masks, presence, reviews) or true masks, whichever
        the spec learns from; the phrases where it reads any; the true masks that are measured against. A gaze session
        that changed no pseudo-mask changes nothing.

        Raises
        ------
        UserError
            If a split is empty, the spec names a target the study has not, or a file is damaged.
        """
        parts = {
            "targets": [dataclasses.asdict(self._study.target(target_id)) for target_id in spec.targets],
            "images": self._images(spec.split),
            "measured images": self._images(split),
            "measured masks": self._masks(split, spec.targets),
        }
        if learns_from_true_masks(spec) or spec.holdout:
            parts["masks"] = self._masks(spec.split, spec.targets)
        if learns_from_true_masks(spec):
            # Reviewed masks stand in where there is no true one; a review is never rewritten.
            if reviews := teaching(self._study, spec):
                parts["reviews"] = sorted(mark_of(self._study, review) for review in reviews.values())
        else:
            parts["labels"] = self._labels(spec.split, spec.targets)[0]
            if reads_explanations(spec):
                parts["texts"] = self._texts(spec.split, spec.targets)[0]
        return digest_of(parts)

    def simulated_from(self, spec: RunSpec) -> str | None:
        """Return ``"masks"`` or ``"saliency"`` where gaze or text that a spec learns from was simulated so, else None.

        A run that learns from true masks alone has neither, but reviewed ones may have begun with gaze.
        """
        if learns_from_true_masks(spec):
            return simulated_ahead(self._study, spec)
        sources = {self._study.simulated_from(), *self._labels(spec.split, spec.targets)[1]}
        if reads_explanations(spec):
            sources |= self._texts(spec.split, spec.targets)[1]
        sources.discard(None)
        return "masks" if "masks" in sources else min((one for one in sources if one), default=None)

    def _images_of(self, split: str) -> str:
        ordered = sorted(self._study.images_of(split), key=lambda image: image.id)
        return digest_of([_record(image) for image in ordered])

    def _masks_of(self, split: str, targets: tuple[str, ...]) -> str:
        found = {}
        for image in self._study.images_of(split):
            for target_id in targets:
                path = self._study.mask_path(image.id, target_id)
                if path.exists():
                    found[f"{image.id}.{target_id}"] = _digest_of_file(path)
        return digest_of(found)

    def _labels_of(self, split: str, targets: tuple[str, ...]) -> tuple[str, frozenset[str | None]]:
        study = self._study
        known, reviewed, said = study.pseudomask_keys(), study.reviewed(), study.presences()
        found: dict[str, Any] = {}
        sources: set[str | None] = set()
        for image in study.images_of(split):
            for target_id in targets:
                key = (image.id, target_id)
                values: dict[str, Any] = {"presence": said.get(key)}
                if key in known and (pseudomask := study.pseudomask(*key)) is not None:
                    sources.add(pseudomask.simulated_from)
                    # Everything but when and how it was written: made again from the same gaze, it is the same.
                    values["pseudomask"] = [
                        pseudomask.thresholds,
                        *(
                            hashlib.sha256(part.tobytes()).hexdigest()
                            for part in (
                                pseudomask.level_map,
                                pseudomask.heatmap,
                                pseudomask.xy_px,
                                pseudomask.duration_ms,
                            )
                        ),
                    ]
                if key in reviewed:
                    mask = study.reviewed_mask(*key)
                    values["review"] = [
                        reviewed[key].verdict,
                        reviewed[key].subject,
                        None if mask is None else hashlib.sha256(mask.tobytes()).hexdigest(),
                    ]
                found[f"{image.id}.{target_id}"] = values
        return digest_of(found), frozenset(sources)

    def _texts_of(self, split: str, targets: tuple[str, ...]) -> tuple[str, frozenset[str | None]]:
        study = self._study
        known = study.explanation_keys()
        found: dict[str, Any] = {}
        sources: set[str | None] = set()
        for image in study.images_of(split):
            for target_id in targets:
                if (image.id, target_id) not in known:
                    continue
                explanation = load_explanation(study, image.id, target_id)
                if explanation is None:
                    continue
                sources.add(explanation.simulated_from)
                phrases = attribute_phrases(explanation, preset_of(explanation, study.folder))
                found[f"{image.id}.{target_id}"] = phrases
        return digest_of(found), frozenset(sources)


def learns_from_true_masks(spec: RunSpec) -> bool:
    """Whether a run's labels are true masks and no gaze."""
    return spec.method == "supervised"


WITHOUT_TEXT = ("gaze-multilevel", "gaze-track", "partial", "supervised")
"""Methods that read no text whatever the spec says of it; any other is taken to read what its spec names."""


def reads_explanations(spec: RunSpec) -> bool:
    """Whether what is said of images may reach a run; imported embeddings are told apart by the spec itself."""
    return spec.method not in WITHOUT_TEXT and spec.text not in ("none", "empty") and not spec.text_embeddings


def digest_of(values: Any) -> str:
    """Return the SHA-256 of a JSON-ready value, whatever the order of its keys."""
    text = json.dumps(values, sort_keys=True, ensure_ascii=False)
    return hashlib.sha256(text.encode("utf-8", errors="surrogatepass")).hexdigest()


def _record(image: StudyImage) -> dict[str, Any]:
    """Return what of an image's record decides results; where it came from and notes on it do not."""
    ignored = ("path", "source_name", "source_sha256", "captured", "burned_in")
    return {name: value for name, value in image_record(image).items() if name not in ignored}


def _digest_of_file(path: Path) -> str:
    with explained_os_errors(path):
        return hashlib.sha256(path.read_bytes()).hexdigest()


def groups_of(study: Study, split: str) -> dict[str, str]:
    """Return what each image of a split is no independent evidence of: its group, else its volume, else itself.

    Raises
    ------
    UserError
        If the split is empty.
    """
    return {image.id: group_of(image) for image in study.images_of(split)}
