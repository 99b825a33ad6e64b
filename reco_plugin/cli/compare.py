"""``reco compare``: search an existing index by plain and refined queries, and report the difference."""

from __future__ import annotations

import shlex
import sys
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ..errors import ConfigError, need
from ..files import in_home
from ..options import RefineOptions
from .shared import AllowPrivateUrls, Given, JsonOption, OpenOptions, reco_of, say, take_flags, takes

if TYPE_CHECKING:
    from ..evaluation.queries import QueryLog
    from ..evaluation.record import Record


@dataclass(frozen=True)
class _Compared(OpenOptions):
    """Options of a comparison."""

    qrels: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="Read judgments: `query 0 document grade` per line, or a table."),
    ] = None
    function: Annotated[
        str | None,
        typer.Option(metavar="FILE.py:NAME", help="Instead of INDEX, call your search function; the file is run."),
    ] = None
    marks: Annotated[
        list[Path] | None,
        typer.Option(metavar="FILE", help="Count a person's marks from the page; repeat the flag for more people."),
    ] = None
    k: Annotated[int, typer.Option("--k", min=1, max=1000, help="Request this many hits per search.")] = 10
    where: Annotated[
        str | None, typer.Option(metavar="FILTER", help="Filter in the engine's own language, as in 'price < 20'.")
    ] = None
    limit: Annotated[int, typer.Option(min=1, help="Use at most this many queries, drawn at random.")] = 1000
    seed: Annotated[int, typer.Option(min=0, help="Draw the queries and the intervals from this seed.")] = 0
    allow_private_urls: AllowPrivateUrls = False


@takes(_Compared, RefineOptions, but=("gate", "exclude", "explain"))
def compare_command(
    index: Annotated[
        str | None,
        typer.Argument(
            metavar="INDEX",
            help="The address of the index, as in 'postgresql://host/shop?table=products&text=title'.",
        ),
    ] = None,
    *,
    queries: Annotated[
        str | None,
        typer.Option(
            metavar="FILE",
            help="Read real queries: .csv, .tsv, .jsonl (also ubi_queries) or .txt; docs/compare.md has the columns.",
        ),
    ] = None,
    out: Annotated[
        Path, typer.Option(metavar="FOLDER", help="Write compare.html, compare.json and queries.jsonl to this folder.")
    ] = Path("compare"),
    as_json: JsonOption = False,
    given: Given,
) -> None:
    """Search an index by real queries, plain and refined, and say what to do. The index is only read.

    Queries are embedded as the service embeds them, words and settings included. With judgments: nDCG of plain,
    refined, text search and both together, by kind of query. On the page, a person can mark thirty queries blind. What
    it means: docs/compare.md
    """
    flags = take_flags(_Compared, given)
    if queries is None:
        raise ConfigError("give real queries: --queries FILE")
    if (index is None) == (flags.function is None):
        raise ConfigError("give the address of an index, or in its place --function FILE.py:NAME")
    for module in ("jinja2", "scipy"):
        need(module, "reco compare", "measure")
    from ..evaluation.report import check_writable, write_record

    check_writable(out)  # not after minutes of searching
    record = _compare(index, queries, flags, given)
    from ..evaluation.table import render

    page = write_record(record, out, "compare")
    say(record.to_dict(), f"{render(record)}\n\npage: {page}", as_json)


def _compare(index: str | None, queries: str, flags: _Compared, options: dict[str, Any]) -> Record:
    from ..evaluation.compare import CompareOptions, compare
    from ..evaluation.function import load_function
    from ..evaluation.judgments import read_judgments
    from ..evaluation.queries import read_queries
    from ..evaluation.search import SearchOptions
    from ..sources.indexes import open_index, parse_address

    log = read_queries(queries).sample(flags.limit, flags.seed)
    address = None if index is None else parse_address(index)
    settings = CompareOptions(
        SearchOptions(flags.k, flags.where, flags.seed),
        options.pop("target", None),
        None if flags.qrels is None else read_judgments(flags.qrels),
        flags.marks or (),
        Path() if address is None else in_home(address.images or "."),
        options,  # type: ignore[arg-type]  # of the flags of RefineOptions
        shlex.join(["reco", *sys.argv[1:]]),
        flags.allow_private_urls,
        address,
    )
    with reco_of(flags.existing, on_memory_failure="fail") as reco, _bar(log) as progress:
        dimension = reco.manifest.fingerprint.dimension
        engine = load_function(flags.function or "", dimension) if address is None else open_index(address)
        with closing(engine):
            return compare(reco, engine, log, settings, progress)


@contextmanager
def _bar(log: QueryLog) -> Iterator[Any]:
    """Show a progress bar over embedded queries, then over searches."""
    from ..progress import progress_bar

    with progress_bar(total=len(log.queries), desc="embed", unit="query") as bar:

        def advance(count: int, what: str) -> None:
            if what == "searches":
                bar.reset(total=count)
                bar.desc, bar.unit = "search", "search"
            else:
                bar.update(count)

        yield advance
