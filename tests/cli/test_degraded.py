"""Commands on a model whose fusion cannot be loaded: frozen vectors that say so, or an error; never a wrong figure."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from broken_graph import with_broken_graph
from click.testing import Result

from reco_plugin import Reco

Run = Callable[..., Result]
TEXT = "a large red circle"


@pytest.fixture
def damaged(model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The shipped model with a layer of zeros for texts, which is the one to refine."""
    monkeypatch.setenv("RECO_FUSER", "paper")
    return with_broken_graph(model, tmp_path / "damaged", "paper_text")


@pytest.mark.filterwarnings("default::reco_plugin.guard.DegradedWarning")
def test_embed_says_that_its_vectors_are_frozen(memory: Path, run: Run, damaged: Path, work: Path) -> None:
    result = run("embed", "--text", TEXT, "--model", damaged, "--memory", memory, "--json")
    assert result.exit_code == 0, result.output
    line = json.loads(result.stdout)
    assert line["degraded"] == "fusion_error"
    with Reco.open(damaged, memory=":memory:") as reco:
        np.testing.assert_allclose([line["embedding"]], reco.embed_texts([TEXT], refine=False), atol=1e-6)
    assert result.stderr.startswith("warning: answering with frozen CLIP vectors")
    assert result.stderr.count("\n") == 1
    told = run("embed", "--text", TEXT, "--model", damaged, "--memory", memory, "--out", "v.npy", "--json")
    assert json.loads(told.stdout) == {"file": "v.npy", "shape": [1, 128], "degraded": "fusion_error"}


def test_an_evaluation_fails_whatever_is_wanted(memory: Path, fail: Any, damaged: Path, work: Path) -> None:
    with Reco.open(damaged, memory=":memory:") as reco:
        prompts = reco.embed_texts([TEXT, "a small blue square"], refine=False)
    np.savez(work / "test.npz", image=prompts, label=[0, 1], prompts=prompts, classes=["circle", "square"])
    said = fail("eval", "zero-shot", work / "test.npz", "--model", damaged, "--memory", memory, "--no-gate")
    assert "cannot load" in said
