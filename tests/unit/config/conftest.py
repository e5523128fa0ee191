"""A configuration home in a temporary directory, and a way to read one text as a flow."""

from __future__ import annotations

import textwrap

import pytest

from sarrapipe.config.load import ConfigHome, load_flow
from sarrapipe.config.problems import ConfigErrors
from sarrapipe.config.substitute import Environment

CREDENTIALS = """
amqp://alice:alicepw@pump.example.com/
amqps://alice:tlspw@pump.example.com/
amqp://feeder:feederpw@pump.example.com/
amqp://bob:bobpw@other.example.com/
"""


class Home:
    """Writes files below one directory and reads flows from there."""

    def __init__(self, root):
        self.root = root
        self.home = ConfigHome(str(root / "config"), str(root / "state"))
        self.environment = Environment(
            variables={"HOME": "/home/u", "SITE": "north"},
            user="u",
            hostname="node1.example.com",
            seed="0123",
            cwd="/work",
            home="/home/u",
        )
        self.write("credentials.conf", CREDENTIALS).chmod(0o600)

    def write(self, name, text):
        path = self.root / "config" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(textwrap.dedent(text))
        return path

    def load(self, component="subscribe", name="x", overrides=()):
        return load_flow(self.home, component, name, overrides, self.environment)

    def read(self, text, component="subscribe", overrides=()):
        """Return the flow that a text makes, with a broker above it unless it names one."""
        head = "" if "broker" in text else "broker amqp://alice@pump.example.com/\n"
        self.write(f"{component}/x.conf", head + textwrap.dedent(text))
        return self.load(component, "x", overrides)

    def errors(self, text, component="subscribe", overrides=()):
        """Return the errors of a text, as (line, column, what); columns and lines are those of the text."""
        self.write(f"{component}/x.conf", textwrap.dedent(text))
        with pytest.raises(ConfigErrors) as caught:
            self.load(component, "x", overrides)
        return [(error.line, error.column, error.what) for error in caught.value.errors]


@pytest.fixture(scope="module")
def make_home(tmp_path_factory):
    """Make homes that outlive one test, for property tests."""
    return lambda: Home(tmp_path_factory.mktemp("home"))


@pytest.fixture
def conf(tmp_path):
    return Home(tmp_path)
