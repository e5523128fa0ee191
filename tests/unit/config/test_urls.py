"""Broker URLs: every form a person writes, and a password in no text (R18, R19, R32)."""

from __future__ import annotations

import contextlib

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sarrapipe.config.urls import BrokerUrl, mask_password, split_url


@pytest.mark.parametrize(
    ("text", "user", "password", "host", "port", "vhost"),
    [
        ("amqp://bob@h/", "bob", None, "h", 5672, "/"),
        ("amqps://bob@h", "bob", None, "h", 5671, "/"),
        ("amqp://bob:pw@h:5673/vh", "bob", "pw", "h", 5673, "vh"),
        ("amqp://bob@h/%2F", "bob", None, "h", 5672, "/"),
        ("amqp://bob@h/a%2Fb", "bob", None, "h", 5672, "a/b"),
        ("amqp://h/", "anonymous", "anonymous", "h", 5672, "/"),
        ("amqp://anonymous@h/", "anonymous", "anonymous", "h", 5672, "/"),
        ("amqp://bob:s%2Fcret%40x@h/", "bob", "s/cret@x", "h", 5672, "/"),
        ("amqp://bob:p@ss@h/", "bob", "p@ss", "h", 5672, "/"),
        ("amqp://bob@[::1]/", "bob", None, "::1", 5672, "/"),
        ("amqp://bob:pw@[2001:DB8::7]:5700/v", "bob", "pw", "2001:db8::7", 5700, "v"),
        ("AMQPS://bob@HOST.example/", "bob", None, "host.example", 5671, "/"),
    ],
)
def test_parses(text, user, password, host, port, vhost):
    url = BrokerUrl.parse(text)
    assert (url.user, url.password, url.host, url.port, url.vhost) == (user, password, host, port, vhost)
    # R32: what is shown can be read again, IPv6 literals included
    again = BrokerUrl.parse(str(url))
    assert (again.user, again.host, again.port, again.vhost) == (user, host, port, vhost)


@pytest.mark.parametrize(
    "text",
    ["", "host", "http://h/", "amqp://", "amqp:///vh", "amqp://b:hush@[::1/", "amqp://b:hush@h:99999/",
     "amqp://b:hush@h:x/", "amqp://b:hush@h h/", "mqtt://b:hush@h/"],
)  # fmt: skip
def test_refuses_without_telling_the_password(text):
    with pytest.raises(ValueError, match=r"\w") as caught:
        BrokerUrl.parse(text)
    assert "hush" not in str(caught.value)


def test_the_password_is_in_no_text():
    url = BrokerUrl.parse("amqps://bob:hush@h/v")
    for text in (
        str(url),
        repr(url),
        url.key,
        f"{url}",
        repr([url]),
        repr(split_url("amqps://bob:hush@h/v")),
    ):
        assert "hush" not in text
    assert url.tls
    assert url.key == "amqps://bob@h/v"


def test_a_secret_is_added():
    url = BrokerUrl.parse("amqp://bob@h/").with_secret("pw", "external")
    assert (url.password, url.login_method) == ("pw", "EXTERNAL")
    assert url.login_method != BrokerUrl.parse("amqp://bob@h/").login_method == "auto"
    with pytest.raises(ValueError, match="GSSAPI"):
        url.with_secret("pw", "GSSAPI")


def test_masks_passwords_in_any_text():
    text = "one amqp://bob:hush@h/ two https://u:hush@g/x, plain http://h:80/x"
    masked = mask_password(text)
    assert "hush" not in masked
    assert "http://h:80/x" in masked


@given(st.text(min_size=1, max_size=20), st.text(min_size=1, max_size=20), st.text(max_size=10))
@settings(max_examples=150, deadline=None)
def test_any_user_and_vhost_survive(user, password, vhost):
    vhost = vhost.strip("/") or "/"
    url = BrokerUrl("amqp", user, password, "h", 5672, vhost)
    again = BrokerUrl.parse(str(url))
    assert (again.user, again.vhost) == (user, vhost)


@given(st.text(max_size=60))
@settings(max_examples=200, deadline=None)
def test_any_text_is_a_url_or_a_value_error(text):
    with contextlib.suppress(ValueError):
        split_url(text)
