"""The user-space link has the rate, delay, loss and queue asked for, and vanishes with its owner."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from servers import MS, REPOSITORY, missing, wait_until

from perf.link.spec import LinkSpec
from perf.link.tunlink import FAR, FAR_ADDRESS, NEAR, Link, LinkError


@contextlib.contextmanager
def _open(tmp_path: Path, **spec: float | str | int) -> Iterator[Link]:
    if os.geteuid() != 0 or not os.path.exists("/dev/net/tun"):
        missing("root and /dev/net/tun")
    with Link(LinkSpec(**{"rate_bytes_per_s": 0.0, "rtt_s": 0.0, **spec}), str(tmp_path)) as link:
        yield link


@contextlib.contextmanager
def _datagram_pair(link: Link) -> Iterator[tuple[socket.socket, socket.socket]]:
    """Sockets at both ends; the near one sends to the far one."""
    with link.at(FAR):
        far = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        far.bind((FAR_ADDRESS, 5000))
        far.settimeout(5 * MS)
    with link.at(NEAR):
        near = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        near.connect((FAR_ADDRESS, 5000))
        near.settimeout(5 * MS)
    with near, far:
        yield near, far


def _stream_pair(link: Link) -> tuple[socket.socket, socket.socket]:
    """A TCP connection: its near and its far end."""
    with link.at(FAR), socket.create_server((FAR_ADDRESS, 5000)) as server:
        with link.at(NEAR):
            near = socket.create_connection((FAR_ADDRESS, 5000))
        return near, server.accept()[0]


def test_the_round_trip_is_the_one_asked_for(tmp_path: Path) -> None:
    with _open(tmp_path, rtt_s=0.06) as link, _datagram_pair(link) as (near, far):
        trips = []
        for _try in range(5):
            began_s = time.monotonic()
            near.send(b"there")
            _data, sender = far.recvfrom(100)
            far.sendto(b"back", sender)
            near.recv(100)
            trips.append(time.monotonic() - began_s)
    assert min(trips) >= 0.06
    assert min(trips) < 0.06 + 0.02 * MS


def test_the_rate_bounds_a_tcp_stream(tmp_path: Path) -> None:
    size_bytes, rate = 2 << 20, 4e6
    with _open(tmp_path, rate_bytes_per_s=rate, rtt_s=0.01) as link:
        near, far = _stream_pair(link)
        sender = threading.Thread(target=lambda: (far.sendall(bytes(size_bytes)), far.close()))
        began_s = time.monotonic()
        sender.start()
        received = 0
        with near:
            while data := near.recv(1 << 16):
                received += len(data)
        passed_s = time.monotonic() - began_s
        sender.join()
    assert received == size_bytes
    assert size_bytes / passed_s <= rate
    assert link.carried[1]["bytes"] >= size_bytes


def test_loss_is_the_share_asked_for_and_the_same_each_time(tmp_path: Path) -> None:
    survivors = []
    for _time in range(2):
        # 3 % of 4,000: 120 expected, 11 the standard deviation.
        with _open(tmp_path, loss=0.03, seed=7) as link, _datagram_pair(link) as (near, far):
            got: list[bytes] = []
            for first in range(0, 4000, 50):  # a little at a time: no buffer on the way overflows
                for number in range(first, first + 50):
                    near.send(number.to_bytes(4, "big"))
                far.settimeout(0.2 * MS)
                with contextlib.suppress(TimeoutError):
                    while not got or got[-1] != (first + 49).to_bytes(4, "big"):
                        got.append(far.recv(100))
            survivors.append(got)
        assert link.carried[0]["packets"] == 4000
        assert link.carried[0]["lost"] == 4000 - len(got)
        assert 70 <= 4000 - len(got) <= 170
    assert survivors[0] == survivors[1]


def test_a_full_queue_drops_what_comes_last(tmp_path: Path) -> None:
    with (
        _open(tmp_path, rate_bytes_per_s=100_000, queue_bytes=10_000) as link,
        _datagram_pair(link) as (near, far),
    ):
        for number in range(30):
            near.send(number.to_bytes(4, "big") + bytes(968))  # 1,000 bytes with the headers
        far.settimeout(0.5 * MS)
        got = []
        with contextlib.suppress(TimeoutError):
            while True:
                got.append(int.from_bytes(far.recv(2000)[:4], "big"))
    assert got[:10] == list(range(10))
    assert 10 <= len(got) < 30
    assert link.carried[0]["dropped"] == 30 - len(got)


def test_tcp_over_it_has_the_congestion_control_asked_for(tmp_path: Path) -> None:
    with _open(tmp_path, congestion="reno") as link:
        for end in _stream_pair(link):
            name = end.getsockopt(socket.IPPROTO_TCP, socket.TCP_CONGESTION, 16)
            assert name.rstrip(b"\0") == b"reno"
            end.close()
    with pytest.raises(LinkError, match="nosuch"), _open(tmp_path, congestion="nosuch"):
        pass


_OWNER = """
import signal, sys, time
signal.signal(signal.SIGINT, signal.default_int_handler)  # in the background it may be ignored
from perf.link.spec import LinkSpec
from perf.link.tunlink import Link
with Link(LinkSpec(rate_bytes_per_s=0, rtt_s=0.01), sys.argv[1]) as link:
    print(*link.pids(), flush=True)
    time.sleep(60)
"""


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGKILL])
def test_nothing_is_left_of_it_when_its_owner_ends(tmp_path: Path, number: signal.Signals) -> None:
    with _open(tmp_path):
        pass  # skips where it cannot be had
    owner = subprocess.Popen(
        [sys.executable, "-c", _OWNER, str(tmp_path)],
        cwd=REPOSITORY, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True,
    )  # fmt: skip
    assert owner.stdout is not None
    pid = int(owner.stdout.readline())
    assert os.path.exists(f"/proc/{pid}")
    owner.send_signal(number)
    owner.communicate()
    assert owner.returncode != 0
    wait_until(lambda: not os.path.exists(f"/proc/{pid}"), 5.0, "the link has ended")


def test_who_is_not_root_is_told_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    with (
        pytest.raises(LinkError, match="needs root"),
        Link(LinkSpec(rate_bytes_per_s=0, rtt_s=0), str(tmp_path)),
    ):
        pass
