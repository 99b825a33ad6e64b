"""``python -m examples.search_app``: build the index once, then search it with plain and with refined queries."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Annotated

import numpy as np
import typer
from qdrant_client import QdrantClient, models

from reco_plugin import Reco
from reco_plugin.cli.commands import reports_errors
from reco_plugin.client import Client
from reco_plugin.types import Vectors

from .catalogue import SPLITS, Catalogue, Product, Query, read_catalogue
from .queries import Source, query_vectors

COLLECTION = "search-app-drawings"
K = 10
_BATCH, _SHOWN, _EXAMPLES, _WIDTH = 256, 5, 6, 44

app = typer.Typer(add_completion=False)


@app.command()
@reports_errors
def main(
    texts: Annotated[list[str] | None, typer.Argument(help="what to search; without any, figures and examples")] = None,
    folder: Annotated[Path, typer.Option(help="for the index and the memory")] = Path("demo/search"),
    qdrant: Annotated[str | None, typer.Option(help="URL of a Qdrant server for the index; else a folder")] = None,
    reco: Annotated[str | None, typer.Option(help="URL of a `reco serve` that refines; else in process")] = None,
    api_key: Annotated[str | None, typer.Option(envvar="SEARCH_APP_KEY", help="of that service")] = None,
    model: Annotated[Path, typer.Option(help="model folder, when in process")] = Path("triton_models"),
) -> None:
    """Search drawings that lie in Qdrant as plain CLIP vectors, with queries plain and refined, side by side."""
    catalogue = read_catalogue()
    folder.mkdir(parents=True, exist_ok=True)
    with (
        _source(reco, api_key, model, folder, catalogue) as source,
        closing(QdrantClient(url=qdrant) if qdrant else QdrantClient(path=str(folder / "index"))) as client,
    ):
        if not client.collection_exists(COLLECTION):
            print(f"index: {len(catalogue.products):,} drawings as plain CLIP vectors")
            fill(
                client, catalogue.products, source.embed_images([one.image for one in catalogue.products], refine=False)
            )
        queries = [Query(text, "", "seen") for text in texts] if texts else catalogue.queries
        vectors = query_vectors(source, [query.text for query in queries])
        if vectors.degraded:
            typer.echo(f"warning: some queries are not refined: {vectors.degraded}", err=True)
        before, after = (search(client, side) for side in (vectors.plain, vectors.refined))
        report(queries, before, after, figures=not texts)


def fill(client: QdrantClient, products: Sequence[Product], vectors: Vectors) -> None:
    """Put products into a new collection, their vectors (N, D) beside them."""
    space = models.VectorParams(size=vectors.shape[1], distance=models.Distance.COSINE)
    client.create_collection(COLLECTION, vectors_config=space)
    for start in range(0, len(products), _BATCH):
        part = slice(start, start + _BATCH)
        points = [
            models.PointStruct(id=one.id, vector=vector.tolist(), payload={"entity": one.entity, "name": one.name})
            for one, vector in zip(products[part], vectors[part], strict=True)
        ]
        client.upsert(COLLECTION, points, wait=True)


def search(client: QdrantClient, vectors: Vectors) -> list[list[models.ScoredPoint]]:
    """The K nearest products of each of (B, D) queries, nearest first."""
    found = list[list[models.ScoredPoint]]()
    for start in range(0, len(vectors), _BATCH):
        asked = [
            models.QueryRequest(query=vector.tolist(), limit=K, with_payload=True)
            for vector in vectors[start : start + _BATCH]
        ]
        found += [answer.points for answer in client.query_batch_points(COLLECTION, asked)]
    return found


def report(
    queries: Sequence[Query],
    before: Sequence[Sequence[models.ScoredPoint]],
    after: Sequence[Sequence[models.ScoredPoint]],
    *,
    figures: bool,
) -> None:
    """Print recall of each split with some queries that rose or fell, or each query that was typed."""
    places = np.array([[place(query, side[n]) for side in (before, after)] for n, query in enumerate(queries)])
    shown = np.arange(len(queries))
    if figures:
        for split in SPLITS:
            rows = places[[query.split == split for query in queries]]
            shares = [f"{100 * (rows[:, side] < k).mean():.1f}" for k in (1, K) for side in (0, 1)]
            print(
                "{}: {:,} queries, R@1 {} -> {} %, R@{} {} -> {} %".format(
                    split, len(rows), *shares[:2], K, *shares[2:]
                )
            )
        change = places[:, 1] - places[:, 0]
        rose = np.flatnonzero(change == change.min())
        shown = np.concatenate([rose[:: -(-len(rose) // _EXAMPLES)], np.argsort(change)[-_EXAMPLES // 2 :]])
    for number in shown:
        print(f"\n{queries[number].text!r}", *side_by_side(queries[number], before[number], after[number]), sep="\n")


def place(query: Query, hits: Sequence[models.ScoredPoint]) -> int:
    """Of the first right result, from 0; K where there is none."""
    return next((n for n, hit in enumerate(hits) if (hit.payload or {})["entity"] == query.entity), K)


def side_by_side(
    query: Query, before: Sequence[models.ScoredPoint], after: Sequence[models.ScoredPoint]
) -> Iterator[str]:
    """Lines of one query: plain on the left, refined on the right, right results marked by a star."""

    def cell(hit: models.ScoredPoint) -> str:
        payload = hit.payload or {}
        return f"{'*' if payload['entity'] == query.entity else ' '} {hit.score:.2f} {payload['name']}"

    yield f"  {'plain':<{_WIDTH}}refined"
    for left, right in zip(before[:_SHOWN], after[:_SHOWN], strict=True):
        yield f"  {cell(left)[: _WIDTH - 1]:<{_WIDTH}}{cell(right)}"


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


if __name__ == "__main__":
    app()
