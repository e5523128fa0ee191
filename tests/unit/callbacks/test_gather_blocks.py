"""Large files become announcements of their blocks: which, in what order, and what when they change."""

from __future__ import annotations

import base64
import hashlib
import os
import threading

import pytest
from servers import MS

from sarrapipe.callbacks import largefiles
from sarrapipe.callbacks.gather_file import GatherFile
from sarrapipe.callbacks.hashpool import FileDigests
from sarrapipe.config.masks import Masks
from sarrapipe.config.model import FlowConfig
from sarrapipe.config.values import IdentityChoice

OLD_NS = 1_700_000_000_000_000_000
DATA = bytes(range(256)) * 1000  # 256,000 bytes
BLOCK = 100_000


def sha512(data):
    return base64.b64encode(hashlib.sha512(data).digest()).decode()


@pytest.fixture
def big(tmp_path):
    path = tmp_path / "big"
    put(path, DATA)
    return path


def put(path, data, mtime_ns=OLD_NS):
    path.write_bytes(data)
    os.utime(path, ns=(mtime_ns, mtime_ns))


def replace(path, data, mtime_ns=OLD_NS):
    """Put another file in its place, at once."""
    put(path.with_suffix(".new"), data, mtime_ns)
    path.with_suffix(".new").rename(path)


def gather_all(path, at_once=5, **options):
    """Take everything there is, as the flow does."""
    awake = threading.Event()
    defaults = {"post_base_url": "http://here/", "post_base_dir": str(path.parent), "path": (str(path),)}
    source = GatherFile(FlowConfig(**{**defaults, "block_size": BLOCK, **options}), awake.set)
    messages = []
    while not source.exhausted:
        awake.clear()
        _, items = source.gather(at_once)
        assert len(items) <= at_once
        messages += [item.message for item in items]
        assert items or source.exhausted or awake.wait(10 * MS)
    source.on_stop()
    return messages, source.errors


def by_number(messages):
    return sorted(messages, key=lambda message: message.blocks.number)


def test_every_block_is_announced_with_its_own_digest(big):
    messages, errors = gather_all(big)
    assert not errors
    assert len(messages) == 3
    for number, message in enumerate(by_number(messages)):
        data = DATA[number * BLOCK : (number + 1) * BLOCK]
        blocks = message.blocks
        assert (message.rel_path, message.size) == ("big", len(data))
        assert message["identity"] == {"method": "sha512", "value": sha512(data)}
        assert (blocks.number, blocks.size, blocks.count, blocks.remainder) == (number, BLOCK, 3, 56_000)
        assert (blocks.method, blocks.file_size) == ("inplace", len(DATA))
        assert dict(blocks.manifest) == {number: (len(data), sha512(data))}
    assert len({message["pubTime"] for message in messages}) == 1
    assert len({message.blocks.id for message in messages}) == 1


def test_a_full_manifest_is_in_every_message(big):
    messages, _ = gather_all(big, blocks_manifest="full")
    digests = [sha512(DATA[offset : offset + BLOCK]) for offset in range(0, len(DATA), BLOCK)]
    for message in messages:
        assert [entry.identity for entry in message.blocks.manifest.values()] == digests
        assert [entry.size for entry in message.blocks.manifest.values()] == [BLOCK, BLOCK, 56_000]
        assert message.identity.value == digests[message.blocks.number]


def test_announcing_again_says_the_same_of_the_version(big):
    first, again = gather_all(big)[0], gather_all(big, block_size=90_000, time_copy=False)[0]
    assert first[0].blocks.id == again[0].blocks.id
    os.utime(big, ns=(OLD_NS, OLD_NS + 1))
    assert gather_all(big)[0][0].blocks.id != first[0].blocks.id


@pytest.mark.parametrize("manifest", ["self", "full"])
@pytest.mark.parametrize(
    ("choice", "value"),
    [
        (IdentityChoice("cod", "sha512"), "sha512"),
        (IdentityChoice("arbitrary", "me"), "me"),
        (IdentityChoice("none"), None),
    ],
)
def test_identities_that_are_not_of_the_data(big, choice, value, manifest):
    messages, _ = gather_all(big, at_once=2, identity=choice, blocks_manifest=manifest)
    assert [message.blocks.number for message in messages] == [0, 1, 2]
    for message in messages:
        assert message.identity is None if value is None else message.identity.value == value
        assert {entry.identity for entry in message.blocks.manifest.values()} == {value}
        assert len(message.blocks.manifest) == (1 if manifest == "self" else 3)


