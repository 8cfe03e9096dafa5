"""From a clinician's free words to the attributes of a preset: looked up, never guessed.

A word counts where it stands in the text, is not negated, and is said of the attribute in question; what was not said,
or said in two ways, is left at ``cannot assess``. The words themselves are kept as remarks.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from segmentation.explanation_presets import (
    ABSENT,
    CANNOT_ASSESS,
    OPEN_WORDS,
    Attribute,
    Preset,
    published_attributes,
)
from segmentation.reply import MAX_REMARKS, plain_text
from segmentation.spelling import british

MAX_WORDS_CHARACTERS = 4000
"""Longer texts are no description of one region."""

_SYNONYMS: Mapping[str, Mapping[str, Sequence[str]]] = {
    "location": {"whole image": ("entire image", "all of the image", "whole picture", "entire picture")},
    "shape": {
        "round": ("rounded", "circular", "roundish"),
        "oval": ("ovoid", "elliptical", "oval shaped", "egg shaped"),
        "elongated": ("elongate", "long and narrow", "cigar shaped"),
        "lobulated": ("lobular", "bilobed", "multilobulated", "lobed"),
        "irregular": ("irregularly shaped", "irregular in shape"),
    },
    "boundary": {
        "sharp": (
            "well demarcated", "well defined", "well circumscribed", "well delineated", "clearly demarcated",
            "clearly defined", "sharply demarcated", "sharply defined", "clear cut", "distinct border",
            "distinct margin", "distinct edge", "clear border", "clear margin", "clear edge", "crisp",
        ),
        "moderately sharp": (
            "fairly sharp", "fairly well defined", "fairly well demarcated", "moderately well defined",
            "moderately well demarcated", "reasonably well defined", "partly well defined",
        ),
        "blurred": (
            "blurry", "fuzzy", "indistinct", "ill defined", "ill demarcated", "poorly defined", "poorly demarcated",
            "poorly delineated", "not well defined", "not well demarcated", "not clearly defined",
            "not clearly demarcated", "not sharply demarcated", "hazy border", "hazy margin", "hazy edge",
            "unclear border", "unclear margin", "unclear edge", "vague border", "vague margin",
        ),
    },
    "colour": {
        "red": ("reddish", "erythematous"),
        "pink": ("pinkish", "rose coloured"),
        "orange": ("orangish",),
        "brown": ("brownish", "tan"),
        "yellow": ("yellowish",),
        "green": ("greenish",),
        "blue": ("bluish", "blueish"),
        "purple": ("purplish", "violet", "violaceous"),
        "white": ("whitish",),
        "grey": ("greyish",),
        "black": ("blackish",),
    },
    "colour_contrast": {
        "redder": ("more red", "more reddish", "more erythematous"),
        "yellower": ("more yellow", "more yellowish"),
        "greener": ("more green",),
        "bluer": ("more blue", "more bluish"),
        "paler": ("more pale", "pale compared", "less red"),
        "similar": ("same colour", "similar colour", "similar in colour", "colour similar", "isochromatic"),
    },
    "intensity": {
        "much darker": ("far darker", "considerably darker", "markedly hypointense", "strongly hypointense"),
        "darker": ("hypointense", "hypoechoic", "hypodense", "dark compared"),
        "similar": (
            "isointense", "isoechoic", "isodense", "same brightness", "as bright as", "similar brightness",
            "similar in brightness",
        ),
        "brighter": ("lighter", "hyperintense", "hyperechoic", "hyperdense", "bright compared"),
        "much brighter": (
            "far brighter", "much lighter", "considerably brighter", "markedly hyperintense",
            "strongly hyperintense",
        ),
    },
    "texture": {
        "smooth": ("smooth surface",),
        "fine": ("finely granular", "fine grained", "fine texture"),
        "coarse": ("coarsely granular", "coarse grained"),
        "uneven": ("heterogeneous", "inhomogeneous", "bumpy"),
    },
    "confidence": {
        "high": ("definitely", "certainly", "i am sure", "i'm sure", "quite sure", "no doubt", "confident"),
        "moderate": ("probably", "likely", "fairly sure"),
        "low": (
            "not sure", "unsure", "not certain", "uncertain", "possibly", "perhaps", "maybe", "not confident",
            "hard to tell", "difficult to tell",
        ),
    },
}  # fmt: skip
"""What people say in place of the published words, in British spelling."""
_SAID_ALONE: Mapping[str, Sequence[str]] = {"confidence": ("high", "moderate", "low"), "texture": ("fine",)}
"""Published words too common to count unless what they are said of is named."""

_ABOUT: Mapping[str, Sequence[str]] = {
    "shape": ("shape", "outline", "form", "contour"),
    "boundary": ("boundary", "boundaries", "border", "margin", "edge", "demarcation"),
    "colour": ("colour", "coloured", "hue"),
    "texture": ("texture", "surface", "pattern"),
    "confidence": ("confidence",),
    "intensity": ("intensity", "brightness", "signal"),
}
"""Nouns that say which attribute a word beside them is of."""
_NEGATIONS = frozenset(
    "not no non never without isn't aren't wasn't doesn't neither nor nowhere hardly lacks lacking cannot".split()
)
_COMMON = frozenset("a an as at be by do i if in is it no of on or so to up us we".split())
"""Classifications have types that are spelled like these."""
_LINKS = frozenset(
    "and or is are was were looks look appears appear seems seem very rather quite slightly a".split()
)
_FOLLOWING = _LINKS | frozenset(
    "with in on at of than to by near around about covering located compared but which that it this here there".split()
)
"""What may follow a word that is said of the target itself: "red vessels" are not a red polyp."""
_OF_THE_TARGET = ("shape", "colour", "texture")
_NUMBER = r"\d{1,3}(?:[.,]\d{1,2})?"
_OF_THE_IMAGE = re.compile(
    r"\s*(?:$|[.,;:)]|and\b|but\b|area\b|coverage\b|"
    r"of (?:the |this )?(?:whole |entire )?(?:image|picture|frame|view|field|area)\b)"
)
"""What follows a percentage that is an area."""
_FRACTIONS = {"half": 50.0, "a third": 33.0, "one third": 33.0, "a quarter": 25.0, "one quarter": 25.0}

_VERTICAL = {"upper": "upper", "top": "upper", "lower": "lower", "bottom": "lower"}
_MIDDLE = frozenset(("centre", "central", "centrally", "middle", "mid"))
_SIDES = {"left": "left", "right": "right"}
_IN_THE_PICTURE = frozenset(
    "corner side quadrant third part half hand area region portion sector of in at near and with is the image picture "
    "frame view field".split()
)
"""May follow *left* or *right* where the picture's is meant; "left lobe" is the patient's."""
_LESIONS = frozenset(
    "polyp lesion mass nodule region spot tumour adenoma ulcer cyst focus foci opacity opacities naevus nevus target "
    "finding plaque papule patch".split()
)
_MANY = {
    "one": "one", "single": "one", "solitary": "one", "two": "two", "2": "two", "pair": "two", "three": "several",
    "3": "several", "four": "several", "4": "several", "five": "several", "5": "several", "several": "several",
    "multiple": "several", "many": "several", "numerous": "several",
}  # fmt: skip


def read_own_words(words: str, preset: Preset, target_name: str = "") -> dict[str, Any]:
    """Find the attributes of a preset in free words.

    Parameters
    ----------
    words : what somebody said or typed of one target in one image
    preset : with the attributes that can be asked of the image
    target_name : what is looked for, so that "two polyps" and "no polyp" are understood of it

    Returns
    -------
    attributes that keep the preset's schema: ``cannot assess`` wherever the words do not tell or tell two things;
    all ``absent`` where the words say only that there is no such target; the words themselves as remarks
    """
    remarks = plain_text(words, MAX_REMARKS)
    nouns = frozenset(_singular(key) for key in (*_LESIONS, *(token.key for token in _tokens(target_name))))
    clauses = list(_clauses(words[:MAX_WORDS_CHARACTERS]))
    if any(_denies(clause, nouns) for clause in clauses):
        return {**preset.saying(ABSENT), "remarks": remarks}
    attributes = preset.saying(CANNOT_ASSESS)
    attributes["remarks"] = remarks
    for attribute in preset.attributes:
        if attribute.name == "location":
            found = {place for clause in clauses if (place := _place(clause))}
            found |= _matches(clauses, attribute, preset, nouns)
        elif attribute.name == "count":
            found = {said for clause in clauses if (said := _count(clause, nouns))}
        elif attribute.kind == "words":
            found = _matches(clauses, attribute, preset, nouns)
        else:
            continue
        if len(found) == 1:
            attributes[attribute.name] = found.pop()
    attributes.update(_numbers(words[:MAX_WORDS_CHARACTERS], preset))
    return attributes


@dataclass(frozen=True)
class _Token:
    text: str
    """As it was written."""
    key: str
    """Folded: small letters, British spelling."""


@dataclass(frozen=True)
class _Alias:
    """One way to say a word of a preset."""

    word: str
    tokens: tuple[_Token, ...]
    exact: bool
    """Whether capitals count."""


def _tokens(text: str) -> tuple[_Token, ...]:
    text = text.replace("’", "'")
    return tuple(_Token(found, british(found)) for found in re.findall(r"[^\W_]+(?:'[^\W_]+)?|[+]", text))


def _singular(word: str) -> str:
    if len(word) > 4 and word.endswith("es") and word[-4:-2] in ("ss", "sh", "ch"):
        return word[:-2]
    return word[:-1] if len(word) > 3 and word.endswith("s") and not word.endswith("ss") else word


def _clauses(words: str) -> Iterator[tuple[_Token, ...]]:
    """Split a text where the subject or the negation may change; a decimal point or comma ends nothing."""
    for part in re.split(r"[;:!?\n]+|[.,](?!\d)|\bbut\b|\balthough\b|\bwhereas\b|\brather than\b", words):
        if tokens := _tokens(part):
            yield tokens


def _aliases(attribute: Attribute) -> list[_Alias]:
    """Return all ways to say the words of an attribute, the longest first."""
    published = next((one for one in published_attributes() if one.name == attribute.name), None)
    synonyms = _SYNONYMS.get(attribute.name, {}) if published is not None else {}
    found = []
    for word in attribute.words:
        if word in OPEN_WORDS:
            continue
        # "pedunculated (0-Ip)" is said in full, by its name or by its code.
        ways = {word, *re.split(r"\s*[()/]\s*", word), *synonyms.get(word, ())}
        for way in ways:
            tokens = _tokens(way)
            if not tokens:
                continue
            short = len(tokens) == 1 and (tokens[0].key in _COMMON or len(tokens[0].key) < 3)
            found.append(_Alias(word, tokens, exact=short))
    return sorted(found, key=lambda alias: -len(alias.tokens))


def _matches(
    clauses: Sequence[tuple[_Token, ...]], attribute: Attribute, preset: Preset, lesions: frozenset[str]
) -> set[str]:
    """Return the words of an attribute that a text says of it."""
    aliases = _aliases(attribute)
    needs_noun = _SAID_ALONE.get(attribute.name, ())
    found = set()
    for clause in clauses:
        taken: set[int] = set()
        for alias in aliases:
            for start in range(len(clause) - len(alias.tokens) + 1):
                span = range(start, start + len(alias.tokens))
                if taken & set(span) or not _same(clause, start, alias):
                    continue
                # A longer word that is negated or another's must not be found again by a part of it.
                taken |= set(span)
                if _negated(clause, start):
                    continue
                named = _named(clause, span, preset)
                alone = len(span) == 1 and clause[start].key in needs_noun
                alone |= attribute.name in _OF_THE_TARGET and not _of_the_target(
                    clause, span[-1] + 1, preset, lesions
                )
                if attribute.name in named or (not named and not alone and _owns(attribute, alias, preset)):
                    found.add(alias.word)
    return found


def _of_the_target(clause: Sequence[_Token], place: int, preset: Preset, lesions: frozenset[str]) -> bool:
    """Whether what follows a word, other adjectives aside, is the target or no noun at all."""
    adjectives = {
        token.key
        for one in preset.attributes
        if one.kind == "words"
        for alias in _aliases(one)
        for token in alias.tokens
    }
    while (
        place < len(clause)
        and clause[place].key in adjectives
        and _singular(clause[place].key) not in lesions
    ):
        place += 1
    return place == len(clause) or clause[place].key in _FOLLOWING or _singular(clause[place].key) in lesions


def _same(clause: Sequence[_Token], start: int, alias: _Alias) -> bool:
    for token, wanted in zip(clause[start:], alias.tokens, strict=False):
        if alias.exact:
            if token.text != wanted.text:
                return False
        elif token.key != wanted.key and _singular(token.key) != _singular(wanted.key):
            return False
    return True


def _negated(clause: Sequence[_Token], start: int) -> bool:
    """Whether a negation stands up to three words before; "not only" is none."""
    before = [token.key for token in clause[max(0, start - 3) : start]]
    return any(
        word in _NEGATIONS and before[index + 1 : index + 2] != ["only"] for index, word in enumerate(before)
    )


def _named(clause: Sequence[_Token], span: range, preset: Preset) -> set[str]:
    """Return the attributes whose noun stands beside a word: "irregular margins", "margins are irregular"."""
    keys = [_singular(token.key) for token in clause]
    nouns = {one.name: _nouns(one) for one in preset.attributes}
    for step, place in ((1, span[-1] + 1), (-1, span[0] - 1)):
        looked = 0
        while 0 <= place < len(keys) and looked < 4:
            here = {name for name, own in nouns.items() if _noun_at(keys, place, own, step)}
            if here:
                return here
            # After the word comes its noun, perhaps behind another adjective; before it, the noun and a verb.
            if step < 0 and keys[place] not in {_singular(link) for link in _LINKS}:
                break
            if step > 0 and clause[place].key in ("is", "are", "with", "in", "of", "on", "at"):
                break
            place += step
            looked += 1
    return set()


def _nouns(attribute: Attribute) -> list[tuple[str, ...]]:
    own = [(noun,) for noun in _ABOUT.get(attribute.name, ())]
    return [*own, tuple(_singular(token.key) for token in _tokens(attribute.name.replace("_", " ")))]


def _noun_at(keys: Sequence[str], place: int, nouns: Sequence[tuple[str, ...]], step: int) -> bool:
    for noun in nouns:
        start = place if step > 0 else place - len(noun) + 1
        if start >= 0 and tuple(keys[start : start + len(noun)]) == tuple(_singular(word) for word in noun):
            return True
    return False


def _owns(attribute: Attribute, alias: _Alias, preset: Preset) -> bool:
    """Whether a word that stands alone is this attribute's: the only one that has it, or the published one."""
    wanted = " ".join(token.key for token in alias.tokens)
    others = [
        one
        for one in preset.attributes
        if one.name != attribute.name
        and one.kind == "words"
        and any(" ".join(token.key for token in other.tokens) == wanted for other in _aliases(one))
    ]
    published = {one.name for one in published_attributes()}
    return not others or (attribute.name in published and not published & {one.name for one in others})


