"""``reco compare``: plain and refined queries in an index that exists, before anything is switched."""

from __future__ import annotations

import json
import os
import shlex
import sys
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ..errors import ConfigError, DataError, need
from ..files import as_data_error, in_home, whole_file
from ..options import RefineOptions
from .shared import Given, JsonOption, OpenOptions, print_result, reco_to_read, say, take_flags, takes

if TYPE_CHECKING:
    from ..compare import CompareOptions, Comparison, QueryLog

LIMIT = 1000


@dataclass(frozen=True)
class _Compared(OpenOptions):
    """What is compared."""

    qrels: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE", help="Judgments: lines of `query 0 document grade`, or a table of these three columns."
        ),
    ] = None
    clicks: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="Clicks on interleaved lists: columns unit and team, see docs/compare.md."),
    ] = None
    run: Annotated[
        list[str] | None,
        typer.Option(
            metavar="NAME=FILE",
            help="Instead of INDEX: what an engine found, in TREC's form; repeat it, at least for plain and refined.",
        ),
    ] = None
    function: Annotated[
        str | None,
        typer.Option(
            metavar="FILE.py:NAME",
            help="Instead of INDEX: your own function that searches an engine without an address. The file is run.",
        ),
    ] = None
    verdicts: Annotated[
        list[Path] | None,
        typer.Option(metavar="FILE", help="Marks that a person saved on the page; repeat it for more people."),
    ] = None
    k: Annotated[int, typer.Option("-k", "--results", min=1, max=1000, help="Results of each search.")] = 10
    where: Annotated[
        str | None, typer.Option(metavar="FILTER", help="Filter, in the engine's own language, as in 'price < 20'.")
    ] = None
    limit: Annotated[int, typer.Option(min=1, help="Queries at most; more are drawn from.")] = LIMIT
    seed: Annotated[int, typer.Option(min=0, help="Of what is drawn, and of intervals.")] = 0


@takes(_Compared, RefineOptions, but=("gate", "answered", "exclude", "explain"))
def compare_command(
    index: Annotated[
        str | None,
        typer.Argument(help="Address of the index, as in 'postgresql://host/shop?table=products&text=title'."),
    ] = None,
    *,
    queries: Annotated[
        str | None,
        typer.Option(
            metavar="FILE", help="Real queries: .csv, .tsv, .jsonl (also ubi_queries) or .txt; columns: docs/compare.md"
        ),
    ] = None,
    out: Annotated[
        Path, typer.Option(metavar="DIR", help="Folder for compare.html, compare.json and queries.jsonl.")
    ] = Path("compare"),
    as_json: JsonOption = False,
    given: Given,
) -> None:
    """Search an index by real queries, plain and refined, and say whether to switch. The index is only read.

    With judgments nDCG, recall and MRR of plain, refined, text search and their fusion; always what changes and why,
    what the index misses, and times. On the page, a person can mark thirty queries blind. What it means:
    docs/compare.md
    """
    said = take_flags(_Compared, given)
    if queries is None:
        if index is None and not said.run and said.function is None and (said.verdicts or said.clicks):
            _tell_alone(said, as_json=as_json)
            return
        raise ConfigError("give real queries: --queries FILE")
    if sum((index is not None, bool(said.run), said.function is not None)) != 1:
        raise ConfigError(
            "give the address of an index, or in its place --function FILE.py:NAME, or --run plain=FILE and --run "
            "refined=FILE"
        )
    for module, extra in (("jinja2", "report"), ("scipy", "measure")):
        need(module, "reco compare", extra)
    _check_writable(out)  # not after minutes of searching
    found, pictures = _compare(index, queries, said, given)
    _write(found, out, shlex.join(["reco", *sys.argv[1:]]), pictures, as_json=as_json)


def _check_writable(out: Path) -> None:
    """Refuse a folder that cannot be made or written to, without making it."""
    there = next(place for place in (out.absolute(), *out.absolute().parents) if place.exists())
    if not there.is_dir() or not os.access(there, os.W_OK):
        raise DataError(f"{out} cannot be written to: {there} is {'read-only' if there.is_dir() else 'a file'}")


