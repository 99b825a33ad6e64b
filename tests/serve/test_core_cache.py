"""The cache of repeated queries: it saves work, and no answer of before a change comes after it."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import httpx
import numpy as np
import pytest

from reco_plugin import Pair, Reco
from reco_plugin.options import RefineOptions
from reco_plugin.serve.embedder import Embedder, EmbedRequest, Item, key_of
from reco_plugin.serve.failures import Failure
from reco_plugin.serve.settings import ServeSettings


@pytest.fixture
def embedder(filled: Reco) -> Embedder:
    return Embedder(filled, ServeSettings(cache_entries=8))


def red(**options: object) -> EmbedRequest:
    return EmbedRequest([Item.text("a small red circle")], **{"model": "clip-reco-query", **options})


def encoded(reco: Reco) -> int:
    return reco.counters.encode_s["text"].to_dict()["count"]


def test_it_is_off_by_default(filled):
    embedder = Embedder(filled, ServeSettings())
    embedder.embed(red())
    embedder.embed(red())
    assert embedder.cache.seen.hits == embedder.cache.seen.misses == 0


def test_a_repeated_query_is_neither_encoded_nor_searched_again(embedder, filled):
    first = embedder.embed(red())
    before = encoded(filled), filled.counters.retrieve_s.to_dict()["count"]
    again = embedder.embed(red())
    assert (encoded(filled), filled.counters.retrieve_s.to_dict()["count"]) == before
    assert np.array_equal(first.vectors, again.vectors)
    kept = [[(row.refined, row.tokens, row.moved) for row in answer.rows] for answer in (first, again)]
    assert kept[0] == kept[1]


def test_each_change_of_the_memory_makes_refined_queries_anew_and_leaves_plain_ones(embedder, filled):
    plain = embedder.embed(red(model="clip")).vectors
    old = embedder.embed(red()).vectors
    filled.memory.remove(["small-red-circle", "large-red-circle"])
    removed = embedder.embed(red()).vectors
    assert np.allclose(removed, filled.embed_texts(["a small red circle"], refine=True), atol=1e-6)
    assert not np.allclose(removed, old, atol=1e-4)
    image = filled.embed_texts(["a blue square"], refine=False)[0]  # any vector
    filled.memory.add([Pair("odd", image, "a small red circle")])
    added = embedder.embed(red()).vectors
    assert np.allclose(added, filled.embed_texts(["a small red circle"], refine=True), atol=1e-6)
    assert not np.allclose(added, removed, atol=1e-4)
    hits = embedder.cache.seen.hits
    assert np.array_equal(embedder.embed(red(model="clip")).vectors, plain)
    assert embedder.cache.seen.hits == hits + 1


def test_other_options_are_another_question(embedder):
    wide = embedder.embed(red(options=RefineOptions(k=8, gate=False))).vectors
    narrow = embedder.embed(red(options=RefineOptions(k=1, gate=False))).vectors
    assert not np.allclose(wide, narrow, atol=1e-6)
    assert embedder.cache.seen.hits == 0


def test_what_is_no_row_of_its_own_is_not_kept(filled):
    embedder = Embedder(filled, ServeSettings(cache_entries=8, document_text=True))
    for request in (red(side="document"), red(explain=True), red(truncate=False)):
        assert embedder.embed(request).rows[0].failure is None
    assert embedder.cache.seen.entries == 0


def test_it_is_bounded_and_forgets_what_was_not_used(filled):
    embedder = Embedder(filled, ServeSettings(cache_entries=2))
    for text in ("a", "b", "a", "c", "a", "b"):  # a a: hit; c drops b; a: hit; b: miss
        embedder.embed(EmbedRequest([Item.text(text)]))
    assert (embedder.cache.seen.hits, embedder.cache.seen.entries) == (2, 2)


def test_refined_rows_of_a_memory_that_others_may_write_to_are_not_kept(troubled):
    made = troubled()
    made.reco.memory.location = "http://memory:6333"
    embedder = Embedder(made.reco, ServeSettings(cache_entries=8))
    embedder.embed(red())
    assert embedder.cache.seen.entries == 0
    embedder.embed(red(model="clip"))  # which no memory changes
    assert embedder.cache.seen.entries == 1


def test_an_entry_does_not_keep_the_batch_that_it_came_with(embedder):
    embedder.embed(EmbedRequest([Item.text(text) for text in "abcd"], model="clip-reco-query"))
    item = Item.text("b")
    key = key_of(item, refined=True, options=RefineOptions(target="image"), version=embedder.reco.memory.version)
    row = embedder.cache.get(key)
    assert (row.vector.base, row.frozen.base) == (None, None)


def test_the_version_grows_with_each_write(filled):
    versions = [filled.memory.version]
    for change in (
        lambda: filled.memory.remove(["small-red-circle"]),
        lambda: filled.memory.add([Pair("new", *filled.embed_texts(["x", "y"], refine=False))]),
        lambda: filled.memory.add_records(filled.memory.store.scroll(ids=["new"])),
        lambda: filled.memory.calibrate(),
    ):
        change()
        versions.append(filled.memory.version)
    assert versions == sorted(set(versions))


def test_what_it_has_of_a_whole_request_is_recalled_at_once(embedder, filled):
    asked = EmbedRequest([Item.text("a"), Failure(400, "odd", "odd"), Item.text("b")])
    whole = embedder.embed(asked)
    seen = (embedder.cache.seen.hits, embedder.cache.seen.misses)
    assert embedder.recall(EmbedRequest([Item.text("a"), Item.text("c")])) is None
    assert (embedder.cache.seen.hits, embedder.cache.seen.misses) == seen
    before = encoded(filled)
    again = embedder.recall(asked)
    assert np.array_equal(again.vectors, whole.vectors)
    assert [row.failure is None for row in again.rows] == [True, False, True]
    assert encoded(filled) == before
    assert embedder.cache.seen.hits == seen[0] + 2
    assert Embedder(filled, ServeSettings()).recall(asked) is None


def test_what_it_has_waits_for_no_thread(blocked, live):
    def ask(model: str) -> httpx.Response:
        return httpx.post(f"{url}/v1/embeddings", json={"model": model, "input": ["a red circle"]}, timeout=60)

    with live(blocked.reco, threads=1, cache_entries=8) as (url, _), ThreadPoolExecutor(1) as callers:
        first = ask("clip")
        blocked.armed.set()
        flying = callers.submit(ask, "clip-reco-query")
        assert blocked.reached.acquire(timeout=60)
        again = ask("clip")
        assert not flying.done()
        blocked.go.set()
        assert flying.result(60).status_code == 200
    assert again.json()["data"] == first.json()["data"]
    assert again.json()["id"] != first.json()["id"]
    assert again.headers["x-reco-refined"] == "false"
