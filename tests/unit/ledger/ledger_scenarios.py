"""What is searched. Each scenario goes with the least number of states that makes the search worth its name.

Names say what can happen: `k` kills, `r` broker restarts, `p` losses of power. The states found are in
docs/explanation/ledger.md.
"""

from __future__ import annotations

from typing import NamedTuple

from ledger_world import Move, Put, Remove, Scenario

__all__ = ["QUICK", "SLOW", "Case", "by_name"]

V1 = Put("a", "v1", pub=1, mtime=1)
V1_AGAIN = Put("a", "v1", pub=2, mtime=1)
V1_LATE = Put("a", "v1", pub=3, mtime=1)
V2 = Put("a", "v2", pub=2, mtime=2)
V2_LATE = Put("a", "v2", pub=3, mtime=2)
V3 = Put("a", "v3", pub=3, mtime=3)
LINK = Put("a", "link", pub=2, mtime=0)
REMOVED = Remove("a", pub=2)
MOVED = Move("a", "b", "v1", pub=2, mtime=1)
LARGE = Put("a", "v1", pub=1, mtime=1, segments=2)
LARGE_AGAIN = LARGE._replace(pub=2)
LARGE_V2 = Put("a", "v2", pub=2, mtime=2, segments=2)
BLOCK_0 = Put("a", "v1", pub=1, mtime=1, segments=2, first=0, block=1)
BLOCK_1 = Put("a", "v1", pub=1, mtime=1, segments=2, first=1, block=1)
NEW_BLOCKS = tuple(block._replace(version="v2", pub=2, mtime=2) for block in (BLOCK_0, BLOCK_1))
GONE = V1._replace(gone=True)


class Case(NamedTuple):
    """A scenario and how many states its search has at least."""

    scenario: Scenario
    states: int


def _case(
    name: str,
    messages: tuple[Put | Remove | Move, ...],
    final: dict[str, object],
    states: int,
    **more: object,
) -> Case:
    versions = {path: v if isinstance(v, tuple) else (v,) for path, v in final.items()}
    return Case(Scenario(name, messages, versions, **more), states)  # type: ignore[arg-type]


