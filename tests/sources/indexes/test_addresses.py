"""Addresses, fields and vectors that cannot be used, without any engine."""

from __future__ import annotations

import pytest

from reco_plugin.errors import ConfigError, EngineError, InputError
from reco_plugin.sources.indexes import IndexAddress, open_index, parse_address, similarities
from reco_plugin.sources.indexes.documents import check_fields, make_document, pick_vector, value_of
from reco_plugin.sources.location import is_index_address

pytestmark = pytest.mark.slow

SECRET = "Sesame-open-1"


def test_an_address_of_qdrant_is_an_index_where_it_says_vector() -> None:
    pairs = "http://qdrant:6333?collection=shop&image=photo&text=title"
    assert not is_index_address(pairs)
    assert not is_index_address("https://host/table.csv")
    assert is_index_address(pairs + "&vector=clip")
    assert is_index_address("postgres://host/shop?table=products")
    found = parse_address(pairs + "&vector=clip")
    assert (found.vector, found.text, found.image, found.port) == ("clip", "title", "photo", 6333)
    assert parse_address("grpcs://qdrant?collection=shop").port == 6334


@pytest.mark.parametrize(
    ("address", "says"),
    [
        ("solr://host:8080/product?vector=clip", "solr cannot be opened; `reco compare --function`"),
        (f"postgresql://host/shop?table=a&api_key={SECRET}", "RECO_INDEX_API_KEY"),
        (f"postgresql://me:{SECRET}@host/shop?table=a", "RECO_INDEX_PASSWORD"),
        ("opensearch://host", "names no index"),
        ("postgresql://host/shop", "names no table"),
        ("weaviate://host", "names no collection"),
        pytest.param("lancedb:./shop?table=a&nprobes=0", "above 0", marks=pytest.mark.fetched),
        ("postgresql://host/shop?table=a&timeout_s=no", "timeout_s"),
        ("postgresql://host/shop?table=a&metric=l1", "metric"),
        ("postgresql://host/shop?table=a&vecter=clip", "did you mean 'vector'"),
    ],
)
def test_addresses_that_cannot_be_used(address: str, says: str) -> None:
    with pytest.raises((ConfigError, InputError), match=says) as raised:
        open_index(address).describe()
    assert SECRET not in str(raised.value)


def test_a_key_that_no_header_can_have_is_refused_without_showing_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RECO_INDEX_API_KEY", f"{SECRET}-ключ")
    with pytest.raises(ConfigError, match="RECO_INDEX_API_KEY holds a line break") as caught:
        open_index("opensearch://host/products?vector=clip")
    assert SECRET not in str(caught.value)


@pytest.mark.parametrize(
    ("vector", "says"),
    [
        (None, r"vector=NAME: it has 'clip', 'other'; 'sparse' holds sparse vectors"),
        ("title", "'title' holds text, and refined"),
        ("klip", "did you mean 'clip'"),
    ],
)
def test_the_field_of_the_vectors_must_be_one_of_floats(vector: str | None, says: str) -> None:
    address = IndexAddress("milvus", "milvus://host/shop", vector=vector)
    with pytest.raises(EngineError, match=says):
        pick_vector(address, ["clip", "other"], {"title": "text", "sparse": "sparse vectors"}, "shop")
    assert pick_vector(IndexAddress("milvus", "x"), ["clip"], {}, "shop") == "clip"


def test_values_within_another_field_are_found() -> None:
    address = IndexAddress("milvus", "x", text="meta.title", image="meta.photo.url", id="sku")
    check_fields(address, ["sku", "meta"], "shop")
    with pytest.raises(EngineError, match=r"'meta\.title' is no field"):
        check_fields(address, ["sku", "mete"], "shop")
    values = {"meta": {"title": ["a", "", "fox"], "photo": {"url": "fox.png"}}, "n": 1}
    found = make_document(address, 7, None, dict(values), 4)
    assert (found.id, found.text, found.image, found.payload) == ("7", "a, fox", "fox.png", values)
    assert value_of({"meta": None}, "meta.photo") is None
    assert make_document(address, None, None, {}, 4).problem == "it has no 'sku'"


def test_similarities_are_those_of_the_metric() -> None:
    import numpy as np

    block, query = np.asarray([[3.0, 4.0], [0.0, 0.0]], np.float32), np.asarray([1.0, 0.0], np.float32)
    assert similarities(block, query, "cosine").tolist() == pytest.approx([0.6, 0])
    assert similarities(block, query, "dot").tolist() == [3, 0]
    assert similarities(block, query, "euclid").tolist() == pytest.approx([-(20**0.5), -1])
