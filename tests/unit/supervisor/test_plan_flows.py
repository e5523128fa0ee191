"""What is to be run: requests, plans, and the flows that commands mean."""

import os

import pytest

from sarrapipe.config.load import ConfigHome, find_flows
from sarrapipe.errors import ConfigError, UsageError
from sarrapipe.shm.arena import Arena
from sarrapipe.supervisor import flows
from sarrapipe.supervisor.paths import FlowPaths
from sarrapipe.supervisor.plan import FlowPlan, FlowRequest, load_from_config, resolve
from sarrapipe.supervisor.wire import Reader, pack

CONFIG = """
broker amqp://tfeed@localhost/
instances 3
subtopic #
directory /tmp
post_broker amqp://tfeed@localhost/
post_exchange xpublic
post_baseUrl http://localhost/
"""


@pytest.fixture
def home(tmp_path):
    made = ConfigHome(str(tmp_path / "config"), str(tmp_path / "state"))
    for component, name in (("sarra", "one"), ("sarra", "two"), ("subscribe", "one")):
        path = made.config_file(component, name)
        os.makedirs(os.path.dirname(path), exist_ok=True)
        with open(path, "w") as file:
            file.write(CONFIG)
    with open(made.credentials_file, "w", opener=lambda path, flags: os.open(path, flags, 0o600)) as file:
        file.write("amqp://tfeed:pw@localhost/\n")
    return made


def started(home, component, name):
    paths = flows.paths_of(home, component, name)
    paths.make()
    Arena.create(paths.arena, paths.flow, created_wall_ns=0).close()
    return paths


def names(found):
    return [paths.flow for paths in found]


def test_flows_are_found_by_pattern_and_by_what_runs_without_a_configuration(home):
    started(home, "sarra", "gone")
    assert names(flows.find(home, [])) == ["sarra/gone", "sarra/one", "sarra/two", "subscribe/one"]
    assert names(flows.find(home, ["sarra"])) == ["sarra/gone", "sarra/one", "sarra/two"]
    assert names(flows.find(home, ["sarra/gone"])) == ["sarra/gone"]
    assert names(flows.find(home, ["*/one", "sarra/one"])) == ["sarra/one", "subscribe/one"]
    with pytest.raises(UsageError, match="sarra/thre"):
        flows.find(home, ["sarra/thre"])


def test_state_below_the_hosts_name_is_found(home, monkeypatch):
    monkeypatch.setattr("socket.gethostname", lambda: "node7.example.com")
    state_dir = home.flow_state_dir("sarra", "one", "node7")
    os.makedirs(state_dir)
    assert flows.paths_of(home, "sarra", "one").state_dir == state_dir
    assert flows.paths_of(home, "sarra", "two").state_dir == home.flow_state_dir("sarra", "two")


def test_a_component_means_its_enabled_configurations(home):
    paths = flows.paths_of(home, "sarra", "two")
    paths.make()
    with open(paths.disabled, "w"):
        pass
    made = flows.requests(home, ["sarra"], [("instances", "5")])
    assert [request.flow for request in made] == ["sarra/one"]
    assert made[0].overrides == (("instances", "5"),)
    assert made[0].entry == "sarrapipe.instance:main"
    os.makedirs(flows.paths_of(home, "sarra", "one").state_dir)
    with open(flows.paths_of(home, "sarra", "one").disabled, "w"):
        pass
    with pytest.raises(UsageError, match="disabled"):
        flows.requests(home, ["sarra"], [])


def test_a_component_without_configurations_runs_from_the_command_line(home):
    (request,) = flows.requests(home, ["post"], [("broker", "amqp://localhost/")])
    assert (request.component, request.name, request.flow) == ("post", "", "post")
    with pytest.raises(UsageError):
        flows.requests(home, ["post"], [])


def test_without_names_every_enabled_flow_is_meant(home, tmp_path):
    assert [request.flow for request in flows.requests(home, [], [])] == [
        "/".join(flow) for flow in find_flows(home, [], enabled_only=True)
    ]
    nowhere = ConfigHome(str(tmp_path / "none"), str(tmp_path / "state"))
    with pytest.raises(UsageError, match="no enabled configuration"):
        flows.requests(nowhere, [], [])


def test_another_work_for_instances_can_be_named(home, monkeypatch):
    monkeypatch.setenv(flows.ENTRY_VARIABLE, "mine:main")
    assert flows.requests(home, ["sarra/one"], [])[0].entry == "mine:main"


def request(home, overrides=()):
    return FlowRequest(
        component="sarra",
        name="one",
        config_home=home.config_dir,
        state_home=home.state_dir,
        overrides=overrides,
    )


def test_the_plan_of_a_configuration(home):
    plan, config = load_from_config(request(home))
    assert plan.instances == config.instances == 3
    assert plan.state_dir == home.flow_state_dir("sarra", "one")
    assert (plan.stop_s, plan.hung_s, plan.pin) == (config.stop_timeout, config.hung_after, config.pin)


def test_what_needs_new_instances_changes_the_fingerprint(home):
    base = load_from_config(request(home))[0].fingerprint
    assert load_from_config(request(home))[0].fingerprint == base
    assert load_from_config(request(home, (("instances", "9"),)))[0].fingerprint == base
    assert load_from_config(request(home, (("prefetch", "9"),)))[0].fingerprint != base
    with open(home.credentials_file, "w") as file:
        file.write("amqp://tfeed:other@localhost/\n")
    assert load_from_config(request(home))[0].fingerprint != base


def test_a_wrong_configuration_is_an_error_with_file_and_line(home):
    with open(home.config_file("sarra", "one"), "a") as file:
        file.write("instances many\n")
    with pytest.raises(ConfigError, match=r"one\.conf:9"):
        load_from_config(request(home))


def test_requests_and_plans_travel():
    (data,) = Reader().feed(pack(FlowPlan(state_dir="/s", warnings=("a", "b")).to_wire()))
    assert FlowPlan.from_wire(data) == FlowPlan(state_dir="/s", warnings=("a", "b"))
    made = FlowRequest(component="a", name="b", config_home="c", state_home="d", overrides=(("k", "v"),))
    (data,) = Reader().feed(pack(made.to_wire()))
    assert FlowRequest.from_wire(data) == made


def test_names_of_functions():
    assert resolve("os.path:join") is os.path.join
    for wrong in ("os.path", "no.such.module:f", "os.path:nothing", ":", ""):
        with pytest.raises(ConfigError):
            resolve(wrong)


def test_names_of_files():
    paths = FlowPaths("sarra", "ddsr", "/h/.cache/sarra/sarra/ddsr")
    assert paths.log() == "/h/.cache/sarra/log/sarra_ddsr.log"
    assert paths.log(3) == "/h/.cache/sarra/log/sarra_ddsr_03.log"
    assert FlowPaths("post", "", "/s/post/command-line").log(1) == "/s/log/post_01.log"
