"""What the live view costs a tick: fixations and dot of the samples that came since the last one."""

from __future__ import annotations

import sys
import time

import numpy as np

from gaze_capture.online import LiveFixations, OneEuro

RATE_HZ, TICKS_HZ, MINUTES = 1200, 60, 3


def main() -> None:
    """Print the table."""
    rng = np.random.default_rng(0)
    count = RATE_HZ * 60 * MINUTES
    block = RATE_HZ // TICKS_HZ
    rest, saccade = round(0.25 * RATE_HZ), round(0.045 * RATE_HZ)
    part, phase = np.divmod(np.arange(count), rest + saccade)
    places = rng.uniform(-12, 12, (part[-1] + 2, 2))
    share = np.clip((phase - rest) / saccade, 0, 1)[:, np.newaxis]
    xy_deg = places[part] + (places[part + 1] - places[part]) * share + rng.normal(0, 0.1, (count, 2))
    time_ms = np.arange(count) * 1000 / RATE_HZ

    live, dot = LiveFixations(), OneEuro()
    costs = []
    for start in range(0, count, block):
        began = time.perf_counter()
        live.add(time_ms[start : start + block], xy_deg[start : start + block])
        dot.follow(time_ms[start : start + block], xy_deg[start : start + block])
        live.fixations()
        costs.append(1000 * (time.perf_counter() - began))
    median, high, highest = np.percentile(costs, [50, 99, 100]).tolist()
    sys.stdout.write(
        f"Live fixations and dot, {block} samples a tick, {MINUTES} min, {len(live)} fixations\n"
        f"  median             {median:8.3f} ms a tick\n"
        f"  99 of 100          {high:8.3f} ms\n"
        f"  highest            {highest:8.3f} ms\n"
    )


if __name__ == "__main__":
    main()
