"""TCP ports for servers of our own on loopback."""

from __future__ import annotations

import random
import socket
from pathlib import Path
from typing import Final

from sarrapipe.errors import SupervisorError

__all__ = ["LOOPBACK", "PortReservation", "free_ports", "is_free"]

LOOPBACK: Final = "127.0.0.1"

_EPHEMERAL: Final = Path("/proc/sys/net/ipv4/ip_local_port_range")
_RANGE: Final = range(20_000, 32_768)  # below Linux's default ephemeral range, above the well-known services
_TRIES: Final = 200


def is_free(port: int) -> bool:
    """Whether a server could listen on `port` of loopback now."""
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # connections in TIME_WAIT do not count
        try:
            probe.bind((LOOPBACK, port))
        except OSError:
            return False
    return True


def free_ports(count: int) -> list[int]:
    """Return different ports that were free a moment ago, for servers that are about to start.

    Raises:
        SupervisorError: None found.
    """
    reservation = PortReservation()
    try:
        return [reservation.take() for _ in range(count)]
    finally:
        reservation.release()


class PortReservation:
    """Free ports, held bound until the servers that get them are about to start.

    They lie outside the range from which the kernel takes ports for outgoing connections: a broker needs
    seconds from its start until it listens, long enough for such a connection to take the port.
    """

    def __init__(self) -> None:
        self._held: list[socket.socket] = []

    def take(self) -> int:
        """Return a port that nobody else has, until `release`.

        Raises:
            SupervisorError: None found.
        """
        for _ in range(_TRIES):
            holder = socket.socket()
            try:
                holder.bind((LOOPBACK, _candidate()))
            except OSError:
                holder.close()
                continue
            self._held.append(holder)
            return int(holder.getsockname()[1])
        raise SupervisorError(f"no free TCP port on {LOOPBACK} after {_TRIES} tries")

    def release(self) -> None:
        """Let the servers have the ports."""
        for holder in self._held:
            holder.close()
        self._held.clear()


def _candidate() -> int:
    """Return a port to try; 0 lets the kernel choose where its own range leaves nothing else."""
    low, high = (int(word) for word in _EPHEMERAL.read_text().split())
    port = random.choice(_RANGE)
    return 0 if low <= port <= high else port
