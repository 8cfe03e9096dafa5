"""What a study's files say of targets, images and volumes: the records, and how they are written and read."""

from __future__ import annotations

import contextlib
import dataclasses
import datetime
import json
import re
import secrets
import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from gaze_capture.errors import UserError
from gaze_capture.storage import read_json
from segmentation.intensity import AS_IT_IS, Intensity

SCHEMA = 2
MASK_THRESHOLD = 0.5
"""The probability from which on a pixel belongs to a predicted mask: as it is shown, judged, edited and exported."""
_LONGEST_LINE = 1 << 16
Key = tuple[str, str]
"""Image id and target id."""


@dataclass(frozen=True)
class Target:
    """One thing to segment."""

    id: str = "target"
    name: str = "Target"
    colour: str = "#56B4E9"
    kind: Literal["lesion", "organ", "zone"] = "lesion"
    inside: str | None = None
    """Id of the target this one is a part of, where zones nest."""
    code: str = ""
    """Code in a terminology, scheme first, e.g. ``SCT:41216001``."""


@dataclass(frozen=True)
class StudyImage:
    """One image of a study; `path` is relative to the study folder, with forward slashes."""

    id: str
    path: str
    source_name: str
    """The file's own name, by which gaze and masks of other programs refer to it; de-identified, its pseudonym."""
    sha256: str
    """Of the file in the study."""
    shape: tuple[int, int, int]
    """Height, width, channels."""
    modality: str = "photo"
    spacing_mm: tuple[float, float] | None = None
    slice_index: int | None = None
    """Place in the volume, from 0; None for an image on its own."""
    split: str = "train"
    group: str = ""
    """Patient, sequence or near-duplicate cluster; images of one group never fall on both sides of a split."""
    volume: str = ""
    """Id of the volume, series or file of pages it is a slice of."""
    intensity: Intensity = AS_IT_IS
    source_sha256: str = ""
    """Of the file (or, of a slice, the pixels) it came from, where the study's own file differs from that."""
    captured: str = ""
    """ISO 8601 time of capture, shifted where it was de-identified."""
    burned_in: str = ""
    """Why text is likely in the pixels; empty once it was looked at or blanked."""

    @property
    def source_stem(self) -> str:
        """The source's name, without the number of the slice where the image is one of several."""
        return re.sub(r" \d+$", "", self.source_name) if self.volume else self.source_name

    @property
    def came_from_sha256(self) -> str:
        """What tells the same image when it is imported again."""
        return self.source_sha256 or self.sha256


def group_of(image: StudyImage) -> str:
    """Return what an image is no independent evidence of: its group, else its volume, else itself."""
    return image.group or image.volume or image.id


@dataclass(frozen=True)
class Volume:
    """Slices that belong together, and what is known of their space."""

    id: str
    image_ids: tuple[str, ...]
    """In order of the slices."""
    slice_spacing_mm: float | None = None
    affine: tuple[tuple[float, ...], ...] | None = None
    """4x4: (column, row, slice, 1) to millimetres in the patient, RAS+."""
    series: str = ""
    """Pseudonymous id of the series."""
    source_ids: tuple[str, ...] = ()
    """For each slice, the replaced id by which masks of other programs refer to it; or empty."""
    header: dict[str, Any] = dataclasses.field(default_factory=dict)
    """Facts kept of the source."""
    notes: tuple[str, ...] = ()


def utc_now() -> str:
    """Return the time as ISO 8601 in UTC, to the millisecond."""
    return datetime.datetime.now(datetime.timezone.utc).isoformat(timespec="milliseconds")


def refuse_newer(path: Path, values: Any, known: int = SCHEMA, key: str = "schema") -> None:
    """Make sure that no later version of the program wrote a file.

    Parameters
    ----------
    values : what the file holds, whatever it is
    known : the latest version of the file that this program reads
    key : under which the file says its version

    Raises
    ------
    UserError
        If its version is beyond the known one.
    """
    version = values.get(key) if isinstance(values, dict) else None
    if isinstance(version, int) and version > known:
        raise UserError(f"{path} was written by a newer Gaze Insight; update the program to read it.")


def new_id(prefix: str = "") -> str:
    """Return an id that sorts by time, to a 256th of a second, and that two workstations never both draw."""
    now = datetime.datetime.now(datetime.timezone.utc)
    fraction = now.microsecond * 256 // 1_000_000
    return f"{prefix}{now:%Y%m%d-%H%M%S}-{fraction:02x}{secrets.token_hex(2)}"


def run_made_at(folder: Path) -> str:
    """Return when a run was made, as text that sorts: as its id has it, or when it began where a person chose the id.

    Before it began its spec's own time counts.
    """
    noted = re.match(r"run-(\d{8}-\d{6})-", folder.name)
    if noted is not None:
        return noted[1]
    try:
        with open(folder / "events.jsonl", "rb") as stream:
            return _sortable(float(json.loads(stream.readline(_LONGEST_LINE))["time"]))
    except (OSError, ValueError, KeyError, TypeError, OverflowError):
        with contextlib.suppress(OSError):
            return _sortable((folder / "spec.json").stat().st_mtime)
    return ""


def _sortable(seconds: float) -> str:
    return f"{datetime.datetime.fromtimestamp(seconds, datetime.timezone.utc):%Y%m%d-%H%M%S}"


def readable(name: str) -> str:
    """Return a file's name as text; bytes that are none (names of old disks and archives) become a question mark."""
    return name.encode("utf-8", "surrogateescape").decode("utf-8", "replace")


