"""The page of advice: the report's, with a card for each thing, its pictures and its look-alikes'."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from ..evaluate.findings import Chart, Findings, Line, Section
from ..files import whole_file
from ..report import Addition, Run, Thumbnails, render_page
from .advice import MemoryAdvice, ThingAdvice
from .forecast import Forecast
from .things import WantedList, key_of

SHOWN = 60
"""Things on the page."""
_PICTURES = 4  # of a thing


@dataclass(frozen=True)
class ThingCard:
    """One thing on the page, with small pictures as data URIs by id."""

    thing: ThingAdvice
    pictures: tuple[tuple[str, str], ...]
    look_alikes: tuple[tuple[str, bool, str | None], ...]


@dataclass
class _RowPictures:
    """Thumbnails of a list's rows."""

    images: Mapping[str, Any]  # id -> picture
    first: Mapping[str, str]  # key of a thing's name -> id of a row of it
    made: Thumbnails = field(default_factory=Thumbnails)

    def of(self, id_: str | None) -> str | None:
        """A small picture of a row; None where there is none, or it cannot be shown."""
        image = None if id_ is None else self.images.get(id_)
        if id_ is None or image is None or isinstance(image, np.ndarray):
            return None
        return self.made.of(id_, image)


def write_page(found: MemoryAdvice, wanted: WantedList, path: Path, command: str) -> None:
    """Write one file that loads nothing.

    Args:
        found: the advice.
        wanted: the list that it is for, with its pictures.
        path: of the page.
        command: that makes it again.

    Raises:
        MissingExtra: jinja2 or matplotlib is not installed.
        DataError: it cannot be written.
    """
    rows = {row.id: row.image for row in wanted.rows}
    pictures = _RowPictures(rows, {key_of(row.words): row.id for row in reversed(wanted.rows) if row.image is not None})
    cards = [_card(one, pictures) for one in found.things[:SHOWN]]
    run = Run("advice", "advice", path.parent, _findings(found, command))
    addition = Addition("reco_plugin.advise", "advise", {"cards": cards, "left": len(found.things) - len(cards)})
    with whole_file(path) as part:
        part.write_text(render_page([run], "What to add next", addition), encoding="utf-8")


def _card(one: ThingAdvice, pictures: _RowPictures) -> ThingCard:
    shown = [(id_, picture) for id_ in one.add[:_PICTURES] if (picture := pictures.of(id_)) is not None]
    alike = [(each.name, each.ahead, pictures.of(pictures.first.get(key_of(each.name)))) for each in one.look_alikes]
    return ThingCard(one, tuple(shown), tuple(alike))


def _findings(found: MemoryAdvice, command: str) -> Findings:
    """What the page shows besides the cards."""
    sections = [reliability(found.forecasts[0])] if found.forecasts else []
    return Findings(
        name="",
        command=command,
        setup={"things": len(found.things), "pairs in the memory": found.pairs, "pictures to add": len(found.order)},
        summary=tuple(f"{sentence[0].upper()}{sentence[1:]}." for sentence in found.summary()),
        sections=tuple(sections),
    )


def reliability(forecast: Forecast) -> Section:
    """How the forecast does on the memory's own questions."""
    middles = tuple(min(int(mean * 10), 9) / 10 + 0.05 for mean, _, _ in forecast.curve)
    lines = (Line(name="as it was", y=tuple(share for _, share, _ in forecast.curve)), Line(name="as said", y=middles))
    chart = Chart(
        title="Own questions that failed, by the forecast",
        x_title="forecast chance that search fails",
        y_title="share that failed",
        x=tuple(round(middle, 2) for middle in middles),
        lines=lines,
    )
    about = (
        f"{len(forecast.failed):,} questions of the memory's own things, each forecast by a fit to the other half of "
        "the things."
    )
    return Section(key="forecast", title="How good is the forecast?", about=about, charts=(chart,))
