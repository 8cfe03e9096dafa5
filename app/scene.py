"""From a study's state to one frozen Scene: everything the canvas draws of an image, nothing of Qt."""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import threading
from collections import OrderedDict
from concurrent.futures import Future
from dataclasses import dataclass
from typing import Any, Literal, get_args

import cv2
import numpy as np
import numpy.typing as npt

from app.windowing import opened
from gaze_capture.errors import UserError
from gaze_capture.fixations import Fixations, simulated_source
from segmentation.images import read_stored
from segmentation.intensity import AS_IT_IS, Intensity, Window
from segmentation.readings import annotator_disagreement, readings
from segmentation.records import MASK_THRESHOLD
from segmentation.stacks import Values
from segmentation.study import Study, Verdict
from segmentation.text.attention import AttentionMaps, load_attention
from segmentation.uncertainty import entropy

LayerName = Literal[
    "heatmap",
    "fixations",
    "scanpath",
    "levels",
    "student",
    "teacher",
    "disagreement",
    "reviewed",
    "truth",
    "words",
    "doubt",
    "annotators",
]
LAYERS: tuple[LayerName, ...] = get_args(LayerName)
"""In the order of their keys: 1-9, and what comes after with Shift, from 1 on."""

KEYS = 9
"""How many layers have a key without Shift."""

Floats = npt.NDArray[np.float64]
Mask = npt.NDArray[np.bool_]
Index = npt.NDArray[np.uint8]
"""A map of 0..1 as 0..255."""

TOLERANCE_PX = 0.35
"""How far, in image pixels, a drawn contour may run beside the region's edge."""
SMOOTHING_LIMIT_PX = 600 * 600
"""Masks of larger images are outlined without the smoothing enlargement, which would cost more than it shows."""


@dataclass(frozen=True)
class Outline:
    """The closed contours of one region; holes are contours within contours (odd-even filling)."""

    contours: tuple[Floats, ...]
    """Each (K, 2) x, y in image pixels, pixel centres at whole numbers."""

    @property
    def empty(self) -> bool:
        """Whether there is no region at all."""
        return not self.contours


@dataclass(frozen=True)
class Marks:
    """Fixations as drawn: a circle each, its area following the duration."""

    xy_px: Floats
    """(F, 2) image pixels."""
    duration_ms: Floats
    """(F,)"""


@dataclass(frozen=True)
class OtherTarget:
    """The mask of a target that is not the current one, so that both are seen together."""

    target_id: str
    name: str
    colour: str
    outline: Outline


@dataclass(frozen=True)
class Scene:
    """What is drawn of one target in one image; a layer that the study does not have is None or empty."""

    image_id: str
    target_id: str
    image: Values
    """(H, W, C) as it is stored, C = 1 or 3 (RGB); `intensity` says what the numbers mean."""
    intensity: Intensity = AS_IT_IS
    modality: str = "photo"
    spacing_mm: tuple[float, float] | None = None
    """Millimetres from row to row and from column to column."""
    volume: str = ""
    """Id of the volume it is a slice of."""
    heatmap: Index | None = None
    """(H, W)"""
    gaze: tuple[Marks, ...] = ()
    """One for every sitting."""
    levels: tuple[Outline, ...] = ()
    """Highest threshold first."""
    thresholds: tuple[float, ...] = ()
    level_map: Index | None = None
    """(H, W) how many levels a pixel belongs to."""
    student: Outline | None = None
    teacher: Outline | None = None
    student_probability: Index | None = None
    teacher_probability: Index | None = None
    """(H, W) each."""
    disagreement: Outline | None = None
    """Where student and teacher differ."""
    reviewed: Outline | None = None
    reviewed_by: str = ""
    """Whose mask `reviewed` is, where it is not simply the one that counts."""
    unread: str = ""
    """Why a reviewed mask of this image could not be read, in a sentence; it is left out then."""
    annotators: Outline | None = None
    """Where the masks of several annotators differ."""
    truth: Outline | None = None
    words: AttentionMaps | None = None
    """What the run's teacher made of each phrase, where that was asked (`segmentation.text.use`)."""
    doubt: Index | None = None
    """(H, W) how undecided the student is, or how far the teacher lies apart from it, whichever is more."""
    others: tuple[OtherTarget, ...] = ()
    """Reviewed masks, else the student's, of the study's other targets, where they are asked for."""
    verdict: Verdict | None = None
    run_id: str | None = None
    simulated_from: str | None = None

    @functools.cached_property
    def opened_window(self) -> Window:
        """Centre and width in real values that the image opens with."""
        return opened(self.image, self.intensity)

    @functools.cached_property
    def region(self) -> Mask | None:
        """(H, W) the broad level, which explanations are of."""
        return None if self.level_map is None else self.level_map >= 1

    @property
    def nbytes(self) -> int:
        """About how much memory it takes."""
        values = (getattr(self, field.name) for field in dataclasses.fields(self))
        return sum(one.nbytes for one in values if isinstance(one, np.ndarray))

    @property
    def available(self) -> frozenset[LayerName]:
        """The layers there is something to show of; an empty outline is something: the network saw nothing."""
        found: set[LayerName] = set()
        if self.heatmap is not None:
            found.add("heatmap")
        if any(len(marks.xy_px) for marks in self.gaze):
            found |= {"fixations", "scanpath"}
        if self.levels:
            found.add("levels")
        if self.words is not None:
            found.add("words")
        if self.doubt is not None:
            found.add("doubt")
        regions: tuple[LayerName, ...] = (
            "student", "teacher", "disagreement", "reviewed", "truth", "annotators",
        )  # fmt: skip
        found.update(name for name in regions if getattr(self, name) is not None)
        return frozenset(found)


