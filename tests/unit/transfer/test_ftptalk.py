"""What is said to an FTP server, and in which order: transcripts."""

from __future__ import annotations

from typing import Any

import pytest

from sarrapipe.errors import (
    AccessDenied,
    RangeNotHonoured,
    SourceGone,
    TransferError,
    Unsupported,
)
from sarrapipe.transfer import ftptalk
from sarrapipe.transfer.credentials import Credentials
from sarrapipe.transfer.ftprules import Facts, FtpPlace, ServerFull, place_and_path
from sarrapipe.transfer.ftptalk import Dialogue, Habits, Session, Step
from sarrapipe.transfer.ftpwire import Reply, ReplyReader
from sarrapipe.transfer.remotecall import Attributes, Operation, RemoteCall

LISTENS = Step.LISTEN
TLS = Step.START_TLS


def hold(dialogue: Dialogue[Any], *transcript: tuple[str | Step, str]) -> Any:
    """Hold a dialogue: each command has to be the one of the transcript, and is answered with its reply."""
    left = list(transcript)
    try:
        said = next(dialogue)
        while left:
            command, answer = left.pop(0)
            assert said == (command if isinstance(command, Step) else command.encode())
            said = dialogue.send(_reply(answer))
    except StopIteration as end:
        assert not left, "it ended too early"
        return end.value
    pytest.fail(f"the dialogue goes on with {said!r}")


def _reply(text: str) -> Reply:
    [reply] = ReplyReader().feed(text.encode() + b"\r\n") if text else [Reply(0, ())]
    return reply


def place(url: str = "ftp://h/", **fields: Any) -> FtpPlace:
    return place_and_path(url, Credentials(user="alice", password="pw", **fields))[0]


# ---- logging in

GREETS = (LISTENS, "220 hello")
LOGS_IN = (("USER alice", "331 password?"), ("PASS pw", "230 in"))
ENCRYPTS = (("AUTH TLS", "234 go ahead"), (TLS, ""))
PROTECTS = (("PBSZ 0", "200 0"), ("PROT P", "200 ok"))
IMAGE = ("TYPE I", "200 ok")


def test_a_login() -> None:
    hold(ftptalk.log_in(place()), GREETS, *LOGS_IN, IMAGE)
    hold(ftptalk.log_in(place()), (LISTENS, "120 soon"), GREETS, ("USER alice", "230 in"), IMAGE)


def test_an_encrypted_login() -> None:
    hold(ftptalk.log_in(place("ftps://h/")), GREETS, *ENCRYPTS, *LOGS_IN, *PROTECTS, IMAGE)
    hold(ftptalk.log_in(place(tls=True)), GREETS, *ENCRYPTS, *LOGS_IN, *PROTECTS, IMAGE)
    hold(ftptalk.log_in(place(implicit_tls=True)), GREETS, *LOGS_IN, *PROTECTS, IMAGE)


@pytest.mark.parametrize(
    ("transcript", "kind"),
    [
        (((LISTENS, "421 too many connections"),), ServerFull),
        (((LISTENS, "500 what"),), TransferError),
        ((GREETS, ("USER alice", "530 no")), AccessDenied),
        ((GREETS, ("USER alice", "331 ?"), ("PASS pw", "530 no")), AccessDenied),
        ((GREETS, ("USER alice", "331 ?"), ("PASS pw", "530 the maximum number of clients")), ServerFull),
        ((GREETS, ("USER alice", "331 ?"), ("PASS pw", "421 closing")), ServerFull),
        ((GREETS, ("USER alice", "331 ?"), ("PASS pw", "332 account?")), AccessDenied),
        ((GREETS, *LOGS_IN, ("TYPE I", "504 no")), TransferError),
    ],
)
def test_no_login(transcript: Any, kind: type[Exception]) -> None:
    with pytest.raises(TransferError) as caught:
        hold(ftptalk.log_in(place()), *transcript)
    assert type(caught.value) is kind
    assert "pw" not in str(caught.value)


@pytest.mark.parametrize(
    "transcript",
    [
        (GREETS, ("AUTH TLS", "502 what")),
        (GREETS, ("AUTH TLS", "530 log in first")),
        (GREETS, *ENCRYPTS, *LOGS_IN, ("PBSZ 0", "200 0"), ("PROT P", "534 no")),
    ],
)
def test_no_password_and_no_data_in_clear(transcript: Any) -> None:
    with pytest.raises(TransferError, match="does not encrypt"):
        hold(ftptalk.log_in(place(tls=True)), *transcript)


# ---- transfers


def test_what_a_file_is() -> None:
    habits = Habits()
    found = hold(ftptalk.look(b"/f", habits), ("MDTM /f", "213 20240102030405.1"), ("SIZE /f", "213 1000"))
    assert found == Facts(1000, 1704164645)
    found = hold(ftptalk.look(b"/f", habits), ("MDTM /f", "213 20241302030405"), ("SIZE /f", "550 no"))
    assert found == Facts(None, None)
    assert hold(ftptalk.look(b"/f", habits), ("MDTM /f", "500 ?"), ("SIZE /f", "213 1")) == Facts(1, None)
    assert hold(ftptalk.look(b"/f", habits), ("SIZE /f", "502 ?")) == Facts(None, None)
    assert hold(ftptalk.look(b"/f", habits)) == Facts(None, None)  # not asked again


