"""The mean that is exported is the mean that anyone could write."""

from __future__ import annotations

import numpy as np
import pytest
from fit_worlds import FINGERPRINT, D, catalogue_of, made

from reco_plugin.fit.candidates import ask, baselines, candidates
from reco_plugin.fit.catalogue import split
from reco_plugin.fit.config import FitConfig
from reco_plugin.refine import Refiner

CATALOGUE = catalogue_of(made())
QUESTIONS = ask(
    CATALOGUE, split(CATALOGUE.pairs.ids, CATALOGUE.groups, validation=0.2, test=0.2), "test", FINGERPRINT, near=0.97
)
QUERIES = {name.partition("->")[0]: task.queries.vectors for name, task in QUESTIONS.tasks.items()}


def test_the_closed_form_is_tried_by_k_and_caution_without_torch():
    config = FitConfig.of(source="x", model="y", fuser="reco")
    found = list(candidates(config, D))
    assert [one.label for one in found if one.k == 5] == [
        "reco, k=5, gate on",
        "reco, bold, k=5, gate on",
        "reco, cautious, k=5, gate on",
        "reco, k=5, gate off",
    ]
    assert {one.k for one in found} == {5, 10, 20} and len(found) == 12
    assert all(one.fuser is None and one.fusions is None for one in found)


def test_the_closed_form_is_measured_by_its_caution_and_gate():
    for one in candidates(FitConfig.of(source="x", model="y", fuser="reco", k=5), D):
        plain = Refiner(QUESTIONS.memory.at(5), None, k=5)
        ours = one.refiner(QUESTIONS.memory).refine(QUERIES["image"], modality="image")
        theirs = plain.refine(QUERIES["image"], modality="image", caution=one.caution, gate=one.gate == "on")
        np.testing.assert_array_equal(ours.vectors, theirs.vectors)
        assert ours.moved.max() > 0.01


@pytest.mark.parametrize("side", ["text", "image"])
def test_baselines_move_their_own_side_alone(side):
    ways = list(baselines(side))
    assert len(ways) == 16
    refiner = ways[0].refiner(QUESTIONS.memory)
    moved = {which: refiner.refine(queries, modality=which).vectors - queries for which, queries in QUERIES.items()}
    assert {which for which, change in moved.items() if np.abs(change).max() > 1e-3} == {side}
