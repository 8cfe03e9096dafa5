"""Where a pixel of a mask comes from: the fixations, level, refiner, run, threshold and reviews that made it so.

Each fact is a short line with its values beside it, so that the window and the command line say the same.
"""

from __future__ import annotations

import contextlib
import datetime
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from gaze_capture.errors import UserError
from gaze_capture.fixations import Fixations
from gaze_capture.storage import explained_os_errors, read_json
from segmentation.dwell import NO_LESION, dwell_density, heat_at
from segmentation.gaze_gates import Gates
from segmentation.pseudomask import PRESETS, PseudoMask, gathered
from segmentation.records import MASK_THRESHOLD, StudyImage
from segmentation.review_index import COUNTED, Review
from segmentation.run_list import RunSummary, summary_of
from segmentation.study import Study

Floats = npt.NDArray[np.float64]

Kind = Literal[
    "pixel",
    "fixation",
    "gaze",
    "level",
    "kernel",
    "refiner",
    "run",
    "student",
    "teacher",
    "review",
    "truth",
    "note",
]
LEAST_SHARE = 0.01
MOST_FIXATIONS = 8
_NOTE = "made_by.json"
"""Beside predictions: the step of the weights that made them."""


_Origin = tuple[Fixations, int, int]
"""A look, which of its fixations, and the number of that in the recording's table for the image and target, from 1."""


@dataclass(frozen=True)
class Line:
    """One fact."""

    kind: Kind
    text: str
    """A sentence without its full stop."""
    values: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Story:
    """All that made a pixel what it is, or without a pixel the masks of an image."""

    image_id: str
    target_id: str
    run_id: str | None
    pixel: tuple[int, int] | None
    """x, y"""
    inside: dict[str, bool]
    """Whether each mask there is holds the pixel, by its name; empty without a pixel."""
    lines: tuple[Line, ...]
    fixations_xy: Floats
    """(K, 2) image pixels of the fixations whose heat reaches the pixel, the most of it first."""
    shares: Floats
    """(K,) of the heat at the pixel, 0..1."""

    def to_json(self) -> dict[str, Any]:
        """Return what ``provenance --json`` prints."""
        return {
            "image": self.image_id,
            "target": self.target_id,
            "run": self.run_id,
            "pixel": list(self.pixel) if self.pixel is not None else None,
            "inside": self.inside,
            "lines": [{"kind": line.kind, "text": line.text, **line.values} for line in self.lines],
        }

    def to_text(self) -> str:
        """Return the lines, one below the other."""
        return "\n".join(line.text for line in self.lines)


def provenance(
    study: Study,
    image_id: str,
    target_id: str | None = None,
    *,
    run_id: str | None = None,
    pixel: tuple[int, int] | None = None,
    hides: Sequence[str] = (),
) -> Story:
    """Tell what made a pixel (x, y) part of a target's masks in an image, or not.

    Parameters
    ----------
    run_id : whose predictions are meant; None for none
    pixel : None for all that made the image's masks, wherever
    hides : kinds of lines that are left out, for who must not know of them

    Raises
    ------
    UserError
        If the study has no such image, target or run, the pixel lies outside, or a file of it cannot be read.
    """
    image, target = study.image(image_id), study.target(target_id)
    height, width, _ = image.shape
    if pixel is not None and not (0 <= pixel[0] < width and 0 <= pixel[1] < height):
        raise UserError(
            f"The pixel {pixel[0]},{pixel[1]} lies outside of {image_id}, which is {width} x {height} pixels."
        )
    teller = _Teller(study, image, target.id, run_id, pixel)
    lines = [line for line in teller.tell() if line.kind not in hides]
    inside = {name: held for name, held in teller.inside.items() if _kind_of(name) not in hides}
    if pixel is not None:
        lines.insert(0, _pixel_line(image, pixel, inside))
    order = np.argsort(-teller.shares, kind="stable")
    reaching = order[teller.shares[order] >= LEAST_SHARE]
    return Story(
        image_id,
        target.id,
        run_id,
        pixel,
        inside,
        tuple(lines),
        teller.fixations_xy[reaching],
        teller.shares[reaching],
    )


def latest_prediction(study: Study, image_id: str, target_id: str) -> str | None:
    """Return the latest run that predicted a target in an image, or None."""
    return next(
        (
            run_id
            for run_id in reversed(study.run_ids())
            if study.prediction_path(run_id, image_id, target_id).exists()
        ),
        None,
    )


def _kind_of(mask: str) -> str:
    return mask.split(" ")[0]


