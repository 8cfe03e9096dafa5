"""Trackers on the command line: found, recorded and published by real processes."""

import json
import os
import signal
import subprocess
import sys
import threading

import pytest

pytest.importorskip("pylsl")

from app.cli import run_command
from gaze_capture.recording_codec import read_recording
from segmentation.study import Study
from tests.gazepoint_double import GazepointServer
from tests.test_cli import refused, values


@pytest.mark.skipif(sys.platform == "win32", reason="Windows cannot send Ctrl+C to one process")
def test_a_tracker_is_published_found_and_recorded(study: Study) -> None:
    # Another run of the tests may publish one, too.
    name = f"bridged eye {os.getpid()}"
    command = [
        sys.executable,
        "-m",
        "app",
        "bridge",
        "simulated",
        "--rate",
        "250",
        "--name",
        name,
        "--json",
    ]
    publishing = subprocess.Popen(
        command,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        # A shell that runs the tests in the background has its children ignore Ctrl+C.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),
    )
    try:
        assert publishing.stderr is not None
        told = next(line for line in publishing.stderr if "Publishing" in line)
        assert "250 Hz" in told
        assert "1920 x 1080 pixels, 527 x 296 mm" in told
        found = values("trackers")["trackers"]
        address = next(item["address"] for item in found if item["label"].startswith(name))
        assert address in told
        recorded = values("record", study.folder, "--tracker", "lsl", "--address", address, "--seconds", 1)
    finally:
        publishing.send_signal(signal.SIGINT)
        try:
            answer, _ = publishing.communicate(timeout=60)
        finally:
            publishing.kill()
    assert publishing.returncode == 0
    published = json.loads(answer)
    assert (published["stream"], published["source_id"]) == (name, address)
    assert published["sent"] > 500
    assert 250 <= recorded["expected"] == recorded["received"] == recorded["stored"] <= 251
    recording = read_recording(study.recordings_folder / recorded["recording"])
    # Whatever way it went, no person looked.
    assert (recording.tracker, recording.simulated_from) == ("lsl", "saliency")


def test_a_gazepoint_tracker_is_recorded_by_its_address(study: Study) -> None:
    with GazepointServer(60.0) as server:
        arguments = (
            "record",
            study.folder,
            "--tracker",
            "gazepoint",
            "--address",
            server.address,
            "--seconds",
            0.5,
        )
        assert "--screen-mm" in refused(*arguments)
        recorded = values(*arguments, "--screen-mm", "527x296", "--distance-mm", 650)
    assert 30 <= recorded["stored"] == recorded["received"] <= 31
    recording = read_recording(study.recordings_folder / recorded["recording"])
    assert recording.geometry.width_px == 1920
    assert "start Gazepoint Control" in refused(*arguments)


def test_the_doctor_names_the_libraries_of_trackers() -> None:
    found = values("doctor")
    assert found["LSL"]["text"].startswith("pylsl 1.")
    assert found["Tobii SDK"]["ok"]


def test_trackers_that_are_not_there_are_told(study: Study) -> None:
    assert "tobii" in refused("record", study.folder, "--tracker", "tobii", "--screen-px", "100x100").lower()
    assert "LSL gaze stream 'nobody'" in refused(
        "record", study.folder, "--tracker", "lsl", "--address", "nobody"
    )
    assert "invalid choice" in refused("bridge", "telepathy", status=2)
    assert study.recording_ids() == []


def test_a_bridge_says_when_its_tracker_is_lost_and_back() -> None:
    with GazepointServer(60.0) as server:
        threading.Timer(4.0, server.stop).start()
        threading.Timer(6.0, server.restart).start()
        command = [
            sys.executable,
            "-m",
            "app",
            "bridge",
            "gazepoint",
            "--address",
            server.address,
            "--seconds",
            "9",
        ]
        command += ["--screen-mm", "527x296", "--distance-mm", "650"]
        finished = subprocess.run(command, capture_output=True, text=True, timeout=60, check=True)
    lines = finished.stderr.splitlines()
    assert [line for line in lines if "is lost" in line]
    assert [line for line in lines if "sends again" in line]
    assert "Published" in finished.stdout


@pytest.mark.parametrize(
    ("option", "value", "told"),
    [
        ("--screen-mm", "nanxnan", "nanxnan"),
        ("--rate", "1e9", "at most"),
        ("--annotator", "  ", "needs an id"),
        ("--annotator", "x" * 300, "at most"),
        ("--annotator", "a\nb", "one line"),
    ],
)
def test_what_no_recording_can_be_made_with_is_refused_before_it_begins(
    study: Study, capsys: pytest.CaptureFixture[str], option: str, value: str, told: str
) -> None:
    assert run_command(["record", str(study.folder), "--tracker", "simulated", option, value]) == 2
    assert told in capsys.readouterr().err
    assert study.recording_ids() == []
