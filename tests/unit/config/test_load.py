"""Which files are read, in which order, and where they are (sr3-surface.md 3.3, 4; design.md 9)."""

from __future__ import annotations

import os

import pytest

from sarrapipe.config.load import (
    ConfigHome,
    find_flows,
    is_enabled,
    load_admin,
    load_flow,
    read_environment,
)
from sarrapipe.config.model import FlowConfig
from sarrapipe.config.problems import ConfigErrors
from sarrapipe.config.substitute import Environment
from sarrapipe.config.values import Inflight, InflightMode, Role
from sarrapipe.errors import UsageError

BROKER = "broker amqp://alice@pump.example.com/\n"


def test_homes():
    home = ConfigHome.from_environment({"HOME": "/home/u"})
    assert (home.config_dir, home.state_dir) == ("/home/u/.config/sarra", "/home/u/.cache/sarra")
    home = ConfigHome.from_environment(
        {"HOME": "/h", "SARRA_CONFIG_HOME": "/c", "SARRA_STATE_HOME": "/s/../t"}
    )
    assert (home.config_dir, home.state_dir) == ("/c", "/t")
    assert home.config_file("sarra", "x") == "/c/sarra/x.conf"
    assert home.flow_state_dir("sarra", "x") == "/t/sarra/x"
    assert home.flow_state_dir("post", "", "node1") == "/t/node1/post/command-line"
    assert ConfigHome.default() == ConfigHome.from_environment(os.environ)


def test_the_order_of_files(conf):
    conf.write("admin.conf", "batch 1\nprefetch 1\ninstances 1\nmirror on\nattempts 1\ntimeout 1\n")
    conf.write("default.conf", "prefetch 2\ninstances 2\nmirror on\nattempts 2\ntimeout 2\n")
    conf.write("subscribe/x.conf", BROKER + "instances 3\nattempts 3\n")
    config = conf.load(overrides=[("attempts", "4")])
    assert (config.batch, config.prefetch, config.instances, config.attempts) == (1, 2, 3, 4)
    assert config.mirror is False, "the component's default stands above default.conf (sr3-surface.md 3.3)"
    keys = ("batch", "prefetch", "instances", "attempts")
    files = [os.path.basename(config.origin(key).file) for key in keys]
    assert files == ["admin.conf", "default.conf", "x.conf", "command line"]
    assert config.state_dir == os.path.join(conf.home.state_dir, "subscribe", "x")
    assert config.config_dir == conf.home.config_dir
    assert config.flow == "subscribe/x"


def test_the_command_line_holds_for_what_lines_capture(conf):
    config = conf.read(
        "exchange xs_file\nsubtopic a\ndirectory /file\naccept .*\nsubtopic b\npath /p\n",
        overrides=[("exchange", "xs_mine"), ("directory", "/mine"), ("path", "/q"), ("path", "/r")],
    )
    (subscription,) = config.subscriptions
    assert [(b.exchange, b.subtopic) for b in subscription.bindings] == [("xs_mine", "a"), ("xs_mine", "b")]
    assert config.masks.masks[0].rule.directory.text == "/mine"
    assert config.path == ("/q", "/r")


def test_masks_of_the_command_line_are_looked_at_first(conf):
    config = conf.read("reject .*\n", overrides=[("accept", ".*wanted.*"), ("directory", "/mine")])
    assert config.masks.match("http://h/wanted").accepted
    assert config.masks.match("http://h/wanted").rule.directory.text == "/mine"
    assert not config.masks.match("http://h/other").accepted


def test_subtopics_of_the_command_line_replace_those_of_files(conf):
    config = conf.read("exchange xs_file\nsubtopic a\nsubtopic b\n", overrides=[("subtopic", "c.#")])
    assert [(b.exchange, b.subtopic) for b in config.subscriptions[0].bindings] == [("xs_file", "c.#")]


def test_headers_of_the_command_line_are_added(conf):
    config = conf.read("header a=file\nheader b=file\n", overrides=[("header", "a=mine")])
    assert dict(config.header) == {"a": "mine", "b": "file"}


def test_errors_of_the_command_line(conf):
    conf.write("subscribe/x.conf", BROKER)
    with pytest.raises(ConfigErrors) as caught:
        conf.load(overrides=[("prefetch", "x"), ("prefech", "3"), ("accept", "(")])
    told = [str(error) for error in caught.value.errors]
    assert len(told) == 3
    assert all(text.startswith("command line: ") for text in told)


def test_a_component_without_a_configuration(conf):
    config = conf.load("post", "", [
        ("post_broker", "amqp://alice@pump.example.com/"), ("post_baseUrl", "http://h/"), ("path", "data"),
    ])  # fmt: skip
    assert config.flow == "post"
    assert (config.file, config.post_exchange, config.path) == ("", "xs_alice", ("/work/data",))
    assert config.post_broker.password == "alicepw"
    assert config.source == "alice"
    assert config.subscriptions == ()


