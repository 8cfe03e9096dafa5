"""The process's entry point: worker, decoder, command or window. Imports stay lazy: each starts only what it needs."""

from __future__ import annotations

import importlib
import multiprocessing
import sys
from pathlib import Path


def main(arguments: list[str] | None = None) -> int:
    """Run the program and return its exit status."""
    multiprocessing.freeze_support()
    arguments = sys.argv[1:] if arguments is None else arguments
    if arguments[:1] == ["--worker"]:
        # Through importlib: the window's process must not be able to reach torch by an import.
        status: int = importlib.import_module("segmentation.worker").main(arguments[1:])
        return status
    if arguments[:1] == ["--decoder"]:
        from segmentation.readers.decoding import main as decode

        return decode()
    if not arguments or (len(arguments) == 1 and (Path(arguments[0]) / "study.json").exists()):
        from app.main_window import run_window

        return run_window(Path(arguments[0]) if arguments else None)
    try:
        from app.cli import run_command

        return run_command(arguments)
    except KeyboardInterrupt:
        # Before the command began: its modules take a second to load.
        sys.stderr.write("Stopped before anything was done.\n")
        return 130


if __name__ == "__main__":
    sys.exit(main())
