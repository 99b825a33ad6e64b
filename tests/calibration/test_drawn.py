"""A memory of more pairs than a gate is fitted on: which are drawn, and that the others count, too.

At a small size: a gate is fitted on 600 of 800 pairs, and checked on 125 others.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from trust_worlds import world

from reco_plugin.calibration import calibrate as calibrating
from reco_plugin.calibration.calibrate import Calibrated, calibrate
from reco_plugin.types import MODALITIES, Modality

PAIRS, ASKED, BLOCK, CHECKED = 800, 600, 150, 125
SIZES = {"ASKED": ASKED, "BLOCK": BLOCK, "CHECKED": CHECKED}


class Learned:
    """Pairs in the order of their classes and shuffled, what was learned from each, and which rows asked."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        for name, size in SIZES.items():
            assert getattr(calibrating, name) >= 4 * size
            monkeypatch.setattr(calibrating, name, size)
        self.fitted: list[np.ndarray] = []
        self.checked: list[np.ndarray] = []
        self.blocks: list[np.ndarray] = []
        self._note(monkeypatch, "look", self.fitted, 1)
        self._note(monkeypatch, "fit_gates", self.blocks, 1)
        self._note(monkeypatch, "check_pairs", self.checked, 2)
        many, single = world(50, 12, wrong=0.1), world(200, 1, seed=7)  # at the end, each caption has one image
        image, text, self.wrong = (np.concatenate(parts) for parts in zip(many, single, strict=True))
        self.steps: list[int] = []
        self.shuffle = np.random.default_rng(0).permutation(PAIRS)
        self.sorted = self._calibrate(image, text, progress=self.steps.append)
        self.shuffled = self._calibrate(image[self.shuffle], text[self.shuffle])

    @staticmethod
    def _note(monkeypatch: pytest.MonkeyPatch, name: str, rows: list[np.ndarray], place: int) -> None:
        function = getattr(calibrating, name)

        def noting(*given: Any, **named: Any) -> Any:
            rows.append(given[place])
            return function(*given, **named)

        monkeypatch.setattr(calibrating, name, noting)

    @staticmethod
    def _calibrate(*given: np.ndarray, **named: Any) -> Calibrated:
        learned = calibrate(*given, **named)
        assert learned is not None
        return learned


@pytest.fixture(scope="module")
def learned() -> Learned:
    with pytest.MonkeyPatch.context() as patch:
        return Learned(patch)


def test_those_that_ask_are_drawn_from_all_and_others_check(learned: Learned) -> None:
    for places in learned.blocks:
        assert [len(block) for block in places] == [BLOCK] * 4
        assert sorted(np.concatenate(places)) == list(range(ASKED)), "each once"
    for rows, checked in zip(learned.fitted, learned.checked, strict=True):
        blocks = [rows[block] for block in learned.blocks[0]]
        assert len(set(rows) | set(checked)) == ASKED + CHECKED == len(rows) + len(checked), "each once"
        for part in (*blocks, checked):  # the later half is not left out, nor in a block of its own
            assert 0.35 < (part >= PAIRS // 2).mean() < 0.65


def test_every_pair_is_judged_also_one_that_did_not_ask(learned: Learned) -> None:
    witnesses, wrong = learned.sorted.witnesses, learned.wrong
    assert witnesses.shape == (PAIRS, 3) and np.isfinite(witnesses).all()
    reliability = learned.sorted.state.reliability.of(witnesses)
    asked = np.isin(np.arange(PAIRS), learned.fitted[0])
    for part in (asked, ~asked):
        right, others = (reliability[part & (wrong == which) & (np.arange(PAIRS) < 600)] for which in (False, True))
        assert len(others) > 5
        assert (right[:, None] > others).mean() > 0.9
    assert learned.sorted.state.pairs == PAIRS
    assert sum(learned.steps) == 5 * PAIRS


@pytest.mark.parametrize("modality", MODALITIES)
def test_in_another_order_about_the_same_is_learned(learned: Learned, modality: Modality) -> None:
    one, other = learned.sorted, learned.shuffled
    # neighbours count by what shuffled pairs said of them, and those are others; CLIP's own score is the same
    np.testing.assert_allclose(one.witnesses[learned.shuffle], other.witnesses, atol=0.1, rtol=0.01)
    off = np.abs(one.witnesses[learned.shuffle] - other.witnesses)
    assert np.quantile(off[:, :2], 0.998) < 0.1 and off[:, 2].max() < 1e-3
    gates = [each.state.sides[modality].gates["balanced"] for each in (one, other)]
    low, high = (np.stack([getattr(gate, end) for gate in gates]) for end in ("low", "high"))
    features = np.random.default_rng(1).uniform(low.max(axis=0), high.min(axis=0), (200, 6))
    first, second = (np.log(gate.strength(features)) for gate in gates)
    assert abs(float((first - second).mean())) < 0.4, "a query moves about as far"
