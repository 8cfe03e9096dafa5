"""Small valid files of every format that is read, ways to damage them, and reading all that is in one."""

from __future__ import annotations

import dataclasses
import gzip
import importlib
import importlib.util
import json
import shutil
import struct
import zlib
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import cv2
import nibabel as nib
import nrrd
import numpy as np

from gaze_capture.errors import UserError
from gaze_capture.formats import gazemedseg
from gaze_capture.formats.gazemedseg import read_gazemedseg
from gaze_capture.formats.inspection import inspect
from gaze_capture.formats.reading import read_gaze_file
from segmentation.image_headers import capture_time, header_of, png_chunks, stripped
from segmentation.images import decode_mask, image_shape
from segmentation.readers.coco import read_coco
from segmentation.readers.label_images import read_label_png
from segmentation.readers.nifti import read_nifti, read_nifti_labels
from segmentation.readers.nrrd import read_nrrd, read_nrrd_labels
from segmentation.readers.plain import read_plain
from segmentation.readers.video import read_video
from segmentation.stacks import LabelMap, Refused, Stack
from tests.gaze_files import KNOWN, every_format
from tests.pictures import read_display

Files = dict[str, bytes]
"""Name -> content; the first is the one that is opened."""

HAS_DICOM = importlib.util.find_spec("segmentation.readers.dicom") is not None


def samples(folder: Path) -> dict[str, list[Files]]:
    """Make a few files of every format; `folder` is used to write what libraries only write to disk."""
    rng = np.random.default_rng(1)
    smooth = cv2.GaussianBlur(rng.integers(0, 256, (48, 64, 3)).astype(np.uint8), (0, 0), 3)
    grey16 = (smooth[:, :, 0].astype(np.uint16) << 7) + 11
    mask = (smooth[:, :, 0] > 128).astype(np.uint8) * 255
    volume = rng.integers(-500, 900, (12, 10, 6)).astype(np.int16)
    small = rng.integers(0, 3, (12, 10, 6)).astype(np.uint8)
    made: dict[str, list[Files]] = {
        "PNG": [
            {"a.png": _encoded(".png", image)}
            for image in (smooth, grey16, mask, np.dstack([smooth, mask]), smooth[:, :, 0])
        ],
        "JPEG": [
            {"a.jpg": _encoded(".jpg", smooth)},
            {"a.jpg": _encoded(".jpg", smooth[:, :, 0])},
            {"a.jpg": _encoded(".jpg", smooth, cv2.IMWRITE_JPEG_PROGRESSIVE, 1)},
        ],
        "BMP": [{"a.bmp": _encoded(".bmp", smooth)}, {"a.bmp": _encoded(".bmp", mask)}],
        "TIFF": [
            {"a.tif": _encoded(".tif", image, cv2.IMWRITE_TIFF_COMPRESSION, compression)}
            for image in (smooth, grey16, grey16.astype(np.float32) / 7)
            for compression in (1, 5, 8)
        ],
        "TIFF pages": [{"a.tif": cv2.imencodemulti(".tif", [smooth, smooth[::-1], smooth])[1].tobytes()}],
        "NIfTI": [],
        "NIfTI gz": [],
        "NRRD": [],
        "video": [],
        "COCO": [{"a.json": json.dumps(_coco(mask)).encode()}],
        "gaze CSV": [{"a.csv": _gaze().encode()}],
        **{f"gaze: {name}": [{file: data}] for name, (file, data, _) in every_format().items()},
    }
    affine = np.diag([1.5, 1.5, 4.0, 1.0])
    scratch = folder / "scratch"
    scratch.mkdir(parents=True)
    for image in (
        nib.Nifti1Image(volume, affine),
        nib.Nifti1Image(volume.astype(np.float32) / 3, affine),
        nib.Nifti1Image(small, affine),
        nib.Nifti2Image(volume.astype(np.int32), affine),
        nib.Nifti1Image(volume.transpose(2, 0, 1).copy(), affine),
    ):
        data = image.to_bytes()
        made["NIfTI"].append({"a.nii": data})
        made["NIfTI gz"].append({"a.nii.gz": gzip.compress(data)})
    nib.save(nib.Nifti1Pair(volume, affine), scratch / "a.img")
    made["NIfTI"].append({name: (scratch / name).read_bytes() for name in ("a.hdr", "a.img")})
    for number, (values, header) in enumerate(
        (
            (volume, {"encoding": "gzip"}),
            (volume, {"encoding": "raw"}),
            (volume, {"encoding": "bzip2"}),
            (small, {"encoding": "ASCII", "Segment0_Name": "liver", "Segment0_LabelValue": "1"}),
            (volume.astype(np.float64) / 3, {"encoding": "gzip"}),
        )
    ):
        space = {
            "space": "left-posterior-superior",
            "space directions": affine[:3, :3],
            "space origin": [1.0, 2.0, 3.0],
        }
        nrrd.write(str(scratch / f"{number}.nrrd"), values, {**space, **header})
        made["NRRD"].append({"a.nrrd": (scratch / f"{number}.nrrd").read_bytes()})
    nrrd.write(str(scratch / "a.nhdr"), volume, {"encoding": "raw"})
    made["NRRD"].append({name: (scratch / name).read_bytes() for name in ("a.nhdr", "a.raw")})
    for ending, codec in ((".avi", "MJPG"), (".avi", "XVID"), (".mp4", "mp4v")):
        writer = cv2.VideoWriter(str(scratch / f"a{ending}"), cv2.VideoWriter.fourcc(*codec), 25, (64, 48))
        for shift in range(5):
            writer.write(np.roll(smooth, 3 * shift, axis=1))
        writer.release()
        made["video"].append({f"a{ending}": (scratch / f"a{ending}").read_bytes()})
    if HAS_DICOM:
        found = importlib.util.find_spec("pydicom.data")
        assert found is not None and found.origin is not None
        files = sorted((Path(found.origin).parent / "test_files").glob("*.dcm"))
        # Large files say nothing more and slow everything down.
        made["DICOM"] = [{"a.dcm": file.read_bytes()} for file in files if file.stat().st_size < 1 << 20]
    shutil.rmtree(scratch)
    return made