def test_passive_mode() -> None:
    habits = Habits()
    assert hold(ftptalk.passive("10.0.0.1", habits), ("EPSV", "229 (|||99|)")) == 99
    port = hold(ftptalk.passive("10.0.0.1", habits), ("EPSV", "500 ?"), ("PASV", "227 (9,9,9,9,1,1)"))
    assert port == 257
    assert hold(ftptalk.passive("10.0.0.1", habits), ("PASV", "227 (9,9,9,9,1,2)")) == 258
    with pytest.raises(TransferError, match="no passive mode"):
        hold(ftptalk.passive("10.0.0.1", habits), ("PASV", "425 no"))
    with pytest.raises(TransferError, match="no passive mode"):
        hold(ftptalk.passive("fe80::1%lo", Habits()), ("EPSV", "500 ?"))


def test_active_mode() -> None:
    habits = Habits()
    hold(ftptalk.active("10.0.0.1", 258, habits), ("EPRT |1|10.0.0.1|258|", "200 ok"))
    hold(
        ftptalk.active("10.0.0.1", 258, habits),
        ("EPRT |1|10.0.0.1|258|", "500 ?"),
        ("PORT 10,0,0,1,1,2", "200 ok"),
    )
    with pytest.raises(TransferError, match="no active mode"):
        hold(ftptalk.active("10.0.0.1", 258, habits), ("PORT 10,0,0,1,1,2", "500 ?"))
    with pytest.raises(TransferError, match="no active mode"):
        hold(ftptalk.active("::1", 258, Habits()), ("EPRT |2|::1|258|", "522 ?"))


def test_a_transfer() -> None:
    done = hold(ftptalk.transfer(b"RETR /f"), ("RETR /f", "150 comes"), (LISTENS, "226 came"))
    assert done.code == 226
    talk = ftptalk.transfer(b"RETR /f", 5)
    done = hold(
        talk, ("REST 5", "350 ok"), ("RETR /f", "125 comes"), (LISTENS, "150 still"), (LISTENS, "426 cut")
    )
    assert done.code == 426
    assert hold(ftptalk.transfer(b"RETR /f"), ("RETR /f", "550 none")).code == 550
    with pytest.raises(RangeNotHonoured):
        hold(ftptalk.transfer(b"RETR /f", 5), ("REST 5", "502 ?"))


@pytest.mark.parametrize("late", [(), ("426 cut off",)])
def test_a_transfer_that_ends_with_what_begins_one(late: tuple[str, ...]) -> None:
    """Pure-FTPd does so where the data connection was cut off."""
    begun = (("RETR /f", "150 comes"), (LISTENS, "150 0.1 seconds"))
    answers = (*late, "200 Zzz")
    ended = (("NOOP", answers[0]), *((LISTENS, answer) for answer in answers[1:]))
    assert hold(ftptalk.transfer(b"RETR /f", cut_off=lambda: True), *begun, *ended).code == 200
    assert hold(ftptalk.transfer(b"RETR /f"), *begun, (LISTENS, "226 came")).code == 226


# ---- names


def operate(
    operation: Operation, *transcript: tuple[str | Step, str], path: str = "/d/f", **fields: Any
) -> Any:
    session = Session(Habits(features=frozenset()))
    call = RemoteCall(url=f"ftp://h{path}", operation=operation, token=1, **fields)
    return hold(ftptalk.DIALOGUES[operation](path.encode(), call, session), *transcript)


def test_directories_are_made_at_once_where_those_above_are_there() -> None:
    operate(Operation.MAKE_DIRECTORY, ("MKD /a b/c", "257 made"), path="/a b/c/")
    operate(Operation.MAKE_DIRECTORY, path="/")


def test_a_directory_that_is_there() -> None:
    operate(
        Operation.MAKE_DIRECTORY,
        ("MKD /a", "550 exists"),
        ("PWD", '257 "/home/x" here'),
        ("CWD /a", "250 ok"),
        ("CWD /home/x", "250 ok"),
        path="/a",
    )


def test_directories_above_are_made_where_they_are_missing() -> None:
    operate(
        Operation.MAKE_DIRECTORY,
        ("MKD /a/b/c", "550 no"),
        ("PWD", "500 ?"),
        ("CWD /a/b/c", "550 no"),
        ("MKD /a", "550 exists"),
        ("MKD /a/b", "257 made"),
        ("MKD /a/b/c", "257 made"),
        ("CWD /a/b/c", "250 ok"),
        path="/a/b/c",
    )


@pytest.mark.parametrize(("code", "kind"), [(550, SourceGone), (502, Unsupported)])
def test_a_directory_that_cannot_be_made(code: int, kind: type[Exception]) -> None:
    with pytest.raises(kind):
        operate(
            Operation.MAKE_DIRECTORY,
            ("MKD /a", f"{code} no"),
            ("PWD", "500 ?"),
            ("CWD /a", "550 no"),
            ("MKD /a", f"{code} no"),
            ("CWD /a", "550"),
            path="/a",
        )