def _pixel_line(image: StudyImage, pixel: tuple[int, int], inside: dict[str, bool]) -> Line:
    held = [name for name, holds in inside.items() if holds]
    free = [name for name, holds in inside.items() if not holds]
    text = f"Pixel {pixel[0]},{pixel[1]} of {image.source_name}: " + (
        "; ".join(part for part in (_listing("in", held), _listing("not in", free)) if part)
        or "there is no mask yet"
    )
    return Line("pixel", text, {"x": pixel[0], "y": pixel[1], "inside": held, "outside": free})


def _listing(word: str, names: Sequence[str]) -> str:
    titles = {"review": "the reviewed mask", "truth": "the true mask"}
    said = (titles.get(name, name if name.startswith("level") else f"the {name}'s mask") for name in names)
    return f"{word} {', '.join(said)}" if names else ""


class _Teller:
    """Collects the lines of one image, target and pixel."""

    def __init__(
        self,
        study: Study,
        image: StudyImage,
        target_id: str,
        run_id: str | None,
        pixel: tuple[int, int] | None,
    ) -> None:
        self.study, self.image, self.target_id, self.run_id, self.pixel = (
            study,
            image,
            target_id,
            run_id,
            pixel,
        )
        self.key = (image.id, target_id)
        self.inside: dict[str, bool] = {}
        self.fixations_xy = np.empty((0, 2))
        self.shares = np.empty(0)

    def tell(self) -> list[Line]:
        return [*self._pseudomask(), *self._run(), *self._reviews(), *self._truth()]

    def _at(self, values: npt.NDArray[Any], what: str) -> Any:
        assert self.pixel is not None
        height, width, _ = self.image.shape
        if values.shape != (height, width):
            raise UserError(
                f"The {what} of {self.image.id} is {values.shape[1]} x {values.shape[0]} pixels, its image {width} x "
                f"{height}; make it again."
            )
        return values[self.pixel[1], self.pixel[0]]

    # Gaze

    def _pseudomask(self) -> Iterator[Line]:
        looks = list(self.study.fixations.get(self.key, []))
        made = self.study.pseudomask(*self.key)
        if made is None:
            for look in looks:
                yield self._look(look, "no pseudo-mask was made of it")
            return
        if made.simulated_from:
            yield Line(
                "note",
                f"The gaze was simulated from {made.simulated_from}: no person looked",
                {"simulated_from": made.simulated_from},
            )
        yield from self._levels(made)
        yield from self._heat(made, looks)

    def _levels(self, made: PseudoMask) -> Iterator[Line]:
        levels = " / ".join(f"{level:g}" for level in made.thresholds)
        values: dict[str, Any] = {"thresholds": list(made.thresholds)}
        if self.pixel is None:
            yield Line("level", f"Pseudo-mask with the levels {levels}", values)
            return
        heat, count = (
            float(self._at(made.heatmap, "pseudo-mask")),
            int(self._at(made.level_map, "pseudo-mask")),
        )
        for number, threshold in enumerate(made.thresholds):
            self.inside[f"level {threshold:g}"] = count >= len(made.thresholds) - number
        reached = made.thresholds[len(made.thresholds) - count :]
        sign = (
            f"reaches {reached[0]:g}, {count} of the {len(made.thresholds)} levels {levels}"
            if count
            else f"is below every level ({levels})"
        )
        values |= {"heat": round(heat, 4), "levels_reached": count}
        yield Line("level", f"Heat {heat:.3f} {sign}", values)

    def _heat(self, made: PseudoMask, looks: Sequence[Fixations]) -> Iterator[Line]:
        settings = self.study.pseudomask_settings
        chosen = settings.annotators
        counted = [
            item
            for item in Gates(self.study).usable(self.key, looks)
            if chosen is None or item.annotator in chosen
        ]
        shape = (made.level_map.shape[0], made.level_map.shape[1])
        gaze = gathered(counted, settings, shape)
        same = (
            gaze is not None
            and gaze.xy_px.shape == made.xy_px.shape
            and np.array_equal(gaze.xy_px, made.xy_px)
            and np.array_equal(gaze.duration_ms, made.duration_ms)
            and np.allclose(gaze.sigma_px, made.sigma_px)
        )
        preset = PRESETS.get(str(made.notes.get("sigma")))
        if gaze is not None and same:
            lesion, weighed = gaze.lesion, gaze.counted
            origin: Sequence[tuple[int, int]] = gaze.origin
        else:
            yield Line(
                "note",
                "Gaze or settings have changed since this pseudo-mask was made, so that its fixations are told as it "
                "keeps them; make it again to see their recordings",
            )
            dwelt = made.duration_ms if made.weight is None else made.duration_ms * made.weight
            weighed = dwelt ** (preset.duration_power if preset else 1.0)
            lesion, origin = np.zeros(len(weighed), np.int64), ()
        before: float | None = None
        if self.pixel is not None:
            own, before = self._unrefined(made, weighed, lesion, shape)
            added = heat_at(made.xy_px, weighed, made.sigma_px, shape, self.pixel) * (lesion == own)
            total = added.sum()
            self.fixations_xy, self.shares = made.xy_px, added / total if total > 0 else added
            earlier: dict[str, int] = {}
            first: dict[int, int] = {}
            for look in looks:
                # A look that was split by zooming lies in several parts of the table.
                first[id(look)] = earlier.get(look.source, 0) + 1
                earlier[look.source] = first[id(look)] - 1 + len(look.duration_ms)
            yield from self._fixations(
                made, [(counted[place], row, first[id(counted[place])] + row) for place, row in origin]
            )
        else:
            for look in counted:
                yield self._look(look, "it counts")
        yield self._kernel(made)
        yield self._refiner(made, before)

    def _unrefined(
        self, made: PseudoMask, weighed: Floats, lesion: npt.NDArray[np.int64], shape: tuple[int, int]
    ) -> tuple[int, float]:
        """Return the lesion whose heat is the highest at the pixel, and that heat before it was refined."""
        densities = {}
        for number in np.unique(lesion).tolist():
            own = lesion == number
            densities[number] = dwell_density(made.xy_px[own], weighed[own], made.sigma_px[own], shape)
        highest = max(float(density.max()) for density in densities.values())
        heats = {}
        for number, density in densities.items():
            # As `lesion_heatmap` has it: what is of no lesion is measured against the highest peak of all.
            alone = number != NO_LESION or len(densities) == 1
            low, high = (float(density.min()), float(density.max())) if alone else (0.0, highest)
            heats[number] = (
                (float(self._at(density, "pseudo-mask")) - low) / (high - low) if high > low else 0.0
            )
        best = max(heats, key=lambda number: heats[number])
        return best, heats[best]

    def _fixations(self, made: PseudoMask, origin: Sequence[_Origin]) -> Iterator[Line]:
        order = np.argsort(-self.shares, kind="stable").tolist()
        reaching = [number for number in order if self.shares[number] >= LEAST_SHARE]
        for number in reaching[:MOST_FIXATIONS]:
            yield self._fixation(made, number, origin)
        rest = reaching[MOST_FIXATIONS:]
        if rest:
            share = float(self.shares[rest].sum())
            yield Line(
                "fixation",
                f"{len(rest)} more {'fixation gives' if len(rest) == 1 else 'fixations give'} {share:.0%} of the heat "
                "here",
                {"fixations": len(rest), "share": round(share, 4)},
            )
        if not reaching:
            yield Line("fixation", "No fixation's heat reaches this pixel", {"fixations": 0})

    def _fixation(self, made: PseudoMask, number: int, origin: Sequence[_Origin]) -> Line:
        assert self.pixel is not None
        offset = made.xy_px[number] - np.array(self.pixel)
        distance = float(np.hypot(*offset))
        share, duration = float(self.shares[number]), float(made.duration_ms[number])
        values: dict[str, Any] = {
            "duration_ms": round(duration, 1),
            "x_px": round(float(made.xy_px[number, 0]), 2),
            "y_px": round(float(made.xy_px[number, 1]), 2),
            "distance_px": round(distance, 2),
            "share": round(share, 4),
        }
        who = f"Fixation of {', '.join(made.annotators)}"
        degrees_per_px = made.degrees_per_px
        when = ""
        if origin:
            look, row, place = origin[number]
            degrees_per_px = look.degrees_per_px
            start = float(look.start_ms[row])
            values |= {
                "annotator": look.annotator,
                "recording": look.source,
                "fixation": place,
                "start_ms": round(start, 1),
            }
            who = f"Fixation {place} of {look.annotator} in {look.source}"
            when = f" from {start / 1000:.2f} s"
        parts = [f"{distance:.0f} px"]
        if degrees_per_px is not None:
            values["distance_deg"] = round(distance * degrees_per_px, 3)
            parts.append(f"{distance * degrees_per_px:.2f}°")
        if (spacing := self.image.spacing_mm) is not None:
            mm = math.hypot(offset[0] * spacing[1], offset[1] * spacing[0])
            values["distance_mm"] = round(mm, 3)
            parts.append(f"{mm:.1f} mm")
        return Line(
            "fixation",
            f"{who}: {duration:.0f} ms{when}, {' / '.join(parts)} away, gives {share:.0%} of the heat here",
            values,
        )

    def _look(self, look: Fixations, note: str) -> Line:
        simulated = f", simulated from {look.simulated_from}" if look.simulated_from else ""
        return Line(
            "gaze",
            f"Gaze of {look.annotator} in {look.source}: {len(look.duration_ms)} fixations, "
            f"{float(look.duration_ms.sum()) / 1000:.1f} s{simulated}; {note}",
            {
                "annotator": look.annotator,
                "recording": look.source,
                "fixations": len(look.duration_ms),
                "duration_ms": round(float(look.duration_ms.sum()), 1),
                "detector": look.detector,
                "simulated_from": look.simulated_from,
            },
        )

    def _kernel(self, made: PseudoMask) -> Line:
        low, high = float(made.sigma_px.min()), float(made.sigma_px.max())
        degrees = made.degrees_per_px
        one = high - low < 0.05
        sizes = f"{low:.1f} px" if one else f"{low:.1f} to {high:.1f} px"
        in_degrees = ""
        if degrees is not None:
            in_degrees = f" / {low * degrees:.2f}°" + ("" if one else f" to {high * degrees:.2f}°")
        name = str(made.notes.get("sigma", "unknown"))
        lesions = int(made.notes.get("lesions", 1))
        apart = f"; {lesions} regions have a peak of their own" if lesions > 1 else ""
        return Line(
            "kernel",
            f"Sigma {name}: {sizes}{in_degrees}{apart}",
            {
                "sigma": name,
                "sigma_px": [round(low, 3), round(high, 3)],
                "sigma_deg": None if degrees is None else [round(low * degrees, 4), round(high * degrees, 4)],
                "lesions": lesions,
                "pool": made.notes.get("pool"),
            },
        )

    def _refiner(self, made: PseudoMask, before: float | None) -> Line:
        preset = PRESETS.get(str(made.notes.get("sigma")))
        values: dict[str, Any] = {"refiner": made.refiner}
        setting = (
            f", centre {preset.centre:g}" if preset and made.refiner in ("diffusion", "centred-crf") else ""
        )
        if setting and preset:
            values["centre"] = preset.centre
        if made.refiner == "sam":
            values["segmenter"] = made.notes.get("segmenter")
            setting = f", segmenter {made.notes.get('segmenter')}"
        if made.refiner == "none":
            return Line("refiner", "No refiner: the heat is as the fixations give it", values)
        if before is None:
            return Line("refiner", f"Refined by {made.refiner}{setting}", values)
        # Without a refiner the levels that go with the kernel alone would count, unless the study names levels itself.
        of_preset = preset is not None and made.thresholds == preset.levels(made.refiner)
        least = min(preset.thresholds if preset is not None and of_preset else made.thresholds)
        was, holds = before >= least, int(self._at(made.level_map, "pseudo-mask")) > 0
        did = "kept it in" if was and holds else "kept it out" if not was and not holds else ""
        did = did or ("added it" if holds else "removed it")
        values |= {"heat_before": round(before, 4), "level_before": least, "did": did}
        return Line(
            "refiner",
            f"The refiner {made.refiner}{setting} {did}: heat {before:.3f} before, where {least:g} would be in without "
            "it",
            values,
        )

    # Networks

    def _run(self) -> Iterator[Line]:
        if self.run_id is None:
            return
        summary = summary_of(self.study, self.run_id)
        student = self.study.prediction(summary.id, *self.key)
        teacher = self.study.prediction(summary.id, *self.key, "teacher")
        yield self._run_line(summary)
        for kind, probability in (("student", student), ("teacher", teacher)):
            if probability is None:
                if kind == "student":
                    yield Line("student", "The student has not predicted this image", {})
                continue
            yield self._network("student" if kind == "student" else "teacher", summary.id, probability)

    def _run_line(self, run: RunSummary) -> Line:
        spec = run.spec
        name = f" ({run.name})" if run.name else ""
        begun = datetime.datetime.fromtimestamp(run.begun, datetime.timezone.utc)
        values: dict[str, Any] = {
            "run": run.id,
            "name": run.name or None,
            "begun": begun.isoformat(timespec="seconds"),
            "steps": run.step,
        }
        parts = [f"begun {begun:%Y-%m-%d %H:%M} UTC"]
        if spec is not None:
            values |= {"method": spec.method, "seed": spec.seed, "split": spec.split}
            learned = spec.split == self.image.split
            values["learned_from_this_split"] = learned
            parts = [
                f"method {spec.method}",
                f"seed {spec.seed}",
                *parts,
                f"{'learned' if learned else 'did not learn'} from this image's split {self.image.split}",
            ]
        return Line("run", f"Run {run.id}{name}: {', '.join(parts)}", values)

    def _network(
        self, network: Literal["student", "teacher"], run_id: str, probability: npt.NDArray[np.float32]
    ) -> Line:
        path = self.study.prediction_path(run_id, *self.key, network)
        note: dict[str, Any] = {}
        with contextlib.suppress(UserError):
            found = read_json(path.parent / _NOTE)
            note = found if isinstance(found, dict) else {}
        with explained_os_errors(path):
            made = datetime.datetime.fromtimestamp(path.stat().st_mtime, datetime.timezone.utc)
        step = f"weights of step {note['step']}, " if "step" in note else ""
        values: dict[str, Any] = {
            "network": network,
            "step": note.get("step"),
            "weights": note.get("weights"),
            "engine": note.get("engine"),
            "predicted": made.isoformat(timespec="seconds"),
            "threshold": MASK_THRESHOLD,
        }
        when = f"{step}predicted {made:%Y-%m-%d %H:%M} UTC"
        if self.pixel is None:
            return Line(network, f"The {network}: {when}", values)
        here = float(self._at(probability, f"{network}'s prediction"))
        holds = here >= MASK_THRESHOLD
        self.inside[network] = holds
        values |= {"probability": round(here, 4), "inside": holds}
        sign = "at or above" if holds else "below"
        return Line(
            network,
            f"The {network}'s probability is {here:.3f}, {sign} the threshold {MASK_THRESHOLD:g}; {when}",
            values,
        )

    # People

    def _reviews(self) -> Iterator[Line]:
        named = self.study.named_reviews(*self.key)
        counting = [name for name, review in named.items() if review.purpose in COUNTED][-1:]
        for name, review in reversed(named.items()):
            holds: bool | None = None
            if self.pixel is not None:
                mask = self.study.review_mask(*self.key, name)
                holds = None if mask is None else bool(self._at(mask, "reviewed mask"))
            if name in counting and holds is not None:
                self.inside["review"] = holds
            yield self._review(name, review, holds, name in counting)

    def _review(self, name: str, review: Review, holds: bool | None, counts: bool) -> Line:
        when = review.reviewed_at[:16].replace("T", " ")
        said = review.verdict + (f", {review.presence}" if review.presence else "")
        parts = [f"{review.annotator} {said} {when} UTC after {review.seconds_spent:.0f} s"]
        if review.purpose == "consensus":
            parts.append(f"from {review.subject}")
        elif review.subject == "image":
            parts.append("on the bare image")
        else:
            parts.append(f"of {review.subject} at {review.threshold:g}")
        if review.started_from:
            parts.append(f"begun from {review.started_from}")
        if review.edits:
            parts.append(f"edited by {', '.join(dict.fromkeys(review.edits))}")
        if review.gaze_on_mask_ms is not None:
            parts.append(f"eyes on the mask for {review.gaze_on_mask_ms:.0f} ms")
        if holds is not None:
            parts.append("holds this pixel" if holds else "leaves this pixel out")
        title = {"second-read": "Second read", "audit": "Audit", "consensus": "Consensus"}.get(
            review.purpose, "Review"
        )
        return Line(
            "review",
            f"{title}{' (this one counts)' if counts else ''}: {'; '.join(parts)}",
            {
                "review": name,
                "annotator": review.annotator,
                "verdict": review.verdict,
                "presence": review.presence,
                "purpose": review.purpose,
                "reviewed_at": review.reviewed_at,
                "seconds_spent": review.seconds_spent,
                "subject": review.subject,
                "threshold": review.threshold,
                "started_from": review.started_from,
                "edits": list(review.edits),
                "gaze_on_mask_ms": review.gaze_on_mask_ms,
                "counts": counts,
                "inside": holds,
            },
        )

    def _truth(self) -> Iterator[Line]:
        if self.pixel is None:
            return
        truth = self.study.true_mask(*self.key)
        if truth is not None:
            holds = bool(self._at(truth, "true mask"))
            self.inside["truth"] = holds
            yield Line(
                "truth",
                f"The true mask {'holds' if holds else 'leaves out'} this pixel",
                {"inside": holds},
            )
