"""A large file that is interrupted goes on with the segments that are missing (design: guarantee 6)."""

from __future__ import annotations

from pathlib import Path

import pytest
from resumeload import check_resuming, kill_instance, kill_parent, stop
from servers import DocRoot, Vhost

pytestmark = [pytest.mark.chaos, pytest.mark.broker, pytest.mark.nginx]


def test_no_finished_segment_is_fetched_again(vhost: Vhost, docroot: DocRoot, tmp_path: Path) -> None:
    interrupts = (kill_instance, stop, kill_parent)
    check_resuming(vhost, docroot, tmp_path, interrupts, segment_bytes=1 << 19, segments=20, instances=2)
