"""Whether a configuration changed, told across processes."""

import dataclasses
import enum
import re
import subprocess
import sys
from types import MappingProxyType

import pytest

from sarrapipe.supervisor.fingerprint import fingerprint


class Colour(enum.Enum):
    RED = 1


class Odd:
    pass


@dataclasses.dataclass(frozen=True)
class Inner:
    secret: str = dataclasses.field(default="pw", repr=False)


@dataclasses.dataclass(frozen=True)
class Config:
    number: int = 1
    text: str = "x"
    pattern: re.Pattern = re.compile("a" * 300 + "b")
    mapping: object = dataclasses.field(default_factory=lambda: MappingProxyType({"a": 1, "b": Inner()}))
    members: frozenset = frozenset({"x", "y", "z"})
    sequence: tuple = (Inner(), None, 1.5, Colour.RED)
    odd: object = dataclasses.field(default_factory=Odd)
    ignored: str = ""


BASE = fingerprint(Config(), {"ignored"})


def test_the_same_in_another_process():
    code = "import test_fingerprint as t; print(t.BASE)"
    for seed in "12":
        run = subprocess.run(
            [sys.executable, "-c", code], capture_output=True, text=True, check=True,
            env={"PYTHONPATH": ":".join(sys.path), "PYTHONHASHSEED": seed},
        )  # fmt: skip
        assert run.stdout.strip() == BASE


@pytest.mark.parametrize(
    "change",
    [
        {"number": 2},
        {"text": "y"},
        {"pattern": re.compile("a" * 300 + "c")},
        {"pattern": re.compile("a" * 300 + "b", re.I)},
        {"mapping": {"a": 1, "b": Inner("other")}},
        {"mapping": {"a": 1}},
        {"members": frozenset({"x"})},
        {"sequence": (None, Inner(), 1.5, Colour.RED)},
        {"sequence": (Inner(), None, 1.5)},
        {"odd": Colour.RED},
    ],
)
def test_every_change_shows(change):
    assert fingerprint(dataclasses.replace(Config(), **change), {"ignored"}) != BASE


def test_what_does_not_count_and_the_order_of_a_mapping_do_not_show():
    assert fingerprint(Config(ignored="z"), {"ignored"}) == BASE
    assert fingerprint(Config(mapping={"b": Inner(), "a": 1}), {"ignored"}) == BASE


def test_secrets_do_not_come_out():
    assert "pw" not in BASE
