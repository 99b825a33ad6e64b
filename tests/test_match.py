"""Reco.match on the shipped model: an application's ranking, and what the memory's pairs asked."""

from __future__ import annotations

import numpy as np
import pytest

from reco_plugin import Reco
from reco_plugin.errors import InputError
from reco_plugin.extras.chances import MatchState, ThingQuestions


def learned(seed: int = 0) -> MatchState:
    """What 300 things asked by text: right first answers lead."""
    rng = np.random.default_rng(seed)
    right = rng.random(300) < 0.6
    first, lead = rng.random(300), np.where(right, 0.3, 0.1) * rng.random(300)
    present = np.stack([first, lead, lead + 0.1, 0.1 * rng.random(300)], axis=1).astype(np.float32)
    one = ThingQuestions(present, right.astype(np.int16), present * np.float32(0.5), rng.random(300).astype(np.float32))
    return MatchState(
        {"text": {"plain": one, "known": one, "unknown": one}},
        300,
        300,
        0.0,
    )


def test_an_application_asks_how_sure_its_first_answer_is(filled: Reco) -> None:
    store = filled.memory.store
    store.set_calibration({**store.header.calibration, "match": learned().to_json()})
    asked = filled.embed(["a red circle", "a blue square"], modality="text")
    sure = filled.match(asked, [[0.9, 0.5, *[0.2] * 8], [0.4, 0.39, *[0.38] * 8]], modality="text", precision=0.6)
    assert sure.way == "refined"
    assert sure.first[0] > sure.first[1]
    assert sure.none[0] < sure.none[1]
    plain = filled.embed(["a red circle"], modality="text", refine=False)
    assert filled.match(plain, [[0.9, 0.5]], modality="text").way == "plain"
    with pytest.raises(InputError, match="too few of the memory's 300 things could ask image queries"):
        filled.match(filled.embed(["a"], modality="text"), [[0.3]], modality="image")
    with pytest.raises(InputError, match=r"precision must be a share from .* to below 1, got '0.9'"):
        filled.match(plain, [[0.9]], modality="text", precision="0.9")  # type: ignore[arg-type]
    with pytest.raises(InputError, match="modality must be"):
        filled.match(plain, [[0.3]], modality="sound")  # type: ignore[arg-type]


def test_a_memory_that_never_asked_says_so(filled: Reco) -> None:
    with pytest.raises(InputError, match="it needs 300 pairs, of 60 things, then reco memory build --relearn"):
        filled.match(filled.embed(["a red circle"], modality="text"), [[0.3, 0.2]], modality="text")