def outline(values: npt.NDArray[Any], threshold: float = 0.5) -> Outline:
    """Outline the region of a mask or map (H, W) at or above a threshold.

    Small images are enlarged twice first, so that the contour runs between pixels, not from centre to centre.
    """
    grid: npt.NDArray[Any] = np.asarray(values, dtype=np.float32)
    factor = 2 if grid.size <= SMOOTHING_LIMIT_PX else 1
    if factor > 1:
        height, width = grid.shape
        grid = cv2.resize(grid, (width * factor, height * factor), interpolation=cv2.INTER_LINEAR)
    region = (grid >= threshold).astype(np.uint8)
    contours, _ = cv2.findContours(region, cv2.RETR_CCOMP, cv2.CHAIN_APPROX_SIMPLE)
    # Without its stair steps a contour has a tenth of the points, and is drawn as much faster.
    simple = (cv2.approxPolyDP(contour, TOLERANCE_PX * factor, True) for contour in contours)
    points = (contour.reshape(-1, 2).astype(np.float64) for contour in simple)
    return Outline(tuple((one + 0.5) / factor - 0.5 for one in points))


def inferno_rgba() -> npt.NDArray[np.uint8]:
    """Return the heatmap's colours (256, 4), RGBA not premultiplied: inferno, its alpha following the value."""
    ramp = np.arange(256, dtype=np.uint8)[:, np.newaxis]
    bgr = cv2.applyColorMap(ramp, cv2.COLORMAP_INFERNO)[:, 0]
    # The square root lifts the flanks: a linear alpha hides all but the very peak.
    alpha = np.rint(np.sqrt(np.linspace(0, 1, 256)) * 235).astype(np.uint8)
    return np.concatenate([bgr[:, ::-1], alpha[:, np.newaxis]], axis=1)


def viridis_rgba() -> npt.NDArray[np.uint8]:
    """Return the colours (256, 4) of what words do, as `inferno_rgba`: viridis, its alpha following the value."""
    ramp = np.arange(256, dtype=np.uint8)[:, np.newaxis]
    bgr = cv2.applyColorMap(ramp, cv2.COLORMAP_VIRIDIS)[:, 0]
    alpha = np.rint(np.sqrt(np.linspace(0, 1, 256)) * 235).astype(np.uint8)
    return np.concatenate([bgr[:, ::-1], alpha[:, np.newaxis]], axis=1)


def cividis_rgba() -> npt.NDArray[np.uint8]:
    """Return the colours (256, 4) of doubt, as `inferno_rgba`: cividis, its alpha growing with the value itself.

    A little doubt is nearly everywhere, and would lie over the whole image.
    """
    ramp = np.arange(256, dtype=np.uint8)[:, np.newaxis]
    bgr = cv2.applyColorMap(ramp, cv2.COLORMAP_CIVIDIS)[:, 0]
    alpha = np.rint(np.linspace(0, 1, 256) * 235).astype(np.uint8)
    return np.concatenate([bgr[:, ::-1], alpha[:, np.newaxis]], axis=1)


@functools.cache
def _entropy_index() -> npt.NDArray[np.uint8]:
    index: npt.NDArray[np.uint8] = heatmap_index(
        entropy(np.linspace(0, 1, 256, dtype=np.float32)[np.newaxis])
    )[0]
    return index


