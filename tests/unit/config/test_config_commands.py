"""`check`, `show`, `list options` and the flags: what a person sees, and the exit codes."""

from __future__ import annotations

import json

import click
import pytest
from click.testing import CliRunner

from sarrapipe.cli.commands import check, list_options, show
from sarrapipe.config.flags import flow_options
from sarrapipe.config.model import option_specs
from sarrapipe.config.report import check_flows, option_rows

GOOD = """\
broker amqp://alice@pump.example.com/
prefetch 7
header url=https://u:hush@h/x
directory /d/${SOURCE}
strip 1
accept .*grib WHATFN
reject .*
callback log
"""


@pytest.fixture
def run(conf, monkeypatch):
    monkeypatch.setenv("SARRA_CONFIG_HOME", conf.home.config_dir)
    monkeypatch.setenv("SARRA_STATE_HOME", conf.home.state_dir)

    def invoke(module, *arguments):
        result = CliRunner().invoke(module.command, arguments, standalone_mode=False)
        if result.exception is not None:
            raise result.exception
        return result.return_value, result.output

    return invoke


def test_check_is_content(conf, run):
    conf.write("subscribe/x.conf", GOOD)
    assert run(check) == (0, "ok: nothing wrong\n")


def test_check_tells_file_line_column_and_the_nearest_name(conf, run):
    path = conf.write("subscribe/x.conf", GOOD + "\nprefech 5\nsleep 3\n")
    code, output = run(check, "subscribe/x")
    assert code == 78
    assert output.splitlines() == [
        f"{path}:10:1: unknown option 'prefech'; did you mean 'prefetch'?",
        f"{path}:11:1: warning: sleep has nothing to switch here: "
        "messages are pushed, so there is no pause between passes",
    ]


def test_check_looks_at_everything(conf, run):
    conf.write("subscribe/x.conf", GOOD)
    conf.write("sarra/bad.conf", "batch none\n")
    conf.write("winnow/later.conf", "")
    conf.write("admin.conf", "declare nobody x\n")
    code, output = run(check, "--json")
    found = json.loads(output)
    assert code == 78
    assert {(entry["flow"], entry["severity"]) for entry in found} >= {
        ("sarra/bad", "error"),
        ("winnow/later", "warning"),
    }
    admin = [entry for entry in found if entry["file"].endswith("admin.conf")]
    assert len(admin) == 1, "one line's problem is told once, however many flows read it"
    assert (admin[0]["line"], admin[0]["column"]) == (1, 9)


def test_warnings_alone_are_no_failure(conf, run):
    conf.write("subscribe/x.conf", GOOD + "vip 10.0.0.1\n")
    code, output = run(check)
    assert code == 0
    assert "vip is not supported yet" in output


def test_no_password_is_told(conf):
    conf.write("subscribe/x.conf", "broker amqp://u:hush@nowhere:0/\n")
    assert all("hush" not in str(finding) for finding in check_flows(conf.home))


def test_show_prints_values_with_the_line_that_set_them(conf, run):
    path = conf.write("subscribe/x.conf", GOOD)
    code, output = run(show, "subscribe/x", "--origin", "--batch", "5")
    assert code == 0
    lines = {line.split()[0]: line for line in output.splitlines()}
    assert lines["prefetch"].split() == ["prefetch", "7", "#", f"{path}:2:1"]
    assert lines["batch"].endswith("# command line")
    assert lines["mirror"].endswith("# subscribe default")
    assert lines["attempts"].endswith("# default")
    assert "into /d/${SOURCE} mirror=off strip=1 filename=WHATFN" in lines["accept"]
    assert "v03.#" in lines["subscription"]
    assert "hush" not in output
    assert "alicepw" not in output


def test_show_leaves_out_defaults_when_asked(conf, run):
    conf.write("subscribe/x.conf", GOOD)
    _, output = run(show, "subscribe/x", "--set")
    assert "prefetch 7" in output
    assert "attempts" not in output


@pytest.mark.parametrize(("expire", "warned"), [("90", True), ("5m", True), ("1d", False), ("2d", False)])
def test_a_queue_that_does_not_outlast_a_night_is_warned_of(conf, expire, warned):
    conf.write("subscribe/x.conf", GOOD + f"expire {expire}\n")
    told = [finding.what for finding in check_flows(conf.home)]
    assert [what.startswith("expire ") for what in told] == [True] * warned


