"""Callbacks are found by name, in the user's directory first (sr3-surface.md 2.2, Loading)."""

from __future__ import annotations

import pytest

from sarrapipe.callbacks import loader
from sarrapipe.callbacks.base import FlowCallback
from sarrapipe.config.model import FlowConfig
from sarrapipe.errors import ConfigError

PLUGIN = """
from sarrapipe.callbacks.base import FlowCallback

class {name}(FlowCallback):
    pass
"""


@pytest.fixture
def plugins(tmp_path):
    return tmp_path / "plugins"


def write(plugins, name, text):
    path = plugins.joinpath(*name.split(".")).with_suffix(".py")
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)


@pytest.mark.parametrize(
    ("module", "kind", "asked"),
    [
        ("tag_them", "TagThem", "tag_them"),
        ("sub.counting", "Counting", "sub.counting"),
        ("several", "Chosen", "several.Chosen"),
        ("oddly", "NamedOtherwise", "oddly"),
    ],
)
def test_a_users_class_is_found_by_module_or_by_name(plugins, module, kind, asked):
    write(plugins, module, PLUGIN.format(name=kind))
    found = loader.load_class(asked, plugins)
    assert found.__name__ == kind
    assert issubclass(found, FlowCallback)
    (callback,) = loader.load([asked], FlowConfig(), plugins)
    assert not loader.is_bundled(callback)


def test_a_bundled_callback_is_found_by_its_bare_name(plugins):
    found = loader.load_class("log", plugins)
    assert found.__module__ == "sarrapipe.callbacks.log"


def test_an_unknown_name_says_where_was_looked(plugins):
    with pytest.raises(ConfigError, match=f"'nowhere' not found in {plugins}"):
        loader.load_class("nowhere", plugins)


@pytest.mark.parametrize(
    ("text", "complaint"),
    [("import no_such_module", "no_such_module"), ("1/0", "ZeroDivisionError"), ("x = 1", "no class Broken")],
)
def test_a_broken_module_is_named_without_a_traceback(plugins, text, complaint):
    write(plugins, "broken", text)
    with pytest.raises(ConfigError, match=complaint):
        loader.load_class("broken", plugins)


def test_a_constructor_that_raises_is_named(plugins):
    write(
        plugins,
        "refusing",
        PLUGIN.format(name="Refusing") + "    def __init__(self, o): raise OSError('no')\n",
    )
    with pytest.raises(ConfigError, match="'refusing' cannot start: OSError: no"):
        loader.load(["refusing"], FlowConfig(), plugins)
