"""What was measured of each remote: how many streams gain, its round trip, how fast one stream is.

One record a remote and instance, kept as long as the instance, so that the next large file begins with what
the last one taught. At most `_MOST_REMOTES` are remembered; the one that was used longest ago is forgotten.
"""

from __future__ import annotations

from collections import OrderedDict
from typing import Final

from sarrapipe.segment.plan import MIN_SEGMENT_BYTES, segment_size
from sarrapipe.transfer.adapt import StreamControl
from sarrapipe.transfer.base import RangeDone
from sarrapipe.transfer.schedule import remote_of

__all__ = ["Remote", "Remotes"]

_MOST_REMOTES: Final = 64
_FAR_S: Final = 0.005
"""Below this a round trip says nothing: it is the time the server takes to answer."""
_PARTS: Final = 2
"""A file is cut so that each stream gets so many segments at least, however far the remote."""
_WEIGHT: Final = 0.25
"""Of the last segment in the mean rate of a stream."""


class Remote:
    """One remote.

    Attributes:
        control: How many streams gain.
        received: Bytes of segments that ended, by this instance.
    """

    __slots__ = ("_round_trip_s", "_stream_rate", "control", "received")

    def __init__(self, control: StreamControl) -> None:
        self.control = control
        self.received = 0
        self._round_trip_s = float("inf")
        self._stream_rate = 0.0

    @property
    def stream_bytes(self) -> int:
        """Bandwidth times round trip of one stream; 0 where it is near, or nothing was measured."""
        if not _FAR_S <= self._round_trip_s < float("inf"):
            return 0
        return int(self._stream_rate * self._round_trip_s)

    def ended(self, done: RangeDone, took_s: float) -> None:
        """Learn from a segment's transfer.

        Args:
            done: How it ended.
            took_s: From its start to its end.
        """
        self.received += done.received
        if done.error is not None or took_s <= 0:
            return
        rate = done.received / took_s
        self._stream_rate += (rate - self._stream_rate) * (_WEIGHT if self._stream_rate else 1.0)
        if done.wait_s:
            self._round_trip_s = min(self._round_trip_s, done.wait_s)


class Remotes:
    """All remotes of an instance.

    Args:
        start: Streams to begin with.
        most: Streams to one remote.
    """

    def __init__(self, start: int, most: int) -> None:
        self._start = start
        self._most = most
        self._remotes: OrderedDict[str, Remote] = OrderedDict()

    def of(self, name: str) -> Remote:
        """Return what is known of a remote (`schedule.remote_of`)."""
        remote = self._remotes.get(name)
        if remote is None:
            remote = self._remotes[name] = Remote(StreamControl(self._start, self._most))
            if len(self._remotes) > _MOST_REMOTES:
                self._remotes.popitem(last=False)
        else:
            self._remotes.move_to_end(name)
        return remote

    def segment_size(self, size: int, url: str) -> int:
        """Return the size of a file's segments: ten round trips of a stream at least from far away.

        Args:
            size: Bytes in the file.
            url: Where it is.
        """
        known = self._remotes.get(remote_of(url))
        if known is None or not known.stream_bytes:
            return segment_size(size)
        most_bytes = max(size // (_PARTS * self._most), MIN_SEGMENT_BYTES)
        return segment_size(size, stream_bytes=min(known.stream_bytes, most_bytes // 10))
