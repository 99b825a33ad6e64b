"""The mean that is exported is the mean that anyone could write."""

from __future__ import annotations

import numpy as np
import pytest
from fit_worlds import FINGERPRINT, D, catalogue_of, made

from reco_plugin.evaluate.baselines import ALONE, MeanOfNeighbours
from reco_plugin.fit.candidates import baselines
from reco_plugin.fit.questions import ask
from reco_plugin.fit.split import split
from reco_plugin.refine import Refiner
from reco_plugin.retrieve import Retrieval
from reco_plugin.train.loop import Fusions, TorchFuser
from reco_plugin.train.model import FusionConfig

CATALOGUE = catalogue_of(made())
QUESTIONS = ask(
    CATALOGUE, split(CATALOGUE.pairs.ids, CATALOGUE.groups, validation=0.2, test=0.2), "test", FINGERPRINT, near=0.97
)
QUERIES = {name.partition("->")[0]: task.queries.vectors for name, task in QUESTIONS.tasks.items()}


@pytest.mark.parametrize("weight", [0.5, 2.0, ALONE])
@pytest.mark.parametrize("temperature", [0.05, np.inf])
def test_the_graph_of_a_mean_is_the_baseline_where_there_is_no_gate(weight, temperature):
    memory = QUESTIONS.memory.at(5)
    config = FusionConfig("mean", D, weight=weight, sharpness=1 / temperature)
    for modality, queries in QUERIES.items():
        ours, theirs = (
            Refiner(memory, fuser, Retrieval(5), gate=False).refine(queries, modality=modality).vectors
            for fuser in (TorchFuser(Fusions(config)), MeanOfNeighbours(weight, weight, temperature))
        )
        np.testing.assert_allclose(ours, theirs, atol=2e-6)
        assert np.abs(ours - queries).max() > 0.05


def test_the_gate_of_a_mean_says_how_far_it_moves():
    memory, fuser = QUESTIONS.without.at(5), TorchFuser(Fusions(FusionConfig("mean", D, weight=2.0)))
    moved = [
        Refiner(memory, fuser, Retrieval(5), gate=gate).refine(QUERIES["image"], modality="image").moved.mean()
        for gate in (True, False)
    ]
    assert 0 < moved[0] < moved[1]


@pytest.mark.parametrize("side", ["text", "image"])
def test_baselines_move_their_own_side_alone(side):
    ways = list(baselines(side))
    assert len(ways) == 16
    refiner = ways[0].refiner(QUESTIONS.memory.at(ways[0].k))
    moved = {which: refiner.refine(queries, modality=which).vectors - queries for which, queries in QUERIES.items()}
    assert {which for which, change in moved.items() if np.abs(change).max() > 1e-3} == {side}
