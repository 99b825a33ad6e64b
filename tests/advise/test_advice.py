"""What is advised: chances that hold, what the memory lacks first, each row once, and why."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import pytest
from trust_worlds import D, unit

from reco_plugin.advise import Listed, MemoryAdvice, advise_listed
from reco_plugin.calibration.match import auc_of
from reco_plugin.errors import ConfigError, InputError
from reco_plugin.memory import open_memory
from reco_plugin.refine import VectorMemory, refiner_for_vectors
from reco_plugin.types import Records

THINGS, PER = 220, 4


@dataclass(frozen=True)
class Shop:
    """What is there."""

    memory: VectorMemory
    listed: Listed


@pytest.fixture(scope="module")
def shop() -> Shop:
    """Even things are in the memory with three pairs, of which the list has a fourth; of odd ones it has all four."""
    rng = np.random.default_rng(0)
    thing = np.repeat(np.arange(THINGS), PER)
    meaning = rng.normal(size=(THINGS, D))
    shown = meaning + 3.0 * rng.normal(size=(THINGS, D))  # what the encoder does not know of a thing
    image = unit(shown[thing] + 0.6 * rng.normal(size=(len(thing), D)) + 5.0 * np.eye(2, D)[0])
    text = unit(meaning[thing] + 0.2 * rng.normal(size=(len(thing), D)) + 5.0 * np.eye(2, D)[1])
    ids = [f"t{number}-{row % PER}" for row, number in enumerate(thing.tolist())]
    held = (thing % 2 == 0) & (np.arange(len(thing)) % PER < PER - 1)
    rows = np.flatnonzero(held)
    payloads = [{"thing": f"t{thing[row]}", "caption": f"a t{thing[row]}"} for row in rows]
    refiner = refiner_for_vectors([Records([ids[row] for row in rows], image[rows], text[rows], payloads)])
    left = np.flatnonzero(~held)
    listed = Listed(
        [f"t{number}" for number in range(THINGS)],
        thing[left],
        [ids[row] for row in left],
        [f"t{thing[row]}" for row in left],
        text[left],
        image[left],
    )
    assert isinstance(refiner.memory, VectorMemory)
    return Shop(refiner.memory, listed)


@pytest.fixture(scope="module")
def advice(shop: Shop) -> MemoryAdvice:
    return advise_listed(shop.memory, shop.listed, k=10, group="thing")


def test_every_row_is_ordered_once_and_every_thing_told(advice: MemoryAdvice, shop: Shop) -> None:
    assert sorted(advice.order) == sorted(shop.listed.ids)
    assert sorted(one.name for one in advice.things) == sorted(shop.listed.names)
    assert advice.pairs == 330


def test_what_the_memory_lacks_comes_before_what_it_holds(advice: MemoryAdvice) -> None:
    pairs = {one.name: one.pairs for one in advice.things}
    assert set(pairs.values()) == {0, 3}
    first = [id_.partition("-")[0] for id_ in advice.order[:30]]
    assert all(pairs[name] == 0 for name in first)
    assert len(set(first)) == 30, "one picture of each, before second ones"


def test_chances_are_higher_where_search_fails(advice: MemoryAdvice) -> None:
    forecast = advice.forecasts[0]
    assert forecast.auc > 0.6
    assert forecast.error < 0.2
    fails = np.array([one.fails for one in advice.things])
    lacking = np.array([one.pairs == 0 for one in advice.things])
    assert auc_of(fails, lacking) > 0.9, "what is not in the memory fails likelier"
    for one in advice.things:
        assert one.sure is not None
        assert 0.0 <= one.sure[0] <= one.sure[1] <= 1.0


def test_a_thing_says_why(advice: MemoryAdvice) -> None:
    worst = advice.things[0]
    assert worst.pairs == 0
    assert worst.place is not None
    assert worst.place > 1
    assert worst.why[0].startswith(f"its own words find it at place {worst.place}, behind “t")
    assert worst.why[1].startswith("the memory holds no pair of it; its nearest caption is “a t")
    assert all(one.ahead for one in worst.look_alikes[: worst.place - 1])
    assert worst.name not in {one.name for one in worst.look_alikes}
    assert len(worst.add) == 4


def test_the_same_list_gets_the_same_advice(advice: MemoryAdvice, shop: Shop) -> None:
    assert advise_listed(shop.memory, shop.listed, k=10, group="thing").order == advice.order


def test_the_order_of_rows_and_numbers_of_things_change_no_chance(advice: MemoryAdvice, shop: Shop) -> None:
    rng, listed = np.random.default_rng(5), shop.listed
    rows, number = rng.permutation(len(listed.ids)), rng.permutation(len(listed.names))
    names = [listed.names[one] for one in np.argsort(number).tolist()]
    text, image, thing = listed.text[rows], listed.image[rows], number[listed.thing[rows]]
    ids, words = ([side[row] for row in rows.tolist()] for side in (listed.ids, listed.words))
    found = advise_listed(shop.memory, Listed(names, thing, ids, words, text, image), k=10, group="thing")
    before, after = ({one.name: one for one in each.things} for each in (advice, found))
    assert all(set(after[name].add) == set(before[name].add) for name in before)
    assert np.corrcoef(*([each[name].fails for name in sorted(before)] for each in (before, after)))[0, 1] > 0.9


def test_a_list_of_words_gets_chances_without_pictures(shop: Shop) -> None:
    words = replace(shop.listed, image=np.full_like(shop.listed.image, np.nan))
    found = advise_listed(shop.memory, words, k=10, group="thing")
    assert found.order == []
    lacking = [one for one in found.things if not one.pairs]
    assert all(one.place is None for one in lacking)
    assert any("the list has no new picture of it" in why for one in lacking for why in one.why)
    assert np.mean([one.fails for one in lacking]) > np.mean([one.fails for one in found.things if one.pairs])


def test_a_memory_that_is_too_small_tells_no_chances(shop: Shop) -> None:
    empty = open_memory(":memory:", shop.memory.store.header.fingerprint, kind="exact")
    found = advise_listed(VectorMemory(empty, None), shop.listed, k=10, group=None)
    assert found.things[0].fails is None
    assert found.things[0].near == -1.0
    assert "too small to tell chances" in " ".join(found.summary())
    assert sorted(found.order) == sorted(shop.listed.ids)


def test_a_field_that_no_pair_has_is_refused(shop: Shop) -> None:
    with pytest.raises(ConfigError, match="no pair of the memory has a field 'product'"):
        advise_listed(shop.memory, shop.listed, k=10, group="product")


def test_no_thing_at_all_is_refused(reco: object) -> None:
    from reco_plugin.advise import advise

    with pytest.raises(InputError, match="give one or more, got none"):
        advise(reco, [])  # type: ignore[arg-type]
