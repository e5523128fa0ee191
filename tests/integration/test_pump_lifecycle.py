"""The private pump as a whole: killed, started again, ended; a second one beside the first; loopback only."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import socket
import ssl
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pika
import pytest
import servers
from servers import MS, wait_until

from sarrapipe.errors import SupervisorError
from sarrapipe.pump.localpump import LocalPump, PumpInfo, PumpOptions
from sarrapipe.pump.processes import marked

pytestmark = [pytest.mark.broker, pytest.mark.nginx]

CONSUMER_TIMEOUT_S = 2.0


@pytest.fixture(scope="module")
def own(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LocalPump]:
    """A pump for these tests alone, with TLS and a short consumer timeout."""
    servers.pump_or_skip()
    pump = LocalPump(str(tmp_path_factory.mktemp("pump")))
    try:
        pump.up(PumpOptions(tls=True, consumer_timeout_s=CONSUMER_TIMEOUT_S, sources=("alice",)))
        yield pump
    finally:
        pump.down(graceful=False)


def connect(info: PumpInfo, user: str = "feeder") -> pika.BlockingConnection:
    return pika.BlockingConnection(pika.URLParameters(info.url(user)))


def open_files(pid: int) -> list[str]:
    """What the descriptors of a process point at; empty when it has ended or is another user's."""
    links = []
    with contextlib.suppress(OSError):
        for fd in os.listdir(f"/proc/{pid}/fd"):
            with contextlib.suppress(OSError):  # closed in between
                links.append(os.readlink(f"/proc/{pid}/fd/{fd}"))
    return links


def pids_of(directory: str) -> set[int]:
    """Every other process that has a file of the pump open or carries its mark."""
    others = [int(entry) for entry in os.listdir("/proc") if entry.isdigit() and int(entry) != os.getpid()]
    holders = {pid for pid in others if any(link.startswith(f"{directory}/") for link in open_files(pid))}
    return holders | set(marked(f"{directory}/broker/log")) | set(marked(f"{directory}/web"))


def listeners_of(pids: set[int]) -> set[tuple[str, int]]:
    """(address in hex as in /proc/net, port) on which these processes listen for TCP."""
    inodes = {link[8:-1] for pid in pids for link in open_files(pid) if link.startswith("socket:[")}
    listen_state, found = "0A", set()
    for table in ("/proc/net/tcp", "/proc/net/tcp6"):
        for line in Path(table).read_text().splitlines()[1:]:
            fields = line.split()
            if fields[3] == listen_state and fields[9] in inodes:
                address, port = fields[1].split(":")
                found.add((address, int(port, 16)))
    return found


def test_listens_on_loopback_only(own: LocalPump) -> None:
    """AMQP, amqps, management, HTTP, epmd and distribution: 127.0.0.1 and, for epmd, ::1."""
    own.up()
    listeners = listeners_of(pids_of(own.directory))
    ports = json.loads((Path(own.directory) / "pump.json").read_text())["ports"]
    assert {port for _, port in listeners} == set(ports.values())
    ipv4_loopback, ipv6_loopback = "0100007F", "00000000000000000000000001000000"
    assert {address for address, _ in listeners} <= {ipv4_loopback, ipv6_loopback}


def test_up_is_idempotent_and_refuses_other_settings(own: LocalPump) -> None:
    info = own.up()
    before = own.status()
    assert before.exit_code == 0
    assert own.up() == info
    assert own.status() == before
    with pytest.raises(SupervisorError, match=r"user bob, http port 1: 'sarrapipe pump down'"):
        own.up(PumpOptions(sources=("bob",), ports=(("http", 1),)))


@pytest.mark.parametrize("victims", [("rabbitmq",), ("nginx",), ("epmd",), ("rabbitmq", "nginx", "epmd")])
def test_up_again_after_kill_9(own: LocalPump, victims: tuple[str, ...]) -> None:
    info = own.up()
    with connect(info) as connection:
        channel = connection.channel()
        channel.confirm_delivery()
        channel.queue_declare("kept", durable=True)
        channel.queue_purge("kept")
        for _ in range(50):
            channel.basic_publish("", "kept", b"x", pika.BasicProperties(delivery_mode=2))
    running = own.status().running
    for name in victims:
        pid = running[name]
        assert pid is not None
        os.kill(pid, signal.SIGKILL)
    assert own.status().exit_code == (3 if len(victims) == len(running) else 1)
    assert own.up() == info
    after = own.status()
    assert after.exit_code == 0
    assert {name for name, pid in after.running.items() if pid != running[name]} == set(victims)
    with connect(info) as connection:
        assert connection.channel().queue_declare("kept", passive=True).method.message_count == 50


def test_passwords_that_got_lost_are_not_made_up(own: LocalPump) -> None:
    credentials = Path(own.up().config_home) / "credentials.conf"
    text = credentials.read_text()
    credentials.write_text("")
    try:
        for ask in (own.info, own.up):
            with pytest.raises(SupervisorError, match="no password for admin"):
                ask()
    finally:
        credentials.write_text(text)
    assert own.up() == own.info()


