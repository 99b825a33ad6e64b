"""What is drawn by one seed is drawn apart: which classes are set aside says nothing about which pairs are spoilt."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest

from reco_plugin.evaluate.study.memories import at_most_each, part, with_wrong_captions
from reco_plugin.evaluate.study.sections.ablations import ablations
from reco_plugin.evaluate.study.sections.baselines import baselines
from reco_plugin.evaluate.study.sections.harm import harm
from reco_plugin.evaluate.study.study import Study, read_memory

SEEDS = range(5)


@pytest.fixture
def one_each(make_study: Any, world: Any) -> Any:
    """A study by seed whose memory has one pair per class, in the order of the classes."""
    pairs, labelled = world.pairs(each=1), world.labelled()
    return lambda seed: make_study(pairs, labelled, seed=seed)


def spread(chosen: list[np.ndarray], among: list[np.ndarray]) -> float:
    """The share that is chosen of a half of the rows, over all seeds; .5 where half are chosen at random."""
    return float(np.concatenate([c[a] for c, a in zip(chosen, among, strict=True)]).mean())


def test_wrong_captions_fall_on_test_and_development_classes_alike(one_each: Any) -> None:
    studies: list[Study] = [one_each(seed) for seed in SEEDS]
    wrong = [
        (with_wrong_captions(s.records, 0.5, s.config.seed).records.text != s.records.text).any(axis=1) for s in studies
    ]
    assert np.mean(wrong) == 0.5
    for half in ("dev", "test"):
        assert 0.35 < spread(wrong, [getattr(s, half).candidates.labels for s in studies]) < 0.65


def test_smaller_memories_hold_test_and_development_classes_alike(one_each: Any) -> None:
    studies: list[Study] = [one_each(seed) for seed in SEEDS]
    kept = [np.isin(np.arange(40), part(40, 0.5, s.config.seed)) for s in studies]
    one = [at_most_each(["same"] * 40, 20, s.config.seed) for s in studies]
    limited = [np.isin(s.records.ids, read_memory(s.subject.memory.store, 20, s.config.seed).ids) for s in studies]
    for chosen in (kept, one, limited):
        for half in ("dev", "test"):
            assert 0.35 < spread(chosen, [getattr(s, half).candidates.labels for s in studies]) < 0.65


def test_the_order_in_which_pairs_were_added_changes_no_figure(make_study: Any, world: Any) -> None:
    pairs, labelled = world.pairs(), world.labelled()
    shuffled = pairs.take(np.random.default_rng(7).permutation(len(pairs)))
    found = []
    for records in (pairs, shuffled):
        study = make_study(records, labelled)
        sections = [section(study) for section in (ablations, baselines, harm)]
        found.append([json.loads(section.model_dump_json(include={"tables"})) for section in sections])
    assert found[0] == found[1]
