"""Does refinement help search by captions? Recall and nDCG in both directions, each side on or off."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import fields
from typing import Any

from ...findings import Cell, Column, Kind, Section, Table
from ...intervals import Interval
from ...retrieval import retrieval
from ..study import Study

TITLE = "Does it help search by captions?"


def captions(study: Study) -> Section:
    """The retrieval table; without a retrieval set, why there is none."""
    if study.captioned is None:
        return Section(
            key="retrieval",
            title=TITLE,
            about=(
                "Not measured: a labelled set has no captions to search by. Give a retrieval set with --captions "
                "(a table with image and text, .npz, shards, or a folder)."
            ),
        )
    result = retrieval(study.ours.refiners(study.subject.memory)[0], study.captioned)
    rows = [_cells(variant) for variant in study.watch(list(result.variants), "retrieval")]
    kinds = {key: cell for row in rows for key, cell in row.items() if cell is not None}
    columns = [Column(key=key, title=key.replace("_", " "), kind=_kind(key, cell)) for key, cell in kinds.items()]
    return Section(
        key="retrieval",
        title=TITLE,
        about=(
            f"{result.name}: {result.images:,} images, {result.texts:,} texts, searched both ways. What searches is "
            "refined as a query, what is searched as candidates; with the query alone refined, an index that exists "
            "already stays as it is. Gains are differences to frozen CLIP on the same queries, with 95 % bootstrap "
            "intervals drawn over images." + (" With the first model." if len(study.subject.names) > 1 else "")
        ),
        tables=(Table(title="", columns=tuple(columns), rows=tuple(rows)),),
    )


def _cells(variant: Any) -> dict[str, Cell]:
    """A row of whatever the variant holds: words, shares, shares by k, intervals."""
    cells: dict[str, Cell] = {}
    for field in fields(variant):
        value = getattr(variant, field.name)
        if isinstance(value, Mapping):
            name = {"recall": "R"}.get(field.name, field.name)
            cells |= {f"{name}@{k}": share for k, share in value.items()}
        elif isinstance(value, str | int | float | Interval):
            cells[field.name] = value
    frozen = cells.get("refined") == "frozen"
    return {key: None if frozen and isinstance(cell, Interval) else cell for key, cell in cells.items()}


def _kind(key: str, cell: Cell) -> Kind:
    if isinstance(cell, str):
        return "text"
    if isinstance(cell, Interval):
        return "points" if "gain" in key else "percent"
    return "count" if isinstance(cell, int) else "percent"
