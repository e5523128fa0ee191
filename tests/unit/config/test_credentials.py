"""credentials.conf: the seeds' example, options, lookups, secrets that stay secret (R22, R115, R133)."""

from __future__ import annotations

import logging
import os
import stat

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sarrapipe.config.credentials import parse_credentials
from sarrapipe.config.load import load_credentials
from sarrapipe.config.problems import ConfigErrors
from sarrapipe.config.urls import BrokerUrl

SEED = """\
amqps://hbic:hbicpw@blacklab/
amqps://feeder:feederpw@blacklab/
amqps://goldenlab:puppypw@blacklab/
amqps://anonymous:anonymous@blacklab/
"""


def read(text):
    credentials, errors = parse_credentials(text, "credentials.conf", {"KEYS": "/keys"}, "/home/u")
    assert errors == ()
    return credentials


def error_of(text):
    _, (error,) = parse_credentials(text, "credentials.conf", {}, "/home/u")
    return error


def test_the_example_of_the_seeds_reads_as_it_stands():
    credentials = read(SEED)  # R133
    assert len(credentials) == 4
    assert credentials.complete(BrokerUrl.parse("amqps://feeder@blacklab/")).password == "feederpw"
    assert credentials.complete(BrokerUrl.parse("amqps://BLACKLAB")).password == "anonymous"


@pytest.mark.parametrize(
    ("line", "url", "expected"),
    [
        ("sftp://a@h/ ssh_keyfile=~/.ssh/id", "sftp://a@h/x",
         {"ssh_keyfile": "/home/u/.ssh/id", "password": None}),
        ("sftp://a@h/ ssh_keyfile=$KEYS/id", "sftp://a@h/x", {"ssh_keyfile": "/keys/id"}),
        ("sftp://a@h/ ssh_keyfile=${KEYS}/id", "sftp://h/x", {"ssh_keyfile": "/keys/id"}),
        ("https://h/p bearer_token=abc", "https://h/p/q", {"bearer_token": "abc"}),
        ("https://h/ bt=abc", "https://h/", {"bearer_token": "abc"}),
        ("ftp://a:b@h/ passive, binary", "ftp://a@h/", {"passive": True, "binary": True}),
        ("ftp://a:b@h/ active,ascii", "ftp://a@h/", {"passive": False, "binary": False}),
        ("ftp://a:b@h/  passive = False, binary = True", "ftp://a@h/", {"passive": False, "binary": True}),
        ("ftp://a:b@h/ tls prot_p=on", "ftp://a@h/", {"tls": True, "prot_p": True}),
        ("ftps://a:b@h/ implicit_ftps", "ftps://a@h/", {"implicit_ftps": True, "tls": False}),
        ("amqps://a@h/ login_method=EXTERNAL", "amqps://a@h/",
         {"login_method": "EXTERNAL", "password": None}),
        ("http://a:p%2Fw%40@h/", "http://a@h/", {"password": "p/w@"}),
        ("s3://h/ s3_endpoint=https://e s3_session_token=t", "s3://h/b",
         {"extra": {"s3_endpoint": "https://e", "s3_session_token": "t"}}),
        ("   # only a comment\nhttp://a:b@h/", "http://h/", {"user": "a"}),
    ],
)  # fmt: skip
def test_options(line, url, expected):
    found = read(line).lookup(url)
    assert {name: getattr(found, name) for name in expected} == expected


@pytest.mark.parametrize(
    ("url", "password"),
    [
        ("https://h/", "root"),
        ("https://h/private/x", "private"),
        ("https://h/privately", "root"),
        ("https://h:443/other", "root"),
        ("https://h:8443/other", "port"),
        ("https://carol@h/private/x", "carol"),
        ("https://dave@h/", None),
        ("http://h/", None),
        ("https://elsewhere/", None),
    ],
)
def test_lookup_by_scheme_host_port_user_and_path(url, password):
    credentials = read("""
        https://a:root@h/
        https://a:private@h/private/
        https://a:port@h:8443/
        https://carol:carol@h/
    """)
    found = credentials.lookup(url)
    assert (found.password if found else None) == password


def test_brokers_are_looked_up_by_vhost():
    credentials = read("amqp://a:one@h/\namqp://a:two@h/v%2Fw\n")
    assert credentials.complete(BrokerUrl.parse("amqp://a@h/v%2Fw")).password == "two"
    assert credentials.complete(BrokerUrl.parse("amqp://a@h/")).password == "one"
    assert credentials.complete(BrokerUrl.parse("amqp://a@h/other")).password == "one"
    only_vhost = read("amqp://a:two@h/v\n")
    with pytest.raises(ValueError, match="no password for amqp://a@h/"):
        only_vhost.complete(BrokerUrl.parse("amqp://a@h/"))


def test_another_users_password_is_not_taken():
    with pytest.raises(ValueError, match=r"no password for amqp://al@h/.*credentials\.conf"):
        read("amqp://alice:pw@h/").complete(BrokerUrl.parse("amqp://al@h/"))


def test_a_certificate_needs_no_password():
    url = read("amqps://a@h/ login_method=EXTERNAL").complete(BrokerUrl.parse("amqps://a@h/"))
    assert url.login_method == "EXTERNAL"
    with pytest.raises(ValueError, match="without a password"):
        read("amqps://a@h/").complete(BrokerUrl.parse("amqps://a@h/"))


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("ftp://a:hush@h/ ssl", "tls=on"),  # a trap: ssl means no TLS there (sr3-surface.md 4)
        ("ftp://a:hush@h/ ssl=True", "tls=on"),
        ("ftp://a:hush@h/ pasive", "no such credential option 'pasive'"),
        ("ftp://a:hush@h/ passive=maybe", "on or off"),
        ("sftp://a:hush@h/ ssh_keyfile=", "needs a value"),
        ("just some words", "URL"),
        ("amqp://a:hush@h:0/", "port 0"),
    ],
)
def test_errors_name_the_line_and_tell_no_password(line, said):
    error = error_of(f"\n\n{line}")
    assert (error.file, error.line) == ("credentials.conf", 3)
    assert said in str(error)
    assert "hush" not in str(error)


def test_secrets_are_in_no_text():
    credentials = read("amqp://a:hush@h/\nhttps://h/ bearer_token=hush s3_session_token=hush")
    assert "hush" not in repr(credentials) + str(credentials) + "".join(map(repr, credentials.entries))


def test_a_file_that_others_can_read_is_repaired_with_a_warning(conf, caplog):
    path = conf.write("credentials.conf", SEED)
    path.chmod(0o644)
    with caplog.at_level(logging.WARNING):
        assert len(load_credentials(conf.home, conf.environment)) == 4
    assert stat.S_IMODE(path.stat().st_mode) == 0o600  # R115
    assert "mode 644" in caplog.text
    caplog.clear()
    load_credentials(conf.home, conf.environment)
    assert not caplog.text


def test_no_file_is_no_error(conf):
    os.unlink(conf.home.credentials_file)
    assert len(load_credentials(conf.home, conf.environment)) == 0


def test_all_wrong_lines_are_told(conf):
    conf.write("credentials.conf", "http://ok/ bt=x\nnonsense\nftp://h/ ssl\n")
    with pytest.raises(ConfigErrors) as caught:
        load_credentials(conf.home, conf.environment)
    assert [error.line for error in caught.value.errors] == [2, 3]


@given(st.text(max_size=120))
@settings(max_examples=200, deadline=None)
def test_any_text_gives_entries_and_errors_with_lines(text):
    _, errors = parse_credentials(text, "c", {}, "/")
    assert all(error.file == "c" and error.line >= 1 for error in errors)
