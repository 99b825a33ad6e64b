"""The paper's ablations as one command, on some of the drawings."""

from __future__ import annotations

from itertools import product
from pathlib import Path
from typing import get_args

import numpy as np
import pytest

from benchmarks.paper import GROUPS, Ablations, InModes, Mode
from reco_plugin.encoders.model_folder import Artifact
from reco_plugin.evaluation.ranking import hits_at, rank_task
from reco_plugin.quickstart.dataset import Quickstart
from reco_plugin.types import Search

pytestmark = [pytest.mark.slow, pytest.mark.xdist_group("quickstart")]


@pytest.fixture(scope="module")
def ablations(some_data: Quickstart) -> Ablations:
    return Ablations(some_data, Artifact.load(Path(__file__).resolve().parents[2] / "triton_models"))


@pytest.mark.parametrize(("search", "fusion"), list(product(get_args(Mode), repeat=2)))
def test_search_and_fusion_choose_what_is_compared_and_what_is_read(
    ablations: Ablations, search: Mode, fusion: Mode
) -> None:
    memory, pairs = ablations.memory("all pairs").plain, ablations.pairs
    queries = ablations.bench.task.queries.vectors[:20]
    found = InModes(memory, search, fusion).search(Search(queries, "image", "text", 1))
    keys, values = (pairs.side("image" if mode == "uni" else "text") for mode in (search, fusion))
    best = (queries @ keys.T).argmax(axis=1)
    assert [ids[0] for ids in found.ids] == [pairs.ids[row] for row in best]
    np.testing.assert_allclose(found.vectors[:, 0], values[best], atol=1e-6)


def test_each_ablation_has_both_methods_and_an_empty_memory_changes_nothing(ablations: Ablations) -> None:
    frozen = [round(100 * float(hits_at(rank_task(ablations.bench.group(group)), 1).mean()), 1) for group in GROUPS]
    lines = {name.partition(":")[0]: [cell[0] for cell in cells] for name, cells in ablations.memory_after_training()}
    assert len(lines) == len(ablations.memories)
    assert lines["nothing"] == [*frozen, *frozen]
    assert lines["all pairs"][0] > lines["all but the unseen entities, as in training"][0] + 10
    image, text, both = (cells[0][0] for _, cells in list(ablations.sides())[:3])
    assert both > min(text, image) > frozen[0]
