"""What verification finds: one thing that is wrong, where, and what to do."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Problem:
    """One thing that is wrong."""

    file: str
    """Relative to the study, with forward slashes."""
    problem: str
    advice: str

    @property
    def sentence(self) -> str:
        """All of it, for a person."""
        return f"{self.file}: {self.problem} {self.advice}"
