"""Methods: which networks there are, what labels they learn from, and what losses a batch gives.

A further method is one more file here, its line in METHODS, and its name in `segmentation.presets.METHODS`, which the
window reads without torch.
"""

from __future__ import annotations

import torch

from gaze_capture.errors import UserError
from segmentation.job import RunSpec
from segmentation.methods.base import Method
from segmentation.methods.gaze_multilevel import GazeMultilevel
from segmentation.methods.gaze_to_insight import GazeToInsight
from segmentation.methods.gaze_track import GazeTrack
from segmentation.methods.one_network import OneNetwork

METHODS: dict[str, type[Method]] = {
    "gaze-to-insight": GazeToInsight,
    "gaze-multilevel": GazeMultilevel,
    "gaze-track": GazeTrack,
    "partial": OneNetwork,
    "supervised": OneNetwork,
}


def make_method(spec: RunSpec, text_width: int) -> Method:
    """Build the method a spec names, its networks freshly initialised from the spec's seed.

    Raises
    ------
    UserError
        If there is no such method.
    """
    if spec.method not in METHODS:
        raise UserError(f"There is no method {spec.method!r}; choose one of {', '.join(METHODS)}.")
    if not spec.targets:
        raise UserError("The run names no target to learn; start a new run, which takes all of the study's.")
    torch.manual_seed(spec.seed)
    return METHODS[spec.method](spec, text_width)


def reads_text(spec: RunSpec) -> bool:
    """Whether the spec's method reads explanations at all."""
    heard = spec.text != "none" and bool(spec.fusion_scales)
    return heard and spec.method in METHODS and METHODS[spec.method].uses_text
