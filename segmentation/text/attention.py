"""Which words look where: the teacher's attention to each phrase of an explanation, as stored with a run."""

from __future__ import annotations

import io
import json
import zipfile
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
import numpy.typing as npt

from gaze_capture.errors import UserError
from gaze_capture.storage import explained_os_errors, write_bytes_atomic
from segmentation.study import Mask, Study

Maps = npt.NDArray[np.float32]


@dataclass(frozen=True)
class AttentionMaps:
    """What a teacher made of the phrases of one target in one image, on a coarse grid (h, w) over the image."""

    names: tuple[str, ...]
    """Attributes, one a phrase."""
    phrases: tuple[str, ...]
    """What the teacher read; an explanation that was changed since says something else."""
    maps: Maps
    """(L, h, w) share of each phrase in what a place reads, 0..1; the phrases of all targets sum to 1 everywhere."""
    effect: Maps
    """(h, w) the target's probability with these words minus that without any, -1..1."""
    step: int
    """The training step of the checkpoint."""

    def of(self, name: str) -> Maps | None:
        """Return the map (h, w) of an attribute, or None where nothing was said of it."""
        return self.maps[self.names.index(name)] if name in self.names else None


def attention_path(study: Study, run_id: str, image_id: str, target_id: str) -> Path:
    """Return where the attention of a run's teacher lies, or would lie."""
    return study.runs_folder / run_id / "attention" / f"{image_id}.{target_id}.npz"


def save_attention(study: Study, run_id: str, image_id: str, target_id: str, found: AttentionMaps) -> None:
    """Store maps with 8 bits a place.

    Raises
    ------
    UserError
        If the study cannot be written.
    """
    scale = float(found.maps.max(initial=0.0)) or 1.0
    header = {"names": found.names, "phrases": found.phrases, "scale": scale, "step": found.step}
    stream = io.BytesIO()
    np.savez_compressed(
        stream,
        header=np.frombuffer(json.dumps(header, ensure_ascii=False).encode(), dtype=np.uint8),
        maps=np.rint(found.maps * (255 / scale)).astype(np.uint8),
        effect=np.rint(found.effect * 127).astype(np.int8),
    )
    path = attention_path(study, run_id, image_id, target_id)
    write_bytes_atomic(path, stream.getvalue(), within=study.folder)


def load_attention(study: Study, run_id: str, image_id: str, target_id: str) -> AttentionMaps | None:
    """Return the stored maps, or None.

    Raises
    ------
    UserError
        If the file is damaged.
    """
    path = attention_path(study, run_id, image_id, target_id)
    if not path.exists():
        return None
    with explained_os_errors(path):
        data = path.read_bytes()
    try:
        with np.load(io.BytesIO(data), allow_pickle=False) as arrays:
            header = json.loads(arrays["header"].tobytes())
            maps = arrays["maps"].astype(np.float32) * np.float32(header["scale"] / 255)
            effect = arrays["effect"].astype(np.float32) / 127
        names, phrases = tuple(header["names"]), tuple(header["phrases"])
        if maps.ndim != 3 or not len(maps) == len(names) == len(phrases) or maps.shape[1:] != effect.shape:
            raise ValueError("names and maps do not match")
        return AttentionMaps(names, phrases, maps, effect, int(header["step"]))
    except (OSError, KeyError, ValueError, TypeError, EOFError, zipfile.BadZipFile) as error:
        raise UserError(f"{path} is damaged ({error}). Delete it; it can be made again.") from None


def share_inside(maps: Maps, mask: Mask) -> tuple[npt.NDArray[np.float64], float]:
    """Return how much of each map (L, h, w) lies inside a mask (H, W), and how much of the image the mask covers.

    Both are 0..1; attention that is the same everywhere has as much inside as the mask covers.
    """
    height, width = maps.shape[1:]
    covered = cv2.resize(mask.astype(np.float32), (width, height), interpolation=cv2.INTER_AREA)
    totals = maps.sum((1, 2), dtype=np.float64)
    inside = (maps * covered).sum((1, 2), dtype=np.float64) / np.maximum(totals, 1e-12)
    return inside, float(covered.mean())
