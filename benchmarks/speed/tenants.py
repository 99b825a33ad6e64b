"""A query of one of a thousand tenants beside a query of a tenant who has as many pairs alone."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from itertools import count

import numpy as np

from reco_plugin.memory import Fingerprint, Memory, open_memory
from reco_plugin.memory.scope import Scope, ScopedMemory
from reco_plugin.settings import MemoryOptions
from reco_plugin.types import Records, Search

from ..page import table
from .inputs import DIMENSION, Catalogue, Given, wait_for_index
from .turns import take_turns

FIELD, K, CALLS = "shop", 10, 60
MADE_BY = Fingerprint("random", "0" * 64, DIMENSION)


def tenants(given: Given) -> str:
    """Time searches of single vectors in folders of as many pairs, in turns."""
    pairs = given.pairs[-1]
    of = {"1,000": 1000, "1,000, no `tenant_field`": 1000, "one": 1}
    stores = {name: _filled(given, name, pairs, tenants) for name, tenants in of.items()}
    searches = {name: _search(store) for name, store in stores.items()}
    searches["one, searched without `where`"] = _search(stores["one"], ())
    turns = take_turns(searches, given.rounds, CALLS)
    rows = [[name, f"{1000 * turns.least(name):.2f}", f"× {turns.ratio(name, 'one'):.2f}"] for name in searches]
    for store in stores.values():
        store.close()
    return table([f"tenants of {pairs:,} pairs", "a search, ms", "÷ one's"], rows)


def _filled(given: Given, name: str, pairs: int, tenants: int) -> Memory:
    field = None if "no " in name else FIELD
    place = given.folder / f"tenants-{pairs}-{tenants}-{field}"
    store = open_memory(place, MADE_BY, options=MemoryOptions(tenant_field=field))
    if store.count() < pairs:
        for records in _with_tenant(Catalogue(pairs).records(0, pairs), tenants):
            store.upsert(records)
        store.flush()
    _search(store)()  # starts the search index
    wait_for_index(store)
    return store


def _with_tenant(batches: Iterator[Records], tenants: int) -> Iterator[Records]:
    numbers = count()
    for one in batches:
        yield replace(one, payloads=[{**each, FIELD: f"t{next(numbers) % tenants}"} for each in one.payloads])


def _search(store: Memory, scope: Scope = ((FIELD, "t0"),)) -> Callable[[], object]:
    rng = np.random.default_rng(0)
    searched = ScopedMemory(store, scope) if scope else store

    def search() -> None:
        query = rng.normal(size=(1, DIMENSION)).astype(np.float32)
        found = searched.search(Search(query / np.linalg.norm(query), "image", "text", K, payloads=True))
        assert len(found.ids[0]) == K

    return search
