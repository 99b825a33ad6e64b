"""The last part of the demo: a catalogue in which captions were exchanged, and 30 decisions that correct it."""

from __future__ import annotations

import csv
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt

from ..evaluation.clean_report import CaptionCard, find_wrong, write_clean
from ..evaluation.labelled_set import ReadOptions, read_labelled_set
from ..evaluation.ranking import rank_sides, refine_task
from ..files import whole_file
from ..ingest.corrections import Correction, correct, write_corrections
from ..ingest.fill import ingest
from ..ingest.run_options import IngestOptions
from ..quickstart.dataset import Quickstart
from ..reco import Reco
from ..sources import open_source
from ..types import Pair
from .bench import Bench, pairs, prepare

_WRONG, _DECISIONS = 0.05, 30


def correct_captions(model: Path, data: Quickstart, pictures: Path, out: Path, seed: int = 0) -> dict[str, list[float]]:
    """Exchange captions, list and correct them, and measure a memory of each.

    The 30 decisions are those that a person would make by ``n``, ``y`` and ``e`` on the page, written to
    ``corrections.csv`` as the page saves them.

    Args:
        model: the quickstart model.
        data: the drawings.
        pictures: folder of the memory's drawings.
        out: folder for the table, the page and the corrections.
        seed: of the exchange.

    Returns:
        ``right``, ``exchanged``, ``corrected``: top-1 in percent by a memory with such captions, of all unseen things,
        and of those whose captions were corrected. ``listed``: captions that were exchanged, and how many of them are
        among the decisions.
    """
    rows, rng = pairs(data, ("unseen",)), np.random.default_rng(seed)
    texts = [str(pair.text) for pair in rows]
    things = [str(pair.payload["entity"]) for pair in rows]
    chosen = rng.choice(len(rows), round(_WRONG * len(rows)), replace=False)
    source = np.arange(len(rows))
    source[chosen] = np.roll(chosen, 1)
    wrong = [texts[row] for row in source.tolist()]
    tables = {"right": out / "right.csv", "exchanged": out / "exchanged.csv"}
    out.mkdir(parents=True, exist_ok=True)
    for path, captions in zip(tables.values(), (texts, wrong), strict=True):
        write_table(path, rows, captions, pictures)
    names = {text: {thing for thing, own in zip(things, texts, strict=True) if own == text} for text in texts}
    shows = {pair.id: thing for pair, thing in zip(rows, things, strict=True)}
    with Reco.open(model, memory=":memory:") as reco:
        reading = ReadOptions(reco.encoder, reco.manifest.fingerprint, out)
        record = find_wrong(read_labelled_set(str(tables["exchanged"]), reading), command="reco demo")
        decided = {
            card.name: _decide(card, shows[card.name], names, data.by_key[shows[card.name]].label)
            for card in record.cards[:_DECISIONS]
        }
        bench = prepare(data, reco.encoder, ("unseen",))
    write_clean(record, out)
    write_corrections(out / "corrections.csv", decided)
    found = [row for row in chosen.tolist() if rows[row].id in decided and wrong[row] != texts[row]]
    touched = {things[row] for row in (*found, *source[found].tolist())}
    is_touched = np.array([bench.entities[label].key in touched for label in bench.group("unseen").queries.labels])
    hits = {name: _measure(model, bench, path) for name, path in tables.items()}
    hits["corrected"] = _measure(model, bench, tables["exchanged"], out / "corrections.csv")
    results = {
        name: [100 * float(one[some].mean()) for some in (slice(None), is_touched)] for name, one in hits.items()
    }
    results["listed"] = [len(chosen), len(found)]
    _report(results, len(touched), out)
    return results


def _report(results: dict[str, list[float]], touched: int, out: Path) -> None:
    captions, (exchanged, found) = ("right", "exchanged", "corrected"), results["listed"]
    of_all, of_touched = (", ".join(f"{results[name][place]:.1f} %" for name in captions) for place in (0, 1))
    print(
        f"\nCaptions: {exchanged} were exchanged. The first {_DECISIONS} that `reco clean` lists hold {found} of them."
        f"\n{_DECISIONS} decisions, as the keys of {out / 'clean.html'} make them, are in {out / 'corrections.csv'}."
        f"\nTop-1 by a memory of the unseen entities alone, with captions {', '.join(captions)}:"
        f"\n  {of_all} of all, where two points are noise"
        f"\n  {of_touched} of the {touched} things whose captions the decisions corrected"
    )


def write_table(path: Path, rows: Sequence[Pair], captions: Sequence[str], pictures: Path) -> None:
    """Write pairs as a CSV file, with these captions, and their drawings in a folder."""
    with whole_file(path) as part, part.open("w", newline="", encoding="utf-8") as file:
        table = csv.writer(file)
        table.writerow(["id", "image", "text", "style"])
        for pair, caption in zip(rows, captions, strict=True):
            table.writerow([pair.id, f"{pictures}/{pair.id}.png", caption, pair.payload["style"]])


def _decide(card: CaptionCard, thing: str, names: dict[str, set[str]], label: str) -> Correction:
    """What a person who knows the thing decides: it is right, the suggestion, or its name in their own words."""
    if thing in names[card.caption]:
        return Correction(card.caption, "", "right")
    return Correction(card.caption, card.suggestion if thing in names.get(card.suggestion, ()) else label, "replace")


def _measure(model: Path, bench: Bench, table: Path, *corrections: Path) -> npt.NDArray[np.bool_]:
    """Which unseen test queries (Q,) have the right name first, by a memory of a table."""
    rows = open_source(str(table))
    for path in corrections:
        rows, notes = correct(rows, path)
        print("\n".join(notes))
    with Reco.open(model, memory=":memory:", on_memory_failure="fail") as reco:
        ingest(rows, reco, IngestOptions(rejected=table.with_suffix(".rejected.jsonl")))
        refined = refine_task(reco, bench.task, ("both",))
    ranks = rank_sides(bench.group("unseen"), bench.group("unseen", refined), ("both",))
    return np.asarray(ranks["both"] == 0)
