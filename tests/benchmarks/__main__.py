"""Run every benchmark, one table after the other."""

from __future__ import annotations

import runpy
import sys

for name in ("bench_heatmap", "bench_window", "bench_scale"):
    sys.argv = [name]
    runpy.run_module(f"tests.benchmarks.{name}", run_name="__main__")
