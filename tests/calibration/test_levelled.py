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
from reco_plugin.calibration.moments import LARGEST, low_rank
from reco_plugin.types import MODALITIES, Modality, Neighbours, Vectors, other

LENGTH, CORRELATION = 5, 6
Memory = tuple[Corpus, Calibration]


def domains(count: int) -> Memory:
    """Some domains, each of whose pairs lie together, and what was learned from them."""
    parts = [[unit(x + 0.8 * np.eye(4, D)[2 + i]) for x in world(100, 4, seed=i)[:2]] for i in range(count)]
    corpus = measured(*(np.concatenate(side) for side in zip(*parts, strict=True)))
    learned = calibrate(corpus.image, corpus.text)
    assert learned is not None and learned.state.fitted and learned.state.levelled
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


def test_evidence_of_texts_points_where_it_did_and_is_shorter(two: Memory) -> None:
    corpus, state = two
    plain, levelled = (weighed(corpus, replace(state, levelled=one)) for one in (False, True))
    np.testing.assert_array_equal(levelled[0], plain[0])
    others = [column for column in range(8) if column not in (LENGTH, CORRELATION)]
    np.testing.assert_array_equal(levelled[1][:, others], plain[1][:, others])
    assert (levelled[1][:, LENGTH] < 0.9 * plain[1][:, LENGTH]).all()
    values = replace(state.values["image"], covariance=state.values["image"].covariance.levelled(LARGEST))
    as_if = replace(state, values={**state.values, "image": values}, levelled=False)
    np.testing.assert_array_equal(levelled[1], weighed(corpus, as_if)[1])


def test_evidence_of_images_is_normed_as_it_was(two: Memory) -> None:
    corpus, state = two
    plain, levelled = (weighed(corpus, replace(state, levelled=one), "image")[1] for one in (False, True))
    np.testing.assert_array_equal(levelled, plain)


def test_a_memory_of_an_older_version_answers_as_it_did(two: Memory) -> None:
    corpus, state = two
    for levelled in (False, True):
        stored = replace(state, levelled=levelled)
        again = Calibration.from_json(stored.to_json())
        np.testing.assert_array_equal(weighed(corpus, again)[1], weighed(corpus, stored)[1])


def test_beside_another_domain_evidence_is_less_longer_than_alone(two: Memory) -> None:
    """Or texts of one would count for less there. Alone, where no direction stands out, nothing changes."""

    def length(memory: Memory, *, levelled: bool) -> float:
        return float(np.median(weighed(memory[0], replace(memory[1], levelled=levelled))[1][:, LENGTH]))

    one = domains(1)
    assert length(one, levelled=True) == length(one, levelled=False)
    assert length(two, levelled=False) > 4.0 * length(one, levelled=False)
    assert length(two, levelled=True) < 3.0 * length(one, levelled=True)


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
