"""The steps about networks that are made elsewhere, each in a worker: pretrained encoders, published checkpoints."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

from segmentation.explainers.opening import HUB
from segmentation.job import RunSpec
from segmentation.known_folders import remember_folder
from segmentation.presets import checked
from segmentation.sending import permission_for_download
from segmentation.study import Study
from segmentation.workers import await_worker


def with_encoder(study: Study, spec: RunSpec, encoder: str | Path) -> RunSpec:
    """Return a spec whose student and teacher begin with a pretrained encoder; its folder is remembered here.

    Raises
    ------
    UserError
        As `encoder_fields`, or if the spec's method takes no encoder.
    """
    return checked(dataclasses.replace(spec, **encoder_fields(study, encoder)))


def encoder_fields(study: Study, encoder: str | Path) -> dict[str, Any]:
    """Return the fields of a spec that begins with a pretrained encoder; its folder is remembered here.

    Parameters
    ----------
    encoder : the folder of a ResNet, ConvNeXt, Swin or DINOv2 or of a timm model, or ``owner/name`` in the Hugging Face
        hub, from where it is downloaded only where the study has the permission

    Raises
    ------
    UserError
        If it cannot be used; the sentence says why.
    """
    allowed = permission_for_download(study, HUB) is not None
    job = {"task": "image-encoder", "encoder": str(encoder), "allow_download": allowed}
    if Path(encoder).exists():
        job["encoder"] = str(Path(encoder).absolute())
    found = await_worker(study.folder, job)
    fields: dict[str, Any] = found["fields"]
    remember_folder(fields["encoder_sha256"], Path(found["folder"]), "image")
    return fields


def import_checkpoint(
    study: Study, path: Path, *, run_id: str | None = None, target: str | None = None
) -> dict[str, Any]:
    """Make a run of a ``.pth`` of From Gaze to Insight's public code, as `segmentation.checkpoint_import` does.

    Raises
    ------
    UserError
        If it cannot be imported; the sentence says why, and no run is made.
    """
    job = {
        "task": "import-checkpoint",
        "file": str(Path(path).absolute()),
        "name": run_id,
        "target": target,
    }
    return await_worker(study.folder, job)
