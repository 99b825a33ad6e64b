"""A memory on a server, by both transports, against the stand-in: what is sent, what is made, what goes wrong."""

from __future__ import annotations

import socket
import time
import uuid
import warnings
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from threading import Thread
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import trustme
from qdrant_client import QdrantClient, models
from qdrant_stand_in import Engine, Refusal, StandIn, serving
from qdrant_stand_in.server import Certificate

from reco_plugin import Pair, Reco
from reco_plugin.config import MemoryOptions
from reco_plugin.errors import (
    ConfigError,
    FingerprintMismatch,
    MemoryOverloaded,
    MemoryStoreError,
    MemoryTimeout,
    MemoryUnavailable,
)
from reco_plugin.memory import Fingerprint, Memory, open_memory, part_of_a_write
from reco_plugin.memory import server as memory_server
from reco_plugin.memory.server import Server, _warn_of_bare_key
from reco_plugin.memory.transfer import copy
from reco_plugin.types import Records, Search

D = 8
FINGERPRINT = Fingerprint("mini/clip", "ab" * 32, D)
SCHEMES = ["http", "grpc"]
KEY = "hush-4711"


def axes(n: int, shift: int = 0) -> np.ndarray:
    return np.eye(D, dtype=np.float32)[(np.arange(n) + shift) % D]


def pairs(n: int) -> Records:
    return Records([f"p{i}" for i in range(n)], axes(n), axes(n, 1), [{"n": i} for i in range(n)])


def options(**chosen: Any) -> MemoryOptions:
    return MemoryOptions(**chosen)


@pytest.fixture
def server() -> Iterator[StandIn]:
    with serving() as running:
        yield running


