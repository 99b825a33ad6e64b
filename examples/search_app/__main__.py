"""``python -m examples.search_app``: build the index once, then search it with plain and with refined queries."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Annotated

import typer

from reco_plugin import Reco
from reco_plugin.cli.commands import reports_errors
from reco_plugin.client import Client
from reco_plugin.errors import DataError

from .catalogue import Catalogue, Product, Query, read_catalogue
from .index import Hit, Index, connect
from .measure import NOT_FOUND, Answer, K, ask, examples, recalls, render
from .page import write_page
from .queries import Source, query_vectors

_SHOWN = 5  # results per side in the terminal
_PROBES = 8  # products that tell whether an index is of this encoder
_WIDTH = 44

app = typer.Typer(add_completion=False)


@app.command()
@reports_errors
def main(
    texts: Annotated[list[str] | None, typer.Argument(help="what to search; without any, figures and examples")] = None,
    folder: Annotated[Path, typer.Option(help="for the index, the memory and the page")] = Path("demo/search"),
    qdrant: Annotated[
        str | None, typer.Option(help="URL of a Qdrant server for the index; a folder when left out")
    ] = None,
    reco: Annotated[
        str | None, typer.Option(help="URL of a `reco serve` to refine with; in process when left out")
    ] = None,
    api_key: Annotated[str | None, typer.Option(envvar="SEARCH_APP_KEY", help="of that service")] = None,
    model: Annotated[Path, typer.Option(help="model folder, when in process")] = Path("triton_models"),
) -> None:
    """Search drawings that lie in Qdrant as plain CLIP vectors, with queries plain and refined, side by side."""
    catalogue = read_catalogue()
    with (
        _source(reco, api_key, model, folder, catalogue) as source,
        closing(connect(qdrant or str(folder / "index"))) as client,
    ):
        index = _ready(Index(client), catalogue.products, source)
        if texts:
            for answer in ask(index, [Query(text, "", "seen") for text in texts], query_vectors(source, texts)):
                print(side_by_side(answer), end="\n\n")
        else:
            report(index, catalogue, source, folder / "index.html")


def report(index: Index, catalogue: Catalogue, source: Source, page: Path) -> list[Answer]:
    """Print figures and examples and write the page; returns all answers.

    Raises:
        DataError: the index changed while it was searched.
    """
    before = index.digest()
    vectors = query_vectors(source, [query.text for query in catalogue.queries])
    if vectors.degraded:
        typer.echo(f"warning: some queries are not refined, because of {vectors.degraded}", err=True)
    answers = ask(index, catalogue.queries, vectors)
    if index.digest() != before:
        raise DataError("the index changed while it was searched, so before and after are not of the same index")
    found, shown = recalls(answers), examples(answers, gains=6, losses=3)
    print(render(found), end="\n\n")
    for answer in shown:
        print(side_by_side(answer), end="\n\n")
    page.parent.mkdir(parents=True, exist_ok=True)
    write_page(page, catalogue.products, found, shown, before)
    print(f"The index was not written to (sha256 {before[:16]} before and after). With pictures: {page}")
    return answers


def side_by_side(answer: Answer) -> str:
    """One query as text: plain on the left, refined on the right, right results marked by a star."""

    def cells(hits: Sequence[Hit], place: int) -> list[str]:
        head = f"(not in the first {K})" if place == NOT_FOUND else f"(right one at {place + 1})"
        lines = [f"{'*' if hit.entity == answer.query.entity else ' '} {hit.score:.2f} {hit.name}" for hit in hits]
        return [head, *lines[:_SHOWN]]

    left, right = cells(answer.before, answer.place_before), cells(answer.after, answer.place_after)
    if not answer.query.entity:  # typed by hand: nobody knows what is right
        left[0], right[0] = "", ""
    left[0], right[0] = f"plain {left[0]}", f"refined {right[0]}"
    rows = [f"  {a[: _WIDTH - 1]:<{_WIDTH}}{b}".rstrip() for a, b in zip(left, right, strict=True)]
    return "\n".join([f"{answer.query.text!r}", *rows])


@contextmanager
def _source(url: str | None, api_key: str | None, model: Path, folder: Path, catalogue: Catalogue) -> Iterator[Source]:
    """What refines: a service as it is, or a Reco whose memory is filled here."""
    if url is not None:
        with Client(url, api_key=api_key) as client:
            yield client
        return
    with Reco.open(model, memory=folder / "memory") as reco:
        if len(reco.memory) < len(catalogue.memory):
            reco.memory.add(catalogue.memory, progress=True)
        yield reco


def _ready(index: Index, products: Sequence[Product], source: Source) -> Index:
    """The index, filled with plain vectors of this encoder where it is not yet."""
    probes = products[:: max(1, len(products) // _PROBES)]
    if not index.holds(probes, source.embed_images([one.image for one in probes], refine=False)):
        print(f"index: {len(products):,} drawings as plain CLIP vectors")
        index.fill(products, source.embed_images([one.image for one in products], refine=False))
    return index


if __name__ == "__main__":
    app()
