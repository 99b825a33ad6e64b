"""What else could be done with the same pairs? Adapters, a cache of labels, label propagation, X-MoRe."""

from __future__ import annotations

from ...alternatives import LabelledImages, choose_alternatives, kinds
from ...findings import Section
from ..streams import captions_of
from ..study import Study
from .baselines import against, chosen_table


def alternatives(study: Study) -> Section:
    """Ours against what users do with pairs instead, on the memory as it is."""
    records, shows = study.records, study.shows
    shown = LabelledImages(records.ids, records.image, shows.pair, shows.number) if shows.known else None
    found = kinds(records, captions_of(records), shown, quick=study.config.quick, seed=study.config.seed)
    chosen = choose_alternatives(study.dev, study.full, found, study.watch)
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
            + "Of every kind the best variant was chosen by top-1 on development classes. Adapters are trained on all "
            "pairs: they cannot hide a query's own. Fine-tuning the encoder needs more than vectors: "
            "docs/measurements/alternatives.md shows it beside these."
        ),
        tables=(
            chosen_table(chosen, {name: kind.needs for name, kind in found.items()}),
            against(study, "memory as it is", study.full, chosen),
        ),
    )
