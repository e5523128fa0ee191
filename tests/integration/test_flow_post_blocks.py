"""Announcing large files in blocks over a real broker: order, dialects, push-back, changes."""

from __future__ import annotations

import base64
import hashlib
import os
import threading

import pytest
from broker_driver import CuttingProxy
from flowkit import SOURCE_EXCHANGE, Site, sha512

from sarrapipe.callbacks.hashpool import FileDigests
from sarrapipe.flow.posting import post_files

pytestmark = pytest.mark.broker

BLOCK = 100_000
OLD_NS = 1_700_000_000_000_000_000


@pytest.fixture
def site(tmp_path, vhost, docroot):
    with Site(tmp_path, vhost, docroot) as made:
        yield made


@pytest.fixture
def data():
    return os.urandom(1_050_000)


def put(site, name, data):
    path = site.put(name, data)
    os.utime(path, ns=(OLD_NS, OLD_NS))
    return path


def post(site, *paths, lines=""):
    """Announce paths below the document root; return the result, the messages and the tap."""
    tap = site.tap(SOURCE_EXCHANGE)
    named = "\n".join(f"path {site.docroot.path / path}" for path in paths)
    result = post_files(site.config("post", f"blockSize {BLOCK}\n{lines}\n{named}"), clock=site.clock)
    return result, tap.take(), tap


