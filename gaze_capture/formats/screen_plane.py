"""The screen's size and the eyes' distance, worked out of gaze that a file gives in more than one unit."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from gaze_capture.recording import Floats

_LEAST_POINTS = 20
_WORST_MM = 2.0
"""A good fit is off by roundings; more means that the columns are not what their names say."""


def screen_size_mm(points: Sequence[tuple[Floats, Floats]]) -> tuple[float, float] | None:
    """Return width and height of the screen, or None where the points do not say.

    Parameters
    ----------
    points
        Of each eye, positions (N, 2) as shares of the screen and the same ones (N, 2) in millimetres along its edges.
    """
    share = np.concatenate([one for one, _ in points])
    mm = np.concatenate([one for _, one in points])
    good = np.isfinite(share).all(axis=1) & np.isfinite(mm).all(axis=1)
    if good.sum() < _LEAST_POINTS:
        return None
    sizes = []
    for axis in range(2):
        unknowns = np.stack([share[good, axis], np.ones(int(good.sum()))], axis=1)
        solution, _, rank, _ = np.linalg.lstsq(unknowns, mm[good, axis], rcond=None)
        off = np.median(np.abs(unknowns @ solution - mm[good, axis]))
        if rank < 2 or off > _WORST_MM or not 10 < abs(solution[0]) < 1e4:
            return None
        sizes.append(abs(float(solution[0])))
    return sizes[0], sizes[1]


def fitted_screen(eyes: Sequence[tuple[Floats, Floats, Floats]]) -> tuple[float, float, float] | None:
    """Return width and height of the screen and the eyes' distance from its plane, in mm; or None.

    Parameters
    ----------
    eyes
        Of each eye: gaze (N, 2) as shares of the screen, the same gaze (N, 3) and the eye's place (N, 3) in mm in one
        system, whichever it is.
    """
    share, gaze, eye = (np.concatenate([one[part] for one in eyes]) for part in range(3))
    good = (
        np.isfinite(share).all(axis=1) & np.isfinite(gaze).all(axis=1) & np.isfinite(eye).all(axis=1)
        & (np.abs(share) < 3).all(axis=1) & (np.abs(gaze) < 1e5).all(axis=1) & (np.abs(eye) < 1e5).all(axis=1)
    )  # fmt: skip
    count = int(good.sum())
    if count < _LEAST_POINTS:
        return None
    unknowns = np.column_stack([share[good], np.ones(count)])
    solution, _, rank, _ = np.linalg.lstsq(unknowns, gaze[good], rcond=None)
    off = np.median(np.abs(unknowns @ solution - gaze[good]))
    across, down, corner = solution
    width, height = float(np.linalg.norm(across)), float(np.linalg.norm(down))
    if rank < 3 or off > _WORST_MM or not (10 < width < 1e4 and 10 < height < 1e4):
        return None
    normal = np.cross(across, down) / np.linalg.norm(np.cross(across, down))
    distance = float(np.median(np.abs((eye[good] - corner) @ normal)))
    return (width, height, distance) if distance > 10 else None
