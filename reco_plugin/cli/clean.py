"""``reco clean``: the captions to look at first, as a table and as a page of keys."""

from __future__ import annotations

import json
import shlex
import sys
from contextlib import closing, nullcontext
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from ..errors import ConfigError, need
from .shared import AllowPrivateUrls, JsonOption, ModelOption, keeps, on_one_line, print_result, reco_of

if TYPE_CHECKING:
    from ..evaluation.clean_report import CleanRecord
    from ..evaluation.labelled_set import LabelledSet

_LISTED = 20


def clean_command(
    source: Annotated[
        str | None,
        typer.Argument(metavar="[SOURCE]", help="Pairs with captions, as for `reco memory build`.", show_default=False),
    ] = None,
    *,
    memory: Annotated[
        str | None, typer.Option(metavar="MEMORY", help="Without a source: judge the captions of this memory.")
    ] = None,
    model: ModelOption = None,
    out: Annotated[
        Path, typer.Option(metavar="FOLDER", help="Write clean.html, and what was encoded, to this folder.")
    ] = Path("clean"),
    show: Annotated[int, typer.Option(min=1, max=1000, help="List this many captions on the page.")] = 100,
    corrections: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="Leave out captions that were decided in this corrections.csv."),
    ] = None,
    as_json: JsonOption = False,
    allow_private_urls: AllowPrivateUrls = False,
) -> None:
    """List the captions that are probably wrong, with suggestions, and write a page to correct them by keys.

    Nothing is sent anywhere and nothing is changed: the page saves corrections.csv, which `reco memory sync
    --corrections` applies. What it means: docs/clean.md
    """
    for module in ("jinja2", "scipy"):
        need(module, "reco clean", "measure")
    from ..evaluation.clean_report import find_wrong, write_clean
    from ..evaluation.report import check_writable
    from ..ingest.corrections import read_corrections

    if (source is None) == (memory is None):
        raise ConfigError("give the source whose captions to judge, or --memory MEMORY: one of them")
    check_writable(out)
    decided = None if corrections is None else read_corrections(corrections)
    with keeps(f"what was encoded so far stays in {out}; the same command goes on from there"):
        labelled = _of_memory(memory) if source is None else _of_source(source, model, out, allow_private_urls)
        record = find_wrong(labelled, show=show, decided=decided, command=shlex.join(["reco", *sys.argv[1:]]))
    page = write_clean(record, out)
    result = json.dumps(record.to_dict(), indent=2, ensure_ascii=False)
    print_result(result if as_json else f"{render(record)}\n\npage: {page}")


def render(record: CleanRecord) -> str:
    """The first captions, each with its suggestion and the reason, and the sentences."""
    listed, sections = list[str](), {"Certain:": record.certain, "Captions that are probably wrong:": record.cards}
    for title, cards in sections.items():
        listed += [title] * bool(cards and record.certain)
        for number, card in enumerate(cards[:_LISTED], 1):
            chance = "" if card.chance is None else f"  {100 * card.chance:.0f} % wrong"
            listed += [f"{number:>3}  {card.name}{chance}", f"     {card.caption}"]
            listed += [f"     -> {card.suggestion}"] * bool(card.suggestion) + [f"     {card.why}"]
    return "\n\n".join(["\n".join(map(on_one_line, listed)), *record.sentences, *record.notes])


def _of_source(source: str, model: str | None, out: Path, allow_private: bool) -> LabelledSet:
    from ..evaluation.labelled_set import ReadOptions, needs_encoder, read_labelled_set
    from ..progress import progress_bar
    from ..settings import load_settings

    reading = ReadOptions(folder=out, allow_private_urls=allow_private, most_damaged=1.0)
    encoded = needs_encoder(source)
    with (
        reco_of(load_settings(memory=":memory:", model=model)) if encoded else nullcontext() as reco,
        progress_bar(desc="read", unit="picture") as bar,
    ):
        if reco is not None:
            reading = replace(reading, encoder=reco.encoder, fingerprint=reco.manifest.fingerprint)
        return read_labelled_set(source, replace(reading, progress=bar.update))


def _of_memory(memory: str | None) -> LabelledSet:
    from ..evaluation.labelled_set import labelled_set_of
    from .shared import MemoryFlags

    with closing(MemoryFlags(memory=memory).open()) as store:
        return labelled_set_of(store)
