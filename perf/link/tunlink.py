"""Builds, starts and ends the link, and lets this process work at either end of it.

    with Link(LinkSpec(rate_bytes_per_s=125e6, rtt_s=0.05), directory) as link:
        with link.at(NEAR):
            ...                  # sockets made and processes started here are at the near end

Real TCP on real sockets: only the wire is ours. `tc netem` would do the same; many kernels lack it.
"""

from __future__ import annotations

import contextlib
import ctypes
import json
import os
import shutil
import subprocess
from collections.abc import Iterator
from types import TracebackType
from typing import Final, Self

from perf.link.spec import LinkSpec

__all__ = ["FAR", "FAR_ADDRESS", "NEAR", "NEAR_ADDRESS", "Link", "LinkError"]

NEAR: Final = 0
FAR: Final = 1
NEAR_ADDRESS: Final = "192.0.2.1"  # TEST-NET-1, RFC 5737: nobody's
FAR_ADDRESS: Final = "192.0.2.2"

_NETWORK: Final = "192.0.2.0/24"
_CLONE_NEWNET: Final = 0x40000000  # linux/sched.h
_TUN: Final = "/dev/net/tun"
_SOURCE: Final = os.path.join(os.path.dirname(os.path.abspath(__file__)), "tunlink.c")
_END_S: Final = 10.0
_HEADER_BYTES: Final = 4096  # the kernel's own least size of a receive buffer


class LinkError(RuntimeError):
    """There is no link to be had here."""


class Link:
    """One link while its context lasts.

    Args:
        spec: What it is like.
        directory: Where its program is built.
    """

    def __init__(self, spec: LinkSpec, directory: str) -> None:
        self._spec = spec
        self._directory = directory
        self._process: subprocess.Popen[str] | None = None
        self._namespaces: list[int] = []
        self._home = -1
        self.carried: list[dict[str, int]] = []
        """What it did, known after the end: packets, bytes, lost and dropped from near to far and back."""

    def __enter__(self) -> Self:
        program = _build(self._directory)
        spec = self._spec
        line = (spec.rate_bytes_per_s, spec.rtt_s / 2 * 1e6, spec.loss * 1e6, spec.queue)
        self._home = os.open("/proc/thread-self/ns/net", os.O_RDONLY)
        self._process = subprocess.Popen(
            [
                program,
                *(str(int(number)) for number in (*line, spec.seed, spec.mtu_bytes)),
                NEAR_ADDRESS,
                FAR_ADDRESS,
            ],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            start_new_session=True,  # Ctrl-C ends it through its standard input, after what uses it
        )
        try:
            self._open_ends()
        except BaseException:
            self.close()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    @property
    def spec(self) -> LinkSpec:
        """What it is like."""
        return self._spec

    def pids(self) -> list[int]:
        """Return the process that carries the packets."""
        return [self._process.pid] if self._process is not None else []

    @contextlib.contextmanager
    def at(self, end: int) -> Iterator[None]:
        """Put this thread at one end of the link; what it starts is there too, and stays there.

        Args:
            end: `NEAR` or `FAR`.
        """
        before = os.open("/proc/thread-self/ns/net", os.O_RDONLY)
        _set_namespace(self._namespaces[end])
        try:
            yield
        finally:
            _set_namespace(before)
            os.close(before)

    def close(self) -> None:
        """End the link; its namespaces vanish with the last process in them."""
        for descriptor in (*self._namespaces, self._home):
            if descriptor >= 0:
                os.close(descriptor)
        self._namespaces, self._home = [], -1
        if self._process is None:
            return
        try:
            output, _ = self._process.communicate(timeout=_END_S)
            if self._process.returncode == 0:
                self.carried = json.loads(output)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.communicate()
        self._process = None

    def _open_ends(self) -> None:
        """Wait until the link is there, hold its namespaces, set up TCP at both ends.

        Raises:
            LinkError: It did not come up, or the kernel lacks what is asked for.
        """
        assert self._process is not None and self._process.stdout is not None
        words = (self._process.stdout.readline()).split()
        if words[:1] != ["ready"]:
            raise LinkError(f"no link between namespaces: {' '.join(words) or 'its program ended'}")
        self._namespaces = [
            os.open(f"/proc/{self._process.pid}/fd/{number}", os.O_RDONLY) for number in words[1:]
        ]
        for end in (NEAR, FAR):
            with self.at(end):
                _set_congestion(end, self._spec.congestion)
                if end == NEAR and (limit := self._spec.receive_buffer_bytes):
                    _write_setting("tcp_rmem", f"{_HEADER_BYTES} {min(131072, limit)} {limit}")


def _build(directory: str) -> str:
    """Compile the link's program; return its path.

    Raises:
        LinkError: This is not root, or something is missing.
    """
    if os.geteuid() != 0:
        raise LinkError("a link between network namespaces needs root")
    if not os.path.exists(_TUN):
        raise LinkError(f"a link between network namespaces needs {_TUN}: modprobe tun")
    compiler = shutil.which("gcc") or shutil.which("cc")
    if compiler is None:
        raise LinkError("a link between network namespaces needs a C compiler: apt-get install gcc")
    os.makedirs(directory, exist_ok=True)
    program = os.path.join(directory, "tunlink")
    done = subprocess.run(
        [compiler, "-O2", "-Wall", "-Werror", "-o", program, _SOURCE],
        check=False, capture_output=True, text=True,
    )  # fmt: skip
    if done.returncode:
        raise LinkError(f"{_SOURCE} does not compile:\n{done.stderr}")
    return program


def _set_namespace(descriptor: int) -> None:
    """Move this thread into a network namespace (setns(2)).

    Raises:
        OSError: The kernel refused.
    """
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.setns(descriptor, _CLONE_NEWNET):
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number), "setns")


def _write_setting(name: str, value: str) -> None:
    """Set something of IPv4 in the namespace this thread is in; new namespaces have the host's settings.

    Raises:
        LinkError: The kernel does not know it.
    """
    try:
        with open(f"/proc/sys/net/ipv4/{name}", "w", encoding="ascii") as file:
            file.write(value)
    except OSError as error:
        raise LinkError(f"net.ipv4.{name} = {value}: {error.strerror}") from error


def _set_congestion(end: int, name: str) -> None:
    """Give the route over the link, in the namespace this thread is in, its congestion control.

    The route and not net.ipv4.tcp_congestion_control: that may be set in a namespace only to what the whole
    host allows, and the host's settings are not ours (ip-route(8), congctl).

    Raises:
        LinkError: The kernel does not have it, or there is no ip(8).
    """
    address = (NEAR_ADDRESS, FAR_ADDRESS)[end]
    route = [_NETWORK, "dev", "wan0", "scope", "link", "src", address, "congctl", name]
    try:
        done = subprocess.run(["ip", "route", "replace", *route], check=False, capture_output=True, text=True)
    except FileNotFoundError as error:
        raise LinkError("a link between network namespaces needs ip: apt-get install iproute2") from error
    if done.returncode:
        raise LinkError(f"congestion control {name}: {done.stderr.strip()}")
