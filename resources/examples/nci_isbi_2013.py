"""NCI-ISBI 2013 prostate structures from its raw folder to the evaluation.

    python resources/examples/nci_isbi_2013.py RAW STUDY [--gaze fixations.csv]
        [--config RUNSPEC.json | --compare VARIANTS.json]

RAW holds the DICOM folders of the cases and the label files in Training, Leaderboard and Test. Whole gland, peripheral
zone and central gland become three nested targets.

With ``--compare resources/comparisons/methods.json`` (or ``ablations.json``) all variants are trained with three seeds
and a table is written. The challenge's own splits; the papers draw 789 and 117 slices of their own.
"""

from __future__ import annotations

import sys

from resources.examples.whole_day import run

if __name__ == "__main__":
    sys.exit(run("nci-isbi-2013", "nci_isbi_2013.json", sigma="gazemedseg-50", description=__doc__))
