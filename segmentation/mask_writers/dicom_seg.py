"""Masks as DICOM segmentations (SEG) that refer to the files of their source series.

The study keeps no identities, and of the source's files nothing but replaced ids. A segmentation that an archive takes
names the patient and the very images it was drawn on, so the source's own files have to be at hand: they are matched by
the ids that the study keeps, which takes the study's secret key where ids were replaced.
"""

from __future__ import annotations

import importlib.metadata
import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from gaze_capture.errors import UserError
from gaze_capture.storage import explained_os_errors
from segmentation.export_selection import simulated_words
from segmentation.mask_choice import ChosenMask, Unit
from segmentation.mask_writers.book import MaskBook
from segmentation.readers.decoding import quiet_pydicom
from segmentation.readers.deidentify import Pseudonyms
from segmentation.records import Target

_ALWAYS = ("SOPClassUID", "SOPInstanceUID", "StudyInstanceUID", "SeriesInstanceUID", "Rows", "Columns")
_MAY_BE_EMPTY = (
    "PatientID",
    "PatientName",
    "PatientBirthDate",
    "PatientSex",
    "AccessionNumber",
    "StudyID",
    "StudyDate",
    "StudyTime",
    "ReferringPhysicianName",
)
"""What the standard wants there, with or without a value; files that leave it out altogether are many."""
_PLACED = ("FrameOfReferenceUID", "ImagePositionPatient", "ImageOrientationPatient", "PixelSpacing")
_CROSS_SECTIONAL = ("CT", "MR", "PT")
_LONGEST_TEXT = 64

FALLBACK_CODES = {
    "lesion": ("52988006", "SCT", "Lesion"),
    "organ": ("91772007", "SCT", "Organ"),
    "zone": ("91723000", "SCT", "Anatomical Structure"),
}
"""Type of a target that has no code of its own, by its kind."""
CATEGORY_CODES = {
    "lesion": ("49755003", "SCT", "Morphologically Abnormal Structure"),
    "organ": ("91723000", "SCT", "Anatomical Structure"),
    "zone": ("91723000", "SCT", "Anatomical Structure"),
}


@dataclass(frozen=True)
class _Plane:
    """Where the source of a slice lies."""

    path: Path
    frame: int | None
    """From 0; None in a file of one frame."""


def write_dicom_seg(book: MaskBook) -> None:
    """Write ``<image or volume>.dcm``, one segmentation a series with a segment for each target.

    Raises
    ------
    UserError
        If highdicom is missing, no source is named, or nothing could be written; the first reason is named.
    """
    _highdicom()
    if not book.source:
        raise UserError(
            "A DICOM segmentation refers to the files of its source series, which the study does not keep; name their "
            "folder with --source DIR."
        )
    from_dicom = [unit for unit in book.selection.units if unit.volume is not None and unit.volume.source_ids]
    others = len(book.selection.units) - len(from_dicom)
    if not from_dicom:
        raise UserError(
            "None of these images came from DICOM files with a SOPInstanceUID, by which a DICOM segmentation could "
            "refer to them; export png, nifti or coco."
        )
    if others:
        book.notes.append(f"{others} images or volumes did not come from DICOM files and were left out.")
    known = _Sources(book)
    problems = []
    for unit in from_dicom:
        try:
            _write_unit(book, unit, known)
        except UserError as error:
            problems.append(str(error))
    if problems and not book.entries:
        raise UserError(problems[0])
    book.notes += problems
    book.about += [
        "<image or volume>.dcm: a DICOM segmentation (binary) that refers to its source series and, like it, names the "
        "patient; a segment for each target. Frames without a marked pixel are left out, as readers expect; "
        "manifest.json tells an empty mask from a slice that nobody judged.",
        "Segments carry the target's code; a target without one is coded by its kind: "
        + "; ".join(f"{kind} {code[0]} {code[2]}" for kind, code in FALLBACK_CODES.items())
        + " (SNOMED CT).",
    ]


def _highdicom() -> Any:
    try:
        import highdicom
    except ImportError:
        raise UserError(
            "DICOM segmentations are written by highdicom, which is not installed: pip install 'gaze-insight[seg]'"
        ) from None
    return highdicom


