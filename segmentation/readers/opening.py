"""One door to all readers: files in, stacks and label maps out, what cannot be read named with its reason."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from gaze_capture.errors import UserError
from segmentation.readers.deidentify import Pseudonyms, study_pseudonyms
from segmentation.sources import Found
from segmentation.stacks import LabelMap, Refused, Stack

if TYPE_CHECKING:
    from segmentation.importing import ImportOptions
    from segmentation.study import Study

Step = Callable[[str, int], None]
"""Called with what is being read, and how many files that is."""


def open_stacks(study: Study, found: Found, options: ImportOptions, step: Step) -> Iterator[Stack | Refused]:
    """Yield every volume, video and DICOM series among files; pictures are read elsewhere, many at a time."""
    from segmentation.readers.nifti import read_nifti
    from segmentation.readers.nrrd import read_nrrd
    from segmentation.readers.video import read_video

    for files, read in (
        (found.nifti, lambda path: read_nifti(path, options.axis)),
        (found.nrrd, lambda path: read_nrrd(path, options.axis)),
        (found.video, lambda path: read_video(path, options.every)),
    ):
        for path in files:
            step(path.name, 1)
            try:
                yield read(path)
            except UserError as error:
                yield Refused(path, str(error))
            except OSError as error:
                yield Refused(path, f"{path} cannot be read: {error.strerror or error}.")
    if found.dicom:
        from segmentation.readers.dicom import read_dicom

        for stack in read_dicom(found.dicom, identity_of(study, options)):
            step("" if isinstance(stack, Refused) else stack.name, _file_count(stack))
            yield stack


def _file_count(stack: Stack | Refused) -> int:
    return 1 if isinstance(stack, Refused) else len(stack.files)


def identity_of(study: Study, options: ImportOptions) -> Pseudonyms:
    """Return what makes this study's pseudonyms; none are made where the person turned that off."""
    if options.deidentify == "off":
        return Pseudonyms.off()
    return study_pseudonyms(study, options.key)


def open_label_maps(
    study: Study, found: Found, jsons: Sequence[Path], options: ImportOptions
) -> Iterator[LabelMap | Refused]:
    """Yield the label maps among files: NIfTI, NRRD, DICOM-SEG, COCO."""
    from segmentation.readers.coco import read_coco
    from segmentation.readers.dicom_seg import read_dicom_seg
    from segmentation.readers.nifti import read_nifti_labels
    from segmentation.readers.nrrd import read_nrrd_labels

    def seg(path: Path) -> list[LabelMap]:
        return [read_dicom_seg(path, identity_of(study, options))]

    for files, read in (
        (found.nifti, lambda path: [read_nifti_labels(path, options.axis)]),
        (found.nrrd, lambda path: [read_nrrd_labels(path, options.axis)]),
        (found.dicom, seg),
        (jsons, read_coco),
    ):
        for path in files:
            try:
                yield from read(path)
            except UserError as error:
                yield Refused(path, str(error))
            except OSError as error:
                yield Refused(path, f"{path} cannot be read: {error.strerror or error}.")
