"""The evidence of texts is normed without what tells whole domains apart; that of images is not."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import numpy.typing as npt
import pytest
from trust_worlds import D, measured, unit, world

from reco_plugin.calibration import Calibration
from reco_plugin.calibration.calibrate import calibrate
from reco_plugin.calibration.check import Gates, check_pairs
from reco_plugin.calibration.corpus import Corpus
from reco_plugin.calibration.gate import PRIOR, Applied
from reco_plugin.calibration.moments import low_rank
from reco_plugin.types import MODALITIES, Modality, Neighbours, Vectors, other

LENGTH, CORRELATION = 5, 6
Memory = tuple[Corpus, Calibration]


def domains(count: int) -> Memory:
    """Some domains, each of whose pairs lie together, and what was learned from them."""
    parts = [[unit(x + 0.8 * np.eye(4, D)[2 + i]) for x in world(100, 4, seed=i)[:2]] for i in range(count)]
    corpus = measured(*(np.concatenate(side) for side in zip(*parts, strict=True)))
    learned = calibrate(corpus.image, corpus.text)
    assert learned is not None and learned.state.fitted
    return corpus, learned.state


@pytest.fixture(scope="module")
def two() -> Memory:
    return domains(2)


def weighed(corpus: Corpus, state: Calibration, modality: Modality = "text") -> tuple[Vectors, npt.NDArray[np.float32]]:
    """The evidence of queries of the first domain, and its signals."""
    rows, similarity = (part[:40] for part in corpus.near[modality])
    found = Neighbours([], similarity, corpus.side(other(modality))[rows], similarity > -1.5, None)
    evidence = state.weigh(modality, corpus.side(modality)[:40], found, Applied(PRIOR[modality]))
    return evidence.direction, evidence.signals


@pytest.mark.parametrize("largest", [0.02, 0.05, 0.2])
@pytest.mark.parametrize("rank", [D, 12, 4])
def test_no_direction_has_more_than_a_share_of_the_variance(rank: int, largest: float) -> None:
    x = np.random.default_rng(0).normal(size=(500, D)) * np.linspace(2.0, 0.2, D)
    matrix, eye = low_rank(x.T @ x / 500, rank), np.eye(D, dtype=np.float32)
    before, after = (np.linalg.eigvalsh(one.apply(eye))[::-1] for one in (matrix, matrix.levelled(largest)))
    bound = max(largest * before.sum(), before[-1])
    np.testing.assert_allclose(after, np.minimum(before, bound), rtol=0.01)
    assert (before[0] > 1.1 * after[0]) == (largest < 0.2)


def unlevelled(monkeypatch: pytest.MonkeyPatch, state: Calibration) -> Calibration:
    monkeypatch.setattr("reco_plugin.calibration.moments.LARGEST", 1.0)
    return replace(state)


def test_evidence_of_texts_points_where_it_would_and_is_shorter(two: Memory, monkeypatch: pytest.MonkeyPatch) -> None:
    corpus, state = two
    levelled, images = weighed(corpus, state), weighed(corpus, state, "image")[1]
    other_state = unlevelled(monkeypatch, state)
    plain = weighed(corpus, other_state)
    np.testing.assert_array_equal(levelled[0], plain[0])
    others = [column for column in range(8) if column not in (LENGTH, CORRELATION)]
    np.testing.assert_array_equal(levelled[1][:, others], plain[1][:, others])
    assert (levelled[1][:, LENGTH] < 0.9 * plain[1][:, LENGTH]).all()
    np.testing.assert_array_equal(weighed(corpus, other_state, "image")[1], images, "images are normed as they were")


def test_beside_another_domain_evidence_is_less_longer_than_alone(two: Memory, monkeypatch: pytest.MonkeyPatch) -> None:
    """Or texts of one would count for less there. Alone, where no direction stands out, nothing changes."""

    def length(memory: Memory) -> float:
        return float(np.median(weighed(*memory)[1][:, LENGTH]))

    one = domains(1)
    alone, beside = length(one), length(two)
    plain_alone, plain_beside = (length((corpus, unlevelled(monkeypatch, state))) for corpus, state in (one, two))
    assert plain_alone == alone
    assert plain_beside > 4.0 * plain_alone
    assert beside < 3.0 * alone


def test_the_self_check_norms_texts_as_queries_and_candidates_are(two: Memory, monkeypatch: pytest.MonkeyPatch) -> None:
    corpus, state = two
    gates = {
        m: Gates(state.gate(m, "balanced"), state.gate(m, 0.0, among=True), state.gate(m, 0.0, candidate=True))
        for m in MODALITIES
    }
    now = check_pairs(corpus, gates, np.arange(0, 800, 2), k=10)
    monkeypatch.setattr("reco_plugin.calibration.moments.LARGEST", 1.0)
    before = check_pairs(corpus, gates, np.arange(0, 800, 2), k=10)
    assert now.image.candidates != before.image.candidates, "texts"
    assert (now.image.gain, now.image.hidden) == (before.image.gain, before.image.hidden)
    assert now.text.candidates == before.text.candidates, "images"
