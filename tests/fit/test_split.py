"""Who is held out and who asks."""

from __future__ import annotations

from collections import defaultdict

import numpy as np
import pytest

from reco_plugin.errors import DataError
from reco_plugin.fit.catalogue import HeldOut, split

IDS = [f"p{row}" for row in range(1200)]
GROUPS = [f"group {row % 300}" for row in range(1200)]


def parted(ids: list[str] = IDS, groups: list[str] = GROUPS, **options: float) -> HeldOut:
    return split(ids, groups, **({"validation": 0.2, "test": 0.1, "seed": 0} | options))  # type: ignore[arg-type]


def test_groups_stay_together_and_shares_are_about_what_was_asked_for():
    parts = parted()
    of = defaultdict(set)
    for group, part in zip(GROUPS, parts.part, strict=True):
        of[group].add(part)
    assert all(len(found) == 1 for found in of.values())
    assert 0.12 < (parts.part == "validation").mean() < 0.28
    assert 0.05 < (parts.part == "test").mean() < 0.16


def test_a_catalogue_that_grows_or_is_shuffled_keeps_its_split():
    before = dict(zip(IDS, parted().part, strict=True))
    order = np.random.default_rng(0).permutation(len(IDS))
    ids, groups = [IDS[row] for row in order], [GROUPS[row] for row in order]
    later = parted(["new", *ids], ["another group", *groups])
    assert {id_: part for id_, part in zip(["new", *ids], later.part, strict=True) if id_ != "new"} == before
    asks = {id_ for id_, asking in zip(IDS, parted().asks, strict=True) if asking}
    assert {id_ for id_, asking in zip(["new", *ids], later.asks, strict=True) if asking} - {"new"} == asks


def test_of_every_held_out_group_some_ask_and_some_are_to_be_found():
    parts = parted()
    asked, rest = ({GROUPS[row] for row in rows("validation")} for rows in (parts.queries, parts.rest))
    assert asked == rest == {group for group, part in zip(GROUPS, parts.part, strict=True) if part == "validation"}
    assert 0.3 < len(parts.queries("validation")) / len(parts.rows("validation")) < 0.7
    assert not parts.asks[parts.rows("fit")].any()


def test_a_pair_that_is_alone_asks():
    parts = parted(groups=IDS)
    assert len(parts.rest("test")) == 0
    assert len(parts.queries("test")) == len(parts.rows("test")) > 50


def test_another_seed_is_another_split():
    assert (parted(seed=1).part != parted().part).mean() > 0.2


def test_too_few_groups_are_refused_with_what_is_missing():
    with pytest.raises(DataError, match=r"^12 groups are too few: \d+ fall into the \w+ part, and it needs 10"):
        parted(groups=[f"group {row % 12}" for row in range(1200)])
