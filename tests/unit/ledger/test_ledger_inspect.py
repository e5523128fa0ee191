"""`sarrapipe ledger show|check`: what is under way is told, and every broken invariant is found."""

from __future__ import annotations

import json
import os
import subprocess
import sys

import pytest
from click.testing import CliRunner
from test_ledger import announcement, deliver, one

from sarrapipe.cli.commands.ledger import command
from sarrapipe.errors import LedgerError
from sarrapipe.ledger import KeptMessage, KeptStore, Ledger, Removal
from sarrapipe.ledger.inspect import inconsistencies, inspect
from sarrapipe.ledger.records import CLAIMED, WRITTEN, MessageRow, Pending, SeenEntry, SegmentRow

G = b"g" * 16


@pytest.fixture
def state(tmp_path):
    return str(tmp_path / "state")


@pytest.fixture
def ledger(state):
    with Ledger.open(f"{state}/ledger", incarnation=1, instance=1, nodupe_ttl_s=300) as ledger:
        yield ledger


def test_what_is_under_way_is_told(state):
    with Ledger.open(f"{state}/ledger", incarnation=1, instance=1) as ledger:
        deliver(ledger, announcement("/d/done"))
        large = announcement("/d/large", size=100, segment_size=10)
        claim = one(ledger, "admit", large).claim
        with ledger.transaction() as decide:
            decide.mark(claim, [(number, b"d" * 16) for number in decide.claim(claim, 4).numbers])
        one(ledger, "park", one(ledger, "admit", announcement("/d/parked")).claim)
        one(ledger, "begin_removal", Removal(b"r" * 16, "/d/gone", 9))
    with KeptStore.open(f"{state}/kept", incarnation=1) as kept:
        kept.put_many([KeptMessage(b"k" * 16, b"{}", {}, None, "xs", "v03.a")])
    report = inspect(f"{state}/ledger", f"{state}/kept", 0)
    assert report.problems == []
    assert report.removals == ["/d/gone"]
    assert (report.paths, report.seen, report.kept.kept, report.kept.leased) == (2, 1, 1, 1)
    found = {file.target: (file.owner, file.segments, file.missing) for file in report.under_way}
    assert found == {"/d/large": ("dead", 10, 6), "/d/parked": ("parked", 1, 1)}


