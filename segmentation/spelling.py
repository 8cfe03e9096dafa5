"""When two words are the same word: models, researchers and files spell differently."""

from __future__ import annotations

import re

_LONGEST = 100
_SPELLINGS = {
    "center": "centre",
    "gray": "grey",
    "color": "colour",
    "caliber": "calibre",
    "tumor": "tumour",
}


def spelled(text: str) -> str:
    """Return text as it is compared: without regard to case, to American spelling, and to spaces, - and _."""
    return british(" ".join(re.split(r"[\s_-]+", text[:_LONGEST].strip())))


def british(text: str) -> str:
    """Return text in small letters and British spelling."""
    text = text.casefold()
    for american, spelling in _SPELLINGS.items():
        text = text.replace(american, spelling)
    return text
