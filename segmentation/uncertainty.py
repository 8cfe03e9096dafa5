"""How far predictions are to be trusted: maps of doubt, numbers an image, and where both are kept. Never imports torch.

Maps, each 0..1 on the image's own grid:

``entropy``
    Of the student's probability, in bits: 1 where it is 0.5. It follows from the prediction and needs no file.
``spread``
    Twice the standard deviation of the probability over the image's four mirrored views, whose mean is the
    prediction: uncertainty by test-time augmentation (Wang et al., Neurocomputing 338, 2019). Mutual information was
    found to tell less. Kept beside the prediction with 8 bits a place, on the network's own grid, which is all there is
    to know.
``disagreement``
    How far teacher and student lie apart. It follows from their two predictions and needs no file.

Numbers, each a Dice 0..1, kept as JSON lines beside the predictions, so that whoever orders images by doubt opens no
picture: see `Certainty`.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, get_args

import numpy as np
import numpy.typing as npt

from gaze_capture.errors import UserError
from gaze_capture.storage import explained_os_errors, write_bytes_atomic
from segmentation.images import encode_gray8, read_image, resize
from segmentation.records import Key, new_id
from segmentation.study import Study

Kind = Literal["entropy", "spread", "disagreement"]
KINDS: tuple[Kind, ...] = get_args(Kind)

Map = npt.NDArray[np.float32]

EMPTY_SHARE = 0.001
"""So small a share of an image, in expected foreground, is no reason to doubt an empty mask."""


@dataclass(frozen=True)
class Certainty:
    """What speaks for the student's mask of one target in one image; None where nothing was stored of it."""

    expected_dice: float | None = None
    """See :func:`expected_dice`."""
    flips_dice: float | None = None
    """Mean Dice of the masks of the four mirrored views with the mask of their mean; 1 where all are empty."""
    teacher_dice: float | None = None
    """See :func:`soft_dice`: of the teacher's probability and the student's."""

    @property
    def dice(self) -> float | None:
        """The mean of what is known: how good the mask is likely to be, or None where nothing is.

        On Kvasir images that the networks had not seen it put bad masks before good ones better, in the mean of four
        measurements, than any of its parts did; most of that is what the teacher adds (docs/adr/0022).
        """
        known = [value for value in dataclasses.astuple(self) if value is not None]
        return sum(known) / len(known) if known else None

    def words(self) -> str:
        """Return the numbers in words, such as ``expected Dice 0.62, 0.71 among its mirrored views``."""
        parts = (
            (self.expected_dice, "expected Dice {:.2f}"),
            (self.flips_dice, "{:.2f} among its mirrored views"),
            (self.teacher_dice, "{:.2f} with the teacher"),
        )
        return ", ".join(text.format(value) for value, text in parts if value is not None)


def expected_dice(probability: Map) -> float:
    """Return the Dice that a probability (H, W) makes likely for its own mask, which begins at 0.5.

    The Soft Dice Confidence (Borges, Pacheco & Silva, arXiv 2402.10665): twice the probability inside the mask over
    the probability everywhere plus the mask's area. EMPTY_SHARE of the image's area is added above and below the line,
    so that an empty mask is sure where hardly any foreground is expected.
    """
    mask = probability >= 0.5
    none = EMPTY_SHARE * probability.size
    inside = float(probability[mask].sum(dtype=np.float64))
    return (2 * inside + none) / (
        float(probability.sum(dtype=np.float64)) + float(np.count_nonzero(mask)) + none
    )


def soft_dice(one: Map, other: Map) -> float:
    """Return how alike two probabilities (H, W) are: twice the lower one's sum over the sum of both, 0..1.

    EMPTY_SHARE of the image's area is added above and below the line.
    """
    none = EMPTY_SHARE * one.size
    lower = float(np.minimum(one, other).sum(dtype=np.float64))
    return (2 * lower + none) / (float(one.sum(dtype=np.float64)) + float(other.sum(dtype=np.float64)) + none)


def entropy(probability: Map) -> Map:
    """Return the binary entropy, in bits, of probabilities."""
    certain = np.clip(probability, 1e-7, 1 - 1e-7).astype(np.float32)
    bits: Map = -(certain * np.log2(certain) + (1 - certain) * np.log2(1 - certain))
    return bits


