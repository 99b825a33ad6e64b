"""What the data sets from packages promise: no leak, no look-alikes, free licences, nothing that pre-training met."""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from pathlib import Path

import numpy as np
import pytest
from blank_drawings import load_unrendered

from benchmarks.drawings.packages import fetch, read_json
from benchmarks.pretrain.generic import bag, mentions
from benchmarks.sets import LOADERS, flags, glyphs, logos
from benchmarks.sets.package_set import SPLITS, PackageSet, split_of
from reco_plugin.quickstart.dataset import DrawingPackage

pytestmark = pytest.mark.xdist_group("quickstart")

LEAST_ENTITIES = {"flags": 240, "logos": 450, "glyphs": 500}
SOURCES = {
    source.name: source
    for source in (*flags.SOURCES, flags.FACTS_SOURCE, *logos.SOURCES, logos.TITLES_SOURCE, *glyphs.SOURCES)
}
FREE = {
    "MIT", "ISC", "Apache-2.0", "CC0-1.0", "CC-BY-4.0", "CC-BY-SA-4.0", "OFL-1.1", "Bitstream-Vera",
}  # fmt: skip


def test_there_is_enough_in_every_split(data: PackageSet) -> None:
    splits = Counter(entity.split for entity in data.entities)
    assert len(data.entities) >= LEAST_ENTITIES[data.name]
    assert len({entity.key for entity in data.entities}) == len(data.entities)
    for split, share in zip(SPLITS, (0.4, 0.2, 0.4), strict=True):
        assert splits[split] / len(data.entities) == pytest.approx(share, abs=0.05)
    assert len(data.images) == len(data.items) and data.images.shape[1:] == (64, 64, 3)


def test_every_entity_can_be_asked_for_and_found(data: PackageSet) -> None:
    by_entity = defaultdict(list)
    for item in data.items:
        by_entity[item.entity].append(item)
    assert [*by_entity] == [entity.key for entity in data.entities]
    for entity in data.entities:
        items = by_entity[entity.key]
        assert {item.split for item in items} == {entity.split}
        assert len({item.style for item in items}) == len(items)
        assert any(item.style in data.query_styles for item in items)
        assert len({item.family for item in items if item.style not in data.query_styles}) >= 2


def test_query_styles_are_in_no_memory(data: PackageSet) -> None:
    memory, queries = data.memory_rows(), data.query_rows()
    assert sorted([*memory, *queries]) == list(range(len(data.items)))
    assert {data.items[row].style for row in queries} == set(data.query_styles)
    assert not {data.items[row].style for row in memory} & set(data.query_styles)
    families = {data.items[row].family for row in memory}
    assert not families & set(data.query_styles)
    unseen = {entity.key for entity in data.entities if entity.split == "unseen"}
    assert {data.items[row].entity for row in data.query_rows(["unseen"])} == unseen
    assert not {data.items[row].entity for row in data.memory_rows(["fusion", "dev"])} & unseen


def test_no_memory_holds_a_copy_of_a_query(data: PackageSet) -> None:
    """Distance is Euclidean, as a share of the ink of the one with more."""
    rows = defaultdict(lambda: ([], []))
    for row, item in enumerate(data.items):
        rows[item.entity][item.style in data.query_styles].append(row)
    for entity, sides in rows.items():
        memory, queries = (255 - data.images[side].reshape(len(side), 1, -1).astype(np.float32) for side in sides)
        ink = np.maximum(np.linalg.norm(memory, axis=2), np.linalg.norm(queries, axis=2).T)
        apart = np.stack([np.linalg.norm(memory[:, 0] - query, axis=1) for query in queries], axis=1)
        assert (apart / ink).min() > 0.119, entity


def test_copies_in_the_memory_are_one_family(data: PackageSet) -> None:
    pictures = defaultdict(set)
    for row in data.memory_rows():
        pictures[data.items[row].entity, data.images[row].tobytes()].add(data.items[row].family)
    assert all(len(families) == 1 for families in pictures.values())


