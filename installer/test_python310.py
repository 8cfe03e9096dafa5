"""Run gaze_capture's tests on Python 3.10, where Tobii's own package exists, without torch and Qt.

Makes a virtual environment in build/python310 with what gaze_capture needs and no more. Does nothing, and says so,
where no Python 3.10 is at hand: name one with PYTHON310=/path/to/python3.10.
"""

from __future__ import annotations

import ast
import os
import shutil
import subprocess
import sys
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
VENV = ROOT / "build" / "python310"

PACKAGES = ("numpy>=2,<3", "scipy>=1.15,<2", "pytest>=8.3", "pytest-benchmark>=5.1", "hypothesis>=6.100")
TRACKER_PACKAGES = ("tobii-research>=2.1",)
"""There are wheels for Linux x86_64 and Windows alone; without them the tests that need them are skipped."""

PYTEST_INI = """[pytest]
addopts = --strict-markers --strict-config -ra --benchmark-skip
filterwarnings = error
xfail_strict = true
"""

OURS = {"gaze_capture", "tests"}


def say(text: str) -> None:
    """Tell the person who runs this."""
    sys.stdout.write(text + "\n")
    sys.stdout.flush()


def find_python() -> str | None:
    """Return a Python 3.10 that runs; None where there is none."""
    pyenv = Path(os.environ.get("PYENV_ROOT", Path.home() / ".pyenv"))
    # pyenv's own python3.10 runs only where that version was chosen.
    installed = sorted(map(str, pyenv.glob("versions/3.10.*/bin/python")))
    for candidate in (os.environ.get("PYTHON310"), sys.executable, "python3.10", *installed):
        path = shutil.which(candidate) if candidate else None
        if path is None:
            continue
        asked = subprocess.run([path, "-c", "import sys; print(sys.version_info[:2])"], capture_output=True)
        if asked.returncode == 0 and asked.stdout.strip() == b"(3, 10)":
            return path
    return None


def make_venv(python: str) -> Path:
    """Return the environment's Python, with everything installed."""
    inside = VENV / ("Scripts/python.exe" if os.name == "nt" else "bin/python")
    done = VENV / "installed"
    wanted = "\n".join([python, *PACKAGES, *TRACKER_PACKAGES])
    if done.exists() and done.read_text(encoding="utf-8") == wanted:
        return inside
    subprocess.run([python, "-m", "venv", "--clear", str(VENV)], check=True)
    pip = [str(inside), "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
    subprocess.run([*pip, *PACKAGES], check=True)
    for package in TRACKER_PACKAGES:
        if subprocess.run([*pip, "--only-binary=:all:", package]).returncode:
            say(f"{package} cannot be installed here; what needs it is skipped.")
    done.write_text(wanted, encoding="utf-8")
    return inside


def imported(path: Path) -> set[str]:
    """Return the modules that a file imports when it is itself imported."""
    names: set[str] = set()
    for node in ast.parse(path.read_text(encoding="utf-8")).body:
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            names.add(node.module)
    return names


def left_out_for(path: Path, python: Path) -> set[str]:
    """Return what a test imports that is neither gaze_capture nor installed, also through other files of tests."""
    tops: set[str] = set()
    seen: set[Path] = set()
    ahead = [path]
    while ahead:
        for name in imported(ahead.pop()):
            tops.add(name.split(".")[0])
            module = ROOT / (name.replace(".", "/") + ".py")
            if name.startswith("tests.") and module not in seen and module.is_file():
                seen.add(module)
                ahead.append(module)
    # The project's other packages lie beside the tests, and would be found.
    strangers = {top for top in tops - OURS if (ROOT / top).is_dir()}
    others = sorted(tops - OURS - strangers)
    code = "import importlib.util, sys; print(*(n for n in sys.argv[1:] if not importlib.util.find_spec(n)))"
    missing = subprocess.run(
        [str(python), "-I", "-c", code, *others], capture_output=True, text=True, check=True
    )
    return strangers | set(missing.stdout.split())


def main() -> int:
    """Run the tests; returns pytest's exit status, and 0 where there is no Python 3.10."""
    found = find_python()
    if found is None:
        say("No Python 3.10 is at hand: gaze_capture's tests were not run on it (PYTHON310=/path names one).")
        return 0
    began = time.monotonic()
    python = make_venv(found)
    tests = []
    for path in sorted((ROOT / "tests").glob("test_*.py")):
        reasons = left_out_for(path, python)
        if not reasons:
            tests.append(str(path))
        elif "segmentation" not in reasons and "app" not in reasons:
            say(f"left out: {path.name} (needs {', '.join(sorted(reasons))})")
    ini = VENV / "pytest.ini"
    ini.write_text(PYTEST_INI, encoding="utf-8")
    say(f"{len(tests)} files of tests on {found}; prepared in {time.monotonic() - began:.0f} s")
    command = [str(python), "-m", "pytest", "-c", str(ini), f"--rootdir={ROOT}", "-p", "no:cacheprovider"]
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    return subprocess.run([*command, *sys.argv[1:], *tests], cwd=ROOT, env=environment).returncode


if __name__ == "__main__":
    sys.exit(main())
