"""Serving a study's student to 3D Slicer, in the protocol of its MONAI Label extension."""
