"""Files of this machine become announcements: what is in them, their order, what cannot be announced."""

from __future__ import annotations

import base64
import hashlib
import os

import pytest

from sarrapipe.callbacks.gather_file import GatherFile
from sarrapipe.config.model import FlowConfig
from sarrapipe.config.values import IdentityChoice
from sarrapipe.errors import ConfigError

LARGE = 300_000  # beyond what is hashed where it is met


def config_for(tree, **options):
    defaults = {"post_base_url": "http://here/data/", "post_base_dir": str(tree), "path": (str(tree),)}
    return FlowConfig(**{**defaults, **options})


def gather_all(config, at_once=3):
    """Take everything there is, as the flow does, and end the threads."""
    source = GatherFile(config)
    messages = []
    while not source.exhausted:
        _, items = source.gather(at_once)
        assert len(items) <= at_once + os.cpu_count() * 2
        messages += [item.message for item in items]
    source.on_stop()
    return messages, source.errors


@pytest.fixture
def tree(tmp_path):
    top = tmp_path / "tree"
    (top / "b").mkdir(parents=True)
    (top / "b/inner.txt").write_bytes(b"inner")
    (top / "a.txt").write_bytes(b"some data")
    (top / "empty").write_bytes(b"")
    (top / "large.bin").write_bytes(b"x" * LARGE)
    (top / "link").symlink_to("a.txt")
    (top / "naïve name #1 50%.txt").write_bytes(b"odd")
    os.chmod(top / "a.txt", 0o640)
    os.utime(top / "a.txt", ns=(1_700_000_000_000_000_000, 1_700_000_000_500_000_000))
    return top


def test_a_tree_is_announced_whole_and_a_directory_before_what_is_in_it(tree):
    messages, errors = gather_all(config_for(tree))
    paths = [message.rel_path for message in messages]
    assert sorted(paths) == sorted(
        ["a.txt", "b", "b/inner.txt", "empty", "large.bin", "link", "naïve name #1 50%.txt"]
    )
    assert paths.index("b") < paths.index("b/inner.txt")
    assert not errors


def test_the_announcement_of_a_file_says_all_there_is_to_know(tree):
    messages, _ = gather_all(config_for(tree, path=(str(tree / "a.txt"),), header={"priority": "high"}))
    (message,) = messages
    digest = base64.b64encode(hashlib.sha512(b"some data").digest()).decode()
    assert message["baseUrl"] == "http://here/data/"
    assert message["size"] == 9
    assert message["mode"] == "640"
    assert message["mtime"] == "20231114T221320.5"
    assert message["identity"] == {"method": "sha512", "value": digest}
    assert message["priority"] == "high"


@pytest.mark.parametrize(
    ("choice", "expected"),
    [
        (IdentityChoice("md5"), base64.b64encode(hashlib.md5(b"some data").digest()).decode()),
        (IdentityChoice("cod", "sha512"), "sha512"),
        (IdentityChoice("arbitrary", "me"), "me"),
    ],
)
def test_every_method_of_identity(tree, choice, expected):
    messages, _ = gather_all(config_for(tree, path=(str(tree / "a.txt"),), identity=choice))
    assert messages[0]["identity"] == {"method": choice.method, "value": expected}


def test_identity_none_leaves_the_field_out_and_random_is_four_digits(tree):
    one = (str(tree / "a.txt"),)
    messages, _ = gather_all(config_for(tree, path=one, identity=IdentityChoice("none")))
    assert "identity" not in messages[0]
    messages, _ = gather_all(config_for(tree, path=one, identity=IdentityChoice("random")))
    assert len(messages[0].identity.value) == 4


def test_a_large_file_is_hashed_on_the_pool_with_the_same_result(tree):
    messages, _ = gather_all(config_for(tree, path=(str(tree / "large.bin"),)))
    assert messages[0].identity.value == base64.b64encode(hashlib.sha512(b"x" * LARGE).digest()).decode()


def test_a_link_is_announced_as_one_or_followed(tree):
    one = (str(tree / "link"),)
    (message,), _ = gather_all(config_for(tree, path=one))
    assert message["fileOp"] == {"link": "a.txt"}
    (message,), _ = gather_all(config_for(tree, path=one, follow_symlinks=True))
    assert "fileOp" not in message
    assert message["size"] == 9


def test_recursive_off_stays_on_top(tree):
    messages, _ = gather_all(config_for(tree, recursive=False))
    assert "b/inner.txt" not in [message.rel_path for message in messages]
    assert "b" in [message.rel_path for message in messages]


def test_randomize_changes_the_order_and_nothing_else(tree):
    for number in range(30):
        (tree / f"f{number:02d}").write_bytes(b"")
    plain = [message.rel_path for message in gather_all(config_for(tree))[0]]
    shuffled = [message.rel_path for message in gather_all(config_for(tree, randomize=True))[0]]
    assert sorted(plain) == sorted(shuffled)
    assert plain != shuffled  # equal once in 30! tries


def test_events_that_are_not_wanted_are_left_out(tree):
    messages, _ = gather_all(config_for(tree, file_events=frozenset({"link"})))
    assert [message.rel_path for message in messages] == ["link"]


def test_permissions_and_times_are_left_out_where_asked(tree):
    messages, _ = gather_all(config_for(tree, perm_copy=False, time_copy=False))
    assert not any({"mode", "mtime", "atime"} & set(message) for message in messages)


def test_what_flows_have_under_way_is_not_announced(tree):
    (tree / ".sarrapipe/sarra_x").mkdir(parents=True)
    (tree / ".sarrapipe/sarra_x/5f3c").write_bytes(b"half")
    messages, _ = gather_all(config_for(tree))
    assert not any(".sarrapipe" in message.rel_path for message in messages)


def test_each_thing_that_cannot_be_announced_is_named_and_the_rest_is_announced(tree, tmp_path):
    os.mkfifo(tree / "pipe")
    (tmp_path / "outside").write_bytes(b"")
    paths = (str(tree), str(tree / "vanished"), str(tmp_path / "outside"))
    messages, errors = gather_all(config_for(tree, path=paths))
    assert len(messages) == 7
    assert len(errors) == 3
    assert any("pipe: neither file, directory nor link" in error for error in errors)
    assert any("vanished: no such file or directory" in error for error in errors)
    assert any("outside: not below post_baseDir" in error for error in errors)


def test_a_base_url_is_needed():
    with pytest.raises(ConfigError, match="post_baseUrl is missing"):
        GatherFile(FlowConfig())
