"""One door to all readers: files in, stacks and label maps out, what cannot be read named with its reason.

Readers are imported when there is something for them: their libraries take longer to load than a picture to read.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from gaze_capture.errors import UserError
from segmentation.import_options import ImportOptions
from segmentation.sources import Found
from segmentation.stacks import LabelMap, Refused, Stack

if TYPE_CHECKING:
    from segmentation.readers.deidentify import Pseudonyms
    from segmentation.study import Study

Step = Callable[[str, int], None]
"""Called with what is being read, and how many files that is."""


def open_stacks(study: Study, found: Found, options: ImportOptions, step: Step) -> Iterator[Stack | Refused]:
    """Yield every volume, video and DICOM series among files; pictures are read elsewhere, many at a time."""
    for path in (*found.nifti, *found.nrrd, *found.video):
        step(path.name, 1)
        try:
            if path in found.nifti:
                from segmentation.readers.nifti import read_nifti

                yield read_nifti(path, options.axis)
            elif path in found.nrrd:
                from segmentation.readers.nrrd import read_nrrd

                yield read_nrrd(path, options.axis)
            else:
                from segmentation.readers.video import read_video

                yield read_video(path, options.every)
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
    """Return what makes this study's pseudonyms; none are made where the person turned that off.

    The secret key lies in the user's own folder, never in the study, which stores how to recognise it.
    """
    import platformdirs

    from segmentation.readers.deidentify import Pseudonyms, key_for

    if options.deidentify == "off":
        return Pseudonyms.off()
    folder = Path(platformdirs.user_data_dir("gaze-insight", appauthor=False)) / "keys"
    pseudonyms = key_for(study.uid, study.key_fingerprint, folder, key_file=options.key)
    if study.key_fingerprint is None:
        study.set_key_fingerprint(pseudonyms.fingerprint)
    return pseudonyms


def open_label_maps(
    study: Study, found: Found, jsons: Sequence[Path], options: ImportOptions
) -> Iterator[LabelMap | Refused]:
    """Yield the label maps among files: NIfTI, NRRD, DICOM-SEG, COCO."""
    read: Callable[[Path], list[LabelMap]]
    for path in (*found.nifti, *found.nrrd, *found.dicom, *jsons):
        if path in found.nifti:
            from segmentation.readers.nifti import read_nifti_labels

            read = functools.partial(_alone, read_nifti_labels, options.axis)
        elif path in found.nrrd:
            from segmentation.readers.nrrd import read_nrrd_labels

            read = functools.partial(_alone, read_nrrd_labels, options.axis)
        elif path in found.dicom:
            from segmentation.readers.dicom_seg import read_dicom_seg

            read = functools.partial(_alone, read_dicom_seg, identity_of(study, options))
        else:
            from segmentation.readers.coco import read_coco

            read = read_coco
        try:
            yield from read(path)
        except UserError as error:
            yield Refused(path, str(error))
        except OSError as error:
            yield Refused(path, f"{path} cannot be read: {error.strerror or error}.")


def _alone(reader: Callable[..., LabelMap], how: object, path: Path) -> list[LabelMap]:
    return [reader(path, how)]
