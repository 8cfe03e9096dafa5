"""Runs as workers, evaluations and other machines leave them, written by hand."""

from __future__ import annotations

import json
import socket
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from gaze_capture.storage import write_json_atomic
from segmentation.job import JobEvent, Kind, RunSpec
from segmentation.runs import RunFolder, create_run
from segmentation.study import Study


def tell(
    run: RunFolder, *events: tuple[Kind, int, dict[str, Any]], total: int = 100, at: float = 0.0
) -> None:
    """Append events to a run's file; `at` in seconds since the epoch, now if not given."""
    now = at or time.time()
    with open(run.events_path, "a", encoding="utf-8") as stream:
        for kind, step, values in events:
            stream.write(JobEvent(run.id, kind, step, total, now, values).to_line() + "\n")


def at_work(
    run: RunFolder, pid: int | None, *, host: str = "", age: float = 0.0, started: float = 0.0
) -> None:
    """Say that a worker is on a run."""
    now = time.time()
    values = {
        "pid": pid,
        "host": host or socket.gethostname(),
        "started": started or now - 60,
        "heartbeat": now - age,
    }
    (run.path / "worker.json").write_text(json.dumps(values))


def finished(
    study: Study, run_id: str, *, seconds: float = 90.0, steps: int = 100, begun: float = 0.0, **fields: Any
) -> RunFolder:
    """Make a run that came to its end."""
    run = create_run(study, RunSpec(**fields), run_id)
    tell(run, ("started", 0, {"device": "cpu"}), at=begun)
    tell(
        run,
        *(
            ("step", step, {"losses": {"total": 2 / step, "student": 1 / step}})
            for step in range(1, steps + 1)
        ),
        ("agreement", steps, {"dice": 0.8}),
        ("done", steps, {"seconds": seconds, "iterations": steps}),
        total=steps,
        at=begun,
    )
    return run


def measure(
    run: RunFolder,
    dice: Mapping[str, float],
    *,
    split: str | None = "test",
    against: str = "masks",
    gaze: str = "recorded or imported",
    threshold: float = 0.5,
) -> Path:
    """Store a measurement as `evaluate` does, of these images."""
    values = list(dice.values())
    mean = sum(values) / len(values)
    sd = (sum((one - mean) ** 2 for one in values) / max(len(values) - 1, 1)) ** 0.5
    path = run.path / "metrics" / f"{split or 'all'}-{against}.json"
    write_json_atomic(
        path,
        {
            "run": run.id,
            "method": "gaze-to-insight",
            "split": split,
            "against": against,
            "images": len(values),
            "dice": {"mean": mean, "sd": sd},
            "gaze": gaze,
            "missing_predictions": [],
            "evaluated": "2026-11-26T10:00:00+00:00",
            "threshold": threshold,
            "per_image": {
                name: {"dice": one, "iou": one / (2 - one), "hd95": 10 * (1 - one), "assd": 5 * (1 - one)}
                for name, one in dice.items()
            },
            "per_volume": {},
        },
    )
    return path