def _encoded(ending: str, pixels: Any, *options: int) -> bytes:
    ok, data = cv2.imencode(ending, pixels, options)
    assert ok
    return bytes(data.tobytes())


def _coco(mask: Any) -> dict[str, Any]:
    runs = np.diff(np.flatnonzero(np.diff(np.concatenate([[2], mask.T.ravel(), [2]]).astype(int))))
    counts = ([0] if mask[0, 0] else []) + runs.tolist()
    shapes: list[Any] = [[[2, 3, 30, 3.5, 20, 40]], {"size": [48, 64], "counts": counts}]
    return {
        "images": [{"id": 1, "file_name": "a.png", "height": 48, "width": 64}],
        "categories": [{"id": 1, "name": "polyp"}],
        "annotations": [
            {"id": number, "image_id": 1, "category_id": 1, "segmentation": shape}
            for number, shape in enumerate(shapes)
        ],
    }


def _gaze() -> str:
    header = "IMAGE,CURRENT_FIX_INDEX,CURRENT_FIX_X,CURRENT_FIX_Y,CURRENT_FIX_DURATION,CURRENT_FIX_START"
    rows = [f"{image}.png,{n},0.{n},0.{9 - n},{100 + n},{300 * n}" for image in "ab" for n in range(1, 9)]
    return "\n".join([header, *rows, ""])


