from __future__ import annotations

import pytest

from sarrapipe.segment.sink import DiscardSink
from sarrapipe.transfer.base import Credentials, RangeDone, RangeRead


def read(**fields: object) -> RangeRead:
    return RangeRead(url="http://h/f", sink=DiscardSink(), token="t", **fields)  # type: ignore[arg-type]


def test_credentials_print_no_secret() -> None:
    assert repr(Credentials(user="bob", password="s3cret", bearer="t0ken")) == "Credentials(user='bob')"


@pytest.mark.parametrize(
    ("fields", "whole"),
    [
        ({}, True),
        ({"length": 5, "whole_size": 5}, True),
        ({"length": 5}, False),
        ({"length": 5, "whole_size": 6}, False),
        ({"offset": 1}, False),
    ],
)
def test_when_no_range_is_asked(fields: dict[str, object], whole: bool) -> None:
    assert read(**fields).whole is whole


@pytest.mark.parametrize(
    ("etag", "date", "validator"),
    [
        ('"a"', "d", '"a"'),
        ('W/"a"', "d", "d"),
        (None, "d", "d"),
        (None, None, None),
        ('W/"a"', None, None),
    ],
)
def test_only_a_strong_tag_pins_a_version(etag: str | None, date: str | None, validator: str | None) -> None:
    done = RangeDone(read=read(), received=0, status=200, etag=etag, last_modified=date)
    assert done.validator == validator
    assert done.token == "t"
