"""The paper's layer within ``reco fit``."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from fit_worlds import made

from reco_plugin.errors import ConfigError
from reco_plugin.fit import FitConfig, run_fit
from reco_plugin.models.train import FUSION, load_fusions

FOLDER = Path("candidates") / "paper"


@pytest.fixture
def config(source: Callable[..., str], model: Path, monkeypatch: pytest.MonkeyPatch) -> FitConfig:
    """A fit that writes neither model nor report, which take most of the time."""
    monkeypatch.setattr("reco_plugin.fit.run.write_model", lambda *_: {})
    monkeypatch.setattr("reco_plugin.fit.run.write_report_of", lambda *_: None)
    return FitConfig.of(source=source(made()), model=str(model), group="thing", k=5, fuser="paper", steps=12, batch=16)


def test_it_is_trained_on_the_part_for_it_and_comes_out_the_same_again(config: FitConfig, tmp_path: Path) -> None:
    results = [run_fit(config, tmp_path / name) for name in ("a", "b")]
    assert results[0] == results[1] and [one.name for one in results[0].candidates] == ["paper"]
    start = run_fit(config.model_copy(update={"steps": 0}), tmp_path / "start")
    assert start != results[0]
    one, other, untrained = (
        load_fusions(tmp_path / name / FOLDER / FUSION).state_dict() for name in ("a", "b", "start")
    )
    assert all(torch.equal(one[name], other[name]) for name in one)
    assert not all(torch.equal(one[name], untrained[name]) for name in one)


def test_a_device_that_torch_cannot_use_is_named(config: FitConfig, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="device 'cuda:77'"):
        run_fit(config.model_copy(update={"device": "cuda:77"}), tmp_path / "run")
