"""Flags made of fields, seen by what a command gets and by its help."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Any, Literal

import pytest
import typer
from pydantic import Field, SecretStr
from typer.testing import CliRunner

from reco_plugin.cli.shared import Given, take_flags, takes
from reco_plugin.errors import ConfigError
from reco_plugin.settings import CommandOptions, option


@dataclass(frozen=True)
class Where:
    place: Annotated[str | None, typer.Option(help="Where it is.")] = None
    deep: Annotated[int | None, typer.Option(help="How deep.", min=1, max=9, show_default="as deep as it goes")] = None
    inner: int = 3


class Told(CommandOptions):
    size: int = option(4, "How large.", ge=2)
    shape: Literal["round", "square"] = option("round", "Which shape.")
    names: tuple[str, ...] = option((), "A name.", flag="--name")
    wet: bool = option(False, "Under water.")
    share: float = Field(0.5, gt=0, lt=1, description="A share.")
    key: SecretStr | None = Field(None, description="Never on a command line.")
    place: str | None = None
    deep: int | None = None


seen: dict[str, Any] = {}
app = typer.Typer()


@app.command()
@takes(Where, Told, but=("shape",))
def dig(source: str, *, given: Given, deeper: bool = False) -> None:
    """Dig."""
    seen.clear()
    seen.update(source=source, deeper=deeper, given=dict(given), where=take_flags(Where, given), left=given)


def given(*words: str) -> dict[str, Any]:
    result = CliRunner().invoke(app, ["hill", *words], catch_exceptions=False)
    assert result.exit_code == 0, result.output
    return seen


def test_only_what_was_said_is_given() -> None:
    assert given() == {"source": "hill", "deeper": False, "given": {}, "where": Where(), "left": {}}
    told = given("--size", "4", "--no-wet", "--name", "x", "--name", "y", "--deep", "2", "--deeper")
    assert told["given"] == {"size": 4, "wet": False, "names": ["x", "y"], "deep": 2}
    assert (told["where"], told["deeper"]) == (Where(deep=2), True)
    assert "deep" not in told["left"]


@pytest.mark.parametrize("words", [("--size", "1"), ("--shape", "round"), ("--key", "x")])
def test_bounds_hold_and_nothing_else_is_a_flag(words: tuple[str, str]) -> None:
    assert CliRunner().invoke(app, ["hill", *words]).exit_code == 2


def test_help_says_what_the_fields_say() -> None:
    shown = " ".join(
        CliRunner().invoke(app, ["--help"], env={"COLUMNS": "200", "TERMINAL_WIDTH": "200"}).output.split()
    )
    for words in (
        "--wet --no-wet",
        "How large. [default: (4)]",
        "(as deep as it goes)",
        "1<=x<=9",
        "Where it is.",
    ):
        assert words in shown
    assert "Never" not in shown


def test_a_wrong_option_is_named_by_its_flag() -> None:
    assert Told(**given("--name", "x", "--wet", "--size", "9")["given"]).size == 9
    for options, message in (
        ({"share": 1}, r"^--share must be less than 1 \(got 1\)$"),
        ({"names": [1]}, "^--name must be a valid string"),
    ):
        with pytest.raises(ConfigError, match=message):
            Told(**options)