@pytest.mark.parametrize(
    ("component", "text", "said"),
    [
        ("post", "post_baseUrl http://h/\n", "set post_broker"),
        ("post", "post_broker amqp://alice@pump.example.com/\n", "set post_baseUrl"),
        ("subscribe", "", "set broker"),
    ],
)
def test_what_a_component_cannot_do_without(conf, component, text, said):
    errors = conf.errors(text, component)
    assert any(said in what for _, _, what in errors)


def test_a_reader_from_the_command_line_alone_has_a_queue(conf):
    config = conf.load("subscribe", "", [("broker", "amqp://alice@pump.example.com/")])
    assert config.subscriptions[0].queue_name == "q_alice.subscribe.command-line"
    assert config.state_dir.endswith("/subscribe/command-line")


def test_sarra_speaks_as_the_feeder_of_admin_conf(conf):
    conf.write("admin.conf", "feeder amqp://feeder@pump.example.com/\n")  # R130
    conf.write("sarra/x.conf", "exchange xs_alice\npost_exchange xpublic\npost_baseUrl http://h/\n")
    config = conf.load("sarra", "x")
    assert config.subscriptions[0].broker.password == "feederpw"
    assert (config.post_broker.user, config.post_exchange) == ("feeder", "xpublic")
    assert config.download
    assert config.source is None
    assert config.origin("post_broker").file.endswith("admin.conf")


def test_v2s_post_wrote_broker_and_exchange(conf):
    config = conf.read(BROKER + "exchange xs_alice_two\nurl http://h/\n", "post")
    assert (config.post_broker.user, config.post_exchange, config.post_base_url) == (
        "alice",
        "xs_alice_two",
        "http://h/",
    )


@pytest.mark.parametrize(
    ("attribute", "native", "sr3"),
    [
        ("prefetch", 100, 25),
        ("source_from_message", True, False),
        ("inflight", Inflight(InflightMode.HIDDEN), Inflight(InflightMode.NONE)),
        ("hung_after", 120.0, 450.0),
        ("expire", 0.0, 0.0),
    ],
)
def test_defaults_native_and_sr3(conf, attribute, native, sr3):
    assert getattr(conf.read(""), attribute) == native
    config = conf.read("defaults sr3\n")
    assert getattr(config, attribute) == sr3
    if native != sr3:
        assert str(config.origin(attribute)) == "sr3 default"
    conf.write("default.conf", "defaults sr3\n")
    assert getattr(conf.read("prefetch 7\n" if attribute != "prefetch" else ""), attribute) == sr3


def test_sr3s_exchange_and_queue(conf):
    (subscription,) = conf.read("defaults sr3\n").subscriptions
    assert subscription.bindings[0].exchange == "xs_alice"
    assert subscription.queue_name.startswith("q_alice.subscribe.x.u_node1.example.com_")
    (native,) = conf.read("").subscriptions
    assert native.bindings[0].exchange == "xpublic"  # R50
    (suffixed,) = conf.read("exchangeSuffix two\n").subscriptions
    assert suffixed.bindings[0].exchange == "xs_alice_two"


def test_rates_are_of_the_flow_and_in_sr3_of_an_instance(conf):
    assert conf.read("byteRateMax 1000\ninstances 4\n").flow_byte_rate == 1000
    assert conf.read("defaults sr3\nbyteRateMax 1000\ninstances 4\n").flow_byte_rate == 4000


def test_statehost_sets_hosts_apart(conf):
    config = conf.read("statehost\n")
    assert config.state_dir == os.path.join(conf.home.state_dir, "node1", "subscribe", "x")


def test_no_such_flow_or_component(conf):
    conf.write("subscribe/good_name.conf", BROKER)
    for component, name, said in (
        ("subscribe", "god_name", "did you mean subscribe/good_name?"),
        ("subscribe", "../x", "no name"),
        ("winnow", "x", "not supported yet"),
        ("sara", "x", "did you mean 'sarra'?"),
    ):
        with pytest.raises(UsageError, match=said.replace("?", r"\?")):
            conf.load(component, name)


@pytest.mark.parametrize(
    ("data", "line", "column"),
    [(b"mirror\nbatch \xff\n", 2, 7), (b"\x00", 1, 1), (b"mirror\nx\x07", 2, 2)],
)
def test_files_that_are_no_text(conf, data, line, column):
    conf.write("subscribe/x.conf", "").write_bytes(data)
    with pytest.raises(ConfigErrors) as caught:
        conf.load()
    error = next(error for error in caught.value.errors if "set broker" not in error.what)
    assert (error.line, error.column) == (line, column)


def test_a_file_without_end(conf):
    conf.write("subscribe/x.conf", "# comment\n" * 500_000)
    with pytest.raises(ConfigErrors, match="no configuration"):
        conf.load()