def doubt_index(student: Index, teacher: Index | None) -> Index:
    """Return the entropy of the student's probability (H, W) or its distance to the teacher's, the larger, 0..255."""
    doubt = cv2.LUT(student, _entropy_index())
    if teacher is not None and teacher.shape == student.shape:
        doubt = cv2.max(doubt, cv2.absdiff(student, teacher))
    return doubt.astype(np.uint8, copy=False)


def words_index(words: AttentionMaps) -> npt.NDArray[np.uint8]:
    """Return how far the words change the teacher's answer, up or down, (h, w) 0..255 on their own coarse grid.

    Half of the whole way, which turns an undecided place into a certain one, is shown as the most. Attention to all
    words together is the same everywhere and would show nothing.
    """
    return heatmap_index(np.minimum(2 * np.abs(words.effect), 1))


def word_weights(words: AttentionMaps, shape: tuple[int, int]) -> dict[str, npt.NDArray[np.uint8]]:
    """Return where each attribute's phrase is read, (H, W) 0..255 on the image's grid, from its least to its most."""
    weights = {}
    for name, attention in zip(words.names, words.maps, strict=True):
        span = float(np.ptp(attention)) or 1.0
        stretched = (attention - attention.min()) / span
        weights[name] = heatmap_index(cv2.resize(stretched, shape[::-1], interpolation=cv2.INTER_LINEAR))
    return weights


def heatmap_index(heatmap: npt.NDArray[np.float32]) -> Index:
    """Return a heatmap or probability (H, W) in 0..1 as 0..255."""
    return cv2.convertScaleAbs(heatmap, alpha=255.0).astype(np.uint8, copy=False)


def marks_of(fixations: Fixations) -> Marks:
    """Return fixations as they are drawn."""
    return Marks(fixations.xy_px, fixations.duration_ms)


def bare(scene: Scene) -> Scene:
    """Return a scene of the image alone."""
    empty = Scene(scene.image_id, scene.target_id, scene.image)
    return with_changes(
        scene,
        **{
            field.name: getattr(empty, field.name)
            for field in dataclasses.fields(Scene)
            if field.name not in ("image_id", "target_id", "image", *_OF_THE_IMAGE)
        },
    )


_OF_THE_IMAGE = ("intensity", "modality", "spacing_mm", "volume")


def with_changes(scene: Scene, **changes: Any) -> Scene:
    """Return a scene of the same image with other layers; what was worked out of its pixels is kept."""
    changed = dataclasses.replace(scene, **changes)
    changed.__dict__["opened_window"] = scene.opened_window
    return changed


def _others(study: Study, image_id: str, target_id: str, run_id: str | None) -> tuple[OtherTarget, ...]:
    found = []
    for target in study.targets:
        if target.id == target_id:
            continue
        mask: npt.NDArray[Any] | None = None
        with contextlib.suppress(UserError):
            # Told where that target is the current one.
            mask = study.reviewed_mask(image_id, target.id)
        if mask is None and run_id:
            mask = study.prediction(run_id, image_id, target.id)
        if mask is not None:
            found.append(OtherTarget(target.id, target.name, target.colour, outline(mask)))
    return tuple(found)


def _differing(study: Study, image_id: str, target_id: str) -> Outline | None:
    if len({review.annotator for review in study.reviews(image_id, target_id)}) < 2:
        return None
    divided = annotator_disagreement(study, image_id, target_id, purposes=("review", "second-read"))
    return None if divided is None else outline(divided > 0)


def reviewed_by(study: Study, scene: Scene, annotator: str) -> Scene:
    """Return a scene with the mask of one annotator, whether or not it is the one that counts.

    Raises
    ------
    UserError
        If the mask cannot be read.
    """
    found = readings(study, scene.image_id, scene.target_id, annotators=(annotator,)).get(annotator)
    mask = None if found is None else found.mask
    return with_changes(scene, reviewed=None if mask is None else outline(mask), reviewed_by=annotator)


