"""From a backend's name and options to the backend."""

from __future__ import annotations

from dataclasses import dataclass, field

from gaze_capture.errors import UserError
from segmentation.explainers.backend import Backend
from segmentation.explainers.by_annotator import AnnotatorBackend
from segmentation.explainers.by_local_model import LocalModelBackend
from segmentation.explainers.by_measuring import MeasuredBackend
from segmentation.explainers.by_server import ServerBackend
from segmentation.explainers.permitted import PermittedBackend
from segmentation.sending import (
    check_may_send,
    host_of,
    needs_permission,
    permission_for_download,
    still_allowed,
)
from segmentation.server_connection import ServerError, ServerLimits, Waiting
from segmentation.study import Study
from segmentation.vlm_server import ChatServer

BACKENDS = ("measured", "annotator", "openai", "transformers")
HUB = "huggingface.co"
"""Where models are downloaded from, with permission."""


@dataclass(frozen=True)
class BackendOptions:
    """Which backend explains, and how."""

    name: str = "measured"
    """One of BACKENDS."""
    base_url: str | None = None
    """Of the server, for ``openai``."""
    model: str | None = None
    """Of the server; None asks the server, which has to offer exactly one. For ``transformers`` the model's folder, or
    its name in the Hugging Face hub; for ``annotator`` whose words alone are read."""
    limits: ServerLimits = field(default_factory=ServerLimits)
    """Patience with a server."""
    concurrency: int = 2
    """Questions asked of a server at once, 1..16."""
    price_per_million: tuple[float, float] | None = None
    """What a million tokens cost that go to the server, and that come from it; None where nothing is paid."""
    device: str = "auto"
    """For ``transformers``: ``auto``, ``cpu``, ``cuda``, ``cuda:1`` or ``mps``."""
    dtype: str = "auto"
    """For ``transformers``: ``auto``, ``fp32``, ``bf16`` or ``fp16``."""


def open_backend(study: Study, options: BackendOptions, waiting: Waiting = lambda: None) -> Backend:
    """Return a backend to be used as a context manager.

    `waiting` is called several times a second while a server is awaited; what it raises abandons the opening.

    Raises
    ------
    UserError
        If there is no such backend, or it cannot be used here; the sentence says why.
    """
    if options.name == "measured":
        return MeasuredBackend()
    if options.name == "annotator":
        return AnnotatorBackend(options.model)
    if options.name == "openai":
        check_may_send(study, options.base_url)
        remote = needs_permission(options.base_url)

        def note(server: str, model: str, image_sha256: str | None) -> None:
            if remote and not still_allowed(study, options.base_url):
                withdrawn = f"The permission to send images of this study to {server} was withdrawn."
                raise ServerError(withdrawn, whole_server=True, lasting=True)
            study.audit("explanation-request", server=server, model=model, image_sha256=image_sha256)

        permitted = host_of(options.base_url) if remote else None
        server = ChatServer(options.base_url, options.model, options.limits, note, permitted=permitted)
        try:
            backend = ServerBackend(server, options.concurrency, waiting)
        except BaseException:
            server.close()
            raise
        return PermittedBackend(backend, options.base_url) if remote else backend
    if options.name == "transformers":
        return LocalModelBackend(
            study,
            options.model,
            options.device,
            options.dtype,
            allow_download=permission_for_download(study, HUB) is not None,
        )
    raise UserError(f"There is no backend {options.name!r}; choose one of: {', '.join(BACKENDS)}.")
