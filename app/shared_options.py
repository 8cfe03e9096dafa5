"""Options that several commands have: one name, one meaning and one metavar each."""

from __future__ import annotations

import argparse


def add_split_option(*commands: argparse._ActionsContainer, help: str = "default: all images") -> None:
    """Add ``--split``: whose images."""
    for command in commands:
        command.add_argument("--split", metavar="NAME", help=help)


def add_target_option(
    *commands: argparse._ActionsContainer, help: str = "default: every target", several: bool = False
) -> None:
    """Add ``--target``: of one target, or of `several`, a list or None."""
    for command in commands:
        command.add_argument("--target", nargs="+" if several else None, metavar="ID", help=help)


def add_annotators_option(*commands: argparse._ActionsContainer, help: str = "default: all") -> None:
    """Add ``--annotator``: whose gaze or reviews, a list or None."""
    for command in commands:
        command.add_argument("--annotator", nargs="+", metavar="A", help=help)


def add_run_option(*commands: argparse._ActionsContainer, help: str = "default: the latest finished") -> None:
    """Add ``--run``: which run, as ``run_id``."""
    for command in commands:
        command.add_argument("--run", dest="run_id", metavar="RUN", help=help)
