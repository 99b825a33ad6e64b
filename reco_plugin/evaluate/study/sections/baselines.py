"""Is it better than simple baselines, or than what else could be done with the pairs? Chosen on development classes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

from ....refine import VectorMemory
from ...alternatives import LabelledImages, kinds
from ...findings import Cell, Column, Section, Table
from ...methods import Chosen, Measures, choose
from ..memories import captions_of, with_wrong_captions
from ..study import Study
from ..tables import SIDES, columns, moved, row

NOISE = 0.5


def baselines(study: Study) -> Section:
    """Ours against each kind, on the memory as it is and with half of its captions wrong."""
    noisy = with_wrong_captions(study.records, NOISE, study.config.seed)
    title = f"memory with {100 * noisy.share:.0f} % wrong captions"
    return Section(
        key="baselines",
        title="Is it better than simple baselines?",
        about=(
            "kNN label transfer puts the neighbours' texts in place of the query. Mean of neighbours adds their "
            "weighted mean to queries and prompts. The logit ensemble mixes CLIP's class probabilities with those "
            "of the neighbours' texts. Text-only enrichment adds to each prompt the texts of its nearest "
            "captions, without any image. Of every kind the best variant was chosen by top-1 on development "
            "classes, with the memory as it is, and only then measured here. “ours ahead by” is the difference in "
            "top-1 on the same images, with its 95 % interval, to ours where the same sides are moved; methods that "
            "score a list of classes are compared with ours as it is."
        ),
        tables=(
            _chosen(study.baselines),
            _against(study, "memory as it is", study.full, study.baselines),
            _against(study, title, study.memory(noisy.records), study.baselines),
        ),
    )


def alternatives(study: Study) -> Section:
    """Ours against what users do with pairs instead, on the memory as it is."""
    records, shows = study.records, study.shows
    shown = LabelledImages(records.ids, records.image, shows.pair, shows.number) if shows.known else None
    found = kinds(records, captions_of(records), shown, quick=study.config.quick, seed=study.config.seed)
    chosen = choose(study.dev, study.full, {name: kind.variants for name, kind in found.items()}, study.watch)
    return Section(
        key="alternatives",
        title="What else could be done with the same pairs?",
        about=(
            "A linear adapter moves images and texts by a trained matrix each, so that all images are indexed anew, or "
            "texts alone. Tip-Adapter adds a cache of labelled images to CLIP's scores; label propagation spreads the "
            "labels over a graph of the images first; X-MoRe mixes the class probabilities of an image and of its "
            "neighbours' captions by their confidence. These three score a list of classes and give no vector to "
            "search with. "
            + ("" if shown else "Two of them need the class of each pair, which nothing says here, and are left out. ")
            + "Of every kind the best variant was chosen by top-1 on development classes; it is compared with ours "
            "where the same sides are moved. Adapters are trained on all pairs: they cannot hide a query's own. "
            "Fine-tuning the encoder needs more than vectors: "
            "docs/measurements.md shows it beside these."
        ),
        tables=(
            _chosen(chosen, {name: kind.needs for name, kind in found.items()}),
            _against(study, "memory as it is", study.full, chosen),
        ),
    )


def _chosen(chosen: Sequence[Chosen], needs: Mapping[str, str] | None = None) -> Table:
    """What was chosen of every kind, and what else that kind needs, where it is told."""
    rows: list[dict[str, Cell]] = [
        {"name": c.kind, "sides": moved(c.method), "settings": c.settings, "variants": c.variants, "dev": c.dev_top1}
        for c in chosen
    ]
    for cells in rows:
        if needs:
            cells["needs"] = needs[str(cells["name"])]
    return Table(
        title="chosen on development classes",
        columns=(
            Column(key="name", title="method" if needs else "baseline"),
            SIDES,
            *([Column(key="needs", title="needs, beside the pairs")] if needs else []),
            Column(key="settings", title="best variant"),
            Column(key="variants", title="variants tried", kind="count"),
            Column(key="dev", title="top-1, development", kind="percent"),
        ),
        rows=tuple(rows),
    )


def _against(study: Study, title: str, memory: VectorMemory, others: Sequence[Chosen]) -> Table:
    """Frozen, ours with and without gate, and others, on one memory; each compared with ours that moves the same."""
    alike = {study.ours.sides: study.ours} | {
        one.sides: one for one in (study.ours_like(chosen.method) for chosen in others)
    }
    ours = {sides: study.measure(method, memory) for sides, method in alike.items()}
    rows = [row(study, "frozen CLIP", study.frozen, ahead=study.gain(ours[study.ours.sides]))]
    rows += [row(study, "ours", found, sides=moved(alike[sides])) for sides, found in ours.items()]
    compared: list[tuple[str, Measures]] = [("ours, without gate", replace(study.ours, gate=False))]
    for name, method in study.watch([*compared, *((chosen.kind, chosen.method) for chosen in others)], title):
        outcome = study.measure(method, memory)
        ahead = study.gain(ours[study.ours_like(method).sides], outcome)
        rows.append(row(study, name, outcome, sides=moved(method), ahead=ahead))
    first, *more = columns(study, "")
    last = Column(key="ahead", title="ours ahead by", kind="points")
    return Table(title=title, columns=(first, SIDES, *more, last), rows=tuple(rows), best=("top1",))
