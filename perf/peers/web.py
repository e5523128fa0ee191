"""What people fetch a large file over HTTP with. None of them verifies anything.

Each runs with its own defaults and without its user's configuration; what is set is named here with the
reason. `--file-allocation=none` is the kindest setting for aria2c in /dev/shm, where its default writes every
page twice. rclone cuts files into ranges from 256 MiB on by default; the lower limit lets small trials show
the same behaviour.
"""

from __future__ import annotations

import os
from dataclasses import replace
from typing import Final
from urllib.parse import urlsplit

from perf.peers.fetcher import Fetcher, shell

__all__ = ["ALL", "ARIA2C", "AXEL", "CURL", "CURL_SYNC", "LFTP", "RCLONE", "TLS", "WGET"]

_STREAMS: Final = 16


def _aria2c(url: str, path: str) -> list[str]:
    directory, name = os.path.split(path)
    streams = [f"-x{_STREAMS}", f"-s{_STREAMS}"]
    return [
        *("aria2c", *streams, "-q", "--no-conf", "--file-allocation=none"),
        *("-d", directory, "-o", name, url),
    ]


def _rclone(url: str, path: str) -> list[str]:
    parts = urlsplit(url)
    source = f":http,url='{parts.scheme}://{parts.netloc}/':{parts.path.lstrip('/')}"
    streams = ["--multi-thread-streams", str(_STREAMS), "--multi-thread-cutoff", "16M"]
    return ["rclone", "--config", "", "-q", *streams, "copyto", source, path]


CURL: Final = Fetcher(
    name="curl",
    program="curl",
    arguments=lambda url, path: ["curl", "-q", "-sS", "-f", "-o", path, url],
)
CURL_SYNC: Final = Fetcher(
    name="curl-sync",
    program="curl",
    arguments=shell('curl -q -sS -f -o "$2" "$1" && sync "$2"'),
)
WGET: Final = Fetcher(
    name="wget",
    program="wget",
    arguments=lambda url, path: ["wget", "--no-config", "-nv", "-O", path, url],
)
ARIA2C: Final = Fetcher(name="aria2c", program="aria2c", arguments=_aria2c)
AXEL: Final = Fetcher(
    name="axel",
    program="axel",
    arguments=lambda url, path: ["axel", "-q", "-n", str(_STREAMS), "-o", path, url],
)
LFTP: Final = Fetcher(
    name="lftp",
    program="lftp",
    arguments=lambda url, path: ["lftp", "--norc", "-c", f"pget -n {_STREAMS} {url} -o {path}"],
)
RCLONE: Final = Fetcher(name="rclone", program="rclone", arguments=_rclone)

_CURL_TLS: Final = replace(
    CURL, arguments=lambda url, path: ["curl", "-q", "-sS", "-f", "-k", "-o", path, url]
)
_WGET_TLS: Final = replace(
    WGET, arguments=lambda url, path: [*WGET.arguments(url, path), "--no-check-certificate"]
)
_ARIA2C_TLS: Final = replace(
    ARIA2C, arguments=lambda url, path: [*ARIA2C.arguments(url, path), "--check-certificate=false"]
)
_LFTP_TLS: Final = replace(
    LFTP,
    arguments=lambda url, path: [
        *("lftp", "--norc", "-c"),
        f"set ssl:verify-certificate no; pget -n {_STREAMS} {url} -o {path}",
    ],
)
_RCLONE_TLS: Final = replace(
    RCLONE, arguments=lambda url, path: [*RCLONE.arguments(url, path), "--no-check-certificate"]
)
TLS: Final = (_CURL_TLS, _WGET_TLS, _ARIA2C_TLS, _LFTP_TLS, _RCLONE_TLS)
"""Those that can be told to take a test certificate; none checks it, which is in their favour."""

ALL: Final = (CURL, WGET, ARIA2C, AXEL, LFTP, RCLONE)
"""Every HTTP peer, as they come: one stream, then sixteen."""
