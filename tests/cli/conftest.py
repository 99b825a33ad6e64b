"""A small catalogue on disk, and the command line called as a user calls it."""

from __future__ import annotations

import csv
import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from click.testing import Result
from holes import copy_folder
from qdrant_stand_in import StandIn, serving
from typer.testing import CliRunner

from reco_plugin import Pair
from reco_plugin.cli.app import app


@pytest.fixture
def work(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, model: Path) -> Path:
    """An empty working folder; the model is found through the environment."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("RECO_MODEL", str(model))
    return tmp_path


@pytest.fixture
def server() -> Iterator[StandIn]:
    """A stand-in for a Qdrant server."""
    with serving() as running:
        yield running


@pytest.fixture
def url(server: StandIn) -> str:
    """Where it is, by gRPC."""
    return server.url("grpc")


@pytest.fixture(scope="session")
def catalogue(tmp_path_factory: pytest.TempPathFactory, drawings: list[Pair]) -> Path:
    """catalogue.csv with 24 drawn images beside it."""
    folder = tmp_path_factory.mktemp("catalogue")
    with (folder / "catalogue.csv").open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(["id", "image", "text", "colour", "shape"])
        for pair in drawings:
            pair.image.save(folder / f"{pair.id}.png")  # type: ignore[union-attr]
            writer.writerow([pair.id, f"{pair.id}.png", pair.text, pair.payload["colour"], pair.payload["shape"]])
    return folder / "catalogue.csv"


def reco(*arguments: object) -> Result:
    """Run ``reco`` in this process; a defect shows its trace."""
    return CliRunner().invoke(app, [str(argument) for argument in arguments], catch_exceptions=False)


def told(*arguments: object) -> Any:
    """What ``reco … --json`` prints: JSON, and nothing else on stdout."""
    result = reco(*arguments, "--json")
    assert result.exit_code == 0, result.output
    return json.loads(result.stdout)


def failed(*arguments: object) -> str:
    """The one line on stderr of a command that fails, and nothing on stdout."""
    result = reco(*arguments)
    assert result.exit_code == 1, result.output
    assert result.stdout == ""
    assert result.stderr.startswith("error: ")
    assert result.stderr.count("\n") == 1
    return result.stderr


@pytest.fixture
def run() -> Callable[..., Result]:
    return reco


@pytest.fixture
def ask() -> Callable[..., Any]:
    return told


@pytest.fixture
def fail() -> Callable[..., str]:
    return failed


@pytest.fixture(scope="session")
def stored(catalogue: Path, model: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The catalogue in a memory, which nobody changes."""
    folder = tmp_path_factory.mktemp("stored") / "memory"
    assert told("memory", "add", catalogue, "--model", model, "--memory", folder)["added"] == 24
    return folder


@pytest.fixture
def memory(work: Path, stored: Path) -> Path:
    """The catalogue in ./memory."""
    return copy_folder(stored, work / "memory")
