"""The server that files are sent to: what names are there, as URLs. Pure.

A target of a flow that sends is an absolute path of that server. While a file is under way it has another
name beside its target (`inflight`); the native form is a hidden name with a nonce, since no hidden directory
can be known to lie on the same file system there.
"""

from __future__ import annotations

from sarrapipe.config.model import FlowConfig
from sarrapipe.config.urls import split_url
from sarrapipe.config.values import InflightMode
from sarrapipe.segment.place import InflightKind, InflightPlace

__all__ = ["FarSide"]

_KINDS = {
    InflightMode.HIDDEN: InflightKind.PREFIX,
    InflightMode.SUFFIX: InflightKind.SUFFIX,
    InflightMode.PREFIX: InflightKind.PREFIX,
    InflightMode.DIRECTORY: InflightKind.DIRECTORY,
    InflightMode.AGE: InflightKind.IN_PLACE,
    InflightMode.NONE: InflightKind.IN_PLACE,
}


class FarSide:
    """Names at the server of `sendTo`.

    Args:
        config: The flow's configuration; `send_to` is set.
    """

    def __init__(self, config: FlowConfig) -> None:
        assert config.send_to is not None
        scheme, _, rest = config.send_to.partition("://")
        self._server = f"{scheme.lower()}://{rest.partition('/')[0]}"
        self._directories = split_url(config.send_to).path.rstrip("/")
        mode = config.inflight.mode
        word = "." if mode is InflightMode.HIDDEN else config.inflight.text.rstrip("/")
        self._place = InflightPlace(_KINDS[mode], word)

    @property
    def server(self) -> str:
        """Scheme and authority."""
        return self._server

    @property
    def in_place(self) -> bool:
        """Files are written under their final names."""
        return self._place.kind is InflightKind.IN_PLACE

    def url(self, path: str) -> str:
        """URL of an absolute path of the server, nothing escaped."""
        return self._server + path

    def inflight(self, target: str, nonce: str) -> str:
        """Path of a file while it is under way.

        Args:
            target: Absolute path of its final name.
            nonce: Unique among the files under way.
        """
        if self._place.absolute:
            return f"{self._place.word}/{self._place.path(target, nonce)}"
        return self._place.path(target, nonce)
