"""Damaged files of every format are read or refused in a sentence, nothing else."""

from __future__ import annotations

import contextlib
from pathlib import Path

import numpy as np

from gaze_capture.errors import UserError
from tests.fuzzing import damaged, deeply_damaged, read_everything, samples


def test_whole_samples_are_read(tmp_path: Path) -> None:
    for name, choices in samples(tmp_path).items():
        for number, files in enumerate(choices):
            folder = tmp_path / f"{name} {number}"
            folder.mkdir()
            for file, data in files.items():
                (folder / file).write_bytes(data)
            with (
                contextlib.suppress(UserError)
                if name in ("DICOM", "NIfTI", "NIfTI gz", "NRRD")
                else contextlib.nullcontext()
            ):
                # Volumes of fractions are refused as masks.
                read_everything(folder / next(iter(files)))


def test_damaged_files_are_read_or_refused(tmp_path: Path) -> None:
    rng = np.random.default_rng(11)
    made = samples(tmp_path)
    names = list(made)
    for number in range(240):
        choices = made[names[number % len(names)]]
        damage = deeply_damaged if number % 2 else damaged
        files = damage(choices[int(rng.integers(len(choices)))], rng)
        folder = tmp_path / str(number)
        folder.mkdir()
        for file, data in files.items():
            (folder / file).write_bytes(data)
        with contextlib.suppress(UserError):
            read_everything(folder / next(iter(files)))
