"""Messages that make no sense or mean harm: refused, told, counted, and nothing is left of them."""

from __future__ import annotations

import json
import shutil

import pytest
import servers
from flowkit import Site

from sarrapipe.shm.slots import Counter

pytestmark = pytest.mark.broker

DATA = b"some data"


@pytest.fixture(scope="module")
def site(pump, tmp_path_factory):
    vhost, docroot = servers.make_vhost(pump), servers.make_docroot(pump)
    with Site(tmp_path_factory.mktemp("site"), vhost, docroot) as made:
        made.put("f", DATA)
        yield made
    servers.drop_vhost(vhost)
    shutil.rmtree(docroot.path)


@pytest.fixture(scope="module")
def flow(site):
    running = site.run("sarra", "retry_ttl 1d")
    yield running
    # After all of them the flow still does its work, and nothing is left of what it refused.
    tap = site.tap()
    site.announce("after/all", DATA)
    running.until_settled(running.assembled.settlement.answered + 1)
    assert tap.paths() == ["after/all"]
    site.assert_clean(running)
    assert site.files() == {"after": None, "after/all": DATA}


def check_refused(flow, site, caplog, publish, counter, *texts):
    """Publish one message; it is refused, counted, and told of in these words."""
    tap = site.tap()
    before, settled = flow.count(counter), flow.assembled.settlement.answered
    publish()
    flow.until_settled(settled + 1)
    assert flow.count(counter) == before + 1
    assert tap.take() == []
    assert flow.kept() == []
    for text in texts:
        assert text in caplog.text, caplog.text


VALID = {"pubTime": "20240101T000000", "baseUrl": "http://127.0.0.1/", "relPath": "f"}
V02 = "20240101000000.0 http://127.0.0.1/ f"


@pytest.mark.parametrize(
    ("body", "text"),
    [
        (b"", "no JSON object"),
        (b"not a message", "pubTime"),
        (b'{"pubTime": "20240101T0', "JSON"),
        (b'{"pubTime": "20240101T000000", "relPath": "\xff"}', "UTF-8"),
        (b"\xff\xfe\x00", "no JSON object"),
        (b"[1, 2, 3]", "pubTime"),
        (b"{}", "pubTime: missing"),
        (b'{"a":' * 2000 + b"1" + b"}" * 2000, ""),
    ],
)
def test_bodies_that_are_no_message(flow, site, caplog, body, text):
    check_refused(flow, site, caplog, lambda: site.publish(body), Counter.MESSAGES_MALFORMED, text, "dropped")


@pytest.mark.parametrize("field", ["pubTime", "baseUrl", "relPath"])
def test_missing_fields(flow, site, caplog, field):
    fields = {name: value for name, value in VALID.items() if name != field}
    check_refused(
        flow, site, caplog, lambda: site.publish(fields), Counter.MESSAGES_MALFORMED, f"{field}: missing"
    )


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("pubTime", "yesterday"),
        ("pubTime", 20240101),
        ("mtime", "20241301T000000"),
        ("mode", "rw-r--r--"),
        ("size", -1),
        ("size", "many"),
        ("size", 1.5),
        ("size", 2**63),
        ("size", 10**30),
        ("identity", {"method": "rot13", "value": "abc"}),  # R104
        ("identity", {"method": "sha512", "value": "!!!"}),
        ("identity", {"method": "md5", "value": "YWJj"}),
        ("identity", {"method": "cod", "value": "rot13"}),
        ("identity", 7),
        ("fileOp", "remove"),
        ("fileOp", {"link": 7}),
        ("content", {"encoding": "rot13", "value": "x"}),
        ("relPath", ["a"]),
        ("relPath", ""),
        ("baseUrl", "no url"),
        ("source", {"a": 1}),
    ],
)
def test_malformed_fields(flow, site, caplog, field, value):
    message = json.dumps({**VALID, field: value}).encode()
    check_refused(flow, site, caplog, lambda: site.publish(message), Counter.MESSAGES_MALFORMED, field)