def _place(clause: Sequence[_Token]) -> str | None:
    """Return the field of the 3 x 3 grid that a clause names, both row and column told; or None."""
    rows, columns, middle = set(), set(), False
    for index, token in enumerate(clause):
        following = clause[index + 1].key if index + 1 < len(clause) else "of"
        before = clause[index - 1].key if index else ""
        pictures = following in _IN_THE_PICTURE or following in {*_VERTICAL, *_MIDDLE, *_SIDES}
        if (
            _negated(clause, index)
            or not pictures
            or before.endswith("'s")
            or before in ("his", "her", "their")
        ):
            continue
        if token.key in _VERTICAL:
            rows.add(_VERTICAL[token.key])
        elif token.key in _SIDES:
            columns.add(_SIDES[token.key])
        elif token.key in _MIDDLE:
            middle = True
    if len(rows) > 1 or len(columns) > 1:
        return None
    if rows and columns:
        return f"{rows.pop()} {columns.pop()}"
    if not middle:
        return None
    if rows:
        return f"{rows.pop()} centre"
    return f"centre {columns.pop()}" if columns else "centre"


def _count(clause: Sequence[_Token], nouns: frozenset[str]) -> str | None:
    """Return how many targets a clause speaks of: a number and, at most two words later, the noun."""
    for index, token in enumerate(clause):
        said = _MANY.get(token.key)
        if said is None or _negated(clause, index):
            continue
        for later in clause[index + 1 : index + 4]:
            if _singular(later.key) in nouns:
                return said
    return None


