"""What a refinement costs beside a plain embedding, and what the memory's calibration costs, by size of the memory.

    python -m benchmarks.refining --folder /tmp/refining                                    10,000 and 100,000 pairs
    python -m benchmarks.refining --folder /tmp/refining --pairs 1000000 --rounds 3         a million, half an hour

ViT-B/32 of random weights in int8, one `Reco` on an embedded memory with its search index; vectors are those of
benchmarks/synthetic.py. Plain and refined calls take turns, each on inputs of its own, so that nothing is cached; the
least of the rounds' medians counts. What was filled, indexed and measured in the folder is taken from there.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import time
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from reco_plugin import Reco
from reco_plugin.client import Client
from reco_plugin.files import whole_file
from reco_plugin.memory.edge import EdgeMemory
from reco_plugin.train.encoder import load_frozen
from reco_plugin.train.export import export
from reco_plugin.types import MODALITIES, Modality

from .load.service import started
from .markdown import table
from .synthetic import BLOCK, Synthetic

OVER_HTTP: tuple[tuple[Modality, int], ...] = (("text", 1), ("text", 32), ("image", 1))
BATCHES, MODEL, DIMENSION, NEW = (1, 8, 32), "ViT-B-32", 512, 256
WORDS = ("small", "large", "young", "old", "red", "green", "blue", "grey", "wooden", "paper", "glass", "iron")
Facts = dict[str, Any]


def model_of(folder: Path) -> Path:
    """The exported encoder, made where it is missing."""
    out = folder / "model"
    if not (out / "manifest.json").exists():
        export(load_frozen(MODEL, random_weights=True), None, out, precision="int8")
    return out


def fill(reco: Reco, catalogue: Synthetic, say: Callable[[str], None]) -> None:
    """Write the pairs that are missing, without learning from them."""
    have = len(reco.memory)
    for done, records in enumerate(catalogue.records(have - have % BLOCK, catalogue.pairs)):
        reco.memory.store.upsert(records)
        if done % 100 == 99:
            say(f"{len(reco.memory):,} of {catalogue.pairs:,} pairs")
    reco.memory.store.flush()


def wait_for_index(reco: Reco) -> None:
    """Search until the index is in use; a small memory has none."""
    store = reco.memory.store
    assert isinstance(store, EdgeMemory)
    reco.memory.search("a red fox", k=1)
    while (store.index_state or {}).get("state") == "being made":
        time.sleep(0.1)


def learned(reco: Reco, catalogue: Synthetic) -> Facts:
    """Seconds of a first fit, and milliseconds of an insert with and without what is learned from it."""
    begun = time.perf_counter()
    state = reco.memory.calibrate()
    facts: Facts = {"fit_s": time.perf_counter() - begun, "learned": state is not None}
    new = next(catalogue.records(catalogue.pairs + 10 * BLOCK, catalogue.pairs + 10 * BLOCK + NEW))
    begun = time.perf_counter()
    reco.memory.store.upsert(new)
    facts["stored_ms"] = 1000 * (time.perf_counter() - begun) / NEW
    reco.memory.store.delete(new.ids)
    begun = time.perf_counter()
    reco.memory.add_records([new])
    facts["added_ms"] = 1000 * (time.perf_counter() - begun) / NEW
    reco.memory.remove(new.ids)
    return facts


def inputs(modality: Modality, batch: int, number: int) -> Any:
    """A batch that was not asked before: texts of seven words, or pixels of the encoder's size."""
    rng = np.random.default_rng([batch, number])
    if modality == "image":
        return rng.integers(0, 256, (batch, 224, 224, 3), dtype=np.uint8)
    return [f"a photo of a {' '.join(rng.choice(WORDS, 2))} {rng.choice(WORDS)} bird" for _ in range(batch)]


