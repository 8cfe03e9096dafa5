"""What the commands about sending to other machines do: showing what would leave, permission, and keys."""

from __future__ import annotations

import argparse
import getpass
import sys
from typing import TYPE_CHECKING, Any

from app.commands import Outcome
from gaze_capture.errors import UserError
from gaze_capture.storage import make_folder, write_bytes_atomic
from segmentation.progress import Progress
from segmentation.study import Study

if TYPE_CHECKING:
    from segmentation.gaze_view import Shown
    from segmentation.questions import Question

PICTURE_NAME, WORDS_NAME = "picture.png", "words.txt"


def allow_sending(args: argparse.Namespace, progress: Progress) -> Outcome:
    """``gaze-insight allow-sending``."""
    from segmentation import sending
    from segmentation.burned_in_text import text_boxes

    study = Study.open(args.study)
    annotator = args.annotator or getpass.getuser()
    if args.withdraw:
        purpose: sending.Purpose = "download" if args.download else "sending"
        withdrawn = sending.withdraw_permission(study, args.base_url, annotator, purpose)
        host = withdrawn[0].host if withdrawn else sending.host_of(args.base_url)
        text = f"Withdrawn: {host}." if withdrawn else f"There was no permission for {host} to withdraw."
        return Outcome({"host": host, "withdrawn": len(withdrawn), "permitted": False}, text)
    if args.download:
        return _allow_download(args, study, annotator)
    host = sending.host_of(args.base_url)
    if not sending.needs_permission(args.base_url):
        return Outcome(
            {"host": host, "permitted": True, "needs_permission": False},
            f"{host} is this machine: nothing leaves it, and no permission is needed.",
        )
    question, seen = _example(study, args.image, args.target)
    values: dict[str, Any] = {
        "host": host,
        "encrypted": host.startswith("https://"),
        "image": question.image.id,
        "target": question.target.id,
        "picture_sha256": seen.picture_sha256,
        "prompt_sha256": seen.prompt_sha256,
        "width": seen.width,
        "height": seen.height,
        "notes": list(seen.notes),
        "permitted": sending.permission_for_question(study, args.base_url, question) is not None,
    }
    lines = [
        f"To {host} would go, of each image that is explained: a picture like that of {question.image.id} "
        f"({seen.width} x {seen.height} pixels, {len(seen.picture_png)} bytes) and the words of the question "
        f"({len(seen.prompt)} characters). No file names, no tags, nothing else of the study.",
        *seen.notes,
    ]
    if not question.view.mask_text:
        what = "What looks like text is in it" if text_boxes(study.shown(question.image)) else "Look at it"
        lines.append(
            f"{what}: pixels are sent as they are. To blank what looks like text, which misses some: gaze-insight "
            f"explanation-settings {args.study} --mask-text yes"
        )
    marked = sum(bool(image.burned_in) for image in study.images.values())
    if marked and not question.view.mask_text:
        lines.append(
            f"{marked} of the study's images are marked for text in their pixels, which is sent as it is."
        )
    if not values["encrypted"]:
        lines.append("The connection is not encrypted: whoever is on the way can read it. https would be.")
    if args.preview is not None:
        make_folder(args.preview)
        write_bytes_atomic(args.preview / PICTURE_NAME, seen.picture_png)
        write_bytes_atomic(args.preview / WORDS_NAME, seen.prompt.encode())
        values["files"] = [str(args.preview / name) for name in (PICTURE_NAME, WORDS_NAME)]
        lines.append(f"The picture: {values['files'][0]}. The words: {values['files'][1]}.")
    code = seen.picture_sha256[:8]
    if args.preview is not None:
        lines.append(f"Code of this picture: {code}.")
    if args.yes is not None:
        if args.yes != code:
            raise UserError(
                "Sending is allowed for what was seen: write the picture and words with --preview DIR, look at them, "
                "and give the code that is named there with --yes CODE. Nothing was allowed."
            )
        permission = sending.give_permission(study, args.base_url, annotator, seen, question)
        values |= {"permitted": True, "permission": permission.id}
        lines.append(
            f"Allowed by {permission.given_by}, for this study, this server, and this way of showing images. "
            "It can be withdrawn with --withdraw."
        )
    elif values["permitted"]:
        lines.append("This is allowed already.")
    else:
        if args.preview is None:
            lines.append("Look at the very picture and words first: --preview DIR.")
        lines.append(
            "Nothing was sent, and nothing is allowed yet; to allow it, add --yes and the picture's code."
        )
    return Outcome(values, "\n".join(lines))


def _allow_download(args: argparse.Namespace, study: Study, annotator: str) -> Outcome:
    from segmentation import sending

    permission = sending.permission_for_download(study, args.base_url)
    if permission is None and args.yes is not None:
        permission = sending.give_download_permission(study, args.base_url, annotator)
    host = permission.host if permission else sending.host_of(args.base_url)
    text = f"Models may be fetched from {host}; nothing of the study leaves."
    if permission is None:
        text = f"Models may not be fetched from {host}; to allow it, add --yes. Nothing of the study would leave."
    return Outcome({"host": host, "permitted": permission is not None}, text)


def _example(study: Study, image_id: str | None, target_id: str | None) -> tuple[Question, Shown]:
    """Return what is asked about an image, and what would leave of it."""
    from segmentation.explaining import question_about
    from segmentation.gaze_view import shown

    known = study.pseudomask_keys()
    if image_id is not None:
        study.image(image_id)
    if target_id is not None:
        study.target(target_id)
    for image, target in study.iterate_keys():
        fits = image_id in (None, image.id) and target_id in (None, target.id)
        if fits and (image.id, target.id) in known:
            question = question_about(study, image, target)
            return question, shown(question)
    which = f"{image_id} has" if image_id else f"{study.folder} has"
    raise UserError(f"{which} no pseudo-mask to show yet; make them with: gaze-insight pseudomask")


def server_key(args: argparse.Namespace, progress: Progress) -> Outcome:
    """``gaze-insight server-key``."""
    from segmentation.sending import host_of
    from segmentation.server_keys import forget_key, store_key

    host = host_of(args.base_url)
    if args.forget:
        gone = forget_key(host)
        text = f"The key for {host} is forgotten." if gone else f"There is no key for {host} in the keyring."
        return Outcome({"host": host, "forgotten": gone}, text)
    # Never an argument: those are seen by every user of the machine, and kept in the shell's history.
    key = getpass.getpass(f"Key for {host}: ") if sys.stdin.isatty() else sys.stdin.readline()
    store_key(host, key)
    return Outcome(
        {"host": host, "stored": True}, f"The key for {host} is in the keyring, and goes nowhere else."
    )
