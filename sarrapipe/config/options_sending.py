"""Options about sending files to another server. Source: sr3-surface.md 2.4."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from sarrapipe.config.kinds import server_url
from sarrapipe.config.option import option

__all__ = ["SendingOptions"]

_SENDING: Final = "Sending"


@dataclass(frozen=True, init=False, repr=False, eq=False)
class SendingOptions:
    """Where files are sent."""

    send_to: str | None = option(
        server_url,
        None,
        section=_SENDING,
        common=True,
        help="Server that files are sent to: scheme://USER@HOST[:PORT][/PATH]. They are put under directory, "
        "which is one of that server; its default is PATH. Passwords and keys are in credentials.conf.",
    )