def asked(reco: Reco, modality: Modality, batch: int, rounds: int) -> Facts:
    """Milliseconds of a plain and a refined call, and where the refined one's go."""
    calls = max(5, 60 // batch)
    encode: Any = reco.encoder.images if modality == "image" else reco.encoder.texts
    found: dict[str, list[float]] = {"plain": [], "refined": [], "encode": [], "retrieve": []}
    for turn in range(rounds):
        times: dict[str, list[float]] = {name: [] for name in found}
        for call in range(calls):
            plain, refined = (inputs(modality, batch, 2 * (turn * calls + call) + which) for which in (0, 1))
            begun = time.perf_counter()
            encode(plain)
            times["plain"].append(time.perf_counter() - begun)
            before = reco.counters.retrieve_s.to_dict()["sum"]
            begun = time.perf_counter()
            vectors = encode(refined)
            between = time.perf_counter()
            reco.refine(vectors, modality=modality)
            times["refined"].append(time.perf_counter() - begun)
            times["encode"].append(between - begun)
            times["retrieve"].append(reco.counters.retrieve_s.to_dict()["sum"] - before)
        for name, values in times.items():
            found[name].append(statistics.median(values))
    least = {name: 1000 * min(values) for name, values in found.items()}
    ratios = [refined / plain for plain, refined in zip(found["plain"], found["refined"], strict=True)]
    return least | {"ratio": statistics.median(ratios)}


def served(folder: Path, pairs: int, rounds: int) -> Facts:
    """Milliseconds of plain and refined requests to ``reco serve``, by our client."""
    found: Facts = {}
    log = folder / "serve.log"
    with (
        started(model_of(folder), folder / f"memory-{pairs}", log, ("--no-page",)) as service,
        Client(service.url) as client,
    ):

        def ask(modality: Modality, batch: int, number: int, refine: bool) -> float:
            given = inputs(modality, batch, number)
            items: Any = [Image.fromarray(one) for one in given] if modality == "image" else given
            begun = time.perf_counter()
            (client.embed_images if modality == "image" else client.embed_texts)(items, refine=refine)
            return 1000 * (time.perf_counter() - begun)

        client.embed_texts(["the memory's index is loaded by the first search"], refine=True)
        time.sleep(5.0)
        for modality, batch in OVER_HTTP:
            calls, number = max(5, 60 // batch), 10**6
            plain, refined, ratios = list[float](), list[float](), list[float]()
            for _ in range(rounds):
                times = [
                    (ask(modality, batch, number + 2 * call, False), ask(modality, batch, number + 2 * call + 1, True))
                    for call in range(calls)
                ]
                number += 2 * calls
                plain.append(statistics.median(one for one, _ in times))
                refined.append(statistics.median(one for _, one in times))
                ratios.append(refined[-1] / plain[-1])
            found[f"{modality} {batch}"] = {
                "plain": min(plain),
                "refined": min(refined),
                "ratio": statistics.median(ratios),
            }
    return found


def measure(folder: Path, pairs: int, rounds: int, say: Callable[[str], None]) -> Facts:
    """Everything of one size."""
    catalogue = Synthetic(pairs, DIMENSION)
    with Reco.open(model_of(folder), memory=folder / f"memory-{pairs}") as reco:
        fill(reco, catalogue, say)
        wait_for_index(reco)
        say("filled, and indexed where it is large enough")
        facts = learned(reco, catalogue)
        say(str(facts))
        facts["pairs"] = pairs
        for modality in MODALITIES:
            for batch in BATCHES:
                facts[f"{modality} {batch}"] = asked(reco, modality, batch, rounds)
                say(f"{modality} × {batch}: {facts[f'{modality} {batch}']}")
    facts["http"] = served(folder, pairs, rounds)
    say(f"over HTTP: {facts['http']}")
    return facts


def tables(all_facts: Sequence[Facts]) -> str:
    """Ratios by size; where a refined call's time goes; what learning costs."""
    columns = [(modality, batch) for modality in reversed(MODALITIES) for batch in BATCHES]
    head = ["pairs", *(f"{modality} × {batch}" for modality, batch in columns)]
    ratios = [
        [f"{facts['pairs']:,}", *(f"× {facts[f'{side} {batch}']['ratio']:.2f}" for side, batch in columns)]
        for facts in all_facts
    ]
    steps = []
    for facts in all_facts:
        for side, batch in columns:
            row = facts[f"{side} {batch}"]
            rest = row["refined"] - row["encode"] - row["retrieve"]
            times = (row["plain"], row["refined"], row["encode"], row["retrieve"], max(rest, 0.0))
            steps.append([f"{facts['pairs']:,}", f"{side} × {batch}", *(f"{ms:.2f}" for ms in times)])
    costs = [
        [f"{facts['pairs']:,}", f"{facts['fit_s']:.1f} s", f"{facts['stored_ms']:.2f}", f"{facts['added_ms']:.2f}"]
        for facts in all_facts
    ]
    http = [
        [f"{facts['pairs']:,}"]
        + [f"{row['plain']:.2f} / {row['refined']:.2f} ms, × {row['ratio']:.2f}" for row in facts["http"].values()]
        for facts in all_facts
    ]
    return "\n\n".join(
        (
            "Refined ÷ plain:\n\n" + table(head, ratios),
            "Milliseconds a call; *rest* is the closed form, with the calibration of what was found:\n\n"
            + table(["pairs", "call", "plain", "refined", "encode", "retrieve", "rest"], steps),
            "Over HTTP, one request at a time (`reco serve`, our client): plain, refined, and their ratio:\n\n"
            + table(["pairs", *(f"{side} × {batch}" for side, batch in OVER_HTTP)], http),
            "Learning calibration: a first fit, and an added pair, stored alone and with its calibration (ms):\n\n"
            + table(["pairs", "first fit", "stored", "added"], costs),
        )
    )


def log(begun: float, line: str) -> None:
    """Say how far it is."""
    print(f"{time.monotonic() - begun:5.0f} s  {line}", file=sys.stderr, flush=True)


def main(arguments: Sequence[str] | None = None) -> None:
    """See the module."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--folder", type=Path, required=True, help="keeps model, memories and results")
    parser.add_argument("--pairs", type=int, nargs="+", default=[10_000, 100_000])
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--again", action="store_true", help="measure again what was measured in the folder")
    told = parser.parse_args(arguments)
    begun = time.monotonic()
    told.folder.mkdir(parents=True, exist_ok=True)
    found = []
    for pairs in told.pairs:
        kept = told.folder / f"refining-{pairs}.json"
        if told.again or not kept.exists():
            facts = measure(told.folder, pairs, told.rounds, partial(log, begun))
            with whole_file(kept) as part:
                part.write_text(json.dumps(facts))
        found.append(json.loads(kept.read_text()))
    print(tables(found))


if __name__ == "__main__":
    main()
