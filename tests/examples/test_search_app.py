"""The example application: what refinement changes in an index of plain vectors, in process and through a service."""

from __future__ import annotations

import re
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from some_drawings import load_some
from typer.testing import CliRunner

from examples.search_app.__main__ import app
from reco_plugin import Reco

from .conftest import Live

pytestmark = pytest.mark.xdist_group("quickstart")
MODEL = Path(__file__).resolve().parents[2] / "triton_models"


def run(folder: Path, *arguments: str) -> Any:
    return CliRunner().invoke(app, [*arguments, "--folder", str(folder), "--model", str(MODEL)], catch_exceptions=False)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """Of an application that sells every sixth of the drawings."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("examples.search_app.catalogue.load", partial(load_some, every=6))
        yield tmp_path_factory.mktemp("search")


@pytest.fixture(scope="module")
def ran(folder: Path) -> str:
    result = run(folder)
    assert result.exit_code == 0, result.output
    return str(result.stdout)


def shares(output: str, split: str) -> list[float]:
    """R@1 before and after, R@10 before and after, in per cent."""
    return [float(found) for found in re.findall(r"\d+\.\d", re.findall(f"^{split}: .*$", output, re.MULTILINE)[0])]


def test_it_shows_what_refinement_changes(ran: str) -> None:
    first_before, first_after, ten_before, ten_after = shares(ran, "unseen")
    assert first_after - first_before > 15
    assert ten_after - ten_before > 30
    first_before, first_after, ten_before, ten_after = shares(ran, "seen")
    assert first_after - first_before > -5
    assert ten_after - ten_before > -5
    assert ran.count("* ") >= 6


def test_a_query_is_typed_and_index_and_memory_are_there_already(ran: str, folder: Path) -> None:
    result = run(folder, "a doughnut")
    assert result.exit_code == 0, result.output
    assert "index:" not in result.stdout
    assert "fill memory" not in result.stderr
    assert "'a doughnut'" in result.stdout


def test_a_service_refines_as_well(ran: str, folder: Path, live: Live, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SEARCH_APP_KEY", "k")
    with Reco.open(MODEL, memory=folder / "memory") as reco, live(reco, api_keys=["k"]) as url:
        served = run(folder, "doughnut", "--reco", url)
        refused = run(folder, "doughnut", "--reco", url, "--api-key", "wrong")
    assert served.exit_code == 0, served.output
    assert served.stdout == run(folder, "doughnut").stdout
    assert refused.exit_code == 1
    assert refused.stderr.startswith("error: ")