QUICK = [
    # one file, one process after another
    _case("small k2 r1", (V1,), {"a": "v1"}, 910, heard=("v1",), kills=2, restarts=1),
    _case(
        "small early fail k2 r1",
        (V1,),
        {"a": "v1"},
        23_000,
        heard=("v1",),
        kills=2,
        restarts=1,
        early=1,
        fails=1,
    ),
    _case(
        "small early fail k1 p1",
        (V1,),
        {"a": "v1"},
        12_000,
        heard=("v1",),
        kills=1,
        power=1,
        early=1,
        fails=1,
    ),
    _case("false death", (V1, V2), {"a": "v2"}, 5400, heard=("v2",), false_deaths=1),
    # versions and removals of one path
    _case("two versions k1", (V1, V2), {"a": "v2"}, 6400, heard=("v2",), kills=1),
    _case("two versions p1", (V1, V2), {"a": "v2"}, 4200, heard=("v2",), power=1),
    _case("three versions", (V1, V2, V3), {"a": "v3"}, 11_000, heard=("v3",)),
    _case("remove k1 r1", (V1, REMOVED), {"a": None}, 25_000, heard=("",), kills=1, restarts=1),
    _case("remove, put again k1", (V1, REMOVED, V1_LATE), {"a": "v1"}, 31_000, heard=("v1",), kills=1),
    _case("remove, put another k1", (REMOVED, V2_LATE), {"a": "v2"}, 1200, heard=("v2",), kills=1),
    _case(
        "remove, put an older one",
        (V1._replace(mtime=9), REMOVED, V2_LATE),
        {"a": ("v2", "v1")},
        2500,
        contradiction=True,
    ),
    _case("link over file k1", (V1._replace(mtime=9), LINK), {"a": "link"}, 6400, heard=("link",), kills=1),
    _case(
        "file over link k1",
        (LINK._replace(pub=1), V1_AGAIN),
        {"a": "v1"},
        6400,
        heard=("v1",),
        kills=1,
    ),
    _case("remove fails k1", (V1, REMOVED), {"a": None}, 25_000, heard=("",), kills=1, fails=1),
    # renames
    _case("rename fails", (V1, MOVED), {"a": None, "b": "v1"}, 1500, heard=("v1",), fails=1),
    _case("rename k1", (V1, MOVED), {"a": None, "b": "v1"}, 4600, heard=("v1",), kills=1),
    _case(
        "rename, put the old again", (V1, MOVED, V2_LATE), {"a": "v2", "b": "v1"}, 7800, heard=("v1", "v2")
    ),
    _case(
        "rename over another", (Put("b", "v0", 1, 9), V1, MOVED), {"a": None, "b": "v1"}, 6600, heard=("v1",)
    ),
    _case("rename, remove", (V1, MOVED, Remove("b", 3)), {"a": None, "b": None}, 2500, heard=("",)),
    _case(
        "rename twice",
        (V1, MOVED, Move("b", "c", "v1", 3, 1)),
        {"a": None, "b": None, "c": "v1"},
        7800,
        heard=("v1",),
    ),
    # several messages for one content
    _case("two sources k1 r1", (V1, V1_AGAIN), {"a": "v1"}, 13_000, heard=("v1",), kills=1, restarts=1),
    _case(
        "two sources, one alone k1 r1",
        (V1._replace(alone=True), V1_AGAIN),
        {"a": "v1"},
        12_000,
        heard=("v1",),
        kills=1,
        restarts=1,
    ),
    _case("two sources, one gone k1", (GONE, V1_AGAIN), {"a": "v1"}, 1100, heard=("v1",), kills=1),
    _case("two sources, both gone k1", (GONE, GONE._replace(pub=2)), {"a": None}, 480, kills=1),
    _case("newer version gone k1", (V1, V2._replace(gone=True)), {"a": "v1"}, 2800, kills=1),
    _case(
        "two sources, nodupe off k1", (V1, V1_AGAIN), {"a": "v1"}, 1600, heard=("v1",), kills=1, nodupe=False
    ),
    _case(
        "two paths, one content k1 r1",
        (V1, Put("b", "v1", 2, 1)),
        {},
        4800,
        kills=1,
        restarts=1,
        crossed=True,
    ),
    # segments
    _case("segments k2", (LARGE,), {"a": "v1"}, 2200, heard=("v1",), kills=2, helpers=1),
    _case("segments fail k1", (LARGE,), {"a": "v1"}, 7800, heard=("v1",), kills=1, helpers=1, fails=1),
    _case(
        "segments early fail k1 r1",
        (LARGE,),
        {"a": "v1"},
        18_000,
        heard=("v1",),
        kills=1,
        restarts=1,
        early=1,
        fails=1,
    ),
    _case(
        "segments, two sources k1",
        (LARGE, LARGE_AGAIN),
        {"a": "v1"},
        10_000,
        heard=("v1",),
        kills=1,
        helpers=1,
    ),
    _case(
        "segments, two sources alone k1",
        (LARGE._replace(alone=True), LARGE_AGAIN._replace(alone=True)),
        {"a": "v1"},
        6_500,
        heard=("v1",),
        kills=1,
        helpers=1,
    ),
    _case("segments, two versions", (LARGE, LARGE_V2), {"a": "v2"}, 4300, heard=("v2",), helpers=1),
    # announced blocks
    _case("blocks k1", (BLOCK_0, BLOCK_1), {"a": "v1"}, 3900, heard=("v1",), kills=1),
    _case("blocks k2", (BLOCK_0, BLOCK_1), {"a": "v1"}, 10_000, heard=("v1",), kills=2),
    _case("blocks fail k1", (BLOCK_0, BLOCK_1), {"a": "v1"}, 47_000, heard=("v1",), kills=1, fails=1),
    _case("blocks, one refused", (BLOCK_0, BLOCK_1), {"a": "v1"}, 1600, heard=("v1",), refusals=1),
    _case("blocks, one twice", (BLOCK_0, BLOCK_1, BLOCK_1._replace(pub=2)), {"a": "v1"}, 2400, heard=("v1",)),
    _case(
        "blocks, nodupe off k1", (BLOCK_0, BLOCK_1), {"a": "v1"}, 3900, heard=("v1",), kills=1, nodupe=False
    ),
    _case(
        "blocks, one twice, nodupe off",
        (BLOCK_0, BLOCK_1, BLOCK_1._replace(pub=2)),
        {"a": "v1"},
        2400,
        heard=("v1",),
        nodupe=False,
    ),
    _case("blocks rest k1", (BLOCK_0, BLOCK_1), {"a": "v1"}, 26_000, heard=("v1",), kills=1, rests=1),
    # others
    _case("a person meddles k1", (V1,), {"a": ("v1", "foreign", None)}, 390, outsider=1, kills=1),
    _case("another host k1", (V1,), {"a": ("v1", None)}, 220, heard=("v1",), kills=1, elsewhere=1),
    _case(
        "another host removes k1",
        (V1, REMOVED),
        {"a": ("v1", None)},
        5600,
        kills=1,
        elsewhere=1,
        contradiction=True,
    ),
]

