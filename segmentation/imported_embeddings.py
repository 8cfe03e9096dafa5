"""Text embeddings that another program made: one ``.npy`` file an image, as From Gaze to Insight's code reads them.

Its loaders read ``embeddings/<image>.npy`` and hand the array to a fusion of 768-wide tokens, an axis of length 1 in
front being dropped: (L, D) or (1, L, D); (D,) is one token. Nothing says what a token is about, and nothing can be
retold for a flipped image: all flip states have the same tokens.
"""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import safetensors
import safetensors.numpy

from gaze_capture.errors import UserError
from gaze_capture.storage import (
    explained,
    explained_os_errors,
    read_json,
    write_bytes_atomic,
    write_json_atomic,
)
from segmentation.gaze_matching import ImageNames
from segmentation.progress import Progress, no_progress
from segmentation.study import Study
from segmentation.text_choice import embeddings_folder, imported_hash
from segmentation.text_encoder import Vectors

LONGEST = 256
"""Tokens of one image; more are no text embedding, or its axes are the other way round."""
WIDEST = 8192


@dataclass(frozen=True)
class EmbeddingsReport:
    """What an import of embeddings took, and what it did not."""

    name: str
    sha256: str
    width: int
    images: int
    tokens: tuple[int, int]
    """Fewest and most tokens of an image."""
    unknown: tuple[str, ...]
    """Files that the study has no image for."""
    refused: tuple[tuple[str, str], ...]
    """(file, reason)"""
    missing: int
    """Images of the study, or of the split, that have no embeddings."""
    already_there: bool
    notes: tuple[str, ...]


def import_embeddings(
    study: Study,
    folder: Path,
    *,
    name: str = "text",
    target: str | None = None,
    split: str | None = None,
    token_axis: int = 0,
    width: int | None = None,
    progress: Progress = no_progress,
) -> EmbeddingsReport:
    """Copy the ``.npy`` files of a folder into the study's ``embeddings/imported-<name>/``.

    Parameters
    ----------
    target
        Whom they speak of; None: the study's first target.
    token_axis
        Which axis of a two-dimensional array counts tokens; the other is the width.
    width
        Numbers in a token; None: what most files have. Files of another width are refused, each by name.

    Raises
    ------
    UserError
        If no file can be used, or the study has other embeddings of this name for the target.
    """
    folder = Path(folder)
    target_id = study.target(target).id
    place = embeddings_folder(study, name)
    if not folder.is_dir():
        raise UserError(f"There is no folder {folder}.")
    with explained_os_errors(folder):
        files = sorted(path for path in folder.iterdir() if path.suffix.lower() == ".npy" and path.is_file())
    if not files:
        raise UserError(f"{folder} holds no .npy files; choose the folder with one file for each image.")
    images = study.images_of(split)
    names = ImageNames(images)
    found: dict[str, tuple[Path, Vectors]] = {}
    unknown: list[str] = []
    refused: list[tuple[str, str]] = []
    for number, path in enumerate(files):
        progress(number, len(files), path.name)
        try:
            image = names.find(path, path.name)
            if image is None:
                unknown.append(path.name)
            elif image.id in found:
                raise UserError(f"{found[image.id][0].name} is about the same image already.")
            else:
                found[image.id] = path, _read(path, token_axis)
        except UserError as error:
            refused.append((path.name, str(error)))
    if found:
        chosen = width or Counter(tokens.shape[1] for _, tokens in found.values()).most_common(1)[0][0]
        for image_id, (path, tokens) in list(found.items()):
            if tokens.shape[1] != chosen:
                refused.append((path.name, f"Its tokens have {tokens.shape[1]} numbers, not {chosen}."))
                del found[image_id]
    if not found:
        if refused:
            raise UserError(f"No file in {folder} can be used; {refused[0][0]}: {refused[0][1]}")
        raise UserError(
            f"None of the {len(files)} .npy files in {folder} is named like an image of the study (the first is "
            f"{files[0].name}); import the images first, or check their names."
        )
    tokens_of = {image_id: tokens for image_id, (_, tokens) in sorted(found.items())}
    digest = _hash(tokens_of)
    about = place / f"{target_id}.json"
    already_there = about.exists() and imported_hash(study, name, [target_id]) == digest
    if about.exists() and not already_there:
        raise UserError(
            f"The study has other embeddings named {name!r} for {target_id!r} already; runs may read them. Choose "
            f"another name with --name, or delete {about} first."
        )
    if not already_there:
        values = {
            "name": name,
            "target": target_id,
            "sha256": digest,
            "width": str(chosen),
            "images": str(len(tokens_of)),
        }
        data = safetensors.numpy.save(tokens_of, values)
        write_bytes_atomic(place / f"{target_id}.safetensors", data, within=study.folder)
        # Comes last: it is what says that the import is whole.
        write_json_atomic(about, {**values, "source": folder.name}, within=study.folder)
        study.audit("import-embeddings", name=name, target=target_id, images=len(tokens_of), width=chosen)
    lengths = [len(tokens) for tokens in tokens_of.values()]
    notes = []
    if max(lengths) == 1:
        notes.append(
            "Each image has a single token: attention to one token is the same everywhere in an image, so that text "
            "can only shift the teacher's features as a whole. Two or more tokens an image tell it where to look."
        )
    return EmbeddingsReport(
        name=name,
        sha256=digest,
        width=chosen,
        images=len(tokens_of),
        tokens=(min(lengths), max(lengths)),
        unknown=tuple(unknown),
        refused=tuple(refused),
        missing=len(images) - len(tokens_of),
        already_there=already_there,
        notes=tuple(notes),
    )


