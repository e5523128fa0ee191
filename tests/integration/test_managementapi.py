"""The management API: what it answers, and that every failure names what was asked."""

from __future__ import annotations

import pytest
from servers import Vhost

from sarrapipe.errors import BrokerError
from sarrapipe.pump.localpump import PumpInfo
from sarrapipe.pump.managementapi import ManagementApi, segment
from sarrapipe.pump.ports import PortReservation

pytestmark = pytest.mark.broker


def test_put_get_delete(vhost: Vhost) -> None:
    path = f"/api/queues/{vhost.quoted}/{segment('q_a/b %')}"
    vhost.api.put(path, {"durable": True})
    assert vhost.queues() == ["q_a/b %"]
    vhost.api.delete(path)
    assert vhost.api.get(f"/api/queues/{vhost.quoted}") == []


def test_failures_name_the_request_and_the_reason(vhost: Vhost, pump: PumpInfo) -> None:
    with pytest.raises(BrokerError, match=r"DELETE http://127.*/api/queues/.*/none: 404"):
        vhost.api.delete(f"/api/queues/{vhost.quoted}/none")
    stranger = ManagementApi("127.0.0.1", pump.management_port, "admin", "wrong")
    with pytest.raises(BrokerError, match="401") as caught:
        stranger.get("/api/overview")
    assert "wrong" not in str(caught.value)


def test_nobody_there() -> None:
    reservation = PortReservation()
    try:
        with pytest.raises(BrokerError, match="Connection refused"):
            ManagementApi("127.0.0.1", reservation.take(), "a", "b").get("/api/overview")
    finally:
        reservation.release()
