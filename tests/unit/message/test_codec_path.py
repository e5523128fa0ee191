"""Which path a malformed message names, for the log."""

from __future__ import annotations

import pytest

from sarrapipe.message.codec import told_path


@pytest.mark.parametrize(
    ("body", "path"),
    [
        (b'{"relPath": "a/b", "size": "many"}', "a/b"),
        (b'{"relPath": 7}', ""),
        (b"[1, 2]", ""),
        (b"20231114221320.5 http://h a/b", "a/b"),
        (b"{broken", ""),
        (b"\xff\xfe", ""),
        (b"", ""),
    ],
)
def test_as_far_as_it_tells(body: bytes, path: str) -> None:
    assert told_path(body) == path