@pytest.mark.parametrize(
    "headers",
    [{"sum": "q,abc"}, {"sum": "d,xyz", "parts": "1,5,1,0,0"}, {"sum": "0,1", "parts": "1,many"}],
)
def test_malformed_headers_of_v02(flow, site, caplog, headers):
    check_refused(
        flow,
        site,
        caplog,
        lambda: site.publish(V02.encode(), headers=headers, content_type="text/plain"),
        Counter.MESSAGES_MALFORMED,
    )


UNSAFE = [
    {"relPath": "../f"},
    {"relPath": "a/../../f"},
    {"relPath": "a/./f"},
    {"relPath": "a//f"},
    {"relPath": "a/"},
    {"relPath": "a\0f"},
    {"relPath": "a\nf"},
    {"relPath": "a\x7ff"},
    {"relPath": "%2e%2e/f"},
    {"relPath": "a" * 256},
    {"relPath": "a/" * 2100 + "f"},
    {"rename": "../f"},
    {"rename": "a/../../f"},
    {"rename": "a\0f"},
    {"rename": "a\nf"},
    {"retrievePath": "../f"},
    {"retrievePath": "a/%2e%2e/f"},
    {"retrievePath": "a\0f"},
    {"retrievePath": "a\nf"},
    {"fileOp": {"link": "/etc/passwd"}},
    {"fileOp": {"link": "../f"}},
    {"fileOp": {"link": "a/../../f"}},
    {"fileOp": {"link": "a\0"}},
    {"fileOp": {"link": "a\n"}},
    {"fileOp": {"hlink": "../f"}},
    {"fileOp": {"hlink": "/etc/passwd"}},
    {"fileOp": {"rename": "../f"}},
    {"fileOp": {"rename": "a\0f"}},
    {"fileOp": {"rename": "/a/../../f"}},
    {"source": "a/b"},
]


@pytest.mark.parametrize("changes", UNSAFE, ids=lambda changes: json.dumps(changes)[:40])
def test_paths_that_lead_elsewhere(flow, site, caplog, changes):
    # R82
    fields = site.fields("f", DATA, **changes)
    name = next(iter(changes))
    check_refused(
        flow, site, caplog, lambda: site.publish(fields), Counter.MESSAGES_REJECTED, f"{name}", "422"
    )


@pytest.mark.parametrize(
    "url",
    ["ftp://127.0.0.1/", "javascript:alert(1)", "gopher://h/", "dict://h/", "HTTPX://h/"],
)
def test_base_urls_of_refused_schemes(flow, site, caplog, url):
    fields = site.fields("f", DATA, baseUrl=url)
    check_refused(
        flow, site, caplog, lambda: site.publish(fields), Counter.MESSAGES_REJECTED, "scheme", "417"
    )


def test_file_urls_without_a_directory_they_may_name(flow, site, caplog):
    fields = site.fields("passwd", None, baseUrl="file:///etc/")
    check_refused(
        flow, site, caplog, lambda: site.publish(fields), Counter.MESSAGES_REJECTED, "baseDir", "422"
    )


@pytest.mark.parametrize("old", ["../f", "a/../../f", "a\0f", "a\nf"])
def test_old_names_of_v02_that_lead_elsewhere(flow, site, caplog, old):
    # R82
    headers = {"sum": "0,0", "oldname": old, "parts": "1,4,1,0,0"}
    body = f"20240101000000.0 {site.docroot.url} new".encode()
    check_refused(
        flow,
        site,
        caplog,
        lambda: site.publish(body, headers=headers, content_type="text/plain"),
        Counter.MESSAGES_REJECTED,
        "422",
    )


def test_removal_of_what_was_never_here_is_passed_on(flow, site):
    tap = site.tap()
    before = flow.assembled.settlement.answered
    site.event("never/here", remove="")
    site.event("never/there", remove="", directory="")
    flow.until_settled(before + 2)
    assert tap.paths() == ["never/here", "never/there"]


def test_rename_of_a_name_without_data_or_target(flow, site, caplog):
    fields = site.fields("new", fileOp={"rename": "unknown"})
    tap = site.tap()
    before = flow.assembled.settlement.answered
    site.publish(fields)
    flow.until_settled(before + 1)
    assert "old name is not here" in caplog.text
    (removal,) = tap.take()  # the next hop may have the old name
    assert (removal.rel_path, removal.file_op.remove) == ("unknown", True)
