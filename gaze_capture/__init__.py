"""From an eye tracker to fixations: types, codecs, trackers, detection. No Qt, no torch."""
