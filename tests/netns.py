"""Network namespaces for hosts that a test makes up; nothing leaves one but through relays.

    with Namespace() as host:
        host.relay(5672, "127.0.0.2")               # in there 127.0.0.1:5672 is the one out here
        subprocess.Popen([*host.prefix, "sarrapipe", ...])

A relay connects from an address of its own, by which a server out here tells the hosts apart.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import shutil
import socket
import subprocess
import threading
from typing import Self

from servers import missing, wait_until

_CLONE_NEWNET = 0x40000000  # linux/sched.h
_PIECE_BYTES = 1 << 18


class Namespace:
    """One network namespace, with its loopback up, while the context lasts."""

    def __enter__(self) -> Self:
        if os.geteuid() != 0 or not all(map(shutil.which, ("unshare", "nsenter", "ip"))):
            missing("root, unshare, nsenter and ip")
        self._relays: list[_Relay] = []
        self._holder = subprocess.Popen(["unshare", "-n", "cat"], stdin=subprocess.PIPE)
        own = os.readlink("/proc/self/ns/net")
        wait_until(lambda: os.readlink(f"/proc/{self._holder.pid}/ns/net") != own, 10, "a namespace")
        subprocess.run([*self.prefix, "ip", "link", "set", "lo", "up"], check=True)
        return self

    def __exit__(self, *_: object) -> None:
        for relay in self._relays:
            relay.close()
        assert self._holder.stdin is not None
        self._holder.stdin.close()
        self._holder.wait()

    @property
    def prefix(self) -> list[str]:
        """What a command begins with to run in there; its process keeps its id."""
        return ["nsenter", "-t", str(self._holder.pid), "-n", "--"]

    def relay(self, port: int, source: str) -> None:
        """Let what connects to a port of loopback in there reach the same port out here.

        Args:
            port: Of TCP.
            source: Address of loopback that the connections come from out here.
        """
        made: list[socket.socket] = []
        # A thread of its own enters the namespace: what it listens on stays in there, what others make not.
        thread = threading.Thread(target=lambda: made.append(self._listen_inside(port)))
        thread.start()
        thread.join()
        (listening,) = made
        self._relays.append(_Relay(listening, port, source))

    def _listen_inside(self, port: int) -> socket.socket:
        with open(f"/proc/{self._holder.pid}/ns/net", "rb") as namespace:
            libc = ctypes.CDLL(None, use_errno=True)
            if libc.setns(namespace.fileno(), _CLONE_NEWNET):
                raise OSError(ctypes.get_errno(), "setns")
        return socket.create_server(("127.0.0.1", port), backlog=128)


class _Relay:
    """Carries what connects to one listening socket, until it is closed."""

    def __init__(self, listening: socket.socket, port: int, source: str) -> None:
        self._listening = listening
        self._port = port
        self._source = source
        self._open: set[socket.socket] = set()
        self._threads = [threading.Thread(target=self._accept)]
        self._threads[0].start()

    def close(self) -> None:
        """End every connection, and wait for it."""
        self._listening.shutdown(socket.SHUT_RDWR)  # ends the wait for connections
        self._threads[0].join()
        self._listening.close()
        for one in list(self._open):
            with contextlib.suppress(OSError):
                one.shutdown(socket.SHUT_RDWR)
        for thread in self._threads:
            thread.join()

    def _accept(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                near, _ = self._listening.accept()
                thread = threading.Thread(target=self._carry, args=(near,))
                self._threads.append(thread)
                thread.start()

    def _carry(self, near: socket.socket) -> None:
        with near, socket.socket() as far:
            self._open.update((near, far))
            with contextlib.suppress(OSError):
                far.bind((self._source, 0))
                far.connect(("127.0.0.1", self._port))
                back = threading.Thread(target=_pump, args=(far, near))
                back.start()
                _pump(near, far)
                back.join()
            self._open.difference_update((near, far))


def _pump(one: socket.socket, other: socket.socket) -> None:
    """Carry bytes one way until their end, and tell the other side of it."""
    with contextlib.suppress(OSError):
        while data := one.recv(_PIECE_BYTES):
            other.sendall(data)
    with contextlib.suppress(OSError):
        other.shutdown(socket.SHUT_WR)
