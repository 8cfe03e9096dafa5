"""Run every benchmark of speed, one table after the other.

Those of quality take minutes and are run by name: ``python -m tests.benchmarks.several_lesions``,
``presence_ablation``, ``prostate_volume``, ``lund_agreement``; each takes ``--quick``.
"""

from __future__ import annotations

import runpy
import sys

for name in ("bench_heatmap", "bench_online", "bench_window", "bench_scale"):
    sys.argv = [name]
    runpy.run_module(f"tests.benchmarks.{name}", run_name="__main__")
