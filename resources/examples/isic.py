"""ISIC lesion segmentation (2016, 2017 or 2018 task 1) from its raw folder to the evaluation.

    python resources/examples/isic.py RAW STUDY
        [--config RUNSPEC.json | --compare VARIANTS.json]

RAW holds the unpacked folders of one year under their own names. There is no recorded gaze for this set: a synthetic
clinician looks at the images, and every number that follows is *simulated from masks*.

With ``--compare resources/comparisons/methods.json`` (or ``ablations.json``) all variants are trained with three seeds
and a table is written. The year's own training, validation and test folders are the splits: say the year with
any number.
"""

from __future__ import annotations

import sys

from resources.examples.whole_day import run

if __name__ == "__main__":
    sys.exit(run("isic", "isic.json", sigma="degrees", description=__doc__))