SLOW = [
    _case("small k3 r2", (V1,), {"a": "v1"}, 3100, heard=("v1",), kills=3, restarts=2),
    _case("two versions k1 r1", (V1, V2), {"a": "v2"}, 81_000, heard=("v2",), kills=1, restarts=1),
    _case("two versions k2", (V1, V2), {"a": "v2"}, 27_000, heard=("v2",), kills=2),
    _case("two versions early p1", (V1, V2), {"a": "v2"}, 51_000, heard=("v2",), power=1, early=1),
    _case("three versions k1", (V1, V2, V3), {"a": "v3"}, 760_000, heard=("v3",), kills=1),
    _case("remove k2", (V1, REMOVED), {"a": None}, 9500, heard=("",), kills=2),
    _case(
        "remove, put an older one k1",
        (V1._replace(mtime=9), REMOVED, V2_LATE),
        {"a": ("v2", "v1")},
        110_000,
        kills=1,
        contradiction=True,
    ),
    _case("rename k1 r1", (V1, MOVED), {"a": None, "b": "v1"}, 77_000, heard=("v1",), kills=1, restarts=1),
    _case(
        "rename, put the old again k1",
        (V1, MOVED, V2_LATE),
        {"a": "v2", "b": "v1"},
        680_000,
        heard=("v1", "v2"),
        kills=1,
    ),
    _case(
        "rename, remove k1",
        (V1, MOVED, Remove("b", 3)),
        {"a": None, "b": None},
        120_000,
        heard=("",),
        kills=1,
    ),
    _case(
        "segments, two versions k1",
        (LARGE, LARGE_V2),
        {"a": "v2"},
        220_000,
        heard=("v2",),
        kills=1,
        helpers=1,
    ),
    _case(
        "blocks early fail k1",
        (BLOCK_0, BLOCK_1),
        {"a": "v1"},
        430_000,
        heard=("v1",),
        kills=1,
        early=1,
        fails=1,
    ),
    _case("blocks rest twice k1", (BLOCK_0, BLOCK_1), {"a": "v1"}, 120_000, heard=("v1",), kills=1, rests=2),
    _case("blocks, newer version", (BLOCK_0, BLOCK_1, V2_LATE), {"a": "v2"}, 360_000, heard=("v2",), rests=1),
    _case("blocks of two versions", (BLOCK_0, BLOCK_1, *NEW_BLOCKS), {"a": "v2"}, 1_000_000, heard=("v2",)),
    _case(
        "a person meddles, two versions k1",
        (V1, V2),
        {"a": ("v2", "v1", "foreign", None)},
        44_000,
        outsider=1,
        kills=1,
    ),
    _case(
        "another host, two versions k1",
        (V1, V2),
        {"a": ("v1", "v2", None)},
        33_000,
        kills=1,
        elsewhere=1,
        contradiction=True,
    ),
]


def by_name(name: str) -> Scenario:
    """Return a scenario of the quick set."""
    return next(case.scenario for case in QUICK if case.scenario.name == name)
