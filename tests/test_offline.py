"""By default the program opens no socket: not in the window, not on the command line, not in its workers."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from segmentation.study import Study
from tests.socket_trap import LOG_VARIABLE, PROBE_VARIABLE
from tests.training_helpers import TINY
from tests.window_support import fill

ROOT = Path(__file__).resolve().parents[1]

DAY = """
import json, socket, sys
from tests import socket_trap
socket_trap.set_trap()
from segmentation import workers
plain = workers.worker_command
workers.worker_command = lambda *arguments: socket_trap.worker_command(plain(*arguments))
from app.__main__ import main
for arguments in json.loads(sys.argv[1]):
    status = main(arguments)
    assert status == 0, (arguments, status)
"""

WINDOW = """
import sys, time
from pathlib import Path
from tests import socket_trap
socket_trap.set_trap()
from PySide6.QtCore import QSettings
from app.main_window import PAGES, MainWindow, make_application
from segmentation.study import Study
folder = Path(sys.argv[1])
application = make_application()
window = MainWindow(QSettings(str(folder.parent / "s.ini"), QSettings.Format.IniFormat))
window.show()
window.session.set_study(Study.open(folder))
seen = []
for name in [*PAGES, *PAGES]:
    window.show_page(name)
    seen.append(window.current_page())
    until = time.monotonic() + 0.4
    while time.monotonic() < until:
        application.processEvents()
        time.sleep(0.01)
    if sys.platform == "linux":
        assert not socket_trap.inet_sockets(), (name, socket_trap.inet_sockets())
assert set(seen) == set(PAGES), seen
window.close()
"""


def run(
    code: str, argument: str, log: Path, probe: str = "", timeout_s: float = 400
) -> subprocess.CompletedProcess[str]:
    environment = {
        name: value
        for name, value in os.environ.items()
        # With the hub's switches on, silence would be theirs.
        if name not in ("HF_HUB_OFFLINE", "TRANSFORMERS_OFFLINE")
    }
    environment |= {LOG_VARIABLE: str(log), PROBE_VARIABLE: probe, "QT_QPA_PLATFORM": "offscreen"}
    return subprocess.run(
        [sys.executable, "-c", code, argument],
        cwd=ROOT,
        env=environment,
        capture_output=True,
        text=True,
        timeout=timeout_s,
    )


def day(study: Path, images: Path, tmp_path: Path) -> list[list[str]]:
    config = tmp_path / "tiny.json"
    from segmentation.presets import preset

    spec = preset("gaze-to-insight", "cpu", **{**TINY, "iterations": 4})
    config.write_text(json.dumps(spec.to_json()))
    name = str(study)
    return [
        ["new", name],
        ["import-images", name, str(images / "images"), "--masks", str(images / "masks")],
        ["simulate", name, "--seed", "1"],
        ["pseudomask", name],
        ["explain", name],
        ["train", name, "--config", str(config), "--seed", "1"],
        ["predict", name],
        ["evaluate", name, "--split", "train"],
        ["report", name, "--to", str(tmp_path / "report.html")],
        ["verify", name],
    ]


def lines_of(log: Path) -> list[str]:
    return log.read_text(encoding="utf-8").splitlines()


def test_the_whole_default_day_opens_no_socket(tmp_path: Path, image_folder: Path) -> None:
    log = tmp_path / "sockets.log"
    done = run(DAY, json.dumps(day(tmp_path / "study", image_folder, tmp_path)), log)
    assert done.returncode == 0, done.stderr[-2000:] + "\n".join(lines_of(log))
    assert [line for line in lines_of(log) if not line.startswith("set ")] == []
    workers = [line for line in lines_of(log) if line.startswith("set ") and "--worker" in line]
    assert len(workers) >= 2, "training and prediction ran in processes of their own, and under the trap"
    assert (tmp_path / "report.html").stat().st_size > 1000


def test_the_trap_works_in_the_command_and_in_its_workers(tmp_path: Path, image_folder: Path) -> None:
    log = tmp_path / "sockets.log"
    done = run("from tests import socket_trap\nsocket_trap.set_trap()\nsocket_trap.probe()", "", log)
    assert done.returncode == 0, done.stderr
    acts = [line.split()[1] for line in lines_of(log) if line.startswith("forbidden")]
    assert acts == ["socket.getaddrinfo", "socket.getaddrinfo", "socket.__new__"]
    assert "unnoticed" not in lines_of(log)

    log = tmp_path / "connect.log"
    code = (
        "import socket\nfrom tests import socket_trap\nplug = socket.socket()\nbound = socket.socket()\n"
        "assert not socket_trap.inet_sockets()\nbound.bind(('127.0.0.1', 0)); bound.listen()\n"
        "import sys\nassert sys.platform != 'linux' or len(socket_trap.inet_sockets()) == 1\n"
        "socket_trap.set_trap()\n"
        "for act in (lambda: plug.connect(('127.0.0.1', 9)), lambda: plug.bind(('127.0.0.1', 0))):\n"
        "    try:\n        act()\n    except PermissionError:\n        continue\n    raise SystemExit(3)\n"
        "import subprocess\nsubprocess.run(['true'])"
    )
    done = run(code, "", log)
    assert done.returncode == 1 and "subprocess.Popen is forbidden" in done.stderr
    acts = [line.split()[1] for line in lines_of(log) if line.startswith("forbidden")]
    assert acts == ["socket.connect", "socket.bind", "subprocess.Popen"]

    log = tmp_path / "worker.log"
    steps = [step for step in day(tmp_path / "study", image_folder, tmp_path) if step[0] != "verify"][:6]
    run(DAY, json.dumps(steps), log, probe="worker")
    acts = [line.split()[1] for line in lines_of(log) if line.startswith("forbidden")]
    assert acts[:3] == ["socket.getaddrinfo", "socket.getaddrinfo", "socket.__new__"]


@pytest.mark.skipif(sys.platform == "win32", reason="needs what Linux or macOS tells of sockets")
def test_the_window_opens_no_internet_socket(tmp_path: Path, image_folder: Path) -> None:
    study = fill(Study.create(tmp_path / "study"), image_folder)
    log = tmp_path / "sockets.log"
    done = run(WINDOW, str(study.folder), log)
    assert done.returncode == 0, done.stderr[-2000:] + "\n".join(lines_of(log))
    assert [line for line in lines_of(log) if not line.startswith("set ")] == []
