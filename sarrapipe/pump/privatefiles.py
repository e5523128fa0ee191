"""Files that hold secrets: mode 600 from their first instant, replaced whole or not at all."""

from __future__ import annotations

import os
import secrets

__all__ = ["write_private"]


def write_private(path: str, text: str) -> None:
    """Put `text` at `path`, readable by its owner alone.

    The file is made under another name with O_EXCL and mode 600, so nobody can have it open or have planted a
    link in its place, and renamed over the old one.

    Args:
        path: The file's final name; its directory exists.
        text: Its whole content.

    Raises:
        OSError: The directory cannot be written to.
    """
    temporary = f"{path}.{secrets.token_hex(4)}.tmp"
    descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, 0o600)
    try:
        with open(descriptor, "w", encoding="utf-8") as file:
            file.write(text)
        os.rename(temporary, path)
    except BaseException:
        os.unlink(temporary)
        raise
