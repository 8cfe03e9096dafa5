"""Sources of gaze samples, one kind a file, behind the protocol in :mod:`gaze_capture.trackers.tracker`."""
