"""One declared option is file key, flag, type, default and help: the records are complete and agree."""

from __future__ import annotations

import dataclasses

import pytest

from sarrapipe.config.components import COMPONENTS
from sarrapipe.config.model import FlowConfig, option_specs
from sarrapipe.config.names import find, statement_words, unknown_name
from sarrapipe.config.option import OptionSpec, by_key, declared
from sarrapipe.config.statements import STATEMENTS
from sarrapipe.config.synonyms import LATER, NEEDLESS, REWRITES, SYNONYMS, nearest, snake_case

SPECS = option_specs()
KNOWN_TO_US = {spec.key for spec in SPECS} | statement_words()


@pytest.mark.parametrize("spec", SPECS, ids=lambda spec: spec.key)
def test_a_record_is_complete(spec):
    assert spec.help.endswith(".")
    assert len(spec.help) > 15
    assert spec.section
    # What `show` prints of a default can be read back from a file; "" is written as None.
    for value in (spec.default, spec.sr3):
        text = spec.kind.format(value)
        empty = type(value)() if isinstance(value, (str, tuple)) else value
        assert spec.kind.parse(text or "None", empty) == value or (spec.key == "header" and not text)


def test_names_are_unique():
    assert len({spec.key for spec in SPECS}) == len(SPECS)
    assert len({spec.flag for spec in SPECS}) == len(SPECS)
    assert not {spec.key for spec in SPECS} & statement_words()


@pytest.mark.parametrize(
    ("attribute", "key"),
    [
        ("topic_prefix", "topicPrefix"),
        ("post_base_url", "post_baseUrl"),
        ("post_message_age_max", "post_messageAgeMax"),
        ("nodupe_ttl", "nodupe_ttl"),
        ("tls_rigour", "tlsRigour"),
        ("amqp_queue_args", "amqp_queue_args"),
        ("hung_after", "runStateThreshold_hung"),
    ],
)
def test_the_key_is_the_one_of_sr3(attribute, key):
    assert by_key(FlowConfig)[key].attribute == attribute


def test_flow_config_has_a_typed_field_for_each_option():
    fields = {field.name for field in dataclasses.fields(FlowConfig)}
    assert {spec.attribute for spec in SPECS} <= fields
    assert FlowConfig().prefetch == 100
    assert declared(FlowConfig) == SPECS


def test_a_flow_config_is_frozen():
    with pytest.raises(dataclasses.FrozenInstanceError):
        FlowConfig().prefetch = 3  # type: ignore[misc]


@pytest.mark.parametrize("name", sorted(SYNONYMS))
def test_a_synonym_means_something_we_have(name):
    assert SYNONYMS[name] in KNOWN_TO_US
    assert find(name) is not None


@pytest.mark.parametrize(
    ("name", "key"),
    [
        ("topic_prefix", "topicPrefix"),
        ("queue_name", "queueName"),
        ("base_dir", "baseDir"),
        ("post_base_url", "post_baseUrl"),
        ("suppress_duplicates", "nodupe_ttl"),
        ("source_from_exchange", "sourceFromExchange"),
        ("tls_rigour", "tlsRigour"),
        ("recompute_chksum", "recompute_checksum"),
        ("sum", "identity"),
        ("lock", "inflight"),
        ("to", "to_clusters"),
    ],
)
def test_spellings_of_v2_and_sr3(name, key):
    found = find(name)
    assert isinstance(found, OptionSpec)
    assert found.key == key


def test_the_tables_of_names_do_not_overlap():
    for table in (LATER, NEEDLESS, REWRITES):
        assert not set(table) & (KNOWN_TO_US | set(SYNONYMS)), "a name we have is not for later"
    assert not set(LATER) & set(NEEDLESS)
    for rewrite in REWRITES.values():
        for value in ("on", "off", "5"):
            assert find(rewrite(value)[0]) is not None


def test_component_defaults_name_declared_options():
    attributes = {spec.attribute for spec in SPECS}
    for component in COMPONENTS.values():
        assert component.defaults.keys() <= attributes


def test_every_statement_begins_with_a_known_word():
    assert {"accept", "reject", "subtopic", "include", "declare", "callback", "set"} <= statement_words()
    assert all(key.split()[0] in statement_words() for key in STATEMENTS)


@pytest.mark.parametrize(
    ("wrong", "meant", "slip"),
    [
        ("prefech", "prefetch", True),
        ("postBaseUrl", "post_baseUrl", True),
        ("SUBTOPIC", "subtopic", True),
        ("instnaces", "instances", True),
        ("zzz_nothing_like_it", None, False),
    ],
)
def test_unknown_names_get_the_nearest(wrong, meant, slip):
    what, looks_like_slip = unknown_name(wrong)
    assert (f"did you mean {meant!r}" in what) == (meant is not None)
    assert looks_like_slip is slip


def test_an_endless_name_is_cut():
    what, _ = unknown_name("x" * 5000)
    assert len(what) < 200


def test_nearest_ignores_case():
    assert nearest("MIRROR", ["mirror", "strip"]) == "mirror"
    assert nearest("qqqq", ["mirror", "strip"]) is None


def test_snake_case():
    assert snake_case("post_baseUrl") == "post_base_url"
    assert snake_case("runStateThreshold_hung") == "run_state_threshold_hung"