class _Sources:
    """Finds the file and frame of each slice by the id that the study keeps."""

    def __init__(self, book: MaskBook) -> None:
        self._book = book
        self._raw: dict[str, _Plane] | None = None
        self._replaced: dict[str, _Plane] | None = None

    def find(self, unit: Unit) -> dict[int, _Plane]:
        """Return the source of each slice that is at hand, by the slice's place in the unit."""
        assert unit.volume is not None
        wanted = dict(zip(unit.volume.image_ids, unit.volume.source_ids, strict=False))
        ids = [wanted.get(image.id, "") for image in unit.images]
        found = self._pick(ids, self._scanned())
        if len(found) < len(ids) and self._book.selection.study.key_fingerprint is not None:
            found |= self._pick(ids, self._with_pseudonyms())
        return found

    @staticmethod
    def _pick(ids: Sequence[str], known: dict[str, _Plane]) -> dict[int, _Plane]:
        return {place: known[one] for place, one in enumerate(ids) if one in known}

    def _scanned(self) -> dict[str, _Plane]:
        """Every frame below the folders given, by its own id."""
        if self._raw is None:
            from segmentation.readers.dicom_files import walk
            from segmentation.readers.dicom_scan import scan
            from segmentation.stacks import Refused

            for place in self._book.source:
                if not place.exists():
                    raise UserError(f"{place} does not exist; name the folder of the source DICOM files.")
            off = Pseudonyms.off()
            self._raw = {}
            for number, path in enumerate(walk(self._book.source)):
                if isinstance(path, Refused):
                    continue
                # Also lets a person cancel while thousands of headers are read.
                self._book.progress(0, max(len(self._book.selection.masks), 1), f"{number + 1} source files")
                found = scan(path, off)
                for image in [] if isinstance(found, Refused) else found:
                    self._raw.setdefault(image.source_id, _Plane(path, image.frame))
            self._raw.pop("", None)
        return self._raw

    def _with_pseudonyms(self) -> dict[str, _Plane]:
        if self._replaced is None:
            from segmentation.import_options import ImportOptions
            from segmentation.readers.dicom import replaced_id
            from segmentation.readers.opening import identity_of

            identity = identity_of(self._book.selection.study, ImportOptions(key=self._book.key))
            self._replaced = {replaced_id(one, identity): plane for one, plane in self._scanned().items()}
        return self._replaced


def _write_unit(book: MaskBook, unit: Unit, sources: _Sources) -> None:
    selection = book.selection
    targets = selection.targets_of(unit)
    planes = sources.find(unit)
    masked = {
        place
        for target in targets
        for place, chosen in enumerate(selection.of(unit, target))
        if chosen is not None
    }
    missing = masked - planes.keys()
    if missing:
        where = ", ".join(str(path) for path in book.source)
        which = f"{len(missing)} of its {len(masked)} slices" if unit.is_volume else "it"
        raise UserError(
            f"{unit.name} was left out: the source of {which} is not in {where}; give the folder that the study was "
            "imported from."
        )
    parts = _parts(planes)
    for number, places in enumerate(parts, 1):
        if not masked & set(places):
            continue
        name = f"{unit.name}.dcm" if len(parts) == 1 else f"{unit.name}-{number}.dcm"
        _write_part(book, unit, targets, [(place, planes[place]) for place in places], name)


def _parts(planes: dict[int, _Plane]) -> list[list[int]]:
    """Return which slices go into one segmentation: files of one frame together, of several each on its own."""
    parts: dict[Path | None, list[int]] = {}
    for place in sorted(planes):
        plane = planes[place]
        parts.setdefault(plane.path if plane.frame is not None else None, []).append(place)
    return list(parts.values())


def _write_part(
    book: MaskBook, unit: Unit, targets: Sequence[Target], planes: list[tuple[int, _Plane]], name: str
) -> None:
    several = planes[0][1].frame is not None
    files = [planes[0][1].path] if several else [plane.path for _, plane in planes]
    datasets = [_header(path, unit) for path in files]
    rows = int(datasets[0].get("NumberOfFrames") or 1) if several else len(planes)
    height, width = unit.shape
    pixels = np.zeros((rows, height, width, len(targets)), np.uint8)
    chosen_of: list[list[ChosenMask]] = []
    noted = []
    for number, target in enumerate(targets):
        chosen_of.append([])
        masks = book.selection.of(unit, target)
        for row, (place, plane) in enumerate(planes):
            chosen = masks[place]
            if chosen is None:
                continue
            mask = book.read(chosen)
            pixels[plane.frame if plane.frame is not None else row, :, :, number] = mask
            chosen_of[number].append(chosen)
            noted.append((chosen, mask, number + 1, datasets[0 if several else row], plane.frame))
    # A target whose slices are all in other files has no segment here.
    used = [number for number, found in enumerate(chosen_of) if found]
    made = _segmentation(
        book, [targets[number] for number in used], [chosen_of[number] for number in used],
        datasets, pixels[:, :, :, used], files[0],
    )  # fmt: skip
    path = book.folder / name
    with explained_os_errors(path), quiet_pydicom():
        made.save_as(path)
    for chosen, mask, segment, dataset, frame in noted:
        book.note(
            chosen,
            mask,
            name,
            segment=used.index(segment - 1) + 1,
            sop_instance_uid=str(dataset.SOPInstanceUID),
            frame=None if frame is None else frame + 1,
        )