_RESERVED = re.compile(r"(?i)(con|prn|aux|nul|com\d|lpt\d)")
"""What Windows keeps for devices, whatever the ending."""
_LONGEST_NAME_BYTES = 180


def safe_name(text: str) -> str:
    """Make a file-name part of any text: letters and digits of every script, `-` and `_`; at most 80 long.

    One text gives one name whatever way its accents are encoded.
    """
    name = re.sub(r"[^\w-]+", "_", unicodedata.normalize("NFC", text), flags=re.UNICODE).strip("_")
    if _RESERVED.fullmatch(name):
        name = f"{name}_"
    # In bytes, too: file systems count so, and a letter may take four.
    return name[:80].encode()[:_LONGEST_NAME_BYTES].decode(errors="ignore") or "unnamed"


_DEFAULTS = {
    field.name: field.default
    for kind in (StudyImage, Intensity)
    for field in dataclasses.fields(kind)
    if field.default is not dataclasses.MISSING
}


def image_record(image: StudyImage) -> dict[str, Any]:
    """Return an image as JSON; what has its usual value is left out: ten thousand images are read at each start."""
    values = {
        field.name: getattr(image, field.name)
        for field in dataclasses.fields(image)
        if getattr(image, field.name) != _DEFAULTS.get(field.name, dataclasses.MISSING)
    }
    if "intensity" in values:
        values["intensity"] = {
            name: value
            for name, value in dataclasses.asdict(image.intensity).items()
            if value != _DEFAULTS[name]
        }
    return values


def read_manifest(path: Path) -> list[StudyImage]:
    """Read the images that one manifest lists.

    Raises
    ------
    UserError
        If it is missing or damaged.
    """
    manifest = read_json(path)
    try:
        found = []
        for values in manifest["images"]:
            values["shape"] = tuple(values["shape"])
            if values.get("spacing_mm"):
                values["spacing_mm"] = tuple(values["spacing_mm"])
            if "intensity" in values:
                intensity = values["intensity"]
                if intensity.get("window"):
                    intensity["window"] = tuple(intensity["window"])
                values["intensity"] = Intensity(**intensity)
            image = StudyImage(**values)
            _check(image)
            found.append(image)
        return found
    except (KeyError, TypeError, AttributeError, ValueError) as error:
        raise UserError(f"{path} is damaged ({error}). Restore it from a backup.") from None


def read_volume(path: Path) -> Volume:
    """Read what is known of a volume.

    Raises
    ------
    UserError
        If it is missing or damaged.
    """
    values = read_json(path)
    try:
        return Volume(
            id=values["id"],
            image_ids=tuple(values["image_ids"]),
            slice_spacing_mm=values["slice_spacing_mm"],
            affine=values["affine"] and tuple(tuple(row) for row in values["affine"]),
            series=values["series"],
            source_ids=tuple(values["source_ids"]),
            header=values["header"],
            notes=tuple(values["notes"]),
        )
    except (KeyError, TypeError) as error:
        raise UserError(f"{path} is damaged ({error}). Restore it from a backup.") from None


_LEADS_AWAY = re.compile(r"[\x00/\\:.]")


def _check(image: StudyImage) -> None:
    """Raise ValueError where a record, changed by hand or made by a stranger, is none, or leads out of the study.

    Files are named after ids, and read and written where the path says.
    """
    for name in ("id", "path", "source_name", "sha256", "split", "group", "volume"):
        if not isinstance(getattr(image, name), str):
            raise ValueError(f"'{name}' cannot be {getattr(image, name)!r}")
    if not image.id or _LEADS_AWAY.search(image.id) or _LEADS_AWAY.search(image.volume):
        raise ValueError(f"{image.id!r} of {image.volume!r} cannot be an image's id and volume")
    folder, *names = image.path.split("/")
    if (
        folder != "images"
        or not names
        or not {"", ".", ".."}.isdisjoint(names)
        or re.search(r"[\\:]", image.path)
    ):
        raise ValueError(f"the image {image.id} cannot lie in {image.path!r}")
    if len(image.shape) != 3 or not all(isinstance(side, int) for side in image.shape):
        raise ValueError(f"the image {image.id} cannot have the shape {image.shape}")


def check_targets(targets: Sequence[Target]) -> None:
    """Raise UserError unless targets can stand in one study; see :meth:`Study.set_targets`."""
    ids = [target.id for target in targets]
    if not ids:
        raise UserError("A study needs at least one target.")
    for target in targets:
        texts = (target.id, target.name, target.colour, target.kind, target.inside or "", target.code)
        if not all(isinstance(text, str) for text in texts):
            raise UserError(f"The target {target.id!r} has something that is no text.")
        if target.id != safe_name(target.id):
            raise UserError(
                f"{target.id!r} cannot be a target's id; use letters, digits, - and _, like {safe_name(target.id)!r}."
            )
        if ids.count(target.id) > 1:
            raise UserError(f"Two targets are called {target.id!r}; give each an id of its own.")
        outer, seen = target.inside, {target.id}
        while outer is not None:
            if outer not in ids:
                raise UserError(
                    f"{target.id!r} is said to lie inside {outer!r}, which is no target of the study."
                )
            if outer in seen:
                raise UserError(f"The target {target.id!r} is said to lie inside of itself.")
            seen.add(outer)
            outer = targets[ids.index(outer)].inside
