"""What the command line's arguments may be: readers that say what is wrong."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from typing import Any, Literal

from gaze_capture.errors import UserError


def pair(kind: type) -> Callable[[str], tuple[Any, Any]]:
    """Return a reader of two numbers above 0, such as ``1920x1080``."""

    def parse(text: str) -> tuple[Any, Any]:
        first, cross, second = text.lower().partition("x")
        values = (kind(first), kind(second))
        if not cross or not all(0 < value < float("inf") for value in values):
            raise ValueError(text)
        return values

    parse.__name__ = "WxH"
    return parse


def rectangle(text: str) -> tuple[int, int, int, int]:
    """Read ``X,Y,WIDTH,HEIGHT``."""
    try:
        x, y, width, height = map(int, text.split(","))
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text} should be four whole numbers: X,Y,WIDTH,HEIGHT") from None
    if width < 1 or height < 1:
        raise argparse.ArgumentTypeError(f"{text} has no area")
    return x, y, width, height


def rule(text: str) -> tuple[str, str]:
    """Read how a modality is normalised, such as ``ct="window -600 1500"``."""
    from segmentation.intensity import check_rules

    modality, equals, rule = text.partition("=")
    if not equals:
        raise argparse.ArgumentTypeError(f'{text} should look like ct="window -600 1500"')
    try:
        check_rules({modality: rule})
    except UserError as error:
        raise argparse.ArgumentTypeError(str(error)) from None
    return modality, rule


def positive(text: str) -> float:
    """Read a number above 0."""
    value = float(text)
    if not 0 < value < float("inf"):
        raise argparse.ArgumentTypeError(f"{text} should be greater than 0")
    return value


def not_negative(text: str) -> float:
    """Read a number, 0 or more."""
    value = float(text)
    if not 0 <= value < float("inf"):
        raise argparse.ArgumentTypeError(f"{text} should be 0 or more")
    return value


FASTEST_HZ = 10_000.0
"""No eye tracker comes near it; beyond, a typing error would fill the memory."""
LONGEST_ANNOTATOR = 100


def rate(text: str) -> float:
    """Read a sampling rate in Hz."""
    value = positive(text)
    if value > FASTEST_HZ:
        raise argparse.ArgumentTypeError(f"{text} should be at most {FASTEST_HZ:g}")
    return value


def annotator(text: str) -> str:
    """Read an annotator's pseudonym."""
    name = text.strip()
    if not name:
        raise argparse.ArgumentTypeError("an annotator needs an id")
    if len(name) > LONGEST_ANNOTATOR or not name.isprintable():
        raise argparse.ArgumentTypeError(
            f"an annotator's id should be one line of at most {LONGEST_ANNOTATOR} characters"
        )
    return name


def count(text: str) -> int:
    """Read a whole number above 0."""
    value = int(text)
    if value < 1:
        raise argparse.ArgumentTypeError(f"{text} should be at least 1")
    return value


def seed(text: str) -> int:
    """Read what random numbers begin with."""
    value = int(text)
    if not 0 <= value < 2**32:
        raise argparse.ArgumentTypeError(f"{text} should be from 0 to {2**32 - 1}")
    return value


def margin(text: str) -> float | Literal["none"]:
    """Read a margin, or ``none``."""
    try:
        return "none" if text == "none" else float(text)
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text} should be a number such as 0.5, or none") from None


def yes(text: str) -> bool:
    """Read ``yes`` or ``no``."""
    if text not in ("yes", "no"):
        raise argparse.ArgumentTypeError(f"{text} should be yes or no")
    return text == "yes"