def test_flags_count_in_the_order_they_are_given():
    """The first accept or reject that matches decides; click by itself hands repeated flags over together."""

    @click.command()
    @flow_options
    def command(overrides=()):
        return overrides

    arguments = (
        "--accept a --reject b --accept c -o strip=1 --exchange x1 --subtopic s1 --mirror --exchange x2 "
        "--subtopic s2 --no-mirror --reject=d -ostrip=2"
    )
    given = command.main(arguments.split(), standalone_mode=False)
    assert given == (
        ("accept", "a"), ("reject", "b"), ("accept", "c"), ("strip", "1"), ("exchange", "x1"),
        ("subtopic", "s1"), ("mirror", "on"), ("exchange", "x2"), ("subtopic", "s2"), ("mirror", "off"),
        ("reject", "d"), ("strip", "2"),
    )  # fmt: skip


def test_what_show_prints_of_options_can_be_read_again(conf, run):
    conf.write("subscribe/x.conf", GOOD + "inflight .tmp\nexpire 90\nidentity cod,md5\nfileEvents -link\n")
    first = conf.load()
    _, output = run(show, "subscribe/x")
    keys = {spec.key: spec for spec in option_specs()}
    again = [tuple(line.partition(" ")[::2]) for line in output.splitlines() if line.split(" ")[0] in keys]
    second = conf.load(overrides=[(key, value or "None") for key, value in again if key != "header"])
    assert first.subscriptions == second.subscriptions
    for spec in keys.values():
        if not spec.kind.literal:  # names of queues have their variables replaced in subscriptions
            assert getattr(first, spec.attribute) == getattr(second, spec.attribute), spec.key


def test_show_as_json(conf, run):
    path = conf.write("subscribe/x.conf", GOOD)
    _, output = run(show, "x", "--json")
    values = {entry["option"]: entry for entry in json.loads(output)["subscribe/x"]}
    assert values["prefetch"] == {
        "option": "prefetch",
        "value": "7",
        "origin": {"file": str(path), "line": 2, "column": 1},
    }


def test_list_options(run):
    _, output = run(list_options)
    for spec in option_specs():
        assert f"  {spec.key} " in output
    _, found = run(list_options, "REPETITIONS", "--json")
    assert {row["key"] for row in json.loads(found)} >= {"nodupe_ttl"}
    assert run(list_options, "nothing holds this") == (1, "")
    assert [row.key for row in option_rows(["post_baseUrl"])][:1] == ["post_baseUrl"]


@pytest.fixture
def flags():
    @click.command()
    @click.argument("paths", nargs=-1)
    @flow_options
    def command(paths, overrides=()):
        return paths, overrides

    def parse(*arguments):
        return (
            CliRunner().invoke(command, arguments, standalone_mode=False, catch_exceptions=False).return_value
        )

    parse.command = command
    return parse


def test_flags_give_overrides_in_the_order_given(flags):
    paths, overrides = flags(
        "--instances", "16", "file", "--post-base-url", "http://h/", "--no-mirror", "--post_baseDir", "/p",
        "--download", "--path", "a", "--path", "b", "-o", "vip=1.2.3.4", "--accept", ".*x",
    )  # fmt: skip
    assert paths == ("file",)
    assert overrides == (
        ("instances", "16"), ("post_baseUrl", "http://h/"), ("mirror", "off"), ("post_baseDir", "/p"),
        ("download", "on"), ("path", "a"), ("path", "b"), ("vip", "1.2.3.4"), ("accept", ".*x"),
    )  # fmt: skip
    assert flags() == ((), ())


@pytest.mark.parametrize("spec", option_specs(), ids=lambda spec: spec.key)
def test_every_option_is_a_flag(flags, spec):
    value = [] if spec.kind.name == "flag" else ["x"]
    for name in (spec.flag, f"--{spec.key}"):
        assert flags(name, *value)[1] == ((spec.key, "on" if spec.kind.name == "flag" else "x"),)


def test_the_help_shows_common_flags_only(flags):
    text = CliRunner().invoke(flags.command, ["--help"]).output
    assert "--instances" in text
    assert "--accept" in text
    assert "--publish-window" not in text


def test_an_option_without_equals_is_wrong_usage(flags):
    with pytest.raises(click.BadParameter, match="NAME=VALUE"):
        flags("-o", "prefetch")
