"""`declare`, `cleanup` and `list` as a person runs them, against a real broker."""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from flowkit import SOURCE_EXCHANGE, Site
from killkit import COMMAND
from servers import REPOSITORY, DocRoot, Vhost

pytestmark = pytest.mark.broker


@pytest.fixture
def site(tmp_path: Path, vhost: Vhost, docroot: DocRoot) -> Iterator[Site]:
    with Site(tmp_path, vhost, docroot) as made:
        yield made


def call(site: Site, *words: str) -> subprocess.CompletedProcess[str]:
    homes = {"SARRA_CONFIG_HOME": site.home.config_dir, "SARRA_STATE_HOME": site.home.state_dir}
    return subprocess.run(
        [*COMMAND, *words],
        env={**os.environ, **homes},
        cwd=REPOSITORY,
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )


def queue_of(site: Site, name: str) -> str:
    return site.config("sarra", f"queueName q_feeder.{name}", name=name).subscriptions[0].queue_name


def test_declared_twice_and_cleaned_up(site: Site) -> None:
    one, two = queue_of(site, "one"), queue_of(site, "two")
    first = call(site, "declare")
    assert first.returncode == 0, first.stderr
    assert f"sarra/one: queue {one}, 0 messages, 1 bindings, 0 removed" in first.stdout
    assert {one, two} <= set(site.vhost.queues())
    site.announce("f", b"x")
    again = json.loads(call(site, "declare", "sarra/one", "--json").stdout)
    assert again == [
        {
            "flow": "sarra/one",
            "queue": one,
            "messages": 1,
            "bound": [[SOURCE_EXCHANGE, "v03.#"]],
            "unbound": [],
        }
    ]
    refused = call(site, "cleanup", "sarra")
    assert refused.returncode == 2
    assert "sarra/one, sarra/two" in refused.stderr
    assert "--yes" in refused.stderr
    done = json.loads(call(site, "cleanup", "sarra/one", "--json").stdout)
    assert done == [{"flow": "sarra/one", "deleted": [one], "kept": []}]
    assert one not in site.vhost.queues()
    assert two in site.vhost.queues()
    assert call(site, "cleanup", "sarra", "--yes").returncode == 0
    assert two not in site.vhost.queues()


def test_a_binding_that_is_not_wanted_any_more_is_removed(site: Site) -> None:
    queue = queue_of(site, "one")
    assert call(site, "declare").returncode == 0
    site.config("sarra", f"queueName {queue}\nsubtopic a.#", name="one")
    text = Path(site.home.config_file("sarra", "one")).read_text().replace("subtopic #\n", "")
    Path(site.home.config_file("sarra", "one")).write_text(text)
    done = call(site, "declare")
    assert "1 bindings, 1 removed" in done.stdout
    assert site.vhost.bindings(queue) == {(SOURCE_EXCHANGE, "v03.a.#")}


def test_the_hooks_of_callbacks_are_called(site: Site, tmp_path: Path) -> None:
    said = tmp_path / "said"
    site.plugin(
        "tell",
        "from sarrapipe.callbacks.base import FlowCallback\n"
        "class Tell(FlowCallback):\n"
        "    def say(self, what):\n"
        f"        open({str(said)!r}, 'a').write(what + ' ')\n"
        "    def on_declare(self):\n"
        "        self.say('declared')\n"
        "    def on_cleanup(self):\n"
        "        self.say('cleaning')\n",
    )
    site.config("sarra", "callback tell", name="one")
    assert call(site, "declare").returncode == 0
    assert call(site, "cleanup", "sarra/one").returncode == 0
    assert said.read_text() == "declared cleaning "


def test_a_callback_that_fails_keeps_the_queue(site: Site) -> None:
    site.plugin(
        "refuse",
        "from sarrapipe.callbacks.base import FlowCallback\n"
        "class Refuse(FlowCallback):\n"
        "    def on_cleanup(self):\n"
        "        raise ValueError('not now')\n",
    )
    queue = site.config("sarra", "callback refuse", name="one").subscriptions[0].queue_name
    assert call(site, "declare").returncode == 0
    refused = call(site, "cleanup", "sarra/one")
    assert refused.returncode != 0
    assert "Refuse.on_cleanup: ValueError: not now" in refused.stderr
    assert "Traceback" not in refused.stderr
    assert queue in site.vhost.queues()


def test_a_flow_that_runs_is_not_cleaned_up(site: Site) -> None:
    queue = queue_of(site, "one")
    started = call(site, "start", "sarra/one")
    assert started.returncode == 0, started.stdout + started.stderr
    try:
        refused = call(site, "cleanup", "sarra/one")
        assert refused.returncode == 69
        assert "is running: stop it first" in refused.stderr
        assert queue in site.vhost.queues()
    finally:
        assert call(site, "stop").returncode == 0


def test_configurations_are_listed(site: Site) -> None:
    queue_of(site, "one")
    site.config("subscribe", name="two")
    listed = call(site, "list")
    assert listed.returncode == 0
    assert "sarra/one" in listed.stdout
    assert "subscribe/two" in listed.stdout