def test_who_fetches_which_file_is_told(state):
    code = (
        "import sys\nfrom sarrapipe.ledger import *\n"
        f"ledger = Ledger.open({state + '/ledger'!r}, incarnation=7, instance=3)\n"
        "with ledger.transaction() as decide:\n"
        "    a = Announcement('/d/l', b'g' * 16, b'f' * 16, b'm' * 16, 1, 1, 100, 10)\n"
        "    decide.claim(decide.admit(a).claim, 4)\n"
        "print('ready', flush=True)\nsys.stdin.read()\n"
    )
    with subprocess.Popen(
        [sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as child:
        assert child.stdout.readline() == "ready\n"
        (file,) = inspect(f"{state}/ledger", None, 0).under_way
        assert (file.owner, file.fetching, file.missing) == ("instance 3", {3: 4}, 10)
        assert "3:4" in run("show", "--dir", state).output


def test_inflight_files_that_no_row_knows_are_found(state, tmp_path):
    hidden = tmp_path / "hidden"
    hidden.mkdir()
    with Ledger.open(f"{state}/ledger", incarnation=1, instance=1) as ledger:
        claim = one(ledger, "admit", announcement("/d/a")).claim
    (hidden / claim.nonce.hex()).touch()
    (hidden / f"a.{claim.nonce.hex()}.tmp").touch()
    assert inspect(f"{state}/ledger", None, 0, [str(hidden), "/nowhere"]).problems == []
    (hidden / "0123456789abcdef").touch()
    problems = inspect(f"{state}/ledger", None, 0, [str(hidden)]).problems
    assert problems == [f"{hidden}/0123456789abcdef: inflight, and no row knows it"]


def unknown_phase(t, row):
    t.put_file(G, row._replace(phase=9))


def committed_elsewhere(t, row):
    t.put_file(G, row._replace(phase=2))


def nobodys_removal(t, row):
    record = t.get_path("/d/done")
    t.put_path("/d/done", record._replace(pending=Pending.REMOVAL))


def never_announced(t, row):
    record = t.get_path("/d/done")
    t.put_path("/d/done", record._replace(pub_ns=record.known_ns + 1))


def claim_of_nothing(t, row):
    t.put_seen(b"x" * 16, SeenEntry(CLAIMED, b"n" * 16, "/d/x", 0, 0, 0, ()))


def row_without_claim(t, row):
    t.delete_seen(row.fingerprint)


def segment_of_nothing(t, row):
    t.put_segment(b"n" * 16, 0, SegmentRow(0, 0, b""))


def segment_beyond_the_end(t, row):
    t.put_segment(G, 99, SegmentRow(0, 0, b""))


def written_and_claimed(t, row):
    t.put_file(G, row._replace(missing=row.missing - 1))
    t.put_segment(G, 0, SegmentRow(WRITTEN, 1, b"d" * 16))


def wrong_count(t, row):
    t.put_file(G, row._replace(missing=row.missing - 1))


def message_of_nothing(t, row):
    t.put_message(b"n" * 16, b"m" * 16, MessageRow(b"", "", 0, 0, 0))


def wrong_number_of_messages(t, row):
    t.put_file(G, row._replace(further=3))


TAMPERINGS = [
    (unknown_phase, "phase 9, which does not exist"),
    (committed_elsewhere, "committed, but its path records another version"),
    (nobodys_removal, "a removal is pending, but nobody's"),
    (never_announced, "holds a version that was never announced"),
    (claim_of_nothing, "/d/x: its fingerprint is claimed, but nothing is under way"),
    (row_without_claim, "under way, but its fingerprint is not claimed"),
    (segment_of_nothing, "its file is not under way"),
    (segment_beyond_the_end, "segment 99 of 10"),
    (written_and_claimed, "segment 0 is written and still claimed"),
    (wrong_count, "9 segments missing by its row, 10 by its segments"),
    (message_of_nothing, "recorded with a file that is not under way"),
    (wrong_number_of_messages, "3 more messages by its row, 0 recorded"),
]


@pytest.mark.parametrize(
    ("tamper", "problem"), TAMPERINGS, ids=lambda value: getattr(value, "__name__", None)
)
def test_every_broken_invariant_is_found(ledger, tamper, problem):
    deliver(ledger, announcement("/d/done"))
    one(ledger, "admit", announcement("/d/a", size=100, segment_size=10)._replace(generation=G))
    with ledger.transaction() as decide:
        assert inconsistencies(decide.tables) == []
        tamper(decide.tables, decide.tables.get_file(G))
        (found,) = inconsistencies(decide.tables)
    assert problem in found


def run(*arguments):
    result = CliRunner().invoke(command, list(arguments), standalone_mode=False)
    assert result.exception is None, result.exception
    return result


def test_the_command_shows_and_checks_a_directory(state):
    with Ledger.open(f"{state}/ledger", incarnation=1, instance=1) as ledger:
        one(ledger, "admit", announcement("/d/a", size=12_345))
    shown = run("show", "--dir", state).output
    assert "1 under way" in shown
    assert "/d/a" in shown
    assert "dead" in shown
    checked = run("check", "--dir", f"{state}/ledger")
    assert "consistent" in checked.output
    assert checked.return_value == 0
    (plain,) = json.loads(run("show", "--json", "--dir", state).output)
    assert plain["under_way"][0]["target"] == "/d/a"
    with Ledger.open(f"{state}/ledger", incarnation=2, instance=1) as ledger, ledger.transaction() as decide:
        claim_of_nothing(decide.tables, None)
    checked = run("check", "--dir", state)
    assert "NOT CONSISTENT" in checked.output
    assert checked.return_value == 1
    (plain,) = json.loads(run("check", "--json", "--dir", state).output)
    assert len(plain["problems"]) == 1


def test_a_ledger_that_is_not_there_is_said_to_be_missing(state):
    with pytest.raises(LedgerError, match="no ledger store here"):
        inspect(f"{state}/ledger", None, 0)


def test_a_ledger_of_an_earlier_boot_is_not_opened(state):
    Ledger.open(f"{state}/ledger", incarnation=1, instance=1, boot="an earlier one").close()
    with pytest.raises(LedgerError, match="before this machine was restarted"):
        inspect(f"{state}/ledger", None, 0)
    Ledger.open(f"{state}/host", incarnation=1, instance=1, boot="earlier", durability="host").close()
    assert inspect(f"{state}/host", None, 0).problems == []
    assert os.path.exists(f"{state}/ledger/data.mdb")
