"""Build the bundle and check that it lives on its own: one line a check, exit status 1 if any fails.

python installer/smoke_test.py                 build into dist/ and check
python installer/smoke_test.py --bundle DIR    check a bundle that is there already
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from segmentation.phantoms import write_phantoms  # noqa: E402

WINDOW_SECONDS = 12.0
"""A window that is still there after this long has started; the first start of a bundle reads a gigabyte."""


class CheckFailed(Exception):
    """What a check found wrong."""


class Bundle:
    """The built program, run from a strange folder and without this environment's Python."""

    def __init__(self, folder: Path, scratch: Path) -> None:
        self.program = folder / ("gaze-insight.exe" if sys.platform == "win32" else "gaze-insight")
        self.scratch = scratch
        # Neither this environment nor the user's settings may help the bundle.
        hidden = ("PYTHON", "VIRTUAL_ENV", "LD_LIBRARY_PATH", "HF_", "TRANSFORMERS_", "XDG_")
        self.environment = {key: value for key, value in os.environ.items() if not key.startswith(hidden)}
        self.environment |= {"QT_QPA_PLATFORM": "offscreen", "HOME": str(scratch), "HF_HUB_OFFLINE": "1"}

    def run(self, *arguments: str, timeout: float = 300) -> str:
        """Run a command and return its stdout; a failure becomes CheckFailed with the end of its stderr."""
        done = subprocess.run(
            [str(self.program), *arguments],
            cwd=self.scratch,
            env=self.environment,
            capture_output=True,
            text=True,
            timeout=timeout,
        )
        if done.returncode != 0:
            raise CheckFailed(
                f"{' '.join(arguments[:2])} ended with {done.returncode}: {done.stderr.strip()[-600:]}"
            )
        return done.stdout

    def start(self, *arguments: str) -> subprocess.Popen[str]:
        """Start the program and return at once."""
        return subprocess.Popen(
            [str(self.program), *arguments],
            cwd=self.scratch,
            env=self.environment,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
        )


def build() -> Path:
    """Run PyInstaller and return the bundle's folder."""
    shutil.rmtree(ROOT / "dist" / "gaze-insight", ignore_errors=True)
    command = [sys.executable, "-m", "PyInstaller", "--noconfirm", "--clean", "--log-level", "WARN"]
    command += ["--distpath", str(ROOT / "dist"), "--workpath", str(ROOT / "build")]
    subprocess.run([*command, str(ROOT / "installer" / "gaze-insight.spec")], check=True, cwd=ROOT)
    return ROOT / "dist" / "gaze-insight"


def check_version(bundle: Bundle) -> str:
    """Check that the program starts and knows its version."""
    found = bundle.run("--version").strip()
    if not found.startswith("gaze-insight "):
        raise CheckFailed(f"it says {found!r}")
    return found


def check_usage_error(bundle: Bundle) -> str:
    """Check that a wrong command ends with 2, a missing study with 1 and a sentence."""
    wrong = subprocess.run(
        [str(bundle.program), "no-such-command"], env=bundle.environment, capture_output=True, text=True
    )
    missing = subprocess.run(
        [str(bundle.program), "evaluate", str(bundle.scratch / "nowhere")],
        env=bundle.environment,
        capture_output=True,
        text=True,
    )
    if (wrong.returncode, missing.returncode) != (2, 1) or "Traceback" in missing.stderr:
        raise CheckFailed(
            f"they ended with {wrong.returncode} and {missing.returncode}: {missing.stderr[-300:]}"
        )
    return "2 for wrong usage, 1 for a missing study"


def check_window(bundle: Bundle) -> str:
    """Check that the window starts offscreen and stays, with Qt and without torch in its memory."""
    process = bundle.start()
    try:
        deadline = time.monotonic() + WINDOW_SECONDS
        while time.monotonic() < deadline:
            if process.poll() is not None:
                assert process.stderr is not None
                raise CheckFailed(f"it ended with {process.returncode}: {process.stderr.read()[-600:]}")
            time.sleep(0.2)
        maps = Path(f"/proc/{process.pid}/maps")
        if not maps.exists():
            return f"alive after {WINDOW_SECONDS:.0f} s"
        libraries = maps.read_text()
        if "libQt6Widgets" not in libraries:
            raise CheckFailed("it lives, but has not loaded Qt")
        if "libtorch" in libraries:
            raise CheckFailed("it has loaded torch")
        return f"alive after {WINDOW_SECONDS:.0f} s, Qt loaded, torch not"
    finally:
        process.kill()
        process.communicate()


def check_day(bundle: Bundle) -> str:
    """Check every station of the day, the last ones in the bundle's own worker with its own text encoder."""
    images, masks = write_phantoms(bundle.scratch / "phantoms", 8, seed=1, size_px=96)
    study = str(bundle.scratch / "study")
    bundle.run("new", study)
    bundle.run("import-images", study, str(images), "--masks", str(masks))
    for command in ("simulate", "pseudomask", "explain"):
        bundle.run(command, study)
    trained = json.loads(
        bundle.run("train", study, "--preset", "phantom", "--iterations", "4", "--device", "cpu", "--json")
    )
    if trained["iterations"] != 4:
        raise CheckFailed(f"it was to train 4 iterations and trained {trained['iterations']}")
    bundle.run("predict", study)
    measured = json.loads(bundle.run("evaluate", study, "--json"))
    if measured["images"] != 8:
        raise CheckFailed(f"it measured {measured['images']} of 8 images")
    report = bundle.scratch / "report.html"
    bundle.run("report", study, "--to", str(report))
    if "Research use only" not in report.read_text(encoding="utf-8"):
        raise CheckFailed("the report is not what it should be")
    return f"4 iterations on {trained['device']}, 8 masks, report of {report.stat().st_size // 1024} KiB"


def check_nothing_forbidden(bundle: Bundle) -> str:
    """Check that nothing is bundled that may not be given away."""
    names = [path.name.lower() for path in bundle.program.parent.rglob("*")]
    if tobii := [name for name in names if "tobii" in name]:
        raise CheckFailed(f"the Tobii SDK may not be redistributed: {tobii[:3]}")
    size = sum(path.stat().st_size for path in bundle.program.parent.rglob("*") if path.is_file())
    return f"{len(names)} files, {size / 2**20:.0f} MiB, no vendor's SDK"


CHECKS: tuple[tuple[str, Callable[[Bundle], str]], ...] = (
    ("version", check_version),
    ("exit status", check_usage_error),
    ("window", check_window),
    ("worker", check_day),
    ("contents", check_nothing_forbidden),
)


def main() -> int:
    """Build unless told not to, run every check, say how each went."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--bundle", type=Path, help="a bundle's folder; it is not built again")
    arguments = parser.parse_args()
    begun = time.monotonic()
    folder = arguments.bundle or build()
    if not arguments.bundle:
        sys.stdout.write(f"ok    build: {folder} in {time.monotonic() - begun:.0f} s\n")
    failed = 0
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as scratch:
        bundle = Bundle(folder.resolve(), Path(scratch))
        for name, check in CHECKS:
            begun = time.monotonic()
            try:
                line = f"ok    {name}: {check(bundle)}"
            except (CheckFailed, OSError, subprocess.TimeoutExpired, ValueError, KeyError) as error:
                line = f"FAIL  {name}: {error}"
                failed += 1
            sys.stdout.write(f"{line} ({time.monotonic() - begun:.1f} s)\n")
            sys.stdout.flush()
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
