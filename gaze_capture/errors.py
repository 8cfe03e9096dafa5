"""The exceptions whose text is written for the person at the keyboard."""

from __future__ import annotations

from collections.abc import Sequence


class UserError(Exception):
    """Bad input or a failing disk, told in one sentence that names the file and what to do.

    The command line prints the text and exits with 1; the window shows it in a message.
    """


class MissingFact(UserError):
    """What a file does not tell and only its user can say; a program that asks need not read the sentence.

    Parameters
    ----------
    sentence
        Names the file and the options of the command line.
    facts
        What is missing, as `gaze_capture.formats.gaze_file.Known` and `segmentation.gaze_import.ShownAt` call it, or
        ``split`` where a name fits several images; at least one.
    choices
        Of what can be said where the file limits it, such as the names of its streams.
    """

    def __init__(self, sentence: str, facts: Sequence[str], choices: Sequence[str] = ()) -> None:
        super().__init__(sentence)
        self.facts = tuple(facts)
        self.choices = tuple(choices)