def assert_covers(messages, data):
    """Every block once, each with the digest of its bytes."""
    blocks = {message.blocks.number: message for message in messages}
    assert len(blocks) == len(messages) == -(-len(data) // BLOCK)
    for number, message in blocks.items():
        block = data[number * BLOCK : (number + 1) * BLOCK]
        assert message["identity"] == sha512(block)
        assert message.size == len(block)
        assert message.blocks.file_size == len(data)


@pytest.mark.parametrize("lines", ["", "randomize on", "post_format v02\nidentity md5"])
def test_what_is_posted_in_blocks_arrives_whole(site, data, lines):
    put(site, "d/big", data)
    flow = site.run("sarra", "topicPrefix v02.post\nsubtopic #" if "v02" in lines else "")
    tap = site.tap()
    result, _, _ = post(site, "d/big", lines=lines)
    flow.until_settled(result.posted)
    assert (site.dest / "d/big").read_bytes() == data
    message = tap.one()
    assert "blocks" not in message
    assert message.size == len(data)


@pytest.mark.parametrize("lines", ["", "blocksManifest full", "randomize on"])
def test_a_large_file_is_announced_in_blocks(site, data, lines):
    put(site, "d/big", data)
    result, messages, tap = post(site, "d/big", lines=lines)
    assert (result.posted, result.errors) == (11, [])
    assert_covers(messages, data)
    assert len({message.blocks.id for message in messages}) == 1
    assert set(tap.keys) == {"v03.d"}
    wanted = 11 if "full" in lines else 1
    assert all(len(message.blocks.manifest) == wanted for message in messages)


def test_v02_says_it_in_parts(site, data):
    # wire.md 2.1: the remainder is the same in every message
    put(site, "big", data)
    _, messages, tap = post(site, "big", lines="post_format v02\nidentity md5")
    assert len(messages) == 11
    by_parts = {headers["parts"]: headers["sum"] for _, headers, _ in tap.raw}
    for number in range(11):
        digest = hashlib.md5(data[number * BLOCK : (number + 1) * BLOCK]).hexdigest()
        assert by_parts[f"i,{BLOCK},11,50000,{number}"] == f"d,{digest}"


def test_an_exact_multiple_has_no_remainder_in_v02(site):
    put(site, "big", b"x" * (3 * BLOCK))
    _, _, tap = post(site, "big", lines="post_format v02")
    assert sorted(headers["parts"] for _, headers, _ in tap.raw) == [
        f"i,{BLOCK},3,0,{number}" for number in range(3)
    ]


def test_spellings_of_v2(site, data):
    put(site, "big", data)
    _, messages, _ = post(site, "big", lines="parts i,100k")
    assert_covers(messages, data)


def test_the_first_block_is_announced_while_the_last_is_still_to_be_hashed(site, data, monkeypatch):
    put(site, "big", data)
    tap = site.tap(SOURCE_EXCHANGE)
    seen = threading.Event()
    check = FileDigests.check
    lock, count = threading.Lock(), [0]

    def hold_the_last(file, descriptor):
        with lock:
            count[0] += 1
            last = count[0] == 11
        if last:
            assert seen.wait(20)
        check(file, descriptor)

    monkeypatch.setattr(FileDigests, "check", hold_the_last)
    running = site.run("post", f"blockSize {BLOCK}\npath {site.docroot.path}/big")
    messages = []

    def ten_are_there():
        messages.extend(tap.take())
        return len(messages) == 10

    running.until(ten_are_there, "ten blocks are announced")
    assert not running.flow.finished
    seen.set()
    running.until(lambda: running.flow.finished, "all is posted")
    assert_covers(messages + tap.take(), data)


def test_a_broker_that_stops_confirming_stops_the_hashing(site, monkeypatch):
    monkeypatch.setattr("sarrapipe.callbacks.hashpool._READY_LIMIT", 4)
    path = put(site, "big", os.urandom(200_000))
    config = f"blockSize 1000\npublishWindow 5\npath {path}"
    tap = site.tap(SOURCE_EXCHANGE)
    hashed = []
    check = FileDigests.check

    def counting(file, descriptor):
        hashed.append(1)
        check(file, descriptor)

    monkeypatch.setattr(FileDigests, "check", counting)
    running = site.run("post", config)
    outlet = running.flow._parts.outlet
    real = outlet._publisher.outcomes
    monkeypatch.setattr(outlet._publisher, "outcomes", list)  # no confirm is ever seen
    for _ in range(30):
        running.advance(0.01, turns=1)
    # At most the window on its way, as much behind it, and what the pool holds ready.
    assert len(hashed) <= 5 + 5 + 4 + 2
    monkeypatch.setattr(outlet._publisher, "outcomes", real)
    running.until(lambda: running.flow.finished, "all is posted")
    assert len(tap.take()) == 200
    assert len(hashed) == 200


def test_connections_cut_while_posting_lose_no_block(site):
    data = os.urandom(300_000)
    path = put(site, "big", data)
    pump = site.vhost.pump
    tap = site.tap(SOURCE_EXCHANGE)
    with CuttingProxy(pump.amqp_port) as proxy:
        text = (site.directory / "config/credentials.conf").read_text()
        site.credentials(text + text.replace(f":{pump.amqp_port}/", f":{proxy.port}/"))
        url = site.vhost.url("tsource", password=False).replace(f":{pump.amqp_port}/", f":{proxy.port}/")
        lines = f"post_broker {url}\npublishWindow 20\nblockSize 1000\npath {path}"
        proxy.cut(lambda _: 0)
        result = post_files(site.config("post", lines), clock=site.clock)
    assert result.posted == 300
    assert {message.blocks.number for message in tap.take()} == set(range(300))


def test_a_file_replaced_meanwhile_is_announced_anew(site, data, monkeypatch):
    path = put(site, "big", data)
    new = os.urandom(900_001)
    check = FileDigests.check
    lock, count = threading.Lock(), [0]

    def replace_at_the_third(file, descriptor):
        with lock:
            count[0] += 1
            if count[0] == 3:
                (site.directory / "new").write_bytes(new)
                os.rename(site.directory / "new", path)
        check(file, descriptor)

    monkeypatch.setattr(FileDigests, "check", replace_at_the_third)
    result, messages, _ = post(site, "big")
    assert result.errors == []
    current = messages[-1].blocks.id
    assert_covers([message for message in messages if message.blocks.id == current], new)
    for message in messages:
        if message.blocks.id != current:
            offset = message.blocks.offset
            digest = hashlib.sha512(data[offset : offset + BLOCK]).digest()
            assert message.identity.value == base64.b64encode(digest).decode()
            assert message.pub_time_ns < messages[-1].pub_time_ns
