"""Every file in conf/ reads without an error, and says what its comments promise."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from sarrapipe.config.components import COMPONENTS
from sarrapipe.config.load import find_flows, load_admin
from sarrapipe.config.masks import match_text
from sarrapipe.config.placement import Placer
from sarrapipe.config.report import check_flows
from sarrapipe.units import parse_time_ns

EXAMPLES = Path(__file__).parents[3] / "conf"
NOW = parse_time_ns("20260504T013000")
FLOWS = sorted(
    (path.parent.name, path.stem) for path in EXAMPLES.glob("*/*.conf") if path.parent.name in COMPONENTS
)


@pytest.fixture
def examples(conf):
    for path in EXAMPLES.rglob("*"):
        target = conf.root / "config" / path.relative_to(EXAMPLES)
        if path.is_file():
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(path, target)
    shutil.copyfile(EXAMPLES / "credentials.example", conf.home.credentials_file)
    Path(conf.home.credentials_file).chmod(0o600)
    return conf


def test_there_are_examples_of_every_component():
    assert {component for component, _ in FLOWS} == set(COMPONENTS)


@pytest.mark.parametrize(("component", "name"), FLOWS)
def test_an_example_reads_without_an_error(examples, component, name):
    config = examples.load(component, name)
    assert (component, name) in find_flows(examples.home)
    assert config.origins["identity"]
    if COMPONENTS[component].reads:
        assert all(subscription.bindings for subscription in config.subscriptions)


def test_no_example_has_errors_or_warnings(examples):
    assert list(check_flows(examples.home)) == []


def place(config, path, base="https://blacklab/", source="goldenlab"):
    wire = {"baseUrl": base, "relPath": path, "source": source, "pubTime": "20260504T012959"}
    match = config.masks.match(match_text(wire))
    return Placer(config).target(wire, match, NOW) if match.accepted else None


def test_the_pump_puts_day_and_source_first(examples):
    config = examples.load("sarra", "ddsr")
    assert place(config, "obs/a.bin") == "/srv/pump/20260504/goldenlab/obs/a.bin"  # R134, R135
    assert place(config, "obs/.hidden") is None
    assert (config.instances, config.source_from_exchange) == (16, True)
    assert config.subscriptions[0].bindings[0].exchange == "xs_goldenlab"
    assert (config.post_broker.user, config.post_exchange) == ("feeder", "xpublic")


def test_bulletins_go_where_the_lines_above_say(examples):
    config = examples.load("subscribe", "bulletins")
    day = "20260504/WXO-DD"
    assert place(config, f"{day}/marine_weather/x/y.xml") == "/data/marine/marine_weather/x/y.xml"
    station = f"{day}/bulletins/alphanumeric/SACN43_CWAO_0400"
    assert place(config, station) == "/data/stations/CWAO/SACN43_CWAO_0400"
    other = f"{day}/bulletins/alphanumeric/FPCN11_CWAO:a:b"
    assert place(config, other) == "/data/other/20260504/01/FPCN11_CWAO"
    assert place(config, f"{day}/radar/x.png") is None
    assert place(config, f"{day}/marine_weather/x.flufl_lock.xml") is None


def test_version_2s_spellings_have_their_effect(examples):
    config = examples.load("subscribe", "v2_style")
    assert config.subscriptions[0].queue_name == "q_anonymous.subscribe.v2_style.node1.example.com"
    assert config.subscriptions[0].bindings[0].routing_key == "v02.post.observations.#"
    assert (config.nodupe_ttl, config.byte_rate_max, config.perm_default) == (300.0, 512000, 0o644)
    assert config.inflight.text == ".tmp"
    assert place(config, "observations/a/b.grib2") == "/data/20260504/01/observations_a_b.grib2"
    assert place(config, "observations/a/b.txt") is None


def test_a_mesh_peer_runs_with_sr3s_defaults(examples):
    config = examples.load("sarra", "mesh_peer")
    assert (config.defaults, config.prefetch) == ("sr3", 25)
    assert config.subscriptions[0].queue_name == "q_anonymous.sarra.mesh_peer.mesh_node1.example.com"
    assert config.post_base_url == "http://node1.example.com:8080/"


def test_admin_conf_is_the_seeds_own(examples):
    assert load_admin(examples.home, examples.environment).cluster == "blacklab"
