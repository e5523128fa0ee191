"""The real sr3 posts blocks, sarrapipe puts them together: in order, at random, equal blocks, v03 and v02.

sr3 itself loses or corrupts files in several of these cases (wire.md 2.6).
"""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from servers import DocRoot, Vhost
from sr3_peer import Interop

pytestmark = [pytest.mark.broker, pytest.mark.nginx, pytest.mark.sr3]

BLOCK_BYTES = 100_000


def make_large_files(root: Path) -> None:
    """Content that repeats nowhere, a run of equal blocks, and a file of whole blocks."""
    (root / "d").mkdir()
    for name, data in {
        "d/random": os.urandom(950_001),
        "d/zeros": bytes(500_000),
        "whole-blocks": os.urandom(300_000),
        "small": b"one piece",
    }.items():
        (root / name).write_bytes(data)
        os.utime(root / name, ns=(10**18, 1_600_000_000 * 10**9 + len(data)))


def interop(
    vhost: Vhost, docroot: DocRoot, sr3_home: Path, home: Path, message_format: str, *lines: str
) -> Interop:
    posting = (f"blockSize {BLOCK_BYTES}", "block_manifest_delete on", *lines)
    return Interop(vhost, docroot, sr3_home, home, message_format, "sha512", posting)


@pytest.mark.parametrize("order", ["", "randomize on"], ids=["in order", "at random"])
@pytest.mark.parametrize("message_format", ["v03", "v02"])
def test_blocks_that_sr3_posts_end_byte_exact(
    vhost: Vhost, docroot: DocRoot, sr3_home: Path, tmp_path: Path, message_format: str, order: str
) -> None:
    place = interop(vhost, docroot, sr3_home, tmp_path, message_format, order)
    make_large_files(place.wanted)
    with place.sarrapipe_runs(place.direct):
        place.sr3_posts()
        place.wait_equal()


def test_through_a_pump_that_announces_whole_files(
    vhost: Vhost, docroot: DocRoot, sr3_home: Path, tmp_path: Path
) -> None:
    """What comes in blocks from sr3 reaches a subscriber of sr3 as whole files."""
    place = interop(vhost, docroot, sr3_home, tmp_path, "v03")
    make_large_files(place.wanted)
    pump, subscriber = place.through_pump
    with place.sr3_runs(subscriber), place.sarrapipe_runs(pump):
        place.sr3_posts()
        place.wait_equal()
