"""What the command ``serve-slicer`` does."""

from __future__ import annotations

import argparse
import ipaddress
import sys

from app.argument_types import annotator
from app.commands import AddCommand, Outcome, counted
from app.shared_options import add_run_option
from segmentation.progress import Progress
from segmentation.study import Study

PORT = 8000
"""What the MONAI Label extension proposes."""


def add_slicer_command(add: AddCommand) -> None:
    """Add ``serve-slicer``."""
    command = add(
        "serve-slicer",
        serve_slicer,
        "let 3D Slicer's MONAI Label extension show, correct and return the student's masks",
    )
    command.add_argument(
        "--annotator", type=annotator, required=True, metavar="A", help="who corrects, a pseudonym"
    )
    add_run_option(command, help="default: the latest that has predicted, or finished")
    command.add_argument("--port", type=_port, default=PORT, metavar="N", help=f"default: {PORT}")
    command.add_argument(
        "--host",
        default="127.0.0.1",
        metavar="ADDRESS",
        help="default: 127.0.0.1, this computer alone; others are reached without a password",
    )
    command.add_argument(
        "--split", default="train", metavar="NAME", help="where volumes sent from Slicer go; default: train"
    )
    command.add_argument("--device", default="auto", metavar="D", help="for what has no prediction yet")
    command.add_argument(
        "--empty",
        action="store_true",
        help="empty slices say that the target is not there; otherwise only where a mask was taken away",
    )


def _port(text: str) -> int:
    """Read a port's number."""
    value = int(text)
    if not 0 <= value < 1 << 16:
        raise argparse.ArgumentTypeError(f"{text} should be a number from 0 to 65535")
    return value


def serve_slicer(args: argparse.Namespace, progress: Progress) -> Outcome:
    """``gaze-insight serve-slicer``."""
    from segmentation.slicer.server import SlicerServer
    from segmentation.slicer.service import SlicerService

    def say(text: str) -> None:
        sys.stderr.write(text + "\n")
        sys.stderr.flush()

    service = SlicerService(
        Study.open(args.study),
        args.annotator,
        run_id=args.run_id,
        split=args.split,
        device=args.device,
        empty=args.empty,
    )
    try:
        with SlicerServer(service, args.host, args.port, say) as server:
            say(f"Serving the student of {service.run} at {server.url}; Ctrl+C ends it.")
            if not _only_here(args.host):
                say("Whoever reaches this address can see the study's images and review in your name.")
            try:
                server.serve_forever()
            except KeyboardInterrupt:
                say("Ending; what was submitted is stored.")
            url = server.url
    finally:
        service.close()
    values = {"url": url, "run": service.run, "reviews": service.reviews, "volumes": service.sent}
    return Outcome(
        values,
        f"{counted(service.reviews, 'review')} of {args.annotator} and {counted(service.sent, 'volume')} came in.",
    )


def _only_here(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"
