"""A kept store that is damaged, foreign or somebody else's: named, and the queue keeps its messages."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path

import pytest
from flowkit import Site
from standins import StandIn

from sarrapipe.errors import LedgerError

pytestmark = pytest.mark.broker


class Failing(StandIn):
    """Has nothing for anybody."""

    def answer(self, handler, headers):
        self.head(handler, 503, 0)


def cut(store: Path) -> None:
    os.truncate(store / "data.mdb", 5000)


def overwrite(store: Path) -> None:
    (store / "data.mdb").write_bytes(b"no database" * 2000)


def of_another_format(store: Path) -> None:
    path = store / "store.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"format": 99}))


def of_another_kind(store: Path) -> None:
    path = store / "store.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"kind": "ledger"}))


def somebody_elses(store: Path) -> None:
    os.chown(store, 12345, 12345)


@pytest.fixture
def site(tmp_path, vhost, docroot):
    with Site(tmp_path, vhost, docroot) as made:
        yield made


@pytest.mark.parametrize(
    ("damage", "said"),
    [
        (cut, "move this directory away"),
        (overwrite, "move this directory away"),
        (of_another_format, "format 99"),
        (of_another_kind, "not a kept"),
        pytest.param(
            somebody_elses,
            "belongs to user 12345",
            marks=pytest.mark.skipif(os.geteuid() != 0, reason="only root can give a directory away"),
        ),
    ],
)
def test_a_damaged_kept_store(site: Site, damage: Callable[[Path], None], said: str) -> None:
    with Failing() as server:
        flow = site.run(lines="attempts 1")
        site.announce("kept", b"some", put=False, baseUrl=server.url)
        flow.until(flow.kept, "it is kept")
        flow.close()
    store = Path(flow.config.state_dir) / "kept"
    damage(store)
    site.announce("new", b"data")
    with pytest.raises(LedgerError, match=said) as raised:
        site.run(lines="attempts 1", wait=False)
    assert str(store) in str(raised.value)
    assert site.files() == {}
    assert site.vhost.depth(flow.config.subscriptions[0].queue_name) == 1, "it is left to whoever can work"
    os.rename(store, store.with_name("damaged"))
    again = site.run(lines="attempts 1")
    again.until_settled(1)
    assert site.files() == {"new": b"data"}
    site.assert_clean(again)