def _denies(clause: Sequence[_Token], nouns: frozenset[str]) -> bool:
    """Whether a clause says that there is no target: "no polyp", "no visible lesion"; "no other polyp" is none."""
    keys = [_singular(token.key) for token in clause]
    for index, key in enumerate(keys):
        if key in ("no", "without"):
            following = keys[index + 1 : index + 4]
            place = next((at for at, word in enumerate(following) if word in nouns), None)
            if place is not None and not {"other", "second", "further", "additional", "more"} & set(
                following[:place]
            ):
                return all(
                    word in ("visible", "obviou", "definite", "clear", "a", "any")
                    for word in following[:place]
                )
    return False


def _numbers(words: str, preset: Preset) -> dict[str, float]:
    """Return the area in percent of the image, and a length where one attribute is one."""
    found: dict[str, float] = {}
    text = " ".join(words.casefold().split())
    areas = set()
    pattern = rf"({_NUMBER})(?:\s?(?:-|–|to)\s?({_NUMBER}))?\s?(?:%|percent\b|per cent\b)(?=(.{{0,24}}))"
    for match in re.finditer(pattern, text):
        # "30 % of the circumference" is no share of the image.
        if _OF_THE_IMAGE.match(match[3]):
            values = [_value(part) for part in match.groups()[:2] if part]
            areas.add(sum(values) / len(values))
    for fraction, percent in _FRACTIONS.items():
        if re.search(rf"\b{fraction} (?:of )?(?:the )?(?:whole )?(?:image|picture|frame|view)\b", text):
            areas.add(percent)
    if len(areas) == 1 and 0 <= (area := areas.pop()) <= 100 and "area_percent" in preset:
        found["area_percent"] = area
    lengths = [one.name for one in preset.attributes if one.kind == "millimetres"]
    told = [
        _value(number) * (10 if unit == "cm" else 1)
        for several, unit in re.findall(rf"({_NUMBER}(?:\s?(?:x|×|by)\s?{_NUMBER})*)\s?(mm|cm)\b", text)
        for number in re.findall(_NUMBER, several)
    ]
    if len(lengths) == 1 and told:
        found[lengths[0]] = max(told)
    return found


def _value(text: str) -> float:
    return float(text.replace(",", "."))