def test_the_example_of_the_seeds_reads_as_it_stands(conf):
    conf.write(
        "admin.conf",
        """\
        cluster blacklab
        admin amqps://hbic@blacklab/
        feeder  amqps://feeder@blacklab/
        declare source goldenlab
        declare subscriber anonymous
        """,
    )  # R132
    conf.write(
        "credentials.conf",
        """\
        amqps://hbic:hbicpw@blacklab/
        amqps://feeder:feederpw@blacklab/
        amqps://goldenlab:puppypw@blacklab/
        amqps://anonymous:anonymous@blacklab/
        """,
    ).chmod(0o600)
    admin = load_admin(conf.home, conf.environment)
    assert admin.cluster == "blacklab"
    assert (admin.admin.user, admin.admin.password) == ("hbic", "hbicpw")
    assert (admin.feeder.user, admin.feeder.password) == ("feeder", "feederpw")
    assert dict(admin.users) == {
        "hbic": Role.ADMIN, "feeder": Role.FEEDER, "goldenlab": Role.SOURCE, "anonymous": Role.SUBSCRIBER,
    }  # fmt: skip
    assert len(admin.credentials) == 4


def test_admin_conf_may_lack_or_be_wrong(conf):
    assert load_admin(conf.home, conf.environment).cluster is None
    conf.write("admin.conf", "cluster\ndeclare surce x\n")
    with pytest.raises(ConfigErrors) as caught:
        load_admin(conf.home, conf.environment)
    assert [error.line for error in caught.value.errors] == [1, 2]


@pytest.fixture
def flows(conf):
    for name in ("sarra/dd1", "sarra/dd2", "subscribe/dd1", "subscribe/other", "post/p"):
        conf.write(f"{name}.conf", BROKER)
    conf.write("subscribe/common.inc", "")
    conf.write("winnow/later.conf", "")
    disabled = conf.root / "state" / "sarra" / "dd2" / "disabled"
    disabled.parent.mkdir(parents=True)
    disabled.write_text("")
    return conf


@pytest.mark.parametrize(
    ("patterns", "expected"),
    [
        ([], ["post/p", "sarra/dd1", "sarra/dd2", "subscribe/dd1", "subscribe/other"]),
        (["sarra"], ["sarra/dd1", "sarra/dd2"]),
        (["sarra/"], ["sarra/dd1", "sarra/dd2"]),
        (["*/dd1"], ["sarra/dd1", "subscribe/dd1"]),
        (["dd1"], ["sarra/dd1", "subscribe/dd1"]),
        (["subscribe/other.conf", "post/p"], ["post/p", "subscribe/other"]),
        (["s*/dd[12]", "sarra/dd2"], ["sarra/dd1", "sarra/dd2", "subscribe/dd1"]),
        (["other.conf"], ["subscribe/other"]),
        (["sarra", "dd1"], ["sarra/dd1"]),
        (["sarra", "dd1", "dd2"], ["sarra/dd1", "sarra/dd2"]),
        (["sarra", "post"], ["post/p", "sarra/dd1", "sarra/dd2"]),
        (["sarra", "dd1", "subscribe/dd1"], ["sarra/dd1", "subscribe/dd1"]),
        (["subscribe", "d*"], ["subscribe/dd1"]),
    ],
)
def test_flows_are_found_by_patterns(flows, patterns, expected):
    assert ["/".join(flow) for flow in find_flows(flows.home, patterns)] == expected


def test_disabled_flows_are_left_out_unless_named(flows):
    def names(*patterns):
        return ["/".join(flow) for flow in find_flows(flows.home, patterns, enabled_only=True)]

    assert names("sarra") == ["sarra/dd1"]
    assert names("*/dd2") == []
    assert names("sarra/dd2") == ["sarra/dd2"]
    assert "sarra/dd2" not in names()
    assert not is_enabled(flows.home, "sarra", "dd2")
    assert is_enabled(flows.home, "sarra", "dd1")


@pytest.mark.parametrize(
    ("pattern", "said"),
    [
        ("sara/dd1", "did you mean sarra/dd1?"),
        ("othr", "did you mean other?"),
        ("winnow/later", "not supported yet"),
        ("winnow", "not supported yet"),
        ("nothing/like/it", "no configuration matches"),
    ],
)
def test_patterns_that_name_nothing(flows, pattern, said):
    with pytest.raises(UsageError) as caught:
        find_flows(flows.home, [pattern])
    assert said in str(caught.value)


def test_an_empty_home_has_no_flows(tmp_path):
    assert find_flows(ConfigHome(str(tmp_path / "none"), str(tmp_path / "s"))) == []


def test_the_environment_of_this_process():
    environment = read_environment({"HOME": "/h", "USER": "me", "X": "y"})
    assert (environment.home, environment.user, environment.variables["X"]) == ("/h", "me", "y")
    assert environment.hostname
    assert environment.cwd == os.getcwd()


def test_what_differs_between_homes_differs_in_the_random_number(conf, tmp_path):
    text = "queueName q_alice.${RAND8}\n"
    first = conf.read(text).subscriptions[0].queue_name
    other = ConfigHome(conf.home.config_dir, str(tmp_path / "elsewhere"))
    assert load_flow(other, "subscribe", "x", (), conf.environment).subscriptions[0].queue_name == first
    changed = Environment(user="u", hostname="node1.example.com", seed="another machine")
    assert load_flow(conf.home, "subscribe", "x", (), changed).subscriptions[0].queue_name != first


def test_a_configuration_of_defaults_can_be_made_without_files():
    config = FlowConfig()
    assert config.flow == ""
    assert config.masks.match("http://h/x").accepted
    assert config.credentials.lookup("http://h/") is None
