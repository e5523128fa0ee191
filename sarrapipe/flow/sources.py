"""The places that one file's segments come from: the announced one, and others that announced the same file.

Equal fingerprints say that the bytes are the same; the servers' entity tags may differ, so each source pins
its own. What a source does wrong is held against it alone: while another is left, one that fails
`attempts` times in a row, or that turns out to hold something else, is left out for the rest of this file.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import Final

from sarrapipe.errors import (
    Disposition,
    IdentityMismatch,
    RangeNotHonoured,
    SarrapipeError,
    SourceGone,
    TransferError,
)
from sarrapipe.transfer.schedule import remote_of

__all__ = ["Source", "Sources", "is_transient"]

_MOST_SOURCES: Final = 9
"""The first and `admission.MAX_FURTHER`."""


class Source:
    """One place that holds the whole file.

    Attributes:
        url: Of the file.
        remote: Its server, as streams are counted.
        is_escaped: The URL is a reference, not a file name (`RangeRead.url_is_escaped`).
        validator: The version its first response named; None until then.
        is_pinned: The ledger has that too, for the siblings.
        failures: In a row.
    """

    __slots__ = ("failures", "is_escaped", "is_pinned", "remote", "url", "validator")

    def __init__(self, url: str, etag: str = "", *, is_escaped: bool = False) -> None:
        self.url = url
        self.remote = remote_of(url)
        self.is_escaped = is_escaped
        self.validator: str | None = etag or None
        self.is_pinned = bool(etag)
        self.failures = 0


class Sources:
    """The sources of one file in one instance.

    Args:
        first: The one this instance was told of first.
    """

    def __init__(self, first: Source) -> None:
        self._live = [first]
        self._known = {first.url}

    def __len__(self) -> int:
        return len(self._live)

    def __iter__(self) -> Iterator[Source]:
        return iter(self._live)

    @property
    def first(self) -> Source:
        """The one to be named where one is."""
        return self._live[0]

    def learn(self, found: Iterable[tuple[str, str]], usable: Callable[[str], bool]) -> None:
        """Take up what the ledger has: URLs, each with the version that is pinned there.

        Args:
            found: URL and validator, which is empty where none is pinned.
            usable: Whether ranges of a URL can be fetched.
        """
        for url, etag in found:
            if url in self._known:
                self.pinned(url, etag)
            elif url and len(self._known) < _MOST_SOURCES and usable(url):
                self._known.add(url)
                self._live.append(Source(url, etag))

    def pinned(self, url: str, etag: str) -> None:
        """A sibling, or a former owner, pinned the version of a source.

        Args:
            url: Of the source; empty for one whose URL only its owner can use.
            etag: Of the version; empty where none is pinned.
        """
        for source in self._live:
            same = source.is_escaped if not url else source.url == url
            if same and etag and source.validator is None:
                source.validator, source.is_pinned = etag, True

    def pick(self, room: Callable[[str], int], avoid: Source | None = None) -> Source:
        """Return the source for the next segment: the one whose remote has most streams free.

        Args:
            room: How many more streams a remote takes.
            avoid: Not this one, if there is another.
        """
        others = [source for source in self._live if source is not avoid] or self._live
        return max(others, key=lambda source: room(source.remote))

    def room(self, room: Callable[[str], int]) -> int:
        """Return how many more segments may be fetched at a time from all of them.

        Args:
            room: How many more streams a remote takes.
        """
        return sum(max(room(remote), 0) for remote in {source.remote for source in self._live})

    def failed(self, source: Source, error: SarrapipeError, attempts: int) -> bool:
        """Hold a failure against a source.

        Args:
            source: Where the segment came from.
            error: What went wrong.
            attempts: So many failures in a row are enough.

        Returns:
            Whether it was left out for that: another goes on.
        """
        source.failures += 1
        if source not in self._live or len(self._live) == 1 or not is_of_the_source(error):
            return False
        if source.failures < attempts and is_transient(error):
            return False
        self._live.remove(source)
        return True

    def is_live(self, source: Source) -> bool:
        """Return whether a source was not left out."""
        return source in self._live


def is_of_the_source(error: SarrapipeError) -> bool:
    """Return whether another source may do better: not so where the local disk refused."""
    return isinstance(error, TransferError)


def is_transient(error: SarrapipeError) -> bool:
    """Return whether the same source may do better at another time."""
    if isinstance(error, RangeNotHonoured | SourceGone | IdentityMismatch):
        return False
    return is_of_the_source(error) and error.disposition is Disposition.RETRY
