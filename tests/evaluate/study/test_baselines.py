"""Baselines by hand, and that they are chosen on the development classes alone."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from reco_plugin.evaluate.measure import measure
from reco_plugin.evaluate.methods import LogitEnsemble, ScoringMethod, enrichments, ensembles, grid, transfers
from reco_plugin.evaluate.ranking import ranks, ranks_among
from reco_plugin.types import Neighbours

EYE = np.eye(3, dtype=np.float32)


def neighbours(texts: np.ndarray, similarity: list[list[float]]) -> Neighbours:
    found = np.array(similarity) > 0
    return Neighbours([["a"]] * len(found), np.float32(similarity), texts[None].repeat(len(found), 0), found)


def test_ranks_among_scores_are_those_of_the_cosines() -> None:
    rng = np.random.default_rng(0)
    queries, prompts = (rng.normal(size=(n, 8)) for n in (50, 12))
    queries, prompts = ((v / np.linalg.norm(v, axis=1, keepdims=True)).astype(np.float32) for v in (queries, prompts))
    labels = rng.integers(0, 12, 50)
    assert ranks_among(queries @ prompts.T, labels, np.arange(12)).tolist() == ranks(queries, prompts, labels).tolist()
    assert ranks_among(np.array([[0.9, 0.1, 0.5], [0.3, 0.3, 0.1]]), np.array([2, 0]), np.arange(3)).tolist() == [1, 1]


def test_a_logit_ensemble_by_hand() -> None:
    """The query is of class 0 with e : 1 : 1 at scale 1; both neighbours' texts are class 1 with 1 : e : 1."""
    near = neighbours(EYE[[1, 1]], [[0.9, 0.9]])
    own, votes = (np.exp(row) / np.exp(row).sum() for row in (EYE[0], EYE[1]))
    scores = LogitEnsemble(0.25, 1.0, np.inf).scores(EYE[:1], EYE, near)
    np.testing.assert_allclose(np.exp(scores[0]), 0.75 * own + 0.25 * votes, rtol=1e-6)
    assert LogitEnsemble(0.6, 1.0, np.inf).scores(EYE[:1], EYE, near).argmax() == 1
    nothing = neighbours(np.zeros((2, 3), np.float32), [[0.0, 0.0]])
    np.testing.assert_allclose(np.exp(LogitEnsemble(0.9, 1.0, 0.05).scores(EYE[:1], EYE, nothing)[0]), own, rtol=1e-6)


def test_a_sharp_temperature_listens_to_the_nearest() -> None:
    near = neighbours(EYE[[1, 2]], [[0.9, 0.1]])
    sharp, flat = (LogitEnsemble(1.0, 10.0, t).scores(EYE[:1], EYE, near)[0] for t in (0.05, np.inf))
    assert sharp[1] > sharp[2]
    assert flat[1] == pytest.approx(flat[2])


def test_scoring_in_blocks_is_scoring_at_once(make_study: Any, world: Any) -> None:
    study = make_study(world.pairs(), world.labelled())
    methods = (ScoringMethod(ensembles()[0], 5, block=block) for block in (1024, 7))
    whole, parts = (method.measure(study.test, study.full).ranks.tolist() for method in methods)
    assert whole == parts
    weightless = ScoringMethod(LogitEnsemble(0.0, 100.0, np.inf), 5)
    assert weightless.measure(study.test, study.full).top(1).tolist() == measure(study.test).top(1).tolist()


def test_every_kind_is_chosen_and_the_test_classes_have_no_say(make_study: Any, world: Any) -> None:
    study = make_study(world.pairs(), world.labelled())
    assert {chosen.kind: chosen.variants for chosen in study.baselines} == {
        "mean of neighbours": len(grid()),
        "kNN label transfer": len(transfers()),
        "logit ensemble": len(ensembles()),
        "text-only enrichment": len(enrichments()),
    }
    alike = [c.dev_top1 for c in study.baselines if c.method.sides in ("both", None)]
    assert alike == [c.dev_top1 for c in study.baselines[:2]] == sorted(alike, reverse=True)
    assert [c.method.sides for c in study.baselines[2:]].count("both") == 0  # compared with ours of those sides
    labels = np.random.default_rng(0).permutation(study.test.queries.labels)
    scrambled = replace(study, test=replace(study.test, queries=replace(study.test.queries, labels=labels)))
    assert [(c.kind, c.settings, c.dev_top1) for c in scrambled.baselines] == [
        (c.kind, c.settings, c.dev_top1) for c in study.baselines
    ]