def _tell_alone(said: _Compared, *, as_json: bool) -> None:
    """Print what marks, and clicks on lists of both, say without any index."""
    from ..compare import read_marks, read_votes

    told: dict[str, Any] = {}
    lines: list[str] = []
    if said.verdicts:
        marks = read_marks(said.verdicts)
        told["marks"] = marks.to_dict()
        lines.append(str(marks))
    if said.clicks is not None:
        votes = read_votes(said.clicks)
        told["votes"] = asdict(votes) | {"p": votes.p}
        lines.append(str(votes))
    say(told, "\n".join(lines), as_json)


def _compare(index: str | None, queries: str, said: _Compared, options: dict[str, Any]) -> tuple[Comparison, Path]:
    from ..compare import FunctionIndex, compare, compare_runs, load_function, read_queries
    from ..engines import open_index, parse_address

    log = read_queries(queries).sample(said.limit, said.seed)
    target = options.pop("target", None)
    if said.run:
        return compare_runs(log, dict(map(_named, said.run)), _asked(said, Path(), target, options)), Path()
    if index is None:
        function, pictures = load_function(said.function or ""), Path()
        asked = _asked(said, pictures, target, options)
        with reco_to_read(said.model, said.existing, on_memory_failure="fail") as reco, _bar(log) as progress:
            if not isinstance(function, FunctionIndex):
                function = FunctionIndex(function, reco.manifest.fingerprint.dimension, name=said.function or "")
            return compare(reco, function, log, asked, progress), pictures
    address = parse_address(index)
    pictures = in_home(address.images or ".")
    asked = _asked(said, pictures, target, options)
    with (
        closing(open_index(address)) as opened,
        reco_to_read(said.model, said.existing, on_memory_failure="fail") as reco,
        _bar(log) as progress,
    ):
        return compare(reco, opened, log, asked, progress), pictures


def _asked(said: _Compared, pictures: Path, target: Any, options: dict[str, Any]) -> CompareOptions:
    from ..compare import CompareOptions, SearchHow, read_judgments, read_marks, read_votes

    return CompareOptions(
        SearchHow(said.k, said.where, said.seed),
        target,
        None if said.qrels is None else read_judgments(said.qrels),
        None if said.clicks is None else read_votes(said.clicks),
        read_marks(said.verdicts) if said.verdicts else None,
        pictures,
        options,  # type: ignore[arg-type]  # of the flags of RefineOptions
    )


def _named(run: str) -> tuple[str, Path]:
    name, found, path = run.partition("=")
    if not found or not name or not path:
        raise ConfigError(f"--run is NAME=FILE, as in plain=plain.run, got {run!r}")
    return name, Path(path)


@contextmanager
def _bar(log: QueryLog) -> Iterator[Any]:
    """A bar over queries that are embedded, and searches."""
    from ..progress import progress_bar

    with progress_bar(total=len(log.queries), desc="embed", unit="query") as bar:

        def tell(count: int, what: str) -> None:
            if what == "searches":
                bar.reset(total=count)
                bar.desc, bar.unit = "search", "search"
            else:
                bar.update(count)

        yield tell


def _write(found: Comparison, out: Path, command: str, pictures: Path, *, as_json: bool) -> None:
    """Write page and figures, and print them."""
    from ..compare.figures import render, rows_of, to_json
    from ..compare.page import write_page

    with as_data_error(f"{out} cannot be made"):
        out.mkdir(parents=True, exist_ok=True)
    told = json.dumps(to_json(found, command), indent=2, ensure_ascii=False)
    with whole_file(out / "queries.jsonl") as part:
        part.write_text("".join(_lines(list(rows_of(found)))), encoding="utf-8")
    with whole_file(out / "compare.json") as part:
        part.write_text(told + "\n", encoding="utf-8")
    page = write_page(found, out, command, pictures)
    print_result(told if as_json else f"{render(found)}\n\npage: {page}")


def _lines(rows: Sequence[dict[str, Any]]) -> list[str]:
    return [json.dumps(row, ensure_ascii=False) + "\n" for row in rows]
