"""The private pump's certificate authority, as OpenSSL itself judges it."""

from __future__ import annotations

import contextlib
import shutil
import ssl
from pathlib import Path

import pytest
import servers

from sarrapipe.errors import SupervisorError
from sarrapipe.pump.certificates import ensure_certificates


@pytest.fixture(autouse=True)
def _openssl() -> None:
    if shutil.which("openssl") is None:
        servers.missing("openssl")


def handshake(client: ssl.SSLContext, server: ssl.SSLContext, name: str) -> ssl.SSLObject:
    """A TLS handshake in memory; returns the client's side, or raises what the client objects to."""
    to_server, to_client = ssl.MemoryBIO(), ssl.MemoryBIO()
    ours = client.wrap_bio(to_client, to_server, server_hostname=name)
    theirs = server.wrap_bio(to_server, to_client, server_side=True)
    for _ in range(5):
        for side in (ours, theirs):
            with contextlib.suppress(ssl.SSLWantReadError):
                side.do_handshake()
    return ours


def test_a_client_that_knows_the_authority_accepts_the_server(tmp_path: Path) -> None:
    """R117."""
    files = ensure_certificates(str(tmp_path / "tls"))
    server = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    server.load_cert_chain(files.certificate, files.key)
    knowing = ssl.create_default_context(cafile=files.authority)
    for name in ("localhost", "127.0.0.1", "::1"):
        assert handshake(knowing, server, name).getpeercert()
    for client, name in ((knowing, "example.org"), (ssl.create_default_context(), "localhost")):
        with pytest.raises(ssl.SSLCertVerificationError):
            handshake(client, server, name)


def test_keys_are_private_and_made_once(tmp_path: Path) -> None:
    first = ensure_certificates(str(tmp_path / "tls"))
    assert (tmp_path / "tls").stat().st_mode & 0o777 == 0o700
    for key in (tmp_path / "tls").glob("*.key"):
        assert key.stat().st_mode & 0o077 == 0
    before = Path(first.certificate).read_bytes()
    assert ensure_certificates(str(tmp_path / "tls")) == first
    assert Path(first.certificate).read_bytes() == before
    Path(first.key).unlink()
    ensure_certificates(str(tmp_path / "tls"))
    assert Path(first.certificate).read_bytes() != before


def test_what_openssl_says_is_passed_on(tmp_path: Path) -> None:
    (tmp_path / "tls" / "ca.key").mkdir(parents=True)
    with pytest.raises(SupervisorError, match=r"openssl req: .*ca\.key"):
        ensure_certificates(str(tmp_path / "tls"))
