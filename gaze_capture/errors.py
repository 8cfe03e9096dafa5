"""The one exception whose text is written for the person at the keyboard."""


class UserError(Exception):
    """Bad input or a failing disk, told in one sentence that names the file and what to do.

    The command line prints the text and exits with 1; the window shows it in a message.
    """
