"""What this machine can do at most, measured beside the runs: read every rate of a report against these.

Each takes about half a second on one core (loopback TCP has two ends, so it takes two).
"""

from __future__ import annotations

import hashlib
import os
import socket
import threading
import time
from collections.abc import Callable
from typing import Final

import xxhash

__all__ = ["measure_limits"]

_CHUNK_BYTES: Final = 1 << 20
_SPELL_S: Final = 0.4
_FILE_BYTES: Final = 256 << 20


def measure_limits(directory: str) -> dict[str, float]:
    """Return MB/s of memcpy, loopback TCP, writing to the page cache of `directory`, and hashes."""
    data = os.urandom(_CHUNK_BYTES)
    target = bytearray(_CHUNK_BYTES)

    def copy() -> None:
        target[:] = data

    return {
        "memcpy": _rate(copy),
        "loopback TCP": _loopback(data),
        "page-cache write": _write(directory, data),
        "xxh3_128": _rate(lambda: xxhash.xxh3_128_digest(data)),
        "sha512": _rate(lambda: hashlib.sha512(data).digest()),
        "md5": _rate(lambda: hashlib.md5(data, usedforsecurity=False).digest()),
    }


def _rate(step: Callable[[], object]) -> float:
    """Return MB/s of something that takes a chunk each time."""
    began_s = time.monotonic()
    steps = 0
    while (passed_s := time.monotonic() - began_s) < _SPELL_S:
        step()
        steps += 1
    return steps * _CHUNK_BYTES / passed_s / 1e6


def _loopback(data: bytes) -> float:
    with socket.create_server(("127.0.0.1", 0)) as server:
        sender = socket.create_connection(server.getsockname())
        receiver, _address = server.accept()

    def send() -> None:
        with sender:
            until_s = time.monotonic() + _SPELL_S
            while time.monotonic() < until_s:
                sender.sendall(data)

    thread = threading.Thread(target=send)
    began_s = time.monotonic()
    thread.start()
    received = 0
    buffer = bytearray(_CHUNK_BYTES)
    with receiver:
        while count := receiver.recv_into(buffer):
            received += count
    thread.join()
    return received / (time.monotonic() - began_s) / 1e6


def _write(directory: str, data: bytes) -> float:
    """Return the rate of writing a file that was there before: pages made, but memory known to be warm."""
    path = os.path.join(directory, "limits.bin")
    passed_s = 1.0
    for _round in range(2):
        began_s = time.monotonic()
        with open(path, "wb", buffering=0) as file:
            for _chunk in range(_FILE_BYTES // _CHUNK_BYTES):
                file.write(data)
        passed_s = time.monotonic() - began_s
        os.unlink(path)
    return _FILE_BYTES / passed_s / 1e6
