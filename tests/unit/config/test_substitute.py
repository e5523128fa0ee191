"""Variables (sr3-surface.md 3.4): those known when reading, those of messages, times in UTC (R135)."""

from __future__ import annotations

import contextlib
import pickle
import time

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sarrapipe.config.substitute import Environment, Template, expand, is_message_variable, variables
from sarrapipe.config.variables import static_variable
from sarrapipe.errors import MessageError, UnsafePath
from sarrapipe.units import parse_time_ns

NOW = parse_time_ns("20240229T013005")
MESSAGE = {
    "baseUrl": "https://data.example.com:8443/pub/new%20data/",
    "relPath": "a/SACN43_CWAO_012000_AAA_41613:ncp1:CWAO:SA:3.A.I.E:3:20050201200339",
    "source": "alice",
}


def render(text, message=MESSAGE, groups=(), now_ns=NOW, offset_s=0.0):
    return Template(text, offset_s).render(message, groups, now_ns)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("/data", "/data"),
        ("${SOURCE}", "alice"),
        ("x${SOURCE}y${SOURCE}", "xaliceyalice"),
        ("${BUP}", "/pub/new data/"),
        ("${baseUrlPath}", "/pub/new data/"),
        ("${%Y%m%d}", "20240229"),
        ("${%Y/%m/%d/%H:%M:%S}", "2024/02/29/01:30:05"),
        ("${%j}", "060"),
        ("${%o-1h%Y%m%d%H}", "2024022900"),
        ("${%o-2h%Y%m%d%H}", "2024022823"),
        ("${%-2h%H}", "23"),
        ("${%+1d%Y%m%d}", "20240301"),
        ("${%o1d%d}", "01"),
        ("${YYYYMMDD}", "20240229"),
        ("${YYYY}/${MM}/${DD}/${HH}/${JJJ}", "2024/02/29/01/060"),
        ("${YYYYMMDD-1D}", "20240228"),
        ("${YYYYMMDD-70m}", "20240229"),
        ("${YYYY-60D}", "2023"),
        ("${MM-30D}", "01"),
        ("${JJJ-2D}", "058"),
        ("${T1}${T2}${A1}${A2}${ii}", "SACN43"),
        ("${CCCC}/${YY}/${GG}/${Gg}/${BBB}", "CWAO/01/20/00/AAA"),
        ("${RYYYY}${RMM}${RDD}${RHH}${RMN}${RSS}", "20050201200339"),
    ],
)
def test_message_variables(text, expected):
    assert render(text) == expected


def test_the_last_part_of_the_base_url():
    message = {**MESSAGE, "baseUrl": "https://h/pub/feed"}
    assert render("${BUPL}|${baseUrlPathLast}", message) == "feed|feed"


def test_groups_of_the_accept_line():
    assert render("${1}/${0}", groups=("whole", "one")) == "one/whole"
    with pytest.raises(MessageError, match="group 2"):
        render("${2}", groups=("whole", "one"))


def test_reception_time_is_the_present_where_the_name_has_none():
    assert render("${RYYYY}${RMM}${RDD}", {**MESSAGE, "relPath": "a/b"}) == "20240229"


def test_times_are_utc_whatever_the_zone(monkeypatch):
    monkeypatch.setenv("TZ", "America/Vancouver")
    time.tzset()
    try:
        assert render("${%Y%m%d%H}") == "2024022901"  # R135; sr3 would say 2024022817
    finally:
        monkeypatch.delenv("TZ")
        time.tzset()


def test_an_offset_shifts_every_time():
    assert render("${%H}${HH}", offset_s=-3600.0) == "0000"


def test_time_goes_on():
    template = Template("${%S}")
    assert [template.render({}, (), NOW + step * 10**9) for step in (0, 0, 1, 2)] == ["05", "05", "06", "07"]


@pytest.mark.parametrize("message", [{}, {"source": ""}, {"source": 3}])
def test_a_message_without_the_field_is_refused(message):
    with pytest.raises(MessageError, match="source"):
        render("${SOURCE}", message)


@pytest.mark.parametrize("source", ["..", ".", "a/b", "../../etc"])
def test_a_source_that_is_no_name_is_refused(source):
    with pytest.raises(UnsafePath):
        render("/data/${SOURCE}", {"source": source})


@pytest.mark.parametrize("name", ["SOURCE", "0", "17", "%Y", "%o-1h%Y", "YYYY-3D", "T1", "RSS", "BUP"])
def test_names_that_wait_for_a_message(name):
    assert is_message_variable(name)


@pytest.mark.parametrize(
    "name", ["", "HOME", "%", "%Q", "YYYY-3X", "%o-1x%Y", "1a", "12345", "source", "BROKER_USER"]
)
def test_names_that_do_not(name):
    assert not is_message_variable(name)


def test_unknown_variables_stay_as_they_are():
    template = Template("/a/${NOPE}/b")
    assert template.constant == "/a/${NOPE}/b"
    assert variables(template.text) == [(3, "NOPE")]


def test_what_a_template_knows_of_itself():
    assert Template("/a").constant == "/a"
    assert Template("/a/${SOURCE}").constant is None
    assert Template("/a/${3}/${1}").highest_group == 3
    assert not Template("/a/${SOURCE}").uses_groups
    assert Template("/a", 1.0) != Template("/a")
    assert len({Template("/a"), Template("/a"), Template("/b")}) == 2


def test_a_template_travels_between_processes():
    copy = pickle.loads(pickle.dumps(Template("${SOURCE}-${%H}", 3600.0)))
    assert copy.render(MESSAGE, (), NOW) == "alice-02"


def test_expand_replaces_what_is_known_and_what_that_holds():
    known = {"A": "1${B}", "B": "2"}
    assert expand("x${A}y${C}${B}", known.get) == "x12y${C}2"


def test_a_circle_is_an_error():
    with pytest.raises(ValueError, match="circle"):
        expand("${A}", {"A": "x${B}", "B": "${A}"}.get)


def test_growth_without_end_is_an_error():
    with pytest.raises(ValueError, match="circle"):
        expand("${A}", {"A": "${A}${A}${A}${A}${A}${A}${A}${A}"}.get)


def test_static_variables():
    environment = Environment(user="u", hostname="node1.example.com", seed="s")
    names = ("HOSTNAME", "USER", "PROGRAM", "COMPONENT", "CONFIG", "RAND8", "RANDID", "OTHER")
    value = {name: static_variable(name, environment, "sarra", "ddsr") for name in names}
    assert value["HOSTNAME"] == "node1.example.com"
    assert (value["USER"], value["PROGRAM"], value["COMPONENT"], value["CONFIG"]) == (
        "u",
        "sarra",
        "sarra",
        "ddsr",
    )
    assert value["RAND8"].isdigit()
    assert len(value["RAND8"]) == 8
    assert len(value["RANDID"]) == 4
    assert value["OTHER"] is None


def test_random_numbers_differ_between_hosts_and_flows_and_stay():
    def number(host="a", name="x"):
        return static_variable("RAND8", Environment(hostname=host), "sarra", name)

    assert number() == number()
    assert len({number(), number(host="b"), number(name="y")}) == 3


@given(st.text(alphabet="${}%oYm-+1hT/ .A", max_size=40))
@settings(max_examples=300, deadline=None)
def test_any_text_renders_or_is_refused_by_name(text):
    with contextlib.suppress(MessageError, UnsafePath):
        assert isinstance(render(text, groups=("w", "g")), str)