def uncertainty(study: Study, run_id: str, image_id: str, target_id: str, kind: Kind) -> Map | None:
    """Return a map of doubt (H, W) in 0..1 on the image's own grid, or None where the run has not what it is made of.

    Raises
    ------
    UserError
        If a file is damaged.
    """
    student = study.prediction(run_id, image_id, target_id)
    if student is None:
        return None
    if kind == "entropy":
        return entropy(student)
    if kind == "spread":
        path = spread_path(study, run_id, image_id, target_id)
        if not path.exists():
            return None
        return resize(read_image(path)[:, :, 0], *student.shape)
    teacher = study.prediction(run_id, image_id, target_id, "teacher")
    if teacher is None:
        return None
    return np.abs(resize(teacher, *student.shape) - student)


def spread_path(study: Study, run_id: str, image_id: str, target_id: str) -> Path:
    """Return where the spread over the student's views lies, or would lie."""
    return (
        study.prediction_path(run_id, image_id, target_id).parent / "spread" / f"{image_id}.{target_id}.png"
    )


def save_spread(study: Study, run_id: str, image_id: str, target_id: str, deviation: Map) -> None:
    """Store the standard deviation (h, w), 0..0.5, of the probability over an image's views.

    Raises
    ------
    UserError
        If the study cannot be written.
    """
    path = spread_path(study, run_id, image_id, target_id)
    write_bytes_atomic(path, encode_gray8(2 * deviation), within=study.folder)


class CertaintyLog:
    """Keeps what is found of a network's predictions while they are made, in a file of its own.

    Several processes, or one after the other, may add to a run: each has its file, and of what is there twice the
    later file counts.
    """

    def __init__(self, study: Study, run_id: str, network: str) -> None:
        self._study = study
        self._path = records_folder(study, run_id, network) / f"{new_id('certainty-')}.jsonl"
        self._lines: list[str] = []
        self._stored = 0

    def add(self, image_id: str, target_id: str, found: Mapping[str, float]) -> None:
        """Note numbers of one prediction, once it is stored."""
        if not found:
            return
        rounded = {name: round(value, 5) for name, value in found.items()}
        self._lines.append(json.dumps({"image": image_id, "target": target_id, **rounded}))

    def store(self) -> None:
        """Write all that was noted so far.

        Raises
        ------
        UserError
            If the study cannot be written.
        """
        if len(self._lines) > self._stored:
            data = "".join(line + "\n" for line in self._lines).encode()
            write_bytes_atomic(self._path, data, within=self._study.folder)
            self._stored = len(self._lines)


def records_folder(study: Study, run_id: str, network: str) -> Path:
    """Return the folder of a network's predictions, where its records lie."""
    return study.runs_folder / run_id / "predictions" / network


def certainties(study: Study, run_id: str) -> dict[Key, Certainty]:
    """Return what is stored of a run's predictions, by (image id, target id), from a few files.

    A line that is no record is passed over: what it told of can be worked out of the prediction.

    Raises
    ------
    UserError
        If a file cannot be read.
    """
    found: dict[Key, dict[str, float]] = {}
    for network in ("student", "teacher"):
        folder = records_folder(study, run_id, network)
        with explained_os_errors(folder):
            written = sorted((path.stat().st_mtime_ns, path) for path in folder.glob("certainty-*.jsonl"))
        for _, path in written:
            with explained_os_errors(path):
                text = path.read_text(encoding="utf-8", errors="replace")
            for line in text.splitlines():
                key, values = _record(line)
                if key is not None and values:
                    found.setdefault(key, {}).update(values)
    return {key: Certainty(**values) for key, values in found.items()}


def _record(line: str) -> tuple[Key | None, dict[str, float]]:
    try:
        record: Any = json.loads(line)
        key = str(record["image"]), str(record["target"])
        return key, {name: float(record[name]) for name in _NUMBERS if record.get(name) is not None}
    except (ValueError, KeyError, TypeError, AttributeError):
        return None, {}


_NUMBERS = tuple(Certainty.__dataclass_fields__)


def certainty_of(study: Study, run_id: str, key: Key) -> Certainty:
    """Work out of the stored prediction what its record would say: for runs that predicted before there were any.

    Raises
    ------
    UserError
        If the prediction is damaged.
    """
    probability = study.prediction(run_id, *key)
    if probability is None:
        raise UserError(f"The run {run_id} has no prediction of {key[0]}; predict again.")
    return Certainty(expected_dice(probability))
