"""reco memory cutoff: what it prints, in words and as JSON, and what it says where nothing can be promised."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import Result

from reco_plugin.calibration.match import MatchState, ThingQuestions
from reco_plugin.memory import open_memory
from reco_plugin.types import MODALITIES

Run = Callable[..., Result]
Ask = Callable[..., Any]
Fail = Callable[..., str]


def questions(rng: np.random.Generator, many: int, easy: float) -> ThingQuestions:
    """Questions of which those of a high score are right; with ``easy`` more of them."""
    first = rng.random(many)
    right = rng.random(many) < np.clip(first + easy, 0.0, 0.98)
    lead = np.where(right, 0.2, 0.05) * rng.random(many)
    present = np.stack([first, lead, lead + 0.1, np.zeros(many)], axis=1).astype(np.float32)
    absent = present - np.float32([0.3, 0.0, 0.0, 0.0])
    return ThingQuestions(
        present, np.where(right, 1, 0).astype(np.int16), absent, *rng.random((2, many)).astype(np.float32)
    )


@pytest.fixture
def asked(memory: Path) -> Path:
    """The catalogue's memory, with what other pairs asked."""
    rng = np.random.default_rng(0)
    kinds = {"plain": questions(rng, 900, 0.2), "unknown": questions(rng, 900, 0.0)}
    state = MatchState(
        {"text": kinds, "image": {}}, 900, 900, 0.97, dict.fromkeys(MODALITIES, np.ones(128, np.float32))
    )  # type: ignore[dict-item]
    with closing(open_memory(str(memory), None)) as store:
        store.set_calibration({**store.header.calibration, "match": state.to_json()})
    return memory


def test_cutoffs_are_told_in_words_and_numbers(
    asked: Path, run: Run, ask: Ask, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("RECO_MODEL")  # needs no model
    said = run("memory", "cutoff", "--precision", "0.8", "--absent", "0.1").stdout
    assert said.startswith("at least 80% of the first answers that pass are right, where up to 10% of the queries have")
    assert "text queries, plain, calibration error 0." in said
    assert "chance of a match at least" in said
    assert "97% of them have one pair" in said
    assert "too few of the memory's 900 things could ask image queries" in said
    told = ask("memory", "cutoff", "--precision", "0.8", "--absent", "0.1")
    promise = told["text"]["plain"]["cutoffs"]["match"]
    assert promise["right"][0] >= 0.8
    assert promise["passing"][1] < promise["passing"][0] < promise["passing"][2]
    assert (told["precision"], told["absent"], told["risk"], told["things"]) == (0.8, 0.1, 0.1, 900)
    assert told["image"]["plain"]["cutoffs"] == {"score": None, "lead": None, "match": None}
    hard = run("memory", "cutoff", "--precision", "0.99").stdout
    assert "none holds 99% for sure with" in hard
    assert "match" not in ask("memory", "info")["calibration"], "arrays are not shown"


def test_where_no_answer_is_right_the_json_is_still_json(asked: Path, ask: Ask, run: Run) -> None:
    with closing(open_memory(str(asked), None)) as store:
        one = questions(np.random.default_rng(0), 900, -9.0)
        means = dict.fromkeys(MODALITIES, np.ones(128, np.float32))
        state = MatchState({"text": {"plain": one}, "image": {}}, 900, 900, 0.0, means)
        store.set_calibration({**store.header.calibration, "match": state.to_json()})
    assert ask("memory", "cutoff")["text"]["plain"]["auc"] is None
    assert "nan" not in run("memory", "cutoff").stdout.lower()


def test_what_cannot_be_promised_says_what_to_do(memory: Path, fail: Fail) -> None:
    assert "24 pairs yet: it needs 300, of 60 things, and then `reco memory calibrate`" in fail("memory", "cutoff")
    assert "precision must be a share from 0.5 to below 1, got 1.0" in fail("memory", "cutoff", "--precision", "1")
    assert "absent must be a share from 0 to below 1, got 2.0" in fail("memory", "cutoff", "--absent", "2")
    assert "no pair has a field 'product'" in fail("memory", "cutoff", "--group", "product")
