"""Whether a run's teacher uses what it reads: records, and how they are said in plain words."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

from segmentation.bootstrap import Interval

Against = Literal["teacher", "pseudomask", "mask"]

NOTHING = "no words at all"
ANOTHER = "the words of another image"
"""Swaps of all words at once, beside those of single attributes."""

SAME_DICE = 0.95
"""Masks less alike than this have changed visibly."""

_PLACES: dict[Against, str] = {
    "teacher": "own mask",
    "pseudomask": "pseudo-mask",
    "mask": "true mask",
}


@dataclass(frozen=True)
class Share:
    """How much of the attention to one attribute lies inside a mask."""

    target: str
    attribute: str
    against: Against
    images: int
    inside: float
    """Mean share of the attention, 0..1."""
    chance: float
    """Mean share of the image that the mask covers: what attention without any preference would have."""
    difference: Interval
    """Of the two, clustered by group."""


@dataclass(frozen=True)
class Swap:
    """What happens to the teacher's mask when it is told something else."""

    target: str
    attribute: str
    """Or `NOTHING`, or `ANOTHER`."""
    images: int
    dice: Interval
    """Of the masks before and after, clustered by group: 1 where nothing changes."""
    changed: float
    """Share of images whose mask changed visibly (`SAME_DICE`)."""
    towards: Interval | None = None
    """How far the mask's centre moved towards the said place, in percent of the image's side; for locations alone."""
    gain: Interval | None = None
    """Dice against true masks after the swap minus before, where there are such."""


@dataclass(frozen=True)
class TextUse:
    """What was found of one run."""

    run: str
    learned: str
    """The kind of text the teacher learned from (`RunSpec.text`)."""
    split: str | None
    images: int
    strengths: tuple[float, ...]
    """The learned lambda of each scale, finest first."""
    shares: tuple[Share, ...]
    swaps: tuple[Swap, ...]

    def to_json(self) -> dict[str, Any]:
        """Return all of it; numbers that are not defined are null."""
        values: dict[str, Any] = _plain(dataclasses.asdict(self))
        return values

    @classmethod
    def from_json(cls, values: dict[str, Any]) -> TextUse:
        """Build from what `to_json` gave."""

        def interval(item: Sequence[float | None] | None) -> Interval | None:
            return None if item is None else Interval(*(math.nan if one is None else one for one in item))

        shares = tuple(
            Share(**{**item, "difference": interval(item["difference"])}) for item in values["shares"]
        )
        swaps = tuple(
            Swap(**{**item, **{name: interval(item[name]) for name in ("dice", "towards", "gain")}})
            for item in values["swaps"]
        )
        return cls(**{**values, "strengths": tuple(values["strengths"]), "shares": shares, "swaps": swaps})

    def to_text(self) -> str:
        """Return tables with a sentence for each swap."""
        where = f" of the split {self.split!r}" if self.split else ""
        strengths = ", ".join(f"{one:.3f}" for one in self.strengths)
        lines = [
            f"{self.run}, learned from text {self.learned!r}, on {self.images} images{where}",
            f"weight of the text (lambda) from the finest scale to the coarsest: {strengths}",
            "",
            "What the teacher's mask does when it is told something else (Dice of before and after, 95 % interval):",
        ]
        several = len({swap.target for swap in self.swaps}) > 1
        for swap in self.swaps:
            prefix = f"{swap.target}: " if several else ""
            lines.append(
                f"  {prefix + swap.attribute.replace('_', ' '):<28} {_range(swap.dice, '.3f')}  {swap.changed:4.0%} of "
                f"{swap.images} images change"
            )
            lines.append(f"    {_sentence(swap)}")
        lines += [
            "",
            "Where the words look: share of their attention inside a mask minus the mask's share of the image",
        ]
        rows: dict[tuple[str, str], list[str]] = {}
        for share in self.shares:
            said = f"{_PLACES[share.against]} {_range(share.difference, '+.1%')}"
            rows.setdefault((share.target, share.attribute), []).append(said)
        for (target, attribute), found in rows.items():
            prefix = f"{target}: " if several else ""
            lines.append(f"  {prefix + attribute.replace('_', ' '):<28} {', '.join(found)}")
        return "\n".join(lines)


def _plain(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def _range(interval: Interval, form: str) -> str:
    if not math.isfinite(interval.low):
        return f"{interval.mean:{form}}"
    return f"{interval.mean:{form}} [{interval.low:{form}}, {interval.high:{form}}]"


def _sentence(swap: Swap) -> str:
    """Say what a swap did."""
    how = (
        "hardly changes"
        if swap.dice.mean >= SAME_DICE
        else "changes"
        if swap.dice.mean >= 0.8
        else "changes a lot"
    )
    when = {
        NOTHING: "when it is told nothing",
        ANOTHER: "when it is told the words of another image",
    }.get(swap.attribute, f"when {swap.attribute.replace('_', ' ')} is swapped")
    said = f"The teacher's mask {how} {when}"
    if swap.towards is not None and math.isfinite(swap.towards.mean):
        far = f"{abs(swap.towards.mean):.1f} % of the image's side"
        if not swap.towards.excludes_zero:
            said += "; it does not move towards the place that was said"
        elif swap.towards.mean > 0:
            said += f"; it moves {far} towards the place that was said"
        else:
            said += f"; it moves {far} away from the place that was said"
    if swap.gain is not None and math.isfinite(swap.gain.mean):
        if not swap.gain.excludes_zero:
            said += "; it gets neither better nor worse for certain"
        else:
            better = "better" if swap.gain.mean > 0 else "worse"
            said += f"; it gets {better} by {abs(swap.gain.mean):.3f} Dice against the true masks"
    return said + "."
