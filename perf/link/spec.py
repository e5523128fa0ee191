"""What a link is like: rate, round trip, loss, queue."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

__all__ = ["LinkSpec"]

_LEAST_QUEUE_BYTES: Final = 256 << 10  # the buffer of a small router


@dataclass(frozen=True, slots=True, kw_only=True)
class LinkSpec:
    """One network path, the same in both directions.

    Args:
        rate_bytes_per_s: Bytes a second, IP headers included; 0 is as fast as the machine.
        rtt_s: Round trip without load.
        loss: Share of packets that vanish, in each direction, 0..1.
        queue_bytes: What waits for the line at most; the rest is dropped. 0 is rate times round trip.
        congestion: The kernel's congestion control at both ends.
        receive_buffer_bytes: Upper limit of a TCP receive buffer at the near end; 0 is the machine's.
        mtu_bytes: Largest packet. One stream with loss gets about as many bytes a second as this is large.
        seed: Which packets are lost is a function of this and of their order.
    """

    rate_bytes_per_s: float
    rtt_s: float
    loss: float = 0.0
    queue_bytes: int = 0
    congestion: str = "cubic"
    receive_buffer_bytes: int = 0
    mtu_bytes: int = 1500
    seed: int = 1

    @property
    def queue(self) -> int:
        """Bytes that wait at most in one direction."""
        return self.queue_bytes or max(_LEAST_QUEUE_BYTES, int(self.rate_bytes_per_s * self.rtt_s))

    def described(self) -> str:
        """Return it for a reader."""
        rate = f"{self.rate_bytes_per_s * 8 / 1e6:,.0f} Mbit/s" if self.rate_bytes_per_s else "no rate limit"
        delay = f"RTT {self.rtt_s * 1e3:g} ms, loss {self.loss:.3%}"
        return f"{rate}, {delay}, packets of {self.mtu_bytes} bytes, {self.congestion}"
