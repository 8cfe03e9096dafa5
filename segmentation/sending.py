"""Permission to send a study's images to another machine, or to fetch a model from one.

This machine needs none. Any other is asked only where somebody looked at what would leave and allowed it, for this
study, for that very scheme, host and port, and for that way of showing images (view settings and preset): when one of
these changes, the permission does not hold. Permissions and their withdrawals are files of their own in the study's
``permissions/`` and never rewritten, so that workstations on one share do not collide.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, get_args

from gaze_capture.errors import UserError
from gaze_capture.storage import read_json, write_json_atomic
from segmentation.explanation_presets import Preset, load_preset
from segmentation.explanation_settings import ExplanationSettings, ViewSettings, load_settings
from segmentation.gaze_view import Shown
from segmentation.hosts import is_loopback, origin
from segmentation.questions import Question
from segmentation.records import SCHEMA, new_id, refuse_newer, utc_now
from segmentation.study import Study
from segmentation.vlm_server import server_url

FOLDER_NAME = "permissions"
Purpose = Literal["sending", "download"]


@dataclass(frozen=True)
class Permission:
    """Somebody's word that a study's images may go to a machine, with what they saw when they gave it."""

    id: str
    purpose: Purpose
    """``download``: a model may come from there, and nothing of the study leaves."""
    host: str
    """Scheme, host and port."""
    given_by: str
    given_at: str
    """ISO 8601, UTC."""
    image_id: str = ""
    """Of the example that was shown, as the next three."""
    target_id: str = ""
    picture_sha256: str = ""
    prompt_sha256: str = ""
    view: ViewSettings | None = None
    preset: str = ""
    preset_sha256: str = ""
    """Of the preset's words and prompt: other words are another thing to agree to."""
    withdrawn_at: str | None = None

    @property
    def encrypted(self) -> bool:
        """Whether what is sent can be read on the way there."""
        return self.host.startswith("https://")


def needs_permission(base_url: str | None) -> bool:
    """Whether an address is of another machine; no name but ``localhost`` counts as this one.

    Raises
    ------
    UserError
        If it is no address.
    """
    return not is_loopback(server_url(base_url).host)


def host_of(base_url: str | None) -> str:
    """Return scheme, host and port of an address, as permissions and keys name it.

    Raises
    ------
    UserError
        If it is no address.
    """
    return origin(server_url(base_url))


def permission_for(study: Study, base_url: str | None, settings: ExplanationSettings) -> Permission | None:
    """Return the latest permission that holds for a machine and a way of showing images, or None.

    Raises
    ------
    UserError
        If the address is none, the preset is damaged, or a file in ``permissions/`` is.
    """
    preset = load_preset(settings.preset, study.folder)
    return _holding(study, host_of(base_url), settings.view, preset)


def permission_for_question(study: Study, base_url: str | None, question: Question) -> Permission | None:
    """Return the permission under which one question may be sent, as `permission_for`."""
    return _holding(study, host_of(base_url), question.view, question.preset)


def _holding(study: Study, host: str, view: ViewSettings, preset: Preset) -> Permission | None:
    for one in reversed(permissions(study)):
        if (
            one.purpose == "sending"
            and one.host == host
            and one.withdrawn_at is None
            and one.view == view
            and (one.preset, one.preset_sha256) == (preset.id, preset.sha256)
        ):
            return one
    return None


def check_may_send(study: Study, base_url: str | None, question: Question | None = None) -> None:
    """Make sure that a study's images may go to an address as they are shown (by default: by the study's settings).

    Raises
    ------
    UserError
        If not; the sentence names the command that asks for it.
    """
    if not needs_permission(base_url):
        return
    if question is None:
        found = permission_for(study, base_url, load_settings(study))
    else:
        found = permission_for_question(study, base_url, question)
    if found is None:
        host = host_of(base_url)
        earlier = [one for one in permissions(study) if one.purpose == "sending" and one.host == host]
        why = "nobody has allowed images of this study to be sent there"
        if earlier and earlier[-1].withdrawn_at is not None:
            why = "the permission to send images of this study there was withdrawn"
        elif earlier:
            why = "images of this study may be sent there, but not in the way they are shown now"
        raise UserError(
            f"{host} is not this machine, and {why}; see what would leave, and allow it, with: "
            f"gaze-insight allow-sending {study.folder} --base-url {base_url}"
        )


def still_allowed(study: Study, base_url: str | None) -> bool:
    """Whether any permission to send to an address stands, whatever the way of showing images.

    Raises
    ------
    UserError
        If a file in ``permissions/`` is damaged.
    """
    wanted = ("sending", host_of(base_url), None)
    return any((one.purpose, one.host, one.withdrawn_at) == wanted for one in permissions(study))


def give_permission(
    study: Study, base_url: str | None, annotator: str, shown: Shown, question: Question
) -> Permission:
    """Store that images of a study may go to a machine in the way that one example was just shown.

    Parameters
    ----------
    annotator : who allows it
    shown : the example as somebody saw it
    question : what the example was made of

    Raises
    ------
    UserError
        If nobody is named, the machine is this one, or the study cannot be written.
    """
    if not needs_permission(base_url):
        raise UserError(
            f"{host_of(base_url)} is this machine; nothing leaves it, and no permission is needed."
        )
    return _store(
        study,
        Permission(
            id=new_id(),
            purpose="sending",
            host=host_of(base_url),
            given_by=_named(annotator),
            given_at=utc_now(),
            image_id=question.image.id,
            target_id=question.target.id,
            picture_sha256=shown.picture_sha256,
            prompt_sha256=shown.prompt_sha256,
            view=question.view,
            preset=question.preset.id,
            preset_sha256=question.preset.sha256,
        ),
    )


