"""Keys of servers: in the environment or the system's keyring, and nowhere else."""

from __future__ import annotations

import os
from typing import Any

from gaze_capture.errors import UserError
from segmentation.reply import plain_text

KEY_VARIABLE = "GAZE_INSIGHT_API_KEY"
"""The environment variable that holds a server's key; it is never stored, logged or shown."""
SERVICE = "gaze-insight"
"""Under which the keyring lists the keys."""


def key_for(origin: str) -> str:
    """Return the key to show to a server, or nothing: the environment's, or what the keyring holds for this very one.

    Parameters
    ----------
    origin : scheme, host and port, see `segmentation.hosts.origin`

    Raises
    ------
    UserError
        If it holds characters that no key has.
    """
    if key := os.environ.get(KEY_VARIABLE, "").strip():
        return checked_key(key, f"The key in {KEY_VARIABLE}")
    try:
        keyring = _keyring()
    except UserError:
        # Most servers on one's own machine take no key.
        return ""
    try:
        key = (keyring.get_password(SERVICE, origin) or "").strip()
    except (keyring.errors.KeyringError, RuntimeError, OSError):
        return ""
    return checked_key(key, f"The key for {origin} in the keyring")


def store_key(origin: str, key: str) -> None:
    """Put a server's key into the keyring in place of an earlier one.

    Raises
    ------
    UserError
        If it is empty or no key, or there is no keyring.
    """
    key = checked_key(key.strip(), "The key")
    if not key:
        raise UserError("The key is empty; nothing was stored.")
    keyring = _keyring()
    try:
        keyring.set_password(SERVICE, origin, key)
    except (keyring.errors.KeyringError, RuntimeError, OSError) as error:
        raise _no_keyring(error, key) from None


def forget_key(origin: str) -> bool:
    """Take a server's key out of the keyring; return whether there was one.

    Raises
    ------
    UserError
        If there is no keyring.
    """
    keyring = _keyring()
    try:
        if keyring.get_password(SERVICE, origin) is None:
            return False
        keyring.delete_password(SERVICE, origin)
    except (keyring.errors.KeyringError, RuntimeError, OSError) as error:
        raise _no_keyring(error, "") from None
    return True


def keyring_name() -> str | None:
    """Return the system's store that would hold keys, such as ``SecretService Keyring``; None where there is none."""
    try:
        keyring = _keyring()
        chosen = keyring.get_keyring()
        usable, name = chosen.priority > 0, str(chosen.name)
    except Exception:
        # Backends of other packages are asked too, and may raise anything.
        return None
    return plain_text(name, 80) if usable else None


def _keyring() -> Any:
    try:
        import keyring
        import keyring.errors
    except ImportError:
        raise UserError(
            "Keys are kept in the system's keyring, for which a package is missing; install it with: "
            f"pip install keyring, or set {KEY_VARIABLE} in the environment."
        ) from None
    return keyring


def _no_keyring(error: Exception, key: str) -> UserError:
    said = str(error).replace(key, "***") if key else str(error)
    reason = plain_text(said, 120).rstrip(".") or type(error).__name__
    return UserError(
        f"This machine's keyring cannot be used ({reason}); set {KEY_VARIABLE} in the environment instead."
    )


def checked_key(key: str, what: str) -> str:
    """Return a key, or raise UserError where it holds characters that no header can."""
    if not (key.isascii() and key.isprintable()):
        raise UserError(f"{what} holds characters that no key has; set it again.")
    return key