def test_randomize_shuffles_the_blocks(big):
    for method in ("none", "xxh3_128"):
        messages, _ = gather_all(big, block_size=1000, randomize=True, identity=IdentityChoice(method))
        numbers = [message.blocks.number for message in messages]
        assert numbers != sorted(numbers)
        assert sorted(numbers) == list(range(256))


def test_files_below_the_threshold_are_announced_whole(big):
    (message,), _ = gather_all(big, block_size=len(DATA))
    assert message.blocks is None
    assert message.identity.value == sha512(DATA)
    (message,), _ = gather_all(big, block_size=0)
    assert message.blocks is None


def test_a_small_block_size_cuts_small_files(tmp_path):
    put(tmp_path / "small", b"12345")
    messages, _ = gather_all(tmp_path / "small", block_size=2)
    assert [message.size for message in by_number(messages)] == [2, 2, 1]


def test_too_many_blocks_are_a_complaint_that_names_the_file(big, monkeypatch):
    monkeypatch.setattr(largefiles, "MAX_FULL_MANIFEST", 2)
    messages, errors = gather_all(big, blocks_manifest="full")
    assert not messages
    assert f"{big}: 3 blocks" in errors[0]
    assert len(gather_all(big)[0]) == 3


def change_while_read(monkeypatch, change):
    """Have `change` called, with the count from 1, at the end of each range that is read."""
    count = [0]
    check = FileDigests.check
    lock = threading.Lock()

    def changing(file, descriptor):
        with lock:
            count[0] += 1
            change(count[0])
        check(file, descriptor)

    monkeypatch.setattr(FileDigests, "check", changing)


def test_a_version_that_changes_is_superseded_by_the_new_one(big, monkeypatch):
    new = DATA[::-1]
    change_while_read(monkeypatch, lambda count: replace(big, new, OLD_NS + 10**9) if count == 2 else None)
    messages, errors = gather_all(big)
    assert not errors
    ids = list(dict.fromkeys(message.blocks.id for message in messages))
    of_new = [message for message in messages if message.blocks.id == ids[-1]]
    assert [m.blocks.number for m in by_number(of_new)] == [0, 1, 2]
    for message in of_new:
        blocks = message.blocks
        assert message.identity.value == sha512(new[blocks.offset : blocks.offset + blocks.length])
        assert message["mtime"] == "20231114T221321"
    for message in messages[: -len(of_new)]:
        blocks = message.blocks
        assert message.identity.value == sha512(DATA[blocks.offset : blocks.offset + blocks.length])
        assert message["pubTime"] < of_new[0]["pubTime"]


def test_a_whole_file_that_changes_is_announced_as_it_is_then(big, monkeypatch):
    put(big, DATA + DATA)
    new = DATA + DATA + b"more"
    change_while_read(monkeypatch, lambda count: replace(big, new) if count == 1 else None)
    (message,), errors = gather_all(big, block_size=10**9)
    assert not errors
    assert message.identity.value == sha512(new)


def test_a_file_that_goes_on_changing_is_given_up_and_named(big, monkeypatch):
    change_while_read(monkeypatch, lambda count: os.utime(big, ns=(OLD_NS, OLD_NS + count)))
    messages, errors = gather_all(big)
    assert messages == []
    assert len(errors) == 1
    assert f"{big}: changed while it was read" in errors[0]
    assert "3 times" in errors[0]


def test_a_file_that_is_removed_meanwhile_is_named(big, monkeypatch):
    change_while_read(monkeypatch, lambda count: big.unlink() if count == 1 else None)
    messages, errors = gather_all(big)
    assert messages == []
    assert errors == [f"{big}: No such file or directory"]


def test_what_the_masks_refuse_is_not_read(big, monkeypatch):
    change_while_read(monkeypatch, lambda _: pytest.fail("it was read"))
    rule = FlowConfig().masks.default_rule
    (message,), errors = gather_all(big, masks=Masks((), rule, accept_unmatched=False))
    assert not errors
    assert message.identity is None  # the filter refuses it, and counts it once


def test_small_files_do_not_wait_for_large_ones(tmp_path, monkeypatch):
    tree = tmp_path / "tree"
    tree.mkdir()
    for number in range(20):
        put(tree / f"a-large-{number:02d}", b"x" * 300_000)
    for number in range(50):
        put(tree / f"z-small-{number:02d}", b"x")
    go_on = threading.Event()
    monkeypatch.setattr(FileDigests, "check", lambda *_: go_on.wait(10 * MS))
    config = FlowConfig(post_base_url="http://here/", post_base_dir=str(tree), path=(str(tree),))
    source = GatherFile(config)
    _, items = source.gather(1000)
    assert len(items) == 50
    assert all("small" in item.message.rel_path for item in items)
    go_on.set()
    source.on_stop()
