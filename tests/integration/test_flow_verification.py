"""What is compared before a file is announced, and what is announced of it (R104-R107)."""

from __future__ import annotations

import base64
import hashlib

import pytest
import xxhash
from flowkit import Site, sha512

from sarrapipe.shm.slots import Counter

pytestmark = pytest.mark.broker

SMALL = b"0123456789" * 50
LARGE = bytes(range(256)) * 4096 * 4
SEGMENTS = "segmentSize 1MiB\nattempts 1"
BOTH = pytest.mark.parametrize("data", [SMALL, LARGE], ids=["in one piece", "in segments"])


def digest(method: str, data: bytes) -> dict[str, str]:
    raw = xxhash.xxh3_128_digest(data) if method == "xxh3_128" else hashlib.new(method, data).digest()
    return {"method": method, "value": base64.b64encode(raw).decode()}


@pytest.fixture
def site(tmp_path, vhost, docroot):
    with Site(tmp_path, vhost, docroot) as made:
        yield made


def deliver(site, data, lines="", announced=None, **changes):
    """Put `data` on the server, announce `announced`, and return the flow and what it announced."""
    tap, flow = site.tap(), site.run(lines=f"{SEGMENTS}\n{lines}")
    site.put("f", data)
    site.announce("f", data if announced is None else announced, put=False, **changes)
    flow.until_settled(1)
    messages = tap.take()
    site.assert_clean(flow)
    return flow, messages[0] if messages else None


@BOTH
@pytest.mark.parametrize("method", ["sha512", "md5", "xxh3_128"])
def test_every_method_is_compared(site, data, method):
    flow, message = deliver(site, data, identity=digest(method, data))
    assert message["identity"] == digest(method, data)
    assert site.files()["f"] == data
    assert flow.count(Counter.FILES_VERIFIED) == 1
    assert flow.count(Counter.BYTES_VERIFIED) == len(data)


@BOTH
@pytest.mark.parametrize("method", ["sha512", "md5", "xxh3_128"])
def test_every_method_finds_wrong_bytes(site, data, method):
    # R105
    flow, message = deliver(site, data, identity=digest(method, data + b"x"))
    assert message is None
    assert site.files() == {}
    assert flow.count(Counter.ERRORS_IDENTITY) == 1
    assert flow.count(Counter.MESSAGES_REJECTED) == 1


@BOTH
def test_recompute_checksum_announces_what_is_true(site, data):
    # R106
    flow, message = deliver(site, data, "recompute_checksum on", identity=sha512(b"something else"))
    assert message["identity"] == sha512(data)
    assert message["size"] == len(data)
    assert site.files()["f"] == data
    assert flow.count(Counter.FILES_UNVERIFIED) == 1


@pytest.mark.parametrize("more", [b"", b"more"], ids=["shorter", "longer"])
@BOTH
def test_recompute_checksum_takes_another_size(site, data, more):
    served = data + more if more else data[:-10]
    _, message = deliver(site, served, "recompute_checksum on", announced=data)
    assert message["identity"] == sha512(served)
    assert message["size"] == len(served)
    assert site.files()["f"] == served


@BOTH
def test_cod_is_replaced_by_what_was_computed(site, data):
    # wire.md 1.3: after downloading, a pump replaces a cod identity by the one computed
    _, message = deliver(site, data, identity={"method": "cod", "value": "md5"})
    assert message["identity"] == digest("md5", data)
    assert site.files()["f"] == data


@BOTH
@pytest.mark.parametrize(
    "identity", [{"method": "arbitrary", "value": "v1 of mine"}, {"method": "random", "value": "0042"}, None]
)
def test_identities_that_say_nothing_of_the_data_are_forwarded(site, data, identity):
    flow, message = deliver(site, data, identity=identity)
    assert message.get("identity") == identity
    assert site.files()["f"] == data
    assert flow.count(Counter.FILES_UNVERIFIED) == 1
    assert flow.count(Counter.FILES_VERIFIED) == 0


@pytest.mark.parametrize("more", [b"", b"more"], ids=["shorter", "longer"])
@BOTH
def test_accept_size_wrong(site, data, more):
    served = data + more if more else data[:-10]
    _, message = deliver(site, served, "acceptSizeWrong on", announced=data, identity=sha512(served))
    assert message["size"] == len(served)
    assert site.files()["f"] == served


@BOTH
@pytest.mark.parametrize("validation", ["headers", "none"])
def test_validation_can_be_relaxed(site, data, validation):
    # R107
    flow, message = deliver(site, data, f"validation {validation}", identity=sha512(b"something else"))
    assert message["identity"] == sha512(b"something else")
    assert site.files()["f"] == data
    assert flow.count(Counter.FILES_UNVERIFIED) == 1


@BOTH
def test_validation_of_headers_is_of_the_size(site, data):
    flow, message = deliver(site, data[:-1], "validation headers", announced=data)
    assert message is None
    assert site.files() == {}
    assert flow.count(Counter.ERRORS_CHANGED) == 1


@BOTH
def test_without_validation_any_size_will_do(site, data):
    _, message = deliver(site, data[:-1], "validation none", announced=data)
    assert message["size"] == len(data) - 1
    assert site.files()["f"] == data[:-1]


def test_a_file_of_unknown_size(site):
    flow, message = deliver(site, SMALL, size=None)
    assert "size" not in message
    assert site.files()["f"] == SMALL
    assert flow.count(Counter.FILES_VERIFIED) == 1


def test_an_empty_file_needs_no_server(site):
    tap, flow = site.tap(), site.run()
    site.announce("empty", b"", put=False, baseUrl="http://127.0.0.1:1/")
    flow.until_settled(1)
    assert tap.one()["size"] == 0
    assert site.files() == {"empty": b""}
    site.assert_clean(flow)


def test_an_empty_file_is_compared_too(site):
    tap, flow = site.tap(), site.run(lines="attempts 1")
    site.announce("empty", b"", identity=sha512(b"x"))
    flow.until_settled(1)
    assert tap.take() == []
    assert site.files() == {}
    site.assert_clean(flow)


@pytest.mark.parametrize("encoding", ["utf-8", "base64"])
def test_data_that_comes_in_the_message(site, encoding):
    text = "grüße\n"
    data = text.encode()
    value = text if encoding == "utf-8" else base64.b64encode(data).decode()
    tap, flow = site.tap(), site.run()
    content = {"encoding": encoding, "value": value}
    site.announce("f", data, put=False, content=content, baseUrl="http://127.0.0.1:1/")
    flow.until_settled(1)
    assert site.files() == {"f": data}
    assert tap.one()["content"] == content
    site.assert_clean(flow)


def test_data_in_the_message_that_is_not_what_it_announces(site, caplog):
    tap, flow = site.tap(), site.run(lines="attempts 2")
    for name, value in (("shorter", "some"), ("longer", "some data and more"), ("other", "any DATA.")):
        site.announce(name, b"some data", put=False, content={"encoding": "utf-8", "value": value})
    flow.until_settled(3)
    assert tap.take() == []
    assert site.files() == {}
    assert flow.count(Counter.MESSAGES_REJECTED) == 3
    site.assert_clean(flow)