@pytest.fixture(params=SCHEMES)
def scheme(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def opened(server: StandIn, scheme: str) -> Iterator[Callable[..., Memory]]:
    """Opens a memory on the stand-in by one transport."""
    memories: list[Memory] = []

    def open_(fingerprint: Fingerprint | None = FINGERPRINT, **given: Any) -> Memory:
        chosen = given.pop("options", {})
        memories.append(open_memory(server.url(scheme), fingerprint, options=MemoryOptions(**chosen), **given))
        return memories[-1]

    yield open_
    for memory in memories:
        memory.close()


# --- what a search asks for


def test_a_batch_is_one_request_that_reads_one_vector_and_no_payload(
    server: StandIn, opened: Callable[..., Memory]
) -> None:
    memory = opened()
    memory.upsert(pairs(8))
    server.engine.seen.clear()
    found = memory.search(Search(axes(5), by="image", read="text", k=2, ids=False))
    assert dict(server.engine.seen) == {"query": 1}
    searches = server.engine.last["query"]["searches"]
    assert [(each.using, each.with_vector, each.with_payload, each.limit) for each in searches] == [
        ("image", ["text"], False, 2)
    ] * 5
    np.testing.assert_array_equal(found.vectors[:, 0], axes(5, 1))
    named = memory.search(Search(axes(5), by="image", read="text", k=2))
    assert [ids[0] for ids in named.ids] == ["p0", "p1", "p2", "p3", "p4"]
    np.testing.assert_array_equal(named.vectors, found.vectors)
    assert server.engine.last["query"]["searches"][0].with_payload in (["_reco_id"], _include("_reco_id"))


def _include(*keys: str) -> models.PayloadSelectorInclude:
    return models.PayloadSelectorInclude(include=list(keys))


def test_search_options_are_sent(server: StandIn, opened: Callable[..., Memory]) -> None:
    def params(**chosen: Any) -> models.SearchParams:
        opened(options=chosen).search(Search(axes(1), by="text", read="image", k=300))
        return server.engine.last["query"]["searches"][0].params

    assert params().hnsw_ef == 300  # never less than what is asked for
    assert params(search_ef=512).hnsw_ef == 512
    assert params().quantization is None
    exact = params(exact=True)
    assert (exact.exact, exact.hnsw_ef) == (True, None)
    quantised = params(rescore=True, oversampling=2.0).quantization
    assert (quantised.rescore, quantised.oversampling) == (True, 2.0)


# --- what is made


def test_a_collection_is_made_as_the_options_say(server: StandIn, opened: Callable[..., Memory]) -> None:
    opened(
        options={
            "m": 24,
            "ef_construct": 200,
            "index_on_disk": True,
            "vectors_on_disk": True,
            "payload_on_disk": False,
            "datatype": "float16",
            "quantization": "scalar",
            "quantization_in_ram": True,
            "shards": 6,
            "replicas": 3,
            "write_consistency": 2,
        }
    )
    made = server.engine.made["reco--v1"]
    assert set(made["vectors_config"]) == {"image", "text"}
    for params in made["vectors_config"].values():
        assert (params.size, params.distance) == (D, models.Distance.COSINE)
        assert (params.on_disk, params.datatype) == (True, models.Datatype.FLOAT16)
    index = made["hnsw_config"]
    assert (index.m, index.ef_construct, index.on_disk) == (24, 200, True)
    scalar = made["quantization_config"].scalar
    assert (scalar.type, scalar.always_ram) == (models.ScalarType.INT8, True)
    counts = ("shard_number", "replication_factor", "write_consistency_factor", "on_disk_payload")
    assert tuple(made[name] for name in counts) == (6, 3, 2, False)
    assert made["metadata"]["reco"]["fingerprint"] == {"name": "mini/clip", "digest": "ab" * 32, "dimension": D}


def test_without_options_the_server_decides(server: StandIn, opened: Callable[..., Memory]) -> None:
    opened()
    assert set(server.engine.made["reco--v1"]) == {"vectors_config", "sparse_vectors_config", "metadata"}


@pytest.mark.parametrize(
    ("kind", "field"), [("binary", "binary"), ("product", "product"), ("turbo", "turbo"), ("scalar", "scalar")]
)
def test_every_quantization_can_be_made(server: StandIn, opened: Callable[..., Memory], kind: str, field: str) -> None:
    opened(options={"quantization": kind, "quantization_in_ram": False})
    made = server.engine.made["reco--v1"]["quantization_config"]
    assert getattr(made, field).always_ram is False


def test_several_that_open_a_new_memory_at_once_share_one(server: StandIn, opened: Callable[..., Memory]) -> None:
    made: list[Memory] = []
    threads = [Thread(target=lambda: made.append(opened())) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    made[0].upsert(pairs(3))
    assert [memory.count() for memory in made] == [3] * 6
    assert list(server.engine.made) == ["reco--v1"]


def test_versions_without_an_alias_are_not_guessed_at(
    server: StandIn, opened: Callable[..., Memory], monkeypatch: pytest.MonkeyPatch
) -> None:
    opened().close()
    drop = models.DeleteAliasOperation(delete_alias=models.DeleteAlias(alias_name="reco"))
    server.engine.client.update_collection_aliases([drop])
    monkeypatch.setattr("reco_plugin.memory.collection._ALIAS_S", 0.2)
    for create in (True, False):
        with pytest.raises(MemoryStoreError, match=r"no alias stands for one.*reco memory use reco--v1 --memory"):
            opened(create=create)


def test_nothing_is_written_to_a_collection_of_another_encoder(server: StandIn, opened: Callable[..., Memory]) -> None:
    opened().upsert(pairs(2))
    server.engine.seen.clear()
    with pytest.raises(FingerprintMismatch, match=r"mini/clip.*other/clip"):
        opened(Fingerprint("other/clip", "cd" * 32, D))
    assert set(server.engine.seen) <= {"exists", "get"}


# --- what goes wrong


@pytest.mark.parametrize(("given", "found"), [(None, "none was sent"), ("wrong", "refuses the one that was sent")])
def test_a_missing_or_wrong_key(opened: Callable[..., Memory], server: StandIn, given: Any, found: str) -> None:
    server.engine.key = KEY
    with pytest.raises(MemoryStoreError, match=rf"Check the API key: .*{found}.*RECO_MEMORY_API_KEY") as caught:
        opened(api_key=given)
    assert "docker" not in str(caught.value)
    memory = opened(api_key=KEY)
    memory.upsert(pairs(1))
    server.engine.key = "another-8"
    with pytest.raises(MemoryStoreError, match="Check the API key") as caught:
        memory.count()
    assert KEY not in str(caught.value) + repr(caught.value.__cause__)


@pytest.mark.parametrize("host", ["localhost", "127.0.0.1", "[::1]"])
def test_a_key_may_go_to_this_machine_in_the_clear(host: str) -> None:
    Server.parse(f"http://{host}", KEY, options()).connect().close()  # a warning would be an error


def test_a_key_that_goes_elsewhere_in_the_clear_is_told_once_in_our_words() -> None:
    _warn_of_bare_key.cache_clear()
    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always")
        for url in ("https://q.example", "http://q.example", "grpc://q.example", "http://r.example"):
            chosen = options()
            Server.parse(url, KEY, chosen).connect().close()
    [warning] = told
    shown = warnings.formatwarning(warning.message, warning.category, warning.filename, warning.lineno)
    assert shown.startswith("reco_plugin.memory.server:0: InsecureKeyWarning: RECO_MEMORY_API_KEY is sent")
    assert shown.count("\n") == 1 and KEY not in shown
    with warnings.catch_warnings(), pytest.warns(UserWarning, match="insecure connection"):
        QdrantClient(host="q.example", https=False, api_key=KEY, check_compatibility=False).close()  # not one of ours


STRICT = 'Limit exceeded 20 > 10 for "limit". Help: Reduce the "limit" parameter to or below 10.'


@pytest.mark.parametrize("status", [400, 403])  # newer and older servers
def test_strict_mode(server: StandIn, opened: Callable[..., Memory], status: int) -> None:
    memory = opened()
    server.engine.refusals["query"] = Refusal(status, STRICT)
    with pytest.raises(MemoryStoreError, match=r"Limit exceeded 20 > 10.*strict mode.*ask for less") as caught:
        memory.search(Search(axes(1), by="image", read="text", k=20))
    assert "API key" not in str(caught.value)


INDEX = 'Bad request: Index required but not found for "_reco_trust" of one of the following types: [float]'


def test_a_server_that_wants_an_index_to_tell_unjudged_pairs_gets_one(
    server: StandIn, opened: Callable[..., Memory]
) -> None:
    memory = opened()
    memory.upsert(pairs(3))
    memory.set_witnesses(["p0"], np.ones((1, 3), np.float32))
    server.engine.refusals["count"] = Refusal(400, INDEX, times=1)
    assert (memory.count_unjudged(), sorted(memory.unjudged(9))) == (2, ["p1", "p2"])
    assert server.engine.last["create_index"] == {"collection": "reco", "field": "_reco_trust"}
    assert server.engine.seen["create_index"] == 1


@pytest.mark.parametrize(
    ("status", "text", "message"),
    [
        (404, "Not found: Collection `reco` doesn't exist!", "was deleted or never made.*reco memory versions"),
        (500, "Service internal error: disk full", "disk full"),
        (503, "Service unavailable", "Is a Qdrant server running there"),
    ],
)
def test_what_a_server_says_is_told(
    server: StandIn, opened: Callable[..., Memory], status: int, text: str, message: str
) -> None:
    memory = opened()
    server.engine.refusals["query"] = Refusal(status, text)
    with pytest.raises(MemoryStoreError, match=message):
        memory.search(Search(axes(1), by="image", read="text", k=1))


def test_a_busy_server_is_waited_for_as_long_as_it_asks(server: StandIn, opened: Callable[..., Memory]) -> None:
    memory = opened()
    server.engine.refusals["upsert"] = Refusal(429, "Rate limit exceeded", retry_after=1, times=1)
    start, before = time.monotonic(), server.engine.seen["upsert"]
    memory.upsert(pairs(2))
    assert time.monotonic() - start >= 1
    assert memory.count() == 2
    assert server.engine.seen["upsert"] == before + 2


def test_a_wait_beyond_the_deadline_is_not_begun(
    server: StandIn, opened: Callable[..., Memory], monkeypatch: pytest.MonkeyPatch
) -> None:
    memory = opened(options={"timeout_s": 2})
    server.engine.refusals["query"] = Refusal(429, "Rate limit exceeded", retry_after=30)
    pauses: list[float] = []
    monkeypatch.setattr(memory_server, "time", SimpleNamespace(monotonic=time.monotonic, sleep=pauses.append))
    with pytest.raises(MemoryOverloaded, match=r"wait 30 s, beyond the 2 s.*timeout_s"):
        memory.search(Search(axes(1), by="image", read="text", k=1))
    assert pauses == []
    assert server.engine.seen["query"] == 1


def test_a_server_that_answers_too_late(server: StandIn, opened: Callable[..., Memory]) -> None:
    memory = opened(options={"timeout_s": 1})
    server.engine.refusals["query"] = Refusal(200, delay_s=3)  # who waits for it gets an answer
    with pytest.raises(MemoryTimeout, match=r"no answer in time.*timeout_s"):
        memory.search(Search(axes(1), by="image", read="text", k=1))


def test_a_server_that_is_killed_and_comes_back(server: StandIn, opened: Callable[..., Memory]) -> None:
    memory = opened()
    memory.upsert(pairs(3))
    server.stop()
    try:
        with pytest.raises(MemoryUnavailable, match="Is a Qdrant server running there"):
            memory.count()
        Thread(target=lambda: (time.sleep(0.2), server.start())).start()
        memory.upsert(Records(["late"], axes(1), axes(1), [{}]))  # a write waits for it
        assert memory.count() == 4
    finally:
        _until(lambda: _listens(server.rest_port))


LOST = "Service internal error: 1 of 1 read operations failed: status: Unavailable, message: transport error"


@pytest.mark.parametrize("lost", [Refusal(500, LOST), Refusal(503, "Service unavailable")], ids=["node", "server"])
def test_what_a_write_reads_first_waits_as_a_write_does(server, opened, lost, monkeypatch):
    """As where the node that holds a part of the collection is killed, and another takes over."""
    monkeypatch.setattr(memory_server, "_FIRST_PAUSE_S", 0.005)
    memory = opened(options={"timeout_s": 1})

    def fails_thrice(operation: str) -> None:
        server.engine.refusals[operation] = replace(lost, times=3)

    memory.upsert(pairs(2))
    fails_thrice("retrieve")
    memory.upsert(pairs(4))
    fails_thrice("count")
    assert memory.delete(["p3"]) == 1
    for read in (lambda: list(memory.payloads(["p0"])), lambda: list(memory.scroll(ids=["p0"]))):
        fails_thrice("retrieve")
        with pytest.raises(MemoryUnavailable, match="cannot read the memory"):
            read()  # a read alone is repeated once
        fails_thrice("retrieve")
        with part_of_a_write():
            assert len(read()) == 1


def _listens(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


def _until(true: Callable[[], bool]) -> None:
    end = time.monotonic() + 10
    while not true():
        assert time.monotonic() < end
        time.sleep(0.05)


@pytest.mark.parametrize("scheme", ["http", "https", "grpc", "grpcs"])
def test_nothing_listens(scheme: str) -> None:
    with pytest.raises(MemoryUnavailable, match=rf"{scheme}://127\.0\.0\.1:9.*Is a Qdrant server running there"):
        open_memory(f"{scheme}://127.0.0.1:9", FINGERPRINT, options=MemoryOptions(timeout_s=2))


@pytest.mark.parametrize(("scheme", "port"), [("http", "grpc_port"), ("grpc", "rest_port")])
def test_the_port_of_the_other_protocol(server: StandIn, scheme: str, port: str) -> None:
    chosen = MemoryOptions(timeout_s=3)
    with pytest.raises(
        MemoryUnavailable, match=r"another protocol is used there: REST is http://host:6333, gRPC is grpc://host:6334"
    ):
        open_memory(f"{scheme}://127.0.0.1:{getattr(server, port)}", FINGERPRINT, options=chosen)


def test_a_web_server_that_is_no_qdrant(server: StandIn) -> None:
    with pytest.raises(MemoryStoreError, match="no Qdrant server"):
        open_memory(f"{server.url('http')}/shop", FINGERPRINT)


@pytest.mark.parametrize(
    ("location", "chosen", "message"),
    [
        ("grpc://host/path", {}, "is a gRPC address"),
        ("http://host", {"ca_file": "ca.pem"}, "needs TLS"),
        ("https://host", {"ca_file": "gone.pem"}, r"gone\.pem cannot be read"),
        ("http://", {}, "looks like"),
        ("http://host:port", {}, "looks like"),
        ("http://host:6333?key=1", {}, "looks like"),
        ("qdrant://host", {}, "looks like"),
    ],
)
def test_an_address_that_cannot_be(location: str, chosen: Any, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        open_memory(location, FINGERPRINT, options=MemoryOptions(**chosen))


def test_options_of_a_server_are_refused_by_a_folder(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="shards"):
        open_memory(tmp_path / "m", FINGERPRINT, options=MemoryOptions(shards=2))
    assert not (tmp_path / "m").exists()
    open_memory(":memory:", FINGERPRINT, options=MemoryOptions(shards=2)).close()  # as documented


# --- TLS


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> Certificate:
    """A certificate for 127.0.0.1, signed by an authority that nobody knows."""
    authority = trustme.CA()
    issued = authority.issue_cert("127.0.0.1")
    folder = tmp_path_factory.mktemp("tls")
    made = Certificate(*(folder / name for name in ("chain.pem", "key.pem", "authority.pem")))
    made.chain.write_bytes(b"".join(blob.bytes() for blob in issued.cert_chain_pems))
    made.key.write_bytes(issued.private_key_pem.bytes())
    authority.cert_pem.write_to_path(made.authority)
    return made


@pytest.fixture
def secure(certificate: Certificate) -> Iterator[StandIn]:
    with serving(engine=Engine(key=KEY), certificate=certificate) as running:
        yield running


@pytest.mark.parametrize("scheme", ["https", "grpcs"])
def test_tls_with_the_authority_named(secure: StandIn, certificate: Certificate, scheme: str) -> None:
    chosen = MemoryOptions(timeout_s=3, ca_file=certificate.authority)
    memory = open_memory(secure.url(scheme), FINGERPRINT, api_key=KEY, options=chosen)
    memory.upsert(pairs(2))
    assert memory.search(Search(axes(1), by="image", read="text", k=1)).ids == [["p0"]]
    memory.close()


@pytest.mark.parametrize("scheme", ["https", "grpcs"])
def test_a_certificate_that_is_not_trusted(secure: StandIn, scheme: str) -> None:
    with pytest.raises(MemoryUnavailable, match=r"not trusted here.*memory_options\.ca_file"):
        open_memory(secure.url(scheme), FINGERPRINT, api_key=KEY, options=MemoryOptions(timeout_s=3))


@pytest.mark.parametrize("scheme", ["https", "grpcs"])
def test_tls_towards_a_server_without(server: StandIn, scheme: str) -> None:
    plain = "http://" if scheme == "https" else "grpc://"
    with pytest.raises(MemoryUnavailable, match=rf"Expected TLS, found something else.*write {plain}"):
        open_memory(server.url(scheme), FINGERPRINT, options=MemoryOptions(timeout_s=3))


@pytest.mark.parametrize("scheme", ["http", "grpc"])
def test_no_tls_towards_a_server_with(secure: StandIn, scheme: str) -> None:
    with pytest.raises(MemoryUnavailable, match=r"another protocol.*needs https:// or grpcs://"):
        open_memory(secure.url(scheme), FINGERPRINT, options=MemoryOptions(timeout_s=3))


def test_the_collection_and_ids_of_one_server_do_not_meet(server: StandIn, opened: Callable[..., Memory]) -> None:
    one, other = (opened(collection=f"c-{uuid.uuid4()}") for _ in range(2))
    one.upsert(pairs(2))
    assert (one.count(), other.count()) == (2, 0)


def test_refined_vectors_are_those_of_a_memory_in_ram(
    server: StandIn, scheme: str, model: Path, drawings: list[Pair]
) -> None:
    def refine(reco: Reco) -> np.ndarray:
        images = reco.embed_images([pair.image for pair in drawings[:6]], exclude=[pair.id for pair in drawings[:3]])
        return np.concatenate([images, reco.embed_texts([pair.text for pair in drawings[6:12]])])

    with Reco.open(model, memory=":memory:") as reco:
        reco.memory.add(drawings)
        with closing(open_memory(server.url(scheme), reco.manifest.fingerprint)) as served:
            assert copy(reco.memory.store, served) == len(drawings)  # with the gate's constants
        refined = [refine(reco)]
    with Reco.open(model, memory=server.url(scheme)) as reco:
        refined.append(refine(reco))
    np.testing.assert_allclose(refined[0], refined[1], atol=1e-5)
    assert server.engine.seen["query"] == 3  # a batch of images, one of words, one of texts