def _header(path: Path, unit: Unit) -> Any:
    """Read a source's header, with what may be empty filled in.

    Raises
    ------
    UserError
        If it lacks what a segmentation needs.
    """
    import pydicom

    try:
        with quiet_pydicom():
            dataset = pydicom.dcmread(path, stop_before_pixels=True, force=True)
            # Names of targets and annotators are of any script, and highdicom knows no set that begins with the
            # default one, as Japanese and Korean files have it.
            dataset.decode()
            dataset.SpecificCharacterSet = "ISO_IR 192"
            lacking = _lacking(dataset)
            shape = (int(dataset.get("Rows") or 0), int(dataset.get("Columns") or 0))
            for keyword in _MAY_BE_EMPTY:
                if keyword not in dataset:
                    setattr(dataset, keyword, None if keyword.endswith(("Date", "Time")) else "")
            _complete_thickness(dataset, unit)
    except OSError as error:
        raise UserError(f"{path} cannot be read: {error.strerror or error}.") from error
    except UserError:
        raise
    except Exception as error:
        raise UserError(f"{path} has a header too damaged for a segmentation to refer to it.") from error
    if lacking:
        raise UserError(
            f"{path} lacks {', '.join(lacking)}, which a DICOM segmentation needs; {unit.name} was left out: repair "
            "the file, or export nifti."
        )
    frames = int(dataset.get("NumberOfFrames") or 1)
    if frames > 1 and "FrameOfReferenceUID" not in dataset:
        raise UserError(
            f"{path} is a clip of {frames} frames without a place in the patient, to which a DICOM segmentation cannot "
            f"refer frame by frame; {unit.name} was left out: export png, nifti or coco."
        )
    if shape != unit.shape:
        raise UserError(
            f"{path} is {shape[1]} x {shape[0]} pixels, the image in the study {unit.shape[1]} x {unit.shape[0]}; "
            f"{unit.name} was left out: give the files that were imported."
        )
    return dataset


def _complete_thickness(dataset: Any, unit: Unit) -> None:
    """Give a source without a slice thickness that of the volume; highdicom refuses spacing without."""
    if dataset.get("SliceThickness") not in (None, ""):
        return
    if "FrameOfReferenceUID" in dataset:
        spacing = unit.spacing_mm
        dataset.SliceThickness = round(spacing[2], 6) if spacing is not None else 1.0
    else:
        # A picture has none; its spacing is told by the source that is referred to.
        dataset.pop("PixelSpacing", None)


def _lacking(dataset: Any) -> list[str]:
    """Return the keywords that a source lacks."""
    lacking = [keyword for keyword in _ALWAYS if dataset.get(keyword) in (None, "")]
    spacing = dataset.get("PixelSpacing")
    if spacing and not all(0 < float(value) < math.inf for value in spacing):
        lacking.append("a PixelSpacing above 0")
    if "NumberOfFrames" in dataset and "SharedFunctionalGroupsSequence" in dataset:
        # The place of each frame lies deeper; what is missing there is named when the segmentation is made.
        return lacking
    placed = [keyword for keyword in _PLACED if dataset.get(keyword) not in (None, "")]
    flat = str(dataset.get("Modality", "")) not in _CROSS_SECTIONAL and (
        "ImagePositionPatient" not in placed and "ImageOrientationPatient" not in placed
    )
    if flat:
        # Pictures without a place in the patient are referred to by their ids alone.
        dataset.pop("FrameOfReferenceUID", None)
        return lacking
    return lacking + [keyword for keyword in _PLACED if keyword not in placed]


