"""Correcting a mask by hand: what the tools do to it, its history, and the draft that outlives a crash.

`regions` and `operations` work out what a tool marks, `history` holds the mask with every step that can be taken
back, `drafts` keeps both in the study folder while they are worked on, and `starts` says what a mask may begin as.
"""