def damaged(files: Files, rng: np.random.Generator) -> Files:
    """Damage one of the files: cut, flip bits, overwrite, insert, blank the header, another ending or content."""
    names = list(files)
    name = names[int(rng.integers(len(names)))]
    data = bytearray(files[name])
    head = min(len(data), 400)
    way = int(rng.integers(10))
    for _ in range(int(rng.integers(1, 4))):
        # Half of all damage goes to the header, where it does most.
        reach = head if rng.random() < 0.5 else len(data)
        at = int(rng.integers(max(1, reach)))
        if way == 0:
            del data[int(rng.integers(len(data) + 1)) :]
        elif way == 1 and data:
            at = min(at, len(data) - 1)
            data[at] ^= 1 << int(rng.integers(8))
        elif way == 2:
            run = rng.bytes(int(rng.integers(1, 40)))
            data[at : at + len(run)] = run
        elif way == 3:
            data[at:at] = rng.bytes(int(rng.integers(1, 40)))
        elif way == 4:
            data[: min(at, head)] = bytes(min(at, head))
        elif way == 5:
            del data[at : at + int(rng.integers(1, 60))]
        elif way == 6 and len(data) > 8:
            # Extreme numbers where a size or an offset may stand.
            value = int(rng.choice([0, 1, 0x7FFF, 0xFFFF, 0x7FFFFFFF, 0xFFFFFFFF, 0x80000000]))
            code = str(rng.choice(["<H", ">H", "<I", ">I"]))
            at = min(at, len(data) - 8)
            struct.pack_into(code, data, at, value & (0xFFFF if code[1] == "H" else 0xFFFFFFFF))
        elif way == 9:
            digits = [place for place, byte in enumerate(data) if 48 <= byte <= 57]
            if digits:
                data[digits[int(rng.integers(len(digits)))]] = int(rng.choice(list(b'0123456789-.e[]"')))
        elif way == 7:
            data += data[at:] * 2
    result = {other: content if other != name else bytes(data) for other, content in files.items()}
    if way == 8:
        first = str(
            rng.choice(["a.png", "a.jpg", "a.tif", "a.bmp", "a.nii", "a.nii.gz", "a.nrrd", "a.avi", "a.json"])
        )
        return {first: result[names[0]], **{other: result[other] for other in names[1:]}}
    return result


def deeply_damaged(files: Files, rng: np.random.Generator) -> Files:
    """Damage a file beneath what its check sums and syntax would catch, where its format allows that."""
    name = next(iter(files))
    data = files[name]
    if name.endswith(".gz"):
        (content,) = damaged({"a": gzip.decompress(data)}, rng).values()
        return {name: gzip.compress(content, 1)}
    if name.endswith(".png"):
        chunks = [(kind, data[start + 8 : stop - 4]) for kind, start, stop in png_chunks(data)]
        which = int(rng.integers(len(chunks)))
        kind, body = chunks[which]
        if kind == b"IDAT" and len(chunks) == 3:
            (rows,) = damaged({"a": zlib.decompress(body)}, rng).values()
            body = zlib.compress(rows, 1)
        else:
            (body,) = damaged({"a": body}, rng).values()
        chunks[which] = (kind, body)
        sealed = [
            struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))
            for kind, body in chunks
        ]
        return {name: data[:8] + b"".join(sealed)}
    if name.endswith(".json"):
        content = json.loads(data)
        for _ in range(int(rng.integers(1, 4))):
            _change_leaf(content, rng)
        return {name: json.dumps(content).encode()}
    return damaged(files, rng)


def _change_leaf(value: Any, rng: np.random.Generator) -> None:
    odd: list[Any] = [
        None,
        -1,
        0,
        1,
        7.5,
        1e308,
        float("nan"),
        2**31,
        10**30,
        "",
        "x",
        "0",
        "~~~~",
        [],
        {},
        [[]],
        True,
    ]
    while isinstance(value, (list, dict)) and value:
        keys = list(value) if isinstance(value, dict) else list(range(len(value)))
        key = keys[int(rng.integers(len(keys)))]
        inner = value[key]
        if not isinstance(inner, (list, dict)) or not inner or rng.random() < 0.15:
            value[key] = odd[int(rng.integers(len(odd)))]
            return
        value = inner


