"""Announcing files: what a tree becomes, what cannot be announced, and a broker that is not there."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import socket
import stat
import subprocess
import sys

import pytest
from broker_driver import CuttingProxy
from flowkit import SOURCE_EXCHANGE, Site, sha512

from sarrapipe.errors import ConfigError
from sarrapipe.flow.posting import post_files
from sarrapipe.pump.ports import free_ports
from sarrapipe.shm.slots import Counter

pytestmark = pytest.mark.broker

DATA = b"some data"


@pytest.fixture
def site(tmp_path, vhost, docroot):
    with Site(tmp_path, vhost, docroot) as made:
        yield made


def post(site, *paths, lines=""):
    """Announce paths below the document root; return the result and the messages."""
    tap = site.tap(SOURCE_EXCHANGE)
    named = "\n".join(f"path {site.docroot.path / path}" for path in paths)
    result = post_files(site.config("post", f"{lines}\n{named}"), clock=site.clock)
    return result, tap.take()


def make_tree(site):
    site.put("t/a/f", DATA)
    site.put("t/a/empty", b"")
    site.put("t/b/c/g", b"other")
    (site.docroot.path / "t/link").symlink_to("a/f")
    (site.docroot.path / "t/dangling").symlink_to("nowhere")
    (site.docroot.path / "t/none").mkdir()
    os.chmod(site.docroot.path / "t/a/f", 0o4751)
    os.utime(site.docroot.path / "t/a/f", ns=(1, 1577934245_123456789))


def test_a_tree(site):
    # R9, R43
    make_tree(site)
    result, messages = post(site, "t")
    assert (result.posted, result.errors) == (10, [])
    by_path = {message.rel_path: message for message in messages}
    paths = [message.rel_path for message in messages]
    assert sorted(paths) == [
        "t", "t/a", "t/a/empty", "t/a/f", "t/b", "t/b/c", "t/b/c/g", "t/dangling", "t/link", "t/none",
    ]  # fmt: skip
    for path in paths:
        above = path.rpartition("/")[0]
        assert not above or paths.index(above) < paths.index(path), "a directory before what is in it"
    file = by_path["t/a/f"]
    assert file["identity"] == sha512(DATA)
    assert (file["size"], file["mode"], file["mtime"]) == (len(DATA), "4751", "20200102T030405.123456789")
    assert file["baseUrl"] == site.docroot.url
    assert file["source"] == "tsource"
    assert by_path["t/a/empty"]["size"] == 0
    assert by_path["t/link"]["fileOp"] == {"link": "a/f"}
    assert by_path["t/dangling"]["fileOp"] == {"link": "nowhere"}
    assert by_path["t/none"]["fileOp"] == {"directory": ""}


def test_what_is_posted_arrives(site):
    make_tree(site)
    flow = site.run()
    result, _ = post(site, "t")
    flow.until_settled(result.posted)
    assert site.files() == site.files(site.docroot.path)
    there, here = site.docroot.path / "t/a/f", site.dest / "t/a/f"
    assert here.stat().st_mtime_ns == there.stat().st_mtime_ns
    assert stat.S_IMODE(here.stat().st_mode) == 0o751
    site.assert_clean(flow)


@pytest.mark.parametrize(
    ("option", "identity"),
    [
        ("sha512", sha512(DATA)),
        ("md5", {"method": "md5", "value": "HlAhGgLTZ70yX7dIOOFPSg=="}),
        ("xxh3_128", None),
        ("cod,md5", {"method": "cod", "value": "md5"}),
        ("arbitrary,v1", {"method": "arbitrary", "value": "v1"}),
        ("random", None),
        ("none", None),
    ],
)
def test_identities(site, option, identity):
    site.put("f", DATA)
    _, (message,) = post(site, "f", lines=f"identity {option}")
    found = message.get("identity")
    if identity is not None and option != "md5":
        assert found == identity
    elif option == "none":
        assert found is None
    else:
        assert found["method"] == option
        assert found["value"]


def test_large_files_are_hashed_beside_the_others(site):
    large = {f"large{number}": os.urandom(1 << 20) for number in range(10)}
    for name, data in large.items():
        site.put(f"t/{name}", data)
    for number in range(30):
        site.put(f"t/small{number}", b"%d" % number)
    result, messages = post(site, "t")
    assert (result.posted, result.errors) == (41, [])
    by_path = {message.rel_path: message for message in messages}
    for name, data in large.items():
        assert by_path[f"t/{name}"]["identity"] == sha512(data)
        assert by_path[f"t/{name}"]["size"] == 1 << 20


def test_what_cannot_be_announced_is_named_and_the_rest_is_posted(site):
    make_tree(site)
    top = site.docroot.path / "t"
    os.mkfifo(top / "fifo")
    with contextlib.closing(socket.socket(socket.AF_UNIX)) as listening:
        listening.bind(str(top / "socket"))
        with open(os.fsencode(top) + b"/bad\xff", "wb") as file:
            file.write(DATA)
        outside = site.directory / "outside"
        outside.write_bytes(DATA)
        result, messages = post(site, "t", outside, "missing")
    assert result.posted == 10
    assert len(messages) == 10
    for text in (
        "t/fifo: neither file, directory nor link",
        "t/socket: ",
        "t/bad\\udcff: its name is not UTF-8",
        f"{outside}: not below post_baseDir",
        "missing: no such file or directory",
    ):
        assert any(text in error for error in result.errors), (text, result.errors)
    assert len(result.errors) == 5


def test_the_command_says_what_it_could_not_announce(site):
    site.put("t/f", DATA)
    with open(os.fsencode(site.docroot.path) + b"/t/bad\xff", "wb"):
        pass
    config = site.config("post", name="here")
    environment = {
        **os.environ,
        "SARRA_CONFIG_HOME": site.home.config_dir,
        "SARRA_STATE_HOME": site.home.state_dir,
    }
    top = config.post_base_dir + "/t"
    command = [sys.executable, "-m", "sarrapipe", "post", "-c", "here", top]
    ended = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=60)
    assert ended.returncode == 1
    assert "2 posted in" in ended.stdout
    assert "bad\\udcff: its name is not UTF-8" in ended.stderr
    ended = subprocess.run([*command, "--json"], env=environment, capture_output=True, text=True, timeout=60)
    assert ended.returncode == 1
    assert json.loads(ended.stdout)["posted"] == 2
    (site.docroot.path / "t/f").unlink()
    os.unlink(os.fsencode(site.docroot.path) + b"/t/bad\xff")
    assert subprocess.run(command, env=environment, capture_output=True, timeout=60).returncode == 0


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
def test_files_that_may_not_be_read(site):
    site.put("t/f", DATA).chmod(0)
    result, messages = post(site, "t")
    assert [message.rel_path for message in messages] == ["t"]
    assert "t/f: Permission denied" in result.errors[0]


def test_files_that_vanish_or_change_while_they_are_read(site, monkeypatch):
    for name in ("t/gone", "t/grows", "t/stays"):
        site.put(name, DATA)
    real_scandir = os.scandir

    def scandir(path):
        scan = real_scandir(path)
        if str(path).endswith("/t"):
            entries = list(scan)
            (site.docroot.path / "t/gone").unlink()
            return contextlib.nullcontext(iter(entries))
        return scan

    monkeypatch.setattr(os, "scandir", scandir)
    result, messages = post(site, "t")
    assert sorted(message.rel_path for message in messages) == ["t", "t/grows", "t/stays"]
    assert len(result.errors) == 1
    assert "t/gone: No such file or directory" in result.errors[0]


def test_recursive_off(site):
    make_tree(site)
    _, messages = post(site, "t", lines="recursive off")
    assert {m.rel_path for m in messages} == {"t", "t/a", "t/b", "t/dangling", "t/link", "t/none"}


def test_follow_symlinks(site):
    make_tree(site)
    result, messages = post(site, "t", lines="follow_symlinks on")
    by_path = {message.rel_path: message for message in messages}
    assert by_path["t/link"]["identity"] == sha512(DATA)
    assert "fileOp" not in by_path["t/link"]
    assert "t/dangling" not in by_path
    assert any("t/dangling" in error for error in result.errors)


def test_a_loop_of_links_that_is_followed_ends(site):
    site.put("t/f", DATA)
    (site.docroot.path / "t/loop").symlink_to(".")
    result, messages = post(site, "t", lines="follow_symlinks on")
    assert sorted(message.rel_path for message in messages) == ["t", "t/f", "t/loop"]
    assert "t/loop: a link to a directory it is in" in result.errors[0]


def test_randomize_announces_the_same_in_another_order(site):
    for number in range(50):
        site.put(f"t/f{number:02d}", b"")
    _, messages = post(site, "t", lines="randomize on")
    paths = [message.rel_path for message in messages]
    assert sorted(paths) != paths
    assert sorted(paths) == sorted(["t", *(f"t/f{number:02d}" for number in range(50))])


def test_events_that_are_not_wanted(site):
    make_tree(site)
    _, messages = post(site, "t", lines="fileEvents create,modify")
    assert {m.rel_path for m in messages} == {"t/a/f", "t/a/empty", "t/b/c/g"}


def test_masks_and_headers(site):
    make_tree(site)
    lines = "reject .*/b/.*\nheader mine=yes\nto_clusters ALL\ncluster here"
    _, messages = post(site, "t", lines=lines)
    assert "t/b/c/g" not in {m.rel_path for m in messages}
    assert all((m["mine"], m["to_clusters"], m["from_cluster"]) == ("yes", "ALL", "here") for m in messages)


def test_what_flows_have_under_way_is_not_announced(site):
    site.put("t/f", DATA)
    site.put("t/.sarrapipe/sarra_x/0123", b"half a file")
    _, messages = post(site, "t")
    assert {m.rel_path for m in messages} == {"t", "t/f"}


def test_v02(site):
    site.put("d/a b", DATA)
    tap = site.tap(SOURCE_EXCHANGE)
    post(site, "d/a b", lines="post_format v02")
    tap.take()
    body, headers, content_type = tap.raw[0]
    assert body.split()[1:3] == [site.docroot.url.encode(), b"d/a%20b"]
    assert headers["sum"] == f"s,{hashlib.sha512(DATA).hexdigest()}"
    assert headers["parts"] == f"1,{len(DATA)},1,0,0"
    assert content_type == "text/plain"
    assert tap.keys == ["v02.post.d"]


def test_nothing_to_announce_or_nowhere(site):
    with pytest.raises(ConfigError, match="nothing to announce"):
        post_files(site.config("post"))


def test_a_broker_that_is_away_is_waited_for(site):
    for number in range(300):
        site.put(f"t/f{number}", b"%d" % number)
    pump = site.vhost.pump
    [port] = free_ports(1)
    text = (site.directory / "config/credentials.conf").read_text()
    site.credentials(text + text.replace(f":{pump.amqp_port}/", f":{port}/"))
    url = site.vhost.url("tsource", password=False).replace(f":{pump.amqp_port}/", f":{port}/")
    tap = site.tap(SOURCE_EXCHANGE)
    waited: list[str] = []
    with contextlib.ExitStack() as stack:

        def progress(result, waiting_for):
            waited.append(waiting_for)
            if len(waited) == 2:
                assert result.posted == 0
                stack.enter_context(CuttingProxy(pump.amqp_port, listen=port))

        config = site.config("post", f"post_broker {url}\npublishWindow 50\npath {site.docroot.path}/t")
        result = post_files(config, progress, site.clock)
    assert result.posted == 301
    assert any("Connection refused" in each for each in waited)
    assert sorted(tap.paths()) == sorted(["t", *(f"t/f{number}" for number in range(300))])


def test_connections_cut_while_posting_lose_nothing(site):
    for number in range(400):
        site.put(f"t/f{number}", b"%d" % number)
    pump = site.vhost.pump
    tap = site.tap(SOURCE_EXCHANGE)
    with CuttingProxy(pump.amqp_port) as proxy:
        text = (site.directory / "config/credentials.conf").read_text()
        site.credentials(text + text.replace(f":{pump.amqp_port}/", f":{proxy.port}/"))
        url = site.vhost.url("tsource", password=False).replace(f":{pump.amqp_port}/", f":{proxy.port}/")
        config = site.config("post", f"post_broker {url}\npublishWindow 20\npath {site.docroot.path}/t")
        proxy.cut(lambda _: 0)
        result = post_files(config, clock=site.clock)
    assert result.posted == 401
    assert set(tap.paths()) == {"t", *(f"t/f{number}" for number in range(400))}


def test_a_callback_that_fails_is_told_in_the_result(site):
    site.plugin(
        "refuse",
        "from sarrapipe.callbacks.base import FlowCallback\n"
        "class Refuse(FlowCallback):\n"
        "    def after_accept(self, worklist):\n"
        "        raise ValueError('no')\n",
    )
    site.put("f", DATA)
    result, messages = post(site, "f", lines="callback refuse")
    assert messages == []
    assert "f: Refuse.after_accept: ValueError: no" in result.errors[0]


def test_files_too_young_to_be_announced_are_told(site):
    site.put("young", DATA)
    os.utime(site.put("old", DATA), (1, 1))
    result, messages = post(site, "young", "old", lines="fileAgeMin 1h")
    assert [message.rel_path for message in messages] == ["old"]
    assert "young: file is 0 s old, fileAgeMin 3600 s" in result.errors[0]


def test_counters(site):
    make_tree(site)
    running = site.run("post", f"path {site.docroot.path}/t")
    running.until(lambda: running.flow.finished, "all is posted")
    assert running.count(Counter.MESSAGES_PUBLISHED) == 10
    assert running.count(Counter.FILES_OK) == 3
    assert running.count(Counter.FILES_LINKED) == 2
    assert running.count(Counter.DIRECTORIES_OK) == 5
