"""Finding images that show one scene: a frame saved twice, cropped, re-encoded, or seconds later from elsewhere.

Such images must not fall on both sides of a split. Four kinds of evidence are weighed, each blind to what the images
of one machine share anyway (the black frame, coloured insets, burned-in text, highlights of the lamp):

- the pixels are the same;
- small, contrast-normalised thumbnails correlate almost perfectly;
- local features lie in one affine arrangement in both, in many places of the image;
- several lines of burned-in text read the same up to their last characters, and hardly anywhere else in the set:
  the same date, the same minute of the clock, the same minute of the timer. No character is recognised for that.

A known time of capture, or a burned-in date that agrees, lets weaker local evidence count.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, Literal, TypeVar, cast

import cv2
import numpy as np
import numpy.typing as npt
import scipy.sparse

from segmentation.images import resize
from segmentation.progress import Progress, no_progress

Kind = Literal["same pixels", "thumbnail", "local features", "capture time", "burned-in text"]

WORKING_SIDE_PX = 352
"""The longer side at which images are compared; burned-in text of a full-screen grab stays legible in it."""

MOST_KEYPOINTS = 400
CANDIDATES = 40
"""Most similar images by visual words with which each image is compared in full."""

THUMBNAIL_PX = 32
SAME_THUMBNAIL = 0.965
"""Correlation from which two thumbnails are one picture."""

ENOUGH_PLACES = 12
"""Places (16 px squares) of an image that must support one arrangement of local features."""
ENOUGH_PLACES_AT_ONE_TIME = 8
"""The same where capture time or a burned-in date speaks for the pair, too."""
STRONG_PLACES = 20
"""A link from which groups of any size are merged."""
LARGEST_BY_ONE_LINK = 4
"""Groups that would become larger need a strong link or two links."""

_PLACE_PX = 16
_WORDS = 4096
_RATIO = 0.85
_NEAR_PX = 12.0
_STILL_PX = 3.0
_ALIKE_WHEN_STILL = 0.8

_TEXT_HALF_HEIGHT = 5
_TEXT_STEP, _TEXT_WIDTH = 5, 11
_TEXT_CORRELATION = 0.72
_TEXT_RARE = 0.05
_TEXT_LEAST_IMAGES = 20
_DATE_PX, _MINUTE_PX = 40, 24

_Array = npt.NDArray[np.float32]
_Bool = npt.NDArray[np.bool_]
_Index = npt.NDArray[np.intp]
_Item = TypeVar("_Item")
_Result = TypeVar("_Result")


@dataclass(frozen=True)
class Evidence:
    """Why two images belong together."""

    first: int
    second: int
    kind: Kind
    score: float
    """Thumbnails: correlation; local features: places in agreement; text: pixels read alike; else 1."""


@dataclass(frozen=True)
class Clusters:
    """Images by their number in the sequence that was compared."""

    groups: tuple[tuple[int, ...], ...]
    """Each of two or more, ascending."""
    evidence: tuple[Evidence, ...]
    """Links within the groups."""


@dataclass(frozen=True, eq=False)
class TextLine:
    """A line of burned-in text as it stands in the image."""

    y_px: float
    """Its middle."""
    x_px: int
    """The left edge of `strokes`."""
    strokes: npt.NDArray[np.uint8]
    """(13, W): bright strokes on black; row 6 is the rounded middle."""


@dataclass(frozen=True, eq=False)
class Fingerprint:
    """What is kept of an image for comparison, about 65 kB."""

    digest: bytes
    """Of the pixels and their shape."""
    shape: tuple[int, int]
    """Height and width at working size."""
    thumbnail: npt.NDArray[np.float16]
    """(1024,), mean 0, norm 1; all 0 where the image has no structure."""
    keypoints: _Array
    """(K, 4): x, y, size in pixels at working size, angle in degrees."""
    descriptors: npt.NDArray[np.uint8]
    """(K, 128): RootSIFT times 255."""
    lines: tuple[TextLine, ...]


def fingerprint(display: npt.NDArray[np.uint8]) -> Fingerprint:
    """Describe an image for comparison.

    Parameters
    ----------
    display : (H, W, 3) RGB, as the screen shows it
    """
    digest = hashlib.sha256(repr(display.shape).encode() + np.ascontiguousarray(display).tobytes()).digest()
    scale = WORKING_SIDE_PX / max(display.shape[:2])
    height, width = (max(16, round(side * scale)) for side in display.shape[:2])
    pixels = resize(display, height, width)
    solid, bright = _overlay(pixels)
    picture = _normalised(cv2.cvtColor(pixels, cv2.COLOR_RGB2GRAY).astype(np.float32), solid | bright)
    keypoints, descriptors = _local_features(picture, ~(solid | bright))
    return Fingerprint(
        digest, (height, width), _thumbnail(picture), keypoints, descriptors, _text_lines(pixels)
    )


# What belongs to the machine and not to the scene


def _overlay(pixels: npt.NDArray[np.uint8]) -> tuple[_Bool, _Bool]:
    """Return where the frame and insets lie, and where text and highlights do; both with a margin."""
    low, high = pixels.min(axis=2), pixels.max(axis=2)
    dark = cv2.morphologyEx((high < 28).astype(np.uint8), cv2.MORPH_OPEN, np.ones((9, 9), np.uint8))
    labels = cv2.connectedComponentsWithStats(dark, connectivity=4)[1]
    edge = np.unique(np.concatenate([labels[0], labels[-1], labels[:, 0], labels[:, -1]]))
    frame = np.isin(labels, edge[edge > 0])
    grey = cv2.cvtColor(pixels, cv2.COLOR_RGB2GRAY).astype(np.float32)
    variance = cv2.blur(grey * grey, (9, 9)) - cv2.blur(grey, (9, 9)) ** 2
    flat = cv2.morphologyEx((variance < 0.6).astype(np.uint8), cv2.MORPH_OPEN, np.ones((9, 9), np.uint8)) > 0
    # No tissue is saturated green or blue: an inset is.
    red, green, blue = (pixels[:, :, channel].astype(np.int16) for channel in range(3))
    saturated = ((np.maximum(green, blue) - red) > 50).astype(np.uint8)
    opened = cv2.morphologyEx(saturated, cv2.MORPH_OPEN, np.ones((7, 7), np.uint8))
    inset = cv2.dilate(opened, np.ones((25, 25), np.uint8))
    solid = cv2.dilate((frame | flat | (inset > 0)).astype(np.uint8), np.ones((11, 11), np.uint8)) > 0
    strokes = cv2.morphologyEx(low, cv2.MORPH_TOPHAT, cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (15, 15)))
    bright = cv2.dilate(((strokes > 35) | (low > 235)).astype(np.uint8), np.ones((5, 5), np.uint8)) > 0
    return solid, bright


def _normalised(grey: _Array, hidden: _Bool) -> npt.NDArray[np.uint8]:
    """Fill what is hidden from around it and even out brightness and contrast."""
    seen = (~hidden).astype(np.float32)
    near, far = (_blurred(grey * seen, sigma) for sigma in (6, 40))
    near_weight, far_weight = (_blurred(seen, sigma) for sigma in (6, 40))
    around = np.where(
        near_weight > 0.02, near / np.maximum(near_weight, 1e-6), far / np.maximum(far_weight, 1e-6)
    )
    filled = np.where(hidden, around, grey).astype(np.float32)
    detail = filled - _blurred(filled, 12)
    contrast = np.sqrt(_blurred(detail * detail, 16)) + 4
    picture: npt.NDArray[np.uint8] = np.clip(128 + 42 * detail / contrast, 0, 255).astype(np.uint8)
    return picture


def _blurred(values: _Array, sigma_px: float) -> _Array:
    """Blur; a wide blur is done on a coarser grid, which is ten times as fast and looks the same."""
    height, width = values.shape
    coarse = min(8, max(1, int(sigma_px // 3)), height, width)
    size = (max(1, width // coarse), max(1, height // coarse))
    small = cv2.resize(values, size, interpolation=cv2.INTER_AREA)
    small = cv2.GaussianBlur(small, (0, 0), sigma_px / coarse)
    return cast(_Array, cv2.resize(small, (width, height), interpolation=cv2.INTER_LINEAR))


def _thumbnail(picture: npt.NDArray[np.uint8]) -> npt.NDArray[np.float16]:
    small = cv2.resize(picture, (THUMBNAIL_PX, THUMBNAIL_PX), interpolation=cv2.INTER_AREA)
    values = small.astype(np.float32).ravel()
    values -= values.mean()
    norm = float(np.linalg.norm(values))
    # Less than 1.5 grey levels of structure is noise.
    return (values / norm if norm > 1.5 * THUMBNAIL_PX else np.zeros_like(values)).astype(np.float16)


def _local_features(picture: npt.NDArray[np.uint8], seen: _Bool) -> tuple[_Array, npt.NDArray[np.uint8]]:
    sift = cv2.SIFT.create(nfeatures=MOST_KEYPOINTS, contrastThreshold=0.02, edgeThreshold=12)
    points, values = sift.detectAndCompute(picture, seen.astype(np.uint8) * 255)
    if not points:
        return np.zeros((0, 4), np.float32), np.zeros((0, 128), np.uint8)
    points, values = points[:MOST_KEYPOINTS], values[:MOST_KEYPOINTS]
    # The root of the L1-normalised histogram: its dot product is the Hellinger kernel.
    roots = np.sqrt(values / np.maximum(values.sum(axis=1, keepdims=True), 1e-6))
    where = np.array([(*point.pt, point.size, point.angle) for point in points], np.float32)
    return where, np.rint(roots * 255).astype(np.uint8)


def _text_lines(pixels: npt.NDArray[np.uint8]) -> tuple[TextLine, ...]:
    """Find rows of small bright strokes; highlights in a row do no harm, they never repeat."""
    strokes = cv2.morphologyEx(pixels.min(axis=2), cv2.MORPH_TOPHAT, np.ones((7, 7), np.uint8))
    count, _, stats, centres = cv2.connectedComponentsWithStats((strokes > 30).astype(np.uint8))
    glyphs = sorted(
        (int(stats[i, 0]), int(stats[i, 0] + stats[i, 2]), float(centres[i, 1]))
        for i in range(1, count)
        if 4 <= stats[i, 3] <= 11 and stats[i, 2] <= 24 and stats[i, 4] >= 5
    )
    taken: set[int] = set()
    lines = []
    for start in range(len(glyphs)):
        if start in taken:
            continue
        run, right, middle = [start], glyphs[start][1], glyphs[start][2]
        for index in range(start + 1, len(glyphs)):
            if glyphs[index][0] - right > 12:
                break
            if index not in taken and abs(glyphs[index][2] - middle) < 1.6:
                run.append(index)
                right = max(right, glyphs[index][1])
                middle = float(np.median([glyphs[i][2] for i in run]))
        if len(run) >= 4 and right - glyphs[start][0] >= 24:
            taken.update(run)
            # The first characters may be lost in a bright background in one image and not in the other.
            left, right = max(0, glyphs[start][0] - 14), min(strokes.shape[1], right + 14)
            padded = np.pad(strokes[:, left:right], ((6, 6), (0, 0)))
            row = round(middle)
            lines.append(TextLine(middle, left, padded[row : row + 13].astype(np.uint8)))
    return tuple(lines)


# Comparing


def cluster(
    fingerprints: Sequence[Fingerprint],
    capture_times: Sequence[float | None] | None = None,
    progress: Progress = no_progress,
    *,
    known: Sequence[str] | None = None,
    within_s: float = 60.0,
) -> Clusters:
    """Group images that show one scene.

    Parameters
    ----------
    fingerprints : one an image
    capture_times : seconds on one clock, None where unknown; images of one patient or machine only if that clock says
        so, as time alone never makes a link
    progress : called with (done, total, label)
    known : names of groups that the images form already; images of one are not compared and count as one
    within_s : images captured so close to each other need less visual evidence
    """
    count = len(fingerprints)
    unit = _units(known, count)
    evidence: list[Evidence] = []
    progress(0, 1, "same pictures")
    evidence += _same_pixels(fingerprints, unit)
    evidence += _thumbnails(fingerprints, unit)
    text, dated = _burned_in(fingerprints, unit)
    evidence += text
    at_one_time = dated | _close_in_time(capture_times, within_s, unit)
    linked = {(item.first, item.second) for item in evidence}
    progress(0, 1, "visual words")
    prints = _without_fixtures(fingerprints)
    pairs = sorted((_candidates(prints, unit) | at_one_time) - linked)

    def compare(pair: tuple[int, int]) -> int:
        first, second = pair
        alike = float(fingerprints[first].thumbnail.astype(np.float32) @ fingerprints[second].thumbnail)
        return _places_in_agreement(prints[first], prints[second], alike)

    for number, (pair, places) in enumerate(_in_order(compare, pairs)):
        if number % 200 == 0:
            progress(number, len(pairs), "comparing")
        if places >= ENOUGH_PLACES:
            evidence.append(Evidence(*pair, "local features", float(places)))
        elif places >= ENOUGH_PLACES_AT_ONE_TIME and pair in at_one_time:
            evidence.append(Evidence(*pair, "capture time", float(places)))
    progress(len(pairs), len(pairs), "")
    return _merged(evidence, unit)


def _units(known: Sequence[str] | None, count: int) -> _Index:
    if known is None:
        return np.arange(count)
    names = {name: number for number, name in enumerate(dict.fromkeys(known))}
    return np.array([names[name] for name in known], np.intp)


def _in_order(
    function: Callable[[_Item], _Result], items: Sequence[_Item]
) -> Iterator[tuple[_Item, _Result]]:
    """Apply a function on all cores, in batches so that few results wait."""
    with ThreadPoolExecutor(max_workers=os.cpu_count() or 1) as pool:
        for start in range(0, len(items), 2000):
            batch = items[start : start + 2000]
            yield from zip(batch, pool.map(function, batch), strict=True)


def _same_pixels(fingerprints: Sequence[Fingerprint], unit: _Index) -> Iterator[Evidence]:
    first_with: dict[bytes, int] = {}
    for index, item in enumerate(fingerprints):
        first = first_with.setdefault(item.digest, index)
        if unit[first] != unit[index]:
            yield Evidence(first, index, "same pixels", 1.0)


def _thumbnails(fingerprints: Sequence[Fingerprint], unit: _Index) -> Iterator[Evidence]:
    if not fingerprints:
        return
    values = np.stack([item.thumbnail for item in fingerprints]).astype(np.float32)
    for start in range(0, len(values), 1024):
        alike = values[start : start + 1024] @ values.T
        for row, column in zip(*np.nonzero(alike > SAME_THUMBNAIL), strict=True):
            first, second = start + int(row), int(column)
            same = fingerprints[first].digest == fingerprints[second].digest
            if first < second and unit[first] != unit[second] and not same:
                yield Evidence(first, second, "thumbnail", float(alike[row, column]))


def _close_in_time(
    times: Sequence[float | None] | None, within_s: float, unit: _Index
) -> set[tuple[int, int]]:
    if times is None:
        return set()
    known = sorted((time, index) for index, time in enumerate(times) if time is not None)
    pairs = set()
    for place, (time, index) in enumerate(known):
        # A clock that says the same for hundreds of images (a date alone) would bring back every pair.
        for later, other in known[place + 1 : place + 1 + CANDIDATES]:
            if later - time > within_s:
                break
            if unit[index] != unit[other]:
                pairs.add((min(index, other), max(index, other)))
    return pairs


# Burned-in text


def _burned_in(
    fingerprints: Sequence[Fingerprint], unit: _Index
) -> tuple[list[Evidence], set[tuple[int, int]]]:
    """Return pairs of one minute, and pairs of one date.

    Characters of one machine stand in the same places, so that lines are compared where they stand. What a line
    says is worth nothing where many images say it (headings, names of fields): only what few share counts.
    """
    rows: dict[tuple[tuple[int, int], int], dict[int, list[TextLine]]] = {}
    for index, item in enumerate(fingerprints):
        for line in item.lines:
            for y in {int(np.floor(line.y_px)), int(np.ceil(line.y_px))}:
                rows.setdefault((item.shape, y), {}).setdefault(index, []).append(line)
    found: dict[tuple[int, int], dict[int, int]] = {}
    for (shape, y), images in rows.items():
        if len(images) >= _TEXT_LEAST_IMAGES:
            for pair, read_px in _lines_alike(shape, y, images):
                if unit[pair[0]] != unit[pair[1]]:
                    found.setdefault(pair, {})[y] = read_px
    evidence, dated = [], set()
    for pair, by_row in found.items():
        lengths = sorted(_one_a_line(by_row), reverse=True)
        if lengths[0] < _DATE_PX:
            continue
        dated.add(pair)
        if len(lengths) >= 3:
            evidence.append(Evidence(*pair, "burned-in text", float(sum(lengths))))
    return evidence, dated


def _one_a_line(by_row: dict[int, int]) -> Iterator[int]:
    """Yield one length a line: a line between two rows of pixels was compared on both."""
    last = None
    best = 0
    for y in sorted(by_row):
        if last is not None and y - last > 1:
            yield best
            best = 0
        best, last = max(best, by_row[y]), y
    yield best


def _lines_alike(
    shape: tuple[int, int], y: int, images: dict[int, list[TextLine]]
) -> Iterator[tuple[tuple[int, int], int]]:
    """Yield pairs of images whose lines on a row of pixels begin alike as few others do, and for how many pixels."""
    ids = list(images)
    windows = np.stack([_windows(images[index], y, shape[1]) for index in ids])
    written = np.abs(windows).max(axis=2) > 0
    count = len(ids)
    for start in range(0, count, 512):
        block = slice(start, start + 512)
        size = len(ids[block])
        going = np.ones((size, count), bool)
        first = np.full((size, count), -1, np.int32)
        last = np.full((size, count), -1, np.int32)
        for column in np.nonzero(written.sum(axis=0) > 1)[0]:
            # What only one shows is unreadable in the other, not different.
            both = written[block, column][:, np.newaxis] & written[:, column]
            alike = windows[block, column] @ windows[:, column].T > _TEXT_CORRELATION
            going &= alike | ~both
            read = going & both
            first[read & (first < 0)] = column
            last[read] = column
        length = np.where(last >= 0, (last - first) * _TEXT_STEP + _TEXT_WIDTH, 0)
        length[np.arange(size), start + np.arange(size)] = 0
        for row, column in zip(*np.nonzero(length >= _MINUTE_PX), strict=True):
            read_px = int(length[row, column])
            if ids[start + row] < ids[column] and (length[row] >= read_px).sum() <= _TEXT_RARE * count:
                yield (ids[start + row], ids[column]), read_px


def _windows(lines: Iterable[TextLine], y: int, width: int) -> _Array:
    """Cut a row of an image into overlapping windows of two characters, (N, 121), each of norm <= 1 or 0."""
    canvas = np.zeros((2 * _TEXT_HALF_HEIGHT + 1, width), np.float32)
    covered = np.zeros(width, bool)
    for line in lines:
        top = y - round(line.y_px) + 1
        part = line.strokes[top : top + len(canvas)]
        place = canvas[:, line.x_px : line.x_px + part.shape[1]]
        np.maximum(place, np.minimum(part, 90), out=place)
        covered[line.x_px : line.x_px + part.shape[1]] = True
    views = np.lib.stride_tricks.sliding_window_view(canvas, _TEXT_WIDTH, axis=1)[:, ::_TEXT_STEP]
    values = views.transpose(1, 0, 2).reshape(views.shape[1], -1)
    values = values - values.mean(axis=1, keepdims=True)
    norm = np.linalg.norm(values, axis=1, keepdims=True)
    covered_views = np.lib.stride_tricks.sliding_window_view(covered, _TEXT_WIDTH)[::_TEXT_STEP]
    whole = np.all(covered_views, axis=1, keepdims=True)
    faint = 14.0
    legible = (norm > 11 * faint) & whole
    return cast(_Array, np.where(legible, values / (norm + faint), 0).astype(np.float32))


# Local features


@dataclass(frozen=True, eq=False)
class _Features:
    keypoints: _Array
    descriptors: npt.NDArray[np.uint8]
    words: _Index


def _without_fixtures(fingerprints: Sequence[Fingerprint]) -> list[_Features]:
    """Give each keypoint its visual word and drop those that many images have in the same place."""
    counts = [len(item.keypoints) for item in fingerprints]
    if not sum(counts):
        return [_Features(item.keypoints, item.descriptors, np.zeros(0, np.intp)) for item in fingerprints]
    words = _visual_words(np.concatenate([item.descriptors for item in fingerprints]))
    owner = np.repeat(np.arange(len(counts)), counts)
    cells = (np.concatenate([item.keypoints[:, :2] for item in fingerprints]) // 4).astype(np.int64)
    token = (words * 1024 + cells[:, 0]) * 1024 + cells[:, 1]
    once = np.unique(np.stack([token, owner], axis=1), axis=0)
    tokens, images = np.unique(once[:, 0], return_counts=True)
    fixture = np.isin(token, tokens[images > max(8, 0.02 * len(counts))])
    features = []
    for item, names, fixed in zip(
        fingerprints,
        np.split(words, np.cumsum(counts)[:-1]),
        np.split(fixture, np.cumsum(counts)[:-1]),
        strict=True,
    ):
        features.append(_Features(item.keypoints[~fixed], item.descriptors[~fixed], names[~fixed]))
    return features


def _visual_words(descriptors: npt.NDArray[np.uint8]) -> _Index:
    """Learn a vocabulary from the descriptors (spherical k-means on a sample) and return each one's word."""
    rng = np.random.default_rng(0)
    size = int(min(_WORDS, max(1, len(descriptors) // 20)))
    centres = _unit_rows(descriptors[rng.choice(len(descriptors), size, replace=False)])
    for _ in range(4):
        sample = descriptors[rng.choice(len(descriptors), min(60_000, len(descriptors)), replace=False)]
        words = _nearest(sample, centres)
        chosen = scipy.sparse.csr_array(
            (np.ones(len(sample), np.float32), (words, np.arange(len(sample)))), shape=(size, len(sample))
        )
        sums = np.asarray(chosen @ sample.astype(np.float32), np.float32)
        used = np.bincount(words, minlength=size) > 0
        centres[used] = _unit_rows(sums[used])
    return _nearest(descriptors, centres)


def _unit_rows(values: npt.NDArray[Any]) -> _Array:
    rows = values.astype(np.float32)
    return cast(_Array, rows / np.maximum(np.linalg.norm(rows, axis=1, keepdims=True), 1e-6))


def _nearest(descriptors: npt.NDArray[np.uint8], centres: _Array) -> _Index:
    parts = [
        (descriptors[start : start + 4096].astype(np.float32) @ centres.T).argmax(axis=1)
        for start in range(0, len(descriptors), 4096)
    ]
    return np.concatenate(parts)


def _candidates(prints: Sequence[_Features], unit: _Index) -> set[tuple[int, int]]:
    """Return the pairs worth a full comparison: each image with those that share most of its rare words."""
    count = len(prints)
    if count <= CANDIDATES + 1:
        return {(i, j) for i in range(count) for j in range(i + 1, count) if unit[i] != unit[j]}
    owner = np.repeat(np.arange(count), [len(item.words) for item in prints])
    words = np.concatenate([item.words for item in prints])
    size = int(words.max(initial=0)) + 1
    table = scipy.sparse.csr_array((np.ones(len(words), np.float32), (owner, words)), shape=(count, size))
    frequency = np.maximum(np.bincount(table.tocsc().nonzero()[1], minlength=size), 1)
    table.data = np.sqrt(table.data) * np.log(count / frequency)[table.indices].astype(np.float32)
    norm = np.sqrt(np.asarray(table.power(2).sum(axis=1)).ravel())
    table.data /= np.maximum(norm, 1e-6)[np.repeat(np.arange(count), np.diff(table.indptr))]
    pairs: set[tuple[int, int]] = set()
    for start in range(0, count, 512):
        alike = np.asarray((table[start : start + 512] @ table.T).todense())
        alike[unit[start : start + 512, np.newaxis] == unit] = -1
        best = np.argpartition(-alike, CANDIDATES, axis=1)[:, :CANDIDATES]
        for row, others in enumerate(best):
            index = start + row
            pairs.update((min(index, int(j)), max(index, int(j))) for j in others if alike[row, int(j)] > 0)
    return pairs


def _places_in_agreement(first: _Features, second: _Features, alike: float) -> int:
    """Return in how many places of the first image local features follow one affine map into the second."""
    if min(len(first.keypoints), len(second.keypoints)) < 5:
        return 0
    similar = first.descriptors.astype(np.float32) @ second.descriptors.astype(np.float32).T
    similar *= 1 / 255**2
    rows, columns = _distinct_matches(similar)
    if len(rows) < 5:
        return 0
    found = _affine(first.keypoints[rows, :2], second.keypoints[columns, :2], 6.0)
    if found is None or found[1] < 4:
        return 0
    matrix = found[0]
    # Each keypoint's two most similar ones: in an unrelated image they lie where the map says hardly ever.
    options = np.argpartition(-similar, 1, axis=1)[:, :2]
    rows = np.zeros(0, np.intp)
    for _ in range(3):
        rows, columns = _following(first.keypoints, second.keypoints, options, matrix)
        if len(rows) < 5:
            return 0
        found = _affine(first.keypoints[rows, :2], second.keypoints[columns, :2], 7.0)
        if found is None:
            return 0
        matrix = found[0]
    rows, columns = _following(first.keypoints, second.keypoints, options, matrix)
    corners = first.keypoints[rows, :2]
    still = len(rows) and np.median(np.abs(corners - second.keypoints[columns, :2]).max(axis=1)) < _STILL_PX
    if still and alike < _ALIKE_WHEN_STILL:
        # Nothing moved and yet the pictures differ: what agrees is drawn over them.
        return 0
    return min(_places(first.keypoints[rows, :2]), _places(second.keypoints[columns, :2]))


def _places(xy_px: _Array) -> int:
    return len(np.unique((xy_px // _PLACE_PX).astype(np.int32), axis=0)) if len(xy_px) else 0


def _distinct_matches(similar: _Array) -> tuple[_Index, _Index]:
    """Return matches that are mutual and clearly better than the second best."""
    rows = np.arange(len(similar))
    columns = similar.argmax(axis=1)
    best = similar[rows, columns]
    second = np.partition(similar, -2, axis=1)[:, -2]
    distance, next_distance = (np.sqrt(np.maximum(2 - 2 * value, 0)) for value in (best, second))
    good = (similar.argmax(axis=0)[columns] == rows) & (distance < _RATIO * next_distance)
    return rows[good], columns[good]


def _affine(first: _Array, second: _Array, tolerance_px: float) -> tuple[npt.NDArray[np.float64], int] | None:
    """Return a plausible affine map (2, 3) and how many points follow it, or None."""
    found, inliers = cv2.estimateAffine2D(
        first, second, method=cv2.RANSAC, ransacReprojThreshold=tolerance_px, maxIters=500, confidence=0.99
    )
    # Too few or collinear points give no matrix, which OpenCV's types do not say.
    matrix: npt.NDArray[np.float64] = np.asarray(found, np.float64)
    if matrix.shape != (2, 3):
        return None
    largest, smallest = np.linalg.svd(matrix[:, :2], compute_uv=False)
    turned_over = np.linalg.det(matrix[:, :2]) <= 0
    if turned_over or largest > 3 or smallest < 1 / 3 or largest > 2.5 * smallest:
        return None
    return matrix, int(inliers.sum())


def _following(
    first: _Array, second: _Array, options: _Index, matrix: npt.NDArray[np.float64]
) -> tuple[_Index, _Index]:
    """Return keypoints one of whose options lies, points and is sized as the map says."""
    predicted = first[:, :2] @ matrix[:, :2].T + matrix[:, 2]
    left, _, right = np.linalg.svd(matrix[:, :2])
    turn = left @ right
    turn_deg = np.degrees(np.arctan2(turn[1, 0], turn[0, 0]))
    scale = np.sqrt(np.linalg.det(matrix[:, :2]))
    chosen = second[options]
    distance = np.hypot(
        chosen[:, :, 0] - predicted[:, 0, np.newaxis], chosen[:, :, 1] - predicted[:, 1, np.newaxis]
    )
    angle = np.abs((chosen[:, :, 3] - first[:, 3, np.newaxis] - turn_deg + 180) % 360 - 180)
    size = np.abs(np.log(chosen[:, :, 2] / (first[:, 2, np.newaxis] * scale)))
    distance[(angle > 40) | (size > 0.7)] = np.inf
    best = distance.argmin(axis=1)
    rows = np.nonzero(distance[np.arange(len(best)), best] < _NEAR_PX)[0]
    return rows, options[rows, best[rows]]


# From links to groups


def _merged(evidence: Sequence[Evidence], unit: _Index) -> Clusters:
    """Join links to groups; two groups do not become one large group by a single modest link."""
    parent = list(range(int(unit.max(initial=-1)) + 1))
    size = [1] * len(parent)

    def root(index: int) -> int:
        while parent[index] != index:
            parent[index] = parent[parent[index]]
            index = parent[index]
        return index

    def join(first: int, second: int) -> None:
        parent[second] = first
        size[first] += size[second]

    def ends(item: Evidence) -> tuple[int, int]:
        return root(int(unit[item.first])), root(int(unit[item.second]))

    strong = [item for item in evidence if _is_strong(item)]
    modest = sorted(
        (item for item in evidence if not _is_strong(item)), key=lambda item: (-item.score, item.first)
    )
    for item in strong:
        first, second = ends(item)
        if first != second:
            join(first, second)
    changed = True
    while changed:
        changed = False
        between: dict[tuple[int, int], set[tuple[int, int]]] = {}
        for item in modest:
            first, second = ends(item)
            if first != second:
                between.setdefault((min(first, second), max(first, second)), set()).add(
                    (item.first, item.second)
                )
        for (first, second), links in between.items():
            if len(links) >= 2 or size[first] + size[second] <= LARGEST_BY_ONE_LINK:
                join(first, second)
                changed = True
                break
    # Of a known group only the images that are linked are named.
    touched = sorted({index for item in evidence for index in (item.first, item.second)})
    members: dict[int, list[int]] = {}
    for index in touched:
        members.setdefault(root(int(unit[index])), []).append(index)
    groups = tuple(
        tuple(group) for group in members.values() if len({int(unit[index]) for index in group}) > 1
    )
    kept = tuple(item for item in evidence if len(set(ends(item))) == 1)
    return Clusters(groups, kept)


def _is_strong(item: Evidence) -> bool:
    if item.kind in ("local features", "capture time"):
        return item.score >= STRONG_PLACES
    return True
