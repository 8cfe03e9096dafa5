"""From fixations to masks: the study folder, pseudo-masks, explanations, training, prediction."""

import os

# Before anything here loads cv2: its own warnings about broken files would reach the user beside our sentence.
os.environ.setdefault("OPENCV_LOG_LEVEL", "SILENT")
