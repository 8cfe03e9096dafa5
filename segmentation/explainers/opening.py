"""From a backend's name and options to the backend."""

from __future__ import annotations

from dataclasses import dataclass, field

from gaze_capture.errors import UserError
from segmentation.explainers.backend import Backend
from segmentation.explainers.by_local_model import LocalModelBackend
from segmentation.explainers.by_measuring import MeasuredBackend
from segmentation.explainers.by_server import ServerBackend
from segmentation.study import Study
from segmentation.vlm_server import ChatServer, ServerLimits

BACKENDS = ("measured", "openai", "transformers")


@dataclass(frozen=True)
class BackendOptions:
    """Which backend explains, and how."""

    name: str = "measured"
    """One of BACKENDS."""
    base_url: str | None = None
    """Of the server, for ``openai``."""
    model: str | None = None
    """Of the server; None asks the server, which has to offer exactly one. For ``transformers`` the model's folder."""
    limits: ServerLimits = field(default_factory=ServerLimits)
    """Patience with a server."""
    device: str = "auto"
    """For ``transformers``: ``auto``, ``cpu``, ``cuda``, ``cuda:1`` or ``mps``."""
    dtype: str = "auto"
    """For ``transformers``: ``auto``, ``fp32``, ``bf16`` or ``fp16``."""
    allow_download: bool = False
    """For ``transformers``: whether `model` may be downloaded from the Hugging Face hub."""


def open_backend(study: Study, options: BackendOptions) -> Backend:
    """Return a backend to be used as a context manager.

    Raises
    ------
    UserError
        If there is no such backend, or it cannot be used here; the sentence says why.
    """
    if options.name == "measured":
        return MeasuredBackend()
    if options.name == "openai":

        def note(server: str, model: str, image_sha256: str | None) -> None:
            study.audit("explanation-request", server=server, model=model, image_sha256=image_sha256)

        server = ChatServer(options.base_url, options.model, options.limits, note)
        try:
            return ServerBackend(server)
        except UserError:
            server.close()
            raise
    if options.name == "transformers":
        return LocalModelBackend(
            study, options.model, options.device, options.dtype, allow_download=options.allow_download
        )
    raise UserError(f"There is no backend {options.name!r}; choose one of: {', '.join(BACKENDS)}.")