def _read(path: Path, token_axis: int) -> Vectors:
    """Return the tokens (L, D) of a file.

    Raises
    ------
    UserError
        If it holds anything else; the sentence does not name it.
    """
    try:
        # Mapped, not read: a header may claim any size. Pickled objects cannot be mapped, and are never loaded.
        array: Any = np.lib.format.open_memmap(path, mode="r")
    except OSError as error:
        raise UserError(explained(error, path)) from None
    except Exception as error:
        if "Python objects" in str(error):
            raise UserError(
                "It holds pickled Python objects, which can run code and are never loaded; save a plain float array."
            ) from None
        raise UserError("It is damaged or no .npy file; export it again.") from None
    if array.dtype.kind != "f":
        raise UserError(f"It holds {array.dtype} values; embeddings are floating-point numbers.")
    shape = array.shape
    if array.ndim == 3 and shape[0] == 1:
        array = array[0]
    if array.ndim == 1:
        array = array[np.newaxis]
    elif array.ndim == 2 and token_axis == 1:
        array = array.T
    if array.ndim != 2:
        raise UserError(
            f"Its shape is {shape}; embeddings are (tokens, width), (1, tokens, width) or (width,)."
        )
    if not array.size:
        raise UserError(f"It is empty: its shape is {shape}.")
    if array.shape[0] > LONGEST or array.shape[1] > WIDEST:
        raise UserError(
            f"Its shape is {shape}: at most {LONGEST} tokens of at most {WIDEST} numbers are read; if its axes are the "
            "other way round, say so with --token-axis 1."
        )
    with np.errstate(over="ignore"):
        tokens = np.ascontiguousarray(array, dtype=np.float32)
    if not np.isfinite(tokens).all():
        raise UserError("Some of its values are not finite numbers.")
    return tokens


def _hash(tokens_of: dict[str, Vectors]) -> str:
    """Return a hash of what is said of which image, whatever the order and the file."""
    digest = hashlib.sha256()
    for image_id, tokens in sorted(tokens_of.items()):
        digest.update(f"{image_id} {tokens.shape}\n".encode())
        digest.update(tokens.astype("<f4").tobytes())
    return digest.hexdigest()


class ImportedEmbeddings:
    """Imported embeddings of some targets, read from the study image by image.

    Raises
    ------
    UserError
        If the study lacks them, they differ in width or are damaged, or they are not those that a run read.
    """

    def __init__(self, study: Study, name: str, targets: Sequence[str], sha256: str = "") -> None:
        self.name, self.targets = name, tuple(targets)
        folder = embeddings_folder(study, name)
        remedy = f"Delete the folder {folder} and import the embeddings again."
        found = imported_hash(study, name, targets)
        if sha256 and found != sha256:
            raise UserError(
                f"The embeddings {name!r} are not those that the run reads ({found[:8]}, not {sha256[:8]}); import "
                "those under their name again, or start a new run."
            )
        self._files: dict[str, Any] = {}
        widths = set()
        for target_id in targets:
            path = folder / f"{target_id}.safetensors"
            try:
                stream: Any = safetensors.safe_open(path, "np")
                self._files[target_id] = stream
                header = stream.metadata() or {}
                widths.add(int(header["width"]))
                expected = read_json(folder / f"{target_id}.json")["sha256"]
            except (OSError, KeyError, TypeError, ValueError, safetensors.SafetensorError) as error:
                raise UserError(f"{path} is damaged ({error}). {remedy}") from None
            if (header.get("name"), header.get("target"), header.get("sha256")) != (
                name,
                target_id,
                expected,
            ):
                raise UserError(f"{path} is not what it was imported as. {remedy}")
        if len(widths) > 1:
            raise UserError(
                f"The embeddings {name!r} have different widths for different targets ({sorted(widths)}); train the "
                "targets apart, or import them anew."
            )
        self.width = widths.pop()
        self._images = {target_id: frozenset(file.keys()) for target_id, file in self._files.items()}

    def keys(self) -> set[tuple[str, str]]:
        """Return (image id, target id) of all that is embedded."""
        return {(image_id, target_id) for target_id, ids in self._images.items() for image_id in ids}

    def tokens(self, image_id: str) -> Iterator[tuple[str, Vectors]]:
        """Yield the tokens (L, D) of an image for each target that has any."""
        for target_id, file in self._files.items():
            if image_id in self._images[target_id]:
                yield target_id, file.get_tensor(image_id)