def build_scene(
    study: Study, image_id: str, target_id: str, run_id: str | None = None, others: bool = False
) -> Scene:
    """Read everything the study holds of a target in an image.

    Parameters
    ----------
    run_id
        Whose predictions are shown.
    others
        Whether the other targets' masks are read, too.

    Raises
    ------
    UserError
        If the image, or a file that belongs to it, cannot be read; reviewed masks are left out then (`Scene.unread`).
    """
    image = study.image(image_id)
    gaze = study.fixations.get((image_id, target_id), [])
    pseudomask = study.pseudomask(image_id, target_id)
    truth = study.true_mask(image_id, target_id)
    student = study.prediction(run_id, image_id, target_id) if run_id else None
    teacher = study.prediction(run_id, image_id, target_id, "teacher") if run_id else None
    differing = (
        None
        if student is None or teacher is None
        else (student >= MASK_THRESHOLD) != (teacher >= MASK_THRESHOLD)
    )
    student_index = None if student is None else heatmap_index(student)
    teacher_index = None if teacher is None else heatmap_index(teacher)
    reviews = study.counted_reviews(image_id, target_id)
    reviewed, differing_annotators, unread = None, None, ""
    try:
        reviewed = study.reviewed_mask(image_id, target_id) if reviews else None
        differing_annotators = _differing(study, image_id, target_id)
    except UserError as error:
        # The image can still be judged, and a new verdict takes that one's place.
        unread = str(error)
    scene = Scene(
        image_id=image_id,
        target_id=target_id,
        image=read_stored(study.image_path(image)),
        intensity=image.intensity,
        modality=image.modality,
        spacing_mm=image.spacing_mm,
        volume=image.volume,
        heatmap=None if pseudomask is None else heatmap_index(pseudomask.heatmap),
        gaze=tuple(marks_of(item) for item in gaze),
        levels=() if pseudomask is None else tuple(outline(mask) for mask in pseudomask.masks),
        thresholds=() if pseudomask is None else pseudomask.thresholds,
        level_map=None if pseudomask is None else pseudomask.level_map,
        student=None if student is None else outline(student),
        teacher=None if teacher is None else outline(teacher),
        student_probability=student_index,
        teacher_probability=teacher_index,
        disagreement=None if differing is None else outline(differing),
        reviewed=None if reviewed is None else outline(reviewed),
        truth=None if truth is None else outline(truth),
        words=load_attention(study, run_id, image_id, target_id) if run_id else None,
        doubt=None if student_index is None else doubt_index(student_index, teacher_index),
        annotators=differing_annotators,
        unread=unread,
        others=_others(study, image_id, target_id, run_id) if others else (),
        verdict=reviews[-1].verdict if reviews else None,
        run_id=run_id,
        simulated_from=simulated_source(gaze),
    )
    # Percentiles take a while where the import kept none: here, in the thread that builds ahead.
    _ = scene.opened_window
    return scene


Key = tuple[str, str, str | None, bool]
"""Image, target, run, and whether the other targets are asked for: what :func:`build_scene` takes."""


MOST_BYTES = 640 << 20
"""Scenes of large images fill this before there are many of them."""


class SceneCache:
    """The last few scenes, safe to fill from another thread ahead of the reader's next step."""

    def __init__(self, study: Study, size: int = 12, most_bytes: int = MOST_BYTES) -> None:
        self._study = study
        self._size = size
        self._most_bytes = most_bytes
        self._scenes: OrderedDict[Key, Scene] = OrderedDict()
        self._building: dict[tuple[int, Key], Future[Scene]] = {}
        self._lock = threading.Lock()
        self._generation = 0

    def get(self, image_id: str, target_id: str, run_id: str | None = None, others: bool = False) -> Scene:
        """Return a scene, built where it is not at hand."""
        key = (image_id, target_id, run_id, others)
        with self._lock:
            if key in self._scenes:
                self._scenes.move_to_end(key)
                return self._scenes[key]
            generation = self._generation
            building = self._building.get((generation, key))
            if building is None:
                own: Future[Scene] = Future()
                self._building[generation, key] = own
        if building is not None:
            # Another thread is at it: waiting is quicker than doing it twice.
            return building.result()
        try:
            scene = build_scene(self._study, image_id, target_id, run_id, others)
        except BaseException as error:
            own.set_exception(error)
            raise
        else:
            own.set_result(scene)
        finally:
            with self._lock:
                del self._building[generation, key]
        with self._lock:
            # What could not be read is tried again: the file may be restored.
            if generation == self._generation and not scene.unread:
                self._scenes[key] = scene
                held = sum(one.nbytes for one in self._scenes.values())
                while len(self._scenes) > self._size or (held > self._most_bytes and len(self._scenes) > 1):
                    held -= self._scenes.popitem(last=False)[1].nbytes
        return scene

    def has(self, key: Key) -> bool:
        """Whether a scene is at hand."""
        with self._lock:
            return key in self._scenes

    def forget(self, image_id: str | None = None) -> None:
        """Forget an image's scenes, or all, because the study has changed."""
        with self._lock:
            self._generation += 1
            for key in [key for key in self._scenes if image_id in (None, key[0])]:
                del self._scenes[key]
