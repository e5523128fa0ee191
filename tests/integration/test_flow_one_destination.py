"""Two flows that put the same files into one directory: each whole, each announced by both, nothing mixed."""

from __future__ import annotations

import os
import random

import pytest
from flowkit import Running, Site

from sarrapipe.shm.slots import Counter

pytestmark = pytest.mark.broker

LINES = "segmentSize 1MiB\nstreams 2\nstreamsStart 2"


@pytest.fixture
def site(tmp_path, vhost, docroot):
    with Site(tmp_path, vhost, docroot) as made:
        yield made


def together(flows: list[Running], count: int) -> None:
    """Turn both loops until each has answered its messages."""
    one, other = flows

    def done() -> bool:
        other.flow.turn()
        return all(flow.assembled.settlement.answered >= count for flow in flows)

    one.until(done, "both are through", 60)


@pytest.mark.parametrize("inflight", [".tmp", "."], ids=["suffix", "prefix"])
def test_files_of_both_are_whole(site, inflight):
    flows = [site.run(lines=f"{LINES}\ninflight {inflight}", name=name) for name in ("one", "two")]
    chance = random.Random(4)
    files = {f"d/large{n}": chance.randbytes(1024) * 1024 * 5 for n in range(2)}
    files |= {f"d/small{n}": chance.randbytes(100 + n) for n in range(20)}
    tap = site.tap()
    for name, data in files.items():
        site.announce(name, data)
    together(flows, len(files))
    there = {name: data for name, data in site.files().items() if data is not None}
    assert there == files
    assert sorted(tap.paths()) == sorted(2 * list(files))
    for flow in flows:
        assert flow.count(Counter.FILES_VERIFIED) == len(files)
        site.assert_clean(flow)


def test_the_newer_version_stays_whichever_flow_is_slower(site):
    """One is an hour behind: it must not put the old version over the new one of the other."""
    one, two = (site.run(lines=LINES, name=name, wait=True) for name in ("one", "two"))
    old, new = os.urandom(3000), os.urandom(3000)
    site.announce("f", old, mtime="20240102T030405")
    two.until_settled(1)
    site.announce("f", new, mtime="20240102T030406")
    two.until_settled(2)
    assert site.files() == {"f": new}
    one.until_settled(2)
    assert site.files() == {"f": new}
    for flow in (one, two):
        site.assert_clean(flow)
