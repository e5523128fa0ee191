"""Endpoints: how a broker is named, logged in to, and trusted."""

from __future__ import annotations

import ssl

import pytest
from pika.credentials import ExternalCredentials
from pika.spec import Connection

from sarrapipe.broker.endpoint import Endpoint, connection_parameters, tls_context
from sarrapipe.errors import ConfigError


@pytest.mark.parametrize(
    ("endpoint", "key"),
    [
        (Endpoint(), "amqp://anonymous@localhost:5672/"),  # R19
        (Endpoint(scheme="amqps", user="bob"), "amqps://bob@localhost:5671/"),
        (Endpoint(host="::1", user="bob", vhost="data"), "amqp://bob@[::1]:5672/data"),  # R32, R18
        (Endpoint(host="[::1]", port=1, user="bob", vhost="a/b"), "amqp://bob@[::1]:1/a%2Fb"),
    ],
)
def test_the_key_names_the_broker(endpoint, key):
    assert endpoint.key == key


def test_the_password_is_nowhere_to_be_seen():
    endpoint = Endpoint(user="bob", password="hunter2")
    assert "hunter2" not in repr(endpoint) + str(endpoint) + endpoint.key
    assert "hunter2" not in repr(connection_parameters(endpoint))


@pytest.mark.parametrize(
    ("changes", "what"),
    [
        ({"scheme": "http"}, "scheme"),
        ({"tls_rigour": "sloppy"}, "tlsRigour"),
        ({"login": "NTLM"}, "login"),
        ({"tls_rigour": "strict"}, "strict asks for amqps"),
        ({"scheme": "amqps", "ca_file": "/nonexistent.pem"}, "/nonexistent.pem"),
    ],
)
def test_what_cannot_work_is_refused(changes, what):
    with pytest.raises(ConfigError, match=what):
        connection_parameters(Endpoint(**changes))


def test_a_certificate_that_is_none_is_refused(tmp_path):
    path = tmp_path / "ca.pem"
    path.write_text("not a certificate")
    with pytest.raises(ConfigError, match="certificate"):
        connection_parameters(Endpoint(scheme="amqps", ca_file=str(path)))


def test_rigour():
    lax = tls_context(Endpoint(scheme="amqps", tls_rigour="lax"))
    assert (lax.verify_mode, lax.check_hostname) == (ssl.CERT_NONE, False)
    normal = tls_context(Endpoint(scheme="amqps"))
    assert (normal.verify_mode, normal.check_hostname) == (ssl.CERT_REQUIRED, True)
    strict = tls_context(Endpoint(scheme="amqps", tls_rigour="strict"))
    assert (strict.verify_mode, strict.check_hostname) == (ssl.CERT_REQUIRED, True)
    assert strict.minimum_version >= ssl.TLSVersion.TLSv1_2


def answer(endpoint, mechanisms):
    return connection_parameters(endpoint).credentials.response_for(Connection.Start(mechanisms=mechanisms))


def test_login_mechanisms():
    bob = Endpoint(user="bob", password="pé")
    assert answer(bob, "AMQPLAIN PLAIN") == ("PLAIN", b"\0bob\0p\xc3\xa9")
    table = b"\x05LOGINS\0\0\0\x03bob\x08PASSWORDS\0\0\0\x03p\xc3\xa9"
    assert answer(bob, "AMQPLAIN EXTERNAL") == ("AMQPLAIN", table)
    forced = Endpoint(user="bob", password="pé", login="AMQPLAIN")
    assert answer(forced, "PLAIN AMQPLAIN") == ("AMQPLAIN", table)
    assert answer(forced, "PLAIN") == (None, None)
    external = connection_parameters(Endpoint(login="EXTERNAL")).credentials
    assert isinstance(external, ExternalCredentials)


def test_the_connection_carries_our_name():
    parameters = connection_parameters(Endpoint(name="sarra/ddsr 03", heartbeat_s=30), "consume")
    assert parameters.client_properties["product"] == "sarrapipe"
    assert parameters.client_properties["connection_name"] == "sarra/ddsr 03 consume"
    assert parameters.heartbeat == 30
