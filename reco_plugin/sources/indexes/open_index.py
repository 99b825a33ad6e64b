"""Indexes of search engines, read where they are: described, scanned and searched, never written to."""

from __future__ import annotations

from ...errors import importing, need
from ...settings import Settings, load_settings
from .address import IndexAddress, is_index, parse_address
from .base import Description, Document, Engine, IndexHit, Question, similarities

__all__ = [
    "Description",
    "Document",
    "Engine",
    "IndexAddress",
    "IndexHit",
    "Question",
    "is_index",
    "open_index",
    "parse_address",
    "similarities",
]


def open_index(address: str | IndexAddress, *, settings: Settings | None = None) -> Engine:
    """Open an index for reading; the engine is asked first when it is described, scanned or searched.

    Args:
        address: as in ``postgresql://host/shop?table=products&vector=clip&text=title``.
        settings: whose ``index_user``, ``index_password`` and ``index_api_key`` are used; None: of the environment.

    Raises:
        ConfigError: an address that cannot be read, an option that this engine does not have, or a key that cannot be
            sent.
        MissingExtra: the engine's client is not installed.
    """
    where = parse_address(address) if isinstance(address, str) else address
    keys = settings or load_settings()
    opened: Engine
    match where.scheme:
        case "postgresql":
            with importing("psycopg", "postgresql", "an index in PostgreSQL"):
                from .postgres import PostgresIndex
            opened = PostgresIndex(where, keys)
        case "milvus":
            extra = "milvus" if where.host else "milvus-lite"
            with importing("pymilvus", extra, "an index in Milvus"):
                from .milvus import MilvusIndex
            if not where.host:
                need("milvus_lite", "a file of Milvus Lite", extra)
            opened = MilvusIndex(where, keys)
        case "lancedb":
            with importing(None, "lancedb", "an index in LanceDB"):
                from .lance import LanceIndex
            opened = LanceIndex(where, keys)
        case "http" | "https" | "grpc" | "grpcs":
            with importing("qdrant_client", "qdrant", "an index in Qdrant"):
                from .qdrant import QdrantIndex
            opened = QdrantIndex(where, keys)
        case "weaviate":
            with importing("weaviate", "weaviate", "an index in Weaviate"):
                from .weaviate import WeaviateIndex
            opened = WeaviateIndex(where, keys)
        case "opensearch":
            with importing("httpx", "opensearch", "an index in OpenSearch"):
                from .rest import OpenSearchIndex
            opened = OpenSearchIndex(where, keys)
        case "elasticsearch":
            with importing("httpx", "elasticsearch", "an index in Elasticsearch"):
                from .rest import ElasticsearchIndex
            opened = ElasticsearchIndex(where, keys)
        case _:
            raise AssertionError(where.scheme)
    return opened
