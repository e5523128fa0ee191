"""Replies of an FTP server, and what stands in them."""

from __future__ import annotations

import pytest

from sarrapipe.errors import TransferError
from sarrapipe.transfer import ftpwire
from sarrapipe.transfer.ftpwire import MAX_REPLY_BYTES, Reply, ReplyReader

STREAM = (
    b"220-Welcome\r\n"
    b"220x no end\r\n"
    b" 220 neither is this\r\n"
    b"221 nor this\r\n"
    b"220-nor this\r\n"
    b"\r\n"
    b"220 ready\r\n"
    b"331 who?\n"
    b"200\r\n"
)


def reply(text: str) -> Reply:
    [found] = ReplyReader().feed(text.encode("latin-1") + b"\r\n")
    return found


@pytest.mark.parametrize("step", [1, 2, 3, 7, len(STREAM)])
def test_replies_however_they_are_cut(step: int) -> None:
    reader = ReplyReader()
    found = []
    for start in range(0, len(STREAM), step):
        found += reader.feed(STREAM[start : start + step])
    assert [one.code for one in found] == [220, 331, 200]
    assert len(found[0].lines) == 7
    assert found[0].said == "220 ready"
    assert reader.empty


def test_what_kinds_there_are() -> None:
    kinds = [
        (one.preliminary, one.ok, one.wants_more) for one in map(reply, ("150 a", "226 b", "350 c", "550 d"))
    ]
    assert kinds == [(True, False, False), (False, True, False), (False, False, True), (False, False, False)]


def test_what_a_server_says_is_shown_in_one_line() -> None:
    assert reply("550 a\x1b[2J\xe9").said == "550 a?[2J\ufffd"
    assert len(reply("550 " + "x" * 5000).said) == 200


@pytest.mark.parametrize(
    "garbage",
    [b"SSH-2.0-OpenSSH_9\r\n", b"\r\n", b"HTTP/1.1 400 Bad Request\r\n", b"99 x\r\n", b"2200 x\r\n", b"\0\n"],
)
def test_what_is_no_reply(garbage: bytes) -> None:
    with pytest.raises(TransferError, match="does not speak FTP"):
        ReplyReader().feed(garbage)


@pytest.mark.parametrize("piece", [b"x" * 1000, b"220-and so on\r\n", b"220 " + b"x" * 8000])
def test_a_reply_without_an_end(piece: bytes) -> None:
    reader = ReplyReader()
    came = 0
    with pytest.raises(TransferError, match="no end"):
        while came <= 2 * MAX_REPLY_BYTES:
            assert not reader.feed(piece)
            came += len(piece)
    assert came <= 1.1 * MAX_REPLY_BYTES  # the ends of lines are not kept


def test_the_port_of_extended_passive_mode() -> None:
    assert ftpwire.extended_passive_port(reply("229 Entering Extended Passive Mode (|||6446|)")) == 6446
    assert ftpwire.extended_passive_port(reply("229 (!!!65535!)")) == 65535


def test_the_port_of_passive_mode_whatever_host_it_names() -> None:
    for host in ("127,0,0,1", "10,0,0,7", "8,8,8,8"):
        assert ftpwire.passive_port(reply(f"227 Entering Passive Mode ({host},25,46)")) == 25 * 256 + 46
    assert ftpwire.passive_port(reply("227 =1,2,3,4,0,21")) == 21


@pytest.mark.parametrize(
    "text", ["229 (|||0|)", "229 (|||65536|)", "229 (|||x|)", "229 (|1|2|3|)", "229 none"]
)
def test_no_port_of_extended_passive_mode(text: str) -> None:
    with pytest.raises(TransferError, match="no port"):
        ftpwire.extended_passive_port(reply(text))


@pytest.mark.parametrize("text", ["227 (1,2,3,4,256,1)", "227 (1,2,3,4,0,0)", "227 (1,2,3,4,5)", "227 none"])
def test_no_port_of_passive_mode(text: str) -> None:
    with pytest.raises(TransferError, match="no port"):
        ftpwire.passive_port(reply(text))


def test_where_this_side_listens() -> None:
    assert ftpwire.extended_port_argument("127.0.0.1", 6446) == b"|1|127.0.0.1|6446|"
    assert ftpwire.extended_port_argument("::1", 1) == b"|2|::1|1|"
    assert ftpwire.port_argument("127.0.0.1", 6446) == b"127,0,0,1,25,46"


def test_features() -> None:
    [found] = ReplyReader().feed(
        b"211-Features:\r\n MDTM\r\n mlst type*;size*;\r\n REST STREAM\r\n AUTH TLS\r\n211 End\r\n"
    )
    assert ftpwire.features(found) == {"MDTM", "MLST", "REST STREAM", "AUTH"}
    assert ftpwire.features(reply("500 what?")) == frozenset()


def test_a_quoted_path() -> None:
    assert ftpwire.quoted_path(reply('257 "/a ""b"" c" is here')) == b'/a "b" c'
    assert ftpwire.quoted_path(reply("257 /a")) == b""
    assert ftpwire.quoted_path(reply("550 no")) == b""
