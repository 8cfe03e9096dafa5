"""Kvasir-SEG from its raw folder to the evaluation.

    python resources/examples/kvasir_seg.py RAW STUDY [--gaze fixations.csv] [--test test.txt]
        [--config RUNSPEC.json | --compare VARIANTS.json]

RAW is the folder as published (``images``, ``masks``). `--gaze` takes GazeMedSeg's fixation table; without one a
synthetic clinician looks at the images, and every number that follows is *simulated from masks*.

With ``--compare resources/comparisons/methods.json`` (or ``ablations.json``) all variants are trained with three seeds
and a table is written. The papers hold 100 of the 1000 images apart (900/100); `--test` names yours.
"""

from __future__ import annotations

import sys

from resources.examples.whole_day import run

if __name__ == "__main__":
    sys.exit(run("kvasir-seg", "kvasir_seg.json", sigma="gazemedseg-70", description=__doc__))
