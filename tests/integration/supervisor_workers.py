"""Instances for tests of the supervisor: each a real process that does one thing.

The loader reads `plan.json` in the configuration directory; its `settings` are what instances see as their
configuration. Instances write one line a start to the file `starts` in the state directory.
"""

import json
import os
import signal
import time
from pathlib import Path

from sarrapipe.errors import ConfigError
from sarrapipe.supervisor.plan import FlowPlan


def load(request):
    plan = json.loads(Path(request.config_home, "plan.json").read_text())
    settings = plan.pop("settings", {})
    if "problem" in plan:
        raise ConfigError(plan["problem"], "plan.json", 1, 1)
    state_dir = os.path.join(request.state_home, request.component, request.name)
    return FlowPlan(state_dir=state_dir, fingerprint=json.dumps(settings), **plan), settings


def _note_start(context):
    config = json.dumps(context.config, default=repr)
    with open(os.path.join(context.state_dir, "starts"), "a") as file:
        file.write(f"{context.instance} {context.incarnation} {os.getpid()} {config}\n")


def _serve(context):
    while not context.stopping:
        context.heartbeat()
        context.mailbox.wait(0.2)
    return 0


def beating(context):
    """Work properly."""
    _note_start(context)
    if not (isinstance(context.config, dict) and context.config.get("never_ready")):
        context.ready()
    return _serve(context)


def slow_to_start(context):
    """Never become ready, but live."""
    _note_start(context)
    return _serve(context)


def hanging(context):
    """Become ready and fall silent, the first time; work properly after that."""
    _note_start(context)
    context.ready()
    if context.slot.failures == 0:
        _spin_for_ever()
    return _serve(context)


def _spin_for_ever():
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    while True:
        time.sleep(60)


def deaf(context):
    """Ignore every polite request to end."""
    _note_start(context)
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    context.ready()
    while True:
        context.heartbeat()
        time.sleep(0.05)


def crashing(context):
    """Die at once."""
    _note_start(context)
    os.abort() if context.config.get("abort") else os._exit(3)


def refusing(context):
    """Find the configuration at fault."""
    _note_start(context)
    raise ConfigError("broker: no such thing", "x.conf", 3, 8)


def finishing(context):
    """Have nothing more to do."""
    _note_start(context)
    context.ready()
    return 0


def raising(context):
    """Have a bug."""
    _note_start(context)
    raise ValueError("boom")


def watching(context):
    """Write what is heard of siblings into a file."""
    _note_start(context)
    context.ready()
    path = os.path.join(context.state_dir, f"heard.{context.incarnation}")
    while not context.stopping:
        context.heartbeat()
        news = context.mailbox.wait(0.2)
        if news.deaths or news.work:
            alive = sorted(context.arena.alive())
            told = {"deaths": news.deaths, "work": news.work, "alive": alive}
            Path(path + ".new").write_text(json.dumps(told))
            os.rename(path + ".new", path)
        if context.config.get("announce") == context.instance:
            context.announce_work()
            context.config["announce"] = 0
    return 0
