"""The private pump: accounts and permissions as the broker enforces them, ranges as nginx serves them."""

from __future__ import annotations

import http.client
import os
from pathlib import Path

import pika
import pytest
from pika.exceptions import AMQPConnectionError, ChannelClosedByBroker
from servers import DocRoot, Vhost

from sarrapipe.pump.localpump import PumpInfo

pytestmark = pytest.mark.broker

ACCESS_REFUSED = 403


def refused(vhost: Vhost, user: str, action) -> bool:
    """Whether the broker refuses `action` on a channel of `user` with 403; other errors are raised."""
    with vhost.connect(user) as connection:
        channel = connection.channel()
        channel.confirm_delivery()
        try:
            action(channel)
        except ChannelClosedByBroker as error:
            if error.reply_code != ACCESS_REFUSED:
                raise
            return True
        return False


def declares(exchange: str):
    return lambda channel: channel.exchange_declare(exchange, "topic", durable=True)


def queues(name: str):
    return lambda channel: channel.queue_declare(name)


def publishes(exchange: str, key: str = "v03.a"):
    return lambda channel: channel.basic_publish(exchange, key, b"{}")


def subscribes(user: str, exchange: str):
    def action(channel):
        channel.queue_declare(f"q_{user}.test")
        channel.queue_bind(f"q_{user}.test", exchange, "#")

    return action


def test_a_source_owns_its_own_names_and_no_others(vhost: Vhost) -> None:
    """R109, R110, R113."""
    assert not refused(vhost, "tsource", declares("xs_tsource_extra_public"))
    assert not refused(vhost, "tsource", publishes("xs_tsource_extra_public"))
    assert not refused(vhost, "tsource", publishes("xs_tsource"))
    assert not refused(vhost, "tsource", queues("q_tsource.sarra.x"))
    for name in ("xs_tsourcex", "xs_tsub", "xpublic2", "xs_tsou"):
        assert refused(vhost, "tsource", declares(name)), name
    for name in ("xs_tsub", "xpublic", "xreport", "xinput", "xr_tsource", "xl_tsource"):
        assert refused(vhost, "tsource", publishes(name)), name
    for name in ("q_tsourcex", "q_tsub", "q_tsub.x", "other", ""):
        assert refused(vhost, "tsource", queues(name)), name


def test_who_reads_what(vhost: Vhost) -> None:
    """R109, R113, R129: everybody reads *public, nobody another's own exchange or queue."""
    with vhost.connect("tsource") as connection:
        connection.channel().exchange_declare("xs_tsource_mine_public", "topic", durable=True)
    for name in ("xpublic", "xs_tsource_mine_public", "xs_tsub", "xr_tsub", "xl_tsub"):
        assert not refused(vhost, "tsub", subscribes("tsub", name)), name
    for name in ("xs_tsource", "xr_tsource", "xl_tsource", "xreport", "xprivate", "xinput"):
        assert refused(vhost, "tsub", subscribes("tsub", name)), name
    with vhost.connect("tsource") as connection:
        connection.channel().queue_declare("q_tsource.test", durable=True)
    assert refused(vhost, "tsub", lambda channel: channel.basic_get("q_tsource.test"))


@pytest.mark.parametrize("user", ["tsub", "anonymous"])
def test_a_subscriber_reports_but_does_not_inject(vhost: Vhost, user: str) -> None:
    """R128."""
    assert refused(vhost, user, publishes(f"xs_{user}", "v03.a.b"))
    assert refused(vhost, user, publishes(f"xs_{user}", "v02.post.a"))
    assert refused(vhost, user, declares(f"xs_{user}_more"))
    assert not refused(vhost, user, publishes(f"xs_{user}", "v03.report.a.b"))
    assert not refused(vhost, user, publishes(f"xs_{user}", "v02.report.a.b"))
    assert not refused(vhost, user, publishes(f"xs_{user}", "v02.log.a.b"))