def read_everything(path: Path) -> None:
    """Read all that a file holds by every reader that its ending calls for.

    Raises
    ------
    UserError
        If no reader takes it; anything else is a fault of the readers.
    """
    name = path.name.lower()
    readers: list[Callable[[], Any]] = []
    if name.endswith((".png", ".jpg", ".tif", ".bmp")):
        data = path.read_bytes()
        readers = [
            lambda: _planes([read_plain(path)]),
            lambda: _masks([read_label_png(path)]),
            lambda: image_shape(path),
            lambda: read_display(path),
            lambda: decode_mask(path),
            lambda: capture_time(data),
            lambda: _stripped(data, path.suffix),
        ]
    elif name.endswith((".nii", ".nii.gz", ".hdr", ".img")):
        readers = [lambda axis=axis: _planes([read_nifti(path, axis)]) for axis in (None, 0)]  # type: ignore[misc]
        readers.append(lambda: _masks([read_nifti_labels(path, 2)]))
    elif name.endswith((".nrrd", ".nhdr")):
        readers = [lambda axis=axis: _planes([read_nrrd(path, axis)]) for axis in (None, 0)]  # type: ignore[misc]
        readers.append(lambda: _masks([read_nrrd_labels(path, 2)]))
    elif name.endswith((".avi", ".mp4")):
        readers = [lambda: _planes([read_video(path)])]
    elif name.endswith(".json"):
        readers = [lambda: _masks(read_coco(path))]
    elif name.endswith((".csv", ".tsv", ".asc", ".xdf")):
        readers = [lambda: read_gazemedseg(path) if gazemedseg.sniff(path) else _gaze_file(path)]
    elif name.endswith(".dcm"):
        readers = [lambda: _dicom(path)]
    refused: UserError | None = None
    for reader in readers:
        try:
            reader()
        except UserError as error:
            text = str(error)
            assert path.stem.split(".")[0] in text and "\n" not in text.strip(), f"a poor sentence: {text!r}"
            refused = refused or error
    if refused is not None:
        raise refused


def _gaze_file(path: Path) -> None:
    gaze = read_gaze_file(path, known=KNOWN)
    time = gaze.samples["time_ns"]
    assert len(time) >= 2 and bool((np.diff(time) > 0).all())
    for name in ("left_x", "left_y", "right_x", "right_y"):
        positions = gaze.samples[name][~np.isnan(gaze.samples[name])]
        assert bool((np.abs(positions) < 20).all())
    assert all(time[0] <= item.start_ns < item.end_ns <= time[-1] for item in gaze.shown)
    assert all(item.rect_px is None or min(item.rect_px[2:]) > 0 for item in gaze.shown)
    if gaze.own_fixations is not None:
        own = gaze.own_fixations
        assert bool(np.isfinite([own.start_ms, own.duration_ms]).all()) and bool((own.duration_ms > 0).all())
    assert all(note.endswith(".") and "\n" not in note for note in gaze.notes)
    json.dumps(dataclasses.asdict(inspect(gaze)), allow_nan=False)


def _planes(stacks: Iterable[Stack]) -> None:
    for stack in stacks:
        assert stack.count > 0
        for number in range(stack.count):
            plane = stack.read(number)
            assert plane.values.shape == stack.shape, (plane.values.shape, stack.shape)
            assert plane.values.dtype in (np.uint8, np.uint16, np.float32)
            assert plane.values.dtype != np.float32 or bool(np.isfinite(plane.values).all())
            assert np.isfinite(plane.slope) and np.isfinite(plane.intercept)
        if stack.affine is not None:
            assert np.isfinite(stack.affine).all() and abs(np.linalg.det(np.array(stack.affine))) > 0
        json.dumps(stack.header, allow_nan=False)


def _masks(maps: Iterable[LabelMap]) -> None:
    for labels in maps:
        for number in range(labels.count):
            for label in list(labels.labels)[:20]:
                mask = labels.read(number, label)
                assert mask.shape == labels.shape and mask.dtype == np.bool_


def _stripped(data: bytes, suffix: str) -> None:
    try:
        clean = stripped(data, suffix)
        header_of(data)
    except ValueError:
        # Said so by its contract.
        return
    try:
        before = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_UNCHANGED)
    except cv2.error:
        return
    if before is None:
        return
    after = cv2.imdecode(np.frombuffer(clean, np.uint8), cv2.IMREAD_UNCHANGED)
    assert after is not None and np.array_equal(before, after, equal_nan=before.dtype.kind == "f")


def _dicom(path: Path) -> None:
    module = importlib.import_module("segmentation.readers.dicom")
    replaced = importlib.import_module("segmentation.readers.deidentify").Pseudonyms(bytes(range(32)))
    refused: list[Refused] = []
    for found in module.read_dicom([path], replaced):
        if isinstance(found, Refused):
            refused.append(found)
        else:
            _planes([found])
    if refused:
        raise UserError(f"{refused[0].file} {refused[0].reason}")