def test_no_two_entities_look_the_same(data: PackageSet) -> None:
    drawn = defaultdict(dict)
    for image, item in zip(data.images, data.items, strict=True):
        drawn[item.entity][item.style] = image.tobytes()
    seen = defaultdict(set)
    for entity, styles in drawn.items():
        for picture in styles.items():
            seen[picture].add(entity)
    for entities in seen.values():
        for one in entities:
            for other in entities - {one}:
                both = drawn[one].keys() & drawn[other].keys()
                same = sum(drawn[one][style] == drawn[other][style] for style in both)
                assert 2 * same < len(both), (one, other)


def test_every_drawing_shows_something(data: PackageSet) -> None:
    darkest = np.array([image.min() for image in data.images])
    assert (darkest < 250).all()


def test_captions_name_the_entity_or_tell_of_it_only(data: PackageSet) -> None:
    entities = {entity.key: entity for entity in data.entities}
    nameless = 0
    for item in data.items:
        entity = entities[item.entity]
        named = any(name in item.caption for name in entity.names)
        told = all(part in entity.hints for part in re.split(r", (?![^(]*\))", item.caption))
        assert named or told, item
        nameless += not named
    with_hints = sum(bool(entities[item.entity].hints) for item in data.items)
    assert nameless / with_hints == pytest.approx(0.15, abs=0.03)


def test_hints_do_not_give_the_name_away(data: PackageSet) -> None:
    for entity in data.entities:
        names = {bag(name) for name in entity.names} - {frozenset()}
        assert not [hint for hint in entity.hints if mentions(hint, names)], entity


def test_the_same_call_gives_the_same_set(data: PackageSet, cache: Path) -> None:
    again = LOADERS[data.name](cache)
    assert (again.items, again.entities) == (data.items, data.entities)
    assert np.array_equal(again.images, data.images)


@pytest.fixture(scope="session")
def captions(cache: Path) -> set[frozenset[str]]:
    """The words of each caption that pre-training reads."""
    items = load_unrendered(cache).items
    return {bag(item.caption) for item in items if item.split in (None, "seen")}


def test_pretraining_met_no_entity(data: PackageSet, captions: set[frozenset[str]]) -> None:
    """When this fails, add the keys that it prints to ``met_in_pretraining.py``."""
    met = [
        entity.key
        for entity in data.entities
        for name in map(bag, entity.names)
        if name and any(name <= caption for caption in captions)
    ]
    assert met == []


@pytest.mark.parametrize("source", SOURCES.values(), ids=SOURCES.keys())
def test_packages_are_pinned_and_free(source: DrawingPackage, cache: Path) -> None:
    assert re.fullmatch(r"\d+\.\d+\.\d+", source.version)
    assert source.license in FREE and source.credit
    if source.package.startswith("@iconify-json/"):
        folder = fetch((source,), cache)[source.name]
        assert read_json(folder / "info.json")["license"]["spdx"] == source.license


def test_both_cases_of_a_letter_are_on_one_side(glyph_set: PackageSet) -> None:
    split = {entity.key: entity.split for entity in glyph_set.entities}
    pairs = [(letter, letter.upper()) for letter in split if letter.islower() and letter.upper() in split]
    pairs = [(small, capital) for small, capital in pairs if capital.lower() == small]  # not the dotless i
    assert len(pairs) > 150
    assert [pair for pair in pairs if split[pair[0]] != split[pair[1]]] == []


def test_a_split_depends_on_the_name_alone_and_holds_its_share() -> None:
    splits = Counter(split_of(f"concept {number}", "x") for number in range(5000))
    assert [round(splits[split] / 5000, 1) for split in SPLITS] == [0.4, 0.2, 0.4]
    assert {split_of("de", salt) for salt in "abcdefghij"} == set(SPLITS)
