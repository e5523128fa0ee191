"""The real metpx-sr3 on one side of the broker, sarrapipe on the other: both directions, both formats."""

from __future__ import annotations

from pathlib import Path

import pytest
from servers import DocRoot, Vhost
from sr3_peer import Interop, make_tree

pytestmark = [pytest.mark.broker, pytest.mark.nginx, pytest.mark.sr3]

_CASES = [("v03", "sha512"), ("v03", "md5"), ("v02", "sha512"), ("v02", "md5")]


@pytest.fixture(params=_CASES, ids=lambda case: "-".join(case))
def interop(
    request: pytest.FixtureRequest, vhost: Vhost, docroot: DocRoot, sr3_home: Path, tmp_path: Path
) -> Interop:
    message_format, identity = request.param
    return Interop(vhost, docroot, sr3_home, tmp_path, message_format, identity)


def test_sarrapipe_fetches_what_sr3_posts(interop: Interop) -> None:
    # sr3's v02 messages of links lack the target (wire.md 1.5), so nobody can make those.
    make_tree(interop.wanted, escaped_names=True, links=interop.message_format == "v03")
    with interop.sarrapipe_runs(interop.direct):
        interop.sr3_posts()
        interop.wait_equal()


def test_sr3_fetches_what_sarrapipe_posts(interop: Interop) -> None:
    # sr3 does not unescape blanks and hashes in the v02 paths it receives (wire.md 1.5).
    make_tree(interop.wanted, escaped_names=interop.message_format == "v03", links=True)
    with interop.sr3_runs(interop.direct):
        interop.sarrapipe_posts()
        interop.wait_equal()


def test_a_sarrapipe_pump_stands_between_sr3_and_sr3(interop: Interop) -> None:
    make_tree(interop.wanted, escaped_names=interop.message_format == "v03", links=False)
    pump, subscriber = interop.through_pump
    with interop.sr3_runs(subscriber), interop.sarrapipe_runs(pump):
        interop.sr3_posts()
        interop.wait_equal()


def test_an_sr3_pump_stands_between_sarrapipe_and_sarrapipe(interop: Interop) -> None:
    make_tree(interop.wanted, escaped_names=interop.message_format == "v03", links=False)
    pump, subscriber = interop.through_pump
    with interop.sarrapipe_runs(subscriber), interop.sr3_runs(pump):
        interop.sarrapipe_posts()
        interop.wait_equal()
