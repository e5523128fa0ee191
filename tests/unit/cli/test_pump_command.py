"""`sarrapipe pump` as far as no server is needed; the rest is in integration/test_pump_lifecycle.py."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from click.testing import CliRunner

from sarrapipe.cli.commands.pump import command
from sarrapipe.cli.main import main


def test_status_of_nothing(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    directory = str(tmp_path / "none")
    assert main(["pump", "status", "--dir", directory, "--json"]) == 3
    nothing = {"epmd": None, "rabbitmq": None, "nginx": None}
    assert json.loads(capsys.readouterr().out) == {
        "exists": False, "running": nothing, "directory": directory,
    }  # fmt: skip
    assert main(["pump", "status", "--dir", directory]) == 3
    assert capsys.readouterr().out.count("not running") == 3


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--port", "amqp"], "NAME=N"),
        (["--port", "amqp=0"], "1-65535"),
        (["--port", "amqp=65536"], "1-65535"),
        (["--port", "ftp=21"], "amqp, amqps"),
        (["--port", "amqp=²"], "1-65535"),
        (["--consumer-timeout", "soon"], "'soon' is not a duration"),
    ],
)
def test_wrong_values_are_named(tmp_path: Path, arguments: list[str], said: str) -> None:
    result = CliRunner().invoke(command, ["up", "--dir", str(tmp_path / "p"), *arguments])
    assert result.exit_code == 2
    assert said in result.output
    assert not (tmp_path / "p").exists()