def test_removals() -> None:
    operate(Operation.REMOVE, ("DELE /d/f", "250 ok"))
    nothing = (("MDTM /d/f", "550 no"), ("SIZE /d/f", "550 no"))
    operate(Operation.REMOVE, ("DELE /d/f", "550 no"), ("RNFR /d/f", "550 no"), *nothing)
    with pytest.raises(AccessDenied, match="it stays"):
        operate(Operation.REMOVE, ("DELE /d/f", "550 no"), ("RNFR /d/f", "350 and?"))
    with pytest.raises(AccessDenied, match="it stays"):  # a server where nothing may be changed
        operate(
            Operation.REMOVE,
            ("DELE /d/f", "550 no"),
            ("RNFR /d/f", "550 no"),
            ("MDTM /d/f", "550 no"),
            ("SIZE /d/f", "213 5"),
        )
    with pytest.raises(TransferError) as caught:
        operate(Operation.REMOVE, ("DELE /d/f", "550 no"), ("RNFR /d/f", "451 later"), *nothing)
    assert type(caught.value) is TransferError
    with pytest.raises(Unsupported):
        operate(Operation.REMOVE, ("DELE /d/f", "502 ?"))


def test_removals_of_directories() -> None:
    home = ("PWD", '257 "/"')
    operate(Operation.REMOVE_DIRECTORY, ("RMD /d", "250 ok"), path="/d/")
    operate(Operation.REMOVE_DIRECTORY, ("RMD /d", "550 no"), home, ("CWD /d", "550 no"), path="/d")
    with pytest.raises(AccessDenied, match="it stays"):
        operate(
            Operation.REMOVE_DIRECTORY,
            ("RMD /d", "550 no"),
            home,
            ("CWD /d", "250 ok"),
            ("CWD /", "250 ok"),
            path="/d",
        )


def test_renames() -> None:
    operate(Operation.RENAME, ("RNFR /d/f", "350 and?"), ("RNTO /e", "250 ok"), to="/e")
    operate(
        Operation.RENAME,
        ("RNFR /d/f", "350 and?"),
        ("RNTO /e", "553 exists"),
        ("DELE /e", "250 ok"),
        ("RNFR /d/f", "350 and?"),
        ("RNTO /e", "250 ok"),
        to="/e",
    )
    with pytest.raises(SourceGone):
        operate(Operation.RENAME, ("RNFR /d/f", "550 no"), to="/e")
    with pytest.raises(TransferError):
        operate(
            Operation.RENAME,
            ("RNFR /d/f", "350 and?"),
            ("RNTO /e", "553 no"),
            ("DELE /e", "550 no"),
            ("RNFR /d/f", "350 and?"),
            ("RNTO /e", "553 no"),
            to="/e",
        )


def test_attributes_that_a_server_does_not_take_are_left() -> None:
    wanted = Attributes(mode=0o640, mtime_ns=1704164645 * 10**9)
    chmod, times = "SITE CHMOD 640 /d/f", "MFMT 20240102030405 /d/f"
    operate(Operation.SET, (chmod, "200 ok"), (times, "213 ok"), attributes=wanted)
    operate(Operation.SET, (chmod, "500 ?"), (times, "500 ?"), attributes=wanted)
    operate(Operation.SET)


def test_a_look_at_a_name() -> None:
    session = Session()
    call = RemoteCall(url="ftp://h/d/f", operation=Operation.STAT, token=1)
    stat = ftptalk.DIALOGUES[Operation.STAT]
    told = "250-Listing\r\n type=file;size=5;modify=20240102030405; /d/f\r\n250 End"
    feat = ("FEAT", "211-Features\r\n MLST type*;\r\n211 End")
    [entry] = hold(stat(b"/d/f", call, session), feat, ("MLST /d/f", told))
    assert (entry.name, entry.attributes.size, entry.is_directory) == ("f", 5, False)
    [entry] = hold(stat(b"/d/f", call, session), ("MLST /d/f", told.replace("type=file", "type=dir")))
    assert entry.is_directory
    with pytest.raises(SourceGone):
        hold(stat(b"/d/f", call, session), ("MLST /d/f", "550 no"))


def test_a_look_at_a_name_where_there_is_no_mlst() -> None:
    [entry] = operate(Operation.STAT, ("MDTM /d/f", "213 20240102030405"), ("SIZE /d/f", "213 7"))
    assert (entry.attributes.size, entry.attributes.mtime_ns, entry.is_directory) == (
        7,
        1704164645 * 10**9,
        False,
    )
    none = (("MDTM /d/f", "550 no"), ("SIZE /d/f", "550 no"), ("PWD", "500 ?"))
    [entry] = operate(Operation.STAT, *none, ("CWD /d/f", "250 ok"))
    assert entry.is_directory
    with pytest.raises(SourceGone):
        operate(Operation.STAT, *none, ("CWD /d/f", "550 no"))
