"""Files announced in blocks whose owner goes away: another instance that had a hand in them goes on."""

from __future__ import annotations

import os
from functools import partial

import pytest
from blockkit import Posted
from flowkit import Site, leftovers, sha512
from killkit import segments_written
from rangeservers import Ranges
from servers import wait_until
from test_flow_siblings import Sibling

pytestmark = pytest.mark.broker

DATA = os.urandom(3000)
LINES = "identity sha512"


@pytest.fixture
def site(tmp_path, vhost, docroot):
    with Site(tmp_path, vhost, docroot) as made:
        yield made


class Unhurried(Ranges):
    """Keeps the first answer back until it is told to go on."""

    def misbehave(self, handler, headers):
        self.ending.wait()
        handler.close_connection = True


def test_a_helper_that_becomes_the_owner_fetches_what_it_had_claimed(site):
    """It is alive, so a claim that it forgot would be nobody's: the file would wait for good."""
    tap = site.tap()
    config = site.config("sarra", LINES + "\nprefetch 1")
    os.makedirs(config.state_dir)
    with Unhurried(DATA, bad={1000: 1}) as server:
        posted = Posted(site, "d/big", DATA, 1000, put=False)
        with Sibling(site, "consume"):
            queue = config.subscriptions[0].queue_name
            wait_until(lambda: queue in site.vhost.queues() and site.vhost.bindings(queue), 20, "bound")
            site.publish(posted.message(0, baseUrl=server.url))
            written = partial(segments_written, config.state_dir)
            wait_until(lambda: written() == {f"{site.dest}/d/big": {0}}, 20, "a block is written")
            helper = site.run(lines=LINES + "\nprefetch 10")
            site.publish(posted.message(1, baseUrl=server.url))
            helper.until(lambda: server.asked[1000], "the helper fetches a block")
        helper.assembled.housekeeping.deaths_reported()
        site.publish(posted.message(2, baseUrl=server.url))
        helper.until_settled(3)
        assert server.asked == {0: 1, 1000: 2, 2000: 1}
    assert tap.one()["identity"] == sha512(DATA)
    assert site.files() == {"d": None, "d/big": DATA}
    helper.close()
    assert leftovers(helper.config) == {}
