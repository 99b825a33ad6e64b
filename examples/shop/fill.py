"""The demo's drawings as the products of a shop, written into an index of any engine by the engine's own client."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from examples.search_app.catalogue import Product
from reco_plugin.config import load_settings
from reco_plugin.engines import IndexAddress
from reco_plugin.errors import ConfigError
from reco_plugin.types import Vectors

_BATCH = 500


@dataclass(frozen=True)
class Shelf:
    """N products, as rows of an index.

    Attributes:
        rows: of each, sku, title, photo (a path in the folder of pictures), style and place.
        vectors: (N, D), unit-norm.
    """

    rows: Sequence[Mapping[str, Any]]
    vectors: Vectors

    @property
    def dimension(self) -> int:
        """D of the vectors."""
        return int(self.vectors.shape[1])

    def batches(self) -> Iterator[list[dict[str, Any]]]:
        """The rows with their vectors as ``clip``, some at a time."""
        for start in range(0, len(self.rows), _BATCH):
            part = slice(start, start + _BATCH)
            pairs = zip(self.rows[part], self.vectors[part].tolist(), strict=True)
            yield [{**row, "clip": vector} for row, vector in pairs]


FIELDS = {"vector": "clip", "text": "title", "image": "photo", "id": "sku"}
"""How the fields of the index are called, as an address says it."""


def shelve(products: Sequence[Product], vectors: Vectors, pictures: Path) -> Shelf:
    """Products as rows, their pictures as files in a folder."""
    pictures.mkdir(parents=True, exist_ok=True)
    rows = []
    for place, product in enumerate(products):
        name = f"{product.id}.png"
        if not (pictures / name).is_file():
            product.image.save(pictures / name)
        row = {"sku": str(product.id), "title": product.name, "photo": name, "style": product.style, "place": place}
        rows.append(row)
    return Shelf(rows, vectors)


def fill(address: IndexAddress, shelf: Shelf) -> IndexAddress:
    """Make an index anew and put all products into it; returns its address with the names of its fields.

    Raises:
        ConfigError: an engine that this example cannot fill.
    """
    writer = _WRITERS.get(address.scheme)
    if writer is None:
        raise ConfigError(f"this example cannot fill an index of {address.scheme}: one of {', '.join(_WRITERS)}")
    writer(address, shelf)
    return replace(address, **FIELDS)


def _opensearch(address: IndexAddress, shelf: Shelf) -> None:
    from opensearchpy import OpenSearch, helpers

    client = OpenSearch(address.url, http_auth=_login(), verify_certs=address.tls, ca_certs=address.ca_file)
    method = {"name": "hnsw", "engine": "lucene", "space_type": "cosinesimil"}
    properties = {
        "sku": {"type": "keyword"},
        "title": {"type": "text"},
        "photo": {"type": "keyword"},
        "style": {"type": "keyword"},
        "place": {"type": "integer"},
        "clip": {"type": "knn_vector", "dimension": shelf.dimension, "method": method},
    }
    client.indices.delete(index=address.path, ignore_unavailable=True)
    settings = {"index": {"knn": True, "number_of_replicas": 0}}
    client.indices.create(index=address.path, body={"settings": settings, "mappings": {"properties": properties}})
    for rows in shelf.batches():
        helpers.bulk(client, [{"_index": address.path, "_id": row["sku"], "_source": row} for row in rows])
    client.indices.refresh(index=address.path)
    client.close()


def _elasticsearch(address: IndexAddress, shelf: Shelf) -> None:
    from elasticsearch import Elasticsearch, helpers

    login: dict[str, Any] = {"basic_auth": _login()}
    if (key := load_settings().index_api_key) is not None:
        login = {"api_key": key.get_secret_value()}
    with Elasticsearch(address.url, ca_certs=address.ca_file, **login) as client:
        vector = {"type": "dense_vector", "dims": shelf.dimension, "similarity": "cosine"}
        keyword = {"type": "keyword"}
        properties = {"sku": keyword, "title": {"type": "text"}, "photo": keyword, "style": keyword, "clip": vector}
        client.indices.delete(index=address.path, ignore_unavailable=True)
        client.indices.create(index=address.path, mappings={"properties": properties})
        for rows in shelf.batches():
            helpers.bulk(client, [{"_index": address.path, "_id": row["sku"], "_source": row} for row in rows])
        client.indices.refresh(index=address.path)


def _postgresql(address: IndexAddress, shelf: Shelf) -> None:
    import psycopg

    settings = load_settings()
    password = settings.index_password.get_secret_value() if settings.index_password else None
    table = address.options["table"]
    with psycopg.connect(
        host=address.options.get("host", address.host), port=address.port, dbname=address.path,
        user=address.user or settings.index_user, password=password, autocommit=True,
    ) as owner:  # fmt: skip
        owner.execute("CREATE EXTENSION IF NOT EXISTS vector")
        name = psycopg.sql.Identifier(*table.split("."))
        owner.execute(psycopg.sql.SQL("DROP TABLE IF EXISTS {}").format(name))
        owner.execute(
            psycopg.sql.SQL(
                "CREATE TABLE {} (sku text PRIMARY KEY, title text, photo text, style text, place int, clip vector({}))"
            ).format(name, psycopg.sql.Literal(shelf.dimension))
        )
        with owner.cursor().copy(psycopg.sql.SQL("COPY {} FROM STDIN").format(name)) as copy:
            for rows in shelf.batches():
                for row in rows:
                    copy.write_row(
                        [*(row[key] for key in ("sku", "title", "photo", "style", "place")), json.dumps(row["clip"])]
                    )
        owner.execute(psycopg.sql.SQL("CREATE INDEX ON {} USING hnsw (clip vector_cosine_ops)").format(name))


def _milvus(address: IndexAddress, shelf: Shelf) -> None:
    from pymilvus import DataType, MilvusClient

    lite = not address.host
    client = MilvusClient(address.path if lite else address.url)
    name = address.options["collection"] if lite else address.path
    client.drop_collection(name)
    schema = client.create_schema(auto_id=False)
    schema.add_field("sku", DataType.VARCHAR, max_length=64, is_primary=True)
    for field in ("title", "photo", "style"):
        schema.add_field(field, DataType.VARCHAR, max_length=512)
    schema.add_field("place", DataType.INT64)
    schema.add_field("clip", DataType.FLOAT_VECTOR, dim=shelf.dimension)
    index = client.prepare_index_params()
    index.add_index("clip", index_type="HNSW", metric_type="COSINE", params={"M": 16, "efConstruction": 200})
    client.create_collection(name, schema=schema, index_params=index)
    for rows in shelf.batches():
        client.insert(name, rows)
    client.close()


def _lancedb(address: IndexAddress, shelf: Shelf) -> None:
    import lancedb
    import pyarrow as pa

    rows = [row for batch in shelf.batches() for row in batch]
    columns = {key: pa.array([row[key] for row in rows]) for key in shelf.rows[0]}
    columns["clip"] = pa.array([row["clip"] for row in rows], pa.list_(pa.float32(), shelf.dimension))
    database = lancedb.connect(address.path)
    table = database.create_table(address.options["table"], pa.table(columns), mode="overwrite")
    # not its default, IVF_PQ, which loses most of what refinement gains
    table.create_index(metric="cosine", vector_column_name="clip", index_type="IVF_HNSW_SQ", num_partitions=1)


def _login() -> tuple[str, str] | None:
    settings = load_settings()
    if settings.index_user is None or settings.index_password is None:
        return None
    return settings.index_user, settings.index_password.get_secret_value()


_WRITERS: Mapping[str, Callable[[IndexAddress, Shelf], None]] = {
    "opensearch": _opensearch,
    "elasticsearch": _elasticsearch,
    "postgresql": _postgresql,
    "milvus": _milvus,
    "lancedb": _lancedb,
}