def permission_for_download(study: Study, host: str) -> Permission | None:
    """Return the permission to fetch models from a host such as ``huggingface.co`` (https), or None.

    Raises
    ------
    UserError
        If it is no host, or a file in ``permissions/`` is damaged.
    """
    wanted = _download_host(host)
    for one in reversed(permissions(study)):
        if one.purpose == "download" and one.host == wanted and one.withdrawn_at is None:
            return one
    return None


def give_download_permission(study: Study, host: str, annotator: str) -> Permission:
    """Store that models may be fetched from a host, over https; nothing of the study leaves.

    Raises
    ------
    UserError
        If nobody is named, it is no host, or the study cannot be written.
    """
    permission = Permission(new_id(), "download", _download_host(host), _named(annotator), utc_now())
    return _store(study, permission)


def _download_host(host: str) -> str:
    found = host_of(host if "://" in host else f"https://{host}")
    if not found.startswith("https://"):
        raise UserError(f"Models are fetched over https only, not from {found}.")
    return found


def withdraw_permission(
    study: Study, host: str, annotator: str, purpose: Purpose = "sending"
) -> list[Permission]:
    """Store that nothing more may go to a machine, or come from it; return the permissions that held until now.

    Parameters
    ----------
    host : an address, or scheme, host and port

    Raises
    ------
    UserError
        If nobody is named, the address is none, or the study cannot be written.
    """
    wanted = _download_host(host) if purpose == "download" else host_of(host)
    standing = [
        one
        for one in permissions(study)
        if (one.purpose, one.host, one.withdrawn_at) == (purpose, wanted, None)
    ]
    if standing:
        # Named one by one, not by time: the clocks of two workstations differ.
        values = {
            "schema": SCHEMA,
            "withdraws": [one.id for one in standing],
            "withdrawn_by": _named(annotator),
            "withdrawn_at": utc_now(),
        }
        write_json_atomic(_folder(study) / f"{new_id()}.json", values, within=study.folder)
        study.audit("permission withdrawn", server=wanted, purpose=purpose, annotator=annotator.strip())
    return standing


def permissions(study: Study) -> list[Permission]:
    """Return all permissions of a study, also withdrawn ones, in the order they were given.

    Raises
    ------
    UserError
        If a file is damaged: it might be a withdrawal, so that nothing is allowed before it is mended.
    """
    folder = _folder(study)
    found: dict[str, Permission] = {}
    withdrawn: dict[str, str] = {}
    if not folder.is_dir():
        return []
    for path in sorted(folder.glob("*.json")):
        read = read_permission(path)
        if isinstance(read, Permission):
            found[path.stem] = read
        else:
            withdrawn.update(dict.fromkeys(read.ids, read.at))
    told = [dataclasses.replace(one, withdrawn_at=withdrawn.get(one.id)) for one in found.values()]
    return sorted(told, key=lambda one: (one.given_at, one.id))


@dataclass(frozen=True)
class Withdrawal:
    """That permissions do not hold any more."""

    ids: tuple[str, ...]
    at: str
    """ISO 8601, UTC."""


def read_permission(path: Path) -> Permission | Withdrawal:
    """Read one file of ``permissions/``.

    Raises
    ------
    UserError
        If it is damaged or a newer version wrote it.
    """
    values = read_json(path)
    refuse_newer(path, values)
    try:
        if "withdraws" in values:
            return Withdrawal(tuple(map(str, values["withdraws"])), str(values["withdrawn_at"]))
        return _decode(path, values)
    except (KeyError, TypeError, ValueError, UserError) as error:
        raise UserError(
            f"{path} is damaged ({error}). Delete it; where it allowed something, that is asked for again."
        ) from None


def _decode(path: Path, values: dict[str, Any]) -> Permission:
    fields = {name: values[name] for name in _STORED}
    if fields["purpose"] not in get_args(Purpose):
        raise ValueError("an unknown purpose")
    if not all(isinstance(value, str) for name, value in fields.items() if name != "view"):
        raise ValueError("a value that is no text")
    fields["view"] = ViewSettings(**values["view"]) if values["view"] is not None else None
    return Permission(path.stem, **fields)


_STORED = tuple(one.name for one in dataclasses.fields(Permission) if one.name not in ("id", "withdrawn_at"))


def _store(study: Study, permission: Permission) -> Permission:
    values = {name: value for name, value in dataclasses.asdict(permission).items() if name in _STORED}
    path = _folder(study) / f"{permission.id}.json"
    write_json_atomic(path, {"schema": SCHEMA, **values}, within=study.folder)
    study.audit(
        "permission given",
        server=permission.host,
        purpose=permission.purpose,
        encrypted=permission.encrypted,
        annotator=permission.given_by,
        image_sha256=permission.picture_sha256 or None,
    )
    return permission


def _folder(study: Study) -> Path:
    return study.folder / FOLDER_NAME


def _named(annotator: str) -> str:
    if not annotator.strip():
        raise UserError("Say who allows or withdraws it: an annotator's id.")
    return annotator.strip()
