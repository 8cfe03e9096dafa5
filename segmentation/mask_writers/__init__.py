"""Masks as files of other programs: one module a format, each a function of what was chosen and an empty folder."""
