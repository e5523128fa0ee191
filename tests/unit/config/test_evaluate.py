"""The configuration language (sr3-surface.md 3.3, 3.4): order, capture, bindings, includes, declarations."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sarrapipe.config.load import load_flow
from sarrapipe.config.problems import ConfigErrors
from sarrapipe.config.values import Binding, Role
from sarrapipe.errors import ConfigError

V03 = ("v03",)


def bindings(config):
    return [
        (str(subscription.broker), binding.exchange, binding.routing_key)
        for subscription in config.subscriptions
        for binding in subscription.bindings
    ]


def test_the_last_line_wins_and_each_value_knows_its_line(conf):
    config = conf.read("prefetch 5\nbatch 7\nprefetch 6\n")
    assert (config.prefetch, config.batch) == (6, 7)
    assert (config.origin("prefetch").line, config.origin("prefetch").column) == (4, 1)
    assert config.origin("post_base_url") == config.origin("post_baseUrl")
    assert str(config.origin("attempts")) == "default"
    assert str(config.origin("mirror")) == "subscribe default"
    with pytest.raises(KeyError):
        config.origin("nothing")


@pytest.mark.parametrize(
    ("line", "attribute", "value"),
    [
        ("download", "download", True),
        ("download no", "download", False),
        ("notify_only", "download", False),
        ("debug", "log_level", "debug"),
        ("debug off", "log_level", "info"),
        ("loglevel WARN", "log_level", "warning"),
        ("kbytes_ps 500", "byte_rate_max", 512000),
        ("blockSize 64MiB", "block_size", 64 << 20),
        ("blockSize off", "block_size", 1),
        ("blocksize 0", "block_size", 0),
        ("parts i,5M", "block_size", 5_000_000),
        ("parts 1", "block_size", 1),
        ("part_threshold 12MB", "block_size", 12 << 20),
        ("defaults sr3", "blocks_manifest", "full"),
        ("suppress_duplicates on", "nodupe_ttl", 300.0),
        ("chmod 640", "perm_default", 0o640),
        ("fileEvents -delete,rmdir", "file_events", {"create", "link", "mkdir", "modify", "rename"}),
        ("instances ${prefetch}", "instances", 100),
        ("prefetch 9\ninstances ${prefetch}", "instances", 9),
        ("cluster ${SITE}_${CONFIG}", "cluster", "north_x"),
        ("cluster ${BROKER_USER}", "cluster", "alice"),
        ("source ${cluster}\ncluster c", "source", "c"),
        ("source a\nsource ${source}b", "source", "ab"),
        ("declare env A=1\ndeclare var B=2${A}\ncluster ${B}", "cluster", "21"),
        ("declare env HOSTNAME=mine\ncluster ${HOSTNAME}", "cluster", "mine"),
        ("post_baseUrl http://${HOSTNAME}/", "post_base_url", "http://node1.example.com/"),
        ("post_baseDir ${HOME}/a//b/", "post_base_dir", "/home/u/a/b"),
        ("post_baseUrl sftp://u@h/srv/x", "post_base_dir", "/srv/x"),
        ("directory ${PBD}/y\npost_baseDir /p", "directory", "/p/y"),
        ("caFile ~/ca.pem", "ca_file", "/home/u/ca.pem"),
        ("post_format v02", "post_topic_prefix", ("v02", "post")),
        ("inflight 30", "file_age_min", 30.0),
        ("inflight 30\nfileAgeMin 5", "file_age_min", 5.0),
    ],
)
def test_values(conf, line, attribute, value):
    config = conf.read(line)
    assert getattr(config, attribute) == value


def test_subtopics_take_what_stands_above_them(conf):
    config = conf.read("""\
        broker amqp://alice@pump.example.com/
        exchange xs_one
        subtopic a.#
        topicPrefix v02.post
        subtopic b.*
        exchange xs_two
        subtopic c/d
        topic v04.whole.#
        """)
    broker = "amqp://alice@pump.example.com/"
    assert bindings(config) == [
        (broker, "xs_one", "v03.a.#"),
        (broker, "xs_one", "v02.post.b.*"),
        (broker, "xs_two", "v02.post.c.d"),
        (broker, "xs_two", "v04.whole.#"),
    ]
    assert len(config.subscriptions) == 1


def test_no_subtopic_binds_everything_and_none_binds_nothing(conf):
    assert bindings(conf.read("")) == [("amqp://alice@pump.example.com/", "xpublic", "v03.#")]
    config = conf.read("subtopic None\n")
    assert [subscription.bindings for subscription in config.subscriptions] == [()]


def test_each_broker_begins_a_subscription(conf):
    config = conf.read("""\
        broker amqp://alice@pump.example.com/
        subtopic a
        broker amqp://bob@other.example.com/
        exchange xs_${BROKER_USER}_public
        subtopic b
        subtopic c
        """)
    first, second = config.subscriptions
    assert (first.broker.user, first.broker.password) == ("alice", "alicepw")
    assert first.bindings == (Binding("xpublic", V03, "a"),)
    assert (second.broker.user, second.broker.password) == ("bob", "bobpw")
    assert second.bindings == (Binding("xs_bob_public", V03, "b"), Binding("xs_bob_public", V03, "c"))
    assert (first.queue_name, second.queue_name) == ("q_alice.subscribe.x", "q_bob.subscribe.x")
    assert (first.origin.line, second.origin.line) == (1, 3)


def test_a_subtopic_above_any_broker_belongs_to_the_first_below(conf):
    config = conf.read("subtopic a\nbroker amqp://alice@pump.example.com/\n")
    assert bindings(config) == [("amqp://alice@pump.example.com/", "xpublic", "v03.a")]


def test_an_exchange_below_subtopics_is_warned_of(conf):
    config = conf.read("subtopic a\nexchange xs_late\nsubtopic b\n")
    assert [binding[1] for binding in bindings(config)] == ["xpublic", "xs_late"]
    assert any("below it" in problem.what for problem in config.warnings)


@pytest.mark.parametrize(
    ("lines", "name"),
    [
        ("", "q_alice.subscribe.x"),
        (
            "queueName q_${BROKER_USER}.${PROGRAM}.${CONFIG}.${HOSTNAME}",
            "q_alice.subscribe.x.node1.example.com",
        ),
        ("queueShare site1", "q_alice.subscribe.x.site1"),
        ("queueName q_alice_mine", "q_alice_mine"),
        ("subtopic a\nqueueName q_alice_mine", "q_alice_mine"),
        ("declare env TEAM=t\nqueue_name q_alice.${TEAM}.${SITE}", "q_alice.t.north"),
    ],
)
def test_queue_names(conf, lines, name):
    # R53: nodes with one configuration share its queue, unless the name holds ${HOSTNAME}
    assert [subscription.queue_name for subscription in conf.read(lines).subscriptions] == [name]


def test_the_anonymous_do_not_share_a_queue_with_strangers(conf):
    text = "broker amqp://pump.example.com/\n"
    name = conf.read(text).subscriptions[0].queue_name
    assert name.startswith("q_anonymous.subscribe.x.u_node1.example.com_")
    assert conf.read(text).subscriptions[0].queue_name == name
    assert conf.read(text + "queueShare us\n").subscriptions[0].queue_name == "q_anonymous.subscribe.x.us"


def test_two_queues_at_one_broker(conf):
    config = conf.read("queueName q_alice_1\nsubtopic a\nqueueName q_alice_2\nsubtopic b\n")
    assert [(s.queue_name, s.bindings[0].subtopic) for s in config.subscriptions] == [
        ("q_alice_1", "a"),
        ("q_alice_2", "b"),
    ]


def test_includes_are_read_where_they_stand(conf):
    conf.write("subscribe/near.inc", "prefetch 2\ninclude far.inc\n")
    conf.write("far.inc", "batch 3\n")
    config = conf.read("prefetch 1\nbatch 1\ninclude near.inc\nconfig far.inc\ninstances 4\n")
    assert (config.prefetch, config.batch, config.instances) == (2, 3, 4)
    assert config.origin("prefetch").file.endswith("subscribe/near.inc")
    assert config.origin("prefetch").line == 1


def test_an_include_that_is_not_there(conf):
    ((line, column, what),) = conf.errors("broker amqp://alice@pump.example.com/\n  include nope.inc\n")
    assert (line, column) == (2, 11)
    assert "nope.inc" in what


def test_include_loops_are_told_as_a_loop(conf):
    conf.write("subscribe/a.inc", "include b.inc\n")
    conf.write("subscribe/b.inc", "include a.inc\n")
    (error,) = conf.errors("broker amqp://alice@pump.example.com/\ninclude a.inc\n")
    assert "includes itself" in error[2]
    assert "b.inc -> " in error[2]


def test_files_that_include_each_other_ever_deeper_end(conf):
    for number in range(40):
        conf.write(f"subscribe/{number}.inc", f"include {number + 1}.inc\n" * 2)
    errors = conf.errors("broker amqp://alice@pump.example.com/\ninclude 0.inc\n")
    assert any("too deeply" in what for _, _, what in errors)
    assert len(errors) <= 1000


def test_callbacks_keep_their_order(conf):
    config = conf.read("""\
        callback log
        flowcb my.module.Mine
        callback_prepend early.py
        cb log
        import my_transfer
        set log.Log.level debug
        declare option my_option
        my_option some value
        """)
    names = [(call.name, call.statement) for call in config.callbacks]
    assert names == [("early", "callback"), ("log", "callback"), ("my.module.Mine", "flowcb")]
    assert config.imports == ("my_transfer",)
    assert dict(config.callback_settings) == {"log.Log.level": "debug", "my_option": "some value"}


def test_unknown_names_belong_to_callbacks_unless_they_are_slips(conf):
    config = conf.read("callback mine\nwholly_other_thing 5\n")
    assert config.callback_settings["wholly_other_thing"] == "5"
    assert any("wholly_other_thing" in problem.what for problem in config.warnings)
    errors = conf.errors("broker amqp://alice@pump.example.com/\ncallback mine\nprefech 5\n")
    assert errors == [(3, 1, "unknown option 'prefech'; did you mean 'prefetch'?")]


def test_declared_accounts_and_exchanges(conf):
    config = conf.read("""\
        declare source alice
        declare subscriber bob-2
        declare subscribe carol
        declare feeder ddsr
        declare admin root_1
        declare exchange xs_alice_public
        """)
    assert dict(config.users) == {  # R127
        "alice": Role.SOURCE, "bob-2": Role.SUBSCRIBER, "carol": Role.SUBSCRIBER,
        "ddsr": Role.FEEDER, "root_1": Role.ADMIN,
    }  # fmt: skip
    assert config.exchanges == ("xs_alice_public",)


@pytest.mark.parametrize(
    ("line", "column", "said"),
    [
        ("prefetch", 1, "needs a value"),
        ("prefetch lots", 10, "whole number"),
        ("  prefetch   lots", 14, "whole number"),
        ("prefech 5", 1, "did you mean 'prefetch'?"),
        ("qqqqzzzz 5", 1, "list options"),
        ("accept a(b", 9, "regular expression"),
        ("accept", 1, "needs a regular expression"),
        ("reject *x", 8, "regular expression"),
        ("accept ${NOPE}", 8, "${NOPE}"),
        ("directory /a/${NOPE}", 14, "${NOPE}"),
        ("directory ${SUORCE}", 11, "did you mean ${SOURCE}"),
        ("exchange ${SOURCE}", 10, "for each message only"),
        ("directory /x/${2}\naccept (a)", 8, "1 groups"),
        ("subtopic a b", 1, "without blanks"),
        ("subtopic", 1, "pattern"),
        ("declare sorce alice", 9, "did you mean 'source'?"),
        ("declare env X", 9, "NAME=VALUE"),
        ("declare source a/b", 9, "not a name"),
        ("declare source bob\ndeclare feeder bob", 9, "source already"),
        ("include", 1, "needs a file"),
        ("callback a b", 1, "one name"),
        ("set x y", 5, "CLASS.OPTION"),
        ("broker ftp://h/", 8, "amqp"),
        ("broker amqp://u@${NOPE}/", 17, "${NOPE} has no value"),
        ("post_baseDir /x/${NOPE}", 17, "${NOPE} has no value"),
        ("broker amqp://zoe@pump.example.com/", 1, "no password for amqp://zoe@pump.example.com/"),
        ("post_broker amqp://zoe@pump.example.com/", 1, "no password"),
        ("identity sha1", 10, "sha512"),
        ("header x", 8, "KEY=VALUE"),
        ("declare env A=${B}\ndeclare env B=${A}\ncluster ${A}${HOME}${NOPE}", 20, "NOPE"),
        ("cluster ${cluster}", 9, "has no value"),
        ("queueName " + "q" * 300, 1, "255 bytes"),
        ("fileAgeMin 5\nfileAgeMax 3", 1, "no file is ever taken"),
        (
            "post_format v02\npost_broker amqp://alice@pump.example.com/\nidentity xxh3_128",
            1,
            "no letter in v02",
        ),
        ("flatten ab", 1, "one character"),
        ("acceptSchemes http,gopher", 1, "gopher"),
        ("tlsRigour strict", 1, "amqps://"),
        ("post_baseUrl /srv", 14, "not a URL"),
    ],
)
def test_errors_have_line_and_column(conf, line, column, said):
    text = line if line.startswith("broker") else f"broker amqp://alice@pump.example.com/\n{line}"
    errors = conf.errors(text)
    assert any(said in what for _, _, what in errors), errors
    number, found, _ = next(error for error in errors if said in error[2])
    if said != "amqps://":  # that one is about the broker's line
        assert (number, found) == (text.count("\n") + 1, column)


def test_every_problem_is_told_at_once(conf):
    errors = conf.errors("prefech 1\nbatch x\naccept (\nbroker amqp://nobody@nowhere/\nfilename what\n")
    assert [line for line, _, _ in errors] == [1, 2, 3, 4, 5]


def test_options_for_later_and_needless_ones_are_warnings(conf):
    config = conf.read("pollUrl sftp://x/\nsleep 5\n")
    said = [(problem.origin.line, problem.what) for problem in config.warnings]
    assert said[0] == (2, "pollUrl is not supported yet: the line has no effect")
    assert said[1][0] == 3
    assert "pushed" in said[1][1]


def test_what_is_sent_goes_under_the_path_of_the_server(conf):
    config = conf.read("sendTo sftp://alice@x/in/\nbaseDir /data\n")
    assert (config.send_to, config.directory, config.post_base_dir) == ("sftp://alice@x/in/", "/in", "/in")
    assert conf.read("sendTo sftp://x/in\ndirectory /other\n").directory == "/other"


def test_a_password_in_a_configuration_is_warned_of_and_hidden(conf):
    config = conf.read("broker amqp://alice:hush@pump.example.com/\n")
    assert any("credentials.conf" in problem.what for problem in config.warnings)
    assert "hush" not in repr(config)


LINE = st.sampled_from([
    "broker", "exchange", "subtopic", "accept", "reject", "directory", "strip", "filename", "declare env",
    "declare source", "include", "callback", "set", "header", "inflight", "identity", "queueName", "prefetch",
    "directroy", "fileEvents", "post_baseUrl", "expire", "topicPrefix", "flatten", "defaults", "sendTo",
])  # fmt: skip
VALUE = st.one_of(
    st.text(alphabet="ab.*#(){}[]$%/\\|+-=:@,0123 é\t", max_size=20),
    st.sampled_from(
        ["${SOURCE}", "${%Y}/x", "${1}", "x.conf", "amqp://h/", "sr3", "${A}", "A=${A}x", "on", ""]
    ),
)


@pytest.fixture(scope="module")
def home(make_home):
    return make_home()


@given(st.lists(st.tuples(LINE, VALUE), max_size=12))
@settings(max_examples=200, deadline=None)
def test_any_lines_make_a_configuration_or_errors_with_their_lines(home, lines):
    text = "".join(f"{name} {value}\n" for name, value in lines)
    home.write("sarra/x.conf", text)
    try:
        config = load_flow(home.home, "sarra", "x", (), home.environment)
    except ConfigErrors as errors:
        for error in errors.errors:
            assert type(error) is ConfigError
            assert error.file
            assert str(error).startswith(error.file)
            whole_file = any(word in error.what for word in ("set broker", "includes itself"))
            assert error.line >= 1 or whole_file, error
        return
    assert config.component == "sarra"
    assert all(problem.origin.file for problem in config.warnings)
