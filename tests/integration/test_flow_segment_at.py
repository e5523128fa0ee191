"""`segmentAt`: a file that its source announced whole is carried by several movers (R143, R158)."""

from __future__ import annotations

import os

import pytest
from flowkit import Site, sha512, turn_all

from sarrapipe.shm.slots import Counter

pytestmark = pytest.mark.broker

DATA = os.urandom(4000)


@pytest.fixture
def site(tmp_path, vhost, docroot):
    with Site(tmp_path, vhost, docroot) as made:
        yield made


def mover(site, name):
    """A mover with a tree and a state of its own, at the queue it shares with others."""
    tree = site.docroot.path / name
    return site.start(
        site.config(
            "sarra",
            f"""queueName q_feeder.movers
            subtopic #
            reassemble off
            directory {tree}
            post_baseDir {tree}
            post_baseUrl {site.docroot.url}{name}/
            prefetch 1
            batch 1""",
            name,
            "xinput",
        )
    )


def test_two_movers_carry_one_file_that_was_posted_whole(site):
    splitting = site.run("flow", "post_exchange xinput\nsegmentAt 100", name="split")
    movers = [mover(site, "one"), mover(site, "two")]
    end = site.start(site.config("sarra", "post_exchange xend\nidentity sha512", "end", "xpublic"))
    with site.vhost.connect("admin") as connection:
        connection.channel().exchange_declare("xend", "topic", durable=True)
    tap = site.tap("xend")
    site.announce("d/big", DATA)
    site.announce("d/small", b"x" * 50)
    flows = [splitting, *movers, end]
    turn_all(flows, lambda: end.count(Counter.MESSAGES_PUBLISHED) == 2, "both files are announced")
    turn_all(flows, lambda: not any(flow.flow.in_hand for flow in flows), "all is settled")
    found = {message.rel_path: message for message in tap.take()}
    assert sorted(found) == ["d/big", "d/small"]
    assert found["d/big"]["identity"] == sha512(DATA)
    assert "blocks" not in found["d/big"]
    assert site.files()["d/big"] == DATA
    assert splitting.assembled.settlement.acknowledged == 2, "one message, answered once"
    shares = [flow.count(Counter.BYTES_RECEIVED) for flow in movers]
    assert sum(shares) == len(DATA) + 50
    assert all(share > len(DATA) / 10 for share in shares), shares


def test_a_whole_file_that_is_not_what_was_announced(site):
    """The identity of the whole goes with the blocks: the end point finds out."""
    splitting = site.run("flow", "post_exchange xinput\nsegmentAt 1000", name="split")
    end = site.start(site.config("sarra", "attempts 1", "end", "xinput"))
    tap = site.tap()
    site.announce("d/big", DATA, identity=sha512(b"another"))
    turn_all([splitting, end], lambda: end.count(Counter.ERRORS_IDENTITY), "it was found out")
    assert tap.take() == []
    assert "d/big" not in site.files()
