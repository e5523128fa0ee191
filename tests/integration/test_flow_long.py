"""A transfer that takes longer than the broker waits for an acknowledgement (issue 2, point 4).

With RabbitMQ's smallest sensible limit, a minute, in real time: what is long in hand is kept and acknowledged
before the broker ends the consumer. `test_broker_node` shows with a limit of seconds what happens otherwise.
"""

from __future__ import annotations

import pytest
import servers
from flowkit import Site
from servers import MS, PumpGuard
from standins import SlowServer

from sarrapipe.pump.localpump import PumpOptions
from sarrapipe.shm.slots import Counter

CONSUMER_TIMEOUT_S = 60.0
TRANSFER_S = 130.0
"""The broker looks once in a while: twice the limit is longer than it tolerates for certain."""

pytestmark = [
    pytest.mark.broker,
    pytest.mark.slow,
    pytest.mark.timeout(2 * TRANSFER_S + 120 * MS),
]


@pytest.fixture(scope="module")
def node():
    servers.pump_or_skip()
    guard = PumpGuard(PumpOptions(consumer_timeout_s=CONSUMER_TIMEOUT_S))
    try:
        yield guard.start()
    finally:
        guard.stop()


def test_a_transfer_longer_than_consumer_timeout(node, tmp_path):
    vhost, docroot = servers.make_vhost(node), servers.make_docroot(node)
    body = bytes(range(130))
    with Site(tmp_path, vhost, docroot) as site, SlowServer(body, 1, TRANSFER_S / len(body)) as server:
        tap, flow = site.tap(), site.run()
        site.announce("long", body, put=False, baseUrl=server.url)
        flow.until_counted(Counter.FILES_OK, 1, timeout_s=1.5 * TRANSFER_S)
        flow.until(lambda: not flow.kept(), "settled")
        # It was fetched once, in one life of the connection, and is announced once.
        assert len(server.requests) == 1
        assert flow.count(Counter.BROKER_CONNECTS) == 1
        assert flow.count(Counter.ERRORS_BROKER) == 0
        assert tap.one().rel_path == "long"
        assert site.files() == {"long": body}
        site.announce("next", b"the same consumer takes this")
        flow.until_counted(Counter.FILES_OK, 2)
        site.assert_clean(flow)