def test_exchanges_are_the_administrators(vhost: Vhost) -> None:
    """R111: users cannot delete what the administrator made; feeder and administrator can."""
    for user in ("tsource", "tsub", "anonymous"):
        assert refused(vhost, user, lambda channel: channel.exchange_delete("xpublic"))
    assert not refused(vhost, "feeder", publishes("xpublic"))
    assert not refused(vhost, "admin", lambda channel: channel.exchange_delete("xinput"))


def test_reports_reach_both_of_a_users_report_exchanges(vhost: Vhost) -> None:
    """R129: xl_<user> is fed from xr_<user>, so the older name still reads."""
    with vhost.connect("tsub") as connection, vhost.connect("feeder") as feeder:
        channel = connection.channel()
        channel.queue_declare("q_tsub.reports")
        channel.queue_bind("q_tsub.reports", "xl_tsub", "#")
        feeder.channel().basic_publish("xr_tsub", "v03.report.a", b"{}")
        method, _, body = next(channel.consume("q_tsub.reports", inactivity_timeout=5))
        assert method is not None
        assert body == b"{}"


def test_there_is_no_guest_and_no_empty_password(pump: PumpInfo) -> None:
    """Only the accounts of credentials.conf get in."""
    for user, password in (("guest", "guest"), ("anonymous", "anonymous"), ("admin", "")):
        parameters = pika.ConnectionParameters(
            "127.0.0.1", pump.amqp_port, credentials=pika.PlainCredentials(user, password)
        )
        with pytest.raises(AMQPConnectionError):
            pika.BlockingConnection(parameters)


def test_secrets_are_in_private_files_only(pump: PumpInfo) -> None:
    """R115, R118, R132, R133."""
    credentials = Path(pump.config_home) / "credentials.conf"
    assert credentials.stat().st_mode & 0o777 == 0o600
    passwords = [account.password for account in pump.users.values()]
    assert all(password in credentials.read_text() for password in passwords)
    admin = (Path(pump.config_home) / "admin.conf").read_text()
    assert f"admin amqp://admin@127.0.0.1:{pump.amqp_port}/" in admin
    assert f"feeder amqp://feeder@127.0.0.1:{pump.amqp_port}/" in admin
    assert {"declare source tsource", "declare subscriber anonymous"} <= set(admin.splitlines())
    lines = [Path(f"/proc/{pid}/cmdline").read_bytes() for pid in os.listdir("/proc") if pid.isdigit()]
    everything = b"\n".join(lines) + (Path(pump.directory) / "pump.json").read_bytes()
    assert not any(password.encode() in everything for password in passwords)
    assert not any(password in repr(pump) for password in passwords)


def request(pump: PumpInfo, path: str, **headers: str) -> tuple[http.client.HTTPResponse, bytes]:
    connection = http.client.HTTPConnection("127.0.0.1", pump.http_port, timeout=10)
    try:
        connection.request("GET", path, headers={name.replace("_", "-"): v for name, v in headers.items()})
        response = connection.getresponse()
        return response, response.read()
    finally:
        connection.close()


@pytest.mark.nginx
def test_byte_ranges_and_etags(pump: PumpInfo, docroot: DocRoot) -> None:
    data = bytes(range(256)) * 40
    (docroot.path / "a b.bin").write_bytes(data)
    path = docroot.url.removeprefix(pump.http_url.rstrip("/")) + "a%20b.bin"
    response, body = request(pump, path, Range="bytes=1000-1999")
    assert (response.status, body) == (206, data[1000:2000])
    assert response.headers["Content-Range"] == f"bytes 1000-1999/{len(data)}"
    etag = response.headers["ETag"]
    assert request(pump, path, Range="bytes=0-9", If_Match=etag)[0].status == 206
    (docroot.path / "a b.bin").write_bytes(data + b"x")
    assert request(pump, path, Range="bytes=0-9", If_Match=etag)[0].status == 412
    assert request(pump, path.replace("a%20b", "none"))[0].status == 404
