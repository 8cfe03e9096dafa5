"""Readers and writers of other programs' gaze files."""
