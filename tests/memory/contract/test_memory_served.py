"""A memory on a server, by both transports, against the stand-in: what is sent, what is made, what goes wrong."""

from __future__ import annotations

import socket
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from dataclasses import replace
from threading import Thread
from typing import Any

import grpc
import numpy as np
import pytest
import trustme
from live_service import wait_until
from qdrant_client import models
from qdrant_stand_in import Engine, Refusal, StandIn, serving
from qdrant_stand_in.server import Certificate

from reco_plugin.errors import (
    ConfigError,
    MemoryOverloaded,
    MemoryStoreError,
    MemoryTimeout,
    MemoryUnavailable,
)
from reco_plugin.memory import Fingerprint, Memory, open_memory, part_of_a_write
from reco_plugin.memory import connection as memory_server
from reco_plugin.memory.connection import Server
from reco_plugin.settings import MemoryOptions
from reco_plugin.types import Records, Search

pytestmark = pytest.mark.slow

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


# --- what is made


def test_a_collection_is_made_as_the_options_say(server: StandIn, opened: Callable[..., Memory]) -> None:
    asked = {
        "shard_number": 6,
        "replication_factor": 3,
        "vectors": {"on_disk": True, "datatype": "float16", "size": 3},
        "quantization_config": {"scalar": {"type": "int8", "always_ram": True}},
    }
    opened(options={"create_collection": asked})
    made = server.engine.made["reco--v1"]
    assert set(made["vectors_config"]) == {"image", "text"}
    for params in made["vectors_config"].values():
        assert (params.size, params.distance) == (D, models.Distance.COSINE)
        assert (params.on_disk, params.datatype) == (True, models.Datatype.FLOAT16)
    scalar = made["quantization_config"].scalar
    assert (scalar.type, scalar.always_ram) == (models.ScalarType.INT8, True)
    assert (made["shard_number"], made["replication_factor"]) == (6, 3)
    assert made["metadata"]["reco"]["fingerprint"] == {"name": "mini/clip", "digest": "ab" * 32, "dimension": D}


@pytest.mark.parametrize("asked", [{"shards": 6}, {"vectors": 5}, {"quantization_config": {"int8": {}}}])
def test_a_collection_that_qdrant_cannot_make_is_refused(opened: Callable[..., Memory], asked: Any) -> None:
    with pytest.raises(ConfigError, match="create_collection"):
        opened(options={"create_collection": asked})


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
    with pytest.raises(MemoryStoreError, match=r"no version .* is in use"):
        opened()


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


@pytest.mark.parametrize(
    ("status", "text", "message"),
    [
        (404, "Not found: Collection `reco` doesn't exist!", "collection is gone.*reco memory versions"),
        (400, 'Limit exceeded 20 > 10 for "limit". Help: Reduce it', "Limit exceeded 20 > 10"),  # of its strict mode
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
        wait_until(lambda: _listens(server.rest_port))


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
    fails_thrice("retrieve")
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


@pytest.mark.parametrize("scheme", ["http", "https", "grpc", "grpcs"])
def test_nothing_listens(scheme: str) -> None:
    with pytest.raises(MemoryUnavailable, match=rf"{scheme}://127\.0\.0\.1:9.*Is a Qdrant server running there"):
        open_memory(f"{scheme}://127.0.0.1:9", FINGERPRINT, options=MemoryOptions(timeout_s=2))


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


@pytest.mark.parametrize("scheme", ["https", "grpcs", "http", "grpc"])
def test_no_tls_or_an_authority_that_is_not_known(secure: StandIn, scheme: str) -> None:
    with pytest.raises(MemoryUnavailable, match=r"memory_options\.ca_file"):
        open_memory(secure.url(scheme), FINGERPRINT, api_key=KEY, options=MemoryOptions(timeout_s=3))


# --- which limit ended a call


@pytest.fixture
def silent() -> Iterator[int]:
    """Port where connections are accepted and nothing is ever answered."""
    with socket.create_server(("127.0.0.1", 0)) as listening:
        yield listening.getsockname()[1]


def write(url: str, kind: type[Exception], *, within_s: int = 40) -> str:
    """Write to a server, and give what is said."""
    reached = Server.parse(url, options=options(timeout_s=1, write_timeout_s=within_s))
    points = [models.PointStruct(id=1, vector=[1.0])]
    with closing(reached.connect()) as client, pytest.raises(kind) as caught:
        reached.run("write", lambda left: client.upsert("c", points, wait=True, timeout=left), write=True)
    return str(caught.value)


def test_a_late_write_names_the_limit_of_one_attempt(silent: int, scheme: str) -> None:
    said = write(f"{scheme}://127.0.0.1:{silent}", MemoryTimeout)
    assert "raise memory_options.timeout_s;" in said and "may be stored all the same" in said


def test_a_refused_write_names_its_own_setting(server: StandIn, scheme: str) -> None:
    server.engine.refusals["upsert"] = Refusal(429, "Rate limit exceeded", retry_after=50)
    said = write(server.url(scheme), MemoryOverloaded)
    assert "asks to wait 50 s, beyond the 40 s" in said and "raise memory_options.write_timeout_s" in said


def test_a_proxy_that_lets_no_health_check_pass_answers_too() -> None:
    """Else such a server was never asked again, after its first outage."""
    with ThreadPoolExecutor(1) as threads:
        proxy = grpc.server(threads)
        port = proxy.add_insecure_port("127.0.0.1:0")
        proxy.start()
        reached = Server.parse(f"grpc://127.0.0.1:{port}")
        assert reached.answers()
        proxy.stop(None).wait()
        assert not reached.answers()


def test_the_field_of_tenants_is_indexed_as_such(server: StandIn) -> None:
    chosen = options(tenant_field="shop.id")
    with closing(open_memory(server.url("http"), FINGERPRINT, options=chosen)) as memory:
        memory.upsert(pairs(2))
    told = server.engine.last["create_index"]
    assert (told["field"], told["schema"].is_tenant) == ('"shop.id"', True)
    server.engine.refusals["create_index"] = Refusal(403, "Forbidden: Write access is required")
    with closing(open_memory(server.url("http"), FINGERPRINT, options=chosen)) as memory:
        assert memory.count() == 2, "a reader goes without"
