"""What was sent equals what was stored; the long version is ``python -m tests.benchmarks.loopback_trackers``."""

from collections.abc import Callable
from pathlib import Path

import pytest

pytest.importorskip("pylsl")

from tests.benchmarks.loopback_trackers import Loopback, gazepoint, lsl


@pytest.mark.parametrize(("run", "count"), [(lsl, 1800), (gazepoint, 450)])
def test_what_was_sent_is_what_is_stored(
    run: Callable[[Path, float], Loopback], count: int, tmp_path: Path
) -> None:
    found = run(tmp_path / "r", 3.0)
    assert found.sent in (count, count + 1)
    assert found.sent == found.received == found.stored == found.equal
