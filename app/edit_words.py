"""What tools, steps and starts are called."""

from __future__ import annotations

from PySide6.QtCore import QCoreApplication

from app.edit_tools import ToolName


def _tr(text: str) -> str:
    return QCoreApplication.translate("Editing", text)


def tool_title(name: ToolName) -> str:
    """Return a tool's name."""
    titles: dict[ToolName, str] = {
        "brush": _tr("Brush"),
        "eraser": _tr("Eraser"),
        "lasso": _tr("Lasso"),
        "polygon": _tr("Polygon"),
        "flood": _tr("Flood"),
        "threshold": _tr("Threshold"),
    }
    return titles[name]


def step_title(word: str) -> str:
    """Return what a step is called after *Undo* and *Redo*, by the word it is stored with."""
    titles = {
        "brush": _tr("brush"),
        "eraser": _tr("eraser"),
        "lasso": _tr("lasso"),
        "lasso-erase": _tr("lasso, taking away"),
        "polygon": _tr("polygon"),
        "polygon-erase": _tr("polygon, taking away"),
        "flood": _tr("flood"),
        "flood-erase": _tr("flood, taking away"),
        "threshold": _tr("threshold"),
        "grow": _tr("growing"),
        "shrink": _tr("shrinking"),
        "smooth": _tr("smoothing"),
        "fill-holes": _tr("filling holes"),
        "keep-largest": _tr("keeping the largest part"),
        "add": _tr("adding a mask"),
        "start": _tr("beginning anew"),
        "copy-slice": _tr("copy of a slice"),
    }
    return titles.get(word, word)


def start_title(start: str) -> str:
    """Return what a start is called, by the name it is stored with."""
    if start.startswith("level "):
        return _tr("Level {threshold}").format(threshold=start.removeprefix("level "))
    if start.startswith("slice "):
        return _tr("Slice beside it")
    titles = {
        "student": _tr("Student"),
        "teacher": _tr("Teacher"),
        "reviewed": _tr("Reviewed mask"),
        "empty": _tr("Empty mask"),
    }
    return titles.get(start, start)