def _segmentation(
    book: MaskBook,
    targets: Sequence[Target],
    chosen: Sequence[Sequence[ChosenMask]],
    datasets: Sequence[Any],
    pixels: npt.NDArray[np.uint8],
    file: Path,
) -> Any:
    highdicom = _highdicom()
    version = importlib.metadata.version("gaze-insight")
    first = datasets[0]
    every = [one for found in chosen for one in found]
    annotators = sorted({one.origin.annotator for one in every if one.origin.annotator})
    kinds = ", ".join(sorted({one.origin.kind for one in every}))
    simulated = simulated_words(book.selection.simulated_from)
    number = first.get("SeriesNumber")
    try:
        with quiet_pydicom():
            made = highdicom.seg.Segmentation(
                source_images=list(datasets),
                pixel_array=pixels,
                segmentation_type="BINARY",
                segment_descriptions=[
                    _description(highdicom, place, target, found, version)
                    for place, (target, found) in enumerate(zip(targets, chosen, strict=True), 1)
                ],
                series_instance_uid=highdicom.UID(),
                series_number=1000 + (int(number) if number and 0 < int(number) < 100000 else 0),
                sop_instance_uid=highdicom.UID(),
                instance_number=1,
                manufacturer="Gaze Insight",
                manufacturer_model_name="Gaze Insight",
                software_versions=version,
                device_serial_number=book.selection.study.uid[:_LONGEST_TEXT],
                content_label="MASKS",
                content_description="; ".join(filter(None, (f"{kinds} masks", simulated)))[:_LONGEST_TEXT],
                # With its delimiter a pseudonym counts as a family name, and not as the retired form of names.
                content_creator_name=f"{annotators[0]}^" if len(annotators) == 1 else None,
                series_description="Gaze Insight masks, research use only",
                omit_empty_frames=bool(pixels.any()),
            )
            if "FrameOfReferenceUID" not in made:
                # Wanted of images that have no place in the patient; it may be empty.
                made.PatientOrientation = first.get("PatientOrientation")
            return made
    except Exception as error:
        reason = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise UserError(
            f"{file} cannot be the source of a DICOM segmentation ({reason.rstrip('.')}); repair the file, or export "
            "nifti."
        ) from error


def _description(
    highdicom: Any, number: int, target: Target, chosen: Sequence[ChosenMask], version: str
) -> Any:
    from pydicom.sr.codedict import codes

    made = algorithm_type(chosen)
    identification = None
    if made != "MANUAL":
        runs = sorted({one.origin.run for one in chosen if one.origin.run})
        identification = highdicom.AlgorithmIdentificationSequence(
            name=f"Gaze Insight {runs[0]}"[:_LONGEST_TEXT] if len(runs) == 1 else "Gaze Insight",
            family=codes.cid7162.ArtificialIntelligence,
            version=version,
        )
    return highdicom.seg.SegmentDescription(
        segment_number=number,
        segment_label=target.name[:_LONGEST_TEXT],
        segmented_property_category=highdicom.sr.CodedConcept(*CATEGORY_CODES[target.kind]),
        segmented_property_type=highdicom.sr.CodedConcept(*code_of(target)),
        algorithm_type=made,
        algorithm_identification=identification,
    )


def algorithm_type(chosen: Iterable[ChosenMask]) -> str:
    """Return DICOM's word for how masks were made: by hand, by a network that a person checked, or by that alone."""
    hands = [
        one.origin.kind == "truth"
        or one.origin.purpose == "audit"
        or (one.origin.verdict == "edited" and one.origin.started_from == "empty")
        for one in chosen
    ]
    if all(hands):
        return "MANUAL"
    alone = not any(hands) and all(one.origin.kind != "reviewed" for one in chosen)
    return "AUTOMATIC" if alone else "SEMIAUTOMATIC"


def code_of(target: Target) -> tuple[str, str, str]:
    """Return value, scheme and meaning of a target's code; of its kind where it has none, or a malformed one."""
    scheme, colon, value = target.code.strip().partition(":")
    if not colon or not scheme or not 0 < len(value.strip()) <= 16 or len(scheme) > 16:
        return FALLBACK_CODES[target.kind]
    scheme, value = scheme.strip().upper(), value.strip()
    return value, scheme, _meaning(scheme, value) or target.name[:_LONGEST_TEXT]


def _meaning(scheme: str, value: str) -> str:
    """Return what a code means in the terminology itself, as far as pydicom knows it."""
    from pydicom.sr.codedict import codes

    try:
        known = getattr(codes, scheme).concepts
    except AttributeError:
        return ""
    return next((code.meaning for code in known.values() if code.value == value), "")[:_LONGEST_TEXT]
