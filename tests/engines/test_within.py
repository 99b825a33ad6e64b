"""Captions, pictures and ids within another field, where the stores of LangChain, LlamaIndex and Haystack keep them."""

from __future__ import annotations

import json
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from reco_plugin.engines import Question, open_index
from reco_plugin.errors import EngineError

from .conftest import Served

ROWS: list[dict[str, Any]] = [
    {"key": "1", "clip": [1.0, 0, 0, 0], "meta": {"sku": "a", "50% title": "a red fox", "photo": {"url": "fox.png"}}},
    {"key": "2", "clip": [0, 1.0, 0, 0], "meta": {"sku": "b", "50% title": "a blue car", "photo": {"url": "car.png"}}},
    {"key": "3", "clip": [0, 0, 1.0, 0], "meta": None},
]
FIELDS = "vector=clip&text=meta.50%25 title&image=meta.photo.url"


def in_postgresql(request: pytest.FixtureRequest, tmp_path: Path, kind: str = "jsonb") -> str:
    """A table with a column of JSON."""
    served: Served = request.getfixturevalue("postgresql")
    assert served.query is not None
    served.query("DROP TABLE IF EXISTS within")
    served.query(f"CREATE TABLE within (key text PRIMARY KEY, clip vector(4), meta {kind})")
    for row in ROWS:
        meta = "NULL" if row["meta"] is None else f"'{json.dumps(row['meta'])}'"
        served.query(f"INSERT INTO within VALUES ('{row['key']}', '{row['clip']}', {meta})")
    served.query("GRANT SELECT ON within TO reader")
    return served.address.partition("&table=")[0] + "&table=within"


def in_lancedb(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """A table with a column of structs."""
    lance, pa = pytest.importorskip("lancedb"), pytest.importorskip("pyarrow")
    photo = pa.struct({"url": pa.string()})
    meta = pa.struct({"sku": pa.string(), "50% title": pa.string(), "photo": photo})
    schema = pa.schema({"key": pa.string(), "clip": pa.list_(pa.float32(), 4), "meta": meta})
    lance.connect(tmp_path).create_table("within", pa.Table.from_pylist(ROWS, schema=schema))
    return f"lancedb:{tmp_path}?table=within&metric=cosine"


def in_milvus(request: pytest.FixtureRequest, tmp_path: Path, *, dynamic: bool = False) -> str:
    """A collection with a field of JSON, or with one outside of its schema."""
    pytest.importorskip("milvus_lite", reason="no Milvus Lite for this platform")
    from milvus_lite.server_manager import server_manager_instance as servers
    from pymilvus import DataType, MilvusClient

    with closing(MilvusClient(str(tmp_path / "shop.db"))) as client:
        schema = client.create_schema(enable_dynamic_field=dynamic)
        schema.add_field("key", DataType.VARCHAR, is_primary=True, max_length=8)
        schema.add_field("clip", DataType.FLOAT_VECTOR, dim=4)
        if not dynamic:
            schema.add_field("meta", DataType.JSON, nullable=True)
        params = client.prepare_index_params()
        params.add_index("clip", index_type="FLAT", metric_type="COSINE")
        client.create_collection("within", schema=schema, index_params=params)
        client.insert("within", ROWS)
        client.flush("within")
    servers.release_server(str(tmp_path / "shop.db"))
    return f"milvus:{tmp_path / 'shop.db'}?collection=within"


MAKE: dict[str, Callable[[pytest.FixtureRequest, Path], str]] = {
    "jsonb": in_postgresql,
    "json": lambda request, path: in_postgresql(request, path, "json"),
    "lancedb": in_lancedb,
    "milvus": in_milvus,
    "milvus-dynamic": lambda request, path: in_milvus(request, path, dynamic=True),
}


@pytest.mark.parametrize("make", MAKE.values(), ids=MAKE)
def test_captions_and_pictures_within_another_field_are_read_and_shown(request, tmp_path, make):
    address = make(request, tmp_path)
    with closing(open_index(f"{address}&{FIELDS}&id=key")) as index:
        (page,) = index.scan()
        hits = index.search(Question(np.asarray([0.8, 0.6, 0, 0], np.float32), k=2))
    read = {one.id: (one.text, one.image, one.problem) for one in page.documents}
    assert read == {"1": ("a red fox", "fox.png", None), "2": ("a blue car", "car.png", None), "3": (None, None, None)}
    assert page.documents[0].payload["meta"]["sku"] == "a"  # stays where it was
    assert [(hit.id, hit.text, hit.image) for hit in hits] == [
        ("1", "a red fox", "fox.png"),
        ("2", "a blue car", "car.png"),
    ]


@pytest.mark.parametrize("make", [in_lancedb, in_milvus])
def test_an_id_may_lie_within_another_field_where_documents_are_not_read_in_its_order(request, tmp_path, make):
    with closing(open_index(f"{make(request, tmp_path)}&vector=clip&id=meta.sku")) as index:
        (page,) = index.scan()
        hits = index.search(Question(np.asarray([0.8, 0.6, 0, 0], np.float32), k=2))
    assert [(one.id, one.problem) for one in page.documents] == [("a", None), ("b", None), ("", "it has no 'meta.sku'")]
    assert [hit.id for hit in hits] == ["a", "b"]


def test_words_within_json_are_searched(request, tmp_path):
    with closing(open_index(f"{in_postgresql(request, tmp_path)}&{FIELDS}")) as index:
        (hit,) = index.search(Question(text="car", k=3))
    assert (hit.id, hit.text) == ("2", "a blue car")


@pytest.mark.parametrize(
    ("make", "fields", "message"),
    [
        (in_lancedb, "id=key&image=meta.foto", r"image='meta\.foto' is no field of within: did you mean 'meta\.photo"),
        (in_postgresql, "id=meta.sku", r"id='meta\.sku' is no field"),
        (in_postgresql, "text=key.sku", r"text='key\.sku' is no field"),
    ],
)
def test_what_lies_within_no_field_is_refused(request, tmp_path, make, fields, message):
    address = f"{make(request, tmp_path)}&vector=clip&{fields}"
    with closing(open_index(address)) as index, pytest.raises(EngineError, match=message):
        index.describe()