def test_a_second_pump_beside_the_first(own: LocalPump, pump: PumpInfo) -> None:
    info = own.up()
    ports = {info.amqp_port, info.amqps_port, info.management_port, info.http_port}
    assert not ports & {pump.amqp_port, pump.management_port, pump.http_port}
    with connect(info, "alice") as connection, connect(pump, "tsource") as other:
        assert connection.is_open
        assert other.is_open


def test_amqps_with_a_verified_certificate(own: LocalPump) -> None:
    """R117."""
    info = own.up()
    assert info.authority is not None
    assert info.amqps_port is not None
    context = ssl.create_default_context(cafile=info.authority)
    for host in ("localhost", "127.0.0.1"):
        parameters = pika.URLParameters(info.url("alice", tls=True))
        parameters.host = host
        parameters.ssl_options = pika.SSLOptions(context, host)
        with pika.BlockingConnection(parameters) as connection:
            assert connection.is_open
    with (
        socket.create_connection(("127.0.0.1", info.amqps_port)) as raw,
        pytest.raises(ssl.SSLCertVerificationError),
    ):
        ssl.create_default_context().wrap_socket(raw, server_hostname="localhost")


def test_consumer_timeout(own: LocalPump) -> None:
    """The broker closes the channel of a consumer that holds a message longer than the pump allows."""
    with connect(own.up()) as connection:
        channel = connection.channel()
        channel.queue_declare("slow", exclusive=True)
        channel.basic_publish("", "slow", b"x")
        channel.basic_consume("slow", lambda *_: None)
        began_s = time.monotonic()
        while channel.is_open and time.monotonic() - began_s < 10 * CONSUMER_TIMEOUT_S * MS:
            connection.process_data_events(time_limit=0.1)
        assert channel.is_closed
        assert time.monotonic() - began_s >= CONSUMER_TIMEOUT_S


def test_an_interrupted_up_leaves_nothing_unknown(tmp_path: Path) -> None:
    """`up` killed while it waits: `down` still finds what it started."""
    servers.pump_or_skip()
    directory = str(tmp_path / "pump")
    command = [sys.executable, "-m", "sarrapipe", "pump"]
    process = subprocess.Popen([*command, "up", "--dir", directory], stderr=subprocess.PIPE, text=True)
    assert process.stderr is not None
    with process.stderr:
        line = next(line for line in process.stderr if "waiting for RabbitMQ" in line)
        process.kill()
    process.wait()
    assert line
    pump = LocalPump(directory)
    assert pump.status().exit_code == 0  # started, though not all of it serves yet
    pump.down(graceful=False)
    assert not pids_of(directory)


def test_servers_that_cannot_start_say_why(tmp_path: Path) -> None:
    """A port taken by a stranger, a broken configuration: named, and nothing is left running."""
    servers.pump_or_skip()
    directory = str(tmp_path / "pump")
    with socket.socket() as stranger:
        stranger.bind(("127.0.0.1", 0))
        stranger.listen()
        port = stranger.getsockname()[1]
        with pytest.raises(SupervisorError, match=f"http port {port} is in use .* --port http=N"):
            LocalPump(directory).up(PumpOptions(ports=(("http", port),)))
    pump = LocalPump(directory)
    (tmp_path / "pump" / "web").mkdir(exist_ok=True)
    (tmp_path / "pump" / "web" / "nginx.conf").mkdir()
    with pytest.raises(SupervisorError, match=r"nginx\.conf: Is a directory"):
        pump.up()
    (tmp_path / "pump" / "web" / "nginx.conf").rmdir()
    (tmp_path / "pump" / "broker").mkdir(exist_ok=True)
    (tmp_path / "pump" / "broker" / "data").write_text("a file where a directory has to be")
    with pytest.raises(SupervisorError, match="broker/data: File exists"):
        pump.up()
    pump.down(graceful=False)
    assert not pids_of(directory)


def test_the_command_and_that_down_leaves_nothing(own: LocalPump) -> None:
    """Exit codes and JSON of `sarrapipe pump`; after `down` no process, no listener, the data kept."""

    def run(*arguments: str) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-m", "sarrapipe", "pump", *arguments, "--dir", own.directory, "--json"]
        return subprocess.run(command, capture_output=True, text=True, timeout=100 * MS, check=False)

    up = run("up")
    assert up.returncode == 0, up.stderr
    info = own.info()
    assert json.loads(up.stdout) == info.to_json()
    assert not any(account.password in up.stdout + up.stderr for account in info.users.values())
    status = run("status")
    assert status.returncode == 0
    assert json.loads(status.stdout)["running"] == dict(own.status().running)
    assert pids_of(own.directory)

    down = run("down")
    assert (down.returncode, down.stderr.split("\n")[:-1]) == (
        0,
        ["stopping nginx", "stopping rabbitmq", "stopping epmd"],
    )
    wait_until(lambda: not pids_of(own.directory), 2, "every process of the pump ends")
    for port in (info.amqp_port, info.amqps_port, info.management_port, info.http_port):
        with socket.socket() as probe:
            assert probe.connect_ex(("127.0.0.1", port)) != 0
    assert run("status").returncode == 3
    assert run("down").returncode == 0
    again = run("up", "--source", "carol")
    assert json.loads(again.stdout)["users"] == {**info.to_json()["users"], "carol": "source"}
    with connect(own.info(), "carol") as connection:
        assert connection.channel().queue_declare("q_carol.x").method.queue == "q_carol.x"
