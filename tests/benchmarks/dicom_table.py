"""What becomes of every DICOM file that installed packages carry: ``python -m tests.benchmarks.dicom_table``."""

from __future__ import annotations

import sys
import sysconfig
import tempfile
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from rich.console import Console
from rich.table import Table

from gaze_capture.errors import UserError
from segmentation.readers.decoding import quiet_pydicom
from segmentation.readers.deidentify import Pseudonyms
from segmentation.readers.dicom import read_dicom
from segmentation.readers.dicom_files import is_dicom
from segmentation.stacks import Plane, Refused, Stack


def carried_files() -> list[Path]:
    """Return the DICOM files under site-packages, gzipped ones unpacked to a temporary folder."""
    import gzip

    import nibabel
    import pydicom

    roots = {Path(pydicom.__file__).parent / "data", Path(nibabel.__file__).parent}
    roots |= {path for path in (Path(sysconfig.get_paths()["purelib"]) / "highdicom",) if path.is_dir()}
    files = []
    for root in sorted(roots):
        for path in sorted(root.rglob("*")):
            if path.is_file() and path.name.endswith(".dcm.gz"):
                unpacked = Path(tempfile.mkdtemp()) / path.stem
                unpacked.write_bytes(gzip.decompress(path.read_bytes()))
                files.append(unpacked)
            elif path.is_file() and is_dicom(path):
                files.append(path)
    return files


def rendering(path: Path) -> Iterator[npt.NDArray[Any]]:
    """Yield each frame's real values (grey) or RGB as pydicom itself renders them; grey of MONOCHROME1 inverted."""
    from pydicom import dcmread
    from pydicom.pixels import apply_color_lut, apply_modality_lut

    dataset = dcmread(path, force=True)
    if "TransferSyntaxUID" not in dataset.file_meta:
        dataset.file_meta.TransferSyntaxUID = "1.2.840.10008.1.2"
    kind = dataset.PhotometricInterpretation
    count = int(dataset.get("NumberOfFrames") or 1)
    pixels = dataset.pixel_array
    for frame in pixels if count > 1 else [pixels]:
        if kind == "PALETTE COLOR":
            yield apply_color_lut(frame, dataset)[..., :3]
        elif frame.ndim == 3:
            yield frame
        elif kind == "MONOCHROME1":
            top = -1 if dataset.PixelRepresentation else 2**dataset.BitsStored - 1
            yield apply_modality_lut((top - frame.astype(np.int64)).astype(np.int32), dataset)
        else:
            yield apply_modality_lut(frame, dataset)


def real_values(plane: Plane) -> npt.NDArray[np.float64]:
    """Return a plane's real values (H, W) or (H, W, 3)."""
    values = plane.values.astype(np.float64) * plane.slope + plane.intercept
    return values[:, :, 0] if values.shape[2] == 1 else values


def outcome(path: Path, identity: Pseudonyms) -> tuple[str, str]:
    """Return ("equal" | "unequal" | "read" | "refused", what there is to say) of a file."""
    worst, frames = 0.0, 0
    with quiet_pydicom():
        try:
            expected = list(rendering(path))
        except Exception as error:
            expected, excuse = [], type(error).__name__
    results = list(read_dicom([path], identity))
    if any(isinstance(result, Refused) for result in results):
        return "refused", "; ".join(
            sorted({result.reason for result in results if isinstance(result, Refused)})
        )
    for stack in results:
        assert isinstance(stack, Stack)
        for index in range(stack.count):
            try:
                plane = stack.read(index)
            except UserError as error:
                return "refused", str(error).replace(f"{path} ", "")
            if not expected:
                return "read", f"pydicom: {excuse}"
            if expected[frames].shape != (real := real_values(plane)).shape:
                return "unequal", "another shape"
            worst = max(worst, float(np.abs(real - expected[frames]).max()))
            frames += 1
    if frames != len(expected):
        return "unequal", f"{frames} frames instead of {len(expected)}"
    return ("equal" if worst == 0 else "unequal"), f"{frames} planes, max difference {worst:g}"


def main() -> int:
    """Print the table."""
    identity = Pseudonyms(bytes(32))
    table = Table("file", "transfer syntax", "outcome", "", title="DICOM files that wheels carry")
    counts: Counter[str] = Counter()
    for path in carried_files():
        from pydicom import dcmread

        with quiet_pydicom():
            meta = dcmread(path, force=True, stop_before_pixels=True).file_meta
        syntax = meta.get("TransferSyntaxUID")
        kind, words = outcome(path, identity)
        counts[kind] += 1
        table.add_row(path.name, syntax.name[:40] if syntax else "-", kind, words)
    console = Console(width=200)
    console.print(table)
    console.print(
        f"{sum(counts.values())} files: " + ", ".join(f"{n} {kind}" for kind, n in counts.most_common())
    )
    return 0


if __name__ == "__main__":
    sys.exit(main())
