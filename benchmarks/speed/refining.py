"""What a refinement costs beside a plain embedding, by size of the memory."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from functools import partial
from typing import Any

from reco_plugin import Reco
from reco_plugin.client import Client
from reco_plugin.types import MODALITIES, Modality, other

from ..page import table
from ..processes import started
from .inputs import BLOCK, Catalogue, Given, batches, fill, vit, wait_for_index
from .turns import Turns, take_turns

CALLS: tuple[tuple[Modality, int], ...] = tuple((m, size) for m in reversed(MODALITIES) for size in (1, 8, 32))
OVER_HTTP: tuple[tuple[Modality, int], ...] = (("text", 1), ("text", 32), ("image", 1))
NEW = 256
_HEAD = ["pairs", "call", "plain, ms", "refined, ms", "of it retrieving", "refined ÷ plain"]


def refining(given: Given) -> str:
    """Time plain and refined calls in process and over HTTP, on new inputs each, and learning."""
    called, costs = list[list[str]](), list[list[str]]()
    for pairs in given.pairs:
        place, catalogue = given.folder / f"memory-{pairs}", Catalogue(pairs)
        with Reco.open(vit(given.folder), memory=place) as reco:
            fill(reco.memory.store, catalogue)
            reco.memory.search("a red fox", k=1)  # starts the search index
            wait_for_index(reco.memory.store)
            costs.append([f"{pairs:,}", *_learning(reco, catalogue)])
            for modality, size in CALLS:
                called.append([f"{pairs:,}", f"{modality} × {size}", *_in_process(reco, modality, size, given.rounds)])
                print(*called[-1], sep=" | ", file=sys.stderr, flush=True)
        with (
            started(vit(given.folder), place, given.folder / "serve.log", ("--no-page",)) as service,
            Client(service.url, degrade_after_s=None) as client,
        ):
            client.embed_texts(["the first search loads the index"], refine=True)
            time.sleep(5.0)
            for modality, size in OVER_HTTP:
                cells = _cells(_over_http(client, modality, size, given.rounds), "")
                called.append([f"{pairs:,}", f"{modality} × {size}, HTTP", *cells])
    learned = table(["pairs", "first fit", "a pair stored, ms", "stored and learned from, ms"], costs)
    return f"{table(_HEAD, called, left=2)}\n\nLearning from the pairs:\n\n{learned}"


def _in_process(reco: Reco, modality: Modality, size: int, rounds: int) -> list[str]:
    plain, refined = batches(modality, size), batches(modality, size)
    embed: Callable[..., Any] = reco.embed
    before = reco.metrics()
    turns = take_turns(
        {
            "plain": lambda: embed(plain(), modality=modality, refine=False),
            "refined": lambda: embed(refined(), modality=modality, refine=True, target=other(modality)),
        },
        rounds,
        calls=max(5, 60 // size),
    )
    after = reco.metrics()
    sums, counts = (f"reco_retrieve_seconds_{part}" for part in ("sum", "count"))
    retrieved = (after[sums] - before[sums]) / max(1, after[counts] - before[counts])
    return _cells(turns, f"{1000 * retrieved:.2f}")


def _over_http(client: Client, modality: Modality, size: int, rounds: int) -> Turns:
    make = batches(modality, size)

    def embed(refine: bool) -> None:
        if modality == "image":
            client.embed_images(make(), refine=refine, target="text")
        else:
            client.embed_texts(make(), refine=refine)

    actions = {"plain": partial(embed, False), "refined": partial(embed, True)}
    return take_turns(actions, rounds, calls=max(5, 60 // size))


def _cells(turns: Turns, retrieving: str) -> list[str]:
    plain, refined = (f"{1000 * turns.least(name):.2f}" for name in ("plain", "refined"))
    return [plain, refined, retrieving, f"× {turns.ratio('refined', 'plain'):.2f}"]


def _learning(reco: Reco, catalogue: Catalogue) -> list[str]:
    """Seconds of a first fit, and milliseconds of an insert without and with learning."""
    begun = time.perf_counter()
    reco.memory.calibrate()
    cells, first = [f"{time.perf_counter() - begun:.1f} s"], catalogue.pairs + 10 * BLOCK
    new = next(catalogue.records(first, first + NEW))
    for write in (lambda: reco.memory.store.upsert(new), lambda: reco.memory.add_records([new])):
        begun = time.perf_counter()
        write()
        cells.append(f"{1000 * (time.perf_counter() - begun) / NEW:.2f}")
        reco.memory.remove(new.ids)
    return cells
