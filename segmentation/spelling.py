"""When two words are the same word: models, researchers and files spell differently."""

from __future__ import annotations

import re

_LONGEST = 100
_SPELLINGS = {"center": "centre", "gray": "grey", "color": "colour", "caliber": "calibre"}


def spelled(text: str) -> str:
    """Return text as it is compared: without regard to case, to American spelling, and to spaces, - and _."""
    words = " ".join(re.split(r"[\s_-]+", text[:_LONGEST].strip().casefold()))
    for american, british in _SPELLINGS.items():
        words = words.replace(american, british)
    return words
